//! Delegations that outlive their daemons, from outside: kill -9 of either side at every stage.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::kept::{
    SOON, crash, inbox, ledger_row, outbox_row, rejoin, rows, wait_ledger, wait_outbox,
};
use crate::support::{Daemon, RawClient, pair_with, wait_for};

fn soon() -> (Daemon, Daemon) {
    pair_with(SOON, SOON)
}

/// The command that gives bob a task; `extra` are fields of its payload.
fn task(mut extra: Value) -> Value {
    extra["task"] = "work".into();
    json!({"cmd":"send","to":"bob","kind":"delegate","payload":extra})
}

/// Gives bob, who has no agent, a task: it must be queued. Gives its id.
fn queue(alice: &Daemon, extra: Value) -> Value {
    let reply = alice.client().ok(task(extra));
    assert_eq!(reply["response"]["payload"], json!({"accepted":true,"state":"queued"}), "{reply}");
    reply["msg_id"].clone()
}

fn agent_of(daemon: &Daemon) -> RawClient {
    daemon.answerer(json!({"answer":["delegate","cancel"]}))
}

/// Gives bob's agent a task, which it accepts. Gives its envelope.
fn accepted(alice: &Daemon, agent: &mut RawClient) -> Value {
    let mut asker = alice.client();
    let req = asker.begin(task(json!({})));
    let work = agent.request();
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true}))["ok"], true);
    assert_eq!(asker.finish(&req)["response"]["payload"], json!({"accepted":true}));
    work
}

/// Who accepted it may reach the disk up to a second later (IPC-DLG-3), and no event tells of that.
fn settle() {
    std::thread::sleep(Duration::from_millis(1_200)); // more than that second
}

const DONE: &str = "all done";

fn done() -> Value {
    json!({"status":"completed","outcome":DONE,"data":[1,2]})
}

/// The messages of this kind about this delegation in the inbox: their payloads.
fn told(daemon: &Daemon, kind: &str, id: &Value) -> Vec<Value> {
    let page = inbox(&mut daemon.client());
    let envelopes = rows(&page).iter().map(|row| &row["envelope"]);
    envelopes
        .filter(|one| one["kind"] == kind && one["ref"] == *id)
        .map(|one| one["payload"].clone())
        .collect()
}

/// Waits until its result has come, and sees that it came once.
fn result_once(alice: &Daemon, id: &Value, state: &str) -> Value {
    let row = wait_ledger(&mut alice.client(), id, state);
    let results = told(alice, "result", id);
    assert_eq!(results.len(), 1, "{results:?}");
    assert_eq!(row["result"], results[0], "{row}");
    results[0].clone()
}

fn restart(daemon: &mut Daemon) {
    daemon.kill9();
    daemon.up();
}

#[test]
fn a_queued_delegation_waits_over_kills_of_both() {
    // shows: IPC-DLG-2, IPC-DLG-3, IPC-DLG-4, CORE-DEL-12, CORE-DEL-2, IPC-ANS-6
    let (mut alice, mut bob) = soon();
    let id = queue(&alice, json!({"context":{"k":[1,2]},"priority":"urgent"}));
    let out = ledger_row(&mut alice.client(), &id);
    let taken = ledger_row(&mut bob.client(), &id);
    assert_eq!(
        (&out["direction"], &out["state"], &out["task"]),
        (&json!("out"), &json!("queued"), &json!("work"))
    );
    assert_eq!((&taken["direction"], &taken["priority"]), (&json!("in"), &json!("urgent")));
    restart(&mut bob);
    assert_eq!(ledger_row(&mut bob.client(), &id), taken);
    restart(&mut alice);
    rejoin(&alice, &bob);
    assert_eq!(ledger_row(&mut alice.client(), &id)["task"], "work");
    let mut agent = agent_of(&bob);
    let event = agent.event();
    assert_eq!((&event["answer"], &event["queued"]), (&json!(true), &json!(true)), "{event}");
    let work = event["envelope"].clone();
    assert_eq!((&work["id"], &work["payload"]["context"]), (&id, &json!({"k":[1,2]})));
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true}))["ok"], true);
    wait_ledger(&mut alice.client(), &id, "accepted");
    assert_eq!(agent.reply(&work, "result", done())["state"], "delivered");
    assert_eq!(result_once(&alice, &id, "completed"), done());
    // It is over, and stays so.
    crash(&mut bob, &alice);
    assert_eq!(ledger_row(&mut bob.client(), &id)["state"], "completed");
    agent_of(&bob).silent();
    crash(&mut alice, &bob);
    assert_eq!(result_once(&alice, &id, "completed"), done());
}

#[test]
fn an_accepted_one_goes_back_to_the_queue_once_then_fails() {
    // shows: IPC-DLG-4, IPC-LEASE-3, CORE-DEL-6, CORE-DEL-12
    let (alice, mut bob) = soon();
    let mut agent = agent_of(&bob);
    let work = accepted(&alice, &mut agent);
    let id = &work["id"];
    settle();
    crash(&mut bob, &alice);
    assert_eq!(ledger_row(&mut bob.client(), id)["state"], "queued");
    // Waiting in the queue is no one's fault: it counts only with an agent.
    crash(&mut bob, &alice);
    let mut agent = agent_of(&bob);
    let event = agent.event();
    assert_eq!((&event["envelope"]["id"], &event["queued"]), (id, &json!(true)), "{event}");
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true}))["ok"], true);
    assert_eq!(ledger_row(&mut bob.client(), id)["state"], "accepted");
    settle();
    crash(&mut bob, &alice);
    let result = result_once(&alice, id, "failed");
    assert_eq!(result["status"], "failed");
    assert!(!result["outcome"].as_str().unwrap().is_empty(), "{result}");
    let row = ledger_row(&mut bob.client(), id);
    assert_eq!(row["state"], "failed", "{row}");
    let mut agent = agent_of(&bob);
    agent.silent();
    assert_eq!(agent.reply(&work, "result", done())["ok"], false);
}

#[test]
fn its_delegator_is_told_that_it_is_queued_again() {
    // shows: CORE-DEL-6, IPC-LEASE-3
    let (alice, mut bob) = soon();
    let mut agent = agent_of(&bob);
    let work = accepted(&alice, &mut agent);
    settle();
    crash(&mut bob, &alice);
    wait_ledger(&mut alice.client(), &work["id"], "queued");
    let news = told(&alice, "progress", &work["id"]);
    assert_eq!((news.len(), &news[0]["state"]), (1, &json!("queued")), "{news:?}");
}

#[test]
fn one_with_a_lease_stays_accepted_and_anybody_may_end_it() {
    // shows: IPC-DLG-4, IPC-LEASE-2, IPC-REP-1, IPC-REP-7
    let (alice, mut bob) = soon();
    let mut agent = bob.answerer(json!({"answer":["delegate"],"lease":true}));
    let work = accepted(&alice, &mut agent);
    settle();
    for _ in 0..2 {
        crash(&mut bob, &alice);
        assert_eq!(ledger_row(&mut bob.client(), &work["id"])["state"], "accepted");
        agent_of(&bob).silent();
    }
    let mut anybody = bob.client();
    assert_eq!(anybody.reply(&work, "progress", json!({"state":"running","percent":50}))["ok"], true);
    wait_ledger(&mut alice.client(), &work["id"], "running");
    assert_eq!(anybody.reply(&work, "result", done())["state"], "delivered");
    assert_eq!(result_once(&alice, &work["id"], "completed"), done());
}

#[test]
fn one_that_was_offered_and_not_answered_is_queued_after_a_kill() {
    // shows: IPC-DLG-4, WF-REP-5, WF-RST-4
    let (alice, mut bob) = soon();
    let mut agent = agent_of(&bob);
    let mut asker = alice.client();
    let req = asker.begin(task(json!({})));
    let work = agent.request();
    assert_eq!(ledger_row(&mut bob.client(), &work["id"])["state"], "sent");
    bob.kill9();
    bob.up();
    // It is sent again under its id, and answered with what it is now.
    let reply = asker.finish(&req);
    assert_eq!(reply["response"]["payload"], json!({"accepted":true,"state":"queued"}), "{reply}");
    let mut agent = agent_of(&bob);
    assert_eq!(agent.request()["id"], work["id"]);
    agent.silent();
    assert_eq!(agent.reply(&work, "result", done())["ok"], true);
    assert_eq!(result_once(&alice, &work["id"], "completed"), done());
}

#[test]
fn a_result_for_an_absent_delegator_is_held_and_comes_once() {
    // shows: CORE-DEL-13, CORE-DEL-12, IPC-OUT-11, IPC-REP-7, IPC-DLG-2, WF-REF-6
    for (kill_holder, queued) in [(false, false), (true, true), (true, false)] {
        let (mut alice, mut bob) = soon();
        let mut agent = agent_of(&bob);
        let work = if queued {
            drop(agent);
            wait_for("the agent to be gone", || {
                (bob.client().ok(json!({"cmd":"status"}))["answerers"] == 0).then_some(())
            });
            let id = queue(&alice, json!({}));
            agent = agent_of(&bob);
            let work = agent.request();
            assert_eq!(work["id"], id);
            work
        } else {
            accepted(&alice, &mut agent)
        };
        alice.kill9();
        let reply = agent.reply(&work, "result", done());
        assert_eq!((&reply["ok"], &reply["state"]), (&json!(true), &json!("held")), "{reply}");
        assert_eq!(agent.reply(&work, "result", done())["error"], "already_answered");
        if kill_holder {
            restart(&mut bob);
        }
        let row = outbox_row(&mut bob.client(), &reply["msg_id"]).unwrap();
        assert_eq!((&row["kind"], &row["state"]), (&json!("result"), &json!("held")), "{row}");
        assert_eq!(ledger_row(&mut bob.client(), &work["id"])["state"], "completed");
        alice.up();
        assert_eq!(result_once(&alice, &work["id"], "completed"), done());
        wait_outbox(&mut bob.client(), &reply["msg_id"], "delivered");
        crash(&mut alice, &bob);
        crash(&mut bob, &alice);
        assert_eq!(result_once(&alice, &work["id"], "completed"), done());
    }
}

#[test]
fn deadlines_are_times_and_do_not_move() {
    // shows: IPC-DLG-5, IPC-DLG-6, CORE-DEL-7, CORE-DEL-15, IPC-DLG-3
    let (mut alice, mut bob) = soon();
    let start = Instant::now();
    let long = queue(&alice, json!({"deadline_ms":600_000}));
    let short = queue(&alice, json!({"deadline_ms":4_000}));
    let past = queue(&alice, json!({"deadline_ms":1_500}));
    let deadline = |daemon: &Daemon, id: &Value| ledger_row(&mut daemon.client(), id)["deadline_ms"].clone();
    let before =
        [deadline(&alice, &long), deadline(&bob, &long), deadline(&alice, &short), deadline(&bob, &short)];
    assert!(before.iter().all(Value::is_u64), "{before:?}");
    bob.kill9();
    alice.kill9();
    // One deadline passes while nobody runs.
    std::thread::sleep(Duration::from_millis(1_700).saturating_sub(start.elapsed()));
    bob.up();
    assert_eq!(wait_ledger(&mut bob.client(), &past, "expired").get("deadline_ms"), None);
    alice.up();
    rejoin(&alice, &bob);
    let after =
        [deadline(&alice, &long), deadline(&bob, &long), deadline(&alice, &short), deadline(&bob, &short)];
    assert_eq!(after, before);
    for id in [&past, &short] {
        let result = result_once(&alice, id, "failed");
        assert_eq!(result["status"], "failed");
        wait_ledger(&mut bob.client(), id, "expired");
    }
    assert!(start.elapsed() >= Duration::from_millis(4_000) && start.elapsed() < Duration::from_secs(9));
    let mut agent = agent_of(&bob);
    assert_eq!(agent.request()["id"], long);
    agent.silent();
}

#[test]
fn a_late_result_is_taken_after_the_delegators_deadline() {
    // shows: IPC-DLG-6, CORE-DEL-15, CORE-DEL-13
    let (alice, mut bob) = soon();
    let mut agent = agent_of(&bob);
    let mut asker = alice.client();
    let req = asker.begin(task(json!({"deadline_ms":1_500})));
    let work = agent.request();
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true}))["ok"], true);
    asker.finish(&req);
    bob.kill9();
    let row = wait_ledger(&mut alice.client(), &work["id"], "expired");
    assert_eq!(row.get("result"), None, "{row}");
    bob.up();
    // Its daemon gives the result: the time was over at the start.
    assert_eq!(result_once(&alice, &work["id"], "failed")["status"], "failed");
}

#[test]
fn a_held_delegation_survives_and_is_cancelled_or_delivered() {
    // shows: IPC-DLG-8, IPC-DLG-9, IPC-OUT-1, IPC-OUT-3, CORE-CAN-6
    let (mut alice, mut bob) = soon();
    bob.terminate();
    alice.wait_peer(&bob, false);
    let hold = |alice: &Daemon, extra: Value| {
        let mut command = task(extra);
        command["hold_secs"] = 600.into();
        let reply = alice.client().ok(command);
        assert_eq!(reply["state"], "held", "{reply}");
        reply["msg_id"].clone()
    };
    let first = hold(&alice, json!({}));
    let second = hold(&alice, json!({}));
    restart(&mut alice);
    assert_eq!(ledger_row(&mut alice.client(), &first)["state"], "held");
    let cancel = json!({"cmd":"send","kind":"cancel","ref":first});
    let reply = alice.client().ok(cancel);
    assert_eq!((&reply["state"], &reply["msg_id"]), (&json!("cancelled"), &first), "{reply}");
    restart(&mut alice);
    assert_eq!(ledger_row(&mut alice.client(), &first)["state"], "cancelled");
    assert_eq!(outbox_row(&mut alice.client(), &first).unwrap()["state"], "refused");
    bob.up();
    wait_ledger(&mut alice.client(), &second, "queued");
    let mut agent = agent_of(&bob);
    assert_eq!(agent.request()["id"], second);
    agent.silent();
}

#[test]
fn a_cancelled_one_stays_cancelled() {
    // shows: CORE-DEL-12, CORE-CAN-2, CORE-CAN-6, IPC-DLG-3
    let (mut alice, mut bob) = soon();
    let queued = queue(&alice, json!({}));
    let other = queue(&alice, json!({}));
    let cancel = |alice: &Daemon, id: &Value| {
        alice.client().ok(json!({"cmd":"send","kind":"cancel","ref":id}))["response"]["payload"].clone()
    };
    assert_eq!(cancel(&alice, &queued), json!({"accepted":true}));
    // What was told to the disk is on it once another message behind it is.
    alice.client().ok(json!({"cmd":"send","to":"bob","kind":"notify","payload":{"topic":"t","data":1}}));
    restart(&mut bob);
    restart(&mut alice);
    rejoin(&alice, &bob);
    assert_eq!(ledger_row(&mut bob.client(), &queued)["state"], "cancelled");
    let again = cancel(&alice, &queued);
    assert_eq!(again["accepted"], false, "it has ended: {again}");
    assert_eq!(cancel(&alice, &other), json!({"accepted":true}), "also after a kill of both");
    agent_of(&bob).silent();
}

#[test]
fn progress_is_in_the_ledger_and_told_to_who_watches() {
    // shows: IPC-DLG-3, IPC-DLG-7
    let (alice, mut bob) = soon();
    let mut watch = alice.client();
    watch.ok(json!({"cmd":"delegations","watch":true}));
    let mut agent = agent_of(&bob);
    let work = accepted(&alice, &mut agent);
    let id = &work["id"];
    let seen = watch.event_where(|event| event["delegation"]["state"] == "accepted");
    assert_eq!((&seen["event"], &seen["delegation"]["id"]), (&json!("delegation"), id));
    assert_eq!(seen["delegation"].get("task"), None);
    let progress = json!({"state":"running","percent":40,"note":"n"});
    assert_eq!(agent.reply(&work, "progress", progress.clone())["ok"], true);
    let seen = watch.event_where(|event| event["delegation"]["state"] == "running");
    assert_eq!(seen["delegation"]["progress"], progress);
    crash(&mut bob, &alice);
    let mut agent = agent_of(&bob);
    agent.request();
    assert_eq!(agent.reply(&work, "result", done())["ok"], true);
    let seen = watch.event_where(|event| event["delegation"]["state"] == "completed");
    assert_eq!(seen["delegation"]["result"], done());
}

// shows: IPC-STOP-1, IPC-DLG-4
#[test]
fn a_stop_keeps_what_an_agent_had_not_accepted() {
    let (alice, mut bob) = soon();
    let mut agent = agent_of(&bob);
    let mut asker = alice.client();
    let req = asker.begin(task(json!({})));
    let work = agent.request();
    // The agent says nothing; the stop waits for it for a while, and then tells the sender that it is kept.
    assert_eq!(bob.terminate().code(), Some(0));
    assert_eq!(asker.finish(&req)["response"]["payload"], json!({"accepted":true,"state":"queued"}));
    bob.up();
    let mut next = agent_of(&bob);
    let again = next.request();
    assert_eq!(again["id"], work["id"]);
    assert_eq!(next.reply(&again, "result", done())["ok"], true);
    rejoin(&alice, &bob);
    result_once(&alice, &work["id"], "completed");
}

// shows: IPC-OUT-5, IPC-DLG-8, WF-REP-9
#[test]
fn a_held_delegation_waits_for_a_busy_peer() {
    let (alice, bob) = soon();
    let mut agent = bob.answerer(json!({"answer":["delegate"],"capacity":1}));
    let first = accepted(&alice, &mut agent);
    let mut command = task(json!({"deadline_ms":300}));
    command["hold_secs"] = 600.into();
    let mut asker = alice.client();
    let reply = asker.ok(command);
    assert_eq!(reply["state"], "held", "turned away for now: {reply}");
    let id = reply["msg_id"].clone();
    assert_eq!(ledger_row(&mut alice.client(), &id)["state"], "held");
    assert_eq!(outbox_row(&mut alice.client(), &id).unwrap()["state"], "held");
    agent.ok(json!({"cmd":"reply","ref":first["id"],"kind":"result","payload":done()}));
    let work = agent.request();
    assert_eq!(work["id"], id);
    assert_eq!(agent.reply(&work, "result", done())["ok"], true);
    result_once(&alice, &id, "completed");
}

// shows: IPC-OUT-5, WF-REP-9
#[test]
fn a_held_delegation_comes_again_when_the_agent_itself_had_no_room() {
    for restarts in [false, true] {
        let (alice, mut bob) = soon();
        let mut agent = agent_of(&bob);
        let mut command = task(json!({}));
        command["hold_secs"] = 600.into();
        let mut asker = alice.client();
        let req = asker.begin(command);
        let work = agent.request();
        let busy = json!({"code":"overloaded","message":"later","retryable":true});
        assert_eq!(agent.reply(&work, "error", busy)["ok"], true);
        let reply = asker.finish(&req);
        assert_eq!(reply["state"], "held", "turned away for now: {reply}");
        if restarts {
            crash(&mut bob, &alice);
            agent = agent_of(&bob);
        }
        let again = agent.request();
        assert_eq!(again, work);
        assert_eq!(agent.reply(&again, "result", done())["ok"], true);
        result_once(&alice, &work["id"], "completed");
        assert_eq!(ledger_row(&mut bob.client(), &work["id"])["state"], "completed");
    }
}
