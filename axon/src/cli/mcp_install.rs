//! `axon mcp install`: tells a client of MCP to start `axon mcp`, over a socket that can let nobody in.
//!
//! The clients are rows in `clients`; `edit` changes one entry in a text, and `place` the file. Nothing is
//! written before it is certain that the entry is ours to write.

mod clients;
mod edit;
mod json;
mod place;
mod toml;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use axon_client::{Client as Daemon, ClientError, Right, Scope};
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use serde::Serialize;
use serde_json::{Map, Value};

use self::clients::{CLIENTS, Client};
use self::edit::{Fault, Field, Spot};
use self::place::Place;
use super::output::{CliError, CliResult, EXIT_DONE, Paint, printable};
use super::{Context, link, show};

/// What an agent may do over its socket: all that is not the owner's. It cannot pair, approve or trust.
const RIGHTS: [Right; 4] = [Right::Send, Right::Inbox, Right::Answer, Right::Advertise];
/// The entry's name in a client's file.
const ENTRY: &str = "axon";

/// Put axon into the settings of an MCP client, over a socket of its own.
///
/// The client's file is changed at one place, and all else in it stays as it is, comments too; a copy is
/// kept beside it. The socket may send, read the inbox, answer and advertise. It cannot pair, approve or
/// trust, so that an agent that was talked into something lets nobody in. `axon socket set mcp-CLIENT`
/// narrows it further.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon mcp install claude\n  axon mcp install vscode --print\n  \
    axon mcp install claude --file .mcp.json\n  axon mcp install codex --uninstall")]
pub struct Args {
    /// Which one
    #[arg(value_name = "CLIENT", value_parser = client())]
    client: &'static Client,
    /// Only show the file, what would stand in it, and the socket
    #[arg(long)]
    print: bool,
    /// Take the entry and the socket away again
    #[arg(long)]
    uninstall: bool,
    /// Another file of that client: of a project, a profile or another build
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
}

fn client() -> impl clap::builder::TypedValueParser<Value = &'static Client> {
    PossibleValuesParser::new(CLIENTS.iter().map(|client| client.name))
        .try_map(|name| Client::named(&name).ok_or("no such client"))
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let client = args.client;
    let name = match cx.root.instance() {
        Some(instance) => format!("{ENTRY}-{instance}"),
        None => ENTRY.to_owned(),
    };
    let spot = Spot { table: client.table, name: &name };
    let path = match args.file {
        Some(file) => std::path::absolute(&file).unwrap_or(file),
        None => file(client, spot)?,
    };
    let task = Task { cx, client, spot, path };
    match (args.print, args.uninstall) {
        (true, false) => task.print(),
        (true, true) => task.print_uninstall(),
        (false, false) => task.install().await,
        (false, true) => task.uninstall().await,
    }
}

/// What is asked for.
struct Task<'a> {
    cx: &'a Context,
    client: &'static Client,
    spot: Spot<'a>,
    path: PathBuf,
}

/// What an entry that is there is to us.
enum Entry {
    Missing,
    /// It runs `axon mcp`.
    Ours(Map<String, Value>),
    /// It runs something else.
    Foreign,
}

/// A scoped socket.
struct Scoped {
    path: String,
    made: bool,
    allow: Vec<String>,
}

#[derive(Serialize)]
struct SocketLine<'a> {
    name: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<bool>,
    allow: &'a [String],
}

impl Task<'_> {
    async fn install(&self) -> CliResult {
        // All that can be wrong with the file is found before anything is made.
        let place = Place::read(&self.path)?;
        let entry = self.entry(&place)?;
        if matches!(entry, Entry::Foreign) {
            return Err(self.foreign());
        }
        let program = program()?;
        let daemon = self.daemon().await?;
        let scoped = self.scoped(&daemon).await?;
        let written = self.write(&place, &entry, &program, &scoped);
        if written.is_err() && scoped.made {
            // A socket that nobody uses would be left open for nothing.
            daemon.socket_remove(&self.client.socket()).await.ok();
        }
        let (change, backup) = written?;
        self.installed(change, backup.as_deref(), &program, &scoped)
    }

    /// Writes the entry where it is not there as it should be. Gives what was done, and the copy.
    fn write(
        &self,
        place: &Place,
        entry: &Entry,
        program: &str,
        scoped: &Scoped,
    ) -> Result<(&'static str, Option<PathBuf>), CliError> {
        let fields = self.fields(program, &scoped.path)?;
        let change = match entry {
            Entry::Ours(entry) if edit::has(entry, &fields) => return Ok(("none", None)),
            Entry::Ours(_) => "replaced",
            Entry::Missing | Entry::Foreign => "added",
        };
        let text = self.client.format.put(place.text(), self.spot, &fields);
        let text = text.map_err(|fault| self.refused(&fault))?;
        Ok((change, place.write(&text)?))
    }

    fn installed(
        &self,
        change: &'static str,
        backup: Option<&Path>,
        program: &str,
        scoped: &Scoped,
    ) -> CliResult {
        #[derive(Serialize)]
        struct Line<'a> {
            ok: bool,
            client: &'a str,
            file: &'a Path,
            name: &'a str,
            change: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            backup: Option<&'a Path>,
            command: &'a str,
            args: &'a [String],
            socket: SocketLine<'a>,
            then: &'a str,
        }
        let (client, socket) = (self.client, self.client.socket());
        let (name, then) = (self.spot.name, client.then(self.spot.name));
        let line = Line {
            ok: true,
            client: client.name,
            file: &self.path,
            name,
            change,
            backup,
            command: program,
            args: &client.args(&scoped.path),
            socket: scoped.line(&socket, Some(scoped.made)),
            then: &then,
        };
        self.cx.out.result(&line, || {
            let file = shown(&self.path);
            let name = self.cx.out.paint(Paint::Bold, name);
            let mut text = match change {
                "none" => format!("{} has {name} already: {file} is left as it is", client.title),
                "added" => format!("{} has {name} now, in {file}", client.title),
                _ => format!("{} has {name} anew, in {file}", client.title),
            };
            if let Some(backup) = backup {
                text.push_str(&format!("\n  as it was: {}", shown(backup)));
            }
            let kept = if scoped.made { "" } else { ", as it was made before" };
            let allow = scoped.allow.join(", ");
            text.push_str(&format!("\n  its socket {socket} may {allow}{kept}; it cannot pair or trust"));
            if change != "none" {
                text.push_str(&format!("\n{then}"));
            }
            text
        })?;
        Ok(EXIT_DONE)
    }

    fn print(&self) -> CliResult {
        #[derive(Serialize)]
        struct Line<'a> {
            ok: bool,
            client: &'a str,
            file: &'a Path,
            exists: bool,
            name: &'a str,
            change: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            why: Option<&'a str>,
            text: &'a str,
            command: &'a str,
            args: &'a [String],
            socket: SocketLine<'a>,
            then: &'a str,
        }
        let (client, socket) = (self.client, self.client.socket());
        let program = program()?;
        let path = utf8(&self.cx.root.scope_socket(&socket))?;
        let fields = self.fields(&program, &path)?;
        let text = client.format.put("", self.spot, &fields).map_err(|fault| self.refused(&fault))?;
        let found = Place::read(&self.path).and_then(|place| Ok((place.exists(), self.entry(&place)?)));
        // What is to be added by hand is shown also where the file cannot be changed here.
        let (exists, change, why) = match found {
            Ok((exists, Entry::Missing)) => (exists, "added", None),
            Ok((exists, Entry::Ours(entry))) if edit::has(&entry, &fields) => (exists, "none", None),
            Ok((exists, Entry::Ours(_))) => (exists, "replaced", None),
            Ok((exists, Entry::Foreign)) => (exists, "refused", Some(self.foreign().message)),
            Err(error) => (true, "refused", Some(error.message)),
        };
        let (then, allow) = (client.then(self.spot.name), rights());
        let line = Line {
            ok: true,
            client: client.name,
            file: &self.path,
            exists,
            name: self.spot.name,
            change,
            why: why.as_deref(),
            text: &text,
            command: &program,
            args: &client.args(&path),
            socket: SocketLine { name: &socket, path: &path, made: None, allow: &allow },
            then: &then,
        };
        self.cx.out.result(&line, || {
            let state = match change {
                "none" => "has it already",
                "replaced" => "would have its old entry replaced",
                "refused" => "would be left alone",
                _ if exists => "would have this added",
                _ => "would be made",
            };
            let why = why.as_ref().map(|why| format!("\n{}", printable(why))).unwrap_or_default();
            let allow = allow.join(", ");
            format!(
                "{} {state}:\n\n{}\n\n{socket}, at {path}, may {allow}{why}\n{then}",
                shown(&self.path),
                printable(text.trim_end())
            )
        })?;
        Ok(EXIT_DONE)
    }

    async fn uninstall(&self) -> CliResult {
        let place = Place::read(&self.path)?;
        let (removed, backup) = match self.entry(&place)? {
            Entry::Missing => (false, None),
            Entry::Foreign => return Err(self.foreign()),
            Entry::Ours(_) => (true, place.write(&self.without(&place)?)?),
        };
        let socket = self.client.socket();
        let closed = match self.close(&socket).await {
            Err(error) if removed => {
                let (file, message) = (shown(&self.path), error.message);
                let message = format!(
                    "the entry is out of {file}, but the socket {socket} stays: {message}; then run this again"
                );
                return Err(CliError { message, ..error });
            }
            closed => closed?,
        };
        self.uninstalled(removed, closed, backup.as_deref(), false)
    }

    fn print_uninstall(&self) -> CliResult {
        let place = Place::read(&self.path)?;
        let there = match self.entry(&place)? {
            Entry::Missing => false,
            Entry::Foreign => return Err(self.foreign()),
            Entry::Ours(_) => self.without(&place).map(|_| true)?,
        };
        let closes = self.cx.root.scope_dir(&self.client.socket()).exists();
        self.uninstalled(there, closes, None, true)
    }

    fn uninstalled(&self, removed: bool, closed: bool, backup: Option<&Path>, only_shown: bool) -> CliResult {
        #[derive(Serialize)]
        struct Line<'a> {
            ok: bool,
            client: &'a str,
            file: &'a Path,
            name: &'a str,
            removed: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            backup: Option<&'a Path>,
            socket: &'a str,
            socket_removed: bool,
        }
        let (client, name, socket) = (self.client, self.spot.name, &self.client.socket());
        let line = Line {
            ok: true,
            client: client.name,
            file: &self.path,
            name,
            removed,
            backup,
            socket,
            socket_removed: closed,
        };
        self.cx.out.result(&line, || {
            let (file, is) = (shown(&self.path), if only_shown { "would be" } else { "is" });
            let mut text = match removed {
                true => format!("{name} {is} taken out of {file}"),
                false => format!("{file} has no {name}"),
            };
            if let Some(backup) = backup {
                text.push_str(&format!("\n  as it was: {}", shown(backup)));
            }
            text.push_str(&match closed {
                true => format!("\nthe socket {socket} {is} removed"),
                false => format!("\nthere is no socket {socket}"),
            });
            text
        })?;
        Ok(EXIT_DONE)
    }

    /// The file's text without the entry, and without the object around it where that came with it.
    fn without(&self, place: &Place) -> Result<String, CliError> {
        let (format, spot) = (self.client.format, self.spot);
        let text = format.take(place.text(), spot).and_then(|text| match place.first_text() {
            Some(first) => format.tidied(text, &first, spot),
            None => Ok(text),
        });
        text.map_err(|fault| self.refused(&fault))
    }

    fn entry(&self, place: &Place) -> Result<Entry, CliError> {
        let found = self.client.format.look(place.text(), self.spot);
        Ok(match found.map_err(|fault| self.refused(&fault))? {
            None => Entry::Missing,
            Some(entry) if is_ours(&entry) => Entry::Ours(entry),
            Some(_) => Entry::Foreign,
        })
    }

    fn fields(&self, program: &str, socket: &str) -> Result<Vec<Field>, CliError> {
        let args = self.client.args(socket);
        let texts = || std::iter::once(program).chain(args.iter().map(String::as_str));
        let expanded = self.client.expands.iter().find(|mark| texts().any(|text| text.contains(**mark)));
        if let Some(mark) = expanded {
            return Err(CliError::usage(format!(
                "{} puts something else for \"{mark}\" in a path, and {program} or {socket} has it: use a \
                 --root and a place of `axon` without it",
                self.client.title
            )));
        }
        Ok(self.client.fields(program, &args))
    }

    async fn daemon(&self) -> Result<Daemon, CliError> {
        self.cx.reach(link::CONSUMER).await.map_err(|error| match error {
            ClientError::NoDaemon { .. } if self.cx.socket.is_none() => {
                let (dir, flags) = (self.cx.root.dir().display(), &self.cx.flags);
                let text = format!(
                    "no daemon runs on {dir}, which is to make the socket: start one with `axon{flags} service \
                     install` (it stays) or `axon{flags} daemon` (for now)"
                );
                CliError::local("no_daemon", text)
            }
            other => self.cx.failure(other),
        })
    }

    /// The client's socket. One that is there already is the owner's to widen or narrow.
    async fn scoped(&self, daemon: &Daemon) -> Result<Scoped, CliError> {
        let name = self.client.socket();
        let fail = |error| self.cx.failure(error);
        let sockets = daemon.sockets().await.map_err(fail)?;
        if let Some(socket) = sockets.into_iter().find(|socket| socket.name == name) {
            let allow = socket.allow.iter().map(|right| right.as_str().to_owned()).collect();
            return Ok(Scoped { path: socket.path, made: false, allow });
        }
        let scope = Scope { name, allow: RIGHTS.to_vec(), ..Scope::default() };
        let path = daemon.socket_add(&scope).await.map_err(fail)?;
        Ok(Scoped { path, made: true, allow: rights() })
    }

    /// Removes the client's socket; false when there is none.
    async fn close(&self, name: &str) -> Result<bool, CliError> {
        let daemon = match self.daemon().await {
            // A daemon that runs no more has left the directory of each socket that it still has.
            Err(error) if error.code == "no_daemon" && !self.cx.root.scope_dir(name).exists() => {
                return Ok(false);
            }
            daemon => daemon?,
        };
        let sockets = daemon.sockets().await.map_err(|error| self.cx.failure(error))?;
        if !sockets.iter().any(|socket| socket.name == name) {
            return Ok(false);
        }
        daemon.socket_remove(name).await.map_err(|error| self.cx.failure(error))?;
        Ok(true)
    }

    fn refused(&self, fault: &Fault) -> CliError {
        let (file, by_hand) = (shown(&self.path), self.by_hand());
        let text = match fault {
            Fault::Syntax { .. } => {
                let title = self.client.title;
                format!("{title} cannot read {file} ({fault}): mend it first; nothing was changed")
            }
            _ => format!("{file}, {fault}; nothing was changed: {by_hand}"),
        };
        CliError::local("invalid_config", text)
    }

    fn foreign(&self) -> CliError {
        let (file, name, by_hand) = (shown(&self.path), self.spot.name, self.by_hand());
        let text = format!(
            "{file} has an entry {name} that does not run `axon mcp`: rename or remove it, then run this \
             again; nothing was changed. Or {by_hand}"
        );
        CliError::local("foreign_entry", text)
    }

    fn by_hand(&self) -> String {
        let (flags, client) = (&self.cx.flags, self.client.name);
        format!("change it by hand (`axon{flags} mcp install {client} --print` shows the entry)")
    }
}

impl Scoped {
    fn line<'a>(&'a self, name: &'a str, made: Option<bool>) -> SocketLine<'a> {
        SocketLine { name, path: &self.path, made, allow: &self.allow }
    }
}

fn rights() -> Vec<String> {
    RIGHTS.iter().map(|right| right.as_str().to_owned()).collect()
}

/// The client's own file. Of several, the one that has the entry, else the first that is there.
fn file(client: &Client, spot: Spot) -> Result<PathBuf, CliError> {
    let var = |name: &str| match name {
        "HOME" => std::env::home_dir().map(OsString::from),
        _ => std::env::var_os(name),
    };
    let dir = client.dir(&var).ok_or_else(|| {
        CliError::usage(
            "there is no home directory, where clients have their settings: set HOME, or give --file",
        )
    })?;
    let files = || client.files.iter().map(|file| dir.join(file));
    let there = || files().filter(|file| std::fs::symlink_metadata(file).is_ok());
    let has_entry = |file: &PathBuf| {
        let look = |place: Place| client.format.look(place.text(), spot).is_ok_and(|entry| entry.is_some());
        Place::read(file).is_ok_and(look)
    };
    let several = client.files.len() > 1;
    let with_entry = there().find(|file| several && has_entry(file));
    Ok(with_entry.or_else(|| there().next()).or_else(|| files().next_back()).unwrap_or(dir))
}

/// Whether an entry runs `axon mcp`: the command and its arguments may be apart, or in one list.
fn is_ours(entry: &Map<String, Value>) -> bool {
    let texts = |key: &str| match entry.get(key) {
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let mut words = texts("command").into_iter().chain(texts("args"));
    let Some(program) = words.next().and_then(|program| Path::new(program).file_name()) else { return false };
    // Who has given it another name has that in the entry.
    let own = std::env::current_exe().ok();
    let is_own = own.as_deref().and_then(Path::file_name) == Some(program);
    (program == "axon" || is_own) && words.any(|word| word == "mcp")
}

/// The absolute path of this program. Where the shell finds it, that path: a link there outlives an update of
/// what it leads to.
fn program() -> Result<String, CliError> {
    let fail = |error: std::io::Error| {
        let text = format!("cannot tell where this program is ({error}): run it by its absolute path");
        CliError::local("io", text)
    };
    let own = std::env::current_exe().map_err(fail)?;
    let real = std::fs::canonicalize(&own).map_err(fail)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("axon"))
        .find(|program| std::fs::canonicalize(program).is_ok_and(|found| found == real));
    utf8(&found.unwrap_or(own))
}

fn utf8(path: &Path) -> Result<String, CliError> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let text = format!("{} is not UTF-8, which a client's settings must be: use another", path.display());
        CliError::usage(text)
    })
}

fn shown(path: &Path) -> String {
    printable(&show::quoted(path)).into_owned()
}
