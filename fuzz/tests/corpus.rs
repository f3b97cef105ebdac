//! The saved corpus through the targets: what was once interesting, and what once failed.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use axon_fuzz::TARGETS;

/// Bytes of the corpus of all targets.
const BYTES_MAX: u64 = 600_000;

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

#[test]
fn every_saved_input_holds() {
    let mut bytes = 0;
    for target in TARGETS {
        let dir = corpus().join(target.name);
        let mut paths: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() >= 5, "{} has {} inputs", target.name, paths.len());
        for path in paths {
            let data = fs::read(&path).unwrap();
            bytes += data.len() as u64;
            let held = std::panic::catch_unwind(|| (target.run)(&data));
            assert!(held.is_ok(), "{} does not hold; it is said above what", path.display());
        }
    }
    assert!(bytes <= BYTES_MAX, "the corpus has {bytes} bytes, and {BYTES_MAX} are allowed");
}

#[cfg(feature = "files")]
#[test]
fn every_folder_of_the_corpus_and_every_program_is_a_target_s() {
    let names = |dir: &Path| {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<String> =
            entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let mut targets: Vec<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    targets.sort();
    assert_eq!(names(&corpus()), targets);
    assert_eq!(names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets")), targets);
}
