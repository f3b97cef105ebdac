//! The client against a daemon of a few lines: what it sends, and what it makes of what it hears.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

use crate::{
    Agent, Answer, Client, ClientError, Delegate, DelegationFilter, DelegationState, Direction, End, Event,
    Hello, OutboxFilter, Query, SendOptions, SendState, Subscription, Trust,
};

mod lasting;
mod owner;
mod raw;
mod topics;

const ME: &str = "ed25519.00000000000000000000000000000001";
const BOB: &str = "ed25519.00000000000000000000000000000002";

/// The daemon's end of one connection.
struct Fake {
    lines: Lines<BufReader<OwnedReadHalf>>,
    out: OwnedWriteHalf,
}

impl Fake {
    fn new(stream: UnixStream) -> Self {
        let (read, out) = stream.into_split();
        Self { lines: BufReader::new(read).lines(), out }
    }

    async fn accept(listener: &UnixListener) -> Self {
        let mut fake = Self::new(listener.accept().await.unwrap().0);
        let hello = fake.next().await;
        assert_eq!((&hello["cmd"], &hello["version"]), (&json!("hello"), &json!(2)));
        fake.ok(
            &hello,
            json!({"version": 2, "daemon_max_version": 2, "agent_id": ME, "features": ["progress"],
                   "daemon_version": "0.1.0", "new_field": {}}),
        )
        .await;
        fake
    }

    async fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next_line().await.unwrap().unwrap()).unwrap()
    }

    async fn say(&mut self, line: &Value) {
        self.out.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn ok(&mut self, command: &Value, mut fields: Value) {
        fields["ok"] = true.into();
        fields["req_id"] = command["req_id"].clone();
        self.say(&fields).await;
    }

    /// Reads a `reply` command, accepts it and gives its ref, kind and payload.
    async fn replied(&mut self) -> (String, String, Value) {
        let command = self.next().await;
        assert_eq!(command["cmd"], "reply", "{command}");
        self.ok(&command, json!({"msg_id": "m"})).await;
        let text = |field: &str| command[field].as_str().unwrap().to_owned();
        (text("ref"), text("kind"), command["payload"].clone())
    }

    async fn subscribed(&mut self) -> Value {
        let command = self.next().await;
        assert_eq!(command["cmd"], "subscribe");
        self.ok(&command, json!({"subscribed": true, "replayed": 0, "replay_to_seq": 0})).await;
        command
    }
}

fn envelope(id: &str, kind: &str, payload: Value) -> Value {
    json!({"v": 1, "id": id, "from": BOB, "to": ME, "ts": 1, "kind": kind, "ref": null, "payload": payload})
}

fn request(id: &str, kind: &str, payload: Value) -> Value {
    json!({"event": "inbound", "replay": false, "seq": 7, "buffered_at_ms": 1, "answer": true,
           "deadline_ms": 30_000, "envelope": envelope(id, kind, payload)})
}

async fn pair() -> (TempDir, UnixListener, Client, Fake) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("axon.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (client, fake) = tokio::join!(Client::connect(&path, Hello::default()), Fake::accept(&listener));
    (dir, listener, client.unwrap(), fake)
}

#[tokio::test]
async fn replies_find_their_command_in_any_order() {
    let (_dir, _listener, client, mut fake) = pair().await;
    assert_eq!(client.welcome().agent_id, ME);
    let daemon = async {
        let first = fake.next().await;
        let second = fake.next().await;
        assert_eq!(first["payload"], json!({"question": "one", "deadline_ms": 5}));
        let answer = |text: &str| envelope("r", "response", json!({"data": null, "summary": text}));
        fake.ok(&second, json!({"msg_id": "b", "response": answer("2")})).await;
        fake.ok(&first, json!({"msg_id": "a", "response": answer("1")})).await;
    };
    let query = Query { question: "one", deadline_ms: Some(5), ..Query::default() };
    let (one, two, ()) = tokio::join!(client.query("bob", &query), client.ask("bob", "two"), daemon);
    assert_eq!(one.unwrap().into_answer().unwrap().text("summary").unwrap(), "1");
    assert_eq!(two.unwrap(), "2");
}

// shows: IPC-ERR-2
#[tokio::test]
async fn failures_keep_their_code_and_sentence() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let daemon = async {
        let command = fake.next().await;
        fake.say(
            &json!({"ok": false, "req_id": command["req_id"], "error": "peer_not_found", "message": "who?"}),
        )
        .await;
        let command = fake.next().await;
        fake.say(&json!({"ok": false, "req_id": command["req_id"], "error": "brand_new", "message": "x"}))
            .await;
        let command = fake.next().await;
        let payload = json!({"code": "timeout", "message": "too slow", "retryable": true});
        fake.ok(&command, json!({"msg_id": "a", "response": envelope("r", "error", payload)})).await;
    };
    let calls = async { (client.ping("x").await, client.ping("y").await, client.ask("bob", "?").await) };
    let ((first, second, third), ()) = tokio::join!(calls, daemon);
    let first = first.unwrap_err();
    assert_eq!((first.code(), first.exit_code(), first.to_string().as_str()), ("peer_not_found", 5, "who?"));
    assert_eq!(
        (second.as_ref().unwrap_err().code(), second.as_ref().unwrap_err().exit_code()),
        ("brand_new", 1)
    );
    let third = third.unwrap_err();
    assert!(matches!(&third, ClientError::Peer { from, id, .. } if from == BOB && id == "a"));
    assert_eq!((third.code(), third.exit_code()), ("timeout", 3));
}

#[tokio::test]
async fn no_daemon_and_a_full_daemon_are_told_apart() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("axon.sock");
    let error = Client::connect(&path, Hello::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon { .. }), "{error}");
    let listener = UnixListener::bind(&path).unwrap();
    let full = async {
        let mut fake = Fake::new(listener.accept().await.unwrap().0);
        fake.say(&json!({"ok": false, "error": "too_many_clients", "message": "64 are here"})).await;
    };
    let (client, ()) = tokio::join!(Client::connect(&path, Hello::default()), full);
    assert_eq!(client.unwrap_err().code(), "too_many_clients");
    drop(listener);
    let error = Client::connect(&path, Hello::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon { .. }), "a stale socket: {error}");
}

#[tokio::test]
async fn a_lost_connection_ends_calls_and_events() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.ping("bob").await }
    });
    fake.next().await;
    drop(fake);
    assert!(matches!(waiting.await.unwrap(), Err(ClientError::Closed)));
    assert!(matches!(client.next_event().await, Err(ClientError::Closed)));
    assert!(matches!(client.status().await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn nonsense_ends_the_connection_with_a_word() {
    let (_dir, _listener, client, mut fake) = pair().await;
    fake.out.write_all(b"{not json\n").await.unwrap();
    assert!(matches!(client.next_event().await, Err(ClientError::Protocol(_))));
}

#[tokio::test]
async fn an_overlong_command_is_refused_before_it_is_sent() {
    let (_dir, _listener, client, _fake) = pair().await;
    let error = client.ask("bob", &"x".repeat(70_000)).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("command_too_large", 2));
}

#[tokio::test]
async fn full_events_do_not_hold_up_replies_and_are_told_of() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let daemon = async {
        fake.subscribed().await;
        for seq in 1..=100 {
            let mut event = request("n", "notify", json!({"topic": "t", "data": "x".repeat(60_000)}));
            event["answer"] = false.into();
            event["seq"] = seq.into();
            fake.say(&event).await;
        }
        let status = fake.next().await;
        fake.ok(&status, json!({"uptime_secs": 5})).await;
    };
    let calls = async {
        client.subscribe(&Subscription::default()).await.unwrap();
        client.status().await.unwrap().uptime_secs
    };
    assert_eq!(tokio::join!(calls, daemon).0, 5);
    let mut last = 0;
    loop {
        match client.next_event().await.unwrap() {
            Event::Inbound(inbound) => last = inbound.seq,
            Event::SlowConsumer { resume_from_seq } => {
                assert!(last > 10 && last < 100);
                assert_eq!(resume_from_seq, last + 1);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_agent_answers_acks_and_reports() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let agent = Agent::new(|request| async move {
        assert_eq!(request.sender().trust, (request.message().kind == "query").then_some(Trust::Known));
        Answer::text(request.subject().to_uppercase())
    });
    let daemon = async {
        let subscription = fake.subscribed().await;
        assert_eq!(subscription["answer"], json!(["query", "delegate", "cancel"]));
        assert_eq!(subscription["capacity"], 16);
        let mut query = request("q", "query", json!({"question": "hi there", "max_tokens": 1}));
        query["trust"] = "known".into();
        fake.say(&query).await;
        let (to, kind, payload) = fake.replied().await;
        assert_eq!((to.as_str(), kind.as_str()), ("q", "response"));
        assert_eq!(payload, json!({"data": null, "summary": "HI T", "truncated": true}));
        fake.say(&request("d", "delegate", json!({"task": "shout"}))).await;
        assert_eq!(fake.replied().await, ("d".into(), "ack".into(), json!({"accepted": true})));
        let (to, kind, payload) = fake.replied().await;
        assert_eq!((to.as_str(), kind.as_str()), ("d", "result"));
        assert_eq!(payload, json!({"status": "completed", "outcome": "SHOUT"}));
        drop(fake);
    };
    let (why, ()) = tokio::join!(agent.serve(&client), daemon);
    assert!(matches!(why, ClientError::Closed));
}

#[tokio::test]
async fn a_cancelled_delegation_ends_and_says_so() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let tidied = Arc::new(AtomicUsize::new(0));
    let seen = tidied.clone();
    let agent = Agent::new(move |request| {
        let tidied = tidied.clone();
        async move {
            assert_eq!(request.ended().await, End::Cancelled);
            tidied.fetch_add(1, Ordering::Relaxed);
            Answer::text("not wanted any more")
        }
    });
    let daemon = async {
        fake.subscribed().await;
        fake.say(&request("d", "delegate", json!({"task": "wait"}))).await;
        assert_eq!(fake.replied().await.1, "ack");
        for (run, accepted) in [("d", true), ("other", false)] {
            let mut cancel = request("c", "cancel", json!({}));
            cancel["envelope"]["ref"] = run.into();
            fake.say(&cancel).await;
            // No result: the ack ends it.
            let (to, kind, payload) = fake.replied().await;
            assert_eq!((to.as_str(), kind.as_str(), &payload["accepted"]), ("c", "ack", &json!(accepted)));
        }
        drop(fake);
    };
    tokio::join!(agent.serve(&client), daemon);
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_withdrawn_query_and_a_panic_are_survived() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let agent = Agent::new(|request| async move {
        match request.subject() {
            "panic" => panic!("as asked"),
            "wait" => std::future::pending().await,
            other => Answer::text(other),
        }
    })
    .kinds(["query"]);
    let daemon = async {
        assert_eq!(fake.subscribed().await["answer"], json!(["query"]));
        fake.say(&request("w", "query", json!({"question": "wait"}))).await;
        fake.say(&json!({"event": "withdrawn", "ref": "w", "reason": "timeout"})).await;
        fake.say(&request("p", "query", json!({"question": "panic"}))).await;
        let (to, kind, payload) = fake.replied().await;
        assert_eq!((to.as_str(), kind.as_str(), &payload["code"]), ("p", "error", &json!("internal")));
        fake.say(&request("q", "query", json!({"question": "fine"}))).await;
        assert_eq!(fake.replied().await.0, "q");
        drop(fake);
    };
    tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(agent.serve(&client), daemon) })
        .await
        .unwrap();
}

#[tokio::test]
async fn work_outlives_the_daemon_and_reports_to_the_next() {
    let (_dir, listener, client, mut fake) = pair().await;
    let (go, wait) = tokio::sync::watch::channel(false);
    let agent = Agent::new(move |_| {
        let mut wait = wait.clone();
        async move {
            wait.wait_for(|go| *go).await.ok();
            Answer::text("done")
        }
    });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let daemon = async {
        fake.subscribed().await;
        fake.say(&request("d", "delegate", json!({"task": "long"}))).await;
        assert_eq!(fake.replied().await.1, "ack");
        drop(fake);
        let mut fake = Fake::accept(&listener).await;
        fake.subscribed().await;
        go.send(true).unwrap();
        let (to, kind, payload) = fake.replied().await;
        assert_eq!((to.as_str(), kind.as_str(), &payload["outcome"]), ("d", "result", &json!("done")));
        stop.send(()).unwrap();
        fake
    };
    let stop = async { stopped.await.unwrap() };
    let mut losses = 0;
    let (served, fake) = tokio::join!(agent.serve_until(client, stop, |_| losses += 1), daemon);
    served.unwrap();
    drop(fake);
    assert_eq!(losses, 1);
}

#[tokio::test]
async fn a_message_may_be_held_and_its_state_is_told() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let daemon = async {
        let notify = fake.next().await;
        assert_eq!((&notify["hold_secs"], &notify["read_receipt"]), (&json!(3600), &json!(true)));
        assert_eq!(notify["payload"], json!({"topic": "door", "data": "open", "importance": "high"}));
        fake.ok(&notify, json!({"msg_id": "m", "state": "held"})).await;
        let delegate = fake.next().await;
        assert_eq!((&delegate["hold_secs"], delegate.get("read_receipt")), (&json!(2), None));
        fake.ok(&delegate, json!({"msg_id": "d", "state": "held"})).await;
        // Without options nothing is said of them.
        let plain = fake.next().await;
        assert!(plain.get("hold_secs").is_none() && plain.get("read_receipt").is_none(), "{plain}");
        fake.ok(&plain, json!({"msg_id": "p", "state": "brand_new"})).await;
    };
    let calls = async {
        let hour = SendOptions::hold(Duration::from_secs(3600)).with_read_receipt();
        let held = client.notify_with("bob", "door", "open", Some("high"), hour).await.unwrap();
        assert!(held.is_held() && held.send_state() == Some(SendState::Held));
        let short = SendOptions::hold(Duration::from_millis(1001));
        let task = Delegate { task: "t", ..Delegate::default() };
        let held = client.delegate_with("bob", &task, short).await.unwrap();
        assert!(held.into_answer().unwrap_err().to_string().contains("held"));
        let sent = client.notify("bob", "door", "open", None).await.unwrap();
        assert_eq!(sent.send_state(), Some(SendState::Other("brand_new".to_owned())));
    };
    tokio::join!(calls, daemon);
}

#[tokio::test]
async fn the_outbox_is_asked_and_emptied() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let row = json!({"id": "m", "to": BOB, "kind": "notify", "state": "refused", "since_ms": 5,
                     "expires_ms": 9, "attempts": 2, "reason": "cancelled by its sender", "new": 1});
    let daemon = async {
        let all = fake.next().await;
        assert_eq!(all, json!({"cmd": "outbox", "req_id": all["req_id"]}));
        fake.ok(&all, json!({"outbox": [row], "has_more": true})).await;
        let some = fake.next().await;
        let wanted = json!({"cmd": "outbox", "req_id": some["req_id"], "to": "bob", "state": "held",
                            "limit": 7});
        assert_eq!(some, wanted);
        fake.ok(&some, json!({"outbox": [], "has_more": false})).await;
        let cancel = fake.next().await;
        assert_eq!((&cancel["cmd"], &cancel["cancel"]), (&json!("outbox"), &json!("m")));
        fake.ok(&cancel, json!({"cancelled": true})).await;
        let cancel = fake.next().await;
        let failure = json!({"ok": false, "req_id": cancel["req_id"], "error": "not_found", "message": "no"});
        fake.say(&failure).await;
    };
    let calls = async {
        let page = client.outbox(&OutboxFilter::default()).await.unwrap();
        assert!(page.has_more && page.messages.len() == 1);
        let row = &page.messages[0];
        assert_eq!((&row.state, row.attempts, row.expires_ms), (&SendState::Refused, 2, 9));
        assert_eq!(row.reason.as_deref(), Some("cancelled by its sender"));
        let shown = serde_json::to_value(&page).unwrap();
        assert_eq!(shown["outbox"][0]["state"], "refused");
        let some = OutboxFilter {
            to: Some("bob".to_owned()),
            state: Some(SendState::Held),
            limit: Some(7),
            ..OutboxFilter::default()
        };
        assert!(client.outbox(&some).await.unwrap().messages.is_empty());
        client.cancel_held("m").await.unwrap();
        assert_eq!(client.cancel_held("x").await.unwrap_err().code(), "not_found");
    };
    tokio::join!(calls, daemon);
}

#[tokio::test]
async fn delegations_are_asked_and_watched() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let row = json!({"id": "d", "peer": BOB, "direction": "out", "task": "t", "priority": "normal",
                     "state": "running", "since_ms": 5, "deadline_ms": 9,
                     "progress": {"state": "running", "percent": 50}});
    let daemon = async {
        let ask = fake.next().await;
        let wanted = json!({"cmd": "delegations", "req_id": ask["req_id"], "id": "d", "direction": "out",
                            "watch": true});
        assert_eq!(ask, wanted);
        fake.ok(&ask, json!({"delegations": [row], "has_more": false})).await;
        for change in [
            json!({"event": "delegation", "delegation": {"id": "d", "peer": BOB, "direction": "out",
                   "state": "completed", "since_ms": 6, "result": {"status": "completed", "outcome": "x"}}}),
            json!({"event": "delivery", "id": "m", "state": "refused", "reason": "no"}),
            json!({"event": "delivery", "id": "n", "state": "read"}),
            // What is not as expected is no reason to give up.
            json!({"event": "delegation", "delegation": "d"}),
            json!({"event": "delivery", "id": 7, "state": {}}),
            json!({"event": "brand_new", "state": {}, "delegation": 1}),
        ] {
            fake.say(&change).await;
        }
    };
    let calls = async {
        let filter = DelegationFilter {
            id: Some("d".to_owned()),
            direction: Some(Direction::Out),
            watch: true,
            ..DelegationFilter::default()
        };
        let rows = client.delegations(&filter).await.unwrap().delegations;
        assert_eq!((rows[0].task.as_deref(), &rows[0].state), (Some("t"), &DelegationState::Running));
        assert!(!rows[0].state.is_ended() && rows[0].deadline_ms == Some(9));
        assert!(rows[0].progress.as_ref().unwrap().get().contains("50"));
        let Event::Delegation(row) = client.next_event().await.unwrap() else { panic!("a delegation") };
        assert!(row.state.is_ended() && row.task.is_none() && row.result.is_some());
        let Event::Delivery { id, state, reason } = client.next_event().await.unwrap() else {
            panic!("a delivery")
        };
        assert_eq!((id.as_str(), state, reason.as_deref()), ("m", SendState::Refused, Some("no")));
        let read = client.next_event().await.unwrap();
        assert!(matches!(read, Event::Delivery { state: SendState::Read, reason: None, .. }), "{read:?}");
        for name in ["delegation", "delivery", "brand_new"] {
            let Event::Other { name: other, .. } = client.next_event().await.unwrap() else { panic!() };
            assert_eq!(other, name);
        }
    };
    tokio::join!(calls, daemon);
}

#[tokio::test]
async fn too_many_changes_are_told_of_as_missed() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let daemon = async {
        let result = json!({"status": "completed", "outcome": "x".repeat(60_000)});
        let change = json!({"event": "delegation", "delegation": {"id": "d", "peer": BOB, "direction": "out",
                            "state": "completed", "result": result}});
        for _ in 0..100 {
            fake.say(&change).await;
        }
        let status = fake.next().await;
        fake.ok(&status, json!({})).await;
        // Once that was read, changes are told again.
        let ask = fake.next().await;
        fake.ok(&ask, json!({"delegations": []})).await;
        fake.say(&json!({"event": "delivery", "id": "m", "state": "read"})).await;
    };
    let calls = async {
        client.status().await.unwrap();
        let mut told = 0;
        while !matches!(client.next_event().await.unwrap(), Event::Missed) {
            told += 1;
        }
        assert!(told > 10 && told < 100, "{told}");
        client.delegations(&DelegationFilter::default()).await.unwrap();
        assert!(matches!(client.next_event().await.unwrap(), Event::Delivery { .. }));
    };
    tokio::join!(calls, daemon);
}

#[tokio::test]
async fn what_was_lost_is_told_and_adverts_may_stay() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let daemon = async {
        let inbox = fake.next().await;
        let lost = json!({"messages": [], "next_seq": null, "has_more": false, "lost_before_seq": 9});
        fake.ok(&inbox, lost).await;
        let inbox = fake.next().await;
        fake.ok(&inbox, json!({"messages": [], "next_seq": null, "has_more": false})).await;
        let subscribe = fake.next().await;
        let lost = json!({"subscribed": true, "replayed": 0, "replay_to_seq": 0, "lost_before_seq": 4});
        fake.ok(&subscribe, lost).await;
        let advertise = fake.next().await;
        assert_eq!((&advertise["persist"], &advertise["capabilities"]), (&json!(true), &json!({"a": 1})));
        fake.ok(&advertise, json!({"advertised": true})).await;
        let advertise = fake.next().await;
        assert!(advertise.get("persist").is_none(), "{advertise}");
        fake.ok(&advertise, json!({"advertised": true})).await;
    };
    let calls = async {
        let lost = client.inbox(None, None).await.unwrap();
        assert_eq!(lost.lost_before_seq, Some(9));
        assert_eq!(serde_json::to_value(&lost).unwrap()["lost_before_seq"], 9);
        let none = client.inbox(None, None).await.unwrap();
        assert!(serde_json::to_value(&none).unwrap().get("lost_before_seq").is_none());
        let subscribed = client.subscribe(&Subscription::default()).await.unwrap();
        assert_eq!(subscribed.lost_before_seq, Some(4));
        client.advertise_persistent(&json!({"a": 1})).await.unwrap();
        client.advertise(&json!({"a": 1})).await.unwrap();
    };
    tokio::join!(calls, daemon);
}
