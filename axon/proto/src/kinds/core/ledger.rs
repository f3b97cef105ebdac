//! The ledger: every delegation that this daemon has sent or taken, and what has become of it.
//!
//! Source: `spec/IPC.md`, "delegations". A row is small and held here; the task and the result lie in the
//! store and are read when somebody asks. Ended ones go first when there are too many, of the peer that has
//! most.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::payload::Delegate;
pub use super::state::{State, Unwanted};
use crate::error::IpcError;
use crate::family::{Act, Cx};
use crate::fault::has_room;
use crate::id::{AgentId, MsgId};
use crate::ipc::{Command, Line};
use crate::limits::{
    DELEGATIONS_LIMIT_DEFAULT, DELEGATIONS_MAX, INBOX_LIMIT_MAX, INBOX_REPLY_BYTES_MAX, LEDGER_BYTES_MAX,
    PROGRESS_BYTES_MAX, REASON_BYTES_MAX, REPLY_GRACE_MS,
};
use crate::node::ClientId;
use crate::store::{BODY_PREFIX, Write};
use crate::wire::{Json, cut, raw_json, to_raw};

/// Which way a delegation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// This daemon sent it.
    Out,
    /// This daemon took it.
    In,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// One delegation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    n: u64,
    /// Which.
    pub id: MsgId,
    /// The other side.
    pub peer: AgentId,
    urgent: bool,
    /// What has become of it.
    pub state: State,
    since_ms: u64,
    /// When it is due, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    /// How long it may take; a held one's time begins when it arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_ms: Option<u64>,
    /// No result will come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    silent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The message that brought the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_id: Option<MsgId>,
    #[serde(default)]
    has_result: bool,
    /// It was refused only because nobody had room: it may come again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// What its sender was told when it was refused, where that was more than a code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwanted: Option<Unwanted>,
    /// The scoped socket that it was given by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Box<str>>,
    bytes: usize,
    /// A result has come and is being stored: no second one is taken.
    #[serde(skip)]
    pub closing: bool,
    /// What an agent, or this daemon for it, has said last.
    #[serde(skip)]
    last_word: Option<(State, Json<'static>)>,
}

impl Entry {
    /// What its row takes beside task and result, about. A text may grow when it is quoted.
    fn small_bytes(&self) -> usize {
        let progress = self.progress.as_ref().map_or(0, |progress| progress.get().len());
        ROW_BYTES + progress + 6 * self.reason.as_ref().map_or(0, String::len)
    }

    /// Whether nothing more is to come that anybody waits for.
    fn is_done(&self) -> bool {
        let taken = matches!(self.state, State::Accepted | State::Running);
        self.state.is_over() || (self.silent && taken)
    }

    /// Whether progress and a result are taken. What comes after its time is still worth having.
    pub fn takes_reports(&self) -> bool {
        !self.closing && (!self.state.is_over() || self.state == State::Expired)
    }
}

#[derive(Debug, Default)]
struct Half {
    rows: HashMap<MsgId, Entry>,
    order: BTreeMap<u64, MsgId>,
    bytes: usize,
}

/// All delegations.
#[derive(Debug, Default)]
pub struct Ledger {
    out: Half,
    taken: Half,
    next_n: u64,
}

const PREFIX: &str = "core/delegation/";
/// A row without its texts, in bytes, about.
const ROW_BYTES: usize = 512;

fn key(direction: Direction, id: MsgId) -> String {
    format!("{PREFIX}{}/{id}", direction.as_str())
}
fn task_key(direction: Direction, id: MsgId) -> String {
    format!("{BODY_PREFIX}core/task/{}/{id}", direction.as_str())
}
fn result_key(direction: Direction, id: MsgId) -> String {
    format!("{BODY_PREFIX}core/result/{}/{id}", direction.as_str())
}

impl Ledger {
    /// Takes over an item of the store.
    pub fn restore(&mut self, key: &str, value: &[u8]) {
        let Some((direction, _)) = key.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/')) else {
            return;
        };
        let direction = if direction == "out" { Direction::Out } else { Direction::In };
        if let Ok(entry) = serde_json::from_slice::<Entry>(value) {
            // There are never more on disk than this, but for what a fault left behind.
            if self.half(direction).rows.len() >= 2 * DELEGATIONS_MAX {
                return;
            }
            self.next_n = self.next_n.max(entry.n + 1);
            let half = self.half_mut(direction);
            half.bytes += entry.bytes;
            half.order.insert(entry.n, entry.id);
            half.rows.insert(entry.id, entry);
        }
    }

    /// One delegation.
    pub fn get(&self, direction: Direction, id: MsgId) -> Option<&Entry> {
        self.half(direction).rows.get(&id)
    }

    /// One delegation, to change what is not stored.
    pub fn get_mut(&mut self, direction: Direction, id: MsgId) -> Option<&mut Entry> {
        self.half_mut(direction).rows.get_mut(&id)
    }

    /// A new delegation; gives what is to be stored, also of those that had to go for it.
    pub fn insert(
        &mut self,
        direction: Direction,
        (id, peer): (MsgId, AgentId),
        terms: &Delegate,
        state: State,
        (now_ms, via): (u64, Option<Box<str>>),
    ) -> Vec<Write> {
        let task = to_raw(&terms.task);
        let mut writes = self.make_room(direction, task.get().len());
        let n = self.next_n;
        self.next_n += 1;
        let entry = Entry {
            n,
            id,
            peer,
            urgent: terms.priority.as_deref() == Some("urgent"),
            state,
            since_ms: now_ms,
            deadline_ms: terms.deadline_ms.filter(|ms| *ms > 0).map(|ms| now_ms.saturating_add(ms)),
            limit_ms: terms.deadline_ms.filter(|ms| *ms > 0),
            silent: terms.report_back == Some(false),
            progress: None,
            reason: None,
            result_id: None,
            has_result: false,
            again: false,
            unwanted: None,
            via,
            bytes: task.get().len(),
            closing: false,
            last_word: None,
        };
        writes.push(write(direction, &entry));
        writes.push(Write::put(task_key(direction, id), task.get()));
        let half = self.half_mut(direction);
        half.bytes += entry.bytes;
        half.order.insert(n, id);
        half.rows.insert(id, entry);
        writes
    }

    /// Takes a delegation out, on disk as well.
    pub fn forget(&mut self, direction: Direction, id: MsgId) -> Vec<Write> {
        match self.remove(direction, id) {
            Some(_) => deletes(direction, id).into(),
            None => Vec::new(),
        }
    }

    fn remove(&mut self, direction: Direction, id: MsgId) -> Option<Entry> {
        let half = self.half_mut(direction);
        let entry = half.rows.remove(&id)?;
        half.order.remove(&entry.n);
        half.bytes = half.bytes.saturating_sub(entry.bytes);
        Some(entry)
    }

    /// A delegation is in another state; watchers are told.
    pub fn set(
        &mut self,
        direction: Direction,
        id: MsgId,
        state: State,
        why: Option<String>,
        cx: &mut Cx<'_>,
    ) {
        let now_ms = cx.now.wall_ms;
        let Some(entry) = self.get_mut(direction, id) else { return };
        if entry.state == state && entry.reason == why {
            return;
        }
        if entry.state == State::Held {
            entry.deadline_ms = entry.limit_ms.map(|ms| now_ms.saturating_add(ms));
        }
        entry.state = state;
        entry.since_ms = now_ms;
        entry.reason = why.map(|text| cut(text, REASON_BYTES_MAX));
        store(direction, entry, None, cx);
    }

    /// An agent reports how far it is.
    pub fn progress(
        &mut self,
        direction: Direction,
        id: MsgId,
        state: State,
        progress: &str,
        cx: &mut Cx<'_>,
    ) {
        let now_ms = cx.now.wall_ms;
        let Some(entry) = self.get_mut(direction, id) else { return };
        if entry.state != state {
            entry.since_ms = now_ms;
        }
        entry.state = state;
        entry.progress = (progress.len() <= PROGRESS_BYTES_MAX).then(|| raw_json(progress.to_owned()));
        store(direction, entry, None, cx);
    }

    /// What is stored when a result comes, before it is taken.
    pub fn result_writes(
        &mut self,
        id: MsgId,
        state: State,
        by: MsgId,
        result: &str,
        now_ms: u64,
    ) -> Vec<Write> {
        let Some(entry) = self.get_mut(Direction::Out, id) else { return Vec::new() };
        entry.closing = true;
        let after = Entry {
            state,
            since_ms: now_ms,
            reason: None,
            result_id: Some(by),
            has_result: true,
            bytes: entry.bytes + result.len(),
            ..entry.clone()
        };
        vec![write(Direction::Out, &after), Write::put(result_key(Direction::Out, id), result)]
    }

    /// A result is on disk.
    pub fn result(&mut self, id: MsgId, state: State, by: MsgId, result: &str, cx: &mut Cx<'_>) {
        let now_ms = cx.now.wall_ms;
        let half = self.half_mut(Direction::Out);
        let Some(entry) = half.rows.get_mut(&id) else { return };
        half.bytes += result.len();
        entry.bytes += result.len();
        (entry.state, entry.since_ms, entry.reason) = (state, now_ms, None);
        (entry.result_id, entry.has_result, entry.closing) = (Some(by), true, false);
        store(Direction::Out, entry, Some(result), cx);
    }

    /// Notes the last word on a delegation that was taken here; it counts once the delegation has ended.
    /// Gives what is to be stored together with the message that brings it.
    pub fn note_last_word(
        &mut self,
        id: MsgId,
        state: State,
        word: Json<'static>,
        now_ms: u64,
    ) -> Vec<Write> {
        let Some(entry) = self.get_mut(Direction::In, id) else { return Vec::new() };
        let bytes = entry.bytes + word.get().len();
        let put = Write::put(result_key(Direction::In, id), word.get());
        let after = Entry { state, since_ms: now_ms, reason: None, has_result: true, bytes, ..entry.clone() };
        entry.last_word = Some((state, word));
        vec![write(Direction::In, &after), put]
    }

    /// A delegation that was taken here has ended: with its last word, or else in this state.
    ///
    /// `again`: it may come again under its id.
    pub fn end(
        &mut self,
        id: MsgId,
        (otherwise, why): (State, Option<String>),
        again: bool,
        cx: &mut Cx<'_>,
    ) {
        let now_ms = cx.now.wall_ms;
        let half = self.half_mut(Direction::In);
        let Some(entry) = half.rows.get_mut(&id) else { return };
        let word = entry.last_word.take();
        let said = word.as_ref().map(|(state, _)| *state).filter(|_| otherwise != State::Expired);
        entry.state = said.unwrap_or(otherwise);
        entry.since_ms = now_ms;
        entry.reason = why.filter(|_| said.is_none());
        entry.again = otherwise == State::Refused && again;
        if let Some((_, word)) = &word {
            entry.has_result = true;
            entry.bytes += word.get().len();
            half.bytes += word.get().len();
            let value: Arc<[u8]> = word.get().as_bytes().into();
            cx.act(Act::Put { key: result_key(Direction::In, id), value });
        }
        store(Direction::In, entry, word.as_ref().map(|(_, word)| word.get()), cx);
    }

    /// Delegations sent whose time is up.
    pub fn expire(&mut self, cx: &mut Cx<'_>) {
        let now_ms = cx.now.wall_ms;
        let due = |entry: &&Entry| {
            // A held one ends in the outbox.
            !entry.state.is_over()
                && entry.state != State::Held
                && !entry.silent
                && entry.deadline_ms.is_some_and(|at| at.saturating_add(REPLY_GRACE_MS) <= now_ms)
        };
        let due: Vec<MsgId> = self.out.rows.values().filter(due).map(|entry| entry.id).collect();
        for id in due {
            let why = "its deadline passed without a result".to_owned();
            self.set(Direction::Out, id, State::Expired, Some(why), cx);
        }
    }

    /// The daemon was started again: delegations that had left, or were about to, and had no answer yet. If
    /// the peer has one all the same, its report says so.
    #[inline(never)]
    pub fn unanswered(&mut self, cx: &mut Cx<'_>) {
        let sent = self.out.rows.values().filter(|entry| entry.state == State::Sent);
        for id in sent.map(|entry| entry.id).collect::<Vec<MsgId>>() {
            let why = "the daemon ended before the peer had answered: it may have it or not; delegate again, \
                       or wait for its report";
            self.set(Direction::Out, id, State::Expired, Some(why.to_owned()), cx);
        }
    }

    /// A peer is out: work that it gave is forgotten, and of work that it was given all that it said.
    #[inline(never)]
    pub fn forget_words(&mut self, peer: AgentId, cx: &mut Cx<'_>) {
        let theirs = |half: &Half| -> Vec<MsgId> {
            half.rows.values().filter(|entry| entry.peer == peer).map(|entry| entry.id).collect()
        };
        for id in theirs(&self.taken) {
            for write in self.forget(Direction::In, id) {
                if let Write::Delete { key } = write {
                    cx.act(Act::Delete { key });
                }
            }
        }
        for id in theirs(&self.out) {
            let half = &mut self.out;
            let Some(entry) = half.rows.get_mut(&id) else { continue };
            let why = "the peer was blocked or forgotten here";
            if !entry.state.is_over() {
                // What has left, the peer may have; what is held, it has not.
                let end = if entry.state == State::Held { State::Refused } else { State::Expired };
                (entry.state, entry.since_ms) = (end, cx.now.wall_ms);
            }
            entry.reason = Some(why.to_owned());
            (entry.progress, entry.has_result, entry.closing) = (None, false, false);
            cx.act(Act::Delete { key: result_key(Direction::Out, id) });
            store(Direction::Out, entry, None, cx);
        }
    }

    /// A scoped socket is gone: what was given by it is the owner's.
    #[inline(never)]
    pub fn disown(&mut self, socket: &str, cx: &mut Cx<'_>) {
        for direction in [Direction::Out, Direction::In] {
            let of = |entry: &&mut Entry| entry.via.as_deref() == Some(socket);
            for entry in self.half_mut(direction).rows.values_mut().filter(of) {
                entry.via = None;
                if let Write::Put { key, value } = write(direction, entry) {
                    cx.act(Act::Put { key, value });
                }
            }
        }
    }

    /// A peer has another id: what was given to it, and what it gave, is the new one's.
    #[inline(never)]
    pub fn succeed(&mut self, old: AgentId, new: AgentId, cx: &mut Cx<'_>) {
        for direction in [Direction::Out, Direction::In] {
            for entry in self.half_mut(direction).rows.values_mut().filter(|entry| entry.peer == old) {
                entry.peer = new;
                if let Write::Put { key, value } = write(direction, entry) {
                    cx.act(Act::Put { key, value });
                }
            }
        }
    }

    // --- the command ---

    /// `delegations`: chooses the rows and asks for what lies on disk.
    pub fn list(&self, client: ClientId, command: &Command<'_>, cx: &mut Cx<'_>) -> Result<(), IpcError> {
        let limit = command.limit::<u64>()?.unwrap_or(DELEGATIONS_LIMIT_DEFAULT);
        if !(1..=INBOX_LIMIT_MAX).contains(&limit) {
            let message = format!("the field `limit` is a number from 1 to {INBOX_LIMIT_MAX}");
            return Err(IpcError::invalid(message));
        }
        let id = command.id::<String>()?.map(|text| text.parse::<MsgId>()).transpose();
        let id = id.map_err(|error| IpcError::invalid(format!("the field `id` is wrong: {error}")))?;
        let peer = command.peer::<String>()?.map(|text| cx.view.resolve_for(client, &text)).transpose()?;
        let state = command.state::<String>()?;
        if let Some(state) = &state
            && !State::ALL.iter().any(|known| known.as_str() == state)
        {
            let known: Vec<&str> = State::ALL.iter().map(|state| state.as_str()).collect();
            return Err(IpcError::invalid(format!("the field `state` is one of {}", known.join(", "))));
        }
        let direction = command.direction::<String>()?;
        if direction.as_ref().is_some_and(|direction| direction != "out" && direction != "in") {
            return Err(IpcError::invalid("the field `direction` is \"out\" or \"in\""));
        }
        let socket = cx.view.socket_of(client);
        let wanted = |direction_of: Direction, entry: &Entry| {
            // A scoped socket sees what was given by it, or handed to it.
            (socket.is_none() || shown_by(entry, cx) == socket && cx.view.sees(client, entry.peer))
                && id.is_none_or(|id| id == entry.id)
                && peer.is_none_or(|peer| peer == entry.peer)
                && state.as_ref().is_none_or(|state| state == entry.state.as_str())
                && direction.as_ref().is_none_or(|wanted| wanted == direction_of.as_str())
        };
        // Both halves are numbered together, so that the newest of both come first.
        let mut rows: Vec<(u64, Direction, &Entry)> = Vec::new();
        for direction in [Direction::Out, Direction::In] {
            let half = self.half(direction).rows.values().filter(|entry| wanted(direction, entry));
            rows.extend(half.map(|entry| (entry.n, direction, entry)));
        }
        rows.sort_unstable_by_key(|(n, ..)| std::cmp::Reverse(*n));
        let (mut note, mut keys, mut bytes, mut taken) = (String::new(), Vec::new(), 0, 0);
        for (_, direction, entry) in &rows {
            bytes += entry.bytes + entry.small_bytes();
            if taken >= limit || (taken > 0 && bytes > INBOX_REPLY_BYTES_MAX) {
                break;
            }
            taken += 1;
            note.push(if *direction == Direction::Out { 'o' } else { 'i' });
            note.push_str(&entry.id.to_string());
            keys.extend([task_key(*direction, entry.id), result_key(*direction, entry.id)]);
        }
        note.push(if (taken as usize) < rows.len() { '+' } else { '.' });
        if let Some(on) = command.watch::<bool>()? {
            cx.act(Act::Watch { client, on });
        }
        let (family, req_id) = (super::VOCABULARY.family, command.req_id().to_owned());
        cx.act(Act::Fetch { family, client, req_id, note, keys });
        Ok(())
    }

    /// What lies on disk is there: writes the rows.
    #[inline(never)]
    pub fn listed(&self, note: &str, values: &[Option<Arc<[u8]>>], req_id: &str) -> Arc<str> {
        let mut rows = String::from("[");
        let has_more = note.ends_with('+');
        fn text(value: Option<&Option<Arc<[u8]>>>) -> Option<&str> {
            value.and_then(Option::as_ref).and_then(|bytes| std::str::from_utf8(bytes).ok())
        }
        let mut rest = note;
        let mut at = 0;
        // A direction's letter and an id of 36 characters each.
        while let Some((one, after)) = rest.split_at_checked(37) {
            rest = after;
            let direction = if one.starts_with('o') { Direction::Out } else { Direction::In };
            let entry = one[1..].parse().ok().and_then(|id| self.get(direction, id));
            if let Some(entry) = entry {
                if rows.len() > 1 {
                    rows.push(',');
                }
                // One whose peer is out since has lost its words.
                let result = text(values.get(at + 1)).filter(|_| entry.has_result);
                // A disk that has failed may not have it, and the row has one all the same.
                let task = text(values.get(at)).unwrap_or("\"\"");
                rows.push_str(&row(direction, entry, Some(task), result));
            }
            at += 2;
        }
        rows.push(']');
        Line::ok(req_id).raw("delegations", &rows).field("has_more", &has_more).end()
    }

    // --- bounds ---

    fn make_room(&mut self, direction: Direction, bytes: usize) -> Vec<Write> {
        let mut writes = Vec::new();
        loop {
            let half = self.half(direction);
            let has = half.rows.len() < DELEGATIONS_MAX && half.bytes + bytes <= LEDGER_BYTES_MAX;
            if has_room("delegations", has) {
                return writes;
            }
            let Some(id) = half.victim(half.rows.len() < DELEGATIONS_MAX) else { return writes };
            writes.extend(self.forget(direction, id));
        }
    }

    fn half(&self, direction: Direction) -> &Half {
        match direction {
            Direction::Out => &self.out,
            Direction::In => &self.taken,
        }
    }
    fn half_mut(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Out => &mut self.out,
            Direction::In => &mut self.taken,
        }
    }
}

impl Half {
    /// The oldest that has ended, of the peer whose ended ones take most places, or most bytes; with none
    /// ended the oldest of all.
    fn victim(&self, by_bytes: bool) -> Option<MsgId> {
        let mut ended: HashMap<AgentId, usize> = HashMap::default();
        for entry in self.rows.values().filter(|entry| entry.is_done()) {
            *ended.entry(entry.peer).or_default() += if by_bytes { entry.bytes } else { 1 };
        }
        let fullest = ended.into_iter().max_by_key(|(peer, count)| (*count, *peer)).map(|(peer, _)| peer);
        let Some(peer) = fullest else { return self.running_victim() };
        let goes =
            |id: &&MsgId| self.rows.get(*id).is_some_and(|entry| peer == entry.peer && entry.is_done());
        self.order.values().find(goes).copied()
    }

    /// With none ended: the oldest of the socket that has given most.
    fn running_victim(&self) -> Option<MsgId> {
        let mut given: HashMap<Option<&str>, usize> = HashMap::default();
        self.rows.values().for_each(|entry| *given.entry(entry.via.as_deref()).or_default() += 1);
        let (via, _) = given.into_iter().max_by_key(|(via, count)| (*count, *via))?;
        let goes = |id: &&MsgId| self.rows.get(*id).is_some_and(|entry| entry.via.as_deref() == via);
        self.order.values().find(goes).copied()
    }
}

fn deletes(direction: Direction, id: MsgId) -> [Write; 3] {
    let keys = [key(direction, id), task_key(direction, id), result_key(direction, id)];
    keys.map(Write::delete)
}

fn write(direction: Direction, entry: &Entry) -> Write {
    Write::put(key(direction, entry.id), serde_json::to_vec(entry).unwrap_or_default())
}

/// Stores a row, and tells those who watch.
fn store(direction: Direction, entry: &Entry, result: Option<&str>, cx: &mut Cx<'_>) {
    if let Write::Put { key, value } = write(direction, entry) {
        cx.act(Act::Put { key, value });
    }
    let line = Line::event("delegation").raw("delegation", &row(direction, entry, None, result)).end();
    cx.act(Act::TellWatchers { line, peer: entry.peer, via: shown_by(entry, cx) });
}

/// The scoped socket that a delegation was given by, or is handed to; none: it is the owner's.
fn shown_by(entry: &Entry, cx: &Cx<'_>) -> Option<Box<str>> {
    let handed = || cx.view.open(entry.id)?.offered_to.as_deref().map(Box::from);
    entry.via.clone().or_else(handed)
}

fn row(direction: Direction, entry: &Entry, task: Option<&str>, result: Option<&str>) -> String {
    let line = Line::empty()
        .field("id", &entry.id)
        .field("peer", &entry.peer)
        .field("direction", direction.as_str());
    let line = match task {
        Some(task) => line.raw("task", task),
        None => line,
    };
    let line = line
        .field("priority", if entry.urgent { "urgent" } else { "normal" })
        .field("state", entry.state.as_str())
        .field("since_ms", &entry.since_ms)
        .maybe("deadline_ms", entry.deadline_ms.as_ref().filter(|_| !entry.state.is_over()))
        .maybe("progress", entry.progress.as_ref())
        .maybe("reason", entry.reason.as_ref());
    let line = match result {
        Some(result) => line.raw("result", result),
        None => line,
    };
    line.end().to_string()
}
