//! What families may look at of the node.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::Node;
use crate::agents::Speaks;
use crate::error::IpcError;
use crate::family::{Closed, Open, Unclaimed, View};
use crate::id::{AgentId, MsgId, PublicKey};
use crate::node::ClientId;
use crate::session::Phase;
use crate::topics::rules::TopicSettings;
use crate::trust::{Level, PresenceSettings};

pub(super) struct NodeView<'a> {
    pub node: &'a Node,
    pub uptime_secs: u64,
}

impl View for NodeView<'_> {
    fn open(&self, id: MsgId) -> Option<&Open> {
        self.node.agents.get(id)
    }
    fn closed(&self, id: MsgId) -> Option<&Closed> {
        self.node.agents.closed(id)
    }
    fn active_tasks(&self) -> u64 {
        self.node.agents.active_tasks()
    }
    fn capacity(&self) -> u64 {
        self.node.agents.capacity()
    }
    fn resolve_for(&self, client: ClientId, peer: &str) -> Result<AgentId, IpcError> {
        self.node.peer_within(client, peer)
    }
    fn sees(&self, client: ClientId, peer: AgentId) -> bool {
        self.node.scope_of(client).is_none_or(|scope| scope.sees_peer(peer))
    }
    fn no_room(&self, from: AgentId, kind: &str) -> Option<Unclaimed> {
        let agents = &self.node.agents;
        let work = crate::agents::Work { from, kind, has_domain: false, domain: None };
        let free = matches!(agents.pick(work), Ok(Some(_)));
        (!free && !agents.queue_has_room(from)).then_some(Unclaimed::QueueFull)
    }
    fn serves(&self, client: ClientId, kind: &str) -> bool {
        let client = self.node.agents.clients.get(&client);
        let answers = client.and_then(|client| client.answers());
        answers.is_some_and(|answers| answers.kinds.iter().any(|served| served == kind))
    }
    fn offers(&self, peer: AgentId, feature: &str) -> bool {
        let session = self.node.best_session(peer).and_then(|conn| self.node.sessions.get(conn));
        session.is_some_and(|session| session.offers(feature))
    }
    fn is_targeted(&self, id: MsgId) -> bool {
        self.node.agents.iter().any(|open| open.targeted && open.inbound.envelope.reference == Some(id))
    }
    fn uptime_secs(&self) -> u64 {
        self.uptime_secs
    }
    fn socket_of(&self, client: ClientId) -> Option<Box<str>> {
        self.node.scope_of(client).map(|scope| scope.name.as_str().into())
    }
    fn name(&self) -> Option<&str> {
        self.node.settings.name.as_deref()
    }
    fn configured_capabilities(&self) -> Option<&RawValue> {
        self.node.settings.agent.as_deref()
    }
    fn level(&self, agent: AgentId) -> Option<Level> {
        self.node.peers.level_now(agent)
    }
    fn called(&self, peer: AgentId) -> Option<&str> {
        self.node.peers.get(peer)?.called().map(|(name, _)| name)
    }
    fn connected(&self) -> Vec<AgentId> {
        let up = self.node.sessions.iter().filter(|session| session.phase == Phase::Up);
        let peers: std::collections::BTreeSet<AgentId> = up.map(|session| session.peer).collect();
        peers.into_iter().collect()
    }
    fn is_paused(&self, agent: AgentId) -> bool {
        self.node.peers.is_paused(agent)
    }
    fn clients_of(&self, consumer: &str) -> Vec<ClientId> {
        let clients = self.node.agents.clients.iter();
        let its =
            clients.filter(|(_, client)| &*client.consumer == consumer && client.speaks() == Speaks::V2);
        its.map(|(id, _)| *id).collect()
    }
    fn consumer(&self, client: ClientId) -> Arc<str> {
        self.node.agents.clients.get(&client).map(|client| client.consumer.clone()).unwrap_or_default()
    }
    fn newest_seq(&self) -> u64 {
        self.node.mailbox.next_seq() - 1
    }
    fn was_taken(&self, from: AgentId, id: MsgId) -> bool {
        self.node.was_noted(from, id)
    }
    fn disk_has_room(&self) -> bool {
        self.node.disk_has_room()
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        (self.node.sign)(message)
    }
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
        (self.node.verify)(key, message, signature)
    }
    fn key(&self) -> PublicKey {
        self.node.key
    }
    fn topics(&self) -> &TopicSettings {
        &self.node.settings.topics
    }
    fn presence(&self) -> PresenceSettings {
        self.node.settings.presence
    }
    fn keepalive_ms(&self) -> u64 {
        self.node.settings.keepalive_secs.saturating_mul(1_000)
    }
    fn peers(&self) -> Vec<AgentId> {
        self.node.peers.iter().map(|peer| peer.id).collect()
    }
    fn addrs(&self) -> &[String] {
        &self.node.addrs
    }
    fn capabilities(&self) -> &str {
        &self.node.capabilities
    }
    fn heard_ms(&self, peer: AgentId) -> Option<u64> {
        let up = self.node.conns_of(peer).into_iter().filter_map(|conn| self.node.sessions.get(conn));
        up.filter(|session| session.packets.is_some()).map(|session| session.heard_ms).max()
    }
}
