//! Names of topics, and filters that match them.
//!
//! Source: `spec/decisions/0017-topics.md`. A name has levels with dots between them; a filter may have `*`
//! for one level and, at its end, `>` for all that follow.

use std::fmt;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};

/// The name of a topic: `build.main.failed`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// What a subscription is for: `build.*.failed`, `build.>`, or a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter(Arc<str>);

impl Topic {
    /// A name.
    ///
    /// # Errors
    /// What is wrong with it, and what a name is.
    pub fn parse(text: &str) -> Result<Self, String> {
        check(text)?;
        if text.contains(['*', '>']) {
            return Err(format!("\"{text}\" is a filter, and this must be the name of one topic"));
        }
        Ok(Self(text.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Filter {
    /// A filter.
    ///
    /// # Errors
    /// What is wrong with it, and what a filter is.
    pub fn parse(text: &str) -> Result<Self, String> {
        check(text)?;
        let mut levels = text.split('.').peekable();
        while let Some(level) = levels.next() {
            let wild = level.contains(['*', '>']);
            if wild && level != "*" && level != ">" {
                return Err(format!(
                    "in \"{text}\", * and > stand for whole levels, and \"{level}\" has more"
                ));
            }
            if level == ">" && levels.peek().is_some() {
                return Err(format!("in \"{text}\", > stands for all that follows, and must be at the end"));
            }
        }
        Ok(Self(text.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is for this topic.
    pub fn matches(&self, topic: &Topic) -> bool {
        let mut levels = topic.0.split('.');
        for wanted in self.0.split('.') {
            match (wanted, levels.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// Whether some topic is one of both.
    pub fn meets(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.0.split('.'), other.0.split('.'));
        loop {
            match (ours.next(), theirs.next()) {
                (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
                (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
                _ => return false,
            }
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Parsed(Self::parse))
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Parsed(Self::parse))
    }
}

/// Parses a text where it lies.
struct Parsed<T>(fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        self.0(text).map_err(E::custom)
    }
}

/// What names and filters share.
fn check(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > TOPIC_BYTES_MAX {
        return Err(format!("a topic has 1 to {TOPIC_BYTES_MAX} bytes, and this one has {}", text.len()));
    }
    if let Some(other) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '"' | '\\')) {
        return Err(format!("a topic has letters, digits and signs of ASCII, and not {other:?}"));
    }
    let levels = text.split('.').count();
    if levels > TOPIC_LEVELS_MAX {
        return Err(format!("a topic has {TOPIC_LEVELS_MAX} levels at most, and this one has {levels}"));
    }
    if text.split('.').any(str::is_empty) {
        return Err(format!(
            "\"{text}\" has an empty level: levels have one dot between them, and none at the ends"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, topic: &str) -> bool {
        Filter::parse(filter).unwrap().matches(&Topic::parse(topic).unwrap())
    }

    // shows: TOP-NAME-2
    #[test]
    fn a_star_is_one_level_and_an_arrow_is_all_that_follow() {
        for (filter, topic, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.b", "a", false),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.*.c", "a.b.c", true),
            ("a.>", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a.b.c", true),
            ("*", "a", true),
            ("*.>", "a", false),
            ("A", "a", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    // shows: TOP-NAME-1, TOP-NAME-3
    #[test]
    fn what_is_no_name_or_filter_says_why() {
        for (text, why) in [
            ("", "1 to 256 bytes"),
            ("a..b", "an empty level"),
            (".a", "an empty level"),
            ("a.", "an empty level"),
            ("a b", "' '"),
            ("ä", "'ä'"),
            ("a\"b", "'\"'"),
            ("a.*", "is a filter"),
        ] {
            let error = Topic::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Topic::parse(&"a".repeat(257)).unwrap_err().contains("257"));
        assert!(Topic::parse(&"a.".repeat(17)).unwrap_err().contains("levels"));
        for (text, why) in [("a*.b", "whole levels"), (">.a", "at the end"), ("a.>b", "whole levels")] {
            let error = Filter::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn filters_meet_where_one_topic_is_of_both() {
        for (a, b, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "*.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.*", "a.b.c", false),
            (">", "a.*", true),
            ("a.x", "a.y", false),
        ] {
            let (a, b) = (Filter::parse(a).unwrap(), Filter::parse(b).unwrap());
            assert_eq!((a.meets(&b), b.meets(&a)), (expected, expected), "{a} {b}");
        }
    }
}
