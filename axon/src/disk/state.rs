//! What survives a restart: the cache of found peers and the ids of messages that were seen.
//!
//! Both can be lost without harm to anything but comfort and the replay rule, so damage never stops a start:
//! the damaged file is moved aside, what is whole in it is kept, and the caller is told what to say about it.
//! A file that the system cannot open for a while, because it is out of descriptors or memory, is not
//! damaged: it stays where it is.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use axon_proto::id::{AgentId, MsgId};
use axon_proto::limits;
use axon_proto::node::{KnownPeer, Seen};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::fault::{self, Call};
use super::files::{self, DiskError, MODE_PRIVATE};

/// `known_peers.json`, in bytes.
const PEERS_FILE_BYTES_MAX: u64 = 4_194_304;
/// The form of `known_peers.json`.
const PEERS_FILE_VERSION: u32 = 1;

/// How `replay.log` begins: what it is, and the form of its records.
const REPLAY_MAGIC: &[u8; 8] = b"AXONRPL1";
/// Sender (16), id (16), end in Unix milliseconds (8, little endian), CRC-32 of these (4, little endian).
const RECORD_BYTES: usize = 44;
const RECORD_BODY_BYTES: usize = 40;
/// `replay.log` is written anew when it holds this many records beyond twice the live ones.
const REPLAY_SLACK_RECORDS: usize = 4_096;
/// Records that one reading keeps; ids with a long hold come on top of those the node bounds.
const REPLAY_RECORDS_MAX: usize = 4 * limits::REPLAY_IDS_MAX;
const READ_CHUNK_BYTES: usize = 65_536;
/// Records that are written at once.
const WRITE_RECORDS: usize = 1_024;

#[derive(Serialize)]
struct PeersFileRef<'a> {
    version: u32,
    peers: &'a [KnownPeer],
}

#[derive(Deserialize)]
struct PeersFile {
    version: u32,
    peers: Vec<KnownPeer>,
}

/// The cached peers, and a warning if the file was damaged and is now aside.
pub fn load_peers(path: &Path) -> (Vec<KnownPeer>, Option<String>) {
    let warning = match read_cache(path) {
        Ok(peers) => return (peers, None),
        Err(Unreadable { why, passing: true }) => {
            format!("{} cannot be read now ({why}): found peers are found again", path.display())
        }
        Err(Unreadable { why, passing: false }) => aside_warning(path, &why),
    };
    (Vec::new(), Some(warning))
}

/// The cached peers, or what is wrong with the file. Touches nothing.
pub fn read_peers(path: &Path) -> Result<Vec<KnownPeer>, String> {
    read_cache(path).map_err(|error| error.why)
}

/// Why a file says nothing.
struct Unreadable {
    why: String,
    /// It may say something later.
    passing: bool,
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self { passing: is_passing(&error), why: error.to_string() }
    }
}

impl From<String> for Unreadable {
    fn from(why: String) -> Self {
        Self { why, passing: false }
    }
}

/// Whether the system lacks something that it may have again.
fn is_passing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

fn read_cache(path: &Path) -> Result<Vec<KnownPeer>, Unreadable> {
    let file = match open(path, OFlags::RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut text = String::new();
    file.take(PEERS_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > PEERS_FILE_BYTES_MAX {
        return Err(format!("it is longer than {PEERS_FILE_BYTES_MAX} bytes").into());
    }
    let file: PeersFile = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if file.version != PEERS_FILE_VERSION {
        let why = format!("its version is {}, and this axon knows {PEERS_FILE_VERSION}", file.version);
        return Err(why.into());
    }
    let mut peers = file.peers;
    // An id that is not its key's would never pass a handshake.
    peers.retain(|peer| peer.pubkey.agent_id() == peer.agent_id);
    peers.truncate(limits::FOUND_PEERS_MAX);
    for peer in &mut peers {
        peer.addrs.truncate(limits::ADDRS_PER_PEER_MAX);
    }
    Ok(peers)
}

/// Replaces the cache.
#[inline(never)]
pub fn save_peers(path: &Path, peers: &[KnownPeer]) -> Result<(), DiskError> {
    let file = PeersFileRef { version: PEERS_FILE_VERSION, peers };
    let mut text =
        serde_json::to_vec(&file).map_err(|error| DiskError::io("write", path, io::Error::other(error)))?;
    text.push(b'\n');
    files::write_atomic(path, &text, MODE_PRIVATE)
}

/// `replay.log`, open for appending.
///
/// Appends are not forced to the disk: they survive the process, and a power cut costs at most the last ones.
#[derive(Debug)]
pub struct ReplayLog {
    path: PathBuf,
    file: File,
    bytes: u64,
    records: usize,
    rewrite_above: usize,
}

impl ReplayLog {
    /// The log in this file, the ids that have not expired, and a warning if it was damaged.
    pub fn open(path: &Path, now_ms: u64) -> Result<(Self, Vec<Seen>, Option<String>), DiskError> {
        let scan = match scan(path, now_ms) {
            Ok(scan) => scan,
            Err(error) if is_passing(&error) => return Err(DiskError::io("read", path, error)),
            Err(error) => Scan { fault: Some(error.to_string()), ..Scan::default() },
        };
        let mut warning = None;
        if let Some(why) = &scan.fault {
            let kept = scan.live.len();
            let aside = aside_warning(path, why);
            warning = Some(format!("{aside}; {kept} ids that are whole were kept"));
        }
        let bloated = scan.records > rewrite_above(scan.live.len());
        let (file, bytes, records) = if scan.missing || scan.fault.is_some() || bloated {
            rewrite(path, |out| scan.live.iter().try_for_each(|one| out.put(one)))?
        } else {
            let file = open_to_append(path)?;
            // A tail that was torn by a crash would make the next record unreadable.
            fault::before(Call::Length, path)
                .and_then(|()| file.set_len(scan.whole_bytes))
                .map_err(|error| DiskError::io("cut", path, error))?;
            (file, scan.whole_bytes, scan.records)
        };
        let log = Self {
            path: path.to_owned(),
            file,
            bytes,
            records,
            rewrite_above: rewrite_above(scan.live.len()),
        };
        Ok((log, scan.live, warning))
    }

    /// Adds ids in one write, and drops expired ones from the file when it has grown too long.
    #[inline(never)]
    pub fn append(&mut self, seen: &[Seen], now_ms: u64) -> Result<(), DiskError> {
        if seen.is_empty() {
            return Ok(());
        }
        let mut buffer = Vec::new();
        for some in seen.chunks(WRITE_RECORDS) {
            buffer.clear();
            some.iter().for_each(|one| encode(one, &mut buffer));
            let file = &mut self.file;
            if let Err(error) = fault::write(&self.path, &buffer, |bytes| file.write_all(bytes)) {
                // Half a record, on a full disk for one, must not stand before the next.
                self.file.set_len(self.bytes).ok();
                return Err(DiskError::io("write", &self.path, error));
            }
            self.bytes += buffer.len() as u64;
            self.records += some.len();
        }
        if self.records > self.rewrite_above { self.compact(now_ms) } else { Ok(()) }
    }

    /// Forces what was appended to the disk, at the end.
    pub fn sync(&self) -> Result<(), DiskError> {
        fault::sync(Call::Sync, &self.path, || self.file.sync_all())
            .map_err(|error| DiskError::io("sync", &self.path, error))
    }

    fn compact(&mut self, now_ms: u64) -> Result<(), DiskError> {
        // If this fails, the old file goes on; the next try is not at once.
        self.rewrite_above = self.records + REPLAY_SLACK_RECORDS;
        let path = &self.path;
        // From file to file, so that it costs the same memory however many there are.
        (self.file, self.bytes, self.records) = rewrite(path, |out| {
            let mut written = Ok(());
            scan_each(path, now_ms, |seen| {
                if written.is_ok() {
                    written = out.put(&seen);
                }
            })?;
            written
        })?;
        self.rewrite_above = rewrite_above(self.records);
        Ok(())
    }
}

/// What is wrong with the file, if anything. Touches nothing.
pub fn check_replay_log(path: &Path) -> Option<String> {
    match scan(path, 0) {
        Ok(scan) => scan.fault,
        Err(error) => Some(error.to_string()),
    }
}

/// What one reading of the file found.
#[derive(Default)]
struct Scan {
    missing: bool,
    /// Whole records that have not expired.
    live: Vec<Seen>,
    /// Whole records.
    records: usize,
    /// The length up to which all is whole.
    whole_bytes: u64,
    /// What is wrong, where it is more than a torn tail.
    fault: Option<String>,
}

/// Reads all records that are whole.
fn scan(path: &Path, now_ms: u64) -> io::Result<Scan> {
    let mut live = Vec::new();
    let scan = scan_each(path, now_ms, |seen| live.push(seen))?;
    Ok(Scan { live, ..scan })
}

/// Reads all records that are whole, in constant memory, and gives `keep` those that have not expired.
///
/// Between damaged bytes the reading goes on one byte at a time, so that lost or added bytes cost only what
/// they hit.
fn scan_each(path: &Path, now_ms: u64, mut keep: impl FnMut(Seen)) -> io::Result<Scan> {
    let mut kept = 0;
    let mut file = match open(path, OFlags::RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Scan { missing: true, ..Scan::default() });
        }
        Err(error) => return Err(error),
    };
    let mut scan = Scan::default();
    let mut magic = Vec::new();
    (&mut file).take(REPLAY_MAGIC.len() as u64).read_to_end(&mut magic)?;
    if magic != REPLAY_MAGIC {
        // A crash while the file was made leaves less than the magic, and nothing of worth.
        let torn = REPLAY_MAGIC.starts_with(&magic);
        scan.missing = torn;
        scan.fault = (!torn).then(|| "it does not begin as a replay log does".to_owned());
        if torn {
            return Ok(scan);
        }
    }
    scan.whole_bytes = REPLAY_MAGIC.len() as u64;

    let mut buffer: Vec<u8> = Vec::with_capacity(READ_CHUNK_BYTES + RECORD_BYTES);
    // Bytes in a row that belong to no whole record, whether all of them are zero, and whether such a row
    // ended.
    let (mut stray, mut zeros, mut holed) = (0_u64, true, false);
    loop {
        let had = buffer.len();
        if (&mut file).take(READ_CHUNK_BYTES as u64).read_to_end(&mut buffer)? == 0 {
            stray += had as u64;
            zeros &= buffer.iter().all(|byte| *byte == 0);
            break;
        }
        let mut at = 0;
        while let Some(record) = buffer.get(at..at + RECORD_BYTES) {
            let Some(seen) = decode(record) else {
                zeros &= buffer[at] == 0;
                stray += 1;
                at += 1;
                continue;
            };
            holed |= stray > 0;
            (stray, zeros) = (0, true);
            at += RECORD_BYTES;
            scan.records += 1;
            scan.whole_bytes += RECORD_BYTES as u64;
            if seen.until_ms > now_ms && kept < REPLAY_RECORDS_MAX {
                kept += 1;
                keep(seen);
            }
        }
        buffer.drain(..at);
    }
    // A crash cuts the last write short, or leaves zeros where it would have been. More than that is damage.
    let torn_tail = stray < RECORD_BYTES as u64 || zeros;
    if scan.fault.is_none() && (holed || !torn_tail) {
        scan.fault = Some("some of its records are damaged".to_owned());
    }
    Ok(scan)
}

/// Writes the file anew; yields it open to append to, with its length and the number of its records.
fn rewrite(
    path: &Path,
    write: impl FnOnce(&mut Records<'_>) -> io::Result<()>,
) -> Result<(File, u64, usize), DiskError> {
    let (mut bytes, mut records) = (0, 0);
    files::write_atomic_by(path, MODE_PRIVATE, |file| {
        let mut out = Records { file, buffer: REPLAY_MAGIC.to_vec(), bytes: 0, records: 0 };
        write(&mut out)?;
        out.flush()?;
        (bytes, records) = (out.bytes, out.records);
        Ok(())
    })?;
    Ok((open_to_append(path)?, bytes, records))
}

/// Records on their way into a file, many at once.
struct Records<'a> {
    file: &'a mut File,
    buffer: Vec<u8>,
    bytes: u64,
    records: usize,
}

impl Records<'_> {
    fn put(&mut self, seen: &Seen) -> io::Result<()> {
        encode(seen, &mut self.buffer);
        self.records += 1;
        if self.records.is_multiple_of(WRITE_RECORDS) { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

fn rewrite_above(live: usize) -> usize {
    2 * live + REPLAY_SLACK_RECORDS
}

fn encode(seen: &Seen, into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(&seen.from.0);
    into.extend_from_slice(&seen.id.0);
    into.extend_from_slice(&seen.until_ms.to_le_bytes());
    let check = crc32(&into[start..]);
    into.extend_from_slice(&check.to_le_bytes());
}

fn decode(record: &[u8]) -> Option<Seen> {
    let (body, check) = record.split_at_checked(RECORD_BODY_BYTES)?;
    if crc32(body).to_le_bytes() != check {
        return None;
    }
    let (from, rest) = body.split_first_chunk::<16>()?;
    let (id, until) = rest.split_first_chunk::<16>()?;
    Some(Seen { from: AgentId(*from), id: MsgId(*id), until_ms: u64::from_le_bytes(until.try_into().ok()?) })
}

/// CRC-32 as in Ethernet and zip.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    let step = |crc: u32, byte: &u8| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8);
    !bytes.iter().fold(u32::MAX, step)
}

/// Opens a regular file that is no link.
fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    fault::before(Call::Open, path)?;
    let file = File::from(rustix::fs::open(
        path,
        flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

fn open_to_append(path: &Path) -> Result<File, DiskError> {
    open(path, OFlags::WRONLY | OFlags::APPEND).map_err(|error| DiskError::io("open", path, error))
}

/// Moves the file aside and says so.
fn aside_warning(path: &Path, why: &str) -> String {
    match files::set_aside(path) {
        Ok(aside) => {
            format!("{} is damaged ({why}); it is kept as {}", path.display(), aside.display())
        }
        Err(error) => format!("{} is damaged ({why}) and could not be kept aside: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axon_proto::id::PublicKey;

    use super::*;

    fn seen(n: u8, until_ms: u64) -> Seen {
        Seen { from: AgentId([n; 16]), id: MsgId::from_random([n; 16]), until_ms }
    }

    fn peer(n: u8) -> KnownPeer {
        let pubkey = PublicKey([n; 32]);
        let addrs = vec!["[::1]:7100".parse().unwrap(), "192.0.2.1:7100".parse().unwrap()];
        KnownPeer { agent_id: pubkey.agent_id(), pubkey, addrs, last_seen_ms: 1_700_000_000_000 }
    }

    #[test]
    fn a_file_that_cannot_be_opened_for_a_while_is_not_damaged() {
        use super::super::fault::{Armed, Fault};
        let dir = tempfile::tempdir().unwrap();
        let (peers, log) = (dir.path().join("peers"), dir.path().join("log"));
        save_peers(&peers, &[peer(1)]).unwrap();
        let (mut open, ..) = ReplayLog::open(&log, 0).unwrap();
        open.append(&[seen(1, 100)], 0).unwrap();
        let lasts = Fault { call: Call::Open, nth: 1, half: false, lasts: true };
        let armed = Armed::new(dir.path(), Some(lasts));
        let (found, warning) = load_peers(&peers);
        assert!(found.is_empty() && warning.unwrap().contains("cannot be read now"));
        assert!(ReplayLog::open(&log, 0).unwrap_err().to_string().contains("Too many open files"));
        armed.heal();
        assert_eq!(load_peers(&peers), (vec![peer(1)], None));
        let (_, found, warning) = ReplayLog::open(&log, 0).unwrap();
        assert_eq!((found, warning, asides(dir.path())), (vec![seen(1, 100)], None, 0));
    }

    fn asides(dir: &Path) -> usize {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".damaged-")).count()
    }

    #[test]
    fn peers_come_back_and_damage_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_peers.json");
        assert_eq!(load_peers(&path), (Vec::new(), None));
        save_peers(&path, &[peer(1), peer(2)]).unwrap();
        assert_eq!(load_peers(&path), (vec![peer(1), peer(2)], None));

        for (done, damage) in
            ["", "{\"version\":1,\"peers\":[", "[]", "{\"version\":2,\"peers\":[]}", "\u{1}"]
                .iter()
                .enumerate()
        {
            fs::write(&path, damage).unwrap();
            let (peers, warning) = load_peers(&path);
            assert!(peers.is_empty() && warning.unwrap().contains(".damaged-"), "{damage}");
            assert!(!path.exists());
            assert_eq!(asides(dir.path()), done + 1);
        }
        assert_eq!(load_peers(&path), (Vec::new(), None));
    }

    #[test]
    fn a_cached_peer_with_anothers_key_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_peers.json");
        let wrong = KnownPeer { pubkey: PublicKey([9; 32]), ..peer(1) };
        save_peers(&path, &[wrong, peer(2)]).unwrap();
        assert_eq!(load_peers(&path), (vec![peer(2)], None));
    }

    #[test]
    fn the_checksum_is_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert!(decode(&[0; RECORD_BYTES]).is_none(), "zeros are no record");
    }

    #[test]
    fn seen_ids_come_back_until_they_expire() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("replay.log");
        let (mut log, live, warning) = ReplayLog::open(&path, 0).unwrap();
        assert!(live.is_empty() && warning.is_none());
        log.append(&[seen(1, 100), seen(2, 200)], 0).unwrap();
        log.append(&[seen(3, 300)], 0).unwrap();
        drop(log);
        let (mut log, live, warning) = ReplayLog::open(&path, 100).unwrap();
        assert_eq!((live, warning), (vec![seen(2, 200), seen(3, 300)], None));
        log.append(&[seen(4, 400)], 100).unwrap();
        log.sync().unwrap();
        let (_, live, _) = ReplayLog::open(&path, 250).unwrap();
        assert_eq!(live, vec![seen(3, 300), seen(4, 400)]);
    }

    #[test]
    fn a_torn_tail_is_cut_without_a_word() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("replay.log");
        let (mut log, ..) = ReplayLog::open(&path, 0).unwrap();
        log.append(&[seen(1, 100), seen(2, 100)], 0).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut log, live, warning) = ReplayLog::open(&path, 0).unwrap();
            assert_eq!(live.len(), cut.saturating_sub(8) / RECORD_BYTES, "cut at {cut}");
            assert_eq!(warning, None);
            log.append(&[seen(3, 100)], 0).unwrap();
            let (_, again, warning) = ReplayLog::open(&path, 0).unwrap();
            assert_eq!((again.len(), warning), (live.len() + 1, None), "cut at {cut}");
        }
        let zeros = [whole.clone(), vec![0; 1000]].concat();
        fs::write(&path, zeros).unwrap();
        let (_, live, warning) = ReplayLog::open(&path, 0).unwrap();
        assert_eq!((live.len(), warning), (2, None));
        assert_eq!(fs::read(&path).unwrap(), whole);
        assert_eq!(asides(dir.path()), 0);
    }

    #[test]
    fn a_damaged_middle_is_kept_aside_and_costs_only_what_it_hit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("replay.log");
        let (mut log, ..) = ReplayLog::open(&path, 0).unwrap();
        let all: Vec<Seen> = (1..=4).map(|n| seen(n, 100)).collect();
        log.append(&all, 0).unwrap();
        let whole = fs::read(&path).unwrap();

        let flipped = {
            let mut bytes = whole.clone();
            bytes[8 + RECORD_BYTES + 5] ^= 1;
            bytes
        };
        let shortened = [&whole[..8 + RECORD_BYTES + 5], &whole[8 + RECORD_BYTES + 6..]].concat();
        let no_magic = {
            let mut bytes = whole.clone();
            bytes[0] = b'x';
            bytes
        };
        let end = {
            let mut bytes = whole.clone();
            let at = whole.len() - 50;
            bytes[at] ^= 1;
            bytes
        };
        let others = [
            vec![all[0], all[2], all[3]],
            vec![all[0], all[2], all[3]],
            all.clone(),
            vec![all[0], all[1], all[3]],
        ];
        for (damaged, kept) in [flipped, shortened, no_magic, end].iter().zip(others) {
            fs::write(&path, damaged).unwrap();
            assert!(check_replay_log(&path).is_some());
            let (_, live, warning) = ReplayLog::open(&path, 0).unwrap();
            assert_eq!(live, kept);
            let warning = warning.unwrap();
            assert!(warning.contains(".damaged-") && warning.contains("were kept"), "{warning}");
            assert_eq!(ReplayLog::open(&path, 0).unwrap().1, kept, "the new file is whole");
        }
        assert_eq!(asides(dir.path()), 4);
    }

    #[test]
    fn the_file_does_not_grow_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("replay.log");
        let (mut log, ..) = ReplayLog::open(&path, 0).unwrap();
        for now in 0..100 {
            let batch: Vec<Seen> = (0..200).map(|n| seen(n, now + 2)).collect();
            log.append(&batch, now).unwrap();
        }
        let most = (2 * 600 + REPLAY_SLACK_RECORDS + 200) * RECORD_BYTES;
        assert!(fs::metadata(&path).unwrap().len() <= most as u64);
        assert!(ReplayLog::open(&path, 100).unwrap().1.iter().all(|seen| seen.until_ms > 100));
    }
}
