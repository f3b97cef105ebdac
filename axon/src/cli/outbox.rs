//! `axon outbox`: how far the messages have come that are held, or whose reading was asked for.

use std::collections::HashMap;

use axon_client::{Client, Outbox, OutboxFilter, Outgoing, SendState};
use axon_proto::limits::INBOX_LIMIT_MAX;
use serde::Serialize;

use super::output::{CliError, CliResult, EXIT_DONE, Paint, printable};
use super::show::{between, plural};
use super::{Context, link, show};
use crate::disk::files::unix_ms;

/// Show how far held messages have come, and take them back.
///
/// held: it waits here for its peer. sent: a peer that gives no receipts was handed it. delivered: the peer's
/// daemon has it on disk. read: an agent acknowledged it. A message stays in the list for an hour after its
/// last change.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon outbox --to bob --state held\n  axon outbox --cancel 5f2c1e9a")]
pub struct Args {
    /// Only messages to this peer: agent id, a prefix of one, or a name
    #[arg(long, value_name = "PEER")]
    to: Option<String>,
    /// Only messages in this state
    #[arg(long, value_parser = ["held", "sent", "delivered", "read", "expired", "refused"])]
    state: Option<String>,
    /// At most this many, 1 to 1000 [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: Option<u64>,
    /// Take back the held message with this id (or its first 4 digits or more), before it has left
    #[arg(
        long,
        value_name = "ID",
        value_parser = link::id_or_prefix,
        conflicts_with_all = ["to", "state", "limit"]
    )]
    cancel: Option<String>,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        outbox: &'a Outbox,
    }
    let client = cx.connect(link::CONSUMER).await?;
    if let Some(text) = args.cancel {
        return cancel(cx, &client, text).await;
    }
    let filter = OutboxFilter {
        id: None,
        to: args.to,
        state: args.state.as_deref().map(SendState::from),
        limit: args.limit,
    };
    let outbox = client.outbox(&filter).await.map_err(|error| cx.failure(error))?;
    let names = cx.names(&client).await?;
    cx.out.result(&Line { ok: true, outbox: &outbox }, || {
        let now_ms = unix_ms();
        let mut lines: Vec<String> =
            outbox.messages.iter().map(|message| row(cx, &names, message, now_ms)).collect();
        if lines.is_empty() {
            lines.push("nothing is held, and nothing was in the last hour".to_owned());
        }
        if outbox.has_more {
            lines.push(format!("there is more: --limit shows up to {INBOX_LIMIT_MAX}"));
        }
        lines.join("\n")
    })?;
    Ok(EXIT_DONE)
}

async fn cancel(cx: &Context, client: &Client, text: String) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        id: &'a str,
        cancelled: bool,
    }
    let id = whole(cx, client, text).await?;
    client.cancel_held(&id).await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, id: &id, cancelled: true }, || format!("taken back {id}"))?;
    Ok(EXIT_DONE)
}

/// The whole id of the message that is named by its beginning.
async fn whole(cx: &Context, client: &Client, text: String) -> Result<String, CliError> {
    if link::is_whole_id(&text) {
        return Ok(text);
    }
    // Held ones first: of the others none can be taken back, and the daemon says so.
    let mut more = false;
    for state in [Some(SendState::Held), None] {
        let filter = OutboxFilter { state, limit: Some(INBOX_LIMIT_MAX), ..OutboxFilter::default() };
        let page = client.outbox(&filter).await.map_err(|error| cx.failure(error))?;
        more |= page.has_more;
        let ids = page.messages.iter().map(|message| message.id.as_str());
        match link::pick(&text, "message", ids, more) {
            Err(error) if error.code == "not_found" => {}
            found => return found,
        }
    }
    link::pick(&text, "message", [], more)
}

fn row(cx: &Context, names: &HashMap<String, String>, message: &Outgoing, now_ms: u64) -> String {
    let paint = match message.state {
        SendState::Delivered | SendState::Read => Paint::Good,
        SendState::Expired | SendState::Refused => Paint::Bad,
        _ => Paint::Warn,
    };
    let tries = if message.state == SendState::Held {
        let attempts = message.attempts;
        format!(
            ", {attempts} attempt{}, {} left",
            plural(attempts),
            between(now_ms, message.expires_ms.max(now_ms))
        )
    } else {
        String::new()
    };
    let reason = message.reason.as_ref().map(|why| format!("  {}", printable(why))).unwrap_or_default();
    format!(
        "{} {} {:<16} {:<8} {} ago{tries}{reason}",
        cx.out.paint(Paint::Bold, show::short_id(&message.id)),
        cx.out.paint(paint, &format!("{:<9}", printable(message.state.as_str()))),
        show::who(names, &message.to),
        printable(&message.kind),
        between(message.since_ms, now_ms),
    )
}

#[cfg(test)]
mod tests {
    use super::super::output::Out;
    use super::*;
    use crate::disk::Root;

    #[test]
    fn rows_say_how_far_it_is_and_why() {
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let cx = Context::at(out, Root::at("/r"));
        let bob = "ed25519.00112233445566778899aabbccddeeff";
        let message = |state: &str, more: &str| -> Outgoing {
            serde_json::from_str(&format!(
                r#"{{"id":"5f2c1e9a-6d0b","to":"{bob}","kind":"notify","state":"{state}","since_ms":1000,
                    "expires_ms":3601000,"attempts":1{more}}}"#
            ))
            .unwrap()
        };
        let names = HashMap::from([(bob.to_owned(), "bob".to_owned())]);
        assert_eq!(
            row(&cx, &names, &message("held", ""), 61_000),
            "5f2c1e9a held      bob              notify   1 min ago, 1 attempt, 59 min left"
        );
        assert_eq!(
            row(&cx, &HashMap::new(), &message("refused", r#","reason":"no""#), 1_000),
            "5f2c1e9a refused   00112233         notify   0 s ago  no"
        );
    }
}
