//! How much of what all clients share one may take: a quarter, so that one scoped socket, or one reader,
//! leaves the others theirs.
//!
//! Source: `spec/IPC.md`, "Topics", IPC-TOP-10 and IPC-TOP-14.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Topics;
use super::name::Filter;
use super::subs::{Owner, Sub};
use crate::error::{IpcCode, IpcError};
use crate::family::Cx;
use crate::limits::{
    TOPIC_FILTERS_BYTES_MAX, TOPIC_FILTERS_MAX, TOPIC_PUBLISH_WAITING_MAX, TOPIC_REPLAYS_MAX, TOPIC_SUBS_MAX,
};
use crate::mailbox::SCOPED;
use crate::node::ClientId;

/// One divided by the share of each.
const PARTS: usize = 4;

/// Those who have a share together.
struct Sharers {
    clients: Vec<ClientId>,
    /// For whom they read.
    consumer: Arc<str>,
}

impl Sharers {
    /// The clients of a scoped socket; none: it is the owner's, who may take everything.
    fn of_socket(client: ClientId, cx: &Cx<'_>) -> Option<Self> {
        let consumer = cx.view.consumer(client);
        let clients = consumer.starts_with(SCOPED).then(|| cx.view.clients_of(&consumer))?;
        Some(Self { clients, consumer })
    }

    /// These, or a client of the owner alone.
    fn of(client: ClientId, cx: &Cx<'_>) -> Self {
        let alone = || Self { clients: vec![client], consumer: cx.view.consumer(client) };
        Self::of_socket(client, cx).unwrap_or_else(alone)
    }

    fn own(&self, owner: &Owner) -> bool {
        self.clients.iter().any(|client| owner.is_of(*client, &self.consumer))
    }
}

impl Topics {
    /// Whether a client may have a subscription besides those that its socket has.
    pub(super) fn room_for_sub(&self, client: ClientId, sub: &Sub, cx: &Cx<'_>) -> Result<(), IpcError> {
        let Some(sharers) = Sharers::of_socket(client, cx) else { return Ok(()) };
        if self.subs.find(&sub.owner, &sub.filter).is_some() {
            return Ok(());
        }
        let own: Vec<&Sub> = self.subs.iter().filter(|sub| sharers.own(&sub.owner)).collect();
        if own.len() >= TOPIC_SUBS_MAX / PARTS || !self.can_be_said(&own, &sub.filter, cx) {
            let message = "this socket has as many subscriptions as it may, or filters as neighbours can be \
                           told: unsubscribe from something first, or use * and >";
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        Ok(())
    }

    /// Whether neighbours can be told of one more filter of a scoped socket and of the owner's besides.
    /// Where all are too many `>` is said for them, and whatever is published anywhere comes here.
    fn can_be_said(&self, own: &[&Sub], filter: &Filter, cx: &Cx<'_>) -> bool {
        let keeps = self.kept.keeps().iter().map(|keep| &keep.topic);
        let subs = self.subs.iter().map(|sub| &sub.filter);
        let mut all: BTreeSet<&Filter> = subs.chain(&cx.view.topics().relay).chain(keeps).collect();
        let said = all.contains(filter);
        all.insert(filter);
        if all.iter().any(|filter| filter.as_str() == ">") {
            return true;
        }
        let own: BTreeSet<&Filter> = own.iter().map(|sub| &sub.filter).chain([filter]).collect();
        is_part(&own, 1) && (said || is_part(&all, PARTS - 1))
    }

    /// Whether one more history may be told to a client.
    pub(super) fn room_for_replay(&self, client: ClientId, cx: &Cx<'_>) -> Result<(), IpcError> {
        let sharers = Sharers::of(client, cx);
        let own = self.replays.iter().filter(|replay| sharers.own(replay.owner())).count();
        if self.replays.len() < TOPIC_REPLAYS_MAX && own < TOPIC_REPLAYS_MAX / PARTS {
            return Ok(());
        }
        let message = "too much history is being read: subscribe again in a moment";
        Err(IpcError::new(IpcCode::Overloaded, message))
    }

    /// Whether a client may publish a message, besides those that wait to be signed and for the disk.
    pub(super) fn room_for_message(&self, client: ClientId, cx: &Cx<'_>) -> Result<(), IpcError> {
        let all = self.publishing.count() + self.answers.values().map(Vec::len).sum::<usize>();
        let own = Sharers::of_socket(client, cx).map_or(0, |sharers| {
            let stored = self.answers.values().flatten().map(|(client, ..)| *client);
            let waiting = stored.chain(self.publishing.clients());
            waiting.filter(|client| sharers.clients.contains(client)).count()
        });
        let has = all < TOPIC_PUBLISH_WAITING_MAX && own < TOPIC_PUBLISH_WAITING_MAX / PARTS;
        if has && cx.view.disk_has_room() {
            return Ok(());
        }
        let message = "too many messages wait to be signed or for the disk: wait for the replies, then publish \
                       again";
        Err(IpcError::new(IpcCode::Overloaded, message))
    }
}

/// Whether filters are no more than so many parts of what neighbours can be told.
fn is_part(filters: &BTreeSet<&Filter>, parts: usize) -> bool {
    let bytes: usize = filters.iter().map(|filter| filter.as_str().len()).sum();
    filters.len() <= TOPIC_FILTERS_MAX / PARTS * parts && bytes <= TOPIC_FILTERS_BYTES_MAX / PARTS * parts
}
