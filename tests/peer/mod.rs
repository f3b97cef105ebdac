//! A peer that speaks protocol v1 by its own hands: quinn, rustls and rcgen, nothing of axon's network code.
//! It keeps the rules only where a test wants it to.
//!
//! Everything here blocks; a thread of its own drives the sockets.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use axon_proto::id::{MsgId, PublicKey};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, ConnectionError, Endpoint, ReadError, ReadToEndError, RecvStream, SendStream};
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, Error, SignatureScheme};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::support::{Daemon, PATIENCE};

pub mod foul;
mod kx;
pub mod pipe;
pub mod served;

/// What a plain v1 peer offers.
pub const V1: &[&str] = &["delegate", "ack", "result", "cancel", "discover", "capabilities"];

/// How a message or a connection ended, other than well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The stream was reset or stopped.
    Reset,
    /// The daemon closed the connection.
    Closed(u64, String),
    /// The handshake failed: a TLS alert, or another word of the transport.
    Refused(String),
    /// Nothing came in time.
    Nothing,
}

impl Fault {
    fn of(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let reason = String::from_utf8_lossy(&close.reason).into_owned();
                Self::Closed(close.error_code.into_inner(), reason)
            }
            ConnectionError::TimedOut => Self::Nothing,
            other => Self::Refused(other.to_string()),
        }
    }
}

/// How the peer shakes hands.
#[derive(Clone)]
pub struct Manners {
    pub groups: Vec<&'static dyn SupportedKxGroup>,
    pub alpn: &'static [u8],
    /// The server name; none is the daemon's id.
    pub name: Option<String>,
    pub shows_certificate: bool,
    /// Shows the certificate of this one, without having its key.
    pub poses_as: Option<Key>,
}

impl Default for Manners {
    fn default() -> Self {
        Self { groups: vec![x25519()], alpn: b"axon/1", name: None, shows_certificate: true, poses_as: None }
    }
}

pub fn x25519() -> &'static dyn SupportedKxGroup {
    rustls::crypto::ring::kx_group::X25519
}

pub fn secp256r1() -> &'static dyn SupportedKxGroup {
    rustls::crypto::ring::kx_group::SECP256R1
}

pub fn hybrid() -> &'static dyn SupportedKxGroup {
    &kx::Hybrid
}

/// An Ed25519 key and a certificate for it.
#[derive(Clone)]
pub struct Key {
    pub id: String,
    pub public: [u8; 32],
    pkcs8: Vec<u8>,
    cert: CertificateDer<'static>,
}

impl Key {
    /// A new key; no two are alike.
    pub fn new() -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        // PKCS #8 around an Ed25519 seed (RFC 8410).
        let mut pkcs8 = vec![
            0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
        ];
        pkcs8.extend(seed);
        let pair = rcgen::KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8.clone())).unwrap();
        let key = PublicKey(pair.public_key_raw().try_into().unwrap());
        let params = rcgen::CertificateParams::new(vec!["anything".to_owned()]).unwrap();
        let cert = params.self_signed(&pair).unwrap().der().clone();
        Self { id: key.agent_id().to_string(), public: key.0, pkcs8, cert }
    }
}

/// A key of its own and a UDP socket.
pub struct RawPeer {
    pub id: String,
    pub pubkey: String,
    pub port: u16,
    pub key: Key,
    endpoint: Endpoint,
    /// With tickets of earlier connections.
    client: quinn::ClientConfig,
    runtime: Handle,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl RawPeer {
    /// A peer with a new key; no two are alike.
    pub fn new() -> Self {
        Self::at("127.0.0.1")
    }

    /// The same at another address of this machine.
    pub fn at(ip: &str) -> Self {
        Self::with(Key::new(), ip)
    }

    /// Another one with the same key, and without its tickets.
    pub fn twin(&self) -> Self {
        Self::with(self.key.clone(), "127.0.0.1")
    }

    fn with(key: Key, ip: &str) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tell.send(runtime.handle().clone()).unwrap();
            let _ = runtime.block_on(stopped);
        });
        let runtime: Handle = told.recv().unwrap();
        let endpoint = {
            let _inside = runtime.enter();
            let socket = UdpSocket::bind((ip, 0)).unwrap();
            let server = server_config(&key);
            let runtime = Arc::new(quinn::TokioRuntime);
            Endpoint::new(quinn::EndpointConfig::default(), Some(server), socket, runtime).unwrap()
        };
        let port = endpoint.local_addr().unwrap().port();
        let client = client_config(&key, &Manners::default());
        let (id, pubkey) = (key.id.clone(), PublicKey(key.public).to_string());
        Self { id, pubkey, port, key, endpoint, client, runtime, _stop: stop }
    }

    /// Itself as a `[[peers]]` entry.
    pub fn entry(&self) -> String {
        let (id, key, port) = (&self.id, &self.pubkey, self.port);
        format!("\n[[peers]]\nagent_id = \"{id}\"\npubkey = \"{key}\"\naddr = \"127.0.0.1:{port}\"\n")
    }

    /// The same with a name, and with an address where nothing answers: nobody dials it for long.
    pub fn quiet_entry(&self, name: &str) -> String {
        let (id, key) = (&self.id, &self.pubkey);
        let head = format!("\n[[peers]]\nname = \"{name}\"\nagent_id = \"{id}\"\n");
        format!("{head}pubkey = \"{key}\"\naddr = \"127.0.0.1:9\"\n")
    }

    /// A daemon that knows this peer.
    pub fn daemon(&self, config: &str) -> Daemon {
        Daemon::start(&format!("{config}{}", self.entry()))
    }

    /// A handshake, and no hello. It may look well although the daemon has refused: the first stream shows.
    pub fn dial_as(&self, daemon: &Daemon, manners: &Manners) -> Result<Link, Fault> {
        let config = client_config(&self.key, manners);
        self.dial_with(daemon, config, manners.name.as_deref())
    }

    pub fn dial(&self, daemon: &Daemon) -> Link {
        self.dial_with(daemon, self.client.clone(), None).expect("the handshake succeeds")
    }

    fn dial_with(
        &self,
        daemon: &Daemon,
        config: quinn::ClientConfig,
        name: Option<&str>,
    ) -> Result<Link, Fault> {
        let addr = address(daemon);
        let name = name.unwrap_or(daemon.id());
        let connection = self.wait(async {
            let connecting = self.endpoint.connect_with(config, addr, name).unwrap();
            connecting.await.map_err(Fault::of)
        })??;
        Ok(self.link(connection, daemon))
    }

    /// The same with a ticket of an earlier connection, sending these messages in 0-RTT, each on its stream.
    /// Yields the connection once the handshake is done, whether the early data was taken, and the answers.
    #[allow(clippy::type_complexity)]
    pub fn dial_early(
        &self,
        daemon: &Daemon,
        messages: &[Value],
    ) -> (Link, bool, Vec<Result<Vec<u8>, Fault>>) {
        self.dial_early_at(daemon, address(daemon), messages)
    }

    /// The same, over whoever passes it on at this address.
    #[allow(clippy::type_complexity)]
    pub fn dial_early_at(
        &self,
        daemon: &Daemon,
        addr: SocketAddr,
        messages: &[Value],
    ) -> (Link, bool, Vec<Result<Vec<u8>, Fault>>) {
        let dialled = self.wait(async {
            let connecting = self.endpoint.connect_with(self.client.clone(), addr, daemon.id()).unwrap();
            let Ok((connection, taken)) = connecting.into_0rtt() else { panic!("no ticket to resume with") };
            let mut streams = Vec::new();
            for message in messages {
                // A daemon that refuses the peer may have closed the connection already: no answer then.
                let Ok((mut send, recv)) = connection.open_bi().await else { break };
                if send.write_all(message.to_string().as_bytes()).await.is_err() {
                    break;
                }
                send.finish().ok();
                streams.push(recv);
            }
            let taken = taken.await;
            let mut answers = Vec::new();
            for mut recv in streams {
                // Where nothing early was taken, what was said once the handshake was done was not early.
                if taken || recv.is_0rtt() {
                    answers.push(read(&mut recv).await);
                }
            }
            (connection, taken, answers)
        });
        let (connection, taken, answers) = dialled.expect("the early handshake ends");
        (self.link(connection, daemon), taken, answers)
    }

    /// Goes on from another port, as behind a NAT that has forgotten it; gives the port.
    pub fn moves(&self) -> u16 {
        let _inside = self.runtime.enter();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        self.endpoint.rebind(socket).unwrap();
        port
    }

    /// Waits for a connection that the daemon dials.
    pub fn accept(&self, daemon: &Daemon) -> Result<Link, Fault> {
        let connection = self.wait(async {
            let incoming = self.endpoint.accept().await.unwrap();
            incoming.accept().unwrap().await.map_err(Fault::of)
        });
        Ok(self.link(connection??, daemon))
    }

    /// Begins many handshakes that will never end: towards a relay that passes on only what we say.
    pub fn half_open(&self, daemon: &Daemon, count: usize) -> HalfOpen {
        let relay = UdpSocket::bind("127.0.0.1:0").unwrap();
        let out = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = address(daemon);
        let addr = relay.local_addr().unwrap();
        relay.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let ended = Arc::clone(&done);
        let passed = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count_passed = Arc::clone(&passed);
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 2_048];
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                if let Ok(bytes) = relay.recv(&mut packet) {
                    out.send_to(&packet[..bytes], to).unwrap();
                    // No faster than the daemon takes them out of its socket.
                    std::thread::sleep(Duration::from_millis(1));
                    count_passed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
        });
        let _inside = self.runtime.enter();
        let mut begun = Vec::new();
        while begun.len() < count {
            let one = || self.endpoint.connect_with(self.client.clone(), addr, daemon.id()).unwrap();
            begun.extend((0..20).map(|_| one()));
            // A burst would be lost in the kernel, and come again a second later.
            crate::support::wait_for("the relay", || {
                (passed.load(std::sync::atomic::Ordering::Relaxed) >= begun.len()).then_some(())
            });
        }
        HalfOpen { _begun: begun, done, passed, thread: Some(thread) }
    }

    fn link(&self, connection: Connection, daemon: &Daemon) -> Link {
        let (me, daemon) = (self.id.clone(), daemon.id().to_owned());
        Link { connection, me, daemon, runtime: self.runtime.clone() }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, Fault> {
        wait(&self.runtime, future)
    }
}

/// Handshakes that never end.
pub struct HalfOpen {
    _begun: Vec<quinn::Connecting>,
    done: Arc<std::sync::atomic::AtomicBool>,
    passed: Arc<std::sync::atomic::AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl HalfOpen {
    /// Packets that the daemon was sent.
    pub fn packets(&self) -> usize {
        self.passed.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.done.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// One connection with a daemon.
#[derive(Clone)]
pub struct Link {
    pub connection: Connection,
    pub me: String,
    pub daemon: String,
    runtime: Handle,
}

/// A stream that is open at this side.
pub struct Half {
    pub send: SendStream,
    recv: RecvStream,
    runtime: Handle,
}

impl Half {
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        wait(&self.runtime, self.send.write_all(bytes))?.map_err(|_| Fault::Reset)
    }

    pub fn finish(&mut self) {
        self.send.finish().unwrap();
    }

    /// The whole answer.
    pub fn read(&mut self) -> Result<Vec<u8>, Fault> {
        wait(&self.runtime, read(&mut self.recv))?
    }

    /// Waits until the daemon wants no more of it.
    pub fn stopped(&mut self) -> bool {
        matches!(wait(&self.runtime, self.send.stopped()), Ok(Ok(Some(_))))
    }
}

/// A request of the daemon, to be answered.
pub struct Request {
    pub envelope: Value,
    pub send: SendStream,
}

impl Link {
    /// An envelope of this peer.
    pub fn envelope(&self, kind: &str, payload: Value) -> Value {
        let (id, ts) = (new_id(), unix_ms());
        json!({"v":1,"id":id,"from":self.me,"to":self.daemon,"ts":ts,"kind":kind,"payload":payload})
    }

    /// Hello as a plain v1 peer says it: no boot, no features of axon's own.
    pub fn hello(&self) -> Value {
        self.envelope("hello", json!({"protocol_versions":[1],"agent_name":"raw","features":V1}))
    }

    /// Says hello and yields the daemon's.
    pub fn greet(&self) -> Result<Value, Fault> {
        self.ask(&self.hello())
    }

    pub fn greeted(self) -> Self {
        let hello = self.greet().expect("hello is answered");
        assert_eq!(hello["kind"], "hello", "{hello}");
        self
    }

    /// Says hello as a peer that gives receipts and asks for them; yields what the daemon offers, too.
    pub fn receipting(self) -> (Self, Value) {
        let features = [V1, &["progress", "receipt"]].concat();
        let hello = json!({"protocol_versions":[1],"agent_name":"raw","features":features});
        let answer = self.ask(&self.envelope("hello", hello)).expect("hello is answered");
        assert_eq!(answer["kind"], "hello", "{answer}");
        (self, answer["payload"]["features"].clone())
    }

    /// Sends one way and asks for the receipt, which must come.
    pub fn receipted(&self, envelope: &Value) {
        let answer = self.ask(envelope).expect("a receipt");
        assert_eq!((&answer["kind"], &answer["ref"]), (&json!("ack"), &envelope["id"]), "{answer}");
        assert_eq!(answer["payload"], json!({"accepted":true}));
    }

    /// A notify that carries this number.
    pub fn note(&self, n: u64) -> Value {
        self.envelope("notify", json!({"topic":"t","data":n}))
    }

    /// Sends a request and awaits the answer.
    pub fn ask(&self, envelope: &Value) -> Result<Value, Fault> {
        let bytes = self.ask_raw(envelope.to_string().as_bytes())?;
        Ok(serde_json::from_slice(&bytes).expect("the answer is JSON"))
    }

    pub fn ask_raw(&self, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut half = self.open()?;
        // Whoever wants no more of it may still answer.
        if half.write(bytes).is_ok() {
            half.finish();
        }
        half.read()
    }

    /// The code of the error that answers.
    pub fn refusal(&self, envelope: &Value) -> String {
        let answer = self.ask(envelope).expect("an answer");
        assert_eq!((&answer["kind"], &answer["ref"]), (&json!("error"), &envelope["id"]), "{answer}");
        assert_eq!((&answer["from"], &answer["to"]), (&json!(self.daemon), &json!(self.me)));
        answer["payload"]["code"].as_str().unwrap().to_owned()
    }

    pub fn open(&self) -> Result<Half, Fault> {
        let (send, recv) = wait(&self.runtime, self.connection.open_bi())?.map_err(Fault::of)?;
        Ok(Half { send, recv, runtime: self.runtime.clone() })
    }

    /// Sends one way, and waits until the transport has acknowledged it.
    pub fn tell(&self, envelope: &Value) {
        self.tell_raw(envelope.to_string().as_bytes());
    }

    pub fn tell_raw(&self, bytes: &[u8]) {
        wait(&self.runtime, async {
            let mut send = self.connection.open_uni().await.unwrap();
            if send.write_all(bytes).await.is_ok() {
                send.finish().unwrap();
                let _ = send.stopped().await;
            }
        })
        .unwrap();
    }

    /// The next request of the daemon.
    pub fn request(&self) -> Request {
        let (send, bytes) = wait(&self.runtime, async {
            let (send, mut recv) = self.connection.accept_bi().await.unwrap();
            (send, read(&mut recv).await.unwrap())
        })
        .expect("a request");
        Request { envelope: serde_json::from_slice(&bytes).unwrap(), send }
    }

    /// The next one-way message of the daemon.
    pub fn one_way(&self) -> Value {
        let bytes = wait(&self.runtime, async {
            let mut recv = self.connection.accept_uni().await.unwrap();
            read(&mut recv).await.unwrap()
        });
        serde_json::from_slice(&bytes.expect("a one-way message")).unwrap()
    }

    /// Answers a request of the daemon.
    pub fn answer(&self, mut request: Request, kind: &str, payload: Value) {
        let mut answer = self.envelope(kind, payload);
        answer["ref"] = request.envelope["id"].clone();
        self.say(&mut request, answer.to_string().as_bytes());
    }

    /// Puts these bytes where the answer belongs.
    pub fn say(&self, request: &mut Request, bytes: &[u8]) {
        wait(&self.runtime, async {
            if request.send.write_all(bytes).await.is_ok() {
                request.send.finish().unwrap();
                let _ = request.send.stopped().await;
            }
        })
        .unwrap();
    }

    /// Takes the daemon's hello and answers it.
    pub fn answer_hello(&self) -> Value {
        let request = self.request();
        let hello = request.envelope.clone();
        assert_eq!(hello["kind"], "hello", "{hello}");
        self.answer(request, "hello", json!({"protocol_versions":[1],"selected_version":1,"features":V1}));
        hello
    }

    /// Waits for the daemon to close the connection: code and reason.
    pub fn closed(&self) -> Fault {
        match wait(&self.runtime, self.connection.closed()) {
            Ok(error) => Fault::of(error),
            Err(nothing) => nothing,
        }
    }

    pub fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    pub fn close(&self) {
        self.connection.close(0u32.into(), b"done");
    }
}

fn wait<T>(runtime: &Handle, future: impl Future<Output = T>) -> Result<T, Fault> {
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.map_err(|_| Fault::Nothing) })
}

async fn read(recv: &mut RecvStream) -> Result<Vec<u8>, Fault> {
    recv.read_to_end(100_000).await.map_err(|error| match error {
        ReadToEndError::Read(ReadError::ConnectionLost(error)) => Fault::of(error),
        _ => Fault::Reset,
    })
}

pub fn new_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    MsgId::from_random(bytes).to_string()
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn provider(groups: &[&'static dyn SupportedKxGroup]) -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.kx_groups = groups.to_vec();
    Arc::new(provider)
}

fn address(daemon: &Daemon) -> SocketAddr {
    format!("127.0.0.1:{}", daemon.port()).parse().unwrap()
}

fn client_config(key: &Key, manners: &Manners) -> quinn::ClientConfig {
    quinn::ClientConfig::new(Arc::new(tls_config(key, manners)))
}

fn tls_config(key: &Key, manners: &Manners) -> QuicClientConfig {
    let config = rustls::ClientConfig::builder_with_provider(provider(&manners.groups))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let signs = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.pkcs8.clone()));
    let mut config = match &manners.poses_as {
        Some(other) => config.with_client_cert_resolver(foul::borrowed(&other.cert, &signs)),
        None if manners.shows_certificate => {
            config.with_client_auth_cert(vec![key.cert.clone()], signs).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![manners.alpn.to_vec()];
    config.enable_early_data = true;
    QuicClientConfig::try_from(config).unwrap()
}

fn server_config(key: &Key) -> quinn::ServerConfig {
    let signs = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.pkcs8.clone()));
    let mut config = rustls::ServerConfig::builder_with_provider(provider(&[x25519()]))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Anybody))
        .with_single_cert(vec![key.cert.clone()], signs)
        .unwrap();
    config.alpn_protocols = vec![b"axon/1".to_vec()];
    quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()))
}

/// Takes every certificate: what the daemon checks is what is tested.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".into()))
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".into()))
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
