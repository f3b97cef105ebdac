//! One message of a peer, as it comes.

use axon_proto::kinds;
use axon_proto::limits::MESSAGE_BYTES_MAX;
use axon_proto::session::Hello;
use axon_proto::wire::{self, Header};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::agree::{self, Case, Difference};
use crate::mutate;
use crate::targets::payload;

/// What is said of envelopes beyond the schema.
const DIFFERENCES: &[Difference] = &[
    Difference {
        about: "another version is refused when the message is, with a code of its own (5.1)",
        code_refuses: false,
        applies: |case| case.value["v"].as_u64().is_some_and(|v| v > 1),
    },
    Difference {
        about: "the receiver's own fields of another type count as absent (WF-ENV-7)",
        code_refuses: false,
        applies: |case| {
            let until = &case.value["resend_until"];
            let receipt = &case.value["read_receipt"];
            !until.is_null() && until.as_u64().is_none_or(|ms| ms == 0)
                || !receipt.is_null() && !receipt.is_boolean()
        },
    },
    Difference {
        about: "that an answer needs a `ref` is seen where it is held against what it answers",
        code_refuses: false,
        applies: |case| case.value["ref"].is_null(),
    },
    Difference {
        about: "as of its payload",
        code_refuses: true,
        applies: |case| payload_differs(case, true),
    },
    Difference {
        about: "as of its payload",
        code_refuses: false,
        applies: |case| payload_differs(case, false),
    },
];

/// Whether the schema and the code need not agree on the payload.
fn payload_differs(case: &Case<'_>, code_refuses: bool) -> bool {
    let (Some(schema), Some(json)) = (case.value["kind"].as_str(), case.json.get("payload")) else {
        return false;
    };
    let text = json.to_string();
    let case = Case { schema, text: &text, json, value: &case.value["payload"] };
    let mut all = payload::DIFFERENCES.iter().filter(|one| one.code_refuses == code_refuses);
    all.any(|one| (one.applies)(&case))
}

/// A message is refused, or is read as what it says; read and written again it is the same; schema and code
/// agree on it.
pub fn run(data: &[u8]) {
    let read = wire::decode(data.to_vec());
    let outcome = match &read {
        Err(error) => {
            assert!(!error.refusal.message.is_empty());
            Err(error.refusal.message.clone())
        }
        Ok(envelope) => {
            let text = std::str::from_utf8(data).expect("what is taken is UTF-8");
            let value: Option<Value> = serde_json::from_str(text).ok();
            let payload: Option<Value> = serde_json::from_str(envelope.payload()).ok();
            assert!(!envelope.raw().contains(['\n', '\r']), "an envelope is one line");
            if let (Some(value), Some(payload)) = (&value, &payload) {
                assert_eq!(value["payload"], *payload);
                assert_eq!(value["kind"], envelope.kind());
                assert_eq!(value["id"], envelope.id.to_string());
                assert_eq!(serde_json::from_str::<Value>(envelope.raw()).ok().as_ref(), Some(value));
            }
            again(envelope);
            payload_of(envelope.kind(), envelope.payload())
        }
    };
    if let Ok(text) = std::str::from_utf8(data)
        && data.len() <= MESSAGE_BYTES_MAX
    {
        agree::check("envelope", text, outcome, DIFFERENCES);
    }
}

/// What was read is written and read again.
fn again(envelope: &wire::Envelope) {
    let header = Header {
        id: envelope.id,
        from: envelope.from,
        to: envelope.to,
        ts: envelope.ts,
        kind: envelope.kind(),
        reference: envelope.reference,
        resend_until: envelope.resend_until,
        read_receipt: envelope.read_receipt,
    };
    let payload = RawValue::from_string(envelope.payload().to_owned()).expect("a payload is JSON");
    let Ok(written) = wire::encode(header, &payload) else {
        assert!(payload.get().len() + 1_024 > MESSAGE_BYTES_MAX, "a short message fits");
        return;
    };
    let read = wire::decode(written.raw().as_bytes().to_vec()).expect("what is written can be read");
    assert_eq!(
        (read.id, read.from, read.to, read.ts, read.kind(), read.reference),
        (written.id, written.from, written.to, written.ts, written.kind(), written.reference),
    );
    assert_eq!((read.resend_until, read.read_receipt), (written.resend_until, written.read_receipt));
    assert_eq!((read.payload(), read.raw()), (written.payload(), written.raw()));
}

/// Whether the payload of a kind is taken; of a kind that is not known, any is.
pub fn payload_of(kind: &str, payload: &str) -> Result<(), String> {
    if kind == "hello" {
        return Hello::parse(payload).map(drop).map_err(|refusal| refusal.message);
    }
    let families = kinds::all();
    let known = families.iter().flat_map(|family| family.vocabulary().kinds).find(|known| known.name == kind);
    known.map_or(Ok(()), |known| (known.check)(payload))
}

/// Changes a message as JSON.
pub fn mutate(data: &[u8], seed: u32) -> Option<Vec<u8>> {
    mutate::bytes("envelope", data, seed)
}
