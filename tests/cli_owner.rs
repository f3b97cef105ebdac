//! The owner's other commands, as users of the command line have them: the audit log, scoped sockets, a new
//! identity, and what is said where something is wrong.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support;
use crate::support::cli::{Home, Ran, keys, run, sorted};
use crate::support::{AXON, Daemon, pair, pair_with, wait_for};

const SOON: &str = "reconnect_max_backoff_secs = 1\nhandshake_timeout_secs = 2";

// ---- The audit log ----------------------------------------------------------------------------------------

#[test]
fn the_audit_log_is_read_with_and_without_a_daemon() {
    let (mut alice, bob) = pair();
    assert_eq!(alice.run(&["audit"]).code, 0);
    alice.run(&["trust", "bob", "trusted"]).ok();
    alice.run(&["pause"]).ok();
    let rows = |alice: &Daemon, args: &[&str]| alice.run(&[&["audit"], args].concat()).lines();
    let events = wait_for("both rows", || {
        let events: Vec<Value> = rows(&alice, &[]).iter().map(|row| row["event"].clone()).collect();
        (events.contains(&json!("pause")) && events.contains(&json!("trust"))).then_some(events)
    });
    let of_bob = rows(&alice, &["--peer", "bob", "--since", "1h"]);
    let row = of_bob.iter().find(|row| row["event"] == "trust").unwrap();
    assert_eq!(keys(row), sorted(["at_ms", "event", "peer", "rule", "count"]));
    assert_eq!((&row["peer"], &row["count"]), (&json!(bob.id()), &json!(1)));
    assert!(of_bob.iter().all(|row| row["peer"] == bob.id()));
    assert_eq!(rows(&alice, &["--peer", &bob.id()["ed25519.".len()..][..6]]), of_bob);
    assert_eq!(rows(&alice, &["--since", "2099-01-01T00:00:00Z"]), Vec::<Value>::new());
    assert_eq!(rows(&alice, &["--since", "2020-01-01"]).len(), events.len());
    assert_eq!(support::mode(&alice.root().join("audit.jsonl")), 0o600);

    alice.terminate();
    assert_eq!(rows(&alice, &[]).len(), events.len());
    // The file before it comes first, and what cannot be read is left out with a word.
    let old = json!({"at_ms": 5, "event": "paired", "peer": bob.id(), "rule": "old", "count": 7});
    fs::write(alice.root().join("audit.jsonl.1"), format!("{old}\n{{half a li\n")).unwrap();
    let ran = alice.run(&["audit"]);
    assert_eq!((ran.code, &ran.lines()[0]), (0, &old), "{ran:?}");
    assert!(ran.stderr.contains("1 line "), "{ran:?}");
    let named = alice.run(&["audit", "--peer", "nobody-here"]).fails(5, "peer_not_found");
    assert!(named["message"].as_str().unwrap().contains("4 digits"), "{named}");
}

// shows: TRUST-AUD-5
#[test]
fn an_audit_log_that_cannot_be_written_is_told_of_and_holds_up_nothing() {
    let mut alice = Daemon::idle("");
    let audit = alice.root().join("audit.jsonl");
    fs::create_dir_all(&audit).unwrap();
    support::set_mode(&alice.root(), 0o700);
    alice.up();
    alice.run(&["pause"]).ok();
    alice.run(&["resume"]).ok();
    wait_for("a word in the log", || alice.log().contains("the audit log is not written").then_some(()));
    assert!(audit.is_dir());
    // Once there is room for it, it is written again.
    fs::remove_dir(&audit).unwrap();
    alice.run(&["socket", "add", "box", "--allow", "send"]).ok();
    wait_for("the row", || fs::read_to_string(&audit).ok().filter(|text| text.contains("\"box\"")));
}

// ---- Scoped sockets ---------------------------------------------------------------------------------------

/// `axon` in a place without a root, over this socket.
fn over(home: &Home, socket: &str, args: &[&str]) -> Ran {
    let mut command = home.command(args);
    command.env("AXON_SOCKET", socket);
    run(command)
}

#[test]
fn an_agent_with_a_socket_of_its_own_may_do_no_more_than_was_said() {
    let (alice, bob) = pair();
    let made = alice.run(&[
        "socket",
        "add",
        "box",
        "--allow",
        "send,inbox",
        "--to",
        "bob",
        "--kinds",
        "ping,notify",
    ]);
    let made = made.ok();
    assert_eq!(keys(&made), sorted(["ok", "name", "path"]));
    let path = made["path"].as_str().unwrap();
    assert_eq!(path, alice.root().join("sockets/box/axon.sock").to_str().unwrap());
    let home = Home::default();
    // By the environment, as in a container, and by the flag.
    over(&home, path, &["ping", "bob"]).ok();
    home.run(&["--socket", path, "ping", "bob"]).ok();
    assert_eq!(over(&home, path, &["whoami"]).ok()["agent_id"], alice.id());
    let peers = over(&home, path, &["peers"]).ok();
    assert_eq!(peers["peers"][0]["id"], bob.id());
    for verb in [
        &["contacts"][..],
        &["trust", "bob", "trusted"],
        &["invite"],
        &["knocks"],
        &["socket", "list"],
        &["reload"],
        &["pause"],
        &["send", "bob", "Hello?"],
        &["answer", "--", "cat"],
    ] {
        over(&home, path, verb).fails(4, "not_authorized");
    }
    let seen = wait_for("the violations", || {
        let rows = alice.run(&["audit"]).lines();
        let of_box: Vec<Value> = rows.into_iter().filter(|row| row["socket"] == "box").collect();
        of_box.iter().any(|row| row["event"] == "scope").then_some(of_box)
    });
    assert!(seen.iter().any(|row| row["event"] == "socket"), "{seen:?}");

    // What is not given stays as it is.
    alice.run(&["socket", "set", "box", "--kinds", "", "--rate", "5"]).ok();
    let listed = alice.run(&["socket", "list"]).ok();
    let row = &listed["sockets"][0];
    assert_eq!(
        (&row["name"], &row["allow"], &row["to"]),
        (&json!("box"), &json!(["send", "inbox"]), &json!([bob.id()]))
    );
    assert_eq!((row.get("kinds"), &row["messages_per_minute"]), (None, &json!(5)), "{row}");
    alice.run(&["socket", "set", "other", "--rate", "5"]).fails(2, "not_found");
    assert_eq!(alice.run(&["socket", "remove", "box"]).ok()["removed"], true);
    alice.run(&["socket", "remove", "box"]).fails(2, "not_found");
    let gone = over(&home, path, &["status"]).fails(1, "no_daemon");
    assert!(gone["message"].as_str().unwrap().contains(path), "{gone}");
}

#[test]
fn a_socket_or_a_root_is_named_and_not_both() {
    let home = Home::default();
    for args in [
        &["--socket", "/nowhere", "--root", "/r", "status"][..],
        &["--socket", "/nowhere", "--name", "n", "status"],
        &["--socket", "", "status"],
        &["--socket", "/nowhere", "identity"],
        &["--socket", "/nowhere", "audit"],
    ] {
        assert!(home.run(args).usage().contains("--socket") || home.run(args).usage().contains("--root"));
    }
    // A root on the command line comes before the environment.
    let mut command = home.command(&["--root", home.root().to_str().unwrap(), "status"]);
    command.env("AXON_SOCKET", "/nowhere/axon.sock");
    let failed = run(command).fails(1, "no_daemon");
    assert!(failed["message"].as_str().unwrap().contains("axon --root"), "{failed}");
    // And where there is no home either, the socket is enough.
    let mut command = Command::new(AXON);
    command.args(["status"]).env_clear().env("AXON_SOCKET", "/nowhere/axon.sock");
    let failed = run(command).fails(1, "no_daemon");
    assert!(failed["message"].as_str().unwrap().contains("/nowhere/axon.sock"), "{failed}");
}

// ---- A new identity ---------------------------------------------------------------------------------------

// shows: IPC-STOP-3
#[test]
fn a_new_key_is_told_to_known_peers_and_waits_there_for_its_owner() {
    let (mut alice, bob) = pair_with(SOON, SOON);
    let (pid, old) = (alice.pid(), alice.id().to_owned());
    assert!(alice.run(&["rekey"]).usage().contains("--yes"));
    let made = alice.run(&["rekey", "--yes"]).ok();
    assert_eq!(keys(&made), sorted(["ok", "agent_id", "old_agent_id"]));
    assert_eq!(made["old_agent_id"], old);
    let new = made["agent_id"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    // The same process, under its new name.
    let whoami = alice.run(&["whoami"]).ok();
    assert_eq!((&whoami["agent_id"], &whoami["pid"]), (&json!(new), &json!(pid)));
    assert_eq!(alice.run(&["identity"]).json()["agent_id"], new);
    alice.wait_up();
    let knock = wait_for("the new key", || {
        let line = bob.run(&["knocks"]).ok();
        line["knocks"].as_array().unwrap().first().cloned()
    });
    assert_eq!((&knock["agent_id"], &knock["rekey_of"]), (&json!(new), &json!(old)), "{knock}");
    let approved = bob.run(&["approve", knock["id"].as_str().unwrap()]).ok();
    assert_eq!((&approved["agent_id"], &approved["trust"]), (&json!(new), &json!("known")));
    bob.wait_peer(&alice, true);
    bob.run(&["ping", "alice"]).ok();
    let rows = bob.run(&["contacts"]).ok();
    let known = rows["contacts"].as_array().unwrap().iter().any(|row| row["agent_id"] == new);
    assert!(known, "{rows}");
}

// ---- What is wrong ----------------------------------------------------------------------------------------

#[test]
fn without_a_daemon_the_owner_is_told_how_to_start_one() {
    let home = Home::default();
    let link = format!("axon://{}@127.0.0.1:7100", "A".repeat(43));
    for verb in [
        &["invite"][..],
        &["invite", "--list"],
        &["invite", "--revoke", "0011223344556677"],
        &["connect", &link],
        &["knocks"],
        &["approve", "0011"],
        &["deny", "0011"],
        &["contacts"],
        &["trust", "bob", "known"],
        &["forget", "bob"],
        &["policy", "check", "bob", "query"],
        &["pause"],
        &["resume"],
        &["rekey", "--yes"],
        &["socket", "list"],
        &["reload"],
    ] {
        let failed = home.run(verb).fails(1, "no_daemon");
        assert!(failed["message"].as_str().unwrap().contains("axon daemon"), "{verb:?}: {failed}");
    }
    let none = home.run(&["audit"]);
    assert_eq!((none.code, none.stdout.as_str()), (0, ""), "{none:?}");
}

#[test]
fn wrong_words_are_told_with_2_and_a_secret_is_never_repeated() {
    let home = Home::default();
    let secret = "CQkJCQkJCQkJCQkJCQkJCQ";
    let cut = format!("axon://{}@host:7100?k={}", "A".repeat(43), &secret[..20]);
    let no_port = format!("axon://{}@host?k={secret}", "A".repeat(43));
    for (args, word) in [
        (&["invite", "--expires", "5s"][..], "10m"),
        (&["invite", "--uses", "0"], "1000"),
        (&["invite", "--trust", "blocked"], "known"),
        (&["invite", "--addr", "host"], "7100"),
        (&["invite", "--revoke", "bob"], "16 digits"),
        (&["invite", "--list", "--uses", "2"], "--uses"),
        (&["connect"], "LINK"),
        (&["connect", "bob"], "axon://"),
        (&["connect", &cut], "secret"),
        (&["connect", &no_port], "host:port"),
        (&["connect", "--trust", "blocked", "x"], "known"),
        (&["connect", "--intent", "/x", "x"], "family"),
        (&["connect", "--session", "chat", "x"], "conversation"),
        (&["connect", "--timeout", "0", "x"], "90s"),
        (&["approve"], "ID"),
        (&["approve", "0011", "--trust", "blocked"], "known"),
        (&["deny"], "ID"),
        (&["trust", "bob"], "LEVEL"),
        (&["trust", "bob", "friend"], "trusted"),
        (&["trust", "bob", "known", "--expires", "x"], "90s"),
        (&["forget"], "PEER"),
        (&["policy"], "check"),
        (&["policy", "check", "bob"], "KIND"),
        (&["socket"], "add"),
        (&["socket", "add", "box"], "--allow"),
        (&["socket", "add", "box", "--allow", "all"], "advertise"),
        (&["socket", "add", "Box", "--allow", "send"], "a-z"),
        (&["socket", "remove"], "NAME"),
        (&["audit", "--since", "soon"], "15m"),
    ] {
        let ran = home.run(args);
        let said = ran.usage();
        assert!(said.contains(word), "{args:?} should speak of {word}: {said}");
        assert!(!format!("{ran:?}").contains(&secret[..20]), "{ran:?}");
    }
}

#[test]
fn every_verb_is_in_the_help_in_the_order_of_its_use() {
    let help = Home::default().run(&["--help"]).stdout;
    let at = |verb: &str| help.find(&format!("\n  {verb} ")).unwrap_or_else(|| panic!("no {verb}: {help}"));
    let order = [
        "daemon", "invite", "connect", "knocks", "approve", "deny", "peers", "contacts", "trust", "forget",
        "send", "answer", "pause", "resume", "policy", "socket", "audit", "rekey", "reload", "config",
    ];
    assert!(order.windows(2).all(|two| at(two[0]) < at(two[1])), "{help}");
    assert!(help.contains("AXON_SOCKET") && help.contains("axon invite"), "{help}");
}
