//! Daemons as child processes, the first paired with each of the others over loopback, for `axon demo` and
//! `axon bench`. They never outlive the verb: they are stopped at its end, killed when it is dropped
//! half-way, and stop by themselves when the pipe on their stdin closes.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use axon_client::{Client, ClientError, Hello, Whoami};
use axon_proto::limits::SHUTDOWN_MS;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::disk::Root;

/// Why it failed, for a person.
pub type Reason = String;

/// What they are called, by themselves and by each other; there are no more than these.
pub const NAMES: [&str; 17] = [
    "ada", "bob", "cleo", "dora", "emil", "finn", "gina", "hugo", "ines", "jane", "karl", "lena", "mika",
    "nora", "otto", "paul", "rosa",
];
/// As many as talk to each other.
pub const TWO: usize = 2;
/// A daemon is up, and all that are to find each other have, well within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at a daemon that comes up: it has no other way to be waited for from outside.
const LOOK: Duration = Duration::from_millis(20);
/// How much of each daemon's log is shown when something failed.
const LOG_LINES: usize = 5;
/// How much of a helper's first line is read.
const LINE_BYTES: u64 = 4_096;

/// The daemons and where they live.
pub struct Stage {
    /// The verb: it names the directory, the logs and the consumer.
    what: &'static str,
    /// Settings of all, beside the stage's own.
    settings: &'static str,
    /// What those are called that are on it.
    names: &'static [&'static str],
    /// Programs beside the daemons, which are their clients.
    helpers: Vec<Child>,
    children: Vec<Child>,
    // The last, so that the daemons are gone when it goes.
    dir: TempDir,
}

impl Stage {
    /// A place for so many; nothing runs yet.
    pub fn new(what: &'static str, settings: &'static str, count: usize) -> Result<Self, Reason> {
        let dir = TempDir::new(what)?;
        let names = NAMES.get(..count).unwrap_or(&NAMES);
        Ok(Self { what, settings, names, helpers: Vec::new(), children: Vec::new(), dir })
    }

    /// Starts all, tells the first of the others and each of those of the first, and waits until they are
    /// connected.
    pub async fn start(&mut self) -> Result<(), Reason> {
        for which in 0..self.names.len() {
            let root = self.root(which);
            root.open().map_err(|error| error.to_string())?;
            write(&root.config(), &self.settings(which))?;
            let log = fs::File::create(self.log_path(which)).map_err(|error| error.to_string())?;
            let child = self
                .axon(which)?
                .args(["daemon", "--until-eof"])
                .stdin(Stdio::piped())
                .stdout(log.try_clone().map_err(|error| error.to_string())?)
                .stderr(log)
                .spawn()
                .map_err(|error| format!("cannot start a daemon: {error}"))?;
            self.children.push(child);
        }
        let mut clients = Vec::new();
        let mut known = Vec::new();
        for which in 0..self.names.len() {
            let client = self.connect(which, self.what).await?;
            known.push(client.whoami().await.map_err(|error| error.to_string())?);
            clients.push(client);
        }
        let others_of = |which: usize| if which == 0 { 1..self.names.len() } else { 0..1 };
        for (which, child) in self.children.iter().enumerate() {
            let mut text = self.settings(which);
            for other in others_of(which) {
                text = format!("{text}\n{}", peer_entry(self.names[other], &known[other])?);
            }
            write(&self.root(which).config(), &text)?;
            signal(child, Signal::HUP);
        }
        for (which, client) in clients.iter().enumerate() {
            let others: Vec<&str> = others_of(which).map(|other| &*known[other].agent_id).collect();
            connected(client, &others).await?;
        }
        Ok(())
    }

    /// What those are called that are on it, in order.
    pub fn names(&self) -> &'static [&'static str] {
        self.names
    }

    /// A client of one of them, as soon as it is up.
    pub async fn connect(&mut self, which: usize, consumer: &str) -> Result<Client, Reason> {
        let socket = self.root(which).socket();
        let began = Instant::now();
        loop {
            match Client::connect(&socket, Hello::consumer(consumer)).await {
                Ok(client) => return Ok(client),
                Err(error @ ClientError::NoDaemon { .. }) => {
                    let ended =
                        self.children.get_mut(which).and_then(|child| child.try_wait().ok().flatten());
                    if let Some(status) = ended {
                        return Err(format!("{}'s daemon ended at once ({status})", self.names[which]));
                    }
                    if began.elapsed() > PATIENCE {
                        return Err(error.to_string());
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
            sleep(LOOK).await;
        }
    }

    /// Starts `axon` with these arguments beside one of them, and returns when it has said its first line.
    /// It is asked to stop before the daemons are.
    pub async fn beside(&mut self, which: usize, args: &[&str]) -> Result<(), Reason> {
        let what = args.join(" ");
        let mut child = self
            .axon(which)?
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start axon {what}: {error}"))?;
        let stdout = child.stdout.take();
        self.helpers.push(child);
        let mut line = Vec::new();
        let said = async {
            let Some(stdout) = stdout else { return };
            // One that ends without a line has said nothing, which is told below.
            BufReader::new(stdout.take(LINE_BYTES)).read_until(b'\n', &mut line).await.ok();
        };
        let in_time = timeout(PATIENCE, said).await.is_ok();
        let well =
            |line: serde_json::Value| line.get("ok").and_then(serde_json::Value::as_bool) == Some(true);
        if in_time && serde_json::from_slice(&line).is_ok_and(well) {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line);
        let said =
            if line.is_empty() { "without a word".to_owned() } else { format!("with {}", line.trim()) };
        Err(format!("axon {what} did not start, {said}"))
    }

    /// The process of one of them, while it runs.
    pub fn pid(&self, which: usize) -> Option<u32> {
        self.children.get(which).and_then(Child::id)
    }

    /// The last lines of all logs.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        for (which, name) in self.names.iter().enumerate() {
            let log = fs::read_to_string(self.log_path(which)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            text.extend(last.iter().map(|line| format!("  {name}: {line}")));
        }
        text.join("\n")
    }

    /// Stops all and removes what they wrote.
    pub async fn end(mut self) -> Result<(), Reason> {
        let mut ended = Ok(());
        let limit = Instant::now() + Duration::from_millis(SHUTDOWN_MS + 1_000);
        self.helpers.iter().for_each(|child| signal(child, Signal::TERM));
        for child in &mut self.helpers {
            if tokio::time::timeout_at(limit, child.wait()).await.is_err() {
                child.kill().await.ok();
                ended = Err("a program beside the daemons did not stop and was killed".to_owned());
            }
        }
        self.children.iter().for_each(|child| signal(child, Signal::TERM));
        for (child, name) in self.children.iter_mut().zip(self.names) {
            match tokio::time::timeout_at(limit, child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => ended = Err(format!("{name}'s daemon ended with {status}")),
                Ok(Err(error)) => ended = Err(format!("{name}'s daemon is lost: {error}")),
                Err(_) => {
                    child.kill().await.ok();
                    ended = Err(format!("{name}'s daemon did not stop and was killed"));
                }
            }
        }
        ended
    }

    fn root(&self, which: usize) -> Root {
        Root::at(self.dir.0.join(self.names[which]))
    }

    fn settings(&self, which: usize) -> String {
        let (name, more) = (self.names[which], self.settings);
        format!("name = \"{name}\"\nbind = \"127.0.0.1\"\nport = 0\nmdns = false\n{more}")
    }

    fn log_path(&self, which: usize) -> PathBuf {
        self.root(which).dir().join(format!("{}.log", self.what))
    }

    /// This program with the root of one of them. It is killed when it is dropped.
    fn axon(&self, which: usize) -> Result<Command, Reason> {
        let axon =
            std::env::current_exe().map_err(|error| format!("this program cannot find itself: {error}"))?;
        let mut command = Command::new(axon);
        command.arg("--root").arg(self.root(which).dir()).kill_on_drop(true);
        Ok(command)
    }
}

async fn connected(client: &Client, others: &[&str]) -> Result<(), Reason> {
    let all = async {
        loop {
            let peers = client.peers().await.map_err(|error| error.to_string())?;
            let up = |other: &&str| peers.iter().any(|peer| peer.id == **other && peer.status == "connected");
            if others.iter().all(up) {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    };
    match timeout(PATIENCE, all).await {
        Ok(done) => done,
        Err(_) => Err(format!("the daemons did not find each other within {} s", PATIENCE.as_secs())),
    }
}

fn peer_entry(name: &str, peer: &Whoami) -> Result<String, Reason> {
    let addr = peer.listen.first().ok_or_else(|| format!("{name}'s daemon does not say where it listens"))?;
    let (id, key) = (&peer.agent_id, &peer.public_key);
    Ok(format!("[[peers]]\nname = \"{name}\"\nagent_id = \"{id}\"\naddr = \"{addr}\"\npubkey = \"{key}\"\n"))
}

fn write(path: &Path, text: &str) -> Result<(), Reason> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        // One that has ended needs no signal.
        kill_process(pid, signal).ok();
    }
}

/// A directory of our own that goes with its owner.
struct TempDir(PathBuf);

impl TempDir {
    fn new(what: &str) -> Result<Self, Reason> {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| format!("no random numbers: {error}"))?;
        let name = format!("axon-{what}-{:08x}", u32::from_le_bytes(random));
        let mut dir = std::env::temp_dir().join(&name);
        // A socket's path is short; where the temporary directory is not, there is an older one.
        if NAMES.iter().any(|name| Root::at(dir.join(name)).check_socket_path().is_err()) {
            dir = Path::new("/tmp").join(&name);
        }
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed here is left to the system, which clears its temporary files.
        fs::remove_dir_all(&self.0).ok();
    }
}
