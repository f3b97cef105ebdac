//! `axon knocks`: who wants in and waits for the owner's word.

use axon_client::Knock;
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE, Paint, printable};
use super::{Context, link, show};
use crate::disk::files::unix_ms;

/// List who has knocked and waits for your word.
///
/// What a stranger says of itself is only what it claims. A known peer that has a new key waits here too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon knocks    then: axon approve ID, or axon deny ID")]
pub struct Args {}

pub(super) async fn run(cx: &Context, _: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        knocks: &'a [Knock],
    }
    let client = cx.connect(link::CONSUMER).await?;
    let knocks = client.knocks().await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, knocks: &knocks }, || {
        if knocks.is_empty() {
            return "nobody waits".to_owned();
        }
        let now_ms = unix_ms();
        let mut lines: Vec<String> = knocks.iter().map(|knock| row(cx, knock, now_ms)).collect();
        let flags = &cx.flags;
        lines.push(format!("`axon{flags} approve ID` lets one in, `axon{flags} deny ID` turns it away"));
        lines.join("\n")
    })?;
    Ok(EXIT_DONE)
}

/// A knock that has just come.
pub fn told(cx: &Context, knock: &Knock) -> String {
    let flags = &cx.flags;
    let id = printable(&knock.id);
    format!("{}\n  `axon{flags} approve {id}` lets it in, `axon{flags} deny {id}` does not", said(cx, knock))
}

fn row(cx: &Context, knock: &Knock, now_ms: u64) -> String {
    let ago = show::between(knock.at_ms.min(now_ms), now_ms);
    let often = if knock.count > 1 { format!(", {} times", knock.count) } else { String::new() };
    let addrs =
        if knock.addrs.is_empty() { String::new() } else { format!(" at {}", knock.addrs.join(", ")) };
    format!("{}\n  {ago} ago{often}, {}{}", said(cx, knock), knock.agent_id, printable(&addrs))
}

/// Who, and what for.
fn said(cx: &Context, knock: &Knock) -> String {
    let mut text = cx.out.paint(Paint::Bold, &printable(&knock.id));
    if let Some(name) = &knock.name {
        text.push_str(&format!(" {}?", printable(name)));
    }
    match &knock.rekey_of {
        Some(old) => {
            text.push_str(&format!(" is the new key of {}, signed with both", printable(show::short(old))));
        }
        None => text.push_str(" knocks"),
    }
    if let Some(intent) = &knock.intent {
        let action = intent.action.as_deref().map(|action| format!("/{action}")).unwrap_or_default();
        text.push_str(&format!(" for {}{}", printable(&intent.category), printable(&action)));
    }
    if let Some(session) = &knock.session {
        text.push_str(&format!(" ({})", printable(session)));
    }
    if let Some(message) = &knock.message {
        text.push_str(&format!(": {}", show::head(message)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::output::Out;
    use super::*;
    use crate::disk::Root;

    #[test]
    fn a_knock_is_told_in_a_line_or_two() {
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let cx = Context::at(out, Root::at("/r"));
        let knock = |more: &str| -> Knock {
            let text = format!(r#"{{"id":"00112233","agent_id":"ed25519.00112233aa","at_ms":1000{more}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let full = knock(
            r#","name":"bo\u001bb","intent":{"category":"family","action":"ask"},"session":"stream",
               "message":"let me\nin","addrs":["h:1"],"count":2"#,
        );
        assert_eq!(
            row(&cx, &full, 61_000),
            "00112233 bo\u{fffd}b? knocks for family/ask (stream): let me…\n  \
             1 min ago, 2 times, ed25519.00112233aa at h:1"
        );
        assert!(told(&cx, &knock("")).contains("axon --root /r approve 00112233"));
        let rekey = knock(r#","rekey_of":"ed25519.ffeeddccbb""#);
        assert!(row(&cx, &rekey, 0).starts_with("00112233 is the new key of ffeeddcc, signed with both\n"));
    }
}
