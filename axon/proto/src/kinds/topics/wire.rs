//! What neighbours say to one another, as JSON: the payloads of `topic.join`, `topic.leave` and
//! `topic.gossip`.
//!
//! Source: `spec/kinds/topics.md`. Reading has two steps. [`GossipText::parse`] looks at everything but the
//! batches, which it steps over; it is what the kind's check does. [`GossipText::read`] then reads each
//! batch, once, and leaves out one that is wrong, so that it does not spoil the others.

mod pack;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

pub use self::pack::pack;
use super::batch::{Batch, BatchId};
use super::name::{Filter, Topic};
use super::tree::{Given, Gossip, Have, Sum, Tree};
use crate::id::AgentId;
use crate::limits::{
    JSON_NUMBER_MAX, TOPIC_FILTERS_BYTES_MAX, TOPIC_FILTERS_MAX, TOPIC_GOSSIP_BATCHES_MAX,
    TOPIC_GOSSIP_SEQS_MAX, TOPIC_GOSSIP_SUMS_MAX,
};
use crate::wire::{from_object, plain, push_number, raw_json};

/// `topic.join`: all that its sender wants of a neighbour from now on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Join {
    /// Rises with each join and leave of one sender.
    pub n: u64,
    /// What it wants.
    pub filters: Vec<Filter>,
    /// Of what it keeps the history.
    pub keeps: Vec<Filter>,
}

/// `topic.leave`: its sender wants nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leave {
    /// Rises with each join and leave of one sender.
    pub n: u64,
}

impl Join {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it; the sentence names the field.
    pub fn parse(payload: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(deserialize_with = "field::n")]
            n: Number,
            #[serde(deserialize_with = "field::filters")]
            filters: Vec<Filter>,
            #[serde(default, deserialize_with = "field::keeps")]
            keeps: Option<Vec<Filter>>,
        }
        let Fields { n: Number(n), filters, keeps } = from_object(payload).map_err(|error| plain(&error))?;
        let keeps = keeps.unwrap_or_default();
        check_filters(&filters).map_err(|error| format!("`filters`: {error}"))?;
        check_filters(&keeps).map_err(|error| format!("`keeps`: {error}"))?;
        Ok(Self { n, filters, keeps })
    }

    /// As a payload. Whoever makes it sees to it that each list passes [`check_filters`].
    pub fn payload(&self) -> Box<RawValue> {
        let mut text = String::from("{\"n\":");
        push_number(&mut text, self.n.min(JSON_NUMBER_MAX));
        let lists = [(",\"filters\":[", Some(&self.filters)), (",\"keeps\":[", nonempty(&self.keeps))];
        for (name, filters) in lists.into_iter().filter_map(|(name, list)| Some((name, list?))) {
            text.push_str(name);
            for (n, filter) in filters.iter().enumerate() {
                text.push_str(if n == 0 { "\"" } else { ",\"" });
                // What a filter is made of needs no escapes.
                text.push_str(filter.as_str());
                text.push('"');
            }
            text.push(']');
        }
        text.push('}');
        raw_json(text)
    }
}

fn nonempty<T>(list: &Vec<T>) -> Option<&Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

/// Whether so many filters fit one list of a join.
///
/// # Errors
/// What is too much.
pub fn check_filters(filters: &[Filter]) -> Result<(), String> {
    if filters.len() > TOPIC_FILTERS_MAX {
        return Err(format!("{} filters, and {TOPIC_FILTERS_MAX} at most may be", filters.len()));
    }
    let bytes: usize = filters.iter().map(|filter| filter.as_str().len()).sum();
    if bytes > TOPIC_FILTERS_BYTES_MAX {
        return Err(format!(
            "the filters have {bytes} bytes together, and {TOPIC_FILTERS_BYTES_MAX} at most may be"
        ));
    }
    Ok(())
}

impl Leave {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it; the sentence names the field.
    pub fn parse(payload: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(deserialize_with = "field::n")]
            n: Number,
        }
        let Fields { n: Number(n) } = from_object(payload).map_err(|error| plain(&error))?;
        Ok(Self { n })
    }

    /// As a payload.
    pub fn payload(&self) -> Box<RawValue> {
        raw_json(format!("{{\"n\":{}}}", self.n.min(JSON_NUMBER_MAX)))
    }
}

/// Checks the payload of `topic.join`.
pub fn check_join(payload: &str) -> Result<(), String> {
    Join::parse(payload).map(drop)
}

/// Checks the payload of `topic.leave`.
pub fn check_leave(payload: &str) -> Result<(), String> {
    Leave::parse(payload).map(drop)
}

/// Checks the payload of `topic.gossip`, but for what is in its batches: no key, signature or message is
/// looked at here.
pub fn check_gossip(payload: &str) -> Result<(), String> {
    GossipText::parse(payload).map(drop)
}

/// A `topic.gossip` of which the batches are not read yet.
#[derive(Debug, Deserialize)]
pub struct GossipText<'a> {
    #[serde(borrow, default, deserialize_with = "field::batches")]
    batches: Option<Vec<&'a RawValue>>,
    #[serde(default, deserialize_with = "field::have")]
    have: Option<Vec<Object<HaveItem>>>,
    #[serde(default, deserialize_with = "field::want")]
    want: Option<Vec<Object<WantItem>>>,
    #[serde(default, deserialize_with = "field::graft")]
    graft: Option<Vec<Object<Tree>>>,
    #[serde(default, deserialize_with = "field::prune")]
    prune: Option<Vec<Object<Tree>>>,
    #[serde(default, deserialize_with = "field::sums")]
    sums: Option<Vec<Object<SumItem>>>,
}

/// What a `topic.gossip` says.
#[derive(Debug, Default)]
pub struct Read {
    /// All of it that can be read.
    pub gossip: Gossip,
    /// Batches that cannot.
    pub malformed: usize,
    /// What is wrong with the first of these.
    pub why: Option<String>,
}

impl<'a> GossipText<'a> {
    /// Reads everything but the batches.
    ///
    /// # Errors
    /// What is wrong with it; the sentence names the field.
    pub fn parse(payload: &'a str) -> Result<Self, String> {
        let text: Self = from_object(payload).map_err(|error| plain(&error))?;
        let Self { batches, have, want, graft, prune, sums } = &text;
        let has_trees = graft.is_some() || prune.is_some();
        if batches.is_none() && have.is_none() && want.is_none() && sums.is_none() && !has_trees {
            return Err("`batches`, `have`, `want`, `graft`, `prune` or `sums` must be there".to_owned());
        }
        let of = |lists: Vec<usize>| (lists.contains(&0), lists.into_iter().sum::<usize>());
        let haves = of(have.iter().flatten().map(|item| item.0.seqs.len()).collect());
        let wants = of(want.iter().flatten().map(|item| item.0.seqs.len()).collect());
        for (name, (has_empty, count)) in [("have", haves), ("want", wants)] {
            if has_empty {
                return Err(format!("`{name}`: `seqs` must have at least one number"));
            }
            if count > TOPIC_GOSSIP_SEQS_MAX {
                return Err(format!("`{name}` has {count} numbers, {TOPIC_GOSSIP_SEQS_MAX} at most may be"));
            }
        }
        let batches = ("batches", batches.as_ref().map_or(0, Vec::len), TOPIC_GOSSIP_BATCHES_MAX);
        let counted = ("sums", sums.as_ref().map_or(0, Vec::len), TOPIC_GOSSIP_SUMS_MAX);
        for (name, count, max) in [batches, counted] {
            if count > max {
                return Err(format!("`{name}` has {count} items, {max} at most may be"));
            }
        }
        if let Some(wrong) = sums.iter().flatten().find(|sum| sum.0.from_ms.0 > sum.0.to_ms.0) {
            let (from_ms, to_ms) = (wrong.0.from_ms.0, wrong.0.to_ms.0);
            return Err(format!("`sums`: `to_ms` is {to_ms}, which is before `from_ms`, {from_ms}"));
        }
        Ok(text)
    }

    /// Reads the batches as well. Their signatures are not looked at.
    pub fn read(self) -> Read {
        let mut read = Read::default();
        for item in self.batches.into_iter().flatten() {
            match Given::parse(item.get()) {
                Ok(given) => read.gossip.batches.push(given),
                Err(why) => {
                    read.malformed += 1;
                    read.why.get_or_insert(why);
                }
            }
        }
        let gossip = &mut read.gossip;
        for Object(HaveItem { topic, from, seqs, kept }) in self.have.into_iter().flatten() {
            let kept = kept.unwrap_or_default();
            gossip.have.extend(seqs.into_iter().map(|(Number(seq), hops)| Have {
                id: BatchId { from, seq },
                topic: topic.clone(),
                hops,
                kept,
            }));
        }
        for Object(WantItem { from, seqs }) in self.want.into_iter().flatten() {
            gossip.want.extend(seqs.into_iter().map(|Number(seq)| BatchId { from, seq }));
        }
        gossip.graft = self.graft.into_iter().flatten().map(|tree| tree.0).collect();
        gossip.prune = self.prune.into_iter().flatten().map(|tree| tree.0).collect();
        gossip.sums = self.sums.into_iter().flatten().map(|item| item.0.into()).collect();
        read
    }
}

impl Gossip {
    /// Reads a payload of `topic.gossip`.
    ///
    /// # Errors
    /// What is wrong with it, where that is not in a batch; the sentence names the field.
    pub fn parse(payload: &str) -> Result<Read, String> {
        GossipText::parse(payload).map(GossipText::read)
    }
}

impl Given {
    /// Reads a batch as it stands in a gossip. Its signature is not looked at.
    ///
    /// # Errors
    /// What is wrong with it; the sentence names the field.
    pub fn parse(item: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow)]
            signed: &'a RawValue,
            #[serde(borrow)]
            sig: Cow<'a, str>,
            #[serde(deserialize_with = "field::hops")]
            hops: u16,
            #[serde(deserialize_with = "field::age_ms")]
            age_ms: Number,
        }
        let fields: Fields<'_> = from_object(item).map_err(|error| plain(&error))?;
        let sig = Some(&*fields.sig).filter(|sig| sig.len() == 88).and_then(|sig| STANDARD.decode(sig).ok());
        let sig = sig.and_then(|sig| sig.try_into().ok());
        let sig = sig.ok_or("`sig` must be the base64 text of 64 bytes, with padding")?;
        let batch = Arc::new(Batch::read(fields.signed.to_owned(), sig)?);
        Ok(Self { batch, hops: fields.hops, age_ms: fields.age_ms.0 })
    }
}

// --- items ---

#[derive(Debug, Deserialize)]
struct HaveItem {
    #[serde(deserialize_with = "field::topic")]
    topic: Topic,
    #[serde(deserialize_with = "field::from")]
    from: AgentId,
    #[serde(deserialize_with = "field::seqs")]
    seqs: Vec<(Number, u16)>,
    #[serde(default, deserialize_with = "field::kept")]
    kept: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct WantItem {
    #[serde(deserialize_with = "field::from")]
    from: AgentId,
    #[serde(deserialize_with = "field::seqs")]
    seqs: Vec<Number>,
}

#[derive(Debug, Deserialize)]
struct SumItem {
    #[serde(deserialize_with = "field::topic")]
    topic: Topic,
    #[serde(deserialize_with = "field::from_ms")]
    from_ms: Number,
    #[serde(deserialize_with = "field::to_ms")]
    to_ms: Number,
    #[serde(deserialize_with = "field::count")]
    count: Number,
    #[serde(deserialize_with = "field::marks")]
    marks: Marks,
    #[serde(default, deserialize_with = "field::answer")]
    answer: Option<bool>,
    #[serde(default, deserialize_with = "field::kept")]
    kept: Option<bool>,
}

impl From<SumItem> for Sum {
    fn from(item: SumItem) -> Self {
        let SumItem { topic, from_ms, to_ms, count, marks, answer, kept } = item;
        let (answer, kept) = (answer.unwrap_or_default(), kept.unwrap_or_default());
        Self { topic, from_ms: from_ms.0, to_ms: to_ms.0, count: count.0, marks: marks.0, answer, kept }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(deserialize_with = "field::topic")]
            topic: Topic,
            #[serde(deserialize_with = "field::from")]
            from: AgentId,
        }
        Fields::deserialize(from).map(|Fields { topic, from }| Self { topic, from })
    }
}

/// A type that is read from an object alone, where it lies: serde takes a list for one as well.
#[derive(Debug)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        from.deserialize_map(OfMap(PhantomData)).map(Self)
    }
}

/// A number that every JSON reader holds exactly.
#[derive(Debug, Clone, Copy)]
struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(from)?;
        if number > JSON_NUMBER_MAX {
            return Err(D::Error::custom(format!("{number} is more than {JSON_NUMBER_MAX}")));
        }
        Ok(Self(number))
    }
}

/// A sum of marks: 16 lowercase hexadecimal digits.
#[derive(Debug, Clone, Copy)]
struct Marks(u64);

impl<'de> Deserialize<'de> for Marks {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <Cow<'_, str>>::deserialize(from)?;
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return Err(D::Error::custom("marks are 16 lowercase hexadecimal digits"));
        }
        u64::from_str_radix(&text, 16).map(Self).map_err(D::Error::custom)
    }
}

/// Fields whose errors say which field it is.
mod field {
    use serde::{Deserialize, Deserializer};

    macro_rules! named {
        ($($name:ident)*) => {$(
            pub(super) fn $name<'de, D, T>(from: D) -> Result<T, D::Error>
            where
                D: Deserializer<'de>,
                T: Deserialize<'de>,
            {
                T::deserialize(from).map_err(|error| super::named(stringify!($name), &error))
            }
        )*};
    }
    named!(n filters keeps batches have want graft prune sums topic from seqs kept from_ms to_ms count marks);
    named!(answer hops age_ms);
}

/// The error of a field. The place of what was wrong means nothing to the sender of one line.
fn named<E: serde::de::Error>(name: &str, error: &E) -> E {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(&*text, |(sentence, _)| sentence);
    E::custom(format!("`{name}`: {text}"))
}

fn push_topic(text: &mut String, topic: &Topic) {
    // What a topic is made of needs no escapes.
    text.push_str("\"topic\":\"");
    text.push_str(topic.as_str());
    text.push('"');
}

fn push_from(text: &mut String, from: AgentId) {
    text.push_str("\"from\":\"");
    from.with_text(|from| text.push_str(from));
    text.push('"');
}

#[cfg(test)]
mod tests;
