//! `axon rekey`: a new identity for this agent.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use axon_client::{Client, ClientError, Rekeyed};
use serde::Serialize;

use super::output::{CliError, CliResult, EXIT_DONE, Paint};
use super::{Context, link};

/// How long the daemon may take to be back with its new identity.
const BACK: Duration = Duration::from_secs(30);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Give this agent a new key, and tell the peers that it is paired with.
///
/// The agent id changes with the key. Known peers are told over connections of the old key, by a statement
/// that both keys sign; each takes the new one on when its owner approves it (`axon knocks` there), or at
/// once where its config allows that (knock.accept_rekey). The old key is kept for 30 days, for peers that
/// are away. Links with the old key lead nowhere from then on. The daemon starts itself again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon rekey --yes")]
pub struct Args {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        #[serde(flatten)]
        rekeyed: &'a Rekeyed,
    }
    let client = cx.connect(link::CONSUMER).await?;
    if !args.yes {
        ask(cx)?;
    }
    let rekeyed = client.rekey().await.map_err(|error| cx.failure(error))?;
    drop(client);
    if !is_back(cx, &rekeyed.agent_id).await? {
        let message = format!(
            "the new identity {} is made, and the daemon is not back with it after {} s: see its log, and \
             start it with `axon{} daemon`",
            rekeyed.agent_id,
            BACK.as_secs(),
            cx.flags
        );
        return Err(CliError::local("no_daemon", message));
    }
    cx.out.result(&Line { ok: true, rekeyed: &rekeyed }, || {
        format!(
            "{}\nwas {}; known peers are told, and their owners may have to approve it",
            cx.out.paint(Paint::Bold, &rekeyed.agent_id),
            rekeyed.old_agent_id
        )
    })?;
    Ok(EXIT_DONE)
}

/// Nobody gives an agent a new identity by a slip of the hand, or of a script.
fn ask(cx: &Context) -> Result<(), CliError> {
    let stdin = std::io::stdin();
    if cx.out.json || !stdin.is_terminal() {
        let text =
            "this gives the agent a new id, and every peer must take its new key on: say --yes to do it";
        return Err(CliError::usage(text));
    }
    let question = "A new key and agent id; every peer must take it on. Go on? [y/N] ";
    let mut answer = String::new();
    let mut stderr = std::io::stderr().lock();
    let asked = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
    let told = asked.and_then(|()| stdin.lock().read_line(&mut answer).map(drop));
    let yes = told.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if yes { Ok(()) } else { Err(CliError::local("cancelled", "nothing was changed")) }
}

/// Waits until the daemon answers with this identity.
async fn is_back(cx: &Context, agent_id: &str) -> Result<bool, CliError> {
    let end = Instant::now() + BACK;
    loop {
        match cx.reach(link::CONSUMER).await {
            Ok(client) if is(&client, agent_id) => return Ok(true),
            // It has not stopped yet, or not started yet.
            Ok(_) | Err(ClientError::NoDaemon { .. } | ClientError::Closed | ClientError::Ipc { .. }) => {}
            Err(error) => return Err(cx.failure(error)),
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn is(client: &Client, agent_id: &str) -> bool {
    client.welcome().agent_id == agent_id
}
