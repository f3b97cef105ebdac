//! `axon connect`: pairs this agent with the one that a link leads to.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::time::Duration;

use axon_client::{Client, Connect, Connected, Intent, PairState, Trust, Whoami};
use axon_proto::id::PublicKey;
use axon_proto::invite::Link;
use axon_proto::limits::{ADDRS_PER_PEER_MAX, LINK_BYTES_MAX};
use serde::{Deserialize, Serialize};

use super::identity::host_name;
use super::output::{CliError, CliResult, EXIT_DONE, Paint, printable};
use super::{Context, link, show};

/// Longest line taken from stdin: a link, or the JSON object that `axon invite` prints.
const LINE_BYTES_MAX: usize = 4 * LINK_BYTES_MAX;

/// Pair with the agent that a link leads to.
///
/// The link is from `axon invite` there, which pairs both sides at once. One without a secret, from `axon
/// identity`, makes the other known here; it must connect back, or let the knock in. `-` reads the link from
/// stdin, so that it stays out of the shell's history; what `axon invite --json` prints will do.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 paired, pending or pinned (it says which); 3 no answer in time; 4 the \
    invite is used, expired or wrong, or the other side refused; 5 unreachable.\n\nExamples:\n  \
    axon connect -\n  axon connect --as bob 'axon://…@host:7100?k=…'"
)]
pub struct Args {
    /// What the other agent is called here
    #[arg(long = "as", value_name = "NAME")]
    called: Option<String>,
    /// The level that the other agent has here [default: known]
    #[arg(long, value_name = "LEVEL", value_parser = ["unknown", "known", "trusted"])]
    trust: Option<String>,
    /// A word to its owner
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// What for: a field, and what is to be done there
    #[arg(long, value_name = "CATEGORY[/ACTION]", value_parser = intent)]
    intent: Option<Intent>,
    /// In which manner
    #[arg(long, value_parser = ["request_response", "conversation", "stream"])]
    session: Option<String>,
    /// How long to try [default: 15]
    #[arg(long, value_name = "TIME", value_parser = link::seconds)]
    timeout: Option<Duration>,
    /// The link; - reads stdin
    link: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let text = if args.link == "-" { from_stdin(cx)? } else { args.link };
    let link = parse(&text)?;
    let client = cx.connect(link::CONSUMER).await?;
    let link = link.to_string();
    let connect = Connect {
        link: &link,
        name: args.called.as_deref(),
        trust: args.trust.as_deref().map(Trust::from),
        message: args.message.as_deref(),
        intent: args.intent,
        session: args.session.as_deref(),
        deadline_ms: args.timeout.map(link::millis),
    };
    let done = client.pair(&connect).await.map_err(|error| cx.failure(error))?;
    let back = if done.state == PairState::Pinned { own_link(cx, &client).await? } else { None };
    told(cx, &done, args.called.as_deref(), back.as_deref())?;
    Ok(EXIT_DONE)
}

fn told(cx: &Context, done: &Connected, name: Option<&str>, back: Option<&str>) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        done: &'a Connected,
        /// The link by which the other side can connect back, where it must.
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<&'a str>,
    }
    cx.out.result(&Line { ok: true, done, link: back }, || {
        let peer = name.unwrap_or_else(|| show::short(&done.agent_id));
        let (peer, flags) = (printable(peer), &cx.flags);
        let trust = show::level(&cx.out, &done.trust);
        let lines = match done.state {
            PairState::Paired => {
                let there = done
                    .level
                    .as_ref()
                    .map(|level| format!(", and this agent {} there", show::level(&cx.out, level)));
                vec![
                    format!(
                        "{} with {peer}: it is {trust} here{}",
                        cx.out.paint(Paint::Good, "paired"),
                        there.unwrap_or_default()
                    ),
                    format!("  axon{flags} send {} \"Hello?\"", show::short(&done.agent_id)),
                ]
            }
            // The daemon's own sentence says why, and what comes next.
            PairState::Pending => vec![
                format!("{}: {peer} is {trust} here", cx.out.paint(Paint::Warn, "pending")),
                printable(&done.message).into_owned(),
            ],
            PairState::Pinned => vec![
                format!("{}: {peer} is {trust} here", cx.out.paint(Paint::Warn, "pinned")),
                printable(&done.message).into_owned(),
                match back {
                    Some(back) => format!("on that machine:\n  axon connect {back}"),
                    None => "`axon invite` here makes a link for that".to_owned(),
                },
            ],
            _ => vec![printable(&done.message).into_owned()],
        };
        lines.join("\n")
    })
}

/// The link that leads to this agent, without a secret.
async fn own_link(cx: &Context, client: &Client) -> Result<Option<String>, CliError> {
    let whoami = client.whoami().await.map_err(|error| cx.failure(error))?;
    Ok(link_to(&whoami, &host_name()))
}

fn link_to(whoami: &Whoami, host: &str) -> Option<String> {
    let key: PublicKey = whoami.public_key.parse().ok()?;
    let mut addrs: Vec<String> = Vec::new();
    for addr in &whoami.listen {
        let addr = match addr.parse::<std::net::SocketAddr>() {
            Ok(addr) if addr.ip().is_unspecified() => format!("{host}:{}", addr.port()),
            _ => addr.clone(),
        };
        if !addrs.contains(&addr) && addrs.len() < ADDRS_PER_PEER_MAX {
            addrs.push(addr);
        }
    }
    (!addrs.is_empty()).then(|| Link { key, addrs, secret: None }.to_string())
}

/// The link in a text. What it says is never repeated in an error: there may be a secret in it.
fn parse(text: &str) -> Result<Link, CliError> {
    #[derive(Deserialize)]
    struct Invited {
        link: String,
    }
    let text = text.trim();
    let invited: Option<Invited> = text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
    let link = invited.as_ref().map_or(text, |invited| &invited.link);
    link.parse().map_err(|error: axon_proto::invite::LinkError| CliError::usage(error.to_string()))
}

/// One line of stdin: who pastes it at a terminal ends it by Enter.
fn from_stdin(cx: &Context) -> Result<String, CliError> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        cx.out.note(|| "paste the link, then press Enter".to_owned());
    }
    let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut line = String::new();
    let read = stdin.lock().take(most).read_line(&mut line);
    // What is no text is no link.
    if read.is_err() || line.trim().is_empty() {
        return Err(CliError::usage("no link came on stdin: pipe `axon invite` into it, or paste its link"));
    }
    Ok(line)
}

fn intent(text: &str) -> Result<Intent, String> {
    let (category, action) = match text.split_once('/') {
        Some((category, action)) => (category, Some(action)),
        None => (text, None),
    };
    if category.is_empty() || action.is_some_and(str::is_empty) {
        return Err("give a category, such as family, or one with an action, such as family/ask".to_owned());
    }
    Ok(Intent { category: category.to_owned(), action: action.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";

    #[test]
    fn a_link_is_taken_plain_or_as_invite_printed_it() {
        let text = format!("axon://{KEY}@host:7100?k=CQkJCQkJCQkJCQkJCQkJCQ");
        assert_eq!(parse(&format!(" {text}\n")).unwrap().to_string(), text);
        let json = format!(r#"{{"ok":true,"link":"{text}","uses":1}}"#);
        assert_eq!(parse(&json).unwrap().to_string(), text);
        for wrong in [&text[..text.len() - 4], "bob", r#"{"link":"x"}"#, "{}", ""] {
            let error = parse(wrong).unwrap_err();
            assert!(error.exit == 2 && !error.message.contains("CQkJ"), "{error}");
        }
    }

    #[test]
    fn the_way_back_is_by_the_name_of_this_machine() {
        let whoami = |listen: &str| -> Whoami {
            let line = format!(
                r#"{{"agent_id":"a","public_key":"{KEY}=","version":"1","ipc_version":2,"uptime_secs":1,
                    "listen":{listen}}}"#
            );
            serde_json::from_str(&line).unwrap()
        };
        let link = link_to(&whoami(r#"["0.0.0.0:7100","[::]:7100","[::1]:7"]"#), "ada").unwrap();
        assert_eq!(link, format!("axon://{KEY}@ada:7100?a=[::1]:7"));
        assert_eq!(link_to(&whoami("[]"), "ada"), None);
    }

    #[test]
    fn an_intent_is_a_category_and_perhaps_an_action() {
        let plain = intent("family").unwrap();
        assert_eq!((plain.category.as_str(), plain.action), ("family", None));
        assert_eq!(intent("family/ask/more").unwrap().action.as_deref(), Some("ask/more"));
        for wrong in ["", "/ask", "family/"] {
            assert!(intent(wrong).unwrap_err().contains("family"), "{wrong}");
        }
    }
}
