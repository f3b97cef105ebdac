//! Where choices come from: a seed, or bytes that a fuzzer or proptest has chosen.

use axon_proto::sim::Rng;

/// What choices are made with.
pub trait Dice {
    /// A number below this one; 0 for a bound of 0.
    fn below(&mut self, bound: usize) -> usize;

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times.saturating_sub(1)
    }
}

impl Dice for Rng {
    fn below(&mut self, bound: usize) -> usize {
        Rng::below(self, bound as u64) as usize
    }
}

/// Bytes, each choice one or two of them; after their end every choice is the first.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// One of these.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Whether there are none left.
    pub fn at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes, or as many as there are.
    pub fn take(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

impl Dice for Bytes<'_> {
    fn below(&mut self, bound: usize) -> usize {
        let number = match bound {
            0..=256 => usize::from(self.byte()),
            _ => usize::from(self.byte()) << 8 | usize::from(self.byte()),
        };
        number % bound.max(1)
    }
}
