//! Presence: what agents say of themselves, who of the neighbours is there, and whom they know.
//!
//! Source: `spec/kinds/presence.md`. Nothing of it is on disk: it is true for some minutes at most.

pub mod alive;
pub mod beacon;
mod commands;
pub mod find;
mod neighbours;
mod own;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{IpcError, PeerCode, Refusal};
use crate::family::{Act, Cx, Family, Inbound, Input, Kind, Pattern, Sendable, Vocabulary};
use crate::id::{AgentId, MsgId};
use crate::ipc::Command;
use crate::limits::{FIND_ONWARD, FOUND_HOPS_MAX, PRESENCE_CLOCK_MS};
use crate::node::ClientId;
use crate::trust::Level;
use crate::wire::Envelope;
use beacon::Beacon;
use find::{Asker, Find, Found, Target, Walk, Walks};
use neighbours::{Change, Neighbours};
use own::Own;

/// The feature that who takes part has offered.
const FEATURE: &str = "presence";

const fn kind(name: &'static str, pattern: Pattern, check: fn(&str) -> Result<(), String>) -> Kind {
    Kind {
        name,
        pattern,
        feature: Some(FEATURE),
        kept: false,
        sendable: Sendable::No,
        needs: Level::Known,
        has_domain: false,
        // A walk is known by an id of its own.
        idempotent: true,
        made_here: false,
        check,
    }
}

/// The words of presence.
pub static VOCABULARY: Vocabulary = Vocabulary {
    family: "presence",
    kinds: &[
        kind("presence.beacon", Pattern::OneWay, beacon::check),
        kind(
            "presence.find",
            Pattern::Request { replies: &["presence.found", "error"], later: &[] },
            find::check_find,
        ),
        Kind { needs: Level::Unknown, ..kind("presence.found", Pattern::Reply, find::check_found) },
    ],
};

/// The family.
#[derive(Debug, Default)]
pub struct Presence {
    own: Own,
    neighbours: Neighbours,
    walks: Walks,
    /// Clients that are told of changes.
    watching: BTreeSet<ClientId>,
    counts: Counts,
    /// Walks that clients of this daemon have begun.
    begun: u64,
}

/// What `status` shows.
#[derive(Debug, Default)]
struct Counts {
    told: u64,
    heard: u64,
    asked: u64,
    dropped: BTreeMap<&'static str, u64>,
}

impl Family for Presence {
    fn vocabulary(&self) -> &'static Vocabulary {
        &VOCABULARY
    }

    fn handle(&mut self, input: Input<'_>, cx: &mut Cx<'_>) {
        match input {
            Input::Message { message, kind } => match kind.name {
                "presence.beacon" => self.beacon(message, cx),
                _ => self.asked(message, cx),
            },
            Input::PeerReply { request, answer } => self.answered(request, answer.ok(), cx),
            Input::PeerUp { peer } => {
                let change = self.neighbours.up(peer, cx);
                self.say(peer, change, cx);
                self.tell_some(cx);
            }
            Input::PeerDown { peer } => {
                let change = self.neighbours.down(peer, cx);
                self.say(peer, change, cx);
            }
            Input::PeerOut { peer } | Input::Successor { old: peer, .. } => self.neighbours.out(peer),
            Input::Capabilities => {
                self.own.learn(cx);
                self.own.changed(cx);
                self.tell_due(cx);
            }
            Input::Settings => {
                self.own.changed(cx);
                self.tell_due(cx);
            }
            Input::Timer => {
                self.tell_due(cx);
                while let Some(id) = self.walks.due(cx.now.mono_ms) {
                    self.end(id, cx);
                }
            }
            Input::Tick => {
                for (peer, change) in self.neighbours.look(cx) {
                    self.say(peer, Some(change), cx);
                }
                self.own.look(cx);
                self.own.changed(cx);
                self.tell_due(cx);
                // Whom the level of a moment ago kept out.
                self.tell_some(cx);
            }
            Input::ClientGone { client } => {
                self.watching.remove(&client);
                self.walks.forget_client(client);
                self.own.set(client, None);
                self.own.changed(cx);
                self.tell_due(cx);
            }
            Input::Stopping if self.own.end() && self.own.beacon().is_some() => self.tell_all(cx),
            _ => {}
        }
    }

    fn next_due_ms(&self) -> Option<u64> {
        [self.own.due_ms(), self.walks.next_due_ms()].into_iter().flatten().min()
    }

    fn status(&self) -> Option<(&'static str, String)> {
        let Counts { told, heard, asked, dropped } = &self.counts;
        let value = serde_json::json!({
            "online": self.neighbours.online(), "told": told, "heard": heard, "asked": asked,
            "walks": self.walks.under_way(), "dropped": dropped,
        });
        Some((FEATURE, value.to_string()))
    }

    fn command(
        &mut self,
        client: ClientId,
        name: &str,
        command: &Command<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Result<(), IpcError>> {
        self.client_says(client, name, command, cx)
    }
}

impl Presence {
    // --- beacons ---

    /// A neighbour says how it is.
    fn beacon(&mut self, message: &Inbound, cx: &mut Cx<'_>) {
        let peer = message.envelope.from;
        // It was checked before it came here.
        let Ok(beacon) = Beacon::parse(message.envelope.payload()) else { return };
        match self.neighbours.take(peer, beacon, cx) {
            Ok(change) => {
                self.counts.heard += 1;
                self.say(peer, change, cx);
            }
            Err(why) => *self.counts.dropped.entry(why.as_str()).or_default() += 1,
        }
    }

    /// Tells clients that have asked for it.
    fn say(&self, peer: AgentId, change: Option<Change>, cx: &mut Cx<'_>) {
        let Some(change) = change else { return };
        if self.watching.is_empty() || cx.view.level(peer).is_none_or(|level| level == Level::Blocked) {
            return;
        }
        let row = self.neighbours.row(peer, cx);
        let line = serde_json::json!({"event": "presence", "change": change.as_str(), "peer": row});
        let line: std::sync::Arc<str> = line.to_string().into();
        for client in self.watching.iter().filter(|client| cx.view.sees(**client, peer)) {
            cx.acts.push_back(Act::Tell { client: *client, line: line.clone() });
        }
    }

    /// Says what has changed, or what must be said again, when its time has come.
    fn tell_due(&mut self, cx: &mut Cx<'_>) {
        if self.own.due_ms().is_some_and(|due| due <= cx.now.mono_ms) {
            self.tell_all(cx);
        }
    }

    /// A new beacon, to everybody who is there.
    fn tell_all(&mut self, cx: &mut Cx<'_>) {
        self.own.make(cx);
        self.tell(true, cx);
    }

    /// The beacon that holds, to those who have not had it.
    fn tell_some(&mut self, cx: &mut Cx<'_>) {
        if self.neighbours.told_next(false).any(|(peer, _)| hears(peer, cx)) {
            if self.own.beacon().is_none() {
                self.own.learn(cx);
                self.own.make(cx);
            }
            self.tell(false, cx);
        }
    }

    fn tell(&mut self, all: bool, cx: &mut Cx<'_>) {
        let Some(payload) = self.own.beacon().map(|beacon| beacon.sent(None)) else { return };
        for (to, neighbour) in self.neighbours.told_next(all) {
            if hears(to, cx) {
                neighbour.told = true;
                self.counts.told += 1;
                cx.send(to, "presence.beacon", payload.clone());
            }
        }
    }

    // --- walks ---

    /// A neighbour asks for somebody.
    fn asked(&mut self, message: &Inbound, cx: &mut Cx<'_>) {
        let Ok(find) = Find::parse(message.envelope.payload()) else { return };
        let from = message.envelope.from;
        self.counts.asked += 1;
        if !self.walks.has_room(Some(from)) {
            let why = "too many walks are under way here: try again in a moment";
            return cx.refuse(message, &Refusal::new(PeerCode::Overloaded, why));
        }
        let asker = Asker::Peer(Box::new(message.clone()));
        let mut walk = self.walk(&find, asker, cx);
        // One that was here before goes no further, and what is known here was said then.
        if !self.walks.meet(find.id) {
            walk.found.clear();
            return self.tell_found(walk, cx);
        }
        self.go(find, walk, Some(from), FIND_ONWARD, cx);
    }

    /// A walk, with those whom this daemon knows itself.
    fn walk(&self, find: &Find, asker: Asker, cx: &Cx<'_>) -> Walk {
        let due_ms = cx.now.mono_ms.saturating_add(find::wait_ms(find.hops));
        let (target, waiting, found) = (find.target.clone(), Vec::new(), BTreeMap::new());
        let mut walk = Walk { target, asker, waiting, found, due_ms };
        let near = self.neighbours.beacons(cx.now.mono_ms).map(|beacon| (beacon, 1));
        let all = near.chain(self.own.beacon().map(|beacon| (beacon, 0)));
        for (beacon, hops) in all.filter(|(beacon, _)| find.target.is_met_by(beacon)) {
            walk.add(Found { beacon: beacon.clone(), hops });
        }
        walk
    }

    /// Passes a walk on, or ends it where there is nobody to ask.
    fn go(&mut self, find: Find, mut walk: Walk, from: Option<AgentId>, most: usize, cx: &mut Cx<'_>) {
        let met = matches!(find.target, Target::Agent(agent) if walk.found.contains_key(&agent));
        if met || (from.is_some() && find.hops == 0) {
            return self.tell_found(walk, cx);
        }
        let others = self.neighbours.connected().filter(|peer| Some(*peer) != from && hears(*peer, cx));
        walk.waiting = find::some_of(find.id, cx.me, others.collect(), most);
        if walk.waiting.is_empty() {
            return self.tell_found(walk, cx);
        }
        let left = if from.is_some() { find.hops - 1 } else { find.hops };
        let onward = Find { hops: left, ..find }.to_raw();
        let id = find.id;
        walk.waiting.iter().for_each(|to| cx.send(*to, "presence.find", onward.clone()));
        self.walks.begin(id, walk);
    }

    /// One who was asked has answered, or will not.
    fn answered(&mut self, request: &Envelope, answer: Option<&Envelope>, cx: &mut Cx<'_>) {
        if request.kind() != "presence.find" {
            return;
        }
        let Ok(Find { id, .. }) = Find::parse(request.payload()) else { return };
        let Some(walk) = self.walks.get_mut(id) else { return };
        let Some(at) = walk.waiting.iter().position(|peer| *peer == request.to) else { return };
        walk.waiting.swap_remove(at);
        let found = answer.filter(|answer| answer.kind() == "presence.found");
        let found = found.and_then(|answer| find::parse_found(answer.payload()).ok()).unwrap_or_default();
        for one in found {
            let hops = one.hops + 1;
            let late = one.beacon.expires_ms.saturating_add(PRESENCE_CLOCK_MS) < cx.now.wall_ms
                || one.beacon.ts_ms > cx.now.wall_ms.saturating_add(PRESENCE_CLOCK_MS);
            let wanted = walk.target.is_met_by(&one.beacon) && one.beacon.agent_id != cx.me;
            if late || !wanted || hops > FOUND_HOPS_MAX {
                continue;
            }
            // Nothing is passed on that its maker has not signed.
            let bytes = Beacon::signed_bytes(&one.beacon.signed);
            if cx.view.verify(&one.beacon.key, &bytes, &one.beacon.sig) {
                walk.add(Found { hops, ..one });
            } else {
                *self.counts.dropped.entry("forged").or_default() += 1;
            }
        }
        if walk.waiting.is_empty() {
            self.end(id, cx);
        }
    }

    fn end(&mut self, id: MsgId, cx: &mut Cx<'_>) {
        if let Some(walk) = self.walks.end(id) {
            self.tell_found(walk, cx);
        }
    }

    /// Tells who asked what was found, as far as it may know of it.
    fn tell_found(&mut self, walk: Walk, cx: &mut Cx<'_>) {
        let blocked = |beacon: &Beacon| cx.view.level(beacon.agent_id) == Some(Level::Blocked);
        match &walk.asker {
            Asker::Peer(message) => {
                let from = message.envelope.from;
                // Its level may have changed since it asked.
                let level = cx.view.level(from).unwrap_or(Level::Blocked);
                let may = |beacon: &Beacon| {
                    beacon.agent_id != from && !blocked(beacon) && beacon.about.findable.by(level)
                };
                let (asker, found) = walk.nearest(may);
                if let Asker::Peer(message) = asker {
                    cx.reply(&message, "presence.found", find::found_to_raw(&found));
                }
            }
            Asker::Client { client, .. } => {
                let client = *client;
                let may = |beacon: &Beacon| {
                    beacon.agent_id != cx.me && !blocked(beacon) && cx.view.sees(client, beacon.agent_id)
                };
                let (asker, found) = walk.nearest(may);
                if let Asker::Client { client, req_id } = asker {
                    commands::tell_found(client, &req_id, &found, cx);
                }
            }
        }
    }
}

/// Whether a neighbour is told what this agent says of itself, and is asked for others.
fn hears(peer: AgentId, cx: &Cx<'_>) -> bool {
    cx.view.presence().enabled && cx.view.is_let_in(peer) && cx.view.offers(peer, FEATURE)
}
