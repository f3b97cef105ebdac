//! What comes to a session of `axon mcp` lasts until the model has dealt with it, whatever happens meanwhile.

use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::mcp::{Mcp, notify};
use crate::support::{AXON, Daemon, RawClient, pair};

fn delegate(client: &mut RawClient, payload: Value) -> Value {
    let given = client.ok(json!({"cmd": "send", "to": "alice", "kind": "delegate", "payload": payload}));
    assert_eq!(given["response"]["payload"]["state"], "queued", "{given}");
    given["msg_id"].clone()
}

/// Stops a process, lets this happen, and lets it go on.
fn while_stopped(child: &Child, work: impl FnOnce()) {
    let pid = Pid::from_child(child);
    kill_process(pid, Signal::STOP).unwrap();
    work();
    kill_process(pid, Signal::CONT).unwrap();
}

/// The wait for an ack is short; the work itself has the time that its giver says, also in the next session.
#[test]
fn work_has_the_time_that_its_giver_says() {
    let (alice, bob) = pair();
    let mut mcp = Mcp::start(&alice, &["--answer", "always"]);
    mcp.call("inbox", json!({}));
    let mut giving = bob.client();
    let endless = delegate(&mut giving, json!({"task": "Take your time."}));
    let timed = delegate(&mut giving, json!({"task": "Within the hour.", "deadline_ms": 3_000_000}));
    let check = |mcp: &mut Mcp| {
        let requests = mcp.call("inbox", json!({}))["requests"].clone();
        assert_eq!((&requests[0]["id"], &requests[1]["id"]), (&timed, &endless), "{requests}");
        assert!((2900..=3000).contains(&requests[0]["secs_left"].as_u64().unwrap()), "{requests}");
        assert!(requests[1]["secs_left"].is_null(), "{requests}");
    };
    check(&mut mcp);
    assert_eq!(mcp.close(), 0);
    let mut mcp = Mcp::start(&alice, &["--answer", "always"]);
    check(&mut mcp);
    assert_eq!(mcp.call("result", json!({"id": endless, "text": "Done."}))["state"], "delivered");
    // An empty id is nobody's, not that of the only one.
    assert!(mcp.fails("reply", json!({"id": "", "text": "?"})).starts_with("not_found: "));
    // Nor is work that an earlier session took known to be this one's, and `never` leaves it alone.
    let said = mcp.call("inbox", json!({}))["said"].clone();
    assert!(said.as_str().unwrap().contains("taken before this session"), "{said}");
    let mut idle = Mcp::start(&alice, &["--answer", "never"]);
    assert_eq!(idle.call("inbox", json!({}))["requests"], json!([]));
    // What is taken back while the model works on it wakes it.
    let no_need = json!({"reason": "No need."});
    giving.ok(json!({"cmd": "send", "to": "alice", "kind": "cancel", "ref": timed, "payload": no_need}));
    let wake = loop {
        let wake = mcp.woken();
        if wake["meta"]["kind"] == "cancel" {
            break wake;
        }
    };
    assert_eq!(wake["content"], "takes it back\nreason: No need.");
    assert!(timed.as_str().unwrap().starts_with(wake["meta"]["ref"].as_str().unwrap()), "{wake}");
    assert_eq!(mcp.call("inbox", json!({}))["requests"], json!([]));
}

/// What comes before a session has found its daemon again wakes it and ends its calls all the same.
#[test]
fn nothing_that_came_meanwhile_is_missed() {
    let (mut alice, bob) = pair();
    let mut mcp = Mcp::start(&alice, &[]);
    mcp.call("inbox", json!({}));
    let mut working = bob.answerer(json!({"answer": ["delegate"], "lease": true}));
    let given =
        mcp.begin("tools/call", json!({"name": "delegate", "arguments": {"peer": "bob", "task": "?"}}));
    let request = working.request();
    working.reply(&request, "ack", json!({"accepted": true}));
    let given = mcp.finish(given)["result"]["structuredContent"].clone();
    let waiting =
        mcp.begin("tools/call", json!({"name": "wait", "arguments": {"id": given["id"], "secs": 600}}));
    // It is answered after that wait has begun.
    mcp.call("status", json!({}));
    let child = std::mem::replace(&mut mcp.child, Command::new("true").spawn().unwrap());
    while_stopped(&child, || {
        alice.terminate();
        alice.up();
        bob.wait_peer(&alice, true);
        notify(&bob, "alice", "meanwhile");
        working.reply(&request, "result", json!({"status": "completed", "outcome": "Done."}));
    });
    mcp.child = child;
    let ended = mcp.finish(waiting)["result"].clone();
    mcp.check("wait", &ended);
    assert_eq!(ended["structuredContent"]["text"], "Done.", "{ended}");
    loop {
        if mcp.woken()["content"] == "t: meanwhile" {
            break;
        }
    }
}

/// A page of the inbox has a bound in bytes: long messages that the model has not dealt with, such as those
/// of strangers, hide none that came after.
#[test]
fn long_messages_hide_none_behind_them() {
    let (alice, bob) = pair();
    let mut mcp = Mcp::start(&alice, &["--answer", "always"]);
    mcp.call("inbox", json!({}));
    let mut giving = bob.client();
    let ids: Vec<Value> =
        (0..20).map(|_| delegate(&mut giving, json!({"task": "x".repeat(60_000)}))).collect();
    notify(&bob, "alice", "behind");
    let inbox = mcp.call("inbox", json!({}));
    let requests = inbox["requests"].as_array().unwrap();
    assert_eq!((requests.len(), &inbox["more"], &requests[0]["cut"]), (10, &json!(true), &json!(true)));
    assert!(inbox["said"].as_str().unwrap().contains("raise limit"));
    assert_eq!(inbox["messages"][0]["text"], "t: behind", "{inbox}");
    assert_eq!(mcp.call("status", json!({}))["unread"], 1);
    for id in &ids {
        mcp.call("reply", json!({"id": id, "text": "Too long.", "decline": true}));
    }
    let inbox = mcp.call("inbox", json!({"ack": inbox["messages"][0]["seq"]}));
    assert_eq!((&inbox["messages"], &inbox["more"]), (&json!([]), &json!(false)), "{inbox}");
}

/// A client may pass nothing on of what should wake it: a call shows it too.
#[test]
fn what_was_only_pushed_is_waited_for_as_well() {
    let (alice, bob) = pair();
    let mut mcp = Mcp::start(&alice, &["--answer", "always"]);
    mcp.call("inbox", json!({}));
    notify(&bob, "alice", "pushed");
    let seq: u64 = mcp.woken()["meta"]["seq"].as_str().unwrap().parse().unwrap();
    let came = mcp.call("wait", json!({"secs": 5}));
    assert_eq!(came["messages"][0]["text"], "t: pushed", "{came}");
    assert_eq!(mcp.call("wait", json!({"secs": 1}))["state"], "nothing");
    // And what was pushed may be acked without another look.
    notify(&bob, "alice", "again");
    let next: u64 = mcp.woken()["meta"]["seq"].as_str().unwrap().parse().unwrap();
    assert!(next > seq);
    assert_eq!(mcp.call("inbox", json!({"ack": next}))["messages"], json!([]));
}

/// A refusal is a peer's word too, under the name and level that are known of it.
#[test]
fn refusals_name_who_refuses() {
    let (alice, bob) = pair();
    let mut answering = bob.answerer(json!({"answer": ["query"]}));
    let mut mcp = Mcp::start(&alice, &[]);
    let call = json!({"name": "ask", "arguments": {"peer": "bob", "question": "?"}});
    let asked = mcp.begin("tools/call", call);
    let request = answering.request();
    let why = json!({"code": "not_authorized", "message": "Not you.", "retryable": false});
    answering.reply(&request, "error", why);
    let said = mcp.finish(asked)["result"]["content"][0]["text"].clone();
    let text =
        "not_authorized: bob refused or failed:\n<peer name=\"bob\" trust=\"known\">\nNot you.\n</peer>";
    assert_eq!(said, text);
}

/// What a socket may not do keeps nothing else from working; and who is away can be written to.
#[test]
fn errors_leave_a_way() {
    let (alice, mut bob) = pair();
    bob.terminate();
    let socket = alice.client().ok(json!({"cmd": "socket_add", "name": "s", "allow": ["inbox"]}));
    let mut command = Command::new(AXON);
    command.args(["--socket", socket["path"].as_str().unwrap(), "mcp"]).env("HOME", alice.root());
    let status = Mcp::run(command).call("status", json!({}));
    assert_eq!(status["delegations"], json!([]));
    let mut mcp = Mcp::start(&alice, &[]);
    let fails = mcp.fails("notify", json!({"peer": "bob", "topic": "t", "data": "d"}));
    assert!(fails.starts_with("peer_unreachable: ") && fails.contains("hold_secs"), "{fails}");
}

/// What some clients send for an argument that is left out is taken so, and what is wrong is named.
#[test]
fn arguments_that_are_left_out_or_wrong() {
    let daemon = Daemon::start("");
    let mut mcp = Mcp::start(&daemon, &[]);
    assert_eq!(mcp.call("wait", json!({"id": "", "secs": 1}))["state"], "nothing");
    assert_eq!(mcp.call("inbox", json!({"id": "", "unknown": null, "ack": null}))["more"], false);
    assert_eq!(mcp.call("peers", json!({"peer": ""}))["peers"], json!([]));
    let wrong = mcp.fails("advertise", json!({"name": "a", "domains": "home", "tools": []}));
    assert!(wrong.starts_with("wrong arguments: domains: "), "{wrong}");
    let wrong = mcp.fails("ask", json!({"peer": "bob", "question": "?", "secs": "30"}));
    assert!(wrong.starts_with("wrong arguments: secs: "), "{wrong}");
}
