//! The power goes, or a call fails, at every call to the disk in turn: nothing that was answered is lost,
//! nothing is there in part, and nothing that was refused comes back. And when nothing fails, the store does
//! what the model does.

use axon_proto::store::{Commit, CommitError, Keep, Store, Write};

use crate::model::{
    Disk, Holds, Model, OPEN, Random, Unsynced, commit, firm_of, holds, long, row, seen, seen_of, small,
};

const BODIES: [&str; 3] = ["body/0", "body/1", "body/2"];

/// One thing that is done with a store.
enum Step {
    Commit(Vec<Commit>),
    Evict(Keep),
    Maintain,
}

/// About 150 commits that fill, overwrite, evict, and make cleaning necessary, with the time of each step.
fn script() -> Vec<(u64, Step)> {
    let mut random = Random::new(42);
    let (mut seq, mut now_ms, mut steps) = (0, 1_000, Vec::new());
    for n in 0..52_u64 {
        now_ms += random.below(100);
        let keep = Keep { rows_max: 12, bytes_max: 3_000, ttl_ms: 1_500, read_up_to: seq / 2 };
        let commits = (0..1 + random.below(5)).map(|_| {
            let mut writes = Vec::new();
            for _ in 0..1 + random.below(3) {
                let text = "x".repeat(random.below(300) as usize);
                writes.push(match random.below(14) {
                    0..=4 => {
                        seq += 1 + random.below(2);
                        let row = row(seq, now_ms, "notify", &format!("{{\"{seq}\":\"{text}\"}}"));
                        Write::Row { row, firm: random.below(2) == 0 }
                    }
                    5..=7 => Write::put(format!("item/{}", random.below(6)), format!("{n} {text}")),
                    8 => Write::put(BODIES[random.below(3) as usize], format!("{n} {text}{text}")),
                    9 => Write::delete(format!("item/{}", random.below(6))),
                    10 => Write::Gone(seq.saturating_sub(random.below(8))),
                    11 | 12 => Write::Loose(seq.saturating_sub(random.below(10))),
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
    let firm = firm_of(disk, small(), now_ms);
    let state = states.iter().find(|state| {
        state.holds() == found
            && state.firm() == firm
            && state.seen_at(now_ms) == seen_of(&opened)
            && opened.next_seq >= state.next_seq.max(1)
    });
    let Some(state) = state else {
        let differ = |state: &Model| (differences(&state.holds(), &found), state.firm());
        let all: Vec<_> = states.iter().map(differ).collect();
        panic!("{what}: no possible state: {all:#?}, firm {firm:?}, {:?}", opened.warnings);
    };
    let mut model = state.clone();
    let keep = Keep { rows_max: 12, bytes_max: 3_000, ttl_ms: 1_500, read_up_to: found.lost_to + 4 };
    for n in 0..6 {
        let seq = opened.next_seq + n;
        let row = row(seq, now_ms, "query", "{}");
        let loose = [seq / 2, seq.saturating_sub(1)].map(Write::Loose);
        let mut writes = vec![Write::Row { row, firm: true }, Write::put("item/1", "after")];
        writes.extend(loose);
        let step_now = Step::Commit(vec![commit(writes, keep)]);
        step(&mut store, &mut model, disk, now_ms, &step_now);
        store.maintain(now_ms);
    }
    assert_eq!(holds(&mut store, &BODIES), model.holds(), "{what}");
    store.close().unwrap();
    assert_eq!(firm_of(disk, small(), now_ms), model.firm(), "{what}");
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

/// Cuts the power at every call that the script makes.
fn cut_everywhere(script: &[(u64, Step)]) {
    let disk = Disk::default();
    run(&disk, script);
    let calls = disk.state().calls;
    assert!(calls > 150, "{calls}");
    for cut in 1..=calls {
        let disk = Disk::default();
        disk.state().cut_at = Some(cut);
        let (states, now_ms) = run(&disk, script);
        assert!(disk.state().dead);
        for unsynced in variants() {
            check(&disk.after_power_cut(unsynced), &states, now_ms, &format!("cut {cut}, {unsynced:?}"));
        }
    }
}

/// Everything that is done to the inbox, in any order, against the simplest way to do it.
#[test]
fn the_inbox_does_what_the_model_does() {
    for seed in 1..=if long() { 200 } else { 12 } {
        let mut random = Random::new(seed * 0x9e37_79b9);
        let (disk, mut model, mut now_ms, mut seq, mut read_up_to) =
            (Disk::default(), Model::default(), 1_000_000, 0_u64, 0);
        let open = || {
            let (store, opened) = Store::open(disk.clone(), small(), 0).unwrap();
            assert_eq!(opened.warnings, [""; 0]);
            store
        };
        let mut store = open();
        for n in 0..300 {
            now_ms += random.below(40);
            read_up_to = read_up_to.max(seq.saturating_sub(random.below(60)));
            let keep = Keep { rows_max: 30, bytes_max: 4_000, ttl_ms: 3_000, read_up_to };
            let writes = (0..1 + random.below(4)).map(|_| match random.below(10) {
                0..=4 => {
                    seq += 1 + random.below(2);
                    let row = row(seq, now_ms, "k", &"x".repeat(random.below(250) as usize));
                    Write::Row { row, firm: random.below(4) != 0 }
                }
                5..=7 => Write::Loose(seq.saturating_sub(random.below(40))),
                8 => Write::Gone(seq.saturating_sub(random.below(30))),
                _ => Write::put("a", "v".repeat(random.below(900) as usize)),
            });
            let commit = commit(writes.collect(), keep);
            if random.below(8) == 0 {
                // The disk refuses: nothing of it has happened.
                disk.state().room = Some(0);
                store.commit(std::slice::from_ref(&commit), now_ms);
                disk.state().room = None;
                assert_eq!(holds(&mut store, &[]), model.holds(), "seed {seed}, {n}");
            }
            let expected = model.commit(&commit, now_ms);
            assert_eq!(store.commit(&[commit], now_ms), [expected], "seed {seed}, {n}");
            match random.below(12) {
                0 => {
                    let rows = store.rows();
                    model.evict(&keep, now_ms);
                    assert_eq!(store.evict(&keep, now_ms), Ok(rows - model.rows.len() as u64));
                }
                1 => while store.maintain(now_ms) {},
                2 => {
                    store.close().unwrap();
                    store = open();
                }
                _ => {}
            }
            assert_eq!(holds(&mut store, &[]), model.holds(), "seed {seed}, {n}");
            assert_eq!(firm_of(&disk, small(), 0), model.firm(), "seed {seed}, {n}");
        }
        assert!(disk.names()[0].as_str() > "00000005.log", "cleaning went around: {:?}", disk.names());
    }
}

// shows: IPC-BOX-12, IPC-ORD-8
#[test]
fn the_power_may_go_at_any_call() {
    cut_everywhere(&script());
}

/// Firm messages that stay, one of them loosened now and then, while so much is overwritten that cleaning
/// goes around the log several times.
fn loosening() -> Vec<(u64, Step)> {
    let rows = (1..=9).map(|seq| Write::Row { row: row(seq, 0, "notify", &"x".repeat(99)), firm: true });
    let mut steps = vec![(0, Step::Commit(vec![commit(rows.collect(), OPEN)]))];
    for n in 0..90 {
        let mut writes = vec![Write::put("item/0", [n as u8; 700])];
        if n % 10 == 5 {
            // Of a message that stays, again of the one before, of one that is gone.
            writes.extend([1 + n / 10, n / 10, 99].map(Write::Loose));
        }
        if n % 30 == 29 {
            writes.push(Write::Gone(n / 10));
        }
        steps.push((0, Step::Commit(vec![commit(writes, OPEN)])));
        steps.push((0, Step::Maintain));
    }
    steps
}

// shows: IPC-BOX-10, IPC-BOX-12
#[test]
fn the_power_may_go_while_messages_that_are_not_firm_any_more_are_moved() {
    let script = loosening();
    let disk = Disk::default();
    let (states, _) = run(&disk, &script);
    assert!(disk.names()[0].as_str() > "00000009.log", "several times around: {:?}", disk.names());
    assert_eq!(firm_of(&disk, small(), 0), states[0].firm());
    cut_everywhere(&script);
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

/// A dead segment goes although that cannot be noted, so that a full disk has room again; it is noted by
/// whatever is written next.
#[test]
fn where_the_log_begins_is_told_as_soon_as_anything_can_be_written() {
    let disk = Disk::default();
    let (mut store, _) = Store::open(disk.clone(), small(), 0).unwrap();
    for n in 0..24_u8 {
        assert_eq!(store.commit(&[commit(vec![Write::put("a", [n; 1_000])], OPEN)], 0), [Ok(())]);
    }
    assert_eq!(disk.names()[0], "00000001.log");
    disk.state().fail_syncs = true;
    assert!(!store.maintain(0), "it could not be noted");
    disk.state().fail_syncs = false;
    assert_eq!(disk.names()[0], "00000002.log");
    assert!(store.begin_is_untold());
    assert_eq!(store.commit(&[commit(vec![Write::put("b", "1")], OPEN)], 0), [Ok(())]);
    assert!(!store.begin_is_untold());
    let (_, opened) = Store::open(disk.copied(), small(), 0).unwrap();
    let text = "the store was not closed cleanly: the newest writes may be missing";
    assert_eq!(opened.warnings, [text]);
}
