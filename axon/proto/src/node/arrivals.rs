//! Messages of peers that are kept: admitted, written, then shown and receipted; or set aside.
//!
//! Source: `spec/IPC.md`, "The inbox", and `spec/WIRE_FORMAT.md`, "Receipts".

use super::storing::After;
use super::{Effect, Node, Now, Seen, StreamId};
use crate::error::{PeerCode, Refusal};
use crate::family::{Admit, Inbound, Input as FamilyInput, Kind, Pattern};
use crate::fault::has_room;
use crate::id::AgentId;
use crate::limits::{CLOSED_REQUESTS_MAX, REPLAY_TTL_MS, RESEND_MS_MAX, UNKNOWN_ROWS_MAX};
use crate::store::{CommitError, Write};
use crate::trust::Level;

/// Rows of ended delegations that make room together.
const ENDED_ROWS_AT_ONCE: usize = 64;
/// Streams on which one message may wait for its receipt.
const REPEATS_MAX: usize = 4;
/// How the keys of unread rows of unknown peers begin.
const LOW: &str = "low/";

/// A message that is being written.
#[derive(Debug)]
pub(super) struct Arrival {
    message: Inbound,
    known: Option<(usize, &'static Kind)>,
    /// Streams on which it came again meanwhile.
    again: Vec<StreamId>,
    /// What its family stores with it.
    writes: Vec<Write>,
    seen: Seen,
    /// Bytes of all that is stored with it.
    bytes: usize,
    /// Its sender was told that it is kept, or is about to be.
    firm: bool,
    /// Its place among those that were set aside, for one that comes from there.
    aside: Option<u64>,
}

/// An unread row of an unknown peer.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(super) struct LowRow {
    at_ms: u64,
    bytes: usize,
}

/// A message that was set aside and comes now.
#[derive(Debug)]
pub(super) struct Aside {
    pub n: u64,
    pub firm: bool,
    /// What takes it out from there.
    pub writes: Vec<Write>,
}

impl Node {
    /// A message that is to be on disk before anybody sees it.
    pub(super) fn arrive(&mut self, now: Now, message: Inbound, known: Option<(usize, &'static Kind)>) {
        let (from, id) = (message.envelope.from, message.envelope.id);
        let request = known.is_some_and(|(_, kind)| kind.is_request());
        if request && !self.may_open(now, &message) {
            return;
        }
        let soonest = now.wall_ms.saturating_add(REPLAY_TTL_MS);
        let until_ms = message.envelope.resend_until.unwrap_or(0);
        let until_ms = until_ms.clamp(soonest, now.wall_ms.saturating_add(RESEND_MS_MAX));
        // What promised a receipt must not stop giving them because the inbox was turned off meanwhile.
        let unkept = self.settings.buffer_size == 0 && !request && message.stream.is_some();
        // Only what is receipted is ever sent again.
        let until_ms = if message.stream.is_some() { until_ms } else { soonest };
        if !self.disk_has_room_for(from) {
            return self.not_taken(now, &message, &too_much());
        } else if unkept && self.features.contains(&"receipt") {
            let why = "this daemon keeps no messages now: try again later";
            return self.not_taken(now, &message, &Refusal::new(PeerCode::Overloaded, why));
        }
        if !request && self.peers.is_paused(from) {
            let seen = self.replay.remember(from, id, until_ms, now.wall_ms);
            if !self.settings.durable {
                self.replay.write_lazily(seen);
            }
            return self.put_aside(now, message, seen);
        }
        if self.is_low(now, from) && self.low_is_full(message.envelope.raw().len()) {
            return self.not_taken(now, &message, &too_much());
        }
        let writes = match known.map(|(index, kind)| self.admit(now, index, kind, &message)) {
            None => Vec::new(),
            Some(Admit::Take(writes)) => writes,
            Some(Admit::Known) => {
                let family = known.map(|(index, _)| index);
                return self.repeated(now, &message, family, !request);
            }
            Some(Admit::Refuse(refusal)) => return self.not_taken(now, &message, &refusal),
        };
        let seen = self.replay.remember(from, id, until_ms, now.wall_ms);
        if !self.settings.durable {
            self.replay.write_lazily(seen);
        }
        if request {
            self.agents.expect(id, from);
        }
        let firm = message.stream.is_some();
        let again = Vec::new();
        self.write_arrival(now, Arrival { message, known, again, writes, seen, bytes: 0, firm, aside: None });
    }

    /// A message that was set aside comes as if it came now.
    pub(super) fn arrive_from_aside(
        &mut self,
        now: Now,
        message: Inbound,
        known: Option<(usize, &'static Kind)>,
        aside: Aside,
    ) {
        let Aside { n, firm, mut writes } = aside;
        match known.map(|(index, kind)| self.admit(now, index, kind, &message)) {
            None => {}
            Some(Admit::Take(more)) => writes.extend(more),
            Some(Admit::Known | Admit::Refuse(_)) => {
                self.dropped.not_authorized += 1;
                self.note(writes);
                return self.aside_came(now, n, true);
            }
        }
        let (from, id) = (message.envelope.from, message.envelope.id);
        let until_ms = message.envelope.resend_until.unwrap_or(0).max(now.wall_ms + REPLAY_TTL_MS);
        let until_ms = until_ms.min(now.wall_ms.saturating_add(RESEND_MS_MAX));
        let seen = Seen { from, id, until_ms };
        let again = Vec::new();
        self.write_arrival(
            now,
            Arrival { message, known, again, writes, seen, bytes: 0, firm, aside: Some(n) },
        );
    }

    /// Sets a message aside whose sender is paused.
    fn put_aside(&mut self, now: Now, message: Inbound, seen: Seen) {
        let (from, id) = (message.envelope.from, message.envelope.id);
        let Some((n, mut writes)) = self.set_aside(now, &message) else {
            self.replay.forget(from, id);
            return self.not_taken(now, &message, &too_much());
        };
        writes.push(Write::Seen(seen));
        let after = After::SetAside { n, message: Box::new(message), again: Vec::new() };
        let commit = self.commit(writes, after);
        self.arriving.insert((from, id), commit);
    }

    #[inline(never)]
    pub(super) fn is_set_aside(
        &mut self,
        now: Now,
        n: u64,
        message: &Inbound,
        again: Vec<StreamId>,
        outcome: Result<(), CommitError>,
    ) {
        self.arriving.remove(&(message.envelope.from, message.envelope.id));
        let streams = message.stream.into_iter().chain(again);
        if outcome.is_err() {
            self.not_set_aside(n);
            self.replay.forget(message.envelope.from, message.envelope.id);
            let refusal = Refusal::new(PeerCode::Overloaded, "this daemon cannot write to its disk now");
            for stream in streams {
                let (from, id) = (message.envelope.from, message.envelope.id);
                self.refuse(now, Some(stream), from, Some(id), &refusal);
            }
            return;
        }
        for stream in streams {
            self.receipt(now, &Inbound { stream: Some(stream), ..message.clone() });
        }
        // It may have been resumed meanwhile.
        self.release_aside(now);
    }

    /// Whether a peer's rows have only a share of the inbox.
    pub(super) fn is_low(&self, now: Now, from: AgentId) -> bool {
        self.peers.level(from, now.wall_ms).is_none_or(|level| level < Level::Known)
    }

    /// Whether one more row of so many bytes is too much for the share that unknown peers have of the inbox.
    pub(super) fn low_is_full(&self, bytes: usize) -> bool {
        let rows_max = (self.settings.buffer_size / 4).clamp(1, UNKNOWN_ROWS_MAX);
        let held = || self.low_rows.values().map(|row| row.bytes).sum::<usize>();
        let first = self.low_rows.is_empty();
        let has =
            self.low_rows.len() < rows_max && (first || held() + bytes <= self.settings.buffer_byte_cap / 4);
        !has_room("rows of unknown peers", has)
    }

    /// Counts a row of an unknown peer; what is to be stored with it.
    pub(super) fn low_row(&mut self, seq: u64, at_ms: u64, bytes: usize) -> Write {
        let row = LowRow { at_ms, bytes };
        self.low_rows.insert(seq, row);
        Write::put(format!("{LOW}{seq}"), serde_json::to_vec(&row).unwrap_or_default())
    }

    /// A row of an unknown peer was read, or is out.
    pub(super) fn low_row_read(&mut self, seq: u64) {
        if self.low_rows.remove(&seq).is_some() {
            self.note([Write::delete(format!("{LOW}{seq}"))]);
        }
    }

    /// Takes over an item of the store; false if it is of no such row.
    pub(super) fn restore_low_row(&mut self, key: &str, value: &[u8]) -> bool {
        let Some(seq) = key.strip_prefix(LOW) else { return false };
        if let (Ok(seq), Ok(row)) = (seq.parse(), serde_json::from_slice(value)) {
            self.low_rows.insert(seq, row);
        }
        true
    }

    /// Rows of unknown peers that were read or are too old.
    pub(super) fn forget_low_rows(&mut self, now: Now) {
        let read_up_to = self.mailbox.read_up_to();
        let old_ms = now.wall_ms.saturating_sub(self.settings.buffer_ttl_secs.saturating_mul(1_000));
        let gone: Vec<u64> = self
            .low_rows
            .iter()
            .filter(|(seq, row)| **seq <= read_up_to || row.at_ms <= old_ms)
            .map(|(seq, _)| *seq)
            .collect();
        gone.into_iter().for_each(|seq| self.low_row_read(seq));
    }

    /// Gives a message its number and stores it, with all that belongs to it.
    fn write_arrival(&mut self, now: Now, mut arrival: Arrival) {
        let (from, id) = (arrival.message.envelope.from, arrival.message.envelope.id);
        let seq = self.mailbox.number();
        let low = self.is_low(now, from) && self.settings.buffer_size > 0;
        arrival.message.seq = Some(seq);
        let message = &arrival.message;
        let mut writes = Vec::with_capacity(arrival.writes.len() + 4);
        if self.settings.buffer_size > 0 {
            // First, because it decides whether there is room.
            writes.push(Write::Row { row: self.row_of(message, seq), firm: arrival.firm });
        }
        if low {
            let (at_ms, bytes) = (message.at_ms, message.envelope.raw().len());
            writes.push(self.low_row(seq, at_ms, bytes));
        }
        writes.extend_from_slice(&arrival.writes);
        writes.push(Write::Seen(arrival.seen));
        if arrival.known.is_some_and(|(_, kind)| kind.is_request()) {
            writes.push(Self::first_open(message));
        }
        writes.extend(self.await_reading(message, arrival.firm));
        arrival.bytes = writes.iter().map(Write::bytes).sum();
        *self.arriving_bytes.entry(from).or_default() += arrival.bytes;
        let commit = self.commit(writes, After::Arrival(Box::new(arrival)));
        self.arriving.insert((from, id), commit);
    }

    fn admit(&mut self, now: Now, index: usize, kind: &'static Kind, message: &Inbound) -> Admit {
        let mut admit = Admit::Take(Vec::new());
        self.with_family(now, index, |family, cx| admit = family.admit(message, kind, cx));
        admit
    }

    /// A message that is being written has come again: it is answered where it came last, too.
    pub(super) fn is_arriving(&mut self, message: &Inbound) -> bool {
        let key = (message.envelope.from, message.envelope.id);
        let again = match self.arriving.get(&key).and_then(|commit| self.commits.get_mut(commit)) {
            Some((After::Arrival(arrival), _)) => &mut arrival.again,
            Some((After::SetAside { again, .. }, _)) => again,
            _ => return false,
        };
        if let Some(stream) = message.stream {
            if again.len() < REPEATS_MAX {
                again.push(stream);
            } else {
                self.out.push(Effect::Reset { stream });
            }
        }
        true
    }

    /// A message is on disk, or is not.
    #[inline(never)]
    pub(super) fn arrived(&mut self, now: Now, arrival: Arrival, outcome: Result<(), CommitError>) {
        let (from, id) = (arrival.message.envelope.from, arrival.message.envelope.id);
        if let Some(bytes) = self.arriving_bytes.get_mut(&from) {
            *bytes = bytes.saturating_sub(arrival.bytes);
            if *bytes == 0 {
                self.arriving_bytes.remove(&from);
            }
        }
        if outcome == Err(CommitError::Full) && self.make_room(now) {
            // Under a new number: rows that came after it may be stored by now.
            let seq = arrival.message.seq.unwrap_or(0);
            self.unread.remove(&seq);
            self.low_rows.remove(&seq);
            self.decide(seq, None);
            return self.write_arrival(now, arrival);
        }
        let Arrival { message, known, again, aside, .. } = arrival;
        // What was set aside was promised to be kept, whoever sent it is known or not.
        let gone = aside.is_none() && self.peers.get(from).is_none();
        if let Some(n) = aside {
            self.aside_came(now, n, outcome.is_ok());
        }
        self.arriving.remove(&(from, id));
        self.agents.expect_no_more(id);
        let seq = message.seq.unwrap_or(0);
        let repeats = again.into_iter().map(|stream| Inbound { stream: Some(stream), ..message.clone() });
        if let Err(error) = outcome {
            if aside.is_none() {
                self.replay.forget(from, id);
            }
            self.unread.remove(&seq);
            self.low_rows.remove(&seq);
            self.decide(seq, None);
            if let Some((index, _)) = known {
                self.tell_family(now, index, FamilyInput::NotStored { message: &message });
            }
            let refusal = match error {
                CommitError::Full => too_much(),
                CommitError::Disk(_) => {
                    let why = "this daemon cannot write to its disk now: try again later";
                    Refusal::new(PeerCode::Overloaded, why)
                }
            };
            if matches!(error, CommitError::Disk(_)) && message.stream.is_none() {
                self.dropped.not_kept += 1;
            } else {
                self.dropped.over_limit += 1;
            }
            self.refuse(now, message.stream, from, Some(id), &refusal);
            return repeats.for_each(|repeat| self.refuse(now, repeat.stream, from, Some(id), &refusal));
        }
        match known {
            // Who is out since is not heard any more.
            _ if gone || self.is_shut(from, seq) => {
                self.decide(seq, None);
                self.gone(vec![seq]);
                self.low_row_read(seq);
                self.note([Self::no_longer_open(id)]);
                if let Some((index, _)) = known {
                    self.tell_family(now, index, FamilyInput::NotStored { message: &message });
                }
            }
            None => self.deliver(now, &message),
            Some((index, kind)) => {
                self.tell_family(now, index, FamilyInput::Message { message: &message, kind });
            }
        }
        let one_way = known.is_none_or(|(_, kind)| kind.pattern == Pattern::OneWay);
        for repeat in repeats {
            self.repeated(now, &repeat, known.map(|(index, _)| index), one_way);
        }
    }

    /// Takes delegations out of the inbox that have ended and that nobody has read there: the ledger has
    /// them. False when there are none, or the disk has just refused to.
    fn make_room(&mut self, now: Now) -> bool {
        if now.mono_ms < self.room_not_before_ms {
            return false;
        }
        let rows: Vec<u64> = self.ended_rows.iter().copied().take(ENDED_ROWS_AT_ONCE).collect();
        self.ended_rows.retain(|seq| rows.last().is_none_or(|last| seq > last));
        let any = !rows.is_empty();
        if any {
            self.gone(rows);
        }
        any
    }

    /// A delegation has ended: its row may go before it was read, when there is no room.
    pub(super) fn may_go(&mut self, seq: u64) {
        self.ended_rows.insert(seq);
        while self.ended_rows.len() > CLOSED_REQUESTS_MAX
            && let Some(seq) = self.ended_rows.pop_first()
        {
            self.gone(vec![seq]);
        }
    }

    /// Refuses a message before it was taken: it may come again under its id.
    fn not_taken(&mut self, now: Now, message: &Inbound, refusal: &Refusal) {
        match refusal.code {
            PeerCode::NotAuthorized => self.dropped.not_authorized += 1,
            PeerCode::Overloaded => self.dropped.over_limit += 1,
            _ => self.dropped.malformed += 1,
        }
        let (from, id) = (message.envelope.from, message.envelope.id);
        self.refuse(now, message.stream, from, Some(id), refusal);
    }

    /// A row is visible from now on, or never.
    pub(super) fn decide(&mut self, seq: u64, row: Option<crate::mailbox::Shown>) {
        self.mailbox.decide(seq, row);
        while let Some(shown) = self.mailbox.next_shown() {
            self.show(&shown.row, shown.from, shown.except);
        }
    }
}

fn too_much() -> Refusal {
    let why = "this daemon holds as much unread as it may: try again later";
    Refusal::new(PeerCode::Overloaded, why)
}
