//! Giving work away, and waiting for what comes of it.

use std::time::Duration;

use axon_client::{Delegate, Delegation, DelegationFilter, Direction, Message, Peer, SendOptions};
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer as Session, RequestContext, RoleServer};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use super::{Done, Fault, Outcome, WAIT_SECS, came, said_by, secs, unsent};
use crate::bridge::mcp::hub::{Change, Hub, Own};
use crate::bridge::mcp::words::{self, Author, outcome, short};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DelegateArgs {
    peer: String,
    task: String,
    context: Option<Box<RawValue>>,
    #[serde(default)]
    urgent: bool,
    hold_secs: Option<u64>,
    secs: Option<u64>,
}

pub(super) async fn delegate(hub: &Hub, args: DelegateArgs, cx: &RequestContext<RoleServer>) -> Outcome {
    let own = hub.own().await?;
    let held = args.hold_secs.is_some();
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
    let sent = sent.map_err(|error| unsent(error, held))?;
    let id = sent.msg_id.clone();
    if !sent.is_held() {
        let answer = sent.into_answer()?;
        if let Some(why) = answer.refusal() {
            let peers = own.client.peers().await.unwrap_or_default();
            return Err(Fault::usage(format!(
                "declined:\n{}",
                Author::among(&peers, &answer.from).quote(&why)
            )));
        }
    }
    let Some(span) = span else {
        let row = delegation(hub, &id).await?;
        return Ok(told(hub, &row).await);
    };
    tokio::select! {
        done = until_ended(hub, &id, span, changes, cx) => done,
        () = cx.ct.cancelled() => {
            // A client that has gone has not taken its work back, and the next one is to see what came of it.
            if cx.peer.is_transport_closed() {
                return Err(Fault::Said(format!("{id} goes on: wait tells its result")));
            }
            take_back(&own, &id).await;
            settle_result(hub, &id).await;
            Err(Fault::usage(format!("cancelled: {id} was taken back")))
        }
    }
}

/// Takes back what its caller no longer wants. One that has ended meanwhile is no fault.
async fn take_back(own: &Own, id: &str) {
    own.client.cancel(id, Some("given up by its sender")).await.ok();
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitArgs {
    id: Option<String>,
    secs: Option<u64>,
}

pub(super) async fn wait(hub: &Hub, args: WaitArgs, cx: &RequestContext<RoleServer>) -> Outcome {
    let (changes, span) = (hub.changes(), secs(args.secs, WAIT_SECS));
    match args.id.filter(|id| !id.is_empty()) {
        Some(id) => {
            let row = delegation(hub, &id).await?;
            until_ended(hub, &row.id, span, changes, cx).await
        }
        None => came::next(hub, span, changes).await,
    }
}

pub(super) type Changes = tokio::sync::broadcast::Receiver<Change>;

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
    let mut late = false;
    loop {
        let row = delegation(hub, id).await?;
        if row.state.is_ended() {
            settle_result(hub, id).await;
            return Ok(told(hub, &row).await);
        }
        if late {
            return Ok(told(hub, &row).await);
        }
        progress.tell(&row).await;
        loop {
            match timeout_at(until, changes.recv()).await {
                Ok(Ok(Change::Delegation(changed))) if changed.id == id => break,
                Ok(Ok(Change::Missed) | Err(RecvError::Lagged(_))) => break,
                Ok(Ok(_)) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => {
                    late = true;
                    break;
                }
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
        (Some(_), false) => {
            Err(Fault::usage(format!("{id} could be several delegations: give the whole id")))
        }
        (None, _) => {
            Err(Fault::usage(format!("not_found: no delegation {id}; status lists those that are open")))
        }
    }
}

/// A delegation, for the model.
pub(super) async fn told(hub: &Hub, row: &Delegation) -> Done {
    let peers = match hub.client().await {
        Ok(client) => client.peers().await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let author = Author::among(&peers, &row.peer);
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
        // Why it is refused the peer may have said, and nothing tells which words are its own.
        text = match row.state.as_str() {
            "refused" => format!("{text}\n{}", author.quote(reason)),
            _ => format!("{text}: {}", words::harmless(reason)),
        };
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

/// Whether a delegation is work that a peer below the floor has brought, whose words nobody has asked for.
pub fn is_below(hub: &Hub, row: &Delegation, peers: &[Peer]) -> bool {
    row.direction == Direction::In
        && !words::reaches(Author::among(peers, &row.peer).trust.as_ref(), hub.floor())
}

/// The beginning of a delegation's task, on one line: that of a peer as the peer's.
pub fn task_line(row: &Delegation, peers: &[Peer], chars: usize) -> String {
    let (task, _) = words::brief(row.task.as_deref().unwrap_or_default(), chars);
    let line = match row.direction {
        Direction::In => Author::among(peers, &row.peer).quote(task),
        _ => words::harmless(task),
    };
    line.replace('\n', " ")
}

/// A delegation, as programs read it.
pub fn delegation_row(row: &Delegation, peers: &[Peer]) -> Value {
    let author = Author::among(peers, &row.peer);
    let mut fields = json!({
        "id": row.id, "peer": row.peer, "from": author.label(), "trust": author.level(),
        "direction": row.direction.as_str(), "state": row.state.as_str(),
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
