//! Carries out what families decide: offers to agents, answers, deliveries; and keeps open requests honest.
//!
//! Source: `spec/IPC.md`, "Answering" and "Events".

use std::collections::VecDeque;
use std::sync::Arc;

use super::outgoing::Origin;
use super::timers::Key;
use super::{ClientId, Effect, Node, Now, StreamId};
use crate::agents::Speaks;
use crate::error::{IpcCode, IpcError, PeerCode, Refusal};
use crate::family::{
    Act, Ended, Inbound, Input as FamilyInput, Kind, Open, OpenState, Unclaimed, error_payload,
};
use crate::id::{AgentId, MsgId};
use crate::ipc::{Line, inbound_line, offered_line, v1_line};
use crate::limits::{QUEUED_REQUESTS_MAX, REQUEST_TIMEOUT_MS};
use crate::mailbox::Row;
use crate::wire::to_raw;

/// What a request is when it is first offered.
struct Fresh {
    message: Inbound,
    kind: &'static Kind,
    domain: Option<String>,
    due_ms: Option<u64>,
    parkable: bool,
}

impl Node {
    /// Does one thing that a family decided; what the family decides in turn is appended to `acts`.
    pub(super) fn carry_out(&mut self, now: Now, act: Act, acts: &mut VecDeque<Act>) {
        match act {
            Act::Reply { stream, to, reference, kind, payload, command } => {
                let id = self.respond(now, stream, to, reference, kind, &payload);
                if let Some((client, req_id)) = command {
                    let line = Line::ok(&req_id).field("msg_id", &id).end();
                    self.answer_line(client, &req_id, Ok(line));
                }
            }
            Act::Offer { message, kind, domain, due_ms, parkable } => {
                let id = message.envelope.id;
                self.open(now, Fresh { message, kind, domain, due_ms, parkable }, None);
                self.offer(now, id, acts);
            }
            Act::OfferTo { message, kind, client, lease, due_ms } => {
                let id = message.envelope.id;
                self.open(now, Fresh { message, kind, domain: None, due_ms, parkable: false }, Some(client));
                self.hand(now, id, client, lease);
            }
            Act::Answered { id, payload, taken, due_ms } => {
                if let Some(open) = self.agents.get_mut(id) {
                    open.answered = Some(payload);
                    open.taken |= taken;
                    open.due_ms = due_ms;
                    self.timers.clear(Key::Due(id));
                    due_ms.into_iter().for_each(|at| self.timers.set(Key::Due(id), at));
                }
            }
            Act::Park { id } => self.agents.enqueue(id, OpenState::Parked),
            Act::Requeue { id } => {
                if let Some(open) = self.agents.get_mut(id) {
                    open.requeued = true;
                    open.taken = false;
                    open.queued = true;
                }
                self.offer(now, id, acts);
            }
            Act::Adopt { id, client } => self.agents.hold(id, client, true),
            Act::Restream { id, message } => {
                if let Some(open) = self.agents.get_mut(id) {
                    let older = open.inbound.stream;
                    let newer = message.stream;
                    open.inbound = message;
                    if let Some(stream) = older {
                        self.streams.remove(&stream);
                    }
                    if let Some(stream) = newer {
                        self.streams.insert(stream, id);
                    }
                }
            }
            Act::End { id, ended, by } => self.end(now, id, ended, by),
            Act::Deliver { message } => self.deliver(now, &message),
            Act::Send { to, kind, reference, payload, command, ends } => {
                let Some((_, kind)) = self.kinds.get(kind).copied() else { return };
                match self.envelope(now, to, kind.name, reference, &payload) {
                    Ok(envelope) => {
                        if let Some(open) = ends.and_then(|id| self.agents.get_mut(id)) {
                            open.finishing = true;
                        }
                        let origin = Origin::Family { command, ends };
                        self.submit(now, envelope, kind, origin, REQUEST_TIMEOUT_MS);
                    }
                    Err(error) => {
                        if let Some((client, req_id)) = command {
                            let error = IpcError::new(IpcCode::MessageTooLarge, error.to_string());
                            self.answer_line(client, &req_id, Err(error));
                        }
                    }
                }
            }
            Act::Answer { client, req_id, result } => {
                let line = result.map(|id| Line::ok(&req_id).field("msg_id", &id).end());
                self.answer_line(client, &req_id, line);
            }
            Act::Drop { message, refusal } => {
                self.dropped.not_authorized += 1;
                if let Some(stream) = message.stream {
                    let (to, id) = (message.envelope.from, message.envelope.id);
                    self.respond(now, stream, to, id, "error", &error_payload(&refusal));
                } else {
                    let from = message.envelope.from;
                    self.debug(format!(
                        "a {} of {from} was dropped: {}",
                        message.envelope.kind, refusal.message
                    ));
                }
            }
        }
    }

    // --- one-way messages ---

    /// Puts a one-way message into the inbox, shows it, and receipts it where that was asked for.
    pub(super) fn deliver(&mut self, now: Now, message: &Inbound) {
        let row = self.mailbox.push(message.envelope.clone(), now.wall_ms);
        self.show(&row, None);
        self.receipt(now, message);
    }

    /// A one-way kind on a bidirectional stream asks whether it was taken.
    pub(super) fn receipt(&mut self, now: Now, message: &Inbound) {
        if let Some(stream) = message.stream {
            let payload = to_raw(&serde_json::json!({ "accepted": true }));
            let (to, id) = (message.envelope.from, message.envelope.id);
            self.respond(now, stream, to, id, "ack", &payload);
        }
    }

    /// Shows a message to everyone who wants to see it, but for the client that gets it to answer.
    fn show(&mut self, row: &Row, answerer: Option<ClientId>) {
        let mut line: Option<Arc<str>> = None;
        let kind = &row.envelope.kind;
        let v1_too = self.settings.allow_v1;
        for (client, state) in &mut self.agents.clients {
            match state.speaks {
                // A v1 client says no hello: one that only listens has said nothing at all.
                Speaks::V1 | Speaks::Unknown if v1_too && state.trusted => {
                    let line = v1_line(&row.envelope);
                    self.out.push(Effect::Event { client: *client, seq: row.seq, line });
                }
                Speaks::V2 if state.wants.wants(kind) && !state.lagging && answerer != Some(*client) => {
                    let line = line.get_or_insert_with(|| inbound_line(row, false)).clone();
                    state.shown = row.seq;
                    self.mailbox.note_delivered(&state.consumer, row.seq);
                    self.out.push(Effect::Event { client: *client, seq: row.seq, line });
                }
                Speaks::V1 | Speaks::V2 | Speaks::Unknown => {}
            }
        }
    }

    // --- requests that agents answer ---

    /// Notes a new request, puts it into the inbox and shows it.
    fn open(&mut self, now: Now, fresh: Fresh, answerer: Option<ClientId>) {
        let Fresh { message, kind, domain, due_ms, parkable } = fresh;
        let id = message.envelope.id;
        let targeted = answerer.is_some();
        let picked = self.agents.pick(kind.name, domain.as_deref());
        // What is refused at once is in nobody's inbox.
        let taken = targeted
            || parkable
            || matches!(picked, Ok(Some(_)))
            || self.agents.queue_has_room(message.envelope.from) && picked.is_ok();
        let mut seq = 0;
        if taken {
            let row = self.mailbox.push(message.envelope.clone(), now.wall_ms);
            self.show(&row, answerer.or(picked.ok().flatten()));
            seq = row.seq;
        }
        if let Some(stream) = message.stream {
            self.streams.insert(stream, id);
        }
        due_ms.into_iter().for_each(|at| self.timers.set(Key::Due(id), at));
        self.agents.insert(Open {
            inbound: message,
            kind,
            domain,
            due_ms,
            answered: None,
            state: OpenState::Waiting,
            seq,
            at_ms: now.wall_ms,
            arrived_ms: now.mono_ms,
            queued: false,
            requeued: false,
            parkable,
            taken: false,
            finishing: false,
            targeted,
        });
    }

    /// Finds an agent for an open request, or lets it wait, or asks its family what to do without one.
    fn offer(&mut self, now: Now, id: MsgId, acts: &mut VecDeque<Act>) {
        let Some(open) = self.agents.get(id) else { return };
        let why = match self.agents.pick(open.kind.name, open.domain.as_deref()) {
            Ok(Some(client)) => {
                let lease = self.lease_of(client);
                return self.hand(now, id, client, lease);
            }
            Ok(None) if self.agents.queue_has_room(open.inbound.envelope.from) => {
                let state = if open.answered.is_some() { OpenState::Parked } else { OpenState::Waiting };
                return self.agents.enqueue(id, state);
            }
            Ok(None) => Unclaimed::QueueFull,
            Err(Unclaimed::Nobody)
                if open.parkable && !self.agents.queue_has_room(open.inbound.envelope.from) =>
            {
                Unclaimed::QueueFull
            }
            Err(why) => why,
        };
        self.unclaimed(now, id, why, acts);
    }

    fn unclaimed(&mut self, now: Now, id: MsgId, why: Unclaimed, acts: &mut VecDeque<Act>) {
        let Some(open) = self.agents.get(id).cloned() else { return };
        if let Some((index, _)) = self.kinds.get(open.kind.name).copied() {
            self.ask_family(now, index, FamilyInput::Unclaimed { open: &open, why }, acts);
        }
    }

    fn lease_of(&self, client: ClientId) -> bool {
        let client = self.agents.clients.get(&client);
        client.and_then(|client| client.answers.as_ref()).is_some_and(|answers| answers.lease)
    }

    /// Hands a request to a client.
    fn hand(&mut self, now: Now, id: MsgId, client: ClientId, lease: bool) {
        self.agents.hold(id, client, lease);
        if let Some(open) = self.agents.get(id).filter(|_| self.agents.clients.contains_key(&client)) {
            let left_ms = open.due_ms.map(|due| due.saturating_sub(now.mono_ms));
            self.out.push(Effect::Line { client, line: offered_line(open, left_ms) });
        }
    }

    /// Hands over what waits, as far as there is capacity.
    pub(super) fn hand_over(&mut self, now: Now) {
        for _ in 0..QUEUED_REQUESTS_MAX {
            let Some((id, client)) = self.agents.next_handover() else { return };
            let lease = self.lease_of(client);
            self.hand(now, id, client, lease);
        }
    }

    /// Ends an open request. A client that held it and did not end it itself is told.
    fn end(&mut self, now: Now, id: MsgId, ended: Ended, by: Option<ClientId>) {
        let Some(open) = self.agents.close(id, ended) else { return };
        self.timers.clear(Key::Due(id));
        if let Some(stream) = open.inbound.stream {
            self.streams.remove(&stream);
        }
        if !open.kind.kept {
            self.mailbox.remove(open.seq);
        }
        if let OpenState::Held { client, .. } = open.state
            && by != Some(client)
            && self.agents.clients.contains_key(&client)
        {
            let line = Line::event("withdrawn").field("ref", &id).field("reason", ended.as_str()).end();
            self.out.push(Effect::Line { client, line });
        }
        self.hand_over(now);
    }

    /// The last word on a request has arrived at the peer, or has not.
    pub(super) fn last_word(&mut self, now: Now, id: MsgId, arrived: bool, by: Option<ClientId>) {
        if arrived {
            return self.end(now, id, Ended::Answered, by);
        }
        let Some(open) = self.agents.get_mut(id) else { return };
        open.finishing = false;
        // Whoever said it has gone since, and cannot say it again.
        let open = open.clone();
        if let OpenState::Held { client, lease: false } = open.state
            && !self.agents.clients.contains_key(&client)
            && let Some((index, _)) = self.kinds.get(open.kind.name).copied()
        {
            self.tell_family(now, index, FamilyInput::Abandoned { open: &open });
        }
    }

    pub(super) fn due(&mut self, now: Now, id: MsgId) {
        let Some(open) = self.agents.get(id).cloned() else { return };
        if let Some((index, _)) = self.kinds.get(open.kind.name).copied() {
            self.tell_family(now, index, FamilyInput::Due { open: &open });
        }
    }

    /// The peer gave up a request's stream. What is kept goes on: its sender may ask again; the rest ends.
    pub(super) fn request_gone(&mut self, now: Now, stream: StreamId) {
        if let Some(id) = self.streams.remove(&stream)
            && self.agents.get(id).is_some_and(|open| !open.kind.kept)
        {
            self.end(now, id, Ended::PeerGone, None);
        }
    }

    /// A client has gone: what it held goes to the next, what waited may have nobody left.
    pub(super) fn client_detached(&mut self, now: Now, client: ClientId) {
        let mut acts = VecDeque::new();
        for id in self.agents.detach(client) {
            // One whose last word is on its way is done with, if that arrives.
            let Some(open) = self.agents.get(id).filter(|open| !open.finishing).cloned() else { continue };
            if open.answered.is_none() && !open.targeted {
                self.offer(now, id, &mut acts);
            } else if let Some((index, _)) = self.kinds.get(open.kind.name).copied() {
                self.ask_family(now, index, FamilyInput::Abandoned { open: &open }, &mut acts);
            }
            // What becomes of one may end another.
            while let Some(act) = acts.pop_front() {
                self.carry_out(now, act, &mut acts);
            }
        }
        self.recheck_waiting(now, &mut acts);
        while let Some(act) = acts.pop_front() {
            self.carry_out(now, act, &mut acts);
        }
    }

    /// Requests that waited for capacity when the last client that could take them went.
    pub(super) fn recheck_waiting(&mut self, now: Now, acts: &mut VecDeque<Act>) {
        for id in self.agents.waiting() {
            let Some(open) = self.agents.get(id) else { continue };
            if let Err(why) = self.agents.pick(open.kind.name, open.domain.as_deref()) {
                self.unclaimed(now, id, why, acts);
            }
        }
    }

    // --- stopping, and peers that are out ---

    /// Refuses what nobody has begun.
    pub(super) fn refuse_waiting(&mut self, now: Now) {
        self.agents.waiting().into_iter().for_each(|id| self.refuse_one(now, id));
    }

    /// Refuses all that has no answer yet.
    pub(super) fn refuse_open(&mut self, now: Now) {
        let unanswered = self.agents.iter().filter(|open| open.answered.is_none());
        let ids: Vec<MsgId> = unanswered.map(|open| open.inbound.envelope.id).collect();
        ids.into_iter().for_each(|id| self.refuse_one(now, id));
    }

    fn refuse_one(&mut self, now: Now, id: MsgId) {
        let Some(open) = self.agents.get(id) else { return };
        let (stream, from) = (open.inbound.stream, open.inbound.envelope.from);
        let refusal =
            Refusal::new(PeerCode::Overloaded, "this daemon is shutting down: try again in a moment");
        if let Some(stream) = stream {
            self.respond(now, stream, from, id, "error", &error_payload(&refusal));
        }
        self.end(now, id, Ended::Cancelled, None);
    }

    /// Ends all requests of a peer that is out.
    pub(super) fn end_requests_of(&mut self, now: Now, peer: AgentId) {
        let theirs = self.agents.iter().filter(|open| open.inbound.envelope.from == peer);
        let ids: Vec<MsgId> = theirs.map(|open| open.inbound.envelope.id).collect();
        ids.into_iter().for_each(|id| self.end(now, id, Ended::PeerGone, None));
    }
}
