//! `axon audit`: what was decided about whom. Reads the files themselves, so that it needs no daemon.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use axon_proto::error::IpcCode;
use axon_proto::id::AgentId;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::output::{CliError, CliResult, EXIT_DONE, Out, Paint, printable};
use super::{Context, show, when};
use crate::disk::audit::AUDIT_BYTES_MAX;
use crate::disk::files::unix_ms;
use crate::disk::{Config, Root, contacts, keys};

/// Fewest digits that name a peer.
const DIGITS_MIN: usize = 4;

/// Show what was decided about whom.
///
/// Pairing, knocks, refusals, changes of trust and policy, pauses, and what scoped sockets did. Repeats are
/// counted in one row. There are no payloads and no secrets in it. The log has bounds: what is oldest goes
/// first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  axon audit --since 1h\n  axon audit --since 2026-11-21T11:30:00Z --peer bob"
)]
pub struct Args {
    /// Only from then on: a time ago (90s, 15m, 1h, 7d), or a moment (2026-11-21T11:30:00Z)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only of this peer: agent id, 4 digits of it or more, or its name in contacts.toml or [[peers]]
    #[arg(long)]
    peer: Option<String>,
}

/// One row. Events that this version does not know are shown as they are.
#[derive(Debug, Deserialize)]
struct Row {
    at_ms: u64,
    #[serde(default)]
    until_ms: Option<u64>,
    event: String,
    #[serde(default)]
    peer: Option<String>,
    #[serde(default)]
    socket: Option<String>,
    rule: String,
    #[serde(default = "once")]
    count: u64,
}

fn once() -> u64 {
    1
}

pub(super) fn run(cx: &Context, args: &Args) -> CliResult {
    let since_ms = args.since.as_deref().map(|text| when::since(text, unix_ms())).transpose();
    let since_ms = since_ms.map_err(CliError::usage)?;
    let names = names(&cx.root);
    let wanted = args.peer.as_deref().map(|peer| Wanted::new(&cx.root, &names, peer)).transpose()?;
    let text = read(&cx.root)?;
    let (mut shown, mut damaged) = (0_u64, 0_u64);
    for line in text.lines().filter(|line| !line.is_empty()) {
        let Ok(row) = serde_json::from_str::<Row>(line) else {
            damaged += 1;
            continue;
        };
        let late = since_ms.is_none_or(|ms| row.until_ms.unwrap_or(row.at_ms) >= ms);
        if !late || !wanted.as_ref().is_none_or(|wanted| wanted.is(row.peer.as_deref())) {
            continue;
        }
        shown += 1;
        if cx.out.json {
            cx.out.json(&serde_json::from_str::<&RawValue>(line).ok())?;
        } else {
            cx.out.human(|| human(&cx.out, &names, &row))?;
        }
    }
    if damaged > 0 {
        let some = show::plural(damaged);
        cx.out.note(|| format!("{damaged} line{some} of the log cannot be read: left out"));
    }
    if shown == 0 {
        cx.out.note(|| format!("no such rows in {}", cx.root.audit().display()));
    }
    Ok(EXIT_DONE)
}

/// Both files, oldest row first; those that are not there are empty.
fn read(root: &Root) -> Result<String, CliError> {
    // The newer one is opened first: what is rotated meanwhile is then seen twice, rather than not at all.
    let (newer, mut older) = (open(&root.audit())?, open(&root.audit_before())?);
    let inode = |file: &Option<File>| {
        let about = file.as_ref()?.metadata().ok()?;
        Some((about.dev(), about.ino()))
    };
    if inode(&newer) == inode(&older) {
        older = None;
    }
    let mut bytes = Vec::new();
    for (file, path) in [(older, root.audit_before()), (newer, root.audit())] {
        if let Some(file) = file {
            let read = file.take(2 * AUDIT_BYTES_MAX).read_to_end(&mut bytes);
            read.map_err(|error| failed(&path, &error))?;
        }
    }
    // A line that is no text is no row, and is counted as such.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A file of the log, which nothing in its place can hold up.
pub(super) fn open(path: &Path) -> Result<Option<File>, CliError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(failed(path, &error.into())),
    }
}

fn failed(path: &Path, error: &io::Error) -> CliError {
    CliError::local("io", format!("cannot read {}: {error}", path.display()))
}

/// Whose rows are wanted.
#[derive(Debug)]
struct Wanted {
    /// What its id begins with.
    prefix: Option<String>,
    /// Those who have this name.
    named: HashMap<String, String>,
}

impl Wanted {
    fn new(root: &Root, names: &HashMap<String, String>, text: &str) -> Result<Self, CliError> {
        let lower = text.to_ascii_lowercase();
        let digits = lower.strip_prefix(AgentId::PREFIX).unwrap_or(&lower);
        let is_prefix = digits.len() >= DIGITS_MIN && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut named = names.clone();
        named.retain(|_, name| name.eq_ignore_ascii_case(text));
        if !is_prefix && named.is_empty() {
            let why = format!(
                "nobody is called {text} in {}: give the agent id, or {DIGITS_MIN} digits of it or more",
                root.dir().display()
            );
            return Err(CliError::ipc(IpcCode::PeerNotFound, why));
        }
        Ok(Self { prefix: is_prefix.then(|| format!("{}{digits}", AgentId::PREFIX)), named })
    }

    fn is(&self, peer: Option<&str>) -> bool {
        let Some(peer) = peer else { return false };
        self.prefix.as_ref().is_some_and(|prefix| peer.starts_with(prefix)) || self.named.contains_key(peer)
    }
}

/// Names by agent ids, as the files of the root have them. A file that cannot be read has no names: the ids
/// are there all the same.
fn names(root: &Root) -> HashMap<String, String> {
    let peers = Config::load(&root.config()).map(|config| config.peers).unwrap_or_default();
    let peers = peers.into_iter().filter_map(|peer| Some((peer.agent_id.to_string(), peer.name?)));
    let own = keys::read_public(root).map(|key| key.agent_id());
    let file = own.and_then(|own| contacts::load(&root.contacts(), own).ok()).unwrap_or_default();
    let contacts = file.contacts.into_iter().filter_map(|one| Some((one.agent_id.to_string(), one.name?)));
    // What the owner calls a contact comes before the name in [[peers]].
    peers.chain(contacts).collect()
}

/// When a row was written, and what it says, without colours; none for a line that is no row.
pub(super) fn told(line: &str, names: &HashMap<String, String>) -> Option<(u64, String)> {
    let row: Row = serde_json::from_str(line).ok()?;
    let out = Out { json: false, quiet: true, verbose: 0, color: false };
    Some((row.at_ms, said(&out, names, &row)))
}

fn human(out: &Out, names: &HashMap<String, String>, row: &Row) -> String {
    format!("{} {}", out.paint(Paint::Dim, &when::utc(row.at_ms)), said(out, names, row))
}

fn said(out: &Out, names: &HashMap<String, String>, row: &Row) -> String {
    let peer = row.peer.as_deref().map_or("-", |id| show::who(names, id));
    let mut text = format!(
        "{} {:<8} {}",
        out.paint(Paint::Bold, &format!("{:<9}", printable(&row.event))),
        printable(peer),
        printable(&row.rule),
    );
    if let Some(socket) = &row.socket {
        text.push_str(&format!(" (socket {})", printable(socket)));
    }
    if row.count > 1 {
        text.push_str(&format!(", {} times", row.count));
    }
    if let Some(until_ms) = row.until_ms {
        text.push_str(&format!(" within {}", show::between(row.at_ms, until_ms)));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axon_proto::audit;

    use super::*;

    const BOB: &str = "ed25519.00112233445566778899aabbccddeeff";
    const OUT: Out = Out { json: false, quiet: false, verbose: 0, color: false };

    #[test]
    fn rows_are_those_of_the_core() {
        let row = audit::Row {
            at_ms: 0,
            until_ms: Some(61_000),
            event: audit::Event::Refused,
            peer: Some(BOB.parse().unwrap()),
            socket: Some("box".into()),
            rule: "policy.unknown.kinds".into(),
            count: 12,
        };
        let line = serde_json::to_string(&row).unwrap();
        let shown =
            |line: &str, names: &HashMap<_, _>| human(&OUT, names, &serde_json::from_str(line).unwrap());
        assert_eq!(
            shown(&line, &HashMap::new()),
            "1970-01-01T00:00:00Z refused   00112233 policy.unknown.kinds (socket box), 12 times within 1 min 1 s"
        );
        let named = HashMap::from([(BOB.to_owned(), "bob".to_owned())]);
        assert!(shown(&line, &named).contains(" bob      policy"));
        let later = r#"{"at_ms":1000,"event":"brand_new","rule":"r","more":1}"#;
        assert_eq!(shown(later, &named), "1970-01-01T00:00:01Z brand_new -        r");
    }

    #[test]
    fn both_files_are_read_in_the_order_of_time() {
        let temp = tempfile::tempdir().unwrap();
        let root = Root::at(temp.path());
        assert_eq!(read(&root).unwrap(), "");
        fs::write(root.audit(), "new\n").unwrap();
        assert_eq!(read(&root).unwrap(), "new\n");
        fs::write(root.audit_before(), "old\n").unwrap();
        assert_eq!(read(&root).unwrap(), "old\nnew\n");
        // As it is when it is rotated between the two looks.
        fs::remove_file(root.audit_before()).unwrap();
        fs::hard_link(root.audit(), root.audit_before()).unwrap();
        assert_eq!(read(&root).unwrap(), "new\n");
        // A link is not followed.
        fs::remove_file(root.audit_before()).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.audit_before()).unwrap();
        assert_eq!(read(&root).unwrap_err().code, "io");
    }

    #[test]
    fn a_peer_is_named_by_digits_or_by_its_name() {
        let temp = tempfile::tempdir().unwrap();
        let root = Root::at(temp.path());
        let wanted = |text: &str| Wanted::new(&root, &names(&root), text);
        let is = |text: &str| wanted(text).map(|wanted| wanted.is(Some(BOB)));
        assert!(is(BOB).unwrap() && is("0011").unwrap() && is("ED25519.00112").unwrap());
        assert!(!is("0012").unwrap());
        assert!(!wanted("0011").unwrap().is(None));
        assert_eq!(is("bob").unwrap_err().exit, 5);
        assert_eq!(is("001").unwrap_err().exit, 5);
        // Its name in config.toml, and the one in contacts.toml, which comes first.
        let (own, _) = crate::disk::Identity::load_or_create(&root).unwrap();
        let identity = crate::disk::Identity::from_seed([3; 32]).unwrap();
        let (id, key) = (identity.id.to_string(), identity.public);
        let entry = |name: &str| format!("name = \"{name}\"\nagent_id = \"{id}\"\npubkey = \"{key}\"\n");
        fs::write(root.config(), format!("[[peers]]\naddr = \"h:1\"\n{}", entry("bob"))).unwrap();
        let bob = wanted("Bob").unwrap();
        assert!(bob.is(Some(&id)) && !bob.is(Some(BOB)) && !bob.is(Some(&own.id.to_string())));
        let contact = format!("[[contacts]]\nlevel = \"known\"\n{}", entry("robert"));
        fs::write(root.contacts(), contact).unwrap();
        assert!(wanted("robert").unwrap().is(Some(&id)) && wanted("bob").is_err());
    }
}
