//! The node: owns all state, one [`Node::handle`].
//!
//! `link` is the way in from peers, `storing` what waits for the disk, `outgoing` and `held` the way out to
//! peers; `requests` carries out what families decide; `commands`, `send` and `inbox` serve the clients of
//! the socket. All of it runs to the end within one input; nothing waits.

mod answer;
mod commands;
mod held;
mod inbox;
mod io;
mod link;
mod outgoing;
mod requests;
mod send;
mod settings;
mod storing;
mod timers;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::agents::Agents;
use crate::error::IpcError;
use crate::family::{Act, Closed, Cx, Family, Input as FamilyInput, Kind, Open, Pattern, Unclaimed, View};
use crate::id::{AgentId, MsgId, PublicKey};
use crate::limits::{REPLAY_FLUSH_MS, SAVE_INTERVAL_MS, SHUTDOWN_MS, SWEEP_INTERVAL_MS};
use crate::mailbox::Mailbox;
use crate::outbox::Outbox;
use crate::peers::Peers;
use crate::replay::Replay;
use crate::session::{Phase, Session};
use crate::store::Commit;
use crate::wire::{Envelope, Header, TooLarge, encode};

pub use io::{
    ClientId, CommitId, ConnId, DialId, Effect, Input, KnownPeer, Level, Lost, Now, Pins, ReadId, Seen, Side,
    StreamId, Token,
};
use outgoing::Pending;
pub use settings::{OutboxSettings, Settings, StaticPeer};
use storing::{After, Reading, Unread};
use timers::{Key, Timers};

/// Where random bytes come from; an argument, so that a run can be repeated.
pub trait Entropy: Send {
    /// Fills the array with random bytes.
    fn fill(&mut self, bytes: &mut [u8; 16]);
}

/// Who this node is, and what the disk remembered.
pub struct Birth {
    /// This agent's key.
    pub key: PublicKey,
    /// The daemon's version, for `whoami`.
    pub version: &'static str,
    /// The daemon's process id, for `whoami`.
    pub pid: u32,
    /// Where QUIC listens, for `whoami`.
    pub listen: Vec<String>,
    /// The root directory, for `whoami`, when it is UTF-8.
    pub root: Option<String>,
    /// The peer cache.
    pub known_peers: Vec<KnownPeer>,
    /// The replay record, and the ids of what is kept.
    pub seen: Vec<Seen>,
    /// The number of the next row of the inbox, as the store knows it.
    pub next_seq: u64,
    /// Whether the daemon before was ended properly.
    pub clean: bool,
    /// Randomness.
    pub entropy: Box<dyn Entropy>,
}

impl std::fmt::Debug for Birth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Birth").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Messages that were refused without an answer, by reason.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
struct Dropped {
    replayed: u64,
    wrong_stream: u64,
    not_authorized: u64,
    before_hello: u64,
    malformed: u64,
    over_limit: u64,
    not_kept: u64,
}

/// The whole state of one daemon.
pub struct Node {
    me: AgentId,
    key: PublicKey,
    boot: String,
    version: &'static str,
    pid: u32,
    listen: Vec<String>,
    root: Option<String>,
    settings: Settings,
    entropy: Box<dyn Entropy>,
    families: Vec<Box<dyn Family>>,
    kinds: HashMap<&'static str, (usize, &'static Kind)>,
    features: Vec<&'static str>,

    sessions: BTreeMap<ConnId, Session>,
    /// Messages that overtook the hello reply, on connections that this daemon dialled.
    early: HashMap<ConnId, Vec<(Option<StreamId>, Envelope)>>,
    sessions_made: u64,
    peers: Peers,
    peers_changed: bool,
    replay: Replay,
    pending: BTreeMap<Token, Pending>,
    next_token: u64,
    next_dial: u64,

    mailbox: Mailbox,
    outbox: Outbox,
    /// Rows whose senders wait to hear that they were read.
    unread: BTreeMap<u64, Unread>,
    commits: BTreeMap<CommitId, (After, usize)>,
    commit_bytes: usize,
    next_commit: u64,
    /// Messages that are being written.
    arriving: HashMap<(AgentId, MsgId), CommitId>,
    arriving_bytes: HashMap<AgentId, usize>,
    /// Rows of delegations that have ended.
    ended_rows: BTreeSet<u64>,
    /// How long the result is to be held that an agent is just giving.
    reply_hold_ms: Option<u64>,
    reads: BTreeMap<ReadId, Reading>,
    next_read: u64,
    /// Items that have changed and that nobody waits for.
    items: BTreeMap<String, Option<Arc<[u8]>>>,
    items_under_way: usize,
    items_not_before_ms: u64,
    disk_fails: bool,
    /// Requests that were open when the daemon ended.
    restored: Vec<requests::Restored>,
    agents: Agents,
    streams: HashMap<StreamId, MsgId>,

    timers: Timers,
    started: Option<Now>,
    stopping: bool,
    stopped: bool,
    sent: u64,
    received: u64,
    dropped: Dropped,
    out: Vec<Effect>,
}

impl Node {
    /// A node with these settings that knows nobody but the cache's and the settings' peers.
    pub fn new(birth: Birth, settings: Settings, now: Now) -> Self {
        let Birth { key, version, pid, listen, root, known_peers, seen, next_seq, clean, mut entropy } =
            birth;
        let me = key.agent_id();
        let families = crate::kinds::all();
        let mut kinds = HashMap::new();
        let mut features = Vec::new();
        for (index, family) in families.iter().enumerate() {
            for kind in family.vocabulary().kinds {
                kinds.insert(kind.name, (index, kind));
                features.extend(kind.feature);
            }
        }
        // Without a disk under it, nobody can promise that a message will be there tomorrow.
        if !settings.durable || settings.buffer_size == 0 {
            features.retain(|feature| *feature != "receipt");
        }
        let mut random = [0; 16];
        entropy.fill(&mut random);
        let mut peers = Peers::new(me, known_peers);
        peers.configure(&settings.peers);
        let mut node = Self {
            me,
            key,
            boot: MsgId::from_random(random).to_string(),
            version,
            pid,
            listen,
            root,
            mailbox: Mailbox::new(next_seq, clean),
            outbox: Outbox::default(),
            unread: BTreeMap::new(),
            commits: BTreeMap::new(),
            commit_bytes: 0,
            next_commit: 1,
            arriving: HashMap::new(),
            arriving_bytes: HashMap::new(),
            ended_rows: BTreeSet::new(),
            reply_hold_ms: None,
            reads: BTreeMap::new(),
            next_read: 1,
            items: BTreeMap::new(),
            items_under_way: 0,
            items_not_before_ms: 0,
            disk_fails: false,
            restored: Vec::new(),
            settings,
            entropy,
            families,
            kinds,
            features,
            sessions: BTreeMap::new(),
            early: HashMap::new(),
            sessions_made: 0,
            peers,
            peers_changed: false,
            replay: Replay::new(&seen, now.wall_ms),
            pending: BTreeMap::new(),
            next_token: 1,
            next_dial: 1,
            agents: Agents::default(),
            streams: HashMap::new(),
            timers: Timers::default(),
            started: None,
            stopping: false,
            stopped: false,
            sent: 0,
            received: 0,
            dropped: Dropped::default(),
            out: Vec::new(),
        };
        node.timers.set(Key::Sweep, now.mono_ms + SWEEP_INTERVAL_MS);
        node.timers.set(Key::SavePeers, now.mono_ms + SAVE_INTERVAL_MS);
        node.publish_pins();
        node
    }

    /// This agent's id.
    pub fn id(&self) -> AgentId {
        self.me
    }

    /// What must be stored before the first input, once everything is restored.
    pub fn first_commit(&mut self) -> Commit {
        Commit { writes: self.mailbox.claim().into_iter().collect(), keep: self.keep() }
    }

    /// When to feed `Input::Timer` at the latest, on the monotonic clock.
    pub fn next_timeout(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Effects that construction left to be carried out.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    /// Takes one input to its end; what is to be done is appended to `effects`.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        std::mem::swap(&mut self.out, effects);
        self.dispatch(now, input);
        if self.mailbox.has_changed() {
            self.timers.set_if_sooner(Key::Cursors, now.mono_ms + REPLAY_FLUSH_MS);
        }
        self.flush_items_soon(now);
        self.stop_if_idle(now);
        if self.replay.has_unwritten() {
            self.timers.set_if_sooner(Key::FlushReplay, now.mono_ms + REPLAY_FLUSH_MS);
        }
        std::mem::swap(&mut self.out, effects);
    }

    fn dispatch(&mut self, now: Now, input: Input) {
        match input {
            Input::Start => self.start(now),
            Input::Timer => self.run_timers(now),
            Input::Settings(settings) => self.configure(now, *settings),
            Input::Stop => self.stop(now),
            Input::Connected { conn, peer, key, side, addr, dial, early } => {
                let arrival = link::Arrival { conn, peer, key, side, addr, dial, early };
                self.connected(now, arrival);
            }
            Input::DialFailed { dial, why } => self.dial_failed(now, dial, &why),
            Input::Disconnected { conn, why } => self.disconnected(now, conn, &why),
            Input::EarlyHello { stream, peer, bytes } => self.early_hello(now, stream, peer, bytes),
            Input::Request { conn, stream, bytes } => self.inbound(now, conn, Some(stream), bytes),
            Input::OneWay { conn, bytes } => self.inbound(now, conn, None, bytes),
            Input::RequestGone { stream } => self.request_gone(now, stream),
            Input::BadStream { conn, why } => {
                self.dropped.over_limit += 1;
                self.debug(format!("a stream of connection {} was stopped: {why}", conn.0));
            }
            Input::Replied { token, outcome } => self.replied(now, token, outcome),
            Input::Sent { token, outcome } => self.sent(now, token, outcome),
            Input::Silent { conn } => self.silent(now, conn),
            Input::Alive { conn } => {
                if let Some(session) = self.sessions.get_mut(&conn) {
                    session.silent = false;
                }
            }
            Input::Found { id, key, addrs } => self.found(now, id, key, &addrs),
            Input::ClientUp { client, trusted } => self.client_up(client, trusted),
            Input::Line { client, line } => self.line(now, client, line),
            Input::LineTooLong { client } => self.line_too_long(client),
            Input::Lagged { client, seq } => self.lagged(client, seq),
            Input::ClientEof { client } => self.client_eof(now, client),
            Input::ClientGone { client } => self.client_gone(now, client),
            Input::Committed { id, outcome } => self.committed(now, id, outcome),
            Input::ReadDone { id, out } => self.read_done(now, id, out),
            Input::Measured { client, req_id, rtts } => self.measured(client, &req_id, &rtts),
        }
    }

    fn start(&mut self, now: Now) {
        self.started = Some(now);
        self.reopen(now);
        for index in 0..self.families.len() {
            self.tell_family(now, index, FamilyInput::Started);
        }
        self.expire_held(now);
        // What was read, and not told any more before the end.
        self.were_read(now, self.mailbox.read_up_to());
        let ids: Vec<AgentId> = self.peers.iter().map(|peer| peer.id).collect();
        ids.into_iter().for_each(|id| self.keep_connected(now, id));
    }

    fn configure(&mut self, now: Now, settings: Settings) {
        let out = self.peers.configure(&settings.peers);
        // Whether receipts are given was said in hello, and holds until the end.
        let durable = self.settings.durable;
        self.settings = Settings { durable, ..settings };
        self.out.push(Effect::Evict(self.keep()));
        self.publish_pins();
        if !out.is_empty() {
            self.peers_changed = true;
            self.timers.set_if_sooner(Key::SavePeers, now.mono_ms);
        }
        for id in out {
            self.drop_peer(now, id, "no longer in [[peers]]");
        }
        let ids: Vec<AgentId> = self.peers.iter().map(|peer| peer.id).collect();
        ids.into_iter().for_each(|id| self.keep_connected(now, id));
    }

    fn run_timers(&mut self, now: Now) {
        while let Some(key) = self.timers.pop(now.mono_ms) {
            match key {
                Key::Due(id) => self.due(now, id),
                Key::Pending(token) => self.pending_due(now, token),
                Key::Hello(conn) => self.hello_due(now, conn),
                Key::Drain(conn) => self.drain_due(now, conn),
                Key::CloseAfterRefusal(conn) => self.close(now, conn, 4, "hello refused"),
                Key::Dial(peer) => self.keep_connected(now, peer),
                Key::Sweep => {
                    self.sweep(now);
                    self.timers.set(Key::Sweep, now.mono_ms + SWEEP_INTERVAL_MS);
                }
                Key::Items => {}
                Key::Cursors => {
                    let cursors = self.mailbox.changed_cursors();
                    self.note(cursors);
                }
                Key::Outbox(peer) => self.pump(now, peer),
                Key::Expire => self.expire_held(now),
                Key::FlushReplay => {
                    let seen = self.replay.take_unwritten();
                    self.out.push(Effect::Remember(seen));
                }
                Key::SavePeers => {
                    self.save_peers();
                    self.timers.set(Key::SavePeers, now.mono_ms + SAVE_INTERVAL_MS);
                }
                Key::StopBy => self.stop_now(now),
            }
        }
    }

    fn sweep(&mut self, now: Now) {
        self.out.push(Effect::Evict(self.keep()));
        self.forget_unread(now);
        self.were_read(now, self.mailbox.read_up_to());
        self.expire_held(now);
        let swept = self.outbox.sweep(now.wall_ms);
        self.note(swept);
        for index in 0..self.families.len() {
            self.tell_family(now, index, FamilyInput::Tick);
        }
        self.replay.sweep(now.wall_ms);
        let sessions = &self.sessions;
        let gone = self.peers.sweep(now.mono_ms, |id| sessions.values().any(|session| session.peer == id));
        if !gone.is_empty() {
            gone.iter().for_each(|id| self.timers.clear(Key::Dial(*id)));
            self.publish_pins();
        }
    }

    fn save_peers(&mut self) {
        if std::mem::take(&mut self.peers_changed) {
            self.out.push(Effect::SavePeers(self.peers.cache()));
        }
    }

    /// Stops: refuses what waits, gives agents and peers a moment to finish what they are at.
    fn stop(&mut self, now: Now) {
        if self.stopping {
            return self.stop_now(now);
        }
        self.stopping = true;
        self.timers.set(Key::StopBy, now.mono_ms + SHUTDOWN_MS);
        self.refuse_waiting(now);
        self.stop_if_idle(now);
    }

    fn stop_if_idle(&mut self, now: Now) {
        if self.stopping && !self.stopped && !self.has_work() {
            self.stop_now(now);
        }
    }

    /// Whether anything is in flight whose end somebody awaits.
    fn has_work(&self) -> bool {
        let open = self.agents.iter().any(|open| open.answered.is_none() || open.finishing);
        // A held message is safe whatever comes of its sending.
        open || !self.commits.is_empty() || self.pending.values().any(Pending::is_awaited)
    }

    fn stop_now(&mut self, now: Now) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        self.stopping = true;
        self.refuse_open(now);
        self.fail_all_pending(now);
        self.all_held_for_later(now);
        let cursors = self.mailbox.changed_cursors();
        self.note(cursors);
        let unclaim = self.mailbox.unclaim();
        self.note([unclaim]);
        self.commit(Vec::new(), After::Retry(BTreeMap::new()));
        let seen = self.replay.take_unwritten();
        if !seen.is_empty() {
            self.out.push(Effect::Remember(seen));
        }
        self.peers_changed = true;
        self.save_peers();
        self.out.push(Effect::Stopped);
    }

    fn publish_pins(&mut self) {
        self.out.push(Effect::Pins(Arc::new(self.peers.pins())));
    }

    fn random_id(&mut self) -> MsgId {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        MsgId::from_random(bytes)
    }

    fn new_token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token - 1)
    }

    /// An envelope of ours.
    fn envelope(
        &mut self,
        now: Now,
        to: AgentId,
        kind: &str,
        reference: Option<MsgId>,
        payload: &RawValue,
    ) -> Result<Envelope, TooLarge> {
        self.made(now, to, kind, (reference, payload), None)
    }

    /// An envelope of ours; one that is held so long says until when it may come again.
    fn made(
        &mut self,
        now: Now,
        to: AgentId,
        kind: &str,
        (reference, payload): (Option<MsgId>, &RawValue),
        hold_ms: Option<u64>,
    ) -> Result<Envelope, TooLarge> {
        let (id, from, ts) = (self.random_id(), self.me, now.wall_ms.max(1));
        let resend_until = hold_ms.map(|ms| held::resend_until(now, ms));
        encode(Header { id, from, to, ts, kind, reference, resend_until, read_receipt: false }, payload)
    }

    /// The connection to use for a peer: up, not draining, the newest if there were two.
    fn best_session(&self, peer: AgentId) -> Option<ConnId> {
        let up = self.sessions.iter().filter(|(_, s)| s.peer == peer && s.phase == Phase::Up);
        up.max_by_key(|(_, session)| session.order).map(|(conn, _)| *conn)
    }

    /// Lets a family handle an input, then carries out what it decided, and what follows from that.
    fn tell_family(&mut self, now: Now, index: usize, input: FamilyInput<'_>) -> bool {
        let mut acts = VecDeque::new();
        self.ask_family(now, index, input, &mut acts);
        let decided = !acts.is_empty();
        self.carry_out_all(now, acts);
        decided
    }

    /// Lets a family handle an input; what it decides is appended to `acts`.
    fn ask_family(&mut self, now: Now, index: usize, input: FamilyInput<'_>, acts: &mut VecDeque<Act>) {
        self.borrow_family(now, index, acts, |family, cx| family.handle(input, cx));
    }

    /// Lets a family do something else than handle an input, and carries out what it decided.
    fn with_family(&mut self, now: Now, index: usize, work: impl FnOnce(&mut Box<dyn Family>, &mut Cx<'_>)) {
        let mut acts = VecDeque::new();
        self.borrow_family(now, index, &mut acts, work);
        self.carry_out_all(now, acts);
    }

    fn borrow_family(
        &mut self,
        now: Now,
        index: usize,
        acts: &mut VecDeque<Act>,
        work: impl FnOnce(&mut Box<dyn Family>, &mut Cx<'_>),
    ) {
        // The families are taken out while one of them looks at the rest of the node.
        let mut families = std::mem::take(&mut self.families);
        if let Some(family) = families.get_mut(index) {
            let uptime_ms = self.started.map_or(0, |started| now.mono_ms.saturating_sub(started.mono_ms));
            let view = NodeView { node: self, uptime_secs: uptime_ms / 1_000 };
            work(family, &mut Cx { now, me: self.me, view: &view, acts });
        }
        self.families = families;
    }

    /// Whether this kind may be the answer on the stream of a request of that kind.
    fn answers(request: &Kind, kind: &str) -> bool {
        match request.pattern {
            Pattern::Request { replies, .. } => replies.contains(&kind),
            // The receipt of a one-way message.
            Pattern::OneWay => matches!(kind, "ack" | "error"),
            Pattern::Reply => false,
        }
    }

    fn debug(&mut self, text: String) {
        self.out.push(Effect::Log(Level::Debug, text));
    }

    fn info(&mut self, text: String) {
        self.out.push(Effect::Log(Level::Info, text));
    }
}

struct NodeView<'a> {
    node: &'a Node,
    uptime_secs: u64,
}

impl View for NodeView<'_> {
    fn open(&self, id: MsgId) -> Option<&Open> {
        self.node.agents.get(id)
    }
    fn closed(&self, id: MsgId) -> Option<&Closed> {
        self.node.agents.closed(id)
    }
    fn active_tasks(&self) -> u64 {
        self.node.agents.active_tasks()
    }
    fn capacity(&self) -> u64 {
        self.node.agents.capacity()
    }
    fn resolve(&self, peer: &str) -> Result<AgentId, IpcError> {
        self.node.peers.resolve(peer)
    }
    fn no_room(&self, from: AgentId, kind: &str) -> Option<Unclaimed> {
        let agents = &self.node.agents;
        let free = matches!(agents.pick(kind, None), Ok(Some(_)));
        (!free && !agents.queue_has_room(from)).then_some(Unclaimed::QueueFull)
    }
    fn serves(&self, client: ClientId, kind: &str) -> bool {
        let client = self.node.agents.clients.get(&client);
        let answers = client.and_then(|client| client.answers.as_ref());
        answers.is_some_and(|answers| answers.kinds.iter().any(|served| served == kind))
    }
    fn offers(&self, peer: AgentId, feature: &str) -> bool {
        let session = self.node.best_session(peer).and_then(|conn| self.node.sessions.get(&conn));
        session.is_some_and(|session| session.offers(feature))
    }
    fn is_targeted(&self, id: MsgId) -> bool {
        self.node.agents.iter().any(|open| open.targeted && open.inbound.envelope.reference == Some(id))
    }
    fn uptime_secs(&self) -> u64 {
        self.uptime_secs
    }
    fn name(&self) -> Option<&str> {
        self.node.settings.name.as_deref()
    }
    fn configured_capabilities(&self) -> Option<&RawValue> {
        self.node.settings.agent.as_deref()
    }
}
