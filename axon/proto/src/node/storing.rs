//! What waits for the disk: changes and readings under way, and what follows when they are done.
//!
//! Source: `spec/IPC.md`, "The inbox", and `spec/WIRE_FORMAT.md`, "Receipts". A change that somebody waits
//! for is a commit of its own; state that nobody waits for is gathered by key and follows soon.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::arrivals::Arrival;
use super::inbox::{Advertising, Counting, Inboxing, Replaying};
use super::jobs::Chain;
use super::notes::Noted;
use super::{ClientId, CommitId, Effect, LogLevel, Node, Now, ReadId, StreamId, Token};
use crate::error::{IpcCode, IpcError};
use crate::family::{Ended, Inbound, Input as FamilyInput};
use crate::fault::has_room;
use crate::id::{AgentId, MsgId};
use crate::limits::{COMMITS_BYTES_MAX, COMMITS_MAX, DISK_AGAIN_MS, READ_WAITING_MAX};
use crate::store::{Commit, CommitError, Keep, Read, ReadOut, Row, Write};

/// Changes that nobody waits for are stored in pieces of about so many bytes.
const ITEMS_BYTES: usize = 4_194_304;
/// How the keys of rows whose senders wait to hear that they were read begin.
const READ: &str = "read/";

/// Items as they are to be; none where one is to go.
type Items = BTreeMap<String, Option<Arc<[u8]>>>;

/// What follows when a change is on disk, or is not.
#[derive(Debug)]
pub(super) enum After {
    /// Nobody waits; when it fails these are tried again.
    Retry(Items),
    /// Rows are out.
    Gone(Vec<u64>),
    /// A message of a peer is taken.
    Arrival(Box<Arrival>),
    /// A client is answered.
    Line { client: ClientId, req_id: String, line: Arc<str> },
    /// A consumer's cursor moves.
    Ack { client: ClientId, req_id: String, consumer: Arc<str>, acked: u64 },
    /// Messages that a family made are stored.
    Noted(Noted),
    /// The next step of a chain.
    Chain(Box<Chain>),
    /// A message is set aside.
    SetAside { n: u64, message: Box<Inbound>, again: Vec<StreamId> },
    /// An advert outlives its connection.
    Advert(Box<Advertising>),
    /// A message of ours may leave.
    Leave(Token),
    /// A peer hears that we know what it has told: a message of ours was read.
    ReadTold(Box<Inbound>),
    /// A message is held; with it, an open request has had its last word.
    Held { n: u64, ends: Option<(MsgId, Ended)> },
}

/// What follows when something has been read.
#[derive(Debug)]
pub(super) enum Reading {
    /// An `inbox` reply.
    Inbox(Inboxing),
    /// What a new subscriber has not read.
    Replay(Box<Replaying>),
    /// A `status` reply.
    Status { client: ClientId, req_id: String, acked: u64 },
    /// Unread rows of each peer, for a `peers` reply.
    Unread(Box<Counting>),
    /// A family's items.
    Fetch { family: usize, client: ClientId, req_id: String, note: String },
    /// Items for a family, which no client waits for.
    Load { family: usize, token: u64 },
    /// The envelope of a held message.
    Body { n: u64 },
    /// Rows of a peer that is out.
    Purge { peer: AgentId },
    /// A message that was set aside.
    Aside { n: u64 },
    /// Rows that a scoped consumer was given before a restart.
    Given { client: ClientId, up_to: u64 },
}

/// A row whose sender waits to hear that it was read.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(super) struct Unread {
    pub from: AgentId,
    pub id: MsgId,
    pub at_ms: u64,
}

impl Node {
    // --- changes ---

    /// The bounds of the inbox now.
    pub(super) fn keep(&self) -> Keep {
        Keep {
            rows_max: self.settings.buffer_size as u64,
            bytes_max: self.settings.buffer_byte_cap as u64,
            ttl_ms: self.settings.buffer_ttl_secs.saturating_mul(1_000),
            read_up_to: self.mailbox.read_up_to(),
        }
    }

    /// Whether one more change may wait for the disk.
    pub(super) fn disk_has_room(&self) -> bool {
        let has = self.commits.len() < COMMITS_MAX && self.commit_bytes < COMMITS_BYTES_MAX;
        has_room("changes that wait for the disk", has)
    }

    /// Whether one more message of this peer may wait for the disk: some room is left to others, and to the
    /// clients.
    pub(super) fn disk_has_room_for(&self, from: AgentId) -> bool {
        let theirs = self.arriving_bytes.get(&from).copied().unwrap_or(0);
        let has = self.commits.len() < COMMITS_MAX / 4 * 3
            && self.commit_bytes < COMMITS_BYTES_MAX / 4 * 3
            && theirs < COMMITS_BYTES_MAX / 4;
        has_room("messages that wait for the disk", has)
    }

    /// Stores this, after all that was changed before.
    pub(super) fn commit(&mut self, writes: Vec<Write>, after: After) -> CommitId {
        self.flush_items();
        self.commit_now(writes, after)
    }

    fn commit_now(&mut self, writes: Vec<Write>, after: After) -> CommitId {
        let id = CommitId(self.next_commit);
        self.next_commit += 1;
        let bytes = writes.iter().map(Write::bytes).sum();
        self.commit_bytes += bytes;
        self.commits.insert(id, (after, bytes));
        let commit = Commit { writes, keep: self.keep() };
        self.out.push(Effect::Commit { id, commit });
        id
    }

    /// Notes changes that are to be stored soon.
    pub(super) fn note(&mut self, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            match write {
                Write::Put { key, value } => drop(self.items.insert(key, Some(value))),
                Write::Delete { key } => drop(self.items.insert(key, None)),
                // Rows and ids are never stored by the way.
                Write::Row { .. } | Write::Gone(_) | Write::Seen(_) | Write::Loose(_) => {}
            }
        }
    }

    /// Stores what was noted, if nothing of the sort is under way or the disk has kept up.
    pub(super) fn flush_items_soon(&mut self, now: Now) {
        if let Some(write) = self.mailbox.claim() {
            self.note([write]);
        }
        if self.items.is_empty() || self.items_under_way > 0 {
            return;
        }
        if now.mono_ms < self.items_not_before_ms {
            return self.timers.set_if_sooner(super::Key::Items, self.items_not_before_ms);
        }
        self.flush_items();
    }

    fn flush_items(&mut self) {
        if self.items.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.items).into_iter().peekable();
        while all.peek().is_some() {
            let (mut piece, mut writes, mut bytes) = (Items::new(), Vec::new(), 0);
            while bytes < ITEMS_BYTES
                && let Some((key, value)) = all.next()
            {
                let write = match &value {
                    Some(value) => Write::Put { key: key.clone(), value: value.clone() },
                    None => Write::Delete { key: key.clone() },
                };
                bytes += write.bytes();
                writes.push(write);
                piece.insert(key, value);
            }
            self.items_under_way += 1;
            self.commit_now(writes, After::Retry(piece));
        }
    }

    /// Takes rows out before their time.
    pub(super) fn gone(&mut self, rows: Vec<u64>) {
        self.commit(rows.iter().copied().map(Write::Gone).collect(), After::Gone(rows));
    }

    pub(super) fn committed(&mut self, now: Now, id: CommitId, outcome: Result<(), CommitError>) {
        let Some((after, bytes)) = self.commits.remove(&id) else { return };
        self.commit_bytes = self.commit_bytes.saturating_sub(bytes);
        self.note_disk(&outcome);
        match after {
            After::Retry(items) => {
                self.items_under_way = self.items_under_way.saturating_sub(1);
                if outcome.is_err() {
                    self.items_not_before_ms = now.mono_ms + DISK_AGAIN_MS;
                    // What has changed again since is newer.
                    for (key, value) in items {
                        if !self.mailbox.store_again(&key) {
                            self.items.entry(key).or_insert(value);
                        }
                    }
                }
            }
            After::Gone(rows) => {
                // What could not be taken out goes when there is no room; not at once, or who waits for
                // room would wait, and write, for as long as the disk is full.
                if outcome.is_err() {
                    self.room_not_before_ms = now.mono_ms + DISK_AGAIN_MS;
                    self.ended_rows.extend(rows);
                }
            }
            After::Arrival(arrival) => self.arrived(now, *arrival, outcome),
            After::Line { client, req_id, line } => {
                let answer = outcome.map(|()| line).map_err(|error| disk_error(&error));
                self.answer_line(client, &req_id, answer);
                self.stored_for(now, client);
            }
            After::Ack { client, req_id, consumer, acked } => {
                self.acked(now, (client, &req_id), (&consumer, acked), outcome);
            }
            After::Chain(chain) => {
                let outcome = outcome.map(|()| String::new()).map_err(|error| disk_error(&error).message);
                self.go_on(now, *chain, outcome);
            }
            After::Noted(noted) => self.noted(now, noted, &outcome),
            After::ReadTold(message) => self.read_is_stored(now, &message, outcome),
            After::SetAside { n, message, again } => self.is_set_aside(now, n, &message, again, outcome),
            After::Advert(advert) => self.advertised(now, *advert, outcome),
            After::Leave(token) => self.may_leave(now, token, outcome),
            After::Held { n, ends } => self.is_held(now, n, ends, outcome),
        }
    }

    /// A client's command that waited for the disk is answered.
    pub(super) fn stored_for(&mut self, now: Now, client: ClientId) {
        let Some(state) = self.agents.clients.get_mut(&client) else { return };
        state.storing = state.storing.saturating_sub(1);
        if state.leaving {
            self.client_eof(now, client);
        }
    }

    /// Answers a client once this is on disk.
    pub(super) fn answer_when_stored(
        &mut self,
        client: ClientId,
        req_id: &str,
        writes: Vec<Write>,
        line: Arc<str>,
    ) {
        if let Some(state) = self.agents.clients.get_mut(&client) {
            state.storing += 1;
        }
        self.commit(writes, After::Line { client, req_id: req_id.to_owned(), line });
    }

    /// Tells the log when the disk begins to refuse, and when it takes again.
    #[inline(never)]
    fn note_disk(&mut self, outcome: &Result<(), CommitError>) {
        match outcome {
            Ok(()) if std::mem::take(&mut self.disk_fails) => {
                self.out.push(Effect::Log(LogLevel::Warn, "the disk takes what is to be kept again".into()));
            }
            Err(CommitError::Disk(why)) if !std::mem::replace(&mut self.disk_fails, true) => {
                let text =
                    format!("nothing can be kept: {why}. Messages are refused until the disk has room");
                self.out.push(Effect::Log(LogLevel::Warn, text));
            }
            _ => {}
        }
    }

    // --- word that a message was read ---

    pub(super) fn await_reading(&mut self, message: &Inbound, firm: bool) -> Option<Write> {
        let envelope = &message.envelope;
        let asked = envelope.read_receipt && firm && self.settings.read_receipts;
        if !asked || self.settings.buffer_size == 0 {
            return None;
        }
        if !has_room("rows to be read", self.unread.len() < READ_WAITING_MAX) {
            return None;
        }
        let unread = Unread { from: envelope.from, id: envelope.id, at_ms: message.at_ms };
        let seq = message.seq?;
        self.unread.insert(seq, unread);
        Some(Write::put(format!("{READ}{seq}"), serde_json::to_vec(&unread).ok()?))
    }

    /// What is stored when nobody waits any more to hear that a row was read.
    pub(super) fn no_longer_unread(seq: u64) -> Write {
        Write::delete(format!("{READ}{seq}"))
    }

    /// Rows that were too old, and gone, before anybody read them.
    pub(super) fn forget_unread(&mut self, now: Now) {
        let ttl_ms = self.settings.buffer_ttl_secs.saturating_mul(1_000);
        while let Some((seq, unread)) = self.unread.first_key_value()
            && unread.at_ms.saturating_add(ttl_ms) <= now.wall_ms
        {
            let seq = *seq;
            self.unread.remove(&seq);
            self.note([Write::delete(format!("{READ}{seq}"))]);
        }
    }

    /// A consumer has read up to here: tells senders who asked.
    pub(super) fn were_read(&mut self, now: Now, up_to: u64) {
        let read: Vec<(u64, Unread)> = self.unread.range(..=up_to).map(|(seq, of)| (*seq, *of)).collect();
        self.tell_all_read(now, read);
    }

    /// A scoped consumer has read these rows: tells senders who asked.
    pub(super) fn rows_were_read(&mut self, now: Now, seqs: &[u64]) {
        let read = seqs.iter().filter_map(|seq| Some((*seq, *self.unread.get(seq)?))).collect();
        self.tell_all_read(now, read);
        seqs.iter().for_each(|seq| self.low_row_read(*seq));
    }

    fn tell_all_read(&mut self, now: Now, read: Vec<(u64, Unread)>) {
        for (seq, unread) in read {
            // In one change with the word that it was read: after a crash it is told, or not told yet.
            let done = Write::delete(format!("{READ}{seq}"));
            // One that was too old was gone before it could be read.
            let ttl_ms = self.settings.buffer_ttl_secs.saturating_mul(1_000);
            if !self.settings.read_receipts || unread.at_ms.saturating_add(ttl_ms) <= now.wall_ms {
                self.note([done]);
            } else if !self.tell_read(now, unread.from, unread.id, done) {
                // The sweep tries again.
                continue;
            }
            self.unread.remove(&seq);
        }
    }

    /// Takes over an item of the store.
    ///
    /// The shell calls this for every item that is not a body, before `Input::Start`.
    pub fn restore(&mut self, key: &str, value: &[u8]) {
        if self.mailbox.restore(key, value) || self.outbox.restore(key, value) {
            return;
        }
        let theirs = self.restore_shut(key, value)
            || self.restore_aside(key, value)
            || self.restore_told(key)
            || self.restore_low_row(key, value)
            || self.pairing.invites.restore(key, value)
            || self.pairing.knocks.restore(key, value);
        if theirs {
            return;
        }
        if let Some(seq) = key.strip_prefix(READ) {
            if let (Ok(seq), Ok(unread)) = (seq.parse(), serde_json::from_slice(value)) {
                self.unread.insert(seq, unread);
            }
            return;
        }
        if self.restore_open(key, value) {
            return;
        }
        let family = key.split('/').next().unwrap_or_default();
        if let Some(family) = self.families.iter_mut().find(|known| known.vocabulary().family == family) {
            family.restore(key, value);
        }
    }

    /// The row of a message that has this number.
    pub(super) fn row_of(&self, message: &Inbound, seq: u64) -> Row {
        let (kind, raw) = (self.kinds.row_name(message.envelope.kind()), message.envelope.raw().clone());
        Row { seq, at_ms: message.at_ms, kind, raw }
    }

    // --- readings ---

    pub(super) fn read(&mut self, read: Read, reading: Reading) {
        let id = ReadId(self.next_read);
        self.next_read += 1;
        self.reads.insert(id, reading);
        self.out.push(Effect::Read { id, read });
    }

    pub(super) fn read_done(&mut self, now: Now, id: ReadId, out: ReadOut) {
        let Some(reading) = self.reads.remove(&id) else { return };
        let client = match &reading {
            Reading::Status { client, .. } | Reading::Fetch { client, .. } => Some((*client, true)),
            Reading::Inbox(Inboxing { client, .. }) => Some((*client, !matches!(out, ReadOut::Rows(_)))),
            // It goes on reading until nothing is left.
            Reading::Replay(replaying) => Some((replaying.client, !matches!(out, ReadOut::Rows(_)))),
            Reading::Given { client, .. } => Some((*client, !matches!(out, ReadOut::Rows(_)))),
            Reading::Unread(counting) => Some((counting.client, !matches!(out, ReadOut::Rows(_)))),
            Reading::Body { .. } | Reading::Purge { .. } | Reading::Aside { .. } | Reading::Load { .. } => {
                None
            }
        };
        match (reading, out) {
            (Reading::Inbox(inboxing), ReadOut::Rows(rows)) => self.inbox_read(now, inboxing, rows),
            (Reading::Purge { peer }, ReadOut::Rows(rows)) => self.purge_read(peer, &rows),
            (Reading::Given { client, up_to }, ReadOut::Rows(rows)) => {
                self.given_read(now, client, up_to, rows);
            }
            (Reading::Aside { n }, ReadOut::Items(values)) => {
                self.aside_read(now, n, values.into_iter().next().flatten().as_deref());
            }
            (Reading::Replay(replaying), ReadOut::Rows(rows)) => self.replay_read(now, *replaying, rows),
            (Reading::Status { client, req_id, acked }, ReadOut::Count(rows)) => {
                let open = self.mailbox.held(acked, self.mailbox.visible()).count() as u64;
                let line = match self.scope_of(client) {
                    None => self.status(now, rows + open, &req_id),
                    Some(scope) => self.scoped_status(now, &scope, &req_id),
                };
                self.answer_line(client, &req_id, Ok(line));
            }
            (Reading::Unread(counting), ReadOut::Rows(rows)) => self.unread_read(now, *counting, rows),
            (Reading::Fetch { family, client, req_id, note }, ReadOut::Items(values)) => {
                let (req_id, note) = (&req_id, &note);
                let fetched = FamilyInput::Fetched { client, req_id, note, values: &values };
                self.tell_family(now, family, fetched);
            }
            (Reading::Load { family, token }, ReadOut::Items(values)) => {
                self.tell_family(now, family, FamilyInput::Loaded { token, values: &values });
            }
            (Reading::Body { n }, ReadOut::Items(values)) => {
                self.body_read(now, n, values.into_iter().next().flatten());
            }
            (reading, out) => self.not_read(now, reading, out),
        }
        if let Some((client, true)) = client {
            self.resume(now, client);
        }
    }

    fn not_read(&mut self, now: Now, reading: Reading, out: ReadOut) {
        let why = match out {
            ReadOut::Failed(why) => why,
            _ => "something else was read than was asked for".into(),
        };
        self.out.push(Effect::Log(LogLevel::Warn, format!("the store cannot be read: {why}")));
        let (client, req_id) = match reading {
            Reading::Inbox(Inboxing { client, req_id, .. })
            | Reading::Status { client, req_id, .. }
            | Reading::Fetch { client, req_id, .. } => (client, req_id),
            Reading::Replay(replaying) => (replaying.client, replaying.req_id.clone()),
            Reading::Unread(counting) => (counting.client, counting.unread.req_id),
            Reading::Body { n } => return self.body_failed(now, n, &why),
            Reading::Load { family, token } => {
                self.tell_family(now, family, FamilyInput::Loaded { token, values: &[] });
                return;
            }
            // They are tried again: by the sweep, or at the next start.
            Reading::Purge { .. } | Reading::Given { .. } => return,
            Reading::Aside { n } => return self.aside_came(now, n, false),
        };
        let message = format!("what is kept cannot be read from the disk ({why}): see `axon doctor`");
        self.answer_line(client, &req_id, Err(IpcError::new(IpcCode::InternalError, message)));
    }
}

/// A client's command could not be stored.
pub(super) fn disk_error(error: &CommitError) -> IpcError {
    let message = format!("this could not be written to the disk ({error}): make room on it, then try again");
    IpcError::new(IpcCode::Overloaded, message)
}
