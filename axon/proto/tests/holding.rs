//! What becomes of a message that cannot leave or arrive at once: it is held, told of as it is, given up when
//! its time is over, and nobody is told more than is known. One node, and a peer whose every message the test
//! writes.

use axon_proto::node::{ClientId, ConnId, Effect, Input, Lost, Token};
use axon_proto::store::ReadOut;
use serde_json::{Value, json};

use crate::net::{Solo, lines};

const ALL: &[&str] =
    &["delegate", "ack", "progress", "result", "cancel", "discover", "capabilities", "receipt"];
/// What a peer offers that gives no receipts.
const PLAIN: &[&str] = &["delegate", "ack", "result", "cancel", "discover", "capabilities"];

fn rows(solo: &mut Solo, cmd: &str, field: &str) -> Vec<Value> {
    solo.owned(json!({"cmd":cmd}))[field].as_array().unwrap().clone()
}

fn row(solo: &mut Solo) -> Value {
    rows(solo, "outbox", "outbox").remove(0)
}

/// What a client says to have something sent; its reply, where that comes at once, and all that follows.
fn send(solo: &mut Solo, client: ClientId, mut command: Value) -> (Value, Vec<Effect>) {
    (command["cmd"], command["req_id"], command["to"]) = ("send".into(), "r".into(), json!(solo.peer));
    let effects = solo.say(client, &command);
    let told = lines(&effects, client).into_iter().find(|line| line["req_id"] == "r");
    (told.unwrap_or_default(), effects)
}

fn note(hold_secs: u64) -> Value {
    json!({"kind":"notify","payload":{"topic":"t","data":1},"hold_secs":hold_secs})
}

fn work(hold_secs: u64) -> Value {
    json!({"kind":"delegate","payload":{"task":"t"},"hold_secs":hold_secs})
}

/// The last message that left, on a stream of either sort.
fn left(effects: &[Effect]) -> Option<(Token, Value)> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Request { token, bytes, .. } | Effect::OneWay { token, bytes, .. } => {
            let envelope: Value = serde_json::from_str(bytes).unwrap();
            (envelope["kind"] != "hello").then_some((*token, envelope))
        }
        _ => None,
    })
}

fn gone(solo: &mut Solo, conn: ConnId) -> Vec<Effect> {
    solo.feed(Input::Disconnected { conn, why: "for the test".into() })
}

fn answers(solo: &mut Solo, token: Token, to: &Value, kind: &str, payload: Value) -> Vec<Effect> {
    let mut answer = solo.envelope(kind, payload);
    answer["ref"] = to["id"].clone();
    solo.feed(Input::Replied { token, outcome: Ok(answer.to_string().into_bytes()) })
}

// shows: IPC-OUT-1, IPC-OUT-7, IPC-DEL-1, IPC-DLG-8
#[test]
fn what_is_held_too_long_expires_and_is_told() {
    for command in [note(5), work(5)] {
        let mut solo = Solo::new(1, 2);
        let client = solo.client();
        let (reply, _) = send(&mut solo, client, command.clone());
        // The first outcome is waited for; as nothing is known yet, there is none.
        assert_eq!(reply, Value::Null);
        assert_eq!((&row(&mut solo)["state"], &row(&mut solo)["attempts"]), (&json!("held"), &json!(0)));
        solo.wait(4_000);
        assert_eq!(row(&mut solo)["state"], "held");
        let told = lines(&solo.wait(2_000), client);
        let held = row(&mut solo);
        assert_eq!(held["state"], "expired", "{held}");
        assert_eq!((&told[0]["req_id"], &told[0]["error"]), (&json!("r"), &json!("peer_unreachable")));
        if command["kind"] == "delegate" {
            assert_eq!(rows(&mut solo, "delegations", "delegations")[0]["state"], "expired");
        }
        // A peer that comes now is given nothing.
        let conn = solo.greeted(ALL, None);
        assert_eq!(left(&solo.wait(1_000)), None);
        gone(&mut solo, conn);
    }
}

// shows: IPC-OUT-6
#[test]
fn to_a_peer_without_receipts_what_left_long_ago_is_not_sent_twice() {
    for (command, state) in [(note(3_600), "sent"), (work(3_600), "refused")] {
        let mut solo = Solo::new(1, 2);
        let conn = solo.greeted(PLAIN, None);
        let client = solo.client();
        let (_, effects) = send(&mut solo, client, command.clone());
        let (token, first) = left(&effects).unwrap();
        // Its connection is lost before anything is known of it. At once it would be sent again.
        gone(&mut solo, conn);
        let lost = Lost::Connection("for the test".into());
        if first["kind"] == "delegate" {
            solo.feed(Input::Replied { token, outcome: Err(lost) });
        } else {
            solo.feed(Input::Sent { token, outcome: Err(lost) });
        }
        solo.wait(151_000);
        assert_eq!(row(&mut solo)["state"], "held");
        let conn = solo.accept();
        let hello = solo.envelope("hello", Solo::hello_payload(PLAIN, None));
        let (_, effects) = solo.request(conn, &hello);
        assert_eq!(left(&effects), None, "{command}: {effects:?}");
        let end = row(&mut solo);
        assert_eq!(end["state"], state, "{end}");
        assert!(end["reason"].as_str().unwrap().contains("it may have it or not"), "{end}");
        if first["kind"] == "delegate" {
            assert_eq!(rows(&mut solo, "delegations", "delegations")[0]["state"], "expired");
        }
    }
}

// shows: IPC-OUT-13, IPC-OUT-2, WF-REF-7
#[test]
fn read_is_told_when_the_peer_says_so_and_only_it() {
    let mut solo = Solo::with(1, 2, |_| {});
    let conn = solo.greeted(ALL, None);
    let client = solo.client();
    let command = json!({"kind":"notify","payload":{"topic":"t","data":1},"read_receipt":true});
    let (_, effects) = send(&mut solo, client, command);
    let (token, first) = left(&effects).unwrap();
    assert_eq!(first["read_receipt"], true);
    let told = answers(&mut solo, token, &first, "ack", json!({"accepted":true}));
    assert_eq!(lines(&told, client)[0]["state"], "delivered", "{told:?}");
    let before = row(&mut solo);
    assert_eq!((&before["state"], &before["id"]), (&json!("delivered"), &first["id"]));

    // Somebody else cannot say so.
    solo.found(3);
    solo.play(3);
    let other = solo.greeted(ALL, None);
    let mut receipt = solo.envelope("receipt", json!({"state":"read"}));
    receipt["ref"] = first["id"].clone();
    assert_eq!(solo.ask(other, &receipt)["payload"]["code"], "not_authorized");
    assert_eq!(row(&mut solo)["state"], "delivered");

    // What the disk does not take is not told, and is taken when it comes again.
    solo.play(2);
    let mut receipt = solo.envelope("receipt", json!({"state":"read"}));
    receipt["ref"] = first["id"].clone();
    solo.disk_full = true;
    assert_eq!(solo.ask(conn, &receipt)["payload"]["code"], "overloaded");
    solo.disk_full = false;
    assert_eq!(solo.ask(conn, &receipt)["kind"], "ack");
    assert_eq!(row(&mut solo)["state"], "read");
}

// shows: IPC-OUT-4
#[test]
fn what_cannot_be_read_from_the_disk_stays_held_and_what_is_damaged_is_given_up() {
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    send(&mut solo, client, note(3_600));
    // After a restart its content is on disk alone.
    solo.restart();
    solo.stall = true;
    let read = |solo: &mut Solo| {
        let found = solo.stalled.drain(..).find_map(|job| match job {
            Effect::Read { id, .. } => Some(id),
            _ => None,
        });
        found.expect("it reads what it is to send")
    };
    solo.greeted(ALL, None);
    let id = read(&mut solo);
    let effects = solo.feed(Input::ReadDone { id, out: ReadOut::Failed("input/output error".into()) });
    assert_eq!(left(&effects), None);
    assert_eq!(row(&mut solo)["state"], "held");
    // Later it is tried again, and the disk says that it is damaged.
    solo.wait(60_000);
    let id = read(&mut solo);
    solo.feed(Input::ReadDone { id, out: ReadOut::Items(vec![None]) });
    let end = row(&mut solo);
    assert_eq!((&end["state"], &end["reason"]), (&json!("refused"), &json!("its copy on disk is damaged")));
}

// shows: IPC-SCO-2
#[test]
fn what_a_socket_holds_goes_with_it() {
    let mut solo = Solo::new(1, 2);
    solo.owned(json!({"cmd":"socket_add","name":"helper","allow":["send","inbox"]}));
    let client = solo.scoped("helper");
    send(&mut solo, client, note(3_600));
    send(&mut solo, client, work(3_600));
    assert_eq!(rows(&mut solo, "outbox", "outbox").len(), 2);
    solo.owned(json!({"cmd":"socket_remove","name":"helper"}));
    for held in rows(&mut solo, "outbox", "outbox") {
        assert_eq!((&held["state"], &held["reason"]), (&json!("refused"), &json!("its socket was removed")));
    }
    assert_eq!(rows(&mut solo, "delegations", "delegations")[0]["state"], "cancelled");
    solo.greeted(ALL, None);
    assert_eq!(left(&solo.wait(1_000)), None);
}

// shows: IPC-OUT-10
#[test]
fn only_what_is_held_is_taken_back() {
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    send(&mut solo, client, note(3_600));
    let id = row(&mut solo)["id"].clone();
    let cancel = json!({"cmd":"outbox","cancel":id});
    assert_eq!(solo.owned(cancel.clone())["cancelled"], true);
    assert_eq!(row(&mut solo)["state"], "refused");
    let (again, _) = solo.owner(cancel);
    assert_eq!(again["error"], "already_answered");
    let (nobody, _) = solo.owner(json!({"cmd":"outbox","cancel":"9c1b2f34-5d6e-4f70-8a91-b2c3d4e5f607"}));
    assert_eq!(nobody["error"], "not_found");

    // On its way it is not here any more, whatever comes of it.
    let conn = solo.greeted(ALL, None);
    let (_, effects) = send(&mut solo, client, work(3_600));
    let (_, first) = left(&effects).unwrap();
    let (leaving, _) = solo.owner(json!({"cmd":"outbox","cancel":first["id"]}));
    assert_eq!(leaving["error"], "already_answered");
    assert!(leaving["message"].as_str().unwrap().contains("on its way"), "{leaving}");
    gone(&mut solo, conn);
}
