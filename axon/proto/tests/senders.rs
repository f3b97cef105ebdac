//! What agents and the owner are told of who sends: level and name in events and rows, whom names mean, how
//! much of the inbox is for whom, and what the audit log counts. One node, and peers whose every message the
//! test writes itself.

use axon_proto::audit::{Event, Row};
use axon_proto::id::{AgentId, PublicKey};
use axon_proto::limits;
use axon_proto::node::{ConnId, Effect, Input, KnownPeer, StaticPeer, Token};
use serde_json::{Value, json};

use crate::net::{Solo, WALL_MS, lines};

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

fn code(answer: &Value) -> &str {
    assert_eq!(answer["kind"], "error", "{answer}");
    answer["payload"]["code"].as_str().unwrap()
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

// --- what agents are told of who sends ---

// shows: TRUST-LEV-1, TRUST-LEV-3, IPC-FROM-1, TRUST-CON-5
#[test]
fn events_rows_and_offers_say_how_far_their_sender_is_trusted_and_what_it_is_called() {
    let mut solo = Solo::with(1, 2, |settings| {
        settings.peers[0].name = Some("anna".into());
        settings.peers.extend([static_peer(3, None), static_peer(4, None), static_peer(5, Some("old"))]);
    });
    solo.found(6);
    solo.trust(4, "trusted");
    solo.owned(json!({"cmd":"trust","peer":id(5),"trust":"unknown","name":"eve"}));
    let agent = solo.client();
    solo.say(agent, &json!({"cmd":"subscribe","req_id":"s","answer":["query"],"kinds":["notify"]}));
    for (n, claims, trust, name, claimed) in [
        (2, Some("other"), "known", json!("anna"), json!(null)),
        (3, Some("bob"), "known", json!("bob"), json!(true)),
        (4, None, "trusted", json!(null), json!(null)),
        (5, Some("other"), "unknown", json!("eve"), json!(null)),
        (6, Some("anna"), "unknown", json!("anna"), json!(true)),
    ] {
        solo.play(n);
        let conn = solo.accept();
        let mut hello = Solo::hello_payload(ALL, None);
        hello["agent_name"] = json!(claims);
        let hello = solo.envelope("hello", hello);
        solo.ask(conn, &hello);
        let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
        let mut told = lines(&solo.one_way(conn, &notify), agent);
        let query = solo.envelope("query", json!({"question":"q"}));
        told.extend(lines(&solo.request(conn, &query).1, agent));
        told.extend(inbox(&mut solo).into_iter().filter(|row| row["envelope"]["from"] == id(n).as_str()));
        assert_eq!(told.len(), 4, "the event, the offer, and both rows: {told:?}");
        for line in told {
            let said = (&line["trust"], &line["from_name"], &line["claimed"]);
            assert_eq!(said, (&json!(trust), &name, &claimed), "{n}: {line}");
        }
        let row = peer_row(&mut solo, n).unwrap();
        assert_eq!((&row["trust"], &row["name"], &row["claimed"]), (&json!(trust), &name, &claimed));
    }
    // It is what holds when the line is made.
    solo.owned(json!({"cmd":"trust","peer":id(6),"trust":"trusted","name":"frida"}));
    let rows = inbox(&mut solo);
    let row = rows.iter().find(|row| row["envelope"]["from"] == id(6).as_str()).unwrap();
    assert_eq!(
        (&row["trust"], &row["from_name"], &row["claimed"]),
        (&"trusted".into(), &"frida".into(), &json!(null))
    );
}

// shows: TRUST-LEV-4, IPC-TO-1, IPC-TO-4
#[test]
fn claimed_names_and_prefixes_mean_known_and_trusted_peers_only() {
    let mut solo = Solo::with(1, 2, |settings| settings.peers.push(static_peer(3, None)));
    solo.trust(3, "trusted");
    solo.found(4);
    solo.found(5);
    solo.owned(json!({"cmd":"trust","peer":id(5),"trust":"unknown","name":"eve"}));
    solo.owned(json!({"cmd":"trust","peer":id(6),"trust":"blocked","name":"mallory"}));
    let digits = |n: u8| id(n)[8..14].to_owned();
    for (n, name) in [(2, "bob".to_owned()), (3, "carol".to_owned()), (4, digits(2)), (5, "bob".to_owned())] {
        solo.play(n);
        let conn = solo.accept();
        let mut hello = Solo::hello_payload(ALL, None);
        hello["agent_name"] = name.into();
        let hello = solo.envelope("hello", hello);
        solo.ask(conn, &hello);
    }
    for (text, means) in [
        (id(4), Ok(4)),
        ("bob".into(), Ok(2)),
        ("carol".into(), Ok(3)),
        ("eve".into(), Ok(5)),
        (digits(2), Ok(2)),
        (format!("ED25519.{}", digits(3).to_uppercase()), Ok(3)),
        (digits(4), Err("peer_not_found")),
        (id(4)[..39].to_owned(), Err("peer_not_found")),
        (digits(5), Err("peer_not_found")),
        ("mallory".into(), Err("not_authorized")),
        (digits(6), Err("not_authorized")),
        (id(6), Err("not_authorized")),
        (id(7), Err("peer_not_found")),
        (digits(1), Err("self_send")),
    ] {
        let (reply, effects) = solo.owner(json!({"cmd":"send","to":text,"kind":"ping","payload":{}}));
        match means {
            Ok(n) => assert_eq!(sent(&effects).1["to"], id(n).as_str(), "{text}"),
            Err(error) => assert_eq!(reply["error"], error, "{text}: {reply}"),
        }
    }
    // The owner's own commands reach who is blocked, and any whole id.
    for (text, n) in [("mallory".to_owned(), 6), (id(6), 6), (id(7), 7)] {
        let reply = solo.owned(json!({"cmd":"trust","peer":text,"trust":"blocked"}));
        assert_eq!(reply["agent_id"], id(n).as_str());
    }
    let (reply, _) = solo.owner(json!({"cmd":"trust","peer":id(7),"trust":"known"}));
    assert_eq!(reply["error"], "peer_not_found", "its key is not known");
}

// --- how much of the inbox is for whom ---

// shows: TRUST-POL-7, IPC-BOX-17
#[test]
fn unread_rows_of_unknown_peers_take_at_most_a_quarter_of_the_inbox() {
    let mut solo = Solo::with(1, 2, |settings| {
        settings.buffer_size = 40;
        settings.policies.unknown.messages_per_minute = 0;
        settings.policies.unknown.level_messages_per_minute = 0;
    });
    solo.feed(Input::Start);
    let mut conns = Vec::new();
    for n in [3, 4, 2] {
        solo.found(n);
        solo.play(n);
        conns.push((n, solo.greeted(ALL, None)));
    }
    let tell = |solo: &mut Solo, (n, conn): (u8, ConnId), times: usize| {
        solo.play(n);
        (0..times).filter(|_| notify(solo, conn, "t")["kind"] == "ack").count()
    };
    assert_eq!((tell(&mut solo, conns[0], 6), tell(&mut solo, conns[1], 6)), (6, 4));
    let over = notify(&mut solo, conns[1].1, "t");
    assert_eq!(code(&over), "overloaded");
    // What asks for no receipt has no more room, and their numbers outlive the daemon.
    let unasked = solo.envelope("notify", json!({"topic":"t","data":1}));
    let before = solo.dropped("over_limit");
    solo.one_way(conns[1].1, &unasked);
    assert_eq!(solo.dropped("over_limit"), before + 1);
    solo.known = [3, 4].map(known).into();
    solo.restart();
    let mut again = Vec::new();
    for n in [3, 4, 2] {
        solo.play(n);
        again.push((n, solo.greeted(ALL, None)));
    }
    assert_eq!((tell(&mut solo, again[0], 1), tell(&mut solo, again[1], 1)), (0, 0));
    assert_eq!(tell(&mut solo, again[2], 60), 30, "those who are known have the rest");
    // One that is known by now is among those; one that is not has room again once somebody has read.
    solo.trust(3, "known");
    let rows = inbox(&mut solo);
    assert_eq!(rows.len(), 40);
    let reader = solo.client();
    solo.say(reader, &json!({"cmd":"inbox","req_id":"i","limit":40}));
    solo.say(reader, &json!({"cmd":"ack","req_id":"a","up_to_seq":rows[39]["seq"]}));
    solo.wait(limits::SWEEP_INTERVAL_MS);
    assert_eq!((tell(&mut solo, again[0], 12), tell(&mut solo, again[1], 12)), (12, 10));
}

fn known(n: u8) -> KnownPeer {
    let addrs = vec!["192.0.2.9:7100".parse().unwrap()];
    KnownPeer { agent_id: agent_id(n), pubkey: PublicKey([n; 32]), addrs, last_seen_ms: WALL_MS }
}

// --- the audit log ---

// shows: TRUST-AUD-1, TRUST-AUD-2
#[test]
fn a_flood_is_a_row_at_once_and_one_a_minute_and_nothing_that_anybody_said() {
    let mut solo = Solo::new(1, 2);
    solo.trust(2, "unknown");
    let conn = solo.greeted(ALL, Some("boot"));
    solo.audit.clear();
    let flood = |solo: &mut Solo, times: usize| {
        for _ in 0..times {
            let delegate = solo.envelope("delegate", json!({"task":"a-word"}));
            assert_eq!(code(&solo.ask(conn, &delegate)), "not_authorized");
        }
    };
    let start_ms = WALL_MS + solo.now;
    flood(&mut solo, 100);
    let counts = |rows: &[Row]| rows.iter().map(|row| row.count).collect::<Vec<u64>>();
    assert_eq!(counts(&solo.audit), [1]);
    solo.wait(30_000);
    flood(&mut solo, 100);
    solo.wait(40_000);
    flood(&mut solo, 50);
    assert_eq!(counts(&solo.audit), [1, 199]);
    let repeats = &solo.audit[1];
    assert_eq!((repeats.at_ms, repeats.until_ms), (start_ms, Some(start_ms + 30_000)));
    solo.feed(Input::Stop);
    assert_eq!(counts(&solo.audit), [1, 199, 50]);
    for row in &solo.audit {
        let said = (row.event, row.peer, row.socket.as_deref(), &*row.rule);
        assert_eq!(said, (Event::Refused, Some(agent_id(2)), None, "policy.unknown.kinds"));
        assert!(!serde_json::to_string(row).unwrap().contains("a-word"));
    }
}

// shows: TRUST-AUD-3
#[test]
fn keys_that_nobody_knows_are_counted_together_and_known_ones_by_themselves() {
    let mut solo = Solo::new(1, 2);
    solo.trust(3, "blocked");
    solo.audit.clear();
    for n in 0..2_000_u32 {
        let mut id = [9; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        solo.feed(Input::HandshakeRefused { id: AgentId(id) });
        solo.feed(Input::HandshakeRefused { id: agent_id(3) });
    }
    solo.wait(120_000);
    let of = |peer: Option<AgentId>, rule: &str| {
        let rows = solo.audit.iter().filter(|row| row.peer == peer && &*row.rule == rule);
        let rows: Vec<u64> = rows.map(|row| row.count).collect();
        (rows.len(), rows.iter().sum::<u64>())
    };
    assert_eq!(of(None, "not_pinned"), (2, 2_000));
    assert_eq!(of(Some(agent_id(3)), "contacts.level"), (2, 2_000));
    assert_eq!(solo.audit.len(), 4);
}
