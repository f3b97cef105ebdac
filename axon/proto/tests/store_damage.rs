//! Bytes of a store change, or are missing: what is read is what was written, or the loss is told.

use std::collections::{BTreeMap, BTreeSet};

use axon_proto::store::log::{OpenError, Opened, Options};
use axon_proto::store::{Keep, Read, ReadOut, Row, Store, Write};

use crate::model;
use crate::model::{Disk, Holds, OPEN, commit, firm_of, holds, long, row, seen, seen_of};

const NOW_MS: u64 = 1_000;
const OPTIONS: Options = Options { segment_bytes: 700, salt: 0x5eed };
const BODIES: [&str; 1] = ["body/0"];
/// The messages of [`store`] that are firm in the end.
const FIRM: [u64; 2] = [10, 12];

/// Everything that was ever stored.
#[derive(Default)]
struct Ever {
    rows: BTreeMap<u64, Row>,
    items: BTreeMap<String, BTreeSet<Vec<u8>>>,
}

/// A small store of several segments that was closed; some of it has been moved by cleaning.
fn store() -> (Disk, Ever) {
    let (disk, mut ever) = (Disk::default(), Ever::default());
    let (mut store, _) = Store::open(disk.clone(), OPTIONS, NOW_MS).unwrap();
    let keep = Keep { rows_max: 8, read_up_to: 4, ..OPEN };
    for n in 1..=14_u64 {
        let one = row(n, NOW_MS, "notify", &format!("{{\"message number\":{n}}}"));
        let mut writes = vec![Write::Row { row: one, firm: n % 3 == 0 || n == 7 || n == 10 }];
        if n % 2 == 0 {
            let key = if n == 8 { "body/0".into() } else { format!("item/{}", n % 6) };
            writes.push(Write::put(key, format!("value of {n}, {}", "v".repeat(40))));
        }
        if n == 7 {
            writes.extend([Write::Seen(seen(1, NOW_MS + 9)), Write::delete("item/0"), Write::Gone(6)]);
        }
        // Messages 7 and 9 are moved when n is 10.
        match n {
            8 => writes.push(Write::Loose(7)),
            11 => writes.push(Write::Loose(9)),
            _ => {}
        }
        for write in &writes {
            match write {
                Write::Row { row, .. } => drop(ever.rows.insert(row.seq, row.clone())),
                Write::Put { key, value } => {
                    ever.items.entry(key.clone()).or_default().insert(value.to_vec());
                }
                _ => {}
            }
        }
        assert_eq!(store.commit(&[commit(writes, keep)], NOW_MS), [Ok(())]);
        if n == 10 {
            // Much that is soon dead, so that what is old gets moved.
            for _ in 0..24 {
                let writes = vec![Write::put("item/often", [b'o'; 200])];
                assert_eq!(store.commit(&[commit(writes, keep)], NOW_MS), [Ok(())]);
            }
            ever.items.entry("item/often".into()).or_default().insert(vec![b'o'; 200]);
            while store.maintain(NOW_MS) {}
        }
    }
    store.close().unwrap();
    (disk, ever)
}

/// Opens and reads all; none: it was refused with a sentence.
fn look(disk: &Disk) -> Option<(Store<Disk>, Opened, Holds)> {
    match Store::open(disk.clone(), OPTIONS, NOW_MS) {
        Ok((mut store, mut opened)) => {
            let found = holds(&mut store, &BODIES);
            opened.warnings.extend(store.take_warnings());
            Some((store, opened, found))
        }
        Err(OpenError::Newer { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Opens a damaged store; gives how many records it lost.
fn check(disk: &Disk, whole: &Holds, whole_opened: &Opened, ever: &Ever, what: &str) -> usize {
    let before = disk.copied();
    let Some((store, opened, found)) = look(disk) else { return 0 };
    let firm = firm_of(&before, OPTIONS, NOW_MS);
    let same = firm == FIRM && found == *whole && seen_of(&opened) == seen_of(whole_opened);
    if opened.warnings.is_empty() {
        assert!(same && opened.next_seq == whole_opened.next_seq && opened.clean, "{what}: a silent loss");
    }
    for row in &found.rows {
        assert_eq!(Some(row), ever.rows.get(&row.seq), "{what}: a changed message");
    }
    assert!(found.rows.is_sorted_by(|a, b| a.seq < b.seq), "{what}");
    for seq in FIRM.into_iter().filter(|seq| found.rows.iter().any(|row| row.seq == *seq)) {
        assert!(firm.contains(&seq), "{what}: message {seq} is not firm any more");
    }
    for (key, value) in &found.items {
        assert!(ever.items[key].contains(value), "{what}: a changed item");
    }
    assert!(found.lost_to >= whole.lost_to || !opened.clean, "{what}");
    store.close().unwrap();
    let (store, again, found_again) = look(disk).unwrap();
    assert_eq!((again.warnings.as_slice(), again.clean), ([].as_slice(), true), "{what}: told twice");
    assert_eq!(found_again, found, "{what}: not the same when opened again");
    assert_eq!(firm_of(disk, OPTIONS, NOW_MS), firm, "{what}");
    assert_eq!((seen_of(&again), again.next_seq), (seen_of(&opened), opened.next_seq), "{what}");
    drop(store);
    let rows = whole.rows.iter().filter(|row| !found.rows.contains(row)).count();
    let items = whole.items.keys().filter(|key| !found.items.contains_key(*key)).count();
    rows + items
}

fn originals() -> (Disk, Ever, Holds, Opened, Vec<String>) {
    let (disk, ever) = store();
    let (store, opened, whole) = look(&disk.copied()).unwrap();
    drop(store);
    assert_eq!((opened.warnings.as_slice(), opened.clean), ([].as_slice(), true));
    assert_eq!(whole.rows.len(), 8);
    assert_eq!(firm_of(&disk, OPTIONS, NOW_MS), FIRM);
    assert!(whole.items.len() == 5 && opened.seen.len() == 1);
    let names = disk.names();
    assert!(names.len() > 2 && names[0] != "00000001.log", "several segments, some cleaned: {names:?}");
    (disk, ever, whole, opened, names)
}

// shows: IPC-BOX-13
#[test]
fn a_byte_that_changes_costs_at_most_one_frame_and_is_told() {
    let (disk, ever, whole, opened, names) = originals();
    for name in names {
        let content = disk.content(&name);
        for at in 0..content.len() {
            for flip in if long() { [0xff, 1 << (at % 8), 0x80] } else { [0xff, 1 << (at % 8), 0] } {
                if flip == 0 {
                    continue;
                }
                let mut changed = content.clone();
                changed[at] ^= flip;
                let damaged = disk.copied();
                damaged.put(&name, changed);
                let what = format!("{name} byte {at} xor {flip:#x}");
                // What was moved together shares a frame header; everything else loses one commit.
                let lost = check(&damaged, &whole, &opened, &ever, &what);
                assert!(lost <= 9, "{what}: {lost} lost");
            }
        }
    }
}

// shows: IPC-BOX-13
#[test]
fn a_file_that_is_cut_short_is_told() {
    let (disk, ever, whole, opened, names) = originals();
    for name in names {
        let content = disk.content(&name);
        for bytes in 0..content.len() {
            let damaged = disk.copied();
            damaged.put(&name, content[..bytes].to_vec());
            check(&damaged, &whole, &opened, &ever, &format!("{name} cut to {bytes}"));
        }
    }
}

// shows: IPC-BOX-13
#[test]
fn a_missing_file_is_told() {
    let (disk, ever, whole, opened, names) = originals();
    for name in &names {
        let damaged = disk.copied();
        damaged.erase(name);
        assert!(!look(&damaged.copied()).unwrap().1.warnings.is_empty(), "{name}");
        check(&damaged, &whole, &opened, &ever, name);
    }
}

// shows: IPC-BOX-13
#[test]
fn a_warning_names_the_file_the_bytes_and_what_is_missing_and_the_file_is_kept() {
    let disk = Disk::default();
    let (mut store, _) = Store::open(disk.clone(), OPTIONS, NOW_MS).unwrap();
    for seq in 1..=5 {
        let write = Write::Row { row: row(seq, NOW_MS, "notify", "{}"), firm: true };
        assert_eq!(store.commit(&[commit(vec![write], OPEN)], NOW_MS), [Ok(())]);
    }
    store.close().unwrap();
    let mut content = disk.content("00000001.log");
    let frame_bytes = 32 + 9 + 19 + "notify{}".len();
    let third = 64 + 2 * frame_bytes;
    content[third + 40] ^= 1;
    disk.put("00000001.log", content.clone());
    let (store, opened, found) = look(&disk).unwrap();
    let expected =
        format!("00000001.log: bytes {third} to {} are damaged, 1 commit is missing", third + frame_bytes);
    assert_eq!((opened.warnings, opened.clean), (vec![expected], true));
    assert_eq!(found.rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 4, 5]);
    assert_eq!(found.lost_to, 3);
    assert_eq!(disk.names(), ["00000001.damaged-1", "00000002.log"]);
    assert_eq!(disk.content("00000001.damaged-1"), content);
    store.close().unwrap();
    // Of the files that are set aside only the last ones are kept.
    for n in 2..=12 {
        let (mut store, opened, _) = look(&disk).unwrap();
        assert!(opened.warnings.is_empty());
        let write = Write::put("item", format!("{n}"));
        assert_eq!(store.commit(&[commit(vec![write], OPEN)], NOW_MS), [Ok(())]);
        store.close().unwrap();
        let name = disk.names().pop().unwrap();
        let mut content = disk.content(&name);
        content[70] ^= 1;
        disk.put(&name, content);
        look(&disk).unwrap().0.close().unwrap();
    }
    let aside: Vec<String> = disk.names().into_iter().filter(|name| name.contains("damaged")).collect();
    assert_eq!(aside.len(), 8);
    assert!(aside.iter().any(|name| name.ends_with("-12")) && !aside.iter().any(|name| name.ends_with("-4")));
}

// shows: IPC-BOX-9, IPC-BOX-13
#[test]
fn a_moved_message_that_is_damaged_is_the_only_one_that_is_lost() {
    let (disk, _, whole, _, names) = originals();
    let (mut found_moved, needle) = (false, b"{\"message number\":9}");
    for name in names {
        let mut content = disk.content(&name);
        let Some(at) = content.windows(needle.len()).rposition(|window| window == needle) else { continue };
        // A frame of copies has its mark in the flags of its header.
        let frame = content[..at].windows(4).rposition(|window| window == [0xf7, 0xa5, 0x0e, 0x9c]).unwrap();
        if content[frame + 20] != 1 {
            continue;
        }
        found_moved = true;
        content[at + 5] ^= 1;
        let damaged = disk.copied();
        damaged.put(&name, content);
        let (_, opened, found) = look(&damaged).unwrap();
        assert_eq!(opened.warnings.len(), 1, "{:?}", opened.warnings);
        let expected: Vec<&Row> = whole.rows.iter().filter(|row| row.seq != 9).collect();
        assert_eq!(found.rows.iter().collect::<Vec<_>>(), expected);
        assert_eq!((found.items, found.lost_to), (whole.items.clone(), 9));
    }
    assert!(found_moved);
}

// shows: IPC-BOX-2, IPC-BOX-9
#[test]
fn a_note_about_a_message_that_is_lost_tells_that_there_was_one() {
    let disk = Disk::default();
    let (mut store, _) = Store::open(disk.clone(), OPTIONS, NOW_MS).unwrap();
    let message = |seq| {
        let row = row(seq, NOW_MS, "notify", &format!("{{\"seq\":{seq}}}"));
        commit(vec![Write::Row { row, firm: true }], OPEN)
    };
    for one in [message(1), message(2), message(3), commit(vec![Write::Loose(2)], OPEN)] {
        assert_eq!(store.commit(&[one], NOW_MS), [Ok(())]);
    }
    drop(store);
    let later = disk.copied();
    let (mut store, _) = Store::open(later.clone(), OPTIONS, NOW_MS).unwrap();
    assert_eq!(store.commit(&[message(4)], NOW_MS), [Ok(())]);
    drop(store);
    // The second and the third frame, in their content or in their headers, which then tell nothing.
    let damage = |disk: &Disk, in_header: bool| {
        let disk = disk.copied();
        let mut content = disk.content("00000001.log");
        for needle in [b"{\"seq\":2}".as_slice(), b"{\"seq\":3}"] {
            let mut at = content.windows(needle.len()).position(|window| window == needle).unwrap();
            if in_header {
                at = content[..at].iter().rposition(|byte| *byte == 0xf7).unwrap();
            }
            content[at] ^= 1;
        }
        disk.put("00000001.log", content);
        disk
    };
    for in_header in [false, true] {
        // After the damage there is only the note.
        let damaged = damage(&disk, in_header);
        let (mut store, opened, found) = look(&damaged).unwrap();
        assert_eq!((found.rows.len(), found.lost_to, opened.next_seq), (1, 2, 3));
        assert_eq!(store.commit(&[message(3)], NOW_MS), [Ok(())]);
        assert_eq!(firm_of(&damaged, OPTIONS, NOW_MS), [1, 3], "a new message is not the one that was lost");
        // With a later message all are told.
        let (_, opened, found) = look(&damage(&later, in_header)).unwrap();
        assert_eq!((found.rows.len(), found.lost_to, opened.next_seq), (2, 3, 5));
    }
}

// shows: IPC-BOX-13
#[test]
fn what_is_damaged_while_the_store_is_open_is_told_when_it_is_read() {
    let disk = Disk::default();
    let (mut store, _) = Store::open(disk.clone(), OPTIONS, NOW_MS).unwrap();
    for seq in 1..=3 {
        let row = Write::Row { row: row(seq, NOW_MS, "notify", &format!("{{\"seq\":{seq}}}")), firm: true };
        let put = Write::put(format!("item/{seq}"), format!("value {seq}"));
        assert_eq!(store.commit(&[commit(vec![row, put], OPEN)], NOW_MS), [Ok(())]);
    }
    let mut content = disk.content("00000001.log");
    for needle in [b"{\"seq\":2}".as_slice(), b"value 3"] {
        let at = content.windows(needle.len()).position(|window| window == needle).unwrap();
        content[at + 2] ^= 1;
    }
    disk.overwrite("00000001.log", content);
    let found = model::all_rows(&mut store);
    assert_eq!(found.rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 3]);
    assert_eq!((found.lost_to, found.first_after_lost, store.rows()), (2, Some(3), 2));
    let keys = vec!["item/3".into(), "item/1".into(), "none".into()];
    let ReadOut::Items(values) = store.read(&Read::Items { keys }) else { panic!() };
    assert_eq!(values, [None, Some(b"value 1".as_slice().into()), None]);
    let warnings = store.take_warnings();
    assert!(warnings[0].starts_with("message 2 is damaged on the disk (00000001.log"), "{warnings:?}");
    assert!(warnings[1].starts_with("the item item/3 is damaged"), "{warnings:?}");
    assert_eq!(model::all_rows(&mut store), found);
    assert!(store.take_warnings().is_empty());
}

// shows: IPC-BOX-13
#[test]
fn content_that_looks_like_a_frame_is_never_taken_for_one() {
    // A peer that knows the form of the log, but not this store's salt.
    let forged = Disk::default();
    let (mut store, _) = Store::open(forged.clone(), Options { salt: 1, ..OPTIONS }, NOW_MS).unwrap();
    for n in 0..9 {
        let write = Write::put("item/forged", format!("{n}"));
        assert_eq!(store.commit(&[commit(vec![write], OPEN)], NOW_MS), [Ok(())]);
    }
    store.close().unwrap();
    let disk = Disk::default();
    let (mut store, _) = Store::open(disk.clone(), OPTIONS, NOW_MS).unwrap();
    let body = Write::put("body/0", &forged.content("00000001.log")[64..]);
    assert_eq!(store.commit(&[commit(vec![body], OPEN)], NOW_MS), [Ok(())]);
    store.close().unwrap();
    for at in 64..64 + 32 {
        let damaged = disk.copied();
        let mut content = disk.content("00000001.log");
        content[at] ^= 1;
        damaged.put("00000001.log", content);
        let (_, opened, found) = look(&damaged).unwrap();
        assert_eq!(found, Holds::default(), "{at}");
        assert_eq!(opened.warnings.len(), 1);
    }
}
