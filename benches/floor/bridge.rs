//! Bridges between a Unix socket and QUIC: the shape of two daemons, without anything that they do.
//!
//! ```text
//! client ─ socket ─▶ near ─ QUIC ─▶ far ─ socket ─▶ agent, and back
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::lines::{CHUNK, Lines};
use super::plain::runtime;
use super::procs::ready;
use super::quic::{MESSAGE_BYTES_MAX, connect, exchange, listen};
use super::slots::{DIGITS, digits};

/// Lines that wait to be written.
const QUEUE: usize = 256;

/// Lines of a socket, each over a stream of its own; what comes back is written to the socket.
pub fn serve_near(socket: &str, port: u16, folder: &str) {
    runtime().block_on(async {
        let (_endpoint, connection) = connect(port, folder).await;
        let listener = UnixListener::bind(socket).expect("the socket can be made");
        ready(0);
        while let Ok((client, _)) = listener.accept().await {
            let (reader, writer) = client.into_split();
            let (out, queue) = mpsc::channel(QUEUE);
            tokio::spawn(write_lines(writer, queue));
            tokio::spawn(near(reader, out, connection.clone()));
        }
    });
}

async fn near(reader: OwnedReadHalf, out: mpsc::Sender<Vec<u8>>, connection: Connection) {
    let mut reader = BufReader::with_capacity(CHUNK, reader);
    loop {
        let mut line = Vec::with_capacity(512);
        if !reader.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
            return;
        }
        let (connection, out) = (connection.clone(), out.clone());
        tokio::spawn(async move {
            if let Some(answer) = exchange(&connection, &line).await {
                out.send(answer).await.ok();
            }
        });
    }
}

async fn write_lines(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = queue.recv().await {
        if writer.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// The agent of a far bridge, once it is there, and the requests that await their answers.
struct Agent {
    out: mpsc::Sender<Vec<u8>>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// The number given last.
    last: usize,
    answers: HashMap<usize, oneshot::Sender<Vec<u8>>>,
}

impl Agent {
    /// Gives it a message under a number, which it gives back.
    async fn ask(&self, message: &[u8]) -> Option<Vec<u8>> {
        let (answer, answered) = oneshot::channel();
        let number = {
            let mut open = self.open.lock().expect("nobody panics with it");
            open.last = (open.last + 1) % 10_usize.pow(DIGITS as u32);
            let number = open.last;
            open.answers.insert(number, answer);
            number
        };
        let mut line = Vec::with_capacity(DIGITS + message.len());
        line.extend_from_slice(format!("{number:0DIGITS$}").as_bytes());
        line.extend_from_slice(message);
        self.out.send(line).await.ok()?;
        answered.await.ok()
    }
}

/// The other end: each message goes to the agent's socket, its answer back on the stream it came by.
pub fn serve_far(socket: &str, folder: &str) {
    runtime().block_on(async {
        let (listener, endpoint) =
            (UnixListener::bind(socket).expect("the socket can be made"), listen(folder));
        ready(endpoint.local_addr().expect("it listens").port());
        let (reader, writer) = listener.accept().await.expect("an agent comes").0.into_split();
        let (out, queue) = mpsc::channel(QUEUE);
        tokio::spawn(write_lines(writer, queue));
        let agent = Arc::new(Agent { out, open: Mutex::default() });
        tokio::spawn(answers(reader, Arc::clone(&agent)));
        while let Some(incoming) = endpoint.accept().await {
            let agent = Arc::clone(&agent);
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok((send, recv)) = connection.accept_bi().await {
                    tokio::spawn(far(send, recv, Arc::clone(&agent)));
                }
            });
        }
    });
}

async fn far(mut send: SendStream, mut recv: RecvStream, agent: Arc<Agent>) {
    let Ok(message) = recv.read_to_end(MESSAGE_BYTES_MAX).await else { return };
    let Some(answer) = agent.ask(&message).await else { return };
    if send.write_all(&answer).await.is_ok() {
        send.finish().ok();
    }
}

async fn answers(reader: OwnedReadHalf, agent: Arc<Agent>) {
    let mut reader = BufReader::with_capacity(CHUNK, reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        let number = digits(&line).expect("an agent gives back what it got");
        let waiting = agent.open.lock().expect("nobody panics with it").answers.remove(&number);
        waiting.expect("one answer to each").send(line[DIGITS..].to_vec()).ok();
        line.clear();
    }
}

// ---- One long pair of streams -----------------------------------------------------------------------------

/// Lines of a socket as records of one long stream, as many at a time as have come; and back.
pub fn serve_pipe_near(socket: &str, port: u16, folder: &str) {
    runtime().block_on(async {
        let (_endpoint, connection) = connect(port, folder).await;
        let listener = UnixListener::bind(socket).expect("the socket can be made");
        ready(0);
        while let Ok((client, _)) = listener.accept().await {
            let (send, recv) = connection.open_bi().await.expect("the far side takes streams");
            tokio::spawn(both(client, send, recv));
        }
    });
}

/// The other end: records become lines of the agent's socket.
pub fn serve_pipe_far(socket: &str, folder: &str) {
    runtime().block_on(async {
        let (listener, endpoint) =
            (UnixListener::bind(socket).expect("the socket can be made"), listen(folder));
        ready(endpoint.local_addr().expect("it listens").port());
        // An agent connects once for each client of the near side, and is there first.
        let connection = one(&endpoint).await;
        while let Ok((agent, _)) = listener.accept().await {
            let Ok((send, recv)) = connection.accept_bi().await else { return };
            tokio::spawn(both(agent, send, recv));
        }
    });
}

async fn one(endpoint: &Endpoint) -> Connection {
    let incoming = endpoint.accept().await.expect("the near side comes");
    incoming.await.expect("the handshake succeeds")
}

async fn both(socket: UnixStream, send: SendStream, recv: RecvStream) {
    let (reader, writer) = socket.into_split();
    tokio::spawn(to_records(reader, send));
    to_lines(recv, writer).await;
}

async fn to_records(mut reader: OwnedReadHalf, mut send: SendStream) {
    let (mut lines, mut out) = (Lines::default(), Vec::with_capacity(CHUNK));
    while let Ok(read @ 1..) = reader.read(lines.room()).await {
        lines.filled(read);
        while let Some(line) = lines.next() {
            let length = u32::try_from(line.len()).expect("a line is not so long");
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(line);
        }
        if send.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
    }
}

async fn to_lines(mut recv: RecvStream, mut writer: OwnedWriteHalf) {
    let (mut records, mut out) = (Lines::default(), Vec::with_capacity(CHUNK));
    let mut wanted = None;
    while let Ok(Some(read)) = recv.read(records.room()).await {
        records.filled(read);
        loop {
            let length = match wanted {
                Some(length) => length,
                None => {
                    let Some(head) = records.take(4) else { break };
                    let length = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
                    assert!(length <= MESSAGE_BYTES_MAX, "a record of {length} bytes");
                    length
                }
            };
            wanted = Some(length);
            let Some(record) = records.take(length) else { break };
            out.extend_from_slice(record);
            wanted = None;
        }
        if writer.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
    }
}
