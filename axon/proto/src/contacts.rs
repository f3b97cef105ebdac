//! Contacts: what a person has said of whom. The shell keeps them in `contacts.toml`.
//!
//! Source: `spec/TRUST.md`, "Contacts".

use std::collections::BTreeMap;

use crate::error::{IpcCode, IpcError};
use crate::fault::has_room;
use crate::id::{AgentId, PublicKey};
use crate::limits::{CONTACTS_MAX, NAME_BYTES_MAX};
use crate::trust::Level;

/// One contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Its id.
    pub agent_id: AgentId,
    /// Its key; only one that is blocked may be without.
    pub pubkey: Option<PublicKey>,
    /// Where it may be reached, `host:port`, best first.
    pub addrs: Vec<String>,
    /// How far it is trusted.
    pub level: Level,
    /// What it is called here.
    pub name: Option<String>,
    /// Since when it has stood here (Unix milliseconds).
    pub since_ms: u64,
    /// Why, in a person's words.
    pub why: Option<String>,
    /// When this entry ends to hold (Unix milliseconds).
    pub expiry_ms: Option<u64>,
    /// Its requests are turned away and what it tells is kept and not shown, until it is resumed.
    pub paused: bool,
}

/// The file as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContactsFile {
    /// All inbound work is paused.
    pub paused: bool,
    /// The contacts, one for an id.
    pub contacts: Vec<Contact>,
}

/// One change of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContactChange {
    /// Add a contact, or replace what is said of it.
    Put(Contact),
    /// Take a contact out, of `[[peers]]` in `config.toml` too.
    Remove(AgentId),
    /// Pause or resume all inbound work.
    Pause(bool),
}

/// All contacts, by id.
#[derive(Debug, Default)]
pub struct Contacts {
    paused: bool,
    table: BTreeMap<AgentId, Contact>,
}

impl Contacts {
    /// Those of the file. An id that is not its key's, or a second entry, is passed over: the shell has
    /// refused such a file.
    pub fn new(file: ContactsFile) -> Self {
        let mut table = BTreeMap::new();
        for contact in file.contacts {
            if contact.pubkey.is_none_or(|key| key.agent_id() == contact.agent_id) {
                table.entry(contact.agent_id).or_insert(contact);
            }
        }
        Self { paused: file.paused, table }
    }

    /// Whether all inbound work is paused.
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// One contact, expired or not.
    pub fn get(&self, id: AgentId) -> Option<&Contact> {
        self.table.get(&id)
    }

    /// One contact that holds now.
    pub fn live(&self, id: AgentId, wall_ms: u64) -> Option<&Contact> {
        self.get(id).filter(|contact| contact.holds(wall_ms))
    }

    /// All contacts.
    pub fn iter(&self) -> impl Iterator<Item = &Contact> {
        self.table.values()
    }

    /// When the next one ends to hold.
    pub fn next_expiry_ms(&self, wall_ms: u64) -> Option<u64> {
        self.table.values().filter_map(|contact| contact.expiry_ms).filter(|at_ms| *at_ms > wall_ms).min()
    }

    /// Takes one out.
    pub fn take(&mut self, id: AgentId) -> Option<Contact> {
        self.table.remove(&id)
    }

    /// Carries a change out.
    ///
    /// # Errors
    /// When there are too many contacts.
    pub fn apply(&mut self, change: &ContactChange) -> Result<(), IpcError> {
        match change {
            ContactChange::Put(contact) => {
                let is_new = !self.table.contains_key(&contact.agent_id);
                if is_new && !has_room("contacts", self.table.len() < CONTACTS_MAX) {
                    let message = format!("there are {CONTACTS_MAX} contacts: `axon forget` some first");
                    return Err(IpcError::new(IpcCode::Overloaded, message));
                }
                self.table.insert(contact.agent_id, contact.clone());
            }
            ContactChange::Remove(id) => drop(self.table.remove(id)),
            ContactChange::Pause(on) => self.paused = *on,
        }
        Ok(())
    }
}

impl Contact {
    /// Whether it holds at this time.
    pub fn holds(&self, wall_ms: u64) -> bool {
        self.expiry_ms.is_none_or(|at_ms| at_ms > wall_ms)
    }
}

/// Whether a name could be taken for the beginning of an agent id, which peers may also be called by.
pub fn looks_like_id(name: &str) -> bool {
    let hex = name.len() >= 4 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let typed = name.split_at_checked(AgentId::PREFIX.len());
    hex || typed.is_some_and(|(prefix, _)| prefix.eq_ignore_ascii_case(AgentId::PREFIX))
}

/// What is wrong with a peer's name, if anything.
///
/// # Errors
/// A sentence without its subject.
pub fn check_name(name: &str) -> Result<(), String> {
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || name.contains(char::is_control) {
        return Err(format!("must be 1 to {NAME_BYTES_MAX} bytes without control characters"));
    }
    if looks_like_id(name) {
        let why = "looks like the beginning of an agent id, by which peers are also called: choose another";
        return Err(why.to_owned());
    }
    Ok(())
}
