//! `axon topic`: messages that go over several hops to whoever has subscribed.

use axon_client::{TopicKeep, TopicPeer, TopicRow, Topics};
use axon_proto::error::IpcCode;
use axon_proto::kinds::topics::name::{Filter, Topic};
use axon_proto::limits::{TOPIC_KEEP_HOURS_MAX, TOPIC_KEEP_LAST_DEFAULT, TOPIC_KEEP_LAST_MAX};
use serde::Serialize;
use serde_json::value::RawValue;

use super::output::{CliError, CliResult, EXIT_DONE, Paint, printable};
use super::show::{between, plural};
use super::{Context, link, show};
use crate::disk::files::unix_ms;

mod sub;

/// What the consumers are called that `sub` keeps subscriptions under.
const CONSUMER: &str = "topic";

/// Publish on topics, and get what others publish, over several hops.
///
/// A topic has levels with dots between them, such as build.main.failed. In a filter `*` stands for one level
/// and `>`, at its end, for all that follow: quote them for the shell. A message goes from daemon to daemon,
/// along those that are paired, to all whose agents have subscribed, with the publisher's signature.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon topic sub 'build.>'    and elsewhere: axon topic pub build.main \
    '{\"state\":\"failed\"}'")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List subscriptions, what is kept, what is relayed, and the topics that were seen
    #[command(after_help = "Example:\n  axon topic list --json")]
    List,
    Sub(sub::Args),
    Unsub(UnsubArgs),
    Pub(PubArgs),
    Peers(PeersArgs),
    Keep(KeepArgs),
}

/// End a subscription that `axon topic sub --kept` made; what waits of it is not printed any more.
///
/// A subscription without --kept ends with the command that made it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon topic unsub 'build.>'")]
struct UnsubArgs {
    /// Whose subscription, as `axon topic list` names it; all that `axon topic sub` made without it
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// The name or filter, as it was subscribed to
    #[arg(value_parser = filter)]
    filter: String,
}

/// Publish a message; who gets it is not told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon topic pub build.main '{\"state\":\"failed\"}'\n  \
    axon topic pub chat.lobby \"Is anybody there?\"\n  uptime | axon topic pub host.load -")]
struct PubArgs {
    /// The topic's name, such as build.main
    #[arg(value_parser = name)]
    topic: String,
    /// A JSON object; any other text becomes {"text": …}; - reads stdin
    #[arg(allow_negative_numbers = true)]
    message: String,
}

/// List the neighbours: connected peers that offer topics, what they want, and what they keep.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon topic peers build.main")]
struct PeersArgs {
    /// Only those that want this topic, by its name
    #[arg(value_parser = name)]
    topic: Option<String>,
}

/// Keep what comes on these topics, for `axon topic sub --history` here and for neighbours that were away.
///
/// The last 1000 messages of the filter when nothing is said.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon topic keep 'build.>' --last 5000 --hours 48\n  \
    axon topic keep 'build.>' --off")]
struct KeepArgs {
    /// At most this many messages, 1 to 100000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=TOPIC_KEEP_LAST_MAX))]
    last: Option<u64>,
    /// Not for longer than this many hours, 1 to 8760
    #[arg(long, value_name = "H", value_parser = clap::value_parser!(u64).range(1..=TOPIC_KEEP_HOURS_MAX))]
    hours: Option<u64>,
    /// Keep it no longer, and drop what was kept
    #[arg(long, conflicts_with_all = ["last", "hours"])]
    off: bool,
    /// The name or filter
    #[arg(value_parser = filter)]
    filter: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    match args.verb {
        Verb::List => list(cx).await,
        Verb::Sub(args) => sub::run(cx, args).await,
        Verb::Unsub(args) => unsub(cx, args).await,
        Verb::Pub(args) => publish(cx, args).await,
        Verb::Peers(args) => peers(cx, args).await,
        Verb::Keep(args) => keep(cx, args).await,
    }
}

async fn list(cx: &Context) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        topics: &'a Topics,
    }
    let client = cx.connect(link::CONSUMER).await?;
    let topics = client.topics().await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, topics: &topics }, || text(cx, &topics, unix_ms()))?;
    Ok(EXIT_DONE)
}

async fn unsub(cx: &Context, args: UnsubArgs) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        topic: &'a str,
        consumers: &'a [String],
    }
    let (filter, flags) = (&args.filter, &cx.flags);
    let client = cx.connect(link::CONSUMER).await?;
    let topics = client.topics().await.map_err(|error| cx.failure(error))?;
    let wanted = |row: &TopicRow| match &args.consumer {
        Some(consumer) => row.consumer.as_ref() == Some(consumer),
        None => row.consumer.as_ref().is_some_and(|name| name.split(':').next() == Some(CONSUMER)),
    };
    let rows = topics.subscriptions.into_iter().filter(|row| row.topic == *filter && row.kept);
    let (ours, others): (Vec<TopicRow>, Vec<TopicRow>) = rows.partition(wanted);
    if ours.is_empty() {
        let others = match others.first() {
            Some(TopicRow { consumer: Some(name), .. }) => {
                format!("; one of the consumer {name} is there: name it by --consumer")
            }
            _ => "; one without --kept ends with its command".to_owned(),
        };
        let text = format!(
            "no subscription to {filter} is kept here: `axon{flags} topic list` shows those there are{others}"
        );
        return Err(CliError::ipc(IpcCode::NotFound, text));
    }
    let mut consumers: Vec<String> = ours.into_iter().filter_map(|row| row.consumer).collect();
    consumers.sort();
    consumers.dedup();
    for consumer in &consumers {
        let client = cx.connect(consumer).await?;
        client.unsubscribe_topic(filter).await.map_err(|error| cx.failure(error))?;
    }
    let line = Line { ok: true, topic: filter, consumers: &consumers };
    cx.out.result(&line, || format!("not subscribed to {filter} any more"))?;
    Ok(EXIT_DONE)
}

async fn publish(cx: &Context, args: PubArgs) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        topic: &'a str,
        seq: u64,
        neighbours: u64,
        subscribers: u64,
    }
    let message = message(&link::text_or_stdin(args.message)?)?;
    let client = cx.connect(link::CONSUMER).await?;
    let published = client.publish(&args.topic, &*message).await.map_err(|error| cx.failure(error))?;
    let (neighbours, subscribers) = (published.neighbours, published.subscribers);
    let line = Line { ok: true, topic: &args.topic, seq: published.seq, neighbours, subscribers };
    cx.out.result(&line, || {
        let (some, more) = (plural(neighbours), plural(subscribers));
        let seq = cx.out.paint(Paint::Dim, &published.seq.to_string());
        format!("published to {neighbours} neighbour{some} and {subscribers} subscriber{more} here {seq}")
    })?;
    Ok(EXIT_DONE)
}

/// What is published: a JSON object as it is, and any other text as one.
fn message(text: &str) -> Result<Box<RawValue>, CliError> {
    if text.trim_start().starts_with('{') {
        return link::object(text).map_err(|why| {
            CliError::usage(format!("{why}: mend it, or begin with another character than {{ to send text"))
        });
    }
    #[derive(Serialize)]
    struct Text<'a> {
        text: &'a str,
    }
    serde_json::value::to_raw_value(&Text { text }).map_err(|error| CliError::usage(error.to_string()))
}

async fn peers(cx: &Context, args: PeersArgs) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        peers: &'a [TopicPeer],
    }
    let client = cx.connect(link::CONSUMER).await?;
    let peers = client.topic_peers(args.topic.as_deref()).await.map_err(|error| cx.failure(error))?;
    cx.out.result(&Line { ok: true, peers: &peers }, || {
        let rows: Vec<String> = peers.iter().map(|peer| neighbour(cx, peer)).collect();
        match (rows.is_empty(), &args.topic) {
            (false, _) => rows.join("\n"),
            (true, Some(topic)) => format!("no neighbour wants {topic}: `axon topic peers` lists them all"),
            (true, None) => "no neighbours: no connected peer offers topics (see `axon peers`)".to_owned(),
        }
    })?;
    Ok(EXIT_DONE)
}

async fn keep(cx: &Context, args: KeepArgs) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        topic: &'a str,
        kept: bool,
    }
    let client = cx.connect(link::CONSUMER).await?;
    let keep = (!args.off).then_some(TopicKeep { last: args.last, hours: args.hours });
    client.topic_keep(&args.filter, keep).await.map_err(|error| cx.failure(error))?;
    let (topic, kept) = (args.filter.as_str(), !args.off);
    cx.out.result(&Line { ok: true, topic, kept }, || {
        let now = if kept { "is kept from now on" } else { "is not kept any more" };
        format!("{topic} {now}")
    })?;
    Ok(EXIT_DONE)
}

fn text(cx: &Context, topics: &Topics, now_ms: u64) -> String {
    let bold = |topic: &str| cx.out.paint(Paint::Bold, &printable(topic));
    let mut lines = Vec::new();
    for row in &topics.subscriptions {
        let mut text = format!("{} subscribed", bold(&row.topic));
        if row.from.as_str() == "any" {
            text.push_str(" from any");
        }
        if let Some(name) = &row.consumer {
            text.push_str(&format!(", kept for {}", printable(name)));
        }
        text.push_str(&format!(", for {}", between(row.since_ms, now_ms.max(row.since_ms))));
        lines.push(text);
    }
    for row in &topics.keeps {
        let default = row.hours.is_none().then_some(TOPIC_KEEP_LAST_DEFAULT);
        let last = row.last.or(default).map(|last| format!("last {last}"));
        let hours = row.hours.map(|hours| format!("{hours} h"));
        let bounds = [last, hours].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let (n, some) = (row.messages, plural(row.messages));
        lines.push(format!("{} kept ({bounds}): {n} message{some}, {} bytes", bold(&row.topic), row.bytes));
    }
    if !topics.relay.is_empty() {
        lines.push(format!("{} relayed", printable(&topics.relay.join(", "))));
    }
    for row in &topics.seen {
        let (n, some, by) = (row.messages, plural(row.messages), row.publishers);
        let ago = between(row.last_ms, now_ms.max(row.last_ms));
        let topic = bold(&row.topic);
        lines.push(format!("{topic} seen: {n} message{some} of {by} publisher{}, {ago} ago", plural(by)));
    }
    if lines.is_empty() {
        let flags = &cx.flags;
        return format!("no topics: `axon{flags} topic sub FILTER` subscribes");
    }
    lines.join("\n")
}

fn neighbour(cx: &Context, peer: &TopicPeer) -> String {
    let list = |filters: &[String]| printable(&filters.join(", ")).into_owned();
    let name = peer.name.as_deref().map(printable).unwrap_or_default();
    let who = format!("{} {name}", cx.out.paint(Paint::Bold, show::short(&peer.id)));
    let wants = if peer.filters.is_empty() { "nothing".to_owned() } else { list(&peer.filters) };
    let keeps = if peer.keeps.is_empty() { String::new() } else { format!("; keeps {}", list(&peer.keeps)) };
    let lazy = if peer.lazy == 0 { String::new() } else { format!("; lazy in {}", peer.lazy) };
    format!("{} wants {wants}{keeps}{lazy}", who.trim_end())
}

/// A name or a filter.
fn filter(text: &str) -> Result<String, String> {
    Filter::parse(text).map(|filter| filter.as_str().to_owned())
}

/// A name.
fn name(text: &str) -> Result<String, String> {
    Topic::parse(text).map(|topic| topic.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::output::Out;
    use super::*;
    use crate::disk::Root;

    fn cx() -> Context {
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        Context::at(out, Root::at("/r"))
    }

    #[test]
    fn an_object_goes_as_it_is_and_all_else_as_text() {
        let said = |text: &str| message(text).unwrap().get().to_owned();
        assert_eq!(said(" {\"a\": 1}"), "{\"a\": 1}");
        assert_eq!(said("failed \"again\""), r#"{"text":"failed \"again\""}"#);
        assert_eq!(said("-7"), r#"{"text":"-7"}"#);
        assert_eq!(said(""), r#"{"text":""}"#);
        let wrong = message("{\"a\"").unwrap_err();
        assert!(wrong.exit == 2 && wrong.message.contains("mend it"), "{wrong}");
    }

    #[test]
    fn lists_say_what_there_is() {
        let text = |json: &str| text(&cx(), &serde_json::from_str(json).unwrap(), 61_000);
        assert!(text("{}").contains("topic sub"));
        let all = text(
            r#"{"subscriptions":[
                  {"topic":"build.>","kept":true,"from":"any","consumer":"topic:build.>","since_ms":1000},
                  {"topic":"a\u001b","from":"peers","since_ms":1000}],
                "keeps":[{"topic":"build.>","last":1000,"hours":2,"messages":1,"bytes":70},
                         {"topic":"a","last":null,"hours":null,"messages":0,"bytes":0}],
                "relay":[">"],
                "seen":[{"topic":"build.main","messages":3,"publishers":1,"last_ms":56000}]}"#,
        );
        assert_eq!(
            all,
            "build.> subscribed from any, kept for topic:build.>, for 1 min\n\
             a\u{fffd} subscribed, for 1 min\n\
             build.> kept (last 1000, 2 h): 1 message, 70 bytes\n\
             a kept (last 1000): 0 messages, 0 bytes\n\
             > relayed\n\
             build.main seen: 3 messages of 1 publisher, 5 s ago"
        );
    }

    #[test]
    fn neighbours_say_what_they_want() {
        let neighbour = |json: &str| neighbour(&cx(), &serde_json::from_str(json).unwrap());
        let bob =
            r#"{"id":"ed25519.0011223344","name":"bob","filters":["a.>","b"],"keeps":["a.>"],"lazy":2}"#;
        assert_eq!(neighbour(bob), "00112233 bob wants a.>, b; keeps a.>; lazy in 2");
        assert_eq!(neighbour(r#"{"id":"ed25519.0011223344"}"#), "00112233 wants nothing");
    }

    #[test]
    fn names_and_filters_are_told_apart() {
        assert_eq!(filter("build.>").unwrap(), "build.>");
        assert!(name("build.>").unwrap_err().contains("filter"));
        assert!(filter("build..x").unwrap_err().contains("empty level"));
    }
}
