//! Topics: messages that go over several hops to whoever has subscribed.
//!
//! Source: `spec/kinds/topics.md`; why it is so: `spec/decisions/0017-topics.md`. `name` are topics and
//! filters, `batch` is what is signed and travels, `held` what was seen and can be given, `tree` how batches
//! spread, `wire` what neighbours say as JSON, `rules` who may do what, `kept`, `room` and `history` what is
//! kept and compared, `subs` who has subscribed. The family itself: `neighbours`, `heard` is the way in and
//! `judge` what is let in, `publish` and `commands` serve clients, `replay` reads history to them, `shares`
//! is how much of it one may take.

pub mod batch;
mod commands;
mod heard;
pub mod held;
pub mod history;
mod judge;
pub mod kept;
mod neighbours;
mod publish;
mod replay;
mod room;
mod shares;
pub mod subs;
pub mod tree;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::error::{IpcCode, IpcError};
use crate::family::{Act, Cx, Family, Input, Kind, Pattern, Sendable, Vocabulary};
use crate::id::AgentId;
use crate::ipc::{Command, Line};
use crate::mailbox::SCOPED;
use crate::node::ClientId;
use crate::store::Row;
pub use crate::topics::{name, rules};
use crate::trust::Level;
use batch::BatchId;
use heard::{Delivery, Part};
use history::History;
use kept::{Keep, Kept};
use name::{Filter, Topic};
use neighbours::{GOSSIP, JOIN, LEAVE, Neighbour, Said};
use publish::Publishing;
use replay::Replay;
use rules::{Dropped, NeighbourRates, NotTaken, PublisherRates};
use subs::{Owner, Sub, Subs};
use tree::{Gossip, Mesh};
use wire::{Join, Leave};

const fn one_way(name: &'static str, check: fn(&str) -> Result<(), String>) -> Kind {
    Kind {
        name,
        pattern: Pattern::OneWay,
        feature: Some("topics"),
        kept: false,
        sendable: Sendable::No,
        needs: Level::Known,
        has_domain: false,
        idempotent: true,
        made_here: false,
        check,
    }
}

/// The words of topics.
pub static VOCABULARY: Vocabulary = Vocabulary {
    family: "topics",
    kinds: &[
        one_way(JOIN, wire::check_join),
        one_way(LEAVE, wire::check_leave),
        one_way(GOSSIP, wire::check_gossip),
        Kind { made_here: true, idempotent: false, ..one_way(heard::MESSAGE, not_from_peers) },
    ],
};

/// What clients are shown in the name of publishers is made here, of batches whose signature holds.
fn not_from_peers(_: &str) -> Result<(), String> {
    Err("topic.message is made by the daemon that receives a batch: send topic.gossip".to_owned())
}

/// The family.
#[derive(Debug, Default)]
pub struct Topics {
    mesh: Mesh,
    neighbours: BTreeMap<AgentId, Neighbour>,
    subs: Subs,
    kept: Kept,
    history: History,
    publishing: Publishing,
    replays: Vec<Replay>,
    rates: PublisherRates,
    neighbour_rates: NeighbourRates,
    /// Batches that are being stored to be kept.
    storing: BTreeSet<BatchId>,
    /// Batches that could not be stored, and when to try again.
    again: VecDeque<(u64, Delivery)>,
    /// Who waits to hear that a batch is on its way, which is being stored.
    answers: BTreeMap<BatchId, Vec<(ClientId, String, Arc<str>)>>,
    awaited: BTreeMap<u64, Awaited>,
    next_token: u64,
    join_n: u64,
    /// How many kept topics were compared in turn.
    compared: usize,
    traffic: BTreeMap<Topic, Traffic>,
    dropped: Dropped,
    published: u64,
    delivered: u64,
    relayed: u64,
}

/// What is being stored or read, and what follows.
#[derive(Debug)]
enum Awaited {
    /// Messages of a batch, for clients.
    Rows(Arc<Delivery>),
    /// A batch that is kept.
    Batch(Arc<Delivery>),
    /// A client's command, and what becomes of it.
    Answer { client: ClientId, req_id: String, line: Arc<str>, change: Change },
    /// Batches that a neighbour asked for.
    History { to: AgentId },
    /// Batches for a reader, which are then given to it.
    Replay,
}

/// What a command changes for good: it holds when it is stored, or not at all.
#[derive(Debug)]
enum Change {
    /// Subscriptions, which are otherwise already.
    Subs(Vec<Place>),
    /// A history is kept from now on.
    Keep(Keep),
    /// A history is kept no more.
    KeepNoMore(Filter),
}

/// The place of a subscription, and what was in it.
#[derive(Debug)]
struct Place {
    owner: Owner,
    filter: Filter,
    before: Option<Sub>,
}

/// What was published on a topic since the start.
#[derive(Debug, Default)]
struct Traffic {
    messages: u64,
    publishers: BTreeSet<AgentId>,
    last_ms: u64,
}

impl Topics {
    fn token(&mut self, awaited: Awaited) -> u64 {
        self.next_token += 1;
        self.awaited.insert(self.next_token, awaited);
        self.next_token
    }

    #[inline(never)]
    fn taken(&mut self, token: u64, stored: bool, cx: &mut Cx<'_>, said: &mut Said) {
        match self.awaited.remove(&token) {
            Some(Awaited::Rows(delivery)) => {
                if !self.storing.contains(&delivery.given.batch.id()) {
                    self.is_published(delivery.given.batch.id(), cx);
                }
                if !stored {
                    self.later(Delivery { part: Part::Rows, ..Delivery::clone(&delivery) }, cx);
                }
            }
            Some(Awaited::Batch(delivery)) => {
                let (id, history) = (delivery.given.batch.id(), delivery.history);
                self.is_published(id, cx);
                self.batch_kept(&delivery, stored, cx);
                if history {
                    self.history.asked().into_iter().for_each(|peer| self.ask_history(peer, cx, said));
                }
            }
            Some(Awaited::Answer { client, req_id, line, change }) => {
                self.settle(change, stored, cx);
                let message = "the daemon cannot write to its disk now, and nothing was changed: try again in a \
                               moment";
                let result =
                    if stored { Ok(line) } else { Err(IpcError::new(IpcCode::InternalError, message)) };
                cx.act(Act::Fulfil { client, req_id, result });
            }
            Some(Awaited::Replay) => self.replay_shown(token, stored, cx),
            Some(Awaited::History { .. }) | None => {}
        }
    }

    /// A batch of ours is on its way, and what is to be stored of it was tried: who published it hears so.
    /// What could not be stored is tried again.
    fn is_published(&mut self, id: BatchId, cx: &mut Cx<'_>) {
        for (client, req_id, line) in self.answers.remove(&id).unwrap_or_default() {
            cx.act(Act::Fulfil { client, req_id, result: Ok(line) });
        }
    }

    #[inline(never)]
    fn loaded(&mut self, token: u64, values: &[Option<Arc<[u8]>>], cx: &mut Cx<'_>, said: &mut Said) {
        match self.awaited.remove(&token) {
            Some(Awaited::History { to }) => {
                if let Some(neighbour) = self.neighbours.get_mut(&to) {
                    neighbour.reading = false;
                }
                let texts = values.iter().flatten().filter_map(|value| std::str::from_utf8(value).ok());
                let read = texts.filter_map(|text| Gossip::parse(text).ok());
                for mut given in read.flat_map(|read| read.gossip.batches) {
                    given.age_ms = cx.now.wall_ms.saturating_sub(given.batch.ts_ms);
                    said.to(to).batches.push(given);
                }
            }
            Some(Awaited::Replay) => self.replay_read(token, values, cx),
            _ => {}
        }
    }

    #[inline(never)]
    fn timer(&mut self, cx: &mut Cx<'_>, said: &mut Said) {
        let mono_ms = cx.now.mono_ms;
        if self.publishing.next_due_ms().is_some_and(|at_ms| at_ms <= mono_ms) {
            self.flush_due(cx, said);
        }
        said.add(self.mesh.due(mono_ms));
        self.deliver_again(cx);
        for peer in self.history.due(mono_ms) {
            self.ask_history(peer, cx, said);
        }
    }

    /// Some seconds have passed.
    fn tick(&mut self, cx: &mut Cx<'_>) {
        self.mesh.forget(cx.now.mono_ms);
        self.rates.sweep(cx.now.mono_ms);
        self.neighbour_rates.sweep(cx.now.mono_ms);
        let writes = self.kept.expire(cx.now.wall_ms);
        heard::put(writes, cx);
        // A level may have changed since.
        let gone =
            |(peer, one): (&AgentId, &Neighbour)| (one.up && !cx.view.is_let_in(*peer)).then_some(*peer);
        let gone: Vec<AgentId> = self.neighbours.iter().filter_map(gone).collect();
        for peer in gone {
            // What it wants is remembered while it is connected: it may be let in again.
            self.history.gone(peer);
            self.neighbours.entry(peer).or_default().up = false;
        }
        for peer in cx.view.connected() {
            if !self.neighbours.get(&peer).is_some_and(|one| one.up) {
                self.peer_up(peer, cx);
            }
        }
        self.say_joins(cx);
    }

    fn message(
        &mut self,
        kind: &'static Kind,
        from: AgentId,
        payload: &str,
        cx: &mut Cx<'_>,
        said: &mut Said,
    ) {
        if !cx.view.topics().enabled {
            return;
        }
        match kind.name {
            JOIN => {
                if let Ok(join) = Join::parse(payload) {
                    self.heard_join(from, join, cx, said);
                }
            }
            LEAVE => {
                if let Ok(Leave { n }) = Leave::parse(payload) {
                    self.heard_join(from, Join { n, ..Join::default() }, cx, said);
                }
            }
            _ => self.heard_gossip(from, payload, cx, said),
        }
    }

    /// Nothing of what it said is kept or passed on.
    #[inline(never)]
    fn peer_out(&mut self, peer: AgentId, cx: &mut Cx<'_>) {
        self.peer_down(peer);
        self.mesh.forget_publisher(peer);
        self.again.retain(|(_, delivery)| delivery.given.batch.from != peer);
        let writes = self.kept.forget(peer);
        heard::put(writes, cx);
    }

    #[inline(never)]
    fn socket_gone(&mut self, socket: &str, cx: &mut Cx<'_>) {
        let consumer = format!("{SCOPED}{socket}");
        let writes = self.subs.consumer_gone(&consumer);
        let its = Owner::Consumer(consumer.into());
        self.owner_gone(&its);
        heard::put(writes, cx);
        self.say_joins(cx);
    }

    #[inline(never)]
    fn client_gone(&mut self, client: ClientId, cx: &mut Cx<'_>) {
        self.owner_gone(&Owner::Client(client));
        if self.subs.client_gone(client) {
            self.say_joins(cx);
        }
    }
}

impl Family for Topics {
    fn vocabulary(&self) -> &'static Vocabulary {
        &VOCABULARY
    }

    fn handle(&mut self, input: Input<'_>, cx: &mut Cx<'_>) {
        let mut said = Said::default();
        match input {
            Input::Message { message, kind } => {
                let (from, payload) = (message.envelope.from, message.envelope.payload());
                self.message(kind, from, payload, cx, &mut said);
            }
            Input::PeerReply { request, .. } if request.kind() == GOSSIP => {
                self.arrived(request.to);
                self.flush_held(cx, &mut said);
            }
            Input::PeerUp { peer } => self.peer_up(peer, cx),
            Input::PeerDown { peer } => self.peer_down(peer),
            Input::Timer => self.timer(cx, &mut said),
            Input::Taken { token, stored, refused } => {
                if refused > 0 {
                    self.dropped.count(NotTaken::Limited);
                }
                self.taken(token, stored, cx, &mut said);
            }
            Input::Loaded { token, values } => self.loaded(token, values, cx, &mut said),
            Input::ClientGone { client } => self.client_gone(client, cx),
            Input::ClientHello { client } => {
                let on = self.subs.listens(client, &cx.view.consumer(client));
                cx.act(Act::Listen { client, kind: heard::MESSAGE, on });
            }
            Input::PeerOut { peer } => self.peer_out(peer, cx),
            Input::SocketGone { socket } => self.socket_gone(socket, cx),
            Input::Started => {
                let claim = self.publishing.claim(cx.now.wall_ms);
                heard::put(vec![claim], cx);
            }
            Input::Settings => {
                // By other rules it may be taken.
                self.mesh.forget_refused();
                self.say_joins(cx);
            }
            Input::Tick => self.tick(cx),
            _ => {}
        }
        self.say(said, cx);
    }

    fn command(
        &mut self,
        client: ClientId,
        name: &str,
        command: &Command<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Result<(), IpcError>> {
        self.serve(client, name, command, cx)
    }

    fn next_due_ms(&self) -> Option<u64> {
        let again = self.again.front().map(|(at_ms, _)| *at_ms);
        let own = self.publishing.next_due_ms().into_iter().chain(again).chain(self.history.next_due_ms());
        own.chain(self.mesh.next_due_ms()).min()
    }

    fn shows(&self, client: ClientId, consumer: &str, row: &Row) -> bool {
        self.shows_row(client, consumer, row)
    }

    fn status(&self) -> Option<(&'static str, String)> {
        let dropped = NotTaken::ALL
            .iter()
            .fold(Line::empty(), |line, why| line.number(why.as_str(), self.dropped.of(*why)));
        let line = Line::empty()
            .field("neighbours", &self.neighbours.values().filter(|one| one.up).count())
            .field("subscriptions", &self.subs.count())
            .number("published", self.published)
            .number("delivered", self.delivered)
            .number("relayed", self.relayed)
            .raw("dropped", &dropped.end());
        Some(("topics", line.end().to_string()))
    }

    fn restore(&mut self, key: &str, value: &[u8]) {
        if key.starts_with(subs::SUB) {
            self.subs.restore(value);
        } else if key.starts_with(kept::KEEP) {
            self.kept.restore_keep(value);
        } else if key.starts_with(kept::KEPT) {
            self.kept.restore_batch(value);
        } else if key == publish::SEQ {
            self.publishing.restore(value);
        }
    }
}
