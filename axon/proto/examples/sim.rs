//! Plays seeds of the simulation.
//!
//! `sim [--seeds N] [--from N] [--nodes N] [--steps N] [--calm] [--jobs N]` plays many; `sim --seed N` plays
//! one, `--story` writes down what happens in it. It ends with 1 when something was violated.

#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]
// An example is a program of its own, and may have threads and ask what it was called with.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use axon_proto::sim::{Once, Plan, Report, run};

const HELP: &str = "\
sim [--seeds N] [--from N] [--nodes N] [--steps N] [--calm] [--jobs N]   plays N seeds
sim --seed N [--nodes N] [--steps N] [--calm] [--story] [--once SORT:N]  plays one seed
sim --seed N --sweep [--nodes N] [--steps N]    plays it with a fault at each place in turn

--nodes   how many nodes (50)
--steps   events before all is healed and the end is awaited (10000)
--calm    without faults
--jobs    seeds at a time (as many as there are processors)
--story   write down what happens
--once    the Nth thing of a sort goes wrong: disk:N, power:N or send:N";

struct Wanted {
    seed: Option<u64>,
    from: u64,
    seeds: u64,
    jobs: usize,
    sweep: bool,
    plan: Plan,
}

fn wanted() -> Option<Wanted> {
    let plan = Plan { seed: 0, nodes: 50, steps: 10_000, faults: true, once: None, story: false };
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut wanted = Wanted { seed: None, from: 1, seeds: 100, jobs, sweep: false, plan };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse::<u64>().ok());
        match arg.as_str() {
            "--seed" => wanted.seed = Some(number()?),
            "--from" => wanted.from = number()?,
            "--seeds" => wanted.seeds = number()?,
            "--jobs" => wanted.jobs = usize::try_from(number()?.max(1)).ok()?,
            "--nodes" => wanted.plan.nodes = usize::try_from(number()?.clamp(2, 1_000)).ok()?,
            "--steps" => wanted.plan.steps = number()?,
            "--calm" => wanted.plan.faults = false,
            "--sweep" => wanted.sweep = true,
            "--once" => wanted.plan.once = Some(once(&args.next()?)?),
            "--story" => wanted.plan.story = true,
            _ => return None,
        }
    }
    Some(wanted)
}

fn once(text: &str) -> Option<Once> {
    let (sort, n) = text.split_once(':')?;
    let n = n.parse().ok()?;
    Some(match sort {
        "disk" => Once::Disk(n),
        "power" => Once::Power(n),
        "send" => Once::Send(n),
        _ => return None,
    })
}

/// One fault at each place of one run in turn.
fn sweep(plan: Plan) -> Sum {
    let calm = Plan { faults: false, once: None, story: false, ..plan };
    let whole = run(calm);
    let disk = (1..=whole.disk_calls).flat_map(|n| [Once::Disk(n), Once::Power(n)]);
    let mut sum = Sum::default();
    for once in disk.chain((1..=whole.sends).map(Once::Send)) {
        let plan = Plan { once: Some(once), ..calm };
        let report = run(plan);
        tell(plan, &report);
        sum.add(sum.seeds, &report);
    }
    println!("places      {} of the disk, twice, and {} messages", whole.disk_calls, whole.sends);
    sum
}

/// What all seeds came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    steps: u64,
    virtual_ms: u64,
    delivered: u64,
    faults: BTreeMap<&'static str, u64>,
    replies: BTreeMap<String, u64>,
    violations: u64,
    hash: u64,
}

impl Sum {
    fn add(&mut self, seed: u64, report: &Report) {
        self.seeds += 1;
        self.steps += report.steps;
        self.virtual_ms += report.virtual_ms;
        self.delivered += report.delivered;
        self.violations += report.violations.len() as u64;
        // The order in which threads end must not matter.
        self.hash ^= report.hash.wrapping_mul(seed.wrapping_mul(2).wrapping_add(1));
        report.faults.iter().for_each(|(name, count)| *self.faults.entry(name).or_default() += count);
        for (outcome, count) in &report.replies {
            *self.replies.entry(outcome.clone()).or_default() += count;
        }
    }

    fn print(&self) {
        let faults: u64 = self.faults.values().sum();
        println!("seeds       {}", self.seeds);
        println!("steps       {}", self.steps);
        println!("virtual     {} h", self.virtual_ms / 3_600_000);
        println!("faults      {faults} {:?}", self.faults);
        println!("replies     {:?}", self.replies);
        println!("delivered   {}", self.delivered);
        println!("violations  {}", self.violations);
        println!("hash        {:016x}", self.hash);
    }
}

fn tell(plan: Plan, report: &Report) {
    report.story.iter().for_each(|line| println!("{line}"));
    for violation in &report.violations {
        let (step, at_ms, host) = (violation.step, violation.at_ms, violation.host);
        println!("VIOLATED    {}: {}", violation.rule, violation.what);
        println!("            seed {}, step {step}, {at_ms} ms, node {host}", plan.seed);
    }
    if let Some(first) = report.violations.first().filter(|_| !plan.story) {
        let mut calm = if plan.faults { String::new() } else { " --calm".into() };
        calm += &match plan.once {
            Some(Once::Disk(n)) => format!(" --once disk:{n}"),
            Some(Once::Power(n)) => format!(" --once power:{n}"),
            Some(Once::Send(n)) => format!(" --once send:{n}"),
            None => String::new(),
        };
        println!(
            "replay      cargo run --release -p axon-proto --example sim -- \
             --seed {} --nodes {} --steps {}{calm} --story",
            plan.seed,
            plan.nodes,
            plan.steps.min(first.step),
        );
    }
}

fn main() -> ExitCode {
    let Some(wanted) = wanted() else {
        eprintln!("{HELP}");
        return ExitCode::from(2);
    };
    if let Some(seed) = wanted.seed {
        let plan = Plan { seed, ..wanted.plan };
        if wanted.sweep {
            let sum = sweep(plan);
            sum.print();
            return ExitCode::from(u8::from(sum.violations > 0));
        }
        let report = run(plan);
        tell(plan, &report);
        let mut sum = Sum::default();
        sum.add(0, &report);
        sum.print();
        return ExitCode::from(u8::from(!report.violations.is_empty()));
    }
    let (next, sum) = (AtomicU64::new(0), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..wanted.jobs {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= wanted.seeds {
                        return;
                    }
                    let plan = Plan { seed: wanted.from + at, story: false, ..wanted.plan };
                    let report = run(plan);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    tell(plan, &report);
                    sum.add(plan.seed, &report);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.print();
    ExitCode::from(u8::from(sum.violations > 0))
}
