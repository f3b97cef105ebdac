//! How agents are, who can do what, and who is further away. Names are those of `spec/IPC.md`; words that
//! this crate does not know stay text.

use serde::{Deserialize, Serialize};

use crate::ClientError;
use crate::client::Client;
use crate::words::words;

words! {
    /// How an agent is.
    PresenceStatus {
        /// It has nothing to do.
        Idle = "idle";
        /// It is at work.
        Busy = "busy";
        /// Nobody is there.
        Away = "away";
        /// It wants no disturbance.
        Dnd = "dnd";
        /// It is not there.
        Offline = "offline";
        /// It is connected, and has not said how it is.
        Unknown = "unknown";
    }
}

words! {
    /// What has become of a peer.
    PresenceChange {
        /// It is there.
        Online = "online";
        /// It is not.
        Offline = "offline";
        /// It says that it is otherwise.
        Status = "status";
    }
}

/// How a peer is, as far as this daemon knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Presence {
    /// Its id.
    pub id: String,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether only it says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub claimed: bool,
    /// Whether a connection with it is up.
    pub connected: bool,
    /// How it is.
    pub status: PresenceStatus,
    /// Since when, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// How sure one may be that it has gone, though the connection is up; above 8 it counts as gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phi: Option<f64>,
    /// How long ago it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// What it can do and where it is, where it has said so.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Said>,
}

/// What an agent says of what it can do and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Said {
    /// The digest of its capabilities: another one when they have changed.
    pub capabilities: String,
    /// Domains that it serves.
    pub domains: Vec<String>,
    /// Tools that it has.
    pub tools: Vec<String>,
    /// Where it may be reached, best first.
    pub addrs: Vec<String>,
    /// There is more, which `discover` tells.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// Peers, and this agent's own status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Presences {
    /// How this agent is.
    pub status: PresenceStatus,
    /// How its peers are.
    pub presence: Vec<Presence>,
}

/// An agent that was found, perhaps one that is no peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Its key, in base64.
    pub public_key: String,
    /// How far away it is; 1: it is a neighbour.
    pub hops: u8,
    /// How it is.
    pub status: PresenceStatus,
    /// When it said so, in Unix milliseconds by its own clock.
    pub ts_ms: u64,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether only it says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub claimed: bool,
    /// How far it is trusted, where it is a peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<crate::Trust>,
    /// What it can do and where it is.
    #[serde(flatten)]
    pub said: Said,
    /// What [`Client::pair`] takes to knock there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// Whom to find: an agent, or what it can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FindOptions {
    /// This agent: its id, or the name of a peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Agents that serve this domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Agents that have this tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// How far away at most, 1 to 5; 2 when it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hops: Option<u8>,
}

/// Something has become of a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PresenceEvent {
    /// What.
    pub change: PresenceChange,
    /// How it is now.
    pub peer: Presence,
}

impl Client {
    /// How one peer is, or all; and how this agent is.
    pub async fn presence(&self, peer: Option<&str>) -> Result<Presences, ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            peer: Option<&'a str>,
        }
        self.quick("presence", Body { peer }).await
    }

    /// Says how this agent is, for as long as this client is connected; none takes it back. Gives how the
    /// agent is then, by the word of all its clients.
    pub async fn set_presence(&self, status: Option<&PresenceStatus>) -> Result<PresenceStatus, ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            status: Option<&'a PresenceStatus>,
        }
        #[derive(Deserialize)]
        struct Reply {
            status: PresenceStatus,
        }
        Ok(self.quick::<Reply>("set_presence", Body { status }).await?.status)
    }

    /// From now on, what becomes of peers comes as [`Event::Presence`](crate::Event::Presence), or no longer.
    pub async fn watch_presence(&self, on: bool) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Body {
            on: bool,
        }
        self.quick::<serde::de::IgnoredAny>("subscribe_presence", Body { on }).await.map(drop)
    }

    /// Peers that serve a domain and have a tool, as far as they have said so.
    pub async fn who(&self, domain: Option<&str>, tool: Option<&str>) -> Result<Vec<Presence>, ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            domain: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            tool: Option<&'a str>,
        }
        #[derive(Deserialize)]
        struct Reply {
            agents: Vec<Presence>,
        }
        Ok(self.quick::<Reply>("who", Body { domain, tool }).await?.agents)
    }

    /// Looks among peers, and their peers, for an agent or for what it can do.
    pub async fn find(&self, options: &FindOptions) -> Result<Vec<Found>, ClientError> {
        #[derive(Deserialize)]
        struct Reply {
            agents: Vec<Found>,
        }
        Ok(self.quick::<Reply>("find", options).await?.agents)
    }
}
