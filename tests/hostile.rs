//! A peer of another make against a real daemon: one that keeps to protocol v1, and one that does not.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::peer::{Fault, Link, Manners, RawPeer, V1, hybrid, secp256r1, x25519};
use crate::support::{Daemon, RawClient, wait_for};

/// `status`, one of the counts of what was dropped.
fn dropped(daemon: &Daemon, reason: &str) -> u64 {
    daemon.client().ok(json!({"cmd":"status"}))["dropped"][reason].as_u64().unwrap()
}

fn wait_dropped(daemon: &Daemon, reason: &str, count: u64) {
    wait_for(&format!("{count} dropped as {reason}"), || (dropped(daemon, reason) == count).then_some(()));
}

fn connected(daemon: &Daemon, peer: &RawPeer) -> bool {
    daemon.client().peer(&peer.id).is_some_and(|row| row["status"] == "connected")
}

/// A daemon that dials nobody for long: its peer is found at an address where nothing answers.
fn quiet(peer: &RawPeer, config: &str) -> Daemon {
    Daemon::start(&format!("{config}{}", quiet_entry(peer)))
}

fn quiet_entry(peer: &RawPeer) -> String {
    let (id, key) = (&peer.id, &peer.pubkey);
    format!("\n[[peers]]\nname = \"raw\"\nagent_id = \"{id}\"\npubkey = \"{key}\"\naddr = \"127.0.0.1:9\"\n")
}

/// Everything that a plain v1 peer and a daemon do with each other, over one connection.
fn exercise(daemon: &Daemon, link: &Link) {
    let mut agent = daemon.answerer(json!({"answer":["query","delegate","cancel"]}));
    let mut client = daemon.client();
    client.subscribe(json!({"kinds":["notify","result","progress"],"replay":false}));
    client.ok(json!({"cmd":"advertise","capabilities":{"domains":["family"]}}));

    // The peer asks.
    let query = link.envelope("query", json!({"question":"why?","domain":"family","unknown":[1]}));
    let mut open = link.open().unwrap();
    open.write(query.to_string().as_bytes()).unwrap();
    open.finish();
    let request = agent.request();
    assert_eq!(request, query);
    agent.respond(&request, "because");
    let answer: Value = serde_json::from_slice(&open.read().unwrap()).unwrap();
    assert_eq!((&answer["kind"], &answer["ref"]), (&json!("response"), &query["id"]));
    assert_eq!(answer["payload"], json!({"data":null,"summary":"because"}));
    assert_eq!((&answer["from"], &answer["to"]), (&json!(link.daemon), &json!(link.me)));

    let pong = link.ask(&link.envelope("ping", json!({}))).unwrap();
    assert_eq!((&pong["kind"], &pong["payload"]["status"]), (&json!("pong"), &json!("idle")));
    let capabilities = link.ask(&link.envelope("discover", json!({}))).unwrap();
    assert_eq!(capabilities["kind"], "capabilities");
    assert_eq!(capabilities["payload"]["domains"], json!(["family"]));
    let notify = link.envelope("notify", json!({"topic":"door","data":"open"}));
    link.tell(&notify);
    assert_eq!(client.event()["envelope"], notify);

    // It delegates; the result comes on a stream of its own.
    let delegate = link.envelope("delegate", json!({"task":"t","report_back":true}));
    let mut open = link.open().unwrap();
    open.write(delegate.to_string().as_bytes()).unwrap();
    open.finish();
    let work = agent.request();
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true}))["ok"], true);
    let ack: Value = serde_json::from_slice(&open.read().unwrap()).unwrap();
    assert_eq!((&ack["kind"], &ack["payload"]), (&json!("ack"), &json!({"accepted":true})));
    // There is no progress for a peer that does not know it.
    let refused = agent.reply(&work, "progress", json!({"state":"running","percent":5}));
    assert_eq!(refused["error"], "not_offered");
    let said = agent.reply(&work, "result", json!({"status":"completed","outcome":"o"}));
    assert_eq!((&said["ok"], &said["state"]), (&json!(true), &json!("sent")), "it gives no receipts: {said}");
    let result = link.one_way();
    assert_eq!((&result["kind"], &result["ref"]), (&json!("result"), &delegate["id"]));
    assert_eq!((&result["id"], &result["payload"]["outcome"]), (&said["msg_id"], &json!("o")));
    let row = agent.ok(json!({"cmd":"outbox","id":said["msg_id"]}))["outbox"][0].clone();
    assert_eq!((&row["state"], &row["attempts"]), (&json!("sent"), &json!(1)), "{row}");

    // It cancels.
    let delegate = link.envelope("delegate", json!({"task":"t"}));
    let mut open = link.open().unwrap();
    open.write(delegate.to_string().as_bytes()).unwrap();
    open.finish();
    let work = agent.request();
    agent.reply(&work, "ack", json!({"accepted":true}));
    open.read().unwrap();
    let mut cancel = link.envelope("cancel", json!({"reason":"no need"}));
    cancel["ref"] = delegate["id"].clone();
    let mut open = link.open().unwrap();
    open.write(cancel.to_string().as_bytes()).unwrap();
    open.finish();
    let asked = agent.request();
    assert_eq!(asked["ref"], delegate["id"]);
    agent.reply(&asked, "ack", json!({"accepted":true}));
    let ack: Value = serde_json::from_slice(&open.read().unwrap()).unwrap();
    assert_eq!(ack["payload"]["accepted"], true);

    // The daemon asks.
    let begin = |client: &mut RawClient, kind: &str, payload: Value| {
        client.begin(json!({"cmd":"send","to":"raw","kind":kind,"payload":payload}))
    };
    for (kind, payload, reply, said) in [
        ("query", json!({"question":"and you?"}), "response", json!({"data":{"a":1},"summary":"so"})),
        ("ping", json!({}), "pong", json!({"status":"idle","uptime_secs":1,"active_tasks":0})),
        ("discover", json!({}), "capabilities", json!({"tools":["x"]})),
        (
            "query",
            json!({"question":"x"}),
            "error",
            json!({"code":"overloaded","message":"m","retryable":true}),
        ),
    ] {
        let req_id = begin(&mut client, kind, payload.clone());
        let request = link.request();
        assert_eq!(request.envelope["kind"], kind);
        assert_eq!(request.envelope["payload"], payload);
        link.answer(request, reply, said.clone());
        let answered = client.finish(&req_id);
        assert_eq!((&answered["response"]["kind"], &answered["response"]["payload"]), (&json!(reply), &said));
    }
    let req_id = begin(&mut client, "notify", json!({"topic":"t","data":[1]}));
    assert_eq!(link.one_way()["payload"]["topic"], "t");
    assert_eq!(client.finish(&req_id)["state"], "sent");

    let req_id = begin(&mut client, "delegate", json!({"task":"yours"}));
    let request = link.request();
    let delegation = request.envelope["id"].clone();
    link.answer(request, "ack", json!({"accepted":true,"estimated_ms":10}));
    assert_eq!(client.finish(&req_id)["response"]["payload"]["estimated_ms"], 10);
    let req_id = client.begin(json!({"cmd":"send","kind":"cancel","ref":delegation,"payload":{}}));
    let request = link.request();
    assert_eq!(request.envelope["ref"], delegation);
    link.answer(request, "ack", json!({"accepted":false}));
    assert_eq!(client.finish(&req_id)["response"]["payload"]["accepted"], false);
    let mut result = link.envelope("result", json!({"status":"completed","outcome":"done"}));
    result["ref"] = delegation;
    link.tell(&result);
    assert_eq!(client.event()["envelope"], result);
    assert!(link.is_open());
}

// shows: WF-FEA-1, WF-ENV-3, WF-ENV-6, WF-CON-1, WF-STR-9, CORE-DEL-10, IPC-OUT-6, IPC-REP-7, IPC-SEND-6
#[test]
fn a_plain_v1_peer_works_in_both_directions_whoever_dialled() {
    let peer = RawPeer::new();
    let daemon = quiet(&peer, "name = \"d\"\n");
    let link = peer.dial(&daemon);
    let hello = link.greet().unwrap();
    assert_eq!(hello["payload"]["selected_version"], 1);
    assert_eq!(hello["payload"]["agent_name"], "d");
    let features = hello["payload"]["features"].as_array().unwrap();
    assert!(V1.iter().all(|feature| features.contains(&json!(feature))));
    exercise(&daemon, &link);

    let peer = RawPeer::new();
    let daemon = Daemon::start(&quiet_entry(&peer).replace(":9\"", &format!(":{}\"", peer.port)));
    let link = peer.accept(&daemon).unwrap();
    let hello = link.answer_hello();
    assert_eq!((&hello["v"], &hello["to"]), (&json!(1), &json!(peer.id)));
    assert!(hello["payload"]["protocol_versions"].as_array().unwrap().contains(&json!(1)));
    wait_for("the session", || connected(&daemon, &peer).then_some(()));
    exercise(&daemon, &link);
}

// --- handshakes ---

/// The handshake fails, or seems to succeed and the first stream shows that it has not.
fn refused(peer: &RawPeer, daemon: &Daemon, manners: &Manners) -> String {
    let fault = match peer.dial_as(daemon, manners) {
        Err(fault) => fault,
        Ok(link) => link.greet().expect_err("the daemon answered"),
    };
    let Fault::Refused(why) = fault else { panic!("no refusal of the handshake: {fault:?}") };
    why
}

// shows: WF-TLS-1, WF-TLS-2, WF-TLS-3, WF-PIN-2, WF-PIN-3, WF-PIN-4
#[test]
fn handshakes_that_do_not_fit_are_refused_in_the_handshake() {
    let (peer, stranger) = (RawPeer::new(), RawPeer::new());
    let daemon = quiet(&peer, "");
    let polite = Manners::default();
    refused(&stranger, &daemon, &polite);
    for name in [&stranger.id, &peer.id, "localhost", "ed25519.example"] {
        refused(&peer, &daemon, &Manners { name: Some(name.to_owned()), ..polite.clone() });
    }
    for alpn in [&b"axon/2"[..], b"h3", b"axon"] {
        refused(&peer, &daemon, &Manners { alpn, ..polite.clone() });
    }
    refused(&peer, &daemon, &Manners { groups: vec![secp256r1()], ..polite.clone() });
    refused(&peer, &daemon, &Manners { shows_certificate: false, ..polite.clone() });
    assert!(!connected(&daemon, &peer));

    // The right key, by either group, and by another one only as a second choice.
    for groups in [vec![x25519()], vec![hybrid()], vec![hybrid(), x25519()], vec![secp256r1(), x25519()]] {
        let link = peer.dial_as(&daemon, &Manners { groups, ..polite.clone() }).unwrap();
        assert_eq!(link.greet().unwrap()["kind"], "hello");
        link.close();
    }
    let upper = Manners { name: Some(daemon.id().to_uppercase()), ..polite };
    assert_eq!(peer.dial_as(&daemon, &upper).unwrap().greet().unwrap()["kind"], "hello");
}

// shows: WF-PIN-1, WF-PIN-3
#[test]
fn the_daemon_does_not_talk_to_another_key_than_the_one_it_dials() {
    let (peer, other) = (RawPeer::new(), RawPeer::new());
    // The address of one under the name of the other.
    let entry = quiet_entry(&peer).replace(":9\"", &format!(":{}\"", other.port));
    let daemon = Daemon::start(&entry);
    let fault = other.accept(&daemon).map(|link| link.closed());
    assert!(matches!(fault, Ok(Fault::Refused(_)) | Err(Fault::Refused(_))), "{fault:?}");
    let mut client = daemon.client();
    let row = wait_for("the failure", || client.peer(&peer.id).filter(|row| row["error"].is_string()));
    assert!(row["error"].as_str().unwrap().contains("another key"), "{row}");
}

#[test]
fn a_peer_that_has_moved_is_shown_where_it_is_now() {
    let peer = RawPeer::new();
    let daemon = quiet(&peer, "");
    let link = peer.dial(&daemon).greeted();
    let row = || daemon.client().peer(&peer.id).unwrap();
    let before = row();
    assert_eq!(before["addr"], format!("127.0.0.1:{}", peer.port), "{before}");
    let port = peer.moves();
    assert_eq!(link.ask(&link.envelope("ping", json!({}))).unwrap()["kind"], "pong");
    let after = row();
    assert_eq!(after["addr"], format!("127.0.0.1:{port}"), "{after}");
    assert_eq!(after["since_ms"], before["since_ms"], "it is the same connection");
}

// shows: WF-PIN-5, WF-PIN-6, WF-0RTT-1
#[test]
fn a_session_is_not_resumed_once_the_peer_is_taken_out() {
    let peer = RawPeer::new();
    let daemon = quiet(&peer, "");
    let link = peer.dial(&daemon).greeted();
    daemon.set_config("");
    daemon.reload();
    let Fault::Closed(code, _) = link.closed() else { panic!() };
    assert_eq!(code, 0);
    // With the ticket of that connection.
    let (link, taken, answers) = peer.dial_early(&daemon, &[link.hello()]);
    let answered = answers.iter().flatten().next();
    assert!(answered.is_none(), "taken: {taken}, {answered:?}");
    match link.closed() {
        Fault::Closed(4, _) | Fault::Refused(_) => {}
        other => panic!("{other:?}"),
    }
    // Put back, it is in again.
    daemon.set_config(&quiet_entry(&peer));
    daemon.reload();
    peer.dial(&daemon).greeted();
}

// shows: WF-0RTT-1, WF-0RTT-2, WF-0RTT-3
#[test]
fn early_data_carries_hello_and_nothing_else() {
    let peer = RawPeer::new();
    let daemon = quiet(&peer, "");
    let mut agent = daemon.answerer(json!({"answer":["query","delegate"],"kinds":["notify"]}));
    let first = peer.dial(&daemon).greeted();
    first.ask(&first.envelope("ping", json!({}))).unwrap();
    first.close();

    let (link, taken, answers) = peer.dial_early(&daemon, &[first.hello()]);
    assert!(taken, "the session is resumed");
    let hello: Value = serde_json::from_slice(answers[0].as_ref().unwrap()).unwrap();
    assert_eq!(hello["kind"], "hello");
    // It is the connection's hello.
    assert_eq!(link.ask(&link.envelope("ping", json!({}))).unwrap()["kind"], "pong");
    link.close();

    // A request instead of hello has no effect.
    let query = link.envelope("query", json!({"question":"q"}));
    let (link, taken, answers) = peer.dial_early(&daemon, std::slice::from_ref(&query));
    assert!(taken);
    if let Ok(answer) = &answers[0] {
        let answer: Value = serde_json::from_slice(answer).unwrap();
        assert_eq!(answer["payload"]["code"], "not_authorized", "{answer}");
    }
    link.greet().unwrap();
    link.ask(&link.envelope("ping", json!({}))).unwrap();
    agent.silent();
    link.close();

    // One behind hello is taken once the handshake is confirmed and hello done, like any other.
    let query = link.envelope("query", json!({"question":"q"}));
    let answering = std::thread::spawn(move || agent.answer_one("late"));
    let (link, _, answers) = peer.dial_early(&daemon, &[link.hello(), query]);
    let answer: Value = serde_json::from_slice(answers[1].as_ref().unwrap()).unwrap();
    assert_eq!(answer["payload"]["summary"], "late", "{answer}");
    answering.join().unwrap();
    assert_eq!(link.ask(&link.envelope("ping", json!({}))).unwrap()["kind"], "pong");
}

// shows: WF-LIM-3
#[test]
fn many_half_open_handshakes_do_not_shut_out_a_pinned_peer() {
    let (peer, stranger) = (RawPeer::new(), RawPeer::new());
    let daemon = quiet(&peer, "handshake_timeout_secs = 2\n");
    let half_open = stranger.half_open(&daemon, 200);
    wait_for("the first packets", || (half_open.packets() >= 200).then_some(()));
    for _ in 0..5 {
        let begun = Instant::now();
        let link = peer.dial(&daemon).greeted();
        assert_eq!(link.ask(&link.envelope("ping", json!({}))).unwrap()["kind"], "pong");
        // Shut out would be until the half-open ones are given up, and then in turn.
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        link.close();
    }
    // 64 of them were begun here; the others were sent a Retry, which costs nothing, and never came back.
    let given_up = || daemon.log().matches("a handshake did not end in time").count();
    wait_for("the half-open ones to be given up", || (given_up() >= 64).then_some(()));
    assert!(given_up() < 90, "{}", given_up());
}

// --- hello ---

// shows: WF-HEL-1, WF-HEL-2, WF-HEL-4, WF-HEL-6, WF-LIM-4
#[test]
fn nothing_is_taken_before_hello_and_a_false_hello_ends_the_connection() {
    let peer = RawPeer::new();
    let daemon = quiet(&peer, "handshake_timeout_secs = 1\n");
    let mut agent = daemon.answerer(json!({"answer":["query","delegate"],"kinds":["notify"]}));
    let link = peer.dial(&daemon);
    for kind in ["query", "delegate", "ping", "discover"] {
        let envelope = link.envelope(kind, json!({"question":"q","task":"t"}));
        assert_eq!(link.refusal(&envelope), "not_authorized");
    }
    link.tell(&link.envelope("notify", json!({"topic":"t","data":1})));
    wait_dropped(&daemon, "before_hello", 5);
    agent.silent();
    assert!(!connected(&daemon, &peer));
    // It does not stay for ever.
    let Fault::Closed(code, _) = link.closed() else { panic!() };
    assert_eq!(code, 4);

    let stranger = RawPeer::new();
    let false_hellos: [(&str, Value, &str); 5] = [
        ("/from", json!(stranger.id), "not_authorized"),
        ("/to", json!(stranger.id), "peer_not_found"),
        ("/v", json!(2), "incompatible_version"),
        ("/payload/protocol_versions", json!([2]), "incompatible_version"),
        ("/payload/protocol_versions", json!(1), "invalid_envelope"),
    ];
    for (field, value, code) in false_hellos {
        let link = peer.dial(&daemon);
        let mut hello = link.hello();
        *hello.pointer_mut(field).unwrap() = value;
        // The error arrives, and then the end.
        assert_eq!(link.refusal(&hello), code, "{field}");
        let Fault::Closed(closed, _) = link.closed() else { panic!() };
        assert_eq!(closed, 4, "{field}");
    }
    peer.dial(&daemon).greeted();
}
