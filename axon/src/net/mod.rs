//! The network: a QUIC endpoint whose every connection is pinned to an Ed25519 key on both sides.
//!
//! [`Net`] carries out the network's effects and gives its inputs. It owns the connections and open streams,
//! without locks: its tasks report to the driver over one bounded channel, and the driver hands each
//! [`NetEvent`] to [`Net::absorb`] before the node sees it. Source: `spec/WIRE_FORMAT.md`.

mod cert;
mod conn;
mod dial;
mod endpoint;
mod herald;
mod kx;
mod pipe;
mod silence;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod tickets;
mod tls;
mod trust;
mod why;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axon_proto::id::{AgentId, PublicKey};
use axon_proto::limits::{MESSAGE_BYTES_MAX, STREAMS_MAX};
use axon_proto::node::{ConnId, Effect, Input, Lost, Path, Side, StreamId, Token};
use foldhash::HashMap;
use quinn::{Connection, Endpoint, VarInt};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::names::Names;
use cert::Identity;
pub(crate) use endpoint::{Machine, ThisMachine};
use endpoint::{Open, unmapped};
use herald::Herald;
use pipe::{Pipe, Verdict};
use silence::Flight;
use stream::{Answer, Exchange, Route, Turn};
use tickets::{Sessions, Tickets};
use trust::Trust;

pub use endpoint::{BindError, NetConfig};

/// Close code: another connection is in use.
const DUPLICATE: u32 = 2;
/// Close code: the daemon stops.
const SHUTTING_DOWN: u32 = 5;
/// How long a close waits until the peer has the answers that were given before it.
const FLUSH: Duration = Duration::from_secs(1);

/// The endpoint, and all that is open on it.
pub struct Net {
    endpoint: Endpoint,
    client: quinn::ClientConfig,
    key: PublicKey,
    local: SocketAddr,
    shared: Shared,
    tickets: Arc<Tickets>,
    sessions: Arc<Sessions>,
    crypto: Arc<CryptoProvider>,
    /// Certificates of identities that were ours before.
    old: HashMap<AgentId, Arc<CertifiedKey>>,
    config: NetConfig,
    conns: HashMap<ConnId, Conn>,
    /// Inbound requests that await their answer.
    streams: HashMap<StreamId, Waiting>,
    /// Messages of ours that await their end. One that goes out again does so under a new number, so that the
    /// end of an earlier attempt, told but not yet absorbed, is not taken for its own.
    messages: HashMap<Token, (u64, Way)>,
    attempts: u64,
    accepting: AbortHandle,
}

/// Something happened on the network. Give [each](NetEvent::each) to [`Net::absorb`].
pub struct NetEvent(Event);

impl NetEvent {
    /// The events that came together, in their order. The node must have dealt with one, and its effects
    /// must be carried out, before the next is absorbed.
    pub fn each(self) -> impl Iterator<Item = Self> {
        let (one, many) = match self.0 {
            Event::Many(many, turn) => {
                drop(turn);
                (None, many)
            }
            one => (Some(one), Vec::new()),
        };
        one.into_iter().chain(many).map(Self)
    }
}

enum Event {
    Connected {
        input: Input,
        conn: ConnId,
        opened: Conn,
        hello: Option<Hello>,
    },
    Disconnected {
        conn: ConnId,
        why: String,
    },
    EarlyHello {
        stream: StreamId,
        peer: AgentId,
        bytes: Vec<u8>,
        waiting: Waiting,
    },
    Request {
        conn: ConnId,
        stream: StreamId,
        bytes: Vec<u8>,
        waiting: Option<Waiting>,
    },
    Gone {
        stream: StreamId,
        tell: bool,
    },
    /// Something of the peer's begins as a pipe does.
    Piped {
        conn: ConnId,
        answer: oneshot::Sender<Verdict>,
    },
    Ended {
        token: Token,
        attempt: u64,
        input: Input,
    },
    Plain(Input),
    /// Several that came together; none of them is one of these. The next ones wait until these are taken.
    Many(Vec<Event>, OwnedSemaphorePermit),
}

/// How a message of ours went out.
enum Way {
    /// On a stream of its own, by this task.
    Stream(AbortHandle),
    /// As this request on the pipe.
    Asked(Arc<Pipe>, u32),
    /// As this one-way message on the pipe.
    Told(Arc<Pipe>, u32),
}

impl Way {
    /// Nobody waits for its end any more.
    fn abandon(self) {
        match self {
            Self::Stream(task) => task.abort(),
            Self::Asked(pipe, number) => pipe.abandon_ask(number),
            Self::Told(pipe, number) => pipe.abandon_tell(number),
        }
    }
}

/// The hello of a dial.
struct Hello {
    token: Token,
    bytes: Arc<str>,
    /// Its stream, where it has been taken in 0-RTT.
    early: Option<Exchange>,
}

/// One connection, as `Net` keeps it.
struct Conn {
    connection: Connection,
    side: Side,
    flight: Arc<Flight>,
    flushing: Flushing,
    turn: Turn,
    pipe: Arc<Pipe>,
}

/// Answers of one connection that the peer does not have yet: one permit is out for each.
#[derive(Clone)]
struct Flushing(Arc<Semaphore>);

impl Flushing {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(ANSWERS as usize)))
    }

    /// None where very many answers are on their way; a close then does not wait for this one.
    fn begin(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }

    fn is_done(&self) -> bool {
        self.0.available_permits() == ANSWERS as usize
    }

    /// Waits until the peer has all answers, for a while.
    async fn done(&self) {
        let _ = tokio::time::timeout(FLUSH, self.0.acquire_many(ANSWERS)).await;
    }
}

/// An inbound request that awaits its answer.
enum Waiting {
    /// On a stream of its own, by a task.
    Stream { answer: oneshot::Sender<Answer>, flushing: Flushing },
    /// On the pipe, under this number, which may be used again.
    Pipe(Arc<Pipe>, u32, StreamId),
}

impl Waiting {
    fn say(self, bytes: Arc<str>) {
        match self {
            // A task that has gone has told so.
            Self::Stream { answer, flushing } => drop(answer.send(Answer::Say(bytes, flushing.begin()))),
            Self::Pipe(pipe, number, stream) => pipe.answer(number, stream, Some(&bytes)),
        }
    }

    fn reset(self) {
        match self {
            Self::Stream { answer, .. } => drop(answer.send(Answer::Reset)),
            Self::Pipe(pipe, number, stream) => pipe.answer(number, stream, None),
        }
    }
}

/// What every task of the network needs.
#[derive(Clone)]
struct Shared {
    events: mpsc::Sender<NetEvent>,
    trust: Arc<Trust>,
    refusals: Refusals,
    strangers: Arc<Semaphore>,
    ids: Arc<AtomicU64>,
    handshake_timeout: Duration,
    read_timeout: Duration,
    stranger_guard: Duration,
    message_bytes_max: usize,
    names: Names,
    /// Whether a peer may open a pipe.
    pipe: bool,
    /// Each connection has its own.
    turn: Turn,
}

/// Tells of certificates that the handshake has refused, as far as there is room: nothing ever waits for it.
#[derive(Debug, Clone)]
struct Refusals(mpsc::Sender<NetEvent>);

impl Refusals {
    fn tell(&self, id: AgentId) {
        // A flood of them leaves half of the room to all else.
        if self.0.capacity() > self.0.max_capacity() / 2 {
            let _ = self.0.try_send(NetEvent(Event::Plain(Input::HandshakeRefused { id })));
        }
    }
}

impl Shared {
    fn conn_id(&self) -> ConnId {
        ConnId(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    fn stream_id(&self) -> StreamId {
        StreamId(self.ids.fetch_add(1, Ordering::Relaxed))
    }
}

impl Net {
    /// Opens the endpoint for the identity of the seed. Nobody is pinned until `Effect::Pins`. As the
    /// identities of the old seeds it can dial for `Effect::Herald`.
    ///
    /// Must be called inside a tokio runtime; what happens is sent to `events`.
    pub(crate) fn on(
        machine: &impl Machine,
        config: &NetConfig,
        seed: &[u8; 32],
        old_seeds: &[[u8; 32]],
        events: mpsc::Sender<NetEvent>,
    ) -> Result<Self, BindError> {
        Self::open(machine, config, seed, old_seeds, events, conn::STRANGER_GUARD)
    }

    fn open(
        machine: &impl Machine,
        config: &NetConfig,
        seed: &[u8; 32],
        old_seeds: &[[u8; 32]],
        events: mpsc::Sender<NetEvent>,
        stranger_guard: Duration,
    ) -> Result<Self, BindError> {
        tokio::runtime::Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        let (certified, us) = cert::make(seed).map_err(BindError::Identity)?;
        let certified = Arc::new(certified);
        let old = old_seeds.iter().map(|seed| {
            let (certified, was) = cert::make(seed)?;
            Ok((was.id, Arc::new(certified)))
        });
        let old = old.collect::<Result<_, _>>().map_err(BindError::Identity)?;
        let trust = Arc::new(Trust::new(us.id));
        let tickets = Arc::new(Tickets::new(Arc::clone(&trust)));
        let sessions = Arc::new(Sessions::new(Arc::clone(&trust)));
        let refusals = Refusals(events.clone());
        let tls = |error: rustls::Error| BindError::Identity(error.to_string());
        let crypto = machine.crypto();
        let client = tls::client(&crypto, &certified, &trust, &tickets).map_err(tls)?;
        let server =
            tls::server(&crypto, &certified, us.id, &trust, &sessions, refusals.clone()).map_err(tls)?;
        let Open { endpoint, client, local } = endpoint::open(config, seed, client, server, machine)?;
        let shared = Shared {
            events,
            trust,
            refusals,
            strangers: Arc::new(Semaphore::new(conn::STRANGERS_OPEN_MAX)),
            ids: Arc::default(),
            handshake_timeout: config.handshake_timeout,
            read_timeout: config.read_timeout,
            stranger_guard,
            message_bytes_max: MESSAGE_BYTES_MAX,
            names: machine.names(),
            pipe: config.pipe,
            turn: Turn::default(),
        };
        let accepting = tokio::spawn(conn::accept_all(endpoint.clone(), shared.clone())).abort_handle();
        Ok(Self {
            endpoint,
            client,
            key: us.key,
            local,
            shared,
            tickets,
            sessions,
            crypto,
            old,
            config: config.clone(),
            conns: HashMap::default(),
            streams: HashMap::default(),
            messages: HashMap::default(),
            attempts: 0,
            accepting,
        })
    }

    /// Where the endpoint listens; `[::]` stands for all addresses, IPv4 too.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Our public key, as in our certificate.
    pub fn public_key(&self) -> PublicKey {
        self.key
    }

    /// The connection's round-trip time, as it is estimated now, and where its other end is now.
    pub fn path(&self, conn: ConnId) -> Option<Path> {
        let connection = &self.conns.get(&conn)?.connection;
        let rtt_us = u64::try_from(connection.rtt().as_micros()).unwrap_or(u64::MAX);
        Some(Path { conn, rtt_us, addr: unmapped(connection.remote_address()) })
    }

    /// Packets that have come on a connection since it began.
    pub fn packets(&self, conn: ConnId) -> Option<u64> {
        Some(silence::packets(&self.conns.get(&conn)?.connection))
    }

    /// Takes note of an event; yields what the node must be told of it.
    pub fn absorb(&mut self, event: NetEvent) -> Option<Input> {
        match event.0 {
            Event::Connected { input, conn, opened, hello } => {
                self.conns.insert(conn, opened);
                if let Some(Hello { token, bytes, early }) = hello {
                    self.request(conn, token, bytes, early);
                }
                Some(input)
            }
            Event::Disconnected { conn, why } => {
                let (tokens, streams) = self.conns.remove(&conn)?.pipe.over();
                // The node has an end for all of them in the one input.
                tokens.iter().for_each(|token| drop(self.messages.remove(token)));
                streams.iter().for_each(|stream| drop(self.streams.remove(stream)));
                Some(Input::Disconnected { conn, why })
            }
            Event::EarlyHello { stream, peer, bytes, waiting } => {
                self.streams.insert(stream, waiting);
                Some(Input::EarlyHello { stream, peer, bytes })
            }
            Event::Request { conn, stream, bytes, waiting } => {
                if let Some(waiting) = waiting {
                    self.streams.insert(stream, waiting);
                }
                Some(Input::Request { conn, stream, bytes })
            }
            Event::Gone { stream, tell } => {
                let waited = self.streams.remove(&stream).is_some();
                (waited && tell).then_some(Input::RequestGone { stream })
            }
            Event::Ended { token, attempt, input } => {
                self.messages.get(&token).filter(|(of, _)| *of == attempt)?;
                self.messages.remove(&token);
                Some(input)
            }
            Event::Piped { conn, answer } => {
                let conn = self.conns.get(&conn)?;
                // Who has gone needs no answer.
                answer.send(conn.pipe.is_one(conn.side)).ok();
                None
            }
            Event::Plain(input) => Some(input),
            Event::Many(..) => None,
        }
    }

    /// Carries out an effect of the network; those of others are passed over.
    pub fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Dial { dial, peer, addrs, hello, token, timeout_ms } => {
                let hello = Hello { token, bytes: hello, early: None };
                let timeout = Duration::from_millis(timeout_ms);
                let dial = dial::Dial { id: dial, peer, addrs, hello, timeout };
                let (endpoint, client) = (self.endpoint.clone(), self.client.clone());
                tokio::spawn(dial::dial(self.shared.clone(), endpoint, client, dial));
            }
            Effect::Close { conn, code, reason } => self.close_one(conn, code, reason),
            Effect::Request { conn, token, bytes } => self.request(conn, token, bytes, None),
            Effect::Up { conn, pipe } => {
                if let Some(conn) = self.conns.get(&conn) {
                    conn.pipe.agree(pipe);
                }
            }
            Effect::OneWay { conn, token, bytes } => self.one_way(conn, token, bytes),
            Effect::Abandon { token } => {
                if let Some((_, way)) = self.messages.remove(&token) {
                    way.abandon();
                }
            }
            Effect::Respond { stream, bytes } => {
                if let Some(waiting) = self.streams.remove(&stream) {
                    waiting.say(bytes);
                }
            }
            Effect::Reset { stream } => {
                if let Some(waiting) = self.streams.remove(&stream) {
                    waiting.reset();
                }
            }
            Effect::Pins(pins) => {
                if self.shared.trust.replace(pins) {
                    self.sessions.clear();
                }
                self.tickets.keep_pinned();
            }
            Effect::Herald { token, old, peer, key, addrs, hello, message, timeout_ms } => {
                let timeout = Duration::from_millis(timeout_ms);
                let (peer, endpoint) = (Identity { id: peer, key }, self.endpoint.clone());
                let names = self.shared.names.clone();
                let herald = self.as_old(old, peer).map(|client| Herald {
                    endpoint,
                    client,
                    peer,
                    addrs,
                    names,
                    hello,
                    message,
                    timeout,
                });
                let attempt = self.attempt();
                self.send(token, attempt, async move {
                    let outcome = match herald {
                        Ok(herald) => herald::go(herald).await,
                        Err(why) => Err(Lost::Connection(why)),
                    };
                    Input::Replied { token, outcome }
                });
            }
            _ => {}
        }
    }

    /// Stops accepting, lets the answers already given arrive, closes all connections and waits until the
    /// peers know; a little over two seconds at most.
    pub async fn close(&mut self, code: u32, reason: &str) {
        self.accepting.abort();
        // In the order in which they came, so that the same run ends in the same way.
        let mut conns: Vec<_> = self.conns.iter().collect();
        conns.sort_by_key(|(id, _)| id.0);
        let flushing: Vec<_> =
            conns.into_iter().flat_map(|(_, conn)| [conn.flushing.clone(), conn.pipe.close()]).collect();
        let all = async {
            for flushing in flushing {
                flushing.done().await;
            }
        };
        let _ = tokio::time::timeout(FLUSH, all).await;
        self.endpoint.close(VarInt::from_u32(code), reason.as_bytes());
        let _ = tokio::time::timeout(FLUSH, self.endpoint.wait_idle()).await;
        self.conns.clear();
        self.streams.clear();
        for (_, (_, way)) in self.messages.drain() {
            way.abandon();
        }
    }

    /// How to dial this key as an identity that was ours.
    fn as_old(&self, old: AgentId, peer: Identity) -> Result<quinn::ClientConfig, String> {
        let ours = self.old.get(&old).ok_or("the old key is not here")?;
        let client = tls::client_for(&self.crypto, ours, peer).map_err(|error| error.to_string())?;
        endpoint::mute(&self.config, client)
    }

    fn at(&self, conn: ConnId) -> Option<Route> {
        let Conn { connection, flight, turn, .. } = self.conns.get(&conn)?;
        Some(Route { connection: connection.clone(), flight: Arc::clone(flight), turn: turn.clone() })
    }

    fn request(&mut self, conn: ConnId, token: Token, bytes: Arc<str>, early: Option<Exchange>) {
        let attempt = self.attempt();
        if early.is_none()
            && let Some(conn) = self.conns.get(&conn)
            && let Some(number) = conn.pipe.ask(token, attempt, &bytes)
        {
            let way = Way::Asked(Arc::clone(&conn.pipe), number);
            self.messages.insert(token, (attempt, way));
            return;
        }
        let at = self.at(conn);
        self.send(token, attempt, async move {
            let outcome = match (at, early) {
                (Some(at), Some(exchange)) => stream::hear(exchange, &at.flight).await,
                (Some(at), None) => stream::ask(&at, &bytes).await,
                (None, _) => Err(no_connection()),
            };
            Input::Replied { token, outcome }
        });
    }

    fn one_way(&mut self, conn: ConnId, token: Token, bytes: Arc<str>) {
        let attempt = self.attempt();
        if let Some(conn) = self.conns.get(&conn)
            && let Some(number) = conn.pipe.tell(token, attempt, &bytes)
        {
            let way = Way::Told(Arc::clone(&conn.pipe), number);
            self.messages.insert(token, (attempt, way));
            return;
        }
        let at = self.at(conn);
        self.send(token, attempt, async move {
            let outcome = match at {
                Some(at) => stream::tell(&at, &bytes).await,
                None => Err(no_connection()),
            };
            Input::Sent { token, outcome }
        });
    }

    fn attempt(&mut self) -> u64 {
        self.attempts += 1;
        self.attempts
    }

    /// Has a task send a message and report its end.
    fn send(&mut self, token: Token, attempt: u64, message: impl Future<Output = Input> + Send + 'static) {
        let events = self.shared.events.clone();
        let task = tokio::spawn(async move {
            let input = message.await;
            let _ = events.send(NetEvent(Event::Ended { token, attempt, input })).await;
        });
        self.messages.insert(token, (attempt, Way::Stream(task.abort_handle())));
    }

    fn close_one(&self, conn: ConnId, code: u32, reason: &'static str) {
        let Some(Conn { connection, flushing, pipe, .. }) = self.conns.get(&conn) else { return };
        let mut flushing = vec![flushing.clone()];
        // To a peer that is out, or gone, what waits for the pipe does not go any more.
        match code {
            DUPLICATE | SHUTTING_DOWN => flushing.push(pipe.close()),
            _ => pipe.cut(),
        }
        let code = VarInt::from_u32(code);
        if flushing.iter().all(Flushing::is_done) {
            connection.close(code, reason.as_bytes());
            return;
        }
        // Closing drops what is on its way, such as the error that says why we close.
        let connection = connection.clone();
        tokio::spawn(async move {
            let all = async {
                for flushing in flushing {
                    flushing.done().await;
                }
            };
            let _ = tokio::time::timeout(FLUSH, all).await;
            connection.close(code, reason.as_bytes());
        });
    }
}

fn no_connection() -> Lost {
    Lost::Connection("the connection has ended".into())
}

/// Answers that a close waits for; more than a peer may have streams.
const ANSWERS: u32 = 2 * STREAMS_MAX;
