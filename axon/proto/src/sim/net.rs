//! What the network does, and how effects are carried out.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{Ev, Sim};
use crate::contacts::ContactChange;
use crate::fault::{Point, Sort, hit};
use crate::limits::{REPLY_GRACE_MS, REQUEST_TIMEOUT_MS, SILENCE_MS};
use crate::node::{ConnId, DialId, Effect, Input, JobId, KEY_REFUSED, Lost, Side, StreamId, Token};
use crate::scope::ScopeChange;

/// QUIC's idle timeout.
const IDLE_MS: u64 = 60_000;
/// QUIC's keep-alive.
const KEEPALIVE_MS: u64 = 15_000;
/// How long ago a message may have been sent that comes a second time.
const AGAIN_MS: u64 = 20_000;
/// What a node sends is answered, lost or given up after this.
const EXCHANGE_MS: u64 = REQUEST_TIMEOUT_MS + REPLY_GRACE_MS + 6_000;
/// A message that never arrives is given up after this.
const EXCHANGE_LOST_MS: u64 = 1_500;
/// How often a refused or silent address is tried while a dial lasts.
const DIAL_AGAIN_MS: u64 = 500;

/// One end of a connection.
pub(super) struct End {
    pub host: usize,
    pub life: u32,
    pub conn: ConnId,
    /// The node has been told of it.
    pub known: bool,
    pub open: bool,
    pub silent: bool,
}

/// A QUIC connection; the first end dialled.
pub(super) struct Wire {
    pub ends: [End; 2],
    pub dial: DialId,
    /// A close waits until the answers given before it have arrived.
    pub flush_until: u64,
    /// Messages on their way.
    pub live: BTreeSet<u64>,
}

/// A message on its way, and its answer's.
pub(super) struct Exchange {
    pub wire: usize,
    pub side: usize,
    pub token: Token,
    pub bidi: bool,
    pub bytes: Arc<str>,
    pub at_receiver: Option<StreamId>,
    pub arrived: bool,
}

impl Sim {
    pub fn delay(&mut self) -> u64 {
        let (from, to) = self.weather.latency_ms;
        let delay = self.rng.range(from, to);
        if !self.calm && self.plan.faults && self.rng.chance(self.weather.lost) {
            // A packet is lost and sent again, once or several times.
            return delay + self.rng.range(50, 200) * (1 << self.rng.below(5));
        }
        delay
    }

    pub fn linked(&self, a: usize, b: usize) -> bool {
        !self.cut.contains(&(a.min(b), a.max(b)))
    }

    pub fn path_ok(&self, wire: usize) -> bool {
        let ends = &self.wires[wire].ends;
        let alive = ends.iter().all(|end| end.open && self.alive(end.host, end.life));
        alive && self.linked(ends[0].host, ends[1].host)
    }

    /// A connection that has just gone bad is noticed in time.
    pub fn broken(&mut self, wire: usize) {
        for side in 0..2 {
            if self.wires[wire].ends[side].open {
                self.after(SILENCE_MS + 500, Ev::Silence { wire, side });
                self.after(IDLE_MS, Ev::Idle { wire });
            }
        }
    }

    /// A connection that both ends believe in.
    pub fn wire_between(&self, a: usize, b: usize) -> Option<usize> {
        self.live_wires.iter().copied().find(|wire| {
            let ends = &self.wires[*wire].ends;
            let of = [ends[0].host, ends[1].host];
            (of == [a, b] || of == [b, a]) && ends.iter().all(|end| end.open && end.known)
        })
    }

    pub fn travel(&mut self, event: Ev) {
        match event {
            Ev::DialTry { .. } => self.dial_try(event),
            Ev::DialRefused { host, life, dial } => {
                if !self.alive(host, life) {
                    return;
                }
                self.feed(host, Input::DialFailed { dial, why: KEY_REFUSED.into() });
            }
            Ev::Connected { wire, side, hello } => self.connect(wire, side, hello),
            Ev::Arrive { ex } => self.arrive(ex),
            Ev::Answer { ex, ref answer } => {
                let answer = answer.clone();
                if self.comes_back(ex, &event) {
                    let Some(Exchange { wire, side, token, bidi, .. }) = self.end(ex) else { return };
                    let host = self.wires[wire].ends[side].host;
                    if !bidi {
                        return self.feed(host, Input::Sent { token, outcome: Err(Lost::Reset) });
                    }
                    let outcome = answer.map_or(Err(Lost::Reset), |bytes| Ok(bytes.as_bytes().to_vec()));
                    self.feed(host, Input::Replied { token, outcome });
                }
            }
            Ev::Acked { ex } => {
                if !self.comes_back(ex, &event) {
                    return;
                }
                let Some(Exchange { wire, side, token, .. }) = self.end(ex) else { return };
                let host = self.wires[wire].ends[side].host;
                self.feed(host, Input::Sent { token, outcome: Ok(()) });
            }
            Ev::Overdue { ex } => {
                let Some(exchange) = self.exchanges.get(&ex) else { return };
                let end = &self.wires[exchange.wire].ends[exchange.side];
                let (host, what) = (end.host, exchange.bytes.to_string());
                if end.open && self.alive(host, end.life) {
                    self.wrong(host, "every request to a peer ends", what);
                }
            }
            Ev::Again { from, to, bidi, bytes } => self.again(from, to, bidi, &bytes),
            Ev::StreamGone { host, life, stream } => {
                if !self.alive(host, life) || self.hosts[host].streams.remove(&stream).is_none() {
                    return;
                }
                self.feed(host, Input::RequestGone { stream });
            }
            Ev::Lost { wire, side, why } => self.lost(wire, side, why),
            Ev::Idle { wire } => {
                if self.path_ok(wire) {
                    return;
                }
                (0..2).for_each(|side| self.lost(wire, side, "timed out"));
            }
            Ev::Silence { wire, side } => {
                let waits = self.wires[wire].live.iter();
                let waits = waits.filter_map(|ex| self.exchanges.get(ex)).any(|ex| ex.side == side);
                let end = &self.wires[wire].ends[side];
                let (host, conn) = (end.host, end.conn);
                if end.open && end.known && !end.silent && waits && !self.path_ok(wire) {
                    self.wires[wire].ends[side].silent = true;
                    self.feed(host, Input::Silent { conn });
                }
            }
            Ev::Over { wire, side } => {
                let end = &self.wires[wire].ends[side];
                let (host, life, conn) = (end.host, end.life, end.conn);
                if self.alive(host, life) {
                    self.end_exchanges(wire, side, "closed here");
                    self.feed(host, Input::Disconnected { conn, why: "closed here".into() });
                }
                self.drop_wire(wire);
            }
            _ => {}
        }
    }

    fn dial_try(&mut self, event: Ev) {
        let Ev::DialTry { host, life, dial, to, hello, token, until } = event else { return };
        if !self.alive(host, life) {
            return;
        }
        if self.hosts[to].node.is_none() || !self.linked(host, to) {
            if self.now >= until {
                return self.feed(host, Input::DialFailed { dial, why: "no answer".into() });
            }
            let wait = (until - self.now).min(DIAL_AGAIN_MS);
            return self.after(wait, Ev::DialTry { host, life, dial, to, hello, token, until });
        }
        if !self.admits(host, to, false) || !self.admits(to, host, true) {
            let delay = self.delay();
            return self.after(delay, Ev::DialRefused { host, life, dial });
        }
        let theirs = self.hosts[to].life;
        let mut end = |host: usize, life: u32| {
            let conn = ConnId(self.fresh());
            End { host, life, conn, known: false, open: true, silent: false }
        };
        let ends = [end(host, life), end(to, theirs)];
        let wire = self.wires.len();
        self.wires.push(Wire { ends, dial, flush_until: 0, live: BTreeSet::new() });
        self.live_wires.insert(wire);
        let first = self.delay() + self.delay();
        let then = first + self.delay();
        self.after(first, Ev::Connected { wire, side: 0, hello: Some((token, hello)) });
        self.after(then, Ev::Connected { wire, side: 1, hello: None });
    }

    fn drop_wire(&mut self, wire: usize) {
        if self.wires[wire].ends.iter().all(|end| !end.open) {
            self.live_wires.remove(&wire);
        }
    }

    /// Takes a message off its connection.
    fn end(&mut self, ex: u64) -> Option<Exchange> {
        let exchange = self.exchanges.remove(&ex)?;
        self.wires[exchange.wire].live.remove(&ex);
        let host = self.wires[exchange.wire].ends[exchange.side].host;
        self.hosts[host].tokens.remove(&exchange.token);
        Some(exchange)
    }

    /// Whether what comes back for a message now gets to its sender.
    fn comes_back(&mut self, ex: u64, event: &Ev) -> bool {
        let Some((wire, side)) = self.exchanges.get(&ex).map(|ex| (ex.wire, ex.side)) else { return false };
        self.passes(wire, side, event)
    }

    /// Whether something that arrives now at this end gets there; if only a link is down, it comes later.
    fn passes(&mut self, wire: usize, side: usize, event: &Ev) -> bool {
        let ends = &self.wires[wire].ends;
        if !self.linked(ends[0].host, ends[1].host) {
            self.stalled.push(event.clone());
            return false;
        }
        let end = &ends[side];
        end.open && self.alive(end.host, end.life)
    }

    fn connect(&mut self, wire: usize, side: usize, hello: Option<(Token, Arc<str>)>) {
        let event = Ev::Connected { wire, side, hello: hello.clone() };
        if !self.passes(wire, side, &event) {
            return;
        }
        let ends = &mut self.wires[wire].ends;
        ends[side].known = true;
        let (host, conn, other) = (ends[side].host, ends[side].conn, ends[1 - side].host);
        self.hosts[host].conns.insert(conn, wire);
        let dial = (side == 0).then_some(self.wires[wire].dial);
        if let Some((token, bytes)) = hello {
            self.transmit(host, conn, token, bytes, true);
        }
        let mut binding = [0; 32];
        binding.iter_mut().zip((wire as u64).to_be_bytes()).for_each(|(byte, of)| *byte = of);
        let input = Input::Connected {
            conn,
            peer: self.hosts[other].id,
            key: self.hosts[other].key,
            side: if side == 0 { Side::Dialer } else { Side::Acceptor },
            addr: SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 7_100)),
            dial,
            early: false,
            binding,
        };
        self.feed(host, input);
    }

    /// Whether one host's handshake takes another's certificate.
    fn admits(&self, at: usize, of: usize, accepts: bool) -> bool {
        let (id, key, pins) = (self.hosts[of].id, self.hosts[of].key, &self.hosts[at].pins);
        let stranger = accepts && pins.strangers && !pins.keys.contains_key(&id);
        !pins.blocked.contains(&id) && (stranger || pins.keys.get(&id) == Some(&key))
    }

    fn transmit(&mut self, host: usize, conn: ConnId, token: Token, bytes: Arc<str>, bidi: bool) {
        self.trace.bytes(bytes.as_bytes());
        self.story(|| format!("node {host} -> {conn:?} {token:?} {bytes}"));
        let Some(wire) = self.hosts[host].conns.get(&conn).copied() else {
            return self.wrong(host, "nothing is sent on a connection that is closed", bytes.to_string());
        };
        let side = usize::from(self.wires[wire].ends[0].conn != conn);
        let ex = self.fresh();
        let exchange = Exchange { wire, side, token, bidi, bytes, at_receiver: None, arrived: false };
        self.exchanges.insert(ex, exchange);
        self.wires[wire].live.insert(ex);
        if self.hosts[host].tokens.insert(token, ex).is_some() {
            self.wrong(host, "a token is used once", format!("{token:?}"));
        }
        match hit(Point::Send) {
            Some(Sort::Drop) => return self.after(EXCHANGE_LOST_MS, Ev::Answer { ex, answer: None }),
            Some(_) => {
                for side in 0..2 {
                    self.after(side as u64, Ev::Lost { wire, side, why: "lost" });
                }
                return;
            }
            None => {}
        }
        let delay = self.delay();
        self.after(delay, Ev::Arrive { ex });
        self.after(EXCHANGE_MS, Ev::Overdue { ex });
        if !self.path_ok(wire) {
            self.after(SILENCE_MS, Ev::Silence { wire, side });
        }
    }

    fn arrive(&mut self, ex: u64) {
        let Some(exchange) = self.exchanges.get(&ex) else { return };
        let (wire, side, bidi, arrived) = (exchange.wire, exchange.side, exchange.bidi, exchange.arrived);
        let bytes = Arc::clone(&exchange.bytes);
        if arrived {
            return;
        }
        let (from, to) = (&self.wires[wire].ends[side], &self.wires[wire].ends[1 - side]);
        let (sender, host, life, conn) = (from.host, to.host, to.life, to.conn);
        let (is_open, is_known) = (to.open, to.known);
        if !self.linked(sender, host) {
            return self.stalled.push(Ev::Arrive { ex });
        }
        if !self.alive(host, life) || !is_open {
            // A daemon that runs resets what it does not know; one that does not run says nothing.
            if self.hosts[host].node.is_some() {
                let delay = self.delay();
                self.after(delay, Ev::Lost { wire, side, why: "reset" });
            }
            return;
        }
        if !is_known {
            return self.after(1, Ev::Arrive { ex });
        }
        let stream = StreamId(self.fresh());
        if let Some(exchange) = self.exchanges.get_mut(&ex) {
            exchange.arrived = true;
            exchange.at_receiver = bidi.then_some(stream);
        }
        if self.plan.faults && !self.calm && self.rng.chance(self.weather.again) && !is_hello(&bytes) {
            let delay = self.rng.below(AGAIN_MS);
            let again = Ev::Again { from: sender, to: host, bidi, bytes: Arc::clone(&bytes) };
            self.after(delay, again);
        }
        let bytes = bytes.as_bytes().to_vec();
        if bidi {
            self.hosts[host].streams.insert(stream, ex);
            self.feed(host, Input::Request { conn, stream, bytes });
        } else {
            let delay = self.delay();
            self.after(delay, Ev::Acked { ex });
            self.feed(host, Input::OneWay { conn, bytes });
        }
    }

    /// A message comes a second time, on whatever connection there is now.
    fn again(&mut self, from: usize, to: usize, bidi: bool, bytes: &Arc<str>) {
        let Some(wire) = self.wire_between(from, to).filter(|wire| self.path_ok(*wire)) else { return };
        *self.report.faults.entry("repeat").or_default() += 1;
        let end = &self.wires[wire].ends[usize::from(self.wires[wire].ends[0].host == from)];
        let (conn, bytes) = (end.conn, bytes.as_bytes().to_vec());
        if bidi {
            let stream = StreamId(self.fresh());
            self.feed(to, Input::Request { conn, stream, bytes });
        } else {
            self.feed(to, Input::OneWay { conn, bytes });
        }
    }

    /// One end learns that its connection is over.
    fn lost(&mut self, wire: usize, side: usize, why: &'static str) {
        let end = &mut self.wires[wire].ends[side];
        if !std::mem::replace(&mut end.open, false) {
            return;
        }
        let (host, life, conn, known) = (end.host, end.life, end.conn, end.known);
        // The other end, should it still believe, learns of it by a reset.
        self.after(KEEPALIVE_MS, Ev::Lost { wire, side: 1 - side, why: "reset" });
        self.drop_wire(wire);
        if !self.alive(host, life) {
            return;
        }
        if !known {
            // The handshake did not come to its end.
            if side == 0 {
                let dial = self.wires[wire].dial;
                self.feed(host, Input::DialFailed { dial, why: why.into() });
            }
            return;
        }
        self.hosts[host].conns.remove(&conn);
        let told_first = self.rng.chance(500);
        if told_first {
            self.feed(host, Input::Disconnected { conn, why: why.into() });
        }
        self.end_exchanges(wire, side, why);
        if !told_first {
            self.feed(host, Input::Disconnected { conn, why: why.into() });
        }
    }

    /// What one end had sent on a connection that is over, and what waits there for an answer.
    fn end_exchanges(&mut self, wire: usize, side: usize, why: &str) {
        let host = self.wires[wire].ends[side].host;
        for ex in self.wires[wire].live.clone() {
            let Some(exchange) = self.exchanges.get(&ex) else { continue };
            if exchange.side != side {
                if let Some(stream) = exchange.at_receiver {
                    self.hosts[host].streams.remove(&stream);
                }
                continue;
            }
            let Some(Exchange { token, bidi, .. }) = self.end(ex) else { continue };
            let lost = Lost::Connection(why.to_owned());
            self.feed(
                host,
                match bidi {
                    true => Input::Replied { token, outcome: Err(lost) },
                    false => Input::Sent { token, outcome: Err(lost) },
                },
            );
        }
    }

    fn respond(&mut self, at: usize, stream: StreamId, answer: Option<Arc<str>>) {
        if !self.hosts[at].answered.insert(stream) {
            self.wrong(at, "a request is answered once", format!("{stream:?} {answer:?}"));
        }
        let Some(ex) = self.hosts[at].streams.remove(&stream) else { return };
        let Some(wire) = self.exchanges.get(&ex).map(|ex| ex.wire) else { return };
        let answer = match hit(Point::Answer) {
            Some(Sort::AnswerDrop) => None,
            Some(_) => {
                for side in 0..2 {
                    self.after(side as u64, Ev::Lost { wire, side, why: "lost" });
                }
                return;
            }
            None => answer,
        };
        let delay = self.delay();
        let flush = &mut self.wires[wire].flush_until;
        *flush = (*flush).max(self.now + delay);
        self.after(delay, Ev::Answer { ex, answer });
    }

    /// Carries out what a node wants; gives what it is to be told at once.
    pub fn carry_out(&mut self, at: usize, effects: Vec<Effect>) -> Vec<Input> {
        let life = self.hosts[at].life;
        let mut inputs = Vec::new();
        let done = |job: JobId| Input::Done { job, outcome: Ok(String::new()) };
        for effect in effects {
            match effect {
                Effect::Dial { dial, peer, hello, token, timeout_ms, .. } => {
                    let to = self.hosts.iter().position(|host| host.id == peer);
                    let Some(to) = to else { continue };
                    let (delay, until) = (self.delay(), self.now + timeout_ms);
                    self.story(|| format!("node {at} dials {to}"));
                    self.after(delay, Ev::DialTry { host: at, life, dial, to, hello, token, until });
                }
                Effect::Close { conn, code, reason } => {
                    self.story(|| format!("node {at} closes {conn:?}: {code} {reason}"));
                    self.close(at, conn);
                }
                Effect::Request { conn, token, bytes } => self.transmit(at, conn, token, bytes, true),
                Effect::OneWay { conn, token, bytes } => self.transmit(at, conn, token, bytes, false),
                Effect::Abandon { token } => self.abandon(at, token),
                Effect::Respond { stream, bytes } => {
                    self.trace.bytes(bytes.as_bytes());
                    self.story(|| format!("node {at} answers {stream:?} {bytes}"));
                    self.promises.answered(at, &bytes);
                    self.respond(at, stream, Some(bytes));
                }
                Effect::Reset { stream } => self.respond(at, stream, None),
                Effect::Pins(pins) => self.hosts[at].pins = pins,
                Effect::Line { client, line, .. } => self.line(at, client, &line),
                Effect::Event { client, seq, line, .. } => {
                    if !self.event(at, client, &line) {
                        inputs.push(Input::Lagged { client, seq });
                    }
                }
                Effect::Measure { client, req_id, .. } => {
                    inputs.push(Input::Measured { client, req_id, rtts: Vec::new() });
                }
                // Nobody counts packets here: who is gone is seen by its connections.
                Effect::Count(_) => {}
                Effect::Pace { client, pause } => self.pace(at, client, pause),
                Effect::CloseClient { client } => {
                    if self.hosts[at].clients.remove(&client).is_some() {
                        inputs.push(Input::ClientGone { client });
                    }
                }
                job @ (Effect::Commit { .. } | Effect::Read { .. } | Effect::Evict(_)) => {
                    self.hosts[at].jobs.push_back(job);
                    let delay = self.rng.below(5);
                    self.after(delay, Ev::Disk { host: at, life });
                }
                Effect::Remember(seen) => {
                    if hit(Point::Whole).is_none() {
                        self.hosts[at].seen.extend(seen);
                    }
                }
                Effect::SavePeers(known) => {
                    if hit(Point::Whole).is_none() {
                        self.hosts[at].known = known;
                    }
                }
                Effect::Contacts { job, changes } => {
                    let outcome = self.write_contacts(at, changes);
                    inputs.push(Input::Done { job, outcome });
                }
                Effect::Herald { token, .. } => {
                    let outcome = Err(Lost::Connection("not played here".into()));
                    inputs.push(Input::Replied { token, outcome });
                }
                Effect::Socket { job, change } => {
                    let outcome = self.write_sockets(at, change);
                    inputs.push(Input::Done { job, outcome });
                }
                Effect::Purge { job, .. } | Effect::Reload { job } | Effect::Rekey { job } => {
                    inputs.push(done(job))
                }
                Effect::Log(_, text) => self.story(|| format!("node {at} says: {text}")),
                // How messages travel is nothing to this network.
                Effect::Up { .. } | Effect::Audit(_) => {}
                Effect::Stopped => {
                    self.stopped(at);
                    return Vec::new();
                }
            }
        }
        inputs
    }

    /// `sockets.toml` is written, wholly or not at all.
    fn write_sockets(&mut self, at: usize, change: ScopeChange) -> Result<String, String> {
        if hit(Point::Whole).is_some() {
            return Err("no space left on device".into());
        }
        let scopes = &mut self.hosts[at].scopes;
        match change {
            ScopeChange::Put(scope) => {
                scopes.retain(|known| known.name != scope.name);
                scopes.push(scope);
            }
            ScopeChange::Remove(name) => scopes.retain(|known| known.name != name),
        }
        Ok("/sockets/box/axon.sock".into())
    }

    /// `contacts.toml` is written, wholly or not at all.
    fn write_contacts(&mut self, at: usize, changes: Vec<ContactChange>) -> Result<String, String> {
        if hit(Point::Whole).is_some() {
            return Err("no space left on device".into());
        }
        let file = &mut self.hosts[at].contacts;
        for change in changes {
            match change {
                ContactChange::Put(contact) => {
                    file.contacts.retain(|known| known.agent_id != contact.agent_id);
                    file.contacts.push(contact);
                }
                ContactChange::Remove(id) => file.contacts.retain(|known| known.agent_id != id),
                ContactChange::Pause(on) => file.paused = on,
            }
        }
        Ok(String::new())
    }

    fn close(&mut self, at: usize, conn: ConnId) {
        let Some(wire) = self.hosts[at].conns.remove(&conn) else { return };
        let side = usize::from(self.wires[wire].ends[0].conn != conn);
        self.wires[wire].ends[side].open = false;
        let other = self.wires[wire].ends[1 - side].host;
        let arrives = (self.now + self.delay()).max(self.wires[wire].flush_until + 1);
        // A close that cannot arrive is noticed as silence.
        let wait = if self.linked(at, other) { arrives - self.now } else { IDLE_MS };
        self.after(wait, Ev::Lost { wire, side: 1 - side, why: "closed" });
        // As the shell does: its own close is told too, and ends what was in flight.
        self.after(0, Ev::Over { wire, side });
    }

    fn abandon(&mut self, at: usize, token: Token) {
        let Some(ex) = self.hosts[at].tokens.get(&token).copied() else { return };
        let Some(Exchange { wire, side, at_receiver, .. }) = self.end(ex) else { return };
        let end = &self.wires[wire].ends[1 - side];
        let (host, life) = (end.host, end.life);
        if let Some(stream) = at_receiver
            && self.path_ok(wire)
        {
            let delay = self.delay();
            self.after(delay, Ev::StreamGone { host, life, stream });
        }
    }
}

fn is_hello(bytes: &str) -> bool {
    bytes.contains("\"kind\":\"hello\"")
}
