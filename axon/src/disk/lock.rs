//! `axon.lock`: one daemon a root.
//!
//! The lock is the kernel's (`flock`) and goes with the process that holds it, however that ends. The file
//! only carries the holder's pid, for people; a file that is left behind holds nobody up, and is never
//! removed.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::files::DiskError;
use super::root::Root;

/// The lock of a root, held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "a daemon already runs on {} ({}): use it, stop it, or give another --root or --name",
        dir.display(),
        pid.map_or_else(|| "its pid is not told".to_owned(), |pid| format!("pid {pid}"))
    )]
    Held {
        /// On this root.
        dir: PathBuf,
        /// The other process, when it is told.
        pid: Option<u32>,
    },
    /// The file could not be opened or locked at all.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Lock {
    /// Takes the lock and writes our pid into its file.
    pub fn acquire(root: &Root) -> Result<Self, LockError> {
        let path = root.lock();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| DiskError::io("open", &path, error))?;
        let mut file = File::from(fd);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { dir: root.dir().to_owned(), pid: read_pid(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(DiskError::io("lock", &path, error).into()),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|error| DiskError::io("write", &path, error))?;
        Ok(Self { _file: file })
    }
}

/// The pid in the file of a root's lock, whether or not that process still runs.
pub fn pid(root: &Root) -> Option<u32> {
    read_pid(&mut open_to_read(root)?)
}

/// Whether some process has the lock now. Takes it for a moment to find out, without writing anything.
pub fn is_held(root: &Root) -> bool {
    open_to_read(root).is_some_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn open_to_read(root: &Root) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(root.lock(), flags, Mode::empty()).ok().map(File::from)
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert!(!is_held(&root));
        let lock = Lock::acquire(&root).unwrap();
        assert!(is_held(&root));
        assert_eq!(pid(&root), Some(std::process::id()));
        let error = Lock::acquire(&root).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(lock);
        assert!(!is_held(&root));
        Lock::acquire(&root).unwrap();
    }

    #[test]
    fn a_file_left_behind_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        std::fs::write(root.lock(), "999999999999 nonsense").unwrap();
        assert_eq!(pid(&root), None);
        let _lock = Lock::acquire(&root).unwrap();
        assert_eq!(pid(&root), Some(std::process::id()));
    }

    #[test]
    fn it_is_not_opened_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let target = dir.path().join("target");
        std::fs::write(&target, "keep").unwrap();
        std::os::unix::fs::symlink(&target, root.lock()).unwrap();
        assert!(matches!(Lock::acquire(&root), Err(LockError::Disk(_))));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "keep");
    }
}
