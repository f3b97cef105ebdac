//! The power goes, or a call fails, at every call to the disk in turn: nothing that was answered is lost,
//! nothing is there in part, and nothing that was refused comes back.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod disk;

use axon_proto::store::{Commit, CommitError, Keep, Store, Write};
use disk::{Disk, Holds, Model, Random, Unsynced, commit, holds, long, row, seen, seen_of, small};

const BODIES: [&str; 3] = ["body/0", "body/1", "body/2"];

/// One thing that is done with a store.
enum Step {
    Commit(Vec<Commit>),
    Evict(Keep),
    Maintain,
}

/// About 150 commits that fill, overwrite, evict, and make cleaning necessary, with the time of each step.
fn script() -> Vec<(u64, Step)> {
    let mut random = Random(42);
    let (mut seq, mut now_ms, mut steps) = (0, 1_000, Vec::new());
    for n in 0..52_u64 {
        now_ms += random.below(100);
        let keep = Keep { rows_max: 12, bytes_max: 3_000, ttl_ms: 1_500, read_up_to: seq / 2 };
        let commits = (0..1 + random.below(5)).map(|_| {
            let mut writes = Vec::new();
            for _ in 0..1 + random.below(3) {
                let text = "x".repeat(random.below(300) as usize);
                writes.push(match random.below(12) {
                    0..=4 => {
                        seq += 1 + random.below(2);
                        let row = row(seq, now_ms, "notify", &format!("{{\"{seq}\":\"{text}\"}}"));
                        Write::Row { row, firm: random.below(2) == 0 }
                    }
                    5..=7 => Write::put(format!("item/{}", random.below(6)), format!("{n} {text}")),
                    8 => Write::put(BODIES[random.below(3) as usize], format!("{n} {text}{text}")),
                    9 => Write::delete(format!("item/{}", random.below(6))),
                    10 => Write::Gone(seq.saturating_sub(random.below(8))),
                    _ => Write::Seen(seen(random.below(30) as u8, now_ms + 1 + random.below(3_000))),
                });
            }
            commit(writes, keep)
        });
        steps.push((now_ms, Step::Commit(commits.collect())));
        match random.below(5) {
            0 => steps.push((now_ms, Step::Evict(keep))),
            1 | 2 => steps.push((now_ms, Step::Maintain)),
            _ => {}
        }
    }
    steps
}

/// Does a step with the store and the model; all states that the disk may be in if the power goes now.
fn step(store: &mut Store<Disk>, model: &mut Model, disk: &Disk, now_ms: u64, step: &Step) -> Vec<Model> {
    let before = model.clone();
    match step {
        Step::Maintain => {
            store.maintain(now_ms);
            vec![before]
        }
        Step::Evict(keep) => {
            let mut after = before.clone();
            after.evict(keep, now_ms);
            match store.evict(keep, now_ms) {
                Ok(count) => {
                    assert_eq!(count as usize, before.rows.len() - after.rows.len());
                    *model = after;
                    vec![model.clone()]
                }
                Err(_) if disk.state().dead => vec![before, after],
                Err(_) => vec![before],
            }
        }
        Step::Commit(batch) => {
            let mut states = vec![before];
            let expected: Vec<_> = batch
                .iter()
                .map(|commit| {
                    let mut next = states.last().unwrap().clone();
                    let answer = next.commit(commit, now_ms);
                    states.push(next);
                    answer
                })
                .collect();
            let answers = store.commit(batch, now_ms);
            let failed = answers.iter().any(|answer| matches!(answer, Err(CommitError::Disk(_))));
            if !failed {
                assert_eq!(answers, expected);
                *model = states.pop().unwrap();
                return vec![model.clone()];
            }
            assert!(answers.iter().all(|answer| matches!(answer, Err(CommitError::Disk(_)))));
            if !disk.state().dead {
                states.truncate(1);
            }
            states
        }
    }
}

/// Opens the store after a power cut: it holds one of these states, and goes on working.
fn check(disk: &Disk, states: &[Model], now_ms: u64, what: &str) {
    let (mut store, opened) = Store::open(disk.clone(), small(), now_ms).unwrap();
    for warning in &opened.warnings {
        let expected = warning.contains("unfinished write") || warning.contains("not closed cleanly");
        assert!(expected, "{what}: {warning}");
    }
    assert!(!opened.clean || !opened.had_data);
    let found = holds(&mut store, &BODIES);
    let state = states.iter().find(|state| {
        state.holds() == found
            && state.seen_at(now_ms) == seen_of(&opened)
            && opened.next_seq >= state.next_seq.max(1)
    });
    let Some(state) = state else {
        let differ = |state: &Model| differences(&state.holds(), &found);
        let all: Vec<String> = states.iter().map(differ).collect();
        panic!("{what}: no possible state: {all:#?}, {:?}", opened.warnings);
    };
    let mut model = state.clone();
    let keep = Keep { rows_max: 12, bytes_max: 3_000, ttl_ms: 1_500, read_up_to: u64::MAX };
    for n in 0..6 {
        let row = row(opened.next_seq + n, now_ms, "query", "{}");
        let writes = vec![Write::Row { row, firm: true }, Write::put("item/1", "after")];
        let step_now = Step::Commit(vec![commit(writes, keep)]);
        step(&mut store, &mut model, disk, now_ms, &step_now);
        store.maintain(now_ms);
    }
    assert_eq!(holds(&mut store, &BODIES), model.holds(), "{what}");
    store.close().unwrap();
    let (mut store, opened) = Store::open(disk.clone(), small(), now_ms).unwrap();
    assert_eq!((opened.clean, opened.warnings.as_slice()), (true, [].as_slice()), "{what}");
    assert_eq!(holds(&mut store, &BODIES), model.holds(), "{what}");
}

fn differences(expected: &Holds, found: &Holds) -> String {
    let seqs = |holds: &Holds| holds.rows.iter().map(|row| row.seq).collect::<Vec<_>>();
    let items = expected.items.iter().filter(|(key, value)| found.items.get(*key) != Some(value));
    let items: Vec<_> = items.map(|(key, _)| key).collect();
    format!(
        "rows {:?} {:?}, lost_to {} {}, items {items:?} of {} {}",
        seqs(expected),
        seqs(found),
        expected.lost_to,
        found.lost_to,
        expected.items.len(),
        found.items.len()
    )
}

fn variants() -> Vec<Unsynced> {
    let seeds = if long() { 40 } else { 3 };
    let some = (1..=seeds).map(Unsynced::Some);
    [Unsynced::Dropped, Unsynced::Kept].into_iter().chain(some).collect()
}

/// Runs the script until the power goes; gives the states that may be found.
fn run(disk: &Disk, script: &[(u64, Step)]) -> (Vec<Model>, u64) {
    let mut model = Model::default();
    let mut states = vec![model.clone()];
    let Ok((mut store, _)) = Store::open(disk.clone(), small(), 0) else { return (states, 0) };
    for (now_ms, one) in script {
        states = step(&mut store, &mut model, disk, *now_ms, one);
        if disk.state().dead {
            return (states, *now_ms);
        }
    }
    assert_eq!(holds(&mut store, &BODIES), model.holds());
    (states, script.last().unwrap().0)
}

// shows: IPC-BOX-12, IPC-ORD-8
#[test]
fn the_power_may_go_at_any_call() {
    let script = script();
    let disk = Disk::default();
    run(&disk, &script);
    let calls = disk.state().calls;
    assert!(calls > 150, "{calls}");
    for cut in 1..=calls {
        let disk = Disk::default();
        disk.state().cut_at = Some(cut);
        let (states, now_ms) = run(&disk, &script);
        assert!(disk.state().dead);
        for unsynced in variants() {
            check(&disk.after_power_cut(unsynced), &states, now_ms, &format!("cut {cut}, {unsynced:?}"));
        }
    }
}

// shows: IPC-BOX-12
#[test]
fn the_power_may_go_again_while_the_store_is_opened() {
    let script = script();
    let every = if long() { 1 } else { 5 };
    for cut in (1..200).step_by(every) {
        let disk = Disk::default();
        disk.state().cut_at = Some(cut);
        let (states, now_ms) = run(&disk, &script);
        for seed in 1..4 {
            let first = disk.after_power_cut(Unsynced::Some(seed));
            for again in 1.. {
                let second = first.copied();
                second.state().cut_at = Some(again);
                let opened = Store::open(second.clone(), small(), now_ms);
                if !second.state().dead {
                    break;
                }
                drop(opened);
                for unsynced in [Unsynced::Dropped, Unsynced::Kept, Unsynced::Some(seed)] {
                    let what = format!("cut {cut}, seed {seed}, again {again}, {unsynced:?}");
                    check(&second.after_power_cut(unsynced), &states, now_ms, &what);
                }
            }
        }
    }
}

// shows: IPC-ORD-9, IPC-BOX-15
#[test]
fn any_call_may_fail() {
    let script = script();
    let disk = Disk::default();
    run(&disk, &script);
    for call in 1..=disk.state().calls {
        let disk = Disk::default();
        disk.state().fail_at = Some(call);
        let (states, now_ms) = run(&disk, &script);
        for unsynced in [Unsynced::Dropped, Unsynced::Kept, Unsynced::Some(call)] {
            check(
                &disk.after_power_cut(unsynced),
                &states,
                now_ms,
                &format!("call {call} failed, {unsynced:?}"),
            );
        }
    }
}
