//! The daemon's log: one line an event, on stderr.
//!
//! Where stderr is the journal of systemd, that gets the level in its own form and no time, which it has
//! itself. A file on stderr grows without end, unless `AXON_LOG_BYTES_MAX` bounds it: then it begins anew.
//!
//! A subscriber of our own instead of `tracing-subscriber`, which costs a daemon of 5 MB some 0.2 MB for
//! spans and filters that nobody here looks at.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, ftruncate};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Everything up to this level goes to stderr from now on.
pub fn to_stderr(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => Level::WARN,
        (false, 0) => Level::INFO,
        (false, 1) => Level::DEBUG,
        (false, _) => Level::TRACE,
    };
    let color =
        std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    // It is refused only where one is set already, as in a test.
    let (journal, bytes_max) = (is_journal(), bytes_max());
    tracing::subscriber::set_global_default(Stderr { level, color, journal, bytes_max }).ok();
}

struct Stderr {
    level: Level,
    color: bool,
    /// Whether the journal reads it.
    journal: bool,
    /// Most of the file that it is, if it is one that is bounded.
    bytes_max: Option<u64>,
}

/// Whether stderr is the stream that systemd names, and not one that came in between.
fn is_journal() -> bool {
    let Some(named) = std::env::var_os("JOURNAL_STREAM") else { return false };
    fstat(std::io::stderr()).is_ok_and(|about| {
        named.to_str().is_some_and(|named| named == format!("{}:{}", about.st_dev, about.st_ino))
    })
}

/// How large the file on stderr may become. Only one that is appended to can begin anew.
fn bytes_max() -> Option<u64> {
    let max = std::env::var("AXON_LOG_BYTES_MAX").ok()?.parse().ok()?;
    let is_file = FileType::from_raw_mode(fstat(std::io::stderr()).ok()?.st_mode).is_file();
    let appends = fcntl_getfl(std::io::stderr()).ok()?.contains(OFlags::APPEND);
    (is_file && appends).then_some(max)
}

/// What the journal reads a level from, as sd-daemon(3) has it.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

impl Subscriber for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level.into())
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let level = *event.metadata().level();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = Line { text: String::with_capacity(128), rest: String::new() };
        if let Some(max) = self.bytes_max
            && fstat(std::io::stderr())
                .is_ok_and(|about| u64::try_from(about.st_size).is_ok_and(|n| n >= max))
        {
            // Where that fails, the line is still worth more than the bound.
            ftruncate(std::io::stderr(), 0).ok();
        }
        let (on, off) = match level {
            _ if !self.color => ("", ""),
            Level::ERROR => ("\x1b[31m", "\x1b[0m"),
            Level::WARN => ("\x1b[33m", "\x1b[0m"),
            _ => ("\x1b[2m", "\x1b[0m"),
        };
        if self.journal {
            line.text.push_str(priority(level));
        } else {
            // Writing to a string cannot fail.
            write!(line.text, "{} {on}{level:>5}{off} ", Utc(since.as_secs(), since.subsec_millis())).ok();
        }
        event.record(&mut line);
        let Line { mut text, rest } = line;
        text.push_str(&rest);
        text.push('\n');
        // Nobody can be told that the log is gone.
        std::io::stderr().write_all(text.as_bytes()).ok();
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message, and after it the other fields.
struct Line {
    text: String,
    rest: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let (into, name) = match field.name() {
            "message" => (&mut self.text, None),
            name => (&mut self.rest, Some(name)),
        };
        let from = into.len();
        match name {
            None => write!(into, "{value:?}").ok(),
            Some(name) => write!(into, " {name}={value:?}").ok(),
        };
        // What a peer has said may be in it: it stays on its line and leaves the terminal alone.
        if into.get(from..).is_some_and(|new| new.contains(char::is_control)) {
            let tidy = into.split_off(from).replace(char::is_control, "\u{fffd}");
            into.push_str(&tidy);
        }
    }
}

/// A moment as RFC 3339 has it, in UTC.
struct Utc(u64, u32);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(secs, millis) = self;
        let (days, second) = (secs / 86_400, secs % 86_400);
        // Days since 0000-03-01, in eras of 400 years (Hinnant, "chrono-compatible low-level date
        // algorithms").
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let from_march = (5 * day + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let day = day - (153 * from_march + 2) / 5 + 1;
        let year = year + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_in_utc() {
        assert_eq!(Utc(0, 0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Utc(951_827_696, 7).to_string(), "2000-02-29T12:34:56.007Z");
        assert_eq!(Utc(1_795_206_436, 856).to_string(), "2026-11-20T20:27:16.856Z");
        assert_eq!(Utc(4_107_542_400, 0).to_string(), "2100-03-01T00:00:00.000Z");
    }
}
