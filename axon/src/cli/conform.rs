//! `axon conform`: whether an implementation does what the specification says.

use std::path::PathBuf;

use clap::ValueHint;
use serde_json::json;

use super::output::{CliError, CliResult, EXIT_DONE, EXIT_LOCAL, Out, Paint, printable};
use super::{Context, Globals};
use crate::conform::{Held, socket, vectors};

/// See whether an implementation does what the specification says.
///
/// With --vectors, this program is held against files of conformance vectors (spec/VECTORS.md). Without, a
/// right client and then a wrong one are played against the daemon of --root, --name or --socket: nothing is
/// sent to any peer, and nothing changes. The exit code is 0 if all held, and 1 if not.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  axon conform --vectors spec/vectors\n  axon conform --socket ~/.axon/axon.sock"
)]
pub struct Args {
    /// Hold this program against the vectors in this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    vectors: Option<PathBuf>,
}

pub(super) async fn run(out: Out, globals: Globals, args: Args) -> CliResult {
    let held = match &args.vectors {
        Some(dir) => {
            let files = vectors::load(dir).map_err(|why| CliError::local("io", why))?;
            let faults = vectors::faults(&files);
            if let Some(first) = faults.first() {
                let why = format!("the files are not sound: {first} ({} such faults)", faults.len());
                return Err(CliError::local("io", why));
            }
            let of = |file: &vectors::File| {
                file.cases.iter().map(|case| vectors::run(file.check, case)).collect::<Vec<_>>()
            };
            files.iter().map(|(name, file)| (name.clone(), of(file))).collect()
        }
        None => {
            let cx = Context::of_socket(out, globals)?;
            let path = cx.socket.clone().unwrap_or_else(|| cx.root.socket());
            let played = socket::play(&path).await.map_err(|why| CliError::local("io", why))?;
            vec![("socket".to_owned(), played)]
        }
    };
    shown(&out, &held)
}

/// The table: for each part how many held, and each thing that did not.
fn shown(out: &Out, parts: &[(String, Vec<Held>)]) -> CliResult {
    let (mut all, mut broken) = (0, 0);
    // What a file has many of is told in one line; what is played here, one by one.
    let each = parts.len() == 1 && parts.iter().all(|(_, held)| held.len() < 200);
    for (name, held) in parts {
        let wrong = held.iter().filter(|one| !one.ok()).count();
        all += held.len();
        broken += wrong;
        for one in held {
            out.json(&json!({
                "part":name,"id":one.id,"about":one.about,"requirements":one.requirements,"held":one.ok(),
                "seen":one.seen,
            }))?;
            if each || !one.ok() {
                out.human(|| row(out, one))?;
            }
        }
        out.human(|| format!("{name:<14} {:>5} held {wrong:>5} did not", held.len() - wrong))?;
    }
    out.json(&json!({"ok":broken == 0,"checked":all,"held":all - broken}))?;
    if parts.len() > 1 {
        out.human(|| format!("{:<14} {:>5} held {broken:>5} did not", "all", all - broken))?;
    }
    Ok(if broken == 0 { EXIT_DONE } else { EXIT_LOCAL })
}

fn row(out: &Out, one: &Held) -> String {
    let asked = one.requirements.join(" ");
    match &one.seen {
        None => format!("{}  {asked:<14} {}", out.paint(Paint::Good, "held"), printable(&one.about)),
        Some(seen) => {
            let (id, about) = (printable(&one.id), printable(&one.about));
            let mark = out.paint(Paint::Bad, "not ");
            format!("{mark}  {asked:<14} {about} ({id}): {}", printable(seen))
        }
    }
}
