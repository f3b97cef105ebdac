//! What a family may look at of the node: facts, and nothing to change.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::error::IpcError;
use crate::family::Unclaimed;
use crate::id::{AgentId, MsgId, PublicKey};
use crate::node::ClientId;
use crate::open::{Closed, Open};
use crate::topics::rules::TopicSettings;
use crate::trust::{Level, PresenceSettings};

/// What a family may look at.
pub trait View {
    /// Requests open here, by id.
    fn open(&self, id: MsgId) -> Option<&Open>;
    /// Requests that have ended.
    fn closed(&self, id: MsgId) -> Option<&Closed>;
    /// Requests that agents hold or that wait for one.
    fn active_tasks(&self) -> u64;
    /// How many requests the attached agents take at once, together.
    fn capacity(&self) -> u64;
    /// The peer that a name, prefix or id means to a client.
    ///
    /// # Errors
    /// When it means none or several; the sentence says which.
    fn resolve_for(&self, client: ClientId, peer: &str) -> Result<AgentId, IpcError>;
    /// Whether a client sees this peer.
    fn sees(&self, client: ClientId, peer: AgentId) -> bool;
    /// Why one more request of this peer could not wait or be handed over, if so.
    fn no_room(&self, from: AgentId, kind: &str) -> Option<Unclaimed>;
    /// Whether this client serves requests of this kind.
    fn serves(&self, client: ClientId, kind: &str) -> bool;
    /// Whether the peer is connected and has offered this feature.
    fn offers(&self, peer: AgentId, feature: &str) -> bool;
    /// Whether a request about this one (a cancel) is open.
    fn is_targeted(&self, id: MsgId) -> bool;
    /// How long the daemon has run.
    fn uptime_secs(&self) -> u64;
    /// The scoped socket of a client; none: it is the owner's.
    fn socket_of(&self, client: ClientId) -> Option<Box<str>>;
    /// What this agent calls itself.
    fn name(&self) -> Option<&str>;
    /// Capabilities from the settings.
    fn configured_capabilities(&self) -> Option<&RawValue>;
    /// How far a peer is trusted; none: it is no peer.
    fn level(&self, agent: AgentId) -> Option<Level>;
    /// Whether an agent is a peer of level known or above.
    fn is_let_in(&self, agent: AgentId) -> bool {
        self.level(agent).is_some_and(|level| level >= Level::Known)
    }
    /// What a peer is called.
    fn called(&self, peer: AgentId) -> Option<&str>;
    /// Peers with a connection that is up.
    fn connected(&self) -> Vec<AgentId>;
    /// Whether what an agent sends waits until it is resumed.
    fn is_paused(&self, agent: AgentId) -> bool;
    /// Clients that read for a consumer.
    fn clients_of(&self, consumer: &str) -> Vec<ClientId>;
    /// Whose cursor a client moves.
    fn consumer(&self, client: ClientId) -> Arc<str>;
    /// The number of the newest row of the inbox.
    fn newest_seq(&self) -> u64;
    /// Whether a message of this id was taken.
    fn was_taken(&self, from: AgentId, id: MsgId) -> bool;
    /// Whether one more change may wait for the disk.
    fn disk_has_room(&self) -> bool;
    /// Signs with this agent's key.
    fn sign(&self, message: &[u8]) -> [u8; 64];
    /// Whether a signature of the message is that of the key.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool;
    /// This agent's key.
    fn key(&self) -> PublicKey;
    /// `[topics]`.
    fn topics(&self) -> &TopicSettings;
    /// `[presence]`.
    fn presence(&self) -> PresenceSettings;
    /// How often an idle connection is kept awake.
    fn keepalive_ms(&self) -> u64;
    /// Everybody who is known here.
    fn peers(&self) -> Vec<AgentId>;
    /// Where others may reach this agent, best first.
    fn addrs(&self) -> &[String];
    /// What this agent can do, as `discover` says it.
    fn capabilities(&self) -> &str;
    /// When a connected peer was last heard of, on the monotonic clock; none where nobody counts its packets.
    fn heard_ms(&self, peer: AgentId) -> Option<u64>;
}
