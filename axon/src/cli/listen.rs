//! `axon listen`: prints messages as they come, and acknowledges what it printed.

use std::time::Duration;

use axon_client::{Client, ClientError, Event, Inbound, Inbox, Knock, Message, Sender, Subscription, Trust};
use axon_proto::limits::{CAPACITY_MAX, INBOX_LIMIT_MAX};
use serde::Serialize;

use super::output::{CliError, CliResult, EXIT_DONE};
use super::row::Row;
use super::{Context, knocks, level, link, show};

const EXIT_TIMEOUT: u8 = 3;
/// Kinds that an agent answers.
const REQUESTS: [&str; 3] = ["query", "delegate", "cancel"];

/// Print messages as they come, and how far their senders are trusted.
///
/// Messages of peers below --trust are counted, told of at the end, and left in the inbox, unacknowledged:
/// `axon inbox` shows them. What came after the first of them stays there too, and is printed here all the
/// same, once: a consumer of its own keeps how far. On a scoped socket, which has one consumer, it comes
/// again in the next run, until `axon ack`. When the inbox is full, what was left goes before what nobody
/// has passed. With --answer, requests of such peers are refused.
///
/// Among --kinds, `knock` prints strangers that want in (see `axon knocks`); otherwise they are remarked on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon listen --kinds notify --count 1 --for 60\n  \
    axon listen --answer --count 1    then: axon reply ID \"At 7.\"")]
pub struct Args {
    /// Only these kinds, under a consumer of their own
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    kinds: Option<Vec<String>>,
    /// Whose cursor to read from and move
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// End after this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time; with --count and too few messages: exit code 3
    #[arg(long = "for", value_name = "SECS", value_parser = link::seconds)]
    span: Option<Duration>,
    /// Take requests, to be answered by `axon reply`, even after this command has ended
    #[arg(long)]
    answer: bool,
    /// With --answer: only queries of these domains
    #[arg(long, value_name = "DOMAIN,...", value_delimiter = ',', requires = "answer")]
    domain: Vec<String>,
    /// Do not acknowledge what was printed
    #[arg(long)]
    no_ack: bool,
    /// Only of peers that are trusted so far, or further
    #[arg(long, value_name = "LEVEL", default_value = level::WAKES, value_parser = level::LEVELS)]
    trust: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let consumer = match (&args.consumer, &args.kinds) {
        (Some(name), _) => name.clone(),
        (None, Some(kinds)) => consumer_of(kinds),
        (None, None) => link::CONSUMER.to_owned(),
    };
    let client = cx.connect(&consumer).await?;
    let subscription = subscription(&args);
    let mut listener = Listener {
        cx,
        client,
        consumer,
        kinds: subscription.kinds.clone(),
        subscription,
        level: Trust::from(args.trust.as_str()),
        ack: !args.no_ack,
        aside: false,
        endless: args.count.is_none() && args.span.is_none(),
        left: 0,
        refused: 0,
        printed: 0,
        last_seq: 0,
        lost: None,
    };
    let listening = listener.listen(args.count);
    let ended = match args.span {
        None => Some(listening.await),
        Some(span) => tokio::time::timeout(span, listening).await.ok(),
    };
    listener.tell_left().await;
    match (ended, args.count) {
        (Some(Err(error)), _) => Err(error),
        (None, Some(count)) => {
            let printed = listener.printed;
            let message =
                format!("{printed} of {count} messages came in this time: listen longer with --for");
            Err(CliError::new("timeout", message, EXIT_TIMEOUT))
        }
        (Some(Ok(())), _) | (None, None) => Ok(EXIT_DONE),
    }
}

struct Listener<'a> {
    cx: &'a Context,
    client: Client,
    /// Whose cursor is read from and moved.
    consumer: String,
    subscription: Subscription,
    /// Kinds to print, where not all are.
    kinds: Option<Vec<String>>,
    /// Who is trusted less is not printed.
    level: Trust,
    ack: bool,
    /// Whether something was left for `axon inbox`, so that the consumer's own cursor stays before it.
    aside: bool,
    /// Nothing but a signal ends it.
    endless: bool,
    /// Messages that were not printed for their sender's level.
    left: u64,
    /// Requests that were refused for it.
    refused: u64,
    printed: u64,
    last_seq: u64,
    /// What is to be said beside the next message: those before this number are lost.
    lost: Option<u64>,
}

impl Listener<'_> {
    async fn listen(&mut self, count: Option<u64>) -> Result<(), CliError> {
        // Replayed messages come before the reply; they are taken from the queue below.
        let subscribed =
            self.client.subscribe(&self.subscription).await.map_err(|error| self.cx.failure(error))?;
        self.tell_lost(subscribed.lost_before_seq);
        // With nothing left of it to acknowledge, what was lost is settled by its own number.
        if let (Some(seq @ 1..), 0, true) =
            (subscribed.lost_before_seq, subscribed.replayed, self.subscription.answer.is_empty())
        {
            self.acknowledge(seq - 1).await?;
        }
        while count.is_none_or(|count| self.printed < count) {
            match self.client.next_event().await.map_err(|error| self.cx.failure(error))? {
                Event::Inbound(inbound) => self.take(&inbound).await?,
                Event::SlowConsumer { .. } => self.catch_up(count).await?,
                Event::Knock(knock) => self.knock(&knock)?,
                Event::Withdrawn { reference, reason } => {
                    self.cx.out.detail(|| format!("{reference} needs no answer any more: {reason}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn take(&mut self, inbound: &Inbound) -> Result<(), CliError> {
        if inbound.answer && level::is_below(&inbound.sender, &self.level) {
            return self.refuse(inbound).await;
        }
        if inbound.answer {
            return self.print(inbound.seq, &inbound.envelope, &inbound.sender, Some(inbound));
        }
        if inbound.seq <= self.last_seq {
            return Ok(());
        }
        if level::is_below(&inbound.sender, &self.level) {
            return self.leave(inbound.seq).await;
        }
        self.print(inbound.seq, &inbound.envelope, &inbound.sender, None)?;
        self.acknowledge(inbound.seq).await
    }

    /// A message stays in the inbox unprinted.
    ///
    /// The consumer's cursor must not go past it: whoever reads the inbox is to find it. But without a cursor
    /// what follows would wake again at each start, and any stranger could bring that about. So from here on
    /// a consumer of its own keeps how far has been printed.
    async fn leave(&mut self, seq: u64) -> Result<(), CliError> {
        self.left += 1;
        self.last_seq = seq;
        if self.endless && self.left == 1 {
            let level = &self.level;
            self.cx.out.note(|| format!("messages of peers below {level} come too: counted, not printed"));
        }
        if self.aside {
            return self.acknowledge(seq).await;
        }
        if !self.ack {
            return Ok(());
        }
        self.aside = true;
        // What was taken to be answered is bound to this connection; and a scoped socket has one consumer.
        if !self.subscription.answer.is_empty() || self.is_scoped().await? {
            self.ack = false;
            return Ok(());
        }
        self.client = self.cx.connect(&aside_of(&self.consumer, &self.level)).await?;
        self.pass(seq).await?;
        let subscribed =
            self.client.subscribe(&self.subscription).await.map_err(|error| self.cx.failure(error))?;
        let lost = subscribed.lost_before_seq;
        self.tell_lost(lost.filter(|before| *before > self.last_seq + 1));
        if let (Some(before @ 1..), 0) = (lost, subscribed.replayed) {
            self.move_cursor(before - 1).await?;
        }
        Ok(())
    }

    /// Moves the new consumer's cursor up to here: it may never have been used, or long ago.
    async fn pass(&self, up_to: u64) -> Result<(), CliError> {
        loop {
            let page = self.client.inbox(Some(INBOX_LIMIT_MAX), None).await;
            let page = page.map_err(|error| self.cx.failure(error))?;
            let Some(next) = page.next_seq else { return Ok(()) };
            // One that is past it already begins behind it.
            let passed = page.messages.iter().map(|kept| kept.seq).take_while(|seq| *seq <= up_to).last();
            let Some(passed) = passed else { return Ok(()) };
            self.move_cursor(passed).await?;
            if next >= up_to || !page.has_more {
                return Ok(());
            }
        }
    }

    /// Whether this socket is for one agent.
    async fn is_scoped(&self) -> Result<bool, CliError> {
        let status = self.client.status().await.map_err(|error| self.cx.failure(error))?;
        Ok(!link::tells_all(&status))
    }

    /// A request of a peer that this process does not work for.
    async fn refuse(&mut self, inbound: &Inbound) -> Result<(), CliError> {
        self.refused += 1;
        let why = level::refusal(&self.level);
        let payload = serde_json::json!({"code": "not_authorized", "message": why, "retryable": false});
        let id = &inbound.envelope.id;
        match self.client.reply(id, "error", &payload).await {
            // It was answered or given up meanwhile.
            Ok(_) | Err(ClientError::Ipc { .. }) => Ok(()),
            Err(error) => Err(self.cx.failure(error)),
        }
    }

    /// Says what was not printed, and where it is.
    async fn tell_left(&self) {
        let (level, flags) = (&self.level, &self.cx.flags);
        if self.refused > 0 {
            let (some, n) = (show::plural(self.refused), self.refused);
            self.cx.out.note(|| format!("{n} request{some} of peers below {level} refused (see --trust)"));
        }
        if self.left == 0 {
            return;
        }
        // All that wait, also those that came before this run.
        let waiting = match self.cx.connect(&self.consumer).await {
            Ok(client) => client.inbox(Some(INBOX_LIMIT_MAX), None).await.map(|page| self.below(&page)),
            Err(_) => return,
        };
        let n = waiting.map_or(self.left, |waiting| waiting.max(self.left));
        let consumer = match self.consumer.as_str() {
            link::CONSUMER => String::new(),
            name => format!(" --consumer {name}"),
        };
        let again = if self.aside && !self.ack { "; what came after comes again until then" } else { "" };
        self.cx.out.note(|| {
            format!(
                "{n} message{} of peers below {level} not printed: `axon{flags} inbox{consumer}` shows them, \
                 `axon{flags} ack{consumer} SEQ` settles them{again}",
                show::plural(n)
            )
        });
    }

    fn below(&self, page: &Inbox) -> u64 {
        let wanted = |kind: &String| self.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind));
        let rows = page.messages.iter().filter(|kept| wanted(&kept.envelope.kind));
        let below = rows.filter(|kept| level::is_below(&kept.sender, &self.level)).count();
        u64::try_from(below).unwrap_or(u64::MAX)
    }

    /// Reads from the inbox what came too fast to be told.
    async fn catch_up(&mut self, count: Option<u64>) -> Result<(), CliError> {
        loop {
            let limit = if self.ack { 100 } else { INBOX_LIMIT_MAX };
            let page = self.client.inbox(Some(limit), None).await.map_err(|error| self.cx.failure(error))?;
            // Where nothing is acknowledged, every page tells of what was lost before the first.
            self.tell_lost(page.lost_before_seq.filter(|seq| *seq > self.last_seq));
            let before = self.last_seq;
            for kept in &page.messages {
                if count.is_some_and(|count| self.printed >= count) {
                    return Ok(());
                }
                if kept.seq <= self.last_seq {
                    continue;
                }
                let wanted = self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kept.envelope.kind));
                if wanted && level::is_below(&kept.sender, &self.level) {
                    let was_aside = self.aside;
                    self.leave(kept.seq).await?;
                    if self.aside && self.ack && !was_aside {
                        // The rest comes on the connection that was made for it.
                        return Ok(());
                    }
                    continue;
                }
                if wanted {
                    self.print(kept.seq, &kept.envelope, &kept.sender, None)?;
                }
                self.acknowledge(kept.seq).await?;
            }
            // Without acknowledging, the inbox shows the same page for ever.
            if !page.has_more || self.last_seq == before {
                return Ok(());
            }
        }
    }

    async fn acknowledge(&mut self, seq: u64) -> Result<(), CliError> {
        self.last_seq = seq;
        if !self.ack {
            return Ok(());
        }
        self.move_cursor(seq).await
    }

    async fn move_cursor(&self, seq: u64) -> Result<(), CliError> {
        match self.client.ack(seq).await {
            Ok(_) => Ok(()),
            // Somebody else reads as the same consumer and was faster.
            Err(ClientError::Ipc { code, .. }) if code == "ack_out_of_range" => Ok(()),
            Err(error) => Err(self.cx.failure(error)),
        }
    }

    fn tell_lost(&mut self, before_seq: Option<u64>) {
        if let Some(seq) = before_seq {
            self.cx.out.note(|| show::lost(seq));
            self.lost = Some(seq);
        }
    }

    /// A stranger wants in: a line of its own for who asked for that, and else a remark.
    fn knock(&mut self, knock: &Knock) -> Result<(), CliError> {
        #[derive(Serialize)]
        struct Line<'a> {
            event: &'a str,
            #[serde(flatten)]
            knock: &'a Knock,
        }
        let (out, text) = (&self.cx.out, || knocks::told(self.cx, knock));
        if !self.kinds.as_ref().is_some_and(|kinds| kinds.iter().any(|kind| kind == "knock")) {
            out.note(text);
            return Ok(());
        }
        out.result(&Line { event: "knock", knock }, text)?;
        self.printed += 1;
        Ok(())
    }

    fn print(
        &mut self,
        seq: u64,
        message: &Message,
        sender: &Sender,
        request: Option<&Inbound>,
    ) -> Result<(), CliError> {
        let mut line = Row::new(seq, message, sender, request);
        line.lost_before_seq = self.lost.take();
        let out = &self.cx.out;
        out.result(&line, || match request {
            // How a cancel is answered is for its taker to choose: a flag, and no text.
            Some(_) if message.kind != "cancel" => show::request(out, &self.cx.flags, seq, message, sender),
            _ => show::entry(out, seq, message, sender),
        })?;
        self.printed += 1;
        Ok(())
    }
}

/// With `--answer`, requests are taken rather than looked at; other kinds are printed beside them if they are
/// named.
fn subscription(args: &Args) -> Subscription {
    if !args.answer {
        return Subscription { kinds: args.kinds.clone(), ..Subscription::default() };
    }
    let named = args.kinds.clone().unwrap_or_default();
    let (mut answer, others): (Vec<String>, Vec<String>) =
        named.into_iter().partition(|kind| REQUESTS.contains(&kind.as_str()));
    if answer.is_empty() {
        answer = REQUESTS.map(str::to_owned).to_vec();
    }
    Subscription {
        kinds: (!others.is_empty()).then_some(others),
        answer,
        domains: args.domain.clone(),
        // What is handed to this process stays its own: no more than it prints before it ends.
        capacity: args.count.map(|count| u32::try_from(count).unwrap_or(CAPACITY_MAX).min(CAPACITY_MAX)),
        lease: true,
        ..Subscription::default()
    }
}

/// A consumer for these kinds alone: acknowledging them must not jump over others in the default one.
fn consumer_of(kinds: &[String]) -> String {
    let mut kinds = kinds.to_vec();
    kinds.sort();
    kinds.dedup();
    link::consumer("listen", &kinds.join(","))
}

/// A consumer beside another one, for what was printed past messages that were not.
fn aside_of(consumer: &str, level: &Trust) -> String {
    link::consumer("listen", &format!("{level}:{consumer}"))
}

#[cfg(test)]
mod tests {
    use axon_proto::limits::CONSUMER_BYTES_MAX;

    use super::*;

    fn kinds(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn args(names: Option<&[&str]>, answer: bool) -> Args {
        let (consumer, count, span) = (None, None, None);
        let trust = level::WAKES.to_owned();
        let kinds = names.map(kinds);
        Args { kinds, consumer, count, span, answer, domain: Vec::new(), no_ack: false, trust }
    }

    #[test]
    fn each_set_of_kinds_has_a_consumer_of_its_own() {
        assert_eq!(consumer_of(&kinds(&["notify"])), "listen:notify");
        assert_eq!(consumer_of(&kinds(&["result", "notify"])), consumer_of(&kinds(&["notify", "result"])));
        let long = consumer_of(&kinds(&[&"x".repeat(80)]));
        assert!(long.len() <= CONSUMER_BYTES_MAX && long != consumer_of(&kinds(&[&"y".repeat(80)])));
        assert_eq!(aside_of("default", &Trust::Known), "listen:known:default");
        assert!(aside_of(&"x".repeat(64), &Trust::Known).len() <= CONSUMER_BYTES_MAX);
    }

    #[test]
    fn answer_takes_requests_and_shows_only_what_else_is_named() {
        let all = subscription(&args(None, true));
        assert_eq!((all.answer, all.kinds, all.lease), (kinds(&REQUESTS), None, true));
        assert_eq!(all.capacity, None);
        let counted = subscription(&Args { count: Some(1), ..args(None, true) });
        assert_eq!(counted.capacity, Some(1));
        let some = subscription(&args(Some(&["query", "notify"]), true));
        assert_eq!((some.answer, some.kinds), (kinds(&["query"]), Some(kinds(&["notify"]))));
        let plain = subscription(&args(Some(&["notify"]), false));
        assert!(plain.answer.is_empty() && !plain.lease);
    }
}
