//! The connections, by their own number and by their peer.

use std::collections::BTreeMap;

use foldhash::HashMap;

use super::{ConnId, Node};
use crate::id::AgentId;
use crate::session::{Phase, Session};

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    table: BTreeMap<ConnId, Session>,
    /// Oldest first.
    of_peers: HashMap<AgentId, Vec<ConnId>>,
}

impl Sessions {
    pub(super) fn insert(&mut self, conn: ConnId, session: Session) {
        let conns = self.of_peers.entry(session.peer).or_default();
        if let Err(at) = conns.binary_search(&conn) {
            conns.insert(at, conn);
        }
        self.table.insert(conn, session);
    }

    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Session> {
        let session = self.table.remove(&conn)?;
        if let Some(conns) = self.of_peers.get_mut(&session.peer) {
            conns.retain(|of| *of != conn);
            if conns.is_empty() {
                self.of_peers.remove(&session.peer);
            }
        }
        Some(session)
    }

    pub(super) fn get(&self, conn: ConnId) -> Option<&Session> {
        self.table.get(&conn)
    }

    /// One connection, to change what is not its peer.
    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.table.get_mut(&conn)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn conns(&self) -> impl Iterator<Item = ConnId> {
        self.table.keys().copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> + Clone {
        self.table.values()
    }

    /// Connections of a peer, oldest first.
    pub(super) fn of(&self, peer: AgentId) -> &[ConnId] {
        self.of_peers.get(&peer).map_or(&[], Vec::as_slice)
    }

    /// The connection to use for a peer: up, not draining, the newest if there were two.
    pub(super) fn best(&self, peer: AgentId) -> Option<(ConnId, &Session)> {
        let of_peer = self.of(peer).iter().filter_map(|conn| Some((*conn, self.table.get(conn)?)));
        of_peer.filter(|(_, session)| session.phase == Phase::Up).max_by_key(|(_, session)| session.order)
    }
}

impl Node {
    /// The connection to use for a peer: up, not draining, the newest if there were two.
    pub(super) fn best_session(&self, peer: AgentId) -> Option<ConnId> {
        self.sessions.best(peer).map(|(conn, _)| conn)
    }
}
