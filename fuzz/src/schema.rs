//! The schemas of `spec/schema`: values that they take, made of choices, and whether they take a value.
//!
//! What is made is nearly always valid: conditions are followed one after another and not solved. Who must
//! know asks [`Schemas::takes`], which is another implementation.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use jsonschema::{Registry, Validator};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::json::Json;

/// Under which the schemas are known to each other, by their file names.
const BASE: &str = "axon:///schema/";
/// So deep values are made.
const DEPTH_MAX: usize = 6;

macro_rules! schemas {
    ($($name:literal)*) => {
        /// Every file of `spec/schema`.
        const FILES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../spec/schema/", $name, ".json")))),*];
    };
}

schemas! {
    "ack" "admission" "cancel" "capabilities" "delegate" "discover" "envelope" "error" "hello" "ipc-command"
    "ipc-event" "ipc-reply" "knock" "notify" "ping" "pong" "progress" "query" "receipt" "rekey" "response"
    "result" "presence.beacon" "presence.find" "presence.found" "topic.gossip" "topic.join" "topic.leave"
    "topic.message"
}

/// All schemas.
pub struct Schemas {
    all: BTreeMap<&'static str, Value>,
    registry: Registry<'static>,
    whole: BTreeMap<&'static str, Validator>,
    parts: BTreeMap<String, Validator>,
}

impl Schemas {
    /// The schemas of `spec/schema`, read once.
    pub fn get() -> &'static Self {
        static ALL: OnceLock<Schemas> = OnceLock::new();
        ALL.get_or_init(Self::load)
    }

    fn load() -> Self {
        let mut registry = Registry::new();
        let mut all = BTreeMap::new();
        for (name, text) in FILES {
            let schema: Value = serde_json::from_str(text).expect("a schema is JSON");
            registry = registry.add(format!("{BASE}{name}.json"), schema.clone()).expect("a schema");
            all.insert(*name, schema);
        }
        let registry = registry.prepare().expect("schemas");
        let mut schemas = Self { all, registry, whole: BTreeMap::new(), parts: BTreeMap::new() };
        schemas.whole = FILES.iter().map(|(name, _)| (*name, schemas.validator(name, ""))).collect();
        for name in ["ipc-reply", "ipc-event"] {
            let parts = schemas.all[name]["$defs"].as_object().into_iter().flatten();
            let parts = parts.map(|(part, _)| part.clone()).collect::<Vec<_>>();
            for part in parts {
                let validator = schemas.validator(name, &format!("/$defs/{part}"));
                schemas.parts.insert(format!("{name}#{part}"), validator);
            }
        }
        schemas
    }

    fn validator(&self, file: &str, part: &str) -> Validator {
        let schema = json!({"$ref": format!("{BASE}{file}.json#{part}")});
        jsonschema::options().with_registry(&self.registry).build(&schema).expect("a schema")
    }

    /// The names of all schemas.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(name, _)| *name)
    }

    /// Whether a schema takes a value.
    pub fn takes(&self, name: &str, value: &Value) -> bool {
        self.whole[name].is_valid(value)
    }

    /// What is wrong with a value, in words; none: nothing.
    pub fn fault(&self, name: &str, value: &Value) -> Option<String> {
        self.whole[name].iter_errors(value).next().map(|error| error.to_string())
    }

    /// What is wrong with a value by a part of a schema; none: nothing, or there is no such part.
    pub fn fault_of(&self, name: &str, part: &str, value: &Value) -> Option<String> {
        let validator = self.parts.get(&format!("{name}#{part}"))?;
        validator.iter_errors(value).next().map(|error| format!("{}: {error}", error.instance_path()))
    }

    /// Whether a schema has such a part.
    pub fn has(&self, name: &str, part: &str) -> bool {
        self.parts.contains_key(&format!("{name}#{part}"))
    }

    /// A value that this schema takes, nearly always.
    pub fn make(&self, name: &str, dice: &mut dyn Dice) -> Json {
        Maker { schemas: self, file: name, dice }.make(&self.all[name], 0)
    }
}

struct Maker<'a> {
    schemas: &'a Schemas,
    file: &'a str,
    dice: &'a mut dyn Dice,
}

impl<'a> Maker<'a> {
    fn make(&mut self, schema: &'a Value, depth: usize) -> Json {
        if let Some(to) = schema["$ref"].as_str() {
            let (file, part) = to.split_once('#').unwrap_or((to, ""));
            let file = if file.is_empty() { self.file } else { file.trim_end_matches(".json") };
            let Some(schema) = self.schemas.all[file].pointer(part) else { return Json::number(0) };
            return Maker { schemas: self.schemas, file, dice: self.dice }.make(schema, depth);
        }
        if let Some(value) = schema.get("const") {
            return Json::of(value);
        }
        if let Some(all) = schema["enum"].as_array() {
            return Json::of(&all[self.dice.below(all.len())]);
        }
        let branches = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
        let branch = branches.map(|all| &all[self.dice.below(all.len())]);
        let Some(kind) = self.kind(&schema["type"]) else {
            return match branch {
                Some(branch) => self.make(branch, depth),
                None => self.anything(depth),
            };
        };
        match kind {
            "null" => Json::Plain("null".into()),
            "boolean" => Json::Plain(["true", "false"][self.dice.below(2)].into()),
            "integer" => self.integer(schema),
            "number" => self.number(schema),
            "string" => Json::text(&self.string(schema)),
            "array" => {
                let min = schema["minItems"].as_u64().unwrap_or_default() as usize;
                let max = schema["maxItems"].as_u64().unwrap_or(3).min(3) as usize;
                let count = min.max(self.dice.below(max + 1));
                Json::List((0..count).map(|_| self.make(&schema["items"], depth + 1)).collect())
            }
            _ => {
                let mut object = Json::Object(Vec::new());
                self.fill(schema, &mut object, false, depth);
                if let Some(branch) = branch {
                    self.fill(branch, &mut object, true, depth);
                }
                object
            }
        }
    }

    fn kind(&mut self, of: &'a Value) -> Option<&'a str> {
        match of {
            Value::String(kind) => Some(kind),
            // Null is rarely worth it.
            Value::Array(all) if self.dice.once_in(6) => all.last()?.as_str(),
            Value::Array(all) => all.get(self.dice.below(all.len().saturating_sub(1).max(1)))?.as_str(),
            _ => None,
        }
    }

    /// Gives an object what a schema asks for: of fields that need not be there some, or those that are.
    fn fill(&mut self, schema: &'a Value, object: &mut Json, only_there: bool, depth: usize) {
        let required = schema["required"].as_array();
        let needs = |name: &str| required.into_iter().flatten().any(|of| of == name);
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let there = object.get(name).is_some();
            let wanted = if only_there { there } else { depth < DEPTH_MAX && self.dice.below(3) == 0 };
            if !needs(name) && !wanted {
                continue;
            }
            // A condition that asks for no more than a text is one for an id that is given otherwise.
            let value = match object.get(name) {
                Some(Json::Text(_)) if only_there && *field == json!({"type": "string"}) => continue,
                _ if only_there && *field == json!({"type": "string"}) => Json::text(&message(self.dice)),
                _ => self.make(field, depth + 1),
            };
            object.set(name, value);
        }
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if object.get(name).is_none() {
                let value = self.anything(depth + 1);
                object.set(name, value);
            }
        }
        if let Some(not) = schema["not"]["required"].as_array() {
            not.iter().filter_map(Value::as_str).for_each(|name| object.remove(name));
        }
        let all = schema["allOf"].as_array().into_iter().flatten();
        for part in all.chain(std::iter::once(schema)) {
            match part.get("if") {
                Some(condition) if holds(condition, object) => self.fill(&part["then"], object, true, depth),
                Some(_) => self.fill(&part["else"], object, true, depth),
                None if !std::ptr::eq(part, schema) => self.fill(part, object, true, depth),
                None => {}
            }
        }
    }

    fn integer(&mut self, schema: &Value) -> Json {
        let min = schema["minimum"].as_u64().unwrap_or_default();
        let max = schema["maximum"].as_u64().unwrap_or(u64::MAX);
        Json::number(match self.dice.below(5) {
            0 => min,
            1 => max,
            2 => min.saturating_add(self.dice.below(100) as u64).min(max),
            3 => min.saturating_add(self.dice.below(60_000) as u64).min(max),
            _ => max.min(1_795_000_000_000),
        })
    }

    fn number(&mut self, schema: &Value) -> Json {
        let max = schema["maximum"].as_f64().unwrap_or(1e9);
        match self.dice.below(4) {
            0 => Json::number(schema["minimum"].as_f64().unwrap_or_default()),
            1 => Json::number(max),
            2 => Json::number(self.dice.below(100)),
            _ => Json::number(self.dice.below(1_000) as f64 / 10.0),
        }
    }

    fn string(&mut self, schema: &Value) -> String {
        if let Some(pattern) = schema["pattern"].as_str() {
            return self.of_pattern(pattern);
        }
        let examples = schema["examples"].as_array();
        if let Some(example) = examples.and_then(|all| all.get(self.dice.below(all.len() + 1))) {
            return example.as_str().unwrap_or_default().to_owned();
        }
        let min = schema["minLength"].as_u64().unwrap_or_default() as usize;
        let max = schema["maxLength"].as_u64().unwrap_or(4_096) as usize;
        let mut text = match self.dice.below(10) {
            0 => "x".repeat(max),
            1 => "ü".repeat(self.dice.below(max.min(40) + 1)),
            2 => String::new(),
            3 => agent(self.dice),
            4 => "192.0.2.1:7100".into(),
            _ => WORDS[self.dice.below(WORDS.len())].to_owned(),
        };
        text = text.chars().take(max).collect();
        while text.chars().count() < min {
            text.push('a');
        }
        text
    }

    /// A text for each pattern that the schemas have.
    fn of_pattern(&mut self, pattern: &str) -> String {
        let dice = &mut *self.dice;
        match pattern {
            AGENT => agent(dice),
            MESSAGE => message(dice),
            "^[a-z0-9-]{1,32}$" => {
                ["a", "bot", "my-agent-2", "0123456789abcdef0123456789abcdef"][dice.below(4)].into()
            }
            "^[0-9a-fA-F]{16}$" | "^[0-9a-f]{16}$" => hex(dice, 16),
            "^[0-9a-fA-F]{64}$" => hex(dice, 64),
            "^[0-9a-fA-F]{128}$" => hex(dice, 128),
            "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$" => KEYS[dice.below(KEYS.len())].into(),
            "^([eE][dD]25519\\.)?[0-9a-fA-F]{16,32}$" => match dice.below(3) {
                0 => agent(dice),
                1 => hex(dice, 16),
                _ => hex(dice, 32),
            },
            "^\\s*axon://" | "^axon://" => LINKS[dice.below(LINKS.len())].into(),
            "^[^\\u0000-\\u001f\\u007f-\\u009f]*$" => WORDS[dice.below(WORDS.len() - 2)].into(),
            "^[^\\u0000-\\u001f\\u007f-\\u009f]+$" => ["a", "a name", "ü"][dice.below(3)].into(),
            "^[A-Za-z0-9+/]{85}[AQgw]==$" => format!("{}==", "A".repeat(86)),
            "^ed25519\\.[0-9a-f]{32}$" => format!("ed25519.{}", hex(dice, 32).to_lowercase()),
            "^[a-z]{1,16}$" => ["idle", "busy", "away"][dice.below(3)].into(),
            FILTER => ["build.main", "build.*", "a.*.c", ">", "build.>"][dice.below(5)].into(),
            // A topic's name, or one level of it.
            other if other.starts_with("^[!#-") => ["a", "build", "x1-y"][dice.below(3)].into(),
            other => panic!("no text is made for the pattern {other}: say here how"),
        }
    }

    fn anything(&mut self, depth: usize) -> Json {
        match self.dice.below(if depth < DEPTH_MAX { 8 } else { 6 }) {
            0 => Json::Plain("null".into()),
            1 => Json::Plain("true".into()),
            2 => Json::number(self.dice.below(1_000)),
            3 => Json::Plain(
                ["-1.5e3", "0.1", "1e400", "18446744073709551616", "-0"][self.dice.below(5)].into(),
            ),
            4 => Json::text(WORDS[self.dice.below(WORDS.len())]),
            5 => Json::text(""),
            6 => Json::List((0..self.dice.below(3)).map(|_| self.anything(depth + 1)).collect()),
            _ => {
                let names = ["a", "b", "data"].into_iter().take(self.dice.below(4));
                Json::Object(names.map(|name| (name.to_owned(), self.anything(depth + 1))).collect())
            }
        }
    }
}

const AGENT: &str = "^[eE][dD]25519\\.[0-9a-fA-F]{32}$";
const FILTER: &str = "^(([!#-)+,\\-/-=?-\\[\\]-~]+|\\*)\\.){0,15}([!#-)+,\\-/-=?-\\[\\]-~]+|\\*|>)$";
const MESSAGE: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$";

/// Words that mean something somewhere.
pub const WORDS: &[&str] = &[
    "query",
    "delegate",
    "notify",
    "ping",
    "hello",
    "cancel",
    "ack",
    "response",
    "result",
    "progress",
    "discover",
    "receipt",
    "knock",
    "family.calendar",
    "family",
    "alice",
    "bob",
    "v2",
    "read",
    "held",
    "done",
    "known",
    "trusted",
    "blocked",
    "unknown",
    "all",
    "in",
    "out",
    "normal",
    "default",
    "a b",
    "\u{7f}",
    "ß\n",
];

/// The keys of tests 1, 2 and 3 of RFC 8032, 7.1, and one more.
pub const KEYS: &[&str] = &[
    "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
    "/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
];

const LINKS: &[&str] = &[
    "axon://11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo@192.0.2.1:7100",
    "axon://PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw@[2001:db8::1]:7100?k=AAECAwQFBgcICQoLDA0ODw&a=a.example:1",
    "axon://_FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU@host.example:65535/?x=y&a=192.0.2.3:9",
];

/// An agent id, often of a key that is known.
pub fn agent(dice: &mut dyn Dice) -> String {
    if dice.below(4) == 0 {
        return format!("ed25519.{}", hex(dice, 32));
    }
    let key = KEYS[dice.below(KEYS.len())].parse::<axon_proto::id::PublicKey>();
    key.map(|key| key.agent_id().to_string()).unwrap_or_default()
}

/// A message id, one of a few or any.
pub fn message(dice: &mut dyn Dice) -> String {
    match dice.below(4) {
        0 => uuid(&hex(dice, 30)),
        1 => numbered(OWN_IDS + dice.below(16) as u64),
        _ => numbered(dice.below(16) as u64),
    }
}

/// The first id that a node of [`world`](crate::world) gives; what is below is its peers'.
pub const OWN_IDS: u64 = 0x100;

/// The message id with this number.
pub fn numbered(number: u64) -> String {
    uuid(&format!("{number:030x}"))
}

/// 30 digits as an id.
fn uuid(digits: &str) -> String {
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("{}-{}-4{}-8{}-{}", part(0, 8), part(8, 12), part(12, 15), part(15, 18), part(18, 30))
}

fn hex(dice: &mut dyn Dice, digits: usize) -> String {
    let start = dice.below(16);
    let step = dice.below(16);
    (0..digits).map(|n| char::from(b"0123456789abcdef"[(start + n * step) % 16])).collect()
}

/// Whether a condition of a schema holds, by the words that conditions are made of.
fn holds(condition: &Value, value: &Json) -> bool {
    let all = condition.as_object().into_iter().flatten();
    all.into_iter().all(|(word, of)| match word.as_str() {
        "const" => Json::of(of) == *value,
        "enum" => of.as_array().into_iter().flatten().any(|of| Json::of(of) == *value),
        "required" => {
            let mut names = of.as_array().into_iter().flatten().filter_map(Value::as_str);
            names.all(|name| value.get(name).is_some())
        }
        "properties" => {
            let mut fields = of.as_object().into_iter().flatten();
            fields.all(|(name, of)| value.get(name).is_none_or(|value| holds(of, value)))
        }
        "not" => !holds(of, value),
        "anyOf" => of.as_array().into_iter().flatten().any(|of| holds(of, value)),
        "allOf" => of.as_array().into_iter().flatten().all(|of| holds(of, value)),
        "type" => match value {
            Json::Text(_) => of == "string",
            Json::List(_) => of == "array",
            Json::Object(_) => of == "object",
            Json::Plain(text) => match text.as_str() {
                "null" => of == "null",
                "true" | "false" => of == "boolean",
                _ => of == "integer" || of == "number",
            },
        },
        _ => true,
    })
}
