//! What `axon mcp` lets a client do to it: who may speak over HTTP, and how much of everything there may be.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::mcp::asking::{Answer, call, initialize, read_to_end};
use crate::mcp::serving::Served;
use crate::support::{Daemon, pair, wait_for};

// ---- HTTP: who may speak ----------------------------------------------------------------------------------

#[test]
fn only_who_shows_the_token_to_the_right_host_from_no_other_page_is_heard() {
    let daemon = Daemon::start("");
    let served = Served::start(&daemon, &[]);
    let own = |host: &str| format!("{host}:{}", served.port);
    let asked = |headers: &[(&str, &str)]| served.post(headers, &initialize());
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        let (host, origin) = (own(host), format!("http://{}", own(host)));
        let answer = asked(&[("Host", &host), ("Origin", &origin)]);
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
        assert_eq!(answer.message()["result"]["serverInfo"]["name"], "axon");
        // It lets no page read what it says.
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let wrong = "0".repeat(64);
    for token in ["", "Bearer", "Bearer ", &format!("Bearer {wrong}"), &served.token[..], "Basic YTpi"] {
        let answer = asked(&[("Authorization", token)]);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{answer:?}");
        assert!(answer.body.contains("Authorization: Bearer TOKEN"), "{answer:?}");
    }
    let evil = own("evil.example.com");
    for host in [&evil[..], "evil.example.com", "127.0.0.1", &format!("127.0.0.1:{}", served.port ^ 1)] {
        assert_eq!(asked(&[("Host", host)]).status, 403, "{host}");
    }
    for origin in ["http://evil.example.com", &format!("http://{evil}"), "null", "http://127.0.0.1"] {
        assert_eq!(asked(&[("Origin", origin)]).status, 403, "{origin}");
    }
    assert_eq!(asked(&[(":path", "/")]).status, 404);
    assert_eq!(served.request("OPTIONS", &[("Authorization", "")], "").status, 401);
    assert_eq!(served.request("PUT", &[], "{}").status, 405);
}

#[test]
fn what_is_too_long_or_broken_is_refused() {
    let daemon = Daemon::start("");
    let served = Served::start(&daemon, &[]);
    let long = "x".repeat(256 * 1024 + 1);
    let answer = served.request("POST", &[], &long);
    assert_eq!(answer.status, 413, "{}", answer.head);
    assert!(answer.body.contains("shorten it"), "{}", answer.body);
    // In chunks it says beforehand of no length.
    let head = served.head("POST", &[("Transfer-Encoding", "chunked")]);
    let chunked = format!("{head}\r\n{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    assert_eq!(served.raw(chunked.as_bytes()).status, 413);
    let head = served.head("POST", &[("X-Long", &"x".repeat(500_000))]);
    assert_eq!(served.raw(format!("{head}\r\n").as_bytes()).status, 431);
    for broken in ["", "{", "{} {}", "nonsense", "\u{0}"] {
        let answer = served.request("POST", &[], broken);
        assert_eq!((answer.status, answer.body.contains("one JSON-RPC message")), (400, true), "{answer:?}");
    }
    for broken in ["[]", "null", "1", r#"{"jsonrpc":"2.0"}"#] {
        let answer = served.request("POST", &[], broken);
        assert!((400..500).contains(&answer.status), "{broken}: {answer:?}");
    }
    let answer = served.request("GET", &[("Mcp-Session-Id", "nobody's")], "");
    assert_eq!(answer.status, 404, "{answer:?}");
    assert_eq!(served.initialize().status, 200);
}

#[test]
fn what_is_half_sent_is_given_up() {
    let daemon = Daemon::start("");
    let served = Served::start(&daemon, &[]);
    let body = format!("{}Content-Length: 100\r\n\r\n{{", served.head("POST", &[]));
    let begun = Instant::now();
    let halves: Vec<_> = ["", "POST /mcp HTTP/1.1\r\nHost: 127", &body]
        .into_iter()
        .map(|half| {
            let mut stream = served.connect();
            stream.write_all(half.as_bytes()).unwrap();
            thread::spawn(move || read_to_end(stream).status)
        })
        .collect();
    // Others are served meanwhile, however many there are of those.
    let idle: Vec<_> = (0..150).map(|_| served.connect()).collect();
    assert_eq!(served.initialize().status, 200);
    let ends: Vec<u16> = halves.into_iter().map(|half| half.join().unwrap()).collect();
    assert_eq!(ends, [0, 0, 408]);
    assert!(begun.elapsed() < Duration::from_secs(18), "{:?}", begun.elapsed());
    drop(idle);
}

// ---- HTTP: how much there may be --------------------------------------------------------------------------

#[test]
fn sessions_that_nobody_ends_make_room_for_others() {
    let daemon = Daemon::start("");
    let served = Served::start(&daemon, &[]);
    let status = |session: &str| {
        let list = json!({"jsonrpc":"2.0","id":1,"method":"tools/list"});
        served.post(&[("Mcp-Session-Id", session)], &list).status
    };
    let listens = served.session();
    let mut stream = served.connect();
    let get = served.head("GET", &[("Mcp-Session-Id", &listens)]);
    stream.write_all(format!("{get}\r\n").as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let idle = served.session();
    // As a client does that begins one at each start and ends none.
    let before = memory(&served);
    let mut last = String::new();
    for _ in 0..300 {
        let answer = served.initialize();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("mcp-session-id").unwrap().clone_into(&mut last);
    }
    assert!(memory(&served) < before + 16 * 1024, "{before} KiB, then {} KiB", memory(&served));
    assert_eq!((status(&listens), status(&idle), status(&last)), (200, 404, 200));

    // Sessions that are in use are left alone, and whoever has none is served all the same.
    let held: Vec<_> = (0..70)
        .map_while(|_| {
            let answer = served.initialize();
            let id = answer.header("mcp-session-id")?.to_owned();
            let mut stream = served.connect();
            let get = served.head("GET", &[("Mcp-Session-Id", &id)]);
            stream.write_all(format!("{get}\r\n").as_bytes()).unwrap();
            stream.read_exact(&mut first).unwrap();
            Some((id, stream))
        })
        .collect();
    assert_eq!(held.len(), 63);
    let refused = served.initialize();
    assert!(refused.status >= 500 && refused.body.contains("64 sessions"), "{refused:?}");
    assert_eq!(discover(&served).status, 200);
    assert_eq!(served.request("DELETE", &[("Mcp-Session-Id", &held[0].0)], "").status, 202);
    wait_for("the place of a session that has ended", || (served.initialize().status == 200).then_some(()));
}

/// A request of the revision without sessions.
fn discover(served: &Served) -> Answer {
    let headers = [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "server/discover")];
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({"_meta": meta});
    served.post(&headers, &json!({"jsonrpc":"2.0","id":1,"method":"server/discover","params":params}))
}

#[test]
fn calls_that_nobody_waits_for_are_bounded() {
    let daemon = Daemon::start("");
    let served = Served::start(&daemon, &[]);
    let session = served.session();
    for id in 0..256 {
        let wait = call(id, "wait", &json!({"secs": 3600})).to_string();
        let head = served.head("POST", &[("Mcp-Session-Id", &session)]);
        let mut stream = served.connect();
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{wait}", wait.len()).as_bytes()).unwrap();
        // That it has begun. Then its client goes away, and may come back for the answer.
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
    }
    let status = || served.call(&session, "status", &json!({}));
    let refused = wait_for("all calls to be at work", || {
        let answer = status();
        (answer["isError"] == true).then_some(answer)
    });
    assert!(refused.to_string().contains("overloaded: 256 calls are at work"), "{refused}");
    let cancel = json!({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}});
    assert_eq!(served.post(&[("Mcp-Session-Id", &session)], &cancel).status, 202);
    wait_for("a place", || (status()["isError"] != true).then_some(()));
}

#[test]
fn a_stream_that_nobody_reads_holds_up_nobody_else() {
    let (alice, bob) = pair();
    let served = Served::start(&bob, &["--answer", "always"]);
    let session = served.session();
    let mut stream = served.connect();
    let get = served.head("GET", &[("Mcp-Session-Id", &session)]);
    stream.write_all(format!("{get}\r\n").as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    let before = memory(&served);
    // Each wakes the session with 8000 characters, so that all together fit into no buffer of the system's.
    let (mut client, data) = (alice.client(), "x".repeat(20_000));
    for _ in 0..700 {
        let told = json!({"topic":"t","data":data});
        // Bob's inbox is full before the last of them has come.
        client.cmd(json!({"cmd":"send","to":"bob","kind":"notify","payload":told}));
    }
    assert_eq!(served.call(&session, "status", &json!({}))["isError"], false);
    let other = served.session();
    assert_eq!(served.call(&other, "peers", &json!({}))["structuredContent"]["peers"][0]["name"], "alice");
    assert!(memory(&served) < before + 32 * 1024, "{before} KiB, then {} KiB", memory(&served));
}

/// What the server has in memory, in KiB, where the system says so.
fn memory(served: &Served) -> u64 {
    resident(served.running.pid())
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

// ---- Standard input and output ----------------------------------------------------------------------------

/// `axon mcp` as a client starts it.
struct Piped {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Piped {
    fn start(daemon: &Daemon) -> Self {
        let mut command = daemon.command(&["mcp"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut piped = Self { child, input, output };
        piped.say(initialize().to_string().as_bytes());
        assert_eq!(piped.line()["result"]["serverInfo"]["name"], "axon");
        piped.say(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        piped
    }

    fn say(&mut self, line: &[u8]) {
        let input = self.input.as_mut().unwrap();
        input.write_all(line).unwrap();
        input.write_all(b"\n").unwrap();
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Fails the test when it takes too long, so that a pipe on which nothing comes cannot hold it up.
fn within(secs: u64, test: impl FnOnce() + Send + 'static) {
    let (end, ended) = channel();
    let test = thread::spawn(move || {
        test();
        end.send(()).ok();
    });
    match ended.recv_timeout(Duration::from_secs(secs)) {
        Err(RecvTimeoutError::Timeout) => panic!("it did not end within {secs} s"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => test.join().unwrap(),
    }
}

#[test]
fn lines_that_are_broken_or_too_long_end_nothing() {
    within(50, || {
        let (_alice, bob) = pair();
        let mut client = Piped::start(&bob);
        let ping = |client: &mut Piped, id: u64| {
            client.say(json!({"jsonrpc":"2.0","id":id,"method":"ping"}).to_string().as_bytes());
            loop {
                // What is JSON and no message is answered as such, without an id.
                let line = client.line();
                if line["id"] == id {
                    return assert!(line["result"].is_object(), "{line}");
                }
                assert_eq!(line["error"]["code"], -32600, "{line}");
            }
        };
        for (id, broken) in (1..).zip([&b"{"[..], b"nonsense", b"\xff\xfe", b"[1]", b"{}", b"\x00", b""]) {
            client.say(broken);
            ping(&mut client, id);
        }
        // The daemon takes no command of this length, and the model is told so.
        let question = "x".repeat(10_000_000);
        client.say(call(20, "ask", &json!({"peer": "alice", "question": question})).to_string().as_bytes());
        let answer = client.line();
        assert_eq!((&answer["id"], &answer["result"]["isError"]), (&json!(20), &json!(true)));
        assert!(answer.to_string().contains("command_too_large"), "{answer}");
        // Beyond all bounds: it is not even kept.
        client.say(&vec![b'x'; 60_000_000]);
        ping(&mut client, 30);
        let kib = resident(client.child.id());
        assert!(kib < 100_000, "{kib} KiB");
        // The end of its input is its own.
        client.input = None;
        wait_for("axon mcp to end", || client.child.try_wait().unwrap());
    });
}

#[test]
fn a_client_that_does_not_read_is_not_read() {
    within(50, || {
        let daemon = Daemon::start("");
        let mut client = Piped::start(&daemon);
        let (before, asked) = (resident(client.child.id()), 6000);
        let mut input = client.input.take().unwrap();
        let (end, ended) = channel();
        let writer = thread::spawn(move || {
            for id in 1..=asked {
                writeln!(input, r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#).unwrap();
            }
            end.send(()).ok();
            input
        });
        // Far more than the pipe holds: it waits, for as long as nobody takes the answers.
        assert_eq!(ended.recv_timeout(Duration::from_secs(3)), Err(RecvTimeoutError::Timeout));
        let kib = resident(client.child.id());
        assert!(kib < before + 16 * 1024, "{before} KiB, then {kib} KiB");
        // Then each is answered, once.
        let answered: BTreeSet<u64> = (0..asked).map(|_| client.line()["id"].as_u64().unwrap()).collect();
        assert_eq!(answered.len(), usize::try_from(asked).unwrap());
        client.input = Some(writer.join().unwrap());
    });
}

#[test]
fn what_is_taken_back_leaves_its_place() {
    within(50, || {
        let daemon = Daemon::start("");
        let mut client = Piped::start(&daemon);
        // More than may be open at once, each of which would wait for an hour.
        for id in 1..=600 {
            client.say(call(id, "wait", &json!({"secs": 3600})).to_string().as_bytes());
            let cancelled =
                json!({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":id}});
            client.say(cancelled.to_string().as_bytes());
        }
        wait_for("a place", || {
            client.say(call(1000, "status", &json!({})).to_string().as_bytes());
            let answer = loop {
                let line = client.line();
                if line["id"] == 1000 {
                    break line;
                }
            };
            (answer["result"]["isError"] == false).then_some(())
        });
    });
}
