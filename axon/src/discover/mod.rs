//! Finding peers: multicast DNS on the local network.
//!
//! What is found are candidates alone. The node decides whom it trusts, and the TLS handshake proves the key.
//! Static peers come from the settings, and their host names are looked up by `net` each time they are
//! dialled.

mod mdns;

pub use mdns::{Mdns, MdnsError};
