//! A second implementation, written from `spec/` alone: a peer over aioquic and a client of the socket, in
//! Python, against a real daemon. The cases are in `tests/pypeer/`; `tests/pypeer/install` gets aioquic.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support;
use crate::support::Daemon;
use crate::support::cli::spawn;

/// What the cases rely on.
const SETTINGS: &str = "name = \"alice\"\nhandshake_timeout_secs = 1\ninbound_read_timeout_secs = 1\n\
                        [knock]\nper_minute = 0\n";

/// The names of the cases: the functions behind `@case` and `@aside`, with AXON_LONG set behind `@long` too.
fn cases(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_str().unwrap().ends_with(".py") {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let long = std::env::var_os("AXON_LONG").is_some_and(|set| !set.is_empty());
        let marks: &[&str] = if long { &["@case", "@aside", "@long"] } else { &["@case", "@aside"] };
        for pair in lines.windows(2).filter(|pair| marks.contains(&pair[0])) {
            let name = pair[1].strip_prefix("async def ").expect("a case is an async function");
            assert!(found.insert(name.trim_end_matches("():").to_owned()), "{name} is there twice");
        }
    }
    found
}

#[test]
fn the_python_peer_and_the_daemon_understand_each_other() {
    let name = "the_python_peer_and_the_daemon_understand_each_other";
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pypeer/venv/bin/python");
    if !python.exists() {
        return support::skip(name, "aioquic is not installed: run tests/pypeer/install");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pypeer");
    let daemon = Daemon::start(SETTINGS);
    let mut command = Command::new(python);
    // Nothing is written beside the sources.
    command.args(["-B", "scenario.py", "-v"]).current_dir(&folder);
    command.env("AXON_SOCKET", daemon.socket()).env("HOME", daemon.root());
    let mut running = spawn(command);
    let mut played = BTreeSet::new();
    let wanted = match std::env::var("AXON_ONLY") {
        Ok(only) => BTreeSet::from([only]),
        Err(_) => cases(&folder),
    };
    assert!(!wanted.is_empty());
    while played.len() < wanted.len() {
        let line = running.text();
        let mut words = line.split(' ');
        let (said, case) = (words.next().unwrap(), words.next().unwrap_or_default());
        assert_eq!(said, "ok", "{line}");
        assert!(played.insert(case.to_owned()), "{case} was played twice");
    }
    assert_eq!(played, wanted);
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}
