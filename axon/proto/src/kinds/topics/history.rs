//! Comparing history with neighbours: what is asked of whom, and what is said of ranges.
//!
//! Source: `spec/kinds/topics.md`, "History". Two who keep a topic compare how many batches of a time they
//! have and what their marks sum up to; where that differs, the time is split until what is in it can be
//! listed. What one lacks it then asks for, some at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::batch::BatchId;
use super::kept::{Kept, Range};
use super::name::Topic;
use super::tree::{Gossip, Have, Sum};
use crate::id::AgentId;
use crate::limits::{
    HISTORY_LIST_MAX, HISTORY_QUEUE_MAX, HISTORY_WAIT_MS, HISTORY_WANT_MAX, TOPIC_MISSING_PER_PEER_MAX,
};

/// Two whose floors are so near one another compare as if they were the same.
const FLOOR_SLACK_MS: u64 = 60_000;

/// What is asked of one neighbour.
#[derive(Debug, Default)]
struct Ask {
    queue: VecDeque<BatchId>,
    /// Those in the queue that are still to be asked for.
    queued: BTreeSet<BatchId>,
    out: BTreeSet<BatchId>,
    /// When the last one came, or was asked for.
    at_ms: u64,
    /// Topics of which something came: they are compared again when nothing is left to ask for.
    came: BTreeSet<Topic>,
}

/// What is asked of all neighbours.
#[derive(Debug, Default)]
pub struct History {
    asks: BTreeMap<AgentId, Ask>,
}

/// What there is to say of all that is kept of a topic; it is said first.
pub fn whole(kept: &Kept, topic: &Topic, wall_ms: u64) -> Sum {
    let range = kept.whole(topic).unwrap_or(Range { from_ms: 0, to_ms: wall_ms });
    // What is older than what has room here is nothing to compare.
    said(kept, topic, Range { from_ms: kept.floor_ms(topic, wall_ms).min(range.from_ms), ..range }, false)
}

/// What to answer when a neighbour has said what it has of a time.
pub fn answer(kept: &Kept, sum: &Sum, wall_ms: u64) -> Gossip {
    let mut gossip = Gossip::default();
    let topic = &sum.topic;
    let floor_ms = kept.floor_ms(topic, wall_ms);
    let whole = Range { from_ms: sum.from_ms, to_ms: sum.to_ms };
    if sum.to_ms < floor_ms || kept.sum(topic, whole) == (sum.count, sum.marks) {
        return gossip;
    }
    // A little is nothing to talk of: while a sum is on its way, the time goes on.
    if sum.from_ms + FLOOR_SLACK_MS < floor_ms {
        // Of what was before there is no room here.
        gossip.sums.push(said(kept, topic, Range { from_ms: floor_ms, to_ms: sum.to_ms }, false));
        return gossip;
    }
    let range = whole;
    let (count, _) = kept.sum(topic, range);
    let few = count + sum.count <= HISTORY_LIST_MAX;
    if few || sum.count == 0 || sum.answer || range.from_ms == range.to_ms {
        let ids = kept.list(topic, range).take(TOPIC_MISSING_PER_PEER_MAX);
        gossip.have.extend(ids.map(|id| Have { id, topic: topic.clone(), hops: 0, kept: true }));
        if !sum.answer && sum.count > 0 {
            gossip.sums.push(said(kept, topic, range, true));
        }
    } else if count == 0 {
        gossip.sums.push(said(kept, topic, range, true));
    } else {
        let parts = kept.parts(topic, range).into_iter();
        gossip.sums.extend(parts.map(|part| said(kept, topic, part, false)));
    }
    gossip
}

fn said(kept: &Kept, topic: &Topic, range: Range, answer: bool) -> Sum {
    let (count, marks) = kept.sum(topic, range);
    let Range { from_ms, to_ms } = range;
    Sum { topic: topic.clone(), from_ms, to_ms, count, marks, answer, kept: true }
}

impl History {
    /// A neighbour has a batch that is not here.
    pub fn announced(&mut self, from: AgentId, id: BatchId) {
        if self.is_asked(id) {
            return;
        }
        let ask = self.asks.entry(from).or_default();
        // What does not fit is found by the next comparison.
        if ask.queue.len() < HISTORY_QUEUE_MAX {
            ask.queue.push_back(id);
            ask.queued.insert(id);
        }
    }

    /// Whether a batch was asked for, or is about to be.
    pub fn is_asked(&self, id: BatchId) -> bool {
        self.asks.values().any(|ask| ask.out.contains(&id) || ask.queued.contains(&id))
    }

    /// What to ask a neighbour for now. `has`: what has come otherwise.
    pub fn next_wants(&mut self, from: AgentId, has: impl Fn(BatchId) -> bool, mono_ms: u64) -> Vec<BatchId> {
        let Some(ask) = self.asks.get_mut(&from) else { return Vec::new() };
        let mut want = Vec::new();
        if ask.out.len() > HISTORY_WANT_MAX / 2 {
            return want;
        }
        while ask.out.len() < HISTORY_WANT_MAX
            && let Some(id) = ask.queue.pop_front()
        {
            if ask.queued.remove(&id) && !has(id) && ask.out.insert(id) {
                want.push(id);
            }
        }
        if !want.is_empty() {
            ask.at_ms = mono_ms;
        }
        want
    }

    /// A batch has come that was asked for, and is kept from now on; or, with the neighbour that gave it, is
    /// refused, and may come from another.
    pub fn came(&mut self, id: BatchId, topic: &Topic, refused_of: Option<AgentId>, mono_ms: u64) {
        let asks = self.asks.iter_mut().filter(|(peer, _)| refused_of.is_none_or(|of| of == **peer));
        for (_, ask) in asks {
            ask.queued.remove(&id);
            if ask.out.remove(&id) {
                ask.at_ms = mono_ms;
                if refused_of.is_none() {
                    ask.came.insert(topic.clone());
                }
            }
        }
    }

    /// Topics to compare again with a neighbour of whom nothing more is asked: there may be more than it
    /// listed.
    pub fn done(&mut self, from: AgentId) -> BTreeSet<Topic> {
        match self.asks.get(&from) {
            Some(ask) if ask.queued.is_empty() && ask.out.is_empty() => {
                self.asks.remove(&from).map(|ask| ask.came).unwrap_or_default()
            }
            _ => BTreeSet::new(),
        }
    }

    /// A neighbour is gone.
    pub fn gone(&mut self, peer: AgentId) {
        self.asks.remove(&peer);
    }

    /// When to call [`Self::due`].
    pub fn next_due_ms(&self) -> Option<u64> {
        self.asks.values().filter(|ask| !ask.out.is_empty()).map(|ask| ask.at_ms + HISTORY_WAIT_MS).min()
    }

    /// Lets go of what does not come; gives those of whom something more may be asked.
    pub fn due(&mut self, mono_ms: u64) -> Vec<AgentId> {
        let mut late = Vec::new();
        for (peer, ask) in &mut self.asks {
            if !ask.out.is_empty() && ask.at_ms + HISTORY_WAIT_MS <= mono_ms {
                ask.out.clear();
                late.push(*peer);
            }
        }
        late
    }

    /// Neighbours of whom something is asked.
    pub fn asked(&self) -> Vec<AgentId> {
        self.asks.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::batch::Batch;
    use super::super::kept::{Came, Keep};
    use super::super::name::Filter;
    use super::*;
    use crate::id::PublicKey;
    use crate::wire::raw_json;

    const A: AgentId = AgentId([1; 16]);
    const B: AgentId = AgentId([2; 16]);
    const WALL_MS: u64 = 1_000_000;
    const CAME: Came = Came { wall_ms: WALL_MS, stranger: false };

    fn batch(seq: u64) -> Arc<Batch> {
        let topic = Topic::parse("t").unwrap();
        let message = raw_json("{}".to_owned());
        let signed = Batch::to_sign(&PublicKey([7; 32]), &topic, seq, 1_000 + seq / 5, &[&*message]);
        Arc::new(Batch::read(signed, [0; 64]).unwrap())
    }
    fn kept(last: u64, seqs: impl IntoIterator<Item = u64>) -> Kept {
        let mut kept = Kept::default();
        let topic = Filter::parse("t").unwrap();
        kept.keep(Keep { topic, last: Some(last), hours: None });
        seqs.into_iter().for_each(|seq| drop(kept.add(&batch(seq), CAME)));
        kept
    }
    fn id(seq: u64) -> BatchId {
        batch(seq).id()
    }

    /// Two who compare all they have until both are content; how many messages that took.
    fn compare(one: &mut Kept, other: &mut Kept) -> usize {
        let (mut asks_one, mut asks_other) = (History::default(), History::default());
        let topic = Topic::parse("t").unwrap();
        let first = Gossip { sums: vec![whole(one, &topic, WALL_MS)], ..Gossip::default() };
        let mut lines = VecDeque::from([(true, first)]);
        let mut messages = 0;
        while let Some((to_other, gossip)) = lines.pop_front() {
            messages += 1;
            assert!(messages < 500, "it does not end");
            let (here, there, asks, from) = match to_other {
                true => (&mut *other, &mut *one, &mut asks_other, A),
                false => (&mut *one, &mut *other, &mut asks_one, B),
            };
            let mut said = Gossip::default();
            for sum in &gossip.sums {
                let more = answer(here, sum, WALL_MS);
                said.have.extend(more.have);
                said.sums.extend(more.sums);
            }
            for have in gossip.have.iter().filter(|have| !here.has(have.id)) {
                asks.announced(from, have.id);
            }
            loop {
                let want = asks.next_wants(from, |id| here.has(id), 0);
                if want.is_empty() {
                    break;
                }
                for id in want {
                    assert!(there.has(id));
                    here.add(&batch(id.seq), CAME);
                    asks.came(id, &topic, None, 0);
                }
            }
            said.sums.extend(asks.done(from).iter().map(|topic| whole(here, topic, WALL_MS)));
            if !said.sums.is_empty() || !said.have.is_empty() {
                lines.push_back((!to_other, said));
            }
        }
        messages
    }
    fn all(kept: &Kept) -> BTreeSet<u64> {
        let topic = Topic::parse("t").unwrap();
        kept.list(&topic, Range { from_ms: 0, to_ms: u64::MAX }).map(|id| id.seq).collect()
    }

    // shows: TOP-HIST-2
    #[test]
    fn two_who_compare_have_the_same_then() {
        for (one, other) in [
            (vec![], (0..10).collect::<Vec<u64>>()),
            ((0..3_000).collect(), vec![]),
            (vec![], (0..3_000).collect()),
            ((0..2_000).collect(), (1_000..3_000).collect()),
            ((0..3_000).filter(|n| n % 7 != 0).collect(), (0..3_000).filter(|n| n % 11 != 0).collect()),
            ((0..3_000).filter(|n| *n != 1_234).collect(), (0..3_000).collect()),
        ] {
            let expected: BTreeSet<u64> = one.iter().chain(&other).copied().collect();
            let (mut one, mut other) = (kept(10_000, one), kept(10_000, other));
            compare(&mut one, &mut other);
            assert_eq!((all(&one), all(&other)), (expected.clone(), expected));
            // And have nothing more to say.
            assert!(compare(&mut one, &mut other) <= 1);
        }
    }

    #[test]
    fn one_that_is_missing_of_many_is_found_in_a_few_messages() {
        let (mut one, mut other) = (kept(10_000, (0..5_000).filter(|n| *n != 77)), kept(10_000, 0..5_000));
        let messages = compare(&mut one, &mut other);
        assert!(messages <= 12, "{messages}");
    }

    // shows: TOP-HIST-2
    #[test]
    fn whoever_keeps_less_does_not_ask_for_what_has_no_room() {
        let (mut small, mut large) = (kept(100, 400..500), kept(10_000, 0..500));
        assert!(compare(&mut small, &mut large) <= 2);
        assert_eq!((all(&small).len(), all(&large).len()), (100, 500));
        let (mut small, mut large) = (kept(100, []), kept(10_000, 0..500));
        compare(&mut large, &mut small);
        assert_eq!(all(&small), (400..500).collect());
    }

    // shows: TOP-HIST-3
    #[test]
    fn what_is_asked_of_a_neighbour_is_bounded_in_number_and_time() {
        let mut asks = History::default();
        for seq in 0..2 * HISTORY_QUEUE_MAX as u64 {
            asks.announced(A, BatchId { from: B, seq });
        }
        assert_eq!(asks.asks[&A].queue.len(), HISTORY_QUEUE_MAX);
        assert_eq!(asks.next_wants(A, |id| id.seq < 5, 10).len(), HISTORY_WANT_MAX);
        assert!(asks.next_wants(A, |_| false, 10).is_empty(), "half must be there before more is asked for");
        assert!(asks.next_wants(B, |_| false, 10).is_empty());
        assert_eq!(asks.next_due_ms(), Some(10 + HISTORY_WAIT_MS));
        assert!(asks.due(9 + HISTORY_WAIT_MS).is_empty());
        assert_eq!(asks.due(10 + HISTORY_WAIT_MS), [A]);
        assert_eq!((asks.next_due_ms(), asks.asked()), (None, vec![A]));
        asks.gone(A);
        assert!(asks.asked().is_empty() && !asks.is_asked(id(1)));
    }
}
