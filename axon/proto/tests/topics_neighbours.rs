//! What one node says to neighbours of topics and hears of them, history, and scoped sockets. The test
//! writes every message of the neighbours itself.

use axon_proto::kinds::topics::name::Filter;
use axon_proto::limits::{BATCH_AGE_MS_MAX, TOPIC_PUBLISH_MS};
use serde_json::{Value, json};

use crate::net::{Solo, WALL_MS};
use crate::topics_world::{FEATURES, NONE, World, given, id, passed_on, sent, shown};

// --- neighbours ---

#[test]
fn a_neighbour_is_told_what_is_wanted_when_it_comes_and_when_that_changes() {
    let mut world = World::with(|settings| settings.topics.relay = vec![Filter::parse("r.>").unwrap()]);
    world.solo.play(4);
    let conn = world.solo.accept();
    let hello = world.solo.envelope("hello", Solo::hello_payload(FEATURES, None));
    let (_, effects) = world.solo.request(conn, &hello);
    let join = sent(&effects, 4, "topic.join").remove(0);
    assert_eq!(join["filters"], json!(["r.>"]));
    let client = world.solo.client();
    let (_, effects) = world.command(client, &json!({"cmd":"subscribe_topic","topic":"t"}));
    let next = sent(&effects, 4, "topic.join").remove(0);
    assert_eq!(next["filters"], json!(["r.>", "t"]));
    assert!(next["n"].as_u64() > join["n"].as_u64());
    let other = world.solo.client();
    let (_, effects) = world.command(other, &json!({"cmd":"subscribe_topic","topic":"t"}));
    assert!(sent(&effects, 4, "topic.join").is_empty(), "several clients share one");
    let (_, effects) = world.command(client, &json!({"cmd":"subscribe_topic","topic":">"}));
    assert_eq!(sent(&effects, 4, "topic.join")[0]["filters"], json!([">"]), "which is all");
    // One that does not offer topics hears nothing of them.
    world.solo.play(4);
    let hello = world.solo.envelope("hello", Solo::hello_payload(&[], None));
    let conn = world.solo.accept();
    let (_, effects) = world.solo.request(conn, &hello);
    assert!(sent(&effects, 4, "topic.join").is_empty());
}

#[test]
fn what_a_neighbour_wants_is_what_it_said_last_whichever_way_it_came() {
    let mut world = World::new();
    let client = world.solo.client();
    let publish = json!({"cmd":"publish","topic":"t","payload":{"n":1}});
    world.say_to(2, "topic.join", &json!({"n":5,"filters":["u"]}));
    world.say_to(2, "topic.join", &json!({"n":4,"filters":["t"]}));
    let (_, effects) = world.command(client, &publish);
    assert_eq!((passed_on(&effects, 2), passed_on(&effects, 3)), (0, 1));
    world.say_to(2, "topic.join", &json!({"n":6,"filters":["t"]}));
    world.solo.wait(TOPIC_PUBLISH_MS);
    assert_eq!(passed_on(&world.command(client, &publish).1, 2), 1);
    world.say_to(2, "topic.leave", &json!({"n":7}));
    world.solo.wait(TOPIC_PUBLISH_MS);
    assert_eq!(passed_on(&world.command(client, &publish).1, 2), 0);
    // Who is known no more is given nothing more.
    world.solo.owned(json!({"cmd":"trust","peer":id(3),"trust":"blocked"}));
    world.solo.wait(TOPIC_PUBLISH_MS);
    assert_eq!(passed_on(&world.command(client, &publish).1, 3), 0);
}

#[test]
fn a_message_for_clients_is_not_taken_from_a_peer() {
    let mut world = World::new();
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":">"}));
    world.solo.say(client, &json!({"cmd":"subscribe","req_id":"s"}));
    let payload = json!({"topic":"t","seq":1,"hops":0,"age_ms":0,"message":{"n":1}});
    let effects = world.say_to(2, "topic.message", &payload);
    assert_eq!((shown(&effects, client), world.solo.dropped("malformed")), (vec![], 1));
}

// --- history ---

#[test]
fn what_is_kept_is_given_to_neighbours_that_keep_it_too_and_asked_of_them() {
    let mut world = World::new();
    world.solo.owned(json!({"cmd":"topic_keep","topic":"t.>"}));
    let batches: Vec<Value> = (1..=5).map(|n| world.batch(2, "t.x", n)).collect();
    world.give(2, &batches);
    // Long after, and after a restart, nothing of it is in memory.
    world.restart();
    world.solo.wait(10 * BATCH_AGE_MS_MAX);
    world.solo.play(3);
    let effects = world.say_to(3, "topic.join", &json!({"n":100,"filters":[],"keeps":["t.>", "v"]}));
    let sum = sent(&effects, 3, "topic.gossip").remove(0)["sums"][0].take();
    assert_eq!((&sum["topic"], &sum["count"], &sum["kept"]), (&json!("t.x"), &json!(5), &json!(true)));
    let mut own = sum.clone();
    (own["count"], own["marks"], own["answer"]) = (0.into(), "0000000000000000".into(), true.into());
    let effects = world.say_to(3, "topic.gossip", &json!({ "sums": [own] }));
    let have = sent(&effects, 3, "topic.gossip").remove(0)["have"][0].take();
    assert_eq!((have["seqs"].as_array().unwrap().len(), &have["kept"]), (5, &json!(true)));
    let want = json!({"want":[{"from":id(2),"seqs":[1, 4]}]});
    let effects = world.say_to(3, "topic.gossip", &want);
    assert_eq!(passed_on(&effects, 3), 2, "read from the disk");
    let back = sent(&effects, 3, "topic.gossip").remove(0)["batches"][0]["signed"].take();
    assert_eq!(back, batches[0]["signed"]);
    // The other way: what it has, and is not here, is asked for, taken although it is old, and shown to who
    // wants history.
    let (past, live) = (world.reader("past"), world.reader("live"));
    world.subscribe(past, json!({"topic":"t.>","history":true}));
    world.subscribe(live, json!({"topic":"t.>"}));
    let have = json!({"have":[{"topic":"t.x","from":id(2),"seqs":[[1, 0], [7, 0]],"kept":true}]});
    let effects = world.say_to(3, "topic.gossip", &have);
    let want = sent(&effects, 3, "topic.gossip").remove(0)["want"][0].take();
    assert_eq!(want["seqs"], json!([7]));
    let (old_ms, message) = (WALL_MS + 1, [json!({"n":7})]);
    let effects = world.give(3, &[given(2, "t.x", 7, old_ms, &message, false)]);
    assert_eq!((shown(&effects, past), shown(&effects, live)), (vec![7], vec![]));
    let not_asked = given(2, "t.x", 8, old_ms, &message, false);
    assert_eq!((shown(&world.give(3, &[not_asked]), past), world.dropped("old")), (vec![], 1));
    let forged = json!({"have":[{"topic":"t.x","from":id(2),"seqs":[[9, 0]],"kept":true}]});
    world.say_to(3, "topic.gossip", &forged);
    let effects = world.give(3, &[given(2, "t.x", 9, old_ms, &message, true)]);
    assert_eq!((shown(&effects, past), world.dropped("forged")), (vec![], 1));
}

#[test]
fn whoever_subscribes_with_history_is_given_what_is_kept_first_and_nobody_twice() {
    let mut world = World::new();
    world.solo.owned(json!({"cmd":"topic_keep","topic":"t.>"}));
    let batches: Vec<Value> = (1..=40).map(|n| world.batch(2, "t.x", n)).collect();
    batches.chunks(20).for_each(|some| drop(world.give(2, some)));
    let (first, second) = (world.reader("a"), world.reader("b"));
    let subscribe = json!({"cmd":"subscribe_topic","topic":"t.>","history":true});
    let (_, effects) = world.command(first, &subscribe);
    assert_eq!(shown(&effects, first), (1..=40).collect::<Vec<u64>>());
    let mut kept = subscribe;
    kept["kept"] = true.into();
    let (_, effects) = world.command(second, &kept);
    assert_eq!((shown(&effects, first).len(), shown(&effects, second).len()), (0, 40));
    let next = world.batch(2, "t.x", 41);
    let effects = world.give(3, &[next]);
    assert_eq!((shown(&effects, first), shown(&effects, second)), (vec![41], vec![41]));
    assert_eq!(world.inbox(second).len(), 41);
    // Keeping no more lets go of it.
    let client = world.solo.client();
    let (reply, _) = world.command(client, &json!({"cmd":"topics"}));
    assert_eq!((&reply["keeps"][0]["messages"], &reply["seen"][0]["messages"]), (&json!(41), &json!(41)));
    world.solo.owned(json!({"cmd":"topic_keep","topic":"t.>","off":true}));
    let (reply, _) = world.command(client, &json!({"cmd":"topics"}));
    assert_eq!(reply["keeps"], json!([]));
}

// shows: TOP-TAKE-1, TOP-HIST-4
/// The power can go when a batch is with a neighbour and not on this disk yet.
#[test]
fn what_this_agent_published_and_lost_is_taken_back_as_history_only_where_it_was_asked_for() {
    let mut world = World::new();
    world.solo.owned(json!({"cmd":"topic_keep","topic":"t.>"}));
    let (past, live) = (world.reader("past"), world.reader("live"));
    world.subscribe(past, json!({"topic":">","history":true}));
    world.subscribe(live, json!({"topic":">"}));
    let own = [world.batch(1, "t.x", 1), world.batch(1, "u", 2)];
    assert_eq!(shown(&world.give(3, &own), past), NONE, "nobody asked for it");
    let announced =
        |topic: &str, seq: u64| json!({"have":[{"topic":topic,"from":id(1),"seqs":[[seq, 0]],"kept":true}]});
    let effects = world.say_to(3, "topic.gossip", &announced("t.x", 1));
    assert_eq!(sent(&effects, 3, "topic.gossip").remove(0)["want"][0]["seqs"], json!([1]));
    world.say_to(3, "topic.gossip", &announced("u", 2));
    let effects = world.give(3, &own);
    assert_eq!((shown(&effects, past), shown(&effects, live)), (vec![1], vec![]));
    assert_eq!(passed_on(&effects, 2), 0, "whoever keeps it compares by itself");
    let (topics, _) = world.command(past, &json!({"cmd":"topics"}));
    assert_eq!(topics["keeps"][0]["messages"], 1, "{topics}");
    assert_eq!(shown(&world.give(3, &own), past), NONE, "it is kept");
}

// --- scoped sockets ---

#[test]
fn a_scoped_socket_publishes_and_listens_as_far_as_it_may() {
    let mut world = World::new();
    world.solo.owned(json!({"cmd":"socket_add","name":"s","allow":["inbox"]}));
    let scoped = world.solo.scoped("s");
    world.subscribe(scoped, json!({"topic":"t","kept":true}));
    let (reply, _) = world.command(scoped, &json!({"cmd":"publish","topic":"t","payload":{}}));
    assert_eq!(reply["error"], "not_authorized", "{reply}");
    let (reply, _) = world.command(scoped, &json!({"cmd":"topic_keep","topic":"t"}));
    assert_eq!(reply["error"], "not_authorized", "{reply}");
    let (reply, _) = world.command(scoped, &json!({"cmd":"topics"}));
    assert_eq!((reply["subscriptions"].as_array().unwrap().len(), &reply["relay"]), (1, &Value::Null));
    let batch = world.batch(2, "t", 1);
    assert_eq!(shown(&world.give(2, &[batch]), scoped), [1]);
    // What is published goes to everybody: not from one that may speak with one peer.
    world.solo.owned(json!({"cmd":"socket_set","name":"s","allow":["inbox","send"],"to":[id(2)]}));
    let (reply, _) = world.command(scoped, &json!({"cmd":"publish","topic":"t","payload":{}}));
    assert_eq!(reply["error"], "not_authorized", "{reply}");
    world.solo.owned(json!({"cmd":"socket_set","name":"s","allow":["inbox","send"]}));
    let (reply, _) = world.command(scoped, &json!({"cmd":"publish","topic":"t","payload":{}}));
    assert_eq!(reply["ok"], true, "{reply}");
    world.solo.owned(json!({"cmd":"socket_remove","name":"s"}));
    assert_eq!(world.solo.status()["topics"]["subscriptions"], 0);
}
