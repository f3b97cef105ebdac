//! `axon status`: what the running daemon counts.

use std::fmt::Write as _;

use axon_client::Status;
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE};
use super::show::plural;
use super::{Context, link, show};

/// Show what the running daemon counts.
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
    let client = cx.connect(link::CONSUMER).await?;
    cx.compare_version(client.welcome());
    let status = client.status().await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, status: &status }, || text(&status))?;
    Ok(EXIT_DONE)
}

fn text(status: &Status) -> String {
    let mut text = format!(
        "up {}, {} peer{} connected\nsent {}, received {}, unread {}\n{} client{}, {} answering, {} of {} at work",
        show::span(status.uptime_secs),
        status.peers_connected,
        plural(status.peers_connected),
        status.messages_sent,
        status.messages_received,
        status.inbox_unread,
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
    }
}
