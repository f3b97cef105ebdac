//! A pipe that is malformed, and one that is not read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{agent, alive, knows, note, query, says};
use crate::peer::pipe::{ANSWER, ASK, Call, DROP, HEARD, NONE, Pipe, TELL, head, record};
use crate::peer::served::{Served, rss_kib};
use crate::peer::{Fault, RawPeer};
use crate::support::{Daemon, wait_for};

/// What may be done to a pipe.
type Deed = fn(&mut Pipe);

/// A notify as a tell under this number.
fn tell(pipe: &mut Pipe, number: u32) {
    let body = pipe.link.note(u64::from(number)).to_string();
    pipe.put(TELL, number, body.as_bytes());
}

/// A query as an ask under this number.
fn ask(pipe: &mut Pipe, number: u32) {
    let body = query(&pipe.link, "q").to_string();
    pipe.put(ASK, number, body.as_bytes());
}

/// Bytes that may find the connection closed already.
fn last(pipe: &mut Pipe, bytes: &[u8]) {
    pipe.write(bytes).ok();
}

const VIOLATIONS: &[(&str, Deed)] = &[
    ("a second pipe", |pipe| {
        alive(pipe);
        pipe.link.begin_uni(&[1]);
    }),
    ("a second pipe after the first has ended", |pipe| {
        alive(pipe);
        pipe.finish();
        pipe.link.begin_uni(&[1]);
    }),
    ("an ask that is too long", |pipe| last(pipe, &head(ASK, 65_537, 1))),
    ("a tell that is too long", |pipe| last(pipe, &head(TELL, 65_537, 1))),
    ("the longest length", |pipe| last(pipe, &head(ANSWER, 0x00ff_ffff, 1))),
    ("an unknown record that is too long", |pipe| last(pipe, &head(99, 65_537, 1))),
    ("a tell 0", |pipe| tell(pipe, 0)),
    ("a tell twice", |pipe| [1, 1].into_iter().for_each(|number| tell(pipe, number))),
    ("a tell from before", |pipe| [2, 4, 3].into_iter().for_each(|number| tell(pipe, number))),
    ("a number that is in use", |pipe| [5, 6, 5].into_iter().for_each(|number| ask(pipe, number))),
    ("one ask too many", |pipe| (0..257).for_each(|number| ask(pipe, number))),
    ("an answer for nothing", |pipe| pipe.put(ANSWER, 1, b"{}")),
    ("none for nothing", |pipe| pipe.put(NONE, 1, b"")),
    ("heard for nothing", |pipe| pipe.put(HEARD, 1, b"")),
    ("heard 0", |pipe| pipe.put(HEARD, 0, b"")),
    ("an end within a length", |pipe| {
        pipe.write(&[ASK, 0]).unwrap();
        pipe.finish();
    }),
    ("an end within a body", |pipe| {
        let whole = record(ASK, 1, query(&pipe.link, "q").to_string().as_bytes());
        pipe.write(&whole[..whole.len() - 1]).unwrap();
        pipe.finish();
    }),
];

fn malformed(link: &crate::peer::Link, name: &str) {
    match link.closed() {
        Fault::Closed(4, reason) => assert!(!reason.is_empty(), "{name}: no reason"),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn each_malformed_pipe_closes_its_own_connection_with_code_4() {
    // shows: WF-PIPE-1, WF-PIPE-4, WF-PIPE-8, WF-CLOSE-1
    let (peer, good) = (RawPeer::new(), RawPeer::new());
    let daemon = Daemon::start(&format!("{}{}", peer.quiet_entry("raw"), good.quiet_entry("good")));
    let mut agent = agent(&daemon, 1);
    let mut steady = good.piped(&daemon);
    let open = query(&steady.link, "open");
    let number = steady.ask(&open);
    let request = agent.request();
    for (name, deed) in VIOLATIONS {
        let mut pipe = peer.piped(&daemon);
        deed(&mut pipe);
        malformed(&pipe.link, name);
        alive(&mut steady);
    }
    agent.respond(&request, "after all");
    assert_eq!(steady.of(ANSWER, number).json()["payload"]["summary"], "after all");
    // And whoever did that may come again.
    alive(&mut peer.piped(&daemon));
}

#[test]
fn a_second_answer_and_a_second_word_of_hearing_close_with_code_4() {
    // shows: WF-PIPE-6, WF-PIPE-8, WF-PIPE-10
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut client = daemon.client();
    let mut pipe = peer.piped(&daemon);
    for what in [ANSWER, NONE] {
        let asked = client.ask("raw", "q", json!({}));
        let ask = pipe.next(ASK);
        pipe.answer(&ask, "response", says("first"));
        assert_eq!(client.finish(&asked)["response"]["payload"]["summary"], "first");
        pipe.put(what, ask.number, b"");
        malformed(&pipe.link, "a second end");
        pipe = peer.piped(&daemon);
    }
    let told: Vec<String> = (0..3).map(|n| client.begin(note(&n.to_string()))).collect();
    let ids: Vec<Value> = (1..=3).map(|number| pipe.of(TELL, number).json()).collect();
    pipe.put(HEARD, 2, b"");
    told[..2].iter().for_each(|req_id| assert_eq!(client.finish(req_id)["state"], "sent"));
    pipe.put(HEARD, 2, b"");
    malformed(&pipe.link, "heard twice");
    // What was not heard comes again, and as the first one of its pipe; so does nothing else.
    let mut pipe = peer.piped(&daemon);
    let again = pipe.next(TELL);
    assert_eq!((again.number, again.json()), (1, ids[2].clone()));
    // More than were told.
    pipe.put(HEARD, 4, b"");
    malformed(&pipe.link, "more than were told");
    let mut pipe = peer.piped(&daemon);
    assert_eq!(pipe.next(TELL).json(), ids[2]);
    pipe.put(HEARD, 1, b"");
    assert_eq!(client.finish(&told[2])["state"], "sent");
    alive(&mut pipe);
}

#[test]
fn a_record_that_stands_still_closes_and_a_pipe_that_rests_does_not() {
    // shows: WF-PIPE-8
    let (slow, resting, stuck) = (RawPeer::new(), RawPeer::new(), RawPeer::new());
    let entries = [("a", &slow), ("b", &resting), ("c", &stuck)].map(|(name, peer)| peer.quiet_entry(name));
    let daemon = Daemon::start(&format!("inbound_read_timeout_secs = 1\n{}", entries.concat()));
    let mut rests = resting.piped(&daemon);
    alive(&mut rests);
    let mut slows = slow.piped(&daemon);
    let whole = record(ASK, 1, slows.link.envelope("ping", json!({})).to_string().as_bytes());
    // Two that bring nothing more: within the length, and within the body.
    let mut stands = [stuck.piped(&daemon), stuck.piped(&daemon)];
    stands[0].write(&whole[..3]).unwrap();
    stands[1].write(&whole[..20]).unwrap();
    // One that brings a byte now and then, for longer than that.
    let (first, rest) = whole.split_at(5);
    for byte in first {
        slows.write(&[*byte]).unwrap();
        // Slowness is what is looked at: there is nothing to wait for.
        std::thread::sleep(Duration::from_millis(300));
    }
    slows.write(rest).unwrap();
    assert_eq!(slows.of(ANSWER, 1).json()["kind"], "pong");
    stands.iter().for_each(|pipe| malformed(&pipe.link, "standing still"));
    alive(&mut rests);
    alive(&mut slows);
}

#[test]
fn unknown_records_are_passed_over_up_to_the_longest() {
    // shows: WF-PIPE-8, WF-PIPE-9
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut pipe = peer.piped(&daemon);
    for (what, length) in [(0, 0), (7, 1), (8, 65_536), (255, 65_536), (100, 8)] {
        pipe.put(what, 1, &vec![ASK; length]);
        alive(&mut pipe);
    }
}

#[test]
fn as_many_asks_as_are_allowed_and_no_more() {
    // shows: WF-PIPE-4, WF-PIPE-5, WF-PIPE-8
    let peer = RawPeer::new();
    let daemon = knows(&peer, "[policy.known]\nin_flight_max = 0\n");
    let mut agent = agent(&daemon, 256);
    let mut pipe = peer.piped(&daemon);
    let asked: Vec<Value> = (1..=256).map(|n| query(&pipe.link, &n.to_string())).collect();
    asked.iter().for_each(|query| _ = pipe.ask(query));
    let requests: Vec<Value> = asked.iter().map(|_| agent.request()).collect();
    assert_eq!(requests, asked);
    // Beside the pipe there is room.
    let pong = pipe.link.ask(&pipe.link.envelope("ping", json!({}))).unwrap();
    assert_eq!(pong["kind"], "pong", "{pong}");
    // One ends, one begins; one is dropped, one begins once that has its end.
    agent.respond(&requests[0], "1");
    pipe.of(ANSWER, 1);
    alive(&mut pipe);
    pipe.put(DROP, 2, b"");
    pipe.of(NONE, 2);
    alive(&mut pipe);
    for request in &requests[2..] {
        agent.respond(request, request["payload"]["question"].as_str().unwrap());
    }
    for number in 3..=256 {
        let answer = pipe.of(ANSWER, number).json();
        assert_eq!(answer["payload"]["summary"], number.to_string());
    }
    alive(&mut pipe);
}

#[test]
fn an_asker_that_counts_what_it_has_read_is_never_one_too_many() {
    // shows: WF-PIPE-2, WF-PIPE-4, WF-PIPE-6, WF-PIPE-8
    let peer = RawPeer::new();
    let daemon = knows(&peer, "[policy.known]\nin_flight_max = 0\n");
    let mut agent = agent(&daemon, 256);
    // All answers of the first 256 are there at once, far more than fits on its way.
    let answering = std::thread::spawn(move || {
        let long = "y".repeat(30_000);
        let mut held: Vec<Value> = (0..256).map(|_| agent.request()).collect();
        for n in 0..456 {
            let request = held.pop().unwrap_or_else(|| agent.request());
            let reply = json!({"cmd":"reply","req_id":n.to_string(),"ref":request["id"],
                "kind":"response","payload":says(&long)});
            agent.raw(format!("{reply}\n").as_bytes());
        }
        (0..456).for_each(|n: u32| assert_eq!(agent.finish(&n.to_string())["ok"], true));
    });
    let mut pipe = peer.dial_narrow(&daemon, 65_536).piping(&[]);
    let mut open: BTreeMap<u32, Value> = BTreeMap::new();
    for _ in 0..256 {
        let query = query(&pipe.link, "q");
        open.insert(pipe.ask(&query), query["id"].clone());
    }
    // One is asked for each answer that has been read.
    for answered in 1..=456 {
        let answer = pipe.next(ANSWER);
        assert_eq!(open.remove(&answer.number).expect("an open ask"), answer.json()["ref"]);
        if answered <= 200 {
            let query = query(&pipe.link, "q");
            open.insert(pipe.ask(&query), query["id"].clone());
        }
    }
    assert!(open.is_empty());
    alive(&mut pipe);
    answering.join().unwrap();
}

#[test]
fn what_does_not_fit_a_pipe_that_is_not_read_takes_streams() {
    // shows: WF-PIPE-4, WF-STR-3
    const WINDOW: u32 = 16_384;
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut client = daemon.client();
    let mut pipe = peer.dial_narrow(&daemon, WINDOW).piping(&[]);
    let pad = "x".repeat(3_700);
    let asked: Vec<String> = (0..240).map(|n| client.ask("raw", &format!("{n} {pad}"), json!({}))).collect();
    // The daemon is not held up, neither here nor there; and what goes where has been decided.
    client.silent();
    assert_eq!(pipe.link.outcome(&pipe.link.envelope("ping", json!({}))), "pong");
    let calls = pipe.gather(240);
    let on_the_pipe = |call: &Call| match call {
        Call::Ask(record) => 8 + record.body.len(),
        Call::Stream(_) => 0,
    };
    let bytes: usize = calls.iter().map(on_the_pipe).sum();
    let streams = calls.iter().filter(|call| on_the_pipe(call) == 0).count();
    assert!(bytes > 100_000 && streams > 100, "{bytes} bytes on the pipe, {streams} streams");
    // What may be on its way, and what may wait.
    assert!(bytes <= WINDOW as usize + 262_144, "{bytes} bytes on the pipe, {streams} streams");
    for call in calls {
        let question = call.envelope()["payload"]["question"].as_str().unwrap().replace('x', "");
        pipe.reply(call, "response", says(&question));
    }
    for (n, req_id) in asked.iter().enumerate() {
        assert_eq!(client.finish(req_id)["response"]["payload"]["summary"], format!("{n} "));
    }
    pipe.link.nothing_opened();
}

#[test]
fn one_that_does_not_read_can_be_blocked() {
    // shows: WF-PIN-6
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut client = daemon.client();
    let pipe = peer.dial_narrow(&daemon, 2_048).piping(&[]);
    let pad = "x".repeat(3_000);
    let asked: Vec<String> = (0..20).map(|_| client.ask("raw", &pad, json!({}))).collect();
    client.silent();
    daemon.client().ok(json!({"cmd":"trust","peer":"raw","trust":"blocked"}));
    asked.iter().for_each(|req_id| assert_eq!(client.finish(req_id)["error"], "peer_unreachable"));
    assert_eq!(pipe.closed(), Fault::Closed(0, "not known here any more".to_owned()));
}

/// Never reads its pipe, and asks on and on, until the daemon ends that; how often, and how.
fn greedy(pipe: &mut Pipe, make: impl Fn(&Pipe) -> Value) -> (u32, Fault) {
    let mut said = 0;
    while said < 100_000 {
        let asks = (0..8).flat_map(|n| record(ASK, 1_000 + said + n, make(pipe).to_string().as_bytes()));
        let asks: Vec<u8> = asks.collect();
        if pipe.write(&asks).is_err() {
            return (said, pipe.closed());
        }
        said += 8;
    }
    panic!("{said} asks of one that reads nothing were taken");
}

#[test]
fn whoever_does_not_read_is_the_only_one_to_feel_it() {
    // shows: WF-PIPE-2, WF-PIPE-4, WF-PIPE-8, WF-STR-10
    let (peer, good) = (RawPeer::new(), RawPeer::new());
    let daemon = Daemon::start(&format!("{}{}", peer.quiet_entry("raw"), good.quiet_entry("good")));
    let served = Served::begin(&good, &daemon);
    wait_for("the first answers", || (*served.peak_kib.lock().unwrap() > 0).then_some(()));
    let before = rss_kib(daemon.pid());
    let new = || peer.dial_narrow(&daemon, 16_384).piping(&[]);
    let too_many = |(said, end): (u32, Fault)| {
        // UDP may lose the packet that says why, when the flood has filled a buffer just then: the next ones
        // are answered by a stateless reset.
        let reset = Fault::Refused("reset by peer".to_owned());
        assert!(matches!(end, Fault::Closed(4, _)) || end == reset, "{end:?} after {said}");
        said
    };
    // What the daemon answers itself: with a message, with a refusal, and with `none`.
    let pings = too_many(greedy(&mut new(), |pipe| pipe.link.envelope("ping", json!({}))));
    let bad = too_many(greedy(&mut new(), |pipe| pipe.link.envelope("query", json!({}))));
    let none = too_many(greedy(&mut new(), |_| json!({})));
    // As many as are allowed, all answered at length.
    let mut long = daemon.answerer(json!({"answer":["query"],"kinds":[],"domains":["long"],"capacity":256}));
    let mut pipe = new();
    let asks = |pipe: &Pipe| pipe.link.envelope("query", json!({"question":"q","domain":"long"}));
    (0..250).for_each(|_| _ = pipe.ask(&asks(&pipe)));
    let huge = "y".repeat(60_000);
    // Before it has said hello it may be shown what the other peer asks.
    let mut events = std::iter::repeat_with(|| long.event()).filter(|event| event["answer"] == true);
    let requests: Vec<Value> = events.by_ref().take(250).map(|event| event["envelope"].clone()).collect();
    drop(events);
    requests.iter().for_each(|request| long.respond(request, &huge));
    let full = rss_kib(daemon.pid()) - before;
    // They have not left: those that would come next are too many.
    let after = too_many(greedy(&mut pipe, asks));
    let peak = *served.peak_kib.lock().unwrap() - before;
    let (count, median, longest) = served.since();
    let words = format!(
        "{pings} pings, {bad} malformed, {none} without an id, 250 with long answers: {full} KiB more, at most \
         {peak}; {after} after them; another had {count} answers, in {median:?} (median) to {longest:?}"
    );
    // 250 answers of 60,000 bytes are 15 MB, and a buffer that grows may be twice that for a moment.
    assert!(peak < 64 * 1_024, "{words}");
    assert!(longest < Duration::from_secs(2) && count > 50, "{words}");
    served.end();
}

#[test]
fn a_stranger_has_no_pipe() {
    // shows: WF-STRANGER-2, WF-STRANGER-3, WF-STRANGER-4
    let daemon = Daemon::start("");
    daemon.client().ok(json!({"cmd":"invite"}));
    let peer = RawPeer::new();
    let link = peer.dial(&daemon);
    let hello = link.ask(&link.offering(&["pipe"])).unwrap();
    assert_eq!(hello["payload"]["stranger"], true);
    assert_eq!(hello["payload"]["features"], json!(["knock"]));
    assert!(!link.may_open(false), "nothing that is taken of a stranger comes on such a stream");
    link.nothing_opened();
}

#[test]
fn a_number_that_is_used_again_gets_no_answer_of_the_one_before() {
    // shows: WF-PIPE-5, WF-PIPE-6, WF-ENV-6
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut agent = agent(&daemon, 256);
    let answering = std::thread::spawn(move || {
        loop {
            let event = agent.event();
            if event["answer"] != true {
                continue;
            }
            let request = &event["envelope"];
            let reply = json!({"cmd":"reply","req_id":"r","ref":request["id"],
                "kind":"response","payload":says("s")});
            agent.raw(format!("{reply}\n").as_bytes());
            if request["payload"]["question"] == "enough" {
                return;
            }
        }
    });
    // Clients that keep the daemon busy meanwhile.
    let done = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let (mut client, done) = (daemon.client(), Arc::clone(&done));
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let ids: Vec<_> = (0..32).map(|_| client.begin(json!({"cmd":"status"}))).collect();
                    ids.iter().for_each(|id| drop(client.finish(id)));
                }
            })
        })
        .collect();
    let mut pipe = peer.piped(&daemon);
    let (mut answered, mut nothing) = (0, 0);
    for round in 0..200_u32 {
        let query = query(&pipe.link, "q");
        pipe.put(ASK, 9, query.to_string().as_bytes());
        // Now before the answer, now behind it: nobody can say when it is between the two.
        std::thread::sleep(Duration::from_micros(u64::from(round * 137 % 6_000)));
        pipe.put(DROP, 9, b"");
        let end = pipe.try_next().unwrap();
        assert_eq!(end.number, 9);
        if end.what == NONE {
            nothing += 1;
        } else {
            answered += 1;
            assert_eq!(end.json()["ref"], query["id"], "round {round}, {answered} answered, {nothing} not");
        }
    }
    done.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(pipe.link.outcome(&query(&pipe.link, "enough")), "response");
    answering.join().unwrap();
}
