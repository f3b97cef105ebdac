//! What the socket refuses, each with its code and a sentence that says what to do, and what else a client is
//! told that it did not ask for. One node, and clients whose every line the test writes.

use axon_proto::limits::{CAPABILITIES_BYTES_MAX, LINE_BYTES_MAX};
use axon_proto::node::{ClientId, Effect, Glance, Input};
use axon_proto::store::ReadOut;
use serde_json::{Value, json};

use crate::net::{Solo, lines};

const ALL: &[&str] =
    &["delegate", "ack", "progress", "result", "cancel", "discover", "capabilities", "receipt"];

/// The error that a command is answered with at once: its code, and what it says.
fn refused(solo: &mut Solo, client: ClientId, mut command: Value) -> (String, String) {
    command["req_id"] = "r".into();
    let told = lines(&solo.say(client, &command), client);
    let reply =
        told.iter().find(|line| line["req_id"] == "r").unwrap_or_else(|| panic!("{command}: {told:?}"));
    assert_eq!(reply["ok"], false, "{command}: {reply}");
    let text = |field: &str| reply[field].as_str().unwrap().to_owned();
    (text("error"), text("message"))
}

fn is_closed(effects: &[Effect], client: ClientId) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::CloseClient { client: one } if *one == client))
}

/// A client that has connected and said nothing.
fn stranger(solo: &mut Solo, trusted: bool) -> (ClientId, Vec<Effect>) {
    let client = ClientId(solo.fresh());
    let effects = solo.feed(Input::ClientUp { client, trusted, socket: None });
    (client, effects)
}

// shows: IPC-SEND-1, IPC-SEND-8, IPC-TO-2, IPC-TO-3
#[test]
fn what_makes_no_message_is_refused_with_what_would() {
    let mut solo = Solo::with(1, 2, |settings| settings.name = Some("me".into()));
    let client = solo.client();
    let (peer, id) = (solo.peer.to_string(), "9c1b2f34-5d6e-4f70-8a91-b2c3d4e5f607");
    let note = json!({"topic":"t","data":1});
    let query = json!({"question":"q"});
    for (command, code, says) in [
        (json!({"to":peer,"kind":"nope","payload":{}}), "invalid_command", "is not known; kinds to send: "),
        (json!({"to":peer,"kind":"ack","payload":{}}), "invalid_command", "is never begun by `send`"),
        (json!({"to":peer,"payload":{}}), "invalid_command", "the field `kind` is missing"),
        (json!({"kind":"notify","payload":note}), "invalid_command", "the field `to` is missing"),
        (json!({"to":"me","kind":"notify","payload":note}), "self_send", "send to another"),
        (json!({"to":peer,"kind":"cancel","payload":{}}), "invalid_command", "the field `ref` is missing"),
        (json!({"kind":"cancel","ref":id,"payload":{}}), "not_found", "no delegation of that id"),
        (json!({"kind":"cancel","ref":"x","payload":{}}), "invalid_command", "the field `ref` is wrong"),
        (
            json!({"to":peer,"kind":"query","payload":query,"hold_secs":5}),
            "invalid_command",
            "a query cannot be held",
        ),
        (
            json!({"to":peer,"kind":"notify","payload":note,"hold_secs":0}),
            "invalid_command",
            "the field `hold_secs` is a number from 1 to ",
        ),
        (
            json!({"to":peer,"kind":"query","payload":query,"read_receipt":true}),
            "invalid_command",
            "`read_receipt` is for notify only",
        ),
    ] {
        let mut command = command;
        command["cmd"] = "send".into();
        let (told, message) = refused(&mut solo, client, command.clone());
        assert!(told == code && message.contains(says), "{command}: {told}: {message}");
    }
}

#[test]
fn what_is_out_of_its_range_is_refused_with_the_range() {
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    let (peer, long) = (solo.peer.to_string(), "x".repeat(65));
    for (command, says) in [
        (json!({"cmd":"inbox","limit":0}), "the field `limit` is a number from 1 to 1000"),
        (json!({"cmd":"outbox","limit":1001}), "the field `limit` is a number from 1 to 1000"),
        (json!({"cmd":"outbox","state":"lost"}), "the field `state` is one of held, sent, "),
        (json!({"cmd":"outbox","id":"x"}), "the field `id` is wrong"),
        (json!({"cmd":"delegations","limit":0}), "the field `limit` is a number from 1 to 1000"),
        (json!({"cmd":"delegations","state":"lost"}), "the field `state` is one of "),
        (json!({"cmd":"delegations","direction":"up"}), "the field `direction` is \"out\" or \"in\""),
        (json!({"cmd":"subscribe","capacity":0}), "the field `capacity` is a number from 1 to 1024"),
        (json!({"cmd":"subscribe","answer":["notify"]}), "the field `answer` lists any of query, "),
        (json!({"cmd":"subscribe","kinds":[""]}), "the field `kinds` lists at most 64 names of 1 to 64"),
        (json!({"cmd":"ack"}), "the field `up_to_seq` is missing"),
        (json!({"cmd":"reply","kind":"response","payload":{}}), "the field `ref` is missing"),
        (json!({"cmd":"hello","version":2,"consumer":""}), "`consumer` is a text of 1 to 64 bytes"),
        (json!({"cmd":"hello","version":2,"consumer":"a\u{7}"}), "`consumer` has no control characters"),
        (json!({"cmd":"policy_check","peer":peer,"kind":"query","direction":"up"}), "the field `direction`"),
        (json!({"cmd":"trust","peer":peer,"trust":"known","expires_secs":0}), "the field `expires_secs`"),
        (json!({"cmd":"invite","trust":"blocked"}), "nobody is invited to be blocked"),
        (json!({"cmd":"invite","label":long}), "the field `label` is at most 64 bytes long"),
        (json!({"cmd":"invite","addrs":["nowhere"]}), "the field `addrs` lists 1 to 8 texts"),
        (json!({"cmd":"invite","uses":0}), "the field `uses` is a number from 1 to 1000"),
        (json!({"cmd":"invite","expires_secs":59}), "the field `expires_secs` is a number from 60 to"),
    ] {
        let (code, message) = refused(&mut solo, client, command.clone());
        assert!(code == "invalid_command" && message.contains(says), "{command}: {code}: {message}");
    }
    // Levels are names, and what is none is not taken for one.
    for level in ["boss", ""] {
        let (code, _) = refused(&mut solo, client, json!({"cmd":"trust","peer":peer,"trust":level}));
        assert_eq!(code, "invalid_command", "{level}");
    }
    let (code, _) = refused(&mut solo, client, json!({"cmd":"revoke_invite","id":"66587864c2f61605"}));
    assert_eq!(code, "not_found");
}

// shows: IPC-AUTH-1, IPC-HEL-1
#[test]
fn who_says_a_wrong_version_or_no_token_is_told() {
    let mut solo = Solo::with(1, 2, |settings| settings.ipc_token = Some("ab".repeat(32)));
    let (client, _) = stranger(&mut solo, false);
    let (code, message) = refused(&mut solo, client, json!({"cmd":"hello","version":0}));
    assert!(code == "unsupported_version" && message.ends_with("ask for version 2"), "{code}: {message}");
    let (code, message) = refused(&mut solo, client, json!({"cmd":"auth"}));
    assert_eq!((code.as_str(), message.as_str()), ("invalid_command", "the field `token` is missing"));

    // Where version 1 is not served, such a word is the last.
    solo.set(|settings| settings.allow_v1 = false);
    let (client, _) = stranger(&mut solo, true);
    let effects = solo.say(client, &json!({"cmd":"hello","req_id":"r","version":1}));
    assert_eq!(lines(&effects, client)[0]["error"], "unsupported_version");
    assert!(is_closed(&effects, client));
}

// shows: IPC-SOCK-3
#[test]
fn one_client_too_many_is_told_so_and_closed() {
    let mut solo = Solo::with(1, 2, |settings| settings.max_ipc_clients = 2);
    let first = solo.client();
    solo.client();
    let (third, effects) = stranger(&mut solo, true);
    let told = lines(&effects, third);
    assert_eq!((&told[0]["ok"], &told[0]["error"]), (&json!(false), &json!("too_many_clients")));
    assert!(told[0]["message"].as_str().unwrap().starts_with("all 2 client places are taken"));
    assert!(is_closed(&effects, third));
    solo.feed(Input::ClientGone { client: first });
    let (fourth, effects) = stranger(&mut solo, true);
    assert!(!is_closed(&effects, fourth) && lines(&effects, fourth).is_empty(), "{effects:?}");
}

// shows: IPC-LINE-2, IPC-LINE-4
#[test]
fn a_line_that_is_too_long_or_none_is_told_in_the_clients_own_version() {
    let mut solo = Solo::new(1, 2);
    let (new, (old, _)) = (solo.client(), stranger(&mut solo, true));
    for (client, code) in [(new, "command_too_large"), (old, "invalid_command")] {
        let told = lines(&solo.feed(Input::LineTooLong { client }), client);
        assert_eq!(told[0]["error"], code);
        assert!(told[0]["message"].as_str().unwrap().contains(&LINE_BYTES_MAX.to_string()));
    }
    for line in ["[]", "{", "\u{fffd}", r#"{"req_id":"1"}"#, r#"{"cmd":"dance","req_id":"1"}"#] {
        let effects = solo.feed(Input::Line { client: new, line: line.as_bytes().to_vec() });
        let told = lines(&effects, new);
        assert_eq!((told.len(), &told[0]["error"]), (1, &json!("invalid_command")), "{line}: {told:?}");
        assert!(!is_closed(&effects, new));
    }
}

// shows: IPC-V1-5, IPC-SLOW-1
#[test]
fn who_reads_too_slowly_is_told_or_closed_by_its_version() {
    let mut solo = Solo::new(1, 2);
    let (new, (old, _)) = (solo.client(), stranger(&mut solo, true));
    solo.say(old, &json!({"cmd":"status"}));
    let effects = solo.feed(Input::Lagged { client: old, seq: 7 });
    assert_eq!(lines(&effects, old)[0]["error"], "slow_consumer");
    assert!(is_closed(&effects, old));
    let effects = solo.feed(Input::Lagged { client: new, seq: 7 });
    let told = lines(&effects, new);
    assert_eq!((&told[0]["event"], &told[0]["resume_from_seq"]), (&json!("slow_consumer"), &json!(7)));
    assert!(!is_closed(&effects, new));
    // Once is enough, until it has caught up.
    assert_eq!(solo.feed(Input::Lagged { client: new, seq: 8 }), []);
}

// shows: IPC-REL-1
#[test]
fn what_was_read_again_is_told_when_it_holds_or_why_not() {
    let mut solo = Solo::new(1, 2);
    let client = solo.client();
    for (outcome, ok) in [(Ok(String::new()), true), (Err("config.toml, line 3".to_owned()), false)] {
        solo.stall = true;
        let effects = solo.say(client, &json!({"cmd":"reload","req_id":"r"}));
        assert_eq!(lines(&effects, client), Vec::<Value>::new(), "not before it is done");
        let job = effects.iter().find_map(|effect| match effect {
            Effect::Reload { job } => Some(*job),
            _ => None,
        });
        let job = job.unwrap();
        let told = lines(&solo.feed(Input::Done { job, outcome }), client);
        assert_eq!((&told[0]["req_id"], &told[0]["ok"]), (&json!("r"), &json!(ok)), "{told:?}");
        assert!(ok || told[0]["message"].as_str().unwrap().contains("line 3"));
    }
}

// shows: IPC-BOX-13
#[test]
fn what_cannot_be_read_from_the_disk_is_told_as_that() {
    let mut solo = Solo::new(1, 2);
    let conn = solo.greeted(ALL, None);
    let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
    assert_eq!(solo.ask(conn, &notify)["kind"], "ack");
    let client = solo.client();
    for command in [json!({"cmd":"inbox"}), json!({"cmd":"subscribe","kinds":["notify"]})] {
        for out in [ReadOut::Failed("input/output error".into()), ReadOut::Count(3)] {
            solo.stall = true;
            let mut command = command.clone();
            command["req_id"] = "r".into();
            assert_eq!(lines(&solo.say(client, &command), client), Vec::<Value>::new());
            let id = solo.stalled.drain(..).find_map(|job| match job {
                Effect::Read { id, .. } => Some(id),
                _ => None,
            });
            let told = lines(&solo.feed(Input::ReadDone { id: id.unwrap(), out }), client);
            assert_eq!((&told[0]["req_id"], &told[0]["error"]), (&json!("r"), &json!("internal_error")));
            assert!(told[0]["message"].as_str().unwrap().contains("axon doctor"), "{told:?}");
            solo.stall = false;
        }
    }
    // It is there as soon as the disk is.
    let told = lines(&solo.say(client, &json!({"cmd":"inbox","req_id":"i"})), client);
    assert_eq!(told[0]["messages"].as_array().unwrap().len(), 1, "{told:?}");
}

#[test]
fn who_started_the_daemon_sees_it_in_three_figures() {
    let mut solo = Solo::new(1, 2);
    assert_eq!(solo.node.glance(), Glance { peers: 0, clients: 0, paused: false });
    solo.greeted(ALL, None);
    // A second connection of the same peer is no second peer.
    solo.greeted(ALL, None);
    solo.client();
    solo.owned(json!({"cmd":"pause"}));
    assert_eq!(solo.node.glance(), Glance { peers: 1, clients: 1, paused: true });
    assert_eq!(solo.node.id(), solo.me);
}

// shows: IPC-ADV-1, IPC-ADV-2, IPC-ADV-3, IPC-ADV-4, IPC-ADV-5
#[test]
fn what_agents_advertise_is_merged_and_what_is_lasting_outlives_the_daemon() {
    let mut solo = Solo::with(1, 2, |settings| settings.name = Some("me".into()));
    let conn = solo.greeted(ALL, None);
    let said = |solo: &mut Solo, conn| {
        let discover = solo.envelope("discover", json!({}));
        solo.ask(conn, &discover)["payload"].clone()
    };
    let advert = |solo: &mut Solo, client: ClientId, persist: bool, capabilities: Value| {
        let command = json!({"cmd":"advertise","req_id":"a","persist":persist,"capabilities":capabilities});
        lines(&solo.say(client, &command), client).remove(0)
    };
    let (one, other) = (solo.client(), solo.client());
    solo.say(other, &json!({"cmd":"hello","req_id":"h","version":2,"consumer":"other"}));
    let first = json!({"domains":["a","b"],"max_concurrent_tasks":2,"model":"first","agent_name":"x"});
    assert_eq!(advert(&mut solo, one, false, first)["advertised"], true);
    let second = json!({"domains":["b","c"],"max_concurrent_tasks":3,"model":"second"});
    assert_eq!(advert(&mut solo, other, true, second)["advertised"], true);
    let merged = said(&mut solo, conn);
    assert_eq!(merged["domains"], json!(["a", "b", "c"]));
    assert_eq!(
        (&merged["max_concurrent_tasks"], &merged["model"], &merged["agent_name"]),
        (&json!(5), &json!("first"), &json!("x"))
    );

    // The lasting one is there without its client, and after a restart; the other is not.
    solo.restart();
    let conn = solo.greeted(ALL, None);
    let lasting = said(&mut solo, conn);
    assert_eq!((&lasting["domains"], &lasting["agent_name"]), (&json!(["b", "c"]), &json!("me")));

    // What the disk refuses is not there; an empty object takes one back.
    let other = solo.client();
    solo.say(other, &json!({"cmd":"hello","req_id":"h","version":2,"consumer":"other"}));
    solo.disk_full = true;
    assert_eq!(advert(&mut solo, other, true, json!({}))["ok"], false);
    solo.disk_full = false;
    assert_eq!(said(&mut solo, conn)["domains"], json!(["b", "c"]));
    assert_eq!(advert(&mut solo, other, true, json!({}))["ok"], true);
    assert_eq!(said(&mut solo, conn).get("domains"), None);

    // Sixty-four have one, and each of these may still change it.
    for n in 0..64 {
        let command = json!({"cmd":"hello","req_id":"h","version":2,"consumer":format!("c{n}")});
        solo.say(other, &command);
        assert_eq!(advert(&mut solo, other, true, json!({"domains":["d"]}))["ok"], true, "{n}");
    }
    assert_eq!(advert(&mut solo, other, true, json!({"domains":["e"]}))["ok"], true);
    solo.say(other, &json!({"cmd":"hello","req_id":"h","version":2,"consumer":"one more"}));
    assert_eq!(advert(&mut solo, other, true, json!({"domains":["d"]}))["error"], "overloaded");

    let long = json!({"model":"x".repeat(CAPABILITIES_BYTES_MAX)});
    let (code, message) = refused(&mut solo, other, json!({"cmd":"advertise","capabilities":long}));
    assert!(code == "invalid_command" && message.contains("16384 bytes"), "{code}: {message}");
}
