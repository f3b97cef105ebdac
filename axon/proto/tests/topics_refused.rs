//! What is refused here, and what a neighbour may do to others' topics: nobody is asked for what would be
//! refused, and what one neighbour says spoils nothing for the others. The test writes every message of the
//! neighbours itself.

use std::cell::Cell;

use axon_proto::id::PublicKey;
use axon_proto::kinds::topics::name::Filter;
use axon_proto::kinds::topics::rules::{
    Publisher, RELAYED_MESSAGES_PER_MINUTE, Rule, STRANGER_MESSAGES_PER_MINUTE,
};
use axon_proto::limits::{TOPIC_PUBLISHERS_MAX, TOPIC_REFUSED_MS, TOPIC_STRANGERS_MAX, TOPIC_WANT_MS};
use axon_proto::node::{Effect, Settings, StaticPeer};
use axon_proto::trust::Level;
use serde_json::{Value, json};

use crate::topics_world;
use crate::topics_world::{FORGED, World, given, given_by, id, passed_on, peer, sent, shown};

thread_local! {
    static LOOKED_AT: Cell<u32> = const { Cell::new(0) };
}

/// A world that counts the signatures that are looked at.
fn counting(change: impl FnOnce(&mut Settings)) -> World {
    let mut world = World::with(change);
    world.solo.verify = |_, _, sig| {
        LOOKED_AT.set(LOOKED_AT.get() + 1);
        sig[0] != FORGED
    };
    world.restart();
    world
}

fn looked_at() -> u32 {
    LOOKED_AT.take()
}

fn rule(filter: &str) -> Rule {
    Rule::default_for(Filter::parse(filter).unwrap())
}

/// A neighbour announces a batch; what is asked for in the seconds after.
fn asked_after(world: &mut World, n: u8, topic: &str, publisher: u8, seq: u64) -> Vec<Value> {
    let have = json!({"have":[{"topic":topic,"from":id(publisher),"seqs":[[seq, 1]]}]});
    let mut effects = world.say_to(n, "topic.gossip", &have);
    effects.extend(world.solo.wait(2 * TOPIC_WANT_MS));
    [2, 3].into_iter().flat_map(|to| listed(&effects, to, "want")).collect()
}

fn listed(effects: &[Effect], to: u8, list: &str) -> Vec<Value> {
    let gossip = sent(effects, to, "topic.gossip");
    gossip.iter().flat_map(|said| said[list].as_array().cloned().unwrap_or_default()).collect()
}

/// The sum that a neighbour would say of one batch.
fn sum_of(batch: &Value) -> Value {
    use sha2::{Digest as _, Sha256};
    let mark: String = Sha256::digest(batch["signed"].to_string())
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let ts = &batch["signed"]["ts"];
    json!({"sums":[{"topic":batch["signed"]["topic"],"from_ms":ts,"to_ms":ts,"count":1,"marks":mark}]})
}

// shows: TOP-TREE-8
#[test]
fn what_would_be_refused_for_its_publisher_is_not_asked_for() {
    let mut world = World::with(|settings| {
        settings.topics.rules = vec![
            Rule { publish: Publisher::Peer(Level::Known), ..rule("peers.>") },
            Rule { relay: Level::Trusted, ..rule("near.>") },
        ];
    });
    world.solo.owned(json!({"cmd":"trust","peer":id(4),"trust":"blocked"}));
    for (topic, publisher, asked) in [
        ("t", 50, true),
        ("t", 4, false),
        ("peers.x", 50, false),
        ("peers.x", 3, true),
        ("near.x", 50, false),
    ] {
        let want = asked_after(&mut world, 2, topic, publisher, 1);
        assert_eq!(!want.is_empty(), asked, "{topic} of {publisher}: {want:?}");
        let have = json!({"have":[{"topic":topic,"from":id(publisher),"seqs":[[2, 1]],"kept":true}]});
        world.solo.owned(json!({"cmd":"topic_keep","topic":">"}));
        let effects = world.say_to(3, "topic.gossip", &have);
        assert_eq!(!listed(&effects, 3, "want").is_empty(), asked, "history: {topic} of {publisher}");
        world.solo.owned(json!({"cmd":"topic_keep","topic":">","off":true}));
    }
    // Whoever gives it all the same is told once to announce it only, from then on.
    let batches = [world.batch(4, "t", 10), world.batch(4, "t", 11)];
    let effects = world.give(2, &batches);
    assert_eq!(listed(&effects, 2, "prune"), [json!({"topic":"t","from":id(4)})]);
    assert_eq!(world.dropped("blocked"), 2);
}

// shows: TOP-TREE-8, TOP-SUM-2
#[test]
fn what_was_refused_for_its_size_is_not_asked_for_again_for_a_while() {
    let mut world = counting(|settings| {
        settings.topics.rules = vec![Rule { bytes_max: 8, ..rule("small.>") }];
    });
    let large = world.batch(50, "small.x", 123_456);
    assert_eq!(passed_on(&world.give(2, std::slice::from_ref(&large)), 3), 0);
    for n in [2, 3] {
        assert_eq!(asked_after(&mut world, n, "small.x", 50, 123_456), [] as [Value; 0]);
        // In a sum it is nothing that is missing here.
        let effects = world.say_to(n, "topic.gossip", &sum_of(&large));
        assert_eq!((listed(&effects, n, "sums"), listed(&effects, n, "have")), (vec![], vec![]));
    }
    // Given again it is refused again, and no signature is looked at for it.
    assert_eq!(looked_at(), 1);
    world.give(3, std::slice::from_ref(&large));
    assert_eq!((world.dropped("limited"), looked_at()), (2, 0));
    world.solo.wait(TOPIC_REFUSED_MS + 10_000);
    assert_eq!(asked_after(&mut world, 2, "small.x", 50, 123_456).len(), 1);
}

// shows: TOP-TREE-8
#[test]
fn one_that_a_neighbour_makes_up_keeps_the_true_one_from_nobody() {
    let mut world = World::with(|settings| {
        settings.topics.rules = vec![Rule { bytes_max: 8, ..rule("small.>") }];
    });
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":"small.x","from":"any"}));
    let wall_ms = world.wall_ms();
    let made_up = given(50, "small.x", 7, wall_ms, &[json!({"n":"much too large"})], true);
    world.give(2, &[made_up]);
    assert_eq!(world.dropped("limited"), 1);
    assert_eq!(asked_after(&mut world, 3, "small.x", 50, 7).len(), 1);
    let batch = given(50, "small.x", 7, world.wall_ms(), &[json!({"n":7})], false);
    assert_eq!(shown(&world.give(3, &[batch]), client), [7]);
}

// shows: TOP-TREE-8, TOP-TAKE-1
#[test]
fn of_whom_publishes_too_much_nothing_is_asked_for_and_no_signature_is_looked_at() {
    let mut world = counting(|_| {});
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":"t","from":"any"}));
    let many: Vec<Value> = (0..64).map(|n| json!({ "n": n })).collect();
    let batches = STRANGER_MESSAGES_PER_MINUTE / 64;
    let flood = |world: &World, n: u64| given(50, "t", 100 + 64 * n, world.wall_ms(), &many, false);
    for n in 0..batches {
        let batch = flood(&world, n);
        assert_eq!(shown(&world.give(2, &[batch]), client).len(), 64);
    }
    assert_eq!(u64::from(looked_at()), batches);
    let batch = flood(&world, batches);
    world.give(2, &[batch]);
    assert_eq!((world.dropped("limited"), looked_at()), (1, 0));
    let seq = 100 + 64 * batches;
    let have = json!({"have":[{"topic":"t","from":id(50),"seqs":[[seq, 1]]}]});
    world.say_to(3, "topic.gossip", &have);
    assert_eq!(listed(&world.solo.wait(TOPIC_WANT_MS + 50), 3, "want"), [] as [Value; 0]);
    // Once there is room for a batch it is asked for.
    world.solo.wait(1_000);
    assert_eq!(asked_after(&mut world, 3, "t", 50, seq).len(), 1);
    let batch = flood(&world, batches);
    assert_eq!(shown(&world.give(3, &[batch]), client).len(), 64);
}

// shows: TOP-HIST-5
#[test]
fn a_stranger_does_not_empty_what_is_kept_of_peers() {
    let mut world = World::new();
    world.solo.owned(json!({"cmd":"topic_keep","topic":"t","last":5}));
    for n in 1..=5 {
        let batch = world.batch(4, "t", n);
        world.give(2, &[batch]);
        world.solo.wait(10);
    }
    for n in 1..=20 {
        let ahead_ms = world.wall_ms() + 119_000;
        world.give(2, &[given(50, "t", n, ahead_ms, &[json!({ "n": 100 + n })], false)]);
    }
    let reader = world.reader("a");
    let subscribe = json!({"cmd":"subscribe_topic","topic":"t","from":"any","history":true});
    let (_, effects) = world.command(reader, &subscribe);
    assert_eq!(shown(&effects, reader), [1, 2, 3, 4, 5]);
    // Nor is it asked for what has no room here.
    let have = json!({"have":[{"topic":"t","from":id(50),"seqs":[[99, 0]],"kept":true}]});
    assert_eq!(listed(&world.say_to(2, "topic.gossip", &have), 2, "want"), [] as [Value; 0]);
}

// shows: TOP-RULE-4
#[test]
fn a_neighbour_gives_so_many_messages_a_minute_as_a_rule_says_forged_ones_too() {
    let mut world = counting(|settings| {
        settings.topics.rules = vec![Rule { relay_messages_per_minute: Some(60), ..rule("few.>") }];
    });
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":">"}));
    let messages = |first: u64, count: u64| -> Vec<Value> {
        (first..first + count).map(|n| json!({ "n": n })).collect()
    };
    let of = |world: &World, topic: &str, seq: u64, count: u64, forged: bool| {
        given(4, topic, seq, world.wall_ms(), &messages(seq, count), forged)
    };
    // Messages count, and not envelopes: both neighbours have a minute's worth each.
    let batches = [of(&world, "few.x", 1, 40, false), of(&world, "few.x", 41, 20, true)];
    assert_eq!(shown(&world.give(2, &batches), client).len(), 40);
    let more = of(&world, "few.x", 61, 1, false);
    looked_at();
    assert_eq!(shown(&world.give(2, std::slice::from_ref(&more)), client), topics_world::NONE);
    assert_eq!((world.dropped("limited"), world.dropped("forged"), looked_at()), (1, 1, 0));
    assert_eq!(asked_after(&mut world, 2, "few.x", 4, 62), [] as [Value; 0]);
    assert_eq!(shown(&world.give(3, &[more]), client), [61]);
    let other = of(&world, "many.x", 100, 64, false);
    assert_eq!(shown(&world.give(2, &[other]), client).len(), 64, "another topic is not of the rule");
    world.solo.wait(2_000);
    let later = of(&world, "few.x", 200, 2, false);
    assert_eq!(shown(&world.give(2, &[later]), client), [200, 201], "one a second comes back");
}

// shows: TOP-RULE-4
#[test]
fn without_a_rule_a_neighbour_gives_of_peers_what_it_likes_and_of_strangers_a_part() {
    let mut world = World::with(|settings| {
        settings.topics.rules = vec![Rule { messages_per_minute: Some(0), ..rule(">") }];
    });
    let messages: Vec<Value> = (0..64).map(|n| json!({ "n": n })).collect();
    // How many of so many batches, each of one of some publishers, are passed on.
    let taken = |world: &mut World, n: u8, publishers: std::ops::Range<u8>, count: u64| {
        let before = world.solo.status()["topics"]["relayed"].as_u64().unwrap();
        let wall_ms = world.wall_ms();
        let batches: Vec<Value> = (1..=count)
            .zip(publishers.cycle())
            .map(|(seq, publisher)| given(publisher, "t", 64 * seq, wall_ms, &messages, false))
            .collect();
        batches.chunks(50).for_each(|some| drop(world.give(n, some)));
        world.solo.status()["topics"]["relayed"].as_u64().unwrap() - before
    };
    let most = RELAYED_MESSAGES_PER_MINUTE / 64;
    assert_eq!(taken(&mut world, 2, 100..150, most + 10), most, "however many keys there are");
    assert_eq!((world.dropped("limited"), taken(&mut world, 3, 200..201, 1)), (10, 1));
    assert_eq!(taken(&mut world, 2, 4..5, most + 10), most + 10, "of a peer");
}

// shows: TOP-TAKE-4
#[test]
fn a_forged_batch_takes_nobodys_place_among_those_who_are_remembered() {
    let key = |n: usize| {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        PublicKey(key)
    };
    // As many peers as there are places that strangers cannot have, and one more.
    let peers = TOPIC_PUBLISHERS_MAX - TOPIC_STRANGERS_MAX;
    let mut world = World::with(|settings| {
        for n in 0..=peers {
            settings.peers.push(StaticPeer { agent_id: key(n).agent_id(), pubkey: key(n), ..peer(4) });
        }
    });
    let client = world.solo.client();
    world.subscribe(client, json!({"topic":"t","from":"any"}));
    let give = |world: &mut World, n: usize, forged: bool| {
        let batch = given_by(key(n), "t", 1, world.wall_ms(), &[json!({ "n": n })], forged);
        shown(&world.give(2, &[batch]), client).len()
    };
    let silent = 100_000;
    assert_eq!(give(&mut world, silent, false), 1);
    world.solo.wait(100);
    let strangers = silent + 1..silent + TOPIC_STRANGERS_MAX;
    let taken: usize = strangers.chain(0..peers).map(|n| give(&mut world, n, false)).sum();
    assert_eq!(taken, TOPIC_PUBLISHERS_MAX - 1);
    // All places are taken. One that is forged in the name of a peer is refused, and all are as before.
    assert_eq!((give(&mut world, peers, true), world.dropped("forged")), (0, 1));
    assert_eq!((give(&mut world, silent, false), give(&mut world, peers, false)), (0, 1));
    assert_eq!(
        give(&mut world, silent, false),
        0,
        "it gave way, and strangers wait until another is forgotten"
    );
    assert_eq!(world.dropped("old"), 1);
}
