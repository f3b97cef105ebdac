//! The store on its thread: a directory of files under [`axon_proto::store`], group commits, and the other
//! files that are written while the daemon runs.
//!
//! Jobs are done in the order in which they come. Commits that wait together are made together, with one
//! write and one sync; a reading sees what was committed before it.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use axon_proto::node::{CommitId, Input, KnownPeer, ReadId, Seen};
use axon_proto::store::files::{FileError, FileId, Files};
use axon_proto::store::log::{OpenError, Options};
use axon_proto::store::memory::Memory;
use axon_proto::store::{Commit, Keep, Opened, Read, Store};
use rustix::fs::{Mode, OFlags};

use super::files::{DiskError, OTHERS_BITS, is_ours, random, unix_ms};
use super::root::{ROOT_MODE, Root};
use super::state::{self, ReplayLog};

/// Commits that are made together at most.
const BATCH_MAX: usize = 1_024;
/// The stack of the thread; nothing on it is deep.
const STACK_BYTES: usize = 256 * 1024;

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be read.
    #[error("{}: {error}", dir.display())]
    Open {
        /// Where it is.
        dir: PathBuf,
        /// What is wrong.
        error: OpenError,
    },
    /// The directory cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no thread to be had.
    #[error("cannot start the thread that writes to the disk: {0}")]
    Thread(io::Error),
}

/// A store that is open and has no thread yet.
pub type OpenStore = Store<Box<dyn Files>>;

/// Opens the store of a root, or one in memory.
pub fn open(root: &Root, durable: bool, now_ms: u64) -> Result<(OpenStore, Opened), StoreError> {
    let dir = root.store();
    let files: Box<dyn Files> = match durable {
        true => Box::new(Directory::open(&dir)?),
        false => Box::new(Memory::new()),
    };
    let options = Options { salt: u32::from_le_bytes(random()?), ..Options::default() };
    Store::open(files, options, now_ms).map_err(|error| StoreError::Open { dir, error })
}

/// Something to be done.
enum Job {
    Commit(CommitId, Commit),
    Read(ReadId, Read),
    Evict(Keep),
    Remember(Vec<Seen>),
    Peers(Vec<KnownPeer>),
}

/// The thread that has the disk.
///
/// What waits for it is bounded by the node: `limits::COMMITS_MAX`, and one reading a client or peer.
pub struct Disk {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Disk {
    /// Starts the thread; what it has done comes back by `done`.
    pub fn start(
        root: &Root,
        store: OpenStore,
        replay_log: ReplayLog,
        done: impl Fn(Input) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (jobs, receiver) = channel();
        let worker = Worker { store, replay_log, known_peers: root.known_peers(), done: Box::new(done) };
        let thread = std::thread::Builder::new().name("disk".into()).stack_size(STACK_BYTES);
        let thread = thread.spawn(move || worker.run(&receiver)).map_err(StoreError::Thread)?;
        Ok(Self { jobs, thread })
    }

    /// Stores this.
    pub fn commit(&self, id: CommitId, commit: Commit) {
        self.give(Job::Commit(id, commit));
    }

    /// Reads this.
    pub fn read(&self, id: ReadId, read: Read) {
        self.give(Job::Read(id, read));
    }

    /// Lets go of what is too old.
    pub fn evict(&self, keep: Keep) {
        self.give(Job::Evict(keep));
    }

    /// Appends to the replay record.
    pub fn remember(&self, seen: Vec<Seen>) {
        self.give(Job::Remember(seen));
    }

    /// Replaces the peer cache.
    pub fn save_peers(&self, peers: Vec<KnownPeer>) {
        self.give(Job::Peers(peers));
    }

    fn give(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            tracing::warn!("the disk's thread has ended: nothing more is written");
        }
    }

    /// Waits until all is done and the store is closed.
    pub fn stop(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::warn!("the disk's thread ended badly");
        }
    }
}

struct Worker {
    store: OpenStore,
    replay_log: ReplayLog,
    known_peers: PathBuf,
    done: Box<dyn Fn(Input) + Send>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut ids = Vec::new();
        let mut commits = Vec::new();
        let mut cleaning = false;
        loop {
            // With nothing else to do, the store is tidied, one short step at a time.
            let first = match (jobs.try_recv(), cleaning) {
                (Ok(job), _) => job,
                (Err(TryRecvError::Disconnected), _) => break,
                (Err(TryRecvError::Empty), true) => {
                    cleaning = self.store.maintain(unix_ms());
                    continue;
                }
                (Err(TryRecvError::Empty), false) => match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => break,
                },
            };
            let mut next = Some(first);
            while let Some(Job::Commit(id, commit)) = next {
                ids.push(id);
                commits.push(commit);
                next = (ids.len() < BATCH_MAX).then(|| jobs.try_recv().ok()).flatten();
            }
            if !commits.is_empty() {
                let outcomes = self.store.commit(&commits, unix_ms());
                for (id, outcome) in ids.drain(..).zip(outcomes) {
                    (self.done)(Input::Committed { id, outcome });
                }
                commits.clear();
                // Big bodies must not stay in memory because they came once.
                commits.shrink_to(64);
            }
            if let Some(job) = next {
                self.other(job);
            }
            self.tell_warnings();
            cleaning = true;
        }
        if let Err(error) = self.replay_log.sync() {
            tracing::warn!("not written: {error}");
        }
        if let Err(error) = self.store.close() {
            tracing::warn!("the store was not closed properly: {error}");
        }
    }

    fn other(&mut self, job: Job) {
        let written = match job {
            // Taken above.
            Job::Commit(..) => Ok(()),
            Job::Read(id, read) => {
                let out = self.store.read(&read);
                (self.done)(Input::ReadDone { id, out });
                Ok(())
            }
            Job::Evict(keep) => match self.store.evict(&keep, unix_ms()) {
                Ok(_) => Ok(()),
                Err(error) => return tracing::warn!("old messages could not be taken out: {error}"),
            },
            Job::Remember(seen) => self.replay_log.append(&seen, unix_ms()),
            Job::Peers(peers) => state::save_peers(&self.known_peers, &peers),
        };
        if let Err(error) = written {
            tracing::warn!("not written: {error}");
        }
    }

    fn tell_warnings(&mut self) {
        for warning in self.store.take_warnings() {
            tracing::warn!("store: {warning}");
        }
    }
}

/// A directory of files, as the store sees it.
struct Directory {
    path: PathBuf,
    dir: File,
    open: HashMap<FileId, File>,
    next: u32,
}

impl Directory {
    /// Makes the directory if there is none.
    fn open(path: &Path) -> Result<Self, DiskError> {
        match DirBuilder::new().mode(ROOT_MODE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made.and_then(|()| sync_parent(path)).map_err(|error| DiskError::io("make", path, error))?
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| DiskError::io("open", path, error))?;
        let dir = File::from(dir);
        let about = dir.metadata().map_err(|error| DiskError::io("look at", path, error))?;
        if !is_ours(about.uid()) {
            let text = format!("{} belongs to another user: chown it", path.display());
            return Err(DiskError::Refused(text));
        }
        if about.mode() & OTHERS_BITS != 0 {
            // What others could write here would be taken for this agent's own.
            tracing::warn!("{} was open to other users: it is closed to them now", path.display());
            dir.set_permissions(Permissions::from_mode(ROOT_MODE))
                .map_err(|error| DiskError::io("change the mode of", path, error))?;
        }
        Ok(Self { path: path.to_owned(), dir, open: HashMap::new(), next: 0 })
    }

    fn file(&self, id: FileId) -> Result<&File, FileError> {
        self.open.get(&id).ok_or_else(|| FileError("the file is not open".into()))
    }

    fn keep(&mut self, file: File) -> FileId {
        self.next += 1;
        self.open.insert(FileId(self.next), file);
        FileId(self.next)
    }

    fn at(&self, name: &str, flags: OFlags) -> Result<File, FileError> {
        let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        let file = File::from(fd);
        let about = file.metadata().map_err(|error| FileError(error.to_string()))?;
        match about.is_file() && is_ours(about.uid()) {
            true => Ok(file),
            false => Err(FileError(format!("{name} is no regular file of this user"))),
        }
    }
}

/// Makes the directory's own name last.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all())
}

fn failed(error: rustix::io::Errno) -> FileError {
    FileError(io::Error::from(error).to_string())
}

fn says(error: io::Error) -> FileError {
    FileError(error.to_string())
}

impl Files for Directory {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(says)? {
            let entry = entry.map_err(says)?;
            let about = entry.metadata().map_err(says)?;
            if let (true, Ok(name)) = (about.is_file(), entry.file_name().into_string()) {
                found.push((name, about.len()));
            }
        }
        Ok(found)
    }

    fn open(&mut self, name: &str, create: bool) -> Result<FileId, FileError> {
        let flags = if create { OFlags::CREATE | OFlags::EXCL } else { OFlags::empty() };
        let file = self.at(name, flags)?;
        Ok(self.keep(file))
    }

    fn scratch(&mut self) -> Result<FileId, FileError> {
        // Not every file system has files without a name from the beginning.
        let name =
            format!(".scratch-{:016x}", u64::from_le_bytes(random().map_err(|e| FileError(e.to_string()))?));
        let file = self.at(&name, OFlags::CREATE | OFlags::EXCL)?;
        rustix::fs::unlinkat(&self.dir, &name, rustix::fs::AtFlags::empty()).map_err(failed)?;
        Ok(self.keep(file))
    }

    fn close(&mut self, file: FileId) {
        self.open.remove(&file);
    }

    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
        let file = self.file(file)?;
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(says(error)),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        self.file(file)?.write_all_at(bytes, offset).map_err(says)
    }

    fn set_len(&mut self, file: FileId, bytes: u64) -> Result<(), FileError> {
        self.file(file)?.set_len(bytes).map_err(says)
    }

    fn sync(&mut self, file: FileId) -> Result<(), FileError> {
        self.file(file)?.sync_data().map_err(says)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError> {
        rustix::fs::renameat(&self.dir, from, &self.dir, to).map_err(failed)
    }

    fn remove(&mut self, name: &str) -> Result<(), FileError> {
        rustix::fs::unlinkat(&self.dir, name, rustix::fs::AtFlags::empty()).map_err(failed)
    }

    fn sync_names(&mut self) -> Result<(), FileError> {
        self.dir.sync_all().map_err(says)
    }
}
