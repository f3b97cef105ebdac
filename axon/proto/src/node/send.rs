//! Messages of local clients: `send` begins one, `reply` answers one.
//!
//! Source: `spec/IPC.md`, "send" and "reply".

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::held::{ToHold, resend_until};
use super::outgoing::{Fate, Origin};
use super::storing::{After, disk_error};
use super::{ClientId, Node, Now, Token};
use crate::agents::Client;
use crate::audit::Event;
use crate::error::{IpcCode, IpcError};
use crate::family::{Ended, Input as FamilyInput, Kind, Pattern, Sendable};
use crate::fault::has_room;
use crate::id::{AgentId, MsgId};
use crate::ipc::{Command, Line};
use crate::kinds::core::wait_ms;
use crate::limits::{CLIENT_PENDING_MAX, KIND_BYTES_MAX, PENDING_MAX, REPLY_GRACE_MS, REQUEST_TIMEOUT_MS};
use crate::store::{CommitError, Write};
use crate::wire::{Envelope, Header, Json, encode_in, may_have, raw_json, to_raw};

impl Node {
    pub(super) fn send(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
        v1: bool,
    ) -> Result<(), IpcError> {
        let name = required("kind", command.kind()?)?;
        let Some((index, kind)) = self.kinds.get(&name).filter(|(_, k)| k.sendable == Sendable::Yes) else {
            return Err(self.not_sendable(&name));
        };
        let reference = msg_id("ref", command.reference()?)?;
        if kind.name == "cancel" && reference.is_none() {
            return Err(IpcError::invalid(
                "the field `ref` is missing: give the id of the delegation to cancel",
            ));
        }
        let to = match (command.to()?, reference) {
            (Some(to), _) => self.addressee(now, client, &to)?,
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
        if let Some(id) = reference.filter(|_| kind.name == "cancel") {
            self.may_cancel(client, index, id)?;
        }
        if let Some(id) = reference.filter(|id| kind.name == "cancel" && self.is_in_outbox(*id)) {
            self.may_send(now, client, to, kind.name, "{}")?;
            // It has not left: it is taken back here.
            let line = Line::ok(command.req_id()).field("msg_id", &id).field("state", "cancelled").end();
            return self.take_back(now, client, command.req_id(), id, line);
        }
        let payload = command.payload()?;
        (kind.check)(payload.get()).map_err(IpcError::invalid)?;
        self.may_send(now, client, to, kind.name, payload.get())?;
        if self.stopping {
            let message = "this daemon is shutting down: try again in a moment";
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        self.room_for_pending(client)?;
        let asked = command.deadline_ms::<u64>()?.filter(|ms| *ms > 0);
        let own = payload_deadline(payload.get());
        let wait = answer_within(kind, asked, own);
        // A v1 client knows neither.
        let hold_ms = if v1 { None } else { self.hold_time(kind, command)? };
        let read_receipt = !v1 && command.read_receipt::<bool>()?.unwrap_or(false);
        if read_receipt && kind.name != "notify" {
            return Err(IpcError::invalid("the field `read_receipt` is for notify only"));
        }
        let header = Header {
            id: self.random_id(),
            from: self.me,
            to,
            ts: now.wall_ms.max(1),
            kind: kind.name,
            reference,
            resend_until: hold_ms.map(|ms| resend_until(now, ms)),
            read_receipt,
        };
        let envelope = encode_in(&mut self.scratch, header, &payload)
            .map_err(|error| IpcError::new(IpcCode::MessageTooLarge, error.to_string()))?;
        let req_id = command.req_id().to_owned();
        self.via = self.scope_of(client).map(|scope| scope.name.as_str().into());
        if let Some(hold_ms) = hold_ms {
            let consumer = self.agents.clients.get(&client).map(|client| Box::from(&*client.consumer));
            let waiter = Some((client, req_id));
            let writes = Vec::new();
            let held = self.hold(now, ToHold { envelope, hold_ms, consumer, waiter, ends: None, writes });
            self.via = None;
            return held;
        }
        let origin = Origin::Command { client, req_id, v1 };
        let wait_ms = wait.saturating_add(REPLY_GRACE_MS);
        let first = self.sending(now, index, &envelope, false);
        self.via = None;
        if first.is_empty() {
            self.submit(now, Arc::new(envelope), kind, origin, wait_ms);
            return Ok(());
        }
        if !self.disk_has_room() {
            let message = "too much waits for the disk: try again in a moment";
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        let token = self.prepare(now, Arc::new(envelope), kind, origin, wait_ms);
        self.commit(first, After::Leave(token));
        Ok(())
    }

    /// Whom `to` means. One's own name is nobody's, unless a peer here has it too.
    fn addressee(&mut self, now: Now, client: ClientId, to: &str) -> Result<AgentId, IpcError> {
        self.peer_for(now, client, to).map_err(|error| {
            let own = self.settings.name.as_deref() == Some(to) && error.code == IpcCode::PeerNotFound;
            let message = "this is your own agent's name: send to another, `axon peers` lists those known";
            if own { IpcError::new(IpcCode::SelfSend, message) } else { error }
        })
    }

    /// A message of a client that waited for its ledger row to be on disk.
    #[inline(never)]
    pub(super) fn may_leave(&mut self, now: Now, token: Token, outcome: Result<(), CommitError>) {
        match outcome {
            Ok(()) => self.leave(now, token),
            Err(error) => self.settle(now, token, Fate::Failed(disk_error(&error))),
        }
    }

    /// What a family wants stored before a message leaves.
    pub(super) fn sending(&mut self, now: Now, index: usize, envelope: &Envelope, held: bool) -> Vec<Write> {
        let mut writes = Vec::new();
        self.with_family(now, index, |family, cx| writes = family.sending(envelope, held, cx));
        writes
    }

    /// How long a message may be held, if it may be held at all.
    fn hold_time(&self, kind: &Kind, command: &Command<'_>) -> Result<Option<u64>, IpcError> {
        let Some(secs) = command.hold_secs::<u64>()? else { return Ok(None) };
        if !kind.kept {
            let message = format!("a {} cannot be held: leave out the field `hold_secs`", kind.name);
            return Err(IpcError::invalid(message));
        }
        self.hold_secs(secs).map(Some)
    }

    /// A hold in milliseconds.
    fn hold_secs(&self, secs: u64) -> Result<u64, IpcError> {
        let max = self.settings.outbox.hold_secs_max;
        if !(1..=max).contains(&secs) {
            return Err(IpcError::invalid(format!("the field `hold_secs` is a number from 1 to {max}")));
        }
        Ok(secs.saturating_mul(1_000))
    }

    fn room_for_pending(&self, client: ClientId) -> Result<(), IpcError> {
        let own = self.agents.clients.get(&client).map_or(0, |client| client.pending);
        // One socket leaves three quarters to others.
        let of_socket = self.scope_of(client).map_or(0, |scope| {
            let same = |of: &&Client| of.scope.as_ref().is_some_and(|other| other.name == scope.name);
            self.agents.clients.values().filter(same).map(|client| client.pending).sum()
        });
        let has =
            own < CLIENT_PENDING_MAX && of_socket < PENDING_MAX / 4 && self.pending_count() < PENDING_MAX;
        if !has_room("commands that wait for peers", has) {
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
        let known = self.kinds.get(name).is_some();
        let what = if known { "is never begun by `send`: answers go by `reply`" } else { "is not known" };
        let name: String = name.chars().take(KIND_BYTES_MAX).collect();
        IpcError::invalid(format!("the kind \"{name}\" {what}; kinds to send: {}", sendable.join(", ")))
    }

    pub(super) fn reply(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let id = msg_id("ref", command.reference()?)?;
        let id =
            id.ok_or_else(|| IpcError::invalid("the field `ref` is missing: give the id of the request"))?;
        let kind = required("kind", command.kind()?)?;
        let payload = command.payload()?;
        let Some(open) = self.agents.get(id) else {
            if self.scope_of(client).is_some() {
                let message = "no request of that id is open here: check the id";
                return Err(IpcError::new(IpcCode::NotFound, message));
            }
            return Err(match self.agents.closed(id).map(|closed| closed.ended) {
                Some(Ended::Answered | Ended::TurnedAway) => IpcError::new(
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
        let (request, to, finishing) = (open.kind, open.inbound.envelope.from, open.finishing);
        // A scoped socket answers what it was offered, and knows of nothing else.
        let scope = self.scope_of(client);
        if scope.as_ref().is_some_and(|scope| open.offered_to.as_ref() != Some(&scope.name)) {
            return Err(IpcError::new(IpcCode::NotFound, "no request of that id is open here: check the id"));
        }
        let Pattern::Request { replies, later } = request.pattern else {
            return Err(IpcError::invalid("that message takes no reply"));
        };
        if !replies.contains(&&*kind) && !later.contains(&&*kind) {
            let allowed: Vec<&str> = replies.iter().chain(later).copied().collect();
            let message =
                format!("a {} is answered by {}, not by \"{kind}\"", request.name, allowed.join(", "));
            return Err(IpcError::invalid(message));
        }
        if finishing {
            let message = "the last word on this request is on its way: nothing is left to do";
            return Err(IpcError::new(IpcCode::AlreadyAnswered, message));
        }
        let quiet = command.quiet::<bool>()?.unwrap_or(false);
        if quiet && request.name != "query" {
            let message = "the field `quiet` is for the answer to a query only: leave it out";
            return Err(IpcError::invalid(message));
        }
        let hold_ms = match command.hold_secs::<u64>()? {
            Some(_) if &*kind != "result" => {
                let message = "the field `hold_secs` is for a result only: leave it out";
                return Err(IpcError::invalid(message));
            }
            Some(secs) => Some(self.hold_secs(secs)?),
            None => None,
        };
        if let Some(scope) = scope {
            let kind = kind.chars().take(KIND_BYTES_MAX).collect::<String>();
            self.audit_for(now, Event::Sent, Some(to), Some(&scope.name), &kind);
        }
        self.room_for_pending(client)?;
        let payload = match self.kinds.get(&kind) {
            Some((_, spec)) => checked(spec, payload)?,
            None => payload,
        };
        let answer = Header {
            // It gets an id of its own when it leaves; all are of one length.
            id,
            from: self.me,
            to,
            ts: now.wall_ms.max(1),
            kind: &kind,
            reference: Some(id),
            resend_until: None,
            read_receipt: false,
        };
        answer
            .fits(&mut self.scratch, payload.get().len())
            .map_err(|error| IpcError::new(IpcCode::MessageTooLarge, error.to_string()))?;
        let (req_id, kind, payload) = (command.req_id(), &*kind, &payload);
        self.reply_hold_ms = hold_ms;
        self.with_open(now, id, |family, open, cx| {
            family.handle(FamilyInput::AgentReply { client, req_id, open, kind, payload, quiet }, cx);
        });
        self.reply_hold_ms = None;
        Ok(())
    }
}

fn required<T>(name: &str, value: Option<T>) -> Result<T, IpcError> {
    value.ok_or_else(|| IpcError::invalid(format!("the field `{name}` is missing")))
}

fn msg_id(name: &str, text: Option<Cow<'_, str>>) -> Result<Option<MsgId>, IpcError> {
    let parsed = text.map(|text| text.parse::<MsgId>()).transpose();
    parsed.map_err(|error| IpcError::invalid(format!("the field `{name}` is wrong: {error}")))
}

/// How long an answer is waited for: as the command says, but no longer than the payload and the kind allow.
fn answer_within(kind: &Kind, asked: Option<u64>, own: Option<u64>) -> u64 {
    match kind.name {
        "query" => asked.unwrap_or(u64::MAX).min(wait_ms(own)),
        _ => asked.unwrap_or(REQUEST_TIMEOUT_MS).min(own.unwrap_or(u64::MAX)).min(REQUEST_TIMEOUT_MS),
    }
}

/// `deadline_ms` of a payload; 0 is none.
fn payload_deadline(payload: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Deadline {
        deadline_ms: Option<u64>,
    }
    if !may_have(payload, &["deadline_ms"]) {
        return None;
    }
    serde_json::from_str::<Deadline>(payload).ok()?.deadline_ms.filter(|ms| *ms > 0)
}

/// An agent's payload, if it passes its kind's check.
fn checked<'a>(kind: &Kind, payload: Json<'a>) -> Result<Json<'a>, IpcError> {
    match (kind.check)(payload.get()) {
        Ok(()) => Ok(payload),
        Err(what) if kind.name != "response" => Err(IpcError::invalid(what)),
        // Perhaps for want of `data`.
        Err(_) => {
            let payload = complete(payload);
            (kind.check)(payload.get()).map_err(IpcError::invalid)?;
            Ok(payload)
        }
    }
}

/// A response's `data` is required on the wire; an agent that has only text need not write it.
fn complete(payload: Json<'_>) -> Json<'_> {
    match serde_json::from_str::<BTreeMap<String, Box<serde_json::value::RawValue>>>(payload.get()) {
        Ok(mut map) if !map.contains_key("data") => {
            map.insert("data".into(), raw_json("null".into()));
            to_raw(&map).into()
        }
        _ => payload,
    }
}
