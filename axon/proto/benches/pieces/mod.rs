//! The pieces of a message's way, one message at a time, on a node whose whole world is made here: peers,
//! clients, store. What is measured goes through a [`Meter`]; making messages and looking at what came of
//! them does not.
//!
//! `hot.rs` gives them to a clock, `../tests/allocations.rs` to a counter of allocations,
//! `../examples/cost.rs` to valgrind.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::sync::Arc;

use axon_proto::contacts::ContactsFile;
use axon_proto::id::{AgentId, MsgId, PublicKey};
use axon_proto::ipc::Command;
use axon_proto::node::{
    Birth, ClientId, ConnId, Effect, Entropy, Input, Node, Now, Settings, Side, StaticPeer, StreamId, Token,
};
use axon_proto::store::log::Options;
use axon_proto::store::memory::Memory;
use axon_proto::store::{Commit, Keep, Row, Store, Write};
use axon_proto::wire::{self, Envelope, Header};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

/// How long the payload of every message is.
pub const PAYLOAD_BYTES: usize = 256;
/// When a run begins, in Unix milliseconds.
const WALL_MS: u64 = 1_800_000_000_000;
/// How often a subscriber acknowledges what must not go unread; not measured.
const ACK_EVERY: u64 = 100;
/// No bound of the inbox is met.
const ALL: Keep = Keep { rows_max: 1 << 40, bytes_max: 1 << 40, ttl_ms: 1 << 60, read_up_to: 0 };

/// Runs what is to be measured.
pub trait Meter {
    /// What the node, or a function without one, does.
    fn core<T>(&mut self, work: impl FnOnce() -> T) -> T;
    /// What the store does. In the daemon it is another thread's.
    fn store<T>(&mut self, work: impl FnOnce() -> T) -> T {
        work()
    }
}

/// Measures nothing.
pub struct Unmetered;

impl Meter for Unmetered {
    fn core<T>(&mut self, work: impl FnOnce() -> T) -> T {
        work()
    }
}

/// What a node has around it.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// Peers with a connection that is up. The last one is played.
    pub peers: usize,
    /// Clients: the first answers queries and asks, the last `subscribers` see notifies, all others wait for
    /// kinds that never come, each with an inbox of its own.
    pub clients: usize,
    /// Of these so many want notifies.
    pub subscribers: usize,
    /// Unread messages in the inbox: firm ones where there are receipts.
    pub rows: u64,
    /// Whether one-way messages have receipts.
    pub durable: bool,
    /// How many rows the inbox may hold.
    pub rows_max: usize,
}

impl Default for World {
    fn default() -> Self {
        Self { peers: 1, clients: 1, subscribers: 1, rows: 0, durable: false, rows_max: 1_000 }
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn id(&mut self) -> MsgId {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        MsgId::from_random(bytes)
    }
}

impl Entropy for Random {
    fn fill(&mut self, bytes: &mut [u8; 16]) {
        bytes[..8].copy_from_slice(&self.next().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next().to_be_bytes());
    }
}

/// One node, the peer and the clients that are played, and the store under it.
pub struct Rig {
    node: Node,
    store: Store<Memory>,
    me: AgentId,
    peer: AgentId,
    conn: ConnId,
    agent: ClientId,
    subscribers: usize,
    now_ms: u64,
    random: Random,
    streams: u64,
    /// What is not yet carried out.
    effects: Vec<Effect>,
    /// What the last input led to, but for what the store did.
    done: Vec<Effect>,
    query: Box<RawValue>,
    notify: Box<RawValue>,
    response: Box<RawValue>,
    ack: Box<RawValue>,
    query_line: String,
    notify_line: String,
    reply_payload: String,
}

/// A JSON object of exactly [`PAYLOAD_BYTES`], most of it one text.
fn payload(begin: &str, end: &str) -> Box<RawValue> {
    let text = "the quick brown fox jumps over the lazy dog. ".repeat(PAYLOAD_BYTES / 40 + 1);
    let json = format!("{begin}{}{end}", &text[..PAYLOAD_BYTES - begin.len() - end.len()]);
    RawValue::from_string(json).unwrap()
}

pub fn query_payload() -> Box<RawValue> {
    payload(r#"{"question":""#, r#""}"#)
}

pub fn notify_payload() -> Box<RawValue> {
    payload(r#"{"topic":"state","data":{"text":""#, r#""}}"#)
}

fn key(n: usize) -> PublicKey {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
    PublicKey(key)
}

/// An envelope as it comes from a peer.
fn written(header: Header<'_>, payload: &RawValue) -> Vec<u8> {
    wire::encode(header, payload).unwrap().raw().as_bytes().to_vec()
}

pub fn header(id: MsgId, from: AgentId, to: AgentId, kind: &str) -> Header<'_> {
    Header { id, from, to, ts: WALL_MS, kind, reference: None, resend_until: None, read_receipt: false }
}

impl Rig {
    pub fn new(world: World) -> Self {
        assert!(world.peers > 0 && world.clients > 0 && (1..=world.clients).contains(&world.subscribers));
        let me = key(0);
        let peers: Vec<PublicKey> = (1..=world.peers).map(key).collect();
        let (peer, now_ms) = (peers[world.peers - 1].agent_id(), 1_000);
        let settings = Settings {
            peers: peers.iter().map(static_peer).collect(),
            durable: world.durable,
            buffer_size: world.rows_max,
            buffer_byte_cap: usize::MAX >> 1,
            max_ipc_clients: world.clients + 1,
            ..Settings::default()
        };
        let (mut store, opened) = Store::open(Memory::new(), Options::default(), WALL_MS).unwrap();
        let next_seq = fill(&mut store, &world, peer, me.agent_id()).max(opened.next_seq);
        let birth = Birth {
            key: me,
            version: "0",
            pid: 1,
            listen: Vec::new(),
            root: None,
            addrs: Vec::new(),
            contacts: ContactsFile::default(),
            scopes: Vec::new(),
            old_keys: Vec::new(),
            sign: Box::new(|_| [0; 64]),
            verify: |_, _, _| true,
            known_peers: Vec::new(),
            seen: opened.seen,
            next_seq,
            clean: true,
            entropy: Box::new(Random(1)),
        };
        let mut node = Node::new(birth, settings, Now { mono_ms: now_ms, wall_ms: WALL_MS + now_ms });
        store.items(&mut |key, value| node.restore(key, value)).unwrap();
        assert_eq!(store.commit(&[node.first_commit()], WALL_MS), [Ok(())]);
        node.take_effects();
        let (query, notify) = (query_payload(), notify_payload());
        let line = |kind: &str, payload: &RawValue| {
            format!(r#"{{"cmd":"send","req_id":"1","to":"{peer}","kind":"{kind}","payload":{payload}}}"#)
        };
        let mut rig = Self {
            node,
            store,
            me: me.agent_id(),
            peer,
            conn: ConnId(world.peers as u64),
            agent: ClientId(1),
            subscribers: world.subscribers,
            now_ms,
            random: Random(2),
            streams: 0,
            effects: Vec::new(),
            done: Vec::new(),
            query_line: line("query", &query),
            notify_line: line("notify", &notify),
            query,
            notify,
            response: payload(r#"{"data":null,"summary":""#, r#""}"#),
            ack: RawValue::from_string(r#"{"accepted":true}"#.into()).unwrap(),
            reply_payload: payload(r#"{"data":null,"summary":""#, r#""}"#).get().to_owned(),
        };
        rig.feed(&mut Unmetered, Input::Start);
        for (at, key) in peers.iter().enumerate() {
            rig.greet(ConnId(at as u64 + 1), *key);
        }
        for at in 0..world.clients {
            rig.attach(at, at + world.subscribers >= world.clients);
        }
        rig
    }

    /// A peer dials and says hello.
    fn greet(&mut self, conn: ConnId, key: PublicKey) {
        let peer = key.agent_id();
        let addr = "192.0.2.1:7100".parse().unwrap();
        let (side, binding) = (Side::Acceptor, [7; 32]);
        let input = Input::Connected { conn, peer, key, side, addr, dial: None, early: false, binding };
        self.feed(&mut Unmetered, input);
        let features = ["delegate", "ack", "progress", "result", "cancel", "discover", "receipt"];
        let hello = json!({"protocol_versions":[1],"features":features}).to_string();
        let hello = RawValue::from_string(hello).unwrap();
        let bytes = written(header(self.random.id(), peer, self.me, "hello"), &hello);
        let stream = self.stream();
        self.feed(&mut Unmetered, Input::Request { conn, stream, bytes });
        assert!(self.responded(stream).contains(r#""kind":"hello""#));
    }

    /// A client comes and says what it wants.
    fn attach(&mut self, at: usize, subscribes: bool) {
        let client = ClientId(at as u64 + 1);
        self.feed(&mut Unmetered, Input::ClientUp { client, trusted: true, socket: None });
        let hello = json!({"cmd":"hello","req_id":"h","version":2,"consumer":format!("consumer-{at}")});
        self.say(client, hello.to_string());
        let (answer, kinds) = match (at, subscribes) {
            (0, true) => ("query", "notify"),
            (0, false) => ("query", "receipt"),
            (_, true) => ("delegate", "notify"),
            (_, false) => ("delegate", "receipt"),
        };
        let wants = json!({"cmd":"subscribe","req_id":"s","answer":[answer],"kinds":[kinds],"replay":false});
        self.say(client, wants.to_string());
        assert!(self.line(client).contains(r#""subscribed":true"#), "{:?}", self.done);
    }

    fn say(&mut self, client: ClientId, line: String) {
        self.feed(&mut Unmetered, Input::Line { client, line: line.into_bytes() });
    }

    fn stream(&mut self) -> StreamId {
        self.streams += 1;
        StreamId(self.streams)
    }

    /// One input, and what the store has to do with it.
    fn feed(&mut self, meter: &mut impl Meter, input: Input) {
        self.done.clear();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = Now { mono_ms: self.now_ms, wall_ms: WALL_MS + self.now_ms };
            let (node, effects) = (&mut self.node, &mut self.effects);
            meter.core(|| node.handle(now, input, effects));
            for effect in self.effects.drain(..) {
                match effect {
                    Effect::Commit { id, commit } => {
                        let store = &mut self.store;
                        let outcome = meter.store(|| store.commit(&[commit], now.wall_ms)).remove(0);
                        assert_eq!(outcome, Ok(()));
                        inputs.push_back(Input::Committed { id, outcome });
                    }
                    Effect::Read { id, read } => {
                        inputs.push_back(Input::ReadDone { id, out: self.store.read(&read) });
                    }
                    Effect::Evict(keep) => _ = self.store.evict(&keep, now.wall_ms).unwrap(),
                    other => self.done.push(other),
                }
            }
        }
    }

    /// A millisecond passes; what is due is not measured.
    fn pass(&mut self) {
        self.now_ms += 1;
        while self.node.next_timeout().is_some_and(|at_ms| at_ms <= self.now_ms) {
            self.feed(&mut Unmetered, Input::Timer);
        }
    }

    // --- what came of an input ---

    fn line(&self, client: ClientId) -> &str {
        let line = self.done.iter().find_map(|effect| match effect {
            Effect::Line { client: of, line, .. } if *of == client => Some(&**line),
            _ => None,
        });
        line.unwrap_or_else(|| panic!("no line for {client:?}: {:?}", self.done))
    }

    fn responded(&self, stream: StreamId) -> &str {
        let answer = self.done.iter().find_map(|effect| match effect {
            Effect::Respond { stream: on, bytes } if *on == stream => Some(&**bytes),
            _ => None,
        });
        answer.unwrap_or_else(|| panic!("no answer on {stream:?}: {:?}", self.done))
    }

    /// The message that has left: its token, and its id.
    fn left(&self, one_way: bool) -> (Token, MsgId) {
        #[derive(Deserialize)]
        struct Sent {
            id: MsgId,
        }
        let sent = self.done.iter().find_map(|effect| match effect {
            Effect::Request { token, bytes, .. } if !one_way => Some((*token, bytes)),
            Effect::OneWay { token, bytes, .. } if one_way => Some((*token, bytes)),
            _ => None,
        });
        let (token, bytes) = sent.unwrap_or_else(|| panic!("nothing has left: {:?}", self.done));
        (token, serde_json::from_str::<Sent>(bytes).unwrap().id)
    }

    fn shown(&self) -> usize {
        let events = self.done.iter().filter(|effect| matches!(effect, Effect::Event { .. }));
        events.count()
    }

    // --- the pieces ---

    /// A peer's query, handed to an agent, and the agent's answer to the peer.
    pub fn query_in(&mut self, meter: &mut impl Meter) {
        self.pass();
        let (id, stream, conn) = (self.random.id(), self.stream(), self.conn);
        let bytes = written(header(id, self.peer, self.me, "query"), &self.query);
        self.feed(meter, Input::Request { conn, stream, bytes });
        assert!(self.line(self.agent).contains(r#""answer":true"#), "{:?}", self.done);
        let line = format!(
            r#"{{"cmd":"reply","req_id":"1","ref":"{id}","kind":"response","payload":{}}}"#,
            self.reply_payload
        );
        self.feed(meter, Input::Line { client: self.agent, line: line.into_bytes() });
        assert!(self.responded(stream).contains(r#""kind":"response""#));
        assert!(self.line(self.agent).contains(r#""ok":true"#));
    }

    /// A client's query, and the peer's answer to the client.
    pub fn query_out(&mut self, meter: &mut impl Meter) {
        self.pass();
        let line = self.query_line.clone().into_bytes();
        self.feed(meter, Input::Line { client: self.agent, line });
        let (token, id) = self.left(false);
        let answer =
            Header { reference: Some(id), ..header(self.random.id(), self.peer, self.me, "response") };
        let outcome = Ok(written(answer, &self.response));
        self.feed(meter, Input::Replied { token, outcome });
        assert!(self.line(self.agent).contains(r#""kind":"response""#), "{:?}", self.done);
    }

    /// A peer's notify, kept and shown to its subscribers; where receipts are given, with one.
    pub fn notify_in(&mut self, meter: &mut impl Meter, receipt: bool) {
        self.pass();
        let bytes = written(header(self.random.id(), self.peer, self.me, "notify"), &self.notify);
        let (conn, stream) = (self.conn, self.stream());
        if receipt {
            self.feed(meter, Input::Request { conn, stream, bytes });
            assert!(self.responded(stream).contains(r#""accepted":true"#));
        } else {
            self.feed(meter, Input::OneWay { conn, bytes });
        }
        assert_eq!(self.shown(), self.subscribers, "{:?}", self.done);
        let newest = self.done.iter().find_map(|effect| match effect {
            Effect::Event { client, seq, .. } => Some((*client, *seq)),
            _ => None,
        });
        // What has a receipt must be read before it may make room.
        if let Some((client, seq)) = newest.filter(|(_, seq)| receipt && seq % ACK_EVERY == 0) {
            self.say(client, json!({"cmd":"ack","req_id":"1","up_to_seq":seq}).to_string());
            assert!(self.line(client).contains(r#""ok":true"#), "{:?}", self.done);
        }
    }

    /// A client's notify, and word of its arrival to the client.
    pub fn notify_out(&mut self, meter: &mut impl Meter, receipt: bool) {
        self.pass();
        let line = self.notify_line.clone().into_bytes();
        self.feed(meter, Input::Line { client: self.agent, line });
        let (token, id) = self.left(!receipt);
        let input = if receipt {
            let answer =
                Header { reference: Some(id), ..header(self.random.id(), self.peer, self.me, "ack") };
            Input::Replied { token, outcome: Ok(written(answer, &self.ack)) }
        } else {
            Input::Sent { token, outcome: Ok(()) }
        };
        self.feed(meter, input);
        assert!(self.line(self.agent).contains(r#""ok":true"#), "{:?}", self.done);
    }
}

fn static_peer(key: &PublicKey) -> StaticPeer {
    StaticPeer { agent_id: key.agent_id(), pubkey: *key, addr: "192.0.2.1:7100".into(), name: None }
}

/// Puts messages into the inbox; gives the number of the next.
fn fill(store: &mut Store<Memory>, world: &World, from: AgentId, to: AgentId) -> u64 {
    let (rows, firm) = (world.rows, world.durable);
    let (kind, mut random) = (Arc::<str>::from("notify"), Random(3));
    // One is written, and the others are it with another id: a million are soon made.
    let (first, payload) = (random.id(), notify_payload());
    let text = wire::encode(header(first, from, to, "notify"), &payload).unwrap().raw().to_string();
    let (before, after) = text.split_once(&first.to_string()).unwrap();
    let mut row = |seq| {
        let raw = format!("{before}{}{after}", random.id()).into();
        Write::Row { row: Row { seq, at_ms: WALL_MS, kind: kind.clone(), raw }, firm }
    };
    let mut seq = 1;
    while seq <= rows {
        let end = (seq + 1_000).min(rows + 1);
        let writes = (seq..end).map(&mut row).collect();
        assert_eq!(store.commit(&[Commit { writes, keep: ALL }], WALL_MS), [Ok(())]);
        seq = end;
    }
    assert_eq!(store.rows(), rows);
    seq
}

// --- functions without a node ---

/// A query as it comes from a peer, as many as are asked for, each with its own id.
pub fn queries(count: usize) -> Vec<Vec<u8>> {
    let (mut random, payload) = (Random(4), query_payload());
    let (from, to) = (key(1).agent_id(), key(0).agent_id());
    (0..count).map(|_| written(header(random.id(), from, to, "query"), &payload)).collect()
}

/// Reads a message.
pub fn decode(meter: &mut impl Meter, bytes: Vec<u8>) -> Envelope {
    meter.core(|| wire::decode(bytes)).unwrap()
}

/// Writes a message.
pub fn encode(meter: &mut impl Meter, payload: &RawValue) -> Envelope {
    let (id, from, to) = (Random(5).id(), key(0).agent_id(), key(1).agent_id());
    meter.core(|| wire::encode(header(id, from, to, "query"), payload)).unwrap()
}

/// A client's line with a query.
pub fn send_line() -> Vec<u8> {
    let (to, payload) = (key(1).agent_id(), query_payload());
    format!(r#"{{"cmd":"send","req_id":"1","to":"{to}","kind":"query","payload":{payload}}}"#).into_bytes()
}

/// Reads a client's line: its name, its id, its payload.
pub fn parse_line(meter: &mut impl Meter, line: &[u8]) -> usize {
    meter.core(|| {
        let command = Command::parse(line).unwrap();
        assert!(!command.req_id().is_empty());
        command.name().unwrap().len() + command.payload().unwrap().get().len()
    })
}
