//! Invites that are open, knocks that wait for a word, and who has guessed wrong of late.
//!
//! Source: `spec/kinds/pairing.md`. Pure book-keeping; the node judges and stores.

pub mod payload;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::error::{IpcCode, IpcError};
use crate::fault::has_room;
use crate::id::{AgentId, PublicKey};
use crate::invite::{InviteId, InviteKey, hex, hexed};
use crate::limits::{
    DENIED_MS, GUESS_WAIT_FIRST_MS, GUESS_WAIT_MAX_MS, GUESSERS_MAX, INVITES_MAX, KNOCK_TTL_MS, KNOCKS_MAX,
    KNOCKS_PER_SITE_MAX,
};
use crate::store::Write;
use crate::trust::Level;

/// How the keys of invites begin.
const INVITE: &str = "invite/";
/// Digits by which a knock is called.
const ID_DIGITS: usize = 16;
/// How the keys of knocks begin.
const KNOCK: &str = "knock/";

/// An invite that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// What it is called.
    pub id: InviteId,
    /// What it is proven with.
    pub key: InviteKey,
    /// Until when (Unix milliseconds).
    pub expires_ms: u64,
    /// How often it may still be used.
    pub uses: u64,
    /// The level that it gives.
    pub level: Level,
    /// What its owner called it, and then whom it pairs.
    pub label: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct KeptInvite {
    key: String,
    expires_ms: u64,
    uses: u64,
    level: Level,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
}

impl Invite {
    /// As it is stored.
    pub fn write(&self) -> Write {
        let kept = KeptInvite {
            key: hexed(&self.key.0),
            expires_ms: self.expires_ms,
            uses: self.uses,
            level: self.level,
            label: self.label.clone(),
        };
        Write::put(format!("{INVITE}{}", self.id), serde_json::to_vec(&kept).unwrap_or_default())
    }

    /// As it is taken out of the store.
    pub fn delete(id: InviteId) -> Write {
        Write::delete(format!("{INVITE}{id}"))
    }
}

/// All invites.
#[derive(Debug, Default)]
pub struct Invites(BTreeMap<InviteId, Invite>);

impl Invites {
    /// Takes over an item of the store; false if it is no invite.
    pub fn restore(&mut self, key: &str, value: &[u8]) -> bool {
        let Some(id) = key.strip_prefix(INVITE) else { return false };
        if let (Ok(id), Ok(kept)) = (id.parse::<InviteId>(), serde_json::from_slice::<KeptInvite>(value))
            && let Some(key) = hex(&kept.key).map(InviteKey)
        {
            let KeptInvite { expires_ms, uses, level, label, .. } = kept;
            self.0.insert(id, Invite { id, key, expires_ms, uses, level, label });
        }
        true
    }

    /// Opens an invite.
    ///
    /// # Errors
    /// When there are too many.
    pub fn open(&mut self, invite: Invite) -> Result<(), IpcError> {
        if !has_room("invites", self.0.len() < INVITES_MAX) {
            let message = format!("{INVITES_MAX} invites are open: `axon invite --revoke ID` ends one");
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        self.0.insert(invite.id, invite);
        Ok(())
    }

    /// One that is open now.
    pub fn get(&self, id: InviteId, wall_ms: u64) -> Option<&Invite> {
        self.0.get(&id).filter(|invite| invite.expires_ms > wall_ms)
    }

    /// Uses an invite once; gives it as it is then, and what is to be stored.
    pub fn take(&mut self, id: InviteId, wall_ms: u64) -> Option<(Invite, Write)> {
        let mut invite = self.get(id, wall_ms)?.clone();
        invite.uses = invite.uses.saturating_sub(1);
        let write = if invite.uses == 0 {
            self.0.remove(&id);
            Invite::delete(id)
        } else {
            self.0.insert(id, invite.clone());
            invite.write()
        };
        Some((invite, write))
    }

    /// Puts back one use that was taken; gives what is to be stored.
    pub fn give_back(&mut self, taken: Invite) -> Write {
        let invite = self.0.entry(taken.id).or_insert(Invite { uses: 0, ..taken });
        invite.uses += 1;
        invite.write()
    }

    /// Ends an invite; false if there was none.
    pub fn revoke(&mut self, id: InviteId) -> bool {
        self.0.remove(&id).is_some()
    }

    /// All that are open.
    pub fn iter(&self) -> impl Iterator<Item = &Invite> {
        self.0.values()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out what has expired.
    pub fn expire(&mut self, wall_ms: u64) -> Vec<InviteId> {
        let gone: Vec<InviteId> =
            self.0.values().filter(|invite| invite.expires_ms <= wall_ms).map(|invite| invite.id).collect();
        gone.iter().for_each(|id| drop(self.0.remove(id)));
        gone
    }

    /// When the next one expires.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.0.values().map(|invite| invite.expires_ms).min()
    }
}

/// A knock that waits for its owner's word: of a stranger, or of a known peer with a new key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Who wants in.
    pub agent_id: AgentId,
    /// Its key.
    pub pubkey: PublicKey,
    /// Where it says that it may be reached, and where it came from.
    pub addrs: Vec<String>,
    /// What it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// In which manner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// In its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it first knocked (Unix milliseconds).
    pub at_ms: u64,
    /// How often it has.
    pub count: u64,
    /// The id that it had before, for a new key of a known peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekey_of: Option<AgentId>,
    /// The addresses that it came from, as [`site`] has them; none for a new key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<IpAddr>,
}

/// What a knock is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Intent {
    /// The field.
    pub category: String,
    /// What is to be done there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

impl<'de> Deserialize<'de> for Intent {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            category: String,
            #[serde(default)]
            action: Option<String>,
        }
        let Fields { category, action } = crate::wire::object_only(from)?;
        Ok(Self { category, action })
    }
}

impl Waiting {
    /// What the owner calls it by: the first 16 digits of its agent id.
    pub fn id(&self) -> String {
        short_id(self.agent_id)
    }

    /// As it is stored.
    pub fn write(&self) -> Write {
        Write::put(format!("{KNOCK}{}", self.agent_id), serde_json::to_vec(self).unwrap_or_default())
    }

    /// As it is taken out of the store.
    pub fn delete(agent_id: AgentId) -> Write {
        Write::delete(format!("{KNOCK}{agent_id}"))
    }
}

/// The first 16 digits of an agent id: more than anybody can make a key for.
pub fn short_id(id: AgentId) -> String {
    id.to_string()[AgentId::PREFIX.len()..].chars().take(ID_DIGITS).collect()
}

/// All knocks that wait.
#[derive(Debug, Default)]
pub struct Knocks {
    waiting: BTreeMap<AgentId, Waiting>,
    /// Who was denied, and until when it need not ask again (monotonic milliseconds).
    denied: HashMap<AgentId, u64>,
}

impl Knocks {
    /// Takes over an item of the store; false if it is no knock.
    pub fn restore(&mut self, key: &str, value: &[u8]) -> bool {
        if !key.starts_with(KNOCK) {
            return false;
        }
        if let Ok(waiting) = serde_json::from_slice::<Waiting>(value)
            && self.waiting.len() < KNOCKS_MAX
        {
            self.waiting.insert(waiting.agent_id, waiting);
        }
        true
    }

    /// Whether one more from this site, or this one again, may wait.
    pub fn has_room(&self, id: AgentId, site: Option<IpAddr>) -> bool {
        let near = self.waiting.values().filter(|knock| site.is_some() && knock.site == site).count();
        let has = self.waiting.len() < KNOCKS_MAX && near < KNOCKS_PER_SITE_MAX;
        self.waiting.contains_key(&id) || has_room("knocks", has)
    }

    /// The new key of this agent that waits already.
    pub fn rekey_of(&self, old: AgentId) -> Option<AgentId> {
        self.waiting.values().find(|knock| knock.rekey_of == Some(old)).map(|knock| knock.agent_id)
    }

    /// Lets a knock wait; gives it as it is then, and whether it is new.
    pub fn add(&mut self, mut knock: Waiting) -> (Waiting, bool) {
        let before = self.waiting.get(&knock.agent_id);
        if let Some(before) = before {
            (knock.at_ms, knock.count) = (before.at_ms, before.count + 1);
            knock.rekey_of = knock.rekey_of.or(before.rekey_of);
        }
        let new = before.is_none();
        self.waiting.insert(knock.agent_id, knock.clone());
        (knock, new)
    }

    /// One that waits.
    pub fn get(&self, id: AgentId) -> Option<&Waiting> {
        self.waiting.get(&id)
    }

    /// Takes one out.
    pub fn remove(&mut self, id: AgentId) -> Option<Waiting> {
        self.waiting.remove(&id)
    }

    /// All that wait.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.values()
    }

    /// The one that a person means: an agent id, or at least its first 16 digits.
    ///
    /// # Errors
    /// When it means none or several.
    pub fn find(&self, text: &str) -> Result<AgentId, IpcError> {
        let digits =
            text.get(..AgentId::PREFIX.len()).filter(|head| head.eq_ignore_ascii_case(AgentId::PREFIX));
        let digits = digits.map_or(text, |head| &text[head.len()..]).to_ascii_lowercase();
        let fits = |id: &&AgentId| {
            digits.len() >= ID_DIGITS && id.to_string()[AgentId::PREFIX.len()..].starts_with(&digits)
        };
        let mut fitting = self.waiting.keys().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok(*id),
            (None, _) => Err(IpcError::new(
                IpcCode::NotFound,
                "no knock of that id waits: `axon knocks` lists those that do",
            )),
            (Some(_), Some(_)) => {
                Err(IpcError::new(IpcCode::NotFound, "several knocks begin so: give more digits of the id"))
            }
        }
    }

    /// Turns a key away for a while.
    pub fn deny(&mut self, id: AgentId, mono_ms: u64) {
        self.denied.retain(|_, until| *until > mono_ms);
        if self.denied.len() < GUESSERS_MAX {
            self.denied.insert(id, mono_ms + DENIED_MS);
        }
    }

    /// How long this key is still turned away.
    pub fn denied_ms(&self, id: AgentId, mono_ms: u64) -> Option<u64> {
        self.denied.get(&id).map(|until| until.saturating_sub(mono_ms)).filter(|left| *left > 0)
    }

    /// Its owner has changed his mind.
    pub fn undeny(&mut self, id: AgentId) {
        self.denied.remove(&id);
    }

    /// Takes out what nobody has judged for too long.
    pub fn expire(&mut self, wall_ms: u64) -> Vec<AgentId> {
        let old = |waiting: &&Waiting| waiting.at_ms.saturating_add(KNOCK_TTL_MS) <= wall_ms;
        let gone: Vec<AgentId> = self.waiting.values().filter(old).map(|waiting| waiting.agent_id).collect();
        gone.iter().for_each(|id| drop(self.waiting.remove(id)));
        gone
    }
}

/// The addresses that one guesser is likely to have: one of IPv4, a /64 of IPv6.
pub fn site(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => {
            let [a, b, c, d, ..] = addr.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// Who has guessed wrong, by key and by address: each waits, and longer each time.
#[derive(Debug, Default)]
pub struct Guesses {
    keys: HashMap<AgentId, Wait>,
    sites: HashMap<IpAddr, Wait>,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    until_ms: u64,
    wait_ms: u64,
}

impl Guesses {
    /// How long this key at this address must wait before it is listened to.
    pub fn wait_ms(&self, id: AgentId, addr: IpAddr, mono_ms: u64) -> Option<u64> {
        let left = |wait: Option<&Wait>| wait.map_or(0, |wait| wait.until_ms.saturating_sub(mono_ms));
        let left = left(self.keys.get(&id)).max(left(self.sites.get(&site(addr))));
        (left > 0).then_some(left)
    }

    /// Notes a wrong guess.
    pub fn wrong(&mut self, id: AgentId, addr: IpAddr, mono_ms: u64) {
        longer(&mut self.keys, id, mono_ms);
        longer(&mut self.sites, site(addr), mono_ms);
    }

    /// A right one: the key need not wait any more.
    pub fn right(&mut self, id: AgentId) {
        self.keys.remove(&id);
    }
}

fn longer<K: Hash + Eq + Copy>(table: &mut HashMap<K, Wait>, key: K, mono_ms: u64) {
    if !table.contains_key(&key) && !has_room("guessers", table.len() < GUESSERS_MAX) {
        // The one that is free soonest makes room.
        let first = table.iter().min_by_key(|(_, wait)| wait.until_ms).map(|(key, _)| *key);
        first.into_iter().for_each(|key| _ = table.remove(&key));
    }
    let wait_ms = match table.get(&key) {
        // What lies long enough back does not count.
        Some(wait) if wait.until_ms + GUESS_WAIT_MAX_MS > mono_ms => {
            (wait.wait_ms * 2).min(GUESS_WAIT_MAX_MS)
        }
        _ => GUESS_WAIT_FIRST_MS,
    };
    table.insert(key, Wait { until_ms: mono_ms + wait_ms, wait_ms });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invite::Secret;

    fn invite(n: u8, uses: u64) -> Invite {
        let (id, key) = Secret([n; 16]).key();
        Invite { id, key, expires_ms: 1_000, uses, level: Level::Known, label: Some("l".into()) }
    }

    #[test]
    fn an_invite_is_used_as_often_as_it_may_and_survives_a_restart() {
        let mut invites = Invites::default();
        invites.open(invite(1, 2)).unwrap();
        let id = invite(1, 2).id;
        let (taken, Write::Put { key, value }) = invites.take(id, 0).unwrap() else { panic!() };
        assert_eq!(taken.uses, 1);
        let mut again = Invites::default();
        assert!(again.restore(&key, &value) && !again.restore("knock/x", b""));
        assert_eq!(again.get(id, 0), Some(&taken));
        assert!(invites.get(id, 1_000).is_none(), "expired");
        assert!(matches!(invites.take(id, 0), Some((_, Write::Delete { .. }))));
        assert!(invites.take(id, 0).is_none() && invites.is_empty());
        invites.give_back(invite(1, 0));
        assert_eq!(invites.expire(1_000), [id]);
        for n in 0..INVITES_MAX {
            invites.open(invite(n as u8, 1)).unwrap();
        }
        assert!(invites.open(invite(255, 1)).is_err());
    }

    #[test]
    fn each_wrong_guess_makes_the_next_wait_longer_by_key_and_by_address() {
        let mut guesses = Guesses::default();
        let (a, b) = (AgentId([1; 16]), AgentId([2; 16]));
        let (home, away) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert_eq!(guesses.wait_ms(a, home, 0), None);
        guesses.wrong(a, home, 0);
        assert_eq!(guesses.wait_ms(a, away, 0), Some(GUESS_WAIT_FIRST_MS), "the key");
        assert_eq!(guesses.wait_ms(b, home, 0), Some(GUESS_WAIT_FIRST_MS), "the address");
        assert_eq!(guesses.wait_ms(b, away, 0), None);
        guesses.wrong(a, home, 1_000);
        assert_eq!(guesses.wait_ms(a, away, 1_000), Some(2 * GUESS_WAIT_FIRST_MS));
        for n in 0..3 * GUESSERS_MAX {
            let mut id = [9; 16];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            guesses.wrong(AgentId(id), home, 2_000);
        }
        assert!(guesses.keys.len() <= GUESSERS_MAX);
        assert_eq!(guesses.wait_ms(b, home, 2_000), Some(GUESS_WAIT_MAX_MS));
        let six = |text: &str| site(text.parse().unwrap());
        assert_eq!(six("2001:db8::1"), six("2001:db8::2:3"));
        assert_ne!(six("2001:db8:0:1::1"), six("2001:db8::1"));
    }

    #[test]
    fn knocks_wait_once_for_each_key_and_are_bounded() {
        let mut knocks = Knocks::default();
        let knock = |n: u8| {
            let pubkey = PublicKey([n; 32]);
            Waiting {
                agent_id: pubkey.agent_id(),
                pubkey,
                addrs: vec![],
                name: None,
                intent: None,
                session: None,
                message: None,
                at_ms: 5,
                count: 1,
                rekey_of: None,
                site: None,
            }
        };
        assert!(knocks.add(knock(1)).1);
        let (again, new) = knocks.add(Waiting { at_ms: 9, ..knock(1) });
        assert_eq!((again.at_ms, again.count, new), (5, 2, false));
        let id = knock(1).agent_id;
        assert_eq!(knocks.find(&again.id()), Ok(id));
        assert_eq!(knocks.find(&id.to_string()), Ok(id));
        assert!(knocks.find("abc").is_err());
        let Write::Put { key, value } = again.write() else { panic!() };
        let mut restored = Knocks::default();
        assert!(restored.restore(&key, &value));
        assert_eq!(restored.get(id), Some(&again));
        for n in 0..KNOCKS_MAX {
            knocks.add(knock(n as u8));
        }
        assert!(!knocks.has_room(knock(200).agent_id, None) && knocks.has_room(id, None));
        knocks.deny(id, 0);
        assert_eq!((knocks.denied_ms(id, 1), knocks.denied_ms(id, DENIED_MS)), (Some(DENIED_MS - 1), None));
        assert_eq!(knocks.expire(5 + KNOCK_TTL_MS).len(), KNOCKS_MAX);
    }
}
