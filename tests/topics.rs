//! Topics between real daemons: five in a line, each of which knows its neighbours only. What is published at
//! one end reaches the other, once, whatever happens in the middle.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Daemon, RawClient, wait_for};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Five daemons, each pinned to its neighbours only.
fn line() -> Vec<Daemon> {
    let daemons: Vec<Daemon> =
        NAMES.iter().map(|name| Daemon::start(&format!("name = \"{name}\"\n"))).collect();
    for at in 0..daemons.len() {
        let beside = [at.checked_sub(1), Some(at + 1)].into_iter().flatten();
        let peers: Vec<(&str, &Daemon)> =
            beside.filter_map(|other| Some((*NAMES.get(other)?, &daemons[other]))).collect();
        daemons[at].set_peers(&peers);
        daemons[at].reload();
    }
    for at in 0..daemons.len() {
        joined(&daemons, at);
    }
    daemons
}

/// Waits until both neighbours of a daemon have said what they want.
fn joined(daemons: &[Daemon], at: usize) {
    let count = usize::from(at > 0) + usize::from(at + 1 < daemons.len());
    let mut client = daemons[at].client();
    wait_for("the neighbours to join", || {
        let peers = client.ok(json!({"cmd":"topic_peers"}))["peers"].clone();
        let joined =
            peers.as_array().unwrap().iter().filter(|peer| !peer["filters"].as_array().unwrap().is_empty());
        (joined.count() == count).then_some(())
    });
}

fn reader(daemon: &Daemon, consumer: &str, fields: Value) -> RawClient {
    let mut client = daemon.connect();
    client.hello_as(consumer);
    let mut command = fields;
    command["cmd"] = "subscribe_topic".into();
    command["from"] = "any".into();
    client.ok(command);
    client
}

fn publish(client: &mut RawClient, numbers: std::ops::Range<u64>) {
    for n in numbers {
        client.ok(json!({"cmd":"publish","topic":"t.x","payload":{"n":n}}));
    }
}

fn number(envelope: &Value) -> u64 {
    envelope["payload"]["message"]["n"].as_u64().unwrap()
}

/// The next so many messages that a client is shown.
fn shown(client: &mut RawClient, count: usize) -> Vec<u64> {
    (0..count).map(|_| number(&client.event_where(|event| event["event"] == "inbound")["envelope"])).collect()
}

/// What a consumer has not read.
fn inbox(client: &mut RawClient) -> Vec<u64> {
    let rows = client.ok(json!({"cmd":"inbox","limit":200}))["messages"].clone();
    rows.as_array().unwrap().iter().map(|row| number(&row["envelope"])).collect()
}

// shows: TOP-TREE-1, TOP-TAKE-2, TOP-BATCH-2
#[test]
fn what_is_published_at_one_end_reaches_the_other_over_those_who_are_no_peers_of_it() {
    let daemons = line();
    let mut far = reader(&daemons[4], "far", json!({"topic":"t.>"}));
    let mut peers_only = daemons[4].client();
    peers_only.ok(json!({"cmd":"subscribe_topic","topic":"t.>"}));
    let mut near = daemons[1].client();
    near.ok(json!({"cmd":"subscribe_topic","topic":"t.*"}));
    let mut publisher = daemons[0].client();
    publish(&mut publisher, 0..50);
    assert_eq!(shown(&mut near, 50), (0..50).collect::<Vec<u64>>());
    let first = far.event_where(|event| event["event"] == "inbound");
    let payload = &first["envelope"]["payload"];
    assert_eq!(first["envelope"]["from"], daemons[0].id());
    assert_eq!((&payload["via"], &payload["hops"]), (&json!(daemons[3].id()), &json!(4)));
    assert_eq!((&payload["stranger"], &payload["via_trust"]), (&json!(true), &json!("known")));
    assert_eq!(shown(&mut far, 49), (1..50).collect::<Vec<u64>>());
    // The publisher is no peer of the last one: who did not ask for such hears nothing.
    peers_only.silent();
    far.ok(json!({"cmd":"unsubscribe_topic","topic":"t.>"}));
    publish(&mut publisher, 50..51);
    assert_eq!(shown(&mut near, 1), [50]);
    far.silent();
    // Nobody was given anything twice on its way.
    for daemon in &daemons {
        let status = daemon.client().ok(json!({"cmd":"status"}));
        let dropped = status["topics"]["dropped"].as_object().unwrap();
        assert!(dropped.values().all(|count| *count == 0), "{status}");
    }
}

#[test]
fn whatever_happens_in_the_middle_all_arrives_once() {
    let mut daemons = line();
    let mut far = reader(&daemons[4], "far", json!({"topic":"t.>","kept":true}));
    let mut publisher = daemons[0].client();
    publish(&mut publisher, 0..10);
    assert_eq!(shown(&mut far, 10), (0..10).collect::<Vec<u64>>());
    // The middle is killed, and comes back.
    daemons[2].kill9();
    publish(&mut publisher, 10..20);
    daemons[2].up();
    assert_eq!(shown(&mut far, 10).into_iter().collect::<BTreeSet<_>>(), (10..20).collect());
    // It stands still: for those beside it, it is as if the network were cut.
    daemons[2].signal(Signal::STOP);
    publish(&mut publisher, 20..30);
    daemons[2].signal(Signal::CONT);
    assert_eq!(shown(&mut far, 10).into_iter().collect::<BTreeSet<_>>(), (20..30).collect());
    // The one at the end is killed while more is published.
    daemons[4].kill9();
    publish(&mut publisher, 30..40);
    daemons[4].up();
    joined(&daemons, 4);
    let mut far = daemons[4].connect();
    far.hello_as("far");
    publish(&mut publisher, 40..41);
    wait_for("what was published meanwhile", || (inbox(&mut far).len() >= 41).then_some(()));
    let all = inbox(&mut far);
    assert_eq!((all.len(), all.into_iter().collect::<BTreeSet<u64>>()), (41, (0..41).collect()));
}

#[test]
fn who_joins_late_gets_what_its_neighbours_keep_though_the_publisher_is_gone() {
    let mut daemons = line();
    for daemon in &daemons[1..4] {
        daemon.client().ok(json!({"cmd":"topic_keep","topic":"t.>","last":500}));
    }
    joined(&daemons, 0);
    publish(&mut daemons[0].client(), 0..100);
    let kept = |daemon: &Daemon| {
        let keeps = daemon.client().ok(json!({"cmd":"topics"}))["keeps"].clone();
        keeps[0]["messages"].as_u64().unwrap_or(0)
    };
    wait_for("the neighbours to keep it", || {
        daemons[1..4].iter().all(|daemon| kept(daemon) == 100).then_some(())
    });
    daemons[0].kill9();
    // Those that keep it are restarted as well: it is on their disks.
    daemons[1..4].iter_mut().for_each(|daemon| assert!(daemon.terminate().success()));
    daemons[1..4].iter_mut().for_each(Daemon::up);
    joined(&daemons[1..], 3);
    let late = &daemons[4];
    late.client().ok(json!({"cmd":"topic_keep","topic":"t.x","hours":1}));
    let mut reader_1 = reader(late, "late", json!({"topic":"t.>","history":true}));
    assert_eq!(shown(&mut reader_1, 100).into_iter().collect::<BTreeSet<_>>(), (0..100).collect());
    // It is shown at once to who does not keep it.
    wait_for("all of it to be kept here too", || (kept(late) == 100).then_some(()));
    // Another reader there is given the same, in order, and the first nothing twice.
    let mut reader_2 = reader(late, "later", json!({"topic":"t.>","history":true,"kept":true}));
    assert_eq!(shown(&mut reader_2, 100), (0..100).collect::<Vec<u64>>());
    reader_1.silent();
    // One without history hears of none of it.
    let mut plain = reader(late, "plain", json!({"topic":"t.>"}));
    plain.silent();
}
