//! `axon inbox` and `axon ack`: messages kept for this agent, and how far they are dealt with.

use axon_client::{Kept, Trust};
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE};
use super::row::Row;
use super::{Context, level, link, show};

/// List kept messages that are not acknowledged yet.
///
/// As JSON, `messages` has rows with the fields of the lines of `axon listen`, and with `ts`: when the
/// message was made, in Unix milliseconds. `axon ack` with `next_seq` marks all of them as dealt with.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon inbox --kinds notify,result --limit 10")]
pub struct Args {
    /// At most this many, 1 to 1000 [default: 50]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only these kinds, up to the first message of another one
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    kinds: Option<Vec<String>>,
    /// Whose cursor to read from
    #[arg(long, value_name = "NAME", default_value = link::CONSUMER)]
    consumer: String,
    /// Only of peers that are trusted so far, or further: the others' are counted
    #[arg(long, value_name = "LEVEL", value_parser = level::LEVELS)]
    trust: Option<String>,
}

/// Mark kept messages as dealt with.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon ack 17")]
pub struct AckArgs {
    /// Whose cursor to move
    #[arg(long, value_name = "NAME", default_value = link::CONSUMER)]
    consumer: String,
    /// All messages up to this number, as `axon inbox` printed it
    seq: u64,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        messages: Vec<Row<'a>>,
        next_seq: Option<u64>,
        has_more: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        lost_before_seq: Option<u64>,
        /// Messages of peers below --trust among these.
        #[serde(skip_serializing_if = "Option::is_none")]
        below: Option<usize>,
    }
    let client = cx.connect(&args.consumer).await?;
    let inbox = client.inbox(args.limit, args.kinds.as_deref()).await.map_err(|error| cx.failure(error))?;
    if let Some(seq) = inbox.lost_before_seq {
        cx.out.note(|| show::lost(seq));
    }
    let least = args.trust.as_deref().map(Trust::from);
    let is_below = |kept: &&Kept| least.as_ref().is_some_and(|least| level::is_below(&kept.sender, least));
    let (below, rows): (Vec<&Kept>, Vec<&Kept>) = inbox.messages.iter().partition(is_below);
    let line = Line {
        ok: true,
        messages: rows.iter().map(|kept| Row::kept(kept)).collect(),
        next_seq: inbox.next_seq,
        has_more: inbox.has_more,
        lost_before_seq: inbox.lost_before_seq,
        below: least.as_ref().map(|_| below.len()),
    };
    cx.out.result(&line, || {
        let entry = |kept: &&Kept| show::entry(&cx.out, kept.seq, &kept.envelope, &kept.sender);
        let mut lines: Vec<String> = rows.iter().map(entry).collect();
        if let (Some(least), n @ 1..) = (&least, below.len()) {
            let some = if n == 1 { "" } else { "s" };
            lines.push(format!(
                "{n} message{some} of peers below {least} not shown, which ack passes as well"
            ));
        }
        match (inbox.messages.last(), inbox.has_more) {
            (None, false) => {
                let settle = inbox.lost_before_seq.map(|seq| {
                    let flags = &cx.flags;
                    format!("; `axon{flags} ack {}` settles what was lost", seq.saturating_sub(1))
                });
                lines.push(format!("nothing new{}", settle.unwrap_or_default()));
            }
            (None, true) => lines.push("the next message is of another kind".to_owned()),
            (Some(last), more) => {
                let flags = &cx.flags;
                let more = if more { "there is more; " } else { "" };
                lines.push(format!("{more}`axon{flags} ack {}` marks these as read", last.seq));
            }
        }
        lines.join("\n")
    })?;
    Ok(EXIT_DONE)
}

pub(super) async fn ack(cx: &Context, args: AckArgs) -> CliResult {
    #[derive(Serialize)]
    struct Line {
        ok: bool,
        acked_seq: u64,
    }
    let client = cx.connect(&args.consumer).await?;
    let acked_seq = client.ack(args.seq).await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, acked_seq }, || format!("read up to {acked_seq}"))?;
    Ok(EXIT_DONE)
}
