//! Blocking and forgetting: nothing of who is out comes through any more. One node, and peers whose every
//! message the test writes itself; and whole nodes in a network in memory.

use std::sync::Arc;

use axon_proto::audit::Event;
use axon_proto::contacts::Contact;
use axon_proto::id::{AgentId, PublicKey};
use axon_proto::node::{ClientId, ConnId, Effect, Input, Of, Pins, StaticPeer, StreamId, Token};
use axon_proto::trust::Level;
use serde_json::{Value, json};

use crate::net::{Solo, World, answer_on, closes, lines};

/// What this daemon offers, but what is about pairing.
const ALL: &[&str] =
    &["delegate", "ack", "progress", "result", "cancel", "discover", "capabilities", "receipt"];

fn agent_id(n: u8) -> AgentId {
    PublicKey([n; 32]).agent_id()
}

fn id(n: u8) -> String {
    agent_id(n).to_string()
}

fn static_peer(n: u8, name: Option<&str>) -> StaticPeer {
    let name = name.map(str::to_owned);
    let pubkey = PublicKey([n; 32]);
    StaticPeer { agent_id: agent_id(n), pubkey, addr: "192.0.2.1:7100".into(), name }
}

fn pins(effects: &[Effect]) -> Option<Arc<Pins>> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Pins(pins) => Some(pins.clone()),
        _ => None,
    })
}

/// The last request that went out: its token and envelope.
fn sent(effects: &[Effect]) -> (Token, Value) {
    let last = effects.iter().rev().find_map(|effect| match effect {
        Effect::Request { token, bytes, .. } => Some((*token, serde_json::from_str(bytes).unwrap())),
        _ => None,
    });
    last.unwrap_or_else(|| panic!("nothing was sent: {effects:?}"))
}

fn notify(solo: &mut Solo, conn: ConnId, topic: &str) -> Value {
    let notify = solo.envelope("notify", json!({"topic":topic,"data":1}));
    solo.ask(conn, &notify)
}

fn inbox(solo: &mut Solo) -> Vec<Value> {
    let reply = solo.owned(json!({"cmd":"inbox","limit":1000}));
    reply["messages"].as_array().unwrap().clone()
}

/// The rows of `peers`, which a shell answers by a measurement first.
fn peers(solo: &mut Solo) -> Vec<Value> {
    let client = solo.client();
    solo.say(client, &json!({"cmd":"peers","req_id":"p"}));
    let effects = solo.feed(Input::Measured { client, req_id: "\"p\"".into(), rtts: Vec::new() });
    let rows = lines(&effects, client)[0]["peers"].as_array().unwrap().clone();
    solo.feed(Input::ClientGone { client });
    rows
}

fn peer_row(solo: &mut Solo, n: u8) -> Option<Value> {
    peers(solo).into_iter().find(|row| row["id"] == id(n).as_str())
}

// --- blocking and forgetting ---

/// What the peer says, wherever it can say anything.
const WORD: &str = "their-word";

fn blocks(n: u8) -> Value {
    json!({"cmd":"trust","req_id":"b","peer":id(n),"trust":"blocked"})
}

fn forgets(n: u8) -> Value {
    json!({"cmd":"forget","req_id":"b","peer":id(n)})
}

// shows: TRUST-OUT-1, TRUST-OUT-2, TRUST-OUT-3, IPC-TRU-1, TRUST-CON-3
#[test]
fn who_is_blocked_or_forgotten_is_cut_off_before_the_command_is_answered() {
    for (command, blocked) in [(blocks(2), true), (forgets(2), false)] {
        let mut solo = Solo::with(1, 2, |settings| settings.peers.push(static_peer(3, None)));
        solo.feed(Input::Start);
        let agent = solo.client();
        solo.say(agent, &json!({"cmd":"subscribe","req_id":"s","answer":["query"],"kinds":["notify"]}));
        solo.play(3);
        let theirs = solo.greeted(ALL, None);
        let other = solo.envelope("query", json!({"question":"q"}));
        let (other_stream, _) = solo.request(theirs, &other);
        solo.play(2);
        let conns = [solo.greeted(ALL, Some("boot")), solo.greeted(ALL, Some("boot"))];
        assert_eq!(notify(&mut solo, conns[1], WORD)["kind"], "ack");
        let query = solo.envelope("query", json!({"question":WORD}));
        solo.request(conns[1], &query);
        let delegate = solo.envelope("delegate", json!({"task":WORD}));
        assert_eq!(solo.ask(conns[1], &delegate)["payload"]["state"], "queued");
        let send = |req_id: &str, kind: &str, payload: Value, hold: Value| {
            let (to, payload) = (id(2), payload);
            json!({"cmd":"send","req_id":req_id,"to":to,"kind":kind,"payload":payload,"hold_secs":hold})
        };
        let effects = solo.say(agent, &send("q", "query", json!({"question":"q"}), json!(null)));
        let asked = sent(&effects);
        solo.say(agent, &send("h1", "notify", json!({"topic":"t","data":1}), json!(60)));
        solo.say(agent, &send("h2", "notify", json!({"topic":"t","data":2}), json!(60)));

        solo.stall = true;
        let owner = solo.client();
        let effects = solo.say(owner, &command);
        let mut closed = closes(&effects);
        closed.sort_unstable();
        assert_eq!(closed, [(conns[0], 0), (conns[1], 0)]);
        let at = |of: fn(&Effect) -> bool| effects.iter().position(of).unwrap();
        let published = at(|effect| matches!(effect, Effect::Pins(_)));
        assert!(
            published < at(|effect| matches!(effect, Effect::Close { .. })),
            "refused before it is closed"
        );
        let pinned = pins(&effects).unwrap();
        let held = (pinned.keys.contains_key(&agent_id(2)), pinned.blocked.contains(&agent_id(2)));
        assert_eq!((held, pinned.keys.len()), ((false, blocked), 1));
        let told = lines(&effects, agent);
        let reply = |req_id: &str| told.iter().find(|line| line["req_id"] == req_id);
        assert_eq!(reply("q").unwrap()["error"], "peer_unreachable");
        let gone = told.iter().find(|line| line["event"] == "withdrawn").unwrap();
        assert_eq!((&gone["ref"], &gone["reason"]), (&query["id"], &json!("peer_gone")));

        // Every step waits for the one before, and the reply for all of them.
        let purge = |effect: &Effect| matches!(effect, Effect::Purge { peer, .. } if *peer == agent_id(2));
        let disk = |effect: &Effect| matches!(effect, Effect::Commit { .. } | Effect::Read { .. });
        let file = |effect: &Effect| matches!(effect, Effect::Contacts { .. });
        assert_eq!(effects.iter().filter(|effect| purge(effect)).count(), 1);
        let late = [solo.let_go(disk), solo.let_go(purge), solo.let_go(disk)].concat();
        assert!(lines(&late, owner).is_empty() && solo.contacts.contacts.is_empty(), "{late:?}");
        let effects = solo.let_go(file);
        assert_eq!(lines(&effects, owner)[0]["agent_id"], id(2), "{effects:?}");
        assert_eq!(lines(&effects, owner)[0]["ok"], true);
        let of_file: Vec<(AgentId, Level)> =
            solo.contacts.contacts.iter().map(|contact| (contact.agent_id, contact.level)).collect();
        assert_eq!(of_file, if blocked { vec![(agent_id(2), Level::Blocked)] } else { vec![] });
        solo.go_on();

        // What still comes is not heard.
        let mut effects = Vec::new();
        for conn in conns {
            let late = solo.envelope("query", json!({"question":WORD}));
            effects.extend(solo.request(conn, &late).1);
            let late = solo.envelope("notify", json!({"topic":WORD,"data":1}));
            effects.extend(solo.one_way(conn, &late));
            effects.extend(solo.feed(Input::Disconnected { conn, why: WORD.into() }));
        }
        let mut answer = solo.envelope("response", json!({"data":null,"summary":WORD}));
        answer["ref"] = asked.1["id"].clone();
        let outcome = Ok(answer.to_string().into_bytes());
        effects.extend(solo.feed(Input::Replied { token: asked.0, outcome }));
        effects.extend(solo.wait(20_000));
        effects.extend(solo.say(agent, &json!({"cmd":"subscribe","req_id":"again","kinds":["notify"]})));
        assert!(!format!("{effects:?}").contains(WORD), "{effects:?}");
        let dialled = |effect: &Effect| matches!(effect, Effect::Dial { peer, .. } if *peer == agent_id(2));
        assert!(!effects.iter().any(dialled));
        assert!(inbox(&mut solo).iter().all(|row| row["envelope"]["from"] == id(3).as_str()));
        let outbox = solo.owned(json!({"cmd":"outbox"}));
        let states: Vec<&str> =
            outbox["outbox"].as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["refused", "refused"]);
        let ledger = solo.owned(json!({"cmd":"delegations"}));
        assert_eq!(ledger["delegations"], json!([]), "the work that it gave is forgotten with its words");
        let reply =
            json!({"cmd":"reply","req_id":"4","ref":query["id"],"kind":"response","payload":{"summary":"s"}});
        assert_eq!(lines(&solo.say(agent, &reply), agent)[0]["error"], "not_found");
        // Others go on.
        let reply =
            json!({"cmd":"reply","req_id":"5","ref":other["id"],"kind":"response","payload":{"summary":"s"}});
        let effects = solo.say(agent, &reply);
        assert_eq!(answer_on(&effects, other_stream).unwrap()["kind"], "response");
        let row = solo.audit.iter().find(|row| row.peer == Some(agent_id(2))).unwrap();
        let expected = if blocked { (Event::Trust, "blocked") } else { (Event::Forget, "command") };
        assert_eq!((row.event, &*row.rule), expected);
    }
}

// shows: TRUST-OUT-3
#[test]
fn the_words_of_who_is_out_are_in_no_list() {
    for command in [blocks(2), forgets(2)] {
        let mut solo = Solo::with(1, 2, |settings| settings.knock.open = true);
        solo.trust(2, "known");
        let conn = solo.greeted(ALL, None);
        let agent = solo.client();
        let say = |solo: &mut Solo, kind: &str, payload: Value, hold: Value| {
            let command = json!({"cmd":"send","req_id":"x","to":id(2),"kind":kind,"payload":payload,
                "hold_secs":hold});
            sent(&solo.say(agent, &command))
        };
        let refuse = |solo: &mut Solo, (token, request): (Token, Value)| {
            let error = json!({"code":"not_authorized","message":WORD,"retryable":false});
            let mut error = solo.envelope("error", error);
            error["ref"] = request["id"].clone();
            solo.feed(Input::Replied { token, outcome: Ok(error.to_string().into_bytes()) });
        };
        // In the inbox, the ledger (given and taken), the outbox.
        assert_eq!(notify(&mut solo, conn, WORD)["kind"], "ack");
        let delegate = solo.envelope("delegate", json!({"task":WORD}));
        solo.ask(conn, &delegate);
        let given = say(&mut solo, "delegate", json!({"task":"ours"}), json!(null));
        let mut result = solo.envelope("result", json!({"status":"completed","outcome":WORD}));
        result["ref"] = given.1["id"].clone();
        assert_eq!(solo.ask(conn, &result)["kind"], "ack");
        let refused = say(&mut solo, "delegate", json!({"task":"ours"}), json!(null));
        refuse(&mut solo, refused);
        let held = say(&mut solo, "notify", json!({"topic":"t","data":1}), json!(60));
        refuse(&mut solo, held);
        solo.owned(command);
        for command in ["inbox", "delegations", "outbox", "knocks", "contacts", "status"] {
            let reply = solo.owned(json!({"cmd":command}));
            assert!(!reply.to_string().contains(WORD), "{command}: {reply}");
        }
    }
}

// shows: TRUST-OUT-4
#[test]
fn what_is_being_written_when_its_sender_is_blocked_is_never_shown() {
    for again in [false, true] {
        let mut solo = Solo::new(1, 2);
        solo.feed(Input::Start);
        let agent = solo.client();
        solo.say(agent, &json!({"cmd":"subscribe","req_id":"s","answer":["delegate"],"kinds":["notify"]}));
        let conn = solo.greeted(ALL, None);
        solo.stall = true;
        let notify = solo.envelope("notify", json!({"topic":WORD,"data":1}));
        solo.request(conn, &notify);
        let delegate = solo.envelope("delegate", json!({"task":WORD}));
        solo.request(conn, &delegate);
        let (client, owner) = (solo.client(), solo.client());
        let mut effects = solo.say(client, &json!({"cmd":"inbox","req_id":"i"}));
        effects.extend(solo.say(owner, &blocks(2)));
        if again {
            let known = json!({"cmd":"trust","req_id":"t","peer":id(2),"trust":"known"});
            effects.extend(solo.say(owner, &known));
        }
        effects.extend(solo.go_on());
        effects.extend(solo.wait(10_000));
        let told = [lines(&effects, agent), lines(&effects, client)].concat();
        assert!(!format!("{told:?}").contains(WORD), "{told:?}");
        assert_eq!(inbox(&mut solo), Vec::<Value>::new());
        assert_eq!(solo.status()["open_requests"], 0);
        solo.restart();
        assert_eq!(inbox(&mut solo), Vec::<Value>::new());
        assert_eq!(solo.status()["open_requests"], 0);
    }
}

// shows: TRUST-OUT-4, TRUST-OUT-5, IPC-BOX-18, IPC-BOX-9
#[test]
fn rows_of_who_is_out_are_hidden_over_restarts_go_by_and_by_and_are_no_loss() {
    for command in [blocks(2), forgets(2)] {
        let mut solo = Solo::with(1, 2, |settings| settings.peers.push(static_peer(3, None)));
        solo.feed(Input::Start);
        let conn = solo.greeted(ALL, None);
        solo.play(3);
        let other = solo.greeted(ALL, None);
        for n in 0..400 {
            solo.play(2);
            assert_eq!(notify(&mut solo, conn, WORD)["kind"], "ack");
            solo.play(3);
            if n % 100 == 0 {
                assert_eq!(notify(&mut solo, other, "others")["kind"], "ack");
            }
        }
        // Nothing is read any more before the daemon ends by accident.
        solo.stall = true;
        let owner = solo.client();
        solo.say(owner, &command);
        let effects = solo.let_go(|effect| !matches!(effect, Effect::Read { .. }));
        assert_eq!(lines(&effects, owner)[0]["ok"], true);
        solo.stall = false;
        let topics = |solo: &mut Solo| {
            let rows = inbox(solo).into_iter();
            rows.map(|row| row["envelope"]["payload"]["topic"].clone()).collect::<Vec<Value>>()
        };
        assert_eq!(topics(&mut solo), ["others"; 4]);
        // The daemon's settings do not have it any more.
        solo.settings.peers.retain(|peer| peer.agent_id == agent_id(3));
        solo.restart();
        assert_eq!(topics(&mut solo), ["others"; 4]);
        let reader = solo.client();
        let told = lines(&solo.say(reader, &json!({"cmd":"subscribe","req_id":"s"})), reader);
        let of_them = told.iter().filter(|line| line["event"] == "inbound").count();
        assert_eq!((of_them, told.last().unwrap()["lost_before_seq"].is_null()), (4, true), "{told:?}");
        // They have left the disk as well.
        solo.wait(10_000);
        assert_eq!(solo.status()["inbox_unread"], 4);
        solo.restart();
        assert_eq!(solo.status()["inbox_unread"], 4);
        // Whoever is let in again begins anew.
        let contact = Contact { level: Level::Known, ..contact(2) };
        solo.contacts.contacts = vec![contact];
        let file = solo.contacts.clone();
        solo.feed(Input::Contacts(file));
        solo.play(2);
        let conn = solo.greeted(ALL, None);
        assert_eq!(notify(&mut solo, conn, "anew")["kind"], "ack");
        assert_eq!(topics(&mut solo), ["others", "others", "others", "others", "anew"]);
    }
}

fn contact(n: u8) -> Contact {
    Contact {
        agent_id: agent_id(n),
        pubkey: Some(PublicKey([n; 32])),
        addrs: vec!["192.0.2.1:7100".into()],
        level: Level::Known,
        name: None,
        since_ms: 0,
        why: None,
        expiry_ms: None,
        paused: false,
    }
}

// shows: TRUST-OUT-6, WF-PEER-7, TRUST-STR-2
#[test]
fn who_was_forgotten_is_not_found_again_in_the_same_run_and_who_is_blocked_never() {
    let mut solo = Solo::new(1, 2);
    solo.feed(Input::Start);
    for n in [3, 4] {
        solo.found(n);
    }
    for n in [2, 3] {
        solo.owned(forgets(n));
    }
    solo.owned(blocks(4));
    solo.owned(blocks(5));
    let rows = |solo: &mut Solo| (2..6).filter(|n| peer_row(solo, *n).is_some()).collect::<Vec<u8>>();
    for n in 2..6 {
        assert_eq!(solo.found(n), []);
    }
    assert_eq!(rows(&mut solo), Vec::<u8>::new());
    let (reply, _) = solo.owner(forgets(3));
    assert_eq!(reply["error"], "peer_not_found", "there is nothing to forget");
    solo.settings.peers.clear();
    solo.restart();
    for n in 2..6 {
        solo.found(n);
    }
    assert_eq!(rows(&mut solo), [2, 3]);
    let row = peer_row(&mut solo, 2).unwrap();
    assert_eq!((&row["trust"], &row["source"]), (&json!("unknown"), &json!("mdns")));
    // Who is blocked can be forgotten, and is then nobody.
    solo.owned(forgets(4));
    assert_eq!(solo.owned(json!({"cmd":"contacts"}))["contacts"].as_array().unwrap().len(), 1);
    solo.restart();
    solo.found(4);
    assert_eq!(rows(&mut solo), [4]);
}

// Who is blocked is purged from the clients' queues by what each line says of itself.
// shows: TRUST-OUT-3
#[test]
fn every_line_that_carries_a_peers_words_says_whose_they_are() {
    let mut solo = Solo::with(1, 2, |settings| settings.knock.open = true);
    let v1 = ClientId(solo.fresh());
    solo.feed(Input::ClientUp { client: v1, trusted: true, socket: None });
    let agent = solo.client();
    let mut all = solo.say(agent, &json!({"cmd":"subscribe","req_id":"s"}));
    all.extend(solo.say(agent, &json!({"cmd":"delegations","req_id":"w","watch":true})));
    let conn = solo.accept();
    let mut hello = Solo::hello_payload(ALL, None);
    hello["agent_name"] = WORD.into();
    let hello = solo.envelope("hello", hello);
    all.extend(solo.request(conn, &hello).1);
    all.extend(solo.say(agent, &json!({"cmd":"subscribe","req_id":"s","answer":["query","delegate"]})));
    for (kind, payload) in [("notify", json!({"topic":WORD,"data":1})), ("query", json!({"question":WORD}))] {
        let message = solo.envelope(kind, payload);
        all.extend(solo.request(conn, &message).1);
    }
    let delegate = solo.envelope("delegate", json!({"task":WORD}));
    all.extend(solo.request(conn, &delegate).1);
    // What we send, and what is answered: well, badly, by a result.
    let answers = [
        (
            agent,
            "query",
            json!({"question":"q"}),
            json!(null),
            "response",
            json!({"data":null,"summary":WORD}),
        ),
        (v1, "query", json!({"question":"q"}), json!(null), "response", json!({"data":null,"summary":WORD})),
        (agent, "delegate", json!({"task":"t"}), json!(60), "ack", json!({"accepted":false,"reason":WORD})),
        (
            agent,
            "delegate",
            json!({"task":"t"}),
            json!(null),
            "error",
            json!({"code":"cancelled","message":WORD,"retryable":false}),
        ),
        (
            agent,
            "notify",
            json!({"topic":"t","data":1}),
            json!(60),
            "error",
            json!({"code":"not_authorized","message":WORD,"retryable":false}),
        ),
        (
            agent,
            "notify",
            json!({"topic":"t","data":1}),
            json!(null),
            "error",
            json!({"code":"not_authorized","message":WORD,"retryable":false}),
        ),
        (
            agent,
            "notify",
            json!({"topic":"t","data":1}),
            json!(60),
            "error",
            json!({"code":"overloaded","message":WORD,"retryable":true}),
        ),
        (agent, "delegate", json!({"task":"t"}), json!(null), "ack", json!({"accepted":true,"reason":WORD})),
    ];
    for (client, kind, payload, hold, answer, said) in answers {
        let command =
            json!({"cmd":"send","req_id":"x","to":id(2),"kind":kind,"payload":payload,"hold_secs":hold});
        let effects = solo.say(client, &command);
        let (token, request) = sent(&effects);
        all.extend(effects);
        let mut answer = solo.envelope(answer, said);
        answer["ref"] = request["id"].clone();
        all.extend(solo.feed(Input::Replied { token, outcome: Ok(answer.to_string().into_bytes()) }));
        if kind == "delegate" && answer["payload"]["accepted"] == true {
            for (kind, payload) in [
                ("progress", json!({"state":"running","note":WORD})),
                ("result", json!({"status":"completed","outcome":WORD})),
            ] {
                let mut report = solo.envelope(kind, payload);
                report["ref"] = request["id"].clone();
                all.extend(solo.request(conn, &report).1);
            }
        }
    }
    // A stranger who knocks, and one at whom we knock.
    solo.play(9);
    let (stranger, _) = solo.dialled_from("10.0.0.9:1", [0; 32]);
    let hello = solo.envelope("hello", Solo::hello_payload(ALL, None));
    solo.request(stranger, &hello);
    let knock = solo.envelope("knock", json!({"name":WORD,"message":WORD}));
    all.extend(solo.request(stranger, &knock).1);
    let owner = solo.client();
    all.extend(solo.say(owner, &json!({"cmd":"subscribe","req_id":"s"})));
    for command in ["inbox", "outbox", "delegations", "knocks", "peers", "contacts", "status"] {
        all.extend(solo.say(owner, &json!({"cmd":command,"req_id":command})));
    }
    all.extend(solo.feed(Input::Measured { client: owner, req_id: "\"peers\"".into(), rtts: Vec::new() }));
    all.extend(solo.say(owner, &json!({"cmd":"outbox","req_id":"o","to":id(2)})));
    let mut carried = 0;
    let mut untold = Vec::new();
    for effect in &all {
        if let Effect::Line { line, of, .. } = effect
            && line.contains(WORD)
        {
            carried += 1;
            if *of == Of::Us {
                untold.push(line.to_string());
            }
        }
        if let Effect::Event { line, of, .. } = effect {
            assert!(!line.contains(WORD) || *of == agent_id(2), "{line}");
        }
    }
    assert!(carried > 15, "{carried}");
    assert!(
        untold.is_empty(),
        "{} of {carried} lines say that they are our own:\n{}",
        untold.len(),
        untold.join("\n")
    );
}

// shows: WF-0RTT-5, TRUST-OUT-2
#[test]
fn an_early_hello_of_who_is_blocked_or_a_stranger_is_not_answered() {
    let mut solo = Solo::with(1, 2, |settings| settings.knock.open = true);
    for (n, answered) in [(2, true), (3, false), (4, false)] {
        if n == 3 {
            solo.trust(3, "blocked");
        }
        solo.play(n);
        let hello = solo.envelope("hello", Solo::hello_payload(ALL, None)).to_string().into_bytes();
        let stream = StreamId(solo.fresh());
        let effects = solo.feed(Input::EarlyHello { stream, peer: agent_id(n), bytes: hello });
        assert_eq!(answer_on(&effects, stream).is_some(), answered, "{n}");
    }
}

// --- whole nodes ---

/// What the client of one node has been told of another's words.
fn heard(world: &World, at: usize, word: &str) -> usize {
    let lines = world.hosts[at].clients.values().flat_map(|cli| &cli.lines);
    lines.filter(|line| line.to_string().contains(word)).count()
}

// shows: TRUST-OUT-1, TRUST-OUT-3, TRUST-OUT-4, TRUST-OUT-5
#[test]
fn in_a_hundred_rounds_nothing_is_heard_of_who_was_blocked_under_load() {
    let (mut rounds, mut words) = (0, 0);
    for seed in 0..20 {
        let mut world = World::new(seed, 3);
        (0..3).for_each(|at| world.start(at));
        world.run_for(10_000);
        world.agent(0, (1, 40));
        let senders = [1, 2].map(|at| world.client(at));
        let (bad, good) = (world.hosts[1].id, 2);
        for round in 0..5 {
            rounds += 1;
            let word = format!("word-{round}-of-the-bad");
            let mut asked = Vec::new();
            let many = world.rng.range(5, 40);
            for n in 0..many {
                let (kind, payload) = match n % 3 {
                    0 => ("notify", json!({"topic":word,"data":n})),
                    1 => ("query", json!({"question":word})),
                    _ => ("delegate", json!({"task":word})),
                };
                world.send(1, senders[0], 0, kind, payload);
                asked.push(world.query(2, senders[1], 0));
                let pause = world.rng.range(0, 6);
                world.run_for(pause);
            }
            let owner = world.client(0);
            let blocked = json!({"cmd":"trust","req_id":"b","peer":bad,"trust":"blocked"});
            world.say(0, owner, &blocked);
            let reply = world.reply(0, owner, "b", 5_000);
            assert_eq!(reply["ok"], true, "{reply}");
            let before = heard(&world, 0, &word);
            words += before;
            for n in 0..5 {
                world.send(1, senders[0], 0, "notify", json!({"topic":word,"data":n}));
            }
            world.run_for(3_000);
            for command in ["inbox", "delegations", "outbox", "peers", "subscribe"] {
                world.say(0, owner, &json!({"cmd":command,"req_id":command}));
            }
            world.finish_disk(0);
            if round % 2 == 1 {
                world.crash(0);
                world.start(0);
                world.agent(0, (1, 40));
                world.run_for(10_000);
                assert_eq!(heard(&world, 0, &word), 0, "seed {seed}, round {round}\n{}", world.tail());
            } else {
                assert_eq!(heard(&world, 0, &word), before, "seed {seed}, round {round}\n{}", world.tail());
            }
            // The other was served all the time.
            world.run_for(5_000);
            for req_id in asked {
                let reply = world.replies(good, senders[1], &req_id).pop().unwrap_or_default();
                assert_eq!(reply["response"]["kind"], "response", "seed {seed}: {reply}");
            }
            let owner = world.client(0);
            let known = json!({"cmd":"trust","req_id":"k","peer":bad,"trust":"known"});
            world.say(0, owner, &known);
            assert_eq!(world.reply(0, owner, "k", 5_000)["ok"], true);
            assert!(world.run_until(60_000, |w| !w.wires_between(0, 1).is_empty()), "{}", world.tail());
            world.run_for(1_000);
        }
    }
    assert!(rounds == 100 && words > 500, "{rounds} {words}");
}
