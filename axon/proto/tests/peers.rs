//! What clients are told of peers: what is held for each, and what is unread of it.

use axon_proto::id::{AgentId, PublicKey};
use axon_proto::limits::UNREAD_ROWS_MAX;
use axon_proto::node::{ClientId, ConnId, Input, StaticPeer};
use serde_json::{Value, json};

use crate::net::{Solo, lines};

const ALL: &[&str] = &["delegate", "ack", "progress", "result", "cancel", "discover", "receipt"];

fn agent_id(n: u8) -> AgentId {
    PublicKey([n; 32]).agent_id()
}

fn static_peer(n: u8) -> StaticPeer {
    let pubkey = PublicKey([n; 32]);
    StaticPeer {
        agent_id: agent_id(n),
        pubkey,
        addr: "192.0.2.1:7100".into(),
        name: Some(format!("peer{n}")),
    }
}

/// A node that knows peers 2 and 3, both connected.
fn two() -> (Solo, [ConnId; 2]) {
    let mut solo = Solo::with(1, 2, |settings| settings.peers = vec![static_peer(2), static_peer(3)]);
    solo.feed(Input::Start);
    let conns = greeted(&mut solo);
    (solo, conns)
}

fn greeted(solo: &mut Solo) -> [ConnId; 2] {
    [3, 2].map(|n| {
        solo.play(n);
        solo.greeted(ALL, Some("boot"))
    })
}

/// A socket, and a client of it.
fn socket(solo: &mut Solo, name: &str, more: Value) -> ClientId {
    solo.owned(definition("socket_add", name, more));
    solo.scoped(name)
}

fn definition(cmd: &str, name: &str, more: Value) -> Value {
    let mut command = json!({"cmd":cmd,"name":name,"allow":["send","inbox","answer"]});
    command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    command
}

fn says(solo: &mut Solo, client: ClientId, mut command: Value) -> Value {
    command["req_id"] = "asked".into();
    let told = lines(&solo.say(client, &command), client);
    told.into_iter().find(|line| line["req_id"] == "asked").unwrap_or_default()
}

/// The rows of `peers`, with what is unread.
fn peers_unread(solo: &mut Solo, client: ClientId) -> Value {
    solo.say(client, &json!({"cmd":"peers","req_id":"p","unread":true}));
    // What comes behind it waits.
    assert!(lines(&solo.say(client, &json!({"cmd":"status","req_id":"s"})), client).is_empty());
    let effects = solo.feed(Input::Measured { client, req_id: "\"p\"".into(), rtts: Vec::new() });
    let told = lines(&effects, client);
    assert_eq!((&told[0]["req_id"], &told[1]["req_id"]), (&json!("p"), &json!("s")), "{told:?}");
    told[0].clone()
}

// shows: IPC-PEERS-1, IPC-ORD-7
#[test]
fn peers_are_told_with_what_is_held_for_them_and_unread_of_them() {
    let (mut solo, conns) = two();
    let owner = solo.client();
    for (n, conn, count) in [(2, conns[1], 3), (3, conns[0], 2)] {
        solo.play(n);
        for _ in 0..count {
            let notify = solo.envelope("notify", json!({"topic":"t","data":n}));
            solo.one_way(conn, &notify);
        }
    }
    let of = |reply: &Value, n: u8, field: &str| {
        let rows = reply["peers"].as_array().unwrap();
        rows.iter().find(|row| row["id"] == json!(agent_id(n))).map(|row| row[field].clone())
    };
    let told = peers_unread(&mut solo, owner);
    assert_eq!((of(&told, 2, "unread"), of(&told, 3, "unread")), (Some(json!(3)), Some(json!(2))), "{told}");
    assert_eq!((of(&told, 2, "held"), told.get("unread_more")), (Some(Value::Null), None));
    // What this consumer has read does not count any more; a peer of which nothing is unread has 0.
    let read = says(&mut solo, owner, json!({"cmd":"inbox"}));
    says(&mut solo, owner, json!({"cmd":"ack","up_to_seq":read["messages"][2]["seq"]}));
    let told = peers_unread(&mut solo, owner);
    assert_eq!((of(&told, 2, "unread"), of(&told, 3, "unread")), (Some(json!(0)), Some(json!(2))), "{told}");

    // Held for one that is away: the owner sees all of it, a socket what it sent.
    solo.feed(Input::Disconnected { conn: conns[1], why: "gone".into() });
    let hold = |to: &str| {
        let payload = json!({"topic":"t","data":1});
        json!({"cmd":"send","req_id":"h","to":to,"kind":"notify","payload":payload,"hold_secs":600})
    };
    solo.say(owner, &hold("peer2"));
    let sender = socket(&mut solo, "sender", json!({"allow":["send"],"to":["peer2"]}));
    solo.say(sender, &hold("peer2"));
    let blind = socket(&mut solo, "blind", json!({"allow":["answer"]}));
    let reader = socket(&mut solo, "reader", json!({"allow":["inbox"],"to":["peer3"]}));
    let mut plain = |client| {
        solo.say(client, &json!({"cmd":"peers","req_id":"p","unread":true}));
        let effects = solo.feed(Input::Measured { client, req_id: "\"p\"".into(), rtts: Vec::new() });
        lines(&effects, client)[0].clone()
    };
    let held = |told: &Value| (of(told, 2, "held"), of(told, 2, "unread"));
    let told = plain(owner);
    assert_eq!(held(&told), (Some(json!(2)), Some(json!(0))), "{told}");
    assert_eq!(held(&plain(sender)), (Some(json!(1)), Some(Value::Null)));
    assert_eq!(held(&plain(blind)), (Some(Value::Null), Some(Value::Null)));
    let told = plain(reader);
    assert_eq!((of(&told, 3, "unread"), of(&told, 2, "unread")), (Some(json!(2)), None), "{told}");
    assert_eq!(solo.status()["held"], 2);
}

#[test]
fn unread_rows_are_counted_up_to_a_bound() {
    let mut solo = Solo::with(1, 2, |settings| {
        settings.peers = vec![static_peer(2), static_peer(3)];
        settings.buffer_size = 2 * UNREAD_ROWS_MAX;
    });
    solo.feed(Input::Start);
    let conns = greeted(&mut solo);
    let owner = solo.client();
    for n in 0..=UNREAD_ROWS_MAX {
        let notify = solo.envelope("notify", json!({"topic":"t","data":n}));
        solo.one_way(conns[1], &notify);
    }
    assert_eq!(solo.status()["inbox_unread"], UNREAD_ROWS_MAX + 1);
    let told = peers_unread(&mut solo, owner);
    let of = |n: u8| {
        let rows = told["peers"].as_array().unwrap();
        rows.iter().find(|row| row["id"] == json!(agent_id(n))).unwrap()["unread"].clone()
    };
    assert_eq!((of(2), of(3), &told["unread_more"]), (json!(UNREAD_ROWS_MAX), json!(0), &json!(true)));
}
