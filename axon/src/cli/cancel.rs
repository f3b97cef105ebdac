//! `axon cancel`: takes a delegation back.

use super::output::CliResult;
use super::{Context, link};

/// Take a delegation back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon cancel 5f2c1e9a-6d0b-4f0e-9a53-0c3a8f1f2b7d --reason \"found it\"")]
pub struct Args {
    /// Why
    #[arg(long)]
    reason: Option<String>,
    /// The delegation's id, as `axon delegate` printed it
    id: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let client = cx.connect(link::CONSUMER).await?;
    let sent = client.cancel(&args.id, args.reason.as_deref()).await.map_err(|error| cx.failure(error))?;
    cx.answered(sent)
}
