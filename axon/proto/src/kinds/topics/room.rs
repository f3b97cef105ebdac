//! Who takes up how much of what is kept, and what goes when there is no more room.
//!
//! Source: `spec/kinds/topics.md`, "History". What is of strangers goes first: whoever makes up keys and
//! topics takes the room of others who do, and not that of peers. Then it is the publisher that has most who
//! lets the oldest of the topic go that takes up most of it. Each question is answered from an order that is
//! kept, in few steps however much there is.

use std::collections::BTreeSet;
use std::hash::Hash;

use foldhash::HashMap;

use super::batch::BatchId;
use super::name::Topic;
use crate::id::AgentId;
use crate::limits::{TOPIC_KEPT_BATCHES_MAX, TOPIC_KEPT_BYTES_MAX};

/// What a batch counts beside its bytes, so that many small ones are much as well.
const BATCH_BYTES: u64 = TOPIC_KEPT_BYTES_MAX / TOPIC_KEPT_BATCHES_MAX as u64;

/// A batch and the room that it takes up.
#[derive(Debug, Clone, Copy)]
pub struct Lodger<'a> {
    /// Which.
    pub id: BatchId,
    /// On which topic.
    pub topic: &'a Topic,
    /// When it was published, or came, whichever was first.
    pub at_ms: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Its publisher was a stranger when it came.
    pub stranger: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Rooms {
    strangers: Part,
    peers: Part,
}

/// Those of strangers, or the others.
#[derive(Debug, Default)]
struct Part {
    publishers: HashMap<AgentId, OfPublisher>,
    sizes: Sizes<AgentId>,
}

/// Those of one publisher: when each was published, and its number, by topic.
#[derive(Debug, Default)]
struct OfPublisher {
    topics: HashMap<Topic, BTreeSet<(u64, u64)>>,
    sizes: Sizes<Topic>,
}

/// Sizes by name, with the largest at hand.
#[derive(Debug)]
struct Sizes<K> {
    of: HashMap<K, u64>,
    order: BTreeSet<(u64, K)>,
}

impl<K> Default for Sizes<K> {
    fn default() -> Self {
        Self { of: HashMap::default(), order: BTreeSet::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> Sizes<K> {
    fn change(&mut self, key: &K, change: impl FnOnce(u64) -> u64) {
        let before = self.of.remove(key).unwrap_or(0);
        self.order.remove(&(before, key.clone()));
        let size = change(before);
        if size > 0 {
            self.of.insert(key.clone(), size);
            self.order.insert((size, key.clone()));
        }
    }

    fn largest(&self) -> Option<&K> {
        self.order.last().map(|(_, key)| key)
    }
}

impl Rooms {
    /// One is kept.
    pub fn add(&mut self, one: Lodger<'_>) {
        let size = one.bytes + BATCH_BYTES;
        let part = self.part(one.stranger);
        part.sizes.change(&one.id.from, |before| before + size);
        let of = part.publishers.entry(one.id.from).or_default();
        of.sizes.change(one.topic, |before| before + size);
        of.topics.entry(one.topic.clone()).or_default().insert((one.at_ms, one.id.seq));
    }

    /// One is kept no more.
    pub fn remove(&mut self, one: Lodger<'_>) {
        let size = one.bytes + BATCH_BYTES;
        let part = self.part(one.stranger);
        part.sizes.change(&one.id.from, |before| before.saturating_sub(size));
        let Some(of) = part.publishers.get_mut(&one.id.from) else { return };
        of.sizes.change(one.topic, |before| before.saturating_sub(size));
        if let Some(batches) = of.topics.get_mut(one.topic) {
            batches.remove(&(one.at_ms, one.id.seq));
            if batches.is_empty() {
                of.topics.remove(one.topic);
            }
        }
        if of.topics.is_empty() {
            part.publishers.remove(&one.id.from);
        }
    }

    /// What goes first when there is no more room.
    pub fn first_to_go(&self) -> Option<BatchId> {
        self.strangers.first_to_go().or_else(|| self.peers.first_to_go())
    }

    fn part(&mut self, stranger: bool) -> &mut Part {
        if stranger { &mut self.strangers } else { &mut self.peers }
    }
}

impl Part {
    fn first_to_go(&self) -> Option<BatchId> {
        let from = *self.sizes.largest()?;
        let of = self.publishers.get(&from)?;
        let (_, seq) = *of.topics.get(of.sizes.largest()?)?.first()?;
        Some(BatchId { from, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // shows: TOP-HIST-5
    #[test]
    fn strangers_go_first_then_who_has_most_of_the_topic_with_most() {
        let (a, b) = (Topic::parse("a").unwrap(), Topic::parse("b").unwrap());
        let mut rooms = Rooms::default();
        let one = |from: u8, seq: u64, at_ms: u64| Lodger {
            id: BatchId { from: AgentId([from; 16]), seq },
            topic: if seq < 10 { &a } else { &b },
            at_ms,
            bytes: 100,
            stranger: from >= 8,
        };
        let all = [
            one(1, 1, 7),
            one(1, 10, 5),
            one(1, 11, 9),
            one(2, 1, 1),
            one(8, 1, 50),
            one(9, 1, 61),
            one(9, 2, 60),
        ];
        all.into_iter().for_each(|one| rooms.add(one));
        let mut gone = Vec::new();
        while let Some(id) = rooms.first_to_go() {
            gone.push((id.from.0[0], id.seq));
            let one = all.into_iter().find(|one| one.id == id).unwrap();
            rooms.remove(one);
        }
        // Of the strangers the one with two lets its older go. Where two have as much, the id decides.
        assert_eq!(gone, [(9, 2), (9, 1), (8, 1), (1, 10), (1, 11), (2, 1), (1, 1)]);
        for part in [rooms.strangers, rooms.peers] {
            assert!(part.publishers.is_empty() && part.sizes.of.is_empty() && part.sizes.order.is_empty());
        }
    }

    #[test]
    fn a_few_large_ones_are_as_much_as_many_small_ones() {
        let topic = Topic::parse("a").unwrap();
        let mut rooms = Rooms::default();
        let one = |from: u8, seq: u64, bytes: u64| Lodger {
            id: BatchId { from: AgentId([from; 16]), seq },
            topic: &topic,
            at_ms: seq,
            bytes,
            stranger: false,
        };
        (0..10).for_each(|seq| rooms.add(one(1, seq, 10)));
        rooms.add(one(2, 1, 11 * BATCH_BYTES));
        assert_eq!(rooms.first_to_go().map(|id| id.from.0[0]), Some(2));
        (10..20).for_each(|seq| rooms.add(one(1, seq, 10)));
        assert_eq!(rooms.first_to_go().map(|id| id.from.0[0]), Some(1));
    }
}
