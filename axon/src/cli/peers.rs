//! `axon peers`: whom the running daemon knows.

use axon_client::Peer;
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE, Paint, printable};
use super::{Context, link, show};

/// List the peers that the running daemon knows.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon peers")]
pub struct Args {}

pub(super) async fn run(cx: &Context, _: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        peers: &'a [Peer],
    }
    let client = cx.connect(link::CONSUMER).await?;
    let peers = client.peers().await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, peers: &peers }, || {
        if peers.is_empty() {
            let config = cx.root.config();
            return format!(
                "no peers: add one to [[peers]] in {}, or start one on this network",
                config.display()
            );
        }
        peers.iter().map(|peer| row(cx, peer)).collect::<Vec<_>>().join("\n")
    })?;
    Ok(EXIT_DONE)
}

fn row(cx: &Context, peer: &Peer) -> String {
    let paint = match peer.status.as_str() {
        "connected" => Paint::Good,
        "connecting" => Paint::Warn,
        _ => Paint::Bad,
    };
    let name = peer.name.as_deref().map(printable).unwrap_or_default();
    let name = if peer.claimed { format!("{name}?") } else { name.into_owned() };
    let rtt = peer.rtt_ms.map(|ms| format!(" {ms:.1} ms")).unwrap_or_default();
    let error = match (&peer.error, peer.status.as_str()) {
        (Some(why), status) if status != "connected" => format!("  {}", printable(why)),
        _ => String::new(),
    };
    format!(
        "{} {name:<16} {} {} ({}){rtt}{error}",
        cx.out.paint(Paint::Bold, show::short(&peer.id)),
        cx.out.paint(paint, &format!("{:<12}", peer.status)),
        printable(peer.addr.as_deref().unwrap_or("-")),
        peer.source,
    )
}
