//! The disk: the root directory and every file in it.
//!
//! | file | what | mode |
//! |---|---|---|
//! | `identity.key`, `identity.pub` | who this agent is ([`keys`]) | 0600, 0644 |
//! | `old_keys/` | who it was before, until peers have heard ([`old_keys`]) | 0700, 0600 |
//! | `config.toml` | settings and static peers ([`config`]) | as it was, 0600 when made |
//! | `contacts.toml` | what was said of whom ([`contacts`]) | 0600 |
//! | `sockets.toml`, `sockets/` | scoped sockets ([`sockets`]) | 0600, 0711 |
//! | `axon.lock` | one daemon a root ([`lock`]) | 0600 |
//! | `ipc-token` | shown by clients whose uid cannot be read ([`token`]) | 0600 |
//! | `known_peers.json`, `replay.log` | found peers, and ids of what is not kept ([`state`]) | 0600 |
//! | `audit.jsonl`, `audit.jsonl.1` | what was decided about whom ([`audit`]) | 0600 |
//! | `store/` | inbox, held messages, delegations, cursors ([`store`]) | 0700 |
//!
//! `config.toml`, `contacts.toml` and `sockets.toml` are people's: they are changed in place, and comments
//! stay ([`edit`]). Whole files are written beside their place and renamed into it, so that a crash leaves
//! the old or the new one ([`files`]). Private files are never opened through a link.

pub mod audit;
pub mod config;
pub mod contacts;
pub mod dates;
pub mod edit;
mod entries;
mod fault;
pub mod files;
pub mod keys;
pub mod lock;
pub mod old_keys;
mod page;
mod policy;
pub mod reload;
pub mod root;
pub mod settings;
pub mod sockets;
pub mod state;
pub mod store;
pub mod token;
mod topics;

pub use config::{Config, ConfigError};
pub use files::DiskError;
pub use keys::{Identity, KeyError};
pub use lock::{Lock, LockError};
pub use reload::Fresh;
pub use root::Root;
pub use state::ReplayLog;
pub use store::{Disk, DiskEvent, StoreError};
