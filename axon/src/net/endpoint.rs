//! The QUIC endpoint: its socket, its transport settings, and the keys that outlive a restart.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axon_proto::limits::{
    HANDSHAKES_MAX, MESSAGE_BYTES_MAX, STRANGER_MESSAGE_BYTES_MAX, STRANGER_STREAMS_MAX, STREAMS_MAX,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, ClientConfig, Connection, Dir, Endpoint, EndpointConfig, IdleTimeout,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::crypto::CryptoProvider;
use socket2::{Domain, Protocol, Socket, Type};

use crate::names::Names;

/// Bytes of one stream that may wait unread: a whole message, and enough more to see that one is too long.
const STREAM_WINDOW_BYTES: u32 = MESSAGE_BYTES_MAX as u32 + 1_024;
/// Bytes of one connection that may wait unread.
pub(super) const WINDOW_BYTES: u32 = 1_048_576;
/// The same until it is known who has dialled: a hello in 0-RTT fits.
const FIRST_WINDOW_BYTES: u32 = 2 * STREAM_WINDOW_BYTES;
/// The same of a stranger.
const STRANGER_WINDOW_BYTES: u32 = STRANGER_STREAMS_MAX * (STRANGER_MESSAGE_BYTES_MAX as u32 + 1_024);
/// Bytes of one connection that may wait for the peer's acknowledgement.
const SEND_WINDOW_BYTES: u64 = 1_048_576;
/// Bytes kept of a handshake that is not yet accepted: a hello in 0-RTT fits.
const INCOMING_BYTES_MAX: u64 = 131_072;
/// The same over all handshakes.
const INCOMING_TOTAL_BYTES_MAX: u64 = 2_097_152;

/// A one-way message is `sent` when it is acknowledged: the peer is asked not to put that off for QUIC's
/// usual 25 ms.
const ACK_DELAY_MAX: Duration = Duration::from_millis(2);

/// Where to listen, and how long to wait for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// The address to listen on; none is all, IPv4 and IPv6.
    pub bind: Option<IpAddr>,
    /// The UDP port; 0 is any free one.
    pub port: u16,
    /// A packet is sent after this long without one, so that the connection stays up.
    pub keepalive: Duration,
    /// A connection ends after this long without a packet.
    pub idle_timeout: Duration,
    /// A handshake that a peer began ends after this.
    pub handshake_timeout: Duration,
    /// A stream that a peer has opened and not finished is stopped after this long without a new byte.
    pub read_timeout: Duration,
    /// Whether peers may open a pipe here; it is also what the node must offer.
    pub pipe: bool,
}

/// Why the daemon cannot listen, in words for the person who started it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("UDP port {0} is in use: stop the program that holds it, or choose another `port`")]
    InUse(u16),
    /// The address is not one of this machine's.
    #[error(
        "this machine has no address {0}: set `bind` to one of its own, or leave it out to listen on all"
    )]
    NoSuchAddress(IpAddr),
    /// The system does not allow it.
    #[error("this user may not open UDP port {0}: choose a `port` above 1023")]
    Denied(u16),
    /// The system refused for another reason.
    #[error("cannot listen on UDP port {port}: {error}")]
    Io {
        /// The port.
        port: u16,
        /// What the system said.
        error: io::Error,
    },
    /// The identity key makes no certificate.
    #[error("the identity key cannot be used ({0}): run `axon doctor`")]
    Identity(String),
    /// There is no tokio runtime around the call.
    #[error("the network can only be started inside a tokio runtime")]
    NoRuntime,
}

/// What the network has of the machine that it runs on: its socket, and what is drawn at random. Time it
/// reads from tokio. The daemon knows one machine; a simulation brings its own, of which all is seeded.
pub(crate) trait Machine {
    /// A socket that listens, and where.
    fn socket(&self, config: &NetConfig) -> Result<(Arc<dyn AsyncUdpSocket>, SocketAddr), BindError>;

    /// Who looks up the names of hosts.
    fn names(&self) -> Names;

    /// What TLS computes with, and draws its keys from.
    fn crypto(&self) -> Arc<CryptoProvider>;

    /// The last word on what TLS reads from clocks.
    fn settle_tls(&self, _: &mut rustls::ClientConfig, _: &mut rustls::ServerConfig) {}

    /// The last word on what QUIC draws at random.
    fn settle_quic(&self, _: &mut EndpointConfig, _: &mut ServerConfig, _: &mut ClientConfig) {}
}

/// The machine that the daemon runs on.
#[derive(Debug, Clone)]
pub(crate) struct ThisMachine {
    /// Who looks up names on it.
    pub(crate) names: Names,
}

impl Machine for ThisMachine {
    fn socket(&self, config: &NetConfig) -> Result<(Arc<dyn AsyncUdpSocket>, SocketAddr), BindError> {
        let io = |error| BindError::Io { port: config.port, error };
        let socket = socket(config)?;
        let local = unmapped(socket.local_addr().map_err(io)?);
        Ok((super::socket::Socket::new(socket).map_err(io)?, local))
    }

    fn names(&self) -> Names {
        self.names.clone()
    }

    fn crypto(&self) -> Arc<CryptoProvider> {
        super::tls::provider()
    }
}

/// An endpoint that listens, and how it dials.
pub(super) struct Open {
    pub(super) endpoint: Endpoint,
    pub(super) client: ClientConfig,
    pub(super) local: SocketAddr,
}

/// Opens the socket and the endpoint, and makes the configuration to dial with.
pub(super) fn open(
    config: &NetConfig,
    seed: &[u8; 32],
    mut client: rustls::ClientConfig,
    mut server: rustls::ServerConfig,
    machine: &impl Machine,
) -> Result<Open, BindError> {
    let (socket, local) = machine.socket(config)?;
    let tls = |error: quinn::crypto::rustls::NoInitialCipherSuite| BindError::Identity(error.to_string());
    machine.settle_tls(&mut client, &mut server);

    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).map_err(tls)?));
    // What everybody may do who dials; `welcome` allows the rest once it is known who that is.
    let mut first = transport(config);
    first
        .max_concurrent_bidi_streams(VarInt::from_u32(STRANGER_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(FIRST_WINDOW_BYTES));
    server
        .transport_config(Arc::new(first))
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_TOTAL_BYTES_MAX);
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).map_err(tls)?));
    client.transport_config(Arc::new(transport(config)));

    let mut endpoint = keys(seed);
    machine.settle_quic(&mut endpoint, &mut server, &mut client);
    let endpoint = Endpoint::new_with_abstract_socket(endpoint, Some(server), socket, Arc::new(TokioRuntime))
        .map_err(|error| BindError::Io { port: config.port, error })?;
    Ok(Open { endpoint, client, local })
}

/// How to dial only to say something: the peer can open no stream.
pub(super) fn mute(config: &NetConfig, client: rustls::ClientConfig) -> Result<ClientConfig, String> {
    let client = QuicClientConfig::try_from(client).map_err(|error| error.to_string())?;
    let mut mute = transport(config);
    // What the peer sent on one would count as delivered.
    mute.max_concurrent_bidi_streams(VarInt::from_u32(0)).max_concurrent_uni_streams(VarInt::from_u32(0));
    let mut client = ClientConfig::new(Arc::new(client));
    client.transport_config(Arc::new(mute));
    Ok(client)
}

/// Lets somebody who has dialled do all that a peer may.
pub(super) fn welcome(connection: &Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS_FIRST));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(STREAMS_FIRST));
    connection.set_receive_window(VarInt::from_u32(WINDOW_BYTES));
}

/// Lets a peer have all the streams of one direction that it may, once it uses several at a time.
pub(super) fn widen(connection: &Connection, dir: Dir) {
    match dir {
        Dir::Bi => connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS_OFFERED)),
        Dir::Uni => connection.set_max_concurrent_uni_streams(VarInt::from_u32(STREAMS_OFFERED)),
    }
}

/// Lets somebody who has dialled do little, for good.
pub(super) fn keep_small(connection: &Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(STRANGER_STREAMS_MAX));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(0));
    connection.set_receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES));
}

/// An address as people write it: IPv4 is not shown as an IPv6 address.
pub(super) fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn socket(config: &NetConfig) -> Result<std::net::UdpSocket, BindError> {
    let port = config.port;
    let any = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let choices = config.bind.as_ref().map_or(&any[..], std::slice::from_ref);
    let mut refused = BindError::Io { port, error: io::ErrorKind::AddrNotAvailable.into() };
    for ip in choices {
        match open_socket(SocketAddr::new(*ip, port)) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                refused = match error.kind() {
                    io::ErrorKind::AddrInUse => return Err(BindError::InUse(port)),
                    io::ErrorKind::PermissionDenied => return Err(BindError::Denied(port)),
                    io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(*ip),
                    _ => BindError::Io { port, error },
                };
            }
        }
    }
    Err(refused)
}

fn open_socket(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.ip() == Ipv6Addr::UNSPECIFIED {
        // One socket for both families, whatever the system's own default is.
        socket.set_only_v6(false)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// quinn gives back the credit of streams that have ended only once it is an eighth of the limit: with this
/// much more, a peer can have `STREAMS_MAX` open at any time.
const STREAMS_OFFERED: u32 = STREAMS_MAX + STREAMS_MAX / 6;
/// What a peer may have at first. quinn keeps a record of each stream that may be opened: of all of them
/// 34 kB a connection, of these 0.5 kB. Those of both directions and two of ours fit a table of 16.
const STREAMS_FIRST: u32 = 6;
/// From so many at a time on a peer may have all. One who never has so many unread opens `STREAMS_FIRST` in a
/// round trip at most.
pub(super) const STREAMS_FEW: u32 = 4;

fn transport(config: &NetConfig) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.max_ack_delay(Some(ACK_DELAY_MAX));
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_FIRST))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_FIRST))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .ack_frequency_config(Some(acks))
        .keep_alive_interval(Some(config.keepalive))
        // A time that QUIC cannot express is longer than anyone waits.
        .max_idle_timeout(Some(IdleTimeout::try_from(config.idle_timeout).unwrap_or(VarInt::MAX.into())));
    transport
}

/// Keys made from the identity, so that after a restart the daemon can tell its peers that their connections
/// are gone.
fn keys(seed: &[u8; 32]) -> EndpointConfig {
    let root = hmac::Key::new(hmac::HMAC_SHA256, seed);
    let derive = |label: &[u8]| hmac::sign(&root, label);
    let reset = derive(b"axon/1 stateless reset");
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref())));
    let ids = derive(b"axon/1 connection id");
    let ids = ids.as_ref().first_chunk().copied().map_or(0, u64::from_be_bytes);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}
