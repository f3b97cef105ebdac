//! Held messages on their way: stored first, sent one after another, and honest about what became of each.
//!
//! Source: `spec/IPC.md`, "The outbox". [`crate::outbox`] keeps the books; this sends.

use std::sync::Arc;

use super::answer::peer_refusal;
use super::outgoing::{Fate, Origin};
use super::storing::{After, Reading, disk_error};
use super::timers::Key;
use super::{ClientId, Effect, Node, Now, Of};
use crate::agents::Speaks;
use crate::error::{IpcCode, IpcError, PeerCode, Refusal};
use crate::family::{Ended, GivenUp, Inbound, Input as FamilyInput, NoAnswer};
use crate::id::{AgentId, MsgId};
use crate::ipc::{Command, Line};
use crate::limits::{
    INBOX_LIMIT_MAX, OUTBOX_DONE_MAX, OUTBOX_LIMIT_DEFAULT, OUTBOX_RESULTS_MAX, READ_RECEIPT_HOLD_MS,
    REPLAY_TTL_MS, REPLY_GRACE_MS, REQUEST_TIMEOUT_MS, RESEND_MS_MAX,
};
use crate::mailbox::SCOPED;
use crate::outbox::{Held, State};
use crate::store::{CommitError, Read, Write};
use crate::wire::{Envelope, decode, raw_json};

/// A message that is to be held, and on whose behalf.
pub(super) struct ToHold {
    pub envelope: Envelope,
    pub hold_ms: u64,
    /// Whose clients are told what becomes of it.
    pub consumer: Option<Box<str>>,
    /// The command that is answered by the first outcome.
    pub waiter: Option<(ClientId, String)>,
    /// The open request whose last word it is.
    pub ends: Option<(MsgId, Ended)>,
    /// What is stored together with it.
    pub writes: Vec<Write>,
}

impl Node {
    /// How long a message may be held at most.
    pub(super) fn hold_ms_max(&self) -> u64 {
        self.settings.outbox.hold_secs_max.saturating_mul(1_000)
    }

    /// Stores a message and sends it when its peer can be reached.
    pub(super) fn hold(&mut self, now: Now, to_hold: ToHold) -> Result<(), IpcError> {
        let ToHold { envelope, hold_ms, consumer, waiter, ends, mut writes } = to_hold;
        let bytes = envelope.raw().len();
        // Work that is done is held also where nothing else is.
        let result = envelope.kind() == "result";
        // What peers make this daemon hold leaves a quarter to what its own clients send.
        let mut bounds = self.settings.outbox;
        if waiter.is_none() {
            bounds.messages_max = bounds.messages_max / 4 * 3;
            bounds.bytes_max = bounds.bytes_max / 4 * 3;
        }
        self.outbox.has_room(envelope.to, bytes, result, &bounds).map_err(|why| {
            let message =
                format!("the outbox is full: {why}. Wait, take some out, or raise [outbox] in config.toml");
            IpcError::new(IpcCode::Overloaded, message)
        })?;
        if let Some(own) = consumer.as_deref().filter(|own| own.starts_with(SCOPED))
            && self.outbox.held_of(own)
                >= (bounds.messages_max / 4).max(if result { OUTBOX_RESULTS_MAX / 4 } else { 1 })
        {
            let message = "this socket holds a quarter of the outbox: wait until some of it has left";
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        if !self.disk_has_room() {
            let message = "too much waits for the disk: try again in a moment";
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        if let Some((index, _)) = self.kinds.get(envelope.kind()) {
            writes.extend(self.sending(now, index, &envelope, true));
        }
        if let Some((client, _)) = &waiter
            && let Some(state) = self.agents.clients.get_mut(client)
        {
            state.pending += 1;
        }
        let n = self.outbox.next_n();
        let wants_read = envelope.read_receipt;
        let held = Held {
            n,
            id: envelope.id,
            to: envelope.to,
            kind: envelope.kind().into(),
            state: State::Held,
            since_ms: now.wall_ms,
            expires_ms: now.wall_ms.saturating_add(hold_ms),
            attempts: 0,
            left_ms: None,
            reason: None,
            bytes,
            consumer,
            client: waiter.as_ref().map(|(client, _)| *client),
            waiter,
            // Not before it is on disk.
            leaving: true,
            wants_read,
            was_read: false,
            envelope: Some(Arc::new(envelope)),
        };
        if let Some(envelope) = &held.envelope {
            writes.push(held.write_body(envelope.raw()));
        }
        writes.push(held.write());
        self.outbox.insert(held);
        self.timers.set_if_sooner(Key::Expire, now.mono_ms.saturating_add(hold_ms));
        self.commit(writes, After::Held { n, ends });
        Ok(())
    }

    /// A message is on disk, or could not be held.
    #[inline(never)]
    pub(super) fn is_held(
        &mut self,
        now: Now,
        n: u64,
        ends: Option<(MsgId, Ended)>,
        outcome: Result<(), CommitError>,
    ) {
        let Some(held) = self.outbox.get_mut(n) else { return };
        held.leaving = false;
        let (to, by) = (held.to, held.waiter.as_ref().map(|(client, _)| *client));
        if let Err(error) = outcome {
            let waiter = held.waiter.take();
            let kind = held.kind.clone();
            let envelope = held.envelope.take();
            self.outbox.remove(n);
            if let (Some((index, _)), Some(envelope)) = (self.kinds.get(&kind), envelope) {
                let reply = FamilyInput::PeerReply { request: &envelope, answer: Err(NoAnswer::NotSent) };
                self.tell_family(now, index, reply);
            }
            if let Some(ends) = ends {
                self.last_word(now, ends, false, by);
            }
            return self.answer_waiter(now, to, waiter, Err(disk_error(&error)));
        }
        if let Some(ends) = ends {
            self.last_word(now, ends, true, by);
        }
        let first = self.outbox.queue(to).next() == Some(n);
        if !first {
            // Others go first, and may take long.
            self.say_held(now, n);
        }
        if (!first || self.best_session(to).is_none())
            && let Some(held) = self.outbox.get_mut(n)
        {
            // It is read from the disk when its time comes.
            held.envelope = None;
        }
        self.pump(now, to);
    }

    /// Sends what is next for a peer, if it can be sent now.
    pub(super) fn pump(&mut self, now: Now, peer: AgentId) {
        let n = match self.outbox.next(peer, now.mono_ms) {
            Ok(n) => n,
            Err(Some(at_ms)) => return self.timers.set_if_sooner(Key::Outbox(peer), at_ms),
            Err(None) => return,
        };
        if self.peers.get(peer).is_none() {
            return self.refuse_held_of(now, peer);
        }
        if self.stopping {
            return self.say_held(now, n);
        }
        if self.outbox.get(n).is_some_and(|held| held.expires_ms <= now.wall_ms) {
            // Timers stand still while a computer sleeps.
            return self.expire_held(now);
        }
        if self.is_too_late_for_v1(now, n, peer) {
            return self.pump(now, peer);
        }
        if self.best_session(peer).is_none() {
            if self.outbox.get(n).is_some_and(|held| held.waiter.is_some()) {
                self.dial_for_sending(now, peer);
            }
            return;
        }
        let Some(held) = self.outbox.get_mut(n) else { return };
        held.leaving = true;
        match held.envelope.take() {
            Some(envelope) => self.send_held(now, n, envelope),
            None => {
                let keys = vec![held.body_key()];
                self.read(Read::Items { keys }, Reading::Body { n });
            }
        }
    }

    /// A peer that gives no receipts forgets ids after a while, and would take the message twice. One that
    /// left longer ago, and of which nothing is known since, is not sent again.
    fn is_too_late_for_v1(&mut self, now: Now, n: u64, peer: AgentId) -> bool {
        let plain = self
            .best_session(peer)
            .and_then(|conn| self.sessions.get(conn))
            .is_some_and(|session| !session.offers("receipt"));
        let Some(held) = self.outbox.get(n) else { return false };
        let left = held.left_ms.is_some_and(|at| at.saturating_add(REPLAY_TTL_MS / 2) <= now.wall_ms);
        if !plain || !left {
            return false;
        }
        let id = held.id;
        let why = "it left, the connection was lost, and the peer gives no receipts: it may have it or not";
        let request = self.kinds.get(&held.kind).is_some_and(|(_, kind)| kind.is_request());
        let state = if request { State::Refused } else { State::Sent };
        self.say_held(now, n);
        self.outbox_change(now, n, state, Some(why.into()), None);
        if request {
            self.given_up(now, id, GivenUp::Unknown);
        }
        true
    }

    /// The envelope of a held message is there.
    pub(super) fn body_read(&mut self, now: Now, n: u64, body: Option<Arc<[u8]>>) {
        let Some(peer) = self.outbox.get(n).filter(|held| held.state == State::Held).map(|held| held.to)
        else {
            return;
        };
        match body.map(|body| decode(body.to_vec())) {
            Some(Ok(envelope)) => self.send_held(now, n, Arc::new(envelope)),
            _ => {
                self.info(format!("a message held for {peer} is damaged on disk and will not be sent"));
                let id = self.outbox.get(n).map(|held| held.id);
                self.outbox_change(now, n, State::Refused, Some("its copy on disk is damaged".into()), None);
                id.into_iter().for_each(|id| self.given_up(now, id, GivenUp::Refused));
                self.pump(now, peer);
            }
        }
    }

    /// The envelope of a held message could not be read: later, perhaps.
    pub(super) fn body_failed(&mut self, now: Now, n: u64, why: &str) {
        let error = IpcError::new(IpcCode::InternalError, why);
        self.stays_held(now, n, &error);
    }

    /// A held message as it leaves now: its sender, or its receiver, may have another key since it was
    /// written.
    fn readdressed(&self, n: u64, envelope: Arc<Envelope>) -> Arc<Envelope> {
        let to = self.outbox.get(n).map_or(envelope.to, |held| held.to);
        envelope.readdressed(self.me, to)
    }

    fn send_held(&mut self, now: Now, n: u64, envelope: Arc<Envelope>) {
        let envelope = self.readdressed(n, envelope);
        let Some((_, kind)) = self.kinds.get(envelope.kind()) else {
            let why = "this version does not know its kind";
            let peer = envelope.to;
            self.outbox_change(now, n, State::Refused, Some(why.into()), None);
            return self.pump(now, peer);
        };
        if let Some(held) = self.outbox.get_mut(n) {
            held.attempts += 1;
            held.left_ms.get_or_insert(now.wall_ms);
            let write = held.write();
            self.note([write]);
        }
        self.submit(now, envelope, kind, Origin::Held { n }, REQUEST_TIMEOUT_MS + REPLY_GRACE_MS);
    }

    /// A held message has had its answer, or has none.
    pub(super) fn held_settled(&mut self, now: Now, n: u64, fate: Fate) {
        let Some(held) = self.outbox.get_mut(n).filter(|held| held.state == State::Held) else { return };
        let (id, peer) = (held.id, held.to);
        let waiter = match &fate {
            Fate::Failed(error) if error.code != IpcCode::NotOffered => None,
            _ => held.waiter.take(),
        };
        let req_id = waiter.as_ref().map_or("", |(_, req_id)| req_id).to_owned();
        // The reply tells it the first outcome.
        let by = waiter.as_ref().map(|(client, _)| *client);
        let line = |state: State| Line::ok(&req_id).field("msg_id", &id).field("state", state.as_str());
        match fate {
            Fate::Delivered => {
                self.outbox_change(now, n, State::Delivered, None, by);
                let line = line(State::Delivered).end();
                self.answer_waiter(now, peer, waiter, Ok(line));
            }
            Fate::Arrived => {
                self.outbox_change(now, n, State::Sent, None, by);
                let line = line(State::Sent).end();
                self.answer_waiter(now, peer, waiter, Ok(line));
            }
            Fate::Answered(answer) => {
                let said = peer_refusal(&answer);
                if said.as_ref().is_some_and(|(code, _)| *code == Some(PeerCode::Overloaded)) {
                    let why = said.map(|(_, why)| why).unwrap_or_default();
                    if let Some(held) = self.outbox.get_mut(n) {
                        held.waiter = waiter;
                    }
                    return self.stays_held(now, n, &IpcError::new(IpcCode::Overloaded, why));
                }
                let (state, why) = match said {
                    Some((_, why)) => (State::Refused, Some(why)),
                    None => (State::Delivered, None),
                };
                self.outbox_change(now, n, state, why, by);
                let line = line(state).raw("response", answer.raw()).end();
                self.answer_waiter(now, peer, waiter, Ok(line));
            }
            Fate::Refused(error) => {
                self.outbox_change(now, n, State::Refused, Some(error.message.clone()), by);
                self.answer_waiter(now, peer, waiter, Err(error));
            }
            Fate::Failed(error) if error.code == IpcCode::NotOffered => {
                self.outbox_change(now, n, State::Refused, Some(error.message.clone()), by);
                self.answer_waiter(now, peer, waiter, Err(error));
            }
            Fate::Failed(error) => return self.stays_held(now, n, &error),
        }
        if self.outbox.get(n).is_some_and(|held| held.was_read && held.state == State::Delivered) {
            self.outbox_change(now, n, State::Read, None, None);
        }
        self.outbox.hurry(peer);
        self.pump(now, peer);
    }

    /// The peer did not take it this time.
    fn stays_held(&mut self, now: Now, n: u64, error: &IpcError) {
        let Some(held) = self.outbox.get_mut(n) else { return };
        held.leaving = false;
        held.reason = Some(error.message.clone());
        if error.code == IpcCode::Overloaded {
            // The peer has said that it does not have it.
            held.left_ms = None;
        }
        let peer = held.to;
        let write = held.write();
        self.note([write]);
        self.say_held(now, n);
        self.expire_held(now);
        self.outbox.back_off(peer, now.mono_ms);
        self.pump(now, peer);
    }

    /// Whoever waits for the first outcome hears that it is held.
    fn say_held(&mut self, now: Now, n: u64) {
        let Some(held) = self.outbox.get_mut(n) else { return };
        let Some((client, req_id)) = held.waiter.take() else { return };
        let to = held.to;
        let line = Line::ok(&req_id).field("msg_id", &held.id).field("state", "held").end();
        self.answer_waiter(now, to, Some((client, req_id)), Ok(line));
    }

    /// The peer cannot be reached now: those who wait for a first outcome are told.
    pub(super) fn held_for_later(&mut self, now: Now, peer: AgentId) {
        for n in self.outbox.queue(peer).collect::<Vec<u64>>() {
            if self.outbox.get(n).is_some_and(|held| !held.leaving) {
                self.say_held(now, n);
            }
        }
    }

    /// The daemon ends: what is held stays held.
    pub(super) fn all_held_for_later(&mut self, now: Now) {
        for peer in self.outbox.peers().collect::<Vec<AgentId>>() {
            for n in self.outbox.queue(peer).collect::<Vec<u64>>() {
                self.say_held(now, n);
            }
        }
    }

    /// Whether somebody waits for the first outcome of a message to this peer.
    pub(super) fn is_awaited_in_outbox(&self, peer: AgentId) -> bool {
        self.outbox.queue(peer).any(|n| self.outbox.get(n).is_some_and(|held| held.waiter.is_some()))
    }

    /// A peer is out: what is held for it will never be sent.
    pub(super) fn refuse_held_of(&mut self, now: Now, peer: AgentId) {
        for n in self.outbox.queue(peer).collect::<Vec<u64>>() {
            let why = "the peer is no longer among the known ones".to_owned();
            let Some(held) = self.outbox.get_mut(n) else { continue };
            let (waiter, id) = (held.waiter.take(), held.id);
            let by = waiter.as_ref().map(|(client, _)| *client);
            self.outbox_change(now, n, State::Refused, Some(why.clone()), by);
            self.given_up(now, id, GivenUp::Refused);
            self.answer_waiter(now, peer, waiter, Err(IpcError::new(IpcCode::PeerNotFound, why)));
        }
    }

    fn given_up(&mut self, now: Now, id: MsgId, why: GivenUp) {
        for index in 0..self.families.len() {
            self.tell_family(now, index, FamilyInput::GivenUp { id, why });
        }
    }

    /// Gives up what has been held long enough.
    pub(super) fn expire_held(&mut self, now: Now) {
        let (due, next_ms) = self.outbox.expired(now.wall_ms);
        for n in due {
            let Some(held) = self.outbox.get_mut(n) else { continue };
            let (waiter, id, peer) = (held.waiter.take(), held.id, held.to);
            let why = held.reason.take();
            let by = waiter.as_ref().map(|(client, _)| *client);
            self.outbox_change(now, n, State::Expired, why, by);
            self.given_up(now, id, GivenUp::Expired);
            let message = format!("{peer} could not be reached in the time allowed: the message is given up");
            self.answer_waiter(now, peer, waiter, Err(IpcError::new(IpcCode::PeerUnreachable, message)));
            self.pump(now, peer);
        }
        if let Some(next_ms) = next_ms {
            let wait_ms = next_ms.saturating_sub(now.wall_ms).max(1);
            self.timers.set_if_sooner(Key::Expire, now.mono_ms.saturating_add(wait_ms));
        }
    }

    /// A message has become something else: it is stored, and its sender's clients are told.
    fn outbox_change(
        &mut self,
        now: Now,
        n: u64,
        state: State,
        reason: Option<String>,
        except: Option<ClientId>,
    ) {
        let writes = self.outbox.change(n, state, reason, now.wall_ms);
        self.note(writes);
        let trimmed = self.outbox.trim(self.settings.outbox.messages_max + OUTBOX_DONE_MAX);
        self.note(trimmed);
        let Some(held) = self.outbox.get(n) else { return };
        let Some(consumer) = &held.consumer else { return };
        let of = Of::Peer(held.to);
        let line = Line::event("delivery")
            .field("id", &held.id)
            .field("state", held.state.as_str())
            .maybe("reason", held.reason.as_ref())
            .end();
        // The client that sent it, or, if that has gone, who reads on in its place.
        let sender = held.client.filter(|client| self.agents.clients.contains_key(client));
        for (client, state) in &self.agents.clients {
            let told = sender.map_or(*state.consumer == **consumer, |sender| sender == *client);
            if told && state.speaks() == Speaks::V2 && except != Some(*client) {
                self.out.push(Effect::Line { client: *client, line: line.clone(), of });
            }
        }
    }

    fn answer_waiter(
        &mut self,
        now: Now,
        peer: AgentId,
        waiter: Option<(ClientId, String)>,
        answer: Result<Arc<str>, IpcError>,
    ) {
        let Some((client, req_id)) = waiter else { return };
        self.answer_of(client, &req_id, answer, Of::Peer(peer));
        let Some(state) = self.agents.clients.get_mut(&client) else { return };
        state.pending = state.pending.saturating_sub(1);
        if state.leaving {
            self.client_eof(now, client);
        }
    }

    // --- read receipts ---

    /// Tells a sender that its message was read; false when that must wait.
    pub(super) fn tell_read(&mut self, now: Now, to: AgentId, id: MsgId, done: Write) -> bool {
        // They leave room for what agents and people send.
        let most = (self.settings.outbox.per_peer_messages_max / 4).max(1);
        if self.peers.get(to).is_some() && self.outbox.waiting_for(to) >= most {
            return false;
        }
        let payload = raw_json(r#"{"state":"read"}"#.into()).into();
        let hold_ms = READ_RECEIPT_HOLD_MS.min(self.hold_ms_max());
        let Ok(envelope) = self.made(now, to, "receipt", (Some(id), &payload), Some(hold_ms)) else {
            return true;
        };
        let writes = vec![done];
        let to_hold = ToHold { envelope, hold_ms, consumer: None, waiter: None, ends: None, writes };
        self.hold(now, to_hold).is_ok()
    }

    /// How long a result is held: as its agent said, or as long as may be.
    pub(super) fn result_hold_ms(&self) -> u64 {
        self.reply_hold_ms.unwrap_or_else(|| self.hold_ms_max())
    }

    /// A message that was not held is delivered, and its sender wants to hear when it is read.
    pub(super) fn await_read(&mut self, now: Now, client: ClientId, envelope: &Envelope) {
        let consumer = self.agents.clients.get(&client).map(|client| Box::from(&*client.consumer));
        let held = Held {
            n: self.outbox.next_n(),
            id: envelope.id,
            to: envelope.to,
            kind: envelope.kind().into(),
            state: State::Delivered,
            since_ms: now.wall_ms,
            expires_ms: now.wall_ms,
            attempts: 1,
            left_ms: None,
            reason: None,
            bytes: envelope.raw().len(),
            consumer,
            client: Some(client),
            waiter: None,
            leaving: false,
            wants_read: true,
            was_read: false,
            envelope: None,
        };
        self.note([held.write()]);
        self.outbox.insert(held);
        let trimmed = self.outbox.trim(self.settings.outbox.messages_max + OUTBOX_DONE_MAX);
        self.note(trimmed);
    }

    /// A peer says that a message of ours was read there. Gives what has to be on disk before the peer is
    /// told that we know; an error when the message was not sent to it.
    pub(super) fn was_read(
        &mut self,
        now: Now,
        by: AgentId,
        id: MsgId,
        read: bool,
    ) -> Result<Option<Write>, ()> {
        let Some(held) = self.outbox.find(id) else { return Ok(None) };
        if held.to != by {
            return Err(());
        }
        let (n, state) = (held.n, held.state);
        if !read || !held.wants_read {
            return Ok(None);
        }
        if matches!(state, State::Sent | State::Delivered) {
            self.outbox_change(now, n, State::Read, None, None);
        } else if let Some(held) = self.outbox.get_mut(n) {
            // The answer on its own stream says first that it has arrived.
            held.was_read = true;
        }
        Ok(self.outbox.get(n).map(|held| held.write()))
    }

    /// Word that a message was read is on disk, or could not be written.
    pub(super) fn read_is_stored(&mut self, now: Now, message: &Inbound, outcome: Result<(), CommitError>) {
        if outcome.is_ok() {
            return self.receipt(now, message);
        }
        let (from, id) = (message.envelope.from, message.envelope.id);
        // So that it is taken when it comes again.
        self.replay.forget(from, id);
        let refusal = Refusal::new(PeerCode::Overloaded, "this daemon cannot write to its disk now");
        self.refuse(now, message.stream, from, Some(id), &refusal);
    }

    // --- the command ---

    pub(super) fn outbox_command(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let parse = |name: &str, text: Option<String>| {
            let parsed = text.map(|text| text.parse::<MsgId>()).transpose();
            parsed.map_err(|error| IpcError::invalid(format!("the field `{name}` is wrong: {error}")))
        };
        if let Some(id) = parse("cancel", command.cancel::<String>()?)? {
            return self.cancel_held(now, client, command.req_id(), id);
        }
        let limit = command.limit::<u64>()?.unwrap_or(OUTBOX_LIMIT_DEFAULT);
        if !(1..=INBOX_LIMIT_MAX).contains(&limit) {
            let message = format!("the field `limit` is a number from 1 to {INBOX_LIMIT_MAX}");
            return Err(IpcError::invalid(message));
        }
        let limit = usize::try_from(limit).unwrap_or(1);
        let id = parse("id", command.id::<String>()?)?;
        let to = command.to()?.map(|to| self.peer_for(now, client, &to)).transpose()?;
        let state = command.state::<String>()?;
        let state = state.map(|text| State::parse(&text).ok_or(text)).transpose().map_err(|text| {
            let text: String = text.chars().take(20).collect();
            let known = "held, sent, delivered, read, expired, refused";
            IpcError::invalid(format!("the field `state` is one of {known}, not \"{text}\""))
        })?;
        let now_ms = now.wall_ms;
        let own = self.own_consumer(client);
        let scope = self.scope_of(client);
        let sees = |held: &Held| {
            own.as_deref().is_none_or(|own| held.consumer.as_deref() == Some(own))
                && scope.as_ref().is_none_or(|scope| scope.sees_peer(held.to))
        };
        let mut wanted = self.outbox.iter().filter(|held| !held.is_old(now_ms)).filter(|held| {
            sees(held)
                && id.is_none_or(|id| id == held.id)
                && to.is_none_or(|to| to == held.to)
                && state.is_none_or(|state| state == held.state)
        });
        let rows: Vec<String> = wanted.by_ref().take(limit).map(row).collect();
        let has_more = wanted.next().is_some();
        let line = Line::ok(command.req_id()).raw("outbox", &format!("[{}]", rows.join(",")));
        let line = line.field("has_more", &has_more).end();
        // A reason may be in the words of a peer.
        self.out.push(Effect::Line { client, line, of: Of::Several });
        Ok(())
    }

    /// The consumer whose held messages a client sees; none: it sees all.
    fn own_consumer(&self, client: ClientId) -> Option<Arc<str>> {
        let client = self.agents.clients.get(&client);
        client.filter(|client| client.scope.is_some()).map(|client| client.consumer.clone())
    }

    fn cancel_held(&mut self, now: Now, client: ClientId, req_id: &str, id: MsgId) -> Result<(), IpcError> {
        let line = Line::ok(req_id).field("cancelled", &true).end();
        self.take_back(now, client, req_id, id, line)
    }

    /// Takes a held message out; the client is answered with this line once that is on disk.
    pub(super) fn take_back(
        &mut self,
        now: Now,
        client: ClientId,
        req_id: &str,
        id: MsgId,
        line: Arc<str>,
    ) -> Result<(), IpcError> {
        let own = self.own_consumer(client);
        let sees = |held: &&Held| own.as_deref().is_none_or(|own| held.consumer.as_deref() == Some(own));
        let Some(held) = self.outbox.find(id).filter(sees) else {
            let message = "no message of that id is in the outbox: `axon outbox` lists those that are";
            return Err(IpcError::new(IpcCode::NotFound, message));
        };
        if held.state != State::Held || held.leaving {
            let what = if held.leaving { "on its way just now" } else { held.state.as_str() };
            let message = format!("it is {what}: only what is held can be taken out");
            return Err(IpcError::new(IpcCode::AlreadyAnswered, message));
        }
        let (n, peer) = (held.n, held.to);
        self.say_held(now, n);
        self.outbox_change(now, n, State::Refused, Some("cancelled by its sender".into()), Some(client));
        self.given_up(now, id, GivenUp::Cancelled);
        // The change itself, so that the answer hangs on it.
        let write = self.outbox.get(n).map(Held::write);
        self.answer_when_stored(client, req_id, write.into_iter().collect(), line);
        self.pump(now, peer);
        Ok(())
    }

    /// A scoped socket is gone: what was held for it is not sent any more, and the rest is the owner's.
    pub(super) fn refuse_held_by(&mut self, now: Now, consumer: &str) {
        let theirs = self.outbox.iter().filter(|held| held.consumer.as_deref() == Some(consumer));
        let theirs: Vec<(u64, MsgId, bool)> =
            theirs.map(|held| (held.n, held.id, held.state == State::Held && !held.leaving)).collect();
        for (n, id, waits) in theirs {
            if waits {
                self.outbox_change(now, n, State::Refused, Some("its socket was removed".into()), None);
                self.given_up(now, id, GivenUp::Cancelled);
            }
            if let Some(held) = self.outbox.get_mut(n) {
                held.consumer = None;
                let write = held.write();
                self.note([write]);
            }
        }
    }

    /// Whether a message waits in the outbox.
    pub(super) fn is_in_outbox(&self, id: MsgId) -> bool {
        self.outbox.find(id).is_some_and(|held| held.state == State::Held)
    }
}

/// Until when a message may come again that is held so long: clocks differ, and the last try takes time.
pub(super) fn resend_until(now: Now, hold_ms: u64) -> u64 {
    now.wall_ms.saturating_add(hold_ms.saturating_add(REPLAY_TTL_MS).min(RESEND_MS_MAX))
}

fn row(held: &Held) -> String {
    let line = Line::empty()
        .field("id", &held.id)
        .field("to", &held.to)
        .field("kind", &held.kind)
        .field("state", held.state.as_str())
        .field("since_ms", &held.since_ms)
        .field("expires_ms", &held.expires_ms)
        .field("attempts", &held.attempts)
        .maybe("reason", held.reason.as_ref());
    line.end().to_string()
}
