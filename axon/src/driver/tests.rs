//! The whole shell under a clock that stands still: daemons as they are, with their nodes, loops, QUIC and
//! files, in one thread. The clock goes on only when nobody has anything to do. In place of the machine there
//! are a network of datagrams in memory (`wire`), one seed for all that is drawn at random (`dice`,
//! `crypto`), a task that is the disk's thread, and clients without sockets (`host`). The same seed gives the
//! same datagrams, to the byte.
//!
//! A run that fails says how it is run again. `AXON_SEEDS` says how many seeds each scenario is played with,
//! `AXON_SEED` that it is this one alone, and with `AXON_SHOW` and `--nocapture` each datagram is shown.

mod crypto;
mod dice;
mod host;
mod scenarios;
mod storm;
mod wire;

use std::future::Future;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use wire::{Fate, Wire};

/// Unix time at the beginning of every run.
const WALL_MS: u64 = 1_795_000_000_000;
/// No run lasts longer, by its own clock: what must come has not come.
const LASTS_MAX: Duration = Duration::from_secs(3_600);

/// One run at a time: tests beside these measure time.
static TURN: Mutex<()> = Mutex::new(());

/// The seeds that are asked for, or so many.
fn seeds(count: u64) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("AXON_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("AXON_SEEDS").unwrap_or(count),
    }
}

/// Plays a scenario with so many seeds, where nobody asks for more.
fn play<F: Future<Output = ()>>(name: &str, count: u64, scenario: impl Fn(World) -> F) {
    let seeds = seeds(count);
    let count = seeds.end - seeds.start;
    let (mut lasted, mut took, mut sent, mut arrived) = (Duration::ZERO, Duration::ZERO, 0, 0);
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(seed, &scenario))) {
            Ok(run) => {
                lasted += run.lasted;
                took += run.took;
                sent += run.record.len();
                arrived += run.record.iter().filter(|one| matches!(one.fate, Fate::Arrives(_))).count();
            }
            Err(panic) => {
                say(&format!("again: AXON_SEED={seed} cargo test -p axon --lib driver::tests::{name}"));
                resume_unwind(panic);
            }
        }
    }
    say(&format!(
        "{name}: {count} seeds, {} s by their clocks, {sent} datagrams, {} not delivered, {:.1} s",
        lasted.as_secs(),
        sent - arrived,
        took.as_secs_f32()
    ));
}

/// What is left of a run.
struct Run {
    /// By its own clock.
    lasted: Duration,
    /// By ours.
    took: Duration,
    record: wire::Record,
}

/// One run.
fn run<F: Future<Output = ()>>(seed: u64, scenario: impl Fn(World) -> F) -> Run {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let began = std::time::Instant::now();
    dice::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let _wall = crate::disk::files::wall::set(WALL_MS);
        let wire = Wire::new(seed);
        let world = World { wire: wire.clone(), began: Instant::now(), faults: Arc::default() };
        let ended = tokio::time::timeout(LASTS_MAX, scenario(world.clone())).await;
        assert!(ended.is_ok(), "the run does not come to its end");
        let faults = world.faults.lock().unwrap();
        assert!(faults.is_empty(), "{faults:#?}");
        Run { lasted: world.began.elapsed(), took: began.elapsed(), record: wire.record() }
    })
}

/// The same seed twice, and another.
fn play_again<F: Future<Output = ()>>(seed: u64, scenario: impl Fn(World) -> F) {
    let [first, again] = [0; 2].map(|_| run(seed, &scenario).record);
    if let Some(at) = first.iter().zip(&again).position(|(one, other)| one != other) {
        let about = |one: &wire::Datagram| (one.at_ms, one.from, one.to, one.sorts(), one.bytes.len());
        let both = [about(&first[at]), about(&again[at])];
        panic!("seed {seed}: datagram number {at} differs: {both:?}");
    }
    assert_eq!(first.len(), again.len(), "seed {seed}");
    assert_ne!(first, run(seed + 1_000, &scenario).record, "another seed must give others");
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    seeds(2).for_each(|seed| play_again(seed, scenarios::a_hundred_queries));
    seeds(1).for_each(|seed| play_again(seed, storm::storm));
}

#[expect(clippy::print_stderr, reason = "it tells whoever runs the tests")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// What a scenario is given.
#[derive(Clone)]
struct World {
    wire: Wire,
    began: Instant,
    /// What must not be, where nobody waits who could say so.
    faults: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }

    /// Milliseconds since the beginning.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }
}
