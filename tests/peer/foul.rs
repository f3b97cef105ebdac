//! What a peer does that means harm: by the thousand, with what is another's, and against the protocol below.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::crypto::{ClientConfig, ExportKeyingMaterialError, KeyPair, Keys, PacketKey, Session};
use quinn::{Connection, ConnectionError, ReadError, ReadToEndError, StoppedError};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};
use ring::{digest, hmac};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Fault, Key, Link, Manners, RawPeer, address, client_config, tls_config, wait};
use crate::support::{Daemon, PATIENCE};

/// How a connection ended, by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A TLS alert (RFC 8446, 6.2).
    Alert(u8),
    /// Another error of the transport.
    Transport(u64),
    /// By the application: code and reason.
    Closed(u64, String),
    /// In another way.
    Other(String),
}

impl From<ConnectionError> for End {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ConnectionClosed(close) => match u64::from(close.error_code) {
                code @ 0x100..=0x1ff => Self::Alert((code & 0xff) as u8),
                code => Self::Transport(code),
            },
            ConnectionError::ApplicationClosed(close) => {
                let reason = String::from_utf8_lossy(&close.reason).into_owned();
                Self::Closed(close.error_code.into_inner(), reason)
            }
            other => Self::Other(other.to_string()),
        }
    }
}

impl Display for End {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert(code) => write!(f, "alert {code}"),
            Self::Transport(code) => write!(f, "transport error {code}"),
            Self::Closed(code, reason) => write!(f, "closed {code}: {reason}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// What came of many attempts, and how often.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally(pub BTreeMap<String, u64>);

impl Tally {
    pub fn add(&mut self, outcome: impl Display) {
        *self.0.entry(outcome.to_string()).or_default() += 1;
    }

    pub fn join(&mut self, other: Self) {
        other.0.into_iter().for_each(|(outcome, count)| *self.0.entry(outcome).or_default() += count);
    }

    pub fn of(&self, outcome: &str) -> u64 {
        self.0.get(outcome).copied().unwrap_or_default()
    }

    pub fn all(&self) -> u64 {
        self.0.values().sum()
    }

    /// There were at least so many, and nothing but these came of them.
    #[track_caller]
    pub fn only(self, least: u64, outcomes: &[&str]) -> Self {
        let known = |outcome: &String| outcomes.iter().any(|known| outcome.starts_with(known));
        assert!(self.0.keys().all(known), "{self:?}, and not only {outcomes:?}");
        assert!(self.all() >= least, "{self:?}: fewer than {least}");
        self
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        f.write_str(&parts.join(", "))
    }
}

/// What one request came to: the kind of the answer, and the code or the decision in it; or how it ended.
async fn exchange(connection: &Connection, bytes: &[u8]) -> String {
    let (mut send, mut recv) = match connection.open_bi().await {
        Ok(halves) => halves,
        Err(error) => return End::from(error).to_string(),
    };
    // Whoever wants no more of it may still answer.
    if send.write_all(bytes).await.is_ok() {
        send.finish().ok();
    }
    match recv.read_to_end(100_000).await {
        Ok(bytes) => outcome(&bytes),
        Err(ReadToEndError::Read(ReadError::Reset(code))) => format!("reset {code}"),
        Err(ReadToEndError::Read(ReadError::ConnectionLost(error))) => End::from(error).to_string(),
        Err(other) => other.to_string(),
    }
}

fn outcome(bytes: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(bytes).expect("the answer is JSON");
    let payload = &answer["payload"];
    let word = |field: &str| payload[field].as_str().unwrap_or_default().to_owned();
    match answer["kind"].as_str().unwrap() {
        "error" => format!("error {}", word("code")),
        "admission" if payload["reason"].is_string() => format!("{}: {}", word("decision"), word("reason")),
        "admission" => word("decision"),
        kind => kind.to_owned(),
    }
}

impl Link {
    /// Asks again and again, on so many streams at once, until then. The maker is given a running number.
    pub fn flood(
        &self,
        until: Instant,
        width: usize,
        make: impl Fn(&Link, u64) -> Vec<u8> + Send + Sync + 'static,
    ) -> Tally {
        let (make, next) = (Arc::new(make), Arc::new(AtomicU64::new(0)));
        self.runtime.block_on(async {
            let mut workers = JoinSet::new();
            for _ in 0..width {
                let (link, make, next) = (self.clone(), Arc::clone(&make), Arc::clone(&next));
                workers.spawn(async move {
                    let mut tally = Tally::default();
                    while Instant::now() < until && link.is_open() {
                        let bytes = make(&link, next.fetch_add(1, Ordering::Relaxed));
                        tally.add(exchange(&link.connection, &bytes).await);
                    }
                    tally
                });
            }
            gather(workers, until).await
        })
    }

    /// One request: what it came to.
    pub fn outcome(&self, envelope: &Value) -> String {
        wait(&self.runtime, exchange(&self.connection, envelope.to_string().as_bytes())).expect("an end")
    }

    /// The daemon's certificate, as this side was shown it; without its key.
    pub fn shown(&self) -> Key {
        let chain = self.connection.peer_identity().unwrap();
        let chain = chain.downcast::<Vec<CertificateDer<'static>>>().unwrap();
        Key { cert: chain[0].clone(), ..Key::new() }
    }

    /// Waits for the end of the connection. UDP may lose the packet that tells of it: whoever hears nothing
    /// says something now and then, as any daemon does that waits for an answer, and is told once more.
    pub fn end(&self) -> End {
        let ended = async {
            loop {
                let closed = self.connection.closed();
                match tokio::time::timeout(Duration::from_millis(500), closed).await {
                    Ok(end) => return end.into(),
                    // Without room for one, others of ours are still on their way.
                    Err(_) => drop(tokio::time::timeout(Duration::ZERO, self.connection.open_uni()).await),
                }
            }
        };
        wait(&self.runtime, ended).expect("an end")
    }

    /// Waits until it is cut off, in a flood: quinn holds the closing packet back while more is under way
    /// than the congestion window takes, and then forgets it; UDP may also lose it. The next packets of ours
    /// are answered by a stateless reset.
    pub fn cut_off(&self, why: &str) {
        let end = self.end();
        let reset = ConnectionError::Reset.to_string();
        assert!(end == End::Closed(0, why.to_owned()) || end == End::Other(reset), "{end}");
    }

    /// Writes into one stream for as long as it is read: how many bytes, and the code that stopped it.
    pub fn endless(&self) -> (usize, String) {
        let written = wait(&self.runtime, async {
            let (mut send, _recv) = self.connection.open_bi().await.unwrap();
            let mut bytes = 0;
            loop {
                match send.write_all(&[b' '; 4_096]).await {
                    Ok(()) => bytes += 4_096,
                    Err(quinn::WriteError::Stopped(code)) => return (bytes, format!("stopped {code}")),
                    Err(other) => return (bytes, other.to_string()),
                }
            }
        });
        written.expect("somebody stops it")
    }

    /// Opens this many streams, as far as that is allowed, and finishes none: what became of them.
    pub fn unfinished(&self, count: usize, begin: &'static [u8]) -> Tally {
        let until = Instant::now();
        self.runtime.block_on(async {
            let mut workers = JoinSet::new();
            for _ in 0..count {
                let connection = self.connection.clone();
                workers.spawn(async move {
                    let mut tally = Tally::default();
                    let opening = tokio::time::timeout(Duration::from_millis(300), connection.open_bi());
                    let Ok(Ok((mut send, _recv))) = opening.await else {
                        tally.add("not allowed");
                        return tally;
                    };
                    drop(send.write_all(begin).await);
                    tally.add(match send.stopped().await {
                        Ok(Some(code)) => format!("stopped {code}"),
                        Err(StoppedError::ConnectionLost(error)) => End::from(error).to_string(),
                        other => format!("{other:?}"),
                    });
                    tally
                });
            }
            gather(workers, until).await
        })
    }

    /// Whether one more stream may be opened within a moment.
    pub fn may_open(&self, both_ways: bool) -> bool {
        let moment = Duration::from_millis(200);
        self.runtime.block_on(async {
            if both_ways {
                tokio::time::timeout(moment, self.connection.open_bi()).await.is_ok()
            } else {
                tokio::time::timeout(moment, self.connection.open_uni()).await.is_ok()
            }
        })
    }

    /// Sends many one-way messages, without waiting for any to arrive; false when the connection has ended.
    pub fn pour(&self, messages: &[Vec<u8>]) -> bool {
        let sent = wait(&self.runtime, async {
            for bytes in messages {
                let Ok(mut send) = self.connection.open_uni().await else { return false };
                if send.write_all(bytes).await.is_err() {
                    return false;
                }
                send.finish().ok();
            }
            true
        });
        sent == Ok(true)
    }

    /// Answers all queries of the daemon with this payload, until the connection ends.
    pub fn serve(&self, payload: impl Fn(&Value) -> Value) {
        self.runtime.block_on(async {
            while let Ok((mut send, mut recv)) = self.connection.accept_bi().await {
                let Ok(bytes) = recv.read_to_end(100_000).await else { continue };
                let request: Value = serde_json::from_slice(&bytes).unwrap();
                let mut answer = self.envelope("response", payload(&request));
                answer["ref"] = request["id"].clone();
                if send.write_all(answer.to_string().as_bytes()).await.is_ok() {
                    send.finish().ok();
                }
            }
        });
    }

    /// A knock with this payload: what is said to it.
    pub fn knock(&self, payload: Value) -> Value {
        let answer = self.ask(&self.envelope("knock", payload)).expect("an answer to a knock");
        assert_eq!(answer["kind"], "admission", "{answer}");
        answer["payload"].clone()
    }
}

async fn gather(mut workers: JoinSet<Tally>, until: Instant) -> Tally {
    let mut tally = Tally::default();
    let all = async {
        while let Some(done) = workers.join_next().await {
            tally.join(done.unwrap());
        }
    };
    let late = (until + PATIENCE).into();
    assert!(tokio::time::timeout_at(late, all).await.is_ok(), "not all came to an end; so far {tally}");
    tally
}

impl RawPeer {
    /// A connection by this key over this peer's socket, with its hello answered; or how it ended.
    pub fn enter(&self, daemon: &Daemon, key: &Key) -> Result<(Link, Value), End> {
        let link = self.connect(daemon, key, &Manners::default())?;
        match link.greet() {
            Ok(hello) => Ok((link, hello)),
            Err(Fault::Nothing) => panic!("hello is not answered"),
            Err(_) => Err(link.end()),
        }
    }

    /// A handshake with the tickets of earlier connections.
    pub fn try_dial(&self, daemon: &Daemon) -> Result<Link, End> {
        let (config, to) = (self.client.clone(), address(daemon));
        let connecting = async { self.endpoint.connect_with(config, to, daemon.id()).unwrap().await };
        Ok(self.link(self.wait(connecting).expect("the handshake ends")?, daemon))
    }

    /// A handshake that must fail: how.
    pub fn shut_out(&self, daemon: &Daemon, key: &Key, manners: &Manners) -> End {
        match self.connect(daemon, key, manners) {
            Err(end) => end,
            // A client has done its part before the server has looked at its certificate.
            Ok(link) => link.end(),
        }
    }

    fn connect(&self, daemon: &Daemon, key: &Key, manners: &Manners) -> Result<Link, End> {
        let config = client_config(key, manners);
        let name = manners.name.clone().unwrap_or_else(|| daemon.id().to_owned());
        let connecting = async { self.endpoint.connect_with(config, address(daemon), &name).unwrap().await };
        let connection = self.wait(connecting).expect("the handshake ends")?;
        Ok(Link { me: key.id.clone(), ..self.link(connection, daemon) })
    }

    /// A handshake that offers TLS 1.2, and nothing else: how it ended.
    pub fn offer_tls12(&self, daemon: &Daemon) -> End {
        let tls = Arc::new(tls_config(&self.key, &Manners::default()));
        let config = quinn::ClientConfig::new(Arc::new(Older(tls)));
        let dialled = self
            .wait(async { self.endpoint.connect_with(config, address(daemon), daemon.id()).unwrap().await });
        match dialled.expect("the handshake ends") {
            Err(error) => error.into(),
            Ok(_) => End::Other("TLS 1.2 is spoken here".into()),
        }
    }

    /// Dials again and again, so many at once, until then, and says this on each connection; what all of it
    /// came to. Whoever says nothing waits for the end.
    pub fn visits(
        &self,
        daemon: &Daemon,
        until: Instant,
        width: usize,
        manners: impl Fn() -> (Key, Manners) + Send + Sync + 'static,
        says: impl Fn(&Link) -> Vec<Value> + Send + Sync + 'static,
    ) -> Tally {
        let (manners, says) = (Arc::new(manners), Arc::new(says));
        let (to, id) = (address(daemon), daemon.id().to_owned());
        self.runtime.block_on(async {
            let mut workers = JoinSet::new();
            for _ in 0..width {
                let (manners, says, id) = (Arc::clone(&manners), Arc::clone(&says), id.clone());
                let (endpoint, runtime) = (self.endpoint.clone(), self.runtime.clone());
                workers.spawn(async move {
                    let mut tally = Tally::default();
                    while Instant::now() < until {
                        let (key, how) = manners();
                        let name = how.name.clone().unwrap_or_else(|| id.clone());
                        let config = client_config(&key, &how);
                        let connection = match endpoint.connect_with(config, to, &name).unwrap().await {
                            Ok(connection) => connection,
                            Err(error) => {
                                tally.add(End::from(error));
                                continue;
                            }
                        };
                        let (me, daemon) = (key.id.clone(), id.clone());
                        let link = Link { connection, me, daemon, runtime: runtime.clone() };
                        let messages = says(&link);
                        if messages.is_empty() {
                            let ended = tokio::time::timeout(PATIENCE, link.connection.closed()).await;
                            tally.add(End::from(ended.expect("an end")));
                        }
                        for message in messages {
                            if link.is_open() {
                                let bytes = message.to_string();
                                tally.add(exchange(&link.connection, bytes.as_bytes()).await);
                            }
                        }
                        link.close();
                    }
                    tally
                });
            }
            gather(workers, until).await
        })
    }
}

// --- another's certificate ---

#[derive(Debug)]
struct Borrowed(Arc<CertifiedKey>);

/// Shows a certificate whose key it does not have, and signs with its own.
pub fn borrowed(cert: &CertificateDer<'static>, signs: &PrivateKeyDer<'_>) -> Arc<dyn ResolvesClientCert> {
    let signs = rustls::crypto::ring::sign::any_eddsa_type(match signs {
        PrivateKeyDer::Pkcs8(key) => key,
        _ => panic!("keys are PKCS #8 here"),
    });
    Arc::new(Borrowed(Arc::new(CertifiedKey::new(vec![cert.clone()], signs.unwrap()))))
}

impl ResolvesClientCert for Borrowed {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

// --- another version ---

/// A client that offers TLS 1.2 where rustls offers TLS 1.3: QUIC has no such thing.
struct Older(Arc<QuicClientConfig>);

impl ClientConfig for Older {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let session = Arc::clone(&self.0).start_session(version, server_name, params)?;
        Ok(Box::new(OlderSession(session)))
    }
}

struct OlderSession(Box<dyn Session>);

impl Session for OlderSession {
    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let begun = buf.len();
        let keys = self.0.write_handshake(buf);
        // The extension supported_versions (RFC 8446, 4.2.1) with TLS 1.3 as all there is.
        let supported = [0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04];
        if let Some(at) = buf[begun..].windows(supported.len()).position(|window| window == supported) {
            buf[begun + at + supported.len() - 1] = 0x03;
        }
        keys
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.0.initial_keys(dst_cid, side)
    }
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.0.handshake_data()
    }
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.0.peer_identity()
    }
    fn early_crypto(&self) -> Option<(Box<dyn quinn::crypto::HeaderKey>, Box<dyn PacketKey>)> {
        self.0.early_crypto()
    }
    fn early_data_accepted(&self) -> Option<bool> {
        self.0.early_data_accepted()
    }
    fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.0.read_handshake(buf)
    }
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.0.transport_parameters()
    }
    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.0.next_1rtt_keys()
    }
    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.0.is_valid_retry(orig_dst_cid, header, payload)
    }
    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.0.export_keying_material(output, label, context)
    }
}

/// Offers a version of QUIC: those that the daemon speaks instead, if it names any.
pub fn offer_version(daemon: &Daemon, version: u32) -> Vec<u32> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // A long header (RFC 9000, 17.2, 6.1): version, destination and source connection id; then filled up.
    let (theirs, ours) = (*b"whatever", *b"our_own!");
    let mut packet = vec![0xc0];
    packet.extend(version.to_be_bytes());
    for id in [theirs, ours] {
        packet.push(8);
        packet.extend(id);
    }
    packet.resize(1_200, 0);
    socket.send_to(&packet, address(daemon)).unwrap();
    let mut answer = [0; 1_500];
    let bytes = socket.recv(&mut answer).expect("version negotiation");
    let answer = &answer[..bytes];
    assert!(answer[0] & 0x80 != 0 && answer[1..5] == [0; 4], "{answer:?}");
    assert_eq!((&answer[6..14], &answer[15..23]), (&ours[..], &theirs[..]));
    answer[23..].chunks_exact(4).map(|four| u32::from_be_bytes(four.try_into().unwrap())).collect()
}

// --- what passed by ---

/// Passes packets on between a peer and a daemon, and keeps those towards the daemon.
pub struct Recorder {
    /// What the peer dials.
    pub addr: SocketAddr,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Recorder {
    pub fn new(daemon: &Daemon) -> Self {
        let [front, back] = [(); 2].map(|()| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            Arc::new(socket)
        });
        let addr = front.local_addr().unwrap();
        let (kept, done) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let peer = Arc::new(Mutex::new(None));
        let daemon = address(daemon);
        let forth = (Arc::clone(&front), Arc::clone(&back), Arc::clone(&kept), Arc::clone(&done));
        let seen = Arc::clone(&peer);
        let forth = std::thread::spawn(move || {
            let (front, back, kept, done) = forth;
            let mut packet = [0; 2_048];
            while !done.load(Ordering::Relaxed) {
                if let Ok((bytes, from)) = front.recv_from(&mut packet) {
                    *seen.lock().unwrap() = Some(from);
                    kept.lock().unwrap().push(packet[..bytes].to_vec());
                    back.send_to(&packet[..bytes], daemon).unwrap();
                }
            }
        });
        let ends = Arc::clone(&done);
        let back = std::thread::spawn(move || {
            let mut packet = [0; 2_048];
            while !ends.load(Ordering::Relaxed) {
                if let Ok(bytes) = back.recv(&mut packet) {
                    let to = peer.lock().unwrap().expect("the peer speaks first");
                    front.send_to(&packet[..bytes], to).unwrap();
                }
            }
        });
        Self { addr, kept, done, threads: vec![forth, back] }
    }

    /// Forgets what it has kept.
    pub fn forget(&self) {
        self.kept.lock().unwrap().clear();
    }

    /// Sends all that it has kept once more, from another address; how many packets came back.
    pub fn play(&self, daemon: &Daemon) -> usize {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let kept = self.kept.lock().unwrap();
        assert!(kept.len() > 1, "there is nothing to play");
        for packet in &*kept {
            socket.send_to(packet, address(daemon)).unwrap();
        }
        std::iter::from_fn(|| socket.recv(&mut [0; 2_048]).ok()).count()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

// --- invites ---

/// What a link says, read by hand.
pub struct Invite {
    pub id: String,
    key: [u8; 32],
    host: [u8; 32],
}

impl Invite {
    pub fn of(link: &str) -> Self {
        let (host, rest) = link.strip_prefix("axon://").unwrap().split_once('@').unwrap();
        let secret = rest.split_once("?k=").unwrap().1.split('&').next().unwrap();
        let read = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        Self::made(&read(secret), read(host).try_into().unwrap())
    }

    /// One of the host with this secret.
    pub fn made(secret: &[u8], host: [u8; 32]) -> Self {
        let hash = |label: &[u8]| {
            let hash = digest::digest(&digest::SHA256, &[label, secret].concat());
            <[u8; 32]>::try_from(hash.as_ref()).unwrap()
        };
        Self { id: hex(&hash(b"axon/1 invite id")[..8]), key: hash(b"axon/1 invite key"), host }
    }

    /// The same id, and another secret.
    pub fn misremembered(&self) -> Self {
        Self { id: self.id.clone(), ..Self::made(b"what was it then", self.host) }
    }

    /// The same, as if another host had made it.
    pub fn at(&self, host: [u8; 32]) -> Self {
        Self { id: self.id.clone(), key: self.key, host }
    }

    /// The payload of a knock with the proof, made on this connection by this key.
    pub fn knock(&self, link: &Link, key: &Key) -> Value {
        let mut binding = [0; 32];
        link.connection.export_keying_material(&mut binding, b"EXPORTER-axon-knock", b"").unwrap();
        let said = [&b"axon/1 knock"[..], &key.public, &self.host, &binding].concat();
        let proof = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.key), &said);
        json!({"name":"raw","invite":self.id,"proof":hex(proof.as_ref())})
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
