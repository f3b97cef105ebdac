//! All that is drawn at random in a run, from one seed. A run has a thread of its own while it lasts.

use std::cell::RefCell;

/// SplitMix64.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// From this to that, both included.
    pub(super) fn within(&mut self, (low, high): (u64, u64)) -> u64 {
        low + self.below(high - low + 1)
    }

    /// So often in a thousand.
    pub(super) fn happens(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let drawn = self.next().to_le_bytes();
            part.copy_from_slice(&drawn[..part.len()]);
        }
    }
}

thread_local! {
    static DICE: RefCell<Dice> = const { RefCell::new(Dice(0)) };
}

/// Everything after this hangs on the seed.
pub(super) fn seed(seed: u64) {
    DICE.set(Dice::new(seed));
}

pub(super) fn fill(bytes: &mut [u8]) {
    DICE.with_borrow_mut(|dice| dice.fill(bytes));
}

pub(super) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

pub(super) fn within(range: (u64, u64)) -> u64 {
    DICE.with_borrow_mut(|dice| dice.within(range))
}
