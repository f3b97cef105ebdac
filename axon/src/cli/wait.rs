//! `axon wait`: waits until a delegation has ended, and prints what came of it.
//!
//! The daemon's ledger says how it stands and tells of every change after that, so that it does not matter
//! whether the end comes before or after the question.

use std::time::{Duration, Instant};

use axon_client::{
    Client, ClientError, Delegation, DelegationFilter, DelegationState, Delegations, Direction, Event,
};
use axon_proto::error::IpcCode;
use axon_proto::limits::INBOX_LIMIT_MAX;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::output::{CliError, CliResult, EXIT_DONE, printable};
use super::{Context, link, show};

/// Exit code of who has waited long enough.
pub const EXIT_TIMEOUT: u8 = 3;
/// Exit code of a delegation that was not done.
const EXIT_FAILED: u8 = 4;
/// How long a daemon that went away may take to come back.
const DAEMON_BACK: Duration = Duration::from_secs(30);
/// First and longest wait before it is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Wait until a delegation has ended, and print what came of it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 completed or partial; 2 there is no such delegation; 3 still going on \
    after --timeout; 4 failed, refused, cancelled or expired.\n\nExamples:\n  axon wait 5f2c1e9a\n  \
    axon wait --timeout 10m 5f2c1e9a-6d0b-4f0e-9a53-0c3a8f1f2b7d"
)]
pub struct Args {
    /// Give up after this time: 90s, 15m, 1h, 2d
    #[arg(long, value_name = "TIME", value_parser = link::seconds)]
    timeout: Option<Duration>,
    /// The delegation's id, as `axon delegate` printed it, or its first 4 digits or more
    #[arg(value_parser = link::id_or_prefix)]
    id: String,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    let client = connected(cx).await?;
    let id = whole(cx, &client, args.id).await?;
    let ended = match args.timeout {
        None => ended(cx, client, &id, None).await?,
        Some(limit) => match tokio::time::timeout(limit, ended(cx, client, &id, None)).await {
            Ok(ended) => ended?,
            Err(_) => {
                let flags = &cx.flags;
                let message = format!(
                    "{id} has not ended after {} s: wait again, or take it back with `axon{flags} cancel {id}`",
                    limit.as_secs_f64()
                );
                return Err(CliError::new("timeout", message, EXIT_TIMEOUT));
            }
        },
    };
    print(cx, &ended, false)
}

/// The delegation with this id, once nothing more is to come. Outlives a restart of the daemon.
///
/// `told` is the state that its reader has been told already.
pub async fn ended(
    cx: &Context,
    mut client: Client,
    id: &str,
    mut told: Option<String>,
) -> Result<Delegation, CliError> {
    loop {
        match follow(cx, &client, id, &mut told).await {
            Err(error) if error.ends_connection() => client = reconnected(cx, &client).await?,
            ended => return ended.map_err(|error| cx.failure(error)),
        }
    }
}

async fn follow(
    cx: &Context,
    client: &Client,
    id: &str,
    told: &mut Option<String>,
) -> Result<Delegation, ClientError> {
    let filter = DelegationFilter { id: Some(id.to_owned()), watch: true, ..DelegationFilter::default() };
    loop {
        let found = client.delegations(&filter).await?.delegations.into_iter().next();
        let mut row = found.ok_or_else(|| ClientError::Ipc {
            code: IpcCode::NotFound.as_str().to_owned(),
            message: format!("there is no delegation {id}: `axon delegations` lists those that there are"),
        })?;
        loop {
            if row.state.is_ended() {
                return Ok(row);
            }
            tell(cx, &row, told);
            row = match next(client, id).await? {
                Some(row) => row,
                // Changes were lost on the way: ask how it stands.
                None => break,
            };
        }
    }
}

/// The delegation's next change; none when changes were lost.
async fn next(client: &Client, id: &str) -> Result<Option<Delegation>, ClientError> {
    loop {
        match client.next_event().await? {
            Event::Delegation(row) if row.id == id => return Ok(Some(*row)),
            Event::Missed | Event::SlowConsumer { .. } => return Ok(None),
            _ => {}
        }
    }
}

/// Tells a person on stderr how far it is, each thing once.
fn tell(cx: &Context, row: &Delegation, told: &mut Option<String>) {
    let mut text = row.state.as_str().to_owned();
    if let Some(progress) = show::progress(row) {
        text.push_str(", ");
        text.push_str(&progress);
    }
    if told.as_ref() == Some(&text) {
        return;
    }
    if !cx.out.json {
        cx.out.note(|| text.clone());
    }
    *told = Some(text);
}

/// A connection; a daemon that goes away while it is made is waited for.
async fn connected(cx: &Context) -> Result<Client, CliError> {
    let end = Instant::now() + DAEMON_BACK;
    loop {
        match cx.connect(link::CONSUMER).await {
            Err(error) if error.code == "closed" && Instant::now() < end => {
                tokio::time::sleep(BACKOFF.0).await;
            }
            made => return made,
        }
    }
}

async fn reconnected(cx: &Context, client: &Client) -> Result<Client, CliError> {
    cx.out.note(|| "the daemon is away; waiting for it to come back".to_owned());
    let end = Instant::now() + DAEMON_BACK;
    let (mut pause, longest) = BACKOFF;
    loop {
        match client.reconnect().await {
            Ok(client) => return Ok(client),
            // All client places may be taken for a moment by those who also come back.
            Err(error)
                if (error.ends_connection() || error.code() == IpcCode::TooManyClients.as_str())
                    && Instant::now() < end => {}
            Err(error) => return Err(cx.failure(error)),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// The whole id of the delegation that is named by its beginning.
pub async fn whole(cx: &Context, client: &Client, text: String) -> Result<String, CliError> {
    if link::is_whole_id(&text) {
        return Ok(text);
    }
    let mut pages = Vec::new();
    // One's own first: they are what is waited for most.
    for direction in [Direction::Out, Direction::In] {
        let filter = DelegationFilter {
            direction: Some(direction),
            limit: Some(INBOX_LIMIT_MAX),
            ..DelegationFilter::default()
        };
        pages.push(client.delegations(&filter).await.map_err(|error| cx.failure(error))?);
    }
    let more = pages.iter().any(|page: &Delegations| page.has_more);
    let ids = pages.iter().flat_map(|page| &page.delegations).map(|row| row.id.as_str());
    link::pick(&text, "delegation", ids, more)
}

/// Prints what came of a delegation. `late`: past its own deadline, what failed is a timeout.
pub fn print(cx: &Context, row: &Delegation, late: bool) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
        id: &'a str,
        from: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<&'a RawValue>,
    }
    let done = matches!(row.state, DelegationState::Completed | DelegationState::Partial);
    let (error, exit) = match (done, late) {
        (true, _) => (None, EXIT_DONE),
        (false, true) => (Some("timeout"), EXIT_TIMEOUT),
        (false, false) => (Some(row.state.as_str()), EXIT_FAILED),
    };
    let message = error.map(|_| why(row));
    let line = Line {
        ok: done,
        error,
        message: message.as_deref(),
        id: &row.id,
        from: &row.peer,
        kind: row.result.as_ref().map(|_| "result"),
        payload: row.result.as_deref(),
    };
    if let (false, None, Some(code), Some(message)) = (cx.out.json, &row.result, error, &message) {
        return Err(CliError::new(code.to_owned(), printable(message).into_owned(), exit));
    }
    cx.out.result(&line, || match &row.result {
        Some(result) => show::said(&cx.out, "result", result),
        None => row.state.to_string(),
    })?;
    Ok(exit)
}

/// Why it was not done: what the result says, else the daemon, else what its state means.
fn why(row: &Delegation) -> String {
    let result = row.result.as_ref().and_then(|result| serde_json::from_str(result.get()).ok());
    let outcome = result.as_ref().and_then(|result: &Map<String, Value>| result.get("outcome")?.as_str());
    let sentence = match row.state {
        DelegationState::Refused => "the peer declined it and gave no reason",
        DelegationState::Cancelled => "it was taken back",
        DelegationState::Expired => "its time ran out; a result that still comes goes to the inbox",
        _ => "it failed, and nobody said why",
    };
    outcome.or(row.reason.as_deref()).unwrap_or(sentence).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str, more: &str) -> Delegation {
        let line = format!(r#"{{"id":"d","peer":"p","direction":"out","state":"{state}"{more}}}"#);
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn why_is_told_by_who_knows_best() {
        let result = r#","result":{"status":"failed","outcome":"It broke."},"reason":"lost""#;
        assert_eq!(why(&row("failed", result)), "It broke.");
        assert_eq!(why(&row("refused", r#","reason":"no time""#)), "no time");
        assert!(why(&row("expired", "")).contains("inbox"));
        assert!(why(&row("failed", r#","result":{"outcome":7}"#)).contains("nobody"));
    }
}
