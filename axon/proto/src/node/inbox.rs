//! The inbox as clients see it: `inbox`, `ack`, `subscribe`, `advertise`, and rows shown as they come.
//!
//! Source: `spec/IPC.md`, "The inbox" and "Events". Rows lie on disk, so that a client that reads waits for
//! the disk; its later commands wait behind it, so that replies keep their order.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::storing::{After, Reading, disk_error};
use super::{ClientId, Effect, Node, Now, Of};
use crate::agents::{Answers, Client, Speaks, Unread, Wants};
use crate::error::{IpcCode, IpcError};
use crate::family::Input as FamilyInput;
use crate::fault::has_room;
use crate::id::AgentId;
use crate::ipc::{Command, Line, Sender, inbound_line, row_json, v1_line};
use crate::limits::{
    CAPABILITIES_BYTES_MAX, CAPACITY_DEFAULT, CAPACITY_MAX, CLIENT_BACKLOG_BYTES_MAX, CLIENT_BACKLOG_MAX,
    CLIENT_QUEUE_BYTES_MAX, DOMAIN_BYTES_MAX, INBOX_LIMIT_DEFAULT, INBOX_LIMIT_MAX, INBOX_REPLY_BYTES_MAX,
    KIND_BYTES_MAX, REPLAY_EVENTS_MAX, SUBSCRIPTION_NAMES_MAX, UNREAD_BYTES_MAX, UNREAD_ROWS_MAX,
};
use crate::mailbox::SCOPED;
use crate::peers::Peers;
use crate::scope::Right;
use crate::store::{CommitError, Read, Row, Rows, Write};
use crate::trust::Level;
use crate::wire::sender;

/// Commands that wait behind one that reads before no more are taken from their client.
const BACKLOG_PAUSE: usize = 16;
/// Kinds that agents answer.
const ANSWERABLE: &[&str] = &["query", "delegate", "cancel"];

/// An `inbox` command whose rows are being read.
#[derive(Debug)]
pub(super) struct Inboxing {
    pub client: ClientId,
    pub req_id: String,
    acked: u64,
    /// What was looked at and is not for this client goes up to here.
    passed: u64,
    up_to: u64,
    limit: usize,
    kinds: Option<Vec<String>>,
}

/// A lasting advert that is being stored.
#[derive(Debug)]
pub(super) struct Advertising {
    client: ClientId,
    req_id: String,
    consumer: Arc<str>,
    capabilities: Box<RawValue>,
    line: Arc<str>,
}

/// A `subscribe` command whose rows are being read.
#[derive(Debug)]
pub(super) struct Replaying {
    pub client: ClientId,
    pub req_id: String,
    answers: Option<Answers>,
    wants: Wants,
    acked: u64,
    /// How far it has been read.
    up_to: u64,
    /// How far it is read now.
    visible: u64,
    replayed: usize,
    replayed_to: u64,
    bytes: usize,
    lost_before: Option<u64>,
}

/// A `peers` command that asked for unread rows, while they are counted.
#[derive(Debug)]
pub(super) struct Counting {
    pub client: ClientId,
    pub unread: Unread,
    /// How far it has been read.
    at: u64,
    up_to: u64,
    rows_left: usize,
    bytes_left: usize,
    /// For a `status` command, which has no rows of its own kind to leave out otherwise.
    status: bool,
}

impl Node {
    // --- a client's commands wait while it reads ---

    /// Keeps a line back while an earlier command of its client reads; gives it back when there is none.
    pub(super) fn hold_line(&mut self, client: ClientId, line: Vec<u8>) -> Option<Vec<u8>> {
        let Some(state) = self.agents.clients.get_mut(&client).filter(|state| state.reading) else {
            return Some(line);
        };
        let has = state.backlog.len() < CLIENT_BACKLOG_MAX
            && state.backlog_bytes + line.len() <= CLIENT_BACKLOG_BYTES_MAX;
        if !has_room("a client's backlog", has) {
            let message = "too many commands wait while an earlier one reads the disk: wait for its reply";
            let req_id = Command::parse(&line).map(|command| command.req_id().to_owned()).unwrap_or_default();
            self.answer_line(client, &req_id, Err(IpcError::new(IpcCode::Overloaded, message)));
            return None;
        }
        state.backlog_bytes += line.len();
        state.backlog.push_back(line);
        if state.backlog.len() == BACKLOG_PAUSE {
            self.out.push(Effect::Pace { client, pause: true });
        }
        None
    }

    /// A client's reading is done: the commands behind it are served.
    pub(super) fn resume(&mut self, now: Now, client: ClientId) {
        let Some(state) = self.agents.clients.get_mut(&client) else { return };
        state.reading = false;
        while let Some(state) = self.agents.clients.get_mut(&client).filter(|state| !state.reading)
            && let Some(line) = state.backlog.pop_front()
        {
            state.backlog_bytes -= line.len();
            if state.backlog.is_empty() {
                self.out.push(Effect::Pace { client, pause: false });
            }
            self.line(now, client, line);
        }
        if self.agents.clients.get(&client).is_some_and(|state| state.leaving && !state.reading) {
            self.client_eof(now, client);
        }
    }

    pub(super) fn begin_reading(&mut self, client: ClientId) {
        if let Some(state) = self.agents.clients.get_mut(&client) {
            state.reading = true;
        }
    }

    // --- rows as they come ---

    /// Shows a message to everyone who wants to see it, but for the client that gets it to answer.
    pub(super) fn show(&mut self, row: &Row, from: AgentId, except: Option<ClientId>) {
        if self.is_shut(from, row.seq) {
            return;
        }
        let mut line: Option<Arc<str>> = None;
        let v1_too = self.settings.allow_v1;
        // Version 1 knows nothing of them.
        let made_here = self.kinds.get(&row.kind).is_some_and(|(_, kind)| kind.made_here);
        let mut audience = std::mem::take(&mut self.audience);
        self.agents.may_be_shown(&row.kind, &mut audience);
        let mut clients = std::mem::take(&mut self.agents.clients);
        for client in audience.drain(..) {
            let Some(state) = clients.get_mut(&client) else { continue };
            match state.speaks() {
                // A v1 client says no hello: one that only listens has said nothing at all.
                Speaks::V1 | Speaks::Unknown if made_here || !v1_too => {}
                Speaks::V1 | Speaks::Unknown if state.trusted && state.scope.is_none() => {
                    let line = v1_line(&row.raw);
                    self.out.push(Effect::Event { client, seq: row.seq, of: from, line });
                }
                Speaks::V2
                    if (state.wants().wants(&row.kind) || made_here && state.listens(&row.kind))
                        && !state.lagging
                        && except != Some(client)
                        && self.sees_row(client, state, from, row) =>
                {
                    let (scratch, sender) = (&mut self.scratch, sender_of(&self.peers, from));
                    let made = || inbound_line(scratch, row, sender, false);
                    let line = line.get_or_insert_with(made).clone();
                    state.shown = row.seq;
                    if let Some(scope) = state.scope.clone() {
                        self.note_given(&scope, row.seq);
                    }
                    self.mailbox.note_delivered(&state.consumer, row.seq);
                    self.out.push(Effect::Event { client, seq: row.seq, of: from, line });
                }
                Speaks::V1 | Speaks::V2 | Speaks::Unknown => {}
            }
        }
        self.agents.clients = clients;
        self.audience = audience;
    }

    /// Whose a message is, as clients are told it.
    pub(super) fn sender_at(&self, from: AgentId) -> Sender<'_> {
        sender_of(&self.peers, from)
    }

    /// Which of these rows a client sees, and whose they are.
    pub(super) fn seen(&self, client: ClientId, rows: Vec<Row>) -> Vec<(Row, AgentId)> {
        let Some(state) = self.agents.clients.get(&client) else { return Vec::new() };
        let from = |row: Row| sender(&row.raw).map(|from| (row, from));
        rows.into_iter()
            .filter_map(from)
            .filter(|(row, from)| self.sees_row(client, state, *from, row))
            .collect()
    }

    // --- subscribe ---

    pub(super) fn subscribe(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let kinds = names("kinds", command.kinds::<Vec<String>>()?, KIND_BYTES_MAX)?;
        let answer = names("answer", command.answer::<Vec<String>>()?, KIND_BYTES_MAX)?;
        let domains = names("domains", command.domains::<Vec<String>>()?, DOMAIN_BYTES_MAX)?;
        let capacity = command.capacity::<u32>()?.unwrap_or(CAPACITY_DEFAULT);
        let lease = command.lease::<bool>()?.unwrap_or(false);
        let replay = command.replay::<bool>()?.unwrap_or(true);
        if !(1..=CAPACITY_MAX).contains(&capacity) {
            return Err(IpcError::invalid(format!(
                "the field `capacity` is a number from 1 to {CAPACITY_MAX}"
            )));
        }
        for kind in answer.iter().flatten() {
            if !ANSWERABLE.contains(&kind.as_str()) {
                let message =
                    format!("the field `answer` lists any of {}, not \"{kind}\"", ANSWERABLE.join(", "));
                return Err(IpcError::invalid(message));
            }
        }
        let answers = answer.map(|kinds| Answers { kinds, domains, capacity, lease });
        let wants = match (kinds, &answers) {
            (Some(kinds), _) => Wants::Kinds(kinds),
            (None, Some(_)) => Wants::Nothing,
            (None, None) => Wants::All,
        };
        // Until it has been shown what it has not read, nothing new is shown to it.
        self.agents.set_wants(client, Wants::Nothing);
        let Some(state) = self.agents.clients.get(&client) else { return Ok(()) };
        let acked = self.mailbox.acked(&state.consumer);
        let replaying = Replaying {
            client,
            req_id: command.req_id().to_owned(),
            answers,
            wants,
            acked,
            up_to: acked,
            visible: acked,
            replayed: 0,
            replayed_to: acked,
            bytes: 0,
            lost_before: None,
        };
        if !replay || replaying.wants == Wants::Nothing {
            self.subscribed(now, replaying, None);
            return Ok(());
        }
        self.begin_reading(client);
        self.read_replay(replaying);
        Ok(())
    }

    fn read_replay(&mut self, mut replaying: Replaying) {
        replaying.visible = self.mailbox.visible();
        let kinds = match &replaying.wants {
            Wants::Kinds(kinds) => Some(kinds.clone()),
            Wants::All | Wants::Nothing => None,
        };
        let read = Read::Rows {
            after: replaying.up_to,
            up_to: replaying.visible,
            kinds,
            stop_at_other: false,
            limit: REPLAY_EVENTS_MAX - replaying.replayed,
            bytes_max: CLIENT_QUEUE_BYTES_MAX.saturating_sub(replaying.bytes),
        };
        self.read(read, Reading::Replay(Box::new(replaying)));
    }

    /// Shows what was read, reads on if there is more, and says at last that live events follow.
    pub(super) fn replay_read(&mut self, now: Now, mut replaying: Replaying, rows: Rows) {
        let client = replaying.client;
        if rows.lost_to > replaying.acked {
            replaying.lost_before = Some(rows.first_after_lost.unwrap_or(replaying.visible + 1));
        }
        let end = rows.next.map_or(rows.scanned_to, |next| next.saturating_sub(1));
        let wanted = |row: &Row| replaying.wants.wants(&row.kind);
        let held: Vec<Row> =
            self.mailbox.held(replaying.up_to, end).filter(|row| wanted(row)).cloned().collect();
        let mut rest = None;
        let scope = self.scope_of(client);
        for (row, from) in self.seen(client, in_order(rows.rows, held)) {
            if replaying.replayed >= REPLAY_EVENTS_MAX
                || (replaying.replayed > 0 && replaying.bytes + row.raw.len() > CLIENT_QUEUE_BYTES_MAX)
            {
                rest = Some(row.seq);
                break;
            }
            let line = inbound_line(&mut self.scratch, &row, sender_of(&self.peers, from), true);
            self.out.push(Effect::Line { client, line, of: Of::Peer(from) });
            scope.iter().for_each(|scope| self.note_given(scope, row.seq));
            replaying.replayed += 1;
            replaying.replayed_to = row.seq;
            replaying.bytes += row.raw.len();
        }
        replaying.up_to = end.max(replaying.up_to);
        let full = replaying.replayed >= REPLAY_EVENTS_MAX || replaying.bytes >= CLIENT_QUEUE_BYTES_MAX;
        rest = rest.or(rows.next.filter(|_| full));
        // More may have come, or become visible, while this was read.
        if rest.is_none() && replaying.up_to < self.mailbox.visible() {
            if !full {
                return self.read_replay(replaying);
            }
            rest = Some(replaying.up_to + 1);
        }
        self.subscribed(now, replaying, rest);
        self.resume(now, client);
    }

    fn subscribed(&mut self, now: Now, replaying: Replaying, rest: Option<u64>) {
        let Replaying { client, req_id, answers, wants, replayed, replayed_to, lost_before, .. } = replaying;
        let newest = self.mailbox.visible();
        self.agents.set_answers(client, answers);
        self.agents.set_wants(client, wants);
        let Some(state) = self.agents.clients.get_mut(&client) else { return };
        state.lagging = rest.is_some();
        state.shown = if rest.is_some() { replayed_to } else { newest };
        if replayed > 0 {
            self.mailbox.note_delivered(&state.consumer, replayed_to);
        } else if let Some(before) = lost_before {
            self.mailbox.note_delivered(&state.consumer, before - 1);
        }
        let line = Line::ok(&req_id).field("subscribed", &true).field("replayed", &replayed);
        let line = line.field("replay_to_seq", &replayed_to).maybe("lost_before_seq", lost_before.as_ref());
        self.out.push(Effect::Line { client, line: line.end(), of: Of::Us });
        if let Some(seq) = rest {
            let line = Line::event("slow_consumer").field("resume_from_seq", &seq).end();
            self.out.push(Effect::Line { client, line, of: Of::Us });
        }
        let mut acts = VecDeque::new();
        self.recheck_waiting(now, &mut acts);
        self.carry_out_all(now, acts);
        self.hand_over(now);
    }

    // --- inbox and ack ---

    pub(super) fn inbox(&mut self, client: ClientId, command: &Command<'_>) -> Result<(), IpcError> {
        let limit = command.limit::<u64>()?.unwrap_or(INBOX_LIMIT_DEFAULT);
        if !(1..=INBOX_LIMIT_MAX).contains(&limit) {
            return Err(IpcError::invalid(format!(
                "the field `limit` is a number from 1 to {INBOX_LIMIT_MAX}"
            )));
        }
        let limit = usize::try_from(limit).unwrap_or(1);
        let kinds = names("kinds", command.kinds::<Vec<String>>()?, KIND_BYTES_MAX)?;
        let Some(state) = self.agents.clients.get(&client) else { return Ok(()) };
        let acked = self.mailbox.acked(&state.consumer);
        let up_to = self.mailbox.visible();
        self.begin_reading(client);
        let req_id = command.req_id().to_owned();
        self.read_inbox(Inboxing { client, req_id, acked, passed: acked, up_to, limit, kinds });
        Ok(())
    }

    fn read_inbox(&mut self, inboxing: Inboxing) {
        let hides = self.newest_note > inboxing.acked;
        let scoped = hides || self.scope_of(inboxing.client).is_some();
        let read = Read::Rows {
            after: inboxing.passed,
            up_to: inboxing.up_to,
            kinds: inboxing.kinds.clone().filter(|_| !scoped),
            stop_at_other: true,
            // What this client does not see must neither stop it nor cost it a reading for each row.
            limit: if scoped { INBOX_LIMIT_MAX as usize } else { inboxing.limit },
            bytes_max: INBOX_REPLY_BYTES_MAX,
        };
        self.read(read, Reading::Inbox(inboxing));
    }

    pub(super) fn inbox_read(&mut self, now: Now, mut inboxing: Inboxing, rows: Rows) {
        let (client, acked) = (inboxing.client, inboxing.acked);
        let Some(state) = self.agents.clients.get(&client) else { return };
        let (consumer, scope) = (state.consumer.clone(), state.scope.clone());
        let end = rows.next.map_or(rows.scanned_to, |next| next.saturating_sub(1));
        let held: Vec<Row> = self.mailbox.held(inboxing.passed, end).cloned().collect();
        let found = !rows.rows.is_empty() || !held.is_empty();
        let seen = self.seen(client, in_order(rows.rows, held));
        if found && seen.is_empty() && rows.next.is_some() && end < inboxing.up_to {
            // None of it is for this client: it reads on.
            inboxing.passed = end;
            return self.read_inbox(inboxing);
        }
        let Inboxing { req_id, up_to, limit, kinds, .. } = &inboxing;
        let wanted =
            |kind: &str| kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|wanted| wanted == kind));
        let mut text = String::from("[");
        let (mut count, mut last, mut has_more) = (0, acked, rows.next.is_some());
        let mut stopped = rows.next.is_none() && rows.scanned_to < *up_to;
        for (row, from) in seen {
            // It stops at the first of another kind, so that an ack cannot jump over it.
            if !wanted(&row.kind) {
                (has_more, stopped) = (false, true);
                break;
            }
            let full = count > 0 && text.len() + row.raw.len() > INBOX_REPLY_BYTES_MAX;
            if count >= *limit || full {
                has_more = true;
                break;
            }
            if count > 0 {
                text.push(',');
            }
            text.push_str(&row_json(&row, self.sender_at(from)));
            scope.iter().for_each(|scope| self.note_given(scope, row.seq));
            count += 1;
            last = row.seq;
        }
        text.push(']');
        if count > 0 {
            self.mailbox.note_delivered(&consumer, last);
            if let Some(state) = self.agents.clients.get_mut(&client) {
                state.shown = state.shown.max(last);
            }
        }
        // What has come while this was read is to be read next.
        has_more |= !stopped && end < self.mailbox.visible();
        let lost_before = (rows.lost_to > acked).then(|| rows.first_after_lost.unwrap_or(*up_to + 1));
        if let Some(before) = lost_before.filter(|_| count == 0 && !stopped) {
            // There is nothing else to acknowledge.
            self.mailbox.note_delivered(&consumer, before - 1);
        }
        let line = Line::ok(req_id)
            .raw("messages", &text)
            .field("next_seq", &(count > 0).then_some(last))
            .field("has_more", &has_more)
            .maybe("lost_before_seq", lost_before.as_ref());
        self.out.push(Effect::Line { client, line: line.end(), of: Of::Several });
        if !has_more && !stopped {
            self.catch_up(client, end);
        }
        self.resume(now, client);
    }

    // --- peers ---

    /// `peers`; the inbox is read only for who asks what is unread of whom, and may see it.
    pub(super) fn peers_command(&mut self, client: ClientId, command: &Command<'_>) -> Result<(), IpcError> {
        let asked = command.unread::<bool>()?.unwrap_or(false);
        let req_id = command.req_id().to_owned();
        let Some(state) = self.agents.clients.get(&client) else { return Ok(()) };
        let may = state.scope.as_ref().is_none_or(|scope| scope.may(Right::Inbox));
        if !asked || !may || state.speaks() != Speaks::V2 {
            self.measure(client, req_id);
            return Ok(());
        }
        let (at, up_to) = (self.mailbox.acked(&state.consumer), self.mailbox.visible());
        self.begin_reading(client);
        let unread = Unread { req_id, ..Unread::default() };
        let (rows_left, bytes_left) = (UNREAD_ROWS_MAX, UNREAD_BYTES_MAX);
        self.count_unread(Counting { client, unread, at, up_to, rows_left, bytes_left, status: false });
        Ok(())
    }

    /// `status`; rows are counted one by one only where some may be for others.
    pub(super) fn status_command(&mut self, client: ClientId, req_id: &str) {
        let state = self.agents.clients.get(&client);
        let acked = self.mailbox.acked(&state.map(|state| state.consumer.clone()).unwrap_or_default());
        self.begin_reading(client);
        let req_id = req_id.to_owned();
        if self.newest_note <= acked || self.scope_of(client).is_some() {
            return self.read(Read::Count { after: acked }, Reading::Status { client, req_id, acked });
        }
        let unread = Unread { req_id, ..Unread::default() };
        let (rows_left, bytes_left) = (UNREAD_ROWS_MAX, UNREAD_BYTES_MAX);
        let (at, up_to) = (acked, self.mailbox.visible());
        self.count_unread(Counting { client, unread, at, up_to, rows_left, bytes_left, status: true });
    }

    fn measure(&mut self, client: ClientId, req_id: String) {
        let conns = self.sessions.conns().collect();
        self.out.push(Effect::Measure { client, req_id, conns });
    }

    fn count_unread(&mut self, counting: Counting) {
        let read = Read::Rows {
            after: counting.at,
            up_to: counting.up_to,
            kinds: None,
            stop_at_other: false,
            limit: counting.rows_left.min(INBOX_LIMIT_MAX as usize),
            bytes_max: counting.bytes_left.min(INBOX_REPLY_BYTES_MAX),
        };
        self.read(read, Reading::Unread(Box::new(counting)));
    }

    pub(super) fn unread_read(&mut self, now: Now, mut counting: Counting, rows: Rows) {
        let client = counting.client;
        let end = rows.next.map_or(rows.scanned_to, |next| next.saturating_sub(1)).max(counting.at);
        let bytes: usize = rows.rows.iter().map(|row| row.raw.len()).sum();
        counting.rows_left = counting.rows_left.saturating_sub(rows.rows.len());
        counting.bytes_left = counting.bytes_left.saturating_sub(bytes);
        let held: Vec<Row> = self.mailbox.held(counting.at, end).cloned().collect();
        for (_, from) in self.seen(client, in_order(rows.rows, held)) {
            *counting.unread.of.entry(from).or_default() += 1;
        }
        counting.at = end;
        if rows.next.is_some() && end < counting.up_to {
            if counting.rows_left > 0 && counting.bytes_left > 0 {
                return self.count_unread(counting);
            }
            counting.unread.more = true;
        }
        let req_id = counting.unread.req_id.clone();
        if counting.status {
            let line = self.status(now, counting.unread.of.values().sum(), &req_id);
            self.answer_line(client, &req_id, Ok(line));
            return self.resume(now, client);
        }
        match self.agents.clients.get_mut(&client) {
            Some(state) => state.unread = Some(Box::new(counting.unread)),
            None => return self.resume(now, client),
        }
        // Its later commands wait until the reply is there.
        self.measure(client, req_id);
    }

    pub(super) fn ack(&mut self, client: ClientId, command: &Command<'_>) -> Result<(), IpcError> {
        let up_to = command.up_to_seq::<u64>()?;
        let up_to = up_to
            .ok_or_else(|| IpcError::invalid("the field `up_to_seq` is missing: give a message's seq"))?;
        let consumer =
            self.agents.clients.get(&client).map(|client| client.consumer.clone()).unwrap_or_default();
        if !self.disk_has_room() {
            let message = "too much waits for the disk: try again in a moment";
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        let (acked, write) = self.mailbox.ack(&consumer, up_to).map_err(|error| {
            let message = format!(
                "up_to_seq is past {}, the last message that this consumer was given: read the inbox first",
                error.delivered
            );
            IpcError::new(IpcCode::AckOutOfRange, message)
        })?;
        // What comes after it sees the cursor where it is then.
        self.begin_reading(client);
        let req_id = command.req_id().to_owned();
        let mut writes = vec![write];
        if let Some(scope) = self.scope_of(client) {
            writes.extend(self.given_up_to(&scope, acked).into_iter().map(Write::Loose));
        }
        self.commit(writes, After::Ack { client, req_id, consumer, acked });
        Ok(())
    }

    /// A consumer's cursor is on disk, or could not be moved.
    #[inline(never)]
    pub(super) fn acked(
        &mut self,
        now: Now,
        (client, req_id): (ClientId, &str),
        (consumer, acked): (&str, u64),
        outcome: Result<(), CommitError>,
    ) {
        let answer = match outcome {
            Ok(()) => {
                self.mailbox.acked_now(consumer, acked);
                match consumer.strip_prefix(SCOPED) {
                    None => self.were_read(now, acked),
                    Some(name) => {
                        let scope = self.scopes.get(name);
                        let read = scope.map(|scope| self.given_up_to(&scope, acked)).unwrap_or_default();
                        self.rows_were_read(now, &read);
                        self.given_acked(name, acked);
                    }
                }
                // What another client of the same consumer has acked is missed by nobody.
                let visible = self.mailbox.visible();
                let behind = |state: &&mut Client| state.lagging && &*state.consumer == consumer;
                for state in self.agents.clients.values_mut().filter(behind) {
                    state.shown = state.shown.max(acked);
                    state.lagging = state.shown < visible;
                }
                Ok(Line::ok(req_id).field("acked_seq", &self.mailbox.acked(consumer)).end())
            }
            Err(error) => {
                self.mailbox.not_acked(consumer);
                Err(disk_error(&error))
            }
        };
        self.answer_line(client, req_id, answer);
        self.resume(now, client);
    }

    /// A client that lagged and has been given everything up to here is live again, if nothing has come
    /// since; what has, it reads next.
    fn catch_up(&mut self, client: ClientId, up_to: u64) {
        let visible = self.mailbox.visible();
        if let Some(state) = self.agents.clients.get_mut(&client).filter(|state| state.lagging) {
            state.shown = state.shown.max(up_to);
            state.lagging = state.shown < visible;
        }
    }

    // --- advertise ---

    pub(super) fn advertise(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let capabilities = command.capabilities()?;
        if capabilities.get().len() > CAPABILITIES_BYTES_MAX {
            return Err(IpcError::invalid(format!(
                "`capabilities` is at most {CAPABILITIES_BYTES_MAX} bytes long"
            )));
        }
        if let Some((_, kind)) = self.kinds.get("capabilities") {
            (kind.check)(capabilities.get()).map_err(IpcError::invalid)?;
        }
        let line = Line::ok(command.req_id()).field("advertised", &true).end();
        if !command.persist::<bool>()?.unwrap_or(false) {
            for index in 0..self.families.len() {
                let advert = FamilyInput::Advert { client, capabilities: Some(capabilities) };
                self.tell_family(now, index, advert);
            }
            self.capabilities_changed(now);
            self.out.push(Effect::Line { client, line, of: Of::Us });
            return Ok(());
        }
        let consumer =
            self.agents.clients.get(&client).map(|client| client.consumer.clone()).unwrap_or_default();
        let mut writes = Vec::new();
        for family in &self.families {
            writes.extend(family.lasting_advert(&consumer, capabilities)?);
        }
        self.begin_reading(client);
        let advert = Advertising {
            client,
            req_id: command.req_id().to_owned(),
            consumer,
            capabilities: capabilities.to_owned(),
            line,
        };
        self.commit(writes, After::Advert(Box::new(advert)));
        Ok(())
    }

    /// A lasting advert is on disk, or could not be stored.
    #[inline(never)]
    pub(super) fn advertised(&mut self, now: Now, advert: Advertising, outcome: Result<(), CommitError>) {
        let Advertising { client, req_id, consumer, capabilities, line } = advert;
        if outcome.is_ok() {
            for index in 0..self.families.len() {
                // It takes the place of what the client advertised for as long as it is there.
                self.tell_family(now, index, FamilyInput::Advert { client, capabilities: None });
                let (consumer, capabilities) = (&*consumer, &*capabilities);
                self.tell_family(now, index, FamilyInput::LastingAdvert { consumer, capabilities });
            }
            self.capabilities_changed(now);
        }
        self.answer_line(client, &req_id, outcome.map(|()| line).map_err(|error| disk_error(&error)));
        self.resume(now, client);
    }
}

/// Whose a message is, as clients are told it.
pub(super) fn sender_of(peers: &Peers, from: AgentId) -> Sender<'_> {
    match peers.get(from) {
        Some(peer) => Sender { trust: peer.level, called: peer.called() },
        // What this agent published on a topic.
        None if from == peers.me() => Sender { trust: Level::Trusted, called: None },
        // One that was found and has gone: nobody has said more of it.
        None => Sender { trust: Level::Unknown, called: None },
    }
}

/// Rows of the disk and open requests, by their numbers.
fn in_order(mut rows: Vec<Row>, held: Vec<Row>) -> Vec<Row> {
    if !held.is_empty() {
        rows.extend(held);
        rows.sort_by_key(|row| row.seq);
    }
    rows
}

fn names(name: &str, list: Option<Vec<String>>, bytes_max: usize) -> Result<Option<Vec<String>>, IpcError> {
    let fits = |list: &Vec<String>| {
        list.len() <= SUBSCRIPTION_NAMES_MAX
            && list.iter().all(|item| !item.is_empty() && item.len() <= bytes_max)
    };
    if list.as_ref().is_some_and(|list| !fits(list)) {
        let message = format!(
            "the field `{name}` lists at most {SUBSCRIPTION_NAMES_MAX} names of 1 to {bytes_max} bytes"
        );
        return Err(IpcError::invalid(message));
    }
    Ok(list)
}
