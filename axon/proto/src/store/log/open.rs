//! Opening: the whole log is read and checked, and what is damaged is told, set aside and left behind.
//!
//! A write that a crash cut short is no damage: it was never answered. It is told from damage by what
//! follows. The frames of one batch are written together, and the next batch only when they last. So if a
//! whole frame of a later batch follows, the bad place was once good; if none does, it is the unfinished end.

use std::collections::{BTreeMap, HashMap};

use super::{BATCH_BYTES_MAX, OpenError, Opened, Options, Place, Segment, Store, clean, segment_name};
use crate::id::{AgentId, MsgId};
use crate::node::Seen;
use crate::store::files::{FileError, Files};
use crate::store::frame::{
    self, Batch, FORMAT, FRAME_HEADER_BYTES, FrameHeader, Op, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use crate::store::index::{Entry, Index};

/// Damaged segments that are kept for a person to look at.
const DAMAGED_MAX: usize = 8;
/// No segment is longer.
const SEGMENT_BYTES_MAX: u64 = 4 * BATCH_BYTES_MAX as u64;

/// A segment file, before its frames are read.
struct Found {
    number: u32,
    bytes: u64,
    /// Its header is whole.
    headed: bool,
    /// None: there is no frame in it and nothing says which one would come.
    first_frame: Option<u64>,
}

/// What the log says, as far as it has been read.
#[derive(Default)]
struct Log {
    salt: u32,
    segments: BTreeMap<u32, Segment>,
    items: HashMap<String, Place>,
    entries: Vec<Entry>,
    gone: Vec<(u64, u64)>,
    loose: Vec<u64>,
    seen: HashMap<(AgentId, MsgId), u64>,
    /// Numbers of messages that seem to have been in damaged places.
    claimed: Vec<u64>,
    next_frame: Option<u64>,
    next_seq: u64,
    lost_to: u64,
    oldest_frame: Option<u64>,
    closed: bool,
    /// Frames are missing here, and no message after them has been seen yet.
    gap: bool,
    /// The end of a segment that is damaged, or dead because a sync failed: the next segment tells.
    doubtful: Option<(u32, usize, usize)>,
    /// Everything up to this segment is written anew.
    damaged_to: Option<u32>,
    damaged: Vec<u32>,
    warnings: Vec<String>,
}

/// How the reading of a segment ended.
enum End {
    /// With its last byte, or with dead frames.
    Whole,
    /// With a write that was not finished, from here on.
    Torn(usize),
}

impl<F: Files> Store<F> {
    /// Opens the store in this directory, or begins one.
    pub fn open(mut files: F, options: Options, now_ms: u64) -> Result<(Self, Opened), OpenError> {
        let (segments, mut asides) = list(&mut files)?;
        let had_data = !segments.is_empty();
        let last_segment = segments.last().map_or(0, |(number, _)| *number);
        let mut log = Log { salt: options.salt, next_seq: 1, ..Log::default() };
        let found = find_segments(&mut files, &segments, &mut log)?;
        let mut active = None;
        for (at, one) in found.iter().enumerate() {
            let later = found.iter().skip(at + 1).find_map(|later| later.first_frame);
            active = read_segment(&mut files, &mut log, one, later)?;
        }
        let entries = log.finish(now_ms);
        let mut store = Self {
            options,
            segments: log.segments,
            active: None,
            reader: None,
            last_segment,
            next_frame: log.next_frame.unwrap_or(1),
            items: log.items,
            index: Index::default(),
            next_seq: log.next_seq,
            lost_to: log.lost_to,
            meta_unsaved: false,
            meta_staged: false,
            closed: log.closed,
            batch: Batch::new(log.salt),
            staged: Vec::new(),
            bytes: 0,
            live: 0,
            cleaning: clean::Cleaning::default(),
            warnings: log.warnings,
            files,
        };
        store.bytes = store.segments.values().map(|segment| segment.bytes).sum();
        for entry in entries {
            store.index.add(&mut store.files, entry)?;
            store.add_live(entry.segment, entry.bytes);
        }
        store.index.settle(&mut store.files);
        let places: Vec<Place> = store.items.values().copied().collect();
        places.iter().for_each(|place| store.add_live(place.segment, place.bytes));
        if let Some(number) = active.filter(|number| log.damaged_to.is_none_or(|damaged| *number > damaged)) {
            store.active = Some((number, store.files.open(&segment_name(number), false)?));
        }
        for number in log.damaged {
            let aside = name_aside(&mut store.files, number, &mut asides);
            store.cleaning.set_aside.insert(number, aside);
        }
        if let Some(damaged_to) = log.damaged_to {
            store.leave_behind(damaged_to, now_ms);
        }
        if had_data && !log.closed {
            let text = "the store was not closed cleanly: the newest writes may be missing";
            store.warnings.push(text.into());
        }
        let mut seen: Vec<Seen> =
            log.seen.into_iter().map(|((from, id), until_ms)| Seen { from, id, until_ms }).collect();
        seen.sort_unstable_by_key(|seen| (seen.until_ms, seen.from, seen.id));
        let warnings = store.take_warnings();
        let (next_seq, rows) = (store.next_seq, store.rows());
        Ok((store, Opened { seen, next_seq, rows, warnings, clean: log.closed, had_data }))
    }

    /// Writes again what lives in damaged segments and those before, so that the damage is not met again.
    fn leave_behind(&mut self, damaged_to: u32, now_ms: u64) {
        let mut done = Ok(());
        self.meta_unsaved = true;
        while done.is_ok() && self.segments.keys().next().is_some_and(|first| *first <= damaged_to) {
            done = self.clean(now_ms);
        }
        if self.meta_unsaved && done.is_ok() {
            // Nothing was left to move: only a note is missing.
            done = self.note_begin_after(damaged_to);
        }
        if let Err(error) = done {
            let text = format!("the damaged store could not be repaired and will be tried again: {error}");
            self.warnings.push(text);
        }
    }
}

impl Log {
    /// Reads the frames of a segment. `later` is the first frame of the segments after it.
    fn read_frames(&mut self, number: u32, bytes: &[u8], from: usize, later: Option<u64>) -> End {
        let (mut at, limit) = (from, later.unwrap_or(u64::MAX));
        let mut next = self.next_frame.unwrap_or(1);
        let end = loop {
            if at >= bytes.len() || next >= limit {
                break End::Whole;
            }
            if let Some((header, content)) = frame::whole(bytes, at, self.salt)
                && header.number == next
            {
                self.apply_frame(number, at, &header, content, false);
                at += header.frame_bytes();
                next += 1;
                continue;
            }
            let damaged = bytes.get(at..).and_then(|bytes| frame::read_frame_header(bytes, self.salt));
            let damaged = damaged.filter(|header| header.number == next);
            let resume = match damaged.map(|header| at.saturating_add(header.frame_bytes())) {
                Some(end) if end <= bytes.len() => end,
                Some(_) => at + 1,
                None => at,
            };
            let found = frame::next_whole(bytes, resume, &(next..limit), self.salt);
            let was_good = later.is_some() || found.is_some_and(|found| self.later_batch(bytes, found, next));
            if !was_good {
                break End::Torn(at);
            }
            if let Some(header) = damaged {
                self.salvage(number, bytes, at, &header);
            }
            let Some((to, header)) = found else {
                self.doubtful = Some((number, at, bytes.len()));
                break End::Whole;
            };
            self.note_damage(number, &format!("bytes {at} to {to} are damaged"), header.number - next);
            (at, next) = (to, header.number);
        };
        self.next_frame = Some(next);
        end
    }

    /// Whether from this frame on there is one that was written later than the frame `bad`.
    fn later_batch(&self, bytes: &[u8], from: (usize, FrameHeader), bad: u64) -> bool {
        let mut found = Some(from);
        while let Some((at, header)) = found {
            if header.batch() > bad {
                return true;
            }
            let above = header.number.saturating_add(1)..u64::MAX;
            found = frame::next_whole(bytes, at.saturating_add(header.frame_bytes()), &above, self.salt);
        }
        false
    }

    fn apply_frame(&mut self, number: u32, at: usize, header: &FrameHeader, content: &[u8], check: bool) {
        self.closed = false;
        for op in frame::ops(content, check) {
            let (offset, bytes) = (at + FRAME_HEADER_BYTES + op.at, op.bytes.len());
            let (Ok(offset), Ok(bytes)) = (u32::try_from(offset), u32::try_from(bytes)) else { continue };
            let place = Place { segment: number, offset, bytes };
            match op.op {
                Some(one) => self.apply(one, place, header.copies),
                None => self.claimed.extend(frame::claimed_seq(op.bytes)),
            }
        }
    }

    fn apply(&mut self, op: Op<'_>, place: Place, copies: bool) {
        match op {
            Op::Row { seq, at_ms, firm, kind, .. } => {
                let Place { segment, offset, bytes } = place;
                let kind_bytes = u16::try_from(kind.len()).unwrap_or(u16::MAX);
                self.entries.push(Entry {
                    seq,
                    at_ms,
                    segment,
                    offset,
                    bytes,
                    kind_bytes,
                    firm,
                    dead: false,
                });
                if !copies {
                    self.close_gap(seq);
                }
                self.next_seq = self.next_seq.max(seq.saturating_add(1));
            }
            Op::Gone { first, last, lost } => {
                self.gone.push((first, last));
                self.next_seq = self.next_seq.max(last.saturating_add(1));
                if lost {
                    self.lost_to = self.lost_to.max(last);
                }
            }
            Op::Loose { seq } => {
                self.loose.push(seq);
                // There has been such a message: where frames are missing before this one, it was in them.
                if self.gap && seq >= self.next_seq {
                    self.lost_to = self.lost_to.max(seq);
                }
                self.next_seq = self.next_seq.max(seq.saturating_add(1));
            }
            Op::Seen(seen) => {
                let until_ms = self.seen.entry((seen.from, seen.id)).or_default();
                *until_ms = (*until_ms).max(seen.until_ms);
                if let Some(segment) = self.segments.get_mut(&place.segment) {
                    segment.seen_bytes += u64::from(place.bytes);
                    segment.seen_until_ms = segment.seen_until_ms.max(seen.until_ms);
                }
            }
            Op::Put { key, .. } => match self.items.get_mut(key) {
                Some(old) => *old = place,
                None => drop(self.items.insert(key.to_owned(), place)),
            },
            Op::Delete { key } => drop(self.items.remove(key)),
            Op::Meta { next_seq, lost_to, oldest_frame } => {
                self.close_gap(next_seq);
                self.next_seq = self.next_seq.max(next_seq);
                self.lost_to = self.lost_to.max(lost_to);
                self.oldest_frame = Some(oldest_frame);
            }
            Op::Close => self.closed = true,
        }
    }

    /// After missing frames the next message would have had the number `next_seq`, but has this one: those
    /// between were lost.
    fn close_gap(&mut self, seq: u64) {
        if std::mem::take(&mut self.gap) && seq > self.next_seq {
            self.lost_to = self.lost_to.max(seq - 1);
        }
    }

    /// Takes what can be taken from a damaged frame. A commit is taken wholly or not at all; moved operations
    /// have nothing to do with one another.
    fn salvage(&mut self, number: u32, bytes: &[u8], at: usize, header: &FrameHeader) {
        let end = bytes.len().min(at.saturating_add(header.frame_bytes()));
        let content = bytes.get(at + FRAME_HEADER_BYTES..end).unwrap_or_default();
        if header.copies {
            self.apply_frame(number, at, header, content, true);
        } else {
            self.claimed.extend(frame::ops(content, false).filter_map(|op| frame::claimed_seq(op.bytes)));
        }
    }

    fn note_damage(&mut self, number: u32, what: &str, missing: u64) {
        self.note_gap(number, format!("{}: {what}, {}", segment_name(number), frames_missing(missing)));
        if !self.damaged.contains(&number) {
            self.damaged.push(number);
        }
    }

    fn note_gap(&mut self, number: u32, warning: String) {
        self.warnings.push(warning);
        self.gap = true;
        self.damaged_to = self.damaged_to.max(Some(number));
    }

    /// Compares where the segment begins with where the one before has ended.
    fn check_begin(&mut self, one: &Found, first_frame: u64) {
        let before = self.segments.keys().next_back().copied();
        let doubtful = self.doubtful.take();
        let Some(missing) = first_frame.checked_sub(self.next_frame.unwrap_or(first_frame)) else { return };
        if missing > 0 {
            match (doubtful, before) {
                (Some((number, at, to)), _) => {
                    self.note_damage(number, &format!("bytes {at} to {to} are damaged"), missing);
                }
                (None, Some(number)) if number.saturating_add(1) == one.number => {
                    self.note_damage(number, "its end is missing", missing);
                }
                (None, _) => {
                    let name = segment_name(one.number);
                    let warning = format!("files before {name} are missing, {}", frames_missing(missing));
                    self.note_gap(before.unwrap_or(0), warning);
                }
            }
        }
        self.next_frame = Some(first_frame);
    }

    /// The messages that live, by number.
    fn finish(&mut self, now_ms: u64) -> Vec<Entry> {
        let begin = self.segments.values().next().map_or(1, |segment| segment.first_frame);
        let noted = self.oldest_frame.unwrap_or(1);
        if noted < begin {
            let warning = format!("the first files are missing, {}", frames_missing(begin - noted));
            self.note_gap(0, warning);
            self.gap = false;
        }
        let below = self.next_seq;
        self.lost_to = self.claimed.iter().copied().filter(|seq| *seq < below).fold(self.lost_to, u64::max);
        self.seen.retain(|_, until_ms| *until_ms > now_ms);
        let mut entries = std::mem::take(&mut self.entries);
        // Of a message that was moved, the last place counts; a place further on in the log is a higher one.
        entries.sort_unstable_by_key(|entry| (entry.seq, std::cmp::Reverse((entry.segment, entry.offset))));
        entries.dedup_by_key(|entry| entry.seq);
        self.gone.sort_unstable();
        let mut gone = std::mem::take(&mut self.gone).into_iter().peekable();
        let mut gone_to = None;
        entries.retain(|entry| {
            while let Some((_, last)) = gone.next_if(|(first, _)| *first <= entry.seq) {
                gone_to = gone_to.max(Some(last));
            }
            Some(entry.seq) > gone_to
        });
        // A number is never used twice and none becomes firm again: where the notes stand does not matter.
        self.loose.sort_unstable();
        let mut loose = std::mem::take(&mut self.loose).into_iter().peekable();
        for entry in &mut entries {
            while loose.next_if(|seq| *seq < entry.seq).is_some() {}
            entry.firm &= loose.next_if_eq(&entry.seq).is_none();
        }
        entries
    }
}

/// The segments by number with their lengths, and the damaged ones that were set aside.
#[expect(clippy::type_complexity, reason = "two lists that are taken apart at once")]
fn list(files: &mut impl Files) -> Result<(Vec<(u32, u64)>, BTreeMap<u64, String>), FileError> {
    let (mut segments, mut asides) = (Vec::new(), BTreeMap::new());
    for (name, bytes) in files.list()? {
        let Some((number, kind)) = name.split_once('.') else { continue };
        let Ok(number) = number.parse::<u32>() else { continue };
        if name == segment_name(number) {
            segments.push((number, bytes.min(SEGMENT_BYTES_MAX)));
        } else if let Some(aside) = kind.strip_prefix("damaged-").and_then(|aside| aside.parse().ok()) {
            asides.insert(aside, name);
        }
    }
    segments.sort_unstable();
    Ok((segments, asides))
}

/// Reads the headers: whether this store can be read at all, and what its frames are checked with.
fn find_segments(
    files: &mut impl Files,
    segments: &[(u32, u64)],
    log: &mut Log,
) -> Result<Vec<Found>, OpenError> {
    let mut found = Vec::new();
    let mut salted = false;
    for (number, bytes) in segments.iter().copied() {
        let header = read_file(files, number, bytes.min(SEGMENT_HEADER_BYTES as u64))?;
        found.push(match frame::read_segment_header(&header) {
            SegmentHeader::Newer { format } => {
                return Err(OpenError::Newer { found: format, known: FORMAT });
            }
            SegmentHeader::Known { number: in_header, salt, first_frame } if in_header == number => {
                if !std::mem::replace(&mut salted, true) {
                    log.salt = salt;
                }
                Found { number, bytes, headed: true, first_frame: Some(first_frame) }
            }
            _ => Found { number, bytes, headed: false, first_frame: None },
        });
    }
    for one in found.iter_mut().filter(|one| !one.headed) {
        let bytes = read_file(files, one.number, one.bytes)?;
        let first = frame::next_whole(&bytes, 0, &(0..u64::MAX), log.salt);
        one.first_frame = first.map(|(_, header)| header.number);
    }
    Ok(found)
}

/// Reads one segment into the log; gives its number if it can be written to.
fn read_segment(
    files: &mut impl Files,
    log: &mut Log,
    one: &Found,
    later: Option<u64>,
) -> Result<Option<u32>, OpenError> {
    let number = one.number;
    let bytes = read_file(files, number, one.bytes)?;
    if one.first_frame.is_none() && bytes.len() <= SEGMENT_HEADER_BYTES {
        // It was being made when the power went, and nothing was ever written to it.
        files.remove(&segment_name(number)).ok();
        return Ok(None);
    }
    let first_frame = one.first_frame.or(log.next_frame).unwrap_or(1);
    log.check_begin(one, first_frame);
    log.segments.insert(number, Segment { first_frame, bytes: bytes.len() as u64, ..Segment::default() });
    let mut from = SEGMENT_HEADER_BYTES;
    if !one.headed {
        let first = frame::next_whole(&bytes, 0, &(0..u64::MAX), log.salt);
        from = first.map_or(bytes.len(), |(at, _)| at);
        log.note_damage(number, &format!("bytes 0 to {from} are damaged"), 0);
    }
    if let End::Torn(at) = log.read_frames(number, &bytes, from, later) {
        let torn = bytes.len() - at;
        let name = segment_name(number);
        log.warnings.push(format!("{name}: an unfinished write of {torn} bytes at its end was cut off"));
        log.closed = false;
        if let Some(segment) = log.segments.get_mut(&number) {
            segment.bytes = at as u64;
        }
        let file = files.open(&name, false)?;
        let cut = files.set_len(file, at as u64).and_then(|()| files.sync(file));
        files.close(file);
        // If it cannot be cut, the header of the next segment says that what is there does not count.
        return Ok(cut.is_ok().then_some(number));
    }
    // Frames begin after both copies of the header: where the second is missing, none can be written.
    Ok((bytes.len() >= SEGMENT_HEADER_BYTES).then_some(number))
}

/// A segment's bytes from the first on, so many at most.
fn read_file(files: &mut impl Files, number: u32, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = vec![0; usize::try_from(bytes_max).unwrap_or(0)];
    let file = files.open(&segment_name(number), false)?;
    let read = files.read_at(file, 0, &mut bytes);
    files.close(file);
    bytes.truncate(read?);
    Ok(bytes)
}

/// Under which name a damaged segment will be kept; makes room for it.
fn name_aside(files: &mut impl Files, number: u32, asides: &mut BTreeMap<u64, String>) -> String {
    let next = asides.keys().next_back().map_or(1, |last| last.saturating_add(1));
    let name = format!("{number:08}.damaged-{next}");
    asides.insert(next, name.clone());
    while asides.len() > DAMAGED_MAX
        && let Some((_, oldest)) = asides.pop_first()
    {
        files.remove(&oldest).ok();
    }
    name
}

fn frames_missing(missing: u64) -> String {
    match missing {
        0 => "no commit is missing".into(),
        1 => "1 commit is missing".into(),
        _ => format!("{missing} commits are missing"),
    }
}
