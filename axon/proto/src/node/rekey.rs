//! A new key: ours, told to those who know the old one; and a peer's.
//!
//! Source: `spec/kinds/pairing.md`, "rekey". A statement is signed with both keys and sent over a connection
//! that is made with the old one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::contacting::few_addrs;
use super::jobs::{Answered, End, Said, Step};
use super::timers::Key;
use super::{ClientId, Effect, Lost, Node, Now, OldKey, Token};
use crate::audit::Event;
use crate::contacts::{Contact, ContactChange};
use crate::error::{IpcCode, IpcError, PeerCode, Refusal};
use crate::family::{Inbound, Input as FamilyInput};
use crate::id::{AgentId, PublicKey};
use crate::ipc::{Command, Line};
use crate::pairing::Waiting;
use crate::pairing::payload::Rekey;
use crate::store::Write;
use crate::trust::Level;
use crate::wire::{Envelope, Header, decode, encode, to_raw};

/// How the keys of peers begin that have been told of a new key.
const TOLD: &str = "told/";
/// How long telling one peer may take.
const TELL_MS: u64 = 10_000;
/// First wait before a peer that could not be told is tried again; doubles.
const AGAIN_FIRST_MS: u64 = 30_000;
/// Longest such wait.
const AGAIN_MAX_MS: u64 = 3_600_000;
/// Peers that are told at once.
const AT_ONCE: usize = 4;

/// Old keys of ours, and who has not heard yet that there is another.
#[derive(Debug)]
pub(super) struct Heralds {
    old: Vec<OldKey>,
    told: BTreeSet<(AgentId, AgentId)>,
    under_way: HashMap<Token, (AgentId, AgentId)>,
    /// When which is tried again, and the wait after that.
    again: HashMap<(AgentId, AgentId), (u64, u64)>,
}

impl Heralds {
    pub(super) fn new(old: Vec<OldKey>) -> Self {
        Self { old, told: BTreeSet::new(), under_way: HashMap::new(), again: HashMap::new() }
    }
}

impl Node {
    // --- our own ---

    pub(super) fn rekey(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let end = End::Rekeyed { client, req_id: command.req_id().to_owned() };
        self.audit(now, Event::Rekey, None, "own");
        self.begin(now, [Step::Rekey], end);
        Ok(())
    }

    pub(super) fn rekeyed(
        &mut self,
        now: Now,
        client: ClientId,
        req_id: &str,
        outcome: Result<String, String>,
    ) {
        let key = outcome.and_then(|text| text.parse::<PublicKey>().map_err(|error| error.to_string()));
        match key {
            Ok(key) => {
                let line =
                    Line::ok(req_id).field("agent_id", &key.agent_id()).field("old_agent_id", &self.me);
                self.answer_line(client, req_id, Ok(line.end()));
                self.drop_invites();
                self.stop(now);
            }
            Err(why) => self.answer_line(client, req_id, Err(IpcError::new(IpcCode::InternalError, why))),
        }
    }

    /// Takes over an item of the store; false if it is about nobody who was told.
    pub(super) fn restore_told(&mut self, key: &str) -> bool {
        let Some(pair) = key.strip_prefix(TOLD) else { return false };
        if let Some((old, peer)) = pair.split_once('/')
            && let (Ok(old), Ok(peer)) = (old.parse(), peer.parse())
        {
            self.heralds.told.insert((old, peer));
        }
        true
    }

    /// Tells those who have not been told, as far as it is time.
    pub(super) fn heralds_due(&mut self, now: Now) {
        if self.heralds.old.is_empty() || self.stopping || self.started.is_none() {
            return;
        }
        self.tell_due(now);
    }

    /// Few daemons ever have an old key.
    #[inline(never)]
    fn tell_due(&mut self, now: Now) {
        let mut due = Vec::new();
        let mut next: Option<u64> = None;
        for old in self.heralds.old.iter().filter(|old| old.until_ms > now.wall_ms) {
            for peer in self.peers.iter().filter(|peer| peer.level >= Level::Known) {
                let pair = (old.key.agent_id(), peer.id);
                let since_ms = self.peers.contacts().get(peer.id).map_or(0, |contact| contact.since_ms);
                let busy = self.heralds.under_way.values().any(|other| *other == pair);
                if self.heralds.told.contains(&pair) || busy || since_ms > old.statement.at_ms {
                    continue;
                }
                let at_ms = self.heralds.again.get(&pair).map_or(0, |(at_ms, _)| *at_ms);
                if at_ms > now.mono_ms || peer.addrs().is_empty() {
                    next = Some(next.map_or(at_ms, |next| next.min(at_ms)).max(now.mono_ms + 1_000));
                } else {
                    due.push((old.clone(), peer.id, peer.key, peer.addrs()));
                }
            }
        }
        for (old, peer, key, addrs) in due {
            if self.heralds.under_way.len() >= AT_ONCE {
                next = Some(now.mono_ms + 1_000);
                break;
            }
            self.herald(now, &old, peer, key, addrs);
        }
        next.into_iter().for_each(|at_ms| self.timers.set(Key::Herald, at_ms));
    }

    fn herald(&mut self, now: Now, old: &OldKey, peer: AgentId, key: PublicKey, addrs: Vec<String>) {
        let from = old.key.agent_id();
        let (hello, statement) = (to_raw(&self.own_hello(None)), to_raw(&old.statement));
        let mut made = |kind: &str, payload: &serde_json::value::RawValue| {
            let header = Header {
                id: self.random_id(),
                from,
                to: peer,
                ts: now.wall_ms.max(1),
                kind,
                reference: None,
                resend_until: None,
                read_receipt: false,
            };
            encode(header, payload).map(|envelope| envelope.raw().clone())
        };
        let (Ok(hello), Ok(message)) = (made("hello", &hello), made("rekey", &statement)) else { return };
        let token = self.new_token();
        self.heralds.under_way.insert(token, (from, peer));
        let old = from;
        self.out.push(Effect::Herald { token, old, peer, key, addrs, hello, message, timeout_ms: TELL_MS });
    }

    /// A peer was told of our new key, or could not be; false when the token is of no such thing.
    pub(super) fn heralded(&mut self, now: Now, token: Token, outcome: &Result<Vec<u8>, Lost>) -> bool {
        let Some(pair) = self.heralds.under_way.remove(&token) else { return false };
        let answer = outcome.as_ref().ok().and_then(|bytes| decode(bytes.clone()).ok());
        let kind = answer.as_ref().map(|answer| answer.kind());
        // One that takes no new keys will not take this one tomorrow either.
        let refused = answer.as_ref().and_then(super::answer::peer_refusal).and_then(|(code, _)| code);
        if kind == Some("ack") || matches!(refused, Some(PeerCode::UnknownKind | PeerCode::NotAuthorized)) {
            self.heralds.told.insert(pair);
            self.heralds.again.remove(&pair);
            self.note([Write::put(format!("{TOLD}{}/{}", pair.0, pair.1), "")]);
            self.audit(
                now,
                Event::Rekey,
                Some(pair.1),
                if kind == Some("ack") { "told" } else { "not taken" },
            );
        } else {
            let wait_ms = self.heralds.again.get(&pair).map_or(AGAIN_FIRST_MS, |(_, wait_ms)| *wait_ms);
            let next = (wait_ms * 2).min(AGAIN_MAX_MS);
            self.heralds.again.insert(pair, (now.mono_ms + wait_ms, next));
        }
        self.heralds_due(now);
        true
    }

    // --- a peer's ---

    /// A peer says that it has a new key.
    #[inline(never)]
    pub(super) fn peer_rekey(&mut self, now: Now, message: &Inbound, rekey: &Rekey) {
        let Some(session) = self.sessions.get(message.conn) else { return };
        let (old, old_key) = (session.peer, session.key);
        let Some(stream) = message.stream else { return };
        let new = rekey.new_key.agent_id();
        let refusal = match rekey.signatures() {
            _ if rekey.old_key != old_key || new == old || new == self.me => {
                Some("old_key must be the key of this connection, and new_key another")
            }
            _ if self.peers.is_blocked(new) => Some("the new key is blocked here"),
            Some((by_old, by_new)) => {
                let signed = Rekey::signed(&rekey.old_key, &rekey.new_key, rekey.at_ms);
                let verify = self.verify;
                let both =
                    verify(&rekey.old_key, &signed, &by_old) && verify(&rekey.new_key, &signed, &by_new);
                (!both).then_some("a signature is wrong: sign label, keys and time with both keys")
            }
            None => Some("a signature is missing"),
        };
        if let Some(why) = refusal {
            self.audit(now, Event::Rekey, Some(old), "refused");
            let refusal = Refusal::new(PeerCode::NotAuthorized, why);
            return self.refuse(now, Some(stream), old, Some(message.envelope.id), &refusal);
        }
        let to = Answered { stream, peer: old, reference: message.envelope.id };
        if self.settings.knock.accept_rekey {
            self.join_overruled(now, new);
            let contact = self.successor(now, old, rekey.new_key, Level::Trusted);
            if self.apply_contacts(now, &[ContactChange::Put(contact)]).is_err() {
                return self.refuse(now, Some(stream), old, Some(message.envelope.id), &full());
            }
            self.audit(now, Event::Rekey, Some(new), "knock.accept_rekey");
            // The old one goes in the same change of the file, and here once it is answered.
            let steps = [Step::Contacts(vec![Said::Gone(old), Said::Of(new)])];
            return self.begin(now, steps, End::NewKey { to, state: "taken", new: Some(new) });
        }
        // One waits for each: the newer takes the older's place.
        if let Some(older) = self.pairing.knocks.rekey_of(old).filter(|older| *older != new) {
            self.pairing.knocks.remove(older);
            self.note([Waiting::delete(older)]);
        }
        if !self.pairing.knocks.has_room(new, None) {
            return self.refuse(now, Some(stream), old, Some(message.envelope.id), &full());
        }
        let known = self.peers.get(old);
        let waiting = Waiting {
            agent_id: new,
            pubkey: rekey.new_key,
            addrs: known.map(few_addrs).unwrap_or_default(),
            name: known.and_then(|peer| peer.called()).map(|(name, _)| name.to_owned()),
            intent: None,
            session: None,
            message: None,
            at_ms: now.wall_ms,
            count: 1,
            rekey_of: Some(old),
            site: None,
        };
        let (waiting, fresh) = self.pairing.knocks.add(waiting);
        if fresh {
            self.tell_knock(&waiting);
        }
        self.audit(now, Event::Rekey, Some(old), "pending");
        let end = End::NewKey { to, state: "pending", new: None };
        self.begin(now, [Step::Store(vec![waiting.write()])], end);
    }

    /// The contact that follows another, at its level at most.
    pub(super) fn successor(&self, now: Now, old: AgentId, key: PublicKey, level: Level) -> Contact {
        let before = self.contact_of(now, old);
        let peer = self.peers.get(old);
        let called = peer.and_then(|peer| peer.name.clone()).or(before.name);
        // One that is not known any more has no level to pass on.
        let most = self.peers.level(old, now.wall_ms).unwrap_or(Level::Unknown);
        Contact {
            agent_id: key.agent_id(),
            pubkey: Some(key),
            addrs: peer.map(few_addrs).unwrap_or(before.addrs),
            level: level.min(most),
            name: called,
            since_ms: now.wall_ms,
            why: Some(format!("new key of {old}")),
            expiry_ms: before.expiry_ms,
            paused: before.paused,
        }
    }

    /// What belongs to a peer's old id belongs to its new one.
    pub(super) fn succeed(&mut self, now: Now, old: AgentId, new: AgentId) {
        for index in 0..self.families.len() {
            self.tell_family(now, index, FamilyInput::Successor { old, new });
        }
        let mut writes = self.outbox.succeed(old, new);
        writes.extend(self.aside_succeeds(old, new));
        self.note(writes);
        self.replay.succeed(old, new);
        // Work that goes on is the new one's; what waits for an answer on a stream ends with its connection.
        let theirs = self.agents.iter().filter(|open| open.inbound.envelope.from == old && open.kind.kept);
        let theirs: Vec<Arc<Envelope>> = theirs.map(|open| open.inbound.envelope.clone()).collect();
        for envelope in theirs {
            let (id, to) = (envelope.id, envelope.to);
            self.agents.succeed(id, envelope.readdressed(new, to));
            self.note_open(now, id);
        }
    }

    /// A peer's new key is written down, or waits, or neither.
    pub(super) fn new_key_taken(
        &mut self,
        now: Now,
        to: Answered,
        state: &'static str,
        new: Option<AgentId>,
        outcome: Result<String, String>,
    ) {
        let Answered { stream, peer, reference } = to;
        if outcome.is_err() {
            // The old one stays, and may say it again.
            let gone = new.map(|new| self.unsay(now, new)).unwrap_or_default();
            gone.into_iter().for_each(|id| self.drop_peer(now, id, "not taken on"));
            let why = "this daemon cannot write to its disk now: try again";
            let refusal = Refusal::new(PeerCode::Overloaded, why);
            return self.refuse(now, Some(stream), peer, Some(reference), &refusal);
        }
        // Who was blocked or forgotten while this was written has no successor.
        if let Some(new) = new.filter(|_| self.peers.get(peer).is_none()) {
            let gone = self.unsay(now, new);
            gone.into_iter().for_each(|id| self.drop_peer(now, id, "not taken on"));
            let steps = [Step::Contacts(vec![Said::Of(peer), Said::Of(new)])];
            self.begin(now, steps, End::Nothing);
            let refusal = Refusal::new(PeerCode::NotAuthorized, "you are not known here any more");
            return self.refuse(now, Some(stream), peer, Some(reference), &refusal);
        }
        let ack = to_raw(&serde_json::json!({ "accepted": true, "state": state }));
        self.respond(now, stream, peer, reference, "ack", &ack.into());
        if let Some(new) = new {
            self.succeed(now, peer, new);
            let out = self.apply_contacts(now, &[ContactChange::Remove(peer)]).unwrap_or_default();
            out.into_iter().for_each(|id| self.drop_peer(now, id, "it has a new key"));
        }
    }
}

fn full() -> Refusal {
    Refusal::new(PeerCode::Overloaded, "no more new keys can wait for the owner: try again later")
}
