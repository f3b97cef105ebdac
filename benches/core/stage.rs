//! Daemons to measure, cheap clients of theirs, and what the system says of them.

use std::io::{Read as _, Write as _};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::floor::args::Args;
use super::floor::figures::Figures;
use super::floor::paths::between;
use super::floor::procs::{self, Player};
use super::floor::slots::{DIGITS, Slots, digits};
use super::peer::RawPeer;
use super::support::{Daemon, introduce, set_mode, wait_for};

/// Room for all that a benchmark keeps unread.
pub const ROOM: &str = "[ipc]\nbuffer_size = 1000000\nbuffer_byte_cap = 1073741824\n";
/// Commands of one client that wait for peers at once, at the most (IPC-ORD-5).
pub const WINDOW: usize = 256;

/// A daemon that ends with the benchmark, whatever happens to it.
pub struct Node(Daemon);

impl Node {
    pub fn start(config: &str) -> Self {
        let daemon = Daemon::start(config);
        procs::guard(daemon.pid());
        procs::guard_folder(daemon.root().parent().expect("a root lies in a folder"));
        Self(daemon)
    }

    /// Two that are connected.
    pub fn pair(alice: &str, bob: &str) -> (Self, Self) {
        let (alice, bob) = (Self::start(alice), Self::start(bob));
        introduce(&alice, &bob);
        (alice, bob)
    }

    /// Lets these in, from wherever they come: it knows no address of theirs, and so dials none.
    pub fn befriend(&self, peers: &[RawPeer]) {
        let entry = |peer: &RawPeer| {
            let (id, key) = (&peer.id, &peer.pubkey);
            format!("[[contacts]]\nagent_id = \"{id}\"\npubkey = \"{key}\"\nlevel = \"known\"\n")
        };
        let path = self.root().join("contacts.toml");
        std::fs::write(&path, peers.iter().map(entry).collect::<String>()).expect("a root can be written");
        set_mode(&path, 0o600);
        self.reload();
    }

    /// Kills it, without a word of warning.
    pub fn killed(&mut self) {
        procs::unguard(self.0.pid());
        self.0.kill9();
    }

    /// Ends it well.
    pub fn ended(&mut self) {
        procs::unguard(self.0.pid());
        assert!(self.0.terminate().success(), "it ends well");
    }

    /// Starts it without waiting.
    pub fn launched(&mut self) {
        self.0.launch();
        procs::guard(self.0.pid());
    }

    /// A client that holds these lines, said hello.
    pub fn slots(&self, lines: Vec<Vec<u8>>, good: fn(&[u8]) -> bool) -> Slots {
        let mut stream = UnixStream::connect(self.socket()).expect("the daemon listens");
        stream.write_all(b"{\"cmd\":\"hello\",\"req_id\":\"h\",\"version\":2}\n").expect("the daemon reads");
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the daemon answers");
            line.extend(byte);
        }
        assert!(line.starts_with(b"{\"ok\":true"), "hello: {}", String::from_utf8_lossy(&line));
        Slots::new(stream, lines, slot, good)
    }

    /// An agent of it that answers every query with a payload of this many bytes: a process of its own.
    pub fn agent(&self, bytes: usize) -> Player {
        Player::start(&["axon-agent", &self.socket().display().to_string(), &bytes.to_string()])
    }

    /// A consumer of it that reads and acks: a process of its own.
    pub fn reader(&self) -> Player {
        Player::start(&["axon-reader", &self.socket().display().to_string()])
    }

    /// A number of `/proc/<pid>/status`; kB where it is memory.
    pub fn status(&self, field: &str) -> Option<u64> {
        number_of(&format!("/proc/{}/status", self.pid()), field)
    }

    /// Its share of the memory that it maps, in kB, where the system tells.
    pub fn pss(&self) -> Option<u64> {
        number_of(&format!("/proc/{}/smaps_rollup", self.pid()), "Pss")
    }

    /// How often its threads have given up the processor to wait.
    pub fn waits(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let field = "voluntary_ctxt_switches";
        tasks.filter_map(|task| number_of(&task.path().join("status").display().to_string(), field)).sum()
    }
}

impl Deref for Node {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.0
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.0
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.0.runs() {
            procs::unguard(self.0.pid());
        }
    }
}

fn number_of(path: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The slot of a reply: its `req_id`.
fn slot(line: &[u8]) -> Option<usize> {
    let head = b"{\"ok\":";
    let mark = b"\"req_id\":\"";
    if !line.starts_with(head) {
        return None;
    }
    let near = &line[..line.len().min(64)];
    let at = near.windows(mark.len()).position(|part| part == mark);
    let slot = at.and_then(|at| digits(&line[at + mark.len()..]));
    assert!(slot.is_some(), "not a reply to one of ours: {}", String::from_utf8_lossy(line));
    slot
}

/// Lines that ask, each with a payload of this many bytes.
pub fn queries(to: &str, size: usize, count: usize) -> Vec<Vec<u8>> {
    let around = "{\"question\":\"\"}".len();
    let text = "q".repeat(size.saturating_sub(around));
    sends(to, "query", &format!("{{\"question\":\"{text}\"}}"), count)
}

/// Lines that notify, each with a payload of this many bytes.
pub fn notes(to: &str, size: usize, count: usize) -> Vec<Vec<u8>> {
    let around = "{\"topic\":\"bench\",\"data\":\"\"}".len();
    let text = "x".repeat(size.saturating_sub(around));
    sends(to, "notify", &format!("{{\"topic\":\"bench\",\"data\":\"{text}\"}}"), count)
}

fn sends(to: &str, kind: &str, payload: &str, count: usize) -> Vec<Vec<u8>> {
    let line = |slot: usize| {
        let head =
            format!("{{\"cmd\":\"send\",\"req_id\":\"{slot:0DIGITS$}\",\"to\":\"{to}\",\"kind\":\"{kind}\"");
        format!("{head},\"payload\":{payload}}}\n").into_bytes()
    };
    (0..count).map(line).collect()
}

/// Whether a reply brings an answer of the peer's agent, and no error of his.
pub fn answered(line: &[u8]) -> bool {
    has(line, b"{\"ok\":true") && has(line, b"\"kind\":\"response\"")
}

/// Whether a reply says that the peer's daemon has it: on disk, or, where it promises nothing, at all.
pub fn arrived(line: &[u8]) -> bool {
    has(line, b"\"state\":\"delivered\"") || has(line, b"\"state\":\"sent\"")
}

/// Whether a reply says that it is on the peer's disk.
pub fn kept(line: &[u8]) -> bool {
    has(line, b"\"state\":\"delivered\"")
}

fn has(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|there| there == part)
}

/// Two daemons, an agent or a reader, and a client that asks: what is measured against the floors.
pub struct Way {
    pub alice: Node,
    pub bob: Node,
    other: Option<Player>,
    pub slots: Slots,
}

impl Way {
    /// Queries, each answered by an agent of the other daemon.
    pub fn asked(args: &Args, alice: &str, bob: &str) -> Self {
        let (alice, bob) = Node::pair(alice, bob);
        let other = Some(bob.agent(args.size));
        let slots = alice.slots(queries("bob", args.size, WINDOW), answered);
        Self { alice, bob, other, slots }
    }

    /// Notifications, read and acked by a client of the other daemon or by nobody.
    pub fn told(args: &Args, config: &str, is_read: bool, good: fn(&[u8]) -> bool) -> Self {
        let (alice, bob) = Node::pair(config, config);
        let other = is_read.then(|| bob.reader());
        let slots = alice.slots(notes("bob", args.size, WINDOW), good);
        Self { alice, bob, other, slots }
    }

    /// Waits until the reader has acked all that there is.
    pub fn all_read(&self) {
        let mut client = self.bob.client();
        wait_for("the reader to have read all", || {
            (client.ok(serde_json::json!({"cmd":"status"}))["inbox_unread"] == 0).then_some(())
        });
    }

    pub fn measure(&mut self, in_flight: usize, args: &Args) -> Figures {
        let time = args.time();
        let daemons = [self.alice.pid(), self.bob.pid()];
        let mut pids = daemons.to_vec();
        pids.extend(self.other.as_ref().map(Player::pid));
        self.slots.warm(in_flight, time / 10);
        let figures = between(&daemons, || self.slots.measure(in_flight, time, &pids));
        self.other.iter_mut().for_each(Player::still_plays);
        figures
    }
}

/// The median, the 90th and the 99th part in a hundred, in the unit given.
pub fn parts(mut times: Vec<Duration>, unit: Duration, name: &str) -> String {
    times.sort_unstable();
    let at = |part: usize| {
        times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() / unit.as_secs_f64()
    };
    format!("{:.1} / {:.1} / {:.1} {name}", at(50), at(90), at(99))
}

pub fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
