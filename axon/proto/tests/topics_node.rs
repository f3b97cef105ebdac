//! What one node does with topics: what it takes of whom, shows to whom, keeps, and publishes. The test
//! writes every message of the neighbours itself.

use axon_proto::id::PublicKey;
use axon_proto::kinds::topics::name::Filter;
use axon_proto::kinds::topics::rules::{Publisher, Rule};
use axon_proto::limits::{
    BATCH_AGE_MS_MAX, BATCH_AHEAD_MS_MAX, FORGED_MAX, FORGED_MS, SWEEP_INTERVAL_MS, TOPIC_AGAIN_MAX,
    TOPIC_AGAIN_MS, TOPIC_PATIENCE_MS, TOPIC_PUBLISH_MS, TOPIC_PUBLISH_WAITING_MAX, TOPIC_SLOW_MS,
    TOPIC_STRANGERS_MAX, TOPIC_UNDER_WAY_MAX,
};
use axon_proto::node::{ClientId, Effect, Input};
use axon_proto::store::Write;
use axon_proto::trust::Level;
use serde_json::{Value, json};

use crate::net::lines;
use crate::topics_world::{NONE, World, given, given_by, id, passed_on, sent, shown};

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
fn what_was_published_before_is_not_for_who_subscribes_after_whatever_a_neighbour_says() {
    let mut world = World::new();
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":"t"}));
    let ages_ago = |world: &World, seq: u64| {
        let before_ms = world.wall_ms() - 10_000;
        given(2, "t", seq, before_ms, &[json!({ "n": seq })], false)
    };
    let mut before = ages_ago(&world, 1);
    before["age_ms"] = 10_000.into();
    // The publisher's clock is late, and a neighbour makes an age up: each alone says nothing.
    let late_clock = ages_ago(&world, 2);
    let mut made_up = world.batch(2, "t", 3);
    made_up["age_ms"] = 9_007_199_254_740_991_u64.into();
    assert_eq!(shown(&world.give(2, &[before, late_clock, made_up]), client), [2, 3]);
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

// shows: IPC-TOP-15
#[test]
fn what_the_disk_refuses_is_not_in_effect() {
    let mut world = World::new();
    let client = world.reader("a");
    world.subscribe(client, json!({"topic":"before","kept":true}));
    world.solo.disk_full = true;
    for command in [
        json!({"cmd":"topic_keep","topic":"t"}),
        json!({"cmd":"subscribe_topic","topic":"after","kept":true}),
        json!({"cmd":"subscribe_topic","topic":"before","kept":true,"from":"any"}),
        json!({"cmd":"unsubscribe_topic","topic":"before"}),
    ] {
        let (reply, _) = world.command(client, &command);
        assert_eq!(reply["error"], "internal_error", "{command}: {reply}");
    }
    world.solo.disk_full = false;
    let (reply, _) = world.command(client, &json!({"cmd":"topics"}));
    assert_eq!(reply["keeps"], json!([]));
    let subscriptions: Vec<_> = reply["subscriptions"].as_array().unwrap().iter().collect();
    assert_eq!(subscriptions.len(), 1, "{reply}");
    assert_eq!((&subscriptions[0]["topic"], &subscriptions[0]["from"]), (&json!("before"), &json!("peers")));
    let (of_before, of_after) = (world.batch(2, "before", 1), world.batch(2, "after", 2));
    assert_eq!(shown(&world.give(2, &[of_before, of_after]), client), [1]);
    // Nor is what was changed again before the disk had refused it.
    world.solo.stall = true;
    for command in [
        json!({"cmd":"subscribe_topic","topic":"twice","kept":true}),
        json!({"cmd":"unsubscribe_topic","topic":"twice"}),
        json!({"cmd":"unsubscribe_topic","topic":"before"}),
        json!({"cmd":"subscribe_topic","topic":"before","kept":true,"from":"any"}),
    ] {
        assert_eq!(world.command(client, &command).0, Value::Null, "{command}");
    }
    (world.solo.disk_full, world.solo.stall) = (true, false);
    let refused = lines(&world.solo.go_on(), client);
    assert_eq!(refused.iter().filter(|line| line["error"] == "internal_error").count(), 4, "{refused:?}");
    world.solo.disk_full = false;
    assert_eq!(world.command(client, &json!({"cmd":"topics"})).0["subscriptions"], reply["subscriptions"]);
    // What is kept goes on being kept.
    world.solo.owned(json!({"cmd":"topic_keep","topic":"t"}));
    world.solo.disk_full = true;
    let off = json!({"cmd":"topic_keep","topic":"t","off":true});
    assert_eq!(world.command(client, &off).0["error"], "internal_error");
    world.solo.disk_full = false;
    let (reply, _) = world.command(client, &json!({"cmd":"topics"}));
    assert_eq!(reply["keeps"][0]["topic"], "t", "{reply}");
    assert_eq!(world.command(client, &off).0["ok"], true);
}

// shows: TRUST-POL-7, IPC-TOP-13
#[test]
fn rows_of_strangers_have_a_share_of_the_inbox_and_what_is_over_it_is_only_told() {
    let mut world = World::with(|settings| settings.buffer_size = 40);
    let reader = world.reader("a");
    world.subscribe(reader, json!({"topic":"t","kept":true,"from":"any"}));
    let publish = |world: &mut World, publisher: u8, seqs: std::ops::Range<u64>| {
        let batches: Vec<Value> = seqs.map(|seq| world.batch(publisher, "t", seq)).collect();
        world.give(2, &batches)
    };
    // Whoever has many keys has no more; of a batch that fits in part, the first messages are kept.
    publish(&mut world, 50, 1..7);
    let messages: Vec<Value> = (11..=16).map(|n| json!({ "n": n })).collect();
    let batch = given(51, "t", 11, world.wall_ms() - 5, &messages, false);
    let effects = world.give(3, &[batch]);
    assert_eq!(shown(&effects, reader), (11..=16).collect::<Vec<u64>>(), "all are told");
    assert!(!lines(&effects, reader).iter().any(|line| line["event"] == "slow_consumer"));
    let kept: Vec<u64> = (1..7).chain(11..15).collect();
    assert_eq!((world.inbox(reader), world.dropped("limited")), (kept.clone(), 1));
    // Those who were let in, and this agent's own, have the rest of the inbox.
    publish(&mut world, 4, 21..41);
    let own = json!({"cmd":"publish","topic":"t","payload":{"n":99}});
    world.command(reader, &own);
    assert_eq!(world.inbox(reader).len(), 31);
    // The share outlives the daemon, and is free again once somebody has read.
    world.restart();
    let reader = world.reader("a");
    assert_eq!(shown(&publish(&mut world, 52, 1..2), reader), [1]);
    assert_eq!((world.inbox(reader).len(), world.dropped("limited")), (31, 1));
    let last = world.command(reader, &json!({"cmd":"inbox","limit":100})).0;
    world.command(reader, &json!({"cmd":"ack","up_to_seq":last["next_seq"]}));
    world.solo.wait(SWEEP_INTERVAL_MS);
    publish(&mut world, 52, 2..3);
    assert_eq!(world.inbox(reader), [2]);
}

#[test]
fn ids_of_what_strangers_publish_push_out_nobodys() {
    let mut world = World::new();
    let reader = world.reader("a");
    world.subscribe(reader, json!({"topic":"t","kept":true,"from":"any"}));
    world.solo.stall = true;
    let batches = [world.batch(50, "t", 1), world.batch(51, "t", 2), world.batch(4, "t", 3)];
    world.give(2, &batches);
    let writes = world.solo.stalled.iter().filter_map(|effect| match effect {
        Effect::Commit { commit, .. } => Some(&commit.writes),
        _ => None,
    });
    let names: Vec<_> = writes
        .flatten()
        .filter_map(|write| if let Write::Seen(seen) = write { Some(seen.from) } else { None })
        .collect();
    // Who has made up many names is one sender of these, and loses its own first.
    assert_eq!(names, [world.solo.me, world.solo.me, id(4)]);
    world.solo.go_on();
    world.restart();
    let again = world.give(3, &batches);
    let reader = world.reader("a");
    assert_eq!((shown(&again, reader), world.inbox(reader)), (vec![], vec![1, 2, 3]));
}

#[test]
fn while_the_history_cannot_be_stored_nobody_is_shown_a_message_twice() {
    let mut world = World::new();
    world.solo.owned(json!({"cmd":"topic_keep","topic":"t"}));
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":"t"}));
    world.solo.disk_full = true;
    let batch = world.batch(2, "t", 1);
    assert_eq!(shown(&world.give(2, &[batch]), client), [1]);
    assert_eq!(shown(&world.solo.wait(5 * TOPIC_AGAIN_MS), client), NONE);
    world.solo.disk_full = false;
    world.solo.wait(2 * TOPIC_AGAIN_MS);
    let (reply, _) = world.command(client, &json!({"cmd":"topics"}));
    assert_eq!(reply["keeps"][0]["messages"], 1, "{reply}");
}

#[test]
fn what_a_paused_agent_publishes_waits_until_it_is_resumed() {
    let mut world = World::new();
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":"t"}));
    world.solo.owned(json!({"cmd":"pause","peer":id(2)}));
    let batch = world.batch(2, "t", 1);
    let effects = world.give(2, &[batch]);
    assert_eq!((shown(&effects, client), passed_on(&effects, 3)), (vec![], 1));
    assert_eq!(shown(&world.solo.wait(10 * TOPIC_AGAIN_MS), client), NONE);
    world.solo.owned(json!({"cmd":"resume","peer":id(2)}));
    let effects = world.solo.wait(2 * TOPIC_AGAIN_MS);
    assert_eq!(shown(&effects, client), [1]);
    // It is as old as it is when it is shown.
    let age_ms = lines(&effects, client)[0]["envelope"]["payload"]["age_ms"].as_u64().unwrap();
    assert!((10 * TOPIC_AGAIN_MS..=12 * TOPIC_AGAIN_MS + 5).contains(&age_ms), "{age_ms}");
    // What is too much to wait is missed, and said to be.
    world.solo.owned(json!({"cmd":"pause","peer":id(2)}));
    let mut effects = Vec::new();
    for seq in 0..=TOPIC_AGAIN_MAX as u64 {
        let batch = world.batch(2, "t", 10 + seq);
        effects.extend(world.give(2, &[batch]));
    }
    assert_eq!(world.dropped("not_kept"), 1);
    assert!(lines(&effects, client).iter().any(|line| line["event"] == "slow_consumer"));
}

#[test]
fn one_that_is_asked_for_many_times_is_given_once_and_what_is_blocked_to_nobody() {
    let mut world = World::new();
    let batch = world.batch(4, "t", 1);
    world.give(2, &[batch]);
    let want = json!({"want":[{"from":id(4),"seqs":vec![1; 4_096]}]});
    assert_eq!(passed_on(&world.say_to(3, "topic.gossip", &want), 3), 1);
    world.solo.owned(json!({"cmd":"trust","peer":id(4),"trust":"blocked"}));
    assert_eq!(passed_on(&world.say_to(3, "topic.gossip", &want), 3), 0);
}

#[test]
fn who_makes_up_keys_takes_no_places_of_peers() {
    let mut world = World::with(|settings| {
        let free = Rule { messages_per_minute: Some(0), ..Rule::default_for(Filter::parse(">").unwrap()) };
        settings.topics.rules = vec![free];
    });
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":"t","from":"any"}));
    let wall_ms = world.wall_ms();
    let made_up = |n: usize| {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        given_by(PublicKey(key), "t", 1, wall_ms, &[json!({"n":1})], false)
    };
    let taken: usize =
        (0..TOPIC_STRANGERS_MAX + 10).map(|n| shown(&world.give(2, &[made_up(n)]), client).len()).sum();
    assert_eq!((taken, world.dropped("old")), (TOPIC_STRANGERS_MAX, 10));
    let of_peer = world.batch(4, "t", 1);
    assert_eq!(shown(&world.give(3, &[of_peer]), client), [1]);
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
        (json!({"cmd":"subscribe_topic","topic":"a","history":true}), "not_found", "axon topic keep"),
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

// shows: IPC-TOP-10
#[test]
fn who_publishes_waits_for_neighbours_but_not_for_long() {
    let mut world = World::new();
    let client = world.solo.client();
    let publish = |world: &mut World| {
        let effects =
            world.solo.say(client, &json!({"cmd":"publish","req_id":"p","topic":"t","payload":{"n":1}}));
        [effects, world.solo.wait(TOPIC_PUBLISH_MS)].into_iter().flatten().collect::<Vec<_>>()
    };
    let replies =
        |effects: &[Effect]| lines(effects, client).iter().filter(|line| line["ok"] == true).count();
    // Nothing of it arrives.
    let way = TOPIC_UNDER_WAY_MAX + 8;
    let effects: Vec<Effect> = (0..way).flat_map(|_| publish(&mut world)).collect();
    let at_once = replies(&effects);
    assert!((TOPIC_UNDER_WAY_MAX / 2..=TOPIC_UNDER_WAY_MAX).contains(&at_once), "{at_once}");
    assert_eq!(replies(&world.solo.wait(TOPIC_PATIENCE_MS - 4 * way as u64)), 0);
    assert_eq!(at_once + replies(&world.solo.wait(4 * way as u64)), way);
    // Who is slow is not waited for, for a while.
    assert_eq!(replies(&publish(&mut world)), 1);
    world.solo.wait(TOPIC_SLOW_MS);
    assert_eq!(replies(&publish(&mut world)), 0);
    // What arrives makes room.
    let arrived = effects.iter().filter_map(|effect| match effect {
        Effect::OneWay { token, .. } => Some(*token),
        _ => None,
    });
    let effects: Vec<Effect> = arrived
        .take(2 * TOPIC_UNDER_WAY_MAX)
        .flat_map(|token| world.solo.feed(Input::Sent { token, outcome: Ok(()) }))
        .collect();
    assert_eq!(replies(&effects), 1);
}
