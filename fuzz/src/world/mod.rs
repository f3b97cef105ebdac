//! One node with clients, peers, a clock and a disk, to all of which anything may happen.
//!
//! The world does what the daemon's shell does: it carries out effects and feeds inputs. What comes from
//! clients and peers, when the disk answers and what it says, when time passes and what becomes of messages
//! on their way is chosen by whoever plays. What must hold is checked with every effect (`checks`).

mod checks;
mod peers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use axon_proto::contacts::{Contact, ContactChange, ContactsFile};
use axon_proto::id::{AgentId, PublicKey};
use axon_proto::limits::LINE_BYTES_MAX;
use axon_proto::node::{
    Birth, ClientId, ConnId, DialId, Effect, Entropy, Input, KnownPeer, Lost, Node, Now, Path, Seen,
    Settings, Side, StaticPeer, StreamId, Token,
};
use axon_proto::scope::{Right, Scope, ScopeChange};
use axon_proto::sim::disk::{Disk, Unsynced};
use axon_proto::store::Store;
use axon_proto::store::log::Options;
use axon_proto::trust::Level;

use crate::schema::{KEYS, OWN_IDS};
use checks::Promises;
pub use peers::End;

/// Unix time at the beginning.
const WALL_MS: u64 = 1_795_000_000_000;
/// Connections at once: more than these few show nothing new.
const CONNS_MAX: usize = 6;
/// Inputs that one input may lead to.
const INPUTS_MAX: usize = 2_000;
/// An attempt to reach a peer ends after this (WF-CON-5).
const DIAL_MS: u64 = 5_000;
/// So long is waited in the end for what is to end.
const END_MS: u64 = 150_000;
/// Rows of the inbox: few, so that it is full at times.
const ROWS_MAX: usize = 12;

/// Ids that can be guessed, so that what is played can name them.
struct Counted(u64);

impl Entropy for Counted {
    fn fill(&mut self, bytes: &mut [u8; 16]) {
        *bytes = u128::from(self.0).to_be_bytes();
        self.0 += 1;
    }
}

/// Another agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// In `[[peers]]`, by the name alice.
    Alice,
    /// A contact of level known, by the name carol.
    Carol,
    /// Nobody knows it.
    Stranger,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Alice, Self::Carol, Self::Stranger];

    /// Its key.
    pub fn key(self) -> PublicKey {
        let text = match self {
            Self::Alice => KEYS[0],
            Self::Carol => KEYS[2],
            Self::Stranger => KEYS[3],
        };
        text.parse().expect("a key")
    }

    /// Its id.
    pub fn id(self) -> AgentId {
        self.key().agent_id()
    }
}

/// A client.
#[derive(Default)]
struct Client {
    /// Its events do not fit.
    slow: bool,
    consumer: String,
    /// Lines said and replies got.
    lines: u64,
    replies: u64,
    /// What was asked under ids of the world's own, and until when it must be answered.
    asked: BTreeMap<String, Asked>,
    /// The last row that it was shown by its subscription.
    last_seq: u64,
    /// It was one of those that were there before.
    replaying: bool,
}

/// A command without its reply.
struct Asked {
    command: serde_json::Value,
    due_ms: u64,
    /// Where the cursor stood.
    cursor: u64,
}

/// A connection.
struct Conn {
    peer: Peer,
}

/// A message of the node on its way.
struct Sent {
    conn: ConnId,
    peer: Peer,
    bytes: Arc<str>,
    bidi: bool,
}

/// An attempt of the node to reach a peer.
struct Dial {
    dial: DialId,
    peer: AgentId,
    token: Token,
    hello: Arc<str>,
    since_ms: u64,
}

/// A request of a peer.
struct Stream {
    conn: ConnId,
    peer: Peer,
    id: Option<String>,
    kind: String,
    done: bool,
    since_ms: u64,
}

/// All of it.
pub struct World {
    node: Option<Node>,
    store: Option<Store<Disk>>,
    disk: Disk,
    settings: Settings,
    contacts: ContactsFile,
    scopes: Vec<Scope>,
    known: Vec<KnownPeer>,
    seen: Vec<Seen>,
    now: u64,
    /// The disk is stalled: what it is given waits.
    stalled: bool,
    /// Files cannot be written.
    files_fail: bool,
    jobs: VecDeque<Effect>,
    clients: BTreeMap<ClientId, Client>,
    conns: BTreeMap<ConnId, Conn>,
    streams: BTreeMap<StreamId, Stream>,
    dials: VecDeque<Dial>,
    sent: BTreeMap<Token, Sent>,
    numbers: u64,
    ids: u64,
    own_ids: u64,
    stopping: bool,
    promises: Promises,
}

impl World {
    /// A daemon that has just started.
    pub fn new() -> Self {
        let carol = Contact {
            agent_id: Peer::Carol.id(),
            pubkey: Some(Peer::Carol.key()),
            addrs: vec!["192.0.2.3:7100".into()],
            level: Level::Known,
            name: Some("carol".into()),
            since_ms: WALL_MS,
            why: None,
            expiry_ms: None,
            paused: false,
        };
        let mut settings =
            Settings { name: Some("bob".into()), buffer_size: ROWS_MAX, ..Settings::default() };
        settings.outbox.per_peer_messages_max = 4;
        settings.knock.open = true;
        settings.peers.push(StaticPeer {
            agent_id: Peer::Alice.id(),
            pubkey: Peer::Alice.key(),
            addr: "192.0.2.1:7100".into(),
            name: Some("alice".into()),
        });
        let scope = Scope {
            name: "bot".into(),
            allow: Right::ALL.to_vec(),
            to: Some(vec![Peer::Alice.id()]),
            kinds: None,
            domains: Some(vec!["family".into()]),
            uid: None,
            messages_per_minute: 0,
        };
        let mut world = Self {
            node: None,
            store: None,
            disk: Disk::default(),
            settings,
            contacts: ContactsFile { contacts: vec![carol], ..ContactsFile::default() },
            scopes: vec![scope],
            known: Vec::new(),
            seen: Vec::new(),
            now: 1_000,
            stalled: false,
            files_fail: false,
            jobs: VecDeque::new(),
            clients: BTreeMap::new(),
            conns: BTreeMap::new(),
            streams: BTreeMap::new(),
            dials: VecDeque::new(),
            sent: BTreeMap::new(),
            numbers: 0,
            ids: 0,
            own_ids: OWN_IDS,
            stopping: false,
            promises: Promises::default(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let opened =
            Store::open(self.disk.clone(), Options { segment_bytes: 8_192, salt: 7 }, self.clock().wall_ms);
        let Ok((mut store, opened)) = opened else {
            // The disk fails: it is mended, and the daemon is started again.
            self.disk = self.disk.after_power_cut(Unsynced::Kept);
            return self.start();
        };
        let mut seen = self.seen.clone();
        seen.extend(opened.seen);
        let birth = Birth {
            key: KEYS[1].parse().expect("a key"),
            version: "0",
            pid: 1,
            listen: Vec::new(),
            root: None,
            contacts: self.contacts.clone(),
            addrs: vec!["192.0.2.2:7100".into()],
            scopes: self.scopes.clone(),
            old_keys: Vec::new(),
            sign: Box::new(|_| [0; 64]),
            verify: |_, _, signature| signature[0] % 2 == 0,
            known_peers: self.known.clone(),
            seen,
            next_seq: opened.next_seq,
            clean: opened.clean || !opened.had_data,
            entropy: Box::new(Counted(self.own_ids)),
        };
        // Ids of one life are not those of another.
        self.own_ids += 0x100;
        let mut node = Node::new(birth, self.settings.clone(), self.clock());
        let read = store.items(&mut |key, value| node.restore(key, value));
        let written = store.commit(&[node.first_commit()], self.clock().wall_ms);
        if read.is_err() || written != [Ok(())] {
            self.disk = self.disk.after_power_cut(Unsynced::Kept);
            return self.start();
        }
        let effects = node.take_effects();
        self.node = Some(node);
        self.store = Some(store);
        self.stopping = false;
        self.kept_is_there();
        let inputs = self.carry_out(effects);
        assert!(inputs.is_empty(), "a node that is made asks for nothing that ends");
        self.feed(Input::Start);
    }

    /// The power goes, or the process ends, and it starts again.
    pub fn crash(&mut self, unsynced: Unsynced) {
        self.node = None;
        self.store = None;
        self.gone();
        self.disk = self.disk.after_power_cut(unsynced);
        self.promises.crashed(self.now);
        self.start();
    }

    /// What ends with the process.
    fn gone(&mut self) {
        self.jobs.clear();
        self.clients.clear();
        self.conns.clear();
        self.streams.clear();
        self.dials.clear();
        self.sent.clear();
        self.stalled = false;
        self.promises.ended();
    }

    fn clock(&self) -> Now {
        Now { mono_ms: self.now, wall_ms: WALL_MS + self.now }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Gives the node one input and carries out what it wants, and what follows of it at once.
    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        for _ in 0..INPUTS_MAX {
            let Some(input) = inputs.pop_front() else {
                self.after_step();
                return;
            };
            let now = self.clock();
            let Some(node) = self.node.as_mut() else { return };
            let mut effects = Vec::new();
            story(|| format!("{:>7} <- {input:?}", now.mono_ms));
            node.handle(now, input, &mut effects);
            effects.iter().for_each(|effect| story(|| format!("{:>7} -> {effect:?}", now.mono_ms)));
            inputs.extend(self.carry_out(effects));
            if self.node.is_none() {
                return self.start();
            }
            if inputs.is_empty() && !self.stalled {
                inputs.extend(self.disk_step());
            }
        }
        panic!("the daemon does not come to rest");
    }

    /// What the disk's thread does next, and what the node is told of it.
    fn disk_step(&mut self) -> Vec<Input> {
        let wall_ms = self.clock().wall_ms;
        let Some(store) = self.store.as_mut() else { return Vec::new() };
        let mut inputs = Vec::new();
        match self.jobs.pop_front() {
            Some(Effect::Commit { id, commit }) => {
                let outcome = store.commit(std::slice::from_ref(&commit), wall_ms).remove(0);
                if outcome.is_ok() {
                    self.committed(&commit);
                }
                inputs.push(Input::Committed { id, outcome });
            }
            Some(Effect::Read { id, read }) => inputs.push(Input::ReadDone { id, out: store.read(&read) }),
            Some(Effect::Evict(keep)) => {
                drop(store.evict(&keep, wall_ms));
                return self.disk_step();
            }
            _ => {}
        }
        inputs
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> Vec<Input> {
        let mut inputs = Vec::new();
        for effect in effects {
            match effect {
                Effect::Dial { dial, peer, hello, token, .. } => {
                    self.dials.push_back(Dial { dial, peer, token, hello, since_ms: self.now });
                }
                Effect::Close { conn, .. } => inputs.extend(self.end_conn(conn, "closed here")),
                Effect::Request { conn, token, bytes } => self.on_its_way(conn, token, bytes, true),
                Effect::OneWay { conn, token, bytes } => self.on_its_way(conn, token, bytes, false),
                Effect::Abandon { token } => drop(self.sent.remove(&token)),
                Effect::Respond { stream, bytes } => self.responded(stream, Some(&bytes)),
                Effect::Reset { stream } => self.responded(stream, None),
                Effect::Herald { token, .. } => {
                    let outcome = Err(Lost::Connection("nobody is there".into()));
                    inputs.push(Input::Replied { token, outcome });
                }
                Effect::Line { client, line, .. } => self.line(client, &line),
                Effect::Event { client, seq, line, .. } => match self.clients.get(&client) {
                    Some(state) if state.slow => inputs.push(Input::Lagged { client, seq }),
                    _ => self.line(client, &line),
                },
                Effect::Measure { client, req_id, conns } => {
                    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 7100));
                    let rtts = conns.into_iter().map(|conn| Path { conn, rtt_us: 1_000, addr }).collect();
                    inputs.push(Input::Measured { client, req_id, rtts });
                }
                Effect::Count(conns) => {
                    // Packets that grow with the time: everybody is heard of.
                    let packets = self.clock().mono_ms;
                    let counts = conns.into_iter().map(|conn| (conn, packets)).collect();
                    inputs.push(Input::Counted(counts));
                }
                Effect::CloseClient { client } => {
                    if self.client_gone(client) {
                        inputs.push(Input::ClientGone { client });
                    }
                }
                job @ (Effect::Commit { .. } | Effect::Read { .. } | Effect::Evict(_)) => {
                    self.jobs.push_back(job)
                }
                Effect::Remember(seen) => self.seen.extend(seen),
                Effect::SavePeers(known) => self.known = known,
                Effect::Contacts { job, changes } => {
                    if !self.files_fail {
                        self.change_contacts(&changes);
                    }
                    inputs.push(Input::Done { job, outcome: self.file_written("") });
                }
                Effect::Socket { job, change } => {
                    if !self.files_fail {
                        let (ScopeChange::Remove(name) | ScopeChange::Put(Scope { name, .. })) = &change;
                        self.scopes.retain(|scope| scope.name != *name);
                        if let ScopeChange::Put(scope) = change {
                            self.scopes.push(scope);
                        }
                    }
                    inputs.push(Input::Done { job, outcome: self.file_written("/sockets/x/axon.sock") });
                }
                Effect::Purge { job, .. } => {
                    self.promises.purged = true;
                    inputs.push(Input::Done { job, outcome: Ok(String::new()) });
                }
                Effect::Reload { job } => inputs.push(Input::Done { job, outcome: self.file_written("") }),
                Effect::Rekey { job } => {
                    inputs.push(Input::Done { job, outcome: Err("this disk takes no keys".into()) });
                }
                Effect::Pins(_)
                | Effect::Pace { .. }
                | Effect::Up { .. }
                | Effect::Audit(_)
                | Effect::Log(..) => {}
                Effect::Stopped => {
                    // What was asked of the disk before is done before.
                    while !self.jobs.is_empty() {
                        self.disk_step();
                    }
                    if let Some(store) = self.store.take() {
                        drop(store.close());
                    }
                    self.node = None;
                    self.gone();
                    self.disk = self.disk.after_power_cut(Unsynced::Kept);
                    return Vec::new();
                }
            }
        }
        inputs
    }

    fn file_written(&self, text: &str) -> Result<String, String> {
        if self.files_fail { Err("no space left on device".into()) } else { Ok(text.into()) }
    }

    fn change_contacts(&mut self, changes: &[ContactChange]) {
        for change in changes {
            let all = &mut self.contacts.contacts;
            match change {
                ContactChange::Put(contact) => {
                    all.retain(|known| known.agent_id != contact.agent_id);
                    all.push(contact.clone());
                }
                ContactChange::Remove(id) => all.retain(|known| known.agent_id != *id),
                ContactChange::Pause(on) => self.contacts.paused = *on,
            }
        }
    }

    // --- time and the disk ---

    /// Time passes until the next timer is due, or so long at most.
    pub fn wait(&mut self, ms: u64) {
        // No daemon tries to reach a peer for longer.
        while self.dials.front().is_some_and(|dial| dial.since_ms + DIAL_MS <= self.now)
            && let Some(dial) = self.dials.pop_front()
        {
            self.feed(Input::DialFailed { dial: dial.dial, why: "no answer".into() });
        }
        let due = self.node.as_ref().and_then(Node::next_timeout);
        let until = self.now + ms;
        if self.stalled {
            // Who waits for the disk waits as long as that takes.
            let asked = self.clients.values_mut().flat_map(|state| state.asked.values_mut());
            asked.for_each(|asked| asked.due_ms = asked.due_ms.saturating_add(ms));
        }
        match due.filter(|due| *due <= until) {
            Some(due) => {
                self.now = self.now.max(due);
                let life = self.own_ids;
                self.feed(Input::Timer);
                // What the last life left behind may be due at once.
                if self.own_ids != life {
                    return;
                }
                let next = self.node.as_ref().and_then(Node::next_timeout);
                assert!(next.is_none_or(|next| next > self.now), "a timer that was due is gone after it");
            }
            None => self.now = until,
        }
    }

    /// The disk does nothing until it is told otherwise, or goes on.
    pub fn stall(&mut self, stalled: bool) {
        self.stalled = stalled;
        if !stalled && let Some(input) = self.disk_step().pop() {
            self.feed(input);
        }
    }

    /// The disk does one thing although it is stalled.
    pub fn one_job(&mut self) {
        if let Some(input) = self.disk_step().pop() {
            self.feed(input);
        }
    }

    /// The disk is full, or fails, or works again; the files that people write likewise.
    pub fn disk_fault(&mut self, full: bool, fail_syncs: bool, files_fail: bool) {
        let mut state = self.disk.state();
        (state.room, state.fail_syncs) = (full.then_some(0), fail_syncs);
        drop(state);
        self.files_fail = files_fail;
    }

    /// The daemon is told to stop; it starts again when it has.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.feed(Input::Stop);
    }

    /// Any input that needs no more than it says.
    pub fn other(&mut self, input: Input) {
        self.feed(input);
    }

    /// The settings as they are now, with this changed.
    pub fn settings(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.feed(Input::Settings(Box::new(self.settings.clone())));
    }

    // --- clients ---

    /// A client by its place among those that there are; a new one where there is none.
    pub fn client(&mut self, at: usize, socket: Option<&str>) -> ClientId {
        match self.clients.keys().nth(at) {
            Some(client) => *client,
            None => {
                let client = ClientId(self.number());
                // A scoped socket has a cursor of its own.
                let consumer = if socket.is_some() { "bot's" } else { "default" }.to_owned();
                self.clients.insert(client, Client { consumer, ..Client::default() });
                let socket = socket.map(Arc::from);
                self.feed(Input::ClientUp { client, trusted: true, socket });
                client
            }
        }
    }

    /// A client says a line.
    pub fn say(&mut self, client: ClientId, line: Vec<u8>) {
        if !self.clients.contains_key(&client) {
            return;
        }
        let long = line.len() > LINE_BYTES_MAX;
        if long || !line.iter().all(u8::is_ascii_whitespace) {
            self.asked(client, &line);
        }
        self.feed(if long { Input::LineTooLong { client } } else { Input::Line { client, line } });
    }

    /// A client's events fit into its queue no more, or do again.
    pub fn slow(&mut self, client: ClientId, slow: bool) {
        if let Some(state) = self.clients.get_mut(&client) {
            state.slow = slow;
        }
    }

    /// A client says no more, or is gone.
    pub fn leave(&mut self, client: ClientId, eof: bool) {
        if eof && self.clients.contains_key(&client) {
            return self.feed(Input::ClientEof { client });
        }
        if self.client_gone(client) {
            self.feed(Input::ClientGone { client });
        }
    }

    fn client_gone(&mut self, client: ClientId) -> bool {
        self.promises.client_gone(client);
        self.clients.remove(&client).is_some()
    }

    // --- the end ---

    /// All is healed, time passes, and what must end has ended; after a last power cut what was promised is
    /// there.
    pub fn finish(mut self) {
        self.disk_fault(false, false, false);
        self.stall(false);
        let until = self.now + END_MS;
        while self.now < until {
            while let Some(dial) = self.dials.pop_front() {
                self.feed(Input::DialFailed { dial: dial.dial, why: "no answer".into() });
            }
            while let Some(token) = self.sent.keys().next().copied() {
                self.lose(token);
            }
            self.wait(until - self.now);
        }
        self.all_has_ended();
        self.crash(Unsynced::Dropped);
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// What happens, on stderr, where `AXON_FUZZ_STORY` is set: for one who looks at one input.
#[allow(clippy::print_stderr, reason = "that is what it is for")]
fn story(line: impl FnOnce() -> String) {
    static WANTED: OnceLock<bool> = OnceLock::new();
    if *WANTED.get_or_init(|| std::env::var_os("AXON_FUZZ_STORY").is_some()) {
        eprintln!("{}", line());
    }
}

/// A side of a connection, by who dialled.
fn side(dialled: bool) -> Side {
    if dialled { Side::Dialer } else { Side::Acceptor }
}
