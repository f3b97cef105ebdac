//! Why a connection failed or ended, in a sentence for a person.

use quinn::{ConnectError, ConnectionError};

/// TLS alerts (RFC 8446, 6) by number.
mod alert {
    pub(super) const HANDSHAKE_FAILURE: u8 = 40;
    pub(super) const ACCESS_DENIED: u8 = 49;
    pub(super) const UNRECOGNIZED_NAME: u8 = 112;
    pub(super) const NO_APPLICATION_PROTOCOL: u8 = 120;
    /// `bad_certificate` to `unknown_ca`, and `certificate_required`.
    pub(super) fn about_certificate(code: u8) -> bool {
        matches!(code, 41..=46 | 48 | 116)
    }
}

/// Longest part of a peer's own words that is passed on, in characters.
const REASON_CHARS_MAX: usize = 120;

/// Why an attempt could not even begin.
pub(super) fn not_begun(error: &ConnectError) -> String {
    match error {
        ConnectError::EndpointStopping => "this daemon is stopping".into(),
        ConnectError::InvalidRemoteAddress(addr) if addr.port() == 0 => "port 0 is no port".into(),
        ConnectError::InvalidRemoteAddress(_) => "this daemon listens on no address of that kind".into(),
        other => other.to_string(),
    }
}

/// Why a handshake that we began failed, or why a connection ended.
pub(super) fn ended(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TransportError(found) => match crypto(u64::from(found.code)) {
            Some(code) if alert::about_certificate(code) || code == alert::ACCESS_DENIED => {
                "another key answers there than the one we know for this agent id".into()
            }
            Some(alert::NO_APPLICATION_PROTOCOL) => "the other side does not speak axon/1".into(),
            _ => format!("the other side broke the protocol ({})", clean(&found.to_string())),
        },
        ConnectionError::ConnectionClosed(close) => match crypto(u64::from(close.error_code)) {
            Some(code) if alert::about_certificate(code) => {
                "the peer refused our key: pair with `axon invite` there and `axon connect` here".into()
            }
            Some(alert::ACCESS_DENIED | alert::UNRECOGNIZED_NAME) => {
                "another agent answers there: do its agent id and address belong together?".into()
            }
            Some(alert::NO_APPLICATION_PROTOCOL) => "the other side does not speak axon/1".into(),
            Some(alert::HANDSHAKE_FAILURE) => {
                "the other side has no key exchange or key type in common".into()
            }
            _ if u64::from(close.error_code) == 2 => "the peer takes no new connections now".into(),
            _ => format!("the peer closed the connection ({})", clean(&close.to_string())),
        },
        ConnectionError::ApplicationClosed(close) => {
            let reason = clean(&String::from_utf8_lossy(&close.reason));
            let why = match close.error_code.into_inner() {
                0 => "the peer closed the connection",
                1 => "the peer has no room for another connection",
                2 => "the peer keeps another connection with us",
                4 => "the peer says we broke the protocol",
                5 => "the peer is shutting down",
                _ => "the peer closed the connection with an unknown code",
            };
            if reason.is_empty() { why.into() } else { format!("{why} ({reason})") }
        }
        ConnectionError::TimedOut => "the peer has fallen silent".into(),
        ConnectionError::Reset => "the peer was restarted and has lost the connection".into(),
        ConnectionError::LocallyClosed => "this daemon closed the connection".into(),
        ConnectionError::VersionMismatch => "the other side speaks no QUIC version in common".into(),
        ConnectionError::CidsExhausted => "no connection ids are left".into(),
    }
}

/// The TLS alert in a QUIC error code, if it carries one (RFC 9001, 4.8).
fn crypto(code: u64) -> Option<u8> {
    code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

/// A peer's words, without what could upset a terminal or a log.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_words_are_cut_and_cleaned() {
        let close = quinn::ApplicationClose {
            error_code: quinn::VarInt::from_u32(1),
            reason: format!("\u{1b}[2J{}", "x".repeat(500)).into_bytes().into(),
        };
        let text = ended(&ConnectionError::ApplicationClosed(close));
        assert!(text.starts_with("the peer has no room for another connection ([2Jxxx"), "{text}");
        assert!(text.chars().count() < 200 && !text.contains('\u{1b}'));
    }
}
