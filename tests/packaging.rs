//! What is given out: the Debian package, built and installed into a clean root, the archive, the manual and
//! the completions, as their shells take them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::support::cli::Home;
use crate::support::{AXON, pair, skip};

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

/// What completes these words in bash, of which the last is begun.
const BASH: &str = r#"
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_axon_or_peers axon "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// The same in zsh, where a peer is wanted; what takes the words up is our own.
const ZSH: &str = r#"
compdef() { }
compadd() { print -l -- $peers }
source $1; shift
BUFFER=${(j: :)${(q)@}}
_axon_peers
"#;

#[test]
fn completions_know_verbs_options_and_the_names_of_peers() {
    let (alice, _bob) = pair();
    let home = Home::default();
    let (bin, root) = (home.path().join("bin"), alice.root());
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(AXON, bin.join("axon")).unwrap();
    let search = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path()))).unwrap();
    let script = |shell: &str| {
        let file = home.path().join(shell);
        fs::write(&file, home.run(&["completions", shell]).stdout).unwrap();
        file
    };
    let lines = |command: &mut Command| {
        command
            .env("PATH", &search)
            .env("HOME", home.path())
            .env_remove("AXON_ROOT")
            .env_remove("AXON_SOCKET");
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let at = ["axon", "--root", root.to_str().unwrap()];

    // What the scripts ask for, also where nobody is there to ask.
    let mut asked = Command::new(AXON);
    assert_eq!(lines(asked.args(&at[1..]).args(["completions", "--peers"])), ["bob"]);
    assert_eq!(lines(Command::new(AXON).args(["completions", "--peers"])), Vec::<String>::new());

    if is_there("bash") {
        let file = script("bash");
        let bash = |words: &[&str]| {
            lines(Command::new("bash").args(["--norc", "-c", BASH, "bash"]).arg(&file).args(words))
        };
        assert_eq!(bash(&["axon", "dele"]), ["delegate", "delegations"]);
        assert!(bash(&["axon", "service", ""]).contains(&"install".to_owned()));
        assert!(bash(&["axon", "service", "install", "--p"]).contains(&"--print".to_owned()));
        for words in [
            &["send", ""][..],
            &["send", "b"],
            &["send", "--deadline", "5", ""],
            &["policy", "check", ""],
            &["audit", "--peer", ""],
        ] {
            assert_eq!(bash(&[&at, words].concat()), ["bob"], "{words:?}");
        }
        for words in [&["send", "bob", ""][..], &["send", "--deadline", ""], &["status", ""], &["send", "x"]]
        {
            assert!(!bash(&[&at, words].concat()).contains(&"bob".to_owned()), "{words:?}");
        }
        assert!(!bash(&["axon", "send", ""]).contains(&"bob".to_owned()), "another root has other peers");
    } else {
        skip("completions in bash", "there is no bash");
    }

    if is_there("zsh") {
        let file = script("zsh");
        lines(Command::new("zsh").arg("-n").arg(&file));
        let zsh =
            |words: &[&str]| lines(Command::new("zsh").args(["-f", "-c", ZSH, "zsh"]).arg(&file).args(words));
        assert_eq!(zsh(&[&at[..], &["send", ""]].concat()), ["bob"]);
        assert_eq!(zsh(&["axon", "send", ""]), [""]);
    } else {
        skip("completions in zsh", "there is no zsh");
    }

    if is_there("fish") {
        let file = script("fish");
        lines(Command::new("fish").arg("-n").arg(&file));
        let fish = |line: &str| {
            let program = format!("source {}; complete -C '{line}'", file.display());
            lines(Command::new("fish").args(["--no-config", "-c", &program]))
        };
        assert_eq!(fish("axon dele"), ["delegate", "delegations"]);
        for words in ["send ", "send --deadline 5 ", "policy check ", "audit --peer "] {
            let said = fish(&format!("{} {words}", at.join(" ")));
            assert!(said.contains(&"bob".to_owned()), "{words}: {said:?}");
        }
        for words in ["send bob ", "status "] {
            let said = fish(&format!("{} {words}", at.join(" ")));
            assert!(!said.contains(&"bob".to_owned()), "{words}: {said:?}");
        }
    } else {
        skip("completions in fish", "there is no fish");
    }
}
