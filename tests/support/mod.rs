//! Real daemons and raw clients for the tests, as an outsider would have them.
//!
//! * [`Daemon`]: one `axon daemon` in a temporary root. It is killed when dropped, also on a panic.
//! * [`pair`]: two of them that know each other and are connected.
//! * [`RawClient`]: the socket, by JSON lines; [`RawClient::v1`] says no hello, [`RawClient::hello`] does.
//!
//! A failing test prints what the daemon logged: `daemon.log()`. Ports are free ones, told by `whoami`.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

/// How long anything is waited for before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The program under test.
pub const AXON: &str = match option_env!("CARGO_BIN_EXE_axon") {
    Some(path) => path,
    // A benchmark is no test: it says which program it measures.
    None => "",
};
/// The program that a benchmark measures.
pub static MEASURED: OnceLock<PathBuf> = OnceLock::new();

/// Looks again and again until there is something; fails loudly when it does not come.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        // No event exists for this: look again in a moment.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A UDP port on 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One daemon and its root.
pub struct Daemon {
    /// The root directory is `dir/r`; `dir` itself goes when this is dropped.
    dir: tempfile::TempDir,
    child: Option<Child>,
    config: RefCell<String>,
    peers: RefCell<String>,
    port: Cell<u16>,
    id: String,
    pubkey: String,
}

impl Daemon {
    /// Makes a root with this config and starts a daemon there; returns when it answers `whoami`.
    ///
    /// `bind`, `mdns` and the port are given already. `config` may begin with top-level keys, then tables.
    pub fn start(config: &str) -> Self {
        let mut daemon = Self::idle(config);
        daemon.up();
        daemon
    }

    /// Only the root, with this config; [`Daemon::up`] starts it.
    pub fn idle(config: &str) -> Self {
        // Short, for the path of a Unix socket.
        let dir =
            tempfile::Builder::new().prefix("ax").rand_bytes(8).tempdir_in(std::env::temp_dir()).unwrap();
        let daemon = Self {
            dir,
            child: None,
            config: RefCell::new(config.to_owned()),
            peers: RefCell::default(),
            port: Cell::new(0),
            id: String::new(),
            pubkey: String::new(),
        };
        fs::create_dir(daemon.root()).unwrap();
        set_mode(&daemon.root(), 0o700);
        daemon.write_config();
        daemon
    }

    /// Starts it, on the port it had before if there was one, and waits until it answers.
    pub fn up(&mut self) {
        self.launch();
        self.wait_up();
    }

    /// Starts it without waiting.
    pub fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// The same, with these variables in its environment.
    pub fn launch_with(&mut self, vars: &[(&str, &str)]) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        // A benchmark measures what a user has: a daemon that logs as little as by default.
        let verbose: &[&str] = if MEASURED.get().is_some() { &[] } else { &["-v"] };
        let child = self
            .command(&[verbose, &["daemon", "--port", &self.port.get().to_string()]].concat())
            .envs(vars.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Waits until a launched daemon answers `whoami`, and learns its id, key and port.
    pub fn wait_up(&mut self) {
        let whoami = wait_for("the daemon's socket", || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the daemon ended ({status}):\n{}", self.log());
            }
            // The socket of a daemon that was killed is still there, and refuses.
            let stream = UnixStream::connect(self.socket()).ok()?;
            let mut client = RawClient::over(stream);
            client.hello();
            Some(client.cmd(json!({"cmd":"whoami"})))
        });
        self.id = whoami["agent_id"].as_str().unwrap().to_owned();
        self.pubkey = whoami["public_key"].as_str().unwrap().to_owned();
        let listen = whoami["listen"][0].as_str().unwrap();
        self.port.set(listen.rsplit_once(':').unwrap().1.parse().unwrap());
    }

    /// `axon --root <this root> …`, for the command line too.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(MEASURED.get().map_or(Path::new(AXON), PathBuf::as_path));
        command.arg("--root").arg(self.root()).args(args);
        command.env("HOME", self.dir.path()).env_remove("AXON_ROOT").env_remove("NO_COLOR");
        command
    }

    /// A new connection to the socket, before any hello.
    pub fn connect(&self) -> RawClient {
        RawClient::over(UnixStream::connect(self.socket()).unwrap_or_else(|error| {
            panic!("no socket ({error}):\n{}", self.log());
        }))
    }

    /// A new client of version 2.
    pub fn client(&self) -> RawClient {
        let mut client = self.connect();
        client.hello();
        client
    }

    /// A new client of version 2 that has subscribed; `fields` are those of `subscribe`.
    pub fn answerer(&self, fields: Value) -> RawClient {
        let mut client = self.client();
        client.subscribe(fields);
        client
    }

    /// The root directory.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("r")
    }

    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.root().join("axon.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.root().join("test.log")
    }

    /// What it has logged, over all its runs.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Agent id; known once it has been up.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Public key in standard base64; known once it has been up.
    pub fn pubkey(&self) -> &str {
        &self.pubkey
    }

    /// UDP port on 127.0.0.1; 0 before the first start.
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// Takes this port at the next start.
    pub fn set_port(&self, port: u16) {
        self.port.set(port);
    }

    /// Whether it was started and not ended by this test since.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it does not run").id()
    }

    /// This daemon as a `[[peers]]` entry for another one.
    pub fn as_peer(&self, name: &str) -> String {
        let (id, key, port) = (self.id(), self.pubkey(), self.port());
        format!(
            "\n[[peers]]\nname = \"{name}\"\nagent_id = \"{id}\"\npubkey = \"{key}\"\n\
             addr = \"127.0.0.1:{port}\"\n"
        )
    }

    /// Replaces the settings (not the peers) in the file; [`Daemon::reload`] makes them count.
    pub fn set_config(&self, config: &str) {
        config.clone_into(&mut self.config.borrow_mut());
        self.write_config();
    }

    /// Replaces the `[[peers]]` in the file by these, each with its name.
    ///
    /// [`Daemon::reload`] makes them count.
    pub fn set_peers(&self, peers: &[(&str, &Daemon)]) {
        *self.peers.borrow_mut() = peers.iter().map(|(name, peer)| peer.as_peer(name)).collect();
        self.write_config();
    }

    fn write_config(&self) {
        let head = "bind = \"127.0.0.1\"\nmdns = false\n";
        let text = format!("{head}{}\n{}", self.config.borrow(), self.peers.borrow());
        fs::write(self.root().join("config.toml"), text).unwrap();
    }

    /// SIGHUP, and waits until the settings were read or refused.
    pub fn reload(&self) {
        let answers = || {
            self.log().matches("SIGHUP: settings read").count()
                + self.log().matches("SIGHUP: the settings stay").count()
        };
        let before = answers();
        self.signal(Signal::HUP);
        wait_for("the settings to be read again", || (answers() > before).then_some(()));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().expect("it does not run"));
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// kill -9, and waits for its end.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        let status = self.wait_exit();
        assert_eq!(status.signal(), Some(9));
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_exit()
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it does not run");
        let status = wait_for("the daemon to end", || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// Waits until this peer is connected (or, with false, is not).
    pub fn wait_peer(&self, peer: &Daemon, connected: bool) {
        let mut client = self.client();
        wait_for("a peer's status to change", || {
            let is = client.peer(peer.id()).is_some_and(|row| row["status"] == "connected");
            (is == connected).then_some(())
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill(&mut child, true);
        }
        if std::thread::panicking() {
            let log = self.log();
            let start = log.len().saturating_sub(4000);
            eprintln!("--- log of {} ---\n{}", self.id, log.get(start..).unwrap_or(&log));
        }
    }
}

/// Ends a program that the test needs no longer. While coverage is measured it is asked before, by SIGTERM if
/// it takes that, and has time to end by itself: what is killed writes no profile.
pub fn kill(child: &mut Child, takes_term: bool) {
    if std::env::var_os("LLVM_PROFILE_FILE").is_some() {
        if takes_term {
            rustix::process::kill_process(Pid::from_child(child), Signal::TERM).ok();
        }
        let end = Instant::now() + PATIENCE;
        while child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
            // The end of a child is no event here: look again in a moment.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    child.kill().ok();
    child.wait().ok();
}

/// Changes a file's permission bits.
pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A file's permission bits.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Two connected daemons, static peers of each other: `alice` and `bob`.
pub fn pair() -> (Daemon, Daemon) {
    pair_with("", "")
}

/// The same, with these settings.
pub fn pair_with(alice: &str, bob: &str) -> (Daemon, Daemon) {
    let alice = Daemon::start(alice);
    let bob = Daemon::start(bob);
    introduce(&alice, &bob);
    (alice, bob)
}

/// Makes two running daemons peers of each other, and of nobody else, and waits until they are connected.
pub fn introduce(alice: &Daemon, bob: &Daemon) {
    bob.set_peers(&[("alice", alice)]);
    bob.reload();
    alice.set_peers(&[("bob", bob)]);
    alice.reload();
    alice.wait_peer(bob, true);
    bob.wait_peer(alice, true);
}

/// A client of the socket that reads and writes JSON lines, and waits for nothing longer than [`PATIENCE`].
pub struct RawClient {
    reader: BufReader<UnixStream>,
    next: u64,
    /// Events (and v1 inbound lines) that came while a reply was waited for, oldest first.
    pub events: VecDeque<Value>,
    /// Replies that came while another was waited for.
    replies: HashMap<String, Value>,
}

impl RawClient {
    /// Over this connection.
    pub fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { reader: BufReader::new(stream), next: 1, events: VecDeque::new(), replies: HashMap::new() }
    }

    /// A client of version 1: it says no hello.
    pub fn v1(daemon: &Daemon) -> Self {
        daemon.connect()
    }

    /// Says hello with version 2 and gives the reply.
    pub fn hello(&mut self) -> Value {
        self.hello_as("default")
    }

    /// The same as this consumer.
    pub fn hello_as(&mut self, consumer: &str) -> Value {
        let reply = self.cmd(json!({"cmd":"hello","version":2,"consumer":consumer}));
        assert_eq!(reply["ok"], true, "{reply}");
        // Until then it counted as a client of version 1 (IPC-V1-6).
        self.events.retain(|event| event.get("inbound").is_none());
        reply
    }

    /// `subscribe` with these fields; gives the reply.
    pub fn subscribe(&mut self, mut fields: Value) -> Value {
        fields["cmd"] = "subscribe".into();
        self.ok(fields)
    }

    /// Sends a command without waiting; gives its `req_id` (made up when it has none).
    pub fn begin(&mut self, mut command: Value) -> String {
        if command.get("req_id").is_none() {
            command["req_id"] = format!("r{}", self.next).into();
            self.next += 1;
        }
        let req_id = command["req_id"].as_str().unwrap().to_owned();
        self.raw(format!("{command}\n").as_bytes());
        req_id
    }

    /// The reply with this `req_id`; everything else that comes is kept.
    pub fn finish(&mut self, req_id: &str) -> Value {
        loop {
            if let Some(reply) = self.replies.remove(req_id) {
                return reply;
            }
            let line = self.line().unwrap_or_else(|| panic!("closed before the reply to {req_id}"));
            self.sort(line);
        }
    }

    /// Sends a command and waits for its reply.
    pub fn cmd(&mut self, command: Value) -> Value {
        let req_id = self.begin(command);
        self.finish(&req_id)
    }

    /// The same; it must succeed.
    pub fn ok(&mut self, command: Value) -> Value {
        let reply = self.cmd(command.clone());
        assert_eq!(reply["ok"], true, "{command}\n-> {reply}");
        reply
    }

    /// The same; it must fail with this code. Gives the message.
    pub fn fails(&mut self, command: Value, code: &str) -> String {
        let reply = self.cmd(command.clone());
        assert_eq!(reply["ok"], false, "{command}\n-> {reply}");
        assert_eq!(reply["error"], code, "{command}\n-> {reply}");
        reply["message"].as_str().expect("an error has a message").to_owned()
    }

    /// The next event.
    pub fn event(&mut self) -> Value {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let line = self.line().expect("closed before an event");
            self.sort(line);
        }
    }

    /// The next event for which this holds; those before it are dropped.
    pub fn event_where(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.event();
            if fits(&event) {
                return event;
            }
        }
    }

    /// Nothing has come that is not a reply.
    ///
    /// A command goes in between, so that nothing can be on its way.
    pub fn silent(&mut self) {
        self.cmd(json!({"cmd":"status"}));
        assert!(self.events.is_empty(), "unexpected: {:?}", self.events);
    }

    fn sort(&mut self, line: Value) {
        match line.get("req_id").and_then(Value::as_str) {
            Some(req_id) if line.get("ok").is_some() => {
                self.replies.insert(req_id.to_owned(), line);
            }
            _ => self.events.push_back(line),
        }
    }

    /// Writes bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    /// The same to a daemon that may have ended; false if it has.
    pub fn try_raw(&mut self, bytes: &[u8]) -> bool {
        match self.reader.get_mut().write_all(bytes) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next line, whatever it is; none at the end of the connection.
    pub fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("nothing came ({error})"),
        }
    }

    /// Closes the writing half only.
    pub fn half_close(&mut self) {
        self.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// The next event, which must be a request for this client to answer. Gives its envelope.
    pub fn request(&mut self) -> Value {
        let event = self.event();
        assert_eq!((&event["event"], &event["answer"]), (&json!("inbound"), &json!(true)), "{event}");
        event["envelope"].clone()
    }

    /// Replies to a request (its envelope) and gives what the daemon says to that.
    pub fn reply(&mut self, request: &Value, kind: &str, payload: Value) -> Value {
        self.cmd(json!({"cmd":"reply","ref":request["id"],"kind":kind,"payload":payload}))
    }

    /// Answers a query with this text.
    pub fn respond(&mut self, request: &Value, summary: &str) {
        let said = self.reply(request, "response", json!({"data":null,"summary":summary}));
        assert_eq!(said["ok"], true, "{said}");
    }

    /// Waits for one query and answers it with this text.
    pub fn answer_one(&mut self, summary: &str) {
        let request = self.request();
        self.respond(&request, summary);
    }

    /// Begins a query; `extra` are fields of its payload besides the question.
    pub fn ask(&mut self, to: &str, question: &str, mut extra: Value) -> String {
        extra["question"] = question.into();
        self.begin(json!({"cmd":"send","to":to,"kind":"query","payload":extra}))
    }

    /// The row of `peers` with this id.
    pub fn peer(&mut self, id: &str) -> Option<Value> {
        let reply = self.ok(json!({"cmd":"peers"}));
        reply["peers"].as_array().unwrap().iter().find(|row| row["id"] == id).cloned()
    }
}

pub mod cli;
pub mod kept;
pub mod mcp;

/// Says by name that a test is skipped, and why.
///
/// With `AXON_NO_SKIP=1`, as `.ci/run` sets it, that is a failure.
pub fn skip(name: &str, why: &str) {
    assert!(std::env::var_os("AXON_NO_SKIP").is_none(), "SKIPPED {name}: {why}");
    // Straight to the process's own stderr: the harness hides what a passing test prints.
    writeln!(std::io::stderr().lock(), "SKIPPED {name}: {why}").ok();
}

impl RawClient {
    /// The connection itself; nothing must be waiting.
    pub fn into_stream(self) -> UnixStream {
        assert!(self.reader.buffer().is_empty() && self.events.is_empty() && self.replies.is_empty());
        self.reader.into_inner()
    }
}

impl RawClient {
    /// The next line as it is written, with its line feed.
    pub fn raw_line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line
    }

    /// Another handle on the connection, to write from another thread.
    pub fn writer(&self) -> UnixStream {
        self.reader.get_ref().try_clone().unwrap()
    }
}
