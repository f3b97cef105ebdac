//! Pairing: knock, and the answer to it; and a new key of somebody who is known.
//!
//! Source: `spec/kinds/pairing.md`. What a knock leads to is decided by rules in the node; this family reads
//! the words.

use crate::error::{PeerCode, Refusal};
use crate::family::{Act, Cx, Family, Input, Kind, Pattern, Sendable, Vocabulary};
use crate::pairing::payload;
use crate::trust::Level;

/// The words of pairing.
pub static VOCABULARY: Vocabulary = Vocabulary {
    family: "pairing",
    kinds: &[
        Kind {
            name: "knock",
            pattern: Pattern::Request { replies: &["admission", "error"], later: &[] },
            feature: Some("knock"),
            kept: false,
            sendable: Sendable::No,
            needs: Level::Unknown,
            has_domain: false,
            idempotent: false,
            made_here: false,
            check: payload::check_knock,
        },
        Kind {
            name: "admission",
            pattern: Pattern::Reply,
            feature: Some("knock"),
            kept: false,
            sendable: Sendable::No,
            needs: Level::Unknown,
            has_domain: false,
            idempotent: false,
            made_here: false,
            check: payload::check_admission,
        },
        Kind {
            name: "rekey",
            pattern: Pattern::Request { replies: &["ack", "error"], later: &[] },
            feature: Some("rekey"),
            kept: false,
            sendable: Sendable::No,
            needs: Level::Known,
            has_domain: false,
            idempotent: false,
            made_here: false,
            check: payload::check_rekey,
        },
    ],
};

/// The family.
#[derive(Debug, Default)]
pub struct Pairing;

impl Family for Pairing {
    fn vocabulary(&self) -> &'static Vocabulary {
        &VOCABULARY
    }

    fn handle(&mut self, input: Input<'_>, cx: &mut Cx<'_>) {
        let Input::Message { message, kind } = input else { return };
        let text = message.envelope.payload();
        // Both were checked before they came here.
        match kind.name {
            "knock" => match payload::Knock::parse(text) {
                Ok(knock) => cx.act(Act::Knock { message: message.clone(), knock: Box::new(knock) }),
                Err(why) => cx.refuse(message, &Refusal::new(PeerCode::InvalidEnvelope, why)),
            },
            _ => match payload::Rekey::parse(text) {
                Ok(rekey) => cx.act(Act::Rekey { message: message.clone(), rekey: Box::new(rekey) }),
                Err(why) => cx.refuse(message, &Refusal::new(PeerCode::InvalidEnvelope, why)),
            },
        }
    }
}
