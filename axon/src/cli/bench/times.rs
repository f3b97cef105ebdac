//! Times of messages, counted in classes that are less than a hundredth apart, so that no number of messages
//! takes more memory than another.

use std::time::Duration;

/// Classes between a power of two and the next.
const STEPS_LOG2: u32 = 7;
const STEPS: usize = 1 << STEPS_LOG2;
/// One class for each nanosecond below `STEPS`, and `STEPS` for each power of two from there to 2⁶⁴.
const CLASSES: usize = STEPS * (64 - STEPS_LOG2 as usize + 1);

/// How often which time was taken.
#[derive(Debug)]
pub struct Times {
    classes: Vec<u64>,
    count: u64,
    max_ns: u64,
}

impl Times {
    /// None yet.
    pub fn new() -> Self {
        Self { classes: vec![0; CLASSES], count: 0, max_ns: 0 }
    }

    /// One more.
    pub fn add(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(class) = self.classes.get_mut(class_of(ns)) {
            *class += 1;
            self.count += 1;
            self.max_ns = self.max_ns.max(ns);
        }
    }

    /// The time that this part of all, in a thousand, did not pass, in microseconds; none of none.
    pub fn part_us(&self, in_thousand: u64) -> Option<f64> {
        let rank = (self.count * in_thousand).div_ceil(1_000).max(1);
        let mut below = 0;
        let class = self.classes.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(micros(end_of(class).min(self.max_ns)))
    }

    /// The longest, in microseconds.
    pub fn max_us(&self) -> Option<f64> {
        (self.count > 0).then(|| micros(self.max_ns))
    }
}

fn micros(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64() * 1_000_000.0
}

fn class_of(ns: u64) -> usize {
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(STEPS_LOG2 + 1);
    let step = usize::try_from(ns >> shift).unwrap_or(usize::MAX);
    shift as usize * STEPS + step
}

/// The longest time of a class.
fn end_of(class: usize) -> u64 {
    let shift = (class / STEPS).saturating_sub(1);
    let step = class - shift * STEPS;
    let next = u128::try_from(step + 1).unwrap_or(u128::MAX) << shift;
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_its_class_and_near_its_end() {
        let mut last = None;
        for bits in 0..64 {
            for ns in [1_u64 << bits, (1_u64 << bits) | (1 << (bits / 2)), (u64::MAX >> (63 - bits))] {
                let class = class_of(ns);
                assert!(class < CLASSES, "{ns}");
                let end = end_of(class);
                assert!(end >= ns && (end - ns) <= ns / 100, "{ns} {end}");
                assert_eq!(class_of(end), class, "{ns}");
            }
            assert!(last < Some(class_of(1 << bits)));
            last = Some(class_of(1 << bits));
        }
        assert_eq!((class_of(0), end_of(0)), (0, 0));
        assert_eq!(class_of(u64::MAX), CLASSES - 1);
    }

    #[test]
    fn parts_are_of_those_that_were_counted() {
        let mut times = Times::new();
        assert_eq!((times.part_us(500), times.max_us()), (None, None));
        for micros in (1..=1_000).rev() {
            times.add(Duration::from_micros(micros));
        }
        for (part, us) in [(500, 500.0), (900, 900.0), (990, 990.0)] {
            let told = times.part_us(part).unwrap();
            assert!((us..=us * 1.01).contains(&told), "{part}: {told}");
        }
        assert_eq!((times.part_us(1_000), times.max_us()), (Some(1_000.0), Some(1_000.0)));
    }
}
