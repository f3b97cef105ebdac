//! The way to the daemon, shared by all sessions of one `axon mcp`.
//!
//! Two connections, each made again when the daemon was away: one hears of messages and delegations, the
//! other takes requests while somebody is there to answer them. Calls that wait for a peer have connections
//! of their own, so that giving one up gives up what it waits for on the wire too.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axon_client::{
    Client, ClientError, Delegation, DelegationFilter, DelegationState, Direction, Event, Hello, Inbound,
    Inbox, Kept, Message, Sender, Subscription, Trust,
};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, broadcast, watch};
use tokio::time::{Instant, sleep, timeout};

use super::desk::{Desk, is_told};
use super::words::{Author, reaches, said};

/// Requests held at once. The daemon hands out no more.
const REQUESTS_MAX: u32 = 256;
/// Calls that may wait for peers at once; each has a connection of its own.
const CALLS_MAX: usize = 8;
/// Calls at work at once, of all sessions.
const OPEN_MAX: usize = 256;
/// Changes that a slow session may be behind.
const CHANGES_MAX: usize = 256;
/// First and longest wait before the daemon is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long a call waits for a daemon that is just being reached.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long another agent that holds work may take to answer a cancel before it is answered here.
const GRACE: Duration = Duration::from_secs(1);
/// Results given by calls that are remembered.
const GIVEN_MAX: usize = 256;
/// Rows of the inbox that are looked at: as many as the daemon gives at once.
const ROWS_MAX: u64 = 1000;
/// Full pages that are passed over at once.
const PAGES_MAX: usize = 8;

/// When requests of peers are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// At any time: the client can be woken.
    Always,
    /// While a call looks or waits for them.
    Present,
    /// Not at all.
    Never,
}

/// What one `axon mcp` is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Whose cursor it reads and moves.
    pub consumer: String,
    /// The lowest level whose words reach the model unasked.
    pub floor: Trust,
    /// When it takes requests.
    pub answer: When,
}

/// Something that came from a peer.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its number in the inbox; a request has none.
    pub seq: Option<u64>,
    /// Who sent it.
    pub author: Author,
    /// What it is.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// The message that it answers.
    pub reference: Option<String>,
    /// What it says.
    pub text: String,
}

impl Arrival {
    fn new(seq: Option<u64>, message: &Message, sender: &Sender) -> Self {
        Self {
            seq,
            author: Author::of(message, sender),
            kind: message.kind.clone(),
            id: message.id.clone(),
            reference: message.reference.clone(),
            text: said(message),
        }
    }

    /// A row of the inbox.
    pub fn of_row(row: &Kept) -> Self {
        Self::new(Some(row.seq), &row.envelope, &row.sender)
    }
}

/// A request that waits for the model.
#[derive(Debug, Clone)]
pub struct Request {
    /// The request itself.
    pub arrival: Arrival,
    /// When it is too late.
    pub deadline: Option<Instant>,
    /// Whether the model has been shown it.
    pub shown: bool,
    /// Whether it was handed to us in this run, and sessions were told. If not, it was taken before.
    pub handed: bool,
}

/// What sessions hear of.
#[derive(Debug, Clone)]
pub enum Change {
    /// A peer said or asks something.
    Arrived(Arc<Arrival>),
    /// A request needs no answer any more.
    Withdrawn(String),
    /// A delegation has changed.
    Delegation(Arc<Delegation>),
    /// More came than could be told: the inbox has it.
    Missed,
}

#[derive(Debug, Default)]
struct State {
    desk: Desk,
    requests: HashMap<String, Request>,
    /// Delegations whose result some call waits for.
    awaited: HashMap<String, usize>,
    /// Delegations whose result some call has given: its row may come a little later.
    given: VecDeque<String>,
    last_seq: u64,
    /// Why requests cannot be taken.
    trouble: Option<String>,
}

/// What all sessions share.
#[derive(Debug)]
pub struct Hub {
    config: Config,
    link: watch::Sender<Option<Client>>,
    /// Calls that are there to take requests.
    presence: watch::Sender<usize>,
    /// Whether requests can come just now.
    attached: watch::Sender<bool>,
    changes: broadcast::Sender<Change>,
    state: Mutex<State>,
    calls: Arc<Semaphore>,
    open: Semaphore,
}

/// Somebody is there to take requests, until this is dropped.
#[derive(Debug)]
pub struct Present<'a>(&'a Hub);

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.presence.send_modify(|calls| *calls = calls.saturating_sub(1));
    }
}

/// A call waits for this delegation's result, until this is dropped.
#[derive(Debug)]
pub struct Awaited<'a>(&'a Hub, String);

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let Some(calls) = state.awaited.get_mut(&self.1) {
            *calls -= 1;
            if *calls == 0 {
                state.awaited.remove(&self.1);
            }
        }
    }
}

/// A connection of a call's own, with its place among those that may have one.
#[derive(Debug)]
pub struct Own {
    /// The connection; what it waits for is given up with it.
    pub client: Client,
    _place: OwnedSemaphorePermit,
}

impl Hub {
    /// One that keeps to its daemon for as long as the runtime runs.
    pub fn start(config: Config) -> Arc<Self> {
        let hub = Arc::new(Self {
            config,
            link: watch::Sender::new(None),
            presence: watch::Sender::new(0),
            attached: watch::Sender::new(false),
            changes: broadcast::Sender::new(CHANGES_MAX),
            state: Mutex::default(),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            open: Semaphore::new(OPEN_MAX),
        });
        tokio::spawn(hub.clone().hear());
        if hub.config.answer != When::Never {
            tokio::spawn(hub.clone().take());
        }
        hub
    }

    /// The lowest level whose words reach the model unasked.
    pub fn floor(&self) -> &Trust {
        &self.config.floor
    }

    /// Whether requests are taken at any time.
    pub fn is_always_there(&self) -> bool {
        self.config.answer == When::Always
    }

    /// Changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// The connection for commands that wait for no peer.
    pub async fn client(&self) -> Result<Client, ClientError> {
        let mut link = self.link.subscribe();
        if let Ok(Ok(link)) = timeout(PATIENCE, link.wait_for(Option::is_some)).await
            && let Some(client) = link.clone()
        {
            return Ok(client);
        }
        // So that it is told why.
        Client::connect(&self.config.socket, self.hello()).await
    }

    /// A place for a call, for as long as it works.
    pub fn begin(&self) -> Result<SemaphorePermit<'_>, ClientError> {
        self.open.try_acquire().map_err(|_| ClientError::Ipc {
            code: "overloaded".to_owned(),
            message: format!("{OPEN_MAX} calls are at work already: let some of them end"),
        })
    }

    /// A connection of its own, for a call that waits for a peer.
    pub async fn own(&self) -> Result<Own, ClientError> {
        let Ok(place) = self.calls.clone().try_acquire_owned() else {
            return Err(ClientError::Ipc {
                code: "overloaded".to_owned(),
                message: format!("{CALLS_MAX} calls wait for peers already: let one of them end"),
            });
        };
        let client = Client::connect(&self.config.socket, self.hello()).await?;
        Ok(Own { client, _place: place })
    }

    /// The rows past the cursor, as many as there is room for.
    pub async fn rows(&self) -> Result<Inbox, ClientError> {
        self.rows_from(self.floor()).await
    }

    /// The same, where rows of this level are looked for.
    pub async fn rows_from(&self, floor: &Trust) -> Result<Inbox, ClientError> {
        let client = self.client().await?;
        for _ in 0..PAGES_MAX {
            let page = client.inbox(Some(ROWS_MAX), None).await?;
            let Some(seq) = self.desk(|desk| desk.pass(&page, floor)) else { return Ok(page) };
            if client.ack(seq).await.is_err() {
                return Ok(page);
            }
        }
        client.inbox(Some(ROWS_MAX), None).await
    }

    /// Says that a call is there to take requests, and waits until they can come.
    pub async fn be_present(&self) -> Present<'_> {
        self.presence.send_modify(|calls| *calls += 1);
        let present = Present(self);
        if self.config.answer != When::Never {
            let mut attached = self.attached.subscribe();
            // A daemon that is away hands out nothing; the call itself will say so.
            timeout(PATIENCE, attached.wait_for(|attached| *attached)).await.ok();
        }
        present
    }

    /// Says that a call waits for this delegation's result, which the inbox then need not show as well.
    pub fn wait_for(&self, id: &str) -> Awaited<'_> {
        *self.state().awaited.entry(id.to_owned()).or_default() += 1;
        Awaited(self, id.to_owned())
    }

    /// Notes that a call has given this delegation's result to the model.
    pub fn give(&self, id: &str) {
        let given = &mut self.state().given;
        if given.len() >= GIVEN_MAX {
            given.pop_front();
        }
        given.push_back(id.to_owned());
    }

    /// Works on the desk; not for long.
    pub fn desk<T>(&self, work: impl FnOnce(&mut Desk) -> T) -> T {
        work(&mut self.state().desk)
    }

    /// Lets the daemon's cursor follow what is dealt with.
    pub async fn advance(&self) -> Result<(), ClientError> {
        let rows = self.rows().await?;
        match self.desk(|desk| desk.advance(&rows.messages)) {
            Some(seq) => self.client().await?.ack(seq).await.map(drop),
            None => Ok(()),
        }
    }

    /// Open requests of peers from this level on, and how many there are of others; the most urgent first.
    pub fn requests(&self, floor: &Trust) -> (Vec<Request>, usize) {
        let mut state = self.state();
        // Nobody tells of the end of what an earlier connection was handed.
        let now = Instant::now();
        state.requests.retain(|_, one| one.deadline.is_none_or(|deadline| deadline > now));
        let (mut seen, hidden): (Vec<_>, Vec<_>) =
            state.requests.values().partition(|one| reaches(one.arrival.author.trust.as_ref(), floor));
        // What has little time left first, and what has no limit last.
        let urgency = |one: &Request| (one.deadline.is_none(), one.deadline);
        seen.sort_by(|a, b| urgency(a).cmp(&urgency(b)).then_with(|| a.arrival.id.cmp(&b.arrival.id)));
        (seen.into_iter().cloned().collect(), hidden.len())
    }

    /// The open request with this id, or the only one that begins so.
    pub fn request(&self, id: &str) -> Option<Request> {
        let state = self.state();
        if let Some(request) = state.requests.get(id) {
            return Some(request.clone());
        }
        let begins = |one: &&Request| !id.is_empty() && one.arrival.id.starts_with(id);
        let mut fitting = state.requests.values().filter(begins);
        match (fitting.next(), fitting.next()) {
            (Some(request), None) => Some(request.clone()),
            _ => None,
        }
    }

    /// Why requests cannot be taken, where they should be.
    pub fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// Notes that the model was shown this request. Whoever gave a delegation away hears that it was taken.
    pub async fn show_request(&self, id: &str) {
        let kind = {
            let mut state = self.state();
            let Some(request) = state.requests.get_mut(id).filter(|request| !request.shown) else { return };
            request.shown = true;
            request.arrival.kind.clone()
        };
        if kind == "delegate"
            && let Ok(client) = self.client().await
        {
            // A sender that takes no progress is not told; that is no fault.
            client.reply(id, "progress", &json!({"state": "accepted"})).await.ok();
        }
    }

    /// Notes that a request is closed; gives it, if it was open.
    pub fn close_request(&self, id: &str) -> Option<Request> {
        let closed = self.state().requests.remove(id);
        if closed.is_some() {
            self.tell(Change::Withdrawn(id.to_owned()));
        }
        closed
    }

    /// Closes work that its giver takes back, and tells so: the model may be at it.
    fn take_back(&self, id: &str, reason: Option<&str>) -> bool {
        let Some(work) = self.close_request(id) else { return false };
        let reason = reason.map(|reason| format!("\nreason: {reason}")).unwrap_or_default();
        let (author, id) = (work.arrival.author, work.arrival.id);
        let (kind, text) = ("cancel".to_owned(), format!("takes it back{reason}"));
        let arrival = Arrival { seq: None, author, kind, id: id.clone(), reference: Some(id), text };
        self.tell(Change::Arrived(Arc::new(arrival)));
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here leaves the state half changed, so a panic elsewhere does not matter.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hello(&self) -> Hello {
        Hello::consumer(&*self.config.consumer)
    }

    fn tell(&self, change: Change) {
        // Nobody may be listening yet.
        self.changes.send(change).ok();
    }

    // ---- What is told ----

    /// Hears of messages and delegations, over one connection after another.
    async fn hear(self: Arc<Self>) {
        let (mut wait, mut first) = (BACKOFF.0, true);
        loop {
            if let Ok(client) = Client::connect(&self.config.socket, self.hello()).await {
                wait = BACKOFF.0;
                self.hear_over(&client, first).await;
                self.link.send_replace(None);
            }
            first = false;
            sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    async fn hear_over(self: &Arc<Self>, client: &Client, first: bool) {
        // A scoped socket may not be allowed some of this; the rest still works.
        let watch = DelegationFilter {
            watch: true,
            limit: Some(ROWS_MAX),
            direction: Some(Direction::In),
            ..DelegationFilter::default()
        };
        if let Ok(taken) = client.delegations(&watch).await
            && self.config.answer != When::Never
        {
            self.resume(client, taken.delegations).await;
        }
        if let Ok(subscribed) = client.subscribe(&Subscription::default()).await {
            let (mut state, newest) = (self.state(), subscribed.replay_to_seq);
            // What had come before is told of by its number, not message by message. Another store than
            // before begins anew.
            state.last_seq = if first { newest } else { state.last_seq.min(newest) };
        }
        self.link.send_replace(Some(client.clone()));
        if !first {
            while let Ok(event) = timeout(Duration::ZERO, client.next_event()).await {
                let Ok(event) = event else { return };
                self.heard(client, event).await;
            }
            // Delegations may have changed meanwhile.
            self.tell(Change::Missed);
        }
        while let Ok(event) = client.next_event().await {
            self.heard(client, event).await;
        }
    }

    async fn heard(self: &Arc<Self>, client: &Client, event: Event) {
        match event {
            Event::Inbound(inbound) if inbound.envelope.kind == "cancel" => self.cancel(client, &inbound),
            Event::Inbound(inbound) if self.told(&inbound) => {
                // When it fails, the model is shown the row once more.
                let hub = self.clone();
                tokio::spawn(async move { hub.advance().await.ok() });
            }
            Event::Delegation(delegation) => self.changed(*delegation),
            Event::SlowConsumer { .. } => {
                self.tell(Change::Missed);
                // Events go on once the inbox was read.
                client.inbox(Some(ROWS_MAX), None).await.ok();
            }
            Event::Missed => self.tell(Change::Missed),
            _ => {}
        }
    }

    /// Work is to be taken back. The cancel is handed to the connection that took it, which may be gone: one
    /// of an earlier run, or from before the daemon was started again.
    fn cancel(self: &Arc<Self>, client: &Client, inbound: &Inbound) {
        let (cancel, reason) = (inbound.envelope.id.clone(), inbound.envelope.text("reason"));
        let Some(id) = inbound.envelope.reference.clone() else { return };
        if !self.state().requests.contains_key(&id) {
            return;
        }
        let (hub, client) = (self.clone(), client.clone());
        tokio::spawn(async move {
            // The connection that holds it, if it is there, comes first: this one or another agent's.
            sleep(GRACE).await;
            if client.reply(&cancel, "ack", &json!({"accepted": true})).await.is_ok() {
                hub.take_back(&id, reason.as_deref());
            }
        });
    }

    /// Hears of a message; says whether it was one that the model has been given already.
    fn told(&self, inbound: &Inbound) -> bool {
        let mut state = self.state();
        if inbound.seq <= state.last_seq || !is_told(&inbound.envelope) {
            return false;
        }
        state.last_seq = inbound.seq;
        let arrival = Arrival::new(Some(inbound.seq), &inbound.envelope, &inbound.sender);
        let given = |id: &String| state.awaited.contains_key(id) || state.given.contains(id);
        if arrival.reference.as_ref().is_some_and(given)
            && matches!(arrival.kind.as_str(), "result" | "progress")
        {
            state.desk.settle(inbound.seq);
            return true;
        }
        drop(state);
        self.tell(Change::Arrived(Arc::new(arrival)));
        false
    }

    fn changed(&self, delegation: Delegation) {
        if delegation.direction == Direction::In && delegation.state == DelegationState::Cancelled {
            self.take_back(&delegation.id, delegation.reason.as_deref());
        } else if delegation.direction == Direction::In && delegation.state.is_ended() {
            self.close_request(&delegation.id);
        }
        self.tell(Change::Delegation(Arc::new(delegation)));
    }

    // ---- What is asked ----

    /// Takes requests, while somebody is there.
    async fn take(self: Arc<Self>) {
        let mut wait = BACKOFF.0;
        loop {
            self.wanted(true).await;
            if let Ok(client) = Client::connect(&self.config.socket, self.hello()).await {
                self.take_over(&client).await;
                if self.attached.send_replace(false) {
                    wait = BACKOFF.0;
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// Waits until requests are wanted, or no longer are.
    async fn wanted(&self, wanted: bool) {
        let mut presence = self.presence.subscribe();
        let is = |calls: &usize| self.is_always_there() || *calls > 0;
        // The sender lives as long as this does.
        presence.wait_for(|calls| is(calls) == wanted).await.ok();
    }

    async fn take_over(&self, client: &Client) {
        loop {
            let asked = ["query", "delegate", "cancel"].map(str::to_owned).to_vec();
            let capacity = Some(REQUESTS_MAX);
            let taking = Subscription { answer: asked, capacity, lease: true, ..Subscription::default() };
            if let Err(error) = client.subscribe(&taking).await {
                self.state().trouble = Some(error.to_string());
                return;
            }
            self.state().trouble = None;
            // What had waited was handed out with the subscription, before this reply.
            if client.status().await.is_err() {
                return;
            }
            while let Ok(event) = timeout(Duration::ZERO, client.next_event()).await {
                let Ok(event) = event else { return };
                self.handed(client, event).await;
            }
            self.attached.send_replace(true);
            if !self.take_while(client, true).await {
                return;
            }
            self.attached.send_replace(false);
            // What is held stays; nothing new comes.
            let rest = Subscription { kinds: Some(Vec::new()), ..Subscription::default() };
            if client.subscribe(&rest).await.is_err() {
                return;
            }
            if !self.take_while(client, false).await {
                return;
            }
        }
    }

    /// Takes what comes for as long as requests are wanted, or are not; false when the connection has ended.
    async fn take_while(&self, client: &Client, wanted: bool) -> bool {
        loop {
            tokio::select! {
                event = client.next_event() => match event {
                    Ok(event) => self.handed(client, event).await,
                    Err(_) => return false,
                },
                () = self.wanted(!wanted) => return true,
            }
        }
    }

    async fn handed(&self, client: &Client, event: Event) {
        match event {
            Event::Withdrawn { reference, .. } => drop(self.close_request(&reference)),
            Event::Inbound(inbound) if inbound.answer => {
                let kind = inbound.envelope.kind.as_str();
                if kind == "cancel" {
                    let id = inbound.envelope.reference.clone().unwrap_or_default();
                    let known = self.take_back(&id, inbound.envelope.text("reason").as_deref());
                    let payload = if known {
                        json!({"accepted": true})
                    } else {
                        json!({"accepted": false, "reason": "this work is finished or was never here"})
                    };
                    client.reply(&inbound.envelope.id, "ack", &payload).await.ok();
                    return;
                }
                let mut left = inbound.deadline_ms;
                if kind == "delegate" {
                    // It is kept for the model, which may not look for a while.
                    let queued = json!({"accepted": true, "state": "queued"});
                    client.reply(&inbound.envelope.id, "ack", &queued).await.ok();
                    // The event bounds the wait for that ack; the work may take what its giver says.
                    let given =
                        inbound.envelope.payload().ok().and_then(|delegate: Given| delegate.deadline_ms);
                    let until =
                        given.filter(|ms| *ms > 0).map(|ms| inbound.buffered_at_ms.saturating_add(ms));
                    left = until.map(until_then);
                }
                let arrival = Arrival::new(None, &inbound.envelope, &inbound.sender);
                let left = left.map(Duration::from_millis);
                self.open(arrival, left.and_then(|left| Instant::now().checked_add(left)));
            }
            _ => {}
        }
    }

    fn open(&self, arrival: Arrival, deadline: Option<Instant>) {
        let id = arrival.id.clone();
        let mut request = Request { arrival: arrival.clone(), deadline, shown: false, handed: true };
        let before = {
            let mut state = self.state();
            let before = state.requests.remove(&id);
            request.shown = before.as_ref().is_some_and(|before| before.shown);
            state.requests.insert(id, request);
            before
        };
        // After a restart the daemon may hand out again what the model has been told of.
        if !before.is_some_and(|before| before.handed) {
            self.tell(Change::Arrived(Arc::new(arrival)));
        }
    }

    /// Takes up delegations of an earlier run that still wait for a result.
    async fn resume(&self, client: &Client, taken: Vec<Delegation>) {
        let open: Vec<_> = taken.into_iter().filter(|row| !row.state.is_ended()).collect();
        if open.is_empty() {
            return;
        }
        // A ledger's row does not say who its peer is.
        let peers = client.peers().await.unwrap_or_default();
        let mut state = self.state();
        for row in open.into_iter().take(REQUESTS_MAX as usize) {
            let author = Author::among(&peers, &row.peer);
            let left = row.deadline_ms.map(|at| Duration::from_millis(until_then(at)));
            let deadline = left.and_then(|left| Instant::now().checked_add(left));
            let (text, kind) = (row.task.unwrap_or_default(), "delegate".to_owned());
            let arrival = Arrival { seq: None, author, kind, id: row.id.clone(), reference: None, text };
            let request = Request { arrival, deadline, shown: false, handed: false };
            state.requests.entry(row.id).or_insert(request);
        }
    }
}

/// What counts of a delegation's payload here.
#[derive(Debug, serde::Deserialize)]
struct Given {
    #[serde(default)]
    deadline_ms: Option<u64>,
}

/// Milliseconds until this time, by the clock.
fn until_then(unix_ms: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    unix_ms.saturating_sub(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
