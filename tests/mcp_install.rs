//! `axon mcp install`, as a user of each client has it: the client's file before and after, byte for byte,
//! and the socket that it is given. The files are in `mcp/fixtures`.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::cli::{Home, Ran, run, spawn};
use crate::support::{AXON, Daemon, mode, set_mode, wait_for};

/// Each client, its file below the home directory, and where its broken one is broken.
const CLIENTS: [(&str, &str, &str); 8] = [
    ("claude", ".claude.json", "line 4, column 30"),
    ("claude-desktop", "{apps}/Claude/claude_desktop_config.json", "line 3, column 11"),
    ("codex", ".codex/config.toml", "line 2, column 22"),
    ("cursor", ".cursor/mcp.json", "line 3, column 19"),
    ("vscode", "{apps}/Code/User/mcp.json", "line 3, column 5"),
    ("gemini", ".gemini/settings.json", "line 2, column 20"),
    ("opencode", ".config/opencode/opencode.json", "line 4, column 1"),
    ("zed", ".config/zed/settings.json", "line 3, column 24"),
];
const RIGHTS: [&str; 4] = ["send", "inbox", "answer", "advertise"];

/// Variables that lead a client elsewhere, and that whoever runs the tests may have set.
fn clean(mut command: Command) -> Command {
    let variables =
        ["CLAUDE_CONFIG_DIR", "CODEX_HOME", "GEMINI_CLI_HOME", "XDG_CONFIG_HOME", "AXON_SOCKET", "AXON_ROOT"];
    for name in variables {
        command.env_remove(name);
    }
    command
}

fn install(daemon: &Daemon, args: &[&str]) -> Ran {
    run(clean(daemon.command(&[&["mcp", "install"], args].concat())))
}

fn home(daemon: &Daemon) -> PathBuf {
    daemon.root().parent().unwrap().to_owned()
}

fn file(home: &Path, client: &str) -> PathBuf {
    let apps = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".config" };
    let (_, below, _) = CLIENTS.iter().find(|(name, ..)| *name == client).unwrap();
    home.join(below.replace("{apps}", apps))
}

/// A fixture, with this program and the client's socket in it.
fn fixture(daemon: &Daemon, client: &str, name: &str) -> String {
    let ending = if client == "codex" { "toml" } else { "json" };
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp/fixtures").join(client);
    let text = fs::read_to_string(dir.join(format!("{name}.{ending}"))).unwrap();
    text.replace("@AXON@", program().to_str().unwrap())
        .replace("@SOCKET@", socket(daemon, client).to_str().unwrap())
}

fn program() -> PathBuf {
    fs::canonicalize(AXON).unwrap()
}

fn socket(daemon: &Daemon, client: &str) -> PathBuf {
    daemon.root().join("sockets").join(format!("mcp-{client}")).join("axon.sock")
}

/// Puts a fixture in the client's place.
fn place(daemon: &Daemon, client: &str, name: &str) -> (PathBuf, String) {
    let (path, text) = (file(&home(daemon), client), fixture(daemon, client, name));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, &text).unwrap();
    (path, text)
}

/// Names of what is beside a file, itself left out.
fn beside(path: &Path) -> Vec<String> {
    let own = path.file_name().unwrap().to_str().unwrap();
    let names = fs::read_dir(path.parent().unwrap()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != own && name.starts_with(own)).collect();
    names.sort();
    names
}

fn sockets(daemon: &Daemon) -> Vec<Value> {
    daemon.run(&["socket", "list"]).ok()["sockets"].as_array().unwrap().clone()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

// ---- Each client ------------------------------------------------------------------------------------------

#[test]
fn a_client_that_has_no_settings_gets_some() {
    let daemon = Daemon::start("");
    for (client, ..) in CLIENTS {
        let path = file(&home(&daemon), client);
        let done = install(&daemon, &[client]).ok();
        assert_eq!((&done["client"], &done["change"]), (&json!(client), &json!("added")));
        assert_eq!((&done["file"], &done["name"]), (&json!(path), &json!("axon")));
        assert!(done["backup"].is_null() && !done["then"].as_str().unwrap().is_empty(), "{done}");
        let name = format!("mcp-{client}");
        let expected = json!({"name": name, "path": socket(&daemon, client), "made": true, "allow": RIGHTS});
        assert_eq!(done["socket"], expected);
        assert_eq!(read(&path), fixture(&daemon, client, "fresh"), "{client}");
        assert_eq!(mode(&path), 0o600);
        assert!(beside(&path).is_empty());

        let again = install(&daemon, &[client]).ok();
        assert_eq!((&again["change"], &again["socket"]["made"]), (&json!("none"), &json!(false)));
        assert_eq!(read(&path), fixture(&daemon, client, "fresh"));
        assert!(beside(&path).is_empty());
    }
    let names: Vec<Value> = sockets(&daemon).iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names.len(), CLIENTS.len(), "{names:?}");
    for (client, ..) in CLIENTS {
        let gone = install(&daemon, &[client, "--uninstall"]).ok();
        assert_eq!((&gone["removed"], &gone["socket_removed"]), (&json!(true), &json!(true)));
        assert!(!read(&file(&home(&daemon), client)).contains("axon"));
        let again = install(&daemon, &[client, "--uninstall"]).ok();
        assert_eq!((&again["removed"], &again["socket_removed"]), (&json!(false), &json!(false)));
    }
    assert!(sockets(&daemon).is_empty());
}

#[test]
fn all_else_in_a_file_stays_as_it_is() {
    let daemon = Daemon::start("");
    for (client, ..) in CLIENTS {
        let (path, before) = place(&daemon, client, "before");
        set_mode(&path, 0o640);
        let done = install(&daemon, &[client]).ok();
        assert_eq!(done["change"], "added");
        let after = fixture(&daemon, client, "after");
        assert_eq!(read(&path), after, "{client}");
        let first = format!("{}.before-axon", path.to_str().unwrap());
        assert_eq!(done["backup"], json!(first));
        assert_eq!((read(Path::new(&first)), mode(Path::new(&first))), (before.clone(), 0o640));
        assert_eq!(mode(&path), 0o640);

        let inode = fs::metadata(&path).unwrap().ino();
        assert_eq!(install(&daemon, &[client]).ok()["change"], "none");
        assert_eq!((read(&path), fs::metadata(&path).unwrap().ino()), (after.clone(), inode), "{client}");
        assert_eq!(beside(&path).len(), 1);

        // Away again it is as it was; the copy of the beginning stays what it is.
        let gone = install(&daemon, &[client, "--uninstall"]).ok();
        let last = format!("{}.before-axon-last", path.to_str().unwrap());
        assert_eq!((&gone["removed"], &gone["backup"]), (&json!(true), &json!(last)));
        assert_eq!(read(Path::new(&last)), after);
        assert_eq!(read(&path), before, "{client}");
        for _ in 0..2 {
            install(&daemon, &[client]).ok();
            install(&daemon, &[client, "--uninstall"]).ok();
        }
        assert_eq!((read(&path), read(Path::new(&first))), (before.clone(), before), "{client}");
        assert_eq!(beside(&path).len(), 2, "copies have a bound");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_left_alone() {
    let daemon = Daemon::start("");
    for (client, _, at) in CLIENTS {
        let (path, before) = place(&daemon, client, "broken");
        for args in [&[client][..], &[client, "--uninstall"]] {
            let failed = install(&daemon, args).fails(1, "invalid_config");
            let message = failed["message"].as_str().unwrap();
            let named = message.contains(path.to_str().unwrap()) || message.contains("Application Support");
            assert!(named && message.contains(at), "{client}: {message}");
        }
        // What would be written is shown all the same, to be added by hand.
        let shown = install(&daemon, &[client, "--print"]).ok();
        assert_eq!(shown["change"], "refused");
        assert!(shown["why"].as_str().unwrap().contains(at), "{shown}");
        assert_eq!(shown["text"], fixture(&daemon, client, "fresh"));
        assert_eq!((read(&path), beside(&path).len()), (before, 0));
    }
    assert!(sockets(&daemon).is_empty());
}

/// Claude Code would take it for damaged and begin a new one, and Gemini CLI would not start.
#[test]
fn what_only_other_clients_read_is_to_be_mended_first() {
    let daemon = Daemon::start("");
    for (client, text, at) in [
        ("claude", "{\n  // mine\n  \"mcpServers\": {}\n}\n", "line 2, column 3"),
        ("claude-desktop", "{\n  \"mcpServers\": {},\n}\n", "line 2, column 19"),
        ("gemini", "{\n  // mine\n  \"mcpServers\": {},\n}\n", "line 3, column 19"),
    ] {
        let path = file(&home(&daemon), client);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let failed = install(&daemon, &[client]).fails(1, "invalid_config");
        assert!(failed["message"].as_str().unwrap().contains(at), "{failed}");
        assert_eq!((read(&path).as_str(), beside(&path).len()), (text, 0));
    }
    assert!(sockets(&daemon).is_empty());
}

#[test]
fn an_entry_of_something_else_is_left_alone() {
    let daemon = Daemon::start("");
    for (client, ..) in CLIENTS {
        let (path, before) = place(&daemon, client, "foreign");
        for args in [&[client][..], &[client, "--uninstall"]] {
            let failed = install(&daemon, args).fails(1, "foreign_entry");
            let message = failed["message"].as_str().unwrap();
            assert!(message.contains("rename or remove it") && message.contains("--print"), "{message}");
        }
        assert_eq!((read(&path), beside(&path).len()), (before, 0));
    }
    assert!(sockets(&daemon).is_empty());
}

// ---- Entries and files ------------------------------------------------------------------------------------

#[test]
fn an_older_entry_of_ours_is_brought_up_to_date() {
    let daemon = Daemon::start("");
    let path = file(&home(&daemon), "vscode");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let old = "\u{feff}{\"servers\": {\n  \"axon\": {\n    \"command\": \"/old/bin/axon\", // mine\n    \
               \"args\": [\"mcp\"],\n    \"env\": {\"A\": \"1\"}\n  }\n}}";
    fs::write(&path, old).unwrap();
    let done = install(&daemon, &["vscode"]).ok();
    assert_eq!(done["change"], "replaced");
    let new = read(&path);
    assert!(new.starts_with("\u{feff}{\"servers\": {\n  \"axon\": {\n    \"command\": \""), "{new}");
    let rest = format!(
        "{:?}, // mine\n    \"args\": [\"--socket\", {:?}, \"mcp\"],\n    \
         \"env\": {{\"A\": \"1\"}},\n    \"type\": \"stdio\"\n  }}\n}}}}",
        program(),
        socket(&daemon, "vscode")
    );
    assert!(new.ends_with(&rest), "{new}");
    assert_eq!(read(Path::new(done["backup"].as_str().unwrap())), old);
    assert_eq!(install(&daemon, &["vscode"]).ok()["change"], "none");
}

#[test]
fn a_link_stays_a_link() {
    let daemon = Daemon::start("");
    let (path, before) = place(&daemon, "zed", "before");
    let dotfiles = home(&daemon).join("dotfiles");
    fs::create_dir(&dotfiles).unwrap();
    let target = dotfiles.join("zed.json");
    fs::rename(&path, &target).unwrap();
    symlink("../../dotfiles/zed.json", &path).unwrap();
    install(&daemon, &["zed"]).ok();
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_symlink());
    assert_eq!(read(&target), fixture(&daemon, "zed", "after"));
    assert_eq!(beside(&path), ["settings.json.before-axon"]);
    assert_eq!(fs::read_dir(&dotfiles).unwrap().count(), 1, "nothing is left beside what is linked to");
    install(&daemon, &["zed", "--uninstall"]).ok();
    assert_eq!(read(&target), before);

    fs::remove_file(&target).unwrap();
    let failed = install(&daemon, &["zed"]).fails(1, "io");
    assert!(failed["message"].as_str().unwrap().contains("leads nowhere"), "{failed}");
    assert!(sockets(&daemon).is_empty());
}

#[test]
fn what_may_not_be_written_is_not_and_no_socket_is_left() {
    let daemon = Daemon::start("");
    let (path, before) = place(&daemon, "gemini", "before");
    set_mode(&path, 0o444);
    let failed = install(&daemon, &["gemini"]).fails(1, "io");
    assert!(failed["message"].as_str().unwrap().contains("chmod u+w"), "{failed}");
    assert_eq!((read(&path), beside(&path).len(), mode(&path)), (before, 0, 0o444));
    assert!(sockets(&daemon).is_empty());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let failed = install(&daemon, &["gemini"]).fails(1, "io");
    assert!(failed["message"].as_str().unwrap().contains("no regular file"), "{failed}");
    fs::remove_dir(&path).unwrap();
    fs::write(&path, b"{\n \"a\": \"\xff\"}").unwrap();
    let failed = install(&daemon, &["gemini"]).fails(1, "invalid_config");
    assert!(failed["message"].as_str().unwrap().contains("not UTF-8 in line 2"), "{failed}");
}

#[test]
fn another_file_of_the_client_is_named_by_a_flag() {
    let daemon = Daemon::start("");
    let project = home(&daemon).join("project");
    fs::create_dir(&project).unwrap();
    let mut command = clean(daemon.command(&["mcp", "install", "claude", "--file", ".mcp.json"]));
    command.current_dir(&project);
    let done = run(command).ok();
    assert_eq!(done["file"], json!(project.join(".mcp.json")));
    assert_eq!(read(&project.join(".mcp.json")), fixture(&daemon, "claude", "fresh"));
    assert!(!file(&home(&daemon), "claude").exists());
}

#[test]
fn files_are_where_the_client_looks() {
    let home = Home::default();
    let (dir, elsewhere) = (home.path(), home.path().join("else where"));
    let of = |client: &str, variable: Option<(&str, &Path)>| {
        let mut command = clean(home.command(&["mcp", "install", client, "--print"]));
        command.envs(variable);
        run(command).ok()["file"].clone()
    };
    for (client, ..) in CLIENTS {
        assert_eq!(of(client, None), json!(file(dir, client)));
    }
    for (client, variable, below) in [
        ("claude", "CLAUDE_CONFIG_DIR", ".claude.json"),
        ("codex", "CODEX_HOME", "config.toml"),
        ("gemini", "GEMINI_CLI_HOME", ".gemini/settings.json"),
        ("opencode", "XDG_CONFIG_HOME", "opencode/opencode.json"),
    ] {
        assert_eq!(of(client, Some((variable, &elsewhere))), json!(elsewhere.join(below)));
        assert_eq!(of(client, Some((variable, Path::new("")))), json!(file(dir, client)));
    }
    if !cfg!(target_os = "macos") {
        for (client, below) in [
            ("claude-desktop", "Claude/claude_desktop_config.json"),
            ("vscode", "Code/User/mcp.json"),
            ("zed", "zed/settings.json"),
        ] {
            assert_eq!(of(client, Some(("XDG_CONFIG_HOME", &elsewhere))), json!(elsewhere.join(below)));
        }
    }
    // Of opencode's two files the one with the entry, else the one that is there, else the one that wins.
    let json_file = file(dir, "opencode");
    let jsonc = json_file.with_extension("jsonc");
    fs::create_dir_all(jsonc.parent().unwrap()).unwrap();
    fs::write(&jsonc, "{}").unwrap();
    assert_eq!(of("opencode", None), json!(jsonc));
    fs::write(&json_file, "{}").unwrap();
    assert_eq!(of("opencode", None), json!(jsonc));
    fs::write(&json_file, r#"{"mcp": {"axon": {"type": "local", "command": ["axon", "mcp"]}}}"#).unwrap();
    assert_eq!(of("opencode", None), json!(json_file));
    assert!(home.run(&["mcp", "install", "emacs"]).usage().contains("claude-desktop"));
}

// ---- The daemon and the socket ----------------------------------------------------------------------------

#[test]
fn what_would_be_written_is_shown_without_a_daemon() {
    let daemon = Daemon::idle("");
    let (path, before) = place(&daemon, "vscode", "before");
    let shown = install(&daemon, &["vscode", "--print"]).ok();
    assert_eq!((&shown["change"], &shown["exists"]), (&json!("added"), &json!(true)));
    assert_eq!(shown["text"], fixture(&daemon, "vscode", "fresh"));
    let expected = json!({"name": "mcp-vscode", "path": socket(&daemon, "vscode"), "allow": RIGHTS});
    assert_eq!(shown["socket"], expected);
    let text = install(&daemon, &["vscode", "--print", "--plain"]);
    assert_eq!(text.code, 0, "{text:?}");
    for part in [fixture(&daemon, "vscode", "fresh").trim(), "mcp-vscode", "send, inbox, answer, advertise"] {
        assert!(text.stdout.contains(part), "{part} in {text:?}");
    }
    let failed = install(&daemon, &["vscode"]).fails(1, "no_daemon");
    let message = failed["message"].as_str().unwrap();
    assert!(message.contains("service install`") && message.contains("daemon`"), "{message}");
    assert_eq!((read(&path), beside(&path).len()), (before, 0));
    // There is nothing that a daemon would be needed for.
    let gone = install(&daemon, &["vscode", "--uninstall"]).ok();
    assert_eq!((&gone["removed"], &gone["socket_removed"]), (&json!(false), &json!(false)));
}

#[test]
fn the_socket_lets_nobody_in_and_stays_as_narrow_as_its_owner_made_it() {
    let daemon = Daemon::start("");
    let done = install(&daemon, &["claude"]).ok();
    let command = done["command"].as_str().unwrap();
    let args: Vec<&str> = done["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    assert_eq!(args[2..], ["mcp", "--answer", "always"]);
    // What is written is a program and a way to the daemon.
    let over = |verb: &[&str]| {
        let mut program = clean(Command::new(command));
        program.args(&args[..2]).args(verb).env("HOME", home(&daemon));
        run(program)
    };
    assert_eq!(over(&["peers"]).ok()["peers"], json!([]));
    assert_eq!(over(&["inbox"]).code, 0);
    // As its client runs it.
    let mut program = clean(Command::new(command));
    program.args(&args).env("HOME", home(&daemon)).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = program.spawn().unwrap();
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    writeln!(server.stdin.as_ref().unwrap(), "{hello}").unwrap();
    let mut said = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("\"serverInfo\":{\"name\":\"axon\""), "{said}");
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
    for verb in [
        &["invite"][..],
        &["approve", "39f713d0a644253f"],
        &["trust", "ed25519.39f713d0a644253f04529421b9f51b9b", "trusted"],
        &["socket", "add", "wide", "--allow", "send"],
        &["mcp", "install", "cursor"],
    ] {
        over(verb).fails(4, "not_authorized");
    }
    assert!(!file(&home(&daemon), "cursor").exists());

    daemon.run(&["socket", "set", "mcp-claude", "--allow", "inbox", "--kinds", "notify", "--rate", "5"]).ok();
    let narrowed = sockets(&daemon);
    let again = install(&daemon, &["claude"]).ok();
    assert_eq!((&again["change"], &again["socket"]["allow"]), (&json!("none"), &json!(["inbox"])));
    assert_eq!(sockets(&daemon), narrowed);
    let text = install(&daemon, &["claude", "--plain"]);
    assert!(text.stdout.contains("already") && text.stdout.contains("may inbox"), "{text:?}");
}

#[test]
fn what_cannot_be_taken_away_without_a_daemon_is_told() {
    let mut daemon = Daemon::start("");
    let (path, before) = place(&daemon, "cursor", "before");
    install(&daemon, &["cursor"]).ok();
    let shown = install(&daemon, &["cursor", "--uninstall", "--print"]).ok();
    assert_eq!((&shown["removed"], &shown["socket_removed"]), (&json!(true), &json!(true)));
    assert_eq!(read(&path), fixture(&daemon, "cursor", "after"), "it is only shown");
    daemon.kill9();
    let failed = install(&daemon, &["cursor", "--uninstall"]).fails(1, "no_daemon");
    assert!(failed["message"].as_str().unwrap().contains("mcp-cursor stays"), "{failed}");
    assert_eq!(read(&path), before);
    daemon.up();
    let gone = install(&daemon, &["cursor", "--uninstall"]).ok();
    assert_eq!((&gone["removed"], &gone["socket_removed"]), (&json!(false), &json!(true)));
}

#[test]
fn an_instance_has_an_entry_of_its_own_and_a_link_to_the_program_is_kept() {
    let home = Home::default();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(program(), bin.join("axon")).unwrap();
    let path: OsString = [bin.as_os_str().to_owned(), std::env::var_os("PATH").unwrap()].join(":".as_ref());
    let command = |args: &[&str]| {
        let mut command = clean(home.command(&[&["--name", "work"], args].concat()));
        command.env("PATH", &path);
        command
    };
    let _daemon = spawn(command(&["daemon", "--port", "0", "--disable-mdns"]));
    wait_for("the instance's daemon", || (run(command(&["whoami"])).code == 0).then_some(()));
    let done = run(command(&["mcp", "install", "codex"])).ok();
    assert_eq!((&done["name"], &done["command"]), (&json!("axon-work"), &json!(bin.join("axon"))));
    let socket = home.root().join("instances/work/sockets/mcp-codex/axon.sock");
    let text = format!(
        "[mcp_servers.axon-work]\ncommand = {:?}\nargs = [\"--socket\", {socket:?}, \"mcp\"]\n",
        bin.join("axon")
    );
    assert_eq!(read(&file(home.path(), "codex")), text);
    assert!(socket.exists());
    let gone = run(command(&["mcp", "install", "codex", "--uninstall"])).ok();
    assert_eq!((&gone["removed"], &gone["socket_removed"]), (&json!(true), &json!(true)));
}

#[test]
fn a_path_that_the_client_would_expand_is_refused() {
    let daemon = Daemon::idle("");
    let root = home(&daemon).join("$HOME");
    let mut command = clean(Command::new(AXON));
    command.arg("--root").arg(&root).args(["mcp", "install", "gemini", "--print"]).env("HOME", home(&daemon));
    assert!(run(command).usage().contains("Gemini CLI"));
}
