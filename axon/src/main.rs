//! The `axon` command: the daemon, and the tools to talk to it.

use std::process::ExitCode;

fn main() -> ExitCode {
    axon::cli::run(std::env::args_os())
}
