//! The managers' own programs: what is run, and how it failed.

use std::fmt;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Most of what a program says that is told on, in bytes.
const SAID_BYTES_MAX: usize = 400;

/// One run of one of them.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub program: &'static str,
    pub args: Vec<String>,
    /// Whether it starts the daemon, so that the daemon may be what failed.
    pub starts: bool,
    /// Whether it does not matter when it fails.
    pub may_fail: bool,
}

/// A run that failed.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub call: Call,
    pub why: Why,
}

#[derive(Debug, Clone)]
pub(super) enum Why {
    /// There is no such program.
    Missing,
    /// It could not be run.
    System(String),
    /// It says no: its exit code and what it said.
    No(Option<i32>, String),
}

impl Call {
    pub fn new(program: &'static str, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { program, args, starts: false, may_fail: false }
    }

    pub fn starting(self) -> Self {
        Self { starts: true, ..self }
    }

    pub fn optional(self) -> Self {
        Self { may_fail: true, ..self }
    }

    /// Runs it to its end; gives what it printed.
    pub fn run(&self) -> Result<String, Failed> {
        let failed = |why| Failed { call: self.clone(), why };
        let Output { status, stdout, stderr } = match self.command().stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) => return Err(failed(of_io(&error))),
        };
        if status.success() || self.may_fail {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&stderr);
        let said = if said.trim().is_empty() { String::from_utf8_lossy(&stdout) } else { said };
        Err(failed(Why::No(status.code(), short(&said))))
    }

    /// Becomes it. Returns only when that is not possible.
    pub fn become_it(&self) -> Failed {
        let error = self.command().exec();
        Failed { call: self.clone(), why: of_io(&error) }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.args(&self.args);
        // Who came by `su` has no variable that names the user's own directory, and still has that directory.
        if std::env::var_os("XDG_RUNTIME_DIR").is_none_or(|dir| dir.is_empty()) {
            let dir = PathBuf::from(format!("/run/user/{}", uid()));
            if dir.is_dir() {
                command.env("XDG_RUNTIME_DIR", dir);
            }
        }
        command
    }
}

/// As it is written in a shell.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program)?;
        self.args.iter().try_for_each(|arg| match arg.split_once('=') {
            Some((name, value)) => write!(f, " {name}={}", super::show::quoted(Path::new(value))),
            None => write!(f, " {}", super::show::quoted(Path::new(arg))),
        })
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = &self.call;
        match &self.why {
            Why::Missing => write!(f, "there is no {} on this machine", call.program),
            Why::System(error) => write!(f, "`{call}` cannot be run: {error}"),
            Why::No(_, said) if !said.is_empty() => write!(f, "`{call}` failed: {said}"),
            Why::No(Some(code), _) => write!(f, "`{call}` failed with exit code {code}"),
            Why::No(None, _) => write!(f, "`{call}` was ended by a signal"),
        }
    }
}

/// The user whose services these are.
pub(super) fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn of_io(error: &io::Error) -> Why {
    match error.kind() {
        io::ErrorKind::NotFound => Why::Missing,
        _ => Why::System(error.to_string()),
    }
}

/// The beginning of what a program said, on one line.
fn short(said: &str) -> String {
    let mut line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > SAID_BYTES_MAX {
        let end = (0..=SAID_BYTES_MAX).rev().find(|end| line.is_char_boundary(*end)).unwrap_or_default();
        line.truncate(end);
        line.push('…');
    }
    super::printable(&line).into_owned()
}
