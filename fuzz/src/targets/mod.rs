//! The targets, one a file.

#[cfg(feature = "files")]
pub mod config;
#[cfg(feature = "files")]
pub mod contacts;
pub mod envelope;
pub mod ipc_line;
pub mod ipc_session;
pub mod link;
pub mod node;
pub mod payload;
pub mod store;
