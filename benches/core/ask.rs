//! Queries beside the floors of their own path and beside a broker, in turns.

use super::floor::args::Args;
use super::floor::figures::{self, Range, Row};
use super::floor::nats::Broker;
use super::floor::paths::{Floor, Folder};
use super::floor::place::Regime;
use super::stage::Way;

const BESIDE: [&str; 3] = ["own-path", "own-path-pipe", "nats-rr"];
/// Messages in flight of each row.
const LOADS: [usize; 2] = [1, 64];

pub fn run(args: &Args, regime: Regime) {
    let folder = Folder::new();
    let broker = Broker::start();
    let mut floors: Vec<_> = BESIDE
        .into_iter()
        .map(|name| (name, Floor::start(name, &folder, broker.as_ref(), args.size), Vec::new()))
        .collect();
    let mut axon = Way::asked(args, "", "");
    let mut rows = [Row::default(), Row::default()];
    floors.iter_mut().for_each(|(_, _, rows)| rows.extend([Row::default(), Row::default()]));
    for _ in 0..args.rounds {
        for (load, in_flight) in LOADS.into_iter().enumerate() {
            for (_, floor, rows) in &mut floors {
                if let Some(floor) = floor {
                    rows[load].0.push(floor.measure(in_flight, args.time()));
                }
            }
            rows[load].0.push(axon.measure(in_flight, args));
        }
    }
    figures::head(args);
    for (load, in_flight) in LOADS.into_iter().enumerate() {
        for (name, floor, rows) in &floors {
            match floor {
                Some(_) => figures::show(args, name, regime, in_flight, &rows[load]),
                None if load == 0 => figures::absent(args, name, regime),
                None => {}
            }
        }
        figures::show(args, "axon ask", regime, in_flight, &rows[load]);
    }
    figures::tell_head(args, "query, median over the rounds (least to most)");
    let tell = |name: &str, value: Range| figures::tell(args, name, Some(regime), value);
    let [one, many] = &rows;
    let floor = |name: &str| floors.iter().find(|row| row.0 == name && row.1.is_some()).map(|row| &row.2);
    if let Some(own) = floor("own-path") {
        tell("1 in flight, p50, over own-path (aim: at most 1.3)", one.over(&own[0], |f| f.p50));
        let aim = if regime == Regime::Spread { "0.85" } else { "0.65" };
        let what = format!("64 in flight, rate, over own-path (aim: at least {aim})");
        tell(&what, many.over(&own[1], |f| f.rate));
        let what = "CPU of both daemons a query, over both bridges of own-path (aim: at most 1.5)";
        tell(&format!("1 in flight, {what}"), one.over(&own[0], |f| f.between));
        tell(&format!("64 in flight, {what}"), many.over(&own[1], |f| f.between));
    }
    if let Some(pipe) = floor("own-path-pipe") {
        tell("64 in flight, rate, over own-path-pipe", many.over(&pipe[1], |f| f.rate));
        let what = "64 in flight, CPU of both daemons a query, over both bridges of own-path-pipe";
        tell(what, many.over(&pipe[1], |f| f.between));
    }
    if let Some(nats) = floor("nats-rr") {
        tell("1 in flight, p50, over nats-rr", one.over(&nats[0], |f| f.p50));
        tell("64 in flight, rate, over nats-rr (aim: over 1)", many.over(&nats[1], |f| f.rate));
    }
    let cpu = |row: &Row| Range::of(row.0.iter().map(|figures| figures.between));
    tell("1 in flight, CPU of both daemons a query, µs", cpu(one));
    tell("64 in flight, CPU of both daemons a query, µs", cpu(many));
}
