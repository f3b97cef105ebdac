//! `axon peers`: whom the running daemon knows.

use axon_client::{Peer, PeersUnread};
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE, Paint, printable};
use super::{Context, link, show};
use crate::disk::files::unix_ms;

/// List the peers that the running daemon knows: path, round trip, since when, trust, what waits.
///
/// A name with a question mark is only what the peer calls itself. `held` is what waits here for the peer,
/// `unread` what came from it and was not acknowledged (see `axon outbox`, `axon inbox`). `0-RTT` says that
/// its first message came with the first packet.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon peers")]
pub struct Args {}

pub(super) async fn run(cx: &Context, _: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        known: &'a PeersUnread,
    }
    let client = cx.connect(link::CONSUMER).await?;
    let known = client.peers_unread().await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, known: &known }, || {
        if known.peers.is_empty() {
            let flags = &cx.flags;
            return format!("no peers: `axon{flags} invite` makes a link for another agent's `axon connect`");
        }
        let now_ms = unix_ms();
        let mut lines: Vec<String> = known.peers.iter().map(|peer| row(cx, peer, now_ms)).collect();
        if known.unread_more {
            lines.push("there is more unread than was counted: `axon inbox` reads it".to_owned());
        }
        lines.join("\n")
    })?;
    Ok(EXIT_DONE)
}

fn row(cx: &Context, peer: &Peer, now_ms: u64) -> String {
    let paint = match peer.status.as_str() {
        "connected" => Paint::Good,
        "connecting" => Paint::Warn,
        _ => Paint::Bad,
    };
    let error = match (&peer.error, peer.status.as_str()) {
        (Some(why), status) if status != "connected" => format!("  {}", printable(why)),
        _ => String::new(),
    };
    let trust = peer.trust.as_ref().map(|trust| {
        // Filled up outside the colours, which have a width of their own.
        let fill = " ".repeat("unknown".len().saturating_sub(trust.as_str().len()));
        format!(" {}{fill}", show::level(&cx.out, trust))
    });
    let facts = [path(peer, now_ms), waiting(peer)].concat();
    let facts = if facts.is_empty() { String::new() } else { format!(" {}", facts.join(", ")) };
    format!(
        "{} {:<16}{} {} {} ({}){facts}{error}",
        cx.out.paint(Paint::Bold, show::short(&peer.id)),
        called(peer),
        trust.unwrap_or_default(),
        cx.out.paint(paint, &format!("{:<12}", peer.status)),
        printable(peer.addr.as_deref().unwrap_or("-")),
        peer.source,
    )
}

/// A peer's name, with a question mark where only it says so; empty where it has none.
pub(super) fn called(peer: &Peer) -> String {
    let name = peer.name.as_deref().map(printable).unwrap_or_default();
    if peer.claimed { format!("{name}?") } else { name.into_owned() }
}

/// How a connected peer is reached, how far away it is, and since when.
pub(super) fn path(peer: &Peer, now_ms: u64) -> Vec<String> {
    if peer.status != "connected" {
        return Vec::new();
    }
    // No message goes through anybody between two daemons.
    let mut facts = vec!["direct".to_owned()];
    if peer.early {
        facts.push("0-RTT".to_owned());
    }
    facts.extend(peer.rtt_ms.map(|ms| format!("{ms:.1} ms")));
    facts.extend(peer.since_ms.map(|since| format!("for {}", show::between(since, now_ms))));
    facts
}

/// What waits: for a peer, of it, and because it is paused.
pub(super) fn waiting(peer: &Peer) -> Vec<String> {
    let mut facts = Vec::new();
    if peer.paused {
        facts.push("paused".to_owned());
    }
    for (count, what) in [(peer.held, "held"), (peer.unread.unwrap_or(0), "unread")] {
        if count > 0 {
            facts.push(format!("{count} {what}"));
        }
    }
    facts
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
            super::row(&cx, &serde_json::from_str(&peer).unwrap(), 61_000)
        };
        assert_eq!(
            row(r#","name":"bob","claimed":true,"trust":"unknown","addr":"h:1""#),
            "00112233 bob?             unknown connected    h:1 (mdns) direct"
        );
        assert_eq!(row(""), "00112233                  connected    - (mdns) direct");
        let facts =
            r#","addr":"h:1","rtt_ms":0.42,"since_ms":1000,"early":true,"held":2,"unread":1,"paused":true"#;
        assert!(
            row(facts).ends_with("h:1 (mdns) direct, 0-RTT, 0.4 ms, for 1 min, paused, 2 held, 1 unread"),
            "{}",
            row(facts)
        );
        let away =
            r#"{"id":"ed25519.0011","status":"disconnected","source":"mdns","held":1,"error":"e\u001b"}"#;
        let away = super::row(&cx, &serde_json::from_str(away).unwrap(), 61_000);
        assert!(away.ends_with("- (mdns) 1 held  e\u{fffd}"), "{away}");
        assert!(row(r#","name":"bob","trust":"known""#).contains("bob              known   connected"));
    }
}
