//! systemd, as the user's own manager: `systemctl --user`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::tool::{Call, Failed, Why, uid};
use super::unit::{self, Service};
use super::{Manager, State};
use crate::cli::Context;
use crate::cli::output::{CliError, CliResult};

const PROPERTIES: &str = "--property=LoadState,UnitFileState,ActiveState,SubState,Result,MainPID,NRestarts,\
                          StatusText,ActiveEnterTimestamp";

pub(super) struct Systemd {
    unit: String,
    path: PathBuf,
    text: String,
    packaged: Option<PathBuf>,
}

impl Systemd {
    pub fn new(service: &Service) -> Result<Self, CliError> {
        let unit = format!("{}.service", service.name);
        let path = config_dir()?.join("systemd/user").join(&unit);
        // A package's unit lies beside its program, `../lib/systemd/user`; the user's own comes first.
        let prefix = Path::new(&service.program).parent().and_then(Path::parent);
        let packaged = prefix.map(|prefix| prefix.join("lib/systemd/user").join(&unit));
        let serves = |packaged: &PathBuf| service.is_default() && packaged.exists() && !path.exists();
        Ok(Self { unit, text: unit::systemd(service), packaged: packaged.filter(serves), path })
    }

    fn systemctl(&self, args: &[&str]) -> Call {
        Call::new("systemctl", &[&["--user"], args].concat())
    }
}

/// Where the user's own settings are.
fn config_dir() -> Result<PathBuf, CliError> {
    let of_env = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let dir = of_env.or_else(|| Some(std::env::home_dir()?.join(".config")).filter(|dir| dir.is_absolute()));
    dir.ok_or_else(|| CliError::usage("there is no home directory to hold the service's file: set HOME"))
}

impl Manager for Systemd {
    fn path(&self) -> &Path {
        &self.path
    }

    fn text(&self) -> &str {
        &self.text
    }

    fn packaged(&self) -> Option<&Path> {
        self.packaged.as_deref()
    }

    fn name(&self) -> &str {
        &self.unit
    }

    fn start_commands(&self, before: &State, again: bool) -> Vec<Call> {
        let unit = self.unit.as_str();
        if again {
            let restart = self.systemctl(&["restart", unit]).starting();
            return vec![self.systemctl(&["daemon-reload"]), self.systemctl(&["enable", unit]), restart];
        }
        let mut calls = vec![self.systemctl(&["daemon-reload"])];
        // One that failed too often is not started again before it is forgiven.
        if before.state == "failed" {
            calls.push(self.systemctl(&["reset-failed", unit]));
        }
        calls.push(self.systemctl(&["enable", "--now", unit]).starting());
        calls
    }

    fn stop_commands(&self) -> (Vec<Call>, Vec<Call>) {
        let unit = self.unit.as_str();
        let after = [self.systemctl(&["daemon-reload"]), self.systemctl(&["reset-failed", unit]).optional()];
        (vec![self.systemctl(&["disable", "--now", unit])], after.to_vec())
    }

    fn check(&self) -> Result<(), CliError> {
        let asked = self.systemctl(&["show", "--property=Version"]).run();
        asked.map(drop).map_err(|failed| self.explain(&failed))
    }

    fn state(&self) -> Result<State, CliError> {
        let said = self.systemctl(&["show", &self.unit, PROPERTIES]).run();
        Ok(read_state(&said.map_err(|failed| self.explain(&failed))?))
    }

    fn explain(&self, failed: &Failed) -> CliError {
        let text = failed.to_string();
        match &failed.why {
            Why::Missing => CliError::local(
                "no_systemd",
                format!(
                    "{text}, so that axon cannot be a service here: run `axon daemon` from the system's own \
                     manager of services (`axon service install --print` shows a unit to go by)"
                ),
            ),
            Why::No(_, said) if is_about_the_bus(said) => CliError::local(
                "no_bus",
                format!(
                    "{text}. Your own systemd is not there: log in as this user by ssh or on a terminal, not \
                     by su or sudo; on a server, `sudo loginctl enable-linger {}` starts it",
                    user()
                ),
            ),
            Why::No(..) | Why::System(_) => {
                CliError::local("service_manager", format!("{text}. `systemctl --user status` may say more"))
            }
        }
    }

    fn advice(&self) -> Option<String> {
        let (uid, user) = (uid().to_string(), user());
        let linger = Call::new("loginctl", &["show-user", &uid, "--property=Linger", "--value"]).run();
        match linger {
            Ok(said) if said.trim() == "yes" => None,
            Err(Failed { why: Why::Missing, .. }) => None,
            _ => Some(format!(
                "it ends when you have logged out everywhere, and starts when you log in: \
                 `loginctl enable-linger {user}` lets it run from boot to shutdown"
            )),
        }
    }

    fn logs(&self, cx: &Context, follow: bool, lines: u32) -> CliResult {
        let lines = lines.to_string();
        let mut args = vec!["--user", "-u", &self.unit, "-n", &lines, "--no-pager"];
        if follow {
            args.push("-f");
        }
        if cx.out.json {
            args.extend(["-o", "json", "--output-fields=MESSAGE,PRIORITY"]);
        }
        let failed = Call::new("journalctl", &args).become_it();
        let text = format!("{failed}, which has the log: see how this system keeps what services print");
        Err(CliError::local("no_journal", text))
    }
}

/// Whether systemctl has not reached the user's manager.
fn is_about_the_bus(said: &str) -> bool {
    ["connect to bus", "XDG_RUNTIME_DIR", "No medium found", "connect to user scope bus"]
        .iter()
        .any(|words| said.contains(words))
}

/// What this user is called, to be written into a command.
fn user() -> String {
    let plain = |name: &String| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    std::env::var("USER").ok().filter(plain).unwrap_or_else(|| uid().to_string())
}

/// What `systemctl show` says, in our words.
fn read_state(said: &str) -> State {
    let all: HashMap<&str, &str> = said.lines().filter_map(|line| line.split_once('=')).collect();
    let get = |name: &str| all.get(name).copied().unwrap_or_default();
    let (result, restarts) = (get("Result"), get("NRestarts"));
    let state = match (get("ActiveState"), get("SubState")) {
        ("active" | "reloading", _) => "running",
        ("activating", "auto-restart") => "about to start again",
        ("activating", _) => "starting",
        ("deactivating", _) => "stopping",
        ("failed", _) => "failed",
        ("inactive", _) => "stopped",
        ("", _) => "",
        (other, _) => other,
    };
    let mut detail = Vec::new();
    if !get("StatusText").is_empty() {
        detail.push(get("StatusText").to_owned());
    }
    if state == "running" && !get("ActiveEnterTimestamp").is_empty() {
        detail.push(format!("since {}", get("ActiveEnterTimestamp")));
    }
    if !["", "success"].contains(&result) {
        detail.push(format!("ended by {result}"));
    }
    match restarts {
        "" | "0" => {}
        "1" => detail.push("started again once".to_owned()),
        more => detail.push(format!("started again {more} times")),
    }
    State {
        state: state.to_owned(),
        enabled: matches!(get("UnitFileState"), "enabled" | "enabled-runtime" | "static" | "linked"),
        pid: get("MainPID").parse().ok().filter(|pid| *pid != 0),
        detail: (!detail.is_empty()).then(|| detail.join("; ")),
        known: !["", "not-found"].contains(&get("LoadState")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemctl_shows_is_told_in_words() {
        let state = read_state(
            "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nSubState=running\nResult=success\n\
             MainPID=42\nNRestarts=0\nStatusText=2 peers connected, 1 client\n\
             ActiveEnterTimestamp=Sat 2026\n",
        );
        assert!(state.runs() && state.enabled && state.known);
        assert_eq!(state.pid, Some(42));
        assert_eq!(state.detail.as_deref(), Some("2 peers connected, 1 client; since Sat 2026"));
        let state = read_state(
            "LoadState=loaded\nUnitFileState=disabled\nActiveState=failed\nSubState=failed\n\
             Result=exit-code\nMainPID=0\nNRestarts=5\nStatusText=\n",
        );
        assert!(state.is_over() && !state.enabled && state.pid.is_none());
        assert_eq!(state.detail.as_deref(), Some("ended by exit-code; started again 5 times"));
        let state = read_state("LoadState=loaded\nActiveState=activating\nSubState=auto-restart\n");
        assert!(!state.is_over() && state.state == "about to start again");
        assert!(!read_state("LoadState=not-found\nActiveState=inactive\n").known);
        assert!(!read_state("").known);
    }

    #[test]
    fn a_missing_bus_is_known_by_what_is_said_of_it() {
        for said in [
            "Failed to connect to bus: No medium found",
            "Failed to connect to bus: $DBUS_SESSION_BUS_ADDRESS and $XDG_RUNTIME_DIR not defined",
            "Failed to connect to user scope bus via local transport: Operation not permitted",
        ] {
            assert!(is_about_the_bus(said), "{said}");
        }
        assert!(!is_about_the_bus("Failed to enable unit: Unit file axon.service does not exist."));
    }
}
