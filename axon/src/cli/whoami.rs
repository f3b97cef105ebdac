//! `axon whoami`: what the running daemon says of itself.

use serde::Serialize;

use super::output::{CliResult, EXIT_DONE, Paint, printable};
use super::{Context, link, show};

/// Show who the running daemon is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon whoami --json")]
pub struct Args {}

pub(super) async fn run(cx: &Context, _: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        whoami: &'a axon_client::Whoami,
    }
    let client = cx.connect(link::CONSUMER).await?;
    cx.compare_version(client.welcome());
    let whoami = client.whoami().await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, whoami: &whoami }, || {
        let name = whoami.name.as_deref().map(|name| format!(" ({})", printable(name))).unwrap_or_default();
        format!(
            "{}{name}\nkey      {}\nlistens  {}\ndaemon   {}, up {}",
            cx.out.paint(Paint::Bold, &whoami.agent_id),
            whoami.public_key,
            whoami.listen.join(", "),
            whoami.version,
            show::span(whoami.uptime_secs),
        )
    })?;
    Ok(EXIT_DONE)
}
