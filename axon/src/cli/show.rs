//! Messages and figures as a person reads them. Everything that a peer wrote goes through `printable`.

use axon_client::Message;
use axon_proto::id::AgentId;
use serde_json::{Map, Value};

use super::output::{Out, Paint, printable};

/// An agent id as a person tells it from another: its first 8 hexadecimal digits.
pub fn short(agent: &str) -> &str {
    let hex = agent.strip_prefix(AgentId::PREFIX).unwrap_or(agent);
    hex.get(..8).unwrap_or(hex)
}

/// A time span in one or two units.
pub fn span(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        3600..86_400 => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3600),
    }
}

/// An answer to the message with this id: its text first, and what is needed to go on.
pub fn answer(out: &Out, id: &str, message: &Message) -> String {
    let fields = fields(message);
    match message.kind.as_str() {
        "ack" if fields.get("state").and_then(Value::as_str) == Some("queued") => {
            let note = "queued: no agent is attached there now";
            format!("{} {}", out.paint(Paint::Warn, note), out.paint(Paint::Dim, id))
        }
        "ack" => format!("{} {}", out.paint(Paint::Good, "accepted"), out.paint(Paint::Dim, id)),
        "pong" => {
            let number = |field: &str| fields.get(field).and_then(Value::as_u64).unwrap_or_default();
            let status = text(&fields, "status");
            let tasks = number("active_tasks");
            format!("{status}, up {}, {tasks} task{}", span(number("uptime_secs")), plural(tasks))
        }
        _ => body(out, message),
    }
}

/// A message as one entry of a list: a line with who and what, and its text.
pub fn entry(out: &Out, seq: u64, message: &Message) -> String {
    let mut head = format!("{seq} {} from {}", printable(&message.kind), short(&message.from));
    if let Some(reference) = &message.reference {
        head.push_str(" about ");
        head.push_str(&printable(reference));
    }
    let id = out.paint(Paint::Dim, &printable(&message.id));
    format!("{} {id}\n  {}", out.paint(Paint::Bold, &head), body(out, message).replace('\n', "\n  "))
}

/// What a message says.
pub fn body(out: &Out, message: &Message) -> String {
    let fields = fields(message);
    let (main, rest): (String, &[&str]) = match message.kind.as_str() {
        "response" => (text(&fields, "summary"), &["data"]),
        "result" => {
            let status = text(&fields, "status");
            let paint = if status == "completed" { Paint::Good } else { Paint::Bad };
            (format!("{}: {}", out.paint(paint, &status), text(&fields, "outcome")), &["data"])
        }
        "query" => (text(&fields, "question"), &["domain", "max_tokens"]),
        "delegate" => (text(&fields, "task"), &["context", "priority"]),
        "notify" => {
            let data = fields.get("data").map(plain).unwrap_or_default();
            (format!("{}: {data}", text(&fields, "topic")), &[])
        }
        "error" => (format!("{}: {}", text(&fields, "code"), text(&fields, "message")), &[]),
        "progress" => (text(&fields, "state"), &["percent", "note", "eta_ms"]),
        _ => {
            let lines: Vec<String> = fields.iter().map(|(name, value)| line(name, value)).collect();
            return if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") };
        }
    };
    let mut lines = vec![main];
    lines.extend(rest.iter().filter_map(|name| match fields.get(*name) {
        None | Some(Value::Null) => None,
        Some(value) => Some(line(name, value)),
    }));
    if fields.get("truncated") == Some(&Value::Bool(true)) {
        lines.push(out.paint(Paint::Warn, "(cut short)"));
    }
    lines.join("\n")
}

/// The plural's `s`, where there is one.
pub fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn line(name: &str, value: &Value) -> String {
    format!("{}: {}", printable(name), plain(value))
}

fn fields(message: &Message) -> Map<String, Value> {
    message.payload().unwrap_or_default()
}

fn text(fields: &Map<String, Value>, name: &str) -> String {
    fields.get(name).map(plain).unwrap_or_default()
}

/// A value without the quotes of its text, and a list of texts without its brackets.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text).into_owned(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().map(plain).collect::<Vec<_>>().join(", ")
        }
        other => printable(&other.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: Out = Out { json: false, quiet: false, verbose: 0, color: false };

    fn message(kind: &str, payload: &str) -> Message {
        let from = "ed25519.00112233445566778899aabbccddeeff";
        let line = format!(
            r#"{{"v":1,"id":"m","from":"{from}","to":"t","ts":1,"kind":"{kind}","ref":"r","payload":{payload}}}"#
        );
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn answers_are_short() {
        let show = |kind: &str, payload: &str| answer(&OUT, "id", &message(kind, payload));
        assert_eq!(show("response", r#"{"data":null,"summary":"At 7."}"#), "At 7.");
        assert_eq!(show("response", r#"{"data":{"h":7},"summary":"At 7."}"#), "At 7.\ndata: {\"h\":7}");
        assert_eq!(show("ack", r#"{"accepted":true}"#), "accepted id");
        assert!(show("ack", r#"{"accepted":true,"state":"queued"}"#).starts_with("queued"));
        assert_eq!(
            show("pong", r#"{"status":"idle","uptime_secs":61,"active_tasks":1}"#),
            "idle, up 1 min 1 s, 1 task"
        );
        assert_eq!(show("capabilities", r#"{"domains":["a","b"]}"#), "domains: a, b");
        assert_eq!(show("capabilities", "{}"), "nothing");
        assert_eq!(show("response", r#"{"summary":"\u001b[2J","data":null}"#), "\u{fffd}[2J");
    }

    #[test]
    fn entries_say_who_and_what() {
        let shown = entry(&OUT, 4, &message("notify", r#"{"topic":"door","data":"open"}"#));
        assert_eq!(shown, "4 notify from 00112233 about r m\n  door: open");
    }

    #[test]
    fn spans_have_two_units() {
        for (secs, text) in [(5, "5 s"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(span(secs), text);
        }
    }
}
