//! `axon notify`: tells a peer something.

use serde::Serialize;

use super::output::{CliResult, EXIT_DONE};
use super::{Context, link};

/// Tell a peer something; nobody answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon notify bob door.front '{\"open\":true}'")]
pub struct Args {
    /// How much it matters
    #[arg(long, value_parser = ["low", "medium", "high"])]
    importance: Option<String>,
    /// Agent id, a prefix of one, or a name
    peer: String,
    /// What it is about
    topic: String,
    /// JSON if it is JSON, text otherwise; - reads stdin
    #[arg(allow_negative_numbers = true)]
    data: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        id: &'a str,
        state: &'a str,
    }
    let text = link::text_or_stdin(args.data)?;
    let client = cx.connect(link::CONSUMER).await?;
    let importance = args.importance.as_deref();
    let sent = match link::json(&text) {
        Ok(json) => client.notify(&args.peer, &args.topic, &*json, importance).await,
        Err(_) => client.notify(&args.peer, &args.topic, text.as_str(), importance).await,
    };
    let sent = sent.map_err(|error| cx.failure(error))?;
    let state = sent.state.as_deref().unwrap_or("sent");
    cx.out.result(&Line { ok: true, id: &sent.msg_id, state }, || state.to_owned())?;
    Ok(EXIT_DONE)
}
