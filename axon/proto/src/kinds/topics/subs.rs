//! Who here has subscribed to what.
//!
//! Source: `spec/IPC.md`, "Topics". A subscription that keeps belongs to a consumer and outlives its
//! connection and the daemon; another is a client's and goes with it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::name::{Filter, Topic};
use crate::error::{IpcCode, IpcError};
use crate::limits::{TOPIC_SUBS_MAX, TOPIC_SUBS_PER_OWNER_MAX};
use crate::node::ClientId;
use crate::store::Write;

/// How the keys of subscriptions begin.
pub const SUB: &str = "topics/sub/";

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sub {
    /// Of which topics.
    pub filter: Filter,
    /// Also of publishers that are no peers.
    pub from_any: bool,
    /// Also what was published before.
    pub history: bool,
    /// Whose it is.
    pub owner: Owner,
    /// When it was made, in Unix milliseconds of this daemon.
    pub since_ms: u64,
    /// The number of the newest row then.
    pub since_seq: u64,
}

/// Whose a subscription is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A client's: it goes with it, and what comes is not kept.
    Client(ClientId),
    /// A consumer's: what comes is kept until it is read.
    Consumer(Box<str>),
}

impl Owner {
    /// Whether it is this client, or the consumer that it reads for.
    pub fn is_of(&self, client: ClientId, consumer: &str) -> bool {
        match self {
            Self::Client(owner) => *owner == client,
            Self::Consumer(owner) => &**owner == consumer,
        }
    }
}

/// A message, as far as it decides who is shown it.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// On which topic.
    pub topic: &'a Topic,
    /// Its publisher is no peer.
    pub stranger: bool,
    /// It came from what was kept.
    pub history: bool,
    /// It was taken as it was published, and comes again from what was kept: whoever had subscribed then was
    /// shown it.
    pub shown: bool,
    /// When it was published, by this daemon's clock.
    pub published_ms: u64,
    /// When it came.
    pub at_ms: u64,
}

impl Sub {
    /// Whether what comes is kept.
    pub fn is_kept(&self) -> bool {
        matches!(self.owner, Owner::Consumer(_))
    }

    /// Whether it is for a message.
    pub fn takes(&self, about: About<'_>) -> bool {
        // Where it came before the subscription was made, the clock went back since.
        let later = about.published_ms >= self.since_ms || about.at_ms < self.since_ms;
        (self.from_any || !about.stranger)
            && (self.history || (!about.history && later))
            && !(about.shown && later)
            && self.filter.matches(about.topic)
    }
}

/// A subscription that keeps, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    consumer: String,
    topic: String,
    #[serde(default)]
    from_any: bool,
    #[serde(default)]
    history: bool,
    since_ms: u64,
    since_seq: u64,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub struct Subs {
    list: Vec<Sub>,
}

impl Subs {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Sub> {
        self.list.iter()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// What is wanted, each filter once.
    pub fn filters(&self) -> BTreeSet<Filter> {
        self.list.iter().map(|sub| sub.filter.clone()).collect()
    }

    /// Whether somebody here has subscribed to a topic.
    pub fn wants(&self, topic: &Topic) -> bool {
        self.list.iter().any(|sub| sub.filter.matches(topic))
    }

    /// Whether somebody is to be given a message, and whether it is to be kept for one of them.
    pub fn takers(&self, about: About<'_>) -> Option<bool> {
        let mut takers = self.list.iter().filter(|sub| sub.takes(about)).peekable();
        takers.peek()?;
        Some(takers.any(Sub::is_kept))
    }

    /// Whether a client, who reads for a consumer, is shown a message with this number.
    pub fn shows(&self, client: ClientId, consumer: &str, seq: u64, about: About<'_>) -> bool {
        let its = |sub: &Sub| sub.owner.is_of(client, consumer) && seq > sub.since_seq;
        self.list.iter().any(|sub| its(sub) && sub.takes(about))
    }

    /// Adds one; the owner's for the same filter goes for it, and what waits of that for a consumer stays its
    /// to read. Gives what is to be stored.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add(&mut self, mut sub: Sub) -> Result<Vec<Write>, IpcError> {
        let others = |listed: &&Sub| listed.owner == sub.owner && listed.filter != sub.filter;
        let known = |listed: &Sub| listed.owner == sub.owner && listed.filter == sub.filter;
        let before = self.list.iter().find(|listed| known(listed));
        let (there, before) = (before.is_some(), before.filter(|before| before.is_kept()));
        let since = before.map(|before| (before.since_ms, before.since_seq));
        if self.list.iter().filter(others).count() >= TOPIC_SUBS_PER_OWNER_MAX
            || (!there && self.list.len() >= TOPIC_SUBS_MAX)
        {
            let message = format!(
                "a client has at most {TOPIC_SUBS_PER_OWNER_MAX} subscriptions, and all together \
                 {TOPIC_SUBS_MAX}: unsubscribe from something first, or use * and >"
            );
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        self.list.retain(|listed| !known(listed));
        (sub.since_ms, sub.since_seq) = since.unwrap_or((sub.since_ms, sub.since_seq));
        let writes = sub.stored().into_iter().collect();
        self.list.push(sub);
        Ok(writes)
    }

    /// An owner's subscription to this.
    pub fn find(&self, owner: &Owner, filter: &Filter) -> Option<&Sub> {
        self.list.iter().find(|sub| sub.owner == *owner && sub.filter == *filter)
    }

    /// Takes the subscriptions of a client, and of the consumer that it reads for, out of the list.
    pub fn remove(&mut self, client: ClientId, consumer: &str, filter: &Filter) -> Vec<Sub> {
        let goes = |sub: &mut Sub| sub.owner.is_of(client, consumer) && sub.filter == *filter;
        self.list.extract_if(.., goes).collect()
    }

    /// An owner's subscription to this is as it was before.
    pub fn put_back(&mut self, owner: &Owner, filter: &Filter, before: Option<Sub>) {
        self.list.retain(|sub| !(sub.owner == *owner && sub.filter == *filter));
        self.list.extend(before);
    }

    /// A client has gone, and its subscriptions with it; whether it had any.
    #[inline(never)]
    pub fn client_gone(&mut self, client: ClientId) -> bool {
        let before = self.list.len();
        self.list.retain(|sub| sub.owner != Owner::Client(client));
        self.list.len() < before
    }

    /// A scoped socket was removed, and with it the consumer of this name; what is to be stored.
    pub fn consumer_gone(&mut self, consumer: &str) -> Vec<Write> {
        let of = |sub: &Sub| matches!(&sub.owner, Owner::Consumer(owner) if &**owner == consumer);
        let writes = self.list.iter().filter(|sub| of(sub)).filter_map(Sub::gone).collect();
        self.list.retain(|sub| !of(sub));
        writes
    }

    /// Whether a client has one of its own, or its consumer has one.
    pub fn listens(&self, client: ClientId, consumer: &str) -> bool {
        self.list.iter().any(|sub| sub.owner.is_of(client, consumer))
    }

    /// Takes over one from the store.
    pub fn restore(&mut self, value: &[u8]) {
        let Ok(stored) = serde_json::from_slice::<Stored>(value) else { return };
        let Ok(filter) = Filter::parse(&stored.topic) else { return };
        if self.list.len() < TOPIC_SUBS_MAX {
            self.list.push(Sub {
                filter,
                from_any: stored.from_any,
                history: stored.history,
                owner: Owner::Consumer(stored.consumer.into()),
                since_ms: stored.since_ms,
                since_seq: stored.since_seq,
            });
        }
    }
}

impl Sub {
    /// What takes it out of the store, if it is there.
    pub fn gone(&self) -> Option<Write> {
        let Owner::Consumer(consumer) = &self.owner else { return None };
        Some(Write::delete(key(consumer, &self.filter)))
    }

    fn stored(&self) -> Option<Write> {
        let Owner::Consumer(consumer) = &self.owner else { return None };
        let stored = Stored {
            consumer: consumer.to_string(),
            topic: self.filter.to_string(),
            from_any: self.from_any,
            history: self.history,
            since_ms: self.since_ms,
            since_seq: self.since_seq,
        };
        Some(Write::put(key(consumer, &self.filter), serde_json::to_vec(&stored).ok()?))
    }
}

/// Consumers' names and filters may be longer together than a key.
fn key(consumer: &str, filter: &Filter) -> String {
    let mut hash = Sha256::new();
    hash.update(consumer);
    hash.update([0]);
    hash.update(filter.as_str());
    hash.finalize().iter().take(16).fold(SUB.to_owned(), |key, byte| format!("{key}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }
    fn sub(text: &str, owner: Owner) -> Sub {
        Sub { filter: filter(text), from_any: false, history: false, owner, since_ms: 100, since_seq: 5 }
    }
    fn of(consumer: &str) -> Owner {
        Owner::Consumer(consumer.into())
    }
    const C1: ClientId = ClientId(1);

    #[test]
    fn a_message_is_for_those_whose_subscription_was_there_and_takes_its_publisher() {
        let (one, any) = (sub("t.>", of("a")), Sub { from_any: true, ..sub("t.>", of("a")) });
        let past = Sub { history: true, ..sub("t.>", of("a")) };
        let (t, u) = (Topic::parse("t.x").unwrap(), Topic::parse("u").unwrap());
        let live =
            About { topic: &t, stranger: false, history: false, shown: false, published_ms: 100, at_ms: 100 };
        let stranger = About { stranger: true, ..live };
        let before = About { published_ms: 99, ..live };
        let kept = About { history: true, published_ms: 1, ..live };
        let cases = [
            (live, [true, true, true]),
            (stranger, [false, true, false]),
            (before, [false, false, true]),
            (kept, [false, false, true]),
            (About { shown: true, ..kept }, [false, false, true]),
            (About { shown: true, published_ms: 100, ..kept }, [false, false, false]),
            (About { topic: &u, ..live }, [false, false, false]),
        ];
        for (about, expected) in cases {
            assert_eq!([one.takes(about), any.takes(about), past.takes(about)], expected, "{about:?}");
        }
    }

    #[test]
    fn a_consumer_sees_what_came_after_it_subscribed_and_nothing_once_it_has_not() {
        let mut subs = Subs::default();
        subs.add(sub("t.>", of("a"))).unwrap();
        subs.add(sub("t.x", Owner::Client(C1))).unwrap();
        let t = Topic::parse("t.x").unwrap();
        let about =
            About { topic: &t, stranger: false, history: false, shown: false, published_ms: 100, at_ms: 100 };
        assert_eq!(subs.takers(about), Some(true));
        assert!(!subs.shows(ClientId(9), "a", 5, about) && subs.shows(ClientId(9), "a", 6, about));
        assert!(subs.shows(C1, "b", 6, about) && !subs.shows(ClientId(9), "b", 6, about));
        assert!(subs.listens(C1, "b") && subs.listens(ClientId(9), "a") && !subs.listens(ClientId(9), "b"));
        let gone = subs.remove(ClientId(9), "a", &filter("t.>"));
        let writes: Vec<Write> = gone.iter().filter_map(Sub::gone).collect();
        assert!(matches!(&writes[..], [Write::Delete { .. }]));
        assert_eq!(subs.takers(about), Some(false));
        assert!(!subs.shows(ClientId(9), "a", 6, about));
        assert!(subs.client_gone(C1) && !subs.client_gone(C1) && !subs.wants(&t));
        assert!(subs.remove(C1, "a", &filter("t.x")).is_empty());
    }

    #[test]
    fn what_keeps_is_stored_under_a_key_that_fits_and_restored() {
        let mut subs = Subs::default();
        let long = "c".repeat(128);
        let kept = Sub { from_any: true, history: true, ..sub(&"a".repeat(256), of(&long)) };
        let writes = subs.add(kept.clone()).unwrap();
        let [Write::Put { key, value }] = &writes[..] else { panic!("{writes:?}") };
        assert!(key.len() <= 255 && key.starts_with(SUB), "{key}");
        assert!(subs.add(sub("t", Owner::Client(C1))).unwrap().is_empty());
        let mut again = Subs::default();
        again.restore(value);
        again.restore(b"{}");
        assert_eq!(again.list, [kept]);
        assert_eq!(again.consumer_gone(&long).len(), 1);
        assert_eq!(again.count(), 0);
    }

    #[test]
    fn subscriptions_are_bounded_and_the_same_again_takes_the_place_of_the_first() {
        let mut subs = Subs::default();
        for n in 0..TOPIC_SUBS_PER_OWNER_MAX {
            subs.add(sub(&format!("t.{n}"), of("a"))).unwrap();
        }
        subs.add(Sub { since_ms: 900, since_seq: 9, from_any: true, ..sub("t.0", of("a")) }).unwrap();
        // What came since the first is still to be read.
        let again = subs.iter().find(|sub| sub.filter == filter("t.0")).unwrap();
        assert_eq!((again.since_ms, again.since_seq, again.from_any), (100, 5, true));
        let error = subs.add(sub("u", of("a"))).unwrap_err();
        assert!(error.message.contains("unsubscribe"), "{error:?}");
        for n in 0..TOPIC_SUBS_MAX - TOPIC_SUBS_PER_OWNER_MAX {
            subs.add(sub("t", Owner::Client(ClientId(n as u64)))).unwrap();
        }
        assert!(subs.add(sub("t", of("b"))).is_err());
        assert_eq!((subs.count(), subs.filters().len()), (TOPIC_SUBS_MAX, TOPIC_SUBS_PER_OWNER_MAX + 1));
    }
}
