//! `axon status`: what the running daemon counts.

use std::fmt::Write as _;

use axon_client::{Peer, PeersUnread, Status, TopicCounts};
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE, printable};
use super::show::plural;
use super::{Context, link, peers, show};
use crate::disk::files::unix_ms;

/// Connected peers that get a line here; `axon peers` has them all.
const PEERS_SHOWN: usize = 8;

/// Show what the running daemon counts, what waits, and who is connected.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon status --json")]
pub struct Args {}

pub(super) async fn run(cx: &Context, _: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        status: &'a Status,
    }
    #[derive(Serialize)]
    struct Little {
        ok: bool,
        uptime_secs: u64,
        peers_connected: u64,
        paused: bool,
    }
    let client = cx.connect(link::CONSUMER).await?;
    cx.compare_version(client.welcome());
    let status = client.status().await.map_err(|error| cx.failure(error))?;
    if cx.out.json && !link::tells_all(&status) {
        // What this socket is not told is not 0.
        let Status { uptime_secs, peers_connected, paused, .. } = status;
        cx.out.json(&Little { ok: true, uptime_secs, peers_connected, paused })?;
        return Ok(EXIT_DONE);
    }
    // Who is there is for a person: programs ask `axon peers`.
    let peers =
        if cx.out.json { Vec::new() } else { client.peers_unread().await.map_or(Vec::new(), connected) };
    cx.out.result(&Line { ok: true, status: &status }, || {
        let mut text = if link::tells_all(&status) { text(&status) } else { little(&status) };
        let now_ms = unix_ms();
        for peer in peers.iter().take(PEERS_SHOWN) {
            write!(text, "\n{}", line(peer, now_ms)).ok();
        }
        if peers.len() > PEERS_SHOWN {
            write!(text, "\nand {} more: `axon peers`", peers.len() - PEERS_SHOWN).ok();
        }
        text
    })?;
    Ok(EXIT_DONE)
}

fn connected(known: PeersUnread) -> Vec<Peer> {
    known.peers.into_iter().filter(|peer| peer.status == "connected").collect()
}

/// A peer that is connected, in a short line.
fn line(peer: &Peer, now_ms: u64) -> String {
    let name = peers::called(peer);
    let name =
        if name.is_empty() || peer.claimed { format!("{} {name}", show::short(&peer.id)) } else { name };
    let addr = printable(peer.addr.as_deref().unwrap_or("-")).into_owned();
    let facts = [vec![addr], peers::path(peer, now_ms), peers::waiting(peer)].concat();
    format!("{}: {}", name.trim_end(), facts.join(", "))
}

/// What a scoped socket is told.
fn little(status: &Status) -> String {
    let (up, n) = (show::span(status.uptime_secs), status.peers_connected);
    let paused =
        if status.paused { "\npaused: requests are turned away, and what peers tell waits" } else { "" };
    format!("up {up}, {n} peer{} connected, of those that this socket sees{paused}", plural(n))
}

fn text(status: &Status) -> String {
    let mut text = format!(
        "up {}, {} peer{} connected\nsent {}, received {}, unread {}, held {}\n{} client{}, {} answering, {} of {} at work",
        show::span(status.uptime_secs),
        status.peers_connected,
        plural(status.peers_connected),
        status.messages_sent,
        status.messages_received,
        status.inbox_unread,
        status.held,
        status.clients,
        plural(status.clients),
        status.answerers,
        status.active_tasks,
        status.capacity,
    );
    // Writing to a String cannot fail; what is usual and zero is left out.
    if status.open_requests > 0 {
        write!(text, "\n{} open, {} of them waiting", status.open_requests, status.queued).ok();
    }
    if status.paused {
        write!(text, "\npaused: requests are turned away, and what peers tell waits (`axon resume`)").ok();
    }
    if status.knocks > 0 {
        let (some, wait) = (plural(status.knocks), if status.knocks == 1 { "waits" } else { "wait" });
        write!(text, "\n{} knock{some} {wait} for your word (`axon knocks`)", status.knocks).ok();
    }
    if status.invites > 0 {
        let (invites, some) = (status.invites, plural(status.invites));
        write!(text, "\n{invites} invite{some} open (`axon invite --list`)").ok();
    }
    if status.strangers > 0 {
        write!(text, "\n{} stranger{} connected", status.strangers, plural(status.strangers)).ok();
    }
    text.push_str(&status.topics.as_ref().map(topics).unwrap_or_default());
    let dropped = &status.dropped;
    let reasons = [
        ("replayed", dropped.replayed),
        ("on the wrong stream", dropped.wrong_stream),
        ("not authorized", dropped.not_authorized),
        ("before hello", dropped.before_hello),
        ("malformed", dropped.malformed),
        ("over a limit", dropped.over_limit),
        ("refused by policy: see `axon audit`", dropped.refused),
        ("over a rate", dropped.limited),
        ("could not be kept: see `axon doctor`", dropped.not_kept),
    ];
    let reasons: Vec<String> =
        reasons.iter().filter(|(_, n)| *n > 0).map(|(why, n)| format!("{n} {why}")).collect();
    if !reasons.is_empty() {
        write!(text, "\nturned away: {}", reasons.join(", ")).ok();
    }
    text
}

/// What is done with topics, where anything is; with a line feed before it.
fn topics(of: &TopicCounts) -> String {
    let counts = [
        (of.subscriptions, "subscribed"),
        (of.published, "published"),
        (of.delivered, "delivered"),
        (of.relayed, "passed on"),
    ];
    let mut parts: Vec<String> =
        counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let dropped: Vec<String> =
        of.dropped.iter().filter(|(_, n)| **n > 0).map(|(why, n)| format!("{n} {why}")).collect();
    if !dropped.is_empty() {
        parts.push(format!("turned away: {}", printable(&dropped.join(", "))));
    }
    if parts.is_empty() { String::new() } else { format!("\ntopics: {}", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_waits_for_its_owner_is_told() {
        let status = |text: &str| super::text(&serde_json::from_str(text).unwrap());
        assert!(!status("{}").contains("paused") && !status("{}").contains("knock"));
        let some = status(r#"{"paused":true,"knocks":2,"invites":1,"strangers":1,"dropped":{"refused":3}}"#);
        for said in ["axon resume", "2 knocks wait", "1 invite open", "1 stranger", "3 refused by policy"] {
            assert!(some.contains(said), "{said}: {some}");
        }
        assert!(status(r#"{"held":3,"inbox_unread":1}"#).contains("unread 1, held 3"));
        assert!(!status(r#"{"topics":{"neighbours":2,"dropped":{"old":0}}}"#).contains("topics"));
        let topics = status(r#"{"topics":{"published":2,"relayed":7,"dropped":{"old":1,"forged":3}}}"#);
        assert!(
            topics.ends_with("topics: 2 published, 7 passed on, turned away: 3 forged, 1 old"),
            "{topics}"
        );
    }

    #[test]
    fn who_is_connected_has_a_line() {
        let line = |more: &str| {
            let peer = format!(r#"{{"id":"ed25519.00112233aa","status":"connected","source":"mdns"{more}}}"#);
            super::line(&serde_json::from_str(&peer).unwrap(), 61_000)
        };
        let bob = r#","name":"bob","addr":"h:1","rtt_ms":0.42,"since_ms":1000,"unread":2"#;
        assert_eq!(line(bob), "bob: h:1, direct, 0.4 ms, for 1 min, 2 unread");
        assert_eq!(line(r#","name":"bob","claimed":true"#), "00112233 bob?: -, direct");
        assert_eq!(line(""), "00112233: -, direct");
    }
}
