//! What a process on this machine has cost, where the system tells it (Linux does, in `/proc`).

use std::fs;

use serde::Serialize;

/// A daemon whose process can be seen from here.
#[derive(Debug, Clone)]
pub struct Process {
    name: &'static str,
    pid: u32,
}

/// Processor time so far.
#[derive(Debug, Clone, Copy)]
pub struct Spent(u64);

/// What a run has cost one daemon.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Whose.
    pub name: &'static str,
    /// Its process.
    pub pid: u32,
    /// Processor time for each message that was done.
    pub cpu_us_per_message: Option<f64>,
    /// Memory that it holds after the run: `VmRSS`.
    pub rss_kib: Option<u64>,
    /// Deliveries a second to the subscriber of this one, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliveries_per_sec: Option<f64>,
    /// All that it took, for those that are summed up.
    #[serde(skip)]
    pub cpu_us: Option<f64>,
}

impl Process {
    /// The one with this id, where something is told of it.
    pub fn of(name: &'static str, pid: u32) -> Option<Self> {
        let process = Self { name, pid };
        (process.spent_ns().is_some() || process.rss_kib().is_some()).then_some(process)
    }

    /// What it has taken so far.
    pub fn usage(&self) -> Option<Spent> {
        self.spent_ns().map(Spent)
    }

    /// What it took since then, for so many messages.
    pub fn cost(&self, before: Option<Spent>, messages: u64) -> Cost {
        let spent = before.zip(self.spent_ns()).map(|(before, now)| now.saturating_sub(before.0));
        let cpu_us = spent.map(|ns| ns as f64 / 1_000.0);
        let cpu_us_per_message =
            cpu_us.filter(|_| messages > 0).map(|us| super::report::tenths(us / messages as f64));
        let (name, pid, rss_kib) = (self.name, self.pid, self.rss_kib());
        Cost { name, pid, cpu_us_per_message, rss_kib, deliveries_per_sec: None, cpu_us }
    }

    /// Processor time of all its threads. `stat` has it in hundredths of a second only.
    fn spent_ns(&self) -> Option<u64> {
        let mut sum = None;
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid)).ok()? {
            // A thread may end meanwhile.
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).unwrap_or_default();
            let ns: Option<u64> = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
            sum = ns.map(|ns| sum.unwrap_or(0) + ns).or(sum);
        }
        sum
    }

    fn rss_kib(&self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_cost_something() {
        let process = Process::of("this", std::process::id()).unwrap();
        let before = process.usage();
        assert!(process.rss_kib().unwrap() > 100);
        // Work that the system notices, however coarse it counts.
        while process.spent_ns() <= before.map(|before| before.0) {
            std::hint::black_box(vec![0; 100_000]);
        }
        let cost = process.cost(before, 1);
        assert!(cost.cpu_us_per_message.is_none_or(|us| us > 0.0), "{cost:?}");
        assert!(Process::of("none", u32::MAX).is_none());
    }
}
