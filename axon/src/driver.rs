//! The loop: one input, the node, all its effects in order, the next input.
//!
//! Everything that the daemon does begins here: sockets, discovery, signals and timers become inputs, effects
//! go to `net`, `ipc` and `disk`. One thread runs it all; a second one reads and writes files, so that a slow
//! disk holds nobody up.

mod alarm;
mod outside;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::task::Poll;
use std::time::Duration;

use axon_proto::node::{Birth, Effect, Input, JobId, LogLevel, Node, Now};
use axon_proto::scope::{Scope, ScopeChange};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::discover::Mdns;
use crate::disk::{
    Config, ConfigError, Disk, DiskError, DiskEvent, Fresh, Identity, KeyError, Lock, LockError, ReplayLog,
    Root, StoreError, contacts, keys, old_keys, sockets, state, store, token,
};
use crate::ipc::{Ipc, IpcEvent};
use crate::names::Names;
use crate::net::{BindError, Net, NetConfig, NetEvent, ThisMachine};
use crate::notify::Notify;
use alarm::Alarm;
use outside::Outside;

/// Inputs of each source that wait for the loop.
const INPUTS_MAX: usize = 256;
/// Inputs of one source that are taken before the others are looked at.
const BURST_MAX: usize = 64;
/// How often, and how long after one another, it is asked whether processes that were killed have ended.
const REAP_TIMES: u32 = 100;
const REAP_AGAIN: Duration = Duration::from_millis(5);

/// What the daemon is told by its command line.
#[derive(Debug, Clone)]
pub struct DaemonArgs {
    /// Where it lives.
    pub root: Root,
    /// UDP port, instead of the config's.
    pub port: Option<u16>,
    /// No discovery on the local network.
    pub disable_mdns: bool,
    /// The program that looks up names: `axon`.
    pub program: PathBuf,
    /// How often `-v` was given.
    pub verbose: u8,
    /// Only warnings in the log.
    pub quiet: bool,
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Another one runs on this root, or the lock cannot be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The identity cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is kept cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The UDP port cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The Unix socket cannot be made.
    #[error("the socket {path} cannot be made ({error}): check that its directory is yours and has room")]
    Socket {
        /// Where.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The system refuses something else.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// How the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to stop.
    Stopped,
    /// It has another identity: it is to start again.
    Restart,
}

/// Runs the daemon until it is told to stop, or is to start again.
pub fn run(args: DaemonArgs) -> Result<End, DriverError> {
    crate::log::to_stderr(args.verbose, args.quiet);
    let lock = Lock::acquire(&args.root)?;
    let config = Config::load(&args.root.config())?;
    let public = std::fs::read_to_string(args.root.identity_pub()).ok();
    let (identity, made) = Identity::load_or_create(&args.root)?;
    let strange = |text: &String| match text.trim().parse::<axon_proto::id::PublicKey>() {
        // A new identity was made, and there was no time left for its copy.
        Ok(key) => key != identity.public && !old_keys::was_ours(&args.root, key.agent_id()),
        Err(_) => true,
    };
    if let Some(damaged) = public.filter(strange) {
        let name = format!("identity.pub.damaged-{}", crate::disk::files::unix_ms() / 1_000);
        let aside = args.root.dir().join(name);
        crate::disk::files::write_atomic(&aside, damaged.as_bytes(), 0o600)?;
        tracing::warn!(
            "identity.pub was not the key's: made anew, the old one is kept as {}",
            aside.display()
        );
    }
    config.check_own(identity.id)?;
    if made {
        tracing::info!("made a new identity: {}", identity.id);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let machine = ThisMachine { names: Names::by(args.program.clone()) };
        let driver = Driver::start(&args, config, &identity, &machine)?;
        // A task like the others: what `block_on` itself waits for is looked at only after another question
        // to the system, twice for each message.
        tokio::spawn(driver.run()).await.map_err(std::io::Error::from)?
    });
    drop(runtime);
    if matches!(result, Ok(End::Restart)) {
        reap();
    }
    drop(lock);
    result
}

/// Takes note of the ends of lookups that were given up: the process goes on as another image, which knows
/// nothing of them. Children of whoever was this process before us may be among those that are asked for and
/// live on: so nothing waits for an end, and not for long.
fn reap() {
    for _ in 0..REAP_TIMES {
        match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(REAP_AGAIN),
            Err(_) => return,
        }
    }
}

struct Driver {
    args: DaemonArgs,
    root: Root,
    node: Node,
    net: Net,
    ipc: Ipc,
    disk: Disk,
    mdns: Option<Mdns>,
    net_events: mpsc::Receiver<NetEvent>,
    ipc_events: mpsc::Receiver<IpcEvent>,
    found: mpsc::Receiver<Input>,
    /// What the disk has done; bounded by what the node asks of it.
    stored: mpsc::UnboundedReceiver<DiskEvent>,
    config: Config,
    /// Whoever started it, where that wants to know how it is.
    manager: Notify,
    /// Whether something was heard that may change what it is told.
    stirred: bool,
    /// Scoped sockets that are open.
    scopes: HashSet<String>,
    started: Instant,
    /// Inputs that effects led to.
    inputs: VecDeque<Input>,
    effects: Vec<Effect>,
    stopped: bool,
    /// Whether somebody outside wants it to end.
    told_to_stop: bool,
    /// Whether there is a new identity.
    rekeyed: bool,
}

impl Driver {
    fn start(
        args: &DaemonArgs,
        config: Config,
        identity: &Identity,
        outside: &impl Outside,
    ) -> Result<Self, DriverError> {
        let root = args.root.clone();
        let started = Instant::now();
        let now = now(started);
        let contacts = contacts::load(&root.contacts(), identity.id)?;
        let scopes = sockets::load(&root.scopes())?;
        let old_keys = old_keys::load_old_keys(&root, identity, now.wall_ms);
        let (old_keys, old_seeds): (Vec<_>, Vec<_>) = old_keys.into_iter().unzip();
        let token = token::load_or_create(&config.token_path(&root))?;
        let (known_peers, of_peers) = state::load_peers(&root.known_peers());
        let (replay_log, mut seen, of_ids) = ReplayLog::open(&root.replay_log(), now.wall_ms)?;
        of_peers.into_iter().chain(of_ids).for_each(|text| tracing::warn!("{text}"));
        let (mut store, opened) = store::open(&root, config.durable, now.wall_ms)?;
        opened.warnings.iter().for_each(|text| tracing::warn!("store: {text}"));
        if !config.durable && root.store().exists() {
            tracing::warn!("ipc.durable is false: what {} holds is not looked at", root.store().display());
        }
        seen.extend(opened.seen);

        let (net_sender, net_events) = mpsc::channel(INPUTS_MAX);
        let (ipc_sender, ipc_events) = mpsc::channel(INPUTS_MAX);
        let (found_sender, found) = mpsc::channel(INPUTS_MAX);
        let net = Net::on(outside, &net_config(&config, args.port), &identity.seed, &old_seeds, net_sender)?;
        let listen = net.local_addr();
        let socket = root.socket();
        let ipc = Ipc::bind(&socket, config.max_ipc_clients, config.max_client_queue, ipc_sender)
            .map_err(|error| DriverError::Socket { path: socket.display().to_string(), error })?;
        let mdns = (config.mdns && !args.disable_mdns)
            .then(|| Mdns::start(identity.id, identity.public, listen.port(), config.bind, found_sender))
            .and_then(|started| started.inspect_err(|error| tracing::warn!("{error}")).ok());
        let birth = Birth {
            key: identity.public,
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            listen: vec![listen.to_string()],
            addrs: crate::host::addrs(listen),
            contacts,
            scopes: scopes.clone(),
            old_keys,
            sign: identity.signer()?,
            verify: keys::verify,
            root: root.dir().to_str().map(str::to_owned),
            known_peers,
            seen,
            next_seq: opened.next_seq,
            clean: opened.clean || !opened.had_data,
            entropy: outside.entropy(),
        };
        let mut node = Node::new(birth, config.node_settings(Some(token)), now);
        store
            .items(&mut |key, value| node.restore(key, value))
            .map_err(|error| DiskError::Refused(format!("{}: {error}", root.store().display())))?;
        // Numbers are claimed before any is used; a full disk must not keep the daemon from starting.
        if let Some(Err(error)) = store.commit(&[node.first_commit()], now.wall_ms).first() {
            tracing::warn!("nothing can be kept: {error}. Messages are refused until the disk has room");
        }
        store.take_warnings().iter().for_each(|text| tracing::warn!("store: {text}"));
        let (done, stored) = mpsc::unbounded_channel();
        let disk = outside.disk(&root, identity.id, store, replay_log, move |event| {
            // Who does not listen any more has no use for it.
            done.send(event).ok();
        })?;
        let effects = node.take_effects();
        tracing::info!("{} listens on {listen} and on {}", identity.id, socket.display());
        let mut driver = Self {
            args: args.clone(),
            disk,
            root,
            node,
            net,
            ipc,
            mdns,
            net_events,
            ipc_events,
            found,
            stored,
            config,
            manager: outside.manager(),
            stirred: false,
            scopes: HashSet::new(),
            started,
            inputs: VecDeque::new(),
            effects,
            stopped: false,
            told_to_stop: false,
            rekeyed: false,
        };
        sockets::tidy(&driver.root, &scopes);
        for scope in &scopes {
            if let Err(why) = driver.open_scope(scope) {
                tracing::warn!("there is no socket {}: {why}", scope.name);
            }
        }
        Ok(driver)
    }

    async fn run(self) -> Result<End, DriverError> {
        let signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        };
        let (tell, told) = mpsc::channel(1);
        tokio::spawn(signals.tell(tell));
        Ok(self.serve(told).await)
    }

    /// Runs until the node has stopped, and closes all.
    async fn serve(mut self, mut told: mpsc::Receiver<Told>) -> End {
        self.carry_out();
        self.feed(Input::Start);
        self.manager.ready(self.node.glance());
        let mut alarm = Alarm::new();
        while !self.stopped {
            if !self.take_all(&mut told) {
                let come = self.next(&mut told, &mut alarm).await;
                self.take_one(come);
            }
            self.manager.turned(std::mem::take(&mut self.stirred), || self.node.glance());
        }
        if self.rekeyed && !self.told_to_stop {
            // To its manager one that starts again as another is one that reads its settings again.
            self.manager.reloading();
        }
        if let Some(mdns) = self.mdns.take() {
            mdns.stop();
        }
        self.ipc.close(&self.root.socket()).await;
        self.net.close(5, "shutting down").await;
        self.disk.stop();
        // One that came while all was closed counts as well.
        tokio::task::yield_now().await;
        let late = std::iter::from_fn(|| told.try_recv().ok()).any(|told| matches!(told, Told::Stop(_)));
        let end = if self.rekeyed && !self.told_to_stop && !late { End::Restart } else { End::Stopped };
        if end == End::Stopped {
            self.manager.stopping();
        }
        tracing::info!("{}", if end == End::Restart { "starting again as another" } else { "stopped" });
        end
    }

    /// Takes what has come, some of each source and in their order, to its end; whether there was anything.
    fn take_all(&mut self, told: &mut mpsc::Receiver<Told>) -> bool {
        let mut taken = 0;
        while taken < BURST_MAX
            && let Ok(event) = self.net_events.try_recv()
        {
            taken += self.net_event(event);
        }
        for _ in 0..BURST_MAX {
            let Ok(event) = self.ipc_events.try_recv() else { break };
            self.ipc_event(event);
            taken += 1;
        }
        for _ in 0..BURST_MAX {
            let Ok(event) = self.stored.try_recv() else { break };
            self.disk_event(event);
            taken += 1;
        }
        if let Ok(input) = self.found.try_recv() {
            self.feed(input);
            taken += 1;
        }
        if let Ok(told) = told.try_recv() {
            self.told(told);
            taken += 1;
        }
        if self.due().is_some_and(|due| due <= Instant::now()) {
            self.feed(Input::Timer);
            taken += 1;
        }
        taken > 0
    }

    fn take_one(&mut self, come: Come) {
        match come {
            Come::Net(event) => drop(self.net_event(event)),
            Come::Ipc(event) => self.ipc_event(event),
            Come::Stored(event) => self.disk_event(event),
            Come::Found(input) => self.feed(input),
            Come::Told(told) => self.told(told),
            Come::Something => {}
        }
    }

    /// Waits until something has come, which is here or in its queue.
    async fn next(&mut self, told: &mut mpsc::Receiver<Told>, alarm: &mut Alarm) -> Come {
        alarm.set(self.due());
        let mut asked = false;
        std::future::poll_fn(|cx| {
            // Whoever has woken it is found sooner by a look into the queues.
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(Come::Something);
            }
            if alarm.poll(cx).is_ready() {
                return Poll::Ready(Come::Something);
            }
            // A queue that has nobody on its other end brings nothing.
            if let Poll::Ready(Some(event)) = self.net_events.poll_recv(cx) {
                return Poll::Ready(Come::Net(event));
            }
            if let Poll::Ready(Some(event)) = self.ipc_events.poll_recv(cx) {
                return Poll::Ready(Come::Ipc(event));
            }
            if let Poll::Ready(Some(event)) = self.stored.poll_recv(cx) {
                return Poll::Ready(Come::Stored(event));
            }
            if let Poll::Ready(Some(input)) = self.found.poll_recv(cx) {
                return Poll::Ready(Come::Found(input));
            }
            if let Poll::Ready(Some(told)) = told.poll_recv(cx) {
                return Poll::Ready(Come::Told(told));
            }
            Poll::Pending
        })
        .await
    }

    /// When the node or the manager wants something done, at the latest.
    fn due(&self) -> Option<Instant> {
        let node = self.node.next_timeout().map(|at_ms| self.started + Duration::from_millis(at_ms));
        [node, self.manager.due().map(Instant::from_std)].into_iter().flatten().min()
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Stop(signal) => self.stop(signal),
            Told::Reload => self.reload(None),
        }
    }

    /// How many inputs it was.
    fn net_event(&mut self, event: NetEvent) -> usize {
        self.stirred = true;
        let mut taken = 0;
        for event in event.each() {
            if let Some(input) = self.net.absorb(event) {
                self.feed(input);
            }
            taken += 1;
        }
        taken
    }

    fn ipc_event(&mut self, event: IpcEvent) {
        self.stirred = true;
        if let Some(input) = self.ipc.absorb(event) {
            self.feed(input);
        }
    }

    fn disk_event(&mut self, event: DiskEvent) {
        match event {
            DiskEvent::Input(input) => {
                // A command has come to its end. All else that the disk says is of no weight here.
                self.stirred |= matches!(input, Input::Done { .. });
                self.feed(input);
            }
            DiskEvent::Socket { job, change, outcome } => {
                let outcome = outcome.and_then(|before| self.change_scope(change, before));
                match job {
                    Some(job) => self.feed(Input::Done { job, outcome }),
                    None => outcome.err().into_iter().for_each(|why| tracing::warn!("{why}")),
                }
            }
            DiskEvent::Fresh { job, outcome } => self.reloaded(job, outcome),
            DiskEvent::Rekeyed { job, outcome } => {
                if outcome.is_ok() {
                    self.rekeyed = true;
                    self.ipc.stop_accepting();
                }
                self.feed(Input::Done { job, outcome });
            }
        }
    }

    /// Opens or closes a scoped socket whose file is written; gives its path.
    #[inline(never)]
    fn change_scope(&mut self, change: ScopeChange, before: Option<Scope>) -> Result<String, String> {
        match change {
            ScopeChange::Put(scope) => {
                let path = self.root.scope_socket(&scope.name).display().to_string();
                // Who is there stays there, unless the socket is for another user now.
                let stays = before.as_ref().is_some_and(|before| before.uid == scope.uid);
                if stays && self.scopes.contains(&scope.name) {
                    return Ok(path);
                }
                self.open_scope(&scope).map(|()| path).inspect_err(|_| {
                    let back = before.map_or(ScopeChange::Remove(scope.name), ScopeChange::Put);
                    self.disk.socket(None, back);
                })
            }
            ScopeChange::Remove(name) => {
                self.ipc.close_scope(&name);
                self.scopes.remove(&name);
                let path = self.root.scope_socket(&name).display().to_string();
                self.disk.remove_socket_dir(name);
                Ok(path)
            }
        }
    }

    fn open_scope(&mut self, scope: &Scope) -> Result<(), String> {
        let path = sockets::prepare(&self.root, scope).map_err(|error| error.to_string())?;
        let uid = scope.uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        self.scopes.remove(&scope.name);
        self.ipc
            .open_scope(&scope.name, &path, uid)
            .map_err(|error| format!("{} cannot be made: {error}", path.display()))?;
        self.scopes.insert(scope.name.clone());
        Ok(())
    }

    /// One input, all its effects, and all that they lead to at once.
    fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let now = now(self.started);
            self.node.handle(now, input, &mut self.effects);
            self.carry_out();
        }
    }

    fn carry_out(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Line { client, line, of } => self.ipc.line(client, of, line),
                Effect::Event { client, seq, of, line } => {
                    if !self.ipc.event(client, of, line) {
                        self.inputs.push_back(Input::Lagged { client, seq });
                    }
                }
                Effect::Pace { client, pause } => self.ipc.pace(client, pause),
                Effect::CloseClient { client } => self.ipc.close_client(client),
                Effect::Measure { client, req_id, conns } => {
                    let rtts = conns.into_iter().filter_map(|conn| self.net.path(conn)).collect();
                    self.inputs.push_back(Input::Measured { client, req_id, rtts });
                }
                Effect::Count(conns) => {
                    let counts = conns.into_iter().filter_map(|conn| Some((conn, self.net.packets(conn)?)));
                    self.inputs.push_back(Input::Counted(counts.collect()));
                }
                Effect::Commit { id, commit } => self.disk.commit(id, commit),
                Effect::Read { id, read } => self.disk.read(id, read),
                Effect::Evict(keep) => self.disk.evict(keep),
                Effect::Remember(seen) => self.disk.remember(seen),
                Effect::SavePeers(peers) => self.disk.save_peers(peers),
                Effect::Contacts { job, changes } => self.disk.contacts(job, changes),
                Effect::Socket { job, change } => self.disk.socket(Some(job), change),
                Effect::Reload { job } => self.reload(Some(job)),
                Effect::Rekey { job } => self.disk.rekey(job),
                Effect::Audit(row) => self.disk.audit(row),
                Effect::Purge { job, peer } => self.ipc.purge(job, peer),
                Effect::Log(LogLevel::Warn, text) => tracing::warn!("{text}"),
                Effect::Log(LogLevel::Info, text) => tracing::info!("{text}"),
                Effect::Log(LogLevel::Debug, text) => tracing::debug!("{text}"),
                Effect::Stopped => self.stopped = true,
                effect => self.net.carry_out(effect),
            }
        }
        self.effects = effects;
    }

    #[inline(never)]
    fn stop(&mut self, signal: &str) {
        tracing::info!("{signal}: finishing what is in flight");
        self.told_to_stop = true;
        self.manager.stopping();
        self.ipc.stop_accepting();
        self.feed(Input::Stop);
    }

    fn reload(&mut self, job: Option<JobId>) {
        self.manager.reloading();
        self.disk.reload(job);
    }

    /// Takes what the files say now; what is wrong leaves everything as it was.
    #[inline(never)]
    fn reloaded(&mut self, job: Option<JobId>, outcome: Result<Box<Fresh>, String>) {
        let by = if job.is_some() { "reload" } else { "SIGHUP" };
        let done = match outcome {
            Ok(fresh) => {
                self.take(by, *fresh);
                tracing::info!("{by}: settings read");
                Ok(String::new())
            }
            Err(why) => {
                let why = format!("the settings stay as they were: {why}");
                // Of what a client asked for, the node tells the log.
                if job.is_none() {
                    tracing::warn!("{by}: {why}");
                }
                Err(why)
            }
        };
        self.manager.reloaded();
        if let Some(job) = job {
            self.feed(Input::Done { job, outcome: done });
        }
    }

    #[inline(never)]
    fn take(&mut self, by: &str, fresh: Fresh) {
        let Fresh { config, token, contacts } = fresh;
        if net_config(&config, self.args.port) != net_config(&self.config, self.args.port)
            || config.mdns != self.config.mdns
            || config.durable != self.config.durable
        {
            tracing::warn!(
                "{by}: bind, port, mdns, pipe, ipc.durable and the QUIC timeouts take effect at the next start"
            );
        }
        self.ipc.configure(config.max_ipc_clients, config.max_client_queue);
        // Contacts first: who is new among the peers and blocked is not dialled.
        self.feed(Input::Contacts(contacts));
        self.feed(Input::Settings(Box::new(config.node_settings(Some(token)))));
        self.config = config;
    }
}

/// The signals that mean something to the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Tells of each, until nobody listens. A task of its own, so that they cost nothing where none comes.
    async fn tell(mut self, tell: mpsc::Sender<Told>) {
        loop {
            let told = tokio::select! {
                _ = self.terminate.recv() => Told::Stop("SIGTERM"),
                _ = self.interrupt.recv() => Told::Stop("SIGINT"),
                _ = self.hangup.recv() => Told::Reload,
            };
            if tell.send(told).await.is_err() {
                return;
            }
        }
    }
}

/// What a signal asks for.
enum Told {
    /// To stop; the signal's name.
    Stop(&'static str),
    /// To read the settings again.
    Reload,
}

/// What the loop has waited for.
enum Come {
    Net(NetEvent),
    Ipc(IpcEvent),
    Stored(DiskEvent),
    Found(Input),
    Told(Told),
    /// It is in its queue, or it is time.
    Something,
}

fn net_config(config: &Config, port: Option<u16>) -> NetConfig {
    NetConfig {
        bind: config.bind,
        port: port.unwrap_or(config.port),
        keepalive: Duration::from_secs(config.keepalive_secs),
        idle_timeout: Duration::from_secs(config.idle_timeout_secs),
        handshake_timeout: Duration::from_secs(config.handshake_timeout_secs),
        read_timeout: Duration::from_secs(config.inbound_read_timeout_secs),
        pipe: config.pipe,
    }
}

fn now(started: Instant) -> Now {
    let mono_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Now { mono_ms, wall_ms: crate::disk::files::unix_ms() }
}
