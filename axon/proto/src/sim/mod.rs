//! A seeded network of nodes, with a virtual clock and simulated disks.
//!
//! [`run`] plays the shell of every node as the daemon does: it carries out effects and feeds inputs. Clients
//! at each node ask, delegate, notify, cancel, subscribe, answer, read and acknowledge at random. Faults come
//! at random: links lose, delay, reorder and repeat; nodes are parted, crash, lose power, and come back;
//! disks stall, fill up and fail; wall clocks jump; clients read slowly or vanish. After every step what
//! must hold is checked (`checks`). Then all is healed, and what was promised must be found kept. A run
//! depends on its seed and [`Plan`] alone.
//!
//! Instead of clients that do things at random there is a `scenario`, so that a [`Fault`] can be put at every
//! place of it in turn: the nth write, sync, message, question for room.

mod audit;
mod checks;
mod clients;
pub mod disk;
mod faults;
mod host;
mod net;
mod published;
mod rng;
mod scenario;
pub mod topics;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use checks::Promises;
use clients::Say;
use host::Host;
use net::{Exchange, Wire};
use published::Published;
pub use rng::Rng;
use rng::Trace;

pub use crate::fault::{Fault, Point, Sort};
use crate::fault::{arm, heal};
use crate::id::PublicKey;
use crate::node::{ClientId, DialId, Now, StaticPeer, StreamId, Token};

/// Unix time at the beginning of every run.
const WALL_MS: u64 = 1_795_000_000_000;
/// Violations after which a run ends.
const VIOLATIONS_MAX: usize = 8;
/// Lines of the story that are kept.
const STORY_MAX: usize = 200_000;

/// How a run is to be.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Everything that is random comes from it.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// After so many events all is healed, and the end is awaited.
    pub steps: u64,
    /// Whether there are faults.
    pub faults: bool,
    /// What is done is the scenario's, and nothing random; it has its own number of nodes, and its own end.
    pub scenario: bool,
    /// One thing that goes wrong besides, at a place that is chosen and not random.
    pub fault: Option<Fault>,
    /// Whether to write down what happens, for [`Report::story`].
    pub story: bool,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// In which step.
    pub step: u64,
    /// At which time of the run.
    pub at_ms: u64,
    /// At which node.
    pub host: usize,
    /// What must hold.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Events that were handled.
    pub steps: u64,
    /// Virtual time that has passed.
    pub virtual_ms: u64,
    /// Commands that clients gave, by what came of them: `ok`, or the error.
    pub replies: BTreeMap<String, u64>,
    /// Messages whose senders were told that they are on the other disk.
    pub delivered: u64,
    /// Messages of topics that readers were shown, each counted once for each reader.
    pub shown: u64,
    /// Calls at each fault point before all was healed, where they were counted: in a scenario, and where
    /// the plan has a fault.
    pub counts: BTreeMap<Point, u64>,
    /// The bounds that were asked for room until then, in order.
    pub asked: Vec<&'static str>,
    /// The bounds that were made to say no.
    pub refused: Vec<&'static str>,
    /// How often the fault of the plan was met.
    pub failed: u64,
    /// Faults that were made, by sort.
    pub faults: BTreeMap<&'static str, u64>,
    /// Of all that happened: the same seed gives the same.
    pub hash: u64,
    /// What must not be.
    pub violations: Vec<Violation>,
    /// What happened, line by line, if the plan asked for it.
    pub story: Vec<String>,
}

/// What is to happen.
#[derive(Debug, Clone)]
enum Ev {
    Timer { host: usize, life: u32, at_ms: u64 },
    Disk { host: usize, life: u32 },
    DialTry { host: usize, life: u32, dial: DialId, to: usize, hello: Arc<str>, token: Token, until: u64 },
    DialRefused { host: usize, life: u32, dial: DialId },
    Connected { wire: usize, side: usize, hello: Option<(Token, Arc<str>)> },
    Arrive { ex: u64 },
    Answer { ex: u64, answer: Option<Arc<str>> },
    Acked { ex: u64 },
    Overdue { ex: u64 },
    Again { from: usize, to: usize, bidi: bool, bytes: Arc<str> },
    StreamGone { host: usize, life: u32, stream: StreamId },
    Lost { wire: usize, side: usize, why: &'static str },
    Idle { wire: usize },
    Silence { wire: usize, side: usize },
    Over { wire: usize, side: usize },
    Act { host: usize },
    Step { n: usize },
    Say { host: usize, life: u32, client: ClientId, say: Box<Say> },
    Drain { host: usize, life: u32, client: ClientId },
    ReplyDue { host: usize, life: u32, client: ClientId, req_id: String },
    Fault,
    Start { host: usize },
    Heal { host: Option<usize> },
    DiskWell { host: usize },
}

/// What a seed makes likely; so that seeds differ more than by their dice.
#[derive(Debug, Clone, Copy)]
struct Weather {
    latency_ms: (u64, u64),
    lost: u64,
    again: u64,
    fault_every_ms: u64,
    act_every_ms: u64,
    /// Which sorts of faults there are, by bit.
    sorts: u64,
}

/// A run.
struct Sim {
    plan: Plan,
    now: u64,
    step: u64,
    rng: Rng,
    weather: Weather,
    hosts: Vec<Host>,
    /// Which nodes know each other.
    links: Vec<(usize, usize)>,
    wires: Vec<Wire>,
    live_wires: BTreeSet<usize>,
    exchanges: HashMap<u64, Exchange>,
    queue: BTreeMap<(u64, u64), Ev>,
    /// What waits for a link to come back.
    stalled: Vec<Ev>,
    count: u64,
    ids: u64,
    cut: BTreeSet<(usize, usize)>,
    /// No more faults and no more new commands.
    calm: bool,
    /// The link of the last invite.
    link: Option<String>,
    /// The scenario is over.
    played: bool,
    promises: Promises,
    published: Published,
    trace: Trace,
    report: Report,
}

/// Plays one seed.
pub fn run(plan: Plan) -> Report {
    let mut sim = Sim::new(plan);
    let armed = (plan.scenario || plan.fault.is_some()).then(|| arm(plan.fault));
    sim.begin();
    while sim.step < plan.steps && !sim.played && sim.go() {}
    heal();
    if let Some(armed) = armed {
        let report = &mut sim.report;
        (report.counts, report.asked) = (armed.counts(), armed.asked());
        (report.refused, report.failed) = (armed.refused(), armed.failed());
    }
    if sim.report.violations.is_empty() {
        sim.settle();
    }
    sim.report.steps = sim.step;
    sim.report.virtual_ms = sim.now;
    sim.report.hash = sim.trace.0;
    (sim.report.delivered, sim.report.shown) = (sim.promises.delivered(), sim.published.shown());
    sim.report
}

impl Sim {
    fn new(mut plan: Plan) -> Self {
        if plan.scenario {
            (plan.nodes, plan.faults) = (scenario::NODES, false);
        }
        let mut rng = Rng::new(plan.seed ^ 0x5eed_0000_0000_0000);
        let latency = [(0, 2), (1, 20), (20, 80), (1, 400)];
        let mut weather = Weather {
            latency_ms: latency[usize::try_from(rng.below(4)).unwrap_or_default()],
            lost: [0, 10, 50, 200][usize::try_from(rng.below(4)).unwrap_or_default()],
            again: [0, 20, 100][usize::try_from(rng.below(3)).unwrap_or_default()],
            fault_every_ms: rng.range(200, 4_000) * 10 / (plan.nodes as u64).max(10),
            act_every_ms: rng.range(100, 1_500),
            sorts: rng.number() | rng.number(),
        };
        if plan.scenario {
            weather.latency_ms = (1, 20);
        }
        let mut keys: Vec<PublicKey> = Vec::new();
        for n in 0..plan.nodes {
            let mut key = [0x11; 32];
            key.iter_mut().zip((n as u64 + 1).to_be_bytes()).for_each(|(byte, of)| *byte = of);
            keys.push(PublicKey(key));
        }
        let mut links = BTreeSet::new();
        for a in 1..plan.nodes {
            // A ring, so that all belong together, and some more.
            links.insert((a - 1, a));
            let b = usize::try_from(rng.below(plan.nodes as u64)).unwrap_or_default();
            if a != b {
                links.insert((a.min(b), a.max(b)));
            }
        }
        if plan.scenario {
            links = scenario::LINKS.into();
        }
        let links: Vec<(usize, usize)> = links.into_iter().collect();
        let mut hosts = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let mut peers = Vec::new();
            for (a, b) in &links {
                let other = if *a == at { *b } else { *a };
                if (*a == at || *b == at) && other < keys.len() {
                    peers.push(StaticPeer {
                        agent_id: keys[other].agent_id(),
                        pubkey: keys[other],
                        addr: "192.0.2.1:7100".into(),
                        name: None,
                    });
                }
            }
            let neighbours = links.iter().filter(|(a, b)| *a == at || *b == at);
            let neighbours = neighbours.map(|(a, b)| if *a == at { *b } else { *a }).collect();
            let mut host = Host::new(*key, peers, neighbours, &mut rng);
            if plan.scenario {
                host.for_scenario();
            }
            hosts.push(host);
        }
        Self {
            plan,
            now: 1_000,
            step: 0,
            rng,
            weather,
            hosts,
            links,
            wires: Vec::new(),
            live_wires: BTreeSet::new(),
            exchanges: HashMap::new(),
            queue: BTreeMap::new(),
            stalled: Vec::new(),
            count: 0,
            ids: 0,
            cut: BTreeSet::new(),
            calm: false,
            link: None,
            played: false,
            promises: Promises::default(),
            published: Published::default(),
            trace: Trace(plan.seed),
            report: Report::default(),
        }
    }

    fn begin(&mut self) {
        if self.plan.scenario {
            return self.begin_scenario();
        }
        for host in 0..self.hosts.len() {
            let (start, act) = (self.rng.below(2_000), self.rng.below(4_000));
            self.after(start, Ev::Start { host });
            self.after(act, Ev::Act { host });
        }
        if self.plan.faults {
            self.after(3_000, Ev::Fault);
        }
    }

    /// One event; false: there is nothing left to do, or enough is wrong.
    fn go(&mut self) -> bool {
        let Some(((at_ms, _), event)) = self.queue.pop_first() else { return false };
        self.now = self.now.max(at_ms);
        self.step += 1;
        self.trace.number(self.now);
        self.happen(event);
        self.report.violations.len() < VIOLATIONS_MAX
    }

    fn run_for(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.queue.first_key_value().is_some_and(|((at_ms, _), _)| *at_ms <= until) {
            if !self.go() {
                return;
            }
        }
        self.now = until;
    }

    fn after(&mut self, ms: u64, event: Ev) {
        self.count += 1;
        self.queue.insert((self.now + ms, self.count), event);
    }

    fn clock(&self, host: usize) -> Now {
        Now {
            mono_ms: self.now,
            wall_ms: (WALL_MS + self.now).saturating_add_signed(self.hosts[host].skew_ms),
        }
    }

    fn alive(&self, host: usize, life: u32) -> bool {
        self.hosts[host].node.is_some() && self.hosts[host].life == life
    }

    fn fresh(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn happen(&mut self, event: Ev) {
        match event {
            Ev::Timer { host, life, at_ms } => self.timer(host, life, at_ms),
            Ev::Disk { host, life } => self.disk(host, life),
            Ev::Act { host } => self.act(host),
            Ev::Step { n } => self.step_of_scenario(n),
            Ev::Say { host, life, client, say } => self.say_later(host, life, client, *say),
            Ev::Drain { host, life, client } => self.drain(host, life, client),
            Ev::ReplyDue { host, life, client, req_id } => self.reply_due(host, life, client, &req_id),
            Ev::Fault => self.fault(),
            Ev::Start { host } => self.start(host),
            Ev::Heal { host } => self.heal(host),
            Ev::DiskWell { host } => self.disk_well(host),
            event => self.travel(event),
        }
    }

    fn wrong(&mut self, host: usize, rule: &'static str, what: String) {
        self.story(|| format!("node {host} BREAKS {rule}: {what}"));
        let (step, at_ms) = (self.step, self.now);
        self.report.violations.push(Violation { step, at_ms, host, rule, what });
    }

    fn story(&mut self, line: impl FnOnce() -> String) {
        if self.plan.story && self.report.story.len() < STORY_MAX {
            let line = format!("{:>8} {:>7} {}", self.step, self.now, line());
            self.report.story.push(line);
        }
    }
}
