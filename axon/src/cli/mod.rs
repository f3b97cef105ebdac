//! The command line: one file a verb, each over `axon-client` alone.
//!
//! [`run`] parses, runs the verb and gives the process's exit code. How things are printed and how failures
//! become exit codes is in [`output`]; the way to the daemon is in `link`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use axon_client::Welcome;
use clap::{Parser, Subcommand};

use crate::disk::Root;
use crate::disk::root::RootError;
use crate::image::Plan;
use output::{CliError, CliResult, EXIT_DONE, EXIT_USAGE, Out};

mod answer;
mod cancel;
mod completions;
mod config;
mod daemon;
mod delegate;
mod delegations;
mod demo;
mod discover;
mod doctor;
mod examples;
mod identity;
mod inbox;
mod instances;
mod link;
mod listen;
mod notify;
mod outbox;
pub mod output;
mod peers;
mod ping;
mod program;
mod reply;
mod send;
mod show;
mod status;
mod wait;
mod whoami;

/// Runs the command that these arguments name, and gives the exit code that tells how it went.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(plan) = Plan::of_this_image(&args) {
        return ExitCode::from(daemon::ended(&plan, plan.serve()));
    }
    let json = args.iter().any(|arg| arg == "--json");
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that has gone away does not want the help.
            error.print().ok();
            if !error.use_stderr() {
                return ExitCode::from(EXIT_DONE);
            }
            let text = error.render().to_string();
            let what = text.split("\n\nUsage").next().unwrap_or_default().trim_start_matches("error: ");
            let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
            Out::new(json, false, 0).failure_line(&CliError::usage(what));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let out = Out::new(cli.globals.json, cli.globals.quiet, cli.globals.verbose);
    ExitCode::from(out.finish(cli.run(out)))
}

/// Agents on different machines ask each other things and get the other agent's own answer.
#[derive(Debug, Parser)]
#[command(
    name = "axon",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 local failure, 2 usage, 3 timeout, 4 the peer refused, 5 unknown or \
        unreachable peer.\nBegin with:\n  axon demo          two daemons on this machine, talking\n  \
        axon daemon        the daemon\n  axon examples      what is said on the socket"
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Args)]
struct Globals {
    /// The agent's directory [default: $AXON_ROOT or ~/.axon]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global")]
    root: Option<PathBuf>,
    /// An instance of its own under the default root
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global")]
    name: Option<String>,
    /// One JSON object a line on stdout, as when it is piped
    #[arg(long, global = true, help_heading = "Global")]
    json: bool,
    /// No remarks on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global")]
    quiet: bool,
    /// More remarks on stderr
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global")]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Daemon(daemon::Args),
    Demo(demo::Args),
    /// Show this agent's identity, made on first use
    #[command(after_help = "Example:\n  axon identity --json")]
    Identity,
    Whoami(whoami::Args),
    Peers(peers::Args),
    Status(status::Args),
    Send(send::Args),
    Delegate(delegate::Args),
    Notify(notify::Args),
    Cancel(cancel::Args),
    Wait(wait::Args),
    Delegations(delegations::Args),
    Outbox(outbox::Args),
    Discover(discover::Args),
    Ping(ping::Args),
    Inbox(inbox::Args),
    Ack(inbox::AckArgs),
    Listen(listen::Args),
    Reply(reply::Args),
    Result(reply::ResultArgs),
    Answer(answer::Args),
    /// Show or change a setting, keeping the file's comments and order
    #[command(after_help = "Example:\n  axon config port 7200")]
    Config(config::ConfigArgs),
    /// Find what is wrong with this agent, and mend it
    #[command(after_help = "Example:\n  axon doctor --fix")]
    Doctor {
        /// Mend what can be mended
        #[arg(long)]
        fix: bool,
    },
    Examples(examples::Args),
    Completions(completions::Args),
    /// List the instances made by --name
    #[command(after_help = "Example:\n  axon instances")]
    Instances,
}

impl Cli {
    fn run(self, out: Out) -> CliResult {
        let Globals { root, name, .. } = self.globals;
        let verb = match self.verb {
            // These need no root, so that they work where there is none.
            Verb::Demo(args) => return drive(demo::run(&out, args)),
            Verb::Examples(args) => return examples::run(&out, &args),
            Verb::Completions(args) => return completions::run(&out, &args),
            Verb::Instances => return instances::run(&out),
            verb => verb,
        };
        let root = Root::resolve(root, name.as_deref()).map_err(root_error)?;
        let cx = &Context { out, root };
        match verb {
            Verb::Daemon(args) => daemon::run(cx, args),
            Verb::Identity => identity::run(&cx.out, &cx.root),
            Verb::Config(args) => config::run(&cx.out, &cx.root, &args),
            Verb::Doctor { fix } => doctor::run(&cx.out, &cx.root, fix),
            Verb::Whoami(args) => drive(whoami::run(cx, args)),
            Verb::Peers(args) => drive(peers::run(cx, args)),
            Verb::Status(args) => drive(status::run(cx, args)),
            Verb::Send(args) => drive(send::run(cx, args)),
            Verb::Delegate(args) => drive(delegate::run(cx, args)),
            Verb::Notify(args) => drive(notify::run(cx, args)),
            Verb::Cancel(args) => drive(cancel::run(cx, args)),
            Verb::Wait(args) => drive(wait::run(cx, args)),
            Verb::Delegations(args) => drive(delegations::run(cx, args)),
            Verb::Outbox(args) => drive(outbox::run(cx, args)),
            Verb::Discover(args) => drive(discover::run(cx, args)),
            Verb::Ping(args) => drive(ping::run(cx, args)),
            Verb::Inbox(args) => drive(inbox::run(cx, args)),
            Verb::Ack(args) => drive(inbox::ack(cx, args)),
            Verb::Listen(args) => drive(listen::run(cx, args)),
            Verb::Reply(args) => drive(reply::run(cx, args)),
            Verb::Result(args) => drive(reply::result(cx, args)),
            Verb::Answer(args) => drive(answer::run(cx, args)),
            Verb::Demo(_) | Verb::Examples(_) | Verb::Completions(_) | Verb::Instances => Ok(EXIT_DONE),
        }
    }
}

/// What a verb works with.
#[derive(Debug)]
struct Context {
    out: Out,
    root: Root,
}

impl Context {
    /// Says so when the daemon is of another version than this command line.
    fn compare_version(&self, welcome: &Welcome) {
        let ours = env!("CARGO_PKG_VERSION");
        if let Some(theirs) = welcome.daemon_version.as_deref().filter(|theirs| *theirs != ours) {
            self.out.note(|| format!("the daemon is version {theirs} and this is {ours}: start it again"));
        }
    }
}

/// No root to work with, as the command line's failure.
fn root_error(error: RootError) -> CliError {
    match error {
        RootError::Usage(text) => CliError::usage(text),
        RootError::Disk(error) => CliError::local("io", error.to_string()),
    }
}

/// Runs a verb that talks to the daemon, on one thread and without anything that it does not need.
fn drive(verb: impl Future<Output = CliResult>) -> CliResult {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::local("io", format!("cannot start: {error}")))?;
    let result = runtime.block_on(verb);
    // A thread that still reads stdin must not hold up the end.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_a_short_help_with_an_example() {
        for verb in Cli::command().get_subcommands_mut() {
            let help = verb.render_help().to_string();
            assert!(help.contains("Example"), "{}", verb.get_name());
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
        }
    }

    #[test]
    fn globals_go_before_and_after_the_verb() {
        for args in [["axon", "--json", "status"], ["axon", "status", "--json"]] {
            assert!(Cli::try_parse_from(args).unwrap().globals.json);
        }
    }
}
