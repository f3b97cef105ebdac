//! `axon` as a user runs it: to its end ([`run`]), or beside the test ([`spawn`]).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::{AXON, Daemon, PATIENCE};

/// What came of a run.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

impl Ran {
    /// Every line of stdout, each of which must be JSON, and compact.
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"));
            assert!(value.is_object() && !line.starts_with("{ "), "{line}");
            value
        };
        self.stdout.lines().map(parse).collect()
    }

    /// The one line of stdout.
    pub fn json(&self) -> Value {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{self:?}");
        lines.remove(0)
    }

    /// It must have gone well, with one line on stdout.
    pub fn ok(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        let line = self.json();
        assert_ne!(line["ok"], false, "{self:?}");
        line
    }

    /// It must have failed with this exit code and error code, and say what to do. Gives the whole line.
    pub fn fails(&self, exit: i32, error: &str) -> Value {
        assert_eq!(self.code, exit, "{self:?}");
        let line = self.json();
        assert_eq!((&line["ok"], line["error"].as_str()), (&Value::Bool(false), Some(error)), "{self:?}");
        let message = line["message"].as_str().expect("a message");
        assert!(message.len() > 8, "{message}");
        line
    }

    /// Wrong usage: exit code 2 and text on stderr, whatever stands on stdout. Gives the text.
    pub fn usage(&self) -> &str {
        assert_eq!(self.code, 2, "{self:?}");
        assert!(!self.stderr.trim().is_empty(), "{self:?}");
        self.lines();
        &self.stderr
    }
}

/// Keys of a JSON object in the order of the alphabet, as [`sorted`] has them.
pub fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// These words in the order of the alphabet.
pub fn sorted<const N: usize>(mut words: [&str; N]) -> Vec<&str> {
    words.sort_unstable();
    words.to_vec()
}

/// Runs it to its end, with nothing on stdin.
pub fn run(command: Command) -> Ran {
    spawn(command).wait()
}

/// Runs it to its end, with this on stdin.
pub fn run_with(command: Command, stdin: &[u8]) -> Ran {
    spawn_with(command, stdin).wait()
}

/// `axon` in a place of its own: no daemon, no root yet, `HOME` in a temporary directory.
pub struct Home(tempfile::TempDir);

impl Default for Home {
    fn default() -> Self {
        Self(tempfile::Builder::new().prefix("ax").rand_bytes(8).tempdir_in(std::env::temp_dir()).unwrap())
    }
}

impl Home {
    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The default root in it.
    pub fn root(&self) -> PathBuf {
        self.path().join(".axon")
    }

    /// `axon …` in it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(AXON);
        command.args(args).env("HOME", self.path()).env_remove("AXON_ROOT").env_remove("NO_COLOR");
        command
    }

    /// The same, run to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args))
    }
}

impl Daemon {
    /// `axon --root <this root> …`, run to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args))
    }

    /// The same, beside the test.
    pub fn spawn(&self, args: &[&str]) -> Running {
        spawn(self.command(args))
    }
}

/// A program beside the test. It is ended when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    stderr: Arc<Mutex<String>>,
    stderr_end: Receiver<()>,
}

/// Starts it with nothing on stdin.
pub fn spawn(command: Command) -> Running {
    start(command, Stdio::null())
}

/// Starts it with this on stdin.
pub fn spawn_with(command: Command, stdin: &[u8]) -> Running {
    let mut running = start(command, Stdio::piped());
    let mut pipe = running.child.stdin.take().unwrap();
    // A program that does not want to read it all is no fault of the test.
    pipe.write_all(stdin).ok();
    running
}

fn start(mut command: Command, stdin: Stdio) -> Running {
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, mut errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (tell, lines): (Sender<String>, _) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    let stderr = Arc::new(Mutex::new(String::new()));
    let (end, stderr_end) = channel();
    let said = stderr.clone();
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = errors.read(&mut chunk) {
            said.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
        end.send(()).ok();
    });
    Running { child, lines, seen: Vec::new(), stderr, stderr_end }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// The next line of its stdout, as text.
    pub fn text(&mut self) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|_| panic!("no line came; stderr: {}", self.stderr()));
        self.seen.push(line.clone());
        line
    }

    /// The next line of its stdout.
    pub fn line(&mut self) -> Value {
        let line = self.text();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end. `stdout` is all of it, with the lines that were read before.
    pub fn wait(mut self) -> Ran {
        let end = Instant::now() + 2 * PATIENCE;
        let left = || end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let in_time = loop {
            match self.lines.recv_timeout(left()) {
                Ok(line) => self.seen.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break true,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => break false,
            }
        };
        let in_time = in_time && self.stderr_end.recv_timeout(left()).is_ok();
        assert!(in_time, "it did not end; stdout {:?}, stderr {}", self.seen, self.stderr());
        let status = self.child.wait().unwrap();
        let code = status.code().unwrap_or_else(|| -status.signal().unwrap_or(1));
        let mut stdout = self.seen.join("\n");
        if !stdout.is_empty() {
            stdout.push('\n');
        }
        Ran { code, stdout, stderr: self.stderr() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked first, so that it can end what it has started itself; then killed.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal(Signal::TERM);
        }
        let end = Instant::now() + Duration::from_secs(3);
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
            // The end of a child is no event here: look again in a moment.
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Whether a process with this id is there (one that has ended and is not reaped does not count).
pub fn is_alive(pid: u32) -> bool {
    let ps = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output();
    match ps {
        Ok(output) => {
            let stat = String::from_utf8_lossy(&output.stdout);
            !stat.trim().is_empty() && !stat.trim().starts_with('Z')
        }
        Err(_) => std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')),
    }
}

/// Ids of the processes that have this text in their command line.
pub fn processes_with(text: &str) -> Vec<String> {
    if let Ok(entries) = std::fs::read_dir("/proc") {
        let named = |entry: std::fs::DirEntry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            String::from_utf8_lossy(&line)
                .contains(text)
                .then(|| entry.file_name().to_string_lossy().into_owned())
        };
        return entries.filter_map(|entry| named(entry.ok()?)).collect();
    }
    let output = Command::new("ps").args(["-A", "-o", "pid=,command="]).output().unwrap();
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}
