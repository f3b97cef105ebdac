//! The inbox: numbers, the order in which rows become visible, and how far each consumer has read.
//!
//! Source: `spec/IPC.md`, "The inbox". What is kept lies in the store; only requests that are open are held
//! here. A row gets its number when it comes and becomes visible when it is on disk and all before it are
//! decided, so that nobody can acknowledge past a row that he has not been shown.

use std::collections::{BTreeMap, VecDeque};

use foldhash::{HashMap, HashSet};

use crate::id::AgentId;
use crate::limits::{CONSUMERS_MAX, SEQ_CLAIM};
use crate::node::ClientId;
use crate::store::{Row, Write};

/// How the names of consumers of scoped sockets begin: they read for themselves alone. Others' names have no
/// such character.
pub const SCOPED: &str = "\u{1}";
/// How the keys of cursors begin.
const CURSOR: &str = "cursor/";
/// The key of the number up to which rows may have been numbered.
const CLAIM: &str = "seq";

/// A row to be shown to clients.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The row.
    pub row: Row,
    /// Who sent it.
    pub from: AgentId,
    /// The client that gets it to answer, and does not need to see it besides.
    pub except: Option<ClientId>,
}

/// How far one consumer has read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Cursor {
    /// Everything up to here is done with.
    acked: u64,
    /// The highest number that it was given.
    delivered: u64,
    /// For finding the least recently used.
    used: u64,
    /// An `ack` up to here is being stored.
    #[serde(skip)]
    acking: u64,
}

/// `ack` past what was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange {
    /// The highest number that was delivered to this consumer.
    pub delivered: u64,
}

/// A row that has its number and is not visible yet.
#[derive(Debug)]
struct Waiting {
    seq: u64,
    /// None while it is being written; then the row, or nothing if it is not kept after all.
    decided: Option<Option<Shown>>,
}

/// Numbers and cursors.
#[derive(Debug)]
pub struct Mailbox {
    next_seq: u64,
    /// Numbers below this one are not used again after a crash.
    claimed: u64,
    /// Whether none is claimed ahead any more.
    ends: bool,
    line: VecDeque<Waiting>,
    /// Rows up to here are visible, or never will be.
    visible: u64,
    /// Requests that are open and not kept, visible or in line.
    open: BTreeMap<u64, Row>,
    consumers: HashMap<String, Cursor>,
    /// Consumers whose cursors are not stored as they are.
    changed: HashSet<String>,
    uses: u64,
    read_up_to: u64,
    /// After an end by accident it is not known what was delivered: anything stored may have been.
    delivered_at_least: u64,
    clean: bool,
}

impl Mailbox {
    /// An inbox whose next row has this number; `clean`: the daemon before was ended properly.
    pub fn new(next_seq: u64, clean: bool) -> Self {
        let next_seq = next_seq.max(1);
        Self {
            next_seq,
            claimed: next_seq,
            ends: false,
            line: VecDeque::new(),
            visible: next_seq - 1,
            open: BTreeMap::new(),
            consumers: HashMap::default(),
            changed: HashSet::default(),
            uses: 0,
            read_up_to: 0,
            delivered_at_least: if clean { 0 } else { next_seq - 1 },
            clean,
        }
    }

    /// Takes over an item of the store; false if it is none of the inbox.
    pub fn restore(&mut self, key: &str, value: &[u8]) -> bool {
        if key == CLAIM {
            let claimed = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(1);
            self.next_seq = self.next_seq.max(claimed);
            self.begin_at(self.next_seq);
            return true;
        }
        let Some(consumer) = key.strip_prefix(CURSOR) else { return false };
        if let Ok(cursor) = serde_json::from_slice::<Cursor>(value) {
            self.uses = self.uses.max(cursor.used);
            if !consumer.starts_with(SCOPED) {
                self.read_up_to = self.read_up_to.max(cursor.acked);
            }
            // Whatever else was lost: no new row may lie below what somebody has acknowledged.
            self.begin_at(self.next_seq.max(cursor.acked.max(cursor.delivered) + 1));
            self.consumers.insert(consumer.to_owned(), cursor);
        }
        true
    }

    fn begin_at(&mut self, next_seq: u64) {
        (self.next_seq, self.claimed, self.visible) = (next_seq, next_seq, next_seq - 1);
        if !self.clean {
            self.delivered_at_least = next_seq - 1;
        }
    }

    /// The number that the next message will get.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Rows up to here are visible.
    pub fn visible(&self) -> u64 {
        self.visible
    }

    /// Up to here some consumer has read.
    pub fn read_up_to(&self) -> u64 {
        self.read_up_to
    }

    /// Claims numbers ahead, when few are left: what is to be stored before they are used up.
    pub fn claim(&mut self) -> Option<Write> {
        let ahead = if self.ends { 0 } else { SEQ_CLAIM };
        if self.next_seq + ahead / 2 <= self.claimed {
            return None;
        }
        self.claimed = self.next_seq + ahead;
        Some(Write::put(CLAIM, self.claimed.to_string()))
    }

    /// Gives back the numbers that were claimed and not used, at the end.
    pub fn unclaim(&mut self) -> Write {
        (self.ends, self.claimed) = (true, self.next_seq);
        Write::put(CLAIM, self.next_seq.to_string())
    }

    /// The number of a row that is about to be written; it waits for [`Self::decide`].
    pub fn number(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.line.push_back(Waiting { seq, decided: None });
        seq
    }

    /// How many rows have their number and are not visible yet.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// A row is written, or will never be; [`Self::next_shown`] gives what has become visible by that.
    pub fn decide(&mut self, seq: u64, row: Option<Shown>) {
        if let Ok(at) = self.line.binary_search_by_key(&seq, |waiting| waiting.seq)
            && let Some(waiting) = self.line.get_mut(at)
            && waiting.decided.is_none()
        {
            waiting.decided = Some(row);
        }
    }

    /// The next row that has become visible, in order, to be shown.
    pub fn next_shown(&mut self) -> Option<Shown> {
        while self.line.front().is_some_and(|waiting| waiting.decided.is_some())
            && let Some(waiting) = self.line.pop_front()
        {
            self.visible = waiting.seq;
            if let Some(shown) = waiting.decided.flatten() {
                return Some(shown);
            }
        }
        None
    }

    /// Holds a request as long as it is open; its number comes from [`Self::number`].
    pub fn hold(&mut self, row: Row) {
        self.open.insert(row.seq, row);
    }

    /// A request that was held is no longer open.
    pub fn release(&mut self, seq: u64) {
        self.open.remove(&seq);
        if let Ok(at) = self.line.binary_search_by_key(&seq, |waiting| waiting.seq)
            && let Some(waiting) = self.line.get_mut(at)
        {
            waiting.decided = Some(None);
        }
    }

    /// Open requests among the rows above one number, up to another.
    pub fn held(&self, after: u64, up_to: u64) -> impl Iterator<Item = &Row> {
        let range = (after < up_to).then(|| self.open.range(after + 1..=up_to));
        range.into_iter().flatten().map(|(_, row)| row)
    }

    // --- cursors ---

    /// Where this consumer has read to; makes it known and recently used.
    ///
    /// `in_use` are consumers of attached clients, which never lose their cursor. Gives also what is to be
    /// stored because another had to go.
    pub fn open(&mut self, consumer: &str, in_use: impl Fn(&str) -> bool) -> (u64, Option<Write>) {
        self.uses += 1;
        let used = self.uses;
        self.changed.insert(consumer.to_owned());
        if let Some(cursor) = self.consumers.get_mut(consumer) {
            cursor.used = used;
            return (cursor.acked, None);
        }
        let mut gone = None;
        if self.consumers.len() >= CONSUMERS_MAX {
            let idle = self.consumers.iter().filter(|(name, _)| !in_use(name));
            if let Some(name) = idle.min_by_key(|(_, cursor)| cursor.used).map(|(name, _)| name.clone()) {
                self.consumers.remove(&name);
                self.changed.remove(&name);
                gone = Some(Write::delete(format!("{CURSOR}{name}")));
            }
        }
        self.consumers.insert(consumer.to_owned(), Cursor { used, ..Cursor::default() });
        (0, gone)
    }

    /// Forgets a consumer; what is to be stored.
    pub fn forget_consumer(&mut self, consumer: &str) -> Option<Write> {
        self.changed.remove(consumer);
        self.consumers.remove(consumer).map(|_| Write::delete(format!("{CURSOR}{consumer}")))
    }

    /// The highest number that this consumer was given.
    pub fn delivered(&self, consumer: &str) -> u64 {
        self.consumers.get(consumer).map_or(0, |cursor| cursor.delivered)
    }

    /// Where this consumer has read to.
    pub fn acked(&self, consumer: &str) -> u64 {
        self.consumers.get(consumer).map_or(0, |cursor| cursor.acked)
    }

    /// Notes that a consumer was given everything up to here.
    pub fn note_delivered(&mut self, consumer: &str, seq: u64) {
        if let Some(cursor) = self.consumers.get_mut(consumer).filter(|cursor| cursor.delivered < seq) {
            cursor.delivered = seq;
            if !self.changed.contains(consumer) {
                self.changed.insert(consumer.to_owned());
            }
        }
    }

    /// Where an `ack` up to here moves a consumer's cursor; it never goes back. [`Self::acked_now`] moves it.
    pub fn ack(&mut self, consumer: &str, up_to: u64) -> Result<(u64, Write), OutOfRange> {
        let cursor = self.consumers.entry(consumer.to_owned()).or_default();
        let delivered = cursor.delivered.max(cursor.acked).max(self.delivered_at_least);
        if up_to > delivered {
            return Err(OutOfRange { delivered });
        }
        cursor.acking = cursor.acked.max(cursor.acking).max(up_to);
        let acked = cursor.acking;
        Ok((acked, write(consumer, &Cursor { acked, ..*cursor })))
    }

    /// A consumer's cursor has moved.
    pub fn acked_now(&mut self, consumer: &str, acked: u64) {
        let cursor = self.consumers.entry(consumer.to_owned()).or_default();
        cursor.acked = cursor.acked.max(acked);
        // What a scoped socket does not see, its agent has not read.
        if !consumer.starts_with(SCOPED) {
            self.read_up_to = self.read_up_to.max(cursor.acked);
        }
        // An older state of it may be on its way to the disk.
        self.changed.insert(consumer.to_owned());
    }

    /// An `ack` could not be stored.
    pub fn not_acked(&mut self, consumer: &str) {
        if let Some(cursor) = self.consumers.get_mut(consumer) {
            cursor.acking = cursor.acked;
        }
    }

    /// A cursor could not be stored: it is stored again, as it is then. False if the key is of no cursor.
    pub fn store_again(&mut self, key: &str) -> bool {
        let Some(consumer) = key.strip_prefix(CURSOR) else { return false };
        if !self.consumers.contains_key(consumer) {
            return false;
        }
        self.changed.insert(consumer.to_owned());
        true
    }

    /// Whether a cursor is not stored as it is.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// All cursors that have changed, to be stored.
    pub fn changed_cursors(&mut self) -> Vec<Write> {
        // While an `ack` is being stored, nothing older may follow it.
        let waits = |cursor: &Cursor| cursor.acking > cursor.acked;
        let names = std::mem::take(&mut self.changed);
        let (later, now): (Vec<String>, Vec<String>) =
            names.into_iter().partition(|name| self.consumers.get(name).is_some_and(waits));
        self.changed.extend(later);
        now.iter().filter_map(|name| Some(write(name, self.consumers.get(name)?))).collect()
    }
}

fn write(consumer: &str, cursor: &Cursor) -> Write {
    Write::put(format!("{CURSOR}{consumer}"), serde_json::to_vec(cursor).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq: u64) -> Row {
        Row { seq, at_ms: 0, kind: "notify".into(), raw: "{}".into() }
    }
    fn shown(seq: u64) -> Option<Shown> {
        Some(Shown { row: row(seq), from: AgentId([0; 16]), except: None })
    }
    fn decide(inbox: &mut Mailbox, seq: u64, row: Option<Shown>) -> Vec<u64> {
        inbox.decide(seq, row);
        std::iter::from_fn(|| inbox.next_shown()).map(|shown| shown.row.seq).collect()
    }

    #[test]
    fn rows_become_visible_in_the_order_of_their_numbers() {
        let mut inbox = Mailbox::new(5, true);
        let numbers: Vec<u64> = (0..4).map(|_| inbox.number()).collect();
        assert_eq!(numbers, [5, 6, 7, 8]);
        assert!(decide(&mut inbox, 6, shown(6)).is_empty());
        assert_eq!((inbox.visible(), inbox.waiting()), (4, 4));
        assert_eq!(decide(&mut inbox, 5, shown(5)), [5, 6]);
        assert_eq!(inbox.waiting(), 2);
        assert!(decide(&mut inbox, 7, None).is_empty());
        assert_eq!(inbox.visible(), 7, "one that is not kept leaves a gap");
        inbox.hold(row(8));
        assert_eq!(inbox.held(4, 9).count(), 1);
        inbox.release(8);
        assert!(decide(&mut inbox, 8, shown(8)).is_empty(), "answered before it could be shown");
        assert_eq!((inbox.held(4, 9).count(), inbox.visible()), (0, 8));
    }

    #[test]
    fn numbers_are_claimed_before_they_are_used() {
        let mut inbox = Mailbox::new(1, true);
        assert_eq!(inbox.claim(), Some(Write::put("seq", (1 + SEQ_CLAIM).to_string())));
        assert_eq!(inbox.claim(), None);
        (0..SEQ_CLAIM / 2 + 1).for_each(|_| _ = inbox.number());
        assert!(inbox.claim().is_some());
        let mut again = Mailbox::new(3, true);
        assert!(again.restore("seq", b"900"));
        assert_eq!((again.number(), again.visible()), (900, 899));
        assert_eq!(again.unclaim(), Write::put("seq", "901"));
        assert_eq!(again.claim(), None, "the end is not undone by what the disk says after it");
        assert_eq!((again.number(), again.claim()), (901, Some(Write::put("seq", "902"))));
    }

    #[test]
    fn cursors_move_forward_over_what_was_delivered_only_and_are_restored() {
        let mut inbox = Mailbox::new(1, true);
        inbox.open("a", |_| false);
        assert_eq!(inbox.ack("a", 1), Err(OutOfRange { delivered: 0 }));
        inbox.note_delivered("a", 2);
        let (acked, Write::Put { key, value }) = inbox.ack("a", 1).unwrap() else { panic!() };
        assert_eq!((acked, inbox.acked("a")), (1, 0), "not before it is stored");
        inbox.acked_now("a", 1);
        assert_eq!(inbox.ack("a", 0).unwrap().0, 1, "never back");
        assert_eq!((inbox.acked("a"), inbox.acked("b")), (1, 0));
        let mut again = Mailbox::new(1, true);
        assert!(again.restore(&key, &value));
        assert_eq!((again.acked("a"), again.ack("a", 2).unwrap().0, again.read_up_to()), (1, 2, 1));
        assert_eq!(again.number(), 3, "no new row below what was delivered");
        // A later `ack` does not fall behind one that is being stored.
        assert_eq!(again.ack("a", 1).unwrap().0, 2);
        again.note_delivered("a", 3);
        assert!(again.changed_cursors().is_empty(), "nothing older may follow it");
        again.acked_now("a", 2);
        assert_eq!(again.changed_cursors().len(), 1);
        assert!(again.ack("a", 4).is_err());
        // Nobody noted what was delivered before an end by accident.
        assert!(Mailbox::new(9, false).ack("a", 8).is_ok());
    }

    #[test]
    fn the_least_recently_used_idle_consumer_goes_first() {
        let mut inbox = Mailbox::new(1, true);
        for n in 0..CONSUMERS_MAX {
            inbox.open(&n.to_string(), |_| false);
            inbox.note_delivered(&n.to_string(), 5);
            inbox.acked_now(&n.to_string(), 5);
        }
        inbox.open("0", |_| false);
        let (_, gone) = inbox.open("new", |name| name == "1");
        assert_eq!(gone, Some(Write::delete("cursor/2")));
        assert_eq!(inbox.consumers.len(), CONSUMERS_MAX);
        assert_eq!((inbox.acked("0"), inbox.acked("1"), inbox.acked("2")), (5, 5, 0));
    }

    #[test]
    fn a_cursor_is_stored_when_it_has_changed_and_only_then() {
        let mut inbox = Mailbox::new(5, true);
        assert_eq!(inbox.next_seq(), 5);
        inbox.open("a", |_| false);
        inbox.changed_cursors();
        assert!(!inbox.has_changed() && inbox.changed_cursors().is_empty());
        inbox.note_delivered("a", 7);
        assert!(inbox.has_changed());
        assert_eq!(inbox.changed_cursors().len(), 1);
        inbox.note_delivered("a", 7);
        assert!(!inbox.has_changed(), "it is where it was");
        // One that the disk refused comes again, as it is then.
        assert!(inbox.store_again(&format!("{CURSOR}a")) && inbox.has_changed());
        assert_eq!(inbox.changed_cursors().len(), 1);
        assert!(!inbox.store_again(&format!("{CURSOR}b")) && !inbox.store_again("a") && !inbox.has_changed());
        // While an ack is on its way to the disk nothing older may follow it; when it failed, it may.
        inbox.ack("a", 6).unwrap();
        inbox.store_again(&format!("{CURSOR}a"));
        assert!(inbox.changed_cursors().is_empty() && inbox.has_changed());
        inbox.not_acked("a");
        assert_eq!((inbox.changed_cursors().len(), inbox.acked("a")), (1, 0));
        assert_eq!(inbox.forget_consumer("a"), Some(Write::delete(format!("{CURSOR}a"))));
        assert_eq!(inbox.forget_consumer("a"), None);
    }

    #[test]
    fn after_a_crash_what_may_have_been_given_may_be_acked() {
        assert_eq!(Mailbox::new(5, true).ack("a", 4).map(|_| ()), Err(OutOfRange { delivered: 0 }));
        let mut crashed = Mailbox::new(5, false);
        assert_eq!(crashed.ack("a", 4).map(|(acked, _)| acked), Ok(4));
        assert_eq!(crashed.ack("a", 5).map(|_| ()), Err(OutOfRange { delivered: 4 }));
        // Numbers that were claimed count as used, for none is ever used twice.
        for (clean, delivered) in [(true, 0), (false, 9)] {
            let mut inbox = Mailbox::new(5, clean);
            assert!(inbox.restore(CLAIM, b"10"));
            assert_eq!((inbox.number(), inbox.visible()), (10, 9));
            assert_eq!(inbox.ack("a", 10).map(|_| ()), Err(OutOfRange { delivered }), "{clean}");
        }
    }
}
