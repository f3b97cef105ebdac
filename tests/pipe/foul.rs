//! A pipe that is malformed, and one that is not read.

use std::time::Duration;

use serde_json::{Value, json};

use super::{agent, alive, dropped_as, knows, note, query, says};
use crate::peer::foul::End;
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
    ("a first tell that is not the first", |pipe| tell(pipe, 2)),
    ("a tell 0", |pipe| tell(pipe, 0)),
    ("a tell twice", |pipe| [1, 1].into_iter().for_each(|number| tell(pipe, number))),
    ("a tell left out", |pipe| [1, 2, 4].into_iter().for_each(|number| tell(pipe, number))),
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
    let daemon = knows(&peer, "");
    let mut agent = agent(&daemon, 256);
    let mut pipe = peer.piped(&daemon);
    let asked: Vec<Value> = (1..=256).map(|n| query(&pipe.link, &n.to_string())).collect();
    asked.iter().for_each(|query| _ = pipe.ask(query));
    let requests: Vec<Value> = asked.iter().map(|_| agent.request()).collect();
    assert_eq!(requests, asked);
    // Beside the pipe there is room.
    assert_eq!(pipe.link.outcome(&pipe.link.envelope("ping", json!({}))), "pong");
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
fn what_does_not_fit_a_pipe_that_is_not_read_takes_streams() {
    // shows: WF-PIPE-4, WF-STR-3
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut client = daemon.client();
    let mut pipe = peer.dial_narrow(&daemon, 16_384).piping(&[]);
    let pad = "x".repeat(3_700);
    let asked: Vec<String> = (0..240).map(|n| client.ask("raw", &format!("{n} {pad}"), json!({}))).collect();
    // About 16 KiB are on the pipe and 256 KiB wait for it: no more than 75 of these.
    let mut streams = Vec::new();
    while streams.len() < 160 {
        streams.push(Call::Stream(pipe.link.request()));
    }
    // The daemon is not held up, neither here nor there.
    assert_eq!(pipe.link.outcome(&pipe.link.envelope("ping", json!({}))), "pong");
    let mut calls = pipe.gather(240 - streams.len());
    calls.append(&mut streams);
    for call in calls {
        let question = call.envelope()["payload"]["question"].as_str().unwrap().replace('x', "");
        pipe.reply(call, "response", says(&question));
    }
    for (n, req_id) in asked.iter().enumerate() {
        assert_eq!(client.finish(req_id)["response"]["payload"]["summary"], format!("{n} "));
    }
    pipe.link.nothing_opened();
}

/// Never reads its pipe, and asks on and on; every answer would be long. Ends when the connection does, when
/// the daemon reads no more of it, or when it has said so much.
fn greedy(peer: &RawPeer, daemon: &Daemon, make: impl Fn(&Pipe, u32) -> Vec<u8>) -> Result<u32, Fault> {
    let mut pipe = peer.dial_narrow(daemon, 16_384).piping(&[]);
    let mut said = 0;
    let end = std::time::Instant::now() + Duration::from_secs(2);
    while std::time::Instant::now() < end {
        let bytes: Vec<u8> = (0..8).flat_map(|n| make(&pipe, said + n)).collect();
        if pipe.write(&bytes).is_err() {
            break;
        }
        said += 8;
    }
    if pipe.link.is_open() { Ok(said) } else { Err(pipe.link.closed()) }
}

#[test]
fn whoever_does_not_read_is_the_only_one_to_feel_it() {
    // shows: WF-PIPE-4, WF-PIPE-8, WF-STR-10
    let (peer, good) = (RawPeer::new(), RawPeer::new());
    let daemon = Daemon::start(&format!("{}{}", peer.quiet_entry("raw"), good.quiet_entry("good")));
    let served = Served::begin(&good, &daemon);
    wait_for("the first answers", || (*served.peak_kib.lock().unwrap() > 0).then_some(()));
    let before = rss_kib(daemon.pid());
    // Answers without an agent: each is longer than its question, and none is ever read.
    let pings = greedy(&peer, &daemon, |pipe, number| {
        let ping = pipe.link.envelope("ping", json!({})).to_string();
        record(ASK, number, ping.as_bytes())
    });
    let bad = greedy(&peer, &daemon, |pipe, number| record(ASK, number, query(&pipe.link, "").to_string()
        .replace("\"question\"", "\"questio\"").as_bytes()));
    // Long answers of an agent.
    let mut long = daemon.answerer(json!({"answer":["query"],"kinds":[],"domains":["long"],"capacity":256}));
    let answering = std::thread::spawn(move || {
        let huge = "y".repeat(60_000);
        let mut answered = 0;
        loop {
            let event = long.event();
            if event["answer"] != true {
                continue;
            }
            let request = &event["envelope"];
            if request["payload"]["question"] == "enough" {
                long.reply(request, "response", says(""));
                return answered;
            }
            // It may be withdrawn already.
            answered += u32::from(long.reply(request, "response", says(&huge))["ok"] == true);
        }
    });
    let longs = greedy(&peer, &daemon, |pipe, number| {
        let query = pipe.link.envelope("query", json!({"question":"q","domain":"long"})).to_string();
        record(ASK, number, query.as_bytes())
    });
    let link = good.dial(&daemon).greeted();
    let enough = link.envelope("query", json!({"question":"enough","domain":"long"}));
    assert_eq!(link.outcome(&enough), "response");
    let answered = answering.join().unwrap();
    let grown = *served.peak_kib.lock().unwrap() - before;
    let (count, median, longest) = served.since();
    let words = format!(
        "pings {pings:?}, malformed {bad:?}, long answers {longs:?} ({answered}); {grown} KiB more; another \
         peer had {count} answers, in {median:?} (median) to {longest:?}"
    );
    // An asker that is given its due has 256 asks; so many answers of 60,000 bytes may wait, and no more.
    assert!(grown < 48 * 1_024, "{words}");
    assert!(longest < Duration::from_secs(2) && count > 50, "{words}");
    served.end();
    println!("{words}");
}

#[test]
fn a_stranger_has_no_pipe() {
    // shows: WF-STRANGER-2, WF-STRANGER-3
    let daemon = Daemon::start("");
    daemon.client().ok(json!({"cmd":"invite"}));
    let peer = RawPeer::new();
    let link = peer.dial(&daemon);
    let hello = link.ask(&link.offering(&["pipe"])).unwrap();
    assert_eq!((&hello["payload"]["stranger"], &hello["payload"]["features"]), (&json!(true), &json!(["knock"])));
    let knock = link.envelope("knock", json!({"name":"raw"})).to_string();
    let mut send = link.begin_uni(&[&[1], &record(ASK, 1, knock.as_bytes())[..]].concat());
    send.finish().unwrap();
    dropped_as(&daemon, "not_authorized", 1);
    link.nothing_opened();
    assert_eq!(daemon.client().ok(json!({"cmd":"status"}))["knocks"], 0);
    assert!(link.is_open());
    assert_ne!(link.end(), End::Closed(0, String::new()));
}
