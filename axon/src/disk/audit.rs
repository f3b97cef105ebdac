//! `audit.jsonl`: what was decided about whom, one row a line. Bounded: at [`AUDIT_BYTES_MAX`] it becomes
//! `audit.jsonl.1`, in place of the one before.
//!
//! Source: `spec/TRUST.md`, "Audit". Rows are not forced to the disk one by one: they survive the process,
//! and a power cut costs at most the last ones. The node counts repeats, so that rows are few, and the file
//! is opened for each: who moves it away finds the next row in a new one.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use axon_proto::audit::Row;
use rustix::fs::{Mode, OFlags};

use super::fault::{self, Call};
use super::files::{DiskError, MODE_PRIVATE, OTHERS_BITS, is_ours};
use super::root::Root;

/// The file, in bytes; then another is begun.
pub const AUDIT_BYTES_MAX: u64 = 4_194_304;
/// A row, in bytes, when the file is checked.
const ROW_BYTES_MAX: u64 = 4_096;

/// The log, to append to.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    before: PathBuf,
    /// The last row was not written, and that was told.
    failing: bool,
}

impl AuditLog {
    /// The log of a root. Touches nothing.
    pub fn new(root: &Root) -> Self {
        Self { path: root.audit(), before: root.audit_before(), failing: false }
    }

    /// Appends a row. What fails is told once, until it works again.
    #[inline(never)]
    pub fn append(&mut self, row: &Row) {
        match self.write(row) {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    tracing::warn!("the audit log is not written: {error}");
                }
                self.failing = true;
            }
        }
    }

    fn write(&self, row: &Row) -> Result<(), DiskError> {
        let fail = |error: io::Error| DiskError::io("write", &self.path, error);
        let mut line = serde_json::to_vec(row).map_err(|error| fail(error.into()))?;
        line.push(b'\n');
        let mut file = self.open()?;
        let mut bytes = file.metadata().map_err(fail)?.len();
        if bytes > 0 && bytes + line.len() as u64 > AUDIT_BYTES_MAX {
            fault::before(Call::Rename, &self.path)
                .and_then(|()| fs::rename(&self.path, &self.before))
                .map_err(fail)?;
            file = self.open()?;
            bytes = 0;
        }
        // A line that a crash has cut short must not swallow this one.
        let mut last = [b'\n'];
        if bytes > 0 {
            fault::before(Call::Read, &self.path)
                .and_then(|()| file.read_exact_at(&mut last, bytes - 1))
                .map_err(fail)?;
        }
        if last != [b'\n'] {
            line.insert(0, b'\n');
        }
        fault::write(&self.path, &line, |line| file.write_all(line)).map_err(fail)
    }

    fn open(&self) -> Result<File, DiskError> {
        let fail = |error: io::Error| DiskError::io("open", &self.path, error);
        // Non-blocking, so that a pipe in the file's place holds nothing up.
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW;
        let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
        fault::before(Call::Open, &self.path).map_err(fail)?;
        let fd = rustix::fs::open(&self.path, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(fd.map_err(|error| fail(error.into()))?);
        let about = file.metadata().map_err(fail)?;
        if !about.is_file() || !is_ours(about.uid()) {
            let text = format!("{} is no regular file of this user: move it away", self.path.display());
            return Err(DiskError::Refused(text));
        }
        if about.mode() & OTHERS_BITS != 0 {
            file.set_permissions(Permissions::from_mode(MODE_PRIVATE)).map_err(fail)?;
        }
        Ok(file)
    }
}

/// What one reading of a file found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Lines that are rows.
    pub rows: usize,
    /// Lines that are none, and the number of the first, counted from 1.
    pub wrong: Option<(usize, usize)>,
}

/// Looks whether all lines of a file are rows; none when there is no file. Touches nothing.
pub fn scan(path: &Path) -> io::Result<Option<Scan>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut reader = BufReader::new(file.take(2 * AUDIT_BYTES_MAX));
    let mut found = Scan::default();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.by_ref().take(ROW_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let text = line.trim_ascii();
        if serde_json::from_slice::<Row>(text).is_ok() {
            found.rows += 1;
        } else if !text.is_empty() {
            let (wrong, first) = found.wrong.unwrap_or((0, number));
            found.wrong = Some((wrong + 1, first));
        }
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use axon_proto::audit::Event;
    use axon_proto::id::AgentId;

    use super::super::files::MODE_BITS;
    use super::*;

    fn row(n: u64) -> Row {
        Row {
            at_ms: n,
            until_ms: None,
            event: Event::Refused,
            peer: Some(AgentId([1; 16])),
            socket: None,
            rule: "policy.unknown.kinds".into(),
            count: n,
        }
    }

    fn log() -> (tempfile::TempDir, Root, AuditLog) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let log = AuditLog::new(&root);
        (dir, root, log)
    }

    #[test]
    fn rows_are_lines_and_a_torn_one_swallows_no_other() {
        let (_dir, root, mut log) = log();
        assert_eq!(scan(&root.audit()).unwrap(), None);
        log.append(&row(1));
        log.append(&row(2));
        let text = fs::read_to_string(root.audit()).unwrap();
        let first = format!(
            "{{\"at_ms\":1,\"event\":\"refused\",\"peer\":\"{}\",\"rule\":\"policy.unknown.kinds\",\"count\":1}}",
            AgentId([1; 16])
        );
        assert_eq!(text.lines().next(), Some(&*first));
        assert_eq!(text.lines().map(serde_json::from_str::<Row>).filter_map(Result::ok).count(), 2);
        assert_eq!(fs::metadata(root.audit()).unwrap().mode() & MODE_BITS, 0o600);
        assert_eq!(scan(&root.audit()).unwrap(), Some(Scan { rows: 2, wrong: None }));

        fs::write(root.audit(), &text[..text.len() - 9]).unwrap();
        fs::set_permissions(root.audit(), Permissions::from_mode(0o644)).unwrap();
        log.append(&row(3));
        let found = scan(&root.audit()).unwrap();
        assert_eq!(found, Some(Scan { rows: 2, wrong: Some((1, 2)) }));
        assert_eq!(fs::metadata(root.audit()).unwrap().mode() & MODE_BITS, 0o600);
        fs::write(root.audit(), "").unwrap();
        log.append(&row(4));
        assert_eq!(scan(&root.audit()).unwrap(), Some(Scan { rows: 1, wrong: None }));
    }

    // shows: TRUST-AUD-4
    #[test]
    fn it_never_grows_beyond_its_bound() {
        let (_dir, root, mut log) = log();
        let line = serde_json::to_string(&row(10_000)).unwrap().len() as u64 + 1;
        let rows = AUDIT_BYTES_MAX / line;
        let full = format!("{}\n", serde_json::to_string(&row(10_000)).unwrap()).repeat(rows as usize);
        fs::write(root.audit(), &full).unwrap();
        fs::write(root.audit_before(), "older").unwrap();
        log.append(&row(10_001));
        assert_eq!(fs::read_to_string(root.audit_before()).unwrap(), full);
        assert_eq!(scan(&root.audit()).unwrap(), Some(Scan { rows: 1, wrong: None }));
        assert!(fs::metadata(root.audit_before()).unwrap().len() <= AUDIT_BYTES_MAX);
        for n in 0..5 {
            log.append(&row(n));
        }
        assert_eq!(scan(&root.audit()).unwrap().unwrap().rows, 6);
    }

    // shows: TRUST-AUD-5
    #[test]
    fn it_is_not_written_through_a_link_and_works_again_later() {
        let (dir, root, mut log) = log();
        let target = dir.path().join("target");
        fs::write(&target, "keep").unwrap();
        std::os::unix::fs::symlink(&target, root.audit()).unwrap();
        log.append(&row(1));
        assert!(log.failing);
        assert!(scan(&root.audit()).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "keep");
        fs::remove_file(root.audit()).unwrap();
        log.append(&row(2));
        assert!(!log.failing);
        assert_eq!(scan(&root.audit()).unwrap().unwrap().rows, 1);
        fs::remove_file(root.audit()).unwrap();
        fs::create_dir(root.audit()).unwrap();
        log.append(&row(3));
        assert!(log.failing && scan(&root.audit()).is_err());
    }
}
