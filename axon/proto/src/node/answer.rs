//! What a peer's answer says, where it is not passed on as it is.

use crate::error::PeerCode;
use crate::wire::Envelope;

/// What a peer says against a message, by its answer: the code, where it is known, and a sentence.
pub(super) fn peer_refusal(answer: &Envelope) -> Option<(Option<PeerCode>, String)> {
    #[derive(serde::Deserialize)]
    struct Said {
        #[serde(default)]
        accepted: bool,
        code: Option<String>,
        message: Option<String>,
        reason: Option<String>,
    }
    let said: Option<Said> = serde_json::from_str(answer.payload()).ok();
    if answer.kind() == "error" {
        let code = said.as_ref().and_then(|said| said.code.clone()).unwrap_or_default();
        let message = said.and_then(|said| said.message).unwrap_or_default();
        return Some((PeerCode::parse(&code), brief(&format!("the peer says {code}: {message}"))));
    }
    let accepted = said.as_ref().is_some_and(|said| said.accepted);
    let reason = said.and_then(|said| said.reason).unwrap_or_else(|| "it gave no reason".into());
    (!accepted).then(|| (None, brief(&format!("the peer declined it: {reason}"))))
}

/// As much of a peer's words as a person needs.
fn brief(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
