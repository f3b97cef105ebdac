//! `axon notify`: tells a peer something.

use std::time::Duration;

use axon_client::{SendOptions, SendState};
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE};
use super::{Context, link};

/// Tell a peer something; nobody answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon notify bob door.front '{\"open\":true}'\n  \
    axon notify --hold 1h --read-receipt bob door.front open    then: axon outbox")]
pub struct Args {
    /// How much it matters
    #[arg(long, value_parser = ["low", "medium", "high"])]
    importance: Option<String>,
    /// If the peer cannot be reached now, keep it so long and deliver it when it can: 90s, 15m, 1h, 2d
    #[arg(long, value_name = "TIME", value_parser = link::hold)]
    hold: Option<Duration>,
    /// Ask to be told when an agent has read it: `axon outbox` shows it
    #[arg(long)]
    read_receipt: bool,
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
    let (peer, topic, importance) = (&args.peer, &args.topic, args.importance.as_deref());
    let mut options = args.hold.map(SendOptions::hold).unwrap_or_default();
    options.read_receipt = args.read_receipt;
    let sent = match link::json(&text) {
        Ok(json) => client.notify_with(peer, topic, &*json, importance, options).await,
        Err(_) => client.notify_with(peer, topic, text.as_str(), importance, options).await,
    };
    let sent = sent.map_err(|error| cx.failure(error))?;
    if let (SendState::Held, Some(hold)) = (sent.send_state().unwrap_or(SendState::Sent), args.hold) {
        return cx.held(&sent, peer, hold);
    }
    let state = sent.state.as_deref().unwrap_or("sent");
    cx.out.result(&Line { ok: true, id: &sent.msg_id, state }, || state.to_owned())?;
    Ok(EXIT_DONE)
}
