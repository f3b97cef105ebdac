//! What the core costs, measured on real daemons:
//! `cargo build --release && cargo run --release --example bench [-- --short]`.
//!
//! An example and not a `[[bench]]`: `cargo bench` would build and measure another program than the released
//! one, which unwinds and is larger.
//!
//! Prints one table row a figure. Nothing here passes or fails on time: the figures go into
//! `benches/README.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Daemon, pair, pair_with, wait_for};

fn main() {
    // target/release/examples/bench measures target/release/axon.
    let exe = std::env::current_exe().unwrap();
    let program = exe.parent().and_then(std::path::Path::parent).unwrap().join("axon");
    assert!(program.exists(), "build it first: cargo build --release");
    support::MEASURED.set(program).unwrap();
    let short = std::env::args().any(|arg| arg == "--short");
    let count = if short { 300 } else { 5_000 };
    println!("| figure | value |\n|---|---|");
    memory_and_latency(count);
    kept(count, if short { 1 } else { 5 });
    concurrency();
    killed_peer();
    restarted_peer(if short { 1 } else { 5 });
    starting(if short { 3 } else { 20 });
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("| {name} | {value} |");
}

/// The median, the 90th and the 99th part in a hundred, in the unit given.
fn spread(mut times: Vec<Duration>, unit: Duration, name: &str) -> String {
    times.sort_unstable();
    let at = |part: usize| {
        times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() / unit.as_secs_f64()
    };
    format!("{:.1} / {:.1} / {:.1} {name}", at(50), at(90), at(99))
}

/// A line of `/proc/<pid>/status`, where there is one.
fn proc_status(daemon: &Daemon, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.map_or_else(
        || "not told by this system".into(),
        |rest| rest.trim_start_matches(':').trim().to_owned(),
    )
}

/// An agent that answers every query with its own text after a pause, many at once.
fn agent(daemon: &Daemon, pause: Duration, capacity: u32) -> JoinHandle<()> {
    let mut client = daemon.client();
    client.subscribe(json!({"answer":["query"],"capacity":capacity}));
    let mut stream = client.into_stream();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
            let event: Value = serde_json::from_str(&line).unwrap();
            line.clear();
            let Some(id) = event["envelope"]["id"].as_str().map(str::to_owned) else { continue };
            let answer = move || {
                let text = "x".repeat(180);
                let reply = json!({"cmd":"reply","req_id":"a","ref":id,"kind":"response",
                    "payload":{"data":null,"summary":text}});
                stream_write(&mut stream, &reply);
                stream
            };
            if pause.is_zero() {
                stream = answer();
            } else {
                stream = reader.get_ref().try_clone().unwrap();
                std::thread::spawn(move || {
                    std::thread::sleep(pause);
                    answer();
                });
            }
        }
    })
}

fn stream_write(stream: &mut UnixStream, value: &Value) {
    // The daemon may have ended already, as the benchmark does.
    stream.write_all(format!("{value}\n").as_bytes()).ok();
}

fn query(to: &str, req_id: usize) -> Value {
    json!({"cmd":"send","req_id":req_id.to_string(),"to":to,"kind":"query","payload":{"question":"q".repeat(60)}})
}

fn memory_and_latency(count: usize) {
    let alone = Daemon::start("");
    row("VmRSS, alone, idle", proc_status(&alone, "VmRSS"));
    drop(alone);
    let (alice, bob) = pair();
    row("VmRSS, one peer connected, idle", proc_status(&alice, "VmRSS"));
    let _agent = agent(&bob, Duration::ZERO, 256);
    let mut client = alice.client();
    let mut times = Vec::with_capacity(count);
    for number in 0..count + count / 10 {
        let began = Instant::now();
        let reply = client.cmd(query("bob", number));
        assert_eq!(reply["response"]["kind"], "response", "{reply}");
        if number >= count / 10 {
            times.push(began.elapsed());
        }
    }
    row(
        "query answered by an agent, 1 in flight, p50 / p90 / p99",
        spread(times, Duration::from_micros(1), "µs"),
    );

    let mut stream = client.into_stream();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    let total = count * 4;
    let began = Instant::now();
    for number in 0..64 {
        stream_write(&mut stream, &query("bob", number));
    }
    for number in 64..total + 64 {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if number < total {
            stream_write(&mut stream, &query("bob", number));
        }
        assert!(line.starts_with("{\"ok\":true"), "{line}");
    }
    let rate = total as f64 / began.elapsed().as_secs_f64();
    row("queries a second, 64 in flight", format!("{rate:.0}"));

    let mut client = alice.client();
    let notify = json!({"cmd":"send","to":"bob","kind":"notify","payload":{"topic":"bench","data":"x"}});
    let mut times = Vec::new();
    for _ in 0..count / 5 {
        let began = Instant::now();
        client.ok(notify.clone());
        times.push(began.elapsed());
    }
    row(
        "notify until `delivered`, 1 in flight, p50 / p90 / p99",
        spread(times, Duration::from_micros(1), "µs"),
    );
    row("VmRSS, after that load (asking side)", proc_status(&alice, "VmRSS"));
    row("VmRSS, after that load (answering side)", proc_status(&bob, "VmRSS"));
}

/// Notifications that are on the receiver's disk before they are acknowledged, beside a loop that appends as
/// many bytes to a file and syncs it, on the same disk, in turns.
fn kept(count: usize, rounds: usize) {
    let (alice, bob) = pair_with("", "[ipc]\nbuffer_size = 1000000\nbuffer_byte_cap = 1073741824\n");
    let _agent = agent(&bob, Duration::ZERO, 256);
    let mut client = alice.client();
    let notify =
        json!({"cmd":"send","to":"bob","kind":"notify","payload":{"topic":"bench","data":"x".repeat(205)}});
    assert_eq!(client.ok(notify.clone())["state"], "delivered");
    let raw = bob.root().join("raw");
    let unit = Duration::from_micros(1);
    let (mut ones, mut manys, mut loops, mut asks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut ratios = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let appended = raw_loop(&raw, count / 5);
        let mut times = Vec::new();
        for number in 0..count / 5 {
            let began = Instant::now();
            client.cmd(query("bob", number));
            times.push(began.elapsed());
        }
        let asked = median(&mut times);
        let mut times = Vec::new();
        for _ in 0..count / 5 {
            let began = Instant::now();
            assert_eq!(client.ok(notify.clone())["state"], "delivered");
            times.push(began.elapsed());
        }
        let one = median(&mut times);
        let total = count * 2;
        let mut stream = alice.client().into_stream();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        let numbered = |number: usize| {
            let mut notify = notify.clone();
            notify["req_id"] = number.to_string().into();
            notify
        };
        let began = Instant::now();
        (0..64).for_each(|number| stream_write(&mut stream, &numbered(number)));
        for number in 64..total + 64 {
            line.clear();
            reader.read_line(&mut line).unwrap();
            assert!(line.contains("delivered"), "{line}");
            if number < total {
                stream_write(&mut stream, &numbered(number));
            }
        }
        let each = began.elapsed() / u32::try_from(total).unwrap();
        ratios[0].push(one.as_secs_f64() / (2.0 * appended.as_secs_f64() + asked.as_secs_f64()));
        ratios[1].push(appended.as_secs_f64() / each.as_secs_f64());
        ones.push(one);
        manys.push(each);
        loops.push(appended);
        asks.push(asked);
    }
    let us = |times: &mut [Duration]| format!("{:.0} µs", median(times).as_secs_f64() / unit.as_secs_f64());
    row("append of 256 bytes and fdatasync, in a loop", us(&mut loops));
    row("query round trip in the same run", us(&mut asks));
    row("kept notify until `delivered`, 256 B, 1 in flight", us(&mut ones));
    let rate = 1.0 / median(&mut manys).as_secs_f64();
    row("kept notify, 256 B, 64 in flight", format!("{rate:.0} a second"));
    let range = |ratios: &mut [f64]| {
        ratios.sort_by(f64::total_cmp);
        let last = ratios.len() - 1;
        format!("{:.2} ({:.2} to {:.2})", ratios[last / 2], ratios[0], ratios[last])
    };
    row("1 in flight, over two appends and a query (aim: under 1)", range(&mut ratios[0]));
    row("64 in flight, over the append loop's rate (aim: 10 or more)", range(&mut ratios[1]));
    row("VmRSS, receiving side, with what is unread", proc_status(&bob, "VmRSS"));
    let unread = bob.client().ok(json!({"cmd":"status"}))["inbox_unread"].clone();
    row("messages unread then", unread);
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// What one append of 256 bytes and its sync take, on the median.
fn raw_loop(path: &std::path::Path, count: usize) -> Duration {
    let mut file = std::fs::File::create(path).unwrap();
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        file.write_all(&[b'x'; 256]).unwrap();
        file.sync_data().unwrap();
        times.push(began.elapsed());
    }
    median(&mut times)
}

fn concurrency() {
    let (alice, bob) = pair();
    let _agent = agent(&bob, Duration::from_millis(50), 64);
    let mut client = alice.client();
    client.ok(query("bob", 0));
    let began = Instant::now();
    let ids: Vec<String> = (1..=64).map(|number| client.begin(query("bob", number))).collect();
    for id in ids {
        assert_eq!(client.finish(&id)["ok"], true);
    }
    row(
        "64 queries at once, an agent that takes 50 ms each",
        format!("{:.0} ms", began.elapsed().as_secs_f64() * 1e3),
    );
}

fn killed_peer() {
    let (alice, mut bob) = pair();
    bob.kill9();
    let mut asker = alice.client();
    let began = Instant::now();
    let id = asker.begin(query("bob", 1));
    let mut other = alice.client();
    let done = std::thread::spawn(move || (asker.finish(&id), began.elapsed()));
    let mut slowest = Duration::ZERO;
    while !done.is_finished() {
        let began = Instant::now();
        other.ok(json!({"cmd":"status"}));
        slowest = slowest.max(began.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    let (reply, took) = done.join().unwrap();
    assert_eq!(reply["error"], "peer_unreachable", "{reply}");
    row("query to a peer killed by -9, until it fails", format!("{:.2} s", took.as_secs_f64()));
    row("`status` meanwhile, the slowest", format!("{:.1} ms", slowest.as_secs_f64() * 1e3));
}

fn restarted_peer(rounds: usize) {
    for killed_first in [true, false] {
        let (mut alice, mut bob) = pair();
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            // The one that is killed is once the side that dialled and once the one that accepted, by id.
            let (killed, other) = if killed_first { (&mut alice, &bob) } else { (&mut bob, &alice) };
            killed.kill9();
            killed.launch();
            let began = Instant::now();
            let other_id = other.id().to_owned();
            let killed_id = killed.id().to_owned();
            let mut client = other.client();
            answered(&mut client, &killed_id);
            times[0].push(began.elapsed());
            killed.wait_up();
            let mut client = killed.client();
            answered(&mut client, &other_id);
            times[1].push(began.elapsed());
        }
        let [there, back] = times;
        let who = match (alice.id() < bob.id()) == killed_first {
            true => "lower id",
            false => "higher id",
        };
        let unit = Duration::from_millis(1);
        row(
            &format!("peer ({who}) killed and restarted: reached by the other, p50 / p90 / p99"),
            spread(there, unit, "ms"),
        );
        row("the same: reaches the other itself", spread(back, unit, "ms"));
    }
}

fn answered(client: &mut support::RawClient, peer: &str) {
    wait_for("a ping to be answered", || {
        let reply = client.cmd(json!({"cmd":"send","to":peer,"kind":"ping","payload":{}}));
        (reply["response"]["kind"] == "pong").then_some(())
    });
}

fn starting(rounds: usize) {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let mut daemon = Daemon::start("");
        assert!(daemon.terminate().success());
        let began = Instant::now();
        daemon.launch();
        while UnixStream::connect(daemon.socket()).is_err() {
            std::thread::sleep(Duration::from_micros(200));
        }
        times.push(began.elapsed());
    }
    row("start to a listening socket, warm, p50 / p90 / p99", spread(times, Duration::from_millis(1), "ms"));
}
