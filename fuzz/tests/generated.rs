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
fn nearly_all_that_is_made_is_valid_and_nearly_all_changes_are_noticed() {
    let schemas = Schemas::get();
    for name in Schemas::names() {
        let (mut valid, mut wrong) = (0, 0);
        for seed in 0..400 {
            let takes = |json: axon_fuzz::json::Json| {
                serde_json::from_str(&json.to_string()).is_ok_and(|value| schemas.takes(name, &value))
            };
            valid += usize::from(takes(schemas.make(name, &mut Rng::new(seed))));
            wrong += usize::from(!takes(mutate::wrong(name, 3, &mut Rng::new(seed))));
        }
        println!("{name}: {valid} valid, {wrong} wrong of 400");
    }
}

fn some(schema: &'static str) -> impl Strategy<Value = Vec<u8>> {
    (vec(any::<u8>(), 0..200), 0_usize..4).prop_map(move |(bytes, changes)| {
        mutate::wrong(schema, changes, &mut Bytes(&bytes)).to_string().into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
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
