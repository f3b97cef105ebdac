//! What is due when. A timer that no longer matters is taken out, so that none are heaped up.

use std::collections::BTreeSet;

use foldhash::HashMap;

use super::{ConnId, Token};
use crate::id::{AgentId, MsgId};

/// What a timer is for; each has at most one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// An open request's answer or work is due.
    Due(MsgId),
    /// An answer to a message of ours is due.
    Pending(Token),
    /// Hello must be done.
    Hello(ConnId),
    /// A superseded connection may be closed.
    Drain(ConnId),
    /// A connection whose hello was refused is closed.
    CloseAfterRefusal(ConnId),
    /// A peer may be dialled.
    Dial(AgentId),
    /// Look for what is stale.
    Sweep,
    /// Store items that could not be stored before.
    Items,
    /// Store cursors that have moved.
    Cursors,
    /// A stranger has been heard.
    Stranger(ConnId),
    /// A peer that is being joined must be there.
    Join(AgentId),
    /// An invite expires.
    Invites,
    /// A contact's time is over.
    Contacts,
    /// Tell peers of our new key.
    Herald,
    /// Send what is held for a peer.
    Outbox(AgentId),
    /// Give up what has been held long enough.
    Expire,
    /// Write seen ids to disk.
    FlushReplay,
    /// Write the peer cache to disk.
    SavePeers,
    /// A family has something to do, by its place among all.
    Family(usize),
    /// Stop now, finished or not.
    StopBy,
}

/// Timers by time and by key.
#[derive(Debug, Default)]
pub struct Timers {
    by_time: BTreeSet<(u64, Key)>,
    by_key: HashMap<Key, u64>,
}

impl Timers {
    /// Sets or moves a timer.
    pub fn set(&mut self, key: Key, at_ms: u64) {
        self.clear(key);
        self.by_key.insert(key, at_ms);
        self.by_time.insert((at_ms, key));
    }

    /// Sets a timer, or moves it forward.
    pub fn set_if_sooner(&mut self, key: Key, at_ms: u64) {
        if self.by_key.get(&key).is_none_or(|set| *set > at_ms) {
            self.set(key, at_ms);
        }
    }

    /// Takes a timer out.
    pub fn clear(&mut self, key: Key) {
        if let Some(at_ms) = self.by_key.remove(&key) {
            self.by_time.remove(&(at_ms, key));
        }
    }

    /// The time of the first.
    pub fn next(&self) -> Option<u64> {
        self.by_time.first().map(|(at_ms, _)| *at_ms)
    }

    /// Takes the first one that is due.
    pub fn pop(&mut self, now_ms: u64) -> Option<Key> {
        let (at_ms, key) = *self.by_time.first()?;
        if at_ms > now_ms {
            return None;
        }
        self.clear(key);
        Some(key)
    }
}
