//! What a run prints: one JSON object, or a few lines for a person.

use std::collections::BTreeMap;

use serde::Serialize;

use super::pubsub::Deliveries;
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
    /// Who got the messages, where that is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    /// Whether the daemons were made for the run.
    own_daemons: bool,
    /// How far the message before the run came, for one way.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    count: u64,
    size_bytes: usize,
    inflight: usize,
    /// On topics, how many clients have each so many in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    publishers: Option<usize>,
    done: u64,
    failed: u64,
    errors: BTreeMap<&'a str, u64>,
    secs: f64,
    rate_per_sec: f64,
    p50_us: Option<f64>,
    p90_us: Option<f64>,
    p99_us: Option<f64>,
    max_us: Option<f64>,
    #[serde(flatten)]
    topic: Option<Topic>,
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

/// What was measured in a run.
#[derive(Debug)]
pub struct Measured<'a> {
    /// How far the message before the run came.
    pub state: Option<String>,
    /// What came of the messages.
    pub tally: &'a Tally,
    /// What the daemons spent, the publisher's first.
    pub daemons: Vec<Cost>,
    /// How long one check of a signature takes, in microseconds.
    pub checks: Option<f64>,
}

/// What is told besides where messages are published.
#[derive(Debug, Serialize)]
struct Topic {
    /// Daemons with a subscriber.
    to: usize,
    /// To all subscribers.
    deliveries: u64,
    deliveries_per_sec: f64,
    /// From the command to each subscriber, where the other times are those to the last.
    each_p50_us: Option<f64>,
    each_p90_us: Option<f64>,
    each_p99_us: Option<f64>,
    /// Of all daemons together.
    cpu_us_per_delivery: Option<f64>,
    /// One batch of one message after another, on one processor.
    check_us: Option<f64>,
    checks_per_sec: Option<f64>,
}

impl Topic {
    /// Gives each subscriber's daemon its rate, too.
    fn new(given: &Deliveries, measured: &mut [Cost], took: f64, checks: Option<f64>) -> Self {
        let a_second = |count: u64, secs: f64| if secs > 0.0 { tenths(count as f64 / secs) } else { 0.0 };
        let deliveries = given.readers.iter().map(|(shown, _)| shown).sum();
        let cpu_us = measured.iter().map(|cost| cost.cpu_us).sum::<Option<f64>>();
        // The first published.
        for (cost, (shown, last)) in measured.iter_mut().skip(1).zip(&given.readers) {
            cost.deliveries_per_sec = Some(a_second(*shown, last.as_secs_f64()));
        }
        let part = |in_thousand| given.times.part_us(in_thousand).map(tenths);
        Self {
            to: given.readers.len(),
            deliveries,
            deliveries_per_sec: a_second(deliveries, took),
            each_p50_us: part(500),
            each_p90_us: part(900),
            each_p99_us: part(990),
            cpu_us_per_delivery: cpu_us
                .filter(|_| deliveries > 0 && !measured.is_empty())
                .map(|us| tenths(us / deliveries as f64)),
            check_us: checks.map(tenths),
            checks_per_sec: checks.map(|us| tenths(1_000_000.0 / us)),
        }
    }

    fn text(&self, lines: &mut Vec<String>) {
        if self.to > 1 {
            lines.push(format!(
                "each     p50 {}, p90 {}, p99 {}: {} deliveries a second over all {}",
                show_time(self.each_p50_us),
                show_time(self.each_p90_us),
                show_time(self.each_p99_us),
                thousands(self.deliveries_per_sec as u64),
                self.to
            ));
            let cpu =
                self.cpu_us_per_delivery.map(|us| format!("CPU      {us:.1} µs a delivery, of all daemons"));
            lines.extend(cpu);
        }
        let checks = self.checks_per_sec.zip(self.check_us);
        lines.extend(checks.map(|(rate, us)| {
            format!("checks   {}/s of a signature each, on one processor: {us:.1} µs", thousands(rate as u64))
        }));
    }
}

impl<'a> Report<'a> {
    /// Of this run.
    pub fn new(job: &Job, peer: &'a str, own_daemons: bool, measured: Measured<'a>) -> Self {
        let Measured { state, tally, mut daemons, checks } = measured;
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
            peer: Some(peer).filter(|_| job.to == 1),
            own_daemons,
            state: state.filter(|_| matches!(job.what, What::Notify | What::Kept)),
            count,
            size_bytes: job.size,
            inflight: job.inflight,
            publishers: Some(job.publishers).filter(|_| job.what == What::Pubsub),
            done,
            failed,
            errors: tally.faults.iter().map(|(code, fault)| (code.as_str(), fault.count)).collect(),
            secs: (secs * 1_000_000.0).round() / 1_000_000.0,
            rate_per_sec: if secs > 0.0 { tenths(done as f64 / secs) } else { 0.0 },
            p50_us: part(500),
            p90_us: part(900),
            p99_us: part(990),
            max_us: tally.times.max_us().map(tenths),
            topic: tally.deliveries.as_ref().map(|given| Topic::new(given, &mut daemons, secs, checks)),
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
            match (self.peer, &self.topic) {
                (Some(peer), _) => printable(peer),
                (None, topic) => format!("{} daemons", topic.as_ref().map_or(0, |topic| topic.to)).into(),
            },
            self.inflight,
        );
        if let Some(publishers @ 2..) = self.publishers {
            head.push_str(&format!(" of each of {publishers} clients"));
        }
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
        if let Some(topic) = &self.topic {
            topic.text(&mut lines);
        }
        lines.extend(self.daemons.iter().map(|daemon| {
            let cpu = daemon.cpu_us_per_message.map_or_else(
                || "CPU not told by this system".to_owned(),
                |us| format!("{us:.1} µs CPU a message"),
            );
            let memory = daemon.rss_kib.map_or_else(
                || "memory not told".to_owned(),
                |kib| format!("{:.1} MB", kib as f64 / 1_000.0 * 1.024),
            );
            let given = daemon.deliveries_per_sec.filter(|_| self.peer.is_none());
            let given =
                given.map(|rate| format!(", {} deliveries/s", thousands(rate as u64))).unwrap_or_default();
            format!("daemon   {}: {cpu}, {memory}{given}", daemon.name)
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
        Job {
            what: What::Kept,
            count: 2_000,
            size: 256,
            inflight: 64,
            domain,
            to: 1,
            publishers: 1,
            follows: false,
        }
    }

    fn measured<'a>(state: Option<&str>, tally: &'a Tally) -> Measured<'a> {
        Measured { state: state.map(str::to_owned), tally, daemons: Vec::new(), checks: None }
    }

    #[test]
    fn failures_are_told_beside_the_figures() {
        let mut times = Times::new();
        (1..=10).for_each(|ms| times.add(Duration::from_millis(ms)));
        let fault = |count, exit| Fault { count, message: "The inbox is full.".to_owned(), exit };
        let faults = [("overloaded".to_owned(), fault(1_000, 1)), ("timeout".to_owned(), fault(2, 3))];
        let (faults, took) = (faults.into(), Duration::from_millis(500));
        let tally = Tally { done: 10, faults, times, took, ..Tally::new() };
        let report = Report::new(&job(), "bob", false, measured(Some("delivered"), &tally));
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
    fn what_several_subscribers_were_given_is_summed_up_and_told_of_each() {
        let mut times = Times::new();
        (1..=30).for_each(|ms| times.add(Duration::from_millis(ms)));
        let readers =
            vec![(10, Duration::from_millis(500)), (10, Duration::from_millis(250)), (10, Duration::ZERO)];
        let deliveries = Some(Deliveries { times, readers });
        let tally = Tally { done: 10, took: Duration::from_millis(500), deliveries, ..Tally::new() };
        let cost = |name| Cost {
            name,
            pid: 7,
            cpu_us_per_message: Some(30.0),
            rss_kib: Some(6_000),
            deliveries_per_sec: None,
            cpu_us: Some(300.0),
        };
        let daemons = ["ada", "bob", "cleo", "dora"].map(cost).into();
        let job = Job { what: What::Pubsub, to: 3, ..job() };
        let report = Report::new(
            &job,
            "bob",
            true,
            Measured { daemons, checks: Some(80.0), ..measured(None, &tally) },
        );
        let line = serde_json::to_value(&report).unwrap();
        let told =
            ["to", "deliveries", "deliveries_per_sec", "cpu_us_per_delivery", "check_us", "checks_per_sec"];
        let told = told.map(|field| line[field].as_f64().unwrap());
        assert_eq!(told, [3.0, 30.0, 60.0, 40.0, 80.0, 12_500.0], "{line}");
        assert!(line["peer"].is_null() && line["each_p50_us"].as_f64() >= Some(15_000.0), "{line}");
        let each = [0, 1, 2, 3].map(|at| line["daemons"][at]["deliveries_per_sec"].as_f64());
        assert_eq!(each, [None, Some(20.0), Some(40.0), Some(0.0)], "{line}");
        let text = report.text(&Out { json: false, quiet: false, verbose: 0, color: false });
        for part in ["to 3 daemons", "60 deliveries a second over all 3", "40.0 µs a delivery", "12,500/s"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn without_a_success_there_are_no_times() {
        let fault = Fault { count: 3, message: String::new(), exit: 5 };
        let faults = [("peer_unreachable".to_owned(), fault)].into();
        let tally = Tally { faults, ..Tally::new() };
        let report = Report::new(&job(), "bob", false, measured(None, &tally));
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
