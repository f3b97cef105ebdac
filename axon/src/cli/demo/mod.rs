//! `axon demo`: two real daemons on this machine, paired, an agent on each, and what they say to each other.

use std::time::{Duration, Instant};

use axon_client::{
    Agent, Answer, Client, ClientError, Delegate, Event, Message, Query, Request, Subscription,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::answer::stopped;
use super::output::{CliError, CliResult, EXIT_DONE, Out, Paint, printable};
use super::stage::{Reason, Stage, TWO};

/// Each step is over in milliseconds; something is wrong when one takes this long.
const STEP: Duration = Duration::from_secs(10);

/// Start two daemons on this machine and let their agents talk.
///
/// They live in a temporary directory, are paired over loopback, and are gone at the end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon demo")]
pub struct Args {}

pub(super) async fn run(out: &Out, _: Args) -> CliResult {
    let stop = stopped()?;
    let mut pair = Stage::new("demo", "", TWO).map_err(failed)?;
    let played = tokio::select! {
        played = play(out, &mut pair) => {
            if played.is_err() {
                out.note(|| format!("the daemons' last words:\n{}", pair.log()));
            }
            played
        }
        () = stop => Err("it was interrupted".to_owned()),
    };
    // Whatever happened: nothing is left behind.
    let ended = pair.end().await;
    played.and(ended).map_err(failed)?;
    out.result(&json!({"ok": true, "step": "end"}), || {
        "both daemons have stopped, nothing is left behind".into()
    })?;
    Ok(EXIT_DONE)
}

fn failed(reason: Reason) -> CliError {
    CliError::local("demo_failed", format!("the demo did not get to its end: {reason}"))
}

async fn play(out: &Out, pair: &mut Stage) -> Result<(), Reason> {
    let began = Instant::now();
    pair.start().await?;
    let (ada, bob) = (pair.connect(0, "demo").await?, pair.connect(1, "demo").await?);
    let _agents = [
        attach(&pair.connect(0, "agent").await?, "ada", "house", keeper).await?,
        attach(&pair.connect(1, "agent").await?, "bob", "sums", counter).await?,
    ];
    let say = Say { out };
    say.started(began)?;

    let began = Instant::now();
    let question = "What is 17 + 25?";
    let answer = asked(&ada, "bob", question, "sums").await?;
    say.step("query", "ada", "bob", question, &summary(&answer), began)?;

    let began = Instant::now();
    let question = "Where is the kettle?";
    let answer = asked(&bob, "ada", question, "house.kitchen").await?;
    say.step("query", "bob", "ada", question, &summary(&answer), began)?;

    let kinds = Some(vec!["result".to_owned(), "notify".to_owned()]);
    let subscription = Subscription { kinds, replay: Some(false), ..Subscription::default() };
    step(ada.subscribe(&subscription)).await?;
    let began = Instant::now();
    let task = "Put these in order: pear fig apple";
    let sent = step(ada.delegate("bob", &Delegate { task, ..Delegate::default() })).await?;
    let id = sent.msg_id.clone();
    let ack = sent.into_answer().map_err(|error| error.to_string())?;
    if let Some(reason) = ack.refusal() {
        return Err(format!("bob declined the work: {reason}"));
    }
    say.step("delegate", "ada", "bob", task, "accepted", began)?;
    let result = heard(&ada, "result", |message| message.reference.as_deref() == Some(&id)).await?;
    say.step("result", "bob", "ada", task, &result.text("outcome").unwrap_or_default(), began)?;

    let began = Instant::now();
    step(bob.notify("ada", "kettle.boiled", "Tea is ready.", Some("high"))).await?;
    let note = heard(&ada, "notify", |_| true).await?;
    let said = note.text("data").unwrap_or_default();
    say.step("notify", "bob", "ada", &note.text("topic").unwrap_or_default(), &said, began)?;

    let began = Instant::now();
    let found = step(ada.discover("bob")).await?.into_answer().map_err(|error| error.to_string())?;
    let can: Value = found.payload().map_err(|error| error.to_string())?;
    if can["domains"] != json!(["sums"]) {
        return Err(format!("bob's agent offers sums, and discover says {can}"));
    }
    say.step("discover", "ada", "bob", "What can you do?", &can.to_string(), began)
}

#[derive(Serialize)]
struct Line<'a> {
    ok: bool,
    step: &'a str,
    from: &'a str,
    to: &'a str,
    said: &'a str,
    answer: &'a str,
    ms: f64,
}

/// Prints what happened.
struct Say<'a> {
    out: &'a Out,
}

impl Say<'_> {
    fn started(&self, began: Instant) -> Result<(), Reason> {
        let ms = millis(began);
        let line = json!({"ok": true, "step": "start", "ms": ms});
        let text = || {
            let what = "two daemons are up and paired, an agent is attached to each";
            format!("{what} {}", self.out.paint(Paint::Dim, &format!("{ms} ms")))
        };
        self.out.result(&line, text).map_err(|error| error.to_string())
    }

    fn step(
        &self,
        step: &str,
        from: &str,
        to: &str,
        said: &str,
        answer: &str,
        began: Instant,
    ) -> Result<(), Reason> {
        let ms = millis(began);
        let line = Line { ok: true, step, from, to, said, answer, ms };
        let text = || {
            let head = self.out.paint(Paint::Bold, &format!("{step:<9} {from} to {to}"));
            let time = self.out.paint(Paint::Dim, &format!("{ms} ms"));
            format!("{head}: {}\n          {} {time}", printable(said), printable(answer))
        };
        self.out.result(&line, text).map_err(|error| error.to_string())
    }
}

/// Milliseconds since then, to a hundredth.
fn millis(began: Instant) -> f64 {
    (began.elapsed().as_secs_f64() * 100_000.0).round() / 100.0
}

fn summary(answer: &Message) -> String {
    answer.text("summary").unwrap_or_default()
}

async fn step<T>(call: impl Future<Output = Result<T, ClientError>>) -> Result<T, Reason> {
    match timeout(STEP, call).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("a step took over {} s", STEP.as_secs())),
    }
}

async fn asked(client: &Client, to: &str, question: &str, domain: &str) -> Result<Message, Reason> {
    let query = Query { question, domain: Some(domain), ..Query::default() };
    step(client.query(to, &query)).await?.into_answer().map_err(|error| error.to_string())
}

/// The next message of this kind that is the one meant.
async fn heard(client: &Client, kind: &str, meant: impl Fn(&Message) -> bool) -> Result<Message, Reason> {
    step(async {
        loop {
            if let Event::Inbound(inbound) = client.next_event().await?
                && inbound.envelope.kind == kind
                && meant(&inbound.envelope)
            {
                return Ok(inbound.envelope);
            }
        }
    })
    .await
}

/// An agent of a few lines. It answers until it is dropped.
async fn attach(
    client: &Client,
    name: &'static str,
    domain: &str,
    wit: fn(&str) -> String,
) -> Result<tokio::task::JoinSet<()>, Reason> {
    let (ready, attached) = oneshot::channel();
    let ready = std::sync::Mutex::new(Some(ready));
    let agent = Agent::new(move |request: Request| async move { Answer::text(wit(request.subject())) })
        .domains([domain])
        .capabilities(json!({"agent_name": name, "domains": [domain], "max_concurrent_tasks": 16}))
        .on_attached(move || {
            let ready = ready.lock().ok().and_then(|mut ready| ready.take());
            if let Some(ready) = ready {
                // Who waited has given up, and says so himself.
                ready.send(()).ok();
            }
        });
    let mut task = tokio::task::JoinSet::new();
    let client = client.clone();
    task.spawn(async move {
        // The demo's own calls fail when the daemon goes away, and tell why.
        drop(agent.serve(&client).await);
    });
    match timeout(STEP, attached).await {
        Ok(Ok(())) => Ok(task),
        _ => Err(format!("{name}'s agent could not be attached")),
    }
}

/// Ada's agent knows the house.
fn keeper(subject: &str) -> String {
    if subject.contains("kettle") {
        "On the second shelf, says ada's agent, behind the tea.".to_owned()
    } else {
        "Ada's agent knows only where things are.".to_owned()
    }
}

/// Bob's agent adds numbers and sorts words.
fn counter(subject: &str) -> String {
    if let Some((_, words)) = subject.split_once(':') {
        let mut words: Vec<&str> = words.split_whitespace().collect();
        words.sort_unstable();
        return words.join(" ");
    }
    let numbers: Vec<u64> =
        subject.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
    let sum = numbers.iter().fold(0, |sum: u64, number| sum.saturating_add(*number));
    format!("{sum}, says bob's agent.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_answer_for_themselves() {
        assert_eq!(counter("What is 17 + 25?"), "42, says bob's agent.");
        assert_eq!(counter("Put these in order: pear fig apple"), "apple fig pear");
        assert!(keeper("Where is the kettle?").contains("shelf"));
    }
}
