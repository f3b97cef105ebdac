//! Topics and presence: what must hold of what is subscribed to, kept, published, shown and said.
//!
//! What was promised is noted apart from the node, as in `checks`: by what a store has confirmed, and by what
//! clients were told.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Sim;
use super::clients::text;
use crate::fault::{has_refused, unwatched};
use crate::kinds::topics::kept::{KEEP, KEPT};
use crate::kinds::topics::subs::SUB;
use crate::node::ClientId;
use crate::store::Write;

/// The kind of what clients are shown of topics.
pub(super) const MESSAGE: &str = "topic.message";

/// What was promised of topics, and told of presence. Nodes by their place.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// What stores have confirmed: subscriptions, what is to be kept, and batches that are kept.
    items: BTreeSet<(usize, String)>,
    /// Consumers that have asked for a subscription that keeps.
    consumers: BTreeSet<(usize, String)>,
    /// Those of them that were told that they have it.
    subscribed: BTreeSet<(usize, String)>,
    /// Who was told that topics are kept.
    keepers: BTreeSet<usize>,
    /// The last number that a publisher was told.
    numbers: BTreeMap<usize, u64>,
    /// As which row somebody was shown a message: by its publisher and number.
    shown: BTreeMap<(usize, String, String, u64), u64>,
    /// What a client was told last of a peer: what has changed, and how it is.
    told: BTreeMap<(ClientId, String), (String, String)>,
}

impl Published {
    /// A consumer asks for a subscription that keeps.
    pub fn asks(&mut self, at: usize, consumer: &str) {
        self.consumers.insert((at, consumer.to_owned()));
    }

    /// A store has confirmed this.
    pub fn confirmed(&mut self, at: usize, writes: &[Write]) {
        for write in writes {
            match write {
                Write::Put { key, .. } if is_of_topics(key) => drop(self.items.insert((at, key.clone()))),
                Write::Delete { key } => drop(self.items.remove(&(at, key.clone()))),
                _ => {}
            }
        }
    }

    /// How many messages readers were shown.
    pub fn shown(&self) -> u64 {
        self.shown.len() as u64
    }

    fn items(&self, at: usize, prefix: &str) -> BTreeSet<&str> {
        let of = self.items.iter().filter(|(host, key)| *host == at && key.starts_with(prefix));
        of.map(|(_, key)| key.as_str()).collect()
    }

    /// Whom a client reads for: its consumer, where that has a subscription that keeps, or itself.
    fn reader(&self, at: usize, client: ClientId, consumer: &str) -> (String, bool) {
        let keeps = self.consumers.contains(&(at, consumer.to_owned()));
        (if keeps { consumer.to_owned() } else { format!("#{}", client.0) }, keeps)
    }
}

fn is_of_topics(key: &str) -> bool {
    [SUB, KEEP, KEPT].iter().any(|prefix| key.starts_with(prefix))
}

impl Sim {
    /// A client was told that it has subscribed.
    pub fn subscribed(&mut self, at: usize, client: ClientId, kept: bool) {
        let Some(state) = self.hosts[at].clients.get(&client).filter(|_| kept) else { return };
        self.published.subscribed.insert((at, state.consumer.clone()));
        let consumers = self.published.subscribed.iter().filter(|(host, _)| *host == at).count();
        if self.published.items(at, SUB).len() < consumers {
            let rule = "a subscription that keeps is on disk before it is replied to";
            self.wrong(at, rule, format!("{client:?}"));
        }
    }

    /// A client was told that topics are kept.
    pub fn keeps_topics(&mut self, at: usize) {
        self.published.keepers.insert(at);
        if self.published.items(at, KEEP).is_empty() {
            let rule = "what is to be kept of topics is on disk before it is replied to";
            self.wrong(at, rule, String::new());
        }
    }

    /// A client was told that its message is on its way.
    pub fn is_published(&mut self, at: usize, reply: &Value) {
        let seq = reply["seq"].as_u64().unwrap_or_default();
        let last = self.published.numbers.insert(at, seq).unwrap_or_default();
        if seq <= last {
            self.wrong(at, "numbers of a publisher rise", format!("{seq} after {last}"));
        }
    }

    /// A client is shown a row, or an event that is like one.
    pub fn topic_shown(&mut self, at: usize, client: ClientId, seq: u64, envelope: &Value) {
        let Some(state) = self.hosts[at].clients.get(&client) else { return };
        if text(envelope, "kind") != MESSAGE {
            return;
        }
        let (reader, keeps) = self.published.reader(at, client, &state.consumer);
        let (from, number) =
            (text(envelope, "from"), envelope["payload"]["seq"].as_u64().unwrap_or_default());
        // What finds the strangers' share of the inbox full is told only (IPC-TOP-13).
        let told_only = envelope["payload"]["stranger"] == true && has_refused("rows of unknown peers");
        if keeps && !told_only && self.promises.row_of(at, text(envelope, "id")) != Some(seq) {
            self.wrong(at, "what is shown is on disk", format!("{reader}: {seq}, {envelope}"));
        }
        let key = (at, reader, from.to_owned(), number);
        if let Some(before) = self.published.shown.insert(key.clone(), seq)
            && before != seq
        {
            let what = format!("{key:?} as {before} and as {seq}");
            self.wrong(at, "no message of a topic is shown twice", what);
        }
    }

    /// A client is told that a peer has come, gone, or is otherwise.
    pub fn presence_told(&mut self, at: usize, client: ClientId, value: &Value) {
        let peer = text(&value["peer"], "id").to_owned();
        let now = (text(value, "change").to_owned(), text(&value["peer"], "status").to_owned());
        if self.published.told.insert((client, peer), now.clone()) == Some(now) {
            self.wrong(at, "no change of presence is told twice", value.to_string());
        }
    }

    /// The items of topics in a store, straight from it.
    fn stored_items(&mut self, at: usize) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        let Some(store) = self.hosts[at].store.as_mut() else { return keys };
        let read = unwatched(|| {
            store.items(&mut |key, _| {
                if is_of_topics(key) {
                    keys.insert(key.to_owned());
                }
            })
        });
        if read.is_err() {
            self.wrong(at, "a store can be read", String::new());
        }
        keys
    }

    /// After a start: subscriptions, what is to be kept, and what is kept are there.
    pub fn topics_are_there(&mut self, at: usize) {
        let there = self.stored_items(at);
        let lost = self.published.items(at, "").into_iter().find(|key| !there.contains(*key));
        if let Some(key) = lost.map(str::to_owned) {
            self.wrong(at, "what was kept of topics outlives the daemon", key);
        }
    }

    /// All is healed, and daemons have had time: what one of them keeps, the others that keep it have
    /// too, and who has subscribed has still.
    pub fn topics_are_whole(&mut self) {
        let keepers: Vec<usize> = self.published.keepers.iter().copied().collect();
        let kept = keepers.iter().flat_map(|at| self.published.items(*at, KEPT));
        let all: BTreeSet<String> = kept.map(str::to_owned).collect();
        for at in keepers {
            let there = self.stored_items(at);
            if let Some(key) = all.iter().find(|key| !there.contains(*key)) {
                let rule = "daemons that keep a topic have the same of it at last";
                self.wrong(at, rule, key.clone());
            }
        }
        for at in 0..self.hosts.len() {
            let list = self.ask_reader(at, serde_json::json!({"cmd":"topics"}));
            let has = |list: &Value, field: &str, value: &str| {
                list.as_array().into_iter().flatten().any(|row| text(row, field) == value)
            };
            let of = self.published.subscribed.iter().filter(|(host, _)| *host == at);
            let gone = of.map(|(_, consumer)| consumer);
            let mut gone = gone.filter(|consumer| !has(&list["subscriptions"], "consumer", consumer));
            if let Some(consumer) = gone.next() {
                let what = format!("{consumer}: {list}");
                self.wrong(at, "a subscription that keeps is not lost", what);
            }
            if self.published.keepers.contains(&at) && !has(&list["keeps"], "topic", super::scenario::TOPICS)
            {
                self.wrong(at, "what is to be kept of topics is not lost", list.to_string());
            }
        }
    }

    /// Whether somebody has been shown a message.
    pub fn has_topic(&self, at: usize, client: ClientId, from: usize, number: u64) -> bool {
        let Some(state) = self.hosts[at].clients.get(&client) else { return false };
        let (reader, _) = self.published.reader(at, client, &state.consumer);
        self.published.shown.contains_key(&(at, reader, self.hosts[from].id.to_string(), number))
    }
}
