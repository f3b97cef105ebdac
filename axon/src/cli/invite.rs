//! `axon invite`: a link that pairs another agent with this one, and the invites that are open.

use std::time::Duration;

use axon_client::{Client, Invite, InviteOptions, Invited, Trust};
use axon_proto::id::AgentId;
use axon_proto::invite::{InviteId, is_addr};
use axon_proto::limits::{INVITE_SECS_MAX, INVITE_USES_MAX};
use serde::Serialize;

use super::output::{CliError, CliResult, EXIT_DONE, Paint, printable};
use super::{Context, link, qr, show};
use crate::disk::files::unix_ms;

/// Shortest life of an invite.
const EXPIRES_MIN: Duration = Duration::from_secs(60);

/// Make a link that pairs another agent with this one, once, within the hour.
///
/// Whoever has the link and uses it first is paired: send it by a way that nobody else reads, or show its QR
/// code, which is drawn on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon invite --expires 10m --label laptop\n  \
    axon invite | ssh laptop axon connect -\n  axon invite --list\n  axon invite --revoke 5f2c1e9a6d0b4f0e")]
pub struct Args {
    /// How long it is open, 1m to 30d: 90s, 10m, 1h, 7d [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = expires)]
    expires: Option<Duration>,
    /// How many agents it pairs, 1 to 1000 [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=INVITE_USES_MAX))]
    uses: Option<u64>,
    /// The level that these agents get [default: known]
    #[arg(long, value_name = "LEVEL", value_parser = ["unknown", "known", "trusted"])]
    trust: Option<String>,
    /// What you call it
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Where the other side is to dial, again for each; this machine's own addresses without it
    #[arg(long, value_name = "HOST:PORT", value_parser = addr)]
    addr: Vec<String>,
    /// List the invites that are open
    #[arg(long, conflicts_with_all = ["expires", "uses", "trust", "label", "addr"])]
    list: bool,
    /// End the invite with this id
    #[arg(
        long,
        value_name = "ID",
        value_parser = invite_id,
        conflicts_with_all = ["list", "expires", "uses", "trust", "label", "addr"]
    )]
    revoke: Option<String>,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let client = cx.connect(link::CONSUMER).await?;
    if let Some(id) = args.revoke {
        return revoke(cx, &client, &id).await;
    }
    if args.list {
        return list(cx, &client).await;
    }
    let options = InviteOptions {
        expires: args.expires,
        uses: args.uses,
        trust: args.trust.as_deref().map(Trust::from),
        label: args.label,
        addrs: args.addr,
    };
    let invited = client.invite(&options).await.map_err(|error| cx.failure(error))?;
    made(cx, &invited)?;
    Ok(EXIT_DONE)
}

fn made(cx: &Context, invited: &Invited) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        invited: &'a Invited,
    }
    cx.out.result(&Line { ok: true, invited }, || {
        // The link stands alone on its line, to be copied.
        let mut text = format!("{}\n", invited.link);
        if let Some(code) = qr::code(&cx.out, &invited.link) {
            text.push_str(&format!("\n{code}\n"));
        }
        let (flags, id) = (&cx.flags, &invited.invite);
        text.push_str(&format!(
            "\nOpen for {}, for {} agent{}, at level {}. On the other machine:\n  {}\nand paste the link. \
             `axon{flags} invite --revoke {id}` ends it.",
            show::span(minutes_secs(invited.expires_ms.saturating_sub(unix_ms()))),
            invited.uses,
            show::plural(invited.uses),
            show::level(&cx.out, &invited.trust),
            cx.out.paint(Paint::Bold, "axon connect -"),
        ));
        text
    })
}

/// A time in seconds, to the nearest minute: what has passed since the invite was made is of no interest.
fn minutes_secs(ms: u64) -> u64 {
    ms.saturating_add(30_000) / 60_000 * 60
}

async fn list(cx: &Context, client: &Client) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        invites: &'a [Invite],
    }
    let invites = client.invites().await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, invites: &invites }, || {
        let now_ms = unix_ms();
        let rows: Vec<String> = invites.iter().map(|invite| row(cx, invite, now_ms)).collect();
        if rows.is_empty() { "no invite is open".to_owned() } else { rows.join("\n") }
    })?;
    Ok(EXIT_DONE)
}

fn row(cx: &Context, invite: &Invite, now_ms: u64) -> String {
    let left = show::between(now_ms, invite.expires_ms.max(now_ms));
    let label = invite.label.as_deref().map(|label| format!("  {}", printable(label))).unwrap_or_default();
    format!(
        "{} {} use{} left, {left}, gives {}{label}",
        cx.out.paint(Paint::Bold, &invite.invite),
        invite.uses,
        show::plural(invite.uses),
        show::level(&cx.out, &invite.trust),
    )
}

async fn revoke(cx: &Context, client: &Client, id: &str) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        invite: &'a str,
        revoked: bool,
    }
    client.revoke_invite(id).await.map_err(|error| cx.failure(error))?;
    let text = || "ended: its link pairs nobody any more".to_owned();
    cx.out.result(&Line { ok: true, invite: id, revoked: true }, text)?;
    Ok(EXIT_DONE)
}

fn expires(text: &str) -> Result<Duration, String> {
    let wrong = || "give a time of 1m to 30d, such as 90s, 10m, 1h or 7d".to_owned();
    let time = link::seconds(text).map_err(|_| wrong())?;
    if (EXPIRES_MIN..=Duration::from_secs(INVITE_SECS_MAX)).contains(&time) { Ok(time) } else { Err(wrong()) }
}

fn addr(text: &str) -> Result<String, String> {
    if is_addr(text) {
        return Ok(text.to_owned());
    }
    Err("give a host and a port, such as laptop.local:7100 or [2001:db8::1]:7100".to_owned())
}

fn invite_id(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    if lower.parse::<InviteId>().is_ok() {
        return Ok(lower);
    }
    let agent = text.starts_with(AgentId::PREFIX) || text.starts_with("axon:");
    let not = if agent { ", not the link or the agent" } else { "" };
    Err(format!("give the id of the invite{not}: 16 digits, as `axon invite --list` shows them"))
}

#[cfg(test)]
mod tests {
    use super::super::output::Out;
    use super::*;
    use crate::disk::Root;

    #[test]
    fn arguments_are_checked_before_they_are_sent() {
        assert_eq!(expires("90s"), Ok(Duration::from_secs(90)));
        for wrong in ["59s", "31d", "0", "later"] {
            assert!(expires(wrong).unwrap_err().contains("10m"), "{wrong}");
        }
        assert!(addr("host:7100").is_ok() && addr("[::1]:1").is_ok());
        assert!(addr("host").unwrap_err().contains("7100") && addr("h:0").is_err());
        assert_eq!((minutes_secs(3_599_990), minutes_secs(90_000)), (3_600, 120));
        assert_eq!(invite_id("00AA223344556677").unwrap(), "00aa223344556677");
        assert!(invite_id("axon://x").unwrap_err().contains("not the link"));
        assert!(invite_id("0011").is_err());
    }

    #[test]
    fn rows_say_how_much_of_an_invite_is_left() {
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let cx = Context::at(out, Root::at("/r"));
        let invite = r#"{"invite":"0011223344556677","label":"lap\u001btop","expires_ms":3600000,"uses":2,
                         "trust":"known"}"#;
        assert_eq!(
            row(&cx, &serde_json::from_str(invite).unwrap(), 0),
            "0011223344556677 2 uses left, 1 h, gives known  lap\u{fffd}top"
        );
    }
}
