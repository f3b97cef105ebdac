//! What of the inbox the model has been shown, and what it has dealt with.
//!
//! The daemon's cursor moves over rows in order, and a model deals with rows as it likes: those of unknown
//! peers it may never ask for. So the cursor follows only as far as all rows before it are dealt with; rows
//! dealt with behind others are remembered here and not shown again. After a restart they are shown once
//! more: rather twice than never.
//!
//! But nobody may stop the cursor for ever by a message that nobody reads: what lies behind would fill the
//! inbox. So when a page is full, or much lies behind, the rows of unknown peers are passed over. They are
//! counted, and other consumers still have them.

use std::collections::BTreeSet;

use axon_client::{Inbox, Kept, Message, Trust};

use super::words::reaches;

/// Rows remembered as shown or dealt with.
const REMEMBERED_MAX: usize = 4096;
/// Rows dealt with behind one that is not shown, before that is passed over: what unknown peers may have of
/// an inbox of the usual size.
const BEHIND_MAX: usize = 250;

/// What came of an `ack`.
#[derive(Debug, PartialEq, Eq)]
pub struct Acked {
    /// Where the daemon's cursor goes, if it goes anywhere.
    pub cursor: Option<u64>,
    /// Rows up to the number given that were never shown and stay unread.
    pub unshown: usize,
}

/// The rows on the desk, by their numbers.
#[derive(Debug, Default)]
pub struct Desk {
    shown: BTreeSet<u64>,
    /// Sent by themselves, to a client that may not pass on what wakes it.
    told: BTreeSet<u64>,
    dealt: BTreeSet<u64>,
    /// How far rows below the floor were passed over, and how many.
    passed: (u64, usize),
}

/// Whether a message is one that an inbox shows. Requests are shown while they are open, not as rows; and
/// progress that says no more than the delegation's state is seen there.
pub fn is_told(message: &Message) -> bool {
    match message.kind.as_str() {
        "query" | "delegate" | "cancel" => false,
        "progress" => message.text("note").is_some(),
        _ => true,
    }
}

impl Desk {
    /// Notes that the model has been shown this row.
    pub fn show(&mut self, seq: u64) {
        self.shown.insert(seq);
        if self.shown.len() > REMEMBERED_MAX {
            // It will have to be shown again before it can be dealt with.
            self.shown.pop_first();
        }
    }

    /// Notes that this row was sent to the client by itself: the model may have seen it.
    pub fn tell(&mut self, seq: u64) {
        self.told.insert(seq);
        if self.told.len() > REMEMBERED_MAX {
            self.told.pop_first();
        }
    }

    /// Notes that the row could not be sent after all.
    pub fn untell(&mut self, seq: u64) {
        self.told.remove(&seq);
    }

    /// Notes that the model has been given what this row says, and needs it no more.
    pub fn settle(&mut self, seq: u64) {
        self.show(seq);
        self.dealt.insert(seq);
        if self.dealt.len() > REMEMBERED_MAX {
            self.dealt.pop_first();
        }
    }

    /// Whether the model has been shown this row by a call of its own.
    pub fn has_shown(&self, seq: u64) -> bool {
        self.shown.contains(&seq)
    }

    /// Whether it has been shown this row, or may have been.
    pub fn has_told(&self, seq: u64) -> bool {
        self.shown.contains(&seq) || self.told.contains(&seq)
    }

    /// The rows that are to be read: all that are not dealt with, from this level on.
    pub fn unread<'a>(&self, rows: &'a [Kept], floor: &Trust) -> Vec<&'a Kept> {
        let unread = |row: &&Kept| {
            row.seq > self.passed.0
                && is_told(&row.envelope)
                && !self.dealt.contains(&row.seq)
                && reaches(row.sender.trust.as_ref(), floor)
        };
        rows.iter().filter(unread).collect()
    }

    /// All rows up to this number that were shown are dealt with. `rows` are all those past the cursor.
    pub fn ack(&mut self, rows: &[Kept], up_to: u64) -> Acked {
        let told = || rows.iter().filter(|row| row.seq <= up_to && is_told(&row.envelope));
        let seen: Vec<u64> = told().map(|row| row.seq).filter(|seq| self.has_told(*seq)).collect();
        self.dealt.extend(seen);
        let unshown = told().filter(|row| !self.dealt.contains(&row.seq)).count();
        Acked { cursor: self.advance(rows), unshown }
    }

    /// How far the cursor has to go, past rows below the floor too, so that what lies behind can be seen. The
    /// page is the first past the cursor.
    pub fn pass(&mut self, page: &Inbox, floor: &Trust) -> Option<u64> {
        let rows = &page.messages;
        let behind = rows.iter().filter(|row| self.dealt.contains(&row.seq)).count();
        if !page.has_more && behind < BEHIND_MAX {
            return None;
        }
        let (before, count) = self.passed;
        // A page may have been asked for before the cursor had moved.
        let waits = |row: &Kept| row.seq > before && is_told(&row.envelope) && !self.dealt.contains(&row.seq);
        let is_kept = |row: &Kept| waits(row) && reaches(row.sender.trust.as_ref(), floor);
        let over: Vec<&Kept> = rows.iter().take_while(|row| !is_kept(row)).collect();
        let last = over.last()?.seq;
        let passed = over.iter().filter(|row| waits(row)).count();
        self.passed = (last.max(before), count + passed);
        self.forget(last);
        Some(last)
    }

    /// How many rows below the floor were passed over.
    pub fn passed(&self) -> usize {
        self.passed.1
    }

    fn forget(&mut self, up_to: u64) {
        self.shown = self.shown.split_off(&(up_to + 1));
        self.told = self.told.split_off(&(up_to + 1));
        self.dealt = self.dealt.split_off(&(up_to + 1));
    }

    /// How far the cursor can go over rows that are dealt with, and those between them that are not shown.
    pub fn advance(&mut self, rows: &[Kept]) -> Option<u64> {
        let mut cursor = None;
        for row in rows {
            if self.dealt.contains(&row.seq) {
                cursor = Some(row.seq);
            } else if is_told(&row.envelope) {
                break;
            }
        }
        if let Some(seq) = cursor {
            self.forget(seq);
        }
        cursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq: u64, kind: &str, trust: &str) -> Kept {
        let text = format!(
            r#"{{"seq":{seq},"buffered_at_ms":1,"trust":"{trust}","envelope":{{"v":1,"id":"m{seq}","from":"f",
            "to":"t","ts":1,"kind":"{kind}","payload":{{}}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn seqs(rows: &[&Kept]) -> Vec<u64> {
        rows.iter().map(|row| row.seq).collect()
    }

    #[test]
    fn the_cursor_stops_before_what_was_not_shown() {
        let mut rows = vec![
            row(1, "notify", "known"),
            row(2, "notify", "unknown"),
            row(3, "query", "known"),
            row(4, "notify", "known"),
            row(5, "progress", "known"),
        ];
        let mut desk = Desk::default();
        let known = desk.unread(&rows, &Trust::Known);
        assert_eq!(seqs(&known), [1, 4]);
        known.iter().for_each(|row| desk.show(row.seq));
        assert_eq!(desk.ack(&rows, 4), Acked { cursor: Some(1), unshown: 1 });
        rows.remove(0);
        // Dealt with behind a gap: not shown again, and not lost either.
        assert!(desk.unread(&rows, &Trust::Known).is_empty());
        assert_eq!(seqs(&desk.unread(&rows, &Trust::Unknown)), [2]);
        desk.show(2);
        assert_eq!(desk.ack(&rows, 2), Acked { cursor: Some(4), unshown: 0 });
    }

    #[test]
    fn what_was_not_shown_cannot_be_acked() {
        let rows = [row(1, "notify", "known"), row(2, "result", "known")];
        let mut desk = Desk::default();
        desk.show(2);
        assert_eq!(desk.ack(&rows, 9), Acked { cursor: None, unshown: 1 });
        assert_eq!(seqs(&desk.unread(&rows, &Trust::Known)), [1]);
        desk.settle(1);
        assert_eq!(desk.advance(&rows), Some(2));
    }

    fn page(messages: Vec<Kept>, has_more: bool) -> Inbox {
        let mut page: Inbox = serde_json::from_str(r#"{"messages":[]}"#).unwrap();
        (page.messages, page.has_more) = (messages, has_more);
        page
    }

    #[test]
    fn a_row_that_nobody_reads_does_not_stop_the_cursor_for_ever() {
        let few = |known: u64| -> Vec<Kept> {
            std::iter::once(row(1, "notify", "unknown"))
                .chain((2..2 + known).map(|seq| row(seq, "notify", "known")))
                .collect()
        };
        let mut desk = Desk::default();
        (2..=5).for_each(|seq| desk.settle(seq));
        assert_eq!(desk.pass(&page(few(4), false), &Trust::Known), None, "there is room");
        assert_eq!(desk.pass(&page(few(4), true), &Trust::Unknown), None, "they were asked for");
        assert_eq!(desk.pass(&page(few(4), true), &Trust::Known), Some(5));
        assert_eq!(desk.pass(&page(few(4), true), &Trust::Known), Some(5), "the same page, looked at twice");
        assert_eq!(desk.passed(), 1);

        let mut desk = Desk::default();
        let many = BEHIND_MAX as u64;
        (2..2 + many).for_each(|seq| desk.settle(seq));
        assert_eq!(desk.pass(&page(few(many + 1), false), &Trust::Known), Some(many + 1));
        assert_eq!(seqs(&desk.unread(&few(many + 1)[1 + BEHIND_MAX..], &Trust::Known)), [many + 2]);

        // What reaches the floor stops it: that is for the model to deal with.
        let rows = vec![row(1, "delegate", "known"), row(2, "notify", "unknown"), row(3, "notify", "known")];
        let mut desk = Desk::default();
        assert_eq!(desk.pass(&page(rows, true), &Trust::Known), Some(2));
        assert_eq!(desk.pass(&page(vec![row(3, "notify", "known")], true), &Trust::Known), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut desk = Desk::default();
        (0..10_000).for_each(|seq| desk.settle(seq));
        assert!(desk.shown.len() <= REMEMBERED_MAX && desk.dealt.len() <= REMEMBERED_MAX);
        assert!(desk.has_shown(9_999) && !desk.has_shown(0));
    }
}
