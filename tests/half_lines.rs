//! Local clients that begin a line and do not end it: they hold nobody up, and do not stay.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::peer::RawPeer;
use crate::support::{Daemon, PATIENCE, RawClient, wait_for};

/// How many mean it so.
const MANY: usize = 500;
/// Half a line.
const HALF: &[u8] = b"{\"cmd\":\"status\",\"req";
/// Longest that anybody else may wait for a reply. A place that others hold would be free after 5 s.
const BOUND: Duration = Duration::from_secs(3);
/// Places that those who do not end their lines never have.
const PLACES_KEPT: usize = 8;

/// One that has said half a line, and waits.
struct Halved {
    reader: BufReader<UnixStream>,
    since: Instant,
}

impl Halved {
    /// Somebody may be in the way already when it has connected: then it is closed before it has spoken.
    fn new(daemon: &Daemon) -> Self {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(HALF).ok();
        Self { reader: BufReader::new(stream), since: Instant::now() }
    }

    /// Waits until it is closed: with which error, and after how long.
    fn end(mut self) -> (String, Duration) {
        let mut code = String::from("without a word");
        loop {
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) => return (code, self.since.elapsed()),
                Ok(_) => {
                    let line: Value = serde_json::from_str(&line).unwrap();
                    // Those that are still there are listeners of version 1, like any that has said nothing.
                    assert!(line["inbound"] == true || line["error"].is_string(), "{line}");
                    code = line["error"].as_str().map_or(code, str::to_owned);
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return (code, self.since.elapsed());
                }
                Err(error) => panic!("it is not closed: {error}"),
            }
        }
    }
}

/// A client that does what clients do; how long the longest reply took.
fn works(client: &mut RawClient) -> Duration {
    let commands = [json!({"cmd":"whoami"}), json!({"cmd":"status"}), json!({"cmd":"peers"})];
    let took = commands.map(|command| {
        let asked = Instant::now();
        client.ok(command);
        asked.elapsed()
    });
    let longest = took.into_iter().max().unwrap();
    assert!(longest < BOUND, "{longest:?} for a reply");
    longest
}

/// The same of one that connects now.
fn comes(daemon: &Daemon) -> (RawClient, Duration) {
    let asked = Instant::now();
    let (mut client, said) = greets(daemon);
    let took = asked.elapsed();
    assert_eq!(said["ok"], true, "{said} after {took:?}");
    assert!(took < BOUND, "{took:?} for hello");
    let worked = works(&mut client);
    (client, took.max(worked))
}

/// One that connects and says hello; what is said to that, if anything.
fn greets(daemon: &Daemon) -> (RawClient, Value) {
    let mut client = daemon.connect();
    let hello = json!({"cmd":"hello","req_id":"1","version":2,"consumer":"default"});
    client.writer().write_all(format!("{hello}\n").as_bytes()).ok();
    let said = client.line().unwrap_or_default();
    (client, said)
}

#[test]
fn five_hundred_half_lines_hold_up_nobody() {
    let peer = RawPeer::new();
    let daemon = Daemon::start(&peer.quiet_entry("raw"));
    let link = peer.dial(&daemon).greeted();
    // Of version 1, and it has never said anything.
    let mut listener = RawClient::v1(&daemon);
    let mut before = daemon.client();
    let mut longest = works(&mut before);
    let mut during = Vec::new();
    let mut halved = Vec::new();
    for n in 1..=MANY {
        halved.push(Halved::new(&daemon));
        if n % 50 == 0 {
            longest = longest.max(works(&mut before));
            let (client, took) = comes(&daemon);
            longest = longest.max(took);
            // Some of them stay.
            during.extend((n % 200 == 0).then_some(client));
        }
    }
    // With these, as many at once as there are places for others.
    let mut after: Vec<RawClient> = (1 + during.len()..PLACES_KEPT)
        .map(|_| {
            let (client, took) = comes(&daemon);
            longest = longest.max(took);
            client
        })
        .collect();
    for client in after.iter_mut().chain(&mut during).chain([&mut before]) {
        longest = longest.max(works(client));
    }
    link.tell(&link.note(1));
    assert_eq!(listener.event()["envelope"]["payload"]["data"], 1);

    let mut ends = BTreeMap::new();
    let last = halved.last().unwrap().since;
    for halved in halved {
        let (code, after) = halved.end();
        if code == "invalid_command" {
            assert!(after >= Duration::from_millis(4_800), "{after:?}");
        }
        *ends.entry(code).or_insert(0) += 1;
    }
    let took = last.elapsed();
    assert!(took < Duration::from_millis(6_500), "the last one was there for {took:?}");
    writeln!(std::io::stderr().lock(), "half lines: {ends:?}, longest reply to others {longest:?}").ok();
    // Some had to make room, and those for whom there was room had their five seconds.
    let of = |code: &str| ends.get(code).copied().unwrap_or(0);
    assert_eq!(of("too_many_clients") + of("invalid_command") + of("without a word"), MANY, "{ends:?}");
    assert!((1..=64 - PLACES_KEPT).contains(&of("invalid_command")), "{ends:?}");

    // Who has said nothing is not closed by time alone, however often others were.
    link.tell(&link.note(2));
    assert_eq!(listener.event()["envelope"]["payload"]["data"], 2);
    works(&mut before);
    comes(&daemon);
    let here = 1 + 1 + during.len() + after.len();
    wait_for("the others to be gone", || {
        let clients = before.ok(json!({"cmd":"status"}))["clients"].as_u64().unwrap();
        (clients as usize == here).then_some(())
    });
    listener.raw(b"{\"cmd\":\"status\"}\n");
    assert_eq!(listener.line().unwrap()["ok"], true);
}

// shows: IPC-SOCK-6
#[test]
fn eight_places_are_there_for_others_whatever_comes() {
    let daemon = Daemon::start("");
    let stop = Arc::new(AtomicBool::new(false));
    let socket = daemon.socket();
    let attackers: Vec<_> = (0..4)
        .map(|_| {
            let (socket, stop) = (socket.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut held = std::collections::VecDeque::new();
                let mut made = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let Ok(mut stream) = UnixStream::connect(&socket) else { continue };
                    stream.write_all(HALF).ok();
                    held.push_back(stream);
                    made += 1;
                    if held.len() > MANY / 4 {
                        held.pop_front();
                    }
                }
                made
            })
        })
        .collect();
    // All the time, and not only when it begins. Who comes while all places are taken may be told so, and
    // comes again.
    let until = Instant::now() + Duration::from_secs(3);
    let (mut longest, mut rounds, mut refused) = (Duration::ZERO, 0, 0);
    while Instant::now() < until {
        let mut clients: Vec<RawClient> = (0..PLACES_KEPT)
            .map(|_| {
                let asked = Instant::now();
                loop {
                    let (mut client, said) = greets(&daemon);
                    assert!(asked.elapsed() < BOUND, "{said} after {:?}", asked.elapsed());
                    if said["ok"] == true {
                        longest = longest.max(asked.elapsed()).max(works(&mut client));
                        return client;
                    }
                    assert!(said.is_null() || said["error"] == "too_many_clients", "{said}");
                    refused += 1;
                }
            })
            .collect();
        for client in &mut clients {
            longest = longest.max(works(client));
        }
        rounds += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let made: u64 = attackers.into_iter().map(|thread| thread.join().unwrap()).sum();
    writeln!(
        std::io::stderr().lock(),
        "half lines: {made} clients that came again and again, {rounds} times eight others, \
         {refused} times told to come again, longest {longest:?}"
    )
    .ok();
    assert!(made > MANY as u64 && rounds > 0);
}

// shows: IPC-SOCK-5
#[test]
fn a_line_has_five_seconds_from_its_first_byte() {
    let daemon = Daemon::start("");
    // One that has said good lines before, one that goes on byte by byte, and one that is only slow.
    let mut spoken = daemon.client();
    works(&mut spoken);
    let mut slow = daemon.client();
    let mut dripping = daemon.connect();
    let begun = Instant::now();
    spoken.raw(HALF);
    dripping.raw(b"{");
    let line = format!("{}\n", json!({"cmd":"status","req_id":"slow","pad":"x".repeat(60_000)}));
    let parts: Vec<&[u8]> = line.as_bytes().chunks(line.len() / 8 + 1).collect();
    let mut drips = dripping.writer();
    for n in 0.. {
        match parts.get(n) {
            Some(part) => slow.raw(part),
            None if n == parts.len() => assert_eq!(slow.finish("slow")["ok"], true),
            // An empty line is no line that has begun.
            None => slow.raw(b"\n"),
        }
        // What is tested is that time passes.
        std::thread::sleep(Duration::from_millis(400));
        if drips.write_all(b" ").is_err() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_millis(6_500), "one byte after the other keeps it open");
    }
    assert!(begun.elapsed() > Duration::from_millis(4_800), "{:?}", begun.elapsed());
    for client in [&mut spoken, &mut dripping] {
        let line = client.line().unwrap();
        assert_eq!((&line["ok"], &line["error"]), (&json!(false), &json!("invalid_command")), "{line}");
        let message = line["message"].as_str().unwrap();
        assert!(message.contains("within 5 s") && message.contains("newline"), "{message}");
        assert_eq!(client.line(), None);
    }
    works(&mut slow);
}
