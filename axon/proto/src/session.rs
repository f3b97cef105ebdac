//! A connection from handshake to close: hello first, then everything; and which of two connections stays.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Session" and "Two connections".

use serde::{Deserialize, Deserializer, Serialize};
use std::net::SocketAddr;

use crate::error::{PeerCode, Refusal};
use crate::id::{AgentId, PublicKey};
use crate::limits::{BOOT_BYTES_MAX, FEATURE_BYTES_MAX, FEATURES_MAX, NAME_BYTES_MAX, PROTOCOL_VERSION};
use crate::node::Side;
use crate::wire::{Envelope, fit, from_object, plain};

/// The payload of `hello`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Versions that the sender speaks, ascending; those that are beyond any number of ours are left out.
    #[serde(deserialize_with = "versions")]
    pub protocol_versions: Vec<u32>,
    /// In the reply: the version chosen.
    #[serde(default, deserialize_with = "version", skip_serializing_if = "Option::is_none")]
    pub selected_version: Option<u32>,
    /// What the sender calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    /// Optional kinds that the sender takes.
    #[serde(default, deserialize_with = "or_default")]
    pub features: Vec<String>,
    /// In the reply: the sender does not know whom it answers, and takes nothing but a knock.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub stranger: bool,
    /// Random, made at each start of the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

fn versions<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
    let all = Vec::<u64>::deserialize(from)?;
    Ok(all.into_iter().filter_map(|version| u32::try_from(version).ok()).collect())
}

/// A version that is higher than any is another version all the same.
fn version<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let version = Option::<u64>::deserialize(from)?;
    Ok(version.map(|version| u32::try_from(version).unwrap_or(u32::MAX)))
}

/// What is optional may also be null.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

impl Hello {
    /// Reads a hello or its reply, and cuts what is longer than anybody needs.
    pub fn parse(payload: &str) -> Result<Self, Refusal> {
        let mut hello: Self = from_object(payload).map_err(|error| {
            Refusal::new(PeerCode::InvalidEnvelope, format!("payload of hello: {}", plain(&error)))
        })?;
        hello.features.retain(|feature| feature.len() <= FEATURE_BYTES_MAX);
        hello.features.truncate(FEATURES_MAX);
        hello.boot = hello.boot.filter(|boot| boot.len() <= BOOT_BYTES_MAX);
        hello.agent_name = hello.agent_name.and_then(|name| fit(&name, NAME_BYTES_MAX));
        Ok(hello)
    }

    /// The version that both speak.
    pub fn common_version(&self) -> Result<u32, Refusal> {
        if self.protocol_versions.contains(&PROTOCOL_VERSION) {
            return Ok(PROTOCOL_VERSION);
        }
        let message = format!("no protocol version in common: this side speaks {PROTOCOL_VERSION}");
        Err(Refusal::new(PeerCode::IncompatibleVersion, message))
    }
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The handshake is done, hello is not.
    Greeting,
    /// Hello is done, and one side does not know the other: only a knock is said on it.
    Stranger,
    /// In use.
    Up,
    /// Another connection has taken its place: no new streams of ours, those open are finished.
    Draining,
}

/// One connection.
#[derive(Debug, Clone)]
pub struct Session {
    /// Whose it is.
    pub peer: AgentId,
    /// By which key.
    pub key: PublicKey,
    /// Nobody here knows the peer.
    pub is_stranger: bool,
    /// Who dialled.
    pub side: Side,
    /// The peer's address.
    pub addr: SocketAddr,
    /// How far it has come.
    pub phase: Phase,
    /// When it began, and later when it came up or was last used in draining (monotonic milliseconds).
    pub since_ms: u64,
    /// When it came up (Unix milliseconds).
    pub since_wall_ms: u64,
    /// The order in which connections came up.
    pub order: u64,
    /// The peer's boot id.
    pub boot: Option<String>,
    /// What the peer offers.
    pub features: Vec<String>,
    /// Nothing has come for a while though something is in flight.
    pub silent: bool,
    /// Whether the hello travelled in 0-RTT.
    pub early: bool,
    /// 32 bytes that both sides know of this connection and of no other.
    pub binding: [u8; 32],
    /// Queries and delegations of ours that are under way on it.
    pub work: usize,
    /// When the peer was last heard of on it (monotonic milliseconds).
    pub heard_ms: u64,
    /// Packets that have come on it, where somebody counts them.
    pub packets: Option<u64>,
}

impl Session {
    /// Whether the peer takes kinds that need this feature.
    pub fn offers(&self, feature: &str) -> bool {
        self.features.iter().any(|offered| offered == feature)
    }

    /// Checks what came on this connection: that it is from the one whose connection it is, for us, in our
    /// version.
    pub fn gate(&self, me: AgentId, envelope: &Envelope) -> Result<(), Refusal> {
        if envelope.from != self.peer {
            let message = "from must be the id of the connection's own certificate";
            return Err(Refusal::new(PeerCode::NotAuthorized, message));
        }
        if envelope.to != me {
            let message = format!("this is {me}: connect to the agent that you mean");
            return Err(Refusal::new(PeerCode::PeerNotFound, message));
        }
        if envelope.v != PROTOCOL_VERSION {
            let message = format!("this connection speaks version {PROTOCOL_VERSION}");
            return Err(Refusal::new(PeerCode::IncompatibleVersion, message));
        }
        Ok(())
    }
}

/// What becomes of an older connection when a newer one of the same peer comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The peer has started anew: the older one is dead.
    OlderDead,
    /// The newer one stays, the older one drains.
    NewerStays,
    /// The older one stays, the newer one drains.
    OlderStays,
}

/// Decides between two connections of one peer; both sides come to the same answer.
pub fn judge(me: AgentId, older: &Session, newer: &Session) -> Verdict {
    match (&older.boot, &newer.boot) {
        // Without boot ids nothing tells a restart from a second dial: believe the newest.
        (_, None) => return Verdict::NewerStays,
        (old, new) if old != new => return Verdict::OlderDead,
        _ => {}
    }
    let dialler = |session: &Session| match session.side {
        Side::Dialer => me,
        Side::Acceptor => session.peer,
    };
    let (old, new) = (dialler(older), dialler(newer));
    if old == new || new < old { Verdict::NewerStays } else { Verdict::OlderStays }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(side: Side, boot: Option<&str>) -> Session {
        Session {
            peer: AgentId([2; 16]),
            key: PublicKey([2; 32]),
            is_stranger: false,
            side,
            addr: "127.0.0.1:1".parse().unwrap(),
            phase: Phase::Up,
            since_ms: 0,
            since_wall_ms: 0,
            order: 0,
            boot: boot.map(str::to_owned),
            features: vec![],
            silent: false,
            early: false,
            binding: [0; 32],
            work: 0,
            heard_ms: 0,
            packets: None,
        }
    }

    #[test]
    fn both_sides_keep_the_same_connection() {
        let (low, high) = (AgentId([1; 16]), AgentId([3; 16]));
        let by_peer = |boot| session(Side::Acceptor, Some(boot));
        let by_me = |boot| session(Side::Dialer, Some(boot));
        assert_eq!(judge(low, &by_me("a"), &by_me("a")), Verdict::NewerStays);
        assert_eq!(judge(low, &by_me("a"), &by_peer("b")), Verdict::OlderDead);
        // me = 1 < peer = 2: mine stays, whichever came first.
        assert_eq!(judge(low, &by_me("a"), &by_peer("a")), Verdict::OlderStays);
        assert_eq!(judge(low, &by_peer("a"), &by_me("a")), Verdict::NewerStays);
        // me = 3 > peer = 2: the peer's stays.
        assert_eq!(judge(high, &by_me("a"), &by_peer("a")), Verdict::NewerStays);
        assert_eq!(judge(high, &by_peer("a"), &by_me("a")), Verdict::OlderStays);
        assert_eq!(judge(low, &by_me("a"), &session(Side::Acceptor, None)), Verdict::NewerStays);
    }

    #[test]
    fn hello_is_read_leniently_and_cut() {
        let hello = Hello::parse(r#"{"protocol_versions":[1,2],"agent_name":" a\u0007b ","x":1}"#).unwrap();
        assert_eq!(hello.common_version(), Ok(1));
        assert_eq!(hello.agent_name.as_deref(), Some("ab"));
        assert!(hello.features.is_empty());
        let other = Hello::parse(r#"{"protocol_versions":[2]}"#).unwrap();
        assert_eq!(other.common_version().unwrap_err().code, PeerCode::IncompatibleVersion);
        assert!(Hello::parse("{}").unwrap_err().message.contains("protocol_versions"));
    }
}
