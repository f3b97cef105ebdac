//! `axon presence`, `axon who`, `axon find`: how agents are, who can do what, and who is further away.

use axon_client::{
    Client, Event, FindOptions, Found, Presence, PresenceChange, PresenceEvent, PresenceStatus, Presences,
    Said,
};
use serde::Serialize;

use super::answer::stopped;
use super::output::{CliError, CliResult, EXIT_DONE, Out, Paint, printable};
use super::{Context, link, show};
use crate::disk::files::unix_ms;

/// Show how peers are: idle, busy, away, dnd (do not disturb), offline.
///
/// `unknown` is connected and has not said how it is. A name with a question mark is only what the peer calls
/// itself. With --watch, a line for each peer that comes, goes or changes, until Ctrl-C. With --set, this
/// agent's own status, which holds for as long as the command runs; without a word of any client it is busy
/// while an agent is at work, and idle else.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon presence bob\n  axon presence --watch\n  axon presence --set away")]
pub struct Args {
    /// Only this one: agent id, a prefix of one, or a name
    #[arg(conflicts_with = "set")]
    peer: Option<String>,
    /// Go on with what changes
    #[arg(long, conflicts_with = "set")]
    watch: bool,
    /// Say how this agent is, until Ctrl-C
    #[arg(long, value_name = "STATUS", value_parser = ["idle", "busy", "away", "dnd"])]
    set: Option<String>,
}

/// List peers that serve a domain or have a tool, as far as they have told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon who --domain family\n  axon who --tool web_search")]
pub struct WhoArgs {
    /// Only those that serve this domain
    #[arg(long)]
    domain: Option<String>,
    /// Only those that have this tool
    #[arg(long)]
    tool: Option<String>,
}

/// Find an agent, or agents by what they can do, among peers and the peers of peers.
///
/// Each agent says who may learn of it by its neighbours (`presence.findable`). One that is no peer yet is
/// shown with the command that knocks there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon find --tool web_search --hops 3\n  axon find ed25519.6f3c…")]
pub struct FindArgs {
    /// The agent's id, or the name of a peer
    #[arg(value_name = "ID", conflicts_with_all = ["domain", "tool"])]
    id: Option<String>,
    /// Agents that serve this domain
    #[arg(long)]
    domain: Option<String>,
    /// Agents that have this tool
    #[arg(long)]
    tool: Option<String>,
    /// How far away at most; 1: peers only
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=5))]
    hops: u8,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        known: &'a Presences,
    }
    let client = cx.connect(link::CONSUMER).await?;
    if let Some(status) = args.set {
        return set(cx, &client, &status).await;
    }
    if args.watch {
        client.watch_presence(true).await.map_err(|error| cx.failure(error))?;
    }
    let known = client.presence(args.peer.as_deref()).await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, known: &known }, || {
        let now_ms = unix_ms();
        let mut lines: Vec<String> = known.presence.iter().map(|peer| row(&cx.out, peer, now_ms)).collect();
        if lines.is_empty() {
            lines.push("no peers".to_owned());
        }
        lines.push(format!("this agent is {}", known.status));
        lines.join("\n")
    })?;
    if args.watch {
        let only = args.peer.and(known.presence.first()).map(|peer| peer.id.clone());
        return watch(cx, &client, only.as_deref()).await;
    }
    Ok(EXIT_DONE)
}

/// Says how this agent is for as long as nobody ends it.
async fn set(cx: &Context, client: &Client, status: &str) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        status: &'a PresenceStatus,
    }
    let stop = stopped()?;
    let now = client.set_presence(Some(&PresenceStatus::from(status))).await;
    let now = now.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, status: &now }, || format!("this agent is {now}"))?;
    cx.out.note(|| "until you stop this (Ctrl-C)".to_owned());
    let lost = async {
        loop {
            if let Err(error) = client.next_event().await {
                return error;
            }
        }
    };
    tokio::select! {
        error = lost => Err(cx.failure(error)),
        () = stop => Ok(EXIT_DONE),
    }
}

/// Prints what changes, until somebody ends it.
async fn watch(cx: &Context, client: &Client, only: Option<&str>) -> CliResult {
    let stop = stopped()?;
    let told = async {
        loop {
            match client.next_event().await.map_err(|error| cx.failure(error))? {
                Event::Presence(told) if only.is_none_or(|only| only == told.peer.id) => event(cx, &told)?,
                Event::Missed => cx.out.note(|| "changes came too fast: some are not shown".to_owned()),
                _ => {}
            }
        }
    };
    tokio::select! {
        ended = told => ended,
        () = stop => Ok(EXIT_DONE),
    }
}

fn event(cx: &Context, told: &PresenceEvent) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        event: &'a str,
        #[serde(flatten)]
        told: &'a PresenceEvent,
    }
    cx.out.result(&Line { ok: true, event: "presence", told }, || {
        let change = match told.change {
            PresenceChange::Online => Paint::Good,
            PresenceChange::Offline => Paint::Bad,
            _ => Paint::Warn,
        };
        let change = cx.out.paint(change, &format!("{:<8}", told.change.as_str()));
        format!("{change} {}", row(&cx.out, &told.peer, unix_ms()))
    })
}

pub(super) async fn who(cx: &Context, args: WhoArgs) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        agents: &'a [Presence],
    }
    let client = cx.connect(link::CONSUMER).await?;
    let agents = client.who(args.domain.as_deref(), args.tool.as_deref()).await;
    let agents = agents.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, agents: &agents }, || {
        let now_ms = unix_ms();
        let lines: Vec<String> = agents.iter().map(|peer| row(&cx.out, peer, now_ms)).collect();
        if lines.is_empty() { "nobody who has told so".to_owned() } else { lines.join("\n") }
    })?;
    Ok(EXIT_DONE)
}

pub(super) async fn find(cx: &Context, args: FindArgs) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        agents: &'a [Found],
    }
    let FindArgs { id, domain, tool, hops } = args;
    if id.is_none() && domain.is_none() && tool.is_none() {
        let text = "say whom to find: an agent's id, --domain NAME or --tool NAME";
        return Err(CliError::usage(text));
    }
    let client = cx.connect(link::CONSUMER).await?;
    let options = FindOptions { id, domain, tool, hops: Some(hops) };
    let agents = client.find(&options).await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, agents: &agents }, || {
        let lines: Vec<String> = agents.iter().map(|found| found_row(cx, found)).collect();
        match lines.is_empty() {
            true => format!("nobody within {hops} hops who may be found from here"),
            false => lines.join("\n"),
        }
    })?;
    Ok(EXIT_DONE)
}

fn row(out: &Out, peer: &Presence, now_ms: u64) -> String {
    let paint = match peer.status {
        PresenceStatus::Idle => Paint::Good,
        PresenceStatus::Offline => Paint::Bad,
        _ => Paint::Warn,
    };
    let mut text = format!(
        "{} {:<16} {}",
        out.paint(Paint::Bold, show::short(&peer.id)),
        called(peer.name.as_deref(), peer.claimed),
        out.paint(paint, &format!("{:<8}", printable(peer.status.as_str()))),
    );
    if let Some(since_ms) = peer.since_ms {
        text.push_str(&format!(" for {}", show::between(since_ms.min(now_ms), now_ms)));
    }
    if let Some(said) = &peer.said {
        text.push_str(&able(said));
    }
    text
}

fn found_row(cx: &Context, found: &Found) -> String {
    let out = &cx.out;
    let hops = if found.hops == 1 { "1 hop".to_owned() } else { format!("{} hops", found.hops) };
    let mut text = format!(
        "{} {:<16} {:<8} {hops}{}",
        out.paint(Paint::Bold, &found.id),
        called(found.name.as_deref(), found.claimed),
        printable(found.status.as_str()),
        able(&found.said),
    );
    if let (None, Some(link)) = (&found.trust, &found.link) {
        text.push_str(&format!("\n  axon{} connect \"{}\"", cx.flags, printable(link)));
    }
    text
}

/// A name, with a question mark where only its agent says so.
fn called(name: Option<&str>, claimed: bool) -> String {
    let name = name.map(printable).unwrap_or_default();
    if claimed { format!("{name}?") } else { name.into_owned() }
}

/// What an agent can do, in a few words.
fn able(said: &Said) -> String {
    let list = |what: &str, names: &[String]| match names {
        [] => String::new(),
        names => format!(", {what} {}", printable(&names.join(" "))),
    };
    let more = if said.more { ", and more" } else { "" };
    format!("{}{}{more}", list("domains", &said.domains), list("tools", &said.tools))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Root;

    #[test]
    fn rows_show_how_a_peer_is_and_what_it_can_do() {
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let row = |json: &str| row(&out, &serde_json::from_str(json).unwrap(), 61_000);
        assert_eq!(
            row(r#"{"id":"ed25519.00112233aa","name":"bob","connected":true,"status":"busy","since_ms":1000,
                "age_ms":5,"capabilities":"00","domains":["family"],"tools":["x","y"],"addrs":[],"more":true}"#),
            "00112233 bob              busy     for 1 min, domains family, tools x y, and more"
        );
        assert_eq!(
            row(r#"{"id":"ed25519.0011","name":"b","claimed":true,"connected":false,"status":"offline"}"#),
            "0011 b?               offline "
        );
        let cx = Context::at(out, Root::at("/r"));
        let found = |more: &str| {
            let json = format!(
                r#"{{"id":"ed25519.0011","public_key":"k","hops":2,"status":"asleep","ts_ms":1,"capabilities":"0",
                "domains":[],"tools":[],"addrs":["h:1"],"link":"axon://k@h:1"{more}}}"#
            );
            found_row(&cx, &serde_json::from_str(&json).unwrap())
        };
        assert!(
            found("").ends_with("asleep   2 hops\n  axon --root /r connect \"axon://k@h:1\""),
            "{}",
            found("")
        );
        assert!(found(r#","trust":"known""#).ends_with("2 hops"));
    }
}
