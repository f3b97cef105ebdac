//! `axon topic sub`: prints what is published, as it comes.

use std::time::Duration;

use axon_client::{
    Client, Event, Message, Publishers, Sender, Subscription, TopicMessage, TopicRow, TopicSubscription,
};
use axon_proto::limits::INBOX_LIMIT_MAX;

use super::super::output::{CliError, CliResult, EXIT_DONE, Paint, printable};
use super::super::row::Row;
use super::super::{Context, link, show, when};
use super::{CONSUMER, filter};

const EXIT_TIMEOUT: u8 = 3;
/// The kind of what comes over topics.
const KIND: &str = "topic.message";

/// Print what is published, as it comes: when, on which topic, by whom, and the message.
///
/// Without --kept the subscription ends with this command. With it, it stays: what comes meanwhile waits in
/// the inbox, and the next `axon topic sub --kept` of the same filters prints it and acknowledges what it
/// printed, until `axon topic unsub`. With --history that begins with what was kept, once.
///
/// As JSON each line has the fields of a row of `axon inbox`; `payload.message` is what was published.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon topic sub 'build.>' chat.lobby\n  \
    axon topic sub 'build.*.failed' --kept --count 1 --for 600")]
pub struct Args {
    /// Keep the subscription, and what comes, also while nobody listens
    #[arg(long)]
    kept: bool,
    /// With --kept: whose subscription it is [default: one of its own for these filters]
    #[arg(long, value_name = "NAME", requires = "kept")]
    consumer: Option<String>,
    /// Also what agents publish that are no peers here
    #[arg(long)]
    from_any: bool,
    /// Begin with what was kept: see `axon topic keep`
    #[arg(long)]
    history: bool,
    /// End after this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time; with --count and too few messages: exit code 3
    #[arg(long = "for", value_name = "SECS", value_parser = link::seconds)]
    span: Option<Duration>,
    /// Names of topics or filters: * is one level, > at the end all that follow
    #[arg(required = true, value_name = "FILTER", value_parser = filter)]
    filters: Vec<String>,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let consumer = match (&args.consumer, args.kept) {
        (Some(name), _) => name.clone(),
        (None, true) => consumer_of(&args.filters),
        (None, false) => link::CONSUMER.to_owned(),
    };
    let client = cx.connect(&consumer).await?;
    let mut subscriber = Subscriber { cx, client, consumer, args: &args, printed: 0, last_seq: 0 };
    let printing = subscriber.print_all();
    let ended = match args.span {
        None => Some(printing.await),
        Some(span) => tokio::time::timeout(span, printing).await.ok(),
    };
    match (ended, args.count) {
        (Some(Err(error)), _) => Err(error),
        (None, Some(count)) => {
            let printed = subscriber.printed;
            let text = format!("{printed} of {count} messages came in this time: wait longer with --for");
            Err(CliError::new("timeout", text, EXIT_TIMEOUT))
        }
        (Some(Ok(())), _) | (None, None) => Ok(EXIT_DONE),
    }
}

struct Subscriber<'a> {
    cx: &'a Context,
    client: Client,
    /// Whose subscriptions they are, where they are kept.
    consumer: String,
    args: &'a Args,
    printed: u64,
    last_seq: u64,
}

impl Subscriber<'_> {
    async fn print_all(&mut self) -> Result<(), CliError> {
        self.subscribe().await?;
        while !self.is_done() {
            match self.client.next_event().await.map_err(|error| self.cx.failure(error))? {
                Event::Inbound(inbound) => {
                    self.take(inbound.seq, &inbound.envelope, &inbound.sender).await?;
                }
                Event::SlowConsumer { .. } => self.catch_up().await?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn subscribe(&self) -> Result<(), CliError> {
        let Args { kept, history, .. } = *self.args;
        let there = self.told_before().await?;
        for topic in self.args.filters.iter().filter(|topic| !there.contains(topic)) {
            let from = self.args.from_any.then_some(Publishers::Any);
            let wanted = TopicSubscription { topic: topic.clone(), kept, from, history };
            let done = self.client.subscribe_topic(&wanted).await.map_err(|error| self.cx.failure(error))?;
            self.cx.out.detail(|| {
                let (n, some) = (done.neighbours, show::plural(done.neighbours));
                format!("subscribed to {topic}, with {n} neighbour{some}")
            });
        }
        // What has waited comes first.
        if kept { self.subscribe_rows(true).await } else { Ok(()) }
    }

    /// Filters that are subscribed as wanted, and whose history was told then: it is not told at each start.
    async fn told_before(&self) -> Result<Vec<String>, CliError> {
        if !(self.args.kept && self.args.history) {
            return Ok(Vec::new());
        }
        let topics = self.client.topics().await.map_err(|error| self.cx.failure(error))?;
        let any = |row: &TopicRow| row.from == Publishers::Any;
        let ours = |row: &TopicRow| row.consumer.as_ref() == Some(&self.consumer);
        let same = |row: &TopicRow| row.kept && row.history && ours(row) && any(row) == self.args.from_any;
        Ok(topics.subscriptions.into_iter().filter(same).map(|row| row.topic).collect())
    }

    async fn subscribe_rows(&self, replay: bool) -> Result<(), CliError> {
        let kinds = Some(vec![KIND.to_owned()]);
        let rows = Subscription { kinds, replay: Some(replay), ..Subscription::default() };
        let subscribed = self.client.subscribe(&rows).await.map_err(|error| self.cx.failure(error))?;
        if let Some(seq) = subscribed.lost_before_seq {
            self.cx.out.note(|| show::lost(seq));
        }
        Ok(())
    }

    async fn take(&mut self, seq: u64, envelope: &Message, sender: &Sender) -> Result<(), CliError> {
        let Some(said) = envelope.topic().filter(|_| seq > self.last_seq) else { return Ok(()) };
        self.last_seq = seq;
        let out = &self.cx.out;
        out.result(&Row::dated(seq, envelope, sender), || line(self.cx, envelope, sender, &said))?;
        self.printed += 1;
        if !self.args.kept {
            return Ok(());
        }
        match self.client.ack(seq).await {
            Ok(_) => Ok(()),
            // Somebody else reads as the same consumer and was faster.
            Err(error) if error.code() == "ack_out_of_range" => Ok(()),
            Err(error) => Err(self.cx.failure(error)),
        }
    }

    /// Messages came faster than they were printed. Those that are kept are in the inbox.
    async fn catch_up(&mut self) -> Result<(), CliError> {
        if !self.args.kept {
            self.cx.out.note(|| {
                "messages came faster than they were printed, and some are lost: --kept keeps them".to_owned()
            });
            // What was missed is nowhere: this asks for what comes from now on.
            return self.subscribe_rows(false).await;
        }
        loop {
            let page = self.client.inbox(Some(INBOX_LIMIT_MAX), None).await;
            let page = page.map_err(|error| self.cx.failure(error))?;
            for kept in &page.messages {
                if self.is_done() {
                    return Ok(());
                }
                self.take(kept.seq, &kept.envelope, &kept.sender).await?;
            }
            // Messages of other kinds at the end of the page are nothing to this consumer.
            if let Some(next) = page.next_seq.filter(|next| *next > self.last_seq) {
                self.last_seq = next;
                self.client.ack(next).await.map_err(|error| self.cx.failure(error))?;
            }
            if !page.has_more {
                return Ok(());
            }
        }
    }

    fn is_done(&self) -> bool {
        self.args.count.is_some_and(|count| self.printed >= count)
    }
}

/// A consumer for these filters alone, so that what one command prints is not taken from another.
fn consumer_of(filters: &[String]) -> String {
    let mut filters = filters.to_vec();
    filters.sort();
    filters.dedup();
    link::consumer(CONSUMER, &filters.join(","))
}

/// A message in one line.
fn line(cx: &Context, envelope: &Message, sender: &Sender, said: &TopicMessage) -> String {
    let who = if said.stranger {
        format!("{} ({})", show::short(&envelope.from), cx.out.paint(Paint::Warn, "stranger"))
    } else {
        show::sender(&cx.out, &envelope.from, sender)
    };
    let when = cx.out.paint(Paint::Dim, &when::utc(envelope.ts));
    let topic = cx.out.paint(Paint::Bold, &printable(&said.topic));
    format!("{when} {topic} {who}: {}", show::published(said.message.get()))
}

#[cfg(test)]
mod tests {
    use super::super::super::output::Out;
    use super::*;
    use crate::disk::Root;

    #[test]
    fn a_message_is_a_line() {
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let cx = Context::at(out, Root::at("/r"));
        let line = |message: &str, more: &str, sender: &str| {
            let text = format!(
                r#"{{"v":1,"id":"m","from":"ed25519.00112233aa","to":"t","ts":951827696007,
                     "kind":"topic.message","payload":{{"topic":"a.b","seq":1,"hops":1{more},
                     "message":{message}}}}}"#
            );
            let envelope: Message = serde_json::from_str(&text).unwrap();
            let said = envelope.topic().unwrap();
            line(&cx, &envelope, &serde_json::from_str(sender).unwrap(), &said)
        };
        let bob = r#"{"trust":"known","from_name":"bob"}"#;
        assert_eq!(
            line(r#"{"state":"ok"}"#, "", bob),
            r#"2000-02-29T12:34:56Z a.b bob (known): {"state":"ok"}"#
        );
        assert_eq!(
            line(r#"{"text":"hi\u001b"}"#, "", bob),
            "2000-02-29T12:34:56Z a.b bob (known): hi\u{fffd}"
        );
        // A second line could be taken for another message.
        let two = line("{\"text\":\"a\\nb\"}", "", bob);
        assert!(two.ends_with(r#": {"text":"a\nb"}"#), "{two}");
        let stranger = line(r#"{"text":"hi"}"#, r#","stranger":true"#, r#"{"trust":"unknown"}"#);
        assert_eq!(stranger, "2000-02-29T12:34:56Z a.b 00112233 (stranger): hi");
    }

    #[test]
    fn a_consumer_is_of_its_filters_in_any_order() {
        let consumer = |filters: &[&str]| {
            consumer_of(&filters.iter().map(|filter| (*filter).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(consumer(&["b", "a.>"]), "topic:a.>,b");
        assert_eq!(consumer(&["a.>", "b", "b"]), consumer(&["b", "a.>"]));
        let long = consumer(&[&"a".repeat(200)]);
        assert!(long.starts_with("topic:") && long.len() <= 64, "{long}");
    }
}
