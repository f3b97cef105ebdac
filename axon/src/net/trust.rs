//! Who may connect: the pins of now, asked inside the handshake and again after it.

use std::sync::{Arc, PoisonError, RwLock};

use axon_proto::id::AgentId;
use axon_proto::node::{Pins, Side};
use rustls::pki_types::CertificateDer;

use super::cert::Identity;

/// How far a key is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// As a peer.
    Peer,
    /// To knock.
    Stranger,
    /// Not at all.
    Refused,
}

/// The pins, as the node last said. Shared with the verifiers inside the handshake.
#[derive(Debug)]
pub(super) struct Trust {
    us: AgentId,
    pins: RwLock<Arc<Pins>>,
}

impl Trust {
    pub(super) fn new(us: AgentId) -> Self {
        Self { us, pins: RwLock::default() }
    }

    /// Takes new pins; whether somebody may do less by them than by the old ones.
    pub(super) fn replace(&self, pins: Arc<Pins>) -> bool {
        let mut held = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *held, Arc::clone(&pins));
        drop(held);
        (old.strangers && !pins.strangers)
            || old.allowed.iter().any(|id| !pins.allowed.contains(id))
            || pins.blocked.iter().any(|id| !old.blocked.contains(id))
            || old.keys.iter().any(|(id, key)| pins.keys.get(id) != Some(key))
    }

    pub(super) fn pins(&self) -> Arc<Pins> {
        Arc::clone(&self.pins.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How far this id with this very key is let in now, on a connection that this side has dialled or not.
    pub(super) fn admission(&self, who: &Identity, side: Side) -> Admission {
        let pins = self.pins();
        if pins.blocked.contains(&who.id) {
            return Admission::Refused;
        }
        let heard = pins.strangers || pins.allowed.contains(&who.id);
        match pins.keys.get(&who.id) {
            Some(key) if *key == who.key => Admission::Peer,
            // Whoever has our own key is no stranger.
            None if heard && side == Side::Acceptor && who.id != self.us => Admission::Stranger,
            _ => Admission::Refused,
        }
    }

    pub(super) fn is_pinned(&self, who: &Identity) -> bool {
        self.admission(who, Side::Dialer) == Admission::Peer
    }
}

/// Who is at the other end of a connection, by its certificate, that of a resumed session included.
pub(super) fn other_end(connection: &quinn::Connection) -> Option<Identity> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Identity::of(chain.first()?)
}
