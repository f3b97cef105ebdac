//! All families. A new one is a folder here, a page in `spec/kinds/`, and a line in [`all`].

pub mod core;
pub mod pairing;
pub mod presence;
pub mod topics;

use crate::family::Family;

/// Every family, in the order in which their kinds are listed.
pub fn all() -> Vec<Box<dyn Family>> {
    vec![
        Box::new(core::Core::default()),
        Box::new(pairing::Pairing),
        Box::new(topics::Topics::default()),
        Box::new(presence::Presence::default()),
    ]
}
