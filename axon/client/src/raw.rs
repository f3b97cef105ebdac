//! The socket without types, for who has many lines to write and must not spend much on each: a benchmark, a
//! bridge. No task, no queue of replies and no allocation for a line; who uses it reads `spec/IPC.md`.

use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use axon_proto::error::IpcCode;
use axon_proto::limits::{CLIENT_UNREAD_BYTES_MAX, INBOX_REPLY_BYTES_MAX};
use serde::Deserialize;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::ClientError;
use crate::client::{PATIENCE, hello_line, welcomed};
use crate::types::{Hello, Welcome};

/// Longest line taken from the daemon, as in `conn`.
const LINE_MAX: usize = 2 * INBOX_REPLY_BYTES_MAX;
/// How much is read at once, until a line is longer.
const READ_BYTES: usize = 65_536;

/// A connection to the daemon by lines, after hello.
///
/// Lines that are [queued](Self::queue) go out together at the next [`turn`](Self::turn), which returns when
/// something has come; [`next_line`](Self::next_line) then gives one line after another. Replies come in any
/// order: a command's `req_id` tells which is its own.
///
/// ```no_run
/// # async fn example() -> Result<(), axon_client::ClientError> {
/// use axon_client::{Hello, Raw};
///
/// let mut raw = Raw::connect("/home/ada/.axon/axon.sock", Hello::default()).await?;
/// for id in ["1", "2"] {
///     raw.queue(&[br#"{"cmd":"status","req_id":"#, id.as_bytes(), b"}"])?;
/// }
/// let mut replies = 0;
/// while replies < 2 {
///     raw.turn().await?;
///     while let Some(line) = raw.next_line() {
///         replies += 1;
///         println!("{}", String::from_utf8_lossy(line));
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Raw {
    wire: Wire,
    welcome: Welcome,
}

impl Raw {
    /// Connects to the socket and says hello.
    pub async fn connect(path: impl AsRef<Path>, hello: Hello) -> Result<Self, ClientError> {
        let mut wire = Wire::open(path.as_ref()).await?;
        wire.out = hello_line(&hello)?.into_bytes();
        let welcome = timeout(PATIENCE, wire.greeted()).await;
        let welcome = welcome.map_err(|_| ClientError::Stuck { secs: PATIENCE.as_secs() })??;
        Ok(Self { wire, welcome })
    }

    /// What the daemon said to hello.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The process that listens on the socket, as the system tells it; none where it does not, and where that
    /// process cannot be seen from here.
    pub fn daemon_pid(&self) -> Option<u32> {
        let pid = self.wire.stream.peer_cred().ok()?.pid()?;
        u32::try_from(pid).ok().filter(|pid| *pid != 0)
    }

    /// Queues one line, given in parts and without its line feed; or several, with line feeds between them.
    ///
    /// They are refused with `overloaded` when 33,554,432 bytes would wait to be written: take a
    /// [`turn`](Self::turn) first.
    pub fn queue(&mut self, parts: &[&[u8]]) -> Result<(), ClientError> {
        let wire = &mut self.wire;
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if wire.out.len() - wire.written + bytes >= CLIENT_UNREAD_BYTES_MAX {
            let why = format!("{CLIENT_UNREAD_BYTES_MAX} bytes wait to be written: read replies first");
            return Err(ClientError::ipc(IpcCode::Overloaded, why));
        }
        parts.iter().for_each(|part| wire.out.extend_from_slice(part));
        wire.out.push(b'\n');
        Ok(())
    }

    /// Writes what is queued and returns as soon as there is a line to take. An error means that there will
    /// be no more.
    ///
    /// Lines that do not fit into the socket go out at the next turns. May be dropped while it waits without
    /// losing anything.
    pub async fn turn(&mut self) -> Result<(), ClientError> {
        self.wire.turn().await
    }

    /// The next line that has come, without its line feed.
    pub fn next_line(&mut self) -> Option<&[u8]> {
        self.wire.next_line()
    }
}

/// The stream and its two buffers.
#[derive(Debug)]
struct Wire {
    stream: UnixStream,
    path: PathBuf,
    out: Vec<u8>,
    /// How much of `out` the socket has taken.
    written: usize,
    input: Vec<u8>,
    /// Where the next line begins in `input`.
    start: usize,
    /// No line ends between `start` and here.
    seen: usize,
    /// Where what was read ends in `input`.
    end: usize,
}

/// What a reply may have.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    ok: Option<bool>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    message: String,
}

impl Wire {
    async fn open(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).await.map_err(|error| ClientError::open(path, &error))?;
        let (path, input) = (path.to_owned(), vec![0; READ_BYTES]);
        Ok(Self { stream, path, out: Vec::new(), written: 0, input, start: 0, seen: 0, end: 0 })
    }

    /// The daemon's reply to hello.
    async fn greeted(&mut self) -> Result<Welcome, ClientError> {
        loop {
            self.turn().await?;
            while let Some(line) = self.next_line() {
                let strange = |error: serde_json::Error| ClientError::Protocol(error.to_string());
                let head: Head = serde_json::from_slice(line).map_err(strange)?;
                match head.ok {
                    Some(true) => return welcomed(&String::from_utf8_lossy(line)),
                    Some(false) => return Err(ClientError::Ipc { code: head.error, message: head.message }),
                    // A message as clients of version 1 get it: it came before the daemon had read our hello.
                    None => {}
                }
            }
        }
    }

    async fn turn(&mut self) -> Result<(), ClientError> {
        poll_fn(|cx| self.poll_turn(cx)).await
    }

    fn next_line(&mut self) -> Option<&[u8]> {
        let at = self.line_end()?;
        let line = self.start..at;
        self.start = at + 1;
        self.seen = self.start;
        self.input.get(line)
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        self.poll_write(cx);
        loop {
            if self.line_end().is_some() {
                return Poll::Ready(Ok(()));
            }
            self.make_room()?;
            let mut space = ReadBuf::new(&mut self.input[self.end..]);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut space);
            let bytes = space.filled().len();
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if bytes > 0 => self.end += bytes,
                Poll::Ready(Ok(())) => return Poll::Ready(Err(ClientError::Closed)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.lost(&error))),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) {
        while self.written < self.out.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out[self.written..]) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => self.written += bytes,
                Poll::Pending => return,
                // The reader sees the same end, with the daemon's last word before it.
                Poll::Ready(_) => break,
            }
        }
        self.out.clear();
        self.written = 0;
    }

    /// Where the next line ends, if all of it is there.
    fn line_end(&mut self) -> Option<usize> {
        let fresh = self.input.get(self.seen..self.end)?;
        // It looks at many bytes at once, as `position` does not; memory is read without errors.
        let bytes = io::BufRead::skip_until(&mut { fresh }, b'\n').ok()?;
        let ends = fresh.get(..bytes)?.last() == Some(&b'\n');
        self.seen += if ends { bytes - 1 } else { bytes };
        ends.then_some(self.seen)
    }

    /// Makes place for more behind what was read.
    fn make_room(&mut self) -> Result<(), ClientError> {
        if self.start == self.end {
            (self.start, self.seen, self.end) = (0, 0, 0);
        }
        if self.end < self.input.len() {
            return Ok(());
        }
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.seen, self.end) = (self.seen - self.start, self.end - self.start);
            self.start = 0;
        } else if self.input.len() >= LINE_MAX {
            return Err(ClientError::Protocol("a line is too long".to_owned()));
        } else {
            self.input.resize(2 * self.input.len(), 0);
        }
        Ok(())
    }

    fn lost(&self, error: &io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::ConnectionReset => ClientError::Closed,
            _ => ClientError::Io { path: self.path.clone(), why: error.to_string() },
        }
    }
}
