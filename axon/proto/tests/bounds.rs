//! What a node keeps to: features, limits, messages on their way, stopping. One node, and a peer whose every
//! message the test writes itself.

use axon_proto::id::{AgentId, PublicKey};
use axon_proto::limits;
use axon_proto::node::{ClientId, ConnId, Effect, Input, Lost, Settings, Side, StaticPeer, Token};
use axon_proto::store::{CommitError, Write};
use serde_json::{Value, json};

use crate::net::{Solo, answer_on, closes, lines};

/// What a plain v1 peer offers.
const V1: &[&str] = &["delegate", "ack", "result", "cancel", "discover", "capabilities"];
/// What this daemon offers.
const ALL: &[&str] = &["delegate", "ack", "progress", "result", "cancel", "discover", "capabilities"];

fn code(answer: &Value) -> &str {
    assert_eq!(answer["kind"], "error", "{answer}");
    answer["payload"]["code"].as_str().unwrap()
}

fn static_peer(n: u8) -> StaticPeer {
    let key = PublicKey([n; 32]);
    StaticPeer { agent_id: key.agent_id(), pubkey: key, addr: "192.0.2.1:7100".into(), name: None }
}

fn arrival(conn: u64, n: u8) -> Input {
    let key = PublicKey([n; 32]);
    Input::Connected {
        conn: ConnId(conn),
        peer: key.agent_id(),
        key,
        side: Side::Acceptor,
        addr: "192.0.2.1:7100".parse().unwrap(),
        dial: None,
        early: false,
        binding: [0; 32],
    }
}

// --- features ---

// shows: WF-FEA-1, MT-ALL-7, IPC-SEND-3
#[test]
fn a_kind_that_the_peer_did_not_offer_is_not_sent() {
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    solo.greeted(&["delegate", "unknown"], None);
    let to = solo.peer;
    for (kind, payload, goes) in [
        ("discover", json!({}), false),
        ("cancel", json!({}), false),
        ("delegate", json!({"task":"t"}), true),
        ("query", json!({"question":"q"}), true),
        ("ping", json!({}), true),
        ("notify", json!({"topic":"t","data":1}), true),
    ] {
        let reference = solo.new_id();
        let command =
            json!({"cmd":"send","req_id":"3","to":to,"kind":kind,"payload":payload,"ref":reference});
        let effects = solo.say(client, &command);
        let went = effects.iter().any(|e| matches!(e, Effect::Request { .. } | Effect::OneWay { .. }));
        assert_eq!(went, goes, "{kind}");
        if !goes {
            assert_eq!(lines(&effects, client)[0]["error"], "not_offered", "{kind}");
        }
    }
}

// shows: CORE-DEL-10, WF-FEA-1
#[test]
fn a_plain_v1_peer_gets_no_progress() {
    for (features, progress) in [(V1, 0), (ALL, 1)] {
        let mut solo = Solo::new(1, 2);
        let conn = solo.greeted(features, None);
        let delegate = solo.envelope("delegate", json!({"task":"t"}));
        assert_eq!(solo.ask(conn, &delegate)["payload"]["state"], "queued");
        let agent = solo.agent();
        let ack =
            json!({"cmd":"reply","req_id":"4","ref":delegate["id"],"kind":"ack","payload":{"accepted":true}});
        let effects = solo.say(agent, &ack);
        let sent = effects.iter().filter(|effect| matches!(effect, Effect::OneWay { .. })).count();
        assert_eq!(sent, progress);
        let word = json!({"cmd":"reply","req_id":"5","ref":delegate["id"],"kind":"progress","payload":{"state":"running"}});
        let effects = solo.say(agent, &word);
        if progress == 0 {
            assert_eq!(lines(&effects, agent)[0]["error"], "not_offered");
        }
        let result = json!({"cmd":"reply","req_id":"6","ref":delegate["id"],"kind":"result","payload":{"status":"completed","outcome":"o"}});
        assert!(solo.say(agent, &result).iter().any(|effect| matches!(effect, Effect::OneWay { .. })));
    }
}

// shows: WF-FEA-2
#[test]
fn features_beyond_the_first_64_and_long_names_are_ignored() {
    let many: Vec<String> = (0..100).map(|n| format!("f{n}")).chain(["discover".into()]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    solo.greeted(&many, None);
    let to = solo.peer;
    let command = json!({"cmd":"send","req_id":"3","to":to,"kind":"discover","payload":{}});
    assert_eq!(lines(&solo.say(client, &command), client)[0]["error"], "not_offered");
}

// --- limits ---

// shows: WF-LIM-1
#[test]
fn the_connection_limit_closes_the_next_with_code_1() {
    let mut solo = Solo::with(1, 2, |settings| {
        settings.max_connections = 3;
        settings.peers.extend([static_peer(3), static_peer(4), static_peer(5)]);
    });
    for n in 2..5 {
        assert_eq!(closes(&solo.feed(arrival(u64::from(n), n))), []);
    }
    assert_eq!(closes(&solo.feed(arrival(9, 5))), [(ConnId(9), 1)]);
    solo.feed(Input::Disconnected { conn: ConnId(2), why: "x".into() });
    assert_eq!(closes(&solo.feed(arrival(10, 5))), []);
}

// shows: WF-DUP-5
#[test]
fn a_fifth_connection_of_one_peer_displaces_its_oldest() {
    let mut solo = Solo::new(1, 2);
    let conns: Vec<ConnId> = (0..4).map(|_| solo.accept()).collect();
    let effects = solo.feed(arrival(500, 2));
    assert_eq!(closes(&effects), [(conns[0], 2)]);
    let effects = solo.feed(arrival(501, 2));
    assert_eq!(closes(&effects), [(conns[1], 2)]);
}

// shows: WF-LIM-2, WF-PEER-3, WF-MDNS-2
#[test]
fn found_peers_hold_at_most_32_connections() {
    let mut solo = Solo::new(1, 2);
    for n in 10..50 {
        let key = PublicKey([n; 32]);
        let found = Input::Found { id: key.agent_id(), key, addrs: vec!["192.0.2.9:7100".parse().unwrap()] };
        solo.feed(found);
        let effects = solo.feed(arrival(u64::from(n), n));
        let expected = if n < 42 { vec![] } else { vec![(ConnId(u64::from(n)), 1)] };
        assert_eq!(closes(&effects), expected, "{n}");
    }
    // A static peer still gets in.
    assert_eq!(closes(&solo.feed(arrival(100, 2))), []);
    // None of them has said hello, so none is cached.
    let effects = solo.wait(limits::SAVE_INTERVAL_MS);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::SavePeers(_))));
    // An id that is not the key's is not known at all.
    let id = AgentId([1; 16]);
    let lie = Input::Found { id, key: PublicKey([60; 32]), addrs: vec!["192.0.2.9:7100".parse().unwrap()] };
    assert_eq!(solo.feed(lie), []);
}

// shows: WF-PIN-5
#[test]
fn a_connection_of_somebody_unknown_is_closed() {
    let mut solo = Solo::new(1, 2);
    assert_eq!(closes(&solo.feed(arrival(5, 9))), [(ConnId(5), 4)]);
    // The right id with another key.
    let input = Input::Connected {
        conn: ConnId(6),
        peer: solo.peer,
        key: PublicKey([9; 32]),
        side: Side::Acceptor,
        addr: "192.0.2.1:7100".parse().unwrap(),
        dial: None,
        early: false,
        binding: [0; 32],
    };
    assert_eq!(closes(&solo.feed(input)), [(ConnId(6), 4)]);
}

// shows: WF-PIN-6, WF-PEER-4
#[test]
fn a_peer_that_is_taken_out_is_closed_and_its_requests_end() {
    let mut solo = Solo::with(1, 2, |settings| settings.peers.push(static_peer(3)));
    solo.feed(Input::Start);
    let agent = solo.agent();
    let client = solo.client();
    let conn = solo.greeted(V1, Some("b"));
    let query = solo.envelope("query", json!({"question":"q"}));
    solo.request(conn, &query);
    let to = solo.peer;
    let effects = solo.say(client, &json!({"cmd":"send","req_id":"3","to":to,"kind":"ping","payload":{}}));
    assert!(matches!(effects[..], [Effect::Request { .. }]));
    let second = solo.greeted(V1, Some("b"));
    let settings = Settings { peers: vec![static_peer(3)], ..Settings::default() };
    let effects = solo.feed(Input::Settings(Box::new(settings)));
    let pins = effects.iter().find_map(|effect| match effect {
        Effect::Pins(pins) => Some(pins.clone()),
        _ => None,
    });
    assert_eq!(pins.unwrap().keys.len(), 1);
    let mut closed = closes(&effects);
    closed.sort_unstable();
    assert_eq!(closed, [(conn, 0), (second, 0)]);
    let sends = effects.iter().any(|e| matches!(e, Effect::Request { .. } | Effect::OneWay { .. }));
    assert!(!sends, "nothing more goes to a peer that is out: {effects:?}");
    let told = lines(&effects, agent);
    assert_eq!((&told[0]["event"], &told[0]["reason"]), (&json!("withdrawn"), &json!("peer_gone")));
    assert_eq!(lines(&effects, client)[0]["error"], "peer_unreachable");
    assert_eq!(solo.status()["open_requests"], 0);
    // It is not dialled again, and cannot come back.
    assert!(!solo.wait(60_000).iter().any(|e| matches!(e, Effect::Dial { peer, .. } if *peer == to)));
    assert_eq!(closes(&solo.feed(arrival(900, 2))), [(ConnId(900), 4)]);
    let effects = solo.say(client, &json!({"cmd":"send","req_id":"4","to":to,"kind":"ping","payload":{}}));
    assert_eq!(lines(&effects, client)[0]["error"], "peer_not_found");
}

// A cached peer that makes room for newer finds must not stay connected: who is not pinned has no connection.
// shows: WF-PEER-2, WF-PIN-6
#[test]
fn a_found_peer_that_is_connected_makes_room_for_nobody() {
    let mut solo = Solo::new(1, 2);
    let key = |n: u64| {
        let mut bytes = [200; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        PublicKey(bytes)
    };
    let find = |solo: &mut Solo, n: u64| {
        let addrs = vec!["192.0.2.9:7100".parse().unwrap()];
        solo.feed(Input::Found { id: key(n).agent_id(), key: key(n), addrs })
    };
    find(&mut solo, 0);
    let input = Input::Connected {
        conn: ConnId(5_000),
        peer: key(0).agent_id(),
        key: key(0),
        side: Side::Acceptor,
        addr: "192.0.2.1:7100".parse().unwrap(),
        dial: None,
        early: false,
        binding: [0; 32],
    };
    assert_eq!(closes(&solo.feed(input)), []);
    let mut pins = None;
    let mut closed = Vec::new();
    for n in 1..=limits::FOUND_PEERS_MAX as u64 {
        solo.now += 1;
        let effects = find(&mut solo, n);
        closed.extend(closes(&effects));
        for effect in effects {
            if let Effect::Pins(now) = effect {
                pins = Some(now);
            }
        }
    }
    let pinned = pins.unwrap().keys.contains_key(&key(0).agent_id());
    assert!(pinned, "it lost its pin");
    assert_eq!(closed, []);
}

// shows: WF-DUP-3, WF-DUP-4
#[test]
fn a_superseded_connection_takes_and_answers_and_is_closed_only_when_it_is_idle() {
    let mut solo = Solo::new(1, 2);
    let agent = solo.agent();
    let old = solo.greeted(V1, Some("b"));
    let query = solo.envelope("query", json!({"question":"q"}));
    let (stream, _) = solo.request(old, &query);
    let new = solo.greeted(V1, Some("b"));
    // Nothing new of ours goes there.
    let to = solo.peer;
    let effects = solo.say(agent, &json!({"cmd":"send","req_id":"3","to":to,"kind":"ping","payload":{}}));
    assert!(matches!(effects[..], [Effect::Request { conn, .. }] if conn == new), "{effects:?}");
    // What still comes there is handled.
    solo.wait(1_500);
    let ping = solo.envelope("ping", json!({}));
    assert_eq!(solo.ask(old, &ping)["kind"], "pong");
    // It stays as long as a request is open on it, and then for two seconds without any.
    assert_eq!(closes(&solo.wait(9_999)), []);
    let reply =
        json!({"cmd":"reply","req_id":"4","ref":query["id"],"kind":"response","payload":{"summary":"s"}});
    assert!(answer_on(&solo.say(agent, &reply), stream).is_some());
    assert_eq!(closes(&solo.wait(limits::DRAIN_MS - 1)), []);
    assert_eq!(closes(&solo.wait(1)), [(old, 2)]);
}

// --- messages on their way ---

// shows: WF-RST-4
#[test]
fn a_message_goes_out_three_times_with_one_id_and_then_fails() {
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    let to = solo.peer;
    let mut conn = solo.greeted(V1, Some("b"));
    let mut sent = solo
        .say(client, &json!({"cmd":"send","req_id":"3","to":to,"kind":"query","payload":{"question":"q"}}));
    let mut first: Option<Value> = None;
    for _ in 0..3 {
        let bytes = sent.iter().find_map(|effect| match effect {
            Effect::Request { conn: on, bytes, .. } if *on == conn => Some(bytes.clone()),
            _ => None,
        });
        let envelope: Value = serde_json::from_str(&bytes.unwrap()).unwrap();
        assert_eq!(*first.get_or_insert_with(|| envelope.clone()), envelope, "unchanged");
        let old = conn;
        conn = solo.accept();
        let over = solo.feed(Input::Disconnected { conn: old, why: "x".into() });
        if let Some(told) = lines(&over, client).first() {
            assert_eq!(told["error"], "peer_unreachable");
            return;
        }
        let hello = solo.envelope("hello", Solo::hello_payload(V1, Some("b")));
        sent = solo.request(conn, &hello).1;
    }
    panic!("it went out a fourth time, or nobody was told");
}

/// Begins a dial and yields its connection, before the answer to hello.
fn dialling(solo: &mut Solo) -> (ConnId, Token, Value) {
    let effects = solo.feed(Input::Start);
    let Some(Effect::Dial { dial, peer, hello, token, .. }) = effects.first().cloned() else { panic!() };
    let conn = ConnId(7_777);
    let (key, addr) = (solo.key, "192.0.2.1:7100".parse().unwrap());
    let side = Side::Dialer;
    solo.feed(Input::Connected {
        conn,
        peer,
        key,
        side,
        addr,
        dial: Some(dial),
        early: false,
        binding: [0; 32],
    });
    (conn, token, serde_json::from_str(&hello).unwrap())
}

// What overtook the answer to hello has been acknowledged: its sender believes it arrived.
// shows: WF-HEL-3
#[test]
fn a_one_way_message_that_overtook_hello_is_not_lost_with_its_connection() {
    for told_first in [true, false] {
        let mut solo = Solo::new(1, 2);
        let client = solo.client();
        solo.say(client, &json!({"cmd":"subscribe","req_id":"2"}));
        let (conn, token, _) = dialling(&mut solo);
        let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
        assert_eq!(solo.one_way(conn, &notify), []);
        let over = Input::Disconnected { conn, why: "x".into() };
        let lost = Input::Replied { token, outcome: Err(Lost::Connection("x".into())) };
        let [first, second] = if told_first { [over, lost] } else { [lost, over] };
        let mut effects = solo.feed(first);
        effects.extend(solo.feed(second));
        assert_eq!(lines(&effects, client).len(), 1, "{effects:?}");
        // It is taken once, should it come again.
        let conn = solo.greeted(V1, None);
        assert_eq!(solo.one_way(conn, &notify), []);
    }
    // One whose peer refuses our hello has said nothing.
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    solo.say(client, &json!({"cmd":"subscribe","req_id":"2"}));
    let (conn, token, hello) = dialling(&mut solo);
    let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
    assert_eq!(solo.one_way(conn, &notify), []);
    let mut error = solo.envelope("error", json!({"code":"internal","message":"m","retryable":true}));
    error["ref"] = hello["id"].clone();
    let effects = solo.feed(Input::Replied { token, outcome: Ok(error.to_string().into_bytes()) });
    assert_eq!((closes(&effects), lines(&effects, client)), (vec![(conn, 4)], vec![]));
}

// shows: IPC-SEND-2
#[test]
fn a_failed_dial_does_not_fail_what_the_peers_own_connection_is_about_to_carry() {
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    let effects = solo.feed(Input::Start);
    let Some(Effect::Dial { dial, .. }) = effects.first().cloned() else { panic!() };
    let to = solo.peer;
    solo.say(client, &json!({"cmd":"send","req_id":"3","to":to,"kind":"ping","payload":{}}));
    let conn = solo.accept();
    let effects = solo.feed(Input::DialFailed { dial, why: "no way".into() });
    assert!(lines(&effects, client).is_empty(), "{effects:?}");
    let hello = solo.envelope("hello", Solo::hello_payload(V1, Some("b")));
    let (_, effects) = solo.request(conn, &hello);
    assert!(effects.iter().any(|e| matches!(e, Effect::Request { conn: on, .. } if *on == conn)));
}

// shows: IPC-REP-7, IPC-ORD-9, IPC-LEASE-1
#[test]
fn an_agent_may_go_once_it_has_said_its_last_word() {
    for stored in [true, false] {
        let mut solo = Solo::new(1, 2);
        let conn = solo.greeted(V1, Some("b"));
        let agent = solo.agent();
        let delegate = solo.envelope("delegate", json!({"task":"t"}));
        solo.request(conn, &delegate);
        let result = json!({"cmd":"reply","req_id":"6","ref":delegate["id"],"kind":"result",
            "payload":{"status":"completed","outcome":"o"}});
        solo.disk_full = !stored;
        let effects = solo.say(agent, &result);
        solo.disk_full = false;
        let next = solo.agent();
        if stored {
            assert!(effects.iter().any(|effect| matches!(effect, Effect::OneWay { .. })), "{effects:?}");
        } else {
            let refused = &lines(&effects, agent)[0];
            assert_eq!((&refused["req_id"], &refused["error"]), (&"6".into(), &"overloaded".into()));
        }
        let effects = solo.feed(Input::ClientGone { client: agent });
        if stored {
            assert!(lines(&effects, next).is_empty(), "the work is done: {effects:?}");
            assert_eq!(solo.status()["open_requests"], 0);
        } else {
            // Nobody is left who could say it again: the next one does it.
            assert_eq!(lines(&effects, next)[0]["envelope"]["id"], delegate["id"], "{effects:?}");
        }
    }
}

// A connection that ends as soon as it is up is no reason to dial at once, again and again.
// shows: WF-CON-2
#[test]
fn a_peer_that_closes_whatever_comes_up_is_not_dialled_in_a_circle() {
    // The one with the lower id dials at once, after a connection that has stood for a while.
    let (low, high) =
        if PublicKey([1; 32]).agent_id() < PublicKey([2; 32]).agent_id() { (1, 2) } else { (2, 1) };
    for (stood_ms, at_once) in [(0, false), (500, false), (1_000, true)] {
        let mut solo = Solo::new(low, high);
        let (conn, token, hello) = dialling(&mut solo);
        let mut answer = solo.envelope("hello", Solo::hello_payload(V1, Some("b")));
        answer["payload"]["selected_version"] = 1.into();
        answer["ref"] = hello["id"].clone();
        solo.feed(Input::Replied { token, outcome: Ok(answer.to_string().into_bytes()) });
        solo.wait(stood_ms);
        let effects = solo.feed(Input::Disconnected { conn, why: "x".into() });
        let dials = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Dial { .. }));
        assert_eq!(dials(&effects), at_once, "{stood_ms}");
        assert!(at_once || dials(&solo.wait(1_000)));
    }
}

// shows: WF-REP-5
#[test]
fn a_repeated_delegation_whose_agent_has_gone_is_queued_again() {
    let mut solo = Solo::new(1, 2);
    let conn = solo.greeted(V1, Some("b"));
    let agent = solo.agent();
    let delegate = solo.envelope("delegate", json!({"task":"t"}));
    solo.request(conn, &delegate);
    let ack =
        json!({"cmd":"reply","req_id":"6","ref":delegate["id"],"kind":"ack","payload":{"accepted":true}});
    solo.say(agent, &ack);
    assert_eq!(solo.ask(conn, &delegate)["payload"], json!({"accepted":true}));
    solo.feed(Input::ClientGone { client: agent });
    assert_eq!(solo.ask(conn, &delegate)["payload"], json!({"accepted":true,"state":"queued"}));
}

// --- stopping ---

// shows: WF-STOP-1
#[test]
fn a_stop_refuses_what_waits_and_gives_what_is_held_five_seconds() {
    let mut solo = Solo::new(1, 2);
    let agent = solo.client();
    solo.say(agent, &json!({"cmd":"subscribe","req_id":"s","answer":["query"],"capacity":2}));
    let conn = solo.greeted(V1, None);
    let mut streams = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let query = solo.envelope("query", json!({"question":"q"}));
        streams.push(solo.request(conn, &query).0);
        ids.push(query["id"].clone());
    }
    let effects = solo.feed(Input::Stop);
    assert_eq!(code(&answer_on(&effects, streams[2]).unwrap()), "overloaded");
    assert!(answer_on(&effects, streams[0]).is_none());
    let query = solo.envelope("query", json!({"question":"q"}));
    assert_eq!(code(&solo.ask(conn, &query)), "overloaded");
    assert_eq!(closes(&solo.feed(arrival(900, 2))), [(ConnId(900), 5)]);
    // An agent that answers now is heard.
    let reply = json!({"cmd":"reply","req_id":"4","ref":ids[0],"kind":"response","payload":{"summary":"s"}});
    let effects = solo.say(agent, &reply);
    assert_eq!(answer_on(&effects, streams[0]).unwrap()["kind"], "response", "{effects:?}");
    let effects = solo.wait(limits::SHUTDOWN_MS - 1);
    assert!(effects.iter().all(|effect| matches!(effect, Effect::Remember(_))), "{effects:?}");
    let effects = solo.wait(1);
    assert_eq!(code(&answer_on(&effects, streams[1]).unwrap()), "overloaded");
    assert_eq!(effects.iter().filter(|effect| **effect == Effect::Stopped).count(), 1);
    assert_eq!(effects.last(), Some(&Effect::Stopped));
    // Never again.
    assert!(!solo.feed(Input::Stop).contains(&Effect::Stopped));
    assert!(!solo.wait(10_000).contains(&Effect::Stopped));
}

// shows: WF-STOP-1, IPC-STOP-1
#[test]
fn a_stop_ends_at_once_when_nothing_is_in_flight_or_as_soon_as_it_is_done() {
    let mut solo = Solo::new(1, 2);
    solo.greeted(V1, None);
    assert!(solo.feed(Input::Stop).contains(&Effect::Stopped));

    let mut solo = Solo::new(1, 2);
    let agent = solo.agent();
    let conn = solo.greeted(V1, None);
    let query = solo.envelope("query", json!({"question":"q"}));
    solo.request(conn, &query);
    assert!(!solo.feed(Input::Stop).contains(&Effect::Stopped));
    let reply =
        json!({"cmd":"reply","req_id":"4","ref":query["id"],"kind":"response","payload":{"summary":"s"}});
    assert!(solo.say(agent, &reply).contains(&Effect::Stopped));
}

// shows: IPC-STOP-1, IPC-ORD-1
#[test]
fn a_stop_answers_the_commands_that_wait_for_a_peer() {
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    solo.greeted(V1, None);
    let to = solo.peer;
    solo.say(client, &json!({"cmd":"send","req_id":"3","to":to,"kind":"ping","payload":{}}));
    assert!(!solo.feed(Input::Stop).contains(&Effect::Stopped));
    let refused = solo.say(client, &json!({"cmd":"send","req_id":"4","to":to,"kind":"ping","payload":{}}));
    assert_eq!(lines(&refused, client)[0]["error"], "overloaded");
    let effects = solo.wait(limits::SHUTDOWN_MS);
    assert!(effects.contains(&Effect::Stopped));
    let told = lines(&effects, client);
    assert_eq!((told.len(), &told[0]["req_id"], &told[0]["ok"]), (1, &json!("3"), &json!(false)), "{told:?}");
}

// shows: WF-STR-11
#[test]
fn work_for_one_peer_leaves_streams_for_a_ping() {
    let mut solo = Solo::new(1, 2);
    solo.greeted(ALL, None);
    let peer = solo.peer.to_string();
    let clients = [solo.client(), solo.client()];
    let mut left = Vec::new();
    let sends = |effects: Vec<Effect>| {
        effects.into_iter().find_map(|effect| match effect {
            Effect::Request { token, bytes, .. } => Some((token, bytes)),
            _ => None,
        })
    };
    for n in 0..300 {
        let command = json!({"cmd":"send","req_id":n.to_string(),"to":peer,"kind":"query",
            "payload":{"question":"x","deadline_ms":5_000}});
        left.extend(sends(solo.say(clients[n % 2], &command)));
    }
    assert_eq!(left.len(), limits::WORK_TO_PEER_MAX);
    let ping = json!({"cmd":"send","req_id":"ping","to":peer,"kind":"ping","payload":{}});
    assert!(sends(solo.say(clients[0], &ping)).is_some(), "a ping does not wait behind the work");

    // One is answered: the next leaves.
    let (token, bytes) = left.swap_remove(0);
    let request: Value = serde_json::from_str(&bytes).unwrap();
    let mut answer = solo.envelope("response", json!({"data":null,"summary":"y"}));
    answer["ref"] = request["id"].clone();
    let outcome = Ok(answer.to_string().into_bytes());
    assert!(sends(solo.feed(Input::Replied { token, outcome })).is_some());

    // Those that never left are told so, not that the peer was slow.
    let effects = solo.wait(6_000);
    let replies: Vec<Value> = clients.iter().flat_map(|client| lines(&effects, *client)).collect();
    let count = |code: &str| replies.iter().filter(|reply| reply["error"] == code).count();
    assert_eq!((count("timeout"), count("overloaded")), (240, 59));
}

/// A delegation of the peer that the agent is given, and has done.
fn delegated_and_done(solo: &mut Solo, conn: ConnId, agent: ClientId) {
    let delegate = solo.envelope("delegate", json!({"task":"t"}));
    let (_, effects) = solo.request(conn, &delegate);
    assert_eq!(lines(&effects, agent)[0]["envelope"]["id"], delegate["id"], "{effects:?}");
    let result = json!({"cmd":"reply","req_id":"6","ref":delegate["id"],"kind":"result",
        "payload":{"status":"completed","outcome":"o"}});
    let effects = solo.say(agent, &result);
    let sent = effects.iter().find_map(|effect| match effect {
        Effect::OneWay { token, .. } => Some(*token),
        _ => None,
    });
    solo.feed(Input::Sent { token: sent.unwrap(), outcome: Ok(()) });
}

// Work that is done does not fill the inbox for good, though nobody reads it there.
// shows: IPC-BOX-10
#[test]
fn rows_of_ended_delegations_make_room() {
    let mut solo = Solo::with(1, 2, |settings| settings.buffer_size = 3);
    let conn = solo.greeted(V1, Some("b"));
    let agent = solo.agent();
    for _ in 0..200 {
        delegated_and_done(&mut solo, conn, agent);
    }
    // What is still open, or was receipted and not read, stays.
    for taken in [true, true, true, false] {
        let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
        let kind = if taken { "ack" } else { "error" };
        assert_eq!(solo.ask(conn, &notify)["kind"], kind);
    }
}

// Or the daemon would write to a full disk, and nothing else, for as long as it is full.
// shows: IPC-BOX-10
#[test]
fn a_disk_that_makes_no_room_is_not_asked_again_at_once() {
    let mut solo = Solo::with(1, 2, |settings| settings.buffer_size = 3);
    let conn = solo.greeted(V1, Some("b"));
    let agent = solo.agent();
    for _ in 0..3 {
        delegated_and_done(&mut solo, conn, agent);
    }
    solo.stall = true;
    let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
    let (stream, _) = solo.request(conn, &notify);
    let mut answer = None;
    for asked in ["for the row", "for room", "for the row again"] {
        let Some(Effect::Commit { id, commit }) = solo.stalled.pop_front() else {
            panic!("{asked}: no commit")
        };
        let is_gone = commit.writes.iter().all(|write| matches!(write, Write::Gone(_)));
        let outcome = match is_gone {
            true => Err(CommitError::Disk("no space left on device".into())),
            false => Err(CommitError::Full),
        };
        assert_eq!(is_gone, asked == "for room", "{commit:?}");
        answer = answer_on(&solo.feed(Input::Committed { id, outcome }), stream);
    }
    assert_eq!(answer.unwrap()["payload"]["code"], "overloaded");
    assert!(solo.stalled.is_empty(), "{:?}", solo.stalled);

    // The same message is taken once there is room.
    solo.go_on();
    solo.wait(1_000);
    assert_eq!(solo.ask(conn, &notify)["kind"], "ack");
}
