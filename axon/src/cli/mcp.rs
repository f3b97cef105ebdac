//! `axon mcp`: agents by the Model Context Protocol.

use super::output::CliResult;
use super::{Context, mcp_install};

/// Connect a program that speaks MCP (Claude Code, Codex, Cursor and others) to the daemon.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon mcp install claude")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Install(mcp_install::Args),
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let Verb::Install(args) = args.verb;
    mcp_install::run(cx, args).await
}
