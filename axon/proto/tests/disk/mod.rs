//! A disk that fails on request, and forgets what was not synced when the power goes; and what a store should
//! hold, worked out in the simplest way.

#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use axon_proto::id::{AgentId, MsgId};
use axon_proto::node::Seen;
use axon_proto::store::files::{FileError, FileId, Files};
use axon_proto::store::log::{Opened, Options};
use axon_proto::store::{Commit, CommitError, Keep, Read, ReadOut, Row, Rows, Store, Write};

/// A small random number generator.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// What becomes of that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    Dropped,
    Kept,
    Some(u64),
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone)]
enum Naming {
    Make(String, u32),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone, Default)]
pub struct State {
    names: BTreeMap<String, u32>,
    synced_names: BTreeMap<String, u32>,
    namings: Vec<Naming>,
    files: HashMap<u32, File>,
    open: HashMap<FileId, u32>,
    made: u32,
    /// Mutating calls.
    pub calls: u64,
    pub writes: u64,
    pub syncs: u64,
    /// The power goes with this mutating call.
    pub cut_at: Option<u64>,
    /// This mutating call finds no space.
    pub fail_at: Option<u64>,
    /// Every sync of a file fails.
    pub fail_syncs: bool,
    /// The files together cannot be longer.
    pub room: Option<u64>,
    pub dead: bool,
}

#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(bytes) => to.resize(*bytes as usize, 0),
            Self::Write(offset, bytes) => {
                let end = *offset as usize + bytes.len();
                to.resize(to.len().max(end), 0);
                to[*offset as usize..end].copy_from_slice(bytes);
            }
        }
    }

    /// A part of it: nothing, all, the begin, or some sectors.
    fn apply_partly(&self, to: &mut Vec<u8>, random: &mut Random) {
        match (self, random.below(4)) {
            (_, 0) => {}
            (Self::Write(offset, bytes), 1) => {
                let kept = random.below(bytes.len() as u64 + 1) as usize;
                Self::Write(*offset, bytes[..kept].to_vec()).apply(to);
            }
            (Self::Write(offset, bytes), 2) => {
                let mut at = 0;
                while at < bytes.len() {
                    let sector_end = (*offset as usize + at) / 512 * 512 + 512 - *offset as usize;
                    let end = sector_end.min(bytes.len());
                    if random.below(2) == 0 {
                        Self::Write(offset + at as u64, bytes[at..end].to_vec()).apply(to);
                    }
                    at = end;
                }
            }
            _ => self.apply(to),
        }
    }
}

impl Naming {
    fn apply(&self, to: &mut BTreeMap<String, u32>) {
        match self {
            Self::Make(name, file) => drop(to.insert(name.clone(), *file)),
            Self::Remove(name) => drop(to.remove(name)),
            Self::Rename(from, name) => {
                if let Some(file) = to.remove(from) {
                    to.insert(name.clone(), file);
                }
            }
        }
    }
}

impl State {
    fn file(&mut self, id: FileId) -> Result<&mut File, FileError> {
        if self.dead {
            return Err(FileError("the power is off".into()));
        }
        let number = self.open.get(&id).copied();
        number.and_then(|number| self.files.get_mut(&number)).ok_or(FileError("not open".into()))
    }

    /// Counts a mutating call; says whether it is the one that fails. The last one before the power goes may
    /// have had its effect, or a part of it.
    fn call(&mut self) -> Result<bool, FileError> {
        if self.dead {
            return Err(FileError("the power is off".into()));
        }
        self.calls += 1;
        self.dead = self.cut_at == Some(self.calls);
        Ok(self.fail_at == Some(self.calls))
    }

    fn answer(&self) -> Result<(), FileError> {
        if self.dead { Err(FileError("the power is off".into())) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        let numbers: BTreeSet<u32> = self.names.values().chain(self.open.values()).copied().collect();
        numbers.iter().map(|number| self.files[number].now.len() as u64).sum()
    }

    fn hand_out(&mut self, number: u32) -> FileId {
        self.made += 1;
        let id = FileId(self.made);
        self.open.insert(id, number);
        id
    }

    fn naming(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.namings.push(naming);
    }
}

fn no_space() -> FileError {
    FileError("no space".into())
}

impl Disk {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The disk after the power went and came back.
    pub fn after_power_cut(&self, unsynced: Unsynced) -> Self {
        let state = self.state();
        let mut random = Random(match unsynced {
            Unsynced::Some(seed) => seed * 2 + 1,
            _ => 1,
        });
        let mut after = State { made: state.made, ..State::default() };
        let mut names = state.synced_names.clone();
        for naming in &state.namings {
            let kept = match unsynced {
                Unsynced::Dropped => false,
                Unsynced::Kept => true,
                Unsynced::Some(_) => random.below(2) == 0,
            };
            if kept {
                naming.apply(&mut names);
            }
        }
        for number in names.values() {
            let file = &state.files[number];
            let mut content = file.synced.clone();
            for change in &file.changes {
                match unsynced {
                    Unsynced::Dropped => {}
                    Unsynced::Kept => change.apply(&mut content),
                    Unsynced::Some(_) => change.apply_partly(&mut content, &mut random),
                }
            }
            let file = File { now: content.clone(), synced: content, changes: Vec::new() };
            after.files.insert(*number, file);
        }
        (after.names, after.synced_names) = (names.clone(), names);
        Self(Arc::new(Mutex::new(after)))
    }

    /// A copy that has nothing to do with this one.
    pub fn copied(&self) -> Self {
        self.after_power_cut(Unsynced::Kept)
    }

    pub fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[&state.names[name]].now.clone()
    }

    pub fn put(&self, name: &str, content: Vec<u8>) {
        let mut state = self.state();
        state.made += 1;
        let number = state.made;
        state.files.insert(number, File { synced: content.clone(), now: content, changes: Vec::new() });
        state.names.insert(name.to_owned(), number);
        state.synced_names.insert(name.to_owned(), number);
    }

    /// Changes a file that may be open.
    pub fn overwrite(&self, name: &str, content: Vec<u8>) {
        let mut state = self.state();
        let number = state.names[name];
        state.files.get_mut(&number).unwrap().now = content;
    }

    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub fn bytes(&self) -> u64 {
        let state = self.state();
        state.names.values().map(|number| state.files[number].now.len() as u64).sum()
    }

    pub fn erase(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.synced_names.remove(name);
    }
}

impl Files for Disk {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
        let state = self.state();
        state.answer()?;
        let bytes = |number| state.files[number].now.len() as u64;
        Ok(state.names.iter().map(|(name, number)| (name.clone(), bytes(number))).collect())
    }

    fn open(&mut self, name: &str, create: bool) -> Result<FileId, FileError> {
        let mut state = self.state();
        if !create {
            state.answer()?;
            let number = state.names.get(name).copied().ok_or(FileError("no such file".into()))?;
            return Ok(state.hand_out(number));
        }
        if state.call()? {
            return Err(no_space());
        }
        if state.names.contains_key(name) {
            return Err(FileError("file exists".into()));
        }
        state.made += 1;
        let number = state.made;
        state.files.insert(number, File::default());
        state.naming(Naming::Make(name.to_owned(), number));
        state.answer()?;
        Ok(state.hand_out(number))
    }

    fn scratch(&mut self) -> Result<FileId, FileError> {
        let mut state = self.state();
        state.answer()?;
        state.made += 1;
        let number = state.made;
        state.files.insert(number, File::default());
        Ok(state.hand_out(number))
    }

    fn close(&mut self, file: FileId) {
        self.state().open.remove(&file);
    }

    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
        let mut state = self.state();
        let content = &state.file(file)?.now;
        let from = (offset as usize).min(content.len());
        let bytes = into.len().min(content.len() - from);
        into[..bytes].copy_from_slice(&content[from..from + bytes]);
        Ok(bytes)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let mut state = self.state();
        let (fails, used, room) = (state.call()?, state.used(), state.room);
        let named =
            state.open.get(&file).copied().is_some_and(|n| state.names.values().any(|named| *named == n));
        state.writes += u64::from(named);
        let dead = std::mem::take(&mut state.dead);
        let target = state.file(file)?;
        let grows = (offset + bytes.len() as u64).saturating_sub(target.now.len() as u64);
        let full = fails || room.is_some_and(|room| used + grows > room);
        // A full disk takes what still fits.
        let taken = if full { &bytes[..bytes.len() / 2] } else { bytes };
        let change = Change::Write(offset, taken.to_vec());
        change.apply(&mut target.now);
        if named {
            target.changes.push(change);
        }
        state.dead = dead;
        if full { Err(no_space()) } else { state.answer() }
    }

    fn set_len(&mut self, file: FileId, bytes: u64) -> Result<(), FileError> {
        let mut state = self.state();
        if state.call()? {
            return Err(no_space());
        }
        let dead = std::mem::take(&mut state.dead);
        let target = state.file(file)?;
        Change::Length(bytes).apply(&mut target.now);
        target.changes.push(Change::Length(bytes));
        state.dead = dead;
        state.answer()
    }

    fn sync(&mut self, file: FileId) -> Result<(), FileError> {
        let mut state = self.state();
        state.syncs += 1;
        if state.call()? || state.fail_syncs {
            return Err(FileError("the sync failed".into()));
        }
        state.answer()?;
        let target = state.file(file)?;
        target.changes.clear();
        target.synced = target.now.clone();
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError> {
        let mut state = self.state();
        if state.call()? {
            return Err(no_space());
        }
        state.naming(Naming::Rename(from.to_owned(), to.to_owned()));
        state.answer()
    }

    fn remove(&mut self, name: &str) -> Result<(), FileError> {
        let mut state = self.state();
        if state.call()? {
            return Err(no_space());
        }
        state.naming(Naming::Remove(name.to_owned()));
        state.answer()
    }

    fn sync_names(&mut self) -> Result<(), FileError> {
        let mut state = self.state();
        if state.call()? {
            return Err(no_space());
        }
        state.answer()?;
        state.synced_names = state.names.clone();
        state.namings.clear();
        Ok(())
    }
}

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
