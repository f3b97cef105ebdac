//! See `axon_fuzz::targets::node`.
#![no_main]
axon_fuzz::program!("node");
