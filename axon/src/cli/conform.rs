//! `axon conform`: whether an implementation does what the specification says.

use std::path::PathBuf;

use axon_proto::error::IpcCode;
use axon_proto::id::PublicKey;
use axon_proto::invite::{Link, LinkError, is_addr};
use clap::ValueHint;
use serde_json::json;

use super::output::{CliError, CliResult, EXIT_DONE, EXIT_LOCAL, Out, Paint, printable};
use super::{Context, Globals};
use crate::conform::{Held, peer, socket, vectors};

/// See whether an implementation does what the specification says.
///
/// With --vectors, this program is held against files of conformance vectors (spec/VECTORS.md). With --peer,
/// a right peer and then a wrong one, with a new key, are played against a daemon over QUIC. Else a right
/// client and then a wrong one are played against the daemon of --root, --name or --socket: nothing is sent
/// to any peer, and nothing changes. The exit code is 0 if all held, and 1 if not.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  axon conform --vectors spec/vectors\n  axon conform --socket ~/.axon/axon.sock\n  \
        axon invite | axon conform --peer -"
)]
pub struct Args {
    /// Hold this program against the vectors in this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    vectors: Option<PathBuf>,
    /// Play a peer against the daemon at this address, or that this link leads to; - reads a link from stdin.
    /// The secret of an invite is used up by it, and the key that is let in so stays there as a contact
    #[arg(long, value_name = "ADDR|LINK", conflicts_with = "vectors")]
    peer: Option<String>,
    /// The public key of the daemon at that address, in base64
    #[arg(long, value_name = "PUBKEY", requires = "peer")]
    key: Option<PublicKey>,
}

/// Whom to play a peer against.
fn link(peer: &str, key: Option<PublicKey>) -> Result<Link, CliError> {
    match key {
        Some(key) if is_addr(peer) => Ok(Link { key, addrs: vec![peer.to_owned()], secret: None }),
        Some(_) => Err(CliError::usage("--peer is host:port where --key is given")),
        None if peer == "-" => {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line);
            read.map_err(|error| CliError::local("io", format!("cannot read stdin: {error}")))?;
            line.parse().map_err(|error: LinkError| CliError::usage(error.to_string()))
        }
        None if is_addr(peer) => Err(CliError::usage("give the daemon's public key with --key, or a link")),
        None => peer.parse().map_err(|error: LinkError| CliError::usage(error.to_string())),
    }
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
        None if args.peer.is_some() => {
            let link = link(args.peer.as_deref().unwrap_or_default(), args.key)?;
            let played = peer::play(&link).await;
            let played = played.map_err(|why| CliError::ipc(IpcCode::PeerUnreachable, why))?;
            if link.secret.is_none() {
                out.note(|| {
                    "without an invite's secret a peer is not let in: what follows pairing is not looked at"
                        .into()
                });
            }
            vec![("peer".to_owned(), played)]
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
