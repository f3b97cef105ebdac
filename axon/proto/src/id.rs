//! Names of agents and messages: the Ed25519 public key, the agent id made from it, the message id.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Identity" and "Envelope". All three parse into types that cannot be wrong.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Why a text is no agent id, key or message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// An id of another key type than `ed25519.`.
    #[error("only agent ids that begin with \"ed25519.\" are known")]
    OtherType,
    /// Not 40 characters, or not hexadecimal.
    #[error("an agent id is \"ed25519.\" and 32 hexadecimal digits")]
    Malformed,
    /// Not the base64 text of 32 bytes.
    #[error("a public key is the base64 text of 32 bytes")]
    BadKey,
    /// Not a hyphenated lowercase UUID v4.
    #[error("an id is a hyphenated lowercase UUID v4")]
    BadUuid,
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The key as URL-safe base64 without padding, as in `axon://` links.
    pub fn to_base64url(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The agent id that belongs to this key.
    pub fn agent_id(&self) -> AgentId {
        let digest = Sha256::digest(self.0);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        AgentId(id)
    }
}

impl FromStr for PublicKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| IdError::BadKey)?;
        bytes.try_into().map(Self).map_err(|_| IdError::BadKey)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// `ed25519.` and the lowercase hex of the first 16 bytes of SHA-256 of the public key.
///
/// Compared case-insensitively (it is kept as bytes), printed in lowercase, usable as a TLS server name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(pub [u8; 16]);

impl AgentId {
    /// What every agent id begins with.
    pub const PREFIX: &'static str = "ed25519.";
}

impl FromStr for AgentId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (prefix, hex) = text.split_at_checked(Self::PREFIX.len()).ok_or(IdError::Malformed)?;
        if !prefix.eq_ignore_ascii_case(Self::PREFIX) {
            let typed = text.contains('.');
            return Err(if typed { IdError::OtherType } else { IdError::Malformed });
        }
        unhex(hex).map(Self).ok_or(IdError::Malformed)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id of one envelope: a UUID v4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MsgId(pub [u8; 16]);

impl MsgId {
    /// A UUID v4 made of the given random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }
}

impl FromStr for MsgId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = text.as_bytes();
        let shaped = bytes.len() == 36
            && bytes.iter().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => *byte == b'-',
                14 => *byte == b'4',
                19 => matches!(byte, b'8' | b'9' | b'a' | b'b'),
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        if !shaped {
            return Err(IdError::BadUuid);
        }
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        unhex(&hex).map(Self).ok_or(IdError::BadUuid)
    }
}

impl fmt::Display for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(PublicKey, AgentId, MsgId);

/// Sixteen bytes from 32 hexadecimal digits of either case.
fn unhex(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    if digits.len() != 32 {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_ids_are_derived_compared_and_refused_as_the_spec_says() {
        let id = PublicKey([0; 32]).agent_id();
        // SHA-256 of 32 zero bytes begins 66687aadf862bd776c8fc18b8e9f8e20.
        assert_eq!(id.to_string(), "ed25519.66687aadf862bd776c8fc18b8e9f8e20");
        assert_eq!("ED25519.66687AADF862BD776C8FC18B8E9F8E20".parse(), Ok(id));
        assert_eq!("rsa.66687aadf862bd776c8fc18b8e9f8e20aaaa".parse::<AgentId>(), Err(IdError::OtherType));
        for bad in
            ["", "ed25519", "ed25519.", "ed25519.66", "ed25519.6668 aadf862bd776c8fc18b8e9f8e20", "ed25519.ß"]
        {
            assert_eq!(bad.parse::<AgentId>(), Err(IdError::Malformed), "{bad}");
        }
    }

    #[test]
    fn message_ids_are_strict_uuid_v4() {
        let id = MsgId::from_random([0xff; 16]);
        assert_eq!(id.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-ffff-4fff-bfff-ffffffffffff",
            "ffffffffffff4fffbfffffffffffffff",
            "ffffffff-ffff-1fff-bfff-ffffffffffff",
            "ffffffff-ffff-4fff-cfff-ffffffffffff",
            "ffffffff-ffff-4fff-bfff-fffffffffff",
        ] {
            assert_eq!(bad.parse::<MsgId>(), Err(IdError::BadUuid), "{bad}");
        }
    }

    #[test]
    fn keys_have_two_texts() {
        let key = PublicKey([0xfb; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!(key.to_string().contains('+'));
        assert!(key.to_base64url().contains('-'));
        assert_eq!("AAAA".parse::<PublicKey>(), Err(IdError::BadKey));
    }
}
