//! The way in from peers: connections, hello, the gates that a message passes.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Session", "Streams" and "Replay".

use std::net::SocketAddr;
use std::sync::Arc;

use super::timers::Key;
use super::{ConnId, DialId, Effect, Lost, Node, Now, Side, StreamId, TOO_MANY_STRANGERS, Token};
use crate::error::{PeerCode, Refusal};
use crate::family::{Inbound, Input as FamilyInput, Kind, Pattern, error_payload};
use crate::fault::has_room;
use crate::id::{AgentId, MsgId, PublicKey};
use crate::limits::{
    CONNECTIONS_PER_PEER_MAX, DRAIN_MS, FOUND_CONNECTIONS_MAX, PROTOCOL_VERSION, STRANGER_MS, STREAMS_MAX,
};
use crate::peers::Dial;
use crate::session::{Hello, Phase, Session, Verdict, judge};
use crate::wire::{Envelope, decode, to_raw};

/// How long a connection whose hello was refused stays, so that the refusal arrives.
const REFUSAL_LINGER_MS: u64 = 500;

/// Bytes of messages that may overtake the answer to hello.
const EARLY_BYTES_MAX: usize = 1_048_576;
/// Messages that may overtake the answer to hello: more than the peer can have streams, of both directions.
const EARLY_MAX: usize = 3 * STREAMS_MAX as usize;

/// A connection whose handshake is complete.
pub(super) struct Arrival {
    pub conn: ConnId,
    pub peer: AgentId,
    pub key: PublicKey,
    pub side: Side,
    pub addr: SocketAddr,
    pub dial: Option<DialId>,
    pub early: bool,
    pub binding: [u8; 32],
}

impl Node {
    pub(super) fn connected(&mut self, now: Now, arrival: Arrival) {
        let Arrival { conn, peer, key, side, addr, dial, early, binding } = arrival;
        let known =
            self.peers.get(peer).filter(|known| known.key == key).map(|known| (known.is_found(), known.dial));
        let is_stranger = known.is_none();
        let heard = is_stranger
            && side == Side::Acceptor
            && self.peers.get(peer).is_none()
            && !self.peers.is_blocked(peer)
            && peer != self.me
            && (self.hears_strangers() || self.settings.knock.allow.contains(&peer));
        if is_stranger && !heard {
            self.handshake_refused(now, peer);
            return self.out.push(Effect::Close { conn, code: 4, reason: "not pinned" });
        }
        let (is_found, dialling) = known.unwrap_or((false, Dial::Idle { not_before_ms: 0 }));
        if self.stopping {
            return self.out.push(Effect::Close { conn, code: 5, reason: "shutting down" });
        }
        let found =
            |session: &Session| self.peers.get(session.peer).is_some_and(crate::peers::Peer::is_found);
        let found_connections = self.sessions.iter().filter(|session| found(session)).count();
        let has = self.sessions.len() < self.settings.max_connections
            && (!is_found || found_connections < FOUND_CONNECTIONS_MAX);
        let over = !has_room("connections", has);
        let of_peer: Vec<ConnId> = self.conns_of(peer);
        if is_stranger && !self.may_hear(addr.ip()) {
            return self.out.push(Effect::Close { conn, code: 1, reason: TOO_MANY_STRANGERS });
        }
        let crowded = of_peer.first().filter(|_| {
            let has = of_peer.len() < CONNECTIONS_PER_PEER_MAX;
            !has_room("connections of one peer", has)
        });
        if let Some(oldest) = crowded.copied() {
            // The peer's own oldest makes room, so that it cannot fill the table.
            self.close(now, oldest, 2, "too many connections of this peer");
        } else if over {
            self.out.push(Effect::Close { conn, code: 1, reason: "connection limit reached" });
            if side == Side::Dialer {
                self.dial_ended(now, peer, Some("this daemon's own connection limit is reached"));
            }
            return;
        }
        if side == Side::Dialer
            && !matches!((dialling, dial), (Dial::Under { dial: a, .. }, Some(b)) if a == b)
        {
            // An attempt that was given up came through after all.
            return self.out.push(Effect::Close { conn, code: 2, reason: "duplicate" });
        }
        let session = Session {
            peer,
            key,
            is_stranger,
            side,
            addr,
            phase: Phase::Greeting,
            since_ms: now.mono_ms,
            since_wall_ms: now.wall_ms,
            order: 0,
            boot: None,
            features: Vec::new(),
            silent: false,
            early,
            binding,
            work: 0,
            heard_ms: now.mono_ms,
            packets: None,
        };
        self.sessions.insert(conn, session);
        self.timers.set(Key::Hello(conn), now.mono_ms + self.settings.handshake_timeout_secs * 1_000);
        if is_stranger {
            self.timers.set(Key::Stranger(conn), now.mono_ms + STRANGER_MS);
        }
    }

    /// Connections of a peer, oldest first.
    pub(super) fn conns_of(&self, peer: AgentId) -> Vec<ConnId> {
        self.sessions.of(peer).to_vec()
    }

    #[inline(never)]
    pub(super) fn hello_due(&mut self, now: Now, conn: ConnId) {
        if self.sessions.get(conn).is_some_and(|session| session.phase == Phase::Greeting) {
            self.early.remove(&conn);
            self.close(now, conn, 4, "no hello in time");
        }
    }

    /// Answers a hello that came in 0-RTT. Whoever repeats it gets the same again and has changed nothing.
    #[inline(never)]
    pub(super) fn early_hello(&mut self, now: Now, stream: StreamId, peer: AgentId, bytes: Vec<u8>) {
        let Ok(envelope) = decode(bytes) else { return };
        let fits = envelope.from == peer && envelope.to == self.me && envelope.kind() == "hello";
        if fits && self.peers.get(peer).is_some() && !self.stopping && self.read_hello(&envelope).is_ok() {
            self.answer_hello(now, stream, &envelope, false);
        }
    }

    /// One message of a peer, on a bidirectional stream or without one.
    pub(super) fn inbound(&mut self, now: Now, conn: ConnId, stream: Option<StreamId>, bytes: Vec<u8>) {
        let Some(session) = self.sessions.get_mut(conn) else {
            return stream.into_iter().for_each(|stream| self.out.push(Effect::Reset { stream }));
        };
        if session.phase == Phase::Draining {
            session.since_ms = now.mono_ms;
        }
        session.heard_ms = now.mono_ms;
        let peer = session.peer;
        let envelope = match decode(bytes) {
            Ok(envelope) => envelope,
            Err(error) => {
                self.dropped.malformed += 1;
                self.charge(now, peer);
                return self.refuse(now, stream, peer, error.id, &error.refusal);
            }
        };
        self.gate(now, conn, stream, envelope);
    }

    fn gate(&mut self, now: Now, conn: ConnId, stream: Option<StreamId>, envelope: Envelope) {
        let me = self.me;
        let Some(session) = self.sessions.get(conn) else { return };
        let (peer, phase, side) = (session.peer, session.phase, session.side);
        let hello = envelope.kind() == "hello";
        if let Err(refusal) = session.gate(me, &envelope) {
            if refusal.code == PeerCode::NotAuthorized {
                self.dropped.not_authorized += 1;
            } else {
                self.dropped.malformed += 1;
            }
            self.refuse(now, stream, peer, Some(envelope.id), &refusal);
            if hello && phase == Phase::Greeting {
                self.timers.set(Key::CloseAfterRefusal(conn), now.mono_ms + REFUSAL_LINGER_MS);
            }
            return;
        }
        match (phase, stream) {
            (Phase::Greeting, Some(stream)) if hello && side == Side::Acceptor => {
                self.hello(now, conn, stream, &envelope);
            }
            (Phase::Greeting, _) if side == Side::Dialer => {
                // The peer is up as soon as it has answered our hello: its first messages may overtake that
                // answer.
                let early = self.early.entry(conn).or_default();
                let bytes: usize = early.iter().map(|(_, held)| held.raw().len()).sum();
                let has = early.len() < EARLY_MAX && bytes + envelope.raw().len() <= EARLY_BYTES_MAX;
                if has_room("messages before the hello", has) {
                    return early.push((stream, envelope));
                }
                self.dropped.before_hello += 1;
                self.refuse(now, stream, peer, Some(envelope.id), &before_hello());
            }
            (Phase::Greeting, _) => {
                self.dropped.before_hello += 1;
                self.refuse(now, stream, peer, Some(envelope.id), &before_hello());
            }
            (_, Some(stream)) if hello => {
                let stranger = self.sessions.get(conn).is_some_and(|session| session.is_stranger);
                self.answer_hello(now, stream, &envelope, stranger);
            }
            (Phase::Stranger, _) => self.stranger_says(now, conn, stream, envelope),
            _ => self.message(now, conn, stream, envelope),
        }
    }

    /// A message of a peer whose session is up.
    fn message(&mut self, now: Now, conn: ConnId, stream: Option<StreamId>, envelope: Envelope) {
        self.received += 1;
        // A kind whose feature this daemon has not offered is unknown to it.
        let offered = |kind: &Kind| kind.feature.is_none_or(|feature| self.features.contains(&feature));
        let known = self.kinds.get(envelope.kind()).filter(|(_, kind)| offered(kind));
        let refusal = match (known, stream) {
            (Some((_, kind)), Some(_)) if matches!(kind.pattern, Pattern::Reply) => {
                let what =
                    format!("{} is only ever an answer: send it on the request's own stream", kind.name);
                Some(Refusal::new(PeerCode::InvalidEnvelope, what))
            }
            (None, Some(_)) => {
                let names: Vec<&str> = self.request_kinds();
                let what = format!("this kind is not known here; known requests: {}", names.join(", "));
                Some(Refusal::new(PeerCode::UnknownKind, what))
            }
            (Some((_, kind)), None) if !matches!(kind.pattern, Pattern::OneWay) => {
                self.dropped.wrong_stream += 1;
                let text = format!("a {} of {} came one way and was dropped", kind.name, envelope.from);
                return self.debug(text);
            }
            (Some((_, kind)), _) => (kind.check)(envelope.payload())
                .err()
                .map(|what| Refusal::new(PeerCode::InvalidEnvelope, what)),
            (None, None) => None,
        };
        let from = envelope.from;
        if let Some(refusal) = refusal {
            self.dropped.malformed += 1;
            // What is wrong in itself takes of the peer's rate too.
            self.charge(now, from);
            return self.refuse(now, stream, from, Some(envelope.id), &refusal);
        }
        // Rules first: nothing of what they refuse is looked at, remembered or kept.
        let passes = self.may_pass(now, &envelope, known.map(|(_, kind)| kind));
        if let Err(refusal) = passes {
            return self.refuse(now, stream, from, Some(envelope.id), &refusal);
        }
        let request = known.is_some_and(|(_, kind)| kind.is_request());
        if request && self.peers.is_paused(from) {
            self.dropped.limited += 1;
            let refusal = self.paused_refusal();
            return self.refuse(now, stream, from, Some(envelope.id), &refusal);
        }
        let id = envelope.id;
        let at_ms = now.wall_ms;
        let message = Inbound { envelope: Arc::new(envelope), conn, stream, seq: None, at_ms };
        let one_way = known.is_none_or(|(_, kind)| kind.pattern == Pattern::OneWay);
        if known.is_some_and(|(_, kind)| kind.idempotent) {
            if let Some((index, kind)) = known {
                self.tell_family(now, index, FamilyInput::Message { message: &message, kind });
            }
            // A request is answered by its family.
            if one_way {
                self.receipt(now, &message);
            }
            return;
        }
        if self.replay.knows(from, id, now.wall_ms) {
            if self.is_arriving(&message) {
                self.dropped.replayed += 1;
                return;
            }
            return self.repeated(now, &message, known.map(|(index, _)| index), one_way);
        }
        match known {
            Some((index, kind)) if !kind.kept => {
                self.replay.remember_lazily(from, id, now.wall_ms);
                if kind.is_request() && !self.may_open(now, &message) {
                    return;
                }
                self.tell_family(now, index, FamilyInput::Message { message: &message, kind });
            }
            _ if self.stopping => {
                let why = "this daemon is shutting down: try again in a moment";
                let refusal = Refusal::new(PeerCode::Overloaded, why);
                self.refuse(now, stream, from, Some(id), &refusal);
            }
            known => self.arrive(now, message, known),
        }
    }

    /// A message that was seen before: answered again where that is safe, else dropped, always counted.
    pub(super) fn repeated(&mut self, now: Now, message: &Inbound, family: Option<usize>, one_way: bool) {
        self.dropped.replayed += 1;
        if one_way {
            return self.receipt(now, message);
        }
        let answered =
            family.is_some_and(|index| self.tell_family(now, index, FamilyInput::Repeated { message }));
        if let Some(stream) = message.stream.filter(|_| !answered) {
            self.out.push(Effect::Reset { stream });
        }
    }

    /// Whether one more request may be open; says why not.
    pub(super) fn may_open(&mut self, now: Now, message: &Inbound) -> bool {
        let refusal = if self.stopping {
            Refusal::new(PeerCode::Overloaded, "this daemon is shutting down: try again in a moment")
        } else if !self.agents.may_open(message.envelope.from) {
            Refusal::new(PeerCode::Overloaded, "too many requests are open here: try again in a moment")
        } else if self.agents.is_taken(message.envelope.id) {
            Refusal::new(PeerCode::InvalidEnvelope, "id is in use by another request: make a new UUID v4")
        } else {
            return true;
        };
        self.refuse(now, message.stream, message.envelope.from, Some(message.envelope.id), &refusal);
        false
    }

    fn request_kinds(&self) -> Vec<&'static str> {
        let kinds = self.families.iter().flat_map(|family| family.vocabulary().kinds);
        kinds.filter(|kind| kind.is_request()).map(|kind: &Kind| kind.name).collect()
    }

    /// Says on the stream why not; without a valid id nothing can be answered, so the stream is reset.
    pub(super) fn refuse(
        &mut self,
        now: Now,
        stream: Option<StreamId>,
        peer: AgentId,
        id: Option<MsgId>,
        refusal: &Refusal,
    ) {
        match (stream, id) {
            (Some(stream), Some(id)) => {
                self.respond(now, stream, peer, id, "error", &error_payload(refusal).into());
            }
            (Some(stream), None) => self.out.push(Effect::Reset { stream }),
            (None, _) => {
                let text = format!("a one-way message of {peer} was dropped: {}", refusal.message);
                self.debug(text);
            }
        }
    }

    // --- hello ---

    pub(super) fn own_hello(&self, selected_version: Option<u32>) -> Hello {
        Hello {
            protocol_versions: vec![PROTOCOL_VERSION],
            selected_version,
            agent_name: self.settings.name.clone(),
            features: self.features.iter().map(|feature| (*feature).to_owned()).collect(),
            stranger: false,
            boot: Some(self.boot.clone()),
        }
    }

    /// The hello with which a dial begins.
    pub(super) fn hello_envelope(&mut self, now: Now, peer: AgentId) -> Arc<str> {
        let hello = to_raw(&self.own_hello(None)).into();
        match self.envelope(now, peer, "hello", None, &hello) {
            Ok(envelope) => envelope.raw().clone(),
            // A name and our features are far below the limit.
            Err(_) => "{}".into(),
        }
    }

    fn read_hello(&self, envelope: &Envelope) -> Result<Hello, Refusal> {
        let hello = Hello::parse(envelope.payload())?;
        hello.common_version()?;
        Ok(hello)
    }

    fn answer_hello(&mut self, now: Now, stream: StreamId, envelope: &Envelope, stranger: bool) {
        let mut hello = self.own_hello(Some(PROTOCOL_VERSION));
        if stranger {
            // Whoever is not known here learns no more of this agent than that it can be asked to open.
            hello.features = vec!["knock".into()];
            (hello.agent_name, hello.stranger) = (None, true);
        }
        let hello = to_raw(&hello);
        self.respond(now, stream, envelope.from, envelope.id, "hello", &hello.into());
    }

    /// The dialler's hello, on a connection that this daemon accepted.
    fn hello(&mut self, now: Now, conn: ConnId, stream: StreamId, envelope: &Envelope) {
        match self.read_hello(envelope) {
            Ok(hello) => {
                let stranger = self.sessions.get(conn).is_some_and(|session| session.is_stranger);
                self.answer_hello(now, stream, envelope, stranger);
                if stranger { self.stranger_up(now, conn) } else { self.session_up(now, conn, hello) }
            }
            Err(refusal) => {
                self.refuse(now, Some(stream), envelope.from, Some(envelope.id), &refusal);
                self.timers.set(Key::CloseAfterRefusal(conn), now.mono_ms + REFUSAL_LINGER_MS);
            }
        }
    }

    /// The end of the hello that a dial of ours carried; false when the token is of no dial.
    pub(super) fn hello_replied(&mut self, now: Now, token: Token, outcome: &Result<Vec<u8>, Lost>) -> bool {
        let Some(peer) = self.dialled_with(token) else { return false };
        let greeting = |session: &Session| session.side == Side::Dialer && session.phase == Phase::Greeting;
        let conn =
            self.conns_of(peer).into_iter().rev().find(|conn| self.sessions.get(*conn).is_some_and(greeting));
        let hello = match outcome {
            Ok(bytes) => self.read_hello_reply(peer, bytes.clone()),
            Err(Lost::Connection(why)) => Err(why.clone()),
            Err(Lost::Reset | Lost::TooLarge) => Err("the peer did not answer hello".to_owned()),
        };
        match (conn, hello) {
            (Some(conn), Ok(hello)) if hello.stranger => {
                self.early.remove(&conn);
                if !self.is_joining(peer) {
                    let why =
                        "the peer does not know this agent: its owner can let it in (`axon knocks` there)";
                    self.close(now, conn, 0, "not known there");
                    return {
                        self.dial_ended(now, peer, Some(why));
                        true
                    };
                }
                self.dial_ended(now, peer, None);
                self.stranger_up(now, conn);
                if let Some(session) = self.sessions.get_mut(conn) {
                    session.features = hello.features;
                }
                self.join_up(now, peer, conn);
            }
            (Some(conn), Ok(hello)) => {
                self.dial_ended(now, peer, None);
                self.session_up(now, conn, hello);
            }
            (conn, hello) => {
                let why = hello.err().unwrap_or_else(|| "the connection ended before hello was done".into());
                if let Some(conn) = conn {
                    if !matches!(outcome, Err(Lost::Connection(_))) {
                        self.early.remove(&conn);
                    }
                    self.close(now, conn, 4, "hello failed");
                }
                self.dial_ended(now, peer, Some(&why));
            }
        }
        true
    }

    /// The peer whose dial carries this hello.
    fn dialled_with(&self, token: Token) -> Option<AgentId> {
        let carries = |dial: Dial| matches!(dial, Dial::Under { token: of, .. } if of == token);
        self.peers.iter().find(|peer| carries(peer.dial)).map(|peer| peer.id)
    }

    fn read_hello_reply(&self, peer: AgentId, bytes: Vec<u8>) -> Result<Hello, String> {
        let envelope =
            decode(bytes).map_err(|error| format!("its hello is malformed: {}", error.refusal.message))?;
        if envelope.from != peer || envelope.to != self.me {
            return Err("its hello names another sender or receiver".into());
        }
        match envelope.kind() {
            "hello" => {
                let hello = Hello::parse(envelope.payload()).map_err(|refusal| refusal.message)?;
                match hello.selected_version {
                    Some(PROTOCOL_VERSION) => Ok(hello),
                    other => Err(format!("it chose protocol version {other:?}, which is not spoken here")),
                }
            }
            _ => Err(format!("it refused our hello: {}", brief(envelope.payload()))),
        }
    }

    /// Hello is done, and nothing but a knock may follow.
    fn stranger_up(&mut self, now: Now, conn: ConnId) {
        self.timers.clear(Key::Hello(conn));
        // Of one that dialled us the time runs since it connected.
        if self.sessions.get(conn).is_some_and(|session| !session.is_stranger) {
            self.timers.set(Key::Stranger(conn), now.mono_ms + STRANGER_MS);
        }
        if let Some(session) = self.sessions.get_mut(conn) {
            session.phase = Phase::Stranger;
            session.since_ms = now.mono_ms;
        }
    }

    /// Hello is done: from now on the connection is in use, and it is settled which one stays.
    fn session_up(&mut self, now: Now, conn: ConnId, hello: Hello) {
        self.timers.clear(Key::Hello(conn));
        self.sessions_made += 1;
        let order = self.sessions_made;
        let Some(session) = self.sessions.get_mut(conn) else { return };
        let peer = session.peer;
        session.phase = Phase::Up;
        session.order = order;
        session.since_ms = now.mono_ms;
        session.since_wall_ms = now.wall_ms;
        session.features = hello.features;
        session.boot = hello.boot;
        let (addr, side, early) = (session.addr, session.side, session.early);
        let newer = session.clone();
        let others: Vec<(ConnId, Session)> = self
            .conns_of(peer)
            .into_iter()
            .filter(|other| *other != conn)
            .filter_map(|other| Some((other, self.sessions.get(other)?.clone())))
            .filter(|(_, session)| matches!(session.phase, Phase::Up | Phase::Draining))
            .collect();
        for (other, older) in others {
            match judge(self.me, &older, &newer) {
                Verdict::OlderDead => self.close(now, other, 2, "superseded by a restart"),
                _ if older.silent => self.close(now, other, 2, "superseded: it had gone silent"),
                Verdict::NewerStays => self.drain(now, other),
                Verdict::OlderStays if older.phase == Phase::Up => self.drain(now, conn),
                Verdict::OlderStays => {}
            }
        }
        if let Some(known) = self.peers.get_mut(peer) {
            known.claimed_name = hello.agent_name;
            known.connected_wall_ms = now.wall_ms;
            known.backoff_ms = crate::limits::BACKOFF_FIRST_MS;
            known.error = None;
            if side == Side::Dialer {
                known.worked_addr = Some(addr);
            }
            if known.is_found() {
                known.kept = true;
                self.peers_changed = true;
                self.timers.set_if_sooner(Key::SavePeers, now.mono_ms + 200);
            }
        }
        let how = if early { ", hello in 0-RTT" } else { "" };
        let who = if side == Side::Dialer { "dialled" } else { "accepted" };
        self.info(format!("connected to {peer} at {addr} ({who}{how})"));
        let pipe = self.features.contains(&"pipe") && newer.offers("pipe");
        self.out.push(Effect::Up { conn, pipe });
        self.peer_up(now, peer);
        self.flush_pending(now, peer);
        self.outbox.hurry(peer);
        self.pump(now, peer);
        for (stream, envelope) in self.early.remove(&conn).unwrap_or_default() {
            self.gate(now, conn, stream, envelope);
        }
        self.join_up(now, peer, conn);
    }

    /// No new streams of ours on this connection; it closes once nothing is open on it.
    fn drain(&mut self, now: Now, conn: ConnId) {
        if let Some(session) = self.sessions.get_mut(conn) {
            session.phase = Phase::Draining;
            session.since_ms = now.mono_ms;
            self.timers.set(Key::Drain(conn), now.mono_ms + DRAIN_MS);
        }
    }

    #[inline(never)]
    pub(super) fn drain_due(&mut self, now: Now, conn: ConnId) {
        let Some(session) = self.sessions.get(conn).filter(|session| session.phase == Phase::Draining) else {
            return;
        };
        let quiet = session.since_ms + DRAIN_MS <= now.mono_ms;
        let ours = self.pending.values().any(|pending| pending.conn() == Some(conn));
        let theirs = self.agents.iter().any(|open| open.inbound.conn == conn && open.answered.is_none());
        if quiet && !ours && !theirs {
            self.close(now, conn, 2, "duplicate");
        } else {
            // Not a whole wait from now: the last stream may have ended just after the one before began.
            let from = if quiet { now.mono_ms } else { session.since_ms };
            self.timers.set(Key::Drain(conn), from + DRAIN_MS);
        }
    }

    // --- the end of a connection ---

    /// Closes a connection from this side.
    pub(super) fn close(&mut self, now: Now, conn: ConnId, code: u32, reason: &'static str) {
        self.out.push(Effect::Close { conn, code, reason });
        self.session_over(now, conn, reason);
    }

    #[inline(never)]
    pub(super) fn disconnected(&mut self, now: Now, conn: ConnId, why: &str) {
        self.session_over(now, conn, why);
    }

    /// Forgets a connection; what was sent on it and is unanswered goes out again on another.
    pub(super) fn session_over(&mut self, now: Now, conn: ConnId, why: &str) {
        let Some(session) = self.sessions.remove(conn) else { return };
        // They came because the peer has taken our hello, and it knows that they arrived. Requests it sends
        // again.
        let early = self.early.remove(&conn).unwrap_or_default();
        for (_, envelope) in early.into_iter().filter(|(stream, _)| stream.is_none()) {
            if session.gate(self.me, &envelope).is_ok() {
                self.message(now, conn, None, envelope);
            }
        }
        for key in [Key::Hello(conn), Key::Drain(conn), Key::CloseAfterRefusal(conn), Key::Stranger(conn)] {
            self.timers.clear(key);
        }
        let peer = session.peer;
        if matches!(session.phase, Phase::Up | Phase::Draining) {
            self.info(format!("connection to {peer} ended: {why}"));
        }
        if let Some(known) = self.peers.get_mut(peer) {
            known.connected_wall_ms = now.wall_ms;
            if session.phase == Phase::Up && known.error.is_none() {
                known.error = Some(why.to_owned());
            }
        }
        let on_it = self.agents.iter().filter(|open| open.inbound.conn == conn);
        let streams: Vec<StreamId> = on_it.filter_map(|open| open.inbound.stream).collect();
        streams.into_iter().for_each(|stream| self.request_gone(now, stream));
        self.resend(now, conn);
        if session.is_stranger {
            return;
        }
        if session.phase == Phase::Up || session.phase == Phase::Draining {
            self.peer_down(now, peer);
        }
        let lived_ms = now.mono_ms.saturating_sub(session.since_ms);
        self.lost_session(now, peer, (session.phase == Phase::Up).then_some(lived_ms));
        if session.side == Side::Dialer && session.phase != Phase::Up && self.conns_of(peer).is_empty() {
            let idle = self.peers.get(peer).is_some_and(|peer| matches!(peer.dial, Dial::Idle { .. }));
            if idle {
                self.join_unreachable(now, peer, why);
            }
        }
    }

    /// A peer is out: its connections are closed and what waits for it fails.
    pub(super) fn drop_peer(&mut self, now: Now, peer: AgentId, reason: &'static str) {
        self.timers.clear(Key::Dial(peer));
        self.end_requests_of(now, peer);
        self.end_pending(now, peer, "it is no longer among the known peers");
        self.refuse_held_of(now, peer);
        for conn in self.conns_of(peer) {
            self.early.remove(&conn);
            // What is thought of it here is not told to it.
            self.out.push(Effect::Close { conn, code: 0, reason: "not known here any more" });
            self.session_over(now, conn, reason);
        }
    }
}

/// As much of a peer's words as a log or a list of peers needs.
fn brief(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn before_hello() -> Refusal {
    Refusal::new(PeerCode::NotAuthorized, "say hello first: nothing else is taken until it is answered")
}
