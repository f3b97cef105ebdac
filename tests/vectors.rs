//! The conformance vectors of `spec/vectors`: this implementation does what they say, and they are sound
//! themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use axon::conform::vectors::{self, Verdict};
use axon_proto::error::{IpcCode, PeerCode};
use serde_json::Value;

fn spec(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("spec").join(path)
}

fn all() -> BTreeMap<String, vectors::File> {
    vectors::load(&spec("vectors")).unwrap()
}

fn none(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
}

#[test]
fn this_implementation_does_what_the_vectors_say() {
    let mut faults = Vec::new();
    for (name, file) in all() {
        for case in &file.cases {
            let held = vectors::run(file.check, case);
            faults.extend(held.seen.map(|seen| format!("{name}: {} ({}): {seen}", case.id, case.about)));
        }
    }
    none("find out whether the page or the code is right", &faults);
}

#[test]
fn no_id_stands_twice_and_no_flag_is_unused() {
    none("mend the files", &vectors::faults(&all()));
}

/// The ids of requirements that the pages have.
fn requirements() -> BTreeSet<String> {
    let kinds = ["kinds/core", "kinds/pairing", "kinds/topics", "kinds/presence"];
    let pages = ["WIRE_FORMAT", "MESSAGE_TYPES", "IPC", "TRUST"].into_iter().chain(kinds);
    let mut found = BTreeSet::new();
    for page in pages {
        let text = fs::read_to_string(spec(&format!("{page}.md"))).unwrap();
        let ids = text.lines().filter_map(|line| line.strip_prefix("- [")?.split_once(']'));
        found.extend(ids.map(|(id, _)| id.to_owned()));
    }
    assert!(found.len() > 300, "{found:?}");
    found
}

#[test]
fn every_requirement_is_one_of_the_pages() {
    let known = requirements();
    let mut faults = Vec::new();
    for (name, file) in all() {
        let strange = file.cases.iter().filter(|case| !known.contains(&case.requirement));
        faults.extend(strange.map(|case| format!("{name}: {} names {}", case.id, case.requirement)));
    }
    none("no page has these", &faults);
}

#[test]
fn every_error_is_a_code_or_a_count() {
    let others = [
        "malformed",
        "over_limit",
        "before_hello",
        "wrong_stream",
        "replayed",
        "refused",
        "limited",
        "reject",
        "forged",
    ];
    let known = |code: &str| {
        PeerCode::parse(code).is_some() || IpcCode::parse(code).is_some() || others.contains(&code)
    };
    let mut faults = Vec::new();
    for (name, file) in all() {
        let strange = file.cases.iter().filter(|case| case.error.as_deref().is_some_and(|code| !known(code)));
        faults.extend(strange.map(|case| format!("{name}: {} has {:?}", case.id, case.error)));
    }
    none("no page has these", &faults);
}

#[test]
fn there_are_enough_and_most_are_invalid() {
    let files = all();
    let cases: Vec<_> = files.values().flat_map(|file| &file.cases).collect();
    let invalid = cases.iter().filter(|case| case.verdict == Verdict::Invalid).count();
    assert!(cases.len() >= 400, "{} cases", cases.len());
    assert!(2 * invalid > cases.len(), "{invalid} of {} are invalid", cases.len());
}

#[test]
fn the_files_are_as_their_schema_says() {
    let schema: Value = serde_json::from_slice(&fs::read(spec("vectors.schema.json")).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let mut faults = Vec::new();
    for name in all().keys() {
        let path = spec("vectors").join(format!("{name}.json"));
        let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let told = schema.iter_errors(&file).map(|error| format!("{name}{}: {error}", error.instance_path()));
        faults.extend(told.map(|text| text.chars().take(400).collect::<String>()));
        let mut wrong = file.clone();
        wrong["cases"][0].as_object_mut().unwrap().remove("verdict");
        assert!(!schema.is_valid(&wrong), "{name}: a case without a verdict");
    }
    none("mend the files, or the schema", &faults);
}

/// A case that says the opposite is found out: the runner looks.
#[test]
fn a_wrong_expectation_does_not_hold() {
    let mut taken = Vec::new();
    for (name, file) in all() {
        for case in file.cases {
            let mut wrong = case.clone();
            match case.verdict {
                Verdict::Valid => (wrong.verdict, wrong.error) = (Verdict::Invalid, Some("internal".into())),
                Verdict::Invalid => wrong.error = Some("internal".into()),
            }
            if vectors::run(file.check, &wrong).ok() {
                taken.push(format!("{name}: {}", case.id));
            }
        }
    }
    none("these hold whatever they say", &taken);
}
