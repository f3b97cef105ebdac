//! What this daemon's own agents publish: messages wait a moment for others of their topic, and are signed
//! together.
//!
//! Source: `spec/kinds/topics.md`, "Batches". The first ones after a pause do not wait at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::batch::Batch;
use super::name::Topic;
use crate::error::{IpcCode, IpcError};
use crate::family::View;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, DEPTH_MAX, JSON_NUMBER_MAX, TOPIC_PATIENCE_MS,
    TOPIC_PUBLISH_AT_ONCE, TOPIC_PUBLISH_MS,
};
use crate::node::ClientId;
use crate::node::Now;
use crate::store::Write;

/// The key of the number that no batch has been signed with, nor any above it.
pub const SEQ: &str = "topics/seq";
/// So many numbers are claimed at once.
const SEQ_CLAIM: u64 = 1_000_000;
/// Around it are the envelope, its payload, the list of batches, the batch, what is signed and its list.
const MESSAGE_DEPTH_MAX: usize = DEPTH_MAX - 6;
/// All that is signed beside the topic and the messages.
const AROUND_BYTES: usize = 256;

/// A message that waits to be signed.
#[derive(Debug)]
pub struct Waiting {
    /// Who publishes it.
    pub client: ClientId,
    /// The command's id.
    pub req_id: String,
    /// The message.
    pub message: Box<RawValue>,
}

/// A batch that is signed, and whose messages are in it, in order.
#[derive(Debug)]
pub struct Signed {
    /// It.
    pub batch: Arc<Batch>,
    /// Who waits to hear that it is on its way.
    pub waiting: Vec<Waiting>,
}

/// Messages that wait.
#[derive(Debug, Default)]
pub struct Publishing {
    topics: BTreeMap<Topic, Vec<Waiting>>,
    count: usize,
    bytes: BTreeMap<Topic, usize>,
    flush_at_ms: Option<u64>,
    /// When the time began in which so many did not wait.
    began_ms: u64,
    at_once: u32,
    /// Since when it is held back for neighbours.
    held_ms: Option<u64>,
    next_seq: u64,
    claimed: u64,
}

impl Publishing {
    /// Takes over an item of the store.
    pub fn restore(&mut self, value: &[u8]) {
        let claimed = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        self.next_seq = self.next_seq.max(claimed.unwrap_or(0));
    }

    /// Claims numbers before any is used: what is to be stored.
    pub fn claim(&mut self, wall_ms: u64) -> Write {
        self.next_seq = self.next_seq.max(from_clock(wall_ms));
        self.claimed = self.next_seq + SEQ_CLAIM;
        Write::put(SEQ, self.claimed.to_string())
    }

    /// Whether one more message fits a batch, alone.
    ///
    /// # Errors
    /// When it is too long.
    pub fn check(topic: &Topic, message: &RawValue) -> Result<(), IpcError> {
        if crate::wire::nests_deeper(message.get(), MESSAGE_DEPTH_MAX) {
            return Err(IpcError::invalid(format!(
                "`payload` nests too deeply: on a topic, objects and lists are at most {MESSAGE_DEPTH_MAX} deep \
                 inside one another"
            )));
        }
        let max = BATCH_BYTES_MAX - AROUND_BYTES - topic.as_str().len();
        let bytes = message.get().len();
        if bytes > max {
            let message = format!(
                "`payload` has {bytes} bytes, and on this topic {max} at most may be: shorten it, or send a \
                 reference to it"
            );
            return Err(IpcError::new(IpcCode::MessageTooLarge, message));
        }
        Ok(())
    }

    /// How many wait to be signed.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whose messages wait to be signed.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.topics.values().flatten().map(|waiting| waiting.client)
    }

    /// The topics of what waits.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.keys()
    }

    /// Holds back what waits; false when that was done for long enough.
    pub fn hold(&mut self, mono_ms: u64) -> bool {
        let until_ms = *self.held_ms.get_or_insert(mono_ms) + TOPIC_PATIENCE_MS;
        self.flush_at_ms = Some(until_ms);
        until_ms > mono_ms
    }

    /// Whether it is held back.
    pub fn is_held(&self) -> bool {
        self.held_ms.is_some()
    }

    /// Takes a message, for which there is room.
    pub fn push(&mut self, topic: Topic, waiting: Waiting, now: Now) {
        self.count += 1;
        *self.bytes.entry(topic.clone()).or_default() += waiting.message.get().len() + 1;
        self.topics.entry(topic).or_default().push(waiting);
        if self.flush_at_ms.is_some() {
            return;
        }
        if self.began_ms + TOPIC_PUBLISH_MS <= now.mono_ms {
            (self.began_ms, self.at_once) = (now.mono_ms, 0);
        }
        // Whoever publishes one after another is not kept waiting; a burst is signed together.
        let waits = self.at_once >= TOPIC_PUBLISH_AT_ONCE;
        self.at_once += u32::from(!waits);
        self.flush_at_ms = Some(if waits { self.began_ms + TOPIC_PUBLISH_MS } else { now.mono_ms });
    }

    /// When to call [`Self::flush`].
    pub fn next_due_ms(&self) -> Option<u64> {
        self.flush_at_ms
    }

    /// Whether some of what waits is to be signed now.
    pub fn is_due(&self, topic: &Topic, mono_ms: u64) -> bool {
        let full = self.topics.get(topic).is_some_and(|waiting| waiting.len() >= BATCH_MESSAGES_MAX);
        let bytes = self.bytes.get(topic).copied().unwrap_or(0);
        full || bytes > BATCH_BYTES_MAX / 2 || self.flush_at_ms.is_some_and(|at_ms| at_ms <= mono_ms)
    }

    /// Signs all that waits; gives also what is to be stored.
    #[inline(never)]
    pub fn flush(&mut self, view: &dyn View, now: Now) -> (Vec<Signed>, Option<Write>) {
        let mut signed = Vec::new();
        (self.flush_at_ms, self.held_ms, self.count) = (None, None, 0);
        self.bytes.clear();
        for (topic, waiting) in std::mem::take(&mut self.topics) {
            let room = BATCH_BYTES_MAX - AROUND_BYTES - topic.as_str().len();
            let mut batch: Vec<Waiting> = Vec::new();
            let mut bytes = 0;
            for one in waiting {
                let more = one.message.get().len() + 1;
                if batch.len() >= BATCH_MESSAGES_MAX || (bytes + more > room && !batch.is_empty()) {
                    signed.extend(self.sign(&topic, std::mem::take(&mut batch), view, now));
                    bytes = 0;
                }
                bytes += more;
                batch.push(one);
            }
            signed.extend(self.sign(&topic, batch, view, now));
        }
        // Half of what was claimed is left while this is being stored.
        let claim = (self.next_seq + SEQ_CLAIM / 2 > self.claimed).then(|| self.claim(now.wall_ms));
        (signed, claim)
    }

    fn sign(&mut self, topic: &Topic, waiting: Vec<Waiting>, view: &dyn View, now: Now) -> Option<Signed> {
        if waiting.is_empty() {
            return None;
        }
        // Above all that was used, also where the store was lost: nobody publishes a thousand in a
        // millisecond for long.
        let seq = self.next_seq.max(from_clock(now.wall_ms));
        let messages: Vec<&RawValue> = waiting.iter().map(|one| &*one.message).collect();
        let signed = Batch::to_sign(&view.key(), topic, seq, now.wall_ms, &messages);
        self.next_seq = seq + waiting.len() as u64;
        // It was made of what `Batch::read` asks for.
        let mut batch = Batch::read(signed, [0; 64]).ok()?;
        batch.sig = view.sign(&batch.signed_bytes());
        Some(Signed { batch: Arc::new(batch), waiting })
    }
}

/// A number above all that were used before this moment. No clock, however wrong, uses up all there are.
fn from_clock(wall_ms: u64) -> u64 {
    wall_ms.saturating_mul(1_000).min(JSON_NUMBER_MAX / 2)
}
