//! See `axon_fuzz::targets::payload`.
#![no_main]
axon_fuzz::program!("payload");
