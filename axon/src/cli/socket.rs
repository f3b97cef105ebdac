//! `axon socket`: sockets of their own for agents that may not do all.

use std::path::Path;

use axon_client::{Client, ClientError, Right, Scope, Socket};
use axon_proto::error::IpcCode;
use axon_proto::scope;
use serde::Serialize;

use super::output::{CliError, CliResult, EXIT_DONE, Paint, printable};
use super::{Context, link, show};

/// Give agents sockets of their own, with no more rights than they need.
///
/// Who can open the main socket is the owner: it can approve, trust and block. An agent that is not to do
/// that gets <root>/sockets/NAME/axon.sock instead. Mount the directory into its container and set
/// AXON_SOCKET there; the verbs of `axon` then talk over it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon socket add helper --allow send,inbox --to bob")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Add(AddArgs),
    Set(SetArgs),
    /// List the scoped sockets
    #[command(after_help = "Example:\n  axon socket list")]
    List,
    Remove(RemoveArgs),
}

/// Make a socket with these rights; it survives restarts.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon socket add helper --allow send,inbox,answer --to bob,carol \
    --kinds query,notify --domains family --uid 1000 --rate 60")]
struct AddArgs {
    /// What it may do: send (send, outbox, delegations, topic pub), inbox (inbox, ack, listen, topic sub),
    /// answer (answer, reply), advertise
    #[arg(long, value_name = "RIGHT,...", value_delimiter = ',', required = true, value_parser = right)]
    allow: Vec<Right>,
    #[command(flatten)]
    limits: Limits,
    /// Its name: 1 to 32 of a-z, 0-9 and -
    #[arg(value_name = "NAME", value_parser = name)]
    which: String,
}

/// Change what a socket may do, at once; what is not given stays as it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  axon socket set helper --to bob\n  axon socket set helper --to '' --rate 0\
    \n(an empty list, and 0, lift the limit)"
)]
struct SetArgs {
    /// What it may do: send, inbox, answer, advertise
    #[arg(long, value_name = "RIGHT,...", value_delimiter = ',', value_parser = right)]
    allow: Vec<Right>,
    #[command(flatten)]
    limits: Limits,
    /// Its name
    #[arg(value_name = "NAME", value_parser = name)]
    which: String,
}

/// Close a socket for good, and its clients' connections with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon socket remove helper")]
struct RemoveArgs {
    /// Its name
    #[arg(value_name = "NAME", value_parser = name)]
    which: String,
}

#[derive(Debug, Default, clap::Args)]
struct Limits {
    /// Only these peers: agent ids, prefixes or names; all that may be addressed without it
    #[arg(long, value_name = "PEER,...", value_delimiter = ',')]
    to: Option<Vec<String>>,
    /// Only these kinds; all without it
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    kinds: Option<Vec<String>>,
    /// Only these domains, and those below them; all without it
    #[arg(long, value_name = "DOMAIN,...", value_delimiter = ',')]
    domains: Option<Vec<String>>,
    /// Only this user may connect, who also owns the directory; the daemon's own user without it
    #[arg(long, value_name = "N")]
    uid: Option<u32>,
    /// Messages that it may send a minute; 0: no limit
    #[arg(long, value_name = "N")]
    rate: Option<u64>,
}

impl Limits {
    /// Puts what was given in the place of what is there.
    fn put(self, scope: &mut Scope) {
        let list = |given: Option<Vec<String>>, place: &mut Option<Vec<String>>| {
            if let Some(mut given) = given {
                given.retain(|name| !name.is_empty());
                *place = (!given.is_empty()).then_some(given);
            }
        };
        list(self.to, &mut scope.to);
        list(self.kinds, &mut scope.kinds);
        list(self.domains, &mut scope.domains);
        scope.uid = self.uid.or(scope.uid);
        scope.messages_per_minute = self.rate.or(scope.messages_per_minute);
    }
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let client = cx.connect(link::CONSUMER).await?;
    match args.verb {
        Verb::Add(args) => {
            let mut scope = Scope { name: args.which, allow: args.allow, ..Scope::default() };
            args.limits.put(&mut scope);
            placed(cx, &scope.name, "made", client.socket_add(&scope).await)
        }
        Verb::Set(args) => {
            let mut scope = there(cx, &client, &args.which).await?.scope();
            if !args.allow.is_empty() {
                scope.allow = args.allow;
            }
            args.limits.put(&mut scope);
            placed(cx, &scope.name, "changed", client.socket_set(&scope).await)
        }
        Verb::List => list(cx, &client).await,
        Verb::Remove(args) => {
            #[derive(Serialize)]
            struct Line<'a> {
                ok: bool,
                name: &'a str,
                removed: bool,
            }
            client.socket_remove(&args.which).await.map_err(|error| cx.failure(error))?;
            let text = || format!("{} is removed", args.which);
            cx.out.result(&Line { ok: true, name: &args.which, removed: true }, text)?;
            Ok(EXIT_DONE)
        }
    }
}

/// The socket of this name.
async fn there(cx: &Context, client: &Client, name: &str) -> Result<Socket, CliError> {
    let sockets = client.sockets().await.map_err(|error| cx.failure(error))?;
    sockets.into_iter().find(|socket| socket.name == name).ok_or_else(|| {
        let flags = &cx.flags;
        let text = format!("no socket is called {name}: `axon{flags} socket list` shows those there are");
        CliError::ipc(IpcCode::NotFound, text)
    })
}

fn placed(cx: &Context, name: &str, what: &str, path: Result<String, ClientError>) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        name: &'a str,
        path: &'a str,
    }
    let path = path.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, name, path: &path }, || {
        let shown = show::quoted(Path::new(&path));
        format!(
            "{} is {what}. For its agent:\n  AXON_SOCKET={shown} axon status\nor mount its directory into a \
             container, and name the socket as it is there.",
            cx.out.paint(Paint::Bold, name)
        )
    })?;
    Ok(EXIT_DONE)
}

async fn list(cx: &Context, client: &Client) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        sockets: &'a [Socket],
    }
    let sockets = client.sockets().await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, sockets: &sockets }, || {
        let rows: Vec<String> = sockets.iter().map(|socket| row(cx, socket)).collect();
        if rows.is_empty() { "no scoped sockets".to_owned() } else { rows.join("\n") }
    })?;
    Ok(EXIT_DONE)
}

fn row(cx: &Context, socket: &Socket) -> String {
    let rights: Vec<&str> = socket.allow.iter().map(Right::as_str).collect();
    let mut text = format!("may {}", rights.join(", "));
    let to: Option<Vec<String>> =
        socket.to.as_ref().map(|to| to.iter().map(|id| show::short(id).to_owned()).collect());
    for (what, names) in [("to", &to), ("kinds", &socket.kinds), ("domains", &socket.domains)] {
        if let Some(names) = names {
            text.push_str(&format!("; {what} {}", names.join(", ")));
        }
    }
    if let Some(uid) = socket.uid {
        text.push_str(&format!("; uid {uid}"));
    }
    if socket.messages_per_minute > 0 {
        text.push_str(&format!("; {} a minute", socket.messages_per_minute));
    }
    let name = cx.out.paint(Paint::Bold, &printable(&socket.name));
    format!("{name} {}\n  {}", printable(&text), printable(&socket.path))
}

fn right(text: &str) -> Result<Right, String> {
    match scope::Right::parse(text) {
        Some(right) => Ok(Right::from(right.as_str())),
        None => Err("a right is one of send, inbox, answer, advertise".to_owned()),
    }
}

fn name(text: &str) -> Result<String, String> {
    if scope::Scope::is_name(text) {
        return Ok(text.to_owned());
    }
    Err("a socket's name is 1 to 32 of a-z, 0-9 and \"-\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::output::Out;
    use super::*;
    use crate::disk::Root;

    #[test]
    fn what_is_not_given_stays_as_it_is() {
        let some = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let mut scope = Scope {
            name: "box".to_owned(),
            to: some(&["bob"]),
            kinds: some(&["query"]),
            uid: Some(7),
            messages_per_minute: Some(5),
            ..Scope::default()
        };
        Limits { domains: some(&["family"]), to: some(&[""]), ..Limits::default() }.put(&mut scope);
        assert_eq!((&scope.to, &scope.kinds, &scope.domains), (&None, &some(&["query"]), &some(&["family"])));
        assert_eq!((scope.uid, scope.messages_per_minute), (Some(7), Some(5)));
        Limits { rate: Some(0), uid: Some(8), ..Limits::default() }.put(&mut scope);
        assert_eq!((scope.uid, scope.messages_per_minute), (Some(8), Some(0)));
    }

    #[test]
    fn rows_name_the_limits() {
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let cx = Context::at(out, Root::at("/r"));
        let socket = r#"{"name":"box","allow":["send","answer"],"to":["ed25519.0011223344"],"uid":7,
                         "messages_per_minute":60,"path":"/r/sockets/box/axon.sock"}"#;
        assert_eq!(
            row(&cx, &serde_json::from_str(socket).unwrap()),
            "box may send, answer; to 00112233; uid 7; 60 a minute\n  /r/sockets/box/axon.sock"
        );
        assert!(right("all").unwrap_err().contains("advertise") && right("inbox").is_ok());
        assert!(name("a-1").is_ok() && name("A").is_err() && name("").is_err());
    }
}
