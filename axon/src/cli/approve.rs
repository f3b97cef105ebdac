//! `axon approve` and `axon deny`: the owner's word on a knock.

use axon_client::{Approved, Trust};
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE, Paint};
use super::{Context, link, show};

/// Let in who knocked.
///
/// For a known peer with a new key this takes the key on, at the peer's old level at most.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon approve 5f2c1e9a --as bob")]
pub struct Args {
    /// The level that it gets [default: known]
    #[arg(long, value_name = "LEVEL", value_parser = ["unknown", "known", "trusted"])]
    trust: Option<String>,
    /// What it is called here
    #[arg(long = "as", value_name = "NAME")]
    called: Option<String>,
    /// The knock's id, as `axon knocks` shows it, or the agent's
    id: String,
}

/// Turn away who knocked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon deny 5f2c1e9a")]
pub struct DenyArgs {
    /// The knock's id, as `axon knocks` shows it, or the agent's
    id: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        approved: &'a Approved,
    }
    let client = cx.connect(link::CONSUMER).await?;
    let trust = args.trust.as_deref().map(Trust::from);
    let approved = client.approve(&args.id, trust, args.called.as_deref()).await;
    let approved = approved.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, approved: &approved }, || {
        let id = cx.out.paint(Paint::Bold, show::short(&approved.agent_id));
        format!("{id} is let in, and is {} here", show::level(&cx.out, &approved.trust))
    })?;
    Ok(EXIT_DONE)
}

pub(super) async fn deny(cx: &Context, args: DenyArgs) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        agent_id: &'a str,
        denied: bool,
    }
    let client = cx.connect(link::CONSUMER).await?;
    let agent_id = client.deny(&args.id).await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, agent_id: &agent_id, denied: true }, || {
        let flags = &cx.flags;
        format!(
            "{} is turned away for an hour; `axon{flags} trust {agent_id} blocked` keeps it out",
            show::short(&agent_id)
        )
    })?;
    Ok(EXIT_DONE)
}
