//! A right and then a wrong client, played against the main socket of a running daemon.
//!
//! Source: `spec/IPC.md`. Nothing is sent to any peer and nothing is changed, but for a consumer of its own
//! that reads nothing.

use std::path::Path;
use std::time::Duration;

use axon_proto::id::PublicKey;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Held;

/// How long a reply may take: each of these is the daemon's own to give.
const PATIENCE: Duration = Duration::from_secs(10);
/// Whose cursor it uses.
const CONSUMER: &str = "axon conform";

/// What is said after hello, and the code by which it is refused; none: it is taken.
const AFTER_HELLO: &[(&str, &str, &str, Option<&str>)] = &[
    ("status", "IPC-ORD-1", r#"{"cmd":"status","req_id":"1"}"#, None),
    ("peers", "IPC-ORD-1", r#"{"cmd":"peers","req_id":"1"}"#, None),
    ("a number as req_id", "IPC-ORD-1", r#"{"cmd":"status","req_id":-7}"#, None),
    ("an unknown field", "IPC-LINE-5", r#"{"cmd":"status","req_id":"1","later":{"a":[]}}"#, None),
    ("white space", "IPC-LINE-1", r#" { "req_id" : "1" , "cmd" : "status" } "#, None),
    ("escapes", "IPC-LINE-1", r#"{"cmd":"st\u0061tus","req_id":"1"}"#, None),
    ("inbox", "IPC-INB-1", r#"{"cmd":"inbox","req_id":"1","limit":1,"kinds":["conform.none"]}"#, None),
    ("ack of nothing", "IPC-ACK-1", r#"{"cmd":"ack","req_id":"1","up_to_seq":0}"#, None),
    ("outbox", "IPC-OUT-14", r#"{"cmd":"outbox","req_id":"1","limit":1}"#, None),
    ("delegations", "IPC-DLG-10", r#"{"cmd":"delegations","req_id":"1","limit":1}"#, None),
    ("no JSON", "IPC-LINE-4", "status", Some("invalid_command")),
    ("a list", "IPC-LINE-4", "[]", Some("invalid_command")),
    ("a cut object", "IPC-LINE-4", r#"{"cmd":"status","req_id":"1""#, Some("invalid_command")),
    ("two objects", "IPC-LINE-4", r#"{"cmd":"status","req_id":"1"}{}"#, Some("invalid_command")),
    ("no cmd", "IPC-LINE-4", r#"{"req_id":"1"}"#, Some("invalid_command")),
    ("an unknown cmd", "IPC-LINE-4", r#"{"cmd":"statuS","req_id":"1"}"#, Some("invalid_command")),
    ("no req_id", "IPC-ORD-1", r#"{"cmd":"status"}"#, Some("invalid_command")),
    ("req_id a list", "IPC-ORD-1", r#"{"cmd":"status","req_id":["1"]}"#, Some("invalid_command")),
    ("inbox, limit 0", "IPC-INB-1", r#"{"cmd":"inbox","req_id":"1","limit":0}"#, Some("invalid_command")),
    (
        "inbox, limit 1001",
        "IPC-INB-1",
        r#"{"cmd":"inbox","req_id":"1","limit":1001}"#,
        Some("invalid_command"),
    ),
    (
        "ack past all",
        "IPC-ACK-2",
        r#"{"cmd":"ack","req_id":"1","up_to_seq":9007199254740991}"#,
        Some("ack_out_of_range"),
    ),
    ("ack below 0", "IPC-ACK-2", r#"{"cmd":"ack","req_id":"1","up_to_seq":-1}"#, Some("invalid_command")),
    (
        "subscribe to a text",
        "IPC-SUB-1",
        r#"{"cmd":"subscribe","req_id":"1","kinds":"x"}"#,
        Some("invalid_command"),
    ),
    ("no advert", "IPC-ADV-1", r#"{"cmd":"advertise","req_id":"1"}"#, Some("invalid_command")),
    (
        "send to nobody",
        "IPC-TO-1",
        r#"{"cmd":"send","req_id":"1","to":"","kind":"ping"}"#,
        Some("peer_not_found"),
    ),
    (
        "send of an answer",
        "IPC-SEND-1",
        r#"{"cmd":"send","req_id":"1","to":"x","kind":"pong"}"#,
        Some("invalid_command"),
    ),
    (
        "a reply to nothing",
        "IPC-REP-4",
        r#"{"cmd":"reply","req_id":"1","ref":"00000000-0000-4000-8000-000000000000","kind":"response","payload":{"summary":""}}"#,
        Some("not_found"),
    ),
    (
        "taking back what is not there",
        "IPC-OUT-10",
        r#"{"cmd":"outbox","req_id":"1","cancel":"00000000-0000-4000-8000-000000000000"}"#,
        Some("not_found"),
    ),
    (
        "a state that is none",
        "IPC-DLG-10",
        r#"{"cmd":"delegations","req_id":"1","state":"x"}"#,
        Some("invalid_command"),
    ),
];

/// The same for what is the first line of a client.
const FIRST: &[(&str, &str, &str, &str)] = &[
    ("whoami before hello", "IPC-V1-1", r#"{"cmd":"whoami","req_id":"1"}"#, "hello_required"),
    ("inbox before hello", "IPC-V1-1", r#"{"cmd":"inbox","req_id":"1"}"#, "hello_required"),
    ("hello of version 0", "IPC-HEL-1", r#"{"cmd":"hello","version":0}"#, "unsupported_version"),
    ("hello without a version", "IPC-HEL-1", r#"{"cmd":"hello"}"#, "unsupported_version"),
];

/// Plays both; one row for each thing that was looked at.
///
/// # Errors
/// When nobody listens there, or whoever does wants a token.
pub async fn play(path: &Path) -> Result<Vec<Held>, String> {
    let mut held = Vec::new();
    let mut row = |about: &str, requirement: &str, outcome: Result<(), String>| {
        let id = format!("socket-{}", held.len() + 1);
        let (about, requirements) = (about.to_owned(), vec![requirement.to_owned()]);
        held.push(Held { id, about, requirements, seen: outcome.err() });
    };

    let mut talk = Talk::open(path).await?;
    let hello = talk.greet().await?;
    row("hello", "IPC-HEL-1", fits(&hello, &json!({"ok":true,"req_id":"h","version":2})));
    let whoami = talk.ask(br#"{"cmd":"whoami","req_id":"w"}"#).await;
    let mine = whoami.and_then(|reply| {
        let key: Option<PublicKey> = reply["public_key"].as_str().and_then(|key| key.parse().ok());
        let id = key.ok_or(format!("no public key: {reply}"))?.agent_id().to_string();
        fits(&reply, &json!({"ok":true,"agent_id":id}))?;
        fits(&hello, &json!({"agent_id":id}))
    });
    row("the agent id is that of the key", "WF-ID-1", mine);
    for (about, requirement, line, error) in AFTER_HELLO {
        let seen = talk.ask(line.as_bytes()).await.and_then(|reply| judged(&reply, *error));
        row(about, requirement, seen);
    }
    let me = hello["agent_id"].as_str().unwrap_or_default();
    let line = json!({"cmd":"send","req_id":"1","to":me,"kind":"ping"}).to_string();
    row("send to itself", "IPC-TO-2", talk.refused(line.as_bytes(), "self_send").await);
    row(
        "a line that is not UTF-8",
        "IPC-LINE-4",
        talk.refused(b"{\"cmd\":\"status\",\"req_id\":\"\xff\"}", "invalid_command").await,
    );
    let long = [&br#"{"cmd":"status","req_id":"1","x":""#[..], &[b'x'; 65_536], br#""}"#].concat();
    row("a line that is too long", "IPC-LINE-2", talk.refused(&long, "command_too_large").await);
    let req_id = "x".repeat(127);
    let line = json!({"cmd":"status","req_id":req_id}).to_string();
    row("a req_id of 129 bytes", "IPC-ORD-1", talk.refused(line.as_bytes(), "invalid_command").await);
    row("an empty line is ignored, and the connection stays", "IPC-ERR-1", talk.goes_on().await);
    row("commands that wait for nobody are replied to in order", "IPC-ORD-3", talk.in_order().await);
    row(
        "what was asked is answered after the client has said its last",
        "IPC-LINE-7",
        talk.last_word().await,
    );
    for (about, requirement, line, error) in FIRST {
        let seen = match Talk::open(path).await {
            Ok(mut talk) => talk.refused(line.as_bytes(), error).await,
            Err(why) => Err(why),
        };
        row(about, requirement, seen);
    }
    let consumers = match Talk::open(path).await {
        Ok(mut talk) => {
            talk.refused(br#"{"cmd":"hello","version":2,"consumer":""}"#, "invalid_command").await
        }
        Err(why) => Err(why),
    };
    row("a consumer without a name", "IPC-HEL-1", consumers);
    Ok(held)
}

/// Whether a reply is the one that is to come.
fn judged(reply: &Value, error: Option<&str>) -> Result<(), String> {
    let told = reply["message"].as_str().is_some_and(|message| !message.is_empty());
    match error {
        None => fits(reply, &json!({"ok":true})),
        Some(_) if !told => Err(format!("an error without a sentence: {reply}")),
        Some(error) => fits(reply, &json!({"ok":false,"error":error})),
    }
}

fn fits(reply: &Value, expected: &Value) -> Result<(), String> {
    let fields = expected.as_object().into_iter().flatten();
    match fields.into_iter().find(|(name, value)| reply.get(*name) != Some(value)) {
        Some((name, value)) => Err(format!("{name} should be {value}: {reply}")),
        None => Ok(()),
    }
}

/// One client.
struct Talk {
    stream: BufReader<UnixStream>,
}

impl Talk {
    async fn open(path: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(path).await;
        let stream =
            stream.map_err(|error| format!("{}: {error}: is the daemon running?", path.display()))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    async fn greet(&mut self) -> Result<Value, String> {
        let line = json!({"cmd":"hello","req_id":"h","version":2,"consumer":CONSUMER}).to_string();
        let reply = self.ask(line.as_bytes()).await?;
        if reply["error"] == "auth_required" {
            return Err("this daemon wants a token of each client: nothing can be looked at".into());
        }
        Ok(reply)
    }

    async fn write(&mut self, line: &[u8]) -> Result<(), String> {
        let bytes = [line, b"\n"].concat();
        let written = timeout(PATIENCE, self.stream.get_mut().write_all(&bytes)).await;
        written.map_err(|_| "the daemon does not read".to_owned())?.map_err(|error| error.to_string())
    }

    /// The next reply; events and messages for clients of version 1 are passed over.
    async fn reply(&mut self) -> Result<Value, String> {
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await;
            let read = read.map_err(|_| format!("no reply within {} s", PATIENCE.as_secs()))?;
            if read.map_err(|error| error.to_string())? == 0 {
                return Err("the daemon closed the connection".into());
            }
            let value: Value =
                serde_json::from_str(&line).map_err(|error| format!("a line that is no JSON: {error}"))?;
            if value.get("ok").is_some() {
                return Ok(value);
            }
        }
    }

    async fn ask(&mut self, line: &[u8]) -> Result<Value, String> {
        self.write(line).await?;
        self.reply().await
    }

    async fn refused(&mut self, line: &[u8], error: &str) -> Result<(), String> {
        self.ask(line).await.and_then(|reply| judged(&reply, Some(error)))
    }

    async fn goes_on(&mut self) -> Result<(), String> {
        self.write(b"").await?;
        let reply = self.ask(br#"{"cmd":"status","req_id":"still there"}"#).await?;
        fits(&reply, &json!({"ok":true,"req_id":"still there"}))
    }

    async fn in_order(&mut self) -> Result<(), String> {
        let lines = ["a", "b", "c"].map(|id| json!({"cmd":"whoami","req_id":id}).to_string());
        self.write(lines.join("\n").as_bytes()).await?;
        for id in ["a", "b", "c"] {
            fits(&self.reply().await?, &json!({"ok":true,"req_id":id}))?;
        }
        Ok(())
    }

    async fn last_word(&mut self) -> Result<(), String> {
        self.write(br#"{"cmd":"status","req_id":"last"}"#).await?;
        self.stream.get_mut().shutdown().await.map_err(|error| error.to_string())?;
        fits(&self.reply().await?, &json!({"ok":true,"req_id":"last"}))?;
        match self.reply().await {
            Err(why) if why == "the daemon closed the connection" => Ok(()),
            other => Err(format!("after the last reply: {other:?}")),
        }
    }
}
