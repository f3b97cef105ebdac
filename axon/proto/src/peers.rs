//! Who is known, by which key, how far trusted, where they may be reached, and when to dial them next.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Peers", and `spec/TRUST.md`. A peer comes from `[[peers]]`, from the
//! contacts, from discovery, or from the cache of those that discovery found before. An advert can add
//! addresses to an id; it can never change a key or a level.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use foldhash::HashMap;

use crate::contacts::{Contact, ContactChange, Contacts};
use crate::error::{IpcCode, IpcError};
use crate::fault::has_room;
use crate::id::{AgentId, PublicKey};
use crate::limits::{ADDRS_PER_PEER_MAX, BACKOFF_FIRST_MS, FOUND_PEERS_MAX, STALE_MS};
use crate::node::{DialId, KnownPeer, Pins, StaticPeer, Token};
use crate::trust::Level;

/// How a peer came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `[[peers]]`.
    Static,
    /// A contact.
    Contact,
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
            Self::Contact => "contact",
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
    /// How the network knows it, while a contact says more of it.
    found: Option<Source>,
    /// How far it is trusted.
    pub level: Level,
    /// The addresses of `[[peers]]` and of its contact.
    pub fixed_addrs: Vec<String>,
    /// Whether it was connected at some time: it is kept on disk and never swept.
    pub kept: bool,
    /// Where a dial last reached it.
    pub worked_addr: Option<SocketAddr>,
    /// Where discovery saw it, newest first.
    pub seen_addrs: Vec<SocketAddr>,
    /// The name of its contact, or in `[[peers]]`.
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
            found: None,
            level: Level::Unknown,
            fixed_addrs: Vec::new(),
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

    /// Whether only the network says that it is there.
    pub fn is_found(&self) -> bool {
        matches!(self.source, Source::Found | Source::Cached)
    }

    /// What it is called, and whether only it says so.
    pub fn called(&self) -> Option<(&str, bool)> {
        let own = self.name.as_deref().map(|name| (name, false));
        own.or_else(|| self.claimed_name.as_deref().map(|name| (name, true)))
    }

    /// Candidate addresses, best first.
    pub fn addrs(&self) -> Vec<String> {
        let mut addrs = self.fixed_addrs.clone();
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
    /// Each message looks into it some times.
    table: HashMap<AgentId, Peer>,
    contacts: Contacts,
    statics: Vec<StaticPeer>,
    /// Whom each name given here means, as of the last [`Self::rebuild`].
    names: HashMap<String, Vec<AgentId>>,
    /// Taken out of `[[peers]]`, or forgotten, in this run; bounded by how often a person does that.
    taken_out: HashSet<AgentId>,
    /// When the table was last rebuilt (Unix milliseconds).
    as_of_ms: u64,
}

impl Peers {
    /// Begins with the cache's peers.
    pub fn new(me: AgentId, cached: Vec<KnownPeer>, contacts: Contacts) -> Self {
        let mut table = HashMap::default();
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
        let (statics, taken_out) = (Vec::new(), HashSet::new());
        Self { me, table, contacts, statics, names: HashMap::default(), taken_out, as_of_ms: 0 }
    }

    /// Takes `[[peers]]` as it is now; gives the ids that are out, or whose key is another.
    pub fn configure(&mut self, statics: &[StaticPeer], wall_ms: u64) -> Vec<AgentId> {
        let kept: HashSet<AgentId> = statics.iter().map(|peer| peer.agent_id).collect();
        let before = self.statics.iter().map(|peer| peer.agent_id).filter(|id| !kept.contains(id));
        self.taken_out.extend(before);
        self.taken_out.retain(|id| !kept.contains(id));
        self.statics = statics.iter().filter(|peer| peer.agent_id != self.me).cloned().collect();
        self.rebuild(wall_ms)
    }

    /// Takes the contacts as they are now; gives the ids that are out.
    pub fn set_contacts(&mut self, contacts: Contacts, wall_ms: u64) -> Vec<AgentId> {
        self.contacts = contacts;
        self.rebuild(wall_ms)
    }

    /// The contacts.
    pub fn contacts(&self) -> &Contacts {
        &self.contacts
    }

    /// Changes a contact; gives the ids that are out.
    ///
    /// # Errors
    /// When there are too many contacts.
    pub fn change(&mut self, change: &ContactChange, wall_ms: u64) -> Result<Vec<AgentId>, IpcError> {
        self.contacts.apply(change)?;
        match change {
            ContactChange::Put(contact) => drop(self.taken_out.remove(&contact.agent_id)),
            ContactChange::Remove(id) => {
                self.statics.retain(|peer| peer.agent_id != *id);
                self.table.remove(id);
                self.taken_out.insert(*id);
                let mut out = self.rebuild(wall_ms);
                out.push(*id);
                return Ok(out);
            }
            ContactChange::Pause(_) => {}
        }
        Ok(self.rebuild(wall_ms))
    }

    /// Takes back what was said of an agent, as if it had never been; gives the ids that are out.
    pub fn unsay(&mut self, id: AgentId, wall_ms: u64) -> Vec<AgentId> {
        self.contacts.take(id);
        self.rebuild(wall_ms)
    }

    /// Makes the table what the settings, the contacts and the time say; gives the ids that are out.
    pub fn rebuild(&mut self, wall_ms: u64) -> Vec<AgentId> {
        self.as_of_ms = wall_ms;
        let mut wanted: BTreeMap<AgentId, Peer> = BTreeMap::new();
        for StaticPeer { agent_id, pubkey, addr, name } in &self.statics {
            let mut peer = Peer::new(*agent_id, *pubkey, Source::Static);
            (peer.level, peer.name) = (Level::Known, name.clone());
            peer.fixed_addrs.push(addr.clone());
            wanted.insert(*agent_id, peer);
        }
        let mut levels = BTreeMap::new();
        for contact in self.contacts.iter().filter(|contact| contact.holds(wall_ms)) {
            let Contact { agent_id, pubkey, addrs, level, name, .. } = contact;
            levels.insert(*agent_id, *level);
            let Some(pubkey) = pubkey.filter(|_| *agent_id != self.me) else { continue };
            let peer =
                wanted.entry(*agent_id).or_insert_with(|| Peer::new(*agent_id, pubkey, Source::Contact));
            peer.level = *level;
            peer.name = name.clone().or(peer.name.take());
            let more = addrs.iter().filter(|addr| !peer.fixed_addrs.contains(addr)).cloned();
            let more: Vec<String> = more.collect();
            peer.fixed_addrs.extend(more);
        }
        let blocked = |id: &AgentId| levels.get(id) == Some(&Level::Blocked);
        wanted.retain(|id, _| !blocked(id));
        let mut out: Vec<AgentId> = Vec::new();
        self.table.retain(|id, peer| {
            let stays = match wanted.get(id) {
                Some(wanted) => wanted.key == peer.key,
                None => {
                    peer.source = peer.found.take().unwrap_or(peer.source);
                    peer.is_found() && !blocked(id) && !self.taken_out.contains(id)
                }
            };
            if !stays {
                out.push(*id);
            } else if !wanted.contains_key(id) {
                (peer.level, peer.name) = (Level::Unknown, None);
                peer.fixed_addrs.clear();
            }
            stays
        });
        for (id, wanted) in wanted {
            let peer = self.table.entry(id).or_insert_with(|| Peer::new(id, wanted.key, wanted.source));
            if peer.fixed_addrs != wanted.fixed_addrs {
                peer.fixed_addrs = wanted.fixed_addrs;
                peer.backoff_ms = BACKOFF_FIRST_MS;
                if matches!(peer.dial, Dial::Idle { .. }) {
                    peer.dial = Dial::Idle { not_before_ms: 0 };
                }
            }
            if peer.is_found() {
                peer.found = Some(peer.source);
            }
            (peer.source, peer.level, peer.name) = (wanted.source, wanted.level, wanted.name);
        }
        out.sort_unstable();
        self.index_names();
        out
    }

    /// Looks up what everybody is called here, whether they are known, blocked or without a key.
    fn index_names(&mut self) {
        self.names.clear();
        let peers = self.table.values().map(|peer| (peer.id, &peer.name));
        let live = self.contacts.iter().filter(|contact| contact.holds(self.as_of_ms));
        let live = live.map(|contact| (contact.agent_id, &contact.name));
        let fixed = self.statics.iter().map(|peer| (peer.agent_id, &peer.name));
        for (id, name) in peers.chain(live).chain(fixed) {
            let Some(name) = name else { continue };
            let ids = self.names.entry(name.clone()).or_default();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }

    /// How far an agent is trusted: none where nobody knows it.
    pub fn level(&self, id: AgentId, wall_ms: u64) -> Option<Level> {
        let blocked = || self.contacts.live(id, wall_ms).map(|contact| contact.level);
        self.get(id).map(|peer| peer.level).or_else(blocked)
    }

    /// Whether some contact has ended to hold since the table was last made.
    pub fn is_expiry_due(&self, wall_ms: u64) -> bool {
        self.contacts.next_expiry_ms(self.as_of_ms).is_some_and(|at_ms| at_ms <= wall_ms)
    }

    /// Forgets an agent in this run: the network does not bring it back.
    pub fn keep_out(&mut self, id: AgentId) {
        self.taken_out.insert(id);
    }

    /// Whether an agent was forgotten in this run.
    pub fn is_kept_out(&self, id: AgentId) -> bool {
        self.taken_out.contains(&id)
    }

    /// The same as of the last [`Self::rebuild`].
    pub fn level_now(&self, id: AgentId) -> Option<Level> {
        self.level(id, self.as_of_ms)
    }

    /// Whether what an agent sends waits until it is resumed.
    pub fn is_paused(&self, id: AgentId) -> bool {
        let live = self.contacts.live(id, self.as_of_ms);
        self.contacts.paused() || live.is_some_and(|contact| contact.paused)
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
        if key.agent_id() != id || id == self.me || self.taken_out.contains(&id) || self.is_blocked(id) {
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
        match peer.source {
            Source::Cached => peer.source = Source::Found,
            Source::Contact => peer.found = Some(Source::Found),
            Source::Static | Source::Found => {}
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
            .iter()
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

    /// This agent.
    pub fn me(&self) -> AgentId {
        self.me
    }

    /// One peer, to change.
    pub fn get_mut(&mut self, id: AgentId) -> Option<&mut Peer> {
        self.table.get_mut(&id)
    }

    /// All peers, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> + Clone {
        let mut peers: Vec<&Peer> = self.table.values().collect();
        peers.sort_unstable_by_key(|peer| peer.id);
        peers.into_iter()
    }

    /// Whether an entry says that this agent is blocked.
    pub fn is_blocked(&self, id: AgentId) -> bool {
        let live = self.contacts.live(id, self.as_of_ms);
        !self.table.contains_key(&id) && live.is_some_and(|contact| contact.level == Level::Blocked)
    }

    /// The keys that the TLS handshake may accept.
    pub fn pins(&self, strangers: bool, allowed: HashSet<AgentId>) -> Pins {
        let blocked = self.contacts.iter().map(|contact| contact.agent_id).filter(|id| self.is_blocked(*id));
        Pins {
            keys: self.table.values().map(|peer| (peer.id, peer.key)).collect(),
            blocked: blocked.collect(),
            strangers,
            allowed,
        }
    }

    /// What the cache on disk holds.
    pub fn cache(&self) -> Vec<KnownPeer> {
        let cached = self.iter().filter(|peer| peer.kept && peer.is_found());
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
    /// digits. What a peer calls itself, and prefixes, mean peers that are known or trusted only: anybody on
    /// the network can have a name, and make a key whose id begins as another's.
    pub fn resolve(&self, text: &str) -> Result<AgentId, IpcError> {
        let id = self.meant(text)?;
        if self.is_blocked(id) {
            let message = format!("{id} is blocked here: `axon trust {id} known` lets it in again");
            return Err(IpcError::new(IpcCode::NotAuthorized, message));
        }
        self.known(id)
    }

    /// The agent that the owner means: as [`Self::resolve`], but also one that is blocked, and any whole id.
    ///
    /// # Errors
    /// When it means none or several, or this agent itself.
    pub fn meant(&self, text: &str) -> Result<AgentId, IpcError> {
        let own = "this is your own agent: name another, `axon peers` lists those known";
        let own = || Err(IpcError::new(IpcCode::SelfSend, own));
        if let Ok(id) = text.parse::<AgentId>() {
            return if id == self.me { own() } else { Ok(id) };
        }
        let live = || self.contacts.iter().filter(|contact| contact.holds(self.as_of_ms));
        let named = self.names.get(text).map_or(&[][..], Vec::as_slice);
        if let [id] = named {
            return Ok(*id);
        }
        let of_peers = self.table.values().filter(|peer| peer.level >= Level::Known);
        let claimed = of_peers.clone().filter(|peer| peer.claimed_name.as_deref() == Some(text));
        let digits = text.get(..8).filter(|head| head.eq_ignore_ascii_case(AgentId::PREFIX));
        let digits = digits.map_or(text, |head| &text[head.len()..]).to_ascii_lowercase();
        let hex = (4..=32).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let blocked = live().filter(|contact| contact.level != Level::Unknown);
        let ids = of_peers.clone().map(|peer| peer.id).chain(blocked.map(|contact| contact.agent_id));
        let prefixed = ids
            .chain([self.me])
            .filter(|id| hex && id.to_string()[AgentId::PREFIX.len()..].starts_with(&digits));
        // A claimed name that looks like another peer's digits must not catch what is meant for that one.
        let mut fitting: Vec<AgentId> =
            claimed.map(|peer| peer.id).chain(prefixed).chain(named.iter().copied()).collect();
        fitting.sort_unstable();
        fitting.dedup();
        match &fitting[..] {
            [id] if *id == self.me => own(),
            [id] => Ok(*id),
            [] => Err(IpcError::new(
                IpcCode::PeerNotFound,
                format!(
                    "no peer is called \"{}\" (an id's beginning needs 4 digits, and one that is unknown its \
                     whole id): `axon peers` lists those known; `axon connect LINK` adds one",
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
        if self.table.contains_key(&id) {
            return Ok(id);
        }
        let message = format!(
            "{id} is not known here: pair with `axon connect LINK`, or wait until it is found on the network"
        );
        Err(IpcError::new(IpcCode::PeerNotFound, message))
    }

    /// Found peers are bounded: the one seen longest ago goes, cached ones last.
    fn make_room(&mut self, connected: impl Fn(AgentId) -> bool) {
        let found = self.iter().filter(|peer| peer.is_found());
        if !has_room("found peers", found.clone().count() < FOUND_PEERS_MAX)
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
        Peers::new(key(0).agent_id(), Vec::new(), Contacts::default())
    }

    #[test]
    fn a_peer_is_named_by_id_prefix_or_name() {
        let mut peers = peers();
        peers.configure(&[fixed(1, Some("anna")), fixed(2, None), fixed(3, None)], 0);
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

    // shows: WF-MDNS-3
    #[test]
    fn an_advert_adds_addresses_and_never_changes_a_key() {
        let mut peers = peers();
        let addr: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert!(!peers.found(key(1).agent_id(), key(2), &[addr], 0, |_| false), "id is not the key's");
        assert!(peers.found(key(1).agent_id(), key(1), &[addr], 0, |_| false));
        assert!(!peers.found(key(1).agent_id(), key(1), &[addr], 10, |_| false));
        peers.configure(&[fixed(2, None)], 0);
        peers.found(key(2).agent_id(), key(2), &[addr], 0, |_| false);
        assert_eq!(peers.get(key(2).agent_id()).unwrap().addrs(), ["host:7100", "127.0.0.1:1"]);
        assert_eq!(peers.sweep(10 + STALE_MS, |_| false), [key(1).agent_id()]);
        assert_eq!(peers.configure(&[], 0), [key(2).agent_id()]);
        assert!(peers.pins(false, HashSet::new()).keys.is_empty());
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
