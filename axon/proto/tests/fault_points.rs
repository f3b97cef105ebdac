//! A fault at each place of the scenario of the simulation in turn: the nth write, sync, name, reading,
//! message, answer, question for room. What must hold holds, and the daemons go on.
//!
//! Here some of the places are tried; all of them, and faults that last, with `AXON_LONG=1` or, faster,
//! `cargo run --release -p axon-proto --example sim -- --scenario --sweep`.

// How much is tried is asked of who runs the test.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axon_proto::sim::{Fault, Plan, Point, Report, Sort, run};

const SCENARIO: Plan =
    Plan { seed: 1, nodes: 4, steps: u64::MAX, faults: false, scenario: true, fault: None, story: false };

fn long() -> bool {
    std::env::var_os("AXON_LONG").is_some()
}

fn count(report: &Report, point: Point) -> u64 {
    report.counts.get(&point).copied().unwrap_or_default()
}

/// Runs the scenario with each of these faults; what they met, and what was violated.
fn sweep(faults: &[Fault]) -> (u64, BTreeSet<&'static str>) {
    let (next, met) = (AtomicUsize::new(0), Mutex::new((0, BTreeSet::new(), Vec::new())));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let report = run(Plan { fault: Some(fault), ..SCENARIO });
                    let mut met = met.lock().unwrap();
                    met.0 += report.failed;
                    met.1.extend(&report.refused);
                    if !report.violations.is_empty() {
                        met.2.push(format!(
                            "{:#?}\nno room for {:?}\nreplay: cargo run --release -p axon-proto --example sim \
                             -- --scenario --fault {fault} --story",
                            report.violations, report.refused,
                        ));
                    }
                }
            });
        }
    });
    let (failed, refused, wrong) = met.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} faults:\n{}", wrong.len(), faults.len(), wrong.join("\n"));
    (failed, refused)
}

/// One of so many places, or all; those of each sort begin elsewhere.
fn places(whole: &Report, sort: Sort, lasts: bool, every: usize) -> Vec<Fault> {
    let all = (1..=count(whole, sort.point())).map(|nth| Fault { sort, nth, lasts });
    let every = if long() { 1 } else { every };
    all.skip(sort as usize % every).step_by(every).collect()
}

#[test]
fn without_a_fault_all_goes_well() {
    let whole = run(SCENARIO);
    assert_eq!(whole.violations, []);
    println!("{} steps, {:?}, {:?}, {:?}", whole.steps, whole.replies, whole.counts, whole.asked.len());
    let refused = |word: &str| whole.replies.get(word).copied().unwrap_or(0);
    assert_eq!(refused("invalid_command"), 1, "a command that there is not: {:?}", whole.replies);
    // A guess; and a progress that the result of its delegation has overtaken, as the network will have it.
    assert!((1..=3).contains(&refused("not_authorized")), "{:?}", whole.replies);
    let told = ["ok", "invalid_command", "not_authorized"];
    assert!(whole.replies.keys().all(|word| told.contains(&word.as_str())), "{:?}", whole.replies);
    assert!(whole.delivered > 20, "{}", whole.delivered);
    assert!(whole.shown > 20, "messages of topics: {}", whole.shown);
    // It comes to all that is swept, and the log goes around.
    for (point, at_least) in [
        (Point::Write, 200),
        (Point::Sync, 200),
        (Point::Make, 40),
        (Point::Remove, 10),
        (Point::Names, 50),
        (Point::Read, 100),
        (Point::Open, 100),
        (Point::Whole, 10),
        (Point::Send, 50),
        (Point::Answer, 50),
        (Point::Room, 400),
    ] {
        assert!(count(&whole, point) > at_least, "{point:?}: {:?}", whole.counts);
    }
}

/// The bounds that the code asks, by what stands in it.
fn bounds_of_the_code() -> BTreeSet<String> {
    fn visit(dir: &std::path::Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("fault.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let asked = text.split("has_room(").skip(1).map(str::trim_start);
                let names = asked.filter_map(|rest| rest.strip_prefix('"')?.split_once('"'));
                found.extend(names.map(|(name, _)| name.to_owned()));
            }
        }
    }
    let mut found = BTreeSet::new();
    visit(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

#[test]
fn the_scenario_asks_every_bound() {
    let asked: BTreeSet<String> = run(SCENARIO).asked.into_iter().map(str::to_owned).collect();
    let bounds = bounds_of_the_code();
    assert!(bounds.len() > 25, "{bounds:?}");
    assert_eq!(asked, bounds);
}

#[test]
fn every_write_sync_and_name_may_fail() {
    let whole = run(SCENARIO);
    let mut faults = Vec::new();
    for sort in [Sort::Write, Sort::Short, Sort::Sync, Sort::SyncGone, Sort::SyncStale] {
        faults.extend(places(&whole, sort, false, 44));
    }
    for sort in [Sort::Make, Sort::Remove, Sort::Names, Sort::Read, Sort::Open] {
        faults.extend(places(&whole, sort, false, 24));
    }
    faults.extend(places(&whole, Sort::Whole, false, 1));
    let (failed, _) = sweep(&faults);
    assert!(failed as usize >= faults.len(), "{failed} of {}", faults.len());
}

#[test]
fn the_power_may_go_at_any_change() {
    let whole = run(SCENARIO);
    let faults = places(&whole, Sort::Power, false, 36);
    let (failed, _) = sweep(&faults);
    assert_eq!(failed as usize, faults.len());
}

#[test]
fn every_message_and_answer_may_be_lost() {
    let whole = run(SCENARIO);
    let sorts = [Sort::Send, Sort::Drop, Sort::Answer, Sort::AnswerDrop];
    let faults: Vec<Fault> = sorts.iter().flat_map(|sort| places(&whole, *sort, false, 8)).collect();
    let (failed, _) = sweep(&faults);
    assert_eq!(failed as usize, faults.len());
}

#[test]
fn every_growth_may_be_refused() {
    let whole = run(SCENARIO);
    // Every bound the first times it is asked, and now and then.
    let mut asked = BTreeMap::new();
    let mut faults = places(&whole, Sort::Room, false, 1);
    if !long() {
        let mut places = whole.asked.iter();
        faults.retain(|_| {
            let times =
                places.next().map(|place| asked.entry(*place).and_modify(|times| *times += 1).or_insert(1));
            times.is_some_and(|times: &mut u64| *times <= 2 || times.is_multiple_of(25))
        });
    }
    let (failed, refused) = sweep(&faults);
    assert_eq!(failed as usize, faults.len());
    println!("{failed} places of {} bounds", refused.len());
    assert_eq!(refused, whole.asked.iter().copied().collect(), "every bound that is asked has said no");
}

#[test]
fn faults_that_last_are_got_over_when_all_is_healed() {
    let whole = run(SCENARIO);
    let mut faults = Vec::new();
    for (sort, _) in Sort::ALL.into_iter().filter(|(sort, _)| *sort != Sort::Power) {
        let every = count(&whole, sort.point()) as usize / 3;
        faults.extend(places(&whole, sort, true, every.max(1)));
    }
    let (failed, _) = sweep(&faults);
    assert!(failed as usize > faults.len(), "{failed} of {}", faults.len());
}

/// The simulation with clients at random, without other faults.
#[test]
fn every_call_of_a_random_run_may_fail() {
    let calm = Plan { seed: 5, nodes: 2, steps: 400, scenario: false, ..SCENARIO };
    let nowhere = Fault { sort: Sort::Room, nth: u64::MAX, lasts: false };
    let whole = run(Plan { fault: Some(nowhere), ..calm });
    assert!(count(&whole, Point::Change) > 90 && count(&whole, Point::Send) > 30, "{:?}", whole.counts);
    for sort in [Sort::Short, Sort::SyncStale, Sort::Power, Sort::Send, Sort::Room] {
        for fault in places(&whole, sort, false, 10) {
            let report = run(Plan { fault: Some(fault), ..calm });
            assert_eq!(report.violations, [], "--seed 5 --nodes 2 --steps 400 --calm --fault {fault}");
        }
    }
}
/// Commands that find no room are refused as such, and by nothing else.
#[test]
fn a_client_that_finds_no_room_is_told_that_it_is_too_much() {
    let whole = run(SCENARIO);
    for place in
        ["a client's backlog", "commands that wait for peers", "invites", "lasting adverts", "scoped sockets"]
    {
        let found = (1..).zip(&whole.asked).filter(|(_, asked)| **asked == place);
        for (nth, _) in found.take(if long() { usize::MAX } else { 5 }) {
            let fault = Fault { sort: Sort::Room, nth, lasts: false };
            let report = run(Plan { fault: Some(fault), ..SCENARIO });
            assert_eq!(report.refused, [place], "--fault {fault}");
            assert_eq!(report.replies.get("overloaded"), Some(&1), "--fault {fault}: {:?}", report.replies);
            assert!(!report.replies.contains_key("internal_error"), "--fault {fault}: {:?}", report.replies);
        }
    }
}
