//! `axon ping`: how a peer's daemon is.

use std::time::Instant;

use super::output::CliResult;
use super::{Context, link};

/// Ask a peer's daemon how it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon ping bob")]
pub struct Args {
    /// Agent id, a prefix of one, or a name
    peer: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let client = cx.connect(link::CONSUMER).await?;
    let began = Instant::now();
    let sent = client.ping(&args.peer).await.map_err(|error| cx.failure(error))?;
    let took = began.elapsed();
    let exit = cx.answered(sent)?;
    cx.out.detail(|| format!("answered in {:.1} ms", took.as_secs_f64() * 1000.0));
    Ok(exit)
}
