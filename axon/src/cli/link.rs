//! What the verbs share: the way to the daemon, its failures as ours, and arguments that several verbs take.

use std::io::Read as _;
use std::time::Duration;

use axon_client::{Client, ClientError, Hello, Message, Sent};
use axon_proto::limits::LINE_BYTES_MAX;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Context;
use super::output::{CliError, CliResult, EXIT_DONE};
use super::show;

/// The consumer whose cursor a person at the shell reads and moves.
pub const CONSUMER: &str = "default";
/// Exit code of what the peer refused.
const EXIT_REFUSED: u8 = 4;

impl Context {
    /// Connects to the daemon of this root.
    pub async fn connect(&self, consumer: &str) -> Result<Client, CliError> {
        let hello = Hello::consumer(consumer);
        let mut connected = Client::connect(self.root.socket(), hello).await;
        if let Err(ClientError::Io { why, .. }) = &mut connected {
            // The system's own word for an overlong path helps nobody.
            if let Err(better) = self.root.check_socket_path() {
                *why = better.to_string();
            }
        }
        connected.map_err(|error| self.failure(error))
    }

    /// A client's failure as the verb's.
    pub fn failure(&self, error: ClientError) -> CliError {
        let exit = error.exit_code();
        match error {
            ClientError::NoDaemon { .. } => {
                let flags = self.root.flags();
                let dir = self.root.dir().display();
                let message = format!("no daemon runs on {dir}: start one with `axon{flags} daemon`");
                CliError::local("no_daemon", message)
            }
            other => CliError::new(other.code().to_owned(), other.to_string(), exit),
        }
    }

    /// Prints what a peer answered, and gives the exit code that belongs to it.
    pub fn answered(&self, sent: Sent) -> CliResult {
        let id = sent.msg_id.clone();
        match sent.into_answer() {
            Ok(answer) => match answer.refusal() {
                Some(reason) => {
                    let from = answer.from.clone();
                    self.refused("refused", &format!("the peer declined: {reason}"), &from, &id, EXIT_REFUSED)
                }
                None => self.said(&id, &answer),
            },
            Err(error) => {
                let (exit, message) = (error.exit_code(), error.to_string());
                match error {
                    ClientError::Peer { code, from, .. } => self.refused(&code, &message, &from, &id, exit),
                    other => Err(self.failure(other)),
                }
            }
        }
    }

    /// Prints a peer's word on the message with this id.
    pub fn said(&self, id: &str, message: &Message) -> CliResult {
        #[derive(Serialize)]
        struct Line<'a> {
            ok: bool,
            id: &'a str,
            from: &'a str,
            kind: &'a str,
            payload: &'a RawValue,
        }
        let line = Line { ok: true, id, from: &message.from, kind: &message.kind, payload: &message.payload };
        self.out.result(&line, || show::answer(&self.out, id, message))?;
        Ok(EXIT_DONE)
    }

    /// Prints that a peer refused.
    pub fn refused(&self, code: &str, message: &str, from: &str, id: &str, exit: u8) -> CliResult {
        #[derive(Serialize)]
        struct Line<'a> {
            ok: bool,
            error: &'a str,
            message: &'a str,
            from: &'a str,
            id: &'a str,
        }
        if self.out.json {
            self.out.json(&Line { ok: false, error: code, message, from, id })?;
            return Ok(exit);
        }
        let message = format!("{} answered {code}: {message}", show::short(from));
        Err(CliError::new(code.to_owned(), super::output::printable(&message).into_owned(), exit))
    }
}

/// A positive number of seconds, such as `2.5`.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "give a number of seconds above 0, such as 2.5".to_owned();
    let secs: f64 = text.parse().map_err(|_| wrong())?;
    let duration = Duration::try_from_secs_f64(secs).map_err(|_| wrong())?;
    if duration < Duration::from_millis(1) { Err(wrong()) } else { Ok(duration) }
}

/// Whole milliseconds, as the protocol counts.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A JSON object, as payloads are.
pub fn object(text: &str) -> Result<Box<RawValue>, String> {
    let value = json(text)?;
    if value.get().starts_with('{') { Ok(value) } else { Err("this is no JSON object".to_owned()) }
}

/// Any JSON.
pub fn json(text: &str) -> Result<Box<RawValue>, String> {
    // Trimmed, because the text goes on as it is, on one line; and checked for depth by a real parser.
    let text = text.trim();
    let raw: Box<RawValue> =
        serde_json::from_str(text).map_err(|error| format!("this is no JSON: {error}"))?;
    if !raw.get().contains(['\n', '\r']) {
        return Ok(raw);
    }
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("this is no JSON: {error}"))?;
    serde_json::value::to_raw_value(&value).map_err(|error| error.to_string())
}

/// The text given, or stdin for `-`, without the newline at its end.
pub fn text_or_stdin(text: String) -> Result<String, CliError> {
    if text != "-" {
        return Ok(text);
    }
    let mut bytes = Vec::new();
    // One byte more than fits is enough to be told that it is too much.
    let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    std::io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::local("io", format!("cannot read stdin: {error}")))?;
    let mut text = String::from_utf8(bytes)
        .map_err(|_| CliError::usage("stdin is not UTF-8 text, and a message is: encode it first"))?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_positive_numbers() {
        assert_eq!(seconds("2.5"), Ok(Duration::from_millis(2500)));
        for bad in ["0", "-1", "x", "", "inf", "nan", "1e300", "0.0001"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn json_arguments_fit_on_one_line() {
        assert_eq!(object(" {\"a\": 1} ").unwrap().get(), "{\"a\": 1}");
        assert_eq!(object("{\n\"a\":\n1}").unwrap().get(), "{\"a\":1}");
        assert!(object("[1]").is_err());
        assert!(json("{").is_err());
        assert_eq!(json("[1]").unwrap().get(), "[1]");
    }
}
