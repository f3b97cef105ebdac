//! Agents answer queries: who gets one, what may be replied, and what the asker is told.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Daemon, RawClient, pair, pair_with, wait_for};

/// The payload of an answer that must be an `error` with this code.
fn refused(reply: &Value, code: &str) -> Value {
    assert_eq!(reply["ok"], true, "a peer's error is an answer: {reply}");
    assert_eq!(reply["response"]["kind"], "error", "{reply}");
    assert_eq!(reply["response"]["payload"]["code"], code, "{reply}");
    assert_eq!(reply["response"]["ref"], reply["msg_id"], "{reply}");
    assert!(!reply["response"]["payload"]["message"].as_str().unwrap().is_empty(), "{reply}");
    reply["response"]["payload"].clone()
}

fn summary(reply: &Value) -> &str {
    reply["response"]["payload"]["summary"].as_str().unwrap_or_else(|| panic!("no summary: {reply}"))
}

/// The kinds in the inbox of this daemon, oldest first.
fn inbox_kinds(daemon: &Daemon) -> Vec<String> {
    let reply = daemon.client().ok(json!({"cmd":"inbox"}));
    let rows = reply["messages"].as_array().unwrap().iter();
    rows.map(|row| row["envelope"]["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_query_is_answered_by_the_other_agent() {
    // shows: IPC-SEND-5, IPC-ANS-1, WF-ENV-6
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    let payload = json!({"question":"When?","domain":"family","max_tokens":9,"deadline_ms":8000,"extra":[1]});
    let req = asker.begin(json!({"cmd":"send","to":"bob","kind":"query","payload":payload}));
    let event = agent.event();
    assert_eq!((&event["event"], &event["answer"]), (&json!("inbound"), &json!(true)), "{event}");
    assert_eq!(event.get("queued"), None, "{event}");
    let left = event["deadline_ms"].as_u64().unwrap();
    assert!(left <= 8000 && left > 5000, "{event}");
    let asked = &event["envelope"];
    assert_eq!(asked["payload"], payload, "the payload travels as it was given");
    assert_eq!((&asked["from"], &asked["to"]), (&json!(alice.id()), &json!(bob.id())));
    agent.respond(asked, "Noon.");
    let reply = asker.finish(&req);
    let answer = &reply["response"];
    assert_eq!(reply["msg_id"], asked["id"]);
    assert_eq!((&answer["kind"], &answer["ref"]), (&json!("response"), &asked["id"]));
    assert_eq!((&answer["from"], &answer["to"]), (&json!(bob.id()), &json!(alice.id())));
    assert_eq!(answer["payload"], json!({"data":null,"summary":"Noon."}));
}

#[test]
fn data_may_be_left_out_and_errors_go_back_as_they_are() {
    // shows: CORE-ERR-2, IPC reply table, WF-ERR-7, MT-ALL-8
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();

    let req = asker.ask("bob", "one", json!({}));
    let event = agent.event();
    let left = event["deadline_ms"].as_u64().unwrap();
    assert!(left <= 30_000 && left > 25_000, "without a deadline it is 30 s: {event}");
    let request = event["envelope"].clone();
    assert_eq!(agent.reply(&request, "response", json!({"summary":"s"}))["ok"], true);
    assert_eq!(asker.finish(&req)["response"]["payload"], json!({"data":null,"summary":"s"}));

    let req = asker.ask("bob", "two", json!({}));
    let request = agent.request();
    let own = json!({"code":"out_of_tea","message":"Boil water first.","retryable":true,"retry_after_ms":77});
    assert_eq!(agent.reply(&request, "error", own.clone())["ok"], true);
    assert_eq!(refused(&asker.finish(&req), "out_of_tea"), own);

    let req = asker.ask("bob", "three", json!({}));
    let request = agent.request();
    for (kind, payload, names) in [
        ("response", json!({"data":1}), "summary"),
        ("error", json!({"code":"x","message":"y"}), "retryable"),
        ("ack", json!({"accepted":true}), "ack"),
        ("result", json!({"status":"completed","outcome":"x"}), "result"),
        ("notify", json!({"topic":"x","data":1}), "notify"),
    ] {
        let said = agent.reply(&request, kind, payload);
        assert_eq!(said["error"], "invalid_command", "{said}");
        assert!(said["message"].as_str().unwrap().contains(names), "{said}");
    }
    agent.respond(&request, "still open");
    assert_eq!(summary(&asker.finish(&req)), "still open");
}

#[test]
fn a_quiet_answer_is_replied_to_only_when_it_fails() {
    // shows: IPC-REP-8, IPC-ORD-1
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query","delegate"]}));
    let mut asker = alice.client();
    let quiet = |request: &Value, kind: &str, payload: Value| {
        let id = &request["id"];
        json!({"cmd":"reply","ref":id,"kind":kind,"payload":payload,"quiet":true})
    };

    let req = asker.ask("bob", "one", json!({}));
    let request = agent.request();
    agent.fails(quiet(&request, "response", json!({})), "invalid_command");
    agent.begin(quiet(&request, "response", json!({"summary":"s"})));
    assert_eq!(summary(&asker.finish(&req)), "s");
    // A reply to it would come before this one.
    let status = agent.begin(json!({"cmd":"status"}));
    assert_eq!(agent.line().unwrap()["req_id"], status);
    agent.fails(quiet(&request, "response", json!({"summary":"s"})), "already_answered");

    let req = asker.begin(json!({"cmd":"send","to":"bob","kind":"delegate","payload":{"task":"x"}}));
    let request = agent.request();
    let message = agent.fails(quiet(&request, "ack", json!({"accepted":true})), "invalid_command");
    assert!(message.contains("`quiet`"), "{message}");
    assert_eq!(agent.reply(&request, "ack", json!({"accepted":true}))["ok"], true);
    assert_eq!(asker.finish(&req)["response"]["kind"], "ack");
}

#[test]
fn exactly_one_answerer_gets_it_the_least_busy_one() {
    // shows: IPC-ANS-1, IPC-ANS-3, MT-ANS-1
    let (alice, bob) = pair();
    let mut agents: Vec<RawClient> =
        (0..3).map(|_| bob.answerer(json!({"answer":["query"],"capacity":4}))).collect();
    let mut asker = alice.client();
    // Held, not answered: each goes to the least busy one, the earlier attached where they are equal.
    let mut held = Vec::new();
    for n in 0..6 {
        let req = asker.ask("bob", &n.to_string(), json!({}));
        let request = agents[n % 3].request();
        assert_eq!(request["payload"]["question"], n.to_string());
        agents.iter_mut().for_each(RawClient::silent);
        held.push((req, request));
    }
    // The last one has answered: it is the least busy now.
    for (req, request) in [&held[2], &held[5]] {
        agents[2].respond(request, "x");
        assert_eq!(summary(&asker.finish(req)), "x");
    }
    asker.ask("bob", "again", json!({}));
    assert_eq!(agents[2].request()["payload"]["question"], "again");
    agents.iter_mut().for_each(RawClient::silent);
    let status = bob.client().ok(json!({"cmd":"status"}));
    assert_eq!(
        (&status["answerers"], &status["capacity"], &status["active_tasks"], &status["open_requests"]),
        (&json!(3), &json!(12), &json!(5), &json!(5)),
        "{status}"
    );
}

#[test]
fn domains_come_before_load() {
    // shows: IPC-ANS-2, IPC-ANS-3
    let (alice, bob) = pair();
    let mut all = bob.answerer(json!({"answer":["query"],"capacity":100}));
    let mut family = bob.answerer(json!({"answer":["query"],"domains":["family","work"],"capacity":5}));
    let mut calendar = bob.answerer(json!({"answer":["query"],"domains":["family.calendar"],"capacity":1}));
    let mut asker = alice.client();
    let mut asked = |domain: &str| asker.ask("bob", domain, json!({"domain":domain}));
    let got = |agent: &mut RawClient| agent.request()["payload"]["question"].as_str().unwrap().to_owned();

    asked("family.calendar.may");
    assert_eq!(got(&mut calendar), "family.calendar.may");
    // The narrowest is at capacity: the next one that serves it.
    asked("family.calendar");
    assert_eq!(got(&mut family), "family.calendar");
    asked("family");
    assert_eq!(got(&mut family), "family");
    for other in ["familyx", "Family", "fam", "workshop.calendar"] {
        asked(other);
        assert_eq!(got(&mut all), other);
    }
    asked("work.mail");
    assert_eq!(got(&mut family), "work.mail");
    for agent in [&mut all, &mut family, &mut calendar] {
        agent.silent();
    }
}

#[test]
fn an_unknown_domain_is_refused_with_those_that_are_served() {
    // shows: IPC-ANS-4, CORE-QUERY-1
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"],"domains":["family","home.garden"]}));
    let mut asker = alice.client();
    let req = asker.ask("bob", "q", json!({"domain":"home"}));
    let error = refused(&asker.finish(&req), "unknown_domain");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("family") && message.contains("home.garden"), "{message}");
    assert_eq!(error["retryable"], false);
    agent.silent();
    let req = asker.ask("bob", "q", json!({}));
    agent.answer_one("without a domain all serve");
    asker.finish(&req);
}

#[test]
fn nobody_attached_is_told_at_once() {
    // shows: IPC-ANS-6, CORE-QUERY-1, MT-ANS-1
    let (alice, bob) = pair();
    // Clients that listen or answer something else are no answerers of queries.
    let mut listener = bob.answerer(json!({"replay":false}));
    let _delegate = bob.answerer(json!({"answer":["delegate","cancel"]}));
    let mut asker = alice.client();
    let start = Instant::now();
    let req = asker.ask("bob", "q", json!({"deadline_ms":20_000}));
    let error = refused(&asker.finish(&req), "unhandled");
    assert_eq!(error["retryable"], true);
    assert!(start.elapsed() < Duration::from_secs(5), "it must not wait for the deadline");
    assert_eq!(inbox_kinds(&bob), Vec::<String>::new());
    listener.silent();
}

#[test]
fn the_next_one_gets_it_when_the_first_goes_away() {
    // shows: CORE-QUERY-2, IPC-LEASE-1
    let (alice, bob) = pair();
    let mut first = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    let req = asker.ask("bob", "q", json!({}));
    let request = first.request();
    let mut second = bob.answerer(json!({"answer":["query"]}));
    second.silent();
    drop(first);
    let again = second.request();
    assert_eq!(again["id"], request["id"]);
    second.respond(&again, "second");
    assert_eq!(summary(&asker.finish(&req)), "second");

    // With nobody left: as when nobody was there. So do those that waited for capacity.
    drop(second);
    let mut last = bob.answerer(json!({"answer":["query"],"capacity":1}));
    let held = asker.ask("bob", "held", json!({}));
    last.request();
    let waiting = asker.ask("bob", "waiting", json!({}));
    wait_for("the second query to wait", || (last.ok(json!({"cmd":"status"}))["queued"] == 1).then_some(()));
    drop(last);
    refused(&asker.finish(&held), "unhandled");
    refused(&asker.finish(&waiting), "unhandled");
}

#[test]
fn any_client_may_reply_while_it_is_open() {
    // shows: IPC-REP-1, IPC-WD-1, IPC-BOX-3, IPC-REP-4
    let (alice, bob) = pair();
    let mut holder = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    let req = asker.ask("bob", "q", json!({}));
    let request = holder.request();
    let mut other = bob.client();
    let rows = other.ok(json!({"cmd":"inbox"}));
    assert_eq!(rows["messages"][0]["envelope"], request, "an open query stands in the inbox");
    other.respond(&request, "from the shell");
    assert_eq!(summary(&asker.finish(&req)), "from the shell");
    assert_eq!(holder.event(), json!({"event":"withdrawn","ref":request["id"],"reason":"answered"}));
    let late = holder.reply(&request, "response", json!({"data":null,"summary":"late"}));
    assert_eq!(late["error"], "already_answered", "{late}");
    assert_eq!(inbox_kinds(&bob), Vec::<String>::new(), "it is gone once it is closed");
    let nobody = json!({"id":"faa5f8da-e37d-4458-a095-93f877adfc0b"});
    assert_eq!(holder.reply(&nobody, "response", json!({"summary":"x"}))["error"], "not_found");
    let no_id = json!({"id":"zzz"});
    assert_eq!(holder.reply(&no_id, "response", json!({"summary":"x"}))["error"], "invalid_command");
}

#[test]
fn a_leased_request_stays_its_own_after_a_disconnect() {
    // shows: IPC-LEASE-2
    let (alice, bob) = pair();
    let mut leased = bob.answerer(json!({"answer":["query"],"lease":true}));
    let mut asker = alice.client();
    let req = asker.ask("bob", "q", json!({}));
    let short = asker.ask("bob", "short", json!({"deadline_ms":400}));
    let request = leased.request();
    leased.request();
    drop(leased);
    let mut other = bob.answerer(json!({"answer":["query"]}));
    refused(&asker.finish(&short), "timeout");
    other.silent();
    bob.client().respond(&request, "by reply");
    assert_eq!(summary(&asker.finish(&req)), "by reply");
    other.silent();
}

#[test]
fn answer_without_kinds_delivers_the_requests_and_nothing_else() {
    // shows: IPC-SUB-3, IPC-SUB-4
    let (alice, bob) = pair();
    let mut only = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    asker.ok(json!({"cmd":"send","to":"bob","kind":"notify","payload":{"topic":"t","data":1}}));
    let task = json!({"task":"t"});
    asker.ok(json!({"cmd":"send","to":"bob","kind":"delegate","payload":task}));
    only.silent();
    let req = asker.ask("bob", "q", json!({}));
    only.answer_one("a");
    asker.finish(&req);
    only.silent();

    // One that also listens sees its own request once, with `answer`.
    drop(only);
    let mut both = bob.answerer(json!({"answer":["query"],"kinds":["query","notify"],"replay":false}));
    asker.ask("bob", "q", json!({}));
    let request = both.request();
    both.silent();
    both.respond(&request, "a");
    asker.ok(json!({"cmd":"send","to":"bob","kind":"notify","payload":{"topic":"t","data":2}}));
    let event = both.event();
    assert_eq!((&event["envelope"]["kind"], event.get("answer")), (&json!("notify"), None), "{event}");
    both.silent();
}

#[test]
fn a_second_subscribe_keeps_what_is_held() {
    // shows: IPC-SUB-5
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    let req = asker.ask("bob", "q", json!({}));
    let request = agent.request();
    agent.subscribe(json!({"kinds":["notify"]}));
    let none = asker.ask("bob", "none", json!({}));
    refused(&asker.finish(&none), "unhandled");
    agent.respond(&request, "kept");
    assert_eq!(summary(&asker.finish(&req)), "kept");
    agent.subscribe(json!({"answer":["query"],"domains":["x"]}));
    let other = asker.ask("bob", "other", json!({"domain":"y"}));
    refused(&asker.finish(&other), "unknown_domain");
}

#[test]
fn at_capacity_a_request_waits_and_is_taken_when_there_is_room() {
    // shows: IPC-ANS-5
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"],"capacity":1}));
    let mut asker = alice.client();
    let reqs: Vec<String> = (0..3).map(|n| asker.ask("bob", &n.to_string(), json!({}))).collect();
    let mut request = agent.request();
    wait_for("two to wait", || (agent.ok(json!({"cmd":"status"}))["queued"] == 2).then_some(()));
    for (n, req) in reqs.iter().enumerate() {
        assert!(agent.events.is_empty(), "one at a time: {:?}", agent.events);
        assert_eq!(request["payload"]["question"], n.to_string(), "oldest first");
        agent.respond(&request, &n.to_string());
        assert_eq!(summary(&asker.finish(req)), n.to_string());
        if n < 2 {
            request = agent.request();
        }
    }
    // Another answerer that attaches takes what waits.
    let held = asker.ask("bob", "held", json!({}));
    let request = agent.request();
    let waiting = asker.ask("bob", "waiting", json!({}));
    wait_for("one to wait", || (agent.ok(json!({"cmd":"status"}))["queued"] == 1).then_some(()));
    let mut helper = bob.answerer(json!({"answer":["query"]}));
    helper.answer_one("helped");
    assert_eq!(summary(&asker.finish(&waiting)), "helped");
    agent.respond(&request, "held");
    asker.finish(&held);
}

#[test]
fn at_capacity_until_the_deadline_is_overloaded() {
    // shows: IPC-ANS-5, CORE-QUERY-1, MT-TIME-1
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"],"capacity":1}));
    let mut asker = alice.client();
    asker.ask("bob", "held", json!({}));
    agent.request();
    let start = Instant::now();
    let req = asker.ask("bob", "late", json!({"deadline_ms":300}));
    let error = refused(&asker.finish(&req), "overloaded");
    assert_eq!(error["retryable"], true);
    assert!(start.elapsed() >= Duration::from_millis(300));
    agent.silent();
}

#[test]
fn the_deadline_bounds_the_wait_at_both_ends() {
    // shows: CORE-QUERY-3, CORE-QUERY-4, IPC-REP-4, IPC-WD-1, WF-TIME-1, MT-TIME-1
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    let start = Instant::now();
    let req = asker.ask("bob", "q", json!({"deadline_ms":400}));
    let request = agent.request();
    let error = refused(&asker.finish(&req), "timeout");
    assert_eq!(error["retryable"], true);
    assert!(start.elapsed() >= Duration::from_millis(400));
    assert_eq!(agent.event(), json!({"event":"withdrawn","ref":request["id"],"reason":"timeout"}));
    assert_eq!(agent.reply(&request, "response", json!({"summary":"late"}))["error"], "timeout");

    // The command's own deadline counts where it is shorter: the asker gives up, the agent is told.
    let ask = json!({"cmd":"send","to":"bob","kind":"query","deadline_ms":300,"payload":{"question":"q"}});
    let req = asker.begin(ask);
    let request = agent.request();
    assert_eq!(asker.finish(&req)["error"], "timeout");
    assert_eq!(agent.event(), json!({"event":"withdrawn","ref":request["id"],"reason":"peer_gone"}));
    assert_eq!(agent.reply(&request, "response", json!({"summary":"late"}))["error"], "not_found");

    // A peer that is stopped altogether: the asker's own clock.
    bob.signal(Signal::STOP);
    let start = Instant::now();
    let req = asker.ask("bob", "q", json!({"deadline_ms":400}));
    assert_eq!(asker.finish(&req)["error"], "timeout");
    assert!(start.elapsed() >= Duration::from_millis(400));
    bob.signal(Signal::CONT);
}

#[test]
fn an_asker_that_goes_away_withdraws_its_query() {
    // shows: IPC-ORD-6, WF-STR-7, IPC-REP-4
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    asker.ask("bob", "q", json!({}));
    let request = agent.request();
    drop(asker);
    wait_for("its place to be free", || {
        (alice.client().ok(json!({"cmd":"status"}))["clients"] == 1).then_some(())
    });
    assert_eq!(agent.event(), json!({"event":"withdrawn","ref":request["id"],"reason":"peer_gone"}));
    assert_eq!(agent.reply(&request, "response", json!({"summary":"late"}))["error"], "not_found");
    assert_eq!(inbox_kinds(&bob), Vec::<String>::new());
}

#[test]
fn sixty_four_queries_are_in_the_agents_hands_at_once() {
    // shows: WF-STR-3, IPC-ORD-2, IPC-ORD-4
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"],"capacity":64}));
    let mut asker = alice.client();
    let reqs: Vec<String> = (0..64).map(|n| asker.ask("bob", &n.to_string(), json!({}))).collect();
    // All are there before the first is answered: 64 in flight.
    let mut requests: Vec<Value> = (0..64).map(|_| agent.request()).collect();
    let pong = asker.ok(json!({"cmd":"send","to":"bob","kind":"ping"}));
    assert_eq!(pong["response"]["payload"]["active_tasks"], 64);
    assert_eq!(pong["response"]["payload"]["status"], "overloaded");
    std::thread::sleep(Duration::from_millis(50)); // what the agent's work takes
    requests.reverse();
    let replies: Vec<String> = requests
        .iter()
        .map(|request| {
            let payload = json!({"summary":request["payload"]["question"]});
            agent.begin(json!({"cmd":"reply","ref":request["id"],"kind":"response","payload":payload}))
        })
        .collect();
    for req in replies {
        assert_eq!(agent.finish(&req)["ok"], true);
    }
    for (n, req) in reqs.iter().enumerate() {
        assert_eq!(summary(&asker.finish(req)), n.to_string());
    }
}

#[test]
fn an_agent_asks_back_while_it_answers() {
    // shows: WF-STR-3: both sides open streams, whoever dialled
    let (alice, bob) = pair();
    let mut at_alice = alice.answerer(json!({"answer":["query"]}));
    let mut at_bob = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    let req = asker.ask("bob", "outer", json!({}));
    let outer = at_bob.request();
    let inner = at_bob.ask("alice", "inner", json!({}));
    at_alice.answer_one("inside");
    let inside = summary(&at_bob.finish(&inner)).to_owned();
    at_bob.respond(&outer, &inside);
    assert_eq!(summary(&asker.finish(&req)), "inside");
}

#[test]
fn ping_tells_the_truth() {
    // shows: CORE-PING-1, CORE-PING-2
    let (alice, bob) = pair_with("", "name = \"bobby\"\n");
    let mut asker = alice.client();
    let mut ping = || asker.ok(json!({"cmd":"send","to":"bob","kind":"ping"}))["response"].clone();
    let pong = ping();
    assert_eq!(pong["kind"], "pong");
    assert_eq!(
        (&pong["payload"]["status"], &pong["payload"]["active_tasks"], &pong["payload"]["agent_name"]),
        (&json!("idle"), &json!(0), &json!("bobby"))
    );
    assert!(pong["payload"]["uptime_secs"].as_u64().unwrap() <= 10, "{pong}");
    let mut agent = bob.answerer(json!({"answer":["query"],"capacity":2}));
    let mut other = alice.client();
    for (tasks, status) in [(1, "busy"), (2, "overloaded"), (3, "overloaded")] {
        other.ask("bob", "q", json!({}));
        // The third waits: it is no less a task.
        wait_for("the query to arrive", || {
            (agent.ok(json!({"cmd":"status"}))["active_tasks"] == tasks).then_some(())
        });
        let pong = ping();
        assert_eq!(
            (&pong["payload"]["status"], &pong["payload"]["active_tasks"]),
            (&json!(status), &json!(tasks))
        );
    }
    // Nobody there, but delegations are kept: busy, not overloaded.
    drop((agent, other));
    wait_for("the queries to end", || {
        (bob.client().ok(json!({"cmd":"status"}))["open_requests"] == 0).then_some(())
    });
    asker_delegates(&alice);
    assert_eq!(ping()["payload"]["status"], "busy");
}

fn asker_delegates(alice: &Daemon) {
    alice.client().ok(json!({"cmd":"send","to":"bob","kind":"delegate","payload":{"task":"t"}}));
}

#[test]
fn discover_merges_what_agents_advertise() {
    // shows: CORE-DIS-1, CORE-DIS-2, IPC-ADV-1, IPC-ADV-2
    let settings =
        "name = \"last\"\n[agent]\nagent_name = \"fallback\"\nmodel = \"m0\"\ndomains = [\"d0\"]\n";
    let (alice, bob) = pair_with("", settings);
    let mut asker = alice.client();
    let mut discover = || {
        let reply = asker.ok(json!({"cmd":"send","to":"bob","kind":"discover"}));
        assert_eq!(reply["response"]["kind"], "capabilities", "{reply}");
        reply["response"]["payload"].clone()
    };
    assert_eq!(discover(), json!({"agent_name":"fallback","model":"m0","domains":["d0"]}));
    let mut first = bob.answerer(json!({"answer":["query","delegate","cancel"]}));
    let mut second = bob.client();
    let own = json!({"domains":["a","b"],"tools":["t"],"max_concurrent_tasks":4,"x-own":{"k":1}});
    first.ok(json!({"cmd":"advertise","capabilities":own}));
    second.ok(
        json!({"cmd":"advertise","capabilities":{"domains":["b","c"],"model":"m2","max_concurrent_tasks":3}}),
    );
    assert_eq!(
        discover(),
        json!({
            "agent_name":"fallback","domains":["a","b","c"],"tools":["t"],"max_concurrent_tasks":7,
            "model":"m2","x-own":{"k":1},
        })
    );
    second.ok(json!({"cmd":"advertise","capabilities":{"agent_name":"second"}}));
    let now = discover();
    assert_eq!((&now["agent_name"], &now["domains"]), (&json!("second"), &json!(["a", "b"])), "{now}");
    assert_eq!((&now["model"], &now["max_concurrent_tasks"]), (&json!("m0"), &json!(4)));
    first.silent(); // it was not woken
    drop((first, second));
    wait_for("the adverts to go with their clients", || {
        (discover()["agent_name"] == "fallback").then_some(())
    });
    bob.set_config("name = \"last\"\n");
    bob.reload();
    assert_eq!(discover(), json!({"agent_name":"last"}));
}

#[test]
fn long_deadlines_are_told_and_cut() {
    // shows: CORE-QUERY-4
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    for (asked, least, most) in
        [(90_000, 80_000, 90_000), (9_000_000, 3_590_000, 3_600_000), (0, 25_000, 30_000)]
    {
        let req = asker.ask("bob", "q", json!({"deadline_ms":asked}));
        let event = agent.event();
        let left = event["deadline_ms"].as_u64().unwrap();
        assert!(left > least && left <= most, "{asked}: {event}");
        agent.respond(&event["envelope"], "a");
        asker.finish(&req);
    }
}

#[test]
fn the_ends_of_the_last_requests_are_remembered() {
    // shows: IPC-REP-4
    let (alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"],"capacity":200}));
    let mut asker = alice.client();
    let mut first = None;
    for _ in 0..10 {
        let reqs: Vec<String> = (0..200).map(|_| asker.ask("bob", "q", json!({}))).collect();
        for _ in &reqs {
            let request = agent.request();
            agent.respond(&request, "a");
            first.get_or_insert(request);
        }
        for req in reqs {
            asker.finish(&req);
        }
    }
    let late = agent.reply(&first.unwrap(), "response", json!({"summary":"late"}));
    assert_eq!(late["error"], "already_answered", "2000 others are fewer than 4096");
}

#[test]
fn an_asker_whose_daemon_dies_withdraws_its_query() {
    // shows: IPC-WD-1, WF-RST-1, WF-DUP-1
    let (mut alice, bob) = pair();
    let mut agent = bob.answerer(json!({"answer":["query"]}));
    let mut asker = alice.client();
    asker.ask("bob", "q", json!({}));
    let request = agent.request();
    alice.kill9();
    alice.up();
    assert_eq!(agent.event(), json!({"event":"withdrawn","ref":request["id"],"reason":"peer_gone"}));
    // The new one is served.
    let mut asker = alice.client();
    let req = asker.ask("bob", "again", json!({}));
    agent.answer_one("a");
    assert_eq!(summary(&asker.finish(&req)), "a");
}

#[test]
fn an_agent_that_does_not_read_is_closed_before_it_costs_too_much() {
    // shows: IPC section 9, lines that a client leaves unread
    let (alice, bob) = pair();
    let _hung = bob.answerer(json!({"answer":["query"],"capacity":1024}));
    let mut watcher = bob.client();
    let mut asker = alice.client();
    let question = "q".repeat(60_000);
    // Each is handed out, not read, and withdrawn at its deadline: that gives the place back, but not the
    // line.
    for _ in 0..40 {
        let payload = json!({"question":question,"deadline_ms":1});
        let ids: Vec<String> = (0..32)
            .map(|_| asker.begin(json!({"cmd":"send","to":"bob","kind":"query","payload":payload})))
            .collect();
        for id in ids {
            assert!(asker.finish(&id)["ok"].is_boolean());
        }
        if watcher.ok(json!({"cmd":"status"}))["answerers"] == 0 {
            return;
        }
    }
    panic!("more than 64 MiB wait for an agent that does not read");
}
