//! The clients of the socket: what each may say, and what it is answered.
//!
//! Source: `spec/IPC.md`. Everything here ends within one input; only `send` and `reply` may wait for a peer.

use std::sync::Arc;

use foldhash::HashMap;

use super::jobs::{End, Step};
use super::{ClientId, Effect, Node, Now, Of, Path};
use crate::agents::{Client, Speaks, Unread, Wants};
use crate::error::{IpcCode, IpcError};
use crate::family::Input as FamilyInput;
use crate::id::{AgentId, MsgId};
use crate::ipc::{Command, Line, error_line};
use crate::limits::{CONSUMER_BYTES_MAX, IPC_VERSION, LINE_BYTES_MAX};
use crate::mailbox::SCOPED;
use crate::peers::{Dial, Peer};
use crate::scope::{Right, Scope};
use crate::session::Phase;
use crate::wire::to_raw;

type Answer = Result<Arc<str>, IpcError>;

impl Node {
    #[inline(never)]
    pub(super) fn client_up(&mut self, client: ClientId, trusted: bool, socket: Option<Arc<str>>) {
        if self.stopping {
            let message = "this daemon is shutting down: connect again in a moment";
            let error = IpcError::new(IpcCode::Overloaded, message);
            self.out.push(Effect::Line { client, line: error_line("", &error), of: Of::Us });
            return self.out.push(Effect::CloseClient { client });
        }
        if self.agents.clients.len() >= self.settings.max_ipc_clients {
            let message = format!(
                "all {} client places are taken: close one, or raise max_ipc_clients in config.toml",
                self.settings.max_ipc_clients
            );
            let error = IpcError::new(IpcCode::TooManyClients, message);
            self.out.push(Effect::Line { client, line: error_line("", &error), of: Of::Us });
            return self.out.push(Effect::CloseClient { client });
        }
        let scope = socket.map(|name| {
            let scope = self.scopes.get(&name);
            // A socket that is being taken away: whoever comes by it may do nothing.
            scope.unwrap_or_else(|| Arc::new(Scope::nothing(&name)))
        });
        let mut state = Client::new(trusted);
        state.scope = scope;
        self.agents.attach(client, state);
    }

    pub(super) fn client_gone(&mut self, now: Now, client: ClientId) {
        // What it said before it went is done, whoever hears the answers.
        while let Some(state) = self.agents.clients.get_mut(&client)
            && let Some(line) = state.backlog.pop_front()
        {
            state.backlog_bytes -= line.len();
            state.reading = false;
            self.line(now, client, line);
        }
        if !self.agents.clients.contains_key(&client) {
            return;
        }
        for index in 0..self.families.len() {
            self.tell_family(now, index, FamilyInput::Advert { client, capabilities: None });
            self.tell_family(now, index, FamilyInput::ClientGone { client });
        }
        self.client_detached(now, client);
        self.give_up_requests_of(now, client);
        self.capabilities_changed(now);
        self.hand_over(now);
    }

    /// A client has closed its half: it goes once its commands are answered; one that listens or answers goes
    /// now.
    pub(super) fn client_eof(&mut self, now: Now, client: ClientId) {
        let Some(state) = self.agents.clients.get_mut(&client) else { return };
        state.leaving = true;
        let listens = state.answers().is_some() || *state.wants() != Wants::Nothing;
        let waits = state.pending > 0 || state.storing > 0 || state.reading;
        if !waits || (listens && !state.reading) {
            self.out.push(Effect::CloseClient { client });
            self.client_gone(now, client);
        }
    }

    /// A family answers a client's command later, or has answered it.
    #[inline(never)]
    pub(super) fn awaits(&mut self, now: Now, client: ClientId, waits: bool) {
        let Some(state) = self.agents.clients.get_mut(&client) else { return };
        state.pending = if waits { state.pending + 1 } else { state.pending.saturating_sub(1) };
        if !waits && state.leaving {
            self.client_eof(now, client);
        }
    }

    /// An event did not fit into the client's queue.
    pub(super) fn lagged(&mut self, client: ClientId, seq: u64) {
        let Some(state) = self.agents.clients.get_mut(&client) else { return };
        if state.speaks() != Speaks::V2 {
            // A v1 client has no inbox to read on from: losing its connection is what it can notice.
            let message =
                "you did not read fast enough and messages would be lost: connect again, with IPC version 2";
            let line = error_line("", &IpcError::new(IpcCode::SlowConsumer, message));
            self.out.push(Effect::Line { client, line, of: Of::Us });
            return self.out.push(Effect::CloseClient { client });
        }
        if !std::mem::replace(&mut state.lagging, true) {
            state.shown = state.shown.min(seq.saturating_sub(1));
            let line = Line::event("slow_consumer").field("resume_from_seq", &seq).end();
            self.out.push(Effect::Line { client, line, of: Of::Us });
        }
    }

    #[inline(never)]
    pub(super) fn line_too_long(&mut self, client: ClientId) {
        let v1 = self.agents.clients.get(&client).is_some_and(|client| client.speaks() != Speaks::V2);
        let code = if v1 { IpcCode::InvalidCommand } else { IpcCode::CommandTooLarge };
        let message =
            format!("a command is at most {LINE_BYTES_MAX} bytes long: shorten it, or send it in parts");
        self.out.push(Effect::Line {
            client,
            line: error_line("", &IpcError::new(code, message)),
            of: Of::Us,
        });
    }

    pub(super) fn line(&mut self, now: Now, client: ClientId, line: Vec<u8>) {
        if line.iter().all(u8::is_ascii_whitespace) || !self.agents.clients.contains_key(&client) {
            return;
        }
        let Some(line) = self.hold_line(client, line) else { return };
        let command = match Command::parse(&line) {
            Ok(command) => command,
            Err(error) => return self.answer_line(client, "", Err(error)),
        };
        let req_id = command.req_id();
        match self.command(now, client, &command) {
            Ok(Some(line)) => self.out.push(Effect::Line { client, line, of: Of::Us }),
            // It is answered, or will be.
            Ok(None) => {}
            Err(error) => {
                let closes = matches!(error.code, IpcCode::HelloRequired | IpcCode::UnsupportedVersion)
                    && !self.settings.allow_v1;
                self.answer_line(client, req_id, Err(error));
                if closes {
                    self.out.push(Effect::CloseClient { client });
                }
            }
        }
    }

    /// `{"ok":true,…}` with the id of the message that a command led to.
    pub(super) fn ok_line(&mut self, req_id: &str, id: &MsgId) -> Arc<str> {
        Line::ok_in(self.scratch.take(), req_id).id("msg_id", id).end_in(&mut self.scratch)
    }

    /// Answers a client's command.
    pub(super) fn answer_line(&mut self, client: ClientId, req_id: &str, answer: Answer) {
        self.answer_of(client, req_id, answer, Of::Us);
    }

    /// Answers a client's command, perhaps in the words of a peer.
    pub(super) fn answer_of(&mut self, client: ClientId, req_id: &str, answer: Answer, of: Of) {
        if self.agents.clients.contains_key(&client) {
            let line = answer.unwrap_or_else(|error| error_line(req_id, &error));
            self.out.push(Effect::Line { client, line, of });
        }
    }

    /// Serves one command; none is answered later.
    fn command(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<Option<Arc<str>>, IpcError> {
        let name = command.name()?;
        let Some(state) = self.agents.clients.get(&client) else { return Ok(None) };
        let (speaks, trusted) = (state.speaks(), state.trusted);
        match &*name {
            "auth" if self.scope_of(client).is_none() => return self.auth(client, command).map(Some),
            "hello" => return self.client_hello(now, client, command).map(Some),
            _ if !trusted => {
                let message = "this system does not tell who you are: send `auth` with the token of <root>/ipc-token first";
                return Err(IpcError::new(IpcCode::AuthRequired, message));
            }
            _ => {}
        }
        if speaks != Speaks::V2 {
            let known = V1_COMMANDS.contains(&&*name);
            if self.scope_of(client).is_some() || !self.settings.allow_v1 || (!known && is_v2(&name)) {
                let message = "begin with {\"cmd\":\"hello\",\"req_id\":\"1\",\"version\":2}";
                return Err(IpcError::new(IpcCode::HelloRequired, message));
            }
            if speaks != Speaks::V1 {
                self.agents.set_speaks(client, Speaks::V1);
            }
        } else if command.req_id().is_empty() && (is_v2(&name) || V1_COMMANDS.contains(&&*name)) {
            let message =
                "the field `req_id` is missing or no text or number of at most 128 bytes, quotes counted";
            return Err(IpcError::invalid(message));
        }
        self.within_scope(now, client, &name, command)?;
        if let Some(answer) = self.owner_command(now, client, &name, command) {
            return answer;
        }
        match &*name {
            "send" => self.send(now, client, command, speaks != Speaks::V2).map(|()| None),
            "peers" => self.peers_command(client, command).map(|()| None),
            "status" => {
                self.status_command(client, command.req_id());
                Ok(None)
            }
            "whoami" => Ok(Some(self.whoami(now, command.req_id()))),
            "reply" => self.reply(now, client, command).map(|()| None),
            "subscribe" => self.subscribe(now, client, command).map(|()| None),
            "inbox" => self.inbox(client, command).map(|()| None),
            "ack" => self.ack(client, command).map(|()| None),
            "advertise" => self.advertise(now, client, command).map(|()| None),
            "outbox" => self.outbox_command(now, client, command).map(|()| None),
            other => {
                if let Some(answer) = self.family_command(now, client, other, command) {
                    return answer.map(|()| None);
                }
                let other: String = other.chars().take(40).collect();
                let known = [V2_COMMANDS, OWNER_COMMANDS].concat().join(", ");
                Err(IpcError::invalid(format!(
                    "no command is called \"{other}\"; known: send, peers, status, {known}"
                )))
            }
        }
    }

    /// A command about who may talk, which the owner alone may give.
    fn owner_command(
        &mut self,
        now: Now,
        client: ClientId,
        name: &str,
        command: &Command<'_>,
    ) -> Option<Result<Option<Arc<str>>, IpcError>> {
        let req_id = command.req_id();
        let later = |done: Result<(), IpcError>| Some(done.map(|()| None));
        match name {
            "invites" => Some(Ok(Some(self.invites_list(req_id)))),
            "knocks" => {
                let line = self.knocks_list(req_id);
                self.answer_of(client, req_id, Ok(line), Of::Several);
                Some(Ok(None))
            }
            "contacts" => Some(Ok(Some(self.contacts_list(now, req_id)))),
            "sockets" => Some(Ok(Some(self.sockets_list(req_id)))),
            "policy_check" => Some(self.policy_check(now, command).map(Some)),
            _ if !OWNER_COMMANDS.contains(&name) => None,
            _ if self.stopping => {
                let message = "this daemon is shutting down: try again in a moment";
                Some(Err(IpcError::new(IpcCode::Overloaded, message)))
            }
            "invite" => later(self.invite(now, client, command)),
            "revoke_invite" => later(self.revoke_invite(now, client, command)),
            "connect" => later(self.connect(now, client, command)),
            "approve" => later(self.approve(now, client, command)),
            "deny" => later(self.deny(now, client, command)),
            "trust" => later(self.trust(now, client, command)),
            "forget" => later(self.forget(now, client, command)),
            "pause" => later(self.pause(now, client, command, true)),
            "resume" => later(self.pause(now, client, command, false)),
            "rekey" => later(self.rekey(now, client, command)),
            "socket_add" => later(self.socket_put(now, client, command, true)),
            "socket_set" => later(self.socket_put(now, client, command, false)),
            "socket_remove" => later(self.socket_remove(now, client, command)),
            "reload" => {
                let line = Line::ok(req_id).field("reloaded", &true).end();
                let end = End::Line { client, req_id: req_id.to_owned(), line };
                self.begin(now, [Step::Reload], end);
                Some(Ok(None))
            }
            _ => None,
        }
    }

    /// A command that is a family's own.
    fn family_command(
        &mut self,
        now: Now,
        client: ClientId,
        name: &str,
        command: &Command<'_>,
    ) -> Option<Result<(), IpcError>> {
        (0..self.families.len()).find_map(|index| {
            let mut answer = None;
            self.with_family(now, index, |family, cx| answer = family.command(client, name, command, cx));
            answer
        })
    }

    // --- who the client is ---

    fn auth(&mut self, client: ClientId, command: &Command<'_>) -> Answer {
        let trusted = self.agents.clients.get(&client).is_some_and(|client| client.trusted);
        let given = match command.token::<String>()? {
            None if !trusted => return Err(IpcError::invalid("the field `token` is missing")),
            given => given.unwrap_or_default(),
        };
        let right = self.settings.ipc_token.as_deref().is_some_and(|token| same(token, &given));
        if !trusted && !right {
            let message = "the token is wrong: read it from <root>/ipc-token, 64 hexadecimal digits";
            return Err(IpcError::new(IpcCode::AuthFailed, message));
        }
        if let Some(state) = self.agents.clients.get_mut(&client) {
            state.trusted = true;
        }
        Ok(Line::ok(command.req_id()).field("auth", "accepted").end())
    }

    fn client_hello(&mut self, now: Now, client: ClientId, command: &Command<'_>) -> Answer {
        // A version that is higher than any is served all the same, by the highest there is.
        let version = command.version::<u64>()?.unwrap_or(0);
        let version = u32::try_from(version).unwrap_or(u32::MAX);
        if version < 2 && (version == 0 || !self.settings.allow_v1) {
            let message = format!("IPC version {version} is not served: ask for version {IPC_VERSION}");
            return Err(IpcError::new(IpcCode::UnsupportedVersion, message));
        }
        let consumer = command.consumer::<String>()?.unwrap_or_else(|| "default".into());
        if consumer.is_empty() || consumer.len() > CONSUMER_BYTES_MAX {
            return Err(IpcError::invalid(format!(
                "the field `consumer` is a text of 1 to {CONSUMER_BYTES_MAX} bytes"
            )));
        }
        if consumer.contains(char::is_control) {
            return Err(IpcError::invalid("the field `consumer` has no control characters"));
        }
        // A scoped socket reads for itself alone, whatever its agent calls itself.
        let consumer = match self.scope_of(client) {
            Some(scope) => format!("{SCOPED}{}", scope.name),
            None => consumer,
        };
        let version = version.min(IPC_VERSION);
        let names: Vec<Arc<str>> =
            self.agents.clients.values().map(|client| client.consumer.clone()).collect();
        let (acked, gone) = self.mailbox.open(&consumer, |name| names.iter().any(|used| &**used == name));
        self.note(gone);
        self.agents.set_speaks(client, if version >= 2 { Speaks::V2 } else { Speaks::V1 });
        if let Some(state) = self.agents.clients.get_mut(&client) {
            state.consumer = consumer.into();
            state.shown = acked;
        }
        self.recall_given(client);
        for index in 0..self.families.len() {
            self.tell_family(now, index, FamilyInput::ClientHello { client });
        }
        let durable = self.settings.durable.then_some(&"durable");
        let families =
            [(self.settings.topics.enabled, &"topics"), (self.settings.presence.enabled, &"presence")];
        let on = families.into_iter().filter(|(enabled, _)| *enabled).map(|(_, name)| name);
        let features: Vec<&str> = IPC_FEATURES.iter().chain(durable).chain(on).copied().collect();
        Ok(Line::ok(command.req_id())
            .field("version", &version)
            .field("daemon_max_version", &IPC_VERSION)
            .field("agent_id", &self.me)
            .field("features", &features)
            .field("daemon_version", self.version)
            .end())
    }

    // --- what there is to know ---

    fn whoami(&self, now: Now, req_id: &str) -> Arc<str> {
        Line::ok(req_id)
            .field("agent_id", &self.me)
            .field("public_key", &self.key)
            .maybe("name", self.settings.name.as_ref())
            .field("version", self.version)
            .field("ipc_version", &IPC_VERSION)
            .field("uptime_secs", &self.uptime_secs(now))
            .field("listen", &self.listen)
            .field("pid", &self.pid)
            .maybe("root", self.root.as_ref())
            .end()
    }

    pub(super) fn uptime_secs(&self, now: Now) -> u64 {
        self.started.map_or(0, |started| now.mono_ms.saturating_sub(started.mono_ms) / 1_000)
    }

    pub(super) fn status(&self, now: Now, unread: u64, req_id: &str) -> Arc<str> {
        let mut up: Vec<AgentId> =
            self.sessions.iter().filter(|s| s.phase == Phase::Up).map(|session| session.peer).collect();
        up.sort_unstable();
        up.dedup();
        let line = Line::ok(req_id)
            .field("uptime_secs", &self.uptime_secs(now))
            .field("peers_connected", &up.len())
            .field("messages_sent", &self.sent)
            .field("messages_received", &self.received)
            .field("clients", &self.agents.clients.len())
            .field("answerers", &self.agents.answerers())
            .field("active_tasks", &self.agents.active_tasks())
            .field("capacity", &self.agents.capacity())
            .field("open_requests", &self.agents.open_count())
            .field("queued", &self.agents.queued_count())
            .field("inbox_unread", &unread)
            .field("held", &self.outbox.held())
            .field("paused", &self.peers.contacts().paused())
            .field("set_aside", &self.aside_count())
            .field("knocks", &self.pairing.knocks.iter().count())
            .field("invites", &self.pairing.invites.iter().count())
            .field("strangers", &self.sessions.iter().filter(|session| session.is_stranger).count())
            .field("dropped", &self.dropped);
        let added = self.families.iter().filter_map(|family| family.status());
        added.fold(line, |line, (name, json)| line.raw(name, &json)).end()
    }

    #[inline(never)]
    pub(super) fn measured(&mut self, now: Now, client: ClientId, req_id: &str, rtts: &[Path]) {
        let scope = self.scope_of(client);
        let state = self.agents.clients.get_mut(&client);
        let counted = state.and_then(|state| state.unread.take_if(|counted| counted.req_id == req_id));
        // What a scoped socket did not send is no matter of its own.
        let held = match &scope {
            None => None,
            Some(scope) if scope.may(Right::Send) => Some(self.outbox.held_for(&of_scope(scope))),
            Some(_) => Some(HashMap::default()),
        };
        let held = |peer: AgentId| match &held {
            None => self.outbox.waiting_for(peer),
            Some(own) => own.get(&peer).copied().unwrap_or(0),
        };
        let seen = |peer: &&Peer| scope.as_ref().is_none_or(|scope| scope.sees_peer(peer.id));
        let row = |peer: &Peer| self.peer_row(peer, rtts, held(peer.id), counted.as_deref());
        let rows: Vec<String> = self.peers.iter().filter(seen).map(row).collect();
        let line = Line::ok(req_id).raw("peers", &format!("[{}]", rows.join(",")));
        let more = counted.as_ref().is_some_and(|counted| counted.more);
        let line = if more { line.flag("unread_more", true) } else { line };
        // What they call themselves, and why they went, are their words.
        self.answer_of(client, req_id, Ok(line.end()), Of::Several);
        if counted.is_some() {
            self.resume(now, client);
        }
    }

    fn peer_row(&self, peer: &Peer, rtts: &[Path], held: usize, counted: Option<&Unread>) -> String {
        let conn = self.best_session(peer.id);
        let session = conn.and_then(|conn| self.sessions.get(conn));
        let status = match (session, peer.dial) {
            (Some(_), _) => "connected",
            (None, Dial::Under { .. }) => "connecting",
            (None, Dial::Idle { .. }) => "disconnected",
        };
        let path = conn.and_then(|conn| rtts.iter().find(|path| path.conn == conn));
        #[expect(clippy::cast_precision_loss, reason = "a round trip in microseconds is far below 2^52")]
        let rtt_ms = path.map(|path| path.rtt_us as f64 / 1_000.0);
        let now_at = path.map(|path| path.addr).or(session.map(|session| session.addr));
        let addr = now_at.map(|addr| addr.to_string()).or_else(|| peer.addrs().into_iter().next());
        let name = peer.name.as_ref().or(peer.claimed_name.as_ref());
        let mut row = serde_json::Map::new();
        row.insert("id".into(), peer.id.to_string().into());
        if let Some(name) = name {
            row.insert("name".into(), name.clone().into());
            if peer.name.is_none() {
                row.insert("claimed".into(), true.into());
            }
        }
        row.insert("trust".into(), peer.level.as_str().into());
        if self.peers.is_paused(peer.id) {
            row.insert("paused".into(), true.into());
        }
        row.insert("addr".into(), addr.into());
        row.insert("status".into(), status.into());
        row.insert("rtt_ms".into(), rtt_ms.into());
        row.insert("source".into(), peer.source.as_str().into());
        if let Some(session) = session {
            row.insert("since_ms".into(), session.since_wall_ms.into());
            row.insert("features".into(), session.features.clone().into());
            if session.early {
                row.insert("early".into(), true.into());
            }
        } else if let Some(error) = &peer.error {
            row.insert("error".into(), error.clone().into());
        }
        if held > 0 {
            row.insert("held".into(), held.into());
        }
        if let Some(counted) = counted {
            row.insert("unread".into(), counted.of.get(&peer.id).copied().unwrap_or(0).into());
        }
        to_raw(&row).get().to_owned()
    }
}

/// Commands that need no hello.
const V1_COMMANDS: &[&str] = &["send", "peers", "status"];

/// Commands that need a hello of version 2.
const V2_COMMANDS: &[&str] = &[
    "whoami",
    "reply",
    "subscribe",
    "inbox",
    "ack",
    "outbox",
    "delegations",
    "advertise",
    "auth",
    "hello",
    "presence",
    "set_presence",
    "subscribe_presence",
    "who",
    "find",
    "subscribe_topic",
    "unsubscribe_topic",
    "publish",
    "topics",
    "topic_peers",
];

/// Commands about who may talk; they need a hello of version 2, on the main socket.
const OWNER_COMMANDS: &[&str] = &[
    "invite",
    "invites",
    "revoke_invite",
    "connect",
    "knocks",
    "approve",
    "deny",
    "trust",
    "contacts",
    "forget",
    "policy_check",
    "pause",
    "resume",
    "rekey",
    "sockets",
    "socket_add",
    "socket_set",
    "socket_remove",
    "reload",
    "topic_keep",
];

/// What this socket can do beyond version 1.
const IPC_FEATURES: &[&str] =
    &["buffer", "subscribe", "auth", "answer", "advertise", "outbox", "delegations", "trust", "sockets"];

pub(super) fn is_v2(name: &str) -> bool {
    V2_COMMANDS.contains(&name) || OWNER_COMMANDS.contains(&name)
}

/// The consumer of a scoped socket, as its messages in the outbox are marked.
fn of_scope(scope: &Scope) -> String {
    format!("{SCOPED}{}", scope.name)
}

/// Compares two texts in a time that depends on their length only.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}
