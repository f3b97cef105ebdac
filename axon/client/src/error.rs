//! What can go wrong for a client, each with a sentence that says what to do.

use std::io;
use std::path::{Path, PathBuf};

use axon_proto::error::{IpcCode, PeerCode};

/// A failed call.
///
/// ```
/// use axon_client::ClientError;
///
/// let error = ClientError::NoDaemon { path: "/home/ada/.axon/axon.sock".into() };
/// assert!(error.to_string().contains("axon --root /home/ada/.axon daemon"));
/// assert_eq!(error.code(), "no_daemon");
/// assert_eq!(error.exit_code(), 1);
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The daemon refused the command. Codes that this crate does not know stay text.
    #[error("{message}")]
    Ipc {
        /// As in `spec/IPC.md`, "Errors".
        code: String,
        /// What to do about it.
        message: String,
    },
    /// The peer answered, with an `error` envelope.
    #[error("{message}")]
    Peer {
        /// As in `spec/WIRE_FORMAT.md`, "Errors".
        code: String,
        /// What to do instead.
        message: String,
        /// Whether the same request may succeed later.
        retryable: bool,
        /// Who answered.
        from: String,
        /// The request.
        id: String,
    },
    /// The peer does not take the work that it was given.
    #[error("the work is declined: {reason}")]
    Declined {
        /// What it says.
        reason: String,
        /// Who declined.
        from: String,
        /// The delegation.
        id: String,
    },
    /// A stream of messages cannot go on: all that the inbox gives at once was given and is not acknowledged.
    #[error("{rows} messages were given and are not acknowledged: acknowledge them before you read on")]
    NotAcked {
        /// How many.
        rows: usize,
    },
    /// Nobody listens on the socket.
    #[error("{}", nobody(path))]
    NoDaemon {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be opened, read or written.
    #[error("cannot talk to {}: {why}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The daemon closed the connection, or it was closed here.
    #[error("the daemon closed the connection: it has stopped or was restarted, so connect again")]
    Closed,
    /// The daemon has not answered for so long that it never will.
    #[error("the daemon did not answer within {secs} s: see `axon doctor`, or start it again")]
    Stuck {
        /// How long was waited.
        secs: u64,
    },
    /// The daemon said something that is not in the specification.
    #[error("the daemon does not speak as expected ({0}): are `axon` and the daemon of one version?")]
    Protocol(String),
}

impl ClientError {
    /// A short code for programs: the daemon's or the peer's own, or one of `declined not_acked
    /// no_daemon io closed stuck protocol`.
    pub fn code(&self) -> &str {
        match self {
            Self::Ipc { code, .. } | Self::Peer { code, .. } => code,
            Self::Declined { .. } => "declined",
            Self::NotAcked { .. } => "not_acked",
            Self::NoDaemon { .. } => "no_daemon",
            Self::Io { .. } => "io",
            Self::Closed => "closed",
            Self::Stuck { .. } => "stuck",
            Self::Protocol(_) => "protocol",
        }
    }

    /// What a program that fails with this should exit with, as `axon` itself does.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ipc { code, .. } => IpcCode::parse(code).map_or(1, IpcCode::exit_code),
            Self::Peer { code, .. } if PeerCode::parse(code) == Some(PeerCode::Timeout) => 3,
            Self::Peer { .. } | Self::Declined { .. } => 4,
            _ => 1,
        }
    }

    /// Whether the connection is over, so that only a new one can help.
    pub fn ends_connection(&self) -> bool {
        matches!(self, Self::NoDaemon { .. } | Self::Io { .. } | Self::Closed | Self::Protocol(_))
    }

    pub(crate) fn ipc(code: IpcCode, message: impl Into<String>) -> Self {
        Self::Ipc { code: code.as_str().to_owned(), message: message.into() }
    }

    pub(crate) fn open(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Self::NoDaemon { path: path.to_owned() }
            }
            _ => Self::Io { path: path.to_owned(), why: error.to_string() },
        }
    }
}

/// What to do where nobody listens. Who has only a scoped socket cannot start the daemon.
fn nobody(socket: &Path) -> String {
    let dir = socket.parent().unwrap_or(socket);
    let scoped = dir.parent().is_some_and(|above| above.ends_with("sockets"));
    if scoped {
        return format!("nobody listens on {}: its daemon is down, or it was removed", socket.display());
    }
    format!("no daemon runs on {dir}: start one with `axon --root {dir} daemon`", dir = dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_scoped_socket_is_not_told_to_start_a_daemon() {
        let error = |path: &str| ClientError::NoDaemon { path: path.into() }.to_string();
        assert!(error("/r/axon.sock").contains("`axon --root /r daemon`"));
        let scoped = error("/r/sockets/box/axon.sock");
        assert!(scoped.contains("/r/sockets/box/axon.sock") && !scoped.contains("--root"), "{scoped}");
    }
}
