//! The two tasks of one client: one reads its lines, one writes ours.

use std::future::pending;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axon_proto::error::IpcError;
use axon_proto::ipc::error_line;
use axon_proto::limits::{LINE_BYTES_MAX, LINE_MS};
use axon_proto::node::{ClientId, Input, Of};
use rustix::buffer::spare_capacity;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::IpcEvent;
use super::outbox::{Outbox, Pace};
use crate::readiness;

/// Bytes read at once.
const READ_BYTES: usize = 8 * 1024;
/// How long a client that is being closed may take to read what is being written to it.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(5);
/// A larger buffer is given back after use.
const BUFFER_KEPT_BYTES: usize = 16 * 1024;
/// How long a line may take from its first byte to its last, while we read.
const LINE: Duration = Duration::from_millis(LINE_MS);

/// The connection to a client, of both its tasks.
#[derive(Debug)]
pub(super) struct Stream(AsyncFd<UnixStream>);

impl Stream {
    pub(super) fn new(stream: tokio::net::UnixStream) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self(readiness::watch(stream.into_std()?)?)))
    }

    /// Reads into the room that the buffer has; none at the end. What was not yet waited for is not lost.
    async fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|stream| {
                rustix::io::retry_on_intr(|| rustix::io::read(stream, spare_capacity(buffer)))
                    .map_err(io::Error::from)
            });
            if let Ok(read) = read {
                // There was no more, and what comes after this is told of anew.
                if read.as_ref().is_ok_and(|read| (1..room).contains(read)) {
                    ready.clear_ready();
                }
                return read;
            }
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.0.get_ref().write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => readiness::room(self.0.get_ref()).await,
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }
}

/// Reads a client's lines until it goes.
pub(super) async fn read(
    reader: Arc<Stream>,
    client: ClientId,
    outbox: Arc<Outbox>,
    events: mpsc::Sender<IpcEvent>,
) {
    let mut lines = Lines { reader, client, outbox: &outbox, events: &events };
    if lines.read().await == End::Gone {
        outbox.has_gone();
    }
}

/// Why no more is read.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Nobody is there any more.
    Gone,
    /// It is closed once it has its last line.
    TooSlow,
}

struct Lines<'a> {
    reader: Arc<Stream>,
    client: ClientId,
    outbox: &'a Outbox,
    events: &'a mpsc::Sender<IpcEvent>,
}

impl Lines<'_> {
    async fn read(&mut self) -> End {
        let mut buffer = Vec::new();
        // The line was too long: the rest of it is passed over.
        let mut skipping = false;
        let mut patience = LINE;
        loop {
            buffer.reserve(READ_BYTES);
            let begun = skipping || !buffer.is_empty();
            let since = begun.then(Instant::now);
            let too_slow = async {
                match since {
                    Some(since) => sleep_until(since + patience).await,
                    None => pending().await,
                }
            };
            let read = tokio::select! {
                read = self.reader.read(&mut buffer) => read,
                () = self.outbox.ended.notified() => return End::Gone,
                () = too_slow => return self.too_slow(),
            };
            patience = since.map_or(LINE, |since| patience.saturating_sub(since.elapsed()));
            match read {
                // It may have closed this half only, and wait for its answers: the node decides.
                Ok(0) => {
                    self.half_closed().await;
                    return End::Gone;
                }
                Err(_) => return End::Gone,
                Ok(_) => {}
            }
            let mut start = 0;
            while let Some(length) = buffer[start..].iter().position(|byte| *byte == b'\n') {
                let line = &buffer[start..start + length];
                start += length + 1;
                patience = LINE;
                self.outbox.heard(false, skipping || !line.iter().all(u8::is_ascii_whitespace));
                if std::mem::take(&mut skipping) {
                    continue;
                }
                let input = if length > LINE_BYTES_MAX {
                    Input::LineTooLong { client: self.client }
                } else {
                    Input::Line { client: self.client, line: line.to_vec() }
                };
                if !self.tell(input).await || !self.outbox.room().await {
                    return End::Gone;
                }
            }
            buffer.drain(..start);
            if buffer.len() > LINE_BYTES_MAX {
                // Said once.
                if !std::mem::replace(&mut skipping, true)
                    && !self.tell(Input::LineTooLong { client: self.client }).await
                {
                    return End::Gone;
                }
            }
            if skipping {
                buffer.clear();
            }
            if skipping || !buffer.is_empty() {
                self.outbox.heard(true, false);
            }
            if buffer.capacity() > BUFFER_KEPT_BYTES && buffer.is_empty() {
                buffer = Vec::new();
            }
        }
    }

    /// False when the driver has ended.
    async fn tell(&self, input: Input) -> bool {
        self.events.send(IpcEvent::Client(self.client, input)).await.is_ok()
    }

    async fn half_closed(&self) {
        if self.tell(Input::ClientEof { client: self.client }).await {
            tokio::select! {
                () = hung_up(self.reader.0.get_ref()) => {}
                () = self.outbox.ended.notified() => {}
            }
        }
    }

    fn too_slow(&self) -> End {
        let error = IpcError::invalid(format!(
            "a line must end within {} s of its first byte: connect again, and send each command as one whole \
             line, with a newline at its end",
            LINE.as_secs()
        ));
        self.outbox.line(Of::Us, error_line("", &error));
        self.outbox.close();
        End::TooSlow
    }
}

/// Waits until both halves are closed: the client has gone, and not only said its last word.
///
/// Over a descriptor of its own, whose readiness can be taken without the writer missing it.
async fn hung_up(stream: &UnixStream) {
    // Without a descriptor to spare the client counts as gone.
    let Ok(own) = stream.try_clone().and_then(tokio::net::UnixStream::from_std) else { return };
    while let Ok(ready) = own.ready(Interest::WRITABLE).await {
        if ready.is_write_closed() {
            return;
        }
        drop(own.try_io(Interest::WRITABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into())));
    }
}

/// Writes a client's lines, many at once, until it goes or is closed.
pub(super) async fn write(
    writer: Arc<Stream>,
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
        if !write_batch(&writer, &batch, &outbox).await {
            break;
        }
        outbox.written();
        batch.clear();
        if batch.capacity() > BUFFER_KEPT_BYTES {
            batch = Vec::new();
        }
    }
    outbox.ends();
    // A client that is closed reads all its lines, then the end.
    drop(writer.0.get_ref().shutdown(Shutdown::Write));
    // When this fails the driver has ended, and with it everything that could matter.
    drop(events.send(IpcEvent::Client(client, Input::ClientGone { client })).await);
}

/// Whether all of it could be written.
async fn write_batch(writer: &Stream, batch: &[u8], outbox: &Outbox) -> bool {
    let mut writing = pin!(writer.write_all(batch));
    let mut until = None;
    loop {
        match outbox.pace() {
            Pace::Stop => return false,
            Pace::Hurried => until = until.or_else(|| Some(Instant::now() + LAST_WORDS)),
            Pace::Calm => {}
        }
        let written = async {
            match until {
                None => writing.as_mut().await.is_ok(),
                Some(until) => timeout_at(until, writing.as_mut()).await.is_ok_and(|end| end.is_ok()),
            }
        };
        tokio::select! {
            biased;
            // Something has changed.
            () = outbox.hurry.notified() => {}
            written = written => return written,
        }
    }
}
