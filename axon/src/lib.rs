//! The axon daemon and its command line: the thin shell around `axon-proto`.
//!
//! `net`, `discover`, `ipc` and `disk` turn sockets and files into inputs and carry out effects; `driver`
//! feeds the node; `cli` is a client of the socket like any other. Where a line belongs is told in
//! `axon/ARCHITECTURE.md`.

pub mod bridge;
pub mod cli;
pub mod conform;
pub mod discover;
pub mod disk;
pub mod driver;
pub mod host;
pub mod image;
pub mod ipc;
pub mod log;
pub mod names;
pub mod net;
pub mod notify;
pub mod readiness;
