//! `axon forget`: takes a peer out of all files.

use serde::Serialize;

use super::output::{CliResult, EXIT_DONE};
use super::{Context, link, show};

/// Take a peer out of contacts.toml and of [[peers]].
///
/// The comments there stay. Its connections are closed, and once this command has returned, nothing of it is
/// delivered. It may knock again, or be found on the network; `axon trust PEER blocked` keeps it out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon forget bob")]
pub struct Args {
    /// Agent id, a prefix of one, or a name
    peer: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        agent_id: &'a str,
        forgotten: bool,
    }
    let client = cx.connect(link::CONSUMER).await?;
    let agent_id = client.forget(&args.peer).await.map_err(|error| cx.failure(error))?;
    let text = || format!("{} is forgotten", show::short(&agent_id));
    cx.out.result(&Line { ok: true, agent_id: &agent_id, forgotten: true }, text)?;
    Ok(EXIT_DONE)
}
