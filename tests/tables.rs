//! The tables of the specification are those of the schemas and of the code: the fields of every payload and
//! command, who may do what on a scoped socket, what policies begin with, features, codes, what is noted.
//! Limits, settings, kinds and the error tables are compared in tests/tidy.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use axon_proto::error::{IpcCode, PeerCode};
use axon_proto::scope::Right;
use axon_proto::trust::{Level, Policies};
use serde_json::{Value, json};

use crate::support::{Daemon, RawClient};

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn schema(name: &str) -> Value {
    serde_json::from_str(&text(&format!("spec/schema/{name}.json"))).unwrap()
}

/// The words of a cell that stand in backquotes.
fn words(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// A table: its head, and its rows.
type Table = (Vec<String>, Vec<Vec<String>>);

/// The tables of a page, each under the heading that it stands below.
fn tables(page: &str) -> Vec<(String, Table)> {
    let (mut found, mut heading, mut inside): (Vec<(String, Table)>, _, _) =
        (Vec::new(), String::new(), false);
    for line in page.lines() {
        let row: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        match (line.starts_with('|'), inside) {
            (false, _) => {
                inside = false;
                if line.starts_with('#') {
                    heading = line.trim_matches(['#', ' ']).to_owned();
                }
            }
            (true, false) => {
                inside = true;
                found.push((heading.clone(), (row, Vec::new())));
            }
            (true, true) if line.starts_with("|-") => {}
            (true, true) => found.last_mut().unwrap().1.1.push(row),
        }
    }
    found
}

/// The rows of the only table with this first cell in its head.
fn table(path: &str, head: &str, second: &str) -> Vec<Vec<String>> {
    let found = tables(&text(path));
    let mut fits = found.into_iter().filter(|(_, (cells, _))| cells[0] == head && cells[1] == second);
    let (_, (_, rows)) = fits.next().unwrap_or_else(|| panic!("{path} has no table `{head}`"));
    assert!(fits.next().is_none(), "{path} has two tables `{head}`");
    rows
}

/// What differs between a table of fields and an object of a schema, but for the fields that no table has.
fn differences(what: &str, rows: &[Vec<String>], object: &Value, without: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    let all: BTreeSet<&str> = object["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let required = object["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let required: BTreeSet<&str> = required.filter(|name| !without.contains(name)).collect();
    // A row may be about several, and speak of the parts of one as `intent.category`.
    let named = |row: &Vec<String>| words(&row[0]).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let told: BTreeSet<String> = rows.iter().flat_map(named).filter(|name| !name.contains('.')).collect();
    let expected: BTreeSet<String> =
        all.iter().filter(|name| !without.contains(name)).map(|name| (*name).to_owned()).collect();
    if told != expected {
        let odd: Vec<&String> = told.symmetric_difference(&expected).collect();
        faults.push(format!("{what}: only in the page or in the schema: {odd:?}"));
    }
    for row in rows {
        for name in words(&row[0]).into_iter().filter(|name| !name.contains('.')) {
            // `always, but optional for …` is not always.
            let always = row[2].starts_with("always") && !row[2].contains("but");
            if always != required.contains(name) {
                faults.push(format!(
                    "{what}: {name} is `{}` in the page, required in the schema: {}",
                    row[2], !always
                ));
            }
        }
    }
    faults
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

// shows: MT-ALL-1
#[test]
fn fields_of_payloads_are_those_of_the_schemas() {
    let (mut faults, mut seen) = (Vec::new(), 0);
    let families = ["core", "pairing", "topics", "presence"];
    for page in families.map(|family| format!("spec/kinds/{family}.md")) {
        for (_, (head, rows)) in tables(&text(&page)) {
            let Some(kind) = head[0].strip_prefix("field of `").and_then(|rest| rest.strip_suffix('`'))
            else {
                continue;
            };
            let object = match kind {
                "constraints" => schema("admission")["properties"]["constraints"].clone(),
                "signed of a beacon" => schema("presence.beacon")["$defs"]["signed"].clone(),
                "target" => schema("presence.find")["$defs"]["target"].clone(),
                "found" => schema("presence.found")["$defs"]["found"].clone(),
                "batch" | "signed" | "have" | "want" | "tree" | "sum" => {
                    schema("topic.gossip")["$defs"][kind].clone()
                }
                kind => schema(kind),
            };
            faults.extend(differences(kind, &rows, &object, &[]));
            seen += 1;
        }
    }
    none(&faults);
    assert!(seen >= 23, "{seen} tables");
}

#[test]
fn fields_of_an_envelope_are_those_of_the_schema() {
    let rows = table("spec/WIRE_FORMAT.md", "field", "type");
    none(&differences("envelope", &rows, &schema("envelope"), &[]));
}

/// The commands by the headings of the page, with the numbers of their sections.
fn commands() -> Vec<String> {
    let page = text("spec/IPC.md");
    let headings = page.lines().filter(|line| line.starts_with("### 3."));
    let names =
        headings.flat_map(|line| line.split_once(' ').unwrap().1.split_once(' ').unwrap().1.split(", "));
    names.map(str::to_owned).collect()
}

#[test]
fn commands_are_those_of_the_schema_and_of_a_daemon() {
    let told: BTreeSet<String> = commands().into_iter().collect();
    let all = schema("ipc-command");
    let all = all["oneOf"].as_array().unwrap();
    let ours: BTreeSet<String> = all.iter().map(|one| one["title"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, ours);
    for one in all {
        assert_eq!(one["title"], one["properties"]["cmd"]["const"]);
    }
    // A daemon says which it knows.
    let daemon = Daemon::start("");
    let message = daemon.client().fails(json!({"cmd":"no_such_command"}), "invalid_command");
    let known = message.split_once("known: ").unwrap().1.trim_end_matches('.');
    assert_eq!(told, known.split(", ").map(str::to_owned).collect::<BTreeSet<_>>(), "{message}");
}

#[test]
fn fields_of_commands_are_those_of_the_schema() {
    let all = schema("ipc-command");
    let by_name: BTreeMap<&str, &Value> =
        all["oneOf"].as_array().unwrap().iter().map(|one| (one["title"].as_str().unwrap(), one)).collect();
    let (mut faults, mut seen) = (Vec::new(), 0);
    for (heading, (head, rows)) in tables(&text("spec/IPC.md")) {
        let alone = heading.strip_prefix("3.").and_then(|rest| rest.split_once(' ')).map(|(_, names)| names);
        let name = match (head[0].as_str(), alone) {
            ("command field", Some(name)) => name,
            (head, _) => match head.strip_prefix("field of `").and_then(|rest| rest.strip_suffix('`')) {
                Some(name) => name,
                None => continue,
            },
        };
        // One of a section with several commands says of each field whose it is.
        if let Some(object) = by_name.get(name) {
            faults.extend(differences(name, &rows, object, &["cmd", "req_id"]));
            seen += 1;
        }
    }
    none(&faults);
    assert!(seen >= 12, "{seen} tables");
}

#[test]
fn policies_begin_as_the_page_says() {
    let preset = Policies::default();
    let rows = table("spec/TRUST.md", "key", "default");
    let mut told: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for row in &rows {
        let key = words(&row[0])[0];
        let number = |text: &str| text.trim().parse().unwrap();
        for level in ["unknown", "known", "trusted"] {
            let value = match row[1].split_once(", others ") {
                Some((first, _)) if level == "unknown" => number(first.trim_start_matches("`unknown` ")),
                Some((_, others)) => number(others),
                // Lists: none is set.
                None if row[1].parse::<u64>().is_err() => continue,
                None => number(&row[1]),
            };
            told.insert((level, key), value);
        }
    }
    let mut ours = BTreeMap::new();
    for (name, level) in [("unknown", Level::Unknown), ("known", Level::Known), ("trusted", Level::Trusted)] {
        let policy = preset.of(level).unwrap();
        assert!(policy.kinds.is_none() && policy.domains.is_none());
        ours.insert((name, "payload_bytes_max"), policy.payload_bytes_max);
        ours.insert((name, "in_flight_max"), policy.in_flight_max);
        ours.insert((name, "messages_per_minute"), policy.messages_per_minute);
        ours.insert((name, "bytes_per_minute"), policy.bytes_per_minute);
        ours.insert((name, "level_messages_per_minute"), policy.level_messages_per_minute);
    }
    assert_eq!(told, ours);
}

#[test]
fn features_are_those_of_the_kinds() {
    let mut told: BTreeMap<String, Option<String>> = BTreeMap::new();
    for row in table("spec/WIRE_FORMAT.md", "kind", "feature that the receiver must have offered") {
        for kind in words(&row[0]) {
            let feature = match row[1].as_str() {
                "none" => None,
                "the feature of the same name" => Some(kind),
                other => Some(words(other)[0]),
            };
            told.insert(kind.to_owned(), feature.map(str::to_owned));
        }
    }
    let families = axon_proto::kinds::all();
    let kinds = families.iter().flat_map(|family| family.vocabulary().kinds);
    let ours = kinds.map(|kind| (kind.name.to_owned(), kind.feature.map(str::to_owned))).collect();
    assert_eq!(told, ours);
}

/// Every code that a page names as an error of a kind or a command is in the table of codes.
#[test]
fn errors_that_pages_name_have_a_row() {
    let peers: BTreeSet<&str> = PeerCode::ALL.iter().map(|code| code.as_str()).collect();
    let ours: BTreeSet<&str> = IpcCode::ALL.iter().map(|code| code.as_str()).collect();
    let (mut faults, mut seen) = (Vec::new(), 0);
    for (page, codes) in [
        ("spec/IPC.md", &ours),
        ("spec/kinds/core.md", &peers),
        ("spec/kinds/pairing.md", &peers),
        ("spec/kinds/topics.md", &peers),
        ("spec/kinds/presence.md", &peers),
    ] {
        let page_text = text(page);
        for paragraph in page_text.split("\n\n").filter(|paragraph| paragraph.starts_with("Errors:")) {
            seen += 1;
            // What stands in brackets explains.
            let mut depth = 0;
            let outside: String = paragraph
                .chars()
                .filter(|c| {
                    depth += i32::from(*c == '(') - i32::from(*c == ')');
                    depth == 0
                })
                .collect();
            let named = words(&outside);
            faults.extend(
                named.iter().filter(|code| !codes.contains(**code)).map(|code| format!("{page}: {code}")),
            );
        }
    }
    none(&faults);
    assert!(seen > 20, "{seen} paragraphs");
}

#[test]
fn what_is_noted_is_what_the_page_lists() {
    let told: BTreeSet<String> =
        table("spec/TRUST.md", "event", "when").iter().map(|row| words(&row[0])[0].to_owned()).collect();
    // The names stand beside each other in one place of the code.
    let code = text("axon/proto/src/audit.rs");
    let names = code.split_once("pub fn as_str").unwrap().1.split_once("\n    }").unwrap().0;
    let ours = names.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(told, ours);
}

// shows: IPC-SCO-3
#[test]
fn rights_are_for_the_commands_of_the_page() {
    let daemon = Daemon::start("");
    let mut owner = daemon.client();
    let rows = table("spec/IPC.md", "right", "commands");
    let named: Vec<&str> = rows.iter().filter_map(|row| words(&row[0]).first().copied()).collect();
    assert_eq!(named, Right::ALL.map(|right| right.as_str()));
    let all: BTreeSet<String> = commands().into_iter().collect();
    let mut scoped = BTreeSet::new();
    for right in &named {
        owner.ok(json!({"cmd":"socket_add","name":right,"allow":[right]}));
    }
    let may = |right: &str, command: &Value| {
        let path = daemon.root().join("sockets").join(right).join("axon.sock");
        let mut client = RawClient::over(std::os::unix::net::UnixStream::connect(path).unwrap());
        client.hello();
        client.cmd(command.clone())["error"] != "not_authorized"
    };
    for row in &rows {
        let right = words(&row[0]).first().copied();
        // `subscribe` is two commands: with `kinds`, and with `answer`.
        for name in row[1].split(", ").flat_map(|cell| words(cell).first().copied()) {
            scoped.insert(name.to_owned());
            if name == "hello" || (name == "subscribe" && right.is_none()) {
                continue;
            }
            let mut command = json!({"cmd":name,"to":"nobody","kind":"ping","payload":{}});
            if name == "subscribe" {
                let field = if right == Some("answer") { "answer" } else { "kinds" };
                command[field] = json!(["query"]);
                command["replay"] = false.into();
            }
            for other in &named {
                let expected = right.is_none_or(|right| right == *other);
                assert_eq!(may(other, &command), expected, "{name} with the right {other} alone");
            }
        }
    }
    for name in all.iter().filter(|name| !scoped.contains(*name) && *name != "auth") {
        for right in &named {
            assert!(!may(right, &json!({"cmd":name})), "{name} with the right {right}");
        }
    }
}
