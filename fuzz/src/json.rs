//! JSON as it is written: numbers in their digits, texts with their escapes, names as often as they stand.
//!
//! A parser of values loses what mistakes are made of, so that a mutator needs one that keeps it.

use serde_json::Value;

/// So deep it reads; what is deeper is left to mutations of bytes.
const DEPTH_MAX: usize = 200;

/// A JSON value, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`, `true`, `false`, or a number in its digits.
    Plain(String),
    /// What stands between the quotes.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// Names, as they stand between their quotes, and values; in order, and perhaps twice.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// A text of these characters.
    pub fn text(of: &str) -> Self {
        let quoted = serde_json::to_string(of).unwrap_or_default();
        Self::Text(quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned())
    }

    /// A number.
    pub fn number(of: impl ToString) -> Self {
        Self::Plain(of.to_string())
    }

    /// A value without a second look at how it is written.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::text(text),
            Value::Array(all) => Self::List(all.iter().map(Self::of).collect()),
            Value::Object(all) => {
                Self::Object(all.iter().map(|(name, value)| (name.clone(), Self::of(value))).collect())
            }
            plain => Self::Plain(plain.to_string()),
        }
    }

    /// What it says, as far as it can be said: numbers beyond all bounds and halves of characters are null.
    pub fn value(&self) -> Value {
        match self {
            Self::Plain(text) => serde_json::from_str(text).unwrap_or_default(),
            Self::Text(text) => serde_json::from_str(&format!("\"{text}\"")).unwrap_or_default(),
            Self::List(all) => Value::Array(all.iter().map(Self::value).collect()),
            Self::Object(all) => {
                let name = |name: &String| serde_json::from_str(&format!("\"{name}\"")).unwrap_or_default();
                Value::Object(all.iter().map(|(of, value)| (name(of), value.value())).collect())
            }
        }
    }

    /// What a text says, as far as it is JSON.
    pub fn said(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes)
            .ok()
            .or_else(|| Self::read(bytes).map(|json| json.value()))
            .unwrap_or_default()
    }

    /// A field, the last one of its name.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(fields) = self else { return None };
        fields.iter().rev().find(|(of, _)| of == name).map(|(_, value)| value)
    }

    /// Sets a field, in its place where there is one.
    pub fn set(&mut self, name: &str, value: Self) {
        let Self::Object(fields) = self else { return };
        match fields.iter_mut().find(|(of, _)| of == name) {
            Some((_, place)) => *place = value,
            None => fields.push((name.to_owned(), value)),
        }
    }

    /// Takes a field out.
    pub fn remove(&mut self, name: &str) {
        if let Self::Object(fields) = self {
            fields.retain(|(of, _)| of != name);
        }
    }

    /// Reads a text; none: it is not JSON, or too deep.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.space();
        (reader.at == text.len()).then_some(value)
    }

    /// How many values there are in it, itself included.
    pub fn count(&self) -> usize {
        match self {
            Self::List(all) => 1 + all.iter().map(Self::count).sum::<usize>(),
            Self::Object(all) => 1 + all.iter().map(|(_, value)| value.count()).sum::<usize>(),
            _ => 1,
        }
    }

    /// The value of this number, counted from itself on downwards.
    pub fn nth(&mut self, n: usize) -> Option<&mut Self> {
        if n == 0 {
            return Some(self);
        }
        let mut left = n - 1;
        let children: Vec<&mut Self> = match self {
            Self::List(all) => all.iter_mut().collect(),
            Self::Object(all) => all.iter_mut().map(|(_, value)| value).collect(),
            _ => Vec::new(),
        };
        for child in children {
            let count = child.count();
            if left < count {
                return child.nth(left);
            }
            left -= count;
        }
        None
    }

    /// Whether this holds of it or of something in it.
    pub fn any(&self, holds: &mut dyn FnMut(&Self) -> bool) -> bool {
        holds(self)
            || match self {
                Self::List(all) => all.iter().any(|value| value.any(holds)),
                Self::Object(all) => all.iter().any(|(_, value)| value.any(holds)),
                _ => false,
            }
    }

    fn write(&self, to: &mut String) {
        match self {
            Self::Plain(text) => to.push_str(text),
            Self::Text(text) => {
                to.push('"');
                to.push_str(text);
                to.push('"');
            }
            Self::List(all) => {
                to.push('[');
                for (at, value) in all.iter().enumerate() {
                    if at > 0 {
                        to.push(',');
                    }
                    value.write(to);
                }
                to.push(']');
            }
            Self::Object(all) => {
                to.push('{');
                for (at, (name, value)) in all.iter().enumerate() {
                    if at > 0 {
                        to.push(',');
                    }
                    to.push('"');
                    to.push_str(name);
                    to.push_str("\":");
                    value.write(to);
                }
                to.push('}');
            }
        }
    }
}

impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn space(&mut self) {
        let rest = self.text[self.at..].bytes();
        self.at += rest.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
    }

    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.peek()? {
            b'"' => Some(Json::Text(self.quoted()?)),
            b'[' => {
                let mut all = Vec::new();
                self.at += 1;
                if self.eat(b']').is_some() {
                    return Some(Json::List(all));
                }
                loop {
                    all.push(self.value(depth + 1)?);
                    if self.eat(b',').is_none() {
                        self.eat(b']')?;
                        return Some(Json::List(all));
                    }
                }
            }
            b'{' => {
                let mut all = Vec::new();
                self.at += 1;
                if self.eat(b'}').is_some() {
                    return Some(Json::Object(all));
                }
                loop {
                    self.space();
                    let name = self.quoted()?;
                    self.eat(b':')?;
                    all.push((name, self.value(depth + 1)?));
                    if self.eat(b',').is_none() {
                        self.eat(b'}')?;
                        return Some(Json::Object(all));
                    }
                }
            }
            _ => {
                let rest = &self.text[self.at..];
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
                let end = rest.bytes().position(|byte| !plain(byte)).unwrap_or(rest.len());
                self.at += end;
                (end > 0).then(|| Json::Plain(rest[..end].to_owned()))
            }
        }
    }

    fn quoted(&mut self) -> Option<String> {
        let rest = self.text.get(self.at..)?.strip_prefix('"')?;
        let mut escaped = false;
        let end = rest.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        self.at += end + 2;
        Some(rest[..end].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_as_it_stood() {
        for text in [r#"{"a":1.0e5,"a":[null,true,-0],"b\"c":"\u0041\\","":{}}"#, r#"[]"#, r#""x""#] {
            assert_eq!(Json::read(text.as_bytes()).unwrap().to_string(), text);
        }
        for text in ["{", "{\"a\"}", "[1,]", "", "\"", "1 2"] {
            assert_eq!(Json::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn every_value_has_a_number() {
        let mut json = Json::read(br#"{"a":[1,2,{"b":3}],"c":4}"#).unwrap();
        let all: Vec<String> = (0..json.count()).map(|n| json.nth(n).unwrap().to_string()).collect();
        assert_eq!(
            all,
            ["{\"a\":[1,2,{\"b\":3}],\"c\":4}", "[1,2,{\"b\":3}]", "1", "2", "{\"b\":3}", "3", "4"]
        );
        assert_eq!(json.nth(7), None);
    }
}
