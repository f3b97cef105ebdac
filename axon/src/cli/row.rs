//! A message as programs read it: flat, and with nothing that they knew or do not need.

use axon_client::{Inbound, Kept, Message, Sender, Trust};
use serde::Serialize;
use serde_json::value::RawValue;

/// A line of `axon listen`, and a row of `axon inbox`: what it takes to understand, answer and acknowledge a
/// message. Whom it is for is whoever asked.
#[derive(Serialize)]
pub struct Row<'a> {
    seq: u64,
    from: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_name: Option<&'a str>,
    /// The name is only what the sender calls itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    claimed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust: Option<&'a Trust>,
    /// When it was made, in Unix milliseconds; not on what is printed as it comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<u64>,
    kind: &'a str,
    id: &'a str,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    /// The text that came.
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    answer: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    queued: bool,
    /// Messages before this number went before they were printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_before_seq: Option<u64>,
}

impl<'a> Row<'a> {
    /// A message that is printed as it comes; with `request`, it is this process that answers it.
    pub fn new(seq: u64, message: &'a Message, sender: &'a Sender, request: Option<&Inbound>) -> Self {
        Self {
            seq,
            from: &message.from,
            from_name: sender.from_name.as_deref(),
            claimed: sender.claimed,
            trust: sender.trust.as_ref(),
            ts: None,
            kind: &message.kind,
            id: &message.id,
            reference: message.reference.as_deref(),
            payload: &message.payload,
            answer: request.is_some(),
            deadline_ms: request.and_then(|request| request.deadline_ms),
            queued: request.is_some_and(|request| request.queued),
            lost_before_seq: None,
        }
    }

    /// A message that has waited for its reader, who wants to know how old it is.
    pub fn kept(kept: &'a Kept) -> Self {
        Self::dated(kept.seq, &kept.envelope, &kept.sender)
    }

    /// A message of which it matters when it was made.
    pub fn dated(seq: u64, message: &'a Message, sender: &'a Sender) -> Self {
        Self { ts: Some(message.ts), ..Self::new(seq, message, sender, None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVELOPE: &str = r#"{"v":1,"id":"m","from":"f","to":"t","ts":1,"kind":"notify",
        "payload":{"topic":"a",  "data":1.50}}"#;

    #[test]
    fn lines_leave_out_what_is_not_there() {
        let message: Message = serde_json::from_str(ENVELOPE).unwrap();
        let line = |sender: Sender| serde_json::to_string(&Row::new(3, &message, &sender, None)).unwrap();
        assert_eq!(
            line(Sender::default()),
            r#"{"seq":3,"from":"f","kind":"notify","id":"m","payload":{"topic":"a",  "data":1.50}}"#
        );
        let claimed = serde_json::from_str(r#"{"trust":"unknown","from_name":"n","claimed":true}"#).unwrap();
        let said = r#""from":"f","from_name":"n","claimed":true,"trust":"unknown","kind""#;
        assert!(line(claimed).contains(said));
    }

    #[test]
    fn what_was_kept_is_flat_and_says_when_it_was_made() {
        let envelope = ENVELOPE.replace("\"payload\"", "\"ref\":\"r\",\"payload\"");
        let kept = format!(
            r#"{{"seq":3,"buffered_at_ms":7,"trust":"known","from_name":"n","envelope":{envelope}}}"#
        );
        let kept: Kept = serde_json::from_str(&kept).unwrap();
        assert_eq!(
            serde_json::to_string(&Row::kept(&kept)).unwrap(),
            concat!(
                r#"{"seq":3,"from":"f","from_name":"n","trust":"known","ts":1,"kind":"notify","id":"m","#,
                r#""ref":"r","payload":{"topic":"a",  "data":1.50}}"#
            )
        );
    }
}
