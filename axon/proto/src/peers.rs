//! Who is known, by which key, where they may be reached, and when to dial them next.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Peers". A peer comes from `[[peers]]`, from discovery, or from the cache
//! of those that discovery found before. An advert can add addresses to an id; it can never change a key.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use crate::error::{IpcCode, IpcError};
use crate::id::{AgentId, PublicKey};
use crate::limits::{ADDRS_PER_PEER_MAX, BACKOFF_FIRST_MS, FOUND_PEERS_MAX, STALE_MS};
use crate::node::{DialId, KnownPeer, Pins, StaticPeer, Token};

/// How a peer came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `[[peers]]`.
    Static,
    /// Discovery, in this run.
    Found,
    /// The cache on disk; discovery has not seen it in this run.
    Cached,
}

impl Source {
    /// As the `peers` command says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Found => "mdns",
            Self::Cached => "cached",
        }
    }
}

/// Whether a peer is being dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dial {
    /// Not now; not of our own accord before this (monotonic milliseconds).
    Idle {
        /// When.
        not_before_ms: u64,
    },
    /// An attempt is under way.
    Under {
        /// Which.
        dial: DialId,
        /// Its hello.
        token: Token,
    },
}

/// One row of the peer table.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its id.
    pub id: AgentId,
    /// Its key.
    pub key: PublicKey,
    /// How it came to be known.
    pub source: Source,
    /// The address of `[[peers]]`.
    pub static_addr: Option<String>,
    /// Whether it was connected at some time: it is kept on disk and never swept.
    pub kept: bool,
    /// Where a dial last reached it.
    pub worked_addr: Option<SocketAddr>,
    /// Where discovery saw it, newest first.
    pub seen_addrs: Vec<SocketAddr>,
    /// The name in `[[peers]]`.
    pub name: Option<String>,
    /// The name that it gave itself in hello.
    pub claimed_name: Option<String>,
    /// When discovery last saw it (monotonic milliseconds).
    pub seen_ms: u64,
    /// When it was last connected (Unix milliseconds).
    pub connected_wall_ms: u64,
    /// Whether it is being dialled.
    pub dial: Dial,
    /// The next wait after a failed attempt.
    pub backoff_ms: u64,
    /// Why the last attempt failed, for a person.
    pub error: Option<String>,
}

impl Peer {
    fn new(id: AgentId, key: PublicKey, source: Source) -> Self {
        Self {
            id,
            key,
            source,
            static_addr: None,
            kept: false,
            worked_addr: None,
            seen_addrs: Vec::new(),
            name: None,
            claimed_name: None,
            seen_ms: 0,
            connected_wall_ms: 0,
            dial: Dial::Idle { not_before_ms: 0 },
            backoff_ms: BACKOFF_FIRST_MS,
            error: None,
        }
    }

    /// Candidate addresses, best first.
    pub fn addrs(&self) -> Vec<String> {
        let mut addrs: Vec<String> = self.static_addr.iter().cloned().collect();
        for seen in self.worked_addr.iter().chain(&self.seen_addrs) {
            let text = seen.to_string();
            if !addrs.contains(&text) {
                addrs.push(text);
            }
        }
        addrs
    }

    /// Puts an address first among those seen.
    pub fn note_addr(&mut self, addr: SocketAddr) {
        if self.seen_addrs.first() == Some(&addr) {
            return;
        }
        self.seen_addrs.retain(|known| *known != addr);
        self.seen_addrs.insert(0, addr);
        self.seen_addrs.truncate(ADDRS_PER_PEER_MAX);
    }
}

/// The peer table.
#[derive(Debug)]
pub struct Peers {
    me: AgentId,
    table: BTreeMap<AgentId, Peer>,
    /// Taken out of `[[peers]]` in this run; bounded by how often a person does that.
    taken_out: HashSet<AgentId>,
}

impl Peers {
    /// Begins with the cache's peers.
    pub fn new(me: AgentId, cached: Vec<KnownPeer>) -> Self {
        let mut table = BTreeMap::new();
        for known in cached.into_iter().take(FOUND_PEERS_MAX) {
            if known.pubkey.agent_id() != known.agent_id || known.agent_id == me {
                continue;
            }
            let mut peer = Peer::new(known.agent_id, known.pubkey, Source::Cached);
            peer.kept = true;
            peer.worked_addr = known.addrs.first().copied();
            peer.seen_addrs = known.addrs;
            peer.seen_addrs.truncate(ADDRS_PER_PEER_MAX);
            peer.connected_wall_ms = known.last_seen_ms;
            table.insert(peer.id, peer);
        }
        Self { me, table, taken_out: HashSet::new() }
    }

    /// Takes `[[peers]]` as it is now; gives the ids that are out, or whose key is another.
    pub fn configure(&mut self, statics: &[StaticPeer]) -> Vec<AgentId> {
        let kept: HashSet<AgentId> = statics.iter().map(|peer| peer.agent_id).collect();
        let mut out: Vec<AgentId> = self
            .table
            .values()
            .filter(|peer| peer.source == Source::Static && !kept.contains(&peer.id))
            .map(|peer| peer.id)
            .collect();
        out.iter().for_each(|id| drop(self.table.remove(id)));
        self.taken_out.extend(&out);
        self.taken_out.retain(|id| !kept.contains(id));
        for configured in statics.iter().filter(|peer| peer.agent_id != self.me) {
            let StaticPeer { agent_id, pubkey, addr, name } = configured;
            let peer =
                self.table.entry(*agent_id).or_insert_with(|| Peer::new(*agent_id, *pubkey, Source::Static));
            if peer.key != *pubkey {
                out.push(*agent_id);
                *peer = Peer::new(*agent_id, *pubkey, Source::Static);
            }
            if peer.static_addr.as_ref() != Some(addr) {
                peer.static_addr = Some(addr.clone());
                peer.backoff_ms = BACKOFF_FIRST_MS;
                if matches!(peer.dial, Dial::Idle { .. }) {
                    peer.dial = Dial::Idle { not_before_ms: 0 };
                }
            }
            peer.source = Source::Static;
            peer.name.clone_from(name);
        }
        out
    }

    /// Takes an advert; false when it changes nothing or its id is not the key's.
    ///
    /// Who was taken out of `[[peers]]` in this run is not found again, and who is connected makes room for
    /// nobody.
    pub fn found(
        &mut self,
        id: AgentId,
        key: PublicKey,
        addrs: &[SocketAddr],
        mono_ms: u64,
        connected: impl Fn(AgentId) -> bool,
    ) -> bool {
        if key.agent_id() != id || id == self.me || self.taken_out.contains(&id) {
            return false;
        }
        let new = !self.table.contains_key(&id);
        if new {
            self.make_room(connected);
        }
        let peer = self.table.entry(id).or_insert_with(|| Peer::new(id, key, Source::Found));
        if peer.key != key {
            return false;
        }
        peer.seen_ms = mono_ms;
        if peer.source == Source::Cached {
            peer.source = Source::Found;
        }
        let known = peer.seen_addrs.clone();
        for addr in addrs.iter().take(ADDRS_PER_PEER_MAX).filter(|addr| !known.contains(addr)) {
            peer.note_addr(*addr);
            // A new address is worth a try soon, but whoever sends adverts does not make us dial in a row.
            if let Dial::Idle { not_before_ms } = &mut peer.dial {
                *not_before_ms = (*not_before_ms).min(mono_ms + BACKOFF_FIRST_MS);
            }
        }
        new
    }

    /// Forgets found peers without news; gives their ids. Static, cached and connected ones stay.
    pub fn sweep(&mut self, mono_ms: u64, connected: impl Fn(AgentId) -> bool) -> Vec<AgentId> {
        let stale: Vec<AgentId> = self
            .table
            .values()
            .filter(|peer| peer.source == Source::Found && !peer.kept && peer.seen_ms + STALE_MS <= mono_ms)
            .map(|peer| peer.id)
            .filter(|id| !connected(*id))
            .collect();
        stale.iter().for_each(|id| drop(self.table.remove(id)));
        stale
    }

    /// One peer.
    pub fn get(&self, id: AgentId) -> Option<&Peer> {
        self.table.get(&id)
    }

    /// One peer, to change.
    pub fn get_mut(&mut self, id: AgentId) -> Option<&mut Peer> {
        self.table.get_mut(&id)
    }

    /// All peers, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.table.values()
    }

    /// The keys that the TLS handshake may accept.
    pub fn pins(&self) -> Pins {
        self.table.values().map(|peer| (peer.id, peer.key)).collect()
    }

    /// What the cache on disk holds.
    pub fn cache(&self) -> Vec<KnownPeer> {
        let cached = self.table.values().filter(|peer| peer.kept && peer.source != Source::Static);
        cached
            .map(|peer| {
                let mut addrs: Vec<SocketAddr> = peer.worked_addr.into_iter().collect();
                addrs.extend(peer.seen_addrs.iter().filter(|addr| Some(**addr) != peer.worked_addr));
                addrs.truncate(ADDRS_PER_PEER_MAX);
                KnownPeer { agent_id: peer.id, pubkey: peer.key, addrs, last_seen_ms: peer.connected_wall_ms }
            })
            .collect()
    }

    /// The peer that a person or agent means: an id, a name, or an unambiguous prefix of at least 4 hex
    /// digits.
    pub fn resolve(&self, text: &str) -> Result<AgentId, IpcError> {
        if let Ok(id) = text.parse::<AgentId>() {
            return self.known(id);
        }
        let named = |of: &dyn Fn(&Peer) -> Option<&String>| -> Vec<AgentId> {
            let holds = |peer: &&Peer| of(peer).is_some_and(|name| name == text);
            self.table.values().filter(holds).map(|peer| peer.id).collect()
        };
        if let [id] = named(&|peer| peer.name.as_ref())[..] {
            return Ok(id);
        }
        let claimed = named(&|peer| peer.claimed_name.as_ref().filter(|_| peer.source == Source::Static));
        let digits = text.get(..8).filter(|head| head.eq_ignore_ascii_case(AgentId::PREFIX));
        let digits = digits.map_or(text, |head| &text[head.len()..]).to_ascii_lowercase();
        let hex = (4..=32).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let prefixed: Vec<AgentId> = self
            .table
            .keys()
            .copied()
            .chain([self.me])
            .filter(|id| hex && id.to_string()[AgentId::PREFIX.len()..].starts_with(&digits))
            .collect();
        // A claimed name that looks like another peer's digits must not catch what is meant for that one.
        let mut fitting = [claimed, prefixed].concat();
        fitting.sort_unstable();
        fitting.dedup();
        match &fitting[..] {
            [id] => self.known(*id),
            [] => Err(IpcError::new(
                IpcCode::PeerNotFound,
                format!(
                    "no peer is called \"{}\" (an id's beginning needs 4 digits): `axon peers` lists those known; \
                     add it to [[peers]] in config.toml",
                    text.chars().take(80).collect::<String>()
                ),
            )),
            many => {
                let ids: Vec<String> = many.iter().take(4).map(std::string::ToString::to_string).collect();
                let message =
                    format!("\"{text}\" fits more than one peer ({}): use more digits", ids.join(", "));
                Err(IpcError::new(IpcCode::PeerNotFound, message))
            }
        }
    }

    fn known(&self, id: AgentId) -> Result<AgentId, IpcError> {
        if id == self.me {
            let message = "this is your own agent: send to another, `axon peers` lists those known";
            return Err(IpcError::new(IpcCode::SelfSend, message));
        }
        if self.table.contains_key(&id) {
            return Ok(id);
        }
        let message =
            format!("{id} is not known here: add it to [[peers]] in config.toml, or wait until it is found");
        Err(IpcError::new(IpcCode::PeerNotFound, message))
    }

    /// Found peers are bounded: the one seen longest ago goes, cached ones last.
    fn make_room(&mut self, connected: impl Fn(AgentId) -> bool) {
        let found = self.table.values().filter(|peer| peer.source != Source::Static);
        if found.clone().count() >= FOUND_PEERS_MAX
            && let Some(oldest) = found
                .filter(|peer| !connected(peer.id))
                .min_by_key(|peer| (peer.kept, peer.connected_wall_ms, peer.seen_ms))
                .map(|peer| peer.id)
        {
            self.table.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PublicKey {
        PublicKey([n; 32])
    }
    fn fixed(n: u8, name: Option<&str>) -> StaticPeer {
        StaticPeer {
            agent_id: key(n).agent_id(),
            pubkey: key(n),
            addr: "host:7100".into(),
            name: name.map(str::to_owned),
        }
    }
    fn peers() -> Peers {
        Peers::new(key(0).agent_id(), Vec::new())
    }

    #[test]
    fn a_peer_is_named_by_id_prefix_or_name() {
        let mut peers = peers();
        peers.configure(&[fixed(1, Some("anna")), fixed(2, None), fixed(3, None)]);
        let id = key(2).agent_id();
        for n in [2, 3] {
            peers.get_mut(key(n).agent_id()).unwrap().claimed_name = Some("both".into());
        }
        peers.get_mut(id).unwrap().claimed_name = Some("bert".into());
        let digits = id.to_string()[8..14].to_owned();
        for text in [id.to_string(), format!("ed25519.{digits}"), digits.to_uppercase(), "bert".into()] {
            assert_eq!(peers.resolve(&text), Ok(id), "{text}");
        }
        assert_eq!(peers.resolve("anna"), Ok(key(1).agent_id()));
        assert_eq!(peers.resolve(&digits[..3]).unwrap_err().code, IpcCode::PeerNotFound);
        assert_eq!(peers.resolve("nobody").unwrap_err().code, IpcCode::PeerNotFound);
        let me = key(0).agent_id().to_string();
        assert_eq!(peers.resolve(&me).unwrap_err().code, IpcCode::SelfSend);
        assert_eq!(peers.resolve(&me[8..14]).unwrap_err().code, IpcCode::SelfSend);
        peers.get_mut(id).unwrap().claimed_name = Some("both".into());
        assert!(peers.resolve("both").unwrap_err().message.contains("more than one"));
        // A name that looks like another's digits catches nothing that is meant for that one.
        peers.get_mut(key(3).agent_id()).unwrap().claimed_name = Some(digits.clone());
        assert!(peers.resolve(&digits).unwrap_err().message.contains("more than one"));
    }

    #[test]
    fn an_advert_adds_addresses_and_never_changes_a_key() {
        let mut peers = peers();
        let addr: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert!(!peers.found(key(1).agent_id(), key(2), &[addr], 0, |_| false), "id is not the key's");
        assert!(peers.found(key(1).agent_id(), key(1), &[addr], 0, |_| false));
        assert!(!peers.found(key(1).agent_id(), key(1), &[addr], 10, |_| false));
        peers.configure(&[fixed(2, None)]);
        peers.found(key(2).agent_id(), key(2), &[addr], 0, |_| false);
        assert_eq!(peers.get(key(2).agent_id()).unwrap().addrs(), ["host:7100", "127.0.0.1:1"]);
        assert_eq!(peers.sweep(10 + STALE_MS, |_| false), [key(1).agent_id()]);
        assert_eq!(peers.configure(&[]), [key(2).agent_id()]);
        assert!(peers.pins().is_empty());
        assert!(
            !peers.found(key(2).agent_id(), key(2), &[addr], 0, |_| false),
            "who was taken out stays out"
        );
    }

    #[test]
    fn found_peers_are_bounded_and_the_longest_unseen_goes() {
        let mut peers = peers();
        for n in 0..=FOUND_PEERS_MAX {
            let mut bytes = [9; 32];
            bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let key = PublicKey(bytes);
            assert!(peers.found(key.agent_id(), key, &[], n as u64, |_| false));
        }
        assert_eq!(peers.table.len(), FOUND_PEERS_MAX);
        assert!(peers.table.values().all(|peer| peer.seen_ms > 0));
    }
}
