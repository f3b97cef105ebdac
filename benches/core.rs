//! What axon costs, measured on real daemons, beside the floors of its shape:
//! `cargo build --release && cargo run --release --example bench [-- --short] [PART…]`.
//!
//! An example and not a `[[bench]]`: `cargo bench` would build and measure another program than the released
//! one, which unwinds and is larger.
//!
//! Nothing here passes or fails on time: the figures go into `benches/README.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "core/ask.rs"]
mod ask;
#[path = "core/faults.rs"]
mod faults;
#[path = "floor/mod.rs"]
mod floor;
#[path = "core/growth.rs"]
mod growth;
#[path = "core/idle.rs"]
mod idle;
#[path = "core/kept.rs"]
mod kept;
#[path = "core/memory.rs"]
mod memory;
#[path = "core/mixed.rs"]
mod mixed;
#[path = "core/notify.rs"]
mod notify;
#[path = "../tests/peer/mod.rs"]
mod peer;
#[path = "core/stage.rs"]
mod stage;
#[path = "core/start.rs"]
mod start;
#[path = "../tests/support/mod.rs"]
mod support;

use floor::args::Args;
use floor::place::{Cores, Regime};

const PARTS: &[(&str, &str)] = &[
    ("ask", "queries beside the floors of their own path and nats-server"),
    ("notify", "one-way messages, in memory and kept, beside nats-server"),
    ("mixed", "small queries beside such of 60 KiB"),
    ("kept", "kept notifications beside a loop of appends; what is unread then"),
    ("memory", "VmRSS: idle, after 100,000 messages each way, of 128 connections"),
    ("idle", "CPU and wake-ups in a minute of nothing"),
    ("start", "a daemon's start, and the whole run of `axon status`"),
    ("growth", "queries with 1, 10, 100 peers, 64 clients, 1,000,000 kept messages"),
    ("slow", "64 queries at once to an agent that takes its time"),
    ("killed", "a query to a peer that was killed"),
    ("restarted", "a peer killed and started again, until it is reached"),
];

/// Measures and shows.
type Part = fn(&Args, Regime);

fn main() {
    floor::play();
    let args = Args::read("bench", PARTS);
    // target/release/examples/bench measures target/release/axon.
    let program = args.program.clone().unwrap_or_else(|| {
        let exe = std::env::current_exe().expect("a program knows its own path");
        exe.parent().and_then(std::path::Path::parent).expect("it lies in examples").join("axon")
    });
    assert!(program.exists(), "{} is not there: cargo build --release", program.display());
    support::MEASURED.set(program).expect("it is said once");
    let cores = Cores::now();
    let in_each: [(&str, Part); 9] = [
        ("ask", ask::run),
        ("notify", notify::run),
        ("mixed", mixed::run),
        ("kept", kept::run),
        ("start", start::run),
        ("growth", growth::run),
        ("slow", faults::concurrency),
        ("killed", faults::killed),
        ("restarted", faults::restarted),
    ];
    for regime in args.regimes.clone() {
        cores.place(regime);
        for (part, run) in in_each.iter().filter(|(part, _)| args.wants(part)) {
            // Nothing of these depends on where they run, and they take long.
            let once = ["slow", "killed", "restarted"].contains(part);
            if !once || regime == args.regimes[0] {
                run(&args, regime);
            }
        }
    }
    cores.place(Regime::Spread);
    if args.wants("memory") {
        memory::run(&args);
    }
    if args.wants("idle") {
        idle::run(&args);
    }
}
