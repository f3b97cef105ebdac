//! Reading: messages in order, items by key. Each is checked alone when it is read.

use std::sync::Arc;

use super::{Place, Store, segment_name};
use crate::store::files::{FileError, FileId, Files};
use crate::store::frame::{self, Op};
use crate::store::index::Entry;
use crate::store::{BODY_PREFIX, Read, ReadOut, Row, Rows};

/// Messages that one reading goes through, in bytes; after that the caller gets a word in.
const SCAN_BYTES_MAX: u64 = 8_388_608;
/// Messages are read from the disk together, so many bytes at a time.
const AHEAD_BYTES: u32 = 65_536;

/// A piece of a segment in memory.
#[derive(Default)]
struct Window {
    segment: u32,
    offset: u32,
    bytes: Vec<u8>,
}

impl<F: Files> Store<F> {
    /// Reads.
    #[inline(never)]
    pub fn read(&mut self, read: &Read) -> ReadOut {
        let out = match read {
            Read::Rows { .. } => self.read_rows(read).map(ReadOut::Rows),
            Read::Count { after } => self.index.count(&mut self.files, *after).map(ReadOut::Count),
            Read::Items { keys } => {
                keys.iter().map(|key| self.read_item(key)).collect::<Result<_, _>>().map(ReadOut::Items)
            }
        };
        out.unwrap_or_else(|error| ReadOut::Failed(error.0))
    }

    /// Hands over all items but those whose keys begin with [`BODY_PREFIX`], by key.
    pub fn items(&mut self, visit: &mut dyn FnMut(&str, &[u8])) -> Result<(), FileError> {
        let small = self.items.keys().filter(|key| !key.starts_with(BODY_PREFIX));
        let mut keys: Vec<String> = small.cloned().collect();
        keys.sort_unstable();
        for key in keys {
            if let Some(value) = self.read_item(&key)? {
                visit(&key, &value);
            }
        }
        Ok(())
    }

    fn read_rows(&mut self, read: &Read) -> Result<Rows, FileError> {
        let Read::Rows { after, up_to, kinds, stop_at_other, limit, bytes_max } = read else {
            return Ok(Rows::default());
        };
        let mut out = Rows { scanned_to: *after, ..Rows::default() };
        let (mut window, mut scanned_bytes, mut raw_bytes) = (Window::default(), 0, 0);
        loop {
            let next = self.index.next(&mut self.files, out.scanned_to)?;
            let Some(entry) = next.filter(|entry| entry.seq <= *up_to) else {
                out.scanned_to = (*up_to).max(*after);
                break;
            };
            // What the caller does not get was not looked at.
            let before = entry.seq.saturating_sub(1);
            if scanned_bytes > SCAN_BYTES_MAX {
                (out.next, out.scanned_to) = (Some(entry.seq), before);
                break;
            }
            scanned_bytes += u64::from(entry.bytes);
            let Some((kind, raw)) = self.load_row(&entry, &mut window)? else {
                let place = format!("{}, byte {}", segment_name(entry.segment), entry.offset);
                self.warn(format!("message {} is damaged on the disk ({place}) and is lost", entry.seq));
                self.lose_row(&entry)?;
                out.scanned_to = entry.seq;
                continue;
            };
            if kinds.as_ref().is_some_and(|kinds| !kinds.iter().any(|wanted| wanted == kind)) {
                if *stop_at_other {
                    out.scanned_to = before;
                    break;
                }
                out.scanned_to = entry.seq;
                continue;
            }
            raw_bytes += raw.len();
            if out.rows.len() >= *limit || (raw_bytes > *bytes_max && !out.rows.is_empty()) {
                (out.next, out.scanned_to) = (Some(entry.seq), before);
                break;
            }
            out.rows.push(Row { seq: entry.seq, at_ms: entry.at_ms, kind: kind.into(), raw: raw.into() });
            out.scanned_to = entry.seq;
        }
        out.lost_to = self.lost_to;
        out.first_after_lost = self.index.next(&mut self.files, self.lost_to)?.map(|entry| entry.seq);
        Ok(out)
    }

    /// Kind and envelope of a message; none: it is damaged.
    fn load_row<'a>(
        &mut self,
        entry: &Entry,
        window: &'a mut Window,
    ) -> Result<Option<(&'a str, &'a str)>, FileError> {
        let place = Place { segment: entry.segment, offset: entry.offset, bytes: entry.bytes };
        if window.get(&place).is_none() {
            let ahead = Place { bytes: entry.bytes.max(AHEAD_BYTES), ..place };
            window.bytes = self.read_place(&ahead)?;
            (window.segment, window.offset) = (place.segment, place.offset);
        }
        Ok(match window.get(&place).and_then(frame::read_op) {
            Some(Op::Row { seq, kind, raw, .. }) if seq == entry.seq => Some((kind, raw)),
            _ => None,
        })
    }

    /// The message is damaged on the disk: it is taken out.
    pub(super) fn lose_row(&mut self, entry: &Entry) -> Result<(), FileError> {
        self.index.remove(&mut self.files, entry.seq)?;
        self.index.settle(&mut self.files);
        self.sub_live(entry.segment, entry.bytes);
        self.lost_to = self.lost_to.max(entry.seq);
        self.meta_unsaved = true;
        Ok(())
    }

    fn read_item(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, FileError> {
        let Some(place) = self.items.get(key).copied() else { return Ok(None) };
        let bytes = self.read_place(&place)?;
        if let Some(Op::Put { key: stored, value }) = frame::read_op(&bytes)
            && stored == key
        {
            return Ok(Some(value.into()));
        }
        self.lose_item(key);
        Ok(None)
    }

    /// The item is damaged on the disk.
    pub(super) fn lose_item(&mut self, key: &str) {
        let Some(place) = self.items.remove(key) else { return };
        self.sub_live(place.segment, place.bytes);
        let place = format!("{}, byte {}", segment_name(place.segment), place.offset);
        self.warn(format!("the item {key} is damaged on the disk ({place}) and is lost"));
    }

    /// Bytes of a segment, fewer where it ends.
    pub(super) fn read_place(&mut self, place: &Place) -> Result<Vec<u8>, FileError> {
        let Some(segment) = self.segments.get(&place.segment) else { return Ok(Vec::new()) };
        let rest = segment.bytes.saturating_sub(u64::from(place.offset));
        let mut bytes = vec![0; u64::from(place.bytes).min(rest) as usize];
        let file = self.file_of(place.segment)?;
        let there = self.files.read_at(file, u64::from(place.offset), &mut bytes)?;
        bytes.truncate(there);
        Ok(bytes)
    }

    /// The segment's file, open to read.
    fn file_of(&mut self, segment: u32) -> Result<FileId, FileError> {
        for (number, file) in self.active.iter().chain(&self.reader) {
            if *number == segment {
                return Ok(*file);
            }
        }
        self.close_reader();
        let file = self.files.open(&segment_name(segment), false)?;
        self.reader = Some((segment, file));
        Ok(file)
    }

    pub(super) fn close_reader(&mut self) {
        if let Some((_, file)) = self.reader.take() {
            self.files.close(file);
        }
    }
}

impl Window {
    fn get(&self, place: &Place) -> Option<&[u8]> {
        let from = place.offset.checked_sub(self.offset).filter(|_| place.segment == self.segment)? as usize;
        self.bytes.get(from..from + place.bytes as usize)
    }
}
