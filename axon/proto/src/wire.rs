//! The envelope: one JSON object per QUIC stream, decoded once and passed on as it came.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Envelope". Payloads stay raw text; nothing is encoded again on its way
//! through.

mod json;
mod scan;
mod skip;
mod text;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::error::{PeerCode, Refusal};
use crate::id::{AgentId, IdError, MsgId};
use crate::limits::{DEPTH_MAX, KIND_BYTES_MAX, MESSAGE_BYTES_MAX, PROTOCOL_VERSION};

pub use json::Json;
#[cfg(test)]
pub(crate) use scan::nearly;
pub(crate) use scan::{Fields, Next};
pub use text::Scratch;
pub(crate) use text::{push_number, push_one_line, push_quoted};

/// One message between two agents. Every field has been parsed; whose it is has not been checked yet.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Protocol version; never 0.
    pub v: u32,
    /// The message's own id.
    pub id: MsgId,
    /// Who wrote it.
    pub from: AgentId,
    /// Whom it is for.
    pub to: AgentId,
    /// Unix time in milliseconds; never 0.
    pub ts: u64,
    /// The message that it refers to.
    pub reference: Option<MsgId>,
    /// Until when its sender may send it again under its id (Unix milliseconds).
    pub resend_until: Option<u64>,
    /// Whether its sender asks to be told when it was read.
    pub read_receipt: bool,
    kind: KindText,
    raw: Arc<str>,
    payload: Range<usize>,
}

/// Where an envelope's kind stands.
#[derive(Debug, Clone)]
enum KindText {
    /// In the envelope's text.
    InRaw(Range<usize>),
    /// Here, because it was written with escapes there.
    Own(Box<str>),
}

/// An envelope but for its text, in which its kind and its payload have their places.
struct Parts {
    v: u32,
    id: MsgId,
    from: AgentId,
    to: AgentId,
    ts: u64,
    kind: KindText,
    reference: Option<MsgId>,
    resend_until: Option<u64>,
    read_receipt: bool,
    payload: Range<usize>,
}

impl Envelope {
    fn new(parts: Parts, raw: Arc<str>) -> Self {
        let Parts { v, id, from, to, ts, kind, reference, resend_until, read_receipt, payload } = parts;
        Self { v, id, from, to, ts, reference, resend_until, read_receipt, kind, raw, payload }
    }

    /// The place of a part of a text in that text.
    fn place(whole: &str, part: &str) -> Range<usize> {
        let start = part.as_ptr() as usize - whole.as_ptr() as usize;
        start..start + part.len()
    }

    /// What it is; unknown kinds stay text.
    pub fn kind(&self) -> &str {
        match &self.kind {
            KindText::InRaw(place) => self.raw.get(place.clone()).unwrap_or_default(),
            KindText::Own(kind) => kind,
        }
    }

    /// The whole envelope as JSON on one line.
    pub fn raw(&self) -> &Arc<str> {
        &self.raw
    }

    /// The same message, of and for agents that have another key since it was written.
    pub fn readdressed(self: &Arc<Self>, from: AgentId, to: AgentId) -> Arc<Self> {
        if (self.from, self.to) == (from, to) {
            return self.clone();
        }
        let header = Header {
            id: self.id,
            from,
            to,
            ts: self.ts,
            kind: self.kind(),
            reference: self.reference,
            resend_until: self.resend_until,
            read_receipt: self.read_receipt,
        };
        // Ids are of one length, so that it fits as it did.
        let payload = raw_json(self.payload().to_owned());
        encode(header, &payload).map_or_else(|_| self.clone(), Arc::new)
    }

    /// The payload, a JSON object.
    pub fn payload(&self) -> &str {
        self.raw.get(self.payload.clone()).unwrap_or("{}")
    }
}

/// A message that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// What to tell the peer.
    pub refusal: Refusal,
    /// The message's id, where that at least is valid: without it nothing can be answered.
    pub id: Option<MsgId>,
}

/// The encoded envelope would be longer than a message may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the message would be {bytes} bytes long and {MESSAGE_BYTES_MAX} are allowed: shorten it, or send it in parts"
)]
pub struct TooLarge {
    /// How long it would be.
    pub bytes: usize,
}

/// What most envelopes have around their payload, or a little more.
const HEADER_BYTES: usize = 320;
/// No envelope has so much around its payload, also where each character of its kind is escaped.
const HEADER_BYTES_MAX: usize = 1_024;

/// What an envelope is made of, but for its payload.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// The message's own id.
    pub id: MsgId,
    /// Who writes it.
    pub from: AgentId,
    /// Whom it is for.
    pub to: AgentId,
    /// Unix time in milliseconds.
    pub ts: u64,
    /// What it is.
    pub kind: &'a str,
    /// The message that it refers to.
    pub reference: Option<MsgId>,
    /// Until when it may be sent again under its id (Unix milliseconds).
    pub resend_until: Option<u64>,
    /// Whether word is wanted when it was read.
    pub read_receipt: bool,
}

impl Header<'_> {
    /// Writes the envelope up to its payload; gives where its kind stands.
    fn write(&self, text: &mut String) -> KindText {
        let Self { id, from, to, ts, kind, reference, resend_until, read_receipt } = self;
        text.push_str("{\"v\":");
        push_number(text, PROTOCOL_VERSION.into());
        text.push_str(",\"id\":\"");
        id.with_text(|id| text.push_str(id));
        text.push_str("\",\"from\":\"");
        from.with_text(|from| text.push_str(from));
        text.push_str("\",\"to\":\"");
        to.with_text(|to| text.push_str(to));
        text.push_str("\",\"ts\":");
        push_number(text, *ts);
        text.push_str(",\"kind\":");
        let start = text.len() + 1;
        push_quoted(text, kind);
        let place = start..text.len().saturating_sub(1);
        if let Some(reference) = reference {
            text.push_str(",\"ref\":\"");
            reference.with_text(|reference| text.push_str(reference));
            text.push('"');
        }
        if let Some(resend_until) = resend_until {
            text.push_str(",\"resend_until\":");
            push_number(text, *resend_until);
        }
        if *read_receipt {
            text.push_str(",\"read_receipt\":true");
        }
        text.push_str(",\"payload\":");
        if place.len() == kind.len() { KindText::InRaw(place) } else { KindText::Own((*kind).into()) }
    }

    /// Whether an envelope with this header and a payload of so many bytes is short enough.
    pub fn fits(&self, scratch: &mut Scratch, payload_bytes: usize) -> Result<(), TooLarge> {
        // Far more than any header takes: only near the bound it matters how much.
        if payload_bytes + HEADER_BYTES_MAX <= MESSAGE_BYTES_MAX {
            return Ok(());
        }
        let mut text = scratch.take();
        self.write(&mut text);
        let bytes = text.len() + payload_bytes + 1;
        scratch.put_back(text);
        if bytes > MESSAGE_BYTES_MAX { Err(TooLarge { bytes }) } else { Ok(()) }
    }
}

/// An envelope with this header and payload (a JSON object).
pub fn encode<'a>(header: Header<'_>, payload: impl Into<Json<'a>>) -> Result<Envelope, TooLarge> {
    encode_in(&mut Scratch::default(), header, &payload.into())
}

/// The same, in a buffer that is used again.
pub fn encode_in(
    scratch: &mut Scratch,
    header: Header<'_>,
    payload: &Json<'_>,
) -> Result<Envelope, TooLarge> {
    let mut text = scratch.take();
    text.reserve(HEADER_BYTES + payload.get().len());
    let kind = header.write(&mut text);
    let start = text.len();
    let bytes = start + payload.get().len() + 1;
    if bytes > MESSAGE_BYTES_MAX {
        scratch.put_back(text);
        return Err(TooLarge { bytes });
    }
    push_one_line(&mut text, payload.get());
    let payload = start..text.len();
    text.push('}');
    let raw = text.as_str().into();
    scratch.put_back(text);
    let Header { id, from, to, ts, reference, resend_until, read_receipt, .. } = header;
    let v = PROTOCOL_VERSION;
    let parts = Parts { v, id, from, to, ts, kind, reference, resend_until, read_receipt, payload };
    Ok(Envelope::new(parts, raw))
}

/// Reads one message. Fields that are not of the envelope are passed over.
pub fn decode(bytes: Vec<u8>) -> Result<Envelope, Undecodable> {
    let bad =
        |message: String| Undecodable { refusal: Refusal::new(PeerCode::InvalidEnvelope, message), id: None };
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(bad(format!("a message is at most {MESSAGE_BYTES_MAX} bytes long")));
    }
    let text = String::from_utf8(bytes).map_err(|_| bad("a message is UTF-8 text".into()))?;
    // What is scanned is one line, and not too deep.
    if let Some(parts) = scan::envelope(&text) {
        return Ok(Envelope::new(parts, text.into()));
    }
    let raw: Arc<str> = one_line(text).into();
    if too_deep(&raw) {
        // Its id is still read, for the answer; what is no message at all has none.
        let id = read(&raw).map_or_else(|error| error.id, |parts| Some(parts.id));
        let deep = bad(format!("objects and lists are at most {DEPTH_MAX} deep inside one another"));
        return Err(Undecodable { id, ..deep });
    }
    Ok(Envelope::new(read(&raw)?, raw))
}

/// Reads a message of any form, or says what is wrong with it.
fn read(raw: &str) -> Result<Parts, Undecodable> {
    #[derive(Deserialize)]
    struct Loose<'a> {
        #[serde(borrow)]
        v: Option<&'a RawValue>,
        #[serde(borrow)]
        id: Option<&'a RawValue>,
        #[serde(borrow)]
        from: Option<&'a RawValue>,
        #[serde(borrow)]
        to: Option<&'a RawValue>,
        #[serde(borrow)]
        ts: Option<&'a RawValue>,
        #[serde(borrow)]
        kind: Option<&'a RawValue>,
        #[serde(borrow, rename = "ref")]
        reference: Option<&'a RawValue>,
        #[serde(borrow)]
        resend_until: Option<&'a RawValue>,
        #[serde(borrow)]
        read_receipt: Option<&'a RawValue>,
        #[serde(borrow)]
        payload: Option<&'a RawValue>,
    }
    let bad = |id: Option<MsgId>, message: String| Undecodable {
        refusal: Refusal::new(PeerCode::InvalidEnvelope, message),
        id,
    };
    // A serde struct would also be read from an array.
    if !raw.trim_start().starts_with('{') {
        return Err(bad(None, "a message is one JSON object".into()));
    }
    let loose: Loose<'_> =
        serde_json::from_str(raw).map_err(|error| bad(None, format!("not a JSON object: {error}")))?;

    fn field<'a, T: Deserialize<'a>>(value: Option<&'a RawValue>) -> Option<T> {
        serde_json::from_str(value?.get()).ok()
    }
    let id: MsgId = field::<Cow<'_, str>>(loose.id)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| bad(None, "id must be a hyphenated lowercase UUID v4".into()))?;
    let bad = |message: &str| bad(Some(id), message.to_owned());

    // A version that is higher than any is another version all the same.
    let v = field::<u64>(loose.v)
        .map(|v| u32::try_from(v).unwrap_or(u32::MAX))
        .filter(|v| *v > 0)
        .ok_or_else(|| bad("v must be the protocol version, a positive integer"))?;
    let agent = |value, name: &str| {
        let text = field::<Cow<'_, str>>(value).ok_or_else(|| bad(&format!("{name} must be an agent id")))?;
        text.parse::<AgentId>().map_err(|error| match error {
            IdError::OtherType => Undecodable {
                refusal: Refusal::new(PeerCode::IncompatibleVersion, format!("{name}: {error}")),
                id: Some(id),
            },
            _ => bad(&format!("{name}: {error}")),
        })
    };
    let from = agent(loose.from, "from")?;
    let to = agent(loose.to, "to")?;
    let ts = field::<u64>(loose.ts)
        .filter(|ts| *ts > 0)
        .ok_or_else(|| bad("ts must be the Unix time in milliseconds, a positive integer"))?;
    let kind = field::<String>(loose.kind)
        .filter(|kind| (1..=KIND_BYTES_MAX).contains(&kind.len()) && !kind.contains(char::is_control))
        .ok_or_else(|| {
            bad(&format!("kind must be a text of 1 to {KIND_BYTES_MAX} bytes without control characters"))
        })?;
    let reference = match loose.reference {
        None => None,
        some => Some(
            field::<Cow<'_, str>>(some)
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| bad("ref must be a hyphenated lowercase UUID v4, null or absent"))?,
        ),
    };
    let payload = loose
        .payload
        .map(RawValue::get)
        .filter(|payload| payload.starts_with('{'))
        .ok_or_else(|| bad("payload must be a JSON object"))?;
    let payload = Envelope::place(raw, payload);
    // Both are axon's own; in another's envelope they may mean anything, and then mean nothing here.
    let resend_until = field::<u64>(loose.resend_until);
    let read_receipt = field::<bool>(loose.read_receipt).unwrap_or(false);
    let kind = KindText::Own(kind.into());
    Ok(Parts { v, id, from, to, ts, kind, reference, resend_until, read_receipt, payload })
}

/// Who sent an envelope that was decoded before.
pub fn sender(raw: &str) -> Option<AgentId> {
    #[derive(Deserialize)]
    struct From {
        from: AgentId,
    }
    serde_json::from_str::<From>(raw).ok().map(|envelope| envelope.from)
}

/// Whether JSON text nests deeper than others can read it.
pub fn too_deep(json: &str) -> bool {
    nests_deeper(json, DEPTH_MAX)
}

/// Whether JSON text has objects and lists more than so deep inside one another.
pub fn nests_deeper(json: &str, depth_max: usize) -> bool {
    // Nothing can be deeper than there are brackets, wherever they stand.
    if memchr::memchr2_iter(b'{', b'[', json.as_bytes()).nth(depth_max).is_none() {
        return false;
    }
    let (mut depth, mut text, mut escaped) = (0usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b'{' | b'[' if !text => {
                depth += 1;
                if depth > depth_max {
                    return true;
                }
            }
            b'}' | b']' if !text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Whether a JSON object may have one of these fields; one without them is not read for them.
pub fn may_have(object: &str, fields: &[&str]) -> bool {
    let object = object.as_bytes();
    let named = |at: usize| {
        let rest = object.get(at + 1..).unwrap_or_default();
        fields.iter().any(|field| {
            let after = rest.strip_prefix(field.as_bytes());
            after.is_some_and(|after| after.starts_with(b"\""))
        })
    };
    // Its name may be written with escapes.
    memchr::memchr(b'\\', object).is_some() || memchr::memchr_iter(b'"', object).any(named)
}

/// Raw JSON from text that is known to be JSON; `{}` where it is not.
pub fn raw_json(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| to_raw(&serde_json::Map::new()))
}

/// Reads a type from an object alone: serde takes a list for one as well, its items in the fields' order.
pub fn object_only<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<T, D::Error> {
    let object = serde_json::Map::deserialize(from)?;
    T::deserialize(serde_json::Value::Object(object)).map_err(D::Error::custom)
}

/// The same from text.
pub fn from_object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    if !text.trim_start().starts_with('{') {
        return Err(serde_json::Error::custom("it must be a JSON object"));
    }
    serde_json::from_str(text)
}

/// A value of ours as raw JSON.
pub fn to_raw<T: Serialize>(value: &T) -> Box<RawValue> {
    // Our own types have text keys only, so this cannot fail; `null` would be refused downstream.
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// A JSON error without its position, which means nothing to the sender of one line.
pub fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

/// A text cut to so many bytes, between characters.
pub fn cut(mut text: String, bytes_max: usize) -> String {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// What somebody claims, fit to be shown: nothing that could upset a terminal, no spaces around it, not too
/// long; none where nothing is left. What is fit stays as it is.
pub fn fit(text: &str, bytes_max: usize) -> Option<String> {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    let tidy = cut(plain.trim_start().to_owned(), bytes_max);
    Some(tidy.trim_end().to_owned()).filter(|text| !text.is_empty())
}

fn one_line(text: String) -> String {
    if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none() {
        return text;
    }
    let mut line = String::with_capacity(text.len());
    push_one_line(&mut line, &text);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "ed25519.00000000000000000000000000000001";
    const ID: &str = "ffffffff-ffff-4fff-bfff-ffffffffffff";

    fn with(field: &str, value: &str) -> Vec<u8> {
        let mut fields = vec![
            ("v", "1".to_owned()),
            ("id", format!("\"{ID}\"")),
            ("from", format!("\"{FROM}\"")),
            ("to", format!("\"{FROM}\"")),
            ("ts", "1".to_owned()),
            ("kind", "\"ping\"".to_owned()),
            ("payload", "{ \"a\" : 1 }".to_owned()),
        ];
        fields.retain(|(name, _)| *name != field);
        let mut parts: Vec<String> =
            fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        if !value.is_empty() {
            parts.push(format!("\"{field}\":{value}"));
        }
        format!("{{{}}}", parts.join(",\n")).into_bytes()
    }

    #[test]
    fn an_envelope_of_ours_is_what_serde_would_write() {
        let payload = raw_json(r#"{"question":"ü"}"#.into());
        for (kind, reference, resend_until, read_receipt) in
            [("query", None, None, false), ("a\"b\\", Some(ID.parse().unwrap()), Some(9), true)]
        {
            let (id, from) = (ID.parse().unwrap(), FROM.parse().unwrap());
            let header = Header { id, from, to: from, ts: 7, kind, reference, resend_until, read_receipt };
            let made = encode(header, &payload).unwrap();
            let mut expected = format!(
                r#"{{"v":1,"id":"{ID}","from":"{FROM}","to":"{FROM}","ts":7,"kind":{}"#,
                serde_json::to_string(kind).unwrap()
            );
            if read_receipt {
                expected += &format!(r#","ref":"{ID}","resend_until":9,"read_receipt":true"#);
            }
            expected += r#","payload":{"question":"ü"}}"#;
            assert_eq!(**made.raw(), *expected);
            assert_eq!((made.kind(), made.payload()), (kind, payload.get()));
            // Whether it fits is known before it is written, to the byte.
            let around = made.raw().len() - payload.get().len();
            let scratch = &mut Scratch::default();
            assert_eq!(header.fits(scratch, MESSAGE_BYTES_MAX - around), Ok(()));
            let bytes = MESSAGE_BYTES_MAX + 1;
            assert_eq!(header.fits(scratch, bytes - around), Err(TooLarge { bytes }));
        }
    }

    #[test]
    fn a_field_that_is_there_is_seen() {
        for object in
            [r#"{"domain":"a"}"#, r#"{"x":"","domain" : 1}"#, r#"{"\u0064omain":1}"#, r#"{"a":"\n"}"#]
        {
            assert!(may_have(object, &["x y", "domain"]), "{object}");
        }
        for object in [r#"{}"#, r#"{"domains":1}"#, r#"{"adomain":1,"b":"a domain"}"#] {
            assert!(!may_have(object, &["domain"]), "{object}");
        }
    }

    #[test]
    fn depth_is_counted_outside_of_texts() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!too_deep(&nested(DEPTH_MAX)) && too_deep(&nested(DEPTH_MAX + 1)));
        let text = format!(r#"{{"a":"\"{}"}}"#, "[".repeat(DEPTH_MAX * 2));
        assert!(!too_deep(&text));
        assert!(!too_deep(&"[]".repeat(DEPTH_MAX * 2)));
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let header = Header {
            id: ID.parse().unwrap(),
            from: FROM.parse().unwrap(),
            to: FROM.parse().unwrap(),
            ts: 7,
            kind: "query",
            reference: Some(ID.parse().unwrap()),
            resend_until: Some(9),
            read_receipt: true,
        };
        let made = encode(header, raw_json(r#"{"question":"ü\n"}"#.into())).unwrap();
        assert_eq!(made.payload(), r#"{"question":"ü\n"}"#);
        let read = decode(made.raw().as_bytes().to_vec()).unwrap();
        assert_eq!((read.id, read.ts, read.kind()), (made.id, 7, "query"));
        assert_eq!(read.reference, made.reference);
        assert_eq!((read.resend_until, read.read_receipt), (Some(9), true));
        assert_eq!(read.payload(), made.payload());
    }

    #[test]
    fn nesting_is_bounded_outside_texts() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(!too_deep(&nested(DEPTH_MAX - 1)) && too_deep(&nested(DEPTH_MAX)));
        assert!(!too_deep(&format!("[\"\\\"{}\"]", "[".repeat(500))));
        assert!(decode(with("x", &nested(500))).is_err());
        assert!(decode(with("x", &nested(50))).is_ok());
    }

    // shows: IPC-LINE-1
    #[test]
    fn line_breaks_between_tokens_become_spaces() {
        let read = decode(with("x", "[1,\r\n2]")).unwrap();
        assert!(!read.raw().contains(['\n', '\r']));
        assert_eq!(read.payload(), "{ \"a\" : 1 }");
        assert!(decode(with("ref", "null")).unwrap().reference.is_none());
    }

    #[test]
    fn each_bad_field_is_named_with_its_code() {
        use PeerCode::{IncompatibleVersion, InvalidEnvelope};
        let cases = [
            ("v", "0", InvalidEnvelope),
            ("v", "-1", InvalidEnvelope),
            ("v", "1.5", InvalidEnvelope),
            ("v", "", InvalidEnvelope),
            ("from", "\"rsa.00000000000000000000000000000001\"", IncompatibleVersion),
            ("from", "\"ed25519.1\"", InvalidEnvelope),
            ("to", "7", InvalidEnvelope),
            ("ts", "0", InvalidEnvelope),
            ("ts", "-4", InvalidEnvelope),
            ("kind", "\"\"", InvalidEnvelope),
            ("kind", "null", InvalidEnvelope),
            ("kind", "\"a\\nb\"", InvalidEnvelope),
            ("ref", "\"\"", InvalidEnvelope),
            ("ref", "\"00000000-0000-0000-0000-000000000000\"", InvalidEnvelope),
            ("payload", "[]", InvalidEnvelope),
            ("payload", "null", InvalidEnvelope),
            ("payload", "", InvalidEnvelope),
        ];
        for (field, value, code) in cases {
            let error = decode(with(field, value)).unwrap_err();
            assert_eq!(error.refusal.code, code, "{field} {value}");
            assert!(error.refusal.message.contains(field), "{}", error.refusal.message);
            assert!(error.id.is_some());
        }
        for (field, value) in [("id", ""), ("id", "\"x\""), ("id", "null")] {
            assert_eq!(decode(with(field, value)).unwrap_err().id, None);
        }
        for text in ["", "[]", "null", "{", "{}x", "\"x\"", "{\"v\":1,\"v\":1}"] {
            assert_eq!(decode(text.as_bytes().to_vec()).unwrap_err().id, None, "{text}");
        }
        assert_eq!(decode(vec![0xff]).unwrap_err().id, None);
        assert_eq!(decode(vec![b' '; MESSAGE_BYTES_MAX + 1]).unwrap_err().id, None);
    }

    #[test]
    fn a_message_may_be_as_long_as_the_bound_and_no_longer() {
        let id: MsgId = ID.parse().unwrap();
        let from: AgentId = FROM.parse().unwrap();
        let header = Header {
            id,
            from,
            to: from,
            ts: 1,
            kind: "notify",
            reference: None,
            resend_until: None,
            read_receipt: false,
        };
        let payload = |bytes: usize| raw_json(format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8)));
        let empty = encode(header, raw_json("{}".into())).unwrap().raw().len() - 2;
        let most = MESSAGE_BYTES_MAX - empty;
        let mut scratch = Scratch::default();
        let longest = encode(header, payload(most)).unwrap();
        assert_eq!(longest.raw().len(), MESSAGE_BYTES_MAX);
        assert_eq!(header.fits(&mut scratch, most), Ok(()));
        assert!(decode(longest.raw().as_bytes().to_vec()).is_ok());
        for more in 1..3 {
            let wrong = TooLarge { bytes: MESSAGE_BYTES_MAX + more };
            assert_eq!(encode(header, payload(most + more)).err(), Some(wrong));
            assert_eq!(header.fits(&mut scratch, most + more).err().map(|e| e.bytes), Some(wrong.bytes));
            let mut bytes = longest.raw().as_bytes().to_vec();
            bytes.resize(MESSAGE_BYTES_MAX + more, b' ');
            assert!(decode(bytes).is_err());
        }

        // To other agents it is the same message; to the same, the very same.
        let longest = Arc::new(longest);
        assert!(Arc::ptr_eq(&longest.readdressed(from, from), &longest));
        let to = AgentId([9; 16]);
        let other = longest.readdressed(from, to);
        assert_eq!((other.from, other.to, other.id, other.payload()), (from, to, id, longest.payload()));
        assert!(other.raw().contains(&to.to_string()));
    }

    #[test]
    fn brackets_within_texts_open_and_close_nothing() {
        for (json, depth) in [
            ("[[1],[2]]", 2),
            (r#"{"a":[{"b":1}],"c":[]}"#, 3),
            (r#"["}}}]]",["}"],["\"]]"]]"#, 2),
            (r#"["[[[[{{{{"]"#, 1),
        ] {
            assert!(nests_deeper(json, depth - 1) && !nests_deeper(json, depth), "{json}");
        }
        // Who sends what is too deep is still told which of its messages that was.
        let deep = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        let wrong = decode(with("payload", &format!("{{\"a\":{deep}}}"))).unwrap_err();
        assert_eq!(wrong.id.map(|id| id.to_string()).as_deref(), Some(ID));
    }

    #[test]
    fn a_text_is_cut_between_its_letters() {
        for (bytes, left) in [(0, ""), (1, "a"), (2, "a"), (3, "a\u{e9}"), (4, "a\u{e9}b"), (9, "a\u{e9}b")] {
            assert_eq!(cut("a\u{e9}b".into(), bytes), left);
        }
    }
}
