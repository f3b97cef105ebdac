//! TLS and QUIC without chance: what they draw comes from the seed. Certificates, signatures, ciphers, the
//! key schedule and all checks are the daemon's own; only the key exchange is a stand-in of the same sizes,
//! because nothing can seed that of the library. It keeps nothing secret.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::{ClientConfig, EndpointConfig, ServerConfig};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, TimeSource};
use ring::{digest, hkdf};
use rustls::crypto::{
    ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{Error, NamedGroup, ProtocolVersion};

use super::dice;
use crate::disk::files::unix_ms;

/// Bytes of a dialler's share in the group X25519MLKEM768.
const DIALLER_BYTES: usize = 1184 + 32;
/// Bytes of an acceptor's.
const ACCEPTOR_BYTES: usize = 1088 + 32;
/// Bytes of the classical share that is offered beside it.
const CLASSICAL_BYTES: usize = 32;

pub(super) fn provider(real: &CryptoProvider) -> Arc<CryptoProvider> {
    let mut provider = real.clone();
    provider.secure_random = &Drawn;
    provider.kx_groups = vec![&StandIn];
    Arc::new(provider)
}

pub(super) fn settle_tls(client: &mut rustls::ClientConfig, server: &mut rustls::ServerConfig) {
    client.time_provider = Arc::new(Clock);
    server.time_provider = Arc::new(Clock);
}

pub(super) fn settle_quic(
    endpoint: &mut EndpointConfig,
    server: &mut ServerConfig,
    client: &mut ClientConfig,
) {
    endpoint.rng_seed(Some(dice::bytes())).cid_generator(|| Box::new(Ids));
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&dice::bytes::<64>());
    server.token_key(Arc::new(key)).time_source(Arc::new(Clock));
    client.initial_dst_cid_provider(Arc::new(|| Ids.generate_cid()));
}

#[derive(Debug)]
struct Drawn;

impl SecureRandom for Drawn {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        dice::fill(bytes);
        Ok(())
    }
}

/// The time of day in the run.
#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(unix_ms())))
    }
}

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms())
    }
}

/// Names of connections, as long as the daemon's own.
struct Ids;

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&dice::bytes::<8>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[derive(Debug)]
struct StandIn;

impl SupportedKxGroup for StandIn {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut share = vec![0; DIALLER_BYTES];
        dice::fill(&mut share);
        Ok(Box::new(Started(share)))
    }

    fn start_and_complete(&self, dialler: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let mut share = vec![0; ACCEPTOR_BYTES];
        dice::fill(&mut share);
        let secret = secret(dialler, &share);
        Ok(CompletedKeyExchange { group: self.name(), pub_key: share, secret })
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

struct Started(Vec<u8>);

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Started")
    }
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, acceptor: &[u8]) -> Result<SharedSecret, Error> {
        Ok(secret(&self.0, acceptor))
    }

    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((NamedGroup::X25519, &self.0[DIALLER_BYTES - CLASSICAL_BYTES..]))
    }

    fn complete_hybrid_component(self: Box<Self>, acceptor: &[u8]) -> Result<SharedSecret, Error> {
        Ok(secret(&self.0, acceptor))
    }

    fn pub_key(&self) -> &[u8] {
        &self.0
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

/// Both sides see both shares, and so does everybody else.
fn secret(dialler: &[u8], acceptor: &[u8]) -> SharedSecret {
    let both = [dialler, acceptor].concat();
    SharedSecret::from(digest::digest(&digest::SHA512, &both).as_ref().to_vec())
}
