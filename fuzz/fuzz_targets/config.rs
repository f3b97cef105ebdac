//! See `axon_fuzz::targets::config`.
#![no_main]
axon_fuzz::program!("config");
