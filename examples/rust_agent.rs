//! An agent in Rust over `axon-client`: it turns text around, and says how far it is with longer work.
//!
//! ```sh
//! cargo run --example rust_agent [SOCKET]
//! ```
//!
//! SOCKET is `$AXON_ROOT/axon.sock`, or `~/.axon/axon.sock`, when it is not given.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::time::Duration;

use axon_client::{Agent, Answer, Client, ClientError, Hello, Request};
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ClientError> {
    let agent = Agent::new(answer)
        .domains(["reverse"])
        .capacity(4)
        .capabilities(json!({"agent_name": "mirror", "domains": ["reverse"], "max_concurrent_tasks": 4}))
        .on_attached(|| println!("answering as mirror"));
    let client = Client::connect(socket(), Hello::consumer("mirror")).await?;
    // Ctrl-C ends it; a daemon that was restarted does not.
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    agent.serve_until(client, stop, |why| eprintln!("{why}; trying again")).await
}

/// One request, a query or a delegation. The answer becomes a response or a result.
async fn answer(request: Request) -> Answer {
    let text = request.subject();
    if request.message().kind == "query" {
        let turned: String = text.chars().rev().collect();
        return Answer::text(turned.as_str()).with_data(json!({"letters": text.chars().count()}));
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    for (done, word) in (1_u64..).zip(&words) {
        tokio::select! {
            // Dropping the future ends the work as well; this way there is time to tidy up.
            _ = request.ended() => return Answer::error("cancelled", "stopped, as asked"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        let percent = u8::try_from(100 * done / words.len() as u64).ok();
        // Who did not want to hear of it is none the worse off.
        drop(request.progress("running", percent, Some(word)).await);
    }
    Answer::text(words.into_iter().rev().collect::<Vec<_>>().join(" "))
}

fn socket() -> PathBuf {
    if let Some(socket) = std::env::args_os().nth(1) {
        return socket.into();
    }
    let root = std::env::var_os("AXON_ROOT").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    root.unwrap_or_else(|| home.join(".axon")).join("axon.sock")
}
