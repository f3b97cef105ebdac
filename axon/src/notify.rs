//! What the service manager is told: that the daemon serves, how it is, and that its loop still turns.
//!
//! Source: sd_notify(3). Whoever starts the daemon names a datagram socket in `NOTIFY_SOCKET`; without it
//! nothing here does anything. A word is never waited for: a manager that does not read holds nobody up, and
//! is told again later. The variables stay in the environment, because the daemon starts a new image of
//! itself in the same process (`image`).

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use axon_proto::node::Glance;
use rustix::time::{ClockId, clock_gettime};

/// The status is looked at this often at most.
const LOOK: Duration = Duration::from_secs(1);
/// What could not be told is told again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// Most of a status, in bytes.
const STATUS_BYTES_MAX: usize = 200;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notify(Option<Box<Manager>>);

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    addr: SocketAddr,
    /// How often it wants to hear that the loop turns: half of the time after which it ends the daemon.
    feed_every: Option<Duration>,
    fed: Instant,
    phase: Phase,
    /// Reloads that have begun and not ended.
    reloads: u32,
    /// What it was last told of.
    told: Option<Glance>,
    looked: Instant,
    /// When to look at the status without being asked.
    look_at: Option<Instant>,
    /// When to tell it again what did not reach it.
    again_at: Option<Instant>,
    /// Whether the log has heard that it cannot be reached.
    complained: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Stopping,
}

impl Notify {
    /// The one that the environment names.
    pub fn of_env() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self(None);
        };
        let manager = address(&name).and_then(|addr| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok((socket, addr))
        });
        match manager {
            Ok((socket, addr)) => {
                let feed_every = feed_every(|name| env::var_os(name), std::process::id());
                Self(Some(Box::new(Manager::new(socket, addr, feed_every))))
            }
            Err(error) => {
                tracing::warn!(
                    "NOTIFY_SOCKET cannot be used, so that nobody is told of this daemon: {error}"
                );
                Self(None)
            }
        }
    }

    /// When [`Notify::turned`] wants to be called, though nothing else happens.
    pub fn due(&self) -> Option<Instant> {
        let manager = self.0.as_deref()?;
        let feed = manager.feed_every.map(|every| manager.fed + every);
        [feed, manager.look_at, manager.again_at].into_iter().flatten().min()
    }

    /// The daemon serves, for the first time or again.
    pub fn ready(&mut self, glance: Glance) {
        if let Some(manager) = &mut self.0 {
            manager.phase = Phase::Serving;
            manager.say(Instant::now(), Some(glance));
        }
    }

    /// The loop has turned; whether that was for something that may show at a glance. What shows without it
    /// is seen at a later turn.
    pub fn turned(&mut self, stirred: bool, glance: impl FnOnce() -> Glance) {
        if let Some(manager) = &mut self.0 {
            manager.turned(Instant::now(), stirred, glance);
        }
    }

    /// The settings are being read again.
    pub fn reloading(&mut self) {
        if let Some(manager) = &mut self.0 {
            manager.reloads = manager.reloads.saturating_add(1);
            manager.say(Instant::now(), None);
        }
    }

    /// They were read, or refused.
    pub fn reloaded(&mut self) {
        if let Some(manager) = &mut self.0 {
            manager.reloads = manager.reloads.saturating_sub(1);
            manager.say(Instant::now(), None);
        }
    }

    /// The daemon ends.
    pub fn stopping(&mut self) {
        if let Some(manager) = &mut self.0
            && manager.phase != Phase::Stopping
        {
            manager.phase = Phase::Stopping;
            manager.say(Instant::now(), None);
        }
    }

    /// The daemon could not start, or go on.
    pub fn failed(&self, why: &str) {
        if let Some(manager) = &self.0 {
            // What is told ends with the line. That it failed is told by the exit code as well.
            manager.send(&format!("STATUS={}\n", one_line(why))).ok();
        }
    }
}

impl Manager {
    fn new(socket: UnixDatagram, addr: SocketAddr, feed_every: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            socket,
            addr,
            feed_every,
            fed: now,
            phase: Phase::Starting,
            reloads: 0,
            told: None,
            looked: now,
            look_at: None,
            again_at: None,
            complained: false,
        }
    }

    fn turned(&mut self, now: Instant, stirred: bool, glance: impl FnOnce() -> Glance) {
        let mut news = None;
        if now.saturating_duration_since(self.looked) >= LOOK {
            (self.looked, self.look_at) = (now, None);
            news = Some(glance()).filter(|news| self.told.as_ref() != Some(news));
        } else if stirred {
            // Something may have changed just after the last look.
            self.look_at = Some(self.looked + LOOK);
        }
        let hungry = self.feed_every.is_some_and(|every| now.saturating_duration_since(self.fed) >= every);
        let again = self.again_at.is_some_and(|at| at <= now);
        if again {
            self.say(now, news);
        } else if hungry || news.is_some() {
            let text = self.status_and_food(news);
            self.deliver(now, &text, news);
        }
    }

    /// Tells in which phase the daemon is, and what there is besides.
    fn say(&mut self, now: Instant, news: Option<Glance>) {
        let mut text = match self.phase {
            Phase::Starting => String::new(),
            Phase::Stopping => "STOPPING=1\n".to_owned(),
            Phase::Serving if self.reloads > 0 => {
                format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_usec())
            }
            Phase::Serving => "READY=1\n".to_owned(),
        };
        text.push_str(&self.status_and_food(news));
        self.deliver(now, &text, news);
    }

    fn status_and_food(&self, news: Option<Glance>) -> String {
        let mut text = String::new();
        match (self.phase, news) {
            (Phase::Stopping, _) => text.push_str("STATUS=Finishing what is in flight\n"),
            // Writing to a string cannot fail.
            (_, Some(news)) => writeln!(text, "STATUS={}", status(news)).unwrap_or_default(),
            (_, None) => {}
        }
        if self.feed_every.is_some() {
            text.push_str("WATCHDOG=1\n");
        }
        text
    }

    fn deliver(&mut self, now: Instant, text: &str, news: Option<Glance>) {
        match self.send(text) {
            Ok(()) => {
                (self.fed, self.again_at) = (now, None);
                self.told = news.or(self.told);
            }
            Err(error) => {
                if !self.complained {
                    self.complained = true;
                    tracing::warn!("the service manager cannot be told how this daemon is: {error}");
                }
                let again = self.feed_every.map_or(AGAIN, |every| every.min(AGAIN));
                (self.fed, self.again_at, self.told) = (now, Some(now + again), None);
            }
        }
    }

    fn send(&self, text: &str) -> io::Result<()> {
        self.socket.send_to_addr(text.as_bytes(), &self.addr).map(drop)
    }
}

/// Where a manager listens: a path, or with `@` a name that is no file.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name)
        }
        _ => {
            let text = "it is neither an absolute path nor a name that begins with @";
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

/// How often the watchdog is fed, if there is one and it is this process that it watches.
fn feed_every(var: impl Fn(&str) -> Option<OsString>, pid: u32) -> Option<Duration> {
    let number = |name: &str| var(name)?.to_str()?.parse::<u64>().ok();
    if var("WATCHDOG_PID").is_some() && number("WATCHDOG_PID") != Some(u64::from(pid)) {
        return None;
    }
    // A millisecond is the least that the loop can wait.
    let half = Duration::from_micros(number("WATCHDOG_USEC").filter(|usec| *usec > 0)? / 2);
    Some(half.max(Duration::from_millis(1)))
}

/// The daemon in a few words.
fn status(glance: Glance) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let paused = if glance.paused { ", paused" } else { "" };
    format!("{} connected, {}{paused}", count(glance.peers, "peer"), count(glance.clients, "client"))
}

/// A text on one line, no longer than a status may be.
fn one_line(text: &str) -> String {
    let mut line = text.replace(char::is_control, " ");
    let end = (0..=STATUS_BYTES_MAX).rev().find(|end| line.is_char_boundary(*end));
    line.truncate(end.unwrap_or_default().min(line.len()));
    line
}

/// Now on the clock by which a service manager orders reloads.
fn monotonic_usec() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let secs = u64::try_from(now.tv_sec).unwrap_or_default();
    secs.saturating_mul(1_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glance(peers: usize, clients: usize) -> Glance {
        Glance { peers, clients, paused: false }
    }

    /// A manager that listens in a directory of its own, and our end.
    fn manager(feed_every: Option<Duration>) -> (tempfile::TempDir, UnixDatagram, Manager) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let theirs = UnixDatagram::bind(&path).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let ours = UnixDatagram::unbound().unwrap();
        ours.set_nonblocking(true).unwrap();
        let manager = Manager::new(ours, address(path.as_os_str()).unwrap(), feed_every);
        (dir, theirs, manager)
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 512];
        std::iter::from_fn(|| {
            let length = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
        })
        .collect()
    }

    #[test]
    fn a_status_is_told_when_it_has_changed_and_once_a_second_at_most() {
        let (_dir, socket, mut manager) = manager(None);
        let start = manager.looked;
        manager.phase = Phase::Serving;
        manager.say(start, Some(glance(0, 0)));
        assert_eq!(heard(&socket), ["READY=1\nSTATUS=0 peers connected, 0 clients\n"]);
        let at = |ms| start + Duration::from_millis(ms);
        for ms in 1..1_000 {
            manager.turned(at(ms), true, || glance(usize::try_from(ms).unwrap(), 1));
        }
        assert_eq!(heard(&socket), Vec::<String>::new());
        assert_eq!(Notify(None).due(), None);
        assert_eq!(manager.look_at, Some(at(1_000)), "what changed meanwhile is told without another turn");
        manager.turned(at(1_000), true, || glance(1, 1));
        assert_eq!(heard(&socket), ["STATUS=1 peer connected, 1 client\n"]);
        assert_eq!(manager.look_at, None);
        manager.turned(at(9_000), true, || glance(1, 1));
        assert_eq!(heard(&socket), Vec::<String>::new(), "nothing new");
        manager.turned(at(9_100), false, || glance(1, 1));
        assert_eq!(Notify(Some(Box::new(manager))).due(), None, "an idle daemon is not woken");
    }

    #[test]
    fn a_watchdog_is_fed_at_half_of_its_time() {
        let (_dir, socket, mut manager) = manager(Some(Duration::from_secs(30)));
        let start = manager.fed;
        manager.phase = Phase::Serving;
        manager.say(start, Some(glance(0, 0)));
        assert!(heard(&socket)[0].ends_with("WATCHDOG=1\n"));
        manager.turned(start + Duration::from_secs(29), true, || glance(0, 0));
        assert_eq!(heard(&socket), Vec::<String>::new());
        manager.turned(start + Duration::from_secs(30), true, || glance(0, 0));
        assert_eq!(heard(&socket), ["WATCHDOG=1\n"]);
        assert_eq!(Notify(Some(Box::new(manager))).due(), Some(start + Duration::from_secs(60)));
    }

    #[test]
    fn what_did_not_get_through_is_told_again() {
        let (dir, socket, mut manager) = manager(None);
        drop(socket);
        let path = dir.path().join("notify");
        std::fs::remove_file(&path).unwrap();
        let start = manager.looked;
        manager.phase = Phase::Serving;
        manager.say(start, Some(glance(0, 0)));
        assert_eq!(manager.again_at, Some(start + AGAIN));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        manager.turned(start + AGAIN, true, || glance(0, 0));
        assert_eq!(heard(&socket), ["READY=1\nSTATUS=0 peers connected, 0 clients\n"]);
        assert_eq!(manager.again_at, None);
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_fed() {
        let of = |pid: Option<&str>, usec: Option<&str>| {
            let var = |name: &str| if name == "WATCHDOG_PID" { pid } else { usec };
            feed_every(|name| var(name).map(OsString::from), 7)
        };
        assert_eq!(of(Some("7"), Some("3000000")), Some(Duration::from_millis(1_500)));
        assert_eq!(of(None, Some("3000000")), Some(Duration::from_millis(1_500)));
        assert_eq!(of(Some("7"), Some("1")), Some(Duration::from_millis(1)));
        for (pid, usec) in [(Some("8"), Some("1000")), (Some(""), Some("1000")), (Some("7"), None)] {
            assert_eq!(of(pid, usec), None);
        }
        for usec in ["0", "-1", "x", ""] {
            assert_eq!(of(None, Some(usec)), None, "{usec}");
        }
    }

    #[test]
    fn names_of_managers_and_what_they_are_told() {
        assert!(address(OsStr::new("/run/x")).is_ok() && address(OsStr::new("run/x")).is_err());
        assert_eq!(address(OsStr::new("@x")).is_ok(), cfg!(target_os = "linux"));
        assert!(address(OsStr::new("vsock:2:1")).is_err());
        assert_eq!(one_line("a\nb\r\nc"), "a b  c");
        assert!(one_line(&"é".repeat(500)).len() <= STATUS_BYTES_MAX);
        assert_eq!(
            status(Glance { peers: 3, clients: 2, paused: true }),
            "3 peers connected, 2 clients, paused"
        );
    }
}
