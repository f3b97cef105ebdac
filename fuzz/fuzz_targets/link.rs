//! See `axon_fuzz::targets::link`.
#![no_main]
axon_fuzz::program!("link");
