//! What must hold, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use axon_proto::limits::{REPLAY_FLUSH_MS, REPLAY_TTL_MS};
use axon_proto::node::{ClientId, Node, StreamId};
use axon_proto::store::{Commit, Read, ReadOut, Row, Write};
use serde_json::Value;

use super::{Asked, Peer, ROWS_MAX, World};
use crate::json::Json;
use crate::schema::Schemas;

/// How long a command may take beyond its own wait.
const SLACK_MS: u64 = 10_000;
/// Who waits longer is not waited for.
const DEADLINE_MS_MAX: u64 = 60_000;
/// Kinds that are kept before they are acknowledged.
const KEPT: [&str; 2] = ["notify", "delegate"];
/// Consumers whose cursors are watched.
const CONSUMERS: [&str; 3] = ["default", "a", "b"];

/// A text in an object; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// A message by who sent it and under which id.
type Name = (String, String);

/// A row that the store has confirmed.
struct Kept {
    seq: u64,
    kind: Box<str>,
    firm: bool,
    at_ms: u64,
}

/// What was promised.
#[derive(Default)]
pub(super) struct Promises {
    rows: BTreeMap<Name, Kept>,
    last_row: u64,
    /// Messages that were set aside.
    aside: BTreeSet<Name>,
    /// Answered with `overloaded`: it may come again under its id.
    refused: BTreeSet<Name>,
    cursors: BTreeMap<String, u64>,
    /// What somebody has asked to ack.
    ack_asked: u64,
    /// Which request is with which client.
    holders: BTreeMap<Name, ClientId>,
    /// Ids of messages of ours that arrived.
    arrived: BTreeSet<String>,
    /// Messages of ours, by id.
    sent: BTreeMap<String, String>,
    /// Which request was answered how, and when.
    finished: BTreeMap<(Name, String), u64>,
    /// Messages of peers by what they were when they first came.
    kinds: BTreeMap<Name, String>,
    /// Rows were taken out because their sender is out.
    pub purged: bool,
}

impl Promises {
    /// The process has ended.
    pub fn ended(&mut self) {
        self.holders.clear();
    }

    pub fn crashed(&mut self, now: u64) {
        // A query of the last second may come again as if for the first time (WF-REP-3).
        self.finished.retain(|(_, kind), ms| kind != "response" || *ms + REPLAY_FLUSH_MS < now);
    }

    pub fn client_gone(&mut self, client: ClientId) {
        self.holders.retain(|_, holder| *holder != client);
    }

    /// A peer says this.
    pub fn comes(&mut self, from: &str, id: &str, kind: &str) {
        self.kinds.entry((from.to_owned(), id.to_owned())).or_insert_with(|| kind.to_owned());
    }

    pub fn arrived(&mut self, id: &str) {
        self.arrived.insert(id.to_owned());
    }

    pub fn sends(&mut self, id: &str, kind: &str) {
        self.sent.insert(id.to_owned(), kind.to_owned());
    }

    fn closed(&mut self, id: &str) {
        self.holders.retain(|(_, of), _| of != id);
    }
}

impl World {
    /// Ids of messages that the node has sent, of one kind or all.
    pub fn sent_ids(&self, kind: Option<&str>) -> Vec<String> {
        let all = self.promises.sent.iter().filter(|(_, of)| kind.is_none_or(|kind| **of == *kind));
        all.map(|(id, _)| id.clone()).collect()
    }

    /// Requests that clients hold: their ids.
    pub fn held_requests(&self) -> Vec<(ClientId, String)> {
        self.promises.holders.iter().map(|((_, id), client)| (*client, id.clone())).collect()
    }

    pub(super) fn after_step(&mut self) {
        let Some(node) = self.node.as_ref() else { return };
        assert_eq!(node.over_bounds(), None, "every queue is within its bound");
        for consumer in CONSUMERS {
            let now = node.cursor_of(consumer);
            let before = self.promises.cursors.entry(consumer.to_owned()).or_default();
            assert!(now >= *before, "cursors never go back: {consumer} from {before} to {now}");
        }
    }

    // --- the disk ---

    pub(super) fn committed(&mut self, commit: &Commit) {
        let rows = self.store.as_ref().map_or(0, axon_proto::store::Store::rows);
        assert!(rows <= ROWS_MAX as u64, "every queue is within its bound: {rows} rows");
        for write in &commit.writes {
            // What comes from a peer that is paused is set aside.
            if let Write::Put { key, value } = write
                && key.starts_with("body/aside/")
            {
                let envelope = Json::said(value);
                let name = (text(&envelope, "from").to_owned(), text(&envelope, "id").to_owned());
                self.promises.aside.insert(name);
            }
            if let Write::Row { row, firm } = write {
                let last = std::mem::replace(&mut self.promises.last_row, row.seq);
                assert!(row.seq > last, "numbers of rows rise: {} after {last}", row.seq);
                self.row_kept(row, *firm);
            }
        }
    }

    fn row_kept(&mut self, row: &Row, firm: bool) {
        let envelope = Json::said(row.raw.as_bytes());
        let name = (text(&envelope, "from").to_owned(), text(&envelope, "id").to_owned());
        let kept = Kept { seq: row.seq, kind: row.kind.as_ref().into(), firm, at_ms: self.now };
        if let Some(before) = self.promises.rows.insert(name.clone(), kept)
            && before.seq != row.seq
            && before.at_ms + REPLAY_TTL_MS > self.now
            && !self.promises.refused.remove(&name)
        {
            panic!("no message is in two rows: {name:?} as {} and as {}", before.seq, row.seq);
        }
    }

    /// After a start: what was confirmed and nobody has read is there, and cursors stand where they stood.
    pub(super) fn kept_is_there(&mut self) {
        let read = Read::Rows {
            after: 0,
            up_to: u64::MAX,
            kinds: None,
            stop_at_other: false,
            limit: 1_000,
            bytes_max: 1 << 24,
        };
        let Some(ReadOut::Rows(out)) = self.store.as_mut().map(|store| store.read(&read)) else { return };
        let there: BTreeSet<u64> = out.rows.iter().map(|row| row.seq).collect();
        if !self.promises.purged {
            for (name, row) in &self.promises.rows {
                // The rows of delegations that have ended may go for others.
                let must = row.firm && row.seq > self.promises.ack_asked && &*row.kind != "delegate";
                assert!(!must || there.contains(&row.seq), "what was kept outlives the daemon: {name:?}");
            }
        }
        for (consumer, told) in &self.promises.cursors {
            let now = self.node.as_ref().map_or(0, |node: &Node| node.cursor_of(consumer));
            assert!(now >= *told, "cursors never go back: {consumer} was told {told}, is at {now}");
        }
        // What the disk had not confirmed when the power went may be there nevertheless.
        for row in out.rows {
            let envelope = Json::said(row.raw.as_bytes());
            let name = (text(&envelope, "from").to_owned(), text(&envelope, "id").to_owned());
            let at_ms = self.now;
            let kept = Kept { seq: row.seq, kind: row.kind.as_ref().into(), firm: false, at_ms };
            self.promises.rows.entry(name).or_insert(kept);
            self.promises.last_row = self.promises.last_row.max(row.seq);
        }
        // Nor does a daemon know what an id was used for that the power took before it was kept.
        let Promises { kinds, rows, aside, .. } = &mut self.promises;
        let is_known = |name: &Name| rows.contains_key(name) || aside.contains(name);
        kinds.retain(|name, kind| !KEPT.contains(&kind.as_str()) || is_known(name));
    }

    // --- peers ---

    pub(super) fn responded(&mut self, stream: StreamId, bytes: Option<&str>) {
        let answer = bytes.map_or(Value::Null, |bytes| Json::said(bytes.as_bytes()));
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let done = std::mem::replace(&mut state.done, true);
        assert!(!done, "one answer a request: {stream:?} {bytes:?}");
        if let Some(bytes) = bytes {
            assert_eq!(answer["ref"].as_str(), state.id.as_deref(), "an answer answers its request: {bytes}");
            let fault = Schemas::get().fault("envelope", &answer);
            assert_eq!(fault, None, "{bytes}");
        }
        let (peer, kind) = (state.peer.id().to_string(), state.kind.clone());
        let name = (peer, state.id.clone().unwrap_or_default());
        // A quiet answer has no other reply than this (IPC-REP-8).
        let quiet = |asked: &Asked| {
            asked.command["cmd"] == "reply"
                && asked.command["quiet"] == true
                && asked.command["ref"] == name.1
        };
        let asked = self.clients.values_mut().find_map(|client| {
            let req_id = client.asked.iter().find(|(_, asked)| quiet(asked)).map(|(id, _)| id.clone())?;
            client.asked.remove(&req_id)
        });
        if let Some(asked) = asked {
            self.request_replied(&asked.command);
        }
        // An id that was used for something else is remembered as that.
        let same = self.promises.kinds.get(&name).is_some_and(|first| *first == kind);
        let accepted = text(&answer, "kind") == "ack" && answer["payload"]["accepted"] == true;
        if accepted && same && KEPT.contains(&kind.as_str()) {
            let kept = self.promises.rows.contains_key(&name) || self.promises.aside.contains(&name);
            assert!(kept, "what is acked is on disk: {kind} {name:?}");
        }
        if text(&answer, "kind") == "error" && KEPT.contains(&kind.as_str()) {
            // It was not taken, and its id may be used for something else.
            self.promises.kinds.remove(&name);
        }
        if text(&answer, "kind") == "error" && text(&answer["payload"], "code") == "overloaded" {
            self.promises.refused.insert(name);
        }
    }

    // --- clients ---

    /// A client gives a command.
    pub(super) fn asked(&mut self, client: ClientId, line: &[u8]) {
        let now = self.now;
        let command = Json::said(line);
        let Some(state) = self.clients.get_mut(&client) else { return };
        state.lines += 1;
        if command["cmd"] == "ack" {
            let up_to = command["up_to_seq"].as_u64().unwrap_or_default();
            self.promises.ack_asked = self.promises.ack_asked.max(up_to);
        }
        let consumer = &state.consumer;
        let cursor = self.node.as_ref().map_or(0, |node| node.cursor_of(consumer));
        let deadline = [&command["deadline_ms"], &command["payload"]["deadline_ms"]];
        let deadline = deadline.into_iter().filter_map(Value::as_u64).max().unwrap_or_default();
        let due_ms = match deadline {
            0..=DEADLINE_MS_MAX => now + deadline.max(30_000) + SLACK_MS,
            _ => u64::MAX,
        };
        if let Some(req_id) = command["req_id"].as_str()
            && req_id.starts_with("r-")
        {
            state.asked.insert(req_id.to_owned(), Asked { command, due_ms, cursor });
        }
    }

    /// A client is told something.
    pub(super) fn line(&mut self, client: ClientId, line: &str) {
        assert!(!line.contains('\n'), "a line is one line: {line}");
        assert!(Json::read(line.as_bytes()).is_some(), "a line is one JSON object: {line}");
        // What others said may be more than a strict reader reads.
        let value = Json::said(line.as_bytes());
        if !self.clients.contains_key(&client) {
            return;
        }
        if value.get("ok").is_some() {
            return self.replied(client, &value);
        }
        if value.get("event").is_some() {
            let fault = || Schemas::get().fault("ipc-event", &value);
            assert!(Schemas::get().takes("ipc-event", &value), "{:?}: {value}", fault());
        }
        match text(&value, "event") {
            "inbound" => self.shown(client, &value),
            "withdrawn" => self.promises.closed(text(&value, "ref")),
            "delivery" => {
                let (id, state) = (text(&value, "id"), text(&value, "state"));
                self.word_of(id, state);
            }
            _ => {}
        }
    }

    fn word_of(&mut self, id: &str, state: &str) {
        if state == "delivered" && self.promises.sent.get(id).is_some_and(|kind| kind == "notify") {
            assert!(self.promises.arrived.contains(id), "what is delivered has arrived: {id}");
        }
    }

    fn replied(&mut self, client: ClientId, value: &Value) {
        let now = self.now;
        let Some(state) = self.clients.get_mut(&client) else { return };
        let to_the_connection = self.stopping || value["error"] == "slow_consumer";
        if to_the_connection && value["req_id"].is_null() && value["ok"] == false {
            // Not said to a command: that the daemon stops, or that a v1 client is closed for its slowness.
            return;
        }
        state.replies += 1;
        // What is replayed after it belongs to another subscription.
        state.replaying &= value["subscribed"] != true;
        assert!(state.replies <= state.lines, "a command has one reply: {value}");
        let part = |name: &str| Schemas::get().fault_of("ipc-reply", name, value);
        // An id that few can read is echoed as it came.
        if value["ok"] == false && !value["req_id"].is_null() {
            assert_eq!(part("failure"), None, "{value}");
        }
        let Some(req_id) = value["req_id"].as_str().filter(|id| id.starts_with("r-")) else { return };
        let asked = state.asked.remove(req_id);
        let asked = asked.unwrap_or_else(|| panic!("a command has one reply: {value}"));
        assert!(now <= asked.due_ms, "every command ends in time: {} {value}", asked.command);
        if value["ok"] != true {
            return;
        }
        let cmd = text(&asked.command, "cmd").to_owned();
        let name = match cmd.as_str() {
            "send" if value.get("response").is_some() => "send-answered",
            "send" if value.get("state").is_none() => "send-v1",
            "send" => "send-sent",
            other => other,
        };
        assert!(Schemas::get().has("ipc-reply", name), "a reply to {name} has a schema");
        assert_eq!(part(name), None, "{} {value}", asked.command);
        let consumer = state.consumer.clone();
        match cmd.as_str() {
            "hello" => {
                let consumer = asked.command["consumer"].as_str().unwrap_or("default");
                if CONSUMERS.contains(&state.consumer.as_str()) {
                    state.consumer = consumer.to_owned();
                }
            }
            "ack" => {
                let acked = value["acked_seq"].as_u64().unwrap_or_default();
                assert!(
                    acked >= asked.cursor || !CONSUMERS.contains(&&*consumer),
                    "cursors never go back: {value}"
                );
                if CONSUMERS.contains(&&*consumer) {
                    let told = self.promises.cursors.entry(consumer).or_default();
                    *told = (*told).max(acked);
                }
            }
            "inbox" => self.inbox_reply(&asked, &consumer, value),
            "send" => {
                let of = &value["response"]["ref"];
                assert!(of.is_null() || *of == value["msg_id"], "an answer answers its request: {value}");
                if value["state"].is_string() && asked.command["kind"] == "notify" {
                    self.word_of(text(value, "msg_id"), text(value, "state"));
                }
            }
            "reply" => self.request_replied(&asked.command),
            _ => {}
        }
    }

    /// A client's `reply` was carried out.
    fn request_replied(&mut self, command: &Value) {
        let (of, kind) = (text(command, "ref"), text(command, "kind"));
        let peer = self.promises.holders.keys().find(|(_, id)| id == of).map(|(peer, _)| peer.clone());
        if !["ack", "progress"].contains(&kind) {
            if let Some(peer) = peer {
                let name = ((peer, of.to_owned()), "response".to_owned());
                let before = self.promises.finished.insert(name, self.now);
                assert!(before.is_none(), "one answer a request: {kind} of {of}");
            }
            self.promises.closed(of);
        }
        if kind == "ack" && command["payload"]["accepted"] == false {
            self.promises.closed(of);
        }
    }

    fn inbox_reply(&mut self, asked: &Asked, consumer: &str, value: &Value) {
        // A scoped socket has a cursor of its own.
        let mut last = if CONSUMERS.contains(&consumer) { asked.cursor } else { 0 };
        for row in value["messages"].as_array().into_iter().flatten() {
            let seq = row["seq"].as_u64().unwrap_or_default();
            assert!(seq > last, "no row past the cursor comes twice, none before it: {seq} after {last}");
            last = seq;
            self.row_shown(seq, &row["envelope"]);
        }
    }

    /// A client is shown a row.
    fn row_shown(&mut self, seq: u64, envelope: &Value) {
        let kind = text(envelope, "kind");
        if !["notify", "delegate"].contains(&kind) {
            return;
        }
        let name = (text(envelope, "from").to_owned(), text(envelope, "id").to_owned());
        let kept = self.promises.rows.get(&name).map(|kept| kept.seq);
        // A message that was taken anew has a row of each coming; the last one is noted.
        assert!(kept.is_some_and(|last| seq <= last), "what is shown is on disk: {name:?} {seq} {kept:?}");
    }

    fn shown(&mut self, client: ClientId, value: &Value) {
        let seq = value["seq"].as_u64().unwrap_or_default();
        let envelope = &value["envelope"];
        self.row_shown(seq, envelope);
        if value["answer"] == true {
            let name = (text(envelope, "from").to_owned(), text(envelope, "id").to_owned());
            let before = self.promises.holders.insert(name.clone(), client);
            assert!(
                before.is_none(),
                "a request is with one client at a time: {name:?} {before:?} {client:?}"
            );
            return;
        }
        let Some(state) = self.clients.get_mut(&client) else { return };
        // What is replayed begins a subscription, whose reply follows (IPC-SUB-1).
        let replay = value["replay"] == true;
        if replay && !std::mem::replace(&mut state.replaying, replay) {
            state.last_seq = 0;
        }
        state.replaying = replay;
        let last = std::mem::replace(&mut state.last_seq, seq);
        assert!(seq > last, "no row comes twice on one subscription: {seq} after {last}");
    }

    // --- the end ---

    /// Everything that somebody waits for has come to its end.
    pub(super) fn all_has_ended(&self) {
        for state in self.clients.values() {
            let late = state.asked.values().find(|asked| asked.due_ms < self.now);
            assert!(late.is_none(), "every command ends: {}", late.map_or(String::new(), told));
        }
        for (stream, state) in &self.streams {
            let short = state.kind != "query" || self.now - state.since_ms > 3_700_000;
            let polite = Peer::ALL.contains(&state.peer);
            assert!(
                state.done || !short || !polite || self.now - state.since_ms < 100_000,
                "every request ends: {stream:?} {} {:?}",
                state.kind,
                state.id
            );
        }
    }
}

fn told(asked: &Asked) -> String {
    asked.command.to_string()
}
