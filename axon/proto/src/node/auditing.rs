//! The audit log as the node writes it, and policy as it is applied.
//!
//! Source: `spec/TRUST.md`, "Policy" and "Audit".

use super::{Effect, Node, Now};
use crate::audit::Event;
use crate::error::Refusal;
use crate::family::Kind;
use crate::id::AgentId;
use crate::trust::{Asked, Decision, Level, Ruling, check, judge};
use crate::wire::{Envelope, may_have};

impl Node {
    /// Notes what was decided about a peer.
    pub(super) fn audit(&mut self, now: Now, event: Event, peer: Option<AgentId>, rule: &str) {
        self.audit_for(now, event, peer, None, rule);
    }

    /// The same, for a scoped socket.
    pub(super) fn audit_for(
        &mut self,
        now: Now,
        event: Event,
        peer: Option<AgentId>,
        socket: Option<&str>,
        rule: &str,
    ) {
        let row = self.audit.note(now.wall_ms, event, peer, socket, rule);
        self.out.extend(row.map(Effect::Audit));
    }

    /// Writes what was repeated.
    pub(super) fn write_audit(&mut self, now: Now, all: bool) {
        let rows = self.audit.take(now.wall_ms, all);
        self.out.extend(rows.into_iter().map(Effect::Audit));
    }

    pub(super) fn handshake_refused(&mut self, now: Now, id: AgentId) {
        let rule = if self.peers.is_blocked(id) { "contacts.level" } else { "not_pinned" };
        // Anybody can have any number of keys: who is known here is named, all others are counted together.
        let known = self.peers.level(id, now.wall_ms).map(|_| id);
        self.audit(now, Event::Handshake, known, rule);
    }

    /// Whether a peer's message may pass; counts it if so.
    pub(super) fn may_pass(
        &mut self,
        now: Now,
        envelope: &Envelope,
        kind: Option<&'static Kind>,
    ) -> Result<(), Refusal> {
        let request = kind.is_some_and(Kind::is_request);
        let level = self.peers.level(envelope.from, now.wall_ms).unwrap_or(Level::Blocked);
        let policy = self.settings.policies.of(level);
        let most = policy.map_or(0, |policy| policy.in_flight_max);
        // It is looked for only where there is a rule about it.
        let ruled =
            kind.is_some_and(|kind| kind.has_domain) && policy.is_some_and(|policy| policy.domains.is_some());
        let domain = ruled.then(|| domain_of(envelope.payload()));
        let in_flight = request.then(|| self.agents.in_flight(envelope.from, most));
        let asked = Asked {
            peer: envelope.from,
            level,
            kind: envelope.kind(),
            needs: kind.map_or(Level::Known, |kind| kind.needs),
            domain: domain.as_ref().map(Option::as_deref),
            payload_bytes: envelope.payload().len(),
            bytes: envelope.raw().len(),
            in_flight,
        };
        let against = check(&self.settings.policies, &mut self.rates, &asked, now.mono_ms, true);
        let Some(ruling) = against else { return Ok(()) };
        let event = if ruling.decision == Decision::Deny {
            self.dropped.refused += 1;
            Event::Refused
        } else {
            self.dropped.limited += 1;
            Event::Limited
        };
        self.audit(now, event, Some(envelope.from), &ruling.rule);
        Err(ruling.refusal())
    }

    /// What a peer sends that is wrong in itself takes of its rate as well.
    pub(super) fn charge(&mut self, now: Now, peer: AgentId) {
        let level = self.peers.level(peer, now.wall_ms).unwrap_or(Level::Blocked);
        // As one of any kind that may pass: it is its rate alone that matters.
        let listed = self.settings.policies.of(level).and_then(|policy| policy.kinds.as_ref());
        let kind = listed.and_then(|kinds| kinds.first()).cloned().unwrap_or_else(|| "*".into());
        let asked = Asked {
            peer,
            level,
            kind: &kind,
            needs: Level::Unknown,
            domain: None,
            payload_bytes: 0,
            bytes: 0,
            in_flight: None,
        };
        drop(check(&self.settings.policies, &mut self.rates, &asked, now.mono_ms, true));
    }

    /// What a policy says of a message of this kind, that nobody has sent.
    pub(super) fn ruling(&mut self, now: Now, peer: AgentId, kind: &str, domain: Option<&str>) -> Ruling {
        let known = self.kinds.get(kind).map(|(_, kind)| kind);
        let level = self.peers.level(peer, now.wall_ms);
        let asked = Asked {
            peer,
            level: level.unwrap_or(Level::Blocked),
            kind,
            needs: known.map_or(Level::Known, |kind| kind.needs),
            domain: known.filter(|kind| kind.has_domain).map(|_| domain),
            payload_bytes: 0,
            bytes: 0,
            in_flight: known.filter(|kind| kind.is_request()).map(|_| self.agents.in_flight(peer, 1)),
        };
        let ruling = judge(&self.settings.policies, &mut self.rates, &asked, now.mono_ms);
        if level.is_some() {
            return ruling;
        }
        let message = format!("{peer} is not known here: its handshake is refused; pair with `axon invite`");
        Ruling { rule: "peers".into(), level: Level::Unknown, message, ..ruling }
    }
}

/// `domain` of a payload.
pub(super) fn domain_of(payload: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Domain {
        domain: Option<String>,
    }
    if !may_have(payload, &["domain"]) {
        return None;
    }
    serde_json::from_str::<Domain>(payload).ok()?.domain
}
