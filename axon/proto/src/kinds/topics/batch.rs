//! A batch: messages of one publisher on one topic under one signature. It goes from neighbour to neighbour
//! as it is; what is signed is kept as the bytes that came.
//!
//! Source: `spec/decisions/0017-topics.md`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::name::Topic;
use crate::id::{AgentId, PublicKey};
use crate::limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, JSON_NUMBER_MAX};
use crate::wire::{plain, push_one_line, raw_json};

/// What the signed bytes begin with, so that no signature made for something else fits.
const DOMAIN: &[u8] = b"axon topic 1\n";
/// It, and a SHA-256.
const SIGNED_BYTES: usize = DOMAIN.len() + 32;

/// One that was read and whose publisher's id goes with its key. Nothing is said of its signature yet.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Who published it.
    pub from: AgentId,
    /// Their key.
    pub key: PublicKey,
    /// On which topic.
    pub topic: Topic,
    /// The number of its first message among those of its publisher; the next one counts on from its last.
    pub seq: u64,
    /// When it was published, in Unix milliseconds.
    pub ts_ms: u64,
    /// How many messages it has.
    pub count: usize,
    /// The hash of what is signed, over which the signature is.
    pub digest: [u8; 32],
    /// What is signed: a JSON object, as it came.
    pub signed: Box<RawValue>,
    /// The signature.
    pub sig: [u8; 64],
}

/// What a batch is known by. Whoever signs two batches with one number is heard once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// Its publisher.
    pub from: AgentId,
    /// The number of its first message.
    pub seq: u64,
}

/// What is signed.
#[derive(Serialize, Deserialize)]
struct Signed<'a> {
    from: AgentId,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    seq: u64,
    ts: u64,
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

impl Batch {
    /// What a publisher signs, for [`Self::read`], whose [`Self::signed_bytes`] are then signed.
    pub fn to_sign(
        key: &PublicKey,
        topic: &Topic,
        seq: u64,
        ts_ms: u64,
        messages: &[&RawValue],
    ) -> Box<RawValue> {
        let (from, messages) = (key.agent_id(), messages.to_vec());
        let (key, topic) = (key.to_string().into(), topic.as_str().into());
        let signed = crate::wire::to_raw(&Signed { from, key, topic, seq, ts: ts_ms, messages });
        if !has_line_breaks(&signed) {
            return signed;
        }
        // An envelope is one line, and these bytes must be in it as they were signed.
        let mut line = String::with_capacity(signed.get().len());
        push_one_line(&mut line, signed.get());
        raw_json(line)
    }

    /// The bytes that the signature is over: of a constant length, because Ed25519 hashes them twice to sign
    /// and once to check, and processors have instructions for SHA-256 but seldom for its SHA-512.
    pub fn signed_bytes(&self) -> [u8; SIGNED_BYTES] {
        let mut bytes = [0; SIGNED_BYTES];
        let (domain, digest) = bytes.split_at_mut(DOMAIN.len());
        domain.copy_from_slice(DOMAIN);
        digest.copy_from_slice(&self.digest);
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(signed: Box<RawValue>, sig: [u8; 64]) -> Result<Self, String> {
        let text = signed.get();
        if text.len() > BATCH_BYTES_MAX {
            return Err(format!("`signed` has {} bytes, {BATCH_BYTES_MAX} at most", text.len()));
        }
        if !text.starts_with('{') {
            return Err("`signed` must be an object".to_owned());
        }
        if has_line_breaks(&signed) {
            return Err("`signed` has a line break, which a message cannot carry".to_owned());
        }
        let fields: Signed<'_> =
            serde_json::from_str(text).map_err(|error| format!("`signed`: {}", plain(&error)))?;
        let key: PublicKey = fields.key.parse().map_err(|error| format!("`signed.key`: {error}"))?;
        if key.agent_id() != fields.from {
            return Err(format!(
                "`signed.from` is {}, and its key is that of {}",
                fields.from,
                key.agent_id()
            ));
        }
        let topic = Topic::parse(&fields.topic).map_err(|error| format!("`signed.topic`: {error}"))?;
        let count = fields.messages.len();
        if !(1..=BATCH_MESSAGES_MAX).contains(&count) {
            return Err(format!("`signed.messages` has {count} items, 1 to {BATCH_MESSAGES_MAX} may be"));
        }
        if let Some(wrong) = fields.messages.iter().position(|message| !message.get().starts_with('{')) {
            return Err(format!("`signed.messages[{wrong}]` must be an object"));
        }
        let (from, seq, ts_ms) = (fields.from, fields.seq, fields.ts);
        if seq.saturating_add(count as u64) > JSON_NUMBER_MAX || ts_ms > JSON_NUMBER_MAX {
            return Err(format!("`signed.seq` and `signed.ts` go up to {JSON_NUMBER_MAX}"));
        }
        let digest: [u8; 32] = Sha256::digest(text).into();
        Ok(Self { from, key, topic, seq, ts_ms, count, digest, signed, sig })
    }

    /// What it adds to the sum of a topic: the first eight bytes of the hash of what is signed.
    pub fn mark(&self) -> u64 {
        self.digest.iter().take(8).fold(0, |mark, byte| mark << 8 | u64::from(*byte))
    }

    /// What it is known by.
    pub fn id(&self) -> BatchId {
        BatchId { from: self.from, seq: self.seq }
    }

    /// Its messages as they were published, with their numbers.
    pub fn messages(&self) -> Vec<(u64, &RawValue)> {
        // It was read once, so this cannot fail.
        let fields = serde_json::from_str::<Signed<'_>>(self.signed.get());
        fields.map(|fields| (self.seq..).zip(fields.messages).collect()).unwrap_or_default()
    }

    /// Bytes that it takes in a message.
    pub fn bytes(&self) -> usize {
        self.signed.get().len() + 128
    }
}

fn has_line_breaks(signed: &RawValue) -> bool {
    memchr::memchr2(b'\n', b'\r', signed.get().as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PublicKey = PublicKey([7; 32]);

    fn signed(messages: usize) -> Box<RawValue> {
        let message = raw_json("{\"n\": 1.50}".to_owned());
        let topic = Topic::parse("build.main").unwrap();
        Batch::to_sign(&KEY, &topic, 40, 1_795_000_000_000, &vec![&*message; messages])
    }

    // shows: TOP-BATCH-1, TOP-BATCH-4, TOP-BATCH-5
    #[test]
    fn what_was_published_is_read_byte_for_byte() {
        let batch = Batch::read(signed(2), [1; 64]).unwrap();
        assert_eq!((batch.from, batch.key, batch.topic.as_str()), (KEY.agent_id(), KEY, "build.main"));
        let messages: Vec<(u64, &str)> = batch.messages().into_iter().map(|(n, m)| (n, m.get())).collect();
        assert_eq!(messages, [(40, "{\"n\": 1.50}"), (41, "{\"n\": 1.50}")]);
        let again = Batch::read(signed(2), [2; 64]).unwrap();
        assert_eq!((batch.id(), batch.mark()), (again.id(), again.mark()), "the mark is of what is signed");
        assert_ne!(batch.mark(), Batch::read(signed(1), [1; 64]).unwrap().mark());
        let digest = Sha256::digest(batch.signed.get());
        assert_eq!(batch.signed_bytes().as_slice(), [b"axon topic 1\n".as_slice(), &digest].concat());
    }

    // shows: TOP-BATCH-2
    #[test]
    fn line_breaks_between_tokens_are_spaces_before_it_is_signed() {
        let topic = Topic::parse("t").unwrap();
        let signed = Batch::to_sign(&KEY, &topic, 1, 2, &[&raw_json("{\"a\":\r\n\"\\n\"}".to_owned())]);
        let batch = Batch::read(signed, [0; 64]).unwrap();
        assert_eq!(batch.messages().first().map(|(_, message)| message.get()), Some(r#"{"a":  "\n"}"#));
    }

    #[test]
    fn a_message_costs_no_more_than_300_bytes_beside_itself_and_what_a_hop_adds() {
        let message = raw_json("{\"n\": 1.50}".to_owned());
        // A number as daemons give them: 16 digits. `hops` and `age_ms` are the hop's own.
        let number = 1_795_000_000_000_000;
        let overhead = |messages: usize| {
            let topic = Topic::parse("build.main").unwrap();
            let messages = vec![&*message; messages];
            let signed = Batch::to_sign(&KEY, &topic, number, 1_795_000_000_000, &messages);
            let around = "{\"signed\":,\"sig\":\"\"},".len() + 64usize.div_ceil(3) * 4;
            (signed.get().len() + around - messages.len() * message.get().len()) / messages.len()
        };
        assert!(overhead(1) <= 300 && overhead(64) <= 6, "{} {}", overhead(1), overhead(64));
    }

    // shows: TOP-BATCH-2, TOP-BATCH-3
    #[test]
    fn what_is_no_batch_says_why() {
        let good = signed(1).get().to_owned();
        let from = KEY.agent_id().to_string();
        for (text, why) in [
            ("[1]".to_owned(), "object"),
            ("{}".to_owned(), "missing field"),
            (good.replace(&from, &AgentId([0; 16]).to_string()), "its key is that of"),
            (good.replace("build.main", "build.*"), "is a filter"),
            (good.replace("\"seq\":40", "\"seq\":18446744073709551615"), "go up to"),
            (good.replace("\"seq\":40", "\"seq\":9007199254740991"), "go up to"),
            (good.replace("\"ts\":1795000000000", "\"ts\":9007199254740992"), "go up to"),
            (good.replace("[{\"n\": 1.50}]", "[{}, [1]]"), "messages[1]"),
            (good.replace("1.50", "\n1.50"), "line break"),
            (good.replace("\"seq\":40", "\"seq\":-1"), "`signed`"),
            (good.replace("[{\"n\": 1.50}]", "[]"), "0 items"),
            (good.replace("{\"n\"", &format!("{{\"{}\"", "n".repeat(BATCH_BYTES_MAX))), "bytes"),
        ] {
            let error = Batch::read(raw_json(text.clone()), [0; 64]).unwrap_err();
            assert!(error.contains(why), "{text:.80}: {error}");
        }
        assert!(Batch::read(signed(BATCH_MESSAGES_MAX + 1), [0; 64]).is_err());
        assert!(Batch::read(signed(BATCH_MESSAGES_MAX), [0; 64]).is_ok());
    }
}
