//! Scoped sockets: what one agent's own socket may do, and whom and what it sees.
//!
//! Source: `spec/IPC.md`, "Scoped sockets". The main socket is the owner's and has no scope.

use crate::id::AgentId;
use crate::trust::covers;

/// A group of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Right {
    /// `send`, `outbox`, `delegations`.
    Send,
    /// `inbox`, `ack`, `subscribe`.
    Inbox,
    /// `subscribe` with `answer`, and `reply`.
    Answer,
    /// `advertise`.
    Advertise,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Send, Self::Inbox, Self::Answer, Self::Advertise];

    /// As commands and files say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Inbox => "inbox",
            Self::Answer => "answer",
            Self::Advertise => "advertise",
        }
    }

    /// The right of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.as_str() == text)
    }
}

/// One scoped socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Its name, `[a-z0-9-]{1,32}`.
    pub name: String,
    /// What it may do.
    pub allow: Vec<Right>,
    /// Peers that it sees and may send to; none: all.
    pub to: Option<Vec<AgentId>>,
    /// Kinds that it sees and may send; none: all.
    pub kinds: Option<Vec<String>>,
    /// Domains that it answers and may ask; none: all.
    pub domains: Option<Vec<String>>,
    /// The user who may connect; none: the daemon's own.
    pub uid: Option<u32>,
    /// Messages that it may send a minute; 0: no limit.
    pub messages_per_minute: u64,
}

/// One change of the scoped sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopeChange {
    /// Make a socket, or change what it may do.
    Put(Scope),
    /// Close a socket and take its directory away.
    Remove(String),
}

impl Scope {
    /// A scope that may do nothing and sees nobody.
    pub fn nothing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            allow: Vec::new(),
            to: Some(Vec::new()),
            kinds: Some(Vec::new()),
            domains: None,
            uid: None,
            messages_per_minute: 0,
        }
    }

    /// Whether it may do this.
    pub fn may(&self, right: Right) -> bool {
        self.allow.contains(&right)
    }

    /// Whether it sees this peer.
    pub fn sees_peer(&self, peer: AgentId) -> bool {
        self.to.as_ref().is_none_or(|to| to.contains(&peer))
    }

    /// Whether it sees this kind.
    pub fn sees_kind(&self, kind: &str) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|listed| listed == kind))
    }

    /// Whether it has to do with this domain.
    pub fn sees_domain(&self, domain: Option<&str>) -> bool {
        let Some(domains) = &self.domains else { return true };
        domain.is_some_and(|domain| domains.iter().any(|served| covers(served, domain)))
    }

    /// Whether a text is a scoped socket's name.
    pub fn is_name(text: &str) -> bool {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=32).contains(&text.len()) && text.bytes().all(letters)
    }
}
