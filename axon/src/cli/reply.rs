//! `axon reply` and `axon result`: answers from the shell to requests that `axon listen --answer` printed.

use std::time::Duration;

use axon_client::SendState;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::output::{CliError, CliResult, EXIT_DONE};
use super::{Context, link};

/// Answer a request.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "axon reply ID <TEXT|--payload OBJ|--error CODE|--ack|--decline WHY|--progress STATE>",
    after_help = "Examples:\n  axon reply ID \"At 7.\"\n  axon reply ID --error overloaded --message \"Ask again \
        after noon\"\n  axon reply ID --ack --estimated-ms 60000    then: axon result ID \"Done\"",
    group = clap::ArgGroup::new("what").required(true).multiple(false)
)]
pub struct Args {
    /// The request's id
    id: String,
    /// The answer in words; - reads stdin
    #[arg(group = "what")]
    text: Option<String>,
    /// The answer's whole payload, a JSON object
    #[arg(long, value_name = "OBJ", group = "what", value_parser = link::object)]
    payload: Option<Box<RawValue>>,
    /// No answer but an error: unknown_domain, overloaded, internal, not_authorized, ...
    #[arg(long, value_name = "CODE", group = "what")]
    error: Option<String>,
    /// With --error: what to do instead
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Accept a delegation, or a cancel
    #[arg(long, group = "what")]
    ack: bool,
    /// With --ack: how long the work will take
    #[arg(long, value_name = "MS")]
    estimated_ms: Option<u64>,
    /// Decline a delegation, or a cancel
    #[arg(long, value_name = "WHY", group = "what")]
    decline: Option<String>,
    /// Say how far a delegation is: accepted or running
    #[arg(long, value_name = "STATE", group = "what")]
    progress: Option<String>,
    /// With --progress: how much is done
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=100))]
    percent: Option<u8>,
    /// With --progress: a word on it
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// Report what came of a delegation.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon result ID \"The minutes are written\" --data '{\"pages\":3}'")]
pub struct ResultArgs {
    /// The delegation's id
    id: String,
    /// What came of it; - reads stdin
    text: String,
    /// It could not be done
    #[arg(long, conflicts_with = "partial")]
    failed: bool,
    /// Only a part of it is done
    #[arg(long)]
    partial: bool,
    /// The same for programs, as JSON
    #[arg(long, value_name = "JSON", value_parser = link::json)]
    data: Option<Box<RawValue>>,
    /// Keep it so long for a delegator that is away: 90s, 15m, 1h, 2d; as long as may be without it
    #[arg(long, value_name = "TIME", value_parser = link::hold)]
    hold: Option<Duration>,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    check_words(&args)?;
    let id = args.id.clone();
    match args.payload {
        Some(payload) => deliver(cx, &id, "response", &*payload).await,
        None => {
            let (kind, payload) = compose(args)?;
            deliver(cx, &id, kind, &payload).await
        }
    }
}

pub(super) async fn result(cx: &Context, args: ResultArgs) -> CliResult {
    #[derive(Serialize)]
    struct Outcome<'a> {
        status: &'a str,
        outcome: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
    }
    let status = match (args.failed, args.partial) {
        (true, _) => "failed",
        (false, true) => "partial",
        (false, false) => "completed",
    };
    let text = link::text_or_stdin(args.text)?;
    let outcome = Outcome { status, outcome: &text, data: args.data.as_deref() };
    let client = cx.connect(link::CONSUMER).await?;
    let said = client.report(&args.id, &outcome, args.hold).await.map_err(|error| cx.failure(error))?;
    let state = said.state.as_ref().map(SendState::as_str);
    let line = Line { ok: true, id: &said.msg_id, kind: "result", state };
    cx.out.result(&line, || match said.state {
        Some(SendState::Held) => "held (result): it is sent when the delegator can be reached".to_owned(),
        _ => "sent (result)".to_owned(),
    })?;
    Ok(EXIT_DONE)
}

/// clap does not insist on a flag that another flag rules out.
fn check_words(args: &Args) -> Result<(), CliError> {
    for (given, of, wanted) in [
        (args.message.is_some(), args.error.is_some(), "--message goes with --error"),
        (args.estimated_ms.is_some(), args.ack, "--estimated-ms goes with --ack"),
        (args.percent.is_some(), args.progress.is_some(), "--percent goes with --progress"),
        (args.note.is_some(), args.progress.is_some(), "--note goes with --progress"),
    ] {
        if given && !of {
            return Err(CliError::usage(wanted));
        }
    }
    Ok(())
}

/// The kind and payload that the flags ask for; clap has made sure that there is exactly one of them.
fn compose(args: Args) -> Result<(&'static str, Value), CliError> {
    let mut more = Map::new();
    let mut with = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            more.insert(name.to_owned(), value);
        }
    };
    let kind = if let Some(code) = args.error {
        let known = axon_proto::error::PeerCode::parse(&code);
        let retryable = known.is_some_and(|code| code.retryable());
        let message = args.message.unwrap_or_else(|| format!("the agent answered {code}"));
        with("code", Some(code.into()));
        with("message", Some(message.into()));
        with("retryable", Some(retryable.into()));
        "error"
    } else if let Some(state) = args.progress {
        with("state", Some(state.into()));
        with("percent", args.percent.map(Value::from));
        with("note", args.note.map(Value::from));
        "progress"
    } else if let Some(why) = args.decline {
        with("accepted", Some(false.into()));
        with("reason", Some(why.into()));
        "ack"
    } else if args.ack {
        with("accepted", Some(true.into()));
        with("estimated_ms", args.estimated_ms.map(Value::from));
        "ack"
    } else {
        let text = link::text_or_stdin(args.text.unwrap_or_default())?;
        return Ok(("response", json!({"summary": text, "data": null})));
    };
    Ok((kind, Value::Object(more)))
}

/// What was said. What it answers is in the command.
#[derive(Serialize)]
struct Line<'a> {
    ok: bool,
    id: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
}

async fn deliver(cx: &Context, id: &str, kind: &str, payload: &(impl Serialize + ?Sized)) -> CliResult {
    let client = cx.connect(link::CONSUMER).await?;
    let said = client.reply(id, kind, payload).await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, id: &said, kind, state: None }, || format!("sent ({kind})"))?;
    Ok(EXIT_DONE)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Test {
        #[command(flatten)]
        args: Args,
    }

    fn composed(flags: &[&str]) -> Option<(&'static str, Value)> {
        let args = Test::try_parse_from(["reply", "ID"].iter().chain(flags)).ok()?.args;
        check_words(&args).ok()?;
        compose(args).ok()
    }

    #[test]
    fn flags_become_payloads() {
        for (flags, kind, payload) in [
            (&["At 7."][..], "response", json!({"summary": "At 7.", "data": null})),
            (
                &["--error", "overloaded", "--message", "later"],
                "error",
                json!({"code": "overloaded", "message": "later", "retryable": true}),
            ),
            (&["--ack", "--estimated-ms", "5"], "ack", json!({"accepted": true, "estimated_ms": 5})),
            (&["--decline", "no time"], "ack", json!({"accepted": false, "reason": "no time"})),
            (
                &["--progress", "running", "--percent", "50"],
                "progress",
                json!({"state": "running", "percent": 50}),
            ),
        ] {
            assert_eq!(composed(flags), Some((kind, payload)), "{flags:?}");
        }
    }

    #[test]
    fn exactly_one_answer_is_given() {
        for flags in [&[][..], &["text", "--ack"], &["--message", "x", "text"], &["--payload", "[1]"]] {
            assert_eq!(composed(flags), None, "{flags:?}");
        }
    }
}
