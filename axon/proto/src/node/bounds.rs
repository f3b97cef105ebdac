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

    /// What is still under way, if anything is: after a while without new work nothing may be.
    pub fn unfinished(&self) -> Option<String> {
        let found = |what: &str, count: usize| (count > 0).then(|| format!("{what}: {count}"));
        found("changes that wait for the disk", self.commits.len())
            .or_else(|| found("their bytes", self.commit_bytes))
            .or_else(|| found("readings", self.reads.len()))
            .or_else(|| found("jobs of the shell", self.jobs.len()))
            .or_else(|| found("items to be stored", self.items.len() + self.items_under_way))
            .or_else(|| found("messages that are being written", self.arriving.len()))
            .or_else(|| found("their bytes", self.arriving_bytes.values().sum()))
            .or_else(|| found("messages that wait for peers", self.pending.len()))
            .or_else(|| found("requests that wait", self.agents.queued_count()))
            .or_else(|| found("streams to be answered", self.streams.len()))
            .or_else(|| found("connections without a hello", self.early.len()))
            .or_else(|| {
                self.agents.clients.values().find_map(|client| {
                    found("what a client waits for", client.pending)
                        .or_else(|| found("what it has stored", client.storing))
                        .or_else(|| found("its lines that wait", client.backlog.len()))
                        .or_else(|| found("readings of it", usize::from(client.reading)))
                })
            })
    }

    /// Where a consumer's cursor stands.
    pub fn cursor_of(&self, consumer: &str) -> u64 {
        self.mailbox.acked(consumer)
    }
}
