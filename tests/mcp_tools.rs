//! `axon mcp` as programs of others see it: the official inspector, the official conformance suite, and the
//! official Python SDK without sessions. `tests/mcp/install` brings them; none reaches beyond loopback.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::mcp::outsiders::{installed, outsider, run_within};
use crate::mcp::proxy::Proxy;
use crate::mcp::serving::Served;
use crate::support::{AXON, Daemon, pair, wait_for};

const TOOLS: [&str; 10] =
    ["peers", "ask", "delegate", "wait", "notify", "inbox", "reply", "result", "advertise", "status"];
/// An agent that says what it was asked in capitals, and takes its time for what begins with "slow".
const SHOUT: &str = "read q; case $q in slow*) exec sleep 60;; esac; echo \"$q\" | tr a-z A-Z";

fn url(served: &Served) -> String {
    format!("http://127.0.0.1:{}/mcp", served.port)
}

/// The inspector's command line, set upon one `axon mcp`.
struct Inspector<'a> {
    programs: PathBuf,
    home: tempfile::TempDir,
    target: Target<'a>,
}

enum Target<'a> {
    Stdio(&'a Daemon),
    Http(&'a Served),
}

impl<'a> Inspector<'a> {
    fn new(programs: &Path, target: Target<'a>) -> Self {
        Self { programs: programs.to_owned(), home: tempfile::tempdir().unwrap(), target }
    }

    /// Runs one method, with sessions (legacy) or without (modern); gives its exit code and what it printed.
    fn run(&self, era: &str, method: &str, args: &[&str]) -> (i32, String) {
        let mut command = outsider(&self.programs.join("node_modules/.bin/node"), self.home.path());
        command.arg(self.programs.join("node_modules/.bin/inspector"));
        command.args(["--cli", "--format", "json", "--quiet", "--stored-auth-only", "--protocol-era", era]);
        command.args(["--method", method]).args(args);
        match self.target {
            Target::Stdio(daemon) => {
                command.args(["--transport", "stdio", "--", AXON, "--root"]).arg(daemon.root()).arg("mcp");
            }
            Target::Http(served) => {
                let token = format!("Authorization: Bearer {}", served.token);
                command.args(["--transport", "http", "--server-url", &url(served), "--header", &token]);
            }
        }
        let ran = run_within(command, 20);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        (ran.code, if ran.code == 0 { ran.stdout } else { all })
    }

    /// The result of one method, which must succeed.
    fn result(&self, era: &str, method: &str, args: &[&str]) -> Value {
        let (code, text) = self.run(era, method, args);
        assert_eq!(code, 0, "{method} {args:?}: {text}");
        let said: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        said["result"].clone()
    }

    /// Calls a tool; what it says has to be structured and in words.
    fn call(&self, era: &str, tool: &str, arguments: &Value) -> Value {
        let args = ["--tool-name", tool, "--tool-args-json", &arguments.to_string()];
        let result = self.result(era, "tools/call", &args);
        assert_ne!(result["isError"], true, "{tool}: {result}");
        assert!(!result["content"][0]["text"].as_str().unwrap().is_empty(), "{tool}: {result}");
        assert!(result["structuredContent"].is_object(), "{tool}: {result}");
        result["structuredContent"].clone()
    }
}

/// What is listed, and that the inspector finds no fault with the tools' schemas.
fn lists(inspector: &Inspector<'_>, era: &str) {
    // A fault in a schema would be exit code 6.
    let tools = inspector.result(era, "tools/list", &["--strict"]);
    let names: Vec<_> = tools["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, TOOLS);
    let resources = inspector.result(era, "resources/list", &[]);
    assert_eq!(resources["resources"][0]["uri"], "axon://inbox", "{resources}");
    assert_eq!(resources["resources"][1]["uri"], "axon://peers", "{resources}");
    let templates = inspector.result(era, "resources/templates/list", &[]);
    assert_eq!(templates["resourceTemplates"][0]["uriTemplate"], "axon://delegations/{id}");
    let read = inspector.result(era, "resources/read", &["--uri", "axon://peers"]);
    let peers: Value = serde_json::from_str(read["contents"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!((&peers[0]["name"], &peers[0]["status"]), (&json!("alice"), &json!("connected")));
    let (code, text) = inspector.run(era, "resources/read", &["--uri", "axon://nothing"]);
    assert!(code != 0 && text.contains("resources/list names them"), "{code} {text}");
}

/// Every tool, called at bob's: alice's agent answers, and alice asks in turn.
fn every_tool(inspector: &Inspector<'_>, era: &str, alice: &Daemon) {
    let call = |tool: &str, arguments: Value| inspector.call(era, tool, &arguments);
    assert_eq!(call("status", json!({}))["peers_connected"], 1);
    assert_eq!(call("peers", json!({}))["peers"][0]["name"], "alice");
    let advertised = call("advertise", json!({"name": "bob", "domains": ["home"], "tools": ["door"]}));
    assert_eq!(advertised["advertised"], true);
    assert!(call("peers", json!({"peer": "alice"}))["capabilities"].is_object());
    let answer = call("ask", json!({"peer": "alice", "question": "hello", "secs": 10}));
    assert_eq!((&answer["text"], &answer["from"]), (&json!("HELLO"), &json!("alice")));
    assert_eq!(
        call("notify", json!({"peer": "alice", "topic": "t", "data": {"a": 1}}))["state"],
        "delivered"
    );
    let given = call("delegate", json!({"peer": "alice", "task": "work"}));
    let done = call("wait", json!({"id": given["id"], "secs": 10}));
    assert_eq!((&done["state"], &done["text"]), (&json!("completed"), &json!("WORK")));
    let uri = format!("axon://delegations/{}", given["id"].as_str().unwrap());
    let read = inspector.result(era, "resources/read", &["--uri", &uri]);
    assert!(read["contents"][0]["text"].as_str().unwrap().contains("\"completed\""), "{read}");

    // Work that alice gives waits from one run of the inspector to the next.
    let task = alice.run(&["delegate", "bob", "sweep"]).ok();
    let id = task["id"].as_str().unwrap().to_owned();
    let requests = call("inbox", json!({}))["requests"].clone();
    let open: Vec<_> = requests.as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(open, [&json!(id)], "{requests}");
    assert_eq!(requests[0]["text"], "sweep");
    assert_eq!(call("reply", json!({"id": id, "text": "half of it"}))["sent"], "progress");
    assert_eq!(call("result", json!({"id": id, "text": "swept"}))["state"], "delivered");
    let swept = alice.run(&["wait", &id, "--timeout", "10s"]).ok();
    assert!(swept.to_string().contains("swept"), "{swept}");

    // A failure is an answer too, which says what to do.
    let args = ["--tool-name", "ask", "--tool-args-json", r#"{"peer": "nobody", "question": "?"}"#];
    let (_, text) = inspector.run(era, "tools/call", &args);
    assert!(text.contains("peer_not_found"), "{text}");
}

#[test]
fn the_inspector_lists_and_calls_everything_over_stdio() {
    let Some(programs) = installed("the_inspector_over_stdio") else { return };
    let (alice, bob) = pair();
    let mut agent = alice.spawn(&["answer", "--text", "--", "sh", "-c", SHOUT]);
    assert_eq!(agent.line()["ok"], true);
    let inspector = Inspector::new(&programs, Target::Stdio(&bob));
    lists(&inspector, "modern");
    every_tool(&inspector, "legacy", &alice);
}

#[test]
fn the_inspector_lists_and_calls_everything_over_http() {
    let Some(programs) = installed("the_inspector_over_http") else { return };
    let (alice, bob) = pair();
    let mut agent = alice.spawn(&["answer", "--text", "--", "sh", "-c", SHOUT]);
    assert_eq!(agent.line()["ok"], true);
    let served = Served::start(&bob, &["--answer", "always"]);
    let inspector = Inspector::new(&programs, Target::Http(&served));
    lists(&inspector, "legacy");
    every_tool(&inspector, "modern", &alice);

    // A question waits at the server, which is there between two runs of the inspector, for its answer.
    let mut asking = alice.spawn(&["send", "--deadline", "60", "bob", "Is the door open?"]);
    let request = wait_for("the question", || {
        let requests = inspector.call("legacy", "inbox", &json!({}))["requests"].clone();
        requests.as_array().unwrap().first().cloned()
    });
    assert_eq!((&request["kind"], &request["text"]), (&json!("query"), &json!("Is the door open?")));
    let reply = json!({"id": request["id"], "text": "It is shut.", "data": {"open": false}});
    assert_eq!(inspector.call("legacy", "reply", &reply)["sent"], "answer");
    let answer = asking.line();
    assert_eq!(answer["payload"]["summary"], "It is shut.", "{answer}");

    // Without the token it gets nothing.
    let stranger = Served { running: served.running, port: served.port, token: "0".repeat(64) };
    let (code, text) = Inspector::new(&programs, Target::Http(&stranger)).run("legacy", "tools/list", &[]);
    assert!(code != 0 && !text.contains("inputSchema"), "{code} {text}");
}

/// What applies to a server, of each revision, but for what `conformance.yaml` gives a reason for.
#[test]
fn the_conformance_suite_finds_no_fault() {
    let Some(programs) = installed("the_conformance_suite") else { return };
    let (_alice, bob) = pair();
    let served = Served::start(&bob, &[]);
    // The suite shows no token.
    let proxy = Proxy::start(served.port, &served.token);
    let home = tempfile::tempdir().unwrap();
    let excused = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp/conformance.yaml");
    for (revision, scenarios) in [("2025-11-25", 33), ("2026-07-28", 50)] {
        let mut command = outsider(&programs.join("node_modules/.bin/node"), home.path());
        command.arg(programs.join("node_modules/.bin/conformance"));
        command.args(["server", "--url", &proxy.url(), "--requirements", revision]);
        command.arg("--expected-failures").arg(&excused).args(["--output-dir", "found"]);
        let ran = run_within(command, 60);
        assert_eq!(ran.code, 0, "{revision}: {}\n{}", ran.stdout, ran.stderr);
        // That all of them have run, and that what matters most has held.
        let (_, summary) = ran.stdout.split_once("=== SUMMARY ===").unwrap();
        let (summary, _) = summary.split_once("\nTotal:").unwrap();
        let held = |name: &str| summary.contains(&format!("✓ {name}: "));
        assert_eq!(summary.lines().filter(|line| line.contains(" passed, ")).count(), scenarios, "{summary}");
        for name in
            ["dns-rebinding-protection", "tools-list", "resources-list", "server-sse-multiple-streams"]
        {
            assert!(held(name), "{name}: {summary}");
        }
    }
}

#[test]
fn the_python_sdk_needs_no_session() {
    let Some(programs) = installed("the_python_sdk_without_a_session") else { return };
    let (alice, bob) = pair();
    let mut agent = alice.spawn(&["answer", "--text", "--", "sh", "-c", SHOUT]);
    assert_eq!(agent.line()["ok"], true);
    let served = Served::start(&bob, &[]);
    let home = tempfile::tempdir().unwrap();
    let mut command = outsider(&programs.join("venv/bin/python"), home.path());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp/stateless.py"));
    command.env("URL", url(&served)).env("TOKEN", &served.token);
    command.env("AXON", AXON).env("ROOT_A", alice.root());
    let ran = run_within(command, 60);
    assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout.lines().filter(|line| line.starts_with("ok ")).count(), 5, "{}", ran.stdout);
}
