//! Presence between nodes in memory: who is there and how, what it costs, who finds whom, and what a
//! neighbour that means harm can do by it.

use axon_proto::id::PublicKey;
use axon_proto::kinds::presence::beacon::{About, Beacon};
use axon_proto::limits::{
    FIND_WALKS_PER_PEER_MAX, LAST_WORDS_MS, PRESENCE_BYTES_PER_MINUTE, PRESENCE_IDLE_MS,
};
use axon_proto::node::{ClientId, ConnId, Effect, Input, Lost};
use axon_proto::trust::Findable;
use serde_json::{Value, json};

use crate::net::{Solo, WALL_MS, World, answer_on, lines};

/// A beacon's payload as the agent with this key would send it.
fn beacon(n: u8, seq: u64, change: impl FnOnce(&mut About)) -> Value {
    let mut about =
        About { status: "idle".into(), capabilities: "0011223344556677".into(), ..About::default() };
    change(&mut about);
    let signed = Beacon::to_sign(&PublicKey([n; 32]), seq, WALL_MS, &about);
    let sig = "A".repeat(85) + "Q==";
    // Nothing is signed here but where a test says so.
    json!({"signed": serde_json::from_str::<Value>(signed.get()).unwrap(), "sig": sig.replace('Q', "A")})
}

fn rows(world: &mut World, at: usize) -> Vec<Value> {
    let client = world.client(at);
    world.say(at, client, &json!({"cmd":"presence","req_id":"p"}));
    let reply = world.replies(at, client, "p")[0].clone();
    world.leave(at, client);
    reply["presence"].as_array().unwrap().clone()
}

fn row(world: &mut World, at: usize, of: usize) -> Value {
    let id = world.hosts[of].id.to_string();
    rows(world, at).into_iter().find(|row| row["id"] == id.as_str()).unwrap_or_default()
}

/// A client that is told of changes.
fn watcher(world: &mut World, at: usize) -> ClientId {
    let client = world.client(at);
    world.say(at, client, &json!({"cmd":"subscribe_presence","req_id":"w"}));
    client
}

fn changes(world: &World, at: usize, client: ClientId) -> Vec<(String, String)> {
    let events = world.hosts[at].clients[&client].lines.iter().filter(|line| line["event"] == "presence");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    events.map(|event| (text(&event["change"]), text(&event["peer"]["status"]))).collect()
}

/// Nodes that know only the one before and the one after.
fn in_a_line(seed: u64, count: u8) -> World {
    linked(seed, count, |a, b| a.abs_diff(b) == 1)
}

/// Nodes that know each other where this says so.
fn linked(seed: u64, count: u8, knows: impl Fn(usize, usize) -> bool) -> World {
    let mut world = World::new(seed, count);
    let keys: Vec<_> = world.hosts.iter().map(|host| host.key).collect();
    for (at, host) in world.hosts.iter_mut().enumerate() {
        let place = |key: &PublicKey| keys.iter().position(|other| other == key).unwrap();
        host.settings.peers.retain(|peer| knows(at, place(&peer.pubkey)));
    }
    (0..usize::from(count)).for_each(|at| world.start(at));
    world
}

fn find(world: &mut World, at: usize, mut command: Value) -> Vec<Value> {
    let client = world.client(at);
    (command["cmd"], command["req_id"]) = ("find".into(), "f".into());
    world.say(at, client, &command);
    let reply = world.reply(at, client, "f", 3_000);
    assert_eq!(reply["ok"], true, "{reply}");
    world.leave(at, client);
    reply["agents"].as_array().unwrap().clone()
}

// shows: PRES-BEA-1, PRES-BEA-2
#[test]
fn neighbours_hear_how_an_agent_is_and_when_it_changes() {
    let (mut world, [agent, _]) = World::pair(1);
    let watcher = watcher(&mut world, 1);
    let seen = row(&mut world, 1, 0);
    assert_eq!((&seen["status"], &seen["connected"]), (&json!("idle"), &json!(true)), "{seen}");
    assert_eq!(seen["addrs"], json!(["192.0.2.1:7100"]));
    let setter = world.client(0);
    world.say(0, setter, &json!({"cmd":"set_presence","req_id":"1","status":"away"}));
    world.run_for(1_100);
    world.say(0, agent, &json!({"cmd":"set_presence","req_id":"2","status":"busy"}));
    world.run_for(1_100);
    assert_eq!(row(&mut world, 1, 0)["status"], "away", "the most urgent word of its clients counts");
    world.leave(0, setter);
    world.run_for(1_100);
    world.say(0, agent, &json!({"cmd":"set_presence","req_id":"3"}));
    world.run_for(1_100);
    let told: Vec<String> = changes(&world, 1, watcher).into_iter().map(|(_, status)| status).collect();
    assert_eq!(told, ["away", "busy", "idle"]);
    let capable = json!({"cmd":"advertise","req_id":"4","capabilities":{"domains":["family"],"tools":["x"]}});
    world.say(0, agent, &capable);
    world.run_for(1_100);
    assert_eq!(row(&mut world, 1, 0)["domains"], json!(["family"]));
    let client = world.client(1);
    for (asked, count) in [
        (json!({"domain":"family.calendar","tool":"x"}), 1),
        (json!({"domain":"work"}), 0),
        (json!({"tool":"y"}), 0),
        (json!({}), 1),
    ] {
        let mut command = asked.clone();
        (command["cmd"], command["req_id"]) = ("who".into(), format!("who{asked}").into());
        world.say(1, client, &command);
        let reply = world.replies(1, client, &format!("who{asked}"))[0].clone();
        assert_eq!(reply["agents"].as_array().unwrap().len(), count, "{asked}: {reply}");
    }
    assert_eq!(changes(&world, 1, watcher).len(), 3, "what an agent can do is no event");
}

// shows: PRES-BEA-2
#[test]
fn changes_of_one_second_are_said_together() {
    let (mut world, [agent, _]) = World::pair(2);
    world.run_for(2_000);
    let before = world.status(0)["presence"]["told"].as_u64().unwrap();
    for n in 0..50 {
        let status = ["busy", "away", "dnd"][n % 3];
        world.say(0, agent, &json!({"cmd":"set_presence","req_id":n,"status":status}));
    }
    world.run_for(5_000);
    let told = world.status(0)["presence"]["told"].as_u64().unwrap() - before;
    assert_eq!(told, 2, "the first at once, the last a second later");
    assert_eq!(row(&mut world, 1, 0)["status"], "away");
}

// shows: PRES-BEA-3
#[test]
fn work_makes_an_agent_busy_and_it_is_idle_some_time_after() {
    let (mut world, [_, _]) = World::pair(3);
    let slow = world.agent(0, (6_000, 6_001));
    let asker = world.client(1);
    let watcher = watcher(&mut world, 1);
    world.query(1, asker, 0);
    world.query(1, asker, 0);
    let busy = world
        .run_until(12_000, |w| changes(w, 1, watcher).last().is_some_and(|(_, status)| status == "busy"));
    assert!(busy, "{:?}", changes(&world, 1, watcher));
    let idle = world.run_until(2 * PRESENCE_IDLE_MS, |w| {
        changes(w, 1, watcher).last().is_some_and(|(_, status)| status == "idle")
    });
    assert!(idle);
    world.leave(0, slow);
}

// shows: PRES-BEA-4, PRES-LIVE-1
#[test]
fn a_clean_stop_is_said_and_a_crash_is_seen() {
    let (mut world, _) = World::pair(4);
    let watcher = watcher(&mut world, 1);
    world.feed(0, Input::Stop);
    let gone = world.run_until(200, |w| changes(w, 1, watcher).len() == 1);
    assert!(gone, "it was said at once: {:?}", changes(&world, 1, watcher));
    assert_eq!(changes(&world, 1, watcher), [("offline".to_owned(), "offline".to_owned())]);
    world.run_for(3_000);
    assert_eq!(world.hosts[0].stopped, 1, "it does not wait for long");
    assert_eq!(changes(&world, 1, watcher).len(), 1, "the end of the connection is no second event");
    world.crash(0);
    world.start(0);
    let back = world.run_until(40_000, |w| {
        let told = changes(w, 1, watcher);
        told.get(1).is_some_and(|(change, _)| change == "online") && told.len() >= 3
    });
    assert!(back, "{:?}", changes(&world, 1, watcher));
    assert_eq!(row(&mut world, 1, 0)["status"], "idle");
    world.crash(0);
    let gone = world
        .run_until(120_000, |w| changes(w, 1, watcher).last().is_some_and(|(change, _)| change == "offline"));
    assert!(gone);
    let left = row(&mut world, 1, 0);
    assert_eq!((&left["status"], &left["connected"]), (&json!("offline"), &json!(false)));
}

// shows: PRES-FIND-1, PRES-FIND-2
#[test]
fn friends_of_friends_are_found_and_walks_are_bounded() {
    let mut world = in_a_line(5, 5);
    let agent = world.agent(4, (1, 2));
    world.say(4, agent, &json!({"cmd":"advertise","req_id":"a","capabilities":{"tools":["web_search"]}}));
    world.run_for(5_000);
    let id = |world: &World, at: usize| world.hosts[at].id.to_string();
    let second = id(&world, 2);
    assert_eq!(find(&mut world, 0, json!({"id":second,"hops":1})), Vec::<Value>::new());
    let found = find(&mut world, 0, json!({"id":second,"hops":2}));
    assert_eq!((found.len(), &found[0]["hops"]), (1, &json!(2)), "{found:?}");
    let link = found[0]["link"].as_str().unwrap();
    assert!(link.starts_with("axon://") && link.ends_with("192.0.2.1:7100"), "{link}");
    for (hops, count) in [(3, 0), (4, 1), (5, 1)] {
        let found = find(&mut world, 0, json!({"tool":"web_search","hops":hops}));
        assert_eq!(found.len(), count, "{hops}: {found:?}");
        if let Some(found) = found.first() {
            assert_eq!((&found["hops"], &found["id"]), (&json!(4), &json!(id(&world, 4))));
        }
    }
    let client = world.client(0);
    for (command, part) in [
        (json!({"hops":2}), "name an agent, a domain or a tool"),
        (json!({"tool":"x","hops":0}), "1 to 5"),
        (json!({"tool":"x","hops":6}), "1 to 5"),
        (json!({"id":second,"tool":"x"}), "not both"),
        (json!({"id":"nobody"}), "nobody"),
    ] {
        let mut command = command;
        (command["cmd"], command["req_id"]) = ("find".into(), part.into());
        world.say(0, client, &command);
        let reply = world.replies(0, client, part)[0].clone();
        assert!(reply["message"].as_str().is_some_and(|text| text.contains(part)), "{reply}");
    }
}

// shows: PRES-FIND-3, PRES-FIND-4
#[test]
fn nobody_is_found_who_does_not_allow_it_or_is_blocked() {
    for (findable, level, count) in [
        (Findable::Known, "known", 1),
        (Findable::Trusted, "known", 0),
        (Findable::Trusted, "trusted", 1),
        (Findable::Nobody, "trusted", 0),
        (Findable::Known, "blocked-there", 0),
    ] {
        let mut world = in_a_line(6, 3);
        world.run_for(3_000);
        let mut settings = world.hosts[2].settings.clone();
        settings.presence.findable = findable;
        world.feed(2, Input::Settings(Box::new(settings)));
        let owner = world.client(1);
        let (of, level) = if level == "blocked-there" { (2, "blocked") } else { (0, level) };
        let peer = world.hosts[of].id.to_string();
        world.say(1, owner, &json!({"cmd":"trust","req_id":"t","peer":peer,"trust":level}));
        assert_eq!(world.reply(1, owner, "t", 2_000)["ok"], true);
        world.run_for(2_000);
        let id = world.hosts[2].id.to_string();
        let found = find(&mut world, 0, json!({"id":id,"hops":3}));
        assert_eq!(found.len(), count, "{findable:?}, {level}: {found:?}");
        if level == "blocked" {
            assert_eq!(row(&mut world, 1, 2), Value::Null, "it does not exist there");
            assert_eq!(find(&mut world, 2, json!({"id":peer,"hops":3})), Vec::<Value>::new());
        }
    }
}

// shows: PRES-FIND-2
#[test]
fn a_walk_ends_where_it_was_before_and_when_somebody_does_not_answer() {
    // A ring with chords: there are many ways back to where a walk began.
    let mut world = linked(7, 8, |a, b| a != b && matches!(a.abs_diff(b), 1 | 3 | 4 | 5 | 7));
    world.run_for(5_000);
    let found = find(&mut world, 0, json!({"tool":"none","hops":5}));
    assert_eq!(found, Vec::<Value>::new());
    let asked: u64 = (0..8).map(|at| world.status(at)["presence"]["asked"].as_u64().unwrap()).sum();
    assert!((4..=120).contains(&asked), "{asked}");
    let walks: u64 = (0..8).map(|at| world.status(at)["presence"]["walks"].as_u64().unwrap()).sum();
    assert_eq!(walks, 0, "none is left");
}

// shows: PRES-BEA-2, PRES-FIND-2, PRES-COST-1
#[test]
fn among_two_hundred_nodes_messages_are_bounded_and_what_is_near_is_found() {
    let count: usize = 200;
    let apart = |a: usize, b: usize| a.abs_diff(b).min(count - a.abs_diff(b));
    let mut world = linked(8, 200, |a, b| matches!(apart(a, b), 1 | 13 | 57));
    world.run_for(8_000);
    let sum = |world: &mut World, what: &str| -> u64 {
        (0..count).map(|at| world.status(at)["presence"][what].as_u64().unwrap()).sum()
    };
    assert_eq!(sum(&mut world, "online"), 6 * 200);
    let told = sum(&mut world, "told");
    assert!((1_200..=2_400).contains(&told), "one or two a link and side: {told}");
    world.run_for(310_000);
    let again = sum(&mut world, "told") - told;
    assert_eq!(again, 1_200, "one a neighbour in five minutes");
    // Every tenth has the tool, so that one is two hops away at most.
    for at in (0..count).step_by(10) {
        let agent = world.client(at);
        let said = json!({"cmd":"advertise","req_id":"a","capabilities":{"tools":["web_search"]}});
        world.say(at, agent, &said);
    }
    world.run_for(1_500);
    let mut hops = Vec::new();
    for at in (5..count).step_by(20) {
        let before = sum(&mut world, "asked");
        let found = find(&mut world, at, json!({"tool":"web_search","hops":5}));
        let asked = sum(&mut world, "asked") - before;
        assert!(asked <= 120, "{asked} messages for one walk");
        let nearest = found.first().unwrap_or_else(|| panic!("nobody was found from {at}"));
        hops.push(nearest["hops"].as_u64().unwrap());
        assert!(found.len() <= 16);
    }
    assert!(hops.iter().all(|hops| (1..=5).contains(hops)), "{hops:?}");
    assert_eq!(sum(&mut world, "walks"), 0);
}

// --- one node, and a peer that the test speaks for ---

/// A node with a peer that offers presence, on this connection.
fn solo() -> (Solo, ConnId) {
    let mut solo = Solo::new(1, 2);
    solo.trust(2, "known");
    let conn = solo.greeted(&["presence", "receipt"], None);
    (solo, conn)
}

/// Bytes of envelopes that left, with kinds that presence uses.
fn sent_bytes(effects: &[Effect]) -> usize {
    let bytes = |effect: &Effect| match effect {
        Effect::Request { bytes, .. } | Effect::OneWay { bytes, .. } | Effect::Respond { bytes, .. } => {
            bytes.len()
        }
        _ => 0,
    };
    effects.iter().map(bytes).sum()
}

/// The ends of what has left: each was taken.
fn take_all(solo: &mut Solo, effects: &[Effect]) {
    for effect in effects {
        if let Effect::Request { token, bytes, .. } = effect {
            let request: Value = serde_json::from_str(bytes).unwrap();
            let mut ack = solo.envelope("ack", json!({"accepted":true}));
            ack["ref"] = request["id"].clone();
            solo.feed(Input::Replied { token: *token, outcome: Ok(ack.to_string().into_bytes()) });
        }
    }
}

// shows: PRES-COST-1
#[test]
fn presence_costs_at_most_200_bytes_a_minute_while_nothing_changes() {
    for (names, of_bytes) in [(0, 0), (4, 12), (16, 24), (16, 60), (16, 250)] {
        let (mut solo, conn) = solo();
        let client = solo.client();
        let list = |letter: &str| -> Vec<String> {
            (0..names).map(|n| format!("{}{n}", letter.repeat(of_bytes))).collect()
        };
        let capabilities = json!({"domains":list("d"),"tools":list("t"),"agent_name":"n".repeat(64)});
        let said = solo.say(client, &json!({"cmd":"advertise","req_id":"a","capabilities":capabilities}));
        take_all(&mut solo, &said);
        let said = solo.wait(2_000);
        take_all(&mut solo, &said);
        let (mut bytes, mut beacons, minutes) = (0, 0, 120);
        for n in 0..minutes {
            let mut said = solo.wait(60_000);
            take_all(&mut solo, &said);
            // The peer says as much, and is given receipts.
            if said.iter().any(|effect| matches!(effect, Effect::Request { .. })) {
                beacons += 1;
                let payload = beacon(2, n + 2, |_| {});
                let envelope = solo.envelope("presence.beacon", payload);
                said.extend(solo.request(conn, &envelope).1);
            }
            bytes += sent_bytes(&said);
        }
        let per_minute = bytes / usize::try_from(minutes).unwrap();
        assert!(per_minute <= PRESENCE_BYTES_PER_MINUTE, "{names} of {of_bytes}: {per_minute} bytes");
        assert!(beacons >= 12, "{beacons}");
    }
}

// shows: PRES-BEA-5, PRES-BEA-6
#[test]
fn beacons_by_the_thousand_are_not_looked_at() {
    let (mut solo, conn) = solo();
    solo.verify = |_, _, _| true;
    for seq in 2..10_000 {
        let envelope = solo.envelope("presence.beacon", beacon(2, seq, |_| {}));
        solo.one_way(conn, &envelope);
    }
    let status = solo.status();
    assert_eq!(status["presence"]["heard"], 10);
    assert_eq!(status["presence"]["dropped"]["limited"], 9_988);
    solo.wait(60_000);
    for (payload, why) in [
        (beacon(3, 20_000, |_| {}), "not_its_own"),
        (beacon(2, 5, |_| {}), "old"),
        (beacon(2, 11, |_| {}), "old"),
    ] {
        let envelope = solo.envelope("presence.beacon", payload);
        solo.one_way(conn, &envelope);
        assert!(solo.status()["presence"]["dropped"][why].as_u64().unwrap() >= 1, "{why}");
    }
    let malformed = solo.envelope("presence.beacon", json!({"signed":{},"sig":"x"}));
    let answer = solo.ask(conn, &malformed);
    assert_eq!(answer["payload"]["code"], "invalid_envelope", "{answer}");
}

// shows: PRES-BEA-5
#[test]
fn a_beacon_that_its_agent_has_not_signed_is_dropped() {
    let mut solo = Solo::new(1, 2);
    solo.verify = |_, _, _| false;
    solo.restart();
    solo.trust(2, "known");
    let conn = solo.greeted(&["presence"], None);
    let envelope = solo.envelope("presence.beacon", beacon(2, 5, |_| {}));
    solo.one_way(conn, &envelope);
    let status = solo.status();
    assert_eq!(
        (&status["presence"]["heard"], &status["presence"]["dropped"]["forged"]),
        (&json!(0), &json!(1))
    );
    // What was found and is not signed is not told.
    let client = solo.client();
    let asked = solo.say(client, &json!({"cmd":"find","req_id":"f","tool":"x"}));
    let token = asked.iter().find_map(|effect| match effect {
        Effect::Request { token, bytes, .. } if bytes.contains("presence.find") => {
            Some((*token, serde_json::from_str::<Value>(bytes).unwrap()))
        }
        _ => None,
    });
    let (token, request) = token.unwrap();
    let mut one = beacon(3, 5, |about| about.tools = vec!["x".into()]);
    one["hops"] = 1.into();
    let mut found = solo.envelope("presence.found", json!({"agents":[one]}));
    found["ref"] = request["id"].clone();
    let told = solo.feed(Input::Replied { token, outcome: Ok(found.to_string().into_bytes()) });
    assert_eq!(lines(&told, client)[0]["agents"], json!([]));
    assert_eq!(solo.status()["presence"]["dropped"]["forged"], 2);
}

// shows: IPC-PRES-6
#[test]
fn a_client_names_an_agent_or_what_it_can_do() {
    let mut solo = Solo::new(1, 2);
    solo.trust(2, "known");
    let client = solo.client();
    let (some, nobody) = (solo.peer.to_string(), "nobody");
    for (fields, error) in [
        (json!({"id":some}), Value::Null),
        (json!({"id":some,"domain":null,"tool":null}), Value::Null),
        (json!({"id":null,"domain":"a","tool":"b"}), Value::Null),
        (json!({"id":nobody}), json!("peer_not_found")),
        (json!({}), json!("invalid_command")),
        (json!({"id":null,"domain":null}), json!("invalid_command")),
        (json!({"id":some,"domain":"a"}), json!("invalid_command")),
        // What is wrong in itself is said first.
        (json!({"id":nobody,"tool":"b"}), json!("invalid_command")),
        (json!({"id":nobody,"hops":6}), json!("invalid_command")),
    ] {
        let mut command = fields.clone();
        (command["cmd"], command["req_id"]) = ("find".into(), "f".into());
        let effects = solo.say(client, &command);
        let told = lines(&effects, client).into_iter().find(|line| line["req_id"] == "f");
        assert_eq!(told.unwrap_or_default()["error"], error, "{fields}");
    }
}

// shows: PRES-BEA-7
#[test]
fn an_unknown_peer_is_told_nothing_and_hears_of_nobody() {
    let mut solo = Solo::new(1, 2);
    solo.trust(2, "unknown");
    let conn = solo.accept();
    let hello = solo.envelope("hello", Solo::hello_payload(&["presence"], None));
    let (_, effects) = solo.request(conn, &hello);
    assert!(!format!("{effects:?}").contains("presence.beacon"), "{effects:?}");
    let target = json!({"tool":"x"});
    let id = solo.new_id();
    let envelope = solo.envelope("presence.find", json!({"id":id,"target":target,"hops":0}));
    assert_eq!(solo.ask(conn, &envelope)["payload"]["code"], "not_authorized");
    let envelope = solo.envelope("presence.beacon", beacon(2, 5, |_| {}));
    solo.one_way(conn, &envelope);
    assert_eq!(solo.status()["presence"]["heard"], 0);
    // It is known from now on, and is told with the next look.
    solo.trust(2, "known");
    assert!(format!("{:?}", solo.wait(5_000)).contains("presence.beacon"));
}

// shows: PRES-FIND-2, PRES-FIND-5
#[test]
fn walks_of_one_peer_are_bounded_and_each_is_answered_once() {
    let (mut solo, conn) = solo();
    // Somebody to pass them on to, who never answers.
    solo.play(3);
    solo.found(3);
    solo.trust(3, "known");
    let silent = solo.greeted(&["presence"], None);
    solo.play(2);
    let mut streams = Vec::new();
    for n in 0..FIND_WALKS_PER_PEER_MAX + 1 {
        let id = solo.new_id();
        let walk = json!({"id":id,"target":{"tool":"x"},"hops":3});
        let envelope = solo.envelope("presence.find", walk.clone());
        let (stream, effects) = solo.request(conn, &envelope);
        let answer = answer_on(&effects, stream);
        if n < FIND_WALKS_PER_PEER_MAX {
            assert_eq!(answer, None);
            streams.push(stream);
            let again = solo.envelope("presence.find", walk);
            if n + 1 < FIND_WALKS_PER_PEER_MAX {
                assert_eq!(solo.ask(conn, &again)["payload"], json!({"agents":[]}), "it was here before");
            }
        } else {
            assert_eq!(answer.unwrap()["payload"]["code"], "overloaded");
        }
    }
    let ended = solo.wait(2_100);
    for stream in streams {
        assert_eq!(answer_on(&ended, stream).unwrap()["kind"], "presence.found");
    }
    assert_eq!(solo.status()["presence"]["walks"], 0);
    // What the other has not answered is given up, too.
    let given_up = solo.wait(6_000);
    assert!(given_up.iter().any(|effect| matches!(effect, Effect::Abandon { .. })));
    solo.feed(Input::Disconnected { conn: silent, why: "gone".into() });
}

// shows: PRES-LIVE-1, PRES-LIVE-2
#[test]
fn a_connection_that_goes_silent_counts_as_gone_before_it_ends() {
    let (mut solo, conn) = solo();
    let envelope = solo.envelope("presence.beacon", beacon(2, 5, |_| {}));
    solo.one_way(conn, &envelope);
    let client = solo.client();
    solo.say(client, &json!({"cmd":"subscribe_presence","req_id":"w"}));
    let told = |effects: &[Effect]| -> Vec<String> {
        let all = lines(effects, client);
        all.iter().map(|line| line["change"].as_str().unwrap().to_owned()).collect()
    };
    let mut packets = 0;
    for _ in 0..40 {
        packets += 1;
        solo.feed(Input::Counted(vec![(conn, packets)]));
        let effects = solo.wait(15_000);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Count(conns) if conns == &[conn])));
        assert_eq!(told(&effects), Vec::<String>::new());
    }
    assert_eq!(told(&solo.wait(15_000)), Vec::<String>::new());
    assert_eq!(told(&solo.wait(20_000)), ["offline"]);
    let reply = &lines(&solo.say(client, &json!({"cmd":"presence","req_id":"p"})), client)[0];
    let row = &reply["presence"][0];
    assert!(row["phi"].as_f64().unwrap() > 8.0 && row["connected"] == true, "{row}");
    assert_eq!(row["status"], "offline");
    solo.feed(Input::Counted(vec![(conn, packets + 1)]));
    assert_eq!(told(&solo.wait(5_000)), ["online"]);
    solo.feed(Input::Disconnected { conn, why: "gone".into() });
}

// shows: PRES-BEA-4
#[test]
fn the_last_word_holds_nobody_up() {
    let (mut solo, conn) = solo();
    let effects = solo.feed(Input::Stop);
    let last = effects.iter().find_map(|effect| match effect {
        Effect::Request { token, bytes, .. } if bytes.contains("\"offline\"") => Some(*token),
        _ => None,
    });
    assert!(last.is_some() && !effects.contains(&Effect::Stopped), "{effects:?}");
    assert!(solo.wait(LAST_WORDS_MS).contains(&Effect::Stopped));
    // One that arrives is not waited for any longer.
    let (mut solo, _) = self::solo();
    let effects = solo.feed(Input::Stop);
    let token = effects.iter().find_map(|effect| match effect {
        Effect::Request { token, .. } => Some(*token),
        _ => None,
    });
    let outcome = Err(Lost::Reset);
    assert!(solo.feed(Input::Replied { token: token.unwrap(), outcome }).contains(&Effect::Stopped));
    assert_ne!(conn, ConnId(0));
}

// shows: IPC-PRES-3
#[test]
fn a_scoped_socket_sees_whom_it_may_send_to() {
    let mut solo = Solo::new(1, 2);
    solo.found(3);
    let two = PublicKey([2; 32]).agent_id();
    solo.owned(json!({"cmd":"trust","peer":two,"trust":"known"}));
    for (name, allow, to) in
        [("seer", json!(["send"]), json!([two])), ("deaf", json!(["inbox"]), json!([two]))]
    {
        let (reply, _) = solo.owner(json!({"cmd":"socket_add","name":name,"allow":allow,"to":to}));
        assert_eq!(reply["ok"], true, "{reply}");
    }
    let (seer, deaf) = (solo.scoped("seer"), solo.scoped("deaf"));
    let reply = |solo: &mut Solo, client: ClientId, command: Value| {
        let effects = solo.say(client, &command);
        lines(&effects, client).remove(0)
    };
    let shown = reply(&mut solo, seer, json!({"cmd":"presence","req_id":"p"}));
    assert_eq!(shown["presence"].as_array().unwrap().len(), 1, "{shown}");
    let other = PublicKey([3; 32]).agent_id();
    let hidden = reply(&mut solo, seer, json!({"cmd":"presence","req_id":"p","peer":other}));
    assert_eq!(hidden["error"], "peer_not_found");
    for cmd in ["presence", "who", "find", "subscribe_presence", "set_presence"] {
        let refused = reply(&mut solo, deaf, json!({"cmd":cmd,"req_id":"p","tool":"x"}));
        assert_eq!(refused["error"], "not_authorized", "{cmd}: {refused}");
    }
    let refused = reply(&mut solo, seer, json!({"cmd":"set_presence","req_id":"p","status":"busy"}));
    assert_eq!(refused["error"], "not_authorized");
    let watching = reply(&mut solo, seer, json!({"cmd":"subscribe_presence","req_id":"w"}));
    assert_eq!(watching["on"], true);
    solo.play(3);
    solo.trust(3, "known");
    let effects = {
        let conn = solo.accept();
        let hello = solo.envelope("hello", Solo::hello_payload(&["presence"], None));
        solo.request(conn, &hello).1
    };
    assert_eq!(lines(&effects, seer), Vec::<Value>::new());
    solo.play(2);
    let conn = solo.accept();
    let hello = solo.envelope("hello", Solo::hello_payload(&["presence"], None));
    let (_, effects) = solo.request(conn, &hello);
    assert_eq!(lines(&effects, seer)[0]["change"], "online");
}

// shows: IPC-PRES-4
#[test]
fn what_is_switched_off_is_not_offered() {
    let mut solo = Solo::with(1, 2, |settings| settings.presence.enabled = false);
    let conn = solo.accept();
    let hello = solo.envelope("hello", Solo::hello_payload(&["presence"], None));
    let answer = solo.ask(conn, &hello);
    let features = answer["payload"]["features"].as_array().unwrap();
    assert!(!features.iter().any(|feature| feature == "presence"), "{features:?}");
    let (reply, _) = solo.owner(json!({"cmd":"presence"}));
    assert_eq!(reply["error"], "not_offered", "{reply}");
    assert!(!format!("{:?}", solo.wait(20_000)).contains("Count"));
}
