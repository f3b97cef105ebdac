//! The words of a family as data: its kinds, how each travels, what it needs, and how it is checked.

use crate::trust::Level;

/// A family's words.
#[derive(Debug)]
pub struct Vocabulary {
    /// The family's name, and its page in `spec/kinds/`.
    pub family: &'static str,
    /// Its kinds.
    pub kinds: &'static [Kind],
}

/// How a kind travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// A bidirectional stream: one message, one of these replies.
    Request {
        /// Kinds that may answer it on the stream.
        replies: &'static [&'static str],
        /// Kinds that may follow on streams of their own, with `ref`.
        later: &'static [&'static str],
    },
    /// A unidirectional stream.
    OneWay,
    /// Only ever the answer on a request's stream.
    Reply,
}

/// Who may begin one with the `send` command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sendable {
    /// Any client.
    Yes,
    /// Nobody: agents use the `reply` command, or the daemon sends it.
    No,
}

/// One kind.
#[derive(Debug)]
pub struct Kind {
    /// Its name on the wire.
    pub name: &'static str,
    /// How it travels.
    pub pattern: Pattern,
    /// The feature that a peer must have offered before it is sent; none: all peers take it.
    pub feature: Option<&'static str>,
    /// Whether it belongs in the inbox until it is read.
    pub kept: bool,
    /// Whether clients may send it.
    pub sendable: Sendable,
    /// The level that a peer needs to send it here, where no policy says otherwise.
    pub needs: Level,
    /// Whether its payload may name a domain, as `domain`.
    pub has_domain: bool,
    /// Whether one that comes twice does no harm: its id is not remembered.
    pub idempotent: bool,
    /// Whether it is made by the daemon for its own clients, and never comes from a peer; its family says who
    /// is shown it.
    pub made_here: bool,
    /// Checks a payload; the sentence names the field that is missing or wrong.
    pub check: fn(&str) -> Result<(), String>,
}

impl Kind {
    /// Whether it travels on a bidirectional stream as the first message.
    pub fn is_request(&self) -> bool {
        matches!(self.pattern, Pattern::Request { .. })
    }
}
