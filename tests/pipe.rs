//! The feature `pipe` as the other end of the wire has it: a peer that writes its records by hand, against a
//! real daemon. What is malformed, and two real daemons, are in `pipe/`.

mod foul;
mod lost;

use serde_json::{Value, json};

use crate::peer::pipe::{ANSWER, ASK, Call, DROP, HEARD, NONE, Pipe, Record, TELL, offers_pipe, record};
use crate::peer::{Link, RawPeer};
use crate::support::kept::{dropped, inbox, numbers, outbox_row};
use crate::support::{Daemon, RawClient, introduce, wait_for};

/// A daemon that knows this peer as `raw`, and that dials nobody for long.
fn knows(peer: &RawPeer, config: &str) -> Daemon {
    Daemon::start(&format!("{config}{}", peer.quiet_entry("raw")))
}

/// The same, with an agent that holds so many requests at once.
fn agent(daemon: &Daemon, capacity: u64) -> RawClient {
    daemon.answerer(json!({"answer":["query","delegate","cancel"],"kinds":["query"],"capacity":capacity}))
}

fn query(link: &Link, question: &str) -> Value {
    link.envelope("query", json!({"question":question}))
}

fn says(summary: &str) -> Value {
    json!({"data":null,"summary":summary})
}

fn dropped_as(daemon: &Daemon, cause: &str, count: u64) {
    let mut client = daemon.client();
    wait_for(&format!("{count} {cause}"), || (dropped(&mut client, cause) == count).then_some(()));
}

/// Waits until that many notifies are in the inbox; they must be these, in this order.
fn shown(client: &mut RawClient, data: &[u64]) {
    let all = |client: &mut RawClient| numbers(&inbox(client));
    wait_for("the rows", || (all(client).len() >= data.len()).then_some(()));
    assert_eq!(all(client), data);
}

/// It works: a ping on the pipe is answered there, and nothing else is ended before it.
fn alive(pipe: &mut Pipe) {
    let number = pipe.ask(&pipe.link.envelope("ping", json!({})));
    let pong = pipe.find(|record| record.what != HEARD);
    assert_eq!((pong.number, &pong.json()["kind"]), (number, &json!("pong")), "{}", pong.json());
}

/// A client's command to send a notify with this in it.
fn note(data: &str) -> Value {
    json!({"cmd":"send","to":"raw","kind":"notify","payload":{"topic":"t","data":data}})
}

// --- when there is one ---

/// Small messages of the daemon come on one stream, large ones on their own: so many were opened before.
fn shares_one_stream(client: &mut RawClient, pipe: &mut Pipe, early: &str, streams: u64) {
    let first = pipe.next(ASK);
    assert_eq!(first.json()["payload"]["question"], "early");
    let begun: Vec<String> = (0..5).map(|n| client.ask("raw", &n.to_string(), json!({}))).collect();
    let told = [client.begin(note("a")), client.begin(note("b"))];
    for (number, data) in [(1, "a"), (2, "b")] {
        let tell = pipe.find(|record| record.what == TELL);
        assert_eq!((tell.number, &tell.json()["payload"]["data"]), (number, &json!(data)));
    }
    let mut asks: Vec<Record> = begun.iter().map(|_| pipe.next(ASK)).collect();
    let mut taken: Vec<u32> = asks.iter().chain([&first]).map(|ask| ask.number).collect();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), 6, "numbers that are in use are not given again");
    // In another order.
    asks.reverse();
    for ask in &asks {
        pipe.answer(ask, "response", says(ask.json()["payload"]["question"].as_str().unwrap()));
    }
    pipe.answer(&first, "error", json!({"code":"overloaded","message":"m","retryable":true}));
    for (n, req_id) in begun.iter().enumerate() {
        let reply = client.finish(req_id);
        assert_eq!(reply["response"]["payload"]["summary"], n.to_string(), "{reply}");
    }
    assert_eq!(client.finish(early)["response"]["payload"]["code"], "overloaded");
    pipe.put(HEARD, 2, b"");
    told.iter().for_each(|req_id| assert_eq!(client.finish(req_id)["state"], "sent"));

    // All of that took one stream.
    let large = client.ask("raw", &"x".repeat(5_000), json!({}));
    let request = pipe.link.request();
    assert_eq!((request.send.id().index(), pipe.index()), (streams, 0));
    pipe.link.answer(request, "response", says("so"));
    client.finish(&large);
    let large = client.begin(note(&"x".repeat(5_000)));
    let (index, bytes) = pipe.link.next_uni();
    assert_eq!((index, bytes[0]), (1, b'{'));
    assert_eq!(client.finish(&large)["state"], "sent");
}

#[test]
fn small_messages_share_one_stream_once_hello_is_done() {
    // shows: WF-PIPE-1, WF-PIPE-2, WF-PIPE-3, WF-PIPE-6, WF-PIPE-7, WF-HEL-1, WF-ENV-6
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut client = daemon.client();
    let link = peer.dial(&daemon);
    let early = client.ask("raw", "early", json!({}));
    client.ok(json!({"cmd":"status"}));
    link.nothing_opened();
    shares_one_stream(&mut client, &mut link.piping(&[]), &early, 0);

    // The daemon dials.
    let peer = RawPeer::new();
    let daemon = Daemon::start(&peer.quiet_entry("raw").replace(":9\"", &format!(":{}\"", peer.port)));
    let mut client = daemon.client();
    let link = peer.accept(&daemon).unwrap();
    let hello = link.request();
    assert!(offers_pipe(&hello.envelope), "{}", hello.envelope);
    let early = client.ask("raw", "early", json!({}));
    client.ok(json!({"cmd":"status"}));
    link.nothing_opened();
    link.say_hello(hello, &["pipe"]);
    shares_one_stream(&mut client, &mut Pipe::over(link), &early, 1);
}

#[test]
fn a_pipe_that_overtakes_the_hello_answer_is_read_after_it() {
    // shows: WF-HEL-3, WF-PIPE-1
    let peer = RawPeer::new();
    let daemon = Daemon::start(&peer.entry());
    let link = peer.accept(&daemon).unwrap();
    let hello = link.request();
    let mut pipe = Pipe::over(link.clone());
    let ping = pipe.ask(&link.envelope("ping", json!({})));
    let tell = pipe.tell(&link.note(1));
    link.nothing_opened();
    link.say_hello(hello, &["pipe"]);
    assert_eq!(pipe.of(ANSWER, ping).json()["kind"], "pong");
    pipe.of(HEARD, tell);
    shown(&mut daemon.client(), &[1]);
}

/// The daemon uses streams, and takes a pipe for what it is without one: no message.
fn streams_only(daemon: &Daemon, link: &Link) {
    let mut client = daemon.client();
    let asked = client.ask("raw", "q", json!({}));
    let request = link.request();
    link.answer(request, "response", says("s"));
    assert_eq!(client.finish(&asked)["response"]["payload"]["summary"], "s");
    let told = client.begin(note("n"));
    assert_eq!(link.one_way()["payload"]["data"], "n");
    assert_eq!(client.finish(&told)["state"], "sent");
    let before = dropped(&mut client, "malformed");
    let ping = link.envelope("ping", json!({})).to_string();
    link.tell_raw(&[&[1], &record(ASK, 1, ping.as_bytes())[..]].concat());
    dropped_as(daemon, "malformed", before + 1);
    assert_eq!(link.ask(&link.envelope("ping", json!({}))).unwrap()["kind"], "pong");
    link.nothing_opened();
}

#[test]
fn without_the_feature_on_either_side_there_are_streams() {
    // shows: WF-PIPE-1, WF-CLOSE-1, WF-FEA-2, WF-HEL-7, CORE-HELLO-3
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let link = peer.dial(&daemon);
    let hello = link.greet().unwrap();
    assert!(offers_pipe(&hello), "{hello}");
    // A further hello changes nothing.
    link.ask(&link.offering(&["pipe"])).unwrap();
    streams_only(&daemon, &link);
    // Settled at the start.
    daemon.set_config(&format!("pipe = false\n{}", peer.quiet_entry("raw")));
    daemon.reload();
    assert!(offers_pipe(&link.greet().unwrap()));
    alive(&mut peer.piped(&daemon));

    let daemon = knows(&peer, "pipe = false\n");
    let link = peer.dial(&daemon);
    let hello = link.ask(&link.offering(&["pipe"])).unwrap();
    assert!(!offers_pipe(&hello), "{hello}");
    streams_only(&daemon, &link);
    let other = Daemon::start("");
    introduce(&other, &daemon);
    let mut theirs = agent(&daemon, 1);
    let mut client = other.client();
    let asked = client.ask("bob", "q", json!({}));
    theirs.answer_one("a");
    assert_eq!(client.finish(&asked)["response"]["payload"]["summary"], "a");
}

#[test]
fn a_pipe_before_hello_carries_nothing() {
    // shows: WF-HEL-2
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut agent = agent(&daemon, 1);
    let link = peer.dial(&daemon);
    let mut pipe = Pipe::over(link.clone());
    pipe.ask(&query(&link, "too early"));
    pipe.finish();
    // Which of the two it is counted as is the daemon's choice: WF-ERR-3.
    let mut client = daemon.client();
    let counted = |client: &mut RawClient| dropped(client, "before_hello") + dropped(client, "malformed");
    wait_for("it to be dropped", || (counted(&mut client) == 1).then_some(()));
    link.nothing_opened();
    let mut pipe = link.piping(&[]);
    alive(&mut pipe);
    agent.silent();
}

#[test]
fn a_pipe_behind_a_hello_in_0rtt_is_read() {
    // shows: WF-0RTT-3, WF-PIPE-1
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let first = peer.dial(&daemon).piping(&[]).link;
    first.ask(&first.envelope("ping", json!({}))).unwrap();
    for _ in 0..10 {
        let (link, taken, answers) = peer.dial_early(&daemon, &[first.offering(&["pipe"])]);
        assert!(taken, "the session is resumed");
        let hello: Value = serde_json::from_slice(answers[0].as_ref().unwrap()).unwrap();
        assert!(offers_pipe(&hello), "{hello}");
        alive(&mut Pipe::over(link.clone()));
        link.close();
    }
}

// --- what the peer asks ---

#[test]
fn asks_are_answered_in_any_order_under_their_numbers() {
    // shows: WF-PIPE-3, WF-PIPE-6, WF-ENV-6, WF-STR-3
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut agent = agent(&daemon, 16);
    let mut pipe = peer.piped(&daemon);
    let given = [70, 0, u32::MAX, 71, 0x0102_0304];
    let asked = given.map(|number| {
        let query = query(&pipe.link, &number.to_string());
        pipe.put(ASK, number, query.to_string().as_bytes());
        query
    });
    let mut requests = asked.each_ref().map(|query| {
        let request = agent.request();
        assert_eq!(&request, query, "as it came, and in its order");
        request
    });
    // In between, on the pipe and beside it.
    alive(&mut pipe);
    let capabilities = pipe.asked(&pipe.link.envelope("discover", json!({})));
    assert_eq!(capabilities["kind"], "capabilities");
    assert_eq!(pipe.link.outcome(&pipe.link.envelope("ping", json!({}))), "pong");
    requests.reverse();
    for request in &requests {
        agent.respond(request, request["payload"]["question"].as_str().unwrap());
        let answer = pipe.next(ANSWER);
        let at = given.iter().position(|number| *number == answer.number).expect("a number that was given");
        let json = answer.json();
        assert_eq!((&json["kind"], &json["ref"]), (&json!("response"), &request["id"]));
        assert_eq!((&json["ref"], &json["from"]), (&asked[at]["id"], &json!(daemon.id())));
        assert_eq!(json["payload"]["summary"], given[at].to_string());
    }
    // A number is free once it has its answer.
    let again = query(&pipe.link, "again");
    pipe.put(ASK, 70, again.to_string().as_bytes());
    agent.answer_one("again");
    assert_eq!(pipe.of(ANSWER, 70).json()["ref"], again["id"]);
}

#[test]
fn a_delegation_is_acked_on_the_pipe_and_its_result_is_sent_once_it_is_heard() {
    // shows: WF-PIPE-3, WF-PIPE-6, WF-PIPE-7, WF-STR-9, CORE-DEL-1
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut agent = agent(&daemon, 16);
    let mut pipe = peer.piped(&daemon);
    let task = pipe.link.envelope("delegate", json!({"task":"t"}));
    let number = pipe.ask(&task);
    let work = agent.request();
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true,"estimated_ms":5}))["ok"], true);
    let ack = pipe.of(ANSWER, number).json();
    assert_eq!((&ack["kind"], &ack["payload"]["estimated_ms"]), (&json!("ack"), &json!(5)));

    let result = json!({"cmd":"reply","ref":work["id"],"kind":"result",
        "payload":{"status":"completed","outcome":"o"}});
    let replied = agent.begin(result);
    let result = pipe.next(TELL);
    assert_eq!((result.number, &result.json()["ref"]), (1, &task["id"]));
    // The transport has acknowledged it by now; that is not enough.
    alive(&mut pipe);
    let mut client = daemon.client();
    assert_ne!(outbox_row(&mut client, &result.json()["id"]).unwrap()["state"], "sent");
    pipe.put(HEARD, 1, b"");
    assert_eq!(agent.finish(&replied)["state"], "sent");

    // To one that gives receipts it goes as an ask.
    let mut pipe = peer.dial(&daemon).piping(&["receipt"]);
    let task = pipe.link.envelope("delegate", json!({"task":"t"}));
    let number = pipe.ask(&task);
    let work = agent.request();
    agent.reply(&work, "ack", json!({"accepted":true}));
    pipe.of(ANSWER, number);
    let result = json!({"cmd":"reply","ref":work["id"],"kind":"result",
        "payload":{"status":"completed","outcome":"o"}});
    let replied = agent.begin(result);
    let result = pipe.next(ASK);
    assert_eq!(result.json()["ref"], task["id"]);
    pipe.answer(&result, "ack", json!({"accepted":true}));
    assert_eq!(agent.finish(&replied)["state"], "delivered");
}

#[test]
fn one_way_messages_get_receipts_as_asks_and_replays_none() {
    // shows: WF-PIPE-6, WF-STR-9, WF-STR-12, WF-REP-4, WF-REP-6, WF-REP-7
    let peer = RawPeer::new();
    let mut daemon = knows(&peer, "");
    let mut answers = agent(&daemon, 16);
    let mut pipe = peer.dial(&daemon).piping(&["receipt"]);
    let note = pipe.link.note(1);
    for _ in 0..2 {
        let receipt = pipe.asked(&note);
        assert_eq!((&receipt["kind"], &receipt["payload"]), (&json!("ack"), &json!({"accepted":true})));
    }
    dropped_as(&daemon, "replayed", 1);
    let asked = query(&pipe.link, "once");
    let number = pipe.ask(&asked);
    answers.answer_one("a");
    pipe.of(ANSWER, number);
    // On the pipe, beside it, and again.
    let number = pipe.ask(&asked);
    let none = pipe.next(NONE);
    assert_eq!((none.number, none.body.len()), (number, 0));
    assert!(pipe.link.ask(&asked).is_err());
    let number = pipe.ask(&asked);
    assert_eq!(pipe.next(NONE).number, number);
    dropped_as(&daemon, "replayed", 4);
    answers.silent();
    assert_eq!(numbers(&inbox(&mut daemon.client())), [1]);
    // The receipt said that it is on disk.
    daemon.kill9();
    daemon.up();
    assert_eq!(numbers(&inbox(&mut daemon.client())), [1]);
}

#[test]
fn a_fault_in_a_message_is_answered_there_and_the_pipe_goes_on() {
    // shows: WF-PIPE-6, WF-PIPE-7, WF-PIPE-8, WF-ERR-1, WF-ERR-2, WF-CLOSE-1, WF-STR-8
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut agent = agent(&daemon, 16);
    let mut pipe = peer.piped(&daemon);
    let faults = [
        ("/from", json!(daemon.id()), "not_authorized"),
        ("/to", json!(peer.id), "peer_not_found"),
        ("/v", json!(2), "incompatible_version"),
        ("/v", json!(0), "invalid_envelope"),
        ("/payload", json!([]), "invalid_envelope"),
        ("/payload/question", json!(1), "invalid_envelope"),
        ("/kind", json!("carrier"), "unknown_kind"),
        ("/kind", json!("response"), "invalid_envelope"),
    ];
    for (field, value, code) in faults {
        let mut bad = query(&pipe.link, "q");
        *bad.pointer_mut(field).unwrap() = value;
        let answer = pipe.asked(&bad);
        assert_eq!((&answer["kind"], &answer["payload"]["code"]), (&json!("error"), &json!(code)), "{field}");
    }
    let mut nameless = query(&pipe.link, "q");
    nameless["id"] = "x".into();
    for (number, body) in
        [(100, &b"{"[..]), (101, b""), (102, b"\xff"), (103, nameless.to_string().as_bytes())]
    {
        pipe.put(ASK, number, body);
        assert_eq!((pipe.next(NONE).number, number), (number, number));
    }
    // The same in what nobody answers: dropped, counted, and heard.
    let mut client = daemon.client();
    let before = dropped(&mut client, "malformed");
    pipe.tell(&nameless);
    pipe.put(TELL, 2, b"{");
    pipe.put(TELL, 3, query(&pipe.link, "q").to_string().as_bytes());
    pipe.of(HEARD, 3);
    dropped_as(&daemon, "malformed", before + 2);
    dropped_as(&daemon, "wrong_stream", 1);
    pipe.put(TELL, 4, pipe.link.note(4).to_string().as_bytes());
    pipe.of(HEARD, 4);
    alive(&mut pipe);
    agent.silent();
    shown(&mut client, &[4]);
}

#[test]
fn whoever_drops_an_ask_ends_it_but_no_delegation() {
    // shows: WF-PIPE-5, WF-PIPE-6, WF-PIPE-9, WF-STR-7, IPC-WD-1
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut agent = agent(&daemon, 16);
    let mut pipe = peer.piped(&daemon);
    for round in 0..3 {
        // The number is free again each time.
        let asked = query(&pipe.link, &round.to_string());
        pipe.put(ASK, 9, asked.to_string().as_bytes());
        let request = agent.request();
        pipe.put(DROP, 9, b"");
        let withdrawn = agent.event();
        assert_eq!(
            (&withdrawn["event"], &withdrawn["ref"], &withdrawn["reason"]),
            (&json!("withdrawn"), &asked["id"], &json!("peer_gone"))
        );
        assert_eq!(pipe.next(NONE), Record { what: NONE, number: 9, body: Vec::new() });
        assert_eq!(agent.reply(&request, "response", says("late"))["error"], "not_found");
    }
    // One that is not known, and one that has its answer: nothing comes of it.
    pipe.put(DROP, 77, b"");
    pipe.put(DROP, 9, b"");
    alive(&mut pipe);
    pipe.put(DROP, 1, b"");
    alive(&mut pipe);

    let task = pipe.link.envelope("delegate", json!({"task":"t"}));
    let number = pipe.ask(&task);
    let work = agent.request();
    pipe.put(DROP, number, b"");
    pipe.of(NONE, number);
    alive(&mut pipe);
    agent.silent();
    assert_eq!(agent.reply(&work, "ack", json!({"accepted":true}))["ok"], true);
    alive(&mut pipe);
    // It has gone on: its sender may ask for its state.
    let number = pipe.ask(&task);
    assert_eq!(pipe.of(ANSWER, number).json()["payload"]["accepted"], true);
}

#[test]
fn tells_are_heard_and_stay_in_order() {
    // shows: WF-PIPE-3, WF-PIPE-7, WF-PIPE-9
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut pipe = peer.piped(&daemon);
    let mut bytes = Vec::new();
    for n in 1..=300_u32 {
        // What a later version may add stands between.
        if n.is_multiple_of(7) {
            bytes.extend(record(250, n, &vec![b'x'; usize::try_from(n).unwrap()]));
        }
        bytes.extend(record(TELL, n, pipe.link.note(n.into()).to_string().as_bytes()));
    }
    // Torn into parts as it may be torn on its way.
    for part in bytes.chunks(977) {
        pipe.write(part).unwrap();
    }
    let mut heard = 0;
    while heard < 300 {
        let next = pipe.next(HEARD);
        assert!(next.number > heard && next.number <= 300 && next.body.is_empty(), "{next:?} after {heard}");
        heard = next.number;
    }
    let mut client = daemon.client();
    shown(&mut client, &(1..=300).collect::<Vec<u64>>());
    alive(&mut pipe);
}

// --- what the daemon asks ---

#[test]
fn the_size_of_a_message_decides_and_not_that_of_its_answer() {
    // shows: WF-PIPE-2, WF-PIPE-3
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut client = daemon.client();
    let mut agent = agent(&daemon, 16);
    let mut pipe = peer.piped(&daemon);
    let empty = client.ask("raw", "", json!({}));
    let ask = pipe.next(ASK);
    let room = 4_096 - ask.body.len();
    let huge = "y".repeat(60_000);
    pipe.answer(&ask, "response", says(&huge));
    assert_eq!(client.finish(&empty)["response"]["payload"]["summary"], huge);
    let fits = client.ask("raw", &"x".repeat(room), json!({}));
    let ask = pipe.next(ASK);
    assert_eq!(ask.body.len(), 4_096);
    let not = client.ask("raw", &"x".repeat(room + 1), json!({}));
    let request = pipe.link.request();
    // Behind it on the pipe, before it at the end.
    pipe.answer(&ask, "response", says("fits"));
    assert_eq!(client.finish(&fits)["response"]["payload"]["summary"], "fits");
    pipe.link.answer(request, "response", says(&huge));
    assert_eq!(client.finish(&not)["response"]["payload"]["summary"], huge);

    let number = pipe.ask(&query(&pipe.link, "much?"));
    agent.answer_one(&huge);
    let answer = pipe.next(ANSWER);
    assert!(answer.number == number && answer.body.len() > 60_000);
    assert_eq!(answer.json()["payload"]["summary"], huge);
    let asked = query(&pipe.link, &"x".repeat(50_000));
    let mut half = pipe.link.open().unwrap();
    half.write(asked.to_string().as_bytes()).unwrap();
    half.finish();
    agent.answer_one(&huge);
    let answer: Value = serde_json::from_slice(&half.read().unwrap()).unwrap();
    assert_eq!((&answer["ref"], &answer["payload"]["summary"]), (&asked["id"], &json!(huge)));
}

#[test]
fn a_client_that_waited_long_enough_drops_its_ask() {
    // shows: WF-PIPE-5, WF-PIPE-6, CORE-QUERY-4
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut client = daemon.client();
    let mut pipe = peer.piped(&daemon);
    let asked: Vec<String> = (0..2).map(|_| client.ask("raw", "q", json!({"deadline_ms":100}))).collect();
    let asks = [pipe.next(ASK), pipe.next(ASK)];
    asked.iter().for_each(|req_id| assert_eq!(client.finish(req_id)["error"], "timeout"));
    asks.iter().for_each(|ask| drop(pipe.of(DROP, ask.number)));
    // An answer that was on its way, and what the page says otherwise.
    pipe.answer(&asks[0], "response", says("late"));
    pipe.put(NONE, asks[1].number, b"");
    alive(&mut pipe);
    // `none` is what a reset is to whoever asked on a stream.
    let small = client.ask("raw", "small", json!({}));
    let ask = pipe.next(ASK);
    pipe.put(NONE, ask.number, b"");
    let small = client.finish(&small);
    let large = client.ask("raw", &"x".repeat(5_000), json!({}));
    pipe.link.request().send.reset(0_u32.into()).unwrap();
    let large = client.finish(&large);
    assert_eq!((&small["ok"], &small["error"]), (&json!(false), &large["error"]), "{small} {large}");
    // So is an answer with a fault.
    let asked = client.ask("raw", "q", json!({}));
    let ask = pipe.next(ASK);
    pipe.put(ANSWER, ask.number, b"{");
    assert_eq!(client.finish(&asked)["ok"], false);
    alive(&mut pipe);
}

#[test]
fn three_hundred_requests_to_one_that_answers_late() {
    // shows: WF-PIPE-4, WF-STR-11, WF-STR-5
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut pipe = peer.dial_narrow(&daemon, 1 << 20).piping(&[]);
    let (mut one, mut two) = (daemon.client(), daemon.client());
    // No client waits for more than 256; queries beyond 240 wait here, pings do not.
    let mut asked: Vec<Vec<(String, String)>> = Vec::new();
    for (client, name) in [(&mut one, "one"), (&mut two, "two")] {
        let mut begun: Vec<_> = (0..130)
            .map(|n| (client.ask("raw", &format!("{name} {n}"), json!({})), format!("{name} {n}")))
            .collect();
        let ping = json!({"cmd":"send","to":"raw","kind":"ping","payload":{}});
        begun.extend((0..20).map(|_| (client.begin(ping.clone()), String::new())));
        asked.push(begun);
    }
    let mut calls = pipe.gather(280);
    pipe.link.nothing_opened();
    let queries = |calls: &[Call]| calls.iter().filter(|call| call.envelope()["kind"] == "query").count();
    let asks = |calls: &[Call]| calls.iter().filter(|call| matches!(call, Call::Ask(_))).count();
    assert!(asks(&calls) <= 256 && asks(&calls) > 200, "{}", asks(&calls));
    assert_eq!(queries(&calls), 240);
    let mut seen = 0;
    while seen < 300 {
        calls.reverse();
        for call in calls.drain(..) {
            seen += 1;
            let envelope = call.envelope();
            match envelope["payload"]["question"].as_str() {
                Some(question) => pipe.reply(call, "response", says(question)),
                None => pipe.reply(call, "pong", json!({"status":"idle","uptime_secs":1,"active_tasks":0})),
            }
        }
        if seen == 280 {
            calls = pipe.gather(20);
            assert_eq!(queries(&calls), 20);
        }
    }
    for (client, asked) in [(&mut one, &asked[0]), (&mut two, &asked[1])] {
        for (req_id, question) in asked {
            let reply = client.finish(req_id);
            match question.is_empty() {
                true => assert_eq!(reply["response"]["kind"], "pong", "{reply}"),
                false => assert_eq!(reply["response"]["payload"]["summary"], *question, "{reply}"),
            }
        }
        client.silent();
    }
    assert!(pipe.kept.is_empty(), "{:?}", pipe.kept);
}
