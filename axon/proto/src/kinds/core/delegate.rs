//! delegate, cancel, progress, result: work given away, from both ends.
//!
//! Here: an agent gets the delegation, or it waits for one and its sender knows. There: a result is taken
//! only from the peer that has the work. What has become of each is in the [`super::ledger`].

use serde_json::value::RawValue;

use super::ledger::{Direction, Entry, Ledger, State, Unwanted};

use super::payload::{Ack, Delegate, Failure, Outcome, Progress, parse};
use super::{end_refused, wait_ms, why_due, why_unclaimed};
use crate::error::{IpcCode, IpcError, PeerCode, Refusal};
use crate::family::{Act, Admit, Cx, Ended, GivenUp, Inbound, Kind, NoAnswer, Open, OpenState, Unclaimed};
use crate::id::MsgId;
use crate::limits::{REASON_BYTES_MAX, REQUEST_TIMEOUT_MS};
use crate::node::ClientId;
use crate::store::Write;
use crate::wire::{Envelope, Json, cut, raw_json, to_raw};

/// An agent's word on a request.
pub struct Said<'a> {
    /// Who says it.
    pub client: ClientId,
    /// The command's id.
    pub req_id: &'a str,
    /// The reply's kind.
    pub kind: &'a str,
    /// Its payload.
    pub payload: &'a Json<'a>,
    /// Whether the client is told only what goes wrong.
    pub quiet: bool,
}

impl Said<'_> {
    /// Tells the client that it is done.
    pub fn ok(&self, id: MsgId, cx: &mut Cx<'_>) {
        if self.quiet {
            return;
        }
        cx.act(Act::Answer { client: self.client, req_id: self.req_id.to_owned(), result: Ok(id) });
    }

    /// Sends the agent's word on the request's stream; the client is told the message's id, unless it asked
    /// for no reply.
    pub fn answer(&self, open: &Open, kind: &'static str, cx: &mut Cx<'_>) {
        let Envelope { from: to, id: reference, .. } = *open.inbound.envelope;
        let Some(stream) = open.inbound.stream else { return self.ok(reference, cx) };
        let command = (!self.quiet).then(|| (self.client, self.req_id.to_owned()));
        cx.act(Act::Reply {
            stream,
            to,
            reference,
            kind,
            payload: self.payload.clone().into_owned(),
            command,
        });
    }

    fn fail(&self, code: IpcCode, message: &str, cx: &mut Cx<'_>) {
        let result = Err(IpcError::new(code, message));
        cx.act(Act::Answer { client: self.client, req_id: self.req_id.to_owned(), result });
    }
}

/// Whether a delegation is taken; what is stored with it.
pub fn admit(message: &Inbound, ledger: &mut Ledger, cx: &mut Cx<'_>) -> Admit {
    let Envelope { from, id, .. } = *message.envelope;
    if let Some(entry) = ledger.get(Direction::In, id) {
        if entry.peer == from && !entry.again {
            return Admit::Known;
        }
        if entry.peer != from {
            let why = "id is in use by another request: make a new UUID v4";
            return Admit::Refuse(Refusal::new(PeerCode::InvalidEnvelope, why));
        }
    }
    if let Some(why) = cx.view.no_room(from, "delegate") {
        return Admit::Refuse(why_unclaimed(&why));
    }
    // One that was turned away for want of room may have come again.
    let mut writes = ledger.forget(Direction::In, id);
    let terms = terms(message);
    writes.extend(ledger.insert(Direction::In, (id, from), &terms, State::Sent, (cx.now.wall_ms, None)));
    Admit::Take(writes)
}

/// A delegation has come and is on disk.
pub fn message(message: &Inbound, kind: &'static Kind, cx: &mut Cx<'_>) {
    let wait = terms(message).deadline_ms.map_or(REQUEST_TIMEOUT_MS, |ms| wait_ms(Some(ms)));
    let due_ms = Some(cx.now.mono_ms.saturating_add(wait.min(REQUEST_TIMEOUT_MS)));
    cx.act(Act::Offer { message: message.clone(), kind, domain: None, due_ms, parkable: true });
}

/// A delegation that is known came again, because its sender lost the answer.
#[inline(never)]
pub fn repeated(message: &Inbound, ledger: &Ledger, cx: &mut Cx<'_>) {
    let id = message.envelope.id;
    let from = message.envelope.from;
    if let Some(open) =
        cx.view.open(id).filter(|open| open.inbound.envelope.from == from && open.kind.name == "delegate")
    {
        match &open.answered {
            // Also when an agent had accepted it and has gone since.
            Some(_) if !matches!(open.state, OpenState::Held { .. }) => cx.reply(message, "ack", queued()),
            Some(answered) => cx.reply(message, "ack", raw_json(answered.to_string())),
            None => cx.act(Act::Restream { id, message: message.clone() }),
        }
    } else if let Some(entry) = ledger.get(Direction::In, id).filter(|entry| entry.peer == from) {
        // By what is on disk as well, so that a start in between changes nothing.
        let code = match (entry.state, &entry.unwanted) {
            // It was turned away for want of room.
            (State::Refused, _) if entry.again => return cx.act(Act::Again { message: message.clone() }),
            (State::Refused, Some(Unwanted::Declined(reason))) => {
                return cx.reply(message, "ack", declined(reason.as_deref()));
            }
            (State::Refused, Some(Unwanted::Late)) | (State::Expired, _) => PeerCode::Timeout,
            (State::Refused | State::Cancelled, _) => PeerCode::Cancelled,
            _ => {
                let closed = cx.view.closed(id).filter(|closed| closed.from == from);
                let said = closed.and_then(|closed| closed.answered.as_deref());
                let ack = said.map_or_else(accepted, |said| raw_json(said.to_owned()));
                return cx.reply(message, "ack", ack);
            }
        };
        cx.refuse(message, &Refusal::new(code, REFUSED_BEFORE));
    } else if let Some(closed) = cx.view.closed(id).filter(|closed| closed.from == from) {
        // The ledger is full, and its row had to go.
        let code = match (&closed.answered, closed.ended) {
            (_, Ended::Timeout) => PeerCode::Timeout,
            (_, Ended::Cancelled) | (None, _) => PeerCode::Cancelled,
            (Some(answered), _) => return cx.reply(message, "ack", raw_json(answered.to_string())),
        };
        cx.refuse(message, &Refusal::new(code, REFUSED_BEFORE));
    }
}

const AGENT_LEFT: &str = "the agent went away; it waits for another";
const REFUSED_BEFORE: &str =
    "this delegation was refused before: if it is still needed, send it under a new id";

/// The daemon was started again while the delegation was open.
#[inline(never)]
pub fn restored(open: &Open, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    let id = open.inbound.envelope.id;
    if open.taken && matches!(open.state, OpenState::Held { .. }) {
        // It was held with a lease: whoever works on it may come back.
        return;
    }
    if open.taken {
        // Its peer is not connected yet: word of it waits for that as long as any message does.
        if !open.requeued {
            send(open, "progress", progress("queued", Some(AGENT_LEFT)), None, cx);
        }
        return abandoned(open, ledger, cx);
    }
    if open.answered.is_none() {
        // Its sender hears by progress what becomes of it, or by asking again.
        let payload = queued().get().into();
        cx.act(Act::Answered { id, payload, taken: false, due_ms: work_due(open, cx) });
    }
    ledger.set(Direction::In, id, State::Queued, None, cx);
    cx.act(Act::Park { id });
}

/// A delegation that was taken here has ended.
#[inline(never)]
pub fn ended(open: &Open, ended: Ended, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    let id = open.inbound.envelope.id;
    let (otherwise, why) = match ended {
        Ended::Answered if open.taken => (State::Completed, None),
        Ended::Answered => (State::Refused, Some("the agent declined it".to_owned())),
        Ended::TurnedAway => (State::Refused, Some("the agent had no room for it".to_owned())),
        Ended::Timeout if open.answered.is_none() => {
            (State::Refused, Some("no agent took it in time".to_owned()))
        }
        Ended::Timeout => (State::Expired, Some("its deadline passed".to_owned())),
        Ended::Cancelled => {
            (State::Cancelled, Some("its sender cancelled it, or the daemon stopped".to_owned()))
        }
        Ended::PeerGone => (State::Cancelled, Some("its sender is no longer a known peer".to_owned())),
    };
    if let Some(entry) = ledger.get_mut(Direction::In, id) {
        // Its row stays with the scoped socket that had it last.
        entry.via = open.offered_to.as_deref().map(Box::from);
        if ended == Ended::Timeout && open.answered.is_none() {
            entry.unwanted = Some(Unwanted::Late);
        }
    }
    ledger.end(id, (otherwise, why), open.was_turned_away(ended), cx);
}

/// No agent takes the delegation now.
#[inline(never)]
pub fn unclaimed(open: &Open, why: &Unclaimed, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    let id = open.inbound.envelope.id;
    if *why == Unclaimed::QueueFull && open.answered.is_none() {
        return end_refused(open, &why_unclaimed(why), cx);
    }
    if open.answered.is_none() {
        let queued = queued();
        let due_ms = work_due(open, cx);
        cx.act(Act::Answered { id, payload: queued.get().into(), taken: false, due_ms });
        cx.reply(&open.inbound, "ack", queued);
    }
    ledger.set(Direction::In, id, State::Queued, None, cx);
    cx.act(Act::Park { id });
}

/// The delegation is past its due time: the time for an acknowledgement, or for the work.
#[inline(never)]
pub fn due(open: &Open, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    if open.answered.is_none() {
        return end_refused(open, &why_due(open), cx);
    }
    let error = match open.state {
        OpenState::Held { .. } => "the deadline passed before the agent was done",
        OpenState::Waiting | OpenState::Parked => "the deadline passed before an agent took it",
    };
    fail_later(open, ("not done in time", error), Ended::Timeout, ledger, cx);
}

/// The agent that had accepted the delegation has gone.
#[inline(never)]
pub fn abandoned(open: &Open, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    if open.requeued {
        let why = ("not done", "two agents in turn went away while at it");
        return fail_later(open, why, Ended::Cancelled, ledger, cx);
    }
    tell_progress(open, "queued", Some(AGENT_LEFT), cx);
    ledger.set(Direction::In, open.inbound.envelope.id, State::Queued, Some(AGENT_LEFT.to_owned()), cx);
    cx.act(Act::Requeue { id: open.inbound.envelope.id });
}

/// An agent's word on a delegation.
#[inline(never)]
pub fn agent_reply(open: &Open, said: &Said<'_>, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    let id = open.inbound.envelope.id;
    match said.kind {
        "ack" => agent_ack(open, said, ledger, cx),
        "progress" => {
            let state = parse::<Progress>("progress", said.payload.get()).map(|progress| progress.state);
            let state = State::of_progress(&state.unwrap_or_default());
            ledger.progress(Direction::In, id, state, said.payload.get(), cx);
            if !cx.view.offers(open.inbound.envelope.from, "progress") {
                let message = "the peer takes no progress, or is not connected: go on, and send the result";
                return said.fail(IpcCode::NotOffered, message, cx);
            }
            accept_first(open, said, ledger, cx);
            send(open, "progress", said.payload.clone().into_owned(), Some(said), cx);
        }
        "result" => {
            accept_first(open, said, ledger, cx);
            finish(open, said, said.payload.clone().into_owned(), ledger, cx);
        }
        _ => {
            let failure = parse::<Failure>("error", said.payload.get());
            if open.answered.is_none() {
                said.answer(open, "error", cx);
                let overloaded = failure.is_ok_and(|it| it.code == PeerCode::Overloaded.as_str());
                let ended = if overloaded { Ended::TurnedAway } else { Ended::Answered };
                return cx.act(Act::End { id, ended, by: Some(said.client) });
            }
            let message = failure.map_or_else(|error| error, |it| format!("{}: {}", it.code, it.message));
            finish(open, said, failed("refused by the agent", &message), ledger, cx);
        }
    }
}

/// The last word on accepted work: sent, where its sender wants one.
fn finish(open: &Open, said: &Said<'_>, result: Json<'static>, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    let id = open.inbound.envelope.id;
    let writes = ledger.note_last_word(id, status_of(&result), result.clone(), cx.now.wall_ms);
    if terms(&open.inbound).report_back == Some(false) {
        cx.act(Act::End { id, ended: Ended::Answered, by: Some(said.client) });
        return said.ok(id, cx);
    }
    send_ending(open, result, (Some(said), writes), Ended::Answered, cx);
}

fn agent_ack(open: &Open, said: &Said<'_>, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    let id = open.inbound.envelope.id;
    if open.taken {
        return said.fail(
            IpcCode::AlreadyAnswered,
            "it has been acknowledged: send progress or the result",
            cx,
        );
    }
    let ack = parse::<Ack>("ack", said.payload.get()).ok();
    let accepts = ack.as_ref().is_some_and(|ack| ack.accepted);
    match (&open.answered, accepts) {
        (None, true) => {
            said.answer(open, "ack", cx);
            took(open, said, ledger, cx);
        }
        (None, false) => {
            said.answer(open, "ack", cx);
            if let Some(entry) = ledger.get_mut(Direction::In, id) {
                let reason = ack.and_then(|ack| ack.reason).map(|reason| cut(reason, REASON_BYTES_MAX));
                entry.unwanted = Some(Unwanted::Declined(reason));
            }
            let payload = said.payload.get().into();
            cx.act(Act::Answered { id, payload, taken: false, due_ms: None });
            cx.act(Act::End { id, ended: Ended::Answered, by: Some(said.client) });
        }
        (Some(_), true) => {
            tell_progress(open, "accepted", None, cx);
            took(open, said, ledger, cx);
            said.ok(id, cx);
        }
        (Some(_), false) => {
            let reason = ack.and_then(|ack| ack.reason).unwrap_or_else(|| "it gave no reason".into());
            finish(open, said, failed("declined by the agent", &reason), ledger, cx);
        }
    }
}

/// An agent that reports before it has acknowledged has acknowledged.
fn accept_first(open: &Open, said: &Said<'_>, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    if open.answered.is_none() {
        cx.reply(&open.inbound, "ack", accepted());
    }
    if !open.taken {
        took(open, said, ledger, cx);
    }
}

fn took(open: &Open, said: &Said<'_>, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    let id = open.inbound.envelope.id;
    let payload = if said.kind == "ack" { said.payload.get().into() } else { accepted().get().into() };
    let due_ms = work_due(open, cx);
    cx.act(Act::Answered { id, payload, taken: true, due_ms });
    if said.kind != "progress" {
        ledger.set(Direction::In, id, State::Accepted, None, cx);
    }
    if !matches!(open.state, OpenState::Held { client, .. } if client == said.client) {
        cx.act(Act::Adopt { id, client: said.client });
    }
}

/// A peer wants one of its delegations stopped.
pub fn cancel(message: &Inbound, kind: &'static Kind, ledger: &Ledger, cx: &mut Cx<'_>) {
    let from = message.envelope.from;
    let Some(id) = message.envelope.reference else {
        let refusal =
            Refusal::new(PeerCode::InvalidEnvelope, "ref must be the id of the delegation to cancel");
        return cx.refuse(message, &refusal);
    };
    if let Some(closed) = cx.view.closed(id).filter(|closed| closed.from == from && closed.kind == "delegate")
    {
        let reason = Some(format!("it has ended already: {}", closed.ended.as_str()));
        let ack = to_raw(&Ack { accepted: false, estimated_ms: None, state: None, reason });
        return cx.reply(message, "ack", ack);
    }
    let over = |entry: &&Entry| entry.peer == from && entry.state.is_over();
    if let Some(entry) = ledger.get(Direction::In, id).filter(over) {
        // It has ended before this daemon was started.
        let reason = Some(format!("it has ended already: {}", entry.state.as_str()));
        let ack = to_raw(&Ack { accepted: false, estimated_ms: None, state: None, reason });
        return cx.reply(message, "ack", ack);
    }
    let theirs = |open: &&Open| open.kind.name == "delegate" && open.inbound.envelope.from == from;
    let Some(open) = cx.view.open(id).filter(theirs) else {
        let refusal = Refusal::new(
            PeerCode::NotAuthorized,
            "no delegation of yours has that id: only its sender can cancel it",
        );
        return cx.refuse(message, &refusal);
    };
    match open.state {
        OpenState::Waiting | OpenState::Parked => {
            let refusal = Refusal::new(PeerCode::Cancelled, "you cancelled it before an agent took it");
            let inbound = open.inbound.clone();
            if open.answered.is_none() {
                cx.refuse(&inbound, &refusal);
            }
            cx.act(Act::End { id, ended: Ended::Cancelled, by: None });
            cx.reply(message, "ack", accepted());
        }
        OpenState::Held { .. } if cx.view.is_targeted(id) => {
            let why = "the agent has been asked to stop and has not answered yet: wait for that answer";
            cx.refuse(message, &Refusal::new(PeerCode::Overloaded, why));
        }
        OpenState::Held { client, lease } if lease || cx.view.serves(client, "cancel") => {
            let due_ms = Some(cx.now.mono_ms.saturating_add(REQUEST_TIMEOUT_MS));
            cx.act(Act::OfferTo { message: message.clone(), kind, client, lease, due_ms });
        }
        OpenState::Held { .. } => {
            let why = "the agent that works on it takes no cancel: wait for its result";
            cx.refuse(message, &Refusal::new(PeerCode::Unhandled, why));
        }
    }
}

/// An agent's word on a cancel.
#[inline(never)]
pub fn cancel_reply(open: &Open, said: &Said<'_>, cx: &mut Cx<'_>) {
    let id = open.inbound.envelope.id;
    let kind = if said.kind == "error" { "error" } else { "ack" };
    said.answer(open, kind, cx);
    cx.act(Act::End { id, ended: Ended::Answered, by: Some(said.client) });
    if parse::<Ack>("ack", said.payload.get()).is_ok_and(|ack| ack.accepted) && kind == "ack" {
        cancelled(open, Some(said.client), cx);
    }
}

/// The agent that was to stop the work has gone, and the work with it.
#[inline(never)]
pub fn cancel_abandoned(open: &Open, cx: &mut Cx<'_>) {
    cx.reply(&open.inbound, "ack", accepted());
    cx.act(Act::End { id: open.inbound.envelope.id, ended: Ended::Answered, by: None });
    cancelled(open, None, cx);
}

/// Ends the delegation that a cancel is about.
fn cancelled(cancel: &Open, by: Option<ClientId>, cx: &mut Cx<'_>) {
    let Some(id) = cancel.inbound.envelope.reference else { return };
    if let Some(work) = cx.view.open(id).filter(|work| work.answered.is_none()) {
        let inbound = work.inbound.clone();
        cx.refuse(&inbound, &Refusal::new(PeerCode::Cancelled, "you cancelled it"));
    }
    cx.act(Act::End { id, ended: Ended::Cancelled, by });
}

fn terms(message: &Inbound) -> Delegate {
    terms_of(&message.envelope)
}

fn terms_of(envelope: &Envelope) -> Delegate {
    let none =
        Delegate { task: String::new(), context: None, priority: None, report_back: None, deadline_ms: None };
    parse("delegate", envelope.payload()).unwrap_or(none)
}

/// When the work is due, on the clock of `due_ms`: `deadline_ms` counts from the delegation's arrival, which
/// may have been before this daemon was started.
fn work_due(open: &Open, cx: &Cx<'_>) -> Option<u64> {
    let deadline_ms = terms(&open.inbound).deadline_ms.filter(|ms| *ms > 0)?;
    let left_ms = open.at_ms.saturating_add(deadline_ms).saturating_sub(cx.now.wall_ms);
    Some(cx.now.mono_ms.saturating_add(left_ms.min(deadline_ms)))
}

fn status_of(result: &Json<'_>) -> State {
    let status = parse::<Outcome>("result", result.get()).map(|outcome| outcome.status);
    State::of_status(&status.unwrap_or_default())
}

fn accepted() -> Box<RawValue> {
    to_raw(&Ack { accepted: true, estimated_ms: None, state: None, reason: None })
}

fn declined(reason: Option<&str>) -> Box<RawValue> {
    to_raw(&Ack { accepted: false, estimated_ms: None, state: None, reason: reason.map(str::to_owned) })
}

fn queued() -> Box<RawValue> {
    to_raw(&Ack { accepted: true, estimated_ms: None, state: Some("queued".into()), reason: None })
}

fn failed(outcome: &str, error: &str) -> Json<'static> {
    let (status, outcome, error) = ("failed".into(), outcome.into(), Some(error.into()));
    to_raw(&Outcome { status, outcome, data: None, error }).into()
}

fn fail_later(
    open: &Open,
    (outcome, error): (&str, &str),
    ended: Ended,
    ledger: &mut Ledger,
    cx: &mut Cx<'_>,
) {
    let result = failed(outcome, error);
    let id = open.inbound.envelope.id;
    let writes = ledger.note_last_word(id, State::Failed, result.clone(), cx.now.wall_ms);
    if terms(&open.inbound).report_back == Some(false) {
        return cx.act(Act::End { id, ended, by: None });
    }
    send_ending(open, result, (None, writes), ended, cx);
}

fn tell_progress(open: &Open, state: &str, note: Option<&str>, cx: &mut Cx<'_>) {
    if cx.view.offers(open.inbound.envelope.from, "progress") {
        send(open, "progress", progress(state, note), None, cx);
    }
}

fn progress(state: &str, note: Option<&str>) -> Json<'static> {
    let note = note.map(str::to_owned);
    to_raw(&Progress { state: state.to_owned(), percent: None, note, eta_ms: None }).into()
}

fn send(open: &Open, kind: &'static str, payload: Json<'static>, said: Option<&Said<'_>>, cx: &mut Cx<'_>) {
    cx.act(Act::Send {
        to: open.inbound.envelope.from,
        kind,
        reference: Some(open.inbound.envelope.id),
        payload,
        command: said.map(|said| (said.client, said.req_id.to_owned())),
        ends: None,
        held: None,
    });
}

/// Sends a result, which ends the delegation once it is on disk. Work that is done is not thrown away because
/// its sender is away.
fn send_ending(
    open: &Open,
    payload: Json<'static>,
    (said, writes): (Option<&Said<'_>>, Vec<Write>),
    ended: Ended,
    cx: &mut Cx<'_>,
) {
    let id = open.inbound.envelope.id;
    cx.act(Act::Send {
        to: open.inbound.envelope.from,
        kind: "result",
        reference: Some(id),
        payload,
        command: said.map(|said| (said.client, said.req_id.to_owned())),
        ends: Some((id, ended)),
        held: Some(writes),
    });
}

// --- the delegator's side ---

/// One of a client's messages is about to leave: what must be on disk before.
pub fn sending(envelope: &Envelope, held: bool, ledger: &mut Ledger, cx: &Cx<'_>) -> Vec<Write> {
    if envelope.kind() != "delegate" {
        return Vec::new();
    }
    let terms = terms_of(envelope);
    let state = if held { State::Held } else { State::Sent };
    ledger.insert(Direction::Out, (envelope.id, envelope.to), &terms, state, (cx.now.wall_ms, cx.via.clone()))
}

/// A request of ours has been answered, or never will be.
#[inline(never)]
pub fn peer_reply(
    request: &Envelope,
    answer: Result<&Envelope, NoAnswer>,
    ledger: &mut Ledger,
    cx: &mut Cx<'_>,
) {
    match (request.kind(), answer) {
        ("delegate", Ok(answer)) => {
            let (state, why) = answered(answer);
            // Progress, or the result itself, may have come before the answer on the stream.
            let waits = |state: State| matches!(state, State::Held | State::Sent);
            if ledger.get(Direction::Out, request.id).is_some_and(|entry| waits(entry.state)) {
                ledger.set(Direction::Out, request.id, state, why, cx);
            }
        }
        ("delegate", Err(NoAnswer::NotSent)) => {
            let why = "it was not sent: the peer could not be reached".to_owned();
            ledger.set(Direction::Out, request.id, State::Refused, Some(why), cx);
        }
        // Whoever waited has given up; the peer may have it all the same.
        ("delegate", Err(NoAnswer::Unknown))
            if ledger.get(Direction::Out, request.id).is_some_and(|entry| entry.state == State::Sent) =>
        {
            let why = "the peer did not answer in time: it may have it or not".to_owned();
            ledger.set(Direction::Out, request.id, State::Expired, Some(why), cx);
        }
        ("cancel", Ok(answer)) => {
            let accepted = parse::<Ack>("ack", answer.payload()).is_ok_and(|ack| ack.accepted);
            let under_way = |id: &MsgId| {
                ledger.get(Direction::Out, *id).is_some_and(|entry| !entry.state.is_over() && !entry.closing)
            };
            let accepted = answer.kind() == "ack" && accepted;
            if let Some(id) = request.reference.filter(|_| accepted).filter(under_way) {
                let why = Some("you cancelled it".to_owned());
                ledger.set(Direction::Out, id, State::Cancelled, why, cx);
            }
        }
        _ => {}
    }
}

fn answered(answer: &Envelope) -> (State, Option<String>) {
    if answer.kind() == "error" {
        let said = parse::<super::payload::Failure>("error", answer.payload());
        let why = said.map_or_else(|error| error, |said| format!("{}: {}", said.code, said.message));
        return (State::Refused, Some(why));
    }
    match parse::<Ack>("ack", answer.payload()) {
        Ok(ack) if !ack.accepted => {
            (State::Refused, Some(ack.reason.unwrap_or_else(|| "the agent declined it".to_owned())))
        }
        Ok(ack) if ack.state.as_deref() == Some("queued") => (State::Queued, None),
        _ => (State::Accepted, None),
    }
}

/// A held delegation will not be sent any more.
#[inline(never)]
pub fn given_up(id: MsgId, why: GivenUp, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    let (state, why) = match why {
        GivenUp::Expired => (State::Expired, "the peer could not be reached in time"),
        GivenUp::Cancelled => (State::Cancelled, "its sender took it back before it left"),
        GivenUp::Refused => (State::Refused, "it will not be sent: see the outbox"),
        GivenUp::Unknown => (State::Expired, "it left, and whether the peer has it is not known"),
    };
    ledger.set(Direction::Out, id, state, Some(why.to_owned()), cx);
}

/// Whether a result or progress is taken: only from the peer that has the work, and only until it has ended.
pub fn admit_report(message: &Inbound, ledger: &mut Ledger, cx: &Cx<'_>) -> Admit {
    let envelope = &message.envelope;
    let entry = envelope.reference.and_then(|id| ledger.get(Direction::Out, id));
    let Some(entry) = entry.filter(|entry| entry.peer == envelope.from) else {
        return Admit::Refuse(not_theirs());
    };
    if entry.result_id == Some(envelope.id) {
        return Admit::Known;
    }
    if !entry.takes_reports() {
        return Admit::Refuse(not_theirs());
    }
    let id = entry.id;
    if envelope.kind() != "result" {
        return Admit::Take(Vec::new());
    }
    let payload = envelope.payload();
    let state = parse::<Outcome>("result", payload).map(|outcome| State::of_status(&outcome.status));
    let state = state.unwrap_or(State::Completed);
    Admit::Take(ledger.result_writes(id, state, envelope.id, payload, cx.now.wall_ms))
}

/// A result or progress is on disk.
pub fn report(message: &Inbound, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    let envelope = &message.envelope;
    let Some(id) = envelope.reference else { return };
    if envelope.kind() == "result" {
        let outcome = parse::<Outcome>("result", envelope.payload());
        let state = outcome.map_or(State::Completed, |outcome| State::of_status(&outcome.status));
        ledger.result(id, state, envelope.id, envelope.payload(), cx);
    } else if ledger.get(Direction::Out, id).is_some_and(Entry::takes_reports)
        && let Ok(progress) = parse::<Progress>("progress", envelope.payload())
    {
        let state = State::of_progress(&progress.state);
        ledger.progress(Direction::Out, id, state, envelope.payload(), cx);
    }
    cx.act(Act::Deliver { message: message.clone() });
}

/// A delegation or result that was admitted could not be stored.
#[inline(never)]
pub fn not_stored(message: &Inbound, ledger: &mut Ledger, cx: &mut Cx<'_>) {
    let envelope = &message.envelope;
    match (envelope.kind(), envelope.reference) {
        ("delegate", _) => {
            // An earlier one of this id may be on disk.
            for write in ledger.forget(Direction::In, envelope.id) {
                if let Write::Delete { key } = write {
                    cx.act(Act::Delete { key });
                }
            }
        }
        ("result", Some(id)) => {
            if let Some(entry) = ledger.get_mut(Direction::Out, id) {
                entry.closing = false;
            }
        }
        _ => {}
    }
}

fn not_theirs() -> Refusal {
    Refusal::new(PeerCode::NotAuthorized, "ref is no delegation that was sent to you and is under way")
}
