//! The root directory: one agent's identity, settings, state and socket.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::files::{DiskError, MODE_BITS, is_ours};

/// Mode of the root directory.
pub const ROOT_MODE: u32 = 0o700;
/// An instance's name, in bytes.
pub const INSTANCE_NAME_BYTES_MAX: usize = 32;
/// A socket's path without the zero byte at its end, in bytes: the system's own limit.
pub const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Why there is no root to work with.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The disk has no such place, or not a safe one.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// One agent's directory. Made by [`Root::resolve`]; nothing is touched before [`Root::open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    dir: PathBuf,
    flags: String,
    instance: Option<String>,
}

impl Root {
    /// The root that the flags ask for: `--root`, else `--name`, else `AXON_ROOT`, else `~/.axon`.
    ///
    /// # Errors
    /// When both flags are given, the name is none, or there is no home directory.
    pub fn resolve(root: Option<PathBuf>, name: Option<&str>) -> Result<Self, RootError> {
        Self::resolve_in(root, name, std::env::var_os("AXON_ROOT"), std::env::home_dir())
    }

    /// The root without any flag: `~/.axon`, whatever the environment says of roots.
    pub fn default_root() -> Result<Self, RootError> {
        Self::resolve_in(None, None, None, std::env::home_dir())
    }

    /// The directory that holds the instances, when this is the default root.
    pub fn instances_dir(&self) -> PathBuf {
        self.dir.join("instances")
    }

    /// The root in this directory, whatever the environment says.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        // The path is kept absolute, because it is told to people and to other processes.
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        let flags = format!(" --root {}", quoted(&dir));
        Self { dir, flags, instance: None }
    }

    /// The root of the instance of this name, in its directory.
    pub fn instance_at(dir: impl Into<PathBuf>, name: &str) -> Self {
        Self { dir: dir.into(), flags: format!(" --name {name}"), instance: Some(name.to_owned()) }
    }

    fn resolve_in(
        root: Option<PathBuf>,
        name: Option<&str>,
        from_env: Option<OsString>,
        home: Option<PathBuf>,
    ) -> Result<Self, RootError> {
        let usage = |text: &str| Err(RootError::Usage(text.to_owned()));
        let from_env = from_env.filter(|dir| !dir.is_empty());
        if let Some(dir) = root {
            if name.is_some() {
                return usage("--root and --name both say where the agent lives: give one of them");
            }
            if dir.as_os_str().is_empty() {
                return usage("--root is empty: name a directory");
            }
            return Ok(Self::at(dir));
        }
        if let Some(dir) = from_env.filter(|_| name.is_none()) {
            // Who asks later asks with the same environment, so that no flag is needed.
            return Ok(Self { flags: String::new(), ..Self::at(dir) });
        }
        let Some(home) = home.filter(|home| home.is_absolute()) else {
            return usage("there is no home directory to hold .axon: give --root DIR or set AXON_ROOT");
        };
        let default = home.join(".axon");
        let Some(name) = name else {
            return Ok(Self { dir: default, flags: String::new(), instance: None });
        };
        if !is_instance_name(name) {
            return usage("an instance's name is 1 to 32 of a-z, 0-9 and \"-\"");
        }
        Ok(Self::instance_at(default.join("instances").join(name), name))
    }

    /// Makes the directory, closed to everybody else, if it is not there; refuses one that others may write
    /// to.
    pub fn open(&self) -> Result<(), RootError> {
        self.check_socket_path()?;
        match fs::metadata(&self.dir) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(ROOT_MODE)
                    .create(&self.dir)
                    .map_err(|error| DiskError::io("make", &self.dir, error))?;
            }
            Err(error) => return Err(DiskError::io("open", &self.dir, error).into()),
        }
        self.check_dir()
    }

    /// Whether the directory is one that only we may write to.
    pub fn check_dir(&self) -> Result<(), RootError> {
        let about = fs::metadata(&self.dir).map_err(|error| DiskError::io("open", &self.dir, error))?;
        let shown = self.dir.display();
        if !about.is_dir() {
            return Err(DiskError::Refused(format!("{shown} is no directory: give another --root")).into());
        }
        if !is_ours(about.uid()) {
            return Err(
                DiskError::Refused(format!("{shown} belongs to another user: give another --root")).into()
            );
        }
        // Who may write here may put a key of their own in place of ours.
        if about.mode() & 0o022 != 0 {
            return Err(DiskError::Refused(format!(
                "others may write to {shown} (mode {:04o}): run `axon{} doctor --fix`, or chmod 700 it",
                about.mode() & MODE_BITS,
                self.flags
            ))
            .into());
        }
        Ok(())
    }

    /// Whether the socket's path fits into a socket address.
    pub fn check_socket_path(&self) -> Result<(), RootError> {
        let bytes = self.socket().as_os_str().as_bytes().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(RootError::Usage(format!(
                "the socket's path {} has {bytes} bytes, and a socket's path may have \
                 {SOCKET_PATH_BYTES_MAX}: choose a shorter --root",
                self.socket().display()
            )));
        }
        Ok(())
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The name given by `--name`.
    pub fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// What to write between `axon` and a verb to mean this root: empty, or begins with a space.
    pub fn flags(&self) -> &str {
        &self.flags
    }

    /// `identity.key`: the secret seed.
    pub fn identity_key(&self) -> PathBuf {
        self.dir.join("identity.key")
    }

    /// `identity.pub`: the public key.
    pub fn identity_pub(&self) -> PathBuf {
        self.dir.join("identity.pub")
    }

    /// `config.toml`.
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// `axon.sock`.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("axon.sock")
    }

    /// `axon.lock`.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("axon.lock")
    }

    /// `ipc-token`, where `ipc.token_path` does not say otherwise.
    pub fn token(&self) -> PathBuf {
        self.dir.join("ipc-token")
    }

    /// `contacts.toml`.
    pub fn contacts(&self) -> PathBuf {
        self.dir.join("contacts.toml")
    }

    /// `sockets.toml`: what scoped sockets there are.
    pub fn scopes(&self) -> PathBuf {
        self.dir.join("sockets.toml")
    }

    /// `sockets`: a directory for each scoped socket.
    pub fn scope_dirs(&self) -> PathBuf {
        self.dir.join("sockets")
    }

    /// The directory of one scoped socket, which may be given to whoever uses it.
    pub fn scope_dir(&self, name: &str) -> PathBuf {
        self.scope_dirs().join(name)
    }

    /// One scoped socket.
    pub fn scope_socket(&self, name: &str) -> PathBuf {
        self.scope_dir(name).join("axon.sock")
    }

    /// `audit.jsonl`.
    pub fn audit(&self) -> PathBuf {
        self.dir.join("audit.jsonl")
    }

    /// `audit.jsonl.1`: the rows before those of `audit.jsonl`.
    pub fn audit_before(&self) -> PathBuf {
        self.dir.join("audit.jsonl.1")
    }

    /// `old_keys`: what this agent was before.
    pub fn old_keys(&self) -> PathBuf {
        self.dir.join("old_keys")
    }

    /// `known_peers.json`.
    pub fn known_peers(&self) -> PathBuf {
        self.dir.join("known_peers.json")
    }

    /// `replay.log`.
    pub fn replay_log(&self) -> PathBuf {
        self.dir.join("replay.log")
    }

    /// `store`: the directory of what is kept: inbox, held messages, delegations.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }
}

/// Whether a text may name an instance.
pub fn is_instance_name(name: &str) -> bool {
    (1..=INSTANCE_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn resolve(root: Option<&str>, name: Option<&str>, env: Option<&str>) -> Result<Root, RootError> {
        Root::resolve_in(root.map(PathBuf::from), name, env.map(OsString::from), Some("/home/u".into()))
    }

    #[test]
    fn the_root_is_where_the_flags_say() {
        let dir = |root, name, env| resolve(root, name, env).unwrap().dir().to_owned();
        assert_eq!(dir(None, None, None), Path::new("/home/u/.axon"));
        assert_eq!(dir(None, None, Some("/e")), Path::new("/e"));
        assert_eq!(dir(None, None, Some("")), Path::new("/home/u/.axon"));
        assert_eq!(dir(Some("/r"), None, Some("/e")), Path::new("/r"));
        assert_eq!(dir(None, Some("bob-2"), Some("/e")), Path::new("/home/u/.axon/instances/bob-2"));
        assert!(dir(Some("r"), None, None).is_absolute());
        assert_eq!(resolve(Some("/a b"), None, None).unwrap().flags(), " --root '/a b'");
        assert_eq!(resolve(None, Some("bob"), None).unwrap().flags(), " --name bob");
        assert!(resolve(Some("/r"), Some("bob"), None).is_err());
        for name in ["", "Bob", "a/b", "..", "a b", "é", &"a".repeat(33)] {
            assert!(resolve(None, Some(name), None).is_err(), "{name}");
        }
        assert!(Root::resolve_in(None, None, None, None).is_err());
    }

    #[test]
    fn it_is_made_private_and_refused_when_others_may_write() {
        let temp = tempfile::tempdir().unwrap();
        let root = Root::at(temp.path().join("a/b"));
        root.open().unwrap();
        for dir in ["a", "a/b"] {
            assert_eq!(fs::metadata(temp.path().join(dir)).unwrap().mode() & MODE_BITS, 0o700);
        }
        root.open().unwrap();
        fs::set_permissions(root.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        root.open().unwrap();
        fs::set_permissions(root.dir(), fs::Permissions::from_mode(0o775)).unwrap();
        assert!(root.open().unwrap_err().to_string().contains("doctor --fix"));
        fs::write(temp.path().join("file"), "").unwrap();
        assert!(Root::at(temp.path().join("file")).open().is_err());
        assert!(Root::at(temp.path().join("file/x")).open().is_err());
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_told() {
        let longest = format!("/{}", "a".repeat(SOCKET_PATH_BYTES_MAX - "/".len() - "/axon.sock".len()));
        Root::at(&longest).check_socket_path().unwrap();
        let error = Root::at(format!("{longest}a")).open().unwrap_err().to_string();
        assert!(error.contains("shorter --root"), "{error}");
    }
}
