//! The command line on one machine: roots, instances, settings, the doctor, and what needs no daemon.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support;
use crate::support::cli::{Home, Ran, keys, processes_with, run, sorted, spawn};
use crate::support::{Daemon, mode, pair, set_mode, wait_for};

/// The check of this name in what `axon doctor` printed.
fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

// ---- Roots and instances ----------------------------------------------------------------------------------

#[test]
fn the_root_comes_from_the_flag_then_the_environment_then_home() {
    let home = Home::default();
    let id = |ran: Ran| ran.ok()["agent_id"].as_str().unwrap().to_owned();
    let (one, two) = (home.path().join("one"), home.path().join("two"));
    let of_home = id(home.run(&["identity"]));
    let of_env = id(run(with_root(&home, &one, &["identity"])));
    let of_flag = id(run(with_root(&home, &one, &["--root", two.to_str().unwrap(), "identity"])));
    assert!(of_home != of_env && of_env != of_flag && of_flag != of_home);
    assert!(home.root().join("identity.key").exists() && two.join("identity.key").exists());
    assert_eq!(id(run(with_root(&home, &one, &["identity"]))), of_env, "the same again");
    assert_eq!((mode(&one), mode(&one.join("identity.key"))), (0o700, 0o600));
}

fn with_root(home: &Home, root: &std::path::Path, args: &[&str]) -> Command {
    let mut command = home.command(args);
    command.env("AXON_ROOT", root);
    command
}

#[test]
fn identity_prints_what_another_machine_needs() {
    let home = Home::default();
    let first = home.run(&["identity"]).ok();
    assert_eq!(keys(&first), sorted(["agent_id", "public_key", "uri"]));
    let (id, key) = (first["agent_id"].as_str().unwrap(), first["public_key"].as_str().unwrap());
    assert!(id.len() == 40 && id.starts_with("ed25519.") && key.len() == 44, "{first}");
    let uri = first["uri"].as_str().unwrap();
    let url = key.replace('+', "-").replace('/', "_");
    assert!(
        uri.starts_with(&format!("axon://{}@", url.trim_end_matches('='))) && uri.ends_with(":7100"),
        "{uri}"
    );
    home.run(&["config", "port", "7234"]).ok();
    home.run(&["config", "bind", "127.0.0.1"]).ok();
    let second = home.run(&["identity"]);
    assert_eq!((&second.ok()["agent_id"], second.stderr.as_str()), (&first["agent_id"], ""));
    assert!(second.json()["uri"].as_str().unwrap().ends_with("@127.0.0.1:7234"));
}

#[test]
fn instances_have_an_identity_a_port_and_a_socket_of_their_own() {
    let home = Home::default();
    assert_eq!(home.run(&["instances"]).ok()["instances"], json!([]));
    let of = |name: &str, args: &[&str]| home.run(&[&["--name", name], args].concat());
    let ids = ["alpha", "beta"].map(|name| of(name, &["identity"]).ok()["agent_id"].clone());
    assert_ne!(ids[0], ids[1]);
    let ports = ["alpha", "beta"].map(|name| of(name, &["config", "port"]).ok()["value"].as_u64().unwrap());
    assert!(ports[0] != ports[1] && ports.iter().all(|port| *port > 7100), "{ports:?}");
    // Tests beside this one may use the port that was chosen.
    for (key, value) in [("bind", "127.0.0.1"), ("mdns", "false"), ("port", "0")] {
        of("alpha", &["config", key, value]).ok();
    }
    let daemon = spawn(home.command(&["--name", "alpha", "daemon"]));
    let socket = home.root().join("instances/alpha/axon.sock");
    wait_for("the instance's socket", || UnixStream::connect(&socket).ok());
    assert_eq!(of("alpha", &["whoami"]).ok()["agent_id"], ids[0]);
    of("beta", &["whoami"]).fails(1, "no_daemon");
    let listed = home.run(&["instances"]).ok();
    let rows: Vec<&Value> =
        listed["instances"].as_array().unwrap().iter().filter(|row| row["name"].is_string()).collect();
    assert_eq!(rows.len(), 2, "{listed}");
    assert_eq!((&rows[0]["name"], &rows[0]["running"]), (&json!("alpha"), &json!(true)));
    assert_eq!((&rows[0]["pid"], &rows[1]["running"]), (&json!(daemon.pid()), &json!(false)));
    assert_eq!((&rows[1]["agent_id"], &rows[1]["port"]), (&ids[1], &json!(ports[1])));
    daemon.signal(Signal::TERM);
    let ended = daemon.wait();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{ended:?}");
}

// ---- Config and doctor ------------------------------------------------------------------------------------

#[test]
fn config_keeps_comments_and_order() {
    let home = Home::default();
    fs::create_dir(home.root()).unwrap();
    set_mode(&home.root(), 0o700);
    let file = home.root().join("config.toml");
    let before = "# mine\nname = \"ann\"  # me\n\n[ipc]\n# small\nbuffer_size = 10\n";
    fs::write(&file, before).unwrap();
    let set = home.run(&["config", "ipc.buffer_size", "20"]).ok();
    assert_eq!((&set["key"], &set["value"]), (&json!("ipc.buffer_size"), &json!(20)));
    assert_eq!(fs::read_to_string(&file).unwrap(), before.replace("10", "20"));
    home.run(&["config", "name", "bob"]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), before.replace("10", "20").replace("ann", "bob"));
    home.run(&["config", "port", "7200"]).ok();
    let now = fs::read_to_string(&file).unwrap();
    assert!(now.contains("# mine\n") && now.contains("# me\n") && now.contains("# small\n"), "{now}");
    let get = home.run(&["config", "port"]).ok();
    assert_eq!((&get["value"], &get["default"]), (&json!(7200), &json!(false)));
    assert_eq!(home.run(&["config", "--unset", "port"]).ok()["removed"], true);
    assert_eq!(home.run(&["config", "--unset", "port"]).ok()["removed"], false);
    let get = home.run(&["config", "port"]).ok();
    assert_eq!((&get["value"], &get["default"]), (&json!(7100), &json!(true)));
    let listed = home.run(&["config", "--list"]).ok();
    let settings = listed["settings"].as_array().unwrap();
    let row = |key: &str| settings.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("{key}"));
    assert_eq!((&row("ipc.buffer_size")["value"], &row("mdns")["value"]), (&json!(20), &json!(true)));
    assert_eq!(home.run(&["config", "peers"]).ok()["value"], json!([]));

    // A wrong value changes nothing, and says what would be right.
    for (key, value) in
        [("prot", "1"), ("port", "70000"), ("mdns", "maybe"), ("bind", "here"), ("peers", "x")]
    {
        home.run(&["config", key, value]).usage();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), now.replace("port = 7200\n", ""));
}

#[test]
fn a_daemon_refuses_a_config_it_does_not_understand_with_line_column_and_key() {
    let home = Home::default();
    fs::create_dir(home.root()).unwrap();
    set_mode(&home.root(), 0o700);
    for (text, line, words) in [
        ("name = \"a\"\nprot = 7100\n", 2, &["prot", "port"][..]),
        ("[ipc]\nbuffer_sise = 1\n", 2, &["buffer_sise", "buffer_size"]),
        ("port = \"many\"\n", 1, &["port"]),
        ("port = \n", 1, &["TOML"]),
        ("\n\n[[peers]]\nname = \"x\"\n", 4, &["agent_id"]),
    ] {
        fs::write(home.root().join("config.toml"), text).unwrap();
        let failed = home.run(&["daemon"]).fails(1, "invalid_config");
        let message = failed["message"].as_str().unwrap();
        assert!(message.contains(&format!("line {line}")) && message.contains("column"), "{text}: {message}");
        let report = home.run(&["doctor"]);
        let report = {
            assert_eq!(report.code, 1, "{report:?}");
            report.json()
        };
        let found = check(&report, "config");
        assert_eq!((&found["status"], &found["line"]), (&json!("fail"), &json!(line)), "{found}");
        assert!(found["column"].is_u64(), "{found}");
        for word in words {
            assert!(message.contains(word) && found["message"].as_str().unwrap().contains(word), "{message}");
        }
    }
}

#[test]
fn doctor_mends_modes_and_missing_files() {
    let home = Home::default();
    let empty = home.run(&["doctor"]);
    assert_eq!((empty.code, &check(&empty.json(), "root")["fix"]), (0, &json!("available")), "{empty:?}");
    assert!(!home.root().exists(), "without --fix nothing is changed");
    let made = home.run(&["doctor", "--fix"]);
    assert_eq!(check(&made.json(), "root")["fix"], "fixed", "{made:?}");
    // The usual port may be in use on this machine.
    home.run(&["config", "port", "0"]).ok();
    let id = home.run(&["identity"]).ok()["agent_id"].clone();
    let (root, key) = (home.root(), home.root().join("identity.key"));

    set_mode(&root, 0o777);
    set_mode(&key, 0o644);
    fs::remove_file(root.join("identity.pub")).unwrap();
    let sick = home.run(&["doctor"]);
    assert_eq!((sick.code, &sick.json()["ok"]), (1, &json!(false)), "{sick:?}");
    for name in ["root", "identity"] {
        assert_eq!(check(&sick.json(), name)["status"], "fail", "{sick:?}");
    }
    assert_eq!((mode(&root), mode(&key)), (0o777, 0o644), "without --fix nothing is changed");
    let mended = home.run(&["doctor", "--fix"]);
    assert_eq!((mended.code, &mended.json()["ok"]), (0, &json!(true)), "{mended:?}");
    assert_eq!((mode(&root), mode(&key)), (0o700, 0o600));
    assert!(root.join("identity.pub").exists());
    assert_eq!(home.run(&["identity"]).ok()["agent_id"], id);
}

#[test]
fn doctor_mends_a_lock_that_is_no_file_and_a_damaged_token() {
    let home = Home::default();
    home.run(&["identity"]).ok();
    home.run(&["config", "port", "0"]).ok();
    fs::create_dir(home.root().join("axon.lock")).unwrap();
    fs::write(home.root().join("ipc-token"), "short").unwrap();
    set_mode(&home.root().join("ipc-token"), 0o600);
    let sick = home.run(&["doctor"]);
    assert_eq!((sick.code, &check(&sick.json(), "lock")["fix"]), (1, &json!("available")), "{sick:?}");
    assert_eq!(check(&sick.json(), "token")["fix"], "available", "{sick:?}");
    let mended = home.run(&["doctor", "--fix"]);
    assert_eq!((mended.code, &check(&mended.json(), "lock")["fix"]), (0, &json!("fixed")), "{mended:?}");
    let well = home.run(&["doctor"]);
    assert_eq!((well.code, &check(&well.json(), "token")["status"]), (0, &json!("ok")), "{well:?}");
}

#[test]
fn doctor_never_changes_an_identity_unasked() {
    let home = Home::default();
    let id = home.run(&["identity"]).ok()["agent_id"].clone();
    home.run(&["config", "port", "0"]).ok();
    fs::write(home.root().join("identity.key"), "no key").unwrap();
    home.run(&["identity"]).fails(1, "damaged");
    home.run(&["daemon"]).fails(1, "damaged");
    let report = home.run(&["doctor"]);
    assert_eq!(
        (report.code, &check(&report.json(), "identity")["status"]),
        (1, &json!("fail")),
        "{report:?}"
    );
    let mended = home.run(&["doctor", "--fix"]);
    assert_eq!(mended.code, 0, "{mended:?}");
    let said = check(&mended.json(), "identity")["message"].as_str().unwrap().to_owned();
    assert!(said.contains("IDENTITY HAS CHANGED"), "{said}");
    assert_ne!(home.run(&["identity"]).ok()["agent_id"], id);
    let kept = fs::read_dir(home.root()).unwrap().filter_map(Result::ok);
    assert!(
        kept.into_iter()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("identity.key.damaged-"))
    );
}

#[test]
fn doctor_finds_what_a_dead_daemon_left_and_it_blocks_no_start() {
    let mut daemon = Daemon::start("");
    daemon.kill9();
    assert!(daemon.socket().exists());
    let report = daemon.run(&["doctor"]);
    assert_eq!(
        (report.code, &check(&report.json(), "socket")["fix"]),
        (0, &json!("available")),
        "{report:?}"
    );
    // shows: IPC-SOCK-4
    daemon.up();
    let second = daemon.run(&["daemon"]).fails(1, "locked");
    assert!(second["message"].as_str().unwrap().contains(&daemon.pid().to_string()), "{second}");
    daemon.kill9();
    let mended = daemon.run(&["doctor", "--fix"]);
    assert_eq!((mended.code, &check(&mended.json(), "socket")["fix"]), (0, &json!("fixed")), "{mended:?}");
    assert!(!daemon.socket().exists());

    fs::write(daemon.root().join("known_peers.json"), "{").unwrap();
    let report = daemon.run(&["doctor", "--fix"]);
    assert_eq!(check(&report.json(), "known_peers")["fix"], "fixed", "{report:?}");
    let aside = fs::read_dir(daemon.root()).unwrap().filter_map(Result::ok);
    assert!(
        aside
            .into_iter()
            .any(|entry| entry.file_name().to_string_lossy().contains("known_peers.json.damaged-"))
    );
}

#[test]
fn doctor_finds_a_port_in_use_and_an_unreachable_peer() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let daemon = Daemon::idle(&format!("port = {port}"));
    let report = daemon.run(&["doctor"]);
    assert_eq!((report.code, &check(&report.json(), "port")["status"]), (1, &json!("fail")), "{report:?}");
    let failed = daemon.run(&["daemon"]).fails(1, "port");
    assert!(failed["message"].as_str().unwrap().contains(&port.to_string()), "{failed}");

    let (alice, mut bob) = pair();
    let well = alice.run(&["doctor"]);
    assert_eq!((well.code, &check(&well.json(), "peer")["status"]), (0, &json!("ok")), "{well:?}");
    assert_eq!(check(&well.json(), "daemon")["status"], "ok", "{well:?}");
    bob.kill9();
    let sick = alice.run(&["doctor"]);
    let report = sick.json();
    let found = check(&report, "peer");
    assert_eq!((sick.code, &found["status"]), (1, &json!("fail")), "{sick:?}");
    assert!(found["message"].as_str().unwrap().contains("bob"), "{found}");
}

// ---- The rest ---------------------------------------------------------------------------------------------

#[test]
fn completions_help_and_examples_need_no_daemon_and_no_root() {
    let home = Home::default();
    for shell in ["bash", "zsh", "fish"] {
        let ran = home.run(&["completions", shell]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{shell}");
        for verb in ["delegate", "instances", "disable-mdns"] {
            assert!(ran.stdout.contains(verb), "{shell} knows no {verb}");
        }
    }
    let ran = home.run(&["examples"]);
    assert_eq!(ran.code, 0);
    for line in ran.stdout.lines().filter(|line| line.starts_with(['>', '<'])) {
        assert!(serde_json::from_str::<Value>(&line[2..]).unwrap().is_object(), "{line}");
    }
    for args in [&["--help"][..], &["help", "send"], &["answer", "--help"]] {
        let help = home.run(args);
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{args:?}");
        assert!(help.stdout.contains("Usage"), "{args:?}");
    }
    assert!(home.run(&["--version"]).stdout.contains(env!("CARGO_PKG_VERSION")));
    assert!(!home.root().exists());
}

#[test]
fn the_readme_names_the_verbs_and_flags_that_there_are() {
    let home = Home::default();
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let section =
        readme.split("\n## The command line\n").nth(1).unwrap().split("\nEverywhere:").next().unwrap();
    let mut told = std::collections::BTreeSet::new();
    for row in section.lines().filter(|line| line.starts_with("| `axon ")) {
        let verbs: Vec<&str> =
            row.split("`axon ").skip(1).map(|rest| rest.split([' ', '`']).next().unwrap()).collect();
        let mut help: String = verbs.iter().map(|verb| home.run(&[verb, "--help"]).stdout).collect();
        // A verb of a verb, such as `mcp install`, has a help of its own.
        let spans = row.split("`axon ").skip(1).map(|rest| rest.split('`').next().unwrap());
        for words in spans.map(|span| span.split(' ').collect::<Vec<_>>()) {
            let [verb, subs, ..] = words[..] else { continue };
            for sub in subs.split(['\\', '|']).filter(|sub| !sub.is_empty()) {
                if sub.bytes().all(|byte| byte.is_ascii_lowercase()) {
                    help.push_str(&home.run(&[verb, sub, "--help"]).stdout);
                }
            }
        }
        let words = row.split([' ', '`', '[', ']', ',', ';', '|', '.']);
        for flag in words.filter(|word| word.starts_with("--") && word.len() > 2) {
            assert!(help.contains(flag), "no {flag} in {verbs:?}");
        }
        told.extend(verbs);
    }
    let help = home.run(&["--help"]).stdout;
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let verbs = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let verbs = verbs.filter_map(|line| line.split_whitespace().next()).filter(|verb| *verb != "help");
    assert_eq!(told, verbs.collect(), "README's table, and `axon --help`");
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let home = Home::default();
    let mut command = Command::new("sh");
    command.args(["-c", "\"$0\" examples | head -n 1; exec \"$0\" config --list | true", support::AXON]);
    command.env("HOME", home.path());
    let ran = run(command);
    assert_eq!((ran.code, ran.stdout.lines().count(), ran.stderr.as_str()), (0, 1, ""), "{ran:?}");
}

#[test]
fn the_demo_shows_everything_and_leaves_nothing() {
    let home = Home::default();
    let mut command = home.command(&["demo"]);
    command.env("TMPDIR", home.path());
    let ran = run(command);
    assert_eq!(ran.code, 0, "{ran:?}");
    let steps: Vec<Value> = ran.lines().iter().map(|line| line["step"].clone()).collect();
    for step in ["query", "delegate", "result", "notify", "discover", "end"] {
        assert!(steps.contains(&json!(step)), "{step} in {steps:?}");
    }
    nothing_left(&home);
}

#[test]
fn a_demo_that_is_ended_half_way_leaves_nothing() {
    let home = Home::default();
    for signal in [Signal::TERM, Signal::INT] {
        let mut command = home.command(&["demo"]);
        command.env("TMPDIR", home.path());
        let demo = spawn(command);
        wait_for("the demo's directory", || fs::read_dir(home.path()).unwrap().next().map(drop));
        demo.signal(signal);
        let ran = demo.wait();
        // It may have come to its end before it heard.
        assert!(ran.code == 0 || ran.code == 1, "{ran:?}");
        nothing_left(&home);
    }
    // Killed, it cannot tidy up; but its daemons see that and end.
    let mut command = home.command(&["demo"]);
    command.env("TMPDIR", home.path());
    let demo = spawn(command);
    wait_for("a daemon of the demo", || processes_with(&dir_of(&home)).first().map(drop));
    demo.signal(Signal::KILL);
    wait_for("the daemons to end", || processes_with(&dir_of(&home)).is_empty().then_some(()));
}

fn dir_of(home: &Home) -> String {
    home.path().join("axon-demo-").display().to_string()
}

fn nothing_left(home: &Home) {
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().filter_map(Result::ok).map(|e| e.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(processes_with(&dir_of(home)), Vec::<String>::new());
}

#[test]
fn a_daemon_of_the_command_line_logs_to_stderr_alone_and_stops_at_sigterm() {
    let home = Home::default();
    for (key, value) in [("bind", "127.0.0.1"), ("mdns", "false")] {
        home.run(&["config", key, value]).ok();
    }
    let port = support::free_port();
    let daemon = spawn(home.command(&["daemon", "--port", &port.to_string(), "--disable-mdns"]));
    wait_for("the daemon", || (home.run(&["whoami"]).code == 0).then_some(()));
    assert_eq!(home.run(&["whoami"]).ok()["listen"], json!([format!("127.0.0.1:{port}")]));
    // shows: IPC-STOP-1
    daemon.signal(Signal::TERM);
    let ran = daemon.wait();
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
    assert!(!ran.stderr.is_empty());
    assert!(!home.root().join("axon.sock").exists());
}
