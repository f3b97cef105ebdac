//! Requests of peers that are open here, and how they ended.
//!
//! Source: `spec/IPC.md`, "Answering". [`crate::agents`] keeps them; families decide about them.

use std::sync::Arc;

use crate::family::{Inbound, Kind};
use crate::id::{AgentId, MsgId};
use crate::node::ClientId;
use crate::recent::Identified;

/// A peer's request that is open here: offered to agents, not yet done with.
#[derive(Debug, Clone)]
pub struct Open {
    /// The request.
    pub inbound: Inbound,
    /// Its kind.
    pub kind: &'static Kind,
    /// The domain that it asks for.
    pub domain: Option<String>,
    /// When the answer on the stream, or the work, is due (monotonic milliseconds).
    pub due_ms: Option<u64>,
    /// The answer that went out on the stream, for kinds that go on after it.
    pub answered: Option<Arc<str>>,
    /// Who works on it.
    pub state: OpenState,
    /// Its number in the inbox.
    pub seq: u64,
    /// When it came (Unix milliseconds).
    pub at_ms: u64,
    /// It has waited in the inbox for an agent.
    pub queued: bool,
    /// The family has given it back to the queue because its agent vanished at work.
    pub requeued: bool,
    /// The family lets it wait for an agent that is not attached yet.
    pub parkable: bool,
    /// An agent, not the daemon, has accepted it.
    pub taken: bool,
    /// Its last word is on its way to the peer.
    pub finishing: bool,
    /// The family has named the client that gets it: no other one may.
    pub targeted: bool,
    /// The scoped socket that it was last handed to; none: the owner's.
    pub offered_to: Option<String>,
}

impl Open {
    /// Whether it ended because every agent was busy for as long as it could wait, or said that it was.
    pub fn was_turned_away(&self, ended: Ended) -> bool {
        let waited = matches!(self.state, OpenState::Waiting | OpenState::Parked);
        ended == Ended::TurnedAway || ended == Ended::Timeout && self.answered.is_none() && waited
    }
}

/// Who works on an open request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenState {
    /// All answerers are at capacity: waits for one.
    Waiting,
    /// Nobody is attached: waits in the inbox for the next answerer.
    Parked,
    /// Handed to a client.
    Held {
        /// To which.
        client: ClientId,
        /// Stays its own when it disconnects.
        lease: bool,
    },
}

/// How an open request ended, remembered for late replies and for repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was answered or its result was sent.
    Answered,
    /// The agent had no room for it: it may come again.
    TurnedAway,
    /// Its deadline passed.
    Timeout,
    /// Its sender cancelled it, or this daemon refused it.
    Cancelled,
    /// Its sender went away or no longer waits.
    PeerGone,
}

impl Ended {
    /// As the `withdrawn` event says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered | Self::TurnedAway => "answered",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::PeerGone => "peer_gone",
        }
    }
}

/// A request that has ended.
#[derive(Debug, Clone)]
pub struct Closed {
    /// Its id.
    pub id: MsgId,
    /// Who asked.
    pub from: AgentId,
    /// What.
    pub kind: &'static str,
    /// How it ended.
    pub ended: Ended,
    /// The answer on the stream, for kinds that are answered again when repeated.
    pub answered: Option<Arc<str>>,
}

impl Identified for Closed {
    type Id = MsgId;
    fn id(&self) -> MsgId {
        self.id
    }
}
