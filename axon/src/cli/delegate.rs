//! `axon delegate`: hands work to a peer, and with `--wait` prints what came of it.

use std::time::{Duration, Instant};

use axon_client::{Client, ClientError, Delegate, Event, Message, Subscription};
use axon_proto::limits::REPLY_GRACE_MS;
use serde::Serialize;
use serde_json::value::RawValue;

use super::output::{CliError, CliResult, EXIT_DONE};
use super::{Context, link, show};

/// The cursor of those who wait is never moved, so that they can share one.
const WAIT_CONSUMER: &str = "wait";
const EXIT_TIMEOUT: u8 = 3;
const EXIT_FAILED: u8 = 4;

/// Hand work to a peer; its agent acks now and sends the result later.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon delegate --wait --deadline 600 bob \"Write the minutes\"")]
pub struct Args {
    /// What it helps to know, as JSON
    #[arg(long, value_name = "JSON", value_parser = link::json)]
    context: Option<Box<RawValue>>,
    /// How soon it is wanted
    #[arg(long, value_parser = ["normal", "urgent"])]
    priority: Option<String>,
    /// How long the work may take
    #[arg(long, value_name = "SECS", value_parser = link::seconds)]
    deadline: Option<Duration>,
    /// Wait for the result and print it too
    #[arg(long)]
    wait: bool,
    /// Agent id, a prefix of one, or a name
    peer: String,
    /// What is to be done; - reads stdin
    task: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let task = link::text_or_stdin(args.task)?;
    let client = cx.connect(if args.wait { WAIT_CONSUMER } else { link::CONSUMER }).await?;
    if args.wait {
        // Before it is sent, so that no result is too fast to be seen.
        listen(&client, false).await.map_err(|error| cx.failure(error))?;
    }
    let delegate = Delegate {
        task: &task,
        context: args.context.as_deref(),
        priority: args.priority.as_deref(),
        report_back: None,
        deadline_ms: args.deadline.map(link::millis),
    };
    let began = Instant::now();
    let sent = client.delegate(&args.peer, &delegate).await.map_err(|error| cx.failure(error))?;
    let id = sent.msg_id.clone();
    let exit = cx.answered(sent)?;
    if exit != EXIT_DONE || !args.wait {
        return Ok(exit);
    }
    let result = match args.deadline {
        None => result_of(cx, &client, &id).await,
        Some(deadline) => {
            // The peer's own word on the deadline is given time to arrive.
            let left = deadline.saturating_sub(began.elapsed()) + Duration::from_millis(REPLY_GRACE_MS);
            match tokio::time::timeout(left, result_of(cx, &client, &id)).await {
                Ok(result) => result,
                Err(_) => {
                    let message = format!(
                        "no result within {} s: `axon cancel {id}` takes it back",
                        deadline.as_secs_f64()
                    );
                    return Err(CliError::new("timeout", message, EXIT_TIMEOUT));
                }
            }
        }
    };
    let result = result.map_err(|error| cx.failure(error))?;
    let late = args.deadline.is_some_and(|deadline| began.elapsed() >= deadline);
    print(cx, &id, &result, late)
}

async fn listen(client: &Client, replay: bool) -> Result<(), ClientError> {
    let subscription = Subscription {
        kinds: Some(vec!["result".to_owned(), "progress".to_owned()]),
        replay: Some(replay),
        ..Subscription::default()
    };
    client.subscribe(&subscription).await.map(drop)
}

/// The result of the delegation with this id. Progress is told on stderr.
async fn result_of(cx: &Context, client: &Client, id: &str) -> Result<Message, ClientError> {
    loop {
        match client.next_event().await? {
            Event::Inbound(inbound) if inbound.envelope.reference.as_deref() == Some(id) => {
                if inbound.envelope.kind == "result" {
                    return Ok(inbound.envelope);
                }
                if !cx.out.json {
                    cx.out.note(|| show::body(&cx.out, &inbound.envelope).replace('\n', ", "));
                }
            }
            // What was missed is in the inbox still.
            Event::SlowConsumer { .. } => listen(client, true).await?,
            _ => {}
        }
    }
}

fn print(cx: &Context, id: &str, result: &Message, late: bool) -> CliResult {
    #[derive(Serialize)]
    struct Failed<'a> {
        ok: bool,
        error: &'a str,
        message: &'a str,
        id: &'a str,
        from: &'a str,
        kind: &'a str,
        payload: &'a RawValue,
    }
    if result.text("status").as_deref() != Some("failed") {
        return cx.said(id, result);
    }
    let outcome = result.text("outcome").unwrap_or_default();
    let (error, exit) = if late { ("timeout", EXIT_TIMEOUT) } else { ("failed", EXIT_FAILED) };
    let line = Failed {
        ok: false,
        error,
        message: &outcome,
        id,
        from: &result.from,
        kind: &result.kind,
        payload: &result.payload,
    };
    cx.out.result(&line, || show::answer(&cx.out, id, result))?;
    Ok(exit)
}
