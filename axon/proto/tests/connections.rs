//! Connections between nodes: who dials, which of two stays, what becomes of messages when one is lost, falls
//! silent, or its peer starts anew. Whole nodes in a network in memory.

// Nodes are named by their number, in more lists than one.
#![allow(clippy::needless_range_loop)]

use std::collections::BTreeSet;

use axon_proto::limits;
use axon_proto::node::{ClientId, Input, Settings};
use serde_json::{Value, json};

use crate::net::{Rng, World};

/// A message by a client of one node, to be answered later.
struct Asked {
    at: usize,
    client: ClientId,
    req_id: String,
    kind: &'static str,
}

fn say_something(world: &mut World, at: usize, to: usize, client: ClientId, nth: u64) -> Asked {
    let (kind, req_id) = match nth % 3 {
        0 => ("query", world.query(at, client, to)),
        1 => ("delegate", world.delegate(at, client, to)),
        _ => ("notify", world.notify(at, client, to)),
    };
    Asked { at, client, req_id, kind }
}

/// Every command was answered once, well, and every message was delivered once.
fn all_arrived(world: &World, asked: &[Asked], seed: u64) {
    for Asked { at, client, req_id, kind } in asked {
        let replies = world.replies(*at, *client, req_id);
        assert_eq!(replies.len(), 1, "seed {seed}: {kind} {req_id} of {at}: {replies:?}\n{}", world.tail());
        let reply = &replies[0];
        assert_eq!(reply["ok"], true, "seed {seed}: {kind} {req_id} of {at}: {reply}\n{}", world.tail());
        let key = (1 - at, reply["msg_id"].as_str().unwrap().to_owned());
        let times = match *kind {
            "query" => {
                assert_eq!(reply["response"]["kind"], "response", "seed {seed}");
                world.offered.get(&key)
            }
            "delegate" => {
                assert_eq!(reply["response"]["payload"]["accepted"], true, "seed {seed}");
                let results = world.events(*at, *client, "result");
                let of_it = results.iter().filter(|result| result["ref"] == reply["msg_id"]).count();
                assert_eq!(of_it, 1, "seed {seed}: results of {req_id}\n{}", world.tail());
                world.offered.get(&key)
            }
            _ => world.shown.get(&key),
        };
        assert_eq!(times.map(Vec::len), Some(1), "seed {seed}: {kind} {req_id}\n{}", world.tail());
    }
}

// shows: WF-CON-1, WF-DUP-1, WF-DUP-2, WF-DUP-3, WF-DUP-4
#[test]
fn two_that_dial_each_other_at_once_settle_on_one_connection_and_lose_nothing() {
    let mut orders = BTreeSet::new();
    for seed in 0..300 {
        let mut world = World::new(seed, 2);
        world.latency_ms = (1, 40);
        world.start(0);
        world.start(1);
        let agents = [world.agent(0, (1, 60)), world.agent(1, (1, 60))];
        let mut asked = Vec::new();
        let mut first: [Option<bool>; 2] = [None, None];
        for nth in 0..24 {
            for at in 0..2 {
                asked.push(say_something(&mut world, at, 1 - at, agents[at], nth));
            }
            let pause = world.rng.range(0, 20);
            world.run_for(pause);
            // Which connection each side sees up first shows that the orders differ.
            for at in 0..2 {
                if first[at].is_none() && world.peer_status(at, 1 - at) == "connected" {
                    first[at] = Some(world.dialled_first(at));
                }
            }
        }
        world.run_for(10_000);
        orders.insert(first);
        all_arrived(&world, &asked, seed);
        let wires = world.wires_between(0, 1);
        assert_eq!((wires.len(), world.half_wires(0, 1)), (1, 1), "seed {seed}\n{}", world.tail());
        assert_eq!(wires[0].0, 0, "the lower id's connection stays, seed {seed}");
        for host in &world.hosts {
            assert!(host.closes.iter().all(|(_, _, code, _)| *code == 2), "{:?}", host.closes);
            assert!(host.dials.len() == 1, "nobody dials again: seed {seed} {:?}", host.dials);
            // Nothing had to be sent twice.
            assert!(host.sends.values().all(|times| *times == 1), "seed {seed}");
        }
    }
    // The fourth cannot be: each side would have to see its own connection up before the other had answered
    // it.
    assert_eq!(orders.len(), 3, "all orders happened: {orders:?}");
}

// shows: WF-DUP-2
#[test]
fn of_two_by_the_same_dialler_the_newest_stays() {
    for seed in 0..100 {
        let (mut world, agents) = World::pair(seed);
        let (dialler, old, _) = world.wires_between(0, 1)[0];
        // It doubts the connection, dials beside, and hears of the old one again at once.
        world.feed(dialler, Input::Silent { conn: old });
        world.feed(dialler, Input::Alive { conn: old });
        let mut asked = Vec::new();
        for nth in 0..12 {
            for at in 0..2 {
                asked.push(say_something(&mut world, at, 1 - at, agents[at], nth));
            }
            world.run_for(10);
        }
        world.run_for(10_000);
        all_arrived(&world, &asked, seed);
        let wires = world.wires_between(0, 1);
        assert_eq!((wires.len(), world.half_wires(0, 1)), (1, 1), "seed {seed}");
        assert_ne!(wires[0].1, old, "seed {seed}");
        let codes: Vec<u32> = world.hosts.iter().flat_map(|host| &host.closes).map(|close| close.2).collect();
        assert!(codes.iter().all(|code| *code == 2), "{codes:?}");
    }
}

// shows: WF-RST-1, WF-DUP-1, WF-RST-4
#[test]
fn a_restarted_peer_supersedes_at_once_and_open_requests_go_out_again_with_their_id() {
    for seed in 0..100 {
        for crashing in 0..2 {
            let (mut world, agents) = World::pair(seed);
            let other = 1 - crashing;
            // On their way, or with an agent that dies with its daemon, when it happens.
            world.crash(crashing);
            let query = world.query(other, agents[other], crashing);
            let delegate = world.delegate(other, agents[other], crashing);
            let pause = world.rng.range(0, 700);
            world.run_for(pause);
            world.start(crashing);
            world.agent(crashing, (1, 30));
            let began = world.now;
            for req_id in [&query, &delegate] {
                let reply = world.reply(other, agents[other], req_id, 2_000);
                assert_eq!(reply["ok"], true, "seed {seed}: {reply}\n{}", world.tail());
            }
            assert!(world.now - began <= 2_000, "seed {seed}: back after {} ms", world.now - began);
            let id = world.replies(other, agents[other], &query)[0]["msg_id"].as_str().unwrap().to_owned();
            assert_eq!(world.offered[&(crashing, id.clone())].len(), 1);
            assert_eq!(world.hosts[other].sends[&id.parse().unwrap()], 2, "seed {seed}");
            world.run_for(10_000);
            assert_eq!((world.wires_between(0, 1).len(), world.half_wires(0, 1)), (1, 1));
        }
    }
}

// shows: WF-RST-1
#[test]
fn an_idle_peer_that_restarts_is_back_on_both_sides_within_two_seconds() {
    for seed in 0..50 {
        for crashing in 0..2 {
            let (mut world, agents) = World::pair(seed);
            world.crash(crashing);
            let pause = world.rng.range(0, 20_000);
            world.run_for(pause);
            world.start(crashing);
            let mine = world.agent(crashing, (1, 30));
            world.run_for(1_000);
            let there = world.query(crashing, mine, 1 - crashing);
            let back = world.query(1 - crashing, agents[1 - crashing], crashing);
            assert_eq!(world.reply(crashing, mine, &there, 1_000)["ok"], true, "seed {seed}");
            let reply = world.reply(1 - crashing, agents[1 - crashing], &back, 1_000);
            assert_eq!(reply["ok"], true, "seed {seed}: {reply}\n{}", world.tail());
        }
    }
}

// shows: WF-RST-4, WF-REP-4, WF-REP-5
#[test]
fn a_message_whose_connection_is_lost_goes_out_again_and_is_taken_once() {
    let (mut answered, mut failed) = (0, 0);
    for seed in 0..300 {
        let (mut world, agents) = World::pair(seed);
        let asked: Vec<Asked> = (0..9).map(|nth| say_something(&mut world, 0, 1, agents[0], nth)).collect();
        let pause = world.rng.range(0, 60);
        world.run_for(pause);
        world.lose(0, 1);
        world.run_for(20_000);
        for Asked { client, req_id, kind, .. } in &asked {
            let replies = world.replies(0, *client, req_id);
            assert_eq!(replies.len(), 1, "seed {seed}: {kind}\n{}", world.tail());
            let reply = &replies[0];
            if *kind == "query" && reply["ok"] == false {
                // It had arrived, and its answer is lost: it is not asked twice.
                assert_eq!(reply["error"], "peer_unreachable", "{reply}");
                failed += 1;
                continue;
            }
            assert_eq!(reply["ok"], true, "seed {seed}: {kind} {reply}\n{}", world.tail());
            answered += 1;
            let key = (1, reply["msg_id"].as_str().unwrap().to_owned());
            let seen = if *kind == "notify" { &world.shown[&key] } else { &world.offered[&key] };
            assert_eq!(seen.len(), 1, "seed {seed}: {kind}");
            if *kind == "delegate" {
                let results = world.events(0, *client, "result");
                assert_eq!(results.iter().filter(|result| result["ref"] == reply["msg_id"]).count(), 1);
            }
        }
        for (key, times) in world.offered.iter().chain(&world.shown) {
            assert_eq!(times.len(), 1, "seed {seed}: {key:?}");
        }
        assert_eq!((world.wires_between(0, 1).len(), world.half_wires(0, 1)), (1, 1), "seed {seed}");
    }
    assert!(answered > 1_000 && failed > 20, "{answered} {failed}");
}

// shows: WF-RST-4
#[test]
fn a_message_goes_out_three_times_at_most() {
    for seed in 0..20 {
        let (mut world, agents) = World::pair(seed);
        let client = world.client(0);
        // The other agent takes long, so that the query is open all the time; each repetition is reset.
        world.leave(1, agents[1]);
        let req_id = world.delegate(0, client, 1);
        let mut went = 0;
        for _ in 0..10 {
            // It is lost before it arrives, every time.
            world.run_until(5_000, |w| w.hosts[0].sends.values().any(|times| *times > went));
            went = world.hosts[0].sends.values().copied().max().unwrap();
            world.lose(0, 1);
            world.latency_ms = (1, 1);
            world.run_for(1);
            world.latency_ms = (200, 200);
            if !world.replies(0, client, &req_id).is_empty() {
                break;
            }
        }
        world.run_for(40_000);
        let replies = world.replies(0, client, &req_id);
        assert_eq!(replies.len(), 1);
        assert!(world.hosts[0].sends.values().all(|times| *times <= 3), "{:?}", world.hosts[0].sends);
    }
}

// shows: WF-RST-3
#[test]
fn a_silent_connection_is_doubted_and_given_up_when_a_second_dial_fails_too() {
    let (mut world, agents) = World::pair(7);
    let dials = world.hosts[0].dials.len();
    world.cut(0, 1);
    let req_id = world.query(0, agents[0], 1);
    let began = world.now;
    let reply = world.reply(0, agents[0], &req_id, 6_000);
    assert_eq!(reply["error"], "peer_unreachable", "{reply}");
    assert!(world.now - began < 6_000, "after {} ms", world.now - began);
    let (at, _, patience) = world.hosts[0].dials[dials];
    assert!(at - began <= limits::SILENCE_MS + 100, "a second dial after {} ms", at - began);
    assert_eq!(patience, limits::DOUBT_DIAL_MS);
    assert!(world.hosts[0].closes.iter().any(|(_, _, code, _)| *code == 0));
    assert_ne!(world.peer_status(0, 1), "connected");
    // And it comes back.
    world.run_for(60_000);
    world.heal(0, 1);
    world.run_for(40_000);
    assert_eq!((world.wires_between(0, 1).len(), world.half_wires(0, 1)), (1, 1), "{}", world.tail());
    let req_id = world.query(0, agents[0], 1);
    assert_eq!(world.reply(0, agents[0], &req_id, 1_000)["ok"], true);
}

// shows: WF-RST-3
#[test]
fn a_connection_that_was_silent_for_a_moment_answers_after_all() {
    for seed in 0..30 {
        let (mut world, agents) = World::pair(seed);
        world.cut(0, 1);
        let req_ids: Vec<String> = (0..5).map(|_| world.query(0, agents[0], 1)).collect();
        let pause = world.rng.range(1_100, 2_500);
        world.run_for(pause);
        world.heal(0, 1);
        for req_id in &req_ids {
            let reply = world.reply(0, agents[0], req_id, 1_500);
            assert_eq!(reply["ok"], true, "seed {seed}: {reply}\n{}", world.tail());
        }
        world.run_for(10_000);
        assert_eq!((world.wires_between(0, 1).len(), world.half_wires(0, 1)), (1, 1), "{}", world.tail());
        assert!(world.offered.values().all(|times| times.len() == 1));
    }
}

// shows: WF-CON-3
#[test]
fn waits_between_attempts_double_to_the_bound_and_begin_anew_after_a_connection() {
    let mut world = World::new(3, 2);
    world.hosts[0].settings.handshake_timeout_secs = 1;
    world.hosts[0].settings.reconnect_max_backoff_secs = 8;
    world.start(0);
    world.run_for(120_000);
    let times: Vec<u64> = world.hosts[0].dials.iter().map(|dial| dial.0).collect();
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let expected = [1_000, 2_000, 4_000, 8_000, 8_000, 8_000];
    for (gap, wait) in gaps.iter().zip(expected) {
        // The attempt itself takes a second and a little.
        let low = wait + 1_000;
        assert!((low..=low + wait / 4 + 100).contains(gap), "{gap} for {wait}: {gaps:?}");
    }
    assert!(gaps.len() >= 8);
    // Not all alike: a little chance is in it.
    assert!(gaps[3..].iter().collect::<BTreeSet<_>>().len() > 1, "{gaps:?}");
    world.start(1);
    world.run_for(10_000);
    assert_eq!(world.wires_between(0, 1).len(), 1);
    world.crash(1);
    let dials = world.hosts[0].dials.len();
    world.run_for(90_000);
    let again: Vec<u64> = world.hosts[0].dials[dials..].iter().map(|dial| dial.0).collect();
    assert!(again[1] - again[0] <= 2_400, "the first wait is a second again: {again:?}");
}

// shows: WF-CON-3
#[test]
fn a_message_to_send_begins_an_attempt_at_once_whatever_the_backoff_says() {
    let mut world = World::new(3, 2);
    world.start(0);
    let client = world.client(0);
    world.run_for(60_000);
    let dials = world.hosts[0].dials.len();
    // Between two attempts.
    assert!(world.run_until(40_000, |w| w.hosts[0].dials.len() > dials));
    world.run_for(5_200);
    let dials = world.hosts[0].dials.len();
    world.start(1);
    world.cut(0, 1);
    world.run_for(1);
    world.heal(0, 1);
    let req_id = world.send(0, client, 1, "ping", json!({}));
    assert_eq!(world.hosts[0].dials.len(), dials + 1);
    assert_eq!(world.reply(0, client, &req_id, 1_000)["ok"], true);
}

// shows: WF-CON-2
#[test]
fn after_a_lost_connection_the_lower_id_dials_at_once_and_the_higher_after_two_seconds() {
    for seed in 0..30 {
        let (mut world, _) = World::pair(seed);
        let before = [world.hosts[0].dials.len(), world.hosts[1].dials.len()];
        world.lose(0, 1);
        let lost = world.now;
        world.run_for(1_000);
        assert_eq!(world.hosts[0].dials.len(), before[0] + 1, "seed {seed}");
        assert!(world.hosts[0].dials[before[0]].0 - lost <= 20);
        assert_eq!(world.wires_between(0, 1).len(), 1);
        world.run_for(4_000);
        assert_eq!(world.hosts[1].dials.len(), before[1], "the higher one left it to the lower");

        // Where the lower one does not come, the higher one does.
        world.crash(0);
        world.lose(0, 1);
        let lost = world.now;
        world.run_for(2_500);
        let waited = world.hosts[1].dials[before[1]].0 - lost;
        assert!((2_000..=2_100).contains(&waited), "seed {seed}: {waited}");
    }
}

// shows: WF-PIN-6, WF-PEER-4
#[test]
fn a_peer_taken_out_of_the_settings_is_out_and_in_again_when_it_is_put_back() {
    let (mut world, agents) = World::pair(5);
    let full = world.hosts[0].settings.clone();
    let none = Settings { peers: Vec::new(), ..full.clone() };
    let open = world.query(1, agents[1], 0);
    world.feed(0, Input::Settings(Box::new(none)));
    let reply = world.reply(1, agents[1], &open, 10_000);
    assert_eq!(reply["error"], "peer_unreachable", "{reply}");
    assert_eq!(world.wires_between(0, 1), []);
    assert_eq!(world.hosts[0].closes.last().unwrap().2, 0);
    world.run_for(100_000);
    assert_eq!((world.wires_between(0, 1).len(), world.peer_status(0, 1)), (0, "unknown".to_owned()));
    world.feed(0, Input::Settings(Box::new(full)));
    assert!(world.run_until(1_000, |w| w.wires_between(0, 1).len() == 1), "{}", world.tail());
}

// --- property-style runs ---

/// One run: random sends, losses, cuts, crashes; then all is healed and must be well.
fn run(seed: u64, count: usize) {
    let mut plan = Rng(seed ^ 0x5eed);
    let mut world = World::new(seed, u8::try_from(count).unwrap());
    world.latency_ms = if plan.chance(50) { (1, 20) } else { (1, 150) };
    let mut agents: Vec<Option<ClientId>> = vec![None; count];
    let mut asked: Vec<(usize, u32, ClientId, String, &'static str, usize)> = Vec::new();
    let mut crashes: Vec<Vec<u64>> = vec![Vec::new(); count];
    for at in 0..count {
        world.start(at);
        agents[at] = Some(world.agent(at, (1, 80)));
        let pause = plan.range(0, 500);
        world.run_for(pause);
    }
    for step in 0..plan.range(40, 120) {
        let at = plan.range(0, count as u64 - 1) as usize;
        let other = (at + plan.range(1, count as u64 - 1) as usize) % count;
        match plan.range(0, 99) {
            0..=69 => {
                let Some(client) = agents[at] else { continue };
                let (kind, req_id) = match plan.range(0, 4) {
                    0 | 1 => ("query", world.query(at, client, other)),
                    2 => ("delegate", world.delegate(at, client, other)),
                    3 => ("notify", world.notify(at, client, other)),
                    _ => ("ping", world.send(at, client, other, "ping", json!({}))),
                };
                asked.push((at, world.hosts[at].life, client, req_id, kind, other));
            }
            70..=79 => world.lose(at, other),
            80..=86 => world.cut(at, other),
            87..=93 => world.heal(at, other),
            94..=96 if agents[at].is_some() => {
                world.crash(at);
                agents[at] = None;
                crashes[at].push(world.now);
            }
            _ if agents[at].is_none() => {
                world.start(at);
                agents[at] = Some(world.agent(at, (1, 80)));
            }
            _ => {
                // The agent goes, and another comes.
                let (Some(client), true) = (agents[at], step % 3 == 0) else { continue };
                asked.retain(|(_, _, of, ..)| *of != client);
                world.leave(at, client);
                agents[at] = Some(world.agent(at, (1, 80)));
            }
        }
        let pause = if plan.chance(80) { plan.range(0, 60) } else { plan.range(0, 3_000) };
        world.run_for(pause);
        for at in (0..count).filter(|at| agents[*at].is_some()) {
            within_bounds(&world.status(at), seed);
        }
    }
    for a in 0..count {
        for b in 0..a {
            world.heal(a, b);
        }
        if agents[a].is_none() {
            world.start(a);
            agents[a] = Some(world.agent(a, (1, 80)));
        }
    }
    // Every command has its answer in the end, whatever happened.
    world.run_for(limits::REQUEST_TIMEOUT_MS + 10_000);
    for (at, life, client, req_id, kind, _) in &asked {
        if world.hosts[*at].life != *life {
            continue;
        }
        let replies = world.replies(*at, *client, req_id);
        let what = format!("seed {seed}: {kind} {req_id} of node {at}");
        assert_eq!(replies.len(), 1, "{what}: {replies:?}\n{}", world.tail());
        arrived(&world, &replies[0], kind, &what);
    }
    // Nobody gets the same message twice, but for queries whose ids a receiver had not yet written when it
    // crashed, and for what is handed on when an agent, or a daemon, has gone.
    let delegation = |id: &str| world.kinds.get(id).is_some_and(|kind| kind == "delegate");
    for ((at, id), times) in world.shown.iter().chain(&world.offered) {
        for (nth, (life, when, client)) in times.iter().enumerate() {
            let before = &times[..nth];
            let again = before.iter().any(|(other, _, holder)| other == life && holder == client);
            assert!(!again, "seed {seed}: {id} given twice to {client:?} of node {at}: {times:?}");
            let written = |other: &u32, then: &u64| then + 1_000 < crashes[*at][*other as usize - 1];
            // A delegation that is not done waits on over a restart, and is handed to the next agent.
            let twice = before.iter().any(|(other, then, _)| other != life && written(other, then));
            assert!(
                !twice || delegation(id),
                "seed {seed}: {id} was known when node {at} started anew: {times:?} {when}"
            );
        }
    }
    // Work that was reported is never given out again, and its result reaches who asked for it, whoever
    // crashed meanwhile.
    for (at, id, when, message) in &world.results {
        let times = &world.offered[&(*at, id.clone())];
        assert!(times.iter().all(|(_, offered, _)| offered <= when), "seed {seed}: {id} was done: {times:?}");
        let told = world.shown.keys().chain(&world.replayed).any(|(_, seen)| seen == message);
        assert!(told, "seed {seed}: the result of {id} never came\n{}", world.about(message));
    }
    for at in 0..count {
        // Nobody is stuck: each reaches each, over one connection.
        for other in (0..count).filter(|other| *other != at) {
            let client = agents[at].unwrap();
            let req_id = world.query(at, client, other);
            let reply = world.reply(at, client, &req_id, 1_000);
            assert_eq!(
                reply["ok"],
                true,
                "seed {seed}: {at} cannot reach {other}: {reply}\n{}",
                world.tail()
            );
        }
    }
    world.run_for(10_000);
    for at in 0..count {
        for other in 0..at {
            let wires = (world.wires_between(at, other).len(), world.half_wires(at, other));
            assert_eq!(wires, (1, 1), "seed {seed}: {at} {other}\n{}", world.tail());
        }
        let status = world.status(at);
        assert_eq!(status["peers_connected"], count - 1);
        assert_eq!(
            (&status["open_requests"], &status["queued"]),
            (&json!(0), &json!(0)),
            "seed {seed}: node {at}: {status}\n{}",
            world.open_requests(at)
        );
        // With nothing to do, a node wakes up only for its regular work.
        let now = world.now;
        let mut wakes = 0;
        while let Some(next) = world.hosts[at].node.as_ref().unwrap().next_timeout() {
            if next > now + 30_000 {
                break;
            }
            world.run_for(next.saturating_sub(world.now));
            wakes += 1;
            assert!(wakes < 40, "seed {seed}: node {at} does not come to rest");
        }
    }
}

/// What was told as done is done.
fn arrived(world: &World, reply: &Value, kind: &str, what: &str) {
    if reply["ok"] != true {
        let error = reply["error"].as_str().unwrap();
        assert!(matches!(error, "peer_unreachable" | "timeout" | "overloaded"), "{what}: {reply}");
        return;
    }
    let id = reply["msg_id"].as_str().unwrap();
    let offered = world.offered.keys().any(|(_, seen)| seen == id);
    let shown = world.shown.keys().chain(&world.replayed).any(|(_, seen)| seen == id);
    match kind {
        "query" if reply["response"]["kind"] == "response" => {
            assert_eq!(reply["response"]["payload"]["summary"], id, "{what}: another one's answer");
            assert!(offered, "{what}");
        }
        "delegate" if reply["response"]["kind"] == "ack" => {
            assert_eq!(reply["response"]["payload"]["accepted"], true, "{what}");
        }
        "notify" => {
            assert_eq!(reply["state"], "delivered", "{what}");
            assert!(shown, "{what}: told as delivered, and never shown\n{}", world.about(id));
        }
        "ping" => assert_eq!(reply["response"]["kind"], "pong", "{what}"),
        _ => {}
    }
}

fn within_bounds(status: &Value, seed: u64) {
    let bound = |field: &str, max: usize| {
        let value = status[field].as_u64().unwrap();
        assert!(value <= max as u64, "seed {seed}: {field} is {value}");
    };
    bound("open_requests", limits::OPEN_REQUESTS_MAX);
    bound("queued", limits::QUEUED_REQUESTS_MAX);
    bound("peers_connected", 2);
    bound("clients", 2);
}

// shows: IPC-ORD-1, IPC-SEND-6, IPC-OUT-11, IPC-BOX-12, WF-REP-1, WF-REP-3, CORE-DEL-12, CORE-DEL-13
#[test]
fn random_runs_of_two_nodes_end_well() {
    (0..200).for_each(|seed| run(seed, 2));
}

// shows: IPC-ORD-1, IPC-SEND-6, IPC-OUT-11, IPC-BOX-12, WF-REP-1, WF-REP-3, CORE-DEL-12, CORE-DEL-13
#[test]
fn random_runs_of_three_nodes_end_well() {
    (1_000..1_120).for_each(|seed| run(seed, 3));
}

/// Answered queries leave nothing behind: no timers, no open requests, no memory of who waits.
#[test]
fn ten_thousand_queries_leave_nothing_behind() {
    let (mut world, agents) = World::pair(1);
    world.latency_ms = (1, 1);
    for _ in 0..100 {
        let req_ids: Vec<String> = (0..100).map(|_| world.query(0, agents[0], 1)).collect();
        assert!(world.run_until(1_000, |w| !w.replies(0, agents[0], &req_ids[99]).is_empty()));
        world.run_for(100);
        world.forget();
    }
    assert_eq!(world.offered.len(), 10_000);
    // A due time of any of them would be a timer in the next 40 s.
    world.run_for(3_000);
    for at in 0..2 {
        let mut times = Vec::new();
        let until = world.now + 40_000;
        while let Some(next) =
            world.hosts[at].node.as_ref().unwrap().next_timeout().filter(|next| *next < until)
        {
            world.run_for(next - world.now);
            times.push(next);
        }
        assert!(times.len() <= 12, "timers stay behind: {times:?}");
        assert_eq!(world.status(at)["open_requests"], 0);
    }
}

/// For a longer look: `AXON_SEEDS=5000..9000 cargo test -p axon-proto --release --test all connections:: --
/// --ignored`.
#[test]
#[ignore = "takes as long as it is told to"]
fn as_many_random_runs_as_asked_for() {
    #[expect(clippy::disallowed_methods, reason = "which seeds is up to who runs it")]
    let seeds = std::env::var("AXON_SEEDS").unwrap_or_else(|_| "5000..9000".into());
    let (from, to) = seeds.split_once("..").unwrap();
    for seed in from.parse::<u64>().unwrap()..to.parse().unwrap() {
        run(seed, 2 + (seed % 2) as usize);
    }
}
