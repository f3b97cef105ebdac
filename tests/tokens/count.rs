//! Counting: texts as an agent writes and reads them, with what is random in them made the same in each run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::fmt;
use std::ops::AddAssign;

use serde_json::{Map, Value};
use tiktoken_rs::o200k_base_singleton;

use super::{ANSWER, NOTES, QUESTION, RESULT, TASK};

/// Digits of the agents' ids in the specification's examples.
const ALICE: &str = "21fe31dfa154a261626bf854046fd227";
const BOB: &str = "39f713d0a644253f04529421b9f51b9b";

/// Tokens of a text, as the encoding o200k_base has them.
pub fn tokens(text: &str) -> usize {
    o200k_base_singleton().encode_ordinary(text).len()
}

/// What an agent writes and what it reads, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    pub writes: usize,
    pub reads: usize,
}

impl Cost {
    pub const fn new(writes: usize, reads: usize) -> Self {
        Self { writes, reads }
    }

    pub fn fits(self, ceiling: Self) -> bool {
        self.writes <= ceiling.writes && self.reads <= ceiling.reads
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.writes += other.writes;
        self.reads += other.reads;
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} + {} = {}", self.writes, self.reads, self.writes + self.reads)
    }
}

/// Ids of messages that are the same in each run, and tokenize like any.
fn uuid(n: usize) -> String {
    // Two rounds of splitmix64: the digits must be as mixed as random ones are.
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let seed = 2 * u64::try_from(n).unwrap();
    let digits = format!("{:016x}{:016x}", mix(seed + 1), mix(seed + 2));
    let (a, b, c, d, e) = (&digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..]);
    format!("{a}-{b}-4{c}-8{d}-{e}")
}

/// Texts of one run with other ids and times in them: two runs then count the same.
#[derive(Debug, Default)]
pub struct Steady {
    ids: HashMap<String, String>,
    /// Digits of the counted agent's id.
    own: String,
}

impl Steady {
    /// For texts of this agent.
    pub fn of(agent: &str) -> Self {
        Self { own: agent.trim_start_matches("ed25519.").to_owned(), ..Self::default() }
    }

    /// The text with each id of a message in the place of the random one, and times of one moment.
    pub fn text(&mut self, text: &str) -> String {
        let mut steady = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let at_word = !steady.ends_with(|c: char| c.is_ascii_alphanumeric());
            let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
            let word = &rest[..word];
            let taken = if at_word && !word.is_empty() { self.word(word) } else { None };
            match taken {
                Some(other) => {
                    steady.push_str(&other);
                    rest = &rest[word.len()..];
                }
                None => {
                    let next = rest.chars().next().unwrap();
                    steady.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
        }
        steady
    }

    /// What stands for this word, if it is another in each run.
    fn word(&mut self, word: &str) -> Option<String> {
        let parts: Vec<usize> = word.split('-').map(str::len).collect();
        let hex = word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if hex && parts == [8, 4, 4, 4, 12] {
            let next = uuid(self.ids.len());
            return Some(self.ids.entry(word.to_owned()).or_insert(next).clone());
        }
        // The first digits of one that was seen before.
        if hex && parts == [8] {
            let (_, steady) = self.ids.iter().find(|(id, _)| id.starts_with(word))?;
            return Some(steady[..8].to_owned());
        }
        if hex && parts == [32] {
            return Some(if word == self.own { ALICE } else { BOB }.to_owned());
        }
        let number: Option<u64> = word.parse().ok();
        number.filter(|ms| *ms > 1_700_000_000_000).map(|_| "1795000000005".to_owned())
    }
}

/// The cost of one exchange in A2A, over a version's JSON-RPC; none where it has no such exchange.
pub fn a2a(version: &str, exchange: &str) -> Option<Cost> {
    let all: Value = serde_json::from_str(include_str!("a2a.json")).unwrap();
    let steps = all[version].get(exchange)?.as_array().unwrap();
    let mut fill = Filler::default();
    let mut cost = Cost::default();
    for step in steps {
        let times = if step.get("ten times").is_some() { NOTES.len() } else { 1 };
        for n in 0..times {
            let line = |fill: &mut Filler, what: &str| tokens(&fill.value(&step[what], n).to_string());
            cost += Cost::new(line(&mut fill, "write"), line(&mut fill, "read"));
        }
    }
    Some(cost)
}

/// Puts the texts and ids into the places that are kept for them.
#[derive(Debug, Default)]
struct Filler {
    ids: usize,
    named: HashMap<String, String>,
}

impl Filler {
    /// `n`: which of the ten this is.
    fn value(&mut self, value: &Value, n: usize) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text, n)),
            Value::Array(items) if items.first() == Some(&Value::from("$ten")) => {
                (0..NOTES.len()).map(|n| self.value(&items[1], n)).collect()
            }
            Value::Array(items) => items.iter().map(|item| self.value(item, n)).collect(),
            Value::Object(fields) => {
                let filled = fields.iter().map(|(name, value)| (name.clone(), self.value(value, n)));
                Value::Object(filled.collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }

    fn text(&mut self, text: &str, n: usize) -> String {
        let (topic, note) = NOTES[n];
        match text {
            "$question" => QUESTION.to_owned(),
            "$answer" => ANSWER.to_owned(),
            "$task" => TASK.to_owned(),
            "$result" => RESULT.to_owned(),
            "$topic" => topic.to_owned(),
            "$note" => note.to_owned(),
            "$uuid" => self.next(),
            "$context" | "$delegation" => self.named(text.to_owned()),
            "$row" => self.named(format!("$row{n}")),
            _ => {
                assert!(!text.starts_with('$'), "nothing stands for {text}");
                text.to_owned()
            }
        }
    }

    fn named(&mut self, name: String) -> String {
        if let Some(id) = self.named.get(&name) {
            return id.clone();
        }
        let id = self.next();
        self.named.insert(name, id.clone());
        id
    }

    fn next(&mut self) -> String {
        self.ids += 1;
        uuid(self.ids - 1)
    }
}

#[test]
fn the_tokenizer_is_a_real_one() {
    // As the encoding's own implementation gives them.
    assert_eq!(o200k_base_singleton().encode_ordinary("hello world"), [24912, 2375]);
    assert!(tokens(&uuid(0)) > 12 && tokens(ANSWER) < ANSWER.len() / 2);
}

#[test]
fn what_is_random_is_counted_the_same_each_time() {
    let count = |id: &str, agent: &str, ms: &str| {
        let mut steady = Steady::default();
        let text = format!(
            r#"{{"id":"{id}","from":"ed25519.{agent}","ts":{ms},"n":1,"data":"at 17-18"}} {}"#,
            &id[..8]
        );
        let steady = steady.text(&text);
        assert!(steady.contains("at 17-18") && steady.contains(r#""n":1"#), "{steady}");
        steady
    };
    let one = count(&uuid(7), "00112233445566778899aabbccddeeff", "1795000000123");
    let other = count(&uuid(8), "ffeeddccbbaa99887766554433221100", "1799999999999");
    assert_eq!(one, other);
    assert!(one.ends_with(&uuid(0)[..8]), "{one}");
}
