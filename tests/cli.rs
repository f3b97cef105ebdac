//! The command line as its users have it: what each verb prints, and how it ends.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support;
use crate::support::cli::{Home, Ran, keys, run, run_with, sorted, spawn_with};
use crate::support::{Daemon, pair, pair_with, wait_for};

/// An id that no message has.
const NO_ID: &str = "00000000-0000-4000-8000-000000000000";

// ---- Exit codes -------------------------------------------------------------------------------------------

#[test]
fn without_a_daemon_it_says_how_to_start_one_and_exits_with_1() {
    let home = Home::default();
    for verb in [
        &["whoami"][..],
        &["peers"],
        &["status"],
        &["send", "bob", "Hello?"],
        &["delegate", "bob", "Work"],
        &["notify", "bob", "topic", "1"],
        &["cancel", NO_ID],
        &["discover", "bob"],
        &["ping", "bob"],
        &["inbox"],
        &["ack", "1"],
        &["listen"],
        &["reply", NO_ID, "Hi"],
        &["result", NO_ID, "Done"],
        &["answer", "--", "cat"],
    ] {
        let failed = home.run(verb).fails(1, "no_daemon");
        let message = failed["message"].as_str().unwrap();
        assert!(message.contains("axon daemon"), "{verb:?}: {message}");
    }
    let named = home.run(&["--name", "work", "status"]).fails(1, "no_daemon");
    assert!(named["message"].as_str().unwrap().contains("axon --name work daemon"), "{named}");
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_wrong() {
    let home = Home::default();
    for (args, word) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["sned", "bob", "x"], "send"),
        (&["send"], "PEER"),
        (&["send", "bob"], "TEXT"),
        (&["send", "--deadline", "0", "bob", "x"], "2.5"),
        (&["send", "--max-tokens", "many", "bob", "x"], "many"),
        (&["delegate", "bob"], "TASK"),
        (&["delegate", "--context", "{", "bob", "x"], "JSON"),
        (&["delegate", "--priority", "soon", "bob", "x"], "urgent"),
        (&["notify", "bob", "topic"], "DATA"),
        (&["notify", "--importance", "huge", "bob", "topic", "1"], "high"),
        (&["cancel"], "ID"),
        (&["discover"], "PEER"),
        (&["ping"], "PEER"),
        (&["inbox", "--limit", "all"], "all"),
        (&["ack"], "SEQ"),
        (&["ack", "x"], "x"),
        (&["listen", "--count", "0"], "0"),
        (&["listen", "--for", "-1"], "-1"),
        (&["listen", "--domain", "x"], "--answer"),
        (&["reply", NO_ID], "TEXT"),
        (&["reply", NO_ID, "--payload", "[1]"], "object"),
        (&["reply", NO_ID, "text", "--ack"], "--ack"),
        (&["result", NO_ID], "TEXT"),
        (&["result", NO_ID, "x", "--failed", "--partial"], "--partial"),
        (&["answer"], "COMMAND"),
        (&["answer", "--", "no-such-program-here"], "no-such-program-here"),
        (&["answer", "--kinds", "notify", "--", "cat"], "delegate"),
        (&["answer", "--concurrency", "0", "--", "cat"], "0"),
        (&["answer", "--timeout", "x", "--", "cat"], "2.5"),
        (&["daemon", "--port", "70000"], "70000"),
        (&["completions", "tcsh"], "zsh"),
        (&["config", "prot", "1"], "port"),
        (&["config", "port", "many"], "port"),
        (&["config", "--unset"], "KEY"),
        (&["-q", "-v", "status"], "--quiet"),
        (&["--name", "Not A Name", "status"], "name"),
        (&["--name", "a", "--root", "b", "status"], "--root"),
        (&["whoami", "too", "much"], "too"),
    ] {
        let ran = home.run(args);
        let said = ran.usage();
        assert!(said.contains(word), "{args:?} should speak of {word}: {said}");
    }
}

#[test]
fn what_is_wrong_with_a_command_exits_with_2() {
    let (alice, _bob) = pair();
    // shows: IPC-TO-2
    let ran = alice.run(&["send", alice.id(), "Me?"]);
    ran.fails(2, "self_send");
    ran.usage();
    alice.run(&["ping", alice.id()]).fails(2, "self_send");
    // shows: IPC-TO-3
    alice.run(&["cancel", NO_ID]).fails(2, "not_found");
    let odd = alice.run(&["cancel", "no-id"]).fails(2, "invalid_command");
    assert!(odd["message"].as_str().unwrap().contains("ref"), "{odd}");
    alice.run(&["reply", NO_ID, "Hi"]).fails(2, "not_found");
    alice.run(&["result", NO_ID, "Done"]).fails(2, "not_found");
    // shows: IPC-ACK-2
    alice.run(&["ack", "999"]).fails(2, "ack_out_of_range");
    let limit = alice.run(&["inbox", "--limit", "0"]).fails(2, "invalid_command");
    assert!(limit["message"].as_str().unwrap().contains("limit"), "{limit}");
    let long = run_with(alice.command(&["send", "bob", "-"]), &[b'x'; 70_000]);
    assert_eq!(long.code, 2, "{long:?}");
    let code = long.json()["error"].as_str().unwrap().to_owned();
    assert!(["command_too_large", "message_too_large"].contains(&code.as_str()), "{code}");
    run_with(alice.command(&["send", "bob", "-"]), b"\xff\xfe").usage();
}

#[test]
fn timeouts_exit_with_3() {
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query","delegate"]}));
    // The peer's: its daemon says so, as an agent holds the query. shows: CORE-QUERY-3
    let late = alice.run(&["send", "--deadline", "0.2", "bob", "Slow?"]).fails(3, "timeout");
    assert_eq!(late["from"], bob.id());
    let withdrawn = agent.event_where(|event| event["event"] == "withdrawn");
    assert_eq!(withdrawn["reason"], "timeout");

    // A delegation whose result does not come.
    let waiting = alice.spawn(&["delegate", "--wait", "--deadline", "0.5", "bob", "Work"]);
    let work = agent.event_where(|event| event["envelope"]["kind"] == "delegate")["envelope"].clone();
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true}))["ok"], true);
    let ran = waiting.wait();
    let lines = ran.lines();
    assert_eq!((ran.code, lines.len()), (3, 2), "{ran:?}");
    assert_eq!((&lines[0]["kind"], &lines[1]["error"]), (&json!("ack"), &json!("timeout")), "{ran:?}");

    // Ours: the peer's process is there, and says nothing at all. shows: IPC-SEND-4
    bob.signal(Signal::STOP);
    let late = alice.run(&["send", "--deadline", "0.1", "bob", "Are you frozen?"]);
    bob.signal(Signal::CONT);
    late.fails(3, "timeout");

    // Too little to listen to.
    alice.run(&["listen", "--kinds", "notify", "--count", "1", "--for", "0.2"]).fails(3, "timeout");
    let none = alice.run(&["listen", "--kinds", "notify", "--for", "0.1"]);
    assert_eq!((none.code, none.stdout.as_str()), (0, ""), "{none:?}");
}

#[test]
fn refusals_exit_with_4() {
    let (alice, bob) = pair();
    // shows: IPC-ANS-6, CORE-QUERY-1
    let alone = alice.run(&["send", "bob", "Anybody?"]).fails(4, "unhandled");
    assert_eq!(keys(&alone), sorted(["ok", "error", "message", "from", "id"]));

    let mut agent = bob.answerer(json!({"answer":["query","delegate"],"domains":["family"]}));
    let other = alice.run(&["send", "--domain", "work", "bob", "When?"]).fails(4, "unknown_domain");
    assert!(other["message"].as_str().unwrap().contains("family"), "{other}");

    // shows: CORE-ERR-2
    let asking = alice.spawn(&["send", "bob", "When?"]);
    let query = agent.request();
    agent.reply(&query, "error", json!({"code":"tired","message":"Ask again tomorrow.","retryable":true}));
    let tired = asking.wait().fails(4, "tired");
    assert_eq!(tired["message"], "Ask again tomorrow.");

    let asking = alice.spawn(&["delegate", "--wait", "bob", "Work"]);
    let work = agent.request();
    agent.reply(&work, "ack", json!({"accepted":false,"reason":"No time."}));
    let declined = asking.wait().fails(4, "refused");
    assert!(declined["message"].as_str().unwrap().contains("No time."), "{declined}");

    let asking = alice.spawn(&["delegate", "--wait", "bob", "Work"]);
    let work = agent.request();
    agent.reply(&work, "result", json!({"status":"failed","outcome":"It broke."}));
    let ran = asking.wait();
    let lines = ran.lines();
    assert_eq!((ran.code, lines.len()), (4, 2), "{ran:?}");
    assert_eq!((&lines[1]["ok"], &lines[1]["message"]), (&json!(false), &json!("It broke.")));
}

#[test]
fn unknown_and_unreachable_peers_exit_with_5() {
    let (alice, mut bob) = pair_with("handshake_timeout_secs = 2", "");
    for peer in ["nobody", "ffffff", "ed25519.00000000000000000000000000000000"] {
        let unknown = alice.run(&["ping", peer]).fails(5, "peer_not_found");
        assert!(unknown["message"].as_str().unwrap().contains(peer), "{unknown}");
    }
    // Too short for a prefix.
    alice.run(&["ping", &bob.id()[8..11]]).fails(5, "peer_not_found");
    bob.kill9();
    // shows: IPC-SEND-2
    let verbs = [&["send", "bob", "Hello?"][..], &["notify", "bob", "t", "1"], &["ping", "bob"]];
    for trying in verbs.map(|verb| alice.spawn(verb)) {
        trying.wait().fails(5, "peer_unreachable");
    }
}

// ---- Asking and telling -----------------------------------------------------------------------------------

#[test]
fn a_peer_is_named_by_id_prefix_or_name() {
    let (alice, bob) = pair();
    let digits = &bob.id()["ed25519.".len()..];
    let prefix = &digits[..6];
    for name in
        [bob.id(), digits, prefix, &format!("ed25519.{prefix}"), &prefix.to_uppercase(), &digits[..4], "bob"]
    {
        // shows: IPC-TO-1
        assert_eq!(alice.run(&["ping", name]).ok()["from"], bob.id(), "{name}");
    }
}

#[test]
fn a_question_is_answered_in_one_line() {
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let asking = alice.spawn(&[
        "send",
        "--domain",
        "family.calendar",
        "--max-tokens",
        "9",
        "--deadline",
        "5",
        "bob",
        "When is dinner?",
    ]);
    let query = agent.request();
    let wanted =
        json!({"question":"When is dinner?","domain":"family.calendar","max_tokens":9,"deadline_ms":5000});
    assert_eq!(query["payload"], wanted);
    agent.respond(&query, "At 7.");
    let ran = asking.wait();
    let line = ran.ok();
    assert_eq!(keys(&line), sorted(["ok", "id", "from", "kind", "payload"]));
    assert_eq!(line["id"], query["id"]);
    assert_eq!((&line["from"], &line["kind"]), (&json!(bob.id()), &json!("response")));
    assert_eq!(line["payload"], json!({"data":null,"summary":"At 7."}));
    assert_eq!(ran.stderr, "");
    assert_eq!(ran.stdout, format!("{}\n", ran.stdout.trim_end()), "one line");

    // Only what was asked is in the payload.
    let asking = alice.spawn(&["send", "bob", "--json", "Short?"]);
    let query = agent.request();
    assert_eq!(query["payload"], json!({"question":"Short?"}));
    agent.respond(&query, "Yes.");
    asking.wait().ok();
}

#[test]
fn a_question_may_come_on_stdin() {
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    for (stdin, question) in [("plain\n", "plain"), ("two\n\"lines\" ü\n\n", "two\n\"lines\" ü\n")] {
        let asking = spawn_with(alice.command(&["send", "bob", "-"]), stdin.as_bytes());
        let query = agent.request();
        assert_eq!(query["payload"]["question"], question);
        agent.respond(&query, "Read.");
        asking.wait().ok();
    }
}

#[test]
fn a_delegation_is_acked_and_its_result_waited_for() {
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["delegate"]}));
    let asking = alice.spawn(&[
        "delegate",
        "--context",
        "{\"pages\": [1, 2]}",
        "--priority",
        "urgent",
        "--deadline",
        "9",
        "bob",
        "Work",
    ]);
    let work = agent.request();
    let wanted = json!({"task":"Work","context":{"pages":[1,2]},"priority":"urgent","deadline_ms":9000});
    assert_eq!(work["payload"], wanted);
    agent.reply(&work, "ack", json!({"accepted":true,"estimated_ms":100}));
    let line = asking.wait().ok();
    assert_eq!((&line["id"], &line["kind"]), (&work["id"], &json!("ack")));
    assert_eq!(line["payload"], json!({"accepted":true,"estimated_ms":100}));

    let mut asking = alice.spawn(&["delegate", "--wait", "bob", "More"]);
    let work = agent.request();
    agent.reply(&work, "ack", json!({"accepted":true}));
    assert_eq!(asking.line()["kind"], "ack");
    agent.reply(&work, "progress", json!({"state":"running","percent":50}));
    agent.reply(&work, "result", json!({"status":"completed","outcome":"Done."}));
    let ran = asking.wait();
    let lines = ran.lines();
    assert_eq!((ran.code, lines.len()), (0, 2), "{ran:?}");
    assert_eq!(keys(&lines[1]), sorted(["ok", "id", "from", "kind", "payload"]));
    assert_eq!((&lines[1]["id"], &lines[1]["kind"]), (&work["id"], &json!("result")));
    assert_eq!(lines[1]["payload"]["outcome"], "Done.");
    // It is in the inbox too: who waited has not moved the default cursor.
    let kinds: Vec<Value> = inbox_kinds(&alice.run(&["inbox"]));
    assert!(kinds.contains(&json!("result")), "{kinds:?}");
}

fn inbox_kinds(ran: &Ran) -> Vec<Value> {
    let line = ran.ok();
    line["messages"].as_array().unwrap().iter().map(|row| row["kind"].clone()).collect()
}

#[test]
fn a_delegation_is_queued_and_taken_back_without_naming_the_peer() {
    let (alice, bob) = pair();
    // shows: CORE-DEL-2
    let queued = alice.run(&["delegate", "bob", "Later"]).ok();
    assert_eq!(queued["payload"], json!({"accepted":true,"state":"queued"}));
    let id = queued["id"].as_str().unwrap();
    // shows: IPC-TO-3, CORE-CAN-1
    let gone = alice.run(&["cancel", id, "--reason", "found it"]).ok();
    assert_eq!((&gone["kind"], &gone["payload"]["accepted"]), (&json!("ack"), &json!(true)));
    let again = alice.run(&["cancel", id]);
    assert_ne!(again.code, 0, "{again:?}");

    let mut agent = bob.answerer(json!({"answer":["delegate","cancel"]}));
    let asking = alice.spawn(&["delegate", "bob", "Now"]);
    let work = agent.request();
    agent.reply(&work, "ack", json!({"accepted":true}));
    asking.wait().ok();
    let stopping = alice.spawn(&["cancel", work["id"].as_str().unwrap(), "--reason", "too dear"]);
    let cancel = agent.request();
    assert_eq!((&cancel["ref"], &cancel["payload"]), (&work["id"], &json!({"reason":"too dear"})));
    agent.reply(&cancel, "ack", json!({"accepted":false,"reason":"Nearly done."}));
    let refused = stopping.wait().fails(4, "refused");
    assert!(refused["message"].as_str().unwrap().contains("Nearly done."), "{refused}");
}

#[test]
fn notes_are_json_if_they_parse_and_text_otherwise() {
    let (alice, bob) = pair();
    let mut reader = bob.answerer(json!({"kinds":["notify"]}));
    for (data, wanted) in [
        ("{\"open\": true}", json!({"open":true})),
        ("12", json!(12)),
        ("-5.5", json!(-5.5)),
        ("null", json!(null)),
        ("\"12\"", json!("12")),
        ("open", json!("open")),
        ("{half", json!("{half")),
        ("", json!("")),
    ] {
        let line = alice.run(&["notify", "bob", "door", data]).ok();
        assert_eq!(keys(&line), sorted(["ok", "id", "state"]));
        let event = reader.event();
        assert_eq!((&event["envelope"]["id"], &line["state"]), (&line["id"], &json!("delivered")));
        assert_eq!(event["envelope"]["payload"], json!({"topic":"door","data":wanted}), "{data}");
    }
    alice.run(&["notify", "--importance", "high", "bob", "door", "1"]).ok();
    assert_eq!(reader.event()["envelope"]["payload"]["importance"], "high");
    run_with(alice.command(&["notify", "bob", "door", "-"]), b"from stdin\n").ok();
    assert_eq!(reader.event()["envelope"]["payload"]["data"], "from stdin");
}

#[test]
fn ping_and_discover_say_what_is_there() {
    let (alice, bob) = pair();
    let pong = alice.run(&["ping", "bob"]).ok();
    assert_eq!((&pong["kind"], &pong["payload"]["status"]), (&json!("pong"), &json!("idle")));
    assert_eq!(keys(&pong), sorted(["ok", "id", "from", "kind", "payload"]));
    let told = alice.run(&["-v", "ping", "bob"]);
    assert!(told.stderr.contains("ms") && told.json()["ok"] == true, "{told:?}");
    let mut agent = bob.client();
    agent.ok(json!({"cmd":"advertise","capabilities":{"agent_name":"b","domains":["family"],"odd":1}}));
    let found = alice.run(&["discover", "bob"]).ok();
    assert_eq!(found["kind"], "capabilities");
    assert_eq!((&found["payload"]["domains"], &found["payload"]["odd"]), (&json!(["family"]), &json!(1)));
}

// ---- Reading ----------------------------------------------------------------------------------------------

#[test]
fn listening_prints_what_comes_and_acks_it() {
    let (alice, bob) = pair();
    let mut listening = bob.spawn(&["listen", "--count", "3", "--for", "9"]);
    for n in ["1", "2"] {
        alice.run(&["notify", "bob", "count", n]).ok();
    }
    let first = listening.line();
    assert_eq!(keys(&first), sorted(["seq", "from", "from_name", "trust", "kind", "id", "payload"]));
    assert_eq!((&first["from"], &first["kind"]), (&json!(alice.id()), &json!("notify")));
    assert_eq!((&first["from_name"], &first["trust"]), (&json!("alice"), &json!("known")));
    assert_eq!(listening.line()["payload"]["data"], 2);
    alice.run(&["notify", "bob", "count", "3"]).ok();
    let ran = listening.wait();
    assert_eq!((ran.code, ran.lines().len()), (0, 3), "{ran:?}");
    assert_eq!(bob.run(&["inbox"]).ok()["messages"], json!([]), "all were acked");

    // What came while nobody listened comes first, and without --no-ack only once.
    alice.run(&["notify", "bob", "count", "4"]).ok();
    let looked = bob.run(&["listen", "--no-ack", "--count", "1", "--for", "5"]);
    assert_eq!(looked.ok()["payload"]["data"], 4);
    assert_eq!(bob.run(&["listen", "--count", "1", "--for", "5"]).ok()["payload"]["data"], 4);
    bob.run(&["listen", "--count", "1", "--for", "0.1"]).fails(3, "timeout");
}

#[test]
fn listening_to_some_kinds_has_a_cursor_of_its_own() {
    let (alice, bob) = pair();
    let id = alice.run(&["delegate", "bob", "Later"]).ok()["id"].clone();
    alice.run(&["notify", "bob", "door", "1"]).ok();
    let some = bob.run(&["listen", "--kinds", "notify", "--count", "1", "--for", "5"]).ok();
    assert_eq!(some["kind"], "notify");
    // The default consumer still has both, another consumer as well.
    assert_eq!(inbox_kinds(&bob.run(&["inbox"])), [json!("delegate"), json!("notify")]);
    let mine = bob.run(&["listen", "--consumer", "mine", "--count", "2", "--for", "5"]);
    assert_eq!(mine.lines()[0]["id"], id, "{mine:?}");
    assert_eq!(bob.run(&["inbox", "--consumer", "mine"]).ok()["messages"], json!([]));
    bob.run(&["listen", "--kinds", "notify", "--count", "1", "--for", "0.1"]).fails(3, "timeout");
    // A reader that goes away is no fault.
    alice.run(&["notify", "bob", "door", "2"]).ok();
}

#[test]
fn a_request_is_taken_by_listen_and_answered_by_reply() {
    let (alice, bob) = pair();
    let taking = bob.spawn(&["listen", "--answer", "--count", "1", "--for", "9"]);
    wait_for("the answerer", || (bob.client().ok(json!({"cmd":"status"}))["answerers"] == 1).then_some(()));
    let asking = alice.spawn(&["send", "bob", "When?"]);
    let taken = taking.wait().ok();
    assert_eq!((&taken["answer"], &taken["kind"]), (&json!(true), &json!("query")));
    assert!(taken["deadline_ms"].as_u64().unwrap() <= 30_000, "{taken}");
    let id = taken["id"].as_str().unwrap();
    // It has ended, and the request is still its own. shows: IPC-LEASE-2, IPC-REP-1
    let said = bob.run(&["reply", id, "At 7."]).ok();
    assert_eq!(keys(&said), sorted(["ok", "id", "kind"]));
    assert_eq!(asking.wait().ok()["payload"]["summary"], "At 7.");
    // shows: IPC-REP-4
    bob.run(&["reply", id, "At 8."]).fails(2, "already_answered");
}

#[test]
fn every_form_of_reply_is_what_the_peer_gets() {
    let (alice, bob) = pair();
    // Takes it without reading further, so that `reply` is who answers.
    let mut holder = bob.answerer(json!({"answer":["query","delegate","cancel"]}));
    let mut ask = |args: &[&str], reply: &[&str]| {
        let asking = alice.spawn(args);
        // It is told `withdrawn` of those that `reply` has closed. shows: IPC-REP-1
        let request = holder.event_where(|event| event["event"] == "inbound");
        let id = request["envelope"]["id"].as_str().unwrap().to_owned();
        bob.run(&[&["reply", &id], reply].concat()).ok();
        (asking.wait(), id)
    };
    let (got, _) =
        ask(&["send", "bob", "?"], &["--payload", "{\"summary\":\"s\",\"data\":{\"x\":1},\"more\":2}"]);
    assert_eq!(got.ok()["payload"], json!({"summary":"s","data":{"x":1},"more":2}));
    let (got, _) = ask(&["send", "bob", "?"], &["--error", "overloaded", "--message", "After noon."]);
    assert_eq!(got.fails(4, "overloaded")["message"], "After noon.");
    let (got, _) = ask(&["send", "bob", "?"], &["--error", "timeout"]);
    got.fails(3, "timeout");
    let (got, _) = ask(&["delegate", "bob", "w"], &["--decline", "No."]);
    got.fails(4, "refused");
    let (got, id) = ask(&["delegate", "bob", "w"], &["--ack", "--estimated-ms", "7"]);
    assert_eq!(got.ok()["payload"], json!({"accepted":true,"estimated_ms":7}));

    let mut told = alice.answerer(json!({"kinds":["progress","result"]}));
    bob.run(&["reply", &id, "--progress", "running", "--percent", "40", "--note", "On it."]).ok();
    let progress = told.event()["envelope"].clone();
    assert_eq!(progress["payload"], json!({"state":"running","percent":40,"note":"On it."}));
    bob.run(&["result", &id, "Half.", "--partial", "--data", "[1]"]).ok();
    let result = told.event()["envelope"].clone();
    assert_eq!((&result["kind"], &result["ref"]), (&json!("result"), &json!(id)));
    assert_eq!(result["payload"], json!({"status":"partial","outcome":"Half.","data":[1]}));
    // shows: CORE-DEL-8
    bob.run(&["result", &id, "More."]).fails(2, "already_answered");

    let asking = alice.spawn(&["delegate", "bob", "w"]);
    let id = holder.event_where(|event| event["event"] == "inbound")["envelope"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    run_with(bob.command(&["result", "--failed", &id, "-"]), b"It broke.\n").ok();
    // shows: IPC-REP-2
    assert_eq!(asking.wait().ok()["payload"]["accepted"], true);
    assert_eq!(told.event()["envelope"]["payload"], json!({"status":"failed","outcome":"It broke."}));
}

#[test]
fn the_inbox_is_read_in_pages_and_acked() {
    let (alice, bob) = pair();
    for n in ["1.50", "2", "3"] {
        alice.run(&["notify", "bob", "count", n]).ok();
    }
    let ran = bob.run(&["inbox", "--limit", "2"]);
    // The payload is the text that came.
    assert!(ran.stdout.contains(r#""payload":{"topic":"count","data":1.50}"#), "{ran:?}");
    let page = ran.ok();
    assert_eq!(keys(&page), sorted(["ok", "messages", "next_seq", "has_more"]));
    assert_eq!((page["messages"].as_array().unwrap().len(), &page["has_more"]), (2, &json!(true)));
    // A row is a line of `listen` that says when it was made.
    let mut row = page["messages"][0].clone();
    let ts = row.as_object_mut().unwrap().remove("ts").unwrap();
    assert!(ts.as_u64().unwrap() > 1_600_000_000_000, "{ts}");
    assert_eq!(row, bob.run(&["listen", "--no-ack", "--count", "1", "--for", "5"]).ok());
    assert_eq!((&row["from"], &row["from_name"]), (&json!(alice.id()), &json!("alice")));
    let seq = page["next_seq"].as_u64().unwrap().to_string();
    let acked = bob.run(&["ack", &seq]).ok();
    assert_eq!((keys(&acked), &acked["acked_seq"]), (sorted(["ok", "acked_seq"]), &page["next_seq"]));
    let rest = bob.run(&["inbox"]).ok();
    assert_eq!(rest["messages"][0]["payload"]["data"], 3);
    // shows: IPC-ACK-1
    assert_eq!(bob.run(&["ack", "0"]).ok()["acked_seq"], page["next_seq"]);
    assert_eq!(bob.run(&["inbox", "--kinds", "result"]).ok()["messages"], json!([]));
    assert_eq!(bob.run(&["inbox", "--consumer", "other"]).ok()["messages"].as_array().unwrap().len(), 3);
}

// ---- Looking ----------------------------------------------------------------------------------------------

#[test]
fn whoami_status_and_peers_have_the_fields_of_the_specification() {
    let (alice, bob) = pair();
    let who = alice.run(&["whoami"]).ok();
    assert_eq!((&who["agent_id"], &who["public_key"]), (&json!(alice.id()), &json!(alice.pubkey())));
    assert_eq!(who["pid"], alice.pid());
    assert_eq!((&who["version"], &who["ipc_version"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(2)));
    assert_eq!(who["listen"], json!([format!("127.0.0.1:{}", alice.port())]));
    assert!(who.get("req_id").is_none(), "{who}");
    let status = alice.run(&["status"]).ok();
    for field in [
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
    ] {
        assert!(status[field].is_u64(), "{field} in {status}");
    }
    assert_eq!(status["peers_connected"], 1);
    assert_eq!(status["dropped"]["replayed"], 0);
    let peers = alice.run(&["peers"]).ok();
    let row = &peers["peers"][0];
    assert_eq!(
        (&row["id"], &row["name"], &row["status"]),
        (&json!(bob.id()), &json!("bob"), &json!("connected"))
    );
    assert_eq!((&row["source"], row["addr"].is_string()), (&json!("static"), true));
    assert!(row["rtt_ms"].is_number() && row["since_ms"].is_u64() && row["features"].is_array(), "{row}");
}

#[test]
fn remarks_go_to_stderr_and_quiet_has_none() {
    let home = Home::default();
    let loud = home.run(&["identity"]);
    assert!(loud.stderr.contains("new identity"), "{loud:?}");
    loud.ok();
    fs::remove_dir_all(home.root()).unwrap();
    let quiet = home.run(&["-q", "identity"]);
    assert_eq!(quiet.stderr, "");
    quiet.ok();
}

/// What a person sees: the command's output when stdout is a terminal. None: no `script` to make one.
fn on_a_terminal(daemon: &Daemon, args: &[&str], no_color: bool) -> Option<String> {
    let command = daemon.command(args);
    let mut words = vec![command.get_program().to_str()?.to_owned()];
    words.extend(command.get_args().map(|arg| format!("'{}'", arg.to_str().unwrap())));
    let mut script = Command::new("script");
    if cfg!(target_os = "macos") {
        script.args(["-q", "/dev/null", "sh", "-c", &words.join(" ")]);
    } else {
        script.args(["-qec", &words.join(" "), "/dev/null"]);
    }
    script.env("TERM", "xterm").env("HOME", daemon.root()).env_remove("NO_COLOR").env_remove("AXON_ROOT");
    if no_color {
        script.env("NO_COLOR", "1");
    }
    if Command::new("script").arg("--version").output().is_err() {
        return None;
    }
    Some(run(script).stdout)
}

#[test]
fn a_person_on_a_terminal_gets_text_with_colour_unless_no_color() {
    let (alice, _bob) = pair();
    let Some(shown) = on_a_terminal(&alice, &["peers"], false) else {
        support::skip("a_person_on_a_terminal", "script (bsdutils) is not installed");
        return;
    };
    assert!(shown.contains("connected") && shown.contains("\u{1b}[32m") && !shown.contains("{\""), "{shown}");
    let plain = on_a_terminal(&alice, &["peers"], true).unwrap();
    assert!(plain.contains("connected") && !plain.contains('\u{1b}'), "{plain}");
    let asked = on_a_terminal(&alice, &["peers", "--json"], false).unwrap();
    let line: Value = serde_json::from_str(asked.trim()).unwrap();
    assert_eq!(line["ok"], true);
    let failed = on_a_terminal(&alice, &["ping", "nobody"], false).unwrap();
    assert!(failed.starts_with("axon: ") && !failed.contains("{\""), "{failed}");
}

#[test]
fn plain_is_short_text_also_in_a_pipe() {
    let (alice, bob) = pair();
    let answering = bob.spawn(&["--plain", "listen", "--answer", "--count", "1"]);
    wait_for("the answerer", || (bob.client().ok(json!({"cmd":"status"}))["answerers"] == 1).then_some(()));
    let asking = alice.spawn(&["--plain", "send", "bob", "When?"]);
    let taken = answering.wait();
    // The id that is needed stands there, and once.
    let mut ids = taken.stdout.split([' ', '\n']).filter(|word| word.len() == 36);
    let id = ids.next().unwrap();
    assert_eq!((ids.next(), taken.stdout.contains("When?")), (None, true), "{taken:?}");
    assert_eq!(bob.run(&["--plain", "reply", id, "At 7."]).stdout, "sent (response)\n");
    assert_eq!(asking.wait().stdout, "At 7.\n");

    // Its first digits are enough to go on with.
    let queued = alice.run(&["--plain", "delegate", "bob", "Later"]);
    let id = queued.stdout.split_whitespace().last().unwrap();
    assert_eq!((id.len(), queued.stdout.starts_with("queued: ")), (8, true), "{queued:?}");
    assert!(alice.run(&["--plain", "cancel", id]).stdout.starts_with("accepted "));

    let failed = alice.run(&["--plain", "ping", "nobody"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (5, ""), "{failed:?}");
    assert!(failed.stderr.starts_with("axon: "), "{failed:?}");
    let both = alice.run(&["--plain", "--json", "peers"]);
    assert!(both.usage().contains("--plain"), "{both:?}");
}
