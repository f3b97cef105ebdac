//! Messages, streams and closes of a peer that does not keep the rules, against a real daemon.

use std::time::{Duration, Instant};

use axon_proto::id::MsgId;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::peer::{Fault, Link, RawPeer, new_id};
use crate::support::{Daemon, wait_for};

/// `status`, one of the counts of what was dropped.
fn dropped(daemon: &Daemon, reason: &str) -> u64 {
    daemon.client().ok(json!({"cmd":"status"}))["dropped"][reason].as_u64().unwrap()
}

fn wait_dropped(daemon: &Daemon, reason: &str, count: u64) {
    wait_for(&format!("{count} dropped as {reason}"), || (dropped(daemon, reason) == count).then_some(()));
}

/// A daemon that dials nobody for long: its peer is found at an address where nothing answers.
fn quiet(peer: &RawPeer, config: &str) -> Daemon {
    Daemon::start(&format!("{config}{}", quiet_entry(peer)))
}

fn quiet_entry(peer: &RawPeer) -> String {
    let (id, key) = (&peer.id, &peer.pubkey);
    format!("\n[[peers]]\nname = \"raw\"\nagent_id = \"{id}\"\npubkey = \"{key}\"\naddr = \"127.0.0.1:9\"\n")
}

// --- messages ---

// shows: WF-ERR-1, WF-ERR-2, WF-CLOSE-1, WF-ENV-4, WF-STR-8
#[test]
fn faults_are_answered_each_with_its_code_and_close_nothing() {
    let (peer, stranger) = (RawPeer::new(), RawPeer::new());
    let daemon = quiet(&peer, "");
    let link = peer.dial(&daemon).greeted();
    let cases: [(&str, Value, &str); 12] = [
        ("/from", json!(stranger.id), "not_authorized"),
        ("/to", json!(stranger.id), "peer_not_found"),
        ("/to", json!("rsa.0011"), "incompatible_version"),
        ("/v", json!(2), "incompatible_version"),
        ("/v", json!(0), "invalid_envelope"),
        ("/v", json!("1"), "invalid_envelope"),
        ("/ts", json!(-1), "invalid_envelope"),
        ("/ts", json!(0), "invalid_envelope"),
        ("/payload", json!([1]), "invalid_envelope"),
        ("/payload", json!({}), "invalid_envelope"),
        ("/kind", json!("teleport"), "unknown_kind"),
        ("/kind", json!("response"), "invalid_envelope"),
    ];
    for (field, value, code) in &cases {
        let mut query = link.envelope("query", json!({"question":"q"}));
        *query.pointer_mut(field).unwrap() = value.clone();
        assert_eq!(link.refusal(&query), *code, "{field} {value}");
    }
    // Ids that are none: there is nothing to refer to.
    for id in [
        json!(""),
        json!("1"),
        json!(null),
        json!(new_id().to_uppercase()),
        json!("00000000-0000-0000-0000-000000000000"),
        json!("00000000-0000-1000-8000-000000000000"),
    ] {
        let mut query = link.envelope("query", json!({"question":"q"}));
        query["id"] = id.clone();
        assert_eq!(link.ask(&query), Err(Fault::Reset), "{id}");
    }
    let query = link.envelope("query", json!({"question":"q"})).to_string();
    let doubled = query.replacen("\"v\":1", "\"v\":1,\"v\":1", 1);
    assert_ne!(query, doubled);
    let mut broken = query.clone().into_bytes();
    broken[9] = 0xff;
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let cases =
        [b"".to_vec(), b"{".to_vec(), b"null".to_vec(), deep.into_bytes(), broken, doubled.into_bytes()];
    for bytes in &cases {
        assert_eq!(
            link.ask_raw(bytes),
            Err(Fault::Reset),
            "{}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
        );
        link.tell_raw(bytes);
    }
    for kind in ["query", "pong", "hello"] {
        link.tell(&link.envelope(kind, json!({"question":"q"})));
    }
    wait_dropped(&daemon, "wrong_stream", 3);
    assert_eq!(link.ask(&link.envelope("ping", json!({}))).unwrap()["kind"], "pong");
    assert!(link.is_open());
}

// shows: WF-STR-4, WF-STR-6, WF-STR-3
#[test]
fn oversized_endless_and_stalled_streams_are_stopped_alone() {
    let peer = RawPeer::new();
    let daemon = quiet(&peer, "inbound_read_timeout_secs = 1\n");
    let link = peer.dial(&daemon).greeted();
    let works = || assert_eq!(link.ask(&link.envelope("ping", json!({}))).unwrap()["kind"], "pong");
    let padded = |size: usize| {
        let mut envelope = link.envelope("ping", json!({"pad":""}));
        let missing = size - envelope.to_string().len();
        envelope["payload"]["pad"] = "x".repeat(missing).into();
        assert_eq!(envelope.to_string().len(), size);
        envelope
    };
    assert_eq!(link.ask(&padded(65_536)).unwrap()["kind"], "pong");
    assert_eq!(link.ask(&padded(65_537)), Err(Fault::Reset));
    link.tell(&padded(65_537));
    wait_dropped(&daemon, "over_limit", 2);

    // One that never ends is stopped long before it has sent much.
    let mut endless = link.open().unwrap();
    let mut sent = 0;
    while endless.write(&[b' '; 10_000]).is_ok() {
        sent += 10_000;
        assert!(sent < 10_000_000, "nobody stops it");
    }
    wait_dropped(&daemon, "over_limit", 3);
    works();

    // Stalled in the middle: stopped after a second without a byte, while everything else goes on.
    let begun = Instant::now();
    let mut stalled: Vec<_> = (0..20)
        .map(|_| {
            let mut half = link.open().unwrap();
            half.write(b"{\"v\":1,").unwrap();
            half
        })
        .collect();
    let mut slow = link.open().unwrap();
    let ping = link.envelope("ping", json!({})).to_string().into_bytes();
    let (head, tail) = ping.split_at(ping.len() / 2);
    slow.write(head).unwrap();
    works();
    assert!(stalled[0].stopped());
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    for half in &mut stalled {
        assert_eq!(half.read(), Err(Fault::Reset));
    }
    // The slow one was stopped too; had it gone on, it would not have been.
    assert_eq!(slow.read(), Err(Fault::Reset));
    assert!(slow.write(tail).is_err());
    wait_dropped(&daemon, "over_limit", 24);
    works();
    assert!(link.is_open());
}

// A message that comes slowly but steadily is no stalled one.
// shows: WF-STR-6
#[test]
fn a_slow_message_is_read_to_its_end() {
    let peer = RawPeer::new();
    let daemon = quiet(&peer, "inbound_read_timeout_secs = 1\n");
    let link = peer.dial(&daemon).greeted();
    let mut slow = link.open().unwrap();
    let ping = link.envelope("ping", json!({})).to_string().into_bytes();
    for part in ping.chunks(ping.len() / 4) {
        slow.write(part).unwrap();
        // What is tested is that time passes.
        std::thread::sleep(Duration::from_millis(400));
    }
    slow.finish();
    let pong: Value = serde_json::from_slice(&slow.read().unwrap()).unwrap();
    assert_eq!(pong["kind"], "pong");
}

// shows: WF-REP-1, WF-REP-3, WF-REP-4, WF-REP-5, WF-REP-6, WF-REP-7, IPC-BOX-7, IPC-DLG-4
#[test]
fn a_repeated_message_is_taken_once_also_on_another_connection_and_after_a_crash() {
    let peer = RawPeer::new();
    let mut daemon = quiet(&peer, "");
    let mut agent = daemon.answerer(json!({"answer":["query"],"kinds":["notify"]}));
    let link = peer.dial(&daemon).greeted();
    let query = link.envelope("query", json!({"question":"q"}));
    let mut open = link.open().unwrap();
    open.write(query.to_string().as_bytes()).unwrap();
    open.finish();
    agent.answer_one("once");
    open.read().unwrap();
    let notify = link.envelope("notify", json!({"topic":"t","data":1}));
    link.tell(&notify);
    assert_eq!(agent.event()["envelope"], notify);
    // Nobody takes delegations: it is kept, and says so each time.
    let delegate = link.envelope("delegate", json!({"task":"t"}));
    for _ in 0..2 {
        let ack = link.ask(&delegate).unwrap();
        assert_eq!(ack["payload"], json!({"accepted":true,"state":"queued"}));
    }
    let second = peer.dial(&daemon).greeted();
    for on in [&link, &second] {
        assert_eq!(on.ask(&query), Err(Fault::Reset));
        on.tell(&notify);
        assert_eq!(on.ask(&delegate).unwrap()["payload"]["state"], "queued");
    }
    wait_dropped(&daemon, "replayed", 7);
    agent.silent();
    assert_eq!(daemon.client().ok(json!({"cmd":"status"}))["queued"], 1);

    // The query's id is written within a second; those of what is kept are on disk with it already.
    let id: MsgId = query["id"].as_str().unwrap().parse().unwrap();
    wait_for("the replay record", || {
        let record = std::fs::read(daemon.root().join("replay.log")).unwrap();
        record.windows(16).any(|window| window == id.0).then_some(())
    });
    // The last one is not waited for.
    let last = link.envelope("notify", json!({"topic":"t","data":2}));
    link.tell(&last);
    assert_eq!(agent.event()["envelope"], last);
    daemon.kill9();
    daemon.up();
    let mut agent = daemon.answerer(json!({"answer":["query"],"kinds":["notify"]}));
    let again: Vec<Value> = agent.events.drain(..).map(|event| event["envelope"].clone()).collect();
    assert_eq!(again, [notify.clone(), last.clone()], "they are kept, and were not acked");
    let link = peer.dial(&daemon).greeted();
    assert_eq!(link.ask(&query), Err(Fault::Reset));
    for envelope in [&notify, &last] {
        link.tell(envelope);
    }
    assert_eq!(link.ask(&delegate).unwrap()["payload"], json!({"accepted":true,"state":"queued"}));
    wait_dropped(&daemon, "replayed", 4);
    agent.silent();
    // What it is queued for comes once.
    let mut worker = daemon.answerer(json!({"answer":["delegate"]}));
    assert_eq!(worker.request(), delegate);
    worker.silent();
    assert_eq!(daemon.client().ok(json!({"cmd":"status"}))["inbox_unread"], 3);
    assert_eq!(link.ask(&link.envelope("ping", json!({}))).unwrap()["kind"], "pong");
}

// shows: WF-STR-5, WF-STR-3
#[test]
fn of_400_streams_256_are_open_at_once_and_all_are_answered() {
    let peer = RawPeer::new();
    let daemon = quiet(&peer, "");
    let mut agent = daemon.answerer(json!({"answer":["query"],"capacity":1000}));
    let link = peer.dial(&daemon).greeted();
    let threads: Vec<_> = (0..400)
        .map(|_| {
            let link = link.clone();
            std::thread::spawn(move || {
                let query = link.envelope("query", json!({"question":"q"}));
                let answer = link.ask(&query).unwrap();
                assert_eq!((&answer["kind"], &answer["ref"]), (&json!("response"), &query["id"]));
            })
        })
        .collect();
    // So many come without an answer to any; not very many more do.
    let held: Vec<Value> = (0..256).map(|_| agent.request()).collect();
    let open = agent.ok(json!({"cmd":"status"}))["open_requests"].as_u64().unwrap();
    assert!((256..=320).contains(&open), "{open}");
    for request in &held {
        agent.respond(request, "s");
    }
    for _ in held.len()..400 {
        agent.answer_one("s");
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

// shows: WF-STR-7
#[test]
fn a_peer_that_gives_up_a_stream_ends_its_query_but_not_its_delegation() {
    let peer = RawPeer::new();
    let daemon = quiet(&peer, "");
    let mut agent = daemon.answerer(json!({"answer":["query","delegate"]}));
    let link = peer.dial(&daemon).greeted();
    let mut halves: Vec<_> = ["query", "delegate"]
        .map(|kind| {
            let envelope = link.envelope(kind, json!({"question":"q","task":"t"}));
            let mut half = link.open().unwrap();
            half.write(envelope.to_string().as_bytes()).unwrap();
            half.finish();
            (half, agent.request())
        })
        .into_iter()
        .collect();
    let (delegate, work) = halves.pop().unwrap();
    let (query, question) = halves.pop().unwrap();
    drop((query, delegate));
    let withdrawn = agent.event();
    assert_eq!(
        (&withdrawn["event"], &withdrawn["ref"]),
        (&json!("withdrawn"), &question["id"]),
        "{withdrawn}"
    );
    assert_eq!(withdrawn["reason"], "peer_gone");
    assert_eq!(agent.reply(&question, "response", json!({"summary":"s"}))["error"], "not_found");
    assert_eq!(agent.reply(&work, "result", json!({"status":"completed","outcome":"o"}))["ok"], true);
    assert_eq!(link.one_way()["kind"], "result");
}

/// Bytes that answer a request.
type Answer<'a> = dyn Fn(&Value) -> Vec<u8> + 'a;

// shows: WF-ERR-4, WF-REF-3, WF-STR-4, CORE-QUERY-4
#[test]
fn a_bad_answer_fails_its_request_and_nothing_else() {
    let peer = RawPeer::new();
    let daemon = quiet(&peer, "");
    let link = peer.dial(&daemon).greeted();
    let mut client = daemon.client();
    let good = |link: &Link, request: &Value| {
        let mut answer = link.envelope("response", json!({"data":null,"summary":"s"}));
        answer["ref"] = request["id"].clone();
        answer
    };
    let answers: [(&str, &Answer); 7] = [
        ("empty", &|_| Vec::new()),
        ("rubbish", &|_| b"{\"v\":".to_vec()),
        ("not UTF-8", &|_| vec![0xff; 100]),
        ("too long", &|request| {
            let mut answer = good(&link, request);
            answer["payload"]["summary"] = "x".repeat(70_000).into();
            answer.to_string().into_bytes()
        }),
        ("to another request", &|request| {
            let mut answer = good(&link, request);
            answer["ref"] = new_id().into();
            answer.to_string().into_bytes()
        }),
        ("from another", &|request| {
            let mut answer = good(&link, request);
            answer["from"] = json!(daemon.id());
            answer.to_string().into_bytes()
        }),
        ("of another kind", &|request| {
            let mut answer = good(&link, request);
            answer["kind"] = "ack".into();
            answer["payload"] = json!({"accepted":true});
            answer.to_string().into_bytes()
        }),
    ];
    for (what, answer) in answers {
        let req_id = client.ask("raw", "q", json!({}));
        let mut request = link.request();
        let bytes = answer(&request.envelope);
        link.say(&mut request, &bytes);
        let reply = client.finish(&req_id);
        assert_eq!(reply["error"], "peer_unreachable", "{what}: {reply}");
    }
    // Reset, and no answer at all.
    let req_id = client.ask("raw", "q", json!({}));
    link.request().send.reset(1u32.into()).unwrap();
    assert_eq!(client.finish(&req_id)["error"], "peer_unreachable");
    let req_id = client.ask("raw", "q", json!({"deadline_ms":300}));
    let kept = link.request();
    assert_eq!(client.finish(&req_id)["error"], "timeout");
    drop(kept);
    // All of it on one connection, which goes on.
    let req_id = client.ask("raw", "q", json!({}));
    let mut request = link.request();
    let bytes = good(&link, &request.envelope).to_string();
    link.say(&mut request, bytes.as_bytes());
    assert_eq!(client.finish(&req_id)["response"]["payload"]["summary"], "s");
    assert!(link.is_open());
}

// --- the end of a connection ---

// shows: WF-LIM-1, WF-DUP-1, WF-DUP-2, WF-DUP-4, WF-DUP-5, WF-STOP-1
#[test]
fn each_close_has_its_code() {
    let (peer, other) = (RawPeer::new(), RawPeer::new());
    let mut daemon = Daemon::start(&format!(
        "max_connections = 4\n{}{}",
        quiet_entry(&peer),
        quiet_entry(&other).replace("\"raw\"", "\"other\"")
    ));
    let code = |link: &Link| match link.closed() {
        Fault::Closed(code, reason) => (code, reason),
        other => panic!("{other:?}"),
    };
    // Without a boot id the newest stays, and the older one goes once it has been idle for a while.
    let first = peer.dial(&daemon).greeted();
    let second = peer.dial(&daemon).greeted();
    assert!(first.is_open());
    assert_eq!(first.ask(&first.envelope("ping", json!({}))).unwrap()["kind"], "pong");
    let begun = Instant::now();
    assert_eq!(code(&first).0, 2);
    assert!(begun.elapsed() >= Duration::from_millis(1_900), "{:?}", begun.elapsed());
    assert!(second.is_open());

    // A new boot supersedes at once.
    let boot = |link: &Link, boot: &str| {
        let mut hello = link.hello();
        hello["payload"]["boot"] = boot.into();
        assert_eq!(link.ask(&hello).unwrap()["kind"], "hello");
    };
    let third = peer.dial(&daemon);
    boot(&third, "one");
    assert_eq!(code(&second).0, 2);
    let fourth = peer.dial(&daemon);
    let begun = Instant::now();
    boot(&fourth, "two");
    assert_eq!(code(&third).0, 2);
    assert!(begun.elapsed() < Duration::from_secs(1));

    // Four of one peer; the fifth displaces the oldest. Then there is no room for another peer.
    let mut links = vec![fourth];
    links.extend((0..3).map(|_| {
        let link = peer.dial(&daemon);
        boot(&link, "two");
        link
    }));
    let fifth = peer.dial(&daemon);
    boot(&fifth, "two");
    assert_eq!(code(&links[0]).0, 2);
    let turned_away = other.dial(&daemon);
    assert_eq!(code(&turned_away), (1, "connection limit reached".to_owned()));

    let status = daemon.terminate();
    assert!(status.success());
    assert_eq!(code(&fifth).0, 5);
}

// shows: WF-STR-10
#[test]
fn rubbish_on_the_udp_port_disturbs_nobody() {
    let peer = RawPeer::new();
    let daemon = quiet(&peer, "");
    let link = peer.dial(&daemon).greeted();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut bytes = vec![0; 1_400];
    for size in [0, 1, 20, 100, 1_200, 1_400] {
        for _ in 0..50 {
            getrandom::fill(&mut bytes).unwrap();
            socket.send_to(&bytes[..size], ("127.0.0.1", daemon.port())).unwrap();
        }
    }
    assert_eq!(link.ask(&link.envelope("ping", json!({}))).unwrap()["kind"], "pong");
    daemon.signal(Signal::HUP);
    assert_eq!(peer.dial(&daemon).greeted().ask(&link.envelope("ping", json!({}))).unwrap()["kind"], "pong");
}
