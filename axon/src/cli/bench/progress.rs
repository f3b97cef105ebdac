//! One line on a terminal that says how far a run is.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Instant;

use super::Job;
use super::report::thousands;
use crate::cli::output::Out;

const BAR: usize = 24;

/// The line, or nothing where nobody looks.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    /// Whether it stands on the terminal now.
    drawn: bool,
    what: &'static str,
    count: u64,
    began: Instant,
}

impl Progress {
    /// For this run. There is none without a terminal, with `--json` and with `-q`.
    pub fn new(out: &Out, job: &Job) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|value| value == "dumb");
        let shown = !out.json && !out.quiet && !dumb && io::stderr().is_terminal();
        Self { shown, drawn: false, what: job.what.name(), count: job.count, began: Instant::now() }
    }

    /// So many have come to their end.
    pub fn at(&mut self, ended: u64) {
        if self.shown {
            self.drawn = true;
            // Who has closed the terminal does not want to know.
            write!(io::stderr().lock(), "\r{}\x1b[K", self.line(ended)).ok();
        }
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            write!(io::stderr().lock(), "\r\x1b[K").ok();
        }
    }

    fn line(&self, ended: u64) -> String {
        let part = ended as f64 / self.count.max(1) as f64;
        let full = ((part * BAR as f64) as usize).min(BAR);
        let rate = ended as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        format!(
            "{:<6} [{}{}] {:>3.0}%  {} of {}  {}/s",
            self.what,
            "#".repeat(full),
            ".".repeat(BAR - full),
            part * 100.0,
            thousands(ended),
            thousands(self.count),
            thousands(rate as u64),
        )
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // A run that is interrupted leaves no half line.
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_and_fills() {
        let bar = Progress {
            shown: false,
            drawn: false,
            what: "notify",
            count: 100_000_000,
            began: Instant::now(),
        };
        for (ended, percent) in [(0, "  0%"), (50_000_000, " 50%"), (100_000_000, "100%")] {
            let line = bar.line(ended);
            assert!(line.contains(percent) && line.split("  ").count() >= 3, "{line}");
        }
        assert!(bar.line(99_999_999).matches('#').count() == BAR - 1);
    }
}
