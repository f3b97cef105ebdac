//! What goes wrong, and is mended.

use super::disk::Unsynced;
use super::{Ev, Sim};
use crate::node::Input;

impl Sim {
    /// What becomes of that which is not on disk.
    pub fn unsynced(&mut self) -> Unsynced {
        match self.rng.below(3) {
            0 => Unsynced::Dropped,
            1 => Unsynced::Kept,
            _ => Unsynced::Some(self.rng.number()),
        }
    }

    pub fn any_host(&mut self) -> usize {
        let hosts = self.hosts.len() as u64;
        usize::try_from(self.rng.below(hosts)).unwrap_or_default()
    }

    fn any_link(&mut self) -> Option<(usize, usize)> {
        let at = usize::try_from(self.rng.below(self.links.len() as u64)).unwrap_or_default();
        self.links.get(at).copied()
    }

    pub fn fault(&mut self) {
        if self.calm {
            return;
        }
        let next = self.rng.range(1, self.weather.fault_every_ms * 2);
        self.after(next, Ev::Fault);
        let sort = self.rng.below(9);
        if self.weather.sorts & (1 << sort) == 0 {
            return;
        }
        let host = self.any_host();
        let life = self.hosts[host].life;
        let name = match sort {
            0 => {
                let unsynced = self.unsynced();
                self.crash(host, unsynced);
                let down = self.rng.range(10, 8_000);
                self.after(down, Ev::Start { host });
                "crash"
            }
            1 => {
                // The power goes in the middle of what the disk will do soon.
                let calls = self.rng.range(1, 12);
                let mut state = self.hosts[host].disk.state();
                state.cut_at = Some(state.calls + calls);
                "power cut"
            }
            2 => {
                let Some((a, b)) = self.any_link() else { return };
                self.cut_link(a, b);
                let long = self.rng.chance(300);
                let heals = self.rng.range(100, if long { 90_000 } else { 5_000 });
                self.after(heals, Ev::Heal { host: Some(a) });
                "cut link"
            }
            3 => {
                // Some nodes are parted from the others.
                let side: Vec<bool> = self.hosts.iter().map(|_| self.rng.chance(500)).collect();
                for (a, b) in self.links.clone() {
                    if side[a] != side[b] {
                        self.cut_link(a, b);
                    }
                }
                let heals = self.rng.range(500, 20_000);
                self.after(heals, Ev::Heal { host: None });
                "partition"
            }
            4 => {
                let Some((a, b)) = self.any_link() else { return };
                let Some(wire) = self.wire_between(a, b) else { return };
                for side in 0..2 {
                    let delay = self.delay();
                    self.after(delay, Ev::Lost { wire, side, why: "lost" });
                }
                "connection lost"
            }
            5 => {
                let jump = i64::try_from(self.rng.below(60_000)).unwrap_or_default() - 30_000;
                let skew = &mut self.hosts[host].skew_ms;
                *skew = (*skew + jump).clamp(-60_000, 60_000);
                self.story(|| format!("the clock of node {host} jumps by {jump} ms"));
                "clock jump"
            }
            6 => {
                let stall = self.rng.range(50, 2_000);
                self.hosts[host].stalled_until = self.now + stall;
                "disk stalls"
            }
            7 => {
                let full = self.rng.chance(500);
                let calls = self.rng.range(1, 12);
                let one = self.rng.chance(300);
                let mut state = self.hosts[host].disk.state();
                if one {
                    state.fail_at = Some(state.calls + calls);
                } else if full {
                    state.room = Some(0);
                } else {
                    state.fail_syncs = true;
                }
                drop(state);
                let well = self.rng.range(100, 4_000);
                self.after(well, Ev::DiskWell { host });
                "disk fails"
            }
            _ => {
                if self.alive(host, life) && !self.hosts[host].stopping {
                    self.hosts[host].stopping = true;
                    self.feed(host, Input::Stop);
                }
                "stop"
            }
        };
        *self.report.faults.entry(name).or_default() += 1;
        self.story(|| format!("fault: {name}, node {host}"));
    }

    fn cut_link(&mut self, a: usize, b: usize) {
        self.story(|| format!("the link of {a} and {b} is cut"));
        if !self.cut.insert((a.min(b), a.max(b))) {
            return;
        }
        let wires: Vec<usize> = self.live_wires.iter().copied().collect();
        for wire in wires {
            let ends = &self.wires[wire].ends;
            if [ends[0].host, ends[1].host] == [a, b] || [ends[0].host, ends[1].host] == [b, a] {
                self.broken(wire);
            }
        }
    }

    /// All links of one node, or all, are whole again.
    pub fn heal(&mut self, host: Option<usize>) {
        self.story(|| format!("links are whole again: {host:?}"));
        self.cut.retain(|(a, b)| host.is_some_and(|host| *a != host && *b != host));
        for event in std::mem::take(&mut self.stalled) {
            let delay = self.delay();
            self.after(delay, event);
        }
        let wires: Vec<usize> = self.live_wires.iter().copied().collect();
        for wire in wires {
            if !self.linked(self.wires[wire].ends[0].host, self.wires[wire].ends[1].host) {
                continue;
            }
            for side in 0..2 {
                let [one, other] = [side, 1 - side].map(|side| self.wires[wire].ends[side].open);
                let whole = self.path_ok(wire);
                let end = &mut self.wires[wire].ends[side];
                let (host, conn) = (end.host, end.conn);
                if whole && std::mem::take(&mut end.silent) {
                    self.feed(host, Input::Alive { conn });
                } else if one && !other {
                    let delay = self.rng.range(1, 15_000);
                    self.after(delay, Ev::Lost { wire, side, why: "reset" });
                }
            }
        }
    }

    pub fn disk_well(&mut self, host: usize) {
        let mut state = self.hosts[host].disk.state();
        (state.room, state.fail_syncs, state.fail_at) = (None, false, None);
    }
}
