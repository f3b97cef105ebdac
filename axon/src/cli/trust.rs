//! `axon trust`: says how far a peer is trusted.

use std::time::Duration;

use axon_client::{SetTrust, Trust, Trusted};
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE, Paint};
use super::{Context, link, show};

/// Say how far a peer is trusted.
///
/// blocked: refused like a stranger; once this command has returned, nothing of it is delivered. unknown:
/// may ask and tell, at a low rate. known: may hand over work too. trusted: also what acts on this machine.
/// What each may do exactly stands under [policy] in config.toml (see `axon policy check`).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon trust bob trusted\n  \
    axon trust 5f2c1e9a blocked --why \"sent nonsense\" --expires 7d")]
pub struct Args {
    /// What it is called here from now on
    #[arg(long = "as", value_name = "NAME")]
    called: Option<String>,
    /// Why, for who reads contacts.toml
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// How long this holds: 15m, 1h, 7d; for good without it
    #[arg(long, value_name = "TIME", value_parser = link::seconds)]
    expires: Option<Duration>,
    /// Agent id, a prefix of one, or a name
    peer: String,
    /// The level
    #[arg(value_parser = ["blocked", "unknown", "known", "trusted"])]
    level: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        set: &'a Trusted,
    }
    let client = cx.connect(link::CONSUMER).await?;
    let set = SetTrust {
        name: args.called.as_deref(),
        why: args.why.as_deref(),
        expires: args.expires,
        ..SetTrust::level(&args.peer, Trust::from(args.level.as_str()))
    };
    let set = client.trust(&set).await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, set: &set }, || {
        let was = match &set.was {
            Some(was) if *was != set.trust => format!(", and was {}", show::level(&cx.out, was)),
            _ => String::new(),
        };
        let id = cx.out.paint(Paint::Bold, show::short(&set.agent_id));
        format!("{id} is {} here{was}", show::level(&cx.out, &set.trust))
    })?;
    Ok(EXIT_DONE)
}
