//! The socket: lines, versions, hello, every command's shape and refusals.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Daemon, RawClient, free_port, introduce, mode, pair, pair_with, wait_for};

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn has(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "no {field}: {value}");
    }
}

/// Writes this line and reads the next one.
fn say(client: &mut RawClient, line: &str) -> Value {
    client.raw(line.as_bytes());
    client.raw(b"\n");
    client.line().unwrap()
}

fn error(value: &Value) -> (&str, &str) {
    assert_eq!(value["ok"], false, "{value}");
    (value["error"].as_str().unwrap(), value["message"].as_str().unwrap())
}

// --- hello and version 1 ---

#[test]
fn hello_tells_versions_and_features() {
    // shows: IPC-HEL-1, IPC-HEL-2, IPC-SOCK-1
    let daemon = Daemon::start("");
    assert_eq!((mode(&daemon.root()), mode(&daemon.socket())), (0o700, 0o600));
    let mut client = daemon.connect();
    let hello = say(&mut client, r#"{"cmd":"hello","version":2}"#);
    assert_eq!(hello["ok"], true);
    assert_eq!(hello.get("req_id"), None, "it is optional: {hello}");
    assert_eq!((&hello["version"], &hello["daemon_max_version"]), (&json!(2), &json!(2)));
    assert_eq!(hello["agent_id"], daemon.id());
    assert_eq!(hello["daemon_version"], env!("CARGO_PKG_VERSION"));
    let features = hello["features"].as_array().unwrap();
    for feature in ["buffer", "subscribe", "auth", "answer", "advertise"] {
        assert!(features.contains(&json!(feature)), "{hello}");
    }
    // A newer client gets what there is; a second hello takes the place of the first.
    let hello = client.cmd(json!({"cmd":"hello","version":7,"consumer":"c","unknown":{}}));
    assert_eq!(hello["version"], 2);
    client.ok(json!({"cmd":"whoami"}));
    assert_eq!(client.cmd(json!({"cmd":"hello","version":1}))["version"], 1);
    client.fails(json!({"cmd":"whoami"}), "hello_required");

    for (hello, code) in [
        (json!({"cmd":"hello"}), "unsupported_version"),
        (json!({"cmd":"hello","version":0}), "unsupported_version"),
        (json!({"cmd":"hello","version":null}), "unsupported_version"),
        (json!({"cmd":"hello","version":"2"}), "invalid_command"),
        (json!({"cmd":"hello","version":-1}), "invalid_command"),
        (json!({"cmd":"hello","version":2,"consumer":""}), "invalid_command"),
        (json!({"cmd":"hello","version":2,"consumer":"x".repeat(65)}), "invalid_command"),
        (json!({"cmd":"hello","version":2,"consumer":1}), "invalid_command"),
    ] {
        daemon.connect().fails(hello, code);
    }
    daemon.connect().hello_as(&"x".repeat(64));
}

#[test]
fn version_1_knows_three_commands() {
    // shows: IPC-V1-1, IPC-V1-4
    let daemon = Daemon::start("");
    let mut client = RawClient::v1(&daemon);
    let status = say(&mut client, r#"{"cmd":"status"}"#);
    assert_eq!(status["ok"], true);
    has(&status, &["uptime_secs", "peers_connected", "messages_sent", "messages_received"]);
    assert_eq!(status.get("req_id"), None);
    assert_eq!(
        say(&mut client, r#"{"cmd":"peers","req_id":"x"}"#),
        json!({"ok":true,"req_id":"x","peers":[]})
    );
    for cmd in ["whoami", "reply", "subscribe", "inbox", "ack", "advertise"] {
        let message = client.fails(json!({"cmd":cmd}), "hello_required");
        assert!(message.contains("hello"), "{message}");
    }
    assert_eq!(error(&say(&mut client, r#"{"cmd":"dance"}"#)).0, "invalid_command");
    client.ok(json!({"cmd":"auth","token":"anything"}));
    // It may say hello after all.
    client.hello();
    client.ok(json!({"cmd":"whoami"}));
}

#[test]
fn a_version_1_client_gets_answers_and_messages_as_lines() {
    // shows: IPC-V1-2, IPC-V1-3, IPC-V1-5
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let mut asker = RawClient::v1(&alice);
    let query = |deadline: u64| {
        json!({"cmd":"send","to":"bob","kind":"query","payload":{"question":"q","deadline_ms":deadline}})
            .to_string()
    };
    let sent = say(&mut asker, &query(9000));
    assert_eq!(keys(&sent), BTreeSet::from(["ok", "msg_id"]), "as soon as it has left: {sent}");
    agent.answer_one("a");
    let line = asker.line().unwrap();
    assert_eq!(keys(&line), BTreeSet::from(["inbound", "envelope"]));
    assert_eq!((&line["inbound"], &line["envelope"]["ref"]), (&json!(true), &sent["msg_id"]));
    assert_eq!(line["envelope"]["payload"]["summary"], "a");

    // No answer: an error of its own daemon. (An agent that holds it lets the peer say so itself.)
    bob.signal(rustix::process::Signal::STOP);
    let sent = say(&mut asker, &query(300));
    let line = asker.line().unwrap()["envelope"].clone();
    bob.signal(rustix::process::Signal::CONT);
    assert_eq!((&line["kind"], &line["ref"]), (&json!("error"), &sent["msg_id"]), "{line}");
    assert_eq!((&line["from"], &line["to"]), (&json!(alice.id()), &json!(alice.id())));
    assert_eq!(line["payload"]["code"], "timeout");
    // It comes late to who answers, and whoever connects from now on does not see it.
    assert_eq!(agent.request()["id"], sent["msg_id"]);

    // Every v1 client of the receiver reads what comes in; one that has said nothing is one, too.
    let mut quiet = RawClient::v1(&bob);
    let mut other = RawClient::v1(&bob);
    say(&mut other, r#"{"cmd":"status"}"#);
    let sent =
        say(&mut asker, r#"{"cmd":"send","to":"bob","kind":"notify","payload":{"topic":"t","data":null}}"#);
    assert_eq!(keys(&sent), BTreeSet::from(["ok", "msg_id"]), "{sent}");
    for client in [&mut quiet, &mut other] {
        let line = client.line().unwrap();
        assert_eq!((&line["inbound"], &line["envelope"]["id"]), (&json!(true), &sent["msg_id"]));
    }
    // It cannot leave: an error as the reply.
    let refused = say(&mut asker, r#"{"cmd":"send","to":"carol","kind":"ping"}"#);
    assert_eq!(error(&refused).0, "peer_not_found");
}

#[test]
fn version_1_can_be_turned_off() {
    // shows: IPC-V1-7, IPC-ERR-1
    let daemon = Daemon::start("[ipc]\nallow_v1 = false\n");
    for first in [r#"{"cmd":"status"}"#, r#"{"cmd":"whoami","req_id":"1"}"#] {
        let mut client = daemon.connect();
        assert_eq!(error(&say(&mut client, first)).0, "hello_required");
        assert_eq!(client.line(), None, "closed after {first}");
    }
    let mut client = daemon.connect();
    assert_eq!(error(&say(&mut client, r#"{"cmd":"hello","version":1}"#)).0, "unsupported_version");
    assert_eq!(client.line(), None);
    daemon.client().ok(json!({"cmd":"whoami"}));
}

// --- lines ---

#[test]
fn a_line_that_is_too_long_is_skipped() {
    // shows: IPC-LINE-2
    let daemon = Daemon::start("");
    let long = |bytes: usize| {
        let frame = r#"{"cmd":"status","req_id":"L","pad":""}"#;
        frame.replace(r#""pad":"""#, &format!(r#""pad":"{}""#, "x".repeat(bytes - frame.len())))
    };
    for (hello, code) in [(false, "invalid_command"), (true, "command_too_large")] {
        let mut client = daemon.connect();
        if hello {
            client.hello();
        }
        assert_eq!(long(65_536).len(), 65_536);
        assert_eq!(say(&mut client, &long(65_536))["req_id"], "L", "the limit itself is no longer line");
        for bytes in [65_537, 65_538, 300_000] {
            let said = say(&mut client, &long(bytes));
            assert_eq!(error(&said).0, code, "{bytes}");
            assert_eq!(said.get("req_id"), None);
            client.ok(json!({"cmd":"status"}));
        }
    }
}

#[test]
fn what_is_no_command_is_refused_and_the_connection_stays() {
    // shows: IPC-LINE-4, IPC-LINE-5, IPC-ERR-1
    let daemon = Daemon::start("");
    let mut client = daemon.client();
    for line in [
        "nonsense",
        "{",
        "[]",
        "1",
        "null",
        "\"cmd\"",
        "{}",
        r#"{"req_id":"1"}"#,
        r#"{"cmd":1,"req_id":"1"}"#,
        r#"{"cmd":"whoami","req_id":"1"} {"cmd":"whoami","req_id":"2"}"#,
        r#"{"cmd":"whoami","cmd":"status","req_id":"1"}"#,
        r#"{"cmd":"dance","req_id":"1"}"#,
    ] {
        let said = say(&mut client, line);
        assert_eq!(error(&said).0, "invalid_command", "{line}");
        assert!(!error(&said).1.is_empty());
    }
    client.raw(b"{\"cmd\":\"whoami\",\"req_id\":\"1\",\"x\":\"\xff\"}\n");
    assert_eq!(error(&client.line().unwrap()).0, "invalid_command");
    let deep = format!(r#"{{"cmd":"whoami","req_id":"1","x":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
    client.raw(deep.as_bytes());
    client.raw(b"\n\n  \n");
    client.line().unwrap();
    let reply = say(&mut client, r#"{"cmd":"whoami","req_id":"1","unknown":[1]}"#);
    assert_eq!((&reply["ok"], &reply["req_id"]), (&json!(true), &json!("1")));
}

#[test]
fn req_id_is_echoed_byte_for_byte() {
    // shows: IPC section 3, "req_id"
    let daemon = Daemon::start("");
    let mut client = daemon.client();
    let long = format!("\"{}\"", "x".repeat(126));
    for req_id in [r#""a""#, "17", "1.50e3", "-0", r#""\u0041\/""#, r#""ä""#, &long] {
        client.raw(format!("{{\"cmd\":\"status\",\"req_id\":{req_id}}}\n").as_bytes());
        let mut line = String::new();
        while !line.ends_with('\n') {
            line.push_str(&client.raw_line());
        }
        assert!(line.contains(&format!("\"req_id\":{req_id}")), "{req_id}: {line}");
    }
    let too_long = format!("\"{}\"", "x".repeat(127));
    for req_id in ["null", "true", "[]", "{}", &too_long] {
        let said = say(&mut client, &format!("{{\"cmd\":\"status\",\"req_id\":{req_id}}}"));
        assert_eq!(error(&said).0, "invalid_command", "{req_id}");
        assert_eq!(said.get("req_id"), None, "{req_id}");
    }
    let said = say(&mut client, r#"{"cmd":"whoami"}"#);
    assert_eq!(error(&said).0, "invalid_command");
    assert!(error(&said).1.contains("req_id"), "{said}");
}

#[test]
fn a_client_that_closed_its_half_still_gets_its_answers() {
    // shows: IPC-LINE-7
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    let query = asker.ask("bob", "q", json!({}));
    let status = asker.begin(json!({"cmd":"status"}));
    asker.half_close();
    assert_eq!(asker.finish(&status)["ok"], true);
    agent.answer_one("a");
    assert_eq!(asker.finish(&query)["response"]["payload"]["summary"], "a");
    assert_eq!(asker.line(), None);
    // A v1 client, too; and one that asked nothing is closed.
    let mut asker = RawClient::v1(&alice);
    asker.raw(b"{\"cmd\":\"send\",\"to\":\"bob\",\"kind\":\"query\",\"payload\":{\"question\":\"q\"}}\n");
    asker.half_close();
    assert_eq!(asker.line().unwrap()["ok"], true);
    agent.answer_one("b");
    assert_eq!(asker.line().unwrap()["envelope"]["payload"]["summary"], "b");
    assert_eq!(asker.line(), None);
    // One that subscribed is detached at once.
    let mut listener = alice.answerer(json!({"answer":["query"]}));
    listener.half_close();
    assert_eq!(listener.line(), None);
    wait_for("all to be detached", || {
        (alice.client().ok(json!({"cmd":"status"}))["clients"] == 1).then_some(())
    });
}

#[test]
fn one_client_too_many_is_told_so() {
    // shows: IPC-SOCK-3
    let daemon = Daemon::start("max_ipc_clients = 3\n");
    // It stays, so that no place is still taken by one that has gone.
    let first = wait_for("the client before to be gone", || {
        let mut client = daemon.client();
        (client.ok(json!({"cmd":"status"}))["clients"] == 1).then_some(client)
    });
    let mut three = vec![first, daemon.client(), daemon.client()];
    for _ in 0..2 {
        let mut fourth = daemon.connect();
        let (code, message) = {
            let line = fourth.line().unwrap();
            (line["error"].clone(), line["message"].clone())
        };
        assert_eq!(code, "too_many_clients");
        assert!(message.as_str().unwrap().contains("max_ipc_clients"), "{message}");
        assert_eq!(fourth.line(), None);
    }
    three.iter_mut().for_each(|client| {
        client.ok(json!({"cmd":"status"}));
    });
    three.pop();
    wait_for("a place", || {
        (daemon.connect().cmd(json!({"cmd":"hello","version":2}))["ok"] == true).then_some(())
    });
}

// --- commands ---

#[test]
fn whoami_peers_and_status_have_all_their_fields() {
    // shows: IPC sections 3.2, 3.3, 3.4
    let (alice, bob) = pair_with("name = \"al\"\n", "");
    let mut client = alice.client();
    let whoami = client.ok(json!({"cmd":"whoami"}));
    assert_eq!((&whoami["agent_id"], &whoami["public_key"]), (&json!(alice.id()), &json!(alice.pubkey())));
    assert_eq!((&whoami["name"], &whoami["ipc_version"]), (&json!("al"), &json!(2)));
    assert_eq!(whoami["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(whoami["pid"], alice.pid());
    assert_eq!(whoami["listen"], json!([format!("127.0.0.1:{}", alice.port())]));
    assert!(whoami["uptime_secs"].is_u64());
    assert_eq!(bob.client().ok(json!({"cmd":"whoami"})).get("name"), None);

    let row = client.peer(bob.id()).unwrap();
    assert_eq!(
        (&row["name"], &row["status"], &row["source"]),
        (&json!("bob"), &json!("connected"), &json!("static"))
    );
    assert_eq!(row["addr"], format!("127.0.0.1:{}", bob.port()));
    assert!(row["rtt_ms"].is_number() && row["since_ms"].is_u64() && row["features"].is_array(), "{row}");
    assert_eq!((row.get("claimed"), row.get("error")), (None, None), "{row}");

    let status = client.ok(json!({"cmd":"status"}));
    has(
        &status,
        &[
            "uptime_secs",
            "peers_connected",
            "messages_sent",
            "messages_received",
            "clients",
            "answerers",
            "active_tasks",
            "capacity",
            "open_requests",
            "queued",
            "inbox_unread",
            "paused",
            "set_aside",
            "knocks",
            "invites",
            "strangers",
            "dropped",
        ],
    );
    assert_eq!(status["peers_connected"], 1);
    assert_eq!(
        keys(&status["dropped"]),
        BTreeSet::from([
            "replayed",
            "wrong_stream",
            "not_authorized",
            "before_hello",
            "malformed",
            "over_limit",
            "not_kept",
            "refused",
            "limited"
        ])
    );
    client.ok(json!({"cmd":"send","to":"bob","kind":"ping"}));
    let later = client.ok(json!({"cmd":"status"}));
    let count = |status: &Value, field: &str| status[field].as_u64().unwrap();
    // What the daemons say to one another of topics and presence counts as well.
    assert!(count(&later, "messages_sent") > count(&status, "messages_sent"), "{later}");
    assert!(count(&later, "messages_received") > count(&status, "messages_received"), "{later}");
}

#[test]
fn whoami_names_the_root() {
    // shows: IPC section 3.2, `root`
    let daemon = Daemon::start("");
    let whoami = daemon.client().ok(json!({"cmd":"whoami"}));
    assert_eq!(whoami["root"], daemon.root().to_str().unwrap(), "{whoami}");
}

#[test]
fn send_refuses_what_makes_no_message() {
    // shows: IPC-SEND-1, IPC-TO-1, IPC-TO-2
    let (alice, bob) = pair();
    let mut client = alice.client();
    let id = "faa5f8da-e37d-4458-a095-93f877adfc0b";
    let send = |kind: &str, payload: Value| json!({"cmd":"send","to":"bob","kind":kind,"payload":payload});
    for (command, names) in [
        (json!({"cmd":"send","to":"bob"}), "kind"),
        (json!({"cmd":"send","kind":"ping"}), "to"),
        (json!({"cmd":"send","to":7,"kind":"ping"}), "to"),
        (send("dance", json!({})), "query, delegate, cancel, notify, discover"),
        (send("result", json!({"status":"completed","outcome":"o"})), "reply"),
        (send("progress", json!({"state":"running"})), "reply"),
        (send("response", json!({"data":1,"summary":"s"})), "reply"),
        (send("error", json!({"code":"c","message":"m","retryable":true})), "reply"),
        (send("hello", json!({})), "hello"),
        (send("query", json!([])), "payload"),
        (send("query", json!("text")), "payload"),
        (send("query", json!({})), "question"),
        (send("query", json!({"question":1})), "query"),
        (send("query", json!({"question":"q","domain":"x".repeat(257)})), "domain"),
        (send("query", json!({"question":"q","deadline_ms":"soon"})), "query"),
        (send("delegate", json!({"context":1})), "task"),
        (send("notify", json!({"data":1})), "topic"),
        (send("notify", json!({"topic":"t"})), "data"),
        (json!({"cmd":"send","to":"bob","kind":"ping","ref":"x"}), "ref"),
        (json!({"cmd":"send","to":"bob","kind":"ping","deadline_ms":-1}), "deadline_ms"),
    ] {
        let message = client.fails(command.clone(), "invalid_command");
        assert!(message.contains(names), "{command}\n{message}");
    }
    for own in [alice.id(), &alice.id()["ed25519.".len()..], &alice.id()[..16], &alice.id().to_uppercase()] {
        client.fails(json!({"cmd":"send","to":own,"kind":"ping"}), "self_send");
    }
    let nobody = "ed25519.00000000000000000000000000000000";
    for to in ["carol", nobody, "0000", "BOB", ""] {
        client.fails(json!({"cmd":"send","to":to,"kind":"ping"}), "peer_not_found");
    }
    client.fails(json!({"cmd":"send","kind":"cancel","ref":id}), "not_found");
    let big = "x".repeat(65_400);
    client.fails(send("query", json!({"question":big})), "message_too_large");
    // By id, in either case, by prefix with and without the type.
    let hex = &bob.id()["ed25519.".len()..];
    for to in [bob.id(), &bob.id().to_uppercase(), hex, &hex[..4], &hex[..9].to_uppercase(), &bob.id()[..12]]
    {
        client.ok(json!({"cmd":"send","to":to,"kind":"ping"}));
    }
    client.fails(json!({"cmd":"send","to":&hex[..3],"kind":"ping"}), "peer_not_found");
    assert_eq!(bob.client().ok(json!({"cmd":"inbox"}))["messages"], json!([]));
}

#[test]
fn the_largest_message_passes() {
    // shows: IPC-LINE-3, WF-STR-4
    let (alice, bob) = pair();
    let mut listener = bob.answerer(json!({}));
    let mut client = alice.client();
    let notify = |bytes: usize| {
        let payload = json!({"topic":"t","data":"x".repeat(bytes)});
        json!({"cmd":"send","to":"bob","kind":"notify","payload":payload})
    };
    client.ok(notify(10));
    let frame = listener.event()["envelope"].to_string().len() - 10;
    client.ok(notify(65_536 - frame));
    assert_eq!(listener.event()["envelope"].to_string().len(), 65_536);
    client.fails(notify(65_536 - frame + 1), "message_too_large");
}

#[test]
fn a_peer_that_is_down_is_unreachable_and_delays_only_its_own() {
    // shows: IPC-SEND-2, IPC-ORD-2, IPC-ORD-4
    let dead = Daemon::start("");
    let (dead_id, dead_key) = (dead.id().to_owned(), dead.pubkey().to_owned());
    drop(dead);
    let port = free_port();
    let peer = format!(
        "[[peers]]\nname = \"gone\"\nagent_id = \"{dead_id}\"\npubkey = \"{dead_key}\"\n\
         addr = \"127.0.0.1:{port}\"\n"
    );
    let (alice, bob) = (Daemon::start(&format!("handshake_timeout_secs = 2\n{peer}")), Daemon::start(""));
    introduce(&alice, &bob);
    let mut client = alice.client();
    let slow = client.begin(json!({"cmd":"send","to":"gone","kind":"ping"}));
    let other = alice.client().ok(json!({"cmd":"send","to":"bob","kind":"ping"}));
    assert_eq!(other["response"]["kind"], "pong");
    client.ok(json!({"cmd":"send","to":"bob","kind":"ping"}));
    client.ok(json!({"cmd":"status"}));
    let reply = client.finish(&slow);
    assert_eq!(error(&reply).0, "peer_unreachable");
    assert!(error(&reply).1.contains("gone") || error(&reply).1.contains(&dead_id), "{reply}");
    let row = client.peer(&dead_id).unwrap();
    assert!(row["status"] != "connected" && row["error"].is_string(), "{row}");
    assert_eq!(row["rtt_ms"], Value::Null);
}

#[test]
fn commands_of_one_client_run_at_the_same_time_within_a_bound() {
    // shows: IPC-ORD-1, IPC-ORD-2, IPC-ORD-3, IPC-ORD-5, WF-STR-11
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"],"capacity":1024}));
    let mut asker = alice.client();
    let reqs: Vec<String> = (0..256).map(|n| asker.ask("bob", &n.to_string(), json!({}))).collect();
    asker.fails(json!({"cmd":"send","to":"bob","kind":"ping"}), "overloaded");
    asker.ok(json!({"cmd":"inbox"}));
    // The last of those under way is answered first; another client's ping finds a stream meanwhile.
    let mut requests: Vec<Value> = (0..240).map(|_| agent.request()).collect();
    alice.client().ok(json!({"cmd":"send","to":"bob","kind":"ping"}));
    requests.reverse();
    for request in requests {
        agent.respond(&request, request["payload"]["question"].as_str().unwrap());
    }
    for _ in 240..256 {
        let request = agent.request();
        agent.respond(&request, request["payload"]["question"].as_str().unwrap());
    }
    for (n, req) in reqs.iter().enumerate() {
        assert_eq!(asker.finish(req)["response"]["payload"]["summary"], n.to_string());
    }
    asker.ok(json!({"cmd":"send","to":"bob","kind":"ping"}));
}

#[test]
fn fields_out_of_range_are_refused() {
    // shows: IPC sections 3.8, 3.9, 3.10, 3.11
    let daemon = Daemon::start("");
    let mut client = daemon.client();
    let many = vec!["x"; 65];
    for (command, names) in [
        (json!({"cmd":"subscribe","capacity":0,"answer":["query"]}), "capacity"),
        (json!({"cmd":"subscribe","capacity":1025,"answer":["query"]}), "capacity"),
        (json!({"cmd":"subscribe","answer":["ping"]}), "ping"),
        (json!({"cmd":"subscribe","answer":"query"}), "answer"),
        (json!({"cmd":"subscribe","kinds":many}), "kinds"),
        (json!({"cmd":"subscribe","kinds":[""]}), "kinds"),
        (json!({"cmd":"subscribe","kinds":["x".repeat(65)]}), "kinds"),
        (json!({"cmd":"subscribe","answer":["query"],"domains":many}), "domains"),
        (json!({"cmd":"subscribe","answer":["query"],"domains":["x".repeat(257)]}), "domains"),
        (json!({"cmd":"subscribe","answer":["query"],"lease":1}), "lease"),
        (json!({"cmd":"subscribe","replay":"yes"}), "replay"),
        (json!({"cmd":"inbox","limit":0}), "limit"),
        (json!({"cmd":"inbox","limit":1001}), "limit"),
        (json!({"cmd":"inbox","limit":"9"}), "limit"),
        (json!({"cmd":"inbox","kinds":many}), "kinds"),
        (json!({"cmd":"ack"}), "up_to_seq"),
        (json!({"cmd":"ack","up_to_seq":-1}), "up_to_seq"),
        (json!({"cmd":"ack","up_to_seq":"1"}), "up_to_seq"),
        (json!({"cmd":"advertise"}), "capabilities"),
        (json!({"cmd":"advertise","capabilities":[]}), "capabilities"),
        (json!({"cmd":"advertise","capabilities":{"x":"x".repeat(16_384)}}), "capabilities"),
        (json!({"cmd":"reply","kind":"response","payload":{"summary":"s"}}), "ref"),
        (json!({"cmd":"reply","ref":"faa5f8da-e37d-4458-a095-93f877adfc0b"}), "kind"),
    ] {
        let message = client.fails(command.clone(), "invalid_command");
        assert!(message.contains(names), "{command}\n{message}");
    }
    client.fails(json!({"cmd":"ack","up_to_seq":1}), "ack_out_of_range");
    assert_eq!(client.ok(json!({"cmd":"ack","up_to_seq":0}))["acked_seq"], 0);
    client.ok(json!({"cmd":"advertise","capabilities":{}}));
    assert_eq!(client.ok(json!({"cmd":"auth","token":"x"}))["auth"], "accepted");
    let names: Vec<String> = (0..64).map(|n| format!("k{n}")).collect();
    let subscribed = client.ok(json!({"cmd":"subscribe","kinds":names,"capacity":1024}));
    assert_eq!((&subscribed["subscribed"], &subscribed["replayed"]), (&json!(true), &json!(0)));
    assert_eq!(subscribed["replay_to_seq"], 0);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_loses_nothing() {
    // shows: IPC-SLOW-4, IPC-ORD-1, IPC-ORD-3
    let daemon = Daemon::start("");
    let mut client = daemon.client();
    let mut writer = client.writer();
    let count = 20_000;
    let writing = std::thread::spawn(move || {
        use std::io::Write as _;
        for n in 0..count {
            writer.write_all(format!("{{\"cmd\":\"status\",\"req_id\":{n}}}\n").as_bytes()).unwrap();
        }
    });
    // The others are served all the while.
    for _ in 0..50 {
        daemon.client().ok(json!({"cmd":"whoami"}));
    }
    for n in 0..count {
        let line = client.line().unwrap();
        assert_eq!((&line["ok"], &line["req_id"]), (&json!(true), &json!(n)));
    }
    writing.join().unwrap();
}

#[test]
fn adverts_that_do_not_fit_are_left_out() {
    // shows: CORE-DIS-1, IPC-ADV-2
    let (alice, bob) = pair();
    let mut clients: Vec<RawClient> = (0..6).map(|_| bob.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let tool = format!("{n}{}", "x".repeat(15_000));
        client.ok(json!({"cmd":"advertise","capabilities":{"tools":[tool],"domains":[format!("d{n}")]}}));
    }
    // The last is small: it fits though the one before it does not.
    clients[5].ok(json!({"cmd":"advertise","capabilities":{"domains":["d5"]}}));
    let answer = alice.client().ok(json!({"cmd":"send","to":"bob","kind":"discover"}))["response"].clone();
    assert!(answer.to_string().len() <= 65_536);
    assert_eq!(answer["payload"]["domains"], json!(["d0", "d1", "d2", "d3", "d5"]));
    assert_eq!(answer["payload"]["tools"].as_array().unwrap().len(), 4);

    // What the settings add counts, too.
    let channels: Vec<String> = (0..60).map(|n| format!("{n}{}", "x".repeat(100))).collect();
    bob.set_config(&format!("[agent]\nchannels = {}\n", json!(channels)));
    bob.reload();
    let answer = alice.client().ok(json!({"cmd":"send","to":"bob","kind":"discover"}))["response"].clone();
    assert_eq!(answer["kind"], "capabilities", "{answer}");
    assert_eq!(answer["payload"]["channels"], json!(channels));
    assert_eq!(answer["payload"]["domains"], json!(["d0", "d1", "d2", "d5"]));
}
