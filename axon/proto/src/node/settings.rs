//! The settings that the node obeys, with their defaults. The daemon reads them from `config.toml`.

use serde_json::value::RawValue;

use crate::id::{AgentId, PublicKey};
use crate::topics::rules::TopicSettings;
use crate::trust::{Policies, PresenceSettings};

/// A peer from `[[peers]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticPeer {
    /// Its id.
    pub agent_id: AgentId,
    /// Its key; the id is derived from it.
    pub pubkey: PublicKey,
    /// `host:port`, by IP or host name.
    pub addr: String,
    /// A local name for it.
    pub name: Option<String>,
}

/// `[outbox]`: what is held for peers that cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxSettings {
    /// `messages_max`.
    pub messages_max: usize,
    /// `bytes_max`, of envelopes.
    pub bytes_max: usize,
    /// `per_peer_messages_max`.
    pub per_peer_messages_max: usize,
    /// `hold_secs_max`.
    pub hold_secs_max: u64,
}

impl Default for OutboxSettings {
    fn default() -> Self {
        Self {
            messages_max: 10_000,
            bytes_max: 67_108_864,
            per_peer_messages_max: 1_000,
            hold_secs_max: 2_592_000,
        }
    }
}

/// `[knock]`: strangers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnockSettings {
    /// `open`: strangers may knock without an invite.
    pub open: bool,
    /// `intents`: `category` or `category/action`; none: all.
    pub intents: Option<Vec<String>>,
    /// `allow`: who is let in at once, at level known.
    pub allow: Vec<AgentId>,
    /// `per_minute`: knocks of all strangers.
    pub per_minute: u64,
    /// `accept_rekey`: a known peer's new key is taken on without a word of the owner.
    pub accept_rekey: bool,
}

impl Default for KnockSettings {
    fn default() -> Self {
        Self { open: false, intents: None, allow: Vec::new(), per_minute: 30, accept_rekey: false }
    }
}

/// What the node needs to know of `config.toml`. Units are in the names.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `name`: what this agent calls itself.
    pub name: Option<String>,
    /// `[[peers]]`.
    pub peers: Vec<StaticPeer>,
    /// `max_connections`.
    pub max_connections: usize,
    /// `max_ipc_clients`.
    pub max_ipc_clients: usize,
    /// `handshake_timeout_secs`: a dial, and the wait for hello.
    pub handshake_timeout_secs: u64,
    /// `reconnect_max_backoff_secs`.
    pub reconnect_max_backoff_secs: u64,
    /// `ipc.allow_v1`.
    pub allow_v1: bool,
    /// `ipc.buffer_size`, in messages; 0 keeps none.
    pub buffer_size: usize,
    /// `ipc.buffer_ttl_secs`.
    pub buffer_ttl_secs: u64,
    /// `ipc.buffer_byte_cap`.
    pub buffer_byte_cap: usize,
    /// `ipc.durable`: whether the store outlives the daemon, so that receipts may be given.
    pub durable: bool,
    /// Whether the feature `pipe` is offered; what it is at the start counts.
    pub pipe: bool,
    /// `ipc.read_receipts`: whether senders that ask are told when a message was read.
    pub read_receipts: bool,
    /// `[outbox]`.
    pub outbox: OutboxSettings,
    /// `[agent]` as one JSON object: what discover says where no attached client says otherwise.
    pub agent: Option<Box<RawValue>>,
    /// `[policy.<level>]`.
    pub policies: Policies,
    /// `[knock]`.
    pub knock: KnockSettings,
    /// `[topics]`.
    pub topics: TopicSettings,
    /// `[presence]`.
    pub presence: PresenceSettings,
    /// `keepalive_secs`.
    pub keepalive_secs: u64,
    /// `ipc-token`: 64 hexadecimal digits, where a client must show it.
    pub ipc_token: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: None,
            peers: Vec::new(),
            max_connections: 128,
            max_ipc_clients: 64,
            handshake_timeout_secs: 5,
            reconnect_max_backoff_secs: 30,
            allow_v1: true,
            buffer_size: 1000,
            buffer_ttl_secs: 86_400,
            buffer_byte_cap: 4_194_304,
            durable: true,
            pipe: true,
            read_receipts: true,
            outbox: OutboxSettings::default(),
            agent: None,
            policies: Policies::default(),
            knock: KnockSettings::default(),
            topics: TopicSettings::default(),
            presence: PresenceSettings::default(),
            keepalive_secs: 15,
            ipc_token: None,
        }
    }
}
