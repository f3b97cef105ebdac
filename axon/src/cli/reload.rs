//! `axon reload`: has the daemon read its files again.

use serde_json::json;

use super::output::{CliResult, EXIT_DONE};
use super::{Context, link};

/// Have the daemon read config.toml and contacts.toml again, as SIGHUP does.
///
/// Peers that nothing changes for stay connected. A file that is wrong changes nothing, and is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon config policy.unknown.messages_per_minute 10 && axon reload")]
pub struct Args {}

pub(super) async fn run(cx: &Context, _: Args) -> CliResult {
    let client = cx.connect(link::CONSUMER).await?;
    client.reload().await.map_err(|error| cx.failure(error))?;
    cx.out.result(&json!({"ok": true, "reloaded": true}), || "read again".to_owned())?;
    Ok(EXIT_DONE)
}
