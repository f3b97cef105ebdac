//! `identity.key` and `identity.pub`: who this agent is.
//!
//! The key file holds the base64 text of the 32-byte Ed25519 seed. Losing it means becoming somebody else, so
//! a damaged file is never replaced silently; the public half is only a copy and is written anew when it is
//! wrong.

use std::fmt;
use std::path::Path;

use axon_proto::id::{AgentId, PublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use super::files::{self, DiskError, MODE_PRIVATE, MODE_PUBLIC};
use super::root::Root;

/// The key file, in bytes; the seed's text has 44 and a newline.
const KEY_FILE_BYTES_MAX: usize = 256;

/// This agent's key pair and the id made from it.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The secret half.
    pub seed: [u8; 32],
    /// The public half.
    pub public: PublicKey,
    /// The id that belongs to it.
    pub id: AgentId,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none yet.
    #[error("{0} has no identity yet: `axon{1} daemon` or `axon{1} identity` makes one")]
    None(String, String),
    /// The public half is there and the key is not.
    #[error(
        "identity.key is missing in {0}, while identity.pub is there: put the key back from a copy, or run \
         `axon{1} doctor --fix` to become a new agent, which peers must be told"
    )]
    Lost(String, String),
    /// The key file is no key.
    #[error(
        "identity.key in {0} is damaged ({2}): put it back from a copy, or run `axon{1} doctor --fix` to \
         become a new agent, which peers must be told"
    )]
    Damaged(String, String, &'static str),
    /// The file is no private file of ours, or the disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a file gives no key.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It holds none.
    #[error("the file is damaged ({0})")]
    Damaged(&'static str),
    /// It is no private file of ours, or the disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Identity {
    /// The identity of this seed.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, DiskError> {
        let broken = || DiskError::Refused("the seed makes no Ed25519 key".to_owned());
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| broken())?;
        let public = pair.public_key().as_ref().try_into().map(PublicKey).map_err(|_| broken())?;
        Ok(Self { seed, public, id: public.agent_id() })
    }

    /// A new identity from the system's random numbers, not yet on disk.
    pub fn generate() -> Result<Self, DiskError> {
        Self::from_seed(files::random()?)
    }

    /// The identity in this root. Touches nothing.
    pub fn load(root: &Root) -> Result<Self, KeyError> {
        let (dir, flags) = (root.dir().display().to_string(), root.flags().to_owned());
        match Self::read(&root.identity_key()) {
            Ok(identity) => Ok(identity),
            Err(ReadError::Damaged(why)) => Err(KeyError::Damaged(dir, flags, why)),
            Err(ReadError::Disk(error)) if !error.is_missing() => Err(error.into()),
            Err(_) if std::fs::symlink_metadata(root.identity_pub()).is_ok() => {
                Err(KeyError::Lost(dir, flags))
            }
            Err(_) => Err(KeyError::None(dir, flags)),
        }
    }

    /// The identity in this file. Touches nothing.
    pub(super) fn read(path: &Path) -> Result<Self, ReadError> {
        let bytes = files::read_private(path, KEY_FILE_BYTES_MAX)?;
        let text = bytes.trim_ascii();
        if text.is_empty() {
            return Err(ReadError::Damaged("it is empty"));
        }
        let seed = STANDARD.decode(text).map_err(|_| ReadError::Damaged("it is not base64"))?;
        let seed = seed.try_into().map_err(|_| ReadError::Damaged("it does not hold 32 bytes"))?;
        Ok(Self::from_seed(seed)?)
    }

    /// The identity in this root, made if there has never been one; true when it was. `identity.pub` is put
    /// right.
    pub fn load_or_create(root: &Root) -> Result<(Self, bool), KeyError> {
        let (identity, made) = match Self::load(root) {
            Ok(identity) => (identity, false),
            Err(KeyError::None(..)) => {
                let new = Self::generate()?;
                let made =
                    files::create_atomic(&root.identity_key(), new.key_text().as_bytes(), MODE_PRIVATE)?;
                // Two that start at once agree on the key of the first.
                (if made { new } else { Self::load(root)? }, made)
            }
            Err(error) => return Err(error),
        };
        identity.mend_public(root)?;
        Ok((identity, made))
    }

    /// Writes `identity.pub` if it does not hold this public key; true when it was written.
    pub fn mend_public(&self, root: &Root) -> Result<bool, DiskError> {
        if self.public_is_right(root) {
            return Ok(false);
        }
        files::write_atomic(&root.identity_pub(), format!("{}\n", self.public).as_bytes(), MODE_PUBLIC)?;
        Ok(true)
    }

    /// Whether `identity.pub` holds this public key.
    pub fn public_is_right(&self, root: &Root) -> bool {
        read_public(root) == Some(self.public)
    }

    /// Signs a message.
    pub(super) fn sign(&self, message: &[u8]) -> Result<[u8; 64], DiskError> {
        let broken = || DiskError::Refused("the seed makes no Ed25519 key".to_owned());
        let pair = Ed25519KeyPair::from_seed_unchecked(&self.seed).map_err(|_| broken())?;
        pair.sign(message).as_ref().try_into().map_err(|_| broken())
    }

    /// What signs with this identity's key for as long as the daemon runs.
    pub fn signer(&self) -> Result<axon_proto::node::Sign, DiskError> {
        let broken = || DiskError::Refused("the seed makes no Ed25519 key".to_owned());
        let pair = Ed25519KeyPair::from_seed_unchecked(&self.seed).map_err(|_| broken())?;
        // An Ed25519 signature has 64 bytes; one that had not would be taken by nobody.
        Ok(Box::new(move |message| pair.sign(message).as_ref().try_into().unwrap_or([0; 64])))
    }

    /// The content of the key file.
    pub(crate) fn key_text(&self) -> String {
        format!("{}\n", STANDARD.encode(self.seed))
    }
}

/// Whether a signature of the message is that of the key.
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(message, signature).is_ok()
}

/// The public key in `identity.pub`, if there is one.
pub fn read_public(root: &Root) -> Option<PublicKey> {
    let path = root.identity_pub();
    let regular = std::fs::metadata(&path).is_ok_and(|about| {
        about.is_file() && usize::try_from(about.len()).is_ok_and(|bytes| bytes <= KEY_FILE_BYTES_MAX)
    });
    if !regular {
        return None;
    }
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        (dir, root)
    }

    #[test]
    fn made_once_then_read() {
        let (_dir, root) = root();
        assert!(matches!(Identity::load(&root), Err(KeyError::None(..))));
        let (first, made) = Identity::load_or_create(&root).unwrap();
        assert!(made);
        let (second, made) = Identity::load_or_create(&root).unwrap();
        assert!(!made && first == second);
        assert_eq!(fs::metadata(root.identity_key()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_public(&root), Some(first.public));
        assert!(!format!("{first:?}").contains(&format!("{:?}", first.seed)));
    }

    #[test]
    fn the_public_key_is_that_of_rfc_8032() {
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
            0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let public = Identity::from_seed(seed).unwrap().public;
        assert_eq!(public.0[..4], [0xd7, 0x5a, 0x98, 0x01]);
    }

    #[test]
    fn a_signature_is_of_one_key_and_one_message() {
        let identity = Identity::from_seed([1; 32]).unwrap();
        let mut signature = identity.sign(b"message").unwrap();
        assert!(verify(&identity.public, b"message", &signature));
        assert!(!verify(&identity.public, b"messagE", &signature));
        assert!(!verify(&Identity::from_seed([2; 32]).unwrap().public, b"message", &signature));
        signature[63] ^= 1;
        assert!(!verify(&identity.public, b"message", &signature));
    }

    #[test]
    fn the_public_file_is_mended_from_the_key() {
        let (_dir, root) = root();
        let (identity, _) = Identity::load_or_create(&root).unwrap();
        for wrong in ["", "AAAA", &PublicKey([7; 32]).to_string()] {
            fs::write(root.identity_pub(), wrong).unwrap();
            Identity::load_or_create(&root).unwrap();
            assert_eq!(read_public(&root), Some(identity.public));
        }
        fs::remove_file(root.identity_pub()).unwrap();
        Identity::load_or_create(&root).unwrap();
        assert_eq!(read_public(&root), Some(identity.public));
    }

    #[test]
    fn a_damaged_key_is_never_replaced() {
        let (_dir, root) = root();
        for (content, why) in [("", "empty"), ("%%", "not base64"), ("AAAA\n", "32 bytes")] {
            files::write_atomic(&root.identity_key(), content.as_bytes(), MODE_PRIVATE).unwrap();
            let error = Identity::load_or_create(&root).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("doctor --fix"), "{error}");
            assert_eq!(fs::read_to_string(root.identity_key()).unwrap(), content);
        }
    }

    #[test]
    fn a_lost_or_readable_key_is_refused() {
        let (_dir, root) = root();
        Identity::load_or_create(&root).unwrap();
        files::set_mode(&root.identity_key(), 0o644).unwrap();
        assert!(Identity::load_or_create(&root).unwrap_err().to_string().contains("doctor --fix"));
        fs::remove_file(root.identity_key()).unwrap();
        assert!(matches!(Identity::load_or_create(&root), Err(KeyError::Lost(..))));
        assert!(!root.identity_key().exists());
    }
}
