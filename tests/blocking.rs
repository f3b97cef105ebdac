//! Blocking and forgetting under load: not a byte of that peer comes to any client after the command was
//! answered.
//!
//! A hundred rounds of one flood each, and ten of `forget`. Whatever the peer says carries a mark of the
//! round.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::peer::foul::End;
use crate::peer::{Key, Link, RawPeer};
use crate::support::{Daemon, PATIENCE, RawClient, pair_with, wait_for};

/// What the peer's words begin with; the number of the round follows, in three digits.
const MARK: &str = "~mark-";

fn mark(round: usize) -> String {
    format!("{MARK}{round:03}-")
}

/// The rounds of all marks in these bytes.
fn marks(mut bytes: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        // There is much to look at: this way it is done by the library, which is quick in any build.
        while bytes.skip_until(MARK.as_bytes()[0]).unwrap() > 0 {
            let digits = bytes.strip_prefix(&MARK.as_bytes()[1..]).and_then(|rest| rest.get(..3));
            let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
            if let Some(Ok(round)) = digits.map(str::parse) {
                return Some(round);
            }
        }
        None
    })
}

// --- clients whose every byte is looked at ---

/// Drives all of them.
struct Hub {
    runtime: Handle,
    _stop: oneshot::Sender<()>,
}

impl Hub {
    fn new() -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tell.send(runtime.handle().clone()).unwrap();
            let _ = runtime.block_on(stopped);
        });
        Self { runtime: told.recv().unwrap(), _stop: stop }
    }
}

/// What a client says next to a line that came, and after how long.
type Habit = Box<dyn FnMut(&str) -> Option<(u64, Value)> + Send>;

/// One client of a socket.
struct Tap {
    name: String,
    stream: Arc<UnixStream>,
    seen: Arc<Mutex<Seen>>,
    say: mpsc::UnboundedSender<Value>,
    /// Reads on, once it has been told to.
    go: Option<oneshot::Sender<()>>,
    v1: bool,
    /// How far it has been looked at.
    checked: u64,
}

#[derive(Default)]
struct Seen {
    /// How many bytes came before those that are here.
    base: u64,
    bytes: Vec<u8>,
    closed: bool,
    /// The last whole line.
    last: String,
}

impl Seen {
    fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    fn from(&self, at: u64) -> &[u8] {
        &self.bytes[usize::try_from(at - self.base).unwrap()..]
    }
}

/// How a client reads.
#[derive(Clone, Copy, PartialEq)]
enum Pace {
    AtOnce,
    /// A little at a time.
    Slowly,
    /// Not before it is told to.
    Later,
}

impl Tap {
    /// Says these lines first.
    fn new(hub: &Hub, name: &str, socket: &Path, first: &[Value], pace: Pace, habit: Habit) -> Self {
        let _inside = hub.runtime.enter();
        let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = Arc::new(UnixStream::from_std(stream).unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (say, said) = mpsc::unbounded_channel();
        first.iter().for_each(|line| say.send(line.clone()).unwrap());
        let (go, going) = oneshot::channel();
        hub.runtime.spawn(write(Arc::clone(&stream), said));
        hub.runtime.spawn(read(Arc::clone(&stream), Arc::clone(&seen), say.clone(), habit, pace, going));
        Self { name: name.to_owned(), stream, seen, say, go: Some(go), v1: first.is_empty(), checked: 0 }
    }

    /// How much has been written to it up to now: what it has read, and what waits in its socket.
    fn written(&self) -> u64 {
        let seen = self.seen.lock().unwrap();
        let waiting = if seen.closed { 0 } else { rustix::io::ioctl_fionread(&*self.stream).unwrap() };
        seen.end() + waiting
    }

    /// Waits until it has seen this, in what came after that place; false when it was closed before.
    fn awaits(&self, after: u64, text: &str) -> bool {
        soon(&format!("{}: {text}", self.name), || {
            let seen = self.seen.lock().unwrap();
            let found = seen.end() > after && holds(seen.from(after.max(seen.base)), text);
            (found || seen.closed).then_some(found)
        })
    }

    /// How many marks of this round it has seen since it was last looked at.
    fn marked(&self, round: usize) -> usize {
        let seen = self.seen.lock().unwrap();
        marks(seen.from(self.checked)).filter(|of| *of == round).count()
    }

    /// Asks for something that comes after all that the daemon had to tell it up to now.
    fn settle(&mut self, round: usize) {
        if let Some(go) = self.go.take() {
            go.send(()).ok();
        }
        let req_id = format!("settled-{round}");
        let ask = if self.v1 { json!({"cmd":"status"}) } else { json!({"cmd":"whoami","req_id":req_id}) };
        self.say.send(ask).ok();
    }

    /// Waits until that has come; false when it was closed.
    fn settled(&self, round: usize, after: u64) -> bool {
        let text = if self.v1 { "uptime_secs".to_owned() } else { format!("settled-{round}") };
        self.awaits(after, &text)
    }

    /// Up to `cut` only words of this round came, and after it none; nor is a line cut there that has some.
    fn check(&mut self, round: usize, cut: u64) {
        let mut seen = self.seen.lock().unwrap();
        assert!(seen.end() >= cut || seen.closed, "{}: {} of {cut} bytes came", self.name, seen.end());
        let all = seen.from(self.checked);
        let cut = usize::try_from(cut.min(seen.end()) - self.checked).unwrap();
        let line = all[..cut].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let old = marks(&all[..line]).find(|of| *of != round);
        assert_eq!(old, None, "{}: words of an earlier round came in round {round}", self.name);
        // What a closed client was left with of a line is not a line.
        let line = if seen.closed { cut } else { line };
        if marks(&all[line..]).next().is_some() {
            let late = String::from_utf8_lossy(&all[line..]).into_owned();
            let late: Vec<&str> = late.lines().filter(|line| line.contains(MARK)).collect();
            panic!(
                "{}: round {round}: {} lines came {} bytes after the command was answered: {:.600}",
                self.name,
                late.len(),
                all.len() - cut,
                late[0]
            );
        }
        self.checked = seen.end();
        seen.base = seen.end();
        seen.bytes.clear();
    }
}

/// Looks a thousand times a second: there are many rounds, and much to wait for in each.
fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1)); // no event exists for all of these
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

async fn write(stream: Arc<UnixStream>, mut said: mpsc::UnboundedReceiver<Value>) {
    while let Some(line) = said.recv().await {
        let line = format!("{line}\n");
        let mut left = line.as_bytes();
        while !left.is_empty() {
            stream.writable().await.unwrap();
            match stream.try_write(left) {
                Ok(bytes) => left = &left[bytes..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

async fn read(
    stream: Arc<UnixStream>,
    seen: Arc<Mutex<Seen>>,
    say: mpsc::UnboundedSender<Value>,
    mut habit: Habit,
    pace: Pace,
    going: oneshot::Receiver<()>,
) {
    if pace == Pace::Later {
        going.await.ok();
    }
    let mut buffer = vec![0; if pace == Pace::Slowly { 16_384 } else { 65_536 }];
    let mut line = Vec::new();
    loop {
        stream.readable().await.unwrap();
        let bytes = {
            let mut seen = seen.lock().unwrap();
            match stream.try_read(&mut buffer) {
                Ok(bytes @ 1..) => {
                    seen.bytes.extend_from_slice(&buffer[..bytes]);
                    bytes
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                _ => {
                    seen.closed = true;
                    return;
                }
            }
        };
        let mut rest = &buffer[..bytes];
        while rest.read_until(b'\n', &mut line).unwrap() > 0 {
            if line.ends_with(b"\n") {
                seen.lock().unwrap().last = String::from_utf8_lossy(&line).into_owned();
                if let Some((after_ms, next)) = habit(std::str::from_utf8(&line).unwrap()) {
                    let say = say.clone();
                    tokio::spawn(async move {
                        // An agent takes its time.
                        tokio::time::sleep(Duration::from_millis(after_ms)).await;
                        say.send(next).ok();
                    });
                }
                line.clear();
            }
        }
        if pace == Pace::Slowly {
            tokio::time::sleep(Duration::from_millis(2)).await; // to be slow is its habit
        }
    }
}

fn hello(consumer: &str) -> Value {
    json!({"cmd":"hello","req_id":"h","version":2,"consumer":consumer})
}

fn listens(consumer: &str) -> [Value; 2] {
    [hello(consumer), json!({"cmd":"subscribe","req_id":"s","kinds":["notify"],"replay":false})]
}

fn silent() -> Habit {
    Box::new(|_| None)
}

/// Goes on with what comes now when it was too slow for the rest.
fn listens_on() -> Habit {
    Box::new(|line| {
        let again = json!({"cmd":"subscribe","req_id":"s","kinds":["notify"],"replay":false});
        line.contains("slow_consumer").then_some((0, again))
    })
}

/// Answers what it is offered.
fn answers() -> Habit {
    Box::new(|line| {
        if !line.contains("\"answer\":true") {
            return None;
        }
        let request: Value = serde_json::from_str(line).unwrap();
        let (kind, payload) = match request["envelope"]["kind"].as_str() {
            Some("delegate") => ("ack", json!({"accepted":true})),
            _ => ("response", json!({"data":null,"summary":"so"})),
        };
        let id = request["envelope"]["id"].clone();
        Some((0, json!({"cmd":"reply","req_id":"a","ref":id,"kind":kind,"payload":payload})))
    })
}

/// Reads the inbox, acks, and reads on.
fn reads() -> Habit {
    Box::new(|line| {
        let inbox = json!({"cmd":"inbox","req_id":"i","limit":100});
        let reply: Value = serde_json::from_str(line).unwrap();
        match (reply["req_id"].as_str(), &reply["next_seq"]) {
            (Some("i"), Value::Number(next)) => Some((0, json!({"cmd":"ack","req_id":"k","up_to_seq":next}))),
            (Some("h" | "i" | "k"), _) => Some((2, inbox)),
            _ => None,
        }
    })
}

/// Asks the peer, again and again.
fn asks(peer: &str) -> Habit {
    let query = json!({"cmd":"send","req_id":"q","to":peer,"kind":"query","payload":{"question":"and you?"}});
    Box::new(move |line| {
        let mine = line.contains("\"req_id\":\"q\"") || line.contains("\"req_id\":\"h\"");
        mine.then(|| (1, query.clone()))
    })
}

/// Looks at all there is to be looked at.
fn looks() -> Habit {
    let mut next = ["delegations", "peers", "outbox", "status"].iter().cycle();
    Box::new(move |line| {
        let mine = line.contains("\"req_id\":\"l\"") || line.contains("\"req_id\":\"h\"");
        mine.then(|| (3, json!({"cmd":next.next().unwrap(),"req_id":"l"})))
    })
}

/// The one or the other.
fn either(mut one: Habit, mut other: Habit) -> Habit {
    Box::new(move |line| one(line).or_else(|| other(line)))
}

/// All clients that stay for the whole test.
fn taps(hub: &Hub, daemon: &Daemon, owner: &mut RawClient, peers: &[&RawPeer]) -> Vec<Tap> {
    let to: Vec<&str> = peers.iter().map(|peer| &*peer.id).collect();
    let scoped = json!({"cmd":"socket_add","name":"one","allow":["inbox","answer"],"to":to});
    let scoped = owner.ok(scoped)["path"].as_str().unwrap().to_owned();
    let (main, scoped) = (daemon.socket(), Path::new(&scoped));
    let agent = [
        hello("agent"),
        json!({"cmd":"subscribe","req_id":"s","answer":["query","delegate"],"kinds":["query"],"capacity":100}),
    ];
    let tap = |name: &str, socket: &Path, first: &[Value], pace, habit| {
        Tap::new(hub, name, socket, first, pace, habit)
    };
    vec![
        tap("subscriber", &main, &listens("subscriber"), Pace::AtOnce, listens_on()),
        tap("agent", &main, &agent, Pace::AtOnce, answers()),
        tap("slow", &main, &listens("slow"), Pace::Slowly, either(listens_on(), looks())),
        tap("v1", &main, &[], Pace::AtOnce, silent()),
        tap("reader", &main, &[hello("reader")], Pace::AtOnce, reads()),
        tap("asker", &main, &[hello("asker")], Pace::AtOnce, asks(&peers[0].id)),
        tap("looker", &main, &[hello("looker")], Pace::AtOnce, looks()),
        tap("scoped", scoped, &listens("scoped"), Pace::AtOnce, listens_on()),
        tap("scoped reader", scoped, &[hello("scoped reader")], Pace::AtOnce, reads()),
    ]
}

// --- the peer ---

/// Says hello under a marked name, then all that it can, until the connection ends.
fn flood(link: &Link, round: usize) -> std::thread::JoinHandle<u64> {
    let (link, mark) = (link.clone(), mark(round));
    let mut hello = link.hello();
    hello["payload"]["agent_name"] = mark.clone().into();
    assert_eq!(link.outcome(&hello), "hello");
    std::thread::spawn(move || {
        let answering = {
            let (link, mark) = (link.clone(), mark.clone());
            std::thread::spawn(move || link.serve(move |_| json!({"data":{"words":mark},"summary":mark})))
        };
        let until = Instant::now() + PATIENCE;
        let telling = {
            let (link, mark) = (link.clone(), mark.clone());
            std::thread::spawn(move || {
                let pad = "x".repeat(500);
                let mut told = 0;
                loop {
                    let note =
                        |n| link.envelope("notify", json!({"topic":mark,"data":format!("{mark}{n}{pad}")}));
                    let notes: Vec<Vec<u8>> = (0..16).map(|n| note(n).to_string().into_bytes()).collect();
                    if Instant::now() > until || !link.pour(&notes) {
                        return told;
                    }
                    told += 16;
                }
            })
        };
        let asked = link.flood(until, 8, move |link, n| {
            let (kind, words) =
                if n % 16 == 5 && n < 64 { ("delegate", "task") } else { ("query", "question") };
            link.envelope(kind, json!({words:format!("{mark}{n}")})).to_string().into_bytes()
        });
        answering.join().unwrap();
        asked.all() + telling.join().unwrap()
    })
}

/// What a client that comes now finds of the peer.
fn found(daemon: &Daemon, consumer: &str) -> Vec<String> {
    let mut client = daemon.connect();
    client.hello_as(consumer);
    let mut found = Vec::new();
    for command in [
        json!({"cmd":"inbox","limit":1000}),
        json!({"cmd":"subscribe","replay":true}),
        json!({"cmd":"peers"}),
        json!({"cmd":"delegations"}),
        json!({"cmd":"outbox"}),
    ] {
        let reply = client.ok(command);
        found.push(reply.to_string());
    }
    found.extend(client.events.drain(..).map(|event| event.to_string()));
    found.retain(|line| line.contains(MARK));
    found
}

// --- the tests ---

struct Rounds {
    daemon: Daemon,
    peer: RawPeer,
    good: RawPeer,
    entries: String,
}

impl Rounds {
    fn new() -> Self {
        let (peer, good) = (RawPeer::new(), RawPeer::new());
        let entries = format!("{}{}", peer.quiet_entry("raw"), good.quiet_entry("good"));
        let daemon = Daemon::start(&format!("[ipc]\nbuffer_size = 2000\nmax_client_queue = 8192\n{entries}"));
        Self { daemon, peer, good, entries }
    }

    /// Rounds of a flood, the command that ends it, and `back`, which lets the peer in again.
    fn run(&self, rounds: usize, command: &Value, back: impl Fn(&Self, &mut RawClient)) {
        let (daemon, peer) = (&self.daemon, &self.peer);
        let hub = Hub::new();
        let mut owner = daemon.client();
        let mut taps = taps(&hub, daemon, &mut owner, &[peer, &self.good]);
        let good = self.good.dial(daemon).greeted();
        let (mut told, mut answered, mut closed) = (0, Vec::new(), 0);
        let begun = Instant::now();
        for round in 0..rounds {
            // Now and then one that does not read at all.
            let stuck = round % 10 == 3;
            if stuck {
                let first = listens("stuck");
                taps.push(Tap::new(&hub, "stuck", &daemon.socket(), &first, Pace::Later, silent()));
            }
            let link = peer.dial(daemon);
            let flooding = flood(&link, round);
            for tap in taps.iter().filter(|tap| tap.name != "stuck" && tap.name != "looker") {
                soon(&format!("{}: words of round {round}", tap.name), || {
                    (tap.marked(round) > 2).then_some(())
                });
            }
            // Not always at the same time.
            std::thread::sleep(Duration::from_millis(if stuck { 300 } else { (round as u64 * 7) % 50 }));
            let asked = Instant::now();
            let reply = owner.cmd(command.clone());
            // From here on nothing of it may be written to anybody.
            let cuts: Vec<u64> = taps.iter().map(Tap::written).collect();
            answered.push(asked.elapsed());
            assert_eq!((&reply["ok"], &reply["agent_id"]), (&json!(true), &json!(peer.id)), "{reply}");

            link.cut_off("not known here any more");
            told += flooding.join().unwrap();
            assert_eq!(peer.try_dial(daemon).and_then(|link| Err::<(), _>(link.end())), Err(End::Alert(48)));
            // Others go on, and nothing of theirs is lost.
            let note = good.envelope("notify", json!({"topic":"good","data":format!("good-{round}-")}));
            good.tell(&note);
            taps.iter_mut().for_each(|tap| tap.settle(round));
            for (tap, cut) in taps.iter_mut().zip(&cuts) {
                if tap.settled(round, *cut) && ["subscriber", "v1", "scoped"].contains(&&*tap.name) {
                    assert!(tap.awaits(*cut, &format!("good-{round}-")));
                }
                tap.check(round, *cut);
            }
            assert_eq!(
                found(daemon, &format!("fresh-{}", round % 100)),
                Vec::<String>::new(),
                "round {round}"
            );
            closed += taps.iter().filter(|tap| tap.seen.lock().unwrap().closed).count();
            for tap in &taps {
                let seen = tap.seen.lock().unwrap();
                let stays = !seen.closed || tap.name == "stuck";
                assert!(stays, "{} was closed in round {round}, after {:.300}", tap.name, seen.last);
            }
            taps.retain(|tap| tap.name != "stuck");
            back(self, &mut owner);
        }
        answered.sort_unstable();
        writeln!(
            std::io::stderr().lock(),
            "blocking: {rounds} rounds of {command}, {told} messages, the command took {:?} (median) to {:?}, \
             {closed} clients that did not read were closed, {:.1} s",
            answered[answered.len() / 2],
            answered[answered.len() - 1],
            begun.elapsed().as_secs_f64()
        )
        .ok();
    }
}

#[test]
fn not_a_byte_of_a_blocked_peer_comes_after_the_command() {
    let mut test = Rounds::new();
    let command = json!({"cmd":"trust","peer":test.peer.id,"trust":"blocked"});
    test.run(100, &command, |test, owner| {
        owner.ok(json!({"cmd":"trust","peer":test.peer.id,"trust":"known"}));
    });
    // Nor after a crash.
    test.daemon.client().ok(command);
    test.daemon.kill9();
    test.daemon.up();
    assert_eq!(found(&test.daemon, "afterwards"), Vec::<String>::new());
    assert_eq!(
        test.peer.try_dial(&test.daemon).and_then(|link| Err::<(), _>(link.end())),
        Err(End::Alert(48))
    );
}

#[test]
fn not_a_byte_of_a_forgotten_peer_comes_after_the_command() {
    let test = Rounds::new();
    let command = json!({"cmd":"forget","peer":test.peer.id});
    test.run(10, &command, |test, _| {
        let config = std::fs::read_to_string(test.daemon.root().join("config.toml")).unwrap();
        assert!(!config.contains(&test.peer.id) && config.contains(&test.good.id), "{config}");
        test.daemon
            .set_config(&format!("[ipc]\nbuffer_size = 2000\nmax_client_queue = 8192\n{}", test.entries));
        test.daemon.reload();
    });
}

#[test]
fn the_tickets_of_a_blocked_peer_are_worth_nothing_then_and_later() {
    let peer = RawPeer::new();
    let daemon = Daemon::start(&peer.quiet_entry("raw"));
    let mut owner = daemon.client();
    let mut agent = daemon.answerer(json!({"answer":["query"],"kinds":["notify"]}));
    // A ticket comes with each connection; each is used once, so each has one.
    let peers = [(); 4].map(|()| peer.twin());
    let links = peers.each_ref().map(|peer| peer.dial(&daemon).greeted());
    links.iter().for_each(|link| assert_eq!(link.outcome(&link.envelope("ping", json!({}))), "pong"));
    let said = [links[0].hello(), links[0].envelope("query", json!({"question":mark(0)}))];
    let resumes = |peer: &RawPeer| {
        let (link, taken, answers) = peer.dial_early(&daemon, &said);
        assert!(answers.iter().all(Result::is_err), "{answers:?}");
        (link, taken)
    };
    // So it is, as long as it is known.
    links[0].close();
    let (_, taken, answers) = peers[0].dial_early(&daemon, &said[..1]);
    assert!(taken && answers[0].is_ok(), "{taken} {answers:?}");
    owner.ok(json!({"cmd":"trust","peer":"raw","trust":"blocked"}));
    for link in &links[1..] {
        assert_eq!(link.end(), End::Closed(0, "not known here any more".to_owned()));
    }
    let (link, taken) = resumes(&peers[1]);
    assert_eq!((taken, link.end()), (false, End::Alert(48)), "as any stranger");

    // Also while strangers are let in to knock.
    let invite = owner.ok(json!({"cmd":"invite"}));
    assert_eq!(peer.enter(&daemon, &peer.key).map(drop), Err(End::Alert(48)));
    assert_eq!(peer.enter(&daemon, &Key::new()).unwrap().1["payload"]["stranger"], true);
    let (link, taken) = resumes(&peers[2]);
    assert_eq!((taken, link.end()), (false, End::Alert(48)));
    owner.ok(json!({"cmd":"revoke_invite","id":invite["invite"]}));

    // Let in again, it shakes hands as if for the first time.
    owner.ok(json!({"cmd":"trust","peer":peer.id,"trust":"known"}));
    let (link, taken) = resumes(&peers[3]);
    assert!(!taken);
    assert_eq!(link.clone().greeted().outcome(&link.envelope("ping", json!({}))), "pong");
    agent.silent();
    assert_eq!(owner.ok(json!({"cmd":"status"}))["peers_connected"], 1);

    // To be forgotten is no different.
    owner.ok(json!({"cmd":"forget","peer":"raw"}));
    assert_eq!(link.end(), End::Closed(0, "not known here any more".to_owned()));
    let (link, taken) = resumes(&peers[3]);
    assert_eq!((taken, link.end()), (false, End::Alert(48)));
    agent.silent();
}

#[test]
fn what_is_in_flight_fails_on_both_sides() {
    let (alice, bob) = pair_with("", "reconnect_max_backoff_secs = 1\n");
    let mut agent = alice.answerer(json!({"answer":["query","delegate"]}));
    let mut theirs = bob.answerer(json!({"answer":["query"]}));
    let (mut of_alice, mut of_bob) = (alice.client(), bob.client());
    let asked = of_bob.ask("alice", "of bob", json!({}));
    let question = agent.request();
    let asking = of_alice.ask("bob", "of alice", json!({}));
    theirs.request();
    let work = of_bob.ok(json!({"cmd":"send","to":"alice","kind":"ping","payload":{}}));
    assert_eq!(work["response"]["kind"], "pong");

    let mut owner = alice.client();
    owner.ok(json!({"cmd":"trust","peer":"bob","trust":"blocked"}));
    let begun = Instant::now();
    let reply = of_bob.finish(&asked);
    assert_eq!(reply["error"], "peer_unreachable", "{reply}");
    assert!(!reply.to_string().contains("block"), "nothing tells it that it is blocked: {reply}");
    assert_eq!(of_alice.finish(&asking)["ok"], false);
    let withdrawn = agent.event();
    assert_eq!(
        (&withdrawn["event"], &withdrawn["ref"], &withdrawn["reason"]),
        (&json!("withdrawn"), &question["id"], &json!("peer_gone")),
        "{withdrawn}"
    );
    assert_eq!(agent.reply(&question, "response", json!({"summary":"s"}))["error"], "not_found");
    let withdrawn = theirs.event();
    assert_eq!((&withdrawn["event"], &withdrawn["reason"]), (&json!("withdrawn"), &json!("peer_gone")));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    // It tries again and again, and finds nobody.
    bob.wait_peer(&alice, false);
    let row = wait_for("another attempt", || of_bob.peer(alice.id()).filter(|row| row["error"].is_string()));
    assert!(!row.to_string().contains("block"), "{row}");
    of_bob.fails(json!({"cmd":"send","to":"alice","kind":"ping","payload":{}}), "peer_unreachable");
    let held =
        json!({"cmd":"send","to":bob.id(),"kind":"notify","payload":{"topic":"t","data":1},"hold_secs":60});
    of_alice.fails(held, "not_authorized");
    let status = owner.ok(json!({"cmd":"status"}));
    assert_eq!((&status["open_requests"], &status["peers_connected"]), (&json!(0), &json!(0)), "{status}");
    owner.ok(json!({"cmd":"trust","peer":bob.id(),"trust":"known"}));
    bob.wait_peer(&alice, true);
    of_bob.ok(json!({"cmd":"send","to":"alice","kind":"ping","payload":{}}));
}
