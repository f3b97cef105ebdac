//! Where `axon top` has it from: two connections to the socket, and the tail of the audit log.
//!
//! One connection asks, as the consumer whose unread messages are counted. The other listens, as a consumer
//! of its own that acknowledges nothing: looking on changes nothing for anybody who reads.

use std::collections::HashMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use axon_client::{Client, ClientError, Delegation, DelegationFilter, Event, Peer, Status, Subscription};
use axon_proto::error::IpcCode;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::super::{Context, audit, link, peers, show};
use super::model::{LogLine, Update, line, told};
use crate::disk::files::unix_ms;

/// Between two looks, and between two attempts to reach a daemon that is away.
const LOOK: Duration = Duration::from_secs(1);
/// What costs the daemon more is asked no more often than this.
const SELDOM: Duration = Duration::from_secs(2);
/// Whose events these are. It acknowledges nothing.
const EARS: &str = "top";
/// Delegations that are asked for.
const WORK_MAX: u64 = 100;
/// How much of the audit log is read at once, and of what was there before.
const TAIL_BYTES: u64 = 65_536;
const TAIL_FIRST_BYTES: u64 = 2_048;

/// Tells what comes, for ever; while the daemon is away, that it is, and tries again.
pub async fn feed(cx: &Context, updates: &Sender<Update>) {
    let mut tail = Tail::of(cx);
    loop {
        if let Err(error) = attend(cx, updates, &mut tail).await {
            let why = cx.failure(error).message;
            if updates.send(Update::Away(line(&why))).await.is_err() {
                return;
            }
        }
        sleep(LOOK).await;
    }
}

/// All that there is to be seen at this moment.
pub struct Snapshot {
    /// Who the daemon is.
    pub who: String,
    /// What it counts.
    pub status: Status,
    /// Whom it knows.
    pub peers: Vec<Peer>,
    /// The newest delegations; none where this socket may not see them.
    pub delegations: Option<Vec<Delegation>>,
    /// The end of the audit log.
    pub log: Vec<LogLine>,
}

/// Looks once.
pub async fn snapshot(cx: &Context) -> Result<Snapshot, ClientError> {
    let client = cx.reach(link::CONSUMER).await?;
    let peers = client.peers_unread().await?.peers;
    Ok(Snapshot {
        who: who(&client).await?,
        status: client.status().await?,
        delegations: work(&client, false).await?,
        log: Tail::of(cx).look(&names(&peers)),
        peers,
    })
}

/// One time with the daemon, until it goes away.
async fn attend(cx: &Context, updates: &Sender<Update>, tail: &mut Tail) -> Result<(), ClientError> {
    let client = cx.reach(link::CONSUMER).await?;
    let ears = cx.reach(EARS).await?;
    let tell = async |update| updates.send(update).await.map_err(|_| ClientError::Closed);
    tell(Update::Up(who(&client).await?)).await?;
    let live = Subscription { replay: Some(false), ..Subscription::default() };
    if allowed(ears.subscribe(&live).await)?.is_none() {
        let text = "this socket may not read messages: none are shown".to_owned();
        tell(Update::Log(LogLine { at_ms: unix_ms(), from: "top", text })).await?;
    }
    tell(Update::Delegations(work(&ears, true).await?)).await?;
    let mut poll = Poll::new();
    let mut clock = interval(LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {
                for update in poll.look(&client).await? {
                    tell(update).await?;
                }
                for line in tail.look(&poll.names) {
                    tell(Update::Log(line)).await?;
                }
            }
            event = ears.next_event() => {
                let event = event?;
                poll.work |= matches!(event, Event::Delegation(_) | Event::Missed);
                if matches!(event, Event::SlowConsumer { .. }) {
                    // What was missed is left out; what comes from now on is shown again.
                    allowed(ears.subscribe(&live).await)?;
                }
                if let Some(line) = told(&event, &poll.names, unix_ms()) {
                    tell(Update::Log(line)).await?;
                }
            }
        }
    }
}

/// What is asked again and again.
struct Poll {
    began: Instant,
    /// Unread messages when they were counted last, those of each sender, and when that was.
    unread: Option<u64>,
    unread_of: HashMap<String, u64>,
    counted: Option<Instant>,
    /// Whether a delegation has changed.
    work: bool,
    /// What peers are called, by their ids.
    names: HashMap<String, String>,
}

impl Poll {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            unread: None,
            unread_of: HashMap::new(),
            counted: None,
            work: false,
            names: HashMap::new(),
        }
    }

    async fn look(&mut self, client: &Client) -> Result<Vec<Update>, ClientError> {
        let status = client.status().await?;
        let at_ms = link::millis(self.began.elapsed());
        // To count by senders the daemon reads its disk: only when the number has changed.
        let stale = self.unread != Some(status.inbox_unread);
        let seldom = self.counted.is_none_or(|at| at.elapsed() >= SELDOM);
        let mut peers = if stale && seldom {
            self.counted = Some(Instant::now());
            self.unread = Some(status.inbox_unread);
            let peers = client.peers_unread().await?.peers;
            let count = |peer: &Peer| Some((peer.id.clone(), peer.unread?));
            self.unread_of = peers.iter().filter_map(count).collect();
            peers
        } else {
            client.peers().await?
        };
        for peer in &mut peers {
            peer.unread = self.unread_of.get(&peer.id).copied();
        }
        self.names = names(&peers);
        let mut updates = vec![Update::Status(Box::new(status), at_ms), Update::Peers(peers)];
        if std::mem::take(&mut self.work) {
            updates.push(Update::Delegations(work(client, false).await?));
        }
        Ok(updates)
    }
}

/// What peers are called, by their ids.
fn names(peers: &[Peer]) -> HashMap<String, String> {
    let named = |peer: &Peer| peer.name.is_some().then(|| (peer.id.clone(), peers::called(peer)));
    peers.iter().filter_map(named).collect()
}

async fn who(client: &Client) -> Result<String, ClientError> {
    let who = client.whoami().await?;
    let name = who.name.map(|name| format!("{} ", line(&name))).unwrap_or_default();
    Ok(format!("{name}{}", show::short(&who.agent_id)))
}

/// The newest delegations, if this socket may see them.
async fn work(client: &Client, watch: bool) -> Result<Option<Vec<Delegation>>, ClientError> {
    let filter = DelegationFilter { limit: Some(WORK_MAX), watch, ..DelegationFilter::default() };
    Ok(allowed(client.delegations(&filter).await)?.map(|page| page.delegations))
}

/// None for what a scoped socket may not do.
fn allowed<T>(done: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match done {
        Err(ClientError::Ipc { code, .. }) if code == IpcCode::NotAuthorized.as_str() => Ok(None),
        done => done.map(Some),
    }
}

/// The end of the audit log, as it grows. Only the owner's own files have one.
struct Tail {
    path: Option<PathBuf>,
    /// Which file it is, and how far it was read.
    read: Option<(u64, u64)>,
}

impl Tail {
    fn of(cx: &Context) -> Self {
        Self { path: cx.socket.is_none().then(|| cx.root.audit()), read: None }
    }

    /// The rows that are new. A log that cannot be read has none: `axon audit` says why.
    fn look(&mut self, names: &HashMap<String, String>) -> Vec<LogLine> {
        self.fresh(names).unwrap_or_default()
    }

    fn fresh(&mut self, names: &HashMap<String, String>) -> Option<Vec<LogLine>> {
        let mut file = audit::open(self.path.as_ref()?).ok()??;
        let about = file.metadata().ok()?;
        let (mut at, mut whole) = match self.read {
            None => (about.len().saturating_sub(TAIL_FIRST_BYTES), about.len() <= TAIL_FIRST_BYTES),
            Some((inode, at)) if inode == about.ino() && at <= about.len() => (at, true),
            // It has begun anew.
            Some(_) => (0, true),
        };
        file.seek(SeekFrom::Start(at)).ok()?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
        // A row that is half written comes the next time.
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let skipped = end == 0 && bytes.len() as u64 == TAIL_BYTES;
        at += if skipped { TAIL_BYTES } else { end as u64 };
        self.read = Some((about.ino(), at));
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut rows = Vec::new();
        for row in text.lines() {
            // The first is only the rest of one, where it was begun in its middle.
            if std::mem::replace(&mut whole, true)
                && let Some((at_ms, text)) = audit::told(row, names)
            {
                rows.push(LogLine { at_ms, from: "audit", text: line(&text) });
            }
        }
        Some(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_tail_gives_each_row_once_also_when_the_log_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let row = |n: u64| format!("{{\"at_ms\":{n},\"event\":\"refused\",\"rule\":\"r{n}\"}}\n");
        let mut tail = Tail { path: Some(path.clone()), read: None };
        assert!(tail.look(&HashMap::new()).is_empty(), "there is none yet");
        let times =
            |tail: &mut Tail| tail.look(&HashMap::new()).iter().map(|line| line.at_ms).collect::<Vec<_>>();
        let old: String = (0..200).map(row).collect();
        fs::write(&path, &old).unwrap();
        let first = times(&mut tail);
        assert!(first.len() > 10 && first.len() < 60 && first.last() == Some(&199), "{first:?}");
        assert!(times(&mut tail).is_empty());
        let mut file = fs::File::options().append(true).open(&path).unwrap();
        let next = row(200);
        file.write_all(&next.as_bytes()[..10]).unwrap();
        assert!(times(&mut tail).is_empty(), "half a row");
        file.write_all(&next.as_bytes()[10..]).unwrap();
        file.write_all(b"no row\n").unwrap();
        assert_eq!(times(&mut tail), [200]);
        fs::rename(&path, dir.path().join("before")).unwrap();
        fs::write(&path, row(201)).unwrap();
        assert_eq!(times(&mut tail), [201]);
        assert!(Tail { path: None, read: None }.look(&HashMap::new()).is_empty());
    }
}
