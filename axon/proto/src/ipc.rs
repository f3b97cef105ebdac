//! Lines of the Unix socket: what a client says, parsed, and what it is told, written.
//!
//! Source: `spec/IPC.md`. One JSON object a line. Payloads and envelopes pass through as raw text.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::IpcError;
use crate::family::Open;
use crate::id::MsgId;
use crate::limits::{DEPTH_MAX, REQ_ID_BYTES_MAX};
use crate::store::Row;
use crate::trust::Level;
use crate::wire::{Fields, Json, Next, Scratch, push_number, push_quoted};

/// Room for the short lines.
const LINE_BYTES: usize = 192;

macro_rules! command {
    ($($name:ident $text:literal;)*) => {
        /// A client's line, its fields still raw.
        #[derive(Debug, Default)]
        pub struct Command<'a> {
            cmd: Option<&'a str>,
            req_id: Option<&'a str>,
            to: Option<&'a str>,
            kind: Option<&'a str>,
            reference: Option<&'a str>,
            payload: Option<Json<'a>>,
            /// Whether it was read in one pass, which takes nothing that nests too deeply.
            scanned: bool,
            capabilities: Option<&'a str>,
            $($name: Option<&'a str>,)*
        }

        impl<'a> Command<'a> {
            /// Where a field goes; none for one that no command has, and for `payload`, which is passed on.
            fn place(&mut self, name: &str) -> Option<(&'static str, &mut Option<&'a str>)> {
                match name {
                    "cmd" => Some(("cmd", &mut self.cmd)),
                    "req_id" => Some(("req_id", &mut self.req_id)),
                    "to" => Some(("to", &mut self.to)),
                    "kind" => Some(("kind", &mut self.kind)),
                    "ref" => Some(("ref", &mut self.reference)),
                    "capabilities" => Some(("capabilities", &mut self.capabilities)),
                    $($text => Some(($text, &mut self.$name)),)*
                    _ => None,
                }
            }

            $(
                #[doc = concat!(
                    "The field `", $text, "`, or none; an error names it when it is of another type."
                )]
                pub fn $name<T: Deserialize<'a>>(&self) -> Result<Option<T>, IpcError> {
                    optional($text, self.$name)
                }
            )*
        }
    };
}

command! {
    version "version";
    consumer "consumer";
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
    tool "tool";
    hops "hops";
    on "on";
    status "status";
    allow "allow";
    uid "uid";
    messages_per_minute "messages_per_minute";
    name_given "name";
    unread "unread";
    topic "topic";
    from "from";
    kept "kept";
    history "history";
    last "last";
    hours "hours";
    off "off";
    quiet "quiet";
}

impl<'a> Command<'a> {
    /// Reads a line.
    pub fn parse(line: &'a [u8]) -> Result<Self, IpcError> {
        let invalid = |what: &str| {
            IpcError::invalid(format!("{what}: send one JSON object a line, such as {{\"cmd\":\"status\"}}"))
        };
        let text = std::str::from_utf8(line).map_err(|_| invalid("the line is not UTF-8"))?;
        if let Some(command) = Self::scan(text) {
            return Ok(command);
        }
        if !text.trim_start().starts_with('{') {
            return Err(invalid("the line is not a JSON object"));
        }
        Self::read(text)
            .map_err(|error| invalid(&format!("the line is not valid JSON ({})", crate::wire::plain(&error))))
    }

    /// Reads a line of the form that most programs write, in one pass; see [`Fields`].
    fn scan(text: &'a str) -> Option<Self> {
        let mut command = Self::default();
        let mut fields = Fields::of(text)?;
        while let Next::Field(name) = fields.next()? {
            let again = match command.place(name) {
                _ if name == "payload" => command.payload.replace(fields.object()?).is_some(),
                Some((_, field)) => field.replace(fields.raw()?).is_some(),
                None => fields.raw().map(|_| false)?,
            };
            if again {
                return None;
            }
        }
        command.scanned = true;
        Some(command)
    }

    /// Reads a line of any form, or says what is wrong with it.
    fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        struct Line;
        impl<'de> Visitor<'de> for Line {
            type Value = Command<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Command<'de>, A::Error> {
                let mut command = Command::default();
                while let Some(name) = map.next_key::<Cow<'_, str>>()? {
                    if name == "payload" {
                        if command.payload.is_some() {
                            return Err(serde::de::Error::duplicate_field("payload"));
                        }
                        command.payload = Some(map.next_value::<&RawValue>()?.into());
                        continue;
                    }
                    let Some((name, field)) = command.place(&name) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    if field.is_some() {
                        return Err(serde::de::Error::duplicate_field(name));
                    }
                    *field = Some(map.next_value::<&RawValue>()?.get());
                }
                Ok(command)
            }
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let command = json.deserialize_map(Line)?;
        json.end().map(|()| command)
    }

    /// The command's name.
    pub fn name(&self) -> Result<Cow<'a, str>, IpcError> {
        text("cmd", self.cmd)?.ok_or_else(|| IpcError::invalid("the field `cmd` is missing"))
    }

    /// The field `to`, where it is one peer.
    pub fn to(&self) -> Result<Option<Cow<'a, str>>, IpcError> {
        text("to", self.to)
    }

    /// The field `to`, where it is a list of peers.
    pub fn to_list<T: Deserialize<'a>>(&self) -> Result<Option<T>, IpcError> {
        optional("to", self.to)
    }

    /// The field `kind`.
    pub fn kind(&self) -> Result<Option<Cow<'a, str>>, IpcError> {
        text("kind", self.kind)
    }

    /// The field `ref`.
    pub fn reference(&self) -> Result<Option<Cow<'a, str>>, IpcError> {
        text("ref", self.reference)
    }

    /// Whether the field `answer` is given.
    pub fn has_answer(&self) -> bool {
        given(self.answer).is_some()
    }

    /// Whether the field `kinds` is given.
    pub fn has_kinds(&self) -> bool {
        given(self.kinds).is_some()
    }

    /// The command's id as raw JSON, to be echoed; empty when there is none.
    pub fn req_id(&self) -> &'a str {
        let raw = self.req_id.unwrap_or_default();
        if raw.len() <= REQ_ID_BYTES_MAX
            && raw.starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
        {
            raw
        } else {
            ""
        }
    }

    /// A payload: a JSON object, `{}` when absent.
    pub fn payload(&self) -> Result<Json<'_>, IpcError> {
        match self.payload.as_ref().filter(|json| json.get() != "null") {
            Some(json) if self.scanned => Ok(json.lent()),
            Some(json) => object("payload", json.get()).map(|()| json.lent()),
            None => Ok(Json::EMPTY),
        }
    }

    /// What an agent can do: a JSON object.
    pub fn capabilities(&self) -> Result<&'a RawValue, IpcError> {
        let given = optional::<&RawValue>("capabilities", self.capabilities)?;
        let missing = || IpcError::invalid("the field `capabilities` is missing: give a JSON object");
        let given = given.ok_or_else(missing)?;
        object("capabilities", given.get()).map(|()| given)
    }
}

/// `null` is as good as nothing.
fn given(raw: Option<&str>) -> Option<&str> {
    raw.filter(|raw| *raw != "null")
}

fn optional<'a, T: Deserialize<'a>>(name: &str, raw: Option<&'a str>) -> Result<Option<T>, IpcError> {
    let parsed = given(raw).map(serde_json::from_str).transpose();
    parsed.map_err(|error| {
        IpcError::invalid(format!("the field `{name}` is wrong: {}", crate::wire::plain(&error)))
    })
}

/// A text where it lies, if it was written without escapes.
fn text<'a>(name: &str, raw: Option<&'a str>) -> Result<Option<Cow<'a, str>>, IpcError> {
    let inner = raw.and_then(|raw| raw.strip_prefix('"')?.strip_suffix('"'));
    match inner.filter(|inner| !inner.contains('\\')) {
        Some(plain) => Ok(Some(Cow::Borrowed(plain))),
        None => optional::<String>(name, raw).map(|text| text.map(Cow::Owned)),
    }
}

/// That it is an object which is not too deep.
fn object(name: &str, json: &str) -> Result<(), IpcError> {
    // The envelope goes around it.
    const MAX: usize = DEPTH_MAX - 1;
    if crate::wire::nests_deeper(json, MAX) {
        return Err(IpcError::invalid(format!(
            "the field `{name}` nests too deeply: objects and lists are at most {MAX} deep \
             inside one another",
        )));
    }
    if !json.starts_with('{') {
        return Err(IpcError::invalid(format!("the field `{name}` must be a JSON object")));
    }
    Ok(())
}

/// Writes one line, field after field.
#[derive(Debug)]
pub struct Line {
    text: String,
}

impl Line {
    /// `{"ok":true,"req_id":…`
    pub fn ok(req_id: &str) -> Self {
        Self::ok_in(String::with_capacity(LINE_BYTES), req_id)
    }

    /// The same, in a buffer that is used again.
    pub fn ok_in(buffer: String, req_id: &str) -> Self {
        Self::begun(buffer, "{\"ok\":true").raw_unless_empty("req_id", req_id)
    }

    /// `{`, for an object within a line.
    pub fn empty() -> Self {
        Self::begun(String::with_capacity(LINE_BYTES), "{")
    }

    /// `{"event":"…"`
    pub fn event(name: &'static str) -> Self {
        Self::event_in(String::with_capacity(LINE_BYTES), name)
    }

    /// The same, in a buffer that is used again.
    pub fn event_in(buffer: String, name: &'static str) -> Self {
        Self::begun(buffer, "{").word("event", name)
    }

    fn begun(mut buffer: String, begin: &str) -> Self {
        buffer.push_str(begin);
        Self { text: buffer }
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
        self.text.reserve(name.len() + json.len() + 8);
        self.name(name);
        self.text.push_str(json);
        self
    }

    /// A field with a number.
    pub fn number(mut self, name: &str, value: u64) -> Self {
        self.name(name);
        push_number(&mut self.text, value);
        self
    }

    /// A field that is true or false.
    pub fn flag(self, name: &str, value: bool) -> Self {
        self.raw(name, if value { "true" } else { "false" })
    }

    /// A field with a word of the specification, which needs no escapes.
    pub fn word(mut self, name: &str, word: &'static str) -> Self {
        self.name(name);
        self.text.push('"');
        self.text.push_str(word);
        self.text.push('"');
        self
    }

    /// A field with a text.
    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        push_quoted(&mut self.text, value);
        self
    }

    /// A field with the id of a message.
    pub fn id(mut self, name: &str, id: &MsgId) -> Self {
        self.name(name);
        id.with_text(|id| {
            self.text.push('"');
            self.text.push_str(id);
            self.text.push('"');
        });
        self
    }

    fn name(&mut self, name: &str) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
    }

    fn raw_unless_empty(self, name: &str, json: &str) -> Self {
        if json.is_empty() { self } else { self.raw(name, json) }
    }

    /// The line.
    pub fn end(mut self) -> Arc<str> {
        self.text.push('}');
        self.text.into()
    }

    /// The line; its buffer is given back.
    pub fn end_in(mut self, scratch: &mut Scratch) -> Arc<str> {
        self.text.push('}');
        let line = self.text.as_str().into();
        scratch.put_back(self.text);
        line
    }
}

/// `{"ok":false,…}`
pub fn error_line(req_id: &str, error: &IpcError) -> Arc<str> {
    let buffer = String::with_capacity(LINE_BYTES);
    let line = Line::begun(buffer, "{\"ok\":false").raw_unless_empty("req_id", req_id);
    line.word("error", error.code.as_str()).text("message", &error.message).end()
}

/// A message as a v1 client gets it.
pub fn v1_line(raw: &str) -> Arc<str> {
    let buffer = String::with_capacity(raw.len() + LINE_BYTES);
    Line::begun(buffer, "{\"inbound\":true").raw("envelope", raw).end()
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
        let line = self.word("trust", sender.trust.as_str());
        match sender.called {
            None => line.raw("from_name", "null"),
            Some((name, false)) => line.text("from_name", name),
            Some((name, true)) => line.text("from_name", name).flag("claimed", true),
        }
    }
}

/// A message as a subscriber gets it.
pub fn inbound_line(scratch: &mut Scratch, row: &Row, sender: Sender<'_>, replay: bool) -> Arc<str> {
    Line::event_in(scratch.take(), "inbound")
        .flag("replay", replay)
        .number("seq", row.seq)
        .number("buffered_at_ms", row.at_ms)
        .sender(sender)
        .raw("envelope", &row.raw)
        .end_in(scratch)
}

/// A request as the client that is to answer it gets it; `left_ms` is what is left of its deadline.
pub fn offered_line(
    scratch: &mut Scratch,
    open: &Open,
    sender: Sender<'_>,
    left_ms: Option<u64>,
) -> Arc<str> {
    let mut line = Line::event_in(scratch.take(), "inbound")
        .flag("replay", false)
        .number("seq", open.seq)
        .number("buffered_at_ms", open.at_ms)
        .flag("answer", true);
    if open.queued {
        line = line.flag("queued", true);
    }
    if let Some(left_ms) = left_ms {
        line = line.number("deadline_ms", left_ms);
    }
    line.sender(sender).raw("envelope", open.inbound.envelope.raw()).end_in(scratch)
}

/// One row of an `inbox` reply.
pub fn row_json(row: &Row, sender: Sender<'_>) -> Arc<str> {
    let line = Line::empty().number("seq", row.seq).number("buffered_at_ms", row.at_ms);
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
        assert_eq!(command.to().unwrap().as_deref(), Some("p"));
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
    fn what_is_scanned_is_what_serde_reads() {
        let plain = [
            concat!(
                r#"{"cmd":"send","req_id":"1","to":"ed25519.00000000000000000000000000000001","#,
                r#""kind":"query","payload":{"question":"a\"b","x":[1.5,null]}}"#,
            ),
            concat!(
                r#"{"req_id":7,"cmd":"subscribe","lease":true,"replay":false,"#,
                r#""consumer":null,"future":{"a":[]},"":0}"#,
            ),
        ];
        for plain in plain {
            assert!(Command::scan(plain).is_some(), "{plain}");
        }
        let (mut scanned, mut refused) = (0, 0);
        for text in crate::wire::nearly::texts(&plain, 50_000) {
            let read = Command::read(&text);
            refused += u32::from(read.is_err());
            if let Some(mut found) = Command::scan(&text) {
                scanned += 1;
                found.scanned = false;
                let read = read.unwrap_or_else(|error| panic!("{text}\n{error}"));
                assert_eq!(format!("{found:?}"), format!("{read:?}"), "{text}");
            }
        }
        assert!(scanned > 500 && refused > 500, "{scanned} were scanned, {refused} refused");
    }

    #[test]
    fn a_field_that_comes_twice_is_refused_by_its_name_and_one_that_is_null_is_none() {
        for (line, field) in [
            (r#"{"cmd":null,"cmd":"send"}"#, "cmd"),
            (r#"{"payload":{},"payload":{}}"#, "payload"),
            (r#"{"payload":null,"payload":{}}"#, "payload"),
            (r#"{"ref":"a","cmd":"x","r\u0065f":"b"}"#, "ref"),
        ] {
            let message = Command::parse(line.as_bytes()).unwrap_err().message;
            assert!(message.contains(&format!("duplicate field `{field}`")), "{line}: {message}");
        }
        let line =
            br#"{"cmd":null,"kind":null,"payload":null,"answer":null,"capabilities":null,"req_id":null}"#;
        let command = Command::parse(line).unwrap();
        assert!(command.name().is_err() && command.capabilities().is_err() && !command.has_answer());
        assert_eq!((command.kind().unwrap(), command.req_id()), (None, ""));
        assert_eq!(command.payload().unwrap().get(), "{}");
        let command = Command::parse(br#"{"kind":"a\u0062","to":7}"#).unwrap();
        assert_eq!(command.kind().unwrap().as_deref(), Some("ab"));
        assert!(command.to().unwrap_err().message.contains("`to`"));
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
