//! The client libraries, each by its own runner of the shared cases in `tests/clients/cases.json`, against
//! real daemons. What a runner is given and may say is in `tests/clients/README.md`.

mod typescript;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support;
use crate::support::cli::{run, spawn};
use crate::support::{AXON, Daemon, pair_with, wait_for};

/// How long a runner may take for all cases.
const RUN: Duration = Duration::from_secs(240);

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cases() -> PathBuf {
    repository().join("tests/clients/cases.json")
}

/// A runner, which is ended with this.
struct Runner(Child);

impl Drop for Runner {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The two daemons, by the names that runners have for them.
struct Stage([Daemon; 2]);

impl Stage {
    /// Does what a runner asks for.
    fn harness(&mut self, verb: &str, name: &str) -> Result<(), String> {
        let at = match name {
            "A" => 0,
            "B" => 1,
            _ => return Err(format!("there is no daemon {name}")),
        };
        let [alice, bob] = &mut self.0;
        let daemon = if at == 0 { &mut *alice } else { &mut *bob };
        match (verb, daemon.runs()) {
            ("stop", true) => drop(daemon.terminate()),
            ("kill", true) => daemon.kill9(),
            ("start", false) => {
                daemon.up();
                alice.wait_peer(bob, true);
                bob.wait_peer(alice, true);
            }
            _ => return Err(format!("{name} cannot be told to {verb} now")),
        }
        Ok(())
    }
}

/// Plays all cases with this runner. Each must be ok.
fn play(mut command: Command) {
    let quick = "handshake_timeout_secs = 1\n";
    let (alice, bob) = pair_with(quick, &format!("{quick}ipc.buffer_size = 100\n"));
    command.env("AXON_CASES", cases()).env("AXON_A", alice.socket()).env("AXON_B", bob.socket());
    command.env("HOME", alice.root()).env_remove("AXON_ROOT");
    if std::env::var_os("AXON_ONLY").is_none() {
        command.env_remove("AXON_ONLY");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut runner = Runner(command.spawn().unwrap());
    let mut answers = runner.0.stdin.take().unwrap();
    let (lines, said) = mpsc::channel();
    let output = BufReader::new(runner.0.stdout.take().unwrap());
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));

    let mut stage = Stage([alice, bob]);
    let (mut played, mut failed) = (BTreeSet::new(), Vec::new());
    let end = Instant::now() + RUN;
    loop {
        let line = match said.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("the runner has not ended; ok were {played:?}"),
        };
        match line.split_once(' ') {
            Some(("ok", id)) => assert!(played.insert(id.to_owned()), "{id} was played twice"),
            Some(("FAILED", why)) => failed.push(why.to_owned()),
            Some((verb, name)) => {
                let answer = match stage.harness(verb, name) {
                    Ok(()) => "done\n".to_owned(),
                    Err(why) => format!("failed {why}\n"),
                };
                answers.write_all(answer.as_bytes()).unwrap();
            }
            None => panic!("the runner says {line:?}, which is nothing that the cases know"),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(runner.0.wait().unwrap().success());
    let text: Value = serde_json::from_str(&fs::read_to_string(cases()).unwrap()).unwrap();
    let ids = text["cases"].as_array().unwrap().iter().map(|case| case["id"].as_str().unwrap().to_owned());
    let only = std::env::var("AXON_ONLY").ok();
    let wanted: BTreeSet<String> = ids.filter(|id| only.as_ref().is_none_or(|only| only == id)).collect();
    assert_eq!(played, wanted);
}

#[test]
fn rust_plays_the_cases() {
    let bin = Path::new(AXON).parent().unwrap().join("examples").join("client_cases");
    if !bin.exists() {
        // `cargo test --workspace` has built it; `cargo test --test all clients::` has not.
        let release = Path::new(AXON).parent().unwrap().ends_with("release");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--workspace", "--example", "client_cases"]);
        cargo.args(release.then_some("--release")).current_dir(repository());
        cargo.arg("--target-dir").arg(Path::new(AXON).ancestors().nth(2).unwrap());
        assert!(cargo.status().unwrap().success());
    }
    play(Command::new(bin));
}

/// `python3` in the library's folder, where there is one that is new enough.
fn python(test: &str, arguments: &[&str]) -> Option<Command> {
    let version =
        Command::new("python3").args(["-c", "import sys; print(sys.version_info >= (3, 9))"]).output();
    if !version.is_ok_and(|output| output.stdout.starts_with(b"True")) {
        support::skip(test, "python3 (3.9 or later) is not installed");
        return None;
    }
    let mut command = Command::new("python3");
    // Nothing is written beside the sources, and what it says comes at once.
    command.args(["-B", "-u", "-X", "dev"]).args(arguments);
    command.current_dir(repository().join("axon/client/python")).env("PYTHONPATH", "src");
    Some(command)
}

#[test]
fn python_plays_the_cases() {
    if let Some(command) = python("python_plays_the_cases", &["tests/cases.py"]) {
        play(command);
    }
}

#[test]
fn python_without_asyncio_plays_the_cases() {
    if let Some(command) = python("python_without_asyncio_plays_the_cases", &["tests/cases.py", "--sync"]) {
        play(command);
    }
}

#[test]
fn python_tests_of_the_library_alone() {
    let arguments = ["-m", "unittest", "discover", "-s", "tests"];
    if let Some(mut command) = python("python_tests_of_the_library_alone", &arguments) {
        let home = tempfile::tempdir().unwrap();
        let ran = run({
            command.env("HOME", home.path());
            command
        });
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
}

/// The blocks of a page in this language, in order.
fn blocks(page: &Path, language: &str) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let begin = format!("```{language}\n");
    let rest = text.split(&begin).skip(1);
    rest.map(|rest| rest.split_once("\n```").unwrap().0.to_owned()).collect()
}

#[test]
fn python_examples_of_the_readme() {
    let Some(_) = python("python_examples_of_the_readme", &[]) else { return };
    let blocks = blocks(&repository().join("axon/client/python/README.md"), "python");
    let [ask, ask_plainly, answer, delegate, notify, read, topics, fail] = &blocks[..] else {
        panic!("{} examples", blocks.len());
    };
    let (alice, bob) = support::pair();
    let program = |daemon: &Daemon, text: &str| {
        // Whoever runs the tests in the background may have them ignore Ctrl-C, and Python keeps to that.
        let heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)";
        let text = format!("{heeds}\n{text}");
        let mut command = python("python_examples_of_the_readme", &["-c", &text]).unwrap();
        command.env("AXON_ROOT", daemon.root()).env("HOME", daemon.root());
        command
    };
    let said = |text: &str| {
        let ran = run(program(&alice, text));
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{ran:?}");
        ran.stdout
    };
    let agent = spawn(program(&bob, answer));
    let status = || bob.client().ok(json!({"cmd":"status"}));
    wait_for("the example to answer", || (status()["answerers"] == 1).then_some(()));
    assert_eq!(said(ask), "At seven.\nAt seven. {'time': '19:00'}\n");
    assert_eq!(said(ask_plainly), "At seven.\n");
    let delegated = said(delegate);
    let [given, ended] = delegated.lines().collect::<Vec<_>>()[..] else { panic!("{delegated}") };
    assert!(given.ends_with(" accepted"), "{given}");
    assert_eq!(ended, "completed Done.");
    assert_eq!(said(fail), "peer_not_found\n");
    assert_eq!(said(topics), "build.main 0 {'state': 'failed'}\n");

    // What one example tells, the other reads, and the first hears of it.
    let mut reader = spawn(program(&bob, read));
    assert_eq!(said(notify), "delivered\nread\n");
    assert_eq!(reader.text().trim(), "alice known home.door {'open': True}");

    // Ctrl-C is how it ends.
    agent.signal(Signal::INT);
    let ran = agent.wait();
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{ran:?}");
}
