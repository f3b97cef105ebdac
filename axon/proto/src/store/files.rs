//! What the store needs of a disk: a directory of plain files.

/// A file that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// The disk refused; the text is the system's, without a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FileError(pub String);

/// A directory of files. Names are plain, without a path.
///
/// Nothing is on disk before the call that says so: bytes before [`sync`](Self::sync), names before
/// [`sync_names`](Self::sync_names).
pub trait Files: Send {
    /// Names and lengths of all files.
    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError>;
    /// Opens a file to read and write; `create` makes a new, empty one, and fails if there is one.
    fn open(&mut self, name: &str, create: bool) -> Result<FileId, FileError>;
    /// Makes an empty file without a name, which vanishes when it is closed.
    fn scratch(&mut self) -> Result<FileId, FileError>;
    /// Closes a file.
    fn close(&mut self, file: FileId);
    /// Fills `into` from this offset as far as the file goes; gives how much.
    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> Result<usize, FileError>;
    /// Writes all bytes at this offset.
    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), FileError>;
    /// Cuts or extends a file.
    fn set_len(&mut self, file: FileId, bytes: u64) -> Result<(), FileError>;
    /// Makes what was written to a file last.
    fn sync(&mut self, file: FileId) -> Result<(), FileError>;
    /// Renames a file, in place of any that has the name.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> Result<(), FileError>;
    /// Makes new, renamed and removed names last.
    fn sync_names(&mut self) -> Result<(), FileError>;
}

impl Files for Box<dyn Files> {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
        (**self).list()
    }
    fn open(&mut self, name: &str, create: bool) -> Result<FileId, FileError> {
        (**self).open(name, create)
    }
    fn scratch(&mut self) -> Result<FileId, FileError> {
        (**self).scratch()
    }
    fn close(&mut self, file: FileId) {
        (**self).close(file);
    }
    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> Result<usize, FileError> {
        (**self).read_at(file, offset, into)
    }
    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        (**self).write_at(file, offset, bytes)
    }
    fn set_len(&mut self, file: FileId, bytes: u64) -> Result<(), FileError> {
        (**self).set_len(file, bytes)
    }
    fn sync(&mut self, file: FileId) -> Result<(), FileError> {
        (**self).sync(file)
    }
    fn rename(&mut self, from: &str, to: &str) -> Result<(), FileError> {
        (**self).rename(from, to)
    }
    fn remove(&mut self, name: &str) -> Result<(), FileError> {
        (**self).remove(name)
    }
    fn sync_names(&mut self) -> Result<(), FileError> {
        (**self).sync_names()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    /// The daemon has its files so; the tests of the store have them plain.
    #[test]
    fn files_of_which_only_that_is_known_do_what_files_do() {
        let plain = Memory::new();
        let mut files: Box<dyn Files> = Box::new(plain.clone());
        let file = files.open("a", true).unwrap();
        assert!(files.open("a", true).is_err() && files.open("b", false).is_err());
        files.write_at(file, 2, b"cd").unwrap();
        files.set_len(file, 3).unwrap();
        files.sync(file).unwrap();
        let mut read = [9; 4];
        assert_eq!(files.read_at(file, 0, &mut read), Ok(3));
        assert_eq!(read, [0, 0, b'c', 9]);
        let scratch = files.scratch().unwrap();
        files.write_at(scratch, 0, b"x").unwrap();
        assert_eq!(files.list(), Ok(vec![("a".to_owned(), 3)]), "a scratch has no name");
        files.close(scratch);
        files.rename("a", "b").unwrap();
        files.sync_names().unwrap();
        assert_eq!(plain.clone().list(), Ok(vec![("b".to_owned(), 3)]));
        files.remove("b").unwrap();
        assert_eq!(files.list(), Ok(Vec::new()));
        assert!(files.rename("b", "c").is_err());
        files.close(file);
        assert!(files.read_at(file, 0, &mut read).is_err());
    }
}
