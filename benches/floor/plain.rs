//! A newline request and its reply over a Unix socket, with nothing in between: threads, and tokio.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::figures::{Figures, Seen};
use super::lines::CHUNK;
use super::procs::{ready, used_here_ns, used_ns};
use super::slots::line;

/// The runtime of every role: one thread, as the daemon has.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts")
}

/// Threads: one for each connection.
pub fn serve_std(socket: &str) {
    let listener = UnixListener::bind(socket).expect("the socket can be made");
    ready(0);
    for stream in listener.incoming() {
        let mut writer = stream.expect("a client connects");
        let reader = writer.try_clone().expect("a socket can be used twice");
        std::thread::spawn(move || {
            let mut reader = BufReader::with_capacity(CHUNK, reader);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                if writer.write_all(&line).is_err() {
                    return;
                }
                line.clear();
            }
        });
    }
}

/// Its client: a thread writes, another reads, a write for each message.
pub fn ask_std(socket: &Path, size: usize, in_flight: usize, time: Duration, pids: &[u32]) -> Figures {
    let stream = UnixStream::connect(socket).expect("the server listens");
    let mut reader = BufReader::with_capacity(CHUNK, stream.try_clone().expect("a socket can be used twice"));
    let mut writer = stream;
    let message = line(0, size);
    let mut line = Vec::new();
    if in_flight == 1 {
        let mut run = |time: Duration, pids: &[u32]| {
            let mut seen = Seen::begin(used_here_ns() + used_ns(pids));
            while seen.elapsed() < time {
                let began = Instant::now();
                writer.write_all(&message).expect("the server reads");
                line.clear();
                reader.read_until(b'\n', &mut line).expect("the server answers");
                seen.add(began.elapsed());
            }
            seen
        };
        run(time / 10, &[]);
        return run(time, pids).end(used_here_ns() + used_ns(pids));
    }
    let mut run = |time: Duration, pids: &[u32]| {
        let mut seen = Seen::begin(used_here_ns() + used_ns(pids));
        // One is with the writer.
        let (sent, times) = mpsc::sync_channel::<Instant>(in_flight - 1);
        let (writer, message) = (&mut writer, &message);
        let helper = std::thread::scope(|scope| {
            let writing = scope.spawn(move || {
                let began = Instant::now();
                while began.elapsed() < time {
                    sent.send(Instant::now()).expect("the reader reads on");
                    writer.write_all(message).expect("the server reads");
                }
                used_here_ns()
            });
            for began in times {
                line.clear();
                reader.read_until(b'\n', &mut line).expect("the server answers");
                seen.add(began.elapsed());
            }
            writing.join().expect("the writer ends")
        });
        (seen, helper)
    };
    run(time / 10, &[]);
    let (seen, helper) = run(time, pids);
    seen.end(helper + used_here_ns() + used_ns(pids))
}

/// tokio: a task for each connection.
pub fn serve_tokio(socket: &str) {
    runtime().block_on(async {
        let listener = tokio::net::UnixListener::bind(socket).expect("the socket can be made");
        ready(0);
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (reader, writer) = stream.into_split();
                echo_lines(reader, writer).await;
            });
        }
    });
}

/// Gives back each line, a write for each.
pub async fn echo_lines(reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin) {
    let mut reader = tokio::io::BufReader::with_capacity(CHUNK, reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        if writer.write_all(&line).await.is_err() {
            return;
        }
        line.clear();
    }
}

/// The client of whatever gives lines back in order: a task writes, another reads, a write for each message.
pub async fn ask_lines(
    reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    size: usize,
    in_flight: usize,
    time: Duration,
    pids: &[u32],
) -> Figures {
    let mut reader = tokio::io::BufReader::with_capacity(CHUNK, reader);
    let message = line(0, size);
    let mut figures = None;
    for (time, pids) in [(time / 10, &[][..]), (time, pids)] {
        let room = tokio::sync::Semaphore::new(in_flight);
        let times = RefCell::new(VecDeque::with_capacity(in_flight));
        let total = Cell::new(u64::MAX);
        let mut seen = Seen::begin(used_here_ns() + used_ns(pids));
        let began = Instant::now();
        let writing = async {
            for number in 1.. {
                room.acquire().await.expect("it stays open").forget();
                // Told before the last one leaves, so that the reader is not left waiting.
                if began.elapsed() >= time {
                    total.set(number);
                }
                times.borrow_mut().push_back(Instant::now());
                writer.write_all(&message).await.expect("the server reads");
                if total.get() == number {
                    return;
                }
            }
        };
        let reading = async {
            let (mut line, mut read) = (Vec::new(), 0);
            while read < total.get() {
                let got = reader.read_until(b'\n', &mut line).await.expect("the server answers");
                assert!(got > 0, "the server closed the connection");
                let sent: Option<Instant> = times.borrow_mut().pop_front();
                seen.add(sent.expect("it was sent").elapsed());
                line.clear();
                read += 1;
                room.add_permits(1);
            }
        };
        tokio::join!(writing, reading);
        figures = Some(seen.end(used_here_ns() + used_ns(pids)));
    }
    figures.expect("it was measured twice")
}

/// The client of `serve_tokio` and of the bridges that keep the order.
pub fn ask_tokio(socket: &Path, size: usize, in_flight: usize, time: Duration, pids: &[u32]) -> Figures {
    runtime().block_on(async {
        let stream = tokio::net::UnixStream::connect(socket).await.expect("the server listens");
        let (reader, writer) = stream.into_split();
        ask_lines(reader, writer, size, in_flight, time, pids).await
    })
}
