//! See `axon_fuzz::targets::store`.
#![no_main]
axon_fuzz::program!("store");
