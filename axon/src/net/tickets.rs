//! Sessions that can be resumed: the tickets that peers gave us, and what we keep of those who dialled us.
//!
//! Only of pinned peers, on both sides, so that a stranger can neither resume nor push out who can.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axon_proto::id::AgentId;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::server::StoresServerSessions;

use super::cert::Identity;
use super::trust::Trust;

/// Sessions of dialling peers that can be resumed; the oldest go first.
const SESSIONS_MAX: usize = 128;
/// Tickets of peers that we dialled; one for each peer.
const TICKETS_MAX: usize = 256;

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
        self.held().retain(|id, _| self.is_pinned(id));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held().len()
    }

    fn is_pinned(&self, id: &AgentId) -> bool {
        let pins = self.trust.pins();
        pins.keys.contains_key(id) && !pins.blocked.contains(id)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<AgentId, Tls13ClientSessionValue>> {
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
        let Some(id) = agent_id(&name).filter(|id| self.is_pinned(id)) else { return };
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

/// The agent id in a server name.
pub(super) fn agent_id(name: &ServerName<'_>) -> Option<AgentId> {
    match name {
        ServerName::DnsName(name) => name.as_ref().parse().ok(),
        _ => None,
    }
}

/// Sessions of those who dialled us, by what their ticket says. One is taken out when it is used, so that
/// early data cannot be played twice.
#[derive(Debug)]
pub(super) struct Sessions {
    held: Mutex<Held>,
    trust: Arc<Trust>,
}

#[derive(Debug, Default)]
struct Held {
    sessions: HashMap<Vec<u8>, Vec<u8>>,
    /// Their names, the oldest first.
    order: VecDeque<Vec<u8>>,
}

impl Sessions {
    pub(super) fn new(trust: Arc<Trust>) -> Self {
        Self { held: Mutex::default(), trust }
    }

    /// Drops them all: everybody makes a full handshake, and is looked at.
    pub(super) fn clear(&self) {
        *self.held() = Held::default();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held().sessions.len()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a session is a pinned peer's: of the keys in it, and there is one in the certificate that came
    /// with it, none is anybody else's.
    fn is_of_a_peer(&self, session: &[u8]) -> bool {
        let mut keys = Identity::within(session).peekable();
        keys.peek().is_some() && keys.all(|who| self.trust.is_pinned(&who))
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, name: Vec<u8>, session: Vec<u8>) -> bool {
        if !self.is_of_a_peer(&session) {
            return false;
        }
        let mut held = self.held();
        if held.sessions.insert(name.clone(), session).is_none() {
            held.order.push_back(name);
        }
        if held.sessions.len() > SESSIONS_MAX
            && let Some(oldest) = held.order.pop_front()
        {
            held.sessions.remove(&oldest);
        }
        true
    }

    /// TLS 1.3 takes and never gets.
    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut held = self.held();
        let session = held.sessions.remove(name)?;
        held.order.retain(|other| other != name);
        drop(held);
        self.is_of_a_peer(&session).then_some(session)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use axon_proto::node::Pins;

    use super::*;
    use crate::net::cert;

    fn trust(seeds: &[u8]) -> Arc<Pins> {
        let keys = seeds.iter().map(|seed| cert::make(&[*seed; 32]).unwrap().1);
        Arc::new(Pins { keys: keys.map(|who| (who.id, who.key)).collect(), ..Pins::default() })
    }

    fn session(seed: u8) -> Vec<u8> {
        let certificate = cert::make(&[seed; 32]).unwrap().0.cert[0].to_vec();
        [b"before".to_vec(), certificate, b"after".to_vec()].concat()
    }

    #[test]
    fn sessions_of_peers_alone_are_kept_so_many_and_used_once() {
        let trust_of = Arc::new(Trust::new(cert::make(&[9; 32]).unwrap().1.id));
        trust_of.replace(trust(&[1, 2]));
        let sessions = Sessions::new(Arc::clone(&trust_of));
        assert!(!sessions.put(vec![1], session(3)), "a stranger's");
        assert!(!sessions.put(vec![1], b"no key in it".to_vec()));
        assert!(!sessions.put(vec![1], [session(1), session(3)].concat()), "a key that hides another");
        assert!(sessions.put(vec![1], session(1)));
        assert!(sessions.put(vec![2], session(2)));
        assert_eq!(sessions.take(&[1]), Some(session(1)));
        assert_eq!(sessions.take(&[1]), None);

        // Who is unpinned in between does not get it back.
        assert!(trust_of.replace(trust(&[1])));
        assert_eq!(sessions.take(&[2]), None);

        for n in 0..=200 {
            assert!(sessions.put(vec![0, n], session(1)));
        }
        assert_eq!(sessions.len(), SESSIONS_MAX);
        assert_eq!(sessions.held().order.len(), SESSIONS_MAX);
        assert_eq!(sessions.take(&[0, 0]), None);
        assert!(sessions.take(&[0, 200]).is_some());
        sessions.clear();
        assert_eq!((sessions.len(), sessions.held().order.len()), (0, 0));
    }

    #[test]
    fn pins_say_whether_somebody_may_do_less() {
        let trust_of = Trust::new(cert::make(&[9; 32]).unwrap().1.id);
        let mut pins = trust(&[1]);
        assert!(!trust_of.replace(Arc::clone(&pins)));
        Arc::make_mut(&mut pins).strangers = true;
        assert!(!trust_of.replace(Arc::clone(&pins)));
        Arc::make_mut(&mut pins).strangers = false;
        assert!(trust_of.replace(Arc::clone(&pins)));
        let other = cert::make(&[2; 32]).unwrap().1;
        Arc::make_mut(&mut pins).blocked.insert(other.id);
        assert!(trust_of.replace(Arc::clone(&pins)));
        Arc::make_mut(&mut pins).blocked.clear();
        assert!(!trust_of.replace(Arc::clone(&pins)));
        for key in Arc::make_mut(&mut pins).keys.values_mut() {
            *key = other.key;
        }
        assert!(trust_of.replace(pins));
    }
}
