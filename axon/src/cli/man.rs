//! `axon man`: the manual, from the one definition of the command line.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use serde_json::json;

use super::output::{CliError, CliResult, EXIT_DONE, Out};

/// Print a page of the manual, or write all of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon man send | man -l -\n  axon man --dir ~/.local/share/man/man1")]
pub struct Args {
    /// The verb, and what follows it, such as `socket add`; without one, the page of axon itself
    #[arg(value_name = "VERB", conflicts_with = "dir")]
    verb: Vec<String>,
    /// Write the pages of axon and of all verbs into this directory
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

pub(super) fn run(out: &Out, args: &Args) -> CliResult {
    let pages = pages();
    if let Some(dir) = &args.dir {
        return write(out, dir, &pages);
    }
    let wanted =
        ["axon"].into_iter().chain(args.verb.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    let Some(page) = pages.iter().find(|page| name(page) == wanted) else {
        let verb = args.verb.join(" ");
        return Err(CliError::usage(format!("there is no verb {verb}: `axon help` lists them")));
    };
    out.raw(&render(page).map_err(|error| CliError::local("io", error.to_string()))?)?;
    Ok(EXIT_DONE)
}

fn write(out: &Out, dir: &Path, pages: &[Command]) -> CliResult {
    let failed = |what: &str, path: &Path, error: io::Error| {
        CliError::local("io", format!("cannot {what} {}: {error}", path.display()))
    };
    fs::create_dir_all(dir).map_err(|error| failed("make", dir, error))?;
    for page in pages {
        let path = dir.join(format!("{}.1", name(page)));
        let text = render(page).map_err(|error| failed("make", &path, error))?;
        fs::write(&path, text).map_err(|error| failed("write", &path, error))?;
    }
    let (count, shown) = (pages.len(), dir.display().to_string());
    out.result(&json!({"ok": true, "pages": count, "dir": shown}), || {
        format!("{count} pages are in {shown}: `man -l {shown}/axon.1` shows the first")
    })?;
    Ok(EXIT_DONE)
}

/// A command for each page.
fn pages() -> Vec<Command> {
    let mut axon = super::Cli::command().disable_help_subcommand(true);
    axon.build();
    let mut pages = Vec::new();
    add(&axon, &mut pages);
    pages
}

fn add(command: &Command, pages: &mut Vec<Command>) {
    pages.push(command.clone());
    command.get_subcommands().filter(|verb| !verb.is_hide_set()).for_each(|verb| add(verb, pages));
}

/// What a page is called, such as `axon-socket-add`.
fn name(page: &Command) -> &str {
    page.get_display_name().unwrap_or_else(|| page.get_name())
}

fn render(page: &Command) -> io::Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(page.clone()).source(format!("axon {version}")).manual("axon");
    let mut text = Vec::new();
    man.render(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // What stands after the help of a verb is its example; after that of axon, how to begin.
    let is_axon = name(page) == "axon";
    let (heading, more) = if is_axon { ("NOTES", OF_AXON) } else { ("EXAMPLES", OF_VERBS) };
    let text = text.replacen("\n.SH EXTRA", &format!("\n.SH {heading}"), 1);
    Ok(format!("{}\n{more}", ascii(text.trim_end())))
}

/// Other characters in a form that every roff takes, whatever encoding it expects.
fn ascii(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            plain.push(c);
        } else {
            // Writing to a string cannot fail.
            write!(plain, "\\[u{:04X}]", u32::from(c)).ok();
        }
    }
    plain
}

/// What the definition of the command line does not tell of axon.
const OF_AXON: &str = "\
.SH ENVIRONMENT
.TP
\\fBAXON_ROOT\\fR
The agent\\(aqs directory, where no \\fB\\-\\-root\\fR or \\fB\\-\\-name\\fR names one.
.TP
\\fBAXON_SOCKET\\fR
The socket to talk over, where nothing else names an agent.
.TP
\\fBAXON_LOG_BYTES_MAX\\fR
How large the file may become that the daemon\\(aqs log is appended to; then it begins anew.
.TP
\\fBNO_COLOR\\fR
No colours.
.TP
\\fBNOTIFY_SOCKET\\fR, \\fBWATCHDOG_USEC\\fR
A service manager that wants to know how the daemon is; see
.BR sd_notify (3).
.SH FILES
.TP
\\fI~/.axon/config.toml\\fR
Settings; \\fBaxon config \\-\\-list\\fR shows them all.
.TP
\\fI~/.axon/contacts.toml\\fR
What was said of whom.
.TP
\\fI~/.axon/identity.key\\fR
The agent\\(aqs secret key. Who has it is this agent.
.TP
\\fI~/.axon/axon.sock\\fR
The daemon\\(aqs socket.
.TP
\\fI~/.axon/store\\fR
Inbox, held messages and delegations.
.TP
\\fI~/.axon/instances/NAME\\fR
The same of an instance.
";

/// What it does not tell of a verb.
const OF_VERBS: &str = "\
.SH SEE ALSO
.BR axon (1)
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_with_what_it_is_called_with() {
        let pages = pages();
        let names: Vec<&str> = pages.iter().map(name).collect();
        for wanted in ["axon", "axon-send", "axon-socket-add", "axon-policy-check", "axon-service-install"] {
            assert!(names.contains(&wanted), "{wanted}: {names:?}");
        }
        let hidden = ["axon-help", "axon-service-unit", "axon-service-help", "axon-socket-help"];
        assert!(!names.iter().any(|name| hidden.contains(name)), "{names:?}");
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len());
        for page in &pages {
            let text = render(page).unwrap();
            let of_verb = name(page) != "axon";
            assert!(text.contains("\\-\\-root") && !text.contains(".SH EXTRA"), "{text}");
            assert_eq!(text.contains(".SH \"SEE ALSO\"") || text.contains(".SH SEE ALSO"), of_verb, "{text}");
            assert_eq!(text.contains("AXON_LOG_BYTES_MAX"), !of_verb);
        }
    }
}
