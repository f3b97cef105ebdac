//! Everything at once, at random: the line gets better and worse, ways are cut, daemons stop or are
//! killed and come back, addresses change, and all the while everybody asks and tells everybody. Then all
//! is healed, and what was promised must be found kept.

use std::collections::BTreeMap;
use std::time::Duration;

use axon_proto::limits::REPLY_GRACE_MS;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::host::{Asked, Client, Host, hosts};
use super::wire::Weather;
use super::{World, dice, play};

const NAMES: [&str; 3] = ["a", "b", "c"];
/// How long it lasts, in steps.
const STEPS: u64 = 600;
const STEP: Duration = Duration::from_millis(100);
const DEADLINE_MS: u64 = 10_000;
/// Longest wait until all is well again, when all is healed: the longest wait between two attempts, and one.
const HEALS: Duration = Duration::from_secs(45);
/// Held messages go out again after a minute at the latest.
const ARRIVES: Duration = Duration::from_secs(70);

/// What is to be done, and when.
enum Later {
    Start(usize),
    Join(usize, usize),
    Home(usize),
}

/// A query, and what came of it.
struct Query {
    to: usize,
    question: String,
    at_ms: u64,
    ended: JoinHandle<(u64, Option<Result<String, String>>)>,
}

/// Something told, and what came of it.
struct Note {
    to: usize,
    text: String,
    ended: JoinHandle<Option<Result<String, String>>>,
}

struct Storm {
    world: World,
    hosts: Vec<Host>,
    clients: Vec<Option<Client>>,
    /// What the agents of each host were asked, before and after each crash of it.
    asked: Vec<Vec<Asked>>,
    crashed_ms: Vec<Vec<u64>>,
    later: BTreeMap<(u64, usize), Later>,
    queries: Vec<Query>,
    notes: Vec<Note>,
}

fn chance(per_mille: u64) -> bool {
    dice::within((0, 999)) < per_mille
}

fn one_of(count: usize) -> usize {
    usize::try_from(dice::within((0, count as u64 - 1))).unwrap()
}

fn weather() -> Weather {
    let quick = dice::within((1, 80));
    Weather {
        loss: dice::within((0, 200)),
        twice: dice::within((0, 100)),
        delay_ms: (quick, quick + dice::within((0, 120))),
        mtu: [1_232, 1_280, 1_472, 9_000][one_of(4)],
    }
}

impl Storm {
    async fn start(&mut self, host: usize) {
        self.hosts[host].start();
        self.asked[host].push(self.hosts[host].answer((0, 400)).await);
        self.clients[host] = Some(self.hosts[host].client().await.0);
    }

    fn after(&mut self, step: u64, steps: (u64, u64), what: Later) {
        let key = (step + dice::within(steps), self.later.len());
        self.later.insert(key, what);
    }

    async fn step(&mut self, step: u64) {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= step) {
            match entry.remove() {
                Later::Start(host) => self.start(host).await,
                Later::Join(a, b) => self.world.wire.part(self.hosts[a].addr, self.hosts[b].addr, false),
                Later::Home(host) if self.clients[host].is_some() => {
                    self.world.wire.rebind(self.hosts[host].addr, 7_100);
                }
                // It is at home since its start.
                Later::Home(_) => {}
            }
        }
        if chance(20) {
            self.world.wire.set(weather());
        }
        if chance(15) {
            let (a, b) = (one_of(3), one_of(3));
            self.world.wire.part(self.hosts[a].addr, self.hosts[b].addr, true);
            self.after(step, (3, 200), Later::Join(a, b));
        }
        if chance(15) {
            let host = one_of(3);
            if self.clients[host].take().is_some() {
                if chance(500) {
                    self.hosts[host].stop().await;
                } else {
                    self.hosts[host].crash().await;
                    self.crashed_ms[host].push(self.world.now_ms());
                }
                self.after(step, (1, 60), Later::Start(host));
            }
        }
        if chance(15) {
            let host = one_of(3);
            if self.clients[host].is_some() {
                let port = u16::try_from(dice::within((20_000, 60_000))).unwrap();
                self.world.wire.rebind(self.hosts[host].addr, port);
                self.after(step, (5, 100), Later::Home(host));
            }
        }
        for from in 0..3 {
            let to = (from + 1 + one_of(2)) % 3;
            let Some(client) = self.clients[from].clone() else { continue };
            if chance(250) {
                let long = "x".repeat(usize::try_from(dice::within((0, 9_000))).unwrap());
                let question = format!("question {} {long}", self.queries.len());
                let (client, asks, at_ms) = (client.clone(), question.clone(), self.world.now_ms());
                let ended = tokio::spawn(async move {
                    let began = Instant::now();
                    let outcome = client.query(NAMES[to], &asks, DEADLINE_MS).await;
                    (u64::try_from(began.elapsed().as_millis()).unwrap(), outcome)
                });
                self.queries.push(Query { to, question, at_ms, ended });
            }
            if chance(100) {
                let text = format!("note {}", self.notes.len());
                let tells = text.clone();
                let ended = tokio::spawn(async move { client.notify(NAMES[to], &tells, Some(3_600)).await });
                self.notes.push(Note { to, text, ended });
            }
        }
    }

    /// The storm is over: all run, and all reach all.
    async fn heal(&mut self) {
        self.world.wire.set(Weather::FAIR);
        for host in 0..3 {
            if self.clients[host].is_none() {
                self.start(host).await;
            }
            self.world.wire.rebind(self.hosts[host].addr, 7_100);
            for other in 0..3 {
                self.world.wire.part(self.hosts[host].addr, self.hosts[other].addr, false);
            }
        }
        let healed = Instant::now();
        for (host, client) in self.hosts.iter().zip(self.clients.iter().flatten()) {
            for name in NAMES.into_iter().filter(|name| *name != host.name) {
                while host.peer(client, name).await["status"] != "connected" {
                    assert!(healed.elapsed() <= HEALS, "{} does not find {name}", host.name);
                    sleep(STEP).await;
                }
            }
        }
        sleep(ARRIVES).await;
    }

    async fn check(self) {
        let mut asked = [(); 3].map(|()| BTreeMap::<String, u32>::new());
        for (sum, lives) in asked.iter_mut().zip(&self.asked) {
            for (question, times) in lives.iter().flat_map(Asked::times) {
                *sum.entry(question).or_default() += times;
            }
        }
        let mut good = 0;
        for Query { to, question, at_ms, ended } in self.queries {
            assert!(ended.is_finished(), "a query has no end: {question:.20}");
            let times = asked[to].get(&question).copied().unwrap_or_default();
            let (took_ms, outcome) = ended.await.unwrap();
            // WF-REP-3: a daemon that is killed may have forgotten it.
            let meanwhile = |crashed_ms: &&u64| (at_ms..at_ms + took_ms).contains(crashed_ms);
            let lives = 1 + self.crashed_ms[to].iter().filter(meanwhile).count();
            assert!(times as usize <= lives, "asked {times} times: {question:.20}");
            assert!(took_ms <= DEADLINE_MS + REPLY_GRACE_MS + 1, "{took_ms} ms: {question:.20}");
            if let Some(Ok(answer)) = outcome {
                assert!(answer == question && times > 0, "the answer to another: {question:.20}");
                good += 1;
            }
        }
        assert!(good >= 50, "{good} answers: a storm that lets nothing through shows nothing");
        let mut told = Vec::new();
        for host in &self.hosts {
            told.push(host.client().await.0.inbox().await);
        }
        for Note { to, text, ended } in self.notes {
            assert!(ended.is_finished(), "{text} has no end");
            let times = told[to].remove(&text).unwrap_or_default();
            match ended.await.unwrap() {
                Some(Ok(state)) => assert_eq!(times, 1, "{text} was {state}"),
                // It was refused, or its sender was killed before it said a word.
                _ => assert!(times <= 1, "{text} came {times} times"),
            }
        }
        assert!(told.iter().all(BTreeMap::is_empty), "what nobody said: {told:?}");
    }
}

pub(super) async fn storm(world: World) {
    let hosts = hosts(&world, &NAMES, true, "");
    let (clients, asked) = (vec![None, None, None], vec![Vec::new(), Vec::new(), Vec::new()]);
    let (later, queries, notes) = (BTreeMap::new(), Vec::new(), Vec::new());
    let crashed_ms = vec![Vec::new(), Vec::new(), Vec::new()];
    let mut storm = Storm { world, hosts, clients, asked, crashed_ms, later, queries, notes };
    for host in 0..3 {
        storm.start(host).await;
    }
    for step in 0..STEPS {
        storm.step(step).await;
        sleep(STEP).await;
    }
    storm.heal().await;
    storm.check().await;
}

#[test]
fn after_a_storm_what_was_promised_is_kept() {
    play("storm::after_a_storm", 6, storm);
}
