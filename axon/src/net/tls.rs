//! TLS 1.3 with both sides pinned: the verifiers and the server name check.
//!
//! A verifier sees a key only on a full handshake. A resumed one skips it, so `conn` and `dial` ask
//! [`Trust::admission`] again after every handshake.

use std::sync::Arc;

use axon_proto::id::AgentId;
use axon_proto::limits::ALPN;
use axon_proto::node::Side;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, StoresServerSessions};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
};

use super::cert::Identity;
use super::tickets::{Sessions, Tickets, agent_id};
use super::trust::{Admission, Trust};
use super::{Refusals, kx};

/// For dialling: the server must hold the pinned key of the id that is its server name.
pub(super) fn client(
    crypto: &Arc<CryptoProvider>,
    ours: &Arc<CertifiedKey>,
    trust: &Arc<Trust>,
    tickets: &Arc<Tickets>,
) -> Result<ClientConfig, Error> {
    let mut config = dialling(crypto, ours, Good::Pinned(Arc::clone(trust)))?;
    config.enable_early_data = true;
    config.resumption = Resumption::store(Arc::clone(tickets) as Arc<dyn ClientSessionStore>);
    Ok(config)
}

/// For dialling this one key, pinned or not. Nothing is resumed, and nothing can be later.
pub(super) fn client_for(
    crypto: &Arc<CryptoProvider>,
    ours: &Arc<CertifiedKey>,
    peer: Identity,
) -> Result<ClientConfig, Error> {
    let mut config = dialling(crypto, ours, Good::Only(peer))?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn dialling(
    crypto: &Arc<CryptoProvider>,
    ours: &Arc<CertifiedKey>,
    good: Good,
) -> Result<ClientConfig, Error> {
    let verifier = Verifier { good, algorithms: algorithms(crypto) };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(crypto))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(ours))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// For accepting: the client must hold a pinned key, or strangers must be welcome, and it must have meant us.
pub(super) fn server(
    crypto: &Arc<CryptoProvider>,
    ours: &Arc<CertifiedKey>,
    us: AgentId,
    trust: &Arc<Trust>,
    sessions: &Arc<Sessions>,
    refusals: Refusals,
) -> Result<ServerConfig, Error> {
    let good = Good::Welcome(Arc::clone(trust), refusals);
    let verifier = Verifier { good, algorithms: algorithms(crypto) };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(crypto))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(NamedOnly { us, ours: Arc::clone(ours) }));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // QUIC knows only "all or nothing" here (RFC 9001, 4.6.1).
    config.max_early_data_size = u32::MAX;
    config.session_storage = Arc::clone(sessions) as Arc<dyn StoresServerSessions>;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// What this machine computes with, and draws its keys from.
pub(super) fn provider() -> Arc<CryptoProvider> {
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

/// Both verifiers: whether a certificate is good hangs on its key alone.
#[derive(Debug)]
struct Verifier {
    good: Good,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Which keys are good.
#[derive(Debug)]
enum Good {
    /// Of a server: what is pinned for the id derived from it.
    Pinned(Arc<Trust>),
    /// Of a server: this one.
    Only(Identity),
    /// Of a client: whom the pins let in. Who is not is told of.
    Welcome(Arc<Trust>, Refusals),
}

impl Good {
    fn takes(&self, who: &Identity) -> bool {
        match self {
            Self::Pinned(trust) => trust.is_pinned(who),
            Self::Only(peer) => peer == who,
            Self::Welcome(trust, refusals) => {
                let taken = trust.admission(who, Side::Acceptor) != Admission::Refused;
                if !taken {
                    refusals.tell(who.id);
                }
                taken
            }
        }
    }
}

impl Verifier {
    fn identity(&self, cert: &CertificateDer<'_>) -> Result<Identity, Error> {
        let who = Identity::of(cert).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if self.good.takes(&who) {
            return Ok(who);
        }
        tracing::debug!(id = %who.id, key = %who.key, "a certificate was refused");
        // One answer for all, so that nobody learns whether it is blocked or only unknown.
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

impl ServerCertVerifier for Verifier {
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

impl ClientCertVerifier for Verifier {
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
    use std::collections::{HashMap, HashSet};

    use axon_proto::node::Pins;
    use rustls::{ClientConnection, NamedGroup, ServerConnection};

    use super::*;
    use crate::net::cert;

    struct Side {
        certified: Arc<CertifiedKey>,
        who: Identity,
        trust: Arc<Trust>,
    }

    fn side(seed: u8) -> Side {
        let (certified, who) = cert::make(&[seed; 32]).unwrap();
        Side { certified: Arc::new(certified), who, trust: Arc::new(Trust::new(who.id)) }
    }

    fn refusals() -> Refusals {
        Refusals(tokio::sync::mpsc::channel(1).0)
    }

    fn pin(side: &Side, others: &[&Side]) {
        let keys = others.iter().map(|other| (other.who.id, other.who.key)).collect();
        side.trust.replace(Arc::new(Pins { keys, ..Pins::default() }));
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
        let sessions = Arc::new(Sessions::new(Arc::clone(&acceptor.trust)));
        let refusals = refusals();
        (
            client(&provider(), &dialer.certified, &dialer.trust, &tickets).unwrap(),
            server(&provider(), &acceptor.certified, acceptor.who.id, &acceptor.trust, &sessions, refusals)
                .unwrap(),
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
            .with_client_cert_verifier(Arc::new(Verifier {
                good: Good::Welcome(Arc::clone(&b.trust), refusals()),
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
            .with_custom_certificate_verifier(Arc::new(Verifier {
                good: Good::Pinned(Arc::clone(&a.trust)),
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
        let keys = HashMap::from([(a.who.id, c.who.key)]);
        b.trust.replace(Arc::new(Pins { keys, strangers: true, ..Pins::default() }));
        let (dial, accept) = configs(&a, &b);
        assert_eq!(shake(dial, accept, &name), unknown);

        // Strangers are let in where they are welcome and not blocked; nobody dials one, or is our double.
        b.trust.replace(Arc::new(Pins { strangers: true, ..Pins::default() }));
        let (dial, accept) = configs(&a, &b);
        assert!(shake(dial, accept, &name).is_ok());
        a.trust.replace(Arc::new(Pins { strangers: true, ..Pins::default() }));
        let (dial, accept) = configs(&a, &b);
        assert_eq!(shake(dial, accept, &name), unknown);
        let double = Side { trust: Arc::new(Trust::new(a.who.id)), ..side(2) };
        pin(&double, &[&b]);
        let (dial, accept) = configs(&double, &b);
        assert_eq!(shake(dial, accept, &name), unknown);
        let blocked = HashSet::from([a.who.id]);
        let keys = HashMap::from([(a.who.id, a.who.key)]);
        pin(&a, &[&b]);
        b.trust.replace(Arc::new(Pins { keys, blocked, strangers: true, ..Pins::default() }));
        let (dial, accept) = configs(&a, &b);
        assert_eq!(shake(dial, accept, &name), unknown);
    }

    #[test]
    fn one_key_can_be_dialled_that_nobody_has_pinned() {
        let (a, b, c) = (side(1), side(2), side(3));
        pin(&b, &[&a]);
        let name = b.who.id.to_string();
        let (_, accept) = configs(&a, &b);
        assert!(shake(client_for(&provider(), &a.certified, b.who).unwrap(), accept, &name).is_ok());
        let (_, accept) = configs(&a, &b);
        let unknown = Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(shake(client_for(&provider(), &a.certified, c.who).unwrap(), accept, &name), unknown);
    }

    #[test]
    fn only_ed25519_is_accepted() {
        let provider = provider();
        assert_eq!(algorithms(&provider).supported_schemes(), vec![SignatureScheme::ED25519]);
        let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups, vec![NamedGroup::X25519MLKEM768, NamedGroup::X25519]);
    }
}
