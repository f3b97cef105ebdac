//! A pinned peer that is served while others mean harm: how long each answer took, and what the daemon holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::RawPeer;
use crate::support::Daemon;

/// A pinned peer that asks and asks, an agent that answers, and somebody who looks at the daemon's memory.
pub struct Served {
    done: Arc<AtomicBool>,
    took: Arc<Mutex<Vec<Duration>>>,
    pub peak_kib: Arc<Mutex<i64>>,
    threads: Vec<JoinHandle<()>>,
}

impl Served {
    pub fn begin(peer: &RawPeer, daemon: &Daemon) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let took = Arc::new(Mutex::new(Vec::new()));
        let peak_kib = Arc::new(Mutex::new(0));
        let mut agent = daemon.answerer(json!({"answer":["query"],"kinds":["result"]}));
        let answering = std::thread::spawn(move || {
            loop {
                let request = agent.request();
                agent.respond(&request, "served");
                if request["payload"]["question"] == "the last one" {
                    return;
                }
            }
        });
        let link = peer.dial(daemon).greeted();
        let (ends, times) = (Arc::clone(&done), Arc::clone(&took));
        let asking = std::thread::spawn(move || {
            loop {
                let last = ends.load(Ordering::Relaxed);
                let question = if last { "the last one" } else { "still there?" };
                let query = link.envelope("query", json!({"question":question}));
                let asked = Instant::now();
                let answer = link.ask(&query).expect("the pinned peer is served");
                assert_eq!(answer["payload"]["summary"], "served", "{answer}");
                times.lock().unwrap().push(asked.elapsed());
                if last {
                    return;
                }
                // As often as a busy agent asks, and no more: it is not to be the load itself.
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let (ends, peak, pid) = (Arc::clone(&done), Arc::clone(&peak_kib), daemon.pid());
        let looking = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let now = rss_kib(pid);
                let mut peak = peak.lock().unwrap();
                *peak = now.max(*peak);
                drop(peak);
                // A peak is looked for, not waited for.
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { done, took, peak_kib, threads: vec![asking, answering, looking] }
    }

    /// Queries since the last time: how many, the median, the longest.
    pub fn since(&self) -> (usize, Duration, Duration) {
        let mut took = std::mem::take(&mut *self.took.lock().unwrap());
        took.sort_unstable();
        let longest = took.last().copied().expect("the pinned peer was served");
        (took.len(), took[took.len() / 2], longest)
    }

    pub fn end(mut self) {
        self.done.store(true, Ordering::Relaxed);
        self.threads
            .drain(..)
            .for_each(|thread| thread.join().expect("the pinned peer is served to the end"));
    }
}

/// Resident memory of a process.
pub fn rss_kib(pid: u32) -> i64 {
    let kib = |text: &str| text.trim().trim_end_matches(" kB").trim().parse().unwrap();
    if let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) {
        return kib(status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap());
    }
    let ps = std::process::Command::new("ps").args(["-o", "rss=", "-p", &pid.to_string()]).output().unwrap();
    kib(&String::from_utf8_lossy(&ps.stdout))
}
