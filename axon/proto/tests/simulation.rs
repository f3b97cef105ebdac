//! Seeds of the simulation: nothing that must hold is broken, and a seed gives the same run each time.
//!
//! More seeds: `AXON_SEEDS=5000 cargo test -p axon-proto --test all simulation::`, or the example `sim`.

// How many seeds is asked of who runs the test.
#![allow(clippy::disallowed_methods)]

use axon_proto::sim::{Plan, Report, run};

const SMALL: Plan =
    Plan { seed: 0, nodes: 4, steps: 1_000, faults: true, scenario: false, fault: None, story: false };

fn holds(plan: Plan) -> Report {
    let report = run(plan);
    let calm = if plan.faults { "" } else { " --calm" };
    assert!(
        report.violations.is_empty(),
        "{:#?}\nreplay: cargo run --release -p axon-proto --example sim -- \
         --seed {} --nodes {} --steps {}{calm} --story",
        report.violations,
        plan.seed,
        plan.nodes,
        plan.steps,
    );
    report
}

#[test]
fn what_must_hold_holds_in_some_hundred_runs() {
    let seeds = std::env::var("AXON_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_u64);
    let (mut faults, mut delivered, mut ok) = (std::collections::BTreeMap::new(), 0, 0);
    for seed in 1..=seeds {
        let report = holds(Plan { seed, ..SMALL });
        for (name, count) in report.faults {
            *faults.entry(name).or_insert(0) += count;
        }
        delivered += report.delivered;
        ok += report.replies.get("ok").copied().unwrap_or_default();
    }
    // It is no proof that nothing breaks where nothing happens.
    println!("{seeds} seeds, {ok} replies, {delivered} delivered, faults {faults:?}");
    assert_eq!(faults.len(), 10, "a sort of fault never came: {faults:?}");
    assert!(ok > seeds * 50 && delivered > seeds * 8, "{ok} replies, {delivered} delivered");
}

#[test]
fn many_nodes_hold() {
    holds(Plan { seed: 7, nodes: 50, steps: 10_000, ..SMALL });
}

#[test]
fn without_faults_nothing_is_refused_for_want_of_a_way() {
    for seed in 1..=10 {
        let report = holds(Plan { seed, faults: false, ..SMALL });
        assert!(report.faults.is_empty(), "{:?}", report.faults);
    }
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in [1, 2, 40] {
        let plan = Plan { seed, nodes: 8, steps: 4_000, ..SMALL };
        let (one, again) = (holds(plan), holds(plan));
        assert_eq!((one.hash, one.steps, one.replies), (again.hash, again.steps, again.replies), "{seed}");
        hashes.insert(one.hash);
    }
    assert_eq!(hashes.len(), 3, "another seed is another run");
}
