//! The commands of clients: subscribe, publish, keep, and what there is to know.
//!
//! Source: `spec/IPC.md`, "Topics".

use std::sync::Arc;

use serde::Serialize;

use super::kept::{Keep, Kept};
use super::name::{Filter, Topic};
use super::neighbours::Said;
use super::publish::{Publishing, Waiting};
use super::replay::Replay;
use super::subs::{Owner, Sub};
use super::{Awaited, Change, Place, Topics, heard};
use crate::error::{IpcCode, IpcError};
use crate::family::{Act, Cx};
use crate::id::AgentId;
use crate::ipc::{Command, Line};
use crate::limits::{TOPIC_KEEP_HOURS_MAX, TOPIC_KEEP_LAST_MAX};
use crate::mailbox::SCOPED;
use crate::node::ClientId;
use crate::store::Write;
use crate::wire::raw_json;

/// Its commands.
pub const COMMANDS: [&str; 6] =
    ["subscribe_topic", "unsubscribe_topic", "publish", "topics", "topic_peers", "topic_keep"];

impl Topics {
    /// A command, if it is one of these.
    pub(super) fn serve(
        &mut self,
        client: ClientId,
        name: &str,
        command: &Command<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Result<(), IpcError>> {
        if !COMMANDS.contains(&name) {
            return None;
        }
        if !cx.view.topics().enabled {
            let message = "topics are off: set enabled = true under [topics] in config.toml and start the \
                           daemon again";
            return Some(Err(IpcError::new(IpcCode::NotOffered, message)));
        }
        Some(match name {
            "subscribe_topic" => self.subscribe(client, command, cx),
            "unsubscribe_topic" => self.unsubscribe(client, command, cx),
            "publish" => self.publish(client, command, cx),
            "topic_keep" => self.keep(client, command, cx),
            "topic_peers" => self.peers(client, command, cx),
            _ => {
                let line = self.list(client, command.req_id(), cx);
                cx.act(Act::Tell { client, line });
                Ok(())
            }
        })
    }

    fn subscribe(
        &mut self,
        client: ClientId,
        command: &Command<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), IpcError> {
        let filter = filter(command)?;
        let from = command.from::<String>()?;
        let from_any = match from.as_deref() {
            None | Some("peers") => false,
            Some("any") => true,
            Some(_) => return Err(IpcError::invalid("the field `from` is \"peers\" or \"any\"")),
        };
        let history = command.history::<bool>()?.unwrap_or(false);
        let kept = command.kept::<bool>()?.unwrap_or(false);
        if history && !self.kept.keeps().iter().any(|keep| keep.topic.meets(&filter)) {
            let message =
                format!("no history of \"{filter}\" is kept here: run `axon topic keep '{filter}'` first");
            return Err(IpcError::new(IpcCode::NotFound, message));
        }
        let consumer = cx.view.consumer(client);
        let owner = if kept { Owner::Consumer((*consumer).into()) } else { Owner::Client(client) };
        let (since_ms, since_seq) = (cx.now.wall_ms, cx.view.newest_seq());
        let sub = Sub { filter: filter.clone(), from_any, history, owner, since_ms, since_seq };
        // Whoever had the history is not given it again.
        let before = self.subs.find(&sub.owner, &filter).cloned();
        let had = before.as_ref().is_some_and(|before| before.history);
        self.room_for_sub(client, &sub, cx)?;
        if history && !had {
            self.room_for_replay(client, cx)?;
        }
        let writes = self.subs.add(sub.clone())?;
        self.replay_as(&sub);
        for client in if kept { cx.view.clients_of(&consumer) } else { vec![client] } {
            cx.act(Act::Listen { client, kind: heard::MESSAGE, on: true });
        }
        self.say_joins(cx);
        let neighbours = self.neighbours.values().filter(|one| one.up).count();
        let line = Line::ok(command.req_id())
            .text("subscribed", filter.as_str())
            .field("neighbours", &neighbours)
            .number("since_seq", since_seq);
        let change = Change::Subs(vec![Place { owner: sub.owner.clone(), filter, before }]);
        self.answer_when_stored(client, command.req_id(), writes, (line.end(), change), cx);
        if history && !had {
            let reader = heard::reader_name((!kept).then_some(client), &consumer);
            let queue = self.kept_ids(&sub.filter);
            self.replays.push(Replay::new(sub, reader, queue));
            self.replay_on(cx);
        }
        Ok(())
    }

    fn unsubscribe(
        &mut self,
        client: ClientId,
        command: &Command<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), IpcError> {
        let filter = filter(command)?;
        let consumer = cx.view.consumer(client);
        let subs = self.subs.remove(client, &consumer, &filter);
        let writes = subs.iter().filter_map(Sub::gone).collect();
        self.replays
            .retain(|replay| !(replay.owner().is_of(client, &consumer) && *replay.filter() == filter));
        self.listen(&consumer, cx);
        self.say_joins(cx);
        let line = Line::ok(command.req_id()).flag("unsubscribed", !subs.is_empty()).end();
        let place = |sub: Sub| Place { owner: sub.owner.clone(), filter: filter.clone(), before: Some(sub) };
        let change = Change::Subs(subs.into_iter().map(place).collect());
        self.answer_when_stored(client, command.req_id(), writes, (line, change), cx);
        Ok(())
    }

    fn publish(&mut self, client: ClientId, command: &Command<'_>, cx: &mut Cx<'_>) -> Result<(), IpcError> {
        let topic = command.topic::<String>()?;
        let topic =
            topic.ok_or_else(|| IpcError::invalid("the field `topic` is missing: give a topic's name"))?;
        let topic =
            Topic::parse(&topic).map_err(|why| IpcError::invalid(format!("the field `topic`: {why}")))?;
        let message = raw_json(command.payload()?.get().to_owned());
        Publishing::check(&topic, &message)?;
        self.room_for_message(client, cx)?;
        let waiting = Waiting { client, req_id: command.req_id().to_owned(), message };
        self.publishing.push(topic.clone(), waiting, cx.now);
        cx.act(Act::Promise { client });
        if self.publishing.is_due(&topic, cx.now.mono_ms) {
            let mut said = Said::default();
            self.flush_due(cx, &mut said);
            self.say(said, cx);
        }
        Ok(())
    }

    fn keep(&mut self, client: ClientId, command: &Command<'_>, cx: &mut Cx<'_>) -> Result<(), IpcError> {
        let topic = filter(command)?;
        let last = command.last::<u64>()?;
        let hours = command.hours::<u64>()?;
        let off = command.off::<bool>()?.unwrap_or(false);
        for (name, value, max) in
            [("last", last, TOPIC_KEEP_LAST_MAX), ("hours", hours, TOPIC_KEEP_HOURS_MAX)]
        {
            if value.is_some_and(|value| !(1..=max).contains(&value)) {
                return Err(IpcError::invalid(format!("the field `{name}` is a number from 1 to {max}")));
            }
        }
        let text = topic.to_string();
        if off && !self.kept.keeps().iter().any(|keep| keep.topic == topic) {
            let message = format!("no history of \"{text}\" is kept: see `axon topic list`");
            return Err(IpcError::new(IpcCode::NotFound, message));
        }
        let (write, change) = if off {
            (Kept::delete_of(&topic), Change::KeepNoMore(topic))
        } else {
            let keep = Keep { topic, last, hours };
            (self.kept.write_of(&keep)?, Change::Keep(keep))
        };
        let line = Line::ok(command.req_id());
        let line = if off { line.raw("kept", "null") } else { line.text("kept", &text) };
        self.answer_when_stored(client, command.req_id(), vec![write], (line.end(), change), cx);
        Ok(())
    }

    /// A command's change is stored, or cannot be and is undone.
    #[inline(never)]
    pub(super) fn settle(&mut self, change: Change, stored: bool, cx: &mut Cx<'_>) {
        match change {
            Change::Keep(keep) if stored => {
                self.kept.keep(keep);
                self.kept_is_other(cx);
            }
            Change::KeepNoMore(filter) if stored => {
                self.kept.keep_no_more(&filter);
                self.kept_is_other(cx);
            }
            Change::Subs(places) if !stored => {
                places.into_iter().for_each(|place| self.take_back(place, cx));
                self.say_joins(cx);
            }
            Change::Keep(_) | Change::KeepNoMore(_) | Change::Subs(_) => {}
        }
    }

    /// A subscription is as it was before, or, where another command has changed it since, would be if that
    /// cannot be stored either.
    fn take_back(&mut self, place: Place, cx: &mut Cx<'_>) {
        let Place { owner, filter, before } = place;
        let mut later = self.awaited.values_mut().filter_map(|awaited| match awaited {
            Awaited::Answer { change: Change::Subs(places), .. } => Some(places),
            _ => None,
        });
        let same = |of: &&mut Place| of.owner == owner && of.filter == filter;
        if let Some(next) = later.find_map(|places| places.iter_mut().find(same)) {
            next.before = before;
            return;
        }
        self.replays.retain(|replay| !(*replay.owner() == owner && *replay.filter() == filter));
        self.subs.put_back(&owner, &filter, before);
        match &owner {
            Owner::Consumer(consumer) => self.listen(consumer, cx),
            Owner::Client(client) => self.listen(&cx.view.consumer(*client), cx),
        }
    }

    /// Nobody reads for an owner any more.
    pub(super) fn owner_gone(&mut self, owner: &Owner) {
        self.replays.retain(|replay| replay.owner() != owner);
        for awaited in self.awaited.values_mut() {
            if let Awaited::Answer { change: Change::Subs(places), .. } = awaited {
                places.retain(|place| place.owner != *owner);
            }
        }
    }

    fn kept_is_other(&mut self, cx: &mut Cx<'_>) {
        heard::put(self.kept.expire(cx.now.wall_ms), cx);
        self.say_joins(cx);
    }

    /// What a consumer has subscribed to is otherwise: its clients are shown it, or no longer.
    fn listen(&self, consumer: &str, cx: &mut Cx<'_>) {
        for client in cx.view.clients_of(consumer) {
            let on = self.subs.listens(client, consumer);
            cx.act(Act::Listen { client, kind: heard::MESSAGE, on });
        }
    }

    fn peers(&self, client: ClientId, command: &Command<'_>, cx: &mut Cx<'_>) -> Result<(), IpcError> {
        #[derive(Serialize)]
        struct Row<'a> {
            id: AgentId,
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'a str>,
            filters: Vec<&'a str>,
            keeps: Vec<&'a str>,
            lazy: usize,
        }
        let topic = command.topic::<String>()?.map(|topic| Topic::parse(&topic)).transpose();
        let topic = topic.map_err(|why| IpcError::invalid(format!("the field `topic`: {why}")))?;
        let up = self.neighbours.iter().filter(|(peer, one)| one.up && cx.view.sees(client, **peer));
        let rows = up.filter_map(|(peer, one)| {
            let (filters, lazy) = self.mesh.neighbour(*peer).unwrap_or_default();
            let wants = |topic: &Topic| filters.iter().any(|filter| filter.matches(topic));
            let (name, keeps) = (cx.view.called(*peer), texts(&one.keeps));
            let row = Row { id: *peer, name, filters: texts(filters), keeps, lazy };
            topic.as_ref().is_none_or(wants).then_some(row)
        });
        let rows: Vec<Row<'_>> = rows.collect();
        let line = Line::ok(command.req_id()).field("peers", &rows).end();
        cx.act(Act::Tell { client, line });
        Ok(())
    }

    /// `topics`: subscriptions, what is kept, what is passed on, and where something was published.
    fn list(&self, client: ClientId, req_id: &str, cx: &Cx<'_>) -> Arc<str> {
        #[derive(Serialize)]
        struct SubRow<'a> {
            topic: &'a str,
            kept: bool,
            from: &'static str,
            history: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            consumer: Option<&'a str>,
            since_ms: u64,
        }
        #[derive(Serialize)]
        struct KeepRow<'a> {
            topic: &'a str,
            last: Option<u64>,
            hours: Option<u64>,
            messages: u64,
            bytes: u64,
        }
        #[derive(Serialize)]
        struct SeenRow<'a> {
            topic: &'a str,
            messages: u64,
            publishers: usize,
            last_ms: u64,
        }
        // A scoped socket sees its own.
        let own = cx.view.consumer(client);
        let scoped = own.starts_with(SCOPED);
        let subscriptions: Vec<SubRow<'_>> = self
            .subs
            .iter()
            .filter(|sub| !scoped || sub.owner.is_of(client, &own))
            .map(|sub| SubRow {
                topic: sub.filter.as_str(),
                kept: sub.is_kept(),
                from: if sub.from_any { "any" } else { "peers" },
                history: sub.history,
                consumer: match &sub.owner {
                    Owner::Consumer(consumer) => Some(consumer.trim_start_matches(SCOPED)),
                    Owner::Client(_) => None,
                },
                since_ms: sub.since_ms,
            })
            .collect();
        let line = Line::ok(req_id).field("subscriptions", &subscriptions);
        if scoped {
            return line.end();
        }
        let keeps = self.kept.keeps().iter().map(|keep| {
            let (messages, bytes) = self.kept.held(&keep.topic);
            KeepRow { topic: keep.topic.as_str(), last: keep.last, hours: keep.hours, messages, bytes }
        });
        let relay: Vec<&str> = cx.view.topics().relay.iter().map(Filter::as_str).collect();
        let seen = self.traffic.iter().map(|(topic, of)| SeenRow {
            topic: topic.as_str(),
            messages: of.messages,
            publishers: of.publishers.len(),
            last_ms: of.last_ms,
        });
        line.field("keeps", &keeps.collect::<Vec<_>>())
            .field("relay", &relay)
            .field("seen", &seen.collect::<Vec<_>>())
            .end()
    }

    /// Answers a client once this is on disk.
    fn answer_when_stored(
        &mut self,
        client: ClientId,
        req_id: &str,
        writes: Vec<Write>,
        (line, change): (Arc<str>, Change),
        cx: &mut Cx<'_>,
    ) {
        cx.act(Act::Promise { client });
        let token = self.token(Awaited::Answer { client, req_id: req_id.to_owned(), line, change });
        cx.act(Act::Take { family: "topics", token, notes: Vec::new(), kept: true, writes });
    }

    /// Signs what waits and is due, unless a neighbour that wants it takes no more now: whoever publishes is
    /// then answered later, and so publishes no faster than neighbours take it. One that is slow for longer
    /// is not waited for.
    pub(super) fn flush_due(&mut self, cx: &mut Cx<'_>, said: &mut Said) {
        let mono_ms = cx.now.mono_ms;
        let wanting = self.publishing.topics().flat_map(|topic| self.mesh.neighbours(topic));
        let full: Vec<AgentId> = wanting
            .filter(|peer| {
                self.neighbours.get(peer).is_some_and(|one| one.is_full() && !one.is_slow(mono_ms))
            })
            .collect();
        if !full.is_empty() && self.publishing.hold(mono_ms) {
            return;
        }
        for peer in full {
            self.neighbours.entry(peer).or_default().was_slow(mono_ms);
        }
        self.flush(cx, said);
    }

    /// A neighbour takes more: what was held back for it may go.
    pub(super) fn flush_held(&mut self, cx: &mut Cx<'_>, said: &mut Said) {
        if self.publishing.is_held() {
            self.flush_due(cx, said);
        }
    }

    /// Signs what waits, and sends it on its way.
    #[inline(never)]
    pub(super) fn flush(&mut self, cx: &mut Cx<'_>, said: &mut Said) {
        let (signed, claim) = self.publishing.flush(cx.view, cx.now);
        heard::put(claim.into_iter().collect(), cx);
        for one in signed {
            let batch = one.batch;
            self.published += batch.count as u64;
            said.add(self.mesh.publish(batch.clone(), cx.now.mono_ms));
            self.note_traffic(&batch, cx.now.wall_ms);
            let neighbours = self.mesh.neighbours(&batch.topic).len();
            let subscribers = self.subs.iter().filter(|sub| sub.filter.matches(&batch.topic)).count();
            let answers = one.waiting.into_iter().zip(batch.seq..).map(|(waiting, seq)| {
                let line = Line::ok(&waiting.req_id).number("seq", seq).field("neighbours", &neighbours);
                let line = line.field("subscribers", &subscribers).end();
                (waiting.client, waiting.req_id, line)
            });
            let answers: Vec<(ClientId, String, Arc<str>)> = answers.collect();
            let given = super::tree::Given { batch, hops: 0, age_ms: 0 };
            let part = heard::Part::All;
            let (came_ms, tries) = (cx.now.mono_ms, 0);
            let delivery =
                heard::Delivery { given, via: None, history: false, shown: false, came_ms, tries, part };
            let id = delivery.given.batch.id();
            if self.deliver(delivery, cx) {
                self.answers.insert(id, answers);
            } else {
                answers.into_iter().for_each(|(client, req_id, line)| {
                    cx.act(Act::Fulfil { client, req_id, result: Ok(line) });
                });
            }
        }
    }
}

fn texts(filters: &[Filter]) -> Vec<&str> {
    filters.iter().map(Filter::as_str).collect()
}

fn filter(command: &Command<'_>) -> Result<Filter, IpcError> {
    let topic = command.topic::<String>()?;
    let missing =
        || IpcError::invalid("the field `topic` is missing: give a topic, or a filter with * and >");
    Filter::parse(&topic.ok_or_else(missing)?)
        .map_err(|why| IpcError::invalid(format!("the field `topic`: {why}")))
}
