//! Topics on a simulated network: many meshes, links between pinned peers, loss, crashes, a partition.
//!
//! Everything hangs on one seed. The rule: whoever lives and is connected to a publisher over links of the
//! living gets each batch once, and nobody gets one twice.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use super::rng::Rng;
use crate::id::{AgentId, PublicKey};
use crate::kinds::topics::batch::{Batch, BatchId};
use crate::kinds::topics::held::Known;
use crate::kinds::topics::name::{Filter, Topic};
use crate::kinds::topics::tree::{Gossip, Mesh, Out};
use crate::wire::raw_json;

/// How long it takes until a peer is known to be gone.
const SILENCE_MS: u64 = 4_000;
/// How long a run goes on after its last batch.
const REST_MS: u64 = 60_000;

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// All that is chosen hangs on it.
    pub seed: u64,
    /// How many daemons.
    pub nodes: usize,
    /// Links of each, about.
    pub links: usize,
    /// Batches, one every 100 ms, from a daemon that lives.
    pub batches: usize,
    /// How many daemons publish; 0: any.
    pub publishers: usize,
    /// Of 1,000 messages between neighbours so many are lost.
    pub loss: u64,
    /// Of 1,000 daemons so many end in the middle of the run.
    pub crashes: u64,
    /// Whether the network falls into two halves for 20 s in the middle.
    pub partition: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Deliveries that had to be.
    pub expected: usize,
    /// Those of them that were.
    pub delivered: usize,
    /// Batches that somebody got twice.
    pub twice: usize,
    /// Messages between neighbours.
    pub messages: usize,
    /// Batches in them.
    pub batches: usize,
    /// Hops, summed over deliveries.
    pub hops: usize,
    /// The most.
    pub hops_max: u16,
    /// How long a batch took to its last receiver, without faults: half of them no longer than this.
    pub spread_p50_ms: u64,
    /// All of them no longer than this.
    pub spread_max_ms: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Arrives { from: usize, to: usize, n: usize },
    Due { node: usize },
    Gone { node: usize, peer: usize },
    Back { node: usize, peer: usize },
    Publish,
    Crash,
    Cut,
    Heal,
}

struct Net {
    options: Options,
    rng: Rng,
    now_ms: u64,
    n: u64,
    queue: BinaryHeap<Reverse<(u64, u64, What)>>,
    meshes: Vec<Mesh>,
    /// When each is to be woken.
    alarms: Vec<Option<u64>>,
    alive: Vec<bool>,
    links: Vec<BTreeSet<usize>>,
    cut: bool,
    under_way: BTreeMap<usize, Gossip>,
    numbers: usize,
    topic: Topic,
    /// Batches: who published it, when, and who got it.
    published: Vec<(usize, u64, BTreeMap<usize, u64>)>,
    ids: BTreeMap<BatchId, usize>,
    report: Report,
}

/// Runs it.
pub fn run(options: Options) -> Report {
    let Ok(topic) = Topic::parse("sim.topic") else { return Report::default() };
    let mut net = Net::new(options, topic);
    net.run();
    net.finish()
}

impl Net {
    fn new(options: Options, topic: Topic) -> Self {
        let mut rng = Rng::new(options.seed);
        let nodes = options.nodes;
        let mut links = vec![BTreeSet::new(); nodes];
        let mut join = |a: usize, b: usize| {
            if a != b {
                for (a, b) in [(a, b), (b, a)] {
                    if let Some(those) = links.get_mut(a) {
                        those.insert(b);
                    }
                }
            }
        };
        // A ring, so that all are connected, and links across it.
        for node in 0..nodes {
            join(node, (node + 1) % nodes);
            for _ in 0..options.links.saturating_sub(2).div_ceil(2) {
                join(node, usize::try_from(rng.below(nodes as u64)).unwrap_or(0));
            }
        }
        Self {
            options,
            rng,
            now_ms: 0,
            n: 0,
            queue: BinaryHeap::new(),
            meshes: (0..nodes).map(|_| Mesh::default()).collect(),
            alarms: vec![None; nodes],
            alive: vec![true; nodes],
            links,
            cut: false,
            under_way: BTreeMap::new(),
            numbers: 0,
            topic,
            published: Vec::new(),
            ids: BTreeMap::new(),
            report: Report::default(),
        }
    }

    fn at(&mut self, after_ms: u64, what: What) {
        self.n += 1;
        self.queue.push(Reverse((self.now_ms + after_ms, self.n, what)));
    }

    fn run(&mut self) {
        for node in 0..self.options.nodes {
            for peer in self.links.get(node).cloned().unwrap_or_default() {
                self.back(node, peer);
            }
        }
        let batches = self.options.batches as u64;
        (0..batches).for_each(|n| self.at(1_000 + 100 * n, What::Publish));
        let middle_ms = 1_000 + 50 * batches;
        if self.options.crashes > 0 {
            self.at(middle_ms, What::Crash);
        }
        if self.options.partition {
            self.at(middle_ms, What::Cut);
            self.at(middle_ms + 20_000, What::Heal);
        }
        let end_ms = 1_000 + 100 * batches + REST_MS;
        while let Some(Reverse((at_ms, _, what))) = self.queue.pop().filter(|Reverse(next)| next.0 <= end_ms)
        {
            self.now_ms = at_ms;
            match what {
                What::Arrives { from, to, n } => self.arrives(from, to, n),
                What::Due { node } => {
                    if let Some(alarm_ms) =
                        self.alarms.get_mut(node).filter(|alarm_ms| **alarm_ms == Some(at_ms))
                    {
                        *alarm_ms = None;
                    }
                    self.with(node, Mesh::due);
                }
                What::Gone { node, peer } => self.with(node, |mesh, _| {
                    mesh.gone(agent(peer));
                    Vec::new()
                }),
                What::Back { node, peer } => self.back(node, peer),
                What::Publish => self.publish(),
                What::Crash => self.crash(),
                What::Cut => self.cut(true),
                What::Heal => self.cut(false),
            }
        }
    }

    fn with(&mut self, node: usize, work: impl FnOnce(&mut Mesh, u64) -> Vec<Out>) {
        let now_ms = self.now_ms;
        let Some(mesh) = self.meshes.get_mut(node).filter(|_| self.alive.get(node) == Some(&true)) else {
            return;
        };
        let outs = work(mesh, now_ms);
        let due_ms = mesh.next_due_ms();
        // One alarm a daemon, unless something is due before it.
        if let Some(due_ms) = due_ms.map(|due_ms| due_ms.max(now_ms))
            && let Some(alarm_ms) = self.alarms.get_mut(node)
            && alarm_ms.is_none_or(|alarm_ms| due_ms < alarm_ms)
        {
            *alarm_ms = Some(due_ms);
            self.at(due_ms - now_ms, What::Due { node });
        }
        for out in outs {
            match out {
                Out::Send { to, gossip } => self.send(node, index(to), gossip),
                Out::Deliver { batch, .. } => {
                    let of = self.ids.get(&batch.id()).and_then(|n| self.published.get_mut(*n));
                    let Some((_, _, got)) = of else { continue };
                    if got.insert(node, now_ms).is_some() {
                        self.report.twice += 1;
                    }
                }
            }
        }
    }

    fn back(&mut self, node: usize, peer: usize) {
        let Ok(all) = Filter::parse("sim.>") else { return };
        self.with(node, |mesh, now_ms| {
            mesh.wants(agent(peer), vec![all], now_ms);
            Vec::new()
        });
    }

    fn apart(&self, a: usize, b: usize) -> bool {
        self.cut && self.across(a, b)
    }

    /// Whether they are in different halves.
    fn across(&self, a: usize, b: usize) -> bool {
        (a < self.options.nodes / 2) != (b < self.options.nodes / 2)
    }

    fn send(&mut self, from: usize, to: usize, gossip: Gossip) {
        self.report.messages += 1;
        self.report.batches += gossip.batches.len();
        // Each link has a delay of its own.
        let delay_ms = 5 + Rng::new((from.min(to) * 65_536 + from.max(to)) as u64).below(45);
        if self.apart(from, to) || self.rng.chance(self.options.loss) {
            return;
        }
        let n = self.numbers;
        self.numbers += 1;
        self.under_way.insert(n, gossip);
        self.at(delay_ms, What::Arrives { from, to, n });
    }

    fn arrives(&mut self, from: usize, to: usize, n: usize) {
        let Some(gossip) = self.under_way.remove(&n) else { return };
        let from = agent(from);
        for given in &gossip.batches {
            let (given, hops) = (given.clone(), given.hops);
            let mut is_new = false;
            self.with(to, |mesh, now_ms| {
                let (known, said) = mesh.look(from, &given.batch);
                let mut out: Vec<Out> = said.into_iter().collect();
                if known == Known::New {
                    is_new = true;
                    out.extend(mesh.take(from, given, now_ms));
                }
                out
            });
            if is_new {
                self.report.hops += usize::from(hops);
                self.report.hops_max = self.report.hops_max.max(hops);
            }
        }
        self.with(to, |mesh, now_ms| mesh.hear(from, &gossip, |_| true, now_ms));
    }

    fn publish(&mut self) {
        let lives = |node: &usize| self.alive.get(*node) == Some(&true);
        let may = if self.options.publishers == 0 { self.options.nodes } else { self.options.publishers };
        let living: Vec<usize> = (0..self.options.nodes).filter(lives).take(may).collect();
        let chosen = usize::try_from(self.rng.below(living.len() as u64)).unwrap_or(0);
        let Some(&node) = living.get(chosen) else { return };
        let seq = self.published.len() as u64 + 1;
        let message = raw_json(format!("{{\"n\":{seq}}}"));
        let signed = Batch::to_sign(&key(node), &self.topic, seq, self.now_ms, &[&*message]);
        let Ok(mut batch) = Batch::read(signed, [0; 64]) else { return };
        // The meshes know daemons by number.
        batch.from = agent(node);
        let batch = Arc::new(batch);
        self.ids.insert(batch.id(), self.published.len());
        self.published.push((node, self.now_ms, BTreeMap::new()));
        self.with(node, |mesh, now_ms| mesh.publish(batch, now_ms));
    }

    fn crash(&mut self) {
        for node in 0..self.options.nodes {
            if self.rng.chance(self.options.crashes)
                && let Some(alive) = self.alive.get_mut(node)
            {
                *alive = false;
                for peer in self.links.get(node).cloned().unwrap_or_default() {
                    self.at(SILENCE_MS, What::Gone { node: peer, peer: node });
                }
            }
        }
    }

    fn cut(&mut self, cut: bool) {
        self.cut = cut;
        for node in 0..self.options.nodes {
            for peer in self.links.get(node).cloned().unwrap_or_default() {
                if self.across(node, peer) {
                    let (gone, back) = (What::Gone { node, peer }, What::Back { node, peer });
                    if cut { self.at(SILENCE_MS, gone) } else { self.at(100, back) }
                }
            }
        }
    }

    /// Who lives and is connected to one that lives.
    fn reaches(&self, from: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::from([from]);
        let mut next = VecDeque::from([from]);
        while let Some(node) = next.pop_front() {
            for peer in self.links.get(node).into_iter().flatten() {
                if self.alive.get(*peer) == Some(&true) && reached.insert(*peer) {
                    next.push_back(*peer);
                }
            }
        }
        reached
    }

    fn finish(mut self) -> Report {
        let mut spreads = Vec::new();
        let mut reached: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (from, at_ms, got) in &self.published {
            if self.alive.get(*from) != Some(&true) {
                continue;
            }
            let reach = reached.entry(*from).or_insert_with(|| self.reaches(*from));
            self.report.expected += reach.len() - 1;
            self.report.delivered += reach.iter().filter(|node| got.contains_key(node)).count();
            spreads.extend(got.values().max().map(|last_ms| last_ms - at_ms));
        }
        spreads.sort_unstable();
        self.report.spread_p50_ms = spreads.get(spreads.len() / 2).copied().unwrap_or(0);
        self.report.spread_max_ms = spreads.last().copied().unwrap_or(0);
        self.report
    }
}

fn key(node: usize) -> PublicKey {
    let mut key = [0; 32];
    key.iter_mut().zip(node.to_be_bytes()).for_each(|(to, from)| *to = from);
    PublicKey(key)
}

fn agent(node: usize) -> AgentId {
    let mut id = [0; 16];
    id.iter_mut().zip(node.to_be_bytes()).for_each(|(to, from)| *to = from);
    AgentId(id)
}

fn index(agent: AgentId) -> usize {
    agent.0.iter().take(8).fold(0, |index, byte| index << 8 | usize::from(*byte))
}
