//! Listening sockets: where they are, who may open them, what comes in.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;

use super::IpcEvent;

/// Somebody who has connected and is not a client yet.
#[derive(Debug)]
pub struct Newcomer {
    pub(super) stream: UnixStream,
    /// By which scoped socket.
    pub(super) socket: Option<Arc<str>>,
    /// Whether it has waited for a place.
    pub(super) waited: bool,
    /// Whether another client was closed for it.
    pub(super) has_room: bool,
    /// What so many have that are looked at.
    pub(super) _place: OwnedSemaphorePermit,
}

/// A task that accepts newcomers, until this is dropped.
#[derive(Debug)]
pub(super) struct Listening(AbortHandle);

/// What every such task needs.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) events: mpsc::Sender<IpcEvent>,
    /// How many newcomers may be looked at; the others wait to be accepted.
    pub(super) places: Arc<Semaphore>,
}

impl Listening {
    /// On the main socket.
    pub(super) fn on(path: &Path, door: Door) -> io::Result<Self> {
        remove(path)?;
        // Nobody else gets in between bind and the change of mode: whose a client is, is checked as well.
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self::spawn(listener, None, door))
    }

    fn spawn(listener: UnixListener, socket: Option<Arc<str>>, door: Door) -> Self {
        Self(tokio::spawn(accept(listener, socket, door)).abort_handle())
    }

    /// Takes no more newcomers.
    pub(super) fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A scoped socket. When this is dropped, its file is gone.
#[derive(Debug)]
pub(super) struct Scope {
    /// Its name, the very one that its newcomers carry.
    pub(super) name: Arc<str>,
    /// Who may connect, besides the daemon's own user.
    pub(super) uid: u32,
    pub(super) listening: Listening,
    path: PathBuf,
}

impl Scope {
    pub(super) fn open(name: &str, path: &Path, uid: u32, own_uid: u32, door: Door) -> io::Result<Self> {
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        // Made beside its directory, and moved: the directory may be another user's, who could put a link
        // in the way of what is done to the file.
        let made = dir.parent().unwrap_or(dir).join(format!(".{name}.sock"));
        remove(&made)?;
        let listener = UnixListener::bind(&made)?;
        let placed = admit(&made, dir, uid, own_uid).and_then(|()| std::fs::rename(&made, path));
        if let Err(error) = placed {
            remove(&made)?;
            return Err(error);
        }
        let name: Arc<str> = name.into();
        let listening = Listening::spawn(listener, Some(Arc::clone(&name)), door);
        Ok(Self { name, uid, listening, path: path.to_owned() })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(%error, "the socket {} could not be removed", self.path.display());
        }
    }
}

/// Lets the user open the socket: it alone where the directory is its own, and otherwise anybody, as
/// credentials are checked when somebody connects.
fn admit(socket: &Path, dir: &Path, uid: u32, own_uid: u32) -> io::Result<()> {
    let theirs = std::fs::symlink_metadata(dir)?.uid() == uid;
    let owned = theirs && (uid == own_uid || chown(socket, Some(uid), None).is_ok());
    let mode = if owned { 0o600 } else { 0o666 };
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(mode))
}

/// Removes a socket's file, if there is one.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn accept(listener: UnixListener, socket: Option<Arc<str>>, door: Door) {
    while let Ok(_place) = Arc::clone(&door.places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let socket = socket.clone();
                let newcomer = Newcomer { stream, socket, waited: false, has_room: false, _place };
                if door.events.send(IpcEvent::Up(newcomer)).await.is_err() {
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
