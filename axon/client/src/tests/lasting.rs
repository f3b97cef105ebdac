//! What survives the end of a connection: a link, a stream of messages, the wait for a delegation.

use std::sync::Mutex;

use tokio::task::JoinHandle;

use super::*;
use crate::{Link, Messages};

/// What does not end in time has failed.
async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work).await.unwrap()
}

fn row(seq: u64, kind: &str) -> Value {
    json!({"seq": seq, "buffered_at_ms": 1, "trust": "known", "from_name": "bob",
           "envelope": envelope(&format!("m{seq}"), kind, json!({"topic": "t", "data": seq}))})
}

fn inbound(seq: u64) -> Value {
    let mut event = row(seq, "notify");
    event["event"] = "inbound".into();
    event["replay"] = false.into();
    event
}

impl Fake {
    async fn next_subscribed(&mut self, events: &[Value]) -> Value {
        self.next_subscribed_with(events, json!({})).await
    }

    async fn next_subscribed_with(&mut self, events: &[Value], mut reply: Value) -> Value {
        let command = self.next().await;
        assert_eq!(command["cmd"], "subscribe", "{command}");
        for event in events {
            self.say(event).await;
        }
        reply["subscribed"] = true.into();
        reply["replayed"] = events.len().into();
        self.ok(&command, reply).await;
        command
    }

    async fn page(&mut self, rows: &[Value], has_more: bool) {
        let command = self.next().await;
        assert_eq!((&command["cmd"], command.get("kinds")), (&json!("inbox"), None));
        let next = rows.last().map(|row| row["seq"].clone());
        self.ok(&command, json!({"messages": rows, "next_seq": next, "has_more": has_more})).await;
    }

    async fn acked(&mut self, up_to_seq: u64) {
        let command = self.next().await;
        assert_eq!((&command["cmd"], &command["up_to_seq"]), (&json!("ack"), &json!(up_to_seq)));
        self.ok(&command, json!({"acked_seq": up_to_seq})).await;
    }
}

/// A stream of these kinds, and where the daemon listens.
async fn stream(kinds: Option<&str>) -> (TempDir, UnixListener, Messages, Fake, Arc<Mutex<Vec<u64>>>) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("axon.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (messages, fake) = tokio::join!(Messages::open(&path, Hello::default()), Fake::accept(&listener));
    let lost = Arc::new(Mutex::new(Vec::new()));
    let told = lost.clone();
    let mut messages = messages.unwrap().on_lost(move |seq| told.lock().unwrap().push(seq));
    if let Some(kinds) = kinds {
        messages = messages.kinds([kinds]);
    }
    (dir, listener, messages, fake, lost)
}

async fn next(messages: &mut Messages) -> u64 {
    messages.next().await.unwrap().seq
}

#[tokio::test]
async fn a_stream_reads_the_inbox_after_slow_consumer_and_goes_on() {
    let (_dir, _listener, mut messages, mut fake, _) = stream(Some("notify")).await;
    let daemon = async {
        assert_eq!(fake.next_subscribed(&[inbound(1)]).await["kinds"], json!(["notify"]));
        fake.say(&json!({"event": "slow_consumer", "resume_from_seq": 2})).await;
        fake.page(&[row(1, "notify"), row(2, "notify"), row(3, "result"), row(4, "notify")], true).await;
        fake.acked(4).await;
        fake.page(&[row(5, "notify")], false).await;
        fake.say(&inbound(5)).await;
        fake.say(&inbound(6)).await;
    };
    let reader = async {
        assert_eq!(next(&mut messages).await, 1);
        assert_eq!((next(&mut messages).await, next(&mut messages).await), (2, 4));
        assert_eq!(messages.ack(4).await.unwrap(), 4);
        assert_eq!((next(&mut messages).await, next(&mut messages).await), (5, 6));
    };
    within(async { tokio::join!(daemon, reader) }).await;
}

#[tokio::test]
async fn what_is_not_acknowledged_bounds_how_far_a_stream_reads() {
    let (_dir, _listener, mut messages, mut fake, _) = stream(Some("notify")).await;
    let daemon = async {
        fake.next_subscribed(&[inbound(1)]).await;
        fake.say(&json!({"event": "slow_consumer", "resume_from_seq": 2})).await;
        fake.page(&[row(1, "notify")], true).await;
        fake.acked(1).await;
        // Of these none is wanted, and none was given.
        fake.page(&[row(2, "result"), row(3, "result")], true).await;
        fake.acked(3).await;
        fake.page(&[row(4, "notify")], false).await;
    };
    let reader = async {
        assert_eq!(next(&mut messages).await, 1);
        let error = messages.next().await.unwrap_err();
        assert!(matches!(error, ClientError::NotAcked { rows: 1 }), "{error}");
        assert_eq!((error.code(), error.ends_connection()), ("not_acked", false));
        messages.ack(1).await.unwrap();
        assert_eq!(next(&mut messages).await, 4);
    };
    within(async { tokio::join!(daemon, reader) }).await;
}

#[tokio::test]
async fn a_stream_goes_on_over_a_new_connection_and_tells_what_is_lost() {
    let (_dir, listener, mut messages, mut fake, lost) = stream(None).await;
    let daemon = async {
        fake.next_subscribed(&[inbound(1), inbound(2)]).await;
        assert_eq!(fake.next().await["cmd"], "ack");
        // Whether it was acknowledged is not known: it is told again.
        drop(fake);
        let mut fake = Fake::accept(&listener).await;
        fake.acked(1).await;
        let lost = json!({"lost_before_seq": 7});
        fake.next_subscribed_with(&[inbound(2), inbound(7)], lost.clone()).await;
        drop(fake);
        let mut fake = Fake::accept(&listener).await;
        fake.next_subscribed_with(&[inbound(7), inbound(8)], lost).await;
        fake
    };
    let reader = async {
        assert_eq!((next(&mut messages).await, next(&mut messages).await), (1, 2));
        assert_eq!(messages.ack(1).await.unwrap(), 1);
        assert_eq!(messages.lost_before_seq(), None);
        assert_eq!(next(&mut messages).await, 7);
        assert_eq!((messages.lost_before_seq(), &*lost.lock().unwrap()), (Some(7), &vec![7]));
        assert_eq!(next(&mut messages).await, 8);
        assert_eq!(*lost.lock().unwrap(), [7], "it is told once");
    };
    within(async { tokio::join!(daemon, reader) }).await;
}

#[tokio::test]
async fn a_link_says_again_what_holds_and_tells_that_events_may_be_missing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("axon.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (link, fake) = tokio::join!(Link::open(&path, Hello::default()), Fake::accept(&listener));
    let (link, mut fake) = (link.unwrap(), fake);
    let daemon = async {
        for expected in ["advertise", "delegations"] {
            let command = fake.next().await;
            assert_eq!(command["cmd"], expected);
            fake.ok(&command, json!({"delegations": []})).await;
        }
        assert_eq!(fake.next().await["cmd"], "whoami");
        drop(fake);
        let mut fake = Fake::accept(&listener).await;
        for (expected, field) in [("advertise", "capabilities"), ("delegations", "watch")] {
            let command = fake.next().await;
            assert_eq!(command["cmd"], expected);
            assert!(!command[field].is_null(), "{command}");
            fake.ok(&command, json!({"delegations": []})).await;
        }
        fake
    };
    let user = async {
        link.advertise(&json!({"agent_name": "x"})).await.unwrap();
        link.watch().await.unwrap();
        // What was under way fails: nobody knows whether it was done.
        let error = link.client().await.unwrap().whoami().await.unwrap_err();
        assert!(matches!(error, ClientError::Closed), "{error}");
        assert!(matches!(link.next_event().await.unwrap(), Event::Missed));
    };
    let (fake, ()) = within(async { tokio::join!(daemon, user) }).await;
    let waiting: JoinHandle<_> = tokio::spawn({
        let link = link.clone();
        async move { link.next_event().await }
    });
    link.close().await;
    assert!(matches!(waiting.await.unwrap(), Err(ClientError::Closed)));
    assert!(matches!(link.client().await, Err(ClientError::Closed)));
    drop(fake);
}

#[tokio::test]
async fn a_wait_asks_again_after_each_change_and_each_connection() {
    let (_dir, listener, client, _fake) = pair().await;
    let asked = |state: &str| {
        json!({"delegations": [{"id": "d", "peer": BOB, "direction": "out", "task": "t", "priority": "normal",
                                "state": state, "since_ms": 1}], "has_more": false})
    };
    let daemon = async {
        let mut fake = Fake::accept(&listener).await;
        let command = fake.next().await;
        assert_eq!((&command["id"], &command["watch"]), (&json!("d"), &json!(true)));
        fake.ok(&command, asked("accepted")).await;
        drop(fake);
        let mut fake = Fake::accept(&listener).await;
        let command = fake.next().await;
        fake.ok(&command, asked("running")).await;
        for id in ["other", "d"] {
            let mut row = asked("completed")["delegations"][0].clone();
            row["id"] = id.into();
            fake.say(&json!({"event": "delegation", "delegation": row})).await;
        }
        let command = fake.next().await;
        fake.ok(&command, asked("completed")).await;
    };
    let (ended, ()) = within(async { tokio::join!(client.wait("d", None), daemon) }).await;
    assert_eq!(ended.unwrap().state, DelegationState::Completed);

    let daemon = async {
        let mut fake = Fake::accept(&listener).await;
        let command = fake.next().await;
        fake.ok(&command, json!({"delegations": [], "has_more": false})).await;
        let mut fake = Fake::accept(&listener).await;
        let command = fake.next().await;
        fake.ok(&command, asked("running")).await;
        fake
    };
    let waits = async {
        assert_eq!(client.wait("d", None).await.unwrap_err().code(), "not_found");
        let late = client.wait("d", Some(Duration::from_millis(200))).await.unwrap_err();
        assert_eq!((late.code(), late.exit_code()), ("timeout", 3));
    };
    within(async { tokio::join!(daemon, waits) }).await;
}

#[tokio::test]
async fn what_becomes_of_a_delegation_is_told_apart() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let task = Delegate { task: "t", ..Delegate::default() };
    let daemon = async {
        for fields in [
            json!({"state": "held"}),
            json!({"response": envelope("a", "ack", json!({"accepted": true, "state": "queued"}))}),
            json!({"response": envelope("a", "ack", json!({"accepted": true}))}),
            json!({"response": envelope("a", "ack", json!({"accepted": false, "reason": "no ladder"}))}),
        ] {
            let command = fake.next().await;
            let mut fields = fields;
            fields["msg_id"] = "d".into();
            fake.ok(&command, fields).await;
        }
    };
    let user = async {
        for state in ["held", "queued", "accepted"] {
            let given = client.delegate("bob", &task).await.unwrap().into_given().unwrap();
            assert_eq!((&*given.id, given.state.as_str()), ("d", state));
        }
        let error = client.delegate("bob", &task).await.unwrap().into_given().unwrap_err();
        assert_eq!((error.code(), error.exit_code(), error.ends_connection()), ("declined", 4, false));
        assert_eq!(error.to_string(), "the work is declined: no ladder");
    };
    within(async { tokio::join!(daemon, user) }).await;
}
