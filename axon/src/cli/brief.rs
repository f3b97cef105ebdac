//! The command line of one verb, without the others.
//!
//! To describe all verbs to the parser took two thirds of a short verb's instructions. Here it is told of the
//! verb alone that the arguments name. Where that does not fit, as with a mistake or `--help`, the whole
//! command line is asked: it alone tells people anything.

use std::ffi::OsString;

use clap::{Args, Command, FromArgMatches as _};

use super::{Cli, Globals};

/// What these arguments mean, where they are those of a verb and nothing is wrong with them.
pub(super) fn parse(args: &[OsString]) -> Option<Cli> {
    // A word that only looks like the verb, say a root's name, leads to a command line that does not fit.
    let verb = args.iter().skip(1).find_map(|arg| command(arg.to_str()?))?;
    let axon = Globals::augment_args(Command::new("axon")).subcommand_required(true).subcommand(verb);
    Cli::from_arg_matches(&axon.try_get_matches_from(args).ok()?).ok()
}

/// The verbs that are often run, each as the whole command line has it.
fn command(verb: &str) -> Option<Command> {
    macro_rules! of {
        ($($name:literal: $args:ident::$type:ident,)*) => {
            match verb {
                $($name => Some(super::$args::$type::augment_args(Command::new($name))),)*
                _ => None,
            }
        };
    }
    of! {
        "daemon": daemon::Args,
        "whoami": whoami::Args,
        "status": status::Args,
        "top": top::Args,
        "invite": invite::Args,
        "connect": connect::Args,
        "knocks": knocks::Args,
        "approve": approve::Args,
        "deny": approve::DenyArgs,
        "peers": peers::Args,
        "presence": presence::Args,
        "who": presence::WhoArgs,
        "find": presence::FindArgs,
        "contacts": contacts::Args,
        "trust": trust::Args,
        "forget": forget::Args,
        "send": send::Args,
        "delegate": delegate::Args,
        "notify": notify::Args,
        "cancel": cancel::Args,
        "wait": wait::Args,
        "delegations": delegations::Args,
        "outbox": outbox::Args,
        "discover": discover::Args,
        "ping": ping::Args,
        "inbox": inbox::Args,
        "ack": inbox::AckArgs,
        "listen": listen::Args,
        "topic": topic::Args,
        "reply": reply::Args,
        "result": reply::ResultArgs,
        "answer": answer::Args,
        "mcp": mcp::Args,
        "pause": pause::Args,
        "resume": pause::ResumeArgs,
        "policy": policy::Args,
        "socket": socket::Args,
        "audit": audit::Args,
        "rekey": rekey::Args,
        "reload": reload::Args,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    /// A verb that is missing here, or that has got something here or there alone, is found out.
    #[test]
    fn each_verb_is_as_in_the_whole_command_line() {
        let mut slow = Vec::new();
        for whole in Cli::command().get_subcommands() {
            match command(whole.get_name()) {
                Some(alone) => {
                    // Its place among the others aside.
                    let [alone, whole] = [alone, whole.clone()].map(|command| command.display_order(0));
                    assert_eq!(format!("{alone:?}"), format!("{whole:?}"));
                }
                None => slow.push(whole.get_name().to_owned()),
            }
        }
        let no_socket = [
            "demo",
            "identity",
            "bench",
            "config",
            "doctor",
            "examples",
            "conform",
            "completions",
            "man",
            "service",
            "instances",
        ];
        assert_eq!(slow, no_socket);
    }

    #[test]
    fn what_fits_means_the_same_and_all_else_is_left_to_the_whole() {
        for line in [
            "axon status",
            "axon --json status",
            "axon status --json --root /r",
            "axon --root status status",
            "axon --name n -q send bob status",
            "axon -vv notify bob topic text",
            "axon policy check bob query",
            "axon socket list --socket /s",
            "axon topic sub build.> --count 1",
        ] {
            let alone = parse(&words(line)).unwrap_or_else(|| panic!("{line}"));
            let whole = Cli::try_parse_from(words(line)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(format!("{alone:?}"), format!("{whole:?}"), "{line}");
        }
        for line in [
            "axon",
            "axon --version",
            "axon help status",
            "axon status --help",
            "axon --root peers status",
            "axon statu",
            "axon status --nonsense",
            "axon status --json --plain",
            "axon identity status",
            "axon config",
        ] {
            assert!(parse(&words(line)).is_none(), "{line}");
        }
    }
}
