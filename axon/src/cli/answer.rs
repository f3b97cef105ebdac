//! `axon answer`: makes any program an agent.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axon_client::{Agent, Answer, Trust};
use axon_proto::limits::CAPACITY_MAX;
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::output::{CliError, CliResult, EXIT_DONE, printable};
use super::program::Program;
use super::{Context, level, link, show};

/// Its own, because it reads nothing: requests are handed to it.
const CONSUMER: &str = "answer";

/// Make any program an agent: one run for each request, its output is the answer.
///
/// The request's payload comes on stdin, and AXON_ID, AXON_FROM, AXON_TRUST (unknown, known or trusted),
/// AXON_FROM_NAME (only what the sender claims where AXON_CLAIMED is 1), AXON_KIND, AXON_DOMAIN,
/// AXON_DEADLINE_MS and AXON_MAX_TOKENS stand in the environment. A JSON object on stdout is the answer's
/// payload, other text its words; an exit code other than 0 is an error with the end of stderr. Requests of
/// peers below --trust are refused, and start nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon answer --text --domain text -- tr a-z A-Z")]
pub struct Args {
    /// What it answers: query, delegate
    #[arg(
        long,
        value_name = "KIND,...",
        value_delimiter = ',',
        default_value = "query,delegate",
        value_parser = ["query", "delegate"]
    )]
    kinds: Vec<String>,
    /// Only queries of these domains
    #[arg(long, value_name = "DOMAIN,...", value_delimiter = ',')]
    domain: Vec<String>,
    /// How many runs at once
    #[arg(
        long,
        value_name = "N",
        default_value_t = axon_proto::limits::CAPACITY_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(CAPACITY_MAX))
    )]
    concurrency: u32,
    /// End a run that takes longer
    #[arg(long, value_name = "SECS", value_parser = link::seconds)]
    timeout: Option<Duration>,
    /// Only the question or task on stdin, not the whole payload
    #[arg(long)]
    text: bool,
    /// Only for peers that are trusted so far, or further
    #[arg(long, value_name = "LEVEL", default_value = level::WAKES, value_parser = level::LEVELS)]
    trust: String,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    #[derive(Serialize)]
    struct Attached<'a> {
        ok: bool,
        answering: &'a [String],
    }
    check_program(&args.command)?;
    let shown = args.command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let program = Arc::new(Program { command: args.command, timeout: args.timeout, text: args.text });
    let out = cx.out;
    let least = Trust::from(args.trust.as_str());
    let handler = move |request: axon_client::Request| {
        let program = program.clone();
        let refused = level::is_below(request.sender(), &least).then(|| level::refusal(&least));
        async move {
            let began = Instant::now();
            let message = request.message();
            let what = format!("{} {} from {}", message.kind, message.id, show::short(&message.from));
            let answer = match refused {
                Some(why) => Answer::error("not_authorized", why),
                None => program.answer(request).await,
            };
            match answer.why() {
                Some(why) => out.note(|| format!("{}: {}", printable(&what), printable(why))),
                None => out.detail(|| format!("{}: {} ms", printable(&what), began.elapsed().as_millis())),
            }
            answer
        }
    };
    let kinds = args.kinds.clone();
    let mut agent = Agent::new(handler)
        .kinds(args.kinds)
        .domains(args.domain.iter().cloned())
        .capacity(args.concurrency)
        .on_unsent(move |id, why| {
            out.note(|| {
                format!("the answer to {} was not taken: {}", printable(id), printable(&why.to_string()))
            });
        })
        .on_attached(move || {
            // A reader of stdout that has gone does not matter to the peers.
            let line = Attached { ok: true, answering: &kinds };
            out.result(&line, || format!("answering {} with {shown}", kinds.join(" and "))).ok();
        });
    if !args.domain.is_empty() {
        agent = agent.capabilities(json!({"domains": args.domain, "max_concurrent_tasks": args.concurrency}));
    }
    let stop = stopped()?;
    let client = cx.connect(CONSUMER).await?;
    let lost = |why: &axon_client::ClientError| cx.out.note(|| format!("{why}; waiting for it"));
    agent.serve_until(client, stop, lost).await.map_err(|error| cx.failure(error))?;
    Ok(EXIT_DONE)
}

/// Resolves when this process is asked to end.
pub(super) fn stopped() -> Result<impl Future<Output = ()>, CliError> {
    let listen = |kind| signal(kind).map_err(|error| CliError::local("io", format!("no signals: {error}")));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// A mistyped program is told now, and not to each peer that asks.
fn check_program(command: &[OsString]) -> Result<(), CliError> {
    let Some(name) = command.first() else {
        return Err(CliError::usage("name the program after --"));
    };
    let found = if Path::new(name).components().count() > 1 {
        Path::new(name).exists()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(name).exists())
    };
    if found {
        return Ok(());
    }
    Err(CliError::usage(format!("there is no program {}: give its path, or look at PATH", name.display())))
}
