//! Records of the pipe as bytes: one read, many that wait to be written.

use std::collections::VecDeque;

use axon_proto::limits::MESSAGE_BYTES_MAX;

/// Nothing: a message that was taken back before it left.
const VOID: u8 = 0;
/// A one-way message.
pub(super) const TELL: u8 = 1;
/// The request of this number.
pub(super) const ASK: u8 = 2;
/// The answer to the request of this number.
pub(super) const ANSWER: u8 = 3;
/// The request of this number gets no answer.
pub(super) const NONE: u8 = 4;
/// Nobody waits for the answer to the request of this number any more.
pub(super) const DROP: u8 = 5;
/// All one-way messages up to this number have been taken over.
pub(super) const HEARD: u8 = 6;

/// Bytes of a record before its body: type, length of the body, number.
pub(super) const HEAD_BYTES: usize = 8;
/// Records are given to QUIC together up to about so many bytes.
const CHUNK_BYTES: usize = 32_768;
/// A larger buffer is given back after use.
const KEPT_BYTES: usize = 16_384;

/// One record that came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) kind: u8,
    pub(super) number: u32,
    pub(super) body: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the beginning, once it is whole; an error where it is longer than any may be.
    pub(super) fn first_of(bytes: &'a [u8]) -> Result<Option<Self>, &'static str> {
        let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let head = u32::from_be_bytes(*head);
        let (kind, length) = ((head >> 24) as u8, (head & 0x00ff_ffff) as usize);
        if length > MESSAGE_BYTES_MAX {
            return Err("a record in the pipe is longer than a message");
        }
        let Some((number, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let Some(body) = rest.get(..length) else { return Ok(None) };
        Ok(Some(Self { kind, number: u32::from_be_bytes(*number), body }))
    }
}

/// Records that QUIC does not have yet.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    chunks: VecDeque<Chunk>,
    /// Bytes of all records that there have been.
    put: u64,
    /// Bytes of those here, and of those that are being written.
    bytes: usize,
    /// Bytes that are being written.
    writing: usize,
    /// Ends of requests in the chunks. One that is being written is on its way to who asked.
    ends: usize,
    spare: Vec<u8>,
}

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    ends: usize,
    /// Its place among all bytes that there have been.
    start: u64,
}

/// Where a record begins among all bytes that there have been.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(u64);

impl Unwritten {
    /// Bytes that QUIC does not have yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Ends of the peer's requests that nobody has begun to write.
    pub(super) fn ends(&self) -> usize {
        self.ends
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Appends a record.
    pub(super) fn put(&mut self, kind: u8, number: u32, body: &[u8]) -> Place {
        let place = Place(self.put);
        let bytes = HEAD_BYTES + body.len();
        if self.chunks.back().is_none_or(|last| last.bytes.len() + bytes > CHUNK_BYTES) {
            let bytes = std::mem::take(&mut self.spare);
            self.chunks.push_back(Chunk { bytes, ends: 0, start: self.put });
        }
        let Some(last) = self.chunks.back_mut() else { return place };
        // A body is a message at most, and its length has three bytes.
        let length = u32::try_from(body.len()).unwrap_or(0);
        last.bytes.extend_from_slice(&(u32::from(kind) << 24 | length).to_be_bytes());
        last.bytes.extend_from_slice(&number.to_be_bytes());
        last.bytes.extend_from_slice(body);
        self.bytes += bytes;
        self.put += bytes as u64;
        if matches!(kind, ANSWER | NONE) {
            last.ends += 1;
            self.ends += 1;
        }
        place
    }

    /// Takes a message back, if nobody has begun to write it; whether that was so.
    pub(super) fn take_back(&mut self, place: Place) -> bool {
        let at = self.chunks.partition_point(|chunk| chunk.start <= place.0);
        let chunk = at.checked_sub(1).and_then(|at| self.chunks.get_mut(at));
        let record = chunk.and_then(|chunk| {
            let from = usize::try_from(place.0 - chunk.start).ok()?;
            let length = Record::first_of(chunk.bytes.get(from..)?).ok()??.body.len();
            chunk.bytes.get_mut(from..from + HEAD_BYTES + length)
        });
        let Some([kind, _, _, _, rest @ ..]) = record else { return false };
        *kind = VOID;
        rest.fill(0);
        true
    }

    /// Drops what nobody has begun to write.
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.bytes = self.writing;
        self.ends = 0;
    }

    /// Begins to write: moves the first records behind what is in `batch`.
    pub(super) fn take(&mut self, batch: &mut Vec<u8>) {
        let Some(Chunk { mut bytes, ends, .. }) = self.chunks.pop_front() else { return };
        self.ends -= ends;
        self.writing += bytes.len();
        if batch.is_empty() {
            std::mem::swap(batch, &mut bytes);
        } else {
            batch.append(&mut bytes);
        }
        self.keep(bytes);
    }

    /// What was taken has been written: empties the batch.
    pub(super) fn written(&mut self, batch: &mut Vec<u8>) {
        self.bytes -= std::mem::take(&mut self.writing);
        batch.clear();
        if batch.capacity() > KEPT_BYTES {
            *batch = Vec::new();
        }
    }

    /// Uses the room of a buffer again.
    fn keep(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT_BYTES && buffer.capacity() > self.spare.capacity() {
            buffer.clear();
            self.spare = buffer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_put() {
        let mut unwritten = Unwritten::default();
        let bodies: Vec<String> = [0, 1, 40_000, 10, 65_536, 300].map(|length| "x".repeat(length)).into();
        for (number, body) in (1..).zip(&bodies) {
            unwritten.put(if number % 2 == 0 { ANSWER } else { ASK }, number, body.as_bytes());
        }
        let put: usize = bodies.iter().map(|body| HEAD_BYTES + body.len()).sum();
        assert_eq!((unwritten.bytes(), unwritten.ends()), (put, 3));
        let (mut came, mut batch) = (Vec::new(), Vec::new());
        while !unwritten.is_empty() {
            unwritten.take(&mut batch);
            assert!(batch.len() <= CHUNK_BYTES.max(HEAD_BYTES + MESSAGE_BYTES_MAX));
            came.append(&mut batch);
        }
        assert_eq!((unwritten.bytes(), unwritten.ends()), (put, 0), "nothing is written yet");
        unwritten.written(&mut batch);
        assert_eq!((unwritten.bytes(), batch.len()), (0, 0));
        assert!(batch.capacity() <= KEPT_BYTES);

        let mut rest = &came[..];
        for (number, body) in (1..).zip(&bodies) {
            let whole = HEAD_BYTES + body.len();
            assert!(Record::first_of(&rest[..whole - 1]).unwrap().is_none());
            let record = Record::first_of(rest).unwrap().unwrap();
            assert_eq!((record.number, record.body), (number, body.as_bytes()));
            rest = &rest[whole..];
        }
        assert!(rest.is_empty());
        assert!(Record::first_of(&(2_u32 << 24 | 65_537).to_be_bytes()).is_err());
    }

    #[test]
    fn what_has_not_left_can_be_taken_back() {
        let mut unwritten = Unwritten::default();
        let body = "secret".repeat(2_000);
        let places: Vec<Place> = (1..=5).map(|number| unwritten.put(ASK, number, body.as_bytes())).collect();
        let mut batch = Vec::new();
        unwritten.take(&mut batch);
        let left: Vec<bool> = places.iter().map(|place| !unwritten.take_back(*place)).collect();
        assert_eq!(left, [true, true, false, false, false]);
        batch.clear();
        while !unwritten.is_empty() {
            let mut next = Vec::new();
            unwritten.take(&mut next);
            batch.append(&mut next);
        }
        assert!(!batch.windows(6).any(|bytes| bytes == b"secret"));
        let mut rest = &batch[..];
        while let Some(record) = Record::first_of(rest).unwrap() {
            assert_eq!((record.kind, record.body.len()), (VOID, body.len()));
            rest = &rest[HEAD_BYTES + record.body.len()..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn what_is_dropped_is_not_taken_for_what_comes_after_it() {
        let mut unwritten = Unwritten::default();
        let mut batch = Vec::new();
        unwritten.put(ASK, 1, b"on its way");
        unwritten.take(&mut batch);
        let dropped = unwritten.put(ASK, 2, b"dropped");
        unwritten.put(NONE, 3, b"");
        unwritten.clear();
        assert!(unwritten.is_empty());
        assert_eq!((unwritten.bytes(), unwritten.ends()), (batch.len(), 0));
        unwritten.put(ASK, 4, b"another");
        assert!(!unwritten.take_back(dropped));
        unwritten.written(&mut batch);
        unwritten.take(&mut batch);
        let record = Record::first_of(&batch).unwrap().unwrap();
        assert_eq!((record.kind, record.number, record.body), (ASK, 4, &b"another"[..]));
    }
}
