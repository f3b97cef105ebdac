//! Messages that a family makes for this daemon's own clients: numbered and shown like those of peers, and
//! stored where the family says so.
//!
//! Source: `spec/IPC.md`, "Topics". Nobody but the family knows what is in them, and whom they are for.

use std::sync::Arc;

use super::storing::{After, Reading};
use super::{ClientId, Node, Now};
use crate::agents::Speaks;
use crate::error::IpcError;
use crate::family::{Input as FamilyInput, Note};
use crate::id::{AgentId, MsgId};
use crate::limits::{NOTES_WAITING_MAX, REPLAY_TTL_MS};
use crate::mailbox::Shown;
use crate::store::{CommitError, Read, Row, Write};
use crate::wire::{Header, encode_in};

/// Rows that are being stored.
#[derive(Debug)]
pub(super) struct Noted {
    family: usize,
    token: u64,
    rows: Vec<(Row, AgentId, MsgId)>,
}

impl Node {
    /// Puts messages of a family into the inbox, and stores `writes` with them.
    #[inline(never)]
    pub(super) fn take_notes(
        &mut self,
        now: Now,
        (family, token): (&'static str, u64),
        notes: Vec<Note>,
        kept: bool,
        mut writes: Vec<Write>,
    ) {
        let Some(family) = self.family_named(family) else { return };
        let kept = kept && self.settings.buffer_size > 0;
        if !kept && !notes.is_empty() && self.mailbox.waiting() >= NOTES_WAITING_MAX {
            notes.first().into_iter().for_each(|note| self.all_lag(note.kind));
            self.tell_family(now, family, FamilyInput::Taken { token, stored: false });
            return;
        }
        let mut rows = Vec::with_capacity(notes.len());
        let mut stored = Vec::with_capacity(2 * notes.len());
        for note in notes {
            let Some(row) = self.row_of_note(now, &note) else { continue };
            if kept {
                stored.push(Write::Row { row: row.clone(), firm: false });
                let until_ms = now.wall_ms.saturating_add(REPLAY_TTL_MS);
                writes.push(Write::Seen(self.replay.remember(note.from, note.id, until_ms, now.wall_ms)));
            }
            rows.push((row, note.from, note.id));
        }
        if kept && let Some((row, ..)) = rows.last() {
            self.newest_note = row.seq;
        }
        if !kept {
            for (row, from, _) in std::mem::take(&mut rows) {
                self.decide(row.seq, Some(Shown { row, from, except: None }));
            }
        }
        // Rows first, because they decide whether there is room.
        stored.append(&mut writes);
        if stored.is_empty() {
            self.tell_family(now, family, FamilyInput::Taken { token, stored: true });
        } else {
            self.commit(stored, After::Noted(Noted { family, token, rows }));
        }
    }

    /// They are on disk, or are not.
    #[inline(never)]
    pub(super) fn noted(&mut self, now: Now, noted: Noted, outcome: &Result<(), CommitError>) {
        let Noted { family, token, rows } = noted;
        for (row, from, id) in rows {
            let shown = outcome.is_ok().then_some(row.clone());
            if shown.is_none() {
                self.replay.forget(from, id);
            }
            self.decide(row.seq, shown.map(|row| Shown { row, from, except: None }));
        }
        self.tell_family(now, family, FamilyInput::Taken { token, stored: outcome.is_ok() });
    }

    /// A client's command is answered later, and the client stays until it is.
    pub(super) fn promise(&mut self, client: ClientId) {
        if let Some(state) = self.agents.clients.get_mut(&client) {
            state.storing += 1;
        }
    }

    /// It is answered now.
    #[inline(never)]
    pub(super) fn fulfil(
        &mut self,
        now: Now,
        client: ClientId,
        req_id: &str,
        result: Result<Arc<str>, IpcError>,
    ) {
        self.answer_line(client, req_id, result);
        self.stored_for(now, client);
    }

    /// Reads items for a family.
    #[inline(never)]
    pub(super) fn load_for(&mut self, family: &'static str, token: u64, keys: Vec<String>) {
        if let Some(family) = self.family_named(family) {
            self.read(Read::Items { keys }, Reading::Load { family, token });
        }
    }

    fn row_of_note(&mut self, now: Now, note: &Note) -> Option<Row> {
        let header = Header {
            id: note.id,
            from: note.from,
            to: self.me,
            ts: note.ts_ms.max(1),
            kind: note.kind,
            reference: None,
            resend_until: None,
            read_receipt: false,
        };
        let Ok(envelope) = encode_in(&mut self.scratch, header, &note.payload) else {
            // What a batch may hold is chosen so that this fits; a family that breaks it is at fault.
            self.debug(format!("a {} of {} is too long for the inbox", note.kind, note.from));
            return None;
        };
        let (seq, kind) = (self.mailbox.number(), self.kinds.row_name(note.kind));
        Some(Row { seq, at_ms: now.wall_ms, kind, raw: envelope.raw().clone() })
    }

    /// Messages are not shown because too many wait: who listens is told that some are missing.
    #[inline(never)]
    pub(super) fn all_lag(&mut self, kind: &str) {
        let mut clients = std::mem::take(&mut self.audience);
        self.agents.may_be_shown(kind, &mut clients);
        let seq = self.mailbox.next_seq();
        for client in clients.drain(..) {
            if self.agents.clients.get(&client).is_some_and(|state| state.speaks() == Speaks::V2) {
                self.lagged(client, seq);
            }
        }
        self.audience = clients;
    }

    fn family_named(&self, name: &str) -> Option<usize> {
        self.families.iter().position(|family| family.vocabulary().family == name)
    }
}
