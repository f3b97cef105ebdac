//! What the store does when nothing fails, and when the disk refuses: commits, bounds, reading, cleaning.

use axon_proto::store::log::{OpenError, Options};
use axon_proto::store::memory::Memory;
use axon_proto::store::{Commit, CommitError, Keep, Read, ReadOut, Rows, Store, Write};

use crate::model;
use crate::model::{Disk, OPEN, all_rows, commit, firm_of, holds, long, row, seen, seen_of, small};

const NOW_MS: u64 = 1_000_000;

fn open(disk: &Disk) -> Store<Disk> {
    let (store, opened) = Store::open(disk.clone(), small(), NOW_MS).unwrap();
    assert_eq!(opened.warnings, [""; 0]);
    store
}

fn put(key: &str, value: &str) -> Commit {
    commit(vec![Write::put(key, value)], OPEN)
}

fn message(seq: u64, firm: bool, keep: Keep) -> Commit {
    let row = row(seq, NOW_MS, "notify", &format!("{{\"seq\":{seq:03}}}"));
    commit(vec![Write::Row { row, firm }], keep)
}

fn seqs(rows: &Rows) -> Vec<u64> {
    rows.rows.iter().map(|row| row.seq).collect()
}

fn value(store: &mut Store<Disk>, key: &str) -> Option<String> {
    match store.read(&Read::Items { keys: vec![key.into()] }) {
        ReadOut::Items(values) => values[0].as_ref().map(|value| String::from_utf8(value.to_vec()).unwrap()),
        other => panic!("{other:?}"),
    }
}

// --- commits ---

#[test]
fn many_commits_are_one_write_and_one_sync() {
    let disk = Disk::default();
    let (mut store, _) = Store::open(disk.clone(), Options::default(), NOW_MS).unwrap();
    assert_eq!(store.commit(&[put("a", "0")], NOW_MS), [Ok(())]);
    let counts = || {
        let state = disk.state();
        (state.writes, state.syncs)
    };
    let (writes, syncs) = counts();
    let batch: Vec<Commit> = (1..=50).map(|seq| message(seq, true, OPEN)).collect();
    assert!(store.commit(&batch, NOW_MS).iter().all(Result::is_ok));
    assert_eq!(counts(), (writes + 1, syncs + 1));
    assert_eq!(all_rows(&mut store).rows.len(), 50);
    assert!(store.commit(&[], NOW_MS).is_empty());
    assert_eq!(counts(), (writes + 1, syncs + 1), "nothing to write is no write");
}

// shows: IPC-BOX-12, WF-REP-3
#[test]
fn items_messages_and_ids_are_there_again_after_a_restart() {
    let disk = Disk::default();
    let mut store = open(&disk);
    assert!(
        store
            .commit(&[put("b", "1"), put("a", "2"), put("body/x", "3"), put("c", "4")], 5)
            .iter()
            .all(Result::is_ok)
    );
    let writes = vec![
        Write::delete("c"),
        Write::put("a", "5"),
        Write::Seen(seen(1, NOW_MS + 10)),
        Write::Seen(seen(2, NOW_MS)),
        Write::Row { row: row(7, 3, "query", "{\"ä\":1}"), firm: true },
        Write::put("", ""),
    ];
    assert_eq!(store.commit(&[commit(writes, OPEN)], 5), [Ok(())]);
    let before = holds(&mut store, &["body/x"]);
    store.close().unwrap();
    let (mut store, opened) = Store::open(disk.clone(), small(), NOW_MS).unwrap();
    assert_eq!(holds(&mut store, &["body/x"]), before);
    assert_eq!(all_rows(&mut store).rows, [row(7, 3, "query", "{\"ä\":1}")]);
    assert_eq!((opened.next_seq, opened.rows, opened.clean, opened.had_data), (8, 1, true, true));
    assert_eq!((opened.seen.as_slice(), opened.warnings.len()), ([seen(1, NOW_MS + 10)].as_slice(), 0));
    let mut keys = Vec::new();
    store.items(&mut |key, value| keys.push((key.to_owned(), value.to_vec()))).unwrap();
    let expected =
        [("", ""), ("a", "5"), ("b", "1")].map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
    assert_eq!(keys, expected, "sorted, without the large one");
    assert_eq!(value(&mut store, "body/x"), Some("3".into()));
    assert_eq!(value(&mut store, "c"), None);
}

#[test]
fn the_store_says_whether_it_was_closed() {
    let disk = Disk::default();
    let (store, opened) = Store::open(disk.clone(), small(), 0).unwrap();
    assert_eq!((opened.clean, opened.had_data, opened.next_seq), (false, false, 1));
    assert!(opened.warnings.is_empty());
    store.close().unwrap();
    let (store, opened) = Store::open(disk.clone(), small(), 0).unwrap();
    assert_eq!((opened.clean, opened.had_data), (true, true));
    let bytes = disk.bytes();
    store.close().unwrap();
    assert_eq!(disk.bytes(), bytes, "there was nothing more to say");
    let mut store = open(&disk);
    assert_eq!(store.commit(&[put("a", "1")], 0), [Ok(())]);
    drop(store);
    let (_, opened) = Store::open(disk.clone(), small(), 0).unwrap();
    let text = "the store was not closed cleanly: the newest writes may be missing";
    assert_eq!((opened.clean, opened.warnings), (false, vec![text.to_owned()]));
}

// shows: IPC-ORD-9, IPC-BOX-10
#[test]
fn a_commit_that_cannot_be_is_refused_alone() {
    let disk = Disk::default();
    let mut store = open(&disk);
    let long_key = "k".repeat(256);
    let batch = [
        put("a", "1"),
        commit(vec![Write::put("b", "1"), Write::put(long_key.as_str(), "1")], OPEN),
        message(5, false, OPEN),
        commit(vec![Write::put("b", "2"), message(5, false, OPEN).writes.remove(0)], OPEN),
        put(&long_key[1..], "1"),
    ];
    let answers = store.commit(&batch, NOW_MS);
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, false, true]);
    assert_eq!(answers[3], Err(CommitError::Disk("message number 5 was given before".into())));
    drop(store);
    let (mut store, _) = Store::open(disk, small(), NOW_MS).unwrap();
    assert_eq!((value(&mut store, "a"), value(&mut store, "b")), (Some("1".into()), None));
    assert_eq!(seqs(&all_rows(&mut store)), [5]);
}

// shows: IPC-BOX-2
#[test]
fn a_number_is_never_used_twice_even_when_all_messages_are_gone() {
    let disk = Disk::default();
    let mut store = open(&disk);
    let batch = [message(9, true, OPEN), commit(vec![Write::Gone(9), Write::Gone(4)], OPEN)];
    assert_eq!(store.commit(&batch, NOW_MS), [Ok(()), Ok(())]);
    for n in 0..400 {
        assert_eq!(store.commit(&[put("a", &format!("{n:0100}"))], NOW_MS), [Ok(())]);
    }
    while store.maintain(NOW_MS) {}
    store.close().unwrap();
    assert!(disk.names()[0].as_str() > "00000003.log");
    let (mut store, opened) = Store::open(disk, small(), NOW_MS).unwrap();
    assert_eq!((opened.next_seq, opened.rows), (10, 0));
    assert_eq!(all_rows(&mut store).lost_to, 0, "the owner took it out");
}

// --- bounds ---

// shows: IPC-BOX-4, IPC-BOX-10
#[test]
fn too_many_messages_push_out_what_was_read_then_what_is_not_firm() {
    let keep = Keep { rows_max: 4, read_up_to: 2, ..OPEN };
    let disk = Disk::default();
    let mut store = open(&disk);
    for (seq, firm) in [(1, true), (2, false), (3, true), (4, false)] {
        assert_eq!(store.commit(&[message(seq, firm, keep)], NOW_MS), [Ok(())]);
    }
    // One batch: each is decided by what the ones before it left.
    let batch: Vec<Commit> = (5..10).map(|seq| message(seq, true, keep)).collect();
    let full = Err(CommitError::Full);
    assert_eq!(store.commit(&batch, NOW_MS), [Ok(()), Ok(()), Ok(()), full.clone(), full.clone()]);
    let rows = all_rows(&mut store);
    assert_eq!((seqs(&rows), rows.lost_to, rows.first_after_lost), (vec![3, 5, 6, 7], 4, Some(5)));
    // A new one that is not firm is refused as well, and one that is refused leaves nothing behind.
    assert_eq!(store.commit(&[message(8, false, keep)], NOW_MS)[0], full);
    let mut refused = message(10, true, keep);
    refused.writes.push(Write::put("a", "1"));
    refused.writes.insert(0, Write::Gone(7));
    refused.writes.push(message(11, false, keep).writes.remove(0));
    assert_eq!(store.commit(std::slice::from_ref(&refused), NOW_MS), [full]);
    assert_eq!(value(&mut store, "a"), None);
    assert_eq!(all_rows(&mut store), rows);
    // Reading makes room.
    let keep = Keep { read_up_to: 5, ..keep };
    assert_eq!(store.commit(&[message(8, false, keep)], NOW_MS), [Ok(())]);
    let rows = all_rows(&mut store);
    assert_eq!((seqs(&rows), rows.lost_to, rows.first_after_lost), (vec![5, 6, 7, 8], 4, Some(5)));
    drop(store);
    let (mut store, opened) = Store::open(disk, small(), NOW_MS).unwrap();
    assert_eq!((all_rows(&mut store), opened.next_seq), (rows, 9));
}

// shows: IPC-BOX-4, IPC-BOX-10
#[test]
fn envelope_bytes_are_bounded_too_and_one_that_is_too_large_is_refused() {
    let disk = Disk::default();
    let mut store = open(&disk);
    let keep = Keep { bytes_max: 25, read_up_to: u64::MAX, ..OPEN };
    let raw = |seq, raw: &str| commit(vec![Write::Row { row: row(seq, 0, "k", raw), firm: true }], keep);
    let batch = [raw(1, "1234567890"), raw(2, "1234567890"), raw(3, "12345"), raw(4, "123456")];
    assert!(store.commit(&batch, NOW_MS).iter().all(Result::is_ok));
    assert_eq!(seqs(&all_rows(&mut store)), [2, 3, 4]);
    assert_eq!(store.commit(&[raw(5, &"x".repeat(26))], NOW_MS), [Err(CommitError::Full)]);
    assert_eq!(seqs(&all_rows(&mut store)), [2, 3, 4], "nothing was pushed out for it");
    assert_eq!(store.commit(&[raw(5, &"x".repeat(25))], NOW_MS), [Ok(())]);
    let rows = all_rows(&mut store);
    assert_eq!((seqs(&rows), rows.lost_to), (vec![5], 4));
    let none = Keep { rows_max: 0, ..OPEN };
    assert_eq!(store.commit(&[message(6, false, none)], NOW_MS), [Err(CommitError::Full)]);
}

// shows: IPC-BOX-4, IPC-BOX-9, IPC-BOX-10
#[test]
fn age_takes_firm_messages_too_and_lower_bounds_take_what_may_go() {
    let disk = Disk::default();
    let mut store = open(&disk);
    let batch: Vec<Commit> = (1..=6)
        .map(|seq| commit(vec![Write::Row { row: row(seq, seq * 10, "k", "{}"), firm: seq != 5 }], OPEN))
        .collect();
    assert!(store.commit(&batch, 60).iter().all(Result::is_ok));
    let keep = Keep { ttl_ms: 100, ..OPEN };
    assert_eq!(store.evict(&keep, 109), Ok(0));
    assert_eq!(store.evict(&keep, 110), Ok(1));
    let rows = all_rows(&mut store);
    assert_eq!((seqs(&rows), rows.lost_to), (vec![2, 3, 4, 5, 6], 1));
    // A new message takes the old ones away, too.
    assert_eq!(store.commit(&[message(7, false, keep)], 130), [Ok(())]);
    assert_eq!(seqs(&all_rows(&mut store)), [4, 5, 6, 7]);
    // Firm ones that nobody has read stay, although there are too many.
    assert_eq!(store.evict(&Keep { rows_max: 1, ..OPEN }, 130), Ok(2));
    let rows = all_rows(&mut store);
    assert_eq!((seqs(&rows), rows.lost_to, rows.first_after_lost), (vec![4, 6], 7, None));
    drop(store);
    assert_eq!(all_rows(&mut Store::open(disk, small(), 0).unwrap().0), rows);
}

// --- messages that are not firm any more ---

fn loose(seqs: &[u64]) -> Commit {
    commit(seqs.iter().copied().map(Write::Loose).collect(), OPEN)
}

// shows: IPC-BOX-4, IPC-BOX-10
#[test]
fn a_message_that_somebody_has_read_goes_like_any_other() {
    let disk = Disk::default();
    let mut store = open(&disk);
    let keep = Keep { rows_max: 4, read_up_to: 1, ..OPEN };
    let batch: Vec<Commit> = (1..=4).map(|seq| message(seq, seq != 4, keep)).collect();
    assert!(store.commit(&batch, NOW_MS).iter().all(Result::is_ok));
    let bytes = disk.bytes();
    // Read, loose, gone and never there: nothing is written.
    let nothing = commit([1, 4, 0, 9, u64::MAX].map(Write::Loose).to_vec(), keep);
    assert_eq!(store.commit(std::slice::from_ref(&nothing), NOW_MS), [Ok(())]);
    assert_eq!((disk.bytes(), firm_of(&disk, small(), NOW_MS)), (bytes, vec![1, 2, 3]));
    // Once is enough.
    assert_eq!(store.commit(&[loose(&[3, 3]), loose(&[3])], NOW_MS), [Ok(()), Ok(())]);
    assert_eq!(disk.bytes(), bytes + 32 + 17);
    assert_eq!(store.commit(&[loose(&[3])], NOW_MS), [Ok(())]);
    assert_eq!((disk.bytes(), firm_of(&disk, small(), NOW_MS)), (bytes + 32 + 17, vec![1, 2]));
    // What is refused leaves it firm, what comes later in the same commit finds it loose.
    let mut refused = loose(&[2]);
    refused.writes.push(Write::put("k".repeat(256), "1"));
    assert!(store.commit(&[refused], NOW_MS)[0].is_err());
    let none_read = Keep { read_up_to: 0, ..keep };
    let batch: Vec<Commit> = (5..=7).map(|seq| message(seq, true, none_read)).collect();
    assert_eq!(store.commit(&batch, NOW_MS), [Ok(()), Ok(()), Err(CommitError::Full)]);
    assert_eq!(seqs(&all_rows(&mut store)), [1, 2, 5, 6]);
    let mut both = message(7, true, none_read);
    both.writes.insert(0, Write::Loose(2));
    both.writes.push(Write::Loose(7));
    assert_eq!(store.commit(&[both], NOW_MS), [Ok(())]);
    let rows = all_rows(&mut store);
    assert_eq!((seqs(&rows), rows.lost_to), (vec![1, 5, 6, 7], 4));
    drop(store);
    let (mut store, _) = Store::open(disk.clone(), small(), NOW_MS).unwrap();
    assert_eq!((all_rows(&mut store), firm_of(&disk, small(), NOW_MS)), (rows, vec![1, 5, 6]));
}

#[test]
fn it_stays_so_whether_it_is_moved_before_or_after() {
    let disk = Disk::default();
    let mut store = open(&disk);
    let batch: Vec<Commit> = (1..=4).map(|seq| message(seq, true, OPEN)).collect();
    assert!(store.commit(&batch, NOW_MS).iter().all(Result::is_ok));
    let around = |store: &mut Store<Disk>, loosened: &[u64]| {
        assert_eq!(store.commit(&[loose(loosened)], NOW_MS), [Ok(())]);
        let last = disk.names().pop().unwrap();
        let mut n = 0;
        // Until the segment with the note has gone, and with it all that was before.
        while disk.names()[0] <= last {
            assert_eq!(store.commit(&[put("a", &format!("{n:0500}"))], NOW_MS), [Ok(())]);
            while store.maintain(NOW_MS) {}
            n += 1;
            assert!(n < 1_000);
        }
        firm_of(&disk, small(), NOW_MS)
    };
    assert_eq!(around(&mut store, &[2]), [1, 3, 4], "loosened, then moved");
    assert_eq!(around(&mut store, &[3]), [1, 4], "moved, loosened, then moved");
    let gone = [message(5, true, OPEN), loose(&[5, 4]), commit(vec![Write::Gone(4), Write::Gone(5)], OPEN)];
    assert!(store.commit(&gone, NOW_MS).iter().all(Result::is_ok));
    assert_eq!(firm_of(&disk, small(), NOW_MS), [1], "the note is there, the message is not");
    assert_eq!(around(&mut store, &[2, 3]), [1]);
    assert_eq!(seqs(&all_rows(&mut store)), [1, 2, 3]);
}

// shows: IPC-BOX-8, IPC-ORD-9
#[test]
fn many_at_once_are_taken_back_together_and_cost_no_memory_that_stays() {
    let rows: u64 = 6_000;
    let disk = Disk::default();
    let options = Options { segment_bytes: 1_048_576, salt: 1 };
    let (mut store, _) = Store::open(disk.clone(), options, NOW_MS).unwrap();
    let writes =
        (1..=rows).map(|seq| Write::Row { row: row(seq, NOW_MS, "notify", "{}"), firm: seq % 4 != 0 });
    assert_eq!(store.commit(&[commit(writes.collect(), OPEN)], NOW_MS), [Ok(())]);
    let every_third: Vec<u64> = (1..=rows / 3).map(|n| n * 3).collect();
    disk.state().room = Some(0);
    assert!(store.commit(&[loose(&every_third)], NOW_MS)[0].is_err());
    disk.state().room = None;
    let keep = Keep { rows_max: rows - rows / 4, ..OPEN };
    assert_eq!(store.evict(&Keep { rows_max: rows - 1, ..OPEN }, NOW_MS), Ok(1));
    assert_eq!(store.commit(&[loose(&every_third)], NOW_MS), [Ok(())]);
    assert!(store.memory_bytes() < 110_000 + 65_536, "{}", store.memory_bytes());
    assert_eq!(store.evict(&keep, NOW_MS), Ok(rows / 4 - 1));
    let firm: Vec<u64> = (1..=rows).filter(|seq| seq % 4 != 0 && seq % 3 != 0).collect();
    assert_eq!(firm_of(&disk, options, NOW_MS), firm);
    assert_eq!(store.evict(&Keep { rows_max: 0, ..OPEN }, NOW_MS), Ok(rows / 4));
    assert_eq!(seqs(&all_rows(&mut store)), firm);
}

#[test]
fn a_store_that_was_written_before_there_were_such_notes_is_open_to_them() {
    // Messages 1 and 2, firm, the first one gone, and an item.
    const OLD: &str = "\
    41584f4e53544f310100000001000000ed5e00000100000000000000208d1acc41584f4e53544f310100000001000000\
    ed5e00000100000000000000208d1acc\
    f7a50e9c2b000000010000000000000000000000000000007065299f7c9efe6230376ea0160000000101000000000000\
    0005000000000000000101006b7b7d367f35480300000004016131\
    f7a50e9c2b00000002000000000000000000000000000000684088dbec20d1a0709a1699160000000102000000000000\
    0005000000000000000101006b7b7d367f35480300000004016131\
    f7a50e9c1a0000000300000000000000000000000000000046d0bf8e789ad6f3e22bff83110000000201000000000000\
    00010000000000000000\
    f7a50e9c2a0000000400000000000000000000000000000001627e3ed5a2b64a91482fdc180000000603000000000000\
    0000000000000000000100000000000000be6246580000000007";
    let bytes = OLD.as_bytes().as_chunks::<2>().0.iter();
    let digits = bytes.map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
    let disk = Disk::default();
    disk.put("00000001.log", digits.collect());
    let mut store = open(&disk);
    assert_eq!((seqs(&all_rows(&mut store)), value(&mut store, "a")), (vec![2], Some("1".into())));
    assert_eq!(firm_of(&disk, small(), NOW_MS), [2]);
    assert_eq!(store.commit(&[loose(&[1, 2])], NOW_MS), [Ok(())]);
    assert_eq!(disk.names(), ["00000001.log"]);
    assert_eq!(firm_of(&disk, small(), NOW_MS), [0; 0]);
}

// --- reading ---

fn read(
    store: &mut Store<Disk>,
    after: u64,
    kinds: Option<&[&str]>,
    stop_at_other: bool,
    limit: usize,
) -> Rows {
    let kinds = kinds.map(|kinds| kinds.iter().map(|kind| (*kind).to_owned()).collect());
    let read = Read::Rows { after, up_to: 9, kinds, stop_at_other, limit, bytes_max: 1_000 };
    match store.read(&read) {
        ReadOut::Rows(rows) => rows,
        other => panic!("{other:?}"),
    }
}

// shows: IPC-INB-2, IPC-INB-3
#[test]
fn messages_are_read_in_order_by_kind_and_within_bounds() {
    let disk = Disk::default();
    let mut store = open(&disk);
    for (seq, kind) in [(1, "a"), (2, "b"), (3, "a"), (5, "c"), (6, "a"), (9, "b"), (12, "a")] {
        let write = Write::Row { row: row(seq, 0, kind, &"x".repeat(300)), firm: false };
        assert_eq!(store.commit(&[commit(vec![write], OPEN)], 0), [Ok(())]);
    }
    let outline = |rows: Rows| (seqs(&rows), rows.next, rows.scanned_to);
    assert_eq!(outline(read(&mut store, 0, None, false, 2)), (vec![1, 2], Some(3), 2));
    assert_eq!(outline(read(&mut store, 3, None, false, 9)), (vec![5, 6, 9], None, 9));
    assert_eq!(outline(read(&mut store, 0, None, false, 9)), (vec![1, 2, 3], Some(5), 4), "bytes");
    assert_eq!(outline(read(&mut store, 0, Some(&["a"]), false, 2)), (vec![1, 3], Some(6), 5));
    assert_eq!(outline(read(&mut store, 3, Some(&["a", "b"]), false, 9)), (vec![6, 9], None, 9));
    assert_eq!(outline(read(&mut store, 0, Some(&["a"]), true, 9)), (vec![1], None, 1));
    assert_eq!(outline(read(&mut store, 3, Some(&["a"]), true, 9)), (vec![], None, 4));
    assert_eq!(outline(read(&mut store, 9, None, false, 9)), (vec![], None, 9));
    assert_eq!(outline(read(&mut store, 0, None, false, 0)), (vec![], Some(1), 0));
    let one = Read::Rows { after: 0, up_to: 99, kinds: None, stop_at_other: false, limit: 9, bytes_max: 1 };
    let ReadOut::Rows(rows) = store.read(&one) else { panic!() };
    assert_eq!(outline(rows), (vec![1], Some(2), 1), "at least one");
    let ReadOut::Rows(rows) = store.read(&Read::Rows {
        after: 9,
        up_to: 99,
        kinds: None,
        stop_at_other: false,
        limit: 9,
        bytes_max: 9,
    }) else {
        panic!()
    };
    assert_eq!(outline(rows), (vec![12], None, 99));
    for (after, count) in [(0, 7), (3, 4), (4, 4), (12, 0), (99, 0)] {
        assert_eq!(store.read(&Read::Count { after }), ReadOut::Count(count));
    }
}

// shows: IPC-INB-3
#[test]
fn one_reading_is_bounded() {
    let (mut store, _) = Store::open(Memory::new(), Options::default(), 0).unwrap();
    let raw = "x".repeat(60_000);
    for seq in 1..=200 {
        let write = Write::Row { row: row(seq, 0, "a", &raw), firm: false };
        assert_eq!(store.commit(&[commit(vec![write], OPEN)], 0), [Ok(())]);
    }
    let kinds = Some(vec!["b".to_owned()]);
    let (mut after, mut readings) = (0, 0);
    loop {
        let kinds = kinds.clone();
        let read = Read::Rows { after, up_to: 999, kinds, stop_at_other: false, limit: 9, bytes_max: 9 };
        let ReadOut::Rows(rows) = store.read(&read) else { panic!() };
        assert!(rows.rows.is_empty());
        readings += 1;
        after = rows.scanned_to;
        match rows.next {
            Some(next) => assert_eq!(next, after + 1),
            None => break,
        }
    }
    assert_eq!((after, readings), (999, 2), "12 MB are more than one reading goes through");
}

// --- a disk that refuses ---

// shows: IPC-BOX-15, IPC-ORD-9
#[test]
fn a_full_disk_refuses_and_all_is_well_when_there_is_room_again() {
    let disk = Disk::default();
    let mut store = open(&disk);
    assert!(store.commit(&[put("a", "1"), message(1, true, OPEN)], NOW_MS).iter().all(Result::is_ok));
    let before = holds(&mut store, &[]);
    for spare in [0, 40, 5_000] {
        let used = disk.bytes();
        disk.state().room = Some(used + spare);
        let (mut n, mut seq) = (0, store.rows() + 1);
        let answers = loop {
            let answers = store.commit(&[put("a", &"x".repeat(300)), message(seq, true, OPEN)], NOW_MS);
            if answers[0].is_err() {
                break answers;
            }
            (n, seq) = (n + 1, seq + 1);
            assert!(n < 40);
        };
        let refused = Err(CommitError::Disk("no space left on device".into()));
        assert_eq!(answers, [refused.clone(), refused], "both or none");
        let now = holds(&mut store, &[]);
        assert_eq!(now.rows.len() as u64, seq - 1);
        disk.state().room = Some(0);
        assert!(store.evict(&Keep { rows_max: 0, read_up_to: 99, ..OPEN }, NOW_MS).is_err());
        assert_eq!(holds(&mut store, &[]), now);
        store.maintain(NOW_MS);
        disk.state().room = None;
        let (mut reopened, opened) = Store::open(disk.copied(), small(), NOW_MS).unwrap();
        assert_eq!(opened.warnings.len(), 1, "{:?}", opened.warnings);
        assert_eq!(holds(&mut reopened, &[]), now);
    }
    assert!(store.commit(&[put("a", "1")], NOW_MS)[0].is_ok());
    assert_eq!(holds(&mut store, &[]).items, before.items);
    store.close().unwrap();
    open(&disk);
}

// shows: IPC-BOX-15
#[test]
fn a_store_full_of_what_is_dead_frees_itself_on_a_full_disk() {
    let disk = Disk::default();
    let mut store = open(&disk);
    disk.state().room = Some(30_000);
    let mut answer = Ok(());
    for n in 0..1_000 {
        answer = store.commit(&[put("a", &format!("{n:01000}"))], NOW_MS).remove(0);
        if answer.is_err() {
            break;
        }
    }
    assert!(answer.is_err());
    // Not yet enough to be urgent, but enough for idle times.
    disk.state().room = Some(disk.bytes());
    while store.maintain(NOW_MS) {}
    assert_eq!(store.commit(&[put("a", &"x".repeat(1_000))], NOW_MS), [Ok(())]);
    store.close().unwrap();
    open(&disk);
}

// shows: IPC-ORD-9
#[test]
fn what_a_failed_sync_refused_does_not_come_back() {
    let disk = Disk::default();
    let mut store = open(&disk);
    assert_eq!(store.commit(&[put("a", "1")], NOW_MS), [Ok(())]);
    for room in [false, true] {
        disk.state().fail_syncs = !room;
        let failing = disk.state().calls + 2;
        disk.state().fail_at = room.then_some(failing);
        let batch = [put("a", "2"), message(1, true, OPEN)];
        let refused = Err(CommitError::Disk("the sync failed".into()));
        assert_eq!(store.commit(&batch, NOW_MS), [refused.clone(), refused]);
        disk.state().fail_syncs = false;
        assert_eq!((value(&mut store, "a"), store.rows()), (Some("1".into()), 0));
        assert_eq!(store.commit(&[put("b", "1")], NOW_MS), [Ok(())]);
        for unsynced in [model::Unsynced::Kept, model::Unsynced::Dropped] {
            let after = disk.after_power_cut(unsynced);
            let (mut again, opened) = Store::open(after, small(), NOW_MS).unwrap();
            assert_eq!(
                (value(&mut again, "a"), value(&mut again, "b")),
                (Some("1".into()), Some("1".into()))
            );
            assert_eq!((again.rows(), opened.warnings.len()), (0, 1), "{:?}", opened.warnings);
        }
    }
}

// shows: IPC-BOX-14
#[test]
fn a_store_of_a_newer_axon_is_refused_and_left_alone() {
    let disk = Disk::default();
    open(&disk).close().unwrap();
    let mut content = disk.content("00000001.log");
    // Format 2, with a check that is right; in both copies of the header.
    for at in [0, 32] {
        content[at + 8] = 2;
        let crc = crc32(&content[at..at + 28]);
        content[at + 28..at + 32].copy_from_slice(&crc.to_le_bytes());
    }
    disk.put("00000001.log", content.clone());
    let error = Store::open(disk.clone(), small(), 0).map(drop).unwrap_err();
    assert_eq!(error, OpenError::Newer { found: 2, known: 1 });
    assert_eq!(
        error.to_string(),
        "this store was written by a newer axon (format 2, this one knows up to 1): use that axon, or move \
         the folder `store` away"
    );
    assert_eq!(disk.content("00000001.log"), content);
    disk.state().dead = true;
    let error = Store::open(disk.clone(), small(), 0).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "the store cannot be opened: the power is off");
}

/// The plain way, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

// --- cleaning ---

#[test]
fn the_disk_is_bounded_when_items_are_overwritten_without_end() {
    for maintained in [false, true] {
        let disk = Disk::default();
        let mut store = open(&disk);
        let mut most = 0;
        for n in 0..2_000_u64 {
            let writes = vec![
                Write::put(format!("item/{}", n % 10), format!("{n:0150}")),
                Write::Seen(seen(n as u8, NOW_MS + n + 5)),
                Write::delete(format!("none/{n}")),
            ];
            assert_eq!(store.commit(&[commit(writes, OPEN)], NOW_MS + n), [Ok(())]);
            while maintained && store.maintain(NOW_MS + n) {}
            most = most.max(disk.bytes());
        }
        // Ten items and what is remembered live: some 3 KB.
        let bound = if maintained { 32_768 } else { 49_152 };
        assert!(most < bound, "{most}");
        assert_eq!(store.disk_bytes(), disk.bytes());
        let before = holds(&mut store, &[]);
        assert_eq!(before.items.len(), 10);
        store.close().unwrap();
        assert_eq!(holds(&mut open(&disk), &[]), before);
    }
}

#[test]
fn the_disk_is_bounded_when_messages_come_and_go_and_old_ones_stay() {
    let disk = Disk::default();
    let mut store = open(&disk);
    let keep = Keep { rows_max: 100, ..OPEN };
    let mut most = 0;
    for n in 0..1_500 {
        let batch: Vec<Commit> =
            (1..=4).map(|k| message(n * 4 + k, (n * 4 + k) % 97 == 0 && n < 1_000, keep)).collect();
        assert!(store.commit(&batch, NOW_MS).iter().all(Result::is_ok));
        most = most.max(disk.bytes());
    }
    assert!(most < 65_536, "{most}");
    let rows = all_rows(&mut store);
    assert_eq!(rows.rows.len(), 100);
    let firm: Vec<u64> = (1..=4_000).filter(|seq| seq % 97 == 0).collect();
    assert_eq!(seqs(&rows)[..firm.len()], firm, "firm ones were moved again and again");
    store.close().unwrap();
    let (mut store, opened) = Store::open(disk, small(), NOW_MS).unwrap();
    assert_eq!((all_rows(&mut store), opened.next_seq, opened.rows), (rows, 6_001, 100));
}

// shows: WF-REP-1
#[test]
fn ids_are_moved_until_they_end() {
    let disk = Disk::default();
    let mut store = open(&disk);
    let writes = vec![Write::Seen(seen(1, NOW_MS + 50)), Write::Seen(seen(2, NOW_MS + 5_000))];
    assert_eq!(store.commit(&[commit(writes, OPEN)], NOW_MS), [Ok(())]);
    for n in 0..500 {
        assert_eq!(store.commit(&[put("a", &format!("{n:0100}"))], NOW_MS + 100), [Ok(())]);
    }
    store.close().unwrap();
    let (_, opened) = Store::open(disk, small(), 0).unwrap();
    assert_eq!(seen_of(&opened).into_values().collect::<Vec<_>>(), [NOW_MS + 5_000]);
}

#[test]
fn one_step_of_cleaning_is_short() {
    let options = Options { segment_bytes: 1_048_576, salt: 1 };
    let (mut store, _) = Store::open(Memory::new(), options, 0).unwrap();
    let value = "v".repeat(20_000);
    for n in 0..600 {
        let key = if n % 4 == 0 { format!("kept/{n}") } else { "often".into() };
        assert_eq!(store.commit(&[put(&key, &value)], 0), [Ok(())]);
    }
    let (mut bytes, mut steps) = (store.disk_bytes(), 0);
    while store.maintain(0) {
        let now = store.disk_bytes();
        assert!(now < bytes + 300_000, "a step writes a quarter of a megabyte at most");
        (bytes, steps) = (now, steps + 1);
    }
    assert!(steps > 8, "{steps}");
}

// --- size ---

// shows: IPC-BOX-8
#[test]
fn a_long_inbox_costs_little_memory() {
    let rows: u64 = if long() { 1_000_000 } else { 20_000 };
    let disk = Memory::new();
    let (mut store, _) = Store::open(disk.clone(), Options::default(), 0).unwrap();
    let raw = "{\"payload\":\"0123456789\"}";
    let mut memory_max = 0;
    for first in (1..=rows).step_by(1_000) {
        let writes = (first..first + 1_000)
            .map(|seq| Write::Row { row: row(seq, seq, "notify", raw), firm: seq % 2 == 0 });
        assert_eq!(store.commit(&[commit(writes.collect(), OPEN)], 0), [Ok(())]);
        memory_max = memory_max.max(store.memory_bytes());
    }
    // Where a thousand messages of one batch stand is beside this.
    assert!(memory_max < 110_000 + 400_000, "{memory_max}");
    store.close().unwrap();
    let (mut store, opened) = Store::open(disk, Options::default(), 0).unwrap();
    assert_eq!((opened.rows, opened.next_seq), (rows, rows + 1));
    for after in [0, 1, rows / 3, rows - 1] {
        let read =
            Read::Rows { after, up_to: u64::MAX, kinds: None, stop_at_other: false, limit: 2, bytes_max: 99 };
        let ReadOut::Rows(found) = store.read(&read) else { panic!() };
        assert_eq!(found.rows[0].seq, after + 1);
        assert_eq!(store.read(&Read::Count { after }), ReadOut::Count(rows - after));
    }
    assert!(store.memory_bytes() < 110_000 + 65_536, "{}", store.memory_bytes());
    // Those that are not firm go one by one, those that have been read together.
    let keep = Keep { rows_max: rows / 2 + 10, ..OPEN };
    assert_eq!(store.evict(&keep, 0), Ok(rows / 2 - 10));
    let keep = Keep { read_up_to: rows - 100, rows_max: 50, ..OPEN };
    assert_eq!(store.evict(&keep, 0), Ok(rows / 2 - 40));
    assert_eq!(store.rows(), 50);
    assert!(store.memory_bytes() < 110_000 + 65_536, "{}", store.memory_bytes());
    while store.maintain(0) {}
    assert!(store.disk_bytes() < 5 * 1_048_576);
    assert_eq!(all_rows(&mut store).rows.len(), 50);
}
