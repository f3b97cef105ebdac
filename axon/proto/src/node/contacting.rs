//! What the owner says of peers: `trust`, `contacts`, `forget`, `pause`, `policy_check`.
//!
//! Source: `spec/TRUST.md`. What is said holds at once; its command is answered when the file is on disk
//! and no word of a peer that is out is left in any queue.

use std::collections::BTreeMap;

use super::jobs::{Chain, End, Said, Step};
use super::storing::After;
use super::timers::Key;
use super::{ClientId, Node, Now};
use crate::audit::Event;
use crate::contacts::{Contact, ContactChange, Contacts, ContactsFile, check_name};
use crate::error::{IpcCode, IpcError};
use crate::family::Input as FamilyInput;
use crate::id::AgentId;
use crate::ipc::{Command, Line};
use crate::limits::{ADDRS_PER_PEER_MAX, DOMAIN_BYTES_MAX, INVITE_SECS_MAX, KIND_BYTES_MAX, WHY_BYTES_MAX};
use crate::store::Write;
use crate::trust::{Decision, Level};
use crate::wire::to_raw;

impl Node {
    // --- changes ---

    /// Makes changes hold, in memory; peers that are out by them are cut off.
    pub(super) fn apply_contacts(
        &mut self,
        now: Now,
        changes: &[ContactChange],
    ) -> Result<Vec<AgentId>, IpcError> {
        let mut out = Vec::new();
        for change in changes {
            out.extend(self.peers.change(change, now.wall_ms)?);
            if let ContactChange::Remove(id) = change {
                self.settings.peers.retain(|peer| peer.agent_id != *id);
            }
        }
        out.sort_unstable();
        out.dedup();
        // Others whose time has just ended are out by the way.
        let about = |id: &AgentId| {
            changes.iter().any(|change| match change {
                ContactChange::Put(contact) => contact.agent_id == *id,
                ContactChange::Remove(of) => of == id,
                ContactChange::Pause(_) => false,
            })
        };
        let (out, ended): (Vec<AgentId>, Vec<AgentId>) = out.into_iter().partition(about);
        for id in ended {
            self.audit(now, Event::Trust, Some(id), "expiry");
            self.drop_peer(now, id, "its time is over");
        }
        self.contacts_changed(now);
        Ok(out)
    }

    /// What follows from contacts that are others than before.
    fn contacts_changed(&mut self, now: Now) {
        self.publish_pins();
        self.peers_changed = true;
        if let Some(at_ms) = self.peers.contacts().next_expiry_ms(now.wall_ms) {
            self.timers.set(Key::Contacts, now.mono_ms + at_ms.saturating_sub(now.wall_ms));
        }
        let ids: Vec<AgentId> = self.peers.iter().map(|peer| peer.id).collect();
        ids.into_iter().for_each(|id| self.keep_connected(now, id));
        self.release_aside(now);
        // What waited because its sender was paused.
        self.hand_over(now);
    }

    /// `contacts.toml` was read again.
    #[inline(never)]
    pub(super) fn contacts_read(&mut self, now: Now, file: ContactsFile) {
        // What is being joined is judged by the file as it is now.
        let joining: Vec<AgentId> = self.joining().collect();
        joining.into_iter().for_each(|id| self.join_overruled(now, id));
        let before = self.levels();
        let mut contacts = Contacts::new(file);
        // What was said since the file was read, or is not written yet, holds on.
        let waiting = self.commits.values().filter_map(|(after, _)| match after {
            After::Chain(chain) => Some(&**chain),
            _ => None,
        });
        let unwritten = self.jobs.values().chain(waiting).flat_map(Chain::unwritten);
        for said in unwritten {
            contacts.apply(&self.as_said(said)).ok();
        }
        let mut out = self.peers.set_contacts(contacts, now.wall_ms);
        // Who is blocked now need not have been connected, or even known, a moment before.
        let blocked = self.peers.contacts().iter().map(|contact| contact.agent_id);
        let was = |id: &AgentId| before.get(id).copied().flatten() == Some(Level::Blocked);
        out.extend(blocked.filter(|id| self.peers.is_blocked(*id) && !was(id)));
        out.sort_unstable();
        out.dedup();
        let mut steps = Vec::new();
        for id in out {
            let blocked = self.peers.is_blocked(id);
            let writes = self.cut_off(now, id, if blocked { "blocked" } else { "no longer known" });
            steps.extend([Step::Purge(id), Step::Store(writes)]);
        }
        self.audit_levels(now, &before, false);
        self.contacts_changed(now);
        if !steps.is_empty() {
            self.before_reloaded(now, steps);
        }
    }

    /// Agents that a command has taken out, which the file may not say yet.
    pub(super) fn unwritten_removals(&self) -> Vec<AgentId> {
        let waiting = self.commits.values().filter_map(|(after, _)| match after {
            After::Chain(chain) => Some(&**chain),
            _ => None,
        });
        let said = self.jobs.values().chain(waiting).flat_map(Chain::unwritten);
        let gone = said.filter_map(|said| match self.as_said(said) {
            ContactChange::Remove(id) => Some(id),
            _ => None,
        });
        gone.collect()
    }

    /// How far whom is trusted now, of all that somebody has said something of.
    fn levels(&self) -> BTreeMap<AgentId, Option<Level>> {
        let contacts = self.peers.contacts().iter().map(|contact| contact.agent_id);
        contacts.map(|id| (id, self.peers.level_now(id))).collect()
    }

    /// Notes which levels are others than before.
    fn audit_levels(&mut self, now: Now, before: &BTreeMap<AgentId, Option<Level>>, expired: bool) {
        let mut after = self.levels();
        for id in before.keys() {
            after.entry(*id).or_insert_with(|| self.peers.level_now(*id));
        }
        for (id, level) in after {
            if before.get(&id).copied().flatten() != level {
                match level {
                    _ if expired => self.audit(now, Event::Trust, Some(id), "expiry"),
                    Some(level) => self.audit(now, Event::Trust, Some(id), level.as_str()),
                    None => self.audit(now, Event::Forget, Some(id), "contacts.toml"),
                }
            }
        }
    }

    /// Some contact's time is over.
    pub(super) fn contacts_due(&mut self, now: Now) {
        let before = self.levels();
        for id in self.peers.rebuild(now.wall_ms) {
            self.drop_peer(now, id, "its time is over");
        }
        self.audit_levels(now, &before, true);
        self.contacts_changed(now);
    }

    /// A peer is out: everything of it ends, and nothing that it said is shown from now on. Gives what is to
    /// be stored.
    #[inline(never)]
    pub(super) fn cut_off(&mut self, now: Now, peer: AgentId, reason: &'static str) -> Vec<Write> {
        self.drop_peer(now, peer, reason);
        self.forget_words(now, peer);
        self.rates.forget(peer);
        let mut writes = self.shut_out(peer);
        // A new key does not outlive the one that it follows.
        let knocks = self.pairing.knocks.iter();
        let theirs = knocks.filter(|knock| knock.agent_id == peer || knock.rekey_of == Some(peer));
        let theirs: Vec<AgentId> = theirs.map(|knock| knock.agent_id).collect();
        for id in theirs {
            self.pairing.knocks.remove(id);
            writes.push(crate::pairing::Waiting::delete(id));
        }
        writes
    }

    /// What a peer that is out has said stands in no list any more.
    #[inline(never)]
    pub(super) fn forget_words(&mut self, now: Now, peer: AgentId) {
        for index in 0..self.families.len() {
            self.tell_family(now, index, FamilyInput::PeerOut { peer });
        }
        let words = self.outbox.forget_words(peer);
        self.note(words);
    }

    // --- trust and forget ---

    pub(super) fn trust(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let peer = self.peer_meant(command)?;
        let level = level_of(command)?.ok_or_else(|| missing("trust", "a level"))?;
        self.join_overruled(now, peer);
        let was = self.peers.level(peer, now.wall_ms);
        let mut contact = self.contact_of(now, peer);
        if contact.pubkey.is_none() && level != Level::Blocked {
            let knocks = self.pairing.knocks.get(peer).is_some();
            let message = match knocks {
                true => format!("{peer} waits to be let in: `axon approve {peer}`"),
                false => format!("no key of {peer} is known here: pair with `axon connect LINK`"),
            };
            return Err(IpcError::new(IpcCode::PeerNotFound, message));
        }
        contact.level = level;
        if let Some(name) = command.name_given::<String>()? {
            contact.name = Some(self.name_for(peer, name)?);
        }
        if let Some(why) = command.why::<String>()? {
            contact.why = Some(line_of("why", why)?);
        }
        contact.expiry_ms = expiry(now, command)?;
        let change = ContactChange::Put(contact);
        let mut steps = Vec::new();
        let out = self.apply_contacts(now, std::slice::from_ref(&change))?;
        if level == Level::Blocked {
            let mut writes = self.cut_off(now, peer, "blocked");
            for id in out.into_iter().filter(|id| *id != peer) {
                writes.extend(self.cut_off(now, id, "blocked"));
            }
            steps.extend([Step::Purge(peer), Step::Store(writes)]);
        } else if self.pairing.knocks.remove(peer).is_some() {
            steps.push(Step::Store(vec![crate::pairing::Waiting::delete(peer)]));
        }
        self.pairing.knocks.undeny(peer);
        steps.push(Step::Contacts(vec![Said::Of(peer)]));
        if was != Some(level) {
            self.audit(now, Event::Trust, Some(peer), level.as_str());
        }
        let line = Line::ok(command.req_id()).field("agent_id", &peer).field("trust", &level);
        let line = line.field("was", &was).end();
        self.begin(now, steps, End::Line { client, req_id: command.req_id().to_owned(), line });
        Ok(())
    }

    pub(super) fn forget(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
    ) -> Result<(), IpcError> {
        let peer = self.peer_meant(command)?;
        if self.peers.get(peer).is_none() && self.peers.contacts().get(peer).is_none() {
            let message = format!("{peer} is not known here: there is nothing to forget");
            return Err(IpcError::new(IpcCode::PeerNotFound, message));
        }
        self.join_overruled(now, peer);
        let change = ContactChange::Remove(peer);
        self.apply_contacts(now, std::slice::from_ref(&change))?;
        let writes = self.cut_off(now, peer, "forgotten");
        self.audit(now, Event::Forget, Some(peer), "command");
        let steps = [Step::Purge(peer), Step::Store(writes), Step::Contacts(vec![Said::Of(peer)])];
        let line = Line::ok(command.req_id()).field("agent_id", &peer).end();
        self.begin(now, steps, End::Line { client, req_id: command.req_id().to_owned(), line });
        Ok(())
    }

    pub(super) fn contacts_list(&self, now: Now, req_id: &str) -> std::sync::Arc<str> {
        let mut rows: Vec<serde_json::Value> = Vec::new();
        let statics = &self.settings.peers;
        for contact in self.peers.contacts().iter() {
            let both = statics.iter().any(|peer| peer.agent_id == contact.agent_id);
            let mut row = contact_row(contact, if both { "both" } else { "contacts" });
            if !contact.holds(now.wall_ms)
                && let Some(row) = row.as_object_mut()
            {
                row.insert("expired".into(), true.into());
            }
            rows.push(row);
        }
        for peer in statics.iter().filter(|peer| self.peers.contacts().get(peer.agent_id).is_none()) {
            let contact = Contact {
                agent_id: peer.agent_id,
                pubkey: Some(peer.pubkey),
                addrs: vec![peer.addr.clone()],
                level: Level::Known,
                name: peer.name.clone(),
                since_ms: 0,
                why: None,
                expiry_ms: None,
                paused: false,
            };
            rows.push(contact_row(&contact, "config"));
        }
        let paused = self.peers.contacts().paused();
        Line::ok(req_id).field("paused", &paused).field("contacts", &rows).end()
    }

    // --- pause and resume ---

    pub(super) fn pause(
        &mut self,
        now: Now,
        client: ClientId,
        command: &Command<'_>,
        on: bool,
    ) -> Result<(), IpcError> {
        let peer = command.peer::<String>()?.map(|text| self.peers.resolve(&text)).transpose()?;
        peer.into_iter().for_each(|peer| self.join_overruled(now, peer));
        let change = match peer {
            None => ContactChange::Pause(on),
            Some(peer) => ContactChange::Put(Contact { paused: on, ..self.contact_of(now, peer) }),
        };
        let paused = |node: &Self| {
            let contacts = node.peers.contacts();
            peer.map_or(contacts.paused(), |id| contacts.get(id).is_some_and(|contact| contact.paused))
        };
        let was = paused(self);
        self.apply_contacts(now, std::slice::from_ref(&change))?;
        if was != on {
            self.audit(now, Event::Pause, peer, if on { "pause" } else { "resume" });
        }
        let contacts = self.peers.contacts();
        let peers: Vec<AgentId> =
            contacts.iter().filter(|contact| contact.paused).map(|contact| contact.agent_id).collect();
        let line =
            Line::ok(command.req_id()).field("paused", &contacts.paused()).field("peers", &peers).end();
        let end = End::Line { client, req_id: command.req_id().to_owned(), line };
        self.begin(now, [Step::Contacts(vec![peer.map_or(Said::Pause, Said::Of)])], end);
        if !on {
            self.hand_over(now);
        }
        Ok(())
    }

    // --- policy ---

    pub(super) fn policy_check(
        &mut self,
        now: Now,
        command: &Command<'_>,
    ) -> Result<std::sync::Arc<str>, IpcError> {
        let peer = self.peer_meant(command)?;
        let kind = command.kind()?.ok_or_else(|| missing("kind", "a kind"))?;
        if !(1..=KIND_BYTES_MAX).contains(&kind.len()) {
            return Err(IpcError::invalid(format!("the field `kind` is 1 to {KIND_BYTES_MAX} bytes long")));
        }
        let domain = command.domain::<String>()?;
        if domain.as_ref().is_some_and(|domain| domain.len() > DOMAIN_BYTES_MAX) {
            let message = format!("the field `domain` is at most {DOMAIN_BYTES_MAX} bytes long");
            return Err(IpcError::invalid(message));
        }
        let out = match command.direction::<String>()?.as_deref() {
            None | Some("in") => false,
            Some("out") => true,
            Some(_) => return Err(IpcError::invalid("the field `direction` is \"in\" or \"out\"")),
        };
        let mut ruling = self.ruling(now, peer, &kind, domain.as_deref());
        if !out && ruling.decision == Decision::Allow && self.peers.is_paused(peer) {
            // What is told is kept meanwhile; what is asked is turned away.
            let request = self.kinds.get(&kind).is_some_and(|(_, kind)| kind.is_request());
            ruling.message = format!("{peer} is paused here: `axon resume` lets what it sends in");
            ruling.rule = "contacts.paused".into();
            if request {
                (ruling.decision, ruling.retry_after_ms) = (Decision::Limit, Some(60_000));
            }
        }
        // What our own agents send is limited by nothing but whom we have blocked.
        let known = self.peers.get(peer).is_some();
        if out && known {
            ruling.decision = Decision::Allow;
            (ruling.rule, ruling.retry_after_ms) = ("contacts.level".into(), None);
            ruling.message = format!("agents here may send {kind} to peers of level {}", ruling.level);
        }
        Ok(Line::ok(command.req_id())
            .field("decision", ruling.decision.as_str())
            .field("level", &ruling.level)
            .field("rule", &ruling.rule)
            .field("message", &ruling.message)
            .maybe("retry_after_ms", ruling.retry_after_ms.as_ref())
            .end())
    }

    // --- helpers ---

    /// The agent that a command names in `peer`, blocked or not.
    fn peer_meant(&self, command: &Command<'_>) -> Result<AgentId, IpcError> {
        let text = command.peer::<String>()?.ok_or_else(|| missing("peer", "an agent id or name"))?;
        self.peers.meant(&text)
    }

    /// What is said of a peer, or what would be if it were said now.
    pub(super) fn contact_of(&self, now: Now, id: AgentId) -> Contact {
        let peer = self.peers.get(id);
        if let Some(contact) = self.peers.contacts().get(id) {
            let mut contact = contact.clone();
            contact.pubkey = contact.pubkey.or_else(|| peer.map(|peer| peer.key));
            if !contact.holds(now.wall_ms) {
                // What has expired says no more how far it is trusted.
                contact.level = peer.map_or(Level::Unknown, |peer| peer.level);
                (contact.expiry_ms, contact.why, contact.paused) = (None, None, false);
                contact.since_ms = now.wall_ms;
            }
            return contact;
        }
        // What `config.toml` says stays there.
        let found = peer.filter(|peer| peer.is_found());
        Contact {
            agent_id: id,
            pubkey: peer.map(|peer| peer.key),
            addrs: found.map(few_addrs).unwrap_or_default(),
            level: peer.map_or(Level::Unknown, |peer| peer.level),
            name: None,
            since_ms: now.wall_ms,
            why: None,
            expiry_ms: None,
            paused: false,
        }
    }

    /// A name that may be given to a peer here.
    pub(super) fn name_for(&self, peer: AgentId, name: String) -> Result<String, IpcError> {
        check_name(&name).map_err(|why| IpcError::invalid(format!("the field `name` {why}")))?;
        let other = self.peers.iter().any(|known| known.id != peer && known.name.as_ref() == Some(&name));
        let mut kept = self.peers.contacts().iter();
        if other || kept.any(|known| known.agent_id != peer && known.name.as_ref() == Some(&name)) {
            return Err(IpcError::invalid(format!("another peer is called \"{name}\" here: choose another")));
        }
        Ok(name)
    }
}

fn contact_row(contact: &Contact, source: &str) -> serde_json::Value {
    let Contact { agent_id, pubkey, addrs, level, name, since_ms, why, expiry_ms, paused } = contact;
    let mut row = serde_json::Map::new();
    row.insert("agent_id".into(), agent_id.to_string().into());
    if let Some(key) = pubkey {
        row.insert("pubkey".into(), key.to_string().into());
    }
    row.insert("addrs".into(), addrs.clone().into());
    row.insert("trust".into(), level.as_str().into());
    for (key, value) in [("name", name), ("why", why)] {
        if let Some(value) = value {
            row.insert(key.into(), value.clone().into());
        }
    }
    if *since_ms > 0 {
        row.insert("since_ms".into(), (*since_ms).into());
    }
    if let Some(at_ms) = expiry_ms {
        row.insert("expiry_ms".into(), (*at_ms).into());
    }
    if *paused {
        row.insert("paused".into(), true.into());
    }
    row.insert("source".into(), source.into());
    serde_json::Value::Object(row)
}

/// As many addresses as a contact may have.
pub(super) fn few_addrs(peer: &crate::peers::Peer) -> Vec<String> {
    let mut addrs = peer.addrs();
    addrs.truncate(ADDRS_PER_PEER_MAX);
    addrs
}

/// The level that a command names in `trust`.
pub(super) fn level_of(command: &Command<'_>) -> Result<Option<Level>, IpcError> {
    let Some(text) = command.trust::<String>()? else { return Ok(None) };
    Level::parse(&text)
        .map(Some)
        .ok_or_else(|| IpcError::invalid("the field `trust` is one of blocked, unknown, known, trusted"))
}

/// When a contact that a command speaks of ends to hold.
fn expiry(now: Now, command: &Command<'_>) -> Result<Option<u64>, IpcError> {
    let Some(secs) = command.expires_secs::<u64>()? else { return Ok(None) };
    if !(1..=100 * INVITE_SECS_MAX).contains(&secs) {
        let message = format!("the field `expires_secs` is a number from 1 to {}", 100 * INVITE_SECS_MAX);
        return Err(IpcError::invalid(message));
    }
    Ok(Some(now.wall_ms.saturating_add(secs * 1_000)))
}

/// A text of one line.
pub(super) fn line_of(field: &str, text: String) -> Result<String, IpcError> {
    if (1..=WHY_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control) {
        return Ok(text);
    }
    Err(IpcError::invalid(format!("the field `{field}` is one line of 1 to {WHY_BYTES_MAX} bytes")))
}

pub(super) fn missing(field: &str, what: &str) -> IpcError {
    IpcError::invalid(format!("the field `{field}` is missing: give {what}"))
}

/// A contact as the reply of a command shows it.
pub(super) fn constraints_json(constraints: &crate::pairing::payload::Constraints) -> String {
    to_raw(constraints).get().to_owned()
}
