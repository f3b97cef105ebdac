//! Strangers, invites and knocks, as the side sees them that is knocked at. One node, and strangers whose
//! every message the test writes itself. How the other side sees it is in `joining`.

use axon_proto::audit::Event;
use axon_proto::contacts::Contact;
use axon_proto::id::{AgentId, PublicKey};
use axon_proto::limits;
use axon_proto::node::{ConnId, Effect, Input, Side};
use axon_proto::trust::Level;
use serde_json::{Value, json};

use crate::net::{Solo, WALL_MS, answer_on, closes, lines};

const ALL: &[&str] = &["delegate", "ack", "result", "cancel", "discover", "receipt"];
/// What binds every connection here.
const BINDING: [u8; 32] = [7; 32];

/// What makes a knock prove nothing: with the link, and the invite's id.
type Spoil<'a> = &'a dyn Fn(&mut Solo, &str, &str, &mut Value);

fn agent_id(n: u8) -> AgentId {
    PublicKey([n; 32]).agent_id()
}

fn code(answer: &Value) -> &str {
    assert_eq!(answer["kind"], "error", "{answer}");
    answer["payload"]["code"].as_str().unwrap()
}

/// A node that knows one peer, and hears nobody else.
fn closed() -> Solo {
    let mut solo = Solo::new(1, 2);
    solo.feed(Input::Start);
    solo
}

/// One that hears all who knock, as often as they like.
fn open() -> Solo {
    let mut solo = Solo::with(1, 2, |settings| {
        settings.knock.open = true;
        settings.knock.per_minute = 0;
    });
    solo.feed(Input::Start);
    solo
}

fn invite(solo: &mut Solo, more: Value) -> (String, String) {
    let mut command = json!({"cmd":"invite"});
    command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply = solo.owned(command);
    (reply["link"].as_str().unwrap().to_owned(), reply["invite"].as_str().unwrap().to_owned())
}

/// The agent with the key of `n` dials from this address and says hello, as a stranger.
fn dials_from(solo: &mut Solo, n: u8, addr: &str) -> ConnId {
    solo.play(n);
    let (conn, effects) = solo.dialled_from(addr, BINDING);
    assert_eq!(effects, [], "{n} from {addr}");
    let hello = solo.envelope("hello", Solo::hello_payload(ALL, None));
    assert_eq!(solo.ask(conn, &hello)["payload"]["stranger"], true);
    conn
}

fn dials(solo: &mut Solo, n: u8) -> ConnId {
    dials_from(solo, n, &format!("10.0.{n}.1:5000"))
}

/// What is said to a knock.
fn said(solo: &mut Solo, conn: ConnId, knock: &Value) -> Value {
    let answer = solo.ask(conn, knock);
    assert_eq!(answer["kind"], "admission", "{answer}");
    answer["payload"].clone()
}

/// A stranger dials, knocks and goes.
fn visits(solo: &mut Solo, n: u8, payload: Value) -> Value {
    let conn = dials(solo, n);
    let knock = solo.envelope("knock", payload);
    let said = said(solo, conn, &knock);
    solo.feed(Input::Disconnected { conn, why: "gone".into() });
    said
}

/// The same, with the proof of a link's secret.
fn comes_with(solo: &mut Solo, n: u8, link: &str) -> Value {
    let conn = dials(solo, n);
    let knock = solo.knock(link, BINDING);
    let said = said(solo, conn, &knock);
    solo.feed(Input::Disconnected { conn, why: "gone".into() });
    said
}

fn decision(said: &Value) -> &str {
    said["decision"].as_str().unwrap()
}

fn is_heard(solo: &mut Solo, n: u8) -> bool {
    solo.play(n);
    let (conn, effects) = solo.dialled_from("10.9.9.9:1", BINDING);
    solo.feed(Input::Disconnected { conn, why: "gone".into() });
    match &closes(&effects)[..] {
        [] => true,
        [(_, 4)] => false,
        other => panic!("{other:?}"),
    }
}

fn knocks(solo: &mut Solo) -> Vec<Value> {
    solo.owned(json!({"cmd":"knocks"}))["knocks"].as_array().unwrap().clone()
}

/// What `contacts.toml` says of somebody.
fn on_file(solo: &Solo, n: u8) -> Option<Contact> {
    solo.contacts.contacts.iter().find(|contact| contact.agent_id == agent_id(n)).cloned()
}

/// How often this was noted.
fn noted(solo: &mut Solo, event: Event, rule: &str) -> u64 {
    solo.wait(120_000);
    let rows = solo.audit.iter().filter(|row| row.event == event && &*row.rule == rule);
    rows.map(|row| row.count).sum()
}

// --- strangers ---

// shows: WF-STRANGER-1, TRUST-STR-1, TRUST-STR-2, IPC-INV-1
#[test]
fn a_stranger_is_let_in_by_dialling_while_an_invite_is_open_or_all_may_knock() {
    let mut solo = closed();
    assert!(!is_heard(&mut solo, 9));
    let pinned = |effects: &[Effect]| {
        effects.iter().rev().find_map(|effect| match effect {
            Effect::Pins(pins) => Some(pins.strangers),
            _ => None,
        })
    };
    let (_, effects) = solo.owner(json!({"cmd":"invite","expires_secs":60}));
    assert_eq!((pinned(&effects), is_heard(&mut solo, 9)), (Some(true), true));
    // Whom this daemon dials is met by his key alone.
    let (peer, key) = (solo.peer, solo.key);
    let side = Side::Dialer;
    let addr = "10.0.0.1:1".parse().unwrap();
    let conn = ConnId(9_999);
    let dialled =
        Input::Connected { conn, peer, key, side, addr, dial: None, early: false, binding: BINDING };
    assert_eq!(closes(&solo.feed(dialled)), [(conn, 4)]);
    let effects = solo.wait(60_000);
    assert_eq!((pinned(&effects), is_heard(&mut solo, 9)), (Some(false), false), "expired");
    assert_eq!(noted(&mut solo, Event::Invite, "expired"), 1);
    let (_, id) = invite(&mut solo, json!({}));
    assert!(is_heard(&mut solo, 9));
    let (_, effects) = solo.owner(json!({"cmd":"revoke_invite","id":id}));
    assert_eq!((pinned(&effects), is_heard(&mut solo, 9)), (Some(false), false), "revoked");
    let (link, _) = invite(&mut solo, json!({}));
    assert_eq!(decision(&comes_with(&mut solo, 8, &link)), "accept");
    assert!(!is_heard(&mut solo, 9), "used up");
    assert_eq!(pinned(&solo.set(|settings| settings.knock.open = true)), Some(true));
    assert!(is_heard(&mut solo, 9));
    solo.trust(9, "blocked");
    assert!(!is_heard(&mut solo, 9));
    assert_eq!(pinned(&solo.set(|settings| settings.knock.open = false)), Some(false));
    assert!(!is_heard(&mut solo, 7));
}

// shows: WF-STRANGER-2, WF-STRANGER-3, WF-STRANGER-7, TRUST-POL-5
#[test]
fn a_stranger_may_say_hello_and_knock_and_nothing_else() {
    let mut solo = open();
    solo.set(|settings| settings.name = Some("one".into()));
    let agent = solo.client();
    solo.say(agent, &json!({"cmd":"subscribe","req_id":"s","answer":["query","delegate"]}));
    let listener = solo.client();
    solo.say(listener, &json!({"cmd":"subscribe","req_id":"s","kinds":["notify","future"]}));
    let conn = dials(&mut solo, 9);
    let hello = solo.envelope("hello", Solo::hello_payload(ALL, None));
    for _ in 0..2 {
        let answer = solo.ask(conn, &hello)["payload"].clone();
        assert_eq!((&answer["features"], &answer["stranger"]), (&json!(["knock"]), &json!(true)));
        assert!(answer["agent_name"].is_null(), "{answer}");
    }
    let kinds = ["query", "delegate", "ping", "discover", "cancel", "notify", "rekey", "future", "receipt"];
    for kind in kinds {
        let payload = json!({"question":"q","task":"t","topic":"t","data":1});
        let message = solo.envelope(kind, payload);
        let (stream, effects) = solo.request(conn, &message);
        assert_eq!(code(&answer_on(&effects, stream).unwrap()), "not_authorized", "{kind}");
        assert_eq!(effects.len(), 1, "{effects:?}");
        assert_eq!(solo.one_way(conn, &message), [], "{kind}");
    }
    let knock = solo.envelope("knock", json!({}));
    assert_eq!(solo.one_way(conn, &knock), []);
    assert_eq!(solo.dropped("not_authorized"), 2 * kinds.len() as u64 + 1);
    let status = solo.status();
    assert_eq!((&status["strangers"], &status["peers_connected"]), (&json!(1), &json!(0)));
    assert_eq!(status["open_requests"], 0);
    let send = json!({"cmd":"send","to":agent_id(9),"kind":"ping","payload":{}});
    assert_eq!(solo.owner(send).0["error"], "peer_not_found");
    let long = solo.envelope("knock", json!({"message":"x".repeat(limits::KNOCK_BYTES_MAX)}));
    assert_eq!(code(&solo.ask(conn, &long)), "invalid_envelope");
    let wrong = solo.envelope("knock", json!({"name":7}));
    assert_eq!(code(&solo.ask(conn, &wrong)), "invalid_envelope");
    assert_eq!(closes(&solo.wait(9_000)), [], "none of it closes the connection");
    // Let in, it is a peer on another connection, and on this one it is not.
    let (link, _) = invite(&mut solo, json!({}));
    let knock = solo.knock(&link, BINDING);
    assert_eq!(decision(&said(&mut solo, conn, &knock)), "accept");
    let query = solo.envelope("query", json!({"question":"q"}));
    assert_eq!(code(&solo.ask(conn, &query)), "not_authorized");
    let peer = solo.greeted(ALL, None);
    let (_, effects) = solo.request(peer, &query);
    assert_eq!(lines(&effects, agent)[0]["envelope"]["id"], query["id"]);
    assert_eq!(closes(&solo.wait(1_000)), [(conn, 4)]);
}

// shows: WF-STRANGER-4
#[test]
fn strangers_are_few_at_a_time_few_from_one_place_and_heard_briefly() {
    let mut solo = open();
    let peer = solo.greeted(ALL, None);
    let mut conns = vec![dials_from(&mut solo, 10, "10.0.0.1:1"), dials_from(&mut solo, 11, "10.0.0.1:2")];
    conns.push(dials_from(&mut solo, 12, "[2001:db8::1]:1"));
    conns.push(dials_from(&mut solo, 13, "[2001:db8::2:3]:1"));
    let turned_away = |solo: &mut Solo, n: u8, addr: &str| {
        solo.play(n);
        let (conn, effects) = solo.dialled_from(addr, BINDING);
        assert_eq!(closes(&effects), [(conn, 1)], "{n} from {addr}");
    };
    for addr in ["10.0.0.1:3", "[::ffff:10.0.0.1]:3", "[2001:db8::9]:1"] {
        turned_away(&mut solo, 14, addr);
    }
    for n in 14..18 {
        conns.push(dials(&mut solo, n));
    }
    assert_eq!(conns.len(), limits::STRANGERS_MAX);
    turned_away(&mut solo, 18, "10.0.18.1:1");
    // Who is known comes as ever.
    solo.play(2);
    let ping = solo.envelope("ping", json!({}));
    assert_eq!(solo.ask(peer, &ping)["kind"], "pong");
    let again = solo.greeted(ALL, None);
    let ping = solo.envelope("ping", json!({}));
    assert_eq!(solo.ask(again, &ping)["kind"], "pong");
    assert_eq!(solo.status()["peers_connected"], 1);
    solo.feed(Input::Disconnected { conn: conns[0], why: "gone".into() });
    conns[0] = dials_from(&mut solo, 18, "10.0.0.1:9");
    let strangers = |effects: &[Effect]| {
        let mut closed = closes(effects);
        closed.retain(|(conn, _)| *conn != peer);
        closed
    };
    assert_eq!(strangers(&solo.wait(limits::STRANGER_MS - 1)), []);
    let effects = solo.wait(1);
    let mut closed = strangers(&effects);
    closed.sort_unstable();
    conns.sort_unstable();
    assert_eq!(closed, conns.iter().map(|conn| (*conn, 4)).collect::<Vec<_>>());
    let reason = "strangers are heard briefly";
    let briefly = |effect: &&Effect| matches!(effect, Effect::Close { reason: why, .. } if *why == reason);
    assert_eq!(effects.iter().filter(briefly).count(), 8);
    assert_eq!(solo.status()["strangers"], 0);
}

// shows: WF-STRANGER-4
#[test]
fn a_stranger_that_takes_its_time_is_closed_all_the_same() {
    let mut solo = open();
    solo.set(|settings| settings.handshake_timeout_secs = 30);
    solo.play(9);
    let silent = solo.accept();
    let slow = solo.accept();
    solo.wait(9_000);
    let hello = solo.envelope("hello", Solo::hello_payload(ALL, None));
    solo.ask(slow, &hello);
    let mut closed = closes(&solo.wait(1_000));
    closed.sort_unstable();
    assert_eq!(closed, [(silent, 4), (slow, 4)]);
}

// --- invites ---

// shows: PAIR-ADM-1, PAIR-ADM-2, PAIR-PROOF-2, TRUST-KNO-1, TRUST-KNO-3, PAIR-PROOF-1
#[test]
fn a_right_proof_lets_in_once_it_is_on_disk() {
    let mut solo = closed();
    solo.set(|settings| settings.policies.trusted.messages_per_minute = 600);
    let (link, _) = invite(&mut solo, json!({"label":"laptop","trust":"trusted"}));
    let conn = dials(&mut solo, 9);
    let mut knock = solo.knock(&link, BINDING);
    knock["payload"]["name"] = "alice".into();
    knock["payload"]["addrs"] = json!(["192.0.2.9:7100", "no address", "[2001:db8::9]:7100"]);
    solo.stall = true;
    let (stream, mut effects) = solo.request(conn, &knock);
    assert!(answer_on(&effects, stream).is_none());
    effects.extend(solo.let_go(|effect| matches!(effect, Effect::Commit { .. })));
    assert!(answer_on(&effects, stream).is_none(), "not before the file is written");
    let at = effects.iter().position(|effect| match effect {
        Effect::Pins(pins) => pins.keys.contains_key(&agent_id(9)) && !pins.strangers,
        _ => false,
    });
    assert!(at.is_some(), "it is pinned by the time it hears of it: {effects:?}");
    let effects = solo.go_on();
    let answer = answer_on(&effects, stream).unwrap()["payload"].clone();
    assert_eq!((decision(&answer), &answer["level"]), ("accept", &json!("trusted")));
    assert_eq!(answer["constraints"]["messages_per_minute"], 600);
    let kinds = answer["constraints"]["kinds"].as_array().unwrap();
    for kind in ["ping", "query", "delegate", "cancel", "notify", "discover"] {
        assert!(kinds.contains(&json!(kind)), "{kind}: {answer}");
    }
    let contact = on_file(&solo, 9).unwrap();
    assert_eq!((contact.level, contact.why.as_deref()), (Level::Trusted, Some("invite laptop")));
    assert_eq!((contact.name, contact.pubkey), (None, Some(PublicKey([9; 32]))), "a name is only claimed");
    assert_eq!(contact.addrs, ["192.0.2.9:7100", "[2001:db8::9]:7100"]);
    assert_eq!(solo.owned(json!({"cmd":"invites"}))["invites"], json!([]));
    assert_eq!(noted(&mut solo, Event::Paired, "trusted"), 1);
    solo.restart();
    assert_eq!(solo.owned(json!({"cmd":"invites"}))["invites"], json!([]));
    solo.play(9);
    let conn = solo.greeted(ALL, None);
    let ping = solo.envelope("ping", json!({}));
    assert_eq!(solo.ask(conn, &ping)["kind"], "pong");
}

// shows: PAIR-PROOF-1, PAIR-PROOF-2, PAIR-PROOF-3, PAIR-KNOCK-1
#[test]
fn what_proves_nothing_is_refused_counted_and_told_nothing() {
    let mut reasons = std::collections::BTreeSet::new();
    let other = "axon://CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk@h:1";
    let cases: [(&str, Spoil<'_>); 12] = [
        ("used", &|solo, link, _, _| {
            comes_with(solo, 8, link);
        }),
        ("expired", &|solo, _, _, _| {
            solo.wait(3_600_000);
        }),
        ("revoked", &|solo, _, id, _| {
            solo.owned(json!({"cmd":"revoke_invite","id":id}));
        }),
        ("no such", &|_, _, _, knock| knock["payload"]["invite"] = "0123456789abcdef".into()),
        ("another proof", &|_, _, _, knock| knock["payload"]["proof"] = "0".repeat(64).into()),
        ("no proof", &|_, _, _, knock| knock["payload"]["proof"] = json!(null)),
        ("no id", &|_, _, _, knock| knock["payload"]["invite"] = json!(null)),
        ("short proof", &|_, _, _, knock| knock["payload"]["proof"] = "00".into()),
        ("no hex", &|_, _, _, knock| knock["payload"]["invite"] = "no hex at all...".into()),
        // It was made on the knocker's connection with somebody else who passes it on here.
        ("another connection", &|solo, link, _, knock| *knock = solo.knock(link, [8; 32])),
        ("for another key", &|solo, link, _, knock| {
            solo.play(3);
            let relayed = solo.knock(link, BINDING)["payload"].clone();
            solo.play(9);
            knock["payload"] = relayed;
        }),
        ("for another host", &|solo, link, _, knock| {
            let link = format!("{other}{}", &link[link.find('?').unwrap()..]);
            *knock = solo.knock(&link, BINDING);
        }),
    ];
    for (what, spoil) in cases {
        let mut solo = closed();
        let (link, id) = invite(&mut solo, json!({}));
        invite(&mut solo, json!({"expires_secs":1_000_000}));
        solo.play(9);
        let mut knock = solo.knock(&link, BINDING);
        spoil(&mut solo, &link, &id, &mut knock);
        let conn = dials(&mut solo, 9);
        let answer = said(&mut solo, conn, &knock);
        assert_eq!((decision(&answer), answer["retry_after_ms"].as_u64()), ("reject", Some(1_000)), "{what}");
        reasons.insert(answer["reason"].as_str().unwrap().to_owned());
        assert_eq!(on_file(&solo, 9), None, "{what}");
        let left = solo.owned(json!({"cmd":"invites"}))["invites"].as_array().unwrap().len();
        assert_eq!(left, if ["used", "expired", "revoked"].contains(&what) { 1 } else { 2 }, "{what}");
        assert_eq!(noted(&mut solo, Event::Guess, "invite"), 1, "{what}");
        assert!(solo.audit.iter().all(|row| row.event != Event::Guess || row.peer.is_none()), "{what}");
    }
    assert_eq!(reasons.len(), 1, "nothing tells one from another: {reasons:?}");
}

// shows: PAIR-PROOF-4, TRUST-KNO-1
#[test]
fn guesses_are_slowed_down_by_key_and_by_address() {
    let mut solo = closed();
    let (link, id) = invite(&mut solo, json!({}));
    let guess = json!({"invite":id,"proof":"0".repeat(64)});
    let at = |solo: &mut Solo, n: u8, addr: &str, payload: &Value| {
        let conn = dials_from(solo, n, addr);
        let mut knock = solo.knock(&link, BINDING);
        if !payload.is_null() {
            knock["payload"] = payload.clone();
        }
        let answer = said(solo, conn, &knock);
        solo.feed(Input::Disconnected { conn, why: "gone".into() });
        (decision(&answer).to_owned(), answer["retry_after_ms"].as_u64().unwrap_or(0))
    };
    let reject = |ms: u64| ("reject".to_owned(), ms);
    let (home, away) = ("10.0.0.1:1", "10.0.0.2:1");
    for wait_ms in [1_000, 2_000, 4_000, 8_000] {
        assert_eq!(at(&mut solo, 9, home, &guess), reject(wait_ms));
        // Until then neither is listened to, right or wrong, and it makes the wait no longer.
        solo.wait(wait_ms / 2);
        assert_eq!(at(&mut solo, 9, away, &json!(null)), reject(wait_ms / 2), "the key");
        assert_eq!(at(&mut solo, 8, home, &guess), reject(wait_ms / 2), "the address");
        solo.wait(wait_ms / 2);
    }
    assert_eq!(noted(&mut solo, Event::Guess, "invite"), 4);
    let mut wait_ms = 8_000;
    while wait_ms < limits::GUESS_WAIT_MAX_MS {
        wait_ms = (2 * wait_ms).min(limits::GUESS_WAIT_MAX_MS);
        assert_eq!(at(&mut solo, 9, home, &guess), reject(wait_ms));
        invite(&mut solo, json!({"expires_secs":2_000_000}));
        solo.wait(wait_ms);
    }
    // Another key elsewhere was heard all the time.
    let (link, _) = invite(&mut solo, json!({}));
    assert_eq!(at(&mut solo, 9, home, &guess).1, limits::GUESS_WAIT_MAX_MS);
    assert_eq!(decision(&comes_with(&mut solo, 8, &link)), "accept");
    // A wait that ended long ago counts no more.
    solo.wait(2 * limits::GUESS_WAIT_MAX_MS);
    invite(&mut solo, json!({}));
    assert_eq!(at(&mut solo, 9, home, &guess), reject(1_000));
}

// shows: IPC-INV-1, PAIR-PROOF-2
#[test]
fn an_invite_is_used_as_often_as_it_says_over_restarts_too() {
    let mut solo = closed();
    let (link, id) = invite(&mut solo, json!({"uses":3,"label":"party"}));
    let row = |solo: &mut Solo| solo.owned(json!({"cmd":"invites"}))["invites"][0].clone();
    let first = row(&mut solo);
    assert_eq!((&first["invite"], &first["uses"], &first["label"]), (&json!(id), &json!(3), &json!("party")));
    assert_eq!(decision(&comes_with(&mut solo, 9, &link)), "accept");
    solo.restart();
    assert_eq!(row(&mut solo)["uses"], 2);
    assert_eq!(row(&mut solo)["expires_ms"], first["expires_ms"]);
    assert_eq!(decision(&comes_with(&mut solo, 10, &link)), "accept");
    assert_eq!(decision(&comes_with(&mut solo, 11, &link)), "accept");
    assert!(!is_heard(&mut solo, 12));
    // The secret is in the link, and nowhere else.
    let secret = &link[link.find("k=").unwrap() + 2..];
    let lists = [solo.owned(json!({"cmd":"invites"})), solo.owned(json!({"cmd":"contacts"}))];
    assert!(!format!("{lists:?}{:?}", solo.audit).contains(secret));
    assert_eq!(on_file(&solo, 10).unwrap().why.as_deref(), Some("invite party"));
}

// shows: PAIR-PROOF-2, PAIR-ADM-1, TRUST-KNO-3
#[test]
fn what_cannot_be_written_lets_nobody_in_and_uses_nothing() {
    for (disk, file) in [(true, false), (false, true)] {
        for uses in [1, 2] {
            let what = format!("disk {disk}, file {file}, uses {uses}");
            let mut solo = closed();
            let (link, _) = invite(&mut solo, json!({"uses":uses}));
            (solo.disk_full, solo.files_fail) = (disk, file);
            let answer = comes_with(&mut solo, 9, &link);
            assert_eq!(decision(&answer), "reject", "{what}");
            assert!(answer["level"].is_null() && answer["retry_after_ms"].is_u64(), "{answer}");
            (solo.disk_full, solo.files_fail) = (false, false);
            assert_eq!((on_file(&solo, 9), is_heard(&mut solo, 9)), (None, true), "{what}");
            let left = |solo: &mut Solo| {
                let invites = solo.owned(json!({"cmd":"invites"}))["invites"].clone();
                invites.as_array().unwrap().iter().map(|row| row["uses"].clone()).collect::<Vec<Value>>()
            };
            assert_eq!(left(&mut solo), [json!(uses)], "{what}");
            solo.wait(5_000);
            solo.restart();
            assert_eq!(left(&mut solo), [json!(uses)], "{what}, after a restart");
            assert_eq!(decision(&comes_with(&mut solo, 9, &link)), "accept", "{what}");
        }
    }
}

// --- knocks ---

// shows: TRUST-KNO-1, TRUST-KNO-4, TRUST-KNO-5, PAIR-KNOCK-2, IPC-KNO-1
#[test]
fn a_knock_waits_for_the_owner_over_restarts_and_is_told_once() {
    let mut solo = open();
    let all = solo.client();
    solo.say(all, &json!({"cmd":"subscribe","req_id":"s"}));
    let named = solo.client();
    solo.say(named, &json!({"cmd":"subscribe","req_id":"s","kinds":["knock"]}));
    let others = solo.client();
    solo.say(others, &json!({"cmd":"subscribe","req_id":"s","kinds":["notify"]}));
    let conn = dials(&mut solo, 9);
    let knock = solo.envelope(
        "knock",
        json!({"name":" ca\u{1b}rol\n","intent":{"category":"family","action":"calendar"},
            "session":"stream","message":"x".repeat(600),"addrs":["192.0.2.9:7100","none"]}),
    );
    solo.stall = true;
    let (stream, mut effects) = solo.request(conn, &knock);
    assert!(answer_on(&effects, stream).is_none(), "not before it is on disk");
    effects.extend(solo.go_on());
    let answer = answer_on(&effects, stream).unwrap()["payload"].clone();
    assert_eq!((decision(&answer), answer["retry_after_ms"].is_u64()), ("pending", true));
    let id = agent_id(9).to_string();
    for (client, times) in [(all, 1), (named, 1), (others, 0)] {
        let told = lines(&effects, client);
        assert_eq!(told.len(), times);
        for event in told {
            assert_eq!((&event["event"], &event["id"]), (&json!("knock"), &json!(id[8..24])));
            assert_eq!((&event["agent_id"], &event["claimed"]), (&json!(id), &json!(true)));
            assert_eq!((&event["name"], &event["session"]), (&json!("carol"), &json!("stream")));
            assert_eq!(event["intent"], json!({"category":"family","action":"calendar"}));
            assert_eq!(event["message"].as_str().unwrap().len(), limits::KNOCK_TEXT_BYTES_MAX);
            assert_eq!(event["at_ms"], WALL_MS + solo.now);
        }
    }
    assert_eq!((on_file(&solo, 9), solo.status()["knocks"].clone()), (None, json!(1)));
    let first_ms = WALL_MS + solo.now;
    solo.wait(1_000);
    solo.restart();
    assert_eq!(knocks(&mut solo)[0]["message"].as_str().unwrap().len(), 512);
    assert_eq!(decision(&visits(&mut solo, 9, json!({}))), "pending");
    let rows = knocks(&mut solo);
    assert_eq!((rows.len(), &rows[0]["count"], &rows[0]["at_ms"]), (1, &json!(2), &json!(first_ms)));
    assert_eq!((&rows[0]["name"], &rows[0]["message"]), (&json!(null), &json!(null)), "it says so no more");
    assert_eq!(rows[0]["claimed"], true, "all that it says is only claimed");
    // Nobody has judged it.
    solo.wait(limits::KNOCK_TTL_MS);
    assert_eq!(knocks(&mut solo), Vec::<Value>::new());
    solo.restart();
    assert_eq!(knocks(&mut solo), Vec::<Value>::new());
}

// shows: IPC-KNO-2, IPC-KNO-3, IPC-TRU-3
#[test]
fn the_owner_approves_or_turns_away() {
    let mut solo = open();
    let conn = dials(&mut solo, 9);
    let knock = solo.envelope("knock", json!({"name":"carol","addrs":["192.0.2.9:7100"]}));
    assert_eq!(decision(&said(&mut solo, conn, &knock)), "pending");
    // Anybody can make a key whose id begins as another's.
    for id in ["ffff0000ffff0000", &agent_id(9).to_string()[8..23]] {
        assert_eq!(solo.owner(json!({"cmd":"approve","id":id})).0["error"], "not_found", "{id}");
        assert_eq!(solo.owner(json!({"cmd":"deny","id":id})).0["error"], "not_found", "{id}");
    }
    let short = agent_id(9).to_string()[8..24].to_owned();
    let blocked = solo.owner(json!({"cmd":"approve","id":short,"trust":"blocked"})).0;
    assert_eq!(blocked["error"], "invalid_command");
    let (reply, effects) = solo.owner(json!({"cmd":"approve","id":short,"trust":"trusted","name":"cc"}));
    assert_eq!((&reply["agent_id"], &reply["trust"]), (&json!(agent_id(9)), &json!("trusted")));
    let contact = on_file(&solo, 9).unwrap();
    let said_of = (contact.level, contact.name.as_deref(), contact.why.as_deref());
    assert_eq!(said_of, (Level::Trusted, Some("cc"), Some("approved")));
    assert_eq!(contact.addrs[0], "192.0.2.9:7100");
    assert_eq!(closes(&effects), [(conn, 0)], "it is met anew, as a peer");
    let dialled = effects.iter().any(|effect| {
        matches!(effect, Effect::Dial { peer, addrs, .. }
            if *peer == agent_id(9) && addrs.contains(&"192.0.2.9:7100".to_owned()))
    });
    assert!(dialled && knocks(&mut solo).is_empty(), "{effects:?}");

    // One that is denied is rejected for an hour, and hears nothing of it before it knocks.
    assert_eq!(decision(&visits(&mut solo, 10, json!({}))), "pending");
    solo.owned(json!({"cmd":"deny","id":agent_id(10)}));
    assert_eq!((knocks(&mut solo).len(), on_file(&solo, 10)), (0, None));
    solo.wait(1_000_000);
    let answer = visits(&mut solo, 10, json!({}));
    assert_eq!((decision(&answer), &answer["retry_after_ms"]), ("reject", &json!(2_600_000)));
    assert_eq!(decision(&visits(&mut solo, 11, json!({}))), "pending", "others knock as ever");
    solo.wait(2_600_000);
    assert_eq!(decision(&visits(&mut solo, 10, json!({}))), "pending");
    solo.owned(json!({"cmd":"deny","id":agent_id(10)}));
    let (again, _) = invite(&mut solo, json!({}));
    assert_eq!(decision(&comes_with(&mut solo, 10, &again)), "accept", "an invite is the owner's newer word");
    // Who is blocked waits no more.
    solo.trust(11, "blocked");
    assert!(knocks(&mut solo).is_empty() && !is_heard(&mut solo, 11));
}

// shows: TRUST-KNO-1, TRUST-KNO-2
#[test]
fn a_knock_is_judged_by_the_rules_in_their_order() {
    let mut solo = closed();
    solo.set(|settings| settings.knock.per_minute = 0);
    invite(&mut solo, json!({"uses":100,"expires_secs":1_000_000}));
    let of = |category: &str, action: &str| json!({"intent":{"category":category,"action":action}});
    let judged = |solo: &mut Solo, n: u8, payload: Value, expected: &str, rule: &str| {
        let before = noted(solo, Event::Knock, rule);
        let answer = visits(solo, n, payload);
        assert_eq!(decision(&answer), expected, "{rule}: {answer}");
        assert_eq!(noted(solo, Event::Knock, rule) - before, u64::from(expected != "accept"), "{rule}");
        answer
    };
    let answer = judged(&mut solo, 9, json!({}), "reject", "knock.open");
    assert!(answer["reason"].as_str().unwrap().contains("without an invite"), "{answer}");
    solo.set(|settings| {
        settings.knock.open = true;
        settings.knock.intents = Some(vec!["family".into(), "work/plan".into()]);
        settings.knock.allow = vec![agent_id(20), agent_id(21)];
    });
    for (payload, expected, rule) in [
        (json!({}), "reject", "knock.intents"),
        (of("work", "rest"), "reject", "knock.intents"),
        (json!({"intent":{"category":"work"}}), "reject", "knock.intents"),
        (of("familyx", "any"), "reject", "knock.intents"),
        (of("family", "any"), "pending", "pending"),
        (json!({"intent":{"category":"family"}}), "pending", "pending"),
        (of("work", "plan"), "pending", "pending"),
    ] {
        judged(&mut solo, 9, payload, expected, rule);
    }
    judged(&mut solo, 20, of("work", "rest"), "reject", "knock.intents");
    let answer = judged(&mut solo, 20, of("family", "any"), "accept", "pending");
    assert_eq!(answer["level"], "known");
    assert_eq!(on_file(&solo, 20).unwrap().why.as_deref(), Some("knock.allow"));
    solo.set(|settings| settings.knock.open = false);
    assert_eq!(decision(&visits(&mut solo, 21, of("family", "any"))), "accept", "also where none may knock");
    solo.set(|settings| settings.knock.open = true);
    // Denied comes before all of that.
    solo.owned(json!({"cmd":"deny","id":agent_id(9)}));
    judged(&mut solo, 9, json!({}), "reject", "denied");

    // How often: a quarter of it is for one key. Nothing of it is for who is known.
    solo.wait(60_000);
    solo.set(|settings| (settings.knock.per_minute, settings.knock.intents) = (10, None));
    let mut counts = [0; 4];
    for _ in 0..5 {
        for (at, n) in [30, 31, 32, 33].into_iter().enumerate() {
            let answer = visits(&mut solo, n, json!({}));
            counts[at] += usize::from(decision(&answer) == "pending");
            assert!(decision(&answer) == "pending" || answer["retry_after_ms"].as_u64().unwrap() > 0);
        }
    }
    assert_eq!(counts, [3, 3, 2, 2]);
    assert_eq!(noted(&mut solo, Event::Knock, "knock.per_minute"), 10);
}

// shows: TRUST-KNO-1
#[test]
fn sixty_four_knocks_wait_and_a_valid_secret_passes_them_all() {
    let mut solo = open();
    let (link, _) = invite(&mut solo, json!({}));
    for n in 10..74 {
        assert_eq!(decision(&visits(&mut solo, n, json!({}))), "pending");
    }
    assert_eq!(knocks(&mut solo).len(), limits::KNOCKS_MAX);
    let full = visits(&mut solo, 80, json!({}));
    assert_eq!((decision(&full), &full["retry_after_ms"]), ("reject", &json!(60_000)));
    assert_eq!(decision(&visits(&mut solo, 10, json!({}))), "pending", "one that waits already");
    solo.restart();
    assert_eq!(knocks(&mut solo).len(), limits::KNOCKS_MAX);
    assert_eq!(decision(&comes_with(&mut solo, 80, &link)), "accept");
    // One that waits is let in by it, too, and waits no more.
    let (link, _) = invite(&mut solo, json!({}));
    assert_eq!(decision(&comes_with(&mut solo, 10, &link)), "accept");
    assert_eq!(knocks(&mut solo).len(), limits::KNOCKS_MAX - 1);
    assert_eq!(decision(&visits(&mut solo, 81, json!({}))), "pending");
}

// shows: TRUST-KNO-1, TRUST-KNO-3, TRUST-CON-4
#[test]
fn who_is_known_is_let_in_as_it_is_and_an_invite_can_only_raise_it() {
    let mut solo = closed();
    let conn = solo.greeted(&["knock"], None);
    for (level, invited, then) in [
        ("known", None, "known"),
        ("known", Some("unknown"), "known"),
        ("known", Some("trusted"), "trusted"),
        ("trusted", None, "trusted"),
        ("trusted", Some("known"), "trusted"),
        ("unknown", Some("unknown"), "unknown"),
        ("unknown", Some("known"), "known"),
    ] {
        solo.trust(2, level);
        let knock = match invited {
            None => solo.envelope("knock", json!({})),
            Some(level) => {
                let (link, _) = invite(&mut solo, json!({"trust":level}));
                solo.knock(&link, BINDING)
            }
        };
        let answer = said(&mut solo, conn, &knock);
        assert_eq!((decision(&answer), &answer["level"]), ("accept", &json!(then)), "{level} {invited:?}");
        assert_eq!(on_file(&solo, 2).unwrap().level.as_str(), then);
    }
    // An entry whose time is over says nothing any more, and so gives no level.
    for over in ["trusted", "known"] {
        let mut solo = closed();
        solo.contacts.contacts = vec![Contact {
            agent_id: agent_id(9),
            pubkey: Some(PublicKey([9; 32])),
            addrs: vec![],
            level: Level::parse(over).unwrap(),
            name: None,
            since_ms: 0,
            why: None,
            expiry_ms: Some(WALL_MS + 10_000),
            paused: true,
        }];
        solo.restart();
        solo.wait(10_000);
        let (link, _) = invite(&mut solo, json!({"trust":"unknown"}));
        let answer = comes_with(&mut solo, 9, &link);
        assert_eq!((decision(&answer), &answer["level"]), ("accept", &json!("unknown")), "was {over}");
        assert!(!on_file(&solo, 9).unwrap().paused);
    }
}
