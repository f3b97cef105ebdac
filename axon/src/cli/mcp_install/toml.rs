//! TOML, changed in its own text: at the places that the parser names, so that all else stays as it is.

use std::ops::Range;

use serde_json::{Map, Value};
use toml_edit::{Document, Item, Table, Value as Toml};

use super::edit::{Fault, Field, Spot, line_end, place};

/// The entry, where there is one.
pub fn look(text: &str, spot: Spot) -> Result<Option<Map<String, Value>>, Fault> {
    let document = parse(text)?;
    let Some(entry) = entry(&document, text, spot)? else { return Ok(None) };
    let field = |(key, item): (&str, &Item)| Some((key.to_owned(), json(item)?));
    let table = entry.as_table_like().ok_or_else(|| shape(text, entry.span(), spot.name))?;
    Ok(Some(table.iter().filter_map(field).collect()))
}

/// The text with the entry's fields as given; other fields of an entry that is there stay.
pub fn put(text: &str, spot: Spot, fields: &[Field]) -> Result<String, Fault> {
    let newline = line_end(text);
    if entry(&parse(text)?, text, spot)?.is_none() {
        // A table of its own at the end is right wherever the others are.
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { newline };
        let gap = if text.trim().is_empty() { "" } else { newline };
        let lines: String = fields.iter().map(|(key, value)| line(key, value, newline)).collect();
        return Ok(format!("{text}{end}{gap}[{}.{}]{newline}{lines}", spot.table, key(spot.name)));
    }
    let mut changed = text.to_owned();
    for (name, value) in fields {
        let before = changed.clone();
        let document = parse(&before)?;
        let Some(entry) = entry(&document, &before, spot)? else { return Err(Fault::Lost) };
        let table = entry.as_table_like().ok_or(Fault::Lost)?;
        match (table.get(name), entry.as_table()) {
            (Some(item), _) if json(item).as_ref() == Some(value) => {}
            (Some(item), _) => {
                let span = item.span().filter(|_| item.is_value());
                let span = span.ok_or_else(|| shape(&before, entry.span(), name))?;
                changed.replace_range(span, &written(value));
            }
            // Below the header, above what else it holds.
            (None, Some(table)) if !table.is_dotted() && !table.is_implicit() => {
                let header = table.span().ok_or(Fault::Lost)?;
                let end = lines(&before, header).end;
                let gap =
                    if before.get(..end).is_some_and(|head| head.ends_with('\n')) { "" } else { newline };
                changed.insert_str(end, &format!("{gap}{}", line(name, value, newline)));
            }
            (None, _) => return Err(shape(&before, entry.span(), spot.name)),
        }
    }
    Ok(changed)
}

/// The text without the entry: without the lines of its header, of its fields, and of the tables below it.
/// Comments on lines of their own stay.
pub fn take(text: &str, spot: Spot) -> Result<String, Fault> {
    let document = parse(text)?;
    let Some(entry) = entry(&document, text, spot)? else { return Ok(text.to_owned()) };
    let table = entry.as_table().filter(|table| !table.is_dotted());
    let table = table.ok_or_else(|| shape(text, entry.span(), spot.name))?;
    let mut gone = Vec::new();
    collect(table, text, &mut gone);
    gone.sort_by_key(|range| range.start);
    let mut changed = text.to_owned();
    for range in gone.iter().rev() {
        changed.replace_range(range.clone(), "");
    }
    // The empty line that set it off from what is above.
    let first = gone.first().map_or(0, |range| range.start);
    let (above, below) = (changed.get(..first).unwrap_or_default(), changed.get(first..).unwrap_or_default());
    let ends = below.is_empty() || below.starts_with('\n') || below.starts_with("\r\n");
    let newline = line_end(text);
    let empty = above.strip_suffix(newline).filter(|above| above.ends_with('\n'));
    match empty.filter(|_| ends) {
        Some(above) => Ok(format!("{above}{below}")),
        None => Ok(changed),
    }
}

fn parse(text: &str) -> Result<Document<&str>, Fault> {
    Document::parse(text).map_err(|error| {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        Fault::Syntax { line, column, why: error.message().to_owned() }
    })
}

fn entry<'a>(document: &'a Document<&str>, text: &str, spot: Spot) -> Result<Option<&'a Item>, Fault> {
    let Some(item) = document.get(spot.table) else { return Ok(None) };
    // Nothing can be added to an inline table from outside.
    let table = item.as_table().ok_or_else(|| shape(text, item.span(), spot.table))?;
    match table.get(spot.name) {
        Some(entry) if entry.as_table_like().is_none() => Err(shape(text, entry.span(), spot.name)),
        entry => Ok(entry),
    }
}

fn shape(text: &str, at: Option<Range<usize>>, name: &str) -> Fault {
    let (line, column) = place(text, at.map_or(0, |at| at.start));
    Fault::Shape { line, column, name: name.to_owned() }
}

/// The lines of a table, of the fields in it, and of the tables below it.
fn collect(table: &Table, text: &str, gone: &mut Vec<Range<usize>>) {
    let has_header = !table.is_implicit() && !table.is_dotted();
    gone.extend(table.span().filter(|_| has_header).map(|header| lines(text, header)));
    for (name, item) in table {
        match item {
            Item::Table(below) => collect(below, text, gone),
            Item::ArrayOfTables(several) => several.iter().for_each(|below| collect(below, text, gone)),
            Item::Value(value) => {
                let start = table.key(name).and_then(|key| key.span()).map(|key| key.start);
                let end = value.span().map(|value| value.end);
                gone.extend(start.zip(end).map(|(start, end)| lines(text, start..end)));
            }
            Item::None => {}
        }
    }
}

/// The whole lines that something touches.
fn lines(text: &str, range: Range<usize>) -> Range<usize> {
    let start = text.get(..range.start).and_then(|above| above.rfind('\n')).map_or(0, |newline| newline + 1);
    let below = text.get(range.end..).and_then(|rest| rest.find('\n'));
    start..below.map_or(text.len(), |newline| range.end + newline + 1)
}

fn json(item: &Item) -> Option<Value> {
    match item.as_value()? {
        Toml::String(text) => Some(Value::from(text.value().as_str())),
        Toml::Array(items) => {
            let items = items.iter().map(|item| item.as_str().map(Value::from));
            items.collect::<Option<Vec<Value>>>().map(Value::Array)
        }
        Toml::Boolean(yes) => Some(Value::from(*yes.value())),
        Toml::Integer(number) => Some(Value::from(*number.value())),
        _ => None,
    }
}

fn line(name: &str, value: &Value, newline: &str) -> String {
    format!("{} = {}{newline}", key(name), written(value))
}

fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { text(name) }
}

fn written(value: &Value) -> String {
    match value {
        Value::String(content) => text(content),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(written).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

fn text(content: &str) -> String {
    Toml::from(content).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::edit::Format;
    use super::*;

    const SPOT: Spot = Spot { table: "mcp_servers", name: "axon" };
    const SECTION: &str = "[mcp_servers.axon]\ncommand = \"/a/axon\"\nargs = [\"mcp\"]\n";

    fn put(text: &str) -> Result<String, Fault> {
        Format::Toml.put(text, SPOT, &[("command", json!("/a/axon")), ("args", json!(["mcp"]))])
    }

    #[test]
    fn an_entry_is_a_table_of_its_own_at_the_end() {
        for (before, after, back) in [
            ("", SECTION.to_owned(), true),
            ("# mine\nmodel = 'x'\n", format!("# mine\nmodel = 'x'\n\n{SECTION}"), true),
            ("a = 1", format!("a = 1\n\n{SECTION}"), false),
            (
                "[mcp_servers]\nb.command = 'b' # b\n\n[z]\n",
                format!("[mcp_servers]\nb.command = 'b' # b\n\n[z]\n\n{SECTION}"),
                true,
            ),
            (
                "a = \"\"\"\n[mcp_servers.axon]\n\"\"\"\n",
                format!("a = \"\"\"\n[mcp_servers.axon]\n\"\"\"\n\n{SECTION}"),
                true,
            ),
            ("a = 1\r\n", format!("a = 1\r\n\r\n{}", SECTION.replace('\n', "\r\n")), true),
        ] {
            let changed = put(before).unwrap();
            assert_eq!(changed, after);
            assert_eq!(put(&changed).unwrap(), changed, "once is enough");
            let taken = Format::Toml.take(&changed, SPOT).unwrap();
            if back {
                assert_eq!(taken, before);
            }
        }
    }

    #[test]
    fn an_entry_that_is_there_keeps_what_else_it_has() {
        let before = "[mcp_servers.axon] # ours\r\n# why\r\nargs = [ # old\r\n \"x\",\r\n]\r\nstartup_timeout_sec = 3\r\n";
        let after = "[mcp_servers.axon] # ours\r\ncommand = \"/a/axon\"\r\n# why\r\nargs = [\"mcp\"]\r\nstartup_timeout_sec = 3\r\n";
        assert_eq!(put(before).unwrap(), after);
        let inline = "[mcp_servers]\naxon = { command = 'old', args = [] } # in line\n";
        assert_eq!(
            put(inline).unwrap(),
            "[mcp_servers]\naxon = { command = \"/a/axon\", args = [\"mcp\"] } # in line\n"
        );
    }

    #[test]
    fn an_entry_goes_with_the_tables_below_it() {
        let text = "[mcp_servers.b]\ncommand = 'b'\n\n[mcp_servers.axon]\ncommand = 'x'\n# tail\n\n# of c\n\
                    [mcp_servers.c]\ncommand = 'c'\n[mcp_servers.axon.tools.ask]\napproval_mode = 'approve'\n";
        assert_eq!(
            Format::Toml.take(text, SPOT).unwrap(),
            "[mcp_servers.b]\ncommand = 'b'\n\n# tail\n\n# of c\n[mcp_servers.c]\ncommand = 'c'\n"
        );
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        let found = put("a = 1\nb = = 2\n").unwrap_err();
        assert!(matches!(found, Fault::Syntax { line: 2, column: 5, .. }), "{found:?}");
        for (text, line) in [
            ("\nmcp_servers = { b = {} }\n", 2),
            ("[[mcp_servers]]\n", 1),
            ("[mcp_servers]\naxon = 1\n", 2),
            ("[mcp_servers]\naxon = { command = 'x' }\n", 2),
        ] {
            let found = put(text).unwrap_err();
            assert!(matches!(found, Fault::Shape { line: l, .. } if l == line), "{text}: {found:?}");
        }
        let inline = "[mcp_servers]\naxon = { command = 'x' }\n";
        assert!(matches!(Format::Toml.take(inline, SPOT), Err(Fault::Shape { line: 2, .. })));
    }
}
