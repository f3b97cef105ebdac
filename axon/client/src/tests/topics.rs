//! Topics: what is asked, and what is made of what comes.

use super::*;
use crate::{Publishers, TopicKeep, TopicSubscription};

/// Takes the next command without its `req_id`, and answers it with these fields.
async fn served(fake: &mut Fake, wanted: Value, fields: Value) {
    let mut command = fake.next().await;
    fake.ok(&command, fields).await;
    command.as_object_mut().unwrap().remove("req_id");
    assert_eq!(command, wanted);
}

#[tokio::test]
async fn topics_are_subscribed_published_and_left() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let daemon = async {
        let wanted = json!({"cmd": "subscribe_topic", "topic": "build.>"});
        served(&mut fake, wanted, json!({"subscribed": "build.>", "neighbours": 2, "since_seq": 7})).await;
        let wanted = json!({"cmd": "subscribe_topic", "topic": "a.*", "kept": true, "from": "any",
                            "history": true});
        served(&mut fake, wanted, json!({"subscribed": "a.*", "neighbours": 0, "since_seq": 8})).await;
        let payload = json!({"topic": "build.main", "seq": 40, "via": BOB, "via_trust": "known", "hops": 2, "age_ms": 9, "stranger": true,
                             "message": {"state": "failed"}, "new": 1});
        let inbound = |seq: u64, kind: &str, payload: Value| {
            json!({"event": "inbound", "replay": false, "seq": seq, "buffered_at_ms": 1,
                   "envelope": envelope("m", kind, payload)})
        };
        fake.say(&inbound(7, "topic.message", payload)).await;
        fake.say(&inbound(8, "notify", json!({"topic": "build.main", "data": 1}))).await;
        let wanted = json!({"cmd": "unsubscribe_topic", "topic": "build.>"});
        served(&mut fake, wanted, json!({"unsubscribed": true})).await;
        let wanted = json!({"cmd": "publish", "topic": "build.main", "payload": {"state": "ok"}});
        served(&mut fake, wanted, json!({"seq": 41, "neighbours": 2, "subscribers": 1})).await;
    };
    let calls = async {
        let subscribed = client.subscribe_topic(&TopicSubscription::to("build.>")).await.unwrap();
        assert_eq!((&*subscribed.subscribed, subscribed.neighbours, subscribed.since_seq), ("build.>", 2, 7));
        let from = Some(Publishers::Any);
        client
            .subscribe_topic(&TopicSubscription {
                kept: true,
                from,
                history: true,
                ..TopicSubscription::to("a.*")
            })
            .await
            .unwrap();
        let Event::Inbound(inbound) = client.next_event().await.unwrap() else { panic!("a message") };
        let said = inbound.topic().unwrap();
        assert_eq!(
            (&*said.topic, said.seq, said.via.as_deref(), said.hops),
            ("build.main", 40, Some(BOB), 2)
        );
        assert_eq!((said.via_trust.as_ref(), said.age_ms), (Some(&Trust::Known), 9));
        assert!(said.stranger && !said.history);
        assert_eq!(said.message::<Value>().unwrap(), json!({"state": "failed"}));
        assert!(said.message::<Vec<u8>>().is_err());
        let Event::Inbound(note) = client.next_event().await.unwrap() else { panic!("a message") };
        assert!(note.topic().is_none());
        assert!(client.unsubscribe_topic("build.>").await.unwrap());
        let published = client.publish("build.main", &json!({"state": "ok"})).await.unwrap();
        assert_eq!((published.seq, published.neighbours, published.subscribers), (41, 2, 1));
    };
    tokio::join!(calls, daemon);
}

#[tokio::test]
async fn topics_are_listed_and_kept() {
    let (_dir, _listener, client, mut fake) = pair().await;
    let daemon = async {
        let topics = json!({
            "subscriptions": [{"topic": "build.>", "kept": true, "from": "any", "history": false,
                               "consumer": "ci", "since_ms": 5}],
            "keeps": [{"topic": "build.>", "last": 1000, "hours": null, "messages": 2, "bytes": 70}],
            "relay": [">"],
            "seen": [{"topic": "build.main", "messages": 3, "publishers": 2, "last_ms": 9}]});
        served(&mut fake, json!({"cmd": "topics"}), topics).await;
        let peers = json!([{"id": BOB, "name": "bob", "filters": ["build.>"], "keeps": [], "lazy": 3}]);
        served(&mut fake, json!({"cmd": "topic_peers"}), json!({"peers": peers})).await;
        let wanted = json!({"cmd": "topic_peers", "topic": "build.main"});
        served(&mut fake, wanted, json!({"peers": []})).await;
        let kept = json!({"kept": "build.>"});
        let wanted = json!({"cmd": "topic_keep", "topic": "build.>", "last": 50, "hours": 24});
        served(&mut fake, wanted, kept.clone()).await;
        let wanted = json!({"cmd": "topic_keep", "topic": "build.>"});
        served(&mut fake, wanted, kept.clone()).await;
        let wanted = json!({"cmd": "topic_keep", "topic": "build.>", "off": true});
        served(&mut fake, wanted, kept).await;
    };
    let calls = async {
        let topics = client.topics().await.unwrap();
        assert_eq!(
            (topics.subscriptions[0].consumer.as_deref(), topics.subscriptions[0].kept),
            (Some("ci"), true)
        );
        assert_eq!((topics.keeps[0].last, topics.keeps[0].hours), (Some(1000), None));
        assert_eq!((topics.relay.len(), topics.seen[0].messages), (1, 3));
        let peers = client.topic_peers(None).await.unwrap();
        assert_eq!((peers[0].name.as_deref(), peers[0].lazy), (Some("bob"), 3));
        assert!(client.topic_peers(Some("build.main")).await.unwrap().is_empty());
        client.topic_keep("build.>", Some(TopicKeep { last: Some(50), hours: Some(24) })).await.unwrap();
        client.topic_keep("build.>", Some(TopicKeep::default())).await.unwrap();
        client.topic_keep("build.>", None).await.unwrap();
    };
    tokio::join!(calls, daemon);
}
