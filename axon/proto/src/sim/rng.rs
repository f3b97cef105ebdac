//! Numbers that a run depends on, from one seed.

use crate::node::Entropy;

/// A small, fast generator (splitmix64).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below this one.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }

    /// A number from `from` to `to`, both included.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True so many times out of a thousand.
    pub fn chance(&mut self, of_1000: u64) -> bool {
        self.below(1_000) < of_1000
    }
}

impl Entropy for Rng {
    fn fill(&mut self, bytes: &mut [u8; 16]) {
        let number = (u128::from(self.number()) << 64) | u128::from(self.number());
        *bytes = number.to_be_bytes();
    }
}

/// A running hash of all that happens (FNV-1a, by words of eight bytes).
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace(pub u64);

impl Trace {
    pub fn number(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for part in bytes.chunks(8) {
            self.number(part.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)));
        }
    }
}
