//! What this agent says of itself: its status by clients or by its work, and when it is said again.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::beacon::{About, Beacon, DIGEST_DIGITS, Status, is_line};
use crate::family::Cx;
use crate::invite::hexed;
use crate::limits::{
    DOMAIN_BYTES_MAX, NAME_BYTES_MAX, PRESENCE_BYTES_PER_MINUTE, PRESENCE_CHANGE_MS, PRESENCE_EVERY_MS,
    PRESENCE_EVERY_MS_MAX, PRESENCE_IDLE_MS,
};
use crate::node::ClientId;

/// What a beacon costs beside what is signed: its envelope and signature, and the receipt of the one that
/// comes the other way. Measured by a test that counts.
const AROUND_BYTES: usize = 600;

/// This agent's own presence.
#[derive(Debug, Default)]
pub struct Own {
    /// What clients have set; it goes with them.
    set: BTreeMap<ClientId, Status>,
    /// When work was last seen; none: never.
    worked_ms: Option<u64>,
    /// Names and digest of what it can do, as they were when they last changed.
    can: Can,
    /// The beacon that was said last.
    beacon: Option<Beacon>,
    /// When it was made (monotonic).
    made_ms: u64,
    seq: u64,
    /// When the next is due.
    due_ms: Option<u64>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Can {
    digest: Box<str>,
    domains: Vec<Box<str>>,
    tools: Vec<Box<str>>,
    name: Option<Box<str>>,
}

impl Own {
    /// A client sets its status, or takes it back.
    pub fn set(&mut self, client: ClientId, status: Option<Status>) {
        match status {
            Some(status) => drop(self.set.insert(client, status)),
            None => drop(self.set.remove(&client)),
        }
    }

    /// How this agent is: as its clients say, the most urgent of them, or by its work.
    pub fn status(&self, cx: &Cx<'_>) -> Status {
        let working = self.worked_ms.is_some_and(|at| cx.now.mono_ms.saturating_sub(at) < PRESENCE_IDLE_MS);
        let derived = if working { Status::Busy } else { Status::Idle };
        match self.set.values().max() {
            _ if self.ended => Status::Offline,
            Some(status) => *status,
            None => derived,
        }
    }

    /// Looks whether there is work now.
    pub fn look(&mut self, cx: &Cx<'_>) {
        if cx.view.active_tasks() > 0 {
            self.worked_ms = Some(cx.now.mono_ms);
        }
    }

    /// This agent can do something else than before.
    pub fn learn(&mut self, cx: &Cx<'_>) {
        let text = cx.view.capabilities();
        let said: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        let list = |field: &str, bytes_max: usize| -> Vec<Box<str>> {
            let texts = said.get(field).and_then(Value::as_array).into_iter().flatten();
            texts.filter_map(Value::as_str).filter(|text| is_line(text, bytes_max)).map(Box::from).collect()
        };
        let mut digest = hexed(&Sha256::digest(text));
        digest.truncate(DIGEST_DIGITS);
        let name =
            said.get("agent_name").and_then(Value::as_str).filter(|name| is_line(name, NAME_BYTES_MAX));
        self.can = Can {
            digest: digest.into(),
            domains: list("domains", DOMAIN_BYTES_MAX),
            tools: list("tools", NAME_BYTES_MAX),
            name: name.map(Box::from),
        };
    }

    /// The beacon that holds now, if one was made.
    pub fn beacon(&self) -> Option<&Beacon> {
        self.beacon.as_ref()
    }

    /// When something is to be said.
    pub fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Something may be other than what was said last: it is said within a second, or now.
    pub fn changed(&mut self, cx: &Cx<'_>) {
        if self.beacon.as_ref().is_some_and(|said| said.about != self.cut(cx)) {
            let at_ms = self.made_ms.saturating_add(PRESENCE_CHANGE_MS).max(cx.now.mono_ms);
            self.due_ms = Some(self.due_ms.map_or(at_ms, |due| due.min(at_ms)));
        }
    }

    /// Makes the beacon that holds from now on.
    pub fn make(&mut self, cx: &Cx<'_>) -> &Beacon {
        let now = cx.now;
        // By the clock, so that it rises over restarts too.
        self.seq = now.wall_ms.max(self.seq + 1);
        let signed = Beacon::to_sign(&cx.view.key(), self.seq, now.wall_ms, &self.about(cx));
        let sig = cx.view.sign(&Beacon::signed_bytes(&signed));
        self.made_ms = now.mono_ms;
        self.due_ms = (!self.ended).then(|| now.mono_ms.saturating_add(every_ms(signed.get().len())));
        let about = read_back(&signed).unwrap_or_default();
        let (agent_id, key) = (cx.me, cx.view.key());
        let (seq, ts_ms) = (self.seq, now.wall_ms);
        let expires_ms = ts_ms.saturating_add(crate::limits::PRESENCE_LIFE_MS);
        self.beacon.insert(Beacon { agent_id, key, seq, ts_ms, expires_ms, about, signed, sig })
    }

    /// The daemon ends; false: it has said so.
    pub fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.ended, true)
    }

    /// What would be said now, as far as it fits.
    fn cut(&self, cx: &Cx<'_>) -> About {
        let signed = Beacon::to_sign(&cx.view.key(), self.seq, cx.now.wall_ms, &self.about(cx));
        read_back(&signed).unwrap_or_default()
    }

    fn about(&self, cx: &Cx<'_>) -> About {
        let name = cx.view.name().filter(|name| is_line(name, NAME_BYTES_MAX)).map(Box::from);
        About {
            status: self.status(cx).as_str().into(),
            name: name.or_else(|| self.can.name.clone()),
            capabilities: self.can.digest.clone(),
            domains: self.can.domains.clone(),
            tools: self.can.tools.clone(),
            addrs: cx.view.addrs().iter().map(|addr| addr.as_str().into()).collect(),
            findable: cx.view.presence().findable,
            more: false,
        }
    }
}

fn read_back(signed: &serde_json::value::RawValue) -> Option<About> {
    Beacon::about_of(signed).ok()
}

/// How often a beacon with so much in it is said again, so that it stays below what a minute may cost.
fn every_ms(signed_bytes: usize) -> u64 {
    let bytes = u64::try_from(signed_bytes + AROUND_BYTES).unwrap_or(u64::MAX);
    let per_minute = u64::try_from(PRESENCE_BYTES_PER_MINUTE).unwrap_or(1);
    (bytes.saturating_mul(60_000) / per_minute).clamp(PRESENCE_EVERY_MS, PRESENCE_EVERY_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_beacon_is_said_less_often_and_always_twice_in_its_life() {
        assert_eq!(every_ms(0), PRESENCE_EVERY_MS);
        assert_eq!(every_ms(400), 300_000);
        assert_eq!(every_ms(1_000), 480_000);
        assert_eq!(every_ms(crate::limits::PRESENCE_BEACON_BYTES_MAX), PRESENCE_EVERY_MS_MAX);
        const { assert!(PRESENCE_EVERY_MS_MAX + 60_000 < crate::limits::PRESENCE_LIFE_MS) };
    }
}
