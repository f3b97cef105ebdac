//! The clients of the socket: what each may say, and what it is answered.
//!
//! Source: `spec/IPC.md`. Everything here ends within one input; only `send` and `reply` may wait for a peer.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::outgoing::Origin;
use super::{ClientId, ConnId, Effect, Node, Now};
use crate::agents::{Answers, Client, Speaks, Wants};
use crate::error::{IpcCode, IpcError};
use crate::family::{Ended, Input as FamilyInput, Pattern, Sendable};
use crate::id::{AgentId, MsgId};
use crate::ipc::{Command, Line, error_line, inbound_line, row_json};
use crate::kinds::core::wait_ms;
use crate::limits::{
    CAPABILITIES_BYTES_MAX, CAPACITY_DEFAULT, CAPACITY_MAX, CLIENT_PENDING_MAX, CLIENT_QUEUE_BYTES_MAX,
    CONSUMER_BYTES_MAX, DOMAIN_BYTES_MAX, INBOX_LIMIT_DEFAULT, INBOX_LIMIT_MAX, INBOX_REPLY_BYTES_MAX,
    IPC_VERSION, KIND_BYTES_MAX, LINE_BYTES_MAX, PENDING_MAX, REPLAY_EVENTS_MAX, REPLY_GRACE_MS,
    REQUEST_TIMEOUT_MS, SUBSCRIPTION_NAMES_MAX,
};
use crate::peers::Dial;
use crate::session::Phase;
use crate::wire::{raw_json, to_raw};

type Answer = Result<Arc<str>, IpcError>;

impl Node {
    pub(super) fn client_up(&mut self, client: ClientId, trusted: bool) {
        if self.stopping {
            let message = "this daemon is shutting down: connect again in a moment";
            let error = IpcError::new(IpcCode::Overloaded, message);
            self.out.push(Effect::Line { client, line: error_line("", &error) });
            return self.out.push(Effect::CloseClient { client });
        }
        if self.agents.clients.len() >= self.settings.max_ipc_clients {
            let message = format!(
                "all {} client places are taken: close one, or raise max_ipc_clients in config.toml",
                self.settings.max_ipc_clients
            );
            let error = IpcError::new(IpcCode::TooManyClients, message);
            self.out.push(Effect::Line { client, line: error_line("", &error) });
            return self.out.push(Effect::CloseClient { client });
        }
        self.agents.clients.insert(client, Client::new(trusted));
    }

    pub(super) fn client_gone(&mut self, now: Now, client: ClientId) {
        if !self.agents.clients.contains_key(&client) {
            return;
        }
        for index in 0..self.families.len() {
            self.tell_family(now, index, FamilyInput::Advert { client, capabilities: None });
        }
        self.client_detached(now, client);
        self.give_up_requests_of(now, client);
        self.hand_over(now);
    }

    /// A client has closed its half: it goes once its commands are answered; one that listens or answers goes
    /// now.
    pub(super) fn client_eof(&mut self, now: Now, client: ClientId) {
        let Some(state) = self.agents.clients.get_mut(&client) else { return };
        state.leaving = true;
        let listens = state.answers.is_some() || state.wants != Wants::Nothing;
        if state.pending == 0 || listens {
            self.out.push(Effect::CloseClient { client });
            self.client_gone(now, client);
        }
    }

    /// An event did not fit into the client's queue.
    pub(super) fn lagged(&mut self, client: ClientId, seq: u64) {
        let Some(state) = self.agents.clients.get_mut(&client) else { return };
        if state.speaks != Speaks::V2 {
            // A v1 client has no inbox to read on from: losing its connection is what it can notice.
            let message =
                "you did not read fast enough and messages would be lost: connect again, with IPC version 2";
            let line = error_line("", &IpcError::new(IpcCode::SlowConsumer, message));
            self.out.push(Effect::Line { client, line });
            return self.out.push(Effect::CloseClient { client });
        }
        if !std::mem::replace(&mut state.lagging, true) {
            state.shown = state.shown.min(seq.saturating_sub(1));
            let line = Line::event("slow_consumer").field("resume_from_seq", &seq).end();
            self.out.push(Effect::Line { client, line });
        }
    }

    pub(super) fn line_too_long(&mut self, client: ClientId) {
        let v1 = self.agents.clients.get(&client).is_some_and(|client| client.speaks != Speaks::V2);
        let code = if v1 { IpcCode::InvalidCommand } else { IpcCode::CommandTooLarge };
        let message =
            format!("a command is at most {LINE_BYTES_MAX} bytes long: shorten it, or send it in parts");
        self.out.push(Effect::Line { client, line: error_line("", &IpcError::new(code, message)) });
    }

    pub(super) fn line(&mut self, now: Now, client: ClientId, line: &[u8]) {
        if line.iter().all(u8::is_ascii_whitespace) || !self.agents.clients.contains_key(&client) {
            return;
        }
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(error) => return self.answer_line(client, "", Err(error)),
        };
        let req_id = command.req_id();
        match self.command(now, client, &command) {
            Ok(Some(line)) => self.out.push(Effect::Line { client, line }),
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

    /// Answers a client's command.
    pub(super) fn answer_line(&mut self, client: ClientId, req_id: &str, answer: Answer) {
        if self.agents.clients.contains_key(&client) {
            let line = answer.unwrap_or_else(|error| error_line(req_id, &error));
            self.out.push(Effect::Line { client, line });
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
        let (speaks, trusted) = (state.speaks, state.trusted);
        match &*name {
            "auth" => return self.auth(client, command).map(Some),
            "hello" => return self.client_hello(client, command).map(Some),
            _ if !trusted => {
                let message = "this system does not tell who you are: send `auth` with the token of <root>/ipc-token first";
                return Err(IpcError::new(IpcCode::AuthRequired, message));
            }
            _ => {}
        }
        if speaks != Speaks::V2 {
            let known = V1_COMMANDS.contains(&&*name);
            if !self.settings.allow_v1 || (!known && V2_COMMANDS.contains(&&*name)) {
                let message = "begin with {\"cmd\":\"hello\",\"req_id\":\"1\",\"version\":2}";
                return Err(IpcError::new(IpcCode::HelloRequired, message));
            }
            if let Some(state) = self.agents.clients.get_mut(&client) {
                state.speaks = Speaks::V1;
            }
        } else if command.req_id().is_empty()
            && (V2_COMMANDS.contains(&&*name) || V1_COMMANDS.contains(&&*name))
        {
            let message =
                "the field `req_id` is missing or no text or number of at most 128 bytes, quotes counted";
            return Err(IpcError::invalid(message));
        }
        match &*name {
            "send" => self.send(now, client, command, speaks != Speaks::V2).map(|()| None),
            "peers" => {
                let (req_id, conns) = (command.req_id().to_owned(), self.sessions.keys().copied().collect());
                self.out.push(Effect::Measure { client, req_id, conns });
                Ok(None)
            }
            "status" => Ok(Some(self.status(now, client, command.req_id()))),
            "whoami" => Ok(Some(self.whoami(now, command.req_id()))),
            "reply" => self.reply(now, client, command).map(|()| None),
            "subscribe" => self.subscribe(now, client, command).map(|()| None),
            "inbox" => self.inbox(now, client, command).map(Some),
            "ack" => self.ack(client, command).map(Some),
            "advertise" => self.advertise(now, client, command).map(Some),
            other => {
                let other: String = other.chars().take(40).collect();
                let known = V2_COMMANDS.join(", ");
                Err(IpcError::invalid(format!(
                    "no command is called \"{other}\"; known: send, peers, status, {known}"
                )))
            }
        }
    }

    // --- who the client is ---

    fn auth(&mut self, client: ClientId, command: &Command<'_>) -> Answer {
        let given = command.token::<String>()?.unwrap_or_default();
        let trusted = self.agents.clients.get(&client).is_some_and(|client| client.trusted);
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

    fn client_hello(&mut self, client: ClientId, command: &Command<'_>) -> Answer {
        let version = command.version::<u32>()?.unwrap_or(0);
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
        let version = version.min(IPC_VERSION);
        let names: Vec<Arc<str>> =
            self.agents.clients.values().map(|client| client.consumer.clone()).collect();
        let acked = self.mailbox.open(&consumer, |name| names.iter().any(|used| &**used == name));
        if let Some(state) = self.agents.clients.get_mut(&client) {
            state.speaks = if version >= 2 { Speaks::V2 } else { Speaks::V1 };
            state.consumer = consumer.into();
            state.shown = acked;
        }
        Ok(Line::ok(command.req_id())
            .field("version", &version)
            .field("daemon_max_version", &IPC_VERSION)
            .field("agent_id", &self.me)
            .field("features", IPC_FEATURES)
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

    fn uptime_secs(&self, now: Now) -> u64 {
        self.started.map_or(0, |started| now.mono_ms.saturating_sub(started.mono_ms) / 1_000)
    }

    fn status(&self, now: Now, client: ClientId, req_id: &str) -> Arc<str> {
        let consumer =
            self.agents.clients.get(&client).map(|client| client.consumer.clone()).unwrap_or_default();
        let unread = self.mailbox.after(self.mailbox.acked(&consumer)).count();
        let mut up: Vec<AgentId> =
            self.sessions.values().filter(|s| s.phase == Phase::Up).map(|session| session.peer).collect();
        up.sort_unstable();
        up.dedup();
        Line::ok(req_id)
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
            .field("dropped", &self.dropped)
            .end()
    }

    pub(super) fn measured(&mut self, client: ClientId, req_id: &str, rtts: &[(ConnId, u64)]) {
        let rows: Vec<String> = self.peers.iter().map(|peer| self.peer_row(peer, rtts)).collect();
        let line = Line::ok(req_id).raw("peers", &format!("[{}]", rows.join(","))).end();
        self.answer_line(client, req_id, Ok(line));
    }

    fn peer_row(&self, peer: &crate::peers::Peer, rtts: &[(ConnId, u64)]) -> String {
        let conn = self.best_session(peer.id);
        let session = conn.and_then(|conn| self.sessions.get(&conn));
        let status = match (session, peer.dial) {
            (Some(_), _) => "connected",
            (None, Dial::Under { .. }) => "connecting",
            (None, Dial::Idle { .. }) => "disconnected",
        };
        let rtt_us = conn.and_then(|conn| rtts.iter().find(|(of, _)| *of == conn)).map(|(_, rtt)| *rtt);
        #[expect(clippy::cast_precision_loss, reason = "a round trip in microseconds is far below 2^52")]
        let rtt_ms = rtt_us.map(|us| us as f64 / 1_000.0);
        let addr =
            session.map(|session| session.addr.to_string()).or_else(|| peer.addrs().into_iter().next());
        let name = peer.name.as_ref().or(peer.claimed_name.as_ref());
        let mut row = serde_json::Map::new();
        row.insert("id".into(), peer.id.to_string().into());
        if let Some(name) = name {
            row.insert("name".into(), name.clone().into());
            if peer.name.is_none() {
                row.insert("claimed".into(), true.into());
            }
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
        to_raw(&row).get().to_owned()
    }

    // --- messages out ---

    fn send(&mut self, now: Now, client: ClientId, command: &Command<'_>, v1: bool) -> Result<(), IpcError> {
        let name = required("kind", command.kind::<String>()?)?;
        let Some((index, kind)) =
            self.kinds.get(&*name).copied().filter(|(_, k)| k.sendable == Sendable::Yes)
        else {
            return Err(self.not_sendable(&name));
        };
        let reference = msg_id("ref", command.reference::<String>()?)?;
        if kind.name == "cancel" && reference.is_none() {
            return Err(IpcError::invalid(
                "the field `ref` is missing: give the id of the delegation to cancel",
            ));
        }
        let to = match (command.to::<String>()?, reference) {
            (Some(to), _) => self.peers.resolve(&to).map_err(|error| {
                let own = self.settings.name.as_ref() == Some(&to) && error.code == IpcCode::PeerNotFound;
                let message =
                    "this is your own agent's name: send to another, `axon peers` lists those known";
                if own { IpcError::new(IpcCode::SelfSend, message) } else { error }
            })?,
            (None, Some(id)) if kind.name == "cancel" => {
                let family = self.families.get(index);
                family.and_then(|family| family.peer_of(id)).ok_or_else(|| {
                    IpcError::new(
                        IpcCode::NotFound,
                        "no delegation of that id was sent from here: check the id",
                    )
                })?
            }
            _ => {
                return Err(IpcError::invalid("the field `to` is missing: give a peer's id, prefix or name"));
            }
        };
        let work_at = reference.and_then(|id| self.families.get(index)?.peer_of(id));
        if kind.name == "cancel" && work_at.is_some_and(|peer| peer != to) {
            return Err(IpcError::invalid("that delegation went to another peer: leave out the field `to`"));
        }
        let payload = command.payload()?;
        (kind.check)(payload.get()).map_err(IpcError::invalid)?;
        if self.stopping {
            let message = "this daemon is shutting down: try again in a moment";
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        self.room_for_pending(client)?;
        let asked = command.deadline_ms::<u64>()?.filter(|ms| *ms > 0);
        let own = payload_deadline(payload.get());
        let wait = match kind.name {
            "query" => asked.unwrap_or(u64::MAX).min(wait_ms(own)),
            _ => asked.unwrap_or(REQUEST_TIMEOUT_MS).min(own.unwrap_or(u64::MAX)).min(REQUEST_TIMEOUT_MS),
        };
        let envelope = self
            .envelope(now, to, kind.name, reference, &payload)
            .map_err(|error| IpcError::new(IpcCode::MessageTooLarge, error.to_string()))?;
        self.tell_family(now, index, FamilyInput::Sending { envelope: &envelope });
        let origin = Origin::Command { client, req_id: command.req_id().to_owned(), v1 };
        self.submit(now, envelope, kind, origin, wait.saturating_add(REPLY_GRACE_MS));
        Ok(())
    }

    fn room_for_pending(&self, client: ClientId) -> Result<(), IpcError> {
        let own = self.agents.clients.get(&client).map_or(0, |client| client.pending);
        if own >= CLIENT_PENDING_MAX || self.pending_count() >= PENDING_MAX {
            let message =
                format!("{own} commands of yours wait for a peer already: wait for an answer first");
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        Ok(())
    }

    fn not_sendable(&self, name: &str) -> IpcError {
        let kinds = self.families.iter().flat_map(|family| family.vocabulary().kinds);
        let sendable: Vec<&str> =
            kinds.filter(|kind| kind.sendable == Sendable::Yes).map(|kind| kind.name).collect();
        let known = self.kinds.contains_key(name);
        let what = if known { "is never begun by `send`: answers go by `reply`" } else { "is not known" };
        let name: String = name.chars().take(KIND_BYTES_MAX).collect();
        IpcError::invalid(format!("the kind \"{name}\" {what}; kinds to send: {}", sendable.join(", ")))
    }

    fn reply(&mut self, now: Now, client: ClientId, command: &Command<'_>) -> Result<(), IpcError> {
        let id = msg_id("ref", command.reference::<String>()?)?;
        let id =
            id.ok_or_else(|| IpcError::invalid("the field `ref` is missing: give the id of the request"))?;
        let kind = required("kind", command.kind::<String>()?)?;
        let payload = command.payload()?;
        let Some(open) = self.agents.get(id).cloned() else {
            return Err(match self.agents.closed(id).map(|closed| closed.ended) {
                Some(Ended::Answered) => IpcError::new(
                    IpcCode::AlreadyAnswered,
                    "this request has been answered: nothing is left to do",
                ),
                Some(Ended::Timeout) => {
                    IpcError::new(IpcCode::Timeout, "the deadline of this request has passed: drop it")
                }
                Some(Ended::Cancelled | Ended::PeerGone) => IpcError::new(
                    IpcCode::NotFound,
                    "this request was cancelled or its sender went away: drop it",
                ),
                None => IpcError::new(IpcCode::NotFound, "no request of that id is open here: check the id"),
            });
        };
        let Pattern::Request { replies, later } = open.kind.pattern else {
            return Err(IpcError::invalid("that message takes no reply"));
        };
        if !replies.contains(&&*kind) && !later.contains(&&*kind) {
            let allowed: Vec<&str> = replies.iter().chain(later).copied().collect();
            let message =
                format!("a {} is answered by {}, not by \"{kind}\"", open.kind.name, allowed.join(", "));
            return Err(IpcError::invalid(message));
        }
        if open.finishing {
            let message = "the last word on this request is on its way: nothing is left to do";
            return Err(IpcError::new(IpcCode::AlreadyAnswered, message));
        }
        self.room_for_pending(client)?;
        let payload = complete(&kind, &payload);
        if let Some((_, spec)) = self.kinds.get(&*kind) {
            (spec.check)(payload.get()).map_err(IpcError::invalid)?;
        }
        let from = open.inbound.envelope.from;
        self.envelope(now, from, &kind, Some(id), &payload)
            .map_err(|error| IpcError::new(IpcCode::MessageTooLarge, error.to_string()))?;
        if let Some((index, _)) = self.kinds.get(open.kind.name).copied() {
            let req_id = command.req_id();
            let said =
                FamilyInput::AgentReply { client, req_id, open: &open, kind: &kind, payload: &payload };
            self.tell_family(now, index, said);
        }
        Ok(())
    }

    // --- messages in ---

    fn subscribe(&mut self, now: Now, client: ClientId, command: &Command<'_>) -> Result<(), IpcError> {
        let kinds = names("kinds", command.kinds::<Vec<String>>()?, KIND_BYTES_MAX)?;
        let answer = names("answer", command.answer::<Vec<String>>()?, KIND_BYTES_MAX)?;
        let domains = names("domains", command.domains::<Vec<String>>()?, DOMAIN_BYTES_MAX)?;
        let capacity = command.capacity::<u32>()?.unwrap_or(CAPACITY_DEFAULT);
        let lease = command.lease::<bool>()?.unwrap_or(false);
        let replay = command.replay::<bool>()?.unwrap_or(true);
        if !(1..=CAPACITY_MAX).contains(&capacity) {
            return Err(IpcError::invalid(format!(
                "the field `capacity` is a number from 1 to {CAPACITY_MAX}"
            )));
        }
        for kind in answer.iter().flatten() {
            if !ANSWERABLE.contains(&kind.as_str()) {
                let message =
                    format!("the field `answer` lists any of {}, not \"{kind}\"", ANSWERABLE.join(", "));
                return Err(IpcError::invalid(message));
            }
        }
        let answers = answer.map(|kinds| Answers { kinds, domains, capacity, lease });
        let wants = match (kinds, &answers) {
            (Some(kinds), _) => Wants::Kinds(kinds),
            (None, Some(_)) => Wants::Nothing,
            (None, None) => Wants::All,
        };
        let Some(state) = self.agents.clients.get_mut(&client) else { return Ok(()) };
        state.answers = answers;
        state.wants = wants;
        state.lagging = false;
        self.replay(client, command.req_id(), replay);
        let mut acts = VecDeque::new();
        self.recheck_waiting(now, &mut acts);
        while let Some(act) = acts.pop_front() {
            self.carry_out(now, act, &mut acts);
        }
        self.hand_over(now);
        Ok(())
    }

    /// Shows a new subscriber what it has not read, then says that live events follow.
    fn replay(&mut self, client: ClientId, req_id: &str, replay: bool) {
        let Some(state) = self.agents.clients.get_mut(&client) else { return };
        let acked = self.mailbox.acked(&state.consumer);
        let newest = self.mailbox.next_seq() - 1;
        let mut replayed = 0;
        let mut replayed_to = acked;
        let mut rest = None;
        let mut bytes = 0;
        if replay {
            for row in self.mailbox.after(acked).filter(|row| state.wants.wants(&row.envelope.kind)) {
                bytes += row.envelope.raw().len();
                if replayed >= REPLAY_EVENTS_MAX || (replayed > 0 && bytes > CLIENT_QUEUE_BYTES_MAX) {
                    rest = Some(row.seq);
                    break;
                }
                let line = inbound_line(row, true);
                self.out.push(Effect::Line { client, line });
                replayed += 1;
                replayed_to = row.seq;
            }
        }
        state.shown = if rest.is_some() { replayed_to } else { newest };
        if replayed > 0 {
            self.mailbox.note_delivered(&state.consumer, replayed_to);
        }
        let line = Line::ok(req_id).field("subscribed", &true).field("replayed", &replayed);
        self.out.push(Effect::Line { client, line: line.field("replay_to_seq", &replayed_to).end() });
        if let Some(seq) = rest {
            state.lagging = true;
            let line = Line::event("slow_consumer").field("resume_from_seq", &seq).end();
            self.out.push(Effect::Line { client, line });
        }
    }

    fn inbox(&mut self, now: Now, client: ClientId, command: &Command<'_>) -> Answer {
        let limit = command.limit::<u64>()?.unwrap_or(INBOX_LIMIT_DEFAULT);
        if !(1..=INBOX_LIMIT_MAX).contains(&limit) {
            return Err(IpcError::invalid(format!(
                "the field `limit` is a number from 1 to {INBOX_LIMIT_MAX}"
            )));
        }
        let kinds = names("kinds", command.kinds::<Vec<String>>()?, KIND_BYTES_MAX)?;
        self.mailbox.evict(now.wall_ms);
        let Some(state) = self.agents.clients.get_mut(&client) else {
            return Err(IpcError::invalid("no client"));
        };
        let acked = self.mailbox.acked(&state.consumer);
        let wanted =
            |kind: &str| kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|wanted| wanted == kind));
        let mut rows = String::from("[");
        let (mut count, mut last, mut has_more) = (0, acked, false);
        for row in self.mailbox.after(acked) {
            // It stops at the first of another kind, so that an ack cannot jump over it.
            if !wanted(&row.envelope.kind) {
                break;
            }
            let full = count > 0 && rows.len() + row.envelope.raw().len() > INBOX_REPLY_BYTES_MAX;
            if count >= limit || full {
                has_more = true;
                break;
            }
            if count > 0 {
                rows.push(',');
            }
            rows.push_str(&row_json(row));
            count += 1;
            last = row.seq;
        }
        rows.push(']');
        if count > 0 {
            self.mailbox.note_delivered(&state.consumer, last);
            state.shown = state.shown.max(last);
        }
        self.catch_up(client);
        let line =
            Line::ok(command.req_id()).raw("messages", &rows).field("next_seq", &(count > 0).then_some(last));
        Ok(line.field("has_more", &has_more).end())
    }

    fn ack(&mut self, client: ClientId, command: &Command<'_>) -> Answer {
        let up_to = command.up_to_seq::<u64>()?;
        let up_to = up_to
            .ok_or_else(|| IpcError::invalid("the field `up_to_seq` is missing: give a message's seq"))?;
        let consumer =
            self.agents.clients.get(&client).map(|client| client.consumer.clone()).unwrap_or_default();
        match self.mailbox.ack(&consumer, up_to) {
            Ok(acked) => {
                self.catch_up(client);
                Ok(Line::ok(command.req_id()).field("acked_seq", &acked).end())
            }
            Err(error) => {
                let message = format!(
                    "up_to_seq is past {}, the last message that this consumer was given: read the inbox first",
                    error.delivered
                );
                Err(IpcError::new(IpcCode::AckOutOfRange, message))
            }
        }
    }

    /// A client that lagged and has now been given everything that it wants is live again.
    fn catch_up(&mut self, client: ClientId) {
        let Some(state) = self.agents.clients.get_mut(&client).filter(|state| state.lagging) else { return };
        // What another client of the same consumer has acked is missed by nobody.
        let mut missed = self.mailbox.after(state.shown.max(self.mailbox.acked(&state.consumer)));
        if !missed.any(|row| state.wants.wants(&row.envelope.kind)) {
            state.lagging = false;
        }
    }

    fn advertise(&mut self, now: Now, client: ClientId, command: &Command<'_>) -> Answer {
        let capabilities = command.capabilities()?;
        if capabilities.get().len() > CAPABILITIES_BYTES_MAX {
            return Err(IpcError::invalid(format!(
                "`capabilities` is at most {CAPABILITIES_BYTES_MAX} bytes long"
            )));
        }
        if let Some((_, kind)) = self.kinds.get("capabilities") {
            (kind.check)(capabilities.get()).map_err(IpcError::invalid)?;
        }
        for index in 0..self.families.len() {
            let advert = FamilyInput::Advert { client, capabilities: Some(&capabilities) };
            self.tell_family(now, index, advert);
        }
        Ok(Line::ok(command.req_id()).field("advertised", &true).end())
    }
}

/// Commands that need no hello.
const V1_COMMANDS: &[&str] = &["send", "peers", "status"];

/// Commands that need a hello of version 2.
const V2_COMMANDS: &[&str] = &["whoami", "reply", "subscribe", "inbox", "ack", "advertise", "auth", "hello"];

/// What this socket can do beyond version 1.
const IPC_FEATURES: &[&str] = &["buffer", "subscribe", "auth", "answer", "advertise"];

/// Kinds that agents answer.
const ANSWERABLE: &[&str] = &["query", "delegate", "cancel"];

fn required<T>(name: &str, value: Option<T>) -> Result<T, IpcError> {
    value.ok_or_else(|| IpcError::invalid(format!("the field `{name}` is missing")))
}

fn msg_id(name: &str, text: Option<String>) -> Result<Option<MsgId>, IpcError> {
    let parsed = text.map(|text| text.parse::<MsgId>()).transpose();
    parsed.map_err(|error| IpcError::invalid(format!("the field `{name}` is wrong: {error}")))
}

fn names(name: &str, list: Option<Vec<String>>, bytes_max: usize) -> Result<Option<Vec<String>>, IpcError> {
    let fits = |list: &Vec<String>| {
        list.len() <= SUBSCRIPTION_NAMES_MAX
            && list.iter().all(|item| !item.is_empty() && item.len() <= bytes_max)
    };
    if list.as_ref().is_some_and(|list| !fits(list)) {
        let message = format!(
            "the field `{name}` lists at most {SUBSCRIPTION_NAMES_MAX} names of 1 to {bytes_max} bytes"
        );
        return Err(IpcError::invalid(message));
    }
    Ok(list)
}

/// `deadline_ms` of a payload; 0 is none.
fn payload_deadline(payload: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Deadline {
        deadline_ms: Option<u64>,
    }
    serde_json::from_str::<Deadline>(payload).ok()?.deadline_ms.filter(|ms| *ms > 0)
}

/// A response's `data` is required on the wire; an agent that has only text need not write it.
fn complete(kind: &str, payload: &RawValue) -> Box<RawValue> {
    if kind == "response"
        && let Ok(mut map) =
            serde_json::from_str::<std::collections::BTreeMap<String, Box<RawValue>>>(payload.get())
        && !map.contains_key("data")
    {
        map.insert("data".into(), raw_json("null".into()));
        return to_raw(&map);
    }
    payload.to_owned()
}

/// Compares two texts in a time that depends on their length only.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}
