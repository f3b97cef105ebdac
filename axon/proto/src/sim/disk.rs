//! A disk that fails on request, and forgets what was not synced when the power goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rng::Rng;
use crate::fault::{Point, Sort, hit};
use crate::store::files::{FileError, FileId, Files};

/// Bytes that reach a disk together.
const SECTOR_BYTES: u64 = 512;

/// What becomes of that which was not synced when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// It is gone.
    Dropped,
    /// It is there, as after the end of a process alone.
    Kept,
    /// Parts of it are there, by this seed.
    Some(u64),
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Clone)]
enum Naming {
    Make(String, u32),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug, Clone, Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
    changes: Vec<Change>,
}

/// What a [`Disk`] holds, and what is to go wrong with it.
#[derive(Debug, Clone, Default)]
pub struct State {
    names: BTreeMap<String, u32>,
    synced_names: BTreeMap<String, u32>,
    namings: Vec<Naming>,
    files: HashMap<u32, File>,
    open: HashMap<FileId, u32>,
    made: u32,
    /// Calls that change something.
    pub calls: u64,
    /// Writes to files that have a name.
    pub writes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// The power goes with this call.
    pub cut_at: Option<u64>,
    /// This call fails.
    pub fail_at: Option<u64>,
    /// Every sync fails.
    pub fail_syncs: bool,
    /// The files together cannot be longer.
    pub room: Option<u64>,
    /// The power is off.
    pub dead: bool,
}

/// A disk that fails on request, and at the fault points. Its handles are clones of one another.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn no_space() -> FileError {
    FileError("no space left on device".into())
}

fn off() -> FileError {
    FileError("the power is off".into())
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(bytes) => to.resize(index(*bytes), 0),
            Self::Write(offset, bytes) => write(to, *offset, bytes),
        }
    }

    /// A part of it: nothing, all, the begin, or some sectors.
    fn apply_partly(&self, to: &mut Vec<u8>, rng: &mut Rng) {
        match (self, rng.below(4)) {
            (_, 0) => {}
            (Self::Write(offset, bytes), 1) => {
                let kept = index(rng.below(bytes.len() as u64 + 1));
                write(to, *offset, bytes.get(..kept).unwrap_or_default());
            }
            (Self::Write(offset, bytes), 2) => {
                let (mut at, mut rest) = (*offset, bytes.as_slice());
                while !rest.is_empty() {
                    let sector = index(SECTOR_BYTES - at % SECTOR_BYTES).min(rest.len());
                    let (first, others) = rest.split_at(sector);
                    if rng.chance(500) {
                        write(to, at, first);
                    }
                    at += first.len() as u64;
                    rest = others;
                }
            }
            _ => self.apply(to),
        }
    }
}

fn write(to: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let from = index(offset);
    let end = from.saturating_add(bytes.len());
    to.resize(to.len().max(end), 0);
    if let Some(place) = to.get_mut(from..end) {
        place.copy_from_slice(bytes);
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
        let file = self.open.get(&id).and_then(|number| self.files.get_mut(number));
        file.ok_or_else(|| FileError("the file is not open".into()))
    }

    /// Counts a call that changes something; says whether it fails, and how. The last one before the power
    /// goes may have had its effect, or a part of it.
    fn call(&mut self, point: Point) -> Result<Option<Sort>, FileError> {
        self.answer()?;
        self.calls += 1;
        let fails = hit(point);
        let power = hit(Point::Change).is_some();
        self.dead = power || self.cut_at == Some(self.calls);
        // What one call of many fails with is the worst of its sort.
        let asked = (self.fail_at == Some(self.calls)).then_some(match point {
            Point::Write => Sort::Short,
            _ => Sort::Sync,
        });
        Ok(fails.or(asked))
    }

    /// What the files are long together.
    fn used(&self) -> u64 {
        let numbers: BTreeSet<u32> = self.names.values().chain(self.open.values()).copied().collect();
        numbers.iter().filter_map(|number| self.files.get(number)).map(|file| file.now.len() as u64).sum()
    }

    fn is_named(&self, file: FileId) -> bool {
        let number = self.open.get(&file);
        number.is_some_and(|number| self.names.values().any(|named| named == number))
    }

    fn answer(&self) -> Result<(), FileError> {
        if self.dead { Err(off()) } else { Ok(()) }
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

    fn new_file(&mut self) -> u32 {
        self.made += 1;
        self.files.insert(self.made, File::default());
        self.made
    }

    /// Files that neither a name nor a handle leads to are gone.
    fn drop_unused(&mut self) {
        let names = self.names.values().chain(self.synced_names.values());
        let made = self.namings.iter().filter_map(|naming| match naming {
            Naming::Make(_, number) => Some(number),
            _ => None,
        });
        let used: BTreeSet<u32> = names.chain(made).chain(self.open.values()).copied().collect();
        self.files.retain(|number, _| used.contains(number));
    }
}

impl Disk {
    /// What it holds, to be changed.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk after the power went and came back.
    pub fn after_power_cut(&self, unsynced: Unsynced) -> Self {
        let state = self.state();
        let mut rng = Rng::new(match unsynced {
            Unsynced::Some(seed) => seed,
            _ => 1,
        });
        let mut after = State { made: state.made, ..State::default() };
        let mut names = state.synced_names.clone();
        for naming in &state.namings {
            let kept = match unsynced {
                Unsynced::Dropped => false,
                Unsynced::Kept => true,
                Unsynced::Some(_) => rng.chance(500),
            };
            if kept {
                naming.apply(&mut names);
            }
        }
        for number in names.values() {
            let Some(file) = state.files.get(number) else { continue };
            let mut content = file.synced.clone();
            for change in &file.changes {
                match unsynced {
                    Unsynced::Dropped => {}
                    Unsynced::Kept => change.apply(&mut content),
                    Unsynced::Some(_) => change.apply_partly(&mut content, &mut rng),
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

    /// What stands in a file now; nothing where there is none.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        let file = state.names.get(name).and_then(|number| state.files.get(number));
        file.map(|file| file.now.clone()).unwrap_or_default()
    }

    /// Puts a file there that lasts.
    pub fn put(&self, name: &str, content: Vec<u8>) {
        let mut state = self.state();
        let number = state.new_file();
        state.files.insert(number, File { synced: content.clone(), now: content, changes: Vec::new() });
        state.names.insert(name.to_owned(), number);
        state.synced_names.insert(name.to_owned(), number);
    }

    /// Changes a file that may be open.
    pub fn overwrite(&self, name: &str, content: Vec<u8>) {
        let mut state = self.state();
        let number = state.names.get(name).copied();
        if let Some(file) = number.and_then(|number| state.files.get_mut(&number)) {
            file.changes = vec![Change::Length(0), Change::Write(0, content.clone())];
            file.now = content;
        }
    }

    /// Takes a file away.
    pub fn erase(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.synced_names.remove(name);
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// The lengths of all files that have a name, together.
    pub fn bytes(&self) -> u64 {
        let state = self.state();
        let files = state.names.values().filter_map(|number| state.files.get(number));
        files.map(|file| file.now.len() as u64).sum()
    }
}

impl Files for Disk {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
        let state = self.state();
        state.answer()?;
        let bytes = |number| state.files.get(number).map_or(0, |file| file.now.len() as u64);
        Ok(state.names.iter().map(|(name, number)| (name.clone(), bytes(number))).collect())
    }

    fn open(&mut self, name: &str, create: bool) -> Result<FileId, FileError> {
        let mut state = self.state();
        if !create {
            state.answer()?;
            if hit(Point::Open).is_some() {
                return Err(FileError("too many open files".into()));
            }
            let number = state.names.get(name).copied();
            let number = number.ok_or_else(|| FileError("there is no such file".into()))?;
            return Ok(state.hand_out(number));
        }
        if state.call(Point::Make)?.is_some() {
            return Err(no_space());
        }
        if state.names.contains_key(name) {
            return Err(FileError("the file exists".into()));
        }
        let number = state.new_file();
        state.naming(Naming::Make(name.to_owned(), number));
        state.answer()?;
        Ok(state.hand_out(number))
    }

    fn scratch(&mut self) -> Result<FileId, FileError> {
        let mut state = self.state();
        state.answer()?;
        let number = state.new_file();
        Ok(state.hand_out(number))
    }

    fn close(&mut self, file: FileId) {
        let mut state = self.state();
        state.open.remove(&file);
        state.drop_unused();
    }

    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
        let mut state = self.state();
        state.answer()?;
        if hit(Point::Read).is_some() {
            return Err(FileError("input/output error".into()));
        }
        let content = &state.file(file)?.now;
        let there = content.get(index(offset).min(content.len())..).unwrap_or_default();
        into.iter_mut().zip(there).for_each(|(into, byte)| *into = *byte);
        Ok(there.len().min(into.len()))
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let mut state = self.state();
        let fails = state.call(Point::Write)?;
        let (used, room, named) = (state.used(), state.room, state.is_named(file));
        state.writes += u64::from(named);
        let target = state.file(file)?;
        let grows = (offset + bytes.len() as u64).saturating_sub(target.now.len() as u64);
        let full = fails.is_some() || room.is_some_and(|room| used + grows > room);
        // A full disk takes what still fits.
        let taken = match (fails, full) {
            (Some(Sort::Write), _) => 0,
            (_, true) => bytes.len() / 2,
            (_, false) => bytes.len(),
        };
        let change = Change::Write(offset, bytes.get(..taken).unwrap_or_default().to_vec());
        change.apply(&mut target.now);
        if named {
            target.changes.push(change);
        }
        if full { Err(no_space()) } else { state.answer() }
    }

    fn set_len(&mut self, file: FileId, bytes: u64) -> Result<(), FileError> {
        let mut state = self.state();
        if state.call(Point::Length)?.is_some() {
            return Err(FileError("input/output error".into()));
        }
        let target = state.file(file)?;
        Change::Length(bytes).apply(&mut target.now);
        target.changes.push(Change::Length(bytes));
        state.answer()
    }

    fn sync(&mut self, file: FileId) -> Result<(), FileError> {
        let mut state = self.state();
        state.syncs += 1;
        let fails = state.call(Point::Sync)?;
        if fails.is_some() || state.fail_syncs {
            let target = state.file(file)?;
            match fails {
                // As some systems do: what could not be written counts as written.
                Some(Sort::SyncStale) => target.changes.clear(),
                Some(Sort::SyncGone) => {
                    target.changes.clear();
                    target.now.clone_from(&target.synced);
                }
                _ => {}
            }
            return Err(FileError("the sync failed".into()));
        }
        state.answer()?;
        let target = state.file(file)?;
        for change in std::mem::take(&mut target.changes) {
            change.apply(&mut target.synced);
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError> {
        let mut state = self.state();
        if state.call(Point::Rename)?.is_some() {
            return Err(no_space());
        }
        state.naming(Naming::Rename(from.to_owned(), to.to_owned()));
        state.answer()
    }

    fn remove(&mut self, name: &str) -> Result<(), FileError> {
        let mut state = self.state();
        if state.call(Point::Remove)?.is_some() {
            return Err(no_space());
        }
        state.naming(Naming::Remove(name.to_owned()));
        state.answer()
    }

    fn sync_names(&mut self) -> Result<(), FileError> {
        let mut state = self.state();
        if state.call(Point::Names)?.is_some() {
            return Err(FileError("the sync failed".into()));
        }
        state.answer()?;
        state.synced_names = state.names.clone();
        state.namings.clear();
        state.drop_unused();
        Ok(())
    }
}
