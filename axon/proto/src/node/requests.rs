//! Carries out what families decide: offers to agents, answers, deliveries; and keeps open requests honest.
//!
//! Source: `spec/IPC.md`, "Answering" and "Events".

use std::collections::VecDeque;
use std::sync::Arc;

use super::held::ToHold;
use super::inbox::sender_of;
use super::outgoing::Origin;
use super::storing::{After, Reading};
use super::timers::Key;
use super::{ClientId, ConnId, Effect, Node, Now, Of, StreamId};
use crate::agents::{Client, Work};
use crate::error::{IpcCode, IpcError, PeerCode, Refusal};
use crate::family::{
    Act, Ended, Inbound, Input as FamilyInput, Kind, Open, OpenState, Unclaimed, error_payload,
};
use crate::id::{AgentId, MsgId};
use crate::ipc::{Line, offered_line};
use crate::limits::{FAMILY_REQUEST_MS, LAST_WORDS_MS, QUEUED_REQUESTS_MAX, REQUEST_TIMEOUT_MS};
use crate::mailbox::Shown;
use crate::scope::Right;
use crate::store::{CommitError, Read, Write};
use crate::wire::{Envelope, decode, to_raw};

/// What a list of what families decide may keep of its room between two uses.
const ACTS_KEPT_MAX: usize = 64;
/// How the keys of open requests begin that are open again after a restart.
const OPEN: &str = "open/";
/// How long this daemon waits before it tries again to keep a word of its own.
const SAY_AGAIN_MS: u64 = 5_000;
/// The client that holds what it held with a lease before a restart: it has gone, and may come back.
const GONE: ClientId = ClientId(0);

/// What a request is when it is first offered.
struct Fresh {
    message: Inbound,
    kind: &'static Kind,
    domain: Option<String>,
    due_ms: Option<u64>,
    parkable: bool,
}

/// What an open request is on disk; its envelope follows on the next line.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct KeptOpen {
    seq: u64,
    at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answered: Option<Box<str>>,
    #[serde(default)]
    queued: bool,
    #[serde(default)]
    requeued: bool,
    #[serde(default)]
    taken: bool,
    #[serde(default)]
    lease: bool,
    /// The scoped socket that it was handed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offered_to: Option<String>,
    /// When the answer or the work is due, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_ms: Option<u64>,
}

/// A request that was open when the daemon ended.
#[derive(Debug)]
pub(super) struct Restored {
    kept: KeptOpen,
    envelope: Envelope,
}

impl Node {
    /// Carries out what families decided, and what follows from that.
    pub(super) fn carry_out_all(&mut self, now: Now, mut acts: VecDeque<Act>) {
        while let Some(act) = acts.pop_front() {
            self.carry_out(now, act, &mut acts);
        }
        // The room is used again.
        if (self.acts.capacity()..=ACTS_KEPT_MAX).contains(&acts.capacity()) {
            self.acts = acts;
        }
    }

    /// Does one thing that a family decided; what the family decides in turn is appended to `acts`.
    pub(super) fn carry_out(&mut self, now: Now, act: Act, acts: &mut VecDeque<Act>) {
        match act {
            Act::Reply { stream, to, reference, kind, payload, command } => {
                let id = self.respond(now, stream, to, reference, kind, &payload);
                if let Some((client, req_id)) = command {
                    let line = self.ok_line(&req_id, &id);
                    self.answer_line(client, &req_id, Ok(line));
                }
            }
            Act::Offer { message, kind, domain, due_ms, parkable } => {
                let id = message.envelope.id;
                self.open(Fresh { message, kind, domain, due_ms, parkable }, None);
                self.offer(now, id, acts);
            }
            Act::OfferTo { message, kind, client, lease, due_ms } => {
                let id = message.envelope.id;
                self.open(Fresh { message, kind, domain: None, due_ms, parkable: false }, Some(client));
                self.hand(now, id, client, lease);
            }
            Act::Answered { id, payload, taken, due_ms } => self.answered(now, id, payload, taken, due_ms),
            Act::Park { id } => {
                self.agents.enqueue(id, OpenState::Parked);
                self.note_open(now, id);
            }
            Act::Requeue { id } => {
                if let Some(open) = self.agents.get_mut(id) {
                    open.requeued = true;
                    open.taken = false;
                    open.queued = true;
                }
                self.note_open(now, id);
                self.offer(now, id, acts);
            }
            Act::Adopt { id, client } => {
                self.agents.hold(id, client, true);
                self.note_open(now, id);
            }
            Act::Restream { id, message } => self.restream(id, &message),
            Act::Again { message } => {
                self.replay.forget(message.envelope.from, message.envelope.id);
                let known = self.kinds.get(message.envelope.kind());
                self.arrive(now, message, known);
            }
            Act::End { id, ended, by } => self.end(now, id, ended, by),
            Act::Deliver { message } => self.deliver(now, &message),
            Act::Send { to, kind, reference, payload, command, ends, held } => {
                let Some((_, kind)) = self.kinds.get(kind) else { return };
                let mut finishing = false;
                let hold_ms = held.is_some().then(|| self.result_hold_ms());
                let sent = match self.made(now, to, kind.name, (reference, &payload), hold_ms) {
                    Ok(envelope) if held.is_some() => {
                        let mut writes = held.unwrap_or_default();
                        writes.extend(ends.map(|(id, _)| Self::no_longer_open(id)));
                        let consumer = command.as_ref().and_then(|(client, _)| {
                            Some(Box::from(&*self.agents.clients.get(client)?.consumer))
                        });
                        let hold_ms = self.result_hold_ms();
                        let waiter = command.clone();
                        finishing = true;
                        self.hold(now, ToHold { envelope, hold_ms, consumer, waiter, ends, writes })
                    }
                    Ok(envelope) => {
                        let origin = Origin::Family { command: command.clone() };
                        let wait_ms = self.patience_ms(kind, command.is_some());
                        self.submit(now, Arc::new(envelope), kind, origin, wait_ms);
                        Ok(())
                    }
                    Err(error) => Err(IpcError::new(IpcCode::MessageTooLarge, error.to_string())),
                };
                match (sent, ends.and_then(|(id, _)| self.agents.get_mut(id)), command) {
                    (Ok(()), open, _) => open.into_iter().for_each(|open| open.finishing = finishing),
                    (Err(error), _, Some((client, req_id))) => {
                        self.answer_line(client, &req_id, Err(error));
                    }
                    (Err(error), open, None) => {
                        let again = open.map(|open| open.inbound.envelope.id);
                        self.info(format!("a {} for {to} could not be kept: {error}", kind.name));
                        again.into_iter().for_each(|id| self.say_again(now, id));
                    }
                }
            }
            Act::Put { key, value } => self.note([Write::Put { key, value }]),
            Act::Delete { key } => self.note([Write::Delete { key }]),
            Act::Fetch { family, client, req_id, note, keys } => {
                let mut families = self.families.iter().map(|known| known.vocabulary().family);
                let Some(family) = families.position(|known| known == family) else { return };
                self.begin_reading(client);
                self.read(Read::Items { keys }, Reading::Fetch { family, client, req_id, note });
            }
            Act::Load { family, token, keys } => self.load_for(family, token, keys),
            Act::Take { family, token, notes, kept, writes } => {
                self.take_notes(now, (family, token), notes, kept, writes);
            }
            Act::Missed { kind } => self.all_lag(kind),
            Act::Promise { client } => self.promise(client),
            Act::Fulfil { client, req_id, result } => self.fulfil(now, client, &req_id, result),
            Act::Listen { client, kind, on } => self.agents.set_listens(client, kind, on),
            Act::Tell { client, line } => {
                if self.agents.clients.contains_key(&client) {
                    self.out.push(Effect::Line { client, line, of: Of::Several });
                }
            }
            Act::Await { client, waits } => self.awaits(now, client, waits),
            Act::Watch { client, on } => {
                if let Some(state) = self.agents.clients.get_mut(&client) {
                    state.watches = on;
                }
            }
            Act::TellWatchers { line, peer, via } => self.tell_watchers(&line, peer, via.as_deref()),
            Act::WasRead { by, id, read, message } => self.read_there(now, by, (id, read), message, acts),
            Act::Knock { message, knock } => self.knock(now, &message, &knock),
            Act::Rekey { message, rekey } => self.peer_rekey(now, &message, &rekey),
            Act::Answer { client, req_id, result } => {
                let line = result.map(|id| self.ok_line(&req_id, &id));
                self.answer_line(client, &req_id, line);
            }
            Act::Drop { message, refusal } => self.drop_message(now, &message, &refusal),
        }
    }

    #[inline(never)]
    fn answered(&mut self, now: Now, id: MsgId, payload: Arc<str>, taken: bool, due_ms: Option<u64>) {
        self.agents.answered(id, payload);
        if let Some(open) = self.agents.get_mut(id) {
            open.taken |= taken;
            open.due_ms = due_ms;
            self.timers.clear(Key::Due(id));
            due_ms.into_iter().for_each(|at| self.timers.set(Key::Due(id), at));
        }
        self.note_open(now, id);
    }

    #[inline(never)]
    fn restream(&mut self, id: MsgId, message: &Inbound) {
        if let Some(open) = self.agents.get_mut(id) {
            let older = open.inbound.stream;
            // What was stored and offered stays what it was.
            (open.inbound.stream, open.inbound.conn) = (message.stream, message.conn);
            // Nothing comes on it any more, and whoever waits there is told so.
            if let Some(stream) = older.filter(|stream| self.streams.remove(stream).is_some()) {
                self.out.push(Effect::Reset { stream });
            }
            if let Some(stream) = message.stream {
                self.streams.insert(stream, id);
            }
        }
    }

    /// A peer says that a message of ours was read there.
    #[inline(never)]
    fn read_there(
        &mut self,
        now: Now,
        by: AgentId,
        (id, read): (MsgId, bool),
        message: Inbound,
        acts: &mut VecDeque<Act>,
    ) {
        if !self.disk_has_room_for(by) {
            self.read_is_stored(now, &message, Err(CommitError::Disk("too much waits for it".into())));
            return;
        }
        match self.was_read(now, by, id, read) {
            Ok(None) => self.receipt(now, &message),
            Ok(Some(write)) => {
                self.commit(vec![write], After::ReadTold(Box::new(message)));
            }
            Err(()) => {
                let why = "ref is no message that was sent to you";
                let refusal = Refusal::new(PeerCode::NotAuthorized, why);
                acts.push_back(Act::Drop { message, refusal });
            }
        }
    }

    /// Refuses a one-way message.
    #[inline(never)]
    fn drop_message(&mut self, now: Now, message: &Inbound, refusal: &Refusal) {
        self.dropped.not_authorized += 1;
        if let Some(seq) = message.seq {
            self.decide(seq, None);
            self.gone(vec![seq]);
        }
        if let Some(stream) = message.stream {
            let (to, id) = (message.envelope.from, message.envelope.id);
            self.respond(now, stream, to, id, "error", &error_payload(refusal).into());
        } else {
            let from = message.envelope.from;
            self.debug(format!("a {} of {from} was dropped: {}", message.envelope.kind(), refusal.message));
        }
    }

    /// A delegation has changed: says so to the clients that watch them and see it.
    #[inline(never)]
    fn tell_watchers(&mut self, line: &Arc<str>, peer: AgentId, via: Option<&str>) {
        let sees = |client: &Client| {
            client.scope.as_ref().is_none_or(|scope| {
                via == Some(&*scope.name) && scope.sees_peer(peer) && scope.may(Right::Send)
            })
        };
        for (client, _) in self.agents.clients.iter().filter(|(_, state)| state.watches && sees(state)) {
            self.out.push(Effect::Line { client: *client, line: line.clone(), of: Of::Several });
        }
    }

    /// How long it is waited for what a family sends, perhaps on a client's command.
    fn patience_ms(&self, kind: &Kind, commanded: bool) -> u64 {
        match commanded {
            true => REQUEST_TIMEOUT_MS,
            false if self.stopping => LAST_WORDS_MS,
            false if kind.is_request() => FAMILY_REQUEST_MS,
            false => REQUEST_TIMEOUT_MS,
        }
    }

    // --- one-way messages ---

    /// Shows a one-way message that is in the inbox, and receipts it where that was asked for.
    pub(super) fn deliver(&mut self, now: Now, message: &Inbound) {
        if let Some(seq) = message.seq {
            let row = self.row_of(message, seq);
            self.decide(seq, Some(Shown { row, from: message.envelope.from, except: None }));
        }
        self.receipt(now, message);
    }

    /// A one-way kind on a bidirectional stream asks whether it was taken.
    #[inline(never)]
    pub(super) fn receipt(&mut self, now: Now, message: &Inbound) {
        if let Some(stream) = message.stream {
            let payload = to_raw(&serde_json::json!({ "accepted": true })).into();
            let (to, id) = (message.envelope.from, message.envelope.id);
            self.respond(now, stream, to, id, "ack", &payload);
        }
    }

    // --- requests that agents answer ---

    /// Notes a new request, puts it into the inbox and shows it.
    fn open(&mut self, fresh: Fresh, answerer: Option<ClientId>) {
        let Fresh { message, kind, domain, due_ms, parkable } = fresh;
        let id = message.envelope.id;
        let targeted = answerer.is_some();
        let (from, has_domain) = (message.envelope.from, kind.has_domain);
        let picked = self.agents.pick(Work { from, kind: kind.name, has_domain, domain: domain.as_deref() });
        // What is refused at once is in nobody's inbox.
        let taken = targeted
            || parkable
            || matches!(picked, Ok(Some(_)))
            || self.agents.queue_has_room(message.envelope.from) && picked.is_ok();
        let except = answerer.or(picked.ok().flatten());
        let at_ms = message.at_ms;
        // One that is kept has its number and is on disk; another is here as long as it is open.
        let seq = match message.seq {
            Some(seq) => seq,
            None if taken => self.mailbox.number(),
            None => 0,
        };
        if taken {
            let row = self.row_of(&message, seq);
            if message.seq.is_none() {
                self.mailbox.hold(row.clone());
            }
            self.decide(seq, Some(Shown { row, from: message.envelope.from, except }));
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
            at_ms,
            queued: false,
            requeued: false,
            parkable,
            taken: false,
            finishing: false,
            targeted,
            offered_to: None,
        });
    }

    /// Finds an agent for an open request, or lets it wait, or asks its family what to do without one.
    fn offer(&mut self, now: Now, id: MsgId, acts: &mut VecDeque<Act>) {
        let Some(open) = self.agents.get(id) else { return };
        let why = match self.agents.pick(open.into()) {
            Ok(Some(client)) if !self.peers.is_paused(open.inbound.envelope.from) => {
                let lease = self.lease_of(client);
                return self.hand(now, id, client, lease);
            }
            Ok(_) if self.agents.queue_has_room(open.inbound.envelope.from) => {
                let state = if open.answered.is_some() { OpenState::Parked } else { OpenState::Waiting };
                return self.agents.enqueue(id, state);
            }
            Ok(_) => Unclaimed::QueueFull,
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
        self.ask_about(now, id, acts, |family, open, cx| {
            family.handle(FamilyInput::Unclaimed { open, why }, cx);
        });
    }

    fn lease_of(&self, client: ClientId) -> bool {
        let client = self.agents.clients.get(&client);
        client.and_then(|client| client.answers()).is_some_and(|answers| answers.lease)
    }

    /// Hands a request to a client.
    fn hand(&mut self, now: Now, id: MsgId, client: ClientId, lease: bool) {
        self.agents.hold(id, client, lease);
        if let Some(open) = self.agents.get(id).filter(|_| self.agents.clients.contains_key(&client)) {
            let left_ms = open.due_ms.map(|due| due.saturating_sub(now.mono_ms));
            let from = open.inbound.envelope.from;
            let line = offered_line(&mut self.scratch, open, sender_of(&self.peers, from), left_ms);
            self.out.push(Effect::Line { client, line, of: Of::Peer(from) });
        }
        let socket = self.scope_of(client).map(|scope| scope.name.clone());
        if let Some(open) = self.agents.get_mut(id) {
            open.offered_to = socket;
        }
        self.note_open(now, id);
    }

    /// Hands over what waits, as far as there is capacity.
    pub(super) fn hand_over(&mut self, now: Now) {
        for _ in 0..QUEUED_REQUESTS_MAX {
            let (agents, peers) = (&self.agents, &self.peers);
            let Some((id, client)) = agents.next_handover(|peer| peers.is_paused(peer)) else { return };
            let lease = self.lease_of(client);
            self.hand(now, id, client, lease);
            self.agents.had_turn(id);
        }
    }

    /// Ends an open request. A client that held it and did not end it itself is told.
    fn end(&mut self, now: Now, id: MsgId, ended: Ended, by: Option<ClientId>) {
        let Some(open) = self.agents.close(id, ended) else { return };
        self.timers.clear(Key::Due(id));
        if let Some(stream) = open.inbound.stream {
            self.streams.remove(&stream);
        }
        if open.kind.kept {
            self.note([Self::no_longer_open(id)]);
        } else {
            self.mailbox.release(open.seq);
        }
        if let Some((index, _)) = self.kinds.get(open.kind.name) {
            self.tell_family(now, index, FamilyInput::Ended { open: &open, ended });
        }
        // Only now: what is noted of it goes to the disk at once, all or nothing.
        if open.kind.kept && open.was_turned_away(ended) {
            // Nobody had room for it. It may come again under its id, and is in nobody's inbox.
            self.replay.forget(open.inbound.envelope.from, id);
            self.agents.forget_closed(id);
            self.gone(vec![open.seq]);
        } else if open.kind.kept {
            self.may_go(open.seq);
        }
        if let OpenState::Held { client, .. } = open.state
            && by != Some(client)
            && self.agents.clients.contains_key(&client)
        {
            let line = Line::event("withdrawn").field("ref", &id).field("reason", ended.as_str()).end();
            self.out.push(Effect::Line { client, line, of: Of::Us });
        }
        self.hand_over(now);
    }

    /// The last word on a request is on disk, to be sent until it arrives; or could not be stored.
    pub(super) fn last_word(
        &mut self,
        now: Now,
        (id, ended): (MsgId, Ended),
        stored: bool,
        by: Option<ClientId>,
    ) {
        if stored {
            return self.end(now, id, ended, by);
        }
        let Some(open) = self.agents.get_mut(id) else { return };
        open.finishing = false;
        if by.is_none() {
            // This daemon's own word.
            return self.say_again(now, id);
        }
        // Whoever said it has gone since, and cannot say it again.
        if let OpenState::Held { client, lease: false } = open.state
            && !self.agents.clients.contains_key(&client)
        {
            self.with_open(now, id, |family, open, cx| family.handle(FamilyInput::Abandoned { open }, cx));
        }
    }

    /// This daemon's own last word could not be kept: it says it again in a while.
    fn say_again(&mut self, now: Now, id: MsgId) {
        self.timers.set(Key::Due(id), now.mono_ms + SAY_AGAIN_MS);
    }

    #[inline(never)]
    pub(super) fn due(&mut self, now: Now, id: MsgId) {
        // One whose last word is being stored has been in time.
        if self.agents.get(id).is_some_and(|open| !open.finishing) {
            self.with_open(now, id, |family, open, cx| family.handle(FamilyInput::Due { open }, cx));
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
            let Some(open) = self.agents.get(id).filter(|open| !open.finishing) else { continue };
            if open.answered.is_none() && !open.targeted {
                self.offer(now, id, &mut acts);
            } else {
                self.ask_about(now, id, &mut acts, |family, open, cx| {
                    family.handle(FamilyInput::Abandoned { open }, cx);
                });
            }
            // What becomes of one may end another.
            self.carry_out_all(now, std::mem::take(&mut acts));
        }
        self.recheck_waiting(now, &mut acts);
        self.carry_out_all(now, acts);
    }

    /// Requests that waited for capacity when the last client that could take them went.
    pub(super) fn recheck_waiting(&mut self, now: Now, acts: &mut VecDeque<Act>) {
        for id in self.agents.waiting() {
            let Some(open) = self.agents.get(id) else { continue };
            if let Err(why) = self.agents.pick(open.into()) {
                self.unclaimed(now, id, why, acts);
            }
        }
    }

    // --- requests that outlive the daemon ---

    /// A delegation as it is first stored, with the message itself.
    pub(super) fn first_open(message: &Inbound) -> Write {
        let kept = KeptOpen {
            seq: message.seq.unwrap_or(0),
            at_ms: message.at_ms,
            answered: None,
            queued: false,
            requeued: false,
            taken: false,
            lease: false,
            offered_to: None,
            due_ms: None,
        };
        open_item(&kept, &message.envelope)
    }

    /// What is stored when a request is not open any more.
    pub(super) fn no_longer_open(id: MsgId) -> Write {
        Write::delete(format!("{OPEN}{id}"))
    }

    /// Stores how an open request stands now.
    pub(super) fn note_open(&mut self, now: Now, id: MsgId) {
        let Some(open) = self.agents.get(id).filter(|open| open.kind.kept) else { return };
        let wall = |due_ms: u64| due_ms.saturating_sub(now.mono_ms).saturating_add(now.wall_ms);
        let kept = KeptOpen {
            seq: open.seq,
            at_ms: open.at_ms,
            answered: open.answered.as_deref().map(Box::from),
            queued: open.queued,
            requeued: open.requeued,
            taken: open.taken,
            lease: matches!(open.state, OpenState::Held { lease: true, .. }),
            offered_to: open.offered_to.clone(),
            due_ms: open.due_ms.map(wall),
        };
        let item = open_item(&kept, &open.inbound.envelope);
        self.note([item]);
    }

    /// Takes over an item of the store; false if it is no open request.
    pub(super) fn restore_open(&mut self, key: &str, value: &[u8]) -> bool {
        if !key.starts_with(OPEN) {
            return false;
        }
        let end = value.iter().position(|byte| *byte == b'\n').unwrap_or(value.len());
        let (state, envelope) = value.split_at(end);
        if let (Ok(kept), Ok(envelope)) = (serde_json::from_slice(state), decode(envelope.to_vec())) {
            self.restored.push(Restored { kept, envelope });
        }
        true
    }

    /// Opens again what was open when the daemon ended, in the order in which it came.
    pub(super) fn reopen(&mut self, now: Now) {
        let mut restored = std::mem::take(&mut self.restored);
        restored.sort_by_key(|one| one.kept.seq);
        for Restored { kept, envelope } in restored {
            let Some((_, kind)) = self.kinds.get(envelope.kind()) else { continue };
            let id = envelope.id;
            // Its sender may have been taken out of the configuration meanwhile.
            let known = self.peers.get(envelope.from).is_some();
            let left = |due_ms: u64| due_ms.saturating_sub(now.wall_ms).saturating_add(now.mono_ms);
            let due_ms = kept.due_ms.map(left);
            let (seq, at_ms) = (Some(kept.seq), kept.at_ms);
            let inbound = Inbound { envelope: Arc::new(envelope), conn: ConnId(0), stream: None, seq, at_ms };
            self.agents.insert(Open {
                inbound,
                kind,
                domain: None,
                due_ms,
                answered: kept.answered.map(Arc::from),
                state: OpenState::Parked,
                seq: kept.seq,
                at_ms,
                queued: kept.queued,
                requeued: kept.requeued,
                parkable: true,
                taken: kept.taken,
                finishing: false,
                targeted: false,
                offered_to: kept.offered_to,
            });
            if kept.taken && kept.lease {
                self.agents.hold(id, GONE, true);
            }
            due_ms.into_iter().for_each(|at| self.timers.set(Key::Due(id), at));
            if !known {
                self.end(now, id, Ended::PeerGone, None);
            } else {
                self.with_open(now, id, |family, open, cx| family.handle(FamilyInput::Restored { open }, cx));
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
        if open.kind.kept {
            // It is on disk and goes on after the next start. Its sender hears that it is kept.
            let queued = to_raw(&serde_json::json!({ "accepted": true, "state": "queued" }));
            let unanswered = open.answered.is_none();
            if unanswered {
                self.agents.answered(id, queued.get().into());
                self.note_open(now, id);
            }
            if let Some(stream) = stream.filter(|_| unanswered) {
                self.respond(now, stream, from, id, "ack", &queued.into());
            }
            return;
        }
        let refusal =
            Refusal::new(PeerCode::Overloaded, "this daemon is shutting down: try again in a moment");
        if let Some(stream) = stream {
            self.respond(now, stream, from, id, "error", &error_payload(&refusal).into());
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

fn open_item(kept: &KeptOpen, envelope: &Envelope) -> Write {
    let mut value = serde_json::to_vec(kept).unwrap_or_default();
    value.push(b'\n');
    value.extend_from_slice(envelope.raw().as_bytes());
    Write::put(format!("{OPEN}{}", envelope.id), value)
}
