//! Messages that are held until their peers can be reached, and what has become of them.
//!
//! Source: `spec/IPC.md`, "The outbox". Pure book-keeping: envelopes lie in the store, the node sends them.
//! To each peer they leave one after another, in the order in which they were given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

use crate::fault::has_room;
use crate::id::{AgentId, MsgId};
use crate::limits::{
    OUTBOX_RESULTS_MAX, OUTBOX_RETRY_FIRST_MS, OUTBOX_RETRY_MAX_MS, OUTBOX_ROW_TTL_MS, REASON_BYTES_MAX,
    RESEND_MS_MAX,
};
use crate::node::{ClientId, OutboxSettings};
use crate::store::{BODY_PREFIX, Write};
use crate::wire::{Envelope, cut};

/// One peer may take this part of the bytes of all,
const PEER_SHARE: usize = 8;
/// and so many at least.
const PEER_BYTES_MIN: usize = 1_048_576;
/// How the keys of messages begin; the envelope's has [`BODY_PREFIX`] before it.
const PREFIX: &str = "outbox/";

/// What has become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Here, on disk.
    Held,
    /// With the transport of a peer that gives no receipts.
    Sent,
    /// On the peer's disk.
    Delivered,
    /// An agent there has read it.
    Read,
    /// Its time was up before the peer could be reached.
    Expired,
    /// It will not be taken; the reason tells why.
    Refused,
}

impl State {
    /// As the outbox says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Expired => "expired",
            Self::Refused => "refused",
        }
    }

    /// All of them, by name.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Held, Self::Sent, Self::Delivered, Self::Read, Self::Expired, Self::Refused];
        all.into_iter().find(|state| state.as_str() == text)
    }
}

/// One message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Held {
    /// Its place in the order.
    pub n: u64,
    /// Its id.
    pub id: MsgId,
    /// Whom it is for.
    pub to: AgentId,
    /// Its kind.
    pub kind: Box<str>,
    /// What has become of it.
    pub state: State,
    /// When that last changed, in Unix milliseconds.
    pub since_ms: u64,
    /// When it is given up, in Unix milliseconds.
    pub expires_ms: u64,
    /// How often it has left.
    pub attempts: u32,
    /// When it first left, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// Why it was refused, or why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bytes of its envelope.
    pub bytes: usize,
    /// Whose clients are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<Box<str>>,
    /// Its sender waits to hear that it was read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wants_read: bool,
    /// Word that it was read has overtaken the answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_read: bool,
    /// The client that sent it, as long as the daemon runs.
    #[serde(skip)]
    pub client: Option<ClientId>,
    /// The command that is answered by the first outcome.
    #[serde(skip)]
    pub waiter: Option<(ClientId, String)>,
    /// It is being read from disk, or is on its way.
    #[serde(skip)]
    pub leaving: bool,
    /// The envelope, before it is first sent.
    #[serde(skip)]
    pub envelope: Option<Arc<Envelope>>,
}

impl Held {
    fn key(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    /// Whether it has not changed for so long that nobody asks for it.
    pub fn is_old(&self, wall_ms: u64) -> bool {
        self.state != State::Held && self.since_ms.saturating_add(OUTBOX_ROW_TTL_MS) <= wall_ms
    }

    /// The key of its envelope.
    pub fn body_key(&self) -> String {
        format!("{BODY_PREFIX}{PREFIX}{}", self.id)
    }

    /// Its row, to be stored.
    pub fn write(&self) -> Write {
        Write::put(self.key(), serde_json::to_vec(self).unwrap_or_default())
    }

    /// Its envelope, to be stored.
    pub fn write_body(&self, raw: &str) -> Write {
        Write::put(self.body_key(), raw)
    }
}

/// What waits for one peer.
#[derive(Debug, Default)]
struct Queue {
    order: BTreeSet<u64>,
    bytes: usize,
    /// After a refusal the next try waits for this time (monotonic milliseconds), and the one after longer.
    not_before_ms: u64,
    backoff_ms: u64,
}

/// All messages.
#[derive(Debug, Default)]
pub struct Outbox {
    rows: BTreeMap<u64, Held>,
    by_id: HashMap<MsgId, u64>,
    queues: HashMap<AgentId, Queue>,
    bytes: usize,
    held: usize,
    next_n: u64,
}

impl Outbox {
    /// Takes over an item of the store; false if it is none of the outbox.
    pub fn restore(&mut self, key: &str, value: &[u8]) -> bool {
        if !key.starts_with(PREFIX) {
            return false;
        }
        if let Ok(held) = serde_json::from_slice::<Held>(value) {
            self.next_n = self.next_n.max(held.n + 1);
            self.insert(held);
        }
        true
    }

    /// Whether one more message may be held; if not, why not.
    ///
    /// A result is held also where `messages_max` is 0, within the other bounds.
    pub fn has_room(
        &self,
        to: AgentId,
        bytes: usize,
        result: bool,
        settings: &OutboxSettings,
    ) -> Result<(), String> {
        let messages_max =
            if result { settings.messages_max.max(OUTBOX_RESULTS_MAX) } else { settings.messages_max };
        let queue = self.queues.get(&to);
        let (to_peer, peer_bytes) = queue.map_or((0, 0), |queue| (queue.order.len(), queue.bytes));
        let share = (settings.bytes_max / PEER_SHARE).max(PEER_BYTES_MIN);
        let has = to_peer < settings.per_peer_messages_max && peer_bytes + bytes <= share;
        if !has_room("messages held for one peer", has) {
            return Err(format!("{to_peer} messages of {peer_bytes} bytes for this peer are held already"));
        }
        let has = self.held < messages_max && self.bytes + bytes <= settings.bytes_max;
        if !has_room("held messages", has) {
            return Err(format!("{} messages of {} bytes are held already", self.held, self.bytes));
        }
        Ok(())
    }

    /// The place of the next message.
    pub fn next_n(&mut self) -> u64 {
        self.next_n += 1;
        self.next_n - 1
    }

    /// Adds a message.
    pub fn insert(&mut self, held: Held) {
        if held.state == State::Held {
            let queue = self.queues.entry(held.to).or_default();
            queue.order.insert(held.n);
            queue.bytes += held.bytes;
            self.bytes += held.bytes;
            self.held += 1;
        }
        self.by_id.insert(held.id, held.n);
        self.rows.insert(held.n, held);
    }

    /// Takes a message out, as if it had never been there.
    pub fn remove(&mut self, n: u64) -> Option<Held> {
        let held = self.rows.remove(&n)?;
        self.by_id.remove(&held.id);
        if held.state == State::Held {
            self.unqueue(held.to, n, held.bytes);
        }
        Some(held)
    }

    /// One message, by its place.
    pub fn get(&self, n: u64) -> Option<&Held> {
        self.rows.get(&n)
    }

    /// One message, to change anything but its state.
    pub fn get_mut(&mut self, n: u64) -> Option<&mut Held> {
        self.rows.get_mut(&n)
    }

    /// One message, by its id.
    pub fn find(&self, id: MsgId) -> Option<&Held> {
        self.rows.get(self.by_id.get(&id)?)
    }

    /// All messages, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Held> {
        self.rows.values()
    }

    /// How many messages are held for the clients of one consumer.
    pub fn held_of(&self, consumer: &str) -> usize {
        let of = |held: &&Held| held.state == State::Held && held.consumer.as_deref() == Some(consumer);
        self.rows.values().filter(of).count()
    }

    /// How many messages are held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many messages of one consumer's clients wait for each peer.
    pub fn held_for(&self, consumer: &str) -> HashMap<AgentId, usize> {
        let mut counts = HashMap::default();
        for held in self.rows.values() {
            if held.state == State::Held && held.consumer.as_deref() == Some(consumer) {
                *counts.entry(held.to).or_default() += 1;
            }
        }
        counts
    }

    /// How many messages wait for a peer.
    pub fn waiting_for(&self, peer: AgentId) -> usize {
        self.queues.get(&peer).map_or(0, |queue| queue.order.len())
    }

    /// Messages that wait for this peer, in order.
    pub fn queue(&self, peer: AgentId) -> impl Iterator<Item = u64> {
        self.queues.get(&peer).into_iter().flat_map(|queue| queue.order.iter().copied())
    }

    /// Peers that messages wait for.
    pub fn peers(&self) -> impl Iterator<Item = AgentId> {
        self.queues.keys().copied()
    }

    /// The message that should leave next for this peer, unless one is leaving or it is too early; then the
    /// time to come again, if there is one.
    pub fn next(&self, peer: AgentId, now_ms: u64) -> Result<u64, Option<u64>> {
        let queue = self.queues.get(&peer).ok_or(None)?;
        let first = *queue.order.first().ok_or(None)?;
        if self.rows.get(&first).is_none_or(|held| held.leaving) {
            return Err(None);
        }
        if queue.not_before_ms > now_ms { Err(Some(queue.not_before_ms)) } else { Ok(first) }
    }

    /// The peer did not take the last one: the next try comes later, and later each time.
    pub fn back_off(&mut self, peer: AgentId, now_ms: u64) {
        if let Some(queue) = self.queues.get_mut(&peer) {
            queue.backoff_ms = (queue.backoff_ms * 2).clamp(OUTBOX_RETRY_FIRST_MS, OUTBOX_RETRY_MAX_MS);
            queue.not_before_ms = now_ms + queue.backoff_ms;
        }
    }

    /// The peer has come up, or has taken one: no waiting.
    pub fn hurry(&mut self, peer: AgentId) {
        if let Some(queue) = self.queues.get_mut(&peer) {
            (queue.not_before_ms, queue.backoff_ms) = (0, 0);
        }
    }

    /// A message has become something else. Gives what is to be stored.
    pub fn change(&mut self, n: u64, state: State, reason: Option<String>, wall_ms: u64) -> Vec<Write> {
        let Some(held) = self.rows.get_mut(&n) else { return Vec::new() };
        let was_held = held.state == State::Held;
        held.state = state;
        held.since_ms = wall_ms;
        held.reason = reason.map(|text| cut(text, REASON_BYTES_MAX));
        held.leaving = false;
        let mut writes = vec![held.write()];
        if was_held && state != State::Held {
            held.envelope = None;
            writes.push(Write::delete(held.body_key()));
            let (to, bytes) = (held.to, held.bytes);
            self.unqueue(to, n, bytes);
        }
        writes
    }

    /// A peer is out: what it said of our messages is forgotten. Gives what is to be stored.
    pub fn forget_words(&mut self, peer: AgentId) -> Vec<Write> {
        let told = self.rows.values_mut().filter(|held| held.to == peer && held.reason.is_some());
        let mut writes = Vec::new();
        for held in told {
            held.reason = Some("the peer was blocked or forgotten here".into());
            writes.push(held.write());
        }
        writes
    }

    /// A peer has another id: what waits for it goes there. Gives what is to be stored.
    pub fn succeed(&mut self, old: AgentId, new: AgentId) -> Vec<Write> {
        let theirs: Vec<u64> = self.rows.values().filter(|held| held.to == old).map(|held| held.n).collect();
        let mut writes = Vec::new();
        for n in theirs {
            if let Some(mut held) = self.remove(n) {
                held.to = new;
                writes.push(held.write());
                self.insert(held);
            }
        }
        writes
    }

    /// Messages whose time is up and that are not just on their way, and when to look again.
    pub fn expired(&self, wall_ms: u64) -> (Vec<u64>, Option<u64>) {
        let held = self.rows.values().filter(|held| held.state == State::Held && !held.leaving);
        let (due, later): (Vec<&Held>, Vec<&Held>) = held.partition(|held| held.expires_ms <= wall_ms);
        (due.iter().map(|held| held.n).collect(), later.iter().map(|held| held.expires_ms).min())
    }

    /// Takes out what has not changed for so long that nobody asks for it. Gives what is to be stored.
    pub fn sweep(&mut self, wall_ms: u64) -> Vec<Write> {
        // One that may still be read is not shown any more, but remembered.
        let awaited = |held: &Held| {
            let until_ms = held.since_ms.saturating_add(RESEND_MS_MAX);
            held.wants_read && held.state == State::Delivered && until_ms > wall_ms
        };
        let old = |held: &&Held| held.is_old(wall_ms) && !awaited(held);
        let gone: Vec<u64> = self.rows.values().filter(old).map(|held| held.n).collect();
        gone.into_iter().filter_map(|n| self.remove(n)).map(|held| Write::delete(held.key())).collect()
    }

    /// Takes out the oldest that are done with, while there are more than this. Gives what is to be stored.
    pub fn trim(&mut self, rows_max: usize) -> Vec<Write> {
        let over = self.rows.len().saturating_sub(rows_max);
        let done = self.rows.values().filter(|held| held.state != State::Held).map(|held| held.n);
        let gone: Vec<u64> = if over == 0 { Vec::new() } else { done.take(over).collect() };
        gone.into_iter().filter_map(|n| self.remove(n)).map(|held| Write::delete(held.key())).collect()
    }

    fn unqueue(&mut self, to: AgentId, n: u64, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.held = self.held.saturating_sub(1);
        if let Some(queue) = self.queues.get_mut(&to) {
            queue.order.remove(&n);
            queue.bytes = queue.bytes.saturating_sub(bytes);
            if queue.order.is_empty() {
                self.queues.remove(&to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(outbox: &mut Outbox, to: u8) -> u64 {
        let n = outbox.next_n();
        outbox.insert(Held {
            n,
            id: MsgId::from_random([u8::try_from(n).unwrap(); 16]),
            to: AgentId([to; 16]),
            kind: "notify".into(),
            state: State::Held,
            since_ms: 0,
            expires_ms: 1_000 + n,
            attempts: 0,
            left_ms: None,
            reason: None,
            bytes: 100,
            consumer: None,
            client: None,
            waiter: None,
            leaving: false,
            wants_read: false,
            was_read: false,
            envelope: None,
        });
        n
    }
    const A: AgentId = AgentId([1; 16]);

    #[test]
    fn one_leaves_after_another_and_a_refusal_delays_the_next() {
        let mut outbox = Outbox::default();
        let (first, second) = (held(&mut outbox, 1), held(&mut outbox, 1));
        held(&mut outbox, 2);
        assert_eq!(outbox.next(A, 0), Ok(first));
        outbox.get_mut(first).unwrap().leaving = true;
        assert_eq!(outbox.next(A, 0), Err(None));
        outbox.get_mut(first).unwrap().leaving = false;
        outbox.back_off(A, 0);
        assert_eq!(outbox.next(A, 0), Err(Some(OUTBOX_RETRY_FIRST_MS)));
        outbox.back_off(A, 0);
        assert_eq!(outbox.next(A, 0), Err(Some(2 * OUTBOX_RETRY_FIRST_MS)));
        outbox.hurry(A);
        assert_eq!(outbox.change(first, State::Delivered, None, 5).len(), 2, "its row, and no body");
        assert_eq!(outbox.next(A, 0), Ok(second));
        assert_eq!((outbox.held, outbox.bytes), (2, 200));
    }

    #[test]
    fn bounds_expiry_and_the_hour_after() {
        let mut outbox = Outbox::default();
        let n = held(&mut outbox, 1);
        let settings = OutboxSettings { messages_max: 2, per_peer_messages_max: 1, ..Default::default() };
        assert!(outbox.has_room(A, 1, false, &settings).is_err(), "this peer has its share");
        assert!(outbox.has_room(AgentId([2; 16]), 1, false, &settings).is_ok());
        let none = OutboxSettings { messages_max: 0, ..Default::default() };
        assert!(outbox.has_room(A, 1, false, &none).is_err() && outbox.has_room(A, 1, true, &none).is_ok());
        let tight = OutboxSettings { bytes_max: 100, ..Default::default() };
        assert!(outbox.has_room(AgentId([2; 16]), 1, false, &tight).is_err());
        assert_eq!(outbox.expired(999), (vec![], Some(1_000)));
        assert_eq!(outbox.expired(1_000), (vec![n], None));
        outbox.change(n, State::Expired, None, 1_000);
        assert!(outbox.sweep(1_000 + OUTBOX_ROW_TTL_MS - 1).is_empty());
        assert_eq!(outbox.sweep(1_000 + OUTBOX_ROW_TTL_MS).len(), 1);
        assert_eq!(outbox.iter().count(), 0);
    }

    #[test]
    fn what_was_stored_is_restored_in_order() {
        let mut outbox = Outbox::default();
        let (first, second) = (held(&mut outbox, 1), held(&mut outbox, 1));
        let mut again = Outbox::default();
        for n in [second, first] {
            let Write::Put { key, value } = outbox.get(n).unwrap().write() else { panic!() };
            assert!(again.restore(&key, &value));
        }
        assert_eq!(again.queue(A).collect::<Vec<_>>(), [first, second]);
        assert_eq!(again.next_n(), second + 1);
        assert!(!again.restore("other", b""));
    }

    #[test]
    fn there_is_room_to_the_last_byte_of_a_peer_and_to_the_last_message_of_all() {
        let mut outbox = Outbox::default();
        held(&mut outbox, 1);
        let settings = OutboxSettings { bytes_max: PEER_SHARE * PEER_BYTES_MIN * 2, ..Default::default() };
        let share = 2 * PEER_BYTES_MIN;
        let room = |to: u8, bytes: usize, settings: &OutboxSettings| {
            outbox.has_room(AgentId([to; 16]), bytes, false, settings).is_ok()
        };
        assert!(room(1, share - 100, &settings));
        assert!(!room(1, share - 99, &settings) && !room(1, share - 98, &settings));
        let small = OutboxSettings { bytes_max: 300, ..Default::default() };
        assert!(room(2, 200, &small) && !room(2, 201, &small));
        let few = OutboxSettings { messages_max: 2, ..Default::default() };
        assert!(room(2, 1, &few));
        held(&mut outbox, 2);
        assert!(outbox.has_room(AgentId([3; 16]), 1, false, &few).is_err(), "two are held");
    }

    #[test]
    fn who_holds_how_much_is_counted_while_it_is_held() {
        let mut outbox = Outbox::default();
        let (b, mine) = (AgentId([2; 16]), Some(Box::from("mine")));
        let all: Vec<u64> = [1, 1, 2, 2].map(|to| held(&mut outbox, to)).into();
        for n in &all[..3] {
            outbox.get_mut(*n).unwrap().consumer = mine.clone();
        }
        assert_eq!((outbox.held(), outbox.held_of("mine"), outbox.held_of("yours")), (4, 3, 0));
        assert_eq!((outbox.waiting_for(A), outbox.waiting_for(b)), (2, 2));
        assert_eq!(outbox.held_for("mine"), HashMap::from_iter([(A, 2), (b, 1)]));
        outbox.change(all[0], State::Delivered, None, 0);
        assert_eq!((outbox.held(), outbox.held_of("mine"), outbox.waiting_for(A)), (3, 2, 1));
        assert_eq!(outbox.held_for("mine"), HashMap::from_iter([(A, 1), (b, 1)]));
        // What is done with is taken out without a trace, what waits leaves its queue.
        assert!(outbox.remove(all[0]).is_some() && outbox.remove(all[0]).is_none());
        assert_eq!((outbox.held(), outbox.bytes), (3, 300));
        outbox.remove(all[1]);
        assert_eq!((outbox.held(), outbox.bytes, outbox.waiting_for(A)), (2, 200, 0));
    }

    #[test]
    fn a_change_takes_the_content_off_the_disk_once() {
        let mut outbox = Outbox::default();
        let (n, other) = (held(&mut outbox, 1), held(&mut outbox, 1));
        let body = outbox.get(n).unwrap().body_key();
        assert!(body.starts_with(BODY_PREFIX) && body != outbox.get(other).unwrap().body_key());
        assert_eq!(outbox.change(n, State::Held, Some("busy".into()), 1).len(), 1);
        assert_eq!(outbox.change(n, State::Delivered, None, 2)[1], Write::delete(body));
        assert_eq!(outbox.change(n, State::Read, None, 3).len(), 1);
        for state in [State::Held, State::Sent, State::Delivered, State::Read, State::Expired, State::Refused]
        {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
    }

    #[test]
    fn a_peer_that_is_out_loses_its_words_and_one_with_a_new_key_keeps_its_messages() {
        let mut outbox = Outbox::default();
        let (said, silent, other) = (held(&mut outbox, 1), held(&mut outbox, 1), held(&mut outbox, 2));
        for n in [said, other] {
            outbox.change(n, State::Refused, Some("its words".into()), 0);
        }
        assert_eq!(outbox.forget_words(A).len(), 1);
        let reason = |outbox: &Outbox, n| outbox.get(n).unwrap().reason.clone();
        assert_eq!(reason(&outbox, other).as_deref(), Some("its words"));
        assert_ne!(reason(&outbox, said).as_deref(), Some("its words"));
        assert_eq!(reason(&outbox, silent), None);
        let new = AgentId([9; 16]);
        assert_eq!(outbox.succeed(A, new).len(), 2);
        let to = |outbox: &Outbox, n| outbox.get(n).unwrap().to;
        assert_eq!(
            (to(&outbox, said), to(&outbox, silent), to(&outbox, other)),
            (new, new, AgentId([2; 16]))
        );
        assert_eq!((outbox.waiting_for(new), outbox.waiting_for(A)), (1, 0));
    }

    #[test]
    fn what_goes_goes_at_its_time_and_what_waits_does_not() {
        let mut outbox = Outbox::default();
        let all: Vec<u64> = [1, 1, 1, 1].map(|to| held(&mut outbox, to)).into();
        outbox.get_mut(all[0]).unwrap().leaving = true;
        outbox.change(all[1], State::Delivered, None, 0);
        assert_eq!(outbox.expired(u64::MAX).0, all[2..]);
        // Nobody asks for what is old; but a receipt may still come for it.
        outbox.get_mut(all[1]).unwrap().wants_read = true;
        outbox.get_mut(all[2]).unwrap().wants_read = true;
        outbox.change(all[2], State::Refused, None, 0);
        outbox.change(all[3], State::Delivered, None, 0);
        assert_eq!(outbox.sweep(OUTBOX_ROW_TTL_MS).len(), 2);
        let left = |outbox: &Outbox| outbox.iter().map(|held| held.n).collect::<Vec<_>>();
        assert_eq!(left(&outbox), all[..2]);
        assert!(outbox.sweep(RESEND_MS_MAX - 1).is_empty());
        assert_eq!(outbox.sweep(RESEND_MS_MAX).len(), 1);
        assert_eq!(left(&outbox), all[..1]);
    }

    #[test]
    fn the_oldest_that_are_done_with_make_room() {
        let mut outbox = Outbox::default();
        let all: Vec<u64> = [1, 1, 1, 1].map(|to| held(&mut outbox, to)).into();
        for n in &all[1..] {
            outbox.change(*n, State::Delivered, None, 0);
        }
        assert!(outbox.trim(4).is_empty());
        assert_eq!(outbox.trim(2).len(), 2);
        assert_eq!(outbox.iter().map(|held| held.n).collect::<Vec<_>>(), [all[0], all[3]]);
        assert_eq!(outbox.trim(0).len(), 1, "what is held stays");
    }
}
