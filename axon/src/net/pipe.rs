//! The pipe: one long stream each way, on which small envelopes travel many to a packet.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Pipe". What goes into it is bounded: so many requests wait for an answer,
//! so many bytes wait for QUIC, and beyond that a message takes a stream of its own, as a large one does.

mod records;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axon_proto::id::AgentId;
use axon_proto::limits::{
    PIPE_MESSAGE_BYTES_MAX, PIPE_ONE_WAY_MAX, PIPE_REQUESTS_MAX, PIPE_WAITING_BYTES_MAX,
};
use axon_proto::node::{ConnId, Input, Lost, Side, StreamId, Token};
use foldhash::HashMap;
use quinn::{Connection, RecvStream};
use tokio::sync::{Notify, Semaphore, oneshot};

use super::conn::VIOLATION;
use super::silence::{Flight, Flying};
use super::{Event, Flushing, NetEvent, Shared, Waiting};
use records::{ANSWER, ASK, DROP, HEAD_BYTES, HEARD, NONE, Place, Record, TELL, Unwritten};

/// The first byte of a pipe; no JSON text begins with it.
pub(super) const FIRST: u8 = 0x01;
/// Bytes taken from QUIC before they are looked at.
const READ_BYTES: usize = 32_768;
/// Records that the node is told of together.
const TOGETHER: usize = 32;

/// Both directions of one connection's pipe.
pub(super) struct Pipe {
    connection: Connection,
    peer: AgentId,
    flight: Arc<Flight>,
    /// What the peer does not have yet of our stream, once it is being closed.
    unwritten: Flushing,
    state: Mutex<State>,
    filled: Notify,
    /// Held by those records of the peer that wait for the driver.
    turn: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    /// Whether both use the pipe; none until hello is done.
    agreed: Option<bool>,
    /// Streams of the peer that begin as a pipe does, and wait for hello to be done.
    early: Vec<oneshot::Sender<bool>>,
    /// The connection is over, or about to be: nothing more is written.
    over: bool,
    /// The peer has begun its own.
    begun: bool,
    /// Our stream has its writer.
    writing: bool,
    /// No message of ours comes any more: our stream ends once the rest is written.
    closing: bool,
    out: Unwritten,
    /// What the peer is to be told that we have taken over.
    heard: Option<u32>,
    last_ask: u32,
    last_tell: u32,
    /// Requests of ours without an answer; of those that nobody waits for, none.
    asks: HashMap<u32, Option<Asked>>,
    /// One-way messages of ours that the peer has not taken over.
    tells: VecDeque<(u32, Asked)>,
    /// Number of the peer's last one-way message.
    told: u32,
    /// Requests of the peer without an answer.
    theirs: HashMap<u32, StreamId>,
}

/// Whether something that begins as a pipe is one.
pub(super) enum Verdict {
    Yes,
    No,
    /// Once hello is done.
    Later(oneshot::Receiver<bool>),
}

/// A message of ours, on whose end the node waits.
struct Asked {
    token: Token,
    attempt: u64,
    place: Place,
    _flying: Flying,
}

impl Asked {
    fn ended(self, input: Input) -> Event {
        Event::Ended { token: self.token, attempt: self.attempt, input }
    }
}

impl Pipe {
    pub(super) fn new(connection: Connection, peer: AgentId, flight: Arc<Flight>) -> Self {
        Self {
            connection,
            peer,
            flight,
            unwritten: Flushing::new(),
            state: Mutex::default(),
            filled: Notify::new(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hello is done, and settles whether both use the pipe.
    pub(super) fn agree(&self, agreed: bool) {
        let mut state = self.state();
        state.agreed = Some(agreed);
        for early in std::mem::take(&mut state.early) {
            // Who has gone needs no answer.
            early.send(agreed).ok();
        }
    }

    /// A stream of the peer begins as a pipe does: whether it is one.
    pub(super) fn is_one(&self, side: Side) -> Verdict {
        let mut state = self.state();
        match (state.agreed, side) {
            // The one who has dialled may see it before the answer to its hello.
            (None, Side::Dialer) => {
                let (tell, told) = oneshot::channel();
                state.early.push(tell);
                Verdict::Later(told)
            }
            (Some(true), _) => Verdict::Yes,
            (None | Some(false), _) => Verdict::No,
        }
    }

    /// Sends a request, if it has its place here; its number.
    pub(super) fn ask(self: &Arc<Self>, token: Token, attempt: u64, bytes: &str) -> Option<u32> {
        let mut state = self.state();
        if !state.has_room(bytes) || state.asks.len() >= PIPE_REQUESTS_MAX {
            return None;
        }
        let number = state.last_ask.checked_add(1)?;
        state.last_ask = number;
        let place = state.out.put(ASK, number, bytes.as_bytes());
        state.asks.insert(number, Some(Asked { token, attempt, place, _flying: self.flight.begin() }));
        self.fill(state);
        Some(number)
    }

    /// Sends a one-way message, if it has its place here; its number.
    pub(super) fn tell(self: &Arc<Self>, token: Token, attempt: u64, bytes: &str) -> Option<u32> {
        let mut state = self.state();
        if !state.has_room(bytes) || state.tells.len() >= PIPE_ONE_WAY_MAX {
            return None;
        }
        let number = state.last_tell.checked_add(1)?;
        state.last_tell = number;
        let place = state.out.put(TELL, number, bytes.as_bytes());
        state.tells.push_back((number, Asked { token, attempt, place, _flying: self.flight.begin() }));
        self.fill(state);
        Some(number)
    }

    /// Nobody waits for this answer any more: the request is taken back, or the peer is told.
    pub(super) fn abandon_ask(self: &Arc<Self>, number: u32) {
        let mut state = self.state();
        let Some(asked) = state.asks.get_mut(&number).and_then(Option::take) else { return };
        if state.out.take_back(asked.place) {
            state.asks.remove(&number);
        } else {
            state.out.put(DROP, number, &[]);
            self.fill(state);
        }
    }

    /// Nobody waits any more until this one-way message has arrived: it is taken back, if it has not left.
    pub(super) fn abandon_tell(&self, number: u32) {
        let mut state = self.state();
        let Ok(at) = state.tells.binary_search_by_key(&number, |(number, _)| *number) else { return };
        let place = state.tells.get(at).map(|(_, told)| told.place);
        if place.is_some_and(|place| state.out.take_back(place)) {
            state.tells.remove(at);
        }
    }

    /// Answers a request of the peer; without an answer, says that there is none.
    pub(super) fn answer(self: &Arc<Self>, number: u32, stream: StreamId, answer: Option<&str>) {
        let mut state = self.state();
        if state.theirs.get(&number) != Some(&stream) {
            // The peer does not wait for it any more, and may use the number again.
            return;
        }
        state.theirs.remove(&number);
        match answer {
            Some(bytes) => state.out.put(ANSWER, number, bytes.as_bytes()),
            None => state.out.put(NONE, number, &[]),
        };
        self.fill(state);
    }

    /// Writes what waits and ends our stream; what it yields tells when the peer has it all.
    pub(super) fn close(self: &Arc<Self>) -> Flushing {
        let mut state = self.state();
        state.closing = true;
        if state.writing || !state.out.is_empty() {
            self.fill(state);
        }
        self.unwritten.clone()
    }

    /// Nothing more is written, whatever waits or is still said.
    pub(super) fn cut(&self) {
        self.state().over = true;
        self.filled.notify_one();
    }

    /// Waits for the end of the connection.
    pub(super) async fn closed(&self) {
        self.connection.closed().await;
    }

    /// The connection is over: messages of ours that had no end, and requests that nobody can answer.
    pub(super) fn over(&self) -> (Vec<Token>, Vec<StreamId>) {
        let mut state = self.state();
        state.over = true;
        let asks = std::mem::take(&mut state.asks).into_values().flatten();
        let tells = std::mem::take(&mut state.tells).into_iter().map(|(_, asked)| asked);
        let tokens = asks.chain(tells).map(|asked| asked.token).collect();
        (tokens, std::mem::take(&mut state.theirs).into_values().collect())
    }

    /// Requests and one-way messages of ours that have no end yet.
    #[cfg(test)]
    pub(super) fn open_messages(&self) -> (usize, usize) {
        let state = self.state();
        (state.asks.len(), state.tells.len())
    }

    /// What the peer does cannot be told apart any more.
    fn violation(&self, why: &'static str) {
        if self.connection.close_reason().is_none() {
            tracing::warn!(peer = %self.peer, why, "a connection is closed: the peer broke the rules of the pipe");
            self.connection.close(VIOLATION, why.as_bytes());
        }
    }

    /// There is something to write.
    fn fill(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let begin = !std::mem::replace(&mut state.writing, true);
        drop(state);
        if begin {
            // A close that comes before the task runs waits for it too.
            let unwritten = self.unwritten.begin();
            let pipe = Arc::clone(self);
            tokio::spawn(async move {
                pipe.write().await;
                drop(unwritten);
            });
        } else {
            self.filled.notify_one();
        }
    }

    async fn write(&self) {
        let Ok(mut stream) = self.connection.open_uni().await else { return };
        let mut stopped = pin!(stream.stopped());
        let mut batch = vec![FIRST];
        loop {
            let filled = self.filled.notified();
            let closing = self.take(&mut batch);
            if batch.is_empty() {
                if closing {
                    break;
                }
                tokio::select! {
                    biased;
                    () = filled => {}
                    _ = stopped.as_mut() => return self.violation("the pipe is not read"),
                }
                continue;
            }
            self.flight.sent(&self.connection);
            if stream.write_all(&batch).await.is_err() {
                return self.violation("the pipe is not read");
            }
            self.state().out.written(&mut batch);
        }
        if stream.finish().is_ok() {
            let _ = stopped.await;
        }
    }

    /// Moves what waits behind what is in `batch`; whether nothing more will come.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut state = self.state();
        if state.over {
            state.out.clear();
            return true;
        }
        if let Some(number) = state.heard.take() {
            state.out.put(HEARD, number, &[]);
        }
        state.out.take(batch);
        state.closing
    }

    // --- the peer's ---

    /// Reads the peer's pipe to its end. What came first is in `buffer`.
    pub(super) async fn read(
        self: Arc<Self>,
        shared: Shared,
        conn: ConnId,
        mut recv: RecvStream,
        mut buffer: Vec<u8>,
    ) {
        if std::mem::replace(&mut self.state().begun, true) {
            return self.violation("a second pipe");
        }
        buffer.drain(..1);
        loop {
            if let Err(why) = self.hand_over(&shared, conn, &mut buffer).await {
                return self.violation(why);
            }
            match next_bytes(&mut recv, &mut buffer, shared.read_timeout).await {
                Ok(true) => {}
                Ok(false) if buffer.is_empty() => return,
                Ok(false) => return self.violation("the pipe ended within a record"),
                Err(()) => return self.violation("a record in the pipe did not end in time"),
            }
        }
    }

    /// Gives the node all whole records of the buffer.
    async fn hand_over(
        self: &Arc<Self>,
        shared: &Shared,
        conn: ConnId,
        buffer: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        let mut at = 0;
        let mut events = Vec::new();
        let mut told = None;
        let ended = loop {
            let record = match Record::first_of(buffer.get(at..).unwrap_or_default()) {
                Ok(Some(record)) => record,
                Ok(None) => break Ok(()),
                Err(why) => break Err(why),
            };
            at += HEAD_BYTES + record.body.len();
            if let Err(why) = self.record(shared, conn, &record, &mut events) {
                break Err(why);
            }
            if record.kind == TELL {
                told = Some(record.number);
            }
            if events.len() >= TOGETHER {
                self.send(shared, &mut events).await;
            }
        };
        // What came before a fault counts.
        self.send(shared, &mut events).await;
        buffer.drain(..at);
        if told.is_some() {
            let mut state = self.state();
            state.heard = told;
            self.fill(state);
        }
        ended
    }

    async fn send(&self, shared: &Shared, events: &mut Vec<Event>) {
        if events.is_empty() {
            return;
        }
        // The next ones wait until the driver has these: no peer has more of the queue than others.
        if let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await {
            // When this fails the driver has ended.
            let _ = shared.events.send(NetEvent(Event::Many(std::mem::take(events), turn))).await;
        }
    }

    fn record(
        self: &Arc<Self>,
        shared: &Shared,
        conn: ConnId,
        record: &Record<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), &'static str> {
        let Record { kind, number, body } = *record;
        let mut state = self.state();
        match kind {
            TELL => {
                if number <= state.told {
                    return Err("the number of a one-way message in the pipe has been before");
                }
                state.told = number;
                events.push(Event::Plain(Input::OneWay { conn, bytes: body.to_vec() }));
            }
            ASK => {
                // An end that waits here counts, so that a peer that does not read gets no more of them.
                if state.theirs.len() + state.out.ends() >= PIPE_REQUESTS_MAX {
                    return Err("more requests in the pipe than may be open");
                }
                if state.theirs.contains_key(&number) {
                    return Err("the number of a request in the pipe is in use");
                }
                let stream = shared.stream_id();
                state.theirs.insert(number, stream);
                let waiting = Some(Waiting::Pipe(Arc::clone(self), number, stream));
                events.push(Event::Request { conn, stream, bytes: body.to_vec(), waiting });
            }
            ANSWER | NONE => {
                let asked =
                    state.asks.remove(&number).ok_or("an answer in the pipe to nothing that is open")?;
                let outcome = if kind == ANSWER { Ok(body.to_vec()) } else { Err(Lost::Reset) };
                events.extend(asked.map(|asked| {
                    let token = asked.token;
                    asked.ended(Input::Replied { token, outcome })
                }));
            }
            DROP => {
                // It may have been answered meanwhile.
                if let Some(stream) = state.theirs.get(&number) {
                    let stream = *stream;
                    events.push(Event::Gone { stream, tell: true });
                    drop(state);
                    self.answer(number, stream, None);
                }
            }
            HEARD => {
                if number > state.last_tell || state.tells.front().is_none_or(|(first, _)| number < *first) {
                    return Err("the pipe says heard of what was not told");
                }
                while state.tells.front().is_some_and(|(first, _)| *first <= number)
                    && let Some((_, asked)) = state.tells.pop_front()
                {
                    let token = asked.token;
                    events.push(asked.ended(Input::Sent { token, outcome: Ok(()) }));
                }
            }
            // Of a later version: nothing that this one must know.
            _ => {}
        }
        Ok(())
    }
}

impl State {
    /// Whether a message of ours may go here.
    fn has_room(&self, bytes: &str) -> bool {
        self.agreed == Some(true)
            && !self.closing
            && !self.over
            && bytes.len() <= PIPE_MESSAGE_BYTES_MAX
            && self.out.bytes() + bytes.len() <= PIPE_WAITING_BYTES_MAX
    }
}

/// What a future has now; who gets nothing must wait for it.
fn at_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits for bytes and takes all that are there, up to a bound; false at the end of the stream. The rest of a
/// record that has begun must come in time.
async fn next_bytes(recv: &mut RecvStream, buffer: &mut Vec<u8>, patience: Duration) -> Result<bool, ()> {
    let before = buffer.len();
    loop {
        let mut next = pin!(recv.read_chunk(READ_BYTES, true));
        let chunk = match at_once(next.as_mut()) {
            Poll::Ready(chunk) => chunk,
            Poll::Pending if buffer.len() > before => return Ok(true),
            Poll::Pending if buffer.is_empty() => {
                // Nothing is held while nothing comes.
                *buffer = Vec::new();
                next.await
            }
            Poll::Pending => tokio::time::timeout(patience, next).await.map_err(|_| ())?,
        };
        match chunk {
            Ok(Some(chunk)) => {
                if buffer.capacity() == 0 {
                    buffer.reserve(READ_BYTES);
                }
                buffer.extend_from_slice(&chunk.bytes);
            }
            // The end is seen again by who asks again.
            _ => return Ok(buffer.len() > before),
        }
        if buffer.len() >= READ_BYTES.max(before + 1) {
            return Ok(true);
        }
    }
}
