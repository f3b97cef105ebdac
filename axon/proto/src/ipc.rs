//! Lines of the Unix socket: what a client says, parsed, and what it is told, written.
//!
//! Source: `spec/IPC.md`. One JSON object a line. Payloads and envelopes pass through as raw text.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::IpcError;
use crate::family::Open;
use crate::limits::{DEPTH_MAX, REQ_ID_BYTES_MAX};
use crate::store::Row;
use crate::trust::Level;

/// A client's line, its fields still raw.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Command<'a> {
    #[serde(borrow)]
    cmd: Option<&'a RawValue>,
    #[serde(borrow)]
    req_id: Option<&'a RawValue>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(borrow)]
    consumer: Option<&'a RawValue>,
    #[serde(borrow)]
    to: Option<&'a RawValue>,
    #[serde(borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow)]
    deadline_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    limit: Option<&'a RawValue>,
    #[serde(borrow)]
    kinds: Option<&'a RawValue>,
    #[serde(borrow)]
    up_to_seq: Option<&'a RawValue>,
    #[serde(borrow)]
    replay: Option<&'a RawValue>,
    #[serde(borrow)]
    answer: Option<&'a RawValue>,
    #[serde(borrow)]
    domains: Option<&'a RawValue>,
    #[serde(borrow)]
    capacity: Option<&'a RawValue>,
    #[serde(borrow)]
    lease: Option<&'a RawValue>,
    #[serde(borrow)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<&'a RawValue>,
    #[serde(borrow)]
    hold_secs: Option<&'a RawValue>,
    #[serde(borrow)]
    read_receipt: Option<&'a RawValue>,
    #[serde(borrow)]
    persist: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    cancel: Option<&'a RawValue>,
    #[serde(borrow)]
    peer: Option<&'a RawValue>,
    #[serde(borrow)]
    state: Option<&'a RawValue>,
    #[serde(borrow)]
    direction: Option<&'a RawValue>,
    #[serde(borrow)]
    watch: Option<&'a RawValue>,
    #[serde(borrow)]
    link: Option<&'a RawValue>,
    #[serde(borrow)]
    trust: Option<&'a RawValue>,
    #[serde(borrow)]
    why: Option<&'a RawValue>,
    #[serde(borrow)]
    label: Option<&'a RawValue>,
    #[serde(borrow)]
    expires_secs: Option<&'a RawValue>,
    #[serde(borrow)]
    uses: Option<&'a RawValue>,
    #[serde(borrow)]
    addrs: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    intent: Option<&'a RawValue>,
    #[serde(borrow)]
    session: Option<&'a RawValue>,
    #[serde(borrow)]
    domain: Option<&'a RawValue>,
    #[serde(borrow)]
    allow: Option<&'a RawValue>,
    #[serde(borrow)]
    uid: Option<&'a RawValue>,
    #[serde(borrow)]
    messages_per_minute: Option<&'a RawValue>,
    #[serde(borrow, rename = "name")]
    name_given: Option<&'a RawValue>,
}

macro_rules! fields {
    ($($name:ident $text:literal;)*) => {$(
        #[doc = concat!("The field `", $text, "`, or none; an error names it when it is of another type.")]
        pub fn $name<T: Deserialize<'a>>(&self) -> Result<Option<T>, IpcError> {
            optional($text, self.$name)
        }
    )*};
}

impl<'a> Command<'a> {
    /// Reads a line.
    pub fn parse(line: &'a [u8]) -> Result<Self, IpcError> {
        let invalid = |what: &str| {
            IpcError::invalid(format!("{what}: send one JSON object a line, such as {{\"cmd\":\"status\"}}"))
        };
        let text = std::str::from_utf8(line).map_err(|_| invalid("the line is not UTF-8"))?;
        if !text.trim_start().starts_with('{') {
            return Err(invalid("the line is not a JSON object"));
        }
        serde_json::from_str(text)
            .map_err(|error| invalid(&format!("the line is not valid JSON ({})", crate::wire::plain(&error))))
    }

    /// The command's name.
    pub fn name(&self) -> Result<Cow<'a, str>, IpcError> {
        optional("cmd", self.cmd)?.ok_or_else(|| IpcError::invalid("the field `cmd` is missing"))
    }

    /// The field `to`, where it is a list of peers.
    pub fn to_list<T: Deserialize<'a>>(&self) -> Result<Option<T>, IpcError> {
        optional("to", self.to)
    }

    /// Whether the field `answer` is given.
    pub fn has_answer(&self) -> bool {
        self.answer.is_some_and(|raw| raw.get() != "null")
    }

    /// Whether the field `kinds` is given.
    pub fn has_kinds(&self) -> bool {
        self.kinds.is_some_and(|raw| raw.get() != "null")
    }

    /// The command's id as raw JSON, to be echoed; empty when there is none.
    pub fn req_id(&self) -> &'a str {
        let raw = self.req_id.map_or("", RawValue::get);
        if raw.len() <= REQ_ID_BYTES_MAX
            && raw.starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
        {
            raw
        } else {
            ""
        }
    }

    /// A payload: a JSON object, `{}` when absent.
    pub fn payload(&self) -> Result<Cow<'a, RawValue>, IpcError> {
        object("payload", self.payload)
    }

    /// What an agent can do: a JSON object.
    pub fn capabilities(&self) -> Result<Cow<'a, RawValue>, IpcError> {
        if self.capabilities.is_none() {
            return Err(IpcError::invalid("the field `capabilities` is missing: give a JSON object"));
        }
        object("capabilities", self.capabilities)
    }

    fields! {
        version "version";
        consumer "consumer";
        to "to";
        kind "kind";
        reference "ref";
        deadline_ms "deadline_ms";
        limit "limit";
        kinds "kinds";
        up_to_seq "up_to_seq";
        replay "replay";
        answer "answer";
        domains "domains";
        capacity "capacity";
        lease "lease";
        token "token";
        hold_secs "hold_secs";
        read_receipt "read_receipt";
        persist "persist";
        id "id";
        cancel "cancel";
        peer "peer";
        state "state";
        direction "direction";
        watch "watch";
        link "link";
        trust "trust";
        why "why";
        label "label";
        expires_secs "expires_secs";
        uses "uses";
        addrs "addrs";
        message "message";
        intent "intent";
        session "session";
        domain "domain";
        allow "allow";
        uid "uid";
        messages_per_minute "messages_per_minute";
        name_given "name";
    }
}

fn optional<'a, T: Deserialize<'a>>(name: &str, raw: Option<&'a RawValue>) -> Result<Option<T>, IpcError> {
    let parsed = raw.map(|raw| serde_json::from_str(raw.get())).transpose();
    parsed.map_err(|error| {
        IpcError::invalid(format!("the field `{name}` is wrong: {}", crate::wire::plain(&error)))
    })
}

fn object<'a>(name: &str, raw: Option<&'a RawValue>) -> Result<Cow<'a, RawValue>, IpcError> {
    match raw {
        // The envelope goes around it.
        Some(raw) if crate::wire::too_deep(&format!("[{}]", raw.get())) => Err(IpcError::invalid(format!(
            "the field `{name}` nests too deeply: objects and lists are at most {} deep inside one another",
            DEPTH_MAX - 1
        ))),
        None => Ok(Cow::Owned(crate::wire::raw_json("{}".into()))),
        Some(raw) if raw.get().starts_with('{') => Ok(Cow::Borrowed(raw)),
        Some(_) => Err(IpcError::invalid(format!("the field `{name}` must be a JSON object"))),
    }
}

/// Writes one line, field after field.
#[derive(Debug)]
pub struct Line {
    text: String,
}

impl Line {
    /// `{"ok":true,"req_id":…`
    pub fn ok(req_id: &str) -> Self {
        Self { text: "{\"ok\":true".into() }.raw_unless_empty("req_id", req_id)
    }

    /// `{`, for an object within a line.
    pub fn empty() -> Self {
        Self { text: "{".into() }
    }

    /// `{"event":"…"`
    pub fn event(name: &str) -> Self {
        Self { text: "{".into() }.field("event", name)
    }

    /// A field with a value of ours.
    pub fn field<T: Serialize + ?Sized>(self, name: &str, value: &T) -> Self {
        let raw = serde_json::to_string(value).unwrap_or_else(|_| "null".into());
        self.raw(name, &raw)
    }

    /// A field, if there is a value.
    pub fn maybe<T: Serialize>(self, name: &str, value: Option<&T>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// A field whose value is JSON already.
    pub fn raw(mut self, name: &str, json: &str) -> Self {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.reserve(name.len() + json.len() + 8);
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
        self.text.push_str(json);
        self
    }

    fn raw_unless_empty(self, name: &str, json: &str) -> Self {
        if json.is_empty() { self } else { self.raw(name, json) }
    }

    /// The line.
    pub fn end(mut self) -> Arc<str> {
        self.text.push('}');
        self.text.into()
    }
}

/// `{"ok":false,…}`
pub fn error_line(req_id: &str, error: &IpcError) -> Arc<str> {
    let line = Line { text: "{\"ok\":false".into() }.raw_unless_empty("req_id", req_id);
    line.field("error", error.code.as_str()).field("message", &error.message).end()
}

/// A message as a v1 client gets it.
pub fn v1_line(raw: &str) -> Arc<str> {
    Line { text: "{\"inbound\":true".into() }.raw("envelope", raw).end()
}

/// Whose message it is, as clients are told it.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// How far it is trusted.
    pub trust: Level,
    /// What it is called, and whether only it says so.
    pub called: Option<(&'a str, bool)>,
}

impl Line {
    /// The fields that say whose message it is.
    fn sender(self, sender: Sender<'_>) -> Self {
        let (name, claimed) = sender.called.unzip();
        let claimed = claimed.filter(|claimed| *claimed);
        self.field("trust", &sender.trust).field("from_name", &name).maybe("claimed", claimed.as_ref())
    }
}

/// A message as a subscriber gets it.
pub fn inbound_line(row: &Row, sender: Sender<'_>, replay: bool) -> Arc<str> {
    Line::event("inbound")
        .field("replay", &replay)
        .field("seq", &row.seq)
        .field("buffered_at_ms", &row.at_ms)
        .sender(sender)
        .raw("envelope", &row.raw)
        .end()
}

/// A request as the client that is to answer it gets it; `left_ms` is what is left of its deadline.
pub fn offered_line(open: &Open, sender: Sender<'_>, left_ms: Option<u64>) -> Arc<str> {
    Line::event("inbound")
        .field("replay", &false)
        .field("seq", &open.seq)
        .field("buffered_at_ms", &open.at_ms)
        .field("answer", &true)
        .maybe("queued", open.queued.then_some(&true))
        .maybe("deadline_ms", left_ms.as_ref())
        .sender(sender)
        .raw("envelope", open.inbound.envelope.raw())
        .end()
}

/// One row of an `inbox` reply.
pub fn row_json(row: &Row, sender: Sender<'_>) -> Arc<str> {
    let line = Line::empty().field("seq", &row.seq).field("buffered_at_ms", &row.at_ms);
    line.sender(sender).raw("envelope", &row.raw).end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::IpcCode;

    #[test]
    fn fields_are_read_and_named_when_wrong() {
        let line = br#"{"cmd":"send","req_id":"a","limit":"x","payload":[],"to":"p","future":{"a":1}}"#;
        let command = Command::parse(line).unwrap();
        assert_eq!(command.name().unwrap(), "send");
        assert_eq!(command.req_id(), "\"a\"");
        assert_eq!(command.to::<String>().unwrap().as_deref(), Some("p"));
        assert!(command.limit::<u64>().unwrap_err().message.contains("`limit`"));
        assert!(command.payload().unwrap_err().message.contains("`payload`"));
        assert!(command.capabilities().is_err());
        for bad in [&b"[]"[..], b"", b"{", b"\xff", b"null", b"{\"cmd\":1,\"cmd\":2}"] {
            assert_eq!(Command::parse(bad).unwrap_err().code, IpcCode::InvalidCommand);
        }
        assert!(Command::parse(b"{}").unwrap().name().is_err());
        assert_eq!(Command::parse(b"{\"req_id\":7}").unwrap().req_id(), "7");
        assert_eq!(Command::parse(b"{\"req_id\":[1]}").unwrap().req_id(), "");
    }

    #[test]
    fn lines_are_json() {
        let line = Line::ok("\"1\"").field("a", "x\"y").maybe("b", None::<&u8>).raw("c", "{}").end();
        assert_eq!(&*line, r#"{"ok":true,"req_id":"1","a":"x\"y","c":{}}"#);
        assert_eq!(&*Line::event("e").end(), r#"{"event":"e"}"#);
        let error = error_line("", &IpcError::invalid("m"));
        assert_eq!(&*error, r#"{"ok":false,"error":"invalid_command","message":"m"}"#);
    }
}
