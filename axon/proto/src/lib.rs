//! The axon protocol as a state machine: no sockets, no clock, no files, no tasks.
//!
//! Feed a [`node::Node`] one [`node::Input`], carry out the [`node::Effect`]s it returns, feed the next. What
//! the protocol says is written in `spec/`; each module names the page that it follows.

pub mod agents;
pub mod audit;
pub mod contacts;
pub mod error;
pub mod family;
#[cfg(feature = "sim")]
pub mod fault;
#[cfg(not(feature = "sim"))]
mod fault;
pub mod id;
pub mod invite;
pub mod ipc;
pub mod kinds;
pub mod limits;
pub mod mailbox;
pub mod node;
pub mod open;
pub mod outbox;
pub mod pairing;
pub mod peers;
pub mod recent;
pub mod replay;
pub mod scope;
pub mod session;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod topics;
pub mod trust;
pub mod view;
pub mod vocabulary;
pub mod wire;
