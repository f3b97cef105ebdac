//! Daemons in network namespaces, over bad networks: `tests/net/run` in its short form, whose lines are read
//! here. What cannot be had on this machine, it says itself.

use std::path::Path;
use std::process::{Command, Output};

use crate::support;
use crate::support::AXON;

/// Beside one another: each mostly waits.
const LANES: usize = 3;

fn run(words: &[&str]) -> std::io::Result<Output> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net/run");
    let mut command = Command::new("python3");
    // Whether a skip is a failure is said here.
    command.arg("-B").arg(program).args(["--short", "--axon", AXON]).args(words).env_remove("AXON_NO_SKIP");
    command.output()
}

/// The two numbers around ` of `, or the one, behind this word.
fn figures(line: &str, word: &str) -> Vec<u64> {
    let part = line.split(", ").find_map(|part| part.strip_prefix(word));
    let part = part.unwrap_or_else(|| panic!("nothing is said of `{word}`: {line}"));
    part.trim().split(" of ").map(|n| n.parse().unwrap_or_else(|_| panic!("no number: {line}"))).collect()
}

#[test]
fn whatever_the_network_does_each_message_arrives_once() {
    let Ok(listed) = run(&["--list"]) else {
        return support::skip("net", "python3 is not installed");
    };
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).unwrap();
    let names: Vec<&str> = names.lines().collect();
    assert!(names.len() >= 13, "{names:?}");
    let lanes = std::thread::scope(|scope| {
        let play = |lane| {
            let mine: Vec<&str> = names.iter().copied().skip(lane).step_by(LANES).collect();
            scope.spawn(move || run(&mine).unwrap())
        };
        let lanes: Vec<_> = (0..LANES).map(play).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect::<Vec<Output>>()
    });
    let mut said = Vec::new();
    for lane in &lanes {
        let (out, err) = (String::from_utf8_lossy(&lane.stdout), String::from_utf8_lossy(&lane.stderr));
        assert!(lane.status.success(), "{out}{err}");
        said.extend(out.lines().map(str::to_owned));
    }
    for name in &names {
        let skipped = said.iter().find_map(|line| line.strip_prefix(&format!("skipped: {name}: ")));
        if let Some(why) = skipped {
            support::skip(&format!("net {name}"), why);
            continue;
        }
        let line = said.iter().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        let line = line.unwrap_or_else(|| panic!("nothing is said of {name}: {said:?}"));
        let delivered = figures(line, "delivered");
        assert!(delivered[0] == delivered[1] && delivered[0] >= 50, "{name}: {line}");
        assert_eq!(
            (figures(line, "lost"), figures(line, "duplicated")),
            (vec![0], vec![0]),
            "{name}: {line}"
        );
        let answered = figures(line, "answered");
        assert!(answered[0] > answered[1] / 2, "{name}: {line}");
    }
}
