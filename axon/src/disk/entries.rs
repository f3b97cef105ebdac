//! Entries of a list of tables, changed in a text that people write: everything else in it stays as it is.
//!
//! What is changed is changed at the place that the parser names. Comments stay, but for two: those inside an
//! entry that is taken out, and a block of comments directly above it, if there is an empty line above that.
//! Whoever changes a text reads the result again before it replaces the file.

use std::ops::Range;

use toml_edit::{Document, Item, TableLike, Value};

/// What is to become of one key of an entry.
#[derive(Debug, Clone)]
pub(super) enum Field {
    /// It stays as it is written.
    Keep,
    /// It holds this.
    Set(Value),
    /// It is not there.
    Unset,
}

/// The list `name` of a text, and what is to be changed.
pub(super) struct Entries<'a> {
    text: &'a str,
    name: &'static str,
    newline: &'static str,
    forms: Vec<Form>,
    /// Where the list is, when it is one of inline tables.
    inline: Option<Range<usize>>,
    edits: Vec<(Range<usize>, String)>,
}

/// Where one entry is.
struct Form {
    /// From its header, or brace, to the end of its last value.
    span: Range<usize>,
    /// Each key with its own place and that of its value.
    keys: Vec<(String, Range<usize>, Range<usize>)>,
}

impl<'a> Entries<'a> {
    /// The list in this text.
    pub(super) fn of(document: &Document<&'a str>, text: &'a str, name: &'static str) -> Self {
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let item = document.get(name);
        let (forms, inline) = match item {
            Some(Item::ArrayOfTables(tables)) => {
                (tables.iter().filter_map(|table| Form::with_header(text, table)).collect(), None)
            }
            Some(Item::Value(Value::Array(values))) => {
                let forms = values.iter().filter_map(|value| {
                    Some(Form { keys: keys(value.as_inline_table()?), span: value.span()? })
                });
                (forms.collect(), item.and_then(Item::span))
            }
            _ => (Vec::new(), None),
        };
        Self { text, name, newline, forms, inline, edits: Vec::new() }
    }

    /// Changes keys of an entry. `all` is what a new entry would hold, for an inline table, which is written
    /// anew.
    pub(super) fn change(&mut self, index: usize, fields: &[(&str, Field)], all: &[(&str, Value)]) {
        let Some(form) = self.forms.get(index) else { return };
        if fields.iter().all(|(_, field)| matches!(field, Field::Keep)) {
            return;
        }
        if self.inline.is_some() {
            self.edits.push((form.span.clone(), inline_table(all)));
            return;
        }
        let end = line_end(self.text, form.span.end);
        for (key, field) in fields {
            let found = form.keys.iter().find(|(name, ..)| name == key);
            match (field, found) {
                (Field::Set(value), Some((_, _, span))) => self.edits.push((span.clone(), shown(value))),
                (Field::Set(value), None) => {
                    self.edits.push((end..end, self.after(end, &format!("{key} = {}", shown(value)))));
                }
                (Field::Unset, Some((_, key, value))) => {
                    let lines = line_start(self.text, key.start)..line_end(self.text, value.end);
                    self.edits.push((lines, String::new()));
                }
                (Field::Keep, _) | (Field::Unset, None) => {}
            }
        }
    }

    /// Adds an entry at the end.
    pub(super) fn add(&mut self, all: &[(&str, Value)]) {
        let newline = self.newline;
        if let Some(list) = &self.inline {
            let (span, text) = match self.forms.last() {
                Some(last) => (last.span.end..last.span.end, format!(", {}", inline_table(all))),
                None => (list.clone(), format!("[{}]", inline_table(all))),
            };
            self.edits.push((span, text));
            return;
        }
        let mut lines = format!("[[{}]]", self.name);
        for (key, value) in all {
            lines += &format!("{newline}{key} = {}", shown(value));
        }
        let end = self.text.len();
        let blank = if self.text.trim().is_empty() || is_blank_before(self.text, end) { "" } else { newline };
        let ended = self.text.is_empty() || self.text.ends_with('\n');
        let open = if ended { "" } else { newline };
        self.edits.push((end..end, format!("{open}{blank}{lines}{newline}")));
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, index: usize) {
        let Some(form) = self.forms.get(index) else { return };
        if self.inline.is_some() {
            self.remove_inline(form.span.clone());
            return;
        }
        let mut start = with_comments(self.text, line_start(self.text, form.span.start));
        let mut end = line_end(self.text, form.span.end);
        // Empty lines on both sides become those of one side.
        if start == 0 || is_blank_before(self.text, start) {
            while end < self.text.len() && self.text[end..line_end(self.text, end)].trim().is_empty() {
                end = line_end(self.text, end);
            }
        }
        if end == self.text.len() {
            let before = self.text[..start].trim_end().len();
            start = if before == 0 { 0 } else { line_end(self.text, before) };
        }
        self.edits.push((start..end, String::new()));
    }

    /// Takes an element of `name = [{…}, {…}]` out, with the comma behind it.
    fn remove_inline(&mut self, span: Range<usize>) {
        let mut comma = span.end;
        // Between the two there are blanks and comments only.
        while let Some(rest) = self.text.get(comma..).filter(|rest| !rest.is_empty()) {
            match rest.chars().next() {
                Some('#') => comma = line_end(self.text, comma),
                Some(c) if c.is_whitespace() => comma += c.len_utf8(),
                _ => break,
            }
        }
        let has_comma = self.text[comma..].starts_with(',');
        let mut lines = span.clone();
        let near = self.text[span.end..comma].trim().is_empty();
        if has_comma && near {
            lines.end = comma + 1;
        } else if has_comma {
            self.edits.push((comma..comma + 1, String::new()));
        }
        // A line that it had for itself goes.
        let whole = line_start(self.text, lines.start)..line_end(self.text, lines.end);
        let alone = self.text[whole.start..lines.start].trim().is_empty()
            && self.text[lines.end..whole.end].trim().is_empty();
        self.edits.push((if alone { whole } else { lines }, String::new()));
    }

    /// Sets a key of the file itself.
    pub(super) fn set_top(&mut self, document: &Document<&str>, key: &str, value: &Value) {
        if let Some(span) = document.get(key).and_then(Item::span) {
            self.edits.push((span, shown(value)));
            return;
        }
        let line = format!("{key} = {}", shown(value));
        let last = document.iter().filter(|(_, item)| item.is_value()).filter_map(|(_, item)| item.span());
        if let Some(last) = last.map(|span| span.end).max() {
            let end = line_end(self.text, last);
            self.edits.push((end..end, self.after(end, &line)));
        } else if let Some(first) = self.forms.iter().map(|form| form.span.start).min() {
            let start = with_comments(self.text, line_start(self.text, first));
            self.edits.push((start..start, format!("{line}{0}{0}", self.newline)));
        } else {
            let end = self.text.len();
            self.edits.push((end..end, self.after(end, &line)));
        }
    }

    /// A whole line, to stand where a line ends.
    fn after(&self, end: usize, line: &str) -> String {
        let ended = end == 0 || self.text[..end].ends_with('\n');
        format!("{}{line}{}", if ended { "" } else { self.newline }, self.newline)
    }

    /// The text with all changes.
    pub(super) fn done(mut self) -> String {
        let mut text = self.text.to_owned();
        // From the end, so that places before stay where they are; at one place the last comes last.
        self.edits.sort_by_key(|(span, _)| span.start);
        for (span, with) in self.edits.iter().rev() {
            text.replace_range(span.clone(), with);
        }
        text
    }
}

impl Form {
    fn with_header(text: &str, table: &toml_edit::Table) -> Option<Self> {
        let keys = keys(table);
        let first = keys.iter().map(|(_, key, _)| key.start).min();
        let header = table.span().map(|span| span.start).or_else(|| header_above(text, first?))?;
        let last = keys.iter().map(|(_, _, value)| value.end).max();
        let end = last.or_else(|| table.span().map(|span| span.end)).unwrap_or(header);
        Some(Self { span: header..end, keys })
    }
}

fn keys(table: &dyn TableLike) -> Vec<(String, Range<usize>, Range<usize>)> {
    let found = table.iter().filter_map(|(key, item)| {
        let span = table.key(key).and_then(|key| key.span())?;
        Some((key.to_owned(), span, item.span()?))
    });
    found.collect()
}

/// Where the header above a key is: only blanks and comments may be between the two.
fn header_above(text: &str, key: usize) -> Option<usize> {
    let mut start = line_start(text, key);
    while start > 0 {
        start = line_start(text, start - 1);
        if text[start..].trim_start().starts_with("[[") {
            return Some(start);
        }
    }
    None
}

fn inline_table(all: &[(&str, Value)]) -> String {
    let fields: Vec<String> = all.iter().map(|(key, value)| format!("{key} = {}", shown(value))).collect();
    format!("{{ {} }}", fields.join(", "))
}

fn shown(value: &Value) -> String {
    value.to_string().trim().to_owned()
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Behind the newline of a place's line.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

/// Whether the line above one that begins here is empty.
fn is_blank_before(text: &str, start: usize) -> bool {
    start > 0 && text[line_start(text, start - 1)..start].trim().is_empty()
}

/// Where the comments begin that belong to the line that begins here: those directly above it, if there is an
/// empty line above them. Others are about the file, or about what stands before.
fn with_comments(text: &str, start: usize) -> usize {
    let mut first = start;
    while first > 0 {
        let above = line_start(text, first - 1);
        if !text[above..first].trim_start().starts_with('#') {
            break;
        }
        first = above;
    }
    if is_blank_before(text, first) { first } else { start }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, with: impl FnOnce(&mut Entries<'_>, &Document<&str>)) -> String {
        let document = Document::parse(text).unwrap();
        let mut entries = Entries::of(&document, text, "list");
        with(&mut entries, &document);
        let text = entries.done();
        Document::parse(&*text).unwrap();
        text
    }

    fn removed(text: &str, index: usize) -> String {
        edited(text, |entries, _| entries.remove(index))
    }

    const A: &str = "[[list]] # a\nn = 1 # one\n# inside\nm = [\n  1, # first\n]\n";
    const B: &str = "[[list]]\nn = 2\n";

    #[test]
    fn an_entry_goes_with_the_comments_that_are_its_own() {
        // Between an empty line and the entry: its own. At the beginning of the file: about the file.
        assert_eq!(
            removed(&format!("# file\n\n# a\n# more\n{A}\n# b\n{B}"), 0),
            format!("# file\n\n# b\n{B}")
        );
        assert_eq!(removed(&format!("# file\n\n# a\n{A}\n# b\n{B}"), 1), format!("# file\n\n# a\n{A}"));
        assert_eq!(removed(&format!("# file\n{A}\n{B}"), 0), format!("# file\n\n{B}"));
        assert_eq!(removed(&format!("# file\n{B}"), 0), "# file\n");
        // Directly behind another entry: perhaps about that one.
        assert_eq!(removed(&format!("{A}# end of a\n{B}"), 1), format!("{A}# end of a\n"));
        assert_eq!(removed(&format!("{A}# end of a\n{B}"), 0), format!("# end of a\n{B}"));
        // Comments with an empty line below them are nobody's.
        assert_eq!(removed(&format!("{A}\n# nobody's\n\n{B}"), 1), format!("{A}\n# nobody's\n"));
        assert_eq!(removed(&format!("{A}\n# x\n\n{B}\n\n# end\n"), 1), format!("{A}\n# x\n\n# end\n"));
        assert_eq!(removed(A, 0), "");
        assert_eq!(removed(&format!("x = 1\n\n{A}"), 0), "x = 1\n");
        assert_eq!(removed(&format!("{B}{A}{B}"), 1), format!("{B}{B}"));
        assert_eq!(removed(&format!("{B}\n[other]\nn = 1"), 0), "[other]\nn = 1");
        assert_eq!(removed(B.trim_end(), 0), "");
        assert_eq!(removed(&format!("{B}\n{B}").replace('\n', "\r\n"), 0), B.replace('\n', "\r\n"));
        assert_eq!(removed(B, 3), B);
    }

    #[test]
    fn keys_are_set_added_and_taken_out() {
        let set = |n: i64| Field::Set(Value::from(n));
        let changed = |text: &str, fields: &[(&str, Field)]| {
            edited(text, |entries, _| entries.change(0, fields, &[("n", 5.into()), ("x", "y".into())]))
        };
        let text = format!("# file\n{A}\n# b\n{B}");
        assert_eq!(changed(&text, &[("n", set(7))]), text.replace("n = 1 #", "n = 7 #"));
        assert_eq!(
            changed(&text, &[("x", set(7)), ("y", set(8)), ("n", Field::Keep)]),
            text.replace("]\n\n", "]\nx = 7\ny = 8\n\n")
        );
        let without = "# file\n[[list]] # a\nn = 1 # one\n# inside\n\n# b\n[[list]]\nn = 2\n";
        assert_eq!(changed(&text, &[("m", Field::Unset), ("x", Field::Unset)]), without);
        let both = "# file\n[[list]] # a\nn = 1 # one\n# inside\nx = 1\n\n# b\n[[list]]\nn = 2\n";
        assert_eq!(changed(&text, &[("m", Field::Unset), ("x", set(1))]), both);
        assert_eq!(changed("[[list]]\nn = 1", &[("x", set(2))]), "[[list]]\nn = 1\nx = 2\n");
        assert_eq!(changed("[[list]]\r\nn = 1\r\n", &[("x", set(2))]), "[[list]]\r\nn = 1\r\nx = 2\r\n");
        let inline = "list = [{ n = 1, m = 2 }, # one\n  { n = 2 }]\n";
        let expected = "list = [{ n = 5, x = \"y\" }, # one\n  { n = 2 }]\n";
        assert_eq!(changed(inline, &[("m", Field::Unset)]), expected);
        assert_eq!(changed(inline, &[("m", Field::Keep)]), inline);
    }

    #[test]
    fn entries_are_added_at_the_end() {
        let added = |text: &str| edited(text, |entries, _| entries.add(&[("n", 5.into())]));
        assert_eq!(added(""), "[[list]]\nn = 5\n");
        assert_eq!(added("# file\n"), "# file\n\n[[list]]\nn = 5\n");
        assert_eq!(added("# file\n\n"), "# file\n\n[[list]]\nn = 5\n");
        assert_eq!(added("[[list]]\nn = 1"), "[[list]]\nn = 1\n\n[[list]]\nn = 5\n");
        assert_eq!(added("list = []"), "list = [{ n = 5 }]");
        assert_eq!(added("list = [{ n = 1 },\n # x\n]\n"), "list = [{ n = 1 }, { n = 5 },\n # x\n]\n");
    }

    #[test]
    fn elements_of_an_inline_list_go_and_comments_stay() {
        assert_eq!(removed("list = [{ n = 1 }, { n = 2 }]", 0), "list = [ { n = 2 }]");
        assert_eq!(removed("list = [{ n = 1 }, { n = 2 }]", 1), "list = [{ n = 1 }, ]");
        assert_eq!(removed("list = [{ n = 1 }]", 0), "list = []");
        let lines = "list = [\n  { n = 1 }, # one\n  { n = 2 },\n  { n = 3 } # three\n  , # x\n]\n";
        assert_eq!(removed(lines, 0), lines.replace("{ n = 1 },", ""));
        assert_eq!(removed(lines, 1), lines.replace("  { n = 2 },\n", ""));
        assert_eq!(removed(lines, 2), lines.replace("{ n = 3 }", "").replace("  , # x", "   # x"));
    }

    #[test]
    fn keys_of_the_file_come_before_its_tables() {
        let set =
            |text: &str| edited(text, |entries, document| entries.set_top(document, "on", &true.into()));
        assert_eq!(set(""), "on = true\n");
        assert_eq!(set("# file"), "# file\non = true\n");
        assert_eq!(set("on = false # x\n"), "on = true # x\n");
        assert_eq!(set("x = 1 # x\n\n[[list]]\nn = 1\n"), "x = 1 # x\non = true\n\n[[list]]\nn = 1\n");
        assert_eq!(set("# file\n\n# a\n[[list]]\nn = 1\n"), "# file\n\non = true\n\n# a\n[[list]]\nn = 1\n");
        assert_eq!(set("# file\n[[list]]\nn = 1\n"), "# file\non = true\n\n[[list]]\nn = 1\n");
        assert_eq!(set("list = []\n# end\n"), "list = []\non = true\n# end\n");
    }
}
