//! History: batches that are kept, and what is known of them without reading them.
//!
//! Source: `spec/kinds/topics.md`, "History". The batches lie in the store; here is where each is, when it
//! was published, and what it adds to a sum.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

use super::batch::{Batch, BatchId};
use super::name::{Filter, Topic};
use super::room::{Lodger, Rooms};
use super::tree::{Given, Gossip};
use super::wire::pack;
use crate::error::{IpcCode, IpcError};
use crate::id::AgentId;
use crate::limits::{
    HISTORY_PARTS, TOPIC_KEEP_LAST_DEFAULT, TOPIC_KEEPS_MAX, TOPIC_KEPT_BATCHES_MAX, TOPIC_KEPT_BYTES_MAX,
    TOPIC_KEPT_LOOK_MS,
};
use crate::store::{BODY_PREFIX, Write};

/// How the keys of what is to be kept begin.
pub const KEEP: &str = "topics/keep/";
/// How the keys of batches begin that are kept.
pub const KEPT: &str = "topics/kept/";

/// How much of a topic is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Of which topics.
    #[serde(with = "as_text")]
    pub topic: Filter,
    /// The newest so many messages of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// What was published in the last so many hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<u64>,
}

/// What is known of a batch that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    messages: u64,
    bytes: u64,
    mark: u64,
    /// When it was published, or came, whichever was first: a date in the future makes it no newer.
    at_ms: u64,
    stranger: bool,
}

/// How a batch came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Came {
    /// When, by the wall clock.
    pub wall_ms: u64,
    /// Its publisher is a stranger.
    pub stranger: bool,
}

/// An entry as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    from: AgentId,
    seq: u64,
    topic: String,
    ts: u64,
    messages: u64,
    bytes: u64,
    mark: String,
    /// Absent: as `ts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stranger: bool,
}

/// Batches of one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Published from here on, in Unix milliseconds.
    pub from_ms: u64,
    /// Up to here.
    pub to_ms: u64,
}

/// When a batch was published, and which it is.
type Place = (u64, BatchId);

/// In which order batches of a topic go: what is of strangers first, then what came first.
type Turn = (Rank, u64, BatchId);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Stranger,
    Peer,
}

/// What is kept of one topic.
#[derive(Debug, Default, PartialEq, Eq)]
struct OfTopic {
    batches: BTreeMap<Place, Entry>,
    turns: BTreeSet<Turn>,
    messages: u64,
    bytes: u64,
}

/// All that is kept.
#[derive(Debug, Default)]
pub struct Kept {
    keeps: Vec<Keep>,
    topics: BTreeMap<Topic, OfTopic>,
    places: HashMap<BatchId, (Topic, u64)>,
    rooms: Rooms,
    bytes: u64,
    /// When all was looked at for what is too old; none: what is to be kept has changed since.
    looked_ms: Option<u64>,
}

impl Entry {
    fn of(batch: &Batch, came: Came) -> Self {
        Self {
            messages: batch.count as u64,
            bytes: batch.bytes() as u64,
            mark: batch.mark(),
            at_ms: batch.ts_ms.min(came.wall_ms),
            stranger: came.stranger,
        }
    }

    fn turn(&self, id: BatchId) -> Turn {
        (if self.stranger { Rank::Stranger } else { Rank::Peer }, self.at_ms, id)
    }
}

impl OfTopic {
    fn insert(&mut self, (ts_ms, id): Place, entry: Entry) {
        (self.messages, self.bytes) = (self.messages + entry.messages, self.bytes + entry.bytes);
        self.turns.insert(entry.turn(id));
        self.batches.insert((ts_ms, id), entry);
    }

    fn remove(&mut self, place: Place) -> Option<Entry> {
        let entry = self.batches.remove(&place)?;
        self.turns.remove(&entry.turn(place.1));
        (self.messages, self.bytes) = (self.messages - entry.messages, self.bytes - entry.bytes);
        Some(entry)
    }

    /// The oldest, whoever published it.
    fn oldest_ms(&self) -> Option<u64> {
        let first = (Rank::Peer, 0, BatchId { from: AgentId([0; 16]), seq: 0 });
        let of_peers = self.turns.range(first..).next();
        self.turns.first().into_iter().chain(of_peers).map(|(_, at_ms, _)| *at_ms).min()
    }
}

impl Kept {
    /// What is to be kept.
    pub fn keeps(&self) -> &[Keep] {
        &self.keeps
    }

    /// Whether a topic's history is kept.
    pub fn wants(&self, topic: &Topic) -> bool {
        self.keeps.iter().any(|keep| keep.topic.matches(topic))
    }

    /// Whether a batch is kept.
    pub fn has(&self, id: BatchId) -> bool {
        self.places.contains_key(&id)
    }

    /// Messages and bytes that are kept because of a filter.
    pub fn held(&self, filter: &Filter) -> (u64, u64) {
        let topics = self.topics.iter().filter(|(topic, _)| filter.matches(topic));
        topics.fold((0, 0), |(messages, bytes), (_, of)| (messages + of.messages, bytes + of.bytes))
    }

    /// What storing it takes that a history is kept. [`Self::keep`] follows once it is stored.
    ///
    /// # Errors
    /// When there are too many filters.
    pub fn write_of(&self, keep: &Keep) -> Result<Write, IpcError> {
        let there = self.keeps.iter().any(|known| known.topic == keep.topic);
        if !there && self.keeps.len() >= TOPIC_KEEPS_MAX {
            let message = format!(
                "the history of {TOPIC_KEEPS_MAX} filters is kept already: end one with `axon topic keep \
                 FILTER --off`, or use * and >"
            );
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        Ok(Write::put(key_of_keep(&keep.topic), serde_json::to_vec(keep).unwrap_or_default()))
    }

    /// Keeps what this filter matches from now on.
    pub fn keep(&mut self, keep: Keep) {
        self.looked_ms = None;
        self.keeps.retain(|known| known.topic != keep.topic);
        self.keeps.push(keep);
    }

    /// What storing it takes that a history is kept no more. [`Self::keep_no_more`] follows once it is.
    pub fn delete_of(filter: &Filter) -> Write {
        Write::delete(key_of_keep(filter))
    }

    /// Keeps no more what only this filter matches: [`Self::expire`] lets go of it.
    pub fn keep_no_more(&mut self, filter: &Filter) {
        self.looked_ms = None;
        self.keeps.retain(|keep| keep.topic != *filter);
    }

    /// What storing a batch takes. [`Self::add`] follows once it is stored.
    pub fn writes(given: &Given, came: Came) -> Vec<Write> {
        let batch = &given.batch;
        let entry = Entry::of(batch, came);
        let stored = Stored {
            from: batch.from,
            seq: batch.seq,
            topic: batch.topic.to_string(),
            ts: batch.ts_ms,
            messages: entry.messages,
            bytes: entry.bytes,
            mark: format!("{:016x}", batch.mark()),
            at: Some(entry.at_ms).filter(|at_ms| *at_ms != batch.ts_ms),
            stranger: entry.stranger,
        };
        let gossip = Gossip { batches: vec![given.clone()], ..Gossip::default() };
        let body = pack(&gossip).into_iter().next();
        let body = body.map(|body| Write::put(key_of_body(batch.id()), body.get()));
        let index = Write::put(key_of_batch(batch.id()), serde_json::to_vec(&stored).unwrap_or_default());
        body.into_iter().chain([index]).collect()
    }

    /// A batch is stored. Gives what is to be stored because others had to go.
    pub fn add(&mut self, batch: &Batch, came: Came) -> Vec<Write> {
        if !self.insert(batch.topic.clone(), batch.ts_ms, batch.id(), Entry::of(batch, came)) {
            return Vec::new();
        }
        let mut writes = Vec::new();
        self.trim(&batch.topic, came.wall_ms, &mut writes);
        while (self.places.len() > TOPIC_KEPT_BATCHES_MAX || self.bytes > TOPIC_KEPT_BYTES_MAX)
            && let Some(id) = self.rooms.first_to_go()
        {
            self.let_go(id, &mut writes);
        }
        writes
    }

    /// Lets go of what is too old, or was kept for a filter that has changed; what is to be stored.
    pub fn expire(&mut self, wall_ms: u64) -> Vec<Write> {
        let mut writes = Vec::new();
        let by_time = self.keeps.iter().any(|keep| keep.hours.is_some());
        let soon = |looked_ms: u64| !by_time || looked_ms.abs_diff(wall_ms) < TOPIC_KEPT_LOOK_MS;
        if self.looked_ms.is_some_and(soon) {
            return writes;
        }
        self.looked_ms = Some(wall_ms);
        let topics: Vec<Topic> = self.topics.keys().cloned().collect();
        topics.iter().for_each(|topic| self.trim(topic, wall_ms, &mut writes));
        writes
    }

    /// What was published before would not be kept: it is too old, or there are enough that are newer.
    pub fn floor_ms(&self, topic: &Topic, wall_ms: u64) -> u64 {
        let (last, oldest_ms) = self.bounds(topic, wall_ms);
        let full = self.topics.get(topic).filter(|of| of.messages >= last);
        full.and_then(OfTopic::oldest_ms).map_or(oldest_ms, |first_ms| oldest_ms.max(first_ms))
    }

    /// Whether a batch would be kept, and not go at once because there are enough that go after it.
    pub fn would_stay(&self, batch: &Batch, came: Came) -> bool {
        let (last, oldest_ms) = self.bounds(&batch.topic, came.wall_ms);
        let full = self.topics.get(&batch.topic).filter(|of| of.messages >= last);
        let first = full.and_then(|of| of.turns.first());
        let turn = Entry::of(batch, came).turn(batch.id());
        batch.ts_ms >= oldest_ms && first.is_none_or(|first| turn > *first)
    }

    /// Whether any batch of a stranger would be kept: a topic may be full of what is not of strangers.
    pub fn has_room_for_strangers(&self, topic: &Topic) -> bool {
        let (last, _) = self.bounds(topic, 0);
        let full = self.topics.get(topic).filter(|of| of.messages >= last);
        full.and_then(|of| of.turns.first()).is_none_or(|(rank, ..)| *rank == Rank::Stranger)
    }

    /// Nothing of a publisher is kept any more; what is to be stored.
    pub fn forget(&mut self, publisher: AgentId) -> Vec<Write> {
        let mut writes = Vec::new();
        let theirs: Vec<BatchId> = self.places.keys().filter(|id| id.from == publisher).copied().collect();
        theirs.into_iter().for_each(|id| self.let_go(id, &mut writes));
        writes
    }

    // --- ranges ---

    /// The topics of which something is kept.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.keys()
    }

    /// From the oldest to the newest of a topic.
    pub fn whole(&self, topic: &Topic) -> Option<Range> {
        let batches = &self.topics.get(topic)?.batches;
        let (first, last) = (batches.first_key_value()?, batches.last_key_value()?);
        Some(Range { from_ms: first.0.0, to_ms: last.0.0 })
    }

    /// How many there are of a time, and the sum of their marks.
    pub fn sum(&self, topic: &Topic, range: Range) -> (u64, u64) {
        let entries = self.within(topic, range);
        entries.fold((0, 0), |(count, marks), (_, entry)| (count + 1, entry.mark.wrapping_add(marks)))
    }

    /// Those of a time, the newest first.
    pub fn list(&self, topic: &Topic, range: Range) -> impl Iterator<Item = BatchId> {
        self.within(topic, range).rev().map(|((_, id), _)| *id)
    }

    /// Those of a time with when they were published, the oldest first.
    pub fn dated(&self, topic: &Topic, range: Range) -> impl Iterator<Item = (u64, BatchId)> {
        self.within(topic, range).map(|(place, _)| *place)
    }

    /// The topic of a batch that is kept.
    pub fn topic_of(&self, id: BatchId) -> Option<&Topic> {
        self.places.get(&id).map(|(topic, _)| topic)
    }

    /// Parts of a time that have about as many of what is kept each, and all of the time together.
    pub fn parts(&self, topic: &Topic, range: Range) -> Vec<Range> {
        let times: Vec<u64> = self.within(topic, range).map(|((ts_ms, _), _)| *ts_ms).collect();
        let step = times.len().div_ceil(HISTORY_PARTS).max(1);
        let mut begins: Vec<u64> = times.iter().step_by(step).copied().collect();
        begins.insert(0, range.from_ms);
        // So that it gets shorter, also where all are of one moment.
        begins.extend(times.last().map(|last| last + 1).filter(|after| *after <= range.to_ms));
        begins.dedup();
        let ends = begins.iter().skip(1).map(|begin| begin - 1).chain([range.to_ms]);
        begins.iter().zip(ends).map(|(from_ms, to_ms)| Range { from_ms: *from_ms, to_ms }).collect()
    }

    // --- the store ---

    /// Takes over an item of the store.
    #[inline(never)]
    pub fn restore_keep(&mut self, value: &[u8]) {
        if let Ok(keep) = serde_json::from_slice::<Keep>(value)
            && self.keeps.len() < TOPIC_KEEPS_MAX
        {
            self.keeps.push(keep);
        }
    }

    /// Takes over an item of the store.
    #[inline(never)]
    pub fn restore_batch(&mut self, value: &[u8]) {
        let Ok(stored) = serde_json::from_slice::<Stored>(value) else { return };
        let (Ok(topic), Ok(mark)) = (Topic::parse(&stored.topic), u64::from_str_radix(&stored.mark, 16))
        else {
            return;
        };
        let id = BatchId { from: stored.from, seq: stored.seq };
        let Stored { ts, messages, bytes, at, stranger, .. } = stored;
        self.insert(topic, ts, id, Entry { messages, bytes, mark, at_ms: at.unwrap_or(ts), stranger });
    }

    // --- parts ---

    fn within(&self, topic: &Topic, range: Range) -> impl DoubleEndedIterator<Item = (&Place, &Entry)> {
        let first = BatchId { from: AgentId([0; 16]), seq: 0 };
        let last = BatchId { from: AgentId([0xff; 16]), seq: u64::MAX };
        let (from, to) = ((range.from_ms, first), (range.to_ms, last));
        let batches = self.topics.get(topic).filter(|_| range.from_ms <= range.to_ms);
        batches.into_iter().flat_map(move |of| of.batches.range(from..=to))
    }

    fn insert(&mut self, topic: Topic, ts_ms: u64, id: BatchId, entry: Entry) -> bool {
        if self.places.contains_key(&id) {
            return false;
        }
        self.bytes += entry.bytes;
        self.places.insert(id, (topic.clone(), ts_ms));
        self.rooms.add(lodger(id, &topic, &entry));
        self.topics.entry(topic).or_default().insert((ts_ms, id), entry);
        true
    }

    /// How many messages of a topic are kept, and from when on: the most that a filter says.
    fn bounds(&self, topic: &Topic, wall_ms: u64) -> (u64, u64) {
        let keeps = || self.keeps.iter().filter(|keep| keep.topic.matches(topic));
        let last = keeps().map(|keep| match (keep.last, keep.hours) {
            (None, Some(_)) => u64::MAX,
            (last, _) => last.unwrap_or(TOPIC_KEEP_LAST_DEFAULT),
        });
        let hours = keeps().map(|keep| keep.hours.unwrap_or(u64::MAX)).max().unwrap_or(0);
        (last.max().unwrap_or(0), wall_ms.saturating_sub(hours.saturating_mul(3_600_000)))
    }

    fn trim(&mut self, topic: &Topic, wall_ms: u64, writes: &mut Vec<Write>) {
        let (last, oldest_ms) = self.bounds(topic, wall_ms);
        while let Some(of) = self.topics.get(topic)
            && let Some(((ts_ms, id), _)) = of.batches.first_key_value()
            && *ts_ms < oldest_ms
        {
            self.let_go(*id, writes);
        }
        while let Some(of) = self.topics.get(topic)
            && let Some((_, _, id)) = of.turns.first()
            && of.messages - self.entry(*id).map_or(0, |first| first.messages) >= last
        {
            self.let_go(*id, writes);
        }
    }

    fn entry(&self, id: BatchId) -> Option<&Entry> {
        let (topic, ts_ms) = self.places.get(&id)?;
        self.topics.get(topic)?.batches.get(&(*ts_ms, id))
    }

    /// One is kept no more.
    fn let_go(&mut self, id: BatchId, writes: &mut Vec<Write>) {
        let Some((topic, ts_ms)) = self.places.remove(&id) else { return };
        let Some(of) = self.topics.get_mut(&topic) else { return };
        let Some(entry) = of.remove((ts_ms, id)) else { return };
        if of.batches.is_empty() {
            self.topics.remove(&topic);
        }
        self.rooms.remove(lodger(id, &topic, &entry));
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        writes.extend([Write::delete(key_of_batch(id)), Write::delete(key_of_body(id))]);
    }
}

fn lodger<'a>(id: BatchId, topic: &'a Topic, entry: &Entry) -> Lodger<'a> {
    Lodger { id, topic, at_ms: entry.at_ms, bytes: entry.bytes, stranger: entry.stranger }
}

/// Where a batch lies in the store.
pub fn key_of_body(id: BatchId) -> String {
    format!("{BODY_PREFIX}topics/{}/{}", id.from, id.seq)
}

fn key_of_batch(id: BatchId) -> String {
    format!("{KEPT}{}/{}", id.from, id.seq)
}

/// A filter may be longer than a key.
fn key_of_keep(filter: &Filter) -> String {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(filter.as_str());
    hash.iter().take(16).fold(KEEP.to_owned(), |key, byte| format!("{key}{byte:02x}"))
}

/// A filter as text.
mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Filter;

    pub(super) fn serialize<S: Serializer>(filter: &Filter, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(filter.as_str())
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Filter, D::Error> {
        let text = String::deserialize(from)?;
        Filter::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::PublicKey;
    use crate::wire::raw_json;

    const HOUR_MS: u64 = 3_600_000;

    fn given(topic: &str, seq: u64, ts_ms: u64, messages: usize) -> Given {
        given_by(1, topic, seq, ts_ms, messages)
    }
    fn given_by(publisher: u8, topic: &str, seq: u64, ts_ms: u64, messages: usize) -> Given {
        let message = raw_json("{}".to_owned());
        let topic = Topic::parse(topic).unwrap();
        let signed =
            Batch::to_sign(&PublicKey([publisher; 32]), &topic, seq, ts_ms, &vec![&*message; messages]);
        Given { batch: Arc::new(Batch::read(signed, [0; 64]).unwrap()), hops: 1, age_ms: 0 }
    }
    fn keep(topic: &str, last: Option<u64>, hours: Option<u64>) -> Keep {
        Keep { topic: Filter::parse(topic).unwrap(), last, hours }
    }
    fn kept(keeps: &[Keep]) -> Kept {
        let mut kept = Kept::default();
        keeps.iter().for_each(|one| kept.keep(one.clone()));
        kept
    }
    fn at(wall_ms: u64) -> Came {
        Came { wall_ms, stranger: false }
    }
    fn all(kept: &Kept, topic: &str) -> Vec<u64> {
        let topic = Topic::parse(topic).unwrap();
        let ids = kept.whole(&topic).map(|range| kept.list(&topic, range).collect::<Vec<_>>());
        ids.into_iter().flatten().map(|id| id.seq).collect()
    }

    #[test]
    fn the_last_messages_of_each_topic_are_kept_or_those_of_some_hours() {
        let mut some = kept(&[keep("t.*", Some(5), None), keep("h", None, Some(2))]);
        for seq in 0..5 {
            some.add(&given("t.a", 2 * seq, seq, 2).batch, at(10));
            some.add(&given("t.b", 100 + seq, seq, 1).batch, at(10));
        }
        // Whole batches are kept: so many that the last five are among them.
        assert_eq!((all(&some, "t.a"), all(&some, "t.b").len()), (vec![8, 6, 4], 5));
        assert_eq!(some.held(&Filter::parse("t.*").unwrap()).0, 11);
        let now_ms = 10 * HOUR_MS;
        for hour in 7..10 {
            some.add(&given("h", 200 + hour, hour * HOUR_MS, 64).batch, at(now_ms));
        }
        assert_eq!(all(&some, "h"), [209, 208]);
        assert!(!some.expire(now_ms + HOUR_MS).is_empty());
        assert_eq!(all(&some, "h"), [209]);
        let (h, a) = (Topic::parse("h").unwrap(), Topic::parse("t.a").unwrap());
        assert_eq!((some.floor_ms(&h, now_ms), some.floor_ms(&a, 10)), (now_ms - 2 * HOUR_MS, 2));
        // Whoever keeps nothing more lets go of it.
        some.keep_no_more(&Filter::parse("t.*").unwrap());
        let writes = some.expire(now_ms + HOUR_MS);
        assert_eq!(writes.len(), 2 * 8);
        assert_eq!((some.places.len(), some.wants(&a)), (1, false));
    }

    #[test]
    fn what_is_stored_is_restored_and_the_body_can_be_given() {
        let mut one = kept(&[]);
        let rule = [one.write_of(&keep("t", Some(9), Some(3))).unwrap()];
        one.keep(keep("t", Some(9), Some(3)));
        let given = given("t", 7, 1_000, 3);
        let writes = Kept::writes(&given, at(1_000));
        one.add(&given.batch, at(1_000));
        let mut again = Kept::default();
        let mut body = None;
        for write in rule.iter().chain(&writes) {
            let Write::Put { key, value } = write else { panic!("{write:?}") };
            assert!(key.len() <= 255);
            if key.starts_with(KEEP) {
                again.restore_keep(value);
            } else if key.starts_with(KEPT) {
                again.restore_batch(value);
            } else {
                assert_eq!(*key, key_of_body(given.batch.id()));
                body = Some(std::str::from_utf8(value).unwrap().to_owned());
            }
        }
        assert_eq!(again.keeps, one.keeps);
        assert_eq!((again.topics, again.bytes), (one.topics, one.bytes));
        let read = Gossip::parse(&body.unwrap()).unwrap();
        assert_eq!(read.gossip.batches[0].batch.signed.get(), given.batch.signed.get());
        // What is damaged is passed over.
        let mut other = Kept::default();
        other.restore_keep(b"{}");
        other.restore_batch(b"x");
        assert!(other.keeps.is_empty() && other.places.is_empty());
    }

    // shows: TOP-HIST-5
    #[test]
    fn all_together_is_bounded_and_the_topic_with_most_lets_go_first() {
        let mut some = kept(&[keep(">", Some(100_000), None)]);
        some.add(&given("small", 1, 1, 1).batch, at(1));
        let mut deleted = 0;
        for seq in 0..TOPIC_KEPT_BATCHES_MAX as u64 + 10 {
            deleted += some.add(&given("large", 10 + seq, seq, 1).batch, at(seq)).len();
        }
        assert_eq!((some.places.len(), deleted), (TOPIC_KEPT_BATCHES_MAX, 2 * 11));
        assert_eq!(all(&some, "small"), [1]);
        // A stranger that fills many topics takes the room of strangers.
        let mut gone = Vec::new();
        for seq in 0..20 {
            let strange = given_by(9, &format!("many.{seq}"), seq, 1_000_000, 1);
            gone.extend(some.add(&strange.batch, Came { wall_ms: 1_000_000, stranger: true }));
        }
        let of_peer = format!("{}/", PublicKey([1; 32]).agent_id());
        assert!(gone.iter().all(|write| !format!("{write:?}").contains(&of_peer)), "{gone:?}");
        assert_eq!((gone.len(), some.places.len()), (2 * 20, TOPIC_KEPT_BATCHES_MAX));
        for n in 1..TOPIC_KEEPS_MAX {
            some.keep(keep(&format!("k.{n}"), None, None));
        }
        some.write_of(&keep(">", Some(5), None)).unwrap();
        let error = some.write_of(&keep("one.more", None, None)).unwrap_err();
        assert!(error.message.contains("--off"), "{error:?}");
    }

    // shows: TOP-HIST-5
    #[test]
    fn on_a_topic_strangers_take_the_room_that_peers_leave() {
        let mut some = kept(&[keep("t", Some(5), None)]);
        let topic = Topic::parse("t").unwrap();
        let strange = |wall_ms: u64| Came { wall_ms, stranger: true };
        for seq in 0..10 {
            some.add(&given_by(9, "t", 100 + seq, 10 + seq, 1).batch, strange(10 + seq));
        }
        assert_eq!(all(&some, "t"), [109, 108, 107, 106, 105], "nobody else publishes there");
        assert!(some.would_stay(&given("t", 1, 5, 1).batch, at(30)), "an older one of a peer");
        for seq in 1..=3 {
            some.add(&given("t", seq, 20 + seq, 1).batch, at(20 + seq));
        }
        assert_eq!(all(&some, "t"), [3, 2, 1, 109, 108]);
        assert!(some.has_room_for_strangers(&topic) && some.floor_ms(&topic, 30) == 18);
        for seq in 4..=5 {
            some.add(&given("t", seq, 20 + seq, 1).batch, at(20 + seq));
        }
        let late = given_by(9, "t", 200, 90, 1);
        assert!(!some.would_stay(&late.batch, strange(90)) && !some.has_room_for_strangers(&topic));
        assert_eq!(some.add(&late.batch, strange(90)).len(), 2);
        assert_eq!((all(&some, "t"), some.floor_ms(&topic, 90)), (vec![5, 4, 3, 2, 1], 21));
    }

    // shows: TOP-HIST-5
    #[test]
    fn a_date_in_the_future_keeps_nobody_elses_out() {
        let mut some = kept(&[keep("t", Some(5), None)]);
        for seq in 0..5 {
            some.add(&given_by(2, "t", 100 + seq, 120_000, 1).batch, at(seq));
        }
        for seq in 5..8 {
            assert!(some.would_stay(&given("t", seq, seq, 1).batch, at(seq)));
            some.add(&given("t", seq, seq, 1).batch, at(seq));
        }
        assert_eq!(all(&some, "t"), [104, 103, 7, 6, 5]);
        // Also after a restart.
        let mut again = kept(&[keep("t", Some(5), None)]);
        for (given, came) in [
            (given_by(2, "t", 104, 120_000, 1), Came { wall_ms: 4, stranger: true }),
            (given("t", 5, 5, 1), at(5)),
        ] {
            for write in Kept::writes(&given, came) {
                let Write::Put { key, value } = write else { panic!("{write:?}") };
                if key.starts_with(KEPT) {
                    again.restore_batch(&value);
                }
            }
        }
        let turns: Vec<(Rank, u64)> =
            again.topics.values().flat_map(|of| of.turns.iter().map(|turn| (turn.0, turn.1))).collect();
        assert_eq!(turns, [(Rank::Stranger, 4), (Rank::Peer, 5)]);
    }

    #[test]
    fn parts_of_a_time_are_all_of_it_and_shorter() {
        let mut some = kept(&[keep("t", Some(1_000), None)]);
        let topic = Topic::parse("t").unwrap();
        for seq in 0..100 {
            some.add(&given("t", seq, 1_000 + seq / 3, 1).batch, at(1));
        }
        let range = Range { from_ms: 500, to_ms: 2_000 };
        let parts = some.parts(&topic, range);
        assert!((2..=HISTORY_PARTS + 2).contains(&parts.len()), "{parts:?}");
        assert_eq!((parts[0].from_ms, parts.last().unwrap().to_ms), (500, 2_000));
        for pair in parts.windows(2) {
            assert!(pair[0].from_ms <= pair[0].to_ms && pair[0].to_ms + 1 == pair[1].from_ms, "{parts:?}");
        }
        let sums = parts.iter().map(|part| some.sum(&topic, *part));
        let whole =
            sums.fold((0, 0), |(n, m): (u64, u64), (count, marks)| (n + count, m.wrapping_add(marks)));
        assert_eq!(whole, some.sum(&topic, range));
        // All of one moment.
        let mut moment = kept(&[keep("t", Some(1_000), None)]);
        (0..100).for_each(|seq| drop(moment.add(&given("t", seq, 7, 1).batch, at(1))));
        let parts = moment.parts(&topic, Range { from_ms: 7, to_ms: 9 });
        assert_eq!(parts, [Range { from_ms: 7, to_ms: 7 }, Range { from_ms: 8, to_ms: 9 }]);
        assert_eq!(moment.parts(&topic, Range { from_ms: 7, to_ms: 7 }), [Range { from_ms: 7, to_ms: 7 }]);
    }

    #[test]
    fn whoever_is_out_has_nothing_kept_here() {
        let mut some = kept(&[keep("t", None, None)]);
        let one = given("t", 1, 1, 1);
        some.add(&one.batch, at(1));
        assert_eq!(some.forget(AgentId([9; 16])).len(), 0);
        assert_eq!(some.forget(one.batch.from).len(), 2);
        assert!(some.places.is_empty() && some.topics.is_empty() && some.bytes == 0);
    }
}
