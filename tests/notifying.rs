//! What a daemon tells the service manager that started it, here a socket of the test's own, and how it logs
//! there.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Daemon, PATIENCE, introduce};

/// The manager: it hears what daemons say.
struct Manager {
    dir: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ax").tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { dir, socket }
    }

    fn name(&self) -> String {
        self.dir.path().join("notify").to_str().unwrap().to_owned()
    }

    /// The next word; the food for the watchdog is taken out.
    fn next(&self) -> Vec<String> {
        loop {
            let mut lines = read(&self.socket).expect("nothing is said any more");
            lines.retain(|line| line != "WATCHDOG=1");
            if !lines.is_empty() {
                return lines;
            }
        }
    }

    /// The next word that is more than a status, and its status if it has one.
    fn next_of_weight(&self) -> Vec<String> {
        let weighs = |lines: &Vec<String>| lines.iter().any(|line| !line.starts_with("STATUS="));
        std::iter::repeat_with(|| self.next()).find(weighs).unwrap()
    }

    /// Waits until this is the status.
    fn status(&self, text: &str) {
        let wanted = format!("STATUS={text}");
        let end = Instant::now() + PATIENCE;
        while !self.next().contains(&wanted) {
            assert!(Instant::now() < end, "it never was {text}");
        }
    }

    /// How often a watchdog is fed until nothing comes for this long.
    fn feeds(&self, quiet: Duration, most: usize) -> usize {
        self.socket.set_read_timeout(Some(quiet)).unwrap();
        let lines = std::iter::from_fn(|| read(&self.socket)).flatten();
        let fed = lines.filter(|line| line == "WATCHDOG=1").take(most).count();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        fed
    }
}

fn read(socket: &UnixDatagram) -> Option<Vec<String>> {
    let mut buffer = [0; 1024];
    match socket.recv(&mut buffer) {
        Ok(length) => {
            let text = std::str::from_utf8(&buffer[..length]).unwrap();
            assert!(text.ends_with('\n'), "{text:?}");
            Some(text.lines().map(str::to_owned).collect())
        }
        Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => None,
        Err(error) => panic!("{error}"),
    }
}

fn usec(lines: &[String]) -> u64 {
    let line = lines.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("no moment");
    line.parse().unwrap()
}

#[test]
fn ready_is_told_when_it_serves_and_stopping_when_it_ends() {
    let manager = Manager::new();
    let mut daemon = Daemon::idle("");
    daemon.launch_with(&[("NOTIFY_SOCKET", &manager.name())]);
    assert_eq!(manager.next(), ["READY=1", "STATUS=0 peers connected, 0 clients"]);
    // At once and without another try: that is what ready means.
    let mut client = daemon.client();
    manager.status("0 peers connected, 1 client");
    client.ok(json!({"cmd":"pause"}));
    manager.status("0 peers connected, 1 client, paused");
    drop(client);
    manager.status("0 peers connected, 0 clients, paused");
    assert_eq!(daemon.terminate().code(), Some(0));
    assert_eq!(manager.next(), ["STOPPING=1", "STATUS=Finishing what is in flight"]);
}

#[test]
fn a_reload_begins_and_ends_also_one_that_is_refused() {
    let manager = Manager::new();
    let mut daemon = Daemon::idle("");
    daemon.launch_with(&[("NOTIFY_SOCKET", &manager.name())]);
    manager.next();
    daemon.reload();
    let first = manager.next_of_weight();
    assert_eq!(first[0], "RELOADING=1");
    assert_eq!(manager.next_of_weight(), ["READY=1"]);
    assert_eq!(daemon.run(&["reload"]).code, 0);
    let second = manager.next_of_weight();
    assert!(second[0] == "RELOADING=1" && usec(&second) > usec(&first), "{first:?} {second:?}");
    assert_eq!(manager.next_of_weight(), ["READY=1"]);
    daemon.set_config("nonsense = 1\n");
    assert_eq!(daemon.run(&["reload"]).code, 1);
    assert_eq!(manager.next_of_weight()[0], "RELOADING=1");
    assert_eq!(manager.next_of_weight(), ["READY=1"]);
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[test]
fn peers_are_counted_and_a_name_that_is_no_file_serves_as_well() {
    if !cfg!(target_os = "linux") {
        // Such names are Linux's own.
        return;
    }
    let name = format!("axon-test-{}", std::process::id());
    let manager = Manager { socket: abstract_socket(&name), ..Manager::new() };
    let mut alice = Daemon::idle("");
    alice.launch_with(&[("NOTIFY_SOCKET", &format!("@{name}"))]);
    assert_eq!(manager.next()[0], "READY=1");
    alice.wait_up();
    let bob = Daemon::start("");
    introduce(&alice, &bob);
    manager.status("1 peer connected, 0 clients");
}

#[cfg(target_os = "linux")]
fn abstract_socket(name: &str) -> UnixDatagram {
    use std::os::linux::net::SocketAddrExt as _;
    let addr = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    let socket = UnixDatagram::bind_addr(&addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[cfg(not(target_os = "linux"))]
fn abstract_socket(_: &str) -> UnixDatagram {
    UnixDatagram::unbound().unwrap()
}

#[test]
fn a_daemon_that_goes_on_as_another_is_ready_again_and_never_stopping() {
    let manager = Manager::new();
    let mut daemon = Daemon::idle("");
    daemon.launch_with(&[("NOTIFY_SOCKET", &manager.name()), ("WATCHDOG_USEC", "20000000")]);
    manager.next();
    daemon.wait_up();
    let before = (daemon.id().to_owned(), daemon.pid());
    daemon.run(&["rekey", "--yes"]).ok();
    let said = manager.next_of_weight();
    assert_eq!(said[0], "RELOADING=1", "{said:?}");
    assert_eq!(manager.next_of_weight()[0], "READY=1");
    daemon.wait_up();
    assert!(daemon.id() != before.0 && daemon.pid() == before.1);
    assert_eq!(daemon.terminate().code(), Some(0));
    assert_eq!(manager.next_of_weight()[0], "STOPPING=1");
}

#[test]
fn a_watchdog_is_fed_by_the_loop_and_not_while_that_stands() {
    let manager = Manager::new();
    let mut daemon = Daemon::idle("");
    daemon.launch_with(&[("NOTIFY_SOCKET", &manager.name()), ("WATCHDOG_USEC", "300000")]);
    assert_eq!(manager.feeds(PATIENCE, 5), 5);
    daemon.signal(Signal::STOP);
    // What was said before it stood, and then nothing for several times what the manager waits.
    manager.feeds(Duration::from_secs(1), usize::MAX);
    assert_eq!(manager.feeds(Duration::from_millis(500), usize::MAX), 0);
    daemon.signal(Signal::CONT);
    assert_eq!(manager.feeds(PATIENCE, 5), 5);
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let manager = Manager::new();
    let mut daemon = Daemon::idle("");
    let vars = [("NOTIFY_SOCKET", &*manager.name()), ("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")];
    daemon.launch_with(&vars);
    assert_eq!(manager.next()[0], "READY=1");
    assert_eq!(manager.feeds(Duration::from_millis(500), usize::MAX), 0);
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[test]
fn who_cannot_start_says_why_in_one_line() {
    let manager = Manager::new();
    let mut daemon = Daemon::idle("nonsense = 1\n");
    daemon.launch_with(&[("NOTIFY_SOCKET", &manager.name())]);
    let said = manager.next();
    assert!(said.len() == 1 && said[0].starts_with("STATUS=") && said[0].contains("nonsense"), "{said:?}");
    assert_eq!(daemon.wait_exit().code(), Some(1));
}

#[test]
fn a_manager_that_is_not_there_or_does_not_read_holds_nobody_up() {
    let manager = Manager::new();
    for name in [format!("{}-gone", manager.name()), "no path".to_owned(), manager.name()] {
        let mut daemon = Daemon::idle("");
        // The last one has a reader that never reads: fed each millisecond, its queue is full at once.
        daemon.launch_with(&[("NOTIFY_SOCKET", &name), ("WATCHDOG_USEC", "2000")]);
        daemon.wait_up();
        for _ in 0..200 {
            daemon.client().ok(json!({"cmd":"status"}));
        }
        assert_eq!(daemon.terminate().code(), Some(0), "{name}");
        let complaints = daemon.log().matches("service manager cannot be told").count()
            + daemon.log().matches("NOTIFY_SOCKET cannot be used").count();
        assert!(complaints <= 1, "{}", daemon.log());
        assert!(complaints == 1 || name == manager.name(), "{}", daemon.log());
    }
}

#[test]
fn the_journal_gets_levels_in_its_own_form_and_no_times() {
    let mut daemon = Daemon::idle("");
    let log = fs::File::create(daemon.root().join("test.log")).unwrap().metadata().unwrap();
    daemon.launch_with(&[("JOURNAL_STREAM", &format!("{}:{}", log.dev(), log.ino()))]);
    daemon.wait_up();
    assert_eq!(daemon.terminate().code(), Some(0));
    let text = daemon.log();
    assert!(text.contains("<6>SIGTERM: finishing what is in flight\n"), "{text}");
    assert!(text.lines().all(|line| line.starts_with('<')), "{text}");
    // A stream that is not the journal's any more.
    daemon.launch_with(&[("JOURNAL_STREAM", "1:1")]);
    daemon.wait_up();
    assert!(daemon.log().contains("Z  INFO ed25519."), "{}", daemon.log());
}

#[test]
fn a_log_file_that_is_bounded_begins_anew() {
    let mut daemon = Daemon::idle("");
    daemon.launch_with(&[("AXON_LOG_BYTES_MAX", "2000")]);
    daemon.wait_up();
    let log = daemon.root().join("test.log");
    let (mut shrunk, mut before) = (0, 0);
    for _ in 0..60 {
        daemon.run(&["reload"]).ok();
        let size = fs::metadata(&log).unwrap().len();
        assert!(size < 2_400, "{size}");
        shrunk += u64::from(size < before);
        before = size;
    }
    assert!(shrunk >= 1, "{}", daemon.log());
    assert!(daemon.log().contains("reload: settings read"), "{}", daemon.log());
}
