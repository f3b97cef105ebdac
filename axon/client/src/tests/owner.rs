//! The owner's commands, and what is told of senders.

use super::*;
use crate::{
    Connect, Decision, Intent, InviteOptions, PairState, PolicyCheck, Right, Scope, Sender, SetTrust,
};

/// Takes the next command without its `req_id`, and answers it with these fields.
async fn served(fake: &mut Fake, wanted: Value, fields: Value) {
    let mut command = fake.next().await;
    fake.ok(&command, fields).await;
    command.as_object_mut().unwrap().remove("req_id");
    assert_eq!(command, wanted);
}

#[tokio::test]
async fn two_are_paired_by_a_link() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let daemon = async {
        let invited = json!({"link": "axon://x?k=SECRET", "agent_id": ME, "invite": "0011223344556677",
                             "expires_ms": 9, "uses": 1, "trust": "known", "new": 1});
        served(&mut fake, json!({"cmd": "invite"}), invited.clone()).await;
        let wanted = json!({"cmd": "invite", "expires_secs": 90, "uses": 2, "trust": "trusted",
                            "label": "laptop", "addrs": ["h:1"]});
        served(&mut fake, wanted, invited).await;
        let open = json!([{"invite": "0011223344556677", "expires_ms": 9, "uses": 1, "trust": "known"}]);
        served(&mut fake, json!({"cmd": "invites"}), json!({"invites": open})).await;
        let id = "0011223344556677";
        served(&mut fake, json!({"cmd": "revoke_invite", "id": id}), json!({"invite": id})).await;
        let paired = json!({"agent_id": BOB, "state": "paired", "trust": "known", "level": "trusted",
                            "constraints": {"kinds": ["query"], "until_ms": 7}, "message": "done"});
        served(&mut fake, json!({"cmd": "connect", "link": "axon://x?k=SECRET"}), paired).await;
        let wanted = json!({"cmd": "connect", "link": "axon://y", "name": "bob", "trust": "unknown",
                            "message": "hi", "intent": {"category": "family", "action": "ask"},
                            "session": "stream", "deadline_ms": 5});
        let pending = json!({"agent_id": BOB, "state": "pending", "trust": "unknown", "message": "wait"});
        served(&mut fake, wanted, pending).await;
    };
    let calls = async {
        let invited = client.invite(&InviteOptions::default()).await.unwrap();
        assert!(invited.link.ends_with("SECRET") && !format!("{invited:?}").contains("SECRET"));
        let options = InviteOptions {
            expires: Some(Duration::from_millis(89_001)),
            uses: Some(2),
            trust: Some(Trust::Trusted),
            label: Some("laptop".to_owned()),
            addrs: vec!["h:1".to_owned()],
        };
        client.invite(&options).await.unwrap();
        let open = client.invites().await.unwrap();
        assert_eq!((open[0].trust.clone(), open[0].label.clone()), (Trust::Known, None));
        client.revoke_invite("0011223344556677").await.unwrap();
        let connect = Connect { link: &invited.link, ..Connect::default() };
        assert!(!format!("{connect:?}").contains("SECRET"));
        let done = client.pair(&connect).await.unwrap();
        assert_eq!((done.state, done.level), (PairState::Paired, Some(Trust::Trusted)));
        assert_eq!(done.constraints.unwrap().until_ms, Some(7));
        let connect = Connect {
            link: "axon://y",
            name: Some("bob"),
            trust: Some(Trust::Unknown),
            message: Some("hi"),
            intent: Some(Intent { category: "family".to_owned(), action: Some("ask".to_owned()) }),
            session: Some("stream"),
            deadline_ms: Some(5),
        };
        let done = client.pair(&connect).await.unwrap();
        assert_eq!((done.state, done.constraints), (PairState::Pending, None));
    };
    tokio::join!(calls, daemon);
}

#[tokio::test]
async fn knocks_are_told_listed_and_judged() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let daemon = async {
        let told = json!({"event": "knock", "id": "00000000", "agent_id": BOB, "name": "bob", "claimed": true,
                          "intent": {"category": "family"}, "at_ms": 5});
        fake.say(&told).await;
        // One that is not as expected is left to who knows it.
        fake.say(&json!({"event": "knock", "id": 5})).await;
        let knock = json!({"id": "00000000", "agent_id": BOB, "pubkey": "k", "addrs": ["h:1"], "claimed": true,
                           "at_ms": 5, "count": 3, "rekey_of": ME});
        served(&mut fake, json!({"cmd": "knocks"}), json!({"knocks": [knock]})).await;
        let approved = json!({"agent_id": BOB, "trust": "known"});
        served(&mut fake, json!({"cmd": "approve", "id": "0000"}), approved.clone()).await;
        let wanted = json!({"cmd": "approve", "id": "0000", "trust": "trusted", "name": "bob"});
        served(&mut fake, wanted, approved).await;
        served(&mut fake, json!({"cmd": "deny", "id": "0000"}), json!({"agent_id": BOB})).await;
    };
    let calls = async {
        let Event::Knock(knock) = client.next_event().await.unwrap() else { panic!("a knock") };
        assert!(knock.claimed && knock.intent.unwrap().action.is_none() && knock.count == 1);
        assert!(matches!(client.next_event().await.unwrap(), Event::Other { .. }));
        let knocks = client.knocks().await.unwrap();
        assert_eq!((knocks[0].count, knocks[0].rekey_of.as_deref()), (3, Some(ME)));
        client.approve("0000", None, None).await.unwrap();
        client.approve("0000", Some(Trust::Trusted), Some("bob")).await.unwrap();
        assert_eq!(client.deny("0000").await.unwrap(), BOB);
    };
    tokio::join!(calls, daemon);
}

#[tokio::test]
async fn contacts_and_policies_are_asked_and_changed() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let daemon = async {
        let set = json!({"agent_id": BOB, "trust": "blocked", "was": "known"});
        served(&mut fake, json!({"cmd": "trust", "peer": "bob", "trust": "blocked"}), set).await;
        let wanted = json!({"cmd": "trust", "peer": BOB, "trust": "trusted", "name": "bob", "why": "w",
                            "expires_secs": 60});
        served(&mut fake, wanted, json!({"agent_id": BOB, "trust": "trusted", "was": null})).await;
        let rows = json!([{"agent_id": BOB, "addrs": [], "trust": "brand_new", "source": "both"}]);
        served(&mut fake, json!({"cmd": "contacts"}), json!({"paused": true, "contacts": rows})).await;
        served(&mut fake, json!({"cmd": "forget", "peer": "bob"}), json!({"agent_id": BOB})).await;
        let ruling = json!({"decision": "limit", "level": "unknown", "rule": "r", "message": "m",
                            "retry_after_ms": 5});
        let wanted = json!({"cmd": "policy_check", "peer": "bob", "kind": "query", "domain": "d",
                            "direction": "out"});
        served(&mut fake, wanted, ruling).await;
        let paused = json!({"paused": false, "peers": [BOB]});
        served(&mut fake, json!({"cmd": "pause", "peer": "bob"}), paused).await;
        served(&mut fake, json!({"cmd": "resume"}), json!({"paused": false, "peers": []})).await;
        let new = json!({"agent_id": BOB, "old_agent_id": ME});
        served(&mut fake, json!({"cmd": "rekey"}), new).await;
        served(&mut fake, json!({"cmd": "reload"}), json!({"reloaded": true})).await;
    };
    let calls = async {
        let set = client.trust(&SetTrust::level("bob", Trust::Blocked)).await.unwrap();
        assert_eq!((set.trust, set.was), (Trust::Blocked, Some(Trust::Known)));
        let why = SetTrust {
            name: Some("bob"),
            why: Some("w"),
            expires: Some(Duration::from_secs(60)),
            ..SetTrust::level(BOB, Trust::Trusted)
        };
        assert_eq!(client.trust(&why).await.unwrap().was, None);
        let contacts = client.contacts().await.unwrap();
        assert!(contacts.paused && contacts.contacts[0].trust == Trust::Other("brand_new".to_owned()));
        assert_eq!(client.forget("bob").await.unwrap(), BOB);
        let check = PolicyCheck { peer: "bob", kind: "query", domain: Some("d"), direction: None };
        let ruling = client.policy_check(&check.outward()).await.unwrap();
        assert_eq!((ruling.decision, ruling.retry_after_ms), (Decision::Limit, Some(5)));
        assert_eq!(client.pause(Some("bob")).await.unwrap().peers, [BOB]);
        assert!(!client.resume(None).await.unwrap().paused);
        assert_eq!(client.rekey().await.unwrap().old_agent_id, ME);
        client.reload().await.unwrap();
    };
    tokio::join!(calls, daemon);
}

#[tokio::test]
async fn a_scoped_socket_is_made_and_changed_in_part() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let daemon = async {
        let wanted = json!({"cmd": "socket_add", "name": "box", "allow": ["send", "answer"], "to": ["bob"]});
        served(&mut fake, wanted, json!({"name": "box", "path": "/r/sockets/box/axon.sock"})).await;
        let row = json!({"name": "box", "allow": ["send", "answer"], "to": [BOB], "messages_per_minute": 0,
                         "path": "/r/sockets/box/axon.sock"});
        served(&mut fake, json!({"cmd": "sockets"}), json!({"sockets": [row]})).await;
        let wanted = json!({"cmd": "socket_set", "name": "box", "allow": ["send", "answer"], "to": [BOB],
                            "uid": 7, "messages_per_minute": 0});
        served(&mut fake, wanted, json!({"name": "box", "path": "p"})).await;
        served(&mut fake, json!({"cmd": "socket_remove", "name": "box"}), json!({"name": "box"})).await;
    };
    let calls = async {
        let scope = Scope {
            name: "box".to_owned(),
            allow: vec![Right::Send, Right::Answer],
            to: Some(vec!["bob".to_owned()]),
            ..Scope::default()
        };
        assert!(client.socket_add(&scope).await.unwrap().ends_with("box/axon.sock"));
        let there = client.sockets().await.unwrap().remove(0);
        let path = client.socket_set(&Scope { uid: Some(7), ..there.scope() }).await.unwrap();
        assert_eq!(path, "p");
        client.socket_remove("box").await.unwrap();
    };
    tokio::join!(calls, daemon);
}

#[tokio::test]
async fn messages_say_how_far_their_sender_is_trusted() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let row = |more: Value| {
        let mut row = json!({"seq": 3, "buffered_at_ms": 4,
                             "envelope": envelope("m", "notify", json!({"a": 1}))});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let daemon = async {
        let mut told = row(json!({"event": "inbound", "trust": "unknown", "from_name": "bob",
                                  "claimed": true}));
        told["later"] = json!({"a": [1]});
        fake.say(&told).await;
        let rows = [row(json!({"trust": "known", "from_name": null})), row(json!({"later": {"b": 1e300}}))];
        let inbox = json!({"messages": rows, "next_seq": 3, "has_more": false});
        served(&mut fake, json!({"cmd": "inbox"}), inbox).await;
        let peer = json!({"id": BOB, "status": "connected", "source": "contact", "trust": "trusted"});
        served(&mut fake, json!({"cmd": "peers"}), json!({"peers": [peer]})).await;
        let status = json!({"paused": true, "knocks": 1, "dropped": {"refused": 2, "limited": 3}});
        served(&mut fake, json!({"cmd": "status"}), status).await;
    };
    let calls = async {
        let Event::Inbound(told) = client.next_event().await.unwrap() else { panic!("a message") };
        assert_eq!(told.sender.trust, Some(Trust::Unknown));
        assert!(told.sender.claimed && told.sender.from_name.as_deref() == Some("bob"));
        let inbox = client.inbox(None, None).await.unwrap();
        assert_eq!(inbox.messages[0].sender.trust, Some(Trust::Known));
        // A daemon of before trust levels says nothing of it.
        assert_eq!(inbox.messages[1].sender, Sender::default());
        assert_eq!(inbox.messages[1].envelope.payload.get(), r#"{"a":1}"#);
        let shown = serde_json::to_value(&inbox).unwrap();
        assert_eq!(
            (&shown["messages"][0]["trust"], &shown["messages"][0]["seq"]),
            (&json!("known"), &json!(3))
        );
        assert!(shown["messages"][0].get("claimed").is_none() && shown["messages"][0]["from_name"].is_null());
        assert_eq!(client.peers().await.unwrap()[0].trust, Some(Trust::Trusted));
        let status = client.status().await.unwrap();
        assert!(status.paused && status.knocks == 1 && status.dropped.limited == 3);
    };
    tokio::join!(calls, daemon);
}
