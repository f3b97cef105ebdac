//! Nothing is lost, as users of the command line have it: held messages, the outbox, delegations,
//! `axon wait`, and what is said when something did go.

use std::fs;

use serde_json::{Value, json};

use crate::support;
use crate::support::cli::{Home, Ran, keys, sorted};
use crate::support::{Daemon, RawClient, introduce, pair, pair_with, set_mode, wait_for};

/// An id that no message has.
const NO_ID: &str = "00000000-0000-4000-8000-000000000000";
/// A peer that is away is tried again soon.
const SOON: &str = "reconnect_max_backoff_secs = 1\nhandshake_timeout_secs = 1";

/// Two that know each other, of which the second is away.
fn pair_apart() -> (Daemon, Daemon) {
    let (alice, mut bob) = pair_with(SOON, SOON);
    bob.terminate();
    alice.wait_peer(&bob, false);
    (alice, bob)
}

/// Sends a note that must be held, and gives its id.
fn hold(daemon: &Daemon, time: &str, data: &str) -> String {
    let line = daemon.run(&["notify", "--hold", time, "bob", "t", data]).ok();
    assert_eq!((keys(&line), &line["state"]), (sorted(["ok", "id", "state"]), &json!("held")), "{line}");
    line["id"].as_str().unwrap().to_owned()
}

fn outbox(daemon: &Daemon, args: &[&str]) -> Vec<Value> {
    let line = daemon.run(&[&["outbox"], args].concat()).ok();
    assert_eq!(keys(&line), sorted(["ok", "outbox", "has_more"]));
    line["outbox"].as_array().unwrap().clone()
}

/// The present state of one message in the outbox.
fn state(daemon: &Daemon, id: &str) -> String {
    let rows = outbox(daemon, &[]);
    let row = rows.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("no {id} in {rows:?}"));
    row["state"].as_str().unwrap().to_owned()
}

fn delegations(daemon: &Daemon, args: &[&str]) -> Vec<Value> {
    let line = daemon.run(&[&["delegations"], args].concat()).ok();
    assert_eq!(keys(&line), sorted(["ok", "delegations", "has_more"]));
    line["delegations"].as_array().unwrap().clone()
}

/// Data of the notes in the inbox, in order.
fn notes(daemon: &Daemon) -> Vec<Value> {
    let line = daemon.run(&["inbox", "--kinds", "notify", "--limit", "1000"]).ok();
    let rows = line["messages"].as_array().unwrap();
    rows.iter().map(|row| row["payload"]["data"].clone()).collect()
}

/// The event that tells of this state of this message.
fn told(client: &mut RawClient, id: &str, state: &str) -> Value {
    client.event_where(|event| {
        let ours = event["event"] == "delivery" && event["id"] == id;
        assert!(!ours || event["state"] != "refused" || state == "refused", "{event}");
        ours && event["state"] == state
    })
}

/// Delegates without waiting, and gives the id.
fn delegate(daemon: &Daemon, args: &[&str]) -> String {
    let line = daemon.run(&[&["delegate"], args].concat()).ok();
    line["id"].as_str().unwrap().to_owned()
}

fn accepted(agent: &mut RawClient) -> Value {
    let work = agent.request();
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true}))["ok"], true);
    work
}

fn reported(agent: &mut RawClient, work: &Value, status: &str, outcome: &str) {
    let said = agent.reply(work, "result", json!({"status":status,"outcome":outcome}));
    assert_eq!(said["ok"], true, "{said}");
}

// ---- Held messages ----------------------------------------------------------------------------------------

#[test]
fn held_messages_arrive_in_order_when_the_peer_is_back() {
    let (alice, mut bob) = pair_apart();
    // Who does not ask for it is told at once, as ever.
    alice.run(&["notify", "bob", "t", "0"]).fails(5, "peer_unreachable");
    assert!(outbox(&alice, &[]).is_empty());
    // shows: IPC-SEND-9
    let ids: Vec<String> = (1..=5).map(|n| hold(&alice, "1h", &n.to_string())).collect();

    // shows: IPC-OUT-2
    let rows = outbox(&alice, &[]);
    assert_eq!(rows.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    for row in &rows {
        assert_eq!((&row["state"], &row["kind"]), (&json!("held"), &json!("notify")), "{row}");
        assert_eq!(row["to"], bob.id());
        let (since, expires) = (row["since_ms"].as_u64().unwrap(), row["expires_ms"].as_u64().unwrap());
        assert!((3_590_000..=3_610_000).contains(&(expires - since)), "{row}");
    }
    assert_eq!(outbox(&alice, &["--to", "bob", "--state", "held"]).len(), 5);
    // shows: IPC-OUT-14
    assert!(outbox(&alice, &["--state", "delivered"]).is_empty());
    alice.run(&["outbox", "--to", "nobody"]).fails(5, "peer_not_found");
    let some = alice.run(&["outbox", "--limit", "2"]).ok();
    assert_eq!((some["outbox"].as_array().unwrap().len(), &some["has_more"]), (2, &json!(true)));

    let mut client = alice.client();
    bob.up();
    // shows: IPC-OUT-3, IPC-OUT-4, IPC-DEL-1
    for id in &ids {
        let event = client.event_where(|event| event["event"] == "delivery");
        assert_eq!((event["id"].as_str().unwrap(), &event["state"]), (id.as_str(), &json!("delivered")));
    }
    assert_eq!(notes(&bob), [json!(1), json!(2), json!(3), json!(4), json!(5)]);
    assert!(outbox(&alice, &[]).iter().all(|row| row["state"] == "delivered"));

    // To a peer that is there it goes at once.
    let line = alice.run(&["notify", "--hold", "60", "bob", "t", "6"]).ok();
    assert_eq!(line["state"], "delivered");
    assert_eq!(notes(&bob).len(), 6);
}

#[test]
fn held_messages_outlive_their_own_daemon() {
    let (mut alice, mut bob) = pair_apart();
    let ids: Vec<String> = (1..=3).map(|n| hold(&alice, "1d", &n.to_string())).collect();
    // shows: IPC-OUT-1
    alice.kill9();
    alice.up();
    assert_eq!(outbox(&alice, &["--state", "held"]).len(), 3);
    bob.up();
    wait_for("the last to be delivered", || (state(&alice, &ids[2]) == "delivered").then_some(()));
    assert_eq!(notes(&bob), [json!(1), json!(2), json!(3)]);
    // Nor does what was delivered come again.
    alice.kill9();
    alice.up();
    alice.wait_peer(&bob, true);
    alice.run(&["notify", "bob", "t", "4"]).ok();
    assert_eq!(notes(&bob), [json!(1), json!(2), json!(3), json!(4)]);
}

#[test]
fn a_held_message_is_taken_back() {
    let (alice, mut bob) = pair_apart();
    let (first, second) = (hold(&alice, "1h", "1"), hold(&alice, "1h", "2"));
    let mut client = alice.client();
    // shows: IPC-OUT-10
    let line = alice.run(&["outbox", "--cancel", &first]).ok();
    assert_eq!(line, json!({"ok":true,"id":first,"cancelled":true}));
    assert_eq!(told(&mut client, &first, "refused")["reason"], "cancelled by its sender");
    let rows = outbox(&alice, &["--state", "refused"]);
    assert_eq!((rows.len(), &rows[0]["reason"]), (1, &json!("cancelled by its sender")));
    alice.run(&["outbox", "--cancel", &first]).fails(2, "already_answered");
    alice.run(&["outbox", "--cancel", NO_ID]).fails(2, "not_found");
    alice.run(&["outbox", "--cancel", "0000"]).fails(2, "not_found");

    let third = hold(&alice, "1h", "3");
    // The first digits will do.
    let beginning = second.split('-').next().unwrap();
    assert_eq!(alice.run(&["outbox", "--cancel", beginning]).ok()["id"], json!(second));
    bob.up();
    told(&mut client, &third, "delivered");
    assert_eq!(notes(&bob), [json!(3)]);
}

#[test]
fn a_held_message_expires() {
    let (alice, mut bob) = pair_apart();
    let mut client = alice.client();
    // Longer than it takes to find that he is away.
    let short = hold(&alice, "3s", "1");
    // shows: IPC-OUT-7
    told(&mut client, &short, "expired");
    assert_eq!(state(&alice, &short), "expired");
    let long = hold(&alice, "1h", "2");
    bob.up();
    told(&mut client, &long, "delivered");
    assert_eq!(notes(&bob), [json!(2)]);
}

#[test]
fn a_result_is_held_as_long_as_its_agent_says() {
    let (mut alice, bob) = pair_with(SOON, SOON);
    let id = delegate(&alice, &["bob", "Work"]);
    let mut agent = bob.answerer(json!({"answer":["delegate"]}));
    accepted(&mut agent);
    let mut progress = json!({"cmd":"reply","ref":id,"kind":"progress","payload":{"state":"running"}});
    progress["hold_secs"] = json!(5);
    assert_eq!(agent.cmd(progress)["error"], "invalid_command");
    alice.terminate();
    bob.wait_peer(&alice, false);
    let line = bob.run(&["result", "--hold", "3s", &id, "Done."]).ok();
    assert_eq!((&line["kind"], &line["state"]), (&json!("result"), &json!("held")));
    let result = line["id"].as_str().unwrap();
    // shows: IPC-REP-7, IPC-OUT-7, IPC-OUT-11
    let row = outbox(&bob, &["--state", "held"]).remove(0);
    assert_eq!((&row["id"], &row["kind"]), (&json!(result), &json!("result")));
    assert_eq!(row["expires_ms"].as_u64().unwrap() - row["since_ms"].as_u64().unwrap(), 3_000);
    wait_for("the result to expire", || (state(&bob, result) == "expired").then_some(()));
    // The work is done here all the same, and nothing comes late.
    assert_eq!(bob.run(&["wait", &id]).ok()["payload"]["outcome"], "Done.");
    alice.up();
    bob.wait_peer(&alice, true);
    assert_eq!(state(&bob, result), "expired");
    alice.run(&["wait", "--timeout", "0.2", &id]).fails(3, "timeout");
}

#[test]
fn a_full_outbox_says_so() {
    let (alice, bob) = pair_apart();
    alice.set_config(&format!("{SOON}\noutbox.per_peer_messages_max = 1\noutbox.hold_secs_max = 60"));
    alice.reload();
    hold(&alice, "1m", "1");
    // shows: IPC-OUT-8
    let full = alice.run(&["notify", "--hold", "1m", "bob", "t", "2"]).fails(1, "overloaded");
    assert!(!full["message"].as_str().unwrap().is_empty());
    // shows: IPC-SEND-8
    alice.run(&["notify", "--hold", "61s", "bob", "t", "3"]).fails(2, "invalid_command");
    assert_eq!(outbox(&alice, &[]).len(), 1);
    drop(bob);
}

#[test]
fn a_reader_is_told_of_only_where_it_is_asked_and_allowed() {
    let (alice, bob) = pair();
    let ack_all = || {
        let next = bob.run(&["inbox"]).ok()["next_seq"].as_u64().unwrap();
        bob.run(&["ack", &next.to_string()]).ok();
    };
    let mut client = alice.client();
    let line = alice.run(&["notify", "--read-receipt", "bob", "t", "1"]).ok();
    assert_eq!(line["state"], "delivered");
    let id = line["id"].as_str().unwrap();
    assert_eq!(state(&alice, id), "delivered");
    // One that is not asked about has no row.
    alice.run(&["notify", "bob", "t", "2"]).ok();
    assert_eq!(outbox(&alice, &[]).len(), 1);
    ack_all();
    // shows: IPC-OUT-13
    told(&mut client, id, "read");
    assert_eq!(state(&alice, id), "read");

    bob.set_config("ipc.read_receipts = false");
    bob.reload();
    alice.wait_peer(&bob, true);
    let line = alice.run(&["notify", "--read-receipt", "bob", "t", "3"]).ok();
    let kept = line["id"].as_str().unwrap();
    ack_all();
    bob.set_config("ipc.read_receipts = true");
    bob.reload();
    alice.wait_peer(&bob, true);
    let line = alice.run(&["notify", "--read-receipt", "bob", "t", "4"]).ok();
    ack_all();
    told(&mut client, line["id"].as_str().unwrap(), "read");
    assert_eq!(state(&alice, kept), "delivered");
}

// ---- Delegations ------------------------------------------------------------------------------------------

#[test]
fn wait_gives_the_result_before_and_after_the_end() {
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["delegate"]}));
    let asking = alice.spawn(&["delegate", "bob", "Work"]);
    let work = accepted(&mut agent);
    let id = asking.wait().ok()["id"].as_str().unwrap().to_owned();
    assert_eq!(work["id"], json!(id));

    // Still going on.
    let late = alice.run(&["wait", "--timeout", "0.2", &id]).fails(3, "timeout");
    assert!(late["message"].as_str().unwrap().contains(&id), "{late}");
    let waiting = [alice.spawn(&["wait", &id]), alice.spawn(&["wait", "--timeout", "1m", &id[..8]])];
    agent.reply(&work, "progress", json!({"state":"running","percent":50,"note":"half"}));
    reported(&mut agent, &work, "completed", "Done.");
    let ran: Vec<Ran> = waiting.into_iter().map(support::cli::Running::wait).collect();
    // shows: IPC-DLG-3, IPC-DLG-7
    for ran in ran.iter().chain(&[alice.run(&["wait", &id])]) {
        let line = ran.ok();
        assert_eq!(keys(&line), sorted(["ok", "id", "from", "kind", "payload"]), "{ran:?}");
        assert_eq!(
            (&line["id"], &line["from"], &line["kind"]),
            (&json!(id), &json!(bob.id()), &json!("result"))
        );
        assert_eq!(line["payload"], json!({"status":"completed","outcome":"Done."}));
    }
    // The same on the side that did it.
    assert_eq!(bob.run(&["wait", &id]).ok()["payload"]["outcome"], "Done.");
}

#[test]
fn wait_exits_as_the_delegation_ended() {
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["delegate","cancel"]}));
    let mut given = |args: &[&str]| {
        let asking = alice.spawn(&[&["delegate"], args].concat());
        let work = accepted(&mut agent);
        asking.wait().ok();
        (work["id"].as_str().unwrap().to_owned(), work)
    };
    let (partial, partial_work) = given(&["bob", "partial"]);
    let (failed, failed_work) = given(&["bob", "failed"]);
    let (cancelled, _) = given(&["bob", "cancelled"]);
    let (expired, _) = given(&["--deadline", "0.3", "bob", "expired"]);
    reported(&mut agent, &partial_work, "partial", "Half of it.");
    assert_eq!(alice.run(&["wait", &partial]).ok()["payload"]["status"], "partial");

    reported(&mut agent, &failed_work, "failed", "It broke.");
    let line = alice.run(&["wait", &failed]).fails(4, "failed");
    assert_eq!((&line["message"], &line["payload"]["status"]), (&json!("It broke."), &json!("failed")));

    let waiting = alice.spawn(&["wait", &cancelled]);
    let stopping = alice.spawn(&["cancel", &cancelled[..8]]);
    let cancel = agent.event_where(|event| event["envelope"]["kind"] == "cancel")["envelope"].clone();
    agent.reply(&cancel, "ack", json!({"accepted":true}));
    stopping.wait().ok();
    waiting.wait().fails(4, "cancelled");

    // Whoever tells of it first: the deadline is over, and there is no result.
    let ran = alice.run(&["wait", &expired]);
    let code = ran.json()["error"].clone();
    assert!(ran.code == 4 && (code == "expired" || code == "failed"), "{ran:?}");

    let asking = alice.spawn(&["delegate", "bob", "refused"]);
    let work = agent.event_where(|event| event["envelope"]["kind"] == "delegate")["envelope"].clone();
    agent.reply(&work, "ack", json!({"accepted":false,"reason":"No time today."}));
    asking.wait().fails(4, "refused");
    let line = alice.run(&["wait", work["id"].as_str().unwrap()]).fails(4, "refused");
    assert!(line["message"].as_str().unwrap().contains("No time today."), "{line}");

    alice.run(&["wait", NO_ID]).fails(2, "not_found");
    alice.run(&["wait", "0000"]).fails(2, "not_found");
}

#[test]
fn wait_goes_on_over_a_restart_of_either_daemon() {
    let (mut alice, mut bob) = pair_with(SOON, SOON);
    // Queued: nobody is there to take it.
    let id = delegate(&alice, &["bob", "Work"]);
    let waiting = alice.spawn(&["wait", "--timeout", "1m", &id]);
    let mut client = alice.client();
    wait_for("the wait to have begun", || (client.ok(json!({"cmd":"status"}))["clients"] == 2).then_some(()));
    alice.kill9();
    alice.up();
    bob.kill9();
    bob.up();
    alice.wait_peer(&bob, true);
    // shows: IPC-DLG-4
    let mut agent = bob.answerer(json!({"answer":["delegate"]}));
    let work = accepted(&mut agent);
    assert_eq!(work["id"], json!(id));
    reported(&mut agent, &work, "completed", "Done.");
    assert_eq!(waiting.wait().ok()["payload"]["outcome"], "Done.");
}

#[test]
fn work_for_a_peer_that_is_away_is_held_until_it_is_done() {
    let (alice, mut bob) = pair_apart();
    let line = alice.run(&["delegate", "--hold", "1h", "bob", "Later"]).ok();
    // shows: IPC-DLG-8
    assert_eq!((keys(&line), &line["state"]), (sorted(["ok", "id", "state"]), &json!("held")));
    let id = line["id"].as_str().unwrap();
    let gone = delegate(&alice, &["--hold", "1h", "bob", "Not at all"]);
    let rows = delegations(&alice, &["--state", "held"]);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!((&rows[1]["id"], &rows[1]["direction"]), (&json!(id), &json!("out")));
    // shows: IPC-DLG-9
    assert_eq!(alice.run(&["cancel", &gone]).ok(), json!({"ok":true,"id":gone,"state":"cancelled"}));
    alice.run(&["wait", &gone]).fails(4, "cancelled");

    let waiting = alice.spawn(&["wait", id]);
    let mut begun = alice.spawn(&["delegate", "--hold", "1h", "--wait", "bob", "Too"]);
    assert_eq!(begun.line()["state"], "held");
    bob.up();
    let mut agent = bob.answerer(json!({"answer":["delegate"]}));
    for _ in 0..2 {
        let work = accepted(&mut agent);
        let outcome = format!("Did: {}", work["payload"]["task"].as_str().unwrap());
        reported(&mut agent, &work, "completed", &outcome);
    }
    assert_eq!(waiting.wait().ok()["payload"]["outcome"], "Did: Later");
    let ran = begun.wait();
    assert_eq!((ran.code, &ran.lines()[1]["payload"]["outcome"]), (0, &json!("Did: Too")), "{ran:?}");
}

#[test]
fn delegations_are_listed_on_both_sides() {
    let (alice, bob) = pair();
    let first = delegate(&alice, &["--priority", "urgent", "--deadline", "1h", "bob", "First"]);
    let second = delegate(&bob, &["alice", "Second"]);
    let mut agent = bob.answerer(json!({"answer":["delegate"]}));
    let work = accepted(&mut agent);
    agent.reply(&work, "progress", json!({"state":"running","percent":50}));
    // shows: IPC-DLG-1, IPC-DLG-3
    let row = wait_for("the progress", || {
        let rows = delegations(&alice, &["--peer", "bob", "--direction", "out", "--state", "running"]);
        rows.into_iter().find(|row| row["progress"]["percent"] == 50)
    });
    let wanted =
        ["id", "peer", "direction", "task", "priority", "state", "since_ms", "deadline_ms", "progress"];
    assert_eq!(keys(&row), sorted(wanted));
    assert_eq!((&row["id"], &row["peer"]), (&json!(first), &json!(bob.id())));
    assert_eq!((&row["task"], &row["priority"]), (&json!("First"), &json!("urgent")));
    reported(&mut agent, &work, "completed", "Done.");
    alice.run(&["wait", &first]).ok();

    let rows = delegations(&alice, &[]);
    let shown: Vec<_> = rows.iter().map(|row| (&row["id"], &row["direction"], &row["state"])).collect();
    let (second_is, first_is) = ((json!(second), json!("in")), (json!(first), json!("out")));
    assert_eq!(
        shown,
        [(&second_is.0, &second_is.1, &json!("queued")), (&first_is.0, &first_is.1, &json!("completed"))]
    );
    assert_eq!(rows[1]["result"], json!({"status":"completed","outcome":"Done."}));
    let theirs = delegations(&bob, &["--direction", "in"]);
    assert_eq!((theirs.len(), &theirs[0]["id"], &theirs[0]["state"]), (1, &first_is.0, &json!("completed")));
    let limited = alice.run(&["delegations", "--limit", "1"]).ok();
    assert_eq!((&limited["delegations"][0]["id"], &limited["has_more"]), (&second_is.0, &json!(true)));
    // shows: IPC-DLG-10
    assert!(delegations(&alice, &["--state", "refused"]).is_empty());
    alice.run(&["delegations", "--peer", "nobody"]).fails(5, "peer_not_found");
}

// ---- What is said of what was lost ------------------------------------------------------------------------

#[test]
fn what_went_unread_is_told() {
    let bob = Daemon::start("ipc.buffer_size = 2");
    let alice = Daemon::start("");
    introduce(&alice, &bob);
    let tell = |data: &str| alice.run(&["notify", "bob", "t", data]);
    tell("1").ok();
    tell("2").ok();
    // Nobody has read these, and their sender was told that they are kept. shows: IPC-BOX-10
    let full = tell("3").fails(1, "overloaded");
    assert!(full["message"].as_str().unwrap().len() > 8);

    // Once somebody has, they go, and the others hear of it.
    let next = bob.run(&["inbox", "--consumer", "other"]).ok()["next_seq"].to_string();
    bob.run(&["ack", "--consumer", "other", &next]).ok();
    tell("4").ok();
    let ran = bob.run(&["inbox"]);
    let line = ran.ok();
    // shows: IPC-BOX-4, IPC-BOX-9
    assert_eq!(line["lost_before_seq"], line["messages"][0]["seq"], "{line}");
    assert!(ran.stderr.contains("unread"), "{ran:?}");
    let quiet = bob.run(&["-q", "inbox"]);
    assert_eq!((quiet.stderr.as_str(), &quiet.ok()["lost_before_seq"]), ("", &line["lost_before_seq"]));

    let ran = bob.run(&["listen", "--count", "2"]);
    let lines = ran.lines();
    assert_eq!((ran.code, lines.len()), (0, 2), "{ran:?}");
    assert_eq!(
        (&lines[0]["lost_before_seq"], lines[1].get("lost_before_seq")),
        (&line["lost_before_seq"], None)
    );
    assert!(ran.stderr.contains("unread"), "{ran:?}");
    // Those have been read now.
    let ran = bob.run(&["inbox"]);
    assert_eq!((ran.ok().get("lost_before_seq"), ran.stderr.as_str()), (None, ""));
}

#[test]
fn doctor_names_what_was_set_aside() {
    let mut daemon = Daemon::start("");
    let store = daemon.root().join("store");
    assert_eq!(support::mode(&store), 0o700);
    let checks = |ran: &Ran| -> Vec<Value> {
        let line = ran.json();
        let all = line["checks"].as_array().unwrap();
        all.iter().filter(|check| check["name"] == "store").cloned().collect()
    };
    let well = checks(&daemon.run(&["doctor"]));
    assert_eq!((well.len(), &well[0]["status"]), (1, &json!("ok")), "{well:?}");
    daemon.terminate();
    fs::write(store.join("x.damaged-1"), "x").unwrap();
    set_mode(&store, 0o755);
    let ran = daemon.run(&["doctor", "--fix"]);
    let told = checks(&ran);
    assert_eq!((told.len(), &told[0]["fix"]), (2, &json!("fixed")), "{told:?}");
    assert_eq!(told[1]["status"], "warn");
    assert!(told[1]["message"].as_str().unwrap().contains("x.damaged-1"), "{told:?}");
    assert!(store.join("x.damaged-1").exists());
    assert_eq!(support::mode(&store), 0o700);
}

// ---- Usage ------------------------------------------------------------------------------------------------

#[test]
fn wrong_usage_says_what_would_be_right() {
    let home = Home::default();
    for (args, word) in [
        (&["notify", "--hold", "soon", "bob", "t", "1"][..], "15m"),
        (&["notify", "--hold", "0", "bob", "t", "1"], "1s"),
        (&["notify", "--hold", "31d", "bob", "t", "1"], "30d"),
        (&["delegate", "--hold", "1w", "bob", "x"], "2d"),
        (&["delegate", "--read-receipt", "bob", "x"], "--read-receipt"),
        (&["send", "--hold", "1h", "bob", "x"], "--hold"),
        (&["result", "--hold", "31d", NO_ID, "x"], "30d"),
        (&["reply", "--hold", "1h", NO_ID, "x"], "--hold"),
        (&["outbox", "--state", "lost"], "delivered"),
        (&["outbox", "--limit", "0"], "0"),
        (&["outbox", "--cancel", "xyz"], "4 at least"),
        (&["outbox", "--cancel", NO_ID, "--to", "bob"], "--cancel"),
        (&["delegations", "--state", "lost"], "queued"),
        (&["delegations", "--direction", "up"], "out"),
        (&["delegations", "--limit", "1001"], "1001"),
        (&["wait"], "ID"),
        (&["wait", "abc"], "4 at least"),
        (&["wait", "--timeout", "never", NO_ID], "15m"),
    ] {
        let ran = home.run(args);
        let said = ran.usage();
        assert!(said.contains(word), "{args:?} should speak of {word}: {said}");
    }
    for verb in [&["outbox"][..], &["outbox", "--cancel", NO_ID], &["delegations"], &["wait", NO_ID]] {
        home.run(verb).fails(1, "no_daemon");
    }
}
