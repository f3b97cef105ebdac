//! The way out to peers: who is dialled when, and what becomes of each message that leaves.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Connections". A message waits for its session, goes out, and goes out
//! again with the same id when its connection ends first; the receiver takes it once.

use std::sync::Arc;

use super::answer::peer_refusal;
use super::timers::Key;
use super::{ClientId, ConnId, Effect, Lost, Node, Now, Of, StreamId, Token};
use crate::error::{IpcCode, IpcError, PeerCode, Refusal};
use crate::family::{Input as FamilyInput, Kind, NoAnswer, error_payload};
use crate::fault::has_room;
use crate::id::{AgentId, MsgId};
use crate::ipc::{Line, v1_line};
use crate::limits::WORK_TO_PEER_MAX;
use crate::session::Phase;
use crate::wire::{Envelope, Json, decode};

/// How often a message goes out at most.
const SENDS_MAX: u8 = 3;

/// On whose behalf a message leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client's `send`.
    Command {
        client: ClientId,
        req_id: String,
        /// A v1 client is told at once that it has left, and gets the answer as an inbound line.
        v1: bool,
    },
    /// A family; perhaps on a client's `reply`.
    Family { command: Option<(ClientId, String)> },
    /// Nobody: it asks to be let in, where a client waits to be paired.
    Knock,
    /// The outbox.
    Held {
        /// Its place there.
        n: u64,
    },
}

/// A message of ours on its way.
#[derive(Debug)]
pub(super) struct Pending {
    envelope: Arc<Envelope>,
    kind: &'static Kind,
    origin: Origin,
    /// Where it was sent, if it was.
    conn: Option<ConnId>,
    sends: u8,
    /// It counts against what may be under way on its connection.
    work: bool,
    /// It must be on disk before it leaves, and is not yet.
    unstored: bool,
    /// It was said while the daemon ends, and is given a moment to arrive.
    last: bool,
    /// When its answer is due (monotonic milliseconds).
    due_ms: u64,
}

impl Pending {
    /// Where it was sent, if it was.
    pub(super) fn conn(&self) -> Option<ConnId> {
        self.conn
    }

    /// Whom it is for.
    pub(super) fn to(&self) -> AgentId {
        self.envelope.to
    }

    /// Whether it waits for a connection to this peer.
    pub(super) fn waits_for(&self, peer: AgentId) -> bool {
        self.conn.is_none() && self.envelope.to == peer
    }

    /// Whether a client or an agent waits for its end.
    pub(super) fn is_awaited(&self) -> bool {
        match &self.origin {
            Origin::Command { .. } | Origin::Knock => true,
            Origin::Family { command } => command.is_some() || self.last,
            // It is safe here, and will be sent again.
            Origin::Held { .. } => false,
        }
    }

    fn client(&self) -> Option<ClientId> {
        match &self.origin {
            Origin::Command { client, .. } => Some(*client),
            Origin::Family { command } => command.as_ref().map(|(client, _)| *client),
            Origin::Held { .. } | Origin::Knock => None,
        }
    }
}

/// What came of a message.
pub(super) enum Fate {
    /// A request was answered.
    Answered(Envelope),
    /// A one-way message is on the peer's disk.
    Delivered,
    /// The peer has said that it does not take a one-way message.
    Refused(IpcError),
    /// A one-way message is with the peer's transport.
    Arrived,
    /// It is not known to have arrived.
    Failed(IpcError),
}

impl Node {
    // --- messages ---

    /// Takes a message on; it leaves now or as soon as there is a connection.
    pub(super) fn submit(
        &mut self,
        now: Now,
        envelope: Arc<Envelope>,
        kind: &'static Kind,
        origin: Origin,
        wait_ms: u64,
    ) {
        let token = self.prepare(now, envelope, kind, origin, wait_ms);
        self.leave(now, token);
    }

    /// Takes a message on that leaves when [`Self::leave`] says so.
    pub(super) fn prepare(
        &mut self,
        now: Now,
        envelope: Arc<Envelope>,
        kind: &'static Kind,
        origin: Origin,
        wait_ms: u64,
    ) -> Token {
        let token = self.new_token();
        let due_ms = now.mono_ms.saturating_add(wait_ms);
        let (conn, sends, work, unstored, last) = (None, 0, false, true, self.stopping);
        let pending = Pending { envelope, kind, origin, conn, sends, work, unstored, last, due_ms };
        if let Some(client) = pending.client().and_then(|client| self.agents.clients.get_mut(&client)) {
            client.pending += 1;
        }
        self.pending.insert(token, pending);
        self.timers.set(Key::Pending(token), due_ms);
        token
    }

    /// A message may leave: it does so now or as soon as there is a connection.
    pub(super) fn leave(&mut self, now: Now, token: Token) {
        let Some(pending) = self.pending.get_mut(&token) else { return };
        pending.unstored = false;
        let peer = pending.envelope.to;
        self.dispatch_pending(now, token);
        if self.pending.get(&token).is_some_and(|pending| pending.conn.is_none())
            && self.best_session(peer).is_none()
        {
            self.dial_for_sending(now, peer);
        }
    }

    /// A knock leaves on this very connection, to which it is bound.
    pub(super) fn leave_on(&mut self, token: Token, conn: ConnId) {
        let Some(pending) = self.pending.get_mut(&token) else { return };
        // Once, and nowhere else: on another connection it would prove nothing.
        (pending.unstored, pending.conn, pending.sends) = (false, Some(conn), SENDS_MAX);
        let bytes = pending.envelope.raw().clone();
        self.out.push(Effect::Request { conn, token, bytes });
        self.sent += 1;
    }

    /// How many messages are on their way.
    pub(super) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// Sends a message if its peer has a session.
    fn dispatch_pending(&mut self, now: Now, token: Token) {
        let Some(pending) = self
            .pending
            .get_mut(&token)
            .filter(|p| p.conn.is_none() && !p.unstored && p.due_ms > now.mono_ms)
        else {
            return;
        };
        let peer = pending.envelope.to;
        let Some((conn, session)) = self.sessions.best(peer) else { return };
        // Between daemons that both offer receipts, a one-way message is answered when it is on disk.
        let receipted = session.offers("receipt") && self.features.contains(&"receipt");
        let work = is_work(pending.kind, receipted);
        if work && !has_room("work under way to a peer", session.work < WORK_TO_PEER_MAX) {
            return;
        }
        if let Some(feature) = pending.kind.feature.filter(|feature| !session.offers(feature)) {
            let message =
                format!("the peer does not take {feature}: it speaks an older protocol; use another kind");
            let error = IpcError::new(IpcCode::NotOffered, message);
            return self.settle(now, token, Fate::Failed(error));
        }
        pending.work = work;
        pending.conn = Some(conn);
        pending.sends += 1;
        let bytes = pending.envelope.raw().clone();
        self.out.push(if pending.kind.is_request() || receipted {
            Effect::Request { conn, token, bytes }
        } else {
            Effect::OneWay { conn, token, bytes }
        });
        self.sent += 1;
        if let Some(session) = self.sessions.get_mut(conn).filter(|_| work) {
            session.work += 1;
        }
        let Origin::Command { client, req_id, v1: true } = &pending.origin else { return };
        // A v1 client learns now that its request is on its way; the answer comes as a line of its own.
        if pending.kind.is_request() && pending.sends == 1 {
            let line = Line::ok_in(self.scratch.take(), req_id).id("msg_id", &pending.envelope.id);
            let line = line.end_in(&mut self.scratch);
            self.out.push(Effect::Line { client: *client, line, of: Of::Us });
        }
    }

    /// A peer's session is up: what waits for it leaves.
    pub(super) fn flush_pending(&mut self, now: Now, peer: AgentId) {
        let waits = |token: &Token| {
            self.pending.get(token).is_some_and(|p| p.conn.is_none() && p.envelope.to == peer)
        };
        let tokens: Vec<Token> = self.pending.keys().copied().filter(waits).collect();
        tokens.into_iter().for_each(|token| self.dispatch_pending(now, token));
    }

    /// A connection is over: what was sent on it and has no answer goes out again.
    pub(super) fn resend(&mut self, now: Now, conn: ConnId) {
        let on_it = |token: &Token| self.pending.get(token).is_some_and(|pending| pending.conn == Some(conn));
        let tokens: Vec<Token> = self.pending.keys().copied().filter(on_it).collect();
        tokens.into_iter().for_each(|token| self.send_again(now, token, "the connection ended"));
    }

    fn send_again(&mut self, now: Now, token: Token, why: &str) {
        let Some(pending) = self.pending.get_mut(&token) else { return };
        let peer = pending.envelope.to;
        if pending.sends >= SENDS_MAX || self.stopping {
            let error = unreachable_error(peer, &format!("{why} before it was answered"));
            return self.settle(now, token, Fate::Failed(error));
        }
        self.out.push(Effect::Abandon { token });
        pending.conn = None;
        self.dispatch_pending(now, token);
        if self.pending.get(&token).is_some_and(|pending| pending.conn.is_none())
            && self.best_session(peer).is_none()
        {
            self.dial_for_sending(now, peer);
        }
    }

    /// Nothing can be sent to this peer: what waits for it fails.
    pub(super) fn fail_pending(&mut self, now: Now, peer: AgentId, why: &str) {
        let to_it = |token: &Token| {
            self.pending.get(token).is_some_and(|p| p.conn.is_none() && p.envelope.to == peer)
        };
        let tokens: Vec<Token> = self.pending.keys().copied().filter(to_it).collect();
        for token in tokens {
            self.settle(now, token, Fate::Failed(unreachable_error(peer, why)));
        }
    }

    /// A peer is out: nothing to it is sent or awaited any longer.
    pub(super) fn end_pending(&mut self, now: Now, peer: AgentId, why: &str) {
        let to_it = |token: &Token| self.pending.get(token).is_some_and(|p| p.envelope.to == peer);
        let tokens: Vec<Token> = self.pending.keys().copied().filter(to_it).collect();
        for token in tokens {
            self.out.push(Effect::Abandon { token });
            self.settle(now, token, Fate::Failed(unreachable_error(peer, why)));
        }
    }

    /// The daemon ends: whoever waits for a peer is told.
    pub(super) fn fail_all_pending(&mut self, now: Now) {
        while let Some(token) = self.pending.keys().next().copied() {
            let message = "this daemon is shutting down and the peer has not answered: try again in a moment";
            self.out.push(Effect::Abandon { token });
            self.settle(now, token, Fate::Failed(IpcError::new(IpcCode::Overloaded, message)));
        }
    }

    /// A client has gone: the answers that it waited for are not needed; what it has sent stays sent.
    pub(super) fn give_up_requests_of(&mut self, now: Now, gone: ClientId) {
        let its = |pending: &Pending| {
            let own = matches!(&pending.origin, Origin::Command { client, .. } if *client == gone);
            own && (pending.kind.is_request() || pending.conn.is_none())
        };
        let tokens = self.pending.iter().filter(|(_, pending)| its(pending)).map(|(token, _)| *token);
        let tokens: Vec<Token> = tokens.collect();
        for token in tokens {
            self.out.push(Effect::Abandon { token });
            let error = IpcError::new(IpcCode::InternalError, "the client has gone");
            self.settle(now, token, Fate::Failed(error));
        }
    }

    #[inline(never)]
    pub(super) fn pending_due(&mut self, now: Now, token: Token) {
        let Some(pending) = self.pending.get(&token) else { return };
        let error = if pending.conn.is_some() {
            let message = "the peer did not answer before the deadline: allow more, or delegate the work";
            IpcError::new(IpcCode::Timeout, message)
        } else if self.best_session(pending.envelope.to).is_some() {
            let message =
                "too many requests to this peer were under way until the deadline: send fewer at once";
            IpcError::new(IpcCode::Overloaded, message)
        } else {
            unreachable_error(pending.envelope.to, "no connection came up before the deadline")
        };
        self.out.push(Effect::Abandon { token });
        self.settle(now, token, Fate::Failed(error));
    }

    #[inline(never)]
    pub(super) fn replied(&mut self, now: Now, token: Token, outcome: Result<Vec<u8>, Lost>) {
        let Some(pending) = self.pending.get(&token) else {
            if !self.heralded(now, token, &outcome) {
                self.hello_replied(now, token, &outcome);
            }
            return;
        };
        let (request, kind) = (pending.envelope.clone(), pending.kind);
        match outcome {
            Ok(bytes) => {
                let fate = match self.read_answer(&request, kind, bytes) {
                    Ok(answer) if kind.is_request() => Fate::Answered(answer),
                    Ok(answer) => match peer_refusal(&answer) {
                        None => Fate::Delivered,
                        // It may come again under its id: it was not taken.
                        Some((Some(PeerCode::Overloaded), why)) => {
                            Fate::Failed(IpcError::new(IpcCode::Overloaded, why))
                        }
                        Some((Some(PeerCode::NotAuthorized), why)) => {
                            Fate::Refused(IpcError::new(IpcCode::NotAuthorized, why))
                        }
                        Some((_, why)) => Fate::Refused(IpcError::new(IpcCode::InternalError, why)),
                    },
                    Err(what) => Fate::Failed(unreachable_error(request.to, &what)),
                };
                self.settle(now, token, fate);
            }
            Err(lost) => self.lost(now, token, lost),
        }
    }

    pub(super) fn sent(&mut self, now: Now, token: Token, outcome: Result<(), Lost>) {
        match outcome {
            Ok(()) => self.settle(now, token, Fate::Arrived),
            Err(lost) => self.lost(now, token, lost),
        }
    }

    fn lost(&mut self, now: Now, token: Token, lost: Lost) {
        let Some(pending) = self.pending.get(&token) else { return };
        let peer = pending.envelope.to;
        match (lost, pending.conn) {
            // The connection is over; this may be the first word of it.
            (Lost::Connection(why), Some(conn)) => self.session_over(now, conn, &why),
            (Lost::Connection(_), None) => {}
            (Lost::Reset, _) => {
                let why =
                    "it dropped the message without an answer; if it was repeated, it had been seen before";
                self.settle(now, token, Fate::Failed(unreachable_error(peer, why)));
            }
            (Lost::TooLarge, _) => {
                let why = "its answer is longer than a message may be";
                self.settle(now, token, Fate::Failed(unreachable_error(peer, why)));
            }
        }
    }

    fn read_answer(&mut self, request: &Envelope, kind: &Kind, bytes: Vec<u8>) -> Result<Envelope, String> {
        let answer =
            decode(bytes).map_err(|error| format!("its answer is malformed: {}", error.refusal.message))?;
        self.received += 1;
        if answer.from != request.to || answer.to != self.me || answer.reference != Some(request.id) {
            self.dropped.not_authorized += 1;
            return Err("its answer names another sender, receiver or request".into());
        }
        // One of a kind that nobody here knows is passed on unopened.
        let Some((_, known)) = self.kinds.get(answer.kind()) else { return Ok(answer) };
        if !Self::answers(kind, answer.kind()) {
            self.dropped.not_authorized += 1;
            return Err(format!("it answered a {} with a {}", kind.name, answer.kind()));
        }
        if let Err(why) = (known.check)(answer.payload()) {
            self.dropped.malformed += 1;
            return Err(format!("its answer is malformed: {why}"));
        }
        Ok(answer)
    }

    /// The end of a message: whoever waits for it is told.
    pub(super) fn settle(&mut self, now: Now, token: Token, fate: Fate) {
        let Some(pending) = self.pending.remove(&token) else { return };
        self.timers.clear(Key::Pending(token));
        if let Some(client) = pending.client().and_then(|client| self.agents.clients.get_mut(&client)) {
            client.pending = client.pending.saturating_sub(1);
        }
        if let Some((index, _)) = self.kinds.get(pending.kind.name) {
            let held = matches!(pending.origin, Origin::Held { .. });
            let answer = match &fate {
                // It stays held and is sent again.
                Fate::Answered(answer)
                    if held
                        && peer_refusal(answer)
                            .is_some_and(|(code, _)| code == Some(PeerCode::Overloaded)) =>
                {
                    Err(NoAnswer::HeldBack)
                }
                Fate::Answered(answer) => Ok(answer),
                Fate::Failed(error) if held && error.code != IpcCode::NotOffered => Err(NoAnswer::HeldBack),
                Fate::Failed(_) if pending.sends == 0 => Err(NoAnswer::NotSent),
                Fate::Delivered | Fate::Refused(_) | Fate::Arrived | Fate::Failed(_) => {
                    Err(NoAnswer::Unknown)
                }
            };
            self.tell_family(now, index, FamilyInput::PeerReply { request: &pending.envelope, answer });
        }
        match (&pending.origin, fate) {
            (Origin::Command { client, req_id, v1: false }, fate) => {
                self.settle_command(now, *client, req_id, &pending, fate);
            }
            (Origin::Command { client, req_id, v1: true }, fate) => {
                self.settle_v1(now, *client, req_id, &pending, fate);
            }
            (Origin::Family { command }, fate) => {
                let id = pending.envelope.id;
                let failed = match fate {
                    Fate::Refused(error) | Fate::Failed(error) => Some(error),
                    Fate::Answered(_) | Fate::Delivered | Fate::Arrived => None,
                };
                if let Some((client, req_id)) = command {
                    let line = failed.map_or_else(|| Ok(self.ok_line(req_id, &id)), Err);
                    self.answer_of(*client, req_id, line, Of::Peer(pending.envelope.to));
                } else if let Some(error) = failed {
                    let text =
                        format!("a {} for {} was lost: {}", pending.kind.name, pending.envelope.to, error);
                    // One that does no harm twice is said again anyway.
                    if pending.kind.idempotent { self.debug(text) } else { self.info(text) }
                }
            }
            (Origin::Held { n }, fate) => self.held_settled(now, *n, fate),
            (Origin::Knock, fate) => {
                let answer = match fate {
                    Fate::Answered(answer) => Ok(answer),
                    Fate::Refused(error) | Fate::Failed(error) => Err(error),
                    Fate::Delivered | Fate::Arrived => return,
                };
                self.knock_settled(now, pending.envelope.to, answer);
            }
        }
        self.work_done(now, &pending);
        if let Some(client) = pending.client()
            && self.agents.clients.get(&client).is_some_and(|client| client.leaving)
        {
            self.client_eof(now, client);
        }
    }

    /// A query or delegation is no longer under way: another that waited for that may leave.
    fn work_done(&mut self, now: Now, pending: &Pending) {
        let session = pending.conn.filter(|_| pending.work).and_then(|conn| self.sessions.get_mut(conn));
        let Some(session) = session else { return };
        let was_full = session.work >= WORK_TO_PEER_MAX;
        session.work = session.work.saturating_sub(1);
        if was_full {
            self.flush_pending(now, pending.envelope.to);
        }
    }

    /// Answers a client's command.
    #[inline(never)]
    fn settle_command(&mut self, now: Now, client: ClientId, req_id: &str, pending: &Pending, fate: Fate) {
        let line = match fate {
            Fate::Answered(answer) => {
                let line = Line::ok_in(self.scratch.take(), req_id);
                let line = line.id("msg_id", &pending.envelope.id).raw("response", answer.raw());
                let line = line.end_in(&mut self.scratch);
                let of = Of::Peer(answer.from);
                if self.agents.clients.contains_key(&client) {
                    self.out.push(Effect::Line { client, line, of });
                }
                None
            }
            Fate::Delivered | Fate::Arrived => {
                let delivered = matches!(fate, Fate::Delivered);
                if delivered && pending.envelope.read_receipt {
                    self.await_read(now, client, &pending.envelope);
                }
                let state = if delivered { "delivered" } else { "sent" };
                let line = Line::ok_in(self.scratch.take(), req_id);
                let line = line.id("msg_id", &pending.envelope.id).word("state", state);
                Some(Ok(line.end_in(&mut self.scratch)))
            }
            Fate::Refused(error) | Fate::Failed(error) => Some(Err(error)),
        };
        if let Some(line) = line {
            self.answer_of(client, req_id, line, Of::Peer(pending.envelope.to));
        }
    }

    #[inline(never)]
    fn settle_v1(&mut self, now: Now, client: ClientId, req_id: &str, pending: &Pending, fate: Fate) {
        let id = pending.envelope.id;
        match fate {
            Fate::Answered(answer) => {
                self.out.push(Effect::Line {
                    client,
                    line: v1_line(answer.raw()),
                    of: Of::Peer(answer.from),
                });
            }
            Fate::Delivered | Fate::Arrived => {
                let line = self.ok_line(req_id, &id);
                self.out.push(Effect::Line { client, line, of: Of::Us });
            }
            Fate::Refused(error) => self.answer_of(client, req_id, Err(error), Of::Peer(pending.envelope.to)),
            Fate::Failed(error) if pending.sends == 0 || !pending.kind.is_request() => {
                self.answer_of(client, req_id, Err(error), Of::Peer(pending.envelope.to));
            }
            Fate::Failed(error) => {
                // The command has been answered; what is left is an error of this daemon about that message.
                let code = match error.code {
                    IpcCode::Timeout => PeerCode::Timeout,
                    _ => PeerCode::Internal,
                };
                let payload = error_payload(&Refusal::new(code, error.message)).into();
                if let Ok(envelope) = self.envelope(now, self.me, "error", Some(id), &payload) {
                    self.out.push(Effect::Line {
                        client,
                        line: v1_line(envelope.raw()),
                        of: Of::Peer(pending.envelope.to),
                    });
                }
            }
        }
    }

    /// Answers on a stream; what would be too large becomes an error that says so.
    #[inline(never)]
    pub(super) fn respond(
        &mut self,
        now: Now,
        stream: StreamId,
        to: AgentId,
        reference: MsgId,
        kind: &str,
        payload: &Json<'_>,
    ) -> MsgId {
        // An answer on a connection that drains needs its time to arrive before that is closed.
        if let Some(id) = self.streams.remove(&stream)
            && let Some(open) = self.agents.get(id)
            && let Some(session) = self.sessions.get_mut(open.inbound.conn)
            && session.phase == Phase::Draining
        {
            session.since_ms = now.mono_ms;
        }
        let made = self.envelope(now, to, kind, Some(reference), payload).or_else(|error| {
            let refusal = Refusal::new(PeerCode::Internal, format!("the answer was too large: {error}"));
            self.envelope(now, to, "error", Some(reference), &error_payload(&refusal).into())
        });
        match made {
            Ok(envelope) => {
                self.sent += 1;
                self.out.push(Effect::Respond { stream, bytes: envelope.raw().clone() });
                envelope.id
            }
            Err(_) => {
                self.out.push(Effect::Reset { stream });
                reference
            }
        }
    }
}

/// Whether it may take its peer long to answer, and so counts against what may be under way to one peer.
fn is_work(kind: &Kind, receipted: bool) -> bool {
    if kind.is_request() { matches!(kind.name, "query" | "delegate") } else { receipted }
}

/// The peer cannot be reached: why, and what to do.
pub(super) fn unreachable_error(peer: AgentId, why: &str) -> IpcError {
    let message = format!(
        "{peer} cannot be reached: {why}. Is its daemon running? `axon peers` and `axon doctor` tell more"
    );
    IpcError::new(IpcCode::PeerUnreachable, message)
}
