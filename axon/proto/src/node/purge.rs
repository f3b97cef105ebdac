//! Peers that are out: nothing that they said is shown any more, and it goes from the disk by and by.
//!
//! Source: `spec/TRUST.md`, "Blocking and forgetting".

use super::Node;
use super::storing::Reading;
use crate::id::AgentId;
use crate::store::{Read, Rows, Write};
use crate::wire::sender;

/// How the keys of peers begin whose rows are to go.
const SHUT: &str = "shut/";
/// Rows that are looked at together.
const ROWS_AT_ONCE: usize = 256;
/// Their bytes.
const BYTES_AT_ONCE: usize = 1 << 20;

impl Node {
    /// From now on nothing is shown that this peer has sent up to now. Gives what is to be stored.
    pub(super) fn shut_out(&mut self, peer: AgentId) -> Vec<Write> {
        let up_to = self.mailbox.next_seq().saturating_sub(1);
        self.shut.insert(peer, up_to);
        let mut writes = vec![Write::put(format!("{SHUT}{peer}"), up_to.to_string())];
        let unread: Vec<u64> =
            self.unread.iter().filter(|(_, unread)| unread.from == peer).map(|(seq, _)| *seq).collect();
        for seq in unread {
            self.unread.remove(&seq);
            writes.push(Self::no_longer_unread(seq));
        }
        writes.extend(self.drop_aside(peer));
        self.purges.insert(peer, 0);
        self.purge_on(peer);
        writes
    }

    /// Whether this row is of a peer that is out since.
    pub(super) fn is_shut(&self, peer: AgentId, seq: u64) -> bool {
        self.shut.get(&peer).is_some_and(|up_to| seq <= *up_to) || self.peers.is_blocked(peer)
    }

    /// Takes over an item of the store; false if it is of no purge.
    pub(super) fn restore_shut(&mut self, key: &str, value: &[u8]) -> bool {
        let Some(peer) = key.strip_prefix(SHUT) else { return false };
        let up_to = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        if let (Ok(peer), Some(up_to)) = (peer.parse(), up_to) {
            self.shut.insert(peer, up_to);
            self.purges.insert(peer, 0);
        }
        true
    }

    /// Goes on with what was begun before the daemon ended.
    pub(super) fn purge_all(&mut self) {
        let peers: Vec<AgentId> = self.purges.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.purge_on(peer));
    }

    fn purge_on(&mut self, peer: AgentId) {
        let (Some(after), Some(up_to)) = (self.purges.get(&peer), self.shut.get(&peer)) else { return };
        let read = Read::Rows {
            after: *after,
            up_to: *up_to,
            kinds: None,
            stop_at_other: false,
            limit: ROWS_AT_ONCE,
            bytes_max: BYTES_AT_ONCE,
        };
        self.read(read, Reading::Purge { peer });
    }

    /// Takes out what was read of a peer that is out, and reads on.
    pub(super) fn purge_read(&mut self, peer: AgentId, rows: &Rows) {
        let theirs = rows.rows.iter().filter(|row| sender(&row.raw) == Some(peer));
        let gone: Vec<u64> = theirs.map(|row| row.seq).collect();
        for seq in &gone {
            self.low_row_read(*seq);
        }
        if !gone.is_empty() {
            self.gone(gone);
        }
        let Some(up_to) = self.shut.get(&peer).copied() else { return };
        let at = rows.next.map_or(rows.scanned_to, |next| next.saturating_sub(1));
        if rows.next.is_some() && at < up_to {
            self.purges.insert(peer, at);
            return self.purge_on(peer);
        }
        self.purges.remove(&peer);
        self.note([Write::delete(format!("{SHUT}{peer}"))]);
        self.debug(format!("what {peer} had sent is out of the inbox"));
    }
}
