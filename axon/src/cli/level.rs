//! From which level of trust on a message wakes somebody: `--trust` of `listen`,
//! `answer`, `inbox` and `mcp`.
//!
//! Anybody on the local network can be a peer of level `unknown`. What such a peer sends is kept and counted,
//! but starts nothing by itself.

use axon_client::{Sender, Trust};

/// The level that wakes when nothing is said.
pub const WAKES: &str = "known";
/// The levels that may be asked for.
pub const LEVELS: [&str; 3] = ["unknown", "known", "trusted"];

/// Whether a sender is trusted less than this. A daemon of before trust levels says nothing, and knows only
/// peers that its owner named.
pub fn is_below(sender: &Sender, level: &Trust) -> bool {
    sender.trust.as_ref().is_some_and(|trust| !trust.reaches(level))
}

/// Why a request is not taken, for its sender.
pub fn refusal(level: &Trust) -> String {
    format!("this agent takes requests from peers that are {level} here: its owner can run `axon trust`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_those_above_it() {
        let below = |trust: &str, level: &str| {
            let sender = serde_json::from_str(&format!(r#"{{"trust":"{trust}"}}"#)).unwrap();
            is_below(&sender, &Trust::from(level))
        };
        assert!(below("unknown", WAKES) && below("odd", WAKES) && below("known", "trusted"));
        assert!(!below("known", WAKES) && !below("trusted", WAKES) && !below("unknown", "unknown"));
        assert!(!is_below(&Sender::default(), &Trust::Known));
        assert!(LEVELS.contains(&WAKES));
    }
}
