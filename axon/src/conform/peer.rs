//! A right and then a wrong peer, played against a daemon over QUIC, under a key that is made for it.
//!
//! Source: `spec/WIRE_FORMAT.md`. Who is not let in can only look at the handshake, and at what strangers are
//! told. With the secret of an invite it pairs first, and then plays the rest.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axon_proto::id::{AgentId, MsgId, PublicKey};
use axon_proto::invite::Link;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Held;

/// How long a handshake, an answer or a close may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// An answer is at most as long as a message.
const ANSWER_BYTES_MAX: usize = axon_proto::limits::MESSAGE_BYTES_MAX;

/// What a message is to lead to.
enum Leads {
    To(&'static str),
    Error(&'static str),
    Reset,
}

/// How a handshake is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Right,
    OtherAlpn,
    OtherName,
    NoCertificate,
    OtherGroup,
}

/// Plays both; one row for each thing that was looked at.
///
/// # Errors
/// When nobody answers there, or this machine cannot.
pub async fn play(link: &Link) -> Result<Vec<Held>, String> {
    let mut held = Vec::new();
    let mut row = |about: &str, requirement: &str, outcome: Result<(), String>| {
        let id = format!("peer-{}", held.len() + 1);
        let (about, requirements) = (about.to_owned(), vec![requirement.to_owned()]);
        held.push(Held { id, about, requirements, seen: outcome.err() });
    };
    let peer = Peer::new(link).await?;
    let first = peer.greeted().await;
    if !peer.proven.load(Ordering::Relaxed) {
        let why = first.err().unwrap_or_default();
        return Err(format!("nobody with this key answered at {}: {why}", peer.addr));
    }
    row("the daemon shows the key of the link and proves it", "WF-PIN-1", Ok(()));
    for (about, requirement, manner) in [
        ("another ALPN protocol is refused", "WF-TLS-1", Manner::OtherAlpn),
        ("another server name is refused", "WF-PIN-2", Manner::OtherName),
        ("a dialler without a certificate is refused", "WF-TLS-3", Manner::NoCertificate),
        ("another key exchange is refused", "WF-TLS-2", Manner::OtherGroup),
    ] {
        row(about, requirement, peer.refused(manner).await);
    }
    let about = "a key that is not known is refused, or told that it may knock";
    match first {
        Err(_) => row(about, "WF-PIN-3", Ok(())),
        Ok((connection, hello)) => {
            let told = &hello["payload"];
            let right = told["stranger"] == true && told["features"] == json!(["knock"]);
            let right = right && told.get("agent_name").is_none();
            row(about, "WF-STRANGER-2", right.then_some(()).ok_or_else(|| format!("was told {told}")));
            let ping = peer.envelope("ping", json!({}));
            let seen = peer.leads(&connection, &ping, &Leads::Error("not_authorized")).await;
            row("a stranger may do nothing else", "WF-STRANGER-3", seen);
            let let_in = peer.knock(link, &connection).await;
            connection.close(VarInt::from_u32(0), b"done");
            if let Some(let_in) = let_in {
                let ok = let_in.is_ok();
                row("a right proof lets in", "TRUST-KNO-1", let_in);
                if ok {
                    known(&peer, &mut row).await;
                }
            }
        }
    }
    peer.endpoint.close(VarInt::from_u32(0), b"done");
    timeout(PATIENCE, peer.endpoint.wait_idle()).await.ok();
    Ok(held)
}

/// What one may look at who has been let in.
async fn known(peer: &Peer, row: &mut impl FnMut(&str, &str, Result<(), String>)) {
    match peer.dial(Manner::Right).await {
        Err(why) => row("who was let in dials anew", "WF-STRANGER-7", Err(why)),
        Ok(connection) => {
            let ping = peer.envelope("ping", json!({}));
            let seen = peer.leads(&connection, &ping, &Leads::Error("not_authorized")).await;
            row("nothing is taken before hello", "WF-HEL-2", seen);
            let hello = peer.envelope("hello", json!({"protocol_versions":[4_000_000_000_u32]}));
            let seen = peer.leads(&connection, &hello, &Leads::Error("incompatible_version")).await;
            row("a hello without a common version is refused", "WF-HEL-5", seen);
            row("and the connection closed with code 4", "WF-HEL-6", closed_with(&connection, 4).await);
        }
    }
    let (connection, hello) = match peer.greeted().await {
        Ok(greeted) => greeted,
        Err(why) => return row("hello", "WF-HEL-5", Err(why)),
    };
    let told = &hello["payload"];
    let right = told["selected_version"] == 1 && told.get("stranger").is_none_or(|is| *is == false);
    row("hello", "WF-HEL-5", right.then_some(()).ok_or_else(|| format!("was told {told}")));
    let ping = || peer.envelope("ping", json!({}));
    let with = |field: &str, value: Value| {
        let mut envelope = ping();
        envelope[field] = value;
        envelope
    };
    let without = |field: &str| {
        let mut envelope = ping();
        envelope.as_object_mut().map(|envelope| envelope.remove(field));
        envelope
    };
    let again = ping();
    let other = PublicKey([0; 32]).agent_id();
    let answer = |kind: &str, payload: Value| {
        let mut envelope = peer.envelope(kind, payload);
        envelope["ref"] = envelope["id"].clone();
        envelope
    };
    let cases = [
        ("ping", "CORE-PING-1", again.clone(), Leads::To("pong")),
        ("the same ping again", "WF-REP-4", again, Leads::Reset),
        ("discover", "CORE-DIS-1", peer.envelope("discover", json!({})), Leads::To("capabilities")),
        ("hello again", "WF-HEL-7", peer.hello(), Leads::To("hello")),
        ("an unknown field", "WF-ENV-3", with("later", json!([])), Leads::To("pong")),
        ("ref null", "WF-ENV-2", with("ref", Value::Null), Leads::To("pong")),
        ("no id", "WF-ERR-1", without("id"), Leads::Reset),
        (
            "an id in capitals",
            "WF-ERR-1",
            with("id", json!("FFFFFFFF-FFFF-4FFF-BFFF-FFFFFFFFFFFF")),
            Leads::Reset,
        ),
        ("a list", "WF-ERR-1", json!([]), Leads::Reset),
        ("v 2", "WF-ERR-1", with("v", json!(2)), Leads::Error("incompatible_version")),
        (
            "v beyond 32 bits",
            "WF-ERR-1",
            with("v", json!(4_294_967_297_u64)),
            Leads::Error("incompatible_version"),
        ),
        ("v 0", "WF-ERR-1", with("v", json!(0)), Leads::Error("invalid_envelope")),
        ("ts 0", "WF-ERR-1", with("ts", json!(0)), Leads::Error("invalid_envelope")),
        ("no kind", "WF-ERR-1", without("kind"), Leads::Error("invalid_envelope")),
        (
            "a payload that is a list",
            "WF-ERR-1",
            with("payload", json!([])),
            Leads::Error("invalid_envelope"),
        ),
        ("a ref that is none", "WF-ENV-2", with("ref", json!("x")), Leads::Error("invalid_envelope")),
        (
            "from of another type",
            "WF-ID-3",
            with("from", json!("rsa.1")),
            Leads::Error("incompatible_version"),
        ),
        ("from of another agent", "WF-ERR-1", with("from", json!(other)), Leads::Error("not_authorized")),
        ("to another agent", "WF-ERR-1", with("to", json!(other)), Leads::Error("peer_not_found")),
        (
            "an unknown kind",
            "MT-ALL-5",
            peer.envelope("conform.none", json!({})),
            Leads::Error("unknown_kind"),
        ),
        (
            "an answer first",
            "WF-ERR-1",
            answer("response", json!({"data":1,"summary":""})),
            Leads::Error("invalid_envelope"),
        ),
        (
            "a query without a question",
            "MT-ALL-2",
            peer.envelope("query", json!({})),
            Leads::Error("invalid_envelope"),
        ),
        (
            "a notify without data",
            "MT-ALL-2",
            peer.envelope("notify", json!({"topic":"t"})),
            Leads::Error("invalid_envelope"),
        ),
    ];
    for (about, requirement, envelope, leads) in cases {
        row(about, requirement, peer.leads(&connection, &envelope, &leads).await);
    }
    let long = peer.envelope("notify", json!({"topic":"t","data":"x".repeat(65_536)}));
    row("a message that is too long", "WF-STR-4", peer.leads(&connection, &long, &Leads::Reset).await);
    let told = peer.tell(&connection, b"\x01 this is no message").await;
    row("what is no message, one way", "WF-ERR-2", told);
    let seen = peer.leads(&connection, &ping(), &Leads::To("pong")).await;
    row("none of these closed the connection", "WF-CLOSE-1", seen);
    connection.close(VarInt::from_u32(0), b"done");
}

async fn closed_with(connection: &Connection, code: u32) -> Result<(), String> {
    match timeout(PATIENCE, connection.closed()).await {
        Ok(ConnectionError::ApplicationClosed(close)) if close.error_code == VarInt::from_u32(code) => Ok(()),
        Ok(other) => Err(other.to_string()),
        Err(_) => Err(format!("it was open after {} s", PATIENCE.as_secs())),
    }
}

/// A peer under a key of its own.
struct Peer {
    endpoint: Endpoint,
    addr: SocketAddr,
    daemon: PublicKey,
    key: PublicKey,
    cert: CertificateDer<'static>,
    signs: Vec<u8>,
    /// The daemon has shown that it has its key.
    proven: Arc<AtomicBool>,
}

impl Peer {
    async fn new(link: &Link) -> Result<Self, String> {
        let mut found = None;
        for addr in &link.addrs {
            let looked_up = tokio::net::lookup_host(addr).await;
            found = found.or(looked_up.ok().and_then(|mut addrs| addrs.next()));
        }
        let addr = found.ok_or_else(|| format!("no address of {} is known", link.addrs.join(", ")))?;
        let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let any = any.parse().map_err(|error| format!("{error}"))?;
        let endpoint = Endpoint::client(any).map_err(|error| format!("no UDP socket: {error}"))?;
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(|error| error.to_string())?;
        let key = pair.public_key_raw().try_into().map(PublicKey).map_err(|_| "no Ed25519 key")?;
        let params = rcgen::CertificateParams::new(vec!["conform".to_owned()]);
        let cert = params.and_then(|params| params.self_signed(&pair)).map_err(|error| error.to_string())?;
        let (cert, signs) = (cert.der().clone(), pair.serialize_der());
        let (daemon, proven) = (link.key, Arc::new(AtomicBool::new(false)));
        Ok(Self { endpoint, addr, daemon, key, cert, signs, proven })
    }

    fn config(&self, manner: Manner) -> Result<quinn::ClientConfig, String> {
        let other = manner == Manner::OtherGroup;
        let group: &'static dyn SupportedKxGroup =
            if other { ring::kx_group::SECP256R1 } else { ring::kx_group::X25519 };
        let provider = Arc::new(CryptoProvider { kx_groups: vec![group], ..ring::default_provider() });
        let pinned = Pinned { key: self.daemon, provider: provider.clone(), proven: self.proven.clone() };
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(pinned));
        let signs = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.signs.clone()));
        let mut config = match manner {
            Manner::NoCertificate => builder.with_no_client_auth(),
            _ => builder
                .with_client_auth_cert(vec![self.cert.clone()], signs)
                .map_err(|error| error.to_string())?,
        };
        let alpn: &[u8] = if manner == Manner::OtherAlpn { b"axon/0" } else { b"axon/1" };
        config.alpn_protocols = vec![alpn.to_vec()];
        let config = QuicClientConfig::try_from(config).map_err(|error| error.to_string())?;
        Ok(quinn::ClientConfig::new(Arc::new(config)))
    }

    async fn dial(&self, manner: Manner) -> Result<Connection, String> {
        let id = if manner == Manner::OtherName { self.key.agent_id() } else { self.daemon.agent_id() };
        let dialled = self.endpoint.connect_with(self.config(manner)?, self.addr, &id.to_string());
        let dialled = timeout(PATIENCE, dialled.map_err(|error| error.to_string())?).await;
        dialled.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())
    }

    /// A connection, and the daemon's hello on it.
    async fn greeted(&self) -> Result<(Connection, Value), String> {
        let connection = self.dial(Manner::Right).await?;
        let answer = self.ask(&connection, self.hello().to_string().as_bytes()).await?;
        match answer {
            Some(answer) if answer["kind"] == "hello" => Ok((connection, answer)),
            other => Err(format!("hello was answered by {other:?}")),
        }
    }

    /// A handshake that must not come to anything: its end may show on the first stream only. That nobody
    /// answers at all is not taken for a refusal.
    async fn refused(&self, manner: Manner) -> Result<(), String> {
        let seen = match self.dial(manner).await {
            Err(why) if why == "no answer" => return Err(why),
            Err(_) => return Ok(()),
            Ok(connection) => self.ask(&connection, self.hello().to_string().as_bytes()).await,
        };
        match seen {
            Err(why) if why != "no answer" => Ok(()),
            other => Err(format!("it was let in: {other:?}")),
        }
    }

    fn envelope(&self, kind: &str, payload: Value) -> Value {
        let mut random = [0; 16];
        // Without randomness the id is still one, and the daemon will say that it has seen it.
        getrandom::fill(&mut random).ok();
        let (from, to): (AgentId, AgentId) = (self.key.agent_id(), self.daemon.agent_id());
        let ts = crate::disk::files::unix_ms();
        let id = MsgId::from_random(random);
        json!({"v":1,"id":id,"from":from,"to":to,"ts":ts,"kind":kind,"payload":payload})
    }

    fn hello(&self) -> Value {
        let features = ["ack", "discover", "capabilities", "knock", "receipt"];
        self.envelope("hello", json!({"protocol_versions":[1],"features":features}))
    }

    /// The answer; none: the stream was reset.
    async fn ask(&self, connection: &Connection, bytes: &[u8]) -> Result<Option<Value>, String> {
        let asked = async {
            let (mut send, mut recv) = connection.open_bi().await.map_err(|error| error.to_string())?;
            // Who wants no more of it may still answer.
            if send.write_all(bytes).await.is_ok() {
                send.finish().ok();
            }
            match recv.read_to_end(ANSWER_BYTES_MAX).await {
                Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string()),
                Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(_))) => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        };
        timeout(PATIENCE, asked).await.map_err(|_| "no answer".to_owned())?
    }

    async fn leads(&self, connection: &Connection, said: &Value, leads: &Leads) -> Result<(), String> {
        let answer = self.ask(connection, said.to_string().as_bytes()).await?;
        let told = |answer: &Value| answer["ref"] == said["id"] && answer["to"] == json!(self.key.agent_id());
        let right = match (leads, &answer) {
            (Leads::Reset, None) => true,
            (Leads::To(kind), Some(answer)) => told(answer) && answer["kind"] == *kind,
            (Leads::Error(code), Some(answer)) => {
                told(answer) && answer["kind"] == "error" && answer["payload"]["code"] == *code
            }
            _ => false,
        };
        right.then_some(()).ok_or_else(|| answer.map_or("the stream was reset".into(), |it| it.to_string()))
    }

    async fn tell(&self, connection: &Connection, bytes: &[u8]) -> Result<(), String> {
        let mut send = connection.open_uni().await.map_err(|error| error.to_string())?;
        if send.write_all(bytes).await.is_ok() {
            send.finish().ok();
            timeout(PATIENCE, send.stopped()).await.map_err(|_| "it was not taken".to_owned())?.ok();
        }
        Ok(())
    }

    /// Knocks with the proof of the link's secret, where it has one.
    async fn knock(&self, link: &Link, connection: &Connection) -> Option<Result<(), String>> {
        let (id, key) = link.secret.as_ref()?.key();
        let mut binding = [0; 32];
        if connection.export_keying_material(&mut binding, b"EXPORTER-axon-knock", b"").is_err() {
            return Some(Err("TLS exports nothing".into()));
        }
        let proof = key.proof(&self.key, &self.daemon, &binding);
        let knock = self.envelope("knock", json!({"name":"conform","invite":id.to_string(),"proof":proof}));
        Some(match self.ask(connection, knock.to_string().as_bytes()).await {
            Ok(Some(answer)) if answer["payload"]["decision"] == "accept" => Ok(()),
            other => Err(format!("{other:?}")),
        })
    }
}

/// Takes the certificate with this key alone.
#[derive(Debug)]
struct Pinned {
    key: PublicKey,
    provider: Arc<CryptoProvider>,
    proven: Arc<AtomicBool>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // SubjectPublicKeyInfo of an Ed25519 key (RFC 8410).
        const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let parsed = ParsedCertificate::try_from(cert)?;
        let expected = [&PREFIX[..], &self.key.0].concat();
        if parsed.subject_public_key_info().as_ref() == expected {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General("another key than the link's".into()))
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
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let valid = verify_tls13_signature(message, cert, signed, algorithms)?;
        self.proven.store(true, Ordering::Relaxed);
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
