//! What becomes of a message's content: it reaches the agent as it came, what is wrong with it is told and
//! nothing else is, and an error is never answered by another. One node, and a peer whose every message the
//! test writes itself.

use axon_proto::contacts::Contact;
use axon_proto::id::PublicKey;
use axon_proto::limits::{STALE_MS, SWEEP_INTERVAL_MS};
use axon_proto::node::{ClientId, ConnId, Effect, Input, Token};
use axon_proto::trust::Level;
use serde_json::{Value, json};

use crate::net::{Solo, answer_on, lines};

const ALL: &[&str] =
    &["delegate", "ack", "progress", "result", "cancel", "discover", "capabilities", "receipt"];

/// Of a peer that gives no receipts.
const PLAIN: &[&str] = &["delegate", "ack", "result", "cancel"];

fn code(answer: &Value) -> &str {
    assert_eq!(answer["kind"], "error", "{answer}");
    answer["payload"]["code"].as_str().unwrap()
}

/// The lines for a client as they are written.
fn texts(effects: &[Effect], to: ClientId) -> Vec<String> {
    let to_it = |effect: &Effect| match effect {
        Effect::Line { client, line, .. } | Effect::Event { client, line, .. } if *client == to => {
            Some(line.to_string())
        }
        _ => None,
    };
    effects.iter().filter_map(to_it).collect()
}

/// Whether anything goes to the peer.
fn speaks(effects: &[Effect]) -> bool {
    effects
        .iter()
        .any(|e| matches!(e, Effect::Request { .. } | Effect::OneWay { .. } | Effect::Respond { .. }))
}

/// The last request that went out.
fn sent(effects: &[Effect]) -> (Token, Value) {
    let request = |effect: &Effect| match effect {
        Effect::Request { token, bytes, .. } => Some((*token, serde_json::from_str(bytes).unwrap())),
        _ => None,
    };
    effects.iter().rev().find_map(request).unwrap_or_else(|| panic!("nothing was sent: {effects:?}"))
}

fn rows(solo: &mut Solo, cmd: &str, field: &str) -> Vec<Value> {
    solo.owned(json!({"cmd":cmd}))[field].as_array().unwrap().clone()
}

/// One that answers all, and is shown all.
fn reader(solo: &mut Solo) -> ClientId {
    let client = solo.client();
    solo.say(
        client,
        &json!({"cmd":"subscribe","req_id":"s","answer":["query","delegate"],"kinds":["notify","result",
            "progress","error","future"]}),
    );
    client
}

/// Content that a reader could be tempted to tidy up: numbers, escapes, order, names that nobody knows.
const ODD: &str =
    r#""z":{"n":1.50,"big":123456789012345678901234567890,"e":1E2,"u":"\u00e9\/\ud83e\udd80"},"a":[null,{}]"#;

/// An envelope with this text as its payload, and more fields than there are.
fn raw(solo: &mut Solo, kind: &str, reference: &str, payload: &str) -> String {
    let (id, from, to) = (solo.new_id(), solo.peer, solo.me);
    format!(
        r#"{{"later":[1.0],"kind":"{kind}","v":1,"id":"{id}","from":"{from}","to":"{to}","ref":{reference},"ts":5,"payload":{payload}}}"#
    )
}

// shows: MT-ALL-3, MT-ALL-4, MT-ALL-10, WF-ENV-5, WF-ENV-2, CORE-QUERY-5
#[test]
fn a_message_reaches_the_agent_as_it_came() {
    let mut solo = Solo::new(1, 2);
    let conn = solo.greeted(ALL, None);
    let client = reader(&mut solo);
    for (kind, known) in [
        ("query", r#""question":"q","max_tokens":1,"domain":"d""#),
        ("delegate", r#""task":"t","priority":"of a later version""#),
        ("notify", r#""topic":"t","data":1,"importance":"of a later version""#),
        ("error", r#""code":"of_a_later_version","message":"m","retryable":false"#),
    ] {
        let payload = format!("{{{ODD},{known}}}");
        let envelope = raw(&mut solo, kind, "null", &payload);
        let stream = axon_proto::node::StreamId(solo.fresh());
        let bytes = envelope.clone().into_bytes();
        let effects = solo.feed(Input::Request { conn, stream, bytes });
        let told = texts(&effects, client);
        assert!(told.iter().any(|line| line.contains(&payload)), "{kind}: {told:?}");
        let told: Vec<Value> = lines(&effects, client);
        assert_eq!(told.last().unwrap()["envelope"], serde_json::from_str::<Value>(&envelope).unwrap());
    }
    let inbox = rows(&mut solo, "inbox", "messages");
    assert!(inbox.iter().any(|row| row["envelope"]["payload"]["importance"] == "of a later version"));

    // What an answer says too; and it counts as the page says that an unknown value does.
    let to = solo.peer;
    let asked = solo.say(
        client,
        &json!({"cmd":"send","req_id":"d","to":to,"kind":"delegate","payload":{"task":"t","odd":[1]}}),
    );
    let (token, work) = sent(&asked);
    assert_eq!(work["payload"], json!({"task":"t","odd":[1]}));
    let mut ack = solo.envelope("ack", json!({"accepted":true,"state":"of a later version","more":{}}));
    ack["ref"] = work["id"].clone();
    let told = solo.feed(Input::Replied { token, outcome: Ok(ack.to_string().into_bytes()) });
    assert_eq!(lines(&told, client)[0]["response"], ack);
    let state = |solo: &mut Solo| rows(solo, "delegations", "delegations")[0]["state"].clone();
    assert_eq!(state(&mut solo), "accepted", "as if it were absent");
    let mut result = solo.envelope("result", json!({"status":"of a later version","outcome":"o"}));
    result["ref"] = work["id"].clone();
    let (stream, told) = solo.request(conn, &result);
    assert_eq!(answer_on(&told, stream).unwrap()["kind"], "ack");
    assert_eq!(lines(&told, client)[0]["envelope"], result);
    assert_eq!(state(&mut solo), "completed");
}

// shows: IPC-LINE-1
#[test]
fn line_breaks_of_a_peer_are_none_on_the_socket() {
    let mut solo = Solo::new(1, 2);
    let conn = solo.greeted(ALL, None);
    let client = reader(&mut solo);
    let notify = solo.envelope("notify", json!({"topic":"two\nlines","data":["\r\n"]}));
    let bytes = serde_json::to_vec_pretty(&notify).unwrap();
    assert!(bytes.contains(&b'\n'));
    let effects = solo.feed(Input::OneWay { conn, bytes });
    let told = texts(&effects, client);
    assert_eq!(told.len(), 1);
    assert!(told.iter().all(|line| !line.contains(['\n', '\r'])), "{told:?}");
    assert_eq!(lines(&effects, client)[0]["envelope"], notify);
}

// shows: MT-ALL-1, MT-ALL-2
#[test]
fn a_payload_that_lacks_a_field_is_refused_by_its_name_or_dropped() {
    let mut solo = Solo::new(1, 2);
    let client = reader(&mut solo);
    let conn = solo.greeted(ALL, None);
    for (kind, payload, field) in [
        ("query", json!({"domain":"d"}), "question"),
        ("query", json!({"question":7}), "question"),
        ("delegate", json!({}), "task"),
        ("delegate", json!({"task":"t","deadline_ms":"soon"}), "deadline_ms"),
        ("notify", json!({"data":1}), "topic"),
        ("notify", json!({"topic":7,"data":1}), "topic"),
        ("error", json!({"code":"c","retryable":true}), "message"),
    ] {
        let envelope = solo.envelope(kind, payload.clone());
        let (stream, effects) = solo.request(conn, &envelope);
        let answer = answer_on(&effects, stream).unwrap();
        assert_eq!(code(&answer), "invalid_envelope", "{kind} {payload}");
        let message = answer["payload"]["message"].as_str().unwrap();
        assert!(message.contains(field), "{kind} {payload}: {message}");
        assert!(lines(&effects, client).is_empty());
    }
    let before = solo.dropped("malformed");
    for (n, payload) in (1..).zip([json!({"data":1}), json!({"topic":7,"data":1}), json!([]), json!(7)]) {
        let envelope = solo.envelope("notify", payload);
        assert_eq!(solo.one_way(conn, &envelope), []);
        assert_eq!(solo.dropped("malformed"), before + n);
    }
    assert_eq!(rows(&mut solo, "inbox", "messages"), Vec::<Value>::new());
}

// shows: MT-ALL-6
#[test]
fn an_unknown_kind_that_asks_nothing_is_kept_unopened() {
    let mut solo = Solo::new(1, 2);
    let client = reader(&mut solo);
    let conn = solo.greeted(&["delegate"], None);
    let future = solo.envelope("future", json!({"any":["thing"],"topic":7}));
    assert_eq!(lines(&solo.one_way(conn, &future), client)[0]["envelope"], future);
    solo.restart();
    let kept = rows(&mut solo, "inbox", "messages");
    assert_eq!((kept.len(), &kept[0]["envelope"]), (1, &future));
}

// shows: CORE-ERR-1, WF-ERR-8, WF-ERR-7
#[test]
fn an_error_that_nobody_asked_for_is_shown_and_changes_nothing_and_none_is_answered_by_one() {
    let mut solo = Solo::new(1, 2);
    let client = reader(&mut solo);
    let conn = solo.greeted(ALL, None);
    let to = solo.peer;
    let send = |kind: &str, payload: Value| json!({"cmd":"send","req_id":kind,"to":to,"kind":kind,"payload":payload});
    let (_, query) = sent(&solo.say(client, &send("query", json!({"question":"q"}))));
    let (token, work) = sent(&solo.say(client, &send("delegate", json!({"task":"t"}))));
    let mut ack = solo.envelope("ack", json!({"accepted":true}));
    ack["ref"] = work["id"].clone();
    solo.feed(Input::Replied { token, outcome: Ok(ack.to_string().into_bytes()) });
    let theirs = solo.envelope("query", json!({"question":"q"}));
    solo.request(conn, &theirs);
    let state = |solo: &mut Solo| {
        let status = solo.status();
        let told = |field: &str| status[field].clone();
        (rows(solo, "delegations", "delegations"), rows(solo, "outbox", "outbox"), told("open_requests"))
    };
    let before = state(&mut solo);
    let payload = json!({"code":"of_a_later_version","message":"m","retryable":true,"retry_after_ms":9});
    for about in [&query["id"], &work["id"], &theirs["id"], &json!(null)] {
        let mut error = solo.envelope("error", payload.clone());
        error["ref"] = about.clone();
        let effects = solo.one_way(conn, &error);
        assert_eq!(lines(&effects, client)[0]["envelope"], error, "{about}");
        assert!(!speaks(&effects), "{effects:?}");
        assert_eq!(state(&mut solo), before, "{about}");
    }
    let kept = rows(&mut solo, "inbox", "messages");
    assert_eq!(kept.iter().filter(|row| row["envelope"]["kind"] == "error").count(), 4);
    // The request that it named is still answered.
    let mut malformed = solo.envelope("error", json!({"code":7}));
    assert!(!speaks(&solo.one_way(conn, &malformed)));
    malformed["from"] = json!(PublicKey([9; 32]).agent_id());
    assert!(!speaks(&solo.one_way(conn, &malformed)));
    // One that came as an answer is wrong: the request fails, and nothing is said of it.
    let (token, asked) = sent(&solo.say(client, &send("query", json!({"question":"again"}))));
    let mut answer = solo.envelope("error", json!({"code":7}));
    answer["ref"] = asked["id"].clone();
    let effects = solo.feed(Input::Replied { token, outcome: Ok(answer.to_string().into_bytes()) });
    assert_eq!(lines(&effects, client)[0]["error"], "peer_unreachable");
    assert!(!speaks(&effects), "{effects:?}");
    assert_eq!(solo.dropped("malformed"), 2, "the answer, and the one that came one-way");
    // One that asks for a receipt gets one, or an error.
    let good = solo.envelope("error", payload);
    assert_eq!(solo.ask(conn, &good)["kind"], "ack");
    let bad = solo.envelope("error", json!({"code":7}));
    assert_eq!(code(&solo.ask(conn, &bad)), "invalid_envelope");
}

// shows: WF-ERR-6
#[test]
fn what_a_peer_is_told_tells_nothing_of_files_clients_or_others() {
    let contact = |n: u8, name: &str| Contact {
        agent_id: PublicKey([n; 32]).agent_id(),
        pubkey: Some(PublicKey([n; 32])),
        addrs: vec!["192.0.2.77:7100".into()],
        level: Level::Known,
        name: Some(name.into()),
        since_ms: 5,
        why: Some("a-private-reason".into()),
        expiry_ms: None,
        paused: false,
    };
    let mut solo = Solo::with(1, 2, |settings| settings.peers.clear());
    solo.contacts.contacts = vec![contact(2, "the-name-here"), contact(3, "somebody-else")];
    solo.restart();
    let other = PublicKey([3; 32]).agent_id().to_string();
    let client = ClientId(solo.fresh());
    solo.feed(Input::ClientUp { client, trusted: true, socket: None });
    solo.say(client, &json!({"cmd":"hello","req_id":"h","version":2,"consumer":"a-private-consumer"}));
    let mut told: Vec<(&str, Value)> = Vec::new();
    let conn = solo.accept();
    let query = |solo: &mut Solo| solo.envelope("query", json!({"question":"q","domain":"d"}));
    let early = query(&mut solo);
    told.push(("before hello", solo.ask(conn, &early)));
    let conn = solo.greeted(ALL, None);
    let asked = query(&mut solo);
    told.push(("unhandled", solo.ask(conn, &asked)));
    let subscribe =
        json!({"cmd":"subscribe","req_id":"s","answer":["query"],"domains":["family"],"capacity":1});
    solo.say(client, &subscribe);
    let asked = query(&mut solo);
    told.push(("unknown_domain", solo.ask(conn, &asked)));
    for (field, value) in [
        ("to", json!(other)),
        ("from", json!(other)),
        ("v", json!(7)),
        ("kind", json!("future")),
        ("kind", json!("pong")),
        ("ts", json!(-1)),
        ("payload", json!({})),
    ] {
        let mut wrong = query(&mut solo);
        wrong[field] = value;
        told.push((field, solo.ask(conn, &wrong)));
    }
    // Somebody else's delegation.
    solo.play(3);
    let theirs = solo.greeted(ALL, None);
    let work = solo.envelope("delegate", json!({"task":"a-private-task"}));
    solo.ask(theirs, &work);
    solo.play(2);
    let mut cancel = solo.envelope("cancel", json!({}));
    cancel["ref"] = work["id"].clone();
    told.push(("not its own", solo.ask(conn, &cancel)));
    let mut late = solo.envelope("query", json!({"question":"q","domain":"family","deadline_ms":100}));
    let (stream, _) = solo.request(conn, &late);
    let effects = solo.wait(200);
    told.push(("timeout", answer_on(&effects, stream).unwrap()));
    late["id"] = solo.new_id().into();
    let held = solo.envelope("query", json!({"question":"q","domain":"family"}));
    solo.request(conn, &held);
    let (stream, _) = solo.request(conn, &late);
    let effects = solo.wait(200);
    told.push(("overloaded", answer_on(&effects, stream).unwrap()));
    solo.disk_full = true;
    let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
    told.push(("the disk is full", solo.ask(conn, &notify)));
    solo.disk_full = false;
    solo.set(|settings| settings.policies.known.kinds = Some(vec!["ping".into()]));
    let asked = query(&mut solo);
    told.push(("policy", solo.ask(conn, &asked)));
    solo.owned(json!({"cmd":"pause"}));
    solo.set(|settings| settings.policies.known.kinds = None);
    let asked = query(&mut solo);
    told.push(("paused", solo.ask(conn, &asked)));

    let private = [
        "a-private",
        "somebody-else",
        "the-name-here",
        "192.0.2",
        "no space",
        ".toml",
        "/",
        &other,
        work["id"].as_str().unwrap(),
    ];
    let mut codes: Vec<String> = Vec::new();
    for (what, answer) in &told {
        codes.push(code(answer).to_owned());
        let message = answer["payload"]["message"].as_str().unwrap();
        assert!(!message.is_empty() && !message.contains('\n'), "{what}: {message}");
        for word in private {
            let text = answer["payload"].to_string();
            assert!(!text.contains(word), "{what} tells {word}: {text}");
        }
    }
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), 9, "{codes:?}");
}

// shows: TRUST-POL-8
#[test]
fn what_is_wrong_in_itself_is_told_so_whatever_the_rates_are_and_takes_of_them() {
    let start = || {
        let mut solo = Solo::with(1, 2, |settings| settings.peers.clear());
        solo.feed(Input::Start);
        solo.found(2);
        let conn = solo.greeted(ALL, None);
        (solo, conn)
    };
    let wrong = |solo: &mut Solo, conn: ConnId| {
        for (kind, payload, expected) in [
            ("query", json!({}), "invalid_envelope"),
            ("future", json!({}), "unknown_kind"),
            ("pong", json!({}), "invalid_envelope"),
        ] {
            let envelope = solo.envelope(kind, payload);
            assert_eq!(code(&solo.ask(conn, &envelope)), expected, "{kind}");
        }
    };
    let right = |solo: &mut Solo, conn: ConnId| {
        let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
        let answer = solo.ask(conn, &notify);
        if answer["kind"] == "ack" { "ack".to_owned() } else { code(&answer).to_owned() }
    };
    // 30 a minute: 27 that are wrong leave three.
    let (mut solo, conn) = start();
    (0..9).for_each(|_| wrong(&mut solo, conn));
    let told: Vec<String> = (0..4).map(|_| right(&mut solo, conn)).collect();
    assert_eq!(told, ["ack", "ack", "ack", "overloaded"]);
    // Any number is told what is wrong, and the bucket does not go below nothing.
    let (mut solo, conn) = start();
    (0..40).for_each(|_| wrong(&mut solo, conn));
    assert_eq!(right(&mut solo, conn), "overloaded");
    solo.wait(2_000);
    assert_eq!(right(&mut solo, conn), "ack");
}

// shows: WF-PEER-6
#[test]
fn a_found_peer_without_news_is_forgotten_unless_it_is_connected() {
    let mut solo = Solo::with(1, 2, |settings| settings.peers.clear());
    solo.feed(Input::Start);
    solo.found(2);
    solo.found(3);
    solo.greeted(ALL, None);
    let known = |solo: &mut Solo, n: u8| {
        let id = PublicKey([n; 32]).agent_id();
        let (reply, _) = solo.owner(json!({"cmd":"trust","peer":id,"trust":"unknown"}));
        let known = reply["ok"] == true;
        if known {
            solo.owned(json!({"cmd":"forget","peer":id}));
        }
        known
    };
    solo.wait(STALE_MS - 2);
    solo.found(4);
    solo.wait(SWEEP_INTERVAL_MS + 2);
    assert!(!known(&mut solo, 3), "60 s and a look every 5 s are over");
    assert!(known(&mut solo, 4) && known(&mut solo, 2));
}

// shows: WF-REP-5
#[test]
fn a_repeated_delegation_that_was_refused_is_not_told_as_accepted() {
    let reply = |id: &Value, kind: &str, payload: Value| json!({"cmd":"reply","req_id":"9","ref":id,"kind":kind,"payload":payload});
    // Declined by the agent, with a reason and without.
    let mut solo = Solo::new(1, 2);
    let agent = solo.agent();
    let conn = solo.greeted(PLAIN, None);
    let mut told = Vec::new();
    for no in [json!({"accepted":false,"reason":"no time"}), json!({"accepted":false})] {
        let delegate = solo.envelope("delegate", json!({"task":"t"}));
        solo.request(conn, &delegate);
        solo.say(agent, &reply(&delegate["id"], "ack", no.clone()));
        let again = solo.ask(conn, &delegate);
        assert_eq!((&again["kind"], &again["payload"]), (&json!("ack"), &no), "{again}");
        told.push((delegate, again));
    }

    // Answered by an error.
    let delegate = solo.envelope("delegate", json!({"task":"t"}));
    solo.request(conn, &delegate);
    let error = json!({"code":"internal","message":"m","retryable":true});
    solo.say(agent, &reply(&delegate["id"], "error", error));
    let again = solo.ask(conn, &delegate);
    assert_eq!(code(&again), "cancelled");
    told.push((delegate, again));

    // Past its time: for an answer, and for the work.
    let delegate = solo.envelope("delegate", json!({"task":"t","deadline_ms":100}));
    let (stream, _) = solo.request(conn, &delegate);
    let effects = solo.wait(200);
    assert_eq!(code(&answer_on(&effects, stream).unwrap()), "timeout");
    let again = solo.ask(conn, &delegate);
    assert_eq!(code(&again), "timeout");
    told.push((delegate, again));
    let delegate = solo.envelope("delegate", json!({"task":"t","deadline_ms":100}));
    solo.request(conn, &delegate);
    solo.say(agent, &reply(&delegate["id"], "ack", json!({"accepted":true})));
    solo.wait(200);
    let again = solo.ask(conn, &delegate);
    assert_eq!(code(&again), "timeout");
    told.push((delegate, again));

    // Failed in the end: it was accepted all the same.
    let delegate = solo.envelope("delegate", json!({"task":"t"}));
    solo.request(conn, &delegate);
    let failed = json!({"status":"failed","outcome":"o"});
    solo.say(agent, &reply(&delegate["id"], "result", failed));
    let again = solo.ask(conn, &delegate);
    assert_eq!(again["payload"], json!({"accepted":true}));
    told.push((delegate, again));

    // A start in between changes nothing of it.
    solo.restart();
    let conn = solo.greeted(PLAIN, None);
    for (delegate, before) in told {
        let again = solo.ask(conn, &delegate);
        assert_eq!((&again["kind"], &again["payload"]), (&before["kind"], &before["payload"]), "{delegate}");
    }
}
