//! The UDP socket as quinn uses it, with fewer calls to the system than quinn's own: it is watched for
//! packets alone, and is not asked for more once a read has brought fewer than it could.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::unix::AsyncFd;

use crate::readiness;

/// Reads bring so many datagrams at most. The system joins those of one sender to one; each has room of its
/// own, which is memory once it was used.
const TOGETHER: usize = 8;
/// Whether a read brings all that there is, up to so many.
const READS_ALL: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// A bound UDP socket.
#[derive(Debug)]
pub(super) struct Socket {
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// The last datagram found no room.
    full: AtomicBool,
}

impl Socket {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Arc<Self>> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Arc::new(Self { io: readiness::watch(socket)?, state, full: AtomicBool::new(false) }))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.state
            .send(self.io.get_ref().into(), transmit)
            .inspect_err(|_| self.full.store(true, Ordering::Relaxed))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let together = bufs.len().min(TOGETHER);
        loop {
            let mut ready = ready!(self.io.poll_read_ready(cx))?;
            let read = self.state.recv(self.io.get_ref().into(), &mut bufs[..together], meta);
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                read => {
                    // There were no more, and what comes after this is told of anew. Elsewhere a read may
                    // bring one where there are several.
                    if READS_ALL && read.as_ref().is_ok_and(|read| *read < together) {
                        ready.clear_ready();
                    } else {
                        ready.retain_ready();
                    }
                    return Poll::Ready(read);
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Waits, for one connection, until the socket has room.
struct Room {
    socket: Arc<Socket>,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() && !self.socket.full.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let socket = Arc::clone(&self.socket);
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(async move { readiness::room(socket.io.get_ref()).await }));
        ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        self.socket.full.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// No test waits longer for what must come.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn bound() -> Arc<Socket> {
        Socket::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap()
    }

    /// What one read brings, as texts.
    async fn read(socket: &Socket) -> Vec<String> {
        let mut buffers = vec![vec![0; 65_536]; 32];
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let mut meta = vec![RecvMeta::default(); 32];
        let come = poll_fn(|cx| socket.poll_recv(cx, &mut slices, &mut meta));
        let count = timeout(PATIENCE, come).await.expect("a datagram in time").unwrap();
        let texts = meta.iter().zip(&buffers).take(count);
        texts.map(|(meta, bytes)| String::from_utf8(bytes[..meta.len].to_vec()).unwrap()).collect()
    }

    #[tokio::test]
    async fn no_datagram_is_left_behind_however_many_come_at_once() {
        let socket = bound();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut next = 0;
        // Fewer than a read brings, as many, more, and each again after all were read.
        for count in [1, TOGETHER - 1, TOGETHER, TOGETHER + 1, 3 * TOGETHER, 1, TOGETHER] {
            let sent: Vec<String> = (next..next + count).map(|n| n.to_string()).collect();
            next += count;
            for text in &sent {
                sender.send_to(text.as_bytes(), socket.local_addr().unwrap()).unwrap();
            }
            let mut came = Vec::new();
            while came.len() < count {
                came.append(&mut read(&socket).await);
            }
            assert_eq!(came, sent);
        }
    }

    #[tokio::test]
    async fn a_connection_waits_for_room_only_when_there_was_none() {
        let socket = bound();
        let mut room = Arc::clone(&socket).create_io_poller();
        let mut at_once =
            async || poll_fn(|cx| Poll::Ready(room.as_mut().poll_writable(cx).is_ready())).await;
        assert!(at_once().await);
        // As after a send that found no room; there is some by now, and it must be told of.
        socket.full.store(true, Ordering::Relaxed);
        assert!(!at_once().await, "the system has not been asked yet");
        let waited = poll_fn(|cx| room.as_mut().poll_writable(cx));
        timeout(PATIENCE, waited).await.expect("room in time").unwrap();
        assert!(!socket.full.load(Ordering::Relaxed));
        let mut at_once =
            async || poll_fn(|cx| Poll::Ready(room.as_mut().poll_writable(cx).is_ready())).await;
        assert!(at_once().await);
    }
}
