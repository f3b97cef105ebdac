//! One node and a peer of which the test writes every message.

use axon_proto::invite::Link;
use axon_proto::node::{OldKey, Verify};
use axon_proto::scope::{Scope, ScopeChange};
use axon_proto::store::CommitError;

use super::shell::{do_job, shell_job};
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
    /// `contacts.toml`.
    pub contacts: ContactsFile,
    /// The audit log.
    pub audit: Vec<axon_proto::audit::Row>,
    /// Files cannot be written.
    pub files_fail: bool,
    pub settings: Settings,
    /// The disk refuses everything.
    pub disk_full: bool,
    /// `sockets.toml`.
    pub scopes: Vec<Scope>,
    /// How the next node checks signatures.
    pub verify: Verify,
    /// Whom the next node finds in its cache, and which keys it had before.
    pub known: Vec<KnownPeer>,
    pub old_keys: Vec<OldKey>,
    /// Whether what the disk and the shell are to do waits until the test lets it be done.
    pub stall: bool,
    pub stalled: VecDeque<Effect>,
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
        let birth = Self::birth(key, now);
        let (node, store) = Self::start(birth, &settings, &disk, now);
        Self {
            node,
            now,
            effects: Vec::new(),
            me: key.agent_id(),
            peer: peer.agent_id(),
            key: peer,
            disk,
            store,
            contacts: ContactsFile::default(),
            audit: Vec::new(),
            files_fail: false,
            settings,
            disk_full: false,
            scopes: Vec::new(),
            verify: |_, _, _| true,
            known: Vec::new(),
            old_keys: Vec::new(),
            stall: false,
            stalled: VecDeque::new(),
            ids: 0,
            rng: Rng(99),
        }
    }

    fn birth(key: PublicKey, now: u64) -> Birth {
        Birth {
            key,
            version: "0",
            pid: 1,
            listen: Vec::new(),
            root: None,
            contacts: ContactsFile::default(),
            addrs: vec!["192.0.2.2:7100".into()],
            scopes: Vec::new(),
            old_keys: Vec::new(),
            sign: Box::new(|_| [0; 64]),
            verify: |_, _, _| true,
            known_peers: Vec::new(),
            seen: Vec::new(),
            next_seq: 1,
            clean: true,
            entropy: Box::new(Rng(u64::from(key.0[0]) + now)),
        }
    }

    fn start(birth: Birth, settings: &Settings, disk: &Memory, now: u64) -> (Node, Store<Memory>) {
        let (mut store, opened) = Store::open(disk.clone(), Options::default(), WALL_MS + now).unwrap();
        let clean = opened.clean || !opened.had_data;
        let birth = Birth { seen: opened.seen, next_seq: opened.next_seq, clean, ..birth };
        let mut node = Node::new(birth, settings.clone(), Now { mono_ms: now, wall_ms: WALL_MS + now });
        store.items(&mut |key, value| node.restore(key, value)).unwrap();
        assert_eq!(store.commit(&[node.first_commit()], WALL_MS), [Ok(())]);
        node.take_effects();
        (node, store)
    }

    /// Kills the node and starts it again over what the disk and the files have. Connections and clients are
    /// gone, and so is what had to wait.
    pub fn restart(&mut self) -> Vec<Effect> {
        let birth = Birth {
            contacts: self.contacts.clone(),
            scopes: self.scopes.clone(),
            known_peers: self.known.clone(),
            old_keys: self.old_keys.clone(),
            verify: self.verify,
            ..Self::birth(PublicKey([self.node_key(); 32]), self.now)
        };
        self.stalled.clear();
        (self.node, self.store) = Self::start(birth, &self.settings, &self.disk, self.now);
        self.feed(Input::Start)
    }

    fn node_key(&self) -> u8 {
        (0..=u8::MAX).find(|n| PublicKey([*n; 32]).agent_id() == self.me).unwrap()
    }

    /// One input; yields the effects, without the log.
    pub fn feed(&mut self, input: Input) -> Vec<Effect> {
        self.feed_all(VecDeque::from([input]))
    }

    fn feed_all(&mut self, mut inputs: VecDeque<Input>) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(input) = inputs.pop_front() {
            let mut now = Vec::new();
            self.node.handle(Now { mono_ms: self.now, wall_ms: WALL_MS + self.now }, input, &mut now);
            for effect in now {
                let disk = matches!(effect, Effect::Commit { .. } | Effect::Read { .. } | Effect::Evict(_));
                let shell = matches!(
                    effect,
                    Effect::Contacts { .. }
                        | Effect::Socket { .. }
                        | Effect::Purge { .. }
                        | Effect::Reload { .. }
                        | Effect::Rekey { .. }
                );
                if let Effect::Audit(row) = effect {
                    self.audit.push(row);
                    continue;
                }
                if !disk {
                    effects.push(effect.clone());
                }
                if (disk || shell) && self.stall {
                    self.stalled.push_back(effect);
                } else if disk || shell {
                    inputs.extend(self.done(effect));
                }
            }
        }
        effects.retain(|effect| !matches!(effect, Effect::Log(..)));
        effects
    }

    /// What the disk or the shell does with an effect, and tells the node of it.
    fn done(&mut self, job: Effect) -> Option<Input> {
        match job {
            Effect::Commit { id, .. } if self.disk_full => {
                let outcome = Err(CommitError::Disk("no space left on device".into()));
                Some(Input::Committed { id, outcome })
            }
            job @ (Effect::Commit { .. } | Effect::Read { .. } | Effect::Evict(_)) => {
                do_job(&mut self.store, job, WALL_MS + self.now)
            }
            job => {
                if let (Effect::Socket { change, .. }, false) = (&job, self.files_fail) {
                    let (ScopeChange::Remove(name) | ScopeChange::Put(Scope { name, .. })) = change;
                    self.scopes.retain(|scope| scope.name != *name);
                    self.scopes.extend(match change {
                        ScopeChange::Put(scope) => Some(scope.clone()),
                        ScopeChange::Remove(_) => None,
                    });
                }
                let done = shell_job(&job, &mut self.contacts, self.files_fail);
                done.map(|(job, outcome)| Input::Done { job, outcome })
            }
        }
    }

    /// Lets what waits be done, as far as it is of this sort, one after another.
    pub fn let_go(&mut self, which: impl Fn(&Effect) -> bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(at) = self.stalled.iter().position(&which) {
            let input = self.stalled.remove(at).and_then(|job| self.done(job));
            effects.extend(self.feed_all(input.into_iter().collect()));
        }
        effects
    }

    /// Lets all that waits be done, and lets nothing wait any more.
    pub fn go_on(&mut self) -> Vec<Effect> {
        let effects = self.let_go(|_| true);
        self.stall = false;
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

    /// From now on the test speaks as the agent with the key of `n`.
    pub fn play(&mut self, n: u8) {
        self.key = PublicKey([n; 32]);
        self.peer = self.key.agent_id();
    }

    /// The peer has dialled from this address; what follows at once.
    pub fn dialled_from(&mut self, addr: &str, binding: [u8; 32]) -> (ConnId, Vec<Effect>) {
        let conn = ConnId(self.fresh());
        let effects = self.feed(Input::Connected {
            conn,
            peer: self.peer,
            key: self.key,
            side: Side::Acceptor,
            addr: addr.parse().unwrap(),
            dial: None,
            early: false,
            binding,
        });
        (conn, effects)
    }

    /// A connection that the peer has dialled, before hello.
    pub fn accept(&mut self) -> ConnId {
        let (conn, effects) = self.dialled_from("192.0.2.1:7100", [7; 32]);
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

    /// A knock with the proof of a link's secret, on a connection with this binding.
    pub fn knock(&mut self, link: &str, binding: [u8; 32]) -> Value {
        let link: Link = link.parse().unwrap();
        let (id, key) = link.secret.unwrap().key();
        let proof = key.proof(&self.key, &link.key, &binding);
        self.envelope("knock", json!({"invite":id.to_string(),"proof":proof}))
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
        self.feed(Input::ClientUp { client, trusted: true, socket: None });
        self.say(client, &json!({"cmd":"hello","req_id":"h","version":2}));
        client
    }

    /// A client of a scoped socket.
    pub fn scoped(&mut self, name: &str) -> ClientId {
        let client = ClientId(self.fresh());
        self.feed(Input::ClientUp { client, trusted: true, socket: Some(name.into()) });
        self.say(client, &json!({"cmd":"hello","req_id":"h","version":2}));
        client
    }

    /// One command of the owner; yields the reply, if it comes at once, and all that follows at once.
    pub fn owner(&mut self, mut command: Value) -> (Value, Vec<Effect>) {
        let client = self.client();
        command["req_id"] = "owner".into();
        let effects = self.say(client, &command);
        let reply = lines(&effects, client).into_iter().find(|line| line["req_id"] == "owner");
        self.feed(Input::ClientGone { client });
        (reply.unwrap_or_default(), effects)
    }

    /// A command of the owner that succeeds.
    pub fn owned(&mut self, command: Value) -> Value {
        let (reply, _) = self.owner(command.clone());
        assert_eq!(reply["ok"], true, "{command}: {reply}");
        reply
    }

    /// What the owner says of the agent with the key of `n`.
    pub fn trust(&mut self, n: u8, level: &str) -> Value {
        self.owned(json!({"cmd":"trust","peer":PublicKey([n; 32]).agent_id(),"trust":level}))
    }

    /// A change of the settings, read again.
    pub fn set(&mut self, change: impl FnOnce(&mut Settings)) -> Vec<Effect> {
        change(&mut self.settings);
        self.feed(Input::Settings(Box::new(self.settings.clone())))
    }

    /// Discovery has seen the agent with the key of `n`.
    pub fn found(&mut self, n: u8) -> Vec<Effect> {
        let key = PublicKey([n; 32]);
        let addrs = vec![format!("192.0.2.{n}:7100").parse().unwrap()];
        self.feed(Input::Found { id: key.agent_id(), key, addrs })
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
        Effect::Line { client, line, .. } | Effect::Event { client, line, .. } if *client == to => {
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
