//! What the owner says of peers: read again, at an end, overlapping, and in the file as it is in memory. One
//! node, and peers whose every message the test writes itself.

use std::sync::Arc;

use axon_proto::audit::Event;
use axon_proto::contacts::Contact;
use axon_proto::id::{AgentId, PublicKey};
use axon_proto::invite::Link;
use axon_proto::limits;
use axon_proto::node::{ConnId, Effect, Input, Pins, StaticPeer};
use axon_proto::trust::Level;
use serde_json::{Value, json};

use crate::net::{Rng, Solo, WALL_MS, answer_on, closes, lines};

/// What this daemon offers, but what is about pairing.
const ALL: &[&str] =
    &["delegate", "ack", "progress", "result", "cancel", "discover", "capabilities", "receipt"];

fn agent_id(n: u8) -> AgentId {
    PublicKey([n; 32]).agent_id()
}

fn id(n: u8) -> String {
    agent_id(n).to_string()
}

fn static_peer(n: u8, name: Option<&str>) -> StaticPeer {
    let name = name.map(str::to_owned);
    let pubkey = PublicKey([n; 32]);
    StaticPeer { agent_id: agent_id(n), pubkey, addr: "192.0.2.1:7100".into(), name }
}

fn code(answer: &Value) -> &str {
    assert_eq!(answer["kind"], "error", "{answer}");
    answer["payload"]["code"].as_str().unwrap()
}

fn pins(effects: &[Effect]) -> Option<Arc<Pins>> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Pins(pins) => Some(pins.clone()),
        _ => None,
    })
}

fn notify(solo: &mut Solo, conn: ConnId, topic: &str) -> Value {
    let notify = solo.envelope("notify", json!({"topic":topic,"data":1}));
    solo.ask(conn, &notify)
}

fn inbox(solo: &mut Solo) -> Vec<Value> {
    let reply = solo.owned(json!({"cmd":"inbox","limit":1000}));
    reply["messages"].as_array().unwrap().clone()
}

/// The rows of `peers`, which a shell answers by a measurement first.
fn peers(solo: &mut Solo) -> Vec<Value> {
    let client = solo.client();
    solo.say(client, &json!({"cmd":"peers","req_id":"p"}));
    let effects = solo.feed(Input::Measured { client, req_id: "\"p\"".into(), rtts: Vec::new() });
    let rows = lines(&effects, client)[0]["peers"].as_array().unwrap().clone();
    solo.feed(Input::ClientGone { client });
    rows
}

fn peer_row(solo: &mut Solo, n: u8) -> Option<Value> {
    peers(solo).into_iter().find(|row| row["id"] == id(n).as_str())
}

fn blocks(n: u8) -> Value {
    json!({"cmd":"trust","req_id":"b","peer":id(n),"trust":"blocked"})
}

fn forgets(n: u8) -> Value {
    json!({"cmd":"forget","req_id":"b","peer":id(n)})
}

fn contact(n: u8) -> Contact {
    Contact {
        agent_id: agent_id(n),
        pubkey: Some(PublicKey([n; 32])),
        addrs: vec!["192.0.2.1:7100".into()],
        level: Level::Known,
        name: None,
        since_ms: 0,
        why: None,
        expiry_ms: None,
        paused: false,
    }
}

// --- the file is read again ---

// shows: TRUST-CON-6, TRUST-CON-5, TRUST-OUT-1, TRUST-OUT-4, TRUST-OUT-7
#[test]
fn contacts_that_are_read_again_hold_at_once() {
    let mut solo = Solo::with(1, 2, |settings| settings.peers.clear());
    solo.contacts.contacts = [2, 3, 4, 5].map(contact).into();
    solo.restart();
    let mut conns = Vec::new();
    for n in [2, 3, 4, 5] {
        solo.play(n);
        let conn = solo.greeted(ALL, None);
        assert_eq!(notify(&mut solo, conn, &format!("of {n}"))["kind"], "ack");
        conns.push(conn);
    }
    let mut file = solo.contacts.clone();
    file.contacts[0].level = Level::Trusted;
    file.contacts[0].name = Some("anna".into());
    file.contacts[1].level = Level::Blocked;
    file.contacts.remove(3);
    file.contacts.push(contact(6));
    let effects = solo.feed(Input::Contacts(file));
    let mut closed = closes(&effects);
    closed.sort_unstable();
    assert_eq!(closed, [(conns[1], 0), (conns[3], 0)]);
    let pinned = pins(&effects).unwrap();
    let mut keys: Vec<AgentId> = pinned.keys.keys().copied().collect();
    keys.sort_unstable();
    let mut expected = [2, 4, 6].map(agent_id);
    expected.sort_unstable();
    assert_eq!((keys, pinned.blocked.contains(&agent_id(3))), (expected.into(), true));
    let rows = inbox(&mut solo);
    let told: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row["envelope"]["payload"]["topic"].as_str().unwrap(), row["trust"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("of 2", "trusted"), ("of 4", "known")]);
    assert_eq!(rows[0]["from_name"], "anna");
    let noted = |event: Event, n: u8| {
        let rows = solo.audit.iter().filter(|row| row.event == event && row.peer == Some(agent_id(n)));
        rows.map(|row| row.rule.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(noted(Event::Trust, 2), ["trusted"]);
    assert_eq!(noted(Event::Trust, 3), ["blocked"]);
    assert_eq!(noted(Event::Forget, 5), ["contacts.toml"]);
    assert_eq!(noted(Event::Forget, 3), Vec::<String>::new(), "it is blocked, not forgotten");
}

// shows: TRUST-CON-6, TRUST-OUT-2, TRUST-CON-7
#[test]
fn a_file_that_is_read_in_between_undoes_nothing() {
    for (command, level) in [(blocks(2), Some("blocked")), (forgets(2), None)] {
        let mut solo = Solo::with(1, 2, |settings| settings.peers.clear());
        solo.contacts.contacts = vec![contact(2), contact(3)];
        solo.restart();
        let before = solo.contacts.clone();
        solo.stall = true;
        let owner = solo.client();
        solo.say(owner, &command);
        // As it was on the disk before the command's own change came there.
        let mut effects = solo.feed(Input::Contacts(before));
        effects.extend(solo.go_on());
        assert!(lines(&effects, owner).iter().any(|line| line["ok"] == true));
        let listed = solo.owned(json!({"cmd":"contacts"}))["contacts"].clone();
        let row = listed.as_array().unwrap().iter().find(|row| row["agent_id"] == id(2).as_str());
        assert_eq!(row.map(|row| row["trust"].as_str().unwrap()), level, "{listed}");
        let (conn, effects) = solo.dialled_from("192.0.2.1:7100", [0; 32]);
        assert_eq!(closes(&effects), [(conn, 4)]);
    }
}

// --- contacts whose time is over ---

/// The level by which a peer is listed, and its source.
fn stands(solo: &mut Solo, n: u8) -> Option<(String, String)> {
    let row = peer_row(solo, n)?;
    Some((row["trust"].as_str()?.to_owned(), row["source"].as_str()?.to_owned()))
}

fn expires(n: u8, level: &str, secs: u64) -> Value {
    json!({"cmd":"trust","peer":id(n),"trust":level,"expires_secs":secs})
}

// shows: TRUST-CON-4, TRUST-LEV-1
#[test]
fn a_contact_whose_time_is_over_says_nothing_any_more() {
    for restart in [false, true] {
        let mut solo = Solo::with(1, 2, |settings| {
            settings.peers.push(static_peer(3, Some("carol")));
        });
        solo.contacts.contacts = vec![Contact { expiry_ms: Some(WALL_MS + 61_000), ..contact(4) }];
        solo.restart();
        solo.owned(json!({"cmd":"trust","peer":id(3),"trust":"trusted","name":"boss","expires_secs":60}));
        solo.owned(expires(2, "blocked", 60));
        let known = |level: &str, source: &str| Some((level.to_owned(), source.to_owned()));
        assert_eq!(stands(&mut solo, 2), None);
        assert_eq!(stands(&mut solo, 3), known("trusted", "static"));
        assert_eq!(stands(&mut solo, 4), known("known", "contact"));
        let mut conns = Vec::new();
        for n in [3, 4] {
            solo.play(n);
            conns.push(solo.greeted(ALL, None));
            let conn = conns[conns.len() - 1];
            assert_eq!(notify(&mut solo, conn, &format!("of {n}"))["kind"], "ack");
        }
        let mut effects = solo.wait(59_999);
        assert_eq!((stands(&mut solo, 2), closes(&effects)), (None, vec![]));
        if restart {
            solo.now += 1;
            solo.restart();
        } else {
            effects = solo.wait(1);
            assert_eq!(closes(&effects), [(conns[1], 0)]);
        }
        // Each is what it is without the entry.
        assert_eq!(stands(&mut solo, 2), known("known", "static"));
        assert_eq!(stands(&mut solo, 3), known("known", "static"));
        assert_eq!(peer_row(&mut solo, 3).unwrap()["name"], "carol");
        assert_eq!(stands(&mut solo, 4), None);
        // What it has sent stays.
        let rows = inbox(&mut solo);
        let row = rows.iter().find(|row| row["envelope"]["payload"]["topic"] == "of 4").unwrap();
        assert_eq!((&row["trust"], &row["from_name"]), (&json!("unknown"), &json!(null)));
        solo.play(4);
        let (conn, effects) = solo.dialled_from("192.0.2.1:7100", [0; 32]);
        assert_eq!(closes(&effects), [(conn, 4)]);
        solo.play(2);
        let conn = solo.greeted(ALL, None);
        assert_eq!(notify(&mut solo, conn, "back")["kind"], "ack");
        let listed = solo.owned(json!({"cmd":"contacts"}))["contacts"].clone();
        let expired = listed.as_array().unwrap().iter().filter(|row| row["expired"] == true).count();
        assert_eq!(expired, 3, "{listed}");
    }
}

// shows: TRUST-CON-4, TRUST-LEV-1
#[test]
fn a_found_peer_is_a_found_peer_again_when_its_contact_ends() {
    let mut solo = Solo::new(1, 2);
    solo.found(3);
    solo.owned(expires(3, "known", 10));
    solo.play(3);
    let conn = solo.greeted(ALL, None);
    let effects = solo.wait(10_000);
    assert_eq!(stands(&mut solo, 3), Some(("unknown".to_owned(), "mdns".to_owned())));
    assert_eq!(closes(&effects), []);
    let delegate = solo.envelope("delegate", json!({"task":"t"}));
    assert_eq!(code(&solo.ask(conn, &delegate)), "not_authorized");
}

// shows: TRUST-AUD-1
#[test]
fn the_end_of_a_contact_is_noted() {
    let mut solo = Solo::with(1, 2, |settings| settings.peers.push(static_peer(3, None)));
    solo.contacts.contacts = vec![Contact { expiry_ms: Some(WALL_MS + 10_000), ..contact(4) }];
    solo.restart();
    solo.owned(expires(2, "blocked", 10));
    solo.owned(expires(3, "trusted", 10));
    solo.wait(10_000);
    let rows = solo.audit.iter().filter(|row| row.event == Event::Trust && &*row.rule == "expiry");
    let mut ended: Vec<AgentId> = rows.filter_map(|row| row.peer).collect();
    ended.sort_unstable();
    let mut expected = vec![agent_id(2), agent_id(3), agent_id(4)];
    expected.sort_unstable();
    assert_eq!(ended, expected);
}

// --- files ---

// shows: TRUST-CON-3, IPC-TRU-1
#[test]
fn what_the_files_cannot_take_is_not_told_as_done() {
    for command in [
        blocks(2),
        forgets(2),
        json!({"cmd":"trust","peer":id(2),"trust":"trusted"}),
        json!({"cmd":"pause"}),
        json!({"cmd":"pause","peer":id(2)}),
        json!({"cmd":"socket_add","name":"x","allow":["send"]}),
    ] {
        let mut solo = Solo::new(1, 2);
        solo.files_fail = true;
        let (reply, _) = solo.owner(command.clone());
        assert_eq!(reply["error"], "internal_error", "{command}: {reply}");
        assert!(!solo.contacts.paused && solo.contacts.contacts.is_empty() && solo.scopes.is_empty());
    }
}

// Each command waits for its own steps; none may write over what a later one has said.
// shows: TRUST-CON-3, TRUST-KNO-3
#[test]
fn the_file_ends_as_the_memory_does_whatever_overlaps() {
    let trust = |level: &str| json!({"cmd":"trust","req_id":"b","peer":id(2),"trust":level});
    let name = json!({"cmd":"trust","req_id":"b","peer":id(2),"trust":"known","name":"anna"});
    let pause = json!({"cmd":"pause","req_id":"b","peer":id(2)});
    let overlaps = [
        ("unblocked at once", vec![blocks(2), trust("known")]),
        ("blocked in between", vec![trust("trusted"), blocks(2)]),
        ("let in, then raised", vec![json!("knock"), trust("trusted")]),
        ("let in, then lowered", vec![json!("knock"), trust("unknown")]),
        ("let in, then blocked", vec![json!("knock"), blocks(2)]),
        ("let in, then paused", vec![json!("knock"), pause]),
        ("let in, then named", vec![json!("knock"), name]),
        ("forgotten, then let in", vec![forgets(2), json!("knock")]),
    ];
    let mut wrong = Vec::new();
    for (what, steps) in overlaps {
        let mut solo = Solo::with(1, 2, |settings| settings.peers.clear());
        solo.feed(Input::Start);
        let link = solo.owned(json!({"cmd":"invite"}))["link"].as_str().unwrap().to_owned();
        if steps[0] != "knock" {
            solo.contacts.contacts = vec![contact(2)];
            solo.restart();
        }
        solo.stall = true;
        let owner = solo.client();
        for step in steps {
            if step == "knock" {
                let conn = solo.accept();
                let hello = solo.envelope("hello", Solo::hello_payload(ALL, None));
                solo.ask(conn, &hello);
                let knock = solo.knock(&link, [7; 32]);
                solo.request(conn, &knock);
            } else {
                solo.say(owner, &step);
            }
        }
        solo.go_on();
        let listed = solo.owned(json!({"cmd":"contacts"}))["contacts"].clone();
        solo.restart();
        let written = solo.owned(json!({"cmd":"contacts"}))["contacts"].clone();
        if listed != written {
            wrong.push(format!("{what}: in memory {listed}, in the file {written}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// shows: TRUST-CON-3, TRUST-KNO-3, TRUST-PAU-4
#[test]
fn random_commands_that_overlap_leave_the_file_as_the_memory() {
    let mut overlapped = 0;
    for seed in 0..300 {
        let mut rng = Rng(seed);
        let mut solo = Solo::with(1, 2, |settings| {
            settings.peers.clear();
            (settings.knock.open, settings.knock.per_minute) = (true, 0);
        });
        solo.contacts.contacts = vec![contact(2), contact(3)];
        solo.restart();
        let link = solo.owned(json!({"cmd":"invite","uses":1000}))["link"].as_str().unwrap().to_owned();
        let owner = solo.client();
        let mut said = Vec::new();
        for step in 0..30 {
            solo.stall = true;
            let n = rng.range(2, 4) as u8;
            let level = ["blocked", "unknown", "known", "trusted"][rng.range(0, 3) as usize];
            let peer = rng.chance(80).then(|| id(n));
            let command = match rng.range(0, 6) {
                0 | 1 => json!({"cmd":"trust","peer":id(n),"trust":level}),
                2 => json!({"cmd":"trust","peer":id(n),"trust":level,"name":format!("n{n}x{step}")}),
                3 => forgets(n),
                4 => json!({"cmd":if rng.chance(50) { "pause" } else { "resume" },"peer":peer}),
                5 => json!({"cmd":"approve","id":id(n),"trust":"trusted"}),
                _ => json!("knock"),
            };
            if command == "knock" {
                // With the secret or without, as a peer or as a stranger, or not let in at all.
                solo.play(n);
                let (conn, effects) = solo.dialled_from(&format!("10.0.{n}.{step}:1"), [7; 32]);
                if closes(&effects).is_empty() {
                    let hello = solo.envelope("hello", Solo::hello_payload(&["knock"], None));
                    solo.request(conn, &hello);
                    let mut knock = solo.knock(&link, [7; 32]);
                    if rng.chance(50) {
                        knock["payload"] = json!({});
                    }
                    solo.request(conn, &knock);
                    solo.feed(Input::Disconnected { conn, why: "gone".into() });
                }
            } else {
                let mut command = command.clone();
                command["req_id"] = step.into();
                solo.say(owner, &command);
            }
            said.push(command);
            // The disk and the files are served in order, a purge in its own time.
            overlapped += usize::from(solo.stalled.len() > 1);
            for _ in 0..rng.range(0, 4) {
                let purge = rng.chance(30);
                let is = |effect: &Effect| matches!(effect, Effect::Purge { .. }) == purge;
                let once = std::cell::Cell::new(true);
                solo.let_go(|effect| is(effect) && once.replace(false));
            }
        }
        solo.go_on();
        let listed = solo.owned(json!({"cmd":"contacts"}));
        solo.restart();
        let written = solo.owned(json!({"cmd":"contacts"}));
        assert_eq!(listed, written, "seed {seed}: {said:?}");
    }
    assert!(overlapped > 2_000, "{overlapped}");
}

// shows: PAIR-PROOF-2
#[test]
fn a_contact_stays_what_it_was_when_an_invite_that_raises_it_cannot_be_written() {
    let mut solo = Solo::with(1, 2, |settings| settings.peers.clear());
    solo.contacts.contacts = vec![Contact { name: Some("anna".into()), ..contact(2) }];
    solo.restart();
    let conn = solo.greeted(&["knock"], None);
    let link = solo.owned(json!({"cmd":"invite","trust":"trusted"}))["link"].as_str().unwrap().to_owned();
    let knock = solo.knock(&link, [7; 32]);
    solo.files_fail = true;
    let (stream, effects) = solo.request(conn, &knock);
    assert_eq!(answer_on(&effects, stream).unwrap()["payload"]["decision"], "reject");
    assert_eq!(closes(&effects), []);
    let listed = solo.owned(json!({"cmd":"contacts"}))["contacts"][0].clone();
    assert_eq!((&listed["trust"], &listed["name"]), (&json!("known"), &json!("anna")));
}

// shows: TRUST-KNO-1, PAIR-PROOF-2, IPC-JOIN-1
#[test]
fn one_contact_too_many_is_refused_and_leaves_nothing_behind() {
    let mut solo = Solo::with(1, 2, |settings| settings.peers.clear());
    let many = |n: usize| {
        let mut key = [1; 32];
        key[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let pubkey = PublicKey(key);
        Contact { agent_id: pubkey.agent_id(), pubkey: Some(pubkey), addrs: Vec::new(), ..contact(2) }
    };
    solo.contacts.contacts = (0..limits::CONTACTS_MAX).map(many).collect();
    let file = solo.contacts.clone();
    solo.feed(Input::Contacts(file));
    let link = solo.owned(json!({"cmd":"invite"}))["link"].as_str().unwrap().to_owned();
    let conn = solo.accept();
    let hello = solo.envelope("hello", Solo::hello_payload(ALL, None));
    solo.ask(conn, &hello);
    let knock = solo.knock(&link, [7; 32]);
    let answer = solo.ask(conn, &knock);
    assert_eq!(answer["payload"]["decision"], "reject", "{answer}");
    assert_eq!(solo.owned(json!({"cmd":"invites"}))["invites"][0]["uses"], 1);
    let (reply, _) = solo.owner(blocks(9));
    assert_eq!(reply["error"], "overloaded");
    let other = Link { key: PublicKey([9; 32]), addrs: vec!["h:1".into()], secret: None };
    for _ in 0..2 {
        let (reply, effects) = solo.owner(json!({"cmd":"connect","link":other.to_string()}));
        assert_eq!(reply["error"], "overloaded");
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Dial { .. })));
    }
    assert_eq!(solo.contacts.contacts.len(), limits::CONTACTS_MAX);
}
