//! See `axon_fuzz::targets::envelope`.
#![no_main]
axon_fuzz::program!("envelope");
