//! A disk that fails on request, and forgets what was not synced when the power goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rng::Rng;
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
    /// The power goes with this call.
    pub cut_at: Option<u64>,
    /// This call fails.
    pub fail_at: Option<u64>,
    /// Every sync fails.
    pub fail_syncs: bool,
    /// Nothing more fits.
    pub full: bool,
    /// The power is off.
    pub dead: bool,
}

/// A disk. Its handles are clones of one another.
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

    /// Counts a call that changes something; says whether it is the one that fails. The last one before the
    /// power goes may have had its effect, or a part of it.
    fn call(&mut self) -> Result<bool, FileError> {
        self.answer()?;
        self.calls += 1;
        self.dead = self.cut_at == Some(self.calls);
        Ok(self.fail_at == Some(self.calls))
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
            let number = state.names.get(name).copied();
            let number = number.ok_or_else(|| FileError("there is no such file".into()))?;
            return Ok(state.hand_out(number));
        }
        if state.call()? || state.full {
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
        let content = &state.file(file)?.now;
        let there = content.get(index(offset).min(content.len())..).unwrap_or_default();
        into.iter_mut().zip(there).for_each(|(into, byte)| *into = *byte);
        Ok(there.len().min(into.len()))
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let mut state = self.state();
        let fails = state.call()? || state.full;
        // A full disk takes what still fits.
        let taken = if fails { bytes.len() / 2 } else { bytes.len() };
        let change = Change::Write(offset, bytes.get(..taken).unwrap_or_default().to_vec());
        let target = state.file(file)?;
        change.apply(&mut target.now);
        target.changes.push(change);
        if fails { Err(no_space()) } else { state.answer() }
    }

    fn set_len(&mut self, file: FileId, bytes: u64) -> Result<(), FileError> {
        let mut state = self.state();
        if state.call()? {
            return Err(no_space());
        }
        let target = state.file(file)?;
        Change::Length(bytes).apply(&mut target.now);
        target.changes.push(Change::Length(bytes));
        state.answer()
    }

    fn sync(&mut self, file: FileId) -> Result<(), FileError> {
        let mut state = self.state();
        if state.call()? || state.fail_syncs {
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
        state.drop_unused();
        Ok(())
    }
}
