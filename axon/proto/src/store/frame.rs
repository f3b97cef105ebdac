//! The bytes of the store: segment headers, frames, and the operations in them.
//!
//! A segment is a header and then frames. A frame is what is written together or not at all; its header has a
//! check of its own, so that its length can be trusted although its content is damaged. Every operation has a
//! check over its length, kind and content, and the frame's check is made of these, so that each byte is
//! summed once and one message or item can later be read and checked alone. All numbers are little endian.
//!
//! A segment's header stands twice at its begin. Its `salt` is the same in all segments and goes into the
//! check of every frame header: a peer, who does not know it, cannot send content that is taken for a frame
//! when the log is searched for the next whole one after damage.
//!
//! ```text
//! segment  "AXONSTO1" | format u32 | number u32 | salt u32 | first frame u64 | crc u32, and the same again
//! frame    marker 4 | content bytes u32 | number u64 | in batch u32 | flags u32 | content crc u32 | crc u32
//! op       crc u32 | content bytes u32 | kind u8 | content
//! ```

use std::ops::Range;

use crate::id::{AgentId, MsgId};
use crate::node::Seen;

/// The form that this axon writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;
/// Before the first frame of a segment.
pub(super) const SEGMENT_HEADER_BYTES: usize = 2 * HEADER_BYTES;
/// Before the first operation of a frame.
pub(super) const FRAME_HEADER_BYTES: usize = 32;
/// What a message takes beside its kind and its envelope.
pub(super) const ROW_BYTES: usize = OP_HEADER_BYTES + 19;
const HEADER_BYTES: usize = 32;
/// Before the content of an operation.
pub(super) const OP_HEADER_BYTES: usize = 9;

const MAGIC: [u8; 8] = *b"AXONSTO1";
/// Its first byte is in no UTF-8 text.
const MARKER: [u8; 4] = [0xf7, 0xa5, 0x0e, 0x9c];
/// The frame moves operations that were written before: they have nothing to do with one another.
const COPIES: u32 = 1;

const ROW: u8 = 1;
const GONE: u8 = 2;
const SEEN: u8 = 3;
const PUT: u8 = 4;
const DELETE: u8 = 5;
const META: u8 = 6;
const CLOSE: u8 = 7;
const LOOSE: u8 = 8;

/// How a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentHeader {
    /// A segment that can be read.
    Known { number: u32, salt: u32, first_frame: u64 },
    /// A segment of a form that is not known here.
    Newer { format: u32 },
    /// No header, or half of one.
    Damaged,
}

/// How a frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// One more than the frame before.
    pub number: u64,
    /// How many frames of the same write stand before it.
    pub in_batch: u32,
    /// It moves operations that were written before.
    pub copies: bool,
    content_bytes: u32,
    content_crc: u32,
}

impl FrameHeader {
    /// Bytes with the content.
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES.saturating_add(self.content_bytes as usize)
    }

    /// The first frame that was written together with this one.
    pub fn batch(&self) -> u64 {
        self.number.saturating_sub(u64::from(self.in_batch))
    }
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op<'a> {
    /// A message.
    Row { seq: u64, at_ms: u64, firm: bool, kind: &'a str, raw: &'a str },
    /// Messages that are taken out, the last one included; by a bound (`lost`) or by the owner.
    Gone { first: u64, last: u64, lost: bool },
    /// The message, written before as a firm one, is not firm any more.
    Loose { seq: u64 },
    /// An envelope id.
    Seen(Seen),
    /// An item.
    Put { key: &'a str, value: &'a [u8] },
    /// An item that is removed.
    Delete { key: &'a str },
    /// What cannot be told from the other operations once old segments are gone.
    Meta { next_seq: u64, lost_to: u64, oldest_frame: u64 },
    /// Nothing was to be written any more.
    Close,
}

/// An operation where it stands.
pub(super) struct OpAt<'a> {
    /// From the begin of the frame's content.
    pub at: usize,
    /// With its header.
    pub bytes: &'a [u8],
    /// None: damaged.
    pub op: Option<Op<'a>>,
}

/// The header of a segment.
pub(super) fn segment_header(number: u32, salt: u32, first_frame: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&number.to_le_bytes());
    header[16..20].copy_from_slice(&salt.to_le_bytes());
    header[20..28].copy_from_slice(&first_frame.to_le_bytes());
    let crc = crc32(0, &header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    let mut twice = [0; SEGMENT_HEADER_BYTES];
    twice[..HEADER_BYTES].copy_from_slice(&header);
    twice[HEADER_BYTES..].copy_from_slice(&header);
    twice
}

/// Reads the header of a segment: that of its two copies which is whole.
pub(super) fn read_segment_header(bytes: &[u8]) -> SegmentHeader {
    let copies = bytes.as_chunks::<HEADER_BYTES>().0.iter().take(2);
    copies.filter_map(read_header_copy).next().unwrap_or(SegmentHeader::Damaged)
}

/// Length, magic, format and check keep this form in every format, so that a newer one is told from damage.
fn read_header_copy(header: &[u8; HEADER_BYTES]) -> Option<SegmentHeader> {
    let mut fields = Fields(header);
    let (magic, format, number, salt) = (fields.take(8)?, fields.u32()?, fields.u32()?, fields.u32()?);
    let (first_frame, crc) = (fields.u64()?, fields.u32()?);
    if magic != MAGIC || crc != crc32(0, &header[..HEADER_BYTES - 4]) {
        return None;
    }
    // A store of an older format is turned into the present one from here; there has been none yet.
    match format {
        FORMAT => Some(SegmentHeader::Known { number, salt, first_frame }),
        newer if newer > FORMAT => Some(SegmentHeader::Newer { format }),
        _ => None,
    }
}

/// The header of the frame that begins here, whatever its content is like.
pub(super) fn read_frame_header(bytes: &[u8], salt: u32) -> Option<FrameHeader> {
    let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
    let mut fields = Fields(header);
    if fields.take(4)? != MARKER {
        return None;
    }
    let (content_bytes, number, in_batch, flags) =
        (fields.u32()?, fields.u64()?, fields.u32()?, fields.u32()?);
    let (content_crc, crc) = (fields.u32()?, fields.u32()?);
    let copies = flags & COPIES != 0;
    let header_is_whole = crc == crc32(salt, &header[..FRAME_HEADER_BYTES - 4]);
    header_is_whole.then_some(FrameHeader { number, in_batch, copies, content_bytes, content_crc })
}

/// The content of a frame, whether or not it is whole; none when the bytes end before.
fn content<'a>(bytes: &'a [u8], at: usize, header: &FrameHeader) -> Option<&'a [u8]> {
    bytes.get(at + FRAME_HEADER_BYTES..at.saturating_add(header.frame_bytes()))
}

/// The frame that begins here, if it is whole.
pub(super) fn whole(bytes: &[u8], at: usize, salt: u32) -> Option<(FrameHeader, &[u8])> {
    let header = read_frame_header(bytes.get(at..)?, salt)?;
    let content = content(bytes, at, &header)?;
    let mut crc = 0;
    for op in ops(content, true) {
        op.op?;
        crc = crc32(crc, op.bytes.get(..4)?);
    }
    (crc == header.content_crc).then_some((header, content))
}

/// The next whole frame from here on whose number is in the range.
pub(super) fn next_whole(
    bytes: &[u8],
    from: usize,
    numbers: &Range<u64>,
    salt: u32,
) -> Option<(usize, FrameHeader)> {
    // Headers of frames that are damaged may say that they are long; the search must not cost more than this.
    let mut budget_bytes = bytes.len().saturating_mul(4);
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == MARKER[0])?;
        if let Some(header) = bytes.get(at..).and_then(|bytes| read_frame_header(bytes, salt))
            && numbers.contains(&header.number)
        {
            if whole(bytes, at, salt).is_some() {
                return Some((at, header));
            }
            budget_bytes = budget_bytes.checked_sub(header.frame_bytes())?;
        }
        at += 1;
    }
}

/// The operations in the content of a frame; `check` their sums, unless that was done before.
pub(super) fn ops(content: &[u8], check: bool) -> impl Iterator<Item = OpAt<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = content.get(at..).filter(|rest| !rest.is_empty())?;
        let Some(bytes) = op_bytes(rest) else {
            // Its length cannot be right, so nobody knows where the next begins.
            let damaged = OpAt { at, bytes: rest, op: None };
            at = content.len();
            return Some(damaged);
        };
        let op = OpAt { at, bytes, op: if check { read_op(bytes) } else { decode(bytes) } };
        at += bytes.len();
        Some(op)
    })
}

/// The operation that these bytes are, if it is whole.
pub(super) fn read_op(bytes: &[u8]) -> Option<Op<'_>> {
    let (crc, checked) = bytes.split_first_chunk::<4>()?;
    if op_bytes(bytes)?.len() != bytes.len() || u32::from_le_bytes(*crc) != crc32(0, checked) {
        return None;
    }
    decode(bytes)
}

/// The number that a damaged message seems to have.
pub(super) fn claimed_seq(bytes: &[u8]) -> Option<u64> {
    let mut fields = Fields(bytes);
    fields.take(8)?;
    (fields.u8()? == ROW).then(|| fields.u64())?
}

/// The bytes of the first operation in here.
fn op_bytes(bytes: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields(bytes);
    fields.take(4)?;
    bytes.get(..OP_HEADER_BYTES.saturating_add(fields.u32()? as usize))
}

fn decode(bytes: &[u8]) -> Option<Op<'_>> {
    let mut fields = Fields(bytes);
    fields.take(8)?;
    let op = match fields.u8()? {
        ROW => {
            let (seq, at_ms, flags, kind_bytes) = (fields.u64()?, fields.u64()?, fields.u8()?, fields.u16()?);
            let kind = std::str::from_utf8(fields.take(usize::from(kind_bytes))?).ok()?;
            Op::Row { seq, at_ms, firm: flags & 1 != 0, kind, raw: std::str::from_utf8(fields.rest()).ok()? }
        }
        GONE => Op::Gone { first: fields.u64()?, last: fields.u64()?, lost: fields.u8()? != 0 },
        SEEN => {
            let (from, id) = (fields.array()?, fields.array()?);
            Op::Seen(Seen { from: AgentId(from), id: MsgId(id), until_ms: fields.u64()? })
        }
        PUT => {
            let key_bytes = usize::from(fields.u8()?);
            let key = std::str::from_utf8(fields.take(key_bytes)?).ok()?;
            Op::Put { key, value: fields.rest() }
        }
        DELETE => Op::Delete { key: std::str::from_utf8(fields.rest()).ok()? },
        META => Op::Meta { next_seq: fields.u64()?, lost_to: fields.u64()?, oldest_frame: fields.u64()? },
        CLOSE => Op::Close,
        LOOSE => Op::Loose { seq: fields.u64()? },
        _ => return None,
    };
    fields.0.is_empty().then_some(op)
}

/// Bytes that are read from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Frames that will be written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    salt: u32,
    next_number: u64,
    frames: u32,
    begin: usize,
    copies: bool,
    crc: u32,
}

impl Batch {
    /// An empty one for frames with this salt.
    pub fn new(salt: u32) -> Self {
        Self { salt, ..Self::default() }
    }

    /// The salt of its frames.
    pub fn salt(&self) -> u32 {
        self.salt
    }

    /// Forgets what was in it. The first frame will have this number.
    pub fn clear(&mut self, next_number: u64) {
        // One large batch must not hold its memory for ever.
        self.bytes.clear();
        self.bytes.shrink_to(BATCH_BYTES_KEPT);
        (self.next_number, self.frames) = (next_number, 0);
    }

    /// What is to be written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The number of the frame that comes after all in here.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Begins a frame.
    pub fn begin(&mut self, copies: bool) {
        (self.begin, self.copies, self.crc) = (self.bytes.len(), copies, 0);
        self.bytes.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    }

    /// Bytes of the frame that was begun.
    pub fn frame_bytes(&self) -> usize {
        self.bytes.len() - self.begin
    }

    /// Adds an operation to it; gives its place from the begin of the batch.
    pub fn op(&mut self, op: &Op<'_>) -> Range<usize> {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&[0; OP_HEADER_BYTES]);
        let kind = match op {
            Op::Row { seq, at_ms, firm, kind, raw } => {
                self.bytes.extend_from_slice(&seq.to_le_bytes());
                self.bytes.extend_from_slice(&at_ms.to_le_bytes());
                self.bytes.push(u8::from(*firm));
                self.bytes.extend_from_slice(&(kind.len() as u16).to_le_bytes());
                self.bytes.extend_from_slice(kind.as_bytes());
                self.bytes.extend_from_slice(raw.as_bytes());
                ROW
            }
            Op::Gone { first, last, lost } => {
                self.bytes.extend_from_slice(&first.to_le_bytes());
                self.bytes.extend_from_slice(&last.to_le_bytes());
                self.bytes.push(u8::from(*lost));
                GONE
            }
            Op::Loose { seq } => {
                self.bytes.extend_from_slice(&seq.to_le_bytes());
                LOOSE
            }
            Op::Seen(seen) => {
                self.bytes.extend_from_slice(&seen.from.0);
                self.bytes.extend_from_slice(&seen.id.0);
                self.bytes.extend_from_slice(&seen.until_ms.to_le_bytes());
                SEEN
            }
            Op::Put { key, value } => {
                self.bytes.push(key.len() as u8);
                self.bytes.extend_from_slice(key.as_bytes());
                self.bytes.extend_from_slice(value);
                PUT
            }
            Op::Delete { key } => {
                self.bytes.extend_from_slice(key.as_bytes());
                DELETE
            }
            Op::Meta { next_seq, lost_to, oldest_frame } => {
                for number in [next_seq, lost_to, oldest_frame] {
                    self.bytes.extend_from_slice(&number.to_le_bytes());
                }
                META
            }
            Op::Close => CLOSE,
        };
        let op = &mut self.bytes[begin..];
        let content_bytes = (op.len() - OP_HEADER_BYTES) as u32;
        op[4..8].copy_from_slice(&content_bytes.to_le_bytes());
        op[8] = kind;
        let crc = crc32(0, &op[4..]).to_le_bytes();
        op[..4].copy_from_slice(&crc);
        self.crc = crc32(self.crc, &crc);
        begin..self.bytes.len()
    }

    /// Adds an operation as it stands elsewhere.
    pub fn copy(&mut self, op: &[u8]) -> Range<usize> {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(op);
        self.crc = crc32(self.crc, op.get(..4).unwrap_or_default());
        begin..self.bytes.len()
    }

    /// Ends the frame; one without operations is not written.
    pub fn end(&mut self) {
        let content_bytes = self.frame_bytes() - FRAME_HEADER_BYTES;
        if content_bytes == 0 {
            return self.drop_frame();
        }
        let header = &mut self.bytes[self.begin..self.begin + FRAME_HEADER_BYTES];
        header[..4].copy_from_slice(&MARKER);
        header[4..8].copy_from_slice(&(content_bytes as u32).to_le_bytes());
        header[8..16].copy_from_slice(&self.next_number.to_le_bytes());
        header[16..20].copy_from_slice(&self.frames.to_le_bytes());
        header[20..24].copy_from_slice(&u32::from(self.copies).to_le_bytes());
        header[24..28].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32(self.salt, &header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        self.next_number = self.next_number.saturating_add(1);
        self.frames += 1;
    }

    /// Gives up the frame that was begun.
    pub fn drop_frame(&mut self) {
        self.bytes.truncate(self.begin);
    }
}

/// The buffer is given back to the system beyond this.
const BATCH_BYTES_KEPT: usize = 65_536;

/// CRC-32 (IEEE 802.3), eight bytes at a time; `crc` is that of the bytes before.
pub(super) fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    let at = |table: usize, index: u32| TABLES[table][(index & 0xff) as usize];
    let mut crc = !crc;
    let (eights, rest) = bytes.as_chunks::<8>();
    for [a, b, c, d, e, f, g, h] in eights {
        let low = crc ^ u32::from_le_bytes([*a, *b, *c, *d]);
        let high = u32::from_le_bytes([*e, *f, *g, *h]);
        crc = at(7, low) ^ at(6, low >> 8) ^ at(5, low >> 16) ^ at(4, low >> 24);
        crc ^= at(3, high) ^ at(2, high >> 8) ^ at(1, high >> 16) ^ at(0, high >> 24);
    }
    for byte in rest {
        crc = (crc >> 8) ^ at(0, crc ^ u32::from(*byte));
    }
    !crc
}

static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut n = 0;
    while n < 256 {
        let (mut crc, mut bit) = (n as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        tables[0][n] = crc;
        n += 1;
    }
    let mut table = 1;
    while table < 8 {
        n = 0;
        while n < 256 {
            let before = tables[table - 1][n];
            tables[table][n] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            n += 1;
        }
        table += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_known_one() {
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
        let bytes: Vec<u8> = (0..100).collect();
        for cut in 0..100 {
            assert_eq!(crc32(crc32(0, &bytes[..cut]), &bytes[cut..]), crc32(0, &bytes));
        }
    }

    #[test]
    fn every_operation_is_read_as_it_was_written_and_no_bit_of_it_can_change() {
        let seen = Seen { from: AgentId([1; 16]), id: MsgId([2; 16]), until_ms: 3 };
        let all = [
            Op::Row { seq: 1, at_ms: 2, firm: true, kind: "query", raw: "{\"ä\":1}" },
            Op::Row { seq: 3, at_ms: 4, firm: false, kind: "", raw: "" },
            Op::Gone { first: 1, last: 9, lost: true },
            Op::Loose { seq: 1 },
            Op::Seen(seen),
            Op::Put { key: "cursor/a", value: b"\x00\xff" },
            Op::Delete { key: "cursor/a" },
            Op::Meta { next_seq: 1, lost_to: 2, oldest_frame: 3 },
            Op::Close,
        ];
        let mut batch = Batch::new(77);
        batch.clear(7);
        batch.begin(false);
        for op in &all {
            batch.op(op);
        }
        batch.end();
        let mut bytes = batch.bytes().to_vec();
        let (header, content) = whole(&bytes, 0, 77).unwrap();
        assert_eq!((header.number, header.frame_bytes(), header.copies), (7, bytes.len(), false));
        assert!(ops(content, true).map(|at| at.op.unwrap()).eq(all));
        assert_eq!(next_whole(&bytes, 0, &(7..8), 77).map(|(at, _)| at), Some(0));
        assert_eq!(next_whole(&bytes, 0, &(8..9), 77), None);
        assert_eq!(next_whole(&bytes, 0, &(7..8), 78), None);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(whole(&bytes, 0, 77).is_none(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_header_tells_a_newer_format_from_damage() {
        let known = SegmentHeader::Known { number: 5, salt: 7, first_frame: 9 };
        let mut header = segment_header(5, 7, 9);
        assert_eq!(read_segment_header(&header), known);
        assert_eq!(read_segment_header(&header[..32]), known);
        assert_eq!(read_segment_header(&header[..31]), SegmentHeader::Damaged);
        header[8] = 2;
        assert_eq!(read_segment_header(&header), known, "the other copy is whole");
        header[40] = 2;
        assert_eq!(read_segment_header(&header), SegmentHeader::Damaged);
        let crc = crc32(0, &header[..28]);
        header[28..32].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read_segment_header(&header), SegmentHeader::Newer { format: 2 });
    }
}
