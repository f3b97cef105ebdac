//! Who has been shown which message: each subscriber must be shown each once.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::times::Times;

/// A message that was published, until all have been shown it.
#[derive(Debug)]
struct UnderWay {
    n: u64,
    written: Instant,
    /// Who has not been shown it yet, by bit.
    awaited: u32,
}

/// What one subscriber was shown.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// Messages, each counted once.
    pub shown: u64,
    /// The last of them.
    pub last: Option<Instant>,
}

/// What came of a message that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Others wait for it still.
    First,
    /// It was the last one to be shown it.
    Done,
    /// It had been shown it before.
    Again,
}

/// All subscribers, and what is on its way to them.
#[derive(Debug)]
pub struct Shown {
    under_way: VecDeque<UnderWay>,
    /// Each subscriber.
    pub readers: Vec<Reader>,
    /// From the command to the last subscriber.
    pub whole: Times,
    /// From the command to each subscriber.
    pub each: Times,
}

impl Shown {
    /// To so many subscribers, 31 at most.
    pub fn new(readers: usize) -> Self {
        let readers = vec![Reader { shown: 0, last: None }; readers];
        Self { under_way: VecDeque::new(), readers, whole: Times::new(), each: Times::new() }
    }

    /// How many messages are on their way.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// A message goes on its way. Numbers rise.
    pub fn published(&mut self, n: u64, now: Instant) {
        let awaited = (1 << self.readers.len()) - 1;
        self.under_way.push_back(UnderWay { n, written: now, awaited });
    }

    /// A message was refused, and nobody will be shown it; whether it was on its way.
    pub fn refused(&mut self, n: u64) -> bool {
        let at = self.under_way.binary_search_by_key(&n, |one| one.n);
        at.is_ok_and(|at| self.under_way.remove(at).is_some())
    }

    /// A subscriber is shown a message that was published.
    pub fn shown(&mut self, reader: usize, n: u64, now: Instant) -> Seen {
        let bit = 1 << reader;
        let Ok(at) = self.under_way.binary_search_by_key(&n, |one| one.n) else { return Seen::Again };
        let Some(one) = self.under_way.get_mut(at).filter(|one| one.awaited & bit != 0) else {
            return Seen::Again;
        };
        one.awaited &= !bit;
        let (took, done) = (now - one.written, one.awaited == 0);
        self.each.add(took);
        if let Some(reader) = self.readers.get_mut(reader) {
            (reader.shown, reader.last) = (reader.shown + 1, Some(now));
        }
        if !done {
            return Seen::First;
        }
        self.whole.add(took);
        self.under_way.remove(at);
        Seen::Done
    }

    /// Those that have not been shown all that is on its way.
    pub fn waiting(&self) -> usize {
        let awaited = self.under_way.iter().fold(0, |all, one| all | one.awaited);
        awaited.count_ones() as usize
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_message_is_done_when_the_last_has_been_shown_it_once() {
        let (now, mut shown) = (Instant::now(), Shown::new(16));
        let later = |ms| now + Duration::from_millis(ms);
        (0..3).for_each(|n| shown.published(n, now));
        for reader in 0..15 {
            assert_eq!(shown.shown(reader, 1, later(1)), Seen::First);
        }
        assert_eq!(shown.shown(3, 1, later(2)), Seen::Again, "while another waits for it");
        assert_eq!((shown.under_way(), shown.waiting()), (3, 16));
        assert_eq!(shown.shown(15, 1, later(9)), Seen::Done);
        assert_eq!(shown.shown(15, 1, later(9)), Seen::Again, "when nobody waits for it");
        assert!(shown.refused(2) && !shown.refused(2) && !shown.refused(1));
        assert_eq!(shown.shown(0, 0, later(9)), Seen::First);
        assert_eq!((shown.under_way(), shown.waiting()), (1, 15));
        assert_eq!(shown.readers.iter().map(|reader| reader.shown).sum::<u64>(), 17);
        assert_eq!((shown.readers[3].last, shown.readers[15].last), (Some(later(1)), Some(later(9))));
        // The time of the message is that of its last delivery; of 17 deliveries two took as long.
        assert!(shown.whole.part_us(500) >= Some(9_000.0) && shown.each.part_us(500) < Some(1_100.0));
    }
}
