//! The store on its thread: a directory of files under [`axon_proto::store`], group commits, and the other
//! files that are read and written while the daemon runs.
//!
//! Jobs are done in the order in which they come. Commits that wait together are made together, with one
//! write and one sync; a reading sees what was committed before it.

mod directory;
#[cfg(test)]
mod task;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use axon_proto::audit::Row;
use axon_proto::contacts::ContactChange;
use axon_proto::id::AgentId;
use axon_proto::node::{CommitId, Input, JobId, KnownPeer, ReadId, Seen};
use axon_proto::scope::{Scope, ScopeChange};
use axon_proto::store::files::Files;
use axon_proto::store::log::{OpenError, Options};
use axon_proto::store::memory::Memory;
use axon_proto::store::{Commit, Keep, Opened, Read, Store};
use tokio::time::Instant;

use super::audit::AuditLog;
use super::files::{DiskError, random, unix_ms};
use super::reload::Fresh;
use super::root::Root;
use super::state::{self, ReplayLog};
use super::{contacts, old_keys, sockets};
use directory::Directory;

/// Commits that are made together at most.
const BATCH_MAX: usize = 1_024;
/// The stack of the thread: tables within tables, as deep as the parser of TOML allows, need some. What is
/// not used takes no memory.
const STACK_BYTES: usize = 1024 * 1024;
/// The thread is woken this often to tidy, although nothing that we know of has become too old or too much.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

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
    Audit(Row),
    Owners(Owners),
}

/// Something to be done with files that are the owner's to read and to change.
enum Owners {
    Contacts(JobId, Vec<ContactChange>),
    Socket(Option<JobId>, ScopeChange),
    SocketDir(String),
    Reload(Option<JobId>),
    Rekey(JobId),
}

/// What the thread has done.
#[derive(Debug)]
pub enum DiskEvent {
    /// Something for the node.
    Input(Input),
    /// A scoped socket is in its file and has its directory, or is out of the file.
    Socket {
        /// Whose end it is; none where nobody waits for it.
        job: Option<JobId>,
        /// What was to be done.
        change: ScopeChange,
        /// What was there before, or why it was not done.
        outcome: Result<Option<Scope>, String>,
    },
    /// Settings, token and contacts were read again.
    Fresh {
        /// Whose end it is; none at SIGHUP.
        job: Option<JobId>,
        /// What the files say, or why they stay without effect.
        outcome: Result<Box<Fresh>, String>,
    },
    /// There is a new identity for the next start, or none.
    Rekeyed {
        /// Whose end it is.
        job: JobId,
        /// Its public key.
        outcome: Result<String, String>,
    },
}

/// The thread that has the disk.
///
/// What waits for it is bounded by the node: `limits::COMMITS_MAX`, and one reading a client or peer.
pub struct Disk {
    hand: Hand,
    evicted: Option<Evicted>,
    aged_ms: Arc<AtomicU64>,
}

/// Who does the jobs.
enum Hand {
    Thread(Sender<Job>, JoinHandle<()>),
    /// In tests that have the clock in hand.
    #[cfg(test)]
    Task(task::Jobs),
}

/// When messages were last let go of, with nothing stored since.
struct Evicted {
    keep: Keep,
    at: Instant,
}

impl Disk {
    /// Starts the thread, for the agent `own`; what it has done comes back by `done`.
    pub fn start(
        root: &Root,
        own: AgentId,
        store: OpenStore,
        replay_log: ReplayLog,
        done: impl Fn(DiskEvent) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (jobs, receiver) = channel();
        let (root, audit) = (root.clone(), AuditLog::new(root));
        let aged_ms = Arc::new(AtomicU64::new(0));
        let for_worker = Arc::clone(&aged_ms);
        let done = Box::new(done);
        let worker = Worker { root, own, store, replay_log, audit, done, aged_ms: for_worker };
        let thread = std::thread::Builder::new().name("disk".into()).stack_size(STACK_BYTES);
        let thread = thread.spawn(move || worker.run(&receiver)).map_err(StoreError::Thread)?;
        Ok(Self { hand: Hand::Thread(jobs, thread), evicted: None, aged_ms })
    }

    /// Stores this.
    pub fn commit(&mut self, id: CommitId, commit: Commit) {
        self.evicted = None;
        self.give(Job::Commit(id, commit));
    }

    /// Reads this.
    pub fn read(&self, id: ReadId, read: Read) {
        self.give(Job::Read(id, read));
    }

    /// Lets go of what is too old. The node asks every few seconds: where nothing can have become too old or
    /// too much since it last did, the thread is left asleep.
    pub fn evict(&mut self, keep: Keep) {
        let is_idle = |last: &Evicted| last.keep == keep && last.at.elapsed() < TIDY_INTERVAL;
        if self.evicted.as_ref().is_some_and(is_idle) && unix_ms() < self.aged_ms.load(Ordering::Relaxed) {
            return;
        }
        // Not known until the thread has done it.
        self.aged_ms.store(0, Ordering::Relaxed);
        self.evicted = Some(Evicted { keep, at: Instant::now() });
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

    /// Changes `contacts.toml`, and `[[peers]]` where somebody is removed.
    pub fn contacts(&self, job: JobId, changes: Vec<ContactChange>) {
        self.give(Job::Owners(Owners::Contacts(job, changes)));
    }

    /// Changes `sockets.toml`, and makes the directory of a socket that is put.
    pub fn socket(&self, job: Option<JobId>, change: ScopeChange) {
        self.give(Job::Owners(Owners::Socket(job, change)));
    }

    /// Takes the directory of a socket that is closed away.
    pub fn remove_socket_dir(&self, name: String) {
        self.give(Job::Owners(Owners::SocketDir(name)));
    }

    /// Reads settings, token and contacts again, as they are once all before this is written.
    pub fn reload(&self, job: Option<JobId>) {
        self.give(Job::Owners(Owners::Reload(job)));
    }

    /// Makes a new identity for the next start.
    pub fn rekey(&self, job: JobId) {
        self.give(Job::Owners(Owners::Rekey(job)));
    }

    /// Appends to the audit log.
    pub fn audit(&self, row: Row) {
        self.give(Job::Audit(row));
    }

    fn give(&self, job: Job) {
        let given = match &self.hand {
            Hand::Thread(jobs, _) => jobs.send(job).is_ok(),
            #[cfg(test)]
            Hand::Task(jobs) => jobs.send(job).is_ok(),
        };
        if !given {
            tracing::warn!("the disk's thread has ended: nothing more is written");
        }
    }

    /// Waits until all is done and the store is closed.
    pub fn stop(self) {
        match self.hand {
            Hand::Thread(jobs, thread) => {
                drop(jobs);
                if thread.join().is_err() {
                    tracing::warn!("the disk's thread ended badly");
                }
            }
            #[cfg(test)]
            Hand::Task(jobs) => drop(jobs),
        }
    }
}

struct Worker {
    root: Root,
    own: AgentId,
    store: OpenStore,
    replay_log: ReplayLog,
    audit: AuditLog,
    done: Box<dyn Fn(DiskEvent) + Send>,
    /// No message becomes too old before this; 0 where it is not known.
    aged_ms: Arc<AtomicU64>,
}

/// Commits that are made together; only its room is kept.
#[derive(Default)]
struct Batch {
    ids: Vec<CommitId>,
    commits: Vec<Commit>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut batch = Batch::default();
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
            self.turn(&mut batch, first, || jobs.try_recv().ok());
            cleaning = true;
        }
        self.close();
    }

    /// Does one job, or as many commits as follow one another and what is behind them.
    fn turn(&mut self, batch: &mut Batch, first: Job, mut more: impl FnMut() -> Option<Job>) {
        let Batch { ids, commits } = batch;
        let mut next = Some(first);
        while let Some(Job::Commit(id, commit)) = next {
            ids.push(id);
            commits.push(commit);
            next = (ids.len() < BATCH_MAX).then(&mut more).flatten();
        }
        if !commits.is_empty() {
            let outcomes = self.store.commit(commits, unix_ms());
            for (id, outcome) in ids.drain(..).zip(outcomes) {
                self.tell(Input::Committed { id, outcome });
            }
            commits.clear();
            // Big bodies must not stay in memory because they came once.
            commits.shrink_to(64);
        }
        if let Some(job) = next {
            self.other(job);
        }
        self.tell_warnings();
    }

    fn close(self) {
        if let Err(error) = self.replay_log.sync() {
            tracing::warn!("not written: {error}");
        }
        if let Err(error) = self.store.close() {
            tracing::warn!("the store was not closed properly: {error}");
        }
    }

    #[inline(never)]
    fn other(&mut self, job: Job) {
        let written = match job {
            // Taken above.
            Job::Commit(..) => Ok(()),
            Job::Read(id, read) => {
                let out = self.store.read(&read);
                self.tell(Input::ReadDone { id, out });
                Ok(())
            }
            Job::Evict(keep) => match self.store.evict(&keep, unix_ms()) {
                Ok(_) => {
                    let aged_ms = self.store.oldest_ms().map(|ms| ms.saturating_add(keep.ttl_ms));
                    self.aged_ms.store(aged_ms.unwrap_or(u64::MAX), Ordering::Relaxed);
                    Ok(())
                }
                // It is not known when the next is due: the node's next asking is heard.
                Err(error) => return tracing::warn!("old messages could not be taken out: {error}"),
            },
            Job::Remember(seen) => self.replay_log.append(&seen, unix_ms()),
            Job::Peers(peers) => state::save_peers(&self.root.known_peers(), &peers),
            Job::Audit(row) => return self.audit.append(&row),
            Job::Owners(job) => return self.owners(job),
        };
        if let Err(error) = written {
            tracing::warn!("not written: {error}");
        }
    }

    #[inline(never)]
    fn owners(&self, job: Owners) {
        match job {
            Owners::Contacts(job, changes) => {
                let outcome = contacts::change(&self.root, self.own, &changes);
                let outcome = outcome.map(|()| String::new()).map_err(|error| error.to_string());
                self.tell(Input::Done { job, outcome });
            }
            Owners::Socket(job, change) => {
                let outcome = sockets::change(&self.root, &change).map_err(|error| error.to_string());
                (self.done)(DiskEvent::Socket { job, change, outcome });
            }
            Owners::SocketDir(name) => {
                if let Err(error) = sockets::remove_dir(&self.root, &name) {
                    tracing::warn!("{error}; it is left where it is");
                }
            }
            Owners::Reload(job) => {
                let outcome = Fresh::read(&self.root, self.own);
                let outcome = outcome.map(Box::new).map_err(|error| error.to_string());
                (self.done)(DiskEvent::Fresh { job, outcome });
            }
            Owners::Rekey(job) => {
                let outcome = old_keys::rekey(&self.root, unix_ms());
                let outcome = outcome.map(|new| new.public.to_string()).map_err(|error| error.to_string());
                (self.done)(DiskEvent::Rekeyed { job, outcome });
            }
        }
    }

    fn tell(&self, input: Input) {
        (self.done)(DiskEvent::Input(input));
    }

    fn tell_warnings(&mut self) {
        for warning in self.store.take_warnings() {
            tracing::warn!("store: {warning}");
        }
    }
}

#[cfg(test)]
mod sweep;

#[cfg(test)]
mod tests {
    use std::fs;

    use axon_proto::audit::Event;
    use axon_proto::contacts::Contact;
    use axon_proto::trust::Level;

    use super::super::Identity;
    use super::*;

    fn open_disk(root: &Root) -> (Disk, std::sync::mpsc::Receiver<DiskEvent>, Identity) {
        let (identity, _) = Identity::load_or_create(root).unwrap();
        let (store, _) = open(root, false, 0).unwrap();
        let (log, ..) = ReplayLog::open(&root.replay_log(), 0).unwrap();
        let (done, events) = channel();
        let disk =
            Disk::start(root, identity.id, store, log, move |event| done.send(event).unwrap()).unwrap();
        (disk, events, identity)
    }

    fn blocked(n: u8) -> Contact {
        Contact {
            agent_id: AgentId([n; 16]),
            pubkey: None,
            addrs: Vec::new(),
            level: Level::Blocked,
            name: None,
            since_ms: 0,
            why: None,
            expiry_ms: None,
            paused: false,
        }
    }

    #[test]
    fn a_reading_sees_what_was_written_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let (disk, events, identity) = open_disk(&root);
        disk.contacts(JobId(1), vec![ContactChange::Put(blocked(1))]);
        disk.contacts(JobId(2), vec![ContactChange::Put(Contact { agent_id: identity.id, ..blocked(2) })]);
        disk.reload(Some(JobId(3)));
        disk.contacts(JobId(4), vec![ContactChange::Remove(AgentId([1; 16]))]);
        disk.reload(None);
        disk.audit(Row {
            at_ms: 1,
            until_ms: None,
            event: Event::Trust,
            peer: None,
            socket: None,
            rule: "blocked".into(),
            count: 1,
        });
        disk.rekey(JobId(5));
        disk.stop();
        let mut events = events.into_iter();
        let mut next = || events.next().unwrap();
        assert!(matches!(next(), DiskEvent::Input(Input::Done { job: JobId(1), outcome: Ok(_) })));
        let DiskEvent::Input(Input::Done { job: JobId(2), outcome: Err(why) }) = next() else { panic!() };
        assert!(why.contains("this agent itself"), "{why}");
        let DiskEvent::Fresh { job: Some(JobId(3)), outcome: Ok(fresh) } = next() else { panic!() };
        assert_eq!(fresh.contacts.contacts, [blocked(1)]);
        assert!(matches!(next(), DiskEvent::Input(Input::Done { job: JobId(4), outcome: Ok(_) })));
        let DiskEvent::Fresh { job: None, outcome: Ok(fresh) } = next() else { panic!() };
        assert!(fresh.contacts.contacts.is_empty());
        let DiskEvent::Rekeyed { job: JobId(5), outcome: Ok(key) } = next() else { panic!() };
        assert_eq!(Identity::load(&root).unwrap().public.to_string(), key);
        assert!(old_keys::was_ours(&root, identity.id));
        assert!(events.next().is_none());
        assert_eq!(super::super::audit::scan(&root.audit()).unwrap().map(|scan| scan.rows), Some(1));
    }

    #[test]
    fn the_thread_is_left_asleep_while_nothing_can_be_too_old_or_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, events, _) = open_disk(&Root::at(dir.path()));
        let keep = Keep { rows_max: 9, bytes_max: 999, ttl_ms: 100_000, read_up_to: 0 };
        // What was given before it is done once this is answered.
        let settle = |disk: &Disk| {
            disk.reload(None);
            while !matches!(events.recv().unwrap(), DiskEvent::Fresh { .. }) {}
            disk.aged_ms.load(Ordering::Relaxed)
        };
        disk.evict(keep);
        assert_eq!(settle(&disk), u64::MAX, "nothing is kept");
        let asked = |disk: &mut Disk, keep| {
            let before = disk.evicted.as_ref().map(|last| last.at);
            disk.evict(keep);
            disk.evicted.as_ref().map(|last| last.at) != before
        };
        assert!(!asked(&mut disk, keep));
        let at_ms = unix_ms();
        let row = axon_proto::store::Row { seq: 1, at_ms, kind: "notify".into(), raw: "{}".into() };
        let writes = vec![axon_proto::store::Write::Row { row, firm: false }];
        disk.commit(CommitId(1), Commit { writes, keep });
        assert!(asked(&mut disk, keep), "something is kept that was not");
        assert_eq!(settle(&disk), at_ms + keep.ttl_ms);
        assert!(!asked(&mut disk, keep));
        disk.aged_ms.store(at_ms, Ordering::Relaxed);
        assert!(asked(&mut disk, keep), "something is too old");
        assert_eq!(settle(&disk), at_ms + keep.ttl_ms);
        let less = Keep { rows_max: 0, ..keep };
        assert!(asked(&mut disk, less), "less may be kept");
        assert_eq!(settle(&disk), u64::MAX);
        if let Some(last) = &mut disk.evicted {
            last.at = last.at.checked_sub(TIDY_INTERVAL).unwrap();
        }
        assert!(asked(&mut disk, less), "it tidies now and then");
        disk.stop();
    }

    #[test]
    fn sockets_are_put_and_their_directories_removed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let (disk, events, _) = open_disk(&root);
        let scope = Scope {
            name: "box".to_owned(),
            allow: Vec::new(),
            to: None,
            kinds: None,
            domains: None,
            uid: None,
            messages_per_minute: 0,
        };
        disk.socket(Some(JobId(1)), ScopeChange::Put(scope.clone()));
        disk.socket(None, ScopeChange::Remove("box".to_owned()));
        disk.remove_socket_dir("box".to_owned());
        disk.socket(Some(JobId(2)), ScopeChange::Put(scope.clone()));
        disk.stop();
        let found: Vec<_> = events.into_iter().collect();
        let [first, second, third] = &found[..] else { panic!("{found:?}") };
        assert!(matches!(first, DiskEvent::Socket { job: Some(JobId(1)), outcome: Ok(None), .. }));
        let DiskEvent::Socket { job: None, outcome: Ok(before), .. } = second else { panic!("{second:?}") };
        assert_eq!(before.as_ref(), Some(&scope));
        assert!(matches!(third, DiskEvent::Socket { job: Some(JobId(2)), outcome: Ok(None), .. }));
        assert!(root.scope_dir("box").is_dir());
    }

    #[test]
    fn a_file_of_great_depth_does_not_need_more_than_the_threads_stack() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let (disk, events, _) = open_disk(&root);
        for text in [
            format!("contacts = {}{}", "[".repeat(9_000), "]".repeat(9_000)),
            format!("contacts = {}1{}", "[".repeat(78), "]".repeat(78)),
            format!("contacts = {}1{}", "{a=".repeat(78), "}".repeat(78)),
            format!("[{}x]", "a.".repeat(78)),
            format!("{}x = 1", "a.".repeat(78)),
        ] {
            fs::write(root.contacts(), text).unwrap();
            disk.reload(None);
            assert!(matches!(events.recv().unwrap(), DiskEvent::Fresh { outcome: Err(_), .. }));
        }
        disk.stop();
    }
}
