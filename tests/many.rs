//! Eighteen clients that write and ack at once: nothing is lost, nothing comes twice, nothing is changed.
//!
//! The short form goes on for three seconds, with `AXON_LONG=1` for thirty.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{RawClient, pair_with};

/// Clients of each daemon.
const CLIENTS: usize = 9;
const ROOM: &str = "[ipc]\nbuffer_size = 1000000\nbuffer_byte_cap = 1073741824\n";
/// Sends of one client before it reads.
const TURN: usize = 8;

/// A checksum that every message carries of itself.
fn sum(name: &str, n: u64, pad: &str) -> String {
    let bytes = name.bytes().chain(n.to_le_bytes()).chain(pad.bytes());
    let fnv = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{fnv:016x}")
}

/// Text of up to two kilobytes that differs from message to message, and is not all plain letters.
fn pad(name: &str, n: u64) -> String {
    let seed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(name.len() as u64);
    let length = seed % 700;
    (0..length)
        .map(|at| ['a', 'ß', '"', '\\', '\n', '🦀', 'z', ' '][((seed >> (at % 48)) % 8) as usize])
        .collect()
}

fn message(to: &str, name: &str, n: u64) -> Value {
    let pad = pad(name, n);
    let data = json!({"n":n,"sum":sum(name, n, &pad),"pad":pad});
    json!({"cmd":"send","to":to,"kind":"notify","payload":{"topic":name,"data":data}})
}

/// What one consumer was given: of each sender its numbers in order.
type Got = HashMap<String, Vec<u64>>;

/// Reads and acks until nothing is left.
fn catch_up(client: &mut RawClient, got: &mut Got, last: &mut u64) {
    loop {
        let page = client.ok(json!({"cmd":"inbox","limit":200}));
        assert_eq!(page.get("lost_before_seq"), None);
        for row in page["messages"].as_array().unwrap() {
            let seq = row["seq"].as_u64().unwrap();
            assert!(seq > *last, "{seq} after {last}");
            *last = seq;
            let payload = &row["envelope"]["payload"];
            let (name, data) = (payload["topic"].as_str().unwrap(), &payload["data"]);
            let n = data["n"].as_u64().unwrap();
            assert_eq!(data["sum"], sum(name, n, data["pad"].as_str().unwrap()), "{name} {n} was changed");
            got.entry(name.to_owned()).or_default().push(n);
        }
        if page["next_seq"].is_u64() {
            let reply = client.ok(json!({"cmd":"ack","up_to_seq":page["next_seq"]}));
            assert_eq!(reply["acked_seq"], page["next_seq"]);
        }
        if page["has_more"] == false {
            return;
        }
    }
}

#[test]
fn eighteen_clients_write_and_ack_at_once() {
    // shows: IPC-BOX-2, IPC-BOX-5, IPC-ORD-1, IPC-ORD-3, IPC-ORD-7, IPC-ORD-8, IPC-SEND-6, IPC-INB-1
    let long = std::env::var_os("AXON_LONG").is_some();
    let time = Duration::from_secs(if long { 30 } else { 3 });
    let (alice, bob) = pair_with(ROOM, ROOM);
    let start = Instant::now();
    let all_sent = Arc::new(Barrier::new(2 * CLIENTS));
    let mut threads = Vec::new();
    for (side, daemon, to) in [("alice", &alice, "bob"), ("bob", &bob, "alice")] {
        for index in 0..CLIENTS {
            let name = format!("{side}-{index}");
            let mut client = daemon.connect();
            client.hello_as(&name);
            let all_sent = Arc::clone(&all_sent);
            threads.push(std::thread::spawn(move || {
                let (mut got, mut last, mut sent, mut slowest) = (Got::new(), 0, 0, Duration::ZERO);
                while start.elapsed() < time {
                    // Some wait for each reply, others have a few under way.
                    let under_way = if index % 2 == 0 { 1 } else { TURN };
                    for _ in 0..TURN / under_way {
                        let asked = Instant::now();
                        let reqs: Vec<String> = (0..under_way)
                            .map(|at| client.begin(message(to, &name, sent + at as u64)))
                            .collect();
                        for req in reqs {
                            let reply = client.finish(&req);
                            assert_eq!(
                                (&reply["ok"], &reply["state"]),
                                (&json!(true), &json!("delivered")),
                                "{reply}"
                            );
                        }
                        sent += under_way as u64;
                        slowest = slowest.max(asked.elapsed());
                    }
                    catch_up(&mut client, &mut got, &mut last);
                }
                all_sent.wait();
                catch_up(&mut client, &mut got, &mut last);
                (name, index % 2 == 0, sent, got, slowest)
            }));
        }
    }
    let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let sent: BTreeMap<&str, (u64, bool)> =
        ended.iter().map(|(name, in_turn, sent, ..)| (name.as_str(), (*sent, *in_turn))).collect();
    let (mut lost, mut duplicated, mut reordered) = (0, 0, 0);
    for (reader, _, _, got, _) in &ended {
        let from = if reader.starts_with("alice") { "bob" } else { "alice" };
        for (name, (count, in_turn)) in sent.iter().filter(|(name, _)| name.starts_with(from)) {
            let numbers = got.get(*name).cloned().unwrap_or_default();
            let once: BTreeSet<u64> = numbers.iter().copied().collect();
            lost += (0..*count).filter(|n| !once.contains(n)).count();
            duplicated += numbers.len() - once.len();
            reordered += numbers.windows(2).filter(|two| *in_turn && two[0] >= two[1]).count();
        }
        assert!(got.keys().all(|name| name.starts_with(from)), "{:?}", got.keys());
    }
    let total: u64 = ended.iter().map(|(_, _, sent, ..)| sent).sum();
    let slowest = ended.iter().map(|one| one.4).max().unwrap();
    writeln!(
        std::io::stderr().lock(),
        "many: {} clients, {total} messages, lost {lost}, duplicated {duplicated}, out of order {reordered}, \
         slowest turn {slowest:?}, {:.1} s",
        2 * CLIENTS,
        start.elapsed().as_secs_f64()
    )
    .ok();
    assert_eq!((lost, duplicated, reordered), (0, 0, 0));
    assert!(total > 0);
}
