//! Invites: the link that pairs two agents, its secret, and the proof of it.
//!
//! Source: `spec/kinds/pairing.md`. The secret never travels: what is sent is bound to both keys and to this
//! very connection, so that it is of no use to whoever passes it on.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::id::PublicKey;
use crate::limits::{ADDRS_PER_PEER_MAX, LINK_BYTES_MAX};

/// What every link begins with.
const SCHEME: &str = "axon://";
/// Bytes of a secret.
pub const SECRET_BYTES: usize = 16;
/// Bytes of an invite's id.
const ID_BYTES: usize = 8;

/// `axon://<base64url key>@host:port[?k=<secret>][&a=host:port…]`
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    /// Whom it leads to.
    pub key: PublicKey,
    /// Where, best first; at least one.
    pub addrs: Vec<String>,
    /// What pairs without a word from its owner.
    pub secret: Option<Secret>,
}

/// Why a text is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not `axon://…`.
    #[error("a link is axon://<key>@<host>:<port>: copy the whole line that `axon invite` printed there")]
    Shape,
    /// Not a key.
    #[error("the key in this link is not the base64url text of 32 bytes: copy the link again")]
    Key,
    /// Not a secret.
    #[error("the secret in this link (after `k=`) is cut or mistyped: copy the link again")]
    Secret,
    /// Not an address.
    #[error("an address in this link is not host:port: copy the link again")]
    Addr,
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.len() > LINK_BYTES_MAX {
            return Err(LinkError::Shape);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(LinkError::Shape)?;
        let (before, query) = match rest.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (rest, None),
        };
        let (key, addr) = before.split_once('@').ok_or(LinkError::Shape)?;
        let key = decoded::<32>(key).map(PublicKey).ok_or(LinkError::Key)?;
        let mut link =
            Self { key, addrs: vec![addr.strip_suffix('/').unwrap_or(addr).to_owned()], secret: None };
        for pair in query.into_iter().flat_map(|query| query.split('&')) {
            match pair.split_once('=').ok_or(LinkError::Shape)? {
                ("k", secret) => {
                    link.secret = Some(decoded(secret).map(Secret).ok_or(LinkError::Secret)?);
                }
                ("a", addr) => link.addrs.push(addr.to_owned()),
                // A later version's.
                _ => {}
            }
        }
        if !link.addrs.iter().all(|addr| is_addr(addr)) {
            return Err(LinkError::Addr);
        }
        link.addrs.truncate(ADDRS_PER_PEER_MAX);
        Ok(link)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.addrs.first().map_or("", String::as_str);
        write!(f, "{SCHEME}{}@{first}", self.key.to_base64url())?;
        let mut mark = '?';
        if let Some(secret) = &self.secret {
            write!(f, "{mark}k={}", URL_SAFE_NO_PAD.encode(secret.0))?;
            mark = '&';
        }
        for addr in self.addrs.iter().skip(1) {
            write!(f, "{mark}a={addr}")?;
            mark = '&';
        }
        Ok(())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("key", &self.key).field("addrs", &self.addrs).finish_non_exhaustive()
    }
}

/// The secret of an invite.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; SECRET_BYTES]);

impl Secret {
    /// What the inviting side keeps of it, and by which id it is called.
    pub fn key(&self) -> (InviteId, InviteKey) {
        let hash = |label: &[u8]| Sha256::new().chain_update(label).chain_update(self.0).finalize();
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&hash(b"axon/1 invite id")[..ID_BYTES]);
        (InviteId(id), InviteKey(hash(b"axon/1 invite key").into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What an invite is called; tells nothing of its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InviteId(pub [u8; ID_BYTES]);

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for InviteId {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        hex(text).map(Self).ok_or(())
    }
}

/// What an invite is proven with.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteKey(pub [u8; 32]);

impl fmt::Debug for InviteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteKey(..)")
    }
}

impl InviteKey {
    /// The proof of who knocks with this key, at whom, on which connection.
    pub fn proof(&self, knocker: &PublicKey, host: &PublicKey, binding: &[u8; 32]) -> String {
        hexed(&self.mac(knocker, host, binding).finalize().into_bytes())
    }

    /// Whether a proof is that.
    pub fn proves(&self, proof: &str, knocker: &PublicKey, host: &PublicKey, binding: &[u8; 32]) -> bool {
        let mac = self.mac(knocker, host, binding);
        hex::<32>(proof).is_some_and(|proof| mac.verify_slice(&proof).is_ok())
    }

    fn mac(&self, knocker: &PublicKey, host: &PublicKey, binding: &[u8; 32]) -> Hmac<Sha256> {
        let parts: [&[u8]; 4] = [b"axon/1 knock", &knocker.0, &host.0, binding];
        // The library takes a key of a whole block: a shorter one is filled up with zeros (RFC 2104, 2).
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.0);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

/// Whether a text has the form of `host:port`.
pub fn is_addr(text: &str) -> bool {
    if let Ok(addr) = text.parse::<std::net::SocketAddr>() {
        return addr.port() != 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let fits = (1..=253).contains(&host.len()) && host.bytes().all(letters);
    // A number as Rust reads it may have a sign.
    let number = port.bytes().all(|byte| byte.is_ascii_digit());
    fits && number && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Lowercase hexadecimal.
pub fn hexed(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// Bytes from hexadecimal.
pub fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn decoded<const N: usize>(text: &str) -> Option<[u8; N]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_they_are_written() {
        let link = Link {
            key: PublicKey([7; 32]),
            addrs: vec!["host-a:7100".into(), "[::1]:7101".into()],
            secret: Some(Secret([9; 16])),
        };
        let text = link.to_string();
        assert!(text.starts_with("axon://BwcH") && text.contains("@host-a:7100?k=CQkJ"), "{text}");
        assert!(text.ends_with("&a=[::1]:7101"));
        assert_eq!(text.parse(), Ok(link.clone()));
        let said = format!("{link:?} {:?} {:?}", Secret([9; 16]), Secret([9; 16]).key().1);
        assert!(said.contains("host-a:7100"), "what is no secret is: {said}");
        assert!(said.contains("Secret(..)") && said.contains("InviteKey(..)"), "{said}");
        assert!(!said.contains("CQkJ") && !said.contains("9, 9"), "a secret is in no log: {said}");
        let pinned = Link { secret: None, ..link };
        assert_eq!(pinned.to_string().parse(), Ok(pinned.clone()));
        assert_eq!(format!("{pinned}&later=1").parse(), Ok(pinned));
        for (bad, why) in [
            ("", LinkError::Shape),
            ("http://x", LinkError::Shape),
            ("axon://abc", LinkError::Shape),
            ("axon://abc@host:1", LinkError::Key),
            (&text.replace("?k=CQkJ", "?k=CQ"), LinkError::Secret),
            (&text.replace(":7101", ""), LinkError::Addr),
            (&text.replace("host-a:7100", "ho st:1"), LinkError::Addr),
        ] {
            assert_eq!(bad.parse::<Link>(), Err(why), "{bad}");
        }
    }

    // shows: PAIR-PROOF-1
    #[test]
    fn a_proof_is_that_of_the_specification() {
        let secret = Secret(std::array::from_fn(|at| at as u8));
        let (id, key) = secret.key();
        assert_eq!(id.to_string(), "66587864c2f61605");
        assert_eq!(hexed(&key.0), "ec7a5ac75e59281139a298269386b9b6d7f4011a1a1eebff291266b45084d92b");
        let alice = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=".parse().unwrap();
        let bob = "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=".parse().unwrap();
        let proof = key.proof(&alice, &bob, &std::array::from_fn(|at| 0x20 + at as u8));
        assert_eq!(proof, "9c64f55b4d8f343679ef019249f907e0768f3ff0a75ffc21ce79b075853e7530");
    }

    #[test]
    fn a_proof_holds_for_one_pair_on_one_connection() {
        let (_, key) = Secret([1; 16]).key();
        let (a, b, c) = (PublicKey([1; 32]), PublicKey([2; 32]), PublicKey([3; 32]));
        let proof = key.proof(&a, &b, &[4; 32]);
        assert!(key.proves(&proof, &a, &b, &[4; 32]));
        for wrong in [
            key.proves(&proof, &a, &c, &[4; 32]),
            key.proves(&proof, &c, &b, &[4; 32]),
            key.proves(&proof, &b, &a, &[4; 32]),
            key.proves(&proof, &a, &b, &[5; 32]),
            key.proves(&proof[2..], &a, &b, &[4; 32]),
            key.proves("", &a, &b, &[4; 32]),
            Secret([2; 16]).key().1.proves(&proof, &a, &b, &[4; 32]),
        ] {
            assert!(!wrong);
        }
        assert_ne!(Secret([1; 16]).key().0, Secret([2; 16]).key().0);
    }

    #[test]
    fn a_link_is_as_long_as_it_may_be_and_its_digits_are_digits() {
        let key = PublicKey([7; 32]);
        let long = |bytes: usize| {
            let link = Link { key, addrs: vec!["h:1".into()], secret: None }.to_string();
            format!("{link}?x={}", "y".repeat(bytes - link.len() - 3))
        };
        assert!(long(LINK_BYTES_MAX).parse::<Link>().is_ok());
        for more in 1..3 {
            assert_eq!(long(LINK_BYTES_MAX + more).parse::<Link>(), Err(LinkError::Shape));
        }
        assert_eq!(hex::<2>("00ff"), Some([0, 255]));
        for wrong in ["00f", "00ff0", "00ff00", "+1+1", ""] {
            assert_eq!(hex::<2>(wrong), None, "{wrong}");
        }
    }
}
