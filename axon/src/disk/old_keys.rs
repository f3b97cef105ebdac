//! `old_keys/`: what this agent was before `axon rekey`, kept so that peers that were away can be told.
//!
//! `<agent id>.key` holds the seed as `identity.key` does; `<agent id>.json` says until when peers are told,
//! and holds the statement that both keys sign. Both are on disk before `identity.key` is replaced, and that
//! is one rename: after a crash at any point the agent is the old one or the new one, and the old seed is
//! there. A statement that names another key than that of today is made anew, as its seed is at hand.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use axon_proto::id::AgentId;
use axon_proto::limits::{OLD_KEY_MS, OLD_KEYS_MAX};
use axon_proto::node::OldKey;
use axon_proto::pairing::payload::Rekey;
use serde::{Deserialize, Serialize};

use super::fault::{self, Call};
use super::files::{self, DiskError, MODE_PRIVATE};
use super::keys::{Identity, KeyError, verify};
use super::root::{ROOT_MODE, Root};

/// `<agent id>.json`, in bytes.
const ABOUT_BYTES_MAX: usize = 4_096;

/// `<agent id>.json`.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    statement: Rekey,
    until_ms: u64,
}

/// An identity that is over.
struct Old {
    identity: Identity,
    about: About,
}

/// Makes a new identity, and keeps the old one among the old keys. The key of the daemon that runs stays what
/// it is until the next start.
pub fn rekey(root: &Root, now_ms: u64) -> Result<Identity, KeyError> {
    let old = Identity::load(root)?;
    let new = Identity::generate()?;
    let dir = root.old_keys();
    let made = fault::before(Call::Make, &dir).and_then(|()| DirBuilder::new().mode(ROOT_MODE).create(&dir));
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(DiskError::io("make", &dir, error).into());
        }
        _ => files::sync_parent(&dir)?,
    }
    // Those before it also lead to the new one from now on. Until that one holds, the start puts them right.
    for Old { identity, about } in kept(root, &old, now_ms)? {
        save_about(root, &identity, &new, about.until_ms, now_ms)?;
    }
    files::write_atomic(&key_path(root, old.id), old.key_text().as_bytes(), MODE_PRIVATE)?;
    save_about(root, &old, &new, now_ms.saturating_add(OLD_KEY_MS), now_ms)?;
    files::write_atomic(&root.identity_key(), new.key_text().as_bytes(), MODE_PRIVATE)?;
    // It is only a copy: the next start puts it right as well.
    if let Err(error) = new.mend_public(root) {
        tracing::warn!("identity.pub is still the old one: {error}");
    }
    Ok(new)
}

/// The old keys that peers are still told of, with their seeds, oldest first. Those whose time is over, and
/// more than there may be, are removed; what is damaged is told and left.
pub fn load_old_keys(root: &Root, own: &Identity, now_ms: u64) -> Vec<(OldKey, [u8; 32])> {
    let kept = match kept(root, own, now_ms) {
        Ok(kept) => kept,
        Err(error) => {
            tracing::warn!("old keys are not told to peers: {error}");
            return Vec::new();
        }
    };
    let key = |Old { identity, about }| {
        let statement = about.statement;
        (OldKey { key: identity.public, statement, until_ms: about.until_ms }, identity.seed)
    };
    kept.into_iter().map(key).collect()
}

/// Whether this public key was one of ours before.
pub fn was_ours(root: &Root, id: AgentId) -> bool {
    key_path(root, id).is_file()
}

/// The old keys that hold, oldest first, each with a statement that leads to `own`.
fn kept(root: &Root, own: &Identity, now_ms: u64) -> Result<Vec<Old>, DiskError> {
    let dir = root.old_keys();
    let found = match fs::read_dir(&dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(DiskError::io("read", &dir, error)),
    };
    let mut kept = Vec::new();
    for name in found.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let Some(id) = name.strip_suffix(".key").and_then(|id| id.parse::<AgentId>().ok()) else { continue };
        if id == own.id {
            // The start of a change that a crash has undone: `identity.key` holds the same.
            remove(root, id);
            continue;
        }
        match read(root, id, own, now_ms) {
            Ok(old) if old.about.until_ms > now_ms => kept.push(old),
            Ok(_) => {
                tracing::info!("{id}, who this agent was before, is not told to peers any longer");
                remove(root, id);
            }
            Err(error) => tracing::warn!("the old key of {id} is not told to peers: {error}"),
        }
    }
    kept.sort_by_key(|old| (old.about.until_ms, old.identity.id));
    while kept.len() > OLD_KEYS_MAX {
        let oldest = kept.remove(0);
        tracing::info!("{}, who this agent was before, is not told to peers any longer", oldest.identity.id);
        remove(root, oldest.identity.id);
    }
    Ok(kept)
}

fn read(root: &Root, id: AgentId, own: &Identity, now_ms: u64) -> Result<Old, KeyError> {
    let path = key_path(root, id);
    let identity = Identity::read(&path).map_err(|why| DiskError::Refused(why.to_string()))?;
    if identity.id != id {
        let text = format!("{} holds the key of {}", path.display(), identity.id);
        return Err(DiskError::Refused(text).into());
    }
    let (until_ms, at_ms) = match read_about(root, id) {
        Some(about) if leads(&about.statement, &identity, own) => return Ok(Old { identity, about }),
        Some(about) => (about.until_ms, about.statement.at_ms),
        // It was lost: its time is counted from when the key was put there.
        None => {
            let modified = fs::metadata(&path).and_then(|about| about.modified()).ok();
            let since = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let at_ms = since.and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or(now_ms);
            (at_ms.saturating_add(OLD_KEY_MS), at_ms)
        }
    };
    let about = save_about(root, &identity, own, until_ms.min(now_ms.saturating_add(OLD_KEY_MS)), at_ms)?;
    Ok(Old { identity, about })
}

fn read_about(root: &Root, id: AgentId) -> Option<About> {
    let bytes = files::read_private(&about_path(root, id), ABOUT_BYTES_MAX).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Whether a statement is one of both keys that one follows the other.
fn leads(statement: &Rekey, old: &Identity, new: &Identity) -> bool {
    let signed = Rekey::signed(&old.public, &new.public, statement.at_ms);
    let names = statement.old_key == old.public && statement.new_key == new.public;
    let holds = |(first, second): ([u8; 64], [u8; 64])| {
        verify(&old.public, &signed, &first) && verify(&new.public, &signed, &second)
    };
    names && statement.signatures().is_some_and(holds)
}

/// Writes what is said of an old key, with a new statement.
fn save_about(
    root: &Root,
    old: &Identity,
    new: &Identity,
    until_ms: u64,
    at_ms: u64,
) -> Result<About, DiskError> {
    let path = about_path(root, old.id);
    let signed = Rekey::signed(&old.public, &new.public, at_ms);
    let statement = Rekey::new(old.public, new.public, at_ms, &old.sign(&signed)?, &new.sign(&signed)?);
    let about = About { statement, until_ms };
    let mut text = serde_json::to_vec(&about).map_err(|error| DiskError::io("write", &path, error))?;
    text.push(b'\n');
    files::write_atomic(&path, &text, MODE_PRIVATE)?;
    Ok(about)
}

fn remove(root: &Root, id: AgentId) {
    // The key last: while it is there, what is left of the two is found again.
    for path in [about_path(root, id), key_path(root, id)] {
        match fault::before(Call::Remove, &path).and_then(|()| fs::remove_file(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("{} cannot be removed: {error}", path.display());
            }
            _ => {}
        }
    }
}

fn key_path(root: &Root, id: AgentId) -> PathBuf {
    beside(&root.old_keys(), id, "key")
}

fn about_path(root: &Root, id: AgentId) -> PathBuf {
    beside(&root.old_keys(), id, "json")
}

fn beside(dir: &Path, id: AgentId, ending: &str) -> PathBuf {
    dir.join(format!("{id}.{ending}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::super::files::MODE_BITS;
    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        Identity::load_or_create(&root).unwrap();
        (dir, root)
    }

    fn now() -> u64 {
        files::unix_ms()
    }

    fn old_keys(root: &Root, now_ms: u64) -> Vec<(OldKey, [u8; 32])> {
        load_old_keys(root, &Identity::load(root).unwrap(), now_ms)
    }

    /// All of these lead to the key of today.
    fn all_lead(root: &Root, keys: &[(OldKey, [u8; 32])]) -> bool {
        let own = Identity::load(root).unwrap();
        keys.iter().all(|(key, seed)| {
            let old = Identity::from_seed(*seed).unwrap();
            old.public == key.key && leads(&key.statement, &old, &own)
        })
    }

    #[test]
    fn the_old_key_is_kept_with_what_both_say() {
        let (_dir, root) = root();
        let first = Identity::load(&root).unwrap();
        assert!(old_keys(&root, now()).is_empty());
        let now_ms = now();
        let second = rekey(&root, now_ms).unwrap();
        assert_eq!(Identity::load(&root).unwrap(), second);
        assert!(second.public_is_right(&root) && was_ours(&root, first.id) && !was_ours(&root, second.id));
        let keys = old_keys(&root, now_ms);
        assert_eq!(keys.len(), 1);
        assert_eq!((keys[0].0.key, keys[0].1), (first.public, first.seed));
        assert_eq!(keys[0].0.until_ms, now_ms + OLD_KEY_MS);
        assert!(all_lead(&root, &keys) && keys[0].0.statement.at_ms == now_ms);
        let text = serde_json::to_string(&keys[0].0.statement).unwrap();
        assert_eq!(Rekey::parse(&text).unwrap(), keys[0].0.statement);
        for path in [key_path(&root, first.id), about_path(&root, first.id)] {
            assert_eq!(fs::metadata(path).unwrap().mode() & MODE_BITS, 0o600);
        }
        assert_eq!(fs::metadata(root.old_keys()).unwrap().mode() & MODE_BITS, 0o700);
        assert!(old_keys(&root, now_ms + OLD_KEY_MS).is_empty());
        assert_eq!(fs::read_dir(root.old_keys()).unwrap().count(), 0, "what is over is removed");
    }

    #[test]
    fn all_that_were_lead_to_the_one_of_today_and_are_bounded() {
        let (_dir, root) = root();
        let now_ms = now();
        let mut were = vec![Identity::load(&root).unwrap().public];
        for n in 1..=OLD_KEYS_MAX as u64 + 2 {
            were.push(rekey(&root, now_ms + n).unwrap().public);
            let keys = old_keys(&root, now_ms + n);
            let expected = were.len() - 1 - keys.len();
            assert!(all_lead(&root, &keys) && keys.len() == (n as usize).min(OLD_KEYS_MAX));
            assert!(keys.iter().map(|(key, _)| key.key).eq(were[expected..were.len() - 1].iter().copied()));
        }
        assert_eq!(fs::read_dir(root.old_keys()).unwrap().count(), 2 * OLD_KEYS_MAX);
    }

    #[test]
    fn a_crash_on_the_way_leaves_an_identity_and_loses_none() {
        let (_dir, root) = root();
        let now_ms = now();
        let zeroth = Identity::load(&root).unwrap();
        let first = rekey(&root, now_ms).unwrap();
        // Before the rename: the old one still holds, and those before lead to it again.
        let keep = fs::read(root.identity_key()).unwrap();
        rekey(&root, now_ms + 1).unwrap();
        files::write_atomic(&root.identity_key(), &keep, MODE_PRIVATE).unwrap();
        let keys = old_keys(&root, now_ms + 2);
        assert_eq!((keys.len(), keys[0].1), (1, zeroth.seed));
        assert!(all_lead(&root, &keys) && !was_ours(&root, first.id));
        assert_eq!(keys[0].0.until_ms, now_ms + OLD_KEY_MS, "and not for longer");
        // After it, before identity.pub.
        let public = fs::read(root.identity_pub()).unwrap();
        let second = rekey(&root, now_ms + 3).unwrap();
        fs::write(root.identity_pub(), public).unwrap();
        assert_eq!(Identity::load_or_create(&root).unwrap().0, second);
        assert_eq!(old_keys(&root, now_ms + 3).len(), 2);
        // Without what is said of it, or with something else.
        for content in [None, Some("{"), Some("{\"statement\":{},\"until_ms\":1}")] {
            match content {
                None => fs::remove_file(about_path(&root, first.id)).unwrap(),
                Some(text) => fs::write(about_path(&root, first.id), text).unwrap(),
            }
            let keys = old_keys(&root, now_ms + 3);
            assert!(keys.len() == 2 && all_lead(&root, &keys));
            assert!(keys.iter().all(|(key, _)| key.until_ms <= now_ms + 3 + OLD_KEY_MS));
        }
    }

    #[test]
    fn what_is_damaged_is_left_and_not_told() {
        let (_dir, root) = root();
        let first = Identity::load(&root).unwrap();
        rekey(&root, now()).unwrap();
        fs::write(key_path(&root, first.id), "garbage").unwrap();
        fs::write(root.old_keys().join("notes.txt"), "x").unwrap();
        assert!(old_keys(&root, now()).is_empty());
        assert!(key_path(&root, first.id).exists());
        let other = Identity::generate().unwrap();
        fs::write(key_path(&root, first.id), other.key_text()).unwrap();
        assert!(old_keys(&root, now()).is_empty());
        fs::remove_dir_all(root.old_keys()).unwrap();
        fs::write(root.old_keys(), "").unwrap();
        assert!(old_keys(&root, now()).is_empty());
        let before = fs::read(root.identity_key()).unwrap();
        assert!(rekey(&root, now()).is_err());
        assert_eq!(fs::read(root.identity_key()).unwrap(), before);
    }

    #[test]
    fn a_key_that_is_damaged_or_missing_is_not_replaced() {
        let (_dir, root) = root();
        fs::write(root.identity_key(), "garbage").unwrap();
        assert!(matches!(rekey(&root, now()), Err(KeyError::Damaged(..))));
        assert_eq!(fs::read_to_string(root.identity_key()).unwrap(), "garbage");
        assert!(!root.old_keys().exists());
    }
}
