//! `axon man`: the manual, from the one definition of the command line.

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
    Ok(String::from_utf8_lossy(&text).into_owned())
}
