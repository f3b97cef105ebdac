//! Every MUST of the specification has an id, and every id is shown by a test or a vector, or has a reason
//! why none can. `spec/requirements.yaml` says so by id; what the tests and vectors cite is written there by
//! `AXON_RECORD=1 cargo test --test all traceability::`, the reasons by hand. `-- --nocapture` prints
//! the figures.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// The pages in the order in which one reads them; any other page of `spec/` comes after these.
const ORDER: [&str; 9] = [
    "spec/SPEC.md",
    "spec/WIRE_FORMAT.md",
    "spec/MESSAGE_TYPES.md",
    "spec/TRUST.md",
    "spec/IPC.md",
    "spec/kinds/core.md",
    "spec/kinds/pairing.md",
    "spec/kinds/topics.md",
    "spec/kinds/presence.md",
];
const LIST: &str = "spec/requirements.yaml";
const COMMAND: &str = "AXON_RECORD=1 cargo test --test all traceability::";
/// Before a list of ids, in a comment. In two halves, so that this file does not cite its own examples.
const SHOWS: &str = concat!("sho", "ws:");

/// Path from the root, and content.
type File = (String, String);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below these folders with one of these endings. What tools put there is passed over.
fn files(dirs: &[&str], endings: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    let mut dirs: Vec<_> = dirs.iter().map(|dir| root().join(dir)).filter(|dir| dir.is_dir()).collect();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            let tools = ["node_modules", "target", "dist", "__pycache__", "/."];
            if tools.iter().any(|tool| name.contains(tool)) {
            } else if path.is_dir() {
                dirs.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

// ---- Pages ------------------------------------------------------------------------------------------------

/// What stands under an id on a page.
struct Requirement {
    page: String,
    /// Whether it says MUST or MUST NOT.
    must: bool,
}

/// Whether the keyword stands in this text.
fn says_must(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "MUST")
}

/// The id of an item, from the line that begins it.
fn item(line: &str) -> Option<&str> {
    line.strip_prefix("- [")?.split_once("] ").map(|(id, _)| id).filter(|id| is_id(id))
}

/// Capitals and digits, dashes between, and a number at its end: `AB-CD-1`.
fn is_id(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let capitals =
        |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    let last = parts.last().unwrap_or(&"");
    parts.len() == 3
        && parts.iter().all(capitals)
        && last.chars().all(|c| c.is_ascii_digit())
        && text.starts_with(|c: char| c.is_ascii_uppercase())
}

/// The ids in a text, wherever they stand.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| is_id(word))
}

/// All ids of the pages in their order, and what is wrong on the pages.
fn requirements(pages: &[File]) -> (Vec<(String, Requirement)>, Vec<String>) {
    let mut found: Vec<(String, Requirement)> = Vec::new();
    let mut faults = Vec::new();
    for (page, text) in pages {
        let (mut inside, mut fenced) = (false, false);
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if fenced || line.trim().is_empty() {
                // An example binds nobody. A blank line ends no item: an indented line goes on with it.
            } else if let Some(id) = item(line) {
                if found.iter().any(|(other, _)| other == id) {
                    faults.push(format!("{page}:{number}: [{id}] stands twice"));
                }
                found.push((id.to_owned(), Requirement { page: page.clone(), must: says_must(line) }));
                inside = true;
            } else if inside && line.starts_with("  ") {
                let (_, last) = found.last_mut().unwrap();
                last.must |= says_must(line);
            } else {
                inside = false;
                // Where the keywords are explained they bind nobody.
                if says_must(line) && !line.contains("MUST, MUST NOT,") {
                    faults.push(format!("{page}:{number}: a MUST without an id: {line}"));
                }
            }
        }
    }
    (found, faults)
}

// ---- Citations --------------------------------------------------------------------------------------------

/// Under each id the tests (or vectors) that cite it.
type Evidence = BTreeMap<String, BTreeSet<String>>;

/// The comment of a line, without its marks.
fn comment(line: &str) -> Option<&str> {
    let at = line.find("// ").or_else(|| line.find("//! ")).or_else(|| line.find("/// "));
    // In Python and in scripts the whole line.
    let hash = line.trim_start().strip_prefix("# ");
    at.map(|at| line[at..].trim_start_matches(['/', '!'])).or(hash)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name of the function that this line begins.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").or(line.strip_prefix("pub(crate) ")).unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    let name = line.strip_prefix("fn ")?.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()?;
    (!name.is_empty()).then_some(name)
}

/// The line of the function that a comment in this line belongs to: the next, when only comments and
/// attributes are between, else the one around it.
fn function_at(lines: &[&str], at: usize) -> Option<usize> {
    let between = |line: &&&str| line.trim_start().starts_with("//") || line.trim_start().starts_with("#[");
    let below = at + 1 + lines[at + 1..].iter().take_while(between).count();
    if lines[at].trim_start().starts_with("//")
        && lines.get(below).is_some_and(|line| function(line).is_some())
    {
        return Some(below);
    }
    (0..at).rev().find(|above| function(lines[*above]).is_some() && indent(lines[*above]) < indent(lines[at]))
}

/// Whether a function is a test that a plain `cargo test` runs.
fn is_test(lines: &[&str], at: usize) -> bool {
    let above = |line: &&&str| line.trim_start().starts_with("//") || line.trim_start().starts_with("#[");
    let marks: Vec<_> = lines[..at].iter().rev().take_while(above).collect();
    let test = marks.iter().any(|line| line.trim_start().starts_with("#[") && line.contains("test"));
    test && !marks.iter().any(|line| line.trim_start().starts_with("#[ignore"))
}

/// What the comments of these files cite, and what is wrong with them.
fn citations(sources: &[File]) -> (Evidence, Vec<String>) {
    let mut found = Evidence::new();
    let mut faults = Vec::new();
    for (file, text) in sources {
        let lines: Vec<&str> = text.lines().collect();
        let mut at = 0;
        while at < lines.len() {
            let (first, told) = (at, comment(lines[at]).and_then(|comment| comment.split_once(SHOWS)));
            at += 1;
            let Some((_, told)) = told else { continue };
            let mut cited = told.to_owned();
            // A list that ends with a comma goes on in the next line.
            while cited.trim_end().ends_with(',') && at < lines.len() {
                cited.push_str(comment(lines[at]).unwrap_or_default());
                at += 1;
            }
            let cited: Vec<&str> = ids(&cited).collect();
            let place = if file.ends_with(".rs") {
                match function_at(&lines, first) {
                    Some(line) if is_test(&lines, line) => {
                        format!("{file}::{}", function(lines[line]).unwrap())
                    }
                    Some(line) => {
                        let name = function(lines[line]).unwrap();
                        faults.push(format!("{file}:{}: {name} is no test that is run", first + 1));
                        continue;
                    }
                    None => file.clone(),
                }
            } else {
                file.clone()
            };
            for id in cited {
                found.entry(id.to_owned()).or_default().insert(place.clone());
            }
        }
    }
    (found, faults)
}

/// Which files of vectors have a case for an id.
fn vectors(files: &[File]) -> Evidence {
    fn within(value: &Value, file: &str, found: &mut Evidence) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| within(value, file, found)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(id) if name == "requirement" => {
                            found.entry(id.clone()).or_default().insert(file.to_owned());
                        }
                        Value::Array(list) if name == "requirement" || name == "requirements" => {
                            for id in list.iter().filter_map(Value::as_str) {
                                found.entry(id.to_owned()).or_default().insert(file.to_owned());
                            }
                        }
                        // The input of a case is the case's own affair.
                        _ if name == "input" => {}
                        value => within(value, file, found),
                    }
                }
            }
            _ => {}
        }
    }
    let mut found = Evidence::new();
    for (file, text) in files {
        let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        within(&value, file, &mut found);
    }
    found
}

// ---- The list ---------------------------------------------------------------------------------------------

/// What the list says of one id.
#[derive(Default, Clone, PartialEq, Debug)]
struct Entry {
    tests: BTreeSet<String>,
    vectors: BTreeSet<String>,
    reason: String,
}

/// Reads the list: a strict part of YAML, of ids, two lists and a folded text.
fn read(text: &str) -> Result<BTreeMap<String, Entry>, String> {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    let (mut id, mut field) = (String::new(), "");
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |what: &str| Err(format!("{LIST}:{number}: {what}: {line}"));
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.starts_with(' ') {
            let Some(name) = line.strip_suffix(':').filter(|name| is_id(name)) else {
                return wrong("this is no id and a colon");
            };
            if entries.insert(name.to_owned(), Entry::default()).is_some() {
                return wrong("this id stands twice");
            }
            (id, field) = (name.to_owned(), "");
            continue;
        }
        let Some(entry) = entries.get_mut(&id) else { return wrong("this stands under no id") };
        if let Some(name) = line.strip_prefix("  ").filter(|name| !name.starts_with(' ')) {
            field = match name {
                "tests:" => "tests",
                "vectors:" => "vectors",
                "reason: >-" => "reason",
                _ => return wrong("this is none of `tests:`, `vectors:` and `reason: >-`"),
            };
        } else if let Some(value) = line.strip_prefix("    ") {
            match (field, value.strip_prefix("- ")) {
                ("tests", Some(test)) => drop(entry.tests.insert(test.to_owned())),
                ("vectors", Some(file)) => drop(entry.vectors.insert(file.to_owned())),
                ("reason", None) => {
                    entry.reason.push_str(if entry.reason.is_empty() { "" } else { " " });
                    entry.reason.push_str(value.trim());
                }
                _ => return wrong("this belongs to no field"),
            }
        } else {
            return wrong("fields stand two columns in, values four");
        }
    }
    Ok(entries)
}

/// The list as it is to be: all ids that bind, and all that anything shows, in the order of the pages.
fn write(all: &[(String, Requirement)], tests: &Evidence, cases: &Evidence, reasons: &Reasons) -> String {
    let mut text = format!(
        "# Every MUST and MUST NOT of the specification by its id, and what shows it; other ids, where\n\
         # anything does. `tests` are functions that cite the id in a comment (`// {SHOWS} ID, ID`),\n\
         # `vectors` files of spec/vectors with a case for it. This writes both:\n\
         #     {COMMAND}\n\
         # Where there is neither, `reason` says why, written by hand. tests/traceability.rs compares it all.\n"
    );
    let mut page = "";
    for (id, requirement) in all {
        let mut entry = String::new();
        for (field, evidence) in [("tests", tests), ("vectors", cases)] {
            if let Some(list) = evidence.get(id) {
                let _ = writeln!(entry, "  {field}:");
                for place in list {
                    let _ = writeln!(entry, "    - {place}");
                }
            }
        }
        if entry.is_empty()
            && let Some(reason) = reasons.get(id)
        {
            entry.push_str("  reason: >-\n");
            let mut line = String::from("   ");
            for word in reason.split_whitespace() {
                if line.len() + word.len() >= 110 {
                    let _ = writeln!(entry, "{line}");
                    line = String::from("   ");
                }
                let _ = write!(line, " {word}");
            }
            let _ = writeln!(entry, "{line}");
        }
        if entry.is_empty() && !requirement.must {
            continue;
        }
        if page != requirement.page {
            page = &requirement.page;
            let _ = write!(text, "\n# ---- {page}\n\n");
        }
        let _ = write!(text, "{id}:\n{entry}");
    }
    text
}

type Reasons = BTreeMap<String, String>;

/// All that is read for one comparison.
struct Trace {
    pages: Vec<File>,
    /// Whose comments cite.
    sources: Vec<File>,
    /// What names ids in passing.
    prose: Vec<File>,
    vectors: Vec<File>,
    list: String,
}

/// How many requirements there are, and what shows them.
#[derive(Default, Debug, PartialEq)]
struct Figures {
    ids: usize,
    musts: usize,
    by_tests: usize,
    by_vectors: usize,
    shown: usize,
    reasons: usize,
}

impl Trace {
    fn load() -> Self {
        let mut pages = files(&["spec"], &[".md"]);
        // Decisions tell how it came to be, and bind nobody.
        let decisions = |file: &File| file.0.starts_with("spec/decisions/");
        let mut prose: Vec<File> = pages.iter().filter(|file| decisions(file)).cloned().collect();
        pages.retain(|file| !decisions(file));
        let place = |page: &str| ORDER.iter().position(|name| *name == page).unwrap_or(ORDER.len());
        pages.sort_by_key(|(page, _)| (place(page), page.clone()));
        prose.extend(files(&["rubrics", "benches", "axon"], &[".md"]));
        for page in ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
            prose.push((page.to_owned(), fs::read_to_string(root().join(page)).unwrap()));
        }
        let sources = files(&["tests", "axon", "examples", "benches"], &[".rs", ".py", ".sh", ".ts", ".mjs"]);
        let list = fs::read_to_string(root().join(LIST)).unwrap_or_default();
        Self { pages, sources, prose, vectors: files(&["spec/vectors"], &[".json"]), list }
    }

    /// What is wrong, each with what to do, and the figures.
    fn judge(&self) -> (Vec<String>, Figures) {
        let (all, mut faults) = requirements(&self.pages);
        let known: BTreeMap<&str, &Requirement> = all.iter().map(|(id, one)| (id.as_str(), one)).collect();
        let (tests, wrong) = citations(&self.sources);
        faults.extend(wrong);
        let cases = vectors(&self.vectors);
        for (id, places) in tests.iter().chain(&cases) {
            if !known.contains_key(id.as_str()) {
                faults.push(format!("{places:?}: no page has the id {id}"));
            }
        }
        // Names in passing, also from page to page.
        let families: BTreeSet<&str> = known.keys().filter_map(|id| id.split('-').next()).collect();
        for (file, text) in self.pages.iter().chain(&self.sources).chain(&self.prose) {
            for id in ids(text).filter(|id| families.contains(id.split('-').next().unwrap())) {
                if !known.contains_key(id) {
                    faults.push(format!("{file}: no page has the id {id}"));
                }
            }
        }
        let list = match read(&self.list) {
            Ok(list) => list,
            Err(fault) => {
                faults.push(fault);
                return (faults, Figures::default());
            }
        };
        let mut figures = Figures { ids: all.len(), ..Figures::default() };
        let nothing = BTreeSet::new();
        for (id, entry) in &list {
            if !known.contains_key(id.as_str()) {
                faults.push(format!("{LIST}: no page has the id {id}"));
            }
            for (told, found) in [(&entry.tests, tests.get(id)), (&entry.vectors, cases.get(id))] {
                for place in told.difference(found.unwrap_or(&nothing)) {
                    faults
                        .push(format!("{LIST}: {id} names {place}, which is not there or does not cite it"));
                }
                for place in found.unwrap_or(&nothing).difference(told) {
                    faults.push(format!("{LIST}: {place} shows {id}: {COMMAND}"));
                }
            }
            if !entry.reason.is_empty() && entry.tests.len() + entry.vectors.len() > 0 {
                faults.push(format!(
                    "{LIST}: {id} has a reason why nothing shows it, and what does: {COMMAND}"
                ));
            }
        }
        for (id, requirement) in &all {
            let entry = list.get(id).cloned().unwrap_or_default();
            let (by_tests, by_vectors) = (!entry.tests.is_empty(), !entry.vectors.is_empty());
            if !list.contains_key(id) && (tests.contains_key(id) || cases.contains_key(id)) {
                faults.push(format!("{LIST}: {id} is missing: {COMMAND}"));
            }
            if requirement.must {
                figures.musts += 1;
                figures.by_tests += usize::from(by_tests);
                figures.by_vectors += usize::from(by_vectors);
                figures.shown += usize::from(by_tests || by_vectors);
                figures.reasons += usize::from(!entry.reason.is_empty());
                if !by_tests && !by_vectors && entry.reason.is_empty() {
                    faults.push(format!("{LIST}: {id} is a MUST that nothing shows, and says no reason"));
                }
            }
        }
        let wanted = write(&all, &tests, &cases, &reasons(&list));
        if faults.is_empty() && self.list != wanted {
            faults.push(format!("{LIST} is not in its order or form: {COMMAND}"));
        }
        (faults, figures)
    }
}

fn reasons(list: &BTreeMap<String, Entry>) -> Reasons {
    let given = list.iter().filter(|(_, entry)| !entry.reason.is_empty());
    given.map(|(id, entry)| (id.clone(), entry.reason.clone())).collect()
}

#[test]
fn every_must_is_shown_or_says_why_not() {
    let mut trace = Trace::load();
    if std::env::var_os("AXON_RECORD").is_some() {
        let list = read(&trace.list).unwrap_or_else(|fault| panic!("{fault}"));
        let (all, _) = requirements(&trace.pages);
        let tests = citations(&trace.sources).0;
        trace.list = write(&all, &tests, &vectors(&trace.vectors), &reasons(&list));
        fs::write(root().join(LIST), &trace.list).unwrap();
    }
    let (faults, figures) = trace.judge();
    eprintln!("{figures:?}");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

// ---- That it can fail -------------------------------------------------------------------------------------

/// A small whole one: two requirements, a test, a vector and a reason.
fn sound() -> Trace {
    let one = |name: &str, text: &str| vec![(name.to_owned(), text.to_owned())];
    let page = "# Page\n\nThe keywords MUST, MUST NOT, and MAY.\n\n- [AB-ONE-1] It MUST be\n  so.\n\
                - [AB-ONE-2] It goes\n  on, and MUST NOT end.\n- [AB-ONE-3] It may rest.\n";
    let source = format!("#[test]\nfn it_is_so() {{\n    // {SHOWS} AB-ONE-1,\n    // AB-ONE-3\n}}\n");
    let cases = r#"{"cases":[{"id":"a","requirement":"AB-ONE-1","input":{"requirement":"AB-NONE-9"}}]}"#;
    let mut trace = Trace {
        pages: one("spec/P.md", page),
        sources: one("tests/t.rs", &source),
        prose: one("README.md", "See AB-ONE-2."),
        vectors: one("spec/vectors/v.json", cases),
        list: String::new(),
    };
    let reasons = Reasons::from([("AB-ONE-2".to_owned(), "Nobody can wait for it.".to_owned())]);
    let tests = citations(&trace.sources).0;
    trace.list = write(&requirements(&trace.pages).0, &tests, &vectors(&trace.vectors), &reasons);
    trace
}

#[test]
fn a_sound_one_has_no_fault() {
    let (faults, figures) = sound().judge();
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(figures, Figures { ids: 3, musts: 2, by_tests: 1, by_vectors: 1, shown: 1, reasons: 1 });
}

#[test]
fn each_thing_that_can_be_wrong_is_told() {
    let told = |plant: &dyn Fn(&mut Trace), fault: &str| {
        let mut trace = sound();
        plant(&mut trace);
        let (faults, _) = trace.judge();
        assert!(faults.iter().any(|told| told.contains(fault)), "{fault}: {faults:?}");
    };
    let replace = |text: &mut String, from: &str, to: &str| {
        assert!(text.contains(from), "{from}: {text}");
        *text = text.replace(from, to);
    };
    told(&|trace| trace.pages[0].1.push_str("\nIt MUST shine.\n"), "a MUST without an id");
    told(&|trace| trace.pages[0].1.push_str("- [AB-ONE-1] Again.\n"), "stands twice");
    told(
        &|trace| trace.pages[0].1.push_str("- [AB-ONE-4] It MUST be new.\n"),
        "AB-ONE-4 is a MUST that nothing",
    );
    told(&|trace| replace(&mut trace.pages[0].1, "may rest", "MUST rest, as AB-ONE-7"), "the id AB-ONE-7");
    told(
        &|trace| replace(&mut trace.list, "    Nobody can wait for it.\n", ""),
        "AB-ONE-2 is a MUST that nothing",
    );
    told(&|trace| replace(&mut trace.list, "AB-ONE-2", "AB-ONE-9"), "no page has the id AB-ONE-9");
    told(&|trace| replace(&mut trace.list, "it_is_so", "it_is_not"), "it_is_not, which is not there");
    told(&|trace| replace(&mut trace.list, "v.json", "w.json"), "w.json, which is not there");
    told(&|trace| replace(&mut trace.list, "  tests:", "  test:"), "this is none of");
    told(&|trace| trace.list.push_str("AB-ONE-1:\n"), "this id stands twice");
    told(&|trace| trace.list.push_str("# more\n"), "not in its order or form");
    told(&|trace| replace(&mut trace.sources[0].1, "AB-ONE-1", "AB-ONE-8"), "no page has the id AB-ONE-8");
    told(&|trace| replace(&mut trace.sources[0].1, "AB-ONE-1", "AC-ONE-1"), "no page has the id AC-ONE-1");
    let why = "  reason: >-\n    Why.\n";
    told(&|trace| replace(&mut trace.list, "  vectors:", &format!("{why}  vectors:")), "and what does");
    told(&|trace| replace(&mut trace.sources[0].1, "#[test]", "#[inline]"), "is no test that is run");
    told(
        &|trace| replace(&mut trace.sources[0].1, "#[test]", "#[test]\n#[ignore]"),
        "is no test that is run",
    );
    told(&|trace| replace(&mut trace.sources[0].1, "// ", ""), "is not there or does not cite it");
    told(&|trace| replace(&mut trace.vectors[0].1, "AB-ONE-1", "AB-ONE-6"), "no page has the id AB-ONE-6");
    told(&|trace| trace.prose[0].1.push_str(" AB-ONE-5"), "README.md: no page has the id AB-ONE-5");
}
