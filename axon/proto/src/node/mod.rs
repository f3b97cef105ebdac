//! The node: owns all state, one [`Node::handle`].
//!
//! `link` is the way in from peers, `storing` what waits for the disk, `outgoing` and `held` the way out to
//! peers; `requests` carries out what families decide; `commands`, `send` and `inbox` serve the clients of
//! the socket. All of it runs to the end within one input; nothing waits.

mod answer;
mod arrivals;
mod auditing;
#[cfg(feature = "sim")]
mod bounds;
mod commands;
mod contacting;
mod dialling;
mod families;
mod glance;
mod held;
mod inbox;
mod io;
mod jobs;
mod knocking;
mod link;
mod notes;
mod outgoing;
mod pairing;
mod paused;
mod purge;
mod rekey;
mod requests;
mod scopes;
mod send;
mod sessions;
mod settings;
mod storing;
mod timers;
mod view;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::HashMap;

use crate::agents::Agents;
use crate::audit::Audit;
use crate::contacts::{Contacts, ContactsFile};
use crate::family::{Act, Family, Input as FamilyInput, Kind, Pattern};
use crate::id::{AgentId, MsgId, PublicKey};
use crate::limits::{REPLAY_FLUSH_MS, SAVE_INTERVAL_MS, SHUTDOWN_MS, SWEEP_INTERVAL_MS};
use crate::mailbox::Mailbox;
use crate::outbox::Outbox;
use crate::peers::Peers;
use crate::replay::Replay;
use crate::scope::Scope;
use crate::store::Commit;
use crate::trust::Rates;
use crate::wire::{Envelope, Header, Json, Scratch, TooLarge, encode_in};

pub use glance::Glance;
pub use io::{
    ClientId, CommitId, ConnId, DialId, Effect, Input, JobId, KEY_REFUSED, KnownPeer, LogLevel, Lost, Now,
    Of, OldKey, Path, Pins, ReadId, Seen, Side, Sign, StreamId, TOO_MANY_STRANGERS, Token, Verify,
};
use outgoing::Pending;
use sessions::Sessions;
pub use settings::{KnockSettings, OutboxSettings, Settings, StaticPeer};
use storing::{After, Reading, Unread};
use timers::{Key, Timers};
use vocabulary::Kinds;

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
    /// Where others may reach this agent, `host:port`, best first, for invites.
    pub addrs: Vec<String>,
    /// `contacts.toml`.
    pub contacts: ContactsFile,
    /// The scoped sockets.
    pub scopes: Vec<Scope>,
    /// Keys that this agent had before.
    pub old_keys: Vec<OldKey>,
    /// How this agent signs.
    pub sign: Sign,
    /// How signatures are checked.
    pub verify: Verify,
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
    refused: u64,
    limited: u64,
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
    kinds: Kinds,
    features: Vec<&'static str>,

    sessions: Sessions,
    /// Messages that overtook the hello reply, on connections that this daemon dialled.
    early: HashMap<ConnId, Vec<(Option<StreamId>, Envelope)>>,
    sessions_made: u64,
    peers: Peers,
    /// As they were last published.
    pins: Arc<Pins>,
    peers_changed: bool,
    replay: Replay,
    rates: Rates,
    pairing: pairing::Pairing,
    audit: Audit,
    jobs: BTreeMap<JobId, jobs::Chain>,
    next_job: u64,
    scopes: scopes::Scopes,
    /// Peers that are out, and the number of the last row that may be theirs: none of it is shown.
    shut: HashMap<AgentId, u64>,
    /// Peers whose rows are being taken out of the inbox, and how far.
    purges: BTreeMap<AgentId, u64>,
    set_aside: paused::SetAside,
    /// The number of the newest row that a family made, and that some consumers are not shown.
    newest_note: u64,
    /// Unread rows of unknown peers.
    low_rows: BTreeMap<u64, arrivals::LowRow>,
    heralds: rekey::Heralds,
    sign: Sign,
    verify: Verify,
    addrs: Vec<String>,
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
    /// The disk has refused to take such rows out: until then none are.
    room_not_before_ms: u64,
    /// The scoped socket whose command is being carried out.
    via: Option<Box<str>>,
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
    /// Where texts are built.
    scratch: Scratch,
    /// Where families say what they decide, empty between two of them.
    acts: VecDeque<Act>,
    /// Clients that a row is shown to, empty between two rows.
    audience: Vec<ClientId>,
    /// What this agent can do, as `discover` says it.
    capabilities: Box<str>,
    out: Vec<Effect>,
}

impl Node {
    /// A node with these settings that knows nobody but the cache's and the settings' peers.
    pub fn new(birth: Birth, settings: Settings, now: Now) -> Self {
        let Birth { key, version, pid, listen, root, known_peers, seen, next_seq, clean, entropy, .. } =
            birth;
        let (addrs, scopes, old_keys, verify) = (birth.addrs, birth.scopes, birth.old_keys, birth.verify);
        let (contacts, mut entropy, sign) = (birth.contacts, entropy, birth.sign);
        let me = key.agent_id();
        let families = crate::kinds::all();
        let kinds = Kinds::of(&families);
        let features = Self::features(&families, &settings);
        let mut random = [0; 16];
        entropy.fill(&mut random);
        let mut peers = Peers::new(me, known_peers, Contacts::new(contacts));
        peers.configure(&settings.peers, now.wall_ms);
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
            arriving: HashMap::default(),
            arriving_bytes: HashMap::default(),
            ended_rows: BTreeSet::new(),
            room_not_before_ms: 0,
            via: None,
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
            sessions: Sessions::default(),
            early: HashMap::default(),
            sessions_made: 0,
            peers,
            pins: Arc::default(),
            peers_changed: false,
            replay: Replay::new(&seen, now.wall_ms),
            rates: Rates::default(),
            pairing: pairing::Pairing::default(),
            audit: Audit::default(),
            jobs: BTreeMap::new(),
            next_job: 1,
            scopes: scopes::Scopes::new(scopes),
            shut: HashMap::default(),
            purges: BTreeMap::new(),
            set_aside: paused::SetAside::default(),
            newest_note: 0,
            low_rows: BTreeMap::new(),
            heralds: rekey::Heralds::new(old_keys),
            sign,
            verify,
            addrs,
            pending: BTreeMap::new(),
            next_token: 1,
            next_dial: 1,
            agents: Agents::default(),
            streams: HashMap::default(),
            timers: Timers::default(),
            started: None,
            stopping: false,
            stopped: false,
            sent: 0,
            received: 0,
            dropped: Dropped::default(),
            scratch: Scratch::default(),
            acts: VecDeque::new(),
            audience: Vec::new(),
            capabilities: Box::default(),
            out: Vec::new(),
        };
        node.timers.set(Key::Sweep, now.mono_ms + SWEEP_INTERVAL_MS);
        node.timers.set(Key::SavePeers, now.mono_ms + SAVE_INTERVAL_MS);
        node.publish_pins();
        node
    }

    /// What is offered in hello.
    fn features(families: &[Box<dyn Family>], settings: &Settings) -> Vec<&'static str> {
        let mut features = Vec::new();
        for kind in families.iter().flat_map(|family| family.vocabulary().kinds) {
            features.extend(kind.feature.filter(|feature| !features.contains(feature)));
        }
        // Without a disk under it, nobody can promise that a message will be there tomorrow.
        if !settings.durable || settings.buffer_size == 0 {
            features.retain(|feature| *feature != "receipt");
        }
        let off = [(settings.topics.enabled, "topics"), (settings.presence.enabled, "presence")];
        features.retain(|feature| off.iter().all(|(enabled, name)| *enabled || feature != name));
        if settings.pipe {
            features.push("pipe");
        }
        features
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
            self.timers.set_if_sooner(Key::FlushReplay, now.mono_ms + self.replay.flush_ms());
        }
        std::mem::swap(&mut self.out, effects);
    }

    fn dispatch(&mut self, now: Now, input: Input) {
        match input {
            Input::Start => self.start(now),
            Input::Timer => self.run_timers(now),
            Input::Settings(settings) => self.configure(now, *settings),
            Input::Stop => self.stop(now),
            Input::Connected { conn, peer, key, side, addr, dial, early, binding } => {
                let arrival = link::Arrival { conn, peer, key, side, addr, dial, early, binding };
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
                if let Some(session) = self.sessions.get_mut(conn) {
                    (session.silent, session.heard_ms) = (false, now.mono_ms);
                }
            }
            Input::Counted(counts) => self.packets_counted(now, &counts),
            Input::Found { id, key, addrs } => self.found(now, id, key, &addrs),
            Input::ClientUp { client, trusted, socket } => self.client_up(client, trusted, socket),
            Input::HandshakeRefused { id } => self.handshake_refused(now, id),
            Input::Contacts(file) => self.contacts_read(now, file),
            Input::Done { job, outcome } => self.job_done(now, job, outcome),
            Input::Line { client, line } => self.line(now, client, line),
            Input::LineTooLong { client } => self.line_too_long(client),
            Input::Lagged { client, seq } => self.lagged(client, seq),
            Input::ClientEof { client } => self.client_eof(now, client),
            Input::ClientGone { client } => self.client_gone(now, client),
            Input::Committed { id, outcome } => self.committed(now, id, outcome),
            Input::ReadDone { id, out } => self.read_done(now, id, out),
            Input::Measured { client, req_id, rtts } => self.measured(now, client, &req_id, &rtts),
        }
    }

    fn start(&mut self, now: Now) {
        self.started = Some(now);
        // Which of the rows from before they are is not known without reading them.
        self.newest_note = self.mailbox.visible();
        self.invites_due(now);
        self.contacts_due(now);
        self.purge_all();
        // Whom a person has blocked in the file while nobody looked.
        let contacts = self.peers.contacts().iter().map(|contact| contact.agent_id);
        let blocked: Vec<AgentId> = contacts.filter(|id| self.peers.is_blocked(*id)).collect();
        blocked.into_iter().for_each(|peer| self.forget_words(now, peer));
        self.reopen(now);
        self.tell_families(now, || FamilyInput::Started);
        self.capabilities_changed(now);
        self.expire_held(now);
        // What was read, and not told any more before the end.
        self.were_read(now, self.mailbox.read_up_to());
        let ids: Vec<AgentId> = self.peers.iter().map(|peer| peer.id).collect();
        ids.into_iter().for_each(|id| self.keep_connected(now, id));
        self.heralds_due(now);
    }

    #[inline(never)]
    fn configure(&mut self, now: Now, mut settings: Settings) {
        // Whom a command has just forgotten is perhaps still in the file that was read.
        let gone = self.unwritten_removals();
        settings.peers.retain(|peer| !gone.contains(&peer.agent_id));
        let out = self.peers.configure(&settings.peers, now.wall_ms);
        // Whether receipts are given was said in hello, and holds until the end.
        let (durable, pipe) = (self.settings.durable, self.settings.pipe);
        let enabled = self.settings.presence.enabled;
        if self.settings.policies != settings.policies || self.settings.knock != settings.knock {
            self.audit(now, crate::audit::Event::Policy, None, "settings");
        }
        settings.topics.enabled = self.settings.topics.enabled;
        self.settings = Settings { durable, pipe, ..settings };
        self.settings.presence.enabled = enabled;
        self.tell_families(now, || FamilyInput::Settings);
        self.capabilities_changed(now);
        self.out.push(Effect::Evict(self.keep()));
        self.publish_pins();
        if !out.is_empty() {
            self.peers_changed = true;
            self.timers.set_if_sooner(Key::SavePeers, now.mono_ms);
        }
        let mut steps = Vec::new();
        for id in out {
            let writes = self.cut_off(now, id, "no longer in [[peers]]");
            steps.extend([jobs::Step::Purge(id), jobs::Step::Store(writes)]);
            self.audit(now, crate::audit::Event::Forget, Some(id), "config.toml");
        }
        if !steps.is_empty() {
            self.before_reloaded(now, steps);
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
                Key::Stranger(conn) => self.stranger_due(now, conn),
                Key::Join(peer) => self.join_due(now, peer),
                Key::Invites => self.invites_due(now),
                Key::Contacts => self.contacts_due(now),
                Key::Herald => self.heralds_due(now),
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
                Key::Family(index) => drop(self.tell_family(now, index, FamilyInput::Timer)),
                Key::StopBy => self.stop_now(now),
            }
        }
    }

    fn sweep(&mut self, now: Now) {
        self.out.push(Effect::Evict(self.keep()));
        self.forget_unread(now);
        self.were_read(now, self.mailbox.read_up_to());
        self.expire_held(now);
        self.write_audit(now, false);
        self.sweep_knocks(now);
        self.forget_low_rows(now);
        self.release_aside(now);
        // Timers stand still while the computer sleeps, and know nothing of a clock that was set.
        if self.peers.is_expiry_due(now.wall_ms) {
            self.contacts_due(now);
        }
        if self.pairing.invites.next_expiry_ms().is_some_and(|at_ms| at_ms <= now.wall_ms) {
            self.invites_due(now);
        }
        let swept = self.outbox.sweep(now.wall_ms);
        self.note(swept);
        self.tell_families(now, || FamilyInput::Tick);
        self.count_packets();
        self.replay.sweep(now.wall_ms);
        let sessions = &self.sessions;
        let gone = self.peers.sweep(now.mono_ms, |id| !sessions.of(id).is_empty());
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
    #[inline(never)]
    fn stop(&mut self, now: Now) {
        if self.stopping {
            return self.stop_now(now);
        }
        self.stopping = true;
        self.timers.set(Key::StopBy, now.mono_ms + SHUTDOWN_MS);
        self.refuse_waiting(now);
        self.tell_families(now, || FamilyInput::Stopping);
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
        open || !self.commits.is_empty()
            || !self.jobs.is_empty()
            || self.pending.values().any(Pending::is_awaited)
    }

    fn stop_now(&mut self, now: Now) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        self.stopping = true;
        self.refuse_open(now);
        self.write_audit(now, true);
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
        let strangers = self.hears_strangers();
        let allowed = self.settings.knock.allow.iter().copied().collect();
        let pins = self.peers.pins(strangers, allowed);
        if *self.pins != pins {
            self.pins = Arc::new(pins);
            self.out.push(Effect::Pins(self.pins.clone()));
        }
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
        payload: &Json<'_>,
    ) -> Result<Envelope, TooLarge> {
        self.made(now, to, kind, (reference, payload), None)
    }

    /// An envelope of ours; one that is held so long says until when it may come again.
    fn made(
        &mut self,
        now: Now,
        to: AgentId,
        kind: &str,
        (reference, payload): (Option<MsgId>, &Json<'_>),
        hold_ms: Option<u64>,
    ) -> Result<Envelope, TooLarge> {
        let (id, from, ts) = (self.random_id(), self.me, now.wall_ms.max(1));
        let resend_until = hold_ms.map(|ms| held::resend_until(now, ms));
        let read_receipt = false;
        let header = Header { id, from, to, ts, kind, reference, resend_until, read_receipt };
        encode_in(&mut self.scratch, header, payload)
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
        self.out.push(Effect::Log(LogLevel::Debug, text));
    }

    fn info(&mut self, text: String) {
        self.out.push(Effect::Log(LogLevel::Info, text));
    }
}
