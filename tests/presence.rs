//! Presence between real daemons: who comes and goes, who can do what, who is found further away, and what
//! the command line shows of it.

use serde_json::{Value, json};

use crate::support;
use crate::support::{Daemon, RawClient, pair, wait_for};

/// A client that is told of changes.
fn watcher(daemon: &Daemon) -> RawClient {
    let mut client = daemon.client();
    assert_eq!(client.ok(json!({"cmd":"subscribe_presence"}))["on"], true);
    client
}

fn change(client: &mut RawClient, change: &str) -> Value {
    let event = client.event_where(|event| event["event"] == "presence" && event["change"] == change);
    event["peer"].clone()
}

fn row(daemon: &Daemon, peer: &str) -> Value {
    daemon.client().ok(json!({"cmd":"presence","peer":peer}))["presence"][0].clone()
}

fn wait_status(daemon: &Daemon, peer: &str, status: &str) -> Value {
    wait_for("a peer's status", || Some(row(daemon, peer)).filter(|row| row["status"] == status))
}

// shows: PRES-BEA-1, PRES-BEA-2, PRES-BEA-4, PRES-LIVE-1, IPC-PRES-1, IPC-PRES-5
#[test]
fn peers_are_seen_to_come_to_change_and_to_go() {
    let (alice, mut bob) = pair();
    let known = wait_status(&alice, "bob", "idle");
    assert_eq!((&known["id"], &known["connected"]), (&json!(bob.id()), &json!(true)), "{known}");
    let mut watching = watcher(&alice);
    let mut agent = bob.client();
    agent.ok(json!({"cmd":"set_presence","status":"dnd"}));
    assert_eq!(change(&mut watching, "status")["status"], "dnd");
    agent.ok(json!({"cmd":"advertise","capabilities":{"domains":["family"],"tools":["web_search"]}}));
    let able = wait_for("what bob can do", || {
        let who = alice.client().ok(json!({"cmd":"who","domain":"family.calendar","tool":"web_search"}));
        who["agents"].get(0).cloned()
    });
    assert_eq!(able["domains"], json!(["family"]));
    drop(agent);
    // Its word ends with its connection, and so does what it can do.
    assert_eq!(change(&mut watching, "status")["status"], "idle");
    wait_for("that bob can do nothing", || {
        let who = alice.client().ok(json!({"cmd":"who","tool":"web_search"}));
        who["agents"].as_array().unwrap().is_empty().then_some(())
    });
    // A clean stop is said, a kill is seen.
    assert!(bob.terminate().success());
    let gone = change(&mut watching, "offline");
    assert_eq!(gone["status"], "offline", "{gone}");
    bob.up();
    assert_eq!(change(&mut watching, "online")["id"], bob.id());
    wait_status(&alice, "bob", "idle");
    bob.kill9();
    // Another daemon on its port answers packets of the dead connection, and so ends it.
    bob.up();
    assert_eq!(change(&mut watching, "status")["id"], bob.id());
    wait_status(&alice, "bob", "idle");
}

// shows: PRES-FIND-1, PRES-FIND-3, PRES-FIND-4, PRES-FIND-5, IPC-PRES-2
#[test]
fn an_agent_two_hops_away_is_found_as_it_allows_and_can_be_connected_to() {
    let (alice, bob, carol) = (Daemon::start(""), Daemon::start(""), Daemon::start("knock.open = true"));
    alice.set_peers(&[("bob", &bob)]);
    bob.set_peers(&[("alice", &alice), ("carol", &carol)]);
    carol.set_peers(&[("bob", &bob)]);
    [&bob, &carol, &alice].into_iter().for_each(Daemon::reload);
    alice.wait_peer(&bob, true);
    bob.wait_peer(&carol, true);
    let mut agent = carol.client();
    agent.ok(json!({"cmd":"advertise","capabilities":{"tools":["web_search"]}}));
    wait_for("bob to hear of it", || {
        let who = bob.client().ok(json!({"cmd":"who","tool":"web_search"}));
        who["agents"].get(0).map(|_| ())
    });
    let find = |hops: u8| {
        let reply = alice.client().ok(json!({"cmd":"find","tool":"web_search","hops":hops}));
        reply["agents"].as_array().unwrap().clone()
    };
    assert_eq!(find(1), Vec::<Value>::new(), "she is no peer of alice");
    let found = find(2);
    assert_eq!((found.len(), &found[0]["id"], &found[0]["hops"]), (1, &json!(carol.id()), &json!(2)));
    assert_eq!(found[0]["public_key"], carol.pubkey());
    assert!(found[0].get("trust").is_none() && found[0]["link"].as_str().unwrap().starts_with("axon://"));
    let by_id = alice.client().ok(json!({"cmd":"find","id":carol.id()}));
    assert_eq!(by_id["agents"][0]["tools"], json!(["web_search"]));
    // The command line shows how to knock there, and that leads to her.
    let shown = alice.command(&["find", "--tool", "web_search", "--plain"]).output().unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("2 hops") && text.contains("connect \"axon://"), "{text}");
    // She lets nobody learn of her any more.
    carol.set_config("presence.findable = \"trusted\"");
    carol.reload();
    wait_for("carol not to be found", || find(2).is_empty().then_some(()));
    bob.client().ok(json!({"cmd":"trust","peer":"alice","trust":"trusted"}));
    assert_eq!(find(2).len(), 1);
    // Whom bob has blocked does not exist for those who ask him, and cannot ask.
    bob.client().ok(json!({"cmd":"trust","peer":"carol","trust":"blocked"}));
    assert_eq!(find(3), Vec::<Value>::new());
    let mut bobs = bob.client();
    let rows = bobs.ok(json!({"cmd":"presence"}))["presence"].clone();
    assert!(rows.as_array().unwrap().iter().all(|row| row["id"] != carol.id()), "{rows}");
}

#[test]
fn the_command_line_shows_presence() {
    let (alice, bob) = pair();
    wait_status(&alice, "bob", "idle");
    let mut set = bob.command(&["presence", "--set", "away"]);
    let mut held = set.stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_status(&alice, "bob", "away");
    let shown = alice.command(&["presence", "bob", "--plain"]).output().unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("bob") && text.contains("away") && text.contains("this agent is idle"), "{text}");
    support::kill(&mut held, true);
    wait_status(&alice, "bob", "idle");
    let json = alice.command(&["presence", "--json"]).output().unwrap();
    let line: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&line["ok"], &line["presence"][0]["name"]), (&json!(true), &json!("bob")));
    let who = alice.command(&["who", "--tool", "none", "--plain"]).output().unwrap();
    assert!(String::from_utf8(who.stdout).unwrap().contains("nobody"));
    let wrong = alice.command(&["find", "--hops", "9", "--tool", "x"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let whom = alice.command(&["find", "--json"]).output().unwrap();
    let said: Value = serde_json::from_slice(&whom.stdout).unwrap();
    assert_eq!((whom.status.code(), said["error"].as_str()), (Some(2), Some("usage")));
    assert!(said["message"].as_str().unwrap().contains("--domain NAME"), "{said}");
}
