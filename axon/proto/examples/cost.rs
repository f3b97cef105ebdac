//! Runs each piece of the hot path many times, for `benches/instructions`, which counts under valgrind.
//!
//! `cost` names the pieces; `cost <piece> <count> [--peers N] [--clients N] [--subscribers N] [--rows N]`
//! runs one. Only what [`measured`] calls belongs to a message; the rest makes messages and looks at what
//! came of them.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
// An example is a program of its own, and may ask what it was called with.
#![allow(clippy::disallowed_methods)]

#[path = "../benches/pieces/mod.rs"]
mod pieces;

use std::hint::black_box;

use pieces::{Meter, Rig, Unmetered, World};

const PIECES: &[&str] = &[
    "decode",
    "encode",
    "parse_line",
    "query_in",
    "query_out",
    "notify_in",
    "notify_out",
    "kept_in",
    "kept_out",
    "store",
    "store_full",
];
/// Messages before those that count, so that tables and buffers have their size.
const WARM_UP: usize = 300;
/// What an inbox holds that is full.
const FULL_ROWS: usize = 1_000;
/// What still goes into one that is not.
const ROOM_ROWS: usize = 1_000_000;

/// The name of this function is what valgrind begins and ends to count at.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

struct Counted;

impl Meter for Counted {
    fn core<T>(&mut self, work: impl FnOnce() -> T) -> T {
        measured(work)
    }
}

/// Counts what the store does, and not what the node does.
struct StoreOnly;

impl Meter for StoreOnly {
    fn core<T>(&mut self, work: impl FnOnce() -> T) -> T {
        work()
    }
    fn store<T>(&mut self, work: impl FnOnce() -> T) -> T {
        measured(work)
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(piece), Some(count)) = (args.first(), args.get(1)) else {
        return println!("{}", PIECES.join("\n"));
    };
    let count: usize = count.parse().expect("how many times, a number");
    let option = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        Some(args.get(at + 1)?.parse::<usize>().expect("a number"))
    };
    let clients = option("--clients").unwrap_or(1);
    // What comes into a full inbox takes the place of the oldest, as it is in the long run.
    let full = piece == "store_full";
    let rows = option("--rows").unwrap_or(0).max(if full { FULL_ROWS } else { 0 });
    let world = World {
        peers: option("--peers").unwrap_or(1),
        clients,
        subscribers: option("--subscribers").unwrap_or(1),
        rows: rows as u64,
        durable: piece.starts_with("kept"),
        rows_max: if full { rows } else { rows + ROOM_ROWS },
    };
    run(piece, count, world);
}

fn run(piece: &str, count: usize, world: World) {
    match piece {
        "decode" => pieces::queries(count).into_iter().for_each(|bytes| {
            pieces::decode(&mut Counted, bytes);
        }),
        "encode" => {
            let payload = pieces::query_payload();
            (0..count).for_each(|_| drop(pieces::encode(&mut Counted, &payload)));
        }
        "parse_line" => {
            let line = pieces::send_line();
            (0..count).for_each(|_| _ = pieces::parse_line(&mut Counted, &line));
        }
        "store" | "store_full" => {
            let mut rig = Rig::new(world);
            (0..WARM_UP).for_each(|_| rig.notify_in(&mut Unmetered, false));
            (0..count).for_each(|_| rig.notify_in(&mut StoreOnly, false));
        }
        _ => {
            let mut rig = Rig::new(world);
            (0..WARM_UP).for_each(|_| one(&mut rig, piece, &mut Unmetered));
            (0..count).for_each(|_| one(&mut rig, piece, &mut Counted));
        }
    }
}

fn one(rig: &mut Rig, piece: &str, meter: &mut impl Meter) {
    match piece {
        "query_in" => rig.query_in(meter),
        "query_out" => rig.query_out(meter),
        "notify_in" => rig.notify_in(meter, false),
        "notify_out" => rig.notify_out(meter, false),
        "kept_in" => rig.notify_in(meter, true),
        "kept_out" => rig.notify_out(meter, true),
        other => panic!("no piece is called {other}: call this without arguments to see them"),
    }
}
