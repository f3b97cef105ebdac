//! A node with neighbours of which the test writes every message.

#![allow(dead_code, reason = "each test uses its part")]

use axon_proto::id::{AgentId, PublicKey};
use axon_proto::kinds::topics::batch::Batch;
use axon_proto::kinds::topics::name::Topic;
use axon_proto::node::{ClientId, ConnId, Effect, Input, Settings, StaticPeer};
use axon_proto::wire::raw_json;
use serde_json::{Value, json};

use crate::net::{Solo, WALL_MS, lines};

/// What a neighbour offers.
pub const FEATURES: &[&str] = &["topics"];
/// How a signature begins that does not hold.
pub const FORGED: u8 = 9;
pub const NONE: [u64; 0] = [];

pub fn id(n: u8) -> AgentId {
    PublicKey([n; 32]).agent_id()
}
pub fn peer(n: u8) -> StaticPeer {
    let key = PublicKey([n; 32]);
    StaticPeer { agent_id: key.agent_id(), pubkey: key, addr: "192.0.2.1:7100".into(), name: None }
}

/// A node with peers 2, 3 and 4, of which 2 and 3 are neighbours that want everything.
pub struct World {
    pub solo: Solo,
    pub conns: [ConnId; 2],
}

/// A batch as a neighbour gives it.
pub fn given(publisher: u8, topic: &str, seq: u64, ts_ms: u64, messages: &[Value], forged: bool) -> Value {
    given_by(PublicKey([publisher; 32]), topic, seq, ts_ms, messages, forged)
}

pub fn given_by(
    key: PublicKey,
    topic: &str,
    seq: u64,
    ts_ms: u64,
    messages: &[Value],
    forged: bool,
) -> Value {
    let texts: Vec<_> = messages.iter().map(|message| raw_json(message.to_string())).collect();
    let texts: Vec<&serde_json::value::RawValue> = texts.iter().map(|text| &**text).collect();
    let topic = Topic::parse(topic).unwrap();
    let signed = Batch::to_sign(&key, &topic, seq, ts_ms, &texts);
    let sig = [if forged { FORGED } else { 0 }; 64];
    let batch = Batch::read(signed, sig).unwrap();
    let given = axon_proto::kinds::topics::tree::Given { batch: batch.into(), hops: 1, age_ms: 5 };
    let gossip = axon_proto::kinds::topics::tree::Gossip { batches: vec![given], ..Default::default() };
    let payload = axon_proto::kinds::topics::wire::pack(&gossip).remove(0);
    serde_json::from_str::<Value>(payload.get()).unwrap()["batches"][0].take()
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut solo = Solo::with(1, 2, |settings| {
            settings.peers = vec![peer(2), peer(3), peer(4)];
            change(settings);
        });
        solo.verify = |_, _, sig| sig[0] != FORGED;
        solo.restart();
        let mut world = Self { solo, conns: [ConnId(0); 2] };
        world.connect();
        world
    }

    pub fn connect(&mut self) {
        for (at, n) in [2, 3].into_iter().enumerate() {
            self.solo.play(n);
            self.conns[at] = self.solo.greeted(FEATURES, None);
            self.say_to(n, "topic.join", &json!({"n":1,"filters":[">"],"keeps":[">"]}));
        }
    }

    /// A message of neighbour 2 or 3.
    pub fn say_to(&mut self, n: u8, kind: &str, payload: &Value) -> Vec<Effect> {
        self.solo.play(n);
        let conn = self.conns[usize::from(n - 2)];
        let envelope = self.solo.envelope(kind, payload.clone());
        self.solo.one_way(conn, &envelope)
    }

    pub fn give(&mut self, n: u8, batches: &[Value]) -> Vec<Effect> {
        self.say_to(n, "topic.gossip", &json!({ "batches": batches }))
    }

    pub fn wall_ms(&self) -> u64 {
        WALL_MS + self.solo.now
    }

    /// A batch of one message, published just now.
    pub fn batch(&self, publisher: u8, topic: &str, seq: u64) -> Value {
        given(publisher, topic, seq, self.wall_ms() - 5, &[json!({ "n": seq })], false)
    }

    pub fn command(&mut self, client: ClientId, command: &Value) -> (Value, Vec<Effect>) {
        let mut command = command.clone();
        command["req_id"] = "c".into();
        let effects = self.solo.say(client, &command);
        let reply = lines(&effects, client).into_iter().find(|line| line["req_id"] == "c");
        (reply.unwrap_or_default(), effects)
    }

    pub fn subscribe(&mut self, client: ClientId, command: Value) {
        let mut command = command;
        command["cmd"] = "subscribe_topic".into();
        let (reply, _) = self.command(client, &command);
        assert_eq!(reply["ok"], true, "{reply}");
        // What these neighbours give is a little older than it is here.
        self.solo.wait(10);
    }

    pub fn reader(&mut self, consumer: &str) -> ClientId {
        let client = ClientId(self.solo.fresh());
        self.solo.feed(Input::ClientUp { client, trusted: true, socket: None });
        let hello = json!({"cmd":"hello","req_id":"h","version":2,"consumer":consumer});
        self.solo.say(client, &hello);
        client
    }

    pub fn dropped(&mut self, why: &str) -> u64 {
        self.solo.status()["topics"]["dropped"][why].as_u64().unwrap()
    }

    pub fn inbox(&mut self, client: ClientId) -> Vec<u64> {
        let (reply, _) = self.command(client, &json!({"cmd":"inbox","limit":100}));
        let rows = reply["messages"].as_array().unwrap().iter().map(|row| &row["envelope"]);
        rows.filter(|envelope| envelope["kind"] == "topic.message").map(number).collect()
    }

    pub fn restart(&mut self) {
        self.solo.restart();
        self.connect();
    }
}

/// The number in a message that was published.
pub fn number(envelope: &Value) -> u64 {
    assert_eq!(envelope["kind"], "topic.message", "{envelope}");
    envelope["payload"]["message"]["n"].as_u64().unwrap()
}

/// Messages that a client is shown.
pub fn shown(effects: &[Effect], client: ClientId) -> Vec<u64> {
    let events = lines(effects, client).into_iter().filter(|line| line["event"] == "inbound");
    events.map(|line| number(&line["envelope"])).collect()
}

/// What was sent to an agent of one kind.
pub fn sent(effects: &[Effect], to: u8, kind: &str) -> Vec<Value> {
    let messages = effects.iter().filter_map(|effect| match effect {
        Effect::OneWay { bytes, .. } => serde_json::from_str::<Value>(bytes).ok(),
        _ => None,
    });
    let its = messages.filter(|message| message["to"] == json!(id(to)) && message["kind"] == kind);
    its.map(|mut message| message["payload"].take()).collect()
}

/// How many batches were passed on to an agent.
pub fn passed_on(effects: &[Effect], to: u8) -> usize {
    let gossip = sent(effects, to, "topic.gossip");
    gossip.iter().filter_map(|payload| payload["batches"].as_array()).map(Vec::len).sum()
}
