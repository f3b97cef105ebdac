//! The rubrics can be followed: their ids and commands are there, what is to print nothing prints nothing,
//! and their scores add up. And what they ask for that no other test looks at: links, the code map, short
//! functions.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const RUBRICS: [&str; 4] = ["quality", "documentation", "alignment", "readability"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn none(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
}

/// The repository's own files with one of these endings, without what tools have put there.
fn files(endings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![root().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            let last = name.rsplit('/').next().unwrap();
            if last.starts_with('.') || ["target", "node_modules", "dist", "__pycache__"].contains(&last) {
            } else if path.is_dir() && !path.is_symlink() {
                dirs.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

// ---- Rubrics ----------------------------------------------------------------------------------------------

/// Rows of the tables below a heading (or the page's title), by their cells.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #"));
    lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// What stands between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What stands in brackets and looks like an id.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    let inside = text.split('[').skip(1).filter_map(|rest| rest.split(']').next());
    inside.filter(|id| id.split('-').count() == 3 && id.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Why this command cannot be run as it stands, if so.
fn fault(command: &str) -> Option<String> {
    // Variables before it.
    let mut words = command.split_whitespace().skip_while(|word| word.contains('='));
    let program = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| *word == flag)?;
        words.get(at + 1).copied()
    };
    let there = |path: &str| (!root().join(path).is_file()).then(|| format!("{path} is not there"));
    match (program, words.first().copied().unwrap_or_default()) {
        ("cargo", "test") => {
            let dir = match after("-p") {
                None => "tests",
                Some("axon-proto") => "axon/proto/tests",
                Some(other) => return Some(format!("no tests of {other} are known here")),
            };
            let Some(target) = after("--test") else { return Some("it names no test target".to_owned()) };
            if target != "all" {
                return there(&format!("{dir}/{target}.rs"));
            }
            let Some((file, name)) = after("all").and_then(|filter| filter.split_once("::")) else {
                return Some("it names no file of tests".to_owned());
            };
            let path = format!("{dir}/{file}.rs");
            if let Some(fault) = there(&path) {
                return Some(fault);
            }
            let begins = format!("fn {name}(");
            (!name.is_empty() && !page(&path).contains(&begins)).then(|| format!("{path} has no test {name}"))
        }
        ("cargo", "run") => match (after("--example"), after("-p")) {
            (Some("bench"), None) => there("benches/core.rs"),
            (Some(example), Some("axon-proto")) => there(&format!("axon/proto/examples/{example}.rs")),
            (Some(example), _) => there(&format!("examples/{example}.rs")),
            (None, _) => {
                let at = words.iter().position(|word| *word == "--").map_or(words.len(), |at| at + 1);
                let verb = words.get(at).copied().unwrap_or_default();
                there(&format!("axon/src/cli/{verb}.rs"))
            }
        },
        ("cargo", "clippy" | "doc" | "fmt") => None,
        (script, _) if script.contains('/') => there(script).or_else(|| {
            let mode = fs::metadata(root().join(script)).unwrap().permissions().mode();
            (mode & 0o100 == 0).then(|| format!("{script} is no program"))
        }),
        _ => Some("this is no command that is known here".to_owned()),
    }
}

/// What is wrong with a rubric.
fn judge(name: &str, text: &str, known: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut wrong = |what: String| faults.push(format!("{name}: {what}"));
    let Some((criteria, score)) = text.split_once("\n## Score") else {
        return vec![format!("{name}: it has no score")];
    };
    let checks = criteria.split("```sh\n").nth(1).unwrap_or_default();
    let mut points = Vec::new();
    for row in rows(criteria) {
        let [number, most, _, shown] = row[..] else {
            wrong(format!("a row of {} cells: {row:?}", row.len()));
            continue;
        };
        points.push((number.to_owned(), most.parse::<u32>().unwrap_or_default()));
        let commands: Vec<&str> = spans(shown).collect();
        let below = shown.contains("below") && checks.contains(&format!("# {number}\n"));
        if commands.is_empty() && !below {
            wrong(format!("{number} names no command"));
        }
        for command in commands {
            if let Some(fault) = fault(command) {
                wrong(format!("{number}: {command}: {fault}"));
            }
        }
        for id in ids(shown).filter(|id| !known.contains(*id)) {
            wrong(format!("{number}: no page has the id {id}"));
        }
    }
    if points.iter().map(|(_, most)| most).sum::<u32>() != 100 {
        wrong("its points are not 100".to_owned());
    }
    let mut sum = 0;
    let given = rows(score);
    if given.iter().map(|row| row[0]).ne(points.iter().map(|(number, _)| number.as_str())) {
        wrong("the score has other rows than the criteria".to_owned());
    }
    for (row, (number, most)) in given.iter().zip(&points) {
        let got: u32 = row[1].parse().unwrap_or(u32::MAX);
        sum += got.min(*most);
        if got > *most || row.get(2).is_none_or(|why| why.is_empty()) {
            wrong(format!("the score of {number}: {row:?}"));
        }
    }
    let told = score.split("**").nth(1).unwrap_or_default();
    if told != format!("{sum} of 100") {
        wrong(format!("the points add up to {sum}, and it says {told:?}"));
    }
    let words: Vec<&str> = score.split([' ', '\n', ',', '.', ':']).collect();
    let commit = words.windows(2).find(|two| two[0] == "commit").map_or("", |two| two[1]);
    if commit.len() < 7 || !commit.chars().all(|c| c.is_ascii_hexdigit()) || !score.contains(" 20") {
        wrong("the score has no date or commit".to_owned());
    }
    faults
}

/// All ids of the pages.
fn known() -> BTreeSet<String> {
    let pages = files(&[".md"]).into_iter().filter(|name| name.starts_with("spec/"));
    let text: String = pages.map(|name| page(&name)).collect();
    let items = text.lines().filter_map(|line| line.strip_prefix("- ["));
    items.filter_map(|rest| Some(rest.split_once(']')?.0.to_owned())).collect()
}

#[test]
fn ids_and_commands_of_the_rubrics_are_there_and_scores_add_up() {
    let known = known();
    let names = RUBRICS.map(|name| format!("rubrics/{name}.md"));
    let all: Vec<String> = files(&[".md"]).into_iter().filter(|name| name.starts_with("rubrics/")).collect();
    assert_eq!(all, BTreeSet::from(names.clone()).into_iter().collect::<Vec<_>>());
    let faults: Vec<String> = names.iter().flat_map(|name| judge(name, &page(name), &known)).collect();
    none("rubrics", &faults);
}

#[test]
fn a_rubric_that_cannot_be_followed_is_told() {
    let sound = "# One\n\n| # | points | it | shown by |\n|---|---|---|---|\n\
        | A1 | 60 | it is | [AB-C-1]; `cargo test --test all rubrics::links_lead_somewhere` |\n\
        | A2 | 40 | it prints nothing | below |\n\n```sh\ntrue   # A2\n```\n\n## Score\n\n\
        **90 of 100**, 1 May 2026, commit 1234567.\n\n| # | points | why |\n|---|---|---|\n\
        | A1 | 60 | all |\n| A2 | 30 | not all |\n";
    let known = BTreeSet::from(["AB-C-1".to_owned()]);
    assert_eq!(judge("one", sound, &known), Vec::<String>::new());
    for (from, to, fault) in [
        ("AB-C-1", "AB-C-2", "no page has the id AB-C-2"),
        ("all rubrics::links", "all rubric::links", "tests/rubric.rs is not there"),
        ("links_lead_somewhere", "links_lead_nowhere", "has no test links_lead_nowhere"),
        ("`cargo test --test all rubrics::links_lead_somewhere`", "", "A1 names no command"),
        ("cargo test --test all rubrics::links_lead_somewhere", "look closely", "no command that is known"),
        ("cargo test --test all rubrics::links_lead_somewhere", "tests/rubrics.rs", "is no program"),
        ("# A2\n", "# A3\n", "A2 names no command"),
        ("| 40 |", "| 41 |", "its points are not 100"),
        ("| A1 | 60 | all", "| A1 | 61 | all", "the score of A1"),
        ("| A2 | 30 | not all", "| A2 | 30 | ", "the score of A2"),
        ("| A2 | 30 | not all |\n", "", "other rows than the criteria"),
        ("90 of", "91 of", "add up to 90"),
        ("commit 1234567", "commit soon", "no date or commit"),
        ("## Score", "## Later", "it has no score"),
    ] {
        assert!(sound.contains(from), "{from}");
        let faults = judge("one", &sound.replacen(from, to, 1), &known);
        assert!(faults.iter().any(|told| told.contains(fault)), "{fault}: {faults:?}");
    }
}

#[test]
fn what_is_to_print_nothing_prints_nothing() {
    let mut count = 0;
    let mut faults = Vec::new();
    for name in RUBRICS {
        let text = page(&format!("rubrics/{name}.md"));
        let block = text.split("```sh\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
        for line in block.lines() {
            let ran = Command::new("sh").args(["-c", line]).current_dir(root()).output().unwrap();
            let said = String::from_utf8_lossy(&ran.stdout).into_owned();
            let complaint = String::from_utf8_lossy(&ran.stderr);
            if !said.is_empty() || !complaint.is_empty() {
                faults.push(format!("{line}\n{said}{complaint}"));
            }
            count += 1;
        }
    }
    none("rubrics", &faults);
    assert!(count >= 8, "{count}");
}

// ---- What no other test looks at --------------------------------------------------------------------------

/// How a heading is named in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect()
}

/// A page without what stands between fences, which is shown and not linked.
fn unfenced(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

#[test]
fn links_lead_somewhere() {
    let (mut faults, mut count) = (Vec::new(), 0);
    for file in files(&[".md"]) {
        for rest in unfenced(&page(&file)).split("](").skip(1) {
            let Some((link, _)) = rest.split_once(')') else { continue };
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            count += 1;
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => root().join(&file),
                path => root().join(&file).parent().unwrap().join(path),
            };
            if !target.exists() {
                faults.push(format!("{file}: {link}: there is no such file"));
            } else if !heading.is_empty() && path.ends_with(".md") | path.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let mut names = headings.map(|line| {
                    // A heading may have a link in itself.
                    let words = line.trim_start_matches('#').trim().split("](").next().unwrap_or_default();
                    anchor(words)
                });
                if !names.any(|name| name == heading) {
                    faults.push(format!("{file}: {link}: there is no such heading"));
                }
            }
        }
    }
    none("links", &faults);
    assert!(count > 200, "{count} links are few: are they still read?");
}

#[test]
fn the_code_map_has_every_module() {
    let map = page("axon/ARCHITECTURE.md");
    let rows: String = map.lines().filter(|line| line.starts_with("| `")).collect();
    let mut faults = Vec::new();
    let mut wanted = BTreeSet::new();
    for file in files(&[".rs"]) {
        let name = |path: &str| path.trim_end_matches(".rs").trim_end_matches("/mod").to_owned();
        if let Some(path) = file.strip_prefix("axon/proto/src/") {
            // What has a folder of its own is one thing, but for the node, which is most of it.
            let first = name(path.split('/').next().unwrap());
            wanted.insert(if first == "node" { name(path) } else { first });
        } else if let Some(path) = file.strip_prefix("axon/src/") {
            wanted.insert(name(path.split('/').next().unwrap()));
        }
    }
    wanted.remove("lib");
    for module in &wanted {
        if !rows.contains(&format!("`{module}`")) && !rows.contains(&format!("`{module}/")) {
            faults.push(format!("axon/ARCHITECTURE.md: the code map has no row for {module}"));
        }
    }
    none("modules", &faults);
    assert!(wanted.len() > 50, "{} modules are few: are they still found?", wanted.len());
}

/// Functions of the crates that are longer than a hundred lines, and how long they may be.
const LONG: [(&str, usize); 2] =
    [("axon/proto/src/node/requests.rs carry_out", 174), ("axon/src/conform/peer.rs known", 114)];

#[test]
fn no_function_of_the_crates_is_longer_than_100_lines() {
    let (mut faults, mut count) = (Vec::new(), 0);
    for file in files(&[".rs"]).into_iter().filter(|file| file.contains("/src/") && !file.contains("/tests"))
    {
        let text = page(&file);
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let inner = line.trim_start();
            let Some((before, rest)) = inner.split_once("fn ") else { continue };
            let marks = ["pub", "pub(crate)", "pub(super)", "async", "const"];
            if line.ends_with(';') || !before.split_whitespace().all(|word| marks.contains(&word)) {
                continue;
            }
            // As it is formatted, it ends with a brace that stands where it began.
            let end = format!("{}}}", &line[..line.len() - inner.len()]);
            let Some(length) = lines[at..].iter().position(|line| *line == end) else { continue };
            count += 1;
            let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            let place = format!("{file} {name}");
            let most = LONG.iter().find(|(long, _)| *long == place).map_or(100, |(_, most)| *most);
            if length + 1 > most {
                faults.push(format!("{place} has {} lines, {most} at most", length + 1));
            }
        }
    }
    none("functions", &faults);
    assert!(count > 1_000, "{count} functions are few: are they still found?");
}
