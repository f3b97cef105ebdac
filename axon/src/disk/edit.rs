//! `config.toml`, changed: one key at a time, with every comment and the order kept.
//!
//! What is there is changed in the text itself, at the place that the parser names; only a new key is written
//! by the library. The result is read again before it replaces the file.

use std::ops::Range;
use std::path::Path;

use axon_proto::id::AgentId;
use serde_json::Value as Json;
use toml_edit::{Array, Document, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::config::{self, Config, ConfigError, Taken};
use super::entries::Entries;
use super::files::{self, DiskError, MODE_BITS, MODE_PRIVATE};
use super::settings::{self, Kind, Preset, SETTINGS, Setting};

/// One key with what holds for it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Entry {
    /// The key, with its table.
    pub key: String,
    /// What holds; null where nothing is set and there is no default.
    pub value: Json,
    /// Whether the file does not set it.
    pub default: bool,
    /// What it counts in.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub unit: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

/// Why a key was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The file is wrong, or would be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What holds for one key. The file as a whole may be wrong elsewhere.
pub fn get(path: &Path, key: &str) -> Result<Entry, EditError> {
    let row = known(key)?;
    let text = config::read_text(path)?.unwrap_or_default();
    let document = parsed(&text, path)?;
    entry(row, key, lookup(&document, key).map(|(_, item)| item), path, &text)
}

/// Every key with what holds for it; keys of your own in `[agent]` come last.
pub fn list(path: &Path) -> Result<Vec<Entry>, EditError> {
    let text = config::read_text(path)?.unwrap_or_default();
    Config::parse(&text, path)?;
    let document = parsed(&text, path)?;
    let mut keys: Vec<String> = SETTINGS.iter().map(|row| row.key.to_owned()).collect();
    let free = document.get(settings::FREE_TABLE).and_then(Item::as_table_like);
    let own = free.into_iter().flat_map(|table| table.iter());
    for (leaf, _) in own {
        let key = format!("{}.{leaf}", settings::FREE_TABLE);
        if !keys.contains(&key) && settings::find(&key).is_some() {
            keys.push(key);
        }
    }
    keys.iter()
        .map(|key| entry(known(key)?, key, lookup(&document, key).map(|(_, item)| item), path, &text))
        .collect()
}

/// Sets a key to what the text says, read by the key's kind.
pub fn set(path: &Path, key: &str, value: &str) -> Result<Entry, EditError> {
    let row = known(key)?;
    let value =
        parse_value(row.kind, value).map_err(|message| EditError::Usage(format!("{key} {message}")))?;
    refuse_link(path)?;
    let text = config::read_text(path)?.unwrap_or_default();
    let document = parsed(&text, path)?;
    let place = lookup(&document, key).and_then(|(_, item)| item.span());
    let changed = match place {
        Some(span) => replaced(&text, span, value.to_string().trim()),
        None => inserted(&text, path, key, value)?,
    };
    Config::parse(&changed, path)?;
    write(path, &changed)?;
    get(path, key)
}

/// Takes a key out of the file; false when it was not in it. Also takes out a key that is not known.
pub fn unset(path: &Path, key: &str) -> Result<bool, EditError> {
    refuse_link(path)?;
    let Some(text) = config::read_text(path)? else {
        known(key)?;
        return Ok(false);
    };
    let document = parsed(&text, path)?;
    let Some((place, _)) = lookup(&document, key) else {
        known(key)?;
        return Ok(false);
    };
    let changed = match place {
        Place::Lines(span) => without_lines(&text, span),
        Place::Inside => {
            let mut document = mutable(&text, path)?;
            remove(&mut document, key);
            document.to_string()
        }
    };
    // A file with two faults can be mended one by one.
    if Config::parse(&text, path).is_ok() {
        Config::parse(&changed, path)?;
    } else {
        parsed(&changed, path)?;
    }
    write(path, &changed)?;
    Ok(true)
}

/// The text without these agents' entries in `[[peers]]`; none when they have none there. The file may be
/// wrong elsewhere.
pub(super) fn without_peers(path: &Path, ids: &[AgentId]) -> Result<Option<String>, EditError> {
    if ids.is_empty() {
        return Ok(None);
    }
    let Some(text) = config::read_text(path)? else { return Ok(None) };
    let mut changed = text.clone();
    for id in ids {
        let document = parsed(&changed, path)?;
        let Some(index) = peer_index(&document, *id) else { continue };
        let mut entries = Entries::of(&document, &changed, "peers");
        entries.remove(index);
        let without = entries.done();
        if peer_index(&parsed(&without, path)?, *id).is_some() {
            let text = format!("{id} cannot be taken out of {}: remove its entry by hand", path.display());
            return Err(EditError::Usage(text));
        }
        changed = without;
    }
    if changed == text {
        return Ok(None);
    }
    refuse_link(path)?;
    if Config::parse(&text, path).is_ok() {
        Config::parse(&changed, path)?;
    }
    Ok(Some(changed))
}

/// Which entry of `[[peers]]` is this agent's.
fn peer_index(document: &Document<&str>, id: AgentId) -> Option<usize> {
    let is = |table: &dyn TableLike| {
        table.get("agent_id").and_then(Item::as_str).and_then(|text| text.parse().ok()) == Some(id)
    };
    match document.get("peers")? {
        Item::ArrayOfTables(tables) => tables.iter().position(|table| is(table)),
        Item::Value(Value::Array(values)) => {
            values.iter().position(|value| value.as_inline_table().is_some_and(|table| is(table)))
        }
        _ => None,
    }
}

/// A key's place in the text.
enum Place {
    /// It has its lines for itself.
    Lines(Range<usize>),
    /// It shares its line with others, in an inline table, or is a table.
    Inside,
}

fn known(key: &str) -> Result<&'static Setting, EditError> {
    settings::find(key)
        .ok_or_else(|| EditError::Usage(format!("there is no key \"{key}\"; {}", settings::hint(key))))
}

fn parsed<'a>(text: &'a str, path: &Path) -> Result<Document<&'a str>, EditError> {
    match Document::parse(text) {
        Ok(document) => Ok(document),
        // The reader tells the place and the sentence.
        Err(_) => match Config::parse(text, path) {
            Err(error) => Err(error.into()),
            Ok(_) => Err(EditError::Usage(format!("{} is no TOML", path.display()))),
        },
    }
}

fn mutable(text: &str, path: &Path) -> Result<DocumentMut, EditError> {
    text.parse().map_err(|_| EditError::Usage(format!("{} is no TOML", path.display())))
}

fn entry(row: &Setting, key: &str, item: Option<&Item>, path: &Path, text: &str) -> Result<Entry, EditError> {
    let value = match item.map(|item| config::take(row.kind, item)) {
        Some(Ok(value)) => value.to_json(),
        // The reader tells the place as well.
        Some(Err(message)) => match Config::parse(text, path) {
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(EditError::Usage(format!("{key} {message}"))),
        },
        None => match row.preset {
            Preset::None => Json::Null,
            Preset::Int(n) => n.into(),
            Preset::Bool(yes) => yes.into(),
            Preset::Names(names) => names.into(),
            Preset::Word(word) => word.into(),
        },
    };
    Ok(Entry { key: key.to_owned(), value, default: item.is_none(), unit: row.unit, doc: row.doc })
}

/// A key's tables, outermost first, and its name in the last of them.
fn parts(key: &str) -> (impl Iterator<Item = &str>, &str) {
    let (tables, leaf) = key.rsplit_once('.').unwrap_or_default();
    let leaf = if leaf.is_empty() { key } else { leaf };
    (tables.split('.').filter(|part| !part.is_empty()), leaf)
}

/// Where a key is, and what it holds.
fn lookup<'a>(document: &'a Document<&str>, key: &str) -> Option<(Place, &'a Item)> {
    let (tables, leaf) = parts(key);
    let (mut table, mut inline): (&dyn TableLike, bool) = (document.as_table(), false);
    for name in tables {
        let item = table.get(name)?;
        (table, inline) = (item.as_table_like()?, inline || item.is_value());
    }
    let (name, item) = table.get_key_value(leaf)?;
    let place = match (name.span(), item.span()) {
        (Some(name), Some(value)) if item.is_value() && !inline => Place::Lines(name.start..value.end),
        _ => Place::Inside,
    };
    Some((place, item))
}

/// The value that a text on the command line means for a row of this kind.
fn parse_value(kind: Kind, text: &str) -> Result<Value, String> {
    let text = text.trim();
    let value = match kind {
        Kind::Int { .. } => text.replace('_', "").parse::<i64>().map(Value::from).ok(),
        Kind::Bool => text.parse::<bool>().map(Value::from).ok(),
        Kind::Text { .. } | Kind::Addr | Kind::Path | Kind::Word(_) => Some(Value::from(text)),
        Kind::List | Kind::Names(_) if text.starts_with('[') => text.parse().ok(),
        Kind::List | Kind::Names(_) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Some(Value::Array(parts.collect::<Array>()))
        }
        Kind::Any => Some(text.parse().unwrap_or_else(|_| Value::from(text))),
    };
    let fail = || format!("must be {}, and {text:?} is not", settings::expects(kind));
    let item = Item::Value(value.ok_or_else(fail)?);
    let _: Taken = config::take(kind, &item)?;
    item.into_value().map_err(|_| fail())
}

fn replaced(text: &str, span: Range<usize>, with: &str) -> String {
    let mut changed = text.to_owned();
    changed.replace_range(span, with);
    changed
}

/// The text without the lines that the span touches; comments above and below stay.
fn without_lines(text: &str, span: Range<usize>) -> String {
    let start = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[span.end..].find('\n').map_or(text.len(), |newline| span.end + newline + 1);
    replaced(text, start..end, "")
}

fn inserted(text: &str, path: &Path, key: &str, value: Value) -> Result<String, EditError> {
    let mut document = mutable(text, path)?;
    // A file of comments alone keeps them above its first key.
    let comments = document.trailing().as_str().filter(|_| document.is_empty()).map(str::to_owned);
    let (tables, leaf) = parts(key);
    let (mut table, mut inline): (&mut dyn TableLike, bool) = (document.as_table_mut(), false);
    for name in tables {
        let dotted = table.is_dotted();
        let item = table.entry(name).or_insert_with(|| new_table(inline, dotted));
        inline |= item.is_value();
        let no_table = || EditError::Usage(format!("\"{name}\" in the file is no table: remove it"));
        table = item.as_table_like_mut().ok_or_else(no_table)?;
    }
    table.insert(leaf, Item::Value(value));
    let changed = document.to_string();
    let Some(comments) = comments.filter(|comments| !comments.trim().is_empty()) else { return Ok(changed) };
    let added = changed.strip_suffix(&comments).unwrap_or(&changed).trim_start();
    let newline = if comments.ends_with('\n') { "" } else { "\n" };
    Ok(format!("{comments}{newline}{added}"))
}

/// A table that is written as the one around it is.
fn new_table(inline: bool, dotted: bool) -> Item {
    if inline {
        return Item::Value(Value::InlineTable(InlineTable::new()));
    }
    let mut table = Table::new();
    // One that holds tables only has no header of its own.
    table.set_implicit(true);
    table.set_dotted(dotted);
    Item::Table(table)
}

fn remove(document: &mut DocumentMut, key: &str) {
    let (tables, leaf) = parts(key);
    let mut table: Option<&mut dyn TableLike> = Some(document.as_table_mut());
    for name in tables {
        table = table.and_then(|table| table.get_mut(name)).and_then(Item::as_table_like_mut);
    }
    if let Some(table) = table {
        table.remove(leaf);
    }
}

/// A link leads to a file that somebody keeps elsewhere; replacing it would part the two without a word.
pub(super) fn refuse_link(path: &Path) -> Result<(), EditError> {
    let link = std::fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_symlink());
    if !link {
        return Ok(());
    }
    let target = std::fs::read_link(path).unwrap_or_default();
    Err(EditError::Usage(format!("{} is a link: change {} itself", path.display(), target.display())))
}

/// Replaces the file, whose mode stays.
pub(super) fn write(path: &Path, text: &str) -> Result<(), EditError> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = std::fs::metadata(path).map_or(MODE_PRIVATE, |about| about.mode() & MODE_BITS);
    Ok(files::write_atomic(path, text.as_bytes(), mode)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    const TEXT: &str = "# top\n\n# the port\nport   = 7200 # mine\nmdns = false\n\n# socket\n[ipc]\n# \
     small\nbuffer_size = 10\n# end\n";

    #[test]
    fn values_change_in_their_place() {
        let (_dir, path) = file(TEXT);
        set(&path, "port", "7_300").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), TEXT.replace("7200", "7300"));
        set(&path, "ipc.buffer_size", "20").unwrap();
        set(&path, "ipc.allow_v1", "false").unwrap();
        set(&path, "name", "ann \"a\"").unwrap();
        set(&path, "agent.domains", "family, work").unwrap();
        set(&path, "agent.domains", "[\"family\"]").unwrap();
        set(&path, "agent.seats", "3").unwrap();
        set(&path, "agent.motto", "to be").unwrap();
        let config = Config::load(&path).unwrap();
        assert_eq!((config.port, config.buffer_size, config.allow_v1), (7300, 20, false));
        assert_eq!(config.name.as_deref(), Some("ann \"a\""));
        let agent: Json = serde_json::from_str(config.agent.unwrap().get()).unwrap();
        assert_eq!(agent, json!({"domains": ["family"], "seats": 3, "motto": "to be"}));
        let text = fs::read_to_string(&path).unwrap();
        for comment in
            ["# top\n", "# the port\nport   = 7300 # mine\n", "# socket\n[ipc]\n# small\n", "# end\n"]
        {
            assert!(text.contains(comment), "{comment:?} in\n{text}");
        }
        assert!(list(&path).unwrap().iter().any(|entry| entry.key == "agent.seats" && entry.value == 3));
    }

    #[test]
    fn keys_go_and_comments_stay() {
        let (_dir, path) = file(TEXT);
        assert!(unset(&path, "port").unwrap());
        assert!(!unset(&path, "port").unwrap());
        assert!(unset(&path, "ipc.buffer_size").unwrap());
        let left = "# top\n\n# the port\nmdns = false\n\n# socket\n[ipc]\n# small\n# end\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), left);
        let (_dir, path) =
            file("agent.domains = [\n  \"a\", # one\n]\nipc = { allow_v1 = true, buffer_size = 3 }");
        assert!(unset(&path, "agent.domains").unwrap());
        assert!(unset(&path, "ipc.allow_v1").unwrap());
        set(&path, "ipc.buffer_size", "4").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("ipc = {") && text.contains("buffer_size = 4") && !text.contains("allow_v1"),
            "{text}"
        );
    }

    #[test]
    fn keys_of_three_parts_change_in_every_form_of_table() {
        let (_dir, path) = file(TEXT);
        set(&path, "policy.unknown.messages_per_minute", "10").unwrap();
        set(&path, "policy.unknown.kinds", "ping, query").unwrap();
        set(&path, "policy.known.kinds", "[\"*\"]").unwrap();
        set(&path, "knock.open", "true").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let added = "\n[policy.unknown]\nmessages_per_minute = 10\nkinds = [\"ping\", \"query\"]\n\n\
             [policy.known]\nkinds = [\"*\"]\n\n[knock]\nopen = true\n";
        assert_eq!(text.replace("# end\n", ""), TEXT.replace("# end\n", "") + added, "{text}");
        assert!(text.contains("# end\n"), "{text}");
        assert!(unset(&path, "policy.unknown.messages_per_minute").unwrap());
        assert!(!unset(&path, "policy.trusted.kinds").unwrap());
        assert_eq!(get(&path, "policy.unknown.messages_per_minute").unwrap().value, 30);
        assert_eq!(get(&path, "policy.unknown.kinds").unwrap().value, json!(["ping", "query"]));
        for text in [
            "policy.unknown.in_flight_max = 3 # mine\n",
            "[policy]\nunknown.in_flight_max = 3 # mine\n",
            "policy = { unknown = { in_flight_max = 3 } } # mine\n",
            "policy = { unknown.in_flight_max = 3 } # mine\n",
            "[policy]\nunknown = { in_flight_max = 3 } # mine\n",
            "[policy.unknown]\nin_flight_max = 3 # mine\n[policy.known]\n",
        ] {
            let (_dir, path) = file(text);
            set(&path, "policy.unknown.in_flight_max", "5").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text.replace('3', "5"));
            set(&path, "policy.unknown.domains", "family").unwrap();
            set(&path, "policy.known.messages_per_minute", "7").unwrap();
            let config = Config::load(&path).unwrap();
            assert_eq!(config.policies.unknown.in_flight_max, 5, "{text}");
            assert_eq!(
                config.policies.unknown.domains.as_deref(),
                Some(&["family".to_owned()][..]),
                "{text}"
            );
            assert_eq!(config.policies.known.messages_per_minute, 7, "{text}");
            assert!(fs::read_to_string(&path).unwrap().contains("# mine\n"), "{text}");
            assert!(unset(&path, "policy.unknown.in_flight_max").unwrap(), "{text}");
            assert!(unset(&path, "policy.known.messages_per_minute").unwrap(), "{text}");
            let config = Config::load(&path).unwrap();
            assert_eq!(config.policies.unknown.in_flight_max, 4, "{text}");
        }
    }

    #[test]
    fn a_missing_or_empty_file_is_filled() {
        let (dir, path) = file("# only words\n");
        set(&path, "port", "1").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "# only words\nport = 1\n");
        let path = dir.path().join("new.toml");
        assert_eq!(get(&path, "port").unwrap().value, 7100);
        assert!(get(&path, "port").unwrap().default);
        assert!(get(&path, "bind").unwrap().value.is_null());
        assert!(!unset(&path, "port").unwrap());
        set(&path, "ipc.token_path", "/t").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[ipc]\ntoken_path = \"/t\"\n");
        set(&path, "port", "7").unwrap();
        assert_eq!(
            get(&path, "port").unwrap(),
            Entry { key: "port".to_owned(), value: json!(7), default: false, unit: "", doc: SETTINGS[0].doc }
        );
    }

    #[test]
    fn nothing_wrong_is_written() {
        let (dir, path) = file(TEXT);
        for (key, value) in [
            ("port", "70000"),
            ("port", "x"),
            ("mdns", "maybe"),
            ("bind", "here"),
            ("name", ""),
            ("prot", "1"),
            ("keepalive_secs", "60"),
            ("agent.domains", "[1]"),
            ("agent", "1"),
            ("ipc", "1"),
            ("agent.x.y", "1"),
            ("policy", "1"),
            ("policy.known", "1"),
            ("policy.friend.kinds", "ping"),
            ("policy.known.kinds", "p*"),
            ("knock.allow", "bob"),
            ("policy.", "1"),
        ] {
            assert!(set(&path, key, value).is_err(), "{key} {value}");
        }
        assert!(get(&path, "policy").unwrap_err().to_string().contains("is a table"));
        assert!(unset(&path, "prot").unwrap_err().to_string().contains("\"port\""));
        assert_eq!(fs::read_to_string(&path).unwrap(), TEXT);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(set(&link, "port", "1").unwrap_err().to_string().contains("is a link"));
    }

    #[test]
    fn faults_are_mended_one_by_one() {
        let (_dir, path) = file("prot = 1\nmax_ipc_clients = 0\nname = \"ann\"\n");
        assert!(list(&path).is_err());
        assert_eq!(get(&path, "name").unwrap().value, "ann");
        assert!(get(&path, "max_ipc_clients").is_err());
        assert!(unset(&path, "prot").unwrap());
        assert!(unset(&path, "max_ipc_clients").unwrap());
        assert!(list(&path).is_ok());
        let (_dir, path) = file("idle_timeout_secs = 200\nkeepalive_secs = 100\n");
        let error = unset(&path, "idle_timeout_secs").unwrap_err().to_string();
        assert!(error.contains("must be less than"), "{error}");
    }

    #[test]
    fn the_files_mode_stays() {
        use std::os::unix::fs::MetadataExt as _;
        let (_dir, path) = file(TEXT);
        files::set_mode(&path, 0o640).unwrap();
        set(&path, "port", "1").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & MODE_BITS, 0o640);
    }
}
