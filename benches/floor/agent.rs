//! Agents that answer as cheaply as can be: answers made beforehand, one write for all that one read brought.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use super::lines::Lines;
use super::procs::ready;

/// Gives back each line as it came.
pub fn echo(socket: &str) {
    let mut stream = UnixStream::connect(socket).expect("the bridge listens");
    let mut lines = Lines::default();
    let mut out = Vec::new();
    ready(0);
    while lines.read(&mut stream).is_ok_and(|more| more) {
        while let Some(line) = lines.next() {
            out.extend_from_slice(line);
        }
        if stream.write_all(&out).is_err() {
            return;
        }
        out.clear();
    }
}

/// The same at an axon daemon: answers every query with a payload of this many bytes.
pub fn answer(socket: &str, bytes: usize) {
    let head = b"{\"cmd\":\"reply\",\"req_id\":\"r\",\"quiet\":true,\"ref\":\"";
    let around = "{\"data\":null,\"summary\":\"\"}".len();
    let text = "x".repeat(bytes.saturating_sub(around));
    let tail = format!("\",\"kind\":\"response\",\"payload\":{{\"data\":null,\"summary\":\"{text}\"}}}}\n");
    let asks = "\"answer\":[\"query\"],\"capacity\":1024";
    attached(socket, asks, |lines, out| {
        while let Some(line) = lines.next() {
            if said(line) {
                continue;
            }
            let Some(id) = field(line, b"\"id\":\"").and_then(|id| id.get(..36)) else { continue };
            out.extend_from_slice(head);
            out.extend_from_slice(id);
            out.extend_from_slice(tail.as_bytes());
        }
    });
}

/// A consumer that reads notifications and acks once for all that one read brought. When it falls behind, it
/// catches up by `inbox`, as the daemon asks.
pub fn read(socket: &str) {
    attached(socket, "\"kinds\":[\"notify\"],\"replay\":false", |lines, out| {
        let (mut last, mut behind) = (None, false);
        while let Some(line) = lines.next() {
            if line.starts_with(b"{\"event\":\"slow_consumer\"") {
                behind = true;
            } else if !said(line) {
                last = field(line, b"\"seq\":").and_then(number).or(last);
            } else if let Some(next) = field(line, b"\"next_seq\":") {
                last = number(next).or(last);
                behind |= field(line, b"\"has_more\":true").is_some();
            }
        }
        if let Some(last) = last {
            let ack = format!("{{\"cmd\":\"ack\",\"req_id\":\"a\",\"up_to_seq\":{last}}}\n");
            out.extend_from_slice(ack.as_bytes());
        }
        if behind {
            out.extend_from_slice(b"{\"cmd\":\"inbox\",\"req_id\":\"i\",\"limit\":1000}\n");
        }
    });
}

/// A client that subscribes so, and is ready then; `each` looks at the lines that one read brought.
fn attached(socket: &str, asks: &str, mut each: impl FnMut(&mut Lines, &mut Vec<u8>)) {
    let mut stream = UnixStream::connect(socket).expect("the daemon listens");
    let mut lines = Lines::default();
    for command in [
        "{\"cmd\":\"hello\",\"req_id\":\"h\",\"version\":2}\n".to_owned(),
        format!("{{\"cmd\":\"subscribe\",\"req_id\":\"s\",{asks}}}\n"),
    ] {
        stream.write_all(command.as_bytes()).expect("the daemon reads");
        while !lines.next().is_some_and(said) {
            assert!(lines.read(&mut stream).is_ok_and(|more| more), "no reply to {command}");
        }
    }
    ready(0);
    let mut out = Vec::new();
    loop {
        each(&mut lines, &mut out);
        if stream.write_all(&out).is_err() {
            return;
        }
        out.clear();
        if !lines.read(&mut stream).is_ok_and(|more| more) {
            return;
        }
    }
}

/// Whether it is a reply; one that says no ends this process.
fn said(line: &[u8]) -> bool {
    let reply = line.starts_with(b"{\"ok\":");
    assert!(!reply || line.starts_with(b"{\"ok\":true"), "refused: {}", String::from_utf8_lossy(line));
    reply
}

/// What follows the first of this in the line.
fn field<'a>(line: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    let at = line.windows(mark.len()).position(|part| part == mark)?;
    line.get(at + mark.len()..)
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(text.get(..digits)?).ok()?.parse().ok()
}
