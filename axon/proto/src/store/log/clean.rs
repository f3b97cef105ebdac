//! Cleaning: the oldest segment gives up what still lives in it, and goes.

use std::collections::BTreeMap;

use super::{CLEAN_NOW, Place, Store, segment_name};
use crate::store::files::{FileError, Files};
use crate::store::frame::{self, FRAME_HEADER_BYTES, Op, SEGMENT_HEADER_BYTES};

/// One step reads and writes about so much, but at least one frame.
const STEP_BYTES: u32 = 262_144;
/// Frames of copies end beyond this: damage to one header must not take everything with it.
const COPIES_BYTES: usize = 32_768;

/// How far cleaning has come.
#[derive(Debug, Default)]
pub(super) struct Cleaning {
    /// The segment, and the first byte in it that was not looked at.
    at: (u32, u64),
    /// A name was removed and that may not last yet.
    names_unsynced: bool,
    /// Segments that are kept under another name instead of being removed.
    pub set_aside: BTreeMap<u32, String>,
}

/// What is moved to the end of the log.
enum Moved {
    Row { seq: u64, firm: bool },
    Item(String),
    Seen(u64),
}

impl<F: Files> Store<F> {
    /// Whether there is more on disk than these times what lives, and these segments.
    pub(super) fn wants_cleaning(&self, (times, segments): (u64, u64), now_ms: u64) -> bool {
        let slack = segments * self.options.segment_bytes;
        // The ids are added up only if it matters.
        self.bytes > times * self.live + slack && {
            let remembered = self.segments.values().filter(|segment| segment.seen_until_ms > now_ms);
            let seen_bytes: u64 = remembered.map(|segment| segment.seen_bytes).sum();
            self.bytes > times * (self.live + seen_bytes) + slack
        }
    }

    /// After a commit of so many bytes: cleans faster than the log grows, if nobody has in idle times.
    pub(super) fn clean_if_urgent(&mut self, bytes: usize, now_ms: u64) {
        let steps = 1 + bytes * 2 / STEP_BYTES as usize;
        for _ in 0..steps {
            // If it fails everything is as it was, and the commit is stored.
            if !self.wants_cleaning(CLEAN_NOW, now_ms) || self.clean(now_ms).is_err() {
                return;
            }
        }
    }

    /// One step of cleaning the oldest segment.
    pub(super) fn clean(&mut self, now_ms: u64) -> Result<(), FileError> {
        let Some((&number, oldest)) = self.segments.first_key_value() else { return Ok(()) };
        let oldest = *oldest;
        if let Some((active, file)) = self.active
            && active == number
        {
            self.files.close(file);
            self.active = None;
        }
        if self.cleaning.at.0 != number {
            self.cleaning.at = (number, SEGMENT_HEADER_BYTES as u64);
        }
        let dead = oldest.live == 0 && oldest.seen_until_ms <= now_ms;
        if !dead && self.cleaning.at.1 < oldest.bytes {
            self.move_some(number, now_ms)?;
            if self.cleaning.at.1 < oldest.bytes {
                return Ok(());
            }
        }
        if self.segments.get(&number).is_some_and(|segment| segment.live > 0) {
            self.lose_rest(number)?;
        }
        if let Err(error) = self.note_begin_after(number) {
            if !dead {
                return Err(error);
            }
            // On a full disk there may be no room to note it before the segment has gone. If there is none
            // then either, whatever is written next tells it.
            self.meta_unsaved = true;
            self.drop_segment(number)?;
            return self.note_begin_after(number);
        }
        self.drop_segment(number)
    }

    /// Moves what lives in the next piece of the segment.
    fn move_some(&mut self, number: u32, now_ms: u64) -> Result<(), FileError> {
        let (from, salt) = (self.cleaning.at.1, self.batch.salt());
        let place = |bytes| Place { segment: number, offset: u32::try_from(from).unwrap_or(u32::MAX), bytes };
        let mut bytes = self.read_place(&place(STEP_BYTES))?;
        match frame::read_frame_header(&bytes, salt) {
            Some(header) if header.frame_bytes() > bytes.len() => {
                bytes = self.read_place(&place(u32::try_from(header.frame_bytes()).unwrap_or(u32::MAX)))?;
            }
            // Damage: the next frame may be anywhere.
            None => bytes = self.read_place(&place(u32::MAX))?,
            Some(_) => {}
        }
        let segment = self.segments.get(&number).copied().unwrap_or_default();
        self.make_ready((segment.live + segment.seen_bytes).min(bytes.len() as u64))?;
        let (mut at, mut moved) = (0, Vec::new());
        self.batch.begin(true);
        while at < bytes.len() {
            let Some(header) = bytes.get(at..).and_then(|bytes| frame::read_frame_header(bytes, salt)) else {
                if at > 0 {
                    break;
                }
                let next = frame::next_whole(&bytes, 1, &(0..u64::MAX), salt);
                at = next.map_or(bytes.len(), |(at, _)| at);
                continue;
            };
            let end = at.saturating_add(header.frame_bytes());
            if end > bytes.len() && at > 0 {
                break;
            }
            // The last frame of a damaged segment may be cut short.
            let content = bytes.get(at + FRAME_HEADER_BYTES..end.min(bytes.len())).unwrap_or_default();
            for op in frame::ops(content, true) {
                let offset = from + (at + FRAME_HEADER_BYTES + op.at) as u64;
                let place = (number, u32::try_from(offset).unwrap_or(u32::MAX));
                let Some(what) = self.is_needed(op.op, place, now_ms)? else { continue };
                if self.batch.frame_bytes() > COPIES_BYTES {
                    self.batch.end();
                    self.batch.begin(true);
                }
                let range = match (op.op, &what) {
                    // The note that made it so goes with an old segment, the message must say it itself.
                    (Some(Op::Row { seq, at_ms, firm: true, kind, raw }), Moved::Row { firm: false, .. }) => {
                        self.batch.op(&Op::Row { seq, at_ms, firm: false, kind, raw })
                    }
                    _ => self.batch.copy(op.bytes),
                };
                moved.push((what, self.place(range)?));
            }
            at = end;
        }
        self.batch.end();
        self.write_batch()?;
        for (what, place) in moved {
            match what {
                Moved::Row { seq, .. } => {
                    self.index.relocate(&mut self.files, seq, (place.segment, place.offset))?;
                    self.sub_live(number, place.bytes);
                    self.add_live(place.segment, place.bytes);
                }
                Moved::Item(key) => self.set_item(&key, place),
                Moved::Seen(until_ms) => self.add_seen(place.segment, place.bytes, until_ms),
            }
        }
        // A file that ends too soon has no more to give.
        self.cleaning.at.1 = if at == 0 { u64::MAX } else { from + at as u64 };
        Ok(())
    }

    /// What an operation that stands there is still needed for.
    fn is_needed(
        &mut self,
        op: Option<Op<'_>>,
        place: (u32, u32),
        now_ms: u64,
    ) -> Result<Option<Moved>, FileError> {
        Ok(match op {
            Some(Op::Row { seq, .. }) => {
                let entry = self.index.at(&mut self.files, seq, place)?;
                entry.map(|entry| Moved::Row { seq, firm: entry.firm })
            }
            Some(Op::Put { key, .. }) => {
                let current = self.items.get(key).map(|place| (place.segment, place.offset));
                (current == Some(place)).then(|| Moved::Item(key.to_owned()))
            }
            Some(Op::Seen(seen)) => (seen.until_ms > now_ms).then_some(Moved::Seen(seen.until_ms)),
            _ => None,
        })
    }

    /// The segment has been gone through, and something that should be in it was not: it is damaged.
    fn lose_rest(&mut self, number: u32) -> Result<(), FileError> {
        let rows = self.index.in_segment(&mut self.files, number)?;
        if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
            let (count, name) = (rows.len(), segment_name(number));
            self.warn(format!("{name} is damaged: {count} messages from {first} to {last} are lost"));
        }
        for seq in rows {
            if let Some(entry) = self.index.next(&mut self.files, seq.saturating_sub(1))? {
                self.lose_row(&entry)?;
            }
        }
        let lost = self.items.iter().filter(|(_, place)| place.segment == number);
        let keys: Vec<String> = lost.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.lose_item(&key);
        }
        Ok(())
    }

    /// Notes that the log begins after this segment, and what only the old segments told.
    pub(super) fn note_begin_after(&mut self, number: u32) -> Result<(), FileError> {
        self.make_ready(FRAME_HEADER_BYTES as u64)?;
        let mut later = self.segments.range(number.saturating_add(1)..);
        let oldest_frame = later.next().map_or(self.next_frame, |(_, segment)| segment.first_frame);
        self.batch.begin(false);
        self.stage_meta(oldest_frame);
        self.batch.end();
        self.write_batch()
    }

    /// The log no longer begins with this segment.
    fn drop_segment(&mut self, number: u32) -> Result<(), FileError> {
        // If a later name vanished before an earlier one, a hole would seem to be in the log.
        if self.cleaning.names_unsynced {
            self.files.sync_names()?;
        }
        self.close_reader();
        let name = segment_name(number);
        match self.cleaning.set_aside.get(&number) {
            Some(aside) => self.files.rename(&name, aside)?,
            None => self.files.remove(&name)?,
        }
        self.cleaning.set_aside.remove(&number);
        if let Some(segment) = self.segments.remove(&number) {
            self.bytes = self.bytes.saturating_sub(segment.bytes);
            self.live = self.live.saturating_sub(segment.live);
        }
        self.cleaning.names_unsynced = true;
        self.files.sync_names()?;
        self.cleaning.names_unsynced = false;
        Ok(())
    }
}
