//! An agent: a closure that answers what peers ask, with the bookkeeping around it.
//!
//! A query is answered when the closure returns. A delegation is acked at once and its result sent when the
//! closure returns, over a new connection if the daemon was restarted meanwhile. A request that needs no
//! answer any more (cancelled, too late, its peer gone) is told so by [`Request::ended`]; a closure that does
//! not listen is dropped a little later.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::types::{Event, Inbound, Message, Sender, Subscription};
use crate::{Answer, Client, ClientError};

/// How long a closure may take to tidy up once its request has ended.
const GRACE: Duration = Duration::from_secs(2);
/// The last words of an agent that stops are given this long.
const STOP: Duration = Duration::from_secs(3);
/// First and longest wait before the daemon is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How often, and how far apart, the result of a delegation is sent to a peer that cannot be reached.
const RESULT_RETRY: (u32, Duration) = (120, Duration::from_secs(5));

/// Why a request needs no answer any more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// Its sender took it back.
    Cancelled,
    /// Its deadline has passed.
    TimedOut,
    /// Its sender has gone, or somebody else has answered it.
    PeerGone,
    /// The connection to the daemon is lost; delegations go on.
    Disconnected,
    /// The agent stops.
    Stopped,
}

/// A request to answer.
#[derive(Debug)]
pub struct Request {
    message: Message,
    sender: Sender,
    fields: serde_json::Map<String, Value>,
    queued: bool,
    deadline: Option<Instant>,
    ended: watch::Receiver<Option<End>>,
    link: Link,
}

impl Request {
    /// The whole message: its id, who sent it, its kind and payload.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// How far its sender is trusted, and what it is called.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// What is asked or to be done: the `question` or the `task`.
    pub fn subject(&self) -> &str {
        self.text("question").or(self.text("task")).unwrap_or_default()
    }

    /// What a query is about.
    pub fn domain(&self) -> Option<&str> {
        self.text("domain")
    }

    /// How long the answer may be; no number means any length.
    pub fn max_tokens(&self) -> Option<u64> {
        self.fields.get("max_tokens").and_then(Value::as_u64).filter(|tokens| *tokens > 0)
    }

    /// Any field of the payload.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// How much time is left, if there is a limit.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether it had waited for an agent.
    pub fn was_queued(&self) -> bool {
        self.queued
    }

    /// Waits until the request needs no answer any more, which may be never.
    pub async fn ended(&self) -> End {
        wait_end(self.ended.clone()).await
    }

    /// Why the request needs no answer any more; none while it does.
    pub fn has_ended(&self) -> Option<End> {
        self.ended.borrow().clone()
    }

    /// Tells the sender of a delegation how far it is: `state` is `accepted` or `running`.
    ///
    /// A sender that did not offer the `progress` feature is not told; that is no error.
    pub async fn progress(
        &self,
        state: &str,
        percent: Option<u8>,
        note: Option<&str>,
    ) -> Result<(), ClientError> {
        let mut payload = json!({"state": state});
        if let Some(percent) = percent {
            payload["percent"] = percent.into();
        }
        if let Some(note) = note {
            payload["note"] = note.into();
        }
        let client = self.link.borrow().clone().ok_or(ClientError::Closed)?;
        match client.reply(&self.message.id, "progress", &payload).await {
            Err(ClientError::Ipc { code, .. }) if code == "not_offered" => Ok(()),
            other => other.map(drop),
        }
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).and_then(Value::as_str)
    }
}

/// A closure that answers requests.
///
/// ```no_run
/// # async fn example(client: axon_client::Client) {
/// use axon_client::{Agent, Answer};
///
/// let agent = Agent::new(|request| async move { Answer::text(request.subject().to_uppercase()) })
///     .domains(["text"])
///     .capacity(8);
/// let why = agent.serve(&client).await;
/// # }
/// ```
pub struct Agent<H> {
    handler: Arc<H>,
    subscription: Subscription,
    capabilities: Option<Value>,
    attached: Box<dyn Fn() + Send + Sync>,
    unsent: Unsent,
}

/// Hears of answers that could not be given: the request's id and why.
type Unsent = Arc<dyn Fn(&str, &ClientError) + Send + Sync>;

impl<H> std::fmt::Debug for Agent<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

/// The present connection to the daemon, if there is one.
type Link = watch::Receiver<Option<Client>>;

impl<H, F> Agent<H>
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    /// An agent that answers queries and delegations, 16 at once.
    pub fn new(handler: H) -> Self {
        let agent = Self {
            handler: Arc::new(handler),
            subscription: Subscription::default(),
            capabilities: None,
            attached: Box::new(|| {}),
            unsent: Arc::new(|_, _| {}),
        };
        agent.kinds(["query", "delegate"]).capacity(axon_proto::limits::CAPACITY_DEFAULT)
    }

    /// Only these of `query` and `delegate`.
    #[must_use]
    pub fn kinds<T: Into<String>>(mut self, kinds: impl IntoIterator<Item = T>) -> Self {
        let mut kinds: Vec<String> = kinds.into_iter().map(Into::into).collect();
        // Who takes work must hear when it is taken back.
        if kinds.iter().any(|kind| kind == "delegate") && !kinds.iter().any(|kind| kind == "cancel") {
            kinds.push("cancel".to_owned());
        }
        self.subscription.answer = kinds;
        self
    }

    /// Only queries of these domains.
    #[must_use]
    pub fn domains<T: Into<String>>(mut self, domains: impl IntoIterator<Item = T>) -> Self {
        self.subscription.domains = domains.into_iter().map(Into::into).collect();
        self
    }

    /// This many requests at once.
    #[must_use]
    pub fn capacity(mut self, capacity: u32) -> Self {
        self.subscription.capacity = Some(capacity);
        self
    }

    /// What `discover` says of it: an object with any of `agent_name`, `domains`, `channels`, `tools`,
    /// `max_concurrent_tasks`, `model`.
    #[must_use]
    pub fn capabilities(mut self, capabilities: Value) -> Self {
        self.capabilities = Some(capabilities);
        self
    }

    /// Called each time that the agent is attached and requests can come.
    #[must_use]
    pub fn on_attached(mut self, attached: impl Fn() + Send + Sync + 'static) -> Self {
        self.attached = Box::new(attached);
        self
    }

    /// Called when an answer or a result could not be given, with the request's id: its deadline may have
    /// passed, or the daemon no longer knows of it.
    #[must_use]
    pub fn on_unsent(mut self, unsent: impl Fn(&str, &ClientError) + Send + Sync + 'static) -> Self {
        self.unsent = Arc::new(unsent);
        self
    }

    /// Answers over this connection until it ends, and tells why. All requests end with it.
    pub async fn serve(&self, client: &Client) -> ClientError {
        let (link, _) = watch::channel(Some(client.clone()));
        let mut work = self.workplace(&link);
        let why = self.session(client, &mut work).await;
        // Without a sender of connections nothing waits for the next one.
        drop(link);
        work.end_all(&End::Disconnected);
        work.finish().await;
        why
    }

    /// Answers until `stop`, connecting again whenever the daemon was away; `lost` hears of each time.
    ///
    /// An error means that connecting again is of no use.
    pub async fn serve_until(
        &self,
        client: Client,
        stop: impl Future<Output = ()>,
        mut lost: impl FnMut(&ClientError),
    ) -> Result<(), ClientError> {
        let mut stop = pin!(stop);
        let (link, _) = watch::channel(Some(client.clone()));
        let mut work = self.workplace(&link);
        let mut client = client;
        loop {
            let why = tokio::select! {
                () = &mut stop => {
                    work.end_all(&End::Stopped);
                    work.finish().await;
                    return Ok(());
                }
                why = self.session(&client, &mut work) => why,
            };
            if !why.ends_connection() {
                work.end_all(&End::Stopped);
                return Err(why);
            }
            lost(&why);
            link.send_replace(None);
            work.end_queries();
            let again = tokio::select! {
                () = &mut stop => {
                    work.end_all(&End::Stopped);
                    work.finish().await;
                    return Ok(());
                }
                again = reconnect(&client) => again,
            };
            match again {
                Ok(again) => client = again,
                Err(why) => {
                    work.end_all(&End::Stopped);
                    work.finish().await;
                    return Err(why);
                }
            }
            link.send_replace(Some(client.clone()));
        }
    }

    fn workplace(&self, link: &watch::Sender<Option<Client>>) -> Work {
        let places = self.subscription.capacity.unwrap_or(axon_proto::limits::CAPACITY_DEFAULT);
        Work {
            runs: HashMap::new(),
            tasks: JoinSet::new(),
            places: Arc::new(Semaphore::new(usize::try_from(places).unwrap_or(1))),
            link: link.subscribe(),
        }
    }

    async fn session(&self, client: &Client, work: &mut Work) -> ClientError {
        if let Some(capabilities) = &self.capabilities
            && let Err(error) = client.advertise(capabilities).await
        {
            return error;
        }
        if let Err(error) = client.subscribe(&self.subscription).await {
            return error;
        }
        (self.attached)();
        loop {
            tokio::select! {
                event = client.next_event() => match event {
                    Ok(Event::Inbound(inbound)) if inbound.answer => self.take(*inbound, work),
                    Ok(Event::Withdrawn { reference, reason }) => work.withdraw(&reference, &reason),
                    Ok(_) => {}
                    Err(error) => return error,
                },
                Some(done) = work.tasks.join_next_with_id() => work.done(done),
            }
        }
    }

    fn take(&self, inbound: Inbound, work: &mut Work) {
        let (link, message) = (work.link.clone(), &inbound.envelope);
        let id = message.id.clone();
        if message.kind == "cancel" {
            let held = message.reference.as_deref().and_then(|run| work.runs.get(run));
            let over = held.map(|run| {
                run.end(&End::Cancelled);
                run.ends.subscribe()
            });
            work.tasks.spawn(async move {
                let payload = match over {
                    Some(run) => {
                        run_over(run).await;
                        json!({"accepted": true})
                    }
                    None => json!({"accepted": false, "reason": "this work is finished or was never here"}),
                };
                deliver(link, &id, "ack", payload, false).await.ok();
            });
            return;
        }
        if work.runs.contains_key(&id) {
            // The daemon was restarted and hands out again what is still being worked on.
            work.tasks.spawn(async move {
                deliver(link, &id, "ack", json!({"accepted": true}), false).await.ok();
            });
            return;
        }
        let (ends, ended) = watch::channel(None);
        let ends = Arc::new(ends);
        let kind = message.kind.clone();
        let request = Request {
            fields: message.payload().unwrap_or_default(),
            message: inbound.envelope,
            sender: inbound.sender,
            queued: inbound.queued,
            deadline: inbound
                .deadline_ms
                .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms))),
            ended,
            link,
        };
        let unsent = self.unsent.clone();
        let run = run(self.handler.clone(), request, ends.clone(), work.places.clone(), unsent);
        let task = work.tasks.spawn(run).id();
        work.runs.insert(id, Run { task, kind, ends });
    }
}

/// The requests under way.
struct Work {
    runs: HashMap<String, Run>,
    tasks: JoinSet<()>,
    places: Arc<Semaphore>,
    link: Link,
}

struct Run {
    task: tokio::task::Id,
    kind: String,
    ends: Arc<watch::Sender<Option<End>>>,
}

impl Run {
    fn end(&self, end: &End) {
        set_end(&self.ends, end.clone());
    }
}

impl Work {
    fn end_all(&self, end: &End) {
        self.runs.values().for_each(|run| run.end(end));
    }

    fn end_queries(&self) {
        self.runs.values().filter(|run| run.kind != "delegate").for_each(|run| run.end(&End::Disconnected));
    }

    fn withdraw(&self, id: &str, reason: &str) {
        let end = match reason {
            "timeout" => End::TimedOut,
            "cancelled" => End::Cancelled,
            _ => End::PeerGone,
        };
        if let Some(run) = self.runs.get(id) {
            run.end(&end);
        }
    }

    fn done(&mut self, done: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let (task, fell) = match &done {
            Ok((task, ())) => (*task, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let Some(id) = self.runs.iter().find(|(_, run)| run.task == task).map(|(id, _)| id.clone()) else {
            return;
        };
        let Some(gone) = self.runs.remove(&id) else { return };
        if fell {
            let answer = Answer::error("internal", "the agent failed on this request: ask it something else");
            let (kind, payload) = answer.into_reply(&gone.kind, None);
            let link = self.link.clone();
            self.tasks.spawn(async move {
                deliver(link, &id, kind, payload, true).await.ok();
            });
        }
    }

    /// Waits for the last words, a little.
    async fn finish(&mut self) {
        timeout(STOP, async { while self.tasks.join_next().await.is_some() {} }).await.ok();
        self.tasks.abort_all();
    }
}

async fn run<H, F>(
    handler: Arc<H>,
    request: Request,
    ends: Arc<watch::Sender<Option<End>>>,
    places: Arc<Semaphore>,
    unsent: Unsent,
) where
    H: Fn(Request) -> F,
    F: Future<Output = Answer>,
{
    let (id, kind, link) = (request.message.id.clone(), request.message.kind.clone(), request.link.clone());
    let (tokens, deadline, queued) = (request.max_tokens(), request.deadline, request.queued);
    if kind == "delegate" {
        let taken = deliver(link.clone(), &id, "ack", json!({"accepted": true}), false).await;
        // One that had waited was acked by the daemon already, and goes on all the same.
        if let Some(error) = taken.err().filter(|_| !queued) {
            return unsent(&id, &error);
        }
    }
    let answer = {
        let ended = request.ended.clone();
        let mut running = pin!(async {
            let _place = places.acquire().await;
            // It may have ended while it waited for a place.
            let over = request.ended.borrow().is_some();
            if over { Answer::text("") } else { handler(request).await }
        });
        tokio::select! {
            answer = &mut running => Some(answer),
            end = end_or_deadline(ended, deadline) => {
                set_end(&ends, end);
                timeout(GRACE, running).await.ok();
                None
            }
        }
    };
    let end = ends.borrow().clone();
    let answer = match (end, answer) {
        (None, Some(answer)) => answer,
        // The daemon has told the peer, or hands the query to somebody else.
        (Some(_), _) if kind != "delegate" => return,
        // The ack of the cancel ends it, and nothing follows.
        (Some(End::Cancelled), _) => return,
        (Some(End::TimedOut), _) => Answer::error("timeout", "the work was not done before its deadline"),
        (Some(End::Stopped), _) => {
            Answer::error("internal", "the agent was stopped before the work was done")
        }
        (Some(_), _) | (None, None) => return,
    };
    let (reply, payload) = answer.into_reply(&kind, tokens);
    // The result of a delegation outlives the connection that it came on; a response does not.
    if let Err(error) = deliver(link, &id, reply, payload, reply == "result").await {
        unsent(&id, &error);
    }
}

/// Sends a reply; a result also after a new connection, and again while its peer cannot be reached.
async fn deliver(
    mut link: Link,
    id: &str,
    kind: &str,
    payload: Value,
    lasting: bool,
) -> Result<(), ClientError> {
    let (mut tries, pause) = RESULT_RETRY;
    loop {
        let Some(client) = link.borrow_and_update().clone() else {
            if !lasting || link.changed().await.is_err() {
                return Err(ClientError::Closed);
            }
            continue;
        };
        match client.reply(id, kind, &payload).await {
            Ok(_) => return Ok(()),
            Err(error) if lasting && error.ends_connection() => {
                if link.changed().await.is_err() {
                    return Err(error);
                }
            }
            Err(error) if lasting && error.code() == "peer_unreachable" && tries > 0 => {
                tries -= 1;
                sleep(pause).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A new connection like this one, as soon as there is a daemon; an error when trying again is of no use.
pub(crate) async fn reconnect(client: &Client) -> Result<Client, ClientError> {
    let (mut wait, longest) = BACKOFF;
    loop {
        match client.reconnect().await {
            // All client places may be taken for a moment by those who also come back.
            Err(error) if error.ends_connection() || error.code() == "too_many_clients" => {}
            other => return other,
        }
        sleep(wait).await;
        wait = (wait * 2).min(longest);
    }
}

fn set_end(ends: &watch::Sender<Option<End>>, end: End) {
    ends.send_if_modified(|state| {
        let first = state.is_none();
        if first {
            *state = Some(end);
        }
        first
    });
}

async fn wait_end(mut ended: watch::Receiver<Option<End>>) -> End {
    match ended.wait_for(Option::is_some).await.map(|end| end.clone()) {
        Ok(Some(end)) => end,
        _ => std::future::pending().await,
    }
}

/// Waits until a run that was ended is over and has said its last word, so that "cancelled" is true when it
/// is said.
async fn run_over(mut run: watch::Receiver<Option<End>>) {
    let over = async { while run.changed().await.is_ok() {} };
    timeout(GRACE + STOP, over).await.ok();
}

async fn end_or_deadline(ended: watch::Receiver<Option<End>>, deadline: Option<Instant>) -> End {
    let late = async {
        match deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        end = wait_end(ended) => end,
        () = late => End::TimedOut,
    }
}
