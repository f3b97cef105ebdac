//! On which cores all runs.

use std::fmt;

/// Figures of one regime say nothing about the other: never compare across them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// The system places the processes: waking an idle core rules the latency.
    Spread,
    /// All processes share one core: the work itself rules.
    Pinned,
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Spread => "spread",
            Self::Pinned => "pinned",
        })
    }
}

pub use here::Cores;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod here {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::Regime;

    /// The cores that this process began with.
    pub struct Cores(CpuSet);

    impl Cores {
        pub fn now() -> Self {
            Self(sched_getaffinity(None).expect("the system says on which cores this process may run"))
        }

        /// Places this thread, and whatever it starts from now on.
        pub fn place(&self, regime: Regime) {
            let mut set = self.0;
            if regime == Regime::Pinned {
                // The last one: interrupts are more often served by the first.
                let last = (0..CpuSet::MAX_CPU).rev().find(|core| self.0.is_set(*core));
                set = CpuSet::new();
                set.set(last.expect("a process may run on some core"));
            }
            sched_setaffinity(None, &set).expect("the system lets a process choose among its own cores");
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod here {
    use super::Regime;

    /// Here a process cannot choose its cores.
    pub struct Cores;

    impl Cores {
        pub fn now() -> Self {
            Self
        }

        pub fn place(&self, regime: Regime) {
            assert!(regime == Regime::Spread, "this system pins no process: measure with --regime spread");
        }
    }
}
