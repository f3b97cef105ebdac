//! `axon send`: asks a peer and prints its agent's answer.

use std::time::Duration;

use axon_client::Query;

use super::output::CliResult;
use super::{Context, link};

/// Ask a peer and print its agent's answer.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon send --domain family.calendar bob \"When is dinner?\"")]
pub struct Args {
    /// What the question is about, such as family.calendar
    #[arg(long)]
    domain: Option<String>,
    /// How long the answer may be
    #[arg(long, value_name = "N")]
    max_tokens: Option<u64>,
    /// How long the answer may take [default: 30]
    #[arg(long, value_name = "SECS", value_parser = link::seconds)]
    deadline: Option<Duration>,
    /// Agent id, a prefix of one, or a name
    peer: String,
    /// The question; - reads stdin
    text: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let question = link::text_or_stdin(args.text)?;
    let client = cx.connect(link::CONSUMER).await?;
    let query = Query {
        question: &question,
        domain: args.domain.as_deref(),
        max_tokens: args.max_tokens,
        deadline_ms: args.deadline.map(link::millis),
    };
    let sent = client.query(&args.peer, &query).await.map_err(|error| cx.failure(error))?;
    cx.answered(sent)
}
