//! Plays seeds of the simulation.
//!
//! `sim [--seeds N] [--from N] [--nodes N] [--steps N] [--calm] [--jobs N]` plays many; `sim --seed N` plays
//! one, `--scenario` the scenario, `--story` writes down what happens in it, and `--sweep` puts a fault at
//! each place of it in turn. It ends with 1 when something was violated.

#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]
// An example is a program of its own, and may have threads and ask what it was called with.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use axon_proto::sim::{Fault, Plan, Point, Report, Sort, run};

const HELP: &str = "\
sim [--seeds N] [--from N] [--nodes N] [--steps N] [--calm] [--jobs N]   plays N seeds
sim --seed N [--nodes N] [--steps N] [--calm] [--story] [--fault SORT:N]  plays one seed
sim --scenario [--seed N] [--story] [--fault SORT:N]                      plays the scenario
sim --sweep (--scenario | --seed N [--nodes N] [--steps N]) [--sort SORT] [--jobs N]
                                              plays it with a fault at each place in turn

--nodes   how many nodes (50)
--steps   events before all is healed and the end is awaited (10000)
--calm    without faults
--jobs    runs at a time (as many as there are processors)
--story   write down what happens
--fault   the Nth call of a sort goes wrong; with a + after the number every one from there on
--sort    faults of this sort alone
The sorts: write short sync sync-gone sync-stale length make rename remove names power read open whole
send drop answer answer-drop room";

struct Wanted {
    seed: Option<u64>,
    from: u64,
    seeds: u64,
    jobs: usize,
    sweep: bool,
    sort: Option<String>,
    plan: Plan,
}

fn wanted() -> Option<Wanted> {
    let plan =
        Plan { seed: 0, nodes: 50, steps: 10_000, faults: true, scenario: false, fault: None, story: false };
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut wanted = Wanted { seed: None, from: 1, seeds: 100, jobs, sweep: false, sort: None, plan };
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
            "--scenario" => wanted.plan.scenario = true,
            "--fault" => wanted.plan.fault = Some(args.next()?.parse().ok()?),
            "--sort" => wanted.sort = args.next(),
            "--story" => wanted.plan.story = true,
            _ => return None,
        }
    }
    if wanted.plan.scenario {
        wanted.seed = wanted.seed.or(Some(1));
        (wanted.plan.steps, wanted.plan.faults) = (u64::MAX, false);
    }
    Some(wanted)
}

/// One fault at each place of one run in turn; those that last as well.
fn sweep(wanted: &Wanted, plan: Plan) -> Sum {
    let calm = Plan { faults: false, fault: None, story: false, ..plan };
    // A fault that is never met makes the calls of any run be counted.
    let nowhere = Fault { sort: Sort::Room, nth: u64::MAX, lasts: false };
    let whole = run(Plan { fault: Some(nowhere), ..calm });
    tell(calm, &whole);
    let count = |point: Point| whole.counts.get(&point).copied().unwrap_or_default();
    let mut faults: Vec<Fault> = Vec::new();
    for (sort, name) in Sort::ALL {
        if wanted.sort.as_deref().is_none_or(|wanted| wanted == name) {
            for lasts in [false, true].into_iter().filter(|lasts| !lasts || sort != Sort::Power) {
                faults.extend((1..=count(sort.point())).map(|nth| Fault { sort, nth, lasts }));
            }
        }
    }
    println!("calls       {:?}", whole.counts);
    let mut asked = BTreeMap::new();
    whole.asked.iter().for_each(|place| *asked.entry(place).or_insert(0) += 1);
    println!("room        {asked:?}");
    println!("runs        {}", faults.len());
    let plans = faults.into_iter().map(|fault| Plan { fault: Some(fault), ..calm });
    play(wanted.jobs, plans.collect())
}

/// Plays all these, so many at a time.
fn play(jobs: usize, plans: Vec<Plan>) -> Sum {
    let (next, sum) = (AtomicUsize::new(0), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = run(*plan);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    tell(*plan, &report);
                    sum.add(plan.seed, &report);
                }
            });
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What all seeds came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    steps: u64,
    virtual_ms: u64,
    delivered: u64,
    shown: u64,
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
        (self.delivered, self.shown) = (self.delivered + report.delivered, self.shown + report.shown);
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
        println!("shown       {}", self.shown);
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
        let fault = plan.fault.map(|fault| format!(" --fault {fault}")).unwrap_or_default();
        let calm = if plan.faults { "" } else { " --calm" };
        let how = match plan.scenario {
            true => format!("--scenario --seed {}", plan.seed),
            false => {
                let steps = plan.steps.min(first.step);
                format!("--seed {} --nodes {} --steps {steps}{calm}", plan.seed, plan.nodes)
            }
        };
        println!("replay      cargo run --release -p axon-proto --example sim -- {how}{fault} --story");
        println!("            {:?}", report.refused);
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
            let sum = sweep(&wanted, plan);
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
    let seeds = wanted.from..wanted.from + wanted.seeds;
    let plans = seeds.map(|seed| Plan { seed, story: false, ..wanted.plan });
    let sum = play(wanted.jobs, plans.collect());
    sum.print();
    ExitCode::from(u8::from(sum.violations > 0))
}
