//! Clients of a node: what they ask, how they read, what they answer.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::checks::Promised;
use super::{Ev, Sim};
use crate::fault::has_room;
use crate::limits::{REPLY_GRACE_MS, REQUEST_TIMEOUT_MS};
use crate::node::{ClientId, Input};

/// How long a command may take beyond its own wait: disks that stall.
pub(super) const SLACK_MS: u64 = 6_000;
/// Clients of one node.
const CLIENTS_MAX: usize = 4;
/// How long a line waits that may not be sent yet.
const PAUSED_MS: u64 = 20;

/// What a client does beside asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Subscribes, and acks what it was shown.
    Watcher,
    /// Reads the inbox from time to time.
    Reader,
    /// Answers requests.
    Agent,
    /// Reads the inbox by a scoped socket.
    Boxed,
    /// Does nothing but what the end of a run asks of it.
    Auditor,
}

/// What a command was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Send { to: usize, kind: &'static str },
    Ack(u64),
    Inbox,
    Reply { of: String, kind: &'static str },
    Invite,
    Join { to: usize },
    Outbox(String),
    Subscribe { kept: bool },
    Keep,
    Publish,
    Other,
}

/// A command that a client gives.
#[derive(Debug, Clone)]
pub(super) struct Say {
    pub command: Value,
    pub what: What,
    /// It is replied to within this.
    pub wait_ms: u64,
}

/// A command without its reply.
pub(super) struct Asked {
    pub what: What,
    pub due_ms: u64,
    /// Where the cursor stood at least when it was given.
    pub cursor: u64,
}

/// A client.
pub(super) struct Client {
    pub role: Role,
    pub consumer: String,
    /// It takes so long for a line; 0: it keeps up with anything.
    slow_ms: u64,
    /// What it has not read yet; whether each is an event that may be turned away.
    backlog: VecDeque<bool>,
    paused: bool,
    pub asked: BTreeMap<String, Asked>,
    commands: u64,
    /// The last row that it was shown as an event.
    last_seq: u64,
    /// It may ack up to here.
    pub given: u64,
    behind: bool,
    /// The last delegation that it gave away.
    pub delegation: Option<String>,
    /// An event was turned away, and it was not told so yet.
    turned_away: bool,
    /// What an inbox reply or an outbox reply said last, or any reply when all is healed.
    pub last_reply: Value,
}

impl Sim {
    /// Who was turned away has been told.
    pub fn all_told(&mut self, at: usize) {
        let found = self.hosts[at].clients.iter().find(|(_, state)| state.turned_away);
        if let Some(client) = found.map(|(client, _)| *client) {
            self.wrong(at, "a slow consumer is told so", format!("{client:?}"));
        }
    }

    /// A node's clients do something.
    pub fn act(&mut self, at: usize) {
        if self.calm {
            return;
        }
        let next = self.rng.range(1, self.weather.act_every_ms * 2);
        self.after(next, Ev::Act { host: at });
        if self.hosts[at].node.is_none() || self.hosts[at].neighbours.is_empty() {
            return;
        }
        let clients: Vec<ClientId> = self.hosts[at].clients.keys().copied().collect();
        if clients.len() < CLIENTS_MAX && (clients.is_empty() || self.rng.chance(300)) {
            let role = match clients.len() {
                0 => Role::Agent,
                1 => Role::Watcher,
                2 => Role::Reader,
                _ => Role::Agent,
            };
            let slow = if self.rng.chance(200) { self.rng.range(5, 800) } else { 0 };
            self.attach(at, role, slow);
            return;
        }
        let pick = usize::try_from(self.rng.below(clients.len() as u64)).unwrap_or_default();
        let client = clients[pick];
        if self.rng.chance(15) {
            return self.leave(at, client);
        }
        let say = self.something(at, client);
        self.say(at, client, say);
    }

    pub fn attach(&mut self, at: usize, role: Role, slow_ms: u64) -> ClientId {
        let client = ClientId(self.fresh());
        let consumer = match role {
            Role::Watcher => "watcher".to_owned(),
            Role::Reader => "reader".to_owned(),
            Role::Auditor => "auditor".to_owned(),
            Role::Boxed => "boxed".to_owned(),
            Role::Agent if self.plan.scenario => "agent".to_owned(),
            Role::Agent => format!("agent{}", self.rng.below(2)),
        };
        let hello = json!({"cmd":"hello","version":2,"consumer":consumer});
        let state = Client {
            role,
            consumer,
            slow_ms,
            backlog: VecDeque::new(),
            paused: false,
            asked: BTreeMap::new(),
            commands: 0,
            last_seq: 0,
            given: 0,
            behind: false,
            delegation: None,
            turned_away: false,
            last_reply: Value::Null,
        };
        self.hosts[at].clients.insert(client, state);
        let socket = (role == Role::Boxed).then(|| "box".into());
        self.feed(at, Input::ClientUp { client, trusted: true, socket });
        self.say(at, client, Say { command: hello, what: What::Other, wait_ms: 0 });
        let subscribe = match role {
            Role::Watcher => json!({"cmd":"subscribe"}),
            Role::Agent => json!({"cmd":"subscribe","answer":["query","delegate","cancel"],
                "capacity":self.rng.range(1, 6),"lease":!self.plan.scenario && self.rng.chance(300)}),
            Role::Reader | Role::Boxed | Role::Auditor => return client,
        };
        self.say(at, client, Say { command: subscribe, what: What::Other, wait_ms: 0 });
        client
    }

    pub fn leave(&mut self, at: usize, client: ClientId) {
        self.promises.client_gone(at, client);
        if !self.plan.scenario && self.rng.chance(300) {
            // It has said all that it will say, and waits for its answers, for a while.
            return self.feed(at, Input::ClientEof { client });
        }
        self.hosts[at].clients.remove(&client);
        self.feed(at, Input::ClientGone { client });
    }

    /// Something that a client may ask.
    fn something(&mut self, at: usize, client: ClientId) -> Say {
        let neighbours = self.hosts[at].neighbours.clone();
        let to = neighbours[usize::try_from(self.rng.below(neighbours.len() as u64)).unwrap_or_default()];
        let id = self.hosts[to].id.to_string();
        let Some(state) = self.hosts[at].clients.get(&client) else { return other(json!({"cmd":"status"})) };
        let (role, behind, given) = (state.role, state.behind, state.given);
        let delegation = state.delegation.clone();
        if role == Role::Reader && self.rng.chance(400) || behind && self.rng.chance(500) {
            let limit = self.rng.range(1, 20);
            return Say { command: json!({"cmd":"inbox","limit":limit}), what: What::Inbox, wait_ms: 0 };
        }
        if matches!(role, Role::Reader | Role::Watcher) && given > 0 && self.rng.chance(400) {
            // Sometimes an old one again.
            let up_to = if self.rng.chance(100) { self.rng.below(given) } else { given };
            return Say {
                command: json!({"cmd":"ack","up_to_seq":up_to}),
                what: What::Ack(up_to),
                wait_ms: 0,
            };
        }
        let text = "x".repeat(usize::try_from(self.rng.below(120)).unwrap_or_default());
        let hold = self.rng.range(20, 7_200);
        let send = |kind: &'static str, wait_ms: u64, command: Value| {
            let mut command = command;
            command["cmd"] = "send".into();
            command["kind"] = kind.into();
            Say { command, what: What::Send { to, kind }, wait_ms: wait_ms + REPLY_GRACE_MS }
        };
        match self.rng.below(100) {
            0..30 => {
                let deadline = self.rng.range(200, 8_000);
                let payload = json!({"question":text,"deadline_ms":deadline});
                send("query", deadline, json!({"to":id,"payload":payload}))
            }
            30..42 => {
                let mut command = json!({"to":id,"payload":{"task":text}});
                if self.rng.chance(300) {
                    command["payload"]["deadline_ms"] = self.rng.range(500, 40_000).into();
                }
                if self.rng.chance(500) {
                    command["hold_secs"] = hold.into();
                }
                send("delegate", REQUEST_TIMEOUT_MS, command)
            }
            42..58 => {
                let payload = json!({"topic":"t","data":text});
                send("notify", REQUEST_TIMEOUT_MS, json!({"to":id,"payload":payload}))
            }
            58..80 => {
                let payload = json!({"topic":"t","data":text});
                let read = self.rng.chance(400);
                let command = json!({"to":id,"payload":payload,"hold_secs":hold,"read_receipt":read});
                send("notify", REQUEST_TIMEOUT_MS, command)
            }
            80..86 => match delegation {
                Some(id) => send("cancel", REQUEST_TIMEOUT_MS, json!({"ref":id})),
                None => send("ping", REQUEST_TIMEOUT_MS, json!({"to":id})),
            },
            86..89 => send("discover", REQUEST_TIMEOUT_MS, json!({"to":id})),
            89..91 => other(json!({"cmd":"outbox"})),
            91..93 => other(json!({"cmd":"delegations","watch":true})),
            93..95 => other(json!({"cmd":"peers","unread":true})),
            95..97 => match self.promises.some_held(at) {
                Some(id) => other(json!({"cmd":"outbox","cancel":id})),
                None => other(json!({"cmd":"whoami"})),
            },
            97 => other(json!({"cmd":"nonsense"})),
            _ => other(json!({"cmd":"status"})),
        }
    }

    /// A client gives a command.
    pub fn say(&mut self, at: usize, client: ClientId, say: Say) {
        let (now, life) = (self.now, self.hosts[at].life);
        let Some(state) = self.hosts[at].clients.get_mut(&client) else { return };
        if state.paused {
            let say = Box::new(say);
            return self.after(PAUSED_MS, Ev::Say { host: at, life, client, say });
        }
        let Say { mut command, what, wait_ms } = say;
        state.commands += 1;
        let req_id = format!("r{}", state.commands);
        command["req_id"] = req_id.clone().into();
        let cursor = self.promises.cursor(at, &state.consumer);
        let wait_ms = wait_ms + SLACK_MS;
        if let What::Ack(up_to) = what {
            self.promises.ack_asked(at, up_to);
        }
        if let What::Subscribe { kept: true } = what {
            self.published.asks(at, &state.consumer);
        }
        state.asked.insert(req_id.clone(), Asked { what, due_ms: now + wait_ms, cursor });
        self.after(wait_ms + 1, Ev::ReplyDue { host: at, life, client, req_id });
        self.feed(at, Input::Line { client, line: command.to_string().into_bytes() });
    }

    pub fn say_later(&mut self, at: usize, life: u32, client: ClientId, say: Say) {
        if self.alive(at, life) {
            self.say(at, client, say);
        }
    }

    pub fn reply_due(&mut self, at: usize, life: u32, client: ClientId, req_id: &str) {
        if !self.alive(at, life) || self.hosts[at].stopping {
            return;
        }
        let asked = self.hosts[at].clients.get(&client).and_then(|state| state.asked.get(req_id));
        if let Some(Asked { what, .. }) = asked {
            let what = format!("{client:?} {req_id} {what:?}");
            self.wrong(at, "every command ends in time", what);
        }
    }

    pub fn pace(&mut self, at: usize, client: ClientId, pause: bool) {
        if let Some(state) = self.hosts[at].clients.get_mut(&client) {
            state.paused = pause;
        }
    }

    /// A slow client has read a line.
    pub fn drain(&mut self, at: usize, life: u32, client: ClientId) {
        if !self.alive(at, life) {
            return;
        }
        let Some(state) = self.hosts[at].clients.get_mut(&client) else { return };
        state.backlog.pop_front();
        if !state.backlog.is_empty() {
            let wait = state.slow_ms;
            self.after(wait, Ev::Drain { host: at, life, client });
        }
    }

    /// Queues a line of a slow client; false: an event that does not fit.
    fn queue(&mut self, at: usize, client: ClientId, event: bool) -> bool {
        let (life, max) = (self.hosts[at].life, self.hosts[at].client_events_max);
        let Some(state) = self.hosts[at].clients.get_mut(&client) else { return true };
        if state.slow_ms == 0 {
            return true;
        }
        if event && state.backlog.iter().filter(|event| **event).count() >= max {
            return false;
        }
        state.backlog.push_back(event);
        if state.backlog.len() == 1 {
            let wait = state.slow_ms;
            self.after(wait, Ev::Drain { host: at, life, client });
        }
        true
    }

    /// An event that may be turned away; false: it was.
    pub fn event(&mut self, at: usize, client: ClientId, line: &str) -> bool {
        if !has_room("a client's events", true) || !self.queue(at, client, true) {
            if let Some(state) = self.hosts[at].clients.get_mut(&client) {
                state.turned_away = true;
            }
            self.story(|| format!("node {at}: {client:?} is too slow for {line}"));
            return false;
        }
        self.take(at, client, line);
        true
    }

    /// A line that must not be dropped.
    pub fn line(&mut self, at: usize, client: ClientId, line: &str) {
        self.queue(at, client, false);
        self.take(at, client, line);
    }

    fn take(&mut self, at: usize, client: ClientId, line: &str) {
        self.trace.bytes(line.as_bytes());
        self.story(|| format!("node {at} => {client:?} {line}"));
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            return self.wrong(at, "a line is one JSON object", line.to_owned());
        };
        if !self.hosts[at].clients.contains_key(&client) {
            return;
        }
        match value["event"].as_str() {
            None => self.replied_to(at, client, &value),
            Some("inbound") => self.shown(at, client, &value),
            Some("slow_consumer") => {
                if let Some(state) = self.hosts[at].clients.get_mut(&client) {
                    (state.behind, state.turned_away) = (true, false);
                }
            }
            Some("presence") => self.presence_told(at, client, &value),
            Some("withdrawn") => self.promises.closed(at, text(&value, "ref")),
            Some("delivery") => {
                let (id, state) = (text(&value, "id"), text(&value, "state"));
                self.word_of(at, None, id, state);
            }
            Some(_) => {}
        }
    }

    fn replied_to(&mut self, at: usize, client: ClientId, value: &Value) {
        let now = self.now;
        let Some(state) = self.hosts[at].clients.get_mut(&client) else { return };
        if value["req_id"].is_null() && value["ok"] == false {
            // Said to the connection and not to a command: that the daemon stops, for one.
            return;
        }
        let Some(Asked { what, due_ms, cursor }) = state.asked.remove(text(value, "req_id")) else {
            return self.wrong(at, "a command has one reply", value.to_string());
        };
        let consumer = state.consumer.clone();
        let is_ok = value["ok"] == true;
        let outcome = if is_ok { "ok" } else { text(value, "error") };
        *self.report.replies.entry(outcome.to_owned()).or_default() += 1;
        if now > due_ms {
            self.wrong(at, "every command ends in time", format!("{what:?} {value}"));
        }
        if (self.calm || matches!(what, What::Outbox(_) | What::Inbox))
            && let Some(state) = self.hosts[at].clients.get_mut(&client)
        {
            state.last_reply = value.clone();
        }
        if !is_ok {
            return;
        }
        match what {
            What::Send { to, kind } => {
                let id = text(value, "msg_id").to_owned();
                if kind == "delegate"
                    && let Some(state) = self.hosts[at].clients.get_mut(&client)
                {
                    state.delegation = Some(id.clone());
                }
                let answers = &value["response"]["ref"];
                if answers.is_string() && answers != id.as_str() {
                    self.wrong(at, "an answer answers its request", value.to_string());
                }
                // Of a held delegation the state is told beside its answer, which is as good.
                if value["state"].is_string() && kind != "cancel" {
                    self.word_of(at, Some(to), &id, text(value, "state"));
                }
            }
            What::Ack(up_to) => {
                let acked = value["acked_seq"].as_u64().unwrap_or_default();
                if acked < cursor || acked < up_to {
                    let what = format!("acked {acked}, asked {up_to}, was {cursor}");
                    self.wrong(at, "cursors never go back", what);
                }
                self.promises.acked(at, &consumer, acked);
            }
            What::Inbox => self.inbox_reply(at, client, cursor, value),
            What::Reply { of, kind } => {
                if kind != "progress" && self.promises.finished(at, &of, kind, now) {
                    self.wrong(at, "one answer a request", format!("{kind} of {of}"));
                }
                if kind != "ack" && kind != "progress" {
                    self.promises.closed(at, &of);
                }
            }
            What::Invite => self.link = value["link"].as_str().map(str::to_owned),
            What::Join { to } => {
                if value["state"] == "paired" && !self.paired(at, to) {
                    let rule = "who is said to be let in is in the files of both";
                    self.wrong(at, rule, value.to_string());
                }
            }
            What::Subscribe { kept } => self.subscribed(at, client, kept),
            What::Keep => self.keeps_topics(at),
            What::Publish => self.is_published(at, value),
            What::Outbox(_) | What::Other => {}
        }
    }

    fn inbox_reply(&mut self, at: usize, client: ClientId, cursor: u64, value: &Value) {
        let mut last = cursor;
        for row in value["messages"].as_array().into_iter().flatten() {
            let seq = row["seq"].as_u64().unwrap_or_default();
            if seq <= last {
                let rule = "no row past the cursor comes twice, none before it";
                self.wrong(at, rule, format!("{seq} after {last}, the cursor stood at {cursor}"));
            }
            last = seq;
            self.row_shown(at, seq, &row["envelope"]);
            self.topic_shown(at, client, seq, &row["envelope"]);
        }
        if let Some(state) = self.hosts[at].clients.get_mut(&client) {
            state.given = state.given.max(last);
            state.behind &= value["has_more"] == true;
        }
    }

    fn shown(&mut self, at: usize, client: ClientId, value: &Value) {
        let seq = value["seq"].as_u64().unwrap_or_default();
        self.row_shown(at, seq, &value["envelope"]);
        self.topic_shown(at, client, seq, &value["envelope"]);
        if value["answer"] == true {
            return self.handed(at, client, &value["envelope"]);
        }
        let Some(state) = self.hosts[at].clients.get_mut(&client) else { return };
        let last = std::mem::replace(&mut state.last_seq, seq);
        if !state.behind {
            state.given = state.given.max(seq);
        }
        if seq <= last {
            let what = format!("{seq} after {last} to {client:?}");
            self.wrong(at, "no row comes twice on one subscription", what);
        }
    }

    /// A request is handed to an agent.
    fn handed(&mut self, at: usize, client: ClientId, envelope: &Value) {
        let (id, kind) = (text(envelope, "id").to_owned(), text(envelope, "kind").to_owned());
        if let Some(other) = self.promises.handed(at, &id, client) {
            let what = format!("{kind} {id} to {client:?}, and {other:?} has it");
            self.wrong(at, "a request is handed to one agent at a time", what);
        }
        // In a scenario all is answered, and soon.
        let sure = self.plan.scenario;
        if !sure && self.rng.chance(80) {
            return;
        }
        let mut wait = self.rng.range(1, if sure { 60 } else { 1_500 });
        let accepted = sure || self.rng.chance(900);
        let mut replies = match kind.as_str() {
            "query" => vec![("response", json!({"data":null,"summary":"s"}))],
            "delegate" => vec![("ack", json!({"accepted":accepted}))],
            _ => vec![("ack", json!({"accepted":true}))],
        };
        if kind == "delegate" && accepted && (sure || self.rng.chance(900)) {
            if sure || self.rng.chance(300) {
                replies.push(("progress", json!({"state":"running","percent":40})));
            }
            replies.push(("result", json!({"status":"completed","outcome":"o"})));
        }
        let life = self.hosts[at].life;
        for (kind, payload) in replies {
            let mut command = json!({"cmd":"reply","ref":id,"kind":kind,"payload":payload});
            if kind == "result" && (sure || self.rng.chance(300)) {
                command["hold_secs"] = self.rng.range(30, 3_600).into();
            }
            let what = What::Reply { of: id.clone(), kind };
            let say = Box::new(Say { command, what, wait_ms: REQUEST_TIMEOUT_MS + REPLY_GRACE_MS });
            self.after(wait, Ev::Say { host: at, life, client, say });
            wait += self.rng.range(1, if sure { 120 } else { 3_000 });
        }
    }

    /// A client is told what became of a message of its node.
    pub fn word_of(&mut self, at: usize, to: Option<usize>, id: &str, state: &str) {
        let to = to.or_else(|| self.promises.held_for(at, id));
        match self.promises.word(at, to, id, state) {
            Promised::Kept => {}
            Promised::Broken(rule) => {
                self.wrong(at, rule, format!("{id} for {to:?} is said to be {state}"));
            }
        }
    }
}

fn other(command: Value) -> Say {
    Say { command, what: What::Other, wait_ms: 0 }
}

/// A text in an object; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
