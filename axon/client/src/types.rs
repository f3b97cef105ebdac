//! What is said over the socket, typed. Names are those of `spec/IPC.md`; unknown fields are passed over.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    ClientError, Delegation, DelegationState, Given, Knock, PresenceEvent, SendState, TopicCounts, Trust,
};

/// How a client introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Whose cursor in the inbox this client reads and moves; at most 64 bytes.
    pub consumer: String,
}

impl Hello {
    /// As this consumer.
    pub fn consumer(name: impl Into<String>) -> Self {
        Self { consumer: name.into() }
    }
}

impl Default for Hello {
    fn default() -> Self {
        Self::consumer("default")
    }
}

/// The daemon's reply to hello.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Welcome {
    /// The IPC version that both speak.
    pub version: u32,
    /// The highest that the daemon speaks.
    pub daemon_max_version: u32,
    /// Who this daemon is.
    pub agent_id: String,
    /// What else the daemon can do.
    #[serde(default)]
    pub features: Vec<String>,
    /// The daemon's own version.
    #[serde(default)]
    pub daemon_version: Option<String>,
}

/// Who this daemon is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Whoami {
    /// Its agent id.
    pub agent_id: String,
    /// Its public key in standard base64.
    pub public_key: String,
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The daemon's version.
    pub version: String,
    /// The IPC version spoken.
    pub ipc_version: u32,
    /// Seconds since it started.
    pub uptime_secs: u64,
    /// Where it listens for peers.
    #[serde(default)]
    pub listen: Vec<String>,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its root directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}

/// What the daemon counts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Status {
    /// Seconds since it started.
    pub uptime_secs: u64,
    /// Peers with a connection.
    pub peers_connected: u64,
    /// Messages sent to peers.
    pub messages_sent: u64,
    /// Messages taken from peers.
    pub messages_received: u64,
    /// Clients of the socket.
    pub clients: u64,
    /// Clients that answer requests.
    pub answerers: u64,
    /// Requests being worked on.
    pub active_tasks: u64,
    /// Requests that all answerers together take at once.
    pub capacity: u64,
    /// Requests of peers that are not answered yet.
    pub open_requests: u64,
    /// Of those, the ones that wait for an answerer.
    pub queued: u64,
    /// Messages that this consumer has not acknowledged.
    pub inbox_unread: u64,
    /// Messages that are held for peers.
    pub held: u64,
    /// Messages that were turned away, by reason.
    pub dropped: Dropped,
    /// Whether all inbound work is paused.
    pub paused: bool,
    /// Knocks that wait for the owner's word.
    pub knocks: u64,
    /// Invites that are open.
    pub invites: u64,
    /// Connections of strangers, who may only knock.
    pub strangers: u64,
    /// What it has to do with topics, where it offers them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topics: Option<TopicCounts>,
}

/// Messages that the daemon turned away, by reason.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Dropped {
    /// Seen before.
    pub replayed: u64,
    /// On a stream that does not suit their kind.
    pub wrong_stream: u64,
    /// From somebody who may not.
    pub not_authorized: u64,
    /// Before hello was done.
    pub before_hello: u64,
    /// No envelope.
    pub malformed: u64,
    /// Over a bound.
    pub over_limit: u64,
    /// Not kept, because the disk was full or failing.
    pub not_kept: u64,
    /// Refused by a policy.
    pub refused: u64,
    /// Over a rate or bound of a policy.
    pub limited: u64,
}

/// A peer that the daemon knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Peer {
    /// Its agent id.
    pub id: String,
    /// Its name, from `[[peers]]` or as it claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether the name is only what it claims.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub claimed: bool,
    /// Where it is reached.
    #[serde(default)]
    pub addr: Option<String>,
    /// `connected`, `connecting` or `disconnected`.
    pub status: String,
    /// Round trip time in milliseconds, where it is known.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// `static`, `contact`, `mdns` or `cached`.
    pub source: String,
    /// How far it is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Since when it is connected, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// What it offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    /// Whether its hello travelled in 0-RTT.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub early: bool,
    /// Whether its work is paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Why the last attempt to reach it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Messages that are held for it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held: u64,
    /// Messages of it that this consumer has not acknowledged, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<u64>,
}

/// The peers, and what waits of each in the inbox.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeersUnread {
    /// The peers.
    pub peers: Vec<Peer>,
    /// There are more unread messages than the daemon looked at: each number is at least so many.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unread_more: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "so serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A message between agents: the envelope of `spec/WIRE_FORMAT.md`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// Protocol version.
    pub v: u32,
    /// Its own id.
    pub id: String,
    /// Who sent it; proven by the connection it came on.
    pub from: String,
    /// Whom it is for.
    pub to: String,
    /// When it was made, in Unix milliseconds.
    pub ts: u64,
    /// What it is.
    pub kind: String,
    /// The id of the message that this one answers.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The rest, by kind; always a JSON object.
    pub payload: Box<RawValue>,
}

impl Message {
    /// The payload as a type of your own.
    pub fn payload<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ClientError> {
        serde_json::from_str(self.payload.get()).map_err(|error| {
            ClientError::Protocol(format!("the payload of this {} is not as expected: {error}", self.kind))
        })
    }

    /// One text field of the payload.
    pub fn text(&self, field: &str) -> Option<String> {
        let mut fields: serde_json::Map<String, serde_json::Value> = self.payload().ok()?;
        match fields.remove(field) {
            Some(serde_json::Value::String(text)) => Some(text),
            _ => None,
        }
    }
}

/// What `send` takes beside peer, kind and payload.
#[derive(Debug, Clone, Default)]
pub struct SendOptions {
    /// The message that this one refers to.
    pub reference: Option<String>,
    /// How long to wait for the inline answer (30000 when none is given; a query says it in its payload).
    pub deadline_ms: Option<u64>,
    /// How long the daemon keeps the message if the peer cannot be reached, and delivers it when it can; only
    /// for `notify` and `delegate`. Without it an unreachable peer is an error at once.
    pub hold_secs: Option<u64>,
    /// Whether to be told when an agent has read it, as [`SendState::Read`]; only for `notify`. The reader's
    /// configuration may forbid it.
    pub read_receipt: bool,
}

impl SendOptions {
    /// Held for so long if the peer cannot be reached; counted in whole seconds, at least one.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use axon_client::SendOptions;
    ///
    /// let options = SendOptions::hold(Duration::from_secs(3600)).with_read_receipt();
    /// assert_eq!((options.hold_secs, options.read_receipt), (Some(3600), true));
    /// ```
    pub fn hold(time: Duration) -> Self {
        let secs = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
        Self { hold_secs: Some(secs.max(1)), ..Self::default() }
    }

    /// And told when it was read.
    #[must_use]
    pub fn with_read_receipt(mut self) -> Self {
        self.read_receipt = true;
        self
    }
}

/// What came of a `send`.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Sent {
    /// The id of the message sent.
    pub msg_id: String,
    /// The peer's answer, for a kind that is answered. It may be of kind `error`.
    #[serde(default)]
    pub response: Option<Message>,
    /// How far it has come, for a kind that is not answered and for what may be held: see
    /// [`send_state`](Self::send_state).
    #[serde(default)]
    pub state: Option<String>,
}

impl Sent {
    /// How far the message has come, where the daemon says so.
    pub fn send_state(&self) -> Option<SendState> {
        self.state.as_deref().map(SendState::from)
    }

    /// Whether it waits in the outbox for its peer; it has no answer then.
    pub fn is_held(&self) -> bool {
        self.send_state() == Some(SendState::Held)
    }

    /// What became of a delegation: one that the peer does not take is [`ClientError::Declined`], and an
    /// `error` envelope [`ClientError::Peer`].
    pub fn into_given(self) -> Result<Given, ClientError> {
        let id = self.msg_id.clone();
        if self.is_held() {
            return Ok(Given { id, state: DelegationState::Held });
        }
        let ack = self.into_answer()?;
        if let Some(reason) = ack.refusal() {
            return Err(ClientError::Declined { reason, from: ack.from, id });
        }
        let queued = ack.text("state").as_deref() == Some("queued");
        Ok(Given { id, state: if queued { DelegationState::Queued } else { DelegationState::Accepted } })
    }

    /// The peer's answer; an `error` envelope becomes [`ClientError::Peer`].
    pub fn into_answer(self) -> Result<Message, ClientError> {
        #[derive(Deserialize)]
        struct Refused {
            #[serde(default)]
            code: Option<String>,
            #[serde(default)]
            message: Option<String>,
            #[serde(default)]
            retryable: bool,
        }
        let Some(answer) = self.response else {
            let why = if self.is_held() {
                "the message is held, and has no answer yet"
            } else {
                "the reply to send has no response"
            };
            return Err(ClientError::Protocol(why.to_owned()));
        };
        if answer.kind != "error" {
            return Ok(answer);
        }
        let refused: Refused = answer.payload()?;
        let code = refused.code.unwrap_or_else(|| "internal".to_owned());
        Err(ClientError::Peer {
            message: refused.message.unwrap_or_else(|| format!("the peer answered with the error {code}")),
            code,
            retryable: refused.retryable,
            from: answer.from,
            id: self.msg_id,
        })
    }
}

/// A question.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Query<'a> {
    /// What is asked.
    pub question: &'a str,
    /// What it is about, such as `family.calendar`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<&'a str>,
    /// How long the answer may be; none or 0 means any length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// How long the answer may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// A piece of work.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Delegate<'a> {
    /// What is to be done.
    pub task: &'a str,
    /// What it helps to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<&'a RawValue>,
    /// `normal` or `urgent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<&'a str>,
    /// Whether a `result` is wanted (it is, when nothing is said).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_back: Option<bool>,
    /// How long the work may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// What a client wants to be told; a second subscription replaces the first.
///
/// `answer` without `kinds` delivers the requests that this client is to answer and nothing else.
///
/// ```
/// use axon_client::Subscription;
///
/// let notes = Subscription { kinds: Some(vec!["notify".into()]), ..Subscription::default() };
/// assert_eq!(serde_json::to_string(&notes).unwrap(), r#"{"kinds":["notify"]}"#);
/// ```
#[derive(Debug, Clone, Default, Serialize)]
pub struct Subscription {
    /// Only messages of these kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Vec<String>>,
    /// Whether to begin with what this consumer has not acknowledged (it does, when nothing is said).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<bool>,
    /// Requests that this client answers: of `query`, `delegate`, `cancel`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answer: Vec<String>,
    /// Domains that it serves; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// How many requests it takes at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// Whether a request that was handed to it stays its own after it has disconnected.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lease: bool,
}

/// The daemon's reply to `subscribe`; the replayed messages came before it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Subscribed {
    /// How many messages were replayed.
    pub replayed: u64,
    /// The number of the last of them.
    pub replay_to_seq: u64,
    /// Something that this consumer had not read went out of the inbox, which is bounded: the oldest that is
    /// left, or the next to come. Told until an acknowledgement goes past it.
    pub lost_before_seq: Option<u64>,
}

/// What is known of a message's sender beside its id. A daemon of before trust levels says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Sender {
    /// How far it is trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Its name, as its owner here calls it or as it claims.
    pub from_name: Option<String>,
    /// Whether the name is only what it claims: never decide by it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub claimed: bool,
}

/// One kept message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Kept {
    /// Its number; numbers only grow.
    pub seq: u64,
    /// When it came, in Unix milliseconds.
    pub buffered_at_ms: u64,
    /// What is known of who sent it.
    #[serde(flatten)]
    pub sender: Sender,
    /// The message.
    pub envelope: Message,
}

/// A part of the inbox, from this consumer's cursor on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Inbox {
    /// The messages, oldest first.
    pub messages: Vec<Kept>,
    /// The number of the last of them: what to acknowledge. None when there are none.
    #[serde(default)]
    pub next_seq: Option<u64>,
    /// Whether there is more.
    #[serde(default)]
    pub has_more: bool,
    /// Something that this consumer had not read went out of the inbox, which is bounded: the oldest that is
    /// left, or the next to come. Told until an acknowledgement goes past it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_before_seq: Option<u64>,
}

/// What the daemon tells without being asked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A message from a peer.
    Inbound(Box<Inbound>),
    /// Events came faster than they were taken. Read the inbox from the cursor on; live events follow after
    /// that.
    SlowConsumer {
        /// The first message that was not delivered.
        resume_from_seq: u64,
    },
    /// A request that was handed to this client needs no answer any more.
    Withdrawn {
        /// The request.
        reference: String,
        /// `timeout`, `cancelled` or `peer_gone`.
        reason: String,
    },
    /// A message of this consumer has come further.
    Delivery {
        /// The message.
        id: String,
        /// How far it has come.
        state: SendState,
        /// Why it was refused.
        reason: Option<String>,
    },
    /// A delegation has changed, without its task; only for those who
    /// [watch](crate::DelegationFilter::watch).
    Delegation(Box<Delegation>),
    /// A stranger has knocked, or a known peer has a new key, and the owner is to decide; only on the main
    /// socket, for who subscribed to all kinds or to `knock`.
    Knock(Box<Knock>),
    /// Something has become of a peer; only for those who [watch](crate::Client::watch_presence).
    Presence(Box<PresenceEvent>),
    /// Events of deliveries, delegations or knocks came faster than they were taken, and some are lost: ask
    /// for what is wanted again. Those that follow are told.
    Missed,
    /// An event that this crate does not know.
    Other {
        /// Its name.
        name: String,
        /// The whole line.
        line: String,
    },
}

/// A message from a peer, as an event.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inbound {
    /// Whether it had come before this client subscribed.
    pub replay: bool,
    /// Its number in the inbox, to be acknowledged.
    pub seq: u64,
    /// When it came, in Unix milliseconds.
    pub buffered_at_ms: u64,
    /// What is known of who sent it.
    pub sender: Sender,
    /// The message.
    pub envelope: Message,
    /// Whether this client is the one to answer it.
    pub answer: bool,
    /// How much time is left to answer, if there is a limit.
    pub deadline_ms: Option<u64>,
    /// Whether it had waited for somebody to answer it.
    pub queued: bool,
}

/// An event's line, with the fields of all events.
#[derive(Deserialize)]
pub(crate) struct EventLine {
    event: String,
    #[serde(default)]
    replay: bool,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    buffered_at_ms: u64,
    // Each by itself: a flattened part has every other field of a long line copied first.
    #[serde(default)]
    trust: Option<Trust>,
    #[serde(default)]
    from_name: Option<String>,
    #[serde(default)]
    claimed: bool,
    #[serde(default)]
    envelope: Option<Message>,
    #[serde(default)]
    answer: bool,
    #[serde(default)]
    deadline_ms: Option<u64>,
    #[serde(default)]
    queued: bool,
    #[serde(default)]
    resume_from_seq: u64,
    #[serde(rename = "ref", default)]
    reference: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

impl EventLine {
    pub(crate) fn into_event(self, line: &str) -> Event {
        if let Some(event) = change(&self.event, line) {
            return event;
        }
        match (self.event.as_str(), self.envelope, self.reference) {
            ("inbound", Some(envelope), _) => Event::Inbound(Box::new(Inbound {
                replay: self.replay,
                seq: self.seq,
                buffered_at_ms: self.buffered_at_ms,
                sender: Sender { trust: self.trust, from_name: self.from_name, claimed: self.claimed },
                envelope,
                answer: self.answer,
                deadline_ms: self.deadline_ms,
                queued: self.queued,
            })),
            ("slow_consumer", ..) => Event::SlowConsumer { resume_from_seq: self.resume_from_seq },
            ("withdrawn", _, Some(reference)) => {
                Event::Withdrawn { reference, reason: self.reason.unwrap_or_default() }
            }
            _ => Event::Other { name: self.event, line: line.to_owned() },
        }
    }
}

/// An event of something else than a message. One that is not as expected is left to those who know it.
fn change(name: &str, line: &str) -> Option<Event> {
    #[derive(Deserialize)]
    struct DeliveryLine {
        id: String,
        state: SendState,
        #[serde(default)]
        reason: Option<String>,
    }
    #[derive(Deserialize)]
    struct DelegationLine {
        delegation: Box<Delegation>,
    }
    match name {
        "delivery" => {
            let DeliveryLine { id, state, reason } = serde_json::from_str(line).ok()?;
            Some(Event::Delivery { id, state, reason })
        }
        "delegation" => {
            let line: DelegationLine = serde_json::from_str(line).ok()?;
            Some(Event::Delegation(line.delegation))
        }
        "knock" => serde_json::from_str(line).ok().map(|knock| Event::Knock(Box::new(knock))),
        "presence" => serde_json::from_str(line).ok().map(|told| Event::Presence(Box::new(told))),
        _ => None,
    }
}
