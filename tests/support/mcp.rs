//! A client of `axon mcp` that writes and reads JSON-RPC lines itself.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::{Daemon, PATIENCE, kill, wait_for};

/// A client that writes and reads JSON-RPC lines itself.
pub struct Mcp {
    /// The process.
    pub child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// What it was told meanwhile.
    pub told: Vec<Value>,
    next_id: u64,
    /// What it tells the model of itself.
    pub instructions: String,
    /// What each tool's structured output has to fit.
    schemas: BTreeMap<String, Validator>,
}

impl Mcp {
    /// `axon mcp` for this daemon.
    pub fn start(daemon: &Daemon, more: &[&str]) -> Self {
        let args: Vec<&str> = ["mcp"].iter().chain(more).copied().collect();
        Self::run(daemon.command(&args))
    }

    /// `axon mcp` by this command.
    pub fn run(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        let (send, lines) = channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else { panic!("no JSON: {line}") };
                send.send(line).ok();
            }
        });
        let (told, instructions, schemas) = (Vec::new(), String::new(), BTreeMap::new());
        let mut mcp = Self { child, stdin, lines, told, next_id: 0, instructions, schemas };
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}});
        let info = mcp.ask("initialize", hello);
        mcp.instructions = info["instructions"].as_str().unwrap().to_owned();
        mcp.write(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        for tool in mcp.ask("tools/list", json!({}))["tools"].as_array().unwrap() {
            let schema = jsonschema::validator_for(&tool["outputSchema"]).unwrap();
            mcp.schemas.insert(tool["name"].as_str().unwrap().to_owned(), schema);
        }
        mcp
    }

    /// Writes a line.
    pub fn write(&mut self, line: Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn read(&mut self) -> Option<Value> {
        self.lines.recv_timeout(PATIENCE).ok()
    }

    /// Begins a request.
    pub fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.write(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// The answer to a request.
    pub fn finish(&mut self, id: u64) -> Value {
        loop {
            let line = self.read().expect("an answer");
            if line["id"] == id {
                return line;
            }
            self.told.push(line);
        }
    }

    /// A request and its result.
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params);
        let answer = self.finish(id);
        assert!(answer["error"].is_null(), "{answer}");
        answer["result"].clone()
    }

    /// A tool's structured output, with its text as `said`.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let result = self.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        self.check(tool, &result);
        let mut fields = result["structuredContent"].clone();
        fields["said"] = result["content"][0]["text"].clone();
        fields
    }

    /// A tool's answer is no failure, and fits what the tool says of its output.
    pub fn check(&self, tool: &str, result: &Value) {
        assert_ne!(result["isError"], true, "{result}");
        if let Err(error) = self.schemas[tool].validate(&result["structuredContent"]) {
            panic!("{tool}: {error}: {result}");
        }
    }

    /// What a tool says that fails.
    pub fn fails(&mut self, tool: &str, arguments: Value) -> String {
        let result = self.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        assert_eq!(result["isError"], true, "{result}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// The next message that wakes the session.
    pub fn woken(&mut self) -> Value {
        let is = |line: &Value| line["method"] == "notifications/claude/channel";
        if let Some(at) = self.told.iter().position(is) {
            return self.told.remove(at)["params"].clone();
        }
        loop {
            let line = self.read().expect("a message that wakes");
            if is(&line) {
                return line["params"].clone();
            }
            self.told.push(line);
        }
    }

    /// What has woken it so far. A call is answered after what came before it was told.
    pub fn woken_so_far(&mut self) -> usize {
        self.call("status", json!({}));
        self.told.iter().filter(|line| line["method"] == "notifications/claude/channel").count()
    }

    /// Closes its input, and waits for its end.
    pub fn close(mut self) -> i32 {
        self.stdin = None;
        wait_for("axon mcp to end", || self.child.try_wait().unwrap()).code().unwrap()
    }
}

impl Drop for Mcp {
    fn drop(&mut self) {
        // It ends with its input.
        self.stdin = None;
        kill(&mut self.child, false);
    }
}

/// A notification that arrives.
pub fn notify(daemon: &Daemon, to: &str, data: &str) {
    let mut client = daemon.client();
    let sent = client.ok(json!({"cmd": "send", "to": to, "kind": "notify",
        "payload": {"topic": "t", "data": data}}));
    assert_eq!(sent["state"], "delivered");
}
