//! Floors of the shape that axon has: `cargo run --release --example floor [-- --short] [PART…]`.
//!
//! The same message over less and less of the way: what is left of it in axon's own figures is axon's work.
//! Nothing here passes or fails on time; `benches/README.md` says what each row is the limit of.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "floor/mod.rs"]
mod floor;

use floor::args::Args;
use floor::figures::{self, Row};
use floor::nats::Broker;
use floor::paths::{FLOORS, Floor, Folder};
use floor::place::Cores;

fn main() {
    floor::play();
    let args = Args::read("floor", FLOORS);
    let cores = Cores::now();
    figures::head(&args);
    for regime in args.regimes.clone() {
        cores.place(regime);
        let folder = Folder::new();
        let wants_broker = args.wants("nats-rr") || args.wants("nats-pubsub");
        let broker = wants_broker.then(Broker::start).flatten();
        let mut running = Vec::new();
        for (name, _) in FLOORS.iter().filter(|(name, _)| args.wants(name)) {
            match Floor::start(name, &folder, broker.as_ref(), args.size) {
                Some(floor) => running.push((*name, floor, [Row::default(), Row::default()])),
                None => figures::absent(&args, name, regime),
            }
        }
        // In turns, so that a disturbance of the machine meets all of them.
        for _ in 0..args.rounds {
            for (_, floor, rows) in &mut running {
                for (in_flight, row) in [1, 64].into_iter().zip(rows) {
                    if floor.takes(in_flight) {
                        row.0.push(floor.measure(in_flight, args.time()));
                    }
                }
            }
        }
        for (name, _, rows) in &running {
            for (in_flight, row) in [1, 64].into_iter().zip(rows) {
                if !row.0.is_empty() {
                    figures::show(&args, name, regime, in_flight, row);
                }
            }
        }
    }
}
