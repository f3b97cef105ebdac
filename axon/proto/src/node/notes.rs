//! Messages that a family makes for this daemon's own clients: numbered and shown like those of peers, and
//! stored where the family says so.
//!
//! Source: `spec/IPC.md`, "Topics". Nobody but the family knows what is in them, and whom they are for.

use std::sync::Arc;

use super::storing::{After, Reading};
use super::{ClientId, Node, Now, Seen};
use crate::agents::Speaks;
use crate::error::IpcError;
use crate::family::{Input as FamilyInput, Note};
use crate::id::{AgentId, MsgId};
use crate::limits::{NOTES_WAITING_MAX, REPLAY_TTL_MS};
use crate::mailbox::Shown;
use crate::store::{CommitError, Read, Row, Write};
use crate::wire::{Header, Json, encode_in};

/// Messages that are being stored, and those that are told together with them.
#[derive(Debug)]
pub(super) struct Noted {
    family: usize,
    token: u64,
    /// Each with its id, as far as it is stored.
    told: Vec<(Shown, Option<Seen>)>,
    /// How many found no room, and are told only.
    refused: u64,
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
            self.tell_family(now, family, FamilyInput::Taken { token, stored: false, refused: 0 });
            return;
        }
        let (mut told, mut refused) = (Vec::with_capacity(notes.len()), 0);
        let mut stored = Vec::with_capacity(2 * notes.len());
        for note in notes {
            let Some(row) = self.row_of_note(now, &note) else { continue };
            let (seq, bytes) = (row.seq, row.raw.len());
            let low = kept && note.from != self.me && self.is_low(now, note.from);
            let mut seen = None;
            if low && self.low_is_full(bytes) {
                refused += 1;
                if self.mailbox.waiting() >= NOTES_WAITING_MAX {
                    self.decide(seq, None);
                    self.all_lag(note.kind);
                    continue;
                }
            } else if kept {
                stored.push(Write::Row { row: row.clone(), firm: false });
                writes.extend(low.then(|| self.low_row(seq, now.wall_ms, bytes)));
                // Whoever makes up names is one sender of these: he pushes nobody's ids out.
                let of = if low { self.me } else { note.from };
                let until_ms = now.wall_ms.saturating_add(REPLAY_TTL_MS);
                let id = self.replay.remember(of, note.id, until_ms, now.wall_ms);
                writes.push(Write::Seen(id));
                seen = Some(id);
                self.newest_note = seq;
            }
            told.push((Shown { row, from: note.from, except: None }, seen));
        }
        // Rows first, because they decide whether there is room.
        stored.append(&mut writes);
        let noted = Noted { family, token, told, refused };
        if stored.is_empty() {
            self.noted(now, noted, &Ok(()));
        } else {
            self.commit(stored, After::Noted(noted));
        }
    }

    /// They are on disk, or are not.
    #[inline(never)]
    pub(super) fn noted(&mut self, now: Now, noted: Noted, outcome: &Result<(), CommitError>) {
        let Noted { family, token, told, refused } = noted;
        let stored = outcome.is_ok();
        for (shown, seen) in told {
            let seq = shown.row.seq;
            if let Some(seen) = seen.filter(|_| !stored) {
                self.replay.forget(seen.from, seen.id);
                self.low_rows.remove(&seq);
            }
            self.decide(seq, stored.then_some(shown));
        }
        // What could not be stored comes again, and with it what is told only.
        let refused = if stored { refused } else { 0 };
        self.tell_family(now, family, FamilyInput::Taken { token, stored, refused });
    }

    /// Whether a message of a family was stored, by its id.
    pub(super) fn was_noted(&self, from: AgentId, id: MsgId) -> bool {
        self.replay.has(from, id) || self.replay.has(self.me, id)
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
        let Ok(envelope) = encode_in(&mut self.scratch, header, &Json::from(&note.payload)) else {
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
