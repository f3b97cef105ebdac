//! Writing: what one neighbour says to another, in as few payloads as it fits.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::{push_from, push_topic};
use crate::id::AgentId;
use crate::kinds::topics::batch::BatchId;
use crate::kinds::topics::name::Topic;
use crate::kinds::topics::tree::{Given, Gossip, Have, Sum, Tree};
use crate::limits::{
    JSON_NUMBER_MAX, MESSAGE_BYTES_MAX, TOPIC_GOSSIP_BATCHES_MAX, TOPIC_GOSSIP_SEQS_MAX,
    TOPIC_GOSSIP_SUMS_MAX,
};
use crate::wire::{push_number, raw_json};

/// A payload: what a message may have, but for its envelope.
pub(super) const PAYLOAD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 512;
/// All that a batch has around what is signed, at most.
const AROUND_BATCH_BYTES: usize = 160;
/// Numbers that are written as one item: it leaves room for others.
const ITEM_SEQS_MAX: usize = 512;

/// What one neighbour says to another as payloads, each of which fits a message.
pub fn pack(gossip: &Gossip) -> Vec<Box<RawValue>> {
    let mut packer = Packer::default();
    packer.trees("prune", &gossip.prune);
    packer.trees("graft", &gossip.graft);
    packer.wants(&gossip.want);
    packer.haves(&gossip.have);
    for sum in &gossip.sums {
        packer.sum(sum);
    }
    for given in &gossip.batches {
        packer.batch(given);
    }
    packer.end()
}

/// Payloads that are being written, one after another.
#[derive(Default)]
struct Packer {
    done: Vec<Box<RawValue>>,
    text: String,
    /// The list that is open in the text.
    list: &'static str,
    /// How much of it is in the text.
    count: usize,
}

impl Packer {
    /// Makes room for an item of a list, of which a payload may have `count_max` in all.
    fn item(&mut self, list: &'static str, bytes: usize, count: usize, count_max: usize) -> &mut String {
        // A comma, the list's name in quotes with its colon and bracket, and what ends it and the payload.
        let around = list.len() + 8;
        let is_full = self.list == list && self.count + count > count_max;
        if !self.text.is_empty() && (is_full || self.text.len() + around + bytes > PAYLOAD_BYTES_MAX) {
            self.finish();
        }
        if self.list == list {
            self.text.push(',');
        } else {
            self.text.push_str(match self.list {
                "" => "{\"",
                _ => "],\"",
            });
            self.text.push_str(list);
            self.text.push_str("\":[");
            (self.list, self.count) = (list, 0);
        }
        self.count += count;
        &mut self.text
    }

    fn finish(&mut self) {
        self.text.push_str("]}");
        self.done.push(raw_json(std::mem::take(&mut self.text)));
        (self.list, self.count) = ("", 0);
    }

    fn end(mut self) -> Vec<Box<RawValue>> {
        if !self.text.is_empty() {
            self.finish();
        }
        self.done
    }

    fn trees(&mut self, list: &'static str, trees: &[Tree]) {
        for tree in trees {
            let mut item = String::from("{");
            push_topic(&mut item, &tree.topic);
            item.push(',');
            push_from(&mut item, tree.from);
            item.push('}');
            self.item(list, item.len(), 1, usize::MAX).push_str(&item);
        }
    }

    fn wants(&mut self, want: &[BatchId]) {
        let mut want = want.to_vec();
        want.sort_unstable();
        for those in want.chunk_by(|a, b| a.from == b.from).flat_map(|those| those.chunks(ITEM_SEQS_MAX)) {
            let Some(first) = those.first() else { continue };
            let mut item = String::from("{");
            push_from(&mut item, first.from);
            item.push_str(",\"seqs\":");
            for (n, id) in those.iter().enumerate() {
                item.push(if n == 0 { '[' } else { ',' });
                push_number(&mut item, id.seq);
            }
            item.push_str("]}");
            self.item("want", item.len(), those.len(), TOPIC_GOSSIP_SEQS_MAX).push_str(&item);
        }
    }

    fn haves(&mut self, have: &[Have]) {
        fn tree(have: &Have) -> (&Topic, AgentId, bool) {
            (&have.topic, have.id.from, have.kept)
        }
        let mut have: Vec<&Have> = have.iter().collect();
        have.sort_by(|a, b| tree(a).cmp(&tree(b)));
        for those in have.chunk_by(|a, b| tree(a) == tree(b)).flat_map(|those| those.chunks(ITEM_SEQS_MAX)) {
            let Some(first) = those.first() else { continue };
            let mut item = String::from("{");
            push_topic(&mut item, &first.topic);
            item.push(',');
            push_from(&mut item, first.id.from);
            item.push_str(",\"seqs\":");
            for (n, have) in those.iter().enumerate() {
                item.push_str(if n == 0 { "[[" } else { ",[" });
                push_number(&mut item, have.id.seq);
                item.push(',');
                push_number(&mut item, have.hops.into());
                item.push(']');
            }
            item.push_str(if first.kept { "],\"kept\":true}" } else { "]}" });
            self.item("have", item.len(), those.len(), TOPIC_GOSSIP_SEQS_MAX).push_str(&item);
        }
    }

    fn sum(&mut self, sum: &Sum) {
        let mut item = String::from("{");
        push_topic(&mut item, &sum.topic);
        for (name, number) in
            [(",\"from_ms\":", sum.from_ms), (",\"to_ms\":", sum.to_ms), (",\"count\":", sum.count)]
        {
            item.push_str(name);
            push_number(&mut item, number.min(JSON_NUMBER_MAX));
        }
        item.push_str(&format!(",\"marks\":\"{:016x}\"", sum.marks));
        item.push_str(if sum.answer { ",\"answer\":true" } else { "" });
        item.push_str(if sum.kept { ",\"kept\":true}" } else { "}" });
        self.item("sums", item.len(), 1, TOPIC_GOSSIP_SUMS_MAX).push_str(&item);
    }

    fn batch(&mut self, given: &Given) {
        let Given { batch, hops, age_ms } = given;
        let signed = batch.signed.get();
        let bytes = signed.len() + AROUND_BATCH_BYTES;
        let text = self.item("batches", bytes, 1, TOPIC_GOSSIP_BATCHES_MAX);
        text.reserve(bytes + 2);
        text.push_str("{\"signed\":");
        text.push_str(signed);
        text.push_str(",\"sig\":\"");
        STANDARD.encode_string(batch.sig, text);
        text.push_str("\",\"hops\":");
        push_number(text, (*hops).into());
        text.push_str(",\"age_ms\":");
        push_number(text, (*age_ms).min(JSON_NUMBER_MAX));
        text.push('}');
    }
}
