//! While a peer, or everything, is paused: requests are turned away, and what is told is set aside on disk.
//!
//! Source: `spec/TRUST.md`, "Pausing". What was set aside comes as if it came now, once it may.

use std::collections::{BTreeMap, HashSet};

use super::arrivals::Aside;
use super::storing::Reading;
use super::{Node, Now};
use crate::error::{PeerCode, Refusal};
use crate::family::Inbound;
use crate::fault::has_room;
use crate::id::AgentId;
use crate::limits::{PAUSED_BYTES_MAX, PAUSED_MAX};
use crate::store::{BODY_PREFIX, Read, Write};
use crate::wire::decode;

/// How the keys of what is set aside begin; the envelope's has [`BODY_PREFIX`] before it.
const ASIDE: &str = "aside/";
/// When a request that was turned away may come again.
const AGAIN_MS: u64 = 60_000;

/// Messages that wait until their senders are resumed.
#[derive(Debug, Default)]
pub(super) struct SetAside {
    waiting: BTreeMap<u64, Waits>,
    next_n: u64,
    bytes: usize,
    /// One is on its way into the inbox.
    busy: bool,
}

#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Waits {
    from: AgentId,
    bytes: usize,
    /// Its sender was told that it is kept.
    firm: bool,
}

impl Node {
    /// Turns a request away whose sender is paused.
    pub(super) fn paused_refusal(&self) -> Refusal {
        let why = "this agent is paused by its owner: try again later";
        Refusal::new(PeerCode::Overloaded, why).after(AGAIN_MS)
    }

    /// What is stored when a message is set aside; none when there is no room.
    pub(super) fn set_aside(&mut self, now: Now, message: &Inbound) -> Option<(u64, Vec<Write>)> {
        let bytes = message.envelope.raw().len();
        let from = message.envelope.from;
        // No sender takes more than half of the room, and all that are unknown no more than a quarter.
        let low = self.is_low(now, from);
        let (mut messages, mut sum) = (0, 0);
        for waits in self.set_aside.waiting.values() {
            if waits.from == from || (low && self.is_low(now, waits.from)) {
                (messages, sum) = (messages + 1, sum + waits.bytes);
            }
        }
        let part = if low { 4 } else { 2 };
        let share = messages < PAUSED_MAX / part && sum + bytes <= PAUSED_BYTES_MAX / part;
        let aside = &mut self.set_aside;
        let has = share && aside.waiting.len() < PAUSED_MAX && aside.bytes + bytes <= PAUSED_BYTES_MAX;
        if !has_room("messages set aside", has) {
            return None;
        }
        aside.next_n += 1;
        let n = aside.next_n;
        let waits = Waits { from: message.envelope.from, bytes, firm: message.stream.is_some() };
        aside.bytes += bytes;
        aside.waiting.insert(n, waits);
        let key = format!("{ASIDE}{n:016x}");
        let small = serde_json::to_vec(&waits).unwrap_or_default();
        Some((
            n,
            vec![
                Write::put(format!("{BODY_PREFIX}{key}"), &**message.envelope.raw()),
                Write::put(key, small),
            ],
        ))
    }

    /// One that could not be stored.
    pub(super) fn not_set_aside(&mut self, n: u64) {
        if let Some(waits) = self.set_aside.waiting.remove(&n) {
            self.set_aside.bytes -= waits.bytes;
        }
    }

    /// Takes over an item of the store; false if it is none that was set aside.
    pub(super) fn restore_aside(&mut self, key: &str, value: &[u8]) -> bool {
        let Some(n) = key.strip_prefix(ASIDE) else { return false };
        if let (Ok(n), Ok(waits)) = (u64::from_str_radix(n, 16), serde_json::from_slice::<Waits>(value)) {
            self.set_aside.next_n = self.set_aside.next_n.max(n);
            self.set_aside.bytes += waits.bytes;
            self.set_aside.waiting.insert(n, waits);
        }
        true
    }

    /// Takes out what a peer that is out had sent.
    pub(super) fn drop_aside(&mut self, peer: AgentId) -> Vec<Write> {
        let theirs = self.set_aside.waiting.iter().filter(|(_, waits)| waits.from == peer);
        let gone: Vec<u64> = theirs.map(|(n, _)| *n).collect();
        for n in &gone {
            self.not_set_aside(*n);
        }
        gone.into_iter().flat_map(no_longer_aside).collect()
    }

    /// A peer has another id: what it had sent is the new one's. Gives what is to be stored.
    pub(super) fn aside_succeeds(&mut self, old: AgentId, new: AgentId) -> Vec<Write> {
        let theirs = self.set_aside.waiting.iter_mut().filter(|(_, waits)| waits.from == old);
        let moved = theirs.map(|(n, waits)| {
            waits.from = new;
            Write::put(format!("{ASIDE}{n:016x}"), serde_json::to_vec(waits).unwrap_or_default())
        });
        moved.collect()
    }

    /// How many messages wait for a resume.
    pub(super) fn aside_count(&self) -> usize {
        self.set_aside.waiting.len()
    }

    /// Lets in what may come now, one after another.
    pub(super) fn release_aside(&mut self, now: Now) {
        if self.set_aside.busy || self.stopping || self.started.is_none() {
            return;
        }
        let waiting = self.set_aside.waiting.iter();
        // Unknown peers have their share of the inbox and no more; what is over it waits on.
        let over = |waits: &Waits| self.is_low(now, waits.from) && self.low_is_full(waits.bytes);
        let stays = |waits: &Waits| self.peers.is_paused(waits.from) || over(waits);
        // Of one sender nothing overtakes what stays.
        let mut staying = HashSet::new();
        let comes = |(n, waits): (&u64, &Waits)| {
            let stays = staying.contains(&waits.from) || stays(waits);
            if stays {
                staying.insert(waits.from);
            }
            (!stays).then_some(*n)
        };
        let next = waiting.filter_map(comes).next();
        let Some(n) = next else { return };
        self.set_aside.busy = true;
        let keys = vec![format!("{BODY_PREFIX}{ASIDE}{n:016x}")];
        self.read(Read::Items { keys }, Reading::Aside { n });
    }

    /// What was set aside has been read: it comes now.
    pub(super) fn aside_read(&mut self, now: Now, n: u64, value: Option<&[u8]>) {
        let Some(waits) = self.set_aside.waiting.get(&n).copied() else { return self.aside_done(now) };
        let envelope = value.and_then(|value| decode(value.to_vec()).ok());
        // Its sender may be out by now, or paused again; what is damaged is lost, and the store says so.
        if self.peers.is_paused(waits.from) {
            return self.aside_done(now);
        }
        let Some(envelope) = envelope.filter(|_| !self.peers.is_blocked(waits.from)) else {
            self.not_set_aside(n);
            self.note(no_longer_aside(n));
            return self.aside_done(now);
        };
        let known = self.kinds.get(envelope.kind());
        // Both may have another key since it came.
        let envelope = std::sync::Arc::new(envelope).readdressed(waits.from, self.me);
        let message =
            Inbound { envelope, conn: super::ConnId(0), stream: None, seq: None, at_ms: now.wall_ms };
        let aside = Aside { n, firm: waits.firm, writes: no_longer_aside(n) };
        self.arrive_from_aside(now, message, known, aside);
    }

    /// One is in the inbox, or was refused; or will be tried again.
    pub(super) fn aside_came(&mut self, now: Now, n: u64, done: bool) {
        if done {
            self.not_set_aside(n);
            return self.aside_done(now);
        }
        // The sweep tries again.
        self.set_aside.busy = false;
    }

    fn aside_done(&mut self, now: Now) {
        self.set_aside.busy = false;
        self.release_aside(now);
    }
}

/// What is stored when one does not wait any more.
fn no_longer_aside(n: u64) -> Vec<Write> {
    let key = format!("{ASIDE}{n:016x}");
    vec![Write::delete(format!("{BODY_PREFIX}{key}")), Write::delete(key)]
}
