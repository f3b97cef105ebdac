//! `axon service`: the daemon as a service of this user, under systemd or launchd.
//!
//! [`unit`] says which service belongs to a root and what its file holds, [`systemd`] and [`launchd`] speak
//! to the two managers. What those have in common is here: the order of the steps, and what a person is told.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::output::{CliError, CliResult, EXIT_DONE, EXIT_LOCAL, Paint, printable};
use super::{Context, instances, link, root_error, show};
use crate::disk::{Config, files, lock};
use unit::{Found, Service};

mod launchd;
mod systemd;
mod tool;
mod unit;

/// How long a daemon that was started may take to answer.
const ANSWER: Duration = Duration::from_secs(20);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(50);
/// How often its manager is asked meanwhile whether it has given up.
const LOOK_AT_MANAGER: Duration = Duration::from_secs(1);
/// Mode of a service's file: it holds no secret, and others' tools may look at it.
const FILE_MODE: u32 = 0o644;
/// Lines of the log, where nobody says how many.
const LOG_LINES: u32 = 100;

/// Run the daemon as a service of yours: started at login, restarted when it fails.
///
/// A systemd user unit on Linux, a launchd agent on macOS. Each instance (--name) and each root (--root) has
/// a service of its own.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  axon service install --print\n  axon service install\n  axon service logs -f"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// The service manager, where it is not this system's usual one
    #[arg(long, value_enum, global = true, hide = true)]
    manager: Option<Which>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write the service's file, start it now and at each login, and wait until the daemon answers
    ///
    /// Doing it again changes nothing, or brings an older file up to date. A file that was edited by hand is
    /// left alone without --force; for changes that last use `systemctl --user edit axon`.
    #[command(after_help = "Example:\n  axon --name work service install")]
    Install {
        /// Show what would be written and run, and do nothing
        #[arg(long)]
        print: bool,
        /// Write the file anew though it was edited; the edited one is kept beside it
        #[arg(long)]
        force: bool,
    },
    /// Stop the service and remove its file; the agent's directory stays
    #[command(after_help = "Example:\n  axon service uninstall")]
    Uninstall {
        /// Show what would be removed and run, and do nothing
        #[arg(long)]
        print: bool,
    },
    /// Say how service and daemon are; exit code 0 where it runs and answers
    #[command(after_help = "Example:\n  axon service status --json")]
    Status,
    /// Show what the daemon has logged
    #[command(after_help = "Example:\n  axon service logs -n 20 -f")]
    Logs {
        /// Go on with what is logged from now on
        #[arg(short, long)]
        follow: bool,
        /// How many of the last lines
        #[arg(short = 'n', long, value_name = "N", default_value_t = LOG_LINES)]
        lines: u32,
    },
    /// Print the unit that a package installs, for a program that will be there
    #[command(hide = true)]
    Unit {
        /// The program's place
        program: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    Systemd,
    Launchd,
}

/// How a service is, as its manager says.
#[derive(Debug, Clone, Default, Serialize)]
struct State {
    /// In one word, such as `running`, `stopped`, `failed`, `starting`.
    state: String,
    /// Whether it is started at login.
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// What the manager or the daemon says besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Whether the manager knows it at all.
    #[serde(skip)]
    known: bool,
}

impl State {
    fn runs(&self) -> bool {
        self.state == "running"
    }

    /// Whether nothing will come of waiting.
    fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "failed" | "stopped")
    }
}

/// What a manager of services can do with one of them.
trait Manager {
    /// The service's file.
    fn path(&self) -> &Path;
    /// What the file is to hold.
    fn text(&self) -> &str;
    /// The file of a package that serves as well, so that none is written.
    fn packaged(&self) -> Option<&Path>;
    /// What it is called by its manager.
    fn name(&self) -> &str;
    /// Commands that take a written file up, and start the service or start it again.
    fn start_commands(&self, before: &State, again: bool) -> Vec<tool::Call>;
    /// Commands that stop it for good, before and after its file is removed.
    fn stop_commands(&self) -> (Vec<tool::Call>, Vec<tool::Call>);
    /// Whether the manager is there at all.
    fn check(&self) -> Result<(), CliError>;
    /// How the service is.
    fn state(&self) -> Result<State, CliError>;
    /// What a failure of one of its commands means.
    fn explain(&self, failed: &tool::Failed) -> CliError;
    /// What is worth a word to who has just installed it.
    fn advice(&self) -> Option<String>;
    /// Shows the log.
    fn logs(&self, cx: &Context, follow: bool, lines: u32) -> CliResult;
}

pub(super) fn run(cx: &Context, args: Args) -> CliResult {
    if let What::Unit { program } = args.what {
        cx.out.raw(&unit::systemd(&Service::packaged(&program)))?;
        return Ok(EXIT_DONE);
    }
    let service = Service::of(&cx.root)?;
    let usual = if cfg!(target_os = "macos") { Which::Launchd } else { Which::Systemd };
    let manager: Box<dyn Manager> = match args.manager.unwrap_or(usual) {
        Which::Systemd => Box::new(systemd::Systemd::new(&service)?),
        Which::Launchd => Box::new(launchd::Launchd::new(&service)?),
    };
    let manager = manager.as_ref();
    match args.what {
        What::Install { print: true, .. } => print_install(cx, manager),
        What::Install { force, .. } => install(cx, manager, force),
        What::Uninstall { print: true } => print_uninstall(cx, manager),
        What::Uninstall { .. } => uninstall(cx, manager),
        What::Status => status(cx, manager),
        What::Logs { follow, lines } => manager.logs(cx, follow, lines),
        What::Unit { .. } => Ok(EXIT_DONE),
    }
}

/// For `axon doctor`: whether the daemon of this root is a service. None where that is not known.
pub(super) fn glance(root: &crate::disk::Root) -> Option<(bool, String)> {
    let service = Service::of(root).ok()?;
    let manager: Box<dyn Manager> = if cfg!(target_os = "macos") {
        Box::new(launchd::Launchd::new(&service).ok()?)
    } else {
        Box::new(systemd::Systemd::new(&service).ok()?)
    };
    let name = manager.name();
    if matches!(Found::at(manager.path(), manager.text()), Ok(Found::Nothing)) && manager.packaged().is_none()
    {
        return None;
    }
    let state = manager.state().ok()?;
    // What a package brought along, and nobody has asked for, is no service of this agent.
    if manager.packaged().is_some() && !state.enabled && !state.runs() {
        return None;
    }
    let said = state.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
    let at_login = if state.enabled { "" } else { "; it is not started at login" };
    let hint = if state.runs() {
        String::new()
    } else {
        format!(": `axon{} service logs` may say why", root.flags())
    };
    Some((state.runs(), format!("{name} is {}{said}{at_login}{hint}", state.state)))
}

// --- install ---

fn print_install(cx: &Context, manager: &dyn Manager) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        service: &'a str,
        path: &'a str,
        text: Option<&'a str>,
        commands: Vec<String>,
    }
    // As it is done where there is nothing yet.
    let calls = manager.start_commands(&State::default(), false);
    let commands: Vec<String> = calls.iter().map(ToString::to_string).collect();
    let (path, text) = match manager.packaged() {
        Some(path) => (path, None),
        None => (manager.path(), Some(manager.text())),
    };
    let shown = path.display().to_string();
    let line = Line { ok: true, service: manager.name(), path: &shown, text, commands };
    cx.out.result(&line, || {
        let file = match text {
            Some(text) => format!("# {shown}\n{text}"),
            None => format!("# {shown} is there already\n"),
        };
        format!("{file}\n# and then:\n{}", line.commands.join("\n"))
    })?;
    Ok(EXIT_DONE)
}

fn install(cx: &Context, manager: &dyn Manager, force: bool) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        service: &'a str,
        path: &'a str,
        /// Whether the file was written.
        written: bool,
        agent_id: &'a str,
    }
    let (name, flags) = (manager.name(), &cx.flags);
    // What would keep the daemon from starting is better told here than in its log.
    cx.root.open().map_err(root_error)?;
    Config::load(&cx.root.config()).map_err(|e| CliError::local("invalid_config", e.to_string()))?;
    let path = manager.packaged().unwrap_or_else(|| manager.path());
    let found = match manager.packaged() {
        Some(_) => Found::Same,
        None => Found::at(path, manager.text())?,
    };
    if found == Found::Edited && !force {
        let message = format!(
            "{} was edited by hand, and stays as it is: `axon{flags} service install --force` writes it anew \
             and keeps the edited one as {}",
            path.display(),
            unit::aside(path).display()
        );
        return Err(CliError::local("edited", message));
    }
    manager.check()?;
    let before = manager.state()?;
    if !before.runs() && instances::is_running(&cx.root) {
        let pid = lock::pid(&cx.root).map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        let dir = cx.root.dir().display();
        let message = format!("a daemon that is not {name} runs on {dir}{pid}: stop it, then install again");
        return Err(CliError::local("locked", message));
    }
    let written = found != Found::Same;
    if written {
        write(path, manager.text(), found == Found::Edited)?;
    }
    for call in manager.start_commands(&before, written && before.runs()) {
        call.run().map_err(|failed| or_why(cx, manager, &failed))?;
    }
    let agent_id = super::drive_for(wait_until_it_answers(cx, manager))?;
    let shown = path.display().to_string();
    cx.out.result(&Line { ok: true, service: name, path: &shown, written, agent_id: &agent_id }, || {
        let done = match (found, before.runs()) {
            (Found::Same, true) => "runs already, and nothing was changed",
            (_, true) => "was started again with a new file",
            _ => "runs, now and from each login on",
        };
        format!(
            "{} {done}\n{shown}\n{}",
            cx.out.paint(Paint::Good, name),
            cx.out.paint(Paint::Dim, &agent_id)
        )
    })?;
    if let Some(advice) = manager.advice() {
        cx.out.note(|| advice);
    }
    Ok(EXIT_DONE)
}

fn write(path: &Path, text: &str, keep: bool) -> Result<(), CliError> {
    let io = |what: &str, path: &Path, error: &dyn std::fmt::Display| {
        CliError::local("io", format!("cannot {what} {}: {error}", path.display()))
    };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|error| io("make", dir, &error))?;
    }
    if keep {
        let aside = unit::aside(path);
        std::fs::rename(path, &aside).map_err(|error| io("set aside", path, &error))?;
    }
    files::write_atomic(path, text.as_bytes(), FILE_MODE).map_err(|error| io("write", path, &error))
}

/// The daemon's id, once it answers.
async fn wait_until_it_answers(cx: &Context, manager: &dyn Manager) -> Result<String, CliError> {
    let began = Instant::now();
    let mut asked = began;
    loop {
        if let Ok(client) = cx.reach(link::CONSUMER).await {
            cx.compare_version(client.welcome());
            return Ok(client.welcome().agent_id.clone());
        }
        let over = if asked.elapsed() > LOOK_AT_MANAGER {
            asked = Instant::now();
            manager.state().is_ok_and(|state| state.is_over())
        } else {
            false
        };
        if over || began.elapsed() > ANSWER {
            return Err(why_not(cx, manager));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What a failed command means; where it is the daemon's own failure, why.
fn or_why(cx: &Context, manager: &dyn Manager, failed: &tool::Failed) -> CliError {
    match manager.state() {
        Ok(state) if failed.call.starts && state.known && !state.runs() => why_not(cx, manager),
        _ => manager.explain(failed),
    }
}

fn why_not(cx: &Context, manager: &dyn Manager) -> CliError {
    let state = manager.state().unwrap_or_default();
    let how = if state.state.is_empty() { "of unknown state" } else { &state.state };
    let detail = state.detail.map(|detail| format!(" ({})", printable(&detail))).unwrap_or_default();
    let (name, flags) = (manager.name(), &cx.flags);
    let message = format!(
        "{name} is installed, and its daemon does not answer: it is {how}{detail}. `axon{flags} service \
         logs` shows what it said, and `axon{flags} doctor` finds what is wrong"
    );
    CliError::local("service_failed", message)
}

// --- uninstall ---

fn print_uninstall(cx: &Context, manager: &dyn Manager) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        service: &'a str,
        path: Option<String>,
        commands: Vec<String>,
    }
    let (before, after) = manager.stop_commands();
    let path = manager.path().exists().then(|| manager.path().display().to_string());
    let commands = before.iter().chain(&after).map(ToString::to_string).collect();
    let line = Line { ok: true, service: manager.name(), path, commands };
    cx.out.result(&line, || {
        let mut lines: Vec<String> = before.iter().map(ToString::to_string).collect();
        lines.extend(line.path.iter().map(|path| format!("rm {}", show::quoted(Path::new(path)))));
        lines.extend(after.iter().map(ToString::to_string));
        lines.join("\n")
    })?;
    Ok(EXIT_DONE)
}

fn uninstall(cx: &Context, manager: &dyn Manager) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        service: &'a str,
        /// Whether there was one.
        removed: bool,
        /// Where an edited file is kept.
        #[serde(skip_serializing_if = "Option::is_none")]
        kept: Option<String>,
    }
    let (name, path) = (manager.name(), manager.path());
    let found = Found::at(path, manager.text())?;
    manager.check()?;
    let state = manager.state()?;
    let removed = found != Found::Nothing || state.runs() || state.enabled;
    let mut kept = None;
    if removed {
        let (before, after) = manager.stop_commands();
        let run = |calls: Vec<tool::Call>| {
            calls.iter().try_for_each(|call| call.run().map(drop).map_err(|failed| manager.explain(&failed)))
        };
        run(before)?;
        let gone = match found {
            Found::Nothing => Ok(()),
            Found::Edited => {
                let aside: PathBuf = unit::aside(path);
                kept = Some(aside.display().to_string());
                std::fs::rename(path, aside)
            }
            Found::Older | Found::Same => std::fs::remove_file(path),
        };
        gone.map_err(|e| CliError::local("io", format!("cannot remove {}: {e}", path.display())))?;
        run(after)?;
    }
    let line = Line { ok: true, service: name, removed, kept };
    cx.out.result(&line, || {
        if !removed {
            return format!("{name} is not installed");
        }
        let dir = cx.root.dir().display();
        let kept = line.kept.as_ref().map(|path| format!("\nits edited file is kept as {path}"));
        format!("{name} is stopped and removed; {dir} stays{}", kept.unwrap_or_default())
    })?;
    Ok(EXIT_DONE)
}

// --- status ---

fn status(cx: &Context, manager: &dyn Manager) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
        service: &'a str,
        installed: bool,
        #[serde(flatten)]
        state: &'a State,
        /// Whether a daemon answers on the root's socket.
        answers: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        agent_id: Option<&'a str>,
    }
    manager.check()?;
    let state = manager.state()?;
    let (name, flags) = (manager.name(), &cx.flags);
    let installed = manager.path().exists() || state.enabled;
    let asked = super::drive_for(async { Ok(cx.reach(link::CONSUMER).await) })?;
    let agent_id = asked.ok().map(|client| client.welcome().agent_id.clone());
    let answers = agent_id.is_some();
    let trouble = match (installed, state.runs(), answers) {
        (true, true, true) => None,
        (true, true, false) => {
            let text = format!("{name} runs, and its daemon does not answer: see `axon{flags} service logs`");
            Some(("not_answering", text))
        }
        (true, false, true) => {
            let text = format!("{name} does not run, and another daemon answers on its root: stop that one");
            Some(("other_daemon", text))
        }
        (true, false, false) => {
            let text = format!(
                "{name} is {}: see `axon{flags} service logs`, and start it with `{}`",
                state.state,
                manager
                    .start_commands(&State { known: true, ..state.clone() }, false)
                    .last()
                    .map(ToString::to_string)
                    .unwrap_or_default()
            );
            Some(("not_running", text))
        }
        (false, _, true) => {
            let text = format!("{name} is not installed; a daemon that was started otherwise answers");
            Some(("not_installed", text))
        }
        (false, _, false) => {
            let text = format!("{name} is not installed: `axon{flags} service install` does that");
            Some(("not_installed", text))
        }
    };
    let (error, message) = match &trouble {
        Some((code, text)) => (Some(*code), Some(text.as_str())),
        None => (None, None),
    };
    let ok = trouble.is_none();
    let id = agent_id.as_deref();
    let line = Line { ok, error, message, service: name, installed, state: &state, answers, agent_id: id };
    cx.out.result(&line, || words(cx, name, &line.state.clone(), id, message))?;
    Ok(if ok { EXIT_DONE } else { EXIT_LOCAL })
}

fn words(cx: &Context, name: &str, state: &State, id: Option<&str>, trouble: Option<&str>) -> String {
    if let Some(trouble) = trouble {
        let detail = state.detail.as_ref().map(|detail| format!("\n{}", printable(detail)));
        return format!("{}{}", cx.out.paint(Paint::Bad, trouble), detail.unwrap_or_default());
    }
    let pid = state.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let login = if state.enabled { "is started at login" } else { "is not started at login" };
    let detail = state.detail.as_ref().map(|detail| format!("\n{}", printable(detail))).unwrap_or_default();
    format!(
        "{name} {}{pid}, and {login}\n{}{detail}",
        cx.out.paint(Paint::Good, "runs and answers"),
        cx.out.paint(Paint::Dim, id.unwrap_or_default())
    )
}
