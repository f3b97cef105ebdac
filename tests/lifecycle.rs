//! Starting, stopping, reading the settings again, restarts, and what is found damaged.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support;
use crate::support::{Daemon, introduce, mode, pair, set_mode, wait_for};

fn summary(reply: &Value) -> &str {
    reply["response"]["payload"]["summary"].as_str().unwrap_or_else(|| panic!("no summary: {reply}"))
}

fn ping(daemon: &Daemon, to: &str) -> Value {
    daemon.client().cmd(json!({"cmd":"send","to":to,"kind":"ping"}))
}

/// Runs a daemon that must refuse to start; what it prints and its exit code.
fn refused(daemon: &Daemon) -> (Value, Option<i32>) {
    let output = daemon.command(&["daemon", "--port", "0"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text
        .lines()
        .next()
        .unwrap_or_else(|| panic!("nothing on stdout: {}", String::from_utf8_lossy(&output.stderr)));
    (serde_json::from_str(line).unwrap(), output.status.code())
}

/// Files in the root whose names begin so.
fn named(daemon: &Daemon, start: &str) -> Vec<String> {
    let names =
        fs::read_dir(daemon.root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(start)).collect()
}

// --- stopping ---

#[test]
fn a_stop_lets_what_is_in_flight_finish() {
    // shows: IPC-STOP-1, WF-STOP-1
    for signal in [Signal::TERM, Signal::INT] {
        let (alice, mut bob) = pair();
        let mut agent = bob.answerer(json!({"answer":["query"],"capacity":1}));
        let mut at_alice = alice.answerer(json!({"answer":["query"]}));
        let mut asker = alice.client();
        let held = asker.ask("bob", "held", json!({}));
        let request = agent.request();
        let waiting = asker.ask("bob", "waiting", json!({}));
        wait_for("the second to wait", || (agent.ok(json!({"cmd":"status"}))["queued"] == 1).then_some(()));
        let mut outward = bob.client();
        let out = outward.ask("alice", "outward", json!({}));
        let at_alice_request = at_alice.request();
        bob.signal(signal);
        // What nobody has begun is refused at once.
        let reply = asker.finish(&waiting);
        assert_eq!(reply["response"]["payload"]["code"], "overloaded", "{reply}");
        // So is anything new, on either side.
        let late = asker.ask("bob", "late", json!({}));
        assert_eq!(asker.finish(&late)["response"]["payload"]["code"], "overloaded");
        outward.fails(json!({"cmd":"send","to":"alice","kind":"ping"}), "overloaded");
        // What is open goes on: an answer to the peer, an answer of the peer.
        agent.respond(&request, "finished");
        assert_eq!(summary(&asker.finish(&held)), "finished");
        at_alice.respond(&at_alice_request, "too");
        assert_eq!(summary(&outward.finish(&out)), "too");
        assert_eq!(bob.wait_exit().code(), Some(0));
        assert!(!bob.socket().exists());
        assert_eq!(agent.line(), None, "its clients read the end");
        alice.wait_peer(&bob, false);
    }
}

#[test]
fn a_stop_refuses_what_does_not_finish() {
    // shows: IPC-STOP-1, WF-STOP-1
    let (alice, mut bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    let req = asker.ask("bob", "q", json!({}));
    let request = agent.request();
    let start = Instant::now();
    bob.signal(Signal::TERM);
    let reply = asker.finish(&req);
    assert_eq!(reply["response"]["payload"]["code"], "overloaded", "{reply}");
    assert_eq!(agent.event(), json!({"event":"withdrawn","ref":request["id"],"reason":"cancelled"}));
    assert_eq!(bob.wait_exit().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(8), "5 s at most, and a moment: {:?}", start.elapsed());
    assert!(!bob.socket().exists());
}

#[test]
fn an_idle_daemon_stops_and_starts_again_as_itself() {
    let (alice, mut bob) = pair();
    let (id, key, port) = (bob.id().to_owned(), bob.pubkey().to_owned(), bob.port());
    // A kept delegation holds up nobody.
    alice.client().ok(json!({"cmd":"send","to":"bob","kind":"delegate","payload":{"task":"t"}}));
    let start = Instant::now();
    assert_eq!(bob.terminate().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(4), "nothing was in flight: {:?}", start.elapsed());
    bob.up();
    assert_eq!((bob.id(), bob.pubkey(), bob.port()), (&*id, &*key, port));
    alice.wait_peer(&bob, true);
}

// --- SIGHUP ---

#[test]
fn sighup_reads_name_and_peers_again() {
    // shows: IPC-STOP-2, WF-PEER-4, WF-PIN-6
    let (alice, bob) = pair();
    let whoami = |daemon: &Daemon| daemon.client().ok(json!({"cmd":"whoami"}));
    bob.set_config("name = \"robert\"\n");
    bob.reload();
    assert_eq!(whoami(&bob)["name"], "robert");
    let pong = alice.client().ok(json!({"cmd":"send","to":"bob","kind":"ping"}));
    assert_eq!(pong["response"]["payload"]["agent_name"], "robert");
    assert_eq!(ping(&alice, "bob")["ok"], true, "a new name drops no connection");

    // Out: disconnected on both sides, and not let in again.
    bob.set_peers(&[]);
    bob.reload();
    alice.wait_peer(&bob, false);
    assert_eq!(bob.client().peer(alice.id()), None);
    assert_eq!(ping(&bob, alice.id())["error"], "peer_not_found");
    let reply = ping(&alice, "bob");
    assert_eq!(reply["error"], "peer_unreachable", "{reply}");
    assert!(alice.client().peer(bob.id()).unwrap()["error"].is_string());
    // And in again.
    bob.set_peers(&[("alice", &alice)]);
    bob.reload();
    bob.wait_peer(&alice, true);
    alice.wait_peer(&bob, true);
    assert_eq!(ping(&bob, "alice")["ok"], true);

    // Settings that are wrong change nothing, and the log says why.
    bob.set_config("nmae = \"x\"\n");
    bob.reload();
    assert_eq!(whoami(&bob)["name"], "robert");
    assert_eq!(ping(&alice, "bob")["ok"], true);
    let log = bob.log();
    assert!(log.contains("line 3, column 1") && log.contains("nmae") && log.contains("\"name\""), "{log}");
}

#[test]
fn a_removed_peers_open_requests_end() {
    // shows: WF-PIN-6, IPC-WD-1
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    let req = asker.ask("bob", "q", json!({}));
    let request = agent.request();
    bob.set_peers(&[]);
    bob.reload();
    assert_eq!(agent.event(), json!({"event":"withdrawn","ref":request["id"],"reason":"peer_gone"}));
    assert_eq!(asker.finish(&req)["error"], "peer_unreachable");
    assert_eq!(bob.client().ok(json!({"cmd":"status"}))["open_requests"], 0);
}

// --- one root ---

#[test]
fn a_second_daemon_on_the_root_is_refused() {
    // shows: IPC-SOCK-4
    let daemon = Daemon::start("");
    let (line, code) = refused(&daemon);
    assert_eq!((&line["ok"], code), (&json!(false), Some(1)), "{line}");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains(&daemon.pid().to_string()), "{message}");
    daemon.client().ok(json!({"cmd":"whoami"}));
}

#[test]
fn what_a_dead_daemon_left_behind_blocks_nothing() {
    // shows: IPC-SOCK-4
    let mut daemon = Daemon::start("");
    daemon.kill9();
    assert!(daemon.socket().exists() && daemon.root().join("axon.lock").exists());
    daemon.up();
    daemon.kill9();
    // Somebody else's pid in the lock, and a file where the socket was.
    fs::write(daemon.root().join("axon.lock"), format!("{}\n", std::process::id())).unwrap();
    fs::remove_file(daemon.socket()).unwrap();
    fs::write(daemon.socket(), "x").unwrap();
    daemon.up();
    assert_eq!(fs::read_to_string(daemon.root().join("axon.lock")).unwrap().trim(), daemon.pid().to_string());
}

#[test]
fn private_files_are_private() {
    // shows: IPC-SOCK-1, IPC-AUTH-3, WF-ID-4
    let (alice, mut bob) = pair();
    assert_eq!(ping(&alice, "bob")["ok"], true);
    assert_eq!(bob.terminate().code(), Some(0));
    assert_eq!(mode(&bob.root()), 0o700);
    for name in ["identity.key", "ipc-token", "axon.lock", "replay.log"] {
        assert_eq!(mode(&bob.root().join(name)), 0o600, "{name}");
    }
    assert!(bob.root().join("identity.pub").exists());
    let token = fs::read_to_string(bob.root().join("ipc-token")).unwrap();
    assert!(token.trim().len() == 64 && token.trim().bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    // A key that others may read, or that is damaged, is not used, and stays as it is.
    let key = bob.root().join("identity.key");
    set_mode(&key, 0o644);
    let (line, code) = refused(&bob);
    assert_eq!(code, Some(1));
    assert!(line["message"].as_str().unwrap().contains("identity.key"), "{line}");
    set_mode(&key, 0o600);
    fs::write(&key, "damaged").unwrap();
    let (line, code) = refused(&bob);
    assert_eq!(code, Some(1));
    assert!(line["message"].as_str().unwrap().contains("identity.key"), "{line}");
    assert_eq!(fs::read_to_string(&key).unwrap(), "damaged");
}

#[test]
fn damaged_state_is_kept_aside() {
    // shows: WF-PEER-5
    let mut daemon = Daemon::start("");
    let id = daemon.id().to_owned();
    assert_eq!(daemon.terminate().code(), Some(0));
    fs::write(daemon.root().join("known_peers.json"), "{\"version\":1,").unwrap();
    fs::write(daemon.root().join("replay.log"), [7_u8; 500]).unwrap();
    daemon.up();
    assert_eq!(daemon.id(), id);
    for (name, was) in [("known_peers.json", 13), ("replay.log", 500)] {
        let aside = named(&daemon, &format!("{name}.damaged-"));
        assert_eq!(aside.len(), 1, "{name}: {aside:?}");
        assert_eq!(fs::metadata(daemon.root().join(&aside[0])).unwrap().len(), was);
        assert!(daemon.log().contains(&aside[0]), "the log names it: {}", daemon.log());
    }
    // Once more: whole again.
    assert_eq!(daemon.terminate().code(), Some(0));
    daemon.up();
    assert_eq!(named(&daemon, "replay.log.damaged-").len(), 1);
}

// shows: TRUST-CON-1, IPC-STOP-2
#[test]
fn wrong_contacts_keep_a_daemon_from_starting_and_change_nothing_when_read_again() {
    let (mut alice, bob) = pair();
    let contacts = bob.root().join("contacts.toml");
    let wrong = format!("[[contacts]]\nagent_id = \"{}\"\nlevel = \"friend\"\n", alice.id());
    let place = ["contacts.toml", "line 3, column 9", "level", "friend"];
    // Read again: neither this file counts, nor the other, which is right.
    fs::write(&contacts, &wrong).unwrap();
    support::set_mode(&contacts, 0o600);
    bob.set_config("name = \"robert\"\n");
    bob.reload();
    assert_eq!(bob.client().ok(json!({"cmd":"whoami"})).get("name"), None);
    assert_eq!(ping(&alice, "bob")["ok"], true);
    let log = bob.log();
    assert!(place.iter().all(|part| log.contains(part)), "{log}");
    // At a start.
    let other = Daemon::idle("");
    fs::create_dir_all(other.root()).unwrap();
    support::set_mode(&other.root(), 0o700);
    fs::write(other.root().join("contacts.toml"), &wrong).unwrap();
    support::set_mode(&other.root().join("contacts.toml"), 0o600);
    let (line, code) = refused(&other);
    assert_eq!((&line["ok"], code), (&json!(false), Some(1)), "{line}");
    let message = line["message"].as_str().unwrap();
    assert!(place.iter().all(|part| message.contains(part)), "{message}");
    assert!(!other.socket().exists());
    assert_eq!(fs::read_to_string(other.root().join("contacts.toml")).unwrap(), wrong);
    alice.terminate();
}

#[test]
fn bad_settings_are_refused_with_their_place() {
    let daemon = Daemon::idle("");
    // Lines 1 and 2 are `bind` and `mdns`.
    for (config, wanted) in [
        ("nmae = \"x\"\n", &["line 3, column 1", "nmae", "\"name\""][..]),
        ("name = 7\n", &["line 3, column 8", "name"]),
        ("port = 99999\n", &["line 3, column 8", "port", "65535"]),
        ("\n[ipc]\nbufer_size = 5\n", &["line 5, column 1", "bufer_size", "\"ipc.buffer_size\""]),
        ("[ipc]\n  buffer_size = \"5\"\n", &["line 4, column 17", "ipc.buffer_size"]),
        ("[icp]\n", &["line 3", "icp", "ipc"]),
        ("name = \"x\"\nname = \"y\"\n", &["line 4, column 1", "duplicate key"]),
        ("name = \n", &["line 3"]),
        ("keepalive_secs = 60\nidle_timeout_secs = 60\n", &["keepalive_secs", "idle_timeout_secs"]),
        ("[[peers]]\nadr = \"127.0.0.1:1\"\n", &["line 4, column 1", "adr", "\"addr\""]),
        ("[[peers]]\naddr = \"127.0.0.1:1\"\n", &["line 4", "agent_id"]),
    ] {
        daemon.set_config(config);
        let (line, code) = refused(&daemon);
        assert_eq!((&line["ok"], code), (&json!(false), Some(1)), "{config}\n{line}");
        let message = line["message"].as_str().unwrap();
        for part in wanted {
            assert!(message.contains(part), "{config:?}: no {part:?} in: {message}");
        }
        assert!(!daemon.socket().exists());
    }
}

#[test]
fn a_port_in_use_is_told() {
    let first = Daemon::start("");
    let second = Daemon::idle("");
    let port = first.port().to_string();
    let output = second.command(&["daemon", "--port", &port]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(line["message"].as_str().unwrap().contains(&port), "{line}");
}

// --- restarts ---

/// Answers every query of this daemon with `text`, until the daemon goes.
fn answer_all(daemon: &Daemon, text: &'static str) -> std::thread::JoinHandle<()> {
    let mut agent = daemon.answerer(json!({"answer":["query"],"capacity":100}));
    std::thread::spawn(move || {
        while let Some(line) = agent.line() {
            if line["answer"] == true {
                let (id, payload) = (&line["envelope"]["id"], json!({"summary":text}));
                agent.begin(json!({"cmd":"reply","ref":id,"kind":"response","payload":payload}));
            }
        }
    })
}

/// How long until a query of this daemon is answered, asked again and again.
fn until_answered(daemon: &Daemon, to: &str, since: Instant) -> Duration {
    let mut client = daemon.client();
    wait_for("a query to be answered", || {
        let req = client.ask(to, "there?", json!({"deadline_ms":5000}));
        let reply = client.finish(&req);
        (reply["response"]["kind"] == "response").then(|| since.elapsed())
    })
}

#[test]
fn a_daemon_that_was_killed_is_there_again_for_both_sides() {
    // shows: WF-RST-1, WF-RST-2, WF-DUP-1: once as the lower id, once as the higher
    let (mut alice, mut bob) = pair();
    let agents = [answer_all(&alice, "a"), answer_all(&bob, "b")];
    for (n, turn) in ["bob", "alice", "bob", "alice"].into_iter().enumerate() {
        until_answered(&alice, "bob", Instant::now());
        until_answered(&bob, "alice", Instant::now());
        let dead = if turn == "bob" { &mut bob } else { &mut alice };
        if n < 2 {
            dead.kill9();
        } else {
            assert_eq!(dead.terminate().code(), Some(0));
        }
        let start = Instant::now();
        dead.up();
        answer_all(dead, "again");
        let up = start.elapsed();
        let there = until_answered(&alice, "bob", start);
        let back = until_answered(&bob, "alice", start);
        let lower = alice.id() < bob.id();
        eprintln!(
            "{turn} restarted (alice is lower: {lower}): up {up:?}, to bob {there:?}, to alice {back:?}"
        );
        assert!(there < Duration::from_secs(5) && back < Duration::from_secs(5));
    }
    drop((alice, bob));
    for agent in agents {
        agent.join().unwrap();
    }
}

#[test]
fn an_acceptor_that_was_killed_is_reached_by_the_one_who_dials() {
    // shows: WF-RST-2, WF-RST-3: bob knows no right address of alice, and cannot announce himself
    let alice = Daemon::start("");
    let mut bob = Daemon::start("");
    alice.set_peers(&[("bob", &bob)]);
    let right = alice.port();
    alice.set_port(support::free_port());
    bob.set_peers(&[("alice", &alice)]);
    alice.set_port(right);
    bob.reload();
    alice.reload();
    alice.wait_peer(&bob, true);
    until_answered(&alice, "bob", {
        answer_all(&bob, "b");
        Instant::now()
    });
    for _ in 0..2 {
        bob.kill9();
        let start = Instant::now();
        bob.up();
        answer_all(&bob, "again");
        let there = until_answered(&alice, "bob", start);
        eprintln!("the acceptor was killed: {there:?}");
        assert!(there < Duration::from_secs(5));
    }
}

#[test]
fn a_query_to_a_killed_peer_fails_and_status_answers_meanwhile() {
    // shows: WF-RST-3, IPC-SEND-2
    let (alice, mut bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    let open = asker.ask("bob", "open", json!({}));
    agent.request();
    bob.kill9();
    let start = Instant::now();
    let new = asker.ask("bob", "new", json!({}));
    let asked = Instant::now();
    asker.ok(json!({"cmd":"status"}));
    eprintln!("status: {:?}", asked.elapsed());
    assert_eq!(asker.finish(&new)["error"], "peer_unreachable");
    assert_eq!(asker.finish(&open)["error"], "peer_unreachable");
    eprintln!("unreachable after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(8));
}

#[test]
fn both_start_at_once_and_no_query_is_lost() {
    // shows: WF-DUP-1, WF-DUP-2, WF-DUP-3, WF-DUP-4: the duplicate is closed after 2 s without streams
    let (mut alice, mut bob) = pair();
    for daemon in [&mut alice, &mut bob] {
        assert_eq!(daemon.terminate().code(), Some(0));
    }
    alice.launch();
    bob.launch();
    alice.wait_up();
    bob.wait_up();
    answer_all(&alice, "a");
    answer_all(&bob, "b");
    let ask = |daemon: &Daemon, to: &'static str, text: &'static str| {
        let mut client = daemon.client();
        std::thread::spawn(move || {
            let end = Instant::now() + Duration::from_millis(3500);
            let mut count = 0;
            while Instant::now() < end {
                let reqs: Vec<String> = (0..4).map(|_| client.ask(to, "q", json!({}))).collect();
                for req in reqs {
                    let reply = client.finish(&req);
                    assert_eq!(reply["response"]["payload"]["summary"], text, "after {count}: {reply}");
                    count += 1;
                }
                std::thread::sleep(Duration::from_millis(5)); // many rounds, not a flood
            }
            count
        })
    };
    let threads = [ask(&alice, "bob", "b"), ask(&bob, "alice", "a")];
    for thread in threads {
        assert!(thread.join().unwrap() > 50);
    }
}

#[test]
fn three_daemons_know_each_other() {
    let (alice, bob, carol) = (Daemon::start(""), Daemon::start(""), Daemon::start(""));
    introduce(&alice, &bob);
    carol.set_peers(&[("alice", &alice)]);
    carol.reload();
    alice.set_peers(&[("bob", &bob), ("carol", &carol)]);
    alice.reload();
    carol.wait_peer(&alice, true);
    assert_eq!(ping(&alice, "bob")["ok"], true, "adding one drops no other");
    assert_eq!(ping(&alice, "carol")["ok"], true);
    assert_eq!(ping(&carol, "alice")["ok"], true);
    assert_eq!(ping(&carol, bob.id())["error"], "peer_not_found");
}

// shows: WF-CON-4
#[test]
fn a_peer_is_reached_by_the_name_of_its_host() {
    let (alice, bob) = (Daemon::start(""), Daemon::start(""));
    let entry = |peer: &Daemon, addr: &str| {
        let text = peer.as_peer("peer");
        let line = text.lines().find(|line| line.starts_with("addr")).unwrap().to_owned();
        text.replace(&line, &format!("addr = \"{addr}\""))
    };
    // Only alice can dial.
    bob.set_config(&entry(&alice, "127.0.0.1:1"));
    bob.reload();
    alice.set_config(&entry(&bob, &format!("localhost:{}", bob.port())));
    alice.reload();
    alice.wait_peer(&bob, true);
    assert_eq!(ping(&bob, "peer")["ok"], true);
}
