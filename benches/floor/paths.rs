//! The paths that are measured: who takes part in each, and how it is asked.

use std::path::PathBuf;
use std::time::Duration;

use super::figures::{Figures, used};
use super::nats::{Asker, Broker, Publisher};
use super::procs::{Player, guard_folder, used_ns};
use super::slots::Slots;
use super::{plain, quic};

/// The floors, in the order of their rows.
pub const FLOORS: &[(&str, &str)] = &[
    ("uds-std", "a line and its echo over a Unix socket, threads"),
    ("uds-tokio", "the same, tokio"),
    ("quinn-bi", "a message and its echo on a QUIC stream of their own, mutual TLS 1.3"),
    ("quinn-onestream", "the same over one long stream"),
    ("uds-bridge-quinn", "Unix socket in, a stream for each message, echo, back"),
    ("own-path", "client, socket, bridge, stream for each message, bridge, socket, agent, and back"),
    ("own-path-pipe", "the same over one long pair of streams, many messages to a packet"),
    ("nats-rr", "request and reply through nats-server: client, broker, responder"),
    ("nats-pubsub", "one publisher, nats-server, one subscriber, at most 20,000 on their way"),
];

/// A folder for sockets and keys, gone with this.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        // Short, for the path of a Unix socket.
        let folder = tempfile::Builder::new().prefix("axf").tempdir().expect("a temporary folder");
        guard_folder(folder.path());
        quic::make_keys(folder.path());
        Self(folder)
    }

    fn socket(&self, name: &str) -> (PathBuf, String) {
        let path = self.0.path().join(name);
        let text = path.to_str().expect("a temporary folder has a plain name").to_owned();
        (path, text)
    }

    fn keys(&self) -> &str {
        self.0.path().to_str().expect("a temporary folder has a plain name")
    }
}

/// Everybody who takes part in one floor.
pub struct Floor {
    asked: Asked,
    players: Vec<Player>,
    /// How many of them, from the first on, are what daemons would be.
    bridges: usize,
    size: usize,
}

enum Asked {
    Threads(PathBuf),
    Tokio(PathBuf),
    Streams(u16, String),
    OneStream(u16, String),
    Slots(Box<Slots>),
    Asker(Box<Asker>),
    Publisher(Box<Publisher>),
}

impl Floor {
    /// Starts one; none where the broker for it is absent.
    pub fn start(name: &str, folder: &Folder, broker: Option<&Broker>, size: usize) -> Option<Self> {
        let keys = folder.keys();
        let (near, near_text) = folder.socket(&format!("{name}.n"));
        let (_, far_text) = folder.socket(&format!("{name}.f"));
        let echo = || Player::start(&["quinn", keys]);
        let (players, bridges, asked) = match name {
            "uds-std" => (vec![Player::start(&["uds-std", &near_text])], 0, Asked::Threads(near)),
            "uds-tokio" => (vec![Player::start(&["uds-tokio", &near_text])], 0, Asked::Tokio(near)),
            "quinn-bi" | "quinn-onestream" => {
                let echo = echo();
                let to = (echo.port, keys.to_owned());
                let asked = match name {
                    "quinn-bi" => Asked::Streams(to.0, to.1),
                    _ => Asked::OneStream(to.0, to.1),
                };
                (vec![echo], 0, asked)
            }
            "uds-bridge-quinn" => {
                let echo = echo();
                let bridge = Player::start(&["bridge", &near_text, &echo.port.to_string(), keys]);
                (vec![echo, bridge], 0, Asked::Slots(Box::new(Slots::echoed(&near, size))))
            }
            "own-path" | "own-path-pipe" => {
                let (one, two) = match name {
                    "own-path" => ("bridge", "bridge-far"),
                    _ => ("pipe", "pipe-far"),
                };
                let far = Player::start(&[two, &far_text, keys]);
                let agent = Player::start(&["agent", &far_text]);
                let near_by = Player::start(&[one, &near_text, &far.port.to_string(), keys]);
                let asked = Asked::Slots(Box::new(Slots::echoed(&near, size)));
                (vec![near_by, far, agent], 2, asked)
            }
            "nats-rr" => (vec![], 0, Asked::Asker(Box::new(Asker::start(broker?, size)))),
            _ => (vec![], 0, Asked::Publisher(Box::new(Publisher::start(broker?, size)))),
        };
        Some(Self { asked, players, bridges, size })
    }

    /// Whether it is measured with so many in flight.
    pub fn takes(&self, in_flight: usize) -> bool {
        in_flight > 1 || !matches!(self.asked, Asked::Publisher(_))
    }

    pub fn measure(&mut self, in_flight: usize, time: Duration) -> Figures {
        let pids: Vec<u32> = self.players.iter().map(Player::pid).collect();
        let size = self.size;
        let figures = match &mut self.asked {
            Asked::Threads(socket) => plain::ask_std(socket, size, in_flight, time, &pids),
            Asked::Tokio(socket) => plain::ask_tokio(socket, size, in_flight, time, &pids),
            Asked::Streams(port, keys) => quic::ask_bi(*port, keys, size, in_flight, time, &pids),
            Asked::OneStream(port, keys) => quic::ask_one_stream(*port, keys, size, in_flight, time, &pids),
            Asked::Slots(slots) => {
                slots.warm(in_flight, time / 10);
                between(&pids[..self.bridges], || slots.measure(in_flight, time, &pids))
            }
            Asked::Asker(asker) => asker.measure(in_flight, time),
            Asked::Publisher(publisher) => publisher.measure(time),
        };
        self.players.iter_mut().for_each(Player::still_plays);
        figures
    }
}

/// Measures, and adds what those in between (bridges, daemons) have used for each message.
pub fn between(pids: &[u32], measure: impl FnOnce() -> Figures) -> Figures {
    let before = used_ns(pids);
    let mut figures = measure();
    figures.between = used(used_ns(pids).saturating_sub(before), figures.count);
    figures
}
