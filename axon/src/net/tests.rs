//! Two or more endpoints on loopback.

#![allow(clippy::print_stderr, reason = "a skipped test says so by name")]

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicBool;

use axon_proto::node::{DialId, Pins, Side};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout};

use super::*;

mod herald;
mod pipe;
mod strangers;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// No test waits longer for an event that must come.
const PATIENCE: Duration = Duration::from_secs(10);
const HELLO: &str = "{\"kind\":\"hello\"}";

fn config(port: u16) -> NetConfig {
    NetConfig {
        bind: Some(LOCALHOST),
        port,
        keepalive: Duration::from_secs(15),
        idle_timeout: Duration::from_secs(60),
        handshake_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        pipe: true,
    }
}

/// A machine on which nobody looks up names.
fn machine() -> ThisMachine {
    ThisMachine { names: Names::by("/nowhere".into()) }
}

fn by_id(keys: &[PublicKey]) -> HashMap<AgentId, PublicKey> {
    keys.iter().map(|key| (key.agent_id(), *key)).collect()
}

struct Peer {
    net: Net,
    events: Receiver<NetEvent>,
    id: AgentId,
    last: u64,
    /// Of those that came together, the ones that have not been absorbed.
    more: VecDeque<NetEvent>,
}

impl Peer {
    fn start(seed: u8) -> Self {
        Self::with(seed, &config(0))
    }

    fn with(seed: u8, config: &NetConfig) -> Self {
        Self::grown(seed, &[], config)
    }

    /// One that has had other identities.
    fn grown(seed: u8, old: &[[u8; 32]], config: &NetConfig) -> Self {
        let (sender, events) = mpsc::channel(256);
        Self::of(Net::on(&machine(), config, &[seed; 32], old, sender).unwrap(), events)
    }

    fn of(net: Net, events: Receiver<NetEvent>) -> Self {
        Self { id: net.public_key().agent_id(), net, events, last: 0, more: VecDeque::new() }
    }

    fn pin(&mut self, keys: &[PublicKey]) {
        self.pins(Pins { keys: by_id(keys), ..Pins::default() });
    }

    fn pins(&mut self, pins: Pins) {
        self.net.carry_out(Effect::Pins(Arc::new(pins)));
    }

    fn addr(&self) -> String {
        self.net.local_addr().to_string()
    }

    fn token(&mut self) -> Token {
        self.last += 1;
        Token(self.last)
    }

    fn dial(&mut self, peer: AgentId, addrs: &[&str], timeout_ms: u64) -> Token {
        let token = self.token();
        let addrs = addrs.iter().map(|addr| (*addr).to_owned()).collect();
        let dial = DialId(token.0);
        self.net.carry_out(Effect::Dial { dial, peer, addrs, hello: HELLO.into(), token, timeout_ms });
        token
    }

    fn request(&mut self, conn: ConnId, text: &str) -> Token {
        let token = self.token();
        self.net.carry_out(Effect::Request { conn, token, bytes: text.into() });
        token
    }

    fn respond(&mut self, stream: StreamId, text: &str) {
        self.net.carry_out(Effect::Respond { stream, bytes: text.into() });
    }

    async fn next(&mut self) -> Input {
        loop {
            if self.more.is_empty() {
                let events = timeout(PATIENCE, self.events.recv()).await.expect("an event in time").unwrap();
                self.more.extend(events.each());
            }
            let Some(event) = self.more.pop_front() else { continue };
            if let Some(input) = self.net.absorb(event) {
                return input;
            }
        }
    }

    /// The first input that `pick` takes; others are passed over.
    async fn until<T>(&mut self, mut pick: impl FnMut(Input) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.next().await) {
                return picked;
            }
        }
    }

    /// Whether nothing has been reported.
    fn is_quiet(&mut self) -> bool {
        self.more.is_empty() && self.events.try_recv().is_err()
    }

    async fn connected(&mut self) -> (ConnId, bool, SocketAddr) {
        self.until(|input| match input {
            Input::Connected { conn, early, addr, .. } => Some((conn, early, addr)),
            _ => None,
        })
        .await
    }

    async fn requested(&mut self) -> (StreamId, String) {
        self.until(|input| match input {
            Input::Request { stream, bytes, .. } => Some((stream, String::from_utf8(bytes).unwrap())),
            _ => None,
        })
        .await
    }

    async fn replied(&mut self, wanted: Token) -> Result<String, Lost> {
        self.until(|input| match input {
            Input::Replied { token, outcome } if token == wanted => {
                Some(outcome.map(|bytes| String::from_utf8(bytes).unwrap()))
            }
            _ => None,
        })
        .await
    }

    async fn refused(&mut self) -> AgentId {
        self.until(|input| match input {
            Input::HandshakeRefused { id } => Some(id),
            _ => None,
        })
        .await
    }

    async fn bound(&mut self) -> (ConnId, [u8; 32]) {
        self.until(|input| match input {
            Input::Connected { conn, binding, .. } => Some((conn, binding)),
            _ => None,
        })
        .await
    }

    async fn dial_failed(&mut self) -> String {
        self.until(|input| match input {
            Input::DialFailed { why, .. } => Some(why),
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self) -> String {
        self.until(|input| match input {
            Input::Disconnected { why, .. } => Some(why),
            _ => None,
        })
        .await
    }
}

fn two() -> (Peer, Peer) {
    let (mut a, mut b) = (Peer::start(1), Peer::start(2));
    a.pin(&[b.net.public_key()]);
    b.pin(&[a.net.public_key()]);
    (a, b)
}

/// Dials, answers the hello, and yields both names of the connection.
async fn meet(a: &mut Peer, b: &mut Peer, addr: &str) -> (ConnId, ConnId) {
    let hello = a.dial(b.id, &[addr], 5_000);
    let (at_a, _, _) = a.connected().await;
    let (at_b, _, _) = b.connected().await;
    let (stream, text) = b.requested().await;
    assert_eq!(text, HELLO);
    b.respond(stream, "welcome");
    assert_eq!(a.replied(hello).await, Ok("welcome".into()));
    (at_a, at_b)
}

async fn pair() -> (Peer, Peer, ConnId, ConnId) {
    let (mut a, mut b) = two();
    let addr = b.addr();
    let (at_a, at_b) = meet(&mut a, &mut b, &addr).await;
    (a, b, at_a, at_b)
}

/// Passes packets on between whoever writes to it and one other address, as long as it is let.
struct Relay {
    addr: String,
    forth: Arc<AtomicBool>,
    back: Arc<AtomicBool>,
    seen: tokio::sync::watch::Receiver<usize>,
}

impl Relay {
    async fn to(target: SocketAddr) -> Self {
        let front = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
        let behind = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
        let (forth, back) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        let (count, seen) = tokio::sync::watch::channel(0);
        let addr = front.local_addr().unwrap().to_string();
        let relay = Self { addr, forth: Arc::clone(&forth), back: Arc::clone(&back), seen };
        tokio::spawn(async move {
            let (mut out, mut into) = ([0; 2048], [0; 2048]);
            let mut client = None;
            loop {
                tokio::select! {
                    Ok((size, from)) = front.recv_from(&mut out) => {
                        client = Some(from);
                        count.send_modify(|count| *count += 1);
                        if forth.load(Ordering::Relaxed) {
                            let _ = behind.send_to(&out[..size], target).await;
                        }
                    }
                    Ok((size, _)) = behind.recv_from(&mut into) => {
                        if let (Some(client), true) = (client, back.load(Ordering::Relaxed)) {
                            let _ = front.send_to(&into[..size], client).await;
                        }
                    }
                }
            }
        });
        relay
    }

    fn open(&self, open: bool) {
        self.forth.store(open, Ordering::Relaxed);
        self.back.store(open, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn messages_go_both_ways_and_requests_are_answered_in_any_order() {
    let (mut a, mut b, at_a, at_b) = pair().await;
    let tokens: Vec<_> = (0..64).map(|n| a.request(at_a, &format!("question {n}"))).collect();
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(b.requested().await);
    }
    for (stream, text) in open.iter().rev() {
        b.respond(*stream, &text.replace("question", "answer"));
    }
    let mut left: HashMap<_, _> = tokens.iter().enumerate().map(|(n, token)| (*token, n)).collect();
    while !left.is_empty() {
        if let Input::Replied { token, outcome } = a.next().await {
            let n = left.remove(&token).unwrap();
            assert_eq!(outcome.unwrap(), format!("answer {n}").into_bytes());
        }
    }

    let token = b.token();
    b.net.carry_out(Effect::OneWay { conn: at_b, token, bytes: "news".into() });
    let Input::OneWay { conn, bytes } = a.next().await else { panic!("a one-way message") };
    assert_eq!((conn, bytes), (at_a, b"news".to_vec()));
    let Input::Sent { token: sent, outcome } = b.next().await else { panic!("an end") };
    assert_eq!((sent, outcome), (token, Ok(())));
    assert!(a.net.path(at_a).unwrap().rtt_us < 1_000_000);
}

#[tokio::test]
async fn a_request_that_is_given_up_is_told_to_its_answerer_and_to_nobody_else() {
    let (mut a, mut b, at_a, at_b) = pair().await;
    let token = a.request(at_a, "never mind");
    let (stream, _) = b.requested().await;
    a.net.carry_out(Effect::Abandon { token });
    let Input::RequestGone { stream: gone } = b.next().await else { panic!("gone") };
    assert_eq!(gone, stream);
    b.respond(stream, "too late");

    // A reset without an answer.
    let token = a.request(at_a, "again");
    let (stream, _) = b.requested().await;
    b.net.carry_out(Effect::Reset { stream });
    assert!(matches!(a.next().await, Input::Replied { token: t, outcome: Err(Lost::Reset) } if t == token));

    // An answer given before a close arrives before it.
    let token = a.request(at_a, "last");
    let (stream, _) = b.requested().await;
    b.respond(stream, "bye");
    b.net.carry_out(Effect::Close { conn: at_b, code: 2, reason: "duplicate" });
    assert_eq!(a.replied(token).await, Ok("bye".into()));
    assert_eq!(a.disconnected().await, "the peer keeps another connection with us (duplicate)");
    assert_eq!(b.disconnected().await, "this daemon closed the connection");

    // What is sent on a connection that is gone ends at once.
    let token = a.request(at_a, "anyone?");
    assert!(matches!(a.replied(token).await, Err(Lost::Connection(_))));
}

#[tokio::test]
async fn a_message_that_is_too_long_or_stalls_ends_alone() {
    let (mut a, mut b) = (Peer::start(1), {
        let quick = NetConfig { read_timeout: Duration::from_millis(300), ..config(0) };
        Peer::with(2, &quick)
    });
    a.pin(&[b.net.public_key()]);
    b.pin(&[a.net.public_key()]);
    let addr = b.addr();
    let (at_a, _) = meet(&mut a, &mut b, &addr).await;

    let held = a.request(at_a, "a small one");
    let (stream, _) = b.requested().await;
    let long = a.request(at_a, &"x".repeat(300_000));
    let Input::BadStream { why, .. } = b.next().await else { panic!("a bad stream") };
    assert_eq!(why, "the message is too long");
    assert_eq!(a.replied(long).await, Err(Lost::Reset));
    let exact = a.request(at_a, &"x".repeat(65_536));
    let (largest, text) = b.requested().await;
    assert_eq!(text.len(), 65_536);

    let connection = a.net.conns[&at_a].connection.clone();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(b"{\"half\":").await.unwrap();
    let Input::BadStream { why, .. } = b.next().await else { panic!("a bad stream") };
    assert_eq!(why, "the message did not end in time");
    assert!(send.stopped().await.unwrap().is_some());
    // A stream that its own opener takes back is nobody's fault.
    let mut send = connection.open_uni().await.unwrap();
    send.reset(VarInt::from_u32(0)).unwrap();

    b.respond(stream, "still here");
    b.respond(largest, &"y".repeat(70_000));
    assert_eq!(a.replied(held).await, Ok("still here".into()));
    assert_eq!(a.replied(exact).await, Err(Lost::TooLarge));
    assert!(b.is_quiet());
}

#[tokio::test]
async fn only_pinned_keys_connect_and_both_sides_say_why() {
    let (mut a, mut b) = two();
    let stranger = Peer::start(3);
    let addr = b.addr();

    // The dialler has another key for that id; it never comes to a connection.
    let keys = HashMap::from([(b.id, stranger.net.public_key())]);
    a.pins(Pins { keys, ..Pins::default() });
    a.dial(b.id, &[&addr], 5_000);
    assert!(a.dial_failed().await.contains("another key answers there"));

    // Another agent lives there than the one that is meant.
    a.pin(&[b.net.public_key(), stranger.net.public_key()]);
    a.dial(stranger.id, &[&addr], 5_000);
    let why = a.dial_failed().await;
    assert!(why.contains(&addr) && why.contains("another agent answers there"), "{why}");

    // The acceptor does not know us: the handshake is over for us before it says so.
    b.pin(&[stranger.net.public_key()]);
    let hello = a.dial(b.id, &[&addr], 5_000);
    let refused = Err(Lost::Connection(
        "the peer refused our key: pair with `axon invite` there and `axon connect` here".into(),
    ));
    assert_eq!(a.replied(hello).await, refused);
    assert_eq!(b.refused().await, a.id);
    assert!(b.is_quiet());
}

#[tokio::test]
async fn a_second_connection_carries_hello_in_0rtt_and_is_checked_against_the_pins_of_now() {
    let (mut a, mut b, at_a, _) = pair().await;
    let addr = b.addr();
    let (a_key, b_key) = (a.net.public_key(), b.net.public_key());
    a.net.carry_out(Effect::Close { conn: at_a, code: 0, reason: "done" });
    a.disconnected().await;
    assert_eq!(b.disconnected().await, "the peer closed the connection (done)");

    let hello = a.dial(b.id, &[&addr], 5_000);
    let Input::EarlyHello { stream, peer, bytes } = b.next().await else { panic!("an early hello") };
    assert_eq!((peer, bytes), (a.id, HELLO.as_bytes().to_vec()));
    b.respond(stream, "early welcome");
    let Input::Connected { early, side, peer, key, dial, .. } = b.next().await else { panic!("connected") };
    assert_eq!((early, side, peer, key, dial), (true, Side::Acceptor, a.id, a_key, None));
    let (again, text) = b.requested().await;
    assert_eq!((again, text.as_str()), (stream, HELLO));
    b.respond(stream, "passed over");
    let Input::Connected { conn, early, side, dial, .. } = a.next().await else { panic!("connected") };
    assert_eq!((early, side, dial), (true, Side::Dialer, Some(DialId(hello.0))));
    assert_eq!(a.replied(hello).await, Ok("early welcome".into()));

    // Unpinned at the acceptor while the dialler still holds a ticket.
    a.net.carry_out(Effect::Close { conn, code: 0, reason: "done" });
    a.disconnected().await;
    b.disconnected().await;
    b.pin(&[]);
    let hello = a.dial(b.id, &[&addr], 5_000);
    assert!(matches!(a.replied(hello).await, Err(Lost::Connection(_))));
    assert_eq!(b.refused().await, a.id);
    assert!(b.is_quiet());

    // Unpinned at the dialler: no ticket is left, and the certificate is refused.
    b.pin(&[a_key]);
    let addr = b.addr();
    let (conn, _) = meet(&mut a, &mut b, &addr).await;
    a.net.carry_out(Effect::Close { conn, code: 0, reason: "done" });
    a.disconnected().await;
    b.disconnected().await;
    a.pin(&[]);
    a.pin(&[b_key]);
    a.dial(b.id, &[&addr], 5_000);
    assert!(!a.connected().await.1);
}

// shows: WF-0RTT-4
#[tokio::test]
async fn a_hello_whose_early_data_is_refused_is_sent_again() {
    let (mut a, mut b, at_a, _) = pair().await;
    a.net.carry_out(Effect::Close { conn: at_a, code: 0, reason: "done" });
    a.disconnected().await;
    b.disconnected().await;
    // The new endpoint knows nothing of the ticket.
    let mut new = Peer::start(2);
    new.pin(&[a.net.public_key()]);
    let addr = new.addr();
    let hello = a.dial(new.id, &[&addr], 5_000);
    assert!(!a.connected().await.1);
    assert!(!new.connected().await.1);
    let (stream, text) = new.requested().await;
    assert_eq!(text, HELLO);
    new.respond(stream, "welcome");
    assert_eq!(a.replied(hello).await, Ok("welcome".into()));
}

#[tokio::test]
async fn an_early_hello_of_many_packets_is_read_whole() {
    let (mut a, mut b, at_a, _) = pair().await;
    a.net.carry_out(Effect::Close { conn: at_a, code: 0, reason: "done" });
    a.disconnected().await;
    b.disconnected().await;
    // More than may be sent before the first acknowledgement, so the rest comes after the handshake.
    let (token, long) = (a.token(), "x".repeat(60_000));
    let (addrs, hello) = (vec![b.addr()], Arc::from(long.as_str()));
    let dial = DialId(token.0);
    a.net.carry_out(Effect::Dial { dial, peer: b.id, addrs, hello, token, timeout_ms: 5_000 });
    assert!(a.connected().await.1);
    assert!(!b.connected().await.1);
    let (stream, text) = b.requested().await;
    assert_eq!(text, long);
    b.respond(stream, "welcome");
    assert_eq!(a.replied(token).await, Ok("welcome".into()));
}

#[tokio::test]
async fn a_dial_tries_all_addresses_looks_names_up_and_says_what_failed() {
    let (mut a, mut b) = two();
    let deaf = std::net::UdpSocket::bind((LOCALHOST, 0)).unwrap();
    let deaf = deaf.local_addr().unwrap().to_string();

    a.dial(b.id, &[&deaf], 300);
    assert_eq!(a.dial_failed().await, format!("no answer from {deaf} within 0.3 s"));
    a.dial(b.id, &["nonsense", "[::1]:7100"], 5_000);
    let why = a.dial_failed().await;
    assert!(why.contains("nonsense is no address: write host:port"), "{why}");
    assert!(why.contains("[::1]:7100: this daemon listens on no address of that kind"), "{why}");
    a.dial(b.id, &[], 5_000);
    assert_eq!(a.dial_failed().await, "no address is known");

    let (_dir, names) = crate::names::tests::by_script("echo 127.0.0.1:${1##*:}");
    a.net.shared.names = names;
    let named = format!("localhost:{}", b.net.local_addr().port());
    a.dial(b.id, &[&deaf, &named], 5_000);
    let (_, _, addr) = a.connected().await;
    assert_eq!(addr, b.net.local_addr());
    b.connected().await;
}

#[tokio::test]
async fn no_name_of_a_peer_is_looked_up_while_an_address_answers() {
    let (mut a, mut b) = two();
    let (dir, names) = crate::names::tests::by_script("echo \"$1\" >>\"$0.asked\"; echo 127.0.0.1:${1##*:}");
    a.net.shared.names = names;
    let (named, addr) = (format!("localhost:{}", b.net.local_addr().port()), b.addr());
    a.dial(b.id, &[&named, &addr], 5_000);
    a.connected().await;
    b.connected().await;
    let asked = || std::fs::read_to_string(dir.path().join("names.asked")).unwrap_or_default();
    assert_eq!(asked(), "");
    // A name is looked up where nothing else is left, and the next only where that came to nothing.
    a.dial(b.id, &["other:1", &named], 5_000);
    a.connected().await;
    assert_eq!(asked().lines().count(), 2, "{}", asked());
}

#[tokio::test]
async fn one_socket_serves_ipv4_and_ipv6() {
    let mut a = Peer::with(1, &NetConfig { bind: None, ..config(0) });
    let mut b = Peer::with(2, &NetConfig { bind: None, ..config(0) });
    a.pin(&[b.net.public_key()]);
    b.pin(&[a.net.public_key()]);
    let port = b.net.local_addr().port();
    a.dial(b.id, &[&format!("127.0.0.1:{port}")], 5_000);
    assert_eq!(a.connected().await.2.ip(), LOCALHOST);
    assert_eq!(b.connected().await.2.ip(), LOCALHOST);
    if b.net.local_addr().is_ipv4() || std::net::UdpSocket::bind("[::1]:0").is_err() {
        assert!(std::env::var_os("AXON_NO_SKIP").is_none(), "skipped: there is no IPv6 here");
        eprintln!("skipped: one_socket_serves_ipv4_and_ipv6 (its IPv6 half; there is no IPv6 here)");
        return;
    }
    a.dial(b.id, &[&format!("[::1]:{port}")], 5_000);
    assert_eq!(a.connected().await.2.ip(), "::1".parse::<IpAddr>().unwrap());
    assert_eq!(b.connected().await.2.ip(), "::1".parse::<IpAddr>().unwrap());
}

#[tokio::test]
async fn a_port_in_use_and_a_foreign_address_are_named() {
    let a = Peer::start(1);
    let port = a.net.local_addr().port();
    let (events, _receiver) = mpsc::channel(1);
    let refused = Net::on(&machine(), &config(port), &[2; 32], &[], events.clone()).err().unwrap();
    assert!(matches!(refused, BindError::InUse(p) if p == port));
    assert!(refused.to_string().contains("in use"));
    let foreign = NetConfig { bind: Some("192.0.2.1".parse().unwrap()), ..config(0) };
    assert!(matches!(Net::on(&machine(), &foreign, &[2; 32], &[], events), Err(BindError::NoSuchAddress(_))));
}

/// A peer in a thread and runtime of its own, that can be ended without a word to anyone.
fn acceptor(
    config: NetConfig,
    pinned: PublicKey,
    ready: std::sync::mpsc::Sender<SocketAddr>,
    end: oneshot::Receiver<()>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut b = Peer::with(2, &config);
            b.pin(&[pinned]);
            ready.send(b.net.local_addr()).unwrap();
            let serve = async {
                loop {
                    let (stream, _) = b
                        .until(|input| match input {
                            Input::Request { stream, bytes, .. } => Some((stream, bytes)),
                            _ => None,
                        })
                        .await;
                    b.respond(stream, "welcome");
                }
            };
            tokio::select! {
                () = serve => {}
                _ = end => {}
            }
        });
        // As if killed: what drops now is never run again, so nothing is sent.
        drop(runtime);
    })
}

#[tokio::test]
async fn a_restarted_peer_resets_old_connections_at_once() {
    let mut a = Peer::start(1);
    let b_key = cert::make(&[2; 32]).unwrap().1.key;
    a.pin(&[b_key]);
    let (ready, started) = std::sync::mpsc::channel();
    let (end, ended) = oneshot::channel();
    let first = acceptor(config(0), a.net.public_key(), ready.clone(), ended);
    let addr = started.recv().unwrap();
    let hello = a.dial(b_key.agent_id(), &[&addr.to_string()], 5_000);
    let (conn, _, _) = a.connected().await;
    assert_eq!(a.replied(hello).await, Ok("welcome".into()));

    end.send(()).unwrap();
    first.join().unwrap();
    let (end, ended) = oneshot::channel();
    let second = acceptor(config(addr.port()), a.net.public_key(), ready, ended);
    assert_eq!(started.recv().unwrap(), addr);
    let asked = Instant::now();
    let token = a.request(conn, "are you there?");
    let lost = "the peer was restarted and has lost the connection";
    assert_eq!(a.replied(token).await, Err(Lost::Connection(lost.into())));
    assert_eq!(a.disconnected().await, lost);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    end.send(()).unwrap();
    second.join().unwrap();
}

#[tokio::test]
async fn a_silent_peer_is_told_from_a_slow_agent() {
    let (mut a, mut b) = two();
    let relay = Relay::to(b.net.local_addr()).await;
    let (conn, _) = meet(&mut a, &mut b, &relay.addr.clone()).await;

    // The agent takes its time; its daemon is there.
    let slow = a.request(conn, "take your time");
    let (stream, _) = b.requested().await;
    assert!(timeout(Duration::from_millis(3_600), a.next()).await.is_err());
    b.respond(stream, "done");
    assert_eq!(a.replied(slow).await, Ok("done".into()));

    // The way is cut before a request is sent.
    relay.open(false);
    let cut = Instant::now();
    let lost = a.request(conn, "hello?");
    assert!(matches!(a.next().await, Input::Silent { conn: c } if c == conn));
    assert!(cut.elapsed() < Duration::from_secs(3), "{:?}", cut.elapsed());
    relay.open(true);
    assert!(matches!(a.next().await, Input::Alive { conn: c } if c == conn));
    let (stream, _) = b.requested().await;
    b.respond(stream, "back");
    assert_eq!(a.replied(lost).await, Ok("back".into()));

    // The way is cut while the agent thinks.
    a.request(conn, "take your time");
    b.requested().await;
    relay.open(false);
    let cut = Instant::now();
    assert!(matches!(a.next().await, Input::Silent { .. }));
    assert!(cut.elapsed() < Duration::from_secs(5), "{:?}", cut.elapsed());
}

#[tokio::test]
async fn half_open_handshakes_do_not_shut_the_door() {
    let (mut a, mut b) = two();
    let mut relay = Relay::to(b.net.local_addr()).await;
    relay.back.store(false, Ordering::Relaxed);
    for _ in 0..100 {
        a.dial(b.id, &[&relay.addr.clone()], 8_000);
    }
    // A first flight is two packets, as the hybrid key share does not fit into one.
    timeout(PATIENCE, relay.seen.wait_for(|seen| *seen >= 200)).await.unwrap().unwrap();
    let began = Instant::now();
    a.dial(b.id, &[&b.addr()], 5_000);
    b.connected().await;
    a.connected().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn closing_the_net_tells_every_peer() {
    let (mut a, mut b, at_a, _) = pair().await;
    let token = a.request(at_a, "one more");
    let (stream, _) = b.requested().await;
    b.respond(stream, "the last");
    let closing = Instant::now();
    b.net.close(5, "shutting down").await;
    assert!(closing.elapsed() < Duration::from_secs(2));
    assert_eq!(a.replied(token).await, Ok("the last".into()));
    assert_eq!(a.disconnected().await, "the peer is shutting down (shutting down)");
    let addr = b.addr();
    a.dial(b.id, &[&addr], 400);
    a.dial_failed().await;
}
