//! `axon mcp`: a server of the Model Context Protocol, for agents that speak it.

use std::net::SocketAddr;
use std::path::PathBuf;

use axon_client::Trust;
use tokio::net::TcpListener;

use super::output::{CliError, CliResult, EXIT_DONE};
use super::{Context, level, mcp_install};
use crate::bridge::mcp;
use crate::bridge::mcp::hub::{Config, Hub, When};
use crate::disk::token;

/// Let an agent that speaks MCP talk through this daemon, on standard input and output or over HTTP.
///
/// Its tools are peers, ask, delegate, wait, notify, inbox, reply, result, advertise and status. What comes
/// from peers of level --trust and above reaches it unasked; what others sent is only counted until it asks.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:\n  axon mcp install claude\n  axon mcp --http 127.0.0.1:7180")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Serve streamable HTTP on this loopback address instead, at /mcp
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// File with the token that HTTP clients show; made when it is not there [default: mcp-token in the root]
    #[arg(long, value_name = "FILE", requires = "http")]
    token_file: Option<PathBuf>,
    /// When to take what peers ask: always, as the client is woken by `claude/channel`; present, that is
    /// while it looks or waits; or never
    #[arg(long, value_name = "WHEN", default_value = "present")]
    answer: When,
    /// Lowest level of peers whose words reach the agent unasked: unknown, known, trusted
    #[arg(long, value_name = "LEVEL", default_value = level::WAKES, value_parser = level::LEVELS)]
    trust: String,
    /// Whose cursor in the inbox it reads and moves; a scoped socket has its own
    #[arg(long, value_name = "NAME", default_value = "mcp")]
    consumer: String,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Install(mcp_install::Args),
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    if let Some(Verb::Install(args)) = args.verb {
        return mcp_install::run(cx, args).await;
    }
    let socket = cx.socket.clone().unwrap_or_else(|| cx.root.socket());
    let config = Config {
        socket,
        consumer: args.consumer,
        floor: Trust::from(args.trust.as_str()),
        answer: args.answer,
    };
    let stopped = |error: std::io::Error| CliError::local("io", format!("cannot go on: {error}"));
    let Some(addr) = args.http else {
        mcp::serve_stdio(Hub::start(config)).await.map_err(stopped)?;
        return Ok(EXIT_DONE);
    };
    if !addr.ip().is_loopback() {
        let text =
            format!("{addr} can be reached from other machines, and HTTP hides nothing: use 127.0.0.1");
        return Err(CliError::usage(text));
    }
    let path = args.token_file.unwrap_or_else(|| cx.root.dir().join("mcp-token"));
    let token = token::load_or_create(&path).map_err(|error| CliError::local("io", error.to_string()))?;
    let listener = TcpListener::bind(addr).await.map_err(|error| {
        CliError::local("io", format!("cannot listen on {addr}: {error}; name another port"))
    })?;
    let at = listener.local_addr().unwrap_or(addr);
    cx.out.result(&serde_json::json!({"ok": true, "url": format!("http://{at}{}", mcp::PATH)}), || {
        format!("http://{at}{}", mcp::PATH)
    })?;
    cx.out.note(|| format!("clients show the token in {}", path.display()));
    mcp::serve_http(Hub::start(config), listener, token).await.map_err(stopped)?;
    Ok(EXIT_DONE)
}
