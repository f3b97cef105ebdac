//! What a node lets in: hello first, then faults, features, replay, references, receipts, limits. One node,
//! and a peer whose every message the test writes itself.

use axon_proto::id::{MsgId, PublicKey};
use axon_proto::limits;
use axon_proto::node::{ConnId, Effect, Input, Side, StaticPeer, StreamId};
use serde_json::{Value, json};

use crate::net::{Solo, answer_on, closes, lines};

/// What a test does to a message before it is sent.
type Change = Box<dyn Fn(&mut Value)>;

/// What a plain v1 peer offers.
const V1: &[&str] = &["delegate", "ack", "result", "cancel", "discover", "capabilities"];
/// What this daemon offers.
const ALL: &[&str] = &[
    "delegate",
    "ack",
    "progress",
    "result",
    "cancel",
    "discover",
    "capabilities",
    "receipt",
    "knock",
    "rekey",
    "topics",
    "presence",
    "pipe",
];

fn code(answer: &Value) -> &str {
    assert_eq!(answer["kind"], "error", "{answer}");
    answer["payload"]["code"].as_str().unwrap()
}

fn static_peer(n: u8) -> StaticPeer {
    let key = PublicKey([n; 32]);
    StaticPeer { agent_id: key.agent_id(), pubkey: key, addr: "192.0.2.1:7100".into(), name: None }
}

// --- hello ---

// shows: WF-HEL-2, WF-ERR-1
#[test]
fn before_hello_requests_are_refused_and_one_way_messages_dropped() {
    let mut solo = Solo::new(1, 2);
    let conn = solo.accept();
    let agent = solo.agent();
    for kind in ["query", "delegate", "ping", "discover", "cancel", "new_kind"] {
        let envelope = solo.envelope(kind, json!({"question":"q","task":"t"}));
        let answer = solo.ask(conn, &envelope);
        assert_eq!((code(&answer), &answer["ref"]), ("not_authorized", &envelope["id"]), "{kind}");
        assert_eq!(answer["payload"]["retryable"], false);
    }
    let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
    assert_eq!(solo.one_way(conn, &notify), []);
    assert_eq!(solo.dropped("before_hello"), 7);
    assert_eq!(solo.status()["peers_connected"], 0);
    // The same message is taken once hello is done: it had not been taken before.
    let hello = solo.envelope("hello", Solo::hello_payload(V1, None));
    assert_eq!(solo.ask(conn, &hello)["kind"], "hello");
    solo.say(agent, &json!({"cmd":"subscribe","req_id":"2","kinds":["notify"]}));
    let effects = solo.one_way(conn, &notify);
    assert_eq!(lines(&effects, agent)[0]["envelope"]["id"], notify["id"]);
}

// shows: WF-HEL-5, WF-ENV-6, CORE-HELLO-1, CORE-HELLO-3, WF-HEL-7, WF-HEL-8
#[test]
fn hello_is_answered_with_version_features_and_boot_and_again_when_it_comes_again() {
    let mut solo = Solo::with(1, 2, |settings| settings.name = Some("one".into()));
    let conn = solo.accept();
    let mut payload = Solo::hello_payload(V1, None);
    payload["protocol_versions"] = json!([1, 2, 7]);
    let hello = solo.envelope("hello", payload);
    let first = solo.ask(conn, &hello);
    assert_eq!(first["kind"], "hello");
    assert_eq!(first["ref"], hello["id"]);
    assert_eq!((&first["from"], &first["to"]), (&json!(solo.me), &json!(solo.peer)));
    assert_eq!(first["payload"]["selected_version"], 1);
    assert_eq!(first["payload"]["protocol_versions"], json!([1]));
    assert_eq!(first["payload"]["agent_name"], "one");
    assert_eq!(first["payload"]["features"], json!(ALL));
    assert!(first["payload"]["boot"].as_str().unwrap().len() <= limits::BOOT_BYTES_MAX);
    // The very same hello, and another one, are answered as the first was.
    let again = solo.ask(conn, &hello);
    assert_eq!(again["payload"], first["payload"]);
    let other = solo.envelope("hello", Solo::hello_payload(&[], Some("x")));
    assert_eq!(solo.ask(conn, &other)["payload"], first["payload"]);
    assert_eq!(closes(&solo.wait(10_000)), []);
    assert_eq!(solo.dropped("replayed"), 0);
}

// shows: WF-PIPE-1
#[test]
fn the_pipe_is_for_two_that_both_offer_it_and_only_after_hello() {
    for (ours, theirs) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut solo = Solo::with(1, 2, |settings| settings.pipe = ours);
        let conn = solo.accept();
        let features = if theirs { ALL } else { V1 };
        let hello = solo.envelope("hello", Solo::hello_payload(features, None));
        let (stream, effects) = solo.request(conn, &hello);
        let answer = answer_on(&effects, stream).unwrap();
        let offered = answer["payload"]["features"].as_array().unwrap().contains(&json!("pipe"));
        let up = effects.iter().filter_map(|effect| match effect {
            Effect::Up { conn: on, pipe } if *on == conn => Some(*pipe),
            _ => None,
        });
        let used = up.collect::<Vec<_>>() == [true];
        assert_eq!((offered, used), (ours, ours && theirs));
        // What the setting was at the start holds until the end.
        solo.set(|settings| settings.pipe = !ours);
        let (stream, effects) = solo.request(conn, &hello);
        let again = answer_on(&effects, stream).unwrap();
        assert_eq!(again["payload"]["features"], answer["payload"]["features"]);
    }
}

// shows: WF-HEL-6, WF-HEL-4, WF-HEL-5, WF-ERR-5
#[test]
fn a_failed_hello_is_answered_and_then_the_connection_closed() {
    let other = PublicKey([7; 32]).agent_id();
    let cases = [
        ("/from", json!(other), "not_authorized"),
        ("/to", json!(other), "peer_not_found"),
        ("/v", json!(2), "incompatible_version"),
        ("/payload/protocol_versions", json!([2, 3]), "incompatible_version"),
        ("/payload/protocol_versions", json!([]), "incompatible_version"),
        ("/payload/protocol_versions", json!("1"), "invalid_envelope"),
    ];
    for (field, value, expected) in cases {
        let mut solo = Solo::new(1, 2);
        let conn = solo.accept();
        let mut hello = solo.envelope("hello", Solo::hello_payload(V1, None));
        *hello.pointer_mut(field).unwrap() = value;
        let (stream, effects) = solo.request(conn, &hello);
        let answer = answer_on(&effects, stream).unwrap();
        assert_eq!((code(&answer), &answer["ref"]), (expected, &hello["id"]), "{field}");
        // First the answer, then, a little later so that it arrives, the close.
        assert_eq!(closes(&effects), []);
        assert_eq!(closes(&solo.wait(1_000)), [(conn, 4)], "{field}");
        assert_eq!(solo.status()["peers_connected"], 0);
    }
}

// shows: WF-LIM-4
#[test]
fn a_connection_without_hello_is_closed_in_time() {
    let mut solo = Solo::new(1, 2);
    let conn = solo.accept();
    assert_eq!(closes(&solo.wait(4_999)), []);
    assert_eq!(closes(&solo.wait(1)), [(conn, 4)]);
}

// shows: WF-HEL-6
#[test]
fn a_dialler_closes_when_hello_is_refused_or_answered_wrongly() {
    let answers: Vec<(&str, Change)> = vec![
        (
            "refused",
            Box::new(|a| {
                a["kind"] = "error".into();
                a["payload"] = json!({"code":"not_authorized","message":"no","retryable":false});
            }),
        ),
        ("version not offered", Box::new(|a| a["payload"]["selected_version"] = 2.into())),
        ("no version", Box::new(|a| drop(a["payload"].as_object_mut().unwrap().remove("selected_version")))),
        ("from another", Box::new(|a| a["from"] = json!(PublicKey([9; 32]).agent_id()))),
        ("to another", Box::new(|a| a["to"] = json!(PublicKey([9; 32]).agent_id()))),
        ("another kind", Box::new(|a| a["kind"] = "pong".into())),
    ];
    for (what, change) in answers {
        let mut solo = Solo::new(1, 2);
        let effects = solo.feed(Input::Start);
        let Some(Effect::Dial { dial, peer, hello, token, .. }) = effects.first().cloned() else {
            panic!("{effects:?}")
        };
        let hello: Value = serde_json::from_str(&hello).unwrap();
        assert_eq!((&hello["kind"], hello["payload"].get("selected_version")), (&json!("hello"), None));
        let conn = ConnId(77);
        solo.feed(Input::Connected {
            conn,
            peer,
            key: solo.key,
            side: Side::Dialer,
            addr: "192.0.2.1:7100".parse().unwrap(),
            dial: Some(dial),
            early: false,
            binding: [0; 32],
        });
        let mut answer = solo.envelope("hello", Solo::hello_payload(V1, None));
        answer["payload"]["selected_version"] = 1.into();
        answer["ref"] = hello["id"].clone();
        change(&mut answer);
        let outcome = Ok(answer.to_string().into_bytes());
        assert_eq!(closes(&solo.feed(Input::Replied { token, outcome })), [(conn, 4)], "{what}");
        assert_eq!(solo.status()["peers_connected"], 0);
        // Dialled again, but not at once.
        assert!(!solo.wait(900).iter().any(|effect| matches!(effect, Effect::Dial { .. })));
        assert!(solo.wait(400).iter().any(|effect| matches!(effect, Effect::Dial { .. })));
    }
}

// shows: WF-HEL-1, WF-HEL-3
#[test]
fn a_dialler_sends_nothing_before_the_answer_and_holds_what_overtakes_it() {
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    solo.say(client, &json!({"cmd":"subscribe","req_id":"2","kinds":["notify"]}));
    let effects = solo.feed(Input::Start);
    let Some(Effect::Dial { dial, peer, hello, token, .. }) = effects.first().cloned() else { panic!() };
    let hello: Value = serde_json::from_str(&hello).unwrap();
    let conn = ConnId(77);
    let to = solo.peer;
    let sent = solo.say(client, &json!({"cmd":"send","req_id":"3","to":to,"kind":"ping","payload":{}}));
    assert_eq!(sent, []);
    let effects = solo.feed(Input::Connected {
        conn,
        peer,
        key: solo.key,
        side: Side::Dialer,
        addr: "192.0.2.1:7100".parse().unwrap(),
        dial: Some(dial),
        early: false,
        binding: [0; 32],
    });
    assert_eq!(effects, []);
    let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
    assert_eq!(solo.one_way(conn, &notify), []);
    let ping = solo.envelope("ping", json!({}));
    let (stream, effects) = solo.request(conn, &ping);
    assert_eq!(effects, []);
    let mut answer = solo.envelope("hello", Solo::hello_payload(V1, None));
    answer["payload"]["selected_version"] = 1.into();
    answer["ref"] = hello["id"].clone();
    let effects = solo.feed(Input::Replied { token, outcome: Ok(answer.to_string().into_bytes()) });
    assert!(effects.iter().any(|e| matches!(e, Effect::Request { conn: on, .. } if *on == conn)));
    assert_eq!(lines(&effects, client)[0]["envelope"]["id"], notify["id"]);
    assert_eq!(answer_on(&effects, stream).unwrap()["kind"], "pong");
}

// shows: WF-HEL-3
#[test]
fn as_many_messages_as_there_are_streams_may_overtake_the_answer_to_hello() {
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    solo.say(client, &json!({"cmd":"subscribe","req_id":"2","kinds":["notify"]}));
    let effects = solo.feed(Input::Start);
    let Some(Effect::Dial { dial, peer, hello, token, .. }) = effects.first().cloned() else { panic!() };
    let hello: Value = serde_json::from_str(&hello).unwrap();
    let conn = ConnId(7_777);
    solo.feed(Input::Connected {
        conn,
        peer,
        key: solo.key,
        side: Side::Dialer,
        addr: "192.0.2.1:7100".parse().unwrap(),
        dial: Some(dial),
        early: false,
        binding: [0; 32],
    });
    for _ in 0..limits::STREAMS_MAX {
        let ping = solo.envelope("ping", json!({}));
        assert_eq!(solo.request(conn, &ping).1, []);
        let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
        assert_eq!(solo.one_way(conn, &notify), []);
    }
    let mut answer = solo.envelope("hello", Solo::hello_payload(V1, None));
    answer["payload"]["selected_version"] = 1.into();
    answer["ref"] = hello["id"].clone();
    let effects = solo.feed(Input::Replied { token, outcome: Ok(answer.to_string().into_bytes()) });
    assert_eq!(lines(&effects, client).len(), limits::STREAMS_MAX as usize);
    let answers = effects.iter().filter(|effect| matches!(effect, Effect::Respond { .. })).count();
    assert_eq!(answers, limits::STREAMS_MAX as usize);
    assert_eq!(solo.dropped("before_hello"), 0);
}

// shows: WF-0RTT-2, WF-0RTT-3
#[test]
fn an_early_hello_changes_nothing_until_the_connection_stands() {
    let mut solo = Solo::new(1, 2);
    let old = solo.greeted(ALL, Some("old"));
    let hello = solo.envelope("hello", Solo::hello_payload(ALL, Some("new")));
    let early = |solo: &mut Solo, bytes: &Value| {
        let stream = StreamId(solo.fresh());
        let input = Input::EarlyHello { stream, peer: solo.peer, bytes: bytes.to_string().into_bytes() };
        (stream, solo.feed(input))
    };
    for _ in 0..3 {
        let (stream, effects) = early(&mut solo, &hello);
        assert_eq!(answer_on(&effects, stream).unwrap()["kind"], "hello");
        assert_eq!(effects.len(), 1, "{effects:?}");
    }
    // Anything else in 0-RTT is not answered.
    let query = solo.envelope("query", json!({"question":"q"}));
    assert_eq!(early(&mut solo, &query).1, []);
    let mut foreign = hello.clone();
    foreign["from"] = json!(solo.me);
    assert_eq!(early(&mut solo, &foreign).1, []);
    // Confirmed: now the early hello is the connection's hello, and the new boot supersedes.
    let conn = solo.accept();
    let (_, effects) = solo.request(conn, &hello);
    assert_eq!(closes(&effects), [(old, 2)]);
    assert_eq!(solo.status()["peers_connected"], 1);
}

// --- faults ---

// shows: WF-ERR-1, WF-ERR-2, WF-ENV-1, WF-ENV-3, WF-CLOSE-1, WF-ID-3, MT-ALL-1
#[test]
fn each_fault_has_its_answer_and_its_count() {
    let other = PublicKey([7; 32]).agent_id().to_string();
    let cases: &[(&str, Value, &str, &str)] = &[
        ("/from", json!(other), "not_authorized", "not_authorized"),
        ("/to", json!(other), "peer_not_found", "malformed"),
        ("/v", json!(2), "incompatible_version", "malformed"),
        ("/v", json!(0), "invalid_envelope", "malformed"),
        ("/from", json!("rsa.00112233445566778899aabbccddeeff00"), "incompatible_version", "malformed"),
        ("/ts", json!(0), "invalid_envelope", "malformed"),
        ("/ts", json!(-5), "invalid_envelope", "malformed"),
        ("/payload", json!([]), "invalid_envelope", "malformed"),
        ("/payload", json!(null), "invalid_envelope", "malformed"),
        ("/payload/question", json!(7), "invalid_envelope", "malformed"),
        ("/payload/domain", json!("d".repeat(257)), "invalid_envelope", "malformed"),
        ("/kind", json!("k".repeat(65)), "invalid_envelope", "malformed"),
        ("/kind", json!("new_kind"), "unknown_kind", "malformed"),
        ("/kind", json!("pong"), "invalid_envelope", "malformed"),
        ("/kind", json!("response"), "invalid_envelope", "malformed"),
    ];
    let mut solo = Solo::new(1, 2);
    let agent = solo.agent();
    let conn = solo.greeted(V1, None);
    for (field, value, expected, counted) in cases {
        let mut query = solo.envelope("query", json!({"question":"q","domain":"d"}));
        *query.pointer_mut(field).unwrap() = value.clone();
        let before = solo.dropped(counted);
        let (stream, effects) = solo.request(conn, &query);
        let answer = answer_on(&effects, stream).unwrap_or_else(|| panic!("{field} {value}"));
        assert_eq!((code(&answer), &answer["ref"]), (*expected, &query["id"]), "{field} {value}");
        assert_eq!(solo.dropped(counted), before + 1, "{field} {value}");
        assert!(lines(&effects, agent).is_empty());
        // One way, the same faults are dropped without a word.
        query["id"] = solo.new_id().into();
        let effects = solo.one_way(conn, &query);
        let unopened = query["kind"] == "new_kind";
        assert_eq!(effects, [], "{field} {value} unopened: {unopened}");
    }
    // Without a valid id there is nothing to refer to.
    for bad in [json!("x"), json!(null), json!("00000000-0000-0000-0000-000000000000"), json!(7)] {
        let mut query = solo.envelope("query", json!({"question":"q"}));
        query["id"] = bad;
        let (stream, effects) = solo.request(conn, &query);
        assert_eq!(effects, [Effect::Reset { stream }]);
    }
    for bytes in [&b""[..], b"{", b"\xff", b"[]", b"{}{}"] {
        let stream = StreamId(solo.fresh());
        let effects = solo.feed(Input::Request { conn, stream, bytes: bytes.to_vec() });
        assert_eq!(effects, [Effect::Reset { stream }]);
    }
    // All of it left the connection open.
    assert_eq!(closes(&solo.wait(10_000)), []);
    assert_eq!(solo.status()["peers_connected"], 1);
}

// shows: WF-STR-8, WF-ENV-4, WF-FEA-3, MT-ALL-5
#[test]
fn wrong_streams_and_unknown_kinds() {
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    solo.say(client, &json!({"cmd":"subscribe","req_id":"2"}));
    let conn = solo.greeted(V1, None);
    for (kind, payload) in [
        ("query", json!({"question":"q"})),
        ("delegate", json!({"task":"t"})),
        ("ping", json!({})),
        ("discover", json!({})),
        ("cancel", json!({})),
        ("hello", json!({"protocol_versions":[1]})),
        ("pong", json!({})),
        ("ack", json!({"accepted":true})),
    ] {
        let envelope = solo.envelope(kind, payload);
        assert_eq!(solo.one_way(conn, &envelope), [], "{kind}");
    }
    assert_eq!(solo.dropped("wrong_stream"), 8);
    // An unknown kind: refused where an answer is awaited, delivered unopened where none is.
    let unknown = solo.envelope("future", json!({"any":["thing"]}));
    assert_eq!(code(&solo.ask(conn, &unknown)), "unknown_kind");
    let unknown = solo.envelope("future", json!({"any":["thing"]}));
    let effects = solo.one_way(conn, &unknown);
    assert_eq!(lines(&effects, client)[0]["envelope"], unknown);
    // One whose inbox ends with it offers no receipts, and so knows none.
    let mut solo = Solo::with(1, 2, |settings| settings.durable = false);
    let conn = solo.greeted(V1, None);
    let mut receipt = solo.envelope("receipt", json!({"state":"read"}));
    receipt["ref"] = solo.new_id().into();
    assert_eq!(code(&solo.ask(conn, &receipt)), "unknown_kind");
}

// shows: WF-STR-9
#[test]
fn a_one_way_kind_on_a_bidirectional_stream_is_receipted() {
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    solo.say(client, &json!({"cmd":"subscribe","req_id":"2"}));
    let conn = solo.greeted(V1, None);
    let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
    let (stream, effects) = solo.request(conn, &notify);
    let ack = answer_on(&effects, stream).unwrap();
    assert_eq!((&ack["kind"], &ack["payload"]), (&json!("ack"), &json!({"accepted":true})));
    assert_eq!(lines(&effects, client).len(), 1);
    // Seen before: receipted again, not delivered again.
    let (stream, effects) = solo.request(conn, &notify);
    assert_eq!(answer_on(&effects, stream).unwrap()["kind"], "ack");
    assert!(lines(&effects, client).is_empty());
    assert_eq!(solo.dropped("replayed"), 1);
    let faulty = solo.envelope("notify", json!({"topic":"t"}));
    assert_eq!(code(&solo.ask(conn, &faulty)), "invalid_envelope");
}

// --- replay ---

// shows: WF-REP-1, WF-REP-4, WF-REP-6, WF-REP-7
#[test]
fn what_was_seen_is_not_answered_again() {
    let mut solo = Solo::new(1, 2);
    let agent = solo.agent();
    let conn = solo.greeted(V1, None);
    let mut seen = Vec::new();
    for (kind, payload) in [
        ("query", json!({"question":"q"})),
        ("ping", json!({})),
        ("discover", json!({})),
        ("cancel", json!({})),
    ] {
        let envelope = solo.envelope(kind, payload);
        let (_, effects) = solo.request(conn, &envelope);
        assert!(!effects.is_empty());
        seen.push(envelope);
    }
    let second = solo.greeted(V1, None);
    for on in [conn, second] {
        for envelope in &seen {
            let (stream, effects) = solo.request(on, envelope);
            assert_eq!(effects, [Effect::Reset { stream }], "{envelope}");
        }
    }
    let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
    solo.say(agent, &json!({"cmd":"subscribe","req_id":"2"}));
    assert_eq!(lines(&solo.one_way(conn, &notify), agent).len(), 1);
    assert_eq!(solo.one_way(second, &notify), []);
    assert_eq!(solo.dropped("replayed"), 9);
    // Another sender's id is its own; and after 300 s an id may come again.
    solo.wait(limits::REPLAY_TTL_MS + 10);
    let conn = solo.greeted(V1, None);
    assert_eq!(solo.ask(conn, &seen[1])["kind"], "pong");
}

// shows: WF-REP-3
#[test]
fn seen_ids_are_written_within_a_second() {
    let mut solo = Solo::new(1, 2);
    let conn = solo.greeted(V1, None);
    let ping = solo.envelope("ping", json!({}));
    solo.ask(conn, &ping);
    let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
    assert_eq!(solo.ask(conn, &notify)["kind"], "ack");
    let effects = solo.wait(limits::REPLAY_FLUSH_MS);
    let id: MsgId = ping["id"].as_str().unwrap().parse().unwrap();
    let seen = effects.into_iter().find_map(|effect| match effect {
        Effect::Remember(seen) => Some(seen),
        _ => None,
    });
    let seen = seen.expect("it is written");
    assert_eq!(seen.iter().map(|one| (one.id, one.from)).collect::<Vec<_>>(), [(id, solo.peer)]);
    assert!(!solo.wait(5_000).iter().any(|effect| matches!(effect, Effect::Remember(_))));
    // That of what is kept was on disk with it.
    solo.restart();
    let conn = solo.greeted(V1, None);
    assert_eq!(solo.ask(conn, &notify)["kind"], "ack");
    assert_eq!(solo.dropped("replayed"), 1);
}

// shows: WF-REP-5
#[test]
fn a_repeated_delegation_is_answered_with_its_state_and_delivered_once() {
    // Kept for a later agent.
    let mut solo = Solo::new(1, 2);
    let conn = solo.greeted(V1, None);
    let delegate = solo.envelope("delegate", json!({"task":"t"}));
    let first = solo.ask(conn, &delegate);
    assert_eq!(first["payload"], json!({"accepted":true,"state":"queued"}));
    let again = solo.ask(conn, &delegate);
    assert_eq!(again["payload"], first["payload"]);
    assert_ne!(again["id"], first["id"]);
    assert_eq!(solo.status()["open_requests"], 1);

    // Held by an agent that has not answered: the newer stream gets the answer, the older one its end.
    let agent = solo.agent();
    let work = solo.envelope("delegate", json!({"task":"t"}));
    let (old, effects) = solo.request(conn, &work);
    assert_eq!(lines(&effects, agent).len(), 1);
    let (new, effects) = solo.request(conn, &work);
    assert_eq!(effects, [Effect::Reset { stream: old }]);
    let reply = json!({"cmd":"reply","req_id":"9","ref":work["id"],"kind":"ack","payload":{"accepted":true,"estimated_ms":5}});
    let effects = solo.say(agent, &reply);
    assert!(answer_on(&effects, old).is_none());
    assert_eq!(answer_on(&effects, new).unwrap()["payload"]["estimated_ms"], 5);
    assert_eq!(solo.ask(conn, &work)["payload"]["estimated_ms"], 5);

    // Done: still the acknowledgement that it was given.
    let result = json!({"cmd":"reply","req_id":"10","ref":work["id"],"kind":"result","payload":{"status":"completed","outcome":"o"}});
    let effects = solo.say(agent, &result);
    let token = effects.iter().find_map(|effect| match effect {
        Effect::OneWay { token, .. } => Some(*token),
        _ => None,
    });
    let token = token.unwrap_or_else(|| panic!("{effects:?}"));
    solo.feed(Input::Sent { token, outcome: Ok(()) });
    assert_eq!(solo.ask(conn, &work)["payload"]["estimated_ms"], 5);
    assert_eq!(solo.dropped("replayed"), 4);
}

// --- references ---

// shows: WF-REF-1, WF-REF-5, CORE-CAN-1
#[test]
fn only_the_delegator_may_cancel() {
    let mut solo = Solo::with(1, 2, |settings| settings.peers.push(static_peer(3)));
    let conn = solo.greeted(V1, None);
    let delegate = solo.envelope("delegate", json!({"task":"t"}));
    solo.ask(conn, &delegate);
    // Another peer knows the id.
    let (mine, peer, key) = (solo.peer, PublicKey([3; 32]).agent_id(), PublicKey([3; 32]));
    (solo.peer, solo.key) = (peer, key);
    let other = solo.greeted(V1, None);
    let mut cancel = solo.envelope("cancel", json!({}));
    cancel["ref"] = delegate["id"].clone();
    assert_eq!(code(&solo.ask(other, &cancel)), "not_authorized");
    (solo.peer, solo.key) = (mine, PublicKey([2; 32]));
    let mut unknown = solo.envelope("cancel", json!({}));
    unknown["ref"] = solo.new_id().into();
    assert_eq!(code(&solo.ask(conn, &unknown)), "not_authorized");
    let without = solo.envelope("cancel", json!({}));
    assert_eq!(code(&solo.ask(conn, &without)), "invalid_envelope");
    let mut cancel = solo.envelope("cancel", json!({}));
    cancel["ref"] = delegate["id"].clone();
    assert_eq!(solo.ask(conn, &cancel)["payload"], json!({"accepted":true}));
    let mut again = solo.envelope("cancel", json!({}));
    again["ref"] = delegate["id"].clone();
    let ack = solo.ask(conn, &again);
    assert_eq!(ack["payload"]["accepted"], false);
    assert_eq!(solo.status()["open_requests"], 0);
}

// shows: WF-REF-2, WF-REF-4, CORE-DEL-11
#[test]
fn result_and_progress_are_taken_from_the_delegate_only() {
    let mut solo = Solo::with(1, 2, |settings| settings.peers.push(static_peer(3)));
    let client = solo.client();
    solo.say(client, &json!({"cmd":"subscribe","req_id":"2"}));
    let conn = solo.greeted(V1, None);
    let to = solo.peer;
    let effects = solo
        .say(client, &json!({"cmd":"send","req_id":"3","to":to,"kind":"delegate","payload":{"task":"t"}}));
    let (token, sent) = effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Request { token, bytes, .. } => Some((*token, bytes.clone())),
            _ => None,
        })
        .unwrap();
    let sent: Value = serde_json::from_str(&sent).unwrap();
    let word = |solo: &mut Solo, kind: &str| {
        let mut word = solo.envelope(kind, json!({"status":"completed","outcome":"o","state":"running"}));
        word["ref"] = sent["id"].clone();
        word
    };
    (solo.peer, solo.key) = (PublicKey([3; 32]).agent_id(), PublicKey([3; 32]));
    let other = solo.greeted(V1, None);
    for kind in ["result", "progress"] {
        let foreign = word(&mut solo, kind);
        assert_eq!(solo.one_way(other, &foreign), []);
    }
    (solo.peer, solo.key) = (PublicKey([2; 32]).agent_id(), PublicKey([2; 32]));
    let mut nowhere = word(&mut solo, "result");
    nowhere["ref"] = solo.new_id().into();
    assert_eq!(solo.one_way(conn, &nowhere), []);
    let without = solo.envelope("result", json!({"status":"completed","outcome":"o"}));
    assert_eq!(solo.one_way(conn, &without), []);
    assert_eq!(solo.dropped("not_authorized"), 4);

    let mut ack = solo.envelope("ack", json!({"accepted":true}));
    ack["ref"] = sent["id"].clone();
    solo.feed(Input::Replied { token, outcome: Ok(ack.to_string().into_bytes()) });
    for kind in ["progress", "result"] {
        let right = word(&mut solo, kind);
        assert_eq!(lines(&solo.one_way(conn, &right), client).len(), 1, "{kind}");
    }
    // There is one result.
    let second = word(&mut solo, "result");
    assert_eq!(solo.one_way(conn, &second), []);
    assert_eq!(solo.dropped("not_authorized"), 5);
}

// shows: WF-REF-3, WF-ERR-4, MT-ALL-8
#[test]
fn an_answer_must_fit_its_request() {
    let changes: Vec<(&str, Change)> = vec![
        ("/ref", Box::new(|a| a["ref"] = "ffffffff-ffff-4fff-bfff-ffffffffffff".into())),
        ("no ref", Box::new(|a| drop(a.as_object_mut().unwrap().remove("ref")))),
        ("from", Box::new(|a| a["from"] = json!(PublicKey([9; 32]).agent_id()))),
        ("to", Box::new(|a| a["to"] = json!(PublicKey([9; 32]).agent_id()))),
        ("kind", Box::new(|a| a["kind"] = "pong".into())),
        ("id", Box::new(|a| a["id"] = "x".into())),
        ("payload", Box::new(|a| a["payload"] = json!({}))),
        ("payload/summary", Box::new(|a| a["payload"]["summary"] = json!(7))),
    ];
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    let conn = solo.greeted(V1, None);
    let mut ask = |change: &dyn Fn(&mut Value)| {
        let to = solo.peer;
        let effects = solo.say(
            client,
            &json!({"cmd":"send","req_id":"3","to":to,"kind":"query","payload":{"question":"q"}}),
        );
        let Some(Effect::Request { conn: on, token, bytes }) = effects.first().cloned() else { panic!() };
        assert_eq!(on, conn);
        let sent: Value = serde_json::from_str(&bytes).unwrap();
        let mut answer = solo.envelope("response", json!({"data":null,"summary":"s"}));
        answer["ref"] = sent["id"].clone();
        change(&mut answer);
        let effects = solo.feed(Input::Replied { token, outcome: Ok(answer.to_string().into_bytes()) });
        lines(&effects, client).remove(0)
    };
    for (what, change) in &changes {
        assert_eq!(ask(change)["error"], "peer_unreachable", "{what}");
    }
    assert_eq!(ask(&|_| {})["response"]["payload"]["summary"], "s");
    // One of an unknown kind is passed on.
    assert_eq!(ask(&|a| a["kind"] = "answer2".into())["response"]["kind"], "answer2");
}
