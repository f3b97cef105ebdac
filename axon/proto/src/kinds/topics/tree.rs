//! How batches spread: PlumTree (Leitão, Pereira, Rodrigues: Epidemic Broadcast Trees, SRDS 2007) over
//! neighbours that are pinned peers.
//!
//! A batch goes at once to neighbours that are eager for its topic, and is only announced to the lazy ones.
//! Whoever gets one twice makes the second giver lazy (`prune`); whoever hears of one and does not get it
//! asks for it, and makes the giver eager (`want`). So a tree forms where messages flow, and heals where it
//! breaks: one for each publisher and topic, because waves from several publishers cut a common tree at
//! several places at once. At the end of a burst neighbours compare sums of what they have, because an
//! announcement can be lost as well. Which neighbours there are is nothing that is found out: they are
//! those who are pinned, connected, and want the topic. Why this and no membership protocol:
//! `spec/decisions/0017-topics.md`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use foldhash::HashMap;

use super::batch::{Batch, BatchId};
use super::held::{Cache, Cached, Known, Refused, Seen};
use super::name::{Filter, Topic};
use super::rules::NotTaken;
use crate::id::AgentId;
use crate::limits::{
    TOPIC_ANNOUNCE_MS, TOPIC_ANNOUNCERS_MAX, TOPIC_CLOSER_HOPS, TOPIC_MISSING_PER_PEER_MAX, TOPIC_NEWS_MAX,
    TOPIC_SUM_AGAIN_MS, TOPIC_SUM_MS, TOPIC_SUMS, TOPIC_TREES_MAX, TOPIC_WANT_AGAIN_MS, TOPIC_WANT_MS,
};

/// What one neighbour says to another, some of it or all.
#[derive(Debug, Clone, Default)]
pub struct Gossip {
    /// Batches.
    pub batches: Vec<Given>,
    /// What could be had.
    pub have: Vec<Have>,
    /// What is to be given, and from now on at once.
    pub want: Vec<BatchId>,
    /// Trees of which batches are to be given at once from now on.
    pub graft: Vec<Tree>,
    /// Trees of which batches are to be announced from now on.
    pub prune: Vec<Tree>,
    /// What all that could be had of a topic sums up to.
    pub sums: Vec<Sum>,
}

/// A batch as a neighbour gives it.
#[derive(Debug, Clone)]
pub struct Given {
    /// It.
    pub batch: Arc<Batch>,
    /// How many hops it has come with this one.
    pub hops: u16,
    /// How long ago it was published, by the clocks of those who held it.
    pub age_ms: u64,
}

/// The tree of one publisher on one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tree {
    /// The topic.
    pub topic: Topic,
    /// The publisher.
    pub from: AgentId,
}

/// A batch that could be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    /// Which.
    pub id: BatchId,
    /// On which topic.
    pub topic: Topic,
    /// How many hops it would have come with this one.
    pub hops: u16,
    /// It is of what is kept, and not as it was published.
    pub kept: bool,
}

/// What the batches of a time have in common with those of a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// On which topic.
    pub topic: Topic,
    /// Batches that were published from here on, in Unix milliseconds.
    pub from_ms: u64,
    /// Up to here.
    pub to_ms: u64,
    /// How many they are.
    pub count: u64,
    /// The sum of their marks.
    pub marks: u64,
    /// It answers another, and is not answered with one.
    pub answer: bool,
    /// It is of what is kept.
    pub kept: bool,
}

/// What comes of an input.
#[derive(Debug)]
pub enum Out {
    /// Say this to a neighbour.
    Send {
        /// To whom.
        to: AgentId,
        /// What.
        gossip: Gossip,
    },
    /// Give this to whoever has subscribed here.
    Deliver {
        /// What.
        batch: Arc<Batch>,
        /// The neighbour that gave it.
        via: AgentId,
    },
}

/// A neighbour.
#[derive(Debug, Default)]
struct Neighbour {
    filters: Vec<Filter>,
    /// What is to be announced to it.
    news: Vec<Have>,
    /// How many batches are missing that only it has announced first.
    missing: usize,
    /// Trees in which it is lazy; in all others it is eager.
    lazy: Trees,
    /// Trees of which it was given a batch, and may therefore ask that it be announced only.
    given: Trees,
}

/// Trees in the order in which they came, the newest of them.
#[derive(Debug, Default)]
struct Trees {
    numbers: HashMap<Tree, u64>,
    order: BTreeMap<u64, Tree>,
    next: u64,
}

impl Trees {
    fn contains(&self, tree: &Tree) -> bool {
        self.numbers.contains_key(tree)
    }

    /// Whether it is new. The oldest goes for it.
    fn insert(&mut self, tree: &Tree) -> bool {
        if self.contains(tree) {
            return false;
        }
        if self.numbers.len() >= TOPIC_TREES_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.numbers.remove(&oldest);
        }
        self.next += 1;
        self.numbers.insert(tree.clone(), self.next);
        self.order.insert(self.next, tree.clone());
        true
    }

    fn remove(&mut self, tree: &Tree) {
        if let Some(number) = self.numbers.remove(tree) {
            self.order.remove(&number);
        }
    }
}

impl Neighbour {
    /// Has a batch announced to it. What is too much comes with a later sum.
    fn announce(&mut self, have: Have) {
        if self.news.len() < TOPIC_NEWS_MAX {
            self.news.push(have);
        }
    }
}

/// A batch of which is only known that there is one.
#[derive(Debug)]
struct Missing {
    topic: Topic,
    /// Whose share it counts in.
    first: AgentId,
    /// Who has it, and at how many hops.
    announcers: VecDeque<(AgentId, u16)>,
    due_ms: u64,
}

/// When a topic's sum is due.
#[derive(Debug, Clone, Copy)]
struct SumDue {
    at_ms: u64,
    /// At the latest, although batches go on coming.
    by_ms: u64,
    /// How often it will be said again.
    left: u8,
}

/// One daemon's part in all trees.
#[derive(Debug, Default)]
pub struct Mesh {
    neighbours: BTreeMap<AgentId, Neighbour>,
    seen: Seen,
    cache: Cache,
    refused: Refused,
    missing: BTreeMap<BatchId, Missing>,
    /// When to look at what is due, at the latest.
    look_at_ms: Option<u64>,
    /// When neighbours hear their news.
    announce_at_ms: Option<u64>,
    sums: BTreeMap<Topic, SumDue>,
}

impl Mesh {
    /// A neighbour wants what these filters match, and nothing else; it is new or says so anew.
    ///
    /// What it may have missed is announced to it.
    pub fn wants(&mut self, peer: AgentId, filters: Vec<Filter>, mono_ms: u64) {
        let neighbour = self.neighbours.entry(peer).or_default();
        let before = std::mem::replace(&mut neighbour.filters, filters);
        let new = |topic: &Topic| !before.iter().any(|filter| filter.matches(topic));
        for topic in self.cache.topics() {
            if new(&topic) && neighbour.filters.iter().any(|filter| filter.matches(&topic)) {
                let others = self.cache.of(&topic).filter(|cached| cached.via != Some(peer));
                others.for_each(|cached| neighbour.announce(have(&cached.batch, cached.hops)));
                let at_ms = *self.announce_at_ms.get_or_insert(mono_ms + TOPIC_ANNOUNCE_MS);
                sooner(&mut self.look_at_ms, at_ms);
            }
        }
    }

    /// A neighbour is gone.
    pub fn gone(&mut self, peer: AgentId) {
        self.neighbours.remove(&peer);
        let mut ended = Vec::new();
        self.missing.retain(|_, missing| {
            missing.announcers.retain(|(announcer, _)| *announcer != peer);
            if missing.announcers.is_empty() {
                ended.push(missing.first);
            } else if missing.first == peer {
                // It counts for the next one now.
                let next = missing.announcers.front().map(|(next, _)| *next);
                missing.first = next.unwrap_or(peer);
                if let Some(neighbour) = self.neighbours.get_mut(&missing.first) {
                    neighbour.missing += 1;
                }
            }
            !missing.announcers.is_empty()
        });
        ended.into_iter().for_each(|first| self.share_back(first));
    }

    /// Neighbours that want a topic.
    pub fn neighbours(&self, topic: &Topic) -> Vec<AgentId> {
        let wants = |neighbour: &Neighbour| neighbour.filters.iter().any(|filter| filter.matches(topic));
        self.neighbours.iter().filter(|(_, neighbour)| wants(neighbour)).map(|(peer, _)| *peer).collect()
    }

    /// Publishes a batch of ours.
    pub fn publish(&mut self, batch: Arc<Batch>, mono_ms: u64) -> Vec<Out> {
        self.seen.take(batch.id(), mono_ms);
        let mut out = Outgoing::default();
        self.spread(Given { batch, hops: 0, age_ms: 0 }, None, mono_ms, &mut out);
        out.end()
    }

    /// Announces a batch to a neighbour that cannot be given it now.
    pub fn put_off(&mut self, peer: AgentId, given: &Given, mono_ms: u64) {
        let Given { batch, hops, .. } = given;
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.announce(Have { hops: *hops, ..have(batch, 0) });
        let at_ms = *self.announce_at_ms.get_or_insert(mono_ms + TOPIC_ANNOUNCE_MS);
        sooner(&mut self.look_at_ms, at_ms);
    }

    /// How many neighbours there are.
    pub fn neighbour_count(&self) -> usize {
        self.neighbours.len()
    }

    /// What a neighbour wants, and in how many trees it is lazy; none: it is no neighbour.
    pub fn neighbour(&self, peer: AgentId) -> Option<(&[Filter], usize)> {
        let neighbour = self.neighbours.get(&peer)?;
        Some((&neighbour.filters, neighbour.lazy.numbers.len()))
    }

    /// How many publishers are remembered, and whether this is one of them.
    pub fn publishers(&self, publisher: AgentId) -> (usize, bool) {
        self.seen.publishers(publisher)
    }

    /// Whether any such publisher is remembered.
    pub fn remembers(&self, such: impl Fn(AgentId) -> bool) -> bool {
        self.seen.remembers(such)
    }

    /// Forgets the publisher that was silent longest, of those that need not be kept.
    pub fn forget_silent(&mut self, keep: impl Fn(AgentId) -> bool) {
        self.seen.forget_silent(keep);
    }

    /// Nothing of a publisher is given to anybody any more.
    pub fn forget_publisher(&mut self, publisher: AgentId) {
        self.cache.forget_publisher(publisher);
        let gone: Vec<BatchId> = self.missing.keys().filter(|id| id.from == publisher).copied().collect();
        for id in gone {
            if let Some(missing) = self.missing.remove(&id) {
                self.share_back(missing.first);
            }
        }
        for neighbour in self.neighbours.values_mut() {
            neighbour.news.retain(|have| have.id.from != publisher);
        }
    }

    /// Whether a batch was taken.
    pub fn was_taken(&self, id: BatchId) -> bool {
        self.seen.look(id) == Known::Taken
    }

    /// Whether somebody has announced a batch that is not here.
    pub fn awaits(&self, id: BatchId) -> bool {
        self.missing.contains_key(&id)
    }

    /// Whether a batch of this number was refused of late.
    pub fn is_refused(&self, id: BatchId) -> bool {
        self.refused.has(id)
    }

    /// Why this very batch was refused of late.
    pub fn why_refused(&self, batch: &Batch) -> Option<NotTaken> {
        self.refused.why(batch)
    }

    /// A batch is refused that is as its publisher signed it: nobody is asked for it for a while.
    pub fn refuse(&mut self, batch: &Batch, why: NotTaken, mono_ms: u64) {
        if let Some(missing) = self.missing.remove(&batch.id()) {
            self.share_back(missing.first);
        }
        self.refused.note(batch, why, mono_ms);
    }

    /// What was refused may be taken now.
    pub fn forget_refused(&mut self) {
        self.refused = Refused::default();
    }

    /// Nothing of a batch's publisher is taken on its topic: its giver is lazy from now on.
    pub fn turn_away(&mut self, from: AgentId, batch: &Batch) -> Option<Out> {
        let tree = tree(batch);
        self.make_lazy(&tree, from)
            .then(|| Out::Send { to: from, gossip: Gossip { prune: vec![tree], ..Gossip::default() } })
    }

    /// A batch that can be given.
    pub fn cached(&self, id: BatchId) -> Option<&Cached> {
        self.cache.get(id)
    }

    /// What is known of a batch before its signature is looked at. One that was taken makes its giver lazy.
    pub fn look(&mut self, from: AgentId, batch: &Batch) -> (Known, Option<Out>) {
        let known = self.seen.look(batch.id());
        let said = if known == Known::Taken { self.turn_away(from, batch) } else { None };
        (known, said)
    }

    /// Takes a new batch whose signature holds.
    pub fn take(&mut self, from: AgentId, given: Given, mono_ms: u64) -> Vec<Out> {
        let (batch, hops) = (given.batch.clone(), given.hops);
        self.seen.take(batch.id(), mono_ms);
        self.refused.remove(batch.id());
        let mut out = Outgoing::default();
        self.make_eager(&tree(&batch), from);
        if let Some(missing) = self.missing.remove(&batch.id()) {
            self.share_back(missing.first);
            let closest = missing.announcers.into_iter().min_by_key(|(_, hops)| *hops);
            // A neighbour that is much closer to where it came from is the better giver.
            if let Some((closer, _)) = closest.filter(|(_, at)| at.saturating_add(TOPIC_CLOSER_HOPS) <= hops)
            {
                self.make_eager(&tree(&batch), closer);
                out.to(closer).graft.push(tree(&batch));
                self.make_lazy(&tree(&batch), from);
                out.to(from).prune.push(tree(&batch));
            }
        }
        self.spread(given, Some(from), mono_ms, &mut out);
        let mut all = vec![Out::Deliver { batch, via: from }];
        all.extend(out.end());
        all
    }

    /// A neighbour says what it has, wants, or wants no more. `ours`: whether a topic is wanted here.
    pub fn hear(
        &mut self,
        from: AgentId,
        gossip: &Gossip,
        ours: impl Fn(&Topic) -> bool,
        mono_ms: u64,
    ) -> Vec<Out> {
        let mut out = Outgoing::default();
        gossip.graft.iter().for_each(|tree| self.make_eager(tree, from));
        // What it was not given it has nothing to say of: made-up trees take no room.
        for tree in &gossip.prune {
            if self.neighbours.get(&from).is_some_and(|neighbour| neighbour.given.contains(tree)) {
                self.make_lazy(tree, from);
            }
        }
        for have in gossip.have.iter().filter(|have| ours(&have.topic)) {
            self.announced(from, have, mono_ms);
        }
        for id in &gossip.want {
            if let Some(cached) = self.cache.get(*id).cloned() {
                // Who asks for what it has not subscribed gets nothing.
                if self.neighbours(&cached.batch.topic).contains(&from) {
                    self.make_eager(&tree(&cached.batch), from);
                    self.note_given(&tree(&cached.batch), from);
                    out.to(from).batches.push(cached.given(mono_ms));
                }
            }
        }
        for sum in gossip.sums.iter().filter(|sum| ours(&sum.topic)) {
            let (from_ms, to_ms) = (sum.from_ms, sum.to_ms);
            let (count, marks) = self.known(&sum.topic, from_ms, to_ms);
            // What is refused here the other may have refused as well, or not.
            if [(count, marks), self.sum(&sum.topic, from_ms, to_ms)].contains(&(sum.count, sum.marks)) {
                continue;
            }
            let those = self.cache.of(&sum.topic).filter(|cached| within(cached, from_ms, to_ms));
            let those = those.take(TOPIC_MISSING_PER_PEER_MAX);
            out.to(from).have.extend(those.map(|cached| have(&cached.batch, cached.hops)));
            // The other's come in return, once.
            if !sum.answer {
                out.to(from).sums.push(Sum { count, marks, answer: true, ..sum.clone() });
            }
        }
        out.end()
    }

    /// When to call [`Self::due`], at the latest: something may be due then.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.look_at_ms
    }

    /// Does what is due.
    pub fn due(&mut self, mono_ms: u64) -> Vec<Out> {
        if self.look_at_ms.is_none_or(|at_ms| at_ms > mono_ms) {
            return Vec::new();
        }
        let mut out = Outgoing::default();
        if self.announce_at_ms.is_some_and(|at| at <= mono_ms) {
            self.announce_at_ms = None;
            for (peer, neighbour) in &mut self.neighbours {
                let news = std::mem::take(&mut neighbour.news);
                if !news.is_empty() {
                    out.to(*peer).have.extend(news);
                }
            }
        }
        let due: Vec<BatchId> =
            self.missing.iter().filter(|(_, missing)| missing.due_ms <= mono_ms).map(|(id, _)| *id).collect();
        for id in due {
            let Some(missing) = self.missing.get_mut(&id) else { continue };
            if let Some((peer, _)) = missing.announcers.pop_front() {
                missing.due_ms = mono_ms + TOPIC_WANT_AGAIN_MS;
                let tree = Tree { topic: missing.topic.clone(), from: id.from };
                self.make_eager(&tree, peer);
                out.to(peer).want.push(id);
            } else if let Some(missing) = self.missing.remove(&id) {
                self.share_back(missing.first);
            }
        }
        let due: Vec<Topic> = self
            .sums
            .iter()
            .filter(|(_, sum)| sum.at_ms <= mono_ms)
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in due {
            self.say_sum(&topic, mono_ms, &mut out);
        }
        // It is looked at all that waits only here, and not with each batch.
        let missing = self.missing.values().map(|missing| missing.due_ms);
        let sums = self.sums.values().map(|sum| sum.at_ms);
        self.look_at_ms = missing.chain(self.announce_at_ms).chain(sums).min();
        out.end()
    }

    /// Lets go of what is old; now and then.
    pub fn forget(&mut self, mono_ms: u64) {
        self.seen.forget(mono_ms);
        self.cache.forget(mono_ms);
        self.refused.forget(mono_ms);
        let topics = self.cache.topics();
        self.sums.retain(|topic, _| topics.contains(topic));
    }

    // --- parts ---

    /// Gives a batch to eager neighbours, and has it announced to lazy ones.
    fn spread(&mut self, given: Given, via: Option<AgentId>, mono_ms: u64, out: &mut Outgoing) {
        let hops = given.hops;
        let given_on = Given { hops: further(hops), ..given.clone() };
        let batch = &given_on.batch;
        self.cache.add(given, via, mono_ms);
        self.sum_due(&batch.topic, mono_ms);
        let tree = tree(batch);
        for peer in self.neighbours(&batch.topic) {
            let Some(neighbour) = self.neighbours.get_mut(&peer) else { continue };
            if Some(peer) == via || peer == batch.from {
                continue;
            }
            if neighbour.lazy.contains(&tree) {
                neighbour.announce(have(batch, hops));
                let at_ms = *self.announce_at_ms.get_or_insert(mono_ms + TOPIC_ANNOUNCE_MS);
                sooner(&mut self.look_at_ms, at_ms);
            } else {
                neighbour.given.insert(&tree);
                out.to(peer).batches.push(given_on.clone());
            }
        }
    }

    fn announced(&mut self, from: AgentId, have: &Have, mono_ms: u64) {
        // Whether there is a place for its publisher is asked when it comes.
        let known = self.seen.look(have.id);
        if matches!(known, Known::Taken | Known::Old) || self.refused.has(have.id) {
            return;
        }
        if let Some(missing) = self.missing.get_mut(&have.id) {
            let there = missing.announcers.iter().any(|(peer, _)| *peer == from);
            if !there && missing.announcers.len() < TOPIC_ANNOUNCERS_MAX {
                missing.announcers.push_back((from, have.hops));
            }
            return;
        }
        // What is not noted now comes with a later sum.
        let Some(neighbour) = self.neighbours.get_mut(&from) else { return };
        if neighbour.missing < TOPIC_MISSING_PER_PEER_MAX {
            neighbour.missing += 1;
            let announcers = VecDeque::from([(from, have.hops)]);
            let due_ms = mono_ms + TOPIC_WANT_MS;
            sooner(&mut self.look_at_ms, due_ms);
            let missing = Missing { topic: have.topic.clone(), first: from, announcers, due_ms };
            self.missing.insert(have.id, missing);
        }
    }

    fn share_back(&mut self, peer: AgentId) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.missing = neighbour.missing.saturating_sub(1);
        }
    }

    fn make_eager(&mut self, tree: &Tree, peer: AgentId) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.lazy.remove(tree);
        }
    }

    fn note_given(&mut self, tree: &Tree, peer: AgentId) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.given.insert(tree);
        }
    }

    /// Whether it was eager. Where it is lazy in too many trees, it is eager again in the oldest of them, and
    /// is given a batch twice there.
    fn make_lazy(&mut self, tree: &Tree, peer: AgentId) -> bool {
        self.neighbours.get_mut(&peer).is_some_and(|neighbour| neighbour.lazy.insert(tree))
    }

    // --- sums ---

    /// A batch has come: its topic is summed up when no more come, or at last within a long burst.
    fn sum_due(&mut self, topic: &Topic, mono_ms: u64) {
        let unsaid = self.sums.get(topic).filter(|due| due.left == TOPIC_SUMS);
        let by_ms = unsaid.map_or(mono_ms + TOPIC_SUM_AGAIN_MS, |due| due.by_ms);
        let at_ms = by_ms.min(mono_ms + TOPIC_SUM_MS);
        sooner(&mut self.look_at_ms, at_ms);
        self.sums.insert(topic.clone(), SumDue { at_ms, by_ms, left: TOPIC_SUMS });
    }

    /// How many there are of a time, and the sum of their marks.
    fn sum(&self, topic: &Topic, from_ms: u64, to_ms: u64) -> (u64, u64) {
        let those = self.cache.of(topic).filter(|cached| within(cached, from_ms, to_ms));
        those.fold((0, 0), |(count, sum), cached| (count + 1, sum.wrapping_add(cached.batch.mark())))
    }

    /// The same with those that were refused.
    fn known(&self, topic: &Topic, from_ms: u64, to_ms: u64) -> (u64, u64) {
        let (held, refused) = (self.sum(topic, from_ms, to_ms), self.refused.sum(topic, from_ms, to_ms));
        (held.0 + refused.0, held.1.wrapping_add(refused.1))
    }

    fn say_sum(&mut self, topic: &Topic, mono_ms: u64, out: &mut Outgoing) {
        let due = self.sums.remove(topic);
        // What has only just come is on its way to others too.
        let fresh = |cached: &&Cached| cached.at_ms + TOPIC_SUM_MS > mono_ms;
        let of = |cached: &Cached| cached.batch.ts_ms;
        let times = || self.cache.of(topic).map(of);
        let before_ms = self.cache.of(topic).filter(fresh).map(of).min().map(|ms| ms.saturating_sub(1));
        let Some((from_ms, last_ms)) = times().min().zip(times().max()) else { return };
        if let Some(due) = due.filter(|due| due.left > 1) {
            let at_ms = mono_ms + TOPIC_SUM_AGAIN_MS;
            self.sums.insert(topic.clone(), SumDue { at_ms, by_ms: at_ms, left: due.left - 1 });
        }
        let to_ms = before_ms.unwrap_or(last_ms);
        if to_ms < from_ms {
            return;
        }
        let (count, marks) = self.known(topic, from_ms, to_ms);
        let topic = topic.clone();
        let sum = Sum { topic, from_ms, to_ms, count, marks, answer: false, kept: false };
        for peer in self.neighbours(&sum.topic) {
            out.to(peer).sums.push(sum.clone());
        }
    }
}

/// What is said, by neighbour.
#[derive(Default)]
struct Outgoing(BTreeMap<AgentId, Gossip>);

impl Outgoing {
    fn to(&mut self, peer: AgentId) -> &mut Gossip {
        self.0.entry(peer).or_default()
    }
    fn end(self) -> Vec<Out> {
        self.0.into_iter().map(|(to, gossip)| Out::Send { to, gossip }).collect()
    }
}

fn tree(batch: &Batch) -> Tree {
    Tree { topic: batch.topic.clone(), from: batch.from }
}

/// What can be had of us that came so many hops.
fn have(batch: &Batch, hops: u16) -> Have {
    Have { id: batch.id(), topic: batch.topic.clone(), hops: further(hops), kept: false }
}

fn sooner(at_ms: &mut Option<u64>, other_ms: u64) {
    *at_ms = Some(at_ms.map_or(other_ms, |at_ms| at_ms.min(other_ms)));
}

/// One hop more. How many there were is what a neighbour has said.
pub(super) fn further(hops: u16) -> u16 {
    hops.saturating_add(1)
}

fn within(cached: &Cached, from_ms: u64, to_ms: u64) -> bool {
    (from_ms..=to_ms).contains(&cached.batch.ts_ms)
}

#[cfg(test)]
mod tests;
