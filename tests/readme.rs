//! The README's five minutes, each command as it stands there: two machines, a service on each, paired, an
//! agent on each, and the first answer.
//!
//! `cargo install` alone is not run here, but by `.ci/run`; the program is the one under test, on the path as
//! that would put it there. The manager of services is a script (`tests/service/`) that starts what the unit
//! says.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};

use crate::support::cli::{Home, Ran, run};
use crate::support::{AXON, set_mode, wait_for};

/// The section's commands, in order.
const STEPS: [&str; 9] = [
    "cargo install --path .",
    "axon service install",
    "axon invite",
    "axon connect --as anna -",
    "axon mcp install claude",
    "axon answer --text -- sh -c 'read q; echo \"You asked: $q\"'",
    "axon send anna \"What is the time over there?\"",
    "axon peers",
    "axon doctor",
];

/// The README's commands of this section, without their remarks.
fn steps() -> Vec<String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let section = readme.split("\n## Five minutes").nth(1).unwrap().split("\n### ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines = blocks.flat_map(|block| block.lines()).filter(|line| !line.is_empty());
    lines.map(|line| line.split(" #").next().unwrap().trim_end().to_owned()).collect()
}

/// One machine: a home, a path with `axon`, and a manager of services.
struct Machine {
    home: Home,
}

impl Machine {
    fn new() -> Self {
        let home = Home::default();
        let root = home.root();
        fs::create_dir_all(&root).unwrap();
        set_mode(&root, 0o700);
        // Another machine's address would be its own; here all is on loopback.
        fs::write(root.join("config.toml"), "bind = \"127.0.0.1\"\nmdns = false\nport = 0\n").unwrap();
        fs::create_dir(home.path().join("fake")).unwrap();
        fs::create_dir(home.path().join("bin")).unwrap();
        symlink(AXON, home.path().join("bin/axon")).unwrap();
        Self { home }
    }

    /// A line of the README, as a person types it.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        let bin = self.home.path().join("bin");
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service");
        let path = std::env::var("PATH").unwrap();
        command.args(["-c", line]).env("PATH", format!("{}:{}:{path}", bin.display(), tools.display()));
        command.env("HOME", self.home.path()).env("FAKE", self.home.path().join("fake")).env("USER", "ann");
        for name in ["XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "AXON_ROOT", "AXON_SOCKET", "CLAUDE_CONFIG_DIR"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, line: &str) -> Ran {
        run(self.command(line))
    }

    /// Runs a line that reads this.
    fn given(&self, line: &str, input: &str) -> Ran {
        let mut command = self.command(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: out.status.code().unwrap(), stdout: text(out.stdout), stderr: text(out.stderr) }
    }

    fn root(&self) -> PathBuf {
        self.home.root()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let files = fs::read_dir(self.home.path().join("fake")).unwrap().map(|file| file.unwrap());
        for file in files.filter(|file| file.file_name().to_str().unwrap().starts_with("pid-")) {
            let pid = fs::read_to_string(file.path()).ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                // One that has ended needs no signal.
                kill_process(pid, Signal::KILL).ok();
            }
        }
    }
}

/// A process, and those that it started, until it is dropped.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        use std::os::unix::process::CommandExt as _;
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kill_process_group(Pid::from_child(&self.0), Signal::KILL).ok();
        self.0.wait().ok();
    }
}

/// Claude Code's place: it runs the command of its settings, is woken, and answers.
fn claude(machine: &Machine) -> Running {
    let settings = fs::read_to_string(machine.home.path().join(".claude.json")).unwrap();
    let settings: Value = serde_json::from_str(&settings).unwrap();
    let entry = &settings["mcpServers"]["axon"];
    let mut command = Command::new(entry["command"].as_str().unwrap());
    command.args(entry["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()));
    command.env("HOME", machine.home.path()).env("PATH", "/usr/bin:/bin");
    let mut running = Running::start(command);
    let (mut stdin, stdout) = (running.0.stdin.take().unwrap(), running.0.stdout.take().unwrap());
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    writeln!(stdin, "{hello}").unwrap();
    writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).unwrap();
    // Ends with the process.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).unwrap();
            let wake = &line["params"];
            if line["method"] == "notifications/claude/channel" && wake["meta"]["kind"] == "query" {
                let text = format!("{} asks: {}", wake["meta"]["from"].as_str().unwrap(), wake["content"]);
                let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
                    "name": "reply", "arguments": {"id": wake["meta"]["id"], "text": text}}});
                writeln!(stdin, "{call}").unwrap();
            }
        }
    });
    running
}

fn answerers(machine: &Machine) -> u64 {
    machine.run("axon status").ok()["answerers"].as_u64().unwrap()
}

#[test]
fn five_minutes_are_as_the_readme_says() {
    assert_eq!(steps(), STEPS, "the README's steps are these, and this test runs each");
    let [_, install, invite, connect, plug, answer, send, peers, doctor] = STEPS;
    let (a, b) = (Machine::new(), Machine::new());
    for machine in [&a, &b] {
        assert_eq!(machine.run(install).ok()["written"], true);
        assert!(machine.root().join("axon.sock").exists());
    }
    let link = a.run(invite).ok()["link"].as_str().unwrap().to_owned();
    let paired = b.given(connect, &format!("{link}\n")).ok();
    assert_eq!((&paired["state"], &paired["level"]), (&json!("paired"), &json!("known")));

    // Any program: it is asked, and its own words come back.
    let program = Running::start(a.command(answer));
    wait_for("the program to be attached", || (answerers(&a) == 1).then_some(()));
    let said = b.run(send).ok();
    assert_eq!(said["payload"]["summary"], "You asked: What is the time over there?");
    drop(program);
    wait_for("the program to be gone", || (answerers(&a) == 0).then_some(()));

    // Claude Code's settings, and a client that does what they say.
    assert_eq!(a.run(plug).code, 0);
    let _claude = claude(&a);
    wait_for("the agent to be attached", || (answerers(&a) == 1).then_some(()));
    let said = b.run(send).ok();
    let (id, whole) = (b.run("axon whoami").ok()["agent_id"].clone(), said["payload"]["summary"].clone());
    let short = &id.as_str().unwrap()["ed25519.".len()..][..8];
    assert_eq!(whole, format!("{short} asks: \"What is the time over there?\""));

    let row = b.run(peers).ok()["peers"][0].clone();
    assert_eq!((&row["name"], &row["status"]), (&json!("anna"), &json!("connected")));
    let checks = b.run(doctor).json()["checks"].clone();
    assert!(checks.as_array().unwrap().iter().all(|check| check["status"] != "fail"), "{checks}");
}
