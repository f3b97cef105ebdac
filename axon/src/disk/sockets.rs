//! `sockets.toml` and `sockets/`: which scoped sockets there are, and the directories that hold them.
//!
//! Source: `spec/IPC.md`, "Scoped sockets". A directory may be mounted into a container, and outlives the
//! socket in it. It belongs to the user of the socket where the system lets the daemon give it away: then
//! nobody else comes near.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use axon_proto::limits::SOCKETS_MAX;
use axon_proto::scope::{Right, Scope, ScopeChange};
use rustix::fs::{AtFlags, Mode, OFlags, Uid};
use rustix::io::Errno;
use toml_edit::{Item, Value};

use super::config::{self, ConfigError};
use super::edit::{self, EditError};
use super::entries::{Entries, Field};
use super::files::{self, DiskError, MODE_PRIVATE};
use super::page::{Entry, Page, list};
use super::root::{Root, SOCKET_PATH_BYTES_MAX};
use super::settings::{self, Names};

/// The keys of one `[[sockets]]` entry, in the order in which they are written.
pub const SOCKET_KEYS: &[&str] = &["name", "allow", "to", "kinds", "domains", "uid", "messages_per_minute"];

/// Mode of a directory that belongs to the one user who may enter it.
const DIR_MODE: u32 = 0o700;
/// Mode of a directory that cannot be given to its user: the socket in it checks who connects.
const OPEN_DIR_MODE: u32 = 0o711;
const SOCKET: &str = "axon.sock";
const LIST: &str = "sockets";
const NEEDS: &str = "a socket needs name and allow";
/// The system's own limit on user ids; the one above stands for none.
const UID_MAX: u64 = u32::MAX as u64 - 1;
const RATE_MAX: u64 = 1_000_000;

/// The scoped sockets in this file; none when there is no file.
pub fn load(path: &Path) -> Result<Vec<Scope>, ConfigError> {
    parse(&config::read_text(path)?.unwrap_or_default(), path)
}

/// The scoped sockets in this text; the path is for messages.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Scope>, ConfigError> {
    let page = Page { text, path };
    let document = page.document()?;
    let mut scopes = Vec::new();
    for (key, item) in document.iter() {
        if key != LIST {
            let span = document.key(key).and_then(|key| key.span());
            let message = "there is no such key; the file has [[sockets]]".to_owned();
            return Err(page.wrong(span, Some(key), message));
        }
        scopes = read_scopes(&page, item)?;
    }
    Ok(scopes)
}

/// Carries a change out in the file, and makes the directory of a socket that is put; gives what was there
/// before.
pub fn change(root: &Root, change: &ScopeChange) -> Result<Option<Scope>, EditError> {
    let path = root.scopes();
    let text = config::read_text(&path)?.unwrap_or_default();
    let mut scopes = parse(&text, &path)?;
    let document = Page { text: &text, path: &path }.document()?;
    let mut entries = Entries::of(&document, &text, LIST);
    let name = match change {
        ScopeChange::Put(scope) => &scope.name,
        ScopeChange::Remove(name) => name,
    };
    let index = scopes.iter().position(|scope| scope.name == *name);
    let before = index.map(|index| scopes[index].clone());
    match (change, index) {
        (ScopeChange::Put(scope), Some(index)) => {
            entries.change(index, &differences(&scopes[index], scope), &written(scope));
            scopes[index] = scope.clone();
        }
        (ScopeChange::Put(scope), None) => {
            entries.add(&written(scope));
            scopes.push(scope.clone());
        }
        (ScopeChange::Remove(_), Some(index)) => {
            entries.remove(index);
            scopes.remove(index);
        }
        (ScopeChange::Remove(_), None) => {}
    }
    let changed = entries.done();
    if parse(&changed, &path)? != scopes {
        let path = path.display();
        return Err(EditError::Usage(format!(
            "{path} could not be changed: write its entries as [[sockets]]"
        )));
    }
    if changed != text {
        edit::refuse_link(&path)?;
    }
    if let ScopeChange::Put(scope) = change {
        prepare(root, scope)?;
    }
    if changed != text {
        files::write_atomic(&path, changed.as_bytes(), MODE_PRIVATE)?;
    }
    Ok(before)
}

/// Makes a socket's directory, and gives it to the socket's user; where the system does not allow that,
/// everybody may enter, and the socket checks who connects. Gives the socket's path.
pub fn prepare(root: &Root, scope: &Scope) -> Result<PathBuf, DiskError> {
    let name = &scope.name;
    let socket = root.scope_socket(name);
    let bytes = socket.as_os_str().as_bytes().len();
    if !Scope::is_name(name) {
        return Err(DiskError::Refused(format!("{name:?} is no socket's name: use a-z, 0-9 and \"-\"")));
    }
    if bytes > SOCKET_PATH_BYTES_MAX {
        return Err(DiskError::Refused(format!(
            "the socket's path {} has {bytes} bytes, and a socket's path may have {SOCKET_PATH_BYTES_MAX}: \
             choose a shorter name, or a shorter --root",
            socket.display()
        )));
    }
    // Who may enter the root and a socket's directory gets there through this one.
    let dir = make_dir(&root.scope_dirs(), OPEN_DIR_MODE)?;
    set_mode(&dir, &root.scope_dirs(), OPEN_DIR_MODE)?;
    let path = root.scope_dir(name);
    let dir = make_dir(&path, DIR_MODE)?;
    let owner = dir.metadata().map_err(|error| DiskError::io("look at", &path, error))?.uid();
    let own = rustix::process::geteuid().as_raw();
    let uid = scope.uid.unwrap_or(own);
    let given = owner == uid || rustix::fs::fchown(&dir, Some(Uid::from_raw(uid)), None).is_ok();
    if !given && owner != own {
        return Err(DiskError::Refused(format!("{} belongs to another user: remove it", path.display())));
    }
    // Its mode is the owner's to change, or root's.
    if given && uid != own && own != 0 {
        return Ok(socket);
    }
    set_mode(&dir, &path, if given { DIR_MODE } else { OPEN_DIR_MODE })?;
    Ok(socket)
}

/// Takes the directory of a socket that is closed away. One that holds something else stays.
pub fn remove_dir(root: &Root, name: &str) -> Result<(), DiskError> {
    let path = root.scope_dir(name);
    let Ok(dir) = open_dir(&path) else { return Ok(()) };
    match rustix::fs::unlinkat(&dir, SOCKET, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(DiskError::io("remove", &root.scope_socket(name), io::Error::from(error))),
    }
    fs::remove_dir(&path).map_err(|error| DiskError::io("remove", &path, error))
}

/// Removes directories of sockets that there are no more; what a crash left behind.
pub fn tidy(root: &Root, scopes: &[Scope]) {
    let Ok(found) = fs::read_dir(root.scope_dirs()) else { return };
    for name in found.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        if Scope::is_name(&name) && !scopes.iter().any(|scope| scope.name == name) {
            // One that is not empty is somebody's.
            remove_dir(root, &name).ok();
        }
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<File, DiskError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => open_dir(path),
        Err(error) => Err(DiskError::io("make", path, io::Error::from(error))),
    }
}

fn open_dir(path: &Path) -> Result<File, DiskError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty());
    fd.map(File::from).map_err(|error| DiskError::io("open", path, io::Error::from(error)))
}

fn set_mode(dir: &File, path: &Path, mode: u32) -> Result<(), DiskError> {
    rustix::fs::fchmod(dir, Mode::from_raw_mode(mode))
        .map_err(|error| DiskError::io("change the mode of", path, io::Error::from(error)))
}

fn written(scope: &Scope) -> Vec<(&'static str, Value)> {
    SOCKET_KEYS.iter().filter_map(|key| Some((*key, value(scope, key)?))).collect()
}

fn differences(old: &Scope, new: &Scope) -> Vec<(&'static str, Field)> {
    let same = [
        true,
        old.allow == new.allow,
        old.to == new.to,
        old.kinds == new.kinds,
        old.domains == new.domains,
        old.uid == new.uid,
        old.messages_per_minute == new.messages_per_minute,
    ];
    let field = |(key, same): (&&'static str, bool)| match (same, value(new, key)) {
        (true, _) => (*key, Field::Keep),
        (false, Some(value)) => (*key, Field::Set(value)),
        (false, None) => (*key, Field::Unset),
    };
    SOCKET_KEYS.iter().zip(same).map(field).collect()
}

fn value(scope: &Scope, key: &str) -> Option<Value> {
    match key {
        "name" => Some(Value::from(scope.name.as_str())),
        "allow" => Some(list(scope.allow.iter().map(|right| right.as_str()))),
        "to" => scope.to.as_ref().map(list),
        "kinds" => scope.kinds.as_ref().map(list),
        "domains" => scope.domains.as_ref().map(list),
        "uid" => scope.uid.map(|uid| Value::from(i64::from(uid))),
        _ => {
            let rate = i64::try_from(scope.messages_per_minute).ok().filter(|rate| *rate > 0);
            rate.map(Value::from)
        }
    }
}

#[inline(never)]
fn read_scopes(page: &Page<'_>, item: &Item) -> Result<Vec<Scope>, ConfigError> {
    let mut scopes: Vec<Scope> = Vec::new();
    for entry in page.entries(LIST, item)? {
        let scope = read_scope(&entry)?;
        let span = || entry.text("name").ok().flatten().and_then(|(_, span)| span);
        if scopes.len() >= SOCKETS_MAX {
            let message = format!("there are more than {SOCKETS_MAX} sockets");
            return Err(page.wrong(span(), Some(LIST), message));
        }
        if scopes.iter().any(|other| other.name == scope.name) {
            return Err(entry.wrong(span(), "name", "is the name of two sockets: give each its own"));
        }
        scopes.push(scope);
    }
    Ok(scopes)
}

fn read_scope(entry: &Entry<'_, '_>) -> Result<Scope, ConfigError> {
    entry.check_keys(SOCKET_KEYS, "socket")?;
    let (name, span) = entry.needed("name", NEEDS)?;
    if !Scope::is_name(name) {
        return Err(entry.wrong(span, "name", "must be 1 to 32 of a-z, 0-9 and \"-\""));
    }
    let Some((rights, span)) = entry.texts("allow")? else {
        return Err(entry.wrong(entry.span(), "allow", format!("is missing: {NEEDS}")));
    };
    let mut allow = Vec::new();
    for text in rights {
        let Some(right) = Right::parse(text) else {
            let all: Vec<&str> = Right::ALL.iter().map(|right| right.as_str()).collect();
            let hint = settings::nearest_of(text, &all).map_or_else(
                || format!("there is {}", all.join(", ")),
                |near| format!("did you mean \"{near}\"?"),
            );
            let message = format!("holds {:?}, which is no right; {hint}", config::shortened(text));
            return Err(entry.wrong(span, "allow", message));
        };
        if !allow.contains(&right) {
            allow.push(right);
        }
    }
    let to = entry.names("to", Names::Agents)?;
    let kinds = entry.names("kinds", Names::Kinds)?;
    if kinds.as_ref().is_some_and(|kinds| kinds.contains(&"*")) {
        let span = entry.texts("kinds")?.and_then(|(_, span)| span);
        return Err(entry.wrong(span, "kinds", "holds \"*\": leave kinds out, and the socket sees all"));
    }
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    Ok(Scope {
        name: name.to_owned(),
        allow,
        // Each has been checked to be an id.
        to: to.map(|ids| ids.iter().filter_map(|id| id.parse().ok()).collect()),
        kinds: kinds.map(owned),
        domains: entry.names("domains", Names::Domains)?.map(owned),
        uid: entry.number("uid", UID_MAX)?.and_then(|uid| u32::try_from(uid).ok()),
        messages_per_minute: entry.number("messages_per_minute", RATE_MAX)?.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use axon_proto::id::{AgentId, PublicKey};

    use super::super::config::Spot;
    use super::super::files::MODE_BITS;
    use super::*;

    fn id(n: u8) -> AgentId {
        PublicKey([n; 32]).agent_id()
    }

    fn scope(name: &str) -> Scope {
        Scope {
            name: name.to_owned(),
            allow: vec![Right::Send, Right::Inbox],
            to: Some(vec![id(1), id(2)]),
            kinds: Some(vec!["query".to_owned()]),
            domains: Some(Vec::new()),
            uid: None,
            messages_per_minute: 60,
        }
    }

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        (dir, root)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & MODE_BITS
    }

    fn put(scope: &Scope) -> ScopeChange {
        ScopeChange::Put(scope.clone())
    }

    #[test]
    fn sockets_are_put_changed_and_removed() {
        let (_dir, root) = root();
        assert_eq!(load(&root.scopes()), Ok(Vec::new()));
        assert_eq!(change(&root, &put(&scope("box"))).unwrap(), None);
        let text = fs::read_to_string(root.scopes()).unwrap();
        let expected = format!(
            "[[sockets]]\nname = \"box\"\nallow = [\"send\", \"inbox\"]\nto = [\"{}\", \"{}\"]\n\
             kinds = [\"query\"]\ndomains = []\nmessages_per_minute = 60\n",
            id(1),
            id(2)
        );
        assert_eq!(text, expected);
        assert_eq!((mode(&root.scopes()), mode(&root.scope_dir("box"))), (0o600, 0o700));
        fs::write(root.scopes(), format!("# mine\n{text}# end\n")).unwrap();
        let other = Scope {
            allow: vec![Right::Answer],
            to: None,
            uid: Some(7),
            messages_per_minute: 0,
            ..scope("box")
        };
        assert_eq!(change(&root, &put(&other)).unwrap(), Some(scope("box")));
        assert_eq!(load(&root.scopes()).unwrap(), std::slice::from_ref(&other));
        let text = fs::read_to_string(root.scopes()).unwrap();
        let expected = "# mine\n[[sockets]]\nname = \"box\"\nallow = [\"answer\"]\nkinds = [\"query\"]\n\
             domains = []\nuid = 7\n# end\n";
        assert_eq!(text, expected);
        change(&root, &put(&scope("b-2"))).unwrap();
        assert_eq!(change(&root, &ScopeChange::Remove("box".to_owned())).unwrap(), Some(other));
        assert_eq!(load(&root.scopes()).unwrap(), [scope("b-2")]);
        assert_eq!(change(&root, &ScopeChange::Remove("box".to_owned())).unwrap(), None);
        assert!(root.scope_dir("box").exists(), "its directory goes when the socket is closed");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let refused = |text: &str, line: usize, column: usize, key: &str, part: &str| {
            let error = parse(text, Path::new("sockets.toml")).expect_err(text);
            assert_eq!(error.spot(), Some(Spot { line, column }), "{text}\n{error}");
            assert_eq!(error.key().unwrap_or_default(), key, "{text}\n{error}");
            assert!(error.to_string().contains(part), "{text}\n{error}");
        };
        refused("socket = 1", 1, 1, "socket", "[[sockets]]");
        refused("sockets = 1", 1, 11, "sockets", "write [[sockets]]");
        refused("[[sockets]]\nallow = []", 2, 1, "sockets.name", "is missing");
        refused("[[sockets]]\nname = \"a\"", 2, 1, "sockets.allow", "is missing");
        refused("[[sockets]]\nname = \"A\"\nallow = []", 2, 8, "sockets.name", "1 to 32 of a-z");
        refused("[[sockets]]\nname = \"../x\"\nallow = []", 2, 8, "sockets.name", "1 to 32 of a-z");
        let with = |line: &str| format!("[[sockets]]\nname = \"a\"\nallow = []\n{line}\n");
        for (line, column, key, part) in [
            ("kind = []", 1, "kind", "\"kinds\""),
            ("to = [\"bob\"]", 6, "to", "an agent id is"),
            ("kinds = [\"*\"]", 9, "kinds", "leave kinds out"),
            ("domains = [\"\"]", 11, "domains", "1 to 256 bytes"),
            ("uid = -1", 7, "uid", "0 to 4294967294"),
            ("uid = 4294967295", 7, "uid", "0 to 4294967294"),
            ("messages_per_minute = \"1\"", 23, "messages_per_minute", "whole number"),
        ] {
            refused(&with(line), 4, column, &format!("sockets.{key}"), part);
        }
        let rights = "[[sockets]]\nname = \"a\"\nallow = [\"sned\"]";
        refused(rights, 3, 9, "sockets.allow", "\"send\"");
        refused(
            &rights.replace("sned", "everything"),
            3,
            9,
            "sockets.allow",
            "send, inbox, answer, advertise",
        );
        refused(&(with("") + &with("")), 6, 8, "sockets.name", "two sockets");
        let many: String =
            (0..=SOCKETS_MAX).map(|n| format!("[[sockets]]\nname = \"a{n}\"\nallow = []\n")).collect();
        refused(&many, SOCKETS_MAX * 3 + 2, 8, "sockets", "more than 32");
    }

    // shows: IPC-SCO-5
    #[test]
    fn directories_belong_to_who_uses_the_socket() {
        let (_dir, root) = root();
        let owner = || {
            let about = fs::metadata(root.scope_dir("box")).unwrap();
            (about.uid(), about.mode() & MODE_BITS)
        };
        let own = rustix::process::geteuid().as_raw();
        let path = prepare(&root, &scope("box")).unwrap();
        assert_eq!((&path, mode(&root.scope_dirs())), (&root.scope_socket("box"), 0o711));
        assert_eq!(owner(), (own, 0o700));
        drop(UnixListener::bind(&path).unwrap());
        let other = Scope { uid: Some(54_321), ..scope("box") };
        for scope in [&other, &other, &scope("box"), &other] {
            prepare(&root, scope).unwrap();
            let given = owner();
            let expected = (scope.uid.unwrap_or(own), 0o700);
            assert!(given == expected || (scope.uid.is_some() && given == (own, 0o711)), "{given:?}");
        }

        fs::write(root.scope_dir("box").join("theirs"), "").unwrap();
        tidy(&root, &[scope("box")]);
        assert!(path.exists());
        tidy(&root, &[]);
        assert!(!path.exists() && root.scope_dir("box").join("theirs").exists());
        fs::remove_file(root.scope_dir("box").join("theirs")).unwrap();
        remove_dir(&root, "box").unwrap();
        remove_dir(&root, "box").unwrap();
        assert!(!root.scope_dir("box").exists());
    }

    #[test]
    fn what_cannot_be_made_is_not_written() {
        let (dir, root) = root();
        fs::create_dir(root.scope_dirs()).unwrap();
        std::os::unix::fs::symlink("/tmp", root.scope_dir("box")).unwrap();
        assert!(change(&root, &put(&scope("box"))).is_err());
        assert!(!root.scopes().exists());
        assert!(prepare(&root, &scope("../x")).unwrap_err().to_string().contains("no socket's name"));
        let long =
            Root::at(dir.path().join("a".repeat(SOCKET_PATH_BYTES_MAX - dir.path().as_os_str().len() - 12)));
        long.open().unwrap();
        long.check_socket_path().unwrap();
        let error = change(&long, &put(&scope("box"))).unwrap_err().to_string();
        assert!(error.contains("shorter name"), "{error}");
        assert!(!long.scopes().exists() && !long.scope_dirs().exists());
        fs::write(root.scopes(), "").unwrap();
        fs::rename(root.scopes(), dir.path().join("target")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("target"), root.scopes()).unwrap();
        assert!(change(&root, &put(&scope("b2"))).unwrap_err().to_string().contains("is a link"));
    }
}
