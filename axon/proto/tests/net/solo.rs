//! One node and a peer of which the test writes every message.

use axon_proto::store::CommitError;

use super::shell::do_job;
use super::*;

/// One node whose inputs the test makes itself.
pub struct Solo {
    pub node: Node,
    pub now: u64,
    pub effects: Vec<Effect>,
    pub me: AgentId,
    pub peer: AgentId,
    pub key: PublicKey,
    /// What outlives the node.
    pub disk: Memory,
    pub store: Store<Memory>,
    settings: Settings,
    /// The disk refuses everything.
    pub disk_full: bool,
    ids: u64,
    rng: Rng,
}

impl Solo {
    /// A node with the key of `n`, which knows the peer with the key of `peer`.
    pub fn new(n: u8, peer: u8) -> Self {
        Self::with(n, peer, |_| {})
    }

    pub fn with(n: u8, peer: u8, change: impl FnOnce(&mut Settings)) -> Self {
        let (key, peer) = (PublicKey([n; 32]), PublicKey([peer; 32]));
        let mut settings = Settings {
            peers: vec![StaticPeer {
                agent_id: peer.agent_id(),
                pubkey: peer,
                addr: "192.0.2.1:7100".into(),
                name: None,
            }],
            ..Settings::default()
        };
        change(&mut settings);
        let (now, disk) = (1_000, Memory::new());
        let (node, store) = Self::start(key, &settings, &disk, now);
        Self {
            node,
            now,
            effects: Vec::new(),
            me: key.agent_id(),
            peer: peer.agent_id(),
            key: peer,
            disk,
            store,
            settings,
            disk_full: false,
            ids: 0,
            rng: Rng(99),
        }
    }

    fn start(key: PublicKey, settings: &Settings, disk: &Memory, now: u64) -> (Node, Store<Memory>) {
        let (mut store, opened) = Store::open(disk.clone(), Options::default(), WALL_MS + now).unwrap();
        let birth = Birth {
            key,
            version: "0",
            pid: 1,
            listen: Vec::new(),
            root: None,
            known_peers: Vec::new(),
            seen: opened.seen,
            next_seq: opened.next_seq,
            clean: opened.clean || !opened.had_data,
            entropy: Box::new(Rng(u64::from(key.0[0]) + now)),
        };
        let mut node = Node::new(birth, settings.clone(), Now { mono_ms: now, wall_ms: WALL_MS + now });
        store.items(&mut |key, value| node.restore(key, value)).unwrap();
        assert_eq!(store.commit(&[node.first_commit()], WALL_MS), [Ok(())]);
        node.take_effects();
        (node, store)
    }

    /// Kills the node and starts it again over what the disk has. Connections and clients are gone.
    pub fn restart(&mut self) {
        let key = PublicKey([self.node_key(); 32]);
        (self.node, self.store) = Self::start(key, &self.settings, &self.disk, self.now);
        self.feed(Input::Start);
    }

    fn node_key(&self) -> u8 {
        (0..=u8::MAX).find(|n| PublicKey([*n; 32]).agent_id() == self.me).unwrap()
    }

    /// One input; yields the effects, without the log.
    pub fn feed(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut now = Vec::new();
            self.node.handle(Now { mono_ms: self.now, wall_ms: WALL_MS + self.now }, input, &mut now);
            for effect in now {
                match effect {
                    Effect::Commit { id, .. } if self.disk_full => {
                        let outcome = Err(CommitError::Disk("no space left on device".into()));
                        inputs.push_back(Input::Committed { id, outcome });
                    }
                    job @ (Effect::Commit { .. } | Effect::Read { .. } | Effect::Evict(_)) => {
                        inputs.extend(do_job(&mut self.store, job, WALL_MS + self.now));
                    }
                    effect => effects.push(effect),
                }
            }
        }
        effects.retain(|effect| !matches!(effect, Effect::Log(..)));
        effects
    }

    /// Lets time pass; yields what the timers did.
    pub fn wait(&mut self, ms: u64) -> Vec<Effect> {
        let until = self.now + ms;
        let mut effects = Vec::new();
        while let Some(at) = self.node.next_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            effects.extend(self.feed(Input::Timer));
        }
        self.now = until;
        effects
    }

    pub fn fresh(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// A connection that the peer has dialled, before hello.
    pub fn accept(&mut self) -> ConnId {
        let conn = ConnId(self.fresh());
        let effects = self.feed(Input::Connected {
            conn,
            peer: self.peer,
            key: self.key,
            side: Side::Acceptor,
            addr: "192.0.2.1:7100".parse().unwrap(),
            dial: None,
            early: false,
        });
        assert_eq!(effects, []);
        conn
    }

    pub fn new_id(&mut self) -> String {
        let mut bytes = [0; 16];
        self.rng.fill(&mut bytes);
        MsgId::from_random(bytes).to_string()
    }

    /// An envelope of the peer.
    pub fn envelope(&mut self, kind: &str, payload: Value) -> Value {
        let id = self.new_id();
        json!({"v":1,"id":id,"from":self.peer,"to":self.me,"ts":WALL_MS,"kind":kind,"payload":payload})
    }

    pub fn request(&mut self, conn: ConnId, envelope: &Value) -> (StreamId, Vec<Effect>) {
        let stream = StreamId(self.fresh());
        let bytes = envelope.to_string().into_bytes();
        (stream, self.feed(Input::Request { conn, stream, bytes }))
    }

    /// Sends a request and yields the envelope that answers it at once.
    pub fn ask(&mut self, conn: ConnId, envelope: &Value) -> Value {
        let (stream, effects) = self.request(conn, envelope);
        answer_on(&effects, stream).unwrap_or_else(|| panic!("no answer to {envelope}: {effects:?}"))
    }

    pub fn one_way(&mut self, conn: ConnId, envelope: &Value) -> Vec<Effect> {
        self.feed(Input::OneWay { conn, bytes: envelope.to_string().into_bytes() })
    }

    pub fn hello_payload(features: &[&str], boot: Option<&str>) -> Value {
        let mut hello = json!({"protocol_versions":[1],"features":features});
        if let Some(boot) = boot {
            hello["boot"] = boot.into();
        }
        hello
    }

    /// A connection that the peer has dialled and greeted on.
    pub fn greeted(&mut self, features: &[&str], boot: Option<&str>) -> ConnId {
        let conn = self.accept();
        let hello = self.envelope("hello", Self::hello_payload(features, boot));
        assert_eq!(self.ask(conn, &hello)["kind"], "hello");
        conn
    }

    pub fn client(&mut self) -> ClientId {
        let client = ClientId(self.fresh());
        self.feed(Input::ClientUp { client, trusted: true });
        self.say(client, &json!({"cmd":"hello","req_id":"h","version":2}));
        client
    }

    /// A client that answers everything, when the test says so.
    pub fn agent(&mut self) -> ClientId {
        let client = self.client();
        self.say(client, &json!({"cmd":"subscribe","req_id":"s","answer":["query","delegate","cancel"]}));
        client
    }

    pub fn say(&mut self, client: ClientId, command: &Value) -> Vec<Effect> {
        self.feed(Input::Line { client, line: command.to_string().into_bytes() })
    }

    pub fn dropped(&mut self, reason: &str) -> u64 {
        self.status()["dropped"][reason].as_u64().unwrap()
    }

    pub fn status(&mut self) -> Value {
        let client = self.client();
        let effects = self.say(client, &json!({"cmd":"status","req_id":"1"}));
        let status = lines(&effects, client).remove(0);
        self.feed(Input::ClientGone { client });
        status
    }
}

/// The envelope that answers on a stream.
pub fn answer_on(effects: &[Effect], stream: StreamId) -> Option<Value> {
    effects.iter().find_map(|effect| match effect {
        Effect::Respond { stream: on, bytes } if *on == stream => serde_json::from_str(bytes).ok(),
        _ => None,
    })
}

/// The lines for a client, events too.
pub fn lines(effects: &[Effect], to: ClientId) -> Vec<Value> {
    let to_it = |effect: &Effect| match effect {
        Effect::Line { client, line } | Effect::Event { client, line, .. } if *client == to => {
            serde_json::from_str(line).ok()
        }
        _ => None,
    };
    effects.iter().filter_map(to_it).collect()
}

/// The closes: connection and code.
pub fn closes(effects: &[Effect]) -> Vec<(ConnId, u32)> {
    let close = |effect: &Effect| match effect {
        Effect::Close { conn, code, .. } => Some((*conn, *code)),
        _ => None,
    };
    effects.iter().filter_map(close).collect()
}
