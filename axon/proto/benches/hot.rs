//! How long the pieces of a message's way take, by criterion: `cargo bench -p axon-proto`.
//!
//! What a node does is timed from its input to its effects, and no I/O is among them. The clock is read
//! before and after each input, which is in the figure. `-- --test` runs each piece once.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A benchmark has a clock.
#![allow(clippy::disallowed_types)]

mod pieces;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion};

use pieces::{Meter, Rig, Unmetered, World};

/// Messages before those that count, so that tables and buffers have their size.
const WARM_UP: usize = 300;

/// Adds up what the node does, and where it is asked to also what the store does.
struct Clock {
    took: Duration,
    with_store: bool,
}

impl Clock {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = black_box(work());
        self.took += began.elapsed();
        done
    }
}

impl Meter for Clock {
    fn core<T>(&mut self, work: impl FnOnce() -> T) -> T {
        self.time(work)
    }

    fn store<T>(&mut self, work: impl FnOnce() -> T) -> T {
        if self.with_store { self.time(work) } else { work() }
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    functions(&mut criterion);
    queries(&mut criterion);
    inbox(&mut criterion);
    fan_out(&mut criterion);
    criterion.final_summary();
}

/// What needs no node.
fn functions(criterion: &mut Criterion) {
    let message = pieces::queries(1).remove(0);
    criterion.bench_function("decode", |bencher| {
        let message = || message.clone();
        bencher.iter_batched(message, |bytes| pieces::decode(&mut Unmetered, bytes), BatchSize::SmallInput);
    });
    let payload = pieces::query_payload();
    criterion.bench_function("encode, which validates", |bencher| {
        bencher.iter_with_large_drop(|| pieces::encode(&mut Unmetered, &payload));
    });
    let line = pieces::send_line();
    criterion.bench_function("parse a line", |bencher| {
        bencher.iter(|| pieces::parse_line(&mut Unmetered, black_box(&line)));
    });
}

/// A piece on a node of its own.
fn on_a_node(
    criterion: &mut Criterion,
    name: &str,
    world: World,
    with_store: bool,
    piece: fn(&mut Rig, &mut Clock),
) {
    criterion.bench_function(name, |bencher| {
        let mut rig = Rig::new(world);
        let mut unused = Clock { took: Duration::ZERO, with_store: false };
        (0..WARM_UP).for_each(|_| piece(&mut rig, &mut unused));
        bencher.iter_custom(|count| {
            let mut clock = Clock { took: Duration::ZERO, with_store };
            (0..count).for_each(|_| piece(&mut rig, &mut clock));
            clock.took
        });
    });
}

fn queries(criterion: &mut Criterion) {
    let world = World::default();
    on_a_node(criterion, "query in, and its answer out", world, false, |rig, clock| rig.query_in(clock));
    on_a_node(criterion, "query out, and its answer in", world, false, |rig, clock| rig.query_out(clock));
}

/// Kept notifies, the node and its store together; the store is over memory.
fn inbox(criterion: &mut Criterion) {
    let room = World { durable: true, rows_max: 100_000_000, ..World::default() };
    let name = "append to the inbox, with a receipt";
    on_a_node(criterion, name, room, true, |rig, clock| rig.notify_in(clock, true));
    let full = World { rows: 1_000, rows_max: 1_000, ..World::default() };
    let name = "append to a full inbox, which lets the oldest go";
    on_a_node(criterion, name, full, true, |rig, clock| rig.notify_in(clock, false));
}

/// One message to many clients that all want it.
fn fan_out(criterion: &mut Criterion) {
    for clients in [1, 16, 64] {
        let world = World { clients, subscribers: clients, ..World::default() };
        let name = format!("notify in, to {clients} subscribed clients");
        on_a_node(criterion, &name, world, false, |rig, clock| rig.notify_in(clock, false));
    }
}
