//! Figures of one run, and how they are shown.

use std::time::{Duration, Instant};

use super::args::Args;
use super::place::Regime;
use super::procs::tells_cpu;

/// What one measurement has seen. Latencies are kept for as long as a measurement takes.
pub struct Seen {
    began: Instant,
    cpu_ns: u64,
    /// Nanoseconds.
    latencies: Vec<u32>,
}

impl Seen {
    /// From now on. `cpu_ns` is the processor time that all who take part have used so far.
    pub fn begin(cpu_ns: u64) -> Self {
        Self { began: Instant::now(), cpu_ns, latencies: Vec::with_capacity(1 << 20) }
    }

    pub fn add(&mut self, latency: Duration) {
        self.latencies.push(u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX));
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn end(mut self, cpu_ns: u64) -> Figures {
        let elapsed = self.began.elapsed();
        self.latencies.sort_unstable();
        let all = &self.latencies;
        assert!(!all.is_empty(), "not one message came back");
        let at = |part: usize| f64::from(all[(all.len() * part / 100).min(all.len() - 1)]) / 1e3;
        let count = all.len() as f64;
        Figures {
            p50: at(50),
            p90: at(90),
            p99: at(99),
            rate: count / elapsed.as_secs_f64(),
            cpu: used(cpu_ns.saturating_sub(self.cpu_ns), count),
            between: f64::NAN,
            count,
        }
    }
}

/// Microseconds, messages a second, and microseconds of processor time a message.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub rate: f64,
    /// Of all who take part.
    pub cpu: f64,
    /// Of the daemons or bridges alone.
    pub between: f64,
    /// Messages.
    pub count: f64,
}

impl Figures {
    /// Of a measurement without latencies.
    pub fn rate_only(count: f64, elapsed: Duration, cpu_ns: u64) -> Self {
        let (rate, cpu) = (count / elapsed.as_secs_f64(), used(cpu_ns, count));
        Self { p50: f64::NAN, p90: f64::NAN, p99: f64::NAN, rate, cpu, between: f64::NAN, count }
    }
}

/// Microseconds of processor time a message; not a number where the system does not tell.
pub fn used(cpu_ns: u64, count: f64) -> f64 {
    if tells_cpu() { cpu_ns as f64 / 1e3 / count } else { f64::NAN }
}

/// Figures of one row over the rounds.
#[derive(Default)]
pub struct Row(pub Vec<Figures>);

impl Row {
    /// The median over the rounds, of each figure by itself.
    pub fn median(&self) -> Figures {
        let of = |pick: fn(&Figures) -> f64| Range::of(self.0.iter().map(pick)).median;
        Figures {
            p50: of(|f| f.p50),
            p90: of(|f| f.p90),
            p99: of(|f| f.p99),
            rate: of(|f| f.rate),
            cpu: of(|f| f.cpu),
            between: of(|f| f.between),
            count: of(|f| f.count),
        }
    }

    /// This row's figure over another's, round by round.
    pub fn over(&self, other: &Self, pick: fn(&Figures) -> f64) -> Range {
        Range::of(self.0.iter().zip(&other.0).map(|(one, two)| pick(one) / pick(two)))
    }
}

/// A figure over the rounds.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Range {
    pub fn of(all: impl Iterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = all.collect();
        all.sort_by(f64::total_cmp);
        assert!(!all.is_empty(), "nothing was measured");
        Self { median: all[all.len() / 2], least: all[0], most: all[all.len() - 1] }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.median.is_nan() {
            return f.write_str("not told by this system");
        }
        let digits = f.precision().unwrap_or(2);
        write!(f, "{:.digits$} ({:.digits$} to {:.digits$})", self.median, self.least, self.most)
    }
}

/// The head of a table of paths.
pub fn head(args: &Args) {
    if !args.json {
        println!(
            "\n| path | regime | in flight | p50 µs | p90 µs | p99 µs | messages a second | \
             CPU µs a message |\n|---|---|---|---|---|---|---|---|"
        );
    }
}

/// One row of it: the medians over the rounds, and of the rate also how far it went.
pub fn show(args: &Args, name: &str, regime: Regime, in_flight: usize, row: &Row) {
    let Figures { p50, p90, p99, rate, cpu, .. } = row.median();
    let rates = Range::of(row.0.iter().map(|figures| figures.rate));
    if args.json {
        let mut line = serde_json::json!({"name": name, "regime": regime.to_string(), "size": args.size,
            "inflight": in_flight, "rounds": row.0.len(), "msgs_s": rate.round(),
            "msgs_s_least": rates.least.round(), "msgs_s_most": rates.most.round()});
        for (key, value) in [("p50_us", p50), ("p90_us", p90), ("p99_us", p99), ("cpu_us", cpu)] {
            if !value.is_nan() {
                line[key] = round(value).into();
            }
        }
        println!("{line}");
    } else {
        let us = |value: f64| if value.is_nan() { "-".to_owned() } else { format!("{value:.1}") };
        let (p50, p90, p99, cpu) = (us(p50), us(p90), us(p99), us(cpu));
        println!("| {name} | {regime} | {in_flight} | {p50} | {p90} | {p99} | {rates:.0} | {cpu} |");
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// A row whose program is not here.
pub fn absent(args: &Args, name: &str, regime: Regime) {
    let why = "nats-server is not on the path: install it to have this row";
    if args.json {
        println!("{}", serde_json::json!({"name": name, "regime": regime.to_string(), "absent": why}));
    } else {
        println!("| {name} | {regime} | {why} | | | | | |");
    }
}

/// A row of another table: what it is, and the figure.
pub fn tell(args: &Args, name: &str, regime: Option<Regime>, value: impl std::fmt::Display) {
    let regime = regime.map_or_else(|| "-".to_owned(), |regime| regime.to_string());
    if args.json {
        let (name, value) = (serde_json::json!(name), serde_json::json!(value.to_string()));
        println!("{{\"figure\":{name},\"regime\":\"{regime}\",\"value\":{value}}}");
    } else {
        println!("| {name} | {regime} | {value} |");
    }
}

/// The head of that table.
pub fn tell_head(args: &Args, what: &str) {
    if !args.json {
        println!("\n| {what} | regime | figure |\n|---|---|---|");
    }
}
