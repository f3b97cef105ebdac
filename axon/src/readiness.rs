//! Sockets that are watched for what comes, and for room to write only while somebody waits for it.
//!
//! tokio watches its sockets for both from the beginning. The system then wakes the daemon also when what it
//! has written leaves, or is read: once for each packet and for each line, and nobody waits for it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Without a descriptor to spare a write is tried again after this.
const TRY_AGAIN: Duration = Duration::from_millis(1);

/// Watches a socket for what comes. It must not block.
pub fn watch<T: AsFd + AsRawFd>(socket: T) -> io::Result<AsyncFd<T>> {
    register(socket, Interest::READABLE)
}

/// Waits until the socket may have room for what is written to it. Ask for it when a write has found none.
pub async fn room(socket: &impl AsFd) {
    // A descriptor of its own: each can be watched once.
    let own = socket.as_fd().try_clone_to_owned();
    let watched = own.and_then(|own: OwnedFd| register(own, Interest::WRITABLE));
    match watched {
        Ok(watched) => drop(watched.writable().await),
        Err(_) => tokio::time::sleep(TRY_AGAIN).await,
    }
}

#[expect(deprecated, reason = "what replaces it is unsafe, for types that lie about their descriptor")]
fn register<T: AsFd + AsRawFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(socket, interest)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// No test waits longer for what must come.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn room_is_told_of_once_the_other_end_has_read() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        timeout(PATIENCE, room(&ours)).await.expect("there is room");
        let mut written = 0;
        while let Ok(more) = ours.write(&[0; 4_096]) {
            written += more;
        }
        assert_eq!(ours.write(&[0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        {
            let mut waiting = std::pin::pin!(room(&ours));
            assert!(timeout(Duration::from_millis(20), &mut waiting).await.is_err(), "nothing was read");
            theirs.read_exact(&mut vec![0; written]).unwrap();
            timeout(PATIENCE, &mut waiting).await.expect("all was read");
        }
        ours.write_all(&[0]).unwrap();
    }

    #[tokio::test]
    async fn what_comes_is_told_of_while_room_is_waited_for() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        while ours.write(&[0; 4_096]).is_ok() {}
        let watched = watch(ours).unwrap();
        let waiting = room(watched.get_ref());
        tokio::pin!(waiting);
        assert!(timeout(Duration::from_millis(20), &mut waiting).await.is_err());
        theirs.write_all(b"x").unwrap();
        let mut ready = timeout(PATIENCE, watched.readable()).await.expect("a byte came").unwrap();
        let mut byte = [0];
        assert_eq!(ready.try_io(|socket| socket.get_ref().read(&mut byte)).unwrap().unwrap(), 1);
        assert!(timeout(Duration::from_millis(20), &mut waiting).await.is_err(), "there is still no room");
    }
}
