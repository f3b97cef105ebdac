//! See `axon_fuzz::targets::ipc_session`.
#![no_main]
axon_fuzz::program!("ipc_session");
