//! Names of agents and messages: the Ed25519 public key, the agent id made from it, the message id.
//!
//! Source: `spec/WIRE_FORMAT.md`, "Identity" and "Envelope". All three parse into types that cannot be wrong.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::de::Visitor;
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
        let bytes = STANDARD.decode(text).map_err(|_| IdError::BadKey)?;
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentId(pub [u8; 16]);

impl AgentId {
    /// What every agent id begins with.
    pub const PREFIX: &'static str = "ed25519.";

    /// Does something with the id as text, which is written without an allocation.
    pub fn with_text<T>(&self, work: impl FnOnce(&str) -> T) -> T {
        const DIGITS_AT: usize = AgentId::PREFIX.len();
        let mut text = [0; DIGITS_AT + 32];
        text[..DIGITS_AT].copy_from_slice(Self::PREFIX.as_bytes());
        text[DIGITS_AT..].copy_from_slice(&hex(self.0));
        work(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl FromStr for AgentId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let typed = text.split_at_checked(Self::PREFIX.len());
        match typed.filter(|(prefix, _)| prefix.eq_ignore_ascii_case(Self::PREFIX)) {
            Some((_, hex)) => unhex(hex.as_bytes()).map(Self).ok_or(IdError::Malformed),
            // What stands before the first dot is its type, however much follows.
            None if text.contains('.') => Err(IdError::OtherType),
            None => Err(IdError::Malformed),
        }
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id of one envelope: a UUID v4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MsgId(pub [u8; 16]);

impl MsgId {
    /// A UUID v4 made of the given random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// Does something with the id as text, which is written without an allocation.
    pub fn with_text<T>(&self, work: impl FnOnce(&str) -> T) -> T {
        let digits = hex(self.0);
        let mut text = [b'-'; 36];
        text[..8].copy_from_slice(&digits[..8]);
        text[9..13].copy_from_slice(&digits[8..12]);
        text[14..18].copy_from_slice(&digits[12..16]);
        text[19..23].copy_from_slice(&digits[16..20]);
        text[24..].copy_from_slice(&digits[20..]);
        work(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl FromStr for MsgId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let text = text.as_bytes();
        let hyphens = |at: &usize| text.get(*at) == Some(&b'-');
        // Lowercase, version 4, and the variant that goes with it.
        let v4 = text.get(14) == Some(&b'4') && matches!(text.get(19), Some(b'8' | b'9' | b'a' | b'b'));
        if text.len() != 36 || !v4 || ![8, 13, 18, 23].iter().all(hyphens) {
            return Err(IdError::BadUuid);
        }
        let mut digits = [0; 32];
        digits[..8].copy_from_slice(&text[..8]);
        digits[8..12].copy_from_slice(&text[9..13]);
        digits[12..16].copy_from_slice(&text[14..18]);
        digits[16..20].copy_from_slice(&text[19..23]);
        digits[20..].copy_from_slice(&text[24..]);
        if digits.iter().any(u8::is_ascii_uppercase) {
            return Err(IdError::BadUuid);
        }
        unhex(&digits).map(Self).ok_or(IdError::BadUuid)
    }
}

impl fmt::Display for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl fmt::Debug for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Ids are chosen by others, so that tables hash them with a key; they are of one length, so that it need not
/// be hashed with them.
macro_rules! hash_as_number {
    ($($name:ty),*) => {$(
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                state.write_u128(u128::from_ne_bytes(self.0));
            }
        }
    )*};
}
hash_as_number!(AgentId, MsgId);

macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_str(Parsed(PhantomData))
            }
        }
    )*};
}
serde_as_text!(PublicKey, AgentId, MsgId);

/// Parses a text where it lies.
struct Parsed<T>(PhantomData<T>);

impl<T: FromStr<Err = IdError>> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Sixteen bytes as 32 lowercase digits.
fn hex(bytes: [u8; 16]) -> [u8; 32] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut digits = [0; 32];
    for (digits, four) in digits.chunks_exact_mut(8).zip(bytes.chunks_exact(4)) {
        // Eight digits at once: each half of a byte goes into a byte of its own, the upper half first.
        let four = four.iter().rev().fold(0, |four, byte| four << 16 | u64::from(*byte));
        let halves = (four >> 4 | four << 8) & (ONES * 0x0f);
        // Of the letters, and of them only, adding 6 makes more than 15.
        let letters = (halves + ONES * 6) >> 4 & ONES;
        let text = halves + ONES * u64::from(b'0') + letters * u64::from(b'a' - b'0' - 10);
        digits.copy_from_slice(&text.to_le_bytes());
    }
    digits
}

/// What each byte is worth as a hexadecimal digit of either case; more than 15: it is none.
static DIGITS: [u8; 256] = {
    let mut digits = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        let digit = b"0123456789abcdef"[value as usize];
        digits[digit as usize] = value;
        digits[digit.to_ascii_uppercase() as usize] = value;
        value += 1;
    }
    digits
};

/// Sixteen bytes from 32 hexadecimal digits of either case. By a table: the same by arithmetic on eight
/// digits at once is miscompiled by rustc 1.95 at `opt-level = 3` with overflow checks, as the fuzzers found.
fn unhex(digits: &[u8]) -> Option<[u8; 16]> {
    if digits.len() != 32 {
        return None;
    }
    let (mut bytes, mut all) = ([0; 16], 0);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
        all |= high | low;
        *byte = high << 4 | low & 15;
    }
    (all < 16).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_digit_is_read_and_nothing_else_is_one() {
        for (at, byte) in (0..32).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
            let mut digits = *b"0123456789abcdefABCDEF9876543210";
            digits[at] = byte;
            let text: String = digits.iter().map(|digit| char::from(*digit)).collect();
            let value = u128::from_str_radix(&text, 16).ok().filter(|_| byte != b'+');
            let read = unhex(&digits).map(u128::from_be_bytes);
            assert_eq!(read, value, "{text}");
        }
        assert_eq!((unhex(&[b'f'; 32]), unhex(&[b'F'; 32])), (Some([255; 16]), Some([255; 16])));
        assert_eq!((unhex(&[b'0'; 31]), unhex(&[b'0'; 33])), (None, None));
    }

    // shows: WF-ID-1, WF-ID-2
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
            "ffffffff-ffff-4fff-bfff-ffffffffffff0",
            "ffffffff-ffff-4fff-bfff-fffffffffffg",
            "ffffffff-ffff-4fff-Bfff-ffffffffffff",
            "ffffffff-ffff-4fff-bfff-ffffffffffF0",
            "fffffffff-fff-4fff-bfff-ffffffffffff",
            "ffffffff-ffff-4fff-bfff-fffffffffff\u{e9}",
        ] {
            assert_eq!(bad.parse::<MsgId>(), Err(IdError::BadUuid), "{bad}");
        }
    }

    #[test]
    fn every_byte_has_its_two_digits() {
        for byte in 0..=u8::MAX {
            let mut bytes = [0x5a; 16];
            bytes[usize::from(byte) % 16] = byte;
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex(bytes), *text.as_bytes());
            assert_eq!(unhex(text.to_uppercase().as_bytes()), Some(bytes));
        }
        assert_eq!(unhex(&[b'0'; 31]), None);
        for wrong in ["/0", "0:", "@a", "G0", "0`", "g0", " 0", "+1", "\u{e9}"] {
            assert_eq!(unhex(wrong.repeat(16).as_bytes()), None, "{wrong}");
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

    #[test]
    fn in_a_log_they_are_as_they_are_written_and_nothing_else_is_taken_for_one() {
        let (key, id) = (PublicKey([1; 32]), MsgId::from_random([2; 16]));
        let said = format!("{key:?} {:?} {id:?}", key.agent_id());
        for text in [key.to_string(), key.agent_id().to_string(), id.to_string()] {
            assert!(said.contains(&text), "{text}: {said}");
        }
        let wrong = serde_json::from_str::<AgentId>("5").unwrap_err();
        assert!(wrong.to_string().contains("expected a string"), "{wrong}");
    }
}
