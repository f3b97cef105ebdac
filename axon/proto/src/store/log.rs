//! The engine: a circular log of frames in segment files.
//!
//! Commits go to the end, one frame each, and a batch of them with one write and one sync. Cleaning takes the
//! oldest segment, writes again what still lives in it, and removes it. Because it is always the oldest, a
//! note that something was removed is never needed once it has come to the front itself. A note that a
//! message is not firm any more is not either: what it is about was written before it, and has been written
//! again since, as not firm.
//!
//! In memory are the places of all items, a few figures for each segment, and the index of the messages.
//! They change when the disk has said that the batch lasts. The index is the exception: it is changed while a
//! batch is put together, so that each commit is decided by what the ones before it do, and changed back if
//! the batch fails.
//!
//! The disk is asked for: written bytes, a sync that means it, and names that last after `sync_names`. When a
//! write fails, the segment is cut back to where it was; when a sync or the cut fails, nobody knows what is
//! on the disk, and a new segment is begun. Its header names the number of its first frame, and frames of
//! that number and above in older segments are dead.

mod clean;
mod open;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::files::{FileError, FileId, Files};
use super::frame::{self, Batch, FRAME_HEADER_BYTES, Op, SEGMENT_HEADER_BYTES};
use super::index::{Change, Entry, Index};
use super::{Commit, CommitError, Keep, Row, Write};
use crate::fault::has_room;
use crate::node::Seen;

/// What may be chosen about a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A new segment is begun when one is about this long.
    pub segment_bytes: u64,
    /// For a new store: a number that nobody else can guess.
    pub salt: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 1_048_576, salt: 0 }
    }
}

/// What was found in a store when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// The envelope ids that are still to be remembered, soonest end first.
    pub seen: Vec<Seen>,
    /// Above the numbers of all messages that were ever stored.
    pub next_seq: u64,
    /// Messages.
    pub rows: u64,
    /// What a person should be told: damage, and what was lost by it.
    pub warnings: Vec<String>,
    /// It was closed by [`Store::close`], and nothing is missing at its end.
    pub clean: bool,
    /// There was a store before.
    pub had_data: bool,
}

/// Why a store cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Its format is not known here.
    #[error(
        "this store was written by a newer axon (format {found}, this one knows up to {known}): use that \
         axon, or move the folder `store` away"
    )]
    Newer {
        /// Its format.
        found: u32,
        /// The newest format that is known here.
        known: u32,
    },
    /// The disk refused.
    #[error("the store cannot be opened: {0}")]
    Disk(#[from] FileError),
}

/// A batch, and with it one commit, in bytes.
const BATCH_BYTES_MAX: usize = 268_435_456;
/// An item's key, in bytes.
const KEY_BYTES_MAX: usize = 255;
/// Warnings that wait to be taken.
const WARNINGS_MAX: usize = 64;
/// Cleaning begins when there is more than `.0` times what lives and `.1` segments: when there is time,
const CLEAN_IDLE: (u64, u64) = (2, 4);
/// and when there is none, so that the disk is bounded.
const CLEAN_NOW: (u64, u64) = (3, 8);
/// A table of fewer items may double.
const ITEMS_MIN: usize = 1_024;

/// Messages and items that outlive the process.
#[derive(Debug)]
pub struct Store<F> {
    files: F,
    options: Options,
    /// By number, the one that is written to last.
    segments: BTreeMap<u32, Segment>,
    /// The last segment, open for writing; none: the next write begins a new one.
    active: Option<(u32, FileId)>,
    /// The segment that was read last.
    reader: Option<(u32, FileId)>,
    /// The highest number that a segment was given.
    last_segment: u32,
    next_frame: u64,
    items: HashMap<String, Place>,
    index: Index,
    next_seq: u64,
    lost_to: u64,
    /// The log does not tell `lost_to` or its own begin yet.
    meta_unsaved: bool,
    /// The batch tells them.
    meta_staged: bool,
    /// The last frame says that the store was closed.
    closed: bool,
    batch: Batch,
    staged: Vec<Staged>,
    /// Bytes of all segments, and of what lives in them but for envelope ids.
    bytes: u64,
    live: u64,
    cleaning: clean::Cleaning,
    warnings: Vec<String>,
}

/// One file of the log.
#[derive(Debug, Clone, Copy, Default)]
struct Segment {
    first_frame: u64,
    /// Up to the end of the last frame.
    bytes: u64,
    /// Operations that are still needed, but for envelope ids.
    live: u64,
    /// Envelope ids; all of them count until the last one ends.
    seen_bytes: u64,
    seen_until_ms: u64,
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    segment: u32,
    offset: u32,
    bytes: u32,
}

/// A write of the batch that changes memory once it is on disk.
#[derive(Debug, Clone, Copy)]
struct Staged {
    commit: usize,
    write: usize,
    place: Place,
}

/// What a commit goes back to when it is refused.
#[derive(Debug, Clone, Copy)]
struct Before {
    changes: usize,
    staged: usize,
    next_seq: u64,
    lost_to: u64,
}

impl<F: Files> Store<F> {
    /// Makes the commits in this order, each wholly or not at all, with one write and one sync.
    ///
    /// An answer for each: when the disk refuses, none of them is stored.
    pub fn commit(&mut self, batch: &[Commit], now_ms: u64) -> Vec<Result<(), CommitError>> {
        if batch.is_empty() {
            return Vec::new();
        }
        let bytes: usize = batch.iter().flat_map(|commit| &commit.writes).map(Write::bytes).sum();
        let refused = |error: FileError| vec![Err(CommitError::Disk(error.0)); batch.len()];
        if let Err(error) = self.make_ready((bytes + batch.len() * FRAME_HEADER_BYTES) as u64) {
            return refused(error);
        }
        let before = self.before();
        let mut answers = Vec::with_capacity(batch.len());
        for (at, commit) in batch.iter().enumerate() {
            let before = self.before();
            self.batch.begin(false);
            let answer = self.stage(at, commit, now_ms);
            match &answer {
                Ok(()) => self.batch.end(),
                Err(_) => {
                    self.batch.drop_frame();
                    self.go_back(before);
                }
            }
            answers.push(answer);
        }
        if let Err(error) = self.write_batch() {
            self.go_back(before);
            return refused(error);
        }
        for change in self.index.settle(&mut self.files) {
            match change {
                Change::Added(entry) => self.add_live(entry.segment, entry.bytes),
                Change::Removed(entry) => self.sub_live(entry.segment, entry.bytes),
                Change::Loosened(_) => {}
            }
        }
        self.apply_staged(batch);
        self.clean_if_urgent(bytes, now_ms);
        answers
    }

    /// Takes out the messages that are too old or too many; gives how many went.
    pub fn evict(&mut self, keep: &Keep, now_ms: u64) -> Result<u64, CommitError> {
        if self.index.rows() == 0 {
            return Ok(0);
        }
        self.make_ready(FRAME_HEADER_BYTES as u64).map_err(|error| CommitError::Disk(error.0))?;
        let (before, rows) = (self.before(), self.index.rows());
        self.batch.begin(false);
        let mut gone = Gone::default();
        let done = self.evict_aged(keep, now_ms, &mut gone).and_then(|()| {
            // Firm messages stay although they are too many: only a new one may be refused.
            while self.over(keep, None) && self.evict_one(keep, &mut gone)? {}
            self.stage_gone(&mut gone);
            if self.meta_unsaved {
                self.stage_meta(self.oldest_frame());
            }
            self.batch.end();
            self.write_batch()
        });
        if let Err(error) = done {
            self.go_back(before);
            return Err(CommitError::Disk(error.0));
        }
        for change in self.index.settle(&mut self.files) {
            if let Change::Removed(entry) = change {
                self.sub_live(entry.segment, entry.bytes);
            }
        }
        Ok(rows - self.index.rows())
    }

    /// Does one short step of cleaning, if there is need; says whether there is more to do.
    pub fn maintain(&mut self, now_ms: u64) -> bool {
        self.wants_cleaning(CLEAN_IDLE, now_ms)
            && self.clean(now_ms).is_ok()
            && self.wants_cleaning(CLEAN_IDLE, now_ms)
    }

    /// What a person should be told, since the last time.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    fn warn(&mut self, warning: String) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(warning);
        }
    }

    /// Messages in the inbox.
    pub fn rows(&self) -> u64 {
        self.index.rows()
    }

    /// Messages in the inbox came at this time or later; none where there are no messages.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.index.oldest_ms()
    }

    /// Bytes of the log on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the log does not tell where it begins: a dead segment had to go first on a full disk, and
    /// nothing could be written since. Opened so, it says that its first files are missing.
    #[cfg(feature = "sim")]
    pub fn begin_is_untold(&self) -> bool {
        self.meta_unsaved
    }

    /// Bytes of memory that stay in use between the calls, about.
    pub fn memory_bytes(&self) -> usize {
        let items: usize = self.items.keys().map(|key| key.capacity()).sum();
        self.index.memory_bytes()
            + items
            + self.items.capacity() * size_of::<(String, Place)>()
            + self.segments.len() * size_of::<(u32, Segment)>()
            + self.batch.memory_bytes()
            + self.staged.capacity() * size_of::<Staged>()
    }

    /// Notes in the log that it is complete, and closes it.
    pub fn close(mut self) -> Result<(), FileError> {
        let noted = if self.closed { Ok(()) } else { self.write_close() };
        self.index.close(&mut self.files);
        for (_, file) in self.active.take().into_iter().chain(self.reader.take()) {
            self.files.close(file);
        }
        noted
    }

    fn write_close(&mut self) -> Result<(), FileError> {
        self.make_ready(FRAME_HEADER_BYTES as u64)?;
        self.batch.begin(false);
        self.stage_meta(self.oldest_frame());
        self.batch.op(&Op::Close);
        self.batch.end();
        self.write_batch()
    }

    /// Puts one commit into the batch. After an error the caller goes back.
    fn stage(&mut self, at: usize, commit: &Commit, now_ms: u64) -> Result<(), CommitError> {
        let disk = |error: FileError| CommitError::Disk(error.0);
        let too_long = |what| CommitError::Disk(format!("{what} is longer than the store allows"));
        let bytes: usize = commit.writes.iter().map(Write::bytes).sum();
        if !has_room("a batch of commits", self.batch.bytes().len() + bytes <= BATCH_BYTES_MAX) {
            return Err(too_long("a batch of commits"));
        }
        let mut gone = Gone::default();
        if commit.writes.iter().any(|write| matches!(write, Write::Row { .. })) {
            self.evict_aged(&commit.keep, now_ms, &mut gone).map_err(disk)?;
        }
        for (write_at, write) in commit.writes.iter().enumerate() {
            let range = match write {
                Write::Row { row, firm } => {
                    let kind_bytes = u16::try_from(row.kind.len()).map_err(|_| too_long("a kind"))?;
                    self.make_room(row, &commit.keep, &mut gone)?;
                    let range = self.batch.op(&Op::Row {
                        seq: row.seq,
                        at_ms: row.at_ms,
                        firm: *firm,
                        kind: &row.kind,
                        raw: &row.raw,
                    });
                    let Place { segment, offset, bytes } = self.place(range).map_err(disk)?;
                    let (seq, at_ms, firm) = (row.seq, row.at_ms, *firm);
                    let entry = Entry { seq, at_ms, segment, offset, bytes, kind_bytes, firm, dead: false };
                    self.index.push(&mut self.files, entry).map_err(disk)?;
                    self.next_seq = row.seq.saturating_add(1);
                    continue;
                }
                Write::Gone(seq) => {
                    if self.index.remove(&mut self.files, *seq).map_err(disk)?.is_some() {
                        self.batch.op(&Op::Gone { first: *seq, last: *seq, lost: false });
                    }
                    continue;
                }
                Write::Loose(seq) => {
                    // One that is read may go as it is.
                    if *seq > commit.keep.read_up_to
                        && self.index.loosen(&mut self.files, *seq).map_err(disk)?
                    {
                        self.batch.op(&Op::Loose { seq: *seq });
                    }
                    continue;
                }
                Write::Seen(seen) => self.batch.op(&Op::Seen(*seen)),
                Write::Put { key, .. } | Write::Delete { key } if key.len() > KEY_BYTES_MAX => {
                    return Err(too_long("a key"));
                }
                Write::Put { key, value } => self.batch.op(&Op::Put { key, value }),
                Write::Delete { key } => self.batch.op(&Op::Delete { key }),
            };
            let place = self.place(range).map_err(disk)?;
            self.staged.push(Staged { commit: at, write: write_at, place });
        }
        self.stage_gone(&mut gone);
        if self.meta_unsaved {
            self.stage_meta(self.oldest_frame());
        }
        Ok(())
    }

    /// Evicts until there is room for this message.
    fn make_room(&mut self, row: &Row, keep: &Keep, gone: &mut Gone) -> Result<(), CommitError> {
        let disk = |error: FileError| CommitError::Disk(error.0);
        if row.seq < self.next_seq {
            let text = format!("message number {} was given before", row.seq);
            return Err(CommitError::Disk(text));
        }
        let raw_bytes = row.raw.len() as u64;
        if keep.rows_max == 0 || raw_bytes > keep.bytes_max {
            return Err(CommitError::Full);
        }
        while !has_room("rows of the inbox", !self.over(keep, Some(raw_bytes))) {
            if !self.evict_one(keep, gone).map_err(disk)? {
                return Err(CommitError::Full);
            }
        }
        Ok(())
    }

    /// Whether there is too much, with one more message of so many bytes, if any.
    fn over(&self, keep: &Keep, more: Option<u64>) -> bool {
        self.index.rows() + u64::from(more.is_some()) > keep.rows_max
            || self.index.raw_bytes() + more.unwrap_or(0) > keep.bytes_max
    }

    /// Takes out the oldest message that may go; false: none may.
    fn evict_one(&mut self, keep: &Keep, gone: &mut Gone) -> Result<bool, FileError> {
        let oldest = self.index.oldest(&mut self.files)?;
        let victim = match oldest.filter(|oldest| oldest.seq <= keep.read_up_to || !oldest.firm) {
            Some(oldest) => Some(oldest),
            None => self.index.oldest_loose(&mut self.files)?,
        };
        let Some(victim) = victim else { return Ok(false) };
        self.index.remove(&mut self.files, victim.seq)?;
        gone.add(victim.seq);
        Ok(true)
    }

    fn evict_aged(&mut self, keep: &Keep, now_ms: u64, gone: &mut Gone) -> Result<(), FileError> {
        let Some(up_to_ms) = now_ms.checked_sub(keep.ttl_ms) else { return Ok(()) };
        for seq in self.index.aged(&mut self.files, up_to_ms)? {
            self.index.remove(&mut self.files, seq)?;
            gone.add(seq);
        }
        Ok(())
    }

    /// Notes in the frame what was evicted.
    fn stage_gone(&mut self, gone: &mut Gone) {
        for range in gone.0.drain(..) {
            self.lost_to = self.lost_to.max(range.1);
            self.batch.op(&Op::Gone { first: range.0, last: range.1, lost: true });
        }
    }

    fn oldest_frame(&self) -> u64 {
        self.segments.values().next().map_or(1, |oldest| oldest.first_frame)
    }

    fn stage_meta(&mut self, oldest_frame: u64) {
        self.batch.op(&Op::Meta { next_seq: self.next_seq, lost_to: self.lost_to, oldest_frame });
        self.meta_staged = true;
    }

    fn before(&self) -> Before {
        let (changes, staged) = (self.index.changes(), self.staged.len());
        Before { changes, staged, next_seq: self.next_seq, lost_to: self.lost_to }
    }

    fn go_back(&mut self, before: Before) {
        self.index.undo(before.changes);
        self.staged.truncate(before.staged);
        (self.next_seq, self.lost_to) = (before.next_seq, before.lost_to);
    }

    /// Changes the items as the batch says, which is on disk.
    fn apply_staged(&mut self, batch: &[Commit]) {
        let mut staged = std::mem::take(&mut self.staged);
        for Staged { commit, write, place } in staged.drain(..) {
            match batch.get(commit).and_then(|commit| commit.writes.get(write)) {
                Some(Write::Put { key, .. }) => self.set_item(key, place),
                Some(Write::Delete { key }) => {
                    if let Some(old) = self.items.remove(key) {
                        self.sub_live(old.segment, old.bytes);
                    }
                }
                Some(Write::Seen(seen)) => self.add_seen(place.segment, place.bytes, seen.until_ms),
                Some(Write::Row { .. } | Write::Gone(_) | Write::Loose(_)) | None => {}
            }
        }
        self.staged = staged;
    }

    /// A table that is full of marks of what was taken out would be made twice as large: it is made anew.
    fn make_item_room(&mut self) {
        let len = self.items.len();
        // So many places has a table that is made for so many: seven of eight may be taken.
        let places = (len * 8 / 7).next_power_of_two();
        if len >= ITEMS_MIN && len == self.items.capacity() && 16 * len < 13 * places {
            let mut fresh = HashMap::with_capacity(len);
            fresh.extend(std::mem::take(&mut self.items));
            self.items = fresh;
        }
    }

    fn set_item(&mut self, key: &str, place: Place) {
        self.make_item_room();
        let old = match self.items.get_mut(key) {
            Some(old) => Some(std::mem::replace(old, place)),
            None => self.items.insert(key.to_owned(), place),
        };
        if let Some(old) = old {
            self.sub_live(old.segment, old.bytes);
        }
        self.add_live(place.segment, place.bytes);
    }

    fn add_live(&mut self, segment: u32, bytes: u32) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live += u64::from(bytes);
            self.live += u64::from(bytes);
        }
    }

    fn sub_live(&mut self, segment: u32, bytes: u32) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live = segment.live.saturating_sub(u64::from(bytes));
            self.live = self.live.saturating_sub(u64::from(bytes));
        }
    }

    fn add_seen(&mut self, segment: u32, bytes: u32, until_ms: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.seen_bytes += u64::from(bytes);
            segment.seen_until_ms = segment.seen_until_ms.max(until_ms);
        }
    }

    /// Where a part of the batch will stand.
    fn place(&self, range: Range<usize>) -> Result<Place, FileError> {
        let (number, _) = self.active.ok_or_else(no_segment)?;
        let base = self.segments.get(&number).map_or(0, |segment| segment.bytes);
        let offset = u32::try_from(base + range.start as u64).map_err(|_| no_segment())?;
        let bytes = u32::try_from(range.len()).map_err(|_| no_segment())?;
        Ok(Place { segment: number, offset, bytes })
    }

    /// Begins a batch, in a segment that has room for so many bytes or is new.
    fn make_ready(&mut self, bytes: u64) -> Result<(), FileError> {
        if let Some((number, file)) = self.active {
            let used = self.segments.get(&number).map_or(0, |segment| segment.bytes);
            if used > SEGMENT_HEADER_BYTES as u64 && used + bytes > self.options.segment_bytes {
                self.files.close(file);
                self.active = None;
            }
        }
        if self.active.is_none() {
            self.begin_segment()?;
        }
        self.batch.clear(self.next_frame);
        self.meta_staged = false;
        Ok(())
    }

    /// Makes the next segment and writes to it from now on.
    fn begin_segment(&mut self) -> Result<(), FileError> {
        // The number is used up even if this fails: what is left of the file must not be in the way.
        self.last_segment = self.last_segment.saturating_add(1);
        let (number, name) = (self.last_segment, segment_name(self.last_segment));
        let file = self.files.open(&name, true)?;
        let header = frame::segment_header(number, self.batch.salt(), self.next_frame);
        let made = self
            .files
            .write_at(file, 0, &header)
            .and_then(|()| self.files.sync(file))
            .and_then(|()| self.files.sync_names());
        if made.is_err() {
            self.files.close(file);
            self.files.remove(&name).ok();
            return made;
        }
        let bytes = header.len() as u64;
        self.segments.insert(number, Segment { first_frame: self.next_frame, bytes, ..Segment::default() });
        self.bytes += bytes;
        self.active = Some((number, file));
        Ok(())
    }

    /// Writes the batch and makes it last. After an error nothing of it will be found again.
    fn write_batch(&mut self) -> Result<(), FileError> {
        if self.batch.bytes().is_empty() {
            return Ok(());
        }
        let (number, file) = self.active.ok_or_else(no_segment)?;
        let segment = self.segments.get_mut(&number).ok_or_else(no_segment)?;
        let base = segment.bytes;
        if let Err(error) = self.files.write_at(file, base, self.batch.bytes()) {
            if self.files.set_len(file, base).and_then(|()| self.files.sync(file)).is_err() {
                self.seal(file);
            }
            return Err(error);
        }
        if let Err(error) = self.files.sync(file) {
            self.files.set_len(file, base).ok();
            self.seal(file);
            return Err(error);
        }
        segment.bytes += self.batch.bytes().len() as u64;
        self.bytes += self.batch.bytes().len() as u64;
        self.next_frame = self.batch.next_number();
        self.closed = false;
        self.meta_unsaved &= !self.meta_staged;
        self.batch.clear(self.next_frame);
        Ok(())
    }

    /// Nobody knows what stands at the end of the segment: begins another, whose header says what counts.
    fn seal(&mut self, file: FileId) {
        self.files.close(file);
        self.active = None;
        // If there is no room for it now, the next write tries again.
        self.begin_segment().ok();
    }
}

/// Numbers that are taken out, as ranges.
#[derive(Debug, Default)]
struct Gone(Vec<(u64, u64)>);

impl Gone {
    fn add(&mut self, seq: u64) {
        match self.0.last_mut() {
            Some((_, last)) if last.saturating_add(1) == seq => *last = seq,
            _ => self.0.push((seq, seq)),
        }
    }
}

fn no_segment() -> FileError {
    FileError("the store has no segment to write to".into())
}

fn segment_name(number: u32) -> String {
    format!("{number:08}.log")
}
