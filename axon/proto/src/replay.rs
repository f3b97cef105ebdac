//! Envelope ids that were seen, so that a message repeated by anyone is taken once.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Replay". Ids are remembered by sender: when the table is full, the sender
//! that fills most of it loses its oldest, so that one peer cannot push out another's.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::id::{AgentId, MsgId};
use crate::limits::{REPLAY_IDS_MAX, REPLAY_TTL_MS};
use crate::node::Seen;

/// The ids seen, by sender, and those not yet written to disk.
#[derive(Debug)]
pub struct Replay {
    senders: HashMap<AgentId, Sender>,
    count: usize,
    count_max: usize,
    unwritten: Vec<Seen>,
}

#[derive(Debug, Default)]
struct Sender {
    seen: HashSet<MsgId>,
    /// By arrival, which is also by expiry: all are kept equally long.
    order: VecDeque<(u64, MsgId)>,
}

impl Replay {
    /// Begins with what the disk remembered.
    pub fn new(remembered: &[Seen], wall_ms: u64) -> Self {
        let mut replay =
            Self { senders: HashMap::new(), count: 0, count_max: REPLAY_IDS_MAX, unwritten: Vec::new() };
        for seen in remembered.iter().filter(|seen| seen.until_ms > wall_ms) {
            // An id from the future (the clock went back) must not stay for ever.
            let until_ms = seen.until_ms.min(wall_ms.saturating_add(REPLAY_TTL_MS));
            replay.insert(Seen { until_ms, ..*seen });
        }
        replay
    }

    /// Remembers an id; false when it was seen before.
    pub fn first_time(&mut self, from: AgentId, id: MsgId, wall_ms: u64) -> bool {
        self.forget_expired(from, wall_ms);
        let seen = Seen { from, id, until_ms: wall_ms.saturating_add(REPLAY_TTL_MS) };
        if !self.insert(seen) {
            return false;
        }
        self.unwritten.push(seen);
        true
    }

    /// What is to be appended to the record on disk.
    pub fn take_unwritten(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.unwritten)
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
    }

    fn insert(&mut self, seen: Seen) -> bool {
        let sender = self.senders.entry(seen.from).or_default();
        if !sender.seen.insert(seen.id) {
            return false;
        }
        sender.order.push_back((seen.until_ms, seen.id));
        self.count += 1;
        if self.count > self.count_max
            && let Some(fullest) = self.senders.values_mut().max_by_key(|sender| sender.order.len())
            && let Some((_, id)) = fullest.order.pop_front()
        {
            fullest.seen.remove(&id);
            self.count -= 1;
        }
        true
    }

    fn forget_expired(&mut self, from: AgentId, wall_ms: u64) {
        let Some(sender) = self.senders.get_mut(&from) else { return };
        while let Some((_, id)) = sender.order.front().copied().filter(|(until_ms, _)| *until_ms <= wall_ms) {
            sender.order.pop_front();
            sender.seen.remove(&id);
            self.count -= 1;
        }
        if sender.order.is_empty() {
            self.senders.remove(&from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> MsgId {
        MsgId::from_random([n; 16])
    }
    const A: AgentId = AgentId([1; 16]);
    const B: AgentId = AgentId([2; 16]);

    #[test]
    fn an_id_is_new_once_in_its_time() {
        let mut replay = Replay::new(&[], 0);
        assert!(replay.first_time(A, id(1), 1_000));
        assert!(!replay.first_time(A, id(1), 1_001));
        assert!(replay.first_time(B, id(1), 1_001), "ids are remembered by sender");
        assert!(!replay.first_time(A, id(1), 1_000 + REPLAY_TTL_MS - 1));
        assert!(replay.first_time(A, id(1), 1_000 + REPLAY_TTL_MS));
        assert_eq!(replay.take_unwritten().len(), 3);
    }

    #[test]
    fn what_the_disk_kept_counts() {
        let seen = Seen { from: A, id: id(1), until_ms: 500 };
        assert!(!Replay::new(&[seen], 499).first_time(A, id(1), 499));
        assert!(Replay::new(&[seen], 500).first_time(A, id(1), 500));
    }

    #[test]
    fn the_fullest_sender_loses_its_oldest() {
        let mut replay = Replay::new(&[], 0);
        replay.count_max = 4;
        assert!(replay.first_time(B, id(9), 0));
        for n in 0..6 {
            assert!(replay.first_time(A, id(n), 0));
        }
        assert_eq!(replay.count, 4);
        assert!(!replay.first_time(B, id(9), 0), "B's only id is still known");
        assert!(!replay.first_time(A, id(5), 0));
        replay.sweep(REPLAY_TTL_MS);
        assert_eq!((replay.count, replay.senders.len()), (0, 0));
    }
}
