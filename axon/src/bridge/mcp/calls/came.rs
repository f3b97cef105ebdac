//! What came: requests and messages, shown to the model, and answered.

use std::sync::Arc;
use std::time::Duration;

use axon_client::{ClientError, Kept, Trust};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use super::work::Changes;
use super::{Done, Fault, Outcome, ROWS, said_by};
use crate::bridge::mcp::hub::{Arrival, Change, Hub, Request};
use crate::bridge::mcp::words::{self, BRIEF_CHARS, brief, short};

/// Waits for something that the model has not been shown.
pub(super) async fn next(hub: &Hub, span: Duration, mut changes: Changes) -> Outcome {
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
                    let mut text = format!("nothing came{}", strangers(hub, unknown));
                    if page.has_more {
                        text.push_str("; more waits behind what you were shown: acknowledge that (inbox)");
                    }
                    return Ok(Done { text, fields });
                }
            }
        }
    }
}

/// How many unread rows there are of peers below the floor.
pub(super) fn unread_below(hub: &Hub, rows: &[Kept]) -> usize {
    hub.desk(|desk| desk.unread(rows, &Trust::Unknown).len() - desk.unread(rows, hub.floor()).len())
}

pub(super) fn strangers(hub: &Hub, unknown: usize) -> String {
    let mut text = match unknown {
        0 => String::new(),
        n => format!("; {n} from unknown peers not shown"),
    };
    let passed = hub.desk(|desk| desk.passed());
    if passed > 0 {
        text.push_str(&format!("; {passed} older passed over, which your owner's `axon inbox` may show"));
    }
    text
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
        // The ledger does not say who took it.
        let before = if request.handed { "" } else { ", taken before this session: perhaps not by you" };
        lines.push(format!("{} {} ({tool}{left_text}{before})", one.kind, short(&one.id)));
        lines.push(format!("{}{}", one.author.quote(text), cut_off(cut, &one.id)));
        let mut row = said_by(&one.author, text);
        if cut {
            row.insert("cut".to_owned(), true.into());
        }
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
        lines.push(format!("#{seq} {}{about}", words::kind(&one.kind)));
        lines.push(format!("{}{}", one.author.quote(text), cut_off(cut, &one.id)));
        let mut row = said_by(&one.author, text);
        if cut {
            row.insert("cut".to_owned(), true.into());
        }
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
pub(super) struct InboxArgs {
    ack: Option<u64>,
    limit: Option<usize>,
    id: Option<String>,
    #[serde(default)]
    unknown: bool,
}

pub(super) async fn inbox(hub: &Hub, args: InboxArgs) -> Outcome {
    let _present = hub.be_present().await;
    let floor = if args.unknown { Trust::Unknown } else { hub.floor().clone() };
    let mut acked = None;
    let mut unshown = 0;
    if let Some(up_to) = args.ack {
        let before = hub.rows_from(&floor).await?;
        let done = hub.desk(|desk| desk.ack(&before.messages, up_to));
        if let Some(seq) = done.cursor {
            hub.client().await?.ack(seq).await?;
        }
        (acked, unshown) = (Some(up_to), done.unshown);
    }
    let page = hub.rows_from(&floor).await?;
    if let Some(id) = args.id.filter(|id| !id.is_empty()) {
        return one(hub, &page.messages, &id).await;
    }
    let limit = args.limit.unwrap_or(ROWS.0).clamp(1, ROWS.1);
    let (rows, more) = hub.desk(|desk| {
        let unread = desk.unread(&page.messages, &floor);
        let rows: Vec<Arrival> = unread.iter().take(limit).map(|row| Arrival::of_row(row)).collect();
        (rows, unread.len() > limit || page.has_more)
    });
    let (requests, hidden) = hub.requests(&floor);
    let more = more || requests.len() > limit;
    let requests: Vec<Request> = requests.into_iter().take(limit).collect();
    let unknown = if args.unknown { 0 } else { hidden + unread_below(hub, &page.messages) };
    let mut done = shown(hub, &requests, &rows, BRIEF_CHARS).await;
    if done.text.is_empty() {
        done.text = "nothing new".to_owned();
    }
    if more {
        done.text.push_str("\nthere is more: ack and answer what you are done with, or raise limit");
    }
    done.text.push_str(&strangers(hub, unknown));
    done.fields["unknown"] = unknown.into();
    done.fields["more"] = more.into();
    if let Some(seq) = acked {
        done.fields["acked"] = seq.into();
    }
    if unshown > 0 {
        let note = format!("\n{unshown} up to {} were not shown to you and stay unread", acked.unwrap_or(0));
        done.text.push_str(&note);
        done.fields["not_shown"] = unshown.into();
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
async fn one(hub: &Hub, rows: &[Kept], id: &str) -> Outcome {
    if let Some(request) = hub.request(id) {
        return Ok(with_counts(shown(hub, &[request], &[], usize::MAX).await));
    }
    let mut fitting = rows.iter().filter(|row| row.envelope.id.starts_with(id));
    match (fitting.next(), fitting.next()) {
        (Some(row), None) => Ok(with_counts(shown(hub, &[], &[Arrival::of_row(row)], usize::MAX).await)),
        (Some(_), Some(_)) => Err(Fault::usage(format!("{id} could be several messages: give the whole id"))),
        (None, _) => Err(Fault::usage(format!("not_found: no open request and no unread message {id}"))),
    }
}

fn with_counts(mut done: Done) -> Done {
    done.fields["unknown"] = 0.into();
    done.fields["more"] = false.into();
    done
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplyArgs {
    id: String,
    text: String,
    data: Option<Value>,
    #[serde(default)]
    decline: bool,
}

pub(super) async fn reply(hub: &Hub, args: ReplyArgs) -> Outcome {
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
pub(super) struct ResultArgs {
    id: String,
    text: String,
    status: Option<Status>,
    data: Option<Value>,
}

pub(super) async fn result(hub: &Hub, args: ResultArgs) -> Outcome {
    let request = open(hub, &args.id)?;
    let id = request.arrival.id.as_str();
    if request.arrival.kind != "delegate" {
        return Err(Fault::usage(format!("{} is a query: answer it with reply", args.id)));
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
        Fault::usage(format!(
            "not_found: no open request {id}; it was answered, taken back or too late (inbox lists open ones)"
        ))
    })
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
            let head = format!("{seq}{} {}", words::kind(&one.kind), short(&one.id));
            format!("{head}\n{}{}", one.author.quote(text), cut_off(cut, &one.id))
        })
        .collect();
    if lines.is_empty() {
        lines.push("nothing new".to_owned());
    }
    lines.push(format!("{unknown} from unknown peers not shown"));
    Ok(lines.join("\n"))
}
