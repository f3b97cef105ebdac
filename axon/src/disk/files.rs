//! Files written whole or not at all, and private files read without following a link.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::fault::{self, Call};

/// Permission bits of a file's mode.
pub const MODE_BITS: u32 = 0o7777;
/// Bits of group and others, which a private file has none of.
pub const OTHERS_BITS: u32 = 0o077;
/// Mode of a private file.
pub const MODE_PRIVATE: u32 = 0o600;
/// Mode of a file that holds nothing secret.
pub const MODE_PUBLIC: u32 = 0o644;

/// Something on the disk went wrong.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write"…
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is there, but not what it must be; the sentence says what to do.
    #[error("{0}")]
    Refused(String),
}

impl DiskError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: path.to_owned(), source: source.into() }
    }

    /// Whether the file is not there at all.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Writes a whole file in its place: after a crash there is the old one or the new one. A link there is
/// replaced.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DiskError> {
    write_atomic_by(path, mode, |file| file.write_all(bytes))
}

/// Like [`write_atomic`], for what is not in memory all at once.
pub fn write_atomic_by(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), DiskError> {
    let temp = write_beside(path, mode, write)?;
    let renamed = fault::before(Call::Rename, path).and_then(|()| fs::rename(&temp, path));
    if let Err(error) = renamed {
        fs::remove_file(&temp).ok();
        return Err(DiskError::io("write", path, error));
    }
    sync_parent(path)
}

/// Like [`write_atomic`], but never replaces anything. False: somebody else was first, and theirs stands.
pub fn create_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, DiskError> {
    let temp = write_beside(path, mode, |file| file.write_all(bytes))?;
    let linked = fault::before(Call::Rename, path).and_then(|()| fs::hard_link(&temp, path));
    fs::remove_file(&temp).ok();
    match linked {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(DiskError::io("make", path, error)),
    }
}

/// A small private file: regular, ours, closed to everybody else, no link.
///
/// # Errors
/// With a sentence for a person when the file is there but is not all that.
pub fn read_private(path: &Path, bytes_max: usize) -> Result<Vec<u8>, DiskError> {
    // Non-blocking, so that a pipe in the file's place does not hold the daemon up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fault::before(Call::Open, path).map_err(|error| DiskError::io("read", path, error))?;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::LOOP) => {
            return Err(DiskError::Refused(format!(
                "{} is a link, and private files are not read through links: put the file itself there",
                path.display()
            )));
        }
        Err(error) => return Err(DiskError::io("read", path, error)),
    };
    let about = file.metadata().map_err(|error| DiskError::io("read", path, error))?;
    if !about.is_file() {
        return Err(DiskError::Refused(format!("{} is no regular file: move it away", path.display())));
    }
    if !is_ours(about.uid()) {
        return Err(DiskError::Refused(format!("{} belongs to another user: chown it", path.display())));
    }
    if about.mode() & OTHERS_BITS != 0 {
        return Err(DiskError::Refused(format!(
            "{} may be read or written by others (mode {:04o}): run `axon doctor --fix`, or chmod 600 it",
            path.display(),
            about.mode() & MODE_BITS
        )));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    fault::before(Call::Read, path)
        .and_then(|()| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| DiskError::io("read", path, error))?;
    bytes.truncate(bytes_max.saturating_add(1));
    Ok(bytes)
}

/// Moves a damaged file to `<name>.damaged-<Unix seconds>` beside it, and says where it went.
pub fn set_aside(path: &Path) -> Result<PathBuf, DiskError> {
    let secs = unix_ms() / 1000;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{secs}"));
    let mut aside = PathBuf::from(&name);
    // Two in one second are both kept.
    for again in 2..100 {
        if fs::symlink_metadata(&aside).is_err() {
            break;
        }
        let mut next = name.clone();
        next.push(format!("-{again}"));
        aside = PathBuf::from(next);
    }
    fault::before(Call::Rename, path)
        .and_then(|()| fs::rename(path, &aside))
        .map_err(|error| DiskError::io("move aside", path, error))?;
    sync_parent(path)?;
    Ok(aside)
}

/// Sets the permission bits of a file that is no link.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), DiskError> {
    let about = fs::symlink_metadata(path).map_err(|error| DiskError::io("look at", path, error))?;
    if about.file_type().is_symlink() {
        return Err(DiskError::Refused(format!("{} is a link: its mode is left alone", path.display())));
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|error| DiskError::io("change the mode of", path, error))
}

/// The time of day in Unix milliseconds; 0 before 1970.
pub fn unix_ms() -> u64 {
    #[cfg(test)]
    if let Some(now) = wall::now() {
        return now;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A time of day that goes with tokio's clock, for tests that have it in hand.
#[cfg(test)]
pub(crate) mod wall {
    use std::cell::Cell;

    use tokio::time::Instant;

    thread_local! {
        static SINCE: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
    }

    /// As long as there is this, its thread has a time of day of its own.
    pub(crate) struct Held(());

    impl Drop for Held {
        fn drop(&mut self) {
            SINCE.set(None);
        }
    }

    /// On this thread it is so late now.
    pub(crate) fn set(unix_ms: u64) -> Held {
        SINCE.set(Some((Instant::now(), unix_ms)));
        Held(())
    }

    pub(super) fn now() -> Option<u64> {
        let (since, unix_ms) = SINCE.get()?;
        Some(unix_ms + u64::try_from(since.elapsed().as_millis()).unwrap())
    }
}

/// Whether a file's owner is the user that this process acts for. Root may use everybody's.
pub(crate) fn is_ours(uid: u32) -> bool {
    let own = rustix::process::geteuid();
    own.is_root() || own.as_raw() == uid
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], DiskError> {
    let mut bytes = [0; N];
    // By the call itself: other libraries look for it in a shared libc, and where there is none in /dev.
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| DiskError::Refused("the system gives no random numbers".into()))?;
    Ok(bytes)
}

/// Writes a new file with a name of its own in the same directory, down to the disk.
fn write_beside(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<PathBuf, DiskError> {
    let fail = |error: io::Error| DiskError::io("write", path, error);
    let name = path.file_name().ok_or_else(|| fail(io::ErrorKind::InvalidInput.into()))?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".new-{:016x}", u64::from_le_bytes(random()?)));
    let temp = path.with_file_name(beside);

    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fault::before(Call::Make, &temp).map_err(fail)?;
    let fd = rustix::fs::open(&temp, flags, Mode::RUSR | Mode::WUSR).map_err(|error| fail(error.into()))?;
    let mut file = File::from(fd);
    // The mode is set on the open file, because the umask had its say in `open`.
    let written = fault::before(Call::Write, &temp)
        .and_then(|()| write(&mut file))
        .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| fault::sync(Call::Sync, &temp, || file.sync_all()));
    if let Err(error) = written {
        fs::remove_file(&temp).ok();
        return Err(fail(error));
    }
    Ok(temp)
}

/// Makes a rename or a new name in the directory last.
pub(super) fn sync_parent(path: &Path) -> Result<(), DiskError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fault::sync(Call::Names, parent, || File::open(parent).and_then(|dir| dir.sync_all()))
        .map_err(|error| DiskError::io("sync", parent, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    // shows: TRUST-CON-2
    #[test]
    fn an_atomic_write_replaces_a_link_and_leaves_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_atomic(&link, b"new", MODE_PRIVATE).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        assert_eq!(fs::read_to_string(&link).unwrap(), "new");
        assert_eq!(fs::symlink_metadata(&link).unwrap().mode() & MODE_BITS, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn create_keeps_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert!(create_atomic(&path, b"first", MODE_PRIVATE).unwrap());
        assert!(!create_atomic(&path, b"second", MODE_PRIVATE).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn private_files_are_read_only_when_they_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("x"), dir.path().join("link"));
        assert!(read_private(&path, 8).unwrap_err().is_missing());
        write_atomic(&path, b"secret", MODE_PRIVATE).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read_private(&path, 8).unwrap(), b"secret");
        assert_eq!(
            read_private(&path, 3).unwrap().len(),
            4,
            "one more than allowed shows that it is too long"
        );
        assert!(read_private(&link, 8).unwrap_err().to_string().contains("is a link"));
        assert!(read_private(dir.path(), 8).unwrap_err().to_string().contains("no regular file"));
        set_mode(&path, 0o640).unwrap();
        assert!(read_private(&path, 8).unwrap_err().to_string().contains("axon doctor --fix"));
    }

    #[test]
    fn two_damaged_files_of_one_second_are_both_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "1").unwrap();
        let first = set_aside(&path).unwrap();
        fs::write(&path, "2").unwrap();
        let second = set_aside(&path).unwrap();
        assert_ne!(first, second);
        assert_eq!(fs::read_to_string(first).unwrap(), "1");
        assert_eq!(fs::read_to_string(second).unwrap(), "2");
    }
}
