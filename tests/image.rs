//! The daemon's image: a program of its own, which nothing depends on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support;
use crate::support::{AXON, Daemon, skip, wait_for};

const AXOND: &str = env!("CARGO_BIN_EXE_axond");

/// The program that a process runs, where the system tells.
fn program_of(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A root of its own, and a daemon in it that was started in this way; gives the program that it has become.
fn becomes(name: &str, command: impl FnOnce(&Path) -> Command) -> Option<PathBuf> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir(&root).unwrap();
    support::set_mode(&root, 0o700);
    fs::write(root.join("config.toml"), "bind = \"127.0.0.1\"\nport = 0\nmdns = false\n").unwrap();
    let mut command = command(&root);
    command.env("HOME", dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process(command.spawn().unwrap());
    wait_for("the socket", || root.join("axon.sock").exists().then_some(()));
    let program = program_of(process.0.id());
    if program.is_none() {
        skip(name, "the system does not tell which program a process runs");
    }
    program
}

#[test]
fn the_daemon_turns_into_a_program_that_has_nothing_else() {
    let daemon = Daemon::start("");
    let Some(program) = program_of(daemon.pid()) else {
        let name = "the_daemon_turns_into_a_program_that_has_nothing_else";
        return skip(name, "the system does not tell which program a process runs");
    };
    assert_eq!(program, fs::canonicalize(AXOND).unwrap());
}

#[test]
fn where_that_is_not_there_the_daemon_is_the_program_itself() {
    let alone = tempfile::tempdir().unwrap();
    let axon = alone.path().join("axon");
    fs::copy(AXON, &axon).unwrap();
    let name = "where_that_is_not_there_the_daemon_is_the_program_itself";
    let program = becomes(name, |root| {
        let mut command = Command::new(&axon);
        command.arg("--root").arg(root).arg("daemon");
        command
    });
    assert!(program.is_none_or(|program| program == fs::canonicalize(&axon).unwrap()));
}

#[test]
fn one_of_another_build_goes_back_to_the_program_that_has_called_it() {
    let name = "one_of_another_build_goes_back_to_the_program_that_has_called_it";
    let program = becomes(name, |root| {
        let plan = json!({"root": root, "name": null, "port": null, "disable_mdns": true, "until_eof": false,
            "verbose": 0, "quiet": false, "json": true, "build": "another", "program": AXON});
        let mut command = Command::new(AXOND);
        command.arg(format!("--image={plan}"));
        command
    });
    assert!(program.is_none_or(|program| program == fs::canonicalize(AXON).unwrap()));
}

#[test]
fn by_itself_it_says_what_to_run() {
    for args in [&[][..], &["daemon"], &["--help"]] {
        let out = Command::new(AXOND).args(args).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(said.contains("axon daemon"), "{said}");
    }
    let out = Command::new(AXOND).arg("--image={\"root\":1}").output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}
