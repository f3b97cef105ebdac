//! `axon answer`: any program as an agent, one run for each request, ended together with its children.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support;
use crate::support::cli::{Home, Running, is_alive, run_with};
use crate::support::{Daemon, pair, wait_for};

/// `axon answer …` on this daemon, attached.
fn answering(daemon: &Daemon, args: &[&str]) -> Running {
    let mut agent = daemon.spawn(&[&["answer"], args].concat());
    assert_eq!(agent.line()["ok"], true);
    agent
}

/// A shell script as the program.
fn script<'a>(options: &[&'a str], text: &'a str) -> Vec<&'a str> {
    [options, &["--", "sh", "-c", text]].concat()
}

/// The answer's payload.
fn ask(daemon: &Daemon, args: &[&str]) -> Value {
    daemon.run(&[&["send"], args].concat()).ok()["payload"].clone()
}

/// Waits for the program to say, in this file, which process it has started.
fn pid_in(path: &PathBuf) -> u32 {
    wait_for("a process id", || fs::read_to_string(path).ok()?.trim().parse().ok())
}

/// Starts a child that would run for minutes, writes down its pid, and waits for it.
fn with_child(pid: &std::path::Path, first: &str) -> String {
    let path = pid.display();
    format!("{first} sleep 60 & echo $! > {path}.new; mv {path}.new {path}; wait; wait")
}

fn gone(pid: u32) {
    wait_for("a child of the run to end", || (!is_alive(pid)).then_some(()));
}

#[test]
fn what_is_printed_is_the_answer() {
    let (alice, bob) = pair();
    let mut agent = bob.spawn(&["answer", "--", "cat"]);
    assert_eq!(agent.line(), json!({"ok":true,"answering":["query","delegate"]}));
    // The payload comes on stdin; an object without fields of an answer is its data.
    let answer = ask(&alice, &["--max-tokens", "5", "bob", "What?"]);
    assert_eq!(answer["data"], json!({"question":"What?","max_tokens":5}));
    assert!(answer["summary"].is_string(), "{answer}");
    drop(agent);

    let object = r#"{"summary":"s","data":[1],"tokens_used":3,"odd":true}"#;
    let agent = answering(&bob, &script(&[], &format!("echo noise >&2; echo '{object}'")));
    assert_eq!(ask(&alice, &["bob", "?"]), serde_json::from_str::<Value>(object).unwrap());
    drop(agent);

    let agent = answering(&bob, &["--text", "--", "tr", "a-z", "A-Z"]);
    assert_eq!(ask(&alice, &["bob", "loud,\nplease"]), json!({"summary":"LOUD,\nPLEASE","data":null}));
    let done = alice.run(&["delegate", "--wait", "bob", "work"]);
    assert_eq!((done.code, &done.lines()[1]["payload"]["outcome"]), (0, &json!("WORK")), "{done:?}");
    assert_eq!(done.lines()[1]["payload"]["status"], "completed");
    // Cut near max_tokens, whole characters only.
    let cut = ask(&alice, &["--max-tokens", "3", "bob", "one two three four"]);
    assert_eq!(cut, json!({"summary":"ONE TWO THRE","data":null,"truncated":true}));
    drop(agent);

    // More than a message holds is cut too; and what the program does not read does not hold it up.
    let agent = answering(&bob, &script(&[], "head -c 300000 /dev/zero | tr '\\0' x"));
    let long = run_with(alice.command(&["send", "bob", "-"]), &[b'q'; 50_000]).ok();
    assert_eq!(long["payload"]["truncated"], true);
    assert!(long["payload"]["summary"].as_str().unwrap().len() > 60_000);
    drop(agent);
}

#[test]
fn the_request_stands_in_the_environment() {
    let (alice, bob) = pair();
    let text = r#"echo "$AXON_ID/$AXON_FROM/$AXON_KIND/${AXON_DOMAIN-none}/${AXON_MAX_TOKENS-none}/$AXON_DEADLINE_MS""#;
    let mut command = bob.command(&["answer", "--", "sh", "-c", text]);
    // What an agent that started us was asked is not what we are asked.
    command.env("AXON_DOMAIN", "outer").env("AXON_MAX_TOKENS", "7");
    let mut agent = support::cli::spawn(command);
    agent.text();
    let asked =
        alice.run(&["send", "--domain", "a.b", "--max-tokens", "99", "--deadline", "5", "bob", "?"]).ok();
    let said = asked["payload"]["summary"].as_str().unwrap().to_owned();
    let words: Vec<&str> = said.split('/').collect();
    assert_eq!(words[..5], [asked["id"].as_str().unwrap(), alice.id(), "query", "a.b", "99"]);
    let left: u64 = words[5].parse().unwrap();
    assert!(left <= 5000 && left > 1000, "{said}");
    let plain = ask(&alice, &["bob", "?"]);
    assert!(plain["summary"].as_str().unwrap().contains("/query/none/none/"), "{plain}");
    let work = alice.run(&["delegate", "--wait", "bob", "w"]);
    assert!(
        work.lines()[1]["payload"]["outcome"].as_str().unwrap().contains("/delegate/none/none/"),
        "{work:?}"
    );
}

#[test]
fn a_failed_run_is_an_error_with_the_end_of_stderr() {
    let (alice, bob) = pair();
    let text =
        "echo half an answer; i=0; while [ $i -lt 500 ]; do echo \"line $i\" >&2; i=$((i+1)); done; exit 3";
    let agent = answering(&bob, &script(&[], text));
    let failed = alice.run(&["send", "bob", "?"]).fails(4, "internal");
    let message = failed["message"].as_str().unwrap();
    assert!(message.contains("exit status: 3") && message.contains("line 499"), "{message}");
    assert!(!message.contains("line 1\n") && message.len() < 4_000, "{message}");
    let work = alice.run(&["delegate", "--wait", "bob", "w"]);
    let result = &work.lines()[1];
    assert_eq!((work.code, &result["payload"]["status"]), (4, &json!("failed")), "{work:?}");
    assert!(result["payload"]["outcome"].as_str().unwrap().contains("line 499"), "{work:?}");
    assert!(agent.stderr().contains("line 499"), "whoever runs the agent sees why");
}

#[test]
fn a_run_that_takes_too_long_is_ended_with_its_children() {
    let (alice, bob) = pair();
    let home = Home::default();
    // It does not listen to being asked to stop, and neither does its child.
    let pid = home.path().join("pid");
    let text = with_child(&pid, "trap '' TERM;");
    let _agent = answering(&bob, &script(&["--timeout", "0.3"], &text));
    let late = alice.run(&["send", "bob", "?"]).fails(3, "timeout");
    assert!(late["message"].as_str().unwrap().contains("0.3 s"), "{late}");
    gone(pid_in(&pid));
    fs::remove_file(&pid).unwrap();
    let work = alice.run(&["delegate", "--wait", "bob", "w"]);
    assert_eq!((work.code, &work.lines()[1]["payload"]["status"]), (4, &json!("failed")), "{work:?}");
    gone(pid_in(&pid));
}

#[test]
fn a_query_that_nobody_waits_for_ends_its_run() {
    let (alice, bob) = pair();
    let home = Home::default();
    let pid = home.path().join("pid");
    let _agent = answering(&bob, &script(&[], &with_child(&pid, "")));
    // Its deadline passes. shows: IPC-WD-1
    alice.run(&["send", "--deadline", "0.3", "bob", "?"]).fails(3, "timeout");
    gone(pid_in(&pid));
    fs::remove_file(&pid).unwrap();
    // Its asker goes away. shows: IPC-ORD-6, MT-TIME-2
    let asking = alice.spawn(&["send", "bob", "?"]);
    let child = pid_in(&pid);
    assert!(is_alive(child));
    drop(asking);
    gone(child);
}

#[test]
fn a_cancelled_delegation_ends_its_run_with_its_children() {
    let (alice, bob) = pair();
    let home = Home::default();
    let pid = home.path().join("pid");
    let _agent = answering(&bob, &script(&[], &with_child(&pid, "")));
    let id = alice.run(&["delegate", "bob", "w"]).ok()["id"].as_str().unwrap().to_owned();
    let child = pid_in(&pid);
    assert!(is_alive(child));
    // shows: CORE-CAN-1
    let cancelled = alice.run(&["cancel", &id, "--reason", "enough"]).ok();
    assert_eq!(cancelled["payload"]["accepted"], true);
    // "Cancelled" is true when it is said.
    assert!(!is_alive(child), "the run goes on after its cancel was acked");
    let idle = wait_for("the place to be free", || {
        let status = bob.client().ok(json!({"cmd":"status"}));
        (status["active_tasks"] == 0).then_some(status)
    });
    assert_eq!(idle["answerers"], 1);
    // Who waits for the result hears of the end too, and nothing follows the ack. shows: CORE-CAN-2
    let results = alice.run(&["inbox", "--kinds", "result"]).ok();
    let results = results["messages"].as_array().unwrap();
    assert!(results.len() <= 1, "{results:?}");
    assert!(results.iter().all(|row| row["payload"]["status"] == "failed"), "{results:?}");
}

#[test]
fn as_many_run_at_once_as_were_allowed() {
    let (alice, bob) = pair();
    let home = Home::default();
    let dir = home.path().display().to_string();
    let text = format!("touch {dir}/run.$AXON_ID; while [ ! -e {dir}/go ]; do sleep 0.02; done; echo done");
    let _agent = answering(&bob, &script(&["--concurrency", "2"], &text));
    let asking = [1, 2, 3].map(|_| alice.spawn(&["send", "--deadline", "9", "bob", "?"]));
    let runs = || fs::read_dir(home.path()).unwrap().filter_map(Result::ok).count();
    let status = || bob.client().ok(json!({"cmd":"status"}));
    wait_for("two runs, and one that waits", || (runs() == 2 && status()["queued"] == 1).then_some(()));
    assert_eq!((&status()["active_tasks"], &status()["capacity"]), (&json!(3), &json!(2)));
    fs::write(home.path().join("go"), "").unwrap();
    for asking in asking {
        assert_eq!(asking.wait().ok()["payload"]["summary"], "done");
    }
    assert_eq!(runs(), 4);
}

#[test]
fn only_the_kinds_and_domains_named_are_answered_and_told() {
    let (alice, bob) = pair();
    let mut agent =
        bob.spawn(&["answer", "--kinds", "query", "--domain", "text,sums", "--text", "--", "cat"]);
    assert_eq!(agent.line()["answering"], json!(["query"]));
    assert_eq!(ask(&alice, &["--domain", "sums.big", "bob", "1"])["summary"], "1");
    alice.run(&["send", "--domain", "family", "bob", "1"]).fails(4, "unknown_domain");
    assert_eq!(alice.run(&["delegate", "bob", "w"]).ok()["payload"]["state"], "queued");
    assert_eq!(alice.run(&["discover", "bob"]).ok()["payload"]["domains"], json!(["text", "sums"]));
}

#[test]
fn it_ends_when_it_is_told_to_and_leaves_no_children() {
    let (alice, bob) = pair();
    let home = Home::default();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let pid = home.path().join(format!("{}", signal.as_raw()));
        let agent = answering(&bob, &script(&[], &with_child(&pid, "")));
        let asking = alice.spawn(&["send", "--deadline", "4", "bob", "?"]);
        let child = pid_in(&pid);
        agent.signal(signal);
        let ran = agent.wait();
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(!is_alive(child), "a child is left after {signal:?}");
        // Nobody is left to answer. shows: IPC-LEASE-1
        asking.wait().fails(4, "unhandled");
    }
}

#[test]
fn it_comes_back_when_the_daemon_does() {
    let (alice, mut bob) = pair();
    let mut agent = answering(&bob, &["--text", "--", "cat"]);
    assert_eq!(ask(&alice, &["bob", "one"])["summary"], "one");
    bob.kill9();
    bob.up();
    assert_eq!(agent.line()["ok"], true, "it says when it is attached again");
    alice.wait_peer(&bob, true);
    assert_eq!(ask(&alice, &["bob", "two"])["summary"], "two");
    assert!(agent.stderr().contains("waiting"), "{}", agent.stderr());
    // A daemon that stops in the ordinary way is the same to it.
    assert_eq!(bob.terminate().code(), Some(0));
    bob.up();
    agent.line();
    alice.wait_peer(&bob, true);
    assert_eq!(ask(&alice, &["bob", "three"])["summary"], "three");
}
