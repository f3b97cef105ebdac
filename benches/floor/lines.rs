//! Whole lines out of a stream, many at a time.

use std::io::{self, BufRead as _, Read};

/// Bytes that are read at once.
pub const CHUNK: usize = 256 * 1024;

/// Lines that have come, one buffer for all.
pub struct Lines {
    buffer: Vec<u8>,
    /// What has been read and not yet been given out.
    from: usize,
    to: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self { buffer: vec![0; CHUNK], from: 0, to: 0 }
    }
}

impl Lines {
    /// The next whole line, with its line feed, of what is there.
    pub fn next(&mut self) -> Option<&[u8]> {
        let mut rest = &self.buffer[self.from..self.to];
        // The search of the standard library is many bytes at a time, and this is its way in.
        let line = self.from..self.from + rest.skip_until(b'\n').ok()?;
        if line.is_empty() || self.buffer[line.end - 1] != b'\n' {
            return None;
        }
        self.from = line.end;
        Some(&self.buffer[line])
    }

    /// What is there beside lines: `count` bytes, once there are so many.
    pub fn take(&mut self, count: usize) -> Option<&[u8]> {
        let bytes = self.from..self.from + count;
        (bytes.end <= self.to).then(|| {
            self.from = bytes.end;
            &self.buffer[bytes]
        })
    }

    /// Where the next bytes belong.
    pub fn room(&mut self) -> &mut [u8] {
        if self.from > 0 {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        if self.to == self.buffer.len() {
            // A line as long as the buffer: an `inbox` reply, at the most 1 MiB.
            assert!(self.to < 4 * 1024 * 1024, "a line without an end");
            self.buffer.resize(self.to * 2, 0);
        }
        &mut self.buffer[self.to..]
    }

    pub fn filled(&mut self, count: usize) {
        self.to += count;
    }

    /// Reads once; false at the end.
    pub fn read(&mut self, from: &mut impl Read) -> io::Result<bool> {
        let count = from.read(self.room())?;
        self.filled(count);
        Ok(count > 0)
    }
}
