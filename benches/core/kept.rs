//! Kept notifications beside a loop that appends as many bytes to a file and syncs it, on the same disk.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::floor::args::Args;
use super::floor::figures::{Range, Row, tell, tell_head};
use super::floor::place::Regime;
use super::stage::{Node, ROOM, answered, kept, median, notes, queries};

/// Nobody reads them: the receiver holds what is unread.
pub fn run(args: &Args, regime: Regime) {
    let (alice, bob) = Node::pair("", ROOM);
    let _agent = bob.agent(args.size);
    let mut asker = alice.slots(queries("bob", args.size, 1), answered);
    let mut notifier = alice.slots(notes("bob", args.size, 64), kept);
    let raw = bob.root().join("raw");
    let [mut asks, mut ones, mut manys] = [(); 3].map(|()| Row::default());
    let mut loops = Vec::new();
    for _ in 0..args.rounds {
        loops.push(raw_loop(&raw, args.size, if args.short { 60 } else { 1_000 }));
        asker.warm(1, args.time() / 10);
        asks.0.push(asker.measure(1, args.time(), &[]));
        notifier.warm(1, args.time() / 10);
        ones.0.push(notifier.measure(1, args.time(), &[]));
        manys.0.push(notifier.measure(64, args.time(), &[]));
    }
    let us = |took: &Duration| took.as_secs_f64() * 1e6;
    tell_head(args, "kept notify beside a loop of appends, median over the rounds (least to most)");
    let tell = |name: &str, value: String| tell(args, name, Some(regime), value);
    let size = args.size;
    let loop_us = Range::of(loops.iter().map(us));
    tell(&format!("append of {size} bytes and fdatasync, in a loop, µs"), format!("{loop_us:.0}"));
    let p50 = |row: &Row| format!("{:.0}", Range::of(row.0.iter().map(|figures| figures.p50)));
    tell("query in the same run, p50, µs", p50(&asks));
    tell("kept notify until `delivered`, 1 in flight, p50, µs", p50(&ones));
    let rate = Range::of(manys.0.iter().map(|figures| figures.rate));
    tell("kept notify, 64 in flight, a second", format!("{rate:.0}"));
    let each = |row: &Row, round: usize| row.0[round].p50;
    let over =
        (0..args.rounds).map(|round| each(&ones, round) / (2.0 * us(&loops[round]) + each(&asks, round)));
    tell("1 in flight, over two appends and a query (aim: under 1)", Range::of(over).to_string());
    let over = (0..args.rounds).map(|round| manys.0[round].rate * loops[round].as_secs_f64());
    tell("64 in flight, over the append loop's rate (aim: 10 or more)", Range::of(over).to_string());
    let rss = bob.status("VmRSS").map_or_else(|| "not told".to_owned(), |kb| kb.to_string());
    tell("VmRSS, receiving side, with what is unread, kB", rss);
    let unread = bob.client().ok(serde_json::json!({"cmd":"status"}))["inbox_unread"].clone();
    tell("messages unread then", unread.to_string());
}

/// What one append of so many bytes and its sync take, on the median.
fn raw_loop(path: &Path, bytes: usize, count: usize) -> Duration {
    let mut file = File::create(path).expect("a root can be written");
    let mut times = Vec::with_capacity(count);
    let row = vec![b'x'; bytes];
    for _ in 0..count {
        let began = Instant::now();
        file.write_all(&row).expect("the disk takes it");
        file.sync_data().expect("the disk takes it");
        times.push(began.elapsed());
    }
    median(&mut times)
}
