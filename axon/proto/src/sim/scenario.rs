//! What four daemons and their clients do in half a minute, always the same: fault points are tried at each
//! of its places.
//!
//! The first two know each other by their settings; the third joins by an invite of the first; the fourth
//! guesses at one, knocks, is let in as unknown, and is found by the second on its network. They ask,
//! delegate, notify, read and acknowledge; they subscribe to topics and publish, two of them keep what is
//! published, and say how they are; one is paused, one crashes, one stops and starts; so much is
//! written that segments are begun, cleaned and removed. What cannot be done because something was made to
//! fail is tried again as a person would, or left.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use super::clients::{Role, Say, What};
use super::disk::Unsynced;
use super::{Ev, Sim};
use crate::invite::{Link, Secret};
use crate::limits::{REPLY_GRACE_MS, REQUEST_TIMEOUT_MS};
use crate::node::{ClientId, Input};

/// How many nodes play.
pub(super) const NODES: usize = 4;
/// Steps are so far apart.
const STEP_MS: u64 = 90;
/// How long a joining may take.
const JOIN_MS: u64 = 8_000;
/// How long a query of the scenario may take.
const QUERY_MS: u64 = 4_000;
/// What is published, and what is subscribed to and kept.
const TOPIC: &str = "t.one";
pub(super) const TOPICS: &str = "t.>";

/// Who knows whom when it begins.
pub(super) const LINKS: [(usize, usize); 1] = [(0, 1)];

#[derive(Debug, Clone, Copy)]
enum Step {
    Come(Role),
    Go(Role),
    Ask(Role, Ask),
    /// Discovery has seen another, and the other this one.
    Find(usize),
    /// Two commands at once: the second waits while the first reads.
    Both(Role, Ask, Ask),
    Stop,
    Crash,
    Rest,
}

#[derive(Debug, Clone, Copy)]
enum Ask {
    Invite,
    Join(usize),
    /// With a wrong secret.
    Guess(usize),
    Knock(usize),
    /// Whoever knocks is let in as unknown.
    Approve(usize),
    Query(usize),
    Ping(usize),
    Discover(usize),
    Advertise,
    Delegate(usize, bool),
    Cancel,
    /// To whom, whether it is held, whether its sender wants to hear that it was read, how long it is.
    Notify(usize, bool, bool, usize),
    Inbox,
    Ack,
    Pause(bool),
    Withdraw,
    Socket(bool),
    Trust(usize),
    /// To all topics of all publishers; whether it keeps, and whether it begins with what was kept.
    Subscribe(bool, bool),
    Keep,
    Publish,
    /// How this agent is.
    Status(&'static str),
    Plain(&'static str),
}

use Ask::{
    Ack, Advertise, Approve, Cancel, Delegate, Discover, Guess, Inbox, Invite, Join, Keep, Knock, Notify,
    Pause, Ping, Plain, Publish, Query, Socket, Status, Subscribe, Trust, Withdraw,
};
use Role::{Agent, Boxed, Reader, Watcher};
use Step::{Come, Crash, Find, Go, Rest, Stop};

const fn ask(at: usize, what: Ask) -> (usize, Step) {
    (at, Step::Ask(Reader, what))
}

const fn watch(at: usize, what: Ask) -> (usize, Step) {
    (at, Step::Ask(Watcher, what))
}

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const D: usize = 3;

/// A message that is held, and one that is not.
const fn held(to: usize) -> Ask {
    Notify(to, true, true, 40)
}
const fn passing(to: usize) -> Ask {
    Notify(to, false, false, 40)
}
const fn long(to: usize) -> Ask {
    Notify(to, true, false, 700)
}

const SCRIPT: &[(usize, Step)] = &[
    // All come, and the third is let in.
    (A, Come(Agent)),
    (B, Come(Agent)),
    (C, Come(Agent)),
    (A, Come(Watcher)),
    (B, Come(Watcher)),
    ask(A, Invite),
    ask(C, Join(A)),
    (A, Rest),
    (A, Rest),
    ask(D, Guess(A)),
    (D, Rest),
    // What is answered at once.
    ask(A, Query(B)),
    ask(B, Query(A)),
    ask(C, Query(A)),
    ask(A, Query(C)),
    ask(A, Ping(B)),
    (B, Step::Ask(Agent, Advertise)),
    ask(A, Discover(B)),
    // Tasks.
    ask(A, Delegate(B, true)),
    ask(B, Delegate(A, false)),
    ask(C, Delegate(A, true)),
    ask(A, Cancel),
    (A, Rest),
    (A, Rest),
    ask(A, Plain("delegations")),
    (A, Step::Both(Reader, Inbox, Ping(B))),
    // Messages that are kept and held, kept, and read.
    ask(A, held(B)),
    ask(B, passing(A)),
    ask(C, held(A)),
    ask(A, passing(B)),
    ask(B, held(A)),
    ask(B, Inbox),
    watch(B, Ack),
    ask(B, Ack),
    ask(A, Inbox),
    ask(A, Ack),
    // Nobody knows whether the third was let in: again, if need be.
    ask(A, Invite),
    ask(C, Join(A)),
    (A, Rest),
    // Topics: two keep what is published, one of the consumers has a subscription that keeps. What the second
    // publishes comes to the third over two hops.
    ask(A, Keep),
    ask(B, Keep),
    watch(A, Plain("subscribe_presence")),
    watch(A, Subscribe(false, false)),
    watch(B, Subscribe(true, false)),
    (C, Step::Ask(Agent, Subscribe(false, false))),
    (A, Rest),
    ask(A, Publish),
    ask(B, Publish),
    ask(C, Publish),
    watch(B, Status("away")),
    (A, Rest),
    ask(A, Plain("presence")),
    ask(B, Plain("topics")),
    watch(B, Ack),
    // One knocks, and is let in as unknown.
    ask(D, Knock(A)),
    (A, Rest),
    ask(A, Plain("knocks")),
    ask(A, Approve(D)),
    (A, Rest),
    ask(D, held(A)),
    (B, Find(D)),
    (A, Rest),
    ask(D, held(B)),
    // All inbound work waits, and goes on.
    ask(B, Pause(true)),
    ask(A, held(B)),
    ask(A, passing(B)),
    ask(A, Plain("peers")),
    ask(B, Pause(false)),
    (B, Rest),
    watch(B, Inbox),
    watch(B, Ack),
    // One is away: what is for it is held, and one of these withdrawn.
    (B, Crash),
    ask(A, held(B)),
    ask(A, Query(B)),
    ask(A, held(B)),
    ask(A, Withdraw),
    ask(A, held(B)),
    ask(A, Plain("outbox")),
    ask(A, Publish),
    (B, Rest),
    (B, Rest),
    (B, Come(Agent)),
    (B, Come(Watcher)),
    ask(B, Inbox),
    ask(B, Ack),
    ask(B, Publish),
    // One begins with what was kept.
    ask(A, Subscribe(true, true)),
    ask(A, Inbox),
    ask(A, Socket(true)),
    (A, Come(Boxed)),
    (A, Step::Ask(Boxed, Inbox)),
    ask(A, Trust(C)),
    // Much is written.
    ask(A, long(B)),
    ask(B, long(A)),
    ask(A, long(B)),
    ask(B, Inbox),
    ask(B, Ack),
    ask(B, long(A)),
    ask(A, long(B)),
    ask(B, Inbox),
    ask(B, Ack),
    ask(A, long(B)),
    watch(A, Ack),
    (A, Go(Watcher)),
    ask(A, Inbox),
    ask(A, Ack),
    // One ends properly and is there again.
    (A, Stop),
    ask(C, held(A)),
    ask(B, held(A)),
    (A, Rest),
    (A, Rest),
    (A, Rest),
    (A, Come(Agent)),
    (A, Come(Watcher)),
    ask(C, Join(A)),
    ask(C, Publish),
    ask(A, Publish),
    ask(A, Inbox),
    ask(A, Ack),
    ask(A, Socket(false)),
    ask(B, Delegate(A, true)),
    ask(C, Query(A)),
    ask(B, Plain("status")),
    ask(A, Plain("nonsense")),
    (A, Rest),
    (A, Rest),
];

impl Sim {
    pub fn begin_scenario(&mut self) {
        for host in 0..self.hosts.len() {
            self.after(host as u64 * 5, Ev::Start { host });
        }
        self.after(400, Ev::Step { n: 0 });
    }

    /// Does a step; gives whether there is another.
    pub fn step_of_scenario(&mut self, n: usize) {
        let Some((at, step)) = SCRIPT.get(n).copied() else {
            self.played = true;
            return;
        };
        let wait = if let Step::Rest = step { STEP_MS * 8 } else { STEP_MS };
        self.after(wait, Ev::Step { n: n + 1 });
        let there = self.hosts[at].node.is_some() && !self.hosts[at].stopping;
        match step {
            Step::Rest => {}
            _ if !there => {}
            Step::Come(role) => {
                self.client_of(at, role);
            }
            Step::Go(role) => {
                let found = self.hosts[at].clients.iter().find(|(_, client)| client.role == role);
                if let Some(client) = found.map(|(client, _)| *client) {
                    self.leave(at, client);
                }
            }
            Step::Find(other) => {
                for (at, of) in [(at, other), (other, at)] {
                    let (id, key) = (self.hosts[of].id, self.hosts[of].key);
                    let addrs = vec![SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 7_100))];
                    self.feed(at, Input::Found { id, key, addrs });
                }
            }
            Step::Stop => {
                self.hosts[at].stopping = true;
                self.feed(at, Input::Stop);
            }
            Step::Crash => {
                self.crash(at, Unsynced::Dropped);
                self.after(10 * STEP_MS, Ev::Start { host: at });
            }
            Step::Ask(role, what) => {
                let client = self.client_of(at, role);
                if let Some(say) = self.asks(at, role, what, n) {
                    self.say(at, client, say);
                }
            }
            Step::Both(role, first, second) => {
                let client = self.client_of(at, role);
                for what in [first, second] {
                    if let Some(say) = self.asks(at, role, what, n) {
                        self.say(at, client, say);
                    }
                }
            }
        }
    }

    /// The client of a node that does this; it comes if it is not there.
    fn client_of(&mut self, at: usize, role: Role) -> ClientId {
        let found = self.hosts[at].clients.iter().find(|(_, client)| client.role == role);
        match found.map(|(client, _)| *client) {
            Some(client) => client,
            None => self.attach(at, role, 0),
        }
    }

    /// What a step asks; none where it has nothing to ask.
    fn asks(&mut self, at: usize, role: Role, ask: Ask, n: usize) -> Option<Say> {
        let id = |sim: &Self, to: usize| sim.hosts[to].id.to_string();
        let plain = |command: Value| Say { command, what: What::Other, wait_ms: 0 };
        let send = |to: usize, kind: &'static str, wait_ms: u64, mut command: Value| {
            command["cmd"] = "send".into();
            command["kind"] = kind.into();
            Say { command, what: What::Send { to, kind }, wait_ms: wait_ms + REPLY_GRACE_MS }
        };
        let found = self.hosts[at].clients.values().find(|client| client.role == role);
        Some(match ask {
            Ask::Invite if self.paired(A, C) => return None,
            Ask::Invite => {
                Say { command: json!({"cmd":"invite","trust":"trusted"}), what: What::Invite, wait_ms: 0 }
            }
            Ask::Join(to) => {
                let link = self.link.clone().filter(|_| !self.paired(at, to))?;
                let command = json!({"cmd":"connect","link":link,"trust":"trusted","deadline_ms":JOIN_MS});
                Say { command, what: What::Join { to }, wait_ms: JOIN_MS }
            }
            Ask::Guess(to) | Ask::Knock(to) => {
                let secret = matches!(ask, Ask::Guess(_)).then_some(Secret([7; 16]));
                let addrs = vec!["192.0.2.1:7100".into()];
                let link = Link { key: self.hosts[to].key, addrs, secret }.to_string();
                let command = json!({"cmd":"connect","link":link,"trust":"known","deadline_ms":JOIN_MS});
                Say { command, what: What::Join { to }, wait_ms: JOIN_MS }
            }
            Ask::Approve(of) => plain(json!({"cmd":"approve","id":id(self, of),"trust":"unknown"})),
            Ask::Query(to) => {
                let payload = json!({"question":"?","deadline_ms":QUERY_MS});
                send(to, "query", QUERY_MS, json!({"to":id(self, to),"payload":payload}))
            }
            Ask::Ping(to) => send(to, "ping", REQUEST_TIMEOUT_MS, json!({"to":id(self, to)})),
            Ask::Discover(to) => send(to, "discover", REQUEST_TIMEOUT_MS, json!({"to":id(self, to)})),
            Ask::Advertise => {
                plain(json!({"cmd":"advertise","capabilities":{"domains":["d"]},"persist":true}))
            }
            Ask::Delegate(to, hold) => {
                let mut command = json!({"to":id(self, to),"payload":{"task":"t","deadline_ms":20_000}});
                if hold {
                    command["hold_secs"] = 600.into();
                }
                send(to, "delegate", REQUEST_TIMEOUT_MS, command)
            }
            Ask::Cancel => {
                let of = found?.delegation.clone()?;
                send(at, "cancel", REQUEST_TIMEOUT_MS, json!({"ref":of}))
            }
            Ask::Notify(to, hold, read, bytes) => {
                let payload = json!({"topic":"t","data":format!("{n}{}", "x".repeat(bytes))});
                let mut command = json!({"to":id(self, to),"payload":payload});
                if hold {
                    (command["hold_secs"], command["read_receipt"]) = (3_600.into(), read.into());
                }
                send(to, "notify", REQUEST_TIMEOUT_MS, command)
            }
            Ask::Inbox => Say { command: json!({"cmd":"inbox","limit":10}), what: What::Inbox, wait_ms: 0 },
            Ask::Ack => {
                let up_to = found.map(|client| client.given).filter(|given| *given > 0)?;
                Say { command: json!({"cmd":"ack","up_to_seq":up_to}), what: What::Ack(up_to), wait_ms: 0 }
            }
            Ask::Pause(on) => plain(json!({"cmd":if on { "pause" } else { "resume" }})),
            Ask::Withdraw => plain(json!({"cmd":"outbox","cancel":self.promises.some_held(at)?})),
            Ask::Socket(true) => plain(
                json!({"cmd":"socket_add","name":"box","allow":["send","inbox"],"messages_per_minute":9}),
            ),
            Ask::Socket(false) => plain(json!({"cmd":"socket_remove","name":"box"})),
            Ask::Trust(to) => plain(json!({"cmd":"trust","peer":id(self, to),"trust":"trusted"})),
            Ask::Subscribe(kept, history) => {
                let command = json!({"cmd":"subscribe_topic","topic":TOPICS,"kept":kept,"from":"any",
                    "history":history});
                Say { command, what: What::Subscribe { kept }, wait_ms: 0 }
            }
            Ask::Keep => {
                let command = json!({"cmd":"topic_keep","topic":TOPICS,"last":1_000});
                Say { command, what: What::Keep, wait_ms: 0 }
            }
            Ask::Publish => {
                let command = json!({"cmd":"publish","topic":TOPIC,"payload":{"n":n}});
                Say { command, what: What::Publish, wait_ms: 0 }
            }
            Ask::Status(status) => plain(json!({"cmd":"set_presence","status":status})),
            Ask::Plain(cmd) => plain(json!({"cmd":cmd})),
        })
    }

    /// Whether both have each other in their files, or in their settings.
    pub fn paired(&self, a: usize, b: usize) -> bool {
        let knows = |a: usize, b: usize| {
            let (host, id) = (&self.hosts[a], self.hosts[b].id);
            host.contacts.contacts.iter().any(|contact| contact.agent_id == id)
                || host.settings.peers.iter().any(|peer| peer.agent_id == id)
        };
        knows(a, b) && knows(b, a)
    }

    /// Nobody is paused any more, whatever went wrong before.
    pub fn all_resume(&mut self) {
        for at in 0..self.hosts.len() {
            let say = self.asks(at, Role::Reader, Ask::Pause(false), 0);
            self.ok_of(at, say, "a daemon goes on after a fault");
        }
    }

    /// All is healed: what there is to be done is done again, whatever went wrong before.
    pub fn all_goes_on(&mut self) {
        for at in 0..self.hosts.len() {
            self.client_of(at, Role::Agent);
        }
        if !self.paired(A, C) {
            let invited = self.asks(A, Role::Reader, Ask::Invite, 0);
            self.ok_of(A, invited, "an invite is made");
            let join = self.asks(C, Role::Reader, Ask::Join(A), 0);
            self.ok_of(C, join, "an invite lets in");
            if !self.paired(A, C) {
                return self.wrong(C, "an invite lets in", "one does not know the other".into());
            }
            self.run_for(5_000);
        }
        for (from, to) in [(A, B), (B, A), (A, C), (C, A)] {
            for what in [Ask::Query(to), passing(to), held(to), Ask::Delegate(to, false)] {
                let say = self.asks(from, Role::Reader, what, 0);
                self.ok_of(from, say, "a daemon goes on after a fault");
            }
        }
        self.run_for(5_000);
        self.topics_go_on();
        for at in 0..self.hosts.len() {
            self.over(at);
        }
    }

    /// What each publishes comes to each once, and how one is to the other.
    fn topics_go_on(&mut self) {
        let rule = "topics go on after a fault";
        let readers = [(A, Watcher, false), (B, Watcher, true), (C, Agent, false)];
        for (at, role, kept) in readers {
            let client = self.client_of(at, role);
            if let Some(say) = self.asks(at, role, Subscribe(kept, false), 0) {
                self.ok_of_client(at, client, say, rule);
            }
        }
        self.run_for(2_000);
        let mut published = Vec::new();
        for from in [A, B, C] {
            let say = self.asks(from, Reader, Publish, 0);
            published.extend(self.ok_of(from, say, rule).map(|reply| (from, reply["seq"].as_u64())));
        }
        let away = self.asks(B, Watcher, Status("dnd"), 0);
        let client = self.client_of(B, Watcher);
        away.into_iter().for_each(|say| drop(self.ok_of_client(B, client, say, rule)));
        self.run_for(5_000);
        for (at, role, _) in readers {
            let client = self.client_of(at, role);
            for (from, number) in &published {
                if !self.has_topic(at, client, *from, number.unwrap_or_default()) {
                    self.wrong(at, rule, format!("{number:?} of node {from} was not shown"));
                }
            }
        }
        let told = self.ask_reader(A, json!({"cmd":"presence","peer":self.hosts[B].id.to_string()}));
        if told["presence"][0]["status"] != "dnd" {
            self.wrong(A, "a change of presence is told at last", told.to_string());
        }
    }

    /// What the reader asks must succeed.
    fn ok_of(&mut self, at: usize, say: Option<Say>, rule: &'static str) -> Option<Value> {
        let Some(say) = say else {
            self.wrong(at, rule, "there is nothing to ask".into());
            return None;
        };
        let client = self.client_of(at, Role::Reader);
        self.ok_of_client(at, client, say, rule)
    }

    /// What a client asks must succeed.
    fn ok_of_client(&mut self, at: usize, client: ClientId, say: Say, rule: &'static str) -> Option<Value> {
        let told = say.command.to_string();
        let reply = self.asked(at, client, say);
        if reply["ok"] != true || reply["response"]["kind"] == "error" {
            self.wrong(at, rule, format!("{told}: {reply}"));
            return None;
        }
        Some(reply)
    }

    /// What the reader is told.
    pub fn ask_reader(&mut self, at: usize, command: Value) -> Value {
        let client = self.client_of(at, Role::Reader);
        self.asked(at, client, Say { command, what: What::Other, wait_ms: 0 })
    }

    /// Nothing is left under way.
    pub fn over(&mut self, at: usize) {
        if let Some(what) = self.hosts[at].node.as_ref().and_then(crate::node::Node::unfinished) {
            self.wrong(at, "whatever is begun ends", what);
        }
    }
}
