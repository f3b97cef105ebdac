//! How sure one may be that a peer has gone: phi, by the times between its signs of life.
//!
//! Source: N. Hayashibara, X. Défago, R. Yared, T. Katayama, "The φ accrual failure detector", SRDS 2004. The
//! intervals are taken as normally distributed; the tail is the logistic approximation that is usual for
//! it (error below 1.4·10⁻⁴). Pure: it sees times and nothing else. The functions are libm's in Rust: the
//! system's would map half a megabyte for two of them (`spec/decisions/0002-libraries.md`).

use std::collections::VecDeque;

use crate::limits::PRESENCE_INTERVALS_MAX;

/// No sign for so long, as unlikely as this, counts as gone: one mistake in 10⁸.
pub const PHI_GONE: f64 = 8.0;
/// What phi is at most; beyond it numbers say nothing more.
const PHI_MAX: f64 = 100.0;
/// An interval counts as this at most, so that one long sleep of the machine does not blind the detector.
const INTERVAL_MS_MAX: u64 = 3_600_000;

/// Signs of life of one peer.
#[derive(Debug, Clone)]
pub struct Detector {
    /// The longest time between two signs that means nothing: an idle connection is kept awake this often.
    pace_ms: u32,
    /// The newest intervals, oldest first.
    intervals: VecDeque<u32>,
    sum: u64,
    squares: u64,
}

impl Detector {
    /// One for a connection that is kept awake this often.
    pub fn new(pace_ms: u64) -> Self {
        let pace_ms = bounded(pace_ms).max(1);
        Self { pace_ms, intervals: VecDeque::new(), sum: 0, squares: 0 }
    }

    /// A sign came so long after the one before.
    pub fn heard_after(&mut self, interval_ms: u64) {
        if self.intervals.len() >= PRESENCE_INTERVALS_MAX
            && let Some(oldest) = self.intervals.pop_front()
        {
            self.sum -= u64::from(oldest);
            self.squares -= u64::from(oldest).pow(2);
        }
        let interval = bounded(interval_ms);
        self.intervals.push_back(interval);
        self.sum += u64::from(interval);
        self.squares += u64::from(interval).pow(2);
    }

    /// How unlikely it is that a living peer is silent for so long, as the negative power of ten.
    pub fn phi(&self, silent_ms: u64) -> f64 {
        let (mean, deviation) = self.expected();
        let y = (f64::from(bounded(silent_ms)) - mean) / deviation;
        let e = libm::exp(-y * (0.070_566 * y * y + 1.597_6));
        let later = if y > 0.0 { e / (1.0 + e) } else { 1.0 - 1.0 / (1.0 + e) };
        (-libm::log10(later)).clamp(0.0, PHI_MAX)
    }

    /// Mean and deviation of what may be expected. A burst of messages says nothing of how often an idle
    /// connection is heard of, so neither is less than the pace asks for.
    fn expected(&self) -> (f64, f64) {
        let pace = f64::from(self.pace_ms);
        let count = u32::try_from(self.intervals.len()).map_or(1.0, f64::from);
        if self.intervals.is_empty() {
            return (pace, pace / 4.0);
        }
        let mean = float(self.sum) / count;
        let variance = (float(self.squares) / count - mean * mean).max(0.0);
        (mean.max(pace), variance.sqrt().max(pace / 4.0))
    }
}

fn bounded(ms: u64) -> u32 {
    u32::try_from(ms.min(INTERVAL_MS_MAX)).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "64 squares of an hour in milliseconds are below 2^50")]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beating(every_ms: u64, times: usize) -> Detector {
        let mut detector = Detector::new(15_000);
        (0..times).for_each(|_| detector.heard_after(every_ms));
        detector
    }

    #[test]
    fn it_grows_with_the_silence_and_is_a_power_of_ten() {
        let detector = beating(15_000, 64);
        // At the mean it is as likely as not.
        assert!((detector.phi(15_000) - 0.5_f64.log10().abs()).abs() < 0.01);
        // Two and three deviations above: 2.28% and 0.135% of a normal distribution.
        assert!((detector.phi(22_500) - 1.64).abs() < 0.05, "{}", detector.phi(22_500));
        assert!((detector.phi(26_250) - 2.87).abs() < 0.05, "{}", detector.phi(26_250));
        let mut last = 0.0;
        for ms in (0..120_000).step_by(500) {
            let phi = detector.phi(ms);
            assert!(phi >= last && phi <= 100.0, "{ms}: {phi} after {last}");
            last = phi;
        }
    }

    #[test]
    fn an_idle_connection_is_never_gone_within_its_pace_and_gone_before_its_end() {
        for times in [0, 1, 64, 1_000] {
            for every in [1, 5_000, 15_000] {
                let detector = beating(every, times);
                // Its signs are looked for every five seconds, so one may be seen that much later.
                assert!(detector.phi(20_000) < 2.0, "{times} of {every}: {}", detector.phi(20_000));
                assert!(detector.phi(40_000) > PHI_GONE, "{times} of {every}: {}", detector.phi(40_000));
            }
        }
    }

    #[test]
    fn it_learns_a_slower_beat_and_forgets_the_older_one() {
        let mut detector = beating(15_000, 64);
        assert!(detector.phi(60_000) > PHI_GONE);
        (0..64).for_each(|_| detector.heard_after(60_000));
        assert!(detector.phi(60_000) < 1.0);
        assert_eq!(detector.intervals.len(), PRESENCE_INTERVALS_MAX);
        (0..64).for_each(|_| detector.heard_after(15_000));
        assert!(detector.phi(60_000) > PHI_GONE, "nothing is left of what was before");
        assert_eq!(detector.sum, 64 * 15_000);
        detector.heard_after(u64::MAX);
        assert!(detector.phi(u64::MAX).is_finite() && detector.phi(0) >= 0.0);
    }
}
