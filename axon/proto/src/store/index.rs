//! Where each message stands: entries by number in a file without a name, and a few figures for each block of
//! them in memory.
//!
//! A million messages take 32 MB in that file and some 32 KB here, beside the last block and the one that is
//! being looked at. The file is only a help: it is made anew from the log at every start, and never synced.
//!
//! What a batch of commits changes is noted until the batch is on disk ([`Index::settle`]), so that it can be
//! taken back ([`Index::undo`]). Blocks that it touched stay in memory so long: taking back cannot fail.

use std::collections::VecDeque;

use foldhash::HashMap;

use super::files::{FileError, FileId, Files};
use super::frame::ROW_BYTES;

/// Where one message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub seq: u64,
    pub at_ms: u64,
    pub segment: u32,
    pub offset: u32,
    /// Of the operation as a whole.
    pub bytes: u32,
    pub kind_bytes: u16,
    pub firm: bool,
    pub dead: bool,
}

const ENTRY_BYTES: usize = 32;
const BLOCK_ENTRIES: usize = 1024;
const BLOCK_BYTES: usize = ENTRY_BYTES * BLOCK_ENTRIES;
/// Blocks in memory: the last, and the oldest or one that is being looked at.
const LOADED_MAX: usize = 2;
/// Blocks that may be mostly dead before the rest is written together.
const SLACK_BLOCKS: usize = 8;

impl Entry {
    /// Bytes of its envelope.
    pub fn raw_bytes(&self) -> u64 {
        u64::from(self.bytes).saturating_sub(ROW_BYTES as u64 + u64::from(self.kind_bytes))
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.seq.to_le_bytes());
        into.extend_from_slice(&self.at_ms.to_le_bytes());
        into.extend_from_slice(&self.segment.to_le_bytes());
        into.extend_from_slice(&self.offset.to_le_bytes());
        into.extend_from_slice(&self.bytes.to_le_bytes());
        into.extend_from_slice(&self.kind_bytes.to_le_bytes());
        into.extend_from_slice(&[u8::from(self.firm), u8::from(self.dead)]);
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let [seq, at_ms, places, rest] = bytes.as_chunks::<8>().0 else { return Self::NONE };
        let [s0, s1, s2, s3, o0, o1, o2, o3] = *places;
        let [b0, b1, b2, b3, k0, k1, firm, dead] = *rest;
        Self {
            seq: u64::from_le_bytes(*seq),
            at_ms: u64::from_le_bytes(*at_ms),
            segment: u32::from_le_bytes([s0, s1, s2, s3]),
            offset: u32::from_le_bytes([o0, o1, o2, o3]),
            bytes: u32::from_le_bytes([b0, b1, b2, b3]),
            kind_bytes: u16::from_le_bytes([k0, k1]),
            firm: firm != 0,
            dead: dead != 0,
        }
    }

    const NONE: Self =
        Self { seq: 0, at_ms: 0, segment: 0, offset: 0, bytes: 0, kind_bytes: 0, firm: false, dead: true };
}

/// Entries that follow one another.
#[derive(Debug, Clone, Copy)]
struct Block {
    first: u64,
    /// No live message in it is older.
    oldest_ms: u64,
    live: u32,
    /// Live ones that are not firm.
    loose: u32,
    /// Its place in the file.
    slot: u32,
    entries: u32,
}

#[derive(Debug)]
struct Loaded {
    entries: Vec<Entry>,
    /// It differs from the file.
    changed: bool,
}

/// One change since the last [`Index::settle`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    /// A message was added.
    Added(Entry),
    /// A message was taken out.
    Removed(Entry),
    /// The message of this number is not firm any more.
    Loosened(u64),
}

/// All messages, by number.
#[derive(Debug, Default)]
pub(super) struct Index {
    blocks: VecDeque<Block>,
    loaded: HashMap<u32, Loaded>,
    file: Option<FileId>,
    free_slots: Vec<u32>,
    slots: u32,
    rows: u64,
    raw_bytes: u64,
    /// No live message is older.
    oldest_ms: u64,
    /// All entries of this slot's block before this one are dead.
    head: (u32, usize),
    changes: Vec<Change>,
    /// A block has no live message any more, or may have none: looked at in [`Index::settle`].
    emptied: bool,
}

impl Index {
    /// Live messages.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// No message came before this time; none where there are no messages.
    pub fn oldest_ms(&self) -> Option<u64> {
        (self.rows > 0).then_some(self.oldest_ms)
    }

    /// Bytes of their envelopes.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    /// Bytes of memory, about.
    pub fn memory_bytes(&self) -> usize {
        let loaded: usize =
            self.loaded.values().map(|block| block.entries.capacity() * size_of::<Entry>()).sum();
        loaded
            + self.blocks.capacity() * size_of::<Block>()
            + self.changes.capacity() * size_of::<Change>()
            + self.free_slots.capacity() * size_of::<u32>()
    }

    /// Adds a message. Its number is above all others.
    pub fn push(&mut self, files: &mut dyn Files, entry: Entry) -> Result<(), FileError> {
        let slot = match self.blocks.back() {
            Some(block) if (block.entries as usize) < BLOCK_ENTRIES => block.slot,
            _ => self.add_block(files, entry.seq),
        };
        let loaded = self.load(files, slot)?;
        loaded.entries.push(entry);
        loaded.changed = true;
        if let Some(block) = self.blocks.back_mut() {
            block.entries += 1;
        }
        self.count_in(self.blocks.len().saturating_sub(1), &entry);
        self.changes.push(Change::Added(entry));
        Ok(())
    }

    /// Takes a message out; gives it if it was there.
    pub fn remove(&mut self, files: &mut dyn Files, seq: u64) -> Result<Option<Entry>, FileError> {
        let Some((at, entry)) = self.find(files, seq)? else { return Ok(None) };
        self.set_dead(at, seq, true);
        self.changes.push(Change::Removed(entry));
        Ok(Some(entry))
    }

    /// Makes a firm message one that is not; says whether there was such a message.
    pub fn loosen(&mut self, files: &mut dyn Files, seq: u64) -> Result<bool, FileError> {
        let Some((at, _)) = self.find(files, seq)?.filter(|(_, entry)| entry.firm) else { return Ok(false) };
        self.set_firm(at, seq, false);
        self.changes.push(Change::Loosened(seq));
        Ok(true)
    }

    /// How many changes there are to take back.
    pub fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Takes the last changes back, down to so many.
    pub fn undo(&mut self, changes: usize) {
        while self.changes.len() > changes {
            match self.changes.pop() {
                Some(Change::Added(entry)) => self.unpush(&entry),
                Some(Change::Removed(entry)) => {
                    if let Some(at) = self.block_of(entry.seq) {
                        self.set_dead(at, entry.seq, false);
                    }
                }
                Some(Change::Loosened(seq)) => {
                    if let Some(at) = self.block_of(seq) {
                        self.set_firm(at, seq, true);
                    }
                }
                None => {}
            }
        }
    }

    /// The changes since the last time are for good: hands them over and lets go of memory.
    pub fn settle(&mut self, files: &mut dyn Files) -> Vec<Change> {
        let changes = std::mem::take(&mut self.changes);
        if std::mem::take(&mut self.emptied) {
            let (loaded, free_slots) = (&mut self.loaded, &mut self.free_slots);
            self.blocks.retain(|block| {
                if block.live == 0 {
                    loaded.remove(&block.slot);
                    free_slots.push(block.slot);
                }
                block.live > 0
            });
        }
        // A full inbox takes a message out of its oldest block for each that comes.
        let oldest = self.blocks.iter().find(|block| block.live > 0).map(|block| block.slot);
        self.trim(files, oldest);
        if self.blocks.len() > SLACK_BLOCKS + self.rows as usize * 4 / BLOCK_ENTRIES {
            // It is no harm if there is no room for the new file: the old one stays.
            self.pack(files).ok();
        }
        changes
    }

    /// The first message above this number.
    pub fn next(&mut self, files: &mut dyn Files, after: u64) -> Result<Option<Entry>, FileError> {
        let mut at = self.block_of(after).unwrap_or(0);
        while let Some(block) = self.blocks.get(at).copied() {
            if block.live > 0 {
                let entries = &self.load(files, block.slot)?.entries;
                let from = entries.partition_point(|entry| entry.seq <= after);
                if let Some(entry) = entries.iter().skip(from).find(|entry| !entry.dead) {
                    return Ok(Some(*entry));
                }
            }
            at += 1;
        }
        Ok(None)
    }

    /// How many messages there are above this number.
    pub fn count(&mut self, files: &mut dyn Files, after: u64) -> Result<u64, FileError> {
        let Some(at) = self.block_of(after) else { return Ok(self.rows) };
        let later: u64 = self.blocks.iter().skip(at + 1).map(|block| u64::from(block.live)).sum();
        let Some(block) = self.blocks.get(at).copied() else { return Ok(later) };
        let entries = &self.load(files, block.slot)?.entries;
        let from = entries.partition_point(|entry| entry.seq <= after);
        Ok(later + entries.iter().skip(from).filter(|entry| !entry.dead).count() as u64)
    }

    /// The oldest message.
    pub fn oldest(&mut self, files: &mut dyn Files) -> Result<Option<Entry>, FileError> {
        let Some(block) = self.blocks.iter().find(|block| block.live > 0).copied() else { return Ok(None) };
        let skip = if self.head.0 == block.slot { self.head.1 } else { 0 };
        let entries = &self.load(files, block.slot)?.entries;
        let found = entries.iter().enumerate().skip(skip).find(|(_, entry)| !entry.dead);
        let Some((at, entry)) = found.map(|(at, entry)| (at, *entry)) else { return Ok(None) };
        self.head = (block.slot, at);
        Ok(Some(entry))
    }

    /// The oldest message that is not firm.
    pub fn oldest_loose(&mut self, files: &mut dyn Files) -> Result<Option<Entry>, FileError> {
        let Some(block) = self.blocks.iter().find(|block| block.loose > 0).copied() else { return Ok(None) };
        let entries = &self.load(files, block.slot)?.entries;
        Ok(entries.iter().find(|entry| !entry.dead && !entry.firm).copied())
    }

    /// All messages that came at this time or before.
    pub fn aged(&mut self, files: &mut dyn Files, up_to_ms: u64) -> Result<Vec<u64>, FileError> {
        let mut aged = Vec::new();
        if self.rows == 0 || self.oldest_ms > up_to_ms {
            return Ok(aged);
        }
        for at in 0..self.blocks.len() {
            let Some(block) = self.blocks.get(at).copied() else { break };
            if block.live == 0 || block.oldest_ms > up_to_ms {
                continue;
            }
            let mut oldest_ms = u64::MAX;
            for entry in self.load(files, block.slot)?.entries.iter().filter(|entry| !entry.dead) {
                if entry.at_ms <= up_to_ms {
                    aged.push(entry.seq);
                }
                oldest_ms = oldest_ms.min(entry.at_ms);
            }
            if let Some(block) = self.blocks.get_mut(at) {
                block.oldest_ms = oldest_ms;
            }
        }
        let live = self.blocks.iter().filter(|block| block.live > 0);
        self.oldest_ms = live.map(|block| block.oldest_ms).min().unwrap_or(u64::MAX);
        Ok(aged)
    }

    /// All messages that stand in this segment.
    pub fn in_segment(&mut self, files: &mut dyn Files, segment: u32) -> Result<Vec<u64>, FileError> {
        let mut found = Vec::new();
        for at in 0..self.blocks.len() {
            let Some(slot) = self.blocks.get(at).map(|block| block.slot) else { break };
            let entries = self.load(files, slot)?.entries.iter();
            found.extend(
                entries.filter(|entry| !entry.dead && entry.segment == segment).map(|entry| entry.seq),
            );
        }
        Ok(found)
    }

    /// The message, if it stands there.
    pub fn at(
        &mut self,
        files: &mut dyn Files,
        seq: u64,
        place: (u32, u32),
    ) -> Result<Option<Entry>, FileError> {
        let entry = self.find(files, seq)?.map(|(_, entry)| entry);
        Ok(entry.filter(|entry| (entry.segment, entry.offset) == place))
    }

    /// The message has been moved.
    pub fn relocate(&mut self, files: &mut dyn Files, seq: u64, to: (u32, u32)) -> Result<(), FileError> {
        if let Some((at, _)) = self.find(files, seq)?
            && let Some(entry) = self.loaded_entry(at, seq)
        {
            (entry.segment, entry.offset) = to;
        }
        Ok(())
    }

    /// Lets go of the file.
    pub fn close(&mut self, files: &mut dyn Files) {
        if let Some(file) = self.file.take() {
            files.close(file);
        }
    }

    fn block_of(&self, seq: u64) -> Option<usize> {
        self.blocks.partition_point(|block| block.first <= seq).checked_sub(1)
    }

    /// The live entry of this number, and its block; the block is then in memory.
    fn find(&mut self, files: &mut dyn Files, seq: u64) -> Result<Option<(usize, Entry)>, FileError> {
        let Some(at) = self.block_of(seq) else { return Ok(None) };
        let Some(slot) = self.blocks.get(at).map(|block| block.slot) else { return Ok(None) };
        let entries = &self.load(files, slot)?.entries;
        let found = entries.binary_search_by_key(&seq, |entry| entry.seq).ok();
        let entry = found.and_then(|found| entries.get(found)).filter(|entry| !entry.dead);
        Ok(entry.map(|entry| (at, *entry)))
    }

    /// An entry of a block that is in memory, to be changed.
    fn loaded_entry(&mut self, at: usize, seq: u64) -> Option<&mut Entry> {
        let loaded = self.loaded.get_mut(&self.blocks.get(at)?.slot)?;
        loaded.changed = true;
        let found = loaded.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        loaded.entries.get_mut(found)
    }

    fn set_dead(&mut self, at: usize, seq: u64, dead: bool) {
        let Some(entry) = self.loaded_entry(at, seq) else { return };
        entry.dead = dead;
        let entry = *entry;
        if dead {
            self.count_out(at, &entry);
        } else {
            self.count_in(at, &entry);
            self.head = (0, 0);
        }
    }

    /// For a live entry of a block that is in memory.
    fn set_firm(&mut self, at: usize, seq: u64, firm: bool) {
        let Some(entry) = self.loaded_entry(at, seq) else { return };
        entry.firm = firm;
        if let Some(block) = self.blocks.get_mut(at) {
            if firm {
                block.loose -= 1;
            } else {
                block.loose += 1;
            }
        }
    }

    fn count_in(&mut self, at: usize, entry: &Entry) {
        self.oldest_ms = if self.rows == 0 { entry.at_ms } else { self.oldest_ms.min(entry.at_ms) };
        self.rows += 1;
        self.raw_bytes += entry.raw_bytes();
        if let Some(block) = self.blocks.get_mut(at) {
            block.oldest_ms = block.oldest_ms.min(entry.at_ms);
            block.live += 1;
            block.loose += u32::from(!entry.firm);
        }
    }

    fn count_out(&mut self, at: usize, entry: &Entry) {
        self.rows -= 1;
        self.raw_bytes -= entry.raw_bytes();
        if let Some(block) = self.blocks.get_mut(at) {
            block.live -= 1;
            block.loose -= u32::from(!entry.firm);
            self.emptied |= block.live == 0;
        }
    }

    /// Takes the last entry off again.
    fn unpush(&mut self, entry: &Entry) {
        let Some(at) = self.blocks.len().checked_sub(1) else { return };
        self.count_out(at, entry);
        let Some(block) = self.blocks.back_mut() else { return };
        block.entries -= 1;
        let (slot, empty) = (block.slot, block.entries == 0);
        if let Some(loaded) = self.loaded.get_mut(&slot) {
            loaded.entries.pop();
            loaded.changed = true;
        }
        if empty {
            self.blocks.pop_back();
            self.loaded.remove(&slot);
            self.free_slots.push(slot);
        }
    }

    fn add_block(&mut self, files: &mut dyn Files, first: u64) -> u32 {
        if self.changes.is_empty() {
            self.trim(files, None);
        }
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        self.blocks.push_back(Block { first, oldest_ms: u64::MAX, live: 0, loose: 0, slot, entries: 0 });
        self.loaded.insert(slot, Loaded { entries: Vec::new(), changed: true });
        if self.head.0 == slot {
            self.head = (0, 0);
        }
        slot
    }

    /// The entries of a block, from memory or from the file.
    fn load(&mut self, files: &mut dyn Files, slot: u32) -> Result<&mut Loaded, FileError> {
        if !self.loaded.contains_key(&slot) {
            if self.changes.is_empty() && self.loaded.len() >= LOADED_MAX {
                self.trim(files, None);
            }
            let count = self.blocks.iter().find(|block| block.slot == slot).map_or(0, |block| block.entries);
            let entries = self.read_block(files, slot, count as usize)?;
            self.loaded.insert(slot, Loaded { entries, changed: false });
        }
        self.loaded.get_mut(&slot).ok_or_else(damaged)
    }

    fn read_block(&self, files: &mut dyn Files, slot: u32, count: usize) -> Result<Vec<Entry>, FileError> {
        let file = self.file.ok_or_else(damaged)?;
        let mut bytes = vec![0; count * ENTRY_BYTES];
        if files.read_at(file, u64::from(slot) * BLOCK_BYTES as u64, &mut bytes)? < bytes.len() {
            return Err(damaged());
        }
        Ok(bytes.as_chunks::<ENTRY_BYTES>().0.iter().map(Entry::decode).collect())
    }

    /// Lets go of all blocks but the last and this one. What cannot be written stays in memory.
    fn trim(&mut self, files: &mut dyn Files, keep: Option<u32>) {
        let last = self.blocks.back().map(|block| block.slot);
        let slots: Vec<u32> = self.loaded.keys().copied().filter(|slot| Some(*slot) != last).collect();
        for slot in slots.into_iter().filter(|slot| Some(*slot) != keep) {
            if self.write_block(files, slot).is_ok() {
                self.loaded.remove(&slot);
            }
        }
    }

    fn write_block(&mut self, files: &mut dyn Files, slot: u32) -> Result<(), FileError> {
        let Some(loaded) = self.loaded.get(&slot).filter(|loaded| loaded.changed) else { return Ok(()) };
        let file = match self.file {
            Some(file) => file,
            None => files.scratch()?,
        };
        self.file = Some(file);
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        loaded.entries.iter().for_each(|entry| entry.encode(&mut bytes));
        files.write_at(file, u64::from(slot) * BLOCK_BYTES as u64, &bytes)
    }

    /// Writes the live entries together into a new file.
    fn pack(&mut self, files: &mut dyn Files) -> Result<(), FileError> {
        let mut packed = Self::default();
        let result = self.copy_live(files, &mut packed);
        if result.is_err() {
            packed.close(files);
            return result;
        }
        self.close(files);
        *self = packed;
        Ok(())
    }

    fn copy_live(&mut self, files: &mut dyn Files, to: &mut Self) -> Result<(), FileError> {
        for at in 0..self.blocks.len() {
            let Some(slot) = self.blocks.get(at).map(|block| block.slot) else { break };
            for entry in self.load(files, slot)?.entries.iter().filter(|entry| !entry.dead) {
                to.add(files, *entry)?;
            }
        }
        Ok(())
    }

    /// Adds a message for good.
    pub fn add(&mut self, files: &mut dyn Files, entry: Entry) -> Result<(), FileError> {
        self.push(files, entry)?;
        self.changes.clear();
        Ok(())
    }
}

fn damaged() -> FileError {
    FileError("the index of the inbox could not be read back".into())
}
