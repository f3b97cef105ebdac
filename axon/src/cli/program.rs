//! One run of a program for one request: payload in, answer out, ended together with its children.

use std::ffi::OsString;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use axon_client::{Answer, PAYLOAD_BYTES_MAX, Request, truncate};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How much of stderr a failed run's error holds.
const STDERR_BYTES: usize = 2_000;
/// How long a run may take to end by itself once it is told to.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// How long output is awaited that a child of the finished program still holds open.
const LINGER: Duration = Duration::from_millis(500);

/// A program that answers requests.
#[derive(Debug)]
pub struct Program {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// A run may take this long.
    pub timeout: Option<Duration>,
    /// Whether it gets only the question or task.
    pub text: bool,
}

impl Program {
    /// Runs the program for a request, until it ends or the request does.
    pub async fn answer(&self, request: Request) -> Answer {
        let mut child = match self.spawn(&request) {
            Ok(child) => child,
            Err(why) => return Answer::error("internal", why),
        };
        let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
        let mut output = Output::default();
        let stopped = {
            let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            let input = self.input(&request);
            let mut pipes = pin!(async {
                tokio::join!(
                    feed(stdin, input),
                    keep_head(stdout, &mut output.head, &mut output.cut),
                    keep_tail(stderr, &mut output.tail),
                )
            });
            let mut pipes_open = true;
            let stopped = {
                let finished = async {
                    let status = loop {
                        tokio::select! {
                            status = child.wait() => break status,
                            _ = &mut pipes, if pipes_open => pipes_open = false,
                        }
                    };
                    if pipes_open {
                        pipes_open = timeout(LINGER, &mut pipes).await.is_err();
                    }
                    status
                };
                tokio::select! {
                    status = finished => Ok(status),
                    _ = request.ended() => Err(None),
                    limit = expire(self.timeout) => Err(Some(limit)),
                }
            };
            if stopped.is_err() {
                group.signal(Signal::TERM);
                // The program is not reaped here, so that its group's number stays its own until after the
                // kill. Its pipes close when all of its children are gone.
                if pipes_open {
                    timeout(TERM_GRACE, &mut pipes).await.ok();
                }
                group.signal(Signal::KILL);
            }
            stopped
        };
        match stopped {
            Ok(status) => {
                group.let_go();
                match status {
                    Ok(status) => output.into_answer(status),
                    Err(error) => Answer::error("internal", format!("lost sight of the program: {error}")),
                }
            }
            Err(limit) => {
                // It cannot refuse to die, but it can be stuck in the kernel.
                timeout(TERM_GRACE, child.wait()).await.ok();
                group.let_go();
                match limit {
                    Some(limit) => {
                        let secs = limit.as_secs_f64();
                        Answer::error("timeout", format!("the agent's program was ended after {secs} s"))
                    }
                    None => Answer::error("cancelled", "the request ended first"),
                }
            }
        }
    }

    fn spawn(&self, request: &Request) -> Result<Child, String> {
        let Some((program, args)) = self.command.split_first() else {
            return Err("the agent has no program".to_owned());
        };
        let message = request.message();
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("AXON_ID", clean(&message.id))
            .env("AXON_FROM", clean(&message.from))
            .env("AXON_KIND", clean(&message.kind))
            .process_group(0)
            .kill_on_drop(true);
        let deadline = request.time_left().map(|left| left.as_millis().to_string());
        for (name, value) in [
            ("AXON_TRUST", request.sender().trust.as_ref().map(|trust| clean(trust.as_str()))),
            ("AXON_FROM_NAME", request.sender().from_name.as_deref().map(clean)),
            ("AXON_CLAIMED", request.sender().claimed.then(|| "1".to_owned())),
            ("AXON_DOMAIN", request.domain().map(clean)),
            ("AXON_DEADLINE_MS", deadline),
            ("AXON_MAX_TOKENS", request.max_tokens().map(|tokens| tokens.to_string())),
        ] {
            match value {
                Some(value) => command.env(name, value),
                // Not what an agent that started us was asked.
                None => command.env_remove(name),
            };
        }
        command.spawn().map_err(|error| format!("the agent's program cannot be started: {error}"))
    }

    fn input(&self, request: &Request) -> String {
        let text = if self.text { request.subject() } else { request.message().payload.get() };
        format!("{text}\n")
    }
}

/// What a run has said.
#[derive(Default)]
struct Output {
    head: Vec<u8>,
    cut: bool,
    tail: Vec<u8>,
}

impl Output {
    fn into_answer(self, status: ExitStatus) -> Answer {
        let text = String::from_utf8_lossy(&self.head);
        let text = text.trim_end_matches(['\n', '\r']);
        if !status.success() {
            let stderr = String::from_utf8_lossy(&self.tail);
            let said = match stderr.trim() {
                "" => truncate(text, STDERR_BYTES).0,
                said => said,
            };
            let colon = if said.is_empty() { "" } else { ": " };
            return Answer::error("internal", format!("the agent's program failed ({status}){colon}{said}"));
        }
        if self.cut {
            return Answer::text(text).cut_short();
        }
        match serde_json::from_str::<Map<String, Value>>(text) {
            Ok(fields) => Answer::payload(fields),
            Err(_) => Answer::text(text),
        }
    }
}

/// A run's processes. Those of a run that is dropped half-way are killed.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // All may be gone already.
            kill_process_group(group, signal).ok();
        }
    }

    fn let_go(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// What a peer wrote, as a value in an environment.
fn clean(text: &str) -> String {
    text.replace('\0', "")
}

async fn expire(limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            sleep(limit).await;
            limit
        }
        None => std::future::pending().await,
    }
}

/// A program that does not read its input is none the worse for it.
async fn feed(pipe: Option<impl tokio::io::AsyncWrite + Unpin>, input: String) {
    if let Some(mut pipe) = pipe {
        pipe.write_all(input.as_bytes()).await.ok();
        pipe.shutdown().await.ok();
    }
}

/// Reads all, keeps what an answer can hold.
async fn keep_head(pipe: Option<impl AsyncRead + Unpin>, head: &mut Vec<u8>, cut: &mut bool) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; 8192];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        let room = PAYLOAD_BYTES_MAX - head.len();
        *cut |= read > room;
        head.extend_from_slice(&chunk[..read.min(room)]);
    }
}

/// Reads all, keeps the end.
async fn keep_tail(pipe: Option<impl AsyncRead + Unpin>, tail: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; 4096];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        tail.extend_from_slice(&chunk[..read]);
        let excess = tail.len().saturating_sub(STDERR_BYTES);
        tail.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use serde_json::json;

    use super::*;

    fn answer(stdout: &str, stderr: &str, exit: i32) -> (&'static str, Value) {
        let output = Output { head: stdout.into(), cut: false, tail: stderr.into() };
        output.into_answer(ExitStatus::from_raw(exit << 8)).into_reply("query", None)
    }

    #[test]
    fn output_becomes_an_answer() {
        assert_eq!(answer("At 7.\n", "noise", 0), ("response", json!({"summary": "At 7.", "data": null})));
        assert_eq!(answer(" {\"summary\":\"x\",\"data\":1}\n", "", 0).1, json!({"summary": "x", "data": 1}));
        assert_eq!(answer("[1]", "", 0).1, json!({"summary": "[1]", "data": null}));
        let (kind, payload) = answer("half", "it broke\n", 3);
        assert_eq!((kind, &payload["code"]), ("error", &json!("internal")));
        assert!(payload["message"].as_str().unwrap().ends_with("(exit status: 3): it broke"), "{payload}");
    }

    #[tokio::test]
    async fn only_the_beginning_and_the_end_are_kept() {
        let (mut head, mut cut, mut tail) = (Vec::new(), false, Vec::new());
        let long = vec![b'x'; PAYLOAD_BYTES_MAX + 1];
        keep_head(Some(&long[..]), &mut head, &mut cut).await;
        assert_eq!((head.len(), cut), (PAYLOAD_BYTES_MAX, true));
        keep_tail(Some(&[long, b"end".to_vec()].concat()[..]), &mut tail).await;
        assert!(tail.len() == STDERR_BYTES && tail.ends_with(b"end"));
    }
}
