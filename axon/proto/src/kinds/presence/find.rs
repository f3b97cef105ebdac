//! Friends of friends: what is asked and answered, and the walks that are under way.
//!
//! Source: `spec/kinds/presence.md`, "Finding". A walk goes from neighbour to neighbour, a few at a time, and
//! comes back the same way; nobody learns who began it but the first that are asked.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use foldhash::HashSet;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::beacon::{Beacon, is_line};
use crate::family::Inbound;
use crate::id::{AgentId, MsgId};
use crate::limits::{
    DOMAIN_BYTES_MAX, FIND_AGENTS_MAX, FIND_HOP_MS, FIND_HOPS_MAX, FIND_SEEN_MAX, FIND_WALKS_MAX,
    FIND_WALKS_PER_PEER_MAX, FOUND_HOPS_MAX, NAME_BYTES_MAX,
};
use crate::node::ClientId;
use crate::wire::{from_object, plain, raw_json, to_raw};

/// Whom a walk looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This agent.
    Agent(AgentId),
    /// Agents that can do something; at least one of the two is there.
    Able {
        /// A domain that they serve.
        domain: Option<Box<str>>,
        /// A tool that they have.
        tool: Option<Box<str>>,
    },
}

/// The payload of `presence.find`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Find {
    /// The walk.
    pub id: MsgId,
    /// Whom it looks for.
    pub target: Target,
    /// How often it may still be passed on.
    pub hops: u8,
}

#[derive(Serialize, Deserialize)]
struct Fields<'a> {
    id: MsgId,
    #[serde(borrow)]
    target: Cow<'a, RawValue>,
    hops: u8,
}

#[derive(Default, Serialize, Deserialize)]
struct TargetFields<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_id: Option<AgentId>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    domain: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    tool: Option<Cow<'a, str>>,
}

impl Target {
    /// What is asked for.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn of(agent: Option<AgentId>, domain: Option<&str>, tool: Option<&str>) -> Result<Self, String> {
        Self::check(agent.is_some(), domain, tool)?;
        let able = Self::Able { domain: domain.map(Box::from), tool: tool.map(Box::from) };
        Ok(agent.map_or(able, Self::Agent))
    }

    /// Whether one is what may be looked for, whoever the agent is that is named.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(agent: bool, domain: Option<&str>, tool: Option<&str>) -> Result<(), String> {
        let able = domain.is_some() || tool.is_some();
        if agent == able {
            let both = "an agent is named, or what it can do, and not both";
            return Err(if agent { both } else { "name an agent, a domain or a tool" }.to_owned());
        }
        if domain.is_some_and(|domain| !is_line(domain, DOMAIN_BYTES_MAX)) {
            return Err(format!("a domain has 1 to {DOMAIN_BYTES_MAX} bytes, no control characters"));
        }
        if tool.is_some_and(|tool| !is_line(tool, NAME_BYTES_MAX)) {
            return Err(format!("a tool has 1 to {NAME_BYTES_MAX} bytes, no control characters"));
        }
        Ok(())
    }

    /// Whether a beacon is of one that is looked for.
    pub fn is_met_by(&self, beacon: &Beacon) -> bool {
        match self {
            Self::Agent(agent) => beacon.agent_id == *agent,
            Self::Able { domain, tool } => beacon.can(domain.as_deref(), tool.as_deref()),
        }
    }
}

impl Find {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(payload: &str) -> Result<Self, String> {
        let Fields { id, target, hops } = from_object(payload).map_err(|error| plain(&error))?;
        if hops > FIND_HOPS_MAX {
            return Err(format!("`hops` is at most {FIND_HOPS_MAX}"));
        }
        let target: TargetFields<'_> =
            from_object(target.get()).map_err(|error| format!("`target`: {}", plain(&error)))?;
        let target = Target::of(target.agent_id, target.domain.as_deref(), target.tool.as_deref())
            .map_err(|what| format!("`target`: {what}"))?;
        Ok(Self { id, target, hops })
    }

    /// As it travels.
    pub fn to_raw(&self) -> Box<RawValue> {
        let target = match &self.target {
            Target::Agent(agent) => TargetFields { agent_id: Some(*agent), ..TargetFields::default() },
            Target::Able { domain, tool } => TargetFields {
                agent_id: None,
                domain: domain.as_deref().map(Cow::Borrowed),
                tool: tool.as_deref().map(Cow::Borrowed),
            },
        };
        to_raw(&Fields { id: self.id, target: Cow::Owned(to_raw(&target)), hops: self.hops })
    }
}

/// An agent that was found, and how far away it is.
#[derive(Debug, Clone)]
pub struct Found {
    /// What it says.
    pub beacon: Beacon,
    /// Hops from who answers; 0: it is that one itself.
    pub hops: u8,
}

/// The payload of `presence.found`.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    agents: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct OneFound<'a> {
    #[serde(borrow)]
    signed: &'a RawValue,
    #[serde(borrow)]
    sig: Cow<'a, str>,
    hops: u8,
}

/// Reads the payload of `presence.found`. Nothing is said of signatures yet.
///
/// # Errors
/// What is wrong with it.
pub fn parse_found(payload: &str) -> Result<Vec<Found>, String> {
    let answer: Answer<'_> = from_object(payload).map_err(|error| plain(&error))?;
    if answer.agents.len() > FIND_AGENTS_MAX {
        return Err(format!("`agents` has {} items, {FIND_AGENTS_MAX} at most", answer.agents.len()));
    }
    let read = |one: &RawValue| {
        let one: OneFound<'_> =
            from_object(one.get()).map_err(|error| format!("`agents`: {}", plain(&error)))?;
        if one.hops > FOUND_HOPS_MAX {
            return Err(format!("`hops` of an agent is at most {FOUND_HOPS_MAX}"));
        }
        let beacon =
            Beacon::read(one.signed.to_owned(), &one.sig).map_err(|what| format!("`agents`: {what}"))?;
        Ok(Found { beacon, hops: one.hops })
    };
    answer.agents.into_iter().map(read).collect()
}

/// As it travels.
pub fn found_to_raw(found: &[Found]) -> Box<RawValue> {
    let agents: Vec<Box<RawValue>> = found.iter().map(|one| one.beacon.sent(Some(one.hops))).collect();
    let agents: Vec<&str> = agents.iter().map(|one| one.get()).collect();
    raw_json(format!("{{\"agents\":[{}]}}", agents.join(",")))
}

/// Checks the payload of `presence.find`.
///
/// # Errors
/// What is wrong with it.
pub fn check_find(payload: &str) -> Result<(), String> {
    Find::parse(payload).map(drop)
}

/// Checks the payload of `presence.found`.
///
/// # Errors
/// What is wrong with it.
pub fn check_found(payload: &str) -> Result<(), String> {
    parse_found(payload).map(drop)
}

/// Who waits for the end of a walk.
#[derive(Debug)]
pub enum Asker {
    /// A neighbour, on its request's stream.
    Peer(Box<Inbound>),
    /// A client of this daemon.
    Client {
        /// Which.
        client: ClientId,
        /// Its command's id.
        req_id: String,
    },
}

/// One that is under way.
#[derive(Debug)]
pub struct Walk {
    /// Whom it looks for.
    pub target: Target,
    /// Who waits.
    pub asker: Asker,
    /// Who has been asked and has not answered.
    pub waiting: Vec<AgentId>,
    /// What has been found, the nearest and newest of each.
    pub found: BTreeMap<AgentId, Found>,
    /// When it is answered, whoever is missing.
    pub due_ms: u64,
}

impl Walk {
    /// One more that was found.
    pub fn add(&mut self, one: Found) {
        let id = one.beacon.agent_id;
        match self.found.get_mut(&id) {
            Some(known) => {
                known.hops = known.hops.min(one.hops);
                if one.beacon.seq > known.beacon.seq {
                    known.beacon = one.beacon;
                }
            }
            // Each of those who are asked gives so many, and of these the nearest are told.
            None => drop(self.found.insert(id, one)),
        }
    }

    /// The nearest of those found that may be told.
    pub fn nearest(self, may: impl Fn(&Beacon) -> bool) -> (Asker, Vec<Found>) {
        let mut found: Vec<Found> = self.found.into_values().filter(|one| may(&one.beacon)).collect();
        found.sort_by_key(|one| (one.hops, one.beacon.agent_id));
        found.truncate(FIND_AGENTS_MAX);
        (self.asker, found)
    }
}

/// Walks that are under way, and ids of those that were here.
#[derive(Debug, Default)]
pub struct Walks {
    under_way: BTreeMap<MsgId, Walk>,
    seen: HashSet<MsgId>,
    order: VecDeque<MsgId>,
}

impl Walks {
    /// Notes that a walk is here; false: it was here before.
    pub fn meet(&mut self, id: MsgId) -> bool {
        if !self.seen.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > FIND_SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    /// Whether one more may be under way; each peer has its share.
    pub fn has_room(&self, from: Option<AgentId>) -> bool {
        let of = |walk: &&Walk| match &walk.asker {
            Asker::Peer(message) => Some(message.envelope.from) == from,
            Asker::Client { .. } => false,
        };
        let own = self.under_way.values().filter(of).count();
        self.under_way.len() < FIND_WALKS_MAX && own < FIND_WALKS_PER_PEER_MAX
    }

    /// A walk goes on.
    pub fn begin(&mut self, id: MsgId, walk: Walk) {
        self.under_way.insert(id, walk);
    }

    /// One that is under way.
    pub fn get_mut(&mut self, id: MsgId) -> Option<&mut Walk> {
        self.under_way.get_mut(&id)
    }

    /// Ends one.
    pub fn end(&mut self, id: MsgId) -> Option<Walk> {
        self.under_way.remove(&id)
    }

    /// One whose time is over.
    pub fn due(&self, now_ms: u64) -> Option<MsgId> {
        self.under_way.iter().find(|(_, walk)| walk.due_ms <= now_ms).map(|(id, _)| *id)
    }

    /// When the next one's time is over.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.under_way.values().map(|walk| walk.due_ms).min()
    }

    /// A client has gone, and waits no more.
    pub fn forget_client(&mut self, gone: ClientId) {
        self.under_way
            .retain(|_, walk| !matches!(walk.asker, Asker::Client { client, .. } if client == gone));
    }

    /// How many are under way.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }
}

/// How long a walk waits that may still be passed on so often: longer than those do that it is passed on to.
pub fn wait_ms(hops: u8) -> u64 {
    FIND_HOP_MS.saturating_mul(u64::from(hops) + 1)
}

/// Some of those who could be asked, by chance, but the same for the same walk here.
pub fn some_of(id: MsgId, me: AgentId, mut all: Vec<AgentId>, count: usize) -> Vec<AgentId> {
    let lot = |peer: &AgentId| -> [u8; 32] {
        let hash = Sha256::new().chain_update(id.to_string()).chain_update(me.0).chain_update(peer.0);
        hash.finalize().into()
    };
    all.sort_by_cached_key(lot);
    all.truncate(count);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> MsgId {
        MsgId::from_random([n; 16])
    }

    #[test]
    fn what_is_asked_is_read_as_it_was_said() {
        let agent = Target::Agent(AgentId([1; 16]));
        let able = Target::of(None, Some("family"), Some("web_search")).unwrap();
        for (target, hops) in [(agent, 0), (able, 3), (Target::of(None, None, Some("x")).unwrap(), 1)] {
            let find = Find { id: id(1), target, hops };
            assert_eq!(Find::parse(find.to_raw().get()).unwrap(), find);
        }
        for (payload, why) in [
            ("{}".to_owned(), "missing field"),
            (format!("{{\"id\":\"{}\",\"target\":{{}},\"hops\":0}}", id(1)), "`target`"),
            (format!("{{\"id\":\"{}\",\"target\":{{\"domain\":\"\"}},\"hops\":0}}", id(1)), "`target`"),
            (format!("{{\"id\":\"{}\",\"target\":{{\"tool\":\"x\"}},\"hops\":4}}", id(1)), "`hops`"),
            ("[]".to_owned(), "object"),
        ] {
            let error = check_find(&payload).expect_err(&payload);
            assert!(error.contains(why), "{payload}: {error}");
        }
        assert!(Target::of(Some(AgentId([1; 16])), Some("x"), None).is_err());
        assert!(check_found("{\"agents\":[{}]}").is_err() && check_found("{\"agents\":[]}").is_ok());
    }

    #[test]
    fn walks_end_where_they_were_and_are_bounded() {
        let mut walks = Walks::default();
        assert!(walks.meet(id(1)) && !walks.meet(id(1)));
        for n in 0..2 * FIND_SEEN_MAX {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            walks.meet(MsgId::from_random(bytes));
        }
        assert!(walks.seen.len() == FIND_SEEN_MAX && walks.order.len() == FIND_SEEN_MAX);
        for n in 0..FIND_WALKS_MAX {
            assert!(walks.has_room(None));
            let asker = Asker::Client { client: ClientId(1), req_id: String::new() };
            let target = Target::Agent(AgentId([1; 16]));
            let (waiting, found, due_ms) = (Vec::new(), BTreeMap::new(), n as u64);
            walks.begin(id(u8::try_from(n).unwrap()), Walk { target, asker, waiting, found, due_ms });
        }
        assert!(!walks.has_room(None));
        assert_eq!((walks.next_due_ms(), walks.due(0)), (Some(0), Some(id(0))));
        walks.forget_client(ClientId(1));
        assert_eq!((walks.under_way(), walks.next_due_ms()), (0, None));
        assert!(wait_ms(0) < wait_ms(1) && wait_ms(FIND_HOPS_MAX) == 2_000);
    }

    #[test]
    fn who_is_asked_is_chance_and_differs_between_walks() {
        let all: Vec<AgentId> = (0..10).map(|n| AgentId([n; 16])).collect();
        let me = AgentId([99; 16]);
        let mut asked = HashSet::default();
        for n in 0..40 {
            let some = some_of(id(n), me, all.clone(), 2);
            assert_eq!(some, some_of(id(n), me, all.clone(), 2));
            assert_eq!(some.len(), 2);
            asked.extend(some);
        }
        assert_eq!(asked.len(), 10);
        assert_eq!(some_of(id(0), me, all, 20).len(), 10);
    }
}
