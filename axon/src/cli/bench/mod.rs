//! `axon bench`: how fast messages go between two daemons, with two of its own on loopback or with a real
//! peer; and from one daemon to several, on a topic.
//!
//! `run` is the loop that loads a daemon, `pubsub` that of topics with its accounts in `shown`, `times`,
//! `usage` and `checks` what is measured, `report` and `progress` what is printed, `echo` the agent at the
//! other end.

use std::ops::RangeInclusive;

use axon_client::{Client, ClientError, Hello, Query, Raw, SendState};
use axon_proto::limits::CLIENT_PENDING_MAX;
use tokio::task::JoinHandle;

use super::answer::stopped;
use super::output::{CliError, CliResult, EXIT_DONE, Out};
use super::stage::{NAMES, Reason, Stage, TWO};
use super::{Context, Globals};
use progress::Progress;
use report::{Measured, Report};
use usage::Process;

mod checks;
mod echo;
mod progress;
mod pubsub;
mod report;
mod run;
mod shown;
mod times;
mod usage;

/// What queries are about and notifies are on, so that they reach no agent by mistake.
const DOMAIN: &str = "axon.bench";
/// The consumer that all of this runs as.
const CONSUMER: &str = "bench";
/// Longest text of a message: an envelope of 65,536 bytes has room for it and for all else, in both
/// directions.
const SIZES: RangeInclusive<usize> = 1..=64_000;
const SIZE: usize = 256;
/// The daemon lets one client wait for no more.
const INFLIGHTS: RangeInclusive<usize> = 1..=CLIENT_PENDING_MAX;
const INFLIGHT: usize = 64;
const COUNTS: RangeInclusive<u64> = 1..=100_000_000;
const COUNT: u64 = 20_000;
/// Daemons with a subscriber.
const TOS: RangeInclusive<usize> = 1..=NAMES.len() - 1;
/// Clients that publish.
const PUBLISHERS: RangeInclusive<usize> = 1..=16;
/// Exit code of what the peer refused.
const EXIT_REFUSED: u8 = 4;
/// Settings of daemons of our own that keep nothing on disk, as `notify` has them.
const IN_MEMORY: &str = "ipc.durable = false\n";
/// Their settings where so much is in flight that an inbox as it is by default (4 MiB) is soon full of what
/// its reader has not got to. Bodies are on disk: a larger inbox needs no memory for them.
const ROOMY: &str = "ipc.buffer_byte_cap = 67108864\n";
const ROOMY_FROM_BYTES: usize = 262_144;

/// Measure how fast messages go, how long they take, and what they cost the daemons.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Without --peer, two daemons on loopback and an echo agent are made for the run, in a \
        temporary directory, and are gone at its end. With it, the daemon that runs here and whoever answers \
        there are measured: start `axon bench echo` on that machine.\n\nExamples:\n  axon bench --self\n  \
        axon bench ask --inflight 1\n  axon bench kept --peer bob --size 1024 --json"
)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Everything in a row: ask with 1 in flight and with more, kept, pubsub likewise, notify
    #[arg(long = "self")]
    all: bool,
    #[command(flatten)]
    load: Load,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Ask(AskArgs),
    Notify(NotifyArgs),
    Kept(KeptArgs),
    Pubsub(PubsubArgs),
    Echo(echo::Args),
}

/// Queries, from the command to the other agent's answer.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each query carries a text of --size bytes, and the echo agent answers with the same \
    text. One query goes before and is not counted.\n\nExample:\n  axon bench ask --peer bob --inflight 1"
)]
struct AskArgs {
    #[command(flatten)]
    load: Load,
    /// Measure the running daemon with this peer: agent id, a prefix of one, or a name
    #[arg(long)]
    peer: Option<String>,
    /// What the queries are about: it says which agent there answers
    #[arg(long, value_name = "NAME", requires = "peer", default_value = DOMAIN)]
    domain: String,
}

/// Messages one way, as fast as the peer's daemon takes them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Daemons of its own keep nothing on disk here (ipc.durable = false), nobody reads, and a \
    message is done when the peer's transport has it. A real peer that keeps messages gives a receipt for \
    each, and its inbox fills, as in `axon bench kept`; the figures say whether there were receipts. One \
    message goes before and is not counted.\n\nExample:\n  axon bench notify --size 1024"
)]
struct NotifyArgs {
    #[command(flatten)]
    load: Load,
    /// Measure the running daemon with this peer: agent id, a prefix of one, or a name
    #[arg(long)]
    peer: Option<String>,
}

/// Messages one way that the peer's daemon has on disk before they are done.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each waits for the peer's receipt. What nobody reads stays in the peer's inbox, which \
    refuses more when it is full (overloaded, after 1000 by default): `axon bench echo --drain` reads it \
    there. Daemons of its own have an inbox of 64 MiB where over 256 KiB are in flight. One message goes \
    before and is not counted.\n\nExample:\n  axon bench kept --inflight 1 --count 1000"
)]
struct KeptArgs {
    #[command(flatten)]
    load: Load,
    /// Measure the running daemon with this peer: agent id, a prefix of one, or a name
    #[arg(long)]
    peer: Option<String>,
}

/// Messages published on a topic at one daemon, until a subscriber of each other daemon has each.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A message is done when the last subscriber has been shown it; it waits at most until some \
    others are signed together with it. Latency is the time until then, and where there are several, `each` \
    that of every delivery. What subscribers get is not kept on disk. The run fails when one of them did not \
    get a message, or got it twice. `checks` says how many signatures one processor of this machine checks, \
    one batch of one message after another: what is signed together is checked together.\n\nExamples:\n  \
    axon bench pubsub --inflight 1\n  axon bench pubsub --to 10 --inflight 256 --count 100000"
)]
struct PubsubArgs {
    #[command(flatten)]
    load: Load,
    /// Daemons that get them, each with a subscriber, 1 to 16 [default: 1]
    #[arg(long, value_name = "N", value_parser = to, allow_negative_numbers = true)]
    to: Option<usize>,
    /// Clients that publish, each with --inflight at most, 1 to 16 [default: 1]
    #[arg(long, value_name = "N", value_parser = publishers, allow_negative_numbers = true)]
    publishers: Option<usize>,
}

#[derive(Debug, Clone, Default, clap::Args)]
struct Load {
    /// Messages that are counted, 1 to 100000000 [default: 20000]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    count: Option<u64>,
    /// Bytes of text in each, 1 to 64000 [default: 256]
    #[arg(long, value_name = "BYTES", value_parser = size, allow_negative_numbers = true)]
    size: Option<usize>,
    /// How many wait for their reply at once, 1 to 256 [default: 64]
    #[arg(long, value_name = "N", value_parser = inflight, allow_negative_numbers = true)]
    inflight: Option<usize>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Ask,
    Notify,
    Kept,
    Pubsub,
}

/// One run.
#[derive(Debug)]
struct Job {
    what: What,
    count: u64,
    size: usize,
    inflight: usize,
    domain: String,
    /// How many daemons get the messages.
    to: usize,
    /// How many clients publish.
    publishers: usize,
    /// Whether the report of another stands before its own.
    follows: bool,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Notify => "notify",
            Self::Kept => "kept",
            Self::Pubsub => "pubsub",
        }
    }

    /// Whether it needs the echo agent, to answer or to make room in the inbox. A store in memory makes room
    /// by itself.
    fn needs_echo(self) -> bool {
        matches!(self, Self::Ask | Self::Kept)
    }
}

impl Job {
    /// What is given behind the verb comes before what is given ahead of it.
    fn new(what: What, load: &Load, ahead: &Load, domain: &str) -> Self {
        Self {
            what,
            count: load.count.or(ahead.count).unwrap_or(COUNT),
            size: load.size.or(ahead.size).unwrap_or(SIZE),
            inflight: load.inflight.or(ahead.inflight).unwrap_or(INFLIGHT),
            domain: domain.to_owned(),
            to: *TOS.start(),
            publishers: *PUBLISHERS.start(),
            follows: false,
        }
    }

    /// Settings of daemons that are made for it.
    fn settings(&self) -> &'static str {
        match self.what {
            What::Notify => IN_MEMORY,
            What::Kept if self.inflight * self.size > ROOMY_FROM_BYTES => ROOMY,
            What::Ask | What::Kept | What::Pubsub => "",
        }
    }
}

impl Args {
    /// Whether it measures daemons that it makes itself, and so needs no root.
    pub(super) fn is_alone(&self) -> bool {
        match &self.verb {
            Some(Verb::Ask(AskArgs { peer, .. }))
            | Some(Verb::Notify(NotifyArgs { peer, .. }))
            | Some(Verb::Kept(KeptArgs { peer, .. })) => peer.is_none(),
            Some(Verb::Echo(_)) => false,
            Some(Verb::Pubsub(_)) | None => true,
        }
    }

    /// What is to be run, one after another.
    fn jobs(&self) -> Result<Vec<Job>, CliError> {
        let job = |what, load, domain| Ok(vec![Job::new(what, load, &self.load, domain)]);
        match &self.verb {
            Some(_) if self.all => Err(CliError::usage("--self runs everything: name no verb beside it")),
            Some(Verb::Ask(args)) => job(What::Ask, &args.load, &args.domain),
            Some(Verb::Notify(args)) => job(What::Notify, &args.load, DOMAIN),
            Some(Verb::Kept(args)) => job(What::Kept, &args.load, DOMAIN),
            Some(Verb::Pubsub(args)) => {
                let job = Job::new(What::Pubsub, &args.load, &self.load, DOMAIN);
                let publishers = args.publishers.unwrap_or(job.publishers);
                Ok(vec![Job { to: args.to.unwrap_or(job.to), publishers, ..job }])
            }
            None if self.all => {
                let (one, several) = (Load { inflight: Some(1), ..Load::default() }, Load::default());
                let all = [(What::Ask, &one), (What::Ask, &several), (What::Kept, &several)];
                let all = all.into_iter().chain([(What::Pubsub, &one), (What::Pubsub, &several)]);
                let all = all.chain([(What::Notify, &several)]).enumerate();
                let job = |(number, (what, load))| Job {
                    follows: number > 0,
                    ..Job::new(what, load, &self.load, DOMAIN)
                };
                Ok(all.map(job).collect())
            }
            Some(Verb::Echo(_)) | None => Err(CliError::usage(
                "say what to measure: ask, notify, kept or pubsub, or --self for all of it",
            )),
        }
    }
}

/// Measures daemons of its own.
pub(super) async fn run_alone(out: &Out, globals: &Globals, args: Args) -> CliResult {
    if globals.root.is_some() || globals.name.is_some() || globals.socket.is_some() {
        let text = "this run makes daemons of its own, and --root, --name and --socket mean another: add \
            --peer to measure that one";
        return Err(CliError::usage(text));
    }
    let jobs = args.jobs()?;
    let mut stop = tokio::spawn(stopped()?);
    let mut exit = EXIT_DONE;
    // Jobs with the same settings share their daemons.
    for jobs in jobs.chunk_by(|one, next| one.settings() == next.settings()) {
        exit = exit.max(staged(out, jobs, &mut stop).await?);
    }
    Ok(exit)
}

/// Sets up daemons, with an echo agent where one is needed, runs the jobs, and takes everything down again.
async fn staged(out: &Out, jobs: &[Job], stop: &mut JoinHandle<()>) -> CliResult {
    let (settings, to) = jobs.first().map_or(("", 1), |job| (job.settings(), job.to));
    let mut stage = Stage::new("bench", settings, (1 + to).max(TWO)).map_err(failed)?;
    let played = tokio::select! {
        played = play(out, &mut stage, jobs) => {
            if played.is_err() {
                out.note(|| format!("the daemons' last words:\n{}", stage.log()));
            }
            played
        }
        _ = stop => Err(interrupted()),
    };
    // Whatever happened: nothing is left behind.
    let ended = stage.end().await.map_err(failed);
    played.and_then(|exit| ended.map(|()| exit))
}

async fn play(out: &Out, stage: &mut Stage, jobs: &[Job]) -> CliResult {
    stage.start().await.map_err(failed)?;
    if jobs.iter().any(|job| job.what.needs_echo()) {
        stage.beside(1, &["bench", "echo", "--drain", "--json"]).await.map_err(failed)?;
    }
    let client = stage.connect(0, CONSUMER).await.map_err(failed)?;
    let mut others = Vec::new();
    for which in 1..stage.names().len() {
        others.push(stage.connect(which, CONSUMER).await.map_err(failed)?);
    }
    let names = stage.names().iter().enumerate();
    let daemons = names.filter_map(|(which, name)| Process::of(name, stage.pid(which)?)).collect();
    let bench = Bench { out, client: &client, others: &others, peer: NAMES[1], own: true, daemons };
    let mut exit = EXIT_DONE;
    for job in jobs {
        exit = exit.max(bench.run(job, &of_client).await?);
    }
    Ok(exit)
}

/// Measures the running daemon with a peer, or is the echo agent.
pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let load = &args.load;
    let ahead = load.count.is_some() || load.size.is_some() || load.inflight.is_some();
    let peer = match &args.verb {
        Some(Verb::Echo(_)) if args.all || ahead => {
            return Err(CliError::usage("the echo agent runs by itself: give it none of these options"));
        }
        Some(Verb::Echo(args)) => return echo::run(cx, args).await,
        Some(Verb::Ask(args)) => args.peer.as_deref(),
        Some(Verb::Notify(args)) => args.peer.as_deref(),
        Some(Verb::Kept(args)) => args.peer.as_deref(),
        Some(Verb::Pubsub(_)) | None => None,
    };
    let jobs = args.jobs()?;
    let (Some(peer), [job]) = (peer, jobs.as_slice()) else {
        return Err(CliError::usage("name the peer: --peer NAME"));
    };
    let stop = tokio::spawn(stopped()?);
    let client = cx.connect(CONSUMER).await?;
    cx.compare_version(client.welcome());
    let bench = Bench { out: &cx.out, client: &client, others: &[], peer, own: false, daemons: Vec::new() };
    let failure = |error| cx.failure(error);
    tokio::select! {
        ran = bench.run(job, &failure) => ran,
        _ = stop => Err(interrupted()),
    }
}

/// A daemon that is loaded, and the peer that it is loaded for.
struct Bench<'a> {
    out: &'a Out,
    client: &'a Client,
    /// A client of each other daemon, where they are made for this.
    others: &'a [Client],
    peer: &'a str,
    /// Whether the daemons are made for this.
    own: bool,
    /// Those that are known from the start.
    daemons: Vec<Process>,
}

impl Bench<'_> {
    /// Runs one job and prints what came of it.
    async fn run(&self, job: &Job, failure: &impl Fn(ClientError) -> CliError) -> CliResult {
        let state = self.try_one(job, failure).await?;
        let mut raw = Raw::connect(self.client.path(), Hello::consumer(CONSUMER)).await.map_err(failure)?;
        let mut daemons = self.daemons.clone();
        if !self.own {
            daemons.extend(raw.daemon_pid().and_then(|pid| Process::of("own", pid)));
        }
        // Before the run, while the daemons have nothing to do.
        let checks = (job.what == What::Pubsub).then(|| checks::measure(job.size)).flatten();
        let before: Vec<_> = daemons.iter().map(Process::usage).collect();
        let mut progress = Progress::new(self.out, job);
        let tally = if job.what == What::Pubsub {
            let mut readers = Vec::new();
            for other in self.others {
                let reader = Raw::connect(other.path(), Hello::consumer(CONSUMER)).await;
                readers.push(reader.map_err(failure)?);
            }
            let mut publishers = vec![raw];
            while publishers.len() < job.publishers {
                let raw = Raw::connect(self.client.path(), Hello::consumer(CONSUMER)).await;
                publishers.push(raw.map_err(failure)?);
            }
            pubsub::load(&mut publishers, &mut readers, job, &mut progress).await
        } else {
            run::load(&mut raw, job, self.peer, &mut progress).await
        };
        progress.clear();
        let tally = tally.map_err(failure)?;
        let costs =
            daemons.iter().zip(before).map(|(daemon, before)| daemon.cost(before, tally.done)).collect();
        let measured = Measured { state, tally: &tally, daemons: costs, checks };
        Report::new(job, self.peer, self.own, measured).print(self.out)
    }

    /// One message ahead of the run, so that who cannot be measured is told why, and how it went.
    async fn try_one(
        &self,
        job: &Job,
        failure: &impl Fn(ClientError) -> CliError,
    ) -> Result<Option<String>, CliError> {
        let text = run::text(job.size);
        if job.what == What::Pubsub {
            // The run itself waits until the other daemons are known to want it.
            return Ok(None);
        }
        if job.what == What::Ask {
            let query = Query { question: &text, domain: Some(&job.domain), ..Query::default() };
            let answer = self.client.query(self.peer, &query).await.and_then(axon_client::Sent::into_answer);
            return answer.map(|_| None).map_err(|error| self.advised(job, error, failure));
        }
        let sent = self.client.notify(self.peer, DOMAIN, &text, None).await;
        let sent = sent.map_err(|error| self.advised(job, error, failure))?;
        let delivered = sent.send_state() == Some(SendState::Delivered);
        if job.what == What::Kept && !delivered {
            let text = "the peer gives no receipts, so that nobody can tell when it has a message on disk \
                (ipc.durable is false there, or ipc.buffer_size 0): measure it by `axon bench notify`";
            return Err(CliError::new("no_receipt", text, EXIT_REFUSED));
        }
        Ok(sent.state)
    }

    /// Why the message ahead of the run failed, with what to do.
    fn advised(&self, job: &Job, error: ClientError, failure: &impl Fn(ClientError) -> CliError) -> CliError {
        let advice = advice(job.what, self.own, error.code());
        let mut told = failure(error);
        told.message.push_str(advice);
        told
    }
}

/// What to do about a failure with this code that a benchmark can make itself; begins with a space.
fn advice(what: What, own: bool, code: &str) -> &'static str {
    match code {
        // Daemons of its own have an agent that answers and reads.
        "overloaded" if own => " (the reader there did not keep up: give a lower --inflight or --size)",
        _ if own => "",
        "unhandled" | "unknown_domain" if what == What::Ask => {
            " (start `axon bench echo` on that machine, or say by --domain who is asked)"
        }
        "overloaded" if what != What::Ask => {
            " (when its inbox is full of what nobody reads: `axon bench echo --drain` on that machine does)"
        }
        _ => "",
    }
}

fn of_client(error: ClientError) -> CliError {
    CliError::new(error.code().to_owned(), error.to_string(), error.exit_code())
}

fn failed(reason: Reason) -> CliError {
    CliError::local("bench_failed", format!("the benchmark did not get to its end: {reason}"))
}

fn interrupted() -> CliError {
    CliError::local("interrupted", "it was interrupted, and has no figures")
}

fn count(text: &str) -> Result<u64, String> {
    let wrong = || format!("give a number of messages from {} to {}", COUNTS.start(), COUNTS.end());
    text.parse().ok().filter(|count| COUNTS.contains(count)).ok_or_else(wrong)
}

fn size(text: &str) -> Result<usize, String> {
    let wrong = || format!("give a number of bytes from {} to {}", SIZES.start(), SIZES.end());
    text.parse().ok().filter(|size| SIZES.contains(size)).ok_or_else(wrong)
}

fn inflight(text: &str) -> Result<usize, String> {
    let wrong = || format!("give a number from {} to {}", INFLIGHTS.start(), INFLIGHTS.end());
    text.parse().ok().filter(|inflight| INFLIGHTS.contains(inflight)).ok_or_else(wrong)
}

fn publishers(text: &str) -> Result<usize, String> {
    let wrong = || format!("give a number of clients from {} to {}", PUBLISHERS.start(), PUBLISHERS.end());
    text.parse().ok().filter(|count| PUBLISHERS.contains(count)).ok_or_else(wrong)
}

fn to(text: &str) -> Result<usize, String> {
    let wrong = || format!("give a number of daemons from {} to {}", TOS.start(), TOS.end());
    text.parse().ok().filter(|to| TOS.contains(to)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;

    #[test]
    fn the_help_says_the_bounds() {
        let help = Load::augment_args(clap::Command::new("bench")).render_help().to_string();
        let told = |bounds: (u64, u64), preset: u64| {
            let text = format!("{} to {} [default: {preset}]", bounds.0, bounds.1);
            assert!(help.contains(&text), "{text} in {help}");
        };
        let wide = |number: usize| u64::try_from(number).unwrap();
        told((*COUNTS.start(), *COUNTS.end()), COUNT);
        told((wide(*SIZES.start()), wide(*SIZES.end())), wide(SIZE));
        told((wide(*INFLIGHTS.start()), wide(*INFLIGHTS.end())), wide(INFLIGHT));
        let help = PubsubArgs::augment_args(clap::Command::new("bench")).render_help().to_string();
        let text = format!("{} to {} [default: {}]", TOS.start(), TOS.end(), TOS.start());
        assert!(help.contains(&text), "{text} in {help}");
    }

    #[test]
    fn everything_is_six_runs_with_what_was_said_ahead() {
        let load = Load { count: Some(7), size: Some(8), inflight: Some(9) };
        let jobs = Args { verb: None, all: true, load }.jobs().unwrap();
        let runs: Vec<_> = jobs.iter().map(|job| (job.what, job.inflight, job.follows)).collect();
        let (ask, kept, pubsub, notify) = (What::Ask, What::Kept, What::Pubsub, What::Notify);
        let published = [(pubsub, 1, true), (pubsub, 9, true)];
        let rest = [&published[..], &[(notify, 9, true)]].concat();
        assert_eq!(runs, [&[(ask, 1, false), (ask, 9, true), (kept, 9, true)], &rest[..]].concat());
        assert!(jobs.iter().all(|job| (job.count, job.size) == (7, 8)));
        let settings: Vec<_> = jobs.iter().map(Job::settings).collect();
        assert_eq!(settings, ["", "", "", "", "", IN_MEMORY]);
        let load = Load { size: Some(*SIZES.end()), ..Load::default() };
        assert_eq!(Job::new(kept, &load, &Load::default(), DOMAIN).settings(), ROOMY);
    }

    #[test]
    fn numbers_have_bounds_and_say_them() {
        assert_eq!((count("1"), size("64000"), inflight("256")), (Ok(1), Ok(64_000), Ok(256)));
        for bad in ["0", "-1", "x", "", "100000001", "1e3"] {
            assert!(count(bad).unwrap_err().contains("1 to 100000000"), "{bad}");
        }
        assert!(size("64001").unwrap_err().contains("1 to 64000"));
        assert!(inflight("257").unwrap_err().contains("1 to 256"));
        assert_eq!((to("1"), to("16")), (Ok(1), Ok(16)));
        for bad in ["0", "17", "ten"] {
            assert!(to(bad).unwrap_err().contains("1 to 16"), "{bad}");
        }
    }
}
