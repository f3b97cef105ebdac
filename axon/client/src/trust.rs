//! Who may talk, and how much: what the owner's commands take and give. Names are those of `spec/IPC.md`;
//! words that this crate does not know stay text.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::words::words;

words! {
    /// How far a peer is trusted; each may do what those before it may.
    ///
    /// ```
    /// use axon_client::Trust;
    ///
    /// assert_eq!(Trust::from("known"), Trust::Known);
    /// assert_eq!(Trust::Blocked.as_str(), "blocked");
    /// ```
    Trust {
        /// Refused like a stranger.
        Blocked = "blocked";
        /// Found on the network, and nobody has said more of it.
        Unknown = "unknown";
        /// Paired, or in the configuration.
        Known = "known";
        /// May also do what acts on the machine.
        Trusted = "trusted";
    }
}

impl Trust {
    /// Whether this is at least that level. A word that this crate does not know is no more than `unknown`.
    ///
    /// ```
    /// use axon_client::Trust;
    ///
    /// assert!(Trust::Trusted.reaches(&Trust::Known) && !Trust::Unknown.reaches(&Trust::Known));
    /// assert!(!Trust::from("friend").reaches(&Trust::Known));
    /// ```
    pub fn reaches(&self, least: &Self) -> bool {
        let height = |level: &Self| match level {
            Self::Trusted => 3,
            Self::Known => 2,
            Self::Unknown | Self::Other(_) => 1,
            Self::Blocked => 0,
        };
        height(self) >= height(least)
    }
}

words! {
    /// How far two agents are paired.
    PairState {
        /// Both know each other.
        Paired = "paired";
        /// The owner of the other side must approve the knock.
        Pending = "pending";
        /// This side knows the other; the other must connect back, or let knocks in.
        Pinned = "pinned";
    }
}

words! {
    /// What a rule says.
    Decision {
        /// It may pass.
        Allow = "allow";
        /// It may not.
        Deny = "deny";
        /// Not now.
        Limit = "limit";
    }
}

words! {
    /// A group of commands that a scoped socket may use.
    Right {
        /// `send`, `outbox`, `delegations`, `publish`.
        Send = "send";
        /// `inbox`, `ack`, `subscribe`, and what is about topics but to publish and to keep.
        Inbox = "inbox";
        /// `subscribe` with `answer`, and `reply`.
        Answer = "answer";
        /// `advertise`.
        Advertise = "advertise";
    }
}

// ---- Pairing ----------------------------------------------------------------------------------------------

/// What an invite is to be; where nothing is said: one use within an hour, at level known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InviteOptions {
    /// How long it is open, 60 s to 30 days.
    #[serde(rename = "expires_secs", skip_serializing_if = "Option::is_none", serialize_with = "secs")]
    pub expires: Option<Duration>,
    /// How often it may be used, 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// The level that it gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// What its owner calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Where the other side is to dial, `host:port`, best first; the daemon's own when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addrs: Vec<String>,
}

/// An invite that was made.
#[derive(Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Invited {
    /// The link, with its secret: for the other side alone.
    pub link: String,
    /// Whom it leads to: this agent.
    pub agent_id: String,
    /// What the invite is called; tells nothing of its secret.
    pub invite: String,
    /// Until when it is open, in Unix milliseconds.
    pub expires_ms: u64,
    /// How often it may be used.
    pub uses: u64,
    /// The level that it gives.
    pub trust: Trust,
}

impl std::fmt::Debug for Invited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The link's secret belongs into no log.
        f.debug_struct("Invited").field("invite", &self.invite).finish_non_exhaustive()
    }
}

/// An invite that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Invite {
    /// What it is called.
    pub invite: String,
    /// What its owner calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Until when it is open, in Unix milliseconds.
    pub expires_ms: u64,
    /// How often it may still be used.
    pub uses: u64,
    /// The level that it gives.
    pub trust: Trust,
}

/// What a knock is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The field.
    pub category: String,
    /// What is to be done there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

/// With whom to pair, and what is said to its owner.
#[derive(Clone, Default, Serialize)]
pub struct Connect<'a> {
    /// The link, from `axon invite` or `axon identity` there.
    pub link: &'a str,
    /// What the peer is called here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// The level that it has here (known when nothing is said).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// A word to the owner of the other side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
    /// What for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// `request_response`, `conversation` or `stream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<&'a str>,
    /// How long it may take (15000 when nothing is said).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

impl std::fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The link's secret belongs into no log.
        f.debug_struct("Connect").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What came of `connect`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Connected {
    /// The peer.
    pub agent_id: String,
    /// How far the two are paired.
    pub state: PairState,
    /// The level that the peer has here.
    pub trust: Trust,
    /// The level that this agent has there, where the peer said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Trust>,
    /// What this agent may do there, where the peer said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
    /// What was done and what comes next, in words.
    #[serde(default)]
    pub message: String,
}

/// What a peer may do; what is absent is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Constraints {
    /// These kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Vec<String>>,
    /// So often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_minute: Option<u64>,
    /// So much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes_max: Option<u64>,
    /// Until then, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// A stranger, or a known peer with a new key, that waits for the owner's word. As an event it has neither
/// key, addresses nor count.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Knock {
    /// What the owner calls it by.
    pub id: String,
    /// Who wants in.
    pub agent_id: String,
    /// Its key, in standard base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pubkey: String,
    /// Where it may be reached, by its own word and by where it came from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addrs: Vec<String>,
    /// What it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether the name, and all else that it says, is only what it claims: always so.
    #[serde(default)]
    pub claimed: bool,
    /// What for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// In which manner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// In its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it first knocked, in Unix milliseconds.
    pub at_ms: u64,
    /// How often it has.
    #[serde(default = "once")]
    pub count: u64,
    /// The id that it had before, for a new key of a known peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekey_of: Option<String>,
}

fn once() -> u64 {
    1
}

/// A knock that was approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Approved {
    /// Who is let in.
    pub agent_id: String,
    /// The level that it has.
    pub trust: Trust,
}

// ---- Contacts ---------------------------------------------------------------------------------------------

/// What is to be said of a peer.
#[derive(Debug, Clone, Serialize)]
pub struct SetTrust<'a> {
    /// Agent id, a prefix of one, or a name.
    pub peer: &'a str,
    /// The level that it has from now on.
    pub trust: Trust,
    /// What it is called here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'a str>,
    /// How long that holds.
    #[serde(rename = "expires_secs", skip_serializing_if = "Option::is_none", serialize_with = "secs")]
    pub expires: Option<Duration>,
}

impl<'a> SetTrust<'a> {
    /// This level, and nothing else.
    pub fn level(peer: &'a str, trust: Trust) -> Self {
        Self { peer, trust, name: None, why: None, expires: None }
    }
}

/// How far a peer is trusted, and was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trusted {
    /// The peer.
    pub agent_id: String,
    /// The level that it has.
    pub trust: Trust,
    /// The level that it had; none where nothing was said of it.
    #[serde(default)]
    pub was: Option<Trust>,
}

/// Whom the owner has said something of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Contacts {
    /// Whether all inbound work is paused.
    #[serde(default)]
    pub paused: bool,
    /// The contacts.
    pub contacts: Vec<Contact>,
}

/// A peer that the owner has said something of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Contact {
    /// Its agent id.
    pub agent_id: String,
    /// Its key, in standard base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pubkey: Option<String>,
    /// Where it is reached.
    #[serde(default)]
    pub addrs: Vec<String>,
    /// How far it is trusted.
    pub trust: Trust,
    /// What it is called here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Since when, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Until when, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_ms: Option<u64>,
    /// Whether that is over, so that all else here holds no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
    /// Whether its work is paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// `contacts`, `config` or `both`.
    pub source: String,
}

/// What is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Paused {
    /// Whether all inbound work is.
    #[serde(default)]
    pub paused: bool,
    /// Peers that are paused by themselves.
    #[serde(default)]
    pub peers: Vec<String>,
}

// ---- Policy -----------------------------------------------------------------------------------------------

/// What is asked of the policies.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyCheck<'a> {
    /// Agent id, a prefix of one, or a name.
    pub peer: &'a str,
    /// The kind of message.
    pub kind: &'a str,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<&'a str>,
    /// From the peer (`in`, when nothing is said), or to it (`out`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<crate::Direction>,
}

/// What the policies say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ruling {
    /// Whether it may pass.
    pub decision: Decision,
    /// The peer's level.
    pub level: Trust,
    /// The rule that decided.
    pub rule: String,
    /// Why, and what would change it.
    pub message: String,
    /// When it would pass, for one that may not pass now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// A new identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rekeyed {
    /// Who this agent is from now on.
    pub agent_id: String,
    /// Who it was.
    pub old_agent_id: String,
}

// ---- Scoped sockets ---------------------------------------------------------------------------------------

/// What a scoped socket is to be; what is not said is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// Its name, 1 to 32 of `a-z`, `0-9` and `-`.
    pub name: String,
    /// What it may do.
    pub allow: Vec<Right>,
    /// Peers that it sees: agent ids, prefixes or names; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<String>>,
    /// Kinds that it sees; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Vec<String>>,
    /// Domains that it has to do with; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domains: Option<Vec<String>>,
    /// The user who may connect; none: the daemon's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Messages that it may send a minute; 0, when nothing is said: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_minute: Option<u64>,
}

/// A scoped socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Socket {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub allow: Vec<Right>,
    /// Peers that it sees; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<String>>,
    /// Kinds that it sees; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Vec<String>>,
    /// Domains that it has to do with; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domains: Option<Vec<String>>,
    /// The user who may connect; none: the daemon's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Messages that it may send a minute; 0: no limit.
    #[serde(default)]
    pub messages_per_minute: u64,
    /// Where it is.
    #[serde(default)]
    pub path: String,
}

impl Socket {
    /// As it would be made again, to be changed in part.
    pub fn scope(&self) -> Scope {
        Scope {
            name: self.name.clone(),
            allow: self.allow.clone(),
            to: self.to.clone(),
            kinds: self.kinds.clone(),
            domains: self.domains.clone(),
            uid: self.uid,
            messages_per_minute: Some(self.messages_per_minute),
        }
    }
}

/// A time in whole seconds, at least one.
fn secs<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let secs = time.map(|time| time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).max(1));
    secs.serialize(serializer)
}
