//! The daemon's own files, each call to the system made to fail in turn: lives of the disk's thread with
//! everything that it is asked to do, one of which ends by a kill. Whatever was answered with ok is there,
//! whatever was not is there wholly or not at all, and the daemon starts again.
//!
//! One place in some is tried; all of them with `AXON_LONG=1`. A single one:
//! `AXON_FAULT=write:17 cargo test --lib disk::store::sweep` (`half:17` writes the first half, and
//! `write:17+` is every one from there on).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use axon_proto::audit::Event;
use axon_proto::contacts::{Contact, ContactsFile};
use axon_proto::id::{MsgId, PublicKey};
use axon_proto::store::{ReadOut, Row as Message, Write};
use axon_proto::trust::Level;

use super::super::fault::{Armed, Call, Fault};
use super::super::root::ROOT_MODE;
use super::super::{Config, Identity, token};
use super::*;

const NOW_MS: u64 = 1_795_000_000_000;
const UNTIL_MS: u64 = 4_000_000_000_000;
const OPEN: Keep = Keep { rows_max: 1 << 40, bytes_max: 1 << 40, ttl_ms: 1 << 60, read_up_to: 0 };
/// Lives that are swept.
const LIVES: u64 = 3;

/// What must be there; none where nobody knows.
#[derive(Debug, Clone, Default)]
struct Model {
    identity: Option<PublicKey>,
    /// A new identity was asked for: it is this one, or nobody knows whether there is one.
    next: Option<Option<PublicKey>>,
    token: Option<String>,
    rows: BTreeMap<u64, Arc<str>>,
    items: BTreeMap<String, Arc<[u8]>>,
    contacts: BTreeMap<AgentId, Option<bool>>,
    sockets: BTreeMap<String, Option<bool>>,
    /// Ids of commits, and of what was appended without a fault.
    seen: BTreeSet<MsgId>,
    /// As it was saved without a fault.
    peers: Option<Vec<KnownPeer>>,
    /// Rows that were appended without a fault.
    audit_rows: usize,
}

/// A daemon's files as a start finds them, and the thread that has not begun.
struct Started {
    identity: Identity,
    store: OpenStore,
    replay_log: ReplayLog,
    seen: BTreeSet<MsgId>,
    peers: Vec<KnownPeer>,
    contacts: ContactsFile,
    sockets: Vec<Scope>,
    token: String,
    warnings: Vec<String>,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// As the driver does it, with short segments.
fn start(root: &Root) -> Result<Started, String> {
    let config = Config::load(&root.config()).map_err(text)?;
    let (identity, _) = Identity::load_or_create(root).map_err(text)?;
    let contacts = contacts::load(&root.contacts(), identity.id).map_err(text)?;
    let sockets = sockets::load(&root.scopes()).map_err(text)?;
    old_keys::load_old_keys(root, &identity, NOW_MS);
    let token = token::load_or_create(&config.token_path(root)).map_err(text)?;
    let (peers, peers_warning) = state::load_peers(&root.known_peers());
    let (replay_log, seen, seen_warning) = ReplayLog::open(&root.replay_log(), NOW_MS).map_err(text)?;
    let files: Box<dyn Files> = Box::new(Directory::open(&root.store()).map_err(text)?);
    let options = Options { salt: 7, segment_bytes: 2_048 };
    let (mut store, opened) = Store::open(files, options, NOW_MS).map_err(text)?;
    store.items(&mut |_, _| {}).map_err(text)?;
    // What is done in idle times.
    for _ in 0..50 {
        store.maintain(NOW_MS);
    }
    let seen = seen.into_iter().chain(opened.seen).map(|seen| seen.id).collect();
    let warnings = peers_warning.into_iter().chain(seen_warning).chain(opened.warnings);
    let warnings = warnings.chain(store.take_warnings()).collect();
    Ok(Started { identity, store, replay_log, seen, peers, contacts, sockets, token, warnings })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), &to).unwrap()),
        }
    }
}

fn number(life: u64, n: u64) -> u128 {
    u128::from(life * 1_000 + n + 1)
}

fn id(life: u64, n: u64) -> MsgId {
    MsgId::from_random(number(life, n).to_be_bytes())
}

fn agent(life: u64, n: u64) -> AgentId {
    AgentId(number(life, n).to_be_bytes())
}

fn seen(life: u64, n: u64) -> Seen {
    Seen { from: agent(0, 0), id: id(life, n), until_ms: UNTIL_MS }
}

fn contact(life: u64, n: u64) -> Contact {
    Contact {
        agent_id: agent(life, n),
        pubkey: None,
        addrs: Vec::new(),
        level: Level::Blocked,
        name: None,
        since_ms: 0,
        why: Some("swept".into()),
        expiry_ms: None,
        paused: false,
    }
}

fn scope(name: String) -> Scope {
    let (allow, messages_per_minute) = (Vec::new(), 0);
    Scope { name, allow, to: None, kinds: None, domains: None, uid: None, messages_per_minute }
}

fn peer(life: u64) -> KnownPeer {
    let pubkey = PublicKey([u8::try_from(life).unwrap() + 1; 32]);
    let addrs = vec!["192.0.2.1:7100".parse().unwrap()];
    KnownPeer { agent_id: pubkey.agent_id(), pubkey, addrs, last_seen_ms: NOW_MS }
}

fn all_rows() -> Read {
    let (after, up_to, limit, bytes_max) = (0, u64::MAX, 1_000, usize::MAX);
    Read::Rows { after, up_to, kinds: None, stop_at_other: false, limit, bytes_max }
}

/// Everything that the thread is asked for in one life.
fn jobs(life: u64) -> Vec<Job> {
    let mut jobs = Vec::new();
    for n in 0..20 {
        let seq = life * 1_000 + n + 1;
        let raw = format!("{{\"{seq}\":\"{}\"}}", "x".repeat(150)).into();
        let row = Message { seq, at_ms: NOW_MS, kind: "notify".into(), raw };
        let mut writes = vec![
            Write::Row { row, firm: true },
            Write::put(format!("item/{}", n % 3), format!("{seq} {}", "y".repeat(200))),
            Write::Seen(seen(life, n)),
        ];
        if n >= 3 {
            // So that much is dead, and the log is cleaned.
            writes.push(Write::Gone(seq - 2));
        }
        jobs.push(Job::Commit(CommitId(n), Commit { writes, keep: OPEN }));
        jobs.push(match n % 5 {
            0 => Job::Read(ReadId(n), all_rows()),
            1 => Job::Owners(Owners::Contacts(JobId(n), vec![ContactChange::Put(contact(life, n))])),
            // Three, so that half of the write ends within one.
            2 => Job::Remember([100, 200, 300].map(|more| seen(life, more + n)).to_vec()),
            3 => Job::Owners(Owners::Socket(Some(JobId(n)), ScopeChange::Put(scope(format!("s{life}-{n}"))))),
            _ => Job::Evict(OPEN),
        });
    }
    let row = Row {
        at_ms: NOW_MS,
        until_ms: None,
        event: Event::Trust,
        peer: None,
        socket: None,
        rule: "blocked".into(),
        count: 1,
    };
    jobs.push(Job::Audit(row));
    jobs.push(Job::Peers(vec![peer(life)]));
    jobs.push(Job::Owners(Owners::Reload(None)));
    jobs.push(Job::Owners(Owners::Contacts(JobId(100), vec![ContactChange::Remove(agent(life, 1))])));
    jobs.push(Job::Owners(Owners::Socket(Some(JobId(101)), ScopeChange::Remove(format!("s{life}-3")))));
    if life == 1 {
        jobs.push(Job::Owners(Owners::Rekey(JobId(102))));
    }
    jobs.push(Job::Read(ReadId(100), all_rows()));
    jobs.push(Job::Read(ReadId(101), Read::Items { keys: (0..3).map(|n| format!("item/{n}")).collect() }));
    jobs
}

impl Model {
    /// What a start has found is what must be there. `doubt`: something failed since it was last looked at.
    fn check(&mut self, found: &mut Started, root: &Root, doubt: Option<Fault>, what: &str) {
        let is = found.identity.public;
        if let Some(was) = self.identity
            && was != is
        {
            let next = self.next.unwrap_or_else(|| panic!("{what}: another identity"));
            assert!(next.is_none_or(|next| next == is), "{what}: not the identity that was told");
            assert!(old_keys::was_ours(root, was.agent_id()), "{what}: the old key is gone");
        } else if let Some(Some(next)) = self.next {
            assert_eq!(is, next, "{what}: the identity that was told is not there");
        }
        (self.identity, self.next) = (Some(is), None);
        assert!(found.identity.public_is_right(root) || doubt.is_some(), "{what}: identity.pub");
        let token = self.token.get_or_insert(found.token.clone());
        assert_eq!(*token, found.token, "{what}: another token");
        // What cannot be read at a start is kept aside, and said to be.
        let reads = doubt.is_some_and(|fault| fault.call == Call::Read);
        let aside = reads && files_of(root.dir()).iter().any(|name| name.contains(".damaged-"));
        let is_passing = |warning: &String| warning.contains("cannot be read now");
        let unread = found.warnings.iter().any(is_passing);
        for warning in &found.warnings {
            let torn = ["not closed cleanly", "unfinished write"].iter().any(|text| warning.contains(text));
            let untold =
                doubt.is_some_and(|fault| fault.lasts) && warning.contains("first files are missing");
            let damaged = reads && warning.contains(" is damaged (");
            let passing = doubt.is_some_and(|fault| fault.call == Call::Open) && is_passing(warning);
            assert!(torn || untold || damaged || passing, "{what}: {warning}");
        }
        let rows = match found.store.read(&all_rows()) {
            ReadOut::Rows(rows) => rows.rows,
            out => panic!("{what}: {out:?}"),
        };
        let rows: BTreeMap<u64, Arc<str>> = rows.into_iter().map(|row| (row.seq, row.raw)).collect();
        assert_eq!(rows, self.rows, "{what}");
        let mut items = BTreeMap::new();
        found.store.items(&mut |key, value| drop(items.insert(key.to_owned(), value.into()))).unwrap();
        assert_eq!(items, self.items, "{what}");
        if !aside {
            let missing: Vec<&MsgId> = self.seen.difference(&found.seen).collect();
            assert!(missing.is_empty(), "{what}: forgotten {missing:?}");
            if let Some(peers) = self.peers.as_ref().filter(|_| !unread) {
                assert_eq!(*peers, found.peers, "{what}");
            }
        }
        if !unread {
            self.peers = Some(found.peers.clone());
        }
        self.seen.clone_from(&found.seen);
        let contacts: BTreeSet<AgentId> = found.contacts.contacts.iter().map(|one| one.agent_id).collect();
        for (id, there) in &mut self.contacts {
            assert_eq!(*there.get_or_insert(contacts.contains(id)), contacts.contains(id), "{what}: {id}");
        }
        assert!(contacts.iter().all(|id| self.contacts.contains_key(id)), "{what}: {contacts:?}");
        let sockets: BTreeSet<&str> = found.sockets.iter().map(|scope| scope.name.as_str()).collect();
        for (name, there) in &mut self.sockets {
            let is = sockets.contains(name.as_str());
            assert_eq!(*there.get_or_insert(is), is, "{what}: {name}");
        }
    }

    /// What was answered, in the order in which it was asked.
    /// `sure`: nothing failed of which nobody is told.
    fn answered(&mut self, job: Job, sure: bool, events: &mut impl Iterator<Item = DiskEvent>, what: &str) {
        let mut told = || events.next().unwrap_or_else(|| panic!("{what}: a job was never answered"));
        match job {
            Job::Commit(id, commit) => match told() {
                DiskEvent::Input(Input::Committed { id: of, outcome }) if of == id => {
                    if outcome.is_ok() {
                        self.committed(&commit);
                    }
                }
                other => panic!("{what}: {other:?}"),
            },
            Job::Read(id, read) => match told() {
                DiskEvent::Input(Input::ReadDone { id: of, out }) if of == id => {
                    self.was_read(&read, out, what)
                }
                other => panic!("{what}: {other:?}"),
            },
            Job::Owners(Owners::Contacts(job, changes)) => match told() {
                DiskEvent::Input(Input::Done { job: of, outcome }) if of == job => {
                    for change in changes {
                        let (ContactChange::Put(Contact { agent_id, .. }) | ContactChange::Remove(agent_id)) =
                            &change
                        else {
                            continue;
                        };
                        let is = matches!(change, ContactChange::Put(_));
                        self.contacts.insert(*agent_id, outcome.is_ok().then_some(is));
                    }
                }
                other => panic!("{what}: {other:?}"),
            },
            Job::Owners(Owners::Socket(..)) => match told() {
                DiskEvent::Socket { change, outcome, .. } => {
                    let (name, is) = match change {
                        ScopeChange::Put(scope) => (scope.name, true),
                        ScopeChange::Remove(name) => (name, false),
                    };
                    self.sockets.insert(name, outcome.is_ok().then_some(is));
                }
                other => panic!("{what}: {other:?}"),
            },
            Job::Owners(Owners::Rekey(_)) => match told() {
                DiskEvent::Rekeyed { outcome, .. } => {
                    self.next = Some(outcome.ok().map(|key| key.parse().unwrap()));
                }
                other => panic!("{what}: {other:?}"),
            },
            Job::Owners(Owners::Reload(_)) => assert!(matches!(told(), DiskEvent::Fresh { .. }), "{what}"),
            Job::Remember(seen) if sure => self.seen.extend(seen.iter().map(|seen| seen.id)),
            Job::Peers(peers) => self.peers = Some(peers).filter(|_| sure),
            Job::Audit(_) if sure => self.audit_rows += 1,
            _ => {}
        }
    }

    fn committed(&mut self, commit: &Commit) {
        for write in &commit.writes {
            match write {
                Write::Row { row, .. } => drop(self.rows.insert(row.seq, row.raw.as_ref().into())),
                Write::Gone(seq) => drop(self.rows.remove(seq)),
                Write::Put { key, value } => drop(self.items.insert(key.clone(), value.clone())),
                Write::Seen(seen) => drop(self.seen.insert(seen.id)),
                Write::Delete { .. } | Write::Loose(_) => {}
            }
        }
    }

    fn was_read(&self, read: &Read, out: ReadOut, what: &str) {
        match (read, out) {
            (_, ReadOut::Failed(_)) => {}
            (_, ReadOut::Rows(rows)) => {
                let found: Vec<u64> = rows.rows.iter().map(|row| row.seq).collect();
                assert_eq!(found, self.rows.keys().copied().collect::<Vec<_>>(), "{what}");
            }
            (Read::Items { keys }, ReadOut::Items(found)) => {
                let is: Vec<_> = keys.iter().map(|key| self.items.get(key).cloned()).collect();
                assert_eq!(found, is, "{what}");
            }
            (_, out) => panic!("{what}: {out:?}"),
        }
    }
}

/// One life: a start, all jobs, the end. False: it did not start, because something failed.
fn live(root: &Root, life: u64, model: &mut Model, armed: &Armed, fault: Option<Fault>, what: &str) -> bool {
    let what = &format!("{what}, life {life}");
    let before = armed.failed();
    let mut started = match start(root) {
        Ok(started) => started,
        Err(why) => {
            assert!(armed.failed() > before, "{what}: it does not start: {why}");
            return false;
        }
    };
    let doubt = fault.filter(|_| armed.failed() > 0);
    armed.asleep(|| model.check(&mut started, root, doubt, what));
    let Started { identity, store, replay_log, .. } = started;
    // It is killed, as it were, when the settings have been read again: its files are what they are then.
    let dir = tempfile::tempdir().unwrap();
    let killed = Root::at(dir.path().join("killed"));
    let (from, to) = (root.dir().to_owned(), killed.dir().to_owned());
    let (tell, told) = channel();
    let done = Box::new(move |event: DiskEvent| {
        if matches!(event, DiskEvent::Fresh { .. }) {
            copy(&from, &to);
        }
        tell.send(event).unwrap();
    });
    let (audit, aged_ms) = (AuditLog::new(root), Arc::new(AtomicU64::new(0)));
    let worker = Worker { root: root.clone(), own: identity.id, store, replay_log, audit, done, aged_ms };
    let (give, given) = channel();
    jobs(life).into_iter().for_each(|job| give.send(job).unwrap());
    drop(give);
    worker.run(&given);

    let sure = armed.failed() == before;
    let mut events = told.into_iter();
    for job in jobs(life) {
        let is_kill = matches!(job, Job::Owners(Owners::Reload(_)));
        model.answered(job, sure, &mut events, what);
        if is_kill {
            let (what, doubt) = (&format!("{what}, killed"), fault.filter(|_| armed.failed() > 0));
            let _quick = Armed::new(killed.dir(), None);
            let mut found = start(&killed).unwrap_or_else(|why| panic!("{what}: {why}"));
            model.clone().check(&mut found, &killed, doubt, what);
        }
    }
    assert!(events.next().is_none(), "{what}: something was answered twice");
    true
}

fn files_of(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            names.extend(files_of(&entry.path()));
        }
        names.push(entry.file_name().into_string().unwrap());
    }
    names
}

/// All lives with one fault, then one without; gives the calls of the first ones, and how many failed.
fn run(fault: Option<Fault>) -> (BTreeMap<Call, u64>, u64) {
    let what = fault.map(|fault| format!("AXON_FAULT={}", name(fault))).unwrap_or_default();
    let dir = tempfile::tempdir().unwrap();
    let root = Root::at(dir.path().join("root"));
    DirBuilder::new().mode(ROOT_MODE).create(root.dir()).unwrap();
    let (armed, mut model) = (Armed::new(root.dir(), fault), Model::default());
    for life in 0..LIVES {
        // Who did not start is started again.
        let lives = live(&root, life, &mut model, &armed, fault, &what)
            || live(&root, life, &mut model, &armed, fault, &what);
        assert!(
            lives || fault.is_some_and(|fault| fault.lasts),
            "{what}, life {life}: it does not start again"
        );
    }
    let (counts, failed) = (armed.counts(), armed.failed());
    armed.heal();
    assert!(live(&root, LIVES, &mut model, &armed, fault, &what));
    let mut found = start(&root).unwrap_or_else(|why| panic!("{what}: {why}"));
    model.check(&mut found, &root, fault, &what);
    assert!(found.store.rows() > 0, "{what}: a store that is healed takes what comes");
    let audit = super::super::audit::scan(&root.audit()).unwrap().unwrap_or_default();
    let wrong = audit.wrong.map_or(0, |(wrong, _)| wrong);
    let halves = if fault.is_some_and(|fault| fault.half) { failed } else { 0 };
    assert!(audit.rows >= model.audit_rows && wrong as u64 <= halves, "{what}: {audit:?}");
    let left: Vec<String> = files_of(root.dir()).into_iter().filter(|name| name.contains(".new-")).collect();
    assert!(left.is_empty(), "{what}: {left:?}");
    (counts, failed)
}

fn name(fault: Fault) -> String {
    let call = if fault.half { "half".to_owned() } else { format!("{:?}", fault.call).to_lowercase() };
    format!("{call}:{}{}", fault.nth, if fault.lasts { "+" } else { "" })
}

fn asked() -> Option<Fault> {
    let text = std::env::var("AXON_FAULT").ok()?;
    let (call, nth) = text.split_once(':').unwrap();
    let all = Call::ALL.into_iter().find(|of| format!("{of:?}").to_lowercase() == call);
    let (call, half) = (all.unwrap_or(Call::Write), call == "half");
    let digits = nth.strip_suffix('+').unwrap_or(nth);
    Some(Fault { call, nth: digits.parse().unwrap(), half, lasts: digits != nth })
}

/// Every one of so many calls of a sort, or all.
#[expect(clippy::print_stdout, reason = "how much was tried")]
fn sweep(calls: &[Call], every: u64, lasts: bool) {
    if let Some(fault) = asked() {
        return drop(run(Some(fault)));
    }
    let every = if std::env::var_os("AXON_LONG").is_some() { 1 } else { every };
    let (counts, _) = run(None);
    let mut runs = 0;
    for call in calls.iter().copied() {
        let count = counts.get(&call).copied().unwrap_or_default();
        // What can be cut is cut only after something else has failed.
        assert!(count > 0 || call == Call::Length, "{call:?}: {counts:?}");
        let halves = if call == Call::Write { &[false, true][..] } else { &[false] };
        for half in halves.iter().copied() {
            // Half a write is what is hardest to get over.
            let every = if half { every.div_ceil(3) } else { every };
            for nth in (1..=count).step_by(usize::try_from(every).unwrap()) {
                let (_, failed) = run(Some(Fault { call, nth, half, lasts }));
                assert!(failed > 0, "{call:?}:{nth} was never met");
                runs += 1;
            }
        }
    }
    println!("{runs} runs, {counts:?}");
}

#[test]
fn without_a_fault_all_is_there() {
    let (counts, failed) = run(None);
    assert_eq!(failed, 0);
    assert!(counts[&Call::Write] > 120 && counts[&Call::Remove] > 3, "the log goes around: {counts:?}");
}

// shows: IPC-ORD-9, IPC-BOX-15
#[test]
fn every_write_may_fail() {
    sweep(&[Call::Write, Call::Length], 9, false);
}

#[test]
fn every_sync_and_every_name_may_fail() {
    sweep(&[Call::Sync, Call::Names, Call::Make, Call::Rename, Call::Remove], 9, false);
}

#[test]
fn every_file_may_fail_to_be_opened_or_read() {
    sweep(&[Call::Open, Call::Read], 9, false);
}

#[test]
fn what_fails_for_good_is_got_over_once_it_is_mended() {
    sweep(&Call::ALL, 40, true);
}
