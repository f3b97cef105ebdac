//! Things in the order in which they came, each found by its id.
//!
//! There can be 100,000 of them, so each is kept once, and a table finds it by its place in the queue. The
//! queue is made of blocks, and grows and shrinks without a copy. The blocks are large: small ones would lie
//! between what comes and goes with each message, and keep the allocator from giving that back. The table
//! holds only places, and does not grow because many come and go: the standard one does, to twice the room
//! that it needs.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher as _, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Things in one block.
const BLOCK: usize = 8_192;
/// A table of fewer places is left as it is.
const PLACES_MIN: usize = 64;
/// So many that were taken out of the middle may wait in the queue, and as many again as there are others.
const TAKEN_MAX: usize = 256;

/// A place in the queue: three bytes, which are enough for far more than ever are in one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place([u8; 3]);

/// What has an id.
pub trait Identified {
    /// What tells it from others.
    type Id: Copy + Eq + Hash;
    /// It.
    fn id(&self) -> Self::Id;
}

/// Things with an id, the oldest first.
pub struct Recent<T> {
    queue: Queue<T>,
    /// Where in the queue each is. What is not here has been taken out, and goes when its turn comes.
    places: HashTable<Place>,
    hasher: RandomState,
}

/// Things by place. Places count on from the oldest, and wrap around.
struct Queue<T> {
    /// All but the last were filled.
    blocks: VecDeque<VecDeque<T>>,
    /// The place of the oldest.
    first: Place,
    len: usize,
}

impl<T: Identified> Recent<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The one with this id.
    pub fn get(&self, id: T::Id) -> Option<&T> {
        let hash = self.hasher.hash_one(id);
        let place = self.places.find(hash, |place| self.queue.has(*place, id))?;
        self.queue.get(*place)
    }

    /// Adds one at the end; false if its id is there already.
    pub fn push(&mut self, one: T) -> bool {
        let id = one.id();
        if self.get(id).is_some() {
            return false;
        }
        self.make_room();
        let Self { queue, places, hasher } = self;
        let place = queue.push(one);
        places.insert_unique(hasher.hash_one(id), place, |place| queue.hash(*place, hasher));
        true
    }

    /// Takes the oldest out.
    pub fn pop(&mut self) -> Option<T> {
        self.pop_if(|_| true)
    }

    /// Takes the oldest out, if it is so.
    pub fn pop_if(&mut self, goes: impl Fn(&T) -> bool) -> Option<T> {
        loop {
            let place = self.queue.first;
            let id = self.queue.get(place).filter(|one| goes(one))?.id();
            let was_there = self.take_place(id, |at| at == place);
            let one = self.queue.pop();
            if was_there {
                return one;
            }
        }
    }

    /// Takes one out, wherever it is; whether it was there.
    pub fn remove(&mut self, id: T::Id) -> bool {
        let was_there = self.take_place(id, |_| true);
        if was_there && self.queue.len > 2 * self.len() + TAKEN_MAX {
            for one in self.take_all() {
                self.push(one);
            }
        }
        was_there
    }

    /// Takes all out, the oldest first.
    pub fn take_all(&mut self) -> Vec<T> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// Gives back what a smaller number does not need.
    pub fn shrink(&mut self) {
        let Self { queue, places, hasher } = self;
        if places.num_buckets() > PLACES_MIN.max(8 * places.len()) {
            places.shrink_to(2 * places.len(), |place| queue.hash(*place, hasher));
            queue.blocks.shrink_to(2 * queue.blocks.len());
        }
        if let [only] = queue.blocks.make_contiguous() {
            only.shrink_to(2 * only.len());
        }
    }

    fn take_place(&mut self, id: T::Id, is_it: impl Fn(Place) -> bool) -> bool {
        let Self { queue, places, hasher } = self;
        let found = places.find_entry(hasher.hash_one(id), |place| is_it(*place) && queue.has(*place, id));
        found.map(|place| place.remove()).is_ok()
    }

    /// A table that is full of marks of what was taken out would be made twice as large: it is made anew.
    fn make_room(&mut self) {
        let Self { queue, places, hasher } = self;
        let len = places.len();
        if len >= PLACES_MIN && len == places.capacity() && 16 * len < 13 * places.num_buckets() {
            let mut fresh = HashTable::with_capacity(len);
            for place in std::mem::take(places) {
                fresh.insert_unique(queue.hash(place, hasher), place, |place| queue.hash(*place, hasher));
            }
            *places = fresh;
        }
    }
}

impl Place {
    /// So many places behind this one.
    fn after(self, count: usize) -> Self {
        let [a, b, c, ..] = (self.number() + count).to_le_bytes();
        Self([a, b, c])
    }

    /// How many places this one is behind an earlier one.
    fn since(self, first: Self) -> usize {
        self.number().wrapping_sub(first.number()) & 0xff_ffff
    }

    fn number(self) -> usize {
        let [a, b, c] = self.0;
        usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16
    }
}

impl<T: Identified> Queue<T> {
    fn get(&self, place: Place) -> Option<&T> {
        let at = place.since(self.first);
        let first = self.blocks.front()?;
        // Only of the first block some have gone.
        match at.checked_sub(first.len()) {
            None => first.get(at),
            Some(at) => self.blocks.get(1 + at / BLOCK)?.get(at % BLOCK),
        }
    }

    fn has(&self, place: Place, id: T::Id) -> bool {
        self.get(place).is_some_and(|one| one.id() == id)
    }

    fn hash(&self, place: Place, hasher: &RandomState) -> u64 {
        // Every place in the table is one of the queue.
        self.get(place).map_or(0, |one| hasher.hash_one(one.id()))
    }

    /// Adds one at the end; its place.
    fn push(&mut self, one: T) -> Place {
        let place = self.first.after(self.len);
        self.len += 1;
        match self.blocks.back_mut() {
            Some(last) if last.len() < BLOCK => last.push_back(one),
            last => {
                // Whoever has filled one block fills the next.
                let mut block = VecDeque::with_capacity(if last.is_some() { BLOCK } else { 1 });
                block.push_back(one);
                self.blocks.push_back(block);
            }
        }
        place
    }

    fn pop(&mut self) -> Option<T> {
        let one = self.blocks.front_mut()?.pop_front()?;
        self.first = self.first.after(1);
        self.len -= 1;
        if self.len > 0 && self.blocks.front().is_some_and(VecDeque::is_empty) {
            self.blocks.pop_front();
        }
        Some(one)
    }
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        let queue = Queue { blocks: VecDeque::new(), first: Place([0; 3]), len: 0 };
        Self { queue, places: HashTable::new(), hasher: RandomState::default() }
    }
}

impl<T> fmt::Debug for Recent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").field("len", &self.places.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MsgId;

    /// As many ids as wanted, all different.
    fn id(n: u32) -> MsgId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        MsgId(bytes)
    }

    impl Identified for (MsgId, u32) {
        type Id = MsgId;
        fn id(&self) -> MsgId {
            self.0
        }
    }

    #[test]
    fn what_comes_and_goes_is_found_and_goes_in_its_order() {
        let mut recent = Recent::default();
        // Places wrap around on the way.
        recent.queue.first = Place([0, 0xf8, 0xff]);
        for n in 0..3_000 {
            assert!(recent.push((id(n), n)));
            assert!(!recent.push((id(n), 0)), "{n} is there already");
        }
        for n in (0..3_000).step_by(3) {
            assert!(recent.remove(id(n)) && !recent.remove(id(n)));
        }
        assert_eq!(recent.len(), 2_000);
        for n in 0..3_000 {
            assert_eq!(recent.get(id(n)).map(|one| one.1), (n % 3 != 0).then_some(n));
        }
        // One that was taken out can come again, behind all others.
        assert!(recent.push((id(0), 7)));
        assert!(recent.pop_if(|one| one.1 > 1).is_none());
        let left: Vec<u32> = std::iter::from_fn(|| recent.pop()).map(|one| one.1).collect();
        let expected: Vec<u32> = (0..3_000).filter(|n| n % 3 != 0).chain([7]).collect();
        assert_eq!(left, expected);
        assert!(recent.is_empty() && recent.get(id(1)).is_none());
    }

    #[test]
    fn many_that_pass_through_or_are_taken_out_leave_it_as_small_as_it_was() {
        let mut recent = Recent::default();
        (0..1_400).for_each(|n| assert!(recent.push((id(n), n))));
        let buckets = recent.places.num_buckets();
        for n in 1_400..200_000 {
            assert!(recent.push((id(n), n)));
            assert_eq!(recent.pop().map(|one| one.1), Some(n - 1_400));
        }
        assert_eq!((recent.len(), recent.places.num_buckets()), (1_400, buckets));
        for n in 200_000..300_000 {
            assert!(recent.push((id(n), n)) && recent.remove(id(n)));
        }
        assert!(recent.queue.len <= 2 * recent.len() + TAKEN_MAX);
        while recent.len() > 10 {
            assert!(recent.pop().is_some());
        }
        recent.shrink();
        assert!(recent.places.num_buckets() <= 64);
        assert_eq!(recent.pop().map(|one| one.1), Some(199_990));
    }
}
