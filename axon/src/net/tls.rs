//! TLS 1.3 with both sides pinned: the verifiers, the server name check, the session tickets.
//!
//! A verifier sees a key only on a full handshake. A resumed one skips it, so `conn` and `dial` call
//! [`Trust::peer`] again after every handshake.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axon_proto::id::AgentId;
use axon_proto::limits::ALPN;
use axon_proto::node::Pins;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, NamedGroup,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

use super::cert::Identity;
use super::kx;

/// Sessions of dialling peers that can be resumed; the oldest go first.
const SESSIONS_MAX: usize = 128;
/// Tickets of peers that we dialled; one for each peer.
const TICKETS_MAX: usize = 256;

/// The keys that may connect, as the node last said. Shared with the verifiers inside the handshake.
#[derive(Debug, Default)]
pub(super) struct Trust(RwLock<Arc<Pins>>);

impl Trust {
    pub(super) fn replace(&self, pins: Arc<Pins>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = pins;
    }

    fn pins(&self) -> Arc<Pins> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this id with this very key may connect now.
    pub(super) fn admits(&self, who: &Identity) -> bool {
        self.pins().get(&who.id) == Some(&who.key)
    }

    /// Who is at the other end of a connection, if that peer may connect now.
    pub(super) fn peer(&self, connection: &quinn::Connection) -> Option<Identity> {
        let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        Identity::of(chain.first()?).filter(|who| self.admits(who))
    }
}

/// Tickets to resume sessions with, at most one for each pinned peer.
#[derive(Debug)]
pub(super) struct Tickets {
    held: Mutex<HashMap<AgentId, Tls13ClientSessionValue>>,
    trust: Arc<Trust>,
}

impl Tickets {
    pub(super) fn new(trust: Arc<Trust>) -> Self {
        Self { held: Mutex::default(), trust }
    }

    /// Drops the tickets of peers that are no longer pinned.
    pub(super) fn keep_pinned(&self) {
        let pins = self.trust.pins();
        self.held().retain(|id, _| pins.contains_key(id));
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<AgentId, Tls13ClientSessionValue>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    // Without a remembered group the hybrid one is offered first every time, also to a peer that has learned
    // it since.
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let Some(id) = agent_id(&name).filter(|id| self.trust.pins().contains_key(id)) else { return };
        let mut held = self.held();
        if held.len() >= TICKETS_MAX && !held.contains_key(&id) {
            // Which one goes is of no matter: its peer makes a full handshake next time.
            if let Some(other) = held.keys().next().copied() {
                held.remove(&other);
            }
        }
        held.insert(id, ticket);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.held().remove(&agent_id(name)?)
    }
}

/// For dialling: the server must hold the pinned key of the id that is its server name.
pub(super) fn client(
    ours: &Arc<CertifiedKey>,
    trust: &Arc<Trust>,
    tickets: &Arc<Tickets>,
) -> Result<ClientConfig, Error> {
    let provider = provider();
    let verifier = Pinned { trust: Arc::clone(trust), algorithms: algorithms(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(ours))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_early_data = true;
    config.resumption = Resumption::store(Arc::clone(tickets) as Arc<dyn ClientSessionStore>);
    Ok(config)
}

/// For accepting: the client must hold a pinned key, and must have meant us.
pub(super) fn server(
    ours: &Arc<CertifiedKey>,
    us: AgentId,
    trust: &Arc<Trust>,
) -> Result<ServerConfig, Error> {
    let provider = provider();
    let verifier = Pinned { trust: Arc::clone(trust), algorithms: algorithms(&provider) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(NamedOnly { us, ours: Arc::clone(ours) }));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // QUIC knows only "all or nothing" here (RFC 9001, 4.6.1).
    config.max_early_data_size = u32::MAX;
    // Kept here and taken out when used, so that early data cannot be played twice.
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    config.send_tls13_tickets = 1;
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.kx_groups = kx::GROUPS.to_vec();
    Arc::new(provider)
}

/// The provider's Ed25519 alone; empty, and then nothing is accepted, should it have none.
fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    let mapping = provider.signature_verification_algorithms.mapping;
    let at = mapping.iter().position(|(scheme, _)| *scheme == SignatureScheme::ED25519);
    let mapping = at.map_or(&mapping[..0], |at| &mapping[at..=at]);
    WebPkiSupportedAlgorithms { all: mapping.first().map_or(&[], |(_, all)| *all), mapping }
}

fn agent_id(name: &ServerName<'_>) -> Option<AgentId> {
    match name {
        ServerName::DnsName(name) => name.as_ref().parse().ok(),
        _ => None,
    }
}

/// Both verifiers: a certificate is good when its key is pinned for the id derived from it.
#[derive(Debug)]
struct Pinned {
    trust: Arc<Trust>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn identity(&self, cert: &CertificateDer<'_>) -> Result<Identity, Error> {
        let who = Identity::of(cert).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if self.trust.admits(&who) {
            return Ok(who);
        }
        tracing::debug!(id = %who.id, key = %who.key, "a peer that is not pinned was refused");
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn verify(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let who = self.identity(cert)?;
        if agent_id(name) == Some(who.id) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        cert: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.identity(cert).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Shows our certificate only to a client whose server name is our id. It is asked on resumption too.
#[derive(Debug)]
struct NamedOnly {
    us: AgentId,
    ours: Arc<CertifiedKey>,
}

impl ResolvesServerCert for NamedOnly {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| name.parse().ok());
        (named == Some(self.us)).then(|| Arc::clone(&self.ours))
    }
}

#[cfg(test)]
mod tests {
    use axon_proto::id::PublicKey;
    use rustls::{ClientConnection, ServerConnection};

    use super::*;
    use crate::net::cert;

    struct Side {
        certified: Arc<CertifiedKey>,
        who: Identity,
        trust: Arc<Trust>,
    }

    fn side(seed: u8) -> Side {
        let (certified, who) = cert::make(&[seed; 32]).unwrap();
        Side { certified: Arc::new(certified), who, trust: Arc::default() }
    }

    fn pin(side: &Side, others: &[&Side]) {
        let pins: HashMap<AgentId, PublicKey> =
            others.iter().map(|other| (other.who.id, other.who.key)).collect();
        side.trust.replace(Arc::new(pins));
    }

    /// A whole handshake in memory; yields the group that was negotiated.
    fn shake(client: ClientConfig, server: ServerConfig, name: &str) -> Result<NamedGroup, Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        let mut wire = Vec::new();
        for _ in 0..8 {
            wire.clear();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &wire[..]).unwrap();
            client.process_new_packets()?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        let group = client.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(server.negotiated_key_exchange_group().unwrap().name(), group);
        Ok(group)
    }

    fn configs(dialer: &Side, acceptor: &Side) -> (ClientConfig, ServerConfig) {
        let tickets = Arc::new(Tickets::new(Arc::clone(&dialer.trust)));
        (
            client(&dialer.certified, &dialer.trust, &tickets).unwrap(),
            server(&acceptor.certified, acceptor.who.id, &acceptor.trust).unwrap(),
        )
    }

    fn classical(base: &CryptoProvider) -> Arc<CryptoProvider> {
        let mut provider = base.clone();
        provider.kx_groups = vec![rustls::crypto::ring::kx_group::X25519];
        Arc::new(provider)
    }

    #[test]
    fn the_hybrid_group_is_negotiated_and_x25519_where_the_peer_has_no_other() {
        let (a, b) = (side(1), side(2));
        pin(&a, &[&b]);
        pin(&b, &[&a]);
        let name = b.who.id.to_string();
        let (dial, accept) = configs(&a, &b);
        assert_eq!(shake(dial, accept, &name), Ok(NamedGroup::X25519MLKEM768));

        let (dial, accept) = configs(&a, &b);
        let mut old = ServerConfig::builder_with_provider(classical(accept.crypto_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(Pinned {
                trust: Arc::clone(&b.trust),
                algorithms: algorithms(accept.crypto_provider()),
            }))
            .with_cert_resolver(Arc::new(NamedOnly { us: b.who.id, ours: Arc::clone(&b.certified) }));
        old.alpn_protocols = vec![ALPN.to_vec()];
        assert_eq!(shake(dial, old, &name), Ok(NamedGroup::X25519));

        let (dial, accept) = configs(&a, &b);
        let mut old = ClientConfig::builder_with_provider(classical(dial.crypto_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned {
                trust: Arc::clone(&a.trust),
                algorithms: algorithms(dial.crypto_provider()),
            }))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&a.certified))));
        old.alpn_protocols = vec![ALPN.to_vec()];
        assert_eq!(shake(old, accept, &name), Ok(NamedGroup::X25519));
    }

    #[test]
    fn nobody_outside_the_pins_passes_and_the_name_must_be_the_acceptors() {
        let (a, b, c) = (side(1), side(2), side(3));
        let name = b.who.id.to_string();

        pin(&a, &[&c]);
        pin(&b, &[&a]);
        let (dial, accept) = configs(&a, &b);
        let unknown = Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(shake(dial, accept, &name), unknown);

        pin(&a, &[&b]);
        pin(&b, &[&c]);
        let (dial, accept) = configs(&a, &b);
        assert_eq!(shake(dial, accept, &name), unknown);

        pin(&a, &[&b, &c]);
        pin(&b, &[&a]);
        let (dial, accept) = configs(&a, &b);
        assert!(shake(dial, accept, &c.who.id.to_string()).is_err());
        let (dial, accept) = configs(&a, &b);
        assert!(shake(dial, accept, "example.org").is_err());
        let (dial, accept) = configs(&a, &b);
        assert!(shake(dial, accept, &name.to_uppercase()).is_ok());

        // A pin of the right id with another key.
        b.trust.replace(Arc::new(HashMap::from([(a.who.id, c.who.key)])));
        let (dial, accept) = configs(&a, &b);
        assert_eq!(shake(dial, accept, &name), unknown);
    }

    #[test]
    fn only_ed25519_is_accepted() {
        let provider = provider();
        assert_eq!(algorithms(&provider).supported_schemes(), vec![SignatureScheme::ED25519]);
        let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups, vec![NamedGroup::X25519MLKEM768, NamedGroup::X25519]);
    }
}
