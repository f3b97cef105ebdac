//! What the schemas make, and changes of it, through the targets.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use axon_fuzz::dice::Bytes;
use axon_fuzz::mutate;
use axon_fuzz::schema::Schemas;
use axon_fuzz::targets::{envelope, ipc_line, payload};
use axon_proto::sim::Rng;
use proptest::collection::vec;
use proptest::prelude::*;

#[test]
fn most_of_what_is_made_is_valid_and_most_of_what_is_changed_is_not() {
    let schemas = Schemas::get();
    for name in ["envelope", "ipc-command"].into_iter().chain(payload::KINDS.iter().copied()) {
        let (mut valid, mut wrong) = (0, 0);
        for seed in 0..400 {
            let takes = |json: axon_fuzz::json::Json| {
                serde_json::from_str(&json.to_string()).is_ok_and(|value| schemas.takes(name, &value))
            };
            valid += usize::from(takes(schemas.make(name, &mut Rng::new(seed))));
            wrong += usize::from(!takes(mutate::wrong(name, 3, &mut Rng::new(seed))));
        }
        assert!(valid >= 350, "{name}: {valid} of 400 are valid");
        // Where anything goes, little is wrong.
        assert!(wrong >= 160, "{name}: {wrong} of 400 are wrong");
    }
}

fn some(schema: &'static str) -> impl Strategy<Value = Vec<u8>> {
    (vec(any::<u8>(), 0..200), 0_usize..4).prop_map(move |(bytes, changes)| {
        mutate::wrong(schema, changes, &mut Bytes(&bytes)).to_string().into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250,
        failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn envelopes(text in some("envelope")) {
        envelope::run(&text);
    }

    #[test]
    fn lines(text in some("ipc-command")) {
        ipc_line::run(&text);
    }

    #[test]
    fn payloads(text in (0..payload::KINDS.len()).prop_flat_map(|kind| {
        some(payload::KINDS[kind]).prop_map(move |text| [&[kind as u8], text.as_slice()].concat())
    })) {
        payload::run(&text);
    }
}
