//! The programs and files in `examples/`, run as they stand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use axon::disk::Config;
use serde_json::{Value, json};

use crate::support;
use crate::support::cli::{Running, spawn};
use crate::support::{AXON, Daemon, pair, wait_for};

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(path)
}

/// Starts an example against this daemon and waits until it says that it answers.
fn start(daemon: &Daemon, mut command: Command) -> Running {
    command.env("AXON_ROOT", daemon.root()).env("AXON", AXON).env("HOME", daemon.root());
    let mut agent = spawn(command);
    assert!(agent.text().contains("answering"));
    agent
}

/// What an agent does with a delegation of many words: it says how far it is, and stops when it is cancelled.
fn works_and_stops(alice: &Daemon) {
    let mut told = alice.answerer(json!({"kinds":["progress","result"],"replay":false}));
    let done = alice.run(&["delegate", "--wait", "bob", "one two three"]);
    assert_eq!((done.code, &done.lines()[1]["payload"]["status"]), (0, &json!("completed")), "{done:?}");
    // Messages on different streams may overtake one another.
    let events: Vec<Value> = (0..4).map(|_| told.event()["envelope"].clone()).collect();
    let mut percents: Vec<u64> =
        events.iter().filter_map(|event| event["payload"]["percent"].as_u64()).collect();
    percents.sort_unstable();
    assert_eq!(percents, [33, 66, 100], "{events:?}");

    let long = "word ".repeat(500);
    let id = alice.run(&["delegate", "bob", &long]).ok()["id"].as_str().unwrap().to_owned();
    told.event_where(progress);
    assert_eq!(alice.run(&["cancel", &id]).ok()["payload"]["accepted"], true);
    let pong = || alice.client().ok(json!({"cmd":"send","to":"bob","kind":"ping"}))["response"].clone();
    wait_for("the agent to be idle", || (pong()["payload"]["status"] == "idle").then_some(()));
}

fn progress(event: &Value) -> bool {
    event["envelope"]["kind"] == "progress"
}

#[test]
fn python_agent() {
    let version =
        Command::new("python3").args(["-c", "import sys; print(sys.version_info >= (3, 9))"]).output();
    if !version.is_ok_and(|output| output.stdout.starts_with(b"True")) {
        support::skip("python_agent", "python3 (3.9 or later) is not installed");
        return;
    }
    let (alice, mut bob) = pair();
    let mut command = Command::new("python3");
    command.arg(example("python/agent.py"));
    let mut agent = start(&bob, command);
    let answer = alice.run(&["send", "--domain", "text", "bob", "How many words are these?"]).ok();
    assert_eq!(answer["payload"], json!({"data":{"words":5,"letters":21},"summary":"5 words, 21 letters."}));
    alice.run(&["send", "--domain", "family", "bob", "When?"]).fails(4, "unknown_domain");
    assert_eq!(alice.run(&["discover", "bob"]).ok()["payload"]["agent_name"], "counter");
    // No number that a peer writes ends it.
    let mut asking = alice.client();
    let line = format!(
        r#"{{"cmd":"send","req_id":"n","to":"bob","kind":"query","payload":{{"question":"one two",
           "domain":"text","more":{}}}}}"#,
        "7".repeat(5000)
    );
    asking.raw(format!("{}\n", line.replace('\n', "")).as_bytes());
    assert_eq!(asking.finish("n")["response"]["payload"]["data"]["words"], 2);
    works_and_stops(&alice);
    let found = alice.run(&["cancel", "00000000-0000-4000-8000-000000000000"]);
    assert_ne!(found.code, 0);

    // It comes back by itself.
    bob.kill9();
    bob.up();
    assert!(agent.text().contains("answering"));
    alice.wait_peer(&bob, true);
    assert_eq!(alice.run(&["send", "bob", "one two"]).ok()["payload"]["data"]["words"], 2);
    assert!(!agent.stderr().contains("Traceback"), "{}", agent.stderr());
}

#[test]
fn shell_agent() {
    let (alice, bob) = pair();
    let agent = start(&bob, Command::new(example("shell/agent.sh")));
    let ask = |question: &str| alice.run(&["send", "--domain", "machine", "bob", question]);
    let time = ask("What time is it?").ok();
    assert!(time["payload"]["summary"].as_str().unwrap().ends_with("UTC."), "{time}");
    let disk = ask("How full is the disk?").ok();
    assert!(disk["payload"]["data"]["free_kib"].as_u64().is_some(), "{disk}");
    let from = ask("From whom?").ok();
    assert_eq!(from["payload"]["summary"], format!("You are {}, and this is a query.", alice.id()));
    // What the peer writes is never run.
    let odd = ask("$(touch run) `touch run`; touch run").fails(4, "internal");
    assert!(odd["message"].as_str().unwrap().contains("ask for the time"), "{odd}");
    assert!(!Path::new("run").exists());
    drop(agent);
}

#[test]
fn rust_agent() {
    let bin = Path::new(AXON).parent().unwrap().join("examples").join("rust_agent");
    if !bin.exists() {
        // `cargo test` has built it; `cargo test --test all examples::` has not.
        let release = Path::new(AXON).parent().unwrap().ends_with("release");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", "rust_agent"]).args(release.then_some("--release"));
        cargo.arg("--target-dir").arg(Path::new(AXON).ancestors().nth(2).unwrap());
        assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    }
    let (alice, bob) = pair();
    let mut command = Command::new(bin);
    command.arg(bob.socket());
    let agent = start(&bob, command);
    let answer = alice.run(&["send", "--domain", "reverse", "bob", "stressed"]).ok();
    assert_eq!(answer["payload"], json!({"data":{"letters":8},"summary":"desserts"}));
    assert_eq!(alice.run(&["discover", "bob"]).ok()["payload"]["agent_name"], "mirror");
    works_and_stops(&alice);
    agent.signal(rustix::process::Signal::INT);
    let ran = agent.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn tailscale_configs_connect_two_daemons() {
    let files = ["a", "b"].map(|machine| example(&format!("tailscale/machine-{machine}/config.toml")));
    // As they stand the daemon takes them, and each names the other.
    let [a, b] = [&files[0], &files[1]].map(|file| Config::load(file).unwrap());
    for (own, other) in [(&a, &b), (&b, &a)] {
        assert_eq!(own.peers.len(), 1);
        assert_eq!(own.peers[0].name, other.name);
        assert!(!own.mdns && own.bind.is_some());
    }
    // Only what is different on each machine is replaced: keys, ports and addresses.
    let mut daemons = [Daemon::start(""), Daemon::start("")];
    for daemon in &mut daemons {
        daemon.terminate();
    }
    for (own, other, file, config) in [(0, 1, &files[0], &a), (1, 0, &files[1], &b)] {
        let (other, peer) = (&daemons[other], &config.peers[0]);
        let text = fs::read_to_string(file)
            .unwrap()
            .replace(&config.bind.unwrap().to_string(), "127.0.0.1")
            .replace(&format!("port = {}\n", config.port), &format!("port = {}\n", daemons[own].port()))
            .replace(&peer.agent_id.to_string(), other.id())
            .replace(&peer.pubkey.to_string(), other.pubkey())
            .replace(&peer.addr.to_string(), &format!("127.0.0.1:{}", other.port()));
        fs::write(daemons[own].root().join("config.toml"), text).unwrap();
    }
    for daemon in &mut daemons {
        daemon.up();
    }
    let [alice, bob] = &daemons;
    alice.wait_peer(bob, true);
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let asking = alice.spawn(&["send", "bob", "Are you there?"]);
    agent.answer_one("Yes.");
    assert_eq!(asking.wait().ok()["payload"]["summary"], "Yes.");
    assert_eq!(bob.run(&["ping", "alice"]).ok()["from"], alice.id());
    let capabilities = alice.run(&["discover", "bob"]).ok()["payload"].clone();
    assert_eq!((&capabilities["domains"], &capabilities["agent_name"]), (&json!(["family"]), &json!("bob")));
}

#[test]
fn every_example_is_named_in_the_readme_and_run_by_a_test() {
    let readme = fs::read_to_string(example("README.md")).unwrap();
    let test = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let tests = test("tests/examples.rs") + &test("tests/skill.rs");
    for entry in fs::read_dir(example("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".rs").unwrap_or(&name);
        if stem != "README.md" {
            assert!(readme.contains(stem) && tests.contains(stem), "{name}");
        }
    }
}
