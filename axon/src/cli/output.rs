//! What the command line prints, and how it fails: text for a person on a terminal, one JSON object a line
//! for everyone else.
//!
//! Results go to stdout, everything else to stderr. A reader that went away (`axon listen | head`) is no
//! fault: the write comes back as [`CliError::closed`], which ends the verb with exit code 0 and without a
//! word.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use axon_proto::error::{IpcCode, IpcError};
use serde::Serialize;

/// What a verb ends with: its exit code, or a failure that [`Out::fail`] prints.
pub type CliResult = Result<u8, CliError>;

/// Exit code of a verb that did what it was asked.
pub const EXIT_DONE: u8 = 0;
/// Exit code of a local failure: no daemon, no file, no right.
pub const EXIT_LOCAL: u8 = 1;
/// Exit code of a command line that makes no sense.
pub const EXIT_USAGE: u8 = 2;

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// One compact JSON object a line on stdout and nothing else.
    pub json: bool,
    /// No remarks on stderr, only failures.
    pub quiet: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    /// Colour on stdout.
    pub color: bool,
}

/// A failed verb: a code for programs, a sentence for people, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// What happened, as in the specification's error tables.
    pub code: Cow<'static, str>,
    /// What to do about it.
    pub message: String,
    /// The process ends with this.
    pub exit: u8,
}

impl CliError {
    /// A failure with these parts.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>, exit: u8) -> Self {
        Self { code: code.into(), message: message.into(), exit }
    }

    /// Something on this machine stands in the way: exit code 1.
    pub fn local(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, message, EXIT_LOCAL)
    }

    /// The command line makes no sense: text on stderr, in JSON mode as well; exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new("usage", message, EXIT_USAGE)
    }

    /// The reader of stdout has gone: exit code 0, nothing printed.
    pub fn closed() -> Self {
        Self::new("closed", "the reader of stdout has gone", EXIT_DONE)
    }
}

impl From<IpcError> for CliError {
    fn from(error: IpcError) -> Self {
        Self::ipc(error.code, error.message)
    }
}

impl CliError {
    /// A failure that the daemon told, or that has one of its codes.
    pub fn ipc(code: IpcCode, message: impl Into<String>) -> Self {
        Self::new(code.as_str(), message, code.exit_code())
    }
}

/// Colours, by what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// It is well.
    Good,
    /// Look at it.
    Warn,
    /// It is not well.
    Bad,
    /// Less important than the rest.
    Dim,
    /// More important than the rest.
    Bold,
}

impl Out {
    /// The way to print that the flags, the terminal and `NO_COLOR` ask for.
    ///
    /// `plain` is for who reads text over a pipe: an agent pays for every word, and JSON has more of them.
    pub fn new(json: bool, plain: bool, quiet: bool, verbose: u8) -> Self {
        let terminal = io::stdout().is_terminal();
        let colorless = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let json = json || !(terminal || plain);
        Self { json, quiet, verbose, color: terminal && !json && !colorless }
    }

    /// One JSON line on stdout, in JSON mode only.
    pub fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), CliError> {
        if !self.json {
            return Ok(());
        }
        let line = serde_json::to_string(value).map_err(|error| {
            CliError::local("internal_error", format!("cannot print the result: {error}"))
        })?;
        write_line(&line)
    }

    /// Text on stdout, for a person only. The newline at its end is added.
    pub fn human(&self, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if self.json { Ok(()) } else { write_line(&text()) }
    }

    /// The same result for both kinds of reader.
    pub fn result<T: Serialize + ?Sized>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.json { self.json(value) } else { self.human(text) }
    }

    /// Text on stdout in every mode, for verbs whose product is text (`completions`, `examples`).
    pub fn raw(&self, text: &str) -> Result<(), CliError> {
        write_all(text.as_bytes())
    }

    /// A remark on stderr, in every mode; not with `-q`.
    pub fn note(&self, text: impl FnOnce() -> String) {
        if !self.quiet {
            remark(&text());
        }
    }

    /// A remark on stderr that only `-v` asks for.
    pub fn detail(&self, text: impl FnOnce() -> String) {
        if self.verbose > 0 {
            remark(&text());
        }
    }

    /// The text in a colour, where there are colours.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Good => "32",
            Paint::Warn => "33",
            Paint::Bad => "31",
            Paint::Dim => "2",
            Paint::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Prints the failure where its reader looks, and gives the exit code.
    pub fn fail(&self, error: &CliError) -> u8 {
        if error.exit == EXIT_DONE {
            return EXIT_DONE;
        }
        self.failure_line(error);
        // What is wrong with the command itself is also for whoever wrote it.
        if !self.json || error.exit == EXIT_USAGE {
            remark(&error.message);
        }
        error.exit
    }

    /// The line about a failure, where lines are JSON.
    pub fn failure_line(&self, error: &CliError) {
        if self.json {
            let line = Failure { ok: false, error: &error.code, message: &error.message };
            // Nothing is left to tell when even this cannot be written.
            self.json(&line).ok();
        }
    }

    /// What a verb ended with, printed if it failed, as the process's exit code.
    pub fn finish(&self, result: CliResult) -> u8 {
        match result {
            Ok(exit) => exit,
            Err(error) => self.fail(&error),
        }
    }
}

/// Text of a peer or a file with its control characters made harmless for a terminal. Newlines and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| (c.is_control() && c != '\n' && c != '\t') || is_bidi(c);
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect())
}

/// Characters that make a terminal show text in another order than it is written.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[derive(Serialize)]
struct Failure<'a> {
    ok: bool,
    error: &'a str,
    message: &'a str,
}

fn write_line(line: &str) -> Result<(), CliError> {
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.extend_from_slice(line.as_bytes());
    if !line.ends_with('\n') {
        bytes.push(b'\n');
    }
    write_all(&bytes)
}

fn write_all(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::closed()),
        Err(error) => Err(CliError::local("io", format!("cannot write to stdout: {error}"))),
    }
}

/// A line on stderr. Who closed stderr does not want to know.
fn remark(text: &str) {
    writeln!(io::stderr().lock(), "axon: {}", printable(text.trim_end())).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\n\tb"), "a\n\tb");
        assert_eq!(printable("a\x1b[2Jb\u{202e}"), "a\u{fffd}[2Jb\u{fffd}");
    }

    #[test]
    fn colour_only_where_there_is_colour() {
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        assert_eq!(out.paint(Paint::Good, "ok"), "ok");
        assert_eq!(Out { color: true, ..out }.paint(Paint::Good, "ok"), "\x1b[32mok\x1b[0m");
    }

    #[test]
    fn exit_codes_follow_the_code() {
        let out = Out { json: false, quiet: true, verbose: 0, color: false };
        assert_eq!(out.finish(Err(CliError::ipc(IpcCode::Timeout, "late"))), 3);
        assert_eq!(out.finish(Err(CliError::closed())), 0);
        assert_eq!(out.finish(Ok(4)), 4);
    }
}
