//! What is given out: the Debian package, built and installed into a clean root, the archive, the manual and
//! the completions.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use support::cli::Home;
use support::{AXON, skip};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What packaging/ makes lies in one place: one test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Programs are looked for where `.ci/run` puts those that it builds, too.
fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap();
    let tools = root().join("target/tools/bin");
    std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path))).unwrap()
}

fn is_there(program: &str) -> bool {
    std::env::split_paths(&path()).any(|dir| dir.join(program).is_file())
}

/// Runs it; it must go well. Gives what it printed.
fn run(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
    let output = output(Command::new(program).args(args));
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn output(command: &mut Command) -> Output {
    command.env("PATH", path()).stdin(Stdio::null()).output().unwrap()
}

/// Files below a directory, by their paths from there.
fn files(dir: &Path) -> Vec<String> {
    let (mut dirs, mut found) = (vec![dir.to_owned()], Vec::new());
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_debian_package_installs_into_a_clean_root_and_works_there() {
    let name = "the_debian_package_installs_into_a_clean_root_and_works_there";
    for tool in ["cargo-deb", "dpkg", "dpkg-deb", "dpkg-shlibdeps"] {
        if !is_there(tool) {
            return skip(name, &format!("there is no {tool}"));
        }
    }
    let _turn = turn();
    let package = run(root().join("packaging/deb"), &[AXON]);
    let package = package.trim();
    let home = Home::default();
    let clean = home.path().join("clean");
    let admin = clean.join("var/lib/dpkg");
    fs::create_dir_all(admin.join("updates")).unwrap();
    fs::create_dir_all(admin.join("info")).unwrap();
    fs::write(admin.join("status"), "").unwrap();
    let at = clean.to_str().unwrap();
    // Only root may give files to root, which an installation does.
    let installs = rustix::process::geteuid().is_root();
    let dpkg = |args: &[&str]| {
        let mut command = Command::new("dpkg");
        let output =
            output(command.arg("--root").arg(at).args(["--force-depends", "--force-not-root"]).args(args));
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    if installs {
        dpkg(&["-i", package]);
        assert!(dpkg(&["-s", "axon"]).contains("Status: install ok installed"));
    } else {
        run("dpkg-deb", &["-x", package, at]);
    }

    // The program, in a home of its own: two daemons and what they say to each other.
    let program = clean.join("usr/bin/axon");
    let axon = |args: &[&str]| {
        let output =
            output(Command::new(&program).args(args).env("HOME", home.path()).env_remove("AXON_ROOT"));
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(axon(&["--version"]).trim(), format!("axon {}", env!("CARGO_PKG_VERSION")));
    axon(&["demo"]);

    // The unit is that of the definition, and systemd takes it.
    let unit = fs::read_to_string(clean.join("usr/lib/systemd/user/axon.service")).unwrap();
    assert_eq!(unit, axon(&["service", "unit", "/usr/bin/axon"]));
    if is_there("systemd-analyze") {
        let file = home.path().join("axon.service");
        fs::write(&file, unit.replace("/usr/bin/axon", program.to_str().unwrap())).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.args(["--user", "--man=no", "verify"]).arg(&file);
        let output = output(verify.env("XDG_RUNTIME_DIR", home.path()).env("HOME", home.path()));
        assert!(output.status.success(), "{output:?}");
    } else {
        skip(name, "there is no systemd-analyze");
    }

    // Each page of the manual, each completion, and what a package says of itself.
    let there = files(&clean.join("usr/share"));
    let pages = home.path().join("pages");
    run(AXON, &["-q", "man", "--dir", pages.to_str().unwrap()]);
    for page in files(&pages) {
        assert!(there.contains(&format!("man/man1/{page}.gz")), "{page}: {there:?}");
    }
    for file in [
        "bash-completion/completions/axon",
        "zsh/vendor-completions/_axon",
        "fish/vendor_completions.d/axon.fish",
        "doc/axon/README.md",
        "doc/axon/copyright",
    ] {
        assert!(fs::metadata(clean.join("usr/share").join(file)).unwrap().len() > 0, "{file}");
    }
    let copyright = fs::read_to_string(clean.join("usr/share/doc/axon/copyright")).unwrap();
    assert!(copyright.contains("Permission is hereby granted"), "{copyright}");
    let about = run("dpkg-deb", &["-f", package]);
    assert!(about.contains("Package: axon\n") && about.contains("Depends: libc6 (>= "), "{about}");
    let control = home.path().join("control");
    run("dpkg-deb", &["-e", package, control.to_str().unwrap()]);
    assert!(files(&control).iter().all(|file| ["control", "md5sums"].contains(&file.as_str())), "no scripts");

    if installs {
        dpkg(&["-r", "axon"]);
        assert!(!program.exists() && !clean.join("usr/share/man/man1/axon.1.gz").exists());
    }
}

#[test]
fn the_archive_is_as_binstall_looks_for_it() {
    if !is_there("tar") {
        return skip("the_archive_is_as_binstall_looks_for_it", "there is no tar");
    }
    let _turn = turn();
    let target = "some-machine";
    let archive = run(root().join("packaging/archive"), &[target, AXON]);
    let archive = archive.trim();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml_edit::DocumentMut = manifest.parse().unwrap();
    let binstall = &manifest["package"]["metadata"]["binstall"];
    let said = |key: &str| {
        let text = binstall[key].as_str().unwrap().replace("{ name }", "axon").replace("{ bin }", "axon");
        let text = text.replace("{ version }", env!("CARGO_PKG_VERSION")).replace("{ target }", target);
        text.replace("{ binary-ext }", "")
    };
    let url = said("pkg-url");
    assert_eq!(url.rsplit('/').next(), Path::new(archive).file_name().unwrap().to_str());
    assert_eq!(said("pkg-fmt"), "tgz");
    let home = Home::default();
    run("tar", &["-C", home.path().to_str().unwrap(), "-xzf", archive]);
    let program = home.path().join(said("bin-dir"));
    assert_eq!(run(&program, &["--version"]).trim(), format!("axon {}", env!("CARGO_PKG_VERSION")));
    let beside = files(program.parent().unwrap());
    for file in ["README.md", "LICENSE", "man/axon.1", "completions/_axon"] {
        assert!(beside.iter().any(|there| there == file), "{file}: {beside:?}");
    }
}

#[test]
fn the_manual_is_set_without_a_complaint() {
    let name = "the_manual_is_set_without_a_complaint";
    let home = Home::default();
    let dir = home.path().join("man");
    let wrote = home.run(&["man", "--dir", dir.to_str().unwrap()]).ok();
    let pages: Vec<PathBuf> = files(&dir).iter().map(|page| dir.join(page)).collect();
    assert_eq!(wrote["pages"], pages.len());
    let shown = home.run(&["man", "socket", "add"]);
    assert_eq!(shown.stdout, fs::read_to_string(dir.join("axon-socket-add.1")).unwrap());
    assert!(home.run(&["man", "nonsense"]).usage().contains("axon help"));
    if !is_there("groff") || !is_there("man") {
        return skip(name, "there is no man or no groff");
    }
    for page in &pages {
        let output = output(Command::new("groff").args(["-man", "-ww", "-z", "-Tutf8"]).arg(page));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
    }
    let mut man = Command::new("man");
    man.args(["-l", "--warnings"])
        .arg(dir.join("axon-send.1"))
        .env("MANPAGER", "cat")
        .env("LC_ALL", "C.UTF-8");
    let output = output(&mut man);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{text}");
    for said in ["axon send", "--deadline", "EXAMPLES", "axon(1)"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}
