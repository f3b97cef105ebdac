//! What a query costs, however many peers, clients and kept messages there are: beside one pair that has next
//! to none of them, in turns.

use std::time::Duration;

use super::floor::args::Args;
use super::floor::figures::{self, Row};
use super::floor::place::Regime;
use super::floor::slots::Slots;
use super::peer::{Link, RawPeer};
use super::stage::{ROOM, WINDOW, Way, kept, notes};
use super::support::RawClient;

struct Case {
    name: String,
    way: Way,
    rows: [Row; 2],
    /// Who is there besides.
    _peers: Vec<(RawPeer, Link)>,
    _clients: Vec<RawClient>,
}

pub fn run(args: &Args, regime: Regime) {
    let rows = if args.short { 10_000 } else { 1_000_000 };
    let mut cases = vec![
        with_peers(args, 1),
        with_peers(args, 10),
        with_peers(args, 100),
        with_clients(args),
        with_rows(args, rows),
    ];
    for _ in 0..args.rounds {
        for Case { way, rows, .. } in &mut cases {
            for (in_flight, row) in [1, 64].into_iter().zip(rows) {
                row.0.push(way.measure(in_flight, args));
            }
        }
    }
    figures::head(args);
    for Case { name, rows, .. } in &cases {
        for (in_flight, row) in [1, 64].into_iter().zip(rows) {
            figures::show(args, &format!("axon ask, {name}"), regime, in_flight, row);
        }
    }
    figures::tell_head(args, "over 1 peer, 1 client and 0 kept messages (aim: 1), median (least to most)");
    let base = &cases[0].rows;
    for Case { name, rows, .. } in &cases[1..] {
        let tell = |what: &str, value| figures::tell(args, &format!("{name}: {what}"), Some(regime), value);
        tell("p50, 1 in flight", rows[0].over(&base[0], |f| f.p50));
        tell("CPU of both daemons a query, 64 in flight", rows[1].over(&base[1], |f| f.between));
    }
}

/// Both daemons with so many peers connected, one of them the other.
fn with_peers(args: &Args, count: usize) -> Case {
    let way = Way::asked(args, "", "");
    let mut links = Vec::new();
    for node in [&way.alice, &way.bob] {
        let peers: Vec<RawPeer> = (1..count).map(|_| RawPeer::new()).collect();
        if !peers.is_empty() {
            node.befriend(&peers);
        }
        for peer in peers {
            let link = peer.dial(node).greeted();
            links.push((peer, link));
        }
        let connected = node.client().cmd(serde_json::json!({"cmd":"status"}))["peers_connected"].clone();
        assert_eq!(connected, count, "all peers are connected");
    }
    let name = if count == 1 { "1 peer, 1 client, 0 kept".to_owned() } else { format!("{count} peers") };
    Case { name, way, rows: Default::default(), _peers: links, _clients: vec![] }
}

/// Both daemons with 64 clients attached: those that ask and answer, and listeners.
fn with_clients(args: &Args) -> Case {
    let way = Way::asked(args, "", "");
    let mut clients = Vec::new();
    for node in [&way.alice, &way.bob] {
        for at in 1..64 {
            let mut client = node.connect();
            client.hello_as(&format!("listener-{at}"));
            client.subscribe(serde_json::json!({"kinds":["notify"]}));
            clients.push(client);
        }
    }
    let name = "64 clients".to_owned();
    Case { name, way, rows: Default::default(), _peers: vec![], _clients: clients }
}

/// The answering daemon with so many unread messages on its disk.
fn with_rows(args: &Args, rows: usize) -> Case {
    let way = Way::asked(args, "", ROOM);
    let mut slots: Slots = way.alice.slots(notes("bob", 64, WINDOW), kept);
    let mut sent = 0;
    while sent < rows {
        // As many as may be sent at once come more: the last ones one by one.
        let left = rows - sent;
        if left > 2 * WINDOW {
            let time = Duration::from_millis(if left > 200_000 { 1_000 } else { 1 });
            sent += slots.measure(WINDOW, time, &[]).count as usize;
        } else {
            sent += slots.measure(1, Duration::ZERO, &[]).count as usize;
        }
    }
    let unread = way.bob.client().ok(serde_json::json!({"cmd":"status"}))["inbox_unread"].clone();
    assert_eq!(unread, rows, "all are there");
    let name = format!("{rows} kept");
    Case { name, way, rows: Default::default(), _peers: vec![], _clients: vec![] }
}
