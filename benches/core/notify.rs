//! One-way messages: how many a second, kept or not, read or not, and a broker's beside them.

use super::floor::args::Args;
use super::floor::figures::{self, Figures, Range, Row};
use super::floor::nats::Broker;
use super::floor::paths::{Floor, Folder};
use super::floor::place::Regime;
use super::stage::{ROOM, WINDOW, Way, arrived, kept};

/// In memory alone; otherwise by default.
const LOOSE: &str = "[ipc]\ndurable = false\n";

struct Told {
    name: &'static str,
    way: Way,
    loads: &'static [usize],
    rows: Vec<Row>,
}

pub fn run(args: &Args, regime: Regime) {
    let folder = Folder::new();
    let broker = Broker::start();
    let mut floor = Floor::start("nats-pubsub", &folder, broker.as_ref(), args.size);
    let mut floor_row = Row::default();
    let told = |name, way, loads: &'static [usize]| {
        let rows = loads.iter().map(|_| Row::default()).collect();
        Told { name, way, loads, rows }
    };
    let mut all = [
        told("axon notify, in memory", Way::told(args, LOOSE, false, arrived), &[64, WINDOW]),
        told("axon notify, in memory, read", Way::told(args, LOOSE, true, arrived), &[64, WINDOW]),
        told("axon notify, kept, read", Way::told(args, ROOM, true, kept), &[1, 64, WINDOW]),
    ];
    for _ in 0..args.rounds {
        if let Some(floor) = &mut floor {
            floor_row.0.push(floor.measure(64, args.time()));
        }
        for Told { way, loads, rows, .. } in &mut all {
            for (in_flight, row) in loads.iter().zip(rows) {
                row.0.push(way.measure(*in_flight, args));
            }
        }
    }
    // Else its rows were not of messages that were read.
    all[1..].iter().for_each(|told| told.way.all_read());
    figures::head(args);
    match floor {
        Some(_) => figures::show(args, "nats-pubsub", regime, 64, &floor_row),
        None => figures::absent(args, "nats-pubsub", regime),
    }
    for Told { name, loads, rows, .. } in &all {
        for (in_flight, row) in loads.iter().zip(rows) {
            figures::show(args, name, regime, *in_flight, row);
        }
    }
    figures::tell_head(args, "notify, median over the rounds (least to most)");
    let [loose, _, safe] = &all;
    let rate = |row: &Row| Range::of(row.0.iter().map(|figures| figures.rate));
    let between = |row: &Row| Range::of(row.0.iter().map(|figures: &Figures| figures.between));
    let rows = [
        ("in memory, 64 in flight, a second (aim: 400,000)", rate(&loose.rows[0])),
        ("in memory, 256 in flight, all that one client may have, a second", rate(&loose.rows[1])),
        ("kept with receipts, 64 in flight, a second (aim: 70,000)", rate(&safe.rows[1])),
    ];
    for (name, value) in rows {
        figures::tell(args, name, Some(regime), format!("{value:.0}"));
    }
    let rows = [
        ("in memory, 64 in flight, CPU of both daemons a message, µs", between(&loose.rows[0])),
        ("kept, 64 in flight, CPU of both daemons a message, µs", between(&safe.rows[1])),
    ];
    for (name, value) in rows {
        figures::tell(args, name, Some(regime), value);
    }
}
