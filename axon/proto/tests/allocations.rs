//! What a message allocates. It does not depend on the machine, so it is a test: each piece has a ceiling,
//! and none may grow with peers, clients or what is in the inbox.
//!
//! `cargo test -p axon-proto --test allocations -- --nocapture` prints what is now, as rows for [`CEILINGS`].

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../benches/pieces/mod.rs"]
mod pieces;

use allocation_counter::AllocationInfo;

use pieces::{Meter, Rig, Unmetered, World};

/// Messages before those that count, so that tables and buffers have their size.
const WARM_UP: usize = 300;
/// Messages that count.
const COUNTED: u64 = 500;
/// So many allocations more or fewer in a larger world are no difference: a table may grow meanwhile.
const NOISE: f64 = 2.0;
/// Of the bytes, for the same reason.
const BYTES_NOISE: f64 = 1.01;

/// Each piece, and how many allocations and bytes a message of it may cost. A buffer that grows counts as one
/// more allocation, of its new size. Lower them when the code needs less; who raises them says why.
const CEILINGS: &[(&str, u64, u64)] = &[
    ("decode", 1, 472),
    ("encode", 2, 1048),
    ("parse a line", 0, 0),
    ("query in", 7, 2405),
    ("query out", 5, 1763),
    ("notify in", 5, 1767),
    ("notify out", 4, 747),
    ("notify in, kept", 10, 2742),
    ("notify out, with a receipt", 6, 1044),
];

/// Adds up what the node allocates.
#[derive(Default)]
struct Counter {
    count: u64,
    bytes: u64,
}

impl Meter for Counter {
    fn core<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let mut done = None;
        let info: AllocationInfo = allocation_counter::measure(|| done = Some(work()));
        self.count += info.count_total;
        self.bytes += info.bytes_total;
        done.unwrap()
    }
}

/// Allocations and bytes of one message.
type Cost = (f64, f64);

fn each(counter: Counter) -> Cost {
    let over = COUNTED as f64;
    (counter.count as f64 / over, counter.bytes as f64 / over)
}

fn on_a_node(piece: &str, world: World) -> Cost {
    fn one(rig: &mut Rig, piece: &str, meter: &mut impl Meter) {
        match piece {
            "query in" => rig.query_in(meter),
            "query out" => rig.query_out(meter),
            "notify in" => rig.notify_in(meter, false),
            "notify out" => rig.notify_out(meter, false),
            "notify in, kept" => rig.notify_in(meter, true),
            "notify out, with a receipt" => rig.notify_out(meter, true),
            other => panic!("no piece is called {other}"),
        }
    }
    let mut rig = Rig::new(World { durable: piece.contains(", "), ..world });
    (0..WARM_UP).for_each(|_| one(&mut rig, piece, &mut Unmetered));
    let mut counter = Counter::default();
    (0..COUNTED).for_each(|_| one(&mut rig, piece, &mut counter));
    each(counter)
}

fn cost(piece: &str) -> Cost {
    let mut counter = Counter::default();
    match piece {
        "decode" => pieces::queries(COUNTED as usize).into_iter().for_each(|bytes| {
            pieces::decode(&mut counter, bytes);
        }),
        "encode" => {
            let payload = pieces::query_payload();
            (0..COUNTED).for_each(|_| drop(pieces::encode(&mut counter, &payload)));
        }
        "parse a line" => {
            let line = pieces::send_line();
            (0..COUNTED).for_each(|_| _ = pieces::parse_line(&mut counter, &line));
        }
        _ => return on_a_node(piece, World::default()),
    }
    each(counter)
}

#[test]
fn no_piece_allocates_more_than_its_ceiling() {
    let mut faults = Vec::new();
    for (piece, most, bytes_most) in CEILINGS {
        let (count, bytes) = cost(piece);
        println!("    ({piece:?}, {count:.0}, {bytes:.0}),");
        if count.round() > *most as f64 || bytes > *bytes_most as f64 * BYTES_NOISE {
            faults
                .push(format!("{piece}: {count:.1} allocations of {most}, {bytes:.1} bytes of {bytes_most}"));
        }
    }
    assert!(faults.is_empty(), "messages allocate more than their ceilings:\n{}", faults.join("\n"));
}

/// Peers and clients that have nothing to do with a message cost it nothing, nor do rows that nobody asks
/// for. One line is written for all who subscribed.
#[test]
fn no_piece_allocates_more_in_a_larger_world() {
    let world = World::default();
    let larger = [
        ("10 peers", World { peers: 10, ..world }),
        ("100 peers", World { peers: 100, ..world }),
        ("64 clients", World { clients: 64, ..world }),
        ("64 subscribers", World { clients: 64, subscribers: 64, ..world }),
        ("100,000 rows", World { rows: 100_000, rows_max: 200_000, ..world }),
    ];
    let mut faults = Vec::new();
    let pieces = CEILINGS.iter().map(|(piece, ..)| *piece);
    for piece in pieces.filter(|piece| !["decode", "encode", "parse a line"].contains(piece)) {
        let (alone, _) = on_a_node(piece, world);
        let mut row = format!("{piece}: {alone:.1}");
        for (what, world) in larger {
            let (count, _) = on_a_node(piece, world);
            row += &format!(", {what} {count:.1}");
            if (count - alone).abs() > NOISE {
                faults.push(format!("{piece}: {count:.1} allocations with {what}, {alone:.1} alone"));
            }
        }
        println!("{row}");
    }
    assert!(
        faults.is_empty(),
        "allocations grow with what a message has nothing to do with:\n{}",
        faults.join("\n")
    );
}
