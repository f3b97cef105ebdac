//! A client's file: read whole, kept aside before it is changed, and replaced in one step.
//!
//! It is somebody else's. So a link stays a link, mode and owner stay what they are, and what has changed
//! between reading and writing is not written over.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};

use super::super::output::CliError;
use crate::disk::files::{self, DiskError, MODE_BITS, MODE_PRIVATE};
use crate::disk::root::ROOT_MODE;

/// A client's file is not longer: some keep their history in it.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The byte order mark, which some editors write and no parser wants.
const MARK: &str = "\u{feff}";
/// What the copy is called that is made before the first change, and never written over.
const FIRST: &str = ".before-axon";
/// The one that is made before each later change, in the place of the one before.
const LAST: &str = ".before-axon-last";
const WRITE_BITS: u32 = 0o222;

/// A file as it was found.
#[derive(Debug)]
pub struct Place {
    /// What the client opens.
    pub path: PathBuf,
    /// What is written: the same, or what it links to.
    real: PathBuf,
    found: Option<Found>,
}

#[derive(Debug)]
struct Found {
    text: String,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Place {
    /// Reads it, if it is there.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let path = path.to_owned();
        let real = match fs::symlink_metadata(&path) {
            Ok(about) if about.file_type().is_symlink() => fs::canonicalize(&path).map_err(|error| {
                let shown = path.display();
                io_failure(format!("{shown} is a link that leads nowhere ({error}): mend or remove it"))
            })?,
            _ => path.clone(),
        };
        let found = Found::read(&real)?;
        Ok(Self { path, real, found })
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.found.is_some()
    }

    /// What is in it, without a byte order mark; empty where it is not there.
    pub fn text(&self) -> &str {
        let text = self.found.as_ref().map_or("", |found| found.text.as_str());
        text.strip_prefix(MARK).unwrap_or(text)
    }

    /// What was in it before axon changed it first, where that is known.
    pub fn first_text(&self) -> Option<String> {
        let found = Found::read(&self.beside(FIRST)).ok()??;
        Some(found.text.strip_prefix(MARK).unwrap_or(&found.text).to_owned())
    }

    /// Writes this text in its place, and says where the old one is kept.
    pub fn write(&self, text: &str) -> Result<Option<PathBuf>, CliError> {
        let shown = self.path.display();
        let Some(found) = &self.found else {
            if let Some(dir) = self.path.parent() {
                let made = DirBuilder::new().recursive(true).mode(ROOT_MODE).create(dir);
                made.map_err(|error| io_failure(format!("cannot make {}: {error}", dir.display())))?;
            }
            let made = files::create_atomic(&self.path, text.as_bytes(), MODE_PRIVATE);
            return if made.map_err(|error| self.disk(error))? { Ok(None) } else { Err(self.changed()) };
        };
        if found.mode & WRITE_BITS == 0 {
            return Err(io_failure(format!(
                "{shown} may not be written (mode {:04o}): chmod u+w it, or add the entry where it is made \
                 (--print shows it)",
                found.mode
            )));
        }
        let backup = self.keep(found)?;
        let mark = if found.text.starts_with(MARK) { MARK } else { "" };
        let mut changed = false;
        let written = files::write_atomic_by(&self.real, found.mode, |file| {
            file.write_all(mark.as_bytes())?;
            file.write_all(text.as_bytes())?;
            found.give(file)?;
            // As late as can be: the client may run and write, too.
            changed = fs::read(&self.real).ok().as_deref() != Some(found.text.as_bytes());
            if changed { Err(io::Error::other("it has changed")) } else { Ok(()) }
        });
        match written {
            Ok(()) => Ok(Some(backup)),
            Err(_) if changed => Err(self.changed()),
            Err(error) => Err(self.disk(error)),
        }
    }

    /// Copies it aside, with its mode and owner: it may hold secrets.
    fn keep(&self, found: &Found) -> Result<PathBuf, CliError> {
        let first = self.beside(FIRST);
        let path = match fs::symlink_metadata(&first) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => first,
            _ if Found::read(&first).is_ok_and(|kept| kept.is_some_and(|kept| kept.text == found.text)) => {
                return Ok(first);
            }
            _ => self.beside(LAST),
        };
        let copied = files::write_atomic_by(&path, found.mode, |file| {
            file.write_all(found.text.as_bytes())?;
            found.give(file)
        });
        copied.map_err(|error| io_failure(format!("{error}; nothing was changed")))?;
        Ok(path)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(ending);
        name.into()
    }

    fn changed(&self) -> CliError {
        let shown = self.path.display();
        io_failure(format!("{shown} was changed by somebody else just now: run this again"))
    }

    fn disk(&self, error: DiskError) -> CliError {
        let target = if self.real == self.path {
            String::new()
        } else {
            format!(" ({} links to it)", self.path.display())
        };
        io_failure(format!("{error}{target}; add the entry where the file is made (--print shows it)"))
    }
}

impl Found {
    fn read(path: &Path) -> Result<Option<Self>, CliError> {
        let shown = path.display();
        let fail = |error: io::Error| io_failure(format!("cannot read {shown}: {error}"));
        let about = match fs::metadata(path) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        if !about.is_file() {
            return Err(io_failure(format!("{shown} is no regular file: move it away")));
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(fail)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
            let text = format!("{shown} is longer than {FILE_BYTES_MAX} bytes: add the entry by hand");
            return Err(io_failure(text));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let good = error.as_bytes().get(..at).unwrap_or_default();
            let line = good.split(|byte| *byte == b'\n').count();
            let text = format!("{shown} is not UTF-8 in line {line}: save it as UTF-8; nothing was changed");
            CliError::local("invalid_config", text)
        })?;
        Ok(Some(Self { text, mode: about.mode() & MODE_BITS, uid: about.uid(), gid: about.gid() }))
    }

    /// Gives a new file to whom the old one belongs.
    fn give(&self, file: &File) -> io::Result<()> {
        let about = file.metadata()?;
        if (about.uid(), about.gid()) != (self.uid, self.gid) {
            rustix::fs::fchown(file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        }
        Ok(())
    }
}

fn io_failure(text: String) -> CliError {
    CliError::local("io", text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let missing = Place::read(&path).unwrap();
        fs::write(&path, "theirs").unwrap();
        let late = missing.write("ours").unwrap_err();
        assert!(late.message.contains("run this again"), "{late}");

        let found = Place::read(&path).unwrap();
        fs::write(&path, "theirs again").unwrap();
        let late = found.write("ours").unwrap_err();
        assert!(late.message.contains("run this again"), "{late}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs again");
        assert_eq!(names(dir.path()), ["x.json", "x.json.before-axon"], "no temporary file is left");
    }

    /// What is called like a copy may be a link to something that is not to be written.
    #[test]
    fn a_copy_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("x.json"), dir.path().join("other"));
        fs::write(&path, "1").unwrap();
        fs::write(&other, "precious").unwrap();
        for ending in [FIRST, LAST] {
            symlink(&other, dir.path().join(format!("x.json{ending}"))).unwrap();
        }
        let kept = Place::read(&path).unwrap().write("2").unwrap().unwrap();
        assert_eq!(kept, dir.path().join("x.json.before-axon-last"));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!((read(&path), read(&kept), read(&other)), ("2".into(), "1".into(), "precious".into()));
    }
}
