//! How long it takes to be there.

use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::floor::args::Args;
use super::floor::figures::{tell, tell_head};
use super::floor::place::Regime;
use super::stage::{Node, parts};

pub fn run(args: &Args, regime: Regime) {
    tell_head(args, "start, p50 / p90 / p99");
    let ms = Duration::from_millis(1);
    let mut times = Vec::new();
    for _ in 0..if args.short { 3 } else { 20 } {
        let mut node = Node::start("");
        node.ended();
        let began = Instant::now();
        node.launched();
        while UnixStream::connect(node.socket()).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "it does not listen:\n{}", node.log());
            std::thread::sleep(Duration::from_micros(200));
        }
        times.push(began.elapsed());
    }
    let name = "`daemon` to a listening socket, warm (aim: under 30)";
    tell(args, name, Some(regime), parts(times, ms, "ms"));
    let node = Node::start("");
    let mut times = Vec::new();
    for _ in 0..if args.short { 10 } else { 200 } {
        let began = Instant::now();
        let status = node.command(&["status"]).stdin(Stdio::null()).stdout(Stdio::null()).status();
        times.push(began.elapsed());
        assert!(status.expect("the program starts").success(), "`status` succeeds");
    }
    let name = "`axon status`, its whole run (aim: under 5)";
    tell(args, name, Some(regime), parts(times, ms, "ms"));
}
