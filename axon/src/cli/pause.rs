//! `axon pause` and `axon resume`: stop and take up inbound work.

use axon_client::Paused;
use serde::Serialize;

use super::output::{CliError, CliResult, EXIT_DONE, Paint};
use super::{Context, link, show};

/// Stop inbound work, of all peers or of one.
///
/// Requests are turned away as overloaded; what peers tell is kept and shown after `axon resume`. It stays
/// so when the daemon starts again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon pause\n  axon pause --peer bob")]
pub struct Args {
    /// Only of this peer: agent id, a prefix of one, or a name
    #[arg(long)]
    peer: Option<String>,
}

/// Take up what `axon pause` stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon resume\n  axon resume --peer bob")]
pub struct ResumeArgs {
    /// Only of this peer: agent id, a prefix of one, or a name
    #[arg(long)]
    peer: Option<String>,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let client = cx.connect(link::CONSUMER).await?;
    told(cx, &client.pause(args.peer.as_deref()).await.map_err(|error| cx.failure(error))?)?;
    Ok(EXIT_DONE)
}

pub(super) async fn resume(cx: &Context, args: ResumeArgs) -> CliResult {
    let client = cx.connect(link::CONSUMER).await?;
    told(cx, &client.resume(args.peer.as_deref()).await.map_err(|error| cx.failure(error))?)?;
    Ok(EXIT_DONE)
}

fn told(cx: &Context, state: &Paused) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        state: &'a Paused,
    }
    cx.out.result(&Line { ok: true, state }, || {
        let ids: Vec<&str> = state.peers.iter().map(|id| show::short(id)).collect();
        let (ids, paused) = (ids.join(", "), cx.out.paint(Paint::Warn, "paused"));
        match (state.paused, ids.is_empty()) {
            (true, true) => format!("{paused}: all inbound work"),
            (true, false) => format!("{paused}: all inbound work, and by themselves {ids}"),
            (false, false) => format!("{paused}: {ids}"),
            (false, true) => "nothing is paused".to_owned(),
        }
    })
}
