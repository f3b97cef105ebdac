//! What a person sees of peers and traffic, and who may wake an agent: `axon status`, `axon peers`,
//! `axon ping --count`, and `--trust` of `axon listen` and `axon answer`.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support;
use crate::support::cli::{Ran, keys, run};
use crate::support::{Daemon, RawClient, pair, wait_for};

fn notify(from: &Daemon, topic: &str) {
    let sent = from.run(&["notify", "alice", topic, "now"]).ok();
    assert_eq!(sent["state"], "delivered", "{sent}");
}

fn topics(ran: &Ran) -> Vec<String> {
    let topic = |line: Value| line["payload"]["topic"].as_str().unwrap_or_default().to_owned();
    ran.lines().into_iter().map(topic).collect()
}

fn topics_of(inbox: &Value) -> Vec<&str> {
    let rows = inbox["messages"].as_array().unwrap();
    rows.iter().map(|row| row["payload"]["topic"].as_str().unwrap()).collect()
}

/// Alice, whom bob and carol know; she trusts bob, and carol is only somebody who was found.
fn three() -> [Daemon; 3] {
    three_with("")
}

/// The same, with these settings of alice's.
fn three_with(settings: &str) -> [Daemon; 3] {
    let [alice, bob, carol] = [Daemon::start(settings), Daemon::start(""), Daemon::start("")];
    for other in [&bob, &carol] {
        other.set_peers(&[("alice", &alice)]);
        other.reload();
    }
    alice.set_peers(&[("bob", &bob), ("carol", &carol)]);
    alice.reload();
    alice.run(&["trust", "carol", "unknown"]).ok();
    for other in [&bob, &carol] {
        alice.wait_peer(other, true);
        other.wait_peer(&alice, true);
    }
    [alice, bob, carol]
}

// ---- Looking ----------------------------------------------------------------------------------------------

#[test]
fn peers_and_status_say_how_who_is_reached_and_what_waits() {
    let (alice, mut bob) = pair();
    notify(&bob, "one");
    notify(&bob, "two");
    let row = alice.run(&["peers"]).ok()["peers"][0].clone();
    assert_eq!((&row["unread"], row.get("held")), (&json!(2), None), "{row}");
    let peers = alice.run(&["--plain", "peers"]);
    for said in [" known ", "connected", "direct", " ms, for ", "2 unread"] {
        assert!(peers.stdout.contains(said), "{said}: {peers:?}");
    }
    let status = alice.run(&["--plain", "status"]);
    assert!(status.stdout.contains("unread 2, held 0\n"), "{status:?}");
    let line = status.stdout.lines().last().unwrap();
    assert!(line.starts_with("bob: 127.0.0.1:") && line.ends_with("2 unread"), "{status:?}");
    alice.run(&["inbox"]).ok();
    alice.run(&["ack", "1"]).ok();
    assert_eq!(alice.run(&["peers"]).ok()["peers"][0]["unread"], 1);

    assert_eq!(bob.terminate().code(), Some(0));
    alice.wait_peer(&bob, false);
    alice.run(&["notify", "--hold", "1h", "bob", "door", "open"]).ok();
    let row = alice.run(&["peers"]).ok()["peers"][0].clone();
    assert_eq!((&row["unread"], &row["held"], row.get("since_ms")), (&json!(1), &json!(1), None), "{row}");
    assert_eq!(alice.run(&["status"]).ok()["held"], 1);
    let peers = alice.run(&["--plain", "peers"]);
    assert!(peers.stdout.contains("1 held, 1 unread") && !peers.stdout.contains("direct"), "{peers:?}");
}

#[test]
fn ping_shows_times_and_sums_them_up() {
    let (alice, mut bob) = pair();
    let ran = alice.run(&["ping", "bob", "--count", "3", "--interval", "1ms"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = ran.lines();
    assert_eq!(lines.len(), 4, "{ran:?}");
    for (seq, line) in (1..).zip(&lines[..3]) {
        assert_eq!((&line["ok"], &line["seq"]), (&json!(true), &json!(seq)), "{line}");
        assert!(line["ms"].as_f64().unwrap() > 0.0 && line["payload"]["status"] == "idle", "{line}");
    }
    let end = &lines[3];
    assert_eq!((&end["sent"], &end["received"], &end["lost"]), (&json!(3), &json!(3), &json!(0)), "{end}");
    let [min, avg, max] = ["min_ms", "avg_ms", "max_ms"].map(|field| end[field].as_f64().unwrap());
    assert!(0.0 < min && min <= avg && avg <= max, "{end}");
    let shown = alice.run(&["--plain", "ping", "bob", "--count", "1"]).stdout;
    assert!(shown.contains("1 sent, 1 answered, 0 lost; min/avg/max "), "{shown}");

    // Stopped by its user, who sees the summary; what was answered counts.
    let mut running = alice.spawn(&["ping", "bob", "--count", "100", "--interval", "1h"]);
    assert_eq!(running.line()["seq"], 1);
    running.signal(Signal::INT);
    let ran = running.wait();
    assert_eq!((ran.code, &ran.lines()[1]["sent"]), (0, &json!(1)), "{ran:?}");

    // Nobody is there: each is told, and the exit code is that of one ping. A name that is none ends it.
    assert_eq!(bob.terminate().code(), Some(0));
    alice.wait_peer(&bob, false);
    let ran = alice.run(&["ping", "bob", "--count", "2", "--interval", "1ms"]);
    let lines = ran.lines();
    assert_eq!((ran.code, lines.len(), &lines[0]["error"]), (5, 3, &json!("peer_unreachable")), "{ran:?}");
    assert_eq!(
        (&lines[2]["ok"], &lines[2]["lost"], lines[2].get("min_ms")),
        (&json!(false), &json!(2), None)
    );
    alice.run(&["ping", "nobody", "--count", "2"]).fails(5, "peer_not_found");
    assert!(alice.run(&["ping", "bob", "--interval", "1s"]).usage().contains("--count"));
}

// ---- Who wakes --------------------------------------------------------------------------------------------

#[test]
fn listen_wakes_for_known_peers_and_leaves_the_rest_in_the_inbox() {
    let [alice, bob, carol] = three();
    notify(&bob, "b0");
    notify(&carol, "c1");
    notify(&bob, "b1");
    notify(&carol, "c2");
    let first = alice.run(&["listen", "--count", "2"]);
    assert_eq!((first.code, topics(&first)), (0, vec!["b0".to_owned(), "b1".to_owned()]), "{first:?}");
    assert!(first.stderr.contains("2 messages of peers below known not printed"), "{first:?}");
    // What was printed does not wake again, although the inbox has it still, behind what was not printed.
    notify(&bob, "b2");
    for topic in ["b2", "b3"] {
        let again = alice.run(&["listen", "--count", "1", "--for", "60"]);
        assert_eq!(topics(&again), [topic], "{again:?}");
        assert!(again.stderr.contains("axon --root") && again.stderr.contains("inbox"), "{again:?}");
        notify(&bob, "b3");
    }
    let inbox = alice.run(&["inbox"]).ok();
    assert_eq!(topics_of(&inbox), ["c1", "b1", "c2", "b2", "b3", "b3"], "{inbox}");
    let known = alice.run(&["inbox", "--trust", "known"]).ok();
    assert_eq!((topics_of(&known), &known["below"]), (vec!["b1", "b2", "b3", "b3"], &json!(2)), "{known}");
    let plain = alice.run(&["--plain", "inbox", "--trust", "known"]).stdout;
    assert!(plain.contains("2 messages of peers below known not shown"), "{plain}");
    assert!(!plain.contains("carol"), "{plain}");

    // Asked for, they come, in their order, with all behind them.
    let all = alice.run(&["listen", "--trust", "unknown", "--count", "6"]);
    assert_eq!(topics(&all), ["c1", "b1", "c2", "b2", "b3", "b3"], "{all:?}");
    assert!(!all.stderr.contains("not printed"), "{all:?}");
    assert_eq!(all.lines()[0]["trust"], "unknown");
    assert_eq!(topics_of(&alice.run(&["inbox"]).ok()), [""; 0]);

    // One that listens when they come, and one that acknowledges nothing.
    let mut listening = alice.spawn(&["listen", "--count", "2"]);
    let attached =
        || (alice.client().ok(json!({"cmd":"status"}))["clients"].as_u64() > Some(1)).then_some(());
    wait_for("the listener", attached);
    notify(&bob, "b4");
    assert_eq!(listening.line()["payload"]["topic"], "b4");
    notify(&carol, "c3");
    notify(&bob, "b5");
    let ran = listening.wait();
    assert_eq!(topics(&ran), ["b4", "b5"], "{ran:?}");
    let looked = alice.run(&["listen", "--no-ack", "--count", "1"]);
    assert_eq!(topics(&looked), ["b5"], "{looked:?}");
    assert!(looked.stderr.contains("1 message of peers below known"), "{looked:?}");
    assert_eq!(topics_of(&alice.run(&["inbox"]).ok()), ["c3", "b5"]);
    assert!(alice.run(&["listen", "--trust", "blocked"]).usage().contains("trusted"));
}

#[test]
fn a_scoped_socket_loses_nothing_of_unknown_peers_either() {
    let [alice, bob, carol] = three();
    let path = alice.run(&["socket", "add", "helper", "--allow", "inbox"]).ok()["path"].clone();
    let scoped = |args: &[&str]| {
        let mut command = std::process::Command::new(support::AXON);
        command.args(["--socket", path.as_str().unwrap()]).args(args).env("HOME", alice.root());
        run(command)
    };
    notify(&carol, "c1");
    notify(&bob, "b1");
    notify(&bob, "b2");
    // In one run each comes once; the next begins before what was left, and says so.
    let ran = scoped(&["listen", "--count", "2"]);
    assert_eq!(topics(&ran), ["b1", "b2"], "{ran:?}");
    assert!(ran.stderr.contains("1 message of peers below known") && ran.stderr.contains("again"), "{ran:?}");
    let inbox = scoped(&["inbox"]).ok();
    assert_eq!(topics_of(&inbox), ["c1", "b1", "b2"]);
    scoped(&["ack", &inbox["next_seq"].to_string()]).ok();
    notify(&bob, "b3");
    assert_eq!(topics(&scoped(&["listen", "--count", "1"])), ["b3"]);

    // What it is not told of the daemon is not shown as if it were nothing.
    let status = scoped(&["status"]).ok();
    assert_eq!(keys(&status), ["ok", "paused", "peers_connected", "uptime_secs"], "{status}");
    let status = scoped(&["--plain", "status"]).stdout;
    assert!(status.contains("2 peers connected") && !status.contains("sent"), "{status}");
    assert!(scoped(&["peers"]).ok()["peers"][0]["unread"].is_u64());
}

#[test]
fn an_unknown_peer_starts_no_agent() {
    let [alice, bob, carol] = three();
    let attach = |args: &[&str]| {
        let running = alice.spawn(args);
        let answers = || (alice.client().ok(json!({"cmd":"status"}))["answerers"] == 1).then_some(());
        wait_for("the answerer", answers);
        running
    };
    let answering = attach(&["answer", "--text", "--", "tr", "a-z", "A-Z"]);
    let said = carol.run(&["send", "alice", "hello"]).fails(4, "not_authorized");
    assert!(said["message"].as_str().unwrap().contains("axon trust"), "{said}");
    assert_eq!(bob.run(&["send", "alice", "hello"]).ok()["payload"]["summary"], "HELLO");
    drop(answering);
    let gone = || (alice.client().ok(json!({"cmd":"status"}))["answerers"] == 0).then_some(());
    wait_for("the answerer to go", gone);
    let answering = attach(&["answer", "--trust", "unknown", "--text", "--", "tr", "a-z", "A-Z"]);
    assert_eq!(carol.run(&["send", "alice", "hello"]).ok()["payload"]["summary"], "HELLO");
    drop(answering);
    wait_for("the answerer to go", gone);

    let taking = attach(&["listen", "--answer", "--count", "1"]);
    carol.run(&["send", "alice", "hello"]).fails(4, "not_authorized");
    let asking = bob.spawn(&["send", "alice", "When?"]);
    let taken = taking.wait();
    assert_eq!(taken.json()["payload"]["question"], "When?", "{taken:?}");
    assert!(taken.stderr.contains("1 request of peers below known refused"), "{taken:?}");
    alice.run(&["reply", taken.json()["id"].as_str().unwrap(), "Now."]).ok();
    assert_eq!(asking.wait().ok()["payload"]["summary"], "Now.");
}

/// More than one replay holds: the rest is read from the inbox, where what is left may be as well.
#[test]
fn what_is_left_far_behind_is_passed_over_too() {
    const FAR: u64 = 1030;
    let [alice, bob, carol] = three_with("[ipc]\nbuffer_size = 3000\n");
    let mut client = bob.client();
    let tell = |client: &mut RawClient| {
        let payload = json!({"topic":"b","data":1});
        client.begin(json!({"cmd":"send","to":"alice","kind":"notify","payload":payload}))
    };
    for _ in 0..FAR / 206 {
        // No more than so many wait for a peer at once.
        let sent: Vec<String> = (0..206).map(|_| tell(&mut client)).collect();
        for id in sent {
            assert_eq!(client.finish(&id)["state"], "delivered");
        }
    }
    notify(&carol, "c");
    notify(&bob, "last");
    let count = (FAR + 1).to_string();
    let ran = alice.run(&["listen", "--count", &count]);
    let topics = topics(&ran);
    assert_eq!((ran.code, topics.len() as u64, topics.last().unwrap().as_str()), (0, FAR + 1, "last"));
    assert!(!topics.contains(&"c".to_owned()) && ran.stderr.contains("1 message of peers"), "{}", ran.stderr);
    let inbox = alice.run(&["inbox"]).ok();
    assert_eq!(topics_of(&inbox), ["c", "last"]);
}
