//! Scoped sockets: what one agent's own socket may do, whom and what it sees, and what it moves. One node,
//! clients of several sockets, and peers whose every message the test writes itself.

use axon_proto::audit::Event;
use axon_proto::id::{AgentId, PublicKey};
use axon_proto::limits;
use axon_proto::node::{ClientId, ConnId, Effect, Input, Lost, StaticPeer, Token};
use serde_json::{Value, json};

use crate::net::{Solo, answer_on, lines};

const ALL: &[&str] = &["delegate", "ack", "progress", "result", "cancel", "discover", "receipt"];

fn agent_id(n: u8) -> AgentId {
    PublicKey([n; 32]).agent_id()
}

fn static_peer(n: u8) -> StaticPeer {
    let pubkey = PublicKey([n; 32]);
    StaticPeer {
        agent_id: agent_id(n),
        pubkey,
        addr: "192.0.2.1:7100".into(),
        name: Some(format!("peer{n}")),
    }
}

/// A node that knows peers 2 and 3, both connected.
fn two() -> (Solo, [ConnId; 2]) {
    let mut solo = Solo::with(1, 2, |settings| settings.peers = vec![static_peer(2), static_peer(3)]);
    solo.feed(Input::Start);
    let conns = greeted(&mut solo);
    (solo, conns)
}

fn greeted(solo: &mut Solo) -> [ConnId; 2] {
    [3, 2].map(|n| {
        solo.play(n);
        solo.greeted(ALL, Some("boot"))
    })
}

/// A socket, and a client of it.
fn socket(solo: &mut Solo, name: &str, more: Value) -> ClientId {
    solo.owned(definition("socket_add", name, more));
    solo.scoped(name)
}

fn definition(cmd: &str, name: &str, more: Value) -> Value {
    let mut command = json!({"cmd":cmd,"name":name,"allow":["send","inbox","answer"]});
    command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    command
}

/// What a client's command is replied to at once, and what else it is told before.
fn asks(solo: &mut Solo, client: ClientId, mut command: Value) -> (Value, Vec<Value>, Vec<Effect>) {
    command["req_id"] = "asked".into();
    let effects = solo.say(client, &command);
    let (reply, others) = lines(&effects, client).into_iter().partition(|line| line["req_id"] == "asked");
    let reply: Vec<Value> = reply;
    (reply.into_iter().next().unwrap_or_default(), others, effects)
}

fn says(solo: &mut Solo, client: ClientId, command: Value) -> Value {
    asks(solo, client, command).0
}

fn subscribes(solo: &mut Solo, client: ClientId, more: Value) -> Vec<Value> {
    let mut command = json!({"cmd":"subscribe"});
    command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (reply, told, _) = asks(solo, client, command);
    assert_eq!(reply["ok"], true, "{reply}");
    told
}

fn notify(solo: &mut Solo, n: u8, topic: &str) -> Value {
    solo.play(n);
    solo.envelope("notify", json!({"topic":topic,"data":1}))
}

fn topics(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["envelope"]["payload"]["topic"].as_str().unwrap_or("?")).collect()
}

/// The requests that went out.
fn sent(effects: &[Effect]) -> Vec<(Token, Value)> {
    let request = |effect: &Effect| match effect {
        Effect::Request { token, bytes, .. } => Some((*token, serde_json::from_str(bytes).unwrap())),
        _ => None,
    };
    effects.iter().filter_map(request).collect()
}

// --- rights ---

const RIGHTS: [&str; 4] = ["send", "inbox", "answer", "advertise"];

/// What only the owner may say.
const OWNER: &[&str] = &[
    "invite",
    "invites",
    "revoke_invite",
    "connect",
    "knocks",
    "approve",
    "deny",
    "trust",
    "contacts",
    "forget",
    "policy_check",
    "pause",
    "resume",
    "rekey",
    "sockets",
    "socket_add",
    "socket_set",
    "socket_remove",
    "reload",
    "a_command_of_a_later_version",
];

// shows: IPC-SCO-3, TRUST-AUD-1
#[test]
fn each_command_needs_its_right_and_the_owners_need_the_owners_socket() {
    let commands: [(Value, &[&str]); 15] = [
        (json!({"cmd":"hello","version":2}), &[]),
        (json!({"cmd":"whoami"}), &[]),
        (json!({"cmd":"status"}), &[]),
        (json!({"cmd":"peers"}), &[]),
        (json!({"cmd":"send","to":agent_id(2),"kind":"ping","payload":{}}), &["send"]),
        (json!({"cmd":"outbox"}), &["send"]),
        (json!({"cmd":"delegations"}), &["send"]),
        (json!({"cmd":"inbox"}), &["inbox"]),
        (json!({"cmd":"ack","up_to_seq":0}), &["inbox"]),
        (json!({"cmd":"subscribe"}), &["inbox"]),
        (json!({"cmd":"subscribe","kinds":["notify"]}), &["inbox"]),
        (json!({"cmd":"subscribe","answer":["query"]}), &["answer"]),
        (json!({"cmd":"subscribe","answer":["query"],"kinds":["notify"]}), &["answer", "inbox"]),
        (
            json!({"cmd":"reply","ref":"faa5f8da-e37d-4458-a095-93f877adfc0b","kind":"error","payload":{}}),
            &["answer"],
        ),
        (json!({"cmd":"advertise","capabilities":{}}), &["advertise"]),
    ];
    for bits in 1..16_usize {
        let allow: Vec<&str> = RIGHTS
            .into_iter()
            .enumerate()
            .filter(|(at, _)| bits >> at & 1 == 1)
            .map(|(_, right)| right)
            .collect();
        let (mut solo, _) = two();
        let client = socket(&mut solo, "cal", json!({"allow":allow}));
        for (command, needs) in &commands {
            let rows = solo.audit.len();
            let reply = says(&mut solo, client, command.clone());
            let may = needs.iter().all(|need| allow.contains(need));
            assert_eq!(reply["error"] != "not_authorized", may, "{allow:?}: {command}: {reply}");
            let noted = solo.audit[rows..].iter().any(|row| row.event == Event::Scope);
            assert!(!noted || !may, "{allow:?}: {command}");
        }
        for cmd in OWNER {
            let command = json!({"cmd":cmd,"peer":agent_id(2),"trust":"trusted","kind":"ping","name":"cal",
                "allow":RIGHTS,"id":"ffff","link":"x"});
            let reply = says(&mut solo, client, command);
            assert_eq!(reply["error"], "not_authorized", "{allow:?}: {cmd}: {reply}");
            let row = |row: &&axon_proto::audit::Row| {
                row.event == Event::Scope && row.socket.as_deref() == Some("cal") && &*row.rule == *cmd
            };
            assert!(solo.audit.iter().any(|one| row(&one)) || cmd.contains("later"), "{cmd} is not noted");
        }
        assert!(solo.contacts.contacts.is_empty() && solo.scopes.len() == 1);
        let listed = solo.owned(json!({"cmd":"sockets"}))["sockets"][0]["allow"].clone();
        assert_eq!(listed, json!(allow));
    }
}

// shows: IPC-SCO-3, IPC-SCO-12
#[test]
fn there_is_no_version_1_no_token_and_no_knock_on_a_scoped_socket() {
    let (mut solo, conns) = two();
    solo.set(|settings| {
        settings.ipc_token = Some("0".repeat(64));
        settings.knock.open = true;
    });
    solo.owned(definition("socket_add", "cal", json!({})));
    let silent = ClientId(solo.fresh());
    solo.feed(Input::ClientUp { client: silent, trusted: true, socket: Some("cal".into()) });
    for cmd in ["send", "peers", "status", "inbox", "whoami"] {
        assert_eq!(says(&mut solo, silent, json!({"cmd":cmd}))["error"], "hello_required", "{cmd}");
    }
    says(&mut solo, silent, json!({"cmd":"hello","version":1}));
    assert_eq!(says(&mut solo, silent, json!({"cmd":"status"}))["error"], "hello_required");
    // Nobody has read whose uid this is, and no token helps.
    let unread = ClientId(solo.fresh());
    solo.feed(Input::ClientUp { client: unread, trusted: false, socket: Some("cal".into()) });
    says(&mut solo, unread, json!({"cmd":"hello","version":2}));
    let auth = says(&mut solo, unread, json!({"cmd":"auth","token":"0".repeat(64)}));
    assert_ne!(auth["ok"], true, "{auth}");
    assert_ne!(says(&mut solo, unread, json!({"cmd":"whoami"}))["ok"], true);
    let all = solo.scoped("cal");
    subscribes(&mut solo, all, json!({}));
    solo.play(9);
    let stranger = solo.accept();
    let hello = solo.envelope("hello", Solo::hello_payload(ALL, None));
    solo.ask(stranger, &hello);
    let knock = solo.envelope("knock", json!({"name":"x"}));
    let (_, mut effects) = solo.request(stranger, &knock);
    let notify = notify(&mut solo, 2, "t");
    effects.extend(solo.one_way(conns[1], &notify));
    assert_eq!((lines(&effects, silent), lines(&effects, unread)), (vec![], vec![]));
    let told = lines(&effects, all);
    assert_eq!((told.len(), topics(&told)), (1, vec!["t"]), "no knock: {told:?}");
}

// --- what it sees ---

// shows: IPC-SCO-6, IPC-SCO-7, IPC-SCO-8
#[test]
fn it_sees_its_own_peers_kinds_and_domains_in_events_rows_replays_and_offers() {
    let (mut solo, conns) = two();
    let scope = json!({"to":["peer2"],"kinds":["notify","query"],"domains":["family"]});
    let live = socket(&mut solo, "cal", scope);
    subscribes(
        &mut solo,
        live,
        json!({"answer":["query","delegate"],"kinds":["notify","query","error","future"]}),
    );
    let mut effects = Vec::new();
    for (n, conn) in [(2, conns[1]), (3, conns[0])] {
        for topic in ["first", "second"] {
            let notify = notify(&mut solo, n, &format!("{topic} of {n}"));
            effects.extend(solo.one_way(conn, &notify));
        }
        let error = json!({"code":"internal","message":"m","retryable":true});
        for (kind, payload) in [("error", error), ("future", json!({}))] {
            let message = solo.envelope(kind, payload);
            effects.extend(solo.one_way(conn, &message));
        }
    }
    let seen = ["first of 2", "second of 2"];
    assert_eq!(topics(&lines(&effects, live)), seen);
    let reader = solo.scoped("cal");
    let reply = says(&mut solo, reader, json!({"cmd":"inbox"}));
    assert_eq!(topics(reply["messages"].as_array().unwrap()), seen);
    assert_eq!(topics(&subscribes(&mut solo, reader, json!({}))), seen);
    let owner = solo.client();
    let all = says(&mut solo, owner, json!({"cmd":"inbox"}))["messages"].as_array().unwrap().len();
    assert_eq!(all, 8);
    // Rows that it does not see do not hide those behind them.
    for n in 0..300 {
        let notify = notify(&mut solo, 3, &n.to_string());
        solo.one_way(conns[0], &notify);
    }
    let last = notify(&mut solo, 2, "last of 2");
    solo.one_way(conns[1], &last);
    let reader = solo.scoped("cal");
    let reply = says(&mut solo, reader, json!({"cmd":"inbox","limit":2}));
    says(&mut solo, reader, json!({"cmd":"ack","up_to_seq":reply["next_seq"]}));
    let reply = says(&mut solo, reader, json!({"cmd":"inbox","limit":2}));
    assert_eq!(topics(reply["messages"].as_array().unwrap()), ["last of 2"], "{reply}");

    // Offers: a request that is not for it is nobody's, and what it answers it is handed.
    for (n, conn, kind, payload, offered) in [
        (2, conns[1], "query", json!({"question":"q","domain":"family.calendar"}), true),
        (2, conns[1], "query", json!({"question":"q","domain":"work"}), false),
        (2, conns[1], "query", json!({"question":"q"}), false),
        (3, conns[0], "query", json!({"question":"q","domain":"family"}), false),
        (2, conns[1], "delegate", json!({"task":"t"}), false),
    ] {
        solo.play(n);
        let request = solo.envelope(kind, payload.clone());
        let (stream, effects) = solo.request(conn, &request);
        let told: Vec<Value> = lines(&effects, live);
        assert_eq!(told.iter().any(|line| line["answer"] == true), offered, "{n} {kind} {payload}");
        assert_eq!(told.len(), usize::from(offered), "{n} {kind} {payload}: {told:?}");
        assert_eq!(answer_on(&effects, stream).is_none(), offered, "{n} {kind} {payload}");
    }
    // The owner's agent is offered what it was not.
    subscribes(&mut solo, owner, json!({"answer":["query"],"replay":false}));
    solo.play(3);
    let query = solo.envelope("query", json!({"question":"q","domain":"family"}));
    let (_, effects) = solo.request(conns[0], &query);
    assert_eq!((lines(&effects, owner).len(), lines(&effects, live).len()), (1, 0));

    solo.say(reader, &json!({"cmd":"peers","req_id":"p"}));
    let effects = solo.feed(Input::Measured { client: reader, req_id: "\"p\"".into(), rtts: Vec::new() });
    let rows = lines(&effects, reader)[0]["peers"].as_array().unwrap().clone();
    assert_eq!(rows.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), [json!(agent_id(2))]);
}

// shows: IPC-SCO-6, IPC-SCO-7, IPC-SCO-11, TRUST-AUD-1
#[test]
fn it_sends_to_its_own_peers_its_kinds_and_domains_and_its_name_is_noted() {
    let (mut solo, _) = two();
    let scope = json!({"to":["peer2"],"kinds":["notify","query","cancel"],"domains":["family"]});
    let client = socket(&mut solo, "cal", scope);
    let query = |domain: Value| json!({"question":"a-word","domain":domain});
    let notify = json!({"topic":"a-word","data":1});
    for (to, kind, payload, rule) in [
        ("peer2", "notify", notify.clone(), ""),
        ("peer2", "query", query(json!("family.x")), ""),
        ("peer2", "query", query(json!("familyx")), "domains"),
        ("peer2", "query", query(json!(null)), "domains"),
        ("peer2", "ping", json!({}), "kinds"),
        ("peer2", "delegate", json!({"task":"t"}), "kinds"),
        ("peer3", "notify", notify.clone(), "to"),
    ] {
        let (reply, _, effects) =
            asks(&mut solo, client, json!({"cmd":"send","to":to,"kind":kind,"payload":payload}));
        let what = format!("{kind} to {to}: {reply}");
        assert_eq!(sent(&effects).len(), usize::from(rule.is_empty()), "{what}");
        let (event, rule) = if rule.is_empty() { (Event::Sent, kind) } else { (Event::Scope, rule) };
        let row = solo.audit.iter().rfind(|row| row.socket.as_deref() == Some("cal")).unwrap();
        // Repeats are counted and told later.
        assert!(row.event == event && &*row.rule == rule || rule == "domains", "{what}: {row:?}");
        assert_eq!(row.peer, Some(agent_id(if to == "peer2" { 2 } else { 3 })), "{what}");
        if event == Event::Scope && rule != "to" {
            assert_eq!(reply["error"], "not_authorized", "{what}");
        }
    }
    // A peer outside is no other than one that is not there, however it is named.
    let codes: Vec<Value> =
        ["peer3", &agent_id(3).to_string(), &agent_id(3).to_string()[8..14], "nobody", "ffff0000"]
            .into_iter()
            .map(|to| says(&mut solo, client, json!({"cmd":"send","to":to,"kind":"notify","payload":notify})))
            .collect();
    for reply in &codes {
        assert_eq!(reply["error"], codes[0]["error"], "{codes:?}");
        assert!(!reply.to_string().contains(&agent_id(3).to_string()), "{reply}");
    }
    assert!(!format!("{:?}", solo.audit).contains("a-word"));
}

// shows: IPC-SCO-8, IPC-LEASE-2, IPC-DLG-4
#[test]
fn it_replies_only_to_what_was_handed_to_it() {
    let (mut solo, conns) = two();
    let only = |kind: &str| json!({"allow":["answer"],"kinds":[kind]});
    let queries = socket(&mut solo, "queries", only("query"));
    let works = socket(&mut solo, "works", only("delegate"));
    subscribes(&mut solo, queries, json!({"answer":["query"]}));
    subscribes(&mut solo, works, json!({"answer":["delegate"],"lease":true}));
    let query = solo.envelope("query", json!({"question":"q"}));
    let (stream, effects) = solo.request(conns[1], &query);
    assert_eq!((lines(&effects, queries).len(), lines(&effects, works).len()), (1, 0));
    let response = json!({"cmd":"reply","ref":query["id"],"kind":"response","payload":{"summary":"s"}});
    assert_eq!(says(&mut solo, works, response.clone())["error"], "not_found");
    // Another client of the same socket may.
    let second = solo.scoped("queries");
    let (reply, _, effects) = asks(&mut solo, second, response.clone());
    assert_eq!((&reply["ok"], answer_on(&effects, stream).is_some()), (&json!(true), true));
    let sent = solo.audit.iter().rfind(|row| row.event == Event::Sent).unwrap();
    assert_eq!(
        (sent.socket.as_deref(), &*sent.rule, sent.peer),
        (Some("queries"), "response", Some(agent_id(2)))
    );
    // One of the owner's agents is none of its business.
    let owner = solo.client();
    subscribes(&mut solo, owner, json!({"answer":["query"],"capacity":9}));
    solo.feed(Input::ClientGone { client: queries });
    let query = solo.envelope("query", json!({"question":"q"}));
    let (_, effects) = solo.request(conns[1], &query);
    assert_eq!(lines(&effects, owner).len(), 1);
    let response = json!({"cmd":"reply","ref":query["id"],"kind":"response","payload":{"summary":"s"}});
    assert_eq!(says(&mut solo, second, response.clone())["error"], "not_found");
    assert_eq!(says(&mut solo, owner, response)["ok"], true);
    // What was handed to it stays its own over a restart.
    let delegate = solo.envelope("delegate", json!({"task":"t"}));
    let (_, effects) = solo.request(conns[1], &delegate);
    assert_eq!(lines(&effects, works).len(), 1);
    let ack = json!({"cmd":"reply","ref":delegate["id"],"kind":"ack","payload":{"accepted":true}});
    assert_eq!(says(&mut solo, works, ack)["ok"], true);
    solo.wait(5_000);
    solo.restart();
    greeted(&mut solo);
    let result = json!({"cmd":"reply","ref":delegate["id"],"kind":"result",
        "payload":{"status":"completed","outcome":"o"}});
    let other = solo.scoped("queries");
    assert_eq!(says(&mut solo, other, result.clone())["error"], "not_found");
    let works = solo.scoped("works");
    let (reply, _, effects) = asks(&mut solo, works, result);
    let left = self::sent(&effects).iter().any(|(_, envelope)| envelope["kind"] == "result");
    assert!(left, "the result of what it holds with a lease leaves: {reply}");
}

// --- what it sends, and what became of it ---

// shows: IPC-SCO-9
#[test]
fn outbox_and_ledger_show_what_went_by_this_socket_and_what_was_handed_to_it() {
    let (mut solo, conns) = two();
    let a = socket(&mut solo, "a", json!({}));
    let b = socket(&mut solo, "b", json!({"kinds":["notify","cancel","delegate"]}));
    let owner = solo.client();
    for client in [a, b] {
        says(&mut solo, client, json!({"cmd":"delegations","watch":true}));
    }
    subscribes(&mut solo, a, json!({"answer":["delegate"]}));
    let mut ids = Vec::new();
    let mut events: [Vec<Value>; 2] = [vec![], vec![]];
    for client in [a, b, owner] {
        let delegate = json!({"cmd":"send","to":"peer2","kind":"delegate","payload":{"task":"t"}});
        let effects = asks(&mut solo, client, delegate).2;
        let (token, delegation) = sent(&effects).remove(0);
        let mut ack = solo.envelope("ack", json!({"accepted":true}));
        ack["ref"] = delegation["id"].clone();
        let effects = solo.feed(Input::Replied { token, outcome: Ok(ack.to_string().into_bytes()) });
        events[0].extend(lines(&effects, a));
        events[1].extend(lines(&effects, b));
        let payload = json!({"topic":"t","data":1});
        let notify = json!({"cmd":"send","to":"peer3","kind":"notify","payload":payload,"hold_secs":60});
        for (token, _) in sent(&asks(&mut solo, client, notify).2) {
            solo.feed(Input::Replied { token, outcome: Err(Lost::Reset) });
        }
        let rows = solo.owned(json!({"cmd":"outbox"}))["outbox"].as_array().unwrap().clone();
        ids.push((delegation["id"].clone(), rows[rows.len() - 1]["id"].clone()));
    }
    for (at, events) in events.iter().enumerate() {
        let of_them: Vec<&Value> = events
            .iter()
            .filter(|line| line["event"] == "delegation")
            .map(|line| &line["delegation"]["id"])
            .collect();
        assert!(!of_them.is_empty() && of_them.iter().all(|id| **id == ids[at].0), "{of_them:?}");
    }
    let of_peer = solo.envelope("delegate", json!({"task":"theirs"}));
    let (_, effects) = solo.request(conns[1], &of_peer);
    assert!(lines(&effects, a).iter().any(|line| line["answer"] == true));
    let listed = |solo: &mut Solo, client: ClientId, cmd: &str, key: &str| {
        let reply = says(solo, client, json!({"cmd":cmd}));
        reply[key].as_array().unwrap().iter().map(|row| row["id"].clone()).collect::<Vec<Value>>()
    };
    for restarts in 0..2 {
        let clients = if restarts == 0 { [a, b] } else { [solo.scoped("a"), solo.scoped("b")] };
        for (at, client) in clients.into_iter().enumerate() {
            let what = format!("client {at}, restarts {restarts}");
            assert_eq!(listed(&mut solo, client, "outbox", "outbox"), [ids[at].1.clone()], "{what}");
            let ledger = listed(&mut solo, client, "delegations", "delegations");
            let mut expected = vec![ids[at].0.clone()];
            if at == 0 {
                expected.insert(0, of_peer["id"].clone());
            }
            assert_eq!(ledger, expected, "{what}");
            for other in (0..3).filter(|other| *other != at) {
                let of_other = &ids[other];
                let cancel = json!({"cmd":"outbox","cancel":of_other.1});
                assert_eq!(says(&mut solo, client, cancel)["error"], "not_found", "{what}");
                let find = json!({"cmd":"outbox","id":of_other.1});
                assert_eq!(says(&mut solo, client, find)["outbox"], json!([]), "{what}");
                let find = json!({"cmd":"delegations","id":of_other.0});
                assert_eq!(says(&mut solo, client, find)["delegations"], json!([]), "{what}");
                for to in [json!(null), json!("peer2")] {
                    let cancel = json!({"cmd":"send","kind":"cancel","to":to,"ref":of_other.0,"payload":{}});
                    let (reply, _, effects) = asks(&mut solo, client, cancel);
                    assert_eq!((&reply["error"], sent(&effects).len()), (&json!("not_found"), 0), "{what}");
                }
            }
        }
        let owner = solo.client();
        assert_eq!(listed(&mut solo, owner, "outbox", "outbox").len(), 3);
        assert_eq!(listed(&mut solo, owner, "delegations", "delegations").len(), 4);
        solo.wait(5_000);
        solo.restart();
    }
    let a = solo.scoped("a");
    greeted(&mut solo);
    let cancel = json!({"cmd":"send","kind":"cancel","ref":ids[0].0,"payload":{}});
    assert_eq!(sent(&asks(&mut solo, a, cancel).2).len(), 1, "its own it may cancel");
}

// shows: IPC-SCO-11
#[test]
fn its_rate_is_its_own_and_for_all_its_clients_together() {
    let (mut solo, _) = two();
    let a = socket(&mut solo, "a", json!({"messages_per_minute":3}));
    let again = solo.scoped("a");
    let b = socket(&mut solo, "b", json!({"messages_per_minute":3}));
    let owner = solo.client();
    let notify = json!({"cmd":"send","to":"peer2","kind":"notify","payload":{"topic":"t","data":1}});
    let goes = |solo: &mut Solo, client: ClientId| {
        let (reply, _, effects) = asks(solo, client, notify.clone());
        assert!(reply.is_null() || reply["error"] == "overloaded", "{reply}");
        !sent(&effects).is_empty()
    };
    assert_eq!(
        [a, again, a, again, a].map(|client| goes(&mut solo, client)),
        [true, true, true, false, false]
    );
    assert_eq!([b, owner, owner, owner, owner].map(|client| goes(&mut solo, client)), [true; 5]);
    solo.wait(19_999);
    assert!(!goes(&mut solo, a));
    solo.wait(1);
    assert_eq!([goes(&mut solo, again), goes(&mut solo, a)], [true, false]);
    solo.owned(definition("socket_set", "a", json!({"messages_per_minute":0})));
    assert_eq!([a; 5].map(|client| goes(&mut solo, client)), [true; 5]);
    solo.wait(120_000);
    let counted = |event: Event, rule: &str| {
        let rows = solo.audit.iter().filter(|row| row.event == event && row.socket.as_deref() == Some("a"));
        rows.filter(|row| &*row.rule == rule).map(|row| row.count).sum::<u64>()
    };
    assert_eq!((counted(Event::Sent, "notify"), counted(Event::Scope, "messages_per_minute")), (9, 4));
}

// --- its own cursor ---

/// Rows of the owner's inbox.
fn owned_rows(solo: &mut Solo) -> Vec<Value> {
    solo.owned(json!({"cmd":"inbox","limit":1000}))["messages"].as_array().unwrap().clone()
}

// shows: IPC-SCO-10, IPC-SCO-13, IPC-BOX-5
#[test]
fn its_cursor_is_its_own_whatever_it_calls_itself_and_outlives_the_daemon() {
    let (mut solo, conns) = two();
    let scoped = socket(&mut solo, "cal", json!({"to":["peer2"]}));
    says(&mut solo, scoped, json!({"cmd":"hello","version":2,"consumer":"default"}));
    let other = socket(&mut solo, "other", json!({}));
    for n in [2, 3, 2] {
        let notify = notify(&mut solo, n, &format!("of {n}"));
        solo.ask(conns[usize::from(3 - n)], &notify);
    }
    let ack = |solo: &mut Solo, client: ClientId, up_to: u64| {
        says(solo, client, json!({"cmd":"ack","up_to_seq":up_to}))
    };
    assert_eq!(ack(&mut solo, scoped, 1)["error"], "ack_out_of_range", "it was given nothing");
    let reply = says(&mut solo, scoped, json!({"cmd":"inbox"}));
    assert_eq!(reply["messages"].as_array().unwrap().len(), 2);
    assert_eq!(ack(&mut solo, scoped, 3)["acked_seq"], 3);
    for restarts in 0..2 {
        let unread = |solo: &mut Solo, client: ClientId| {
            says(solo, client, json!({"cmd":"inbox"}))["messages"].as_array().unwrap().len()
        };
        let clients =
            if restarts == 0 { [scoped, other] } else { [solo.scoped("cal"), solo.scoped("other")] };
        assert_eq!(clients.map(|client| unread(&mut solo, client)), [0, 3], "restarts {restarts}");
        assert_eq!(owned_rows(&mut solo).len(), 3, "the owner has read nothing");
        solo.wait(5_000);
        solo.restart();
    }
    // Nobody else can call himself so.
    let owner = solo.client();
    let hello = says(&mut solo, owner, json!({"cmd":"hello","version":2,"consumer":"\u{1}cal"}));
    assert_eq!(hello["error"], "invalid_command");
}

// shows: IPC-SCO-10, IPC-SCO-13, IPC-BOX-10, IPC-OUT-13
#[test]
fn its_ack_makes_read_what_it_was_given_and_nothing_else() {
    for restart in [false, true] {
        let mut solo = Solo::with(1, 2, |settings| {
            settings.peers = vec![static_peer(2), static_peer(3)];
            settings.buffer_size = 4;
        });
        solo.feed(Input::Start);
        let mut conns = greeted(&mut solo);
        let mut scoped = socket(&mut solo, "cal", json!({"to":["peer2"]}));
        let mut rows = Vec::new();
        for n in [3, 2, 3, 2] {
            let mut notify = notify(&mut solo, n, &format!("of {n}"));
            notify["read_receipt"] = true.into();
            assert_eq!(solo.ask(conns[usize::from(3 - n)], &notify)["kind"], "ack");
            rows.push(notify["id"].clone());
        }
        says(&mut solo, scoped, json!({"cmd":"inbox"}));
        let tell = |solo: &mut Solo, conn: ConnId, topic: &str| {
            let notify = notify(solo, 2, topic);
            solo.ask(conn, &notify)["kind"] == "ack"
        };
        assert!(!tell(&mut solo, conns[1], "no room"), "given is not yet read");
        if restart {
            solo.wait(5_000);
            solo.restart();
            scoped = solo.scoped("cal");
            conns = greeted(&mut solo);
        }
        let (reply, _, effects) = asks(&mut solo, scoped, json!({"cmd":"ack","up_to_seq":4}));
        assert_eq!(reply["acked_seq"], 4, "restart {restart}: {reply}");
        let told: Vec<Value> = sent(&effects).into_iter().map(|(_, envelope)| envelope).collect();
        let receipts = |told: &[Value]| {
            let receipts = told.iter().filter(|envelope| envelope["kind"] == "receipt");
            receipts.map(|envelope| envelope["ref"].clone()).collect::<Vec<Value>>()
        };
        // One after another to one peer: the first is on its way.
        let first = receipts(&told);
        assert_eq!(first, [rows[1].clone()], "restart {restart}: only what it was given");
        let of_outbox = |solo: &mut Solo| {
            let listed = solo.owned(json!({"cmd":"outbox"}))["outbox"].clone();
            listed.as_array().unwrap().iter().map(|row| row["to"].clone()).collect::<Vec<Value>>()
        };
        assert_eq!(of_outbox(&mut solo), [json!(agent_id(2)), json!(agent_id(2))], "restart {restart}");
        // The rows stay for the owner, and two of them may go when there is no room.
        assert_eq!(topics(&owned_rows(&mut solo)), ["of 3", "of 2", "of 3", "of 2"]);
        assert_eq!(["a", "b", "c"].map(|topic| tell(&mut solo, conns[1], topic)), [true, true, false]);
        assert_eq!(topics(&owned_rows(&mut solo)), ["of 3", "of 3", "a", "b"], "restart {restart}");
        let owner = solo.client();
        says(&mut solo, owner, json!({"cmd":"inbox"}));
        says(&mut solo, owner, json!({"cmd":"ack","up_to_seq":3}));
        assert_eq!(of_outbox(&mut solo).iter().filter(|to| **to == json!(agent_id(3))).count(), 2);
    }
}

// --- changes ---

// shows: IPC-SCO-1
#[test]
fn a_change_holds_at_once_for_those_who_are_attached() {
    let (mut solo, conns) = two();
    let client = socket(&mut solo, "cal", json!({"to":["peer3"]}));
    subscribes(&mut solo, client, json!({"answer":["delegate"],"kinds":["notify"]}));
    let delegate = solo.envelope("delegate", json!({"task":"t"}));
    let (_, effects) = solo.request(conns[1], &delegate);
    assert_eq!(lines(&effects, client), Vec::<Value>::new());
    let sees = |solo: &mut Solo, n: u8| {
        let notify = notify(solo, n, "t");
        !lines(&solo.one_way(conns[usize::from(3 - n)], &notify), client).is_empty()
    };
    assert_eq!((sees(&mut solo, 2), sees(&mut solo, 3)), (false, true));
    // What waits for an agent that may answer it is handed over.
    let (_, effects) = solo.owner(definition("socket_set", "cal", json!({"to":["peer2"]})));
    let offered = lines(&effects, client).into_iter().filter(|line| line["answer"] == true).count();
    assert_eq!((sees(&mut solo, 2), sees(&mut solo, 3)), (true, false));
    assert_eq!(offered, 1, "the delegation that waits");
    solo.owned(definition("socket_set", "cal", json!({"kinds":["query"]})));
    assert!(!sees(&mut solo, 2));
    solo.owned(definition("socket_set", "cal", json!({"allow":["send"]})));
    assert!(
        !sees(&mut solo, 2) && says(&mut solo, client, json!({"cmd":"inbox"}))["error"] == "not_authorized"
    );
    let query = solo.envelope("query", json!({"question":"q"}));
    let (stream, effects) = solo.request(conns[1], &query);
    assert!(lines(&effects, client).is_empty() && answer_on(&effects, stream).is_some(), "nobody answers");
    assert_eq!(says(&mut solo, client, json!({"cmd":"outbox"}))["ok"], true);
    let rules: Vec<&str> =
        solo.audit.iter().filter(|row| row.event == Event::Socket).map(|row| &*row.rule).collect();
    assert_eq!(rules, ["added", "changed"], "repeats are counted");

    // Removed: nothing is left, and a new one of that name begins anew.
    let watcher = solo.scoped("cal");
    solo.owned(json!({"cmd":"socket_remove","name":"cal"}));
    for client in [client, watcher, solo.scoped("cal")] {
        for cmd in ["send", "inbox", "subscribe", "outbox", "reply", "advertise"] {
            assert_eq!(says(&mut solo, client, json!({"cmd":cmd}))["error"], "not_authorized", "{cmd}");
        }
    }
    assert!(solo.scopes.is_empty() && solo.owned(json!({"cmd":"sockets"}))["sockets"] == json!([]));
    let new = socket(&mut solo, "cal", json!({}));
    assert_eq!(says(&mut solo, new, json!({"cmd":"inbox"}))["messages"].as_array().unwrap().len(), 7);
}

// shows: IPC-SCO-1, IPC-SCO-2, IPC-SCO-13
#[test]
fn definitions_are_checked_bounded_written_first_and_outlive_the_daemon() {
    let (mut solo, _) = two();
    solo.trust(4, "blocked");
    for (more, error) in [
        (json!({"name":"Cal"}), "invalid_command"),
        (json!({"name":""}), "invalid_command"),
        (json!({"name":"a/b"}), "invalid_command"),
        (json!({"name":"x".repeat(33)}), "invalid_command"),
        (json!({"allow":[]}), "invalid_command"),
        (json!({"allow":["fly"]}), "invalid_command"),
        (json!({"allow":null}), "invalid_command"),
        (json!({"to":["nobody"]}), "peer_not_found"),
        (json!({"to":[agent_id(4)]}), "not_authorized"),
        (json!({"kinds":vec!["k"; 65]}), "invalid_command"),
        (json!({"domains":[""]}), "invalid_command"),
        (json!({"uid":-1}), "invalid_command"),
    ] {
        let (reply, _) = solo.owner(definition("socket_add", "cal", more.clone()));
        assert_eq!(reply["error"], error, "{more}: {reply}");
        assert!(solo.scopes.is_empty());
    }
    for cmd in ["socket_set", "socket_remove"] {
        assert_eq!(solo.owner(definition(cmd, "cal", json!({}))).0["error"], "not_found");
    }
    let all = json!({"allow":["advertise","send","send"],"to":["peer2",agent_id(3)],"kinds":["query"],
        "domains":["family"],"uid":1001,"messages_per_minute":60});
    solo.stall = true;
    let owner = solo.client();
    let mut add = definition("socket_add", "cal", all);
    add["req_id"] = "a".into();
    assert!(lines(&solo.say(owner, &add), owner).is_empty(), "not before it is there");
    let reply = lines(&solo.go_on(), owner).remove(0);
    assert_eq!((&reply["name"], reply["path"].is_string()), (&json!("cal"), true));
    assert_eq!(solo.owner(add).0["error"], "invalid_command", "there is one already");
    let expected = json!([{"name":"cal","allow":["send","advertise"],"to":[agent_id(2),agent_id(3)],
        "kinds":["query"],"domains":["family"],"uid":1001,"messages_per_minute":60}]);
    for _ in 0..2 {
        assert_eq!(solo.owned(json!({"cmd":"sockets"}))["sockets"], expected);
        solo.restart();
    }
    for n in 1..limits::SOCKETS_MAX {
        solo.owned(definition("socket_add", &format!("s{n}"), json!({})));
    }
    assert_eq!(solo.owner(definition("socket_add", "more", json!({}))).0["error"], "overloaded");
}
