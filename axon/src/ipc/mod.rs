//! The Unix socket: accepts clients, checks who they are, reads their lines, writes theirs, all bounded.
//!
//! Source: `spec/IPC.md`, "Socket". A client that does not read is not read from either, and its events are
//! turned away; the node is told, and tells the client.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axon_proto::limits::{CLIENT_QUEUE_BYTES_MAX, CLIENT_UNREAD_BYTES_MAX, LINE_BYTES_MAX};
use axon_proto::node::{ClientId, Input};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

/// Clients over the limit that are being told so; more are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
/// Bytes of lines that wait for a client before its commands are no longer read.
const BACKPRESSURE_BYTES: usize = 1 << 20;
/// Bytes read at once.
const READ_BYTES: usize = 8 * 1024;
/// How long a client that is being closed may take to read its last lines.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Bytes written at once, about.
const BATCH_BYTES: usize = 64 * 1024;
/// A larger buffer is given back after use.
const BUFFER_KEPT_BYTES: usize = 16 * 1024;

/// What the tasks of the socket tell the driver.
#[derive(Debug)]
pub enum IpcEvent {
    /// A client has connected.
    Up(UnixStream),
    /// Something for the node.
    Input(Input),
}

/// The listening socket and its clients.
#[derive(Debug)]
pub struct Ipc {
    clients: HashMap<ClientId, Arc<Outbox>>,
    next_client: u64,
    clients_max: usize,
    events_max: usize,
    uid: u32,
    events: mpsc::Sender<IpcEvent>,
    accepting: tokio::task::JoinHandle<()>,
}

/// Lines that wait to be written to one client.
#[derive(Debug, Default)]
struct Outbox {
    queue: Mutex<Queue>,
    /// There is something to write, or the end has come.
    filled: Notify,
    /// Something has been written.
    drained: Notify,
    /// The client has gone: nobody needs its reader.
    ended: Notify,
    /// The client has gone or is being closed: the writer must not wait for it any longer than a moment.
    hurry: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Arc<str>>,
    bytes: usize,
    /// No more lines come: close once these are written.
    closing: bool,
    /// The client has gone: nothing is written any more.
    gone: bool,
    /// Its commands wait for an earlier one: no more are read.
    paused: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Arc<str>) {
        let mut queue = self.lock();
        if queue.bytes + line.len() > CLIENT_UNREAD_BYTES_MAX {
            // It does not read what it is handed: what it holds goes to others.
            tracing::warn!("a client that leaves {} bytes unread is closed", queue.bytes);
            drop(queue);
            return self.has_gone();
        }
        if !queue.gone && !queue.closing {
            queue.bytes += line.len() + 1;
            queue.lines.push_back(line);
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// Moves lines into `batch`; whether no more will come after those that wait.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut queue = self.lock();
        while batch.len() < BATCH_BYTES
            && let Some(line) = queue.lines.pop_front()
        {
            batch.extend_from_slice(line.as_bytes());
            batch.push(b'\n');
        }
        queue.gone || queue.closing
    }

    fn written(&self, bytes: usize) {
        let mut queue = self.lock();
        queue.bytes = queue.bytes.saturating_sub(bytes);
        drop(queue);
        self.drained.notify_one();
    }

    /// Bytes that wait to be written; none when the client has gone.
    fn fill(&self) -> Option<usize> {
        let queue = self.lock();
        (!queue.gone).then_some(queue.bytes)
    }

    /// Whether more may be read of the client; none when it has gone.
    fn has_room(&self) -> Option<bool> {
        let queue = self.lock();
        (!queue.gone).then_some(queue.bytes <= BACKPRESSURE_BYTES && !queue.paused)
    }

    fn is_done(&self) -> bool {
        let queue = self.lock();
        queue.gone || queue.bytes == 0
    }

    fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_one();
        self.hurry.notify_one();
    }

    fn has_gone(&self) {
        let mut queue = self.lock();
        queue.gone = true;
        queue.lines.clear();
        queue.bytes = 0;
        drop(queue);
        self.filled.notify_one();
        self.drained.notify_one();
        self.ended.notify_one();
        self.hurry.notify_one();
    }
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
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Nobody else gets in between bind and the change of mode: whose a client is, is checked as well.
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let accepting = tokio::spawn(accept(listener, events.clone()));
        let uid = rustix::process::geteuid().as_raw();
        Ok(Self { clients: HashMap::new(), next_client: 1, clients_max, events_max, uid, events, accepting })
    }

    /// New limits.
    pub fn configure(&mut self, clients_max: usize, events_max: usize) {
        (self.clients_max, self.events_max) = (clients_max, events_max);
    }

    /// Takes a task's event; what the node must be told.
    pub fn absorb(&mut self, event: IpcEvent) -> Option<Input> {
        match event {
            IpcEvent::Up(stream) => self.client_up(stream),
            IpcEvent::Input(Input::ClientGone { client }) => {
                self.clients.remove(&client);
                Some(Input::ClientGone { client })
            }
            IpcEvent::Input(input) => Some(input),
        }
    }

    fn client_up(&mut self, stream: UnixStream) -> Option<Input> {
        if self.clients.len() >= self.clients_max + TURNED_AWAY_MAX {
            return None;
        }
        let trusted = match stream.peer_cred() {
            Ok(credentials) if credentials.uid() != self.uid => {
                tracing::warn!(uid = credentials.uid(), "a client of another user was turned away");
                return None;
            }
            known => known.is_ok(),
        };
        let client = ClientId(self.next_client);
        self.next_client += 1;
        let (reader, writer) = stream.into_split();
        let outbox = Arc::new(Outbox::default());
        self.clients.insert(client, outbox.clone());
        tokio::spawn(write(writer, client, outbox.clone(), self.events.clone()));
        tokio::spawn(read(reader, client, outbox, self.events.clone()));
        Some(Input::ClientUp { client, trusted })
    }

    /// Queues a line that must not be dropped; a client that leaves too many unread is closed.
    pub fn line(&self, client: ClientId, line: Arc<str>) {
        if let Some(outbox) = self.clients.get(&client) {
            outbox.push(line);
        }
    }

    /// Queues an event; false when the client's queue is full.
    pub fn event(&self, client: ClientId, line: Arc<str>) -> bool {
        let Some(outbox) = self.clients.get(&client) else { return true };
        let queue = outbox.lock();
        let full = queue.lines.len() >= self.events_max || queue.bytes + line.len() > CLIENT_QUEUE_BYTES_MAX;
        drop(queue);
        if !full {
            outbox.push(line);
        }
        !full
    }

    /// Reads no more lines of a client for now, or reads them again.
    pub fn pace(&self, client: ClientId, pause: bool) {
        if let Some(outbox) = self.clients.get(&client) {
            outbox.lock().paused = pause;
            outbox.drained.notify_one();
        }
    }

    /// Closes a client once its lines are written.
    pub fn close_client(&self, client: ClientId) {
        if let Some(outbox) = self.clients.get(&client) {
            outbox.close();
        }
    }

    /// Takes no more clients; those attached go on.
    pub fn stop_accepting(&self) {
        self.accepting.abort();
    }

    /// Stops accepting, and closes all clients once their lines are written, or after a moment.
    pub async fn close(self, path: &Path) {
        self.accepting.abort();
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the socket could not be removed");
        }
        self.clients.values().for_each(|outbox| outbox.close());
        let written = async {
            for outbox in self.clients.values() {
                loop {
                    let written = outbox.drained.notified();
                    if outbox.is_done() {
                        break;
                    }
                    written.await;
                }
            }
        };
        if timeout(Duration::from_millis(500), written).await.is_err() {
            tracing::info!("a client did not read its last lines");
        }
    }
}

async fn accept(listener: UnixListener, events: mpsc::Sender<IpcEvent>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if events.send(IpcEvent::Up(stream)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: wait for some to be given back.
                tracing::warn!(%error, "a client could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Reads a client's lines until it goes.
async fn read(
    mut reader: OwnedReadHalf,
    client: ClientId,
    outbox: Arc<Outbox>,
    events: mpsc::Sender<IpcEvent>,
) {
    let mut buffer = Vec::new();
    let mut skipping = false;
    'client: loop {
        buffer.reserve(READ_BYTES);
        let read = tokio::select! {
            read = reader.read_buf(&mut buffer) => read,
            () = outbox.ended.notified() => break,
        };
        match read {
            // It may have closed this half only, and wait for its answers: the node decides.
            Ok(0) => {
                if events.send(IpcEvent::Input(Input::ClientEof { client })).await.is_ok() {
                    tokio::select! {
                        () = hung_up(reader.as_ref()) => {}
                        () = outbox.ended.notified() => {}
                    }
                }
                break;
            }
            Err(_) => break,
            Ok(_) => {}
        }
        let mut start = 0;
        while let Some(length) = buffer[start..].iter().position(|byte| *byte == b'\n') {
            let line = &buffer[start..start + length];
            start += length + 1;
            let input = if std::mem::take(&mut skipping) {
                continue;
            } else if length > LINE_BYTES_MAX {
                Input::LineTooLong { client }
            } else {
                Input::Line { client, line: line.to_vec() }
            };
            if events.send(IpcEvent::Input(input)).await.is_err() || !room(&outbox).await {
                break 'client;
            }
        }
        buffer.drain(..start);
        if buffer.len() > LINE_BYTES_MAX {
            // Say so once; the rest of the line is passed over.
            if !std::mem::replace(&mut skipping, true)
                && events.send(IpcEvent::Input(Input::LineTooLong { client })).await.is_err()
            {
                break;
            }
            buffer.clear();
        }
        if skipping && !buffer.is_empty() {
            buffer.clear();
        }
        if buffer.capacity() > BUFFER_KEPT_BYTES && buffer.is_empty() {
            buffer = Vec::new();
        }
    }
    outbox.has_gone();
}

/// Waits until both halves are closed: the client has gone, and not only said its last word.
///
/// Over a descriptor of its own, whose readiness can be taken without the writer missing it.
async fn hung_up(stream: &UnixStream) {
    let own = stream.as_fd().try_clone_to_owned().map(std::os::unix::net::UnixStream::from);
    // Without a descriptor to spare the client counts as gone.
    let Ok(own) = own.and_then(UnixStream::from_std) else { return };
    while let Ok(ready) = own.ready(Interest::WRITABLE).await {
        if ready.is_write_closed() {
            return;
        }
        drop(own.try_io(Interest::WRITABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into())));
    }
}

/// Waits until a client has read enough of its answers, and its commands are done; false when it has gone.
async fn room(outbox: &Outbox) -> bool {
    loop {
        let drained = outbox.drained.notified();
        match outbox.has_room() {
            None => return false,
            Some(true) => return true,
            Some(false) => {}
        }
        drained.await;
    }
}

/// Writes a client's lines, many at once, until it goes or is closed.
async fn write(
    mut writer: OwnedWriteHalf,
    client: ClientId,
    outbox: Arc<Outbox>,
    events: mpsc::Sender<IpcEvent>,
) {
    let mut batch = Vec::new();
    loop {
        let filled = outbox.filled.notified();
        let ends = outbox.take(&mut batch);
        if batch.is_empty() {
            if ends {
                break;
            }
            filled.await;
            continue;
        }
        let mut writing = pin!(writer.write_all(&batch));
        let written = tokio::select! {
            written = &mut writing => written,
            () = outbox.hurry.notified() => match outbox.fill() {
                None => break,
                Some(_) => timeout(LAST_WORDS, writing).await.unwrap_or_else(|late| Err(late.into())),
            },
        };
        outbox.written(batch.len());
        if written.is_err() {
            break;
        }
        batch.clear();
        if batch.capacity() > BUFFER_KEPT_BYTES {
            batch = Vec::new();
        }
    }
    // A client that is closed reads all its lines, then the end.
    drop(writer.shutdown().await);
    outbox.has_gone();
    // When this fails the driver has ended, and with it everything that could matter.
    drop(events.send(IpcEvent::Input(Input::ClientGone { client })).await);
}
