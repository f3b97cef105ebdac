//! What a store should hold, worked out in the simplest way; on the disk of the simulation.

#![allow(dead_code, unused_imports)]

use std::collections::BTreeMap;

use axon_proto::id::{AgentId, MsgId};
use axon_proto::node::Seen;
pub use axon_proto::sim::Rng as Random;
pub use axon_proto::sim::disk::{Disk, Unsynced};
use axon_proto::store::files::Files;
use axon_proto::store::log::{Opened, Options};
use axon_proto::store::{Commit, CommitError, Keep, Read, ReadOut, Row, Rows, Store, Write};

pub const OPEN: Keep = Keep { rows_max: 1 << 40, bytes_max: 1 << 40, ttl_ms: 1 << 60, read_up_to: 0 };

pub fn small() -> Options {
    Options { segment_bytes: 4_096, salt: 0x5eed }
}

pub fn row(seq: u64, at_ms: u64, kind: &str, raw: &str) -> Row {
    Row { seq, at_ms, kind: kind.into(), raw: raw.into() }
}

pub fn seen(n: u8, until_ms: u64) -> Seen {
    Seen { from: AgentId([n % 3; 16]), id: MsgId([n; 16]), until_ms }
}

pub fn commit(writes: Vec<Write>, keep: Keep) -> Commit {
    Commit { writes, keep }
}

pub fn all_rows<F: Files>(store: &mut Store<F>) -> Rows {
    let mut all = Rows::default();
    let mut after = 0;
    loop {
        let read = Read::Rows {
            after,
            up_to: u64::MAX,
            kinds: None,
            stop_at_other: false,
            limit: 1_000_000,
            bytes_max: usize::MAX,
        };
        let ReadOut::Rows(rows) = store.read(&read) else { panic!("reading failed") };
        all.rows.extend(rows.rows);
        (all.lost_to, all.first_after_lost, all.scanned_to) =
            (rows.lost_to, rows.first_after_lost, rows.scanned_to);
        after = rows.scanned_to;
        if rows.next.is_none() {
            return all;
        }
    }
}

/// What a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holds {
    pub rows: Vec<Row>,
    pub items: BTreeMap<String, Vec<u8>>,
    pub lost_to: u64,
}

/// `bodies` are the large items to ask for.
pub fn holds<F: Files>(store: &mut Store<F>, bodies: &[&str]) -> Holds {
    let rows = all_rows(store);
    let mut items = BTreeMap::new();
    store.items(&mut |key, value| drop(items.insert(key.to_owned(), value.to_vec()))).unwrap();
    let keys = bodies.iter().map(|key| (*key).to_owned()).collect();
    let ReadOut::Items(values) = store.read(&Read::Items { keys }) else { panic!("reading failed") };
    for (key, value) in bodies.iter().zip(values) {
        items.extend(value.map(|value| ((*key).to_owned(), value.to_vec())));
    }
    assert_eq!(store.rows(), rows.rows.len() as u64);
    assert_eq!(store.read(&Read::Count { after: 0 }), ReadOut::Count(rows.rows.len() as u64));
    Holds { rows: rows.rows, items, lost_to: rows.lost_to }
}

/// The numbers of the firm messages in the store on this disk, which is left as it is: what stays when all
/// that is not firm has to go.
pub fn firm_of(disk: &Disk, options: Options, now_ms: u64) -> Vec<u64> {
    let (mut store, _) = Store::open(disk.copied(), options, now_ms).unwrap();
    store.evict(&Keep { rows_max: 0, ..OPEN }, now_ms).unwrap();
    all_rows(&mut store).rows.iter().map(|row| row.seq).collect()
}

/// What a store should hold, and answer.
#[derive(Clone, Default)]
pub struct Model {
    pub rows: BTreeMap<u64, (Row, bool)>,
    pub items: BTreeMap<String, Vec<u8>>,
    pub seen: BTreeMap<([u8; 16], [u8; 16]), u64>,
    pub lost_to: u64,
    pub next_seq: u64,
}

impl Model {
    pub fn holds(&self) -> Holds {
        let rows = self.rows.values().map(|(row, _)| row.clone()).collect();
        Holds { rows, items: self.items.clone(), lost_to: self.lost_to }
    }

    /// The numbers of its firm messages.
    pub fn firm(&self) -> Vec<u64> {
        self.rows.values().filter(|(_, firm)| *firm).map(|(row, _)| row.seq).collect()
    }

    pub fn seen_at(&self, now_ms: u64) -> BTreeMap<([u8; 16], [u8; 16]), u64> {
        self.seen.clone().into_iter().filter(|(_, until_ms)| *until_ms > now_ms).collect()
    }

    fn lose(&mut self, seq: u64) {
        self.rows.remove(&seq);
        self.lost_to = self.lost_to.max(seq);
    }

    fn age(&mut self, keep: &Keep, now_ms: u64) {
        let old = |row: &Row| row.at_ms.saturating_add(keep.ttl_ms) <= now_ms;
        let old: Vec<u64> = self.rows.values().filter(|(row, _)| old(row)).map(|(row, _)| row.seq).collect();
        old.into_iter().for_each(|seq| self.lose(seq));
    }

    fn make_room(&mut self, keep: &Keep, rows: u64, bytes: u64) -> bool {
        loop {
            let held: usize = self.rows.values().map(|(row, _)| row.raw.len()).sum();
            if self.rows.len() as u64 + rows <= keep.rows_max && held as u64 + bytes <= keep.bytes_max {
                return true;
            }
            let read = self.rows.keys().copied().find(|seq| *seq <= keep.read_up_to);
            let loose = self.rows.values().find(|(_, firm)| !firm).map(|(row, _)| row.seq);
            let Some(victim) = read.or(loose) else { return false };
            self.lose(victim);
        }
    }

    pub fn evict(&mut self, keep: &Keep, now_ms: u64) {
        self.age(keep, now_ms);
        self.make_room(keep, 0, 0);
    }

    pub fn commit(&mut self, commit: &Commit, now_ms: u64) -> Result<(), CommitError> {
        let before = self.clone();
        if commit.writes.iter().any(|write| matches!(write, Write::Row { .. })) {
            self.age(&commit.keep, now_ms);
        }
        for write in &commit.writes {
            match write {
                Write::Row { row, firm } => {
                    let bytes = row.raw.len() as u64;
                    let fits = commit.keep.rows_max > 0 && bytes <= commit.keep.bytes_max;
                    if !fits || !self.make_room(&commit.keep, 1, bytes) {
                        *self = before;
                        return Err(CommitError::Full);
                    }
                    self.rows.insert(row.seq, (row.clone(), *firm));
                    self.next_seq = row.seq + 1;
                }
                Write::Gone(seq) => drop(self.rows.remove(seq)),
                Write::Loose(seq) => {
                    let row = self.rows.get_mut(seq).filter(|_| *seq > commit.keep.read_up_to);
                    row.into_iter().for_each(|(_, firm)| *firm = false);
                }
                Write::Seen(seen) => {
                    let until_ms = self.seen.entry((seen.from.0, seen.id.0)).or_default();
                    *until_ms = seen.until_ms.max(*until_ms);
                }
                Write::Put { key, value } => drop(self.items.insert(key.clone(), value.to_vec())),
                Write::Delete { key } => drop(self.items.remove(key)),
            }
        }
        Ok(())
    }
}

pub fn seen_of(opened: &Opened) -> BTreeMap<([u8; 16], [u8; 16]), u64> {
    opened.seen.iter().map(|seen| ((seen.from.0, seen.id.0), seen.until_ms)).collect()
}

/// More than this is tried with `AXON_LONG=1` only.
pub fn long() -> bool {
    std::env::var_os("AXON_LONG").is_some()
}
