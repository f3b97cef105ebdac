//! Topics: messages that go over several hops to whoever has subscribed.
//!
//! `name` are topics and filters, `batch` is what is signed and travels, `held` what was seen and can be
//! given, `tree` how batches spread, `wire` what neighbours say as JSON. Why it is so:
//! `spec/decisions/0017-topics.md`.

pub mod batch;
pub mod held;
pub mod name;
pub mod rules;
pub mod tree;
pub mod wire;
