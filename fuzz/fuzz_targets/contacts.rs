//! See `axon_fuzz::targets::contacts`.
#![no_main]
axon_fuzz::program!("contacts");
