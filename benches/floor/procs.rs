//! Processes that take part: started, timed, and ended whatever happens.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use rustix::process::{Pid, Signal, kill_process};

/// The first word on the command line of a process that plays a role.
pub const ROLE: &str = "--role";

fn role(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a program knows its own path"));
    command.arg(ROLE).args(words);
    command
}

/// One process that plays a role. It is killed when this is dropped.
pub struct Player {
    child: Child,
    /// The port that it listens on, where it has one.
    pub port: u16,
}

impl Player {
    /// Starts it, and waits until it is ready.
    pub fn start(words: &[&str]) -> Self {
        let mut child = role(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {words:?}: {error}"));
        guard(child.id());
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().expect("its output was asked for"));
        said.read_line(&mut line).expect("what a role says can be read");
        let port = line.trim().strip_prefix("ready ").and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{words:?} did not get ready: {line:?}"));
        Self { child, port }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It has not ended: without it a row would be another's.
    pub fn still_plays(&mut self) {
        let ended = self.child.try_wait().expect("a child can be asked for");
        assert!(ended.is_none(), "one who takes part has ended: {ended:?}; what it said is above");
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A role says that it can be spoken to now.
pub fn ready(port: u16) {
    println!("ready {port}");
    std::io::stdout().flush().expect("the benchmark listens");
}

/// Kills a child, and forgets it.
pub fn end(child: &mut Child) {
    child.kill().ok();
    child.wait().ok();
    unguard(child.id());
}

// ---- Nothing is left behind -------------------------------------------------------------------------------

/// A panic of a release build ends the process at once, and `Drop` does not run: another process of ours then
/// kills what is still there, and removes the folders.
static REAPER: OnceLock<Mutex<Child>> = OnceLock::new();

fn tell(line: &str) {
    let reaper = REAPER.get_or_init(|| {
        // Not in the terminal's group: Ctrl-C ends the others, and it cleans up behind them.
        let started = role(&["reaper"]).stdin(Stdio::piped()).process_group(0).spawn();
        Mutex::new(started.expect("the program can start itself"))
    });
    let mut reaper = reaper.lock().expect("nobody panics while telling");
    let stdin = reaper.stdin.as_mut().expect("its input was asked for");
    stdin.write_all(line.as_bytes()).expect("the reaper listens");
}

/// A process that must not outlive this one.
pub fn guard(pid: u32) {
    tell(&format!("+ {pid}\n"));
}

/// It has ended, and its number may soon be another's.
pub fn unguard(pid: u32) {
    tell(&format!("- {pid}\n"));
}

/// A folder that must not outlive this process.
pub fn guard_folder(path: &Path) {
    tell(&format!("d {}\n", path.display()));
}

/// The role of the reaper: its input ends when the benchmark does.
pub fn reap() {
    let (mut pids, mut folders) = (HashSet::new(), Vec::new());
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("+", pid)) => pids.extend(pid.parse::<i32>()),
            Some(("-", pid)) => {
                pid.parse::<i32>().map(|pid| pids.remove(&pid)).ok();
            }
            Some(("d", folder)) => folders.push(folder.to_owned()),
            _ => {}
        }
    }
    for pid in pids.into_iter().filter_map(Pid::from_raw) {
        kill_process(pid, Signal::KILL).ok();
    }
    for folder in folders {
        std::fs::remove_dir_all(folder).ok();
    }
}

// ---- Processor time ---------------------------------------------------------------------------------------

/// Whether this system tells how much processor time a process has used to the nanosecond.
pub fn tells_cpu() -> bool {
    std::fs::metadata("/proc/thread-self/schedstat").is_ok()
}

/// Nanoseconds of processor time that these processes have used so far: all their threads that still run.
pub fn used_ns(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| used_by(&format!("/proc/{pid}/task"))).sum()
}

/// The same of this thread.
pub fn used_here_ns() -> u64 {
    schedstat("/proc/thread-self/schedstat")
}

fn used_by(tasks: &str) -> u64 {
    let tasks = std::fs::read_dir(tasks).into_iter().flatten().flatten();
    tasks.map(|task| schedstat(&task.path().join("schedstat").display().to_string())).sum()
}

fn schedstat(path: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}
