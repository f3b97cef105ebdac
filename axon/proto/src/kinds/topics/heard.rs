//! What neighbours give: each batch is looked at from the cheapest question to the dearest, and then taken,
//! kept, shown and passed on, or counted and dropped.
//!
//! Source: `spec/kinds/topics.md`, "Taking a batch".

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::batch::{Batch, BatchId};
use super::kept::{Came, Kept, key_of_body};
use super::name::Topic;
use super::neighbours::{Neighbour, Said};
use super::rules::NotTaken;
use super::subs::About;
use super::tree::{Given, Gossip, Have, Sum};
use super::{Awaited, Topics, history};
use crate::family::{Act, Cx, Note};
use crate::id::{AgentId, MsgId};
use crate::limits::{
    HISTORY_WANT_MAX, TOPIC_AGAIN_MAX, TOPIC_AGAIN_MS, TOPIC_AGAIN_TIMES, TOPIC_GOSSIP_SEQS_MAX,
    TOPIC_LISTED_MAX,
};
use crate::store::Row;
use crate::trust::Level;

/// The kind of what clients are shown.
pub const MESSAGE: &str = "topic.message";

/// A batch on its way to clients and to the disk.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// It.
    pub given: Given,
    /// Who gave it; none: it is ours.
    pub via: Option<AgentId>,
    /// It comes from what was kept.
    pub history: bool,
    /// It was taken before, as it was published.
    pub shown: bool,
    /// When it came, by the clock that does not jump: it may wait before it is shown.
    pub came_ms: u64,
    /// How often it was tried.
    pub tries: u32,
    /// What of it is to be done.
    pub part: Part,
}

/// What is to be done of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    All,
    /// To show it.
    Rows,
    /// To keep it.
    History,
}

/// The payload of `topic.message`.
#[derive(Debug, Serialize, Deserialize)]
pub struct MessagePayload<'a> {
    /// On which topic.
    pub topic: std::borrow::Cow<'a, str>,
    /// Its number among those of its publisher.
    pub seq: u64,
    /// The neighbour that gave it; none: it was published here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<AgentId>,
    /// How far that neighbour is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via_trust: Option<Level>,
    /// How many hops it came.
    pub hops: u16,
    /// How long ago it was published.
    pub age_ms: u64,
    /// Its publisher is no peer here.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stranger: bool,
    /// It comes from what was kept.
    #[serde(default, skip_serializing_if = "is_false")]
    pub history: bool,
    /// It was taken before as it was published.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shown: bool,
    /// The reader that a replay of history is for.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<String>,
    /// What was published.
    #[serde(borrow)]
    pub message: &'a RawValue,
}

impl Topics {
    /// A neighbour has said something.
    #[inline(never)]
    pub(super) fn heard_gossip(&mut self, from: AgentId, payload: &str, cx: &mut Cx<'_>, said: &mut Said) {
        // It was checked before it came here.
        let Ok(read) = Gossip::parse(payload) else { return };
        for _ in 0..read.malformed {
            self.dropped.count(NotTaken::Malformed);
        }
        let mut gossip = read.gossip;
        for given in std::mem::take(&mut gossip.batches) {
            self.heard_batch(from, given, cx, said);
        }
        let (kept_have, mut have): (Vec<Have>, Vec<Have>) =
            std::mem::take(&mut gossip.have).into_iter().partition(|have| have.kept);
        have.retain(|have| self.asks(from, have, cx));
        let (kept_sums, sums) = std::mem::take(&mut gossip.sums).into_iter().partition(|sum| sum.kept);
        (gossip.have, gossip.sums) = (have, sums);
        // Nobody has two sums of one topic to say at once.
        gossip.sums.sort_by(|a: &Sum, b: &Sum| a.topic.cmp(&b.topic));
        gossip.sums.dedup_by(|a, b| a.topic == b.topic);
        // Whoever asks for one many times is given it once.
        gossip.want.sort_unstable();
        gossip.want.dedup();
        self.heard_want(from, &mut gossip, cx);
        let (subs, kept, settings) = (&self.subs, &self.kept, cx.view.topics());
        let ours = |topic: &Topic| subs.wants(topic) || kept.wants(topic) || settings.relays(topic);
        let outs = self.mesh.hear(from, &gossip, ours, cx.now.mono_ms);
        said.add(outs);
        for have in kept_have {
            let lacks = !self.kept.has(have.id) && !self.storing.contains(&have.id);
            let asks = lacks && self.kept.wants(&have.topic) && self.asks_history(from, &have, cx);
            if asks {
                self.history.announced(from, have.id);
            }
        }
        let kept_sums: Vec<Sum> = kept_sums;
        let mut room = said.to(from).have.len() + TOPIC_GOSSIP_SEQS_MAX;
        for sum in kept_sums.iter().filter(|sum| self.kept.wants(&sum.topic)) {
            let answer = history::answer(&self.kept, sum, cx.now.wall_ms);
            // One message is answered by no more than another can say.
            room = room.saturating_sub(answer.have.len() + answer.sums.len());
            if room > 0 {
                said.join(from, answer);
            }
        }
        self.ask_history(from, cx, said);
    }

    /// Asks a neighbour for more of its history, or compares again when nothing is left to ask for.
    pub(super) fn ask_history(&mut self, from: AgentId, cx: &mut Cx<'_>, said: &mut Said) {
        let (kept, storing) = (&self.kept, &self.storing);
        let has = |id: BatchId| kept.has(id) || storing.contains(&id);
        let want = self.history.next_wants(from, has, cx.now.mono_ms);
        said.to(from).want.extend(want);
        if !self.storing.is_empty() {
            // What is still being stored is in no sum.
            return;
        }
        let again = self.history.done(from);
        let sums = again.iter().map(|topic| history::whole(&self.kept, topic, cx.now.wall_ms));
        said.to(from).sums.extend(sums);
    }

    /// What is asked for and lies on disk is read there.
    fn heard_want(&mut self, from: AgentId, gossip: &mut Gossip, cx: &mut Cx<'_>) {
        let free = |one: &&Neighbour| one.up && !one.is_full() && !one.reading;
        let Some(neighbour) = self.neighbours.get(&from).filter(free) else { return };
        let keeps = &neighbour.keeps;
        let on_disk = |id: &BatchId| {
            let topic = self.mesh.cached(*id).is_none().then(|| self.kept.topic_of(*id)).flatten();
            topic.is_some_and(|topic| keeps.iter().any(|keep| keep.matches(topic)))
        };
        let (ids, rest): (Vec<BatchId>, Vec<BatchId>) = gossip.want.iter().partition(|id| on_disk(id));
        gossip.want = rest;
        let keys: Vec<String> = ids.into_iter().take(HISTORY_WANT_MAX).map(key_of_body).collect();
        if !keys.is_empty() {
            self.neighbours.entry(from).or_default().reading = true;
            let token = self.token(Awaited::History { to: from });
            cx.act(Act::Load { family: "topics", token, keys });
        }
    }

    /// A neighbour gives a batch.
    fn heard_batch(&mut self, from: AgentId, given: Given, cx: &mut Cx<'_>, said: &mut Said) {
        let batch = given.batch.clone();
        let id = batch.id();
        let asked = self.history.is_asked(id);
        // What comes back to who published it says nothing new, unless the power went before it was kept.
        if batch.from == cx.me && !(asked && self.kept.wants(&batch.topic)) {
            return;
        }
        let outcome = self.judge(from, &batch, asked, cx, said);
        if asked {
            // It may come by another way before it is stored. One that is refused may come from another.
            let of = if outcome.is_ok() { None } else { Some(from) };
            self.history.came(id, &batch.topic, of, cx.now.mono_ms);
        }
        let history = match outcome {
            Ok(Some(history)) => history,
            Ok(None) => return,
            Err(why) => return self.dropped.count(why),
        };
        let shown = history && self.mesh.was_taken(id);
        if !history {
            said.add(self.mesh.take(from, given.clone(), cx.now.mono_ms));
        }
        self.note_traffic(&batch, cx.now.wall_ms);
        let (via, part, came_ms) = (Some(from), Part::All, cx.now.mono_ms);
        self.deliver(Delivery { given, via, history, shown, came_ms, tries: 0, part }, cx);
    }

    /// Gives a batch to whoever has subscribed here, and keeps it where that was asked for; whether that
    /// waits for the disk.
    pub(super) fn deliver(&mut self, delivery: Delivery, cx: &mut Cx<'_>) -> bool {
        let delivery = Arc::new(delivery);
        let rows = delivery.part != Part::History && self.show(&delivery, cx);
        let kept = delivery.part != Part::Rows && self.keep_batch(&delivery, cx);
        rows || kept
    }

    /// Gives a batch to whoever has subscribed here; whether that waits for the disk.
    fn show(&mut self, delivery: &Arc<Delivery>, cx: &mut Cx<'_>) -> bool {
        let from = delivery.given.batch.from;
        if cx.view.level(from) == Some(Level::Blocked) {
            return false;
        }
        if cx.view.is_paused(from) {
            // It waits, and what does not fit is missed, and said to be.
            let delivery = Delivery { part: Part::Rows, tries: 0, ..Delivery::clone(delivery) };
            self.later(delivery, cx);
            return false;
        }
        let given = &delivery.given;
        let batch = &given.batch;
        let stranger = is_stranger(batch.from, cx);
        let wall_ms = cx.now.wall_ms;
        // By what is signed as well: a neighbour may say any age, and a publisher's clock may be late.
        let waited_ms = cx.now.mono_ms.saturating_sub(delivery.came_ms);
        let given_age_ms = given.age_ms.saturating_add(waited_ms);
        let by_age_ms = if delivery.history { 0 } else { wall_ms.saturating_sub(given_age_ms) };
        let age_ms = wall_ms.saturating_sub(by_age_ms.max(batch.ts_ms.min(wall_ms)));
        let (published_ms, at_ms) = (wall_ms - age_ms, wall_ms);
        let (history, shown) = (delivery.history, delivery.shown);
        let takers =
            self.subs.takers(About { topic: &batch.topic, stranger, history, shown, published_ms, at_ms });
        let kept = takers == Some(true);
        let mut notes = Vec::new();
        if takers.is_some() {
            for (seq, message) in batch.messages() {
                // What comes again is for others than those who have it.
                let id = message_id(batch.from, seq, delivery.shown.then_some("again"));
                if kept && cx.view.was_taken(batch.from, id) {
                    continue;
                }
                notes.push(note(delivery, (id, seq), message, (age_ms, stranger), None, cx));
            }
        }
        self.delivered += notes.len() as u64;
        if !notes.is_empty() {
            let token = if kept { self.token(Awaited::Rows(delivery.clone())) } else { 0 };
            cx.act(Act::Take { family: "topics", token, notes, kept, writes: Vec::new() });
            return kept;
        }
        false
    }

    /// Keeps a batch where that was asked for; whether it is.
    fn keep_batch(&mut self, delivery: &Arc<Delivery>, cx: &mut Cx<'_>) -> bool {
        let batch = &delivery.given.batch;
        let came = came(batch.from, cx);
        let blocked = cx.view.level(batch.from) == Some(Level::Blocked);
        let keeps = !blocked && self.kept.wants(&batch.topic) && self.kept.would_stay(batch, came);
        if keeps {
            self.storing.insert(batch.id());
            let writes = Kept::writes(&delivery.given, came);
            let token = self.token(Awaited::Batch(delivery.clone()));
            cx.act(Act::Take { family: "topics", token, notes: Vec::new(), kept: true, writes });
        } else {
            // It may have been tried before.
            self.storing.remove(&batch.id());
        }
        keeps
    }

    /// A batch is kept, or could not be stored.
    pub(super) fn batch_kept(&mut self, delivery: &Delivery, stored: bool, cx: &mut Cx<'_>) {
        let batch = &delivery.given.batch;
        if !stored {
            return self.later(Delivery { part: Part::History, ..delivery.clone() }, cx);
        }
        self.storing.remove(&batch.id());
        let writes = self.kept.add(batch, came(batch.from, cx));
        put(writes, cx);
    }

    /// Something of a batch is tried again, as often as makes sense.
    pub(super) fn later(&mut self, delivery: Delivery, cx: &mut Cx<'_>) {
        if delivery.tries < TOPIC_AGAIN_TIMES && self.again.len() < TOPIC_AGAIN_MAX {
            let again = Delivery { tries: delivery.tries + 1, ..delivery };
            self.again.push_back((cx.now.mono_ms + TOPIC_AGAIN_MS, again));
            return;
        }
        self.dropped.count(NotTaken::NotKept);
        if delivery.part == Part::History {
            self.storing.remove(&delivery.given.batch.id());
        } else {
            // Whoever listens is told that something is missing.
            cx.act(Act::Missed { kind: MESSAGE });
        }
    }

    /// Tries again to store what could not be.
    #[inline(never)]
    pub(super) fn deliver_again(&mut self, cx: &mut Cx<'_>) {
        while let Some((at_ms, _)) = self.again.front()
            && *at_ms <= cx.now.mono_ms
            && let Some((_, delivery)) = self.again.pop_front()
        {
            self.deliver(delivery, cx);
        }
    }

    /// Notes that something was published on a topic.
    pub(super) fn note_traffic(&mut self, batch: &Arc<Batch>, wall_ms: u64) {
        if !self.traffic.contains_key(&batch.topic) && self.traffic.len() >= TOPIC_LISTED_MAX {
            let quietest = self.traffic.iter().min_by_key(|(_, of)| of.last_ms);
            let quietest = quietest.map(|(topic, _)| topic.clone());
            quietest.into_iter().for_each(|topic| drop(self.traffic.remove(&topic)));
        }
        let of = self.traffic.entry(batch.topic.clone()).or_default();
        of.messages += batch.count as u64;
        of.last_ms = wall_ms;
        if of.publishers.len() < TOPIC_LISTED_MAX {
            of.publishers.insert(batch.from);
        }
    }

    /// Whether a client is shown a row that was made here.
    pub(super) fn shows_row(&self, client: crate::node::ClientId, consumer: &str, row: &Row) -> bool {
        let Some(payload) = payload_of(&row.raw) else { return false };
        let Ok(topic) = Topic::parse(&payload.topic) else { return false };
        if let Some(reader) = &payload.reader
            && *reader != reader_name(None, consumer)
            && *reader != reader_name(Some(client), consumer)
        {
            return false;
        }
        let published_ms = row.at_ms.saturating_sub(payload.age_ms);
        let (stranger, history, shown) = (payload.stranger, payload.history, payload.shown);
        let about = About { topic: &topic, stranger, history, shown, published_ms, at_ms: row.at_ms };
        self.subs.shows(client, consumer, row.seq, about)
    }
}

/// Whether an agent is nobody that this agent's owner has let in: what the network says of one makes no peer.
pub(super) fn is_stranger(publisher: AgentId, cx: &Cx<'_>) -> bool {
    publisher != cx.me && !cx.view.is_let_in(publisher)
}

/// How a batch of a publisher comes now.
pub(super) fn came(publisher: AgentId, cx: &Cx<'_>) -> Came {
    Came { wall_ms: cx.now.wall_ms, stranger: is_stranger(publisher, cx) }
}

/// A message as clients are shown it.
pub(super) fn note(
    delivery: &Delivery,
    (id, seq): (MsgId, u64),
    message: &RawValue,
    (age_ms, stranger): (u64, bool),
    reader: Option<String>,
    cx: &Cx<'_>,
) -> Note {
    let batch = &delivery.given.batch;
    let payload = MessagePayload {
        topic: batch.topic.as_str().into(),
        seq,
        via: delivery.via,
        via_trust: delivery.via.and_then(|via| cx.view.level(via)),
        hops: delivery.given.hops,
        age_ms,
        stranger,
        history: delivery.history,
        shown: delivery.shown,
        reader,
        message,
    };
    let payload = crate::wire::to_raw(&payload);
    Note { id, from: batch.from, kind: MESSAGE, ts_ms: batch.ts_ms, payload }
}

/// The id of a message, the same wherever it is delivered; a replay of history for one reader has its own.
pub(super) fn message_id(publisher: AgentId, seq: u64, reader: Option<&str>) -> MsgId {
    let mut hash = Sha256::new();
    hash.update(b"axon topic message\n");
    hash.update(publisher.0);
    hash.update(seq.to_be_bytes());
    hash.update(reader.unwrap_or_default());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash.finalize()).for_each(|(byte, hashed)| *byte = hashed);
    MsgId::from_random(bytes)
}

/// How a replay of history names whom it is for.
pub(super) fn reader_name(client: Option<crate::node::ClientId>, consumer: &str) -> String {
    client.map_or_else(|| consumer.to_owned(), |client| format!("#{}", client.0))
}

/// Stores what nobody waits for.
pub(super) fn put(writes: Vec<crate::store::Write>, cx: &mut Cx<'_>) {
    for write in writes {
        match write {
            crate::store::Write::Put { key, value } => cx.act(Act::Put { key, value }),
            crate::store::Write::Delete { key } => cx.act(Act::Delete { key }),
            // A family has items, and no rows of its own.
            _ => {}
        }
    }
}

/// The payload in the text of an envelope that was made here.
fn payload_of(raw: &str) -> Option<MessagePayload<'_>> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        payload: MessagePayload<'a>,
    }
    serde_json::from_str::<Envelope<'_>>(raw).ok().map(|envelope| envelope.payload)
}

fn is_false(flag: &bool) -> bool {
    !flag
}
