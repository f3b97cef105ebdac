//! The node in three figures, for whoever started the daemon.

use super::Node;
use crate::session::Phase;

/// How the node is, at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// Peers with a connection that is up.
    pub peers: usize,
    /// Clients of all sockets.
    pub clients: usize,
    /// Whether all inbound work is paused.
    pub paused: bool,
}

impl Node {
    /// How it is now. It takes a look at each connection: not for the hot path.
    pub fn glance(&self) -> Glance {
        let up = self.sessions.iter().filter(|session| session.phase == Phase::Up);
        let mut up: Vec<_> = up.map(|session| session.peer).collect();
        up.sort_unstable();
        up.dedup();
        let (clients, paused) = (self.agents.clients.len(), self.peers.contacts().paused());
        Glance { peers: up.len(), clients, paused }
    }
}
