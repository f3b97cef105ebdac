//! One connection: accepted or dialled, from the confirmed handshake to its end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axon_proto::limits::{
    HANDSHAKES_FREE_MAX, HANDSHAKES_MAX, STRANGER_MESSAGE_BYTES_MAX, STRANGER_MS, STRANGER_STREAMS_MAX,
    STRANGERS_MAX, STREAMS_MAX,
};
use axon_proto::node::{ConnId, DialId, Input, Side, StreamId, TOO_MANY_STRANGERS};
use quinn::{Connection, Dir, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::cert::Identity;
use super::endpoint::{self, STREAMS_FEW, unmapped};
use super::pipe::Pipe;
use super::silence::{self, Flight};
use super::stream::Turn;
use super::trust::{Admission, other_end};
use super::{Conn, Event, Flushing, Hello, NetEvent, Shared, Waiting, stream, why};

/// Close code: the peer has broken the protocol.
pub(super) const VIOLATION: VarInt = VarInt::from_u32(4);
/// Close code: there are too many connections.
const NO_ROOM: VarInt = VarInt::from_u32(1);
/// What a peer is told that lost its pin while it connected.
pub(super) const NOT_PINNED: &[u8] = b"this key is not known here";
/// A stranger's connection is closed after this, should the node not have done it.
pub(super) const STRANGER_GUARD: Duration = Duration::from_millis(STRANGER_MS + 3_000);
/// Strangers who are connected or about to be told of; the node keeps fewer.
pub(super) const STRANGERS_OPEN_MAX: usize = 4 * STRANGERS_MAX;
/// What names the connection to both of its ends, and to nobody else.
const BINDING_LABEL: &[u8] = b"EXPORTER-axon-knock";

/// A connection whose handshake is complete and whose peer is let in.
pub(super) struct Ready {
    pub(super) connection: Connection,
    pub(super) who: Identity,
    pub(super) side: Side,
    /// A place among the strangers, of one who is let in to knock only.
    pub(super) stranger: Option<OwnedSemaphorePermit>,
    pub(super) binding: [u8; 32],
    pub(super) early: bool,
    pub(super) dial: Option<DialId>,
    /// The hello that goes out first, for a connection that we dialled.
    pub(super) hello: Option<Hello>,
    pub(super) flushing: Flushing,
}

/// Takes connections until the endpoint closes.
pub(super) async fn accept_all(endpoint: Endpoint, shared: Shared) {
    let handshakes = Arc::new(AtomicUsize::new(0));
    while let Some(incoming) = endpoint.accept().await {
        let busy = handshakes.load(Ordering::Relaxed);
        if busy >= HANDSHAKES_FREE_MAX && !incoming.remote_address_validated() {
            // Costs nothing here, and a forged address never comes back.
            if let Err(error) = incoming.retry() {
                error.into_incoming().ignore();
            }
        } else if busy >= HANDSHAKES_MAX {
            incoming.refuse();
        } else {
            let handshake = Handshake::begin(&handshakes);
            tokio::spawn(accept(incoming, shared.clone(), handshake));
        }
    }
    // Closing the net ends this task before it closes the endpoint.
    tracing::error!("the UDP socket has failed and no peer can be reached: restart the daemon");
}

/// Counts one handshake in progress.
struct Handshake(Arc<AtomicUsize>);

impl Handshake {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept(incoming: Incoming, shared: Shared, handshake: Handshake) {
    let addr = unmapped(incoming.remote_address());
    match tokio::time::timeout(shared.handshake_timeout, shake(incoming, &shared)).await {
        Ok(Ok((ready, first))) => {
            drop(handshake);
            // A task of its own: what the handshake needed does not stay as long as the connection.
            tokio::spawn(run(shared, ready, first));
        }
        Ok(Err(why)) => tracing::debug!(%addr, why, "a handshake failed"),
        Err(_) => tracing::debug!(%addr, "a handshake did not end in time"),
    }
}

/// The first stream of a resumed connection.
enum First {
    /// It came whole before the handshake was confirmed; the node has seen it as an early hello.
    Early(StreamId, Vec<u8>),
    /// It is still on its way, or there is none yet.
    Later(Pin<Box<dyn Future<Output = Option<Opened>> + Send>>),
}

/// A stream that was opened by the peer, with its message if it was sent in 0-RTT.
struct Opened {
    send: SendStream,
    recv: RecvStream,
    early: Option<Result<Vec<u8>, stream::Unread>>,
}

async fn shake(incoming: Incoming, shared: &Shared) -> Result<(Ready, Option<First>), String> {
    let text = |error| why::ended(&error);
    let mut connecting = incoming.accept().map_err(text)?;
    // From here on the client's first words are read, and a resumed session is known.
    connecting.handshake_data().await.map_err(text)?;
    let Ok((connection, confirmed)) = connecting.into_0rtt() else {
        return Err("the handshake gave no connection".into());
    };
    tokio::pin!(confirmed);
    let mut is_confirmed = false;
    // On a full handshake the client is nobody until it is confirmed, and nothing is read or sent before.
    let mut first = None;
    let flushing = Flushing::new();
    let resumed = other_end(&connection);
    if let Some(who) = resumed.filter(|who| shared.trust.is_pinned(who)) {
        let mut opening = Box::pin(open_first(connection.clone(), shared.clone()));
        let opened = tokio::select! {
            biased;
            _ = &mut confirmed => {
                is_confirmed = true;
                None
            }
            opened = &mut opening => Some(opened),
        };
        first = match opened {
            None => Some(First::Later(opening)),
            Some(Some(Opened { send, recv, early: Some(Ok(bytes)) })) => {
                drop(recv);
                Some(early_hello(shared, &who, send, bytes, flushing.clone()).await)
            }
            // Not early after all, or of no use: it is looked at once there is a connection.
            Some(opened) => Some(First::Later(Box::pin(async { opened }))),
        };
    }
    if !is_confirmed {
        confirmed.await;
    }
    if let Some(error) = connection.close_reason() {
        return Err(why::ended(&error));
    }
    let (Some(who), Some(binding)) = (other_end(&connection), binding(&connection)) else {
        connection.close(VIOLATION, NOT_PINNED);
        return Err("the handshake gave no identity".into());
    };
    let stranger = match shared.trust.admission(&who, Side::Acceptor) {
        Admission::Peer => None,
        Admission::Stranger => {
            // Of what came early nothing is read.
            first = None;
            let Ok(place) = Arc::clone(&shared.strangers).try_acquire_owned() else {
                // By this reason the other side knows that there is room in a moment.
                connection.close(NO_ROOM, TOO_MANY_STRANGERS.as_bytes());
                return Err("there are too many strangers".into());
            };
            Some(place)
        }
        Admission::Refused => {
            shared.refusals.tell(who.id);
            connection.close(VIOLATION, NOT_PINNED);
            return Err("the peer is not let in any more".into());
        }
    };
    let early = matches!(first, Some(First::Early(..)));
    let side = Side::Acceptor;
    let ready = Ready { connection, who, side, stranger, binding, early, dial: None, hello: None, flushing };
    Ok((ready, first))
}

/// The TLS exporter of a connection whose handshake is complete.
pub(super) fn binding(connection: &Connection) -> Option<[u8; 32]> {
    let mut binding = [0; 32];
    connection.export_keying_material(&mut binding, BINDING_LABEL, b"").ok()?;
    Some(binding)
}

/// Accepts the first stream and, if it came in 0-RTT, reads it.
async fn open_first(connection: Connection, shared: Shared) -> Option<Opened> {
    let (send, mut recv) = connection.accept_bi().await.ok()?;
    let early = if recv.is_0rtt() {
        Some(stream::read(&mut recv, shared.message_bytes_max, shared.read_timeout).await)
    } else {
        None
    };
    Some(Opened { send, recv, early })
}

/// Shows an early hello to the node, which may answer it and do nothing else.
async fn early_hello(
    shared: &Shared,
    who: &Identity,
    send: SendStream,
    bytes: Vec<u8>,
    flushing: Flushing,
) -> First {
    let stream = shared.stream_id();
    let (answer, answered) = oneshot::channel();
    let waiting = Waiting::Stream { answer, flushing };
    let event = Event::EarlyHello { stream, peer: who.id, bytes: bytes.clone(), waiting };
    let _ = shared.events.send(NetEvent(event)).await;
    // Not that of all connections: this one has none yet.
    let shared = Shared { turn: Turn::default(), ..shared.clone() };
    tokio::spawn(async move { stream::serve(&shared, stream, send, answered).await });
    First::Early(stream, bytes)
}

/// Has a task tell the node of a connection, carry its streams, and tell of its end.
pub(super) fn connected(shared: Shared, ready: Ready) {
    tokio::spawn(run(shared, ready, None));
}

/// Tells the node of a connection, carries its streams, and tells of its end.
///
/// The future lasts as long as the connection, and so nothing is in it that is only needed at the beginning.
fn run(mut shared: Shared, ready: Ready, first: Option<First>) -> impl Future<Output = ()> + Send {
    let Ready { connection, who, side, stranger: place, binding, early, dial, hello, flushing } = ready;
    let stranger = place.is_some();
    let places = if stranger { STRANGER_STREAMS_MAX } else { SLOTS };
    match side {
        Side::Acceptor if stranger => {
            endpoint::keep_small(&connection);
            shared.message_bytes_max = STRANGER_MESSAGE_BYTES_MAX;
        }
        Side::Acceptor => endpoint::welcome(&connection),
        Side::Dialer => {}
    }
    let conn = shared.conn_id();
    shared.turn = Turn::default();
    let flight = Arc::new(Flight::default());
    let pipe = Arc::new(Pipe::new(connection.clone(), who.id, Arc::clone(&flight)));
    let addr = unmapped(connection.remote_address());
    let told = Box::new(NetEvent(Event::Connected {
        input: Input::Connected { conn, peer: who.id, key: who.key, side, addr, dial, early, binding },
        conn,
        opened: Conn {
            connection: connection.clone(),
            side,
            flight: Arc::clone(&flight),
            flushing: flushing.clone(),
            turn: shared.turn.clone(),
            pipe: Arc::clone(&pipe),
        },
        hello,
    }));
    let peer = who.id;
    async move {
        let _place = place;
        // A room in the channel first, here and below: an event that waits for one is a part of this future.
        let Ok(room) = shared.events.reserve().await else { return };
        room.send(unboxed(told));
        // As many messages as the peer may have streams are read, or wait for the node or its answer; then no
        // more are taken.
        let slots = [(); 2].map(|()| Arc::new(Semaphore::new(places as usize)));
        match first {
            Some(First::Early(stream, bytes)) => {
                if let Ok(room) = shared.events.reserve().await {
                    room.send(NetEvent(Event::Request { conn, stream, bytes, waiting: None }));
                }
            }
            Some(First::Later(opening)) => {
                let (shared, slots, flushing) = (shared.clone(), Arc::clone(&slots[0]), flushing.clone());
                tokio::spawn(async move {
                    if let (Some(opened), Ok(slot)) = (opening.await, slots.acquire_owned().await) {
                        opened.carry_on(shared, conn, slot, flushing).await;
                    }
                });
            }
            None => {}
        }
        let streams = async {
            tokio::join!(
                requests(&shared, conn, &connection, &slots[0], &flushing, stranger),
                one_ways(&shared, conn, &connection, &slots[1], &pipe, stranger),
            );
            // What had come before the end still reaches the node before it hears of the end.
            for slots in &slots {
                let _ = slots.acquire_many(places).await;
            }
        };
        let watch = async {
            if stranger {
                tokio::time::sleep(shared.stranger_guard).await;
                connection.close(VIOLATION, b"strangers are heard briefly");
            } else {
                silence::watch(&connection, conn, &flight, &shared.events).await;
            }
        };
        tokio::select! {
            biased;
            () = streams => {}
            () = watch => {}
        }
        let why =
            connection.close_reason().map_or_else(|| "the connection has ended".into(), |e| why::ended(&e));
        tracing::debug!(conn = conn.0, %peer, why, "disconnected");
        if let Ok(room) = shared.events.reserve().await {
            room.send(NetEvent(Event::Disconnected { conn, why }));
        }
    }
}

/// What is in the box, which goes at once: one that is emptied in place stays as long as its future.
#[expect(clippy::boxed_local, reason = "it is here to end the box")]
fn unboxed<T>(boxed: Box<T>) -> T {
    *boxed
}

async fn requests(
    shared: &Shared,
    conn: ConnId,
    connection: &Connection,
    slots: &Arc<Semaphore>,
    flushing: &Flushing,
    stranger: bool,
) {
    let mut few = !stranger;
    while let Ok(slot) = Arc::clone(slots).acquire_owned().await {
        let Ok((send, recv)) = connection.accept_bi().await else { return };
        if stranger && recv.is_0rtt() {
            // Both halves are given up.
            continue;
        }
        widen(connection, Dir::Bi, slots, &mut few);
        tokio::spawn(stream::request(shared.clone(), conn, send, recv, slot, flushing.clone()));
    }
}

async fn one_ways(
    shared: &Shared,
    conn: ConnId,
    connection: &Connection,
    slots: &Arc<Semaphore>,
    pipe: &Arc<Pipe>,
    stranger: bool,
) {
    let mut few = !stranger;
    while let Ok(slot) = Arc::clone(slots).acquire_owned().await {
        let Ok(recv) = connection.accept_uni().await else { return };
        widen(connection, Dir::Uni, slots, &mut few);
        tokio::spawn(stream::one_way(shared.clone(), conn, recv, slot, Arc::clone(pipe)));
    }
}

/// Lets the peer have more streams when it has come to use several at a time; this is done once.
fn widen(connection: &Connection, dir: Dir, slots: &Semaphore, few: &mut bool) {
    let used = (SLOTS as usize).saturating_sub(slots.available_permits());
    if *few && used >= STREAMS_FEW as usize {
        *few = false;
        endpoint::widen(connection, dir);
    }
}

impl Opened {
    /// The rest of a first stream that was not whole when the handshake was confirmed.
    async fn carry_on(self, shared: Shared, conn: ConnId, slot: OwnedSemaphorePermit, flushing: Flushing) {
        match self.early {
            None => stream::request(shared, conn, self.send, self.recv, slot, flushing).await,
            Some(message) => stream::request_read(shared, conn, self.send, message, slot, flushing).await,
        }
    }
}

/// Messages of one direction of one connection that are being read, handed to the node, or answered.
const SLOTS: u32 = STREAMS_MAX;
