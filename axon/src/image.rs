//! The daemon's own process image.
//!
//! `axon daemon` parses its command line and then starts the same program anew, in the same process, with
//! what it understood as one argument. The new image maps and allocates nothing of the command line: the
//! daemon is a good part of a megabyte smaller for it. Why: `spec/decisions/0007-a-small-daemon.md`.
//! With another identity (`axon rekey`) the daemon starts again in the same way.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::disk::Root;
use crate::driver::{self, DaemonArgs, DriverError, End};
use crate::notify::Notify;

/// What the daemon's image is called in a list of processes.
const NAME: &str = "axon daemon";
/// What its only argument begins with.
const PLAN: &str = "--image=";

/// How glibc's allocator is set; what somebody else has set does not count. Figures: decision 0013.
const ALLOCATOR: [(&str, &str); 3] = [
    // Its few small threads share one arena; glibc would give each its own.
    ("MALLOC_ARENA_MAX", "1"),
    // Larger pieces are maps of their own, which go back to the system at once. By itself glibc raises this,
    // up to 32 MB, with the largest piece that was ever given back, and then keeps twice as much.
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

/// The command line as it was understood.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The root's directory.
    pub root: PathBuf,
    /// The instance's name, where the root is that of one.
    pub name: Option<String>,
    /// UDP port, instead of the config's.
    pub port: Option<u16>,
    /// No discovery on the local network.
    pub disable_mdns: bool,
    /// Stop when stdin ends.
    pub until_eof: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    /// Only warnings in the log.
    pub quiet: bool,
    /// Failures as JSON.
    pub json: bool,
    /// Which build has made this plan.
    #[serde(default)]
    pub build: String,
    /// The program to go on with, where the daemon's own one is of another build.
    #[serde(default)]
    pub program: PathBuf,
}

/// Which build this is: programs of one build understand each other's plans.
pub const BUILD: &str = env!("AXON_BUILD");
/// The daemon's own program, beside `axon`.
const DAEMON: &str = "axond";

impl Plan {
    /// The plan of an image that was started by [`Plan::start_anew`].
    pub fn of_this_image(args: &[OsString]) -> Option<Self> {
        match args {
            [_, text] => serde_json::from_str(text.to_str()?.strip_prefix(PLAN)?).ok(),
            _ => None,
        }
    }

    /// Turns this process into the daemon's image. Returns only when that is not possible.
    ///
    /// The image is that of `axond`, where it lies beside this program, and else another of this program.
    pub fn start_anew(&self) -> io::Error {
        let program = match self.caller() {
            Ok(program) => program,
            Err(error) => return error,
        };
        let daemon = program.with_file_name(DAEMON);
        if daemon.is_file() {
            // Where it cannot be run, this program can.
            self.turn_into(&daemon, program.clone());
        }
        self.turn_into(&program, PathBuf::new())
    }

    /// The program that has everything: the one that this image was called by, or is.
    ///
    /// The files of both may be others by now, and the system then names this image's own as one that is
    /// gone.
    fn caller(&self) -> io::Result<PathBuf> {
        if self.program.as_os_str().is_empty() { std::env::current_exe() } else { Ok(self.program.clone()) }
    }

    fn turn_into(&self, image: &Path, program: PathBuf) -> io::Error {
        let plan = Self { build: BUILD.to_owned(), program, ..self.clone() };
        match serde_json::to_string(&plan) {
            Ok(text) => {
                let plan = format!("{PLAN}{text}");
                Command::new(image).arg0(NAME).arg(plan).envs(ALLOCATOR).exec()
            }
            Err(error) => error.into(),
        }
    }

    /// Goes on in the program that has made this plan, where that is of another build than this one. Returns
    /// only when it is of the same, or cannot be run.
    pub fn return_to_its_build(&self) -> Option<io::Error> {
        if self.build == BUILD || self.program.as_os_str().is_empty() {
            return None;
        }
        let text = match serde_json::to_string(&Self { program: PathBuf::new(), ..self.clone() }) {
            Ok(text) => text,
            Err(error) => return Some(error.into()),
        };
        Some(Command::new(&self.program).arg0(NAME).arg(format!("{PLAN}{text}")).exec())
    }

    /// Runs the daemon. One that is to start again does so in a new image of the same process.
    pub fn serve(&self) -> Result<(), DriverError> {
        let root = self
            .name
            .as_deref()
            .map_or_else(|| Root::at(&self.root), |name| Root::instance_at(&self.root, name));
        if self.until_eof {
            std::thread::spawn(stop_at_eof);
        }
        let args = DaemonArgs {
            root,
            port: self.port,
            disable_mdns: self.disable_mdns,
            program: self.caller().unwrap_or_default(),
            verbose: self.verbose,
            quiet: self.quiet,
        };
        let run =
            || driver::run(args.clone()).inspect_err(|error| Notify::of_env().failed(&error.to_string()));
        while run()? == End::Restart {
            // The program's file may be another by now, or gone: then this image goes on.
            let error = self.start_anew();
            tracing::info!("the daemon starts again in its old image: {error}");
        }
        Ok(())
    }
}

/// Asks this process to stop, in the ordinary way, once nobody holds the other end of stdin.
fn stop_at_eof() {
    let mut byte = [0; 64];
    while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
    // It cannot fail: the process is our own and the signal exists.
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_starts_again_goes_back_to_who_has_called_it() {
        let plan = |program: &str| -> Plan {
            let text = format!(
                "{{\"root\":\"/r\",\"name\":null,\"port\":null,\"disable_mdns\":false,\"until_eof\":false,\"verbose\":0,\
                 \"quiet\":false,\"json\":false,\"program\":\"{program}\"}}"
            );
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(plan("/bin/axon").caller().unwrap(), Path::new("/bin/axon"));
        assert_eq!(plan("").caller().unwrap(), std::env::current_exe().unwrap());
    }
}
