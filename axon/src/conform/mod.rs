//! Whether an implementation does what the specification says: `axon conform`.
//!
//! Source: `spec/VECTORS.md`. [`vectors`] reads the files of `spec/vectors` and holds this implementation
//! against them; [`socket`] plays a client, [`peer`] a peer.

pub mod peer;
pub mod play;
pub mod socket;
pub mod vectors;

/// What was looked at, and whether it held.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Held {
    /// What, by its id.
    pub id: String,
    /// What a person calls it.
    pub about: String,
    /// The ids of the specification that ask for it.
    pub requirements: Vec<String>,
    /// What was seen instead; none: it held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
}

impl Held {
    /// Whether it held.
    pub fn ok(&self) -> bool {
        self.seen.is_none()
    }
}
