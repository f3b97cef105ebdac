//! History for a reader that has just subscribed: some batches at a time, the oldest first, and the next once
//! these are with it.
//!
//! Source: `spec/IPC.md`, "Topics".

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::BatchId;
use super::heard::{Delivery, Part, is_stranger, message_id, note};
use super::kept::key_of_body;
use super::name::Filter;
use super::subs::{About, Owner, Sub};
use super::tree::Gossip;
use super::{Awaited, Topics};
use crate::family::{Act, Cx};
use crate::limits::{HISTORY_WANT_MAX, TOPIC_REPLAY_BATCHES_MAX};

/// One.
#[derive(Debug)]
pub struct Replay {
    sub: Sub,
    reader: String,
    queue: VecDeque<BatchId>,
    /// The token of what of it is being read, or given.
    under_way: Option<u64>,
}

impl Replay {
    /// One of these batches.
    pub fn new(sub: Sub, reader: String, queue: VecDeque<BatchId>) -> Self {
        Self { sub, reader, queue, under_way: None }
    }

    /// Whom it is for.
    pub fn owner(&self) -> &Owner {
        &self.sub.owner
    }

    /// Of which topics.
    pub fn filter(&self) -> &Filter {
        &self.sub.filter
    }
}

impl Topics {
    /// A subscription takes the place of the owner's for the same filter: what is being told of the history
    /// goes on as it says now, or ends.
    pub(super) fn replay_as(&mut self, sub: &Sub) {
        let same = |of: &Sub| of.owner == sub.owner && of.filter == sub.filter;
        self.replays.retain(|replay| sub.history || !same(&replay.sub));
        for replay in self.replays.iter_mut().filter(|replay| same(&replay.sub)) {
            replay.sub = sub.clone();
        }
    }

    /// Batches that are kept, or about to be, on topics that a filter matches: the newest, the oldest first.
    pub(super) fn kept_ids(&self, filter: &Filter) -> VecDeque<BatchId> {
        let mut ids: Vec<(u64, BatchId)> = Vec::new();
        for topic in self.kept.topics().filter(|topic| filter.matches(topic)) {
            ids.extend(self.kept.whole(topic).into_iter().flat_map(|range| self.kept.dated(topic, range)));
        }
        ids.sort_unstable();
        let skip = ids.len().saturating_sub(TOPIC_REPLAY_BATCHES_MAX);
        let stored = ids.into_iter().skip(skip).map(|(_, id)| id);
        // Those that are being stored are read after that.
        stored.chain(self.storing.iter().copied()).collect()
    }

    /// Reads on for every reader that has what was read before.
    pub(super) fn replay_on(&mut self, cx: &mut Cx<'_>) {
        self.replays.retain(|replay| replay.under_way.is_some() || !replay.queue.is_empty());
        let mut replays = std::mem::take(&mut self.replays);
        for replay in replays.iter_mut().filter(|replay| replay.under_way.is_none()) {
            let count = replay.queue.len().min(HISTORY_WANT_MAX);
            let keys: Vec<String> = replay.queue.drain(..count).map(key_of_body).collect();
            let token = self.token(Awaited::Replay);
            replay.under_way = Some(token);
            cx.act(Act::Load { family: "topics", token, keys });
        }
        self.replays = replays;
    }

    /// Batches were read.
    pub(super) fn replay_read(&mut self, token: u64, values: &[Option<Arc<[u8]>>], cx: &mut Cx<'_>) {
        let Some(replay) = self.replays.iter().find(|replay| replay.under_way == Some(token)) else { return };
        let (sub, reader) = (replay.sub.clone(), replay.reader.clone());
        let mut notes = Vec::new();
        let texts = values.iter().flatten().filter_map(|value| std::str::from_utf8(value).ok());
        for given in texts.filter_map(|text| Gossip::parse(text).ok()).flat_map(|read| read.gossip.batches) {
            let batch = given.batch.clone();
            let stranger = is_stranger(batch.from, cx);
            let about = About {
                topic: &batch.topic,
                stranger,
                history: true,
                shown: false,
                published_ms: batch.ts_ms,
                at_ms: cx.now.wall_ms,
            };
            if !sub.takes(about) {
                continue;
            }
            let age_ms = cx.now.wall_ms.saturating_sub(batch.ts_ms);
            let (came_ms, part) = (cx.now.mono_ms, Part::Rows);
            let delivery =
                Delivery { given, via: None, history: true, shown: false, came_ms, tries: 0, part };
            for (seq, message) in batch.messages() {
                let id = message_id(batch.from, seq, Some(&reader));
                let about = (age_ms, stranger);
                notes.push(note(&delivery, (id, seq), message, about, Some(reader.clone()), cx));
            }
        }
        self.delivered += notes.len() as u64;
        self.awaited.insert(token, Awaited::Replay);
        cx.act(Act::Take { family: "topics", token, notes, kept: sub.is_kept(), writes: Vec::new() });
    }

    /// They are with the reader, or could not be stored: what is left is not tried without room.
    pub(super) fn replay_shown(&mut self, token: u64, stored: bool, cx: &mut Cx<'_>) {
        for replay in self.replays.iter_mut().filter(|replay| replay.under_way == Some(token)) {
            replay.under_way = None;
            if !stored {
                replay.queue.clear();
            }
        }
        self.replay_on(cx);
    }
}
