//! `axon delegations`: work that was given and taken, and how far it is.

use std::collections::HashMap;

use axon_client::{Delegation, DelegationFilter, DelegationState, Delegations, Direction};
use axon_proto::limits::INBOX_LIMIT_MAX;
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE, Out, Paint, printable};
use super::show::{between, head};
use super::{Context, link, show};
use crate::disk::files::unix_ms;

/// List delegations, given and taken, and how far they are.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon delegations --peer bob --state running\n  \
    axon delegations --direction out --json    then: axon wait ID")]
pub struct Args {
    /// Only those with this peer: agent id, a prefix of one, or a name
    #[arg(long)]
    peer: Option<String>,
    /// Only those in this state
    #[arg(
        long,
        value_parser = [
            "held", "sent", "queued", "accepted", "running", "completed", "failed", "partial", "cancelled",
            "refused", "expired",
        ]
    )]
    state: Option<String>,
    /// Only those that were given by us (out) or to us (in)
    #[arg(long, value_parser = ["out", "in"])]
    direction: Option<String>,
    /// At most this many, 1 to 1000 [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: Option<u64>,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        page: &'a Delegations,
    }
    let client = cx.connect(link::CONSUMER).await?;
    let filter = DelegationFilter {
        peer: args.peer,
        state: args.state.as_deref().map(DelegationState::from),
        direction: args.direction.as_deref().map(Direction::from),
        limit: args.limit,
        ..DelegationFilter::default()
    };
    let page = client.delegations(&filter).await.map_err(|error| cx.failure(error))?;
    let names = cx.names(&client).await?;
    cx.out.result(&Line { ok: true, page: &page }, || {
        let now_ms = unix_ms();
        let mut lines: Vec<String> =
            page.delegations.iter().map(|row| entry(cx, &names, row, now_ms)).collect();
        if lines.is_empty() {
            lines.push("no delegations".to_owned());
        }
        if page.has_more {
            lines.push(format!("there are more: --limit shows up to {INBOX_LIMIT_MAX}"));
        }
        lines.join("\n")
    })?;
    Ok(EXIT_DONE)
}

/// A line with how far it is, and below it what is to be done and what came of it.
fn entry(cx: &Context, names: &HashMap<String, String>, row: &Delegation, now_ms: u64) -> String {
    let paint = match row.state {
        DelegationState::Completed => Paint::Good,
        DelegationState::Failed
        | DelegationState::Cancelled
        | DelegationState::Refused
        | DelegationState::Expired => Paint::Bad,
        _ => Paint::Warn,
    };
    let mut text = format!(
        "{} {} {:<4} {:<16} {} ago",
        cx.out.paint(Paint::Bold, show::short_id(&row.id)),
        cx.out.paint(paint, &format!("{:<9}", printable(row.state.as_str()))),
        if row.direction == Direction::In { "from" } else { "to" },
        show::who(names, &row.peer),
        between(row.since_ms, now_ms),
    );
    if !row.state.is_ended() {
        match row.deadline_ms {
            Some(due_ms) if due_ms > now_ms => {
                text.push_str(&format!(", due in {}", between(due_ms, now_ms)))
            }
            Some(_) => text.push_str(", due now"),
            None => {}
        }
        if let Some(progress) = show::progress(row) {
            text.push_str(&format!(", {progress}"));
        }
    }
    if let Some(task) = &row.task {
        text.push_str(&format!("\n  {}", head(task)));
    }
    if let Some(result) = &row.result {
        // Cut before it is printed, so without colours.
        let plain = Out { color: false, ..cx.out };
        text.push_str(&format!("\n  {}", head(&show::said(&plain, "result", result))));
    } else if let Some(reason) = &row.reason {
        text.push_str(&format!("\n  {}", head(reason)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Root;

    #[test]
    fn entries_say_what_came_of_it() {
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let cx = Context::at(out, Root::at("/r"));
        let bob = "ed25519.00112233445566778899aabbccddeeff";
        let entry = |state: &str, more: &str| {
            let row: Delegation = serde_json::from_str(&format!(
                r#"{{"id":"5f2c1e9a-6d0b","peer":"{bob}","direction":"out","task":"Write\nit","priority":"normal",
                    "state":"{state}","since_ms":1000,"deadline_ms":181000{more}}}"#
            ))
            .unwrap();
            super::entry(&cx, &HashMap::new(), &row, 61_000)
        };
        assert_eq!(
            entry("running", r#","progress":{"state":"running","percent":50,"note":"half"}"#),
            "5f2c1e9a running   to   00112233         1 min ago, due in 2 min, 50%, half\n  Write…"
        );
        let done = entry("completed", r#","result":{"status":"completed","outcome":"Done."}"#);
        assert!(done.ends_with("1 min ago\n  Write…\n  completed: Done."), "{done}");
        assert!(entry("refused", r#","reason":"no time""#).ends_with("\n  no time"));
    }
}
