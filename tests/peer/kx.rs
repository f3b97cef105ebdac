//! The client's half of X25519MLKEM768, written from draft-ietf-tls-ecdhe-mlkem and not from axon's.

use ml_kem::kem::{Decapsulate as _, KeyExport as _};
use ml_kem::ml_kem_768::{Ciphertext, DecapsulationKey};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup};

#[derive(Debug)]
pub struct Hybrid;

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut seed = ml_kem::Seed::default();
        getrandom::fill(&mut seed).unwrap();
        let key = DecapsulationKey::from_seed(seed);
        let classical = X25519.start()?;
        let share = [&key.encapsulation_key().to_bytes()[..], classical.pub_key()].concat();
        Ok(Box::new(Begun { key, classical, share }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

struct Begun {
    key: DecapsulationKey,
    classical: Box<dyn ActiveKeyExchange>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Begun {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, classical) = theirs.split_at(1_088);
        let quantum = self.key.decapsulate(<&Ciphertext>::try_from(ciphertext).unwrap());
        let classical = self.classical.complete(classical)?;
        Ok(SharedSecret::from([&quantum[..], classical.secret_bytes()].concat()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}
