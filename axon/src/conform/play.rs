//! One daemon without sockets and disk: the node of `axon-proto`, whose inputs a vector makes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axon_proto::contacts::{Contact, ContactChange, ContactsFile};
use axon_proto::id::{AgentId, MsgId, PublicKey};
use axon_proto::kinds::topics::name::Filter;
use axon_proto::kinds::topics::rules::{Publisher, Rule};
use axon_proto::limits::MESSAGE_BYTES_MAX;
use axon_proto::node::{
    Birth, ClientId, ConnId, Effect, Entropy, Input, Node, Now, Settings, Side, StreamId,
};
use axon_proto::store::Store;
use axon_proto::store::log::Options;
use axon_proto::store::memory::Memory;
use axon_proto::trust::Level;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Value, json};

/// The daemon's own clock at the beginning, in milliseconds.
const BEGIN_MS: u64 = 1_000;
/// With it, Unix time at the beginning is 1,795,000,000,000.
const WALL_MS: u64 = 1_795_000_000_000 - BEGIN_MS;
/// Inputs that one step may lead to, so that no fault can play for ever.
const INPUTS_MAX: usize = 10_000;

/// What holds before the input of a `session` vector.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// How far the daemon trusts whom, by name.
    #[serde(default)]
    pub contacts: BTreeMap<String, String>,
    /// What alice offers in her hello, which is said before; none: nobody is connected yet.
    #[serde(default)]
    pub features: Option<Vec<String>>,
    /// Settings that are not the defaults.
    #[serde(default)]
    pub settings: BTreeMap<String, Value>,
    /// Invites that are open.
    #[serde(default)]
    pub invites: Vec<Invite>,
    /// What has happened, in this order.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// An open invite of a vector.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// 16 bytes in hexadecimal.
    pub secret: String,
    /// The other fields of the command `invite`.
    #[serde(default)]
    pub fields: serde_json::Map<String, Value>,
}

/// One thing that happens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// `bi`, `uni`, `ipc`, `wait` or `restart`.
    pub on: String,
    /// Which peer, or which client.
    #[serde(default, rename = "as")]
    pub who: Option<String>,
    /// Milliseconds to wait.
    #[serde(default)]
    pub ms: u64,
    /// What is said.
    #[serde(default)]
    pub input: super::vectors::Bytes,
}

/// What a daemon does with the last input.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// The envelope on the stream, or the reply on the socket.
    pub answer: Option<Value>,
    /// The stream was reset.
    pub reset: bool,
    /// By which counts of `status` it was dropped.
    pub counted: Vec<String>,
    /// With which code the connection was closed within three seconds.
    pub close: Option<u32>,
    /// Whether the client was closed.
    pub closed: bool,
}

/// Random bytes, the same in every run; those of an invite's secret are given.
#[derive(Clone, Default)]
struct Bytes16(Arc<Mutex<(u64, Option<[u8; 16]>)>>);

impl Entropy for Bytes16 {
    fn fill(&mut self, bytes: &mut [u8; 16]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        *bytes = state.1.take().unwrap_or_else(|| {
            // splitmix64, twice: nothing here must be hard to guess.
            let mut out = [0; 16];
            for (at, part) in out.chunks_exact_mut(8).enumerate() {
                let mut x = (state.0 * 2 + at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                part.copy_from_slice(&(x ^ (x >> 31)).to_le_bytes());
            }
            out
        });
    }
}

fn verify(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(message, signature).is_ok()
}

/// The keys that the vectors speak of: those of tests 1, 2 and 3 of RFC 8032, 7.1.
pub fn key(name: &str) -> Result<PublicKey, String> {
    let text = match name {
        "alice" => "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        "bob" => "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
        "carol" => "/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=",
        other => return Err(format!("nobody is called {other}: alice, bob, carol")),
    };
    text.parse().map_err(|error| format!("{error}"))
}

/// A running daemon of bob's.
pub struct Play {
    node: Node,
    store: Store<Memory>,
    disk: Memory,
    settings: Settings,
    contacts: ContactsFile,
    features: Option<Vec<String>>,
    entropy: Bytes16,
    now: u64,
    numbers: u64,
    conns: BTreeMap<String, ConnId>,
    clients: BTreeMap<String, ClientId>,
}

impl Play {
    /// Begins, and does what was before.
    pub fn new(before: &Before) -> Result<Self, String> {
        let mut contacts = ContactsFile::default();
        for (name, level) in &before.contacts {
            let pubkey = key(name)?;
            contacts.contacts.push(Contact {
                agent_id: pubkey.agent_id(),
                pubkey: Some(pubkey),
                addrs: Vec::new(),
                level: Level::parse(level).ok_or_else(|| format!("no level {level}"))?,
                name: Some(name.clone()),
                since_ms: WALL_MS,
                why: None,
                expiry_ms: None,
                paused: false,
            });
        }
        let mut settings = Settings { name: Some("bob".into()), ..Settings::default() };
        for (name, value) in &before.settings {
            set(&mut settings, name, value)?;
        }
        let (entropy, disk) = (Bytes16::default(), Memory::new());
        let (node, store) = start(&settings, &contacts, &entropy, &disk, BEGIN_MS)?;
        let features = before.features.clone();
        let (conns, clients) = (BTreeMap::new(), BTreeMap::new());
        let (now, numbers) = (BEGIN_MS, 0);
        let mut play =
            Self { node, store, disk, settings, contacts, features, entropy, now, numbers, conns, clients };
        play.feed(Input::Start)?;
        for invite in &before.invites {
            play.invite(invite)?;
        }
        play.greet()?;
        for step in &before.steps {
            play.step(step)?;
        }
        Ok(play)
    }

    fn invite(&mut self, invite: &Invite) -> Result<(), String> {
        let secret = axon_proto::invite::hex(&invite.secret).ok_or("a secret is 32 hexadecimal digits")?;
        let mut command = json!({"cmd":"invite","req_id":"invite"});
        for (name, value) in &invite.fields {
            command[name] = value.clone();
        }
        let client = self.owner()?;
        self.entropy.0.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(secret);
        let effects = self.feed(Input::Line { client, line: command.to_string().into_bytes() })?;
        self.feed(Input::ClientGone { client })?;
        match reply(&effects, client) {
            Some(reply) if reply["ok"] == true => Ok(()),
            reply => Err(format!("no invite: {reply:?}")),
        }
    }

    /// A client of the main socket that has said hello.
    fn owner(&mut self) -> Result<ClientId, String> {
        let client = ClientId(self.number());
        self.feed(Input::ClientUp { client, trusted: true, socket: None })?;
        let hello = json!({"cmd":"hello","req_id":"h","version":2,"consumer":"the runner's own"});
        self.feed(Input::Line { client, line: hello.to_string().into_bytes() })?;
        Ok(client)
    }

    /// Alice connects and says hello, where the vector says so.
    fn greet(&mut self) -> Result<(), String> {
        let Some(features) = self.features.clone() else { return Ok(()) };
        let payload = json!({"protocol_versions":[1],"features":features,"agent_name":"alice"});
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        let (from, to) = (key("alice")?.agent_id(), key("bob")?.agent_id());
        let envelope = json!({
            "v":1,"id":MsgId::from_random(bytes),"from":from,"to":to,"ts":1_795_000_000_000_u64,"kind":"hello","payload":payload
        });
        let seen = self.message("alice", true, envelope.to_string().into_bytes())?;
        match seen.answer {
            Some(answer) if answer["kind"] == "hello" => Ok(()),
            answer => Err(format!("hello was answered by {answer:?}")),
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Does one thing, and says what came of it.
    pub fn step(&mut self, step: &Step) -> Result<Seen, String> {
        match step.on.as_str() {
            "wait" => self.wait(step.ms).map(|_| Seen::default()),
            "restart" => self.restart().map(|()| Seen::default()),
            "ipc" => self.line(step.who.as_deref().unwrap_or("client"), step.input.get()?),
            "bi" | "uni" => {
                self.message(step.who.as_deref().unwrap_or("alice"), step.on == "bi", step.input.get()?)
            }
            other => Err(format!("a step is on bi, uni, ipc, wait or restart, not on {other}")),
        }
    }

    /// Kills the daemon, and starts it again over what is on its disk.
    fn restart(&mut self) -> Result<(), String> {
        self.conns.clear();
        self.clients.clear();
        (self.node, self.store) = start(&self.settings, &self.contacts, &self.entropy, &self.disk, self.now)?;
        self.feed(Input::Start)?;
        self.greet()
    }

    fn wait(&mut self, ms: u64) -> Result<Vec<Effect>, String> {
        let until = self.now + ms;
        let mut effects = Vec::new();
        for _ in 0..INPUTS_MAX {
            let Some(at) = self.node.next_timeout().filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            effects.extend(self.feed(Input::Timer)?);
        }
        self.now = until;
        Ok(effects)
    }

    fn message(&mut self, who: &str, bi: bool, bytes: Vec<u8>) -> Result<Seen, String> {
        let key = key(who)?;
        let mut effects = Vec::new();
        let conn = match self.conns.get(who) {
            Some(conn) => *conn,
            None => {
                let conn = ConnId(self.number());
                self.conns.insert(who.to_owned(), conn);
                let addr = std::net::SocketAddr::from(([192, 0, 2, 5], 7100));
                let binding = std::array::from_fn(|at| 0x20 + at as u8);
                let (peer, side) = (key.agent_id(), Side::Acceptor);
                let input =
                    Input::Connected { conn, peer, key, side, addr, dial: None, early: false, binding };
                effects.extend(self.feed(input)?);
                conn
            }
        };
        let before = self.counts()?;
        let stream = StreamId(self.number());
        // A longer one is stopped where it is read.
        let input = match bi {
            _ if bytes.len() > MESSAGE_BYTES_MAX => Input::BadStream { conn, why: "too long" },
            true => Input::Request { conn, stream, bytes },
            false => Input::OneWay { conn, bytes },
        };
        let stopped = matches!(input, Input::BadStream { .. });
        effects.extend(self.feed(input)?);
        let after = self.counts()?;
        let counted = after.iter().filter(|(name, count)| before.get(*name) < Some(count));
        let counted = counted.map(|(name, _)| name.clone()).collect();
        let mut seen = Seen { counted, reset: stopped && bi, ..Seen::default() };
        for effect in &effects {
            match effect {
                Effect::Respond { stream: on, bytes } if *on == stream => {
                    seen.answer = serde_json::from_str(bytes).ok();
                }
                Effect::Reset { stream: on } if *on == stream => seen.reset = true,
                _ => {}
            }
        }
        let closes = |effect: &Effect| match effect {
            Effect::Close { conn: of, code, .. } if *of == conn => Some(*code),
            _ => None,
        };
        seen.close = effects.iter().find_map(closes);
        Ok(seen)
    }

    /// The code with which alice's connection is closed in a while, without a further word.
    pub fn closes(&mut self) -> Result<Option<u32>, String> {
        let conn = self.conns.get("alice").copied();
        let effects = self.wait(3_000)?;
        Ok(effects.iter().find_map(|effect| match effect {
            Effect::Close { conn: of, code, .. } if Some(*of) == conn => Some(*code),
            _ => None,
        }))
    }

    fn line(&mut self, who: &str, line: Vec<u8>) -> Result<Seen, String> {
        let client = match self.clients.get(who) {
            Some(client) => *client,
            None => {
                let client = ClientId(self.number());
                self.clients.insert(who.to_owned(), client);
                // Who must show a token is one whose uid could not be read.
                let trusted = self.settings.ipc_token.is_none();
                self.feed(Input::ClientUp { client, trusted, socket: None })?;
                client
            }
        };
        let input = if line.len() > axon_proto::limits::LINE_BYTES_MAX {
            Input::LineTooLong { client }
        } else {
            Input::Line { client, line }
        };
        let effects = self.feed(input)?;
        let closed = effects.iter().any(|effect| *effect == Effect::CloseClient { client });
        Ok(Seen { answer: reply(&effects, client), closed, ..Seen::default() })
    }

    fn counts(&mut self) -> Result<BTreeMap<String, u64>, String> {
        let client = self.owner()?;
        let line = br#"{"cmd":"status","req_id":"s"}"#.to_vec();
        let effects = self.feed(Input::Line { client, line })?;
        self.feed(Input::ClientGone { client })?;
        let status = reply(&effects, client).ok_or("no status")?;
        serde_json::from_value(status["dropped"].clone()).map_err(|error| error.to_string())
    }

    fn feed(&mut self, input: Input) -> Result<Vec<Effect>, String> {
        let mut inputs = VecDeque::from([input]);
        let mut all = Vec::new();
        for _ in 0..INPUTS_MAX {
            let Some(input) = inputs.pop_front() else { return Ok(all) };
            let mut effects = Vec::new();
            self.node.handle(now(self.now), input, &mut effects);
            for effect in effects {
                inputs.extend(self.carry_out(&effect)?);
                all.push(effect);
            }
        }
        Err("the daemon does not come to rest".into())
    }

    /// What the disk and the files do, at once.
    fn carry_out(&mut self, effect: &Effect) -> Result<Option<Input>, String> {
        let wall_ms = WALL_MS + self.now;
        Ok(match effect {
            Effect::Commit { id, commit } => {
                let outcome = self.store.commit(std::slice::from_ref(commit), wall_ms).pop();
                Some(Input::Committed { id: *id, outcome: outcome.ok_or("nothing was committed")? })
            }
            Effect::Read { id, read } => Some(Input::ReadDone { id: *id, out: self.store.read(read) }),
            Effect::Evict(keep) => {
                self.store.evict(keep, wall_ms).map_err(|error| error.to_string())?;
                None
            }
            Effect::Contacts { job, changes } => {
                for change in changes {
                    let of = |id: AgentId| move |known: &Contact| known.agent_id != id;
                    match change {
                        ContactChange::Put(contact) => {
                            self.contacts.contacts.retain(of(contact.agent_id));
                            self.contacts.contacts.push(contact.clone());
                        }
                        ContactChange::Remove(id) => self.contacts.contacts.retain(of(*id)),
                        ContactChange::Pause(on) => self.contacts.paused = *on,
                    }
                }
                Some(Input::Done { job: *job, outcome: Ok(String::new()) })
            }
            Effect::Purge { job, .. } | Effect::Reload { job } => {
                Some(Input::Done { job: *job, outcome: Ok(String::new()) })
            }
            Effect::Measure { client, req_id, .. } => {
                Some(Input::Measured { client: *client, req_id: req_id.clone(), rtts: Vec::new() })
            }
            _ => None,
        })
    }
}

fn now(mono_ms: u64) -> Now {
    Now { mono_ms, wall_ms: WALL_MS + mono_ms }
}

/// The last line for a client that replies to a command.
fn reply(effects: &[Effect], client: ClientId) -> Option<Value> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Line { client: of, line, .. } if *of == client => {
            serde_json::from_str::<Value>(line).ok().filter(|line| line.get("ok").is_some())
        }
        _ => None,
    })
}

fn start(
    settings: &Settings,
    contacts: &ContactsFile,
    entropy: &Bytes16,
    disk: &Memory,
    at: u64,
) -> Result<(Node, Store<Memory>), String> {
    let opened = Store::open(disk.clone(), Options::default(), WALL_MS + at);
    let (mut store, opened) = opened.map_err(|error| error.to_string())?;
    let birth = Birth {
        key: key("bob")?,
        version: "0",
        pid: 1,
        listen: Vec::new(),
        root: None,
        contacts: contacts.clone(),
        addrs: vec!["192.0.2.7:7100".into()],
        scopes: Vec::new(),
        old_keys: Vec::new(),
        sign: Box::new(|_| [0; 64]),
        verify,
        known_peers: Vec::new(),
        seen: opened.seen,
        next_seq: opened.next_seq,
        clean: opened.clean || !opened.had_data,
        entropy: Box::new(entropy.clone()),
    };
    let mut node = Node::new(birth, settings.clone(), now(at));
    store.items(&mut |key, value| node.restore(key, value)).map_err(|error| error.to_string())?;
    if let Some(Err(error)) = store.commit(&[node.first_commit()], WALL_MS + at).pop() {
        return Err(error.to_string());
    }
    node.take_effects();
    Ok((node, store))
}

/// A setting by its name in `config.toml`.
fn set(settings: &mut Settings, name: &str, value: &Value) -> Result<(), String> {
    let wrong = || format!("the setting {name} is not known to the runner, or {value} does not fit it");
    let number = || value.as_u64().ok_or_else(wrong);
    let flag = || value.as_bool().ok_or_else(wrong);
    let size = || usize::try_from(number()?).map_err(|_| wrong());
    match name {
        "ipc.allow_v1" => settings.allow_v1 = flag()?,
        "ipc.buffer_size" => settings.buffer_size = size()?,
        "ipc.durable" => settings.durable = flag()?,
        "knock.open" => settings.knock.open = flag()?,
        "knock.accept_rekey" => settings.knock.accept_rekey = flag()?,
        "knock.per_minute" => settings.knock.per_minute = number()?,
        "knock.intents" => {
            settings.knock.intents = Some(serde_json::from_value(value.clone()).map_err(|_| wrong())?);
        }
        "knock.allow" => {
            settings.knock.allow = serde_json::from_value(value.clone()).map_err(|_| wrong())?;
        }
        "topics.enabled" => settings.topics.enabled = flag()?,
        "topics.relay" => settings.topics.relay = filters(value).ok_or_else(wrong)?,
        "topics.rules" => {
            let rules = value.as_array().ok_or_else(wrong)?;
            settings.topics.rules = rules.iter().map(rule).collect::<Option<_>>().ok_or_else(wrong)?;
        }
        "policy.known.payload_bytes_max" => settings.policies.known.payload_bytes_max = number()?,
        "policy.known.messages_per_minute" => settings.policies.known.messages_per_minute = number()?,
        "ipc.token" => settings.ipc_token = Some(value.as_str().ok_or_else(wrong)?.to_owned()),
        _ => return Err(wrong()),
    }
    Ok(())
}

fn filters(value: &Value) -> Option<Vec<Filter>> {
    value.as_array()?.iter().map(|filter| Filter::parse(filter.as_str()?).ok()).collect()
}

/// One of `topics.rules`: what it does not name is as without a rule.
fn rule(value: &Value) -> Option<Rule> {
    let mut rule = Rule::default_for(Filter::parse(value["filter"].as_str()?).ok()?);
    let level = |name: &str| value[name].as_str().and_then(Level::parse);
    if let Some(publish) = value.get("publish") {
        rule.publish = Publisher::parse(publish.as_str()?)?;
    }
    rule.subscribe = level("subscribe").unwrap_or(rule.subscribe);
    rule.relay = level("relay").unwrap_or(rule.relay);
    rule.bytes_max = value["bytes_max"].as_u64().unwrap_or(rule.bytes_max);
    let number = |name: &str| value[name].as_u64();
    rule.messages_per_minute = number("messages_per_minute").or(rule.messages_per_minute);
    rule.relay_messages_per_minute = number("relay_messages_per_minute").or(rule.relay_messages_per_minute);
    Some(rule)
}
