//! Who is attached, what they answer, how busy they are, and which requests are open, waiting or ended.
//!
//! Source: `spec/IPC.md`, "Answering". Pure book-keeping: it says who should get a request; the node hands it
//! over.

mod audience;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use crate::family::{Closed, Ended, Open, OpenState, Unclaimed};
use crate::fault::has_room;
use crate::id::{AgentId, MsgId};
use crate::limits::{
    CLOSED_REQUESTS_MAX, OPEN_PER_PEER_MAX, OPEN_REQUESTS_MAX, QUEUED_PER_PEER_MAX, QUEUED_REQUESTS_MAX,
};
use crate::node::ClientId;
use crate::recent::Recent;
use crate::scope::{Right, Scope};
use crate::trust::covers;
use crate::wire::Envelope;
use audience::Audience;

/// Which IPC version a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// It has said nothing yet.
    Unknown,
    /// No hello: `send`, `peers`, `status`, and every inbound message.
    V1,
    /// The versions that begin with hello.
    V2,
}

/// What a client wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wants {
    /// Nothing but the requests that it answers.
    Nothing,
    /// Everything.
    All,
    /// These kinds.
    Kinds(Vec<String>),
}

impl Wants {
    /// Whether this kind is among them.
    pub fn wants(&self, kind: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Kinds(kinds) => kinds.iter().any(|wanted| wanted == kind),
        }
    }
}

/// What a client answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// Request kinds.
    pub kinds: Vec<String>,
    /// Domains; none serves all.
    pub domains: Option<Vec<String>>,
    /// Requests at once.
    pub capacity: u32,
    /// Whether requests stay its own when it disconnects.
    pub lease: bool,
}

/// One attached client.
#[derive(Debug, Clone)]
pub struct Client {
    /// Whether its uid is ours or it has shown the token.
    pub trusted: bool,
    /// Which version it speaks.
    speaks: Speaks,
    /// Whose cursor it moves.
    pub consumer: Arc<str>,
    /// What it is shown.
    wants: Wants,
    /// Kinds that it is shown besides.
    listens: Vec<&'static str>,
    /// What it answers.
    answers: Option<Answers>,
    /// Requests handed to it and still open.
    pub holding: u32,
    /// It did not keep up: no live events until it has read on from the inbox.
    pub lagging: bool,
    /// The highest number that it was shown.
    pub shown: u64,
    /// Its commands that wait for a peer.
    pub pending: usize,
    /// Its commands that wait for the disk to take something.
    pub storing: usize,
    /// A command of it reads the disk; those after it wait.
    pub reading: bool,
    /// Lines that wait for that.
    pub backlog: VecDeque<Vec<u8>>,
    /// Their bytes.
    pub backlog_bytes: usize,
    /// It is told of every change of a delegation.
    pub watches: bool,
    /// It will say no more, and waits for the answers to what it has said.
    pub leaving: bool,
    /// What it may do and see; none: it is the owner's.
    pub scope: Option<Arc<Scope>>,
    /// What was counted for its `peers` command, while the round trips are asked for.
    pub unread: Option<Box<Unread>>,
}

/// Rows of the inbox that a client has not read, by their senders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// The command that asked.
    pub req_id: String,
    /// How many of each.
    pub of: HashMap<AgentId, u64>,
    /// A bound was reached before all were counted.
    pub more: bool,
}

/// What an agent is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// Who asks.
    pub from: AgentId,
    /// The request's kind.
    pub kind: &'a str,
    /// Whether such a request may name a domain.
    pub has_domain: bool,
    /// The domain.
    pub domain: Option<&'a str>,
}

impl<'a> From<&'a Open> for Work<'a> {
    fn from(open: &'a Open) -> Self {
        let Open { inbound, kind, domain, .. } = open;
        let (from, has_domain) = (inbound.envelope.from, kind.has_domain);
        Self { from, kind: kind.name, has_domain, domain: domain.as_deref() }
    }
}

impl Client {
    /// A client that has said nothing yet.
    pub fn new(trusted: bool) -> Self {
        Self {
            trusted,
            speaks: Speaks::Unknown,
            consumer: "default".into(),
            wants: Wants::Nothing,
            listens: Vec::new(),
            answers: None,
            holding: 0,
            lagging: false,
            shown: 0,
            pending: 0,
            storing: 0,
            reading: false,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            watches: false,
            leaving: false,
            scope: None,
            unread: None,
        }
    }

    /// Which version it speaks.
    pub fn speaks(&self) -> Speaks {
        self.speaks
    }

    /// What it is shown.
    pub fn wants(&self) -> &Wants {
        &self.wants
    }

    /// Whether it is shown this kind besides.
    pub fn listens(&self, kind: &str) -> bool {
        self.listens.contains(&kind)
    }

    /// What it answers.
    pub fn answers(&self) -> Option<&Answers> {
        self.answers.as_ref()
    }

    /// How well it serves a request: none, for everything, or for a domain of this many labels.
    fn fit(&self, work: Work<'_>) -> Option<usize> {
        let answers = self.answers.as_ref().filter(|answers| answers.kinds.iter().any(|k| k == work.kind))?;
        if let Some(scope) = &self.scope
            && !(scope.may(Right::Answer)
                && scope.sees_peer(work.from)
                && scope.sees_kind(work.kind)
                && (!work.has_domain || scope.sees_domain(work.domain)))
        {
            return None;
        }
        match (&answers.domains, work.domain) {
            (None, _) | (Some(_), None) => Some(0),
            (Some(served), Some(asked)) => {
                let fitting = served.iter().filter(|served| covers(served, asked));
                fitting.map(|served| served.split('.').count()).max()
            }
        }
    }
}

/// How many requests one peer has here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    /// Open ones.
    open: usize,
    /// Those of them that have no answer yet.
    unanswered: usize,
    /// Those that are being written.
    coming: usize,
}

/// Clients, and the requests of peers that they answer.
#[derive(Debug, Default)]
pub struct Agents {
    /// Attached clients; [`Self::attach`] and [`Self::detach`] add and remove them.
    pub clients: BTreeMap<ClientId, Client>,
    audience: Audience,
    open: HashMap<MsgId, Open>,
    by_peer: HashMap<AgentId, Counts>,
    /// Requests that are being written and will be open then.
    coming: HashMap<MsgId, AgentId>,
    /// Waiting and parked requests, in the order they came.
    queue: VecDeque<MsgId>,
    /// How many of them are whose.
    queued_by_peer: HashMap<AgentId, usize>,
    /// When a request of a peer that waited was last handed over, by turns.
    served: HashMap<AgentId, u64>,
    turns: u64,
    closed: Recent<Closed>,
}

impl Agents {
    /// Who should get a request of this kind and domain; `Ok(None)`: all are at capacity.
    ///
    /// The narrowest served domain goes first, then the least busy, then who came first.
    pub fn pick(&self, work: Work<'_>) -> Result<Option<ClientId>, Unclaimed> {
        let any = Work { domain: None, has_domain: false, ..work };
        let answering = self.audience.answering(work.kind);
        let answering = answering.filter_map(|id| Some((id, self.clients.get(&id)?)));
        let attached = || answering.clone().filter(|(_, client)| client.fit(any).is_some());
        if attached().next().is_none() {
            return Err(Unclaimed::Nobody);
        }
        let mut fitting =
            attached().filter_map(|(id, client)| Some((id, client, client.fit(work)?))).peekable();
        if fitting.peek().is_none() {
            let domains = attached().filter_map(|(_, client)| client.answers.as_ref()?.domains.as_ref());
            let mut served: Vec<String> = domains.flatten().cloned().collect();
            served.sort();
            served.dedup();
            return Err(Unclaimed::NoDomain(served));
        }
        let free = fitting.filter_map(|(id, client, fit)| {
            let capacity = client.answers.as_ref()?.capacity;
            // Shares of capacity in use, compared without fractions of floats.
            let load = u64::from(client.holding) * 1_000_000 / u64::from(capacity.max(1));
            (client.holding < capacity).then_some((std::cmp::Reverse(fit), load, id))
        });
        Ok(free.min().map(|(_, _, id)| id))
    }

    /// Whether a request may wait.
    ///
    /// No peer gets more than its share, so that one cannot take the places of all.
    pub fn queue_has_room(&self, from: AgentId) -> bool {
        let theirs = self.queued_by_peer.get(&from).copied().unwrap_or(0);
        let coming = self.counts(from).coming;
        let all = self.queue.len() + self.coming.len();
        has_room("requests that wait", all < QUEUED_REQUESTS_MAX && theirs + coming < QUEUED_PER_PEER_MAX)
    }

    /// Whether a peer may have one more request open.
    pub fn may_open(&self, from: AgentId) -> bool {
        let Counts { open, coming, .. } = self.counts(from);
        let all = self.open.len() + self.coming.len();
        has_room("open requests", all < OPEN_REQUESTS_MAX && open + coming < OPEN_PER_PEER_MAX)
    }

    /// Requests of a peer that have no answer yet; counted exactly only where there are at least so many
    /// open.
    pub fn in_flight(&self, from: AgentId, at_least: u64) -> usize {
        let Counts { open, unanswered, coming } = self.counts(from);
        coming + if ((open + coming) as u64) < at_least { open } else { unanswered }
    }

    /// Whether a request of this id is open, or will be once it is written.
    pub fn is_taken(&self, id: MsgId) -> bool {
        self.open.contains_key(&id) || self.coming.contains_key(&id)
    }

    /// A request is being written.
    pub fn expect(&mut self, id: MsgId, from: AgentId) {
        self.expect_no_more(id);
        self.coming.insert(id, from);
        self.count(from, |counts| counts.coming += 1);
    }

    /// A request is written, or will never be.
    pub fn expect_no_more(&mut self, id: MsgId) {
        if let Some(from) = self.coming.remove(&id) {
            self.count(from, |counts| counts.coming -= 1);
        }
    }

    /// Adds a request that is neither held nor queued yet.
    pub fn insert(&mut self, open: Open) {
        let (from, unanswered) = (open.inbound.envelope.from, usize::from(open.answered.is_none()));
        self.count(from, |counts| {
            counts.open += 1;
            counts.unanswered += unanswered;
        });
        self.open.insert(open.inbound.envelope.id, open);
    }

    /// An open request has its answer on the stream.
    pub fn answered(&mut self, id: MsgId, payload: Arc<str>) {
        let Some(open) = self.open.get_mut(&id) else { return };
        let from = open.inbound.envelope.from;
        if open.answered.replace(payload).is_none() {
            self.count(from, |counts| counts.unanswered -= 1);
        }
    }

    fn counts(&self, peer: AgentId) -> Counts {
        self.by_peer.get(&peer).copied().unwrap_or_default()
    }

    fn count(&mut self, peer: AgentId, change: impl FnOnce(&mut Counts)) {
        let counts = self.by_peer.entry(peer).or_default();
        change(counts);
        if *counts == Counts::default() {
            self.by_peer.remove(&peer);
        }
    }

    /// One open request.
    pub fn get(&self, id: MsgId) -> Option<&Open> {
        self.open.get(&id)
    }

    /// The sender of an open request has another id.
    pub fn succeed(&mut self, id: MsgId, envelope: Arc<Envelope>) {
        let Some(open) = self.open.get_mut(&id) else { return };
        let old = std::mem::replace(&mut open.inbound.envelope, envelope);
        let new = open.inbound.envelope.from;
        if self.queue.contains(&id) {
            self.unqueued(old.from);
            *self.queued_by_peer.entry(new).or_default() += 1;
        }
        let unanswered = self.get(id).map_or(0, |open| usize::from(open.answered.is_none()));
        self.count(old.from, |counts| {
            counts.open -= 1;
            counts.unanswered -= unanswered;
        });
        self.count(new, |counts| {
            counts.open += 1;
            counts.unanswered += unanswered;
        });
    }

    /// One open request, to change what is neither its state nor its answer.
    pub fn get_mut(&mut self, id: MsgId) -> Option<&mut Open> {
        self.open.get_mut(&id)
    }

    /// All open requests.
    pub fn iter(&self) -> impl Iterator<Item = &Open> {
        self.open.values()
    }

    /// How many requests are open.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// How many requests wait for an agent.
    pub fn queued_count(&self) -> usize {
        self.queue.len()
    }

    /// Requests that are work for an agent.
    pub fn active_tasks(&self) -> u64 {
        self.open.values().filter(|open| open.kind.name != "cancel").count() as u64
    }

    /// How many requests the attached agents take at once, together.
    pub fn capacity(&self) -> u64 {
        self.clients
            .values()
            .filter_map(|client| client.answers.as_ref())
            .map(|a| u64::from(a.capacity))
            .sum()
    }

    /// Clients that answer anything.
    pub fn answerers(&self) -> usize {
        self.clients.values().filter(|client| client.answers.is_some()).count()
    }

    /// Gives an open request to a client.
    pub fn hold(&mut self, id: MsgId, client: ClientId, lease: bool) {
        self.release(id);
        if let Some(open) = self.open.get_mut(&id) {
            open.state = OpenState::Held { client, lease };
            // A cancel goes to the one who holds the work, and takes no place of its own.
            if let Some(client) = self.clients.get_mut(&client).filter(|_| !open.targeted) {
                client.holding += 1;
            }
        }
    }

    /// Puts an open request into the queue, to wait for capacity or for an agent.
    pub fn enqueue(&mut self, id: MsgId, state: OpenState) {
        self.release(id);
        if let Some(open) = self.open.get_mut(&id) {
            open.state = state;
            open.queued |= state == OpenState::Parked;
            *self.queued_by_peer.entry(open.inbound.envelope.from).or_default() += 1;
            self.queue.push_back(id);
        }
    }

    /// The queued request that an attached client should take next, and that client.
    ///
    /// Peers take turns, so that one with many requests does not make all others wait for them.
    pub fn next_handover(&self, is_paused: impl Fn(AgentId) -> bool) -> Option<(MsgId, ClientId)> {
        if self.queue.is_empty()
            || !self.clients.values().any(|c| c.answers.as_ref().is_some_and(|a| c.holding < a.capacity))
        {
            return None;
        }
        let mut best: Option<(u64, MsgId, ClientId)> = None;
        let mut seen = HashSet::default();
        for id in &self.queue {
            let Some(open) = self.open.get(id) else { continue };
            let from = open.inbound.envelope.from;
            if seen.contains(&from) || is_paused(from) {
                continue;
            }
            let Ok(Some(client)) = self.pick(open.into()) else { continue };
            seen.insert(from);
            let turn = self.served.get(&from).copied().unwrap_or(0);
            if best.is_none_or(|(before, ..)| turn < before) {
                best = Some((turn, *id, client));
            }
            if seen.len() == self.queued_by_peer.len() {
                break;
            }
        }
        best.map(|(_, id, client)| (id, client))
    }

    /// A request that waited is handed over: its peer has had its turn.
    pub fn had_turn(&mut self, id: MsgId) {
        let Some(from) = self.open.get(&id).map(|open| open.inbound.envelope.from) else { return };
        let waiting = &self.queued_by_peer;
        self.served.retain(|peer, _| waiting.contains_key(peer));
        self.turns += 1;
        self.served.insert(from, self.turns);
    }

    /// Queued requests that are not parked, after a client has gone: some may have nobody left.
    pub fn waiting(&self) -> Vec<MsgId> {
        let waits = |id: &&MsgId| self.open.get(*id).is_some_and(|open| open.state == OpenState::Waiting);
        self.queue.iter().filter(waits).copied().collect()
    }

    /// Ends an open request and remembers how.
    pub fn close(&mut self, id: MsgId, ended: Ended) -> Option<Open> {
        self.release(id);
        let open = self.open.remove(&id)?;
        let from = open.inbound.envelope.from;
        let unanswered = usize::from(open.answered.is_none());
        self.count(from, |counts| {
            counts.open -= 1;
            counts.unanswered -= unanswered;
        });
        let closed = Closed { id, from, kind: open.kind.name, ended, answered: open.answered.clone() };
        // It has ended again: its last end counts.
        self.closed.remove(id);
        if !has_room("requests that have ended", self.closed.len() < CLOSED_REQUESTS_MAX) {
            self.closed.pop();
        }
        self.closed.push(closed);
        Some(open)
    }

    /// A request that has ended.
    pub fn closed(&self, id: MsgId) -> Option<&Closed> {
        self.closed.get(id)
    }

    /// Forgets how a request ended: it may come again.
    pub fn forget_closed(&mut self, id: MsgId) {
        self.closed.remove(id);
    }

    /// A client has come.
    pub fn attach(&mut self, id: ClientId, client: Client) {
        self.audience.add(id, &client);
        self.clients.insert(id, client);
    }

    /// What a client says that it speaks.
    pub fn set_speaks(&mut self, id: ClientId, speaks: Speaks) {
        self.change(id, |client| client.speaks = speaks);
    }

    /// What a client wants to be shown.
    pub fn set_wants(&mut self, id: ClientId, wants: Wants) {
        self.change(id, |client| client.wants = wants);
    }

    /// Whether a client is shown a kind besides what it wants.
    pub fn set_listens(&mut self, id: ClientId, kind: &'static str, on: bool) {
        self.change(id, |client| {
            client.listens.retain(|listed| *listed != kind);
            client.listens.extend(on.then_some(kind));
        });
    }

    /// What a client answers.
    pub fn set_answers(&mut self, id: ClientId, answers: Option<Answers>) {
        self.change(id, |client| client.answers = answers);
    }

    fn change(&mut self, id: ClientId, change: impl FnOnce(&mut Client)) {
        if let Some(client) = self.clients.get_mut(&id) {
            self.audience.remove(id, client);
            change(client);
            self.audience.add(id, client);
        }
    }

    /// Adds the clients that may have to be shown a kind to a list, in the order in which they came.
    pub fn may_be_shown(&self, kind: &str, clients: &mut Vec<ClientId>) {
        self.audience.may_be_shown(kind, clients);
    }

    /// A client has gone; gives what it held without a lease.
    pub fn detach(&mut self, client: ClientId) -> Vec<MsgId> {
        if let Some(gone) = self.clients.remove(&client) {
            self.audience.remove(client, &gone);
        }
        let held = |open: &&Open| open.state == OpenState::Held { client, lease: false };
        let held = self.open.values().filter(held);
        // Those that were for it alone come first: they are about the others.
        let mut ids: Vec<(bool, u64, MsgId)> =
            held.map(|open| (!open.targeted, open.seq, open.inbound.envelope.id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(.., id)| id).collect()
    }

    fn unqueued(&mut self, from: AgentId) {
        if let Some(count) = self.queued_by_peer.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.queued_by_peer.remove(&from);
            }
        }
    }

    /// Takes a request from its holder or out of the queue.
    fn release(&mut self, id: MsgId) {
        let targeted = self.open.get(&id).is_some_and(|open| open.targeted);
        match self.open.get(&id).map(|open| open.state) {
            Some(OpenState::Held { client, .. }) => {
                if let Some(client) = self.clients.get_mut(&client).filter(|_| !targeted) {
                    client.holding = client.holding.saturating_sub(1);
                }
            }
            Some(OpenState::Waiting | OpenState::Parked) => {
                let before = self.queue.len();
                self.queue.retain(|queued| *queued != id);
                if self.queue.len() < before
                    && let Some(from) = self.open.get(&id).map(|open| open.inbound.envelope.from)
                {
                    self.unqueued(from);
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(list: &[(&str, Option<&[&str]>, u32, u32)]) -> Agents {
        let mut agents = Agents::default();
        for (at, (kind, domains, capacity, holding)) in list.iter().enumerate() {
            let mut client = Client::new(true);
            client.answers = Some(Answers {
                kinds: vec![(*kind).to_owned()],
                domains: domains.map(|list| list.iter().map(|d| (*d).to_owned()).collect()),
                capacity: *capacity,
                lease: false,
            });
            client.holding = *holding;
            agents.attach(ClientId(at as u64), client);
        }
        agents
    }

    fn work<'a>(kind: &'a str, domain: Option<&'a str>) -> Work<'a> {
        Work { from: AgentId([1; 16]), kind, has_domain: true, domain }
    }

    #[test]
    fn the_narrowest_domain_then_the_least_busy_gets_it() {
        let two = agents(&[("query", None, 4, 0), ("query", Some(&["family"]), 4, 3)]);
        assert_eq!(two.pick(work("query", Some("family.calendar"))), Ok(Some(ClientId(1))));
        assert_eq!(two.pick(work("query", Some("familyx"))), Ok(Some(ClientId(0))));
        assert_eq!(two.pick(work("query", None)), Ok(Some(ClientId(0))));
        let busy = agents(&[("query", None, 4, 2), ("query", None, 64, 3)]);
        assert_eq!(busy.pick(work("query", None)), Ok(Some(ClientId(1))), "load is a share of capacity");
    }

    #[test]
    fn nobody_no_domain_and_no_capacity_are_told_apart() {
        let some = agents(&[("query", Some(&["b", "a"]), 1, 1)]);
        assert_eq!(some.pick(work("delegate", None)), Err(Unclaimed::Nobody));
        assert_eq!(
            some.pick(work("query", Some("c"))),
            Err(Unclaimed::NoDomain(vec!["a".into(), "b".into()]))
        );
        assert_eq!(some.pick(work("query", Some("a.x"))), Ok(None));
        assert_eq!(Agents::default().pick(work("query", None)), Err(Unclaimed::Nobody));
    }

    #[test]
    fn a_client_is_found_by_what_it_wants_and_answers_now() {
        let mut agents = agents(&[("query", None, 1, 0), ("query", None, 1, 0), ("delegate", None, 1, 0)]);
        let shown = |agents: &Agents, kind: &str| {
            let mut clients = Vec::new();
            agents.may_be_shown(kind, &mut clients);
            clients.into_iter().map(|ClientId(n)| n).collect::<Vec<u64>>()
        };
        assert_eq!(shown(&agents, "notify"), [0, 1, 2], "none has said hello");
        (0..3).for_each(|n| agents.set_speaks(ClientId(n), Speaks::V2));
        assert!(shown(&agents, "notify").is_empty());
        agents.set_wants(ClientId(2), Wants::Kinds(vec!["notify".into(), "notify".into()]));
        agents.set_wants(ClientId(1), Wants::All);
        assert_eq!((shown(&agents, "notify"), shown(&agents, "other")), (vec![1, 2], vec![1]));
        agents.set_wants(ClientId(1), Wants::Kinds(vec!["other".into()]));
        assert_eq!((shown(&agents, "notify"), shown(&agents, "other")), (vec![2], vec![1]));
        assert_eq!(agents.pick(work("query", None)), Ok(Some(ClientId(0))));
        agents.set_answers(ClientId(0), None);
        assert_eq!(agents.pick(work("query", None)), Ok(Some(ClientId(1))));
        agents.detach(ClientId(1));
        agents.detach(ClientId(2));
        assert_eq!(agents.pick(work("query", None)), Err(Unclaimed::Nobody));
        assert!(shown(&agents, "notify").is_empty() && shown(&agents, "other").is_empty());
    }

    #[test]
    fn a_domain_covers_its_own_labels_only() {
        assert!(covers("family", "family") && covers("family", "family.calendar"));
        assert!(!covers("family", "families") && !covers("family.calendar", "family"));
    }
}
