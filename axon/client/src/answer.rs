//! What an agent says to a request, and how it becomes a payload that a message can hold.

use axon_proto::limits::MESSAGE_BYTES_MAX;
use serde_json::{Map, Value, json};

/// Longest payload, encoded: a message less the rest of its envelope and of the command that carries it.
pub const PAYLOAD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 512;
/// How many bytes of text a token is taken for.
const BYTES_PER_TOKEN: u64 = 4;
/// A summary made of data is no longer than this, in bytes.
const SUMMARY_BYTES: usize = 200;

/// An agent's answer: a `response` to a query, the `result` of a delegation, or an error.
///
/// ```
/// use axon_client::Answer;
///
/// let answer = Answer::text("42").with_data(serde_json::json!({"value": 42}));
/// let (kind, payload) = answer.into_reply("query", None);
/// assert_eq!(kind, "response");
/// assert_eq!(payload.to_string(), r#"{"data":{"value":42},"summary":"42"}"#);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Answer(Content);

#[derive(Debug, Clone, PartialEq)]
enum Content {
    Text { summary: String, data: Value, truncated: bool },
    Payload(Map<String, Value>),
    Error { code: String, message: String, retryable: bool },
}

impl Answer {
    /// An answer in words. It is cut near the query's `max_tokens`, and to what a message can hold.
    pub fn text(summary: impl Into<String>) -> Self {
        Self(Content::Text { summary: summary.into(), data: Value::Null, truncated: false })
    }

    /// The same for programs, beside the words.
    #[must_use]
    pub fn with_data(mut self, value: Value) -> Self {
        if let Content::Text { data, .. } = &mut self.0 {
            *data = value;
        }
        self
    }

    /// Says that the words are not all there is.
    #[must_use]
    pub fn cut_short(mut self) -> Self {
        if let Content::Text { truncated, .. } = &mut self.0 {
            *truncated = true;
        }
        self
    }

    /// A payload of your own. Required fields that it lacks are filled in; an object without any field of an
    /// answer becomes its `data`.
    pub fn payload(fields: Map<String, Value>) -> Self {
        Self(Content::Payload(fields))
    }

    /// No answer: a code of the peer protocol, and a sentence that says what to do instead.
    ///
    /// To a query this is an `error`; a delegation, which has been acked, ends in a failed `result`.
    pub fn error(code: &str, message: impl Into<String>) -> Self {
        let retryable = axon_proto::error::PeerCode::parse(code).is_some_and(|code| code.retryable());
        Self(Content::Error { code: code.to_owned(), message: message.into(), retryable })
    }

    /// Why there is no answer, if this is an error.
    pub fn why(&self) -> Option<&str> {
        match &self.0 {
            Content::Error { message, .. } => Some(message),
            _ => None,
        }
    }

    /// The kind and payload of the reply to a request of this kind (`query` or `delegate`).
    pub fn into_reply(self, request_kind: &str, max_tokens: Option<u64>) -> (&'static str, Value) {
        let work = request_kind == "delegate";
        let (kind, payload) = match self.0 {
            Content::Error { code, message, .. } if work => {
                // The outcome is for people, the error for logs: both must say what went wrong.
                let outcome = fit(&message, PAYLOAD_BYTES_MAX / 2 - 256);
                let error = format!("{code}: {outcome}");
                ("result", json!({"status": "failed", "outcome": outcome, "error": error}))
            }
            Content::Error { code, message, retryable } => {
                let message = fit(&message, PAYLOAD_BYTES_MAX - 256);
                return ("error", json!({"code": code, "message": message, "retryable": retryable}));
            }
            Content::Text { summary, data, truncated } => words(work, &summary, data, truncated, max_tokens),
            Content::Payload(fields) if work => ("result", outcome_of(fields)),
            Content::Payload(fields) => ("response", response_of(fields)),
        };
        let bytes = payload.to_string().len();
        if bytes <= PAYLOAD_BYTES_MAX {
            return (kind, payload);
        }
        let message =
            format!("the answer has {bytes} bytes and a message holds {PAYLOAD_BYTES_MAX}: ask for less");
        Self::error("internal", message).into_reply(request_kind, None)
    }
}

/// The beginning of a text, at most this many bytes, whole characters only; and whether something was cut.
///
/// ```
/// assert_eq!(axon_client::truncate("naïve", 3), ("na", true));
/// ```
pub fn truncate(text: &str, bytes_max: usize) -> (&str, bool) {
    if text.len() <= bytes_max {
        return (text, false);
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    (&text[..end], true)
}

fn words(
    work: bool,
    summary: &str,
    data: Value,
    truncated: bool,
    max_tokens: Option<u64>,
) -> (&'static str, Value) {
    let bytes_max = match max_tokens {
        None | Some(0) => usize::MAX,
        Some(tokens) => usize::try_from(tokens.saturating_mul(BYTES_PER_TOKEN)).unwrap_or(usize::MAX),
    };
    let room = PAYLOAD_BYTES_MAX.saturating_sub(data.to_string().len() + 128);
    let (cut, _) = truncate(summary, bytes_max);
    let cut = fit(cut, room);
    let truncated = truncated || cut.len() < summary.len();
    let mut fields = Map::new();
    if work {
        fields.insert("status".to_owned(), "completed".into());
        fields.insert("outcome".to_owned(), cut.into());
    } else {
        fields.insert("summary".to_owned(), cut.into());
    }
    if !work || !data.is_null() {
        fields.insert("data".to_owned(), data);
    }
    if truncated {
        fields.insert("truncated".to_owned(), true.into());
    }
    (if work { "result" } else { "response" }, Value::Object(fields))
}

fn response_of(mut fields: Map<String, Value>) -> Value {
    if !fields.contains_key("data") && !fields.contains_key("summary") {
        fields = Map::from_iter([("data".to_owned(), Value::Object(fields))]);
    }
    if !matches!(fields.get("summary"), Some(Value::String(_))) {
        let said = fields.get("summary").or(fields.get("data")).map(brief).unwrap_or_default();
        fields.insert("summary".to_owned(), said.into());
    }
    fields.entry("data").or_insert(Value::Null);
    Value::Object(fields)
}

fn outcome_of(mut fields: Map<String, Value>) -> Value {
    if !["status", "outcome", "summary", "data"].iter().any(|field| fields.contains_key(*field)) {
        fields = Map::from_iter([("data".to_owned(), Value::Object(fields))]);
    }
    if !matches!(fields.get("outcome"), Some(Value::String(_))) {
        let said = ["outcome", "summary", "data"].iter().find_map(|field| fields.get(*field));
        let said = said.map(brief).unwrap_or_default();
        fields.insert("outcome".to_owned(), said.into());
    }
    fields.entry("status").or_insert("completed".into());
    Value::Object(fields)
}

/// A value in few words.
fn brief(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (cut, was_cut) = truncate(&text, SUMMARY_BYTES);
    if was_cut { format!("{cut}…") } else { text }
}

/// The beginning of a text that takes at most this many bytes as JSON.
fn fit(text: &str, encoded_max: usize) -> &str {
    let mut encoded = 0;
    for (at, c) in text.char_indices() {
        encoded += match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            _ => c.len_utf8(),
        };
        if encoded > encoded_max {
            return &text[..at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn words_are_cut_near_the_tokens_asked_for() {
        let (kind, payload) = Answer::text("ä".repeat(10)).into_reply("query", Some(2));
        assert_eq!(kind, "response");
        assert_eq!(payload, json!({"data": null, "summary": "ääää", "truncated": true}));
        let (_, payload) = Answer::text("abc").into_reply("query", Some(0));
        assert_eq!(payload, json!({"data": null, "summary": "abc"}));
    }

    #[test]
    fn every_answer_fits_into_a_message() {
        for text in ["x".repeat(200_000), "\u{1}".repeat(70_000), "\"".repeat(70_000), "€".repeat(70_000)] {
            for kind in ["query", "delegate"] {
                let (_, payload) = Answer::text(text.as_str()).into_reply(kind, None);
                let bytes = payload.to_string().len();
                assert!(bytes <= PAYLOAD_BYTES_MAX && bytes > PAYLOAD_BYTES_MAX - 200, "{bytes}");
                assert_eq!(payload["truncated"], true);
                let (_, payload) = Answer::error("internal", text.as_str()).into_reply(kind, None);
                assert!(payload.to_string().len() <= PAYLOAD_BYTES_MAX);
            }
        }
        let big = object(&json!({"data": "x".repeat(70_000), "summary": ""}).to_string());
        let (kind, payload) = Answer::payload(big).into_reply("query", None);
        assert_eq!((kind, &payload["code"]), ("error", &json!("internal")));
    }

    #[test]
    fn objects_become_payloads_with_what_they_lack() {
        let reply = |text: &str, kind| Answer::payload(object(text)).into_reply(kind, None).1;
        let whole = r#"{"data":{"t":21},"summary":"21 degrees","tokens_used":3}"#;
        assert_eq!(reply(whole, "query").to_string(), whole);
        assert_eq!(reply(r#"{"summary":"hi"}"#, "query"), json!({"data": null, "summary": "hi"}));
        assert_eq!(reply(r#"{"data":"hi"}"#, "query"), json!({"data": "hi", "summary": "hi"}));
        assert_eq!(reply(r#"{"t":21}"#, "query"), json!({"data": {"t": 21}, "summary": r#"{"t":21}"#}));
        assert_eq!(
            reply(r#"{"status":"partial","outcome":"half"}"#, "delegate"),
            json!({"status": "partial", "outcome": "half"})
        );
        assert_eq!(
            reply(r#"{"t":21}"#, "delegate"),
            json!({"status": "completed", "outcome": r#"{"t":21}"#, "data": {"t": 21}})
        );
    }

    #[test]
    fn errors_fail_a_delegation_and_refuse_a_query() {
        let answer = Answer::error("overloaded", "later");
        assert_eq!(
            answer.clone().into_reply("query", None),
            ("error", json!({"code": "overloaded", "message": "later", "retryable": true}))
        );
        assert_eq!(
            answer.into_reply("delegate", None),
            ("result", json!({"status": "failed", "outcome": "later", "error": "overloaded: later"}))
        );
    }
}
