//! `axon policy check`: what the rules say of a message, without sending one.

use axon_client::{Decision, PolicyCheck, Ruling};
use serde::Serialize;

use super::output::{CliResult, EXIT_DONE, EXIT_LOCAL, Paint, printable};
use super::{Context, link, show};

/// Exit code of what is denied.
const EXIT_DENIED: u8 = 4;

/// Ask what the rules allow. They stand under [policy] in config.toml, by trust level.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon policy check bob delegate")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Check(CheckArgs),
}

/// Say whether a peer may send this now, and by which rule; nothing is sent or counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 allowed; 1 over a rate, for now; 4 denied.\n\nExamples:\n  \
    axon policy check bob query --domain family.calendar\n  axon policy check --out bob delegate")]
struct CheckArgs {
    /// What it is about
    #[arg(long)]
    domain: Option<String>,
    /// To the peer, instead of from it
    #[arg(long)]
    out: bool,
    /// Agent id, a prefix of one, or a name
    peer: String,
    /// The kind of message: query, delegate, notify, ...
    kind: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        ruling: &'a Ruling,
    }
    let Verb::Check(args) = args.verb;
    let check =
        PolicyCheck { peer: &args.peer, kind: &args.kind, domain: args.domain.as_deref(), direction: None };
    let check = if args.out { check.outward() } else { check };
    let client = cx.connect(link::CONSUMER).await?;
    let ruling = client.policy_check(&check).await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, ruling: &ruling }, || {
        let paint = match ruling.decision {
            Decision::Allow => Paint::Good,
            Decision::Limit => Paint::Warn,
            _ => Paint::Bad,
        };
        let wait = ruling.retry_after_ms.map(|ms| format!(" {}", show::span(ms.div_ceil(1000))));
        format!(
            "{}{} by {}, at level {}: {}",
            cx.out.paint(paint, &printable(ruling.decision.as_str())),
            wait.unwrap_or_default(),
            printable(&ruling.rule),
            show::level(&cx.out, &ruling.level),
            printable(&ruling.message),
        )
    })?;
    Ok(exit(&ruling.decision))
}

/// As the message itself would end: denied by the other side's rules, or overloaded here.
fn exit(decision: &Decision) -> u8 {
    match decision {
        Decision::Allow => EXIT_DONE,
        Decision::Limit => EXIT_LOCAL,
        // What this command line does not know is no permission.
        _ => EXIT_DENIED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_ends_well() {
        for (word, code) in [("allow", 0), ("limit", 1), ("deny", 4), ("brand_new", 4)] {
            assert_eq!(exit(&Decision::from(word)), code, "{word}");
        }
    }
}
