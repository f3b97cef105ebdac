//! See `axon_fuzz::targets::ipc_line`.
#![no_main]
axon_fuzz::program!("ipc_line");
