//! A broker beside the floors: what a user would pick instead. It neither encrypts nor pins here, and keeps
//! nothing. A minimal client of its text protocol, over plain TCP.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::figures::{Figures, Seen};
use super::lines::Lines;
use super::procs::{self, Player, ready, used_here_ns, used_ns};
use super::slots::{DIGITS, PATIENCE, digits};

/// Messages that a publisher is ahead of the subscriber, at the most: the broker cuts off who lags further.
const AHEAD: u64 = 20_000;
/// The subscriber tells how far it is after so many.
const STEP: u64 = 5_000;

/// The broker, if the program is on the path.
pub struct Broker {
    child: Child,
    port: u16,
}

impl Broker {
    pub fn start() -> Option<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?.port();
        let child = Command::new("nats-server")
            .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        procs::guard(child.id());
        let broker = Self { child, port };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "nats-server does not listen: run it by hand to see why");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(broker)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        procs::end(&mut self.child);
    }
}

/// One connection.
struct Link {
    stream: TcpStream,
    lines: Lines,
    out: Vec<u8>,
    /// A header has come, and not yet all of its payload.
    begun: Option<Header>,
}

#[derive(Clone)]
struct Header {
    subject: Vec<u8>,
    reply: Vec<u8>,
    bytes: usize,
}

impl Link {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the broker listens");
        stream.set_nodelay(true).expect("a socket takes this option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        let out = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n".to_vec();
        Self { stream, lines: Lines::default(), out, begun: None }
    }

    fn subscribe(&mut self, subject: &str) {
        self.out.extend_from_slice(format!("SUB {subject} 1\r\n").as_bytes());
    }

    fn publish(&mut self, subject: &[u8], reply: &[u8], payload: &[u8]) {
        self.out.extend_from_slice(b"PUB ");
        self.out.extend_from_slice(subject);
        self.out.push(b' ');
        if !reply.is_empty() {
            self.out.extend_from_slice(reply);
            self.out.push(b' ');
        }
        write!(self.out, "{}\r\n", payload.len()).expect("memory takes it");
        self.out.extend_from_slice(payload);
        self.out.extend_from_slice(b"\r\n");
    }

    fn flush(&mut self) {
        self.stream.write_all(&self.out).expect("the broker reads");
        self.out.clear();
    }

    /// Waits until the broker has done all that was asked before.
    fn settle(&mut self) {
        self.out.extend_from_slice(b"PING\r\n");
        self.flush();
        loop {
            while let Some(line) = self.lines.next() {
                if line == b"PONG\r\n" {
                    return;
                }
                assert!(!line.starts_with(b"-ERR"), "the broker: {}", String::from_utf8_lossy(line));
            }
            self.read();
        }
    }

    /// Reads once.
    fn read(&mut self) {
        let read = self.stream.read(self.lines.room()).expect("the broker answers in time");
        assert!(read > 0, "the broker closed the connection");
        self.lines.filled(read);
    }

    /// The next message that is there, with its payload.
    fn next(&mut self) -> Option<(Header, &[u8])> {
        while self.begun.is_none() {
            let line = self.lines.next()?;
            if line == b"PING\r\n" {
                self.out.extend_from_slice(b"PONG\r\n");
                continue;
            }
            assert!(!line.starts_with(b"-ERR"), "the broker: {}", String::from_utf8_lossy(line));
            let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
            if words.next() != Some(b"MSG") {
                continue;
            }
            let words: Vec<&[u8]> = words.collect();
            let (subject, reply, bytes) = match words[..] {
                [subject, _, bytes] => (subject, &[][..], bytes),
                [subject, _, reply, bytes] => (subject, reply, bytes),
                _ => panic!("not a message: {}", String::from_utf8_lossy(line)),
            };
            let bytes = std::str::from_utf8(bytes).ok().and_then(|bytes| bytes.parse().ok());
            let bytes = bytes.expect("a message says how long it is");
            self.begun = Some(Header { subject: subject.to_vec(), reply: reply.to_vec(), bytes });
        }
        let bytes = self.begun.as_ref()?.bytes;
        let payload = self.lines.take(bytes + 2)?;
        Some((self.begun.take()?, &payload[..bytes]))
    }
}

// ---- Request and reply ------------------------------------------------------------------------------------

/// The responder: gives back what it gets.
pub fn answer(port: u16) {
    let mut link = Link::open(port);
    link.subscribe("ask");
    link.settle();
    link.stream.set_read_timeout(None).expect("a socket takes a timeout");
    ready(0);
    loop {
        link.read();
        while let Some((header, payload)) = link.next() {
            let payload = payload.to_vec();
            link.publish(&header.reply, b"", &payload);
        }
        link.flush();
    }
}

/// Request and reply, with the responder that it takes.
pub struct Asker {
    link: Link,
    payload: Vec<u8>,
    pids: Vec<u32>,
    _agent: Player,
}

impl Asker {
    pub fn start(broker: &Broker, size: usize) -> Self {
        let agent = Player::start(&["nats-agent", &broker.port.to_string()]);
        let mut link = Link::open(broker.port);
        link.subscribe("inbox.*");
        link.settle();
        let pids = vec![broker.child.id(), agent.pid()];
        Self { link, payload: vec![b'x'; size], pids, _agent: agent }
    }

    pub fn measure(&mut self, in_flight: usize, time: Duration) -> Figures {
        self.run(in_flight, time / 10);
        self.run(in_flight, time).end(used_here_ns() + used_ns(&self.pids))
    }

    fn run(&mut self, in_flight: usize, time: Duration) -> Seen {
        let Self { link, payload, pids, .. } = self;
        let inboxes: Vec<_> = (0..in_flight).map(|slot| format!("inbox.{slot:0DIGITS$}")).collect();
        let mut seen = Seen::begin(used_here_ns() + used_ns(pids));
        let mut since = vec![Instant::now(); in_flight];
        inboxes.iter().for_each(|inbox| link.publish(b"ask", inbox.as_bytes(), payload));
        link.flush();
        let mut open = in_flight;
        while open > 0 {
            link.read();
            let now = Instant::now();
            let go_on = seen.elapsed() < time;
            while let Some((header, answer)) = link.next() {
                assert_eq!(answer.len(), payload.len(), "it comes back as it was");
                let slot = header.subject.get("inbox.".len()..).and_then(digits);
                let slot = slot.expect("an inbox of ours");
                seen.add(now - since[slot]);
                if go_on {
                    since[slot] = now;
                    link.publish(b"ask", inboxes[slot].as_bytes(), payload);
                } else {
                    open -= 1;
                }
            }
            link.flush();
        }
        seen
    }
}

// ---- One way ----------------------------------------------------------------------------------------------

/// The subscriber: tells after every few how many it has had.
pub fn sink(port: u16) {
    let mut link = Link::open(port);
    link.subscribe("news");
    link.settle();
    link.stream.set_read_timeout(None).expect("a socket takes a timeout");
    ready(0);
    let mut had: u64 = 0;
    loop {
        link.read();
        while link.next().is_some() {
            had += 1;
            if had.is_multiple_of(STEP) {
                link.publish(b"had", b"", format!("{had:0DIGITS$}").as_bytes());
            }
        }
        link.flush();
    }
}

/// Publisher and subscriber, one of each.
pub struct Publisher {
    link: Link,
    payload: Vec<u8>,
    pids: Vec<u32>,
    sent: u64,
    had: u64,
    _sink: Player,
}

impl Publisher {
    pub fn start(broker: &Broker, size: usize) -> Self {
        let sink = Player::start(&["nats-sink", &broker.port.to_string()]);
        let mut link = Link::open(broker.port);
        link.subscribe("had");
        link.settle();
        let pids = vec![broker.child.id(), sink.pid()];
        Self { link, payload: vec![b'x'; size], pids, sent: 0, had: 0, _sink: sink }
    }

    /// Messages a second until the subscriber has them all; there is no latency to tell.
    pub fn measure(&mut self, time: Duration) -> Figures {
        self.run(time / 10);
        let (began, cpu, before) = (Instant::now(), used_here_ns() + used_ns(&self.pids), self.sent);
        self.run(time);
        let count = (self.sent - before) as f64;
        let cpu = (used_here_ns() + used_ns(&self.pids)).saturating_sub(cpu);
        Figures::rate_only(count, began.elapsed(), cpu)
    }

    fn run(&mut self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            for _ in 0..STEP / 50 {
                for _ in 0..50 {
                    self.link.publish(b"news", b"", &self.payload);
                }
                self.link.flush();
            }
            self.sent += STEP;
            self.catch_up(AHEAD);
        }
        self.catch_up(0);
    }

    /// Waits until the subscriber lags no further.
    fn catch_up(&mut self, ahead: u64) {
        while self.sent - self.had > ahead {
            self.link.read();
            while let Some((_, payload)) = self.link.next() {
                self.had = digits(payload).expect("a count") as u64;
            }
        }
    }
}
