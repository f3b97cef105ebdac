//! Envelope ids that were seen, so that a message repeated by anyone is taken once.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Replay". Ids are remembered by sender: when the table is full, the sender
//! that fills most of it loses its oldest, so that one peer cannot push out another's.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;

use foldhash::HashMap;
use foldhash::quality::RandomState;

use crate::id::{AgentId, MsgId};
use crate::limits::{
    LONG_IDS_PER_PEER_MAX, LONG_IDS_RESTORED_MAX, REPLAY_FLUSH_MS, REPLAY_IDS_MAX, REPLAY_TTL_MS,
    REPLAY_UNWRITTEN_MAX, RESEND_MS_MAX,
};
use crate::node::Seen;
use crate::recent::{Identified, Recent};

/// The ids seen, by sender, and those not yet written to disk.
///
/// The id of a message that its sender may send again for longer than the usual time is kept that long. A
/// sender has few such messages under way at a time, and sends them in their order: of older ones it knows
/// that they have arrived, and their ids are kept for the usual time only.
#[derive(Debug)]
pub struct Replay {
    /// Makes the prints of ids.
    hasher: RandomState,
    /// By sender. What came first expires first: all are kept equally long.
    senders: HashMap<AgentId, Recent<Short>>,
    count: usize,
    count_max: usize,
    /// By sender, oldest first.
    long: HashMap<AgentId, VecDeque<(MsgId, u64)>>,
    unwritten: Vec<Seen>,
}

/// An id that is kept for the usual time: there may be 100,000, so what is kept is a print of 64 bits. Two
/// ids of one sender have the same once in 10^14 messages, or when it tries: the second is then its own loss.
#[derive(Debug, Clone, Copy)]
struct Short {
    print: [u8; 8],
    /// Unix milliseconds, little endian: enough for as long as years have four digits.
    until_ms: [u8; 6],
}

impl Short {
    fn new(print: Print, until_ms: u64) -> Self {
        let [a, b, c, d, e, f, ..] = until_ms.min((1 << 48) - 1).to_le_bytes();
        Self { print: print.0, until_ms: [a, b, c, d, e, f] }
    }

    fn until_ms(&self) -> u64 {
        let [a, b, c, d, e, f] = self.until_ms;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

/// What is left of an id. Made with a secret of this run, so that nobody can say which ids have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Print([u8; 8]);

impl Identified for Short {
    type Id = Print;
    fn id(&self) -> Print {
        Print(self.print)
    }
}

impl Replay {
    /// Begins with what the disk remembered.
    pub fn new(remembered: &[Seen], wall_ms: u64) -> Self {
        let mut replay = Self {
            hasher: RandomState::default(),
            senders: HashMap::default(),
            count: 0,
            count_max: REPLAY_IDS_MAX,
            long: HashMap::default(),
            unwritten: Vec::new(),
        };
        for seen in remembered.iter().filter(|seen| seen.until_ms > wall_ms) {
            // An id from the future (the clock went back) must not stay for ever.
            let until_ms = seen.until_ms.min(wall_ms.saturating_add(RESEND_MS_MAX));
            replay.insert(Seen { until_ms, ..*seen }, LONG_IDS_RESTORED_MAX, wall_ms);
        }
        replay
    }

    /// Whether an id was seen and is still remembered.
    pub fn knows(&mut self, from: AgentId, id: MsgId, wall_ms: u64) -> bool {
        self.forget_expired(from, wall_ms);
        self.has_short(from, id)
            || self
                .long
                .get(&from)
                .is_some_and(|ids| ids.iter().any(|(of, until_ms)| *of == id && *until_ms > wall_ms))
    }

    /// Whether an id is among those that are remembered, be its time over or not.
    pub fn has(&self, from: AgentId, id: MsgId) -> bool {
        self.has_short(from, id)
            || self.long.get(&from).is_some_and(|ids| ids.iter().any(|(of, _)| *of == id))
    }

    fn has_short(&self, from: AgentId, id: MsgId) -> bool {
        self.senders.get(&from).is_some_and(|ids| ids.get(self.print(id)).is_some())
    }

    fn print(&self, id: MsgId) -> Print {
        Print(self.hasher.hash_one(id).to_le_bytes())
    }

    /// Remembers an id and gives what is to be stored with its message.
    pub fn remember(&mut self, from: AgentId, id: MsgId, until_ms: u64, wall_ms: u64) -> Seen {
        let seen = Seen { from, id, until_ms };
        self.insert(seen, LONG_IDS_PER_PEER_MAX, wall_ms);
        seen
    }

    /// Remembers an id for the usual time; it is written with the next batch.
    pub fn remember_lazily(&mut self, from: AgentId, id: MsgId, wall_ms: u64) {
        let seen = self.remember(from, id, wall_ms.saturating_add(REPLAY_TTL_MS), wall_ms);
        self.write_lazily(seen);
    }

    /// Has an id written with the next batch, where the store does not outlive the daemon.
    pub fn write_lazily(&mut self, seen: Seen) {
        self.unwritten.push(seen);
    }

    /// Forgets an id whose message was refused before it was taken: it may come again.
    pub fn forget(&mut self, from: AgentId, id: MsgId) {
        let print = self.print(id);
        if self.senders.get_mut(&from).is_some_and(|ids| ids.remove(print)) {
            self.count -= 1;
        }
        if let Some(ids) = self.long.get_mut(&from) {
            ids.retain(|(of, _)| *of != id);
        }
    }

    /// A sender has another id: what it sent under the old one, it does not send again under the new one.
    ///
    /// In memory: after a restart the old id is remembered as it was written.
    pub fn succeed(&mut self, old: AgentId, new: AgentId) {
        if let Some(ids) = self.senders.remove(&old) {
            let of_new = self.senders.entry(new).or_default();
            let mut all: Vec<Short> =
                [ids, std::mem::take(of_new)].iter_mut().flat_map(Recent::take_all).collect();
            all.sort_by_key(Short::until_ms);
            self.count -= all.into_iter().filter(|one| !of_new.push(*one)).count();
        }
        if let Some(long) = self.long.remove(&old) {
            self.long.entry(new).or_default().extend(long);
        }
    }

    /// What is to be appended to the record on disk.
    pub fn take_unwritten(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.unwritten)
    }

    /// How long what is unwritten may wait for more: not at all, where there is much of it.
    pub fn flush_ms(&self) -> u64 {
        if self.unwritten.len() < REPLAY_UNWRITTEN_MAX { REPLAY_FLUSH_MS } else { 0 }
    }

    /// Whether `take_unwritten` would give anything.
    pub fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Forgets expired ids of all senders.
    pub fn sweep(&mut self, wall_ms: u64) {
        let senders: Vec<AgentId> = self.senders.keys().copied().collect();
        for sender in senders {
            self.forget_expired(sender, wall_ms);
        }
        self.senders.values_mut().for_each(Recent::shrink);
        self.long.retain(|_, ids| {
            ids.retain(|(_, until_ms)| *until_ms > wall_ms);
            !ids.is_empty()
        });
    }

    fn insert(&mut self, seen: Seen, long_max: usize, wall_ms: u64) {
        if is_long(seen.until_ms, wall_ms) {
            let ids = self.long.entry(seen.from).or_default();
            ids.push_back((seen.id, seen.until_ms));
            let over = ids.len().saturating_sub(long_max);
            let arrived: Vec<MsgId> = ids.drain(..over).map(|(id, _)| id).collect();
            let until_ms = wall_ms.saturating_add(REPLAY_TTL_MS);
            arrived.into_iter().for_each(|id| self.insert_short(Seen { id, until_ms, ..seen }));
            return;
        }
        self.insert_short(seen);
    }

    fn insert_short(&mut self, seen: Seen) {
        let short = Short::new(self.print(seen.id), seen.until_ms);
        if !self.senders.entry(seen.from).or_default().push(short) {
            return;
        }
        self.count += 1;
        if self.count > self.count_max
            && let Some(fullest) = self.senders.values_mut().max_by_key(|ids| ids.len())
            && fullest.pop().is_some()
        {
            self.count -= 1;
        }
    }

    fn forget_expired(&mut self, from: AgentId, wall_ms: u64) {
        let Some(ids) = self.senders.get_mut(&from) else { return };
        while ids.pop_if(|one| one.until_ms() <= wall_ms).is_some() {
            self.count -= 1;
        }
        if ids.is_empty() {
            self.senders.remove(&from);
        }
    }
}

/// Whether an id is to be remembered for longer than the usual time.
fn is_long(until_ms: u64, wall_ms: u64) -> bool {
    until_ms > wall_ms.saturating_add(REPLAY_TTL_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> MsgId {
        MsgId::from_random([n; 16])
    }
    const A: AgentId = AgentId([1; 16]);
    const B: AgentId = AgentId([2; 16]);

    fn first_time(replay: &mut Replay, from: AgentId, id: MsgId, wall_ms: u64) -> bool {
        let new = !replay.knows(from, id, wall_ms);
        if new {
            replay.remember_lazily(from, id, wall_ms);
        }
        new
    }

    #[test]
    fn an_id_is_new_once_in_its_time() {
        let mut replay = Replay::new(&[], 0);
        assert!(first_time(&mut replay, A, id(1), 1_000));
        assert!(!first_time(&mut replay, A, id(1), 1_001));
        assert!(first_time(&mut replay, B, id(1), 1_001), "ids are remembered by sender");
        assert!(!first_time(&mut replay, A, id(1), 1_000 + REPLAY_TTL_MS - 1));
        assert!(first_time(&mut replay, A, id(1), 1_000 + REPLAY_TTL_MS));
        assert_eq!(replay.take_unwritten().len(), 3);
        replay.forget(A, id(1));
        assert!(first_time(&mut replay, A, id(1), 1_001 + REPLAY_TTL_MS));
    }

    #[test]
    fn an_id_is_there_until_it_is_forgotten_however_long_it_is_to_be_remembered() {
        let mut replay = Replay::new(&[], 0);
        replay.remember(A, id(1), REPLAY_TTL_MS, 0);
        replay.remember(A, id(2), 100 * REPLAY_TTL_MS, 0);
        for (of, n) in [(A, 1), (A, 2)] {
            assert!(replay.has(of, id(n)), "{n}");
            assert!(!replay.has(B, id(n)), "{n}");
        }
        assert!(!replay.has(A, id(3)));
        replay.forget(A, id(1));
        replay.forget(A, id(2));
        assert!(!replay.has(A, id(1)) && !replay.has(A, id(2)));
    }

    #[test]
    fn many_unwritten_ids_do_not_wait() {
        let mut replay = Replay::new(&[], 0);
        let many = u32::try_from(REPLAY_UNWRITTEN_MAX).unwrap();
        let numbered = |n: u32| MsgId([n.to_le_bytes(); 4].concat().try_into().unwrap());
        (1..many).for_each(|n| assert!(first_time(&mut replay, A, numbered(n), 0)));
        assert_eq!(replay.flush_ms(), REPLAY_FLUSH_MS);
        assert!(first_time(&mut replay, A, numbered(many), 0));
        assert_eq!(replay.flush_ms(), 0);
        assert_eq!(replay.take_unwritten().len(), REPLAY_UNWRITTEN_MAX);
        assert_eq!(replay.flush_ms(), REPLAY_FLUSH_MS);
    }

    #[test]
    fn who_has_another_id_is_known_by_what_it_sent_under_both() {
        let mut replay = Replay::new(&[], 0);
        assert!(first_time(&mut replay, A, id(1), 0) && first_time(&mut replay, B, id(2), 1));
        assert!(first_time(&mut replay, A, id(3), 2) && first_time(&mut replay, B, id(3), 2));
        replay.succeed(A, B);
        assert_eq!((replay.count, replay.senders.len()), (3, 1));
        assert!((1..=3).all(|n| replay.knows(B, id(n), 3)) && !replay.knows(A, id(1), 3));
        // Each goes at its own time.
        assert!(!replay.knows(B, id(1), REPLAY_TTL_MS) && replay.knows(B, id(2), REPLAY_TTL_MS));
    }

    #[test]
    fn what_the_disk_kept_counts() {
        let seen = Seen { from: A, id: id(1), until_ms: 500 };
        assert!(Replay::new(&[seen], 499).knows(A, id(1), 499));
        assert!(!Replay::new(&[seen], 500).knows(A, id(1), 500));
    }

    // shows: WF-REP-2
    #[test]
    fn the_fullest_sender_loses_its_oldest() {
        let mut replay = Replay::new(&[], 0);
        replay.count_max = 4;
        assert!(first_time(&mut replay, B, id(9), 0));
        for n in 0..6 {
            assert!(first_time(&mut replay, A, id(n), 0));
        }
        assert_eq!(replay.count, 4);
        assert!(!first_time(&mut replay, B, id(9), 0), "B's only id is still known");
        assert!(!first_time(&mut replay, A, id(5), 0));
        replay.sweep(REPLAY_TTL_MS);
        assert_eq!((replay.count, replay.senders.len()), (0, 0));
    }

    // shows: WF-REP-10
    #[test]
    fn ids_that_may_come_again_for_long_are_kept_so_long_the_newest_of_each_sender() {
        let mut replay = Replay::new(&[], 0);
        let until_ms = REPLAY_TTL_MS * 10;
        let long = |n: usize| MsgId::from_random([u8::try_from(n).unwrap(); 16]);
        for n in 0..=LONG_IDS_PER_PEER_MAX {
            replay.remember(A, long(n), until_ms, 0);
        }
        assert!(replay.knows(A, long(0), REPLAY_TTL_MS - 1), "the oldest for the usual time");
        assert!(!replay.knows(A, long(0), REPLAY_TTL_MS));
        assert!(replay.knows(A, long(1), until_ms - 1) && !replay.knows(A, long(1), until_ms));
        replay.forget(A, long(2));
        assert!(!replay.knows(A, long(2), 0));
        replay.sweep(until_ms);
        assert!(replay.long.is_empty());
    }

    #[test]
    fn what_is_forgotten_makes_room_and_what_is_remembered_longer_stays() {
        let mut replay = Replay::new(&[], 0);
        replay.remember_lazily(A, id(1), 0);
        replay.remember_lazily(A, id(2), 0);
        replay.forget(A, id(1));
        replay.forget(A, id(1));
        assert_eq!(replay.count, 1);
        let until_ms = 10 * REPLAY_TTL_MS;
        replay.remember(A, id(3), until_ms, 0);
        replay.sweep(until_ms - 1);
        assert!(replay.knows(A, id(3), until_ms - 1) && !replay.knows(A, id(2), until_ms - 1));
        assert_eq!((replay.count, replay.long.len()), (0, 1));
        replay.sweep(until_ms);
        assert!(!replay.knows(A, id(3), until_ms) && replay.long.is_empty());
    }

    #[test]
    fn what_an_agent_with_a_new_key_sent_before_is_not_taken_again() {
        let mut replay = Replay::new(&[], 0);
        let until_ms = 10 * REPLAY_TTL_MS;
        replay.remember_lazily(A, id(1), 0);
        replay.remember_lazily(B, id(2), 0);
        replay.remember(A, id(3), until_ms, 0);
        replay.succeed(A, B);
        for n in 1..=3 {
            assert!(replay.knows(B, id(n), 1) && !replay.knows(A, id(n), 1), "{n}");
        }
        assert_eq!(replay.count, 2);
    }
}
