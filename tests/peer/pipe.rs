//! The feature `pipe` by hand, from the page alone: records are written and read one by one, and nothing
//! keeps the peer from writing what it may not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ReadError, RecvStream, SendStream};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{Fault, Link, Manners, RawPeer, Request, V1, client_config, read, wait};
use crate::support::Daemon;

pub const TELL: u8 = 1;
pub const ASK: u8 = 2;
pub const ANSWER: u8 = 3;
pub const NONE: u8 = 4;
pub const DROP: u8 = 5;
pub const HEARD: u8 = 6;

/// What a pipe begins with.
pub const BEGIN: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub what: u8,
    pub number: u32,
    pub body: Vec<u8>,
}

impl Record {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// A record's bytes.
pub fn record(what: u8, number: u32, body: &[u8]) -> Vec<u8> {
    [&head(what, body.len(), number)[..], body].concat()
}

/// The bytes before a body that is said to be so long.
pub fn head(what: u8, length: usize, number: u32) -> [u8; 8] {
    let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
    let [d, e, f, g] = number.to_be_bytes();
    [what, a, b, c, d, e, f, g]
}

/// A request of the daemon, wherever it came.
pub enum Call {
    Ask(Record),
    Stream(Request),
}

impl Call {
    pub fn envelope(&self) -> Value {
        match self {
            Self::Ask(record) => record.json(),
            Self::Stream(request) => request.envelope.clone(),
        }
    }
}

/// A connection whose hello is done, and a pipe each way as soon as there is one.
pub struct Pipe {
    pub link: Link,
    out: Option<SendStream>,
    inward: Option<Inward>,
    /// Records that came while another was waited for, oldest first.
    pub kept: VecDeque<Record>,
    asks: u32,
    tells: u32,
}

impl RawPeer {
    /// A new connection, with hello said as one that offers a pipe.
    pub fn piped(&self, daemon: &Daemon) -> Pipe {
        self.dial(daemon).piping(&[])
    }

    /// A handshake that allows the daemon so many unread bytes on a stream, and 256 streams of each kind.
    pub fn dial_narrow(&self, daemon: &Daemon, window: u32) -> Link {
        let mut config = client_config(&self.key, &Manners::default());
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(window.into());
        transport.max_concurrent_bidi_streams(256_u32.into()).max_concurrent_uni_streams(256_u32.into());
        config.transport_config(Arc::new(transport));
        self.dial_with(daemon, config, None).expect("the handshake succeeds")
    }
}

impl Link {
    /// Hello with these features beside those of a plain peer.
    pub fn offering(&self, more: &[&str]) -> Value {
        let features = [V1, more].concat();
        self.envelope("hello", json!({"protocol_versions":[1],"agent_name":"raw","features":features}))
    }

    /// Says hello as one that offers a pipe and this besides; the daemon must offer a pipe, too.
    pub fn piping(self, more: &[&str]) -> Pipe {
        let hello = self.ask(&self.offering(&[more, &["pipe"]].concat())).expect("hello is answered");
        assert!(offers_pipe(&hello), "{hello}");
        Pipe::over(self)
    }

    /// Answers the hello of a daemon that has dialled.
    pub fn say_hello(&self, request: Request, more: &[&str]) {
        assert_eq!(request.envelope["kind"], "hello");
        let features = [V1, more].concat();
        let hello = json!({"protocol_versions":[1],"selected_version":1,"features":features});
        self.answer(request, "hello", hello);
    }

    /// For a moment the daemon opens no stream.
    pub fn nothing_opened(&self) {
        let (uni, both) = self.runtime.block_on(async {
            let moment = Duration::from_millis(100);
            let uni = tokio::time::timeout(moment, self.connection.accept_uni());
            let both = tokio::time::timeout(moment, self.connection.accept_bi());
            tokio::join!(uni, both)
        });
        assert!(uni.is_err() && both.is_err(), "the daemon has opened a stream: {uni:?} {both:?}");
    }

    /// The next unidirectional stream that is none of a pipe: its number and its content.
    pub fn next_uni(&self) -> (u64, Vec<u8>) {
        wait(&self.runtime, async {
            let mut recv = self.connection.accept_uni().await.unwrap();
            (recv.id().index(), read(&mut recv).await.unwrap())
        })
        .expect("a stream")
    }

    /// A unidirectional stream that is begun with these bytes, and not ended.
    pub fn begin_uni(&self, bytes: &[u8]) -> SendStream {
        wait(&self.runtime, async {
            let mut send = self.connection.open_uni().await.unwrap();
            send.write_all(bytes).await.unwrap();
            send
        })
        .expect("a stream")
    }
}

/// Whether this hello offers it.
pub fn offers_pipe(hello: &Value) -> bool {
    hello["payload"]["features"].as_array().expect("features").contains(&json!("pipe"))
}

impl Pipe {
    pub fn over(link: Link) -> Self {
        Self { link, out: None, inward: None, kept: VecDeque::new(), asks: 0, tells: 0 }
    }

    // --- out ---

    /// Writes bytes as they are; the first ones open the pipe.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let written = wait(&self.link.runtime, async {
            if self.out.is_none() {
                let mut out = self.link.connection.open_uni().await.map_err(Fault::of)?;
                out.write_all(&[BEGIN]).await.map_err(|_| Fault::Reset)?;
                self.out = Some(out);
            }
            self.out.as_mut().unwrap().write_all(bytes).await.map_err(|_| Fault::Reset)
        });
        written?
    }

    pub fn put(&mut self, what: u8, number: u32, body: &[u8]) {
        if let Err(fault) = self.write(&record(what, number, body)) {
            panic!("the daemon does not read: {fault:?}, {:?}", self.link.connection.close_reason());
        }
    }

    /// Sends a request, or a one-way message that wants a receipt; its number.
    pub fn ask(&mut self, envelope: &Value) -> u32 {
        self.asks += 1;
        self.put(ASK, self.asks, envelope.to_string().as_bytes());
        self.asks
    }

    /// Asks, and takes the answer; other records are kept.
    pub fn asked(&mut self, envelope: &Value) -> Value {
        let number = self.ask(envelope);
        let answer = self.of(ANSWER, number).json();
        assert_eq!(answer["ref"], envelope["id"], "{answer}");
        answer
    }

    /// Sends one way; its number.
    pub fn tell(&mut self, envelope: &Value) -> u32 {
        self.tells += 1;
        self.put(TELL, self.tells, envelope.to_string().as_bytes());
        self.tells
    }

    /// Answers an ask of the daemon.
    pub fn answer(&mut self, ask: &Record, kind: &str, payload: Value) {
        let mut answer = self.link.envelope(kind, payload);
        answer["ref"] = ask.json()["id"].clone();
        self.put(ANSWER, ask.number, answer.to_string().as_bytes());
    }

    /// Answers a request where it came.
    pub fn reply(&mut self, call: Call, kind: &str, payload: Value) {
        match call {
            Call::Ask(ask) => self.answer(&ask, kind, payload),
            Call::Stream(request) => self.link.answer(request, kind, payload),
        }
    }

    /// Ends the pipe, wherever it is.
    pub fn finish(&mut self) {
        self.out.as_mut().expect("a pipe").finish().unwrap();
    }

    /// The pipe itself, to write with elsewhere.
    pub fn take_out(&mut self) -> (Handle, SendStream) {
        (self.link.runtime.clone(), self.out.take().expect("a pipe"))
    }

    // --- in ---

    /// The next record of the daemon.
    pub fn try_next(&mut self) -> Result<Record, Fault> {
        match self.kept.pop_front() {
            Some(record) => Ok(record),
            None => wait(&self.link.runtime, fetch(&self.link, &mut self.inward))?,
        }
    }

    /// The next record, which must be of this type.
    pub fn next(&mut self, what: u8) -> Record {
        let record = self.try_next().expect("a record");
        assert_eq!(record.what, what, "{record:?}");
        record
    }

    /// The next record of this type and number; others are kept.
    pub fn of(&mut self, what: u8, number: u32) -> Record {
        self.find(|record| (record.what, record.number) == (what, number))
    }

    /// The next record that fits; others are kept.
    pub fn find(&mut self, fits: impl Fn(&Record) -> bool) -> Record {
        if let Some(at) = self.kept.iter().position(&fits) {
            return self.kept.remove(at).unwrap();
        }
        loop {
            let record = wait(&self.link.runtime, fetch(&self.link, &mut self.inward));
            let record = record.and_then(|record| record);
            let record = record.unwrap_or_else(|fault| panic!("{fault:?}; so far {:?}", self.kept));
            if fits(&record) {
                return record;
            }
            self.kept.push_back(record);
        }
    }

    /// So many requests of the daemon, on the pipe and on streams.
    pub fn gather(&mut self, count: usize) -> Vec<Call> {
        let mut calls = Vec::new();
        while calls.len() < count {
            let got = calls.len();
            let next = wait(&self.link.runtime, async {
                tokio::select! {
                    record = fetch(&self.link, &mut self.inward) => record.map(Call::Ask),
                    halves = self.link.connection.accept_bi() => {
                        let (send, mut recv) = halves.map_err(Fault::of)?;
                        let envelope = serde_json::from_slice(&read(&mut recv).await?).unwrap();
                        Ok(Call::Stream(Request { envelope, send }))
                    }
                }
            });
            match next {
                Ok(Ok(Call::Ask(record))) if record.what != ASK => self.kept.push_back(record),
                Ok(Ok(call)) => calls.push(call),
                other => panic!("{:?} after {got} of {count} requests", other.map(|other| other.err())),
            }
        }
        calls
    }

    /// The number of the daemon's pipe among the streams of its kind.
    pub fn index(&self) -> u64 {
        self.inward.as_ref().expect("the daemon has a pipe").recv.id().index()
    }

    /// Whether the daemon wants no more of this side's pipe, or has closed the connection.
    pub fn closed(&self) -> Fault {
        self.link.closed()
    }
}

/// The daemon's pipe, and what came on it and was not taken yet.
struct Inward {
    recv: RecvStream,
    bytes: Vec<u8>,
    begun: bool,
}

impl Inward {
    /// The next whole record, if there is one.
    fn take(&mut self) -> Option<Record> {
        if !self.begun && !self.bytes.is_empty() {
            assert_eq!(self.bytes.remove(0), BEGIN, "a stream that is no pipe");
            self.begun = true;
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
        let length = usize::try_from(number(self.bytes.get(1..4)?)).unwrap();
        assert!(length <= 65_536, "a record of {length} bytes");
        let body = self.bytes.get(8..8 + length)?.to_vec();
        let record = Record { what: self.bytes[0], number: number(&self.bytes[4..8]), body };
        self.bytes.drain(..8 + length);
        Some(record)
    }
}

/// The next record. May be given up at any time.
async fn fetch(link: &Link, inward: &mut Option<Inward>) -> Result<Record, Fault> {
    if inward.is_none() {
        let recv = link.connection.accept_uni().await.map_err(Fault::of)?;
        *inward = Some(Inward { recv, bytes: Vec::new(), begun: false });
    }
    let inward = inward.as_mut().unwrap();
    loop {
        if let Some(record) = inward.take() {
            return Ok(record);
        }
        match inward.recv.read_chunk(65_536, true).await {
            Ok(Some(chunk)) => inward.bytes.extend_from_slice(&chunk.bytes),
            Err(ReadError::ConnectionLost(error)) => return Err(Fault::of(error)),
            Ok(None) | Err(_) => return Err(Fault::Reset),
        }
    }
}
