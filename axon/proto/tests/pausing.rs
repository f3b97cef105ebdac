//! While work is paused: requests are turned away, what is told is kept and shown to nobody, and comes in
//! order, once, when it is resumed, whatever ends in between. One node and a peer whose every message the
//! test writes itself; and whole nodes in a network in memory.

use std::collections::BTreeMap;

use axon_proto::contacts::Contact;
use axon_proto::id::{AgentId, PublicKey};
use axon_proto::limits;
use axon_proto::node::{ClientId, ConnId, Effect, Input, StaticPeer};
use axon_proto::trust::Level;
use serde_json::{Value, json};

use crate::net::{Solo, WALL_MS, World, answer_on, lines};

const ALL: &[&str] =
    &["delegate", "ack", "progress", "result", "cancel", "discover", "capabilities", "receipt", "knock"];

const NOTHING: [u64; 0] = [];

fn agent_id(n: u8) -> AgentId {
    PublicKey([n; 32]).agent_id()
}

fn static_peer(n: u8) -> StaticPeer {
    let pubkey = PublicKey([n; 32]);
    StaticPeer { agent_id: agent_id(n), pubkey, addr: "192.0.2.1:7100".into(), name: None }
}

fn code(answer: &Value) -> &str {
    assert_eq!(answer["kind"], "error", "{answer}");
    answer["payload"]["code"].as_str().unwrap()
}

/// A node that knows peers 2 and 3.
fn two() -> Solo {
    let mut solo = Solo::with(1, 2, |settings| settings.peers.push(static_peer(3)));
    solo.feed(Input::Start);
    solo
}

fn pause(n: Option<u8>) -> Value {
    json!({"cmd":"pause","peer":n.map(agent_id)})
}

fn resume(n: Option<u8>) -> Value {
    json!({"cmd":"resume","peer":n.map(agent_id)})
}

fn greeted(solo: &mut Solo, n: u8) -> ConnId {
    solo.play(n);
    solo.greeted(ALL, Some("boot"))
}

fn notify(solo: &mut Solo, data: u64) -> Value {
    solo.envelope("notify", json!({"topic":"t","data":data}))
}

fn tell(solo: &mut Solo, conn: ConnId, data: u64) -> Value {
    let notify = notify(solo, data);
    solo.ask(conn, &notify)
}

/// The data of what is in the inbox, past the cursor of nobody.
fn inbox(solo: &mut Solo) -> Vec<u64> {
    let rows = solo.owned(json!({"cmd":"inbox","limit":1000}))["messages"].clone();
    data(rows.as_array().unwrap())
}

fn data(rows: &[Value]) -> Vec<u64> {
    rows.iter().filter_map(|row| row["envelope"]["payload"]["data"].as_u64()).collect()
}

// --- what comes meanwhile ---

// shows: TRUST-PAU-1, IPC-PAU-1, TRUST-PAU-4
#[test]
fn requests_are_turned_away_and_what_is_told_is_taken_and_shown_to_nobody() {
    for peer in [None, Some(2)] {
        let mut solo = two();
        let conn = greeted(&mut solo, 2);
        let v1 = ClientId(solo.fresh());
        solo.feed(Input::ClientUp { client: v1, trusted: true, socket: None });
        solo.say(v1, &json!({"cmd":"status"}));
        let agent = solo.client();
        let subscribe = json!({"cmd":"subscribe","req_id":"s","answer":["query","delegate"],
            "kinds":["notify","error","future","query","delegate"]});
        solo.say(agent, &subscribe);
        let paused = solo.owned(pause(peer));
        let of_peer = peer.map(|n| json!(agent_id(n))).into_iter().collect::<Vec<_>>();
        assert_eq!((&paused["paused"], &paused["peers"]), (&json!(peer.is_none()), &json!(of_peer)));
        let mut limited = 0;
        for (kind, payload) in [
            ("query", json!({"question":"q"})),
            ("delegate", json!({"task":"t"})),
            ("ping", json!({})),
            ("discover", json!({})),
            ("cancel", json!({})),
            ("knock", json!({})),
        ] {
            let request = solo.envelope(kind, payload);
            let (stream, effects) = solo.request(conn, &request);
            let answer = answer_on(&effects, stream).unwrap();
            limited += 1;
            assert_eq!(code(&answer), "overloaded", "{kind}");
            assert_eq!(answer["payload"]["retry_after_ms"], 60_000, "{kind}");
            assert!(lines(&effects, agent).is_empty(), "{kind}");
        }
        assert_eq!(solo.dropped("limited"), limited);
        let hello = solo.envelope("hello", Solo::hello_payload(ALL, None));
        assert_eq!(solo.ask(conn, &hello)["kind"], "hello");
        let mut receipt = solo.envelope("receipt", json!({"state":"read"}));
        receipt["ref"] = solo.new_id().into();
        assert_eq!(solo.ask(conn, &receipt)["kind"], "ack");
        // One-way: receipted where that is asked for.
        let mut effects = Vec::new();
        for n in 0..3 {
            let asked = notify(&mut solo, 10 + n);
            let (stream, more) = solo.request(conn, &asked);
            assert_eq!(answer_on(&more, stream).unwrap()["payload"], json!({"accepted":true}));
            effects.extend(more);
            let error = json!({"code":"internal","message":"m","retryable":true,"data":20 + n});
            let error = solo.envelope("error", error);
            effects.extend(solo.one_way(conn, &error));
            let future = solo.envelope("future", json!({"data":30 + n}));
            effects.extend(solo.one_way(conn, &future));
        }
        effects.extend(solo.wait(20_000));
        let in_order = [10, 20, 30, 11, 21, 31, 12, 22, 32];
        for restarts in 0..2 {
            for client in [agent, v1] {
                assert!(lines(&effects, client).is_empty(), "{effects:?}");
            }
            assert_eq!(inbox(&mut solo), NOTHING);
            let status = solo.status();
            assert_eq!((&status["set_aside"], &status["inbox_unread"]), (&json!(9), &json!(0)));
            assert_eq!(status["paused"], peer.is_none());
            let late = solo.client();
            let told = lines(&solo.say(late, &json!({"cmd":"subscribe","req_id":"s"})), late);
            assert_eq!((told.len(), &told[0]["replayed"]), (1, &json!(0)), "{told:?}");
            if restarts == 0 {
                solo.restart();
                effects = solo.wait(10_000);
            }
        }
        // Resumed: as if it came now.
        let agent = solo.client();
        solo.say(agent, &subscribe);
        let (reply, effects) = solo.owner(resume(peer));
        assert_eq!((&reply["paused"], &reply["peers"]), (&json!(false), &json!([])));
        let told = lines(&effects, agent);
        assert_eq!(data(&told), in_order);
        for event in &told {
            assert_eq!((&event["replay"], &event["trust"]), (&json!(false), &json!("known")));
            assert_eq!(event["buffered_at_ms"], WALL_MS + solo.now);
        }
        assert_eq!((inbox(&mut solo), solo.status()["set_aside"].clone()), (in_order.into(), json!(0)));
        solo.restart();
        assert_eq!((inbox(&mut solo), solo.status()["set_aside"].clone()), (in_order.into(), json!(0)));
        let conn = greeted(&mut solo, 2);
        let ping = solo.envelope("ping", json!({}));
        assert_eq!(solo.ask(conn, &ping)["kind"], "pong");
    }
}

// shows: IPC-PAU-1, TRUST-PAU-1
#[test]
fn one_peer_and_all_are_paused_apart_and_others_flow_on() {
    let mut solo = two();
    let conns = BTreeMap::from([(2, greeted(&mut solo, 2)), (3, greeted(&mut solo, 3))]);
    let mut n = 0;
    let mut held: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
    let mut shown = Vec::new();
    let (mut all, mut one) = (false, [false, false]);
    for (command, peer) in [
        ("pause", Some(2)),
        ("pause", None),
        ("resume", Some(2)),
        ("resume", None),
        ("pause", Some(3)),
        ("pause", None),
        ("resume", None),
        ("pause", Some(2)),
        ("resume", Some(3)),
        ("resume", Some(2)),
    ] {
        let reply = solo.owned(json!({"cmd":command,"peer":peer.map(agent_id)}));
        match peer {
            None => all = command == "pause",
            Some(peer) => one[usize::from(peer - 2)] = command == "pause",
        }
        let mut of_them: Vec<AgentId> =
            [2, 3].into_iter().filter(|n| one[usize::from(n - 2)]).map(agent_id).collect();
        of_them.sort_unstable();
        assert_eq!((&reply["paused"], &reply["peers"]), (&json!(all), &json!(of_them)), "{command} {peer:?}");
        for peer in [2, 3] {
            if !all && !one[usize::from(peer - 2)] {
                shown.extend(held.remove(&peer).unwrap_or_default());
            }
        }
        for peer in [2, 3] {
            n += 1;
            solo.play(peer);
            assert_eq!(tell(&mut solo, conns[&peer], n)["kind"], "ack");
            if all || one[usize::from(peer - 2)] {
                held.entry(peer).or_default().push(n);
            } else {
                shown.push(n);
            }
            let ping = solo.envelope("ping", json!({}));
            let answer = solo.ask(conns[&peer], &ping)["kind"].clone();
            assert_eq!(answer == "pong", !all && !one[usize::from(peer - 2)], "{command} {peer}");
        }
        let mut expected = shown.clone();
        let mut is = inbox(&mut solo);
        expected.sort_unstable();
        is.sort_unstable();
        assert_eq!(is, expected, "{command} {peer:?}");
    }
    assert_eq!((n, shown.len()), (20, 20));
}

// shows: TRUST-PAU-1, TRUST-PAU-4
#[test]
fn delegations_that_wait_go_on_waiting_and_what_an_agent_holds_goes_on() {
    // Resumed by a command, by the file, or by the end of the entry.
    for how in ["command", "command for all", "file", "expiry"] {
        let mut solo = two();
        let conn = greeted(&mut solo, 2);
        let agent = solo.client();
        solo.say(agent, &json!({"cmd":"subscribe","req_id":"s","answer":["query","delegate"],"capacity":1}));
        let held = solo.envelope("delegate", json!({"task":"held"}));
        solo.request(conn, &held);
        let waits = solo.envelope("delegate", json!({"task":"waits"}));
        assert!(lines(&solo.request(conn, &waits).1, agent).is_empty());
        let query = solo.envelope("query", json!({"question":"waits"}));
        assert!(lines(&solo.request(conn, &query).1, agent).is_empty());
        match how {
            "command for all" => solo.owned(pause(None)),
            "expiry" => {
                let mut file = solo.contacts.clone();
                file.contacts = vec![Contact {
                    agent_id: agent_id(2),
                    pubkey: Some(PublicKey([2; 32])),
                    addrs: vec![],
                    level: Level::Known,
                    name: None,
                    since_ms: 0,
                    why: None,
                    expiry_ms: Some(WALL_MS + solo.now + 10_000),
                    paused: true,
                }];
                solo.feed(Input::Contacts(file));
                json!(null)
            }
            _ => solo.owned(pause(Some(2))),
        };
        // The one that is held is done, and makes room for nothing.
        let result = json!({"cmd":"reply","req_id":"r","ref":held["id"],"kind":"result",
            "payload":{"status":"completed","outcome":"o"}});
        let effects = solo.say(agent, &result);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Request { .. })), "{how}: {effects:?}");
        assert!(lines(&effects, agent).is_empty(), "{how}: {effects:?}");
        let other = solo.client();
        let effects = solo.say(other, &json!({"cmd":"subscribe","req_id":"s","answer":["delegate","query"]}));
        assert_eq!(lines(&effects, other).len(), 1, "{how}: nothing but the reply");
        assert!(solo.wait(9_000).iter().all(|effect| lines(std::slice::from_ref(effect), other).is_empty()));
        let effects = match how {
            "command" => solo.owner(resume(Some(2))).1,
            "command for all" => solo.owner(resume(None)).1,
            "file" => {
                let mut file = solo.contacts.clone();
                file.contacts.clear();
                solo.feed(Input::Contacts(file))
            }
            _ => solo.wait(1_000),
        };
        let told = [lines(&effects, agent), lines(&effects, other)].concat();
        let mut offered: Vec<&Value> = told.iter().map(|line| &line["envelope"]["kind"]).collect();
        offered.sort_by_key(|kind| kind.to_string());
        assert_eq!(offered, [&json!("delegate"), &json!("query")], "{how}: {told:?}");
    }
    // Over a restart.
    let mut solo = two();
    let conn = greeted(&mut solo, 2);
    let waits = solo.envelope("delegate", json!({"task":"waits"}));
    solo.ask(conn, &waits);
    solo.owned(pause(None));
    solo.restart();
    let agent = solo.client();
    let effects = solo.say(agent, &json!({"cmd":"subscribe","req_id":"s","answer":["delegate"]}));
    assert_eq!(lines(&effects, agent).len(), 1);
    let (_, effects) = solo.owner(resume(None));
    assert_eq!(lines(&effects, agent)[0]["envelope"]["id"], waits["id"]);
}

// shows: TRUST-CON-4
#[test]
fn a_pause_ends_with_the_entry_that_says_it() {
    let mut solo = two();
    solo.owned(json!({"cmd":"trust","peer":agent_id(2),"trust":"trusted","expires_secs":60}));
    solo.owned(pause(Some(2)));
    let conn = greeted(&mut solo, 2);
    assert_eq!(tell(&mut solo, conn, 1)["kind"], "ack");
    solo.wait(59_000);
    assert_eq!(inbox(&mut solo), NOTHING);
    solo.wait(10_000);
    assert_eq!(inbox(&mut solo), [1]);
    let ping = solo.envelope("ping", json!({}));
    assert_eq!(solo.ask(conn, &ping)["kind"], "pong");
}

// --- what was set aside ---

// shows: TRUST-PAU-1, WF-REP-5
#[test]
fn what_comes_again_is_receipted_again_and_comes_once() {
    let mut solo = two();
    let conn = greeted(&mut solo, 2);
    solo.owned(pause(None));
    let first = notify(&mut solo, 1);
    // Again while it is being written, once it is, after a restart, and after it has come.
    solo.stall = true;
    let streams = [solo.request(conn, &first).0, solo.request(conn, &first).0];
    let effects = solo.go_on();
    for stream in streams {
        assert_eq!(answer_on(&effects, stream).unwrap()["kind"], "ack");
    }
    assert_eq!(solo.ask(conn, &first)["kind"], "ack");
    solo.restart();
    let conn = greeted(&mut solo, 2);
    assert_eq!(solo.ask(conn, &first)["kind"], "ack");
    assert_eq!(solo.status()["set_aside"], 1);
    solo.owned(resume(None));
    assert_eq!(solo.ask(conn, &first)["kind"], "ack");
    solo.restart();
    let conn = greeted(&mut solo, 2);
    assert_eq!(solo.ask(conn, &first)["kind"], "ack");
    assert_eq!(inbox(&mut solo), [1]);
}

// shows: TRUST-PAU-2, IPC-BOX-15
#[test]
fn a_disk_that_fails_loses_nothing_that_was_receipted() {
    let mut solo = two();
    let conn = greeted(&mut solo, 2);
    solo.owned(pause(None));
    for n in 1..4 {
        assert_eq!(tell(&mut solo, conn, n)["kind"], "ack");
    }
    let refused = notify(&mut solo, 4);
    solo.disk_full = true;
    assert_eq!(code(&solo.ask(conn, &refused)), "overloaded");
    assert_eq!(solo.status()["set_aside"], 3);
    solo.owner(resume(None));
    solo.wait(20_000);
    assert_eq!(solo.status()["set_aside"], 3);
    solo.disk_full = false;
    solo.wait(limits::SWEEP_INTERVAL_MS);
    assert_eq!(inbox(&mut solo), [1, 2, 3]);
    let conn = greeted(&mut solo, 2);
    assert_eq!(solo.ask(conn, &refused)["kind"], "ack", "it was not taken before");
    assert_eq!(inbox(&mut solo), [1, 2, 3, 4]);
}

// shows: TRUST-PAU-2, IPC-BOX-10
#[test]
fn what_finds_no_room_in_the_inbox_waits_on_in_its_order() {
    let mut solo = Solo::with(1, 2, |settings| settings.buffer_size = 20);
    solo.feed(Input::Start);
    let conn = greeted(&mut solo, 2);
    solo.owned(pause(None));
    for n in 0..90 {
        assert_eq!(tell(&mut solo, conn, n)["kind"], "ack");
    }
    solo.owned(resume(None));
    let mut reader = solo.client();
    let mut read = Vec::new();
    for round in 0..12 {
        let reply = lines(&solo.say(reader, &json!({"cmd":"inbox","req_id":"i"})), reader).remove(0);
        read.extend(data(reply["messages"].as_array().unwrap()));
        solo.say(reader, &json!({"cmd":"ack","req_id":"a","up_to_seq":reply["next_seq"]}));
        if round == 2 {
            solo.restart();
            reader = solo.client();
        }
        solo.wait(limits::SWEEP_INTERVAL_MS);
    }
    assert_eq!(read, (0..90).collect::<Vec<u64>>());
}

// shows: TRUST-POL-7, IPC-BOX-17
#[test]
fn unknown_peers_take_no_more_of_the_inbox_by_being_paused() {
    let mut solo = Solo::with(1, 2, |settings| {
        settings.buffer_size = 40;
        settings.policies.unknown.messages_per_minute = 0;
    });
    solo.feed(Input::Start);
    solo.trust(2, "unknown");
    let conn = greeted(&mut solo, 2);
    solo.owned(pause(None));
    for n in 0..30 {
        assert_eq!(tell(&mut solo, conn, n)["kind"], "ack");
    }
    solo.owned(resume(None));
    solo.wait(2 * limits::SWEEP_INTERVAL_MS);
    assert_eq!(inbox(&mut solo), (0..10).collect::<Vec<u64>>(), "a quarter of 40");
    // The rest waits until somebody has read.
    let reader = solo.client();
    let mut read = Vec::new();
    for _ in 0..6 {
        let reply = lines(&solo.say(reader, &json!({"cmd":"inbox","req_id":"i"})), reader).remove(0);
        read.extend(data(reply["messages"].as_array().unwrap()));
        solo.say(reader, &json!({"cmd":"ack","req_id":"a","up_to_seq":reply["next_seq"]}));
        solo.wait(2 * limits::SWEEP_INTERVAL_MS);
    }
    assert_eq!(read, (0..30).collect::<Vec<u64>>());
}

// As if it came when it was resumed: its sender is told when it is read.
// shows: TRUST-PAU-2, IPC-OUT-13
#[test]
fn a_sender_hears_that_what_was_set_aside_has_been_read() {
    let mut solo = two();
    let conn = greeted(&mut solo, 2);
    solo.owned(pause(None));
    let mut asked = notify(&mut solo, 1);
    asked["read_receipt"] = true.into();
    assert_eq!(solo.ask(conn, &asked)["kind"], "ack");
    solo.owned(resume(None));
    let reader = solo.client();
    let reply = lines(&solo.say(reader, &json!({"cmd":"inbox","req_id":"i"})), reader).remove(0);
    let effects = solo.say(reader, &json!({"cmd":"ack","req_id":"a","up_to_seq":reply["next_seq"]}));
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Request { bytes, .. } => serde_json::from_str::<Value>(bytes).ok(),
        _ => None,
    });
    let told = told.expect("its sender is told");
    assert_eq!((&told["kind"], &told["ref"]), (&json!("receipt"), &asked["id"]));
}

// shows: TRUST-OUT-4, TRUST-PAU-5
#[test]
fn what_was_set_aside_goes_with_its_sender_and_is_not_judged_again() {
    let mut solo = two();
    let conns = [greeted(&mut solo, 2), greeted(&mut solo, 3)];
    solo.owned(pause(None));
    for n in 0..4 {
        for peer in [2, 3] {
            solo.play(peer);
            let conn = conns[usize::from(peer - 2)];
            assert_eq!(tell(&mut solo, conn, u64::from(peer) * 10 + n)["kind"], "ack");
        }
    }
    solo.trust(2, "blocked");
    assert_eq!(solo.status()["set_aside"], 4);
    solo.trust(2, "known");
    solo.set(|settings| settings.policies.known.kinds = Some(vec!["ping".into()]));
    solo.restart();
    solo.owned(resume(None));
    assert_eq!(inbox(&mut solo), [30, 31, 32, 33]);
    assert_eq!(solo.dropped("refused"), 0);
}

// shows: TRUST-PAU-3
#[test]
fn no_peer_takes_more_than_half_of_what_may_be_set_aside() {
    // By number.
    let mut solo = two();
    let conns = [greeted(&mut solo, 2), greeted(&mut solo, 3)];
    solo.owned(pause(None));
    solo.play(2);
    for n in 0..limits::PAUSED_MAX as u64 / 2 {
        assert_eq!(tell(&mut solo, conns[0], n)["kind"], "ack", "{n}");
    }
    assert_eq!(code(&tell(&mut solo, conns[0], 0)), "overloaded");
    let unasked = notify(&mut solo, 0);
    let before = solo.dropped("over_limit");
    solo.one_way(conns[0], &unasked);
    assert_eq!(solo.dropped("over_limit"), before + 1);
    solo.play(3);
    assert_eq!(tell(&mut solo, conns[1], 0)["kind"], "ack", "others have their own half");
    assert_eq!(solo.status()["set_aside"], limits::PAUSED_MAX / 2 + 1);
    // By bytes.
    let mut solo = two();
    let conns = [greeted(&mut solo, 2), greeted(&mut solo, 3)];
    solo.owned(pause(None));
    let long = "x".repeat(60_000);
    solo.play(2);
    let mut bytes = 0;
    loop {
        let notify = solo.envelope("notify", json!({"topic":long,"data":1}));
        if solo.ask(conns[0], &notify)["kind"] != "ack" {
            break;
        }
        bytes += notify.to_string().len();
    }
    let half = limits::PAUSED_BYTES_MAX / 2;
    assert!(bytes <= half && bytes > half - 61_000, "{bytes}");
    solo.play(3);
    assert_eq!(tell(&mut solo, conns[1], 0)["kind"], "ack");
}

// shows: TRUST-PAU-1
#[test]
fn strangers_may_knock_as_ever() {
    let mut solo = two();
    solo.set(|settings| settings.knock.open = true);
    solo.owned(pause(None));
    solo.play(9);
    let conn = solo.accept();
    let hello = solo.envelope("hello", Solo::hello_payload(ALL, None));
    solo.ask(conn, &hello);
    let knock = solo.envelope("knock", json!({}));
    assert_eq!(solo.ask(conn, &knock)["payload"]["decision"], "pending");
}

// --- whole nodes ---

/// What a client of one of the others has told the first node.
struct Told {
    from: usize,
    client: ClientId,
    req_id: String,
    data: u64,
    /// It was answered before anything else was done; and the work of its sender was paused then.
    waited: Option<bool>,
}

// Nothing that was receipted is lost or comes twice, and what was set aside keeps its order.
// shows: TRUST-PAU-1, TRUST-PAU-2, TRUST-PAU-4
#[test]
fn random_pauses_crashes_and_messages_lose_nothing_and_repeat_nothing() {
    let (mut set_aside, mut crashes) = (0, 0);
    for seed in 0..40 {
        let mut world = World::new(seed, 3);
        (0..3).for_each(|at| world.start(at));
        assert!(world.run_until(20_000, |w| [1, 2].iter().all(|at| !w.wires_between(0, *at).is_empty())));
        world.run_for(5_000);
        let clients = [ClientId(0), world.client(1), world.client(2)];
        world.agent(0, (1, 5));
        let (mut all, mut one) = (false, [false; 3]);
        let mut told: Vec<Told> = Vec::new();
        for step in 0..60 {
            let from = world.rng.range(1, 2) as usize;
            match world.rng.range(0, 9) {
                0..=2 => {
                    let peer = world.rng.chance(60).then_some(from);
                    let on = world.rng.chance(60);
                    let owner = world.client(0);
                    let id = peer.map(|peer| world.hosts[peer].id);
                    let cmd = if on { "pause" } else { "resume" };
                    world.say(0, owner, &json!({"cmd":cmd,"req_id":"o","peer":id}));
                    world.finish_disk(0);
                    assert_eq!(world.replies(0, owner, "o")[0]["ok"], true);
                    world.leave(0, owner);
                    match peer {
                        Some(peer) => one[peer] = on,
                        None => all = on,
                    }
                }
                3 if step > 5 => {
                    crashes += 1;
                    world.crash(0);
                    let down = world.rng.range(1, 1_500);
                    world.run_for(down);
                    world.start(0);
                    assert!(world.run_until(30_000, |w| {
                        [1, 2].iter().all(|at| !w.wires_between(0, *at).is_empty())
                    }));
                    world.agent(0, (1, 5));
                }
                kind => {
                    let waits = kind < 8;
                    for _ in 0..if waits { 1 } else { 4 } {
                        let data = told.len() as u64;
                        let payload = json!({"topic":"t","data":data});
                        let req_id = world.send(from, clients[from], 0, "notify", payload);
                        let mut waited = None;
                        if waits {
                            let reply = world.reply(from, clients[from], &req_id, 20_000);
                            assert_eq!(reply["state"], "delivered", "seed {seed}: {reply}\n{}", world.tail());
                            waited = Some(all || one[from]);
                            set_aside += u32::from(all || one[from]);
                        }
                        told.push(Told { from, client: clients[from], req_id, data, waited });
                    }
                }
            }
            let paused = |from: usize| all || one[from];
            let before = shown(&world, [1, 2].map(paused));
            let pause = world.rng.range(0, 60);
            world.run_for(pause);
            assert_eq!(shown(&world, [1, 2].map(paused)), before, "seed {seed}: shown while it was paused");
        }
        let owner = world.client(0);
        for peer in [None, Some(1), Some(2)] {
            let id = peer.map(|peer| world.hosts[peer].id);
            world.say(0, owner, &json!({"cmd":"resume","req_id":"o","peer":id}));
        }
        world.run_for(40_000);
        world.say(0, owner, &json!({"cmd":"inbox","req_id":"i","limit":1000}));
        world.finish_disk(0);
        let rows = world.replies(0, owner, "i")[0]["messages"].as_array().unwrap().clone();
        let came = data(&rows);
        for one in &told {
            let times = came.iter().filter(|data| **data == one.data).count();
            let reply = world.replies(one.from, one.client, &one.req_id).pop().unwrap_or_default();
            let receipted = reply["state"] == "delivered";
            assert!(times <= 1, "seed {seed}: {} came {times} times\n{}", one.data, world.tail());
            assert!(times == 1 || !receipted, "seed {seed}: {} is lost: {reply}\n{}", one.data, world.tail());
        }
        for from in [1, 2] {
            for paused in [true, false] {
                let sent = told.iter().filter(|one| one.from == from && one.waited == Some(paused));
                let sent: Vec<u64> = sent.map(|one| one.data).collect();
                let order: Vec<u64> = came.iter().copied().filter(|data| sent.contains(data)).collect();
                assert_eq!(order, sent, "seed {seed}: order of {from}, paused {paused}");
            }
        }
        assert_eq!(world.status(0)["set_aside"], 0, "seed {seed}");
    }
    assert!(set_aside > 200 && crashes > 70, "{set_aside} {crashes}");
}

/// How many live events the first node has shown of those that are paused.
fn shown(world: &World, paused: [bool; 2]) -> usize {
    let of = |from: usize| {
        let id = world.hosts[from].id.to_string();
        let lines = world.hosts[0].clients.values().flat_map(|cli| &cli.lines);
        lines.filter(|line| line["event"] == "inbound" && line["envelope"]["from"] == id.as_str()).count()
    };
    [1, 2].into_iter().filter(|from| paused[from - 1]).map(of).sum()
}
