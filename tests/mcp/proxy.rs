//! A way into `axon mcp --http` for programs that cannot show a token.
//!
//! It adds the token, and sends its own address on as that of the server, in `Host` and `Origin`. All else
//! goes through as it is, streams too. One connection carries one request.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The longest head that is read.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A proxy of one server, until it is dropped.
pub struct Proxy {
    addr: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl Proxy {
    /// One on a free port, for the server on that port.
    pub fn start(to: u16, token: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let closed = Arc::new(AtomicBool::new(false));
        let (token, is_closed) = (token.to_owned(), closed.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                if is_closed.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), token) = (client, token.clone()) else { continue };
                // A client or server that goes away ends this one connection.
                thread::spawn(move || carry(client, addr.port(), to, &token));
            }
        });
        Self { addr, closed }
    }

    /// What stands in front of the server.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.addr)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // It waits for somebody.
        TcpStream::connect(self.addr).ok();
    }
}

fn carry(mut client: TcpStream, own: u16, to: u16, token: &str) -> Option<()> {
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(at) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at;
        }
        let more = client.read(&mut chunk).ok().filter(|more| *more > 0)?;
        read.extend_from_slice(chunk.get(..more)?);
        if read.len() > HEAD_BYTES_MAX {
            return None;
        }
    };
    let head = with_token(std::str::from_utf8(read.get(..end)?).ok()?, own, to, token);
    let mut server = TcpStream::connect(("127.0.0.1", to)).ok()?;
    server.set_nodelay(true).ok()?;
    client.set_nodelay(true).ok()?;
    server.write_all(head.as_bytes()).ok()?;
    server.write_all(read.get(end + 4..)?).ok()?;
    let (up_from, up_to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let up = thread::spawn(move || pump(up_from, up_to));
    pump(server, client);
    up.join().ok()
}

/// The head as the server gets it.
fn with_token(head: &str, own: u16, to: u16, token: &str) -> String {
    let mut lines = head.split("\r\n");
    let mut out = format!("{}\r\n", lines.next().unwrap_or_default());
    for line in lines {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let ours = |host: &str| line.ends_with(&format!("{host}:{own}"));
        match name.as_str() {
            "connection" | "authorization" => continue,
            "host" | "origin" if ours("127.0.0.1") || ours("localhost") => {
                out.push_str(&line.replace(&format!(":{own}"), &format!(":{to}")));
            }
            _ => out.push_str(line),
        }
        out.push_str("\r\n");
    }
    format!("{out}Authorization: Bearer {token}\r\nConnection: close\r\n\r\n")
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut chunk = [0; 16384];
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        if to.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    // Whoever still waits at the other ends is told.
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
}
