//! What a run prints: one JSON object, or a few lines for a person.

use std::collections::BTreeMap;

use serde::Serialize;

use super::run::{Fault, Tally};
use super::usage::Cost;
use super::{Job, What, advice};
use crate::cli::output::{CliError, EXIT_DONE, Out, Paint, printable};

/// All that is told of a run.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    ok: bool,
    /// The code that most failures had.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    run: &'static str,
    peer: &'a str,
    /// Whether both daemons were made for the run.
    own_daemons: bool,
    /// How far the message before the run came, for one way.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    count: u64,
    size_bytes: usize,
    inflight: usize,
    done: u64,
    failed: u64,
    errors: BTreeMap<&'a str, u64>,
    secs: f64,
    rate_per_sec: f64,
    p50_us: Option<f64>,
    p90_us: Option<f64>,
    p99_us: Option<f64>,
    max_us: Option<f64>,
    daemons: Vec<Cost>,
    /// With daemons of its own: `pinned` where all of it shares one processor, else `spread`. Figures of one
    /// regime say nothing about the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    regime: Option<&'static str>,
    /// Processors that this program may run on.
    cpus: Option<usize>,
    #[serde(skip)]
    follows: bool,
    #[serde(skip)]
    exit: u8,
}

impl<'a> Report<'a> {
    /// Of this run.
    pub fn new(
        job: &Job,
        peer: &'a str,
        own_daemons: bool,
        state: Option<String>,
        tally: &'a Tally,
        daemons: Vec<Cost>,
    ) -> Self {
        let (count, done, failed) = (job.count, tally.done, tally.failed());
        let secs = tally.took.as_secs_f64();
        let part = |in_thousand| tally.times.part_us(in_thousand).map(tenths);
        let most = tally.faults.iter().max_by_key(|(_, fault)| fault.count);
        let cpus = std::thread::available_parallelism().ok().map(usize::from);
        let regime = cpus.map(|cpus| if cpus == 1 { "pinned" } else { "spread" });
        Self {
            ok: most.is_none(),
            error: most.map(|(code, _)| code.as_str()),
            message: most.map(|(code, fault)| {
                let code = code.strip_prefix("peer.").unwrap_or(code);
                failure(fault, failed, done + failed, count) + advice(job.what, own_daemons, code)
            }),
            run: job.what.name(),
            peer,
            own_daemons,
            state: state.filter(|_| matches!(job.what, What::Notify | What::Kept)),
            count,
            size_bytes: job.size,
            inflight: job.inflight,
            done,
            failed,
            errors: tally.faults.iter().map(|(code, fault)| (code.as_str(), fault.count)).collect(),
            secs: (secs * 1_000_000.0).round() / 1_000_000.0,
            rate_per_sec: if secs > 0.0 { tenths(done as f64 / secs) } else { 0.0 },
            p50_us: part(500),
            p90_us: part(900),
            p99_us: part(990),
            max_us: tally.times.max_us().map(tenths),
            daemons,
            regime: regime.filter(|_| own_daemons),
            cpus,
            follows: job.follows,
            exit: most.map_or(EXIT_DONE, |(_, fault)| fault.exit),
        }
    }

    /// Prints it, and gives the exit code of the run.
    pub fn print(&self, out: &Out) -> Result<u8, CliError> {
        out.result(self, || self.text(out))?;
        Ok(self.exit)
    }

    fn text(&self, out: &Out) -> String {
        let mut head = format!(
            "{} messages of {} bytes to {}, {} in flight",
            thousands(self.count),
            thousands(self.size_bytes as u64),
            printable(self.peer),
            self.inflight,
        );
        head.push_str(match self.state.as_deref() {
            Some("delivered") => ", with receipts",
            Some(_) => ", without receipts",
            None => "",
        });
        head.push_str(match self.regime {
            Some("pinned") => ", pinned: all on one processor",
            Some(_) => ", spread over the processors",
            None => "",
        });
        let name = out.paint(Paint::Bold, &format!("{:<9}", self.run));
        let secs = show_time(Some(self.secs * 1_000_000.0));
        let mut lines = vec![
            format!("{name}{head}"),
            format!("rate     {}/s: {} in {secs}", thousands(self.rate_per_sec as u64), thousands(self.done)),
            format!(
                "latency  p50 {}, p90 {}, p99 {}, max {}",
                show_time(self.p50_us),
                show_time(self.p90_us),
                show_time(self.p99_us),
                show_time(self.max_us)
            ),
        ];
        lines.extend(self.daemons.iter().map(|daemon| {
            let cpu = daemon.cpu_us_per_message.map_or_else(
                || "CPU not told by this system".to_owned(),
                |us| format!("{us:.1} µs CPU a message"),
            );
            let memory = daemon.rss_kib.map_or_else(
                || "memory not told".to_owned(),
                |kib| format!("{:.1} MB", kib as f64 / 1_000.0 * 1.024),
            );
            format!("daemon   {}: {cpu}, {memory}", daemon.name)
        }));
        if let Some(message) = &self.message {
            let codes = self.errors.iter().map(|(code, count)| format!("{code} {}", thousands(*count)));
            let codes = codes.collect::<Vec<_>>().join(", ");
            lines.push(format!("{}   {codes}", out.paint(Paint::Bad, "failed")));
            lines.push(format!("         {message}"));
        }
        let gap = if self.follows { "\n" } else { "" };
        gap.to_owned() + &lines.join("\n")
    }
}

fn failure(fault: &Fault, failed: u64, ended: u64, count: u64) -> String {
    let early = if ended < count { ", and the run was ended: nothing went through any more" } else { "" };
    let said = if fault.message.is_empty() { "" } else { ": " };
    format!("{failed} of {ended} messages failed{early}{said}{}", fault.message)
}

/// Rounded to a tenth.
pub fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// With commas.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn show_time(us: Option<f64>) -> String {
    match us {
        None => "none".to_owned(),
        Some(us) if us < 1_000.0 => format!("{us:.0} µs"),
        Some(us) if us < 1_000_000.0 => format!("{:.2} ms", us / 1_000.0),
        Some(us) => format!("{:.2} s", us / 1_000_000.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::times::Times;
    use super::*;

    fn job() -> Job {
        let domain = String::new();
        Job { what: What::Kept, count: 2_000, size: 256, inflight: 64, domain, follows: false }
    }

    #[test]
    fn failures_are_told_beside_the_figures() {
        let mut times = Times::new();
        (1..=10).for_each(|ms| times.add(Duration::from_millis(ms)));
        let fault = |count, exit| Fault { count, message: "The inbox is full.".to_owned(), exit };
        let faults = [("overloaded".to_owned(), fault(1_000, 1)), ("timeout".to_owned(), fault(2, 3))];
        let tally = Tally { done: 10, faults: faults.into(), times, took: Duration::from_millis(500) };
        let report = Report::new(&job(), "bob", false, Some("delivered".into()), &tally, Vec::new());
        let line = serde_json::to_value(&report).unwrap();
        assert_eq!((&line["ok"], &line["error"]), (&false.into(), &"overloaded".into()));
        assert_eq!(line["errors"], serde_json::json!({"overloaded": 1_000, "timeout": 2}));
        assert_eq!(
            (&line["done"], &line["failed"], &line["rate_per_sec"]),
            (&10.into(), &1_002.into(), &20.0.into())
        );
        let message = line["message"].as_str().unwrap();
        assert!(message.contains("1002 of 1012") && message.contains("ended"), "{message}");
        assert!(
            message.ends_with(
                "The inbox is full. (when its inbox is full of what nobody reads: \
            `axon bench echo --drain` on that machine does)"
            ),
            "{message}"
        );
        assert_eq!(report.exit, 1);
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let text = report.text(&out);
        assert!(
            text.contains("overloaded 1,000, timeout 2") && text.contains("The inbox is full."),
            "{text}"
        );
    }

    #[test]
    fn without_a_success_there_are_no_times() {
        let fault = Fault { count: 3, message: String::new(), exit: 5 };
        let faults = [("peer_unreachable".to_owned(), fault)].into();
        let tally = Tally { done: 0, faults, times: Times::new(), took: Duration::ZERO };
        let report = Report::new(&job(), "bob", false, None, &tally, Vec::new());
        let line = serde_json::to_value(&report).unwrap();
        assert!(line["p50_us"].is_null() && line["rate_per_sec"] == 0.0, "{line}");
        assert_eq!(report.exit, 5);
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            (thousands(0), thousands(999), thousands(1_234_567)),
            ("0".into(), "999".into(), "1,234,567".into())
        );
        assert_eq!((show_time(Some(12.4)), show_time(Some(2_345.0))), ("12 µs".into(), "2.35 ms".into()));
    }
}
