//! Those who are pinned, connected and speak topics: what each is told that is wanted of it, and what is on
//! its way to it.
//!
//! Source: `spec/kinds/topics.md`, "Neighbours".

use std::collections::{BTreeMap, BTreeSet};

use super::Topics;
use super::history;
use super::name::Filter;
use super::tree::{Gossip, Out};
use super::wire::{Join, Leave, check_filters, pack};
use crate::family::Cx;
use crate::id::AgentId;
use crate::limits::{
    FORGED_MAX, FORGED_MS, HISTORY_PARTS, TOPIC_JOIN_MS, TOPIC_SLOW_MS, TOPIC_UNDER_WAY_MAX,
};
use crate::trust::Level;

/// The kind that says what is wanted.
pub const JOIN: &str = "topic.join";
/// The kind that says that nothing is.
pub const LEAVE: &str = "topic.leave";
/// The kind that gives, announces and asks.
pub const GOSSIP: &str = "topic.gossip";

/// A neighbour.
#[derive(Debug, Default)]
pub struct Neighbour {
    /// It is connected and offers topics.
    pub up: bool,
    /// What it was told last, and when.
    said: Option<(Join, u64)>,
    /// The number of the last join or leave that was heard of it.
    heard_n: u64,
    /// Whose history it keeps.
    pub keeps: Vec<Filter>,
    /// Gossip on its way to it.
    under_way: usize,
    /// What it asked for is being read from the disk.
    pub reading: bool,
    /// Batches whose signature did not hold, of late, and since when.
    forged: (u32, u64),
    /// It was waited for in vain: until when it is not.
    slow_until_ms: u64,
}

impl Neighbour {
    /// A signature did not hold.
    pub fn has_forged(&mut self, mono_ms: u64) {
        let (count, since_ms) = self.forged;
        let fresh = count > 0 && since_ms + FORGED_MS > mono_ms;
        self.forged = if fresh { (count + 1, since_ms) } else { (1, mono_ms) };
    }

    /// Whether so many did not hold that none of its batches is looked at for a while: each costs more than
    /// all else that a neighbour can ask for.
    pub fn is_forger(&self, mono_ms: u64) -> bool {
        let (count, since_ms) = self.forged;
        count >= FORGED_MAX && since_ms + FORGED_MS > mono_ms
    }

    /// It was waited for in vain.
    pub fn was_slow(&mut self, mono_ms: u64) {
        self.slow_until_ms = mono_ms + TOPIC_SLOW_MS;
    }

    /// Whether that was of late.
    pub fn is_slow(&self, mono_ms: u64) -> bool {
        self.slow_until_ms > mono_ms
    }

    /// Whether it takes no more now.
    pub fn is_full(&self) -> bool {
        self.under_way >= TOPIC_UNDER_WAY_MAX
    }
}

/// What is said, put together by neighbour.
#[derive(Debug, Default)]
pub struct Said(BTreeMap<AgentId, Gossip>);

impl Said {
    /// What is said to one.
    pub fn to(&mut self, peer: AgentId) -> &mut Gossip {
        self.0.entry(peer).or_default()
    }

    /// Adds what came of an input of the mesh.
    pub fn add(&mut self, outs: impl IntoIterator<Item = Out>) {
        for out in outs {
            if let Out::Send { to, gossip } = out {
                self.join(to, gossip);
            }
        }
    }

    /// Adds to what is said to one.
    pub fn join(&mut self, to: AgentId, more: Gossip) {
        let Gossip { batches, have, want, graft, prune, sums } = more;
        let gossip = self.to(to);
        gossip.batches.extend(batches);
        gossip.have.extend(have);
        gossip.want.extend(want);
        gossip.graft.extend(graft);
        gossip.prune.extend(prune);
        gossip.sums.extend(sums);
    }
}

impl Topics {
    /// Hello is done with a peer.
    pub(super) fn peer_up(&mut self, peer: AgentId, cx: &mut Cx<'_>) {
        let offers = cx.view.topics().enabled && cx.view.offers(peer, "topics");
        if !offers || !cx.view.is_let_in(peer) {
            return;
        }
        let neighbour = self.neighbours.entry(peer).or_default();
        neighbour.up = true;
        // It may have been restarted, with another clock.
        (neighbour.said, neighbour.heard_n, neighbour.reading) = (None, 0, false);
        self.say_join(peer, cx);
    }

    /// No connection to a peer is left.
    #[inline(never)]
    pub(super) fn peer_down(&mut self, peer: AgentId) {
        self.mesh.gone(peer);
        self.history.gone(peer);
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            let under_way = neighbour.under_way;
            *neighbour = Neighbour { under_way, ..Neighbour::default() };
        }
        self.neighbours.retain(|_, neighbour| neighbour.up || neighbour.under_way > 0);
    }

    /// Gossip has arrived, or never will.
    pub(super) fn arrived(&mut self, peer: AgentId) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.under_way = neighbour.under_way.saturating_sub(1);
            if !neighbour.up && neighbour.under_way == 0 {
                self.neighbours.remove(&peer);
            }
        }
    }

    /// What is wanted has changed, or it is time to say it again.
    pub(super) fn say_joins(&mut self, cx: &mut Cx<'_>) {
        let up: Vec<AgentId> =
            self.neighbours.iter().filter(|(_, one)| one.up).map(|(peer, _)| *peer).collect();
        up.into_iter().for_each(|peer| self.say_join(peer, cx));
    }

    fn say_join(&mut self, peer: AgentId, cx: &mut Cx<'_>) {
        let wanted = self.wanted(cx);
        let (n, mono_ms) = (self.join_n.max(cx.now.wall_ms) + 1, cx.now.mono_ms);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if let Some((said, at_ms)) = &neighbour.said
            && (&said.filters, &said.keeps) == (&wanted.filters, &wanted.keeps)
            && at_ms + TOPIC_JOIN_MS > mono_ms
        {
            return;
        }
        let nothing = wanted.filters.is_empty() && wanted.keeps.is_empty();
        if nothing && neighbour.said.is_none() {
            return;
        }
        self.join_n = n;
        let join = Join { n, ..wanted };
        let (kind, payload) = if nothing { (LEAVE, Leave { n }.payload()) } else { (JOIN, join.payload()) };
        neighbour.said = Some((join, mono_ms));
        cx.send(peer, kind, payload);
    }

    /// What this daemon wants of its neighbours.
    fn wanted(&self, cx: &Cx<'_>) -> Join {
        let keeps: Vec<Filter> = self.kept.keeps().iter().map(|keep| keep.topic.clone()).collect();
        let mut filters: BTreeSet<Filter> = self.subs.filters();
        filters.extend(cx.view.topics().relay.iter().cloned());
        filters.extend(keeps.iter().cloned());
        let mut filters: Vec<Filter> = filters.into_iter().collect();
        let all = filters.iter().position(|filter| filter.as_str() == ">");
        if let Some(all) = all {
            filters = vec![filters.swap_remove(all)];
        } else if check_filters(&filters).is_err()
            && let Ok(all) = Filter::parse(">")
        {
            // More than can be said: all of it, and what nobody wants here is left aside.
            filters = vec![all];
        }
        Join { n: 0, filters, keeps }
    }

    /// A neighbour wants this, and nothing else.
    pub(super) fn heard_join(&mut self, from: AgentId, join: Join, cx: &mut Cx<'_>, said: &mut Said) {
        let neighbour = self.neighbours.entry(from).or_default();
        if join.n <= neighbour.heard_n {
            return;
        }
        neighbour.heard_n = join.n;
        let before = std::mem::replace(&mut neighbour.keeps, join.keeps);
        let new: Vec<Filter> =
            neighbour.keeps.iter().filter(|keep| !before.contains(keep)).cloned().collect();
        // What it keeps as before is compared again, some topics each time.
        let keeps = if new.is_empty() { neighbour.keeps.clone() } else { new.clone() };
        let count = if new.is_empty() { HISTORY_PARTS } else { usize::MAX };
        self.mesh.wants(from, join.filters, cx.now.mono_ms);
        let both = |topic: &&super::name::Topic| {
            self.kept.wants(topic) && keeps.iter().any(|keep| keep.matches(topic))
        };
        let skip = self.compared;
        let topics: Vec<&super::name::Topic> = self.kept.topics().filter(both).collect();
        let from_there = topics.iter().cycle().skip(skip % topics.len().max(1)).take(count.min(topics.len()));
        let sums = from_there.map(|topic| history::whole(&self.kept, topic, cx.now.wall_ms));
        said.to(from).sums.extend(sums);
        self.compared = if new.is_empty() { skip.wrapping_add(count) } else { skip };
    }

    /// Says what is to be said; what one neighbour cannot be given now is announced to it later.
    pub(super) fn say(&mut self, said: Said, cx: &mut Cx<'_>) {
        for (to, mut gossip) in said.0 {
            let Some(neighbour) = self.neighbours.get_mut(&to).filter(|one| one.up) else { continue };
            let level = cx.view.level(to).unwrap_or(Level::Blocked);
            let settings = cx.view.topics();
            gossip.batches.retain(|given| settings.gives(&given.batch.topic, level));
            gossip.have.retain(|have| settings.gives(&have.topic, level));
            gossip.sums.retain(|sum| settings.gives(&sum.topic, level));
            if neighbour.is_full() {
                // Its own requests are answered when it asks again.
                let batches = std::mem::take(&mut gossip.batches);
                batches.iter().for_each(|given| self.mesh.put_off(to, given, cx.now.mono_ms));
                gossip.have.clear();
                gossip.sums.clear();
            }
            self.relayed += gossip.batches.iter().filter(|given| given.batch.from != cx.me).count() as u64;
            for payload in pack(&gossip) {
                neighbour.under_way += 1;
                cx.send(to, GOSSIP, payload);
            }
        }
    }
}
