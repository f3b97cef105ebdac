//! The payload of a kind: the first byte chooses the kind, the others are the payload.

use axon_proto::limits::KNOCK_BYTES_MAX;

use crate::agree::{self, Difference};
use crate::mutate;
use crate::targets::envelope::payload_of;

/// The kinds that have a schema, by the first byte.
pub const KINDS: &[&str] = &[
    "hello",
    "ping",
    "pong",
    "query",
    "response",
    "delegate",
    "ack",
    "progress",
    "result",
    "cancel",
    "notify",
    "discover",
    "capabilities",
    "receipt",
    "knock",
    "admission",
    "rekey",
    "error",
];

/// What is said of payloads beyond the schemas.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        about: "a knock is at most 2,048 bytes long (PAIR-KNOCK)",
        code_refuses: true,
        applies: |case| case.schema == "knock" && case.text.len() > KNOCK_BYTES_MAX,
    },
    Difference {
        about: "an invite and a proof that are wrong are answered, whatever is wrong with them (PAIR-KNOCK)",
        code_refuses: false,
        applies: |case| {
            let given = |name: &str| !case.value[name].is_null();
            case.schema == "knock" && (given("invite") || given("proof"))
        },
    },
    Difference {
        about: "what a peer grants, and when it says that it did something, is taken as it stands",
        code_refuses: false,
        applies: |case| {
            let granted = ["messages_per_minute", "payload_bytes_max", "until_ms"];
            let granted = granted.map(|name| &case.value["constraints"][name]);
            case.schema == "rekey" && case.value["at_ms"] == 0
                || case.schema == "admission" && granted.iter().any(|number| **number == 0)
        },
    },
    Difference {
        about: "no version in common is refused with a code of its own, what is too long is cut (WF-HEL)",
        code_refuses: false,
        applies: |case| case.schema == "hello",
    },
];

/// A payload is refused with a sentence or taken, and the schema says the same.
pub fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let kind = KINDS[usize::from(*first) % KINDS.len()];
    let Ok(text) = std::str::from_utf8(rest) else { return };
    // A payload comes out of an envelope, which has looked that it is an object.
    if !text.trim_start().starts_with('{') {
        return;
    }
    let outcome = payload_of(kind, text);
    if let Err(error) = &outcome {
        assert!(!error.is_empty() && !error.contains('\n'), "{error:?} is a sentence");
    }
    agree::check(kind, text, outcome, DIFFERENCES);
}

/// Changes a payload as JSON; its kind seldom.
pub fn mutate(data: &[u8], seed: u32) -> Option<Vec<u8>> {
    let first = data.first().copied().filter(|_| seed % 16 > 1).unwrap_or((seed >> 4) as u8);
    let kind = KINDS[usize::from(first) % KINDS.len()];
    let rest = mutate::bytes(kind, data.get(1..).unwrap_or_default(), seed)?;
    Some([&[first], rest.as_slice()].concat())
}
