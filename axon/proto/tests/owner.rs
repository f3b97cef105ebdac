//! What the owner says, and what must hold over restarts, changed files and new keys: tokens, levels,
//! invites, delegations, shares of a scoped socket. One node, and peers whose every message the test writes
//! itself.

use axon_proto::contacts::{Contact, ContactsFile};
use axon_proto::id::{AgentId, PublicKey};
use axon_proto::invite::{Link, Secret};
use axon_proto::limits::READ_WAITING_MAX;
use axon_proto::node::{ClientId, ConnId, DialId, Effect, Input, StaticPeer, StreamId, Token};
use axon_proto::trust::Level;
use serde_json::{Value, json};

use crate::net::{Solo, WALL_MS, answer_on, closes, lines};

const ALL: &[&str] = &[
    "delegate",
    "ack",
    "progress",
    "result",
    "cancel",
    "discover",
    "capabilities",
    "receipt",
    "knock",
    "rekey",
];

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn agent_id(n: u8) -> AgentId {
    key(n).agent_id()
}

fn code(answer: &Value) -> &str {
    assert_eq!(answer["kind"], "error", "{answer}");
    answer["payload"]["code"].as_str().unwrap()
}

fn contact(n: u8, level: Level) -> Contact {
    Contact {
        agent_id: agent_id(n),
        pubkey: Some(key(n)),
        addrs: vec!["192.0.2.2:7100".into()],
        level,
        name: None,
        since_ms: 5,
        why: None,
        expiry_ms: None,
        paused: false,
    }
}

/// A node that knows these peers from its contacts.
fn knowing(contacts: Vec<Contact>) -> Solo {
    let mut solo = Solo::with(1, 2, |settings| {
        settings.peers.clear();
        settings.knock.accept_rekey = true;
    });
    solo.contacts.contacts = contacts;
    solo.restart();
    solo
}

fn send(to: AgentId, kind: &str, payload: Value) -> Value {
    json!({"cmd":"send","req_id":kind,"to":to,"kind":kind,"payload":payload})
}

/// The requests that went out.
fn sent(effects: &[Effect]) -> Vec<(ConnId, Token, Value)> {
    let request = |effect: &Effect| match effect {
        Effect::Request { conn, token, bytes } => Some((*conn, *token, serde_json::from_str(bytes).unwrap())),
        _ => None,
    };
    effects.iter().filter_map(request).collect()
}

fn replies(solo: &mut Solo, token: Token, to: &Value, kind: &str, payload: Value) -> Vec<Effect> {
    let mut answer = solo.envelope(kind, payload);
    answer["ref"] = to["id"].clone();
    solo.feed(Input::Replied { token, outcome: Ok(answer.to_string().into_bytes()) })
}

fn listed(solo: &mut Solo, cmd: &str, field: &str) -> Vec<Value> {
    solo.owned(json!({"cmd":cmd}))[field].as_array().unwrap().clone()
}

fn notify(solo: &mut Solo, conn: ConnId, topic: &str) -> Value {
    let notify = solo.envelope("notify", json!({"topic":topic,"data":1}));
    solo.ask(conn, &notify)
}

/// The first dial to the agent with the key of `n`: its number and addresses.
fn dial_of(effects: &[Effect], n: u8) -> Option<(DialId, Vec<String>)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Dial { dial, peer, addrs, .. } if *peer == agent_id(n) => Some((*dial, addrs.clone())),
        _ => None,
    })
}

// --- who asks ---

// shows: IPC-AUTH-1, IPC-SOCK-2, IPC-AUTH-2
#[test]
fn whom_the_system_does_not_name_shows_a_token_before_anything_else() {
    let token = "ab".repeat(32);
    let mut solo = Solo::with(1, 2, |settings| settings.ipc_token = Some(token.clone()));
    let conn = solo.greeted(ALL, None);
    for hello in [false, true] {
        let client = ClientId(solo.fresh());
        solo.feed(Input::ClientUp { client, trusted: false, socket: None });
        let ask = |solo: &mut Solo, command: Value| {
            let mut command = command;
            command["req_id"] = "r".into();
            lines(&solo.say(client, &command), client).remove(0)
        };
        if hello {
            assert_eq!(ask(&mut solo, json!({"cmd":"hello","version":2}))["ok"], true);
        }
        for cmd in [
            "whoami",
            "peers",
            "status",
            "send",
            "inbox",
            "subscribe",
            "trust",
            "invite",
            "reload",
            "no_such",
        ] {
            assert_eq!(ask(&mut solo, json!({"cmd":cmd}))["error"], "auth_required", "{cmd}");
        }
        let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
        let effects = solo.one_way(conn, &notify);
        assert!(lines(&effects, client).is_empty(), "no event, and no line of version 1");
        for wrong in ["", "ab", &"ba".repeat(32), &token[1..], &token.to_uppercase()] {
            assert_eq!(
                ask(&mut solo, json!({"cmd":"auth","token":wrong}))["error"],
                "auth_failed",
                "{wrong}"
            );
        }
        assert_eq!(ask(&mut solo, json!({"cmd":"status"}))["error"], "auth_required");
        assert_eq!(ask(&mut solo, json!({"cmd":"auth","token":token}))["ok"], true);
        assert_eq!(ask(&mut solo, json!({"cmd":"status"}))["ok"], true);
    }
    // Whom the system names needs none, and may show any.
    solo.owned(json!({"cmd":"auth","token":"00"}));
}

// shows: IPC-TRU-2
#[test]
fn a_level_above_blocked_needs_a_key_and_any_whole_id_can_be_blocked() {
    let mut solo = knowing(vec![]);
    for level in ["unknown", "known", "trusted"] {
        let (reply, _) = solo.owner(json!({"cmd":"trust","peer":agent_id(8),"trust":level}));
        assert_eq!(reply["error"], "peer_not_found", "{level}: {reply}");
    }
    assert_eq!(listed(&mut solo, "contacts", "contacts"), Vec::<Value>::new());
    solo.trust(8, "blocked");
    // It has no key by being blocked.
    let (reply, _) = solo.owner(json!({"cmd":"trust","peer":agent_id(8),"trust":"known"}));
    assert_eq!(reply["error"], "peer_not_found", "{reply}");
    assert_eq!(listed(&mut solo, "contacts", "contacts")[0]["trust"], "blocked");
}

// --- who is out ---

// shows: TRUST-OUT-9
#[test]
fn rows_of_who_was_blocked_in_the_file_of_a_stopped_daemon_are_not_shown() {
    let mut solo = knowing(vec![contact(2, Level::Known), contact(3, Level::Known)]);
    for n in [2, 3] {
        solo.play(n);
        let conn = solo.greeted(ALL, None);
        assert_eq!(notify(&mut solo, conn, &format!("of {n}"))["kind"], "ack");
    }
    solo.contacts.contacts[0] = contact(2, Level::Blocked);
    solo.restart();
    let topics = |rows: &[Value]| -> Vec<String> {
        rows.iter().map(|row| row["envelope"]["payload"]["topic"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(topics(&listed(&mut solo, "inbox", "messages")), ["of 3"]);
    let reader = solo.client();
    let told = lines(&solo.say(reader, &json!({"cmd":"subscribe","req_id":"s"})), reader);
    let shown: Vec<Value> = told.into_iter().filter(|line| line["event"] == "inbound").collect();
    assert_eq!(topics(&shown), ["of 3"]);
}

// shows: TRUST-OUT-8, IPC-DLG-11, IPC-OUT-15
#[test]
fn ledger_and_outbox_lose_what_was_said_by_who_is_out() {
    const WORD: &str = "their-word";
    for command in [
        json!({"cmd":"trust","peer":agent_id(2),"trust":"blocked"}),
        json!({"cmd":"forget","peer":agent_id(2)}),
    ] {
        let mut solo = knowing(vec![contact(2, Level::Known)]);
        let conn = solo.greeted(ALL, None);
        let client = solo.client();
        // Of theirs: one. Of ours: one that has ended, one that goes on, one that they refused.
        let theirs = solo.envelope("delegate", json!({"task":WORD}));
        solo.ask(conn, &theirs);
        let give = |solo: &mut Solo, task: &str, kind: &str, payload: Value| {
            let effects = solo.say(client, &send(agent_id(2), "delegate", json!({"task":task})));
            let (_, token, work) = sent(&effects).remove(0);
            replies(solo, token, &work, kind, payload);
            work
        };
        let done = give(&mut solo, "done", "ack", json!({"accepted":true}));
        for (kind, payload) in [
            ("progress", json!({"state":"running","note":WORD})),
            ("result", json!({"status":"completed","outcome":WORD})),
        ] {
            let mut report = solo.envelope(kind, payload);
            report["ref"] = done["id"].clone();
            assert_eq!(solo.ask(conn, &report)["kind"], "ack");
        }
        give(&mut solo, "going on", "ack", json!({"accepted":true}));
        give(&mut solo, "refused", "ack", json!({"accepted":false,"reason":WORD}));
        let mut held = send(agent_id(2), "notify", json!({"topic":"t","data":1}));
        held["hold_secs"] = 60.into();
        let effects = solo.say(client, &held);
        let (_, token, note) = sent(&effects).remove(0);
        let error = json!({"code":"not_authorized","message":WORD,"retryable":false});
        replies(&mut solo, token, &note, "error", error);
        let before = (listed(&mut solo, "delegations", "delegations"), listed(&mut solo, "outbox", "outbox"));
        assert_eq!((before.0.len(), before.1.len()), (4, 1));
        assert!(before.1[0].to_string().contains(WORD), "{:?}", before.1);

        solo.owned(command.clone());
        for restarted in [false, true] {
            if restarted {
                solo.restart();
            }
            let rows = listed(&mut solo, "delegations", "delegations");
            let told: Vec<_> = rows
                .iter()
                .map(|row| (row["task"].as_str().unwrap(), row["state"].as_str().unwrap()))
                .collect();
            let expected = [("refused", "refused"), ("going on", "expired"), ("done", "completed")];
            assert_eq!(told, expected, "{command}, {restarted}");
            for row in &rows {
                assert_eq!(row["direction"], "out");
                assert!(row.get("progress").is_none() && row.get("result").is_none(), "{row}");
                assert!(
                    !row["reason"].as_str().unwrap().is_empty() && !row.to_string().contains(WORD),
                    "{row}"
                );
            }
            for row in listed(&mut solo, "outbox", "outbox") {
                assert!(!row.to_string().contains(WORD) && row["reason"].is_string(), "{row}");
            }
        }
    }
}

// --- invites and links ---

// shows: TRUST-KNO-6
#[test]
fn an_invite_is_not_used_by_who_needs_none() {
    let uses = |solo: &mut Solo| {
        listed(solo, "invites", "invites").iter().map(|row| row["uses"].clone()).collect::<Vec<_>>()
    };
    for (level, expiry, used) in [
        (Level::Known, None, false),
        (Level::Trusted, None, false),
        (Level::Unknown, None, true),
        // One whose entry ends gets another that does not.
        (Level::Known, Some(WALL_MS + 1_000_000), true),
    ] {
        let before = Contact { expiry_ms: expiry, name: Some("called so".into()), ..contact(2, level) };
        let mut solo = knowing(vec![before.clone()]);
        let conn = solo.greeted(ALL, None);
        let link = solo.owned(json!({"cmd":"invite","trust":"known","uses":2}))["link"].clone();
        let knock = solo.knock(link.as_str().unwrap(), [7; 32]);
        let answer = solo.ask(conn, &knock);
        let what = format!("{level} {expiry:?}");
        let then = level.max(Level::Known);
        assert_eq!(answer["payload"]["decision"], "accept", "{what}: {answer}");
        assert_eq!(answer["payload"]["level"], then.as_str(), "{what}");
        assert_eq!(uses(&mut solo), [json!(2 - u64::from(used))], "{what}");
        assert_eq!(solo.contacts.contacts[0] == before, !used, "{what}");
        assert_eq!(solo.contacts.contacts[0].expiry_ms, None, "{what}");
    }
}

// shows: IPC-INV-2, PAIR-LINK-3
#[test]
fn a_secret_is_random_and_told_once() {
    let mut solo = Solo::new(1, 2);
    solo.feed(Input::Start);
    let watcher = solo.client();
    solo.say(watcher, &json!({"cmd":"subscribe","req_id":"s"}));
    let (mut secrets, mut heard) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let (reply, effects) = solo.owner(json!({"cmd":"invite","label":"laptop"}));
        let link = reply["link"].as_str().unwrap();
        let secret = link.split_once("k=").unwrap().1.split('&').next().unwrap().to_owned();
        assert_eq!(secret.len(), 22, "128 bits: {link}");
        secrets.push(secret);
        heard.extend(lines(&effects, watcher));
    }
    let reply = solo.owned(json!({"cmd":"invites"}));
    assert_eq!(reply["invites"].as_array().unwrap().len(), 20);
    heard.extend([reply, solo.status(), solo.owned(json!({"cmd":"inbox"}))]);
    heard.extend(solo.audit.iter().map(|row| serde_json::to_value(row).unwrap()));
    for secret in &secrets {
        assert!(heard.iter().all(|line| !line.to_string().contains(secret)), "{heard:?}");
    }
    secrets.sort_unstable();
    secrets.dedup();
    assert_eq!(secrets.len(), 20);
}

// shows: IPC-JOIN-5
#[test]
fn what_else_is_said_of_a_peer_ends_joining_it() {
    let file = |at: u64| ContactsFile {
        paused: false,
        contacts: vec![Contact { since_ms: at, ..contact(9, Level::Known) }],
    };
    for said in ["trust", "blocked", "forget", "pause", "resume", "file"] {
        let mut solo = knowing(vec![contact(9, Level::Known)]);
        let client = solo.client();
        let link =
            Link { key: key(3), addrs: vec!["198.51.100.7:7100".into()], secret: Some(Secret([9; 16])) };
        let connect = json!({"cmd":"connect","req_id":"j","link":link.to_string(),"trust":"trusted"});
        let effects = solo.say(client, &connect);
        assert!(dial_of(&effects, 3).is_some() && lines(&effects, client).is_empty());
        let peer = agent_id(3);
        let effects = match said {
            "trust" => solo.owner(json!({"cmd":"trust","peer":peer,"trust":"known"})).1,
            "blocked" => solo.owner(json!({"cmd":"trust","peer":peer,"trust":"blocked"})).1,
            "file" => solo.feed(Input::Contacts(file(7))),
            other => solo.owner(json!({"cmd":other,"peer":peer})).1,
        };
        let told = lines(&effects, client);
        assert_eq!(told.len(), 1, "{said}: {told:?}");
        assert_eq!(
            (&told[0]["req_id"], &told[0]["error"]),
            (&json!("j"), &json!("not_authorized")),
            "{said}"
        );
        solo.wait(60_000);
        let level = solo.contacts.contacts.iter().find(|one| one.agent_id == peer).map(|one| one.level);
        assert_ne!(level, Some(Level::Trusted), "{said}: what was said then holds");
    }
}

// shows: IPC-REK-2
#[test]
fn open_invites_end_with_the_key_that_they_lead_to() {
    let mut solo = Solo::new(1, 2);
    solo.feed(Input::Start);
    solo.owned(json!({"cmd":"invite"}));
    solo.owned(json!({"cmd":"invite","uses":5}));
    assert_eq!(listed(&mut solo, "invites", "invites").len(), 2);
    solo.owned(json!({"cmd":"rekey"}));
    solo.restart();
    assert_eq!(listed(&mut solo, "invites", "invites"), Vec::<Value>::new());
    assert_eq!(solo.status()["invites"], 0);
}

// shows: IPC-JOIN-6, WF-ID-5
#[test]
fn who_hears_too_many_strangers_just_now_is_dialled_again_until_the_time_is_over() {
    let mut solo = knowing(vec![]);
    let client = solo.client();
    // The link has a key and no id: that is derived.
    let addrs = vec!["198.51.100.7:7100".to_owned()];
    let link = Link { key: key(3), addrs: addrs.clone(), secret: Some(Secret([9; 16])) }.to_string();
    let mut effects = solo.say(client, &json!({"cmd":"connect","req_id":"j","link":link}));
    let mut dials = 0;
    let until = solo.now + 15_000;
    while solo.now < until {
        if let Some((dial, to)) = dial_of(&effects, 3) {
            dials += 1;
            assert_eq!(to, addrs);
            let why = "the peer closed the connection (too many strangers: try again)".to_owned();
            effects = solo.feed(Input::DialFailed { dial, why });
        } else {
            effects = solo.wait(100);
        }
        let told = lines(&effects, client);
        assert_eq!(told.is_empty(), solo.now < until, "{told:?}");
    }
    assert!(dials >= 4, "{dials} dials");
    assert_eq!(lines(&effects, client)[0]["error"], "timeout");
}

// shows: WF-CON-4
#[test]
fn a_host_name_is_given_to_each_dial_to_be_looked_up_again() {
    let mut solo = Solo::with(1, 2, |settings| {
        settings.peers = vec![StaticPeer {
            agent_id: agent_id(2),
            pubkey: key(2),
            addr: "host.example:7100".into(),
            name: None,
        }];
    });
    let mut effects = solo.feed(Input::Start);
    for round in 0..5 {
        let (dial, to) = dial_of(&effects, 2).unwrap_or_else(|| panic!("no dial {round}"));
        assert_eq!(to, ["host.example:7100"], "by its name, not by what it was the last time");
        effects = solo.feed(Input::DialFailed { dial, why: "no answer".into() });
        for _ in 0..100 {
            if dial_of(&effects, 2).is_some() {
                break;
            }
            effects = solo.wait(1_000);
        }
    }
}

// --- delegations and cancels ---

// shows: WF-REF-8
#[test]
fn a_delegation_is_on_disk_before_it_leaves_and_its_result_is_no_strangers() {
    let mut solo = Solo::new(1, 2);
    solo.greeted(ALL, Some("boot"));
    let client = solo.client();
    solo.stall = true;
    let effects = solo.say(client, &send(agent_id(2), "delegate", json!({"task":"t"})));
    assert!(sent(&effects).is_empty(), "not before it is written");
    let effects = solo.go_on();
    let (_, _, work) = sent(&effects).remove(0);
    // It leaves, and this daemon ends by accident.
    solo.restart();
    let conn = solo.greeted(ALL, Some("boot"));
    let mut result = solo.envelope("result", json!({"status":"completed","outcome":"o"}));
    result["ref"] = work["id"].clone();
    assert_eq!(solo.ask(conn, &result)["kind"], "ack");
    assert_eq!(listed(&mut solo, "delegations", "delegations")[0]["state"], "completed");
    // What they gave is remembered as well.
    let theirs = solo.envelope("delegate", json!({"task":"theirs"}));
    solo.ask(conn, &theirs);
    solo.restart();
    let conn = solo.greeted(ALL, Some("boot"));
    let mut cancel = solo.envelope("cancel", json!({}));
    cancel["ref"] = theirs["id"].clone();
    assert_eq!(solo.ask(conn, &cancel)["payload"]["accepted"], true);
}

// shows: CORE-CAN-5
#[test]
fn a_cancel_is_answered_at_once_and_given_to_the_disk_before() {
    let mut solo = Solo::new(1, 2);
    let conn = solo.greeted(ALL, None);
    let work = solo.envelope("delegate", json!({"task":"t"}));
    assert_eq!(solo.ask(conn, &work)["payload"]["state"], "queued");
    solo.stall = true;
    let mut cancel = solo.envelope("cancel", json!({}));
    cancel["ref"] = work["id"].clone();
    assert_eq!(solo.ask(conn, &cancel)["payload"]["accepted"], true);
    assert!(solo.stalled.iter().any(|effect| matches!(effect, Effect::Commit { .. })), "{:?}", solo.stalled);
    solo.go_on();
    solo.restart();
    let rows = listed(&mut solo, "delegations", "delegations");
    assert_eq!(rows[0]["state"], "cancelled");
}

// --- new keys ---

/// The peer with the key of 2 has that of 3 from now on.
fn rekey(solo: &mut Solo, conn: ConnId) -> (StreamId, Vec<Effect>) {
    let signature = "00".repeat(64);
    let payload = json!({"old_key":key(2),"new_key":key(3),"at_ms":7,
        "old_signature":signature,"new_signature":signature});
    let envelope = solo.envelope("rekey", payload);
    solo.request(conn, &envelope)
}

// shows: PAIR-REKEY-7, IPC-OUT-16, IPC-DLG-12, WF-REF-9
#[test]
fn what_was_the_old_ids_is_the_new_ones() {
    let mut solo = knowing(vec![contact(2, Level::Known)]);
    let conn = solo.greeted(ALL, None);
    let client = solo.client();
    // A delegation each way, and a question to the old id that has no answer.
    let theirs = solo.envelope("delegate", json!({"task":"theirs"}));
    solo.ask(conn, &theirs);
    let effects = solo.say(client, &send(agent_id(2), "delegate", json!({"task":"ours"})));
    let (_, token, ours) = sent(&effects).remove(0);
    replies(&mut solo, token, &ours, "ack", json!({"accepted":true}));
    let asked = solo.say(client, &send(agent_id(2), "query", json!({"question":"q"})));
    assert_eq!(sent(&asked).len(), 1);
    // One message is held, and the peer has no room for it just now.
    let mut held = send(agent_id(2), "notify", json!({"topic":"held","data":1}));
    held["hold_secs"] = 600.into();
    let effects = solo.say(client, &held);
    let (_, token, note) = sent(&effects).remove(0);
    let error = json!({"code":"overloaded","message":"m","retryable":true});
    replies(&mut solo, token, &note, "error", error);

    let (stream, effects) = rekey(&mut solo, conn);
    assert_eq!(answer_on(&effects, stream).unwrap()["payload"]["state"], "taken");
    assert_eq!(closes(&effects), [(conn, 0)]);
    let ended = lines(&effects, client);
    assert!(ended.iter().any(|line| line["req_id"] == "query" && line["ok"] == false), "{ended:?}");

    let peers = |rows: &[Value], field: &str| rows.iter().map(|row| row[field].clone()).collect::<Vec<_>>();
    assert_eq!(peers(&listed(&mut solo, "outbox", "outbox"), "to"), [json!(agent_id(3))]);
    let rows = listed(&mut solo, "delegations", "delegations");
    assert_eq!(peers(&rows, "peer"), [json!(agent_id(3)), json!(agent_id(3))]);

    solo.play(3);
    let (now, mut effects) = solo.dialled_from("192.0.2.2:7100", [7; 32]);
    let hello = solo.envelope("hello", Solo::hello_payload(ALL, None));
    effects.extend(solo.request(now, &hello).1);
    effects.extend(solo.wait(2_000));
    let left = sent(&effects);
    let (on, _, again) = left.iter().find(|(.., message)| message["kind"] == "notify").unwrap();
    assert_eq!((*on, &again["id"], &again["to"]), (now, &note["id"], &json!(agent_id(3))));
    let mut cancel = solo.envelope("cancel", json!({}));
    cancel["ref"] = theirs["id"].clone();
    assert_eq!(solo.ask(now, &cancel)["payload"]["accepted"], true);
    let mut result = solo.envelope("result", json!({"status":"completed","outcome":"o"}));
    result["ref"] = ours["id"].clone();
    assert_eq!(solo.ask(now, &result)["kind"], "ack");
    let rows = listed(&mut solo, "delegations", "delegations");
    let states: Vec<&Value> = rows.iter().map(|row| &row["state"]).collect();
    assert_eq!(states, [&json!("completed"), &json!("cancelled")]);
}

// shows: PAIR-REKEY-9
#[test]
fn a_new_key_is_not_taken_on_for_who_is_put_out_while_it_is_written() {
    for (command, left) in [
        (json!({"cmd":"trust","req_id":"b","peer":agent_id(2),"trust":"blocked"}), Some(Level::Blocked)),
        (json!({"cmd":"forget","req_id":"b","peer":agent_id(2)}), None),
    ] {
        let mut solo = knowing(vec![contact(2, Level::Known)]);
        let conn = solo.greeted(ALL, None);
        let owner = solo.client();
        solo.stall = true;
        let (stream, effects) = rekey(&mut solo, conn);
        assert!(answer_on(&effects, stream).is_none());
        let mut effects = solo.say(owner, &command);
        effects.extend(solo.go_on());
        // Its connection is closed by the command; where it has an answer, that is no.
        if let Some(answer) = answer_on(&effects, stream) {
            assert_eq!(code(&answer), "not_authorized", "{command}");
        }
        effects.extend(solo.wait(10_000));
        let file: Vec<_> = solo.contacts.contacts.iter().map(|one| (one.agent_id, one.level)).collect();
        assert_eq!(file, left.map(|level| (agent_id(2), level)).into_iter().collect::<Vec<_>>(), "{command}");
        solo.play(3);
        let (_, effects) = solo.dialled_from("192.0.2.9:1", [0; 32]);
        assert_eq!(closes(&effects).len(), 1, "{command}: the new key is nobody's");
    }
}

// --- shares and bounds ---

// shows: IPC-SCO-15
#[test]
fn a_scoped_socket_holds_a_quarter_of_the_outbox() {
    let mut solo = Solo::with(1, 2, |settings| settings.outbox.messages_max = 12);
    solo.owned(json!({"cmd":"socket_add","name":"box","allow":["send","inbox","answer"]}));
    let (client, again) = (solo.scoped("box"), solo.scoped("box"));
    let hold = |solo: &mut Solo, client: ClientId| {
        let mut held = send(agent_id(2), "notify", json!({"topic":"t","data":1}));
        held["hold_secs"] = 600.into();
        let mut effects = solo.say(client, &held);
        if let Some((dial, _)) = dial_of(&effects, 2) {
            effects.extend(solo.feed(Input::DialFailed { dial, why: "away".into() }));
        }
        let told = lines(&effects, client);
        let line = told.iter().find(|line| line["req_id"] == "notify").cloned().unwrap_or_default();
        line.get("error").unwrap_or(&line["state"]).clone()
    };
    let told: Vec<Value> =
        [client, again, client, client, again].map(|client| hold(&mut solo, client)).into();
    assert_eq!(told, ["held", "held", "held", "overloaded", "overloaded"]);
    let owner = solo.client();
    assert_eq!(hold(&mut solo, owner), "held", "the rest is the owner's");
}

// shows: IPC-SLOW-5
#[test]
fn changes_of_what_was_sent_are_told_in_lines_that_no_queue_turns_away() {
    let mut solo = Solo::new(1, 2);
    solo.greeted(ALL, None);
    let client = solo.client();
    solo.say(client, &json!({"cmd":"delegations","req_id":"w","watch":true}));
    let mut held = send(agent_id(2), "notify", json!({"topic":"t","data":1}));
    held["hold_secs"] = 600.into();
    let mut effects = solo.say(client, &held);
    let (_, token, note) = sent(&effects).remove(0);
    let error = json!({"code":"overloaded","message":"m","retryable":true});
    effects.extend(replies(&mut solo, token, &note, "error", error));
    let later = solo.wait(5_000);
    let (_, token, again) = sent(&later).remove(0);
    effects.extend(replies(&mut solo, token, &again, "ack", json!({"accepted":true})));
    let given = solo.say(client, &send(agent_id(2), "delegate", json!({"task":"t"})));
    let (_, token, work) = sent(&given).remove(0);
    effects.extend(given);
    effects.extend(replies(&mut solo, token, &work, "ack", json!({"accepted":true})));
    let mut told = Vec::new();
    for effect in &effects {
        let (line, sure) = match effect {
            Effect::Line { line, .. } => (line, true),
            Effect::Event { line, .. } => (line, false),
            _ => continue,
        };
        let line: Value = serde_json::from_str(line).unwrap();
        if let Some(event) = line["event"].as_str() {
            assert!(sure, "{line} could be turned away");
            told.push(event.to_owned());
        }
    }
    told.dedup();
    assert!(told.contains(&"delivery".into()) && told.contains(&"delegation".into()), "{told:?}");
}

// shows: CORE-RCP-3
#[test]
fn so_many_senders_and_no_more_hear_that_their_message_was_read() {
    let mut solo = Solo::with(1, 2, |settings| {
        settings.buffer_size = 2 * READ_WAITING_MAX;
        settings.read_receipts = true;
    });
    let conn = solo.greeted(ALL, None);
    for n in 0..READ_WAITING_MAX + 3 {
        let mut notify = solo.envelope("notify", json!({"topic":"t","data":n}));
        notify["read_receipt"] = true.into();
        assert_eq!(solo.ask(conn, &notify)["kind"], "ack", "taken like any other");
    }
    let client = solo.client();
    let (mut rows, mut told, mut effects) = (0, 0, Vec::new());
    loop {
        let page =
            lines(&solo.say(client, &json!({"cmd":"inbox","req_id":"i","limit":1000})), client).remove(0);
        let given = page["messages"].as_array().unwrap().len();
        rows += given;
        if given > 0 {
            let ack = json!({"cmd":"ack","req_id":"a","up_to_seq":page["next_seq"]});
            effects.extend(solo.say(client, &ack));
        }
        // They leave one after another, a part of them at a time.
        let mut idle = 0;
        while idle < 3 {
            let left = sent(&std::mem::take(&mut effects));
            idle = if left.is_empty() { idle + 1 } else { 0 };
            for (_, token, receipt) in left {
                assert_eq!(receipt["kind"], "receipt");
                told += 1;
                effects.extend(replies(&mut solo, token, &receipt, "ack", json!({"accepted":true})));
            }
            effects.extend(solo.wait(100));
        }
        if given == 0 {
            break;
        }
    }
    assert_eq!((rows, told), (READ_WAITING_MAX + 3, READ_WAITING_MAX));
}
