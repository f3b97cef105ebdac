//! `axon daemon`: runs the daemon in the foreground.

use super::Context;
use super::output::{CliError, CliResult, EXIT_DONE, Out};
use crate::driver::DriverError;
use crate::image::Plan;

/// Run the daemon in the foreground; SIGTERM or Ctrl-C ends it, SIGHUP makes it read its settings again.
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

pub(super) fn run(cx: &Context, args: Args) -> CliResult {
    cx.root.open().map_err(super::root_error)?;
    if args.port.is_none() {
        super::instances::choose_port(&cx.root)?;
    }
    let plan = Plan {
        root: cx.root.dir().to_owned(),
        name: cx.root.instance().map(str::to_owned),
        port: args.port,
        disable_mdns: args.disable_mdns,
        until_eof: args.until_eof,
        verbose: cx.out.verbose,
        quiet: cx.out.quiet,
        json: cx.out.json,
        build: String::new(),
        program: std::path::PathBuf::new(),
    };
    let error = plan.start_anew();
    cx.out.detail(|| format!("the daemon keeps the memory of its command line: {error}"));
    plan.serve().map_err(failure)?;
    Ok(EXIT_DONE)
}

/// How a daemon that did not start is told to whoever started it.
pub(super) fn ended(plan: &Plan, result: Result<(), DriverError>) -> u8 {
    match result {
        Ok(()) => EXIT_DONE,
        Err(error) => Out::new(plan.json, !plan.json, plan.quiet, plan.verbose).fail(&failure(error)),
    }
}

fn failure(error: DriverError) -> CliError {
    let code = match error {
        DriverError::Key(error) => return super::identity::key_error(error),
        DriverError::Lock(_) => "locked",
        DriverError::Config(_) => "invalid_config",
        DriverError::Bind(_) => "port",
        DriverError::Disk(_)
        | DriverError::Store(_)
        | DriverError::Socket { .. }
        | DriverError::System(_) => "io",
    };
    CliError::local(code, error.to_string())
}
