//! One node, its disk, and what its shell keeps.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::clients::Client;
use super::disk::{Disk, Unsynced};
use super::rng::Rng;
use super::{Ev, Sim};
use crate::contacts::ContactsFile;
use crate::id::{AgentId, PublicKey};
use crate::node::{
    Birth, ClientId, ConnId, Effect, Input, KnownPeer, Node, Pins, Seen, Settings, StaticPeer, StreamId,
    Token,
};
use crate::scope::Scope;
use crate::store::log::Options;
use crate::store::{Commit, Store};

/// Segments are short, so that cleaning goes around.
const SEGMENT_BYTES: u64 = 8_192;
/// And shorter where little is written.
const SCENARIO_SEGMENT_BYTES: u64 = 2_048;

/// One node.
pub(super) struct Host {
    pub key: PublicKey,
    pub id: AgentId,
    pub neighbours: Vec<usize>,
    pub settings: Settings,
    /// Events that wait for one client at most.
    pub client_events_max: usize,
    pub node: Option<Node>,
    pub store: Option<Store<Disk>>,
    pub disk: Disk,
    /// What waits for the disk, in order.
    pub jobs: VecDeque<Effect>,
    /// The disk does nothing before.
    pub stalled_until: u64,
    /// Counts its starts.
    pub life: u32,
    /// How much its wall clock is ahead.
    pub skew_ms: i64,
    pub timer_ms: Option<u64>,
    pub pins: Arc<Pins>,
    pub seen: Vec<Seen>,
    pub known: Vec<KnownPeer>,
    pub contacts: ContactsFile,
    pub scopes: Vec<Scope>,
    /// The store could not note where its log begins before it ended.
    pub begin_untold: bool,
    pub segment_bytes: u64,
    pub clients: BTreeMap<ClientId, Client>,
    pub conns: BTreeMap<ConnId, usize>,
    pub streams: HashMap<StreamId, u64>,
    pub answered: BTreeSet<StreamId>,
    pub tokens: HashMap<Token, u64>,
    pub stopping: bool,
}

impl Host {
    pub fn new(key: PublicKey, peers: Vec<StaticPeer>, neighbours: Vec<usize>, rng: &mut Rng) -> Self {
        let mut settings = Settings { peers, ..Settings::default() };
        // Small bounds are reached.
        if rng.chance(500) {
            settings.buffer_size = usize::try_from(rng.range(4, 60)).unwrap_or(60);
            settings.outbox.per_peer_messages_max = usize::try_from(rng.range(2, 12)).unwrap_or(12);
        }
        if rng.chance(200) {
            settings.buffer_byte_cap = 8_192;
        }
        Self {
            key,
            id: key.agent_id(),
            neighbours,
            settings,
            client_events_max: if rng.chance(500) { 6 } else { 1_024 },
            node: None,
            store: None,
            disk: Disk::default(),
            jobs: VecDeque::new(),
            stalled_until: 0,
            life: 0,
            skew_ms: 0,
            timer_ms: None,
            pins: Arc::default(),
            seen: Vec::new(),
            known: Vec::new(),
            contacts: ContactsFile::default(),
            scopes: Vec::new(),
            begin_untold: false,
            segment_bytes: SEGMENT_BYTES,
            clients: BTreeMap::new(),
            conns: BTreeMap::new(),
            streams: HashMap::new(),
            answered: BTreeSet::new(),
            tokens: HashMap::new(),
            stopping: false,
        }
    }

    /// As a scenario has it: not random, and small.
    pub fn for_scenario(&mut self) {
        let peers = std::mem::take(&mut self.settings.peers);
        self.settings = Settings { peers, buffer_size: 40, ..Settings::default() };
        self.settings.outbox.per_peer_messages_max = 16;
        self.settings.knock.open = true;
        (self.client_events_max, self.segment_bytes) = (1_024, SCENARIO_SEGMENT_BYTES);
    }

    /// What ends with the process.
    fn forget(&mut self) {
        self.node = None;
        self.begin_untold |= self.store.as_ref().is_some_and(Store::begin_is_untold);
        self.store = None;
        self.jobs.clear();
        self.timer_ms = None;
        self.clients.clear();
        self.conns.clear();
        self.streams.clear();
        self.answered.clear();
        self.tokens.clear();
        self.stopping = false;
    }
}

impl Sim {
    pub fn start(&mut self, at: usize) {
        if self.hosts[at].node.is_some() {
            return;
        }
        let (entropy, now) = (Rng::new(self.rng.number()), self.clock(at));
        let host = &mut self.hosts[at];
        let options = Options { segment_bytes: host.segment_bytes, salt: 7 };
        let (mut store, opened) = match Store::open(host.disk.clone(), options, now.wall_ms) {
            Ok(opened) => opened,
            // The disk is full or fails: the daemon does not start, and is started again.
            Err(error) => return self.not_started(at, &error.to_string()),
        };
        let mut seen = host.seen.clone();
        seen.extend(opened.seen);
        let birth = Birth {
            key: host.key,
            version: "0",
            pid: 1,
            listen: Vec::new(),
            addrs: vec!["192.0.2.1:7100".into()],
            contacts: host.contacts.clone(),
            scopes: host.scopes.clone(),
            old_keys: Vec::new(),
            sign: Box::new(|_| [0; 64]),
            verify: |_, _, _| true,
            root: None,
            known_peers: host.known.clone(),
            seen,
            next_seq: opened.next_seq,
            clean: opened.clean || !opened.had_data,
            entropy: Box::new(entropy),
        };
        let mut node = Node::new(birth, host.settings.clone(), now);
        let read = store.items(&mut |key, value| node.restore(key, value));
        let first = node.first_commit();
        let written = store.commit(std::slice::from_ref(&first), now.wall_ms);
        if read.is_err() || written != [Ok(())] {
            return self.not_started(at, "the store could not be read or written");
        }
        host.life += 1;
        host.store = Some(store);
        let effects = node.take_effects();
        host.node = Some(node);
        let life = self.hosts[at].life;
        let begin_untold = std::mem::take(&mut self.hosts[at].begin_untold);
        self.story(|| format!("node {at} starts, life {life}"));
        for warning in opened.warnings {
            let expected = warning.contains("unfinished write")
                || warning.contains("not closed cleanly")
                || begin_untold && warning.contains("the first files are missing");
            if !expected {
                self.wrong(at, "the store is whole after a power cut", warning);
            }
        }
        self.kept_is_there(at);
        self.carry_out(at, effects);
        self.feed(at, Input::Start);
    }

    /// The disk refused at the start, or the power went again.
    fn not_started(&mut self, at: usize, why: &str) {
        self.story(|| format!("node {at} does not start: {why}"));
        let unsynced = if self.hosts[at].disk.state().dead { self.unsynced() } else { Unsynced::Kept };
        self.hosts[at].disk = self.hosts[at].disk.after_power_cut(unsynced);
        self.after(1_000, Ev::Start { host: at });
    }

    /// The process ends, as by kill -9 or because the power goes.
    pub fn crash(&mut self, at: usize, unsynced: Unsynced) {
        if self.hosts[at].node.is_none() {
            return;
        }
        self.story(|| format!("node {at} crashes, unsynced writes {unsynced:?}"));
        self.promises.crashed(at, self.now);
        self.hosts[at].forget();
        self.hosts[at].disk = self.hosts[at].disk.after_power_cut(unsynced);
        let wires: Vec<usize> = self.live_wires.iter().copied().collect();
        for wire in wires {
            let ends = &mut self.wires[wire].ends;
            if ends.iter().any(|end| end.host == at) {
                ends.iter_mut().filter(|end| end.host == at).for_each(|end| end.open = false);
                self.broken(wire);
            }
        }
    }

    /// The daemon has ended properly.
    pub fn stopped(&mut self, at: usize) {
        self.story(|| format!("node {at} has stopped"));
        let store = self.hosts[at].store.take();
        let jobs = std::mem::take(&mut self.hosts[at].jobs);
        if let Some(mut store) = store {
            let wall_ms = self.clock(at).wall_ms;
            // What was asked of the disk before is done before.
            for job in jobs {
                if let Effect::Commit { commit, .. } = job
                    && store.commit(std::slice::from_ref(&commit), wall_ms) == [Ok(())]
                {
                    self.committed(at, &commit);
                }
            }
            let untold = store.begin_is_untold();
            self.hosts[at].begin_untold = store.close().is_err() && untold;
        }
        let wires: Vec<usize> = self.hosts[at].conns.values().copied().collect();
        for wire in wires {
            let side = usize::from(self.wires[wire].ends[0].host != at);
            self.wires[wire].ends[side].open = false;
            let delay = self.delay();
            self.after(delay, Ev::Lost { wire, side: 1 - side, why: "closed" });
        }
        self.hosts[at].forget();
        let unsynced = if self.hosts[at].disk.state().dead { self.unsynced() } else { Unsynced::Kept };
        self.hosts[at].disk = self.hosts[at].disk.after_power_cut(unsynced);
        let delay = if self.plan.scenario { 500 } else { self.rng.range(100, 4_000) };
        self.after(delay, Ev::Start { host: at });
    }

    /// Gives a node one input and carries out what it wants, and what follows of it at once.
    pub fn feed(&mut self, at: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.clock(at);
            self.story(|| format!("node {at} <- {}", short(&input)));
            let Some(node) = self.hosts[at].node.as_mut() else { return };
            let mut effects = Vec::new();
            node.handle(now, input, &mut effects);
            inputs.extend(self.carry_out(at, effects));
        }
        self.bounds(at);
        self.set_timer(at);
    }

    fn set_timer(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let Some(next) = host.node.as_ref().and_then(Node::next_timeout) else { return };
        if host.timer_ms.is_none_or(|set| next < set) {
            host.timer_ms = Some(next);
            let (life, now) = (host.life, self.now);
            self.after(next.saturating_sub(now), Ev::Timer { host: at, life, at_ms: next });
        }
    }

    pub fn timer(&mut self, at: usize, life: u32, at_ms: u64) {
        if !self.alive(at, life) || self.hosts[at].timer_ms != Some(at_ms) {
            return;
        }
        self.hosts[at].timer_ms = None;
        let due = |sim: &Self| sim.hosts[at].node.as_ref().and_then(Node::next_timeout);
        if due(self).is_some_and(|next| next <= self.now) {
            self.feed(at, Input::Timer);
            if due(self).is_some_and(|next| next <= self.now) {
                self.wrong(at, "a timer that was due is gone after it", format!("{:?}", due(self)));
            }
        }
        self.set_timer(at);
    }

    /// The disk's thread does what waits: commits that stand together are made together.
    pub fn disk(&mut self, at: usize, life: u32) {
        if !self.alive(at, life) {
            return;
        }
        if self.hosts[at].stalled_until > self.now {
            let wait = self.hosts[at].stalled_until - self.now;
            return self.after(wait, Ev::Disk { host: at, life });
        }
        let wall_ms = self.clock(at).wall_ms;
        let maintain = self.rng.chance(if self.plan.scenario { 500 } else { 100 });
        let host = &mut self.hosts[at];
        let Some(store) = host.store.as_mut() else { return };
        let mut ids = Vec::new();
        let mut batch: Vec<Commit> = Vec::new();
        while let Some(Effect::Commit { .. }) = host.jobs.front() {
            if let Some(Effect::Commit { id, commit }) = host.jobs.pop_front() {
                ids.push(id);
                batch.push(commit);
            }
        }
        let mut inputs = Vec::new();
        let mut made = Vec::new();
        if batch.is_empty() {
            match host.jobs.pop_front() {
                Some(Effect::Read { id, read }) => {
                    inputs.push(Input::ReadDone { id, out: store.read(&read) });
                }
                Some(Effect::Evict(keep)) => drop(store.evict(&keep, wall_ms)),
                _ => {}
            }
        } else {
            let outcomes = store.commit(&batch, wall_ms);
            for ((id, commit), outcome) in ids.into_iter().zip(batch).zip(outcomes) {
                if outcome.is_ok() {
                    made.push(commit);
                }
                inputs.push(Input::Committed { id, outcome });
            }
        }
        if maintain {
            store.maintain(wall_ms);
        }
        if host.disk.state().dead {
            // The power went in the middle of it: nobody hears what came of it.
            let unsynced = self.unsynced();
            self.crash(at, unsynced);
            let down = self.rng.range(100, 5_000);
            return self.after(down, Ev::Start { host: at });
        }
        for commit in made {
            self.committed(at, &commit);
        }
        for input in inputs {
            self.feed(at, input);
        }
        if !self.hosts[at].jobs.is_empty() {
            self.after(0, Ev::Disk { host: at, life });
        }
    }
}

/// An input in a line.
fn short(input: &Input) -> String {
    let text = match input {
        Input::Line { client, line } => format!("Line {client:?} {}", String::from_utf8_lossy(line)),
        Input::Request { conn, stream, bytes } => {
            format!("Request {conn:?} {stream:?} {}", String::from_utf8_lossy(bytes))
        }
        Input::OneWay { conn, bytes } => format!("OneWay {conn:?} {}", String::from_utf8_lossy(bytes)),
        Input::Replied { token, outcome: Ok(bytes) } => {
            format!("Replied {token:?} {}", String::from_utf8_lossy(bytes))
        }
        Input::Settings(_) => "Settings".into(),
        other => format!("{other:?}"),
    };
    text.chars().take(600).collect()
}
