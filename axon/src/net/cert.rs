//! Certificates: our own, made anew at each start from the identity's seed, and the key inside a peer's.
//!
//! Only the key matters. Names, dates and signatures of a certificate are for TLS libraries that insist on
//! them.

use axon_proto::id::{AgentId, PublicKey};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

/// PKCS #8 version 1 around an Ed25519 seed (RFC 8410).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// SubjectPublicKeyInfo before an Ed25519 key (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Who a certificate belongs to: its key, and the id that is derived from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: AgentId,
    pub(super) key: PublicKey,
}

impl Identity {
    /// The identity in a certificate; none when its key is no Ed25519 key.
    pub(super) fn of(cert: &CertificateDer<'_>) -> Option<Self> {
        let parsed = ParsedCertificate::try_from(cert).ok()?;
        let spki = parsed.subject_public_key_info();
        let key = spki.as_ref().strip_prefix(&SPKI_PREFIX)?;
        let key = PublicKey(key.try_into().ok()?);
        Some(Self { id: key.agent_id(), key })
    }

    /// The identities of all Ed25519 keys inside these bytes.
    pub(super) fn within(bytes: &[u8]) -> impl Iterator<Item = Self> {
        bytes.windows(SPKI_PREFIX.len() + 32).filter_map(|bytes| {
            let key = PublicKey(bytes.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?);
            Some(Self { id: key.agent_id(), key })
        })
    }
}

/// A self-signed certificate for the seed, with its signing key and identity.
pub(super) fn make(seed: &[u8; 32]) -> Result<(CertifiedKey, Identity), String> {
    let pkcs8 = PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], seed].concat());
    let pair = KeyPair::try_from(&pkcs8).map_err(|error| error.to_string())?;
    let key: [u8; 32] = pair.public_key_raw().try_into().map_err(|_| "the key is no Ed25519 key")?;
    let key = PublicKey(key);
    let identity = Identity { id: key.agent_id(), key };
    let cert = CertificateParams::new(vec![identity.id.to_string()])
        .and_then(|params| params.self_signed(&pair))
        .map_err(|error| error.to_string())?;
    let signer = rustls::crypto::ring::sign::any_eddsa_type(&pkcs8).map_err(|error| error.to_string())?;
    Ok((CertifiedKey::new(vec![cert.der().clone()], signer), identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_carries_the_key_of_its_seed() {
        // RFC 8032, 7.1, test 1.
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
            0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let (certified, identity) = make(&seed).unwrap();
        assert_eq!(identity.key.0[..4], [0xd7, 0x5a, 0x98, 0x01]);
        assert_eq!(Identity::of(&certified.cert[0]), Some(identity));
    }

    #[test]
    fn other_key_types_and_rubbish_have_no_identity() {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let cert = CertificateParams::new(vec!["x.y".to_owned()]).unwrap().self_signed(&pair).unwrap();
        assert_eq!(Identity::of(cert.der()), None);
        assert_eq!(Identity::of(&CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])), None);
        assert_eq!(Identity::of(&CertificateDer::from(Vec::new())), None);
    }
}
