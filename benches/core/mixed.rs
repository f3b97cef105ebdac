//! Large messages beside small ones: a small one waits at the most for the large one's own way.

use super::floor::args::Args;
use super::floor::figures::{self, Figures, Range, Row};
use super::floor::place::Regime;
use super::stage::{Way, answered, queries};

const LARGE_BYTES: usize = 60 * 1024;

pub fn run(args: &Args, regime: Regime) {
    let mut small = Way::asked(args, "", "");
    let mut large = small.alice.slots(queries("bob", LARGE_BYTES, 1), answered);
    let [mut alone, mut large_alone, mut beside, mut large_beside] = [(); 4].map(|()| Row::default());
    let time = args.time();
    large.warm(1, time / 10);
    for _ in 0..args.rounds {
        alone.0.push(small.measure(1, args));
        large_alone.0.push(large.measure(1, time, &[]));
        let (one, other) = std::thread::scope(|scope| {
            // Longer than the small ones, which warm up first.
            let other = scope.spawn(|| large.measure(1, time + time / 4, &[]));
            (small.measure(1, args), other.join().expect("it ends"))
        });
        beside.0.push(one);
        large_beside.0.push(other);
    }
    figures::head(args);
    for (name, row) in [
        ("axon ask", &alone),
        ("axon ask of 60 KiB", &large_alone),
        ("axon ask, beside those of 60 KiB", &beside),
        ("axon ask of 60 KiB, beside small ones", &large_beside),
    ] {
        figures::show(args, name, regime, 1, row);
    }
    figures::tell_head(args, "60 KiB beside small ones, median over the rounds (least to most)");
    // What a large one takes longer than a small one is what its transfer takes.
    let transfer: Vec<f64> = large_alone.0.iter().zip(&alone.0).map(|(big, one)| big.p50 - one.p50).collect();
    let tell = |name: &str, value: Range| figures::tell(args, name, Some(regime), value);
    tell("transfer of 60 KiB, µs", Range::of(transfer.iter().copied()));
    for (part, pick) in [("p50", (|f| f.p50) as fn(&Figures) -> f64), ("p90", |f| f.p90)] {
        let delay = || beside.0.iter().zip(&alone.0).map(|(beside, alone)| pick(beside) - pick(alone));
        tell(&format!("delay of a small one, {part}, µs"), Range::of(delay()));
        let over = delay().zip(&transfer).map(|(delay, transfer)| delay / transfer);
        tell(&format!("delay, {part}, over the transfer (aim: at most 1)"), Range::of(over));
    }
}
