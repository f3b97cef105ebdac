//! What goes into a [`Node`](super::Node) and what comes out: plain data, without handles to anything.
//!
//! The shell feeds one [`Input`], carries out every [`Effect`] in order, and feeds the next. It calls
//! [`Node::next_timeout`](super::Node::next_timeout) to learn when to feed [`Input::Timer`].

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::contacts::ContactChange;
use crate::id::{AgentId, MsgId, PublicKey};
use crate::pairing::payload::Rekey;
use crate::scope::ScopeChange;
use crate::store::{Commit, CommitError, Keep, Read, ReadOut};

/// Both clocks at the time of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back, from any origin.
    pub mono_ms: u64,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
}

/// One QUIC connection, named by the shell; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// One inbound bidirectional stream that awaits an answer, named by the shell; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// One client of the Unix socket, named by the shell; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// One outgoing message, named by the node; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// One attempt to reach a peer, named by the node; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialId(pub u64);

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This daemon did.
    Dialer,
    /// The peer did.
    Acceptor,
}

/// Why an outgoing message got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// The connection ended first; the text says how.
    Connection(String),
    /// The peer reset or stopped the stream.
    Reset,
    /// The answer was longer than a message may be.
    TooLarge,
}

/// One change of what is stored, named by the node; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(pub u64);

/// One reading of what is stored, named by the node; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// One thing that the shell is to do and tell the end of, named by the node; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// Whose words a line carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Nobody's but this daemon's.
    Us,
    /// This peer's.
    Peer(AgentId),
    /// Perhaps several peers'.
    Several,
}

/// What a stranger is told for whom there is no place now.
pub const TOO_MANY_STRANGERS: &str = "too many strangers: try again";

/// How the shell begins to say that a peer refused our certificate.
pub const KEY_REFUSED: &str = "the peer refused our key";

/// What the shell tells the node.
#[derive(Debug)]
pub enum Input {
    /// The socket is open: dial every known peer.
    Start,
    /// The time of `next_timeout` has come.
    Timer,
    /// New settings (also the first thing after construction that changes peers or limits).
    Settings(Box<super::Settings>),
    /// Stop: finish or refuse what is in flight, then `Effect::Stopped`.
    Stop,

    /// A handshake is complete on both sides and the certificate's identity is pinned.
    Connected {
        /// The new connection.
        conn: ConnId,
        /// Whose it is, by its certificate.
        peer: AgentId,
        /// The certificate's key.
        key: PublicKey,
        /// Who dialled.
        side: Side,
        /// The peer's address.
        addr: SocketAddr,
        /// The attempt that it came from, when this daemon dialled.
        dial: Option<DialId>,
        /// Whether the hello travelled in 0-RTT and was taken.
        early: bool,
        /// 32 bytes of the TLS exporter with the label `EXPORTER-axon-knock` and no context: the same on both
        /// sides, and of this connection only.
        binding: [u8; 32],
    },
    /// The handshake has refused a certificate; whether its sender holds the key is not known.
    HandshakeRefused {
        /// The id that belongs to the certificate's key.
        id: AgentId,
    },
    /// An attempt failed; no connection came of it.
    DialFailed {
        /// The attempt.
        dial: DialId,
        /// What happened, for a person.
        why: String,
    },
    /// A connection ended, whoever ended it.
    Disconnected {
        /// The connection.
        conn: ConnId,
        /// What happened, for a person.
        why: String,
    },
    /// A hello came in 0-RTT before the handshake was confirmed. Answered without changing any state.
    EarlyHello {
        /// The stream to answer on.
        stream: StreamId,
        /// The peer of the resumed session.
        peer: AgentId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A whole message on a bidirectional stream.
    Request {
        /// Where it came.
        conn: ConnId,
        /// The stream to answer on.
        stream: StreamId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A peer gave up a bidirectional stream whose answer is not sent yet.
    RequestGone {
        /// The stream.
        stream: StreamId,
    },
    /// A whole message on a unidirectional stream.
    OneWay {
        /// Where it came.
        conn: ConnId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A message was longer than allowed or stalled; its stream was stopped by the shell.
    BadStream {
        /// Where it came.
        conn: ConnId,
        /// What was wrong, for the log.
        why: &'static str,
    },
    /// The end of an `Effect::Request` (also of the hello that a dial carries).
    Replied {
        /// Which.
        token: Token,
        /// The peer's whole answer, or why there is none.
        outcome: Result<Vec<u8>, Lost>,
    },
    /// The end of an `Effect::OneWay`: the peer's transport has acknowledged all of it, or never will.
    Sent {
        /// Which.
        token: Token,
        /// Whether it arrived.
        outcome: Result<(), Lost>,
    },
    /// Something of ours is in flight on this connection and no packet has come for `SILENCE_MS`.
    Silent {
        /// Which.
        conn: ConnId,
    },
    /// A packet has come after `Silent`.
    Alive {
        /// Which.
        conn: ConnId,
    },
    /// The answer to `Effect::Count`: packets that have come on these connections since they began.
    Counted(Vec<(ConnId, u64)>),

    /// Discovery has seen a peer.
    Found {
        /// The id it claims.
        id: AgentId,
        /// The key it claims.
        key: PublicKey,
        /// Where it may be reached.
        addrs: Vec<SocketAddr>,
    },

    /// A client has connected.
    ClientUp {
        /// Which.
        client: ClientId,
        /// Whether its uid was read and is the one that may use this socket; without it, it must show the
        /// token, which only the main socket takes.
        trusted: bool,
        /// The scoped socket that it came by; none: the main one.
        socket: Option<Arc<str>>,
    },
    /// A client's line, without its newline.
    Line {
        /// Which client.
        client: ClientId,
        /// The line.
        line: Vec<u8>,
    },
    /// A client's line was longer than a command may be; it has been skipped.
    LineTooLong {
        /// Which client.
        client: ClientId,
    },
    /// An `Effect::Event` did not fit into the client's queue.
    Lagged {
        /// Which client.
        client: ClientId,
        /// The number of the message that was turned away.
        seq: u64,
    },
    /// A client will say no more; it may still wait for answers.
    ClientEof {
        /// Which client.
        client: ClientId,
    },
    /// A client has gone.
    ClientGone {
        /// Which.
        client: ClientId,
    },
    /// The end of an `Effect::Commit`: it is on disk, or nothing of it is.
    Committed {
        /// Which.
        id: CommitId,
        /// What came of it.
        outcome: Result<(), CommitError>,
    },
    /// The end of an `Effect::Read`.
    ReadDone {
        /// Which.
        id: ReadId,
        /// What was read.
        out: ReadOut,
    },

    /// `contacts.toml` as it is now, read again.
    Contacts(crate::contacts::ContactsFile),
    /// The end of an effect that names a job.
    Done {
        /// Which.
        job: JobId,
        /// What came of it: a text where the effect says so, or what went wrong, for a person.
        outcome: Result<String, String>,
    },

    /// The answer to `Effect::Measure`.
    Measured {
        /// Which client asked.
        client: ClientId,
        /// Its command.
        req_id: String,
        /// The connections that are there.
        rtts: Vec<Path>,
    },
}

/// How a connection runs at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Which.
    pub conn: ConnId,
    /// Its round trip time in microseconds.
    pub rtt_us: u64,
    /// The peer's address: another than at first when the peer has moved since.
    pub addr: SocketAddr,
}

/// What the node wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Connect to a peer, trying the addresses, and send `hello` first, in 0-RTT where that is possible.
    ///
    /// Ends in `Input::Connected` and then `Input::Replied` for `token`, or in `Input::DialFailed`.
    Dial {
        /// The attempt.
        dial: DialId,
        /// Who must be there: the server name, and the id of the certificate.
        peer: AgentId,
        /// `host:port`, by IP or name, best first.
        addrs: Vec<String>,
        /// The hello envelope.
        hello: Arc<str>,
        /// Names the hello's answer.
        token: Token,
        /// The attempt fails after this.
        timeout_ms: u64,
    },
    /// Close a connection with a code and reason.
    Close {
        /// Which.
        conn: ConnId,
        /// One of the close codes of the specification.
        code: u32,
        /// For the other side's log.
        reason: &'static str,
    },
    /// Hello is done on a connection.
    Up {
        /// Which.
        conn: ConnId,
        /// Whether both sides offer the feature `pipe`: messages may travel on it from now on.
        pipe: bool,
    },
    /// Send on a new bidirectional stream, or on the pipe, and await the answer.
    Request {
        /// Where.
        conn: ConnId,
        /// Names the answer.
        token: Token,
        /// The envelope.
        bytes: Arc<str>,
    },
    /// Send on a new unidirectional stream and await the transport's acknowledgement, or on the pipe and
    /// await that the peer has taken it over.
    OneWay {
        /// Where.
        conn: ConnId,
        /// Names the end.
        token: Token,
        /// The envelope.
        bytes: Arc<str>,
    },
    /// Nobody waits for this answer any more: reset the stream or say so on the pipe, tell nothing.
    Abandon {
        /// Which.
        token: Token,
    },
    /// Answer on an inbound stream. A stream that is gone or answered is passed over.
    Respond {
        /// Which.
        stream: StreamId,
        /// The envelope.
        bytes: Arc<str>,
    },
    /// Reset an inbound stream without an answer.
    Reset {
        /// Which.
        stream: StreamId,
    },
    /// The identities that the TLS handshake may accept, from now on. Drop session tickets of all others, and
    /// all sessions that could be resumed here when somebody is no longer among them.
    Pins(Arc<Pins>),
    /// Dial a peer as another identity of ours, an old one; say `hello`, and when that is answered by a
    /// hello, `message`. Ends in `Input::Replied` for `token` with the answer to `message`, or
    /// `Lost::Connection`.
    Herald {
        /// Names the end.
        token: Token,
        /// The old identity.
        old: AgentId,
        /// Who must be there.
        peer: AgentId,
        /// Its key.
        key: PublicKey,
        /// `host:port`, best first.
        addrs: Vec<String>,
        /// The hello envelope.
        hello: Arc<str>,
        /// The envelope that follows.
        message: Arc<str>,
        /// It fails after this.
        timeout_ms: u64,
    },

    /// A line for a client that must not be dropped: a reply, or a request handed to it.
    Line {
        /// Which client.
        client: ClientId,
        /// The line, without its newline.
        line: Arc<str>,
        /// Whose words it carries.
        of: Of,
    },
    /// An event for a client; when its queue is full, tell the node `Input::Lagged`.
    Event {
        /// Which client.
        client: ClientId,
        /// The message's number.
        seq: u64,
        /// Whose message it is.
        of: AgentId,
        /// The line, without its newline.
        line: Arc<str>,
    },
    /// Tell the node the round trip times of these connections at once, by `Input::Measured`.
    Measure {
        /// Which client asks.
        client: ClientId,
        /// Its command.
        req_id: String,
        /// Of which connections.
        conns: Vec<ConnId>,
    },
    /// Tell the node at once how many packets have come on these connections, by `Input::Counted`. A shell
    /// that cannot tell may pass it over.
    Count(Vec<ConnId>),
    /// Take no more lines from a client for now, or take them again. Some that were on their way still come.
    Pace {
        /// Which.
        client: ClientId,
        /// Whether to pause.
        pause: bool,
    },
    /// Close a client once its lines are written.
    CloseClient {
        /// Which.
        client: ClientId,
    },

    /// Store this; the node is told `Input::Committed` when it will outlive a power cut. Commits and readings
    /// are carried out in the order in which they are given.
    Commit {
        /// Names the end.
        id: CommitId,
        /// What.
        commit: Commit,
    },
    /// Read this, and tell the node `Input::ReadDone`.
    Read {
        /// Names the end.
        id: ReadId,
        /// What.
        read: Read,
    },
    /// Let what is too old for these bounds go.
    Evict(Keep),
    /// Append these to the replay record on disk.
    Remember(Vec<Seen>),
    /// Replace the peer cache on disk.
    SavePeers(Vec<KnownPeer>),
    /// Change `contacts.toml` (and take out of `[[peers]]` whom it removes), keeping what a person wrote
    /// there; told by `Input::Done` when it is on disk.
    Contacts {
        /// Names the end.
        job: JobId,
        /// What.
        changes: Vec<ContactChange>,
    },
    /// Change the scoped sockets and their file; told by `Input::Done`, with the socket's path.
    Socket {
        /// Names the end.
        job: JobId,
        /// What.
        change: ScopeChange,
    },
    /// Drop the events of a peer that wait for clients. Told by `Input::Done` when every other line that
    /// carries its words has been written, or its client is closed: after `PURGE_MS` at the latest.
    Purge {
        /// Names the end.
        job: JobId,
        /// Whose.
        peer: AgentId,
    },
    /// Read the settings, contacts and token again, as at SIGHUP; told by `Input::Done`.
    Reload {
        /// Names the end.
        job: JobId,
    },
    /// Make a new identity, keep the old one with a statement that both sign, and start anew once the node
    /// has stopped; told by `Input::Done`, with the new public key in base64.
    Rekey {
        /// Names the end.
        job: JobId,
    },
    /// Append a row to the audit log.
    Audit(crate::audit::Row),
    /// Tell the log.
    Log(LogLevel, String),
    /// All is finished or refused: close QUIC with code 5 and end.
    Stopped,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// A person should look at it.
    Warn,
    /// Worth a line.
    Info,
    /// For those who look for a fault.
    Debug,
}

/// Who may connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    /// Keys of peers, by agent id.
    pub keys: HashMap<AgentId, PublicKey>,
    /// Who is refused whatever else holds.
    pub blocked: HashSet<AgentId>,
    /// Whether somebody who dials us may be neither: a stranger, who may only knock.
    pub strangers: bool,
    /// Strangers that may always.
    pub allowed: HashSet<AgentId>,
}

/// A key that this agent had before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldKey {
    /// It.
    pub key: PublicKey,
    /// What says that the key of today follows it.
    pub statement: Rekey,
    /// Until when peers are told (Unix milliseconds).
    pub until_ms: u64,
}

/// Signs a message with this agent's Ed25519 key.
pub type Sign = Box<dyn Fn(&[u8]) -> [u8; 64] + Send>;

/// Checks an Ed25519 signature: key, message, signature.
pub type Verify = fn(&PublicKey, &[u8], &[u8; 64]) -> bool;

/// An envelope id that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Who sent it.
    pub from: AgentId,
    /// The envelope's id.
    pub id: MsgId,
    /// When it may be forgotten, in Unix milliseconds.
    pub until_ms: u64,
}

/// A found peer, as the cache keeps it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KnownPeer {
    /// Its id.
    pub agent_id: AgentId,
    /// Its key.
    pub pubkey: PublicKey,
    /// Where it was reached, best first.
    pub addrs: Vec<SocketAddr>,
    /// When it was last connected, in Unix milliseconds.
    pub last_seen_ms: u64,
}
