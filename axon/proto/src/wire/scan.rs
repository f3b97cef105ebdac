//! Reads JSON of the form that axon itself writes in one pass: objects without white space but for a space
//! after a comma or a colon, and without escapes in what it looks into; of envelopes, the one form only.
//!
//! It takes a part of what serde_json takes and reads that part as serde_json does; it never says that
//! anything is wrong. Whatever has another form is `None` here and left to serde_json, which alone decides
//! what is refused, and why. The tests compare the two.

use super::skip::{self, Escapes};
use super::{Envelope, Json, KindText, Parts};
use crate::limits::{DEPTH_MAX, KIND_BYTES_MAX};

/// The rest of an object, before a field or the end.
pub struct Fields<'a> {
    json: &'a str,
    at: usize,
    begun: bool,
}

/// What comes next in an object.
pub enum Next<'a> {
    /// A field's name; its value is to be read.
    Field(&'a str),
    /// The object and the text end here.
    End,
}

impl<'a> Fields<'a> {
    /// The fields of an object.
    pub fn of(json: &'a str) -> Option<Self> {
        json.starts_with('{').then_some(Self { json, at: 1, begun: false })
    }

    /// The next field, or the end of the text.
    pub fn next(&mut self) -> Option<Next<'a>> {
        if self.bytes().get(self.at) == Some(&b'}') && self.at + 1 == self.json.len() {
            return Some(Next::End);
        }
        if std::mem::replace(&mut self.begun, true) {
            self.at = skip::space(self.bytes(), skip::byte(self.bytes(), self.at, b',')?);
        }
        let name = self.text()?;
        self.at = skip::space(self.bytes(), skip::byte(self.bytes(), self.at, b':')?);
        Some(Next::Field(name))
    }

    fn bytes(&self) -> &'a [u8] {
        self.json.as_bytes()
    }

    /// What stands up to there.
    fn up_to(&mut self, end: usize) -> Option<&'a str> {
        let taken = self.json.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// A text without escapes.
    pub fn text(&mut self) -> Option<&'a str> {
        self.text_with(Escapes::None)
    }

    /// A text with these escapes at most, as it stands there.
    fn text_with(&mut self, most: Escapes) -> Option<&'a str> {
        let (end, escapes) = skip::text(self.bytes(), self.at)?;
        let quoted = self.up_to(end).filter(|_| escapes <= most)?;
        quoted.get(1..quoted.len() - 1)
    }

    /// The bytes of a text of which each escape is a character, as it stands there.
    pub fn text_bytes(&mut self) -> Option<usize> {
        self.text_with(Escapes::Short).map(str::len)
    }

    /// So many bytes, of whatever kind.
    fn chars(&mut self, bytes: usize) -> Option<&'a str> {
        self.up_to(self.at + bytes)
    }

    /// Exactly this.
    #[inline(always)]
    fn mark(&mut self, mark: &'static str) -> Option<()> {
        self.at = skip::word(self.bytes(), self.at, mark.as_bytes())?;
        Some(())
    }

    /// A number without sign, fraction and exponent.
    pub fn number(&mut self) -> Option<u64> {
        let rest = self.bytes().get(self.at..)?;
        let (mut number, mut count) = (0_u64, 0);
        while let Some(digit) = rest.get(count).filter(|byte| byte.is_ascii_digit()) {
            number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            count += 1;
        }
        if count == 0 || count > 1 && rest[0] == b'0' {
            return None;
        }
        self.at += count;
        Some(number)
    }

    /// True or false.
    pub fn flag(&mut self) -> Option<bool> {
        let (value, word) = match self.bytes().get(self.at)? {
            b't' => (true, &b"true"[..]),
            _ => (false, &b"false"[..]),
        };
        self.at = skip::word(self.bytes(), self.at, word)?;
        Some(value)
    }

    /// An object, as it stands there; with the one that it is in it is no deeper than a message may be.
    pub fn object(&mut self) -> Option<Json<'a>> {
        self.raw().filter(|raw| raw.starts_with('{')).map(Json::known)
    }

    /// Any value, as it stands there, no deeper either.
    pub fn raw(&mut self) -> Option<&'a str> {
        // Most values are texts, and short ones.
        let end = match self.bytes().get(self.at)? {
            b'"' => skip::text(self.bytes(), self.at)?.0,
            _ => skip::value(self.bytes(), self.at, DEPTH_MAX - 1)?,
        };
        self.up_to(end)
    }
}

/// An envelope in the form in which axon writes it, its fields in this order and nothing between them.
pub fn envelope(json: &str) -> Option<Parts> {
    let place = |text: &str| Envelope::place(json, text);
    let mut rest = Fields { json, at: 0, begun: true };
    rest.mark(r#"{"v":"#)?;
    let v = u32::try_from(rest.number()?).ok().filter(|v| *v > 0)?;
    rest.mark(r#","id":""#)?;
    let id = rest.chars(36)?.parse().ok()?;
    rest.mark(r#"","from":""#)?;
    let from = rest.chars(40)?.parse().ok()?;
    rest.mark(r#"","to":""#)?;
    let to = rest.chars(40)?.parse().ok()?;
    rest.mark(r#"","ts":"#)?;
    let ts = rest.number().filter(|ts| *ts > 0)?;
    rest.mark(r#","kind":"#)?;
    let kind = rest.text()?;
    if !(1..=KIND_BYTES_MAX).contains(&kind.len()) || kind.contains(char::is_control) {
        return None;
    }
    let kind = KindText::InRaw(place(kind));
    let mut reference = None;
    if rest.mark(r#","ref":""#).is_some() {
        reference = Some(rest.chars(36)?.parse().ok()?);
        rest.mark("\"")?;
    }
    let mut resend_until = None;
    if rest.mark(r#","resend_until":"#).is_some() {
        resend_until = Some(rest.number()?);
    }
    let read_receipt = rest.mark(r#","read_receipt":true"#).is_some();
    rest.mark(r#","payload":"#)?;
    let payload = place(rest.raw().filter(|raw| raw.starts_with('{'))?);
    rest.mark("}")?;
    let whole = rest.at == json.len();
    whole.then_some(Parts { v, id, from, to, ts, kind, reference, resend_until, read_receipt, payload })
}

/// Texts that are nearly right, for comparing what reads them.
#[cfg(test)]
pub(crate) mod nearly {
    /// What matters in JSON, and what does not belong there.
    const PIECES: [&str; 38] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\n",
        "\\u0061",
        "\\ud800",
        "\\x",
        "/",
        " ",
        "\n",
        "\t",
        "\u{1}",
        "\u{7f}",
        "\u{85}",
        "ü",
        "\u{2028}",
        "0",
        "1",
        "00",
        "-",
        "-1",
        "+",
        ".5",
        "e3",
        "E",
        "18446744073709551616",
        "true",
        "false",
        "null",
        "\"v\":1,",
        "\"kind\":\"x\",",
        "\"payload\":{},",
        ",\"future\":[{}]",
    ];

    /// splitmix64.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// So many texts, each made from one of these by up to three changes.
    pub(crate) fn texts(of: &[&str], count: u64) -> impl Iterator<Item = String> {
        (0..count).map(move |seed| {
            let mut state = seed;
            let mut below = |n: usize| (next(&mut state) % (n as u64)) as usize;
            let mut text: Vec<char> = of[below(of.len())].chars().collect();
            for _ in 0..=below(3) {
                let at = below(text.len() + 1);
                let end = (at + below(4)).min(text.len());
                let piece = match below(4) {
                    0 => String::new(),
                    // A part of it once more, which also makes a field come twice.
                    1 => text[below(text.len() + 1)..].iter().take(below(60)).collect(),
                    _ => PIECES[below(PIECES.len())].to_owned(),
                };
                text.splice(at..end, piece.chars());
            }
            text.into_iter().collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    const PLAIN: &[&str] = &[
        concat!(
            r#"{"v":1,"id":"ffffffff-ffff-4fff-bfff-ffffffffffff","#,
            r#""from":"ed25519.00000000000000000000000000000001","#,
            r#""to":"ed25519.00000000000000000000000000000002","ts":1800000000000,"kind":"query","#,
            r#""payload":{"question":"a\"b","x":[1.5,null]}}"#,
        ),
        concat!(
            r#"{"v":2,"id":"ffffffff-ffff-4fff-bfff-ffffffffffff","#,
            r#""from":"ed25519.00000000000000000000000000000001","#,
            r#""to":"ED25519.ABCDEF00000000000000000000000002","ts":1,"kind":"x.y","#,
            r#""ref":"00000000-0000-4000-8000-000000000000","resend_until":0,"read_receipt":true,"payload":{}}"#,
        ),
    ];

    fn parts(json: &str, parts: Parts) -> impl PartialEq + std::fmt::Debug + use<> {
        let Parts { v, id, from, to, ts, kind, reference, resend_until, read_receipt, payload } = parts;
        let kind = match kind {
            KindText::InRaw(place) => json[place].to_owned(),
            KindText::Own(kind) => kind.into(),
        };
        let payload = json[payload].to_owned();
        (v, id, from, to, (ts, kind, reference, resend_until, read_receipt, payload))
    }

    #[test]
    fn what_is_scanned_is_what_serde_reads() {
        for plain in PLAIN {
            assert!(envelope(plain).is_some(), "{plain}");
        }
        let (mut scanned, mut refused) = (0, 0);
        for text in nearly::texts(PLAIN, 50_000) {
            let read = read(&text);
            refused += u32::from(read.is_err());
            if let Some(found) = envelope(&text) {
                scanned += 1;
                let read = read.unwrap_or_else(|error| panic!("{text}\n{error:?}"));
                assert_eq!(parts(&text, found), parts(&text, read), "{text}");
            }
        }
        assert!(scanned > 500 && refused > 500, "{scanned} were scanned, {refused} refused");
    }

    #[test]
    fn what_is_too_deep_is_left_to_serde() {
        let deep = |depth| format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
        let with = |payload: &str| PLAIN[1].replace("{}}", &format!("{payload}}}"));
        assert!(envelope(&with(&deep(DEPTH_MAX - 1))).is_some());
        assert!(envelope(&with(&deep(DEPTH_MAX))).is_none());
        let line = |payload: &str| format!(r#"{{"cmd":"send","payload":{payload}}}"#);
        for (depth, fits) in [(DEPTH_MAX - 1, true), (DEPTH_MAX, false)] {
            let line = line(&deep(depth));
            let command = crate::ipc::Command::parse(line.as_bytes()).unwrap();
            assert_eq!(command.payload().is_ok(), fits, "{depth}");
        }
    }

    #[test]
    fn a_value_is_taken_as_it_stands_and_what_is_not_plain_is_left_to_serde() {
        for value in [r#""x""#, "12", r#"{"d":[1]}"#, "true", "false", "null", "-1", "[1]", r#""a\n""#] {
            let json = format!("{{\"a\":{value},\"b\":1}}");
            let mut fields = Fields::of(&json).unwrap();
            assert!(matches!(fields.next(), Some(Next::Field("a"))));
            assert_eq!(fields.raw(), Some(value));
            assert!(matches!(fields.next(), Some(Next::Field("b"))), "{json}");
        }
        for value in ["nil", "tru", "\"a\\x\"", "01", "{ }", "\t1"] {
            let json = format!("{{\"a\":{value}}}");
            let mut fields = Fields::of(&json).unwrap();
            assert!(matches!(fields.next(), Some(Next::Field("a"))));
            assert_eq!(fields.raw(), None, "{json}");
        }
    }
}
