//! What must hold of axon whatever bytes come.
//!
//! Each target is a function of bytes that panics when something does not hold. libFuzzer runs them
//! (`fuzz/run`), `cargo test` runs them over `fuzz/corpus`, proptest over what [`schema`] makes.
#![forbid(unsafe_code)]

pub mod agree;
pub mod dice;
pub mod json;
pub mod mutate;
pub mod schema;
pub mod targets;
pub mod world;

/// Gives bytes that differ from these, by this seed; none: they are to be changed in libFuzzer's own way.
pub type Mutate = fn(&[u8], u32) -> Option<Vec<u8>>;

/// A function that is given bytes, and what the bytes are.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, which is that of its corpus and of its program.
    pub name: &'static str,
    /// Panics when something does not hold.
    pub run: fn(&[u8]),
    /// Changes bytes as what they are; none: nothing is known of their form.
    pub mutate: Option<Mutate>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    #[cfg(feature = "files")]
    Target { name: "config", run: targets::config::run, mutate: Some(targets::config::mutate) },
    #[cfg(feature = "files")]
    Target { name: "contacts", run: targets::contacts::run, mutate: Some(targets::config::mutate) },
    Target { name: "envelope", run: targets::envelope::run, mutate: Some(targets::envelope::mutate) },
    Target { name: "payload", run: targets::payload::run, mutate: Some(targets::payload::mutate) },
    Target { name: "ipc_line", run: targets::ipc_line::run, mutate: Some(targets::ipc_line::mutate) },
    Target { name: "link", run: targets::link::run, mutate: None },
    Target {
        name: "ipc_session",
        run: targets::ipc_session::run,
        mutate: Some(targets::ipc_session::mutate),
    },
    Target { name: "node", run: targets::node::run, mutate: None },
    Target { name: "store", run: targets::store::run, mutate: None },
];

/// The target of this name.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target has this name")
}

/// The program of a target, for libFuzzer.
#[cfg(feature = "libfuzzer")]
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| ($crate::target($name).run)(data));
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            let mutate = $crate::target($name).mutate;
            let changed = mutate.and_then(|mutate| mutate(data.get(..size).unwrap_or_default(), seed));
            match changed.filter(|changed| changed.len() <= max_size) {
                Some(changed) => {
                    data[..changed.len()].copy_from_slice(&changed);
                    changed.len()
                }
                None => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
            }
        });
    };
}
