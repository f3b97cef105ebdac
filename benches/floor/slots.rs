//! A cheap client: lines that are made beforehand, one for each message in flight; what a read brings is
//! answered by one write.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::figures::{Figures, Seen};
use super::lines::Lines;
use super::procs::{used_here_ns, used_ns};

/// How long a reply may take before the benchmark says so and ends.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Digits that name a slot, in a line and in what comes back.
pub const DIGITS: usize = 8;

/// One connection, and the lines that it sends.
pub struct Slots {
    stream: UnixStream,
    lines: Lines,
    /// The line of each slot.
    sends: Vec<Vec<u8>>,
    /// The slot of a line that came; none where it is of no slot.
    slot: fn(&[u8]) -> Option<usize>,
    /// How a good reply looks, told by one: the others are as long and are not looked at so closely.
    good: fn(&[u8]) -> bool,
    length: usize,
}

impl Slots {
    pub fn new(
        stream: UnixStream,
        sends: Vec<Vec<u8>>,
        slot: fn(&[u8]) -> Option<usize>,
        good: fn(&[u8]) -> bool,
    ) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        Self { stream, lines: Lines::default(), sends, slot, good, length: 0 }
    }

    /// A client of a server that gives back what it gets.
    pub fn echoed(socket: &Path, size: usize) -> Self {
        let stream = UnixStream::connect(socket).expect("the server listens");
        Self::new(stream, (0..1_024).map(|slot| line(slot, size)).collect(), slot_first, |_| true)
    }

    /// Keeps so many in flight for so long, and lets them all come back. `pids` are the others who take part.
    pub fn measure(&mut self, in_flight: usize, time: Duration, pids: &[u32]) -> Figures {
        self.run(in_flight, time, pids).end(used_here_ns() + used_ns(pids))
    }

    /// The same without figures.
    pub fn warm(&mut self, in_flight: usize, time: Duration) {
        self.run(in_flight, time, &[]);
    }

    fn run(&mut self, in_flight: usize, time: Duration, pids: &[u32]) -> Seen {
        let mut seen = Seen::begin(used_here_ns() + used_ns(pids));
        let mut since = vec![Instant::now(); in_flight];
        let mut out: Vec<u8> = self.sends[..in_flight].concat();
        let mut open = in_flight;
        loop {
            self.stream.write_all(&out).expect("the other side reads");
            out.clear();
            if open == 0 {
                return seen;
            }
            let more = self.lines.read(&mut self.stream);
            assert!(more.expect("a reply comes in time"), "the other side closed the connection");
            let now = Instant::now();
            let go_on = seen.elapsed() < time;
            while let Some(line) = self.lines.next() {
                let Some(slot) = (self.slot)(line) else { continue };
                if line.len() != self.length {
                    assert!((self.good)(line), "a bad reply: {}", String::from_utf8_lossy(line));
                    self.length = line.len();
                }
                seen.add(now - since[slot]);
                if go_on {
                    since[slot] = now;
                    out.extend_from_slice(&self.sends[slot]);
                } else {
                    open -= 1;
                }
            }
        }
    }
}

/// A line of this size that begins with its slot.
pub fn line(slot: usize, size: usize) -> Vec<u8> {
    let mut line = format!("{slot:0DIGITS$}").into_bytes();
    line.resize(size - 1, b'x');
    line.push(b'\n');
    line
}

fn slot_first(line: &[u8]) -> Option<usize> {
    digits(line)
}

/// The number that begins here.
pub fn digits(text: &[u8]) -> Option<usize> {
    text.get(..DIGITS)?
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + usize::from(digit - b'0')))
}
