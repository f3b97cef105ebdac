//! JSON with comments, changed in its own text.
//!
//! The parser names the places, and only they are cut or filled, so that comments, order, indentation and
//! line ends of all else stay as they are. The parser's own syntax tree for such changes spreads an object
//! that stands on one line over several, and so is not used.

use std::ops::Range;

use jsonc_parser::ast::{Object, ObjectProp, Value as Node};
use jsonc_parser::common::Ranged as _;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde_json::{Map, Value};

use super::edit::{Fault, Field, Spot, line_end};

/// What a client reads beside plain JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Comments.
    pub comments: bool,
    /// A comma behind the last.
    pub commas: bool,
}

impl Dialect {
    /// Only what the client reads is understood: a file that it cannot read is to be mended, not written to.
    fn options(self) -> ParseOptions {
        ParseOptions {
            allow_comments: self.comments,
            allow_trailing_commas: self.commas,
            allow_loose_object_property_names: false,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
        }
    }
}

/// The step of the indentation where a file shows none.
const STEP: &str = "  ";

/// The entry, where there is one.
pub fn look(dialect: Dialect, text: &str, spot: Spot) -> Result<Option<Map<String, Value>>, Fault> {
    let document = parse(dialect, text)?;
    let Some(entry) = document.entry(spot)? else { return Ok(None) };
    match Value::from(Node::Object(entry.clone())) {
        Value::Object(entry) => Ok(Some(entry)),
        _ => Err(document.shape(entry.range.start, spot.name)),
    }
}

/// Whether the table that holds the entries is there, and whether nothing is in it.
pub fn table(dialect: Dialect, text: &str, name: &str) -> Result<Option<bool>, Fault> {
    let document = parse(dialect, text)?;
    let Some(root) = &document.root else { return Ok(None) };
    Ok(document.object(root, name)?.map(|table| document.is_bare(table)))
}

/// The text with the entry's fields as given; other fields of an entry that is there stay.
pub fn put(dialect: Dialect, text: &str, spot: Spot, fields: &[Field]) -> Result<String, Fault> {
    let document = parse(dialect, text)?;
    let Some(root) = &document.root else {
        let newline = line_end(text);
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { newline };
        return put(dialect, &format!("{text}{gap}{{}}{newline}"), spot, fields);
    };
    let Some(table) = document.object(root, spot.table)? else {
        let entry = (spot.name, Written::Object(fields));
        return Ok(document.with(root, spot.table, &Written::Nested(&entry)));
    };
    if document.object(table, spot.name)?.is_none() {
        return Ok(document.with(table, spot.name, &Written::Object(fields)));
    }
    let mut changed = text.to_owned();
    for (key, value) in fields {
        // Each change moves what comes after it, so that the next is made in a text that is read again.
        let document = parse(dialect, &changed)?;
        let Some(entry) = document.entry(spot)? else { return Err(document.shape(0, spot.name)) };
        let next = match document.one(entry, key)? {
            Some(field) if Value::from(field.value.clone()) == *value => continue,
            Some(field) => {
                document.replaced(field.value.range().start..field.value.range().end, &flat(value))
            }
            None => document.with(entry, key, &Written::Plain(value)),
        };
        changed = next;
    }
    Ok(changed)
}

/// The text without the entry.
pub fn take(dialect: Dialect, text: &str, spot: Spot) -> Result<String, Fault> {
    let document = parse(dialect, text)?;
    let Some(root) = &document.root else { return Ok(text.to_owned()) };
    match document.object(root, spot.table)? {
        Some(table) => Ok(document.without(table, spot.name)),
        None => Ok(text.to_owned()),
    }
}

/// The text without the table.
pub fn take_table(dialect: Dialect, text: &str, name: &str) -> Result<String, Fault> {
    let document = parse(dialect, text)?;
    Ok(document.root.as_ref().map_or_else(|| text.to_owned(), |root| document.without(root, name)))
}

/// A text and what is in it.
struct Document<'a> {
    text: &'a str,
    /// None: there is no value at all, as in an empty file.
    root: Option<Object<'a>>,
}

/// What is to be written as a value.
enum Written<'a> {
    Plain(&'a Value),
    Object(&'a [Field]),
    Nested(&'a (&'a str, Written<'a>)),
}

fn parse(dialect: Dialect, text: &str) -> Result<Document<'_>, Fault> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &dialect.options()).map_err(|error| {
        Fault::Syntax {
            line: error.line_display(),
            column: error.column_display(),
            why: error.kind().to_string(),
        }
    })?;
    let mut document = Document { text, root: None };
    match parsed.value {
        Some(Node::Object(root)) => document.root = Some(root),
        Some(other) => return Err(document.shape(other.range().start, "the whole")),
        None => {}
    }
    Ok(document)
}

impl<'a> Document<'a> {
    fn entry(&self, spot: Spot) -> Result<Option<&Object<'a>>, Fault> {
        let Some(root) = &self.root else { return Ok(None) };
        match self.object(root, spot.table)? {
            Some(table) => self.object(table, spot.name),
            None => Ok(None),
        }
    }

    /// The object of this name, where there is one.
    fn object<'b>(&self, parent: &'b Object<'a>, name: &str) -> Result<Option<&'b Object<'a>>, Fault> {
        match self.one(parent, name)? {
            Some(ObjectProp { value: Node::Object(object), .. }) => Ok(Some(object)),
            Some(other) => Err(self.shape(other.value.range().start, name)),
            None => Ok(None),
        }
    }

    /// The property of this name. Readers do not agree on which of two counts.
    fn one<'b>(&self, parent: &'b Object<'a>, name: &str) -> Result<Option<&'b ObjectProp<'a>>, Fault> {
        let mut found = parent.properties.iter().filter(|property| property.name.as_str() == name);
        let first = found.next();
        match found.next() {
            Some(second) => {
                let (line, column) = self.place(second.range.start);
                Err(Fault::Twice { line, column, name: name.to_owned() })
            }
            None => Ok(first),
        }
    }

    fn shape(&self, at: usize, name: &str) -> Fault {
        let (line, column) = self.place(at);
        Fault::Shape { line, column, name: name.to_owned() }
    }

    fn place(&self, at: usize) -> (usize, usize) {
        super::edit::place(self.text, at)
    }

    fn part(&self, range: Range<usize>) -> &'a str {
        self.text.get(range).unwrap_or_default()
    }

    fn replaced(&self, range: Range<usize>, with: &str) -> String {
        let mut changed = self.text.to_owned();
        changed.replace_range(range, with);
        changed
    }

    /// Whether there is nothing between the braces.
    fn is_bare(&self, object: &Object) -> bool {
        self.inside(object).trim().is_empty()
    }

    fn inside(&self, object: &Object) -> &'a str {
        self.part(object.range.start + 1..object.range.end.saturating_sub(1))
    }

    /// The spaces that begin the line of this place.
    fn indent(&self, at: usize) -> &'a str {
        let line = self.part(self.line_start(at)..self.text.len());
        line.get(..line.len() - line.trim_start_matches([' ', '\t']).len()).unwrap_or_default()
    }

    fn line_start(&self, at: usize) -> usize {
        self.part(0..at).rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Whether only spaces stand before it on its line.
    fn begins_line(&self, at: usize) -> bool {
        self.part(self.line_start(at)..at).trim().is_empty()
    }

    /// By how much the file indents what is inside something.
    fn step(&self) -> &'a str {
        let first = self.root.as_ref().and_then(|root| root.properties.first());
        let step = first.filter(|first| self.begins_line(first.range.start));
        step.map(|first| self.indent(first.range.start)).filter(|step| !step.is_empty()).unwrap_or(STEP)
    }

    /// Past spaces and comments; with `line`, only up to the end of the line.
    fn past_blank(&self, mut at: usize, line: bool) -> usize {
        loop {
            let rest = self.part(at..self.text.len());
            let blank: &[char] = if line { &[' ', '\t'] } else { &[' ', '\t', '\r', '\n'] };
            let spaces = rest.len() - rest.trim_start_matches(blank).len();
            let rest = rest.get(spaces..).unwrap_or_default();
            let comment = if rest.starts_with("//") {
                rest.find(['\r', '\n']).unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                let end = rest.find("*/").map_or(rest.len(), |end| end + 2);
                if line && rest.get(..end).unwrap_or_default().contains('\n') {
                    return at;
                }
                end
            } else {
                // Spaces before the end of a line are left where they are.
                return if line { at } else { at + spaces };
            };
            at += spaces + comment;
        }
    }

    /// Where the comma behind this place is, comments between them aside.
    fn comma(&self, at: usize) -> Option<usize> {
        let at = self.past_blank(at, false);
        self.part(at..self.text.len()).starts_with(',').then_some(at)
    }

    /// The text with a property more in this object, behind all others.
    fn with(&self, object: &Object, name: &str, value: &Written) -> String {
        let key = flat(&Value::from(name));
        let newline = line_end(self.text);
        let Some(last) = object.properties.last() else {
            return self.with_first(object, &key, value);
        };
        let comma = self.comma(last.range.end);
        if !self.part(object.range.start..last.range.start).contains('\n') {
            // All on one line, which stays one line.
            let spaced = self.part(object.range.start..object.range.end).contains("\": ");
            let (space, text) = (if spaced { " " } else { "" }, value.inline(spaced));
            return match comma {
                Some(comma) => self.replaced(comma + 1..comma + 1, &format!("{space}{key}:{space}{text},")),
                None => {
                    self.replaced(last.range.end..last.range.end, &format!(",{space}{key}:{space}{text}"))
                }
            };
        }
        let indent = self.indent(last.range.start);
        let text = value.lines(newline, indent, self.step());
        // What is said behind the last one on its line is said of it.
        let at = self.past_blank(comma.map_or(last.range.end, |comma| comma + 1), true);
        // A file that has a comma behind its last one goes on to.
        let (before, behind) = if comma.is_some() { ("", ",") } else { (",", "") };
        let between = self.part(last.range.end..at);
        let added = format!("{before}{between}{newline}{indent}{key}: {text}{behind}");
        self.replaced(last.range.end..at, &added)
    }

    /// The same where there is none yet.
    fn with_first(&self, object: &Object, key: &str, value: &Written) -> String {
        let newline = line_end(self.text);
        let in_line = self.root.as_ref().is_some_and(|root| {
            !root.properties.is_empty() && !self.part(root.range.start..root.range.end).contains('\n')
        });
        if in_line && self.is_bare(object) {
            let spaced = self.text.contains("\": ");
            let space = if spaced { " " } else { "" };
            let text = format!("{{{key}:{space}{}}}", value.inline(spaced));
            return self.replaced(object.range.start..object.range.end, &text);
        }
        let (base, step) = (self.indent(object.range.start), self.step());
        let indent = format!("{base}{step}");
        let text = format!("{newline}{indent}{key}: {}", value.lines(newline, &indent, step));
        let inside = self.inside(object);
        // Behind the comments that stand there alone.
        let at = object.range.start + 1 + inside.trim_end().len();
        let left = self.part(at..object.range.end.saturating_sub(1));
        if left.contains('\n') && !inside.trim().is_empty() {
            return self.replaced(at..at, &text);
        }
        self.replaced(at..object.range.end.saturating_sub(1), &format!("{text}{newline}{base}"))
    }

    /// The text without this property of the object.
    fn without(&self, object: &Object, name: &str) -> String {
        let properties = &object.properties;
        let Some(index) = properties.iter().position(|property| property.name.as_str() == name) else {
            return self.text.to_owned();
        };
        let Some(gone) = properties.get(index) else { return self.text.to_owned() };
        let before = index.checked_sub(1).and_then(|index| properties.get(index));
        let comma = self.comma(gone.range.end);
        let mut end = comma.map_or(gone.range.end, |comma| comma + 1);
        let mut start = gone.range.start;
        let after = self.past_blank(end, true);
        let rest = self.part(after..self.text.len()).trim_start_matches([' ', '\t']);
        if self.begins_line(start) && (rest.starts_with('\n') || rest.starts_with("\r\n")) {
            // It has its lines for itself.
            start = self.line_start(start);
            end = self.part(after..self.text.len()).find('\n').map_or(self.text.len(), |at| after + at + 1);
        } else if index + 1 < properties.len() {
            end += self.part(end..self.text.len()).chars().take_while(|c| matches!(c, ' ' | '\t')).count();
        } else if let Some(before) = before {
            let gap = self.part(before.range.end..start);
            // The space between the comma and it.
            start -= gap.len() - gap.trim_end_matches([' ', '\t']).len();
        }
        let mut changed = self.text.to_owned();
        changed.replace_range(start..end, "");
        // The one before it is the last now, and has a comma only where the last one had.
        let stray = before.filter(|_| index + 1 == properties.len() && comma.is_none());
        if let Some(comma) = stray.and_then(|before| self.comma(before.range.end)) {
            changed.replace_range(comma..comma + 1, "");
        }
        if properties.len() == 1 {
            let close = object.range.end.saturating_sub(1 + end - start);
            let inside = changed.get(object.range.start + 1..close).unwrap_or_default();
            if inside.trim().is_empty() {
                changed.replace_range(object.range.start + 1..close, "");
            }
        }
        changed
    }
}

impl Written<'_> {
    /// On lines of its own, which begin with this indentation.
    fn lines(&self, newline: &str, indent: &str, step: &str) -> String {
        let inner = format!("{indent}{step}");
        let fields: Vec<String> = match self {
            Self::Plain(value) => return flat(value),
            Self::Object(fields) => {
                fields.iter().map(|(key, value)| format!("\"{key}\": {}", flat(value))).collect()
            }
            Self::Nested((key, value)) => {
                vec![format!("{}: {}", flat(&Value::from(*key)), value.lines(newline, &inner, step))]
            }
        };
        let lines: Vec<String> = fields.iter().map(|field| format!("{inner}{field}")).collect();
        format!("{{{newline}{}{newline}{indent}}}", lines.join(&format!(",{newline}")))
    }

    /// On one line, with or without spaces.
    fn inline(&self, spaced: bool) -> String {
        let space = if spaced { " " } else { "" };
        let fields: Vec<String> = match self {
            Self::Plain(value) => return in_line(value, spaced),
            Self::Object(fields) => {
                let field = |(key, value): &Field| format!("\"{key}\":{space}{}", in_line(value, spaced));
                fields.iter().map(field).collect()
            }
            Self::Nested((key, value)) => {
                vec![format!("{}:{space}{}", flat(&Value::from(*key)), value.inline(spaced))]
            }
        };
        format!("{{{}}}", fields.join(&format!(",{space}")))
    }
}

/// A value as people write it on one line.
fn flat(value: &Value) -> String {
    in_line(value, true)
}

fn in_line(value: &Value, spaced: bool) -> String {
    let comma = if spaced { ", " } else { "," };
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| in_line(item, spaced)).collect();
            format!("[{}]", items.join(comma))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use jsonc_parser::CommentCollectionStrategy;
    use jsonc_parser::tokens::Token;
    use serde_json::json;

    use super::super::edit::Format;
    use super::*;

    const EDITORS: Dialect = Dialect { comments: true, commas: true };
    const JSONC: Format = Format::Json(EDITORS);
    const SPOT: Spot = Spot { table: "servers", name: "axon" };

    fn fields() -> Vec<Field> {
        vec![("command", json!("/a/axon")), ("args", json!(["mcp"]))]
    }

    fn put(text: &str) -> String {
        JSONC.put(text, SPOT, &fields()).unwrap()
    }

    /// Each text, what comes of it, and whether taking the entry out again gives the text itself.
    #[test]
    fn an_entry_is_put_where_it_belongs_and_nothing_else_changes() {
        const ENTRY: &str = "\"axon\": {\n    >\"command\": \"/a/axon\",\n    >\"args\": [\"mcp\"]\n    <}";
        let entry = |step: &str, depth: usize| {
            let (outer, inner) = (step.repeat(depth), step.repeat(depth + 1));
            ENTRY.replace("    >", &inner).replace("    <", &outer)
        };
        let spaces = entry("  ", 2);
        let tabs = entry("\t", 2);
        let cases = [
            ("", format!("{{\n  \"servers\": {{\n    {spaces}\n  }}\n}}\n"), false),
            ("{}\n", format!("{{\n  \"servers\": {{\n    {spaces}\n  }}\n}}\n"), false),
            ("// only this", format!("// only this\n{{\n  \"servers\": {{\n    {spaces}\n  }}\n}}\n"), false),
            (
                "{\n  \"a\": 1 // one\n}",
                format!("{{\n  \"a\": 1, // one\n  \"servers\": {{\n    {spaces}\n  }}\n}}"),
                false,
            ),
            ("{\n  \"servers\": {}\n}\n", format!("{{\n  \"servers\": {{\n    {spaces}\n  }}\n}}\n"), true),
            (
                "{\n\t\"servers\": {\n\t\t// none\n\t},\n\t\"z\": [ ]\n}",
                format!("{{\n\t\"servers\": {{\n\t\t// none\n\t\t{tabs}\n\t}},\n\t\"z\": [ ]\n}}"),
                true,
            ),
            (
                "{\n  \"servers\": {\n    \"b\": {}, // b, and a comma,\n    // \"c\": {}\n  },\n}",
                format!(
                    "{{\n  \"servers\": {{\n    \"b\": {{}}, // b, and a comma,\n    {spaces},\n    \
                     // \"c\": {{}}\n  }},\n}}"
                ),
                true,
            ),
            (
                "{\n  \"servers\": {\n    \"b\": {} /* b */ /* \n more */\n  }\n}",
                format!(
                    "{{\n  \"servers\": {{\n    \"b\": {{}}, /* b */\n    {spaces} /* \n more */\n  }}\n}}"
                ),
                false,
            ),
            (
                "{\"a\":1,\"servers\":{\"b\":{}}}",
                "{\"a\":1,\"servers\":{\"b\":{},\"axon\":{\"command\":\"/a/axon\",\"args\":[\"mcp\"]}}}"
                    .to_owned(),
                true,
            ),
            (
                "{\"a\": 1, \"servers\": {}}\n",
                "{\"a\": 1, \"servers\": {\"axon\": {\"command\": \"/a/axon\", \"args\": [\"mcp\"]}}}\n"
                    .to_owned(),
                true,
            ),
            (
                "{\"a\":1}",
                "{\"a\":1,\"servers\":{\"axon\":{\"command\":\"/a/axon\",\"args\":[\"mcp\"]}}}".to_owned(),
                false,
            ),
        ];
        for (before, after, back) in cases {
            let changed = put(before);
            assert_eq!(changed, after, "{before}");
            let taken = JSONC.take(&changed, SPOT).unwrap();
            if back {
                assert_eq!(taken, before);
            }
            // With the object around it, which was not there before.
            if !back && before.len() > 3 && !before.contains("servers") && !before.starts_with("//") {
                assert_eq!(JSONC.tidied(taken, before, SPOT).unwrap(), before);
            }
        }
    }

    #[test]
    fn line_ends_stay() {
        let before = "{\r\n  \"servers\": {\r\n    \"b\": {} // b\r\n  }\r\n}\r\n";
        let changed = put(before);
        assert_eq!(changed.matches('\n').count(), changed.matches("\r\n").count());
        assert!(changed.contains("\"b\": {}, // b\r\n    \"axon\": {\r\n      \"command\""), "{changed}");
        assert_eq!(JSONC.take(&changed, SPOT).unwrap(), before);
    }

    #[test]
    fn an_entry_that_is_there_keeps_what_else_it_has() {
        let before =
            "{\"servers\": {\n  \"axon\": { // ours\n    \"args\": [ \"old\",\n ],\n    \"env\": {}\n  }}}";
        let after = "{\"servers\": {\n  \"axon\": { // ours\n    \"args\": [\"mcp\"],\n    \"env\": {},\n    \
                     \"command\": \"/a/axon\"\n  }}}";
        assert_eq!(put(before), after);
        assert_eq!(put(after), after, "once is enough");
    }

    #[test]
    fn an_entry_is_taken_from_any_place() {
        let take = |text: &str| JSONC.take(text, SPOT).unwrap();
        for (before, after) in [
            ("{\"servers\": {\"axon\": {}, \"b\": 1}}", "{\"servers\": {\"b\": 1}}"),
            ("{\"servers\": {\"b\": 1, \"axon\": {}, \"c\": 2}}", "{\"servers\": {\"b\": 1, \"c\": 2}}"),
            ("{\"servers\": {\"b\": 1 /*,*/ , \"axon\": {}}}", "{\"servers\": {\"b\": 1 /*,*/ }}"),
            (
                "{\"servers\": {\n \"axon\": {},\n // of b\n \"b\": 1\n}}",
                "{\"servers\": {\n // of b\n \"b\": 1\n}}",
            ),
            ("{\"servers\": {\n \"b\": 1,\n \"axon\": {} }}", "{\"servers\": {\n \"b\": 1\n }}"),
            ("{\"servers\": {\n \"b\": 1,\n \"axon\": {}, // x\n}}", "{\"servers\": {\n \"b\": 1,\n}}"),
            ("{\"other\": {\"axon\": {}}}", "{\"other\": {\"axon\": {}}}"),
            ("", ""),
        ] {
            assert_eq!(take(before), after);
        }
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        let fault = |text: &str| JSONC.put(text, SPOT, &fields()).unwrap_err();
        for (text, line, column) in [
            ("{\n  \"a\": 1\n  \"b\": 2\n}", 2, 9),
            ("{\n  \"a\": tru\n}", 2, 8),
            ("{\n  a: 1\n}", 2, 3),
            ("{\n  'a': 1\n}", 2, 3),
            ("{\"a\": 1", 1, 1),
            ("{} {}", 1, 4),
        ] {
            let found = fault(text);
            let at = matches!(found, Fault::Syntax { line: l, column: c, .. } if (l, c) == (line, column));
            assert!(at, "{text}: {found:?}");
        }
        let shape = |line, column, name: &str| Fault::Shape { line, column, name: name.to_owned() };
        assert_eq!(fault("[]"), shape(1, 1, "the whole"));
        assert_eq!(fault("{\n  \"servers\": []}"), shape(2, 14, "servers"));
        assert_eq!(fault("{\"servers\": {\"axon\": null}}"), shape(1, 22, "axon"));
        let twice = fault("{\"servers\": {\"axon\": {},\n\"\\u0061xon\": {}}}");
        assert_eq!(twice, Fault::Twice { line: 2, column: 1, name: "axon".to_owned() });
        // What this client reads and that one does not.
        let strict = Format::Json(Dialect { comments: false, commas: false });
        for text in ["{} // one\n", "{\"a\": {},}"] {
            assert!(
                matches!(strict.put(text, SPOT, &fields()), Err(Fault::Syntax { line: 1, .. })),
                "{text}"
            );
            put(text);
        }
        // Deep enough to use up a stack, where the parser did not mind.
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(fault(&deep), Fault::Syntax { .. }));
    }

    /// Numbers that look random, and are the same in each run.
    struct Dice(u64);

    impl Dice {
        fn throw(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }

        fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
            of[usize::try_from(self.throw(of.len() as u64)).unwrap()]
        }

        /// Spaces and comments, of which some look like more than they are.
        fn gap(&mut self, newline: &str) -> String {
            let parts = ["", "", "", " ", "\t", "\n", "\n  ", "/* , } */", "// \"axon\": {,\n", "/*\n*/"];
            (0..self.throw(3)).map(|_| self.one(&parts)).collect::<String>().replace('\n', newline)
        }

        fn object(&mut self, inner: &[String], newline: &str) -> String {
            let mut text = format!("{{{}", self.gap(newline));
            for (index, property) in inner.iter().enumerate() {
                let (before, after) = (self.gap(newline), self.gap(newline));
                let comma = if index + 1 < inner.len() || self.throw(3) == 0 { "," } else { "" };
                text.push_str(&format!("{before}{property}{after}{comma}"));
            }
            format!("{text}{}}}", self.gap(newline))
        }
    }

    fn value(text: &str) -> Value {
        let parsed = parse_to_ast(text, &CollectOptions::default(), &EDITORS.options());
        parsed.unwrap_or_else(|error| panic!("{error}: {text}")).value.map_or(Value::Null, Value::from)
    }

    fn comments(text: &str) -> Vec<String> {
        let all = CollectOptions { comments: CommentCollectionStrategy::AsTokens, tokens: true };
        let tokens = parse_to_ast(text, &all, &EDITORS.options()).unwrap().tokens.unwrap().into_iter();
        let comment = |token: Token| match token {
            Token::CommentLine(text) | Token::CommentBlock(text) => Some(text.to_owned()),
            _ => None,
        };
        tokens.filter_map(|token| comment(token.token)).collect()
    }

    #[test]
    fn any_layout_keeps_its_values_and_its_comments() {
        let mut dice = Dice(7);
        for round in 0..5_000 {
            let newline = dice.one(&["\n", "\r\n"]);
            let mut names = ["\"a\": 1", "\"b\":{}", "\"c\": [ 1, ]", "\"d\": \"// {\""].to_vec();
            names.truncate(usize::try_from(dice.throw(5)).unwrap());
            let inner: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let servers = format!("\"servers\": {}", dice.object(&inner, newline));
            let outer = match dice.throw(4) {
                0 => vec![],
                1 => vec!["\"y\": 2".to_owned()],
                2 => vec![servers],
                _ => vec!["\"y\": 2".to_owned(), servers, "\"z\": null".to_owned()],
            };
            let before = format!("{}{}", dice.gap(newline), dice.object(&outer, newline));
            let changed = put(&before);
            let mut expected = value(&before);
            expected["servers"]["axon"] = json!({"command": "/a/axon", "args": ["mcp"]});
            assert_eq!(value(&changed), expected, "round {round}: {before}");
            // All that stood there stands there yet, in its order, and more between it.
            let mut rest = changed.chars();
            let solid = before.chars().filter(|c| !c.is_whitespace());
            assert!(
                solid.clone().all(|c| rest.any(|other| other == c)),
                "round {round}: {before}\n{changed}"
            );

            let taken = JSONC.take(&changed, SPOT).unwrap();
            let mut expected = value(&before);
            if expected.get("servers").is_none() {
                expected["servers"] = json!({});
            }
            assert_eq!(value(&taken), expected, "round {round}: {before}\n{changed}");
            assert_eq!(comments(&taken), comments(&before), "round {round}: {before}\n{changed}\n{taken}");
        }
    }
}
