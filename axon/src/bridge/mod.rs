//! Ways to axon for those who do not speak on its socket: clients of the socket, over `axon-client` alone.
//!
//! They run in processes of their own, so nothing of them is in the daemon's memory.

pub mod mcp;
