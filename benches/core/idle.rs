//! What a daemon does when nobody wants anything of it.

use std::time::{Duration, Instant};

use super::floor::args::Args;
use super::floor::figures::{tell, tell_head};
use super::floor::procs::{tells_cpu, used_ns};
use super::memory::with_mdns;
use super::stage::Node;

pub fn run(args: &Args) {
    if !tells_cpu() {
        tell_head(args, "idle, one peer connected");
        return tell(args, "CPU and wake-ups", None, "not told by this system");
    }
    let plain = Node::pair("", "");
    let mut found = Node::pair("", "");
    with_mdns(&mut found.0, &mut found.1);
    let nodes = [
        ("mDNS off", &plain.0),
        ("mDNS off, the other daemon", &plain.1),
        ("mDNS on", &found.0),
        ("mDNS on, the other daemon", &found.1),
    ];
    let (settling, watching) = if args.short { (1, 5) } else { (15, 60) };
    std::thread::sleep(Duration::from_secs(settling));
    let seen = || nodes.map(|(_, node)| (used_ns(&[node.pid()]), node.waits()));
    let (before, began) = (seen(), Instant::now());
    std::thread::sleep(Duration::from_secs(watching));
    let (after, took) = (seen(), began.elapsed().as_secs_f64());
    tell_head(args, &format!("idle, one peer connected, over {watching} s"));
    for (((name, _), before), after) in nodes.iter().zip(before).zip(after) {
        let part = (after.0 - before.0) as f64 / 1e9 / took * 100.0;
        tell(args, &format!("CPU, % of a core, {name} (aim: under 0.02)"), None, format!("{part:.4}"));
        let waits = (after.1 - before.1) as f64 / took;
        tell(args, &format!("wake-ups a second, {name} (aim: under 2)"), None, format!("{waits:.2}"));
    }
}
