//! `config.toml` as a person may write it, and as `axon config` changes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use axon::disk::config::Config;
use axon::disk::edit;
use axon::disk::settings::SETTINGS;

use crate::dice::Dice;
use axon_proto::sim::Rng;

/// What a person may say that a key is to be.
const VALUES: &[&str] =
    &["1", "0", "true", "false", "x", "\"x\"", "[]", "[\"query\"]", "::1", "65536", "", "3.5"];

/// A file is refused with its place in the text, or read; what `axon config` makes of it can be read again
/// and keeps every comment.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let config = match Config::parse(text, Path::new("config.toml")) {
        Ok(config) => config,
        Err(error) => {
            if let Some(spot) = error.spot() {
                let lines = text.split('\n').count();
                assert!(
                    (1..=lines).contains(&spot.line) && spot.column >= 1,
                    "{spot:?} of {lines} lines: {error}"
                );
                let line = text.split('\n').nth(spot.line - 1).unwrap_or_default();
                assert!(spot.column <= line.chars().count() + 1, "{spot:?}: {error}");
            }
            return assert!(!error.to_string().is_empty());
        }
    };
    let settings = config.node_settings(None);
    assert!(config.keepalive_secs < config.idle_timeout_secs);
    assert_eq!(settings.buffer_size, config.buffer_size);
    assert!(!config.bind_addrs(1).is_empty());
    let file = file();
    fs::write(file, text).expect("a place for files");
    let entries = edit::list(file).expect("what can be read can be listed");
    assert!(entries.len() >= SETTINGS.len());
    let dice = &mut Rng::new(data.iter().fold(7, |sum, byte| sum * 31 % 1_000_003 + u64::from(*byte)));
    let key = SETTINGS[Dice::below(dice, SETTINGS.len())].key;
    let value = VALUES[Dice::below(dice, VALUES.len())];
    if edit::set(file, key, value).is_ok() {
        let changed = fs::read_to_string(file).expect("it is there");
        Config::parse(&changed, file).expect("what is changed can be read");
        comments_stay(text, &changed);
        assert_eq!(edit::unset(file, key).ok(), Some(true), "what is set can be taken out: {key}\n{changed}");
        let unset = fs::read_to_string(file).expect("it is there");
        Config::parse(&unset, file).expect("what is changed can be read");
        comments_stay(text, &unset);
    }
}

/// Every line that is a comment and nothing else is in the other text, too.
pub fn comments_stay(before: &str, after: &str) {
    // Not where a hash stands within a text of several lines.
    if before.contains("\"\"\"") || before.contains("'''") {
        return;
    }
    let comment = |line: &&str| line.trim_start().starts_with('#');
    for line in before.lines().filter(comment) {
        assert!(after.contains(line.trim()), "the comment {line:?} is gone from\n{after}");
    }
}

/// A file of this process, in memory where there is a place for it.
fn file() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        dir.join(format!("axon-fuzz-{}.toml", std::process::id()))
    })
}

/// Lines that stand in such files, beside those of settings.
const LINES: &[&str] = &[
    "# a comment",
    "",
    "[ipc]",
    "[outbox]",
    "[knock]",
    "[agent]",
    "[policy.known]",
    "[policy.unknown]",
    "[policy.trusted]",
    "[[peers]]",
    "[[contacts]]",
    "paused = true",
    "level = \"known\"",
    "level = \"blocked\"",
    "agent_id = \"ed25519.21fe31dfa154a261626bf854046fd227\"",
    "addr = \"a.example:7100\"",
    "pubkey = \"11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"",
    "addrs = [\"192.0.2.1:7100\"]",
    "agent_id = \"ed25519.dac073e0123bdea59dd9b3bda9cf6037\"",
    "why = \"because\" # really",
    "pubkey = \"/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=\"",
    "since = 2026-11-21T10:00:00Z",
    "expiry = 2026-12-21T10:00:00.5+01:00",
    "why = \"\"\"",
    "\"\"\"",
    "contacts = [",
    "{ level = \"blocked\",",
    "}, ]",
];

/// Changes a file by its lines.
pub fn mutate(data: &[u8], seed: u32) -> Option<Vec<u8>> {
    let dice = &mut Rng::new(u64::from(seed));
    let text = std::str::from_utf8(data).ok()?;
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let at = Dice::below(dice, lines.len());
    match Dice::below(dice, 8) {
        0 | 1 => lines.insert(at, LINES[Dice::below(dice, LINES.len())].to_owned()),
        2 | 3 => {
            let key = SETTINGS[Dice::below(dice, SETTINGS.len())].key;
            let key = if Dice::below(dice, 2) == 0 { key } else { key.rsplit('.').next().unwrap_or(key) };
            lines.insert(at, format!("{key} = {}", VALUES[Dice::below(dice, VALUES.len())]));
        }
        4 if lines.len() > 1 => drop(lines.remove(at)),
        5 => lines.insert(Dice::below(dice, lines.len()), lines[at].clone()),
        6 => lines[at].push_str(["\r", " # said", " ", ","][Dice::below(dice, 4)]),
        _ => return None,
    }
    Some(lines.join("\n").into_bytes())
}
