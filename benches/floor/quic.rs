//! QUIC as it comes: quinn's own settings, TLS 1.3 with both sides checked, ring's ciphers in the order that
//! the daemon has.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;

use super::figures::{Figures, Seen};
use super::plain::{ask_lines, echo_lines, runtime};
use super::procs::{ready, used_here_ns, used_ns};
use super::slots::line;

/// Bytes of one message, at the most.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The first byte of a stream that carries many lines; a stream of one message begins with another.
const MANY: u8 = b'*';

pub fn port(text: &str) -> u16 {
    text.parse().expect("a port is a number")
}

/// A key and its certificate, in a folder that all roles read: each side trusts this one alone.
pub fn make_keys(folder: &Path) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("ring makes keys");
    let params = rcgen::CertificateParams::new(vec!["floor".to_owned()]).expect("a name is a name");
    let cert = params.self_signed(&key).expect("a key signs");
    std::fs::write(folder.join("key"), key.serialize_der()).expect("the folder is there");
    std::fs::write(folder.join("cert"), cert.der()).expect("the folder is there");
}

struct Keys {
    provider: Arc<rustls::crypto::CryptoProvider>,
    roots: Arc<rustls::RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Keys {
    fn read(folder: &str) -> Self {
        let read = |name| std::fs::read(Path::new(folder).join(name)).expect("the keys are made");
        let cert = CertificateDer::from(read("cert"));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert.clone()).expect("a certificate");
        Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            roots: Arc::new(roots),
            chain: vec![cert],
            key: PrivatePkcs8KeyDer::from(read("key")).into(),
        }
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(1_024_u32.into());
    Arc::new(transport)
}

/// An endpoint that listens on a free port.
pub fn listen(folder: &str) -> Endpoint {
    let keys = Keys::read(folder);
    let clients = WebPkiClientVerifier::builder_with_provider(keys.roots, Arc::clone(&keys.provider));
    let tls = rustls::ServerConfig::builder_with_provider(keys.provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .with_client_cert_verifier(clients.build().expect("there is a root"))
        .with_single_cert(keys.chain, keys.key)
        .expect("the key fits its certificate");
    let tls = QuicServerConfig::try_from(tls).expect("ring has QUIC's first cipher");
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(transport());
    Endpoint::server(config, loopback(0)).expect("a free port")
}

/// A connection to such an endpoint.
pub async fn connect(port: u16, folder: &str) -> (Endpoint, Connection) {
    let keys = Keys::read(folder);
    let tls = rustls::ClientConfig::builder_with_provider(keys.provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .with_root_certificates(keys.roots)
        .with_client_auth_cert(keys.chain, keys.key)
        .expect("the key fits its certificate");
    let tls = QuicClientConfig::try_from(tls).expect("ring has QUIC's first cipher");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(transport());
    let endpoint = Endpoint::client(loopback(0)).expect("a free port");
    let connecting = endpoint.connect_with(config, loopback(port), "floor").expect("a good address");
    let connection = connecting.await.expect("the server takes the handshake");
    // Packets are as large as they will be once the path's size is known.
    tokio::time::sleep(Duration::from_millis(200)).await;
    (endpoint, connection)
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Sends on a stream of its own, and reads what comes back.
pub async fn exchange(connection: &Connection, message: &[u8]) -> Option<Vec<u8>> {
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    send.write_all(message).await.ok()?;
    send.finish().ok()?;
    recv.read_to_end(MESSAGE_BYTES_MAX).await.ok()
}

/// Gives back each message, whether it has a stream of its own or shares one.
pub fn serve_echo(folder: &str) {
    runtime().block_on(async {
        let endpoint = listen(folder);
        ready(endpoint.local_addr().expect("it listens").port());
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok((send, recv)) = connection.accept_bi().await {
                    tokio::spawn(echo_stream(send, recv));
                }
            });
        }
    });
}

async fn echo_stream(mut send: SendStream, mut recv: RecvStream) {
    let mut first = [0];
    if recv.read_exact(&mut first).await.is_err() {
        return;
    }
    if first[0] == MANY {
        return echo_lines(recv, send).await;
    }
    let Ok(mut message) = recv.read_to_end(MESSAGE_BYTES_MAX).await else { return };
    message.insert(0, first[0]);
    if send.write_all(&message).await.is_ok() {
        send.finish().ok();
    }
}

/// A stream for each message.
pub fn ask_bi(
    port: u16,
    folder: &str,
    size: usize,
    in_flight: usize,
    time: Duration,
    pids: &[u32],
) -> Figures {
    runtime().block_on(async {
        let (_endpoint, connection) = connect(port, folder).await;
        let message: Arc<[u8]> = line(0, size).into();
        let mut figures = None;
        for (time, pids) in [(time / 10, &[][..]), (time, pids)] {
            let mut seen = Seen::begin(used_here_ns() + used_ns(pids));
            let began = Instant::now();
            let askers: Vec<_> = (0..in_flight)
                .map(|_| {
                    let (connection, message) = (connection.clone(), Arc::clone(&message));
                    tokio::spawn(async move {
                        let mut took = Vec::new();
                        while began.elapsed() < time {
                            let sent = Instant::now();
                            let answer = exchange(&connection, &message).await;
                            assert_eq!(answer.as_deref(), Some(&*message), "it comes back as it was");
                            took.push(sent.elapsed());
                        }
                        took
                    })
                })
                .collect();
            for asker in askers {
                asker.await.expect("it ends").into_iter().for_each(|took| seen.add(took));
            }
            figures = Some(seen.end(used_here_ns() + used_ns(pids)));
        }
        figures.expect("it was measured twice")
    })
}

/// One stream for all.
pub fn ask_one_stream(
    port: u16,
    folder: &str,
    size: usize,
    in_flight: usize,
    time: Duration,
    pids: &[u32],
) -> Figures {
    runtime().block_on(async {
        let (_endpoint, connection) = connect(port, folder).await;
        let (mut send, recv) = connection.open_bi().await.expect("the server takes streams");
        send.write_all(&[MANY]).await.expect("the server reads");
        ask_lines(recv, send, size, in_flight, time, pids).await
    })
}
