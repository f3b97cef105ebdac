//! What must hold after every step.
//!
//! What a store has confirmed is noted here apart from the node, so that its words can be held against it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::Sim;
use super::clients::text;
use super::published::MESSAGE;
use crate::fault::unwatched;
use crate::limits::REPLAY_FLUSH_MS;
use crate::node::ClientId;
use crate::store::{BODY_PREFIX, Commit, Read, ReadOut, Row, Write};

/// Kinds whose messages lie on disk before anybody sees them.
const KEPT_KINDS: [&str; 4] = ["notify", "delegate", "result", "progress"];

/// What the keys of messages that are set aside begin with.
const ASIDE: &str = "aside/";

/// Whether a word about a message is true.
pub(super) enum Promised {
    Kept,
    Broken(&'static str),
}

/// A row that a store has confirmed.
#[derive(Debug, Clone)]
struct Kept {
    seq: u64,
    kind: Box<str>,
    firm: bool,
}

/// What was promised to whom. Nodes by their place, messages by their ids.
#[derive(Debug, Default)]
pub(super) struct Promises {
    rows: HashMap<(usize, String), Kept>,
    last_row: HashMap<usize, u64>,
    cursors: HashMap<(usize, String), u64>,
    ack_asked: HashMap<usize, u64>,
    results: HashMap<(usize, String), String>,
    /// When which request was answered how.
    finished: BTreeMap<(usize, String, &'static str), u64>,
    holders: HashMap<(usize, String), ClientId>,
    /// Answered with `overloaded`, and not come again since.
    refused: BTreeSet<(usize, String)>,
    /// Answered with `overloaded` at any time: of these there may be rows of several comings.
    taken_anew: BTreeSet<(usize, String)>,
    /// Said to be on the other disk: where, and which.
    delivered: BTreeSet<(usize, String)>,
    /// Set aside while all is paused.
    aside: BTreeSet<(usize, String)>,
    /// Said to be held: where, which, and for whom.
    held: BTreeMap<(usize, String), usize>,
}

impl Promises {
    fn set_aside(&mut self, at: usize, envelope: &[u8]) {
        let envelope: Value = serde_json::from_slice(envelope).unwrap_or_default();
        self.aside.insert((at, text(&envelope, "id").to_owned()));
    }

    pub fn delivered(&self) -> u64 {
        self.delivered.len() as u64
    }

    pub fn cursor(&self, at: usize, consumer: &str) -> u64 {
        self.cursors.get(&(at, consumer.to_owned())).copied().unwrap_or_default()
    }

    pub fn ack_asked(&mut self, at: usize, up_to: u64) {
        let asked = self.ack_asked.entry(at).or_default();
        *asked = (*asked).max(up_to);
    }

    pub fn acked(&mut self, at: usize, consumer: &str, up_to: u64) {
        let cursor = self.cursors.entry((at, consumer.to_owned())).or_default();
        *cursor = (*cursor).max(up_to);
    }

    /// Notes that a request was answered so; whether it had been before.
    pub fn finished(&mut self, at: usize, id: &str, kind: &'static str, now: u64) -> bool {
        self.finished.insert((at, id.to_owned(), kind), now).is_some()
    }

    /// A node has ended by accident: a query of the last second may come again as if for the first time
    /// (WF-REP-3).
    pub fn crashed(&mut self, at: usize, now: u64) {
        let since = now.saturating_sub(REPLAY_FLUSH_MS);
        self.finished.retain(|(host, _, kind), ms| *host != at || *kind != "response" || *ms < since);
    }

    /// A delegation that was answered with `overloaded` may come again under its id, as if for the first
    /// time (WF-REP-9).
    pub fn answered(&mut self, at: usize, answer: &str) {
        if answer.contains("\"kind\":\"error\"") && answer.contains("\"code\":\"overloaded\"") {
            let answer: Value = serde_json::from_str(answer).unwrap_or_default();
            self.refused.insert((at, text(&answer, "ref").to_owned()));
            self.taken_anew.insert((at, text(&answer, "ref").to_owned()));
        }
    }

    /// Notes who has a request; gives who has it besides.
    pub fn handed(&mut self, at: usize, id: &str, client: ClientId) -> Option<ClientId> {
        // Whoever gets it after another says anew whether he takes it.
        self.finished.remove(&(at, id.to_owned(), "ack"));
        self.holders.insert((at, id.to_owned()), client)
    }

    pub fn closed(&mut self, at: usize, id: &str) {
        self.holders.remove(&(at, id.to_owned()));
    }

    pub fn client_gone(&mut self, at: usize, client: ClientId) {
        self.holders.retain(|(host, _), holder| *host != at || *holder != client);
    }

    pub fn node_gone(&mut self, at: usize) {
        self.holders.retain(|(host, _), _| *host != at);
    }

    pub fn some_held(&self, at: usize) -> Option<&str> {
        self.held
            .range((at, String::new())..)
            .next_back()
            .filter(|((host, _), _)| *host == at)
            .map(|((_, id), _)| id.as_str())
    }

    pub fn held_for(&self, at: usize, id: &str) -> Option<usize> {
        self.held.get(&(at, id.to_owned())).copied()
    }

    pub fn all_held(&self) -> Vec<(usize, String)> {
        self.held.keys().cloned().collect()
    }

    pub fn all_delivered(&self) -> Vec<(usize, String)> {
        self.delivered.iter().cloned().collect()
    }

    /// The number of a message's row.
    pub fn row_of(&self, at: usize, id: &str) -> Option<u64> {
        self.rows.get(&(at, id.to_owned())).map(|row| row.seq)
    }

    /// Whether somebody has asked to ack it, so that it may go.
    pub fn may_be_gone(&self, at: usize, id: &str) -> bool {
        let asked = self.ack_asked.get(&at).copied().unwrap_or_default();
        self.rows.get(&(at, id.to_owned())).is_some_and(|row| row.seq <= asked || &*row.kind != "notify")
    }

    /// A node says what became of a message for another.
    pub fn word(&mut self, at: usize, to: Option<usize>, id: &str, state: &str) -> Promised {
        let Some(to) = to else { return Promised::Kept };
        let there = self.rows.get(&(to, id.to_owned()));
        let asked = self.ack_asked.get(&to).copied().unwrap_or_default();
        match state {
            "held" => {
                self.held.insert((at, id.to_owned()), to);
            }
            "delivered" if there.is_none() && !self.aside.contains(&(to, id.to_owned())) => {
                return Promised::Broken("what is delivered is on the other disk");
            }
            "delivered" => {
                self.delivered.insert((to, id.to_owned()));
            }
            "read" if there.is_none_or(|row| row.seq > asked) => {
                return Promised::Broken("what is read was acked");
            }
            _ => {}
        }
        Promised::Kept
    }
}

impl Sim {
    /// A store has confirmed a commit.
    pub fn committed(&mut self, at: usize, commit: &Commit) {
        let rows = self.hosts[at].store.as_ref().map_or(0, crate::store::Store::rows);
        let rows_max = self.hosts[at].settings.buffer_size as u64;
        if rows > rows_max {
            self.wrong(
                at,
                "every queue is within its bound",
                format!("rows of the inbox: {rows} of {rows_max}"),
            );
        }
        self.published.confirmed(at, &commit.writes);
        for write in &commit.writes {
            if let Write::Row { row, firm } = write {
                let last = self.promises.last_row.insert(at, row.seq).unwrap_or_default();
                if row.seq <= last {
                    let what = format!("{} after {last}", row.seq);
                    self.wrong(at, "numbers of rows rise", what);
                }
                self.row_kept(at, row, *firm);
            }
            if let Write::Put { key, value } = write
                && key.strip_prefix(BODY_PREFIX).is_some_and(|key| key.starts_with(ASIDE))
            {
                self.promises.set_aside(at, value);
            }
        }
    }

    fn row_kept(&mut self, at: usize, row: &Row, firm: bool) {
        let envelope: Value = serde_json::from_str(&row.raw).unwrap_or_default();
        let id = text(&envelope, "id").to_owned();
        let kept = Kept { seq: row.seq, kind: row.kind.as_ref().into(), firm };
        if let Some(before) = self.promises.rows.insert((at, id.clone()), kept)
            && before.seq != row.seq
            && !self.promises.refused.remove(&(at, id.clone()))
        {
            let what = format!("{id} as {} and as {}", before.seq, row.seq);
            self.wrong(at, "no message is in two rows", what);
        }
        if &*row.kind == "result" {
            let of = (at, text(&envelope, "ref").to_owned());
            if let Some(before) = self.promises.results.insert(of, id.clone())
                && before != id
            {
                self.wrong(at, "one result a delegation", format!("{before} and {id}"));
            }
        }
    }

    /// A client is shown a row.
    pub fn row_shown(&mut self, at: usize, seq: u64, envelope: &Value) {
        let (id, kind) = (text(envelope, "id"), text(envelope, "kind"));
        if !KEPT_KINDS.contains(&kind) {
            return;
        }
        let kept = self.promises.rows.get(&(at, id.to_owned())).map(|kept| kept.seq);
        // A delegation that was taken anew has a row of each coming; the last one is noted.
        let anew = self.promises.taken_anew.contains(&(at, id.to_owned()));
        let is_there = kept == Some(seq) || anew && kept.is_some_and(|last| seq < last);
        if !is_there {
            let what = format!("{kind} {id} as {seq}, on disk as {kept:?}");
            self.wrong(at, "what is shown is on disk", what);
        }
    }

    /// The rows of a store, straight from it.
    fn stored(&mut self, at: usize) -> Vec<Row> {
        let (mut rows, mut after) = (Vec::new(), 0);
        while let Some(store) = self.hosts[at].store.as_mut() {
            let read = Read::Rows {
                after,
                up_to: u64::MAX,
                kinds: None,
                stop_at_other: false,
                limit: 1_000,
                bytes_max: 1 << 24,
            };
            let ReadOut::Rows(out) = store.read(&read) else { break };
            rows.extend(out.rows);
            if out.next.is_none() || out.scanned_to <= after {
                break;
            }
            after = out.scanned_to;
        }
        rows
    }

    /// The messages that are set aside, straight from the store.
    fn stored_aside(&mut self, at: usize) -> Vec<Vec<u8>> {
        let Some(store) = self.hosts[at].store.as_mut() else { return Vec::new() };
        let mut keys = Vec::new();
        let read = store.items(&mut |key, _| {
            if key.starts_with(ASIDE) {
                keys.push(format!("{BODY_PREFIX}{key}"));
            }
        });
        match read.map(|()| store.read(&Read::Items { keys })) {
            Ok(ReadOut::Items(found)) => found.into_iter().flatten().map(|value| value.to_vec()).collect(),
            _ => Vec::new(),
        }
    }

    /// After a start: what was confirmed, and that nobody has read, is there.
    pub fn kept_is_there(&mut self, at: usize) {
        self.promises.node_gone(at);
        self.topics_are_there(at);
        let (rows, aside) = unwatched(|| (self.stored(at), self.stored_aside(at)));
        let there: BTreeSet<u64> = rows.iter().map(|row| row.seq).collect();
        let asked = self.promises.ack_asked.get(&at).copied().unwrap_or_default();
        let kept = self.promises.rows.iter().filter(|((host, _), _)| *host == at);
        let lost = kept.filter(|(_, row)| {
            // The rows of delegations that have ended may go for others. Those of topics are not promised to
            // who sent them, but to who has subscribed, as long as there is room, and here there is.
            let firm = row.firm && &*row.kind != "delegate" || &*row.kind == MESSAGE;
            firm && row.seq > asked && !there.contains(&row.seq)
        });
        let mut lost: Vec<String> = lost.map(|((_, id), row)| format!("{id} {row:?}")).collect();
        lost.sort_unstable();
        if !lost.is_empty() {
            self.wrong(at, "what was kept outlives the daemon", lost.join(", "));
        }
        let node = self.hosts[at].node.as_ref();
        let cursors = self.promises.cursors.iter().filter(|((host, _), _)| *host == at);
        let back = cursors.filter_map(|((_, consumer), acked)| {
            let now = node?.cursor_of(consumer);
            (now < *acked).then(|| format!("{consumer} was told {acked}, and is at {now} after a start"))
        });
        let mut back: Vec<String> = back.collect();
        back.sort_unstable();
        for what in back {
            self.wrong(at, "cursors never go back", what);
        }
        // What the disk had not confirmed when the power went may be there nevertheless.
        for row in rows {
            self.row_kept_unconfirmed(at, &row);
        }
        aside.iter().for_each(|envelope| self.promises.set_aside(at, envelope));
    }

    fn row_kept_unconfirmed(&mut self, at: usize, row: &Row) {
        let envelope: Value = serde_json::from_str(&row.raw).unwrap_or_default();
        let name = (at, text(&envelope, "id").to_owned());
        let known = self.promises.rows.get(&name);
        let firm = known.is_some_and(|row| row.firm);
        if !self.promises.taken_anew.contains(&name) {
            self.row_kept(at, row, firm);
        } else if known.is_none_or(|known| known.seq < row.seq) {
            // There may be a row of each time that it came: the last one is noted.
            self.promises.rows.insert(name, Kept { seq: row.seq, kind: row.kind.as_ref().into(), firm });
        }
        let last = self.promises.last_row.entry(at).or_default();
        *last = (*last).max(row.seq);
    }

    /// Every queue is within its bound.
    pub fn bounds(&mut self, at: usize) {
        if let Some(what) = self.hosts[at].node.as_ref().and_then(crate::node::Node::over_bounds) {
            self.wrong(at, "every queue is within its bound", what);
        }
    }
}
