//! Who is dialled when, and what a lost or silent connection leads to.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Connections".

use std::net::SocketAddr;

use super::outgoing::{Fate, unreachable_error};
use super::timers::Key;
use super::{ConnId, DialId, Effect, Node, Now, Token};
use crate::id::{AgentId, PublicKey};
use crate::limits::{BACKOFF_FIRST_MS, DOUBT_DIAL_MS, INITIATOR_WAIT_MS};
use crate::peers::Dial;
use crate::session::Phase;

impl Node {
    /// Dials a peer that is not connected, when its time has come.
    pub(super) fn keep_connected(&mut self, now: Now, id: AgentId) {
        if self.started.is_none() || self.stopping || !self.conns_of(id).is_empty() {
            return;
        }
        let Some(peer) = self.peers.get(id) else { return };
        let Dial::Idle { not_before_ms } = peer.dial else { return };
        if not_before_ms > now.mono_ms {
            return self.timers.set(Key::Dial(id), not_before_ms);
        }
        if peer.is_found() && self.found_dials() >= crate::limits::FOUND_CONNECTIONS_MAX {
            let later = now.mono_ms + self.settings.reconnect_max_backoff_secs * 1_000;
            return self.timers.set(Key::Dial(id), later);
        }
        self.dial(now, id, self.settings.handshake_timeout_secs * 1_000);
    }

    /// Connections to and attempts at found peers.
    fn found_dials(&self) -> usize {
        let found = self.peers.iter().filter(|peer| peer.is_found());
        let busy = found
            .filter(|peer| matches!(peer.dial, Dial::Under { .. }) || !self.sessions.of(peer.id).is_empty());
        busy.count()
    }

    /// A message waits for this peer: dials it now, whatever the backoff says.
    pub(super) fn dial_for_sending(&mut self, now: Now, id: AgentId) {
        let idle = self.peers.get(id).is_some_and(|peer| matches!(peer.dial, Dial::Idle { .. }));
        if idle && !self.is_greeting(id) {
            self.dial(now, id, self.settings.handshake_timeout_secs * 1_000);
        }
    }

    /// Whether a connection of this peer is about to come up: what waits for the peer waits for it.
    fn is_greeting(&self, id: AgentId) -> bool {
        let greets =
            |conn: &ConnId| self.sessions.get(*conn).is_some_and(|session| session.phase == Phase::Greeting);
        self.sessions.of(id).iter().any(greets)
    }

    fn dial(&mut self, now: Now, id: AgentId, timeout_ms: u64) {
        let hello = self.hello_envelope(now, id);
        let token = self.new_token();
        let dial = DialId(self.next_dial);
        self.next_dial += 1;
        self.timers.clear(Key::Dial(id));
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.dial = Dial::Under { dial, token };
        let addrs = peer.addrs();
        if addrs.is_empty() {
            return self.dial_failed(now, dial, "no address is known");
        }
        self.out.push(Effect::Dial { dial, peer: id, addrs, hello, token, timeout_ms });
    }

    pub(super) fn dial_failed(&mut self, now: Now, dial: DialId, why: &str) {
        let under =
            |peer: &&crate::peers::Peer| matches!(peer.dial, Dial::Under { dial: d, .. } if d == dial);
        let Some(id) = self.peers.iter().find(under).map(|peer| peer.id) else { return };
        self.dial_ended(now, id, Some(why));
    }

    /// An attempt is over. After a failure the peer is dialled again later, and what waits for it fails now.
    pub(super) fn dial_ended(&mut self, now: Now, id: AgentId, failure: Option<&str>) {
        let mut random = [0; 16];
        self.entropy.fill(&mut random);
        let max_ms = self.settings.reconnect_max_backoff_secs.max(1) * 1_000;
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(why) = failure else {
            peer.dial = Dial::Idle { not_before_ms: now.mono_ms };
            return;
        };
        // Up to a quarter more, so that two peers do not keep missing each other.
        let jitter = peer.backoff_ms * u64::from(random[0]) / 1_024;
        let not_before_ms = now.mono_ms + peer.backoff_ms.min(max_ms) + jitter;
        peer.dial = Dial::Idle { not_before_ms };
        peer.backoff_ms = (peer.backoff_ms * 2).min(max_ms).max(BACKOFF_FIRST_MS);
        let first = peer.error.as_deref() != Some(why);
        peer.error = Some(why.to_owned());
        self.timers.set(Key::Dial(id), not_before_ms);
        if first {
            self.info(format!("cannot connect to {id}: {why}"));
        }
        // A doubted connection that nothing came on while the attempt failed is dead.
        for conn in self.conns_of(id) {
            if self.sessions.get(conn).is_some_and(|session| session.silent) {
                self.give_up_on(now, conn, why);
            }
        }
        if self.best_session(id).is_some() {
            self.flush_pending(now, id);
        } else if !self.is_greeting(id) {
            self.fail_pending(now, id, why);
            self.held_for_later(now, id);
            self.join_unreachable(now, id, why);
        }
    }

    /// Closes a connection that is dead; what was sent on it fails, since the peer cannot be reached anew
    /// either.
    fn give_up_on(&mut self, now: Now, conn: ConnId, why: &str) {
        let on_it =
            |token: &Token| self.pending.get(token).is_some_and(|pending| pending.conn() == Some(conn));
        let tokens: Vec<Token> = self.pending.keys().copied().filter(on_it).collect();
        for token in tokens {
            self.out.push(Effect::Abandon { token });
            let Some(pending) = self.pending.get(&token) else { continue };
            let error = unreachable_error(pending.to(), &format!("it has gone silent; {why}"));
            self.settle(now, token, Fate::Failed(error));
        }
        self.close(now, conn, 0, "gone silent");
    }

    /// A peer has lost a connection, which was up for so long: without another it is dialled, by the lower id
    /// at once.
    pub(super) fn lost_session(&mut self, now: Now, id: AgentId, up_ms: Option<u64>) {
        if !self.conns_of(id).is_empty() {
            return;
        }
        let me = self.me;
        let waits = self.pending.values().any(|pending| pending.waits_for(id))
            || self.is_awaited_in_outbox(id)
            || self.is_paired_anew(id);
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Dial::Idle { not_before_ms } = peer.dial else { return };
        if let Some(up_ms) = up_ms {
            // A peer that ends each connection as soon as it is up is not dialled in a tight circle.
            let first_ms = if up_ms < BACKOFF_FIRST_MS { BACKOFF_FIRST_MS } else { 0 };
            let wait_ms = if me < id { first_ms } else { INITIATOR_WAIT_MS };
            peer.dial = Dial::Idle { not_before_ms: now.mono_ms + wait_ms };
        } else {
            // It ended before hello was done; do not hurry.
            peer.dial = Dial::Idle { not_before_ms: not_before_ms.max(now.mono_ms + peer.backoff_ms) };
        }
        if waits { self.dial_for_sending(now, id) } else { self.keep_connected(now, id) }
    }

    /// Something of ours is in flight and nothing comes: dial beside, and see.
    #[inline(never)]
    pub(super) fn silent(&mut self, now: Now, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        session.silent = true;
        let peer = session.peer;
        if self.peers.get(peer).is_some_and(|peer| matches!(peer.dial, Dial::Idle { .. })) && !self.stopping {
            self.debug(format!("nothing comes from {peer}: trying another connection"));
            self.dial(now, peer, DOUBT_DIAL_MS.min(self.settings.handshake_timeout_secs * 1_000));
        }
    }

    #[inline(never)]
    pub(super) fn found(&mut self, now: Now, id: AgentId, key: PublicKey, addrs: &[SocketAddr]) {
        let sessions = &self.sessions;
        let connected = |id: AgentId| !sessions.of(id).is_empty();
        if self.peers.found(id, key, addrs, now.mono_ms, connected) {
            self.publish_pins();
        }
        self.keep_connected(now, id);
    }
}
