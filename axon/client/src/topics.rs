//! Topics: messages that go over several hops to whoever has subscribed. Names are those of `spec/IPC.md`;
//! words that this crate does not know stay text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::client::{Client, Nothing};
use crate::types::Message;
use crate::words::words;
use crate::{ClientError, Inbound, Trust};

/// The kind of the messages that the daemon makes of what was published.
const KIND: &str = "topic.message";

words! {
    /// Whose messages a subscription is for.
    Publishers {
        /// Those of this daemon and of its peers.
        Peers = "peers";
        /// Also those of agents that are no peers here, as far as a rule lets them publish.
        Any = "any";
    }
}

/// What is subscribed to, and how. The same topic again replaces what was said before.
///
/// ```
/// use axon_client::TopicSubscription;
///
/// let builds = TopicSubscription { kept: true, ..TopicSubscription::to("build.>") };
/// assert_eq!(serde_json::to_string(&builds).unwrap(), r#"{"topic":"build.>","kept":true}"#);
/// ```
#[derive(Debug, Clone, Serialize)]
pub struct TopicSubscription {
    /// A name, or a filter: `*` stands for one level, `>` at the end for all that follow.
    pub topic: String,
    /// False: it ends with this connection, and what comes is shown and not stored. True: it belongs to the
    /// consumer until it is unsubscribed, and what comes waits in the inbox.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// Whose messages; those of peers when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Publishers>,
    /// Whether to begin with the history, which takes that this daemon keeps the topic:
    /// [`Client::topic_keep`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub history: bool,
}

impl TopicSubscription {
    /// To what peers publish from now on, for as long as this connection lasts.
    pub fn to(topic: impl Into<String>) -> Self {
        Self { topic: topic.into(), kept: false, from: None, history: false }
    }
}

/// The daemon's reply to `subscribe_topic`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopicSubscribed {
    /// What was subscribed to.
    pub subscribed: String,
    /// Neighbours that have to do with it: connected peers that offer topics.
    #[serde(default)]
    pub neighbours: u64,
    /// Its messages have this number, or higher ones.
    #[serde(default)]
    pub since_seq: u64,
}

/// The daemon's reply to `publish`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Published {
    /// The message's number among all that this agent has published.
    pub seq: u64,
    /// Neighbours that it is passed on to.
    #[serde(default)]
    pub neighbours: u64,
    /// Subscriptions at this daemon that it matches.
    #[serde(default)]
    pub subscribers: u64,
}

/// What this daemon has to do with topics.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Topics {
    /// What its agents subscribed to.
    pub subscriptions: Vec<TopicRow>,
    /// Whose history it keeps.
    pub keeps: Vec<TopicKept>,
    /// Filters of the topics that it passes on though nobody here subscribes.
    pub relay: Vec<String>,
    /// Topics of which something came or went since it started.
    pub seen: Vec<TopicSeen>,
}

/// What the daemon counts of topics since its start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TopicCounts {
    /// Connected peers that offer topics.
    pub neighbours: u64,
    /// Subscriptions of its agents.
    pub subscriptions: u64,
    /// Messages that its agents published.
    pub published: u64,
    /// Messages that it gave to its agents.
    pub delivered: u64,
    /// Messages that it passed on.
    pub relayed: u64,
    /// Messages that it turned away, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// One subscription.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopicRow {
    /// The name or filter.
    pub topic: String,
    /// Whether it outlives its connection.
    #[serde(default)]
    pub kept: bool,
    /// Whose messages.
    pub from: Publishers,
    /// Whether it began with the history.
    #[serde(default)]
    pub history: bool,
    /// Whose it is; none where it is a connection's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// Since when it is there, in Unix milliseconds.
    #[serde(default)]
    pub since_ms: u64,
}

/// A topic whose history is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopicKept {
    /// The name or filter.
    pub topic: String,
    /// At most so many messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Not for longer than so many hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<u64>,
    /// Messages that are kept now.
    #[serde(default)]
    pub messages: u64,
    /// Their bytes.
    #[serde(default)]
    pub bytes: u64,
}

/// A topic of which something came or went.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopicSeen {
    /// Its name.
    pub topic: String,
    /// Messages since the daemon started.
    #[serde(default)]
    pub messages: u64,
    /// How many published them.
    #[serde(default)]
    pub publishers: u64,
    /// When the last came, in Unix milliseconds.
    #[serde(default)]
    pub last_ms: u64,
}

/// A neighbour: a connected peer that offers topics.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopicPeer {
    /// Its agent id.
    pub id: String,
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it wants.
    #[serde(default)]
    pub filters: Vec<String>,
    /// Whose history it keeps.
    #[serde(default)]
    pub keeps: Vec<String>,
    /// Trees in which it is told of messages, and given them only when it asks.
    #[serde(default)]
    pub lazy: u64,
}

/// How much of a topic's history this daemon keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicKeep {
    /// At most so many messages, 1 to 100,000; when neither is said, 1000.
    pub last: Option<u64>,
    /// Not for longer than so many hours, 1 to 8760.
    pub hours: Option<u64>,
}

/// What came over a topic: the payload of a message of kind `topic.message`, whose `from` is the publisher.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct TopicMessage {
    /// The topic's name.
    pub topic: String,
    /// Its number among all that this publisher has published.
    pub seq: u64,
    /// The neighbour that it came from; none where it was published at this daemon.
    #[serde(default)]
    pub via: Option<String>,
    /// How far that neighbour is trusted.
    #[serde(default)]
    pub via_trust: Option<Trust>,
    /// Over how many connections it came.
    #[serde(default)]
    pub hops: u16,
    /// How long ago it was published when it came, in milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// The publisher is no peer here: look twice at what it says.
    #[serde(default)]
    pub stranger: bool,
    /// It comes from what was kept, not as it was published.
    #[serde(default)]
    pub history: bool,
    /// What was published; always a JSON object.
    pub message: Box<RawValue>,
}

impl TopicMessage {
    /// What was published, as a type of your own.
    pub fn message<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ClientError> {
        serde_json::from_str(self.message.get()).map_err(|error| {
            ClientError::Protocol(format!("this message of {} is not as expected: {error}", self.topic))
        })
    }
}

impl Message {
    /// What came over a topic; none for messages of other kinds.
    pub fn topic(&self) -> Option<TopicMessage> {
        (self.kind == KIND).then(|| self.payload().ok())?
    }
}

impl Inbound {
    /// What came over a topic; none for messages of other kinds.
    pub fn topic(&self) -> Option<TopicMessage> {
        self.envelope.topic()
    }
}

impl Client {
    /// Subscribes to a topic: what is published comes as [`Event::Inbound`](crate::Event::Inbound).
    ///
    /// With [`kept`](TopicSubscription::kept) it waits in the inbox instead, for any client of this consumer
    /// that reads it or subscribes.
    ///
    /// ```no_run
    /// # async fn example(client: axon_client::Client) -> Result<(), axon_client::ClientError> {
    /// use axon_client::{Event, TopicSubscription};
    ///
    /// client.subscribe_topic(&TopicSubscription::to("build.>")).await?;
    /// while let Event::Inbound(inbound) = client.next_event().await? {
    ///     if let Some(said) = inbound.topic() {
    ///         println!("{} of {}: {}", said.topic, inbound.envelope.from, said.message);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe_topic(
        &self,
        subscription: &TopicSubscription,
    ) -> Result<TopicSubscribed, ClientError> {
        self.quick("subscribe_topic", subscription).await
    }

    /// Ends a subscription, of this connection and of its consumer; gives whether there was one. Once this
    /// has returned, no event of it comes.
    pub async fn unsubscribe_topic(&self, topic: &str) -> Result<bool, ClientError> {
        #[derive(Deserialize)]
        struct Reply {
            unsubscribed: bool,
        }
        self.quick::<Reply>("unsubscribe_topic", ByTopic { topic: Some(topic) })
            .await
            .map(|reply| reply.unsubscribed)
    }

    /// Publishes a message, which must become a JSON object. It is signed and on its way when this returns;
    /// who gets it is not told.
    pub async fn publish(
        &self,
        topic: &str,
        message: &(impl Serialize + ?Sized),
    ) -> Result<Published, ClientError> {
        #[derive(Serialize)]
        struct Body<'a, P: ?Sized> {
            topic: &'a str,
            payload: &'a P,
        }
        self.quick("publish", Body { topic, payload: message }).await
    }

    /// Subscriptions, what is kept, what is relayed, and topics that were seen.
    pub async fn topics(&self) -> Result<Topics, ClientError> {
        self.quick("topics", Nothing {}).await
    }

    /// The neighbours, or those that want this topic.
    pub async fn topic_peers(&self, topic: Option<&str>) -> Result<Vec<TopicPeer>, ClientError> {
        #[derive(Deserialize)]
        struct Reply {
            peers: Vec<TopicPeer>,
        }
        self.quick::<Reply>("topic_peers", ByTopic { topic }).await.map(|reply| reply.peers)
    }

    /// Has the daemon keep what comes of these topics, or, without `keep`, no longer. The owner's word; it
    /// outlives the daemon.
    pub async fn topic_keep(&self, topic: &str, keep: Option<TopicKeep>) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            topic: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            last: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            hours: Option<u64>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            off: bool,
        }
        let TopicKeep { last, hours } = keep.unwrap_or_default();
        let body = Body { topic, last, hours, off: keep.is_none() };
        self.quick::<serde::de::IgnoredAny>("topic_keep", body).await.map(drop)
    }
}

#[derive(Serialize)]
struct ByTopic<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
}
