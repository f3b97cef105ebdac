//! Connections that end while there is something on their pipes, and two real daemons.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{agent, alive, knows, note, query, says};
use crate::peer::pipe::{ANSWER, ASK, HEARD, NONE, Record, TELL, record};
use crate::peer::{Fault, RawPeer};
use crate::support::kept::{SOON, held_note, inbox, numbers, rejoin, rows, wait_outbox};
use crate::support::{Daemon, RawClient, pair_with, wait_for};

#[test]
fn what_had_no_end_is_sent_again_on_the_next_connection() {
    // shows: WF-PIPE-10, WF-RST-4, WF-PIPE-7
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut client = daemon.client();
    let asked = client.ask("raw", "again", json!({}));
    let told = [client.begin(note("a")), client.begin(note("b"))];
    let mut first: Option<(Record, Vec<Record>)> = None;
    for round in 0..3 {
        let mut pipe = peer.piped(&daemon);
        let ask = pipe.find(|record| record.what == ASK);
        let tells = [(); 2].map(|()| pipe.find(|record| record.what == TELL)).to_vec();
        match &first {
            // The same bytes.
            Some((ask_before, tells_before)) => {
                assert_eq!((&ask.body, &tells), (&ask_before.body, tells_before), "round {round}");
            }
            None => first = Some((ask.clone(), tells)),
        }
        if round == 2 {
            pipe.answer(&ask, "response", says("at last"));
            pipe.put(HEARD, 2, b"");
            assert_eq!(client.finish(&asked)["response"]["payload"]["summary"], "at last");
            told.iter().for_each(|req_id| assert_eq!(client.finish(req_id)["state"], "sent"));
            alive(&mut pipe);
        }
        pipe.link.close();
    }
    // What has had its end does not come again.
    let mut pipe = peer.piped(&daemon);
    alive(&mut pipe);
    // Three times in all.
    let asked = client.ask("raw", "never", json!({}));
    for _ in 0..3 {
        assert_eq!(pipe.next(ASK).json()["payload"]["question"], "never");
        pipe.link.close();
        pipe = peer.piped(&daemon);
    }
    assert_eq!(client.finish(&asked)["error"], "peer_unreachable");
    alive(&mut pipe);
    client.silent();
}

#[test]
fn what_the_peer_had_asked_ends_with_its_connection() {
    // shows: WF-PIPE-10, WF-REP-4, IPC-WD-1
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut agent = agent(&daemon, 16);
    let mut pipe = peer.piped(&daemon);
    let asked = [0, 1, 2].map(|n| query(&pipe.link, &n.to_string()));
    asked.iter().for_each(|query| _ = pipe.ask(query));
    let requests = [(); 3].map(|()| agent.request());
    pipe.link.close();
    let mut gone = [(); 3].map(|()| {
        let withdrawn = agent.event();
        assert_eq!((&withdrawn["event"], &withdrawn["reason"]), (&json!("withdrawn"), &json!("peer_gone")));
        withdrawn["ref"].as_str().unwrap().to_owned()
    });
    let mut ids = requests.each_ref().map(|request| request["id"].as_str().unwrap().to_owned());
    gone.sort();
    ids.sort();
    assert_eq!(gone, ids);
    assert_eq!(agent.reply(&requests[0], "response", says("late"))["error"], "not_found");
    // It had arrived: it is not asked twice.
    let mut pipe = peer.piped(&daemon);
    let number = pipe.ask(&asked[0]);
    assert_eq!(pipe.next(NONE).number, number);
    agent.silent();
}

#[test]
fn blocking_ends_what_is_open_on_the_pipe_and_no_word_comes_after() {
    // shows: WF-PIN-6, WF-PIPE-10, TRUST-OUT-1, TRUST-OUT-3, TRUST-OUT-4
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut agent = agent(&daemon, 16);
    let mut asker = daemon.client();
    for round in 0..8_u32 {
        let mut owner = daemon.answerer(json!({"kinds":["notify"],"replay":false}));
        let mut pipe = peer.piped(&daemon);
        let theirs = query(&pipe.link, "of the peer");
        pipe.ask(&theirs);
        let request = agent.request();
        let asked = asker.ask("raw", "of the client", json!({}));
        let ask = pipe.next(ASK);
        // Its words are on their way: tells, an answer, and asks that the daemon itself would answer.
        for n in 0..200 + 20 * round {
            pipe.tell(&pipe.link.note(u64::from(round * 1_000 + n)));
        }
        let pings: Vec<Value> = (0..20).map(|_| pipe.link.envelope("ping", json!({}))).collect();
        pings.iter().for_each(|ping| _ = pipe.ask(ping));
        let blocks = owner.begin(json!({"cmd":"trust","peer":peer.id,"trust":"blocked"}));
        let mut late = json!({"ref":ask.json()["id"]});
        late.as_object_mut()
            .unwrap()
            .extend(pipe.link.envelope("response", says("late")).as_object().unwrap().clone());
        pipe.write(&record(ANSWER, ask.number, late.to_string().as_bytes())).ok();
        assert_eq!(owner.finish(&blocks)["ok"], true);
        owner.events.clear();
        owner.silent();
        assert_eq!(rows(&inbox(&mut owner)).len(), 0);
        assert_eq!(pipe.closed(), Fault::Closed(0, "not known here any more".to_owned()));
        let reply = asker.finish(&asked);
        // The answer may have come before the command did.
        assert!(reply["error"] == "peer_unreachable" || reply["response"]["payload"]["summary"] == "late");
        let withdrawn = agent.event_where(|event| event["event"] == "withdrawn");
        assert_eq!((&withdrawn["ref"], &withdrawn["reason"]), (&theirs["id"], &json!("peer_gone")));
        assert_eq!(agent.reply(&request, "response", says("s"))["error"], "not_found");
        let status = owner.ok(json!({"cmd":"status"}));
        assert_eq!((&status["open_requests"], &status["peers_connected"]), (&json!(0), &json!(0)));
        owner.ok(json!({"cmd":"trust","peer":peer.id,"trust":"known"}));
    }
    alive(&mut peer.piped(&daemon));
}

#[test]
fn a_superseded_connection_gets_nothing_new_and_ends_although_it_has_pipes() {
    // shows: WF-DUP-2, WF-DUP-3, WF-DUP-4
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let mut agent = agent(&daemon, 16);
    let mut client = daemon.client();
    let mut old = peer.piped(&daemon);
    alive(&mut old);
    let asked = client.ask("raw", "before", json!({}));
    let before = old.next(ASK);
    let number = old.ask(&query(&old.link, "on the old one"));
    let request = agent.request();
    // It says no boot: the newer connection is the one.
    let mut new = peer.piped(&daemon);
    alive(&mut new);
    let after = client.ask("raw", "after", json!({}));
    let ask = new.next(ASK);
    assert_eq!(ask.json()["payload"]["question"], "after");
    new.answer(&ask, "response", says("new"));
    assert_eq!(client.finish(&after)["response"]["payload"]["summary"], "new");
    // What was open goes on where it is, both ways; what still comes there is taken.
    agent.respond(&request, "old");
    assert_eq!(old.of(ANSWER, number).json()["payload"]["summary"], "old");
    old.answer(&before, "response", says("old"));
    assert_eq!(client.finish(&asked)["response"]["payload"]["summary"], "old");
    alive(&mut old);
    let Fault::Closed(code, _) = old.closed() else { panic!("the old one ends in another way") };
    assert_eq!(code, 2);
    alive(&mut new);
}

#[test]
fn a_daemon_that_stops_answers_what_is_open_on_the_pipe() {
    // shows: WF-STOP-1, WF-PIPE-1, WF-PIPE-6
    let peer = RawPeer::new();
    let mut daemon = knows(&peer, "");
    let mut agent = agent(&daemon, 1);
    let mut pipe = peer.piped(&daemon);
    let held = pipe.ask(&query(&pipe.link, "held"));
    let request = agent.request();
    let waits = pipe.ask(&query(&pipe.link, "waits"));
    alive(&mut pipe);
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(pipe.of(ANSWER, waits).json()["payload"]["code"], "overloaded");
    let new = pipe.ask(&query(&pipe.link, "new"));
    assert_eq!(pipe.of(ANSWER, new).json()["payload"]["code"], "overloaded");
    agent.respond(&request, "the last word");
    assert_eq!(pipe.of(ANSWER, held).json()["payload"]["summary"], "the last word");
    let Fault::Closed(code, _) = pipe.closed() else { panic!("it ends in another way") };
    assert_eq!(code, 5);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

// --- two daemons ---

/// Answers all that it is asked with the question, until it is told to stop or its daemon ends; how often
/// each was asked.
fn answering(daemon: &Daemon, most: usize) -> std::thread::JoinHandle<BTreeMap<String, usize>> {
    let stream = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
    let mut agent = RawClient::over(stream);
    agent.hello();
    agent.subscribe(json!({"answer":["query"],"kinds":["query"],"capacity":100}));
    std::thread::spawn(move || {
        let mut asked = BTreeMap::new();
        let mut answered = 0;
        // A line may be torn by the daemon's end: what is no line ends it as well.
        while let Some(line) = agent.line() {
            if line["answer"] != true {
                continue;
            }
            let question = line["envelope"]["payload"]["question"].as_str().unwrap();
            if question == "stop" {
                agent.respond(&line["envelope"], "stop");
                return asked;
            }
            *asked.entry(question.to_owned()).or_default() += 1;
            if answered < most {
                answered += 1;
                let payload = says(question);
                let reply = json!({"cmd":"reply","req_id":"r","ref":line["envelope"]["id"],
                    "kind":"response","payload":payload});
                // The daemon may end between what was read and this.
                if !agent.try_raw(format!("{reply}\n").as_bytes()) {
                    break;
                }
            }
        }
        asked
    })
}

#[test]
fn two_daemons_with_much_in_flight_and_one_of_them_killed() {
    // shows: WF-PIPE-2, WF-PIPE-3, WF-PIPE-10, WF-RST-1, WF-RST-4, WF-STR-12, IPC-OUT-3
    let (alice, mut bob) = pair_with(SOON, SOON);
    let first = answering(&bob, 20);
    let mut client = alice.client();
    let mut notes = alice.client();
    let mut asked = Vec::new();
    let mut held = Vec::new();
    for n in 0..64_u64 {
        let pad = if n % 4 == 3 { 20_000 } else { 20 };
        let question = format!("{n} {}", "x".repeat(pad));
        asked.push((client.ask("bob", &question, json!({"deadline_ms":8_000})), question));
        held.push(notes.begin(held_note("bob", n)));
    }
    // Some have their answers, some are with the agent, some are on their way.
    for (req_id, question) in &asked[..3] {
        assert_eq!(client.finish(req_id)["response"]["payload"]["summary"], *question);
    }
    bob.kill9();
    first.join().unwrap();
    bob.up();
    let second = answering(&bob, usize::MAX);
    rejoin(&alice, &bob);
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for (req_id, question) in &asked[3..] {
        let reply = client.finish(req_id);
        let end = match reply["response"]["kind"].as_str() {
            Some("response") => {
                assert_eq!(reply["response"]["payload"]["summary"], *question);
                "answered".to_owned()
            }
            Some(_) => reply["response"]["payload"]["code"].to_string(),
            None => reply["error"].to_string(),
        };
        *ends.entry(end).or_default() += 1;
    }
    for req_id in &held {
        let reply = notes.finish(req_id);
        assert_eq!(reply["ok"], true, "{reply}");
        wait_outbox(&mut notes, &reply["msg_id"], "delivered");
    }
    assert_eq!(numbers(&inbox(&mut bob.client())), (0..64).collect::<Vec<u64>>(), "each once, in order");
    // Between them it is as before.
    for n in 0..32 {
        let question = format!("after {n}");
        let asked = client.ask("bob", &question, json!({}));
        assert_eq!(client.finish(&asked)["response"]["payload"]["summary"], question);
    }
    client.ask("bob", "stop", json!({}));
    let asked = second.join().unwrap();
    assert!(asked.values().all(|times| *times == 1), "{asked:?}");
    client.silent();
    let refused = ["\"peer_unreachable\"", "\"timeout\"", "\"unhandled\"", "\"internal\""];
    assert!(ends.keys().all(|end| end == "answered" || refused.contains(&&**end)), "{ends:?}");
    assert_eq!(ends.values().sum::<usize>(), 61);
    let status = || alice.client().ok(json!({"cmd":"status"}))["open_requests"] == 0;
    wait_for("nothing to be open", || status().then_some(()));
}

#[test]
fn two_daemons_with_long_answers_that_come_all_at_once() {
    // shows: WF-PIPE-2, WF-PIPE-4, WF-PIPE-6, WF-STR-11
    // Both have just dialled: for a moment there may be two connections, and each takes its 256.
    let (alice, bob) = pair_with("", "[policy.known]\nin_flight_max = 1024\n");
    let mut agent = agent(&bob, 256);
    let mut clients = [alice.client(), alice.client()];
    let asked: Vec<Vec<String>> = clients
        .iter_mut()
        .map(|client| (0..200).map(|n| client.ask("bob", &n.to_string(), json!({}))).collect())
        .collect();
    let answering = std::thread::spawn(move || {
        // So many are under way, and the others wait.
        let mut held: Vec<Value> = (0..240).map(|_| agent.request()).collect();
        for n in 0..400 {
            let request = held.pop().unwrap_or_else(|| agent.request());
            let question = request["payload"]["question"].as_str().unwrap();
            let payload = says(&format!("{question} {}", "y".repeat(40_000)));
            let reply = json!({"cmd":"reply","req_id":n.to_string(),"ref":request["id"],
                "kind":"response","payload":payload});
            agent.raw(format!("{reply}\n").as_bytes());
        }
        (0..400).for_each(|n: u32| assert_eq!(agent.finish(&n.to_string())["ok"], true));
    });
    for (client, asked) in clients.iter_mut().zip(&asked) {
        for (n, req_id) in asked.iter().enumerate() {
            let reply = client.finish(req_id);
            let summary = reply["response"]["payload"]["summary"].as_str();
            let summary = summary.unwrap_or_else(|| panic!("{n}: {reply}"));
            assert!(summary.starts_with(&format!("{n} ")) && summary.len() > 40_000, "{n}");
        }
    }
    answering.join().unwrap();
}

#[test]
fn the_asker_killed_withdraws_what_it_asked() {
    // shows: WF-PIPE-10, WF-RST-1, IPC-WD-1
    let (mut alice, bob) = pair_with(SOON, SOON);
    let mut agent = agent(&bob, 100);
    let mut client = alice.client();
    (0..64).for_each(|n| drop(client.ask("bob", &n.to_string(), json!({}))));
    let mut open: Vec<Value> = (0..64).map(|_| agent.request()["id"].clone()).collect();
    alice.kill9();
    drop(client);
    alice.up();
    let gone = |event: &Value| event["event"] == "withdrawn" && event["reason"] == "peer_gone";
    let mut withdrawn: Vec<Value> = (0..64).map(|_| agent.event_where(gone)["ref"].clone()).collect();
    open.sort_by_key(Value::to_string);
    withdrawn.sort_by_key(Value::to_string);
    assert_eq!(open, withdrawn);
    rejoin(&alice, &bob);
    let mut client = alice.client();
    let asked = client.ask("bob", "and now", json!({}));
    agent.answer_one("now");
    assert_eq!(client.finish(&asked)["response"]["payload"]["summary"], "now");
    let status = bob.client().ok(json!({"cmd":"status"}));
    assert_eq!(status["open_requests"], 0, "{status}");
}
