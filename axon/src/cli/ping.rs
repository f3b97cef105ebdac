//! `axon ping`: whether a peer's daemon is there, and how far away it is.

use std::time::{Duration, Instant};

use axon_client::{Client, ClientError, Message, Sent};
use axon_proto::error::IpcCode;
use serde::Serialize;
use serde_json::value::RawValue;

use super::answer::stopped;
use super::output::{CliError, CliResult, EXIT_DONE, printable};
use super::{Context, link, show};

/// Ask a peer's daemon how it is.
///
/// With --count, a line for each answer and a summary, also at Ctrl-C. As JSON, a line each with `seq` and
/// `ms`, and a last one with `sent`, `received`, `lost`, `min_ms`, `avg_ms` and `max_ms`. The time is from
/// the command to its reply, both daemons included. Exit code 0 when there was any answer; else that of the
/// last failure: 3 for a timeout, 5 for a peer that cannot be reached.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon ping bob\n  axon ping bob --count 5 --interval 0.2")]
pub struct Args {
    /// Agent id, a prefix of one, or a name
    peer: String,
    /// Ask this often, and show times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Wait so long between two: a number of seconds, or 500ms, 2s, 1m [default: 1]
    #[arg(long, value_name = "TIME", value_parser = interval, requires = "count")]
    interval: Option<Duration>,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let stop = stopped()?;
    let client = cx.connect(link::CONSUMER).await?;
    if let Some(count) = args.count {
        let every = args.interval.unwrap_or(Duration::from_secs(1));
        let mut pinger = Pinger { cx, client: &client, peer: &args.peer, tally: Tally::default() };
        // Whoever stops it wants to see what there is so far.
        let ended = tokio::select! {
            ended = pinger.run(count, every) => ended,
            () = stop => Ok(()),
        };
        ended?;
        return pinger.end();
    }
    let began = Instant::now();
    let sent = client.ping(&args.peer).await.map_err(|error| cx.failure(error))?;
    let took = began.elapsed();
    let exit = cx.answered(sent)?;
    cx.out.detail(|| format!("answered in {:.1} ms", millis(took)));
    Ok(exit)
}

/// A time between two, which may be shorter than a second.
fn interval(text: &str) -> Result<Duration, String> {
    match text.strip_suffix("ms") {
        Some(number) => link::seconds(number).map(|time| time / 1_000),
        None => link::seconds(text),
    }
}

struct Pinger<'a> {
    cx: &'a Context,
    client: &'a Client,
    peer: &'a str,
    tally: Tally,
}

impl Pinger<'_> {
    async fn run(&mut self, count: u64, every: Duration) -> Result<(), CliError> {
        let mut clock = tokio::time::interval(every);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for seq in 1..=count {
            clock.tick().await;
            self.tally.sent += 1;
            let began = Instant::now();
            let answer = self.client.ping(self.peer).await.and_then(Sent::into_answer);
            match answer {
                Ok(pong) => self.answered(seq, &pong, millis(began.elapsed()))?,
                Err(error) => self.failed(seq, error)?,
            }
        }
        Ok(())
    }

    fn answered(&mut self, seq: u64, pong: &Message, ms: f64) -> Result<(), CliError> {
        #[derive(Serialize)]
        struct Line<'a> {
            ok: bool,
            seq: u64,
            ms: f64,
            from: &'a str,
            payload: &'a RawValue,
        }
        self.tally.add(ms);
        let line = Line { ok: true, seq, ms, from: &pong.from, payload: &pong.payload };
        let out = &self.cx.out;
        out.result(&line, || format!("{seq}: {ms:.2} ms, {}", show::answer(out, "", pong)))
    }

    /// One that had no answer is counted; what will not be better the next time ends it.
    fn failed(&mut self, seq: u64, error: ClientError) -> Result<(), CliError> {
        #[derive(Serialize)]
        struct Line<'a> {
            ok: bool,
            seq: u64,
            error: &'a str,
            message: &'a str,
        }
        let passes = match &error {
            ClientError::Peer { .. } => true,
            ClientError::Ipc { code, .. } => {
                let codes = [IpcCode::PeerUnreachable, IpcCode::Timeout, IpcCode::Overloaded];
                codes.iter().any(|passing| passing.as_str() == code)
            }
            _ => false,
        };
        if !passes {
            return Err(self.cx.failure(error));
        }
        let failure = self.cx.failure(error);
        let line = Line { ok: false, seq, error: &failure.code, message: &failure.message };
        self.cx.out.result(&line, || format!("{seq}: {}", printable(&failure.message)))?;
        self.tally.exit = failure.exit;
        Ok(())
    }

    /// Prints the summary.
    fn end(&self) -> CliResult {
        #[derive(Serialize)]
        struct Line {
            ok: bool,
            sent: u64,
            received: u64,
            lost: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            min_ms: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            avg_ms: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            max_ms: Option<f64>,
        }
        let Tally { sent, received, min, max, .. } = self.tally;
        let some = |ms: f64| (received > 0).then_some(ms);
        let line = Line {
            ok: received > 0,
            sent,
            received,
            lost: sent - received,
            min_ms: some(min),
            avg_ms: some(self.tally.average()),
            max_ms: some(max),
        };
        self.cx.out.result(&line, || self.tally.text())?;
        Ok(if received > 0 { EXIT_DONE } else { self.tally.exit })
    }
}

/// What came of all of them.
#[derive(Debug, Clone, Copy)]
struct Tally {
    sent: u64,
    received: u64,
    min: f64,
    max: f64,
    sum: f64,
    /// What the process ends with when nothing was answered.
    exit: u8,
}

impl Default for Tally {
    fn default() -> Self {
        let exit = IpcCode::Timeout.exit_code();
        Self { sent: 0, received: 0, min: f64::INFINITY, max: 0.0, sum: 0.0, exit }
    }
}

impl Tally {
    fn add(&mut self, ms: f64) {
        self.received += 1;
        self.sum += ms;
        (self.min, self.max) = (self.min.min(ms), self.max.max(ms));
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody waits for 2^52 answers")]
    fn average(&self) -> f64 {
        hundredths(self.sum / self.received.max(1) as f64)
    }

    fn text(&self) -> String {
        let Self { sent, received, min, max, .. } = self;
        let counts = format!("{sent} sent, {received} answered, {} lost", sent - received);
        if *received == 0 {
            return counts;
        }
        format!("{counts}; min/avg/max {min:.2}/{:.2}/{max:.2} ms", self.average())
    }
}

/// A time in milliseconds, to a hundredth.
fn millis(time: Duration) -> f64 {
    hundredths(time.as_secs_f64() * 1_000.0)
}

fn hundredths(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_up() {
        let mut tally = Tally { sent: 4, ..Tally::default() };
        assert_eq!(tally.text(), "4 sent, 0 answered, 4 lost");
        for ms in [1.0, 2.0, 6.5] {
            tally.add(ms);
        }
        assert_eq!(tally.text(), "4 sent, 3 answered, 1 lost; min/avg/max 1.00/3.17/6.50 ms");
    }

    #[test]
    fn the_time_between_two_may_be_short() {
        assert_eq!(interval("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        for wrong in ["0", "ms", "0ms", "soon", "-1"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
