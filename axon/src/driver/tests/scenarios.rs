//! One thing at a time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use axon_proto::limits::{BACKOFF_FIRST_MS, DOUBT_DIAL_MS, INITIATOR_WAIT_MS, REPLY_GRACE_MS, SILENCE_MS};
use axon_proto::node::{DialId, Effect, Pins, Token};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::super::net_config;
use super::dice;
use super::host::{Client, Host, Simulated, hosts};
use super::wire::{Fate, Record, Weather};
use super::{World, play};
use crate::disk::{Config, Identity};
use crate::net::Net;

/// The daemon's own `keepalive_secs` and `idle_timeout_secs`.
const KEEPALIVE_MS: u64 = 15_000;
const IDLE_MS: u64 = 60_000;
/// Its `handshake_timeout_secs` and `reconnect_max_backoff_secs`.
const HANDSHAKE_MS: u64 = 5_000;
const BACKOFF_MAX_MS: u64 = 30_000;
/// No timer is finer.
const TICK_MS: u64 = 1;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap()
}

/// Machines that run and are connected.
async fn connected(world: &World, names: &[&'static str], kept: bool) -> Vec<Host> {
    let mut hosts = hosts(world, names, kept, "");
    hosts.iter_mut().for_each(Host::start);
    settled(&hosts).await;
    hosts
}

async fn pair(world: &World, kept: bool) -> [Host; 2] {
    connected(world, &["a", "b"], kept).await.try_into().ok().unwrap()
}

/// Waits until all are connected to all, and connections that are one too many are closed.
async fn settled(hosts: &[Host]) {
    for host in hosts {
        let (client, _events) = host.client().await;
        for peer in hosts.iter().filter(|peer| peer.addr != host.addr) {
            until(ms(30_000), async || host.peer(&client, peer.name).await["status"] == "connected").await;
        }
    }
    sleep(ms(3_000)).await;
}

/// Asks each 10 ms until it is so; yields how long that took.
async fn until(patience: Duration, is_so: impl AsyncFn() -> bool) -> u64 {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() <= patience, "it does not come");
        sleep(ms(10)).await;
    }
    elapsed_ms(began)
}

/// Asks and must be answered.
async fn asks(client: &Client, to: &str, question: &str) {
    assert_eq!(client.query(to, question, 30_000).await, Some(Ok(question.to_owned())), "{question}");
}

/// By which names of connections there were datagrams from one to the other since then.
fn connections(record: &Record, from: SocketAddr, to: SocketAddr, since_ms: u64) -> BTreeSet<Vec<u8>> {
    let those = record.iter().filter(|one| (one.from, one.to) == (from, to) && one.at_ms >= since_ms);
    those.filter(|one| one.sorts() == "S").map(|one| one.bytes[1..9].to_vec()).collect()
}

// --- connecting ---

async fn all_at_once(world: World) {
    let slowest = dice::within((1, 150));
    world.wire.set(Weather { delay_ms: (slowest.div_ceil(2), slowest), ..Weather::FAIR });
    let hosts = connected(&world, &["a", "b", "c"], false).await;
    // All have dialled all before anybody could answer, and one connection of each two is left.
    let begun = world.wire.record().into_iter().filter(|one| one.at_ms == 0 && one.has('I'));
    let begun: BTreeSet<_> = begun.map(|one| (one.from, one.to)).collect();
    assert_eq!(begun.len(), 6, "{begun:?}");
    assert!(world.now_ms() <= 3_000 + 10 * slowest + 100, "{} ms", world.now_ms());
    let since_ms = world.now_ms();
    sleep(ms(40_000)).await;
    let record = world.wire.record();
    for from in &hosts {
        for to in hosts.iter().filter(|to| to.addr != from.addr) {
            let used = connections(&record, from.addr, to.addr, since_ms);
            assert_eq!(used.len(), 1, "from {} to {}: {used:?}", from.name, to.name);
        }
    }
}

#[test]
fn those_who_dial_one_another_at_once_settle_on_one_connection() {
    // shows: WF-CON-1, WF-DUP-4
    play("scenarios::those_who_dial", 6, all_at_once);
}

// --- a bad line ---

pub(super) async fn a_hundred_queries(world: World) {
    let hosts = pair(&world, false).await;
    let asked = [hosts[0].answer((0, 200)).await, hosts[1].answer((0, 200)).await];
    world.wire.set(Weather { loss: 100, twice: 50, delay_ms: (30, 70), ..Weather::FAIR });
    let mut queries = Vec::new();
    for (host, to) in hosts.iter().zip(["b", "a"]) {
        let (client, _events) = host.client().await;
        queries.extend((0..50).map(|n| {
            let client = client.clone();
            // Some are too long for the pipe and for one datagram.
            let long = "x".repeat(if n % 10 == 0 { 20_000 } else { 0 });
            tokio::spawn(async move { asks(&client, to, &format!("question {n} to {to}{long}")).await })
        }));
    }
    for query in queries {
        query.await.unwrap();
    }
    for asked in asked {
        let times = asked.times();
        assert_eq!(times.len(), 50);
        assert!(times.values().all(|times| *times == 1), "{times:?}");
    }
    hosts[0].is_connected("b").await;
}

#[test]
fn a_hundred_queries_on_a_bad_line_are_each_asked_and_answered_once() {
    play("scenarios::a_hundred_queries", 6, a_hundred_queries);
}

// --- a cut ---

const PARTED_MS: u64 = 30_000;

async fn parted(world: World) {
    let [a, b] = pair(&world, true).await;
    let asked = b.answer((0, 100)).await;
    world.wire.set(Weather { delay_ms: (20, 30), ..Weather::FAIR });
    let (client, _events) = a.client().await;
    let (cut_ms, deadline_ms) = (world.now_ms() + 5_000, 10_000);
    let heal_ms = cut_ms + PARTED_MS;
    let (mut queries, mut notes) = (Vec::new(), Vec::new());
    for n in 0..120_u64 {
        let at_ms = world.now_ms();
        if n == 10 || n == 70 {
            world.wire.part(a.addr, b.addr, n == 10);
        }
        let one = client.clone();
        queries.push(tokio::spawn(async move {
            let began = Instant::now();
            let outcome = one.query("b", &format!("question {n}"), deadline_ms).await.unwrap();
            (n, at_ms, elapsed_ms(began), outcome)
        }));
        if n % 4 == 0 {
            let one = client.clone();
            notes.push(tokio::spawn(async move { one.notify("b", &format!("note {n}"), Some(3_600)).await }));
        }
        sleep(ms(500)).await;
    }
    let mut good = BTreeSet::new();
    let mut recovered_ms = u64::MAX;
    for query in queries {
        let (n, at_ms, took_ms, outcome) = query.await.unwrap();
        // Each ends, in time.
        assert!(took_ms <= deadline_ms + REPLY_GRACE_MS + TICK_MS, "question {n} took {took_ms} ms");
        let before = at_ms + 1_000 < cut_ms;
        match outcome {
            Ok(answer) => {
                assert_eq!(answer, format!("question {n}"));
                good.insert(answer);
                if at_ms + took_ms >= heal_ms {
                    recovered_ms = recovered_ms.min(at_ms + took_ms - heal_ms);
                }
            }
            Err(code) => {
                assert!(!before && at_ms < heal_ms + 5_500, "question {n} at {at_ms}: {code}");
                assert!(["peer_unreachable", "timeout"].contains(&&*code), "question {n}: {code}");
            }
        }
    }
    // An attempt that had begun before may have to end first (WF-CON-5).
    assert!(recovered_ms <= 5_500, "{recovered_ms} ms");
    let times = asked.times();
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    assert!(good.iter().all(|question| times.contains_key(question)));
    // What is held arrives, once.
    for note in notes {
        let state = note.await.unwrap().unwrap().unwrap();
        assert!(state == "delivered" || state == "held", "{state}");
    }
    let (reader, _events) = b.client().await;
    let told = reader.inbox().await;
    assert_eq!(told.len(), 30, "{told:?}");
    assert!(told.values().all(|times| *times == 1), "{told:?}");
}

#[test]
fn a_cut_of_half_a_minute_loses_nothing_that_is_held_and_ends_every_query_in_time() {
    play("scenarios::a_cut_of_half_a_minute", 6, parted);
}

// --- another address ---

async fn rebound(world: World) {
    let mut hosts = hosts(&world, &["a", "b"], false, "");
    // Behind its router `a` can dial and not be dialled.
    hosts[1].knows_at(hosts[0].addr, "10.0.0.99:7100");
    hosts.iter_mut().for_each(Host::start);
    settled(&hosts[..1]).await;
    let [a, b] = hosts.try_into().ok().unwrap();
    let delay = dice::within((5, 100));
    // Nothing is lost: quinn asks once only whether the peer is at its new address, and where that does not
    // arrive another connection is made, on which a query that was asked already fails (WF-RST-4).
    world.wire.set(Weather { delay_ms: (delay, delay + 10), ..Weather::FAIR });
    let asked = [a.answer((4_000, 5_000)).await, b.answer((4_000, 5_000)).await];
    let ((at_a, _a), (at_b, _b)) = (a.client().await, b.client().await);
    let forth = tokio::spawn(async move { asks(&at_a, "b", "forth").await });
    let back = tokio::spawn(async move { asks(&at_b, "a", "back").await });
    sleep(ms(dice::within((500, 3_500)))).await;
    let moved_ms = world.now_ms();
    world.wire.rebind(a.addr, 40_001);
    forth.await.unwrap();
    back.await.unwrap();
    assert!(asked.iter().all(|asked| asked.times().values().eq(&[1])), "asked once each");
    let record = world.wire.record();
    let at_new = SocketAddr::new(a.addr.ip(), 40_001);
    let anew = record.iter().filter(|one| one.from == at_new && !one.has('S')).count();
    assert_eq!(anew, 0, "the connection moves, and no other is made");
    assert!(record.iter().any(|one| one.at_ms > moved_ms && one.to == at_new), "the peer answers there");
}

#[test]
fn a_new_address_in_the_middle_of_queries_costs_none() {
    play("scenarios::a_new_address", 6, rebound);
}

// --- nothing to say, and nobody there ---

async fn idle(world: World) {
    let [a, b] = pair(&world, false).await;
    let delay = dice::within((1, 100));
    world.wire.set(Weather { delay_ms: (delay, delay), ..Weather::FAIR });
    let began_ms = world.now_ms();
    // Some time after beacons were said again, which is every five minutes: none is in flight at the end.
    sleep(ms(630_000)).await;
    a.is_connected("b").await;
    b.is_connected("a").await;
    let record = world.wire.record();
    let times: Vec<u64> = record.iter().map(|one| one.at_ms).filter(|at_ms| *at_ms >= began_ms).collect();
    let gap = times.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    assert!(gap <= KEEPALIVE_MS + 2 * delay + TICK_MS, "nothing for {gap} ms");
    assert!(gap + 100 >= KEEPALIVE_MS, "a packet each {gap} ms is too many");
    assert!(times.len() <= 8 * 630_000 / usize::try_from(KEEPALIVE_MS).unwrap(), "{} packets", times.len());

    // The peer dies, and nobody wants anything of it.
    let (client, _events) = a.client().await;
    sleep(ms(dice::within((0, KEEPALIVE_MS)))).await;
    world.wire.kill(b.addr);
    let last_ms = last_heard(&world.wire.record(), b.addr, a.addr);
    sleep(ms(IDLE_MS - 1_000)).await;
    let is_lost = async || a.peer(&client, "b").await["status"] != "connected";
    assert!(!is_lost().await, "too early");
    until(ms(KEEPALIVE_MS + 2_000), is_lost).await;
    let lost_ms = world.now_ms();
    // QUIC counts from the first packet that wanted an answer after the last that came: the keep-alive.
    let record = world.wire.record();
    let wanted = |at_ms: u64| at_ms > last_ms + 1_000;
    let alive = record.iter().find(|one| one.from == a.addr && wanted(one.at_ms)).unwrap();
    assert!(alive.at_ms <= last_ms + KEEPALIVE_MS + TICK_MS, "{} ms after the last", alive.at_ms - last_ms);
    let silent_ms = lost_ms - alive.at_ms;
    assert!((IDLE_MS..=IDLE_MS + TICK_MS + 10).contains(&silent_ms), "after {silent_ms} ms");
}

fn last_heard(record: &Record, from: SocketAddr, to: SocketAddr) -> u64 {
    let came = record.iter().filter(|one| (one.from, one.to) == (from, to));
    let times = came.filter_map(|one| match &one.fate {
        Fate::Arrives(times) => times.iter().max().copied(),
        _ => None,
    });
    times.max().unwrap()
}

#[test]
fn a_connection_without_work_stays_and_ends_a_minute_after_its_peer() {
    play("scenarios::a_connection_without_work", 3, idle);
}

async fn silence(world: World) {
    let [a, b] = pair(&world, false).await;
    b.answer((0, 0)).await;
    let (client, _events) = a.client().await;
    asks(&client, "b", "are you there?").await;
    sleep(ms(dice::within((0, 20_000)))).await;
    // The peer dies, and then something is wanted of it.
    world.wire.kill(b.addr);
    let began = Instant::now();
    let outcome = client.query("b", "and now?", 20_000).await.unwrap();
    assert_eq!(outcome, Err("peer_unreachable".into()));
    // WF-RST-3, to the tick: doubted, dialled beside, given up.
    let took_ms = elapsed_ms(began);
    let due_ms = SILENCE_MS + DOUBT_DIAL_MS;
    assert!((due_ms..=due_ms + 2 * TICK_MS).contains(&took_ms), "{took_ms} ms");
    assert_ne!(a.peer(&client, "b").await["status"], "connected");
}

#[test]
fn a_peer_that_dies_fails_its_query_after_four_seconds() {
    // shows: WF-RST-3
    play("scenarios::a_peer_that_dies", 6, silence);
}

// --- time ---

async fn deadlines(world: World) {
    let [a, b] = pair(&world, false).await;
    let delay = dice::within((1, 60));
    world.wire.set(Weather { delay_ms: (delay, delay), ..Weather::FAIR });
    // Nobody is asked so long that the answer could come in time.
    let asked = b.answer((30_000, 30_000)).await;
    let (client, _events) = a.client().await;
    let mut queries = Vec::new();
    for n in 0..20_u64 {
        sleep(ms(dice::within((0, 3_000)))).await;
        let client = client.clone();
        queries.push(tokio::spawn(async move {
            let deadline_ms = dice::within((200, 12_000));
            let began = Instant::now();
            let outcome = client.query("b", &format!("question {n}"), deadline_ms).await.unwrap();
            (deadline_ms, elapsed_ms(began), outcome)
        }));
    }
    for query in queries {
        let (deadline_ms, took_ms, outcome) = query.await.unwrap();
        assert_eq!(outcome, Err("timeout".into()));
        // The peer says so when its time is over, and its word arrives before we lose patience ourselves.
        let due_ms = deadline_ms + 2 * delay;
        assert!((due_ms..=due_ms + 2 * TICK_MS).contains(&took_ms), "{took_ms} ms for {due_ms}");
    }
    assert_eq!(asked.times().len(), 20);

    // A peer that is cut off says nothing; a short deadline ends before it is given up.
    world.wire.part(a.addr, b.addr, true);
    let (began, deadline_ms) = (Instant::now(), 2_000);
    let outcome = client.query("b", "into the void", deadline_ms).await.unwrap();
    assert_eq!(outcome, Err("timeout".into()));
    let (took_ms, due_ms) = (elapsed_ms(began), deadline_ms + REPLY_GRACE_MS);
    assert!((due_ms..=due_ms + TICK_MS).contains(&took_ms), "{took_ms} ms for {due_ms}");
}

#[test]
fn a_deadline_ends_a_query_to_the_tick() {
    // shows: IPC-SEND-4
    play("scenarios::a_deadline", 6, deadlines);
}

async fn backoff(world: World) {
    let mut hosts = hosts(&world, &["a", "b"], false, "");
    let [mut a, b] = [hosts.remove(0), hosts.remove(0)];
    a.start();
    sleep(ms(600_000)).await;
    // Each attempt has a name of its own for the connection.
    let mut begun: Vec<(Vec<u8>, u64, u64)> = Vec::new();
    for one in world.wire.record().iter().filter(|one| one.to == b.addr) {
        assert_eq!(one.sorts(), "I");
        let name = one.bytes[6..14].to_vec();
        match begun.iter_mut().find(|(other, ..)| *other == name) {
            Some((_, _, last_ms)) => *last_ms = one.at_ms,
            None => begun.push((name, one.at_ms, one.at_ms)),
        }
    }
    assert!(begun.len() >= 18, "{} attempts", begun.len());
    for (_, began_ms, last_ms) in &begun {
        assert!(last_ms - began_ms <= HANDSHAKE_MS + TICK_MS, "an attempt went on for too long");
    }
    let mut wait_ms = BACKOFF_FIRST_MS;
    for two in begun.windows(2) {
        let waited_ms = two[1].1 - two[0].1 - HANDSHAKE_MS;
        let due_ms = wait_ms..=wait_ms + wait_ms / 4 + 2 * TICK_MS;
        assert!(due_ms.contains(&waited_ms), "{waited_ms} ms, not {due_ms:?}");
        wait_ms = (2 * wait_ms).min(BACKOFF_MAX_MS);
    }
}

#[test]
fn who_is_not_there_is_dialled_at_the_intervals_of_the_specification() {
    // shows: WF-CON-3, WF-CON-5
    play("scenarios::who_is_not_there", 6, backoff);
}

// --- coming back ---

/// Packets of early data from one to the other since then that arrived.
fn early(world: &World, from: SocketAddr, to: SocketAddr, since_ms: u64) -> usize {
    let record = world.wire.record();
    let those = record.iter().filter(|one| (one.from, one.to) == (from, to) && one.at_ms >= since_ms);
    those.filter(|one| one.has('0') && matches!(one.fate, Fate::Arrives(_))).count()
}

async fn resumed(world: World) {
    let mut both = hosts(&world, &["a", "b"], false, "");
    // The one who dials has the ticket. It is the one that waits a moment after a loss (WF-CON-2).
    both.sort_by_key(|host| std::cmp::Reverse(host.identity.id.0));
    let [mut a, mut b]: [Host; 2] = both.try_into().ok().unwrap();
    b.knows_at(a.addr, "10.0.0.99:7100");
    a.start();
    b.start();
    let (client, _events) = a.client().await;
    let is_up = async || a.peer(&client, b.name).await["status"] == "connected";
    until(ms(2_000), is_up).await;
    world.wire.set(Weather { delay_ms: (20, 40), ..Weather::FAIR });
    sleep(ms(dice::within((0, 20_000)))).await;
    assert_eq!(early(&world, a.addr, b.addr, 0), 0);
    // The line fails until the connection is lost.
    world.wire.part(a.addr, b.addr, true);
    sleep(ms(IDLE_MS - 1_000)).await;
    until(ms(KEEPALIVE_MS + 2_000), async || !is_up().await).await;
    let began_ms = world.now_ms();
    world.wire.part(a.addr, b.addr, false);
    let took_ms = until(ms(INITIATOR_WAIT_MS + 1_000), is_up).await;
    assert!(took_ms + 100 >= INITIATOR_WAIT_MS, "{took_ms} ms");
    assert!(early(&world, a.addr, b.addr, began_ms) > 0, "hello travels with the first packets");
    assert_eq!(a.peer(&client, b.name).await["early"], true);
    b.answer((0, 0)).await;
    asks(&client, b.name, "on the resumed one").await;
    sleep(ms(10_000)).await;

    // A daemon that has started anew knows no ticket: hello is said again.
    let began_ms = world.now_ms();
    b.crash().await;
    sleep(ms(dice::within((100, 800)))).await;
    b.start();
    b.answer((0, 0)).await;
    let back = Instant::now();
    asks(&client, b.name, "of one who knows no ticket").await;
    assert!(elapsed_ms(back) <= 2_000, "{} ms", elapsed_ms(back));
    assert!(early(&world, a.addr, b.addr, began_ms) > 0, "it had a ticket");
    assert_ne!(a.peer(&client, b.name).await["early"], true, "and nobody took it");
}

#[test]
fn hello_travels_with_the_first_packets_where_the_peer_is_known_and_again_where_it_is_not() {
    // shows: WF-0RTT-4
    play("scenarios::hello_travels", 4, resumed);
}

async fn back(world: World) {
    let [mut a, mut b] = pair(&world, true).await;
    world.wire.set(Weather { delay_ms: (20, 40), ..Weather::FAIR });
    for n in 0..4 {
        let one = if n % 2 == 0 { &mut b } else { &mut a };
        one.crash().await;
        sleep(ms(dice::within((100, 3_000)))).await;
        one.start();
        let back = Instant::now();
        for host in [&a, &b] {
            host.answer((0, 0)).await;
        }
        let ((at_a, _a), (at_b, _b)) = (a.client().await, b.client().await);
        let (from_a, from_b) = (format!("from a, {n}"), format!("from b, {n}"));
        tokio::join!(asks(&at_a, "b", &from_a), asks(&at_b, "a", &from_b));
        // Section 3.3: within 2 s from both sides.
        assert!(elapsed_ms(back) <= 2_000, "{} ms", elapsed_ms(back));
        sleep(ms(dice::within((0, 20_000)))).await;
    }

    // One stops as it is told to: the other hears of it at once.
    b.stop().await;
    let (client, _events) = a.client().await;
    until(ms(200), async || a.peer(&client, "b").await["status"] != "connected").await;
    b.start();
    until(ms(2_000), async || a.peer(&client, "b").await["status"] == "connected").await;
}

#[test]
fn who_is_killed_and_comes_back_is_reached_from_both_sides_in_two_seconds() {
    // shows: WF-RST-1
    play("scenarios::who_is_killed", 6, back);
}

// --- a flood ---

async fn flood(world: World) {
    let [a, mut b] = pair(&world, false).await;
    a.answer((0, 0)).await;
    let stranger = Identity::from_seed([99; 32]).unwrap();
    let at = SocketAddr::from(([10, 0, 0, 99], 7_100));
    let config = Config { bind: Some(at.ip()), ..Config::load(&a.root().config()).unwrap() };
    let (events, mut heard) = mpsc::channel(16);
    let machine = Simulated::new(world.wire.clone());
    let mut net = Net::on(&machine, &net_config(&config, None), &stranger.seed, &[], events).unwrap();
    tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let keys = [(a.identity.id, a.identity.public)].into();
    net.carry_out(Effect::Pins(Pins { keys, ..Pins::default() }.into()));

    // It hears nothing, so that no handshake of its ends.
    world.wire.cut(a.addr, at, true);
    let flood_ms = world.now_ms();
    for n in 0..400 {
        let (dial, token) = (DialId(n), Token(n));
        let addrs = vec![a.addr.to_string()];
        let hello = "{}".into();
        net.carry_out(Effect::Dial { dial, peer: a.identity.id, addrs, hello, token, timeout_ms: 8_000 });
        if n % 40 == 0 {
            sleep(ms(50)).await;
        }
    }
    // Who is connected does not feel it.
    let (client, _events) = b.client().await;
    for n in 0..10 {
        let began = Instant::now();
        asks(&client, "a", &format!("in the flood, {n}")).await;
        assert!(elapsed_ms(began) <= 50, "{} ms", elapsed_ms(began));
        sleep(ms(100)).await;
    }
    // Who is not gets in, by proving its address (WF-LIM-3).
    b.crash().await;
    b.start();
    let began = Instant::now();
    let (client, _events) = b.client().await;
    asks(&client, "a", "anew, in the flood").await;
    assert!(elapsed_ms(began) <= 2_000, "{} ms", elapsed_ms(began));
    let record = world.wire.record();
    let retries = |to: SocketAddr| record.iter().filter(|one| one.to == to && one.has('R')).count();
    assert!(retries(at) > 0 && retries(b.addr) > 0, "{} and {}", retries(at), retries(b.addr));
    // A forged address is no way to have others flooded: what goes out is less than three times what comes.
    let bytes = |from, to| -> usize {
        let those = record.iter().filter(|one| (one.from, one.to) == (from, to) && one.at_ms >= flood_ms);
        those.map(|one| one.bytes.len()).sum()
    };
    let (came, went) = (bytes(at, a.addr), bytes(a.addr, at));
    assert!(went <= 3 * came, "{went} bytes for {came}");

    // Heard, it is told that it is not known, and leaves nothing.
    world.wire.cut(a.addr, at, false);
    sleep(ms(20_000)).await;
    let (client, _events) = a.client().await;
    assert_eq!(client.ok(json!({"cmd": "status"})).await["strangers"], 0);
    a.is_connected("b").await;
}

#[test]
fn a_flood_of_handshakes_by_a_stranger_keeps_nobody_out() {
    // shows: WF-LIM-3
    play("scenarios::a_flood_of_handshakes", 2, flood);
}
