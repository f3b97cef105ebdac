//! `axon discover`: what a peer's agents can do.

use super::output::CliResult;
use super::{Context, link};

/// Ask a peer what its agents can do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon discover bob")]
pub struct Args {
    /// Agent id, a prefix of one, or a name
    peer: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let client = cx.connect(link::CONSUMER).await?;
    let sent = client.discover(&args.peer).await.map_err(|error| cx.failure(error))?;
    cx.answered(sent)
}
