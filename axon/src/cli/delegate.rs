//! `axon delegate`: hands work to a peer, and with `--wait` prints what came of it.

use std::time::{Duration, Instant};

use axon_client::{Delegate, DelegationState, SendOptions, Sent};
use axon_proto::limits::REPLY_GRACE_MS;
use serde_json::value::RawValue;

use super::output::{CliError, CliResult, EXIT_DONE};
use super::{Context, link, wait};

/// Hand work to a peer; its agent acks now and sends the result later.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon delegate --wait --deadline 600 bob \"Write the minutes\"\n  \
    axon delegate --hold 1d bob \"Write the minutes\"    then: axon wait ID")]
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
    /// If the peer cannot be reached now, keep it so long and deliver it when it can: 90s, 15m, 1h, 2d
    #[arg(long, value_name = "TIME", value_parser = link::hold)]
    hold: Option<Duration>,
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
    let client = cx.connect(link::CONSUMER).await?;
    let delegate = Delegate {
        task: &task,
        context: args.context.as_deref(),
        priority: args.priority.as_deref(),
        report_back: None,
        deadline_ms: args.deadline.map(link::millis),
    };
    let options = args.hold.map(SendOptions::hold).unwrap_or_default();
    let began = Instant::now();
    let sent = client.delegate_with(&args.peer, &delegate, options).await;
    let sent = sent.map_err(|error| cx.failure(error))?;
    let id = sent.msg_id.clone();
    let told = Some(state_of(&sent).as_str().to_owned());
    let exit = match args.hold {
        Some(hold) if sent.is_held() => cx.held(&sent, &args.peer, hold)?,
        _ => cx.answered(sent)?,
    };
    if exit != EXIT_DONE || !args.wait {
        return Ok(exit);
    }
    let ended = match args.deadline {
        None => wait::ended(cx, client, &id, told).await?,
        Some(deadline) => {
            // The peer's own word on the deadline is given time to arrive.
            let left = deadline.saturating_sub(began.elapsed()) + Duration::from_millis(REPLY_GRACE_MS);
            match tokio::time::timeout(left, wait::ended(cx, client, &id, told)).await {
                Ok(ended) => ended?,
                Err(_) => {
                    let message = format!(
                        "no result within {} s: `axon{} cancel {id}` takes it back",
                        deadline.as_secs_f64(),
                        cx.flags
                    );
                    return Err(CliError::new("timeout", message, wait::EXIT_TIMEOUT));
                }
            }
        }
    };
    let late = args.deadline.is_some_and(|deadline| began.elapsed() >= deadline);
    wait::print(cx, &ended, late)
}

/// What the answer says of the delegation; it is printed, and not repeated while waiting.
fn state_of(sent: &Sent) -> DelegationState {
    match sent.response.as_ref().map(|answer| answer.text("state")) {
        None => DelegationState::Held,
        Some(Some(state)) if state == "queued" => DelegationState::Queued,
        Some(_) => DelegationState::Accepted,
    }
}
