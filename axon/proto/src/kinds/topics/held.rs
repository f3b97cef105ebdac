//! Batches that were seen, so that each is taken once, and the newest of them, to be given to neighbours.
//!
//! Source: `spec/decisions/0017-topics.md`. Of each publisher the last numbers are remembered; what is
//! older than the oldest of them is old, whatever it is. A publisher who is silent for longer than a batch
//! may travel is forgotten, because anything of theirs would be too old by its time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::HashMap;

use super::batch::{Batch, BatchId};
use super::name::Topic;
use super::rules::NotTaken;
use super::tree::{Given, further};
use crate::id::AgentId;
use crate::limits::{
    BATCH_AGE_MS_MAX, TOPIC_CACHE_BYTES_MAX, TOPIC_CACHE_MS, TOPIC_PUBLISHERS_MAX, TOPIC_REFUSED_MAX,
    TOPIC_REFUSED_MS, TOPIC_SEEN_MAX, TOPIC_SEEN_PER_PUBLISHER_MAX,
};

/// What is known of a batch by its id alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is new.
    New,
    /// It was taken.
    Taken,
    /// It is older than what is remembered.
    Old,
    /// Its publisher is new, and there are too many.
    TooMany,
}

/// One publisher's numbers.
#[derive(Debug, Default)]
struct Publisher {
    /// Up to here everything is old.
    floor: u64,
    taken: BTreeSet<u64>,
    last_ms: u64,
}

impl Publisher {
    /// Forgets the oldest numbers above so many; how many these were.
    fn trim(&mut self, count_max: usize) -> usize {
        let before = self.taken.len();
        while self.taken.len() > count_max
            && let Some(oldest) = self.taken.pop_first()
        {
            self.floor = self.floor.max(oldest);
        }
        before - self.taken.len()
    }
}

/// Numbers that were seen, by publisher.
#[derive(Debug, Default)]
pub struct Seen {
    publishers: HashMap<AgentId, Publisher>,
    /// All numbers together.
    count: usize,
}

impl Seen {
    /// What is known of one.
    pub fn look(&self, id: BatchId) -> Known {
        match self.publishers.get(&id.from) {
            Some(publisher) if publisher.taken.contains(&id.seq) => Known::Taken,
            Some(publisher) if id.seq <= publisher.floor => Known::Old,
            None if self.publishers.len() >= TOPIC_PUBLISHERS_MAX => Known::TooMany,
            _ => Known::New,
        }
    }

    /// Remembers one.
    pub fn take(&mut self, id: BatchId, mono_ms: u64) {
        let publisher = self.publishers.entry(id.from).or_default();
        publisher.last_ms = mono_ms;
        self.count += usize::from(publisher.taken.insert(id.seq));
        self.count -= publisher.trim(TOPIC_SEEN_PER_PUBLISHER_MAX);
        if self.count > TOPIC_SEEN_MAX {
            // Each has its share; a little more goes at once, so that this is rare.
            let share = TOPIC_SEEN_MAX / self.publishers.len().max(1) / 4 * 3;
            self.count -= self.publishers.values_mut().map(|one| one.trim(share.max(1))).sum::<usize>();
        }
    }

    /// How many publishers are remembered, and whether this is one of them.
    pub fn publishers(&self, publisher: AgentId) -> (usize, bool) {
        (self.publishers.len(), self.publishers.contains_key(&publisher))
    }

    /// Whether any such publisher is remembered.
    pub fn remembers(&self, such: impl Fn(AgentId) -> bool) -> bool {
        self.publishers.keys().any(|publisher| such(*publisher))
    }

    /// Forgets the publisher that was silent longest, of those that need not be kept.
    pub fn forget_silent(&mut self, keep: impl Fn(AgentId) -> bool) {
        let others = self.publishers.iter().filter(|(id, _)| !keep(**id));
        let silent = others.min_by_key(|(_, publisher)| publisher.last_ms).map(|(id, _)| *id);
        let gone = silent.and_then(|id| self.publishers.remove(&id));
        self.count -= gone.map_or(0, |publisher| publisher.taken.len());
    }

    /// Forgets publishers of whom nothing can come again.
    pub fn forget(&mut self, mono_ms: u64) {
        self.publishers.retain(|_, publisher| publisher.last_ms + 2 * BATCH_AGE_MS_MAX > mono_ms);
        self.count = self.publishers.values().map(|publisher| publisher.taken.len()).sum();
    }
}

/// A batch that can be given.
#[derive(Debug, Clone)]
pub struct Cached {
    /// It.
    pub batch: Arc<Batch>,
    /// How many hops it came.
    pub hops: u16,
    /// How old it was when it came.
    pub age_ms: u64,
    /// Who gave it; none: it is ours.
    pub via: Option<AgentId>,
    /// When it came.
    pub at_ms: u64,
}

impl Cached {
    /// It, as it can be given now.
    pub fn given(&self, mono_ms: u64) -> Given {
        let held_ms = mono_ms.saturating_sub(self.at_ms);
        let age_ms = self.age_ms.saturating_add(held_ms);
        Given { batch: self.batch.clone(), hops: further(self.hops), age_ms }
    }
}

/// The newest batches.
#[derive(Debug, Default)]
pub struct Cache {
    batches: BTreeMap<BatchId, Cached>,
    /// The oldest first.
    order: VecDeque<BatchId>,
    bytes: usize,
}

impl Cache {
    /// One of them.
    pub fn get(&self, id: BatchId) -> Option<&Cached> {
        self.batches.get(&id)
    }

    /// All of one topic, with numbers from one publisher side by side.
    pub fn of<'a>(&'a self, topic: &'a Topic) -> impl Iterator<Item = &'a Cached> {
        self.batches.values().filter(move |cached| cached.batch.topic == *topic)
    }

    /// The topics.
    pub fn topics(&self) -> BTreeSet<Topic> {
        self.batches.values().map(|cached| cached.batch.topic.clone()).collect()
    }

    /// Adds one; the oldest go for it.
    pub fn add(&mut self, given: Given, via: Option<AgentId>, mono_ms: u64) {
        let Given { batch, hops, age_ms } = given;
        let id = batch.id();
        self.bytes += batch.bytes();
        self.order.push_back(id);
        self.batches.insert(id, Cached { batch, hops, age_ms, via, at_ms: mono_ms });
        while self.bytes > TOPIC_CACHE_BYTES_MAX && self.order.len() > 1 {
            self.drop_oldest();
        }
    }

    /// Lets go of what is too old to be asked for.
    pub fn forget(&mut self, mono_ms: u64) {
        let old = |cached: &Cached| cached.at_ms + TOPIC_CACHE_MS <= mono_ms;
        while self.order.front().is_some_and(|id| self.batches.get(id).is_none_or(old)) {
            self.drop_oldest();
        }
    }

    /// Lets go of all of a publisher's.
    pub fn forget_publisher(&mut self, publisher: AgentId) {
        self.order.retain(|id| id.from != publisher);
        self.batches.retain(|id, _| id.from != publisher);
        self.bytes = self.batches.values().map(|cached| cached.batch.bytes()).sum();
    }

    fn drop_oldest(&mut self) {
        let gone = self.order.pop_front().and_then(|id| self.batches.remove(&id));
        self.bytes -= gone.map_or(0, |cached| cached.batch.bytes());
    }
}

/// What is known of a batch that was refused.
#[derive(Debug, Clone, Copy)]
struct Turned {
    ts_ms: u64,
    mark: u64,
    why: NotTaken,
    at_ms: u64,
}

/// Batches that were refused for what is in them, and that are as their publisher signed them: for a while
/// they are not asked for, and in sums they count as if they were here.
#[derive(Debug, Default)]
pub struct Refused {
    topics: BTreeMap<Topic, BTreeMap<BatchId, Turned>>,
    topic_of: HashMap<BatchId, Topic>,
    /// When each was refused, the oldest first.
    order: VecDeque<(u64, BatchId)>,
}

impl Refused {
    /// Whether one of this number was.
    pub fn has(&self, id: BatchId) -> bool {
        self.topic_of.contains_key(&id)
    }

    /// Why this very batch was.
    pub fn why(&self, batch: &Batch) -> Option<NotTaken> {
        let turned = self.topics.get(&batch.topic)?.get(&batch.id())?;
        (turned.mark == batch.mark()).then_some(turned.why)
    }

    /// How many there are of a topic and time, and the sum of their marks.
    pub fn sum(&self, topic: &Topic, from_ms: u64, to_ms: u64) -> (u64, u64) {
        let those = self.topics.get(topic).into_iter().flat_map(BTreeMap::values);
        let those = those.filter(|turned| (from_ms..=to_ms).contains(&turned.ts_ms));
        those.fold((0, 0), |(count, sum), turned| (count + 1, sum.wrapping_add(turned.mark)))
    }

    /// Notes one; the oldest go for it.
    pub fn note(&mut self, batch: &Batch, why: NotTaken, mono_ms: u64) {
        let id = batch.id();
        self.remove(id);
        while self.order.len() >= TOPIC_REFUSED_MAX
            && let Some((at_ms, oldest)) = self.order.pop_front()
        {
            self.end(at_ms, oldest);
        }
        let turned = Turned { ts_ms: batch.ts_ms, mark: batch.mark(), why, at_ms: mono_ms };
        self.topic_of.insert(id, batch.topic.clone());
        self.topics.entry(batch.topic.clone()).or_default().insert(id, turned);
        self.order.push_back((mono_ms, id));
    }

    /// One is taken after all.
    pub fn remove(&mut self, id: BatchId) {
        let Some(topic) = self.topic_of.remove(&id) else { return };
        if let Some(of) = self.topics.get_mut(&topic) {
            of.remove(&id);
            if of.is_empty() {
                self.topics.remove(&topic);
            }
        }
    }

    /// Lets go of what was refused a while ago.
    pub fn forget(&mut self, mono_ms: u64) {
        while let Some((at_ms, id)) = self.order.front().copied()
            && at_ms + TOPIC_REFUSED_MS <= mono_ms
        {
            self.order.pop_front();
            self.end(at_ms, id);
        }
    }

    /// The time of one is over, unless it was refused again since.
    fn end(&mut self, at_ms: u64, id: BatchId) {
        let turned = self.topic_of.get(&id).and_then(|topic| self.topics.get(topic)?.get(&id));
        if turned.is_some_and(|turned| turned.at_ms == at_ms) {
            self.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::wire::raw_json;

    fn id(from: u8, seq: u64) -> BatchId {
        BatchId { from: AgentId([from; 16]), seq }
    }
    fn given(seq: u64, bytes: usize) -> Given {
        let message = raw_json(format!("{{\"x\":\"{}\"}}", "x".repeat(bytes)));
        let topic = Topic::parse("t").unwrap();
        let signed = Batch::to_sign(&PublicKey([1; 32]), &topic, seq, 0, &[&*message]);
        Given { batch: Arc::new(Batch::read(signed, [0; 64]).unwrap()), hops: 2, age_ms: 5 }
    }

    // shows: TOP-BATCH-4, TOP-TAKE-4
    #[test]
    fn each_number_is_new_once_in_whatever_order_they_come() {
        let mut seen = Seen::default();
        for seq in [5, 3, 9] {
            assert_eq!(seen.look(id(1, seq)), Known::New);
            seen.take(id(1, seq), 0);
            assert_eq!(seen.look(id(1, seq)), Known::Taken);
        }
        assert_eq!(seen.look(id(2, 5)), Known::New, "another publisher's numbers are others");
        (10..10 + TOPIC_SEEN_PER_PUBLISHER_MAX as u64).for_each(|seq| seen.take(id(1, seq), 0));
        for seq in [3, 4, 9] {
            assert_eq!(seen.look(id(1, seq)), Known::Old, "{seq}: below what is remembered all is old");
        }
    }

    // shows: TOP-TAKE-4
    #[test]
    fn publishers_are_as_many_as_may_be_and_the_silent_go() {
        let mut seen = Seen::default();
        for n in 0..TOPIC_PUBLISHERS_MAX {
            let mut from = [0; 16];
            from[..8].copy_from_slice(&n.to_be_bytes());
            seen.take(BatchId { from: AgentId(from), seq: 1 }, if n == 0 { 1 } else { 0 });
        }
        assert_eq!(seen.look(id(255, 1)), Known::TooMany);
        seen.forget(2 * BATCH_AGE_MS_MAX);
        assert_eq!(seen.publishers.len(), 1);
        assert_eq!(seen.look(id(255, 1)), Known::New);
    }

    // shows: TOP-TAKE-2, TOP-TAKE-3
    #[test]
    fn all_numbers_together_are_bounded_and_what_is_forgotten_is_old() {
        let mut seen = Seen::default();
        for seq in 1..=2_000 {
            (0..=255).for_each(|from| seen.take(id(from, seq), 0));
        }
        assert!(seen.count <= TOPIC_SEEN_MAX && seen.count > TOPIC_SEEN_MAX / 2, "{}", seen.count);
        assert_eq!(seen.count, seen.publishers.values().map(|one| one.taken.len()).sum::<usize>());
        assert_eq!((seen.look(id(7, 1)), seen.look(id(7, 2_000))), (Known::Old, Known::Taken));
        assert_eq!(seen.look(id(7, 2_001)), Known::New);
    }

    #[test]
    fn what_is_given_on_is_one_hop_further_and_older_by_how_long_it_was_held() {
        let mut cache = Cache::default();
        let batch = given(1, 9).batch.id();
        cache.add(given(1, 9), None, 100);
        let on = cache.get(batch).unwrap().given(130);
        assert_eq!((on.hops, on.age_ms), (3, 35));
    }

    // shows: TOP-TREE-8
    #[test]
    fn what_was_refused_is_remembered_for_a_while_and_up_to_a_bound() {
        let mut refused = Refused::default();
        let (one, topic) = (given(0, 9).batch, Topic::parse("t").unwrap());
        refused.note(&one, NotTaken::Limited, 0);
        refused.note(&one, NotTaken::Old, 5);
        assert_eq!((refused.has(one.id()), refused.why(&one)), (true, Some(NotTaken::Old)));
        assert_eq!((refused.sum(&topic, 0, 0), refused.sum(&topic, 1, 9)), ((1, one.mark()), (0, 0)));
        let other = Batch { digest: one.digest.map(|byte| !byte), ..Batch::clone(&one) };
        assert_eq!(refused.why(&other), None, "another of this number is not the one that was refused");
        refused.forget(TOPIC_REFUSED_MS);
        assert!(refused.has(one.id()), "it was refused again");
        refused.forget(TOPIC_REFUSED_MS + 5);
        assert!(!refused.has(one.id()) && refused.topics.is_empty() && refused.order.is_empty());
        for seq in 0..2 * TOPIC_REFUSED_MAX as u64 {
            refused.note(&given(seq, 1).batch, NotTaken::Limited, seq);
        }
        assert_eq!((refused.topic_of.len(), refused.order.len()), (TOPIC_REFUSED_MAX, TOPIC_REFUSED_MAX));
        assert_eq!(refused.topics[&topic].len(), TOPIC_REFUSED_MAX);
        refused.remove(given(2 * TOPIC_REFUSED_MAX as u64 - 1, 1).batch.id());
        assert_eq!(refused.sum(&topic, 0, 0).0, TOPIC_REFUSED_MAX as u64 - 1);
    }

    // shows: TOP-TREE-4
    #[test]
    fn the_cache_holds_bytes_and_time() {
        let mut cache = Cache::default();
        let large = TOPIC_CACHE_BYTES_MAX / 128;
        (0..64).for_each(|seq| cache.add(given(seq, large), None, seq));
        assert!(cache.bytes <= TOPIC_CACHE_BYTES_MAX && cache.batches.len() > 16, "{}", cache.batches.len());
        assert!(cache.get(id(0, 0)).is_none());
        let held = cache.batches.len();
        cache.forget(TOPIC_CACHE_MS + 63 - 1);
        assert_eq!((cache.batches.len(), cache.order.len()), (1, 1), "of {held}");
        cache.forget(TOPIC_CACHE_MS + 63);
        assert_eq!((cache.batches.len(), cache.bytes), (0, 0));
    }
}
