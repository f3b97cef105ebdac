//! `axon daemon`: runs the daemon in the foreground.

use std::io::Read as _;

use super::Context;
use super::output::{CliError, CliResult, EXIT_DONE};
use crate::disk::Root;
use crate::driver::DriverError;

/// Run the daemon in the foreground; SIGTERM or Ctrl-C ends it, SIGHUP reads its config again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon daemon --port 7200")]
pub struct Args {
    /// UDP port, instead of the config's
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Neither announce this agent on the local network nor look for others there
    #[arg(long)]
    disable_mdns: bool,
    /// Stop when stdin ends, as it does when its parent process dies
    #[arg(long, hide = true)]
    until_eof: bool,
}

/// What the daemon is told by its command line.
#[derive(Debug, Clone)]
pub struct DaemonArgs {
    /// Where it lives.
    pub root: Root,
    /// UDP port, instead of the config's.
    pub port: Option<u16>,
    /// No discovery on the local network.
    pub disable_mdns: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    /// Only warnings in the log.
    pub quiet: bool,
}

pub(super) fn run(cx: &Context, args: Args) -> CliResult {
    cx.root.open().map_err(super::root_error)?;
    if args.port.is_none() {
        super::instances::choose_port(&cx.root)?;
    }
    if args.until_eof {
        std::thread::spawn(stop_at_eof);
    }
    let args = DaemonArgs {
        root: cx.root.clone(),
        port: args.port,
        disable_mdns: args.disable_mdns,
        verbose: cx.out.verbose,
        quiet: cx.out.quiet,
    };
    crate::driver::run(args).map_err(failure)?;
    Ok(EXIT_DONE)
}

fn failure(error: DriverError) -> CliError {
    let code = match error {
        DriverError::Key(error) => return super::identity::key_error(error),
        DriverError::Lock(_) => "locked",
        DriverError::Config(_) => "invalid_config",
        DriverError::Bind(_) => "port",
        DriverError::Disk(_) | DriverError::Socket { .. } | DriverError::System(_) => "io",
    };
    CliError::local(code, error.to_string())
}

/// Asks this process to stop, in the ordinary way, once nobody holds the other end of stdin.
fn stop_at_eof() {
    let mut byte = [0; 64];
    while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
    // It cannot fail: the process is our own and the signal exists.
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).ok();
}
