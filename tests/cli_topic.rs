//! Topics, as users of the command line have them: each verb against real daemons.

use serde_json::{Value, json};

use crate::support;
use crate::support::cli::{Home, Running, keys, run_with, sorted};
use crate::support::{Daemon, pair, pair_with, wait_for};

/// Waits until a neighbour of this daemon wants the topic.
fn wanted(publisher: &Daemon, topic: &str) {
    let mut client = publisher.client();
    wait_for("a neighbour to want it", || {
        let peers = client.ok(json!({"cmd":"topic_peers","topic":topic}))["peers"].clone();
        (!peers.as_array().unwrap().is_empty()).then_some(())
    });
}

/// Waits until the daemon has so many subscriptions to this.
fn subscribed(daemon: &Daemon, topic: &str, count: usize) {
    wait_for("the subscription", || (subscriptions(daemon, topic).len() == count).then_some(()));
}

fn subscriptions(daemon: &Daemon, topic: &str) -> Vec<Value> {
    let rows = daemon.client().ok(json!({"cmd":"topics"}))["subscriptions"].clone();
    rows.as_array().unwrap().iter().filter(|row| row["topic"] == topic).cloned().collect()
}

/// `axon topic sub` with these arguments, once its daemon knows.
fn sub(daemon: &Daemon, topic: &str, more: &[&str]) -> Running {
    let before = subscriptions(daemon, topic).len();
    let running = daemon.spawn(&[&["topic", "sub", topic], more].concat());
    subscribed(daemon, topic, before + 1);
    running
}

fn publish(daemon: &Daemon, topic: &str, message: &str) -> Value {
    let line = daemon.run(&["topic", "pub", topic, message]).ok();
    assert_eq!(keys(&line), sorted(["ok", "topic", "seq", "neighbours", "subscribers"]));
    line
}

/// What a line of `sub` tells.
fn said(line: &Value) -> (&str, &Value) {
    (line["payload"]["topic"].as_str().unwrap(), &line["payload"]["message"])
}

#[test]
fn what_is_published_is_printed_as_it_comes() {
    let (alice, bob) = pair();
    // shows: IPC-TOP-2
    let mut listening = sub(&bob, "build.>", &["--count", "3"]);
    wanted(&alice, "build.main");
    let line = publish(&alice, "build.main", "{\"state\": \"failed\"}");
    assert_eq!((&line["neighbours"], &line["subscribers"]), (&json!(1), &json!(0)), "{line}");
    let first = listening.line();
    let fields = ["seq", "from", "from_name", "trust", "ts", "kind", "id", "payload"];
    assert_eq!(keys(&first), sorted(fields), "{first}");
    assert_eq!((first["from"].as_str(), &first["from_name"]), (Some(alice.id()), &json!("alice")));
    assert_eq!((&first["kind"], &first["trust"]), (&json!("topic.message"), &json!("known")));
    assert_eq!(said(&first), ("build.main", &json!({"state":"failed"})));
    assert_eq!((&first["payload"]["seq"], &first["payload"]["hops"]), (&line["seq"], &json!(1)));
    assert_eq!(first["payload"]["via"], alice.id());
    // Any text is one, and what stdin says.
    publish(&alice, "build.main", "It failed.");
    assert_eq!(said(&listening.line()), ("build.main", &json!({"text":"It failed."})));
    let piped = run_with(alice.command(&["topic", "pub", "build.log", "-"]), b"two\nlines\n").ok();
    assert!(piped["seq"].as_u64() > line["seq"].as_u64(), "{piped}");
    let ran = listening.wait();
    assert_eq!((ran.code, ran.lines().len()), (0, 3), "{ran:?}");
    assert_eq!(said(&ran.lines()[2]), ("build.log", &json!({"text":"two\nlines"})));
    // It was for that command alone, and nothing of it is kept. shows: IPC-TOP-3
    subscribed(&bob, "build.>", 0);
    assert_eq!(bob.run(&["inbox"]).ok()["messages"], json!([]));
}

#[test]
fn a_person_reads_a_line_for_each() {
    let (alice, bob) = pair();
    let listening = sub(&bob, "chat.*", &["--plain", "--count", "2"]);
    wanted(&alice, "chat.lobby");
    let told = alice.run(&["--plain", "topic", "pub", "chat.lobby", "Is anybody there?"]);
    assert!(told.stdout.starts_with("published to 1 neighbour and 0 subscribers here "), "{told:?}");
    publish(&alice, "chat.hall", "{\"n\":1}");
    let ran = listening.wait();
    let lines: Vec<&str> = ran.stdout.lines().map(|line| line.split_once("Z ").unwrap().1).collect();
    let expected = ["chat.lobby alice (known): Is anybody there?", "chat.hall alice (known): {\"n\":1}"];
    assert_eq!(lines, expected, "{ran:?}");
}

// shows: IPC-TOP-2
#[test]
fn two_clients_of_one_daemon_hear_each_other_and_their_peer() {
    let (alice, bob) = pair();
    let (one, other) =
        (sub(&bob, "team.>", &["--count", "2"]), sub(&bob, "team.a", &["team.b", "--count", "2"]));
    wanted(&alice, "team.a");
    let line = publish(&bob, "team.a", "{\"n\":1}");
    assert_eq!(line["subscribers"], 2, "{line}");
    publish(&alice, "team.b", "{\"n\":2}");
    for running in [one, other] {
        let lines = running.wait().lines();
        let own = &lines[0]["payload"];
        assert_eq!((lines[0]["from"].as_str().unwrap(), &own["hops"]), (bob.id(), &json!(0)), "{own}");
        assert_eq!((&own["via"], &own["message"]), (&Value::Null, &json!({"n":1})), "{own}");
        assert_eq!(said(&lines[1]), ("team.b", &json!({"n":2})));
    }
}

#[test]
fn a_kept_subscription_waits_and_is_read_once() {
    let (alice, mut bob) = pair();
    let kept = ["--kept", "--count", "1", "--for", "9"];
    let mut listening = sub(&bob, "door.>", &kept);
    wanted(&alice, "door.front");
    publish(&alice, "door.front", "{\"n\":1}");
    assert_eq!(said(&listening.line()).1, &json!({"n":1}));
    assert_eq!(listening.wait().code, 0);
    // Nobody listens, and then not even the daemon runs. shows: IPC-TOP-4, IPC-TOP-7
    publish(&alice, "door.front", "{\"n\":2}");
    publish(&alice, "door.back", "{\"n\":3}");
    let row = subscriptions(&bob, "door.>").remove(0);
    assert_eq!((&row["kept"], &row["consumer"]), (&json!(true), &json!("topic:door.>")), "{row}");
    let mut reader = bob.connect();
    reader.hello_as("topic:door.>");
    wait_for("both", || {
        let rows = reader.ok(json!({"cmd":"inbox"}))["messages"].as_array().unwrap().len();
        (rows == 2).then_some(())
    });
    bob.terminate();
    bob.up();
    alice.wait_peer(&bob, true);
    let args = [&["topic", "sub", "door.>"], &kept[..]].concat();
    for n in [2, 3] {
        assert_eq!(said(&bob.run(&args).ok()).1, &json!({"n":n}));
    }
    // What was printed does not come again.
    let none = bob.run(&["topic", "sub", "door.>", "--kept", "--count", "1", "--for", "0.2"]);
    none.fails(3, "timeout");
    // It is nobody else's to read.
    assert_eq!(bob.run(&["inbox", "--kinds", "topic.message"]).ok()["messages"], json!([]));
}

// shows: IPC-TOP-8
#[test]
fn what_was_unsubscribed_comes_no_more() {
    let (alice, bob) = pair();
    let listening = sub(&bob, "door.>", &["--kept", "--count", "1"]);
    let others = sub(&bob, "door.front", &["--kept", "--consumer", "mine", "--count", "2"]);
    wanted(&alice, "door.front");
    publish(&alice, "door.front", "{\"n\":1}");
    assert_eq!(listening.wait().code, 0);
    let line = bob.run(&["topic", "unsub", "door.>"]).ok();
    assert_eq!(line, json!({"ok":true,"topic":"door.>","consumers":["topic:door.>"]}));
    publish(&alice, "door.front", "{\"n\":2}");
    assert_eq!(others.wait().lines().len(), 2);
    let none = bob.run(&["topic", "sub", "door.>", "--kept", "--count", "1", "--for", "0.2"]);
    none.fails(3, "timeout");
    bob.run(&["topic", "unsub", "door.>"]).ok();

    // Another consumer's is named.
    let named = bob.run(&["topic", "unsub", "door.front"]).fails(2, "not_found");
    assert!(named["message"].as_str().unwrap().contains("--consumer"), "{named}");
    bob.run(&["topic", "unsub", "--consumer", "mine", "door.front"]).ok();
    let gone = bob.run(&["topic", "unsub", "door.>"]).fails(2, "not_found");
    assert!(gone["message"].as_str().unwrap().contains("axon --root"), "{gone}");
    assert!(subscriptions(&bob, "door.>").is_empty() && subscriptions(&bob, "door.front").is_empty());
}

#[test]
fn what_is_kept_comes_first() {
    let (alice, bob) = pair();
    // shows: IPC-TOP-6
    let refused = bob.run(&["topic", "sub", "build.main", "--history"]).fails(2, "not_found");
    assert!(refused["message"].as_str().unwrap().contains("axon topic keep"), "{refused}");
    // shows: IPC-TOP-11
    let line = bob.run(&["topic", "keep", "build.>", "--last", "5", "--hours", "2"]).ok();
    assert_eq!(line, json!({"ok":true,"topic":"build.>","kept":true}));
    wanted(&alice, "build.main");
    for n in 1..=2 {
        publish(&alice, "build.main", &format!("{{\"n\":{n}}}"));
    }
    let keeps = || bob.run(&["topic", "list"]).ok()["keeps"][0].clone();
    wait_for("both to be kept", || (keeps()["messages"] == 2).then_some(()));
    let row = keeps();
    assert_eq!((&row["topic"], &row["last"], &row["hours"]), (&json!("build.>"), &json!(5), &json!(2)));
    let mut listening = bob.spawn(&["topic", "sub", "build.main", "--history", "--count", "3"]);
    for n in 1..=2 {
        let line = listening.line();
        assert_eq!((said(&line).1, &line["payload"]["history"]), (&json!({"n":n}), &json!(true)), "{line}");
    }
    publish(&alice, "build.main", "{\"n\":3}");
    let line = listening.line();
    assert_eq!((said(&line).1, &line["payload"]["history"]), (&json!({"n":3}), &Value::Null), "{line}");
    assert_eq!(listening.wait().code, 0);
    // Where the subscription stays, it is told once.
    let kept = ["topic", "sub", "build.>", "--history", "--kept", "--count", "1", "--for", "9"];
    for n in 1..=3 {
        assert_eq!(said(&bob.run(&kept).ok()).1, &json!({"n":n}));
    }
    publish(&alice, "build.main", "{\"n\":4}");
    assert_eq!(said(&bob.run(&kept).ok()).1, &json!({"n":4}));
    let line = bob.run(&["topic", "keep", "build.>", "--off"]).ok();
    assert_eq!(line, json!({"ok":true,"topic":"build.>","kept":false}));
    assert_eq!(bob.run(&["topic", "list"]).ok()["keeps"], json!([]));
    bob.run(&["topic", "keep", "build.>", "--off"]).fails(2, "not_found");
}

#[test]
fn lists_tell_what_there_is() {
    let (alice, bob) = pair();
    let narrow = alice.run(&["--plain", "topic", "peers", "a.c"]);
    assert_eq!(narrow.code, 0, "{narrow:?}");
    let empty = bob.run(&["topic", "list"]).ok();
    assert_eq!(keys(&empty), sorted(["ok", "subscriptions", "keeps", "relay", "seen"]));
    assert_eq!(empty["relay"], json!([">"]));
    let _listening = sub(&bob, "a.>", &["--from-any"]);
    wanted(&alice, "a.b");
    publish(&alice, "a.b", "{}");
    let seen = || bob.run(&["topic", "list"]).ok()["seen"][0].clone();
    wait_for("it to be seen", || (seen()["messages"] == 1).then_some(()));
    let row = seen();
    assert_eq!((&row["topic"], &row["publishers"]), (&json!("a.b"), &json!(1)), "{row}");
    let text = bob.run(&["--plain", "topic", "list"]).stdout;
    for part in ["a.> subscribed from any, for ", "> relayed", "a.b seen: 1 message of 1"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    let rows = alice.run(&["topic", "peers"]).ok();
    let peer = &rows["peers"][0];
    assert_eq!((peer["id"].as_str().unwrap(), &peer["name"]), (bob.id(), &json!("bob")), "{peer}");
    // It passes on all that there is, and what it has subscribed is in that.
    assert_eq!((&peer["filters"], &peer["keeps"]), (&json!([">"]), &json!([])), "{peer}");
    let text = alice.run(&["--plain", "topic", "peers", "a.c"]).stdout;
    assert!(text.contains(" bob wants >"), "{text}");
    let status = bob.run(&["status"]).ok();
    assert_eq!((&status["topics"]["neighbours"], &status["topics"]["delivered"]), (&json!(1), &json!(1)));
}

// shows: IPC-TOP-5
#[test]
fn strangers_are_heard_by_who_asks_for_them() {
    let relay = "[topics]\nrelay = [\">\"]\n";
    let (alice, bob) = pair_with("", relay);
    let carol = Daemon::start("");
    carol.set_peers(&[("bob", &bob)]);
    carol.reload();
    bob.set_peers(&[("alice", &alice), ("carol", &carol)]);
    bob.reload();
    carol.wait_peer(&bob, true);
    bob.wait_peer(&carol, true);
    alice.wait_peer(&bob, true);
    let peers_only = sub(&alice, "news", &["--count", "1"]);
    let any = sub(&alice, "news", &["--from-any", "--count", "2"]);
    wanted(&carol, "news");
    wanted(&bob, "news");
    publish(&carol, "news", "{\"n\":1}");
    let plain = alice.spawn(&["topic", "sub", "news", "--from-any", "--plain", "--count", "2"]);
    subscribed(&alice, "news", 3);
    publish(&carol, "news", "{\"n\":2}");
    publish(&bob, "news", "{\"n\":3}");
    let lines = any.wait().lines();
    let first = &lines[0];
    assert_eq!(
        (first["from"].as_str().unwrap(), &first["trust"]),
        (carol.id(), &json!("unknown")),
        "{first}"
    );
    let payload = &first["payload"];
    assert_eq!((&payload["stranger"], &payload["hops"]), (&json!(true), &json!(2)), "{payload}");
    assert_eq!(payload["via"], bob.id());
    assert_eq!(said(&peers_only.wait().lines()[0]).1, &json!({"n":3}));
    assert!(plain.wait().stdout.contains("(stranger): {\"n\":2}"));
}

#[test]
fn what_is_wrong_says_what_to_do() {
    let daemon = Daemon::start("");
    for (args, part) in [
        (&["topic", "sub"][..], "FILTER"),
        (&["topic", "sub", "a..b"], "empty level"),
        (&["topic", "sub", "a", "--count", "0"], "0"),
        (&["topic", "sub", "a", "--consumer", "x"], "--kept"),
        (&["topic", "unsub", "a b"], "' '"),
        (&["topic", "pub", "a.>", "{}"], "is a filter"),
        (&["topic", "pub", "a", "{\"n\""], "mend it"),
        (&["topic", "pub", "a"], "MESSAGE"),
        (&["topic", "peers", "a.>"], "is a filter"),
        (&["topic", "keep", "a", "--last", "0"], "0"),
        (&["topic", "keep", "a", "--hours", "8761"], "8761"),
        (&["topic", "keep", "a", "--off", "--last", "5"], "--last"),
        (&["topic", "nonsense"], "nonsense"),
    ] {
        let ran = daemon.run(args);
        assert!(ran.usage().contains(part), "{args:?}: {ran:?}");
    }
    let long = format!("{{\"t\":\"{}\"}}", "x".repeat(65_300));
    // shows: IPC-TOP-1
    run_with(daemon.command(&["topic", "pub", "a", "-"]), long.as_bytes()).fails(2, "message_too_large");
    daemon.run(&["topic", "sub", "a", "--count", "1", "--for", "0.1"]).fails(3, "timeout");
    // Without a daemon.
    let home = Home::default();
    for args in [
        &["topic", "list"][..],
        &["topic", "sub", "a"],
        &["topic", "unsub", "a"],
        &["topic", "pub", "a", "{}"],
        &["topic", "peers"],
        &["topic", "keep", "a"],
    ] {
        home.run(args).fails(1, "no_daemon");
    }
}

// shows: IPC-TOP-12
#[test]
fn topics_may_be_turned_off() {
    let daemon = Daemon::start("[topics]\nenabled = false\n");
    let hello = daemon.connect().hello();
    assert!(!hello["features"].as_array().unwrap().contains(&json!("topics")), "{hello}");
    for args in [&["topic", "pub", "a", "{}"][..], &["topic", "sub", "a"], &["topic", "list"]] {
        let failed = daemon.run(args).fails(4, "not_offered");
        assert!(failed["message"].as_str().unwrap().contains("[topics]"), "{failed}");
    }
}

// shows: IPC-TOP-9
#[test]
fn subscriptions_are_bounded() {
    let daemon = Daemon::start("");
    let mut client = daemon.client();
    let subscribe = |topic: String| json!({"cmd":"subscribe_topic","topic":topic});
    let asked: Vec<String> = (0..256).map(|n| client.begin(subscribe(format!("a.{n}")))).collect();
    for req_id in asked {
        assert_eq!(client.finish(&req_id)["ok"], true);
    }
    // The same again is none more.
    client.ok(subscribe("a.7".to_owned()));
    client.fails(subscribe("a.256".to_owned()), "overloaded");
    client.ok(json!({"cmd":"unsubscribe_topic","topic":"a.7"}));
    client.ok(subscribe("a.256".to_owned()));
    // Another has room.
    daemon.client().ok(subscribe("a.256".to_owned()));
}

// shows: IPC-TOP-3
#[test]
fn who_was_too_slow_goes_on_with_what_comes_next() {
    let daemon = Daemon::start("ipc.max_client_queue = 8\n");
    let (mut reader, mut publisher) = (daemon.client(), daemon.client());
    reader.ok(json!({"cmd":"subscribe_topic","topic":"a"}));
    // It reads nothing while more is published than its socket and its queue hold.
    let text = "x".repeat(8_000);
    let mut last = 0;
    for _ in 0..400 {
        let said = json!({"cmd":"publish","topic":"a","payload":{"text":text}});
        last = publisher.ok(said)["seq"].as_u64().unwrap();
    }
    let missed = reader.event_where(|event| event["event"] == "slow_consumer");
    assert!(missed["resume_from_seq"].as_u64().is_some(), "{missed}");
    reader.ok(json!({"cmd":"subscribe","kinds":["topic.message"],"replay":false}));
    publisher.ok(json!({"cmd":"publish","topic":"a","payload":{"text":"at last"}}));
    let event = reader.event_where(|event| event["event"] == "inbound");
    let payload = &event["envelope"]["payload"];
    assert!(payload["seq"].as_u64() > Some(last), "{payload}");
    assert_eq!(payload["message"]["text"], "at last");
}

// shows: IPC-TOP-10
#[test]
fn numbers_rise_over_restarts() {
    let mut daemon = Daemon::start("");
    let mut last = 0;
    for _ in 0..3 {
        for _ in 0..3 {
            let seq = publish(&daemon, "a", "{}")["seq"].as_u64().unwrap();
            assert!(seq > last, "{seq} after {last}");
            last = seq;
        }
        daemon.kill9();
        daemon.up();
    }
}

#[test]
fn a_scoped_socket_publishes_and_listens_with_the_rights_for_it() {
    let bob = Daemon::start("");
    bob.run(&["socket", "add", "ears", "--allow", "inbox"]).ok();
    bob.run(&["socket", "add", "mouth", "--allow", "send"]).ok();
    let path = |name: &str| bob.root().join("sockets").join(name).join("axon.sock");
    let run = |name: &str, args: &[&str]| {
        let home = Home::default();
        let mut command = home.command(args);
        command.args(["--socket", path(name).to_str().unwrap()]);
        support::cli::run(command)
    };
    run("mouth", &["topic", "pub", "a", "{}"]).ok();
    run("ears", &["topic", "list"]).ok();
    // shows: IPC-SCO-3
    run("ears", &["topic", "pub", "a", "{}"]).fails(4, "not_authorized");
    run("mouth", &["topic", "list"]).fails(4, "not_authorized");
    run("mouth", &["topic", "sub", "a"]).fails(4, "not_authorized");
    run("ears", &["topic", "keep", "a"]).fails(4, "not_authorized");

    // shows: IPC-SCO-16
    let alice = Daemon::start("");
    support::introduce(&alice, &bob);
    let only = bob.run(&["socket", "add", "narrow", "--allow", "inbox", "--to", "alice"]).ok();
    let path = only["path"].as_str().unwrap();
    let home = Home::default();
    let narrow = support::cli::spawn(home.command(&["topic", "sub", "a", "--count", "1", "--socket", path]));
    subscribed(&bob, "a", 1);
    let rows = home.run(&["topic", "list", "--socket", path]).ok();
    assert_eq!(rows["subscriptions"], json!([]), "{rows}");
    publish(&bob, "a", "{\"n\":1}");
    publish(&alice, "a", "{\"n\":2}");
    assert_eq!(said(&narrow.wait().lines()[0]).1, &json!({"n":2}));
}
