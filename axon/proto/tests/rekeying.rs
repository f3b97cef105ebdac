//! New keys: a peer's, taken on, kept waiting or refused; and our own, told to those who know the old one.
//! One node, and a peer whose every message the test writes itself.

use axon_proto::audit::Event;
use axon_proto::contacts::Contact;
use axon_proto::id::{AgentId, PublicKey};
use axon_proto::limits;
use axon_proto::node::{ConnId, Effect, Input, Lost, OldKey, Token};
use axon_proto::pairing::payload::Rekey;
use axon_proto::trust::Level;
use serde_json::{Value, json};

use crate::net::{Solo, WALL_MS, answer_on, closes, lines};

const ALL: &[&str] = &["delegate", "ack", "result", "receipt", "knock", "rekey"];

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn agent_id(n: u8) -> AgentId {
    key(n).agent_id()
}

fn code(answer: &Value) -> &str {
    assert_eq!(answer["kind"], "error", "{answer}");
    answer["payload"]["code"].as_str().unwrap()
}

/// A scheme in place of Ed25519: whoever has the public key can sign.
fn sign(key: &PublicKey, message: &[u8]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&key.0);
    for (at, byte) in message.iter().enumerate() {
        let slot = &mut signature[32 + at % 32];
        *slot = slot.wrapping_mul(31).wrapping_add(*byte);
    }
    signature
}

fn verify(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
    sign(key, message) == *signature
}

fn statement(old: u8, new: u8, at_ms: u64) -> Rekey {
    let signed = Rekey::signed(&key(old), &key(new), at_ms);
    Rekey::new(key(old), key(new), at_ms, &sign(&key(old), &signed), &sign(&key(new), &signed))
}

fn contact(n: u8, level: Level) -> Contact {
    Contact {
        agent_id: agent_id(n),
        pubkey: Some(key(n)),
        addrs: vec!["192.0.2.2:7100".into()],
        level,
        name: Some("anna".into()),
        since_ms: 5,
        why: Some("because".into()),
        expiry_ms: None,
        paused: false,
    }
}

/// A node that checks signatures and knows one peer at this level, which is connected.
fn knowing(level: Level, accept: bool) -> (Solo, ConnId) {
    let mut solo = Solo::with(1, 2, |settings| {
        settings.peers.clear();
        settings.knock.accept_rekey = accept;
    });
    solo.verify = verify;
    solo.contacts.contacts = vec![contact(2, level)];
    solo.restart();
    let conn = solo.greeted(ALL, None);
    (solo, conn)
}

fn told(solo: &mut Solo, conn: ConnId, statement: &Rekey) -> (Value, Vec<Effect>) {
    let rekey = solo.envelope("rekey", serde_json::to_value(statement).unwrap());
    let (stream, effects) = solo.request(conn, &rekey);
    (answer_on(&effects, stream).unwrap_or_default(), effects)
}

/// Who is known, and how far.
fn stands(solo: &mut Solo) -> Vec<(String, String)> {
    let listed = solo.owned(json!({"cmd":"contacts"}))["contacts"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    listed.as_array().unwrap().iter().map(|row| (text(&row["agent_id"]), text(&row["trust"]))).collect()
}

fn is(n: u8, level: &str) -> Vec<(String, String)> {
    vec![(agent_id(n).to_string(), level.to_owned())]
}

/// Whether a handshake with this key passes now.
fn passes(solo: &mut Solo, n: u8) -> bool {
    solo.play(n);
    let (conn, effects) = solo.dialled_from("192.0.2.9:1", [0; 32]);
    solo.feed(Input::Disconnected { conn, why: "gone".into() });
    closes(&effects).is_empty()
}

fn approve(n: u8, more: Value) -> Value {
    let mut command = json!({"cmd":"approve","id":agent_id(n)});
    command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    command
}

// --- a peer's ---

// shows: PAIR-REKEY-1, PAIR-REKEY-2
#[test]
fn a_statement_that_does_not_hold_changes_nothing() {
    let good = statement(2, 3, 7);
    let cases = [
        ("of another time", Rekey { at_ms: 8, ..good.clone() }),
        ("of another new key", Rekey { new_key: key(4), ..good.clone() }),
        ("of another old key", statement(5, 3, 7)),
        ("the other way", statement(3, 2, 7)),
        ("to itself", statement(2, 2, 7)),
        ("to this agent's own", statement(2, 1, 7)),
        ("signed by the old one only", Rekey { new_signature: good.old_signature.clone(), ..good.clone() }),
        ("signed by the new one only", Rekey { old_signature: good.new_signature.clone(), ..good.clone() }),
        ("to one that is blocked", statement(2, 9, 7)),
    ];
    for accept in [false, true] {
        for (what, statement) in &cases {
            let (mut solo, conn) = knowing(Level::Known, accept);
            solo.trust(9, "blocked");
            let before = stands(&mut solo);
            let (answer, effects) = told(&mut solo, conn, statement);
            assert_eq!(code(&answer), "not_authorized", "{what}: {answer}");
            assert_eq!(closes(&effects), [], "{what}");
            assert_eq!(stands(&mut solo), before, "{what}");
            assert_eq!(solo.owned(json!({"cmd":"knocks"}))["knocks"], json!([]), "{what}");
            let refused =
                solo.audit.iter().filter(|row| row.event == Event::Rekey && &*row.rule == "refused");
            assert_eq!(refused.count(), 1, "{what}");
        }
        let (mut solo, conn) = knowing(Level::Known, accept);
        let mut short = serde_json::to_value(&good).unwrap();
        short["old_signature"] = "00".into();
        let rekey = solo.envelope("rekey", short);
        assert_eq!(code(&solo.ask(conn, &rekey)), "invalid_envelope");
    }
}

// shows: PAIR-REKEY-3, TRUST-OUT-1
#[test]
fn a_new_key_takes_the_place_of_the_old_one_at_its_level_at_most() {
    // By itself, or by the owner, who names a level or not.
    for (level, accept, asked, then) in [
        (Level::Known, true, json!({}), "known"),
        (Level::Trusted, true, json!({}), "trusted"),
        (Level::Known, false, json!({}), "known"),
        (Level::Known, false, json!({"trust":"trusted"}), "known"),
        (Level::Known, false, json!({"trust":"unknown"}), "unknown"),
        (Level::Trusted, false, json!({"trust":"trusted"}), "trusted"),
        (Level::Trusted, false, json!({}), "known"),
    ] {
        let what = format!("{level}, accept {accept}, {asked}");
        let (mut solo, conn) = knowing(level, accept);
        let expiry_ms = Some(WALL_MS + 5_000_000);
        solo.contacts.contacts[0].expiry_ms = expiry_ms;
        solo.contacts.contacts[0].paused = true;
        let file = solo.contacts.clone();
        solo.feed(Input::Contacts(file));
        // What is paused is answered nothing; who has a new key says so when it is resumed.
        assert_eq!(code(&told(&mut solo, conn, &statement(2, 3, 7)).0), "overloaded", "{what}");
        solo.owned(json!({"cmd":"resume","peer":agent_id(2)}));
        let notify = solo.envelope("notify", json!({"topic":"of the old","data":1}));
        assert_eq!(solo.ask(conn, &notify)["kind"], "ack");
        solo.stall = true;
        let rekey = solo.envelope("rekey", serde_json::to_value(statement(2, 3, 7)).unwrap());
        let (stream, effects) = solo.request(conn, &rekey);
        assert!(answer_on(&effects, stream).is_none(), "{what}: not before it is written");
        let mut effects = solo.go_on();
        let state = if accept { "taken" } else { "pending" };
        let ack = answer_on(&effects, stream).unwrap();
        assert_eq!(ack["payload"], json!({"accepted":true,"state":state}), "{what}");
        if !accept {
            assert_eq!((stands(&mut solo), passes(&mut solo, 3)), (is(2, level.as_str()), false), "{what}");
            let knocks = solo.owned(json!({"cmd":"knocks"}))["knocks"].clone();
            assert_eq!(knocks[0]["rekey_of"], json!(agent_id(2)), "{what}");
            // It waits over a restart as any knock does.
            solo.restart();
            solo.play(2);
            let again = solo.greeted(ALL, None);
            let (reply, more) = solo.owner(approve(3, asked));
            assert_eq!((&reply["ok"], &reply["trust"]), (&json!(true), &json!(then)), "{what}: {reply}");
            effects = more;
            assert_eq!(closes(&effects), [(again, 0)], "{what}");
        } else {
            let answered = effects.iter().position(|effect| matches!(effect, Effect::Respond { .. }));
            let closed = effects.iter().position(|effect| matches!(effect, Effect::Close { .. }));
            assert!(answered < closed && closes(&effects) == [(conn, 0)], "{what}: {effects:?}");
        }
        assert_eq!(stands(&mut solo), is(3, then), "{what}");
        let new = &solo.contacts.contacts[0];
        assert_eq!((solo.contacts.contacts.len(), new.level.as_str()), (1, then), "{what}");
        assert_eq!((new.name.as_deref(), &new.addrs[0][..]), (Some("anna"), "192.0.2.2:7100"), "{what}");
        assert_eq!((new.expiry_ms, new.paused), (expiry_ms, false), "{what}");
        assert_eq!((passes(&mut solo, 2), passes(&mut solo, 3)), (false, true), "{what}");
        // What the old one has sent stays.
        let rows = solo.owned(json!({"cmd":"inbox"}))["messages"].clone();
        assert_eq!(rows[0]["envelope"]["payload"]["topic"], "of the old", "{what}");
        solo.restart();
        assert_eq!(stands(&mut solo), is(3, then), "{what}");
    }
}

// shows: TRUST-LEV-2
#[test]
fn who_is_not_known_well_enough_has_no_new_key() {
    let (mut solo, conn) = knowing(Level::Unknown, true);
    assert_eq!(code(&told(&mut solo, conn, &statement(2, 3, 7)).0), "not_authorized");
    assert_eq!(stands(&mut solo), is(2, "unknown"));
}

// A new key is never let in for one who is blocked by now.
// shows: PAIR-REKEY-2, PAIR-REKEY-3, PAIR-REKEY-8
#[test]
fn blocking_or_forgetting_the_old_one_or_blocking_the_new_one_ends_what_waits() {
    for (command, then) in [
        (json!({"cmd":"trust","peer":agent_id(2),"trust":"blocked"}), "blocked"),
        (json!({"cmd":"trust","peer":agent_id(3),"trust":"blocked"}), "known"),
        (json!({"cmd":"forget","peer":agent_id(2)}), ""),
    ] {
        let (mut solo, conn) = knowing(Level::Known, false);
        assert_eq!(told(&mut solo, conn, &statement(2, 3, 7)).0["payload"]["state"], "pending");
        solo.owned(command.clone());
        let (reply, _) = solo.owner(approve(3, json!({"trust":"trusted"})));
        assert_ne!(reply["ok"], true, "{command}: {reply}");
        let of_old: Vec<String> = stands(&mut solo)
            .into_iter()
            .filter(|(id, _)| *id == agent_id(2).to_string())
            .map(|(_, l)| l)
            .collect();
        assert_eq!(of_old, if then.is_empty() { vec![] } else { vec![then.to_owned()] }, "{command}");
        assert!(!passes(&mut solo, 3), "{command}");
    }
}

// shows: PAIR-REKEY-4, PAIR-REKEY-8
#[test]
fn what_has_no_room_or_cannot_be_written_is_told_so_and_is_not_done() {
    for (accept, disk, file) in [(true, false, true), (false, true, false)] {
        let (mut solo, conn) = knowing(Level::Known, accept);
        (solo.disk_full, solo.files_fail) = (disk, file);
        let (answer, effects) = told(&mut solo, conn, &statement(2, 3, 7));
        assert_eq!((code(&answer), closes(&effects)), ("overloaded", vec![]), "accept {accept}");
        (solo.disk_full, solo.files_fail) = (false, false);
        assert_eq!((stands(&mut solo), passes(&mut solo, 3)), (is(2, "known"), false), "accept {accept}");
        solo.play(2);
        let again = told(&mut solo, conn, &statement(2, 3, 8)).0;
        assert_eq!(again["kind"], "ack", "accept {accept}: {again}");
    }
    let (mut solo, conn) = knowing(Level::Known, false);
    for n in 10..74 {
        assert_eq!(told(&mut solo, conn, &statement(2, n, 7)).0["payload"]["state"], "pending");
    }
    // One new key of each peer waits, so that nobody takes the places of all.
    let waiting = solo.owned(json!({"cmd":"knocks"}))["knocks"].as_array().unwrap().clone();
    let of: Vec<&Value> = waiting.iter().map(|knock| &knock["agent_id"]).collect();
    assert_eq!(of, [&json!(agent_id(73))]);
    // It is one of the knocks that wait, of which few are from one address.
    solo.owned(json!({"cmd":"deny","id":agent_id(73)}));
    solo.set(|settings| (settings.knock.open, settings.knock.per_minute) = (true, 0));
    let mut pending = 0;
    for n in 100..=limits::KNOCKS_MAX as u8 + 108 {
        solo.play(n);
        let (stranger, _) = solo.dialled_from(&format!("[2001:db8::{}:0:0:0:{n}]:1", n / 9), [0; 32]);
        let hello = solo.envelope("hello", Solo::hello_payload(&[], None));
        solo.ask(stranger, &hello);
        let knock = solo.envelope("knock", json!({}));
        pending += usize::from(solo.ask(stranger, &knock)["payload"]["decision"] == "pending");
        solo.feed(Input::Disconnected { conn: stranger, why: "gone".into() });
    }
    assert_eq!(pending, limits::KNOCKS_MAX);
    solo.play(2);
    assert_eq!(code(&told(&mut solo, conn, &statement(2, 80, 7)).0), "overloaded");
}

// --- our own ---

// shows: IPC-REK-1
#[test]
fn a_new_identity_is_told_once_it_is_there_and_the_daemon_stops() {
    let mut solo = Solo::new(1, 2);
    solo.stall = true;
    let client = solo.client();
    let effects = solo.say(client, &json!({"cmd":"rekey","req_id":"r"}));
    assert!(lines(&effects, client).is_empty() && !effects.contains(&Effect::Stopped));
    let effects = solo.go_on();
    let reply = lines(&effects, client).remove(0);
    assert_eq!((&reply["ok"], &reply["agent_id"]), (&json!(true), &json!(agent_id(200))));
    assert_eq!(reply["old_agent_id"], json!(agent_id(1)));
    assert!(effects.contains(&Effect::Stopped));
}

fn heralds(effects: &[Effect]) -> Vec<(Token, AgentId)> {
    let herald = |effect: &Effect| match effect {
        Effect::Herald { token, old, peer, key, hello, message, .. } => {
            let (hello, message): (Value, Value) =
                (serde_json::from_str(hello).unwrap(), serde_json::from_str(message).unwrap());
            assert_eq!((*old, key.agent_id()), (agent_id(99), *peer));
            for envelope in [&hello, &message] {
                assert_eq!((&envelope["from"], &envelope["to"]), (&json!(old), &json!(peer)));
            }
            assert_eq!((&hello["kind"], &message["kind"]), (&json!("hello"), &json!("rekey")));
            let said: Rekey = serde_json::from_value(message["payload"].clone()).unwrap();
            assert_eq!((said.old_key, said.new_key), (PublicKey([99; 32]), PublicKey([1; 32])));
            Some((*token, *peer))
        }
        _ => None,
    };
    effects.iter().filter_map(herald).collect()
}

fn heard(solo: &mut Solo, (token, peer): (Token, AgentId), kind: &str, payload: Value) -> Vec<Effect> {
    let id = solo.new_id();
    let answer =
        json!({"v":1,"id":id,"from":peer,"to":agent_id(99),"ts":WALL_MS,"kind":kind,"payload":payload});
    solo.feed(Input::Replied { token, outcome: Ok(answer.to_string().into_bytes()) })
}

// shows: PAIR-REKEY-5
#[test]
fn each_peer_that_knew_the_old_key_is_told_until_it_has_answered() {
    let mut solo = Solo::with(1, 2, |settings| settings.peers.clear());
    let at_ms = WALL_MS + 100;
    let signed = statement(99, 1, at_ms);
    solo.old_keys = vec![OldKey { key: key(99), statement: signed, until_ms: at_ms + limits::OLD_KEY_MS }];
    solo.contacts.contacts = vec![
        contact(2, Level::Known),
        contact(3, Level::Trusted),
        contact(4, Level::Known),
        contact(5, Level::Unknown),
        contact(6, Level::Blocked),
        // Known since: it knows the new key.
        Contact { since_ms: at_ms + 1, ..contact(7, Level::Known) },
    ];
    let effects = solo.restart();
    let all = heralds(&effects);
    let mut whom: Vec<AgentId> = all.iter().map(|(_, peer)| *peer).collect();
    whom.sort_unstable();
    let mut expected = [2, 3, 4].map(agent_id);
    expected.sort_unstable();
    assert_eq!(whom, expected);
    let of = |all: &[(Token, AgentId)], n: u8| *all.iter().find(|(_, peer)| *peer == agent_id(n)).unwrap();
    heard(&mut solo, of(&all, 2), "ack", json!({"accepted":true,"state":"taken"}));
    heard(&mut solo, of(&all, 3), "error", json!({"code":"unknown_kind","message":"m","retryable":false}));
    let away = Err(Lost::Connection("no answer".into()));
    let mut later = solo.feed(Input::Replied { token: of(&all, 4).0, outcome: away });
    // One that is away is tried again after 30 s, then after twice as long.
    for wait_ms in [30_000, 60_000, 120_000] {
        later.extend(solo.wait(wait_ms - 1));
        assert_eq!(heralds(&later), [], "before {wait_ms}");
        let again = heralds(&solo.wait(1_001));
        assert_eq!(again.iter().map(|(_, peer)| *peer).collect::<Vec<_>>(), [agent_id(4)], "{wait_ms}");
        let error = json!({"code":"overloaded","message":"m","retryable":true});
        later = heard(&mut solo, again[0], "error", error);
    }
    // After a start at once, and only those who have not been told.
    solo.wait(2_000);
    let again = heralds(&solo.restart());
    assert_eq!(again.iter().map(|(_, peer)| *peer).collect::<Vec<_>>(), [agent_id(4)]);
    // Never when its time is over.
    solo.now += limits::OLD_KEY_MS;
    assert_eq!(heralds(&solo.restart()), []);
    let told: Vec<(&str, Option<AgentId>)> =
        solo.audit.iter().filter(|row| row.event == Event::Rekey).map(|row| (&*row.rule, row.peer)).collect();
    assert_eq!(told, [("told", Some(agent_id(2))), ("not taken", Some(agent_id(3)))]);
}
