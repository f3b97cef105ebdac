//! Messages and figures as a person reads them. Everything that a peer wrote goes through `printable`.

use std::collections::HashMap;
use std::path::Path;

use axon_client::{Delegation, Message, Sender, Trust};
use axon_proto::id::AgentId;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::output::{Out, Paint, printable};

/// Kinds that tell something and that nobody answers.
const TOLD: [&str; 5] = ["notify", "result", "progress", "error", "topic.message"];

/// An agent id as a person tells it from another: its first 8 hexadecimal digits.
pub fn short(agent: &str) -> &str {
    let hex = agent.strip_prefix(AgentId::PREFIX).unwrap_or(agent);
    hex.get(..8).unwrap_or(hex)
}

/// A message's id as a person tells it from another: what is before its first dash.
pub fn short_id(id: &str) -> &str {
    id.split('-').next().unwrap_or(id)
}

/// A peer's name where it has one, else the beginning of its id.
pub fn who<'a>(names: &'a HashMap<String, String>, agent: &'a str) -> &'a str {
    names.get(agent).map_or_else(|| short(agent), String::as_str)
}

/// How far a peer is trusted, in the colour of it.
pub fn level(out: &Out, trust: &Trust) -> String {
    let paint = match trust {
        Trust::Blocked => Paint::Bad,
        Trust::Unknown => Paint::Warn,
        Trust::Trusted => Paint::Bold,
        _ => Paint::Good,
    };
    out.paint(paint, &printable(trust.as_str()))
}

/// Who sent a message, and how far that is trusted. A name that is only claimed stands behind the id.
pub fn sender(out: &Out, from: &str, sender: &Sender) -> String {
    let id = short(from);
    let who = match sender.from_name.as_deref().map(printable) {
        Some(name) if sender.claimed => format!("{id} {name}?"),
        Some(name) => name.into_owned(),
        None => id.to_owned(),
    };
    match &sender.trust {
        Some(trust) => format!("{who} ({})", level(out, trust)),
        None => who,
    }
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A time span in one or two units.
pub fn span(secs: u64) -> String {
    let (great, small, word, small_word) = match secs {
        0..60 => return format!("{secs} s"),
        60..3600 => (secs / 60, secs % 60, "min", "s"),
        3600..86_400 => (secs / 3600, secs % 3600 / 60, "h", "min"),
        _ => (secs / 86_400, secs % 86_400 / 3600, "d", "h"),
    };
    if small == 0 { format!("{great} {word}") } else { format!("{great} {word} {small} {small_word}") }
}

/// How long it is since, or until, a time; both in Unix milliseconds.
pub fn between(one_ms: u64, other_ms: u64) -> String {
    span(one_ms.abs_diff(other_ms) / 1000)
}

/// That messages went out of the inbox unread.
pub fn lost(before_seq: u64) -> String {
    format!(
        "messages before number {before_seq} are gone unread: the inbox has bounds (ipc.buffer_size, \
         ipc.buffer_byte_cap, ipc.buffer_ttl_secs), or its store was damaged (see `axon doctor`)"
    )
}

/// The last that was told of a delegation's progress, in a line.
pub fn progress(row: &Delegation) -> Option<String> {
    let fields: Map<String, Value> = serde_json::from_str(row.progress.as_ref()?.get()).ok()?;
    let percent = fields.get("percent").map(|percent| format!("{}%", plain(percent)));
    let note = fields.get("note").map(plain);
    let eta = fields.get("eta_ms").and_then(Value::as_u64).map(|ms| format!("{} left", span(ms / 1000)));
    let parts: Vec<String> = [percent, note, eta].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The first line of a text, cut where it is long.
pub fn head(text: &str) -> String {
    const CHARS: usize = 100;
    let line = text.trim_start().lines().next().unwrap_or_default().trim_end();
    let more = text.trim().len() > line.len();
    let cut: String = line.chars().take(CHARS).collect();
    let more = if more || cut.len() < line.len() { "…" } else { "" };
    format!("{}{more}", printable(&cut))
}

/// An answer to the message with this id: its text first, and what is needed to go on.
pub fn answer(out: &Out, id: &str, message: &Message) -> String {
    let fields = fields(message);
    match message.kind.as_str() {
        "ack" if fields.get("state").and_then(Value::as_str) == Some("queued") => {
            let note = "queued: no agent is attached there now";
            format!("{} {}", out.paint(Paint::Warn, note), out.paint(Paint::Dim, short_id(id)))
        }
        // As much of the id as `axon wait` and `axon cancel` need.
        "ack" => format!("{} {}", out.paint(Paint::Good, "accepted"), out.paint(Paint::Dim, short_id(id))),
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
///
/// Its own id stands there in full where `axon reply` may need it, and not where nobody can answer.
pub fn entry(out: &Out, seq: u64, message: &Message, from: &Sender) -> String {
    let told = TOLD.contains(&message.kind.as_str());
    let reference = message.reference.as_deref().map(|id| if told { short_id(id) } else { id });
    let about = reference.map(|id| format!(" about {}", printable(id))).unwrap_or_default();
    let id =
        if told { String::new() } else { format!(" {}", out.paint(Paint::Dim, &printable(&message.id))) };
    headed(out, seq, message, from, &format!("{about}{id}"))
}

/// A request as one entry, and how it is answered. Its id stands in the answer's command, and only there.
pub fn request(out: &Out, flags: &str, seq: u64, message: &Message, from: &Sender) -> String {
    let text = headed(out, seq, message, from, "");
    format!("{text}\n  answer with `axon{flags} reply {} TEXT`", printable(&message.id))
}

fn headed(out: &Out, seq: u64, message: &Message, from: &Sender, more: &str) -> String {
    let kind = out.paint(Paint::Bold, &format!("{seq} {}", printable(&message.kind)));
    let from = sender(out, &message.from, from);
    let body = body(out, message).replace('\n', "\n  ");
    format!("{kind} from {from}{more}\n  {body}")
}

/// What a message says.
pub fn body(out: &Out, message: &Message) -> String {
    said(out, &message.kind, &message.payload)
}

/// What a payload of this kind says.
pub fn said(out: &Out, kind: &str, payload: &RawValue) -> String {
    let fields: Map<String, Value> = serde_json::from_str(payload.get()).unwrap_or_default();
    let (main, rest): (String, &[&str]) = match kind {
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
        "topic.message" => {
            let message = fields.get("message").map(|message| published(&message.to_string()));
            (format!("{}: {}", text(&fields, "topic"), message.unwrap_or_default()), &["stranger"])
        }
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

/// What was published on a topic, which is JSON, in one line: its text where it has nothing else.
pub fn published(json: &str) -> String {
    let fields: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
    let only = fields.get("text").filter(|_| fields.len() == 1).and_then(Value::as_str);
    let line = only.filter(|text| !text.contains(['\n', '\r'])).unwrap_or(json);
    printable(line).into_owned()
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
        let show = |kind: &str, payload: &str| answer(&OUT, "5f2c1e9a-6d0b", &message(kind, payload));
        assert_eq!(show("response", r#"{"data":null,"summary":"At 7."}"#), "At 7.");
        assert_eq!(show("response", r#"{"data":{"h":7},"summary":"At 7."}"#), "At 7.\ndata: {\"h\":7}");
        assert_eq!(show("ack", r#"{"accepted":true}"#), "accepted 5f2c1e9a");
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
        let message = message("notify", r#"{"topic":"door","data":"open"}"#);
        let entry = |from: &str| entry(&OUT, 4, &message, &serde_json::from_str(from).unwrap());
        assert_eq!(entry("{}"), "4 notify from 00112233 about r\n  door: open");
        let known = entry(r#"{"trust":"known","from_name":"bob"}"#);
        assert_eq!(known, "4 notify from bob (known) about r\n  door: open");
        // What is only claimed could be anybody's name.
        let claimed = entry(r#"{"trust":"unknown","from_name":"bob\u001b","claimed":true}"#);
        assert!(claimed.starts_with("4 notify from 00112233 bob\u{fffd}? (unknown) "), "{claimed}");
    }

    #[test]
    fn an_entry_has_the_ids_that_can_be_used() {
        let entry = |kind: &str, payload: &str| {
            let mut message = message(kind, payload);
            message.id = "5f2c1e9a-6d0b".to_owned();
            message.reference = Some("77aa0011-22bb".to_owned());
            entry(&OUT, 4, &message, &serde_json::from_str("{}").unwrap())
        };
        let cancel = entry("cancel", r#"{"reason":"found"}"#);
        assert_eq!(cancel, "4 cancel from 00112233 about 77aa0011-22bb 5f2c1e9a-6d0b\n  reason: found");
        let result = entry("result", r#"{"status":"completed","outcome":"Done."}"#);
        assert_eq!(result, "4 result from 00112233 about 77aa0011\n  completed: Done.");
        let mut query = message("query", r#"{"question":"When?"}"#);
        query.id = "5f2c1e9a-6d0b".to_owned();
        let query = request(&OUT, " --name a", 4, &query, &Sender::default());
        assert_eq!(
            query,
            "4 query from 00112233\n  When?\n  answer with `axon --name a reply 5f2c1e9a-6d0b TEXT`"
        );
        // What may be answered by a later version keeps its id.
        assert!(entry("unheard", "{}").contains("5f2c1e9a-6d0b"));
    }

    #[test]
    fn paths_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quoted(Path::new("/r/axon.sock")), "/r/axon.sock");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    #[test]
    fn spans_have_two_units() {
        for (secs, text) in
            [(0, "0 s"), (5, "5 s"), (60, "1 min"), (3600, "1 h"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(span(secs), text);
        }
        assert_eq!((between(5_000, 65_000), between(65_000, 5_000)), ("1 min".into(), "1 min".into()));
    }

    #[test]
    fn texts_are_shown_by_their_first_line() {
        assert_eq!(head(" one line \n"), "one line");
        assert_eq!(head("two\nlines"), "two…");
        assert_eq!(head(&"x".repeat(101)), format!("{}…", "x".repeat(100)));
        assert_eq!(head("\u{1b}[2J"), "\u{fffd}[2J");
        assert_eq!(head(""), "");
    }
}
