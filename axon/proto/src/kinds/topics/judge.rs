//! Whether a batch that a neighbour gives is taken, and whether one that it announces is asked for. Both ask
//! from the cheapest question to the dearest; a signature is the dearest.
//!
//! Source: `spec/kinds/topics.md`, "What becomes of a batch".

use super::Topics;
use super::batch::Batch;
use super::heard::{came, is_stranger};
use super::held::Known;
use super::name::Topic;
use super::neighbours::Said;
use super::rules::{NotTaken, Publisher};
use super::tree::Have;
use crate::family::Cx;
use crate::id::AgentId;
use crate::limits::{
    BATCH_AGE_MS_MAX, BATCH_AHEAD_MS_MAX, BATCH_MESSAGES_MAX, TOPIC_PUBLISHERS_MAX, TOPIC_STRANGERS_MAX,
};
use crate::trust::Level;

impl Topics {
    /// Whether a batch that a neighbour announces is asked for: what its announcement shows to be refused
    /// here is not.
    pub(super) fn asks(&self, from: AgentId, have: &Have, cx: &Cx<'_>) -> bool {
        let (topic, publisher) = (&have.topic, have.id.from);
        let Ok(rank) = may_come(from, topic, publisher, cx) else { return false };
        // How long the batch is nobody says: with room for a whole one it is not refused when it comes.
        let count = |per_minute: u64| (per_minute / 2).clamp(1, BATCH_MESSAGES_MAX as u64);
        let (settings, mono_ms) = (cx.view.topics(), cx.now.mono_ms);
        let published = settings
            .per_minute(topic, rank)
            .is_none_or(|limit| self.rates.would_pass(publisher, count(limit), limit, mono_ms));
        let given = settings.relayed_per_minute(topic, rank).is_none_or(|(limit, rule)| {
            self.neighbour_rates.would_pass((from, rule), count(limit), limit, mono_ms)
        });
        let within = published && given;
        let stored = self.kept.wants(topic) || self.subs.wants(topic);
        within && publisher != cx.me && self.has_place(publisher, cx) && (!stored || cx.view.disk_has_room())
    }

    /// The same of a batch that a neighbour keeps. Rates do not count for history.
    pub(super) fn asks_history(&self, from: AgentId, have: &Have, cx: &Cx<'_>) -> bool {
        let publisher = have.id.from;
        let may = may_come(from, &have.topic, publisher, cx).is_ok();
        let has_room = !is_stranger(publisher, cx) || self.kept.has_room_for_strangers(&have.topic);
        let lets = self.has_place(publisher, cx) && cx.view.disk_has_room();
        may && has_room && lets && !self.mesh.is_refused(have.id)
    }

    /// Whether a batch is taken, as history or as it is published; none: it is here already, or comes later.
    pub(super) fn judge(
        &mut self,
        from: AgentId,
        batch: &Batch,
        asked: bool,
        cx: &Cx<'_>,
        said: &mut Said,
    ) -> Result<Option<bool>, NotTaken> {
        let (settings, topic, wall_ms) = (cx.view.topics(), &batch.topic, cx.now.wall_ms);
        if self.neighbours.get(&from).is_some_and(|one| one.is_forger(cx.now.mono_ms)) {
            return Err(NotTaken::Forged);
        }
        let publisher = match may_come(from, topic, batch.from, cx) {
            Ok(publisher) => publisher,
            Err(why) => {
                said.add(self.mesh.turn_away(from, batch));
                return Err(why);
            }
        };
        if self.kept.has(batch.id()) || self.storing.contains(&batch.id()) {
            return Ok(None);
        }
        let (keeps, old) = (self.kept.wants(topic), batch.ts_ms.saturating_add(BATCH_AGE_MS_MAX) < wall_ms);
        let own = batch.from == cx.me;
        let history = asked && keeps && (own || old || self.mesh.was_taken(batch.id()));
        if !self.has_place(batch.from, cx) {
            return Err(NotTaken::Old);
        }
        if !history {
            let (known, out) = self.mesh.look(from, batch);
            said.add(out);
            match known {
                Known::New => {}
                // Somebody who was let in takes the place of a stranger.
                Known::TooMany if self.mesh.remembers(|publisher| is_stranger(publisher, cx)) => {}
                Known::Taken => return Ok(None),
                Known::Old | Known::TooMany => return Err(NotTaken::Old),
            }
        }
        if let Some(why) = self.mesh.why_refused(batch).filter(|_| !asked) {
            return Err(why);
        }
        if history && !self.kept.would_stay(batch, came(batch.from, cx)) {
            return Err(self.refuse(from, batch, NotTaken::Old, cx));
        }
        if (old && !history) || batch.ts_ms > wall_ms.saturating_add(BATCH_AHEAD_MS_MAX) {
            return Err(self.refuse(from, batch, NotTaken::Old, cx));
        }
        let subscribed = self.subs.wants(topic);
        if !keeps && !subscribed && !settings.relays(topic) {
            return Err(NotTaken::Unwanted);
        }
        let longest = || batch.messages().iter().map(|(_, message)| message.get().len()).max().unwrap_or(0);
        let within = self.is_within_rate(batch, publisher, cx);
        if settings.bytes_max(topic).is_some_and(|max| longest() as u64 > max) {
            // It is looked at once, and counts for its publisher: else each neighbour is asked for it.
            let looks = within && self.spend_of(from, batch, publisher, cx);
            if looks && self.refuse_for_good(from, batch, NotTaken::Limited, cx) {
                self.spend(batch, publisher, cx);
            }
            return Err(NotTaken::Limited);
        }
        if (keeps || subscribed) && !cx.view.disk_has_room() {
            // It is not noted as seen, so that it comes again.
            return Err(NotTaken::Limited);
        }
        if !within && !asked {
            return Err(self.refuse(from, batch, NotTaken::Limited, cx));
        }
        // A neighbour pays for what it gives whether it is forged or not.
        if !asked && !self.spend_of(from, batch, publisher, cx) {
            return Err(NotTaken::Limited);
        }
        if !self.holds(from, batch, cx) {
            return Err(NotTaken::Forged);
        }
        // Only now: whoever forges takes nothing of what somebody else may publish, and nobody's place.
        if !asked && !self.spend(batch, publisher, cx) {
            return Err(NotTaken::Limited);
        }
        if let (TOPIC_PUBLISHERS_MAX.., false) = self.mesh.publishers(batch.from)
            && !history
        {
            self.mesh.forget_silent(|publisher| !is_stranger(publisher, cx));
        }
        Ok(Some(history))
    }

    /// Whoever makes up keys does not take the places of those who were let in.
    fn has_place(&self, publisher: AgentId, cx: &Cx<'_>) -> bool {
        let (count, is_there) = self.mesh.publishers(publisher);
        is_there || count < TOPIC_STRANGERS_MAX || !is_stranger(publisher, cx)
    }

    /// Refuses a batch. If it was asked for, it is not asked for again.
    fn refuse(&mut self, from: AgentId, batch: &Batch, why: NotTaken, cx: &Cx<'_>) -> NotTaken {
        if self.mesh.awaits(batch.id()) || self.history.is_asked(batch.id()) {
            self.refuse_for_good(from, batch, why, cx);
        }
        why
    }

    /// Has a batch not asked for again, if it is as its publisher signed it: a neighbour that makes up one
    /// of the same number keeps nobody's out.
    fn refuse_for_good(&mut self, from: AgentId, batch: &Batch, why: NotTaken, cx: &Cx<'_>) -> bool {
        let holds = self.holds(from, batch, cx);
        if holds {
            self.mesh.refuse(batch, why, cx.now.mono_ms);
        }
        holds
    }

    /// Whether a batch is as its publisher signed it. Of a neighbour that gives many that are not, nothing is
    /// looked at for a while.
    fn holds(&mut self, from: AgentId, batch: &Batch, cx: &Cx<'_>) -> bool {
        let holds = cx.view.verify(&batch.key, &batch.signed_bytes(), &batch.sig);
        if !holds {
            self.neighbours.entry(from).or_default().has_forged(cx.now.mono_ms);
        }
        holds
    }

    /// Whether a publisher may publish so much more now.
    fn is_within_rate(&self, batch: &Batch, publisher: Publisher, cx: &Cx<'_>) -> bool {
        let per_minute = cx.view.topics().per_minute(&batch.topic, publisher);
        let (count, mono_ms) = (batch.count as u64, cx.now.mono_ms);
        per_minute.is_none_or(|limit| self.rates.would_pass(batch.from, count, limit, mono_ms))
    }

    /// Whether a neighbour may give so much more of such a publisher now; it counts.
    fn spend_of(&mut self, from: AgentId, batch: &Batch, publisher: Publisher, cx: &Cx<'_>) -> bool {
        let per_minute = cx.view.topics().relayed_per_minute(&batch.topic, publisher);
        let (count, mono_ms) = (batch.count as u64, cx.now.mono_ms);
        per_minute.is_none_or(|(limit, rule)| self.neighbour_rates.spend((from, rule), count, limit, mono_ms))
    }

    /// Whether a publisher may publish so much more now; it counts.
    fn spend(&mut self, batch: &Batch, publisher: Publisher, cx: &Cx<'_>) -> bool {
        let per_minute = cx.view.topics().per_minute(&batch.topic, publisher);
        let (count, mono_ms) = (batch.count as u64, cx.now.mono_ms);
        per_minute.is_none_or(|limit| self.rates.spend(batch.from, count, limit, mono_ms))
    }
}

/// What a publisher is, if it may publish on a topic and a neighbour give it; else what speaks against it.
fn may_come(from: AgentId, topic: &Topic, publisher: AgentId, cx: &Cx<'_>) -> Result<Publisher, NotTaken> {
    let settings = cx.view.topics();
    let level = if publisher == cx.me { Some(Level::Trusted) } else { cx.view.level(publisher) };
    let publisher = Publisher::of(level).ok_or(NotTaken::Blocked)?;
    let near = cx.view.level(from).unwrap_or(Level::Blocked);
    let may = settings.hears(topic, publisher) && settings.takes_from(topic, near);
    if may { Ok(publisher) } else { Err(NotTaken::NotAuthorized) }
}
