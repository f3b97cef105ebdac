//! Daemons in the simulation, and clients of theirs.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axon_proto::id::AgentId;
use axon_proto::node::Entropy;
use quinn::{AsyncUdpSocket, ClientConfig, EndpointConfig, ServerConfig};
use rustls::crypto::CryptoProvider;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::super::outside::Outside;
use super::super::{DaemonArgs, Driver, End, Told};
use super::wire::Wire;
use super::{World, crypto, dice};
use crate::disk::store::OpenStore;
use crate::disk::{Config, Disk, DiskEvent, Identity, ReplayLog, Root, StoreError};
use crate::ipc::attached::{Attached, WayIn};
use crate::names::Names;
use crate::net::{BindError, Machine, NetConfig, ThisMachine};
use crate::notify::Notify;

/// How long the disk takes for what waits together, in milliseconds.
const DISK_MS: (u64, u64) = (0, 3);

/// What a daemon in the simulation has of its machine.
#[derive(Clone)]
pub(super) struct Simulated {
    wire: Wire,
    /// Whether there is power.
    power: Arc<AtomicBool>,
}

impl Simulated {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, power: Arc::new(AtomicBool::new(true)) }
    }
}

impl Machine for Simulated {
    fn socket(&self, config: &NetConfig) -> Result<(Arc<dyn AsyncUdpSocket>, SocketAddr), BindError> {
        let at = SocketAddr::new(config.bind.unwrap(), config.port);
        Ok((self.wire.plug(at), at))
    }

    /// Nobody: there are none.
    fn names(&self) -> Names {
        Names::by("/nowhere".into())
    }

    fn crypto(&self) -> Arc<CryptoProvider> {
        let machine = ThisMachine { names: self.names() };
        crypto::provider(&machine.crypto())
    }

    fn settle_tls(&self, client: &mut rustls::ClientConfig, server: &mut rustls::ServerConfig) {
        crypto::settle_tls(client, server);
    }

    fn settle_quic(
        &self,
        endpoint: &mut EndpointConfig,
        server: &mut ServerConfig,
        client: &mut ClientConfig,
    ) {
        crypto::settle_quic(endpoint, server, client);
    }
}

struct Drawn;

impl Entropy for Drawn {
    fn fill(&mut self, bytes: &mut [u8; 16]) {
        dice::fill(bytes);
    }
}

impl Outside for Simulated {
    fn entropy(&self) -> Box<dyn Entropy> {
        Box::new(Drawn)
    }

    fn manager(&self) -> Notify {
        Notify::default()
    }

    fn disk(
        &self,
        root: &Root,
        own: AgentId,
        store: OpenStore,
        replay_log: ReplayLog,
        done: impl Fn(DiskEvent) + Send + 'static,
    ) -> Result<Disk, StoreError> {
        let power = Arc::clone(&self.power);
        let takes =
            move || power.load(Ordering::Relaxed).then(|| Duration::from_millis(dice::within(DISK_MS)));
        Ok(Disk::in_task(root, own, store, replay_log, takes, done))
    }
}

/// A machine with a daemon, which may run.
pub(super) struct Host {
    world: World,
    pub(super) name: &'static str,
    pub(super) addr: SocketAddr,
    pub(super) identity: Identity,
    dir: TempDir,
    running: Option<Running>,
}

struct Running {
    way_in: WayIn,
    task: JoinHandle<End>,
    tell: mpsc::Sender<Told>,
    machine: Simulated,
}

/// Machines that know one another, none of which runs. What is `kept` outlives a crash.
pub(super) fn hosts(world: &World, names: &[&'static str], kept: bool, settings: &str) -> Vec<Host> {
    let hosts: Vec<_> = names.iter().zip(1..).map(|(name, n)| Host::new(world, name, n)).collect();
    for host in &hosts {
        let ip = host.addr.ip();
        let mut config = format!("bind = \"{ip}\"\nmdns = false\n{settings}\n[ipc]\ndurable = {kept}\n");
        for peer in hosts.iter().filter(|peer| peer.addr != host.addr) {
            let (id, key) = (peer.identity.id, peer.identity.public);
            config.push_str(&format!(
                "[[peers]]\nname = \"{}\"\nagent_id = \"{id}\"\npubkey = \"{key}\"\naddr = \"{}\"\n",
                peer.name, peer.addr
            ));
        }
        std::fs::write(host.root().config(), config).unwrap();
    }
    hosts
}

impl Host {
    fn new(world: &World, name: &'static str, n: u8) -> Self {
        let addr = SocketAddr::from(([10, 0, 0, n], 7_100));
        let identity = Identity::from_seed([n; 32]).unwrap();
        // In memory where there is such a place: syncing a real disk takes time, and shows nothing here.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { world: world.clone(), name, addr, identity, dir, running: None }
    }

    pub(super) fn root(&self) -> Root {
        Root::at(self.dir.path())
    }

    pub(super) fn start(&mut self) {
        let root = self.root();
        let config = Config::load(&root.config()).unwrap();
        let args = DaemonArgs {
            root,
            port: None,
            disable_mdns: true,
            program: "/nowhere".into(),
            verbose: 0,
            quiet: true,
        };
        let machine = Simulated::new(self.world.wire.clone());
        let driver = Driver::start(&args, config, &self.identity, &machine).unwrap();
        let way_in = driver.ipc.way_in();
        let (tell, told) = mpsc::channel(1);
        let task = tokio::spawn(driver.serve(told));
        self.running = Some(Running { way_in, task, tell, machine });
    }

    /// Ends the daemon without a word to anybody.
    pub(super) async fn crash(&mut self) {
        let Some(Running { task, machine, .. }) = self.running.take() else { return };
        self.world.wire.kill(self.addr);
        machine.power.store(false, Ordering::Relaxed);
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled(), "the daemon of {} had ended", self.name);
    }

    /// Tells the daemon to stop, and waits until it has.
    pub(super) async fn stop(&mut self) {
        let Some(Running { task, tell, .. }) = self.running.take() else { return };
        tell.send(Told::Stop("SIGTERM")).await.unwrap();
        assert_eq!(task.await.unwrap(), End::Stopped);
        self.world.wire.kill(self.addr);
    }

    /// Has another address for a peer, from the next start on.
    pub(super) fn knows_at(&self, peer: SocketAddr, addr: &str) {
        let path = self.root().config();
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, config.replace(&format!("addr = \"{peer}\""), &format!("addr = \"{addr}\"")))
            .unwrap();
    }

    /// A client, and the events that it is told of.
    pub(super) async fn client(&self) -> (Client, mpsc::UnboundedReceiver<Value>) {
        let attached = self.running.as_ref().unwrap().way_in.attach().await.unwrap();
        let (tell, events) = mpsc::unbounded_channel();
        let client = Client(Arc::new(Shared { attached, asked: Mutex::default() }));
        tokio::spawn(client.clone().hear(self.world.clone(), tell));
        let hello = client.ask(json!({"cmd": "hello", "version": 2})).await.unwrap();
        assert_eq!(hello["ok"], true, "{hello}");
        (client, events)
    }

    /// Has an agent answer queries after a while of thought, each by its question. Yields how often it was
    /// asked what.
    pub(super) async fn answer(&self, thinks_ms: (u64, u64)) -> Asked {
        let (client, mut events) = self.client().await;
        client.ok(json!({"cmd": "subscribe", "answer": ["query"], "capacity": 1024})).await;
        let asked = Asked::default();
        let book = asked.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if event["answer"] != true {
                    continue;
                }
                let envelope = &event["envelope"];
                let question = envelope["payload"]["question"].as_str().unwrap().to_owned();
                *book.0.lock().unwrap().entry(question.clone()).or_default() += 1;
                let (client, id) = (client.clone(), envelope["id"].clone());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(dice::within(thinks_ms))).await;
                    let payload = json!({"data": question, "summary": "as asked"});
                    // Whoever asked may have given up.
                    client
                        .ask(json!({"cmd": "reply", "ref": id, "kind": "response", "payload": payload}))
                        .await;
                });
            }
        });
        asked
    }

    /// There is a connection to the peer.
    pub(super) async fn is_connected(&self, name: &str) {
        let (client, _events) = self.client().await;
        assert_eq!(self.peer(&client, name).await["status"], "connected", "{} to {name}", self.name);
    }

    /// How it stands with the peer of this name, as `peers` says.
    pub(super) async fn peer(&self, client: &Client, name: &str) -> Value {
        let peers = client.ok(json!({"cmd": "peers"})).await;
        let peers = peers["peers"].as_array().unwrap().clone();
        peers.into_iter().find(|peer| peer["name"] == name).unwrap()
    }
}

/// How often an agent was asked what.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked(Arc<Mutex<BTreeMap<String, u32>>>);

impl Asked {
    pub(super) fn times(&self) -> BTreeMap<String, u32> {
        self.0.lock().unwrap().clone()
    }
}

/// A client of a daemon.
#[derive(Clone)]
pub(super) struct Client(Arc<Shared>);

struct Shared {
    attached: Attached,
    asked: Mutex<Open>,
}

/// Commands without a reply.
#[derive(Default)]
struct Open {
    last: u64,
    replies: HashMap<String, oneshot::Sender<Value>>,
    over: bool,
}

impl Client {
    /// Gives a command and waits for its reply; none where the daemon has ended.
    pub(super) async fn ask(&self, mut command: Value) -> Option<Value> {
        let (tell, told) = oneshot::channel();
        {
            let mut open = self.0.asked.lock().unwrap();
            if open.over {
                return None;
            }
            open.last += 1;
            let number = open.last.to_string();
            command["req_id"] = json!(number);
            open.replies.insert(number, tell);
        }
        self.0.attached.say(&command.to_string()).await;
        told.await.ok()
    }

    /// The same of a command that must succeed.
    pub(super) async fn ok(&self, command: Value) -> Value {
        let reply = self.ask(command.clone()).await.unwrap();
        assert_eq!(reply["ok"], true, "{command}: {reply}");
        reply
    }

    /// Asks a peer's agent; its answer, or the code of the error. None where the daemon has ended.
    pub(super) async fn query(
        &self,
        to: &str,
        question: &str,
        deadline_ms: u64,
    ) -> Option<Result<String, String>> {
        let payload = json!({"question": question, "deadline_ms": deadline_ms});
        let reply = self.ask(json!({"cmd": "send", "to": to, "kind": "query", "payload": payload})).await?;
        if reply["ok"] != true {
            return Some(Err(reply["error"].as_str().unwrap().to_owned()));
        }
        let payload = &reply["response"]["payload"];
        Some(match payload["data"].as_str() {
            Some(answer) => Ok(answer.to_owned()),
            None => Err(payload["code"].as_str().unwrap().to_owned()),
        })
    }

    /// Tells a peer; what became of it, or the code of the error. None where the daemon has ended.
    pub(super) async fn notify(
        &self,
        to: &str,
        text: &str,
        hold_secs: Option<u64>,
    ) -> Option<Result<String, String>> {
        let payload = json!({"topic": "sim", "data": text});
        let mut command = json!({"cmd": "send", "to": to, "kind": "notify", "payload": payload});
        if let Some(secs) = hold_secs {
            command["hold_secs"] = json!(secs);
        }
        let reply = self.ask(command).await?;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Some(if reply["ok"] == true { Ok(text(&reply["state"])) } else { Err(text(&reply["error"])) })
    }

    /// All rows of the inbox: what was told, and how often.
    pub(super) async fn inbox(&self) -> BTreeMap<String, u32> {
        let mut told = BTreeMap::new();
        loop {
            let page = self.ok(json!({"cmd": "inbox", "limit": 1000})).await;
            for row in page["messages"].as_array().unwrap() {
                if row["envelope"]["kind"] == "notify" {
                    let text = row["envelope"]["payload"]["data"].as_str().unwrap().to_owned();
                    *told.entry(text).or_default() += 1;
                }
            }
            if page["has_more"] != true {
                return told;
            }
            self.ok(json!({"cmd": "ack", "up_to_seq": page["next_seq"]})).await;
        }
    }

    async fn hear(self, world: World, events: mpsc::UnboundedSender<Value>) {
        while let Some(lines) = self.0.attached.hear().await {
            for line in lines {
                let line: Value = serde_json::from_str(&line).unwrap();
                if line.get("event").is_some() {
                    // Not every client looks at its events.
                    events.send(line).ok();
                    continue;
                }
                let number = line["req_id"].as_str().unwrap_or_default();
                let reply = self.0.asked.lock().unwrap().replies.remove(number);
                match reply {
                    // Who was aborted waits no more.
                    Some(reply) => drop(reply.send(line)),
                    None => world.fault(format!("a reply to nothing that is open: {line}")),
                }
            }
        }
        let mut open = self.0.asked.lock().unwrap();
        open.over = true;
        open.replies.clear();
    }
}
