//! What peers and the network do.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axon_proto::limits::MESSAGE_BYTES_MAX;
use axon_proto::node::{ConnId, Input, Lost, StreamId, Token};
use serde_json::{Value, json};

use super::checks::text;
use super::{CONNS_MAX, Conn, Peer, Sent, Stream, World, side};
use crate::json::Json;
use crate::schema;

/// How an attempt or a message of the node ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As a peer that has nothing against it would have it.
    Well,
    /// With these bytes.
    Bytes(Vec<u8>),
    /// With an error of this code.
    Refused(&'static str),
    /// The stream is reset.
    Reset,
    /// The connection is lost.
    Lost,
}

impl World {
    /// The connections there are.
    pub fn conns(&self) -> Vec<ConnId> {
        self.conns.keys().copied().collect()
    }

    /// Whose connection it is.
    pub fn peer_of(&self, conn: ConnId) -> Option<Peer> {
        self.conns.get(&conn).map(|conn| conn.peer)
    }

    /// The requests of peers that wait for an answer.
    pub fn waiting(&self) -> Vec<StreamId> {
        self.streams.iter().filter(|(_, stream)| !stream.done).map(|(stream, _)| *stream).collect()
    }

    /// The messages that are on their way.
    pub fn under_way(&self) -> Vec<Token> {
        self.sent.keys().copied().collect()
    }

    /// How many attempts to reach a peer there are.
    pub fn dials(&self) -> usize {
        self.dials.len()
    }

    /// A peer connects, and says hello if it is polite.
    pub fn connect(&mut self, peer: Peer, polite: bool) {
        if self.conns.len() >= CONNS_MAX {
            return;
        }
        let conn = self.connected(peer, None);
        if polite && self.conns.contains_key(&conn) {
            let payload = json!({
                "protocol_versions":[1],"features":["receipt","knock","pipe","delegate"],"agent_name":"peer",
            });
            let hello = self.envelope(peer, "hello", None, &payload.to_string());
            self.request(conn, hello.into_bytes());
        }
    }

    fn connected(&mut self, peer: Peer, dial: Option<axon_proto::node::DialId>) -> ConnId {
        let conn = ConnId(self.number());
        self.conns.insert(conn, Conn { peer });
        let input = Input::Connected {
            conn,
            peer: peer.id(),
            key: peer.key(),
            side: side(dial.is_some()),
            addr: SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 7_100)),
            dial,
            early: false,
            binding: [7; 32],
        };
        self.feed(input);
        conn
    }

    /// The oldest attempt to reach a peer ends.
    pub fn dial_ends(&mut self, end: &End) {
        let Some(dial) = self.dials.pop_front() else { return };
        let peer = Peer::ALL.into_iter().find(|peer| peer.id() == dial.peer);
        let (Some(peer), true) = (peer, *end != End::Lost && self.conns.len() < CONNS_MAX) else {
            return self.feed(Input::DialFailed { dial: dial.dial, why: "no answer".into() });
        };
        let conn = ConnId(self.numbers + 1);
        // The hello is on its way as soon as there is a connection.
        self.sent.insert(dial.token, Sent { conn, peer, bytes: dial.hello, bidi: true });
        self.connected(peer, Some(dial.dial));
        self.reply(dial.token, end);
    }

    /// A connection ends.
    pub fn disconnect(&mut self, conn: ConnId) {
        for input in self.end_conn(conn, "timed out") {
            self.feed(input);
        }
    }

    /// What the shell tells of a connection that is over.
    pub(super) fn end_conn(&mut self, conn: ConnId, why: &str) -> Vec<Input> {
        if self.conns.remove(&conn).is_none() {
            return Vec::new();
        }
        self.streams.retain(|_, stream| stream.conn != conn);
        let mut inputs = Vec::new();
        let tokens: Vec<Token> =
            self.sent.iter().filter(|(_, sent)| sent.conn == conn).map(|(token, _)| *token).collect();
        for token in tokens {
            inputs.extend(self.ended(token, Err(Lost::Connection(why.to_owned()))));
        }
        inputs.push(Input::Disconnected { conn, why: why.to_owned() });
        inputs
    }

    /// A peer sends a request.
    pub fn request(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let Some(peer) = self.conns.get(&conn).map(|conn| conn.peer) else { return };
        if bytes.len() > MESSAGE_BYTES_MAX {
            return self.feed(Input::BadStream { conn, why: "too long" });
        }
        let stream = StreamId(self.number());
        let value = Json::said(&bytes);
        self.promises.comes(&peer.id().to_string(), text(&value, "id"), text(&value, "kind"));
        let id = value["id"].as_str().map(str::to_owned);
        let kind = text(&value, "kind").to_owned();
        let since_ms = self.now;
        self.streams.insert(stream, Stream { conn, peer, id, kind, done: false, since_ms });
        self.feed(Input::Request { conn, stream, bytes });
    }

    /// A peer sends a one-way message.
    pub fn one_way(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let peer = self.conns.get(&conn).map(|conn| conn.peer.id().to_string());
        if let Some(peer) = peer.filter(|_| bytes.len() <= MESSAGE_BYTES_MAX) {
            let value = Json::said(&bytes);
            self.promises.comes(&peer, text(&value, "id"), text(&value, "kind"));
            self.feed(Input::OneWay { conn, bytes });
        }
    }

    /// A peer gives up a request.
    pub fn give_up(&mut self, stream: StreamId) {
        if self.streams.remove(&stream).is_some_and(|stream| !stream.done) {
            self.feed(Input::RequestGone { stream });
        }
    }

    /// A message of a peer; without an id a new one.
    pub fn envelope(&mut self, from: Peer, kind: &str, of: Option<&str>, payload: &str) -> String {
        self.ids += 1;
        let id = schema::numbered(self.ids);
        self.envelope_with(from, &id, kind, of, payload)
    }

    /// The same, with this id.
    pub fn envelope_with(&self, from: Peer, id: &str, kind: &str, of: Option<&str>, payload: &str) -> String {
        let of = of.map_or_else(String::new, |of| format!("\"ref\":\"{of}\","));
        let (from, to, ts) = (from.id(), self.me(), self.clock().wall_ms);
        let kind = json!(kind);
        format!(
            "{{\"v\":1,\"id\":\"{id}\",\"from\":\"{from}\",\"to\":\"{to}\",\"ts\":{ts},\"kind\":{kind},{of}\"payload\":{payload}}}"
        )
    }

    /// The node's own id.
    pub fn me(&self) -> axon_proto::id::AgentId {
        schema::KEYS[1].parse::<axon_proto::id::PublicKey>().expect("a key").agent_id()
    }

    /// The ids of messages of peers so far.
    pub fn ids(&self) -> u64 {
        self.ids
    }

    pub(super) fn on_its_way(&mut self, conn: ConnId, token: Token, bytes: Arc<str>, bidi: bool) {
        let peer = self.conns.get(&conn).map(|conn| conn.peer);
        let peer = peer.expect("nothing is sent on a connection that is closed");
        let value = Json::said(bytes.as_bytes());
        self.promises.sends(text(&value, "id"), text(&value, "kind"));
        let before = self.sent.insert(token, Sent { conn, peer, bytes, bidi });
        assert!(before.is_none(), "a token is used once");
    }

    /// A message of the node comes to its end.
    pub fn reply(&mut self, token: Token, end: &End) {
        let Some(sent) = self.sent.get(&token) else { return };
        if *end == End::Lost {
            let conn = sent.conn;
            return self.disconnect(conn);
        }
        let (peer, value) = (sent.peer, Json::said(sent.bytes.as_bytes()));
        let outcome = match end {
            End::Reset | End::Lost => Err(Lost::Reset),
            End::Bytes(bytes) => Ok(bytes.clone()),
            End::Refused(code) => {
                let payload = json!({"code":code,"message":"no","retryable":*code == "overloaded","retry_after_ms":1_000});
                Ok(self.answer(peer, "error", &value, &payload))
            }
            End::Well => {
                let (kind, payload) = match text(&value, "kind") {
                    "hello" => (
                        "hello",
                        json!({"protocol_versions":[1],"selected_version":1,"features":["receipt","knock","delegate"]}),
                    ),
                    "ping" => ("pong", json!({"status":"idle","uptime_secs":1,"active_tasks":0})),
                    "query" => ("response", json!({"data":null,"summary":"yes"})),
                    "discover" => ("capabilities", json!({})),
                    "knock" => ("admission", json!({"decision":"accept","level":"known"})),
                    _ => ("ack", json!({"accepted":true})),
                };
                if kind == "ack" {
                    self.promises.arrived(text(&value, "id"));
                }
                Ok(self.answer(peer, kind, &value, &payload))
            }
        };
        if let Some(input) = self.ended(token, outcome) {
            self.feed(input);
        }
    }

    /// A message of the node is lost without a word.
    pub(super) fn lose(&mut self, token: Token) {
        if let Some(input) = self.ended(token, Err(Lost::Reset)) {
            self.feed(input);
        }
    }

    fn answer(&mut self, peer: Peer, kind: &str, to: &Value, payload: &Value) -> Vec<u8> {
        let of = text(to, "id").to_owned();
        self.envelope(peer, kind, Some(&of), &payload.to_string()).into_bytes()
    }

    fn ended(&mut self, token: Token, outcome: Result<Vec<u8>, Lost>) -> Option<Input> {
        let sent = self.sent.remove(&token)?;
        Some(match sent.bidi {
            true => Input::Replied { token, outcome },
            false => {
                if outcome.is_ok() {
                    let value = Json::said(sent.bytes.as_bytes());
                    self.promises.arrived(text(&value, "id"));
                }
                Input::Sent { token, outcome: outcome.map(drop) }
            }
        })
    }
}
