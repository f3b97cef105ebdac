//! Calls to the system that the tests of this crate can make fail, the nth of each sort.
//!
//! Whoever writes, names, syncs or reads a file of the root asks here first. It is compiled into the tests
//! alone: in the program nothing of it is left.

#[cfg(not(test))]
pub(super) use none::{before, sync, write};
#[cfg(test)]
pub(super) use points::{Armed, Call, Fault, before, sync, write};

/// What is asked of the system.
#[cfg(not(test))]
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    /// A file or a directory is made.
    Make,
    /// A file that is there is opened.
    Open,
    /// Bytes are written.
    Write,
    /// Bytes are to last.
    Sync,
    /// Names are to last.
    Names,
    /// A file is cut or extended.
    Length,
    /// A file gets a name, in place of another or beside it.
    Rename,
    /// A file is removed.
    Remove,
    /// Bytes are read.
    Read,
}

#[cfg(not(test))]
mod none {
    use std::io;
    use std::path::Path;

    use super::Call;

    /// Whether this may be done.
    #[inline(always)]
    #[expect(clippy::unnecessary_wraps, reason = "in the tests it fails")]
    pub(in super::super) fn before(_: Call, _: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Makes bytes or names last.
    #[inline(always)]
    pub(in super::super) fn sync(_: Call, _: &Path, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        sync()
    }

    /// Writes bytes.
    #[inline(always)]
    pub(in super::super) fn write(
        _: &Path,
        bytes: &[u8],
        write: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        write(bytes)
    }
}

#[cfg(test)]
mod points {
    use std::collections::BTreeMap;
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use rustix::io::Errno;

    /// What is asked of the system.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(in super::super) enum Call {
        Make,
        Open,
        Write,
        Sync,
        Names,
        Length,
        Rename,
        Remove,
        Read,
    }

    impl Call {
        pub const ALL: [Self; 9] = [
            Self::Make,
            Self::Open,
            Self::Write,
            Self::Sync,
            Self::Names,
            Self::Length,
            Self::Rename,
            Self::Remove,
            Self::Read,
        ];

        fn error(self) -> io::Error {
            match self {
                Self::Make | Self::Write | Self::Rename => Errno::NOSPC.into(),
                Self::Open => Errno::MFILE.into(),
                Self::Sync | Self::Names | Self::Length | Self::Remove | Self::Read => Errno::IO.into(),
            }
        }
    }

    /// The nth call of its sort, and every later one where it lasts.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Fault {
        pub call: Call,
        pub nth: u64,
        /// The first half of what is to be written is.
        pub half: bool,
        pub lasts: bool,
    }

    struct Plan {
        root: PathBuf,
        counts: BTreeMap<Call, u64>,
        fault: Option<Fault>,
        failed: u64,
        asleep: bool,
    }

    /// By the roots that they are for: tests run side by side, and the disk has a thread of its own.
    static PLANS: Mutex<Vec<Plan>> = Mutex::new(Vec::new());

    fn plans() -> MutexGuard<'static, Vec<Plan>> {
        PLANS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls below this root are counted as long as it lives.
    pub(in super::super) struct Armed(PathBuf);

    impl Armed {
        pub fn new(root: &Path, fault: Option<Fault>) -> Self {
            let plan =
                Plan { root: root.to_owned(), counts: BTreeMap::new(), fault, failed: 0, asleep: false };
            plans().push(plan);
            Self(root.to_owned())
        }

        fn with<T>(&self, what: impl FnOnce(&mut Plan) -> T) -> T {
            what(plans().iter_mut().find(|plan| plan.root == self.0).unwrap())
        }

        /// Nothing fails any more.
        pub fn heal(&self) {
            self.with(|plan| plan.fault = None);
        }

        /// Does something that is neither counted nor made to fail: what looks on from outside.
        pub fn asleep(&self, what: impl FnOnce()) {
            self.with(|plan| plan.asleep = true);
            what();
            self.with(|plan| plan.asleep = false);
        }

        pub fn counts(&self) -> BTreeMap<Call, u64> {
            self.with(|plan| plan.counts.clone())
        }

        /// Calls that failed.
        pub fn failed(&self) -> u64 {
            self.with(|plan| plan.failed)
        }
    }

    impl Drop for Armed {
        fn drop(&mut self) {
            plans().retain(|plan| plan.root != self.0);
        }
    }

    /// Counts a call; whether it fails, and whether half of it is done. None: nobody counts here.
    fn hit(call: Call, path: &Path) -> Option<Option<Fault>> {
        let mut plans = plans();
        let plan = plans.iter_mut().find(|plan| path.starts_with(&plan.root))?;
        if plan.asleep {
            return Some(None);
        }
        let count = plan.counts.entry(call).or_default();
        *count += 1;
        let fault = plan
            .fault
            .filter(|fault| fault.call == call && (*count == fault.nth || fault.lasts && *count > fault.nth));
        plan.failed += u64::from(fault.is_some());
        Some(fault)
    }

    /// Whether this may be done.
    pub(in super::super) fn before(call: Call, path: &Path) -> io::Result<()> {
        match hit(call, path).flatten() {
            Some(_) => Err(call.error()),
            None => Ok(()),
        }
    }

    /// Makes bytes or names last; where calls are counted it takes no time, as no power goes there.
    pub(in super::super) fn sync(
        call: Call,
        path: &Path,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        match hit(call, path) {
            Some(Some(_)) => Err(call.error()),
            Some(None) => Ok(()),
            None => sync(),
        }
    }

    /// Writes bytes, or half of them.
    pub(in super::super) fn write(
        path: &Path,
        bytes: &[u8],
        write: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        match hit(Call::Write, path).flatten() {
            Some(Fault { half: true, .. }) => {
                write(&bytes[..bytes.len() / 2])?;
                Err(Call::Write.error())
            }
            Some(_) => Err(Call::Write.error()),
            None => write(bytes),
        }
    }
}
