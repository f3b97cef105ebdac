//! Reaching a peer: its addresses are tried one shortly after the other (RFC 8305), after them its names,
//! looked up every time, and the first that completes the handshake as that peer wins.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axon_proto::id::AgentId;
use axon_proto::limits::ADDRS_PER_PEER_MAX;
use axon_proto::node::{DialId, Input, Side};
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cert::Identity;
use super::conn::{self, NOT_PINNED, Ready, VIOLATION};
use super::endpoint::unmapped;
use super::stream::{Exchange, Turn};
use super::trust::{Trust, other_end};
use super::{Event, Flushing, Hello, NetEvent, Shared, why};
use crate::names::Names;

/// How long after one address the next is tried, while the first is silent.
const STAGGER: Duration = Duration::from_millis(250);

/// One `Effect::Dial`.
pub(super) struct Dial {
    pub(super) id: DialId,
    pub(super) peer: AgentId,
    pub(super) addrs: Vec<String>,
    pub(super) hello: Hello,
    pub(super) timeout: Duration,
}

/// Dials, and leaves the connection to a task of its own.
pub(super) async fn dial(shared: Shared, endpoint: Endpoint, client: ClientConfig, dial: Dial) {
    let id = dial.id;
    let expected = Expected::Pinned(Arc::clone(&shared.trust));
    let attempt = Attempt { endpoint, client, peer: dial.peer, expected, names: shared.names.clone() };
    let won = match reach(attempt, &dial.addrs, &dial.hello.bytes, dial.timeout).await {
        Ok(won) => won,
        Err(why) => {
            let failed = Input::DialFailed { dial: id, why };
            let _ = shared.events.send(NetEvent(Event::Plain(failed))).await;
            return;
        }
    };
    let Won { connection, who, early, binding } = won;
    let ready = Ready {
        connection,
        who,
        side: Side::Dialer,
        stranger: None,
        binding,
        early: early.is_some(),
        dial: Some(id),
        hello: Some(Hello { early, ..dial.hello }),
        flushing: Flushing::new(),
    };
    conn::connected(shared, ready);
}

/// A connection whose other end is the peer we meant.
pub(super) struct Won {
    pub(super) connection: Connection,
    pub(super) who: Identity,
    /// The hello, if it was taken in 0-RTT.
    pub(super) early: Option<Exchange>,
    pub(super) binding: [u8; 32],
}

/// Makes one connection, over whichever address answers first; or says why there is none.
pub(super) async fn reach(
    attempt: Attempt,
    addrs: &[String],
    hello: &Arc<str>,
    timeout: Duration,
) -> Result<Won, String> {
    let mut failures = Vec::new();
    match tokio::time::timeout(timeout, race(&attempt, addrs, hello, &mut failures)).await {
        Ok(Some(won)) => return Ok(won),
        Ok(None) => {}
        Err(_) => {
            let (addrs, secs) = (addrs.join(", "), timeout.as_secs_f32());
            failures.push(format!("no answer from {addrs} within {secs} s"));
        }
    }
    Err(if failures.is_empty() { "no address is known".into() } else { failures.join("; ") })
}

async fn race(
    attempt: &Attempt,
    addrs: &[String],
    hello: &Arc<str>,
    failures: &mut Vec<String>,
) -> Option<Won> {
    // Names come last, and one at a time: a peer at a known address needs none of them.
    let (mut waiting, mut names) = (VecDeque::new(), VecDeque::new());
    let mut lookups = JoinSet::new();
    let mut attempts = JoinSet::new();
    let mut tried = 0;
    for addr in addrs.iter().take(ADDRS_PER_PEER_MAX) {
        match addr.parse::<SocketAddr>() {
            Ok(addr) => waiting.push_back(addr),
            Err(_) => names.push_back(addr.clone()),
        }
    }
    let mut next_at = Instant::now();
    loop {
        if tried == ADDRS_PER_PEER_MAX {
            waiting.clear();
            names.clear();
            lookups.abort_all();
        }
        if waiting.is_empty() && names.is_empty() && lookups.is_empty() && attempts.is_empty() {
            return None;
        }
        tokio::select! {
            biased;
            Some(ended) = attempts.join_next(), if !attempts.is_empty() => match ended {
                Ok(Ok(won)) => return Some(won),
                Ok(Err(why)) => {
                    failures.push(why);
                    next_at = Instant::now();
                }
                Err(_) => {}
            },
            Some(found) = lookups.join_next(), if !lookups.is_empty() => {
                match found {
                    Ok(Ok(addrs)) => waiting.extend(addrs),
                    Ok(Err(why)) => failures.push(why),
                    Err(_) => {}
                }
                next_at = Instant::now();
            }
            () = tokio::time::sleep_until(next_at),
                if !waiting.is_empty() || (!names.is_empty() && lookups.is_empty()) =>
            {
                if let Some(addr) = waiting.pop_front() {
                    attempts.spawn(attempt.clone().run(addr, Arc::clone(hello)));
                    tried += 1;
                } else if let Some(name) = names.pop_front() {
                    let names = attempt.names.clone();
                    lookups.spawn(async move { names.look_up(&name).await });
                }
                next_at = Instant::now() + STAGGER;
            }
        }
    }
}

/// Whom to reach, and how.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) endpoint: Endpoint,
    pub(super) client: ClientConfig,
    pub(super) peer: AgentId,
    pub(super) expected: Expected,
    pub(super) names: Names,
}

/// Which key must be there.
#[derive(Clone)]
pub(super) enum Expected {
    /// The one that is pinned.
    Pinned(Arc<Trust>),
    /// This one.
    Only(Identity),
}

impl Expected {
    fn is_met(&self, who: &Identity) -> bool {
        match self {
            Self::Pinned(trust) => trust.is_pinned(who),
            Self::Only(peer) => peer == who,
        }
    }
}

impl Attempt {
    async fn run(self, addr: SocketAddr, hello: Arc<str>) -> Result<Won, String> {
        let shown = unmapped(addr);
        let ended = |error| format!("{shown}: {}", why::ended(&error));
        let connecting = self
            .endpoint
            .connect_with(self.client, addr, &self.peer.to_string())
            .map_err(|error| format!("{shown}: {}", why::not_begun(&error)))?;
        let (connection, early) = match connecting.into_0rtt() {
            Ok((connection, accepted)) => {
                let mut early = None;
                tokio::pin!(accepted);
                let taken = tokio::select! {
                    biased;
                    taken = &mut accepted => taken,
                    sent = say_early(&connection, &hello) => {
                        early = sent;
                        accepted.await
                    }
                };
                (connection, early.filter(|_| taken))
            }
            Err(connecting) => (connecting.await.map_err(ended)?, None),
        };
        if let Some(error) = connection.close_reason() {
            return Err(ended(error));
        }
        // A resumed session has passed no verifier, and the pins may have changed meanwhile.
        let who = other_end(&connection).filter(|who| who.id == self.peer && self.expected.is_met(who));
        match (who, conn::binding(&connection)) {
            (Some(who), Some(binding)) => Ok(Won { connection, who, early, binding }),
            _ => {
                connection.close(VIOLATION, NOT_PINNED);
                Err(format!("{shown}: this peer is not pinned any more"))
            }
        }
    }
}

/// Sends the hello in 0-RTT, before the peer has said a word.
async fn say_early(connection: &Connection, hello: &str) -> Option<Exchange> {
    let (send, recv) = connection.open_bi().await.ok()?;
    let mut exchange = Exchange::new(send, Some(recv));
    exchange.say(&Turn::default(), hello).await.ok()?;
    Some(exchange)
}
