//! `axon peers`: whom the running daemon knows.

use axon_client::Peer;
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE, Paint, printable};
use super::{Context, link, show};

/// List the peers that the running daemon knows, and how far each is trusted.
///
/// A name with a question mark is only what the peer calls itself.
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
            let flags = &cx.flags;
            return format!("no peers: `axon{flags} invite` makes a link for another agent's `axon connect`");
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
    let trust = peer.trust.as_ref().map(|trust| {
        // Filled up outside the colours, which have a width of their own.
        let fill = " ".repeat("unknown".len().saturating_sub(trust.as_str().len()));
        format!(" {}{fill}", show::level(&cx.out, trust))
    });
    format!(
        "{} {name:<16}{} {} {} ({}){rtt}{error}",
        cx.out.paint(Paint::Bold, show::short(&peer.id)),
        trust.unwrap_or_default(),
        cx.out.paint(paint, &format!("{:<12}", peer.status)),
        printable(peer.addr.as_deref().unwrap_or("-")),
        peer.source,
    )
}

#[cfg(test)]
mod tests {
    use super::super::output::Out;
    use super::*;
    use crate::disk::Root;

    #[test]
    fn rows_show_trust_and_what_is_only_claimed() {
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let cx = Context::at(out, Root::at("/r"));
        let row = |more: &str| {
            let peer = format!(r#"{{"id":"ed25519.00112233aa","status":"connected","source":"mdns"{more}}}"#);
            super::row(&cx, &serde_json::from_str(&peer).unwrap())
        };
        assert_eq!(
            row(r#","name":"bob","claimed":true,"trust":"unknown","addr":"h:1""#),
            "00112233 bob?             unknown connected    h:1 (mdns)"
        );
        assert_eq!(row(""), "00112233                  connected    - (mdns)");
        assert!(row(r#","name":"bob","trust":"known""#).contains("bob              known   connected"));
    }
}
