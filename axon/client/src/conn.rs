//! One connection: lines out, lines in, replies to whom they belong, events into a bounded queue.
//!
//! A full event queue never holds up replies: who handles an event usually makes a call to do so. Messages
//! that do not fit are left in the daemon's inbox, and the consumer reads of it as [`Event::SlowConsumer`];
//! of changes that do not fit, as [`Event::Missed`].

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axon_proto::limits::{CAPACITY_MAX, CLIENT_QUEUE_BYTES_MAX, INBOX_REPLY_BYTES_MAX};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::ClientError;
use crate::types::{Event, EventLine};

/// Longest line taken from the daemon: an inbox reply, with room for the row that goes beyond its bound.
const LINE_MAX: usize = 2 * INBOX_REPLY_BYTES_MAX;
/// Commands that wait to be written.
const WRITES_MAX: usize = 64;
/// Requests to answer that wait to be taken. The daemon hands out no more than the capacity.
const ANSWERS_MAX: usize = 2 * CAPACITY_MAX as usize;

/// The two tasks of a connection; they end with it.
#[derive(Debug)]
pub(crate) struct Conn {
    lines: mpsc::Sender<String>,
    wires: Arc<Wires>,
    tasks: [JoinHandle<()>; 2],
}

impl Conn {
    pub(crate) async fn open(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).await.map_err(|error| ClientError::open(path, &error))?;
        let (read, write) = stream.into_split();
        let (lines, queue) = mpsc::channel(WRITES_MAX);
        let wires = Arc::new(Wires {
            path: path.to_owned(),
            state: Mutex::new(State::default()),
            wake: Notify::new(),
        });
        let reader = tokio::spawn(read_lines(BufReader::new(read), wires.clone()));
        let writer = tokio::spawn(write_lines(write, queue));
        Ok(Self { lines, wires, tasks: [reader, writer] })
    }

    /// Why it is over; none while it is not.
    pub(crate) fn end(&self) -> Option<ClientError> {
        self.wires.lock().closed.clone()
    }

    /// Ends it now. Calls that wait get an error.
    pub(crate) fn close(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.wires.close(ClientError::Closed);
    }

    /// Sends one command and awaits its reply. The permit is given back when the reply is there, even when
    /// nobody waits for it any more.
    pub(crate) async fn call(
        &self,
        id: u64,
        line: String,
        permit: OwnedSemaphorePermit,
    ) -> Result<String, ClientError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.wires.lock();
            if let Some(end) = &state.closed {
                return Err(end.clone());
            }
            state.pending.insert(id, Waiting { reply, _permit: permit });
        }
        // When the socket takes no more, the reader is about to learn why and tells all who wait.
        self.lines.send(line).await.ok();
        answer.await.unwrap_or_else(|_| Err(self.wires.end()))
    }

    /// The next event, in the order of their coming; an error when there will be no more.
    pub(crate) async fn event(&self) -> Result<Event, ClientError> {
        loop {
            let mut woken = pin!(self.wires.wake.notified());
            woken.as_mut().enable();
            {
                let mut state = self.wires.lock();
                if let Some(event) = state.pop() {
                    return Ok(event);
                }
                if let Some(end) = &state.closed {
                    return Err(end.clone());
                }
            }
            woken.await;
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // Every call waits for its reply, so nothing unwritten is lost here.
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[derive(Debug)]
struct Wires {
    path: PathBuf,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<u64, Waiting>,
    events: VecDeque<(usize, Event)>,
    event_bytes: usize,
    answers: usize,
    lagging: bool,
    /// Whether it stands in the queue that changes were lost.
    missed: bool,
    /// An error that was addressed to nobody: the likely reason of the close that follows it.
    last_word: Option<ClientError>,
    closed: Option<ClientError>,
}

#[derive(Debug)]
struct Waiting {
    reply: oneshot::Sender<Result<String, ClientError>>,
    _permit: OwnedSemaphorePermit,
}

/// What every line from the daemon may have.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    req_id: Option<Cow<'a, str>>,
    #[serde(default)]
    ok: Option<bool>,
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl Wires {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here leaves the state half changed, so a panic elsewhere does not matter.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> ClientError {
        self.lock().closed.clone().unwrap_or(ClientError::Closed)
    }

    fn take(&self, line: &str) -> Result<(), ClientError> {
        let strange = |error: serde_json::Error| ClientError::Protocol(error.to_string());
        let head: Head<'_> = serde_json::from_str(line).map_err(strange)?;
        if head.event.is_some() {
            let event: EventLine = serde_json::from_str(line).map_err(strange)?;
            self.lock().push(event.into_event(line), line.len())?;
            self.wake.notify_one();
            return Ok(());
        }
        if head.ok.is_none() {
            // A message as clients of version 1 get it: it came before the daemon had read our hello.
            return Ok(());
        }
        let failure = (head.ok != Some(true)).then(|| ClientError::Ipc {
            code: head.error.unwrap_or_else(|| "internal_error".to_owned()),
            message: head.message.unwrap_or_else(|| "the daemon gave no reason".to_owned()),
        });
        let mut state = self.lock();
        let id = match head.req_id.and_then(|id| id.parse().ok()) {
            Some(id) => id,
            // The daemon could not read to whom it should answer: with a single call under way it is that
            // one.
            None if state.pending.len() == 1 => state.pending.keys().copied().next().unwrap_or_default(),
            None => {
                state.last_word = failure;
                return Ok(());
            }
        };
        if let Some(waiting) = state.pending.remove(&id) {
            // Who has stopped waiting does not want the reply.
            waiting.reply.send(failure.map_or_else(|| Ok(line.to_owned()), Err)).ok();
        }
        Ok(())
    }

    fn close(&self, end: ClientError) {
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        let end = state.last_word.take().unwrap_or(end);
        for (_, waiting) in state.pending.drain() {
            waiting.reply.send(Err(end.clone())).ok();
        }
        state.closed = Some(end);
        drop(state);
        self.wake.notify_waiters();
    }
}

impl State {
    fn push(&mut self, event: Event, bytes: usize) -> Result<(), ClientError> {
        let full = self.event_bytes + bytes > CLIENT_QUEUE_BYTES_MAX;
        let (bytes, event) = match event {
            Event::Inbound(inbound) if inbound.answer => {
                self.answers += 1;
                if self.answers > ANSWERS_MAX {
                    let why = "more requests were handed out than the capacity allows";
                    return Err(ClientError::Protocol(why.to_owned()));
                }
                (0, Event::Inbound(inbound))
            }
            // What was not taken yet need not be.
            Event::Withdrawn { ref reference, .. } if self.forget(reference) => return Ok(()),
            Event::Inbound(_) if self.lagging => return Ok(()),
            Event::Inbound(inbound) if full => {
                self.lagging = true;
                (0, Event::SlowConsumer { resume_from_seq: inbound.seq })
            }
            Event::Delivery { .. } | Event::Delegation(_) | Event::Knock(_) | Event::Presence(_)
                if self.missed =>
            {
                return Ok(());
            }
            Event::Delivery { .. } | Event::Delegation(_) | Event::Knock(_) | Event::Presence(_) if full => {
                self.missed = true;
                (0, Event::Missed)
            }
            Event::Other { .. } if full => return Ok(()),
            event => (bytes, event),
        };
        self.event_bytes += bytes;
        self.events.push_back((bytes, event));
        Ok(())
    }

    /// Takes a request that has been withdrawn out of the queue; false when somebody has it already.
    fn forget(&mut self, id: &str) -> bool {
        let waits =
            |event: &Event| matches!(event, Event::Inbound(one) if one.answer && one.envelope.id == id);
        let at = self.events.iter().position(|(_, event)| waits(event));
        if at.and_then(|at| self.events.remove(at)).is_some() {
            self.answers -= 1;
        }
        at.is_some()
    }

    fn pop(&mut self) -> Option<Event> {
        let (bytes, event) = self.events.pop_front()?;
        self.event_bytes -= bytes;
        match &event {
            Event::Inbound(inbound) if inbound.answer => self.answers -= 1,
            Event::SlowConsumer { .. } => self.lagging = false,
            Event::Missed => self.missed = false,
            _ => {}
        }
        Some(event)
    }
}

async fn write_lines(mut half: OwnedWriteHalf, mut queue: mpsc::Receiver<String>) {
    while let Some(line) = queue.recv().await {
        if half.write_all(line.as_bytes()).await.is_err() {
            // The reader sees the same end, with the daemon's last word before it.
            return;
        }
    }
}

async fn read_lines(mut reader: BufReader<OwnedReadHalf>, wires: Arc<Wires>) {
    let mut line = Vec::new();
    let end = loop {
        match next_line(&mut reader, &mut line).await {
            Ok(Some(text)) => {
                if let Err(error) = wires.take(text) {
                    break error;
                }
            }
            Ok(None) => break ClientError::Closed,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break ClientError::Closed,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                break ClientError::Protocol(error.to_string());
            }
            Err(error) => break ClientError::Io { path: wires.path.clone(), why: error.to_string() },
        }
    };
    wires.close(end);
}

/// The next line without its end, in the given buffer; nothing at the end of the stream.
async fn next_line<'a>(
    reader: &mut BufReader<OwnedReadHalf>,
    line: &'a mut Vec<u8>,
) -> std::io::Result<Option<&'a str>> {
    let strange = |why: &'static str| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
    line.clear();
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&chunk[..end.unwrap_or(chunk.len())]);
        let used = end.map_or(chunk.len(), |at| at + 1);
        reader.consume(used);
        if line.len() > LINE_MAX {
            return Err(strange("a line is too long"));
        }
        if end.is_some() {
            return std::str::from_utf8(line).map(Some).map_err(|_| strange("a line is not UTF-8"));
        }
    }
}
