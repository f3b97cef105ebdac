//! A directory in memory: for `ipc.durable = false`, and for tests. Its handles are clones of one another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;

use super::files::{FileError, FileId, Files};

/// Files that vanish with the process.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<Directory>>);

#[derive(Debug, Default)]
struct Directory {
    names: BTreeMap<String, u32>,
    /// A file stays while it has a name or is open.
    files: HashMap<u32, Vec<u8>>,
    open: HashMap<FileId, u32>,
    made: u32,
}

impl Memory {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Directory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    fn number(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    fn hand_out(&mut self, file: u32) -> FileId {
        let id = FileId(self.number());
        self.open.insert(id, file);
        id
    }

    fn content(&mut self, file: FileId) -> Result<&mut Vec<u8>, FileError> {
        let file = self.open.get(&file).and_then(|file| self.files.get_mut(file));
        file.ok_or_else(|| FileError("the file is not open".into()))
    }

    fn drop_unused(&mut self, file: u32) {
        let used = self.open.values().chain(self.names.values()).any(|used| *used == file);
        if !used {
            self.files.remove(&file);
        }
    }
}

fn missing() -> FileError {
    FileError("there is no such file".into())
}

impl Files for Memory {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
        let directory = self.lock();
        let bytes = |file| directory.files.get(file).map_or(0, |content| content.len() as u64);
        Ok(directory.names.iter().map(|(name, file)| (name.clone(), bytes(file))).collect())
    }

    fn open(&mut self, name: &str, create: bool) -> Result<FileId, FileError> {
        let mut directory = self.lock();
        let file = match (directory.names.get(name).copied(), create) {
            (Some(file), false) => file,
            (None, false) => return Err(missing()),
            (Some(_), true) => return Err(FileError("the file exists".into())),
            (None, true) => {
                let file = directory.number();
                directory.files.insert(file, Vec::new());
                directory.names.insert(name.to_owned(), file);
                file
            }
        };
        Ok(directory.hand_out(file))
    }

    fn scratch(&mut self) -> Result<FileId, FileError> {
        let mut directory = self.lock();
        let file = directory.number();
        directory.files.insert(file, Vec::new());
        Ok(directory.hand_out(file))
    }

    fn close(&mut self, file: FileId) {
        let mut directory = self.lock();
        if let Some(file) = directory.open.remove(&file) {
            directory.drop_unused(file);
        }
    }

    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
        let mut directory = self.lock();
        let content = directory.content(file)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let there = content.get(from..).unwrap_or_default();
        let bytes = there.len().min(into.len());
        into.iter_mut().zip(there).for_each(|(into, byte)| *into = *byte);
        Ok(bytes)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let mut directory = self.lock();
        let content = directory.content(file)?;
        let from = usize::try_from(offset).map_err(|error| FileError(error.to_string()))?;
        if content.len() < from {
            content.resize(from, 0);
        }
        let (over, beyond) = bytes.split_at(bytes.len().min(content.len() - from));
        if let Some(place) = content.get_mut(from..from + over.len()) {
            place.copy_from_slice(over);
        }
        content.extend_from_slice(beyond);
        Ok(())
    }

    fn set_len(&mut self, file: FileId, bytes: u64) -> Result<(), FileError> {
        let bytes = usize::try_from(bytes).map_err(|error| FileError(error.to_string()))?;
        self.lock().content(file)?.resize(bytes, 0);
        Ok(())
    }

    fn sync(&mut self, _file: FileId) -> Result<(), FileError> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError> {
        let mut directory = self.lock();
        let file = directory.names.remove(from).ok_or_else(missing)?;
        if let Some(before) = directory.names.insert(to.to_owned(), file) {
            directory.drop_unused(before);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), FileError> {
        let mut directory = self.lock();
        let file = directory.names.remove(name).ok_or_else(missing)?;
        directory.drop_unused(file);
        Ok(())
    }

    fn sync_names(&mut self) -> Result<(), FileError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_written_and_lives_while_it_is_open() {
        let mut files = Memory::new();
        let file = files.open("a", true).unwrap();
        assert!(files.open("a", true).is_err());
        files.write_at(file, 2, b"xyz").unwrap();
        files.write_at(file, 4, b"12").unwrap();
        let mut into = [9; 8];
        assert_eq!(files.read_at(file, 1, &mut into), Ok(5));
        assert_eq!(&into[..5], b"\0xy12");
        assert_eq!(files.read_at(file, 99, &mut into), Ok(0));
        files.rename("a", "b").unwrap();
        assert_eq!(files.clone().list().unwrap(), [("b".to_owned(), 6)]);
        files.remove("b").unwrap();
        assert_eq!(files.read_at(file, 5, &mut into), Ok(1));
        files.close(file);
        assert!(files.read_at(file, 5, &mut into).is_err());
        assert!(files.lock().files.is_empty());
    }
}
