//! One message on one stream: reading a peer's, answering it, sending ours.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axon_proto::limits::{MESSAGE_BYTES_MAX, PIPE_MESSAGE_BYTES_MAX};
use axon_proto::node::{ConnId, Input, Lost, StreamId};
use quinn::{
    Connection, ReadError, ReadToEndError, RecvStream, SendStream, StoppedError, VarInt, WriteError,
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc, oneshot};

use super::pipe::{self, Pipe, Verdict};
use super::silence::Flight;
use super::{Event, Flushing, NetEvent, Shared, Waiting, why};

/// Stream error code: nobody needs this stream any more.
const CANCELLED: VarInt = VarInt::from_u32(0);
/// Stream error code: the message was too long or did not end.
const BAD_MESSAGE: VarInt = VarInt::from_u32(4);

/// How long an answer is awaited before it is looked whether the peer has given up.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Longer messages wait for their turn.
const SHORT_BYTES: usize = PIPE_MESSAGE_BYTES_MAX;
/// A long message that QUIC has not taken whole after this lets the next one begin.
const TURN: Duration = Duration::from_secs(1);

/// The long messages of one connection are given to QUIC one after another. Of many that wait for its window
/// at once it lets some wait so long that the peer gives them up.
#[derive(Clone, Default)]
pub(super) struct Turn(Arc<Mutex<()>>);

impl Turn {
    async fn write(&self, send: &mut SendStream, bytes: &[u8]) -> Result<(), WriteError> {
        if bytes.len() <= SHORT_BYTES {
            return send.write_all(bytes).await;
        }
        let turn = self.0.lock().await;
        let mut writing = pin!(send.write_all(bytes));
        match tokio::time::timeout(TURN, writing.as_mut()).await {
            Ok(written) => written,
            Err(_) => {
                drop(turn);
                writing.await
            }
        }
    }
}

/// What becomes of an inbound request.
pub(super) enum Answer {
    /// Send this; the permit is given back when the peer has all of it.
    Say(Arc<str>, Option<OwnedSemaphorePermit>),
    /// Reset the stream.
    Reset,
}

/// Why no message came.
pub(super) enum Unread {
    /// The peer took it back, or the connection is gone.
    Gone,
    /// The peer is at fault; the stream is stopped.
    Bad(&'static str),
}

/// Reads to the end of the stream; a stream that stalls or goes on for too long is stopped.
pub(super) async fn read(
    recv: &mut RecvStream,
    bytes_max: usize,
    patience: Duration,
) -> Result<Vec<u8>, Unread> {
    let mut message = Vec::new();
    read_rest(recv, &mut message, bytes_max, patience).await?;
    Ok(message)
}

async fn read_rest(
    recv: &mut RecvStream,
    message: &mut Vec<u8>,
    bytes_max: usize,
    patience: Duration,
) -> Result<(), Unread> {
    while read_some(recv, message, bytes_max, patience).await? {}
    Ok(())
}

/// Reads what comes next; false at the end.
async fn read_some(
    recv: &mut RecvStream,
    message: &mut Vec<u8>,
    bytes_max: usize,
    patience: Duration,
) -> Result<bool, Unread> {
    // One more byte than allowed shows that there are too many.
    let room = bytes_max + 1 - message.len();
    let why = match tokio::time::timeout(patience, recv.read_chunk(room, true)).await {
        Ok(Ok(Some(chunk))) => {
            message.extend_from_slice(&chunk.bytes);
            if message.len() <= bytes_max {
                return Ok(true);
            }
            "the message is too long"
        }
        Ok(Ok(None)) => return Ok(false),
        Ok(Err(_)) => return Err(Unread::Gone),
        Err(_) => "the message did not end in time",
    };
    let _ = recv.stop(BAD_MESSAGE);
    Err(Unread::Bad(why))
}

/// One bidirectional stream of a peer, from its first byte to the last of our answer.
pub(super) async fn request(
    shared: Shared,
    conn: ConnId,
    send: SendStream,
    mut recv: RecvStream,
    slot: OwnedSemaphorePermit,
    flushing: Flushing,
) {
    let message = read(&mut recv, shared.message_bytes_max, shared.read_timeout).await;
    drop(recv);
    request_read(shared, conn, send, message, slot, flushing).await;
}

/// The same, from when the message has been read.
pub(super) async fn request_read(
    shared: Shared,
    conn: ConnId,
    mut send: SendStream,
    message: Result<Vec<u8>, Unread>,
    slot: OwnedSemaphorePermit,
    flushing: Flushing,
) {
    match message {
        Ok(bytes) => {
            let stream = shared.stream_id();
            let (answer, answered) = oneshot::channel();
            let waiting = Some(Waiting::Stream { answer, flushing });
            let event = Event::Request { conn, stream, bytes, waiting };
            if shared.events.send(NetEvent(event)).await.is_err() {
                return;
            }
            serve(&shared, stream, send, answered).await;
        }
        Err(unread) => {
            let _ = send.reset(BAD_MESSAGE);
            bad(&shared.events, conn, unread).await;
        }
    }
    // Held until now: QUIC lets a peer open some more than it may have, and these wait unread.
    drop(slot);
}

/// One unidirectional stream of a peer: one message, or its pipe.
pub(super) async fn one_way(
    shared: Shared,
    conn: ConnId,
    mut recv: RecvStream,
    slot: OwnedSemaphorePermit,
    pipe: Arc<Pipe>,
) {
    let mut message = Vec::new();
    let (bytes_max, patience) = (shared.message_bytes_max, shared.read_timeout);
    let read = match read_some(&mut recv, &mut message, bytes_max, patience).await {
        Ok(true) if message.first() == Some(&pipe::FIRST) && is_pipe(&shared, conn, &pipe).await => {
            pipe.read(shared, conn, recv, message).await;
            drop(slot);
            return;
        }
        Ok(true) => read_rest(&mut recv, &mut message, bytes_max, patience).await,
        Ok(false) => Ok(()),
        Err(unread) => Err(unread),
    };
    match read {
        Ok(()) => {
            let input = Input::OneWay { conn, bytes: message };
            let _ = shared.events.send(NetEvent(Event::Plain(input))).await;
        }
        Err(unread) => bad(&shared.events, conn, unread).await,
    }
    drop(slot);
}

/// Whether a stream that begins as a pipe does is one. The driver knows, after all that came before it.
async fn is_pipe(shared: &Shared, conn: ConnId, pipe: &Pipe) -> bool {
    let (answer, answered) = oneshot::channel();
    if !shared.pipe || shared.events.send(NetEvent(Event::Piped { conn, answer })).await.is_err() {
        return false;
    }
    match answered.await {
        Ok(Verdict::Yes) => true,
        Ok(Verdict::No) | Err(_) => false,
        Ok(Verdict::Later(told)) => tokio::select! {
            biased;
            told = told => told.unwrap_or(false),
            () = pipe.closed() => false,
        },
    }
}

async fn bad(events: &mpsc::Sender<NetEvent>, conn: ConnId, unread: Unread) {
    if let Unread::Bad(why) = unread {
        let _ = events.send(NetEvent(Event::Plain(Input::BadStream { conn, why }))).await;
    }
}

/// Awaits the node's answer and sends it, unless the peer gives up first.
pub(super) async fn serve(
    shared: &Shared,
    stream: StreamId,
    mut send: SendStream,
    mut answered: oneshot::Receiver<Answer>,
) {
    // quinn remembers a stream whose `stopped` was looked at and that is reset then, until the connection
    // ends. What is repeated, or has no valid id, is reset at once: nobody must make us remember many of
    // those.
    let at_once = tokio::time::timeout(AT_ONCE, &mut answered).await;
    let stopped = send.stopped();
    tokio::pin!(stopped);
    let answer = tokio::select! {
        biased;
        answer = async { match at_once { Ok(answer) => answer, Err(_) => answered.await } } => answer,
        end = &mut stopped => {
            let _ = send.reset(CANCELLED);
            // A lost connection is told once for all its streams.
            let tell = end.is_ok();
            let _ = shared.events.send(NetEvent(Event::Gone { stream, tell })).await;
            return;
        }
    };
    match answer {
        Ok(Answer::Say(bytes, flushing)) => {
            if shared.turn.write(&mut send, bytes.as_bytes()).await.is_ok() && send.finish().is_ok() {
                drop(bytes);
                let _ = stopped.await;
            }
            drop(flushing);
        }
        Ok(Answer::Reset) | Err(_) => {
            let _ = send.reset(CANCELLED);
        }
    }
}

/// Where messages of ours go.
pub(super) struct Route {
    pub(super) connection: Connection,
    pub(super) flight: Arc<Flight>,
    pub(super) turn: Turn,
}

/// Sends a request and awaits the whole answer.
pub(super) async fn ask(at: &Route, bytes: &str) -> Result<Vec<u8>, Lost> {
    let Route { connection, flight, turn } = at;
    let _flying = flight.begin();
    let (send, recv) = connection.open_bi().await.map_err(|error| Lost::Connection(why::ended(&error)))?;
    let mut exchange = Exchange::new(send, Some(recv));
    flight.sent(connection);
    exchange.say(turn, bytes).await?;
    exchange.hear().await
}

/// Awaits the answer to what has been sent already.
pub(super) async fn hear(mut exchange: Exchange, flight: &Arc<Flight>) -> Result<Vec<u8>, Lost> {
    let _flying = flight.begin();
    exchange.hear().await
}

/// Sends a message and awaits the peer's acknowledgement of its last byte.
pub(super) async fn tell(at: &Route, bytes: &str) -> Result<(), Lost> {
    let Route { connection, flight, turn } = at;
    let _flying = flight.begin();
    let send = connection.open_uni().await.map_err(|error| Lost::Connection(why::ended(&error)))?;
    let mut exchange = Exchange::new(send, None);
    flight.sent(connection);
    exchange.say(turn, bytes).await?;
    match exchange.send.stopped().await {
        Ok(None) => {
            exchange.done = true;
            Ok(())
        }
        Ok(Some(_)) => Err(Lost::Reset),
        Err(StoppedError::ConnectionLost(error)) => Err(Lost::Connection(why::ended(&error))),
        Err(StoppedError::ZeroRttRejected) => Err(Lost::Reset),
    }
}

/// The two halves of a stream of ours. Dropped early, it tells the peer that nobody waits any more.
pub(super) struct Exchange {
    send: SendStream,
    recv: Option<RecvStream>,
    done: bool,
}

impl Exchange {
    pub(super) fn new(send: SendStream, recv: Option<RecvStream>) -> Self {
        Self { send, recv, done: false }
    }

    pub(super) async fn say(&mut self, turn: &Turn, bytes: &str) -> Result<(), Lost> {
        match turn.write(&mut self.send, bytes.as_bytes()).await {
            Ok(()) => {
                let _ = self.send.finish();
                Ok(())
            }
            // A peer that wants no more of the request may still have answered it.
            Err(WriteError::Stopped(_)) if self.recv.is_some() => Ok(()),
            Err(WriteError::ConnectionLost(error)) => Err(Lost::Connection(why::ended(&error))),
            Err(_) => Err(Lost::Reset),
        }
    }

    pub(super) async fn hear(&mut self) -> Result<Vec<u8>, Lost> {
        let Some(recv) = &mut self.recv else { return Err(Lost::Reset) };
        let answer = recv.read_to_end(MESSAGE_BYTES_MAX).await;
        self.done = answer.is_ok();
        answer.map_err(|error| match error {
            ReadToEndError::TooLong => Lost::TooLarge,
            ReadToEndError::Read(ReadError::ConnectionLost(error)) => Lost::Connection(why::ended(&error)),
            ReadToEndError::Read(_) => Lost::Reset,
        })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.done {
            // The receiving half stops itself.
            let _ = self.send.reset(CANCELLED);
        }
    }
}
