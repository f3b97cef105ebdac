//! Plays topics on a simulated network, and prints how they spread.
//!
//! `topics [--nodes N[,N…]] [--seeds N] [--links N] [--batches N] [--publishers N]` plays each size without
//! faults, with a tenth of all messages lost and a fifth of the daemons ending, and with the network in two
//! halves for 20 s. It ends with 1 when somebody who was connected got a batch twice or not at all.

#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]
// An example is a program of its own, and may ask what it was called with.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;

use axon_proto::sim::topics::{Options, Report, run};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut nodes = vec![50, 200, 1_000];
    let (mut seeds, mut links, mut batches, mut publishers) = (3u64, 5, 50, 0);
    for pair in args.chunks(2) {
        let numbers: Option<Vec<usize>> =
            pair.get(1).and_then(|text| text.split(',').map(|number| number.parse().ok()).collect());
        let (Some(name), Some(numbers)) = (pair.first(), numbers.filter(|numbers| !numbers.is_empty()))
        else {
            eprintln!("topics [--nodes N[,N…]] [--seeds N] [--links N] [--batches N] [--publishers N]");
            return ExitCode::from(2);
        };
        match (name.as_str(), numbers.as_slice()) {
            ("--nodes", _) => nodes = numbers,
            ("--seeds", [number]) => seeds = *number as u64,
            ("--links", [number]) => links = *number,
            ("--batches", [number]) => batches = *number,
            ("--publishers", [number]) => publishers = *number,
            _ => {
                eprintln!(
                    "{name} is nothing that this takes: --nodes, --seeds, --links, --batches, --publishers"
                );
                return ExitCode::from(2);
            }
        }
    }
    println!(
        "| daemons | faults | delivered | twice | messages a delivery | batches a delivery | hops, mean, most | to all, p50, worst |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut held = true;
    for nodes in nodes {
        for (name, loss, crashes, partition) in [
            ("none", 0, 0, false),
            ("10% lost, 20% end", 100, 200, false),
            ("two halves for 20 s", 0, 0, true),
        ] {
            let options = Options { seed: 0, nodes, links, batches, publishers, loss, crashes, partition };
            let reports: Vec<Report> = (0..seeds).map(|seed| run(Options { seed, ..options })).collect();
            let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
            let (expected, delivered) = (sum(|r| r.expected), sum(|r| r.delivered));
            let a_delivery = |count: usize| count as f64 / delivered.max(1) as f64;
            let most = |of: fn(&Report) -> u64| reports.iter().map(of).max().unwrap_or(0);
            println!(
                "| {nodes} | {name} | {delivered} of {expected} | {} | {:.2} | {:.2} | {:.1}, {} | {} ms, {} ms |",
                sum(|r| r.twice),
                a_delivery(sum(|r| r.messages)),
                a_delivery(sum(|r| r.batches)),
                a_delivery(sum(|r| r.hops)),
                most(|r| u64::from(r.hops_max)),
                most(|r| r.spread_p50_ms),
                most(|r| r.spread_max_ms),
            );
            for (seed, report) in reports.iter().enumerate() {
                if report.delivered != report.expected || report.twice > 0 {
                    held = false;
                    eprintln!("seed {seed}: {report:?} of {options:?}");
                }
            }
        }
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
