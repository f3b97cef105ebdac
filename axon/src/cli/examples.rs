//! `axon examples`: what was said on the socket, line by line, for who writes a client of his own.

use super::output::{CliResult, Out};

/// Show what was said on the socket in a recorded conversation, with a word on each part.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon examples | less")]
pub struct Args {}

pub(super) fn run(out: &Out, _: &Args) -> CliResult {
    out.raw(TEXT)?;
    Ok(super::output::EXIT_DONE)
}

/// Recorded by `tests/exchanges.rs`, which also says how to record it again. `>` is what a client writes, `<`
/// what the daemon writes; each is one line of JSON on <root>/axon.sock.
const TEXT: &str = include_str!("examples.txt");

#[cfg(test)]
mod tests {
    use axon_client::{Hello, Message, Subscription};
    use axon_proto::error::IpcCode;
    use axon_proto::id::MsgId;
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_line_is_a_comment_or_json_of_the_real_shape() {
        let mut asked: Vec<String> = Vec::new();
        for line in TEXT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let json: Value =
                serde_json::from_str(&line[2..]).unwrap_or_else(|error| panic!("{line}: {error}"));
            let req_id = json["req_id"].as_str().map(str::to_owned);
            match &line[..2] {
                "> " => {
                    assert!(json["cmd"].is_string(), "{line}");
                    asked.push(req_id.unwrap());
                }
                "< " if json["event"].is_string() => {}
                "< " => {
                    assert!(req_id.is_some_and(|req_id| asked.contains(&req_id)), "{line}");
                    if json["ok"] == false {
                        assert!(IpcCode::parse(json["error"].as_str().unwrap()).is_some(), "{line}");
                    }
                }
                other => panic!("{other}"),
            }
            for envelope in [&json["response"], &json["envelope"], &json["messages"][0]["envelope"]] {
                if envelope.is_object() {
                    let message: Message = serde_json::from_value(envelope.clone()).unwrap();
                    assert!(message.from.parse::<axon_proto::id::AgentId>().is_ok(), "{line}");
                }
            }
            for id in [&json["msg_id"], &json["ref"], &json["response"]["id"], &json["envelope"]["id"]] {
                assert!(id.as_str().is_none_or(|id| id.parse::<MsgId>().is_ok()), "{id}");
            }
        }
        assert!(asked.len() > 15, "{asked:?}");
        // The first two lines of a client are those that the client library writes.
        assert!(TEXT.contains(&format!(r#""consumer":"{}""#, Hello::default().consumer)));
        let answers = Subscription {
            answer: ["query", "delegate", "cancel"].map(str::to_owned).to_vec(),
            domains: vec!["family".to_owned()],
            capacity: Some(4),
            ..Subscription::default()
        };
        assert!(TEXT.contains(serde_json::to_string(&answers).unwrap().trim_start_matches('{')));
    }
}
