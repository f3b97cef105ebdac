//! `axon contacts`: whom the owner has said something of.

use axon_client::{Contact, Contacts};
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE, Paint, printable};
use super::{Context, link, show};
use crate::disk::files::unix_ms;

/// List whom you have said something of.
///
/// They stand in contacts.toml, and under [[peers]] in config.toml.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon contacts    then: axon trust PEER LEVEL, or axon forget PEER")]
pub struct Args {}

pub(super) async fn run(cx: &Context, _: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        contacts: &'a Contacts,
    }
    let client = cx.connect(link::CONSUMER).await?;
    let contacts = client.contacts().await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, contacts: &contacts }, || {
        let now_ms = unix_ms();
        let mut lines: Vec<String> =
            contacts.contacts.iter().map(|contact| row(cx, contact, now_ms)).collect();
        if lines.is_empty() {
            let flags = &cx.flags;
            lines.push(format!("no contacts: `axon{flags} invite` makes a link that pairs another agent"));
        }
        if contacts.paused {
            lines.push(format!("all inbound work is paused: `axon{} resume` takes it up", cx.flags));
        }
        lines.join("\n")
    })?;
    Ok(EXIT_DONE)
}

fn row(cx: &Context, contact: &Contact, now_ms: u64) -> String {
    let name = contact.name.as_deref().map(printable).unwrap_or_default();
    // Filled up outside the colours, which have a width of their own.
    let fill = " ".repeat("unknown".len().saturating_sub(contact.trust.as_str().len()));
    let mut text = format!(
        "{} {name:<16} {}{fill} {} ({})",
        cx.out.paint(Paint::Bold, show::short(&contact.agent_id)),
        show::level(&cx.out, &contact.trust),
        printable(contact.addrs.first().map_or("-", String::as_str)),
        printable(&contact.source),
    );
    if let Some(since_ms) = contact.since_ms {
        text.push_str(&format!(", for {}", show::between(since_ms.min(now_ms), now_ms)));
    }
    match contact.expiry_ms {
        _ if contact.expired => text.push_str(", expired"),
        Some(at_ms) => text.push_str(&format!(", {} left", show::between(now_ms, at_ms.max(now_ms)))),
        None => {}
    }
    if contact.paused {
        text.push_str(&format!(", {}", cx.out.paint(Paint::Warn, "paused")));
    }
    if let Some(why) = &contact.why {
        text.push_str(&format!(": {}", show::head(why)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::output::Out;
    use super::*;
    use crate::disk::Root;

    #[test]
    fn rows_say_since_when_how_long_and_why() {
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let cx = Context::at(out, Root::at("/r"));
        let row = |more: &str, now_ms: u64| {
            let text = format!(
                r#"{{"agent_id":"ed25519.00112233aa","addrs":["h:1"],"trust":"known","source":"both"{more}}}"#
            );
            super::row(&cx, &serde_json::from_str(&text).unwrap(), now_ms)
        };
        let more = r#","name":"bob","since_ms":1000,"why":"invite laptop","expiry_ms":121000,"paused":true"#;
        assert_eq!(
            row(more, 61_000),
            "00112233 bob              known   h:1 (both), for 1 min, 1 min left, paused: invite laptop"
        );
        assert!(row(r#","expiry_ms":9,"expired":true"#, 121_000).ends_with(", expired"));
        assert_eq!(row("", 0), "00112233                  known   h:1 (both)");
    }
}
