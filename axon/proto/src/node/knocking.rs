//! Knocks at this daemon: judged by rules, in order, and by nothing that they say.
//!
//! Source: `spec/kinds/pairing.md`, "Judgement".

use std::net::{IpAddr, SocketAddr};

use super::jobs::{Answered, End, Said, Step, Undo};
use super::timers::Key;
use super::{ConnId, Node, Now, StreamId};
use crate::audit::Event;
use crate::contacts::{Contact, ContactChange};
use crate::error::{PeerCode, Refusal};
use crate::family::{Inbound, Kind};
use crate::fault::has_room;
use crate::id::{AgentId, PublicKey};
use crate::limits::{ADDRS_PER_PEER_MAX, GUESS_WAIT_FIRST_MS, STRANGERS_MAX, STRANGERS_PER_ADDR_MAX};
use crate::pairing::payload::{Admission, Admitted, Constraints, Knock};
use crate::pairing::{Intent, Invite, Waiting, site};
use crate::session::{Phase, Session};
use crate::trust::{Asked, Level, Policies, Policy, check};
use crate::wire::{Envelope, to_raw};

/// When somebody may knock again who found no room.
const FULL_MS: u64 = 60_000;

impl Node {
    /// Whether one more stranger may be heard, from this address.
    pub(super) fn may_hear(&self, addr: IpAddr) -> bool {
        let strangers = self.sessions.iter().filter(|session| session.is_stranger);
        let near = strangers.clone().filter(|session| site(session.addr.ip()) == site(addr)).count();
        has_room("strangers", strangers.count() < STRANGERS_MAX && near < STRANGERS_PER_ADDR_MAX)
    }

    /// A message of a stranger who has said hello: a knock, or nothing.
    pub(super) fn stranger_says(
        &mut self,
        now: Now,
        conn: ConnId,
        stream: Option<StreamId>,
        envelope: Envelope,
    ) {
        let from = envelope.from;
        let ours = self.sessions.get(conn).is_some_and(|session| !session.is_stranger);
        if ours || envelope.kind() != "knock" || stream.is_none() {
            self.dropped.not_authorized += 1;
            let why = "you are not known here: only hello and knock are taken, until the owner lets you in";
            let refusal = Refusal::new(PeerCode::NotAuthorized, why);
            return self.refuse(now, stream, from, Some(envelope.id), &refusal);
        }
        match Knock::parse(envelope.payload()) {
            Ok(knock) => {
                let at_ms = now.wall_ms;
                let message =
                    Inbound { envelope: std::sync::Arc::new(envelope), conn, stream, seq: None, at_ms };
                self.knock(now, &message, &knock);
            }
            Err(why) => {
                self.dropped.malformed += 1;
                let refusal = Refusal::new(PeerCode::InvalidEnvelope, why);
                self.refuse(now, stream, from, Some(envelope.id), &refusal);
            }
        }
    }

    /// Somebody wants in.
    #[inline(never)]
    pub(super) fn knock(&mut self, now: Now, message: &Inbound, knock: &Knock) {
        let Some(session) = self.sessions.get(message.conn) else { return };
        let (peer, key, addr, binding) = (session.peer, session.key, session.addr, session.binding);
        let Some(stream) = message.stream else { return };
        let to = Answered { stream, peer, reference: message.envelope.id };
        let level = self.peers.level(peer, now.wall_ms);
        // Whoever is blocked was refused in the handshake; this is for the one who was not yet.
        if level == Some(Level::Blocked) {
            return self.turn_away(now, to, "contacts.level", "this agent takes no knock of yours", None);
        }
        if let Some(wait_ms) = self.pairing.guesses.wait_ms(peer, addr.ip(), now.mono_ms) {
            let why = "too many wrong proofs from your key or address: wait";
            return self.turn_away(now, to, "guesses", why, Some(wait_ms));
        }
        if level.is_none_or(|level| level < Level::Known)
            && let Some(wait_ms) = self.over_rate(now, addr.ip(), knock.proof().is_some())
        {
            return self.turn_away(now, to, "knock.per_minute", "too many knock here now", Some(wait_ms));
        }
        if let Some((id, proof)) = knock.proof() {
            let invite = id.and_then(|id| self.pairing.invites.get(id, now.wall_ms));
            let proven = invite.is_some_and(|invite| invite.key.proves(proof, &key, &self.key, &binding));
            // Who has all that it gives does not use it up.
            let lasting = self.peers.contacts().live(peer, now.wall_ms).is_none_or(|c| c.expiry_ms.is_none());
            if let Some(level) = level.filter(|level| {
                lasting && proven && invite.is_some_and(|invite| *level >= invite.level.max(Level::Known))
            }) {
                let admission = self.admission(now, peer, level);
                return self.answer_knock(now, to, &admission);
            }
            let used = id.filter(|_| proven).and_then(|id| self.pairing.invites.take(id, now.wall_ms));
            let Some((invite, write)) = used else {
                self.pairing.guesses.wrong(peer, addr.ip(), now.mono_ms);
                self.audit(now, Event::Guess, level.map(|_| peer), "invite");
                let why = "this invite is wrong, used, revoked or expired: ask for a new one";
                let wait_ms = self.pairing.guesses.wait_ms(peer, addr.ip(), now.mono_ms);
                return self.turn_away(now, to, "invite", why, wait_ms.or(Some(GUESS_WAIT_FIRST_MS)));
            };
            self.pairing.guesses.right(peer);
            self.pairing.knocks.undeny(peer);
            let why = invite.label.clone().map_or("invite".to_owned(), |label| format!("invite {label}"));
            let given = invite.level;
            return self.let_in(now, to, key, knock, (given, why), Some((invite, write)));
        }
        if let Some(level) = level.filter(|level| *level >= Level::Known) {
            let admission = self.admission(now, peer, level);
            return self.answer_knock(now, to, &admission);
        }
        if let Some(wait_ms) = self.pairing.knocks.denied_ms(peer, now.mono_ms) {
            return self.turn_away(now, to, "denied", "the owner has turned you away", Some(wait_ms));
        }
        let allowed = self.settings.knock.allow.contains(&peer);
        if !self.settings.knock.open && !allowed {
            let why = "this agent takes no knocks without an invite: ask its owner for one";
            return self.turn_away(now, to, "knock.open", why, None);
        }
        if !self.wants_intent(knock.intent.as_ref()) {
            let wanted = self.settings.knock.intents.clone().unwrap_or_default().join(", ");
            let why = format!("knocks are taken for these intents only: {wanted}");
            return self.turn_away(now, to, "knock.intents", &why, None);
        }
        if allowed {
            return self.let_in(now, to, key, knock, (Level::Known, "knock.allow".into()), None);
        }
        if !self.pairing.knocks.has_room(peer, Some(site(addr.ip()))) {
            let why = "too many knocks wait for the owner: try again later";
            return self.turn_away(now, to, "capacity", why, Some(FULL_MS));
        }
        let waiting = Waiting {
            agent_id: peer,
            pubkey: key,
            addrs: addresses(knock, addr),
            name: knock.name.clone(),
            intent: knock.intent.clone(),
            session: knock.session.clone(),
            message: knock.message.clone(),
            at_ms: now.wall_ms,
            count: 1,
            rekey_of: None,
            site: Some(site(addr.ip())),
        };
        let (waiting, new) = self.pairing.knocks.add(waiting);
        if new {
            self.tell_knock(&waiting);
        }
        self.audit(now, Event::Knock, Some(peer), "pending");
        let admission = Admission {
            decision: Admitted::Pending,
            level: None,
            constraints: None,
            reason: Some("the owner decides".into()),
            retry_after_ms: Some(FULL_MS),
        };
        let end = End::Knock { to, admission: Box::new(admission), used: None, undo: None };
        self.begin(now, [Step::Store(vec![waiting.write()])], end);
    }

    /// Makes a peer of somebody, and says so when that is on disk.
    fn let_in(
        &mut self,
        now: Now,
        to: Answered,
        key: PublicKey,
        knock: &Knock,
        (given, why): (Level, String),
        invite: Option<(Invite, crate::store::Write)>,
    ) {
        let before = self.peers.contacts().get(to.peer).cloned().map(Box::new);
        let mut contact = self.contact_of(now, to.peer);
        contact.pubkey = Some(key);
        if given >= contact.level {
            (contact.level, contact.expiry_ms) = (given, None);
            contact.why = Some(why);
        }
        let known = contact.addrs.clone();
        contact.addrs.extend(knock.addrs.iter().filter(|addr| !known.contains(addr)).cloned());
        contact.addrs.truncate(ADDRS_PER_PEER_MAX);
        let level = contact.level;
        self.join_provided(to.peer, &contact);
        let put = Box::new(contact.clone());
        let change = ContactChange::Put(contact);
        let (used, write) = invite.map_or((None, None), |(invite, write)| (Some(invite), Some(write)));
        if self.apply_contacts(now, std::slice::from_ref(&change)).is_err() {
            used.into_iter().for_each(|invite| drop(self.pairing.invites.give_back(invite)));
            return self.turn_away(
                now,
                to,
                "capacity",
                "there is no room for one more contact",
                Some(FULL_MS),
            );
        }
        self.invites_changed(now);
        self.audit(now, Event::Paired, Some(to.peer), level.as_str());
        let mut writes: Vec<_> = write.into_iter().collect();
        if self.pairing.knocks.remove(to.peer).is_some() {
            writes.push(Waiting::delete(to.peer));
        }
        let admission = Box::new(self.admission(now, to.peer, level));
        let steps = [Step::Store(writes), Step::Contacts(vec![Said::Of(to.peer)])];
        self.begin(now, steps, End::Knock { to, admission, used, undo: Some((before, put)) });
    }

    /// What was decided on a knock is on disk, or could not be stored.
    pub(super) fn admitted(
        &mut self,
        now: Now,
        to: Answered,
        admission: Admission,
        (used, undo): (Option<Invite>, Option<Undo>),
        outcome: Result<String, String>,
    ) {
        let Err(_) = outcome else { return self.answer_knock(now, to, &admission) };
        // What is not written down is not promised, and does not hold.
        let held = |put: &Contact| self.peers.contacts().get(to.peer) == Some(put);
        // Unless something else was said of it meanwhile.
        if let Some((before, _)) = undo.filter(|(_, put)| held(put)) {
            let gone = match before {
                Some(contact) => {
                    self.apply_contacts(now, &[ContactChange::Put(*contact)]).unwrap_or_default()
                }
                None => self.unsay(now, to.peer),
            };
            gone.into_iter().for_each(|id| self.drop_peer(now, id, "not paired"));
        }
        if let Some(invite) = used {
            let write = self.pairing.invites.give_back(invite);
            self.note([write]);
            self.invites_changed(now);
        }
        self.pairing.knocks.remove(to.peer);
        let why = "this daemon cannot write to its disk now: try again later";
        self.answer_knock(now, to, &Admission::reject(why, Some(FULL_MS)));
    }

    /// Takes back, in memory, what was said of a peer; gives who is out by that.
    pub(super) fn unsay(&mut self, now: Now, peer: AgentId) -> Vec<AgentId> {
        let out = self.peers.unsay(peer, now.wall_ms);
        self.publish_pins();
        out
    }

    fn turn_away(&mut self, now: Now, to: Answered, rule: &str, why: &str, wait_ms: Option<u64>) {
        let known = self.peers.level(to.peer, now.wall_ms).map(|_| to.peer);
        self.audit(now, Event::Knock, known, rule);
        self.answer_knock(now, to, &Admission::reject(why, wait_ms));
    }

    fn answer_knock(&mut self, now: Now, to: Answered, admission: &Admission) {
        let Answered { stream, peer, reference } = to;
        self.respond(now, stream, peer, reference, "admission", &to_raw(admission).into());
    }

    /// What a peer of this level may do.
    fn admission(&self, now: Now, peer: AgentId, level: Level) -> Admission {
        let until_ms = self.peers.contacts().live(peer, now.wall_ms).and_then(|contact| contact.expiry_ms);
        let constraints = self.settings.policies.of(level).map(|policy| {
            let kinds = self.families.iter().flat_map(|family| family.vocabulary().kinds);
            let fits = |kind: &&Kind| match &policy.kinds {
                None => kind.needs <= level,
                Some(kinds) => kinds.iter().any(|listed| listed == "*" || listed == kind.name),
            };
            let kinds =
                kinds.filter(|kind| kind.is_request() || kind.sendable == crate::family::Sendable::Yes);
            let kinds = kinds.filter(|kind| kind.name != "hello").filter(fits);
            Constraints::of(policy, kinds.map(|kind| kind.name.to_owned()).collect(), until_ms)
        });
        Admission {
            decision: Admitted::Accept,
            level: Some(level),
            constraints,
            reason: None,
            retry_after_ms: None,
        }
    }

    /// How long this one must wait because too many have knocked; none: it is heard.
    ///
    /// No address has more than a quarter of what is heard. Who shows a proof is not held up by those
    /// without: wrong proofs have waits of their own.
    fn over_rate(&mut self, now: Now, addr: IpAddr, invited: bool) -> Option<u64> {
        let rate = self.settings.knock.per_minute;
        let mut policies = Policies::default();
        policies.unknown = Policy {
            messages_per_minute: rate.div_ceil(4),
            level_messages_per_minute: if invited { 0 } else { rate },
            ..policies.known.clone()
        };
        let asked = Asked {
            // An address stands for whoever comes from it: keys cost nothing.
            peer: PublicKey(site_bytes(addr)).agent_id(),
            level: Level::Unknown,
            kind: "knock",
            needs: Level::Unknown,
            domain: None,
            payload_bytes: 0,
            bytes: 0,
            in_flight: None,
        };
        let against = check(&policies, &mut self.pairing.rate, &asked, now.mono_ms, true)?;
        Some(against.retry_after_ms.unwrap_or(FULL_MS))
    }

    fn wants_intent(&self, intent: Option<&Intent>) -> bool {
        let Some(wanted) = &self.settings.knock.intents else { return true };
        let Some(Intent { category, action }) = intent else { return false };
        let whole = format!("{category}/{}", action.as_deref().unwrap_or_default());
        wanted.iter().any(|wanted| wanted == category || *wanted == whole)
    }

    /// A stranger has been heard for as long as it may.
    #[inline(never)]
    pub(super) fn stranger_due(&mut self, now: Now, conn: ConnId) {
        let heard = |session: &Session| session.is_stranger || session.phase == Phase::Stranger;
        if self.sessions.get(conn).is_some_and(heard) {
            self.close(now, conn, 4, "strangers are heard briefly");
        }
    }

    /// Knocks that nobody has judged for too long, and what belongs to them.
    pub(super) fn sweep_knocks(&mut self, now: Now) {
        for id in self.pairing.knocks.expire(now.wall_ms) {
            self.note([Waiting::delete(id)]);
            self.audit(now, Event::Knock, Some(id), "expired");
        }
        self.pairing.rate.sweep(now.mono_ms);
        self.rates.sweep(now.mono_ms);
        self.timers.clear(Key::Herald);
        self.heralds_due(now);
    }
}

/// Where a knocker says that it is, and where it came from: its own words may be wrong or from behind a
/// translation, and this is known to work.
fn addresses(knock: &Knock, addr: SocketAddr) -> Vec<String> {
    let from = addr.to_string();
    let mut addrs: Vec<String> = knock.addrs.iter().filter(|addr| **addr != from).cloned().collect();
    addrs.truncate(ADDRS_PER_PEER_MAX - 1);
    addrs.push(from);
    addrs
}

/// The site of an address, as 32 bytes.
fn site_bytes(addr: IpAddr) -> [u8; 32] {
    let mut bytes = [0; 32];
    match site(addr) {
        IpAddr::V4(addr) => bytes[..4].copy_from_slice(&addr.octets()),
        IpAddr::V6(addr) => bytes[..16].copy_from_slice(&addr.octets()),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_knock_came_from_is_kept_whatever_it_says_itself() {
        let from = SocketAddr::from(([192, 0, 2, 9], 7100));
        let told = |addrs: &[String]| {
            let text = serde_json::json!({ "addrs": addrs }).to_string();
            addresses(&Knock::parse(&text).unwrap(), from)
        };
        assert_eq!(told(&[]), ["192.0.2.9:7100"]);
        assert_eq!(told(&["192.0.2.9:7100".into(), "h:1".into()]), ["h:1", "192.0.2.9:7100"]);
        let eight: Vec<String> = (1..=ADDRS_PER_PEER_MAX).map(|n| format!("h:{n}")).collect();
        let kept = told(&eight);
        assert_eq!(kept.len(), ADDRS_PER_PEER_MAX);
        assert_eq!((kept[0].as_str(), kept[7].as_str()), ("h:1", "192.0.2.9:7100"));
    }
}
