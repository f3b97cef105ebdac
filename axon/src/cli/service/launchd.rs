//! launchd, on macOS: an agent of the user, by `launchctl`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Serialize;

use super::tool::{Call, Failed, Why, uid};
use super::unit::{self, Service};
use super::{Manager, State};
use crate::cli::Context;
use crate::cli::output::{CliError, CliResult, EXIT_DONE, printable};

pub(super) struct Launchd {
    label: String,
    path: PathBuf,
    text: String,
    log: PathBuf,
}

impl Launchd {
    pub fn new(service: &Service) -> Result<Self, CliError> {
        let home = std::env::home_dir().filter(|home| home.is_absolute()).ok_or_else(|| {
            CliError::usage("there is no home directory to hold the service's file: set HOME")
        })?;
        let label = service.name.replacen("axon", "axon.daemon", 1);
        let path = home.join("Library/LaunchAgents").join(format!("{label}.plist"));
        let log = home.join("Library/Logs").join(format!("{label}.log"));
        let shown = log.to_str().ok_or_else(|| {
            CliError::usage(format!(
                "{} cannot stand in a service's file: it is no plain text",
                log.display()
            ))
        })?;
        let text = unit::launchd(service, &label, shown);
        Ok(Self { label, path, text, log })
    }

    fn domain() -> String {
        format!("gui/{}", uid())
    }

    fn target(&self) -> String {
        format!("{}/{}", Self::domain(), self.label)
    }
}

fn launchctl(args: &[&str]) -> Call {
    Call::new("launchctl", args)
}

impl Manager for Launchd {
    fn path(&self) -> &Path {
        &self.path
    }

    fn text(&self) -> &str {
        &self.text
    }

    fn packaged(&self) -> Option<&Path> {
        None
    }

    fn name(&self) -> &str {
        &self.label
    }

    fn start_commands(&self, before: &State, again: bool) -> Vec<Call> {
        let (target, path) = (self.target(), self.path.display().to_string());
        let enable = launchctl(&["enable", &target]);
        if before.known && !again {
            // It is loaded; one that runs is left alone.
            return vec![enable, launchctl(&["kickstart", &target]).starting()];
        }
        let mut calls = Vec::new();
        if before.known {
            calls.push(launchctl(&["bootout", "--wait", &target]));
        }
        calls.extend([enable, launchctl(&["bootstrap", &Self::domain(), &path]).starting()]);
        calls
    }

    fn stop_commands(&self) -> (Vec<Call>, Vec<Call>) {
        // One that is not loaded needs not be taken out.
        (vec![launchctl(&["bootout", &self.target()]).optional()], Vec::new())
    }

    fn check(&self) -> Result<(), CliError> {
        launchctl(&["print", &Self::domain()]).run().map(drop).map_err(|failed| self.explain(&failed))
    }

    fn state(&self) -> Result<State, CliError> {
        match launchctl(&["print", &self.target()]).run() {
            Ok(said) => Ok(read_state(&said)),
            // It does not know this service.
            Err(Failed { why: Why::No(..), .. }) => {
                Ok(State { state: "stopped".to_owned(), ..State::default() })
            }
            Err(failed) => Err(self.explain(&failed)),
        }
    }

    fn explain(&self, failed: &Failed) -> CliError {
        let text = failed.to_string();
        match &failed.why {
            Why::Missing => {
                let text = format!("{text}: this is launchd's own program, and only macOS has it");
                CliError::local("no_launchd", text)
            }
            Why::No(..) if failed.call.args.first().is_some_and(|verb| verb == "print") => {
                let text = format!(
                    "{text}. An agent of launchd runs where its user is logged in on the screen: log in there"
                );
                CliError::local("no_session", text)
            }
            Why::No(..) | Why::System(_) => {
                let text = format!("{text}. `launchctl print {}` may say more", self.target());
                CliError::local("service_manager", text)
            }
        }
    }

    fn advice(&self) -> Option<String> {
        None
    }

    fn logs(&self, cx: &Context, follow: bool, lines: u32) -> CliResult {
        if !self.log.exists() {
            let text = format!("there is no {} yet: `axon{} service install`", self.log.display(), cx.flags);
            return Err(CliError::local("no_log", text));
        }
        let lines = lines.to_string();
        let path = self.log.display().to_string();
        let mut args = vec!["-n", &lines];
        if follow {
            args.push("-F");
        }
        args.push(&path);
        let tail = Call::new("tail", &args);
        if !cx.out.json {
            return Err(self.explain(&tail.become_it()));
        }
        as_json(cx, &tail)
    }
}

/// Prints each line that a program prints as a JSON object.
fn as_json(cx: &Context, call: &Call) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        message: &'a str,
    }
    let io = |error: std::io::Error| CliError::local("io", format!("`{call}` cannot be run: {error}"));
    let mut child = call.command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(io)?;
    let Some(stdout) = child.stdout.take() else { return Ok(EXIT_DONE) };
    let mut told = Ok(());
    for line in BufReader::new(stdout).lines() {
        told = line.map_err(io).and_then(|line| cx.out.json(&Line { message: &printable(&line) }));
        if told.is_err() {
            // Nobody reads any more.
            child.kill().ok();
            break;
        }
    }
    child.wait().map_err(io)?;
    told.map(|()| EXIT_DONE)
}

/// What `launchctl print` says, in our words. Only the service's own fields have one tab before them.
fn read_state(said: &str) -> State {
    let get = |name: &str| {
        let fields = said.lines().filter_map(|line| line.strip_prefix('\t')?.split_once(" = "));
        fields.into_iter().find_map(|(key, value)| (key == name).then_some(value.trim()))
    };
    let code = get("last exit code").filter(|code| !["0", "(never exited)"].contains(code));
    let state = match (get("state"), code) {
        (Some("running"), _) => "running",
        (Some("spawn scheduled" | "spawning"), _) => "starting",
        (_, Some(_)) => "failed",
        _ => "stopped",
    };
    State {
        state: state.to_owned(),
        enabled: true,
        pid: get("pid").and_then(|pid| pid.parse().ok()),
        detail: code.map(|code| format!("its last exit code was {code}")),
        known: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_launchctl_prints_is_told_in_words() {
        let state = read_state(
            "gui/501/axon.daemon = {\n\tactive count = 1\n\tstate = running\n\n\tpid = 4242\n\
             \tendpoints = {\n\t\tstate = other\n\t}\n\tlast exit code = (never exited)\n}\n",
        );
        assert!(state.runs() && state.known && state.enabled);
        assert_eq!((state.pid, state.detail), (Some(4242), None));
        let state = read_state("gui/501/axon.daemon = {\n\tstate = not running\n\tlast exit code = 1\n}\n");
        assert_eq!(state.state, "failed");
        assert_eq!(state.detail.as_deref(), Some("its last exit code was 1"));
        assert_eq!(read_state("x = {\n\tstate = not running\n}\n").state, "stopped");
        assert_eq!(
            read_state("x = {\n\tstate = spawn scheduled\n\tlast exit code = 1\n}\n").state,
            "starting"
        );
    }
}
