//! Which clients answer a kind and which are shown it, so that a message meets those that it is for and not
//! all that are attached.

use std::collections::BTreeSet;

use foldhash::HashMap;

use super::{Client, Speaks, Wants};
use crate::node::ClientId;

/// Clients by what they answer and want.
#[derive(Debug, Default)]
pub(super) struct Audience {
    answering: HashMap<Box<str>, BTreeSet<ClientId>>,
    wanting: HashMap<Box<str>, BTreeSet<ClientId>>,
    /// Those that want every kind, or have not said hello and may be shown every kind.
    wanting_all: BTreeSet<ClientId>,
}

impl Audience {
    /// A client is attached, or is now as it is here.
    pub(super) fn add(&mut self, id: ClientId, client: &Client) {
        for kind in client.answers.iter().flat_map(|answers| &answers.kinds) {
            self.answering.entry(kind.as_str().into()).or_default().insert(id);
        }
        match &client.wants {
            Wants::Kinds(kinds) => {
                for kind in kinds {
                    self.wanting.entry(kind.as_str().into()).or_default().insert(id);
                }
            }
            Wants::All => drop(self.wanting_all.insert(id)),
            Wants::Nothing => {}
        }
        for kind in &client.listens {
            self.wanting.entry((*kind).into()).or_default().insert(id);
        }
        if client.speaks != Speaks::V2 {
            self.wanting_all.insert(id);
        }
    }

    /// A client, as it was added, is gone or about to change.
    pub(super) fn remove(&mut self, id: ClientId, client: &Client) {
        for kind in client.answers.iter().flat_map(|answers| &answers.kinds) {
            take(&mut self.answering, kind, id);
        }
        if let Wants::Kinds(kinds) = &client.wants {
            kinds.iter().for_each(|kind| take(&mut self.wanting, kind, id));
        }
        client.listens.iter().for_each(|kind| take(&mut self.wanting, kind, id));
        self.wanting_all.remove(&id);
    }

    /// Those that answer a kind, by their numbers.
    pub(super) fn answering(&self, kind: &str) -> impl Iterator<Item = ClientId> + Clone {
        self.answering.get(kind).into_iter().flatten().copied()
    }

    /// Adds those that may have to be shown a kind to a list, by their numbers.
    pub(super) fn may_be_shown(&self, kind: &str, clients: &mut Vec<ClientId>) {
        clients.extend(self.wanting.get(kind).into_iter().flatten().chain(&self.wanting_all));
        clients.sort_unstable();
        clients.dedup();
    }
}

fn take(kinds: &mut HashMap<Box<str>, BTreeSet<ClientId>>, kind: &str, id: ClientId) {
    if let Some(clients) = kinds.get_mut(kind) {
        clients.remove(&id);
        if clients.is_empty() {
            kinds.remove(kind);
        }
    }
}
