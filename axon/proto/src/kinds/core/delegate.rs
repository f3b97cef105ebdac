//! delegate, cancel, progress, result: work given away, from both ends.
//!
//! Here: an agent gets the delegation, or it waits for one and its sender knows. There: which delegations
//! this daemon has sent to whom, so that a result is taken only from the peer that has the work.

use std::collections::{HashMap, VecDeque};

use serde_json::value::RawValue;

use super::payload::{Ack, Delegate, Outcome, Progress, parse};
use super::{end_refused, wait_ms, why_due, why_unclaimed};
use crate::error::{IpcCode, IpcError, PeerCode, Refusal};
use crate::family::{Act, Cx, Ended, Inbound, Kind, Open, OpenState, Unclaimed};
use crate::id::{AgentId, MsgId};
use crate::limits::{DELEGATIONS_MAX, REQUEST_TIMEOUT_MS};
use crate::node::ClientId;
use crate::wire::{Envelope, raw_json, to_raw};

/// An agent's word on a request.
pub struct Said<'a> {
    /// Who says it.
    pub client: ClientId,
    /// The command's id.
    pub req_id: &'a str,
    /// The reply's kind.
    pub kind: &'a str,
    /// Its payload.
    pub payload: &'a RawValue,
}

impl Said<'_> {
    /// Tells the client that it is done.
    pub fn ok(&self, id: MsgId, cx: &mut Cx<'_>) {
        cx.act(Act::Answer { client: self.client, req_id: self.req_id.to_owned(), result: Ok(id) });
    }

    /// Sends the agent's word on the request's stream; the client is told the message's id.
    pub fn answer(&self, open: &Open, kind: &'static str, cx: &mut Cx<'_>) {
        let Envelope { from: to, id: reference, .. } = *open.inbound.envelope;
        let Some(stream) = open.inbound.stream else { return self.ok(reference, cx) };
        let command = Some((self.client, self.req_id.to_owned()));
        cx.act(Act::Reply { stream, to, reference, kind, payload: self.payload.to_owned(), command });
    }

    fn fail(&self, code: IpcCode, message: &str, cx: &mut Cx<'_>) {
        let result = Err(IpcError::new(code, message));
        cx.act(Act::Answer { client: self.client, req_id: self.req_id.to_owned(), result });
    }
}

/// A delegation has come.
pub fn message(message: &Inbound, kind: &'static Kind, cx: &mut Cx<'_>) {
    let wait = terms(message).deadline_ms.map_or(REQUEST_TIMEOUT_MS, |ms| wait_ms(Some(ms)));
    let due_ms = Some(cx.now.mono_ms.saturating_add(wait.min(REQUEST_TIMEOUT_MS)));
    cx.act(Act::Offer { message: message.clone(), kind, domain: None, due_ms, parkable: true });
}

/// A delegation that is known came again, because its sender lost the answer.
pub fn repeated(message: &Inbound, cx: &mut Cx<'_>) {
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
    } else if let Some(closed) = cx.view.closed(id).filter(|closed| closed.from == from) {
        let code = match (&closed.answered, closed.ended) {
            (Some(answered), _) => return cx.reply(message, "ack", raw_json(answered.to_string())),
            (None, Ended::Timeout) => PeerCode::Timeout,
            (None, _) => PeerCode::Cancelled,
        };
        let why = "this delegation was refused before: if it is still needed, send it under a new id";
        cx.refuse(message, &Refusal::new(code, why));
    }
}

/// No agent takes the delegation now.
pub fn unclaimed(open: &Open, why: &Unclaimed, cx: &mut Cx<'_>) {
    let id = open.inbound.envelope.id;
    if *why == Unclaimed::QueueFull && open.answered.is_none() {
        return end_refused(open, &why_unclaimed(why), cx);
    }
    if open.answered.is_none() {
        let queued = queued();
        cx.act(Act::Answered { id, payload: queued.get().into(), taken: false, due_ms: work_due(open) });
        cx.reply(&open.inbound, "ack", queued);
    }
    cx.act(Act::Park { id });
}

/// The delegation is past its due time: the time for an acknowledgement, or for the work.
pub fn due(open: &Open, cx: &mut Cx<'_>) {
    if open.answered.is_none() {
        return end_refused(open, &why_due(open), cx);
    }
    let error = match open.state {
        OpenState::Held { .. } => "the deadline passed before the agent was done",
        OpenState::Waiting | OpenState::Parked => "the deadline passed before an agent took it",
    };
    fail_later(open, "not done in time", error, Ended::Timeout, cx);
}

/// The agent that had accepted the delegation has gone.
pub fn abandoned(open: &Open, cx: &mut Cx<'_>) {
    if open.requeued {
        return fail_later(
            open,
            "not done",
            "two agents in turn went away while at it",
            Ended::Cancelled,
            cx,
        );
    }
    tell_progress(open, "queued", Some("the agent went away; it waits for another"), cx);
    cx.act(Act::Requeue { id: open.inbound.envelope.id });
}

/// An agent's word on a delegation.
pub fn agent_reply(open: &Open, said: &Said<'_>, cx: &mut Cx<'_>) {
    match said.kind {
        "ack" => agent_ack(open, said, cx),
        "progress" => {
            if !cx.view.offers(open.inbound.envelope.from, "progress") {
                let message = "the peer takes no progress, or is not connected: go on, and send the result";
                return said.fail(IpcCode::NotOffered, message, cx);
            }
            accept_first(open, said, cx);
            send(open, "progress", said.payload.to_owned(), Some(said), None, cx);
        }
        "result" => {
            accept_first(open, said, cx);
            finish(open, said, said.payload.to_owned(), cx);
        }
        _ => {
            let id = open.inbound.envelope.id;
            if open.answered.is_none() {
                said.answer(open, "error", cx);
                return cx.act(Act::End { id, ended: Ended::Answered, by: Some(said.client) });
            }
            let message = parse::<super::payload::Failure>("error", said.payload.get())
                .map_or_else(|error| error, |failure| format!("{}: {}", failure.code, failure.message));
            finish(open, said, failed("refused by the agent", &message), cx);
        }
    }
}

/// The last word on accepted work: sent, where its sender wants one.
fn finish(open: &Open, said: &Said<'_>, result: Box<RawValue>, cx: &mut Cx<'_>) {
    let id = open.inbound.envelope.id;
    if terms(&open.inbound).report_back == Some(false) {
        cx.act(Act::End { id, ended: Ended::Answered, by: Some(said.client) });
        return said.ok(id, cx);
    }
    send(open, "result", result, Some(said), Some(id), cx);
}

fn agent_ack(open: &Open, said: &Said<'_>, cx: &mut Cx<'_>) {
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
            took(open, said, cx);
        }
        (None, false) => {
            said.answer(open, "ack", cx);
            let payload = said.payload.get().into();
            cx.act(Act::Answered { id, payload, taken: false, due_ms: None });
            cx.act(Act::End { id, ended: Ended::Answered, by: Some(said.client) });
        }
        (Some(_), true) => {
            tell_progress(open, "accepted", None, cx);
            took(open, said, cx);
            said.ok(id, cx);
        }
        (Some(_), false) => {
            let reason = ack.and_then(|ack| ack.reason).unwrap_or_else(|| "it gave no reason".into());
            finish(open, said, failed("declined by the agent", &reason), cx);
        }
    }
}

/// An agent that reports before it has acknowledged has acknowledged.
fn accept_first(open: &Open, said: &Said<'_>, cx: &mut Cx<'_>) {
    if open.answered.is_none() {
        cx.reply(&open.inbound, "ack", accepted());
    }
    if !open.taken {
        took(open, said, cx);
    }
}

fn took(open: &Open, said: &Said<'_>, cx: &mut Cx<'_>) {
    let id = open.inbound.envelope.id;
    let payload = if said.kind == "ack" { said.payload.get().into() } else { accepted().get().into() };
    cx.act(Act::Answered { id, payload, taken: true, due_ms: work_due(open) });
    if !matches!(open.state, OpenState::Held { client, .. } if client == said.client) {
        cx.act(Act::Adopt { id, client: said.client });
    }
}

/// A peer wants one of its delegations stopped.
pub fn cancel(message: &Inbound, kind: &'static Kind, cx: &mut Cx<'_>) {
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
    let none =
        Delegate { task: String::new(), context: None, priority: None, report_back: None, deadline_ms: None };
    parse("delegate", message.envelope.payload()).unwrap_or(none)
}

/// When the work is due, on the clock of `due_ms`: `deadline_ms` counts from the delegation's arrival.
fn work_due(open: &Open) -> Option<u64> {
    let deadline_ms = terms(&open.inbound).deadline_ms.filter(|ms| *ms > 0)?;
    Some(open.arrived_ms.saturating_add(deadline_ms))
}

fn accepted() -> Box<RawValue> {
    to_raw(&Ack { accepted: true, estimated_ms: None, state: None, reason: None })
}

fn queued() -> Box<RawValue> {
    to_raw(&Ack { accepted: true, estimated_ms: None, state: Some("queued".into()), reason: None })
}

fn failed(outcome: &str, error: &str) -> Box<RawValue> {
    let (status, outcome, error) = ("failed".into(), outcome.into(), Some(error.into()));
    to_raw(&Outcome { status, outcome, data: None, error })
}

fn fail_later(open: &Open, outcome: &str, error: &str, ended: Ended, cx: &mut Cx<'_>) {
    if terms(&open.inbound).report_back != Some(false) {
        send(open, "result", failed(outcome, error), None, None, cx);
    }
    cx.act(Act::End { id: open.inbound.envelope.id, ended, by: None });
}

fn tell_progress(open: &Open, state: &str, note: Option<&str>, cx: &mut Cx<'_>) {
    if cx.view.offers(open.inbound.envelope.from, "progress") {
        let note = note.map(str::to_owned);
        let payload = to_raw(&Progress { state: state.to_owned(), percent: None, note, eta_ms: None });
        send(open, "progress", payload, None, None, cx);
    }
}

fn send(
    open: &Open,
    kind: &'static str,
    payload: Box<RawValue>,
    said: Option<&Said<'_>>,
    ends: Option<MsgId>,
    cx: &mut Cx<'_>,
) {
    cx.act(Act::Send {
        to: open.inbound.envelope.from,
        kind,
        reference: Some(open.inbound.envelope.id),
        payload,
        command: said.map(|said| (said.client, said.req_id.to_owned())),
        ends,
    });
}

/// The delegations that this daemon has sent.
#[derive(Debug, Default)]
pub struct Sent {
    by_id: HashMap<MsgId, SentOne>,
    order: VecDeque<MsgId>,
}

#[derive(Debug)]
struct SentOne {
    to: AgentId,
    ended: bool,
}

impl Sent {
    /// One of a client's messages is about to leave.
    pub fn sending(&mut self, envelope: &Envelope) {
        if &*envelope.kind != "delegate" {
            return;
        }
        if self.by_id.len() >= DELEGATIONS_MAX {
            // Those that have ended go first.
            let ended = self.order.iter().position(|id| self.by_id.get(id).is_none_or(|one| one.ended));
            if let Some(id) = self.order.remove(ended.unwrap_or(0)) {
                self.by_id.remove(&id);
            }
        }
        self.by_id.insert(envelope.id, SentOne { to: envelope.to, ended: false });
        self.order.push_back(envelope.id);
    }

    /// A request of ours has been answered, or never will be.
    pub fn peer_reply(&mut self, request: &Envelope, answer: Option<&Envelope>) {
        let Some(answer) = answer else { return };
        let declined = |ack: &Envelope| parse::<Ack>("ack", ack.payload()).is_ok_and(|ack| !ack.accepted);
        let (id, ended) = match (&*request.kind, &*answer.kind) {
            ("delegate", "error") => (Some(request.id), true),
            ("delegate", "ack") => (Some(request.id), declined(answer)),
            ("cancel", "ack") => (request.reference, !declined(answer)),
            _ => return,
        };
        if let Some(one) = id.and_then(|id| self.by_id.get_mut(&id)) {
            one.ended |= ended;
        }
    }

    /// A result or progress has come: only from the peer that has the work, and only until it has ended.
    pub fn message(&mut self, message: &Inbound, cx: &mut Cx<'_>) {
        let envelope = &message.envelope;
        let one = envelope.reference.and_then(|id| self.by_id.get_mut(&id));
        match one.filter(|one| one.to == envelope.from && !one.ended) {
            Some(one) => {
                one.ended = &*envelope.kind == "result";
                cx.act(Act::Deliver { message: message.clone() });
            }
            None => {
                let why = "ref is no delegation that was sent to you and is under way";
                let refusal = Refusal::new(PeerCode::NotAuthorized, why);
                cx.act(Act::Drop { message: message.clone(), refusal });
            }
        }
    }

    /// The peer that a delegation went to.
    pub fn peer_of(&self, id: MsgId) -> Option<AgentId> {
        self.by_id.get(&id).map(|one| one.to)
    }
}
