//! What was decided about whom, for the owner to read. Repeats are counted in one row.
//!
//! Source: `spec/TRUST.md`, "Audit". No payloads and no secrets come here.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::fault::has_room;
use crate::id::AgentId;
use crate::limits::{AUDIT_KEYS_MAX, AUDIT_WINDOW_MS};

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Two agents are paired.
    Paired,
    /// An invite was made or revoked, or has expired.
    Invite,
    /// A knock was answered.
    Knock,
    /// A proof was wrong, or of no invite that is open.
    Guess,
    /// A certificate was refused in the handshake.
    Handshake,
    /// A message was refused by policy.
    Refused,
    /// A message came over a rate or bound of policy.
    Limited,
    /// A level was changed, by command, file or expiry.
    Trust,
    /// A peer was forgotten.
    Forget,
    /// Work was paused or resumed.
    Pause,
    /// Policies were changed.
    Policy,
    /// A key was replaced, here or at a peer.
    Rekey,
    /// A scoped socket was made, changed or removed.
    Socket,
    /// A scoped socket tried what it may not do.
    Scope,
    /// A scoped socket sent something.
    Sent,
}

impl Event {
    /// As the file says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paired => "paired",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Guess => "guess",
            Self::Handshake => "handshake",
            Self::Refused => "refused",
            Self::Limited => "limited",
            Self::Trust => "trust",
            Self::Forget => "forget",
            Self::Pause => "pause",
            Self::Policy => "policy",
            Self::Rekey => "rekey",
            Self::Socket => "socket",
            Self::Scope => "scope",
            Self::Sent => "sent",
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// When it was first so, in Unix milliseconds.
    pub at_ms: u64,
    /// When it was last so, where that is later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// What.
    pub event: Event,
    /// About whom. In a handshake that was refused this is what the certificate says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<AgentId>,
    /// Of which scoped socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<Box<str>>,
    /// By which rule, or to which level.
    pub rule: Box<str>,
    /// How often.
    pub count: u64,
}

type Key = (Event, Option<AgentId>, Option<Box<str>>, Box<str>);

/// Counts repeats: the first is written at once, those that follow within a minute as one.
#[derive(Debug, Default)]
pub struct Audit {
    open: HashMap<Key, Open>,
}

#[derive(Debug)]
struct Open {
    since_ms: u64,
    /// The first and the last of those that no row has told yet.
    first_ms: u64,
    last_ms: u64,
    /// What a row has not told yet.
    count: u64,
}

impl Audit {
    /// Notes something; gives the row that is to be written now, if any.
    pub fn note(
        &mut self,
        wall_ms: u64,
        event: Event,
        peer: Option<AgentId>,
        socket: Option<&str>,
        rule: &str,
    ) -> Option<Row> {
        let mut key: Key = (event, peer, socket.map(Box::from), rule.into());
        if !self.open.contains_key(&key)
            && !has_room("rows of the audit log", self.open.len() < AUDIT_KEYS_MAX)
        {
            // So many different ones are counted together.
            key.1 = None;
        }
        if let Some(open) = self.open.get_mut(&key) {
            if open.count == 0 {
                open.first_ms = wall_ms;
            }
            open.count += 1;
            open.last_ms = wall_ms;
            return None;
        }
        let row = row(&key, wall_ms, None, 1);
        if self.open.len() < 2 * AUDIT_KEYS_MAX {
            self.open.insert(key, Open { since_ms: wall_ms, first_ms: wall_ms, last_ms: wall_ms, count: 0 });
        }
        Some(row)
    }

    /// Rows of what was repeated for a whole window, or of all.
    pub fn take(&mut self, wall_ms: u64, all: bool) -> Vec<Row> {
        let mut rows = Vec::new();
        self.open.retain(|key, open| {
            if !all && open.since_ms + AUDIT_WINDOW_MS > wall_ms && open.since_ms <= wall_ms {
                return true;
            }
            if open.count > 0 {
                let until_ms = Some(open.last_ms).filter(|at_ms| *at_ms > open.first_ms);
                rows.push(row(key, open.first_ms, until_ms, open.count));
            }
            // While it goes on, one row a window.
            let goes_on = open.count > 0;
            (open.since_ms, open.count) = (wall_ms, 0);
            goes_on && !all
        });
        rows.sort_by_key(|row| row.at_ms);
        rows
    }
}

fn row((event, peer, socket, rule): &Key, at_ms: u64, until_ms: Option<u64>, count: u64) -> Row {
    Row { at_ms, until_ms, event: *event, peer: *peer, socket: socket.clone(), rule: rule.clone(), count }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They stand in files that are kept, and in the table of `spec/TRUST.md`.
    #[test]
    fn what_happened_has_the_same_name_in_a_row_and_in_words() {
        for (event, name) in [
            (Event::Paired, "paired"),
            (Event::Invite, "invite"),
            (Event::Knock, "knock"),
            (Event::Guess, "guess"),
            (Event::Handshake, "handshake"),
            (Event::Refused, "refused"),
            (Event::Limited, "limited"),
            (Event::Trust, "trust"),
            (Event::Forget, "forget"),
            (Event::Pause, "pause"),
            (Event::Policy, "policy"),
            (Event::Rekey, "rekey"),
            (Event::Socket, "socket"),
            (Event::Scope, "scope"),
            (Event::Sent, "sent"),
        ] {
            assert_eq!(event.as_str(), name);
            assert_eq!(serde_json::to_value(event).unwrap(), name);
        }
    }

    #[test]
    fn a_flood_is_one_row_at_once_and_one_a_minute() {
        let mut audit = Audit::default();
        let peer = Some(AgentId([1; 16]));
        let mut rows = Vec::new();
        for at_ms in 0..200_000 {
            rows.extend(audit.note(at_ms, Event::Refused, peer, None, "policy.unknown.kinds"));
            if at_ms % 5_000 == 0 {
                rows.extend(audit.take(at_ms, false));
            }
        }
        rows.extend(audit.take(200_000, true));
        assert_eq!(rows.len(), 5);
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 200_000);
        assert!(audit.take(300_000, true).is_empty());
    }

    #[test]
    fn many_different_ones_are_counted_together() {
        let mut audit = Audit::default();
        let mut rows = Vec::new();
        for n in 0..100_000u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            rows.extend(audit.note(1, Event::Handshake, Some(AgentId(id)), None, "not_pinned"));
        }
        rows.extend(audit.take(1, true));
        assert!(rows.len() <= AUDIT_KEYS_MAX + 2);
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 100_000);
    }
}
