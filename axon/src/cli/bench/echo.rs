//! `axon bench echo`: the agent at the other end of a benchmark. It answers each query with the text that it
//! came with, and does as little as it can for it.

use std::borrow::Cow;
use std::time::Duration;

use axon_client::{ClientError, Hello, Raw};
use axon_proto::limits::{CLIENT_PENDING_MAX, INBOX_LIMIT_MAX, LINE_BYTES_MAX};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::report::thousands;
use super::{CONSUMER, DOMAIN};
use crate::cli::Context;
use crate::cli::answer::stopped;
use crate::cli::output::{CliError, CliResult, EXIT_DONE};

/// What is around the text in a line that answers; generous.
const AROUND_BYTES: usize = 512;
/// Rows that were given and not acked yet are acked together, from so many or so many bytes on. Both are well
/// below what an inbox holds.
const ACK_ROWS: u64 = 128;
const ACK_BYTES: usize = 524_288;
/// After this long without a line, all of them are.
const IDLE: Duration = Duration::from_millis(100);

/// Answer the queries of `axon bench ask` that another machine sends, with the text they came with.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It answers queries about axon.bench only, and so takes none from other agents here. Ctrl-C \
    ends it.\n\nExample:\n  axon bench echo          then, on the other machine: axon bench ask --peer NAME"
)]
pub(super) struct Args {
    /// Also read and ack what is kept, as the consumer `bench`, so that the inbox never fills. What nobody
    /// else has read yet may then go when room is needed: not for an inbox that is in use
    #[arg(long)]
    drain: bool,
}

/// The part of a line that counts.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    event: Cow<'a, str>,
    #[serde(default)]
    ok: Option<bool>,
    #[serde(default)]
    req_id: Option<u64>,
    #[serde(borrow, default)]
    error: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(default)]
    answer: bool,
    #[serde(default)]
    seq: u64,
    #[serde(borrow, default)]
    envelope: Option<Envelope<'a>>,
    #[serde(default)]
    messages: Vec<IgnoredAny>,
    #[serde(default)]
    next_seq: Option<u64>,
    #[serde(default)]
    has_more: bool,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Deserialize)]
struct Question<'a> {
    #[serde(borrow)]
    question: &'a RawValue,
}

/// What it says as soon as queries can come.
#[derive(Debug, Serialize)]
struct Attached {
    ok: bool,
    domain: &'static str,
    drain: bool,
}

/// What it has done.
#[derive(Debug, Default, Serialize)]
struct Done {
    ok: bool,
    answered: u64,
    /// Rows of the inbox that it has acked.
    drained: u64,
    /// Answers that the daemon did not take.
    failed: u64,
}

/// Numbers of its commands.
const REPLY: u64 = 0;
const SUBSCRIBE: u64 = 1;
const ACK: u64 = 2;
const INBOX: u64 = 3;

pub(super) async fn run(cx: &Context, args: &Args) -> CliResult {
    let mut stop = tokio::spawn(stopped()?);
    let client = cx.connect(CONSUMER).await?;
    cx.compare_version(client.welcome());
    let failure = |error| cx.failure(error);
    let mut raw = Raw::connect(client.path(), Hello::consumer(CONSUMER)).await.map_err(failure)?;
    drop(client);
    let mut echo = Echo::new(args.drain);
    let served = tokio::select! {
        served = echo.serve(&mut raw, cx) => served,
        _ = &mut stop => Ok(()),
    };
    let done = &echo.done;
    cx.out.result(done, || {
        let (answered, drained) = (thousands(done.answered), thousands(done.drained));
        format!("{answered} answered, {drained} read, {} answers not taken", thousands(done.failed))
    })?;
    served?;
    Ok(EXIT_DONE)
}

/// The agent between two turns.
#[derive(Debug)]
struct Echo {
    drain: bool,
    done: Done,
    /// Lines that go out at the next turn.
    out: Vec<u8>,
    /// Rows and bytes of them that were given since the last ack was written.
    rows: u64,
    bytes: usize,
    last_seq: u64,
    /// Whether an ack is on its way.
    acking: bool,
}

impl Echo {
    fn new(drain: bool) -> Self {
        let done = Done { ok: true, ..Done::default() };
        Self { drain, done, out: Vec::new(), rows: 0, bytes: 0, last_seq: 0, acking: false }
    }

    /// Answers until the connection ends.
    async fn serve(&mut self, raw: &mut Raw, cx: &Context) -> Result<(), CliError> {
        let failure = |error| cx.failure(error);
        let mut subscribe = json!({"cmd": "subscribe", "req_id": SUBSCRIBE, "answer": ["query"],
            "domains": [DOMAIN], "capacity": CLIENT_PENDING_MAX});
        if self.drain {
            subscribe["kinds"] = json!(["notify"]);
            subscribe["replay"] = json!(false);
        }
        self.command(&subscribe);
        loop {
            if !self.out.is_empty() {
                raw.queue(&[&self.out]).map_err(failure)?;
                self.out.clear();
            }
            if self.rows == 0 {
                raw.turn().await.map_err(failure)?;
            } else if let Ok(turned) = timeout(IDLE, raw.turn()).await {
                turned.map_err(failure)?;
            } else {
                // The last rows of a run.
                self.ack();
                continue;
            }
            while let Some(line) = raw.next_line() {
                let strange = |error: serde_json::Error| ClientError::Protocol(error.to_string());
                let parsed: Line<'_> = serde_json::from_slice(line).map_err(strange).map_err(failure)?;
                if self.take(&parsed, line.len()).map_err(failure)? {
                    let attached = Attached { ok: true, domain: DOMAIN, drain: self.drain };
                    cx.out.result(&attached, || self.greeting())?;
                }
            }
            if !self.acking && (self.rows >= ACK_ROWS || self.bytes >= ACK_BYTES) {
                self.ack();
            }
        }
    }

    /// Deals with one line. True when the daemon has said that this is an agent now.
    fn take(&mut self, line: &Line<'_>, bytes: usize) -> Result<bool, ClientError> {
        match (line.ok, line.req_id) {
            (None, _) if line.event == "slow_consumer" => {
                // What was given is acked, then the rest is read row by row.
                self.ack();
                self.read_on();
            }
            (None, _) => match &line.envelope {
                Some(query) if line.answer => self.answer(query),
                Some(_) => self.given(1, bytes, line.seq),
                None => {}
            },
            (Some(true), Some(SUBSCRIBE)) => return Ok(true),
            // Only what goes wrong is told.
            (Some(false), Some(REPLY)) => {
                self.done.answered = self.done.answered.saturating_sub(1);
                self.done.failed += 1;
            }
            // One that was refused is made good by the next.
            (Some(_), Some(ACK)) => self.acking = false,
            (Some(true), Some(INBOX)) => {
                if let Some(seq) = line.next_seq {
                    self.given(u64::try_from(line.messages.len()).unwrap_or(u64::MAX), bytes, seq);
                    self.ack();
                }
                if line.has_more {
                    self.read_on();
                }
            }
            (Some(false), _) => {
                let (code, message) = (line.error.to_string(), line.message.to_string());
                return Err(ClientError::Ipc { code, message });
            }
            (Some(true), _) => {}
        }
        Ok(false)
    }

    fn greeting(&self) -> String {
        let also = if self.drain { ", and reading what is kept" } else { "" };
        format!("answering queries about {DOMAIN}{also}; Ctrl-C ends it")
    }

    fn answer(&mut self, query: &Envelope<'_>) {
        let question = serde_json::from_str(query.payload.get()).map(|Question { question }| question.get());
        let (kind, payload) = match question {
            Ok(text) if text.len() + AROUND_BYTES <= LINE_BYTES_MAX => {
                ("response", [r#"{"data":null,"summary":"#, text, "}"])
            }
            // The daemon lets no query through that has none, so that it is too long.
            _ => ("error", [r#"{"code":"internal","message":"The text is too long to echo."}"#, "", ""]),
        };
        self.line(&[
            r#"{"cmd":"reply","req_id":0,"quiet":true,"ref":""#,
            &query.id,
            r#"","kind":""#,
            kind,
            r#"","payload":"#,
        ]);
        payload.iter().for_each(|part| self.out.extend_from_slice(part.as_bytes()));
        self.out.push(b'}');
        self.done.answered += 1;
    }

    fn given(&mut self, rows: u64, bytes: usize, seq: u64) {
        self.rows += rows;
        self.bytes += bytes;
        self.last_seq = self.last_seq.max(seq);
    }

    fn ack(&mut self) {
        if self.rows > 0 {
            self.command(&json!({"cmd": "ack", "req_id": ACK, "up_to_seq": self.last_seq}));
            self.done.drained += self.rows;
            (self.rows, self.bytes, self.acking) = (0, 0, true);
        }
    }

    fn read_on(&mut self) {
        self.command(&json!({"cmd": "inbox", "req_id": INBOX, "limit": INBOX_LIMIT_MAX}));
    }

    fn command(&mut self, command: &serde_json::Value) {
        self.line(&[&command.to_string()]);
    }

    /// Begins a line with these parts.
    fn line(&mut self, parts: &[&str]) {
        if !self.out.is_empty() {
            self.out.push(b'\n');
        }
        parts.iter().for_each(|part| self.out.extend_from_slice(part.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(echo: &mut Echo, line: &str) -> Vec<serde_json::Value> {
        echo.take(&serde_json::from_str(line).unwrap(), line.len()).unwrap();
        let out = std::mem::take(&mut echo.out);
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_query_is_answered_with_its_own_text() {
        let mut echo = Echo::new(false);
        let event = r#"{"event":"inbound","seq":1,"answer":true,"envelope":{"id":"7",
            "payload":{"question":"a \"b\" \u00e9"}}}"#;
        let lines = said(&mut echo, event);
        let answer = json!({"cmd": "reply", "req_id": 0, "quiet": true, "ref": "7", "kind": "response",
            "payload": {"data": null, "summary": "a \"b\" é"}});
        assert_eq!(lines, [answer]);
        let long = event.replace("a ", &"a".repeat(LINE_BYTES_MAX));
        assert_eq!(said(&mut echo, &long)[0]["kind"], "error");
        said(&mut echo, r#"{"ok":false,"req_id":0,"error":"timeout","message":"late"}"#);
        assert_eq!((echo.done.answered, echo.done.failed), (1, 1));
    }

    #[test]
    fn what_was_given_is_acked_also_after_events_were_lost() {
        let mut echo = Echo::new(true);
        let row = r#"{"event":"inbound","seq":5,"envelope":{"id":"7","payload":{}}}"#;
        assert!(said(&mut echo, row).is_empty());
        let lines = said(&mut echo, r#"{"event":"slow_consumer","resume_from_seq":6}"#);
        assert_eq!((&lines[0]["cmd"], &lines[0]["up_to_seq"]), (&json!("ack"), &json!(5)));
        assert_eq!(lines[1]["cmd"], "inbox");
        let more = r#"{"ok":true,"req_id":3,"messages":[{"seq":6},{"seq":9}],"next_seq":9,"has_more":true}"#;
        let lines = said(&mut echo, more);
        assert_eq!((&lines[0]["up_to_seq"], &lines[1]["cmd"]), (&json!(9), &json!("inbox")));
        let none = r#"{"ok":true,"req_id":3,"messages":[],"next_seq":null,"has_more":false}"#;
        assert!(said(&mut echo, none).is_empty());
        assert_eq!(echo.done.drained, 3);
    }
}
