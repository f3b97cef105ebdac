//! What is stored: replayed from a disk that holds anything.
//!
//! The first byte says how the files come about: a store that is used as the bytes say and then damaged, a
//! log of frames whose checks are right and whose operations are not, or files of the bytes themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axon_proto::id::{AgentId, MsgId};
use axon_proto::node::Seen;
use axon_proto::sim::disk::{Disk, Unsynced};
use axon_proto::store::files::Files;
use axon_proto::store::log::{OpenError, Opened, Options};
use axon_proto::store::{Commit, CommitError, Keep, Read, ReadOut, Row, Store, Write};

use crate::dice::{Bytes, Dice};

const NOW_MS: u64 = 1_795_000_000_000;
const OPTIONS: Options = Options { segment_bytes: 700, salt: 0x5eed };
/// Nothing goes but what is taken out.
const OPEN: Keep = Keep { rows_max: 1 << 40, bytes_max: 1 << 40, ttl_ms: 1 << 40, read_up_to: 0 };
/// Keys of items; those that begin with `body/` are read when they are needed.
const KEYS: [&str; 4] = ["item/1", "item/2", "body/1", "body/2"];
/// Operations of a script.
const STEPS_MAX: usize = 60;

/// Whatever lies on the disk, a store opens or says that it is a newer one's; what it lost it tells once, and
/// it can be used on.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    match bytes.byte() % 4 {
        0 | 1 => used(&mut bytes),
        2 => written_by_another(&disk_of(&frames(&mut bytes))),
        _ => any(&disk_of(&raw(&mut bytes))),
    }
}

// --- what a store holds ---

/// What was found in a store.
#[derive(Debug, Clone, Default, PartialEq)]
struct Holds {
    rows: Vec<Row>,
    items: BTreeMap<String, Vec<u8>>,
}

/// Opens a store and reads all of it; none: it is a newer one's.
fn look(disk: &Disk) -> Option<(Store<Disk>, Opened, Holds)> {
    match Store::open(disk.clone(), OPTIONS, NOW_MS) {
        Ok((mut store, mut opened)) => {
            let holds = holds(&mut store);
            assert!(store.rows() <= opened.rows.max(holds.rows.len() as u64));
            opened.warnings.extend(store.take_warnings());
            Some((store, opened, holds))
        }
        Err(OpenError::Newer { found, known }) => {
            assert!(found > known);
            None
        }
        Err(error) => panic!("a disk that works: {error}"),
    }
}

fn holds(store: &mut Store<Disk>) -> Holds {
    let mut holds = Holds::default();
    let mut after = 0;
    loop {
        let read = Read::Rows {
            after,
            up_to: u64::MAX,
            kinds: None,
            stop_at_other: false,
            limit: 7,
            bytes_max: 4_096,
        };
        let ReadOut::Rows(out) = store.read(&read) else { panic!("a disk that works") };
        holds.rows.extend(out.rows);
        if out.next.is_none() {
            break;
        }
        assert!(out.scanned_to > after, "reading goes on");
        after = out.scanned_to;
    }
    assert!(holds.rows.is_sorted_by(|a, b| a.seq < b.seq), "rows are in their order");
    store
        .items(&mut |key, value| drop(holds.items.insert(key.to_owned(), value.to_vec())))
        .expect("a disk that works");
    let keys: Vec<String> = KEYS.map(str::to_owned).to_vec();
    let ReadOut::Items(values) = store.read(&Read::Items { keys: keys.clone() }) else {
        panic!("a disk that works")
    };
    for (key, value) in keys.into_iter().zip(values) {
        match value {
            Some(value) if key.starts_with("body/") => drop(holds.items.insert(key, value.to_vec())),
            value => assert_eq!(value.as_deref(), holds.items.get(&key).map(Vec::as_slice), "{key}"),
        }
    }
    assert!(holds.items.keys().all(|key| !key.starts_with("body/") || KEYS.contains(&key.as_str())));
    holds
}

fn commit(store: &mut Store<Disk>, writes: Vec<Write>) -> Result<(), CommitError> {
    store.commit(&[Commit { writes, keep: OPEN }], NOW_MS).pop().expect("one outcome")
}

fn row(seq: u64, text: &str) -> Row {
    Row { seq, at_ms: NOW_MS, kind: "notify".into(), raw: format!("{{\"n\":{seq},\"t\":\"{text}\"}}").into() }
}

/// What holds of a log that no axon wrote, but whose checks are right: it is read, and can be written to.
fn written_by_another(disk: &Disk) {
    let Some((mut store, opened, _)) = look(disk) else { return };
    let new = row(opened.next_seq, "new");
    drop(commit(&mut store, vec![Write::Row { row: new, firm: true }]));
    for _ in 0..100 {
        store.maintain(NOW_MS);
    }
    holds(&mut store);
    drop(store.close());
    look(disk);
}

/// What holds of any disk.
fn any(disk: &Disk) {
    let Some((mut store, opened, found)) = look(disk) else { return };
    let last = found.rows.last().map_or(0, |row| row.seq);
    assert!(opened.next_seq > last || last == u64::MAX, "the next number is above all");
    assert!(opened.rows >= found.rows.len() as u64);
    // It can be used on.
    let mut after = found.clone();
    if opened.next_seq < u64::MAX {
        let new = row(opened.next_seq, "new");
        let value: Arc<[u8]> = b"new"[..].into();
        let put = Write::Put { key: "item/new".into(), value };
        assert_eq!(commit(&mut store, vec![Write::Row { row: new.clone(), firm: true }, put]), Ok(()));
        after.rows.push(new);
        after.items.insert("item/new".into(), b"new".to_vec());
    }
    while store.maintain(NOW_MS) {}
    let warnings = store.take_warnings();
    assert!(warnings.is_empty(), "told twice: {warnings:?}");
    assert_eq!(holds(&mut store), after);
    assert_eq!(store.rows(), after.rows.len() as u64, "as many rows as are counted");
    assert_eq!(store.read(&Read::Count { after: 0 }), ReadOut::Count(after.rows.len() as u64));
    store.close().expect("a disk that works");
    let (store, again, found) = look(disk).expect("a store of this axon");
    assert_eq!((again.warnings.as_slice(), again.clean), ([].as_slice(), true), "told twice");
    assert_eq!(found, after, "the same when opened again");
    drop(store);
}

// --- a store that is used, and then damaged ---

fn used(bytes: &mut Bytes<'_>) {
    let mut disk = Disk::default();
    let (mut store, _) = Store::open(disk.clone(), OPTIONS, NOW_MS).expect("an empty disk");
    let (mut model, mut next) = (Holds::default(), 1);
    let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
    let mut values: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for _ in 0..STEPS_MAX {
        let mut writes = Vec::new();
        match bytes.byte() % 16 {
            0 => break,
            step @ 1..=6 => {
                for _ in 0..=bytes.below(3) {
                    let new = row(next, &"t".repeat(bytes.below(120)));
                    next += 1 + bytes.below(3) as u64;
                    rows.insert(new.seq, new.clone());
                    model.rows.push(new.clone());
                    writes.push(Write::Row { row: new, firm: step % 2 == 0 });
                }
            }
            7..=9 => {
                let (key, value) = (KEYS[bytes.below(KEYS.len())], vec![b'v'; bytes.below(90)]);
                let value = [value, vec![bytes.byte()]].concat();
                values.entry(key.into()).or_default().insert(value.clone());
                model.items.insert(key.into(), value.clone());
                writes.push(Write::put(key, value));
            }
            10 => {
                let key = KEYS[bytes.below(KEYS.len())];
                model.items.remove(key);
                writes.push(Write::delete(key));
            }
            11 => {
                let seq = bytes.below(next as usize + 1) as u64;
                model.rows.retain(|row| row.seq != seq);
                writes.push(Write::Gone(seq));
            }
            12 => writes.push(Write::Loose(bytes.below(next as usize + 1) as u64)),
            13 => {
                let until_ms = NOW_MS + bytes.below(100) as u64;
                writes.push(Write::Seen(Seen {
                    from: AgentId([1; 16]),
                    id: MsgId([bytes.byte(); 16]),
                    until_ms,
                }));
            }
            14 => while store.maintain(NOW_MS) {},
            _ => {
                // Only what was confirmed need be there, and all of it is.
                drop(store);
                disk = disk.after_power_cut(match bytes.below(3) {
                    0 => Unsynced::Dropped,
                    1 => Unsynced::Kept,
                    _ => Unsynced::Some(u64::from(bytes.byte())),
                });
                let (opened, _, found) = look(&disk).expect("a store of this axon");
                assert_eq!(found, model, "what was confirmed outlives a power cut");
                store = opened;
            }
        }
        if !writes.is_empty() {
            assert_eq!(commit(&mut store, writes), Ok(()));
        }
    }
    assert_eq!(holds(&mut store), model);
    store.close().expect("a disk that works");

    let mut files = files_of(&disk);
    for _ in 0..bytes.below(4) {
        damage(&mut files, bytes);
    }
    let disk = disk_of(&files);
    let Some((store, opened, found)) = look(&disk) else { panic!("damage makes no newer store") };
    // Of a store that is gone as a whole nobody knows.
    if opened.warnings.is_empty() && !files.is_empty() {
        assert_eq!(found, model, "a silent loss");
    }
    for row in &found.rows {
        assert_eq!(Some(row), rows.get(&row.seq), "a changed message");
    }
    for (key, value) in &found.items {
        assert!(values.get(key).is_some_and(|values| values.contains(value)), "a changed item: {key}");
    }
    drop(store);
    any(&disk_of(&files));
}

fn damage(files: &mut BTreeMap<String, Vec<u8>>, bytes: &mut Bytes<'_>) {
    let names: Vec<String> = files.keys().cloned().collect();
    let Some(name) = names.get(bytes.below(names.len())) else { return };
    let Some(content) = files.get_mut(name) else { return };
    let at = bytes.below(content.len().max(257)) % content.len().max(1);
    match bytes.byte() % 8 {
        0 => content.truncate(at),
        1 => drop(files.remove(name)),
        2 => content.extend(bytes.take(9)),
        _ => {
            // At least one bit.
            let flip = bytes.byte() | 1;
            if let Some(byte) = content.get_mut(at) {
                *byte ^= flip;
            }
        }
    }
}

// --- files ---

fn files_of(disk: &Disk) -> BTreeMap<String, Vec<u8>> {
    let mut disk = disk.clone();
    let mut files = BTreeMap::new();
    for (name, length) in disk.list().expect("a disk that works") {
        let file = disk.open(&name, false).expect("it is there");
        let mut content = vec![0; length as usize];
        assert_eq!(disk.read_at(file, 0, &mut content), Ok(content.len()));
        disk.close(file);
        files.insert(name, content);
    }
    files
}

fn disk_of(files: &BTreeMap<String, Vec<u8>>) -> Disk {
    let mut disk = Disk::default();
    for (name, content) in files {
        let file = disk.open(name, true).expect("an empty disk");
        disk.write_at(file, 0, content).expect("a disk that works");
        disk.sync(file).expect("a disk that works");
        disk.close(file);
    }
    disk.sync_names().expect("a disk that works");
    disk
}

/// Names of files as a store has them, and such as it has not.
const NAMES: [&str; 8] = [
    "00000001.log",
    "00000002.log",
    "00000003.log",
    "00000001.damaged-1",
    "4294960000.log",
    "x",
    "1.log",
    "00000002.damaged-18446744073709551615",
];

fn raw(bytes: &mut Bytes<'_>) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    while !bytes.at_end() && files.len() < NAMES.len() {
        let name = NAMES[bytes.below(NAMES.len())];
        let length = bytes.below(600);
        files.insert(name.to_owned(), bytes.take(length).to_vec());
    }
    files
}

/// Numbers at which something ends, and such as follow one another.
fn number(bytes: &mut Bytes<'_>, near: u64) -> u64 {
    match bytes.byte() % 16 {
        0 => u64::MAX,
        1 => u64::MAX - 1,
        2 => 0,
        3 => 1 << 32,
        4 => u64::from(bytes.byte()),
        5 => near.wrapping_sub(1),
        6 => near.wrapping_add(u64::from(bytes.byte())),
        7 => NOW_MS,
        8 => i64::MAX as u64,
        _ => near,
    }
}

/// Segments in which all checks are right (decision 0008 and the text of `store/frame.rs` say how).
fn frames(bytes: &mut Bytes<'_>) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let (mut frame, mut seq) = (1, 1);
    for segment in 1..=1 + bytes.below(3) as u32 {
        let number_of = match bytes.byte() % 16 {
            0 => segment + 1,
            1 => 1 << 31,
            _ => segment,
        };
        let mut header = b"AXONSTO1".to_vec();
        header.extend((1 + u32::from(bytes.byte() == 1)).to_le_bytes());
        header.extend(number_of.to_le_bytes());
        header.extend(0x5eed_u32.to_le_bytes());
        header.extend(number(bytes, frame).to_le_bytes());
        header.extend(crc(0, &header).to_le_bytes());
        let mut content = header.repeat(2);
        for _ in 0..bytes.below(6) {
            let (mut ops, mut sum) = (Vec::new(), 0);
            for _ in 0..1 + bytes.below(4) {
                let op = op(bytes, &mut seq);
                sum = crc(sum, &op[..4]);
                ops.extend(op);
            }
            let mut header = vec![0xf7, 0xa5, 0x0e, 0x9c];
            header.extend((ops.len() as u32).to_le_bytes());
            let number_of = number(bytes, frame);
            frame = number_of.wrapping_add(1);
            header.extend(number_of.to_le_bytes());
            header.extend((number(bytes, 0) as u32).to_le_bytes());
            header.extend(u32::from(bytes.byte() % 4 == 1).to_le_bytes());
            header.extend(sum.to_le_bytes());
            header.extend(crc(0x5eed, &header).to_le_bytes());
            content.extend(header);
            content.extend(ops);
        }
        content.extend(bytes.take(usize::from(bytes.clone().byte() % 8)).to_vec());
        files.insert(format!("{segment:08}.log"), content);
    }
    files
}

fn op(bytes: &mut Bytes<'_>, seq: &mut u64) -> Vec<u8> {
    let kind = bytes.byte() % 10;
    let mut content = Vec::new();
    match kind {
        0 | 1 | 9 => {
            let at = number(bytes, *seq);
            *seq = at.wrapping_add(1);
            content.extend(at.to_le_bytes());
            content.extend(number(bytes, NOW_MS).to_le_bytes());
            content.push(bytes.byte() % 2);
            content.extend(6_u16.to_le_bytes());
            content.extend(b"notify{\"a\":1}");
        }
        2 => {
            content.extend(number(bytes, 1).to_le_bytes());
            content.extend(number(bytes, *seq).to_le_bytes());
            content.push(bytes.byte() % 2);
        }
        3 => {
            content.extend([bytes.byte(); 32]);
            content.extend(number(bytes, NOW_MS + 9).to_le_bytes());
        }
        4 => {
            let key = KEYS[bytes.below(KEYS.len())];
            content.push(key.len() as u8);
            content.extend(key.as_bytes());
            let length = bytes.below(40);
            content.extend(bytes.take(length));
        }
        5 => content.extend(KEYS[bytes.below(KEYS.len())].as_bytes()),
        6 => {
            for near in [*seq, 0, 1] {
                content.extend(number(bytes, near).to_le_bytes());
            }
        }
        7 => {}
        _ => content.extend(number(bytes, seq.wrapping_sub(1)).to_le_bytes()),
    }
    let kind = if kind == 0 || kind == 9 { 1 } else { kind };
    let mut op = (content.len() as u32).to_le_bytes().to_vec();
    op.push(kind);
    op.extend(content);
    let sum = crc(0, &op).to_le_bytes();
    [sum.to_vec(), op].concat()
}

/// CRC-32 (IEEE 802.3), bit by bit; `crc` is that of the bytes before.
fn crc(crc: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!crc, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1)))
    })
}
