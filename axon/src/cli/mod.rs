//! The command line: one file a verb, each over `axon-client` alone.
//!
//! [`run`] parses, runs the verb and gives the process's exit code. How things are printed and how failures
//! become exit codes is in [`output`]; the way to the daemon is in `link`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use axon_client::Welcome;
use clap::{Parser, Subcommand, ValueHint};

use crate::disk::Root;
use crate::disk::root::RootError;
use crate::image::Plan;
use output::{CliError, CliResult, EXIT_DONE, EXIT_USAGE, Out};

mod answer;
mod approve;
mod audit;
mod bench;
mod brief;
mod cancel;
mod completions;
mod config;
mod conform;
mod connect;
mod contacts;
mod daemon;
mod delegate;
mod delegations;
mod demo;
mod discover;
mod doctor;
mod examples;
mod forget;
mod identity;
mod inbox;
mod instances;
mod invite;
mod knocks;
mod level;
mod link;
mod listen;
mod man;
mod mcp;
mod mcp_install;
mod notify;
mod outbox;
pub mod output;
mod pause;
mod peers;
mod ping;
mod policy;
mod presence;
mod program;
mod qr;
mod rekey;
mod reload;
mod reply;
mod row;
mod send;
mod service;
mod show;
mod socket;
mod stage;
mod status;
mod top;
mod topic;
mod trust;
mod wait;
mod when;
mod whoami;

/// Runs the daemon's image, in the program that has nothing else.
pub fn run_image(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let out = Out::new(false, true, false, 0);
    let Some(plan) = Plan::of_this_image(&args) else {
        let text = "axond is what `axon daemon` turns into: run that";
        return ExitCode::from(out.fail(&CliError::usage(text)));
    };
    if let Some(error) = plan.return_to_its_build() {
        let text =
            format!("axond and axon are of different builds, and axon cannot be run ({error}): install both");
        return ExitCode::from(out.fail(&CliError::local("io", text)));
    }
    ExitCode::from(daemon::ended(&plan, plan.serve()))
}

/// Runs the command that these arguments name, and gives the exit code that tells how it went.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(plan) = Plan::of_this_image(&args) {
        return ExitCode::from(daemon::ended(&plan, plan.serve()));
    }
    if let Some(code) = crate::names::tell(&args) {
        return code;
    }
    let given = |flag: &str| args.iter().any(|arg| arg == flag);
    let (json, plain) = (given("--json"), given("--plain"));
    let cli = match brief::parse(&args).map_or_else(|| Cli::try_parse_from(args), Ok) {
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
            Out::new(json, plain, false, 0).failure_line(&CliError::usage(what));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let Globals { json, plain, quiet, verbose, .. } = cli.globals;
    let out = Out::new(json, plain, quiet, verbose);
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
        axon daemon        the daemon\n  axon invite        a link, for `axon connect LINK` on another \
        machine\n  axon examples      what is said on the socket"
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
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global", value_hint = ValueHint::DirPath)]
    root: Option<PathBuf>,
    /// An instance of its own under the default root
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global")]
    name: Option<String>,
    /// Talk to the daemon over this socket, as an agent does that has only a scoped one (see `axon socket`)
    /// [default: $AXON_SOCKET or axon.sock in the root]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        help_heading = "Global",
        value_hint = ValueHint::FilePath
    )]
    socket: Option<PathBuf>,
    /// One JSON object a line on stdout, as when it is piped
    #[arg(long, global = true, help_heading = "Global")]
    json: bool,
    /// Short text on stdout, as on a terminal, also when it is piped
    #[arg(long, global = true, conflicts_with = "json", help_heading = "Global")]
    plain: bool,
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
    Status(status::Args),
    Top(top::Args),
    Invite(invite::Args),
    Connect(connect::Args),
    Knocks(knocks::Args),
    Approve(approve::Args),
    Deny(approve::DenyArgs),
    Peers(peers::Args),
    Presence(presence::Args),
    Who(presence::WhoArgs),
    Find(presence::FindArgs),
    Contacts(contacts::Args),
    Trust(trust::Args),
    Forget(forget::Args),
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
    Topic(topic::Args),
    Reply(reply::Args),
    Result(reply::ResultArgs),
    Answer(answer::Args),
    Mcp(mcp::Args),
    Pause(pause::Args),
    Resume(pause::ResumeArgs),
    Policy(policy::Args),
    Socket(socket::Args),
    Audit(audit::Args),
    Rekey(rekey::Args),
    Reload(reload::Args),
    Bench(bench::Args),
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
    Conform(conform::Args),
    Completions(completions::Args),
    Man(man::Args),
    Service(service::Args),
    /// List the instances made by --name
    #[command(after_help = "Example:\n  axon instances")]
    Instances,
}

impl Cli {
    fn run(self, out: Out) -> CliResult {
        let verb = match self.verb {
            // These need no root, so that they work where there is none.
            Verb::Demo(args) => return drive(demo::run(&out, args)),
            Verb::Bench(args) if args.is_alone() => {
                return drive(bench::run_alone(&out, &self.globals, args));
            }
            Verb::Examples(args) => return examples::run(&out, &args),
            Verb::Conform(args) => return drive(conform::run(out, self.globals, args)),
            Verb::Completions(args) => return completions::run(&out, self.globals, &args),
            Verb::Man(args) => return man::run(&out, &args),
            Verb::Instances => return instances::run(&out),
            verb => verb,
        };
        let cx = &if verb.is_of_files() {
            Context::of_files(out, self.globals)?
        } else {
            Context::of_socket(out, self.globals)?
        };
        match verb {
            Verb::Daemon(args) => daemon::run(cx, args),
            Verb::Identity => identity::run(&cx.out, &cx.root),
            Verb::Config(args) => config::run(&cx.out, &cx.root, &args),
            Verb::Doctor { fix } => doctor::run(&cx.out, &cx.root, fix),
            Verb::Audit(args) => audit::run(cx, &args),
            Verb::Service(args) => service::run(cx, args),
            Verb::Whoami(args) => drive(whoami::run(cx, args)),
            Verb::Status(args) => drive(status::run(cx, args)),
            Verb::Top(args) => drive(top::run(cx, args)),
            Verb::Invite(args) => drive(invite::run(cx, args)),
            Verb::Connect(args) => drive(connect::run(cx, args)),
            Verb::Knocks(args) => drive(knocks::run(cx, args)),
            Verb::Approve(args) => drive(approve::run(cx, args)),
            Verb::Deny(args) => drive(approve::deny(cx, args)),
            Verb::Peers(args) => drive(peers::run(cx, args)),
            Verb::Presence(args) => drive(presence::run(cx, args)),
            Verb::Who(args) => drive(presence::who(cx, args)),
            Verb::Find(args) => drive(presence::find(cx, args)),
            Verb::Contacts(args) => drive(contacts::run(cx, args)),
            Verb::Trust(args) => drive(trust::run(cx, args)),
            Verb::Forget(args) => drive(forget::run(cx, args)),
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
            Verb::Topic(args) => drive(topic::run(cx, args)),
            Verb::Reply(args) => drive(reply::run(cx, args)),
            Verb::Result(args) => drive(reply::result(cx, args)),
            Verb::Answer(args) => drive(answer::run(cx, args)),
            Verb::Mcp(args) => drive(mcp::run(cx, args)),
            Verb::Pause(args) => drive(pause::run(cx, args)),
            Verb::Resume(args) => drive(pause::resume(cx, args)),
            Verb::Policy(args) => drive(policy::run(cx, args)),
            Verb::Socket(args) => drive(socket::run(cx, args)),
            Verb::Rekey(args) => drive(rekey::run(cx, args)),
            Verb::Reload(args) => drive(reload::run(cx, args)),
            Verb::Bench(args) => drive(bench::run(cx, args)),
            Verb::Demo(_)
            | Verb::Examples(_)
            | Verb::Conform(_)
            | Verb::Completions(_)
            | Verb::Man(_)
            | Verb::Instances => Ok(EXIT_DONE),
        }
    }
}

impl Verb {
    /// Whether it works on the files of a root rather than over a socket.
    fn is_of_files(&self) -> bool {
        matches!(
            self,
            Self::Daemon(_)
                | Self::Identity
                | Self::Config(_)
                | Self::Doctor { .. }
                | Self::Audit(_)
                | Self::Service(_)
        )
    }
}

/// What a verb works with.
#[derive(Debug)]
struct Context {
    out: Out,
    /// The agent's directory; where there is only a socket, the one that holds it.
    root: Root,
    /// The socket to talk over, where it is not the root's own.
    socket: Option<PathBuf>,
    /// What to write between `axon` and a verb to mean the same agent: empty, or begins with a space.
    flags: String,
}

impl Context {
    /// With the files of a root.
    fn of_files(out: Out, globals: Globals) -> Result<Self, CliError> {
        if globals.socket.is_some() {
            let text = "this verb works on files and not over a socket: name the agent by --root or --name";
            return Err(CliError::usage(text));
        }
        let root = Root::resolve(globals.root, globals.name.as_deref()).map_err(root_error)?;
        Ok(Self::at(out, root))
    }

    /// With a daemon, over its root's socket or another.
    fn of_socket(out: Out, globals: Globals) -> Result<Self, CliError> {
        Self::of_socket_in(out, globals, std::env::var_os("AXON_SOCKET"))
    }

    fn of_socket_in(out: Out, globals: Globals, env: Option<OsString>) -> Result<Self, CliError> {
        let named = globals.root.is_some() || globals.name.is_some();
        let (socket, told) = match globals.socket {
            Some(_) if named => {
                let text = "--socket and --root or --name each say which agent is meant: give one of them";
                return Err(CliError::usage(text));
            }
            Some(path) => (path, true),
            // What is said on the command line comes before the environment.
            None => match env.filter(|path| !path.is_empty() && !named) {
                Some(path) => (path.into(), false),
                None => return Self::of_files(out, globals),
            },
        };
        let socket = std::path::absolute(&socket).unwrap_or(socket);
        let root = Root::at(socket.parent().unwrap_or(&socket));
        let flags = if told { format!(" --socket {}", show::quoted(&socket)) } else { String::new() };
        Ok(Self { out, root, socket: Some(socket), flags })
    }

    fn at(out: Out, root: Root) -> Self {
        let flags = root.flags().to_owned();
        Self { out, root, socket: None, flags }
    }

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
    drive_for(verb)
}

/// The same for what is only a part of a verb.
fn drive_for<T>(verb: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
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

    /// One of the same name would take its place, and its value.
    #[test]
    fn no_argument_of_a_verb_is_called_as_a_global_one() {
        fn look(command: &clap::Command, globals: &[String]) {
            for verb in command.get_subcommands() {
                for arg in verb.get_arguments().map(|arg| arg.get_id().to_string()) {
                    assert!(!globals.contains(&arg), "{arg} of {}", verb.get_name());
                }
                look(verb, globals);
            }
        }
        let cli = Cli::command();
        let globals: Vec<String> = cli.get_arguments().map(|arg| arg.get_id().to_string()).collect();
        assert!(globals.iter().any(|id| id == "name"));
        look(&cli, &globals);
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

    #[test]
    fn a_socket_is_chosen_by_flag_then_by_root_then_by_the_environment() {
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let of = |args: &[&str], env: Option<&str>| {
            let globals = Cli::try_parse_from(["axon", "status"].iter().chain(args)).unwrap().globals;
            Context::of_socket_in(out, globals, env.map(OsString::from))
        };
        let cx = of(&["--socket", "/s/a b.sock"], Some("/e")).unwrap();
        assert_eq!((cx.socket, cx.flags.as_str()), (Some("/s/a b.sock".into()), " --socket '/s/a b.sock'"));
        let cx = of(&[], Some("/e/axon.sock")).unwrap();
        assert_eq!((cx.socket, cx.flags.as_str()), (Some("/e/axon.sock".into()), ""));
        let cx = of(&["--root", "/r"], Some("/e")).unwrap();
        assert_eq!((cx.socket, cx.flags.as_str()), (None, " --root /r"));
        assert!(of(&["--root", "/r"], Some("")).unwrap().socket.is_none());
        for wrong in [&["--socket", "/s", "--root", "/r"][..], &["--socket", "/s", "--name", "n"]] {
            assert_eq!(of(wrong, None).unwrap_err().exit, EXIT_USAGE);
        }
        let globals = Cli::try_parse_from(["axon", "--socket", "/s", "identity"]).unwrap().globals;
        assert!(Context::of_files(out, globals).unwrap_err().message.contains("--root"));
    }
}
