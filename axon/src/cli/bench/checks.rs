//! How many signatures one processor of this machine checks, as a daemon does that is given a batch: what the
//! rate of topics would be at most on one thread if each message were signed alone.

use std::time::{Duration, Instant};

use axon_proto::kinds::topics::batch::Batch;
use axon_proto::kinds::topics::name::Topic;
use serde_json::json;

use crate::disk::keys::{Identity, verify};

/// It is measured for so long: some thousand checks.
const LASTS: Duration = Duration::from_millis(200);
/// Checks between two looks at the clock. The quickest time of so many counts: whatever else runs on the
/// machine only makes them slower.
const AT_ONCE: u32 = 50;

/// How long one check takes of a batch with one message of this size, in microseconds.
pub fn measure(size: usize) -> Option<f64> {
    let identity = Identity::generate().ok()?;
    let sign = identity.signer().ok()?;
    let topic = Topic::parse(super::pubsub::TOPIC).ok()?;
    let message = serde_json::value::to_raw_value(&json!({"n": 0, "x": super::run::text(size)})).ok()?;
    let signed = Batch::to_sign(&identity.public, &topic, 1, 1, &[&message]);
    let batch = Batch::read(signed, [0; 64]).ok()?;
    let sig = sign(&batch.signed_bytes());
    let (began, mut quickest) = (Instant::now(), Duration::MAX);
    while began.elapsed() < LASTS {
        let at = Instant::now();
        for _ in 0..AT_ONCE {
            // A wrong one would be done sooner, and the figure not be one.
            if !verify(&identity.public, &batch.signed_bytes(), &sig) {
                return None;
            }
        }
        quickest = quickest.min(at.elapsed());
    }
    Some(quickest.as_secs_f64() * 1_000_000.0 / f64::from(AT_ONCE))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_check_takes_its_time() {
        let us = super::measure(256).unwrap();
        assert!((1.0..100_000.0).contains(&us), "{us}");
    }
}
