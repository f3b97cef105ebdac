//! `axon service`, with managers of services that are scripts of the test's own (`tests/service/`): they note
//! what they are called with, and start what the service's file says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::cli::{Home, Ran, run};
use crate::support::{AXON, mode, set_mode, skip, wait_for};

/// A home, and managers of services for it. What they started is ended when it is dropped.
struct Machine {
    home: Home,
    tools: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let home = Home::default();
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service");
        fs::create_dir(home.path().join("fake")).unwrap();
        let machine = Self { home, tools };
        machine.configure(&machine.home.root(), "");
        machine
    }

    /// A root with settings that suit a test.
    fn configure(&self, root: &Path, more: &str) {
        fs::create_dir_all(root).unwrap();
        set_mode(root, 0o700);
        let text = format!("bind = \"127.0.0.1\"\nmdns = false\nport = 0\n{more}");
        fs::write(root.join("config.toml"), text).unwrap();
    }

    fn fake(&self, name: &str) -> PathBuf {
        self.home.path().join("fake").join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(args);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.tools.display()));
        command.env("FAKE", self.home.path().join("fake")).env("USER", "ann");
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_RUNTIME_DIR").env_remove("AXON_SOCKET");
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args))
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.home.path().join(".config/systemd/user").join(name)
    }

    /// What the managers were called with since the last time.
    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.fake("calls")).unwrap_or_default();
        fs::remove_file(self.fake("calls")).ok();
        let asks = |line: &&str| line.contains(" show ") || line.contains(" print ");
        text.lines().filter(|line| !asks(line)).map(str::to_owned).collect()
    }

    fn pid(&self, service: &str) -> Pid {
        let text = fs::read_to_string(self.fake(&format!("pid-{service}"))).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let files = fs::read_dir(self.home.path().join("fake")).unwrap().map(|file| file.unwrap());
        for file in files.filter(|file| file.file_name().to_str().unwrap().starts_with("pid-")) {
            let pid = fs::read_to_string(file.path()).ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                // One that has ended needs no signal.
                kill_process(pid, Signal::KILL).ok();
            }
        }
    }
}

#[test]
fn print_shows_what_it_would_do_and_does_nothing() {
    let machine = Machine::new();
    let shown = machine.run(&["service", "install", "--print"]).ok();
    assert_eq!(shown["service"], "axon.service");
    assert_eq!(shown["path"], machine.unit("axon.service").to_str().unwrap());
    let text = shown["text"].as_str().unwrap();
    assert!(text.contains(&format!("\nExecStart={AXON} --plain daemon\n")), "{text}");
    for line in ["Type=notify", "WatchdogSec=60", "Restart=on-failure", "UMask=0077", "NoNewPrivileges=yes"] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    }
    let commands = ["systemctl --user daemon-reload", "systemctl --user enable --now axon.service"];
    assert_eq!(shown["commands"], json!(commands));
    let plain = machine.run(&["--plain", "service", "install", "--print"]).stdout;
    assert!(plain.contains(text) && commands.iter().all(|command| plain.contains(command)), "{plain}");
    let gone = machine.run(&["service", "uninstall", "--print"]).ok();
    assert_eq!(gone["commands"][0], "systemctl --user disable --now axon.service");
    assert_eq!(gone["path"], Value::Null, "there is no file");
    assert_eq!(machine.calls(), Vec::<String>::new());
    assert!(!machine.home.path().join(".config").exists());
}

#[test]
fn it_is_installed_once_and_removed_once() {
    let machine = Machine::new();
    let done = machine.run(&["service", "install"]);
    assert!(done.stderr.contains("loginctl enable-linger ann"), "{done:?}");
    let line = done.ok();
    assert_eq!((&line["service"], &line["written"]), (&json!("axon.service"), &json!(true)));
    assert_eq!(line["agent_id"], machine.run(&["whoami"]).ok()["agent_id"]);
    let calls = machine.calls();
    assert_eq!(calls[..2], ["systemctl --user daemon-reload", "systemctl --user enable --now axon.service"]);
    assert!(calls[2].starts_with("loginctl show-user "), "{calls:?}");
    assert_eq!(mode(&machine.unit("axon.service")), 0o644);

    let pid = machine.pid("axon.service");
    fs::write(machine.fake("linger"), "yes\n").unwrap();
    let again = machine.run(&["service", "install"]);
    assert_eq!((&again.ok()["written"], again.stderr.as_str()), (&json!(false), ""));
    assert_eq!(machine.pid("axon.service"), pid, "the daemon that runs is left alone");

    let status = machine.run(&["service", "status"]).ok();
    assert_eq!((&status["state"], &status["answers"]), (&json!("running"), &json!(true)));
    assert_eq!((&status["enabled"], &status["detail"]), (&json!(true), &json!("as it says")));
    let plain = machine.run(&["--plain", "service", "status"]);
    assert!(plain.code == 0 && plain.stdout.contains("axon.service runs and answers (pid "), "{plain:?}");
    let doctor = machine.run(&["doctor"]).json();
    let checks = doctor["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "service").unwrap();
    assert_eq!(
        (&check["status"], &check["message"]),
        (&json!("ok"), &json!("axon.service is running (as it says)"))
    );

    machine.calls();
    let gone = machine.run(&["service", "uninstall"]).ok();
    assert_eq!(gone["removed"], true);
    assert!(!machine.unit("axon.service").exists() && machine.home.root().join("identity.key").exists());
    assert_eq!(
        machine.calls(),
        [
            "systemctl --user disable --now axon.service",
            "systemctl --user daemon-reload",
            "systemctl --user reset-failed axon.service"
        ]
    );
    machine.run(&["status"]).fails(1, "no_daemon");
    assert_eq!(machine.run(&["service", "uninstall"]).ok()["removed"], false);
    let status = machine.run(&["service", "status"]).fails(1, "not_installed");
    assert!(status["message"].as_str().unwrap().contains("`axon service install`"), "{status}");
    assert_eq!(machine.calls(), Vec::<String>::new(), "there was nothing to do");
    let doctor = machine.run(&["doctor"]).json();
    assert!(doctor["checks"].as_array().unwrap().iter().all(|check| check["name"] != "service"), "{doctor}");
}

#[test]
fn an_older_file_is_brought_up_to_date_and_an_edited_one_is_not_touched() {
    let machine = Machine::new();
    // As another axon, which lay elsewhere, has left it.
    let older = machine.run(&["service", "unit", "/opt/old/axon"]).stdout;
    fs::create_dir_all(machine.unit("axon.service").parent().unwrap()).unwrap();
    fs::write(machine.unit("axon.service"), &older).unwrap();
    assert_eq!(machine.run(&["service", "install"]).ok()["written"], true);
    let pid = machine.pid("axon.service");
    assert!(!machine.unit("axon.service.edited").exists(), "nobody had edited it");

    let edited =
        fs::read_to_string(machine.unit("axon.service")).unwrap().replace("RestartSec=2", "RestartSec=9");
    fs::write(machine.unit("axon.service"), &edited).unwrap();
    machine.calls();
    let refused = machine.run(&["service", "install"]).fails(1, "edited");
    assert!(refused["message"].as_str().unwrap().contains("--force"), "{refused}");
    assert_eq!(fs::read_to_string(machine.unit("axon.service")).unwrap(), edited);
    assert_eq!(machine.calls(), Vec::<String>::new());

    assert_eq!(machine.run(&["service", "install", "--force"]).ok()["written"], true);
    assert_eq!(fs::read_to_string(machine.unit("axon.service.edited")).unwrap(), edited);
    assert!(fs::read_to_string(machine.unit("axon.service")).unwrap().contains("RestartSec=2\n"));
    assert!(machine.calls().contains(&"systemctl --user restart axon.service".to_owned()));
    assert!(machine.pid("axon.service") != pid, "it runs with the new file");

    fs::write(machine.unit("axon.service"), &edited).unwrap();
    let gone = machine.run(&["service", "uninstall"]).ok();
    assert_eq!(gone["kept"], machine.unit("axon.service.edited").to_str().unwrap());
}

#[test]
fn each_instance_and_each_root_has_a_service_of_its_own() {
    let machine = Machine::new();
    let elsewhere = machine.home.path().join("a place");
    machine.configure(&elsewhere, "");
    machine.configure(&machine.home.root().join("instances/bob"), "");
    let root = elsewhere.to_str().unwrap();
    let mut ids = Vec::new();
    for flags in [&[][..], &["--name", "bob"], &["--root", root]] {
        let done = machine.run(&[flags, &["service", "install"]].concat()).ok();
        ids.push((done["service"].as_str().unwrap().to_owned(), done["agent_id"].to_string()));
    }
    assert_eq!((&*ids[0].0, &*ids[1].0), ("axon.service", "axon-bob.service"));
    assert!(ids[2].0.starts_with("axon_"), "{ids:?}");
    assert!(ids[0].1 != ids[1].1 && ids[1].1 != ids[2].1 && ids[2].1 != ids[0].1, "{ids:?}");
    let bob = fs::read_to_string(machine.unit("axon-bob.service")).unwrap();
    assert!(bob.contains(&format!("\nExecStart={AXON} --name bob --plain daemon\n")), "{bob}");
    // The same root, named otherwise, is no other service.
    let bob = machine.home.root().join("instances/bob");
    let again = machine.run(&["--root", bob.to_str().unwrap(), "service", "install"]).ok();
    assert_eq!((&again["service"], &again["written"]), (&json!("axon-bob.service"), &json!(false)));
    assert_eq!(machine.run(&["--name", "bob", "service", "uninstall"]).ok()["removed"], true);
    assert_eq!(machine.run(&["--root", root, "service", "status"]).code, 0, "the others run on");
}

#[test]
fn the_log_is_the_journals() {
    let machine = Machine::new();
    let shown = machine.run(&["--plain", "service", "logs"]);
    assert_eq!((shown.code, shown.stdout.as_str()), (0, "a line of the journal\n"));
    machine.run(&["--plain", "--name", "bob", "service", "logs", "-f", "-n", "7"]);
    machine.run(&["service", "logs"]);
    assert_eq!(
        machine.calls(),
        [
            "journalctl --user -u axon.service -n 100 --no-pager",
            "journalctl --user -u axon-bob.service -n 7 --no-pager -f",
            "journalctl --user -u axon.service -n 100 --no-pager -o json --output-fields=MESSAGE,PRIORITY"
        ]
    );
    let mut command = machine.command(&["service", "logs"]);
    command.env("PATH", machine.home.path());
    let failed = run(command).fails(1, "no_journal");
    assert!(failed["message"].as_str().unwrap().contains("no journalctl"), "{failed}");
}

#[test]
fn each_failure_says_what_to_do() {
    let machine = Machine::new();
    let message = |ran: &Ran, code: &str| ran.fails(1, code)["message"].as_str().unwrap().to_owned();
    for verb in ["install", "status", "uninstall"] {
        let mut command = machine.command(&["service", verb]);
        command.env("PATH", machine.home.path());
        let said = message(&run(command), "no_systemd");
        assert!(said.contains("no systemctl") && said.contains("--print"), "{said}");
    }
    fs::write(machine.fake("no_bus"), "").unwrap();
    for verb in ["install", "status", "uninstall"] {
        let said = message(&machine.run(&["service", verb]), "no_bus");
        assert!(said.contains("enable-linger ann") && said.contains("ssh"), "{said}");
    }
    fs::remove_file(machine.fake("no_bus")).unwrap();
    assert!(!machine.unit("axon.service").exists(), "nothing is left half done");

    machine.configure(&machine.home.root(), "nonsense = 1\n");
    let said = message(&machine.run(&["service", "install"]), "invalid_config");
    assert!(said.contains("nonsense") && !machine.unit("axon.service").exists(), "{said}");
    machine.configure(&machine.home.root(), "");

    fs::write(machine.fake("fails"), "").unwrap();
    let said = message(&machine.run(&["service", "install"]), "service_failed");
    assert!(said.contains("why it failed") && said.contains("`axon service logs`"), "{said}");
    let said = message(&machine.run(&["service", "status"]), "not_running");
    assert!(said.contains("is failed") && said.contains("systemctl --user enable --now"), "{said}");
    fs::remove_file(machine.fake("fails")).unwrap();
    machine.calls();
    machine.run(&["service", "install"]).ok();
    assert!(machine.calls().contains(&"systemctl --user reset-failed axon.service".to_owned()));
    machine.run(&["service", "uninstall"]).ok();
}

#[test]
fn a_daemon_that_ends_at_once_is_not_waited_for() {
    let machine = Machine::new();
    // The port is taken: systemctl has started it, and then it is gone.
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = format!("bind = \"127.0.0.1\"\nmdns = false\nport = {port}\n");
    fs::write(machine.home.root().join("config.toml"), text).unwrap();
    let failed = machine.run(&["service", "install"]).fails(1, "service_failed");
    assert!(failed["message"].as_str().unwrap().contains("it is stopped"), "{failed}");
    let log = fs::read_to_string(machine.fake("log")).unwrap();
    assert!(log.contains(&port.to_string()) && !log.contains("{\"ok\""), "in words: {log}");
}

#[test]
fn another_daemon_on_the_same_root_is_not_fought() {
    let machine = Machine::new();
    let mut other = machine.command(&["daemon"]);
    let mut other =
        other.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let socket = machine.home.root().join("axon.sock");
    wait_for("the other daemon", || std::os::unix::net::UnixStream::connect(&socket).ok());
    let refused = machine.run(&["service", "install"]);
    let status = machine.run(&["service", "status"]);
    other.kill().unwrap();
    other.wait().unwrap();
    let said = refused.fails(1, "locked");
    assert!(said["message"].as_str().unwrap().contains(&format!("(pid {})", other.id())), "{said}");
    assert!(!machine.unit("axon.service").exists());
    let said = status.fails(1, "not_installed");
    assert!(said["message"].as_str().unwrap().contains("started otherwise"), "{said}");
}

#[test]
fn the_unit_of_a_package_is_used_where_there_is_one() {
    let machine = Machine::new();
    let prefix = machine.home.path().join("usr");
    let packaged = prefix.join("lib/systemd/user");
    fs::create_dir_all(prefix.join("bin")).unwrap();
    fs::create_dir_all(&packaged).unwrap();
    let program = prefix.join("bin/axon");
    std::os::unix::fs::symlink(AXON, &program).unwrap();
    let text = machine.run(&["service", "unit", program.to_str().unwrap()]).stdout;
    fs::write(packaged.join("axon.service"), text).unwrap();
    std::os::unix::fs::symlink(&packaged, machine.fake("packaged")).unwrap();
    let as_installed = |args: &[&str]| {
        let mut command = machine.command(args);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{}:{path}", machine.tools.display(), prefix.join("bin").display()));
        run(command)
    };
    let doctor = as_installed(&["doctor"]).json();
    assert!(doctor["checks"].as_array().unwrap().iter().all(|check| check["name"] != "service"), "{doctor}");
    let done = as_installed(&["service", "install"]).ok();
    assert_eq!(
        (&done["written"], done["path"].as_str()),
        (&json!(false), packaged.join("axon.service").to_str())
    );
    assert!(!machine.unit("axon.service").exists());
    as_installed(&["service", "status"]).ok();
    assert_eq!(as_installed(&["service", "uninstall"]).ok()["removed"], true);
    assert!(packaged.join("axon.service").exists(), "it is the package's");
    as_installed(&["service", "status"]).fails(1, "not_installed");
}

/// systemd's own opinion of the unit.
#[test]
fn systemd_takes_the_units_as_they_are() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return skip("systemd_takes_the_units_as_they_are", "there is no systemd-analyze");
    }
    let machine = Machine::new();
    let strange = machine.home.path().join("a b$c 100% \"d\"");
    for flags in [&[][..], &["--name", "bob"], &["--root", strange.to_str().unwrap()]] {
        let shown = machine.run(&[flags, &["service", "install", "--print"]].concat()).ok();
        let file = machine.home.path().join(shown["service"].as_str().unwrap());
        fs::write(&file, shown["text"].as_str().unwrap()).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.args(["--user", "--man=no", "verify"]).arg(&file).env("XDG_RUNTIME_DIR", machine.home.path());
        let output = verify.env("HOME", machine.home.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // Other units of the machine are read along; what is said of them is not ours.
        let ours = said.lines().filter(|line| line.contains("axon")).collect::<Vec<_>>();
        assert!(output.status.success() && ours.is_empty(), "{said}");
    }
}

/// A user's home, and directories of control groups for that user's systemd. Both go when it is dropped.
struct Real {
    home: tempfile::TempDir,
    groups: Vec<PathBuf>,
}

impl Real {
    /// None where this user may not make such things.
    fn new() -> Option<Self> {
        let own = ["-m", "-p", "-f", "--kill-child", "--mount-proc", "true"];
        let may = rustix::process::geteuid().is_root()
            && Command::new("unshare").args(own).output().is_ok_and(|output| output.status.success());
        let home = tempfile::Builder::new().prefix("ax").tempdir().unwrap();
        let mut real = Self { home, groups: Vec::new() };
        for hierarchy in ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"] {
            let group = Path::new(hierarchy).join(format!("axon-test-{}", std::process::id()));
            if may && Path::new(hierarchy).join("cgroup.procs").exists() && fs::create_dir(&group).is_ok() {
                real.groups.push(group);
            }
        }
        (!real.groups.is_empty()).then_some(real)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for group in &self.groups {
            // The innermost first. One whose last process is just ending is tried again.
            wait_for("the control groups to be empty", || {
                Command::new("find")
                    .arg(group)
                    .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
                    .output()
                    .ok();
                (!group.exists()).then_some(())
            });
        }
    }
}

/// The unit with all that it shuts out, under a real systemd: as an ordinary user, in namespaces of its own.
#[test]
fn it_works_under_a_real_systemd() {
    let name = "it_works_under_a_real_systemd";
    if !Path::new("/lib/systemd/systemd").exists() {
        return skip(name, "there is no systemd");
    }
    let Some(real) = Real::new() else {
        // This is no tool that could be installed.
        eprintln!("{name} needs root, namespaces and control groups: not tried");
        return;
    };
    let home = real.home.path();
    set_mode(home, 0o755);
    fs::copy(AXON, home.join("axon")).unwrap();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service");
    fs::copy(tools.join("inside"), home.join("inside")).unwrap();
    for root in [".axon", ".axon/instances", ".axon/instances/bob"] {
        fs::create_dir(home.join(root)).unwrap();
        set_mode(&home.join(root), 0o700);
        let text = "bind = \"127.0.0.1\"\nmdns = false\nport = 0\n";
        fs::write(home.join(root).join("config.toml"), text).unwrap();
    }
    // The watchdog's minute is long for a test.
    let more = home.join(".config/systemd/user/axon.service.d");
    fs::create_dir_all(&more).unwrap();
    fs::write(more.join("sooner.conf"), "[Service]\nWatchdogSec=3\nRestartSec=0\n").unwrap();
    let mut command = Command::new("timeout");
    command.args(["60", "unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc"]);
    command.arg(tools.join("real")).arg(home).arg("54321").args(&real.groups);
    let ran = run(command);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = ran.lines();
    let is = |line: usize, wanted: Value| {
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(&lines[line][key], value, "line {line}: {ran:?}");
        }
    };
    is(0, json!({"ok": true, "written": true}));
    is(1, json!({"ok": true, "state": "running", "enabled": true, "answers": true}));
    is(2, json!({"seccomp": 2}));
    is(3, json!({"ok": true, "service": "axon-bob.service"}));
    is(4, json!({"ok": true}));
    is(5, json!({"ok": true, "kind": "response"}));
    assert_eq!(lines[5]["payload"]["summary"], "Are you there?", "{ran:?}");
    is(6, json!({"reload": 1, "state": "active"}));
    is(7, json!({"ok": true}));
    is(8, json!({"same": true, "restarts": 0}));
    is(9, json!({"ok": true, "state": "running"}));
    assert!(lines[9]["detail"].as_str().unwrap().ends_with("started again once"), "{ran:?}");
    is(10, json!({"ok": true, "removed": true}));
    is(11, json!({"ok": true, "removed": true}));
}

// ---- launchd ----------------------------------------------------------------------------------------------

const LAUNCHD: [&str; 3] = ["service", "--manager", "launchd"];

#[test]
fn an_agent_of_launchd_is_installed_once_and_removed_once() {
    let machine = Machine::new();
    let service = |args: &[&str]| machine.run(&[&LAUNCHD, args].concat());
    let plist = machine.home.path().join("Library/LaunchAgents/axon.daemon.plist");
    let uid = rustix::process::geteuid().as_raw();
    let bootstrap = format!("launchctl bootstrap gui/{uid} {}", plist.display());
    let shown = service(&["install", "--print"]).ok();
    assert_eq!((&shown["service"], shown["path"].as_str()), (&json!("axon.daemon"), plist.to_str()));
    assert_eq!(shown["commands"][1], bootstrap);
    assert!(!plist.exists() && machine.calls().is_empty());

    service(&["install"]).ok();
    assert_eq!(machine.calls(), [format!("launchctl enable gui/{uid}/axon.daemon"), bootstrap.clone()]);
    let pid = machine.pid("axon.daemon");
    assert_eq!(service(&["install"]).ok()["written"], false);
    assert_eq!(machine.pid("axon.daemon"), pid);
    let status = service(&["status"]).ok();
    assert_eq!((&status["state"], &status["answers"]), (&json!("running"), &json!(true)));

    let logged = service(&["logs", "-n", "1"]).json();
    assert!(logged["message"].as_str().unwrap().contains("INFO"), "{logged}");
    let plain = machine.run(&[&["--plain"][..], &LAUNCHD, &["logs"]].concat());
    assert!(plain.code == 0 && plain.stdout.contains("listens on"), "{plain:?}");

    // A file of an axon that lay elsewhere.
    let text = fs::read_to_string(&plist).unwrap();
    fs::write(&plist, text.replace(AXON, "/opt/axon")).unwrap();
    service(&["install"]).fails(1, "edited");
    service(&["install", "--force"]).ok();
    assert!(machine.pid("axon.daemon") != pid);
    machine.calls();
    assert_eq!(service(&["uninstall"]).ok()["removed"], true);
    assert_eq!(machine.calls(), [format!("launchctl bootout gui/{uid}/axon.daemon")]);
    assert!(!plist.exists());
    service(&["status"]).fails(1, "not_installed");
    assert_eq!(service(&["uninstall"]).ok()["removed"], false);
}

#[test]
fn failures_of_launchd_say_what_to_do() {
    let machine = Machine::new();
    let service = |args: &[&str]| machine.run(&[&LAUNCHD, args].concat());
    fs::write(machine.fake("no_session"), "").unwrap();
    let said = service(&["install"]).fails(1, "no_session");
    assert!(said["message"].as_str().unwrap().contains("on the screen"), "{said}");
    let mut command = machine.command(&[&LAUNCHD[..], &["install"]].concat());
    command.env("PATH", machine.home.path());
    let said = run(command).fails(1, "no_launchd");
    assert!(said["message"].as_str().unwrap().contains("only macOS"), "{said}");
    let said = service(&["logs"]).fails(1, "no_log");
    assert!(said["message"].as_str().unwrap().contains("service install"), "{said}");
}

#[test]
fn a_property_list_is_one_whatever_is_in_its_paths() {
    let machine = Machine::new();
    let root = machine.home.path().join("a <b> & 'c'");
    let shown =
        machine.run(&[&["--root", root.to_str().unwrap()][..], &LAUNCHD, &["install", "--print"]].concat());
    let text = shown.ok()["text"].as_str().unwrap().to_owned();
    let file = machine.home.path().join("agent.plist");
    fs::write(&file, text).unwrap();
    let program = "import json,plistlib,sys; print(json.dumps(plistlib.load(open(sys.argv[1],'rb'))))";
    let Ok(output) = Command::new("python3").arg("-c").arg(program).arg(&file).output() else {
        return skip("a_property_list_is_one_whatever_is_in_its_paths", "there is no python3");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let args = [AXON, "--root", root.to_str().unwrap(), "--plain", "daemon"];
    assert_eq!(list["ProgramArguments"], json!(args));
    assert_eq!((&list["RunAtLoad"], &list["KeepAlive"]), (&json!(true), &json!({"SuccessfulExit": false})));
    assert_eq!(list["Umask"], 0o077);
    assert!(list["Label"].as_str().unwrap().starts_with("axon.daemon_"), "{list}");
}
