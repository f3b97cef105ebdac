//! What an outsider sees, in one program, so that tests that wait do so side by side and the whole is linked
//! once. One file of them: `cargo test --test all inbox::`
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod answering;
mod blocking;
mod cli;
mod cli_answer;
mod cli_bench;
mod cli_local;
mod cli_outbox;
mod cli_owner;
mod cli_top;
mod cli_topic;
mod cli_trust;
mod cli_view;
mod clients;
mod conform;
mod crash;
mod delegating;
mod examples;
mod exchanges;
mod half_lines;
mod hostile;
mod hostile_messages;
mod hostile_trust;
mod image;
mod inbox;
mod ipc;
mod kept;
mod kept_disk;
mod kept_ledger;
mod kept_read;
mod lifecycle;
mod many;
mod mcp;
mod mcp_bounds;
mod mcp_install;
mod mcp_lasting;
mod mcp_tools;
mod mdns;
mod naming;
mod net;
mod notifying;
mod packaging;
mod peer;
mod pipe;
mod presence;
mod pypeer;
mod readme;
mod rubrics;
mod service;
mod skill;
mod soak;
mod spec;
mod support;
mod tables;
mod tidy;
mod tokens;
mod topics;
mod topics_page;
mod traceability;
mod vectors;

/// Cargo does not look for tests by itself here, nor in `axon/proto`.
#[test]
fn no_file_of_tests_is_left_out() {
    for (dir, others) in [("tests", &[][..]), ("axon/proto/tests", &["allocations"])] {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        let parts = std::fs::read_to_string(dir.join("all.rs")).unwrap();
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let known =
                name == "all" || others.contains(&name) || parts.contains(&format!("\nmod {name};\n"));
            assert!(
                known || path.extension().is_none_or(|end| end != "rs"),
                "{}: not in all.rs",
                path.display()
            );
        }
    }
}
