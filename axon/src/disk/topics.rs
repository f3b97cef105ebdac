//! `[topics]` and `[[topics.rules]]`: what is passed on, and who may publish, be given and pass on what.
//!
//! Source: `spec/kinds/topics.md`, "Rules". What a rule means is in `axon_proto::kinds::topics::rules`.

use axon_proto::kinds::topics::name::Filter;
use axon_proto::kinds::topics::rules::{Publisher, Rule, TopicSettings};
use axon_proto::limits::{MESSAGE_BYTES_MAX, TOPIC_RULES_MAX};
use axon_proto::trust::Level;
use toml_edit::Item;

use super::config::{ConfigError, Taken, shortened};
use super::page::{Entry, Page};
use super::settings::{TOPIC_RULE_KEYS, TOPIC_RULES};

const NEEDS: &str = "a rule needs filter, such as \"build.>\"";
const RATE_MAX: u64 = 1_000_000;

/// Puts a value of `[topics]` in its place.
pub(super) fn apply(topics: &mut TopicSettings, key: &str, value: Taken) {
    match (key, value) {
        ("topics.enabled", Taken::Bool(yes)) => topics.enabled = yes,
        // Each has been checked to be a filter.
        ("topics.relay", Taken::Names(names)) => {
            topics.relay = names.iter().filter_map(|name| Filter::parse(name).ok()).collect();
        }
        _ => {}
    }
}

/// The rules in their order, which counts.
pub(super) fn read_rules(page: &Page<'_>, item: &Item) -> Result<Vec<Rule>, ConfigError> {
    let mut rules = Vec::new();
    for entry in page.entries(TOPIC_RULES, item)? {
        if rules.len() >= TOPIC_RULES_MAX {
            let message = format!("there are more than {TOPIC_RULES_MAX} rules: remove some");
            return Err(entry.wrong(entry.span(), "filter", message));
        }
        rules.push(read_rule(&entry)?);
    }
    Ok(rules)
}

fn read_rule(entry: &Entry<'_, '_>) -> Result<Rule, ConfigError> {
    entry.check_keys(TOPIC_RULE_KEYS, "rule")?;
    let (text, span) = entry.needed("filter", NEEDS)?;
    let filter = Filter::parse(text).map_err(|message| entry.wrong(span, "filter", message))?;
    let mut rule = Rule::default_for(filter);
    let publishers = "stranger, unknown, known or trusted";
    if let Some(publish) = read_word(entry, "publish", publishers, Publisher::parse)? {
        rule.publish = publish;
    }
    if let Some(level) = read_word(entry, "subscribe", LEVELS, level)? {
        rule.subscribe = level;
    }
    if let Some(level) = read_word(entry, "relay", LEVELS, level)? {
        rule.relay = level;
    }
    rule.bytes_max = entry.number("bytes_max", MESSAGE_BYTES_MAX as u64)?.unwrap_or(rule.bytes_max);
    rule.messages_per_minute = entry.number("messages_per_minute", RATE_MAX)?;
    rule.relay_messages_per_minute = entry.number("relay_messages_per_minute", RATE_MAX)?;
    Ok(rule)
}

const LEVELS: &str = "unknown, known or trusted";

/// Whoever is blocked is given nothing and heard in nothing, whatever a rule says.
fn level(text: &str) -> Option<Level> {
    Level::parse(text).filter(|level| *level > Level::Blocked)
}

fn read_word<T>(
    entry: &Entry<'_, '_>,
    key: &str,
    words: &str,
    parse: fn(&str) -> Option<T>,
) -> Result<Option<T>, ConfigError> {
    let Some((text, span)) = entry.text(key)? else { return Ok(None) };
    let message = || format!("must be {words}, and is {:?}", shortened(text));
    parse(text).map(Some).ok_or_else(|| entry.wrong(span, key, message()))
}
