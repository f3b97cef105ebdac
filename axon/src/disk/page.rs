//! A TOML file that people write, as it is read: every value with its place, and lists of tables.

use std::ops::Range;
use std::path::Path;

use axon_proto::id::{AgentId, PublicKey};
use toml_edit::{Document, Item, TableLike, Value};

use super::config::{ConfigError, Spot, is_line, spot};
use super::dates;
use super::policy;
use super::settings::{self, Names};

/// Where in a text something is.
pub(super) type Span = Option<Range<usize>>;

/// A text and the file that it is of.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    /// The text.
    pub(super) text: &'a str,
    /// The file, for messages.
    pub(super) path: &'a Path,
}

impl<'a> Page<'a> {
    /// The text as TOML.
    pub(super) fn document(&self) -> Result<Document<&'a str>, ConfigError> {
        Document::parse(self.text).map_err(|error| {
            // The parser's sentence may have more lines of context, which the place makes needless.
            let message = error.message().trim().replace('\n', ", ");
            self.wrong(error.span(), None, format!("this is no TOML: {message}"))
        })
    }

    pub(super) fn spot(&self, span: Span) -> Spot {
        spot(self.text, span.map_or(0, |span| span.start))
    }

    pub(super) fn wrong(&self, span: Span, key: Option<&str>, message: String) -> ConfigError {
        let spot = self.spot(span);
        ConfigError::Wrong { path: self.path.to_owned(), spot, key: key.map(str::to_owned), message }
    }

    pub(super) fn wrong_at(&self, spot: Spot, key: &str, message: String) -> ConfigError {
        ConfigError::Wrong { path: self.path.to_owned(), spot, key: Some(key.to_owned()), message }
    }

    /// The tables of `[[list]]`, or of `list = [{…}]`.
    pub(super) fn entries<'t>(
        &self,
        list: &'static str,
        item: &'t Item,
    ) -> Result<Vec<Entry<'a, 't>>, ConfigError> {
        let message = || format!("must be tables: write [[{list}]]");
        let not_tables = || self.wrong(item.span(), Some(list), message());
        let tables: Vec<&dyn TableLike> = match item {
            Item::ArrayOfTables(tables) => tables.iter().map(|table| table as &dyn TableLike).collect(),
            Item::Value(Value::Array(values)) => values
                .iter()
                .map(|value| value.as_inline_table().map(|table| table as &dyn TableLike))
                .collect::<Option<_>>()
                .ok_or_else(not_tables)?,
            _ => return Err(not_tables()),
        };
        Ok(tables.into_iter().map(|table| Entry { page: *self, list, table, all: item }).collect())
    }
}

/// One table of a list.
pub(super) struct Entry<'a, 't> {
    page: Page<'a>,
    list: &'static str,
    table: &'t dyn TableLike,
    all: &'t Item,
}

impl<'t> Entry<'_, 't> {
    pub(super) fn wrong(&self, span: Span, key: &str, message: impl Into<String>) -> ConfigError {
        self.page.wrong(span, Some(&format!("{}.{key}", self.list)), message.into())
    }

    /// About where it begins.
    pub(super) fn span(&self) -> Span {
        // A header has no span of its own in every case; the first key is near enough.
        let first = self.table.iter().next().and_then(|(key, _)| self.table.key(key));
        first.and_then(|key| key.span()).or_else(|| self.all.span())
    }

    /// Refuses keys other than these; `what` is what the entry is called.
    pub(super) fn check_keys(&self, keys: &[&'static str], what: &str) -> Result<(), ConfigError> {
        let Some((key, _)) = self.table.iter().find(|(key, _)| !keys.contains(key)) else { return Ok(()) };
        let hint = settings::nearest_of(key, keys).map_or_else(
            || format!("a {what} has {}", keys.join(", ")),
            |near| format!("did you mean \"{near}\"?"),
        );
        let span = self.table.key(key).and_then(|key| key.span());
        Err(self.wrong(span, key, format!("there is no such key; {hint}")))
    }

    /// A value and its place.
    fn get(&self, key: &str) -> Option<(&'t Item, Span)> {
        self.table.get(key).map(|item| (item, item.span()))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<(&'t str, Span)>, ConfigError> {
        let Some((item, span)) = self.get(key) else { return Ok(None) };
        match item.as_str() {
            Some(text) => Ok(Some((text, span))),
            None => Err(self.wrong(span, key, "must be a text in quotes")),
        }
    }

    /// A text that must be there; `needs` tells what an entry needs.
    pub(super) fn needed(&self, key: &str, needs: &str) -> Result<(&'t str, Span), ConfigError> {
        self.text(key)?.ok_or_else(|| self.wrong(self.span(), key, format!("is missing: {needs}")))
    }

    /// The agent id that a text is.
    pub(super) fn agent_id(&self, text: &str, span: Span) -> Result<AgentId, ConfigError> {
        text.parse().map_err(|error| self.wrong(span, "agent_id", format!("{error}")))
    }

    /// The key that a text is, if it is that of the id.
    pub(super) fn pubkey(&self, text: &str, span: Span, id: AgentId) -> Result<PublicKey, ConfigError> {
        let key: PublicKey =
            text.parse().map_err(|error| self.wrong(span.clone(), "pubkey", format!("{error}")))?;
        if key.agent_id() != id {
            let message = format!(
                "does not belong to agent_id: the agent of this key is {}; copy both from the peer's \
                 `axon identity`",
                key.agent_id()
            );
            return Err(self.wrong(span, "pubkey", message));
        }
        Ok(key)
    }

    /// A text of one line.
    pub(super) fn line(&self, key: &str, bytes_max: usize) -> Result<Option<(&'t str, Span)>, ConfigError> {
        let Some((text, span)) = self.text(key)? else { return Ok(None) };
        if !is_line(text, bytes_max) {
            let message = format!("must be 1 to {bytes_max} bytes without control characters");
            return Err(self.wrong(span, key, message));
        }
        Ok(Some((text, span)))
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Option<(Vec<&'t str>, Span)>, ConfigError> {
        let Some((item, span)) = self.get(key) else { return Ok(None) };
        let texts = item.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        match texts {
            Some(texts) => Ok(Some((texts, span))),
            None => Err(self.wrong(span, key, "must be a list of texts, such as [\"one\", \"two\"]")),
        }
    }

    /// A list of names of one sort.
    pub(super) fn names(&self, key: &str, sort: Names) -> Result<Option<Vec<&'t str>>, ConfigError> {
        let Some((names, span)) = self.texts(key)? else { return Ok(None) };
        policy::check_names(sort, &names).map_err(|message| self.wrong(span, key, message))?;
        Ok(Some(names))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some((item, span)) = self.get(key) else { return Ok(None) };
        item.as_bool().map(Some).ok_or_else(|| self.wrong(span, key, "must be true or false"))
    }

    pub(super) fn number(&self, key: &str, max: u64) -> Result<Option<u64>, ConfigError> {
        let Some((item, span)) = self.get(key) else { return Ok(None) };
        let number = item.as_integer().and_then(|n| u64::try_from(n).ok()).filter(|n| *n <= max);
        let message = || format!("must be a whole number from 0 to {max}");
        number.map(Some).ok_or_else(|| self.wrong(span, key, message()))
    }

    /// A time in Unix milliseconds.
    pub(super) fn time(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        let Some((item, span)) = self.get(key) else { return Ok(None) };
        let Some(time) = item.as_datetime() else {
            let message = "must be a time without quotes, such as 2027-01-31T12:00:00Z";
            return Err(self.wrong(span, key, message));
        };
        dates::unix_ms(time).map(Some).map_err(|message| self.wrong(span, key, message))
    }
}

/// What a list of names becomes in a file's text.
pub(super) fn list<T: ToString>(texts: impl IntoIterator<Item = T>) -> Value {
    Value::Array(texts.into_iter().map(|text| text.to_string()).collect())
}
