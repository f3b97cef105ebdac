//! One entry in somebody else's file: looked up, put in, taken out. The two formats are in `json` and `toml`.

use serde_json::{Map, Value};

use super::{json, toml};

pub use super::json::Dialect;

/// A field of an entry.
pub type Field = (&'static str, Value);

/// How a client writes its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON, with what the client reads beside it.
    Json(Dialect),
    /// TOML.
    Toml,
}

/// Where in a document the entry is.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    /// The object or table, at the top, that has an entry for each server.
    pub table: &'a str,
    /// The entry's own name in it.
    pub name: &'a str,
}

/// Why a document is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error("line {line}, column {column}: {why}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// The parser's word.
        why: String,
    },
    /// What must be an object or a table is something else, or written in a way that is not changed here.
    #[error("line {line}, column {column}: {name} is not the object or table that the client has there")]
    Shape {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What it is called.
        name: String,
    },
    /// Two of one name, of which nobody knows which one the client takes.
    #[error("line {line}, column {column}: \"{name}\" is there twice")]
    Twice {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What it is called.
        name: String,
    },
    /// What was changed does not read as it should; nothing of it is written.
    #[error("it cannot be changed without changing more than the entry")]
    Lost,
}

impl Format {
    /// The entry, where there is one.
    pub fn look(self, text: &str, spot: Spot) -> Result<Option<Map<String, Value>>, Fault> {
        match self {
            Self::Json(dialect) => json::look(dialect, text, spot),
            Self::Toml => toml::look(text, spot),
        }
    }

    /// The text with the entry's fields as given. Other fields that it has stay.
    pub fn put(self, text: &str, spot: Spot, fields: &[Field]) -> Result<String, Fault> {
        let changed = match self {
            Self::Json(dialect) => json::put(dialect, text, spot, fields)?,
            Self::Toml => toml::put(text, spot, fields)?,
        };
        match self.look(&changed, spot) {
            Ok(Some(entry)) if has(&entry, fields) => Ok(changed),
            _ => Err(Fault::Lost),
        }
    }

    /// The text without the entry.
    pub fn take(self, text: &str, spot: Spot) -> Result<String, Fault> {
        let changed = match self {
            Self::Json(dialect) => json::take(dialect, text, spot)?,
            Self::Toml => toml::take(text, spot)?,
        };
        match self.look(&changed, spot) {
            Ok(None) => Ok(changed),
            _ => Err(Fault::Lost),
        }
    }

    /// The text without the object that holds the entries, where nothing is left in it and it was not in the
    /// text `before` either. A table of TOML needs nothing of the kind: it is there by its entries alone.
    pub fn tidied(self, text: String, before: &str, spot: Spot) -> Result<String, Fault> {
        let Self::Json(dialect) = self else { return Ok(text) };
        let left = json::table(dialect, &text, spot.table)?;
        let was_there = json::table(dialect, before, spot.table) != Ok(None);
        if left != Some(true) || was_there {
            return Ok(text);
        }
        let changed = json::take_table(dialect, &text, spot.table)?;
        if json::table(dialect, &changed, spot.table) == Ok(None) { Ok(changed) } else { Err(Fault::Lost) }
    }
}

/// Whether an entry has these fields, whatever else it has.
pub fn has(entry: &Map<String, Value>, fields: &[Field]) -> bool {
    fields.iter().all(|(key, value)| entry.get(*key) == Some(value))
}

/// How lines of this text end.
pub fn line_end(text: &str) -> &'static str {
    let before = text.find('\n').and_then(|at| text.get(..at));
    if before.is_some_and(|line| line.ends_with('\r')) { "\r\n" } else { "\n" }
}

/// Line and column of a place in a text, from 1.
pub fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}
