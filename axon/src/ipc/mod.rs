//! The Unix sockets: accepts clients, checks who they are, reads their lines, writes theirs, all bounded.
//!
//! Source: `spec/IPC.md`, "Socket". A client that does not read is not read from either, and its events are
//! turned away; the node is told, and tells the client. A client that begins a line and does not end it is
//! closed, and makes room for others before.

#[cfg(test)]
pub(crate) mod attached;
mod client;
mod listen;
mod outbox;
#[cfg(test)]
mod tests;

use std::cell::Cell;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axon_proto::error::{IpcCode, IpcError};
use axon_proto::id::AgentId;
use axon_proto::ipc::error_line;
use axon_proto::limits::{PLACES_KEPT, PURGE_MS};
use axon_proto::node::{ClientId, Input, JobId, Of};
use foldhash::HashMap;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use client::LAST_WORDS;
pub use listen::Newcomer;
use listen::{Door, Listening, Scope};
use outbox::Outbox;

/// Clients over the limit that are being told so; more are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
/// How long a newcomer waits for it to show who there has begun a line, when all places are taken.
const WAIT: Duration = Duration::from_millis(50);
/// Newcomers that are looked at, or wait so, at once; the others wait to be accepted.
const NEWCOMERS_MAX: usize = 256;
/// How long the log does not hear of another client of another user.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// What the tasks of the sockets tell the driver. Give it to [`Ipc::absorb`].
#[derive(Debug)]
pub enum IpcEvent {
    /// Somebody has connected.
    Up(Newcomer),
    /// What a client has said or done.
    Client(ClientId, Input),
    /// Something else for the node.
    Input(Input),
    /// A client without a socket.
    #[cfg(test)]
    Attach(attached::Attach),
}

/// The listening sockets and their clients.
#[derive(Debug)]
pub struct Ipc {
    main: Listening,
    scopes: HashMap<Arc<str>, Scope>,
    clients: HashMap<ClientId, Client>,
    next_client: u64,
    clients_max: usize,
    events_max: usize,
    uid: u32,
    door: Door,
    /// Newcomers that are told that there is no place on their socket.
    turned_away: Arc<Semaphore>,
    /// When the log last heard of a client of another user.
    warned: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Client {
    outbox: Arc<Outbox>,
    socket: Option<Arc<str>>,
    standing: Standing,
}

/// What the node hears of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Everything.
    Served,
    /// Only its end: its socket is no more.
    Muted,
    /// Nothing more: it has been told of its end.
    Forgotten,
}

impl Ipc {
    /// Listens on `path`, which must not be in use: the caller holds the root's lock, so what is there is
    /// stale.
    pub fn bind(
        path: &Path,
        clients_max: usize,
        events_max: usize,
        events: mpsc::Sender<IpcEvent>,
    ) -> io::Result<Self> {
        let door = Door { events, places: Arc::new(Semaphore::new(NEWCOMERS_MAX)) };
        Ok(Self {
            main: Listening::on(path, door.clone())?,
            scopes: HashMap::default(),
            clients: HashMap::default(),
            next_client: 1,
            clients_max,
            events_max,
            uid: rustix::process::geteuid().as_raw(),
            door,
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
            warned: Cell::new(None),
        })
    }

    /// New limits.
    pub fn configure(&mut self, clients_max: usize, events_max: usize) {
        (self.clients_max, self.events_max) = (clients_max, events_max);
    }

    /// Listens on a scoped socket too, for the user `uid`; one of that name that there is already is closed.
    ///
    /// Its directory must be there. Where that is the user's own, nobody else can open the socket; where it
    /// is not, whoever connects and is another user is turned away.
    pub fn open_scope(&mut self, name: &str, path: &Path, uid: u32) -> io::Result<()> {
        self.close_scope(name);
        let scope = Scope::open(name, path, uid, self.uid, self.door.clone())?;
        self.scopes.insert(Arc::clone(&scope.name), scope);
        Ok(())
    }

    /// Ends a scoped socket: nobody is accepted any more, its file is gone, nothing more is heard of its
    /// clients, and they are closed.
    pub fn close_scope(&mut self, name: &str) {
        if self.scopes.remove(name).is_none() {
            return;
        }
        for client in self.clients.values_mut().filter(|client| client.socket.as_deref() == Some(name)) {
            if client.standing == Standing::Served {
                client.standing = Standing::Muted;
            }
            client.outbox.cut_off(None);
        }
    }

    /// Takes a task's event; what the node must be told.
    pub fn absorb(&mut self, event: IpcEvent) -> Option<Input> {
        match event {
            IpcEvent::Up(newcomer) => self.newcomer(newcomer),
            IpcEvent::Client(client, input @ Input::ClientGone { .. }) => {
                let gone = self.clients.remove(&client)?;
                (gone.standing != Standing::Forgotten).then_some(input)
            }
            IpcEvent::Client(client, input) => {
                (self.clients.get(&client)?.standing == Standing::Served).then_some(input)
            }
            IpcEvent::Input(input) => Some(input),
            #[cfg(test)]
            IpcEvent::Attach(attach) => Some(self.attach(attach)),
        }
    }

    fn newcomer(&mut self, newcomer: Newcomer) -> Option<Input> {
        let trusted = self.may_enter(&newcomer)?;
        // All scoped sockets together leave some places to the owner.
        if newcomer.socket.is_some()
            && (self.count(|client| client.socket == newcomer.socket) >= self.quarter()
                || self.count(|client| client.socket.is_some()) >= self.scoped_max())
        {
            self.turn_away(newcomer.stream);
            return None;
        }
        let full = self.count(|_| true) >= self.clients_max;
        if (full || !newcomer.has_room)
            && let Some(client) = self.make_room()
        {
            // The node hears of the end of the one before it hears of the other.
            self.again(Newcomer { has_room: true, ..newcomer }, Duration::ZERO);
            return Some(Input::ClientGone { client });
        }
        if full && !newcomer.waited {
            self.again(Newcomer { waited: true, ..newcomer }, WAIT);
            return None;
        }
        let turned_away_max = if full { TURNED_AWAY_MAX } else { 2 * TURNED_AWAY_MAX };
        if self.clients.len() >= self.clients_max + turned_away_max {
            return None;
        }
        self.client_up(newcomer.stream, newcomer.socket, trusted)
    }

    /// Looks at a newcomer once more, after a while.
    fn again(&self, newcomer: Newcomer, after: Duration) {
        let events = self.door.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            // When this fails the driver has ended.
            drop(events.send(IpcEvent::Up(newcomer)).await);
        });
    }

    /// Tells the log of a client of another user, once in a while: anybody may try as often as he likes.
    fn warn_of(&self, uid: Option<u32>, socket: &str) {
        if self.warned.get().is_none_or(|at| at.elapsed() > WARN_AGAIN) {
            self.warned.set(Some(Instant::now()));
            tracing::warn!(uid, socket, "a client of another user was turned away");
        }
    }

    /// Places that clients of scoped sockets may hold together.
    fn scoped_max(&self) -> usize {
        self.clients_max - PLACES_KEPT.min(self.clients_max / 2)
    }

    /// Whether a newcomer's credentials could be read and are good; none where it must not enter.
    fn may_enter(&self, newcomer: &Newcomer) -> Option<bool> {
        let credentials = newcomer.stream.peer_cred();
        let Some(name) = &newcomer.socket else {
            return match credentials {
                Ok(credentials) if credentials.uid() != self.uid => {
                    self.warn_of(Some(credentials.uid()), "");
                    None
                }
                known => Some(known.is_ok()),
            };
        };
        // The socket may have been closed since, or be another one of that name.
        let scope = self.scopes.get(name).filter(|scope| Arc::ptr_eq(&scope.name, name))?;
        let uid = credentials.ok().map(|credentials| credentials.uid());
        let good = uid.is_some_and(|uid| uid == scope.uid || uid == self.uid);
        if !good {
            self.warn_of(uid, name);
        }
        good.then_some(true)
    }

    /// Clients that are served and of this sort.
    fn count(&self, of: impl Fn(&Client) -> bool) -> usize {
        let served = |client: &&Client| client.standing == Standing::Served && client.outbox.is_open();
        self.clients.values().filter(served).filter(|client| of(client)).count()
    }

    /// How many clients of one scoped socket there may be.
    fn quarter(&self) -> usize {
        (self.clients_max / 4).max(1)
    }

    /// Where as many clients as may have never said a line, closes the oldest of those that have begun one.
    fn make_room(&mut self) -> Option<ClientId> {
        let max = self.clients_max;
        let silent_max = if max <= 2 * PLACES_KEPT { max / 2 } else { max - PLACES_KEPT };
        let mut silent = 0;
        let mut oldest = None;
        for (id, client) in self.clients.iter().filter(|(_, client)| client.standing == Standing::Served) {
            if let Some(begun) = client.outbox.is_silent() {
                silent += 1;
                if begun && oldest.is_none_or(|oldest| *id < oldest) {
                    oldest = Some(*id);
                }
            }
        }
        let oldest = oldest.filter(|_| silent >= silent_max)?;
        let leaving = self.clients.values().filter(|client| client.standing == Standing::Forgotten).count();
        let client = self.clients.get_mut(&oldest)?;
        client.standing = Standing::Forgotten;
        if leaving >= TURNED_AWAY_MAX {
            client.outbox.has_gone();
        } else {
            let message = "all places for clients that have not sent a whole line are taken: connect again, \
                           and send each command as one whole line";
            let error = IpcError::new(IpcCode::TooManyClients, message);
            client.outbox.cut_off(Some(error_line("", &error)));
        }
        Some(oldest)
    }

    /// Tells a newcomer that all places of its socket are taken.
    fn turn_away(&self, mut stream: UnixStream) {
        let Ok(place) = Arc::clone(&self.turned_away).try_acquire_owned() else { return };
        let message = format!(
            "all {} places of this socket are taken: close one, or have max_ipc_clients raised in config.toml",
            self.quarter()
        );
        let line = format!("{}\n", error_line("", &IpcError::new(IpcCode::TooManyClients, message)));
        tokio::spawn(async move {
            drop(timeout(LAST_WORDS, stream.write_all(line.as_bytes())).await);
            drop(place);
        });
    }

    fn client_up(&mut self, stream: UnixStream, socket: Option<Arc<str>>, trusted: bool) -> Option<Input> {
        let warn = |error: &io::Error| tracing::warn!(%error, "a client could not be served");
        let stream = client::Stream::new(stream).inspect_err(warn).ok()?;
        let client = ClientId(self.next_client);
        self.next_client += 1;
        let outbox = Arc::new(Outbox::default());
        tokio::spawn(client::write(stream.clone(), client, outbox.clone(), self.door.events.clone()));
        tokio::spawn(client::read(stream, client, outbox.clone(), self.door.events.clone()));
        let socket_of = socket.clone();
        self.clients.insert(client, Client { outbox, socket: socket_of, standing: Standing::Served });
        Some(Input::ClientUp { client, trusted, socket })
    }

    /// Queues a line that must not be dropped, with whose words it carries; a client that leaves too many
    /// unread is closed.
    pub fn line(&self, client: ClientId, of: Of, line: Arc<str>) {
        if let Some(client) = self.clients.get(&client) {
            client.outbox.line(of, line);
        }
    }

    /// Queues an event of a peer; false when the client's queue is full.
    pub fn event(&self, client: ClientId, of: AgentId, line: Arc<str>) -> bool {
        let client = self.clients.get(&client);
        client.is_none_or(|client| client.outbox.event(of, line, self.events_max))
    }

    /// Drops the events of a peer that wait, and tells `Input::Done` once all other lines that are queued
    /// now and carry its words are written, or their clients closed: at once, or after `PURGE_MS`.
    pub fn purge(&mut self, job: JobId, peer: AgentId) {
        let purged = self.clients.values().map(|client| (client, client.outbox.purge(peer)));
        let unwritten: Vec<_> =
            purged.filter_map(|(client, last)| Some((Arc::clone(&client.outbox), last?))).collect();
        let events = self.door.events.clone();
        tokio::spawn(async move {
            let until = Instant::now() + Duration::from_millis(PURGE_MS);
            for (outbox, last) in unwritten {
                if timeout_at(until, outbox.passed(last)).await.is_err() {
                    tracing::info!("a client did not read the last words of a peer in time, and is closed");
                    outbox.has_gone();
                    outbox.passed(last).await;
                }
            }
            // When this fails the driver has ended.
            drop(events.send(IpcEvent::Input(Input::Done { job, outcome: Ok(String::new()) })).await);
        });
    }

    /// Reads no more lines of a client for now, or reads them again.
    pub fn pace(&self, client: ClientId, pause: bool) {
        if let Some(client) = self.clients.get(&client) {
            client.outbox.pause(pause);
        }
    }

    /// Closes a client once its lines are written.
    pub fn close_client(&self, client: ClientId) {
        if let Some(client) = self.clients.get(&client) {
            client.outbox.close();
        }
    }

    /// Takes no more clients; those attached go on.
    pub fn stop_accepting(&self) {
        self.main.stop();
        self.scopes.values().for_each(|scope| scope.listening.stop());
    }

    /// Stops accepting, removes the files of the main socket, which is `path`, and of the others, and closes
    /// all clients once their lines are written, or after a moment.
    pub async fn close(self, path: &Path) {
        let Self { main, scopes, clients, .. } = self;
        drop((main, scopes));
        if let Err(error) = listen::remove(path) {
            tracing::warn!(%error, "the socket could not be removed");
        }
        clients.values().for_each(|client| client.outbox.close());
        let written = async {
            for client in clients.values() {
                client.outbox.empty().await;
            }
        };
        if timeout(Duration::from_millis(500), written).await.is_err() {
            tracing::info!("a client did not read its last lines");
        }
    }
}
