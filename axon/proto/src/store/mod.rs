//! The store: what must outlive the daemon, in a log of checked frames over plain files.
//!
//! Source: `spec/decisions/0008-the-store.md`. This module says what goes in and comes out; [`log`] is the
//! engine, [`files`] what it needs of a disk. The engine does no I/O of its own: the daemon runs it over a
//! directory on a thread of its own, `ipc.durable = false` and the tests over memory.
//!
//! Two things are stored. **Rows** are the inbox: numbered, in order, too many for memory. **Items** are
//! small state under a key: cursors, held sends, delegations. Keys that begin with `body/` are large and are
//! read when they are needed; all others are handed over at the start.

pub mod files;
mod frame;
mod index;
pub mod log;
pub mod memory;

use std::sync::Arc;

use crate::node::Seen;

pub use log::{Opened, Store};

/// How the keys of large items begin: they are not handed over at the start.
pub const BODY_PREFIX: &str = "body/";

/// One message in the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number, never used twice.
    pub seq: u64,
    /// When it came, in Unix milliseconds.
    pub at_ms: u64,
    /// Its kind.
    pub kind: Arc<str>,
    /// The envelope as JSON on one line.
    pub raw: Arc<str>,
}

/// One change of what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Append a message; its number is above all that were appended before.
    Row {
        /// The message.
        row: Row,
        /// Its sender was told that it is kept, or it is a delegation: unread, it goes only by age. It is so
        /// until [`Write::Loose`].
        firm: bool,
    },
    /// Take a message out before its time.
    Gone(u64),
    /// The message of this number has been read by somebody: it may go like any other. Nothing for one that
    /// may go anyway, and for one that is gone.
    Loose(u64),
    /// Remember an envelope id.
    Seen(Seen),
    /// Set an item.
    Put {
        /// Its key, at most 255 bytes.
        key: String,
        /// Its value.
        value: Arc<[u8]>,
    },
    /// Remove an item.
    Delete {
        /// Its key.
        key: String,
    },
}

impl Write {
    /// Sets an item.
    pub fn put(key: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        Self::Put { key: key.into(), value: value.as_ref().into() }
    }

    /// Removes an item.
    pub fn delete(key: impl Into<String>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// Bytes that it holds in memory and takes on disk, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Row { row, .. } => row.raw.len() + row.kind.len() + 64,
            Self::Gone(_) | Self::Loose(_) => 32,
            Self::Seen(_) => 64,
            Self::Put { key, value } => key.len() + value.len() + 32,
            Self::Delete { key } => key.len() + 32,
        }
    }
}

/// What the inbox may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Messages.
    pub rows_max: u64,
    /// Bytes of their envelopes.
    pub bytes_max: u64,
    /// Age.
    pub ttl_ms: u64,
    /// Up to here some consumer has read: firm rows above it go only by age.
    pub read_up_to: u64,
}

/// Changes that are written together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// In this order.
    pub writes: Vec<Write>,
    /// The bounds of the inbox at this time.
    pub keep: Keep,
}

/// Why a commit was not made. Nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The inbox is full of messages that must not go before they are read.
    #[error("the inbox is full of unread messages")]
    Full,
    /// The disk refused; the text is the system's.
    #[error("{0}")]
    Disk(String),
}

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Messages of the inbox, oldest first.
    Rows {
        /// Above this number.
        after: u64,
        /// Up to this number.
        up_to: u64,
        /// Of these kinds only; none: of all.
        kinds: Option<Vec<String>>,
        /// Stop before the first message of another kind, instead of passing over it.
        stop_at_other: bool,
        /// So many at most.
        limit: usize,
        /// Envelope bytes at most, but at least one message.
        bytes_max: usize,
    },
    /// How many messages there are above this number.
    Count {
        /// This number.
        after: u64,
    },
    /// Values of items, in this order.
    Items {
        /// Their keys.
        keys: Vec<String>,
    },
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOut {
    /// See [`Read::Rows`].
    Rows(Rows),
    /// See [`Read::Count`].
    Count(u64),
    /// See [`Read::Items`]: none where there is no such item, or where it is damaged.
    Items(Vec<Option<Arc<[u8]>>>),
    /// The disk refused; the text is the system's.
    Failed(String),
}

/// Messages of the inbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// The messages.
    pub rows: Vec<Row>,
    /// The first message that would have been next, but for `limit`, `bytes_max` or the bound of one reading;
    /// none: there is no more, or `stop_at_other` stopped it.
    pub next: Option<u64>,
    /// Everything up to here was looked at.
    pub scanned_to: u64,
    /// The highest number that was ever taken out by a bound or by damage, unread or not.
    pub lost_to: u64,
    /// The first message that is kept above `lost_to`; none: there is none.
    pub first_after_lost: Option<u64>,
}
