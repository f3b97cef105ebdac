//! Passes over JSON without looking into it: what a text, a number or a whole value takes.
//!
//! Each takes a part of what serde_json takes, with no white space but a space after a comma or a colon.
//! `None` means that it is something else, and perhaps JSON all the same.

/// Objects and lists are remembered by a bit each.
const OPEN_MAX: usize = u128::BITS as usize;

/// A bit in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each byte that is lower than `than`, up to 128. Behind the first of them others may
/// have theirs too.
fn lower(eight: u64, than: u8) -> u64 {
    eight.wrapping_sub(ONES * u64::from(than)) & !eight & (ONES << 7)
}

/// The first of these eight bytes that does not stand for itself in a text.
#[inline(always)]
fn special_of(eight: [u8; 8]) -> Option<usize> {
    let eight = u64::from_le_bytes(eight);
    let equal = |to: u8| lower(eight ^ (ONES * u64::from(to)), 1);
    let special = lower(eight, b' ') | equal(b'"') | equal(b'\\');
    (special != 0).then_some(special.trailing_zeros() as usize / 8)
}

/// The first control character.
fn control(bytes: &[u8]) -> Option<usize> {
    let (eights, rest) = bytes.as_chunks();
    let any = eights.iter().fold(0, |any, eight| any | lower(u64::from_le_bytes(*eight), b' '));
    let is_control = |byte: &u8| *byte < b' ';
    if any == 0 && !rest.iter().any(is_control) {
        return None;
    }
    bytes.iter().position(is_control)
}

/// Where from `at` on the first quote, backslash or control character stands, or the end.
fn special(json: &[u8], mut at: usize) -> usize {
    // Also of those that do not end at once most are short.
    for _ in 0..2 {
        let Some(eight) = json.get(at..).and_then(<[u8]>::first_chunk) else { break };
        match special_of(*eight) {
            Some(first) => return at + first,
            None => at += eight.len(),
        }
    }
    let rest = json.get(at..).unwrap_or_default();
    let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
    at + control(&rest[..end]).unwrap_or(end)
}

/// Behind the byte at `at`, if it is this one.
#[inline(always)]
pub fn byte(json: &[u8], at: usize, byte: u8) -> Option<usize> {
    (json.get(at) == Some(&byte)).then_some(at + 1)
}

/// What escapes a text has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Escapes {
    /// None: it stands there as it is meant.
    None,
    /// Of two characters.
    Short,
    /// By numbers as well, which may not be characters.
    Numbers,
}

/// Where the text ends whose first quote is at `at`, and what escapes it has.
#[inline(always)]
pub fn text(json: &[u8], at: usize) -> Option<(usize, Escapes)> {
    let at = byte(json, at, b'"')?;
    // As most names do.
    if let Some(eight) = json.get(at..).and_then(<[u8]>::first_chunk)
        && let Some(first) = special_of(*eight)
        && let Some(end) = byte(json, at + first, b'"')
    {
        return Some((end, Escapes::None));
    }
    rest_of_text(json, at)
}

/// The same, from behind its first quote on.
fn rest_of_text(json: &[u8], mut at: usize) -> Option<(usize, Escapes)> {
    let mut escapes = Escapes::None;
    loop {
        at = special(json, at);
        match json.get(at)? {
            b'"' => return Some((at + 1, escapes)),
            b'\\' => {
                let (end, escape) = escape(json, at)?;
                (at, escapes) = (end, escapes.max(escape));
            }
            _ => return None,
        }
    }
}

/// Where the escape at `at` ends.
fn escape(json: &[u8], at: usize) -> Option<(usize, Escapes)> {
    match json.get(at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some((at + 2, Escapes::Short)),
        b'u' => {
            let digits = json.get(at + 2..at + 6)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some((at + 6, Escapes::Numbers))
        }
        _ => None,
    }
}

/// Where the digits at `at` end; there is one at least.
fn digits(json: &[u8], at: usize) -> Option<usize> {
    let count = json.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (count > 0).then_some(at + count)
}

/// Where the number at `at` ends.
fn number(json: &[u8], mut at: usize) -> Option<usize> {
    at += usize::from(json.get(at) == Some(&b'-'));
    let begin = at;
    at = digits(json, at)?;
    if at > begin + 1 && json.get(begin) == Some(&b'0') {
        return None;
    }
    if json.get(at) == Some(&b'.') {
        at = digits(json, at + 1)?;
    }
    if matches!(json.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(json.get(at + 1), Some(b'+' | b'-')));
        at = digits(json, at)?;
    }
    Some(at)
}

/// Where the word at `at` ends.
#[inline(always)]
pub fn word(json: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    json.get(at..)?.starts_with(word).then_some(at + word.len())
}

/// `at`, or behind the space that stands there.
#[inline(always)]
pub fn space(json: &[u8], at: usize) -> usize {
    at + usize::from(json.get(at) == Some(&b' '))
}

/// Where the value of the field begins whose name is at `at`.
fn field(json: &[u8], at: usize) -> Option<usize> {
    let (end, _) = text(json, at)?;
    Some(space(json, byte(json, end, b':')?))
}

/// Where the value at `at` ends. Of objects and lists `depth_max` may be inside one another.
pub fn value(json: &[u8], mut at: usize, depth_max: usize) -> Option<usize> {
    // How many are open; of each a bit, the innermost last: is it an object?
    let (mut depth, mut objects) = (0, 0_u128);
    loop {
        let first = *json.get(at)?;
        at = match first {
            b'"' => text(json, at)?.0,
            b'{' | b'[' => {
                if depth == depth_max.min(OPEN_MAX) {
                    return None;
                }
                depth += 1;
                objects = objects << 1 | u128::from(first == b'{');
                at += 1;
                // The brackets are two apart, and the braces.
                if *json.get(at)? != first + 2 {
                    at = if first == b'{' { field(json, at)? } else { at };
                    continue;
                }
                at
            }
            b't' => word(json, at, b"true")?,
            b'f' => word(json, at, b"false")?,
            b'n' => word(json, at, b"null")?,
            _ => number(json, at)?,
        };
        // Behind a value.
        while depth > 0 {
            let in_object = objects & 1 == 1;
            match json.get(at)? {
                b',' => {
                    at = space(json, at + 1);
                    at = if in_object { field(json, at)? } else { at };
                    break;
                }
                b'}' if in_object => {}
                b']' if !in_object => {}
                _ => return None,
            }
            at += 1;
            depth -= 1;
            objects >>= 1;
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::super::nearly;
    use super::*;

    #[test]
    fn a_value_ends_where_serde_says() {
        let long = "x".repeat(100);
        let of = [
            r#"{"a":[1,-2.5e+3,0.1E-2,{"b":"\"\\\/\b\f\n\r\t\u00e9ü"}],"c":{},"d":[],"e":true}"#,
            r#"[[[{"":null}]],false,"0123456789abcdef\n0123456789abcdef0123456789abcdef"]"#,
            r#"{"a": 1, "b": ["x", "y"], "c": {"d": "e"}}"#,
            "-0.0e-0",
            &format!("\"{long}\\u0041{long}\""),
        ];
        for one in of {
            assert_eq!(value(one.as_bytes(), 0, 9), Some(one.len()), "{one}");
            assert!(serde_json::from_str::<&RawValue>(one).is_ok(), "{one}");
        }
        let (mut taken, mut refused) = (0, 0);
        for text in nearly::texts(&of, 100_000) {
            let mut values = serde_json::Deserializer::from_str(&text).into_iter::<&RawValue>();
            let serde = values.next().and_then(Result::ok).map(|raw| raw.get());
            refused += u32::from(serde.is_none());
            if let Some(end) = value(text.as_bytes(), 0, 9) {
                taken += 1;
                // Of numbers that follow each other without anything between serde says nothing.
                let alone = serde_json::from_str::<&RawValue>(&text[..end]);
                assert_eq!(alone.map(RawValue::get).ok(), Some(&text[..end]), "{text}");
                assert!(serde.is_none_or(|serde| serde == &text[..end]), "{text}: {serde:?}");
            }
        }
        assert!(taken > 5_000 && refused > 5_000, "{taken} were taken, {refused} refused");
    }

    #[test]
    fn a_text_ends_at_its_quote_wherever_that_stands() {
        for before in 0..100 {
            for (end, escapes) in
                [(r#"""#, Escapes::None), (r#"\n""#, Escapes::Short), (r#"\u0041\"x""#, Escapes::Numbers)]
            {
                let json = format!("\"{}{end},", "ü".repeat(before));
                assert_eq!(text(json.as_bytes(), 0), Some((json.len() - 1, escapes)), "{json}");
            }
            for wrong in ["\u{1}\"", "\\x\"", "\\u00g0\"", "\\u00", "\\", ""] {
                let json = format!("\"{}{wrong}", "x".repeat(before));
                assert_eq!(text(json.as_bytes(), 0), None, "{json}");
            }
        }
    }

    #[test]
    fn what_is_too_deep_is_left() {
        for (json, depth) in [("1", 0), ("[]", 1), ("{}", 1), (r#"{"a":[{"b":1}],"c":[]}"#, 3)] {
            assert_eq!(value(json.as_bytes(), 0, depth), Some(json.len()));
            assert!(depth == 0 || value(json.as_bytes(), 0, depth - 1).is_none());
        }
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(value(deep(OPEN_MAX).as_bytes(), 0, usize::MAX), Some(2 * OPEN_MAX));
        assert_eq!(value(deep(OPEN_MAX + 1).as_bytes(), 0, usize::MAX), None);
    }
}
