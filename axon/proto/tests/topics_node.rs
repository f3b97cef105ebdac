//! What one node does with topics: what it takes of whom, shows to whom, keeps, passes on and says. The test
//! writes every message of the neighbours itself.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod net;

use axon_proto::id::{AgentId, PublicKey};
use axon_proto::kinds::topics::batch::Batch;
use axon_proto::kinds::topics::name::{Filter, Topic};
use axon_proto::kinds::topics::rules::{Publisher, Rule};
use axon_proto::limits::{
    BATCH_AGE_MS_MAX, BATCH_AHEAD_MS_MAX, FORGED_MAX, FORGED_MS, TOPIC_AGAIN_MS, TOPIC_PUBLISH_MS,
    TOPIC_PUBLISH_WAITING_MAX, TOPIC_UNDER_WAY_MAX,
};
use axon_proto::node::{ClientId, ConnId, Effect, Input, StaticPeer};
use axon_proto::trust::Level;
use axon_proto::wire::raw_json;
use net::{Solo, WALL_MS, lines};
use serde_json::{Value, json};

/// What a neighbour offers.
const FEATURES: &[&str] = &["topics"];
/// How a signature begins that does not hold.
const FORGED: u8 = 9;
const NONE: [u64; 0] = [];

fn id(n: u8) -> AgentId {
    PublicKey([n; 32]).agent_id()
}
fn peer(n: u8) -> StaticPeer {
    let key = PublicKey([n; 32]);
    StaticPeer { agent_id: key.agent_id(), pubkey: key, addr: "192.0.2.1:7100".into(), name: None }
}

/// A node with peers 2, 3 and 4, of which 2 and 3 are neighbours that want everything.
struct World {
    solo: Solo,
    conns: [ConnId; 2],
}

/// A batch as a neighbour gives it.
fn given(publisher: u8, topic: &str, seq: u64, ts_ms: u64, messages: &[Value], forged: bool) -> Value {
    let texts: Vec<_> = messages.iter().map(|message| raw_json(message.to_string())).collect();
    let texts: Vec<&serde_json::value::RawValue> = texts.iter().map(|text| &**text).collect();
    let topic = Topic::parse(topic).unwrap();
    let signed = Batch::to_sign(&PublicKey([publisher; 32]), &topic, seq, ts_ms, &texts);
    let sig = [if forged { FORGED } else { 0 }; 64];
    let batch = Batch::read(signed, sig).unwrap();
    let given = axon_proto::kinds::topics::tree::Given { batch: batch.into(), hops: 1, age_ms: 5 };
    let gossip = axon_proto::kinds::topics::tree::Gossip { batches: vec![given], ..Default::default() };
    let payload = axon_proto::kinds::topics::wire::pack(&gossip).remove(0);
    serde_json::from_str::<Value>(payload.get()).unwrap()["batches"][0].take()
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut axon_proto::node::Settings)) -> Self {
        let mut solo = Solo::with(1, 2, |settings| {
            settings.peers = vec![peer(2), peer(3), peer(4)];
            change(settings);
        });
        solo.verify = |_, _, sig| sig[0] != FORGED;
        solo.restart();
        let mut world = Self { solo, conns: [ConnId(0); 2] };
        world.connect();
        world
    }

    fn connect(&mut self) {
        for (at, n) in [2, 3].into_iter().enumerate() {
            self.solo.play(n);
            self.conns[at] = self.solo.greeted(FEATURES, None);
            self.say_to(n, "topic.join", &json!({"n":1,"filters":[">"],"keeps":[">"]}));
        }
    }

    /// A message of neighbour 2 or 3.
    fn say_to(&mut self, n: u8, kind: &str, payload: &Value) -> Vec<Effect> {
        self.solo.play(n);
        let conn = self.conns[usize::from(n - 2)];
        let envelope = self.solo.envelope(kind, payload.clone());
        self.solo.one_way(conn, &envelope)
    }

    fn give(&mut self, n: u8, batches: &[Value]) -> Vec<Effect> {
        self.say_to(n, "topic.gossip", &json!({ "batches": batches }))
    }

    fn wall_ms(&self) -> u64 {
        WALL_MS + self.solo.now
    }

    /// A batch of one message, published now.
    fn batch(&self, publisher: u8, topic: &str, seq: u64) -> Value {
        given(publisher, topic, seq, self.wall_ms(), &[json!({ "n": seq })], false)
    }

    fn command(&mut self, client: ClientId, command: &Value) -> (Value, Vec<Effect>) {
        let mut command = command.clone();
        command["req_id"] = "c".into();
        let effects = self.solo.say(client, &command);
        let reply = lines(&effects, client).into_iter().find(|line| line["req_id"] == "c");
        (reply.unwrap_or_default(), effects)
    }

    fn subscribe(&mut self, client: ClientId, command: Value) {
        let mut command = command;
        command["cmd"] = "subscribe_topic".into();
        let (reply, _) = self.command(client, &command);
        assert_eq!(reply["ok"], true, "{reply}");
        // What these neighbours give is a little older than it is here.
        self.solo.wait(10);
    }

    fn reader(&mut self, consumer: &str) -> ClientId {
        let client = ClientId(self.solo.fresh());
        self.solo.feed(Input::ClientUp { client, trusted: true, socket: None });
        let hello = json!({"cmd":"hello","req_id":"h","version":2,"consumer":consumer});
        self.solo.say(client, &hello);
        client
    }

    fn dropped(&mut self, why: &str) -> u64 {
        self.solo.status()["topics"]["dropped"][why].as_u64().unwrap()
    }

    fn inbox(&mut self, client: ClientId) -> Vec<u64> {
        let (reply, _) = self.command(client, &json!({"cmd":"inbox","limit":100}));
        let rows = reply["messages"].as_array().unwrap().iter().map(|row| &row["envelope"]);
        rows.filter(|envelope| envelope["kind"] == "topic.message").map(number).collect()
    }

    fn restart(&mut self) {
        self.solo.restart();
        self.connect();
    }
}

/// The number in a message that was published.
fn number(envelope: &Value) -> u64 {
    assert_eq!(envelope["kind"], "topic.message", "{envelope}");
    envelope["payload"]["message"]["n"].as_u64().unwrap()
}

/// Messages that a client is shown.
fn shown(effects: &[Effect], client: ClientId) -> Vec<u64> {
    let events = lines(effects, client).into_iter().filter(|line| line["event"] == "inbound");
    events.map(|line| number(&line["envelope"])).collect()
}

/// What was sent to an agent of one kind.
fn sent(effects: &[Effect], to: u8, kind: &str) -> Vec<Value> {
    let messages = effects.iter().filter_map(|effect| match effect {
        Effect::OneWay { bytes, .. } => serde_json::from_str::<Value>(bytes).ok(),
        _ => None,
    });
    let its = messages.filter(|message| message["to"] == json!(id(to)) && message["kind"] == kind);
    its.map(|mut message| message["payload"].take()).collect()
}

/// How many batches were passed on to an agent.
fn passed_on(effects: &[Effect], to: u8) -> usize {
    let gossip = sent(effects, to, "topic.gossip");
    gossip.iter().filter_map(|payload| payload["batches"].as_array()).map(Vec::len).sum()
}

// --- what is taken ---

#[test]
fn a_batch_is_shown_to_who_subscribed_and_passed_on_to_others_once() {
    let mut world = World::new();
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":"t.*"}));
    let batch = world.batch(2, "t.x", 1);
    let effects = world.give(2, std::slice::from_ref(&batch));
    assert_eq!((shown(&effects, client), passed_on(&effects, 2), passed_on(&effects, 3)), (vec![1], 0, 1));
    let line = lines(&effects, client).remove(0);
    let (envelope, payload) = (&line["envelope"], &line["envelope"]["payload"]);
    assert_eq!((&envelope["from"], &line["trust"]), (&json!(id(2)), &json!("known")));
    assert_eq!((&payload["via"], &payload["via_trust"]), (&json!(id(2)), &json!("known")));
    assert_eq!(
        (&payload["hops"], &payload["age_ms"], &payload["topic"]),
        (&json!(1), &json!(5), &json!("t.x"))
    );
    let next = sent(&effects, 3, "topic.gossip").remove(0);
    assert_eq!((&next["batches"][0]["signed"], &next["batches"][0]["hops"]), (&batch["signed"], &json!(2)));
    // By another way it is shown to nobody, and that way is lazy from then on.
    let effects = world.give(3, std::slice::from_ref(&batch));
    assert_eq!((shown(&effects, client), passed_on(&effects, 2)), (vec![], 0));
    assert_eq!(sent(&effects, 3, "topic.gossip")[0]["prune"][0]["topic"], "t.x");
    // What nobody has subscribed to is passed on, and shown to nobody.
    let other = world.batch(2, "u", 2);
    let effects = world.give(2, &[other]);
    assert_eq!((shown(&effects, client), passed_on(&effects, 3)), (vec![], 1));
}

#[test]
fn whoever_is_no_peer_is_heard_only_by_who_wants_it_and_the_blocked_by_nobody() {
    let mut world = World::new();
    let (peers, any) = (world.solo.client(), world.solo.client());
    world.subscribe(peers, json!({"topic":"t"}));
    world.subscribe(any, json!({"topic":"t","from":"any"}));
    let (of_peer, of_stranger) = (world.batch(4, "t", 1), world.batch(50, "t", 2));
    let effects = world.give(2, &[of_peer, of_stranger]);
    assert_eq!((shown(&effects, peers), shown(&effects, any)), (vec![1], vec![1, 2]));
    let marked = lines(&effects, any).remove(1);
    assert_eq!(marked["envelope"]["payload"]["stranger"], true);
    assert_eq!((&marked["trust"], &marked["from_name"]), (&json!("unknown"), &Value::Null));
    assert_eq!(passed_on(&effects, 3), 2);
    for n in [4, 50] {
        let blocked = world.solo.owned(json!({"cmd":"trust","peer":id(n),"trust":"blocked"}));
        assert_eq!(blocked["ok"], true);
    }
    let batches = [world.batch(4, "t", 11), world.batch(50, "t", 12)];
    let effects = world.give(2, &batches);
    assert_eq!((shown(&effects, any), passed_on(&effects, 3), world.dropped("blocked")), (vec![], 0, 2));
}

#[test]
fn a_signature_that_does_not_hold_goes_no_further() {
    let mut world = World::new();
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":">"}));
    let wall_ms = world.wall_ms();
    let forged = given(2, "t", 1, wall_ms, &[json!({"n":1})], true);
    let effects = world.give(2, &[forged]);
    assert_eq!((shown(&effects, client), passed_on(&effects, 3), world.dropped("forged")), (vec![], 0, 1));
    // It has not taken the number of the true one.
    let batch = world.batch(2, "t", 1);
    assert_eq!(shown(&world.give(3, &[batch]), client), [1]);
    // Somebody else's key, and something that is no batch; the one beside them is taken.
    let mut wrong = world.batch(2, "t", 2);
    wrong["signed"]["from"] = json!(id(3));
    let good = world.batch(2, "t", 3);
    let effects = world.give(2, &[wrong, json!({"signed":1}), good]);
    assert_eq!((shown(&effects, client), world.dropped("malformed")), (vec![3], 2));
}

#[test]
fn what_is_old_or_of_the_future_is_not_taken() {
    let mut world = World::with(|settings| settings.topics.relay.clear());
    world.solo.wait(2 * BATCH_AGE_MS_MAX);
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":"t"}));
    let wall_ms = world.wall_ms();
    for (seq, ts_ms, taken) in [
        (1, wall_ms - BATCH_AGE_MS_MAX - 1, false),
        (2, wall_ms - BATCH_AGE_MS_MAX + 100, true),
        (3, wall_ms + BATCH_AHEAD_MS_MAX + 100, false),
        (4, wall_ms + BATCH_AHEAD_MS_MAX - 100, true),
    ] {
        let batch = given(2, "t", seq, ts_ms, &[json!({ "n": seq })], false);
        assert_eq!(!shown(&world.give(2, &[batch]), client).is_empty(), taken, "{seq}");
    }
    let unwanted = world.batch(2, "u", 9);
    assert_eq!(passed_on(&world.give(2, &[unwanted]), 3), 0);
    assert_eq!((world.dropped("old"), world.dropped("unwanted")), (2, 1));
}

#[test]
fn rules_say_who_may_publish_give_and_be_given_how_large_and_how_often() {
    let rule = |filter: &str| Rule::default_for(Filter::parse(filter).unwrap());
    let mut world = World::with(|settings| {
        settings.topics.rules = vec![
            Rule { publish: Publisher::Peer(Level::Trusted), ..rule("high.>") },
            Rule { relay: Level::Trusted, ..rule("near.>") },
            Rule { subscribe: Level::Trusted, ..rule("out.>") },
            Rule { bytes_max: 10, ..rule("small.>") },
            Rule { messages_per_minute: Some(3), ..rule("few.>") },
        ];
    });
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":">"}));
    let take = |world: &mut World, topic: &str, seq: u64| {
        let batch = world.batch(2, topic, seq);
        let effects = world.give(2, &[batch]);
        (shown(&effects, client).len(), passed_on(&effects, 3))
    };
    assert_eq!(take(&mut world, "high.x", 1), (0, 0));
    assert_eq!(take(&mut world, "near.x", 2), (0, 0));
    assert_eq!(take(&mut world, "out.x", 3), (1, 0), "delivered here, and given to nobody");
    assert_eq!(take(&mut world, "small.x", 4), (1, 1));
    assert_eq!(take(&mut world, "small.x", 1_234_567), (0, 0));
    for n in 0..5 {
        assert_eq!(take(&mut world, "few.x", 10 + n), if n < 3 { (1, 1) } else { (0, 0) }, "{n}");
    }
    assert_eq!((world.dropped("not_authorized"), world.dropped("limited")), (2, 3));
    world.solo.wait(20_000);
    assert_eq!(take(&mut world, "few.x", 20), (1, 1), "one every twenty seconds");
    world.solo.owned(json!({"cmd":"trust","peer":id(2),"trust":"trusted"}));
    assert_eq!(take(&mut world, "high.x", 30), (1, 1));
    assert_eq!(take(&mut world, "near.x", 31), (1, 1));
}

#[test]
fn a_neighbour_that_forges_without_end_is_not_looked_at_for_a_while() {
    let mut world = World::new();
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":">"}));
    for seq in 0..u64::from(FORGED_MAX) {
        let wall_ms = world.wall_ms();
        world.give(2, &[given(2, "t", seq, wall_ms, &[json!({"n":1})], true)]);
    }
    let good = world.batch(2, "t", 100);
    assert_eq!(shown(&world.give(2, std::slice::from_ref(&good)), client), NONE);
    assert_eq!(world.dropped("forged"), u64::from(FORGED_MAX) + 1);
    assert_eq!(shown(&world.give(3, &[good]), client), [100], "others are");
    world.solo.wait(FORGED_MS);
    let good = world.batch(2, "t", 101);
    assert_eq!(shown(&world.give(2, &[good]), client), [101]);
}

// --- who is shown what ---

#[test]
fn once_it_is_unsubscribed_nothing_comes_any_more() {
    let mut world = World::new();
    let (client, other) = (world.reader("a"), world.reader("b"));
    world.subscribe(client, json!({"topic":"t","kept":true}));
    world.subscribe(other, json!({"topic":"t"}));
    // One is on its way to the disk when it ends.
    world.solo.stall = true;
    let batch = world.batch(2, "t", 1);
    assert_eq!(shown(&world.give(2, &[batch]), client), NONE);
    let early = world.command(client, &json!({"cmd":"unsubscribe_topic","topic":"t"}));
    assert_eq!(early.0, Value::Null, "it is answered when the disk has it");
    let effects = world.solo.go_on();
    let replies = lines(&effects, client);
    assert_eq!((shown(&effects, client), &replies[0]["unsubscribed"]), (vec![], &json!(true)));
    assert_eq!(shown(&effects, other), [1], "others are not disturbed");
    let (again, _) = world.command(client, &json!({"cmd":"unsubscribe_topic","topic":"t"}));
    assert_eq!((&again["ok"], &again["unsubscribed"]), (&json!(true), &json!(false)));
    assert_eq!((world.inbox(client), world.inbox(other)), (vec![], vec![1]));
}

#[test]
fn what_is_kept_waits_for_its_consumer_through_a_restart_and_is_nobody_elses() {
    let mut world = World::new();
    let reader = world.reader("a");
    world.subscribe(reader, json!({"topic":"t","kept":true}));
    world.solo.feed(Input::ClientGone { client: reader });
    let batches: Vec<Value> = (1..=3).map(|n| world.batch(2, "t", n)).collect();
    world.give(2, &batches);
    let other = world.solo.client();
    assert_eq!(world.solo.status()["inbox_unread"], 0);
    assert_eq!(world.inbox(other), NONE);
    // A row for another does not stand in the way of one who asks for other kinds.
    let notify = world.solo.envelope("notify", json!({"topic":"n","data":1}));
    world.solo.one_way(world.conns[0], &notify);
    let (kinds, _) = world.command(other, &json!({"cmd":"inbox","kinds":["notify"]}));
    assert_eq!(kinds["messages"].as_array().unwrap().len(), 1, "{kinds}");
    world.restart();
    // What comes again is known.
    let effects = world.give(3, &batches);
    let reader = world.reader("a");
    assert_eq!((shown(&effects, reader), world.inbox(reader).len()), (vec![], 3));
    let next = world.batch(2, "t", 4);
    assert_eq!(shown(&world.give(3, &[next]), reader), [4], "the subscription is there again");
    let last = world.command(reader, &json!({"cmd":"inbox","limit":100})).0;
    let up_to = last["next_seq"].as_u64().unwrap();
    world.command(reader, &json!({"cmd":"ack","up_to_seq":up_to}));
    assert_eq!(world.inbox(reader), NONE);
}

#[test]
fn what_is_not_kept_goes_with_its_connection_and_version_1_hears_nothing() {
    let mut world = World::new();
    let (client, old) = (world.solo.client(), ClientId(world.solo.fresh()));
    world.solo.feed(Input::ClientUp { client: old, trusted: true, socket: None });
    world.solo.say(old, &json!({"cmd":"status"}));
    world.subscribe(client, json!({"topic":"t"}));
    let batch = world.batch(2, "t", 1);
    let effects = world.give(2, &[batch]);
    assert_eq!((shown(&effects, client), lines(&effects, old).len()), (vec![1], 0));
    assert_eq!(world.inbox(client), NONE, "it was shown, and is nowhere");
    world.solo.feed(Input::ClientGone { client });
    assert_eq!(world.solo.status()["topics"]["subscriptions"], 0);
}

#[test]
fn what_was_published_before_is_not_for_who_subscribes_after() {
    let mut world = World::new();
    let mut batch = world.batch(2, "t", 1);
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":"t"}));
    batch["age_ms"] = 10_000.into();
    let after = world.batch(2, "t", 2);
    assert_eq!(shown(&world.give(2, &[batch, after]), client), [2]);
}

#[test]
fn a_full_disk_delays_what_is_to_be_kept_and_loses_nothing() {
    let mut world = World::new();
    let client = world.reader("a");
    world.subscribe(client, json!({"topic":"t","kept":true}));
    world.solo.disk_full = true;
    let batch = world.batch(2, "t", 1);
    let effects = world.give(2, &[batch]);
    assert_eq!((shown(&effects, client), passed_on(&effects, 3)), (vec![], 1));
    let effects = world.solo.wait(3 * TOPIC_AGAIN_MS);
    assert_eq!(shown(&effects, client), NONE);
    world.solo.disk_full = false;
    assert_eq!(shown(&world.solo.wait(2 * TOPIC_AGAIN_MS), client), [1]);
    assert_eq!((world.inbox(client), world.dropped("not_kept")), (vec![1], 0));
}

// --- what is published here ---

#[test]
fn what_is_published_together_is_signed_together_and_numbers_rise() {
    let mut world = World::new();
    let (client, reader) = (world.solo.client(), world.solo.client());
    world.subscribe(reader, json!({"topic":"t"}));
    let publish = |n: u64| json!({"cmd":"publish","topic":"t","payload":{"n":n}});
    let (first, effects) = world.command(client, &publish(0));
    assert_eq!(
        (&first["ok"], &first["neighbours"], &first["subscribers"]),
        (&json!(true), &json!(2), &json!(1))
    );
    assert_eq!((passed_on(&effects, 2), passed_on(&effects, 3), shown(&effects, reader)), (1, 1, vec![0]));
    assert_eq!(lines(&effects, reader)[0]["trust"], "trusted", "it is this agent's own");
    world.command(client, &publish(0));
    let rest: Vec<Effect> = (1..=10).flat_map(|n| world.command(client, &publish(n)).1).collect();
    assert_eq!(passed_on(&rest, 2), 0, "they wait for one another");
    let effects = world.solo.wait(TOPIC_PUBLISH_MS);
    assert_eq!((passed_on(&effects, 2), shown(&effects, reader).len()), (1, 10));
    let seqs: Vec<u64> = lines(&effects, client).iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]) && seqs[0] > first["seq"].as_u64().unwrap());
    // Also when the clock went back while the daemon was away.
    world.solo.now = 1;
    world.restart();
    let client = world.solo.client();
    let (after, _) = world.command(client, &publish(11));
    assert!(after["seq"].as_u64().unwrap() > seqs[9], "{after}");
}

#[test]
fn what_cannot_be_published_says_why() {
    let mut world = World::new();
    let client = world.solo.client();
    for (command, code, word) in [
        (json!({"cmd":"publish","payload":{}}), "invalid_command", "`topic`"),
        (json!({"cmd":"publish","topic":"a.*","payload":{}}), "invalid_command", "filter"),
        (json!({"cmd":"publish","topic":"a","payload":[1]}), "invalid_command", "`payload`"),
        (
            json!({"cmd":"publish","topic":"a","payload":{"x":"y".repeat(64_400)}}),
            "message_too_large",
            "shorten",
        ),
        (json!({"cmd":"subscribe_topic"}), "invalid_command", "`topic`"),
        (json!({"cmd":"subscribe_topic","topic":"a..b"}), "invalid_command", "empty level"),
        (json!({"cmd":"subscribe_topic","topic":"a","from":"x"}), "invalid_command", "`from`"),
        (json!({"cmd":"subscribe_topic","topic":"a","history":true}), "invalid_command", "axon topic keep"),
        (json!({"cmd":"topic_keep","topic":"a","last":0}), "invalid_command", "`last`"),
        (json!({"cmd":"topic_keep","topic":"a","off":true}), "not_found", "axon topic list"),
        (json!({"cmd":"topic_peers","topic":"a.*"}), "invalid_command", "`topic`"),
    ] {
        let (reply, _) = world.command(client, &command);
        let message = reply["message"].as_str().unwrap_or_default();
        assert!(reply["error"] == code && message.contains(word), "{command:.80}: {reply}");
    }
    let mut off = World::with(|settings| settings.topics.enabled = false);
    let client = off.solo.client();
    let (reply, _) = off.command(client, &json!({"cmd":"publish","topic":"a","payload":{}}));
    assert_eq!(reply["error"], "not_offered", "{reply}");
}

#[test]
fn what_waits_to_be_signed_and_what_is_under_way_is_bounded() {
    let mut world = World::new();
    let client = world.solo.client();
    let publish = |n: u64| json!({"cmd":"publish","req_id":n,"topic":format!("t.{n}"),"payload":{"n":n}});
    let mut effects = Vec::new();
    for n in 0..2 * TOPIC_PUBLISH_WAITING_MAX as u64 {
        effects.extend(world.solo.say(client, &publish(n)));
    }
    let refused = lines(&effects, client).iter().filter(|line| line["error"] == "overloaded").count();
    assert_eq!(refused, TOPIC_PUBLISH_WAITING_MAX - 2, "the first two did not wait");
    // Nothing of it arrives: batches are announced instead, once more is taken.
    let mut to_2 = sent(&effects, 2, "topic.gossip").len();
    for _ in 0..200 {
        effects = world.solo.wait(TOPIC_PUBLISH_MS);
        effects.extend(world.solo.say(client, &publish(1)));
        to_2 += sent(&effects, 2, "topic.gossip").len();
    }
    // One neighbour's worth, and as many requests for what it lacks as its timers say.
    assert!(to_2 <= TOPIC_UNDER_WAY_MAX + 16, "{to_2}");
}

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
    world.solo.owned(json!({"cmd":"socket_remove","name":"s"}));
    assert_eq!(world.solo.status()["topics"]["subscriptions"], 0);
}
