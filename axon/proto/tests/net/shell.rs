//! What the network and the shells of a [`World`] do: events, effects, lines.

use std::sync::Arc;

use super::*;

/// What the disk's thread does with one effect.
pub(super) fn do_job(store: &mut Store<Memory>, job: Effect, wall_ms: u64) -> Option<Input> {
    match job {
        Effect::Commit { id, commit } => {
            let outcome = store.commit(&[commit], wall_ms).remove(0);
            Some(Input::Committed { id, outcome })
        }
        Effect::Read { id, read } => Some(Input::ReadDone { id, out: store.read(&read) }),
        Effect::Evict(keep) => {
            store.evict(&keep, wall_ms).unwrap();
            None
        }
        other => panic!("the disk is asked for {other:?}"),
    }
}

/// What the shell does at once with an effect that names a job: files, queues.
pub(super) fn shell_job(
    effect: &Effect,
    contacts: &mut ContactsFile,
    files_fail: bool,
) -> Option<(JobId, Result<String, String>)> {
    let failed = || Err("no space left on device".to_owned());
    match effect {
        Effect::Contacts { job, .. } | Effect::Socket { job, .. } if files_fail => Some((*job, failed())),
        Effect::Contacts { job, changes } => {
            for change in changes {
                match change {
                    ContactChange::Put(contact) => {
                        contacts.contacts.retain(|known| known.agent_id != contact.agent_id);
                        contacts.contacts.push(contact.clone());
                    }
                    ContactChange::Remove(id) => contacts.contacts.retain(|known| known.agent_id != *id),
                    ContactChange::Pause(on) => contacts.paused = *on,
                }
            }
            Some((*job, Ok(String::new())))
        }
        Effect::Socket { job, .. } => Some((*job, Ok("/sockets/x/axon.sock".into()))),
        Effect::Purge { job, .. } | Effect::Reload { job } => Some((*job, Ok(String::new()))),
        Effect::Rekey { job } => Some((*job, Ok(PublicKey([200; 32]).to_string()))),
        _ => None,
    }
}

impl World {
    // --- what the network does ---

    #[allow(clippy::too_many_lines)]
    pub(super) fn happen(&mut self, event: Ev) {
        match event.clone() {
            Ev::DialTry { host, life, dial, peer, hello, token, until } => {
                if !self.alive(host, life) {
                    return;
                }
                let target = self.hosts.iter().position(|other| other.id == peer);
                let up = |at: &usize| self.hosts[*at].node.is_some() && self.linked(host, *at);
                let Some(target) = target.filter(up) else {
                    if self.now >= until {
                        self.feed(host, Input::DialFailed { dial, why: "no answer".into() });
                    } else {
                        self.after((until - self.now).min(200), event);
                    }
                    return;
                };
                if !self.admits(host, target, false) || !self.admits(target, host, true) {
                    let delay = self.delay();
                    return self.after(delay, Ev::DialFailed { host, life, dial });
                }
                let end = |ids: &mut u64, host: usize, life: u32| {
                    *ids += 1;
                    End { host, life, conn: ConnId(*ids), known: false, open: true, silent: false }
                };
                let theirs = self.hosts[target].life;
                let ends = [end(&mut self.ids, host, life), end(&mut self.ids, target, theirs)];
                self.wires.push(Wire { ends, dial, flush_until: 0 });
                let wire = self.wires.len() - 1;
                let first = self.delay() + self.delay();
                let then = first + self.delay();
                self.after(first, Ev::Connected { wire, side: 0, hello: Some((token, hello)) });
                self.after(then, Ev::Connected { wire, side: 1, hello: None });
            }
            Ev::DialFailed { host, life, dial } => {
                if self.alive(host, life) {
                    self.feed(host, Input::DialFailed { dial, why: KEY_REFUSED.into() });
                }
            }
            Ev::Connected { wire, side, hello } => self.connect(wire, side, hello),
            Ev::Arrive { ex } => self.arrive(ex),
            Ev::Answer { ex, answer } => {
                let Exchange { wire, side, token, .. } = self.exchanges[ex];
                if !self.passes(wire, side, &event) || self.exchanges[ex].done {
                    return;
                }
                self.exchanges[ex].done = true;
                let host = self.wires[wire].ends[side].host;
                if self.hosts[host].tokens.get(&token) == Some(&ex) {
                    self.hosts[host].tokens.remove(&token);
                    let outcome = answer.map_or(Err(Lost::Reset), |bytes| Ok(bytes.as_bytes().to_vec()));
                    self.feed(host, Input::Replied { token, outcome });
                }
            }
            Ev::Acked { ex } => {
                let Exchange { wire, side, token, .. } = self.exchanges[ex];
                if !self.passes(wire, side, &event) || self.exchanges[ex].done {
                    return;
                }
                self.exchanges[ex].done = true;
                let host = self.wires[wire].ends[side].host;
                if self.hosts[host].tokens.get(&token) == Some(&ex) {
                    self.hosts[host].tokens.remove(&token);
                    self.feed(host, Input::Sent { token, outcome: Ok(()) });
                }
            }
            Ev::Gone { host, life, stream } => {
                if self.alive(host, life) && self.hosts[host].streams.remove(&stream).is_some() {
                    self.feed(host, Input::RequestGone { stream });
                }
            }
            Ev::Lost { wire, side, why } => self.lost(wire, side, why),
            Ev::Idle { wire } => {
                if !self.path_ok(wire) {
                    (0..2).for_each(|side| self.lost(wire, side, "timed out"));
                }
            }
            Ev::Silence { wire, side } => {
                let end = &self.wires[wire].ends[side];
                let waits = self.exchanges.iter().any(|ex| ex.wire == wire && ex.side == side && !ex.done);
                let (host, conn) = (end.host, end.conn);
                if end.open && end.known && !end.silent && waits && !self.path_ok(wire) {
                    self.wires[wire].ends[side].silent = true;
                    self.feed(host, Input::Silent { conn });
                }
            }
            Ev::Disk { host, life } => {
                if !self.alive(host, life) {
                    return;
                }
                let wall_ms = self.clock().wall_ms;
                let at = &mut self.hosts[host];
                let (Some(job), Some(store)) = (at.jobs.pop_front(), at.store.as_mut()) else { return };
                if let Some(input) = do_job(store, job, wall_ms) {
                    self.feed(host, input);
                }
            }
            Ev::Over { wire, side } => {
                let End { host, life, conn, .. } = self.wires[wire].ends[side];
                if self.alive(host, life) {
                    self.end_exchanges(wire, side, "closed here");
                    self.feed(host, Input::Disconnected { conn, why: "closed here".into() });
                }
            }
            Ev::Say { host, life, client, line } => {
                if self.alive(host, life) && self.hosts[host].clients.contains_key(&client) {
                    self.feed(host, Input::Line { client, line: line.into_bytes() });
                }
            }
        }
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
        let (host, conn) = (self.wires[wire].ends[side].host, self.wires[wire].ends[side].conn);
        let other = self.wires[wire].ends[1 - side].host;
        // The identity is checked after every handshake.
        if !self.admits(host, other, side == 1) {
            self.wires[wire].ends[side].open = false;
            return self.after(1, Ev::Lost { wire, side: 1 - side, why: "not pinned" });
        }
        self.wires[wire].ends[side].known = true;
        self.hosts[host].conns.insert(conn, wire);
        let dial = (side == 0).then_some(self.wires[wire].dial);
        if let Some((token, bytes)) = hello {
            self.transmit(host, conn, token, bytes, true);
        }
        let input = Input::Connected {
            conn,
            peer: self.hosts[other].id,
            key: self.hosts[other].key,
            side: if side == 0 { Side::Dialer } else { Side::Acceptor },
            addr: "192.0.2.1:7100".parse().unwrap(),
            dial,
            early: false,
            binding: [wire as u8; 32],
        };
        self.feed(host, input);
    }

    /// Whether one host's handshake takes another's certificate.
    fn admits(&self, at: usize, of: usize, accepts: bool) -> bool {
        let (id, key) = (self.hosts[of].id, self.hosts[of].key);
        let pins = &self.hosts[at].pins;
        let stranger = accepts && pins.strangers && !pins.keys.contains_key(&id);
        !pins.blocked.contains(&id) && (stranger || pins.keys.get(&id) == Some(&key))
    }

    fn transmit(&mut self, host: usize, conn: ConnId, token: Token, bytes: Arc<str>, bidi: bool) {
        let value: Value = serde_json::from_str(&bytes).unwrap();
        *self.hosts[host].sends.entry(value["id"].as_str().unwrap().parse().unwrap()).or_default() += 1;
        let ex = self.exchanges.len();
        let Some(wire) = self.hosts[host].conns.get(&conn).copied() else {
            panic!("node {host} sends on connection {conn:?}, which it has closed\n{}", self.tail());
        };
        let side = usize::from(self.wires[wire].ends[0].conn != conn);
        self.exchanges.push(Exchange {
            wire,
            side,
            token,
            bidi,
            bytes,
            at_receiver: None,
            arrived: false,
            abandoned: false,
            done: false,
        });
        let before = self.hosts[host].tokens.insert(token, ex);
        assert!(before.is_none(), "a token goes out again before it was abandoned");
        let delay = self.delay();
        self.after(delay, Ev::Arrive { ex });
        self.after(SILENCE_MS, Ev::Silence { wire, side });
    }

    fn arrive(&mut self, ex: usize) {
        let Exchange { wire, side, bidi, abandoned, arrived, .. } = self.exchanges[ex];
        if abandoned || arrived {
            return;
        }
        let from = &self.wires[wire].ends[side];
        let to = &self.wires[wire].ends[1 - side];
        let (from_host, from_open, host, life, conn) = (from.host, from.open, to.host, to.life, to.conn);
        if !self.linked(from_host, host) {
            return if from_open {
                self.stalled.push(Ev::Arrive { ex })
            };
        }
        if !self.alive(host, life) || !to.open {
            // A daemon that runs resets what it does not know; one that does not run says nothing.
            if self.hosts[host].node.is_some() {
                let delay = self.delay();
                self.after(delay, Ev::Lost { wire, side, why: "reset" });
            }
            return;
        }
        if !to.known {
            return if from_open {
                self.after(1, Ev::Arrive { ex })
            };
        }
        self.exchanges[ex].arrived = true;
        let bytes = self.exchanges[ex].bytes.as_bytes().to_vec();
        if bidi {
            self.ids += 1;
            let stream = StreamId(self.ids);
            self.exchanges[ex].at_receiver = Some(stream);
            self.hosts[host].streams.insert(stream, ex);
            self.feed(host, Input::Request { conn, stream, bytes });
        } else {
            let delay = self.delay();
            self.after(delay, Ev::Acked { ex });
            self.feed(host, Input::OneWay { conn, bytes });
        }
    }

    /// One end learns that its connection is over.
    fn lost(&mut self, wire: usize, side: usize, why: &'static str) {
        let end = &mut self.wires[wire].ends[side];
        if !std::mem::replace(&mut end.open, false) {
            return;
        }
        let (host, life, conn, known) = (end.host, end.life, end.conn, end.known);
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
        self.note(format!("lost {host} {conn:?}: {why}"));
        let told_first = self.rng.chance(50);
        if told_first {
            self.feed(host, Input::Disconnected { conn, why: why.into() });
        }
        self.end_exchanges(wire, side, why);
        if !told_first {
            self.feed(host, Input::Disconnected { conn, why: why.into() });
        }
        // The other end, should it still believe, learns of it by a reset.
        self.after(KEEPALIVE_MS, Ev::Lost { wire, side: 1 - side, why: "reset" });
    }

    /// What one end had sent on a connection that is over, and what waits there for an answer.
    fn end_exchanges(&mut self, wire: usize, side: usize, why: &str) {
        let host = self.wires[wire].ends[side].host;
        for ex in 0..self.exchanges.len() {
            if self.exchanges[ex].wire != wire || self.exchanges[ex].done {
                continue;
            }
            if self.exchanges[ex].side != side {
                if let Some(stream) = self.exchanges[ex].at_receiver {
                    self.hosts[host].streams.remove(&stream);
                }
                continue;
            }
            self.exchanges[ex].done = true;
            let (token, bidi) = (self.exchanges[ex].token, self.exchanges[ex].bidi);
            if self.hosts[host].tokens.get(&token) == Some(&ex) {
                self.hosts[host].tokens.remove(&token);
                let lost = Lost::Connection(why.to_owned());
                let input = if bidi {
                    Input::Replied { token, outcome: Err(lost) }
                } else {
                    Input::Sent { token, outcome: Err(lost) }
                };
                self.feed(host, input);
            }
        }
    }

    // --- the shell ---

    pub fn feed(&mut self, at: usize, input: Input) {
        let now = self.clock();
        self.note(format!("{at} <- {}", short(&input)));
        let Some(node) = self.hosts[at].node.as_mut() else { return };
        let mut effects = Vec::new();
        node.handle(now, input, &mut effects);
        for effect in effects {
            self.carry_out(at, effect);
        }
    }

    #[allow(clippy::too_many_lines)]
    pub(super) fn carry_out(&mut self, at: usize, effect: Effect) {
        let life = self.hosts[at].life;
        match effect {
            Effect::Dial { dial, peer, addrs, hello, token, timeout_ms } => {
                assert!(!addrs.is_empty());
                self.note(format!("{at} dials {peer}"));
                self.hosts[at].dials.push((self.now, peer, timeout_ms));
                let until = self.now + timeout_ms;
                let delay = self.delay();
                self.after(delay, Ev::DialTry { host: at, life, dial, peer, hello, token, until });
            }
            Effect::Close { conn, code, reason } => {
                self.note(format!("{at} closes {conn:?} {code} {reason}"));
                self.hosts[at].closes.push((self.now, conn, code, reason));
                let Some(wire) = self.hosts[at].conns.remove(&conn) else { return };
                let side = usize::from(self.wires[wire].ends[0].conn != conn);
                self.wires[wire].ends[side].open = false;
                let other = self.wires[wire].ends[1 - side].host;
                if self.linked(at, other) {
                    let arrives = self.now + self.delay();
                    let arrives = arrives.max(self.wires[wire].flush_until + 1);
                    self.after(arrives - self.now, Ev::Lost { wire, side: 1 - side, why: "closed" });
                }
                // As the shell does: its own close is told too, and ends what was in flight.
                self.after(0, Ev::Over { wire, side });
            }
            Effect::Request { conn, token, bytes } => self.transmit(at, conn, token, bytes, true),
            Effect::OneWay { conn, token, bytes } => self.transmit(at, conn, token, bytes, false),
            Effect::Abandon { token } => {
                let Some(ex) = self.hosts[at].tokens.remove(&token) else { return };
                self.exchanges[ex].abandoned = true;
                self.exchanges[ex].done = true;
                if let Some(stream) = self.exchanges[ex].at_receiver {
                    let wire = self.exchanges[ex].wire;
                    let end = &self.wires[wire].ends[1 - self.exchanges[ex].side];
                    let (host, life) = (end.host, end.life);
                    if self.path_ok(wire) {
                        let delay = self.delay();
                        self.after(delay, Ev::Gone { host, life, stream });
                    }
                }
            }
            Effect::Respond { stream, bytes } => self.respond(at, stream, Some(bytes)),
            Effect::Reset { stream } => self.respond(at, stream, None),
            // How messages travel is nothing to this network.
            Effect::Up { .. } => {}
            Effect::Pins(pins) => self.hosts[at].pins = pins,
            Effect::Line { client, line, .. } | Effect::Event { client, line, .. } => {
                self.line(at, client, &line)
            }
            Effect::Measure { client, req_id, .. } => {
                self.feed(at, Input::Measured { client, req_id, rtts: Vec::new() });
            }
            // Nobody counts packets here: who is gone is seen by its connections.
            Effect::Count(_) => {}
            Effect::CloseClient { client } => {
                if let Some(cli) = self.hosts[at].clients.get_mut(&client) {
                    cli.closed = true;
                }
            }
            effect @ (Effect::Commit { .. } | Effect::Read { .. } | Effect::Evict(_)) => {
                self.hosts[at].jobs.push_back(effect);
                let delay = self.rng.range(0, 4);
                self.after(delay, Ev::Disk { host: at, life });
            }
            Effect::Remember(seen) => self.hosts[at].seen.extend(seen),
            Effect::SavePeers(known) => self.hosts[at].known = known,
            Effect::Log(_, text) => {
                if text.starts_with("connected to") {
                    self.hosts[at].ups.push(text.contains("dialled"));
                }
                self.note(format!("{at} log {text}"));
            }
            Effect::Audit(row) => self.hosts[at].audit.push(row),
            Effect::Herald { token, .. } => {
                let outcome = Err(Lost::Connection("not played here".into()));
                self.feed(at, Input::Replied { token, outcome });
            }
            job @ (Effect::Contacts { .. }
            | Effect::Socket { .. }
            | Effect::Purge { .. }
            | Effect::Reload { .. }
            | Effect::Rekey { .. }) => {
                if let Some((job, outcome)) = shell_job(&job, &mut self.hosts[at].contacts, false) {
                    self.feed(at, Input::Done { job, outcome });
                }
            }
            Effect::Pace { .. } => {}
            Effect::Stopped => self.hosts[at].stopped += 1,
        }
    }

    fn respond(&mut self, at: usize, stream: StreamId, answer: Option<Arc<str>>) {
        let Some(ex) = self.hosts[at].streams.remove(&stream) else { return };
        if self.exchanges[ex].done {
            return;
        }
        let delay = self.delay();
        let wire = self.exchanges[ex].wire;
        self.wires[wire].flush_until = self.wires[wire].flush_until.max(self.now + delay);
        self.after(delay, Ev::Answer { ex, answer });
    }

    fn line(&mut self, at: usize, client: ClientId, line: &str) {
        let value: Value = serde_json::from_str(line).unwrap();
        assert!(!line.contains('\n') && line.len() <= 1_048_576 + 65_536);
        let (now, life) = (self.now, self.hosts[at].life);
        let Some(cli) = self.hosts[at].clients.get_mut(&client) else { return };
        cli.lines.push(value.clone());
        let think = cli.think_ms;
        if let Some(id) = value["req_id"].as_str().and_then(|req_id| req_id.strip_prefix("a-result-"))
            && value["ok"] == true
        {
            let message = value["msg_id"].as_str().unwrap().to_owned();
            self.results.push((at, id.to_owned(), now, message));
        }
        if value["event"] != "inbound" {
            return;
        }
        let id = value["envelope"]["id"].as_str().unwrap().to_owned();
        if value["answer"] != true {
            if value["replay"] == true {
                self.replayed.insert((at, id));
            } else {
                self.shown.entry((at, id)).or_default().push((life, now, client));
            }
            return;
        }
        let kind = value["envelope"]["kind"].as_str().unwrap().to_owned();
        self.kinds.insert(id.clone(), kind);
        self.offered.entry((at, id.clone())).or_default().push((life, now, client));
        let Some((from, to)) = think else { return };
        let mut wait = self.rng.range(from, to);
        let replies: &[(&str, Value)] = match value["envelope"]["kind"].as_str().unwrap() {
            "query" => &[("response", json!({"data":null,"summary":id}))],
            "delegate" => {
                &[("ack", json!({"accepted":true})), ("result", json!({"status":"completed","outcome":id}))]
            }
            _ => &[("ack", json!({"accepted":true}))],
        };
        for (kind, payload) in replies {
            self.after(wait, Ev::Say { host: at, life, client, line: reply_line(&id, kind, payload) });
            wait += self.rng.range(from, to);
        }
    }
}
