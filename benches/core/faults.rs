//! Agents that take their time, and peers that die.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::floor::args::Args;
use super::floor::figures::{tell, tell_head};
use super::floor::place::Regime;
use super::stage::{Node, parts};
use super::support::{Daemon, RawClient, wait_for};

pub fn concurrency(args: &Args, regime: Regime) {
    let (alice, bob) = Node::pair("", "");
    let _agent = agent(&bob, Duration::from_millis(50), 64);
    let mut client = alice.client();
    client.ok(query("bob", 0));
    let began = Instant::now();
    let ids: Vec<String> = (1..=64).map(|number| client.begin(query("bob", number))).collect();
    for id in ids {
        assert_eq!(client.finish(&id)["ok"], true);
    }
    let took = began.elapsed().as_secs_f64() * 1e3;
    tell_head(args, "an agent that takes its time");
    let name = "64 queries at once, an agent that takes 50 ms each, ms (aim: under 200)";
    tell(args, name, Some(regime), format!("{took:.0}"));
}

pub fn killed(args: &Args, regime: Regime) {
    let (alice, mut bob) = Node::pair("", "");
    bob.killed();
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
    tell_head(args, "a peer that was killed");
    let name = "query to a peer killed by -9, until it fails, s (aim: under 6)";
    tell(args, name, Some(regime), format!("{:.2}", took.as_secs_f64()));
    let name = "`status` meanwhile, the slowest, ms (aim: under 50)";
    tell(args, name, Some(regime), format!("{:.1}", slowest.as_secs_f64() * 1e3));
}

pub fn restarted(args: &Args, regime: Regime) {
    tell_head(args, "a peer killed and restarted, p50 / p90 / p99 (aim: within 2,000 ms)");
    for killed_first in [true, false] {
        let (mut alice, mut bob) = Node::pair("", "");
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..args.rounds {
            // The one that is killed is once the side that dialled and once the one that accepted, by id.
            let (killed, other) = if killed_first { (&mut alice, &bob) } else { (&mut bob, &alice) };
            killed.killed();
            killed.launched();
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
        let name = format!("peer ({who}) killed: reached by the other");
        tell(args, &name, Some(regime), parts(there, unit, "ms"));
        tell(args, "the same: reaches the other itself", Some(regime), parts(back, unit, "ms"));
    }
}

fn answered(client: &mut RawClient, peer: &str) {
    wait_for("a ping to be answered", || {
        let reply = client.cmd(json!({"cmd":"send","to":peer,"kind":"ping","payload":{}}));
        (reply["response"]["kind"] == "pong").then_some(())
    });
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
    let payload = json!({"question":"q".repeat(60)});
    json!({"cmd":"send","req_id":req_id.to_string(),"to":to,"kind":"query","payload":payload})
}
