//! What the clients of one daemon share where topics are concerned: who takes much leaves some to others.

use axon_proto::kinds::topics::name::Filter;
use axon_proto::limits::{
    BATCH_MESSAGES_MAX, HISTORY_WANT_MAX, TOPIC_FILTERS_MAX, TOPIC_PATIENCE_MS, TOPIC_PUBLISH_MS,
    TOPIC_PUBLISH_WAITING_MAX, TOPIC_REPLAYS_MAX, TOPIC_SUBS_MAX,
};
use axon_proto::node::{ClientId, Effect};
use serde_json::{Value, json};

use crate::net::lines;
use crate::topics_world::{World, sent, shown};

/// A world with a scoped socket, two clients of it, and one of the owner.
fn world() -> (World, [ClientId; 3]) {
    let mut world = World::with(|settings| settings.topics.relay = vec![Filter::parse("relayed.>").unwrap()]);
    world.solo.owned(json!({"cmd":"socket_add","name":"s","allow":["inbox","send"]}));
    let clients = [world.solo.scoped("s"), world.solo.scoped("s"), world.solo.client()];
    (world, clients)
}

/// Whether a command is let in, as far as it is answered at once.
fn goes(world: &mut World, client: ClientId, command: &Value) -> bool {
    let (reply, _) = world.command(client, command);
    let full = reply["error"] == "overloaded";
    assert!(full || reply["ok"] == true, "{command}: {reply}");
    !full
}

fn subscribe(topic: &str) -> Value {
    json!({"cmd":"subscribe_topic","topic":topic})
}

// shows: IPC-TOP-14
#[test]
fn a_scoped_socket_has_a_quarter_of_the_subscriptions_by_all_its_connections() {
    let (mut world, [one, other, owner]) = world();
    assert!(goes(&mut world, owner, &subscribe(">")), "whatever is said of filters");
    for n in 0..TOPIC_SUBS_MAX / 4 {
        let mut command = subscribe(&format!("t.{n}"));
        command["kept"] = (n % 2 == 0).into();
        assert!(goes(&mut world, if n % 4 < 2 { one } else { other }, &command), "{n}");
    }
    assert!(!goes(&mut world, one, &subscribe("more")) && !goes(&mut world, other, &subscribe("more")));
    assert!(goes(&mut world, one, &subscribe("t.1")), "the same again is not one more");
    assert!(goes(&mut world, owner, &subscribe("more")));
    world.solo.owned(json!({"cmd":"socket_add","name":"r","allow":["inbox"]}));
    let another = world.solo.scoped("r");
    assert!(goes(&mut world, another, &subscribe("more")));
    world.command(one, &json!({"cmd":"unsubscribe_topic","topic":"t.1"}));
    assert!(goes(&mut world, other, &subscribe("more")));
}

// shows: IPC-TOP-14
#[test]
fn one_that_reads_histories_leaves_room_for_others_who_do() {
    let (mut world, [one, other, owner]) = world();
    world.solo.owned(json!({"cmd":"topic_keep","topic":"t.>"}));
    let share = TOPIC_REPLAYS_MAX / 4;
    let topics: Vec<String> = (0..=share).map(|n| format!("t.{n}")).collect();
    let batches: Vec<Value> = topics.iter().zip(1..).map(|(topic, n)| world.batch(2, topic, n)).collect();
    world.give(2, &batches);
    world.solo.stall = true;
    let history = |topic: &str| json!({"cmd":"subscribe_topic","topic":topic,"history":true});
    for (n, topic) in topics.iter().enumerate() {
        assert_eq!(goes(&mut world, if n % 2 == 0 { one } else { other }, &history(topic)), n < share);
        assert_eq!(goes(&mut world, owner, &history(topic)), n < share);
    }
    let owners_next = world.solo.client();
    assert!(goes(&mut world, owners_next, &history("t.0")));
    // Once it was told there is room again.
    world.solo.go_on();
    assert!(goes(&mut world, one, &history(&topics[share])));
}

// shows: IPC-TOP-10, IPC-TOP-14
#[test]
fn messages_that_wait_to_be_published_are_counted_one_by_one_and_a_socket_has_a_quarter() {
    let (mut world, [one, other, owner]) = world();
    world.solo.owned(json!({"cmd":"topic_keep","topic":"t"}));
    world.solo.stall = true;
    let mut publish = |clients: [ClientId; 2]| {
        let mut refused = 0;
        // Some batches are signed and wait for the disk, the last messages wait to be signed.
        for n in 0..2 * TOPIC_PUBLISH_WAITING_MAX {
            let client = clients[n % 2];
            let command = json!({"cmd":"publish","req_id":n,"topic":"t","payload":{"n":n}});
            let effects = world.solo.say(client, &command);
            refused += lines(&effects, client).iter().filter(|line| line["error"] == "overloaded").count();
            if n % (BATCH_MESSAGES_MAX / 2) == 0 {
                world.solo.wait(TOPIC_PUBLISH_MS);
            }
        }
        2 * TOPIC_PUBLISH_WAITING_MAX - refused
    };
    assert_eq!(publish([one, other]), TOPIC_PUBLISH_WAITING_MAX / 4);
    assert_eq!(publish([owner, owner]), TOPIC_PUBLISH_WAITING_MAX / 4 * 3);
    let mut effects = world.solo.go_on();
    // Nothing arrives, so that the last of them wait for neighbours as well.
    effects.extend(world.solo.wait(TOPIC_PATIENCE_MS));
    assert_eq!(lines(&effects, owner).len(), TOPIC_PUBLISH_WAITING_MAX / 4 * 3, "all of these are answered");
}

// shows: IPC-TOP-14
#[test]
fn filters_of_a_scoped_socket_do_not_have_everything_sent_here() {
    let (mut world, [one, other, owner]) = world();
    let wide = |effects: &[Effect]| {
        let joins = sent(effects, 2, "topic.join");
        joins.iter().any(|join| join["filters"].as_array().unwrap().contains(&json!(">")))
    };
    let mut taken = |clients: [ClientId; 2], name: &str| {
        let mut taken = 0;
        for n in 0..2 * TOPIC_FILTERS_MAX {
            let (reply, effects) = world.command(clients[n % 2], &subscribe(&format!("{name}.{n}")));
            assert!(!wide(&effects), "{name}.{n}");
            taken += usize::from(reply["ok"] == true);
        }
        taken
    };
    assert_eq!(taken([one, other], "t"), TOPIC_FILTERS_MAX / 4);
    // They are as long as they may be: fewer of them.
    let long = "u".repeat(200);
    world.solo.owned(json!({"cmd":"socket_add","name":"r","allow":["inbox"]}));
    let another = world.solo.scoped("r");
    assert!(goes(&mut world, another, &subscribe("t.0")), "what is said already costs nothing");
    let count = (0..100).filter(|n| goes(&mut world, another, &subscribe(&format!("{long}.{n}")))).count();
    assert!((20..32).contains(&count), "{count}");
    // The owner's are said as they are, and only when they are too many more widely.
    let (reply, effects) = world.command(owner, &subscribe("own"));
    assert!(reply["ok"] == true && !wide(&effects), "{reply}");
    let widened = (0..TOPIC_FILTERS_MAX).any(|n| {
        let (reply, effects) = world.command(owner, &subscribe(&format!("own.{n}")));
        assert!(reply["ok"] == true || n + 1 == TOPIC_FILTERS_MAX, "{reply}");
        wide(&effects)
    });
    assert!(widened);
    // By then no scoped socket adds to them.
    assert!(!goes(&mut world, another, &subscribe("more")) && goes(&mut world, another, &subscribe("own.1")));
}

// --- history for who subscribes again ---

// shows: IPC-TOP-7
#[test]
fn a_history_that_is_told_ends_when_its_subscription_does_and_is_told_once() {
    let (mut world, [scoped, _, owner]) = world();
    world.solo.owned(json!({"cmd":"topic_keep","topic":"t.>"}));
    // It is read and told in several pieces.
    let count = 3 * HISTORY_WANT_MAX as u64;
    let batches: Vec<Value> = (1..=count).map(|n| world.batch(2, "t.x", n)).collect();
    batches.chunks(20).for_each(|some| drop(world.give(2, some)));
    let subscribe = |topic: &str, history: bool, from: &str| json!({"cmd":"subscribe_topic","topic":topic,"history":history,"from":from});
    // Without history: what is not told yet is not told any more, and all of it to who asks anew.
    world.solo.stall = true;
    world.command(owner, &subscribe("t.>", true, "peers"));
    world.command(owner, &subscribe("t.>", false, "peers"));
    world.command(owner, &subscribe("t.>", true, "peers"));
    let all: Vec<u64> = (1..=count).collect();
    assert_eq!(shown(&world.solo.go_on(), owner), all);
    // With history: it goes on, as is said now.
    let stranger = world.batch(50, "t.x", count + 1);
    world.give(2, &[stranger]);
    let mut other = world.solo.client();
    world.solo.stall = true;
    world.command(other, &subscribe("t.x", true, "peers"));
    world.command(other, &subscribe("t.x", true, "any"));
    let told = shown(&world.solo.go_on(), other);
    assert_eq!((told.len(), told.contains(&(count + 1))), (all.len() + 1, true));
    // Who has unsubscribed, or whose socket is gone, is told nothing more.
    other = world.solo.client();
    world.solo.stall = true;
    world.command(other, &subscribe("t.x", true, "peers"));
    world.command(other, &json!({"cmd":"unsubscribe_topic","topic":"t.x"}));
    assert_eq!(shown(&world.solo.go_on(), other), [0; 0]);
    let mut kept = subscribe("t.x", true, "peers");
    kept["kept"] = true.into();
    let newest = |world: &mut World| {
        let (reply, _) = world.command(owner, &subscribe("u", false, "peers"));
        reply["since_seq"].as_u64().unwrap()
    };
    let before = newest(&mut world);
    world.solo.stall = true;
    world.command(scoped, &kept);
    world.command(owner, &json!({"cmd":"socket_remove","name":"s"}));
    world.solo.let_go(|effect| !matches!(effect, Effect::Read { .. }));
    world.solo.go_on();
    assert_eq!(newest(&mut world), before, "nothing became a row");
}
