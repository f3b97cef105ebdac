//! Load between two daemons of which one is killed at random moments, again and again: what was acked to a
//! sender is in the receiver's inbox exactly once.
//!
//! The short form has six rounds; `AXON_LONG=1` has two hundred. The seed of the kills is printed;
//! `AXON_SEED=<seed>` takes it again, though what is in flight at a kill differs all the same.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::kept::{SOON, rejoin};
use crate::support::{AXON, Daemon, MEASURED, pair_with};

const SENDER: &str = "[outbox]\nper_peer_messages_max = 100000\nmessages_max = 100000\n";
/// Little, so that what is read goes and the store is tidied under the load too.
const ROOM: &str = "[ipc]\nbuffer_size = 2000\nbuffer_byte_cap = 1048576\n";
/// How many messages of one client are under way at once, where it does not wait for each.
const IN_FLIGHT: usize = 64;
/// Longer than any command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(45);

/// Numbers that look random, from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.roll(to - from))
    }
}

/// A client that takes it when its daemon dies.
struct Line {
    reader: BufReader<UnixStream>,
}

impl Line {
    /// Tries until there is a daemon, or until nobody wants it any more.
    fn dial(socket: &Path, consumer: &str, wanted: impl Fn() -> bool) -> Option<Self> {
        while wanted() {
            if let Ok(stream) = UnixStream::connect(socket) {
                stream.set_read_timeout(Some(COMMAND_LIMIT)).unwrap();
                let mut line = Self { reader: BufReader::new(stream) };
                if line.ask(json!({"cmd":"hello","version":2,"consumer":consumer})).is_some() {
                    return Some(line);
                }
            }
            // The daemon is away, and nobody says when it is back.
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    fn say(&mut self, command: &Value) -> Option<()> {
        self.reader.get_mut().write_all(format!("{command}\n").as_bytes()).ok()
    }

    /// The next line; none: the daemon is gone.
    fn hear(&mut self) -> Option<Value> {
        let mut text = String::new();
        match self.reader.read_line(&mut text) {
            Ok(0) => None,
            Ok(_) if text.ends_with('\n') => Some(serde_json::from_str(&text).expect("whole lines of JSON")),
            // It was killed in the middle of a line.
            Ok(_) => None,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no reply in {COMMAND_LIMIT:?}")
            }
            Err(_) => None,
        }
    }

    fn reply(&mut self) -> Option<Value> {
        loop {
            let line = self.hear()?;
            if line.get("ok").is_some() {
                return Some(line);
            }
        }
    }

    /// One command and its reply; none: the daemon died.
    fn ask(&mut self, mut command: Value) -> Option<Value> {
        command["req_id"] = "q".into();
        self.say(&command)?;
        self.reply()
    }
}

/// What a sender has learned of its messages; they are numbered from 0 on.
#[derive(Default)]
struct Sent {
    name: String,
    tried: u64,
    /// In the order in which it was told.
    acked: Vec<u64>,
    failed: BTreeMap<String, u64>,
}

impl Sent {
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    fn next(&mut self, hold_secs: u64) -> (u64, Value) {
        let n = self.tried;
        self.tried += 1;
        let mut command = json!({"cmd":"send","req_id":n.to_string(),"to":"bob","kind":"notify",
            "payload":{"topic":self.name,"data":n}});
        if hold_secs > 0 {
            command["hold_secs"] = hold_secs.into();
        }
        (n, command)
    }

    /// Notes what was said of a message.
    fn note(&mut self, n: u64, reply: &Value) {
        if reply["ok"] == true {
            let state = reply["state"].as_str().unwrap();
            assert!(matches!(state, "delivered" | "held"), "{reply}");
            self.acked.push(n);
        } else {
            let code = reply["error"].as_str().unwrap();
            // Said honestly: it has not arrived, or nobody knows.
            assert!(matches!(code, "peer_unreachable" | "timeout" | "overloaded"), "{reply}");
            *self.failed.entry(code.to_owned()).or_default() += 1;
        }
    }
}

/// Sends one after the other, and waits for each reply.
fn in_turn(socket: PathBuf, name: &str, hold_secs: u64, stop: Arc<AtomicBool>) -> JoinHandle<Sent> {
    let mut sent = Sent::named(name);
    std::thread::spawn(move || {
        let going = || !stop.load(Ordering::Relaxed);
        while let Some(mut line) = Line::dial(&socket, "sender", going) {
            while going() {
                let (n, command) = sent.next(hold_secs);
                let Some(reply) = line.say(&command).and_then(|()| line.reply()) else { break };
                sent.note(n, &reply);
                // What is held is soon given and slowly delivered: it would pile up. And the peer remembers
                // 10,000 ids for longer than 300 s, no more.
                if reply["state"] == "held" || hold_secs > 300 {
                    std::thread::sleep(Duration::from_millis(25)); // a pace, not a wait
                }
            }
        }
        sent
    })
}

/// Sends many at once.
fn at_once(socket: PathBuf, name: &str, stop: Arc<AtomicBool>) -> JoinHandle<Sent> {
    let mut sent = Sent::named(name);
    std::thread::spawn(move || {
        let going = || !stop.load(Ordering::Relaxed);
        while let Some(mut line) = Line::dial(&socket, "sender", going) {
            let mut under_way = 0;
            loop {
                let mut gone = false;
                while going() && under_way < IN_FLIGHT && !gone {
                    let (_, command) = sent.next(0);
                    gone = line.say(&command).is_none();
                    under_way += 1;
                }
                if under_way == 0 || gone {
                    break;
                }
                let Some(reply) = line.reply() else { break };
                under_way -= 1;
                let n = reply["req_id"].as_str().unwrap().parse().unwrap();
                sent.note(n, &reply);
            }
        }
        sent
    })
}

/// Delegations given, by id.
#[derive(Default)]
struct Given {
    tried: u64,
    /// Those that the peer's daemon, or our own outbox, has taken.
    taken: Vec<Value>,
    failed: u64,
}

fn delegator(socket: PathBuf, stop: Arc<AtomicBool>) -> JoinHandle<Given> {
    std::thread::spawn(move || {
        let going = || !stop.load(Ordering::Relaxed);
        let mut given = Given::default();
        while let Some(mut line) = Line::dial(&socket, "sender", going) {
            while going() {
                given.tried += 1;
                let mut command = json!({"cmd":"send","to":"bob","kind":"delegate",
                    "payload":{"task":given.tried.to_string()}});
                if given.tried.is_multiple_of(2) {
                    command["hold_secs"] = 280.into();
                }
                let Some(reply) = line.ask(command) else { break };
                if reply["response"]["payload"]["accepted"] == true || reply["state"] == "held" {
                    given.taken.push(reply["msg_id"].clone());
                } else {
                    given.failed += 1;
                }
                // Results are remembered for 30 days: see above.
                std::thread::sleep(Duration::from_millis(40));
            }
        }
        given
    })
}

/// Answers every delegation; gives the ids of those whose result its daemon took.
fn agent(socket: PathBuf, stop: Arc<AtomicBool>) -> JoinHandle<HashSet<String>> {
    std::thread::spawn(move || {
        let going = || !stop.load(Ordering::Relaxed);
        let mut done = HashSet::new();
        while let Some(mut line) = Line::dial(&socket, "agent", going) {
            let subscribe = json!({"cmd":"subscribe","req_id":"s","answer":["delegate"],"capacity":64});
            if line.say(&subscribe).is_none() {
                continue;
            }
            line.reader.get_ref().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut text = Vec::new();
            while going() {
                match line.reader.read_until(b'\n', &mut text) {
                    Ok(0) => break,
                    Ok(_) if text.last() != Some(&b'\n') => break,
                    Ok(_) => {}
                    // Nothing for a moment: perhaps it is over.
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                    Err(_) => break,
                }
                let said: Value = serde_json::from_slice(&text).unwrap();
                text.clear();
                if let Some(id) = said["req_id"].as_str().filter(|id| id.len() == 36) {
                    if said["ok"] == true {
                        done.insert(id.to_owned());
                    }
                } else if said["answer"] == true {
                    let (id, task) = (&said["envelope"]["id"], &said["envelope"]["payload"]["task"]);
                    let mut words =
                        vec![("result", id.as_str().unwrap(), json!({"status":"completed","outcome":task}))];
                    if task.as_str().unwrap().parse::<u64>().unwrap().is_multiple_of(3) {
                        words.insert(0, ("progress", "p", json!({"state":"running","percent":1})));
                        words.insert(0, ("ack", "a", json!({"accepted":true})));
                    }
                    let said = words.into_iter().all(|(kind, req_id, payload)| {
                        let reply =
                            json!({"cmd":"reply","req_id":req_id,"ref":id,"kind":kind,"payload":payload});
                        line.say(&reply).is_some()
                    });
                    if !said {
                        break;
                    }
                }
            }
        }
        done
    })
}

/// Everything that a consumer was given, by number.
#[derive(Default)]
struct Consumed {
    rows: BTreeMap<u64, Value>,
    /// Up to here its acks were ok.
    acked: u64,
    acks: u64,
}

/// Reads and acks, over all kills, until `stop` and nothing is left.
fn reader(socket: PathBuf, stop: Arc<AtomicBool>) -> JoinHandle<Consumed> {
    std::thread::spawn(move || {
        let mut seen = Consumed::default();
        let mut over = false;
        while !over {
            let mut line = Line::dial(&socket, "reader", || true).unwrap();
            loop {
                let last = stop.load(Ordering::Relaxed);
                let Some(page) = line.ask(json!({"cmd":"inbox","limit":300})) else { break };
                assert_eq!((&page["ok"], page.get("lost_before_seq")), (&json!(true), None), "{page}");
                for row in page["messages"].as_array().unwrap() {
                    let seq = row["seq"].as_u64().unwrap();
                    assert!(seq > seen.acked, "{seq} came again after the ack up to {}", seen.acked);
                    // An ack that nobody heard of may have failed: then the same row comes once more.
                    if let Some(before) = seen.rows.insert(seq, row.clone()) {
                        assert_eq!(&before, row, "a number is used once");
                    }
                }
                let Some(up_to) = page["next_seq"].as_u64() else {
                    over = last;
                    if over {
                        break;
                    }
                    // Nothing there now; to be shown it by events is another test's.
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                let Some(reply) = line.ask(json!({"cmd":"ack","up_to_seq":up_to})) else { break };
                assert_eq!((&reply["ok"], &reply["acked_seq"]), (&json!(true), &json!(up_to)), "{reply}");
                seen.acked = up_to;
                seen.acks += 1;
            }
        }
        seen
    })
}

/// The whole inbox as somebody new is given it.
fn audit(daemon: &Daemon) -> BTreeMap<u64, Value> {
    let mut client = daemon.connect();
    client.hello_as("auditor");
    let mut all = BTreeMap::new();
    loop {
        let page = client.ok(json!({"cmd":"inbox","limit":1000}));
        for row in page["messages"].as_array().unwrap() {
            all.insert(row["seq"].as_u64().unwrap(), row.clone());
        }
        if page["next_seq"].is_u64() {
            client.ok(json!({"cmd":"ack","up_to_seq":page["next_seq"]}));
        }
        if page["has_more"] == false {
            return all;
        }
    }
}

/// The numbers of one sender's messages, in the order of the inbox.
fn arrived(rows: &BTreeMap<u64, Value>, name: &str) -> Vec<u64> {
    let payloads = rows.values().map(|row| &row["envelope"]["payload"]);
    payloads
        .filter(|payload| payload["topic"] == name)
        .map(|payload| payload["data"].as_u64().unwrap())
        .collect()
}

/// Rows of messages and delegations of which more is still to come.
fn unfinished(name: &str, daemon: &Daemon, taken: &[Value]) -> Vec<String> {
    let mut client = daemon.client();
    let held = client.ok(json!({"cmd":"outbox","state":"held","limit":1}))["outbox"].clone();
    let mut open: Vec<String> =
        held.as_array().unwrap().iter().map(|row| format!("{name} holds {row}")).collect();
    for state in ["held", "sent", "queued", "accepted", "running"] {
        let reply = client.ok(json!({"cmd":"delegations","state":state,"limit":1000}));
        // One whose sender was killed before it heard anything, and that was not held, may never have left.
        let unheard = |row: &&Value| state == "sent" && !taken.contains(&row["id"]);
        let rows = reply["delegations"].as_array().unwrap().iter();
        open.extend(rows.filter(|row| !unheard(row)).map(|row| format!("{name} has {row}")));
    }
    open
}

#[test]
fn what_was_acked_is_there_once_over_kills_of_either_side() {
    // shows: IPC-BOX-12, IPC-BOX-2, IPC-ORD-8, IPC-OUT-1, IPC-OUT-3, IPC-OUT-4, IPC-SEND-6, WF-STR-12,
    // WF-REP-3, WF-REP-6, IPC-DLG-2, CORE-DEL-8, CORE-DEL-12, CORE-DEL-13, CORE-NOT-1
    let long = std::env::var_os("AXON_LONG").is_some();
    let rounds = if long { 200 } else { 6 };
    let seed = std::env::var("AXON_SEED").ok().map_or_else(
        || {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).unwrap();
            u64::from_le_bytes(bytes) | 1
        },
        |text| text.parse().expect("AXON_SEED is a number"),
    );
    let print = |text: String| {
        writeln!(std::io::stderr().lock(), "crash: {text}").ok();
    };
    print(format!("AXON_SEED={seed}, {rounds} rounds"));
    let mut dice = Dice(seed);
    // A program that stays the same, however long this takes.
    let programs = tempfile::tempdir().unwrap();
    if long {
        let copy = programs.path().join("axon");
        std::fs::copy(AXON, &copy).unwrap();
        MEASURED.set(copy).unwrap();
    }
    let start = Instant::now();
    let (mut alice, mut bob) = pair_with(&format!("{SOON}{SENDER}{ROOM}"), &format!("{SOON}{SENDER}{ROOM}"));

    let stop = Arc::new(AtomicBool::new(false));
    let (settled, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let senders: Vec<JoinHandle<Sent>> = vec![
        in_turn(alice.socket(), "turn-1", 0, Arc::clone(&stop)),
        in_turn(alice.socket(), "turn-2", 0, Arc::clone(&stop)),
        at_once(alice.socket(), "once-1", Arc::clone(&stop)),
        in_turn(alice.socket(), "held-1", 3600, Arc::clone(&stop)),
        in_turn(alice.socket(), "held-2", 280, Arc::clone(&stop)),
    ];
    let delegations = delegator(alice.socket(), Arc::clone(&stop));
    let agent = agent(bob.socket(), Arc::clone(&ended));
    let readers = [reader(bob.socket(), Arc::clone(&settled)), reader(alice.socket(), Arc::clone(&settled))];

    let mut kills = [0; 2];
    for _ in 0..rounds {
        // Any moment will do, so a moment is waited for and no event.
        std::thread::sleep(dice.ms(50, 700));
        assert!(!readers.iter().any(JoinHandle::is_finished), "seed {seed}: a reader has seen a fault");
        let victim = dice.roll(5);
        let both = victim == 4;
        if both || victim.is_multiple_of(2) {
            alice.kill9();
            kills[0] += 1;
        }
        if both || !victim.is_multiple_of(2) {
            bob.kill9();
            kills[1] += 1;
        }
        std::thread::sleep(dice.ms(0, 400)); // away for a while, as long as it likes
        for daemon in [&mut alice, &mut bob] {
            if !daemon.runs() {
                daemon.up();
            }
        }
    }
    rejoin(&alice, &bob);
    let load = start.elapsed();
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<Sent> = senders.into_iter().map(|thread| thread.join().unwrap()).collect();
    let given = delegations.join().unwrap();
    // What is held goes out, what was delegated is answered.
    let mut patience = Instant::now() + Duration::from_secs(60);
    let mut before = Vec::new();
    loop {
        let mut open = unfinished("sender", &alice, &given.taken);
        open.extend(unfinished("receiver", &bob, &given.taken));
        if open.is_empty() {
            break;
        }
        assert!(!readers.iter().any(JoinHandle::is_finished), "seed {seed}: a reader has seen a fault");
        open.truncate(5);
        if open != before {
            // Held messages leave one after another: as long as it goes on, it may take its time.
            patience = Instant::now() + Duration::from_secs(60);
            before.clone_from(&open);
        }
        assert!(Instant::now() < patience, "seed {seed}: waited in vain for {open:#?}");
        // No event exists for all of this together.
        std::thread::sleep(Duration::from_millis(50));
    }
    let settling = start.elapsed() - load;
    ended.store(true, Ordering::Relaxed);
    let answered = agent.join().unwrap();
    settled.store(true, Ordering::Relaxed);
    let [at_bob, at_alice] = readers.map(|thread| thread.join().unwrap());

    let (mut lost, mut duplicated, mut reordered, mut acked) = (0, 0, 0, 0);
    for one in &sent {
        let there = arrived(&at_bob.rows, &one.name);
        let once: BTreeSet<u64> = there.iter().copied().collect();
        let missing: Vec<u64> = one.acked.iter().copied().filter(|n| !once.contains(n)).collect();
        duplicated += there.len() - once.len();
        lost += missing.len();
        acked += one.acked.len();
        // Where each was waited for: in the order in which they were acked. Held ones all keep their order.
        let told: BTreeSet<u64> = one.acked.iter().copied().collect();
        let in_order: Vec<u64> = match one.name.split('-').next() {
            Some("turn") => there.iter().copied().filter(|n| told.contains(n)).collect(),
            Some("held") => there.clone(),
            _ => Vec::new(),
        };
        reordered += in_order.windows(2).filter(|two| two[0] >= two[1]).count();
        let name = &one.name;
        print(format!(
            "{name}: {} given, {} acked, {} there, failed {:?}, missing {missing:?}",
            one.tried,
            one.acked.len(),
            there.len(),
            one.failed
        ));
        assert!(there.iter().all(|n| *n < one.tried), "nothing that nobody sent");
        assert!(!one.acked.is_empty(), "{name} got something through");
    }
    let mut results: HashMap<String, Vec<Value>> = HashMap::new();
    for row in at_alice.rows.values().filter(|row| row["envelope"]["kind"] == "result") {
        let about = row["envelope"]["ref"].as_str().unwrap().to_owned();
        results.entry(about).or_default().push(row["envelope"]["payload"].clone());
    }
    let many = results.values().filter(|one| one.len() > 1).count();
    let without: Vec<&Value> =
        given.taken.iter().filter(|id| !results.contains_key(id.as_str().unwrap())).collect();
    let completed = |id: &&String| results.get(*id).is_some_and(|one| one[0]["status"] == "completed");
    let thrown_away: Vec<&String> = answered.iter().filter(|id| !completed(id)).collect();
    print(format!(
        "delegations: {} given, {} taken, {} failed, {} results ({} completed), {many} twice, without \
         {without:?}",
        given.tried,
        given.taken.len(),
        given.failed,
        results.len(),
        results.values().filter(|one| one[0]["status"] == "completed").count(),
    ));
    print(format!(
        "rounds {rounds} (sender killed {}, receiver {}), messages acked {acked}, lost {lost}, duplicated \
         {duplicated}, out of order {reordered}, acks of the reader {}, load {:.1} s, \
         then {:.1} s, all {:.1} s",
        kills[0],
        kills[1],
        at_bob.acks,
        load.as_secs_f64(),
        settling.as_secs_f64(),
        start.elapsed().as_secs_f64()
    ));
    assert_eq!((lost, duplicated, reordered), (0, 0, 0), "seed {seed}");
    assert_eq!((many, without.len()), (0, 0), "seed {seed}");
    assert!(thrown_away.is_empty(), "work that was done was thrown away: {thrown_away:?}, seed {seed}");
    assert!(!given.taken.is_empty() && !answered.is_empty());

    // Somebody new is given the same, as far as it is still there.
    for (daemon, consumed) in [(&bob, &at_bob), (&alice, &at_alice)] {
        let audited = audit(daemon);
        let first = *audited.keys().next().expect("what is read stays while there is room");
        let recent: BTreeMap<u64, Value> =
            consumed.rows.range(first..).map(|(seq, row)| (*seq, row.clone())).collect();
        assert_eq!(audited.len(), recent.len(), "seed {seed}");
        assert!(audited == recent, "the consumer was given what is there, seed {seed}");
    }
}
