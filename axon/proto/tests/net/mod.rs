//! A network of nodes in memory, with one virtual clock and one seed.
//!
//! [`World`] plays the shell of every node as `axon/src/net` and `axon/src/driver.rs` do it: it carries out
//! effects, feeds inputs, and keeps connections as pairs of ends. Messages take a random time, so streams
//! overtake each other as in QUIC. Links can be cut and healed, connections lost, nodes crashed and started
//! again under the same key. A run depends on its seed alone.

#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod rng;
mod shell;
mod solo;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use axon_proto::contacts::{ContactChange, ContactsFile};
use axon_proto::id::{AgentId, MsgId, PublicKey};
use axon_proto::limits::SILENCE_MS;
use axon_proto::node::{
    Birth, ClientId, ConnId, DialId, Effect, Entropy, Input, JobId, KEY_REFUSED, KnownPeer, Lost, Node, Now,
    Pins, Seen, Settings, Side, StaticPeer, StreamId, Token,
};
use axon_proto::store::Store;
use axon_proto::store::log::Options;
use axon_proto::store::memory::Memory;
use serde_json::{Value, json};

#[allow(unused_imports)]
pub use rng::Rng;
#[allow(unused_imports)]
pub use solo::{Solo, answer_on, closes, lines};

/// Unix time at the beginning of every run.
pub const WALL_MS: u64 = 1_795_000_000_000;
/// QUIC's idle timeout.
const IDLE_MS: u64 = 60_000;
/// QUIC's keep-alive.
const KEEPALIVE_MS: u64 = 15_000;

/// A client of one node.
#[derive(Default)]
pub struct Cli {
    pub lines: Vec<Value>,
    /// It answers what it is offered after so long.
    pub think_ms: Option<(u64, u64)>,
    pub closed: bool,
    commands: u64,
}

/// One node and what its shell keeps.
pub struct Host {
    pub key: PublicKey,
    pub id: AgentId,
    pub node: Option<Node>,
    pub settings: Settings,
    /// What outlives a crash of this host.
    pub disk: Memory,
    store: Option<Store<Memory>>,
    /// What waits for the disk, in order.
    jobs: VecDeque<Effect>,
    /// Counts its starts.
    pub life: u32,
    pub pins: Arc<Pins>,
    pub seen: Vec<Seen>,
    pub known: Vec<KnownPeer>,
    pub contacts: ContactsFile,
    /// Its audit log.
    pub audit: Vec<axon_proto::audit::Row>,
    pub clients: BTreeMap<ClientId, Cli>,
    pub stopped: u32,
    /// When which connection was closed, by which code.
    pub closes: Vec<(u64, ConnId, u32, &'static str)>,
    /// When it began to dial whom, and with which patience.
    pub dials: Vec<(u64, AgentId, u64)>,
    /// Connections that came up here, in order: whether this node had dialled.
    pub ups: Vec<bool>,
    /// Envelopes that it sent, and how often.
    pub sends: HashMap<MsgId, u32>,
    conns: BTreeMap<ConnId, usize>,
    streams: HashMap<StreamId, usize>,
    tokens: HashMap<Token, usize>,
}

/// One end of a connection.
struct End {
    host: usize,
    life: u32,
    conn: ConnId,
    /// The node has been told of it.
    known: bool,
    open: bool,
    silent: bool,
}

/// A QUIC connection; the first end dialled.
struct Wire {
    ends: [End; 2],
    dial: DialId,
    /// A close waits until the answers given before it have arrived.
    flush_until: u64,
}

/// A message on its way, and its answer's.
struct Exchange {
    wire: usize,
    side: usize,
    token: Token,
    bidi: bool,
    bytes: Arc<str>,
    at_receiver: Option<StreamId>,
    arrived: bool,
    abandoned: bool,
    done: bool,
}

#[derive(Clone)]
enum Ev {
    Disk {
        host: usize,
        life: u32,
    },
    DialTry {
        // Which start of the host it belongs to.
        host: usize,
        life: u32,
        dial: DialId,
        peer: AgentId,
        hello: Arc<str>,
        token: Token,
        until: u64,
    },
    Connected {
        wire: usize,
        side: usize,
        hello: Option<(Token, Arc<str>)>,
    },
    Arrive {
        ex: usize,
    },
    Answer {
        ex: usize,
        answer: Option<Arc<str>>,
    },
    Acked {
        ex: usize,
    },
    Gone {
        host: usize,
        life: u32,
        stream: StreamId,
    },
    Lost {
        wire: usize,
        side: usize,
        why: &'static str,
    },
    Idle {
        wire: usize,
    },
    Silence {
        wire: usize,
        side: usize,
    },
    Over {
        wire: usize,
        side: usize,
    },
    DialFailed {
        host: usize,
        life: u32,
        dial: DialId,
    },
    Say {
        host: usize,
        life: u32,
        client: ClientId,
        line: String,
    },
}

/// In which life of a node, when, and to which client a message was shown.
pub type Shown = (u32, u64, ClientId);

pub struct World {
    pub now: u64,
    pub hosts: Vec<Host>,
    pub rng: Rng,
    /// How long a packet takes, from and to.
    pub latency_ms: (u64, u64),
    /// Requests handed to agents: which node, which request; in which life, when, to which client.
    pub offered: HashMap<(usize, String), Vec<Shown>>,
    /// Kinds of requests that were handed to agents.
    pub kinds: HashMap<String, String>,
    /// Results of delegations that were taken from agents: at which node, for which delegation, when, and
    /// the id of the message.
    pub results: Vec<(usize, String, u64, String)>,
    /// One-way messages shown to agents that were not there when they came.
    pub replayed: BTreeSet<(usize, String)>,
    /// One-way messages shown to agents.
    pub shown: HashMap<(usize, String), Vec<Shown>>,
    wires: Vec<Wire>,
    exchanges: Vec<Exchange>,
    queue: BTreeMap<(u64, u64), Ev>,
    stalled: Vec<Ev>,
    count: u64,
    ids: u64,
    down: BTreeSet<(usize, usize)>,
    trace: Vec<String>,
}

impl World {
    /// So many nodes that have each other in `[[peers]]`; the first has the lowest id. None is started.
    pub fn new(seed: u64, count: u8) -> Self {
        let mut keys: Vec<PublicKey> = (1..=count).map(|n| PublicKey([n; 32])).collect();
        keys.sort_by_key(PublicKey::agent_id);
        let peer = |key: &PublicKey| StaticPeer {
            agent_id: key.agent_id(),
            pubkey: *key,
            addr: "192.0.2.1:7100".into(),
            name: None,
        };
        let hosts = keys.iter().map(|key| Host {
            key: *key,
            id: key.agent_id(),
            node: None,
            settings: Settings {
                peers: keys.iter().filter(|other| *other != key).map(peer).collect(),
                ..Settings::default()
            },
            disk: Memory::new(),
            store: None,
            jobs: VecDeque::new(),
            life: 0,
            pins: Arc::default(),
            seen: Vec::new(),
            known: Vec::new(),
            contacts: ContactsFile::default(),
            audit: Vec::new(),
            clients: BTreeMap::new(),
            stopped: 0,
            closes: Vec::new(),
            dials: Vec::new(),
            ups: Vec::new(),
            sends: HashMap::new(),
            conns: BTreeMap::new(),
            streams: HashMap::new(),
            tokens: HashMap::new(),
        });
        Self {
            now: 1_000,
            hosts: hosts.collect(),
            rng: Rng(seed),
            latency_ms: (1, 20),
            offered: HashMap::new(),
            shown: HashMap::new(),
            kinds: HashMap::new(),
            results: Vec::new(),
            replayed: BTreeSet::new(),
            wires: Vec::new(),
            exchanges: Vec::new(),
            queue: BTreeMap::new(),
            stalled: Vec::new(),
            count: 0,
            ids: 0,
            down: BTreeSet::new(),
            trace: Vec::new(),
        }
    }

    /// Two nodes, started and connected, an agent at each.
    pub fn pair(seed: u64) -> (Self, [ClientId; 2]) {
        let mut world = Self::new(seed, 2);
        world.start(0);
        world.run_for(100);
        world.start(1);
        assert!(world.run_until(6_000, |w| w.wires_between(0, 1).len() == 1));
        world.run_for(3_000);
        let agents = [world.agent(0, (1, 30)), world.agent(1, (1, 30))];
        (world, agents)
    }

    pub fn clock(&self) -> Now {
        Now { mono_ms: self.now, wall_ms: WALL_MS + self.now }
    }

    // --- nodes ---

    pub fn start(&mut self, at: usize) {
        let entropy = Rng(self.rng.next());
        let now = self.clock();
        let host = &mut self.hosts[at];
        assert!(host.node.is_none());
        host.life += 1;
        let (mut store, opened) = Store::open(host.disk.clone(), Options::default(), now.wall_ms).unwrap();
        let birth = Birth {
            key: host.key,
            version: "0",
            pid: 1,
            listen: Vec::new(),
            root: None,
            contacts: host.contacts.clone(),
            addrs: vec!["192.0.2.1:7100".into()],
            scopes: Vec::new(),
            old_keys: Vec::new(),
            sign: Box::new(|_| [0; 64]),
            verify: |_, _, _| true,
            known_peers: host.known.clone(),
            seen: host.seen.iter().copied().chain(opened.seen).collect(),
            next_seq: opened.next_seq,
            clean: opened.clean || !opened.had_data,
            entropy: Box::new(entropy),
        };
        let mut node = Node::new(birth, host.settings.clone(), now);
        store.items(&mut |key, value| node.restore(key, value)).unwrap();
        assert_eq!(store.commit(&[node.first_commit()], WALL_MS), [Ok(())]);
        host.store = Some(store);
        let effects = node.take_effects();
        host.node = Some(node);
        effects.into_iter().for_each(|effect| self.carry_out(at, effect));
        self.note(format!("start {at}"));
        self.feed(at, Input::Start);
    }

    /// As by kill -9: nothing is said to anybody, and what was not written is gone.
    pub fn crash(&mut self, at: usize) {
        self.note(format!("crash {at}"));
        let host = &mut self.hosts[at];
        host.node = None;
        host.store = None;
        host.jobs.clear();
        host.conns.clear();
        host.streams.clear();
        host.tokens.clear();
        host.clients.clear();
        for wire in 0..self.wires.len() {
            self.wires[wire].ends.iter_mut().filter(|end| end.host == at).for_each(|end| end.open = false);
            self.broken(wire);
        }
    }

    /// A connection that has just gone bad is noticed in time.
    fn broken(&mut self, wire: usize) {
        for side in 0..2 {
            if self.wires[wire].ends[side].open {
                self.after(SILENCE_MS + 1_500, Ev::Silence { wire, side });
                self.after(IDLE_MS, Ev::Idle { wire });
            }
        }
    }

    pub fn cut(&mut self, a: usize, b: usize) {
        self.note(format!("cut {a} {b}"));
        self.down.insert((a.min(b), a.max(b)));
        let between: Vec<usize> = self.wires_of(a, b);
        between.into_iter().for_each(|wire| self.broken(wire));
    }

    pub fn heal(&mut self, a: usize, b: usize) {
        self.note(format!("heal {a} {b}"));
        self.down.remove(&(a.min(b), a.max(b)));
        for event in std::mem::take(&mut self.stalled) {
            let delay = self.delay();
            self.after(delay, event);
        }
        for wire in self.wires_of(a, b) {
            let open = [self.wires[wire].ends[0].open, self.wires[wire].ends[1].open];
            for side in 0..2 {
                if open == [true, true] && self.wires[wire].ends[side].silent {
                    self.wires[wire].ends[side].silent = false;
                    let (host, conn) = (self.wires[wire].ends[side].host, self.wires[wire].ends[side].conn);
                    self.feed(host, Input::Alive { conn });
                } else if open[side] && !open[1 - side] {
                    let delay = self.rng.range(1, KEEPALIVE_MS);
                    self.after(delay, Ev::Lost { wire, side, why: "reset" });
                }
            }
        }
    }

    /// All connections between two nodes end, each end hears of it in its own time.
    pub fn lose(&mut self, a: usize, b: usize) {
        self.note(format!("lose {a} {b}"));
        for wire in self.wires_of(a, b) {
            for side in 0..2 {
                let delay = self.delay();
                self.after(delay, Ev::Lost { wire, side, why: "lost" });
            }
        }
    }

    fn wires_of(&self, a: usize, b: usize) -> Vec<usize> {
        let ends = |wire: &Wire| [wire.ends[0].host, wire.ends[1].host];
        let between = |wire: &Wire| ends(wire) == [a, b] || ends(wire) == [b, a];
        (0..self.wires.len()).filter(|at| between(&self.wires[*at])).collect()
    }

    /// Connections that both ends believe in: who dialled, and the two names.
    pub fn wires_between(&self, a: usize, b: usize) -> Vec<(usize, ConnId, ConnId)> {
        let wires = self.wires_of(a, b).into_iter().map(|at| &self.wires[at].ends);
        let open = |ends: &&[End; 2]| ends.iter().all(|end| end.open && end.known);
        wires.filter(open).map(|ends| (ends[0].host, ends[0].conn, ends[1].conn)).collect()
    }

    /// Connections that at least one end believes in.
    pub fn half_wires(&self, a: usize, b: usize) -> usize {
        let open = |at: &usize| self.wires[*at].ends.iter().any(|end| end.open);
        self.wires_of(a, b).into_iter().filter(open).count()
    }

    /// Whether the connection that came up first here was dialled by the lower id (of two nodes).
    pub fn dialled_first(&self, at: usize) -> bool {
        self.hosts[at].ups[0] == (at == 0)
    }

    /// Drops what was noted of the past; only for long runs.
    pub fn forget(&mut self) {
        assert!(self.exchanges.iter().all(|ex| ex.done));
        let idle = |event: &Ev| {
            matches!(event, Ev::Silence { .. } | Ev::Idle { .. } | Ev::Disk { .. } | Ev::Lost { .. })
        };
        let busy: Vec<&Ev> = self.queue.values().filter(|event| !idle(event)).collect();
        assert!(
            busy.is_empty(),
            "{} events are to come, of kinds {:?}",
            busy.len(),
            busy.iter().map(|ev| std::mem::discriminant(*ev)).collect::<Vec<_>>()
        );
        self.exchanges.clear();
        for host in &mut self.hosts {
            host.clients.values_mut().for_each(|cli| cli.lines.clear());
        }
    }

    // --- clients ---

    /// A client that has said hello.
    pub fn client(&mut self, at: usize) -> ClientId {
        self.ids += 1;
        let client = ClientId(self.ids);
        self.hosts[at].clients.insert(client, Cli::default());
        self.feed(at, Input::ClientUp { client, trusted: true, socket: None });
        let consumer = format!("c{}", client.0);
        self.say(at, client, &json!({"cmd":"hello","req_id":"h","version":2,"consumer":consumer}));
        client
    }

    /// A client that answers everything after a while, and sees all one-way messages.
    pub fn agent(&mut self, at: usize, think_ms: (u64, u64)) -> ClientId {
        let client = self.client(at);
        self.hosts[at].clients.get_mut(&client).unwrap().think_ms = Some(think_ms);
        self.subscribe(at, client);
        client
    }

    pub fn subscribe(&mut self, at: usize, client: ClientId) {
        self.say(
            at,
            client,
            &json!({"cmd":"subscribe","req_id":"s","answer":["query","delegate","cancel"],
                    "kinds":["notify","result","progress"],"capacity":1000}),
        );
        self.finish_disk(at);
    }

    /// Lets a node's disk do at once all that waits for it.
    pub fn finish_disk(&mut self, at: usize) {
        let life = self.hosts[at].life;
        while !self.hosts[at].jobs.is_empty() {
            self.happen(Ev::Disk { host: at, life });
        }
    }

    pub fn leave(&mut self, at: usize, client: ClientId) {
        self.hosts[at].clients.remove(&client);
        self.feed(at, Input::ClientGone { client });
    }

    pub fn say(&mut self, at: usize, client: ClientId, command: &Value) {
        self.feed(at, Input::Line { client, line: command.to_string().into_bytes() });
    }

    /// Sends a message by the socket; yields the command's `req_id`.
    pub fn send(&mut self, at: usize, client: ClientId, to: usize, kind: &str, payload: Value) -> String {
        let to = self.hosts[to].id.to_string();
        let state = self.hosts[at].clients.get_mut(&client).unwrap();
        state.commands += 1;
        let req_id = format!("r{}", state.commands);
        let command = json!({"cmd":"send","req_id":req_id,"to":to,"kind":kind,"payload":payload});
        self.say(at, client, &command);
        req_id
    }

    pub fn query(&mut self, at: usize, client: ClientId, to: usize) -> String {
        self.send(at, client, to, "query", json!({"question":"q"}))
    }

    pub fn notify(&mut self, at: usize, client: ClientId, to: usize) -> String {
        self.send(at, client, to, "notify", json!({"topic":"t","data":null}))
    }

    pub fn delegate(&mut self, at: usize, client: ClientId, to: usize) -> String {
        self.send(at, client, to, "delegate", json!({"task":"t"}))
    }

    /// All replies to one command.
    pub fn replies(&self, at: usize, client: ClientId, req_id: &str) -> Vec<Value> {
        let Some(cli) = self.hosts[at].clients.get(&client) else { return Vec::new() };
        cli.lines.iter().filter(|line| line["req_id"] == req_id).cloned().collect()
    }

    /// The one reply to a command, which must come in time.
    pub fn reply(&mut self, at: usize, client: ClientId, req_id: &str, max_ms: u64) -> Value {
        let came = self.run_until(max_ms, |w| !w.replies(at, client, req_id).is_empty());
        assert!(came, "no reply to {req_id} of node {at} within {max_ms} ms\n{}", self.tail());
        let replies = self.replies(at, client, req_id);
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies[0].clone()
    }

    /// What the client's events hold: envelopes of this kind.
    pub fn events(&self, at: usize, client: ClientId, kind: &str) -> Vec<Value> {
        let Some(cli) = self.hosts[at].clients.get(&client) else { return Vec::new() };
        let envelopes =
            cli.lines.iter().filter(|line| line["event"] == "inbound").map(|line| &line["envelope"]);
        envelopes.filter(|envelope| envelope["kind"] == kind).cloned().collect()
    }

    pub fn status(&mut self, at: usize) -> Value {
        let client = self.client(at);
        self.say(at, client, &json!({"cmd":"status","req_id":"st"}));
        self.finish_disk(at);
        let status = self.replies(at, client, "st")[0].clone();
        self.leave(at, client);
        status
    }

    /// A node's word on a peer: connected, connecting or disconnected.
    pub fn peer_status(&mut self, at: usize, peer: usize) -> String {
        let client = self.client(at);
        self.say(at, client, &json!({"cmd":"peers","req_id":"p"}));
        let id = self.hosts[peer].id.to_string();
        let peers = self.replies(at, client, "p")[0]["peers"].clone();
        self.leave(at, client);
        let row = peers.as_array().unwrap().iter().find(|row| row["id"] == id.as_str());
        row.map_or_else(|| "unknown".into(), |row| row["status"].as_str().unwrap().to_owned())
    }

    // --- time ---

    pub fn run_for(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.step(until) {}
        self.now = until;
    }

    pub fn run_until(&mut self, max_ms: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        let until = self.now + max_ms;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(until) {
                self.now = until;
                return done(self);
            }
        }
    }

    fn step(&mut self, until: u64) -> bool {
        let timer = self.hosts.iter().enumerate();
        let timer = timer.filter_map(|(at, host)| Some((host.node.as_ref()?.next_timeout()?, at))).min();
        let event = self.queue.first_key_value().map(|(key, _)| *key);
        match (timer, event) {
            (Some((at_ms, host)), event) if event.is_none_or(|(event_ms, _)| at_ms <= event_ms) => {
                if at_ms > until {
                    return false;
                }
                self.now = self.now.max(at_ms);
                self.feed(host, Input::Timer);
                let next = self.hosts[host].node.as_ref().and_then(Node::next_timeout);
                assert!(next.is_none_or(|next| next > self.now), "a timer that is due stays");
            }
            (_, Some(key)) => {
                if key.0 > until {
                    return false;
                }
                self.now = self.now.max(key.0);
                let event = self.queue.remove(&key).unwrap();
                self.happen(event);
            }
            _ => return false,
        }
        true
    }

    fn after(&mut self, ms: u64, event: Ev) {
        self.count += 1;
        self.queue.insert((self.now + ms, self.count), event);
    }

    fn delay(&mut self) -> u64 {
        let (from, to) = self.latency_ms;
        self.rng.range(from, to)
    }

    fn linked(&self, a: usize, b: usize) -> bool {
        !self.down.contains(&(a.min(b), a.max(b)))
    }

    fn alive(&self, host: usize, life: u32) -> bool {
        self.hosts[host].node.is_some() && self.hosts[host].life == life
    }

    fn path_ok(&self, wire: usize) -> bool {
        let ends = &self.wires[wire].ends;
        let alive = ends.iter().all(|end| end.open && self.alive(end.host, end.life));
        alive && self.linked(ends[0].host, ends[1].host)
    }

    // --- for a failing test ---

    fn note(&mut self, text: String) {
        if self.trace.len() > 40_000 {
            self.trace.drain(..20_000);
        }
        self.trace.push(format!("{:>7} {text}", self.now));
    }

    /// What happened to one message, and between nodes around it.
    pub fn about(&self, id: &str) -> String {
        let first = self.trace.iter().position(|line| line.contains(id)).unwrap_or(0);
        let last = self.trace.iter().rposition(|line| line.contains(id)).unwrap_or(0);
        let plain = |line: &&String| !line.contains("Client") && !line.contains("Timer");
        let around = self.trace[first.saturating_sub(60)..(last + 20).min(self.trace.len())].iter();
        around.filter(plain).cloned().collect::<Vec<_>>().join("\n")
    }

    /// What happened to requests whose last reply by an agent was refused.
    pub fn open_requests(&self, at: usize) -> String {
        let mut text = String::new();
        for cli in self.hosts[at].clients.values() {
            for line in cli.lines.iter().filter(|line| line["ok"] == false) {
                let req_id = line["req_id"].as_str().unwrap_or_default();
                let id = req_id.get(req_id.len().saturating_sub(36)..).unwrap_or_default();
                text += &format!("{line}\n{}\n----\n", self.about(id));
            }
        }
        text
    }

    /// The last things that happened.
    pub fn tail(&self) -> String {
        self.trace[self.trace.len().saturating_sub(120)..].join("\n")
    }
}

fn reply_line(id: &str, kind: &str, payload: &Value) -> String {
    let req_id = format!("a-{kind}-{id}");
    json!({"cmd":"reply","req_id":req_id,"ref":id,"kind":kind,"payload":payload}).to_string()
}

fn short(input: &Input) -> String {
    let text = match input {
        Input::Line { client, line } => format!("Line {client:?} {}", String::from_utf8_lossy(line)),
        Input::Request { conn, stream, bytes } => {
            format!("Request {conn:?} {stream:?} {}", String::from_utf8_lossy(bytes))
        }
        Input::OneWay { conn, bytes } => format!("OneWay {conn:?} {}", String::from_utf8_lossy(bytes)),
        Input::Replied { token, outcome } => match outcome {
            Ok(bytes) => format!("Replied {token:?} {}", String::from_utf8_lossy(bytes)),
            Err(lost) => format!("Replied {token:?} {lost:?}"),
        },
        Input::Settings(_) => "Settings".into(),
        other => format!("{other:?}"),
    };
    text.chars().take(400).collect()
}
