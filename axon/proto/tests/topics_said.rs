//! What a daemon says to its neighbours of topics, and what not. One node, and peers whose every message the
//! test writes itself.

use axon_proto::id::{AgentId, PublicKey};
use axon_proto::kinds::topics::batch::Batch;
use axon_proto::kinds::topics::name::{Filter, Topic};
use axon_proto::kinds::topics::rules::Rule;
use axon_proto::limits;
use axon_proto::node::{ConnId, Effect, Input, StaticPeer};
use axon_proto::trust::Level;
use axon_proto::wire::raw_json;
use serde_json::{Value, json};

use crate::net::{Solo, WALL_MS, lines};

fn agent_id(n: u8) -> AgentId {
    PublicKey([n; 32]).agent_id()
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

/// A node that knows peers 2, 3 and 4.
fn node(change: impl FnOnce(&mut axon_proto::node::Settings)) -> Solo {
    let mut solo = Solo::with(1, 2, |settings| {
        for n in [3, 4] {
            let pubkey = PublicKey([n; 32]);
            let addr = "192.0.2.1:7100".into();
            settings.peers.push(StaticPeer { agent_id: pubkey.agent_id(), pubkey, addr, name: None });
        }
        change(settings);
    });
    solo.feed(Input::Start);
    solo
}

/// A peer connects and offers topics; what it is told at once.
fn up(solo: &mut Solo, n: u8) -> (ConnId, Vec<Effect>) {
    solo.play(n);
    let conn = solo.accept();
    let hello = solo.envelope("hello", Solo::hello_payload(&["topics"], None));
    let (_, effects) = solo.request(conn, &hello);
    (conn, effects)
}

fn tell(solo: &mut Solo, n: u8, conn: ConnId, kind: &str, payload: Value) -> Vec<Effect> {
    solo.play(n);
    let envelope = solo.envelope(kind, payload);
    solo.one_way(conn, &envelope)
}

fn join(solo: &mut Solo, n: u8, conn: ConnId, filters: &[&str], keeps: &[&str]) -> Vec<Effect> {
    tell(solo, n, conn, "topic.join", json!({"n":solo.now,"filters":filters,"keeps":keeps}))
}

/// A batch of the agent with the key of `n`, as it stands in a gossip. The nodes here take any signature.
fn batch(n: u8, topic: &str, seq: u64, ts_ms: u64) -> Value {
    let (topic, message) = (Topic::parse(topic).unwrap(), raw_json(format!("{{\"n\":{seq}}}")));
    let signed = Batch::to_sign(&PublicKey([n; 32]), &topic, seq, ts_ms, &[&message]);
    let signed: Value = serde_json::from_str(signed.get()).unwrap();
    json!({"signed":signed,"sig":format!("{}==", "A".repeat(86)),"hops":1,"age_ms":0})
}

fn give(solo: &mut Solo, n: u8, conn: ConnId, batches: &[Value]) -> Vec<Effect> {
    tell(solo, n, conn, "topic.gossip", json!({"batches":batches}))
}

/// The payloads of a kind that a peer is sent.
fn said(effects: &[Effect], to: ConnId, kind: &str) -> Vec<Value> {
    let of = |effect: &Effect| match effect {
        Effect::OneWay { conn, bytes, .. } if *conn == to => serde_json::from_str::<Value>(bytes).ok(),
        _ => None,
    };
    effects
        .iter()
        .filter_map(of)
        .filter(|said| said["kind"] == kind)
        .map(|said| said["payload"].clone())
        .collect()
}

/// The items of one list in all gossip that a peer is sent.
fn listed(effects: &[Effect], to: ConnId, list: &str) -> Vec<Value> {
    let gossip = said(effects, to, "topic.gossip");
    gossip.iter().flat_map(|said| said[list].as_array().cloned().unwrap_or_default()).collect()
}

// shows: TOP-JOIN-1
#[test]
fn a_neighbour_is_told_what_is_wanted_when_it_comes_when_that_changes_and_now_and_then() {
    let mut solo = node(|_| {});
    let (conn, effects) = up(&mut solo, 2);
    let first = said(&effects, conn, "topic.join");
    assert_eq!((first.len(), &first[0]["filters"], &first[0]["keeps"]), (1, &json!([">"]), &Value::Null));
    let (_, effects) = solo.owner(json!({"cmd":"topic_keep","topic":"a.>"}));
    let second = said(&effects, conn, "topic.join");
    assert_eq!((second.len(), &second[0]["keeps"]), (1, &json!(["a.>"])));
    assert!(second[0]["n"].as_u64() > first[0]["n"].as_u64());
    let effects = solo.wait(limits::TOPIC_JOIN_MS - 1_000);
    assert_eq!(said(&effects, conn, "topic.join"), [] as [Value; 0]);
    let again = said(&solo.wait(30_000), conn, "topic.join");
    assert!(again[0]["n"].as_u64() > second[0]["n"].as_u64() && again[0]["keeps"] == json!(["a.>"]));
    // Whoever does not offer topics is told nothing, and so is who is only found.
    solo.play(3);
    let without = solo.greeted(&[], None);
    assert_eq!(said(&solo.wait(limits::TOPIC_JOIN_MS), without, "topic.join"), [] as [Value; 0]);
    solo.trust(4, "unknown");
    let (stranger, effects) = up(&mut solo, 4);
    assert_eq!(said(&effects, stranger, "topic.join"), [] as [Value; 0]);
}

// shows: TOP-JOIN-1
#[test]
fn whoever_wants_nothing_says_so_only_where_it_had_wanted_something() {
    let mut solo = node(|settings| settings.topics.relay.clear());
    let (conn, effects) = up(&mut solo, 2);
    assert!(said(&effects, conn, "topic.join").is_empty() && said(&effects, conn, "topic.leave").is_empty());
    let client = solo.client();
    let effects = solo.say(client, &json!({"cmd":"subscribe_topic","req_id":"1","topic":"a.*"}));
    assert_eq!(said(&effects, conn, "topic.join")[0]["filters"], json!(["a.*"]));
    let effects = solo.say(client, &json!({"cmd":"unsubscribe_topic","req_id":"2","topic":"a.*"}));
    assert_eq!(said(&effects, conn, "topic.leave").len(), 1, "{effects:?}");
    // More than can be said is all.
    let many = (0..=limits::TOPIC_FILTERS_MAX).map(|n| filter(&format!("t.{n}"))).collect();
    let mut effects = solo.set(|settings| settings.topics.relay = many);
    effects.extend(solo.wait(10_000));
    assert_eq!(said(&effects, conn, "topic.join")[0]["filters"], json!([">"]));
}

// shows: TOP-RULE-2, TOP-TREE-4
#[test]
fn whoever_may_not_be_given_a_topic_hears_nothing_of_it() {
    let mut solo = node(|settings| {
        settings.topics.rules =
            vec![Rule { subscribe: Level::Trusted, ..Rule::default_for(filter("secret.>")) }];
    });
    solo.trust(3, "trusted");
    let conns = [2, 3, 4].map(|n| up(&mut solo, n).0);
    let [giver, trusted, known] = conns;
    for (n, conn) in (2..).zip(conns) {
        join(&mut solo, n, conn, &[">"], &[]);
    }
    let secret = batch(9, "secret.x", 1, WALL_MS);
    let mut effects = give(&mut solo, 2, giver, &[secret.clone(), batch(9, "open.x", 2, WALL_MS)]);
    assert_eq!(listed(&effects, trusted, "batches").len(), 2);
    let given = listed(&effects, known, "batches");
    assert_eq!((given.len(), &given[0]["signed"]["seq"]), (1, &json!(2)));
    assert_eq!((&given[0]["hops"], &given[0]["sig"]), (&json!(2), &secret["sig"]));
    // Nor by asking for it, nor in what is announced and summed up later.
    let want = json!({"want":[{"from":agent_id(9),"seqs":[1]}]});
    effects = tell(&mut solo, 4, known, "topic.gossip", want);
    effects.extend(solo.wait(60_000));
    for list in ["batches", "have", "sums"] {
        let heard = listed(&effects, known, list);
        assert!(heard.iter().all(|item| !item.to_string().contains("secret")), "{list}: {heard:?}");
    }
    assert!(listed(&effects, known, "sums").iter().any(|sum| sum["topic"] == "open.x"));
}

// shows: TOP-HIST-1, TOP-HIST-2
#[test]
fn whoever_keeps_the_same_is_told_what_is_kept_and_gets_what_it_lacks() {
    let mut solo = node(|_| {});
    solo.owned(json!({"cmd":"topic_keep","topic":"t.>"}));
    let (giver, _) = up(&mut solo, 2);
    let batches: Vec<Value> = (1..=3).map(|seq| batch(9, "t.x", seq, WALL_MS + seq)).collect();
    give(&mut solo, 2, giver, &batches);
    give(&mut solo, 2, giver, &[batch(9, "u.x", 4, WALL_MS)]);
    let (keeper, _) = up(&mut solo, 3);
    let sums = listed(&join(&mut solo, 3, keeper, &[], &["t.*"]), keeper, "sums");
    assert_eq!(sums.len(), 1, "{sums:?}");
    assert_eq!(
        (&sums[0]["topic"], &sums[0]["count"], &sums[0]["kept"]),
        (&json!("t.x"), &json!(3), &json!(true))
    );
    assert_eq!(sums[0]["to_ms"], WALL_MS + 3);
    // It has none: it is told which there are, asks for one, and is given what lies on the disk.
    let mut none = sums[0].clone();
    (none["count"], none["marks"], none["answer"]) = (0.into(), "0".repeat(16).into(), true.into());
    let have = listed(&tell(&mut solo, 3, keeper, "topic.gossip", json!({"sums":[none]})), keeper, "have");
    assert_eq!((have.len(), &have[0]["kept"]), (1, &json!(true)));
    assert_eq!(have[0]["seqs"].as_array().unwrap().len(), 3);
    solo.wait(limits::TOPIC_CACHE_MS + 30_000);
    let want = json!({"want":[{"from":agent_id(9),"seqs":[2,4]}]});
    let given = listed(&tell(&mut solo, 3, keeper, "topic.gossip", want), keeper, "batches");
    assert_eq!(
        (given.len(), &given[0]["signed"]),
        (1, &batches[1]["signed"]),
        "what is kept, and nothing else"
    );
    // Whoever keeps nothing is told nothing of it.
    let (other, _) = up(&mut solo, 4);
    let effects = join(&mut solo, 4, other, &[">"], &[]);
    assert!(listed(&effects, other, "sums").is_empty(), "{effects:?}");
}

// shows: TOP-HIST-3, TOP-HIST-4
#[test]
fn history_is_asked_for_taken_however_old_and_not_passed_on() {
    let mut solo = node(|_| {});
    solo.owned(json!({"cmd":"topic_keep","topic":"t.>","last":100}));
    let (keeper, _) = up(&mut solo, 2);
    let (other, _) = up(&mut solo, 3);
    join(&mut solo, 2, keeper, &[">"], &["t.>"]);
    join(&mut solo, 3, other, &[">"], &[]);
    let client = solo.client();
    solo.say(
        client,
        &json!({"cmd":"subscribe_topic","req_id":"1","topic":"t.>","from":"any","history":true}),
    );
    let old = WALL_MS - 86_400_000;
    // One that nobody asked for is old.
    give(&mut solo, 2, keeper, &[batch(9, "t.x", 1, old)]);
    let status = solo.status();
    assert_eq!((&status["topics"]["dropped"]["old"], &status["topics"]["delivered"]), (&json!(1), &json!(0)));
    let have = json!({"have":[
        {"topic":"t.x","from":agent_id(9),"seqs":[[1,0],[2,0]],"kept":true},
        {"topic":"u.x","from":agent_id(9),"seqs":[[3,0]],"kept":true}]});
    let want = listed(&tell(&mut solo, 2, keeper, "topic.gossip", have), keeper, "want");
    assert_eq!(want, [json!({"from":agent_id(9),"seqs":[1,2]})], "what is kept here, and nothing else");
    let effects = give(&mut solo, 2, keeper, &[batch(9, "t.x", 1, old), batch(9, "t.x", 2, old)]);
    let shown: Vec<Value> =
        lines(&effects, client).into_iter().filter(|line| line["event"] == "inbound").collect();
    assert_eq!(shown.len(), 2, "{effects:?}");
    for event in &shown {
        let payload = &event["envelope"]["payload"];
        assert_eq!((&payload["history"], &payload["stranger"]), (&json!(true), &json!(true)), "{event}");
    }
    assert!(listed(&effects, other, "batches").is_empty() && listed(&effects, other, "have").is_empty());
    // Nothing more is asked for: the whole is compared again.
    assert!(listed(&effects, keeper, "sums").iter().any(|sum| sum["topic"] == "t.x" && sum["count"] == 2));
    let late = solo.wait(60_000);
    assert!(listed(&late, other, "batches").is_empty() && listed(&late, other, "have").is_empty());
    // Both came once: again they are nothing new.
    give(&mut solo, 2, keeper, &[batch(9, "t.x", 1, old)]);
    assert_eq!(solo.status()["topics"]["delivered"], 2);
}
