//! The inbox: messages in the order they came, and how far each consumer has read.
//!
//! Source: `spec/IPC.md`, "Inbox". Kept in memory, bounded by number, bytes and age; the oldest go first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::limits::CONSUMERS_MAX;
use crate::wire::Envelope;

/// One message in the inbox.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number, never used twice.
    pub seq: u64,
    /// When it came, in Unix milliseconds.
    pub at_ms: u64,
    /// The message.
    pub envelope: Arc<Envelope>,
}

/// How much the inbox keeps.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Messages.
    pub rows_max: usize,
    /// Bytes of their envelopes.
    pub bytes_max: usize,
    /// Age.
    pub ttl_ms: u64,
}

/// How far one consumer has read.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    /// Everything up to here is done with.
    acked: u64,
    /// The highest number that it was given.
    delivered: u64,
    /// For finding the least recently used.
    used: u64,
}

/// `ack` past what was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange {
    /// The highest number that was delivered to this consumer.
    pub delivered: u64,
}

/// Messages and cursors.
#[derive(Debug)]
pub struct Mailbox {
    caps: Caps,
    rows: VecDeque<Row>,
    bytes: usize,
    next_seq: u64,
    consumers: HashMap<String, Cursor>,
    uses: u64,
}

impl Mailbox {
    /// An empty inbox.
    pub fn new(caps: Caps) -> Self {
        Self { caps, rows: VecDeque::new(), bytes: 0, next_seq: 1, consumers: HashMap::new(), uses: 0 }
    }

    /// New bounds, at once.
    pub fn set_caps(&mut self, caps: Caps, now_ms: u64) {
        self.caps = caps;
        self.evict(now_ms);
    }

    /// The number that the next message will get.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Appends a message and gives it its number, whether or not the bounds let it stay.
    pub fn push(&mut self, envelope: Arc<Envelope>, now_ms: u64) -> Row {
        let row = Row { seq: self.next_seq, at_ms: now_ms, envelope };
        self.next_seq += 1;
        self.bytes += row.envelope.raw().len();
        self.rows.push_back(row.clone());
        self.evict(now_ms);
        row
    }

    /// Takes a message out before its time: a request that is no longer open.
    pub fn remove(&mut self, seq: u64) {
        if let Ok(at) = self.rows.binary_search_by_key(&seq, |row| row.seq)
            && let Some(row) = self.rows.remove(at)
        {
            self.bytes -= row.envelope.raw().len();
        }
    }

    /// Forgets what is too old.
    pub fn evict(&mut self, now_ms: u64) {
        while let Some(oldest) = self.rows.front() {
            let old = oldest.at_ms.saturating_add(self.caps.ttl_ms) <= now_ms;
            if !old && self.rows.len() <= self.caps.rows_max && self.bytes <= self.caps.bytes_max {
                return;
            }
            self.bytes -= oldest.envelope.raw().len();
            self.rows.pop_front();
        }
    }

    /// Messages after this number, oldest first.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = &Row> {
        let start = self.rows.partition_point(|row| row.seq <= seq);
        self.rows.range(start..)
    }

    /// Where this consumer has read to; makes it known and recently used.
    ///
    /// `in_use` are consumers of attached clients, which never lose their cursor.
    pub fn open(&mut self, consumer: &str, in_use: impl Fn(&str) -> bool) -> u64 {
        self.uses += 1;
        let used = self.uses;
        if let Some(cursor) = self.consumers.get_mut(consumer) {
            cursor.used = used;
            return cursor.acked;
        }
        if self.consumers.len() >= CONSUMERS_MAX {
            let idle = self.consumers.iter().filter(|(name, _)| !in_use(name));
            if let Some(name) = idle.min_by_key(|(_, cursor)| cursor.used).map(|(name, _)| name.clone()) {
                self.consumers.remove(&name);
            }
        }
        self.consumers.insert(consumer.to_owned(), Cursor { used, ..Cursor::default() });
        0
    }

    /// Where this consumer has read to.
    pub fn acked(&self, consumer: &str) -> u64 {
        self.consumers.get(consumer).map_or(0, |cursor| cursor.acked)
    }

    /// Notes that a consumer was given everything up to here.
    pub fn note_delivered(&mut self, consumer: &str, seq: u64) {
        if let Some(cursor) = self.consumers.get_mut(consumer) {
            cursor.delivered = cursor.delivered.max(seq);
        }
    }

    /// Moves a consumer's cursor; it never goes back.
    pub fn ack(&mut self, consumer: &str, up_to: u64) -> Result<u64, OutOfRange> {
        let cursor = self.consumers.entry(consumer.to_owned()).or_default();
        if up_to > cursor.delivered.max(cursor.acked) {
            return Err(OutOfRange { delivered: cursor.delivered.max(cursor.acked) });
        }
        cursor.acked = cursor.acked.max(up_to);
        Ok(cursor.acked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{AgentId, MsgId};
    use crate::wire::{Header, encode, raw_json};

    fn message() -> Arc<Envelope> {
        let (id, agent) = (MsgId::from_random([1; 16]), AgentId([1; 16]));
        let header = Header { id, from: agent, to: agent, ts: 1, kind: "notify", reference: None };
        Arc::new(encode(header, &raw_json("{}".into())).unwrap())
    }
    fn mailbox(rows_max: usize) -> Mailbox {
        Mailbox::new(Caps { rows_max, bytes_max: 1 << 20, ttl_ms: 1_000 })
    }
    fn seqs(mailbox: &Mailbox, after: u64) -> Vec<u64> {
        mailbox.after(after).map(|row| row.seq).collect()
    }

    #[test]
    fn rows_are_numbered_and_bounded_by_number_bytes_and_age() {
        let mut inbox = mailbox(3);
        for _ in 0..5 {
            inbox.push(message(), 0);
        }
        assert_eq!(seqs(&inbox, 0), [3, 4, 5]);
        assert_eq!(seqs(&inbox, 4), [5]);
        inbox.remove(4);
        assert_eq!(seqs(&inbox, 0), [3, 5]);
        let one = message().raw().len();
        inbox.set_caps(Caps { rows_max: 9, bytes_max: one, ttl_ms: 1_000 }, 0);
        assert_eq!(seqs(&inbox, 0), [5]);
        inbox.evict(1_000);
        assert!(seqs(&inbox, 0).is_empty());
        assert_eq!(inbox.bytes, 0);
        assert_eq!(inbox.push(message(), 2_000).seq, 6);
        let mut none = mailbox(0);
        assert_eq!(none.push(message(), 0).seq, 1);
        assert!(seqs(&none, 0).is_empty());
    }

    #[test]
    fn cursors_move_forward_over_what_was_delivered_only() {
        let mut inbox = mailbox(9);
        inbox.open("a", |_| false);
        inbox.push(message(), 0);
        assert_eq!(inbox.ack("a", 1), Err(OutOfRange { delivered: 0 }));
        inbox.note_delivered("a", 1);
        assert_eq!(inbox.ack("a", 1), Ok(1));
        assert_eq!(inbox.ack("a", 0), Ok(1), "never back");
        assert_eq!(inbox.acked("b"), 0);
    }

    #[test]
    fn the_least_recently_used_idle_consumer_goes_first() {
        let mut inbox = mailbox(9);
        for n in 0..CONSUMERS_MAX {
            inbox.open(&n.to_string(), |_| false);
            inbox.note_delivered(&n.to_string(), 5);
            inbox.ack(&n.to_string(), 5).unwrap();
        }
        inbox.open("0", |_| false);
        inbox.open("new", |name| name == "1");
        assert_eq!(inbox.consumers.len(), CONSUMERS_MAX);
        assert_eq!((inbox.acked("0"), inbox.acked("1"), inbox.acked("2")), (5, 5, 0));
    }
}
