//! Delegations: ack, progress, result, the queue, agents that vanish, cancel.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Daemon, RawClient, pair, wait_for};

/// Sends a delegation and gives the reply; `extra` are fields of its payload besides the task.
fn delegate(asker: &mut RawClient, mut extra: Value) -> Value {
    extra["task"] = "work".into();
    asker.ok(json!({"cmd":"send","to":"bob","kind":"delegate","payload":extra}))
}

/// Begins one that an agent will ack.
fn begin_delegate(asker: &mut RawClient, mut extra: Value) -> String {
    extra["task"] = "work".into();
    asker.begin(json!({"cmd":"send","to":"bob","kind":"delegate","payload":extra}))
}

fn begin_cancel(asker: &mut RawClient, id: &Value) -> String {
    asker.begin(json!({"cmd":"send","kind":"cancel","ref":id,"payload":{"reason":"no need"}}))
}

/// The answer's kind and payload.
fn answer(reply: &Value) -> (String, Value) {
    assert_eq!(reply["ok"], true, "{reply}");
    (reply["response"]["kind"].as_str().unwrap().to_owned(), reply["response"]["payload"].clone())
}

/// A client at the delegator that sees what comes in, from now on.
fn watcher(daemon: &Daemon) -> RawClient {
    daemon.answerer(json!({"kinds":["progress","result"],"replay":false}))
}

/// The next message that a watcher sees must be of this kind and about this delegation; its payload.
fn news(watcher: &mut RawClient, kind: &str, id: &Value) -> Value {
    let event = watcher.event();
    assert_eq!((&event["envelope"]["kind"], &event["envelope"]["ref"]), (&json!(kind), id), "{event}");
    event["envelope"]["payload"].clone()
}

fn error_code(reply: &Value) -> String {
    let (kind, payload) = answer(reply);
    assert_eq!(kind, "error", "{reply}");
    payload["code"].as_str().unwrap().to_owned()
}

const ANSWERS: &str = r#"{"answer":["query","delegate","cancel"]}"#;

fn agent_of(daemon: &Daemon) -> RawClient {
    daemon.answerer(serde_json::from_str(ANSWERS).unwrap())
}

#[test]
fn ack_progress_and_result_reach_the_sender() {
    // shows: CORE-DEL-1, CORE-DEL-3, CORE-DEL-8, IPC-REP-4
    let (alice, bob) = pair();
    let mut agent = agent_of(&bob);
    let mut watch = watcher(&alice);
    let mut asker = alice.client();
    let req = begin_delegate(&mut asker, json!({"context":{"k":1},"priority":"urgent"}));
    let event = agent.event();
    assert_eq!(event["answer"], true);
    assert_eq!(event.get("queued"), None, "{event}");
    let work = event["envelope"].clone();
    assert_eq!(work["payload"], json!({"task":"work","context":{"k":1},"priority":"urgent"}));
    let ack = json!({"accepted":true,"estimated_ms":5});
    assert_eq!(agent.reply(&work, "ack", ack.clone())["ok"], true);
    let reply = asker.finish(&req);
    assert_eq!(answer(&reply), ("ack".into(), ack));
    assert_eq!(reply["msg_id"], work["id"]);
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true}))["error"], "already_answered");
    for percent in [10, 60] {
        let progress = json!({"state":"running","percent":percent,"note":"n","eta_ms":9});
        assert_eq!(agent.reply(&work, "progress", progress.clone())["ok"], true);
        assert_eq!(news(&mut watch, "progress", &work["id"]), progress);
    }
    let said = agent.reply(&work, "progress", json!({"percent":1}));
    assert_eq!(said["error"], "invalid_command");
    assert!(said["message"].as_str().unwrap().contains("state"), "{said}");
    let said = agent.reply(&work, "result", json!({"status":"completed"}));
    assert!(said["message"].as_str().unwrap().contains("outcome"), "{said}");
    let result = json!({"status":"partial","outcome":"half","data":[1]});
    assert_eq!(agent.reply(&work, "result", result.clone())["ok"], true);
    assert_eq!(news(&mut watch, "result", &work["id"]), result);
    for (kind, payload) in
        [("result", result), ("progress", json!({"state":"running"})), ("ack", json!({"accepted":true}))]
    {
        assert_eq!(agent.reply(&work, kind, payload)["error"], "already_answered", "{kind}");
    }
    watch.silent();
    agent.silent();
    // It stays in the receiver's inbox; progress and result are in the sender's.
    let kinds = |daemon: &Daemon| {
        let rows = daemon.client().ok(json!({"cmd":"inbox"}))["messages"].clone();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["envelope"]["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&bob), ["delegate"]);
    assert_eq!(kinds(&alice), ["progress", "progress", "result"]);
}

#[test]
fn a_result_without_an_ack_acks_first() {
    // shows: CORE-DEL-4, IPC-REP-2
    let (alice, bob) = pair();
    let mut agent = agent_of(&bob);
    let mut watch = watcher(&alice);
    let mut asker = alice.client();
    let req = begin_delegate(&mut asker, json!({}));
    let work = agent.request();
    assert_eq!(agent.reply(&work, "result", json!({"status":"completed","outcome":"o"}))["ok"], true);
    let (kind, ack) = answer(&asker.finish(&req));
    assert_eq!((kind.as_str(), &ack["accepted"]), ("ack", &json!(true)));
    assert_eq!(news(&mut watch, "result", &work["id"])["outcome"], "o");
}

#[test]
fn declined_and_refused_ends_it() {
    // shows: CORE-DEL-3
    let (alice, bob) = pair();
    let mut agent = agent_of(&bob);
    let mut asker = alice.client();
    for (kind, payload) in [
        ("ack", json!({"accepted":false,"reason":"busy"})),
        ("error", json!({"code":"not_mine","message":"Ask another.","retryable":false})),
    ] {
        let req = begin_delegate(&mut asker, json!({}));
        let work = agent.request();
        assert_eq!(agent.reply(&work, kind, payload.clone())["ok"], true);
        assert_eq!(answer(&asker.finish(&req)), (kind.into(), payload));
        let late = agent.reply(&work, "result", json!({"status":"completed","outcome":"o"}));
        assert_eq!(late["error"], "already_answered");
    }
}

#[test]
fn without_an_agent_it_is_queued_and_handed_over_later() {
    // shows: CORE-DEL-2, CORE-DEL-5, IPC-ANS-6, IPC-REP-3
    let (alice, bob) = pair();
    // An answerer of queries alone is no answerer of delegations.
    let _other = bob.answerer(json!({"answer":["query"]}));
    let mut watch = watcher(&alice);
    let mut asker = alice.client();
    let reply = delegate(&mut asker, json!({}));
    assert_eq!(answer(&reply), ("ack".into(), json!({"accepted":true,"state":"queued"})));
    let id = &reply["msg_id"];
    let rows = bob.client().ok(json!({"cmd":"inbox"}));
    assert_eq!(&rows["messages"][0]["envelope"]["id"], id, "{rows}");
    assert_eq!(rows["messages"].as_array().unwrap().len(), 1);
    let status = bob.client().ok(json!({"cmd":"status"}));
    assert_eq!((&status["queued"], &status["active_tasks"]), (&json!(1), &json!(1)), "{status}");

    // Whatever `replay` says.
    let mut agent = bob.answerer(json!({"answer":["delegate"],"replay":false}));
    let event = agent.event();
    assert_eq!((&event["answer"], &event["queued"]), (&json!(true), &json!(true)), "{event}");
    assert_eq!(&event["envelope"]["id"], id);
    assert_eq!(event.get("deadline_ms"), None, "it has none: {event}");
    let work = event["envelope"].clone();
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true}))["ok"], true);
    assert_eq!(news(&mut watch, "progress", id)["state"], "accepted");
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true}))["error"], "already_answered");
    assert_eq!(agent.reply(&work, "result", json!({"status":"completed","outcome":"o"}))["ok"], true);
    assert_eq!(news(&mut watch, "result", id)["status"], "completed");
    watch.silent();
}

#[test]
fn a_queued_one_that_was_replayed_comes_again_to_be_answered() {
    // shows: IPC-SUB-1, IPC-SUB-4, CORE-DEL-5
    let (alice, bob) = pair();
    let mut watch = watcher(&alice);
    let mut asker = alice.client();
    let first = delegate(&mut asker, json!({}))["msg_id"].clone();
    let second = delegate(&mut asker, json!({}))["msg_id"].clone();
    let mut agent = bob.answerer(json!({"answer":["delegate"],"kinds":["delegate"],"capacity":1}));
    for id in [&first, &second] {
        let event = agent.event();
        assert_eq!((&event["replay"], event.get("answer")), (&json!(true), None), "{event}");
        assert_eq!(&event["envelope"]["id"], id);
    }
    let event = agent.event();
    assert_eq!((&event["answer"], &event["queued"]), (&json!(true), &json!(true)), "{event}");
    assert_eq!(event["envelope"]["id"], first, "the oldest first, one at a time");
    agent.silent();
    // A queued one that is declined becomes a failed result; then there is room for the next.
    assert_eq!(
        agent.reply(&event["envelope"], "ack", json!({"accepted":false,"reason":"too hard"}))["ok"],
        true
    );
    let result = news(&mut watch, "result", &first);
    assert_eq!(result["status"], "failed", "{result}");
    assert!(result.to_string().contains("too hard"), "{result}");
    let work = agent.request();
    assert_eq!(work["id"], second);
    let error = json!({"code":"c","message":"Went wrong.","retryable":false});
    assert_eq!(agent.reply(&work, "error", error)["ok"], true);
    let result = news(&mut watch, "result", &second);
    assert_eq!(result["status"], "failed");
    assert!(result.to_string().contains("Went wrong."), "{result}");
}

#[test]
fn an_agent_that_vanishes_is_replaced_once() {
    // shows: CORE-DEL-6, IPC-LEASE-3
    let (alice, bob) = pair();
    let mut first = agent_of(&bob);
    let mut watch = watcher(&alice);
    let mut asker = alice.client();
    let req = begin_delegate(&mut asker, json!({}));
    let work = first.request();
    first.reply(&work, "ack", json!({"accepted":true}));
    asker.finish(&req);
    drop(first);
    assert_eq!(news(&mut watch, "progress", &work["id"])["state"], "queued");
    assert_eq!(bob.client().ok(json!({"cmd":"status"}))["queued"], 1);
    let mut second = agent_of(&bob);
    let event = second.event();
    assert_eq!((&event["envelope"]["id"], &event["queued"]), (&work["id"], &json!(true)), "{event}");
    assert_eq!(second.reply(&work, "ack", json!({"accepted":true}))["ok"], true);
    assert_eq!(news(&mut watch, "progress", &work["id"])["state"], "accepted");
    drop(second);
    assert_eq!(news(&mut watch, "result", &work["id"])["status"], "failed");
    assert_eq!(bob.client().ok(json!({"cmd":"status"}))["open_requests"], 0);
    let mut third = agent_of(&bob);
    third.silent();
    watch.silent();
}

#[test]
fn one_that_vanishes_before_it_has_acked_is_replaced_by_the_next() {
    // shows: IPC-LEASE-1
    let (alice, bob) = pair();
    let mut first = agent_of(&bob);
    let mut asker = alice.client();
    let req = begin_delegate(&mut asker, json!({}));
    first.request();
    let mut second = agent_of(&bob);
    drop(first);
    let work = second.request();
    drop(second);
    // Nobody left: it is queued, and that is the answer on its stream.
    assert_eq!(answer(&asker.finish(&req)), ("ack".into(), json!({"accepted":true,"state":"queued"})));
    let mut third = agent_of(&bob);
    assert_eq!(third.request()["id"], work["id"]);
}

#[test]
fn with_a_lease_it_stays_its_own() {
    // shows: IPC-LEASE-2, IPC-REP-1, IPC-REP-2, IPC-DEL-1: what others report is not told to this client
    let (alice, bob) = pair();
    let mut leased = bob.answerer(json!({"answer":["delegate"],"lease":true}));
    let mut watch = watcher(&alice);
    let mut asker = alice.client();
    let req = begin_delegate(&mut asker, json!({}));
    let work = leased.request();
    leased.reply(&work, "ack", json!({"accepted":true}));
    asker.finish(&req);
    drop(leased);
    let mut other = agent_of(&bob);
    other.silent();
    // The shell: another client each time.
    assert_eq!(bob.client().reply(&work, "progress", json!({"state":"running"}))["ok"], true);
    assert_eq!(bob.client().reply(&work, "result", json!({"status":"completed","outcome":"o"}))["ok"], true);
    assert_eq!(news(&mut watch, "progress", &work["id"])["state"], "running");
    assert_eq!(news(&mut watch, "result", &work["id"])["outcome"], "o");
    other.silent();
    // A client that accepts what it was not handed holds it with a lease.
    let id = {
        let mut gone = agent_of(&bob);
        drop(other);
        wait_for("the other to be gone", || {
            (gone.ok(json!({"cmd":"status"}))["answerers"] == 1).then_some(())
        });
        let req = begin_delegate(&mut asker, json!({}));
        let work = gone.request();
        let mut shell = bob.client();
        assert_eq!(shell.reply(&work, "ack", json!({"accepted":true}))["ok"], true);
        asker.finish(&req);
        drop(shell);
        work["id"].clone()
    };
    let mut next = agent_of(&bob);
    next.silent();
    assert_eq!(
        bob.client().reply(&json!({"id":id}), "result", json!({"status":"completed","outcome":"p"}))["ok"],
        true
    );
    assert_eq!(news(&mut watch, "result", &id)["outcome"], "p");
}

#[test]
fn report_back_false_means_no_result_at_all() {
    // shows: CORE-DEL-9, IPC-REP-5
    let (alice, bob) = pair();
    let mut watch = watcher(&alice);
    let mut asker = alice.client();
    let mut agent = agent_of(&bob);
    let done = json!({"status":"completed","outcome":"o"});
    let req = begin_delegate(&mut asker, json!({"report_back":false}));
    let work = agent.request();
    agent.reply(&work, "ack", json!({"accepted":true}));
    asker.finish(&req);
    assert_eq!(agent.reply(&work, "result", done.clone())["ok"], true);
    assert_eq!(agent.reply(&work, "result", done)["error"], "already_answered");

    // Nor a failed one: an error after the ack,
    let req = begin_delegate(&mut asker, json!({"report_back":false}));
    let work = agent.request();
    agent.reply(&work, "ack", json!({"accepted":true}));
    asker.finish(&req);
    let error = json!({"code":"c","message":"m","retryable":false});
    assert_eq!(agent.reply(&work, "error", error)["ok"], true);
    // and a queued one that is declined.
    drop(agent);
    wait_for("the agent to be gone", || {
        (bob.client().ok(json!({"cmd":"status"}))["answerers"] == 0).then_some(())
    });
    delegate(&mut asker, json!({"report_back":false}));
    let mut agent = agent_of(&bob);
    let work = agent.request();
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":false}))["ok"], true);
    assert_eq!(bob.client().ok(json!({"cmd":"status"}))["open_requests"], 0);
    // What had been sent would have overtaken nothing: a notify comes after it.
    bob.client().ok(json!({"cmd":"send","to":"alice","kind":"ping"}));
    watch.silent();
}

#[test]
fn its_deadline_ends_it_with_a_failed_result() {
    // shows: CORE-DEL-1, CORE-DEL-7, IPC-WD-1
    let (alice, bob) = pair();
    let mut watch = watcher(&alice);
    let mut asker = alice.client();
    // Queued until then.
    let queued = delegate(&mut asker, json!({"deadline_ms":300}))["msg_id"].clone();
    assert_eq!(news(&mut watch, "result", &queued)["status"], "failed");
    let mut agent = agent_of(&bob);
    agent.silent();
    // Held, and accepted.
    let start = Instant::now();
    let req = begin_delegate(&mut asker, json!({"deadline_ms":600}));
    let event = agent.event();
    assert!(event["deadline_ms"].as_u64().unwrap() <= 600, "{event}");
    let work = &event["envelope"];
    agent.reply(work, "ack", json!({"accepted":true}));
    asker.finish(&req);
    assert_eq!(news(&mut watch, "result", &work["id"])["status"], "failed");
    assert!(start.elapsed() >= Duration::from_millis(600));
    assert_eq!(agent.event(), json!({"event":"withdrawn","ref":work["id"],"reason":"timeout"}));
    assert_eq!(agent.reply(work, "result", json!({"status":"completed","outcome":"o"}))["error"], "timeout");
    // Held, and not acked.
    let req = begin_delegate(&mut asker, json!({"deadline_ms":300}));
    agent.request();
    assert_eq!(error_code(&asker.finish(&req)), "timeout");
    // All at capacity until then.
    let mut small = bob.answerer(json!({"answer":["delegate"],"capacity":1}));
    drop(agent);
    wait_for("the other to be gone", || (small.ok(json!({"cmd":"status"}))["answerers"] == 1).then_some(()));
    begin_delegate(&mut asker, json!({}));
    small.request();
    let req = begin_delegate(&mut asker, json!({"deadline_ms":300}));
    assert_eq!(error_code(&asker.finish(&req)), "overloaded");
    watch.silent();
}

#[test]
fn a_cancel_goes_to_the_agent_that_holds_it() {
    // shows: CORE-CAN-1, CORE-CAN-2, CORE-CAN-3, IPC-ANS-7, IPC-BOX-1, IPC-BOX-3, IPC-REP-4
    let (alice, bob) = pair();
    // Full already: a cancel comes whatever the capacity.
    let mut holder = bob.answerer(json!({"answer":["delegate","cancel"],"capacity":1}));
    let mut asker = alice.client();
    let mut watch = watcher(&alice);
    let req = begin_delegate(&mut asker, json!({}));
    let work = holder.request();
    holder.reply(&work, "ack", json!({"accepted":true}));
    asker.finish(&req);
    let mut other = agent_of(&bob);

    // Declined: nothing changes.
    let req = begin_cancel(&mut asker, &work["id"]);
    let event = holder.event();
    assert_eq!(event["answer"], true);
    let cancel = event["envelope"].clone();
    assert_eq!((&cancel["kind"], &cancel["ref"]), (&json!("cancel"), &work["id"]));
    assert_eq!(cancel["payload"], json!({"reason":"no need"}));
    let rows = bob.client().ok(json!({"cmd":"inbox"}));
    assert_eq!(rows["messages"][1]["envelope"], cancel, "an open cancel stands in the inbox: {rows}");
    let declined = json!({"accepted":false,"reason":"almost done"});
    assert_eq!(holder.reply(&cancel, "ack", declined.clone())["ok"], true);
    assert_eq!(answer(&asker.finish(&req)), ("ack".into(), declined));
    let rows = bob.client().ok(json!({"cmd":"inbox"}));
    assert_eq!(rows["messages"].as_array().unwrap().len(), 1, "and is gone after: {rows}");
    assert_eq!(holder.reply(&work, "progress", json!({"state":"running"}))["ok"], true);
    news(&mut watch, "progress", &work["id"]);

    // Accepted: it has ended.
    let req = begin_cancel(&mut asker, &work["id"]);
    let cancel = holder.request();
    assert_eq!(holder.reply(&cancel, "ack", json!({"accepted":true}))["ok"], true);
    assert_eq!(answer(&asker.finish(&req)).1["accepted"], true);
    let late = holder.reply(&work, "result", json!({"status":"completed","outcome":"o"}));
    assert_eq!(late["error"], "not_found", "{late}");
    assert_eq!(bob.client().ok(json!({"cmd":"status"}))["open_requests"], 0);

    // Once more: it has ended already.
    let req = begin_cancel(&mut asker, &work["id"]);
    let (kind, ack) = answer(&asker.finish(&req));
    assert_eq!((kind.as_str(), &ack["accepted"]), ("ack", &json!(false)));
    assert!(ack["reason"].is_string(), "{ack}");
    for client in [&mut other, &mut watch] {
        client.silent();
    }
}

#[test]
fn a_cancel_before_the_ack_ends_the_delegations_own_stream() {
    // shows: CORE-CAN-2
    let (alice, bob) = pair();
    let mut agent = agent_of(&bob);
    let mut asker = alice.client();
    let req = begin_delegate(&mut asker, json!({}));
    let work = agent.request();
    let stop = begin_cancel(&mut asker, &work["id"]);
    let cancel = agent.request();
    assert_eq!(agent.reply(&cancel, "ack", json!({"accepted":true}))["ok"], true);
    assert_eq!(answer(&asker.finish(&stop)).1["accepted"], true);
    assert_eq!(error_code(&asker.finish(&req)), "cancelled");
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true}))["error"], "not_found");
}

#[test]
fn a_queued_one_is_cancelled_by_the_daemon() {
    // shows: CORE-CAN-1
    let (alice, bob) = pair();
    let mut asker = alice.client();
    let mut watch = watcher(&alice);
    let id = delegate(&mut asker, json!({}))["msg_id"].clone();
    let req = begin_cancel(&mut asker, &id);
    assert_eq!(answer(&asker.finish(&req)), ("ack".into(), json!({"accepted":true})));
    assert_eq!(bob.client().ok(json!({"cmd":"status"}))["queued"], 0);
    let mut agent = agent_of(&bob);
    agent.silent();
    watch.silent();
    // One that waits for capacity, unanswered.
    let mut small = bob.answerer(json!({"answer":["delegate","cancel"],"capacity":1}));
    drop(agent);
    wait_for("the other to be gone", || (small.ok(json!({"cmd":"status"}))["answerers"] == 1).then_some(()));
    begin_delegate(&mut asker, json!({}));
    small.request();
    let waiting = begin_delegate(&mut asker, json!({}));
    let waits = wait_for("the second to wait", || {
        let rows = bob.client().ok(json!({"cmd":"inbox"}))["messages"].clone();
        rows.get(2).map(|row| row["envelope"]["id"].clone())
    });
    let req = begin_cancel(&mut asker, &waits);
    assert_eq!(answer(&asker.finish(&req)).1["accepted"], true);
    assert_eq!(error_code(&asker.finish(&waiting)), "cancelled");
    small.silent();
}

#[test]
fn a_cancel_that_nobody_can_serve_is_refused() {
    // shows: CORE-CAN-1, IPC-TO-3, WF-REF-1
    let (alice, bob) = pair();
    let mut asker = alice.client();
    let unknown = json!("faa5f8da-e37d-4458-a095-93f877adfc0b");
    let cancel = json!({"cmd":"send","kind":"cancel","ref":unknown});
    asker.fails(cancel, "not_found");
    let cancel = json!({"cmd":"send","to":"bob","kind":"cancel","ref":unknown});
    assert_eq!(error_code(&asker.cmd(cancel)), "not_authorized");
    let message = asker.fails(json!({"cmd":"send","to":"bob","kind":"cancel"}), "invalid_command");
    assert!(message.contains("ref"), "{message}");

    // Its holder takes no cancel, though another one does.
    let mut holder = bob.answerer(json!({"answer":["delegate"]}));
    let mut other = bob.answerer(json!({"answer":["cancel"]}));
    let req = begin_delegate(&mut asker, json!({}));
    let work = holder.request();
    holder.reply(&work, "ack", json!({"accepted":true}));
    asker.finish(&req);
    let req = begin_cancel(&mut asker, &work["id"]);
    assert_eq!(error_code(&asker.finish(&req)), "unhandled");
    holder.silent();
    other.silent();
}

#[test]
fn a_cancel_whose_holder_vanishes_is_for_the_daemon() {
    // shows: CORE-CAN-1, IPC-ANS-7: nobody holds the delegation any longer
    let (alice, bob) = pair();
    let mut holder = agent_of(&bob);
    let mut other = bob.answerer(json!({"answer":["cancel"]}));
    let mut asker = alice.client();
    let req = begin_delegate(&mut asker, json!({}));
    let work = holder.request();
    holder.reply(&work, "ack", json!({"accepted":true}));
    asker.finish(&req);
    let req = begin_cancel(&mut asker, &work["id"]);
    holder.request();
    drop(holder);
    assert_eq!(answer(&asker.finish(&req)).1["accepted"], true);
    other.silent();
    let mut next = agent_of(&bob);
    next.silent();
}

#[test]
fn a_result_for_a_peer_that_is_away_is_not_lost() {
    // shows: IPC-REP-7, IPC-OUT-11, IPC-DEL-1, CORE-DEL-12, CORE-DEL-13, and the errors of IPC section 3.7
    let (mut alice, bob) = pair();
    let mut agent = agent_of(&bob);
    let mut asker = alice.client();
    let req = begin_delegate(&mut asker, json!({}));
    let work = agent.request();
    agent.reply(&work, "ack", json!({"accepted":true}));
    asker.finish(&req);
    assert_eq!(alice.terminate().code(), Some(0));
    bob.wait_peer(&alice, false);
    let done = json!({"status":"completed","outcome":"o"});
    assert_eq!(agent.reply(&work, "progress", json!({"state":"running"}))["error"], "not_offered");
    assert_eq!(agent.ok(json!({"cmd":"status"}))["open_requests"], 1, "it stays open");
    let held = agent.reply(&work, "result", done.clone());
    assert_eq!((&held["ok"], &held["state"]), (&json!(true), &json!("held")), "{held}");
    assert_eq!(agent.reply(&work, "result", done.clone())["error"], "already_answered");
    assert_eq!(agent.ok(json!({"cmd":"status"}))["open_requests"], 0, "it has ended");
    agent.silent();
    let row =
        |client: &mut RawClient| client.ok(json!({"cmd":"outbox","id":held["msg_id"]}))["outbox"][0].clone();
    let waits = row(&mut agent);
    assert_eq!(
        (&waits["kind"], &waits["state"], &waits["to"]),
        (&json!("result"), &json!("held"), &json!(alice.id()))
    );

    alice.up();
    // It comes by itself, once, to a sender that has not forgotten what it gave away.
    assert_eq!(agent.event(), json!({"event":"delivery","id":held["msg_id"],"state":"delivered"}));
    assert_eq!(row(&mut agent)["state"], "delivered");
    let page = alice.client().ok(json!({"cmd":"inbox"}));
    assert_eq!(page["messages"].as_array().unwrap().len(), 1, "{page}");
    let result = &page["messages"][0]["envelope"];
    assert_eq!(
        (&result["id"], &result["kind"], &result["ref"], &result["payload"]),
        (&held["msg_id"], &json!("result"), &work["id"], &done)
    );
    let status = alice.client().ok(json!({"cmd":"status"}));
    assert_eq!(status["dropped"]["not_authorized"], 0, "{status}");
    agent.silent();
}

#[test]
fn the_queue_is_bounded() {
    // shows: IPC-ANS-5, WF section 8: 1024 wait at most, 512 of one peer
    let (alice, bob) = pair();
    let mut asker = alice.client();
    for _ in 0..4 {
        let reqs: Vec<String> = (0..128).map(|_| begin_delegate(&mut asker, json!({}))).collect();
        for req in reqs {
            assert_eq!(answer(&asker.finish(&req)).1["state"], "queued");
        }
    }
    let req = begin_delegate(&mut asker, json!({}));
    let reply = asker.finish(&req);
    assert_eq!(error_code(&reply), "overloaded");
    assert_eq!(bob.client().ok(json!({"cmd":"status"}))["queued"], 512);
    let id = bob.client().ok(json!({"cmd":"inbox","limit":1}))["messages"][0]["envelope"]["id"].clone();
    assert!(id.is_string());
    // One is taken: there is room for one.
    let mut agent = bob.answerer(json!({"answer":["delegate"],"capacity":1}));
    agent.request();
    let req = begin_delegate(&mut asker, json!({}));
    let (kind, ack) = answer(&{
        // All are at capacity now, so this one waits unacked until the agent has room or is gone.
        wait_for("it to wait", || (bob.client().ok(json!({"cmd":"status"}))["queued"] == 512).then_some(()));
        drop(agent);
        asker.finish(&req)
    });
    assert_eq!((kind.as_str(), &ack["state"]), ("ack", &json!("queued")));
}
