//! The daemon's image: what `axon daemon` turns into. It takes a plan of `axon` and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    axon::cli::run_image(std::env::args_os())
}
