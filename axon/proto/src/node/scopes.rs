//! Scoped sockets: what their clients may do, and whom and what they see.
//!
//! Source: `spec/IPC.md`, "Scoped sockets". A scope is checked where a command begins, where an agent is
//! picked, and where a row is shown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::contacting::missing;
use super::jobs::{End, Step};
use super::storing::Reading;
use super::{ClientId, Node, Now};
use crate::agents::Client;
use crate::audit::Event;
use crate::error::{IpcCode, IpcError};
use crate::family::Input as FamilyInput;
use crate::fault::has_room;
use crate::id::{AgentId, MsgId};
use crate::ipc::{Command, Line};
use crate::limits::{DOMAIN_BYTES_MAX, KIND_BYTES_MAX, RULE_NAMES_MAX, SCOPE_UNACKED_MAX, SOCKETS_MAX};
use crate::mailbox::SCOPED;
use crate::scope::{Right, Scope, ScopeChange};
use crate::store::{Read, Row, Rows};
use crate::trust::{Asked, Level, Policies, Rates, check};
use crate::wire::{decode, raw_json};

/// Rows that are looked at together.
const ROWS_AT_ONCE: usize = 256;
/// Their bytes.
const BYTES_AT_ONCE: usize = 1 << 20;

/// All scoped sockets.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    table: BTreeMap<String, State>,
}

#[derive(Debug)]
struct State {
    scope: Arc<Scope>,
    rates: Rates,
    /// Rows that its consumer was given and has not acknowledged.
    given: BTreeSet<u64>,
    /// They are those of this run only, and not of the one before.
    recalled: bool,
}

impl Scopes {
    pub(super) fn new(list: Vec<Scope>) -> Self {
        let state = |scope: Scope| State {
            scope: Arc::new(scope),
            rates: Rates::default(),
            given: BTreeSet::new(),
            recalled: false,
        };
        Self { table: list.into_iter().map(|scope| (scope.name.clone(), state(scope))).collect() }
    }

    /// The scope of this name.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Scope>> {
        self.table.get(name).map(|state| state.scope.clone())
    }
}

/// What a command needs.
enum Needs {
    /// Nothing.
    Nothing,
    /// These rights.
    Rights(&'static [Right]),
    /// The owner's socket.
    Owner,
}

fn needs(name: &str, command: &Command<'_>) -> Needs {
    match name {
        "hello" | "auth" | "whoami" | "status" | "peers" => Needs::Nothing,
        "send" | "outbox" | "delegations" | "publish" | "presence" | "subscribe_presence" | "who"
        | "find" => Needs::Rights(&[Right::Send]),
        "inbox" | "ack" | "subscribe_topic" | "unsubscribe_topic" | "topics" | "topic_peers" => {
            Needs::Rights(&[Right::Inbox])
        }
        "reply" | "set_presence" => Needs::Rights(&[Right::Answer]),
        "subscribe" => match (command.has_answer(), command.has_kinds()) {
            (true, false) => Needs::Rights(&[Right::Answer]),
            (true, true) => Needs::Rights(&[Right::Answer, Right::Inbox]),
            (false, _) => Needs::Rights(&[Right::Inbox]),
        },
        "advertise" => Needs::Rights(&[Right::Advertise]),
        _ => Needs::Owner,
    }
}

impl Node {
    /// The scope of a client; none: it is the owner's.
    pub(super) fn scope_of(&self, client: ClientId) -> Option<Arc<Scope>> {
        self.agents.clients.get(&client).and_then(|client| client.scope.clone())
    }

    /// Whether a client may say this at all.
    pub(super) fn within_scope(
        &mut self,
        now: Now,
        client: ClientId,
        name: &str,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let Some(scope) = self.scope_of(client) else { return Ok(()) };
        let lacking = match needs(name, command) {
            Needs::Nothing => return Ok(()),
            Needs::Rights(rights) => {
                rights.iter().find(|right| !scope.may(**right)).map(|right| right.as_str())
            }
            Needs::Owner => None,
        };
        if lacking.is_none() && !matches!(needs(name, command), Needs::Owner) {
            // What is published goes to whoever wants it: its rules are asked as if it went to this agent.
            let published = name == "publish";
            return if published { self.may_send(now, client, self.me, "topic.message", "") } else { Ok(()) };
        }
        // Whatever the agent makes up is one thing to the audit log.
        let tried = if super::commands::is_v2(name) { name } else { "no command" };
        self.audit_for(now, Event::Scope, None, Some(&scope.name), tried);
        let name = &scope.name;
        let message = match lacking {
            Some(right) => format!(
                "the socket \"{name}\" lacks the right `{right}`: its owner can give it by `axon socket set`"
            ),
            None => format!("the socket \"{name}\" may not do this: only the owner's own socket may"),
        };
        Err(IpcError::new(IpcCode::NotAuthorized, message))
    }

    /// The peer that a client names, noted where it is outside its scope.
    pub(super) fn peer_for(&mut self, now: Now, client: ClientId, text: &str) -> Result<AgentId, IpcError> {
        let found = self.peer_within(client, text);
        if let (Err(_), Some(scope)) = (&found, self.scope_of(client)) {
            let outside = self.peers.resolve(text).ok();
            self.audit_for(now, Event::Scope, outside, Some(&scope.name), "to");
        }
        found
    }

    /// The peer that a client names; one outside its scope is no other to it than one that is not known.
    pub(super) fn peer_within(&self, client: ClientId, text: &str) -> Result<AgentId, IpcError> {
        let found = self.peers.resolve(text);
        let Some(scope) = self.scope_of(client) else { return found };
        if let Ok(peer) = found
            && scope.sees_peer(peer)
        {
            return found;
        }
        let message =
            format!("no peer that the socket \"{}\" may send to is called so: see `peers`", scope.name);
        Err(IpcError::new(IpcCode::PeerNotFound, message))
    }

    /// Whether a client may cancel this delegation: a scoped socket only what was given by it.
    pub(super) fn may_cancel(&self, client: ClientId, family: usize, id: MsgId) -> Result<(), IpcError> {
        let Some(scope) = self.scope_of(client) else { return Ok(()) };
        let given_by = self.families.get(family).and_then(|family| family.given_by(id));
        if given_by.as_deref() == Some(&*scope.name) {
            return Ok(());
        }
        let message = "no delegation of that id was sent from here: check the id";
        Err(IpcError::new(IpcCode::NotFound, message))
    }

    /// Whether a client may send this; counts it, and tells the audit log.
    pub(super) fn may_send(
        &mut self,
        now: Now,
        client: ClientId,
        to: AgentId,
        kind: &str,
        payload: &str,
    ) -> Result<(), IpcError> {
        let Some(scope) = self.scope_of(client) else { return Ok(()) };
        let has_domain = self.kinds.get(kind).is_some_and(|(_, kind)| kind.has_domain);
        let outside = if !scope.sees_peer(to) {
            Some("to")
        } else if !scope.sees_kind(kind) {
            Some("kinds")
        } else if has_domain && !scope.sees_domain(super::auditing::domain_of(payload).as_deref()) {
            Some("domains")
        } else {
            None
        };
        if let Some(rule) = outside {
            self.audit_for(now, Event::Scope, Some(to), Some(&scope.name), rule);
            let message =
                format!("the socket \"{}\" may not send this: its `{rule}` do not list it", scope.name);
            return Err(IpcError::new(IpcCode::NotAuthorized, message));
        }
        if let Some(state) = self.scopes.table.get_mut(&scope.name) {
            let mut policies = Policies::default();
            policies.known.messages_per_minute = scope.messages_per_minute;
            let asked = Asked {
                peer: self.me,
                level: Level::Known,
                kind,
                needs: Level::Unknown,
                domain: None,
                payload_bytes: 0,
                bytes: 0,
                in_flight: None,
            };
            if let Some(ruling) = check(&policies, &mut state.rates, &asked, now.mono_ms, true) {
                self.audit_for(now, Event::Scope, Some(to), Some(&scope.name), "messages_per_minute");
                let message = format!(
                    "the socket \"{}\" may send {} messages a minute: try again in {} s",
                    scope.name,
                    scope.messages_per_minute,
                    ruling.retry_after_ms.unwrap_or(1_000).div_ceil(1_000)
                );
                return Err(IpcError::new(IpcCode::Overloaded, message));
            }
        }
        let kind: String = kind.chars().take(KIND_BYTES_MAX).collect();
        self.audit_for(now, Event::Sent, Some(to), Some(&scope.name), &kind);
        Ok(())
    }

    /// Whether a client sees this row.
    pub(super) fn sees_row(&self, id: ClientId, client: &Client, from: AgentId, row: &Row) -> bool {
        if self.is_shut(from, row.seq) {
            return false;
        }
        if let Some((index, kind)) = self.kinds.get(&row.kind)
            && kind.made_here
            && !self.families.get(index).is_some_and(|family| family.shows(id, &client.consumer, row))
        {
            return false;
        }
        let Some(scope) = &client.scope else { return true };
        if !scope.may(Right::Inbox) || !scope.sees_peer(from) || !scope.sees_kind(&row.kind) {
            return false;
        }
        let has_domain = self.kinds.get(&row.kind).is_some_and(|(_, kind)| kind.has_domain);
        if scope.domains.is_none() || !has_domain {
            return true;
        }
        let envelope = decode(row.raw.as_bytes().to_vec());
        envelope.is_ok_and(|envelope| {
            scope.sees_domain(super::auditing::domain_of(envelope.payload()).as_deref())
        })
    }

    /// A scoped consumer was given this row.
    pub(super) fn note_given(&mut self, scope: &Scope, seq: u64) {
        if let Some(state) = self.scopes.table.get_mut(&scope.name)
            && has_room("rows a scoped socket was given", state.given.len() < SCOPE_UNACKED_MAX)
        {
            state.given.insert(seq);
        }
    }

    /// Rows that a scoped consumer has read up to here: they may go like any other that was read.
    pub(super) fn given_up_to(&self, scope: &Scope, up_to: u64) -> Vec<u64> {
        let state = self.scopes.table.get(&scope.name);
        state.map(|state| state.given.range(..=up_to).copied().collect()).unwrap_or_default()
    }

    /// A scoped consumer's cursor has moved.
    pub(super) fn given_acked(&mut self, name: &str, up_to: u64) {
        if let Some(state) = self.scopes.table.get_mut(name) {
            state.given = state.given.split_off(&up_to.saturating_add(1));
        }
    }

    /// After a restart: looks up what a scoped consumer was given before, and has not acknowledged.
    pub(super) fn recall_given(&mut self, client: ClientId) {
        let Some(scope) = self.scope_of(client) else { return };
        let Some(state) = self.scopes.table.get_mut(&scope.name) else { return };
        if std::mem::replace(&mut state.recalled, true) {
            return;
        }
        let consumer = format!("{SCOPED}{}", scope.name);
        let (after, up_to) = (self.mailbox.acked(&consumer), self.mailbox.delivered(&consumer));
        if after < up_to {
            self.begin_reading(client);
            self.read_given(client, after, up_to);
        }
    }

    fn read_given(&mut self, client: ClientId, after: u64, up_to: u64) {
        let read = Read::Rows {
            after,
            up_to,
            kinds: None,
            stop_at_other: false,
            limit: ROWS_AT_ONCE,
            bytes_max: BYTES_AT_ONCE,
        };
        self.read(read, Reading::Given { client, up_to });
    }

    pub(super) fn given_read(&mut self, now: Now, client: ClientId, up_to: u64, rows: Rows) {
        let at = rows.next.map_or(rows.scanned_to, |next| next.saturating_sub(1));
        let more = rows.next.is_some() && at < up_to;
        if let Some(scope) = self.scope_of(client) {
            for (row, _) in self.seen(client, rows.rows) {
                self.note_given(&scope, row.seq);
            }
            if more {
                return self.read_given(client, at, up_to);
            }
        }
        self.resume(now, client);
    }

    /// `status` as a scoped socket sees it: nothing of others.
    pub(super) fn scoped_status(&self, now: Now, scope: &Scope, req_id: &str) -> Arc<str> {
        let up =
            self.peers.iter().filter(|peer| scope.sees_peer(peer.id) && self.best_session(peer.id).is_some());
        Line::ok(req_id)
            .field("uptime_secs", &self.uptime_secs(now))
            .field("peers_connected", &up.count())
            .field("paused", &self.peers.contacts().paused())
            .end()
    }

    // --- the owner's commands ---

    pub(super) fn sockets_list(&self, req_id: &str) -> Arc<str> {
        let rows: Vec<serde_json::Value> =
            self.scopes.table.values().map(|s| self.socket_row(&s.scope)).collect();
        Line::ok(req_id).field("sockets", &rows).end()
    }

    fn socket_row(&self, scope: &Scope) -> serde_json::Value {
        let Scope { name, allow, to, kinds, domains, uid, messages_per_minute } = scope;
        let mut row = serde_json::Map::new();
        row.insert("name".into(), name.clone().into());
        let allow: Vec<&str> = allow.iter().map(|right| right.as_str()).collect();
        row.insert("allow".into(), allow.into());
        if let Some(to) = to {
            let to: Vec<String> = to.iter().map(ToString::to_string).collect();
            row.insert("to".into(), to.into());
        }
        for (key, list) in [("kinds", kinds), ("domains", domains)] {
            if let Some(list) = list {
                row.insert(key.into(), list.clone().into());
            }
        }
        if let Some(uid) = uid {
            row.insert("uid".into(), (*uid).into());
        }
        row.insert("messages_per_minute".into(), (*messages_per_minute).into());
        if let Some(root) = &self.root {
            row.insert("path".into(), format!("{root}/sockets/{name}/axon.sock").into());
        }
        serde_json::Value::Object(row)
    }

    pub(super) fn socket_put(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
        new: bool,
    ) -> Result<(), IpcError> {
        let name = command.name_given::<String>()?.ok_or_else(|| missing("name", "the socket's name"))?;
        if !Scope::is_name(&name) {
            return Err(IpcError::invalid("the field `name` is 1 to 32 of a-z, 0-9 and \"-\""));
        }
        match (new, self.scopes.table.contains_key(&name)) {
            (true, true) => {
                let message = format!("there is a socket \"{name}\" already: `axon socket set` changes it");
                return Err(IpcError::invalid(message));
            }
            (false, false) => return Err(no_socket(&name)),
            (true, false) if !has_room("scoped sockets", self.scopes.table.len() < SOCKETS_MAX) => {
                let message = format!("there are {SOCKETS_MAX} sockets: remove one first");
                return Err(IpcError::new(IpcCode::Overloaded, message));
            }
            _ => {}
        }
        let allow = command.allow::<Vec<String>>()?.ok_or_else(|| missing("allow", "a list of rights"))?;
        let rights: Option<BTreeSet<Right>> = allow.iter().map(|text| Right::parse(text)).collect();
        let rights = rights.filter(|rights| !rights.is_empty()).ok_or_else(|| {
            IpcError::invalid("the field `allow` lists some of send, inbox, answer, advertise")
        })?;
        let to = match command.to_list::<Vec<String>>()? {
            None => None,
            Some(texts) if texts.len() > RULE_NAMES_MAX => return Err(too_many("to")),
            Some(texts) => {
                let ids: Result<Vec<AgentId>, IpcError> =
                    texts.iter().map(|text| self.peers.resolve(text)).collect();
                Some(ids?)
            }
        };
        let list = |field: &str, list: Option<Vec<String>>, bytes_max: usize| {
            let fits =
                |text: &String| (1..=bytes_max).contains(&text.len()) && !text.contains(char::is_control);
            match list {
                Some(list) if list.len() > RULE_NAMES_MAX || !list.iter().all(fits) => Err(too_many(field)),
                list => Ok(list),
            }
        };
        let scope = Scope {
            name: name.clone(),
            allow: rights.into_iter().collect(),
            to,
            kinds: list("kinds", command.kinds()?, KIND_BYTES_MAX)?,
            domains: list("domains", command.domains()?, DOMAIN_BYTES_MAX)?,
            uid: command.uid()?,
            messages_per_minute: command.messages_per_minute()?.unwrap_or(0),
        };
        self.set_scope(scope.clone());
        // What waits may be for its agents now, or for nobody any more.
        let mut acts = VecDeque::new();
        self.recheck_waiting(now, &mut acts);
        self.carry_out_all(now, acts);
        self.hand_over(now);
        self.audit_for(now, Event::Socket, None, Some(&name), if new { "added" } else { "changed" });
        let end = End::Socket { client, req_id: command.req_id().to_owned(), name };
        self.begin(now, [Step::Socket(ScopeChange::Put(scope))], end);
        Ok(())
    }

    pub(super) fn socket_remove(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let name = command.name_given::<String>()?.ok_or_else(|| missing("name", "the socket's name"))?;
        if self.scopes.table.remove(&name).is_none() {
            return Err(no_socket(&name));
        }
        // Whoever is attached by it has no right any more; the shell closes it.
        let nothing = Arc::new(Scope::nothing(&name));
        self.rescope(&name, &nothing);
        let consumer = format!("{SCOPED}{name}");
        let cursor = self.mailbox.forget_consumer(&consumer);
        self.note(cursor);
        self.refuse_held_by(now, &consumer);
        let nothing = raw_json("{}".into());
        for index in 0..self.families.len() {
            let family = self.families.get(index);
            let advert = family.and_then(|family| family.lasting_advert(&consumer, &nothing).ok()).flatten();
            self.note(advert);
            let told = FamilyInput::LastingAdvert { consumer: &consumer, capabilities: &nothing };
            self.tell_family(now, index, told);
            self.tell_family(now, index, FamilyInput::SocketGone { socket: &name });
        }
        self.capabilities_changed(now);
        self.audit_for(now, Event::Socket, None, Some(&name), "removed");
        let line = Line::ok(command.req_id()).field("name", &name).end();
        let end = End::Line { client, req_id: command.req_id().to_owned(), line };
        self.begin(now, [Step::Socket(ScopeChange::Remove(name))], end);
        Ok(())
    }

    pub(super) fn socket_done(
        &mut self,
        client: ClientId,
        req_id: &str,
        name: &str,
        outcome: Result<String, String>,
    ) {
        let answer = match outcome {
            Ok(path) => Ok(Line::ok(req_id).field("name", name).field("path", &path).end()),
            Err(why) => Err(IpcError::new(IpcCode::InternalError, why)),
        };
        self.answer_line(client, req_id, answer);
    }

    fn set_scope(&mut self, scope: Scope) {
        let name = scope.name.clone();
        let scope = Arc::new(scope);
        match self.scopes.table.get_mut(&name) {
            Some(state) => state.scope = scope.clone(),
            None => {
                let (rates, given) = (Rates::default(), BTreeSet::new());
                let state = State { scope: scope.clone(), rates, given, recalled: true };
                self.scopes.table.insert(name.clone(), state);
            }
        }
        self.rescope(&name, &scope);
    }

    fn rescope(&mut self, name: &str, scope: &Arc<Scope>) {
        for client in self.agents.clients.values_mut() {
            if client.scope.as_ref().is_some_and(|of| of.name == name) {
                client.scope = Some(scope.clone());
            }
        }
    }
}

fn no_socket(name: &str) -> IpcError {
    let name: String = name.chars().take(40).collect();
    IpcError::new(IpcCode::NotFound, format!("there is no socket \"{name}\": `axon socket list` shows them"))
}

fn too_many(field: &str) -> IpcError {
    IpcError::invalid(format!(
        "the field `{field}` lists at most {RULE_NAMES_MAX} names, none empty or too long"
    ))
}
