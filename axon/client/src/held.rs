//! What outlives a connection: messages held for a peer, and the ledger of delegations. Names are those of
//! `spec/IPC.md`; words that this crate does not know stay text.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::words::words;

words! {
    /// How far a message has come.
    ///
    /// ```
    /// use axon_client::SendState;
    ///
    /// assert_eq!(SendState::from("held"), SendState::Held);
    /// assert_eq!(SendState::from("brand_new").as_str(), "brand_new");
    /// ```
    SendState {
        /// It is kept here, on disk, until the peer can be reached.
        Held = "held";
        /// It was handed to the transport, and the peer's daemon says nothing about what became of it.
        Sent = "sent";
        /// The peer's daemon has it on disk.
        Delivered = "delivered";
        /// An agent has acknowledged it.
        Read = "read";
        /// The peer could not be reached in the time that it was held for.
        Expired = "expired";
        /// It will not be delivered; the row or event says why.
        Refused = "refused";
    }
}

words! {
    /// How far a delegation is.
    DelegationState {
        /// It waits here until the peer can be reached.
        Held = "held";
        /// It went to the peer, or, as one for us, to an agent, and is not answered yet.
        Sent = "sent";
        /// It waits for an agent.
        Queued = "queued";
        /// An agent has taken it.
        Accepted = "accepted";
        /// An agent has told that it is at work.
        Running = "running";
        /// It is done.
        Completed = "completed";
        /// It was tried and could not be done.
        Failed = "failed";
        /// A part of it is done.
        Partial = "partial";
        /// Its sender took it back.
        Cancelled = "cancelled";
        /// It was declined.
        Refused = "refused";
        /// Its time ran out. A result that still comes is taken.
        Expired = "expired";
    }
}

impl DelegationState {
    /// Whether no more is to come, except for a late result of one that has expired.
    pub fn is_ended(&self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Partial | Self::Cancelled | Self::Refused | Self::Expired
        )
    }
}

words! {
    /// Who gave a delegation to whom.
    Direction {
        /// A peer gave it to us.
        In = "in";
        /// We gave it to a peer.
        Out = "out";
    }
}

/// What became at first of a result that was reported.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Reported {
    /// The result's id.
    pub msg_id: String,
    /// `delivered`, `sent` or `held`; none where the delegator wants no result.
    #[serde(default)]
    pub state: Option<SendState>,
}

/// Work that a peer has taken on, or that is held for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Given {
    /// Its id, by which it is [waited for](crate::Client::wait).
    pub id: String,
    /// `accepted`, `queued` or `held`.
    pub state: DelegationState,
}

/// Which rows of the outbox to give; all of them when nothing is said.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OutboxFilter {
    /// Only the message with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Only messages to this peer: id, prefix or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Only messages in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<SendState>,
    /// At most this many, 1 to 1000 (100 when nothing is said).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// One message of the outbox. A row stays an hour after its last change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outgoing {
    /// The message.
    pub id: String,
    /// Whom it is for.
    pub to: String,
    /// What it is.
    pub kind: String,
    /// How far it has come.
    pub state: SendState,
    /// Since when it is in that state, in Unix milliseconds.
    #[serde(default)]
    pub since_ms: u64,
    /// How long it is held, in Unix milliseconds.
    #[serde(default)]
    pub expires_ms: u64,
    /// How often it was tried.
    #[serde(default)]
    pub attempts: u64,
    /// Why it was refused or is still held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A part of the outbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outbox {
    /// The messages, oldest first.
    #[serde(rename = "outbox")]
    pub messages: Vec<Outgoing>,
    /// Whether there is more.
    #[serde(default)]
    pub has_more: bool,
}

/// Which delegations to give; all of them when nothing is said.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DelegationFilter {
    /// Only the one with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Only those with this peer: id, prefix or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Only those in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DelegationState>,
    /// Only those that went this way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// At most this many, 1 to 1000 (50 when nothing is said).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Whether this client is told of every change from now on, of any delegation, as
    /// [`Event::Delegation`](crate::Event::Delegation).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub watch: bool,
}

/// One delegation, as the daemon's ledger has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Delegation {
    /// Its id.
    pub id: String,
    /// The other side.
    pub peer: String,
    /// Who gave it to whom.
    pub direction: Direction,
    /// What is to be done. An event does not repeat it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// `normal` or `urgent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// How far it is.
    pub state: DelegationState,
    /// Since when it is in that state, in Unix milliseconds.
    #[serde(default)]
    pub since_ms: u64,
    /// When it is due, in Unix milliseconds, if it has a deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The last that was told of its progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Box<RawValue>>,
    /// The payload of its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// Why it was refused, cancelled or has failed without a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A part of the ledger of delegations.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Delegations {
    /// The delegations, newest first.
    pub delegations: Vec<Delegation>,
    /// Whether there is more.
    #[serde(default)]
    pub has_more: bool,
}
