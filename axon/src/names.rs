//! Names of hosts, looked up by a process of its own: `axon`, for the daemon.
//!
//! The system's way to look a name up is to load what its settings say (files, DNS, mDNS, a resolver's own).
//! A daemon that is linked as a whole cannot load that, and another would keep it in its memory. Why:
//! `spec/decisions/0020-a-daemon-without-libraries.md`.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;

use axon_proto::limits::ADDRS_PER_PEER_MAX;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;

/// What the only argument of such a process begins with; `host:port` follows.
const ASKED: &str = "--addresses-of=";
/// How many names may be looked up at a time; others wait their turn.
const AT_ONCE: usize = 4;
/// What is read of an answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 4_096;

/// Whoever looks names up.
#[derive(Debug, Clone)]
pub struct Names {
    program: PathBuf,
    turns: Arc<Semaphore>,
}

impl Names {
    /// The program that does it: `axon`.
    pub fn by(program: PathBuf) -> Self {
        Self { program, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The addresses of `host:port`, or why there is none. Who waits no longer ends the process with it.
    pub async fn look_up(&self, name: &str) -> Result<Vec<SocketAddr>, String> {
        if !name.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        {
            return Err(format!("{name} is no address: write host:port"));
        }
        let _turn = self.turns.acquire().await;
        let said = self.ask(name).await.map_err(|error| {
            format!("{name} could not be looked up ({} does not run: {error})", self.program.display())
        })?;
        let found: Vec<_> =
            said.lines().filter_map(|line| line.parse().ok()).take(ADDRS_PER_PEER_MAX).collect();
        match said.lines().next().map(str::trim) {
            _ if !found.is_empty() => Ok(found),
            None | Some("") => Err(format!("{name} has no address")),
            Some(why) => Err(format!("{name} could not be looked up ({why})")),
        }
    }

    /// What is said of it. How the process ends says no more, and nobody may be told: a daemon whose parent
    /// ignored the ends of its children does so too.
    async fn ask(&self, name: &str) -> std::io::Result<String> {
        let mut asked = Command::new(&self.program);
        asked.arg(format!("{ASKED}{name}")).kill_on_drop(true);
        let mut child = asked.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut said = Vec::new();
        if let Some(out) = child.stdout.take() {
            out.take(ANSWER_BYTES_MAX).read_to_end(&mut said).await.ok();
        }
        child.wait().await.ok();
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

/// Answers a daemon that looks a name up, when these are the arguments of that: an address a line, or why
/// there is none.
pub fn tell(args: &[OsString]) -> Option<ExitCode> {
    let [_, asked] = args else { return None };
    let (text, code) = match asked.to_str()?.strip_prefix(ASKED)?.to_socket_addrs() {
        Ok(found) => {
            let lines = found.take(ADDRS_PER_PEER_MAX).map(|addr| format!("{addr}\n"));
            (lines.collect(), ExitCode::SUCCESS)
        }
        Err(error) => (error.to_string(), ExitCode::FAILURE),
    };
    // Nobody is there to be told when it cannot be written.
    std::io::stdout().write_all(text.as_bytes()).ok();
    Some(code)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    /// A program that this script is of. The directory has to stay.
    pub(crate) fn by_script(script: &str) -> (tempfile::TempDir, Names) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        // Written by another process: a program that this one has open for writing, if only in a child that
        // another test is about to start, cannot be run.
        let mut writer = std::process::Command::new("sh");
        writer
            .args(["-c", "printf '#!/bin/sh\n%s\n' \"$1\" >\"$0\" && chmod 700 \"$0\""])
            .arg(&path)
            .arg(script);
        assert!(writer.status().unwrap().success());
        (dir, Names::by(path))
    }

    #[tokio::test]
    async fn an_answer_is_addresses_or_the_reason() {
        let said = |script: &'static str| async move {
            let (_dir, names) = by_script(script);
            names.look_up("host:7").await
        };
        let found = said("echo 192.0.2.1:7; echo nonsense; echo '[2001:db8::1]:7'").await.unwrap();
        assert_eq!(found, ["192.0.2.1:7".parse().unwrap(), "[2001:db8::1]:7".parse().unwrap()]);
        let many = said("for i in $(seq 99); do echo 192.0.2.1:7; done").await.unwrap();
        assert_eq!(many.len(), ADDRS_PER_PEER_MAX);
        assert_eq!(said("true").await.unwrap_err(), "host:7 has no address");
        let why = said("echo no such name; exit 1").await.unwrap_err();
        assert_eq!(why, "host:7 could not be looked up (no such name)");
        let why = Names::by("/nowhere/axon".into()).look_up("host:7").await.unwrap_err();
        assert!(why.starts_with("host:7 could not be looked up (/nowhere/axon does not run: "), "{why}");
        for name in ["host", "host:", ":7", "host:70000", ""] {
            let (_dir, names) = by_script("echo 192.0.2.1:7");
            let why = names.look_up(name).await.unwrap_err();
            assert_eq!(why, format!("{name} is no address: write host:port"));
        }
    }

    #[tokio::test]
    async fn the_name_comes_as_it_is_and_an_answer_is_bounded() {
        let (dir, names) = by_script("printf '%s' \"$*\" >\"$0.asked\"; yes 192.0.2.1:7");
        assert_eq!(names.look_up("$(true) --help:7").await.unwrap().len(), ADDRS_PER_PEER_MAX);
        let asked = std::fs::read_to_string(dir.path().join("names.asked")).unwrap();
        assert_eq!(asked, format!("{ASKED}$(true) --help:7"));
    }

    #[tokio::test]
    async fn so_many_at_a_time_and_none_that_nobody_waits_for() {
        let (dir, names) = by_script("echo $$ >>\"$0.pids\"; exec sleep 600");
        let waiting: Vec<_> = (0..2 * AT_ONCE)
            .map(|_| {
                let names = names.clone();
                tokio::spawn(async move { names.look_up("host:7").await })
            })
            .collect();
        let pids = || std::fs::read_to_string(dir.path().join("names.pids")).unwrap_or_default();
        let until = |holds: &dyn Fn() -> bool| {
            let end = std::time::Instant::now() + Duration::from_secs(10);
            while !holds() {
                assert!(std::time::Instant::now() < end, "{}", pids());
                std::thread::yield_now();
            }
        };
        // Each turn begins only where another has ended.
        let all = async {
            while pids().lines().count() < AT_ONCE {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all).await.unwrap();
        assert_eq!((names.turns.available_permits(), pids().lines().count()), (0, AT_ONCE));
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        for one in waiting {
            assert!(one.await.unwrap_err().is_cancelled());
        }
        assert_eq!(names.turns.available_permits(), AT_ONCE);
        let lives = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
        };
        if cfg!(target_os = "linux") {
            until(&|| !pids().lines().any(lives));
        }
    }
}
