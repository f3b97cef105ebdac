//! A directory of files, as the store sees it.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use axon_proto::store::files::{FileError, FileId, Files};
use rustix::fs::{Mode, OFlags};

use super::super::fault::{self, Call};
use super::super::files::{DiskError, OTHERS_BITS, is_ours, random};
use super::super::root::ROOT_MODE;

/// The directory, and what of it is open.
pub(super) struct Directory {
    path: PathBuf,
    dir: File,
    open: HashMap<FileId, File>,
    next: u32,
}

impl Directory {
    /// Makes the directory if there is none.
    pub(super) fn open(path: &Path) -> Result<Self, DiskError> {
        let make = || DirBuilder::new().mode(ROOT_MODE).create(path);
        match fault::before(Call::Make, path).and_then(|()| make()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made.and_then(|()| sync_parent(path)).map_err(|error| DiskError::io("make", path, error))?
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fault::before(Call::Open, path).map_err(|error| DiskError::io("open", path, error))?;
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
    let parent = parent.unwrap_or(Path::new("."));
    fault::sync(Call::Names, parent, || File::open(parent).and_then(|dir| dir.sync_all()))
}

fn failed(error: rustix::io::Errno) -> FileError {
    FileError(io::Error::from(error).to_string())
}

fn says(error: io::Error) -> FileError {
    FileError(error.to_string())
}

impl Files for Directory {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
        fault::before(Call::Open, &self.path).map_err(says)?;
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
        fault::before(if create { Call::Make } else { Call::Open }, &self.path).map_err(says)?;
        let file = self.at(name, flags)?;
        Ok(self.keep(file))
    }

    fn scratch(&mut self) -> Result<FileId, FileError> {
        // Not every file system has files without a name from the beginning.
        let name =
            format!(".scratch-{:016x}", u64::from_le_bytes(random().map_err(|e| FileError(e.to_string()))?));
        fault::before(Call::Make, &self.path).map_err(says)?;
        let file = self.at(&name, OFlags::CREATE | OFlags::EXCL)?;
        rustix::fs::unlinkat(&self.dir, &name, rustix::fs::AtFlags::empty()).map_err(failed)?;
        Ok(self.keep(file))
    }

    fn close(&mut self, file: FileId) {
        self.open.remove(&file);
    }

    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
        let file = self.file(file)?;
        fault::before(Call::Read, &self.path).map_err(says)?;
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
        let file = self.file(file)?;
        fault::write(&self.path, bytes, |bytes| file.write_all_at(bytes, offset)).map_err(says)
    }

    fn set_len(&mut self, file: FileId, bytes: u64) -> Result<(), FileError> {
        let file = self.file(file)?;
        fault::before(Call::Length, &self.path).and_then(|()| file.set_len(bytes)).map_err(says)
    }

    fn sync(&mut self, file: FileId) -> Result<(), FileError> {
        let file = self.file(file)?;
        fault::sync(Call::Sync, &self.path, || file.sync_data()).map_err(says)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError> {
        fault::before(Call::Rename, &self.path).map_err(says)?;
        rustix::fs::renameat(&self.dir, from, &self.dir, to).map_err(failed)
    }

    fn remove(&mut self, name: &str) -> Result<(), FileError> {
        fault::before(Call::Remove, &self.path).map_err(says)?;
        rustix::fs::unlinkat(&self.dir, name, rustix::fs::AtFlags::empty()).map_err(failed)
    }

    fn sync_names(&mut self) -> Result<(), FileError> {
        fault::sync(Call::Names, &self.path, || self.dir.sync_all()).map_err(says)
    }
}
