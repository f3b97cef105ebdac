//! The core family: hello, ping, query, delegate, notify, cancel, discover, and their answers.
//!
//! Source: `spec/kinds/core.md`. ping and discover are answered here, with the truth and without waking an
//! agent; query, delegate and cancel are offered to agents; one-way kinds go to the inbox.

mod delegate;
mod discover;
mod ledger;
pub mod payload;
mod state;

use crate::error::{IpcError, PeerCode, Refusal};
use crate::family::{
    Act, Admit, Cx, Ended, Family, Inbound, Input, Kind, Open, OpenState, Pattern, Sendable, Unclaimed,
    Vocabulary,
};
use crate::id::{AgentId, MsgId};
use crate::ipc::Command;
use crate::limits::{DEADLINE_MS_MAX, REQUEST_TIMEOUT_MS};
use crate::node::ClientId;
use crate::store::Write;
use crate::trust::Level;
use crate::wire::{Envelope, to_raw};
use payload::Pong;
use serde_json::value::RawValue;

const fn request(
    name: &'static str,
    feature: Option<&'static str>,
    replies: &'static [&'static str],
    check: fn(&str) -> Result<(), String>,
) -> Kind {
    let pattern = Pattern::Request { replies, later: &[] };
    Kind {
        name,
        pattern,
        feature,
        kept: false,
        sendable: Sendable::Yes,
        needs: Level::Unknown,
        has_domain: false,
        idempotent: false,
        made_here: false,
        check,
    }
}
const fn reply(
    name: &'static str,
    feature: Option<&'static str>,
    check: fn(&str) -> Result<(), String>,
) -> Kind {
    Kind {
        name,
        pattern: Pattern::Reply,
        feature,
        kept: false,
        sendable: Sendable::No,
        needs: Level::Unknown,
        has_domain: false,
        idempotent: false,
        made_here: false,
        check,
    }
}
const fn one_way(
    name: &'static str,
    feature: Option<&'static str>,
    sendable: Sendable,
    check: fn(&str) -> Result<(), String>,
) -> Kind {
    Kind {
        name,
        pattern: Pattern::OneWay,
        feature,
        kept: true,
        sendable,
        needs: Level::Unknown,
        has_domain: false,
        idempotent: false,
        made_here: false,
        check,
    }
}

/// The core family's words. `hello` is the session's own and stands here for the table's sake.
pub static VOCABULARY: Vocabulary = Vocabulary {
    family: "core",
    kinds: &[
        Kind {
            name: "hello",
            pattern: Pattern::Request { replies: &["hello", "error"], later: &[] },
            feature: None,
            kept: false,
            sendable: Sendable::No,
            needs: Level::Unknown,
            has_domain: false,
            idempotent: false,
            made_here: false,
            check: payload::check_any,
        },
        request("ping", None, &["pong", "error"], payload::check_any),
        reply("pong", None, payload::check_pong),
        Kind { has_domain: true, ..request("query", None, &["response", "error"], payload::check_query) },
        reply("response", None, payload::check_response),
        Kind {
            name: "delegate",
            pattern: Pattern::Request { replies: &["ack", "error"], later: &["progress", "result"] },
            feature: Some("delegate"),
            kept: true,
            sendable: Sendable::Yes,
            needs: Level::Known,
            has_domain: false,
            idempotent: false,
            made_here: false,
            check: payload::check_delegate,
        },
        reply("ack", Some("ack"), payload::check_ack),
        one_way("progress", Some("progress"), Sendable::No, payload::check_progress),
        one_way("result", Some("result"), Sendable::No, payload::check_result),
        Kind {
            needs: Level::Known,
            ..request("cancel", Some("cancel"), &["ack", "error"], payload::check_cancel)
        },
        one_way("notify", None, Sendable::Yes, payload::check_notify),
        request("discover", Some("discover"), &["capabilities", "error"], payload::check_any),
        reply("capabilities", Some("capabilities"), payload::check_capabilities),
        one_way("error", None, Sendable::No, payload::check_error),
        Kind {
            name: "receipt",
            pattern: Pattern::OneWay,
            feature: Some("receipt"),
            kept: false,
            sendable: Sendable::No,
            needs: Level::Unknown,
            has_domain: false,
            idempotent: false,
            made_here: false,
            check: payload::check_receipt,
        },
    ],
};

/// The core family's state: delegations, and what clients advertise.
#[derive(Default)]
pub struct Core {
    ledger: ledger::Ledger,
    adverts: discover::Adverts,
}

impl Family for Core {
    fn vocabulary(&self) -> &'static Vocabulary {
        &VOCABULARY
    }

    fn handle(&mut self, input: Input<'_>, cx: &mut Cx<'_>) {
        match input {
            Input::Message { message, kind } => self.message(message, kind, cx),
            Input::Repeated { message } => {
                if message.envelope.kind() == "delegate" {
                    delegate::repeated(message, &self.ledger, cx);
                }
            }
            Input::Unclaimed { open, why } => match open.kind.name {
                "delegate" => delegate::unclaimed(open, &why, &mut self.ledger, cx),
                _ => end_refused(open, &why_unclaimed(&why), cx),
            },
            Input::Due { open } => match open.kind.name {
                "delegate" => delegate::due(open, &mut self.ledger, cx),
                _ => end_refused(open, &why_due(open), cx),
            },
            Input::Abandoned { open } => match open.kind.name {
                "cancel" => delegate::cancel_abandoned(open, cx),
                _ => delegate::abandoned(open, &mut self.ledger, cx),
            },
            Input::AgentReply { client, req_id, open, kind, payload, quiet } => {
                let said = delegate::Said { client, req_id, kind, payload, quiet };
                match open.kind.name {
                    "delegate" => delegate::agent_reply(open, &said, &mut self.ledger, cx),
                    "cancel" => delegate::cancel_reply(open, &said, cx),
                    _ => answer_on_stream(open, &said, cx),
                }
            }
            Input::NotStored { message } => delegate::not_stored(message, &mut self.ledger, cx),
            Input::Ended { open, ended } => {
                if open.kind.name == "delegate" {
                    delegate::ended(open, ended, &mut self.ledger, cx);
                }
            }
            Input::Restored { open } => delegate::restored(open, &mut self.ledger, cx),
            Input::PeerReply { request, answer } => {
                delegate::peer_reply(request, answer, &mut self.ledger, cx);
            }
            Input::GivenUp { id, why } => delegate::given_up(id, why, &mut self.ledger, cx),
            Input::Advert { client, capabilities } => self.adverts.set(client, capabilities),
            Input::LastingAdvert { consumer, capabilities } => {
                self.adverts.set_lasting(consumer, capabilities);
            }
            Input::Fetched { client, req_id, note, values } => {
                let line = self.ledger.listed(note, values, req_id);
                cx.act(Act::Tell { client, line });
            }
            Input::PeerOut { peer } => self.ledger.forget_words(peer, cx),
            Input::SocketGone { socket } => self.ledger.disown(socket, cx),
            Input::Successor { old, new } => self.ledger.succeed(old, new, cx),
            Input::Started => self.ledger.unanswered(cx),
            Input::Tick => self.ledger.expire(cx),
            // What the core says goes through the outbox, or is asked for again by who waits.
            Input::PeerUp { .. }
            | Input::PeerDown { .. }
            | Input::Timer
            | Input::Taken { .. }
            | Input::Loaded { .. }
            | Input::ClientGone { .. }
            | Input::ClientHello { .. }
            | Input::Settings
            | Input::Capabilities
            | Input::Stopping => {}
        }
    }

    fn admit(&mut self, message: &Inbound, kind: &'static Kind, cx: &mut Cx<'_>) -> Admit {
        match kind.name {
            "delegate" => delegate::admit(message, &mut self.ledger, cx),
            "result" | "progress" => delegate::admit_report(message, &mut self.ledger, cx),
            _ => Admit::Take(Vec::new()),
        }
    }

    fn sending(&mut self, envelope: &Envelope, held: bool, cx: &mut Cx<'_>) -> Vec<Write> {
        delegate::sending(envelope, held, &mut self.ledger, cx)
    }

    fn lasting_advert(&self, consumer: &str, capabilities: &RawValue) -> Result<Option<Write>, IpcError> {
        self.adverts.lasting(consumer, capabilities).map(Some)
    }

    fn capabilities(&self, cx: &Cx<'_>) -> Option<Box<RawValue>> {
        Some(self.adverts.merged(cx))
    }

    fn restore(&mut self, key: &str, value: &[u8]) {
        if !self.adverts.restore(key, value) {
            self.ledger.restore(key, value);
        }
    }

    fn command(
        &mut self,
        client: ClientId,
        name: &str,
        command: &Command<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Result<(), IpcError>> {
        (name == "delegations").then(|| self.ledger.list(client, command, cx))
    }

    fn given_by(&self, reference: MsgId) -> Option<Box<str>> {
        self.ledger.get(ledger::Direction::Out, reference).and_then(|entry| entry.via.clone())
    }

    fn peer_of(&self, reference: MsgId) -> Option<AgentId> {
        self.ledger.get(ledger::Direction::Out, reference).map(|entry| entry.peer)
    }
}

impl Core {
    #[inline(never)]
    fn message(&mut self, message: &Inbound, kind: &'static Kind, cx: &mut Cx<'_>) {
        match kind.name {
            "ping" => cx.reply(message, "pong", to_raw(&pong(cx))),
            "discover" => cx.reply(message, "capabilities", self.adverts.merged(cx)),
            "query" => {
                let payload::Terms { domain, deadline_ms } = payload::terms(message.envelope.payload());
                let due_ms = Some(cx.now.mono_ms.saturating_add(wait_ms(deadline_ms)));
                cx.act(Act::Offer { message: message.clone(), kind, domain, due_ms, parkable: false });
            }
            "delegate" => delegate::message(message, kind, cx),
            "cancel" => delegate::cancel(message, kind, &self.ledger, cx),
            "result" | "progress" => delegate::report(message, &mut self.ledger, cx),
            "receipt" => {
                let said = payload::parse::<payload::Receipt>("receipt", message.envelope.payload());
                let read = said.is_ok_and(|receipt| receipt.state == "read");
                let message = message.clone();
                match message.envelope.reference {
                    Some(id) => cx.act(Act::WasRead { by: message.envelope.from, id, read, message }),
                    None => {
                        let why = "ref is missing: it must be the id of the message that was read";
                        let refusal = Refusal::new(PeerCode::InvalidEnvelope, why);
                        cx.act(Act::Drop { message, refusal });
                    }
                }
            }
            _ => cx.act(Act::Deliver { message: message.clone() }),
        }
    }
}

/// How long an answer may take; absent or 0 is the default.
pub fn wait_ms(deadline_ms: Option<u64>) -> u64 {
    deadline_ms.filter(|ms| *ms > 0).unwrap_or(REQUEST_TIMEOUT_MS).min(DEADLINE_MS_MAX)
}

fn pong(cx: &Cx<'_>) -> Pong {
    let (active_tasks, capacity) = (cx.view.active_tasks(), cx.view.capacity());
    let status = match active_tasks {
        0 => "idle",
        n if capacity > 0 && n >= capacity => "overloaded",
        _ => "busy",
    };
    Pong {
        status: status.to_owned(),
        uptime_secs: cx.view.uptime_secs(),
        active_tasks,
        agent_name: cx.view.name().map(str::to_owned),
    }
}

/// Sends an agent's answer on the request's stream and ends the request.
#[inline(never)]
fn answer_on_stream(open: &Open, said: &delegate::Said<'_>, cx: &mut Cx<'_>) {
    let kind = if said.kind == "error" { "error" } else { "response" };
    said.answer(open, kind, cx);
    cx.act(Act::End { id: open.inbound.envelope.id, ended: Ended::Answered, by: Some(said.client) });
}

#[inline(never)]
fn end_refused(open: &Open, refusal: &Refusal, cx: &mut Cx<'_>) {
    cx.refuse(&open.inbound, refusal);
    cx.act(Act::End { id: open.inbound.envelope.id, ended: Ended::Timeout, by: None });
}

#[inline(never)]
fn why_unclaimed(why: &Unclaimed) -> Refusal {
    match why {
        Unclaimed::Nobody => Refusal::new(
            PeerCode::Unhandled,
            "no agent is attached to answer this: try again later, or send a notify or delegate, which are kept",
        ),
        Unclaimed::NoDomain(served) => Refusal::new(
            PeerCode::UnknownDomain,
            format!("no agent here serves that domain; served: {}", served.join(", ")),
        ),
        Unclaimed::QueueFull => {
            Refusal::new(PeerCode::Overloaded, "too many requests wait here already: try again in a moment")
        }
    }
}

#[inline(never)]
fn why_due(open: &Open) -> Refusal {
    match open.state {
        OpenState::Held { .. } => Refusal::new(
            PeerCode::Timeout,
            "the agent took the request but did not answer before its deadline: allow more, or delegate it",
        ),
        OpenState::Waiting | OpenState::Parked => Refusal::new(
            PeerCode::Overloaded,
            "every agent was at capacity until the deadline: try again later, or allow more time",
        ),
    }
}
