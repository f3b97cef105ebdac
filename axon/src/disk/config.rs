//! `config.toml`, read: settings with their ranges, static peers, and errors that say where and what.
//!
//! Source: `spec/SPEC.md`, "Settings". The rows are in [`super::settings`]; changing the file is in
//! [`super::edit`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};

use axon_proto::id::AgentId;
use axon_proto::kinds::topics::rules::TopicSettings;
use axon_proto::limits;
use axon_proto::node::{KnockSettings, OutboxSettings, Settings, StaticPeer};
use axon_proto::trust::{Findable, Policies, PresenceSettings};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use toml_edit::{Document, Item, TableLike, Value};

use super::fault::{self, Call};
use super::page::{Entry, Page};
use super::policy;
use super::root::Root;
use super::settings::{self, Kind};
use super::topics;

/// The file, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 4_194_304;
/// A host name, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// What `config.toml` says, with the defaults for what it does not say.
#[derive(Debug, Clone)]
pub struct Config {
    /// `port`; 0 takes any free one.
    pub port: u16,
    /// Whether the file names a port.
    pub port_is_set: bool,
    /// `bind`; none for all interfaces, IPv4 and IPv6.
    pub bind: Option<IpAddr>,
    /// `name`.
    pub name: Option<String>,
    /// `mdns`.
    pub mdns: bool,
    /// `pipe`.
    pub pipe: bool,
    /// `max_ipc_clients`.
    pub max_ipc_clients: usize,
    /// `max_connections`.
    pub max_connections: usize,
    /// `keepalive_secs`, less than `idle_timeout_secs`.
    pub keepalive_secs: u64,
    /// `idle_timeout_secs`.
    pub idle_timeout_secs: u64,
    /// `reconnect_max_backoff_secs`.
    pub reconnect_max_backoff_secs: u64,
    /// `handshake_timeout_secs`.
    pub handshake_timeout_secs: u64,
    /// `inbound_read_timeout_secs`.
    pub inbound_read_timeout_secs: u64,
    /// `ipc.allow_v1`.
    pub allow_v1: bool,
    /// `ipc.buffer_size`.
    pub buffer_size: usize,
    /// `ipc.buffer_ttl_secs`.
    pub buffer_ttl_secs: u64,
    /// `ipc.buffer_byte_cap`.
    pub buffer_byte_cap: usize,
    /// `ipc.durable`.
    pub durable: bool,
    /// `ipc.read_receipts`.
    pub read_receipts: bool,
    /// `[outbox]`.
    pub outbox: OutboxSettings,
    /// `ipc.max_client_queue`, in lines.
    pub max_client_queue: usize,
    /// `ipc.token_path`, as written.
    pub token_path: Option<PathBuf>,
    /// `[agent]` as one JSON object.
    pub agent: Option<Box<RawValue>>,
    /// `[policy.<level>]`.
    pub policies: Policies,
    /// `[knock]`.
    pub knock: KnockSettings,
    /// `[topics]` and `[[topics.rules]]`.
    pub topics: TopicSettings,
    /// `[presence]`.
    pub presence: PresenceSettings,
    /// `[[peers]]`.
    pub peers: Vec<StaticPeer>,
    pub(crate) file: PathBuf,
    pub(crate) peer_spots: Vec<Spot>,
}

/// A place in the file, both counted from 1; the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Spot {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// Why the file is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read at all.
    #[error("cannot read {}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// Something in it is wrong.
    #[error(
        "{}, line {}, column {}: {}{message}",
        path.display(),
        spot.line,
        spot.column,
        key.as_ref().map_or_else(String::new, |key| format!("{key}: "))
    )]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where.
        spot: Spot,
        /// Under which key, where it is about one.
        key: Option<String>,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl ConfigError {
    /// Where in the file.
    pub fn spot(&self) -> Option<Spot> {
        match self {
            Self::Wrong { spot, .. } => Some(*spot),
            Self::Unreadable { .. } => None,
        }
    }

    /// Under which key.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Wrong { key, .. } => key.as_deref(),
            Self::Unreadable { .. } => None,
        }
    }
}

impl Config {
    /// The settings in this file; all defaults when there is none.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path)?.unwrap_or_default();
        Self::parse(&text, path)
    }

    /// The settings in this text; the path is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Reader { page: Page { text, path } }.read()
    }

    /// Refuses a file that names this agent as its own peer.
    pub fn check_own(&self, own: AgentId) -> Result<(), ConfigError> {
        let Some(at) = self.peers.iter().position(|peer| peer.agent_id == own) else { return Ok(()) };
        Err(ConfigError::Wrong {
            path: self.file.clone(),
            spot: self.peer_spots.get(at).copied().unwrap_or(Spot { line: 1, column: 1 }),
            key: Some("peers.agent_id".to_owned()),
            message: format!("{own} is this agent itself: name the other one, or remove the entry"),
        })
    }

    /// What the node needs to know.
    pub fn node_settings(&self, ipc_token: Option<String>) -> Settings {
        Settings {
            name: self.name.clone(),
            peers: self.peers.clone(),
            max_connections: self.max_connections,
            max_ipc_clients: self.max_ipc_clients,
            handshake_timeout_secs: self.handshake_timeout_secs,
            reconnect_max_backoff_secs: self.reconnect_max_backoff_secs,
            allow_v1: self.allow_v1,
            buffer_size: self.buffer_size,
            buffer_ttl_secs: self.buffer_ttl_secs,
            buffer_byte_cap: self.buffer_byte_cap,
            durable: self.durable,
            pipe: self.pipe,
            read_receipts: self.read_receipts,
            outbox: self.outbox,
            agent: self.agent.clone(),
            policies: self.policies.clone(),
            topics: self.topics.clone(),
            presence: self.presence,
            keepalive_secs: self.keepalive_secs,
            knock: self.knock.clone(),
            ipc_token,
        }
    }

    /// Where the client token is.
    pub fn token_path(&self, root: &Root) -> PathBuf {
        self.token_path.as_ref().map_or_else(|| root.token(), |path| root.dir().join(path))
    }

    /// The addresses to bind, best first: the second is for a system without the first one's family.
    pub fn bind_addrs(&self, port: u16) -> Vec<SocketAddr> {
        match self.bind {
            Some(addr) => vec![SocketAddr::new(addr, port)],
            None => vec![
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
            ],
        }
    }

    fn apply(&mut self, key: &str, value: Taken) {
        // Each number has been checked against a range that its field holds.
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        match (key, value) {
            ("port", Taken::Int(n)) => {
                self.port = u16::try_from(n).unwrap_or_default();
                self.port_is_set = true;
            }
            ("bind", Taken::Addr(addr)) => self.bind = Some(addr),
            ("name", Taken::Text(text)) => self.name = Some(text),
            ("mdns", Taken::Bool(yes)) => self.mdns = yes,
            ("pipe", Taken::Bool(yes)) => self.pipe = yes,
            ("max_ipc_clients", Taken::Int(n)) => self.max_ipc_clients = size(n),
            ("max_connections", Taken::Int(n)) => self.max_connections = size(n),
            ("keepalive_secs", Taken::Int(n)) => self.keepalive_secs = n,
            ("idle_timeout_secs", Taken::Int(n)) => self.idle_timeout_secs = n,
            ("reconnect_max_backoff_secs", Taken::Int(n)) => self.reconnect_max_backoff_secs = n,
            ("handshake_timeout_secs", Taken::Int(n)) => self.handshake_timeout_secs = n,
            ("inbound_read_timeout_secs", Taken::Int(n)) => self.inbound_read_timeout_secs = n,
            ("ipc.allow_v1", Taken::Bool(yes)) => self.allow_v1 = yes,
            ("ipc.buffer_size", Taken::Int(n)) => self.buffer_size = size(n),
            ("ipc.buffer_ttl_secs", Taken::Int(n)) => self.buffer_ttl_secs = n,
            ("ipc.buffer_byte_cap", Taken::Int(n)) => self.buffer_byte_cap = size(n),
            ("ipc.durable", Taken::Bool(yes)) => self.durable = yes,
            ("ipc.read_receipts", Taken::Bool(yes)) => self.read_receipts = yes,
            ("outbox.messages_max", Taken::Int(n)) => self.outbox.messages_max = size(n),
            ("outbox.bytes_max", Taken::Int(n)) => self.outbox.bytes_max = size(n),
            ("outbox.per_peer_messages_max", Taken::Int(n)) => self.outbox.per_peer_messages_max = size(n),
            ("outbox.hold_secs_max", Taken::Int(n)) => self.outbox.hold_secs_max = n,
            ("ipc.max_client_queue", Taken::Int(n)) => self.max_client_queue = size(n),
            ("ipc.token_path", Taken::Text(text)) => self.token_path = Some(text.into()),
            ("presence.enabled", Taken::Bool(yes)) => self.presence.enabled = yes,
            ("presence.findable", Taken::Text(text)) => {
                // It is one of the words of the row.
                self.presence.findable = Findable::parse(&text).unwrap_or(self.presence.findable);
            }
            (key, value) if key.starts_with("topics.") => topics::apply(&mut self.topics, key, value),
            // `[agent]` is taken as a whole.
            (_, value) => _ = policy::apply(&mut self.policies, &mut self.knock, key, value),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let node = Settings::default();
        Self {
            port: limits::PORT_DEFAULT,
            port_is_set: false,
            bind: None,
            name: node.name,
            mdns: true,
            pipe: node.pipe,
            max_ipc_clients: node.max_ipc_clients,
            max_connections: node.max_connections,
            keepalive_secs: node.keepalive_secs,
            idle_timeout_secs: 60,
            reconnect_max_backoff_secs: node.reconnect_max_backoff_secs,
            handshake_timeout_secs: node.handshake_timeout_secs,
            inbound_read_timeout_secs: 10,
            allow_v1: node.allow_v1,
            buffer_size: node.buffer_size,
            buffer_ttl_secs: node.buffer_ttl_secs,
            buffer_byte_cap: node.buffer_byte_cap,
            durable: node.durable,
            read_receipts: node.read_receipts,
            outbox: node.outbox,
            max_client_queue: 1_024,
            token_path: None,
            agent: None,
            policies: node.policies,
            knock: node.knock,
            topics: node.topics,
            presence: node.presence,
            peers: Vec::new(),
            file: PathBuf::new(),
            peer_spots: Vec::new(),
        }
    }
}

/// Whether a name could be taken for the beginning of an agent id, which peers may also be called by.
pub fn looks_like_id(name: &str) -> bool {
    let hex = name.len() >= 4 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let typed = name.split_at_checked(AgentId::PREFIX.len());
    hex || typed.is_some_and(|(prefix, _)| prefix.eq_ignore_ascii_case(AgentId::PREFIX))
}

/// The file's text; none when there is no file.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, ConfigError> {
    let unreadable = |why: String| ConfigError::Unreadable { path: path.to_owned(), why };
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    if !about.is_file() {
        return Err(unreadable("it is no regular file".to_owned()));
    }
    fault::before(Call::Read, path).map_err(|error| unreadable(error.to_string()))?;
    if about.len() > CONFIG_BYTES_MAX {
        return Err(unreadable(format!("it is longer than {CONFIG_BYTES_MAX} bytes")));
    }
    let bytes = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
        ConfigError::Wrong {
            path: path.to_owned(),
            spot: spot(&before, good),
            key: None,
            message: "this is not UTF-8: save the file as UTF-8".to_owned(),
        }
    })
}

/// A value that a row has taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Taken {
    Int(u64),
    Bool(bool),
    Text(String),
    Addr(IpAddr),
    Names(Vec<String>),
    Json(Json),
}

impl Taken {
    /// The value as JSON shows it.
    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::Int(n) => Json::from(*n),
            Self::Bool(yes) => Json::from(*yes),
            Self::Text(text) => Json::from(text.as_str()),
            Self::Addr(addr) => Json::from(addr.to_string()),
            Self::Names(names) => Json::from(names.as_slice()),
            Self::Json(json) => json.clone(),
        }
    }
}

/// The value if it is what the row wants, else what would be.
pub(crate) fn take(kind: Kind, item: &Item) -> Result<Taken, String> {
    let wrong = || {
        let found = match item {
            Item::Value(Value::String(text)) => format!("the text {:?}", shortened(text.value())),
            Item::Value(Value::Integer(n)) => format!("{}", n.value()),
            Item::Value(Value::Boolean(yes)) => format!("{}", yes.value()),
            other => format!("a value of the type {}", other.type_name()),
        };
        format!("must be {}, and is {found}", settings::expects(kind))
    };
    match kind {
        Kind::Int { min, max } => {
            let n = item.as_integer().and_then(|n| u64::try_from(n).ok()).ok_or_else(wrong)?;
            if (min..=max).contains(&n) { Ok(Taken::Int(n)) } else { Err(wrong()) }
        }
        Kind::Bool => item.as_bool().map(Taken::Bool).ok_or_else(wrong),
        Kind::Text { bytes_max } => {
            let text = item.as_str().ok_or_else(wrong)?;
            if is_line(text, bytes_max) { Ok(Taken::Text(text.to_owned())) } else { Err(wrong()) }
        }
        Kind::Addr => {
            let text = item.as_str().ok_or_else(wrong)?;
            let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
            bare.parse().map(Taken::Addr).map_err(|_| wrong())
        }
        Kind::Path => {
            let text = item.as_str().ok_or_else(wrong)?;
            if is_line(text, 4_096) { Ok(Taken::Text(text.to_owned())) } else { Err(wrong()) }
        }
        Kind::Word(words) => {
            let word = item.as_str().filter(|text| words.contains(text)).ok_or_else(wrong)?;
            Ok(Taken::Text(word.to_owned()))
        }
        Kind::List => {
            let list = item.as_array().ok_or_else(wrong)?;
            let texts: Option<Vec<Json>> = list
                .iter()
                .map(|value| {
                    value.as_str().filter(|text| is_line(text, limits::DOMAIN_BYTES_MAX)).map(Json::from)
                })
                .collect();
            texts.map(|texts| Taken::Json(Json::Array(texts))).ok_or_else(wrong)
        }
        Kind::Names(sort) => {
            let list = item.as_array().ok_or_else(wrong)?;
            let names: Vec<&str> = list.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(wrong)?;
            policy::check_names(sort, &names)?;
            Ok(Taken::Names(names.into_iter().map(str::to_owned).collect()))
        }
        Kind::Any => to_json(item).map(Taken::Json).ok_or_else(wrong),
    }
}

/// Where a byte of the text is.
pub(super) fn spot(text: &str, byte: usize) -> Spot {
    let mut end = byte.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Spot { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// One reading of one text.
struct Reader<'a> {
    page: Page<'a>,
}

impl Reader<'_> {
    fn read(&self) -> Result<Config, ConfigError> {
        let document = self.page.document()?;
        let mut config = Config { file: self.page.path.to_owned(), ..Config::default() };
        for (key, item) in document.iter() {
            let span = document.key(key).and_then(|key| key.span());
            match key {
                "peers" => self.read_peers(item, &mut config)?,
                table if settings::TABLES.contains(&table) => {
                    self.read_table(key, span.clone(), item, &mut config)?;
                    if key == settings::FREE_TABLE {
                        config.agent = Some(self.agent(item, span)?);
                    }
                }
                _ => self.read_value(key, span, item, &mut config)?,
            }
        }
        self.check_together(&document, &config)?;
        Ok(config)
    }

    fn read_table(
        &self,
        name: &str,
        span: Option<Range<usize>>,
        table: &Item,
        config: &mut Config,
    ) -> Result<(), ConfigError> {
        let Some(table) = table.as_table_like() else {
            return Err(self.page.wrong(span, Some(name), format!("must be a table: write [{name}]")));
        };
        for (key, item) in table.iter() {
            let span = table.key(key).and_then(|key| key.span());
            let full = format!("{name}.{key}");
            if settings::TABLES.contains(&full.as_str()) {
                self.read_table(&full, span, item, config)?;
                continue;
            }
            if full == settings::TOPIC_RULES {
                config.topics.rules = topics::read_rules(&self.page, item)?;
                continue;
            }
            // What the free table holds under quoted keys has no row, and is checked as a whole.
            if name == settings::FREE_TABLE && settings::find(&full).is_none() {
                continue;
            }
            self.read_value(&full, span, item, config)?;
        }
        Ok(())
    }

    fn read_value(
        &self,
        key: &str,
        key_span: Option<Range<usize>>,
        item: &Item,
        config: &mut Config,
    ) -> Result<(), ConfigError> {
        let Some(row) = settings::find(key) else {
            let message = format!("there is no such key; {}", settings::hint(key));
            return Err(self.page.wrong(key_span, Some(key), message));
        };
        let value = take(row.kind, item)
            .map_err(|message| self.page.wrong(item.span().or(key_span), Some(key), message))?;
        config.apply(key, value);
        Ok(())
    }

    /// What depends on two keys, told at the one that the file has.
    fn check_together(&self, document: &Document<&str>, config: &Config) -> Result<(), ConfigError> {
        if config.keepalive_secs < config.idle_timeout_secs {
            return Ok(());
        }
        let key =
            if document.contains_key("keepalive_secs") { "keepalive_secs" } else { "idle_timeout_secs" };
        let message = format!(
            "keepalive_secs ({}) must be less than idle_timeout_secs ({}), or idle connections are lost",
            config.keepalive_secs, config.idle_timeout_secs
        );
        Err(self.page.wrong(document.get(key).and_then(Item::span), Some(key), message))
    }

    fn agent(&self, item: &Item, span: Option<Range<usize>>) -> Result<Box<RawValue>, ConfigError> {
        let fail =
            |message: &str| self.page.wrong(span.clone(), Some(settings::FREE_TABLE), message.to_owned());
        let json = to_json(item).ok_or_else(|| fail("holds a number that JSON cannot say (nan or inf)"))?;
        let text = json.to_string();
        if text.len() > limits::CAPABILITIES_BYTES_MAX {
            let most = limits::CAPABILITIES_BYTES_MAX;
            return Err(fail(&format!("is {} bytes as JSON, and may be {most}: say less", text.len())));
        }
        RawValue::from_string(text).map_err(|_| fail("cannot be said in JSON"))
    }

    fn read_peers(&self, item: &Item, config: &mut Config) -> Result<(), ConfigError> {
        let mut ids = HashMap::new();
        let mut names = HashMap::new();
        for (index, entry) in self.page.entries("peers", item)?.iter().enumerate() {
            let (peer, spots) = self.read_peer(entry)?;
            if index >= limits::STATIC_PEERS_MAX {
                let message = format!("there are more than {} peers", limits::STATIC_PEERS_MAX);
                return Err(self.page.wrong_at(spots.id, "peers", message));
            }
            if let Some(line) = ids.insert(peer.agent_id, spots.id.line) {
                let message = format!("the peer of line {line} again: remove one of the two");
                return Err(self.page.wrong_at(spots.id, "peers.agent_id", message));
            }
            if let Some(name) = &peer.name
                && let Some(line) = names.insert(name.clone(), spots.name.line)
            {
                let message = format!("the name of the peer of line {line}: give each its own");
                return Err(self.page.wrong_at(spots.name, "peers.name", message));
            }
            config.peer_spots.push(spots.id);
            config.peers.push(peer);
        }
        Ok(())
    }

    fn read_peer(&self, entry: &Entry<'_, '_>) -> Result<(StaticPeer, PeerSpots), ConfigError> {
        entry.check_keys(settings::PEER_KEYS, "peer")?;
        let needs = "a peer needs agent_id, addr and pubkey";
        let (id_text, id_span) = entry.needed("agent_id", needs)?;
        let (key_text, key_span) = entry.needed("pubkey", needs)?;
        let (addr, addr_span) = entry.needed("addr", needs)?;
        let agent_id = entry.agent_id(id_text, id_span.clone())?;
        let pubkey = entry.pubkey(key_text, key_span, agent_id)?;
        check_addr(addr).map_err(|message| entry.wrong(addr_span, "addr", message))?;
        let (mut name, mut name_spot) = (None, self.page.spot(id_span.clone()));
        if let Some((text, span)) = entry.text("name")? {
            check_peer_name(text).map_err(|message| entry.wrong(span.clone(), "name", message))?;
            name = Some(text.to_owned());
            name_spot = self.page.spot(span);
        }
        let peer = StaticPeer { agent_id, pubkey, addr: addr.to_owned(), name };
        Ok((peer, PeerSpots { id: self.page.spot(id_span), name: name_spot }))
    }
}

struct PeerSpots {
    id: Spot,
    name: Spot,
}

/// What is wrong with a `host:port`, if anything.
pub(super) fn check_addr(addr: &str) -> Result<(), String> {
    let need =
        "must be an IP address or a host name with a port, such as \"192.0.2.7:7100\" or \"[::1]:7100\"";
    let no_zero = |port: u16| {
        if port == 0 { Err("names port 0, where nobody can be reached".to_owned()) } else { Ok(()) }
    };
    if let Ok(addr) = addr.parse::<SocketAddr>() {
        return no_zero(addr.port());
    }
    if addr.parse::<IpAddr>().is_ok() {
        let shown = if addr.contains(':') { format!("[{addr}]") } else { addr.to_owned() };
        return Err(format!("has no port: write \"{shown}:{}\"", limits::PORT_DEFAULT));
    }
    let Some((host, port)) = addr.rsplit_once(':') else {
        return Err(format!("has no port: {need}"));
    };
    let port: u16 = port.parse().map_err(|_| need.to_owned())?;
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(letters) {
        return Err(need.to_owned());
    }
    no_zero(port)
}

/// What is wrong with a peer's name, if anything.
pub(super) fn check_peer_name(name: &str) -> Result<(), String> {
    if !is_line(name, limits::NAME_BYTES_MAX) {
        return Err(format!("must be 1 to {} bytes without control characters", limits::NAME_BYTES_MAX));
    }
    if looks_like_id(name) {
        return Err(
            "looks like the beginning of an agent id, by which peers are also called: choose another"
                .to_owned(),
        );
    }
    Ok(())
}

pub(super) fn is_line(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.contains(char::is_control)
}

pub(super) fn shortened(text: &str) -> String {
    if text.chars().count() <= 40 { text.to_owned() } else { text.chars().take(40).chain(['…']).collect() }
}

/// A TOML item as JSON; dates become texts. None for numbers that JSON does not have.
pub(crate) fn to_json(item: &Item) -> Option<Json> {
    // The parser bounds how deep this goes.
    match item {
        Item::None => None,
        Item::Value(value) => value_to_json(value),
        Item::Table(table) => table_to_json(table),
        Item::ArrayOfTables(tables) => {
            tables.iter().map(|table| table_to_json(table)).collect::<Option<_>>().map(Json::Array)
        }
    }
}

fn table_to_json(table: &dyn TableLike) -> Option<Json> {
    let pairs: Option<serde_json::Map<String, Json>> =
        table.iter().map(|(key, item)| Some((key.to_owned(), to_json(item)?))).collect();
    pairs.map(Json::Object)
}

fn value_to_json(value: &Value) -> Option<Json> {
    match value {
        Value::String(text) => Some(Json::from(text.value().as_str())),
        Value::Integer(n) => Some(Json::from(*n.value())),
        Value::Float(x) => serde_json::Number::from_f64(*x.value()).map(Json::Number),
        Value::Boolean(yes) => Some(Json::from(*yes.value())),
        Value::Datetime(time) => Some(Json::from(time.value().to_string())),
        Value::Array(values) => values.iter().map(value_to_json).collect::<Option<_>>().map(Json::Array),
        Value::InlineTable(table) => table_to_json(table),
    }
}

#[cfg(test)]
mod tests {
    use axon_proto::id::PublicKey;
    use axon_proto::kinds::topics::name::Filter;
    use axon_proto::kinds::topics::rules::{Publisher, Rule};
    use axon_proto::trust::Level;

    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("config.toml"))
    }

    fn peer(n: u8) -> (AgentId, PublicKey) {
        let key = PublicKey([n; 32]);
        (key.agent_id(), key)
    }

    fn block(n: u8, addr: &str, more: &str) -> String {
        let (id, key) = peer(n);
        format!("[[peers]]\nagent_id = \"{id}\"\npubkey = \"{key}\"\naddr = \"{addr}\"\n{more}\n")
    }

    /// The text is refused at this place, under this key, with this in the sentence.
    fn refused(text: &str, line: usize, column: usize, key: &str, part: &str) {
        let error = parse(text).expect_err(text);
        assert_eq!(error.spot(), Some(Spot { line, column }), "{text}\n{error}");
        assert_eq!(error.key().unwrap_or_default(), key, "{text}\n{error}");
        assert!(error.to_string().contains(part), "{text}\n{error}");
    }

    #[test]
    fn no_file_means_defaults_that_are_those_of_the_table() {
        let config = Config::load(Path::new("/nowhere/config.toml")).unwrap();
        let node = config.node_settings(None);
        assert_eq!((config.port, config.port_is_set, config.bind, config.mdns), (7100, false, None, true));
        assert_eq!((node.max_connections, node.max_ipc_clients, node.buffer_size), (128, 64, 1000));
        // Writing every default down changes nothing, and every row reaches its field.
        for row in settings::SETTINGS {
            let (same, other) = match row.preset {
                settings::Preset::Int(n) => {
                    (n.to_string(), if n < 65_535 { n + 1 } else { n - 1 }.to_string())
                }
                settings::Preset::Bool(yes) => (yes.to_string(), (!yes).to_string()),
                settings::Preset::Names(names) => (format!("{names:?}"), "[]".to_owned()),
                settings::Preset::Word(word) => (format!("{word:?}"), "\"nobody\"".to_owned()),
                settings::Preset::None => continue,
            };
            let shown = |value: &str| {
                let mut config = parse(&format!("{} = {value}", row.key)).unwrap();
                (config.port_is_set, config.file) = (false, PathBuf::new());
                format!("{config:?}")
            };
            assert_eq!(shown(&same), format!("{:?}", Config::default()), "{}", row.key);
            assert_ne!(shown(&other), format!("{:?}", Config::default()), "{}", row.key);
        }
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = format!(
            "port = 0\nbind = \"[::1]\"\nname = \"ann\"\nmdns = false\nkeepalive_secs = \
             5\nidle_timeout_secs = 10\n\
             ipc.token_path = \"t\"\n\n[agent]\nagent_name = \"Ann\"\ndomains = [\"family\"]\nextra = {{ \
              a = 1.5, b = [1979-05-27] }}\n\n{}{}",
            block(1, "192.0.2.7:7100", "name = \"bob\""),
            block(2, "host.example:7100", "")
        );
        let config = parse(&text).unwrap();
        assert_eq!((config.port, config.port_is_set, config.bind), (0, true, Some("::1".parse().unwrap())));
        assert_eq!(config.token_path(&Root::at("/r")), Path::new("/r/t"));
        let node = config.node_settings(Some("token".to_owned()));
        assert_eq!(node.peers.len(), 2);
        assert_eq!(node.peers[0].name.as_deref(), Some("bob"));
        let agent: Json = serde_json::from_str(node.agent.unwrap().get()).unwrap();
        assert_eq!(agent["domains"][0], "family");
        assert_eq!(agent["extra"]["b"][0], "1979-05-27");
        // The same in other words of TOML.
        let inline = format!(
            "ipc = {{ buffer_size = 0 }}\npeers = [{{ agent_id = \"{}\", pubkey = \"{}\", addr = \
             \"[::1]:1\" }}]",
            peer(1).0,
            peer(1).1
        );
        let config = parse(&inline).unwrap();
        assert_eq!((config.buffer_size, config.peers.len()), (0, 1));
    }

    #[test]
    fn policies_are_read_in_every_form_of_table() {
        let id = peer(1).0;
        let headers = format!(
            "[policy.unknown]\nkinds = [\"ping\"]\nmessages_per_minute = 10\n[policy.trusted]\n\
             domains = []\n[knock]\nopen = true\nallow = [\"{id}\"]\nintents = [\"work/review\"]"
        );
        let inline = format!(
            "policy = {{ unknown = {{ kinds = [\"ping\"], messages_per_minute = 10 }}, \
             trusted.domains = [] }}\nknock = {{ open = true, allow = [\"{id}\"], \
             intents = [\"work/review\"] }}"
        );
        let dotted = format!(
            "policy.unknown.kinds = [\"ping\"]\npolicy.unknown.messages_per_minute = 10\n\
             policy.trusted.domains = []\nknock.open = true\nknock.allow = [\"{id}\"]\n\
             knock.intents = [\"work/review\"]"
        );
        for text in [headers, inline, dotted] {
            let node = parse(&text).unwrap().node_settings(None);
            let policies = node.policies;
            assert_eq!(policies.unknown.kinds.as_deref(), Some(&["ping".to_owned()][..]));
            assert_eq!((policies.unknown.messages_per_minute, policies.unknown.in_flight_max), (10, 4));
            assert_eq!(policies.trusted.domains, Some(Vec::new()));
            assert_eq!(policies.known, Policies::default().known);
            let allow = vec![id];
            let intents = Some(vec!["work/review".to_owned()]);
            let expected = KnockSettings { open: true, allow, intents, ..KnockSettings::default() };
            assert_eq!(node.knock, expected);
        }
    }

    #[test]
    fn topics_are_read_in_every_form_of_table() {
        let headers = "[topics]\nenabled = false\nrelay = [\"a.>\", \"b\"]\n[[topics.rules]]\n\
             filter = \"build.>\"\npublish = \"trusted\"\nsubscribe = \"unknown\"\nrelay = \"trusted\"\n\
             bytes_max = 1000\nmessages_per_minute = 0\nrelay_messages_per_minute = 600\n[[topics.rules]]\nfilter = \">\"\n\
             publish = \"stranger\"";
        let inline = "topics = { enabled = false, relay = [\"a.>\", \"b\"], rules = [\
             { filter = \"build.>\", publish = \"trusted\", subscribe = \"unknown\", relay = \"trusted\", \
             bytes_max = 1000, messages_per_minute = 0, relay_messages_per_minute = 600 }, { filter = \">\" }] }";
        let filter = |text: &str| Filter::parse(text).unwrap();
        let build = Rule {
            publish: Publisher::Peer(Level::Trusted),
            subscribe: Level::Unknown,
            relay: Level::Trusted,
            bytes_max: 1_000,
            messages_per_minute: Some(0),
            relay_messages_per_minute: Some(600),
            ..Rule::default_for(filter("build.>"))
        };
        let rules = vec![build, Rule::default_for(filter(">"))];
        let expected = TopicSettings { enabled: false, relay: vec![filter("a.>"), filter("b")], rules };
        for text in [headers, inline] {
            assert_eq!(parse(text).unwrap().node_settings(None).topics, expected, "{text}");
        }
        let dotted = parse("topics.relay = []").unwrap().node_settings(None).topics;
        assert_eq!(dotted, TopicSettings { relay: Vec::new(), ..TopicSettings::default() });
    }

    #[test]
    fn wrong_topics_are_told() {
        refused("presence.findable = \"friends\"", 1, 21, "presence.findable", "one of known, trusted");
        refused("presence.findable = 1", 1, 21, "presence.findable", "one of known, trusted, nobody");
        refused("[presence]\nenable = true", 2, 1, "presence.enable", "\"presence.enabled\"");
        refused("topics = 1", 1, 1, "topics", "write [topics]");
        refused("topics.enabled = 1", 1, 18, "topics.enabled", "true or false");
        refused("[topics]\nrelay = \">\"", 2, 9, "topics.relay", "a list of at most 64 topics");
        refused("[topics]\nrelay = [\"a..b\"]", 2, 9, "topics.relay", "holds \"a..b\"");
        refused("[topics]\nreley = []", 2, 1, "topics.reley", "\"topics.relay\"");
        refused("[topics.rules]\nfilter = \">\"", 1, 1, "topics.rules", "write [[topics.rules]]");
        refused("[topics]\nrules = 3", 2, 9, "topics.rules", "write [[topics.rules]]");
        let rule = |more: &str| format!("[[topics.rules]]\nfilter = \"build.>\"\n{more}");
        refused("[[topics.rules]]\npublish = \"known\"", 2, 1, "topics.rules.filter", "is missing");
        refused("[[topics.rules]]\nfilter = 1", 2, 10, "topics.rules.filter", "text in quotes");
        refused("[[topics.rules]]\nfilter = \">.a\"", 2, 10, "topics.rules.filter", "at the end");
        refused(&rule("publsh = \"known\""), 3, 1, "topics.rules.publsh", "\"publish\"");
        refused(&rule("x = 1"), 3, 1, "topics.rules.x", "a rule has filter, publish");
        let publish = "stranger, unknown, known or trusted, and is \"blocked\"";
        refused(&rule("publish = \"blocked\""), 3, 11, "topics.rules.publish", publish);
        let level = "unknown, known or trusted, and is \"stranger\"";
        refused(&rule("subscribe = \"stranger\""), 3, 13, "topics.rules.subscribe", level);
        refused(&rule("relay = \"stranger\""), 3, 9, "topics.rules.relay", level);
        refused(&rule("bytes_max = 65537"), 3, 13, "topics.rules.bytes_max", "from 0 to 65536");
        let rate = "topics.rules.messages_per_minute";
        refused(&rule("messages_per_minute = -1"), 3, 23, rate, "from 0 to 1000000");
        let many = rule("").repeat(limits::TOPIC_RULES_MAX);
        assert_eq!(parse(&many).unwrap().topics.rules.len(), limits::TOPIC_RULES_MAX);
        let line = limits::TOPIC_RULES_MAX * 2 + 2;
        refused(&(many + &rule("")), line, 1, "topics.rules.filter", "more than 64 rules");
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_place() {
        refused("port = 1\nname = \"open\n", 2, 13, "", "no TOML");
        refused("port 7100", 1, 6, "", "no TOML");
        refused("port = 1\nport = 2\n", 2, 1, "", "duplicate key");
        refused("[ipc\n", 1, 5, "", "no TOML");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, b"name = \"\xc3\xa9\"\n# \xff").unwrap();
        let error = Config::load(&path).unwrap_err();
        assert_eq!(error.spot(), Some(Spot { line: 2, column: 3 }));
        assert!(matches!(Config::load(dir.path()), Err(ConfigError::Unreadable { .. })));
    }

    #[test]
    fn unknown_keys_are_told_with_the_nearest() {
        refused("# é\n  prot = 7100", 2, 3, "prot", "did you mean \"port\"?");
        refused("max_conections = 3", 1, 1, "max_conections", "\"max_connections\"");
        refused("buffer_size = 3", 1, 1, "buffer_size", "\"ipc.buffer_size\"");
        refused("port = 1\n[ipc]\nallow_v2 = true", 3, 1, "ipc.allow_v2", "\"ipc.allow_v1\"");
        refused("ipc.haste = true", 1, 5, "ipc.haste", "--list");
        refused("[outbox]\nmesages_max = 1", 2, 1, "outbox.mesages_max", "\"outbox.messages_max\"");
        refused("[knock]\nx = 1", 2, 1, "knock.x", "no such key");
        refused("[knock]\nopne = true", 2, 1, "knock.opne", "\"knock.open\"");
        refused("[policy.friend]\nx = 1", 1, 9, "policy.friend", "unknown, known and trusted");
        refused("[policy.blocked]\nkinds = []", 1, 9, "policy.blocked", "who is blocked");
        refused("[policy.knwon]\nkinds = []", 1, 9, "policy.knwon", "\"policy.known\"");
        refused("[policy.known]\nkind = []", 2, 1, "policy.known.kind", "\"policy.known.kinds\"");
        refused("[policy.known.kinds]\nx = 1", 1, 1, "policy.known.kinds", "type table");
        refused("[policy]\nkinds = []", 2, 1, "policy.kinds", "\"policy.known.kinds\"");
        refused(&block(1, "a:1", "pub_key = \"x\""), 5, 1, "peers.pub_key", "\"pubkey\"");
        refused(&block(1, "a:1", "trust = 1"), 5, 1, "peers.trust", "agent_id, addr, pubkey, name");
    }

    #[test]
    fn wrong_types_and_ranges_are_told() {
        refused("port = \"7100\"", 1, 8, "port", "from 0 to 65535, and is the text \"7100\"");
        refused("port = 65536", 1, 8, "port", "from 0 to 65535, and is 65536");
        refused("port = -1", 1, 8, "port", "from 0 to 65535");
        refused("port = 1.5", 1, 8, "port", "type float");
        refused("mdns = 1", 1, 8, "mdns", "true or false");
        refused("mdns = \"yes\"", 1, 8, "mdns", "true or false");
        refused("name = \"\"", 1, 8, "name", "1 to 64 bytes");
        refused(&format!("name = \"{}\"", "a".repeat(65)), 1, 8, "name", "1 to 64 bytes");
        refused("name = \"a\\tb\"", 1, 8, "name", "control characters");
        refused("bind = \"localhost\"", 1, 8, "bind", "an IP address");
        refused("bind = \"127.0.0.1:7100\"", 1, 8, "bind", "without a port");
        refused("max_ipc_clients = 0", 1, 19, "max_ipc_clients", "from 1 to 1024");
        refused("max_ipc_clients = 1025", 1, 19, "max_ipc_clients", "from 1 to 1024");
        refused("\nkeepalive_secs = 60", 2, 18, "keepalive_secs", "must be less than");
        refused("idle_timeout_secs = 15", 1, 21, "idle_timeout_secs", "must be less than");
        refused("[ipc]\nbuffer_ttl_secs = 0", 2, 19, "ipc.buffer_ttl_secs", "from 1");
        refused("ipc = 3", 1, 1, "ipc", "write [ipc]");
        refused("policy = 3", 1, 1, "policy", "write [policy]");
        refused("policy.known = 3", 1, 8, "policy.known", "write [policy.known]");
        refused("[[knock]]\nopen = true", 1, 3, "knock", "write [knock]");
        refused("[policy.known]\nkinds = \"ping\"", 2, 9, "policy.known.kinds", "a list of at most 64 kinds");
        refused("[policy.known]\nkinds = [1]", 2, 9, "policy.known.kinds", "a list of at most 64 kinds");
        refused("[policy.known]\nkinds = [\"p*\"]", 2, 9, "policy.known.kinds", "\"*\" alone");
        let many = format!("[policy.known]\ndomains = {:?}", vec!["x"; limits::RULE_NAMES_MAX + 1]);
        refused(&many, 2, 11, "policy.known.domains", "has 65 entries");
        refused("knock.allow = [\"bob\"]", 1, 15, "knock.allow", "an agent id is");
        refused("knock.intents = [\"a/b/c\"]", 1, 17, "knock.intents", "category/action");
        refused("policy.unknown.in_flight_max = 1025", 1, 32, "policy.unknown.in_flight_max", "0 to 1024");
        refused("[port]\nx = 1", 1, 1, "port", "type table");
        refused("[agent]\ndomains = \"family\"", 2, 11, "agent.domains", "a list of texts");
        refused("[agent]\ndomains = [1]", 2, 11, "agent.domains", "a list of texts");
        refused("[agent]\nx = nan", 2, 5, "agent.x", "JSON");
        refused("[agent]\n\"a b\" = [inf]", 1, 2, "agent", "JSON");
        let long = format!("[agent]\nx = \"{}\"", "a".repeat(limits::CAPABILITIES_BYTES_MAX));
        refused(&long, 1, 2, "agent", "say less");
    }

    #[test]
    fn bad_peers_are_told() {
        let (id, key) = peer(1);
        refused("peers = 3", 1, 9, "peers", "[[peers]]");
        refused("peers = [1]", 1, 9, "peers", "[[peers]]");
        refused("[peers]\nagent_id = \"x\"", 1, 1, "peers", "[[peers]]");
        refused("[[peers]]\naddr = \"a:1\"", 2, 1, "peers.agent_id", "is missing");
        refused(&format!("[[peers]]\nagent_id = \"{id}\""), 2, 1, "peers.pubkey", "is missing");
        refused("[[peers]]\nagent_id = 1", 2, 12, "peers.agent_id", "text in quotes");
        let with = |id: &str, key: &str| {
            format!("[[peers]]\nagent_id = \"{id}\"\npubkey = \"{key}\"\naddr = \"a:1\"")
        };
        refused(&with("ed25519.12", &key.to_string()), 2, 12, "peers.agent_id", "32 hexadecimal digits");
        refused(&with("rsa.1234", &key.to_string()), 2, 12, "peers.agent_id", "ed25519.");
        refused(&with(&id.to_string(), "AAAA"), 3, 10, "peers.pubkey", "base64");
        refused(
            &with(&id.to_string(), &peer(2).1.to_string()),
            3,
            10,
            "peers.pubkey",
            &peer(2).0.to_string(),
        );
        for (addr, part) in [
            ("192.0.2.7", "\"192.0.2.7:7100\""),
            ("::1", "\"[::1]:7100\""),
            ("host", "has no port"),
            ("host:", "with a port"),
            ("host:99999", "with a port"),
            ("host:0", "port 0"),
            ("[::1]:0", "port 0"),
            (":7100", "with a port"),
            ("ho st:7100", "with a port"),
            ("http://host:7100", "with a port"),
        ] {
            refused(&block(1, addr, ""), 4, 8, "peers.addr", part);
        }
        for name in ["beef", "DEAD0", "ed25519.x", "ED25519.", "", &"n".repeat(65)] {
            refused(&block(1, "a:1", &format!("name = \"{name}\"")), 5, 8, "peers.name", "");
        }
        assert!(parse(&block(1, "a:1", "name = \"bee\"")).is_ok());
        let twice = block(1, "a:1", "name = \"x\"") + &block(1, "b:1", "name = \"y\"");
        refused(&twice, 7, 12, "peers.agent_id", "peer of line 2");
        let same_name = block(1, "a:1", "name = \"x\"") + &block(2, "b:1", "name = \"x\"");
        refused(&same_name, 10, 8, "peers.name", "peer of line 5");
    }

    #[test]
    fn peers_are_bounded_and_never_oneself() {
        let blocks = |n: usize| {
            (0..n).fold(String::new(), |text, n| {
                let mut key = [0; 32];
                key[..8].copy_from_slice(&n.to_le_bytes());
                let key = PublicKey(key);
                text + &format!(
                    "[[peers]]\nagent_id = \"{}\"\npubkey = \"{key}\"\naddr = \"a:1\"\n",
                    key.agent_id()
                )
            })
        };
        assert_eq!(parse(&blocks(limits::STATIC_PEERS_MAX)).unwrap().peers.len(), limits::STATIC_PEERS_MAX);
        let line = limits::STATIC_PEERS_MAX * 4 + 2;
        refused(&blocks(limits::STATIC_PEERS_MAX + 1), line, 12, "peers", "more than 1024");

        let config = parse(&(block(1, "a:1", "") + &block(2, "a:1", ""))).unwrap();
        config.check_own(peer(3).0).unwrap();
        let error = config.check_own(peer(2).0).unwrap_err();
        assert_eq!((error.spot(), error.key()), (Some(Spot { line: 7, column: 12 }), Some("peers.agent_id")));
    }
}
