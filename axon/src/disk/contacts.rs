//! `contacts.toml`: what a person has said of whom, read and changed.
//!
//! Source: `spec/TRUST.md`, "Contacts". People edit the file too: what the daemon changes, it changes in
//! place, and all else stays as it is written.

use std::collections::HashMap;
use std::path::Path;

use axon_proto::contacts::{Contact, ContactChange, ContactsFile};
use axon_proto::id::AgentId;
use axon_proto::limits::{ADDRS_PER_PEER_MAX, CONTACTS_MAX, WHY_BYTES_MAX};
use axon_proto::trust::Level;
use toml_edit::{Item, Value};

use super::config::{self, ConfigError, check_addr, check_peer_name};
use super::edit::{self, EditError};
use super::entries::{Entries, Field};
use super::files::{self, MODE_PRIVATE};
use super::page::{Entry, Page, list};
use super::root::Root;
use super::{dates, settings};

/// The keys of one `[[contacts]]` entry, in the order in which they are written.
pub const CONTACT_KEYS: &[&str] =
    &["agent_id", "pubkey", "addrs", "level", "name", "since", "why", "expiry", "paused"];

/// What the file may hold beside its contacts.
const FILE_KEYS: &[&str] = &["paused", LIST];
const LIST: &str = "contacts";
const NEEDS: &str = "a contact needs agent_id, level and, unless it is blocked, pubkey";

/// The contacts in this file; none when there is no file.
pub fn load(path: &Path, own: AgentId) -> Result<ContactsFile, ConfigError> {
    let text = config::read_text(path)?.unwrap_or_default();
    parse(&text, path, own)
}

/// The contacts in this text; the path is for messages.
pub fn parse(text: &str, path: &Path, own: AgentId) -> Result<ContactsFile, ConfigError> {
    let page = Page { text, path };
    let document = page.document()?;
    let mut file = ContactsFile::default();
    for (key, item) in document.iter() {
        match key {
            "paused" => {
                let message = || "must be true or false".to_owned();
                file.paused = item.as_bool().ok_or_else(|| page.wrong(item.span(), Some(key), message()))?;
            }
            LIST => file.contacts = read_contacts(&page, item, own)?,
            _ => {
                let hint = settings::nearest_of(key, FILE_KEYS).map_or_else(
                    || "the file has paused and [[contacts]]".to_owned(),
                    |near| format!("did you mean \"{near}\"?"),
                );
                let span = document.key(key).and_then(|key| key.span());
                return Err(page.wrong(span, Some(key), format!("there is no such key; {hint}")));
            }
        }
    }
    Ok(file)
}

/// Carries changes out in the file, and takes whom they remove out of `[[peers]]` as well. All or nothing,
/// but for a crash between the two files, after which the contact is still there.
pub fn change(root: &Root, own: AgentId, changes: &[ContactChange]) -> Result<(), EditError> {
    let path = root.contacts();
    let before = config::read_text(&path)?.unwrap_or_default();
    let mut text = before.clone();
    let mut removed = Vec::new();
    for change in changes {
        text = changed(&text, &path, own, change)?;
        if let ContactChange::Remove(id) = change {
            removed.push(*id);
        }
    }
    let config = edit::without_peers(&root.config(), &removed)?;
    if text != before {
        edit::refuse_link(&path)?;
    }
    let write_contacts = || match text != before {
        true => files::write_atomic(&path, text.as_bytes(), MODE_PRIVATE),
        false => Ok(()),
    };
    // Whoever takes another's place is there before that one goes, also after a crash in between.
    let adds = changes.iter().any(|change| matches!(change, ContactChange::Put(_)));
    if adds {
        write_contacts()?;
    }
    if let Some(config) = config {
        edit::write(&root.config(), &config)?;
    }
    if !adds {
        write_contacts()?;
    }
    Ok(())
}

/// The text with one change.
///
/// # Errors
/// When the text is wrong, or written in a way that cannot be changed in place.
pub fn changed(text: &str, path: &Path, own: AgentId, change: &ContactChange) -> Result<String, EditError> {
    let mut file = parse(text, path, own)?;
    let document = Page { text, path }.document()?;
    let mut entries = Entries::of(&document, text, LIST);
    let index = |id: AgentId| file.contacts.iter().position(|contact| contact.agent_id == id);
    match change {
        ContactChange::Pause(on) => {
            if file.paused != *on {
                entries.set_top(&document, "paused", &Value::from(*on));
            }
            file.paused = *on;
        }
        ContactChange::Remove(id) => {
            if let Some(index) = index(*id) {
                entries.remove(index);
                file.contacts.remove(index);
            }
        }
        ContactChange::Put(contact) => match index(contact.agent_id) {
            Some(index) => {
                let contact = in_seconds(contact, Some(&file.contacts[index]));
                entries.change(index, &differences(&file.contacts[index], &contact), &written(&contact));
                file.contacts[index] = contact;
            }
            None => {
                let contact = in_seconds(contact, None);
                entries.add(&written(&contact));
                file.contacts.push(contact);
            }
        },
    }
    let text = entries.done();
    // What was written in a way that cannot be changed in place is left to its owner.
    if parse(&text, path, own)? != file {
        let path = path.display();
        return Err(EditError::Usage(format!(
            "{path} could not be changed: write its entries as [[contacts]]"
        )));
    }
    Ok(text)
}

/// A contact with times as people read them, in seconds; those that are already there stay as they are.
fn in_seconds(contact: &Contact, before: Option<&Contact>) -> Contact {
    let cut = |ms: u64, before: Option<u64>| {
        before.filter(|before| before / 1_000 == ms / 1_000).unwrap_or(ms - ms % 1_000)
    };
    let since_ms = cut(contact.since_ms, before.map(|before| before.since_ms));
    let expiry_before = before.and_then(|before| before.expiry_ms);
    let expiry_ms = contact.expiry_ms.map(|ms| cut(ms, expiry_before));
    Contact { since_ms, expiry_ms, ..contact.clone() }
}

/// The values of an entry, without those that say nothing.
fn written(contact: &Contact) -> Vec<(&'static str, Value)> {
    let values = CONTACT_KEYS.iter().filter_map(|key| Some((*key, value(contact, key)?)));
    values.collect()
}

/// What is to become of each key so that an entry for one contact is one for another.
fn differences(old: &Contact, new: &Contact) -> Vec<(&'static str, Field)> {
    let same = [
        true,
        old.pubkey == new.pubkey,
        old.addrs == new.addrs,
        old.level == new.level,
        old.name == new.name,
        old.since_ms == new.since_ms,
        old.why == new.why,
        old.expiry_ms == new.expiry_ms,
        old.paused == new.paused,
    ];
    let field = |(key, same): (&&'static str, bool)| match (same, value(new, key)) {
        (true, _) => (*key, Field::Keep),
        (false, Some(value)) => (*key, Field::Set(value)),
        // It stands there: it is not the same.
        (false, None) if *key == "paused" => (*key, Field::Set(Value::from(false))),
        (false, None) => (*key, Field::Unset),
    };
    CONTACT_KEYS.iter().zip(same).map(field).collect()
}

fn value(contact: &Contact, key: &str) -> Option<Value> {
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    let time = |ms: u64| Value::from(dates::datetime(ms));
    match key {
        "agent_id" => Some(Value::from(contact.agent_id.to_string())),
        "pubkey" => contact.pubkey.map(|key| Value::from(key.to_string())),
        "addrs" => (!contact.addrs.is_empty()).then(|| list(&contact.addrs)),
        "level" => Some(Value::from(contact.level.as_str())),
        "name" => text(&contact.name),
        "since" => (contact.since_ms > 0).then(|| time(contact.since_ms)),
        "why" => text(&contact.why),
        "expiry" => contact.expiry_ms.map(time),
        _ => contact.paused.then(|| Value::from(true)),
    }
}

#[inline(never)]
fn read_contacts(page: &Page<'_>, item: &Item, own: AgentId) -> Result<Vec<Contact>, ConfigError> {
    let mut contacts: Vec<Contact> = Vec::new();
    let mut ids = HashMap::new();
    let mut names = HashMap::new();
    for entry in page.entries(LIST, item)? {
        let contact = read_contact(&entry)?;
        let span = entry.text("agent_id")?.and_then(|(_, span)| span);
        if contacts.len() >= CONTACTS_MAX {
            let message = format!("there are more than {CONTACTS_MAX} contacts");
            return Err(page.wrong(span, Some(LIST), message));
        }
        if contact.agent_id == own {
            let message = format!("{own} is this agent itself: name the other one, or remove the entry");
            return Err(entry.wrong(span, "agent_id", message));
        }
        // A line is counted only where it is told: in a long file that takes a while.
        if let Some(first) = ids.insert(contact.agent_id, span.clone()) {
            let line = page.spot(first).line;
            let message = format!("the contact of line {line} again: remove one of the two");
            return Err(entry.wrong(span, "agent_id", message));
        }
        if let Some(name) = &contact.name {
            let span = entry.text("name")?.and_then(|(_, span)| span);
            if let Some(first) = names.insert(name.clone(), span.clone()) {
                let line = page.spot(first).line;
                let message = format!("the name of the contact of line {line}: give each its own");
                return Err(entry.wrong(span, "name", message));
            }
        }
        contacts.push(contact);
    }
    Ok(contacts)
}

fn read_contact(entry: &Entry<'_, '_>) -> Result<Contact, ConfigError> {
    entry.check_keys(CONTACT_KEYS, "contact")?;
    let (id_text, id_span) = entry.needed("agent_id", NEEDS)?;
    let agent_id = entry.agent_id(id_text, id_span)?;
    let (level_text, level_span) = entry.needed("level", NEEDS)?;
    let level = Level::parse(level_text).ok_or_else(|| {
        let hint = "must be \"blocked\", \"unknown\", \"known\" or \"trusted\"";
        entry.wrong(level_span, "level", format!("{hint}, and is {:?}", config::shortened(level_text)))
    })?;
    let pubkey = match entry.text("pubkey")? {
        Some((text, span)) => Some(entry.pubkey(text, span, agent_id)?),
        None if level == Level::Blocked => None,
        None => return Err(entry.wrong(entry.span(), "pubkey", format!("is missing: {NEEDS}"))),
    };
    let mut addrs = Vec::new();
    if let Some((texts, span)) = entry.texts("addrs")? {
        for addr in &texts {
            let wrong = |message| format!("{:?} {message}", config::shortened(addr));
            check_addr(addr).map_err(|message| entry.wrong(span.clone(), "addrs", wrong(message)))?;
        }
        if texts.len() > ADDRS_PER_PEER_MAX {
            let message = format!("has {} entries, and may have {ADDRS_PER_PEER_MAX}", texts.len());
            return Err(entry.wrong(span, "addrs", message));
        }
        addrs = texts.into_iter().map(str::to_owned).collect();
    }
    let name = entry.text("name")?;
    if let Some((name, span)) = &name {
        check_peer_name(name).map_err(|message| entry.wrong(span.clone(), "name", message))?;
    }
    Ok(Contact {
        agent_id,
        pubkey,
        addrs,
        level,
        name: name.map(|(name, _)| name.to_owned()),
        since_ms: entry.time("since")?.unwrap_or_default(),
        why: entry.line("why", WHY_BYTES_MAX)?.map(|(why, _)| why.to_owned()),
        expiry_ms: entry.time("expiry")?,
        paused: entry.flag("paused")?.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use axon_proto::id::PublicKey;

    use super::super::config::Spot;
    use super::super::files::MODE_BITS;
    use super::*;

    fn id(n: u8) -> AgentId {
        PublicKey([n; 32]).agent_id()
    }

    fn contact(n: u8) -> Contact {
        Contact {
            agent_id: id(n),
            pubkey: Some(PublicKey([n; 32])),
            addrs: vec!["host:7100".to_owned(), "[::1]:7101".to_owned()],
            level: Level::Known,
            name: Some(format!("peer-{n}")),
            since_ms: 1_795_260_600_000,
            why: Some("invite \"laptop\"".to_owned()),
            expiry_ms: None,
            paused: false,
        }
    }

    fn block(n: u8, more: &str) -> String {
        let key = PublicKey([n; 32]);
        format!("[[contacts]]\nagent_id = \"{}\"\npubkey = \"{key}\"\nlevel = \"known\"\n{more}", id(n))
    }

    fn read(text: &str) -> Result<ContactsFile, ConfigError> {
        parse(text, Path::new("contacts.toml"), id(9))
    }

    fn refused(text: &str, line: usize, column: usize, key: &str, part: &str) {
        let error = read(text).expect_err(text);
        assert_eq!(error.spot(), Some(Spot { line, column }), "{text}\n{error}");
        assert_eq!(error.key().unwrap_or_default(), key, "{text}\n{error}");
        assert!(error.to_string().contains(part), "{text}\n{error}");
    }

    fn root(text: &str) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        if !text.is_empty() {
            fs::write(root.contacts(), text).unwrap();
        }
        (dir, root)
    }

    #[test]
    fn a_whole_file_is_read() {
        assert_eq!(load(Path::new("/nowhere/contacts.toml"), id(9)), Ok(ContactsFile::default()));
        let text = format!(
            "paused = true\n\n{}addrs = [\"host:7100\", \"[::1]:7101\"]\nname = \"peer-1\"\n\
             since = 2026-11-21T13:30:00+02:00\nwhy = 'invite \"laptop\"'\nexpiry = 2026-12-21 11:30:00Z\n\
             paused = true\n\n[[contacts]]\nlevel = \"blocked\"\nagent_id = \"{}\"\n",
            block(1, ""),
            id(2)
        );
        let file = read(&text).unwrap();
        let first = Contact { expiry_ms: Some(1_797_852_600_000), paused: true, ..contact(1) };
        let second = Contact {
            agent_id: id(2),
            pubkey: None,
            addrs: Vec::new(),
            level: Level::Blocked,
            name: None,
            since_ms: 0,
            why: None,
            expiry_ms: None,
            paused: false,
        };
        assert_eq!(file, ContactsFile { paused: true, contacts: vec![first, second] });
        let inline = format!("contacts = [{{ agent_id = \"{}\", level = \"blocked\" }}]", id(2));
        assert_eq!(read(&inline).unwrap().contacts, file.contacts[1..]);
    }

    // shows: TRUST-CON-1
    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        refused("contacts = 1", 1, 12, "contacts", "[[contacts]]");
        refused("paused = 1", 1, 10, "paused", "true or false");
        refused("pause = true", 1, 1, "pause", "\"paused\"");
        refused("[[contact]]\nx = 1", 1, 3, "contact", "\"contacts\"");
        refused("[x]\n", 1, 2, "x", "paused and [[contacts]]");
        refused("[[contacts]]\nlevel = ", 2, 9, "", "no TOML");
        refused("[[contacts]]\nlevel = \"known\"", 2, 1, "contacts.agent_id", "is missing");
        let only = format!("[[contacts]]\nagent_id = \"{}\"\n", id(1));
        refused(&only, 2, 1, "contacts.level", "is missing");
        for level in ["unknown", "known", "trusted"] {
            let text = format!("{only}level = \"{level}\"");
            refused(&text, 2, 1, "contacts.pubkey", "unless it is blocked");
        }
        refused(&format!("{only}level = \"friend\""), 3, 9, "contacts.level", "is \"friend\"");
        refused(&format!("{only}level = 1"), 3, 9, "contacts.level", "in quotes");
        let other = format!("{only}level = \"known\"\npubkey = \"{}\"", PublicKey([2; 32]));
        refused(&other, 4, 10, "contacts.pubkey", &id(2).to_string());
        refused("[[contacts]]\nagent_id = \"bob\"", 2, 12, "contacts.agent_id", "32 hexadecimal");
        for (line, key, part) in [
            ("addr = \"a:1\"", "addr", "\"addrs\""),
            ("addrs = \"a:1\"", "addrs", "list of texts"),
            ("addrs = [\"a:1\", \"b\"]", "addrs", "\"b\" has no port"),
            ("addrs = [1]", "addrs", "list of texts"),
            ("name = \"beef\"", "name", "looks like"),
            ("name = \"\"", "name", "1 to 64 bytes"),
            ("why = \"a\\nb\"", "why", "1 to 256 bytes"),
            ("since = \"2026-11-21\"", "since", "without quotes"),
            ("since = 2026-11-21", "since", "write 2026-11-21T00:00:00Z"),
            ("expiry = 2026-11-21T11:30:00", "expiry", "time zone"),
            ("paused = \"no\"", "paused", "true or false"),
            ("trust = 1", "trust", "a contact has agent_id"),
        ] {
            let column = if part.starts_with("\"addrs\"") || key == "trust" { 1 } else { key.len() + 4 };
            refused(&block(1, line), 5, column, &format!("contacts.{key}"), part);
        }
        let many = format!("addrs = {:?}", vec!["a:1"; ADDRS_PER_PEER_MAX + 1]);
        refused(&block(1, &many), 5, 9, "contacts.addrs", "may have 8");
        refused(&(block(1, "") + &block(1, "")), 6, 12, "contacts.agent_id", "contact of line 2");
        let twice = block(1, "name = \"x\"\n") + &block(2, "name = \"x\"\n");
        refused(&twice, 10, 8, "contacts.name", "contact of line 5");
        refused(&(block(1, "") + &block(9, "")), 6, 12, "contacts.agent_id", "this agent itself");
        let blocked =
            |n: usize| format!("[[contacts]]\nagent_id = \"ed25519.{n:032x}\"\nlevel = \"blocked\"\n");
        let full: String = (0..CONTACTS_MAX).map(blocked).collect();
        assert_eq!(read(&full).unwrap().contacts.len(), CONTACTS_MAX);
        let line = CONTACTS_MAX * 3 + 2;
        refused(&(full + &blocked(CONTACTS_MAX)), line, 12, "contacts", "more than 4096");
    }

    #[test]
    fn contacts_are_added_changed_and_taken_out() {
        let (_dir, root) = root("");
        let own = id(9);
        let go = |changes: &[ContactChange]| change(&root, own, changes).unwrap();
        let text = || fs::read_to_string(root.contacts()).unwrap();
        go(&[ContactChange::Put(contact(1)), ContactChange::Put(contact(2))]);
        let key = PublicKey([1; 32]);
        let first = format!(
            "[[contacts]]\nagent_id = \"{}\"\npubkey = \"{key}\"\naddrs = [\"host:7100\", \"[::1]:7101\"]\n\
             level = \"known\"\nname = \"peer-1\"\nsince = 2026-11-21T11:30:00Z\n\
             why = 'invite \"laptop\"'\n",
            id(1)
        );
        assert!(text().starts_with(&format!("{first}\n[[contacts]]\n")), "{}", text());
        assert_eq!(fs::metadata(root.contacts()).unwrap().mode() & MODE_BITS, 0o600);
        assert_eq!(load(&root.contacts(), own).unwrap().contacts, [contact(1), contact(2)]);

        let expiry_ms = Some(1_797_852_600_000);
        let changed = Contact { level: Level::Trusted, paused: true, expiry_ms, why: None, ..contact(1) };
        // What is less than a second is nothing to people.
        let since_ms = changed.since_ms + 999;
        let exact = Contact { since_ms, expiry_ms: expiry_ms.map(|ms| ms + 1), ..changed.clone() };
        go(&[ContactChange::Put(exact), ContactChange::Pause(true)]);
        let file = load(&root.contacts(), own).unwrap();
        assert_eq!(file, ContactsFile { paused: true, contacts: vec![changed, contact(2)] });
        go(&[ContactChange::Put(contact(1)), ContactChange::Remove(id(2)), ContactChange::Pause(false)]);
        assert_eq!(load(&root.contacts(), own).unwrap().contacts, [contact(1)]);
        assert!(text().starts_with("paused = false\n\n[[contacts]]\n"), "{}", text());
        go(&[ContactChange::Remove(id(1)), ContactChange::Remove(id(1))]);
        assert_eq!(text(), "paused = false\n");
    }

    // shows: TRUST-CON-2
    #[test]
    fn what_a_person_wrote_stays() {
        let mine = format!(
            "# my people\n\n# the first\n{}  since   =  2026-11-21T13:30:00+02:00 # noon\naddrs = [\n  \
             \"host:7100\", # at home\n  \"[::1]:7101\",\n]\nname = 'peer-1'\nwhy = 'invite \"laptop\"'\n\n\
             # the second\n{}# end\n",
            block(1, ""),
            block(2, "")
        );
        let (_dir, root) = root(&mine);
        let text = || fs::read_to_string(root.contacts()).unwrap();
        change(&root, id(9), &[ContactChange::Put(contact(1))]).unwrap();
        assert_eq!(text(), mine, "nothing of it is new");
        let unknown = Contact { level: Level::Unknown, ..contact(1) };
        change(&root, id(9), &[ContactChange::Put(unknown)]).unwrap();
        assert_eq!(text(), mine.replacen("\"known\"", "\"unknown\"", 1));
        change(&root, id(9), &[ContactChange::Pause(true)]).unwrap();
        let paused = text();
        assert!(
            paused.starts_with("# my people\n\npaused = true\n\n# the first\n[[contacts]]\n"),
            "{paused}"
        );
        change(&root, id(9), &[ContactChange::Remove(id(2))]).unwrap();
        let (kept, _) = paused.split_once("# the second\n").unwrap();
        assert_eq!(text(), format!("{kept}# end\n"));
    }

    // shows: TRUST-CON-2
    #[test]
    fn who_is_removed_goes_out_of_the_config_too() {
        let (_dir, root) = root(&block(1, ""));
        let peer = |n: u8| {
            let key = PublicKey([n; 32]);
            format!("[[peers]]\nagent_id = \"{}\"\npubkey = \"{key}\"\naddr = \"a:1\"\n", id(n))
        };
        let config = format!("port = 1 # mine\n\n# one\n{}\n# two\n{}", peer(1), peer(2));
        fs::write(root.config(), &config).unwrap();
        files::set_mode(&root.config(), 0o640).unwrap();
        change(&root, id(9), &[ContactChange::Remove(id(1))]).unwrap();
        let left = format!("port = 1 # mine\n\n# two\n{}", peer(2));
        assert_eq!(fs::read_to_string(root.config()).unwrap(), left);
        assert_eq!(fs::metadata(root.config()).unwrap().mode() & MODE_BITS, 0o640);
        assert_eq!(fs::read_to_string(root.contacts()).unwrap(), "");
        // Not a contact, but a peer; and the rest of the file is wrong.
        let wrong = left.replace("port", "prot");
        fs::write(root.config(), &wrong).unwrap();
        change(&root, id(9), &[ContactChange::Remove(id(2))]).unwrap();
        assert_eq!(fs::read_to_string(root.config()).unwrap(), "prot = 1 # mine\n");
        let inline =
            format!("peers = [\n  {{ agent_id = \"{}\", pubkey = \"x\", addr = \"\" }}, # one\n]\n", id(2));
        fs::write(root.config(), &inline).unwrap();
        change(&root, id(9), &[ContactChange::Remove(id(2))]).unwrap();
        assert_eq!(fs::read_to_string(root.config()).unwrap(), "peers = [\n   # one\n]\n");
        change(&root, id(9), &[ContactChange::Remove(id(3))]).unwrap();
    }

    #[test]
    fn nothing_is_changed_when_something_is_wrong() {
        let (dir, root) = root(&block(1, "name = \"x\"\n"));
        let text = || fs::read_to_string(root.contacts()).unwrap();
        let before = text();
        let own = id(9);
        let same_name = Contact { name: Some("x".to_owned()), ..contact(2) };
        for wrong in [same_name, contact(9), Contact { name: Some("beef".to_owned()), ..contact(2) }] {
            let changes = [ContactChange::Put(contact(3)), ContactChange::Put(wrong)];
            assert!(change(&root, own, &changes).is_err());
            assert_eq!(text(), before);
        }
        fs::write(root.config(), "peers = [").unwrap();
        assert!(change(&root, own, &[ContactChange::Remove(id(1))]).is_err());
        assert_eq!(text(), before);
        fs::remove_file(root.config()).unwrap();

        fs::write(root.contacts(), "paused = ").unwrap();
        let error = change(&root, own, &[ContactChange::Put(contact(1))]).unwrap_err().to_string();
        assert!(error.contains("line 1, column 10"), "{error}");
        fs::rename(root.contacts(), dir.path().join("target")).unwrap();
        fs::write(dir.path().join("target"), "").unwrap();
        std::os::unix::fs::symlink(dir.path().join("target"), root.contacts()).unwrap();
        let error = change(&root, own, &[ContactChange::Put(contact(1))]).unwrap_err().to_string();
        assert!(error.contains("is a link"), "{error}");
        change(&root, own, &[ContactChange::Remove(id(1))]).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("target")).unwrap(), "");
    }
}
