//! The hybrid key exchange X25519MLKEM768 for rustls on ring, which has only the classical half.
//!
//! Source: draft-ietf-tls-ecdhe-mlkem. The client's share is the ML-KEM encapsulation key and then the X25519
//! key, the server's the ML-KEM ciphertext and then the X25519 key, and the secret follows the same order.

use ml_kem::kem::{Decapsulate as _, KeyExport as _};
use ml_kem::ml_kem_768::{Ciphertext, DecapsulationKey, EncapsulationKey};
use ml_kem::{B32, Key, Seed};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{
    ActiveKeyExchange, CompletedKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup,
};
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};

/// What axon offers, in order: the hybrid group first, X25519 for peers without it, nothing else.
pub(super) static GROUPS: [&dyn SupportedKxGroup; 2] = [&X25519MlKem768, X25519];

/// Bytes of an ML-KEM-768 encapsulation key, the first part of a client's share.
const ENCAPSULATION_KEY_BYTES: usize = 1184;
/// Bytes of an ML-KEM-768 ciphertext, the first part of a server's share.
const CIPHERTEXT_BYTES: usize = 1088;

#[derive(Debug)]
struct X25519MlKem768;

impl SupportedKxGroup for X25519MlKem768 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut seed = Seed::default();
        random(&mut seed)?;
        let key = DecapsulationKey::from_seed(seed);
        let classical = X25519.start()?;
        let share = join(&key.encapsulation_key().to_bytes(), classical.pub_key());
        Ok(Box::new(Started { key, classical, share }))
    }

    fn start_and_complete(&self, client_share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (quantum, classical) =
            client_share.split_at_checked(ENCAPSULATION_KEY_BYTES).ok_or_else(bad_share)?;
        let key = <&Key<EncapsulationKey>>::try_from(quantum).map_err(|_| bad_share())?;
        let key = EncapsulationKey::new(key).map_err(|_| bad_share())?;
        let mut message = B32::default();
        random(&mut message)?;
        let (ciphertext, quantum) = key.encapsulate_deterministic(&message);
        let classical = X25519.start_and_complete(classical)?;
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: join(&ciphertext, &classical.pub_key),
            secret: SharedSecret::from(join(&quantum, classical.secret.secret_bytes())),
        })
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// The client's half of an exchange that awaits the server's share.
struct Started {
    key: DecapsulationKey,
    classical: Box<dyn ActiveKeyExchange>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, Error> {
        let (quantum, classical) = server_share.split_at_checked(CIPHERTEXT_BYTES).ok_or_else(bad_share)?;
        let ciphertext = <&Ciphertext>::try_from(quantum).map_err(|_| bad_share())?;
        let classical = self.classical.complete(classical)?;
        let quantum = self.key.decapsulate(ciphertext);
        Ok(SharedSecret::from(join(&quantum, classical.secret_bytes())))
    }

    // The classical half is offered as a share of its own too, which saves a round trip with peers that know
    // no other.
    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classical.group(), self.classical.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, Error> {
        self.classical.complete(server_share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

fn random(bytes: &mut [u8]) -> Result<(), Error> {
    SystemRandom::new().fill(bytes).map_err(|_| Error::from(GetRandomFailed))
}

fn bad_share() -> Error {
    PeerMisbehaved::InvalidKeyShare.into()
}

fn join(quantum: &[u8], classical: &[u8]) -> Vec<u8> {
    [quantum, classical].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_reach_the_same_secret_and_shares_have_the_standard_sizes() {
        let client = X25519MlKem768.start().unwrap();
        assert_eq!(client.pub_key().len(), 1216);
        let server = X25519MlKem768.start_and_complete(client.pub_key()).unwrap();
        assert_eq!(server.pub_key.len(), 1120);
        let secret = client.complete(&server.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), server.secret.secret_bytes());
        assert_eq!(secret.secret_bytes().len(), 64);
    }

    #[test]
    fn the_classical_half_completes_alone() {
        let client = X25519MlKem768.start().unwrap();
        let (group, share) = client.hybrid_component().unwrap();
        assert_eq!(group, NamedGroup::X25519);
        let server = X25519.start_and_complete(share).unwrap();
        let secret = client.complete_hybrid_component(&server.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), server.secret.secret_bytes());
    }

    #[test]
    fn shares_of_a_wrong_size_or_content_are_refused() {
        for size in [0, 32, 1183, 1184, 1215, 1217] {
            assert!(X25519MlKem768.start_and_complete(&vec![1; size]).is_err(), "{size}");
        }
        // Coefficients above the modulus make no encapsulation key.
        assert!(X25519MlKem768.start_and_complete(&[0xff; 1216]).is_err());
        for size in [0, 32, 1087, 1119, 1121] {
            let client = X25519MlKem768.start().unwrap();
            assert!(client.complete(&vec![1; size]).is_err(), "{size}");
        }
    }
}
