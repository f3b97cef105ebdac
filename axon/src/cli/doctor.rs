//! `axon doctor`: looks for what is wrong with a root, and with `--fix` mends what can be mended without
//! asking.
//!
//! It holds the root's lock while it mends, so that no daemon starts on half of it. With a daemon running,
//! only modes and copies are mended, and the peers are asked through it.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use axon_proto::limits;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::instances::port_is_free;
use super::output::{CliResult, EXIT_DONE, EXIT_LOCAL, Out, Paint, printable};
use crate::disk::config::Spot;
use crate::disk::files::{self, MODE_BITS, MODE_PRIVATE, OTHERS_BITS, unix_ms};
use crate::disk::lock::{self, LockError};
use crate::disk::root::ROOT_MODE;
use crate::disk::{Config, ConfigError, Identity, KeyError, Lock, Root, state, token};

mod store;
mod trust;

/// How long the daemon has for an answer of its own.
const DAEMON_WAIT: Duration = Duration::from_secs(3);
/// How long a peer has for its pong.
const PING_MS: u64 = 3_000;
/// Peers asked at once, well below what one client may have waiting.
const PINGS_AT_ONCE: usize = 64;
/// Difference of two clocks that is worth a word: messages are matched against replay by time.
const SKEW_MS: u64 = 5_000;
/// A line from the daemon, in bytes; that with all peers is the longest.
const LINE_BYTES_MAX: u64 = 4_194_304;

/// Checks this root, with `fix` mends it, prints what it found, and ends with 1 if something is still wrong.
pub fn run(out: &Out, root: &Root, fix: bool) -> CliResult {
    let report = examine(root, fix);
    let ok = !report.checks.iter().any(|check| check.status == Status::Fail);
    out.result(&json!({"ok": ok, "checks": report.checks}), || report.human(out, root))?;
    Ok(if ok { EXIT_DONE } else { EXIT_LOCAL })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// One thing looked at.
#[derive(Debug, Clone, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    message: String,
    /// "available" or "fixed".
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<&'static str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    spot: Option<Spot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

struct Report {
    fix: bool,
    checks: Vec<Check>,
}

impl Report {
    fn add(&mut self, name: &'static str, status: Status, message: impl Into<String>) {
        self.checks.push(Check { name, status, message: message.into(), fix: None, spot: None, key: None });
    }

    /// A fault that `mend` can mend. It says what it did, and whether a word of warning is left.
    fn fault<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        status: Status,
        message: impl Into<String>,
        mend: impl FnOnce() -> Result<(Status, String), E>,
    ) {
        let message = message.into();
        if !self.fix {
            self.add(name, status, message);
            self.mark("available");
            return;
        }
        match mend() {
            Ok((after, done)) => {
                self.add(name, after, format!("{message}; {done}"));
                self.mark("fixed");
            }
            Err(error) => self.add(name, status, format!("{message}; it could not be mended: {error}")),
        }
    }

    fn mark(&mut self, fix: &'static str) {
        if let Some(check) = self.checks.last_mut() {
            check.fix = Some(fix);
        }
    }

    fn human(&self, out: &Out, root: &Root) -> String {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        let mut lines: Vec<String> = Vec::new();
        for check in &self.checks {
            let (paint, word) = match check.status {
                Status::Ok => (Paint::Good, "ok  "),
                Status::Warn => (Paint::Warn, "warn"),
                Status::Fail => (Paint::Bad, "FAIL"),
            };
            let fixed =
                if check.fix == Some("fixed") { out.paint(Paint::Good, "mended: ") } else { String::new() };
            let word = out.paint(paint, word);
            lines.push(format!("{word}  {:<width$}  {fixed}{}", check.name, printable(&check.message)));
        }
        let fixable = self.checks.iter().filter(|check| check.fix == Some("available")).count();
        if fixable > 0 {
            lines.push(format!("\n`axon{} doctor --fix` mends {fixable} of these", root.flags()));
        }
        lines.join("\n")
    }
}

/// Who uses the root while it is examined.
enum Holder {
    /// A daemon answers on the socket.
    Daemon,
    /// Somebody has the lock, and no socket answers.
    Somebody,
    /// Nobody; and while mending nobody else can.
    Nobody,
}

fn examine(root: &Root, fix: bool) -> Report {
    let mut report = Report { fix, checks: Vec::new() };
    if !check_root(&mut report, root) {
        return report;
    }
    let (holder, _lock) = check_lock(&mut report, root);
    let idle = matches!(holder, Holder::Nobody);
    let config = check_config(&mut report, root);
    let identity = check_identity(&mut report, root, idle);
    if let (Some(config), Some(identity)) = (&config, &identity)
        && let Err(error) = config.check_own(identity.id)
    {
        file_fault(&mut report, "config", &error);
    }
    check_token(&mut report, root, config.as_ref());
    check_socket(&mut report, root, &holder);
    check_state(&mut report, root, idle);
    store::check(&mut report, root);
    trust::check(&mut report, root, identity.as_ref());
    check_service(&mut report, root);
    match &holder {
        Holder::Daemon => check_daemon(&mut report, root),
        Holder::Somebody => {}
        Holder::Nobody => {
            if let Some(config) = &config {
                check_port(&mut report, root, config);
            }
            let flags = root.flags();
            let start = format!("start one with `axon{flags} service install`, or `axon{flags} daemon`");
            report.add(
                "daemon",
                Status::Warn,
                format!("no daemon runs on {}: {start}", root.dir().display()),
            );
            if config.as_ref().is_some_and(|config| !config.peers.is_empty()) {
                let text =
                    "static peers and clocks are checked through a running daemon; this time they were not";
                report.add("peers", Status::Warn, text);
            }
        }
    }
    report
}

/// Whether the daemon is a service, where it was made one.
fn check_service(report: &mut Report, root: &Root) {
    if let Some((runs, text)) = super::service::glance(root) {
        report.add("service", if runs { Status::Ok } else { Status::Warn }, text);
    }
}

/// False: there is nothing to look at further.
fn check_root(report: &mut Report, root: &Root) -> bool {
    let shown = root.dir().display().to_string();
    if let Err(error) = root.check_socket_path() {
        report.add("root", Status::Fail, error.to_string());
        return false;
    }
    let about = match fs::metadata(root.dir()) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("{shown} is not there; `axon{} daemon` makes it", root.flags());
            report.fault("root", Status::Warn, text, || {
                root.open().map(|()| (Status::Ok, "made it".to_owned()))
            });
            return root.dir().is_dir();
        }
        Err(error) => {
            report.add("root", Status::Fail, format!("cannot open {shown}: {error}"));
            return false;
        }
    };
    if !about.is_dir() || !files::is_ours(about.uid()) {
        let what = if about.is_dir() { "belongs to another user" } else { "is no directory" };
        report.add("root", Status::Fail, format!("{shown} {what}: give another --root"));
        return false;
    }
    let mode = about.mode() & MODE_BITS;
    if mode & OTHERS_BITS == 0 {
        report.add("root", Status::Ok, shown);
        return true;
    }
    let status = if mode & 0o022 == 0 { Status::Warn } else { Status::Fail };
    report.fault("root", status, format!("{shown} is open to others (mode {mode:04o})"), || {
        // Through a link to the directory on purpose: a root may be one.
        let target = fs::canonicalize(root.dir()).map_err(|error| error.to_string())?;
        files::set_mode(&target, ROOT_MODE).map_err(|error| error.to_string())?;
        Ok::<_, String>((Status::Ok, "set it to 0700".to_owned()))
    });
    true
}

/// Who uses the root, and the lock, if it was taken to keep others out.
fn check_lock(report: &mut Report, root: &Root) -> (Holder, Option<Lock>) {
    let pid = |pid: Option<u32>| pid.map_or_else(|| "pid not told".to_owned(), |pid| format!("pid {pid}"));
    if super::instances::is_running(root) {
        report.add("lock", Status::Ok, format!("held by the running daemon ({})", pid(lock::pid(root))));
        return (Holder::Daemon, None);
    }
    let somebody = |report: &mut Report, told: Option<u32>| {
        let text = format!(
            "{} has the lock and its socket does not answer: it is starting, stopping or stuck; if that \
             lasts, end it",
            pid(told)
        );
        report.add("lock", Status::Fail, text);
        (Holder::Somebody, None)
    };
    if !report.fix {
        if lock::is_held(root) {
            return somebody(report, lock::pid(root));
        }
        if fs::symlink_metadata(root.lock()).is_ok_and(|about| !about.is_file()) {
            report.add("lock", Status::Fail, "axon.lock is no regular file, so that no daemon can start");
            report.mark("available");
        } else {
            let stale =
                if root.lock().exists() { "free; the file left behind holds nobody up" } else { "free" };
            report.add("lock", Status::Ok, stale);
        }
        return (Holder::Nobody, None);
    }
    match Lock::acquire(root) {
        Ok(lock) => {
            report.add("lock", Status::Ok, "free");
            (Holder::Nobody, Some(lock))
        }
        Err(LockError::Held { pid, .. }) => somebody(report, pid),
        Err(LockError::Disk(error)) => {
            let mut taken = None;
            report.fault("lock", Status::Fail, error.to_string(), || {
                let aside = files::set_aside(&root.lock()).map_err(|error| error.to_string())?;
                taken = Some(Lock::acquire(root).map_err(|error| error.to_string())?);
                Ok::<_, String>((Status::Ok, format!("moved it to {}", aside.display())))
            });
            // Without the lock nothing is safe to mend.
            if taken.is_some() { (Holder::Nobody, taken) } else { (Holder::Somebody, None) }
        }
    }
}

fn check_config(report: &mut Report, root: &Root) -> Option<Config> {
    let path = root.config();
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(error) => {
            file_fault(report, "config", &error);
            return None;
        }
    };
    match fs::metadata(&path).map(|about| about.mode() & MODE_BITS) {
        Ok(mode) if mode & 0o022 != 0 => {
            let text = format!("others may write to {} (mode {mode:04o})", path.display());
            report.fault("config", Status::Fail, text, || {
                files::set_mode(&path, mode & !0o022).map(|()| (Status::Ok, "closed it to them".to_owned()))
            });
        }
        Ok(_) => {
            let peers = config.peers.len();
            report.add("config", Status::Ok, format!("{} is well, static peers: {peers}", path.display()));
        }
        Err(_) => report.add("config", Status::Ok, "there is no config.toml; the defaults hold"),
    }
    Some(config)
}

fn file_fault(report: &mut Report, name: &'static str, error: &ConfigError) {
    report.add(name, Status::Fail, error.to_string());
    if let Some(check) = report.checks.last_mut() {
        check.spot = error.spot();
        check.key = error.key().map(str::to_owned);
    }
}

fn check_identity(report: &mut Report, root: &Root, idle: bool) -> Option<Identity> {
    if !mend_mode(report, "identity", &root.identity_key()) {
        return None;
    }
    let identity = match Identity::load(root) {
        Ok(identity) => identity,
        Err(error) => return mend_identity(report, root, idle, &error),
    };
    report.add("identity", Status::Ok, identity.id.to_string());
    if !identity.public_is_right(root) {
        let text = "identity.pub is missing or is not that of identity.key";
        report.fault("identity.pub", Status::Warn, text, || {
            identity.mend_public(root).map(|_| (Status::Ok, "wrote it from the key".to_owned()))
        });
    }
    Some(identity)
}

/// Without a key that can be read there is only a new identity, and never unasked.
fn mend_identity(report: &mut Report, root: &Root, idle: bool, error: &KeyError) -> Option<Identity> {
    let mut new = None;
    match error {
        KeyError::None(..) => {
            let text = format!("there is none yet; `axon{} daemon` makes one", root.flags());
            report.fault("identity", Status::Warn, text, || {
                Identity::load_or_create(root).map(|(identity, _)| {
                    let id = identity.id;
                    new = Some(identity);
                    (Status::Ok, format!("made {id}"))
                })
            });
        }
        KeyError::Lost(..) | KeyError::Damaged(..) if !idle => {
            report.add("identity", Status::Fail, format!("{error}; stop the daemon before this is mended"));
        }
        KeyError::Lost(..) | KeyError::Damaged(..) => {
            report.fault("identity", Status::Fail, error.to_string(), || {
                let mut kept = Vec::new();
                for path in [root.identity_key(), root.identity_pub()] {
                    if fs::symlink_metadata(&path).is_ok() {
                        let aside = files::set_aside(&path).map_err(|error| error.to_string())?;
                        kept.push(aside.display().to_string());
                    }
                }
                let (identity, _) = Identity::load_or_create(root).map_err(|error| error.to_string())?;
                let id = identity.id;
                new = Some(identity);
                let kept = kept.join(" and ");
                let text = format!(
                    "THE IDENTITY HAS CHANGED: this agent is now {id}; give every peer the new `axon{} \
                     identity`, or put the old key back from a copy (the old files are kept as {kept})",
                    root.flags()
                );
                Ok::<_, String>((Status::Warn, text))
            });
        }
        KeyError::Disk(error) => report.add("identity", Status::Fail, error.to_string()),
    }
    new
}

fn check_token(report: &mut Report, root: &Root, config: Option<&Config>) {
    let path = config.map_or_else(|| root.token(), |config| config.token_path(root));
    if !mend_mode(report, "token", &path) {
        return;
    }
    match token::load(&path) {
        Ok(_) => report.add("token", Status::Ok, path.display().to_string()),
        Err(error) if error.is_missing() => {
            report.add("token", Status::Ok, "there is none yet; the daemon makes it");
        }
        Err(error) => {
            let regular = fs::symlink_metadata(&path).is_ok_and(|about| about.is_file());
            if !regular {
                report.add("token", Status::Fail, error.to_string());
                return;
            }
            report.fault("token", Status::Fail, error.to_string(), || {
                files::set_aside(&path)?;
                token::load_or_create(&path)?;
                let text = "made a new one; a running daemon reads it on SIGHUP".to_owned();
                Ok::<_, files::DiskError>((Status::Ok, text))
            });
        }
    }
}

fn check_socket(report: &mut Report, root: &Root, holder: &Holder) {
    let path = root.socket();
    let Ok(about) = fs::symlink_metadata(&path) else {
        if matches!(holder, Holder::Nobody) {
            report.add("socket", Status::Ok, "there is none, as no daemon runs");
        }
        return;
    };
    let shown = path.display();
    if !about.file_type().is_socket() {
        let text = format!("{shown} is no socket, so that no daemon can listen there");
        report.fault("socket", Status::Fail, text, || {
            files::set_aside(&path).map(|aside| (Status::Ok, format!("moved it to {}", aside.display())))
        });
        return;
    }
    match holder {
        Holder::Daemon if about.mode() & OTHERS_BITS != 0 => {
            mend_mode(report, "socket", &path);
        }
        Holder::Daemon => report.add("socket", Status::Ok, shown.to_string()),
        // Its owner is still there, somehow.
        Holder::Somebody => {}
        Holder::Nobody => {
            let text = format!("{shown} is left behind by a daemon that is gone; the next one replaces it");
            report.fault("socket", Status::Warn, text, || {
                fs::remove_file(&path).map(|()| (Status::Ok, "removed it".to_owned()))
            });
        }
    }
}

fn check_state(report: &mut Report, root: &Root, idle: bool) {
    let peers = state::read_peers(&root.known_peers()).err();
    let replay = state::check_replay_log(&root.replay_log());
    for (name, path, why) in
        [("known_peers", root.known_peers(), peers), ("replay_log", root.replay_log(), replay)]
    {
        let Some(why) = why else { continue };
        let text = format!("{} is damaged ({why}); the daemon starts without it", path.display());
        if !idle {
            report.add(name, Status::Warn, text);
            continue;
        }
        report.fault(name, Status::Warn, text, || {
            // The same as the daemon does at its start.
            if name == "known_peers" {
                state::load_peers(&path);
            } else {
                state::ReplayLog::open(&path, unix_ms())?;
            }
            Ok::<_, files::DiskError>((Status::Ok, "set it aside, and kept what was whole".to_owned()))
        });
    }
}

/// A private file that others may open is closed to them; false: it still is open. Says nothing where all is
/// well.
fn mend_mode(report: &mut Report, name: &'static str, path: &Path) -> bool {
    let Ok(about) = fs::symlink_metadata(path) else { return true };
    let mode = about.mode() & MODE_BITS;
    if about.file_type().is_symlink() || about.is_dir() || mode & OTHERS_BITS == 0 {
        return true;
    }
    let text = format!("{} is open to others (mode {mode:04o})", path.display());
    report.fault(name, Status::Fail, text, || {
        files::set_mode(path, MODE_PRIVATE).map(|()| (Status::Ok, "set it to 0600".to_owned()))
    });
    report.checks.last().is_some_and(|check| check.status == Status::Ok)
}

fn check_port(report: &mut Report, root: &Root, config: &Config) {
    if root.instance().is_some() && !config.port_is_set {
        report.add("port", Status::Ok, "the first free one is chosen when this instance starts");
        return;
    }
    let port = config.port;
    if port == 0 {
        report.add("port", Status::Ok, "any free one is taken at each start");
        return;
    }
    let flags = root.flags();
    match port_is_free(config, port) {
        Ok(()) => report.add("port", Status::Ok, format!("UDP port {port} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let text = format!(
                "UDP port {port} is in use by another program: stop it, or choose another with \
                 `axon{flags} config port N` and tell the peers"
            );
            report.add("port", Status::Fail, text);
        }
        Err(error) => {
            let at = config.bind.map_or_else(String::new, |addr| format!(" of {addr}"));
            let text =
                format!("UDP port {port}{at} cannot be bound ({error}): see `axon{flags} config bind`");
            report.add("port", Status::Fail, text);
        }
    }
}

fn check_daemon(report: &mut Report, root: &Root) {
    let mut daemon = match Daemon::connect(root) {
        Ok(daemon) => daemon,
        Err(error) => {
            let text =
                format!("its socket is open, and it does not answer ({error}): stop it and start it again");
            report.add("daemon", Status::Fail, text);
            return;
        }
    };
    let (ours, theirs) = (env!("CARGO_PKG_VERSION"), daemon.version.clone());
    if theirs == ours {
        report.add("daemon", Status::Ok, format!("runs, version {theirs}"));
    } else {
        let text = format!("runs version {theirs}, and this is {ours}: start the daemon again");
        report.add("daemon", Status::Warn, text);
    }
    match daemon.static_peers() {
        Ok(peers) => {
            for some in peers.chunks(PINGS_AT_ONCE) {
                let answers = daemon.ping(some);
                for peer in some {
                    check_peer(report, peer, answers.get(&peer.id));
                }
            }
        }
        Err(error) => report.add("peers", Status::Fail, format!("the daemon does not list them: {error}")),
    }
}

fn check_peer(report: &mut Report, peer: &Peer, answer: Option<&Answer>) {
    let shown = peer.name.as_ref().map_or_else(|| peer.id.clone(), |name| format!("{name} ({})", peer.id));
    let unreachable = |why: &str| {
        format!(
            "{shown} at {} cannot be reached ({why}): is its daemon running, the address right, UDP let \
             through, and this agent among its [[peers]]?",
            peer.addr
        )
    };
    match answer {
        None => report.add("peer", Status::Fail, unreachable("no answer")),
        Some(Answer::Failed(why)) => report.add("peer", Status::Fail, unreachable(why)),
        Some(Answer::Pong { skew_ms, rtt_ms }) if skew_ms.unsigned_abs() > SKEW_MS => {
            let (secs, which) =
                (skew_ms.unsigned_abs() / 1_000, if *skew_ms > 0 { "ahead of" } else { "behind" });
            let text = format!(
                "{shown} answers in {rtt_ms} ms, and its clock is {secs} s {which} ours: let both \
                 machines set their clocks by the network"
            );
            report.add("clock", Status::Warn, text);
        }
        Some(Answer::Pong { rtt_ms, .. }) => {
            report.add("peer", Status::Ok, format!("{shown} answers in {rtt_ms} ms, clocks agree"));
        }
    }
}

struct Peer {
    id: String,
    name: Option<String>,
    addr: String,
}

enum Answer {
    /// The peer's clock less ours, and the way there and back.
    Pong {
        skew_ms: i64,
        rtt_ms: u128,
    },
    Failed(String),
}

/// The running daemon, over its socket.
struct Daemon {
    reader: BufReader<UnixStream>,
    version: String,
}

impl Daemon {
    fn connect(root: &Root) -> io::Result<Self> {
        let stream = UnixStream::connect(root.socket())?;
        stream.set_write_timeout(Some(DAEMON_WAIT))?;
        let mut daemon = Self { reader: BufReader::new(stream), version: String::new() };
        daemon.ask(&json!({
            "cmd": "hello", "req_id": "hello", "version": limits::IPC_VERSION, "consumer": "default"
        }))?;
        let about = daemon.ask(&json!({"cmd": "whoami", "req_id": "whoami"}))?;
        daemon.version = text(&about, "version");
        Ok(daemon)
    }

    fn static_peers(&mut self) -> io::Result<Vec<Peer>> {
        let reply = self.ask(&json!({"cmd": "peers", "req_id": "peers"}))?;
        let rows = reply["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let fixed = rows.iter().filter(|row| row["source"] == "static");
        Ok(fixed
            .map(|row| Peer {
                id: text(row, "id"),
                name: row["name"].as_str().map(str::to_owned),
                addr: text(row, "addr"),
            })
            .collect())
    }

    /// Pings these peers at once; who is not in the result gave no answer in time.
    fn ping(&mut self, peers: &[Peer]) -> HashMap<String, Answer> {
        let mut answers = HashMap::new();
        let (start_ms, start) = (unix_ms(), Instant::now());
        for peer in peers {
            let command = json!({
                "cmd": "send", "req_id": format!("ping {}", peer.id), "to": peer.id, "kind": "ping",
                "payload": {}, "deadline_ms": PING_MS
            });
            if self.tell(&command).is_err() {
                return answers;
            }
        }
        let until = start + Duration::from_millis(PING_MS) + DAEMON_WAIT;
        while answers.len() < peers.len() {
            let Ok(reply) = self.next(until) else { break };
            let Some(id) = reply["req_id"].as_str().and_then(|id| id.strip_prefix("ping ")) else { continue };
            let took = start.elapsed().as_millis();
            let answer = match reply["response"]["ts"].as_i64() {
                Some(ts) if reply["ok"] == true => {
                    // The pong was written somewhere between the question and its answer: halfway, at best
                    // guess.
                    let half = i64::try_from(took / 2).unwrap_or(i64::MAX);
                    let ours = i64::try_from(start_ms).unwrap_or(i64::MAX).saturating_add(half);
                    Answer::Pong { skew_ms: ts.saturating_sub(ours), rtt_ms: took }
                }
                _ => Answer::Failed(text(&reply, "message")),
            };
            answers.insert(id.to_owned(), answer);
        }
        answers
    }

    fn ask(&mut self, command: &Json) -> io::Result<Json> {
        self.tell(command)?;
        let until = Instant::now() + DAEMON_WAIT;
        loop {
            let reply = self.next(until)?;
            if reply["ok"] == true && reply["req_id"] == command["req_id"] {
                return Ok(reply);
            }
            if reply["ok"] == false {
                return Err(io::Error::other(text(&reply, "message")));
            }
        }
    }

    fn tell(&mut self, command: &Json) -> io::Result<()> {
        let line = format!("{command}\n");
        self.reader.get_mut().write_all(line.as_bytes())
    }

    fn next(&mut self, until: Instant) -> io::Result<Json> {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.reader.get_ref().set_read_timeout(Some(left))?;
        let mut line = Vec::new();
        let read = self.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let late = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::other("no answer in time"),
            _ => error,
        };
        if read.map_err(late)? == 0 {
            return Err(io::Error::other("it closed the connection"));
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

fn text(object: &Json, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path().join("r"));
        root.open().unwrap();
        // Any free port, so that a daemon on this machine does not matter.
        fs::write(root.config(), "port = 0\n").unwrap();
        (dir, root)
    }

    fn worst(report: &Report, name: &str) -> Option<(Status, Option<&'static str>)> {
        let rank = |check: &&Check| check.status as u8;
        report
            .checks
            .iter()
            .filter(|check| check.name == name)
            .max_by_key(rank)
            .map(|check| (check.status, check.fix))
    }

    fn failed(report: &Report) -> Vec<&'static str> {
        report.checks.iter().filter(|check| check.status == Status::Fail).map(|check| check.name).collect()
    }

    #[test]
    fn a_fresh_root_is_made_and_then_well() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path().join("fresh"));
        let report = examine(&root, false);
        assert_eq!(worst(&report, "root"), Some((Status::Warn, Some("available"))));
        assert!(!root.dir().exists() && failed(&report).is_empty());
        examine(&root, true);
        fs::write(root.config(), "port = 0\n").unwrap();
        let report = examine(&root, false);
        assert!(failed(&report).is_empty(), "{:?}", report.checks);
        assert_eq!(worst(&report, "daemon"), Some((Status::Warn, None)));
        assert!(root.identity_key().exists());
    }

    #[test]
    fn modes_are_mended() {
        let (_dir, root) = root();
        Identity::load_or_create(&root).unwrap();
        token::load_or_create(&root.token()).unwrap();
        for (path, mode) in
            [(root.identity_key(), 0o644), (root.token(), 0o666), (root.dir().to_owned(), 0o777)]
        {
            files::set_mode(&path, mode).unwrap();
        }
        assert_eq!(failed(&examine(&root, false)), ["root", "identity", "token"]);
        assert!(failed(&examine(&root, true)).is_empty());
        for (path, mode) in
            [(root.identity_key(), 0o600), (root.token(), 0o600), (root.dir().to_owned(), 0o700)]
        {
            assert_eq!(fs::metadata(&path).unwrap().mode() & MODE_BITS, mode);
        }
        assert!(failed(&examine(&root, false)).is_empty());
    }

    #[test]
    fn a_damaged_key_is_replaced_only_when_asked_and_loudly() {
        let (_dir, root) = root();
        let (old, _) = Identity::load_or_create(&root).unwrap();
        fs::write(root.identity_key(), "garbage").unwrap();
        let report = examine(&root, false);
        assert_eq!(worst(&report, "identity"), Some((Status::Fail, Some("available"))));
        assert_eq!(fs::read_to_string(root.identity_key()).unwrap(), "garbage");
        let report = examine(&root, true);
        assert_eq!(worst(&report, "identity"), Some((Status::Warn, Some("fixed"))));
        assert!(report.checks.iter().any(|check| check.message.contains("THE IDENTITY HAS CHANGED")));
        let new = Identity::load(&root).unwrap();
        assert_ne!(new.id, old.id);
        let kept = |entry: io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            path.display().to_string().contains("identity.key.damaged-")
                && fs::read_to_string(path).unwrap() == "garbage"
        };
        assert!(fs::read_dir(root.dir()).unwrap().any(kept));
        // A lost key as well.
        fs::remove_file(root.identity_key()).unwrap();
        assert_eq!(worst(&examine(&root, false), "identity"), Some((Status::Fail, Some("available"))));
        assert!(failed(&examine(&root, true)).is_empty());
        // The public half is only a copy.
        fs::remove_file(root.identity_pub()).unwrap();
        assert_eq!(worst(&examine(&root, true), "identity.pub"), Some((Status::Ok, Some("fixed"))));
    }

    #[test]
    fn what_a_dead_daemon_left_is_removed() {
        let (_dir, root) = root();
        drop(UnixListener::bind(root.socket()).unwrap());
        fs::write(root.lock(), "4194304\n").unwrap();
        assert_eq!(worst(&examine(&root, false), "socket"), Some((Status::Warn, Some("available"))));
        assert_eq!(worst(&examine(&root, true), "socket"), Some((Status::Ok, Some("fixed"))));
        assert!(!root.socket().exists());
        assert_eq!(worst(&examine(&root, false), "lock"), Some((Status::Ok, None)));
    }

    #[test]
    fn a_held_lock_without_a_socket_is_told_and_keys_are_left() {
        let (_dir, root) = root();
        Identity::load_or_create(&root).unwrap();
        fs::write(root.identity_key(), "garbage").unwrap();
        let _lock = Lock::acquire(&root).unwrap();
        for fix in [false, true] {
            let report = examine(&root, fix);
            assert_eq!(worst(&report, "lock"), Some((Status::Fail, None)));
            assert_eq!(worst(&report, "identity"), Some((Status::Fail, None)));
            assert!(
                report.checks.iter().any(|check| check.message.contains(&std::process::id().to_string()))
            );
        }
        assert_eq!(fs::read_to_string(root.identity_key()).unwrap(), "garbage");
    }

    #[test]
    fn bad_config_is_told_with_its_place() {
        let (_dir, root) = root();
        fs::write(root.config(), "# mine\nprot = 7100\n").unwrap();
        let report = examine(&root, true);
        let check = report.checks.iter().find(|check| check.name == "config").unwrap();
        assert_eq!((check.status, check.spot), (Status::Fail, Some(Spot { line: 2, column: 1 })));
        let line = serde_json::to_value(check).unwrap();
        assert_eq!((&line["line"], &line["column"], &line["key"]), (&json!(2), &json!(1), &json!("prot")));

        let (own, _) = Identity::load_or_create(&root).unwrap();
        let text =
            format!("[[peers]]\nagent_id = \"{}\"\npubkey = \"{}\"\naddr = \"a:1\"", own.id, own.public);
        fs::write(root.config(), text).unwrap();
        let report = examine(&root, false);
        let found = report.checks.iter().find(|check| check.message.contains("this agent itself")).unwrap();
        assert_eq!(found.spot.unwrap().line, 2);
    }

    #[test]
    fn a_port_in_use_and_damaged_state_are_found() {
        let (_dir, root) = root();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        fs::write(root.config(), format!("port = {port}\nbind = \"127.0.0.1\"\n")).unwrap();
        fs::write(root.known_peers(), "{").unwrap();
        fs::write(root.replay_log(), "nonsense that is long enough to be no torn beginning at all").unwrap();
        let report = examine(&root, true);
        assert_eq!(failed(&report), ["port"]);
        assert_eq!(worst(&report, "known_peers"), Some((Status::Ok, Some("fixed"))));
        assert_eq!(worst(&report, "replay_log"), Some((Status::Ok, Some("fixed"))));
        drop(socket);
        let report = examine(&root, false);
        assert!(failed(&report).is_empty());
        assert_eq!(worst(&report, "known_peers"), None);
    }

    /// A daemon that knows three peers: one well, one with a wrong clock, one away.
    fn daemon(listener: &UnixListener) {
        // The first connection only finds out that somebody listens.
        listener.accept().unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut writer = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines() {
            let command: Json = serde_json::from_str(&line.unwrap()).unwrap();
            let id = &command["req_id"];
            let reply = match command["cmd"].as_str().unwrap() {
                "hello" => json!({"ok": true, "req_id": id, "version": 2}),
                "whoami" => json!({"ok": true, "req_id": id, "version": "0.0.1"}),
                "peers" => json!({"ok": true, "req_id": id, "peers": [
                    {"id": "well", "addr": "a:1", "source": "static"},
                    {"id": "late", "addr": "b:1", "source": "static", "name": "bob"},
                    {"id": "away", "addr": "c:1", "source": "static"},
                    {"id": "found", "addr": "d:1", "source": "mdns"},
                ]}),
                _ if command["to"] == "away" => {
                    json!({"ok": false, "req_id": id, "error": "peer_unreachable", "message": "nobody home"})
                }
                _ => {
                    let skew = if command["to"] == "late" { 60_000 } else { 0 };
                    json!({"ok": true, "req_id": id, "response": {"kind": "pong", "ts": unix_ms() - skew}})
                }
            };
            writer.write_all(format!("{reply}\n").as_bytes()).unwrap();
        }
    }

    #[test]
    fn peers_are_asked_through_the_daemon() {
        let (_dir, root) = root();
        let listener = UnixListener::bind(root.socket()).unwrap();
        files::set_mode(&root.socket(), MODE_PRIVATE).unwrap();
        let report = std::thread::scope(|scope| {
            scope.spawn(|| daemon(&listener));
            examine(&root, false)
        });
        assert_eq!(worst(&report, "daemon"), Some((Status::Warn, None)), "{:?}", report.checks);
        assert_eq!(failed(&report), ["peer"]);
        let told = |part: &str| report.checks.iter().any(|check| check.message.contains(part));
        assert!(told("well answers in") && told("nobody home") && !told("found"));
        assert!(told("bob (late)") && (told("60 s behind ours") || told("59 s behind ours")));
    }
}
