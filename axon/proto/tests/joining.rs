//! `connect`: two agents come to know each other by a link, in both directions, through every fault of the
//! network; and what is left when it fails. Whole nodes in a network in memory, and one node whose peer's
//! every message the test writes itself.

use std::sync::Arc;

use axon_proto::audit::Event;
use axon_proto::contacts::Contact;
use axon_proto::id::{AgentId, PublicKey};
use axon_proto::invite::{Link, Secret};
use axon_proto::limits;
use axon_proto::node::{
    ClientId, ConnId, DialId, Effect, Input, KEY_REFUSED, Lost, Of, Pins, Side, StaticPeer, Token,
};
use axon_proto::trust::Level;
use serde_json::{Value, json};

use crate::net::{Solo, WALL_MS, World, closes, lines};

fn agent_id(n: u8) -> AgentId {
    PublicKey([n; 32]).agent_id()
}

// --- whole nodes ---

/// Nodes that do not know each other, started.
fn strangers(seed: u64, count: u8) -> World {
    let mut world = World::new(seed, count);
    world.latency_ms = (1, 60);
    world.hosts.iter_mut().for_each(|host| host.settings.peers.clear());
    (0..usize::from(count)).for_each(|at| world.start(at));
    world
}

/// One command of a client of its own, and its reply.
fn owner(world: &mut World, at: usize, mut command: Value) -> Value {
    let client = world.client(at);
    command["req_id"] = "o".into();
    world.say(at, client, &command);
    world.finish_disk(at);
    let reply = world.reply(at, client, "o", 150_000);
    world.leave(at, client);
    reply
}

fn invite(world: &mut World, at: usize, trust: &str) -> String {
    owner(world, at, json!({"cmd":"invite","trust":trust}))["link"].as_str().unwrap().to_owned()
}

/// A link that leads to a node and proves nothing.
fn bare(world: &World, to: usize) -> String {
    Link { key: world.hosts[to].key, addrs: vec!["192.0.2.1:7100".into()], secret: None }.to_string()
}

fn level(world: &World, at: usize, of: usize) -> Option<Level> {
    let id = world.hosts[of].id;
    let contact = world.hosts[at].contacts.contacts.iter().find(|contact| contact.agent_id == id);
    contact.map(|contact| contact.level)
}

fn are_connected(world: &mut World, a: usize, b: usize) -> bool {
    world.peer_status(a, b) == "connected" && world.peer_status(b, a) == "connected"
}

/// A query each way is answered.
fn talk(world: &mut World, a: usize, b: usize) {
    for (from, to) in [(a, b), (b, a)] {
        world.agent(to, (1, 10));
        let client = world.client(from);
        let req_id = world.query(from, client, to);
        let reply = world.reply(from, client, &req_id, 20_000);
        assert_eq!(reply["response"]["kind"], "response", "{reply}\n{}", world.tail());
    }
}

// shows: PAIR-ADM-2, IPC-JOIN-1, IPC-JOIN-2, TRUST-KNO-3
#[test]
fn an_invite_pairs_both_live_and_without_a_restart_whoever_has_the_lower_id() {
    for seed in 0..40 {
        for host in [0, 1] {
            let guest = 1 - host;
            let mut world = strangers(seed, 2);
            let link = invite(&mut world, host, "trusted");
            let reply =
                owner(&mut world, guest, json!({"cmd":"connect","link":link,"trust":"unknown","name":"h"}));
            let told = (&reply["ok"], &reply["state"], &reply["trust"], &reply["level"]);
            let expected = (&json!(true), &json!("paired"), &json!("unknown"), &json!("trusted"));
            assert_eq!(told, expected, "seed {seed}: {reply}\n{}", world.tail());
            assert_eq!(reply["agent_id"], json!(world.hosts[host].id));
            assert!(reply["constraints"]["kinds"].as_array().unwrap().contains(&json!("delegate")));
            assert_eq!(level(&world, host, guest), Some(Level::Trusted), "both files say it");
            assert_eq!(level(&world, guest, host), Some(Level::Unknown));
            assert!(are_connected(&mut world, host, guest), "seed {seed}\n{}", world.tail());
            talk(&mut world, host, guest);
            world.run_for(10_000);
            assert_eq!((world.wires_between(0, 1).len(), world.half_wires(0, 1)), (1, 1), "seed {seed}");
            assert!(!world.hosts[host].pins.strangers && world.hosts.iter().all(|host| host.life == 1));
            for at in [host, guest] {
                let rows = &world.hosts[at].audit;
                assert!(rows.iter().any(|row| row.event == Event::Paired), "{rows:?}");
            }
            // It was for one use.
            let again = owner(&mut world, guest, json!({"cmd":"connect","link":link}));
            assert_eq!(again["state"], "paired", "they know each other already: {again}");
            // It stays so when both start anew.
            world.crash(0);
            world.crash(1);
            world.start(0);
            world.start(1);
            world.run_for(15_000);
            assert!(are_connected(&mut world, 0, 1), "seed {seed}\n{}", world.tail());
        }
    }
}

// Whatever goes wrong on the way: the same link works again until both are paired, and then for nobody else.
// shows: PAIR-PROOF-2, PAIR-ADM-1, IPC-JOIN-1
#[test]
fn an_invite_pairs_in_the_end_through_lost_connections_and_crashes() {
    let mut paired_first = 0;
    for seed in 0..150 {
        let mut world = strangers(seed, 3);
        let (host, guest, third) = (0, 1, 2);
        let link = invite(&mut world, host, "known");
        let mut tries = 0;
        loop {
            tries += 1;
            assert!(tries < 12, "seed {seed}: never paired\n{}", world.tail());
            let before = level(&world, guest, host);
            let client = world.client(guest);
            world.say(guest, client, &json!({"cmd":"connect","req_id":"j","link":link,"deadline_ms":8_000}));
            if tries < 4 {
                let when = world.rng.range(0, 400);
                world.run_for(when);
                match world.rng.range(0, 4) {
                    0 => world.lose(host, guest),
                    1 => {
                        world.cut(host, guest);
                        let long = world.rng.range(100, 12_000);
                        world.run_for(long);
                        world.heal(host, guest);
                    }
                    2 | 3 => {
                        let at = if world.rng.chance(50) { host } else { guest };
                        world.crash(at);
                        let long = world.rng.range(10, 2_000);
                        world.run_for(long);
                        world.start(at);
                    }
                    _ => {}
                }
            }
            world.run_until(20_000, |w| !w.replies(guest, client, "j").is_empty());
            if let Some(reply) = world.replies(guest, client, "j").first() {
                if reply["ok"] == true {
                    assert_eq!(reply["state"], "paired", "seed {seed}: {reply}");
                    assert_eq!(level(&world, guest, host), Some(Level::Known), "seed {seed}");
                    break;
                }
                // It is as it was before.
                assert_eq!(level(&world, guest, host), before, "seed {seed}: {reply}");
            }
            let wait = world.rng.range(1_000, 5_000);
            world.run_for(wait);
        }
        paired_first += u32::from(tries == 1);
        assert_eq!(level(&world, host, guest), Some(Level::Known), "seed {seed}\n{}", world.tail());
        world.run_for(35_000);
        assert!(are_connected(&mut world, host, guest), "seed {seed}\n{}", world.tail());
        talk(&mut world, host, guest);
        let refused = owner(&mut world, third, json!({"cmd":"connect","link":link}));
        assert_eq!(refused["error"], "not_authorized", "seed {seed}: {refused}");
        assert_eq!((level(&world, host, third), level(&world, third, host)), (None, None));
    }
    assert!((20..140).contains(&paired_first), "{paired_first} of 150 met no fault that mattered");
}

// shows: IPC-JOIN-3
#[test]
fn a_bare_link_pins_one_side_and_the_other_connects_back_in_either_order() {
    for seed in 0..20 {
        for first in [0, 1] {
            let second = 1 - first;
            let mut world = strangers(seed, 2);
            let link = bare(&world, second);
            let reply = owner(&mut world, first, json!({"cmd":"connect","link":link}));
            assert_eq!(reply["state"], "pinned", "seed {seed}: {reply}");
            assert!(reply["message"].as_str().unwrap().contains("connect back"), "{reply}");
            assert_eq!(
                (level(&world, first, second), level(&world, second, first)),
                (Some(Level::Known), None)
            );
            let pause = world.rng.range(0, 20_000);
            world.run_for(pause);
            let link = bare(&world, first);
            let reply = owner(&mut world, second, json!({"cmd":"connect","link":link}));
            assert_eq!(reply["state"], "paired", "seed {seed}: {reply}\n{}", world.tail());
            world.run_for(100);
            assert!(are_connected(&mut world, 0, 1), "seed {seed}");
            talk(&mut world, 0, 1);
        }
        // At once.
        let mut world = strangers(seed, 2);
        let links = [bare(&world, 1), bare(&world, 0)];
        let clients = [world.client(0), world.client(1)];
        for at in [0, 1] {
            world.say(at, clients[at], &json!({"cmd":"connect","req_id":"j","link":links[at]}));
            let pause = world.rng.range(0, 200);
            world.run_for(pause);
        }
        for at in [0, 1] {
            let reply = world.reply(at, clients[at], "j", 20_000);
            assert!(["pinned", "paired"].contains(&reply["state"].as_str().unwrap()), "{reply}");
        }
        world.run_for(10_000);
        assert!(are_connected(&mut world, 0, 1), "seed {seed}\n{}", world.tail());
    }
}

// shows: IPC-JOIN-3, IPC-KNO-2, PAIR-ADM-3
#[test]
fn a_bare_link_knocks_where_knocks_are_heard_and_the_owner_decides() {
    for seed in 0..20 {
        let mut world = strangers(seed, 3);
        world.hosts[0].settings.knock.open = true;
        let settings = world.hosts[0].settings.clone();
        world.feed(0, Input::Settings(Box::new(settings)));
        let link = bare(&world, 0);
        let mut ids = Vec::new();
        for guest in [1, 2] {
            let connect = json!({"cmd":"connect","link":link,"message":"it is me","session":"stream",
                "intent":{"category":"family","action":"calendar"}});
            let reply = owner(&mut world, guest, connect);
            assert_eq!((&reply["state"], &reply["trust"]), (&json!("pending"), &json!("known")), "{reply}");
            ids.push(world.hosts[guest].id);
        }
        let waiting = owner(&mut world, 0, json!({"cmd":"knocks"}))["knocks"].clone();
        assert_eq!(waiting.as_array().unwrap().len(), 2);
        assert_eq!((&waiting[0]["message"], &waiting[0]["session"]), (&json!("it is me"), &json!("stream")));
        assert_eq!(waiting[0]["intent"], json!({"category":"family","action":"calendar"}));
        assert_eq!(owner(&mut world, 0, json!({"cmd":"approve","id":ids[0]}))["ok"], true);
        assert_eq!(owner(&mut world, 0, json!({"cmd":"deny","id":ids[1]}))["ok"], true);
        assert!(
            world.run_until(10_000, |w| w.wires_between(0, 1).len() == 1),
            "seed {seed}\n{}",
            world.tail()
        );
        world.run_for(1_000);
        assert!(are_connected(&mut world, 0, 1));
        talk(&mut world, 0, 1);
        let reply = owner(&mut world, 2, json!({"cmd":"connect","link":link}));
        assert_eq!(reply["state"], "pinned", "seed {seed}: {reply}");
        assert_eq!((level(&world, 0, 1), level(&world, 0, 2)), (Some(Level::Known), None));
    }
}

// --- one node ---

/// What a node that is not started says of everybody: contacts, peers, pins.
fn said(solo: &mut Solo) -> (Value, Value, Arc<Pins>) {
    let contacts = solo.owned(json!({"cmd":"contacts"}))["contacts"].clone();
    let client = solo.client();
    solo.say(client, &json!({"cmd":"peers","req_id":"p"}));
    let effects = solo.feed(Input::Measured { client, req_id: "\"p\"".into(), rtts: Vec::new() });
    let mut peers = lines(&effects, client)[0]["peers"].clone();
    for row in peers.as_array_mut().unwrap() {
        // How it is dialled is another matter.
        row.as_object_mut().unwrap().retain(|key, _| !["status", "error"].contains(&key.as_str()));
    }
    solo.feed(Input::ClientGone { client });
    // They are told when they change: a stranger who may come, and then may not.
    let mut effects = solo.set(|settings| settings.knock.open ^= true);
    effects.extend(solo.set(|settings| settings.knock.open ^= true));
    let pins = effects.iter().rev().find_map(|effect| match effect {
        Effect::Pins(pins) => Some(pins.clone()),
        _ => None,
    });
    (contacts, peers, pins.unwrap())
}

fn link(n: u8, secret: bool) -> String {
    let secret = secret.then_some(Secret([9; 16]));
    Link { key: PublicKey([n; 32]), addrs: vec!["198.51.100.7:7100".into()], secret }.to_string()
}

fn connect(n: u8, secret: bool) -> Value {
    json!({"cmd":"connect","req_id":"j","link":link(n, secret),"trust":"trusted","name":"new"})
}

fn dial_of(effects: &[Effect], n: u8) -> Option<(DialId, Token, Value)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Dial { dial, peer, hello, token, .. } if *peer == agent_id(n) => {
            Some((*dial, *token, serde_json::from_str(hello).unwrap()))
        }
        _ => None,
    })
}

/// The connection of a dial is there; the peer answers hello, as one who knows this agent or not.
fn answers(solo: &mut Solo, n: u8, dialled: (DialId, Token, Value), stranger: bool) -> (ConnId, Vec<Effect>) {
    let (dial, token, hello) = dialled;
    solo.play(n);
    let conn = ConnId(solo.fresh());
    let (peer, key, addr) = (solo.peer, solo.key, "198.51.100.7:7100".parse().unwrap());
    let side = Side::Dialer;
    let binding = [5; 32];
    let mut effects =
        solo.feed(Input::Connected { conn, peer, key, side, addr, dial: Some(dial), early: false, binding });
    let mut payload = Solo::hello_payload(&["knock"], Some("boot"));
    payload["selected_version"] = 1.into();
    if stranger {
        payload["stranger"] = true.into();
    }
    let mut answer = solo.envelope("hello", payload);
    answer["ref"] = hello["id"].clone();
    effects.extend(solo.feed(Input::Replied { token, outcome: Ok(answer.to_string().into_bytes()) }));
    (conn, effects)
}

/// The knock that has gone out.
fn knock_of(effects: &[Effect]) -> Option<(ConnId, Token, Value)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Request { conn, token, bytes } => {
            let envelope: Value = serde_json::from_str(bytes).unwrap();
            (envelope["kind"] == "knock").then_some((*conn, *token, envelope))
        }
        _ => None,
    })
}

fn admits(solo: &mut Solo, knock: &(ConnId, Token, Value), admission: Value) -> Vec<Effect> {
    let mut answer = solo.envelope("admission", admission);
    answer["ref"] = knock.2["id"].clone();
    solo.feed(Input::Replied { token: knock.1, outcome: Ok(answer.to_string().into_bytes()) })
}

fn reply_of(effects: &[Effect], client: ClientId) -> Option<Value> {
    lines(effects, client).into_iter().find(|line| line["req_id"] == "j")
}

// shows: PAIR-PROOF-1, PAIR-ADM-2, IPC-JOIN-1, WF-STRANGER-5
#[test]
fn the_proof_is_of_this_connection_and_the_reply_waits_for_the_file_and_the_peer() {
    let mut solo = Solo::with(1, 2, |settings| settings.peers.clear());
    let client = solo.client();
    let effects = solo.say(client, &connect(3, true));
    let dial = dial_of(&effects, 3).unwrap();
    assert!(solo.contacts.contacts.is_empty(), "nothing is written before it is known what comes of it");
    let (conn, effects) = answers(&mut solo, 3, dial, true);
    let knock = knock_of(&effects).unwrap();
    assert_eq!(knock.0, conn);
    let (id, key) = Secret([9; 16]).key();
    assert_eq!(knock.2["payload"]["invite"], id.to_string());
    let proof = knock.2["payload"]["proof"].as_str().unwrap();
    let (me, host) = (PublicKey([1; 32]), PublicKey([3; 32]));
    assert!(key.proves(proof, &me, &host, &[5; 32]) && !key.proves(proof, &me, &host, &[6; 32]));
    assert!(!knock.2.to_string().contains(&link(3, true)[link(3, true).find("k=").unwrap() + 2..]));
    // On that connection nothing is taken, and nothing else is said.
    let query = solo.envelope("query", json!({"question":"q"}));
    let answer = solo.ask(conn, &query);
    assert_eq!((&answer["kind"], &answer["payload"]["code"]), (&json!("error"), &json!("not_authorized")));
    let accept = json!({"decision":"accept","level":"known","constraints":{"kinds":["ping"]}});
    let effects = admits(&mut solo, &knock, accept);
    assert_eq!((closes(&effects), reply_of(&effects, client)), (vec![(conn, 0)], None), "it dials anew");
    let dial = dial_of(&effects, 3).unwrap();
    solo.stall = true;
    let (_, effects) = answers(&mut solo, 3, dial, false);
    assert_eq!(reply_of(&effects, client), None, "not before it is written");
    let effects = solo.go_on();
    let reply = reply_of(&effects, client).unwrap();
    assert_eq!(
        (&reply["state"], &reply["trust"], &reply["level"]),
        (&json!("paired"), &json!("trusted"), &json!("known"))
    );
    assert_eq!(reply["constraints"], json!({"kinds":["ping"]}));
    let contact = &solo.contacts.contacts[0];
    assert_eq!((contact.level, contact.name.as_deref()), (Level::Trusted, Some("new")));
    assert_eq!(contact.addrs, ["198.51.100.7:7100"]);
}

// shows: TRUST-OUT-3
#[test]
fn what_a_peer_says_of_a_knock_is_told_as_its_words() {
    for (secret, decision) in [(true, "reject"), (false, "reject"), (true, "error")] {
        let mut solo = Solo::with(1, 2, |settings| settings.peers.clear());
        let client = solo.client();
        let dial = dial_of(&solo.say(client, &connect(3, secret)), 3).unwrap();
        let (_, effects) = answers(&mut solo, 3, dial, true);
        let knock = knock_of(&effects).unwrap();
        let effects = if decision == "error" {
            let error = json!({"code":"overloaded","message":"their-word","retryable":true});
            let mut error = solo.envelope("error", error);
            error["ref"] = knock.2["id"].clone();
            solo.feed(Input::Replied { token: knock.1, outcome: Ok(error.to_string().into_bytes()) })
        } else {
            admits(&mut solo, &knock, json!({"decision":decision,"reason":"their-word"}))
        };
        let told = effects.iter().find_map(|effect| match effect {
            Effect::Line { line, of, .. } if line.contains("their-word") => Some(*of),
            _ => None,
        });
        let theirs = told.is_some_and(|of| of == Of::Several || of == Of::Peer(agent_id(3)));
        assert!(theirs, "secret {secret}, {decision}: {told:?} in {effects:?}");
    }
}

// shows: WF-STRANGER-5
#[test]
fn who_is_a_stranger_to_its_peer_and_wants_nothing_closes_and_comes_again_later() {
    let mut solo = Solo::new(1, 2);
    let dial = dial_of(&solo.feed(Input::Start), 2).unwrap();
    let (conn, effects) = answers(&mut solo, 2, dial, true);
    assert_eq!((closes(&effects), knock_of(&effects)), (vec![(conn, 0)], None));
    assert_eq!(dial_of(&effects, 2), None);
    assert_eq!(dial_of(&solo.wait(limits::BACKOFF_FIRST_MS - 1), 2), None);
    assert!(dial_of(&solo.wait(1_000), 2).is_some());
}

/// How joining may fail, and what is told.
const FAILURES: &[(&str, &str)] = &[
    ("unreachable", "peer_unreachable"),
    ("refused in the handshake", "not_authorized"),
    ("silent", "timeout"),
    ("knock refused", "not_authorized"),
    ("knock lost", "peer_unreachable"),
    ("knock answered by an error", "not_authorized"),
    // A stranger's connection ends before that.
    ("knock never answered", "peer_unreachable"),
];

/// Lets joining the agent with the key of 3 fail.
fn fails(solo: &mut Solo, effects: &[Effect], how: &str) -> Vec<Effect> {
    let dial = dial_of(effects, 3).unwrap();
    if !how.starts_with("knock") {
        let why = match how {
            "unreachable" => "no answer",
            "refused in the handshake" => KEY_REFUSED,
            _ => return solo.wait(15_000),
        };
        return solo.feed(Input::DialFailed { dial: dial.0, why: why.into() });
    }
    let (conn, effects) = answers(solo, 3, dial, true);
    let knock = knock_of(&effects).unwrap();
    match how {
        "knock refused" => admits(solo, &knock, json!({"decision":"reject","reason":"no"})),
        "knock lost" => {
            let outcome = Err(Lost::Connection("lost".into()));
            let mut effects = solo.feed(Input::Disconnected { conn, why: "lost".into() });
            effects.extend(solo.feed(Input::Replied { token: knock.1, outcome }));
            effects
        }
        "knock answered by an error" => {
            let error = json!({"code":"unknown_kind","message":"m","retryable":false});
            let mut error = solo.envelope("error", error);
            error["ref"] = knock.2["id"].clone();
            solo.feed(Input::Replied { token: knock.1, outcome: Ok(error.to_string().into_bytes()) })
        }
        _ => solo.wait(15_000),
    }
}

// shows: IPC-JOIN-1, IPC-JOIN-2
#[test]
fn what_fails_leaves_everything_as_it_was() {
    let contact = Contact {
        agent_id: agent_id(3),
        pubkey: Some(PublicKey([3; 32])),
        addrs: vec!["192.0.2.3:7100".into()],
        level: Level::Unknown,
        name: Some("old".into()),
        since_ms: 5,
        why: Some("because".into()),
        expiry_ms: Some(WALL_MS + 1_000_000),
        paused: true,
    };
    let mut wrong = Vec::new();
    for before in ["nobody", "a contact", "an expired contact", "in [[peers]]", "found"] {
        for (how, error) in FAILURES {
            let mut solo = Solo::with(1, 2, |settings| {
                settings.peers.clear();
                if before == "in [[peers]]" {
                    let (agent_id, pubkey) = (agent_id(3), PublicKey([3; 32]));
                    let addr = "192.0.2.3:7100".into();
                    settings.peers.push(StaticPeer { agent_id, pubkey, addr, name: Some("old".into()) });
                }
            });
            if before.ends_with("contact") {
                let over = before == "an expired contact";
                let expiry_ms = if over { Some(WALL_MS) } else { contact.expiry_ms };
                solo.contacts.contacts = vec![Contact { expiry_ms, ..contact.clone() }];
                let file = solo.contacts.clone();
                solo.feed(Input::Contacts(file));
            }
            if before == "found" {
                solo.found(3);
            }
            let (file, was) = (solo.contacts.clone(), said(&mut solo));
            let client = solo.client();
            let effects = solo.say(client, &connect(3, true));
            let effects = fails(&mut solo, &effects, how);
            let what = format!("{before}, {how}");
            let told = reply_of(&effects, client).unwrap_or_default();
            if told["error"] != *error {
                wrong.push(format!("{what}: {told} and not {error}"));
            }
            let is = said(&mut solo);
            for (part, was, is) in [("contacts", &was.0, &is.0), ("peers", &was.1, &is.1)] {
                if was != is {
                    wrong.push(format!("{what}: {part} were {was} and are {is}"));
                }
            }
            if was.2 != is.2 || file != solo.contacts {
                wrong.push(format!("{what}: other pins or another file"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are not as they were:\n{}", wrong.len(), wrong.join("\n"));
}

// shows: TRUST-OUT-1, TRUST-OUT-2, TRUST-OUT-6, IPC-JOIN-1, IPC-JOIN-5
#[test]
fn who_is_blocked_or_forgotten_while_it_is_joined_stays_so() {
    let mut wrong = Vec::new();
    for (command, secret) in [("trust", true), ("trust", false), ("forget", true), ("forget", false)] {
        for stage in ["dialling", "knocked", "let in"] {
            let mut solo = Solo::with(1, 2, |settings| settings.peers.clear());
            let client = solo.client();
            let mut effects = solo.say(client, &connect(3, secret));
            if stage != "dialling" {
                let dial = dial_of(&effects, 3).unwrap();
                effects = answers(&mut solo, 3, dial, true).1;
                if stage == "let in" {
                    let knock = knock_of(&effects).unwrap();
                    effects = admits(&mut solo, &knock, json!({"decision":"accept","level":"known"}));
                }
            }
            let late = dial_of(&effects, 3);
            let command = json!({"cmd":command,"peer":agent_id(3),"trust":"blocked"});
            let (reply, mut effects) = solo.owner(command.clone());
            assert_eq!(reply["ok"], true, "{reply}");
            if let Some((dial, ..)) = late {
                effects.extend(solo.feed(Input::DialFailed { dial, why: "no answer".into() }));
            }
            effects.extend(solo.wait(200_000));
            let what = format!("{} at {stage}, secret {secret}", command["cmd"]);
            if reply_of(&effects, client).is_none_or(|reply| reply["ok"] == true) {
                wrong.push(format!("{what}: connect is told {:?}", reply_of(&effects, client)));
            }
            let (contacts, peers, pins) = said(&mut solo);
            let blocked = command["cmd"] == "trust";
            let levels: Vec<&Value> = contacts.as_array().unwrap().iter().map(|row| &row["trust"]).collect();
            let file: Vec<Level> = solo.contacts.contacts.iter().map(|contact| contact.level).collect();
            let (listed, written) =
                if blocked { (vec![json!("blocked")], vec![Level::Blocked]) } else { (vec![], vec![]) };
            let stands = levels == listed.iter().collect::<Vec<_>>() && file == written;
            if !stands
                || pins.blocked.contains(&agent_id(3)) != blocked
                || !pins.keys.is_empty()
                || peers != json!([])
            {
                wrong.push(format!("{what}: contacts {contacts}, file {file:?}, peers {peers}, {pins:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} have come back:\n{}", wrong.len(), wrong.join("\n"));
}

// shows: PAIR-LINK-2, IPC-JOIN-4, IPC-TO-2
#[test]
fn a_link_that_leads_nowhere_is_refused_before_anything_is_done() {
    let mut solo = Solo::with(1, 2, |settings| settings.peers[0].name = Some("bob".into()));
    solo.trust(4, "blocked");
    let good = link(3, true);
    let cases = [
        (json!({"link":"axon://x@y"}), "invalid_command"),
        (json!({"link":good.replace(":7100", "")}), "invalid_command"),
        (json!({"link":&good[..good.len() - 3]}), "invalid_command"),
        (json!({}), "invalid_command"),
        (json!({"link":link(1, true)}), "self_send"),
        (json!({"link":link(4, true)}), "not_authorized"),
        (json!({"link":good,"trust":"blocked"}), "invalid_command"),
        (json!({"link":good,"name":"bob"}), "invalid_command"),
        (json!({"link":good,"name":"cafe"}), "invalid_command"),
        (json!({"link":good,"intent":{"category":""}}), "invalid_command"),
        (json!({"link":good,"message":"a\nb"}), "invalid_command"),
    ];
    for (mut command, error) in cases {
        command["cmd"] = "connect".into();
        let (reply, effects) = solo.owner(command.clone());
        assert_eq!(reply["error"], error, "{command}: {reply}");
        assert!(!reply.to_string().contains("CQkJ"), "a link is not repeated: {reply}");
        assert!(dial_of(&effects, 3).is_none() && solo.contacts.contacts.len() == 1);
    }
    let client = solo.client();
    solo.say(client, &connect(3, true));
    let (reply, _) = solo.owner(connect(3, true));
    assert_eq!(reply["error"], "overloaded", "one at a time: {reply}");
}
