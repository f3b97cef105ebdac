//! What a daemon holds: idle, after a load, and for each connection.

use std::time::Duration;

use super::floor::args::Args;
use super::floor::figures::{tell, tell_head};
use super::floor::slots::Slots;
use super::peer::{Link, RawPeer};
use super::stage::{Node, ROOM, answered, kept, notes, queries};

/// Connections of the last row.
const CONNECTIONS: usize = 128;

pub fn run(args: &Args) {
    tell_head(args, "memory: VmRSS (PSS) in kB");
    let held = |name: &str, node: &Node| {
        let pss = node.pss().map_or_else(|| "not told".to_owned(), |kb| kb.to_string());
        tell(args, name, None, format!("{} ({pss})", rss(node)));
    };
    let alone = Node::start("");
    held("alone, idle", &alone);
    drop(alone);
    let (mut alice, mut bob) = Node::pair(ROOM, ROOM);
    held("one peer connected, idle, mDNS off", &alice);
    with_mdns(&mut alice, &mut bob);
    // The first advert, and what follows it.
    std::thread::sleep(Duration::from_secs(2));
    held("one peer connected, idle, mDNS on (aim: under 5,000)", &alice);
    held("the same, the other daemon", &bob);
    let count = if args.short { 2_000 } else { 100_000 };
    for (from, to, name) in [(&alice, &bob, "bob"), (&bob, &alice, "alice")] {
        let mut agent = to.agent(args.size);
        let mut slots = from.slots(queries(name, args.size, 64), answered);
        send(&mut slots, count);
        agent.still_plays();
    }
    held(&format!("after {count} queries each way (aim: under 8,000)"), &alice);
    held("the same, the other daemon", &bob);
    for (from, to, name) in [(&alice, &bob, "bob"), (&bob, &alice, "alice")] {
        let mut reader = to.reader();
        let mut slots = from.slots(notes(name, args.size, 64), kept);
        send(&mut slots, count);
        reader.still_plays();
    }
    held(&format!("after {count} kept and read notifications more each way (aim: under 8,000)"), &alice);
    held("the same, the other daemon", &bob);
    drop((alice, bob));
    connections(args);
}

fn rss(node: &Node) -> u64 {
    node.status("VmRSS").expect("this system tells what a process holds")
}

/// Sends at least so many, 64 in flight.
fn send(slots: &mut Slots, count: usize) {
    let mut sent = 0.0;
    while sent < count as f64 {
        sent += slots.measure(64, Duration::from_millis(100), &[]).count;
    }
}

/// Starts both again with mDNS.
pub fn with_mdns(alice: &mut Node, bob: &mut Node) {
    for node in [&mut *alice, &mut *bob] {
        let path = node.root().join("config.toml");
        let config = std::fs::read_to_string(&path).expect("a daemon has its settings");
        assert!(config.contains("mdns = false"), "the settings say that mDNS is off: {config}");
        std::fs::write(&path, config.replace("mdns = false", "mdns = true")).expect("a root can be written");
        node.ended();
        node.launched();
        node.wait_up();
    }
    alice.wait_peer(bob, true);
    bob.wait_peer(alice, true);
}

fn connections(args: &Args) {
    let peers: Vec<RawPeer> = (0..CONNECTIONS).map(|_| RawPeer::new()).collect();
    let node = Node::start("");
    node.befriend(&peers);
    let idle = |links: &mut Vec<Link>, peers: &[RawPeer]| {
        links.extend(peers.iter().map(|peer| peer.dial(&node).greeted()));
        // Handshakes end, and what they needed goes.
        std::thread::sleep(Duration::from_secs(if args.short { 1 } else { 5 }));
        rss(&node)
    };
    let mut links = Vec::new();
    let one = idle(&mut links, &peers[..1]);
    let all = idle(&mut links, &peers[1..]);
    assert!(links.iter().all(Link::is_open), "all connections are still there");
    tell(args, "1 connection, of 128 peers known", None, one);
    tell(args, "128 connections, idle (aim: under 10,000)", None, all);
    let each = all.saturating_sub(one) as f64 / (CONNECTIONS - 1) as f64;
    tell(args, "each connection (aim: under 36)", None, format!("{each:.1}"));
}
