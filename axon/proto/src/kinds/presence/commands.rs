//! What clients ask of presence: how agents are, who can do what, and who is further away.
//!
//! Source: `spec/IPC.md`, "Presence".

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::Presence;
use super::beacon::{Beacon, Status};
use super::find::{Asker, Find, Found, Target};
use super::neighbours::say;
use crate::error::{IpcCode, IpcError};
use crate::family::{Act, Cx};
use crate::id::{AgentId, MsgId};
use crate::invite::Link;
use crate::ipc::{Command, Line};
use crate::limits::{FIND_FIRST, FIND_HOPS_MAX};
use crate::node::ClientId;
use crate::trust::Level;

/// How far away an agent may be that a client looks for: those whom it is passed on to may be neighbours of
/// the one before, and have neighbours themselves.
const DISTANCE_MAX: u8 = FIND_HOPS_MAX + 2;
/// How far it looks when it does not say.
const DISTANCE_DEFAULT: u8 = 2;

impl Presence {
    /// A client's command; none: it is not of this family.
    pub(super) fn client_says(
        &mut self,
        client: ClientId,
        name: &str,
        command: &Command<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Result<(), IpcError>> {
        if !matches!(name, "presence" | "set_presence" | "subscribe_presence" | "who" | "find") {
            return None;
        }
        if !cx.view.presence().enabled {
            let message =
                "presence is switched off: `axon config presence.enabled true`, then start the daemon again";
            return Some(Err(IpcError::new(IpcCode::NotOffered, message)));
        }
        Some(match name {
            "presence" => self.rows(client, command, cx),
            "set_presence" => self.set(client, command, cx),
            "subscribe_presence" => self.watch(client, command, cx),
            "who" => self.who(client, command, cx),
            _ => self.find(client, command, cx),
        })
    }

    /// How peers are.
    fn rows(&self, client: ClientId, command: &Command<'_>, cx: &mut Cx<'_>) -> Result<(), IpcError> {
        let peers = match command.peer::<String>()? {
            Some(peer) => vec![cx.view.resolve_for(client, &peer)?],
            None => cx.view.peers(),
        };
        let exists = |peer: &AgentId| {
            cx.view.sees(client, *peer) && cx.view.level(*peer).is_some_and(|level| level > Level::Blocked)
        };
        let rows: Vec<Value> =
            peers.into_iter().filter(exists).map(|peer| self.neighbours.row(peer, cx)).collect();
        let own = self.own.status(cx).as_str();
        let reply = Line::ok(command.req_id()).field("status", own).field("presence", &rows).end();
        cx.act(Act::Tell { client, line: reply });
        Ok(())
    }

    /// A client says how its agent is.
    fn set(&mut self, client: ClientId, command: &Command<'_>, cx: &mut Cx<'_>) -> Result<(), IpcError> {
        let status = match command.status::<String>()? {
            None => None,
            Some(text) => Some(Status::parse(&text).ok_or_else(|| {
                IpcError::invalid(
                    "the field `status` is idle, busy, away or dnd; without it yours is taken back",
                )
            })?),
        };
        self.own.set(client, status);
        self.own.changed(cx);
        let now = self.own.status(cx).as_str();
        let reply = Line::ok(command.req_id()).field("status", now).end();
        cx.act(Act::Tell { client, line: reply });
        self.tell_due(cx);
        Ok(())
    }

    /// A client wants to be told of changes, or no longer.
    fn watch(&mut self, client: ClientId, command: &Command<'_>, cx: &mut Cx<'_>) -> Result<(), IpcError> {
        let on = command.on::<bool>()?.unwrap_or(true);
        if on {
            self.watching.insert(client);
        } else {
            self.watching.remove(&client);
        }
        let reply = Line::ok(command.req_id()).flag("on", on).end();
        cx.act(Act::Tell { client, line: reply });
        Ok(())
    }

    /// Neighbours that can do something.
    fn who(&self, client: ClientId, command: &Command<'_>, cx: &mut Cx<'_>) -> Result<(), IpcError> {
        let (domain, tool) = (command.domain::<String>()?, command.tool::<String>()?);
        let fits = |beacon: &&Beacon| {
            beacon.can(domain.as_deref(), tool.as_deref())
                && cx.view.sees(client, beacon.agent_id)
                && cx.view.level(beacon.agent_id).is_some_and(|level| level > Level::Blocked)
        };
        let able = self.neighbours.beacons(cx.now.mono_ms).filter(fits);
        let rows: Vec<Value> = able.map(|beacon| self.neighbours.row(beacon.agent_id, cx)).collect();
        let reply = Line::ok(command.req_id()).field("agents", &rows).end();
        cx.act(Act::Tell { client, line: reply });
        Ok(())
    }

    /// Looks for an agent, or for one that can do something, further away.
    fn find(&mut self, client: ClientId, command: &Command<'_>, cx: &mut Cx<'_>) -> Result<(), IpcError> {
        let (agent, domain) = (command.id::<String>()?, command.domain::<String>()?);
        let tool = command.tool::<String>()?;
        let wrong = |what: String| IpcError::invalid(format!("{what}: `id`, `domain`, `tool`"));
        Target::check(agent.is_some(), domain.as_deref(), tool.as_deref()).map_err(wrong)?;
        let distance = command.hops::<u8>()?.unwrap_or(DISTANCE_DEFAULT);
        if !(1..=DISTANCE_MAX).contains(&distance) {
            return Err(IpcError::invalid(format!("the field `hops` is 1 to {DISTANCE_MAX}")));
        }
        let agent = agent.map(|text| match text.parse() {
            Ok(agent) => Ok(agent),
            // Whoever is called by a name is a peer here.
            Err(_) => cx.view.resolve_for(client, &text),
        });
        let target = Target::of(agent.transpose()?, domain.as_deref(), tool.as_deref()).map_err(wrong)?;
        if !self.walks.has_room(None) {
            let message = "too many walks are under way: try again in a moment";
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        let id = self.walk_id(cx);
        self.walks.meet(id);
        let find = Find { id, target, hops: distance.saturating_sub(2) };
        let asker = Asker::Client { client, req_id: command.req_id().to_owned() };
        let mut walk = self.walk(&find, asker, cx);
        // Time for those who are asked, and for the way there and back.
        walk.due_ms = cx.now.mono_ms.saturating_add(super::find::wait_ms(find.hops + 1));
        cx.act(Act::Await { client, waits: true });
        let most = if distance >= 2 { FIND_FIRST } else { 0 };
        self.go(find, walk, None, most, cx);
        Ok(())
    }

    /// An id that nobody can foresee: what this agent's key makes of the time and a number.
    fn walk_id(&mut self, cx: &Cx<'_>) -> MsgId {
        self.begun += 1;
        let when = format!("{} {} {}", cx.now.wall_ms, cx.now.mono_ms, self.begun);
        let text = format!("axon presence walk 1\n{} {when}", cx.me);
        let hash = Sha256::new().chain_update(cx.view.sign(text.as_bytes())).chain_update(text).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        MsgId::from_random(bytes)
    }
}

/// Answers a client's `find`.
pub(super) fn tell_found(client: ClientId, req_id: &str, found: &[Found], cx: &mut Cx<'_>) {
    let rows: Vec<Value> = found.iter().map(|one| found_row(one, cx)).collect();
    let mut reply = Line::ok(req_id);
    reply = reply.field("agents", &rows);
    cx.act(Act::Tell { client, line: reply.end() });
    cx.act(Act::Await { client, waits: false });
}

fn found_row(one: &Found, cx: &Cx<'_>) -> Value {
    let Found { beacon, hops } = one;
    let mut row = Map::new();
    let mut put = |field: &str, value: Value| drop(row.insert(field.to_owned(), value));
    put("id", beacon.agent_id.to_string().into());
    put("public_key", beacon.key.to_string().into());
    put("hops", (*hops).into());
    put("status", Value::from(&*beacon.about.status));
    put("ts_ms", beacon.ts_ms.into());
    match (cx.view.called(beacon.agent_id), &beacon.about.name) {
        (Some(name), _) => put("name", name.into()),
        (None, Some(name)) => {
            put("name", Value::from(&**name));
            put("claimed", true.into());
        }
        (None, None) => {}
    }
    if let Some(level) = cx.view.level(beacon.agent_id) {
        put("trust", level.as_str().into());
    }
    say(beacon, &mut put);
    let addrs: Vec<String> = beacon.about.addrs.iter().map(|addr| addr.to_string()).collect();
    if !addrs.is_empty() {
        // Whoever wants to can knock there.
        put("link", Link { key: beacon.key, addrs, secret: None }.to_string().into());
    }
    Value::Object(row)
}
