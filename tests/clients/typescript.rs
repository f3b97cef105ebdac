//! The TypeScript library: its own tests, the shared cases, its README, and what its package holds.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use super::support::{self, pair};
use super::{play, repository};

fn package() -> PathBuf {
    repository().join("axon/client/typescript")
}

/// Why the library cannot be built here, if so; else it is built, once.
fn built() -> &'static Result<(), String> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let version = Command::new("node").args(["-p", "parseInt(process.versions.node) >= 18"]).output();
        if !version.is_ok_and(|output| output.stdout.starts_with(b"true")) {
            return Err("node (18 or later) is not installed".to_owned());
        }
        let compiler = package().join("node_modules/typescript/bin/tsc");
        if !compiler.exists() {
            return Err("its compiler is not installed: run `npm ci` in axon/client/typescript".to_owned());
        }
        let output = node(&[compiler.to_str().unwrap(), "-p", "."]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    })
}

fn node(arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.args(arguments).current_dir(package()).env_remove("NODE_OPTIONS");
    command
}

/// Whether the test that is called so is skipped, and says so.
fn skipped(name: &str) -> bool {
    let Err(why) = built() else { return false };
    support::skip(name, why);
    true
}

#[test]
fn typescript_plays_the_cases() {
    if !skipped("typescript_plays_the_cases") {
        play(node(&["test/cases.mjs"]));
    }
}

#[test]
fn typescript_keeps_its_own_tests() {
    if skipped("typescript_keeps_its_own_tests") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut tests: Vec<String> = fs::read_dir(package().join("test"))
        .unwrap()
        .map(|entry| format!("test/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|name| name.ends_with(".test.mjs"))
        .collect();
    tests.sort();
    assert!(!tests.is_empty());
    let arguments: Vec<&str> = ["--test"].into_iter().chain(tests.iter().map(String::as_str)).collect();
    let output = node(&arguments).env("HOME", home.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("# pass ") && !said.contains("# pass 0"), "{said}");
    assert!(said.contains("# skipped 0"), "{said}");
}

#[test]
fn typescript_examples_of_its_readme_run() {
    if skipped("typescript_examples_of_its_readme_run") {
        return;
    }
    let (alice, bob) = pair();
    let mut command = node(&["test/readme.mjs"]);
    command.env("AXON_A", alice.socket()).env("AXON_B", bob.socket()).env("HOME", alice.root());
    let output = command.env_remove("AXON_ROOT").env_remove("AXON_SOCKET").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
}

#[test]
fn typescript_package_holds_what_it_should() {
    if skipped("typescript_package_holds_what_it_should") {
        return;
    }
    let text = |path: &str| fs::read_to_string(package().join(path)).unwrap();
    let manifest: Value = serde_json::from_str(&text("package.json")).unwrap();
    assert_eq!(manifest["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(manifest.get("dependencies"), None, "it depends on nothing at run time");
    assert!(!text("package-lock.json").contains("\"resolved\""), "the lock file names a registry");
    assert_eq!(text("LICENSE"), fs::read_to_string(repository().join("LICENSE")).unwrap());

    let home = tempfile::tempdir().unwrap();
    let mut npm = Command::new("npm");
    npm.args(["pack", "--dry-run", "--json", "--ignore-scripts", "--offline"]);
    let Ok(output) = npm.current_dir(package()).env("HOME", home.path()).output() else {
        return support::skip("typescript_package_holds_what_it_should", "npm is not installed");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut files: Vec<&str> =
        packed[0]["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    files.sort_unstable();
    let mut wanted = vec!["LICENSE".to_owned(), "README.md".to_owned(), "package.json".to_owned()];
    for entry in fs::read_dir(package().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".ts").unwrap();
        wanted.extend([format!("dist/{module}.js"), format!("dist/{module}.d.ts")]);
    }
    wanted.sort_unstable();
    assert_eq!(files, wanted);
}
