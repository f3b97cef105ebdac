//! Programs of others, run to their end in time.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::support::cli::Ran;
use crate::support::skip;

/// Where `tests/mcp/install` puts them, if it has.
pub fn installed(test: &str) -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mcp");
    if dir.join("made-of").exists() {
        return Some(dir);
    }
    skip(test, "tests/mcp/install has not been run");
    None
}

/// A program of others, in an environment of its own: it finds no settings, and reaches this machine alone.
pub fn outsider(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).current_dir(home);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    // Nobody listens there: whatever is not meant for this machine fails at once.
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:9");
    }
    for name in ["no_proxy", "NO_PROXY"] {
        command.env(name, "127.0.0.1,localhost");
    }
    command
}

/// Runs it to its end. When that does not come in time, it is killed with all that it has started.
pub fn run_within(mut command: Command, secs: u64) -> Ran {
    let out = tempfile::tempdir().unwrap();
    let file = |name: &str| fs::File::create(out.path().join(name)).unwrap();
    let read = |name: &str| String::from_utf8_lossy(&fs::read(out.path().join(name)).unwrap()).into_owned();
    command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).process_group(0);
    let mut child = command.spawn().unwrap();
    let group = Pid::from_child(&child);
    let end = Instant::now() + Duration::from_secs(secs);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > end {
            break None;
        }
        // Nobody tells of the end of a process: look again in a moment.
        std::thread::sleep(Duration::from_millis(5));
    };
    // What it has left running goes as well.
    rustix::process::kill_process_group(group, Signal::KILL).ok();
    child.wait().ok();
    let ran = Ran {
        code: status.map_or(-1, |status| status.code().unwrap_or(-1)),
        stdout: read("out"),
        stderr: read("err"),
    };
    assert!(status.is_some(), "{command:?} did not end within {secs} s: {ran:?}");
    ran
}
