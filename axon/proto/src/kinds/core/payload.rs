//! The payloads of the core kinds. Unknown fields are passed over; unknown values of an enumeration stay
//! text.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::limits::DOMAIN_BYTES_MAX;
use crate::wire::{Fields, Next, from_object, may_have, plain};

/// `pong`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// `idle`, `busy` or `overloaded`.
    pub status: String,
    /// How long the daemon has run.
    pub uptime_secs: u64,
    /// Requests that agents hold or that wait for one.
    pub active_tasks: u64,
    /// What the agent calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
}

/// `query`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// What is asked.
    pub question: String,
    /// Of which domain, dot-separated: `family.calendar`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// How long the answer may be; 0 = no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// When the answer is due, in milliseconds from now; absent or 0 = 30,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// `response`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Response {
    /// The answer for programs; `null` when there is only text.
    pub data: Box<RawValue>,
    /// The answer as text.
    pub summary: String,
    /// What it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_used: Option<u64>,
    /// Whether it was cut to `max_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
}

/// `delegate`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delegate {
    /// What is to be done.
    pub task: String,
    /// Anything that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Box<RawValue>>,
    /// `normal` or `urgent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Whether the result is wanted; absent = true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_back: Option<bool>,
    /// When the result is due, in milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// `ack`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Whether it will be done.
    pub accepted: bool,
    /// How long it will take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_ms: Option<u64>,
    /// `queued` when it waits for an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `progress`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// `queued`, `accepted` or `running`.
    pub state: String,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// Anything a person would like to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How long it will still take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<u64>,
}

/// `result`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// `completed`, `failed` or `partial`.
    pub status: String,
    /// What came of it, as text.
    pub outcome: String,
    /// What came of it, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `notify`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Notify {
    /// What it is about, dot-separated.
    pub topic: String,
    /// What there is to know.
    pub data: Box<RawValue>,
    /// `low`, `medium` or `high`; absent = `low`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importance: Option<String>,
}

/// `cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `capabilities`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// What the agent calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    /// Domains that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domains: Option<Vec<String>>,
    /// Channels that it can reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<String>>,
    /// Tools that it can use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// How many tasks it does at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_tasks: Option<u64>,
    /// The model behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One of the codes of the specification, or a newer one.
    pub code: String,
    /// What to do instead.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Not before so many milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// `receipt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// `read`.
    pub state: String,
}

/// A text that is checked and not looked into.
struct AnyText;

impl<'de> Deserialize<'de> for AnyText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = AnyText;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<AnyText, E> {
                Ok(AnyText)
            }
        }
        d.deserialize_str(Any)
    }
}

/// What is checked of a [`Query`].
#[derive(Deserialize)]
#[expect(dead_code, reason = "that they are there and of their type is all that is checked")]
struct CheckedQuery {
    question: AnyText,
    #[serde(default)]
    domain: Option<String>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    deadline_ms: Option<u64>,
}

/// What is checked of a [`Response`].
#[derive(Deserialize)]
#[expect(dead_code, reason = "that they are there and of their type is all that is checked")]
struct CheckedResponse<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    summary: AnyText,
    #[serde(default)]
    tokens_used: Option<u64>,
    #[serde(default)]
    truncated: Option<bool>,
}

/// What is checked of a [`Notify`].
#[derive(Deserialize)]
#[expect(dead_code, reason = "that they are there and of their type is all that is checked")]
struct CheckedNotify<'a> {
    topic: AnyText,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    importance: Option<AnyText>,
}

/// What is required of a field.
enum Want {
    /// A text of at most so many bytes.
    Text(usize),
    Number,
    Flag,
    Any,
}

/// Whether a payload is plainly in order: an object with these fields of these types, those that are required
/// among them. What is not so plain is left to serde, which alone refuses.
fn plainly_has(payload: &str, fields: &[(&str, bool, Want)]) -> bool {
    let look = || {
        let mut object = Fields::of(payload)?;
        // A bit for each field.
        let mut seen = 0_u32;
        while let Next::Field(name) = object.next()? {
            let Some(at) = fields.iter().position(|(field, ..)| *field == name) else {
                object.raw()?;
                continue;
            };
            match fields[at].2 {
                Want::Text(bytes_max) => drop(object.text_bytes().filter(|bytes| *bytes <= bytes_max)?),
                Want::Number => drop(object.number()?),
                Want::Flag => drop(object.flag()?),
                Want::Any => drop(object.raw()?),
            }
            if seen & 1 << at != 0 {
                return None;
            }
            seen |= 1 << at;
        }
        let seen = |at: usize| seen & 1 << at != 0;
        fields.iter().enumerate().all(|(at, (_, required, _))| !required || seen(at)).then_some(())
    };
    look().is_some()
}

/// Reads a payload as its type; the sentence names the field that is missing or wrong.
pub fn parse<'a, T: Deserialize<'a>>(kind: &str, payload: &'a str) -> Result<T, String> {
    from_object(payload).map_err(|error| match field_at(payload, error.column()) {
        Some(field) => format!("payload of {kind}: field `{field}`: {}", plain(&error)),
        None => format!("payload of {kind}: {}", plain(&error)),
    })
}

/// What a query asks of whoever hands it on.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Terms {
    /// Its domain.
    #[serde(default)]
    pub domain: Option<String>,
    /// When its answer is due.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
}

/// The terms of a query that has passed its check.
pub fn terms(query: &str) -> Terms {
    if !may_have(query, &["domain", "deadline_ms"]) {
        return Terms::default();
    }
    plain_terms(query).unwrap_or_else(|| serde_json::from_str(query).unwrap_or_default())
}

/// The same of a query that is plainly written.
fn plain_terms(query: &str) -> Option<Terms> {
    let (mut object, mut terms) = (Fields::of(query)?, Terms::default());
    while let Next::Field(name) = object.next()? {
        match name {
            "domain" => terms.domain = Some(object.text()?.to_owned()),
            "deadline_ms" => terms.deadline_ms = Some(object.number()?),
            _ => drop(object.raw()?),
        }
    }
    Some(terms)
}

/// The field in whose value this column stands, counted from 1.
fn field_at(payload: &str, column: usize) -> Option<String> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(payload).ok()?;
    let holds = |value: &RawValue| {
        let start = value.get().as_ptr() as usize - payload.as_ptr() as usize;
        (start + 1..=start + value.get().len()).contains(&column)
    };
    fields.into_iter().find(|(_, value)| holds(value)).map(|(name, _)| name)
}

/// Kinds without required fields.
pub fn check_any(payload: &str) -> Result<(), String> {
    let is_object = payload.trim_start().starts_with('{');
    is_object.then_some(()).ok_or_else(|| "the payload must be a JSON object".to_owned())
}
/// See [`Query`].
pub fn check_query(payload: &str) -> Result<(), String> {
    let fields = [
        ("question", true, Want::Text(usize::MAX)),
        ("deadline_ms", false, Want::Number),
        ("domain", false, Want::Text(DOMAIN_BYTES_MAX)),
        ("max_tokens", false, Want::Number),
    ];
    if plainly_has(payload, &fields) {
        return Ok(());
    }
    let query: CheckedQuery = parse("query", payload)?;
    if query.domain.is_some_and(|domain| domain.len() > DOMAIN_BYTES_MAX) {
        return Err(format!("payload of query: `domain` is longer than {DOMAIN_BYTES_MAX} bytes"));
    }
    Ok(())
}
/// See [`Response`].
pub fn check_response(payload: &str) -> Result<(), String> {
    let fields = [
        ("data", true, Want::Any),
        ("summary", true, Want::Text(usize::MAX)),
        ("tokens_used", false, Want::Number),
        ("truncated", false, Want::Flag),
    ];
    if plainly_has(payload, &fields) {
        return Ok(());
    }
    parse::<CheckedResponse<'_>>("response", payload).map(drop)
}
/// See [`Notify`].
pub fn check_notify(payload: &str) -> Result<(), String> {
    let fields = [
        ("topic", true, Want::Text(usize::MAX)),
        ("data", true, Want::Any),
        ("importance", false, Want::Text(usize::MAX)),
    ];
    if plainly_has(payload, &fields) {
        return Ok(());
    }
    parse::<CheckedNotify<'_>>("notify", payload).map(drop)
}
/// See [`Progress`].
pub fn check_progress(payload: &str) -> Result<(), String> {
    let progress: Progress = parse("progress", payload)?;
    match progress.percent {
        Some(percent) if !(0.0..=100.0).contains(&percent) => {
            Err("payload of progress: `percent` is not from 0 to 100".to_owned())
        }
        _ => Ok(()),
    }
}
macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident = $kind:literal $type:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(payload: &str) -> Result<(), String> {
            parse::<$type>($kind, payload).map(drop)
        }
    )*};
}
checks! {
    /// See [`Pong`].
    check_pong = "pong" Pong;
    /// See [`Delegate`].
    check_delegate = "delegate" Delegate;
    /// See [`Ack`].
    check_ack = "ack" Ack;
    /// See [`Outcome`].
    check_result = "result" Outcome;
    /// See [`Cancel`].
    check_cancel = "cancel" Cancel;
    /// See [`Capabilities`].
    check_capabilities = "capabilities" Capabilities;
    /// See [`Failure`].
    check_error = "error" Failure;
    /// See [`Receipt`].
    check_receipt = "receipt" Receipt;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_field_is_named() {
        for (check, payload, field) in [
            (check_query as fn(&str) -> _, r#"{}"#, "question"),
            (check_query, r#"{"question":1}"#, "field `question`"),
            (check_query, r#"{"question":"x", "deadline_ms": -1 ,"a":2}"#, "field `deadline_ms`"),
            (check_delegate, r#"{"context":1}"#, "task"),
            (check_notify, r#"{"topic":"a"}"#, "data"),
            (check_notify, r#"{"data":null}"#, "topic"),
            (check_response, r#"{"data":1}"#, "summary"),
            (check_response, r#"{"summary":""}"#, "data"),
            (check_result, r#"{"status":"completed"}"#, "outcome"),
            (check_ack, r#"{}"#, "accepted"),
            (check_progress, r#"{}"#, "state"),
            (check_error, r#"{"code":"x","message":"y"}"#, "retryable"),
        ] {
            let error: String = check(payload).unwrap_err();
            assert!(error.contains(field), "{payload}: {error}");
        }
        assert!(check_query(&format!(r#"{{"question":"","domain":"{}"}}"#, "x".repeat(300))).is_err());
    }

    #[test]
    fn what_is_plainly_in_order_is_so_for_serde() {
        let of = [
            r#"{"question":"a","domain":"b.c","max_tokens":0,"deadline_ms":30000,"x":[null]}"#,
            r#"{"data":{"a":"\n"},"summary":"a","tokens_used":7,"truncated":false}"#,
            r#"{"topic":"a.b","data":null,"importance":"low"}"#,
        ];
        type Check = fn(&str) -> Result<(), String>;
        let checks: [(Check, Check); 3] = [
            (check_query, |payload| parse::<Query>("query", payload).map(drop)),
            (check_response, |payload| parse::<Response>("response", payload).map(drop)),
            (check_notify, |payload| parse::<Notify>("notify", payload).map(drop)),
        ];
        for (plain, (check, _)) in of.iter().zip(checks) {
            assert_eq!(check(plain), Ok(()), "{plain}");
        }
        let (mut taken, mut refused) = (0, 0);
        for payload in crate::wire::nearly::texts(&of, 50_000) {
            for (check, serde) in checks {
                let (checked, read): (Result<(), String>, Result<(), String>) =
                    (check(&payload), serde(&payload));
                assert_eq!(checked.is_ok(), read.is_ok(), "{payload}: {checked:?}, {read:?}");
                if let (Ok(()), Some(terms)) = (check_query(&payload), plain_terms(&payload)) {
                    assert_eq!(serde_json::from_str(&payload).ok(), Some(terms), "{payload}");
                }
                taken += u32::from(checked.is_ok());
                refused += u32::from(checked.is_err());
            }
        }
        assert!(taken > 5_000 && refused > 5_000, "{taken} were taken, {refused} refused");
    }

    #[test]
    fn no_kind_takes_a_list_of_values_for_an_object() {
        for family in crate::kinds::all() {
            for kind in family.vocabulary().kinds {
                for payload in ["[]", r#"["x"]"#, r#"["x","x","x"]"#, r#"["x",1,null,null]"#, "[true]"] {
                    assert!((kind.check)(payload).is_err(), "{} takes {payload}", kind.name);
                }
            }
        }
    }

    #[test]
    fn unknown_fields_and_values_and_deep_data_pass() {
        let deep = format!(r#"{{"topic":"a","data":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
        assert_eq!(check_notify(&deep), Ok(()));
        assert_eq!(check_notify(r#"{"topic":"a","data":null,"importance":"odd","x":1}"#), Ok(()));
        assert_eq!(check_cancel("{}"), Ok(()));
    }
}
