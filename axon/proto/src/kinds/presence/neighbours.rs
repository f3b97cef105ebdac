//! What neighbours have said of themselves, and who of them is there.

use std::collections::BTreeMap;

use serde_json::Value;

use super::alive::{Detector, PHI_GONE};
use super::beacon::Beacon;
use crate::family::Cx;
use crate::id::AgentId;
use crate::limits::{PRESENCE_BEACONS_AT_ONCE, PRESENCE_CHANGE_MS};
use crate::trust::Level;

/// What is known of one neighbour.
#[derive(Debug, Default)]
pub struct Neighbour {
    /// What it said last.
    beacon: Option<Beacon>,
    /// When that came (monotonic).
    said_ms: u64,
    /// The number of the newest that came over the session that is up.
    seq: u64,
    /// A session with it is up.
    pub connected: bool,
    /// It has been told this agent's beacon since.
    pub told: bool,
    /// Clients have been told that it is there.
    online: bool,
    /// When what they were told last became so, in Unix milliseconds.
    since_ms: u64,
    alive: Option<Detector>,
    heard_ms: Option<u64>,
    /// Beacons that it may still send at once, in thousandths.
    left: u64,
    left_at_ms: u64,
}

/// Why a beacon is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotTaken {
    /// It is not that of the neighbour that sent it.
    NotItsOwn,
    /// A newer one is there.
    Old,
    /// They come too often.
    Limited,
    /// Its signature is not that of its key.
    Forged,
}

impl NotTaken {
    /// As `status` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotItsOwn => "not_its_own",
            Self::Old => "old",
            Self::Limited => "limited",
            Self::Forged => "forged",
        }
    }
}

/// What clients are told of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is there.
    Online,
    /// It is not.
    Offline,
    /// It says that it is otherwise.
    Status,
}

impl Change {
    /// As events say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Status => "status",
        }
    }
}

/// All neighbours that are or were there. As many as the node knows peers, and no more.
#[derive(Debug, Default)]
pub struct Neighbours(BTreeMap<AgentId, Neighbour>);

impl Neighbours {
    /// A session is up.
    pub fn up(&mut self, peer: AgentId, cx: &Cx<'_>) -> Option<Change> {
        let pace_ms = cx.view.keepalive_ms();
        let one = self.0.entry(peer).or_insert_with(|| Neighbour::new(cx.now.mono_ms));
        (one.connected, one.told, one.seq) = (true, false, 0);
        if one.said_offline() {
            // It is there again, and has not said how it is.
            one.beacon = None;
        }
        (one.alive, one.heard_ms) = (Some(Detector::new(pace_ms)), None);
        one.says(true, cx)
    }

    /// No session is left.
    pub fn down(&mut self, peer: AgentId, cx: &Cx<'_>) -> Option<Change> {
        let one = self.0.get_mut(&peer)?;
        (one.connected, one.told, one.alive) = (false, false, None);
        one.says(false, cx)
    }

    /// A peer is out: it does not exist.
    pub fn out(&mut self, peer: AgentId) {
        self.0.remove(&peer);
    }

    /// Takes a neighbour's beacon.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn take(&mut self, from: AgentId, beacon: Beacon, cx: &Cx<'_>) -> Result<Option<Change>, NotTaken> {
        let now_ms = cx.now.mono_ms;
        let one = self.0.entry(from).or_insert_with(|| Neighbour::new(now_ms));
        // Before anything that costs: what a neighbour may ask of this machine is bounded.
        if !one.spend(now_ms) {
            return Err(NotTaken::Limited);
        }
        if beacon.agent_id != from {
            return Err(NotTaken::NotItsOwn);
        }
        if one.seq >= beacon.seq {
            return Err(NotTaken::Old);
        }
        if !cx.view.verify(&beacon.key, &Beacon::signed_bytes(&beacon.signed), &beacon.sig) {
            return Err(NotTaken::Forged);
        }
        let before = one.status(now_ms).to_owned();
        (one.seq, one.said_ms) = (beacon.seq, now_ms);
        one.beacon = Some(beacon);
        let gone = one.said_offline();
        if gone || !one.online {
            return Ok(one.says(!gone && one.connected, cx));
        }
        if *before == *one.status(now_ms) {
            return Ok(None);
        }
        one.since_ms = cx.now.wall_ms;
        Ok(Some(Change::Status))
    }

    /// Looks who has been heard of, and who is silent for too long; forgets those who are no peers any more.
    pub fn look(&mut self, cx: &Cx<'_>) -> Vec<(AgentId, Change)> {
        self.0.retain(|peer, _| cx.view.level(*peer).is_some_and(|level| level > Level::Blocked));
        let mut changes = Vec::new();
        for (peer, one) in &mut self.0 {
            if let Some(heard_ms) = cx.view.heard_ms(*peer) {
                let before = one.heard_ms.replace(heard_ms);
                if let (Some(alive), Some(before)) = (&mut one.alive, before)
                    && heard_ms > before
                {
                    alive.heard_after(heard_ms - before);
                }
            }
            let gone = one.phi(cx.now.mono_ms).is_some_and(|phi| phi > PHI_GONE);
            let there = one.connected && !gone && !one.said_offline();
            changes.extend(one.says(there, cx).map(|change| (*peer, change)));
        }
        changes
    }

    /// Those who are there and were not told what this agent says of itself, or all who are there.
    pub fn told_next(&mut self, all: bool) -> impl Iterator<Item = (AgentId, &mut Neighbour)> {
        let there = self.0.iter_mut().filter(move |(_, one)| one.connected && (all || !one.told));
        there.map(|(peer, one)| (*peer, one))
    }

    /// Those with whom a session is up.
    pub fn connected(&self) -> impl Iterator<Item = AgentId> {
        self.0.iter().filter(|(_, one)| one.connected).map(|(peer, _)| *peer)
    }

    /// Beacons that hold, of those who have not said that they go.
    pub fn beacons(&self, now_ms: u64) -> impl Iterator<Item = &Beacon> {
        self.0.values().filter(|one| !one.said_offline()).filter_map(move |one| one.holds(now_ms))
    }

    /// How many are there.
    pub fn online(&self) -> usize {
        self.0.values().filter(|one| one.online).count()
    }

    /// What clients are shown of a peer.
    pub fn row(&self, peer: AgentId, cx: &Cx<'_>) -> Value {
        let never = Neighbour::default();
        let one = self.0.get(&peer).unwrap_or(&never);
        let mut row = serde_json::Map::new();
        let mut put = |field: &str, value: Value| drop(row.insert(field.to_owned(), value));
        put("id", peer.to_string().into());
        let beacon = one.holds(cx.now.mono_ms);
        match (cx.view.called(peer), beacon.and_then(|beacon| beacon.about.name.as_deref())) {
            (Some(name), _) => put("name", name.into()),
            (None, Some(name)) => {
                put("name", name.into());
                put("claimed", true.into());
            }
            (None, None) => {}
        }
        put("connected", one.connected.into());
        put("status", one.status(cx.now.mono_ms).into());
        if one.since_ms > 0 {
            put("since_ms", one.since_ms.into());
        }
        if let Some(phi) = one.phi(cx.now.mono_ms) {
            put("phi", ((phi * 100.0).round() / 100.0).into());
        }
        if let Some(beacon) = beacon {
            put("age_ms", cx.now.mono_ms.saturating_sub(one.said_ms).into());
            say(beacon, &mut put);
        }
        Value::Object(row)
    }
}

/// What a beacon says of what an agent can do and where it is.
pub fn say(beacon: &Beacon, put: &mut impl FnMut(&str, Value)) {
    let list =
        |list: &[Box<str>]| Value::from(list.iter().map(|text| Value::from(&**text)).collect::<Vec<_>>());
    let about = &beacon.about;
    put("capabilities", Value::from(&*about.capabilities));
    put("domains", list(&about.domains));
    put("tools", list(&about.tools));
    put("addrs", list(&about.addrs));
    if about.more {
        put("more", true.into());
    }
}

impl Neighbour {
    fn new(now_ms: u64) -> Self {
        Self { left: PRESENCE_BEACONS_AT_ONCE * 1_000, left_at_ms: now_ms, ..Self::default() }
    }

    /// Whether one more beacon is looked at.
    fn spend(&mut self, now_ms: u64) -> bool {
        let more = now_ms.saturating_sub(self.left_at_ms).saturating_mul(1_000) / PRESENCE_CHANGE_MS;
        self.left = self.left.saturating_add(more).min(PRESENCE_BEACONS_AT_ONCE * 1_000);
        self.left_at_ms = now_ms;
        let may = self.left >= 1_000;
        self.left -= if may { 1_000 } else { 0 };
        may
    }

    /// Its beacon, if it holds: counted from when it came, because clocks differ.
    fn holds(&self, now_ms: u64) -> Option<&Beacon> {
        let life = |beacon: &&Beacon| beacon.expires_ms - beacon.ts_ms;
        self.beacon.as_ref().filter(|beacon| now_ms.saturating_sub(self.said_ms) < life(beacon))
    }

    fn said_offline(&self) -> bool {
        self.beacon.as_ref().is_some_and(|beacon| &*beacon.about.status == "offline")
    }

    /// How it is, as far as anybody here knows.
    fn status(&self, now_ms: u64) -> &str {
        match self.holds(now_ms) {
            _ if !self.online => "offline",
            Some(beacon) => &beacon.about.status,
            None => "unknown",
        }
    }

    fn phi(&self, now_ms: u64) -> Option<f64> {
        let heard_ms = self.heard_ms.filter(|_| self.connected)?;
        Some(self.alive.as_ref()?.phi(now_ms.saturating_sub(heard_ms)))
    }

    /// It is there or is not: what changes by that for who watches.
    fn says(&mut self, there: bool, cx: &Cx<'_>) -> Option<Change> {
        if self.online == there {
            return None;
        }
        self.online = there;
        self.since_ms = cx.now.wall_ms;
        Some(if there { Change::Online } else { Change::Offline })
    }
}
