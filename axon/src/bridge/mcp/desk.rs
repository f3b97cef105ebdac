//! What of the inbox the model has been shown, and what it has dealt with.
//!
//! The daemon's cursor moves over rows in order, and a model deals with rows as it likes: those of unknown
//! peers it may never ask for. So the cursor follows only as far as all rows before it are dealt with; rows
//! dealt with behind others are remembered here and not shown again. After a restart they are shown once
//! more: rather twice than never.

use std::collections::BTreeSet;

use axon_client::{Kept, Message, Trust};

use super::words::reaches;

/// Rows remembered as shown or dealt with.
const REMEMBERED_MAX: usize = 4096;

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
            is_told(&row.envelope)
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
            self.shown = self.shown.split_off(&(seq + 1));
            self.told = self.told.split_off(&(seq + 1));
            self.dealt = self.dealt.split_off(&(seq + 1));
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

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut desk = Desk::default();
        (0..10_000).for_each(|seq| desk.settle(seq));
        assert!(desk.shown.len() <= REMEMBERED_MAX && desk.dealt.len() <= REMEMBERED_MAX);
        assert!(desk.has_shown(9_999) && !desk.has_shown(0));
    }
}
