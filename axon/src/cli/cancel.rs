//! `axon cancel`: takes a delegation back.

use serde::Serialize;

use super::output::{CliResult, EXIT_DONE};
use super::{Context, link, wait};

/// Take a delegation back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon cancel 5f2c1e9a-6d0b-4f0e-9a53-0c3a8f1f2b7d --reason \"found it\"")]
pub struct Args {
    /// Why
    #[arg(long)]
    reason: Option<String>,
    /// The delegation's id, as `axon delegate` printed it, or its first 4 digits or more
    id: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        id: &'a str,
        state: &'a str,
    }
    let client = cx.connect(link::CONSUMER).await?;
    // What is not even the beginning of an id is told by the daemon.
    let id = match link::id_or_prefix(&args.id) {
        Ok(text) => wait::whole(cx, &client, text).await?,
        Err(_) => args.id,
    };
    let sent = client.cancel(&id, args.reason.as_deref()).await.map_err(|error| cx.failure(error))?;
    match sent.state.as_deref() {
        // It had not left yet, so that nobody was asked.
        Some(state) if sent.response.is_none() => {
            let line = Line { ok: true, id: &sent.msg_id, state };
            cx.out.result(&line, || "taken back before it left".to_owned())?;
            Ok(EXIT_DONE)
        }
        _ => cx.answered(sent),
    }
}
