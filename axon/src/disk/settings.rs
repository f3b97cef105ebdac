//! Every key of `config.toml`, one row each: what `axon config` lists, what the reader accepts, what the
//! specification says. `[[peers]]` stands apart, in [`super::config`], and `[[topics.rules]]` in `topics`.
//! What names in lists may be is told in `policy`.

use axon_proto::limits;

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number in this range, ends included.
    Int {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// `true` or `false`.
    Bool,
    /// Text of one line, not empty, with at most this many bytes.
    Text {
        /// The most bytes.
        bytes_max: usize,
    },
    /// An IP address without a port.
    Addr,
    /// A file's path; a relative one starts at the root.
    Path,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of texts.
    List,
    /// A list of at most `limits::RULE_NAMES_MAX` names of one sort.
    Names(Names),
    /// Whatever JSON can say.
    Any,
}

/// What the names of a list are those of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Kinds, or `*` for any.
    Kinds,
    /// Domains.
    Domains,
    /// What knocks are for: `category` or `category/action`.
    Intents,
    /// Agents, by their ids.
    Agents,
    /// Filters of topics.
    Topics,
}

/// What holds when a key is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Nothing; the row's text tells what that means.
    None,
    /// This number.
    Int(u64),
    /// This.
    Bool(bool),
    /// These names.
    Names(&'static [&'static str]),
    /// This word.
    Word(&'static str),
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key, with its table: `ipc.buffer_size`.
    pub key: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds without it.
    pub preset: Preset,
    /// What it counts in, for numbers with a unit.
    pub unit: &'static str,
    /// Whether a running daemon takes a change only when it starts again.
    pub restart: bool,
    /// What it is for, in a line.
    pub doc: &'static str,
}

/// All rows, in the order of the specification.
pub const SETTINGS: &[Setting] = &[
    int("port", (0, 65_535), limits::PORT_DEFAULT as u64, "", true, "UDP port; 0 takes any free one"),
    row(
        "bind",
        Kind::Addr,
        Preset::None,
        true,
        "address to listen on; all interfaces, IPv4 and IPv6, without it",
    ),
    row("name", NAME, Preset::None, false, "what this agent calls itself, in hello, whoami and capabilities"),
    row("mdns", Kind::Bool, Preset::Bool(true), true, "find peers on the local network and be found there"),
    row(
        "pipe",
        Kind::Bool,
        Preset::Bool(true),
        true,
        "let small messages share a stream with peers that do so too",
    ),
    int("max_ipc_clients", (1, 1_024), 64, "clients", false, "clients of the socket at once"),
    int("max_connections", (1, 4_096), 128, "connections", false, "QUIC connections at once"),
    int("keepalive_secs", (1, 3_600), 15, "seconds", true, "how often an idle connection is kept awake"),
    int("idle_timeout_secs", (2, 3_600), 60, "seconds", true, "silence after which a connection is given up"),
    int(
        "reconnect_max_backoff_secs",
        (1, 3_600),
        30,
        "seconds",
        false,
        "longest wait between two tries to reach a peer",
    ),
    int(
        "handshake_timeout_secs",
        (1, 300),
        5,
        "seconds",
        false,
        "time for a connection to be made and say hello",
    ),
    int(
        "inbound_read_timeout_secs",
        (1, 3_600),
        10,
        "seconds",
        true,
        "time without a byte after which a peer's unfinished message is dropped",
    ),
    row(
        "ipc.allow_v1",
        Kind::Bool,
        Preset::Bool(true),
        false,
        "serve clients that speak version 1 of the socket's protocol",
    ),
    int(
        "ipc.buffer_size",
        (0, 1_000_000),
        1_000,
        "messages",
        false,
        "messages kept in the inbox; 0 keeps none",
    ),
    int(
        "ipc.buffer_ttl_secs",
        (1, 31_536_000),
        86_400,
        "seconds",
        false,
        "how long a message is kept in the inbox",
    ),
    int("ipc.buffer_byte_cap", (1, 1_073_741_824), 4_194_304, "bytes", false, "bytes kept in the inbox"),
    row(
        "ipc.durable",
        Kind::Bool,
        Preset::Bool(true),
        true,
        "keep the inbox, held messages and delegations on disk; false: in memory, until the daemon ends",
    ),
    row(
        "ipc.read_receipts",
        Kind::Bool,
        Preset::Bool(true),
        false,
        "tell senders that ask for it when a message was acknowledged here",
    ),
    int(
        "ipc.max_client_queue",
        (1, 65_536),
        1_024,
        "lines",
        true,
        "lines waiting for a client that does not read",
    ),
    row(
        "ipc.token_path",
        Kind::Path,
        Preset::None,
        false,
        "the file with the client token; <root>/ipc-token without it",
    ),
    int("outbox.messages_max", (0, 1_000_000), 10_000, "messages", false, "messages held for all peers"),
    int("outbox.bytes_max", (65_536, 1_073_741_824), 67_108_864, "bytes", false, "their bytes"),
    int(
        "outbox.per_peer_messages_max",
        (1, 1_000_000),
        1_000,
        "messages",
        false,
        "messages held for one peer",
    ),
    int(
        "outbox.hold_secs_max",
        (1, 2_592_000),
        2_592_000,
        "seconds",
        false,
        "longest time that a message may be held for",
    ),
    row(
        "agent.agent_name",
        NAME,
        Preset::None,
        false,
        "capabilities told while no agent says otherwise: a name",
    ),
    row("agent.domains", Kind::List, Preset::None, false, "capabilities: domains that are served"),
    row("agent.channels", Kind::List, Preset::None, false, "capabilities: channels"),
    row("agent.tools", Kind::List, Preset::None, false, "capabilities: tools"),
    row(
        "agent.max_concurrent_tasks",
        Kind::Int { min: 0, max: 1_000_000 },
        Preset::None,
        false,
        "capabilities: tasks taken at once",
    ),
    row(
        "agent.model",
        Kind::Text { bytes_max: 256 },
        Preset::None,
        false,
        "capabilities: the model behind the agent",
    ),
    names("policy.unknown.kinds", Names::Kinds, POLICY_KINDS),
    names("policy.unknown.domains", Names::Domains, POLICY_DOMAINS),
    rate("policy.unknown.messages_per_minute", 30, "messages of one peer in a minute; 0: no limit"),
    policy("policy.unknown.bytes_per_minute", 1_073_741_824, 0, "bytes", POLICY_BYTES),
    policy("policy.unknown.in_flight_max", OPEN_MAX, 4, "requests", POLICY_IN_FLIGHT),
    policy("policy.unknown.payload_bytes_max", MESSAGE_MAX, 0, "bytes", POLICY_PAYLOAD),
    rate("policy.unknown.level_messages_per_minute", 120, POLICY_LEVEL),
    names("policy.known.kinds", Names::Kinds, POLICY_KINDS),
    names("policy.known.domains", Names::Domains, POLICY_DOMAINS),
    rate("policy.known.messages_per_minute", 0, "messages of one peer in a minute; 0: no limit"),
    policy("policy.known.bytes_per_minute", 1_073_741_824, 0, "bytes", POLICY_BYTES),
    policy("policy.known.in_flight_max", OPEN_MAX, 256, "requests", POLICY_IN_FLIGHT),
    policy("policy.known.payload_bytes_max", MESSAGE_MAX, 0, "bytes", POLICY_PAYLOAD),
    rate("policy.known.level_messages_per_minute", 0, POLICY_LEVEL),
    names("policy.trusted.kinds", Names::Kinds, POLICY_KINDS),
    names("policy.trusted.domains", Names::Domains, POLICY_DOMAINS),
    rate("policy.trusted.messages_per_minute", 0, "messages of one peer in a minute; 0: no limit"),
    policy("policy.trusted.bytes_per_minute", 1_073_741_824, 0, "bytes", POLICY_BYTES),
    policy("policy.trusted.in_flight_max", OPEN_MAX, 256, "requests", POLICY_IN_FLIGHT),
    policy("policy.trusted.payload_bytes_max", MESSAGE_MAX, 0, "bytes", POLICY_PAYLOAD),
    rate("policy.trusted.level_messages_per_minute", 0, POLICY_LEVEL),
    row(
        "knock.open",
        Kind::Bool,
        Preset::Bool(false),
        false,
        "let strangers knock without an invite; you approve or deny them",
    ),
    names(
        "knock.intents",
        Names::Intents,
        "what knocks may be for, category or category/action; all without it",
    ),
    names("knock.allow", Names::Agents, "agents that are let in at once when they knock, at level known"),
    rate("knock.per_minute", 30, "knocks of all strangers together in a minute; 0: no limit"),
    row(
        "knock.accept_rekey",
        Kind::Bool,
        Preset::Bool(false),
        false,
        "take on a known peer's new key, signed with its old one, without asking you",
    ),
    row(
        "topics.enabled",
        Kind::Bool,
        Preset::Bool(true),
        true,
        "publish and subscribe: offer the feature to peers and to clients",
    ),
    row(
        "topics.relay",
        Kind::Names(Names::Topics),
        Preset::Names(&[">"]),
        false,
        "topics that are passed on though nobody here has subscribed",
    ),
    row(
        "presence.enabled",
        Kind::Bool,
        Preset::Bool(true),
        true,
        "tell peers how this agent is, and hear it of them",
    ),
    row(
        "presence.findable",
        Kind::Word(&["known", "trusted", "nobody"]),
        Preset::Word("known"),
        false,
        "whom neighbours tell of this agent: those whom they know, those whom they trust, nobody",
    ),
];

/// The keys of one `[[peers]]` entry.
pub const PEER_KEYS: &[&str] = &["agent_id", "addr", "pubkey", "name"];

/// The keys of one `[[topics.rules]]` entry.
pub const TOPIC_RULE_KEYS: &[&str] = &[
    "filter",
    "publish",
    "subscribe",
    "relay",
    "bytes_max",
    "messages_per_minute",
    "relay_messages_per_minute",
];

/// The list of those entries.
pub const TOPIC_RULES: &str = "topics.rules";

/// The tables that the file may have, apart from `[[peers]]` and `[[topics.rules]]`.
pub const TABLES: &[&str] = &[
    "ipc",
    "outbox",
    "agent",
    "policy",
    "policy.unknown",
    "policy.known",
    "policy.trusted",
    "knock",
    "topics",
    "presence",
];

/// The table whose unknown keys are told to peers as they are.
pub const FREE_TABLE: &str = "agent";

const OPEN_MAX: u64 = limits::OPEN_PER_PEER_MAX as u64;
const MESSAGE_MAX: u64 = limits::MESSAGE_BYTES_MAX as u64;
const POLICY_KINDS: &str =
    "kinds that peers of the level may send, or *; without it those meant for the level";
const POLICY_DOMAINS: &str = "domains that they may ask about, with all below each; all without it";
const POLICY_BYTES: &str = "bytes of one peer in a minute; 0: no limit";
const POLICY_IN_FLIGHT: &str = "requests of one peer that wait for an answer; 0: no limit";
const POLICY_PAYLOAD: &str = "bytes of one payload; 0: no limit";
const POLICY_LEVEL: &str = "messages of all peers of the level in a minute; 0: no limit";

const NAME: Kind = Kind::Text { bytes_max: limits::NAME_BYTES_MAX };

/// The row of a key. Keys of the free table that have none of their own take anything.
pub fn find(key: &str) -> Option<&'static Setting> {
    const FREE: Setting = row("agent.*", Kind::Any, Preset::None, false, "a capability of your own");
    if let Some(row) = SETTINGS.iter().find(|row| row.key == key) {
        return Some(row);
    }
    let leaf = key.strip_prefix(FREE_TABLE)?.strip_prefix('.')?;
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (!leaf.is_empty() && leaf.bytes().all(bare)).then_some(&FREE)
}

/// The known key that is most like an unknown one, if any is like it.
pub fn nearest(unknown: &str) -> Option<&'static str> {
    let leaf = |key: &'static str| key.rsplit_once('.').map_or(key, |(_, leaf)| leaf);
    let unknown_leaf = unknown.rsplit_once('.').map_or(unknown, |(_, leaf)| leaf);
    let known =
        || SETTINGS.iter().map(|row| row.key).chain(["peers", TOPIC_RULES]).chain(TABLES.iter().copied());
    let far = |key: &&'static str| distance(unknown, key);
    // A right key in the wrong table is the nearest of all.
    if let Some(key) = known().filter(|key| leaf(key) == unknown_leaf && *key != unknown).min_by_key(far) {
        return Some(key);
    }
    // So is one with its unit left out.
    let cut = |key: &&'static str| unknown_leaf.len() >= 4 && leaf(key).starts_with(unknown_leaf);
    if let Some(key) = known().filter(cut).min_by_key(far) {
        return Some(key);
    }
    let whole = known().map(|key| (distance(unknown, key), key));
    let in_other_table = known().map(|key| (distance(unknown_leaf, leaf(key)) + 1, key));
    most_like(unknown, whole.chain(in_other_table))
}

/// What to say to somebody who wrote a key that there is not.
pub fn hint(unknown: &str) -> String {
    if TABLES.contains(&unknown) {
        return format!("\"{unknown}\" is a table: `axon config --list` shows its keys");
    }
    let of_level = unknown.strip_prefix("policy.").map(|rest| rest.split('.').next().unwrap_or(rest));
    match (nearest(unknown), of_level) {
        (_, Some("blocked")) => "who is blocked is not heard at all, and needs no policy".to_owned(),
        (Some(near), _) => format!("did you mean \"{near}\"?"),
        (None, Some(_)) => "the levels with a policy are unknown, known and trusted".to_owned(),
        (None, None) => "`axon config --list` shows all keys".to_owned(),
    }
}

/// The one of these keys that is most like an unknown one, if any is like it.
pub fn nearest_of(unknown: &str, keys: &[&'static str]) -> Option<&'static str> {
    most_like(unknown, keys.iter().map(|key| (distance(unknown, key), *key)))
}

/// What a key takes, for a person.
pub fn expects(kind: Kind) -> String {
    match kind {
        Kind::Int { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Bool => "true or false".to_owned(),
        Kind::Text { bytes_max } => format!("a text of 1 to {bytes_max} bytes without control characters"),
        Kind::Addr => "an IP address without a port, such as \"127.0.0.1\" or \"::1\"".to_owned(),
        Kind::Path => "a file's path".to_owned(),
        Kind::Word(words) => format!("one of {}", words.join(", ")),
        Kind::List => "a list of texts, such as [\"one\", \"two\"]".to_owned(),
        Kind::Names(names) => super::policy::expects(names),
        Kind::Any => "something that JSON can say".to_owned(),
    }
}

const fn row(key: &'static str, kind: Kind, preset: Preset, restart: bool, doc: &'static str) -> Setting {
    Setting { key, kind, preset, unit: "", restart, doc }
}

const fn int(
    key: &'static str,
    (min, max): (u64, u64),
    preset: u64,
    unit: &'static str,
    restart: bool,
    doc: &'static str,
) -> Setting {
    Setting { key, kind: Kind::Int { min, max }, preset: Preset::Int(preset), unit, restart, doc }
}

const fn names(key: &'static str, names: Names, doc: &'static str) -> Setting {
    row(key, Kind::Names(names), Preset::None, false, doc)
}

const fn policy(key: &'static str, max: u64, preset: u64, unit: &'static str, doc: &'static str) -> Setting {
    int(key, (0, max), preset, unit, false, doc)
}

const fn rate(key: &'static str, preset: u64, doc: &'static str) -> Setting {
    policy(key, 1_000_000, preset, "messages", doc)
}

/// The candidate at the least distance, if that is less than half of what was written.
fn most_like(unknown: &str, candidates: impl Iterator<Item = (usize, &'static str)>) -> Option<&'static str> {
    let (distance, key) = candidates.min_by_key(|(distance, _)| *distance)?;
    (distance <= 3.min(unknown.chars().count().div_ceil(2))).then_some(key)
}

/// Letters to insert, drop, change or swap with a neighbour to make one text of the other.
fn distance(from: &str, to: &str) -> usize {
    // Nobody mistypes more than this, and the table grows with the square.
    let from: Vec<char> = from.chars().take(64).collect();
    let to: Vec<char> = to.chars().take(64).collect();
    let width = to.len() + 1;
    let mut cost: Vec<usize> = (0..width).collect();
    let mut rows = vec![cost.clone()];
    for (i, a) in from.iter().enumerate() {
        cost = vec![i + 1; width];
        for (j, b) in to.iter().enumerate() {
            let changed = rows[i][j] + usize::from(a != b);
            let mut best = changed.min(rows[i][j + 1] + 1).min(cost[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            cost[j + 1] = best;
        }
        rows.push(cost.clone());
    }
    cost[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_how_many_letters_must_change() {
        for (a, b, expected) in
            [("", "", 0), ("port", "port", 0), ("prot", "port", 1), ("por", "port", 1), ("", "abc", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn typos_find_their_key() {
        for (typo, key) in [
            ("prot", Some("port")),
            ("Port", Some("port")),
            ("max_conections", Some("max_connections")),
            ("keepalive", Some("keepalive_secs")),
            ("ipc.token", Some("ipc.token_path")),
            ("keepalive_sec", Some("keepalive_secs")),
            ("buffer_size", Some("ipc.buffer_size")),
            ("ipc.bufer_size", Some("ipc.buffer_size")),
            ("ipc.port", Some("port")),
            ("outbox.messages", Some("outbox.messages_max")),
            ("hold_secs", Some("outbox.hold_secs_max")),
            ("outbux", Some("outbox")),
            ("ipc.read_receipt", Some("ipc.read_receipts")),
            ("durable", Some("ipc.durable")),
            ("peer", Some("peers")),
            ("policy", Some("policy")),
            ("knock", Some("knock")),
            ("polices", Some("policy")),
            ("knock.opne", Some("knock.open")),
            ("policy.known.kind", Some("policy.known.kinds")),
            ("policy.knwon.kinds", Some("policy.known.kinds")),
            ("policy.trusted.in_flight", Some("policy.trusted.in_flight_max")),
            ("topics.rule", Some("topics.rules")),
            ("topic.relay", Some("topics.relay")),
            ("policy.friend", None),
            ("accept_rekey", Some("knock.accept_rekey")),
            ("x", None),
        ] {
            assert_eq!(nearest(typo), key, "{typo}");
        }
        assert_eq!(nearest_of("pub_key", PEER_KEYS), Some("pubkey"));
        assert_eq!(nearest_of("address", PEER_KEYS), Some("addr"));
        assert_eq!(nearest_of("trust", PEER_KEYS), None);
    }

    #[test]
    fn keys_of_the_free_table_are_found() {
        assert_eq!(find("agent.model").map(|row| row.key), Some("agent.model"));
        assert_eq!(find("agent.languages").map(|row| row.kind), Some(Kind::Any));
        assert!(find("agent.").is_none() && find("agent.a.b").is_none() && find("agents").is_none());
    }
}
