//! `axon config`: shows and changes `config.toml`, one key at a time, with its comments kept.

use axon_proto::kinds::topics::rules::{Publisher, Rule};
use serde_json::{Value as Json, json};

use super::output::{CliError, CliResult, EXIT_DONE, Out, Paint, printable};
use crate::disk::config::Config;
use crate::disk::edit::{self, EditError, Entry};
use crate::disk::{Root, settings};

/// What `axon config` takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// The key, with its table: port, ipc.buffer_size, agent.model; "peers" and "topics.rules" show those
    pub key: Option<String>,
    /// The new value; without it the present one is shown
    #[arg(allow_hyphen_values = true, conflicts_with_all = ["list", "unset"])]
    pub value: Option<String>,
    /// Show every key with its value
    #[arg(long, conflicts_with_all = ["key", "unset"])]
    pub list: bool,
    /// Take the key out of the file, so that its default holds
    #[arg(long, requires = "key")]
    pub unset: bool,
}

/// Shows or changes the settings of this root.
pub fn run(out: &Out, root: &Root, args: &ConfigArgs) -> CliResult {
    let path = root.config();
    match (args.key.as_deref(), args.value.as_deref()) {
        (None, _) => {
            let entries = edit::list(&path).map_err(edit_error)?;
            let value = json!({"ok": true, "settings": entries});
            out.result(&value, || table(out, &entries))?;
        }
        (Some("peers"), value) => {
            if value.is_some() || args.unset {
                let text = format!("peers are entries of their own: edit [[peers]] in {}", path.display());
                return Err(CliError::usage(text));
            }
            peers(out, root)?;
        }
        (Some(settings::TOPIC_RULES), value) => {
            if value.is_some() || args.unset {
                let text =
                    format!("rules are entries of their own: edit [[topics.rules]] in {}", path.display());
                return Err(CliError::usage(text));
            }
            topic_rules(out, root)?;
        }
        (Some(key), _) if args.unset => {
            let removed = edit::unset(&path, key).map_err(edit_error)?;
            out.json(&json!({"ok": true, "key": key, "removed": removed}))?;
            if removed {
                told(out, key);
            } else if !out.json {
                out.note(|| format!("{key} was not set"));
            }
        }
        (Some(key), Some(value)) => {
            root.open().map_err(|error| CliError::local("io", error.to_string()))?;
            let entry = edit::set(&path, key, value).map_err(edit_error)?;
            out.json(&json!({"ok": true, "key": entry.key, "value": entry.value}))?;
            told(out, key);
        }
        (Some(key), None) => {
            let entry = edit::get(&path, key).map_err(edit_error)?;
            let value = json!({"ok": true, "key": entry.key, "value": entry.value, "default": entry.default});
            out.result(&value, || shown(&entry.value))?;
        }
    }
    Ok(EXIT_DONE)
}

/// What a setting's failed reading or change means for a verb.
pub fn edit_error(error: EditError) -> CliError {
    match error {
        EditError::Usage(text) => CliError::usage(text),
        EditError::Config(error) => CliError::local("invalid_config", error.to_string()),
        EditError::Disk(error) => CliError::local("io", error.to_string()),
    }
}

/// When a change takes hold.
fn told(out: &Out, key: &str) {
    if out.json {
        return;
    }
    let restart = settings::find(key).is_none_or(|row| row.restart);
    out.note(|| {
        let when = if restart { "when it starts again" } else { "on `axon reload` or when it starts again" };
        format!("saved; a running daemon takes it {when}")
    });
}

fn peers(out: &Out, root: &Root) -> Result<(), CliError> {
    let config =
        Config::load(&root.config()).map_err(|error| CliError::local("invalid_config", error.to_string()))?;
    let rows: Vec<Json> = config
        .peers
        .iter()
        .map(|peer| {
            let mut row = json!({"agent_id": peer.agent_id, "addr": peer.addr, "pubkey": peer.pubkey});
            if let Some(name) = &peer.name {
                row["name"] = Json::from(name.as_str());
            }
            row
        })
        .collect();
    out.result(&json!({"ok": true, "key": "peers", "value": rows}), || {
        let line = |peer: &axon_proto::node::StaticPeer| {
            let name = peer.name.as_deref().unwrap_or("-");
            format!("{}  {}  {}", peer.agent_id, peer.addr, printable(name))
        };
        let lines: Vec<String> = config.peers.iter().map(line).collect();
        if lines.is_empty() { "no static peers".to_owned() } else { lines.join("\n") }
    })
}

fn topic_rules(out: &Out, root: &Root) -> Result<(), CliError> {
    let config =
        Config::load(&root.config()).map_err(|error| CliError::local("invalid_config", error.to_string()))?;
    let publisher = |publisher: Publisher| match publisher {
        Publisher::Stranger => "stranger",
        Publisher::Peer(level) => level.as_str(),
    };
    let row = |rule: &Rule| {
        json!({
            "filter": rule.filter.as_str(), "publish": publisher(rule.publish),
            "subscribe": rule.subscribe.as_str(), "relay": rule.relay.as_str(), "bytes_max": rule.bytes_max,
            "messages_per_minute": rule.messages_per_minute,
            "relay_messages_per_minute": rule.relay_messages_per_minute,
        })
    };
    let rows: Vec<Json> = config.topics.rules.iter().map(row).collect();
    out.result(&json!({"ok": true, "key": settings::TOPIC_RULES, "value": rows}), || {
        let line = |rule: &Rule| {
            let mut line = format!(
                "{}  publish {}, subscribe {}, relay {}",
                rule.filter,
                publisher(rule.publish),
                rule.subscribe.as_str(),
                rule.relay.as_str()
            );
            if rule.bytes_max > 0 {
                line += &format!(", {} bytes", rule.bytes_max);
            }
            match rule.messages_per_minute {
                Some(0) => line += ", at any rate",
                Some(rate) => line += &format!(", {rate} messages per minute"),
                None => {}
            }
            match rule.relay_messages_per_minute {
                Some(0) => line += ", any number of one neighbour",
                Some(rate) => line += &format!(", {rate} of one neighbour"),
                None => {}
            }
            line
        };
        let lines: Vec<String> = config.topics.rules.iter().map(line).collect();
        if lines.is_empty() {
            "no rules: what holds without them is in spec/SPEC.md".to_owned()
        } else {
            lines.join("\n")
        }
    })
}

fn table(out: &Out, entries: &[Entry]) -> String {
    let key_width = entries.iter().map(|entry| entry.key.len()).max().unwrap_or_default();
    let lines = entries.iter().map(|entry| {
        let value = if entry.value.is_null() { "-".to_owned() } else { shown(&entry.value) };
        let said = entry.unit.is_empty() || entry.doc.contains(entry.unit);
        let unit = if said { String::new() } else { format!(", in {}", entry.unit) };
        // What the file sets stands out from the defaults.
        let value = format!("{value:<12}");
        let value =
            if entry.default { out.paint(Paint::Dim, &value) } else { out.paint(Paint::Bold, &value) };
        let doc = out.paint(Paint::Dim, &format!("{}{unit}", entry.doc));
        format!("{:<key_width$}  {value}  {doc}", entry.key)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn shown(value: &Json) -> String {
    match value {
        Json::Null => "(not set)".to_owned(),
        Json::String(text) => printable(text).into_owned(),
        other => other.to_string(),
    }
}
