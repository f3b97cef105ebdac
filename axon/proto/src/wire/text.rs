//! Text that is built piece by piece, in a buffer whose room is used again.

use crate::limits::MESSAGE_BYTES_MAX;

/// A buffer between two uses. What has grown larger than any message is not kept.
#[derive(Debug, Default)]
pub struct Scratch(String);

impl Scratch {
    /// The buffer, empty.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.0)
    }

    /// Gives the buffer back.
    pub fn put_back(&mut self, mut text: String) {
        if text.capacity() <= 2 * MESSAGE_BYTES_MAX {
            text.clear();
            self.0 = text;
        }
    }
}

/// Appends a number.
pub fn push_number(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
}

/// Appends a text as JSON.
pub fn push_quoted(text: &mut String, value: &str) {
    if value.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        return text.push_str(&serde_json::to_string(value).unwrap_or_default());
    }
    text.push('"');
    text.push_str(value);
    text.push('"');
}

/// Appends JSON as one line: in valid JSON a line break stands only between tokens, where a space is as good.
pub fn push_one_line(text: &mut String, json: &str) {
    let mut rest = json;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest.as_bytes()) {
        text.push_str(&rest[..at]);
        text.push(' ');
        rest = &rest[at + 1..];
    }
    text.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_written_as_serde_writes_them() {
        for number in [0, 7, 10, 1_800_000_000_000, u64::MAX] {
            let mut text = String::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string());
        }
        for value in ["", "notify", "\"", "\\", "a\"b", "a\\b", "a\u{1}b", "\u{7f}\u{80}ü\u{2028}", "\n"] {
            let mut text = String::new();
            push_quoted(&mut text, value);
            assert_eq!(text, serde_json::to_string(value).unwrap());
        }
        let mut text = String::new();
        push_one_line(&mut text, "{\r\n\"a\":\n1}\n");
        assert_eq!(text, "{  \"a\": 1} ");
    }

    #[test]
    fn a_buffer_is_used_again_unless_it_has_grown_too_large() {
        let mut scratch = Scratch::default();
        scratch.put_back("x".repeat(100));
        let text = scratch.take();
        assert!(text.is_empty() && text.capacity() >= 100);
        scratch.put_back("x".repeat(2 * MESSAGE_BYTES_MAX));
        assert!(scratch.take().capacity() >= 2 * MESSAGE_BYTES_MAX);
        scratch.put_back("x".repeat(2 * MESSAGE_BYTES_MAX + 1));
        assert_eq!(scratch.take().capacity(), 0);
    }
}
