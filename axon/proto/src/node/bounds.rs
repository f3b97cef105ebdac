//! What a simulation looks at from inside: whether all tables are within their bounds, and cursors.

use super::Node;
use crate::limits::{
    CLIENT_BACKLOG_BYTES_MAX, CLIENT_BACKLOG_MAX, CLIENT_PENDING_MAX, COMMITS_MAX, CONNECTIONS_PER_PEER_MAX,
    OPEN_REQUESTS_MAX, OUTBOX_DONE_MAX, OUTBOX_RESULTS_MAX, PENDING_MAX, QUEUED_REQUESTS_MAX,
    READ_WAITING_MAX, STRANGERS_MAX,
};

impl Node {
    /// Which table is over its bound, if any is.
    pub fn over_bounds(&self) -> Option<String> {
        let found =
            |what: &str, count: usize, max: usize| (count > max).then(|| format!("{what}: {count} of {max}"));
        let peers = self.peers.iter().count();
        let rows_max = self.settings.outbox.messages_max.max(OUTBOX_RESULTS_MAX) + OUTBOX_DONE_MAX;
        // The node's own small messages and items may go a little beyond what clients may take.
        found("messages that wait for peers", self.pending.len(), PENDING_MAX + 2 * peers)
            .or_else(|| found("changes that wait for the disk", self.commits.len(), COMMITS_MAX + peers))
            .or_else(|| found("open requests", self.agents.open_count(), OPEN_REQUESTS_MAX))
            .or_else(|| found("requests that wait", self.agents.queued_count(), QUEUED_REQUESTS_MAX))
            .or_else(|| found("rows to be read", self.unread.len(), READ_WAITING_MAX))
            .or_else(|| {
                let max = self.settings.outbox.per_peer_messages_max;
                let held = self.outbox.peers().map(|peer| self.outbox.waiting_for(peer)).max();
                found("messages held for one peer", held.unwrap_or_default(), max)
            })
            .or_else(|| found("held messages", self.outbox.held(), rows_max))
            .or_else(|| {
                let max = peers * CONNECTIONS_PER_PEER_MAX + STRANGERS_MAX;
                found("connections", self.sessions.iter().count(), max)
            })
            .or_else(|| {
                self.agents.clients.values().find_map(|client| {
                    found("a client's backlog", client.backlog.len(), CLIENT_BACKLOG_MAX)
                        .or_else(|| found("its bytes", client.backlog_bytes, CLIENT_BACKLOG_BYTES_MAX))
                        .or_else(|| found("what a client waits for", client.pending, CLIENT_PENDING_MAX))
                })
            })
    }

    /// Where a consumer's cursor stands.
    pub fn cursor_of(&self, consumer: &str) -> u64 {
        self.mailbox.acked(consumer)
    }
}
