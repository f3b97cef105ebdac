//! What can go wrong, one row a code: on the network between peers, and on the socket between client and
//! daemon.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Errors", and `spec/IPC.md`, "Errors". Unknown codes survive as text.

use std::fmt;

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal, $row:expr;)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant),* }
        impl $name {
            /// All codes, in the order of the specification.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The code as it is written on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
            /// The code with this text.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        codes!(@row $name $($variant $row)*);
    };
    (@row PeerCode $($variant:ident $row:expr)*) => {
        impl PeerCode {
            /// Whether the same request may succeed later, unchanged.
            pub fn retryable(self) -> bool {
                match self { $(Self::$variant => $row),* }
            }
        }
    };
    (@row IpcCode $($variant:ident $row:expr)*) => {
        impl IpcCode {
            /// The exit code that a command line tool gives for it.
            pub fn exit_code(self) -> u8 {
                match self { $(Self::$variant => $row),* }
            }
        }
    };
}

codes! {
    /// Codes of the `error` kind between peers; the second column is `retryable`.
    PeerCode {
        /// The sender may not do this.
        NotAuthorized = "not_authorized", false;
        /// Agents are attached, but none serves this domain.
        UnknownDomain = "unknown_domain", false;
        /// No capacity now.
        Overloaded = "overloaded", true;
        /// A fault of the answering side.
        Internal = "internal", true;
        /// The deadline passed.
        Timeout = "timeout", true;
        /// The work was cancelled.
        Cancelled = "cancelled", false;
        /// No protocol version in common, or an id of another type.
        IncompatibleVersion = "incompatible_version", false;
        /// The kind of a request is not known here.
        UnknownKind = "unknown_kind", false;
        /// `to` is not this agent.
        PeerNotFound = "peer_not_found", false;
        /// A field is missing or malformed.
        InvalidEnvelope = "invalid_envelope", false;
        /// No agent is attached to answer.
        Unhandled = "unhandled", true;
    }
}

codes! {
    /// Codes of a failed IPC command; the second column is the exit code of the command line.
    IpcCode {
        /// A v2 command came before `hello`.
        HelloRequired = "hello_required", 1;
        /// The client's version is not served.
        UnsupportedVersion = "unsupported_version", 1;
        /// A token must be shown first.
        AuthRequired = "auth_required", 1;
        /// The token was wrong.
        AuthFailed = "auth_failed", 1;
        /// The line is no command, or a field of it is wrong.
        InvalidCommand = "invalid_command", 2;
        /// `ack` past what was delivered.
        AckOutOfRange = "ack_out_of_range", 2;
        /// No peer of that id, prefix or name.
        PeerNotFound = "peer_not_found", 5;
        /// The peer cannot be reached.
        PeerUnreachable = "peer_unreachable", 5;
        /// A fault of this daemon.
        InternalError = "internal_error", 1;
        /// No answer before the deadline.
        Timeout = "timeout", 3;
        /// The message is addressed to its own sender.
        SelfSend = "self_send", 2;
        /// The command line is longer than a command may be.
        CommandTooLarge = "command_too_large", 2;
        /// The envelope would be longer than a message may be.
        MessageTooLarge = "message_too_large", 2;
        /// All client places are taken.
        TooManyClients = "too_many_clients", 1;
        /// The client does not keep up with its events.
        SlowConsumer = "slow_consumer", 1;
        /// No agent is attached to answer.
        Unhandled = "unhandled", 4;
        /// Not allowed.
        NotAuthorized = "not_authorized", 4;
        /// The peer does not offer this kind.
        NotOffered = "not_offered", 4;
        /// No such request, delegation or message.
        NotFound = "not_found", 2;
        /// The request has been answered.
        AlreadyAnswered = "already_answered", 2;
        /// A bound of this daemon is reached.
        Overloaded = "overloaded", 1;
    }
}

/// A failed command: a code, and one sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct IpcError {
    /// What happened.
    pub code: IpcCode,
    /// What to do about it.
    pub message: String,
}

impl IpcError {
    /// An error with this code and sentence.
    pub fn new(code: IpcCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The code most used: the line or a field of it is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(IpcCode::InvalidCommand, message)
    }
}

/// A refusal that goes to a peer: a code, and one sentence that says what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// What happened.
    pub code: PeerCode,
    /// What to do instead.
    pub message: String,
    /// When it may be tried again, where that is known.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// A refusal with this code and sentence.
    pub fn new(code: PeerCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }

    /// The same, with the time after which to try again.
    pub fn after(self, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_parse_to_themselves() {
        for code in PeerCode::ALL {
            assert_eq!(PeerCode::parse(code.as_str()), Some(*code));
        }
        for code in IpcCode::ALL {
            assert_eq!(IpcCode::parse(code.as_str()), Some(*code));
            assert!((1..=5).contains(&code.exit_code()));
        }
        assert_eq!(PeerCode::parse("new_code"), None);
    }
}
