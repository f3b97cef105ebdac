//! `axon mcp --http` asked by plain HTTP, as bytes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::mcp::serving::Served;

/// Longer than any bound of the server that a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Of its first line; 0 when there was none.
    pub status: u16,
    /// The rest of the head.
    pub head: String,
    /// As it came, in chunks perhaps.
    pub body: String,
}

impl Answer {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fits = |line: &&str| line.split(':').next().unwrap().eq_ignore_ascii_case(name);
        self.head.lines().find(fits).map(|line| line.split_once(':').unwrap().1.trim())
    }

    /// The JSON-RPC message in it: the body, or the last that the stream brought.
    pub fn message(&self) -> Value {
        let parse = |line: &str| serde_json::from_str::<Value>(line.strip_prefix("data: ").unwrap_or(line));
        let mut messages = self.body.lines().filter_map(|line| parse(line).ok()).filter(Value::is_object);
        messages.next_back().unwrap_or_else(|| panic!("no message: {self:?}"))
    }
}

impl Served {
    /// A new connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The head of a request, but for its end. A header given here stands instead of the usual one.
    pub fn head(&self, method: &str, headers: &[(&str, &str)]) -> String {
        let path = headers.iter().find(|(name, _)| *name == ":path").map_or("/mcp", |(_, path)| path);
        let host = format!("127.0.0.1:{}", self.port);
        let token = format!("Bearer {}", self.token);
        let usual = [
            ("Host", host.as_str()),
            ("Authorization", &token),
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
            ("Connection", "close"),
        ];
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        let usual = usual.iter().filter(|(name, _)| !headers.iter().any(|(given, _)| given == name));
        let given = headers.iter().filter(|(name, value)| *name != ":path" && !value.is_empty());
        for (name, value) in usual.chain(given) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head
    }

    /// Sends these bytes, and reads to the end.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that has refused already may have closed its end.
        stream.write_all(bytes).ok();
        read_to_end(stream)
    }

    /// A request with this body.
    pub fn request(&self, method: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let head = self.head(method, headers);
        self.raw(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
    }

    /// A message in a POST.
    pub fn post(&self, headers: &[(&str, &str)], message: &Value) -> Answer {
        self.request("POST", headers, &message.to_string())
    }

    /// Asks to begin a session.
    pub fn initialize(&self) -> Answer {
        self.post(&[], &initialize())
    }

    /// Begins a session, and gives its id.
    pub fn session(&self) -> String {
        let answer = self.initialize();
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = answer.header("mcp-session-id").unwrap().to_owned();
        let ready = json!({"jsonrpc":"2.0","method":"notifications/initialized"});
        assert_eq!(self.post(&[("Mcp-Session-Id", &id)], &ready).status, 202);
        id
    }

    /// Calls a tool in a session, and gives the result.
    pub fn call(&self, session: &str, tool: &str, arguments: &Value) -> Value {
        let answer = self.post(&[("Mcp-Session-Id", session)], &call(1, tool, arguments));
        answer.message()["result"].clone()
    }
}

/// The message that begins a session.
pub fn initialize() -> Value {
    json!({"jsonrpc":"2.0","id":0,"method":"initialize","params":{
        "protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}
    }})
}

/// The message that calls a tool.
pub fn call(id: u64, tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc":"2.0","id":id,"method":"tools/call","params":{"name":tool,"arguments":arguments}})
}

/// All that comes until the end, which must come in time.
pub fn read_to_end(mut stream: TcpStream) -> Answer {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16384]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("no end ({error}) after {}", String::from_utf8_lossy(&bytes)),
        }
    }
    stream.shutdown(Shutdown::Both).ok();
    Answer::of(&String::from_utf8_lossy(&bytes))
}
