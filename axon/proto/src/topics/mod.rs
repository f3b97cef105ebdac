//! Topics as settings and commands name them: names, filters, and the rules that hold of them.
//!
//! Source: `spec/kinds/topics.md`. How messages on them spread is the family's, `kinds::topics`.

pub mod name;
pub mod rules;
