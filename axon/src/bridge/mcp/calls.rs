//! The tools: what each does, and what of it the model reads.

use std::sync::Arc;
use std::time::Duration;

use axon_client::{
    ClientError, Delegate, Delegation, DelegationFilter, Direction, Message, Peer, Query, SendOptions, Trust,
};
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer as Session, RequestContext, RoleServer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use super::hub::{Arrival, Change, Hub, Own, Request};
use super::words::{self, Author, BRIEF_CHARS, brief, outcome, short};

/// How long `wait` waits when it is not told: less than the minute after which clients give a call up.
const WAIT_SECS: u64 = 50;
/// The longest that a call waits.
const WAIT_SECS_MAX: u64 = 3600;
/// Rows shown at once, unless more are asked for, and at most.
const ROWS: (usize, usize) = (10, 100);
/// Delegations that `status` lists.
const OPEN_MAX: u64 = 20;

/// A call that failed: what the model reads.
#[derive(Debug)]
pub struct Fault(String);

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        // What a peer says to a failure is a peer's words as well.
        match &error {
            ClientError::Peer { code, message, from, .. } => Self(format!(
                "{}: {} refused or failed:\n{}",
                words::harmless(code),
                short(from),
                Author { id: from.clone(), ..Author::default() }.quote(message)
            )),
            other => Self(format!("{}: {other}", other.code())),
        }
    }
}

impl Fault {
    fn usage(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn into_result(self) -> CallToolResult {
        CallToolResult::error(vec![ContentBlock::text(self.0)])
    }
}

/// What a call came to.
struct Done {
    text: String,
    fields: Value,
}

type Outcome = Result<Done, Fault>;

/// Runs a tool. Nothing is given for a name that is no tool.
pub async fn call(
    hub: &Hub,
    name: &str,
    arguments: JsonObject,
    cx: &RequestContext<RoleServer>,
) -> Option<CallToolResult> {
    let outcome = match name {
        "peers" => run(arguments, |args| peers(hub, args)).await,
        "ask" => run(arguments, |args| until_cancelled(cx, ask(hub, args))).await,
        "delegate" => run(arguments, |args| delegate(hub, args, cx)).await,
        "wait" => run(arguments, |args| until_cancelled(cx, wait(hub, args, cx))).await,
        "notify" => run(arguments, |args| until_cancelled(cx, notify(hub, args))).await,
        "inbox" => run(arguments, |args| inbox(hub, args)).await,
        "reply" => run(arguments, |args| reply(hub, args)).await,
        "result" => run(arguments, |args| result(hub, args)).await,
        "advertise" => run(arguments, |args| advertise(hub, args)).await,
        "status" => run(arguments, |args| status(hub, args)).await,
        _ => return None,
    };
    Some(match outcome {
        Ok(done) => {
            let mut result = CallToolResult::success(vec![ContentBlock::text(done.text)]);
            result.structured_content = Some(done.fields);
            result
        }
        Err(fault) => fault.into_result(),
    })
}

async fn run<A: DeserializeOwned, F>(arguments: JsonObject, tool: impl FnOnce(A) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    match serde_json::from_value(Value::Object(arguments)) {
        Ok(args) => tool(args).await,
        Err(error) => Err(Fault::usage(format!("wrong arguments: {error}"))),
    }
}

/// The call, unless its client gives it up: what it waits for then ends with its connection.
async fn until_cancelled(cx: &RequestContext<RoleServer>, tool: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        done = tool => done,
        () = cx.ct.cancelled() => Err(Fault::usage("cancelled")),
    }
}

/// Whole seconds to wait, within bounds.
fn secs(given: Option<u64>, default: u64) -> Duration {
    Duration::from_secs(given.unwrap_or(default).clamp(1, WAIT_SECS_MAX))
}

// ---- Peers ----

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeersArgs {
    peer: Option<String>,
}

async fn peers(hub: &Hub, args: PeersArgs) -> Outcome {
    if let Some(peer) = args.peer {
        let own = hub.own().await?;
        let answer = own.client.discover(&peer).await?.into_answer()?;
        let author = author(&own.client.peers().await.unwrap_or_default(), &answer.from);
        let said: Value = answer.payload()?;
        return Ok(Done { text: author.quote(&said.to_string()), fields: json!({"capabilities": said}) });
    }
    let peers = hub.client().await?.peers().await?;
    let rows: Vec<Value> = peers.iter().map(peer_row).collect();
    let line = |peer: &Peer| {
        let author = author_of(peer);
        let claims = peer.name.as_ref().filter(|_| peer.claimed);
        let claims = claims.map(|name| format!(" (calls itself {})", words::harmless(name)));
        format!("{}{} {} {}", author.label(), claims.unwrap_or_default(), author.level(), peer.status)
    };
    let text = match peers.as_slice() {
        [] => {
            "No peers yet. The person you work for pairs agents with `axon invite` and `axon connect`.".into()
        }
        some => some.iter().map(line).collect::<Vec<_>>().join("\n"),
    };
    Ok(Done { text, fields: json!({"peers": rows}) })
}

/// A peer, as programs read it.
pub fn peer_row(peer: &Peer) -> Value {
    let trust = author_of(peer).level().to_owned();
    let mut row = json!({"id": peer.id, "trust": trust, "status": peer.status});
    if let Some(name) = &peer.name {
        row["name"] = name.as_str().into();
    }
    if peer.claimed {
        row["claimed"] = true.into();
    }
    if let Some(ms) = peer.rtt_ms {
        row["rtt_ms"] = ms.into();
    }
    row
}

fn author_of(peer: &Peer) -> Author {
    Author { id: peer.id.clone(), name: peer.name.clone(), claimed: peer.claimed, trust: peer.trust.clone() }
}

fn author(peers: &[Peer], id: &str) -> Author {
    let peer = peers.iter().find(|peer| peer.id == id);
    peer.map_or_else(|| Author { id: id.to_owned(), ..Author::default() }, author_of)
}

// ---- Asking and telling ----

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskArgs {
    peer: String,
    question: String,
    domain: Option<String>,
    max_tokens: Option<u64>,
    secs: Option<u64>,
}

async fn ask(hub: &Hub, args: AskArgs) -> Outcome {
    let own = hub.own().await?;
    let query = Query {
        question: &args.question,
        domain: args.domain.as_deref(),
        max_tokens: args.max_tokens,
        deadline_ms: args.secs.map(|given| millis(secs(Some(given), WAIT_SECS))),
    };
    let sent = own.client.query(&args.peer, &query).await?;
    let id = sent.msg_id.clone();
    let answer = sent.into_answer()?;
    let author = author(&own.client.peers().await.unwrap_or_default(), &answer.from);
    let mut fields = said_by(&author, &answer.text("summary").unwrap_or_default());
    fields.insert("id".to_owned(), id.into());
    let payload: Map<String, Value> = answer.payload().unwrap_or_default();
    if let Some(data) = payload.get("data").filter(|data| !data.is_null()) {
        fields.insert("data".to_owned(), data.clone());
    }
    Ok(Done { text: author.quote(&words::said(&answer)), fields: fields.into() })
}

fn said_by(author: &Author, text: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("from".to_owned(), author.label().into());
    fields.insert("trust".to_owned(), author.level().into());
    fields.insert("text".to_owned(), text.into());
    fields
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NotifyArgs {
    peer: String,
    topic: String,
    data: Value,
    hold_secs: Option<u64>,
}

async fn notify(hub: &Hub, args: NotifyArgs) -> Outcome {
    let options = SendOptions { hold_secs: args.hold_secs, ..SendOptions::default() };
    let own = hub.own().await?;
    let sent = own.client.notify_with(&args.peer, &args.topic, &args.data, None, options).await?;
    let state = sent.state.unwrap_or_else(|| "sent".to_owned());
    Ok(Done { text: state.clone(), fields: json!({"id": sent.msg_id, "state": state}) })
}

// ---- Giving work away ----

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DelegateArgs {
    peer: String,
    task: String,
    context: Option<Box<RawValue>>,
    #[serde(default)]
    urgent: bool,
    hold_secs: Option<u64>,
    secs: Option<u64>,
}

async fn delegate(hub: &Hub, args: DelegateArgs, cx: &RequestContext<RoleServer>) -> Outcome {
    let own = hub.own().await?;
    let span = args.secs.map(|given| secs(Some(given), WAIT_SECS));
    // Before it leaves, so that no change is missed.
    let changes = hub.changes();
    // By itself, so that it can be taken back even if the call is given up before the peer has answered.
    let mut giving = tokio::spawn(async move {
        let task = Delegate {
            task: &args.task,
            context: args.context.as_deref(),
            priority: args.urgent.then_some("urgent"),
            report_back: None,
            deadline_ms: None,
        };
        let options = SendOptions { hold_secs: args.hold_secs, ..SendOptions::default() };
        let sent = own.client.delegate_with(&args.peer, &task, options).await;
        (own, sent)
    });
    let given = tokio::select! {
        given = &mut giving => given,
        () = cx.ct.cancelled() => {
            let gone = cx.peer.is_transport_closed();
            tokio::spawn(async move {
                if let (Ok((own, Ok(sent))), false) = (giving.await, gone) {
                    take_back(&own, &sent.msg_id).await;
                }
            });
            return Err(Fault::usage("cancelled: it is taken back"));
        }
    };
    let (own, sent) = given.map_err(|_| Fault::usage("internal_error: the call has failed; try again"))?;
    let sent = sent?;
    let id = sent.msg_id.clone();
    if !sent.is_held() {
        let answer = sent.into_answer()?;
        if let Some(why) = answer.refusal() {
            let peers = own.client.peers().await.unwrap_or_default();
            return Err(Fault(format!("declined:\n{}", author(&peers, &answer.from).quote(&why))));
        }
    }
    let Some(span) = span else {
        let row = delegation(hub, &id).await?;
        return Ok(told(hub, &row).await);
    };
    tokio::select! {
        done = until_ended(hub, &id, span, changes, cx) => done,
        () = cx.ct.cancelled() => {
            // A client that has gone has not taken its work back.
            if !cx.peer.is_transport_closed() {
                take_back(&own, &id).await;
            }
            settle_result(hub, &id).await;
            Err(Fault(format!("cancelled: {id} was taken back")))
        }
    }
}

/// Takes back what its caller no longer wants. One that has ended meanwhile is no fault.
async fn take_back(own: &Own, id: &str) {
    own.client.cancel(id, Some("given up by its sender")).await.ok();
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitArgs {
    id: Option<String>,
    secs: Option<u64>,
}

async fn wait(hub: &Hub, args: WaitArgs, cx: &RequestContext<RoleServer>) -> Outcome {
    let (changes, span) = (hub.changes(), secs(args.secs, WAIT_SECS));
    match args.id {
        Some(id) => {
            let row = delegation(hub, &id).await?;
            until_ended(hub, &row.id, span, changes, cx).await
        }
        None => next(hub, span, changes).await,
    }
}

type Changes = tokio::sync::broadcast::Receiver<Change>;

/// Waits for a delegation's end, and tells its progress meanwhile.
async fn until_ended(
    hub: &Hub,
    id: &str,
    span: Duration,
    mut changes: Changes,
    cx: &RequestContext<RoleServer>,
) -> Outcome {
    let _awaited = hub.wait_for(id);
    let until = Instant::now() + span;
    let mut progress = Progress::of(cx);
    loop {
        let row = delegation(hub, id).await?;
        if row.state.is_ended() {
            settle_result(hub, id).await;
            return Ok(told(hub, &row).await);
        }
        progress.tell(&row).await;
        loop {
            match timeout_at(until, changes.recv()).await {
                Ok(Ok(Change::Delegation(changed))) if changed.id == id => break,
                Ok(Ok(Change::Missed) | Err(RecvError::Lagged(_))) => break,
                Ok(Ok(_)) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => return Ok(told(hub, &row).await),
            }
        }
    }
}

/// What a call was given the inbox need not show as well.
async fn settle_result(hub: &Hub, id: &str) {
    hub.give(id);
    let Ok(rows) = hub.rows().await else { return };
    let of_it = |message: &Message| {
        message.reference.as_deref() == Some(id) && matches!(message.kind.as_str(), "result" | "progress")
    };
    let seqs: Vec<u64> = rows.messages.iter().filter(|row| of_it(&row.envelope)).map(|row| row.seq).collect();
    hub.desk(|desk| seqs.into_iter().for_each(|seq| desk.settle(seq)));
    // When it fails, the model is shown the row once more.
    hub.advance().await.ok();
}

/// The delegation that we gave away with this id, or the only one that begins so.
async fn delegation(hub: &Hub, id: &str) -> Result<Delegation, Fault> {
    let client = hub.client().await?;
    let whole = id.len() == 36;
    let filter = DelegationFilter {
        direction: Some(Direction::Out),
        id: whole.then(|| id.to_owned()),
        limit: (!whole).then_some(1000),
        ..DelegationFilter::default()
    };
    let mut rows = client.delegations(&filter).await?.delegations;
    rows.retain(|row| row.id.starts_with(id));
    match (rows.pop(), rows.is_empty()) {
        (Some(row), true) => Ok(row),
        (Some(_), false) => Err(Fault(format!("{id} could be several delegations: give the whole id"))),
        (None, _) => Err(Fault(format!("not_found: no delegation {id}; status lists those that are open"))),
    }
}

/// A delegation, for the model.
async fn told(hub: &Hub, row: &Delegation) -> Done {
    let peers = match hub.client().await {
        Ok(client) => client.peers().await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let author = author(&peers, &row.peer);
    let mut fields = Map::new();
    let mut text = format!("{} {}", row.state, short(&row.id));
    if let Some((said, data)) = outcome(row) {
        let mut whole = said.clone();
        if let Some(data) = &data {
            whole = format!("{whole}\ndata: {data}");
        }
        text = format!("{text}\n{}", author.quote(&whole));
        fields = said_by(&author, &said);
        if let Some(data) = data {
            fields.insert("data".to_owned(), data);
        }
    } else if let Some(reason) = &row.reason {
        text = format!("{text}: {}", words::harmless(reason));
        fields.insert("reason".to_owned(), reason.as_str().into());
    } else if !row.state.is_ended() {
        text = format!("{text}; its result comes later");
    }
    fields.insert("id".to_owned(), row.id.as_str().into());
    fields.insert("state".to_owned(), row.state.as_str().into());
    Done { text, fields: fields.into() }
}

/// Progress notifications, for clients that asked for them.
struct Progress<'a> {
    to: Option<(&'a Session<RoleServer>, ProgressToken)>,
    last: f64,
    told: Option<String>,
}

impl<'a> Progress<'a> {
    fn of(cx: &'a RequestContext<RoleServer>) -> Self {
        Self { to: cx.meta.get_progress_token().map(|token| (&cx.peer, token)), last: 0.0, told: None }
    }

    async fn tell(&mut self, row: &Delegation) {
        let Some((peer, token)) = &self.to else { return };
        let said: Map<String, Value> =
            row.progress.as_ref().and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let percent = said.get("percent").and_then(Value::as_f64);
        let note = said.get("note").and_then(Value::as_str).map(words::harmless);
        let message = note.map_or_else(|| row.state.to_string(), |note| format!("{}: {note}", row.state));
        let whole = format!("{message} {percent:?}");
        if self.told.as_ref() == Some(&whole) {
            return;
        }
        self.told = Some(whole);
        // It has to rise, whatever the peer says; without a percentage it only counts.
        let progress = percent.filter(|percent| *percent > self.last).unwrap_or(self.last + 0.01);
        self.last = progress;
        let mut param = ProgressNotificationParam::new(token.clone(), progress);
        param.total = percent.map(|_| 100.0);
        param.message = Some(message);
        peer.notify_progress(param).await.ok();
    }
}

// ---- What came ----

/// Waits for something that the model has not been shown.
async fn next(hub: &Hub, span: Duration, mut changes: Changes) -> Outcome {
    let _present = hub.be_present().await;
    let until = Instant::now() + span;
    loop {
        let page = hub.rows().await?;
        let fresh: Vec<Arrival> = hub.desk(|desk| {
            let unread = desk.unread(&page.messages, hub.floor());
            let fresh = unread.into_iter().filter(|row| !desk.has_shown(row.seq)).take(ROWS.0);
            fresh.map(Arrival::of_row).collect()
        });
        let (requests, hidden) = hub.requests(hub.floor());
        let requests: Vec<Request> = requests.into_iter().filter(|one| !one.shown).take(ROWS.0).collect();
        if !fresh.is_empty() || !requests.is_empty() {
            return Ok(shown(hub, &requests, &fresh, BRIEF_CHARS).await);
        }
        loop {
            match timeout_at(until, changes.recv()).await {
                Ok(Ok(Change::Arrived(_) | Change::Missed) | Err(RecvError::Lagged(_))) => break,
                Ok(Ok(_)) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => {
                    let unknown = hidden + unread_below(hub, &page.messages);
                    let fields = json!({"state": "nothing", "unknown": unknown});
                    return Ok(Done { text: format!("nothing came{}", strangers(unknown)), fields });
                }
            }
        }
    }
}

/// How many unread rows there are of peers below the floor.
fn unread_below(hub: &Hub, rows: &[axon_client::Kept]) -> usize {
    hub.desk(|desk| desk.unread(rows, &Trust::Unknown).len() - desk.unread(rows, hub.floor()).len())
}

fn strangers(unknown: usize) -> String {
    match unknown {
        0 => String::new(),
        n => format!("; {n} from unknown peers not shown"),
    }
}

/// Shows these to the model, and remembers that it was.
async fn shown(hub: &Hub, requests: &[Request], rows: &[Arrival], chars: usize) -> Done {
    let mut lines = Vec::new();
    let mut fields = json!({"requests": [], "messages": []});
    for request in requests {
        hub.show_request(&request.arrival.id).await;
        let one = &request.arrival;
        let left = request.deadline.map(|at| at.saturating_duration_since(Instant::now()).as_secs());
        let tool = if one.kind == "query" { "reply" } else { "result" };
        let left_text = left.map(|secs| format!(", {secs} s left")).unwrap_or_default();
        let (text, cut) = brief(&one.text, chars);
        lines.push(format!("{} {} ({tool}{left_text})", one.kind, short(&one.id)));
        lines.push(format!("{}{}", one.author.quote(text), cut_off(cut, &one.id)));
        let mut row = said_by(&one.author, text);
        row.insert("id".to_owned(), one.id.as_str().into());
        row.insert("kind".to_owned(), one.kind.as_str().into());
        if let Some(secs) = left {
            row.insert("secs_left".to_owned(), secs.into());
        }
        push(&mut fields, "requests", row);
    }
    for one in rows {
        let (text, cut) = brief(&one.text, chars);
        let about = one.reference.as_ref().map(|id| format!(" on {}", short(id))).unwrap_or_default();
        let seq = one.seq.unwrap_or_default();
        hub.desk(|desk| desk.show(seq));
        lines.push(format!("#{seq} {}{about}", words::harmless(&one.kind)));
        lines.push(format!("{}{}", one.author.quote(text), cut_off(cut, &one.id)));
        let mut row = said_by(&one.author, text);
        row.insert("seq".to_owned(), seq.into());
        row.insert("id".to_owned(), one.id.as_str().into());
        row.insert("kind".to_owned(), one.kind.as_str().into());
        if let Some(id) = &one.reference {
            row.insert("ref".to_owned(), id.as_str().into());
        }
        push(&mut fields, "messages", row);
    }
    Done { text: lines.join("\n"), fields }
}

fn push(fields: &mut Value, list: &str, row: Map<String, Value>) {
    if let Some(list) = fields.get_mut(list).and_then(Value::as_array_mut) {
        list.push(row.into());
    }
}

fn cut_off(cut: bool, id: &str) -> String {
    if cut { format!("\n(cut: inbox with id {} shows all of it)", short(id)) } else { String::new() }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InboxArgs {
    ack: Option<u64>,
    limit: Option<usize>,
    id: Option<String>,
    #[serde(default)]
    unknown: bool,
}

async fn inbox(hub: &Hub, args: InboxArgs) -> Outcome {
    let _present = hub.be_present().await;
    let floor = if args.unknown { Trust::Unknown } else { hub.floor().clone() };
    let mut acked = None;
    let mut unshown = 0;
    if let Some(up_to) = args.ack {
        let before = hub.rows().await?;
        let done = hub.desk(|desk| desk.ack(&before.messages, up_to));
        if let Some(seq) = done.cursor {
            hub.client().await?.ack(seq).await?;
        }
        (acked, unshown) = (Some(up_to), done.unshown);
    }
    let page = hub.rows().await?;
    if let Some(id) = args.id {
        return one(hub, &page.messages, &id).await;
    }
    let limit = args.limit.unwrap_or(ROWS.0).clamp(1, ROWS.1);
    let (rows, more) = hub.desk(|desk| {
        let unread = desk.unread(&page.messages, &floor);
        let rows: Vec<Arrival> = unread.iter().take(limit).map(|row| Arrival::of_row(row)).collect();
        (rows, unread.len() > limit || page.has_more)
    });
    let (requests, hidden) = hub.requests(&floor);
    let requests: Vec<Request> = requests.into_iter().take(limit).collect();
    let unknown = if args.unknown { 0 } else { hidden + unread_below(hub, &page.messages) };
    let mut done = shown(hub, &requests, &rows, BRIEF_CHARS).await;
    if done.text.is_empty() {
        done.text = "nothing new".to_owned();
    }
    if more {
        done.text.push_str("\nthere is more");
    }
    done.text.push_str(&strangers(unknown));
    done.fields["unknown"] = unknown.into();
    done.fields["more"] = more.into();
    if let Some(seq) = acked {
        done.fields["acked"] = seq.into();
    }
    if unshown > 0 {
        let note = format!("\n{unshown} up to {} were not shown to you and stay unread", acked.unwrap_or(0));
        done.text.push_str(&note);
    }
    if let Some(seq) = page.lost_before_seq {
        let note = format!("\nsome before #{seq} were lost: the inbox was full or they were too old");
        done.text.push_str(&note);
        done.fields["lost_before_seq"] = seq.into();
        // With nothing left of it to acknowledge, what was lost is settled by its own number.
        if page.messages.first().is_none_or(|row| row.seq >= seq) {
            hub.client().await?.ack(seq.saturating_sub(1)).await.ok();
        }
    }
    Ok(done)
}

/// One message or request, all of it.
async fn one(hub: &Hub, rows: &[axon_client::Kept], id: &str) -> Outcome {
    if let Some(request) = hub.request(id) {
        return Ok(with_counts(shown(hub, &[request], &[], usize::MAX).await));
    }
    let mut fitting = rows.iter().filter(|row| row.envelope.id.starts_with(id));
    match (fitting.next(), fitting.next()) {
        (Some(row), None) => Ok(with_counts(shown(hub, &[], &[Arrival::of_row(row)], usize::MAX).await)),
        (Some(_), Some(_)) => Err(Fault(format!("{id} could be several messages: give the whole id"))),
        (None, _) => Err(Fault(format!("not_found: no open request and no unread message {id}"))),
    }
}

fn with_counts(mut done: Done) -> Done {
    done.fields["unknown"] = 0.into();
    done.fields["more"] = false.into();
    done
}

// ---- Answering ----

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyArgs {
    id: String,
    text: String,
    data: Option<Value>,
    #[serde(default)]
    decline: bool,
}

async fn reply(hub: &Hub, args: ReplyArgs) -> Outcome {
    let request = open(hub, &args.id)?;
    let (id, client) = (request.arrival.id.as_str(), hub.client().await?);
    let sent = match (request.arrival.kind.as_str(), args.decline) {
        ("delegate", true) => {
            let refused = json!({"status": "failed", "outcome": args.text, "error": "declined"});
            client.report(id, &refused, None).await?;
            "declined"
        }
        ("delegate", false) => {
            if args.data.is_some() {
                return Err(Fault::usage("progress takes no data: put it into the result"));
            }
            client.reply(id, "progress", &json!({"state": "running", "note": args.text})).await?;
            "progress"
        }
        (_, true) => {
            let refused = json!({"code": "not_authorized", "message": args.text, "retryable": false});
            client.reply(id, "error", &refused).await?;
            "declined"
        }
        (_, false) => {
            let answer = json!({"data": args.data, "summary": args.text});
            client.reply(id, "response", &answer).await?;
            "answer"
        }
    };
    if sent != "progress" {
        hub.close_request(id);
    }
    Ok(Done { text: format!("{sent} sent"), fields: json!({"id": id, "sent": sent}) })
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Completed,
    Partial,
    Failed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResultArgs {
    id: String,
    text: String,
    status: Option<Status>,
    data: Option<Value>,
}

async fn result(hub: &Hub, args: ResultArgs) -> Outcome {
    let request = open(hub, &args.id)?;
    let id = request.arrival.id.as_str();
    if request.arrival.kind != "delegate" {
        return Err(Fault(format!("{} is a query: answer it with reply", args.id)));
    }
    let status = match args.status {
        None | Some(Status::Completed) => "completed",
        Some(Status::Partial) => "partial",
        Some(Status::Failed) => "failed",
    };
    let mut payload = json!({"status": status, "outcome": args.text});
    if let Some(data) = args.data {
        payload["data"] = data;
    }
    let reported = hub.client().await?.report(id, &payload, None).await?;
    hub.close_request(id);
    let state = reported.state.map(|state| state.as_str().to_owned());
    let text = match state.as_deref() {
        Some("held") => "held until the peer can be reached".to_owned(),
        Some(state) => state.to_owned(),
        None => "done; its sender wanted no result".to_owned(),
    };
    let mut fields = json!({"id": id});
    if let Some(state) = state {
        fields["state"] = state.into();
    }
    Ok(Done { text, fields })
}

fn open(hub: &Hub, id: &str) -> Result<Request, Fault> {
    hub.request(id).ok_or_else(|| {
        Fault(format!(
            "not_found: no open request {id}; it was answered, taken back or too late (inbox lists open ones)"
        ))
    })
}

// ---- Oneself ----

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdvertiseArgs {
    name: Option<String>,
    domains: Option<Vec<String>>,
    tools: Option<Vec<String>>,
}

async fn advertise(hub: &Hub, args: AdvertiseArgs) -> Outcome {
    let mut capabilities = Map::new();
    if let Some(name) = args.name {
        capabilities.insert("agent_name".to_owned(), name.into());
    }
    for (key, list) in [("domains", args.domains), ("tools", args.tools)] {
        if let Some(list) = list {
            capabilities.insert(key.to_owned(), list.into());
        }
    }
    let text = if capabilities.is_empty() { "taken back" } else { "peers are told when they ask" };
    hub.client().await?.advertise_persistent(&capabilities).await?;
    Ok(Done { text: text.to_owned(), fields: json!({"advertised": !capabilities.is_empty()}) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn status(hub: &Hub, _: Nothing) -> Outcome {
    let client = hub.client().await?;
    let (me, counts) = (client.whoami().await?, client.status().await?);
    let open = open_delegations(hub).await?;
    let (requests, hidden) = hub.requests(hub.floor());
    let page = hub.rows().await;
    let unknown = hidden + page.as_ref().map_or(0, |page| unread_below(hub, &page.messages));
    let unread = page.map_or(0, |page| hub.desk(|desk| desk.unread(&page.messages, hub.floor()).len()));
    let mut lines = vec![format!(
        "{} {}; {} peers connected; {} requests and {unread} messages in the inbox{}",
        me.name.as_deref().unwrap_or("no name"),
        short(&me.agent_id),
        counts.peers_connected,
        requests.len(),
        strangers(unknown),
    )];
    if counts.paused {
        lines.push("paused by its owner: nothing of peers comes in".to_owned());
    }
    for row in &open {
        let way = if row.direction == Direction::Out { "given to" } else { "taken from" };
        let (task, _) = brief(row.task.as_deref().unwrap_or_default(), 80);
        let line = format!("{} {way} {}: {} {}", short(&row.id), short(&row.peer), row.state, plain(task));
        lines.push(line);
    }
    let rows: Vec<Value> = open.iter().map(delegation_row).collect();
    let mut fields = json!({
        "agent_id": me.agent_id, "peers_connected": counts.peers_connected, "paused": counts.paused,
        "requests": requests.len(), "unknown": unknown, "delegations": rows,
    });
    if let Some(name) = me.name {
        fields["name"] = name.into();
    }
    Ok(Done { text: lines.join("\n"), fields })
}

fn plain(text: &str) -> String {
    words::harmless(text).replace('\n', " ")
}

/// Delegations of both directions that have not ended.
async fn open_delegations(hub: &Hub) -> Result<Vec<Delegation>, Fault> {
    let filter = DelegationFilter { limit: Some(1000), ..DelegationFilter::default() };
    let rows = hub.client().await?.delegations(&filter).await?.delegations;
    let open = rows.into_iter().filter(|row| !row.state.is_ended());
    Ok(open.take(usize::try_from(OPEN_MAX).unwrap_or(usize::MAX)).collect())
}

/// A delegation, as programs read it.
pub fn delegation_row(row: &Delegation) -> Value {
    let mut fields = json!({
        "id": row.id, "peer": row.peer, "direction": row.direction.as_str(), "state": row.state.as_str(),
    });
    for (name, value) in [("task", &row.task), ("reason", &row.reason)] {
        if let Some(value) = value {
            fields[name] = value.as_str().into();
        }
    }
    for (name, value) in [("progress", &row.progress), ("result", &row.result)] {
        if let Some(value) = value.as_ref().and_then(|raw| serde_json::from_str(raw.get()).ok()) {
            let value: Value = value;
            fields[name] = value;
        }
    }
    fields
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What the inbox holds for the model, as a resource; nothing of it counts as shown.
pub async fn inbox_text(hub: &Arc<Hub>) -> Result<String, ClientError> {
    let page = hub.rows().await?;
    let unread: Vec<Arrival> =
        hub.desk(|desk| desk.unread(&page.messages, hub.floor()).into_iter().map(Arrival::of_row).collect());
    let (requests, hidden) = hub.requests(hub.floor());
    let unknown = hidden + unread_below(hub, &page.messages);
    let arrivals = requests.into_iter().map(|request| request.arrival).chain(unread);
    let mut lines: Vec<String> = arrivals
        .take(ROWS.1)
        .map(|one| {
            let (text, cut) = brief(&one.text, BRIEF_CHARS);
            let seq = one.seq.map(|seq| format!("#{seq} ")).unwrap_or_default();
            let head = format!("{seq}{} {}", words::harmless(&one.kind), short(&one.id));
            format!("{head}\n{}{}", one.author.quote(text), cut_off(cut, &one.id))
        })
        .collect();
    if lines.is_empty() {
        lines.push("nothing new".to_owned());
    }
    lines.push(format!("{unknown} from unknown peers not shown"));
    Ok(lines.join("\n"))
}
