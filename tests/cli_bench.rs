//! `axon bench`, as a user runs it: with a peer, with daemons of its own, and when it goes wrong.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::cli::{Home, Ran, Running, is_alive, keys, processes_with, run, sorted, spawn};
use crate::support::{Daemon, pair, pair_with, wait_for};

/// Fields of each run's object; `more` are those of some runs only.
fn fields<const N: usize>(more: [&'static str; N]) -> Vec<&'static str> {
    let always = sorted([
        "ok",
        "run",
        "peer",
        "own_daemons",
        "count",
        "size_bytes",
        "inflight",
        "done",
        "failed",
        "errors",
        "secs",
        "rate_per_sec",
        "p50_us",
        "p90_us",
        "p99_us",
        "max_us",
        "daemons",
        "cpus",
    ]);
    let mut all = [&always[..], &more].concat();
    all.sort_unstable();
    all
}

/// The figures of a run that went well: all were done, and the figures agree with each other.
fn well(line: &Value, run: &str, count: u64) {
    let number = |field: &str| line[field].as_f64().unwrap_or_else(|| panic!("{field}: {line}"));
    assert_eq!((&line["ok"], line["run"].as_str()), (&Value::Bool(true), Some(run)), "{line}");
    assert_eq!((&line["count"], &line["done"]), (&json!(count), &json!(count)), "{line}");
    assert_eq!((&line["failed"], &line["errors"]), (&json!(0), &json!({})), "{line}");
    let times = ["p50_us", "p90_us", "p99_us", "max_us"].map(number);
    assert!(times[0] > 0.0 && times.is_sorted(), "{line}");
    // No message takes longer than the run, nor the run longer than all of them one after another.
    let us = number("secs") * 1_000_000.0;
    assert!(times[3] <= us + 1.0 && us <= times[3] * number("count") + 1.0, "{line}");
    let rate = number("done") / number("secs");
    assert!((number("rate_per_sec") - rate).abs() <= rate / 100.0 + 0.1, "{line}");
    for (at, daemon) in line["daemons"].as_array().unwrap().iter().enumerate() {
        let own = ["name", "pid", "cpu_us_per_message", "rss_kib"];
        // A daemon with a subscriber says also how much that was shown.
        let subscribed = run == "pubsub" && at > 0;
        let own = if subscribed { [&own[..], &["deliveries_per_sec"]].concat() } else { own.into() };
        let known: BTreeSet<&str> = keys(daemon).into_iter().collect();
        assert_eq!(known, own.into_iter().collect(), "{line}");
        // The daemon of a test is larger than this, however small.
        assert!(daemon["rss_kib"].as_u64().is_none_or(|kib| kib > 1_000), "{line}");
    }
}

/// Names and process ids of the daemons that were looked at.
fn daemons(line: &Value) -> Vec<(&str, u32)> {
    let pid = |daemon: &Value| u32::try_from(daemon["pid"].as_u64().unwrap()).unwrap();
    let all = line["daemons"].as_array().unwrap();
    all.iter().map(|daemon| (daemon["name"].as_str().unwrap(), pid(daemon))).collect()
}

/// A place for daemons that a run makes. Its path is short, as a socket's must be.
struct Place {
    home: Home,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ax").rand_bytes(8).tempdir_in("/tmp").unwrap();
        Self { home: Home::default(), dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&[&["bench"], args].concat());
        command.env("TMPDIR", self.path());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args))
    }

    /// A run beside the test that lasts until it is ended, as soon as both daemons and the echo agent are
    /// there.
    fn spawn_endless(&self) -> Running {
        let running = spawn(self.command(&["--self", "--count", "100000000"]));
        wait_for("two daemons and an agent", || (self.processes().len() == 3).then_some(()));
        running
    }

    /// Ids of what runs here, and the command line of each.
    fn processes(&self) -> Vec<String> {
        processes_with(self.path().to_str().unwrap())
    }

    /// The daemon with this name here.
    fn daemon(&self, name: &str) -> Option<Pid> {
        let root = self.made().first()?.join(name);
        let found = processes_with(&format!("\"root\":\"{}\"", root.display()));
        Pid::from_raw(found.first()?.split_whitespace().next()?.parse().ok()?)
    }

    /// What was made here and is there still.
    fn made(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn is_left_as_it_was(&self) {
        assert_eq!((self.processes(), self.made()), (Vec::<String>::new(), Vec::new()));
        assert!(!self.home.root().exists(), "a root was made");
    }
}

#[test]
fn each_verb_measures_the_running_daemon_with_a_peer() {
    let (alice, bob) = pair();
    let mut echo = bob.spawn(&["bench", "echo", "--drain"]);
    let ready = json!({"ok": true, "domain": "axon.bench", "drain": true});
    assert_eq!(echo.line(), ready);
    let load = ["--peer", "bob", "--count", "300", "--inflight", "8", "--size", "100"];
    for (verb, state) in [("ask", None), ("notify", Some("delivered")), ("kept", Some("delivered"))] {
        let ran = alice.run(&[&["bench", verb], &load[..]].concat());
        let line = ran.ok();
        well(&line, verb, 300);
        let more = if state.is_some() { fields(["state"]) } else { fields([]) };
        assert_eq!(keys(&line), more);
        let told = (&line["peer"], &line["size_bytes"], &line["inflight"], &line["own_daemons"]);
        assert_eq!(told, (&json!("bob"), &json!(100), &json!(8), &json!(false)));
        assert_eq!(line["state"].as_str(), state);
        // No progress where nobody looks.
        assert_eq!(ran.stderr, "", "{verb}");
        #[cfg(target_os = "linux")]
        {
            assert_eq!(daemons(&line), [("own", alice.pid())]);
            assert!(line["daemons"][0]["cpu_us_per_message"].as_f64().is_some_and(|us| us > 0.0), "{line}");
        }
    }
    // The longest text goes there and back.
    well(&alice.run(&["bench", "ask", "--peer", "bob", "--count", "20", "--size", "64000"]).ok(), "ask", 20);
    well(
        &alice.run(&["bench", "kept", "--peer", "bob", "--count", "20", "--size", "64000"]).ok(),
        "kept",
        20,
    );
    // All that was kept has been read: 301 and 301 and 21, with those ahead of each run.
    wait_for("the echo agent to read the last", || {
        let mut client = bob.connect();
        client.cmd(json!({"cmd": "hello", "version": 2, "consumer": "bench"}));
        (client.cmd(json!({"cmd": "status"}))["inbox_unread"] == 0).then_some(())
    });
    echo.signal(Signal::TERM);
    let ended = echo.wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    let done = json!({"ok": true, "answered": 301 + 21, "drained": 301 + 301 + 21, "failed": 0});
    assert_eq!(ended.lines(), [ready, done]);
}

#[test]
fn text_has_all_figures_too() {
    let (alice, bob) = pair();
    let mut echo = bob.spawn(&["bench", "echo", "--plain"]);
    assert!(echo.text().contains("axon.bench"));
    let args = ["bench", "ask", "--peer", "bob", "--count", "1000", "--size", "10", "--plain"];
    let ran = alice.run(&args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    for part in ["1,000 messages of 10 bytes to bob, 64 in flight", "/s: 1,000 in ", "p50 ", "p90 ", "p99 "] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("failed"), "{}", ran.stdout);
    #[cfg(target_os = "linux")]
    assert!(ran.stdout.contains("daemon   own: ") && ran.stdout.contains(" MB"), "{}", ran.stdout);
}

#[test]
fn who_cannot_be_measured_is_told_why() {
    let (alice, _bob) = pair_with("", "ipc.durable = false");
    let bench = |args: &[&str]| alice.run(&[&["bench"], args].concat());
    bench(&["ask", "--peer", "nobody"]).fails(5, "peer_not_found");
    let alone = bench(&["ask", "--peer", "bob"]).fails(4, "unhandled");
    assert!(alone["message"].as_str().unwrap().contains("axon bench echo"), "{alone}");
    let forgetful = bench(&["kept", "--peer", "bob"]).fails(4, "no_receipt");
    assert!(forgetful["message"].as_str().unwrap().contains("axon bench notify"), "{forgetful}");
    let notify = bench(&["notify", "--peer", "bob", "--count", "50"]).ok();
    well(&notify, "notify", 50);
    assert_eq!(notify["state"], "sent");
    // Daemons of its own have no root that could be named.
    assert!(bench(&["ask"]).usage().contains("--peer"));
    let idle = Daemon::idle("");
    idle.run(&["bench", "kept", "--peer", "bob"]).fails(1, "no_daemon");
    idle.run(&["bench", "echo"]).fails(1, "no_daemon");
}

#[test]
fn what_failed_is_counted_by_code_and_ends_the_run() {
    let (alice, _bob) = pair_with("", "ipc.buffer_size = 50");
    let ran = alice.run(&["bench", "kept", "--peer", "bob", "--count", "5000", "--inflight", "4"]);
    let line = ran.fails(1, "overloaded");
    // One row is of the message ahead of the run.
    assert_eq!(line["done"], 49, "{line}");
    let failed = line["failed"].as_u64().unwrap();
    assert!((1_000..1_004).contains(&failed), "{line}");
    assert_eq!(line["errors"], json!({"overloaded": failed}));
    assert!(line["message"].as_str().unwrap().contains("the run was ended"), "{line}");
    assert_eq!(keys(&line), fields(["state", "error", "message"]));
    let text = alice.run(&["bench", "notify", "--peer", "bob", "--count", "3", "--plain"]);
    // The message ahead of the run is refused at once, and there are no figures of nothing.
    assert_eq!((text.code, text.stdout.as_str()), (1, ""), "{text:?}");
    assert!(text.stderr.contains("axon bench echo --drain"), "{text:?}");
}

#[test]
fn numbers_have_bounds_and_say_them() {
    let place = Place::new();
    for (args, bounds) in [
        (["--count", "0"], "1 to 100000000"),
        (["--count", "100000001"], "1 to 100000000"),
        (["--size", "0"], "1 to 64000"),
        (["--size", "99999999999999999999"], "1 to 64000"),
        (["--inflight", "257"], "1 to 256"),
        (["--inflight", "-1"], "1 to 256"),
    ] {
        for verb in [&["ask"][..], &["notify"], &["kept"], &["pubsub"], &["--self"]] {
            let ran = place.run(&[verb, &args].concat());
            assert!(ran.usage().contains(bounds), "{verb:?} {args:?}: {ran:?}");
        }
    }
    for (option, number) in ["--to", "--publishers"]
        .into_iter()
        .flat_map(|option| ["0", "17", "ten", "-1", ""].map(|n| (option, n)))
    {
        let ran = place.run(&["pubsub", option, number]);
        assert!(ran.usage().contains("1 to 16"), "{option} {number}: {ran:?}");
    }
    for (args, word) in [
        (&["--self", "ask"][..], "no verb"),
        (&["kept", "--to", "2"], "--to"),
        (&["--self", "--to", "2"], "--to"),
        (&["--count", "3", "echo"], "by itself"),
        (&["--count", "3"], "--self"),
        (&["ask", "--domain", "x"], "--peer"),
        (&["pubsub", "--peer", "bob"], "--peer"),
        (&["--self", "--name", "x"], "of its own"),
    ] {
        let ran = place.run(args);
        assert!(ran.usage().contains(word), "{args:?}: {ran:?}");
    }
    place.is_left_as_it_was();
}

#[test]
fn daemons_of_its_own_are_measured_and_gone_afterwards() {
    let place = Place::new();
    let ran = place.run(&["--self", "--count", "100", "--size", "32", "--inflight", "4"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let lines = ran.lines();
    let runs = [("ask", 1), ("ask", 4), ("kept", 4), ("pubsub", 1), ("pubsub", 4), ("notify", 4)];
    assert_eq!(lines.len(), runs.len(), "{ran:?}");
    for (line, (run, inflight)) in lines.iter().zip(runs) {
        well(line, run, 100);
        assert_eq!((&line["inflight"], &line["size_bytes"]), (&json!(inflight), &json!(32)));
        assert_eq!((&line["peer"], &line["own_daemons"]), (&json!("bob"), &json!(true)));
        let state = match run {
            "ask" | "pubsub" => Value::Null,
            "kept" => json!("delivered"),
            // Nothing is on disk there, and so there is no receipt.
            _ => json!("sent"),
        };
        assert_eq!(line["state"], state, "{line}");
        let regime = if line["cpus"] == 1 { "pinned" } else { "spread" };
        assert_eq!(line["regime"], regime, "{line}");
        for (_, pid) in daemons(line) {
            assert!(!is_alive(pid), "{line}");
        }
        #[cfg(target_os = "linux")]
        assert_eq!(daemons(line).iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["ada", "bob"]);
    }
    let one = place.run(&["kept", "--count", "10"]).ok();
    well(&one, "kept", 10);
    place.is_left_as_it_was();
}

#[test]
fn what_is_published_gets_to_each_of_several_daemons_once() {
    let place = Place::new();
    let load = ["pubsub", "--count", "200", "--size", "40", "--inflight", "8"];
    let line = place.run(&[&load[..], &["--to", "3", "--publishers", "3"]].concat()).ok();
    well(&line, "pubsub", 200);
    assert_eq!((&line["publishers"], &line["inflight"]), (&json!(3), &json!(8)), "{line}");
    let number = |field: &str| line[field].as_f64().unwrap_or_else(|| panic!("{field}: {line}"));
    assert_eq!((&line["to"], &line["deliveries"]), (&json!(3), &json!(600)), "{line}");
    // A delivery is no later than the last of its message, and all of them are three times the messages.
    assert!(number("each_p50_us") > 0.0 && number("each_p50_us") <= number("p50_us"), "{line}");
    assert!((number("deliveries_per_sec") - 3.0 * number("rate_per_sec")).abs() <= 1.0, "{line}");
    assert!((number("checks_per_sec") - 1e6 / number("check_us")).abs() < number("checks_per_sec") / 10.0);
    assert!(line.get("peer").is_none(), "several are no peer: {line}");
    #[cfg(target_os = "linux")]
    {
        let names: Vec<&str> = daemons(&line).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["ada", "bob", "cleo", "dora"]);
        assert!(number("cpu_us_per_delivery") > 0.0, "{line}");
    }
    place.is_left_as_it_was();
    let ran = place.run(&[&load[..], &["--to", "2", "--plain"]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    for part in ["200 messages of 40 bytes to 2 daemons", "each     p50 ", " over all 2", "checks   "] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    place.is_left_as_it_was();
}

#[test]
fn nothing_is_left_behind_when_it_is_interrupted() {
    for signal in [Signal::INT, Signal::TERM] {
        let place = Place::new();
        let running = place.spawn_endless();
        running.signal(signal);
        running.wait().fails(1, "interrupted");
        place.is_left_as_it_was();
    }
}

#[test]
fn nothing_is_left_behind_when_a_daemon_dies() {
    let place = Place::new();
    let running = place.spawn_endless();
    let ada = wait_for("ada's daemon", || place.daemon("ada"));
    kill_process(ada, Signal::KILL).unwrap();
    let ran = running.wait();
    assert_eq!(ran.code, 1, "{ran:?}");
    let last = ran.lines().pop().unwrap();
    assert_eq!(last["ok"], false, "{ran:?}");
    place.is_left_as_it_was();
}

/// Not even its directory can go then, but no process stays.
#[test]
fn its_daemons_end_with_it_when_it_is_killed() {
    let place = Place::new();
    let running = place.spawn_endless();
    running.signal(Signal::KILL);
    assert_eq!(running.wait().code, -9);
    wait_for("the daemons and the agent to end", || place.processes().is_empty().then_some(()));
}
