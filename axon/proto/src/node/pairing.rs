//! Pairing as its owner does it: invites, and joining somebody by a link.
//!
//! Source: `spec/kinds/pairing.md`. The other side, who is knocked at, is in `knocking`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::contacting::{constraints_json, level_of, line_of, missing};
use super::jobs::{End, Said, Step};
use super::outgoing::Origin;
use super::timers::Key;
use super::{ClientId, ConnId, Effect, KEY_REFUSED, Node, Now, TOO_MANY_STRANGERS};
use crate::audit::Event;
use crate::contacts::{Contact, ContactChange};
use crate::error::{IpcCode, IpcError};
use crate::id::AgentId;
use crate::invite::{InviteId, Link, Secret, is_addr};
use crate::ipc::{Command, Line};
use crate::limits::{
    ADDRS_PER_PEER_MAX, INVITE_SECS_MAX, INVITE_USES_MAX, NAME_BYTES_MAX, REQUEST_TIMEOUT_MS,
};
use crate::pairing::payload::{Admission, Admitted, Knock};
use crate::pairing::{Guesses, Intent, Invite, Invites, Knocks, Waiting};
use crate::session::Phase;
use crate::trust::{Level, Rates};
use crate::wire::{Envelope, to_raw};

/// How long `connect` waits when it names no time.
const JOIN_MS: u64 = 15_000;
/// How long an invite holds when none is given, in seconds.
const INVITE_SECS: u64 = 3_600;

/// What pairing remembers.
#[derive(Debug, Default)]
pub(super) struct Pairing {
    pub invites: Invites,
    pub knocks: Knocks,
    pub guesses: Guesses,
    /// Knocks of strangers in the last minute.
    pub rate: Rates,
    joining: BTreeMap<AgentId, Joining>,
    /// What was said of peers before they were joined, to be said again if that fails.
    before: HashMap<AgentId, Option<Contact>>,
}

/// A peer that a client of ours wants to be paired with.
#[derive(Debug)]
struct Joining {
    client: ClientId,
    req_id: String,
    secret: Option<Secret>,
    knock: Knock,
    level: Level,
    stage: Stage,
    /// It had been forgotten in this run.
    kept_out: bool,
}

#[derive(Debug)]
enum Stage {
    /// There is no connection yet.
    Dialling,
    /// It has been knocked.
    Knocked,
    /// The peer has let us in: the next connection is a peer's.
    Paired(Box<Admission>),
}

/// How joining has ended.
#[derive(Debug)]
pub(super) struct Joined {
    client: ClientId,
    req_id: String,
    state: &'static str,
    admission: Option<Admission>,
    message: String,
}

impl Node {
    // --- invites ---

    pub(super) fn invite(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let secs = number("expires_secs", command.expires_secs()?, INVITE_SECS, 60, INVITE_SECS_MAX)?;
        let uses = number("uses", command.uses()?, 1, 1, INVITE_USES_MAX)?;
        let level = level_of(command)?.unwrap_or(Level::Known);
        if level == Level::Blocked {
            return Err(IpcError::invalid(
                "the field `trust` is unknown, known or trusted: nobody is invited to be blocked",
            ));
        }
        let label = command.label::<String>()?.map(|label| line_of("label", label)).transpose()?;
        if label.as_ref().is_some_and(|label| label.len() > NAME_BYTES_MAX) {
            return Err(IpcError::invalid(format!(
                "the field `label` is at most {NAME_BYTES_MAX} bytes long"
            )));
        }
        let addrs = command.addrs::<Vec<String>>()?.unwrap_or_else(|| self.addrs.clone());
        if addrs.is_empty() || addrs.len() > ADDRS_PER_PEER_MAX || !addrs.iter().all(|addr| is_addr(addr)) {
            let message =
                format!("the field `addrs` lists 1 to {ADDRS_PER_PEER_MAX} texts of the form host:port");
            return Err(IpcError::invalid(message));
        }
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        let secret = Secret(bytes);
        let (id, key) = secret.key();
        let expires_ms = now.wall_ms.saturating_add(secs * 1_000);
        let invite = Invite { id, key, expires_ms, uses, level, label };
        let write = invite.write();
        self.pairing.invites.open(invite)?;
        self.invites_changed(now);
        self.audit(now, Event::Invite, None, "made");
        let link = Link { key: self.key, addrs, secret: Some(secret) };
        let line = Line::ok(command.req_id())
            .field("link", &link.to_string())
            .field("agent_id", &self.me)
            .field("invite", &id.to_string())
            .field("expires_ms", &expires_ms)
            .field("uses", &uses)
            .field("trust", &level)
            .end();
        let end = End::Invited { client, req_id: command.req_id().to_owned(), id, line };
        self.begin(now, [Step::Store(vec![write])], end);
        Ok(())
    }

    pub(super) fn invites_list(&self, req_id: &str) -> Arc<str> {
        let rows: Vec<serde_json::Value> = self
            .pairing
            .invites
            .iter()
            .map(|invite| {
                let Invite { id, expires_ms, uses, level, label, .. } = invite;
                let mut row = serde_json::json!({ "invite": id.to_string(), "expires_ms": expires_ms,
                    "uses": uses, "trust": level });
                if let (Some(label), Some(row)) = (label, row.as_object_mut()) {
                    row.insert("label".into(), label.clone().into());
                }
                row
            })
            .collect();
        Line::ok(req_id).field("invites", &rows).end()
    }

    pub(super) fn revoke_invite(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let text = command.id::<String>()?.ok_or_else(|| missing("id", "an invite's"))?;
        let known = || IpcError::new(IpcCode::NotFound, "no invite of that id is open: `axon invite --list`");
        let id: InviteId = text.parse().map_err(|()| known())?;
        if !self.pairing.invites.revoke(id) {
            return Err(known());
        }
        self.invites_changed(now);
        self.audit(now, Event::Invite, None, "revoked");
        let line = Line::ok(command.req_id()).field("invite", &id.to_string()).end();
        let end = End::Line { client, req_id: command.req_id().to_owned(), line };
        self.begin(now, [Step::Store(vec![Invite::delete(id)])], end);
        Ok(())
    }

    /// Whether somebody who is not known may connect, to knock.
    pub(super) fn hears_strangers(&self) -> bool {
        self.settings.knock.open || !self.pairing.invites.is_empty()
    }

    /// An invite was opened or used up.
    pub(super) fn invites_changed(&mut self, now: Now) {
        self.publish_pins();
        if let Some(at_ms) = self.pairing.invites.next_expiry_ms() {
            self.timers.set(Key::Invites, now.mono_ms + at_ms.saturating_sub(now.wall_ms));
        }
    }

    /// What leads to a key that is no more is of no use.
    pub(super) fn drop_invites(&mut self) {
        let ids: Vec<InviteId> = self.pairing.invites.iter().map(|invite| invite.id).collect();
        for id in ids {
            self.pairing.invites.revoke(id);
            self.note([Invite::delete(id)]);
        }
    }

    pub(super) fn invites_due(&mut self, now: Now) {
        for id in self.pairing.invites.expire(now.wall_ms) {
            self.note([Invite::delete(id)]);
            self.audit(now, Event::Invite, None, "expired");
        }
        self.invites_changed(now);
    }

    // --- joining ---

    pub(super) fn connect(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let text = command.link::<String>()?.ok_or_else(|| missing("link", "an axon:// link"))?;
        let link: Link =
            text.parse().map_err(|error| IpcError::invalid(format!("the field `link`: {error}")))?;
        let peer = link.key.agent_id();
        if peer == self.me {
            let message = "this link leads to this very agent: run `axon connect` on the other machine";
            return Err(IpcError::new(IpcCode::SelfSend, message));
        }
        if self.peers.is_blocked(peer) {
            let message = format!("{peer} is blocked here: `axon trust {peer} known` first");
            return Err(IpcError::new(IpcCode::NotAuthorized, message));
        }
        if self.pairing.joining.contains_key(&peer) {
            let message = format!("{peer} is being connected to already: wait for that");
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        let level = level_of(command)?.unwrap_or(Level::Known);
        if level == Level::Blocked {
            return Err(IpcError::invalid("the field `trust` is unknown, known or trusted"));
        }
        let name = command.name_given::<String>()?.map(|name| self.name_for(peer, name)).transpose()?;
        let wait_ms =
            command.deadline_ms::<u64>()?.filter(|ms| *ms > 0).unwrap_or(JOIN_MS).min(REQUEST_TIMEOUT_MS * 4);
        let knock = Knock {
            name: self.settings.name.clone(),
            intent: intent_of(command)?,
            session: command.session::<String>()?.map(|text| line_of("session", text)).transpose()?,
            message: command.message::<String>()?.map(|text| line_of("message", text)).transpose()?,
            addrs: self.addrs.clone(),
            invite: None,
            proof: None,
        };
        let before = self.peers.contacts().get(peer).cloned();
        let kept_out = self.peers.is_kept_out(peer);
        let mut contact = self.contact_of(now, peer);
        contact.pubkey = Some(link.key);
        contact.level = contact.level.max(level);
        contact.name = name.or(contact.name);
        contact.expiry_ms = None;
        let older = std::mem::replace(&mut contact.addrs, link.addrs);
        let older: Vec<String> = older.into_iter().filter(|addr| !contact.addrs.contains(addr)).collect();
        contact.addrs.extend(older);
        contact.addrs.truncate(ADDRS_PER_PEER_MAX);
        contact.why.get_or_insert_with(|| "connect".into());
        // It holds in memory until it is known what comes of it.
        let req_id = command.req_id().to_owned();
        let (secret, level) = (link.secret, contact.level);
        let joining = Joining { client, req_id, secret, knock, level, stage: Stage::Dialling, kept_out };
        self.pairing.joining.insert(peer, joining);
        self.pairing.before.insert(peer, before);
        if let Err(error) = self.apply_contacts(now, &[ContactChange::Put(contact)]) {
            self.pairing.joining.remove(&peer);
            self.pairing.before.remove(&peer);
            return Err(error);
        }
        if let Some(state) = self.agents.clients.get_mut(&client) {
            state.pending += 1;
        }
        self.timers.set(Key::Join(peer), now.mono_ms.saturating_add(wait_ms));
        match self.best_session(peer) {
            Some(conn) => self.join_up(now, peer, conn),
            None => self.dial_for_sending(now, peer),
        }
        Ok(())
    }

    /// Peers that clients wait to be paired with.
    pub(super) fn joining(&self) -> impl Iterator<Item = AgentId> {
        self.pairing.joining.keys().copied()
    }

    /// Whether a client waits to be paired with this peer.
    pub(super) fn is_joining(&self, peer: AgentId) -> bool {
        self.pairing.joining.contains_key(&peer)
    }

    /// Whether a peer has just let us in, and is to be connected to as a peer.
    pub(super) fn is_paired_anew(&self, peer: AgentId) -> bool {
        self.pairing.joining.get(&peer).is_some_and(|joining| matches!(joining.stage, Stage::Paired(_)))
    }

    /// A connection of a peer that is being joined is up, as a peer's or as a stranger's.
    pub(super) fn join_up(&mut self, now: Now, peer: AgentId, conn: ConnId) {
        let Some(session) = self.sessions.get(conn) else { return };
        let (phase, binding) = (session.phase, session.binding);
        let knocks = session.offers("knock");
        let (host, me) = (self.peers.get(peer).map(|peer| peer.key), self.key);
        let Some(joining) = self.pairing.joining.get_mut(&peer) else { return };
        match (&joining.stage, &joining.secret) {
            (Stage::Knocked, _) => {}
            (Stage::Paired(_), _) if phase == Phase::Stranger => {}
            (Stage::Paired(admission), _) => {
                let admission = (**admission).clone();
                self.join_ends(now, peer, "paired", Some(admission), "both sides are paired".into());
            }
            (Stage::Dialling, None) if phase == Phase::Up && !knocks => {
                self.join_ends(now, peer, "paired", None, "both sides know each other".into());
            }
            (Stage::Dialling, Some(_)) if !knocks && phase == Phase::Up => {
                let message = "the peer knows this agent already, and takes no knocks".into();
                self.join_ends(now, peer, "paired", None, message);
            }
            (Stage::Dialling, secret) => {
                let mut knock = joining.knock.clone();
                if let (Some(secret), Some(host)) = (secret, host) {
                    let (id, key) = secret.key();
                    knock.invite = Some(id.to_string());
                    knock.proof = Some(key.proof(&me, &host, &binding));
                }
                joining.stage = Stage::Knocked;
                self.send_knock(now, peer, conn, &knock);
            }
        }
    }

    fn send_knock(&mut self, now: Now, peer: AgentId, conn: ConnId, knock: &Knock) {
        let Some((_, kind)) = self.kinds.get("knock") else { return };
        let Ok(envelope) = self.envelope(now, peer, "knock", None, &to_raw(knock).into()) else {
            return self.join_fails(
                now,
                peer,
                IpcError::new(IpcCode::MessageTooLarge, "the knock is too long"),
            );
        };
        let token = self.prepare(now, Arc::new(envelope), kind, Origin::Knock, REQUEST_TIMEOUT_MS);
        self.leave_on(token, conn);
    }

    /// A knock of ours was answered, or will not be.
    pub(super) fn knock_settled(&mut self, now: Now, peer: AgentId, answer: Result<Envelope, IpcError>) {
        let Some(joining) = self.pairing.joining.get_mut(&peer) else { return };
        let invited = joining.secret.is_some();
        let admission = match answer {
            Ok(answer) if answer.kind() == "admission" => Admission::parse(answer.payload()),
            Ok(answer) => Err(super::answer::peer_refusal(&answer).map_or_else(String::new, |(_, why)| why)),
            Err(error) if invited => return self.join_fails(now, peer, error),
            Err(error) => Err(error.message),
        };
        let up = self.best_session(peer).is_some();
        let pinned = match up {
            true => "this side knows the peer now; there this agent is unknown until its owner says more",
            false => "this side knows the peer now; the other side must connect back",
        };
        let Some(joining) = self.pairing.joining.get_mut(&peer) else { return };
        match admission {
            Ok(admission) if admission.decision == Admitted::Accept => {
                joining.stage = Stage::Paired(Box::new(admission.clone()));
                // What the peer let in is dialled anew, as a peer.
                for conn in self.conns_of(peer) {
                    if self.sessions.get(conn).is_some_and(|session| session.phase == Phase::Stranger) {
                        self.close(now, conn, 0, "paired");
                    }
                }
                match self.best_session(peer) {
                    Some(conn) => self.join_up(now, peer, conn),
                    None => self.dial_for_sending(now, peer),
                }
            }
            Ok(admission) if admission.decision == Admitted::Pending => {
                let message = "the peer's owner decides: `axon knocks` and `axon approve` there".into();
                self.join_ends(now, peer, "pending", Some(admission), message);
            }
            Ok(admission) => {
                let reason = admission.reason.clone().unwrap_or_else(|| "it gave no reason".into());
                // One that knows us already may not have needed it.
                if invited && self.best_session(peer).is_some() {
                    let message =
                        format!("the peer knows this agent already; of the invite it says: {reason}");
                    return self.join_ends(now, peer, "paired", None, message);
                }
                if invited {
                    let wait =
                        admission.retry_after_ms.map(|ms| format!("; try again in {} s", ms.div_ceil(1_000)));
                    let message = format!("the peer refused: {reason}{}", wait.unwrap_or_default());
                    return self.join_fails(now, peer, IpcError::new(IpcCode::NotAuthorized, message));
                }
                self.join_ends(now, peer, "pinned", None, format!("{pinned} ({reason})"));
            }
            Err(why) if invited => {
                let message = format!("the peer does not take the invite: {why}");
                self.join_fails(now, peer, IpcError::new(IpcCode::NotAuthorized, message));
            }
            Err(why) => self.join_ends(now, peer, "pinned", None, format!("{pinned} ({why})")),
        }
    }

    /// A peer that is being joined could not be reached, or its connection has ended before it was joined.
    pub(super) fn join_unreachable(&mut self, now: Now, peer: AgentId, why: &str) {
        let Some(joining) = self.pairing.joining.get(&peer) else { return };
        let refused = why.contains(KEY_REFUSED);
        if why.contains(TOO_MANY_STRANGERS) {
            // There will be room in a moment; it is dialled again until its time is over.
            return;
        }
        match (&joining.stage, &joining.secret) {
            (Stage::Paired(admission), _) => {
                let admission = (**admission).clone();
                let message = format!("both sides are paired, but not connected yet: {why}");
                self.join_ends(now, peer, "paired", Some(admission), message);
            }
            (_, Some(_)) if refused => {
                let message = "the peer refused this key in the handshake: the invite was used, has expired or was \
                               revoked; ask for a new one";
                self.join_fails(now, peer, IpcError::new(IpcCode::NotAuthorized, message));
            }
            (_, Some(_)) => {
                let message = format!("{peer} cannot be reached: {why}. The invite was not used; try again");
                self.join_fails(now, peer, IpcError::new(IpcCode::PeerUnreachable, message));
            }
            (_, None) if refused => {
                let message =
                    "this side knows the peer now; the other side does not know this agent, and hears no \
                               strangers: connect back from there"
                        .into();
                self.join_ends(now, peer, "pinned", None, message);
            }
            (_, None) => {
                let message = format!("this side knows the peer now, and it could not be reached: {why}");
                self.join_ends(now, peer, "pinned", None, message);
            }
        }
    }

    pub(super) fn join_due(&mut self, now: Now, peer: AgentId) {
        let Some(joining) = self.pairing.joining.get(&peer) else { return };
        if joining.secret.is_some() && !matches!(joining.stage, Stage::Paired(_)) {
            let message =
                format!("{peer} did not answer in time: is its daemon running? The invite may be used again");
            return self.join_fails(now, peer, IpcError::new(IpcCode::Timeout, message));
        }
        self.join_unreachable(now, peer, "no connection came up in time");
    }

    /// It is known what comes of joining: it is written down, and then told.
    fn join_ends(
        &mut self,
        now: Now,
        peer: AgentId,
        state: &'static str,
        admission: Option<Admission>,
        message: String,
    ) {
        let Some(Joining { client, req_id, level, .. }) = self.pairing.joining.remove(&peer) else { return };
        self.timers.clear(Key::Join(peer));
        self.pairing.before.remove(&peer);
        let joined = Box::new(Joined { client, req_id, state, admission, message });
        let rule = if state == "paired" { level.as_str() } else { state };
        self.audit(now, Event::Paired, Some(peer), rule);
        let mut steps = vec![Step::Contacts(vec![Said::Of(peer)])];
        // Whoever is let in by its owner here need not wait any more.
        if state == "paired" && self.pairing.knocks.remove(peer).is_some() {
            steps.insert(0, Step::Store(vec![Waiting::delete(peer)]));
        }
        self.begin(now, steps, End::Joined { peer, joined });
    }

    pub(super) fn joined(
        &mut self,
        now: Now,
        peer: AgentId,
        joined: Joined,
        outcome: Result<String, String>,
    ) {
        let Joined { client, req_id, state, admission, message } = joined;
        let answer = match outcome {
            Ok(_) => {
                let line = Line::ok(&req_id).field("agent_id", &peer).field("state", state);
                let line = line.maybe("trust", self.peers.level(peer, now.wall_ms).as_ref());
                let line = match admission {
                    Some(Admission { level, constraints, .. }) => {
                        let line = line.maybe("level", level.as_ref());
                        match constraints {
                            Some(constraints) => line.raw("constraints", &constraints_json(&constraints)),
                            None => line,
                        }
                    }
                    None => line,
                };
                Ok(line.field("message", &message).end())
            }
            Err(why) => Err(IpcError::new(IpcCode::InternalError, why)),
        };
        self.join_answered(now, peer, (client, &req_id), answer);
    }

    /// Joining has failed: what was said of the peer before holds again.
    fn join_fails(&mut self, now: Now, peer: AgentId, error: IpcError) {
        let Some(Joining { client, req_id, kept_out, .. }) = self.pairing.joining.remove(&peer) else {
            return;
        };
        self.timers.clear(Key::Join(peer));
        if kept_out {
            self.peers.keep_out(peer);
        }
        let before = self.pairing.before.remove(&peer).flatten();
        let undone = match before {
            Some(contact) => self.apply_contacts(now, &[ContactChange::Put(contact)]).unwrap_or_default(),
            None => self.unsay(now, peer),
        };
        undone.into_iter().for_each(|id| self.drop_peer(now, id, "not paired"));
        self.join_answered(now, peer, (client, &req_id), Err(error));
    }

    /// A peer that is being joined was let in here as well: that stays, whatever comes of joining.
    pub(super) fn join_provided(&mut self, peer: AgentId, contact: &Contact) {
        if let Some(before) = self.pairing.before.get_mut(&peer) {
            *before = Some(contact.clone());
        }
    }

    /// The owner says something else of a peer that is being joined: that holds.
    pub(super) fn join_overruled(&mut self, now: Now, peer: AgentId) {
        if self.is_joining(peer) {
            let message =
                "something else was said of this peer meanwhile: connect again, if that is still wanted";
            self.join_fails(now, peer, IpcError::new(IpcCode::NotAuthorized, message));
        }
    }

    fn join_answered(
        &mut self,
        now: Now,
        peer: AgentId,
        (client, req_id): (ClientId, &str),
        answer: Result<Arc<str>, IpcError>,
    ) {
        self.answer_of(client, req_id, answer, super::Of::Peer(peer));
        let Some(state) = self.agents.clients.get_mut(&client) else { return };
        state.pending = state.pending.saturating_sub(1);
        if state.leaving {
            self.client_eof(now, client);
        }
    }

    // --- knocks, as their owner sees them ---

    pub(super) fn knocks_list(&self, req_id: &str) -> Arc<str> {
        let rows: Vec<Box<serde_json::value::RawValue>> = self.pairing.knocks.iter().map(knock_row).collect();
        Line::ok(req_id).field("knocks", &rows).end()
    }

    pub(super) fn approve(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let id = self.knock_meant(command)?;
        let level = level_of(command)?.unwrap_or(Level::Known);
        if level == Level::Blocked {
            return Err(IpcError::invalid(
                "the field `trust` is unknown, known or trusted; `axon deny` turns away",
            ));
        }
        let Some(waiting) = self.pairing.knocks.get(id).cloned() else { return Ok(()) };
        if waiting
            .rekey_of
            .is_some_and(|old| self.peers.level(old, now.wall_ms).is_none_or(|l| l == Level::Blocked))
        {
            let message =
                "the peer that this key follows is not known here any more: pair anew by `axon invite`";
            return Err(IpcError::new(IpcCode::NotAuthorized, message));
        }
        let name = command.name_given::<String>()?.map(|name| self.name_for(id, name)).transpose()?;
        let req_id = command.req_id().to_owned();
        let mut contact = match waiting.rekey_of {
            Some(old) => self.successor(now, old, waiting.pubkey, level),
            None => self.contact_of(now, id),
        };
        if waiting.rekey_of.is_none() {
            contact.level = contact.level.max(level);
            contact.why = Some("approved".into());
            let known = contact.addrs.clone();
            contact.addrs.extend(waiting.addrs.iter().filter(|addr| !known.contains(addr)).cloned());
            contact.addrs.truncate(ADDRS_PER_PEER_MAX);
        }
        contact.pubkey = Some(waiting.pubkey);
        contact.name = name.or(contact.name);
        contact.expiry_ms = contact.expiry_ms.filter(|at_ms| *at_ms > now.wall_ms);
        let level = contact.level;
        self.join_provided(id, &contact);
        let mut changes = vec![ContactChange::Put(contact)];
        if let Some(old) = waiting.rekey_of {
            changes.insert(0, ContactChange::Remove(old));
        }
        if let Some(old) = waiting.rekey_of {
            self.succeed(now, old, id);
        }
        let out = self.apply_contacts(now, &changes)?;
        out.into_iter().for_each(|id| self.drop_peer(now, id, "it has a new key"));
        self.pairing.knocks.remove(id);
        self.pairing.knocks.undeny(id);
        self.audit(now, Event::Paired, Some(id), level.as_str());
        // What it has as a stranger makes room for what it has as a peer.
        for conn in self.conns_of(id) {
            if self.sessions.get(conn).is_some_and(|session| session.phase == Phase::Stranger) {
                self.close(now, conn, 0, "paired");
            }
        }
        self.dial_for_sending(now, id);
        let line = Line::ok(&req_id).field("agent_id", &id).field("trust", &level).end();
        let said = waiting.rekey_of.map(Said::Gone).into_iter().chain([Said::Of(id)]).collect();
        let steps = [Step::Contacts(said), Step::Store(vec![Waiting::delete(id)])];
        self.begin(now, steps, End::Line { client, req_id, line });
        Ok(())
    }

    pub(super) fn deny(&mut self, now: Now, client: ClientId, command: &Command<'_>) -> Result<(), IpcError> {
        let id = self.knock_meant(command)?;
        self.pairing.knocks.remove(id);
        self.pairing.knocks.deny(id, now.mono_ms);
        self.audit(now, Event::Knock, Some(id), "denied");
        let line = Line::ok(command.req_id()).field("agent_id", &id).end();
        let end = End::Line { client, req_id: command.req_id().to_owned(), line };
        self.begin(now, [Step::Store(vec![Waiting::delete(id)])], end);
        Ok(())
    }

    fn knock_meant(&self, command: &Command<'_>) -> Result<AgentId, IpcError> {
        let text = command.id::<String>()?.ok_or_else(|| missing("id", "a knock's, from `axon knocks`"))?;
        self.pairing.knocks.find(&text)
    }

    /// Tells the owner's clients of a knock that waits.
    pub(super) fn tell_knock(&mut self, waiting: &Waiting) {
        let row = knock_row(waiting);
        let rest = row.get().strip_prefix('{').unwrap_or("}");
        let line: Arc<str> = format!("{{\"event\":\"knock\",{rest}").into();
        for (client, state) in &self.agents.clients {
            if state.scope.is_none() && state.trusted && state.wants().wants("knock") {
                let of = super::Of::Peer(waiting.agent_id);
                self.out.push(Effect::Line { client: *client, line: line.clone(), of });
            }
        }
    }
}

fn knock_row(waiting: &Waiting) -> Box<serde_json::value::RawValue> {
    #[derive(serde::Serialize)]
    struct Row {
        id: String,
        #[serde(flatten)]
        waiting: Waiting,
        claimed: bool,
    }
    // From which addresses it came is for the bounds.
    let waiting = Waiting { site: None, ..waiting.clone() };
    to_raw(&Row { id: waiting.id(), waiting, claimed: true })
}

fn intent_of(command: &Command<'_>) -> Result<Option<Intent>, IpcError> {
    let Some(intent) = command.intent::<Intent>()? else { return Ok(None) };
    let fits = |text: &str| (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control);
    if !fits(&intent.category) || !intent.action.as_deref().is_none_or(fits) {
        let message = format!("`category` and `action` of `intent` are 1 to {NAME_BYTES_MAX} bytes each");
        return Err(IpcError::invalid(message));
    }
    Ok(Some(intent))
}

fn number(field: &str, given: Option<u64>, preset: u64, min: u64, max: u64) -> Result<u64, IpcError> {
    let n = given.unwrap_or(preset);
    if (min..=max).contains(&n) {
        return Ok(n);
    }
    Err(IpcError::invalid(format!("the field `{field}` is a number from {min} to {max}")))
}
