//! What the verbs share: the way to the daemon, its failures as ours, and arguments that several verbs take.

use std::collections::HashMap;
use std::io::Read as _;
use std::time::Duration;

use axon_client::{Client, ClientError, Hello, Message, Sent, Status};
use axon_proto::error::IpcCode;
use axon_proto::id::MsgId;
use axon_proto::limits::{CONSUMER_BYTES_MAX, LINE_BYTES_MAX};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Context;
use super::output::{CliError, CliResult, EXIT_DONE, Paint, printable};
use super::show;

/// The consumer whose cursor a person at the shell reads and moves.
pub const CONSUMER: &str = "default";
/// Longest time that any daemon holds a message for.
const HOLD_SECS_MAX: u64 = 2_592_000;
/// Exit code of what the peer refused.
const EXIT_REFUSED: u8 = 4;

impl Context {
    /// Connects to the daemon.
    pub async fn connect(&self, consumer: &str) -> Result<Client, CliError> {
        self.reach(consumer).await.map_err(|error| self.failure(error))
    }

    /// The same, for who knows what to do where it cannot be reached.
    pub async fn reach(&self, consumer: &str) -> Result<Client, ClientError> {
        let hello = Hello::consumer(consumer);
        let own = self.root.socket();
        let mut connected = Client::connect(self.socket.as_ref().unwrap_or(&own), hello).await;
        if let (Err(ClientError::Io { why, .. }), None) = (&mut connected, &self.socket) {
            // The system's own word for an overlong path helps nobody.
            if let Err(better) = self.root.check_socket_path() {
                *why = better.to_string();
            }
        }
        connected
    }

    /// A client's failure as the verb's.
    pub fn failure(&self, error: ClientError) -> CliError {
        let exit = error.exit_code();
        match error {
            ClientError::NoDaemon { path } if self.socket.is_some() => {
                let message = format!(
                    "nobody listens on {}: its daemon is down, or the socket was removed (its owner sees \
                     `axon socket list`)",
                    path.display()
                );
                CliError::local("no_daemon", message)
            }
            ClientError::NoDaemon { .. } => {
                let flags = &self.flags;
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

    /// Prints that a message waits for its peer.
    pub fn held(&self, sent: &Sent, peer: &str, hold: Duration) -> CliResult {
        #[derive(Serialize)]
        struct Line<'a> {
            ok: bool,
            id: &'a str,
            state: &'a str,
        }
        let (id, state) = (sent.msg_id.as_str(), "held");
        self.out.result(&Line { ok: true, id, state }, || {
            let held = self.out.paint(Paint::Warn, state);
            let id = self.out.paint(Paint::Dim, show::short_id(id));
            let peer = printable(peer);
            let span = show::span(hold.as_secs());
            format!("{held} for {span} at most, until {peer} can be reached {id}")
        })?;
        Ok(EXIT_DONE)
    }

    /// Names of peers by their ids, for a person; a name that is only claimed has a question mark.
    pub async fn names(&self, client: &Client) -> Result<HashMap<String, String>, CliError> {
        if self.out.json {
            return Ok(HashMap::new());
        }
        let peers = client.peers().await.map_err(|error| self.failure(error))?;
        let named = |peer: axon_client::Peer| {
            let name = printable(&peer.name?).into_owned();
            Some((peer.id, if peer.claimed { format!("{name}?") } else { name }))
        };
        Ok(peers.into_iter().filter_map(named).collect())
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
        Err(CliError::new(code.to_owned(), printable(&message).into_owned(), exit))
    }
}

/// Whether a status says all that there is. A scoped socket is told only how long the daemon runs, how many
/// of its peers are connected, and whether inbound work is paused; the owner's socket counts also who asks.
pub fn tells_all(status: &Status) -> bool {
    status.clients > 0
}

/// What a verb calls a consumer that it has for itself, or a name made of that where it is too long.
pub fn consumer(verb: &str, of: &str) -> String {
    let name = format!("{verb}:{of}");
    if name.len() <= CONSUMER_BYTES_MAX {
        return name;
    }
    // FNV-1a: the name must be the same each time and need not resist anybody.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{verb}:{hash:016x}")
}

/// A time above 0: seconds, such as `2.5`, or with a unit, such as `90s`, `15m`, `1h` or `2d`.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let wrong =
        || "give a time above 0: seconds, such as 2.5, or with a unit, such as 90s, 15m, 1h".to_owned();
    let units = [('s', 1.0), ('m', 60.0), ('h', 3_600.0), ('d', 86_400.0)];
    let unit = units.iter().find_map(|(unit, secs)| text.strip_suffix(*unit).map(|number| (number, *secs)));
    let (number, unit_secs) = unit.unwrap_or((text, 1.0));
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let duration = Duration::try_from_secs_f64(number * unit_secs).map_err(|_| wrong())?;
    if duration < Duration::from_millis(1) { Err(wrong()) } else { Ok(duration) }
}

/// How long a message may be held. The daemon's own limit may be lower.
pub fn hold(text: &str) -> Result<Duration, String> {
    let wrong = || "give a time of 1s to 30d, such as 90s, 15m, 1h or 2d".to_owned();
    let time = seconds(text).map_err(|_| wrong())?;
    let longest = Duration::from_secs(HOLD_SECS_MAX);
    if (Duration::from_secs(1)..=longest).contains(&time) { Ok(time) } else { Err(wrong()) }
}

/// The one of these ids that begins with the text; whether there are more ids than these is for the message.
pub fn pick<'a>(
    text: &str,
    what: &str,
    ids: impl IntoIterator<Item = &'a str>,
    more: bool,
) -> Result<String, CliError> {
    let mut fitting: Vec<&str> = ids.into_iter().filter(|id| id.starts_with(text)).collect();
    fitting.sort_unstable();
    fitting.dedup();
    match fitting.as_slice() {
        [id] => Ok((*id).to_owned()),
        [] => {
            let more = if more { " among the newest: give the whole id" } else { "" };
            Err(CliError::ipc(IpcCode::NotFound, format!("no {what} here begins with {text}{more}")))
        }
        several => {
            let some = several.iter().take(4).copied().collect::<Vec<_>>().join(", ");
            Err(CliError::usage(format!("{text} could be any of {some}: give more of it")))
        }
    }
}

/// A message's id, whole or its first digits, 4 at least; in small letters.
pub fn id_or_prefix(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.bytes().filter(u8::is_ascii_hexdigit).count();
    let shaped = lower.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') && lower.len() <= 36;
    if shaped && digits >= 4 {
        return Ok(lower);
    }
    Err("give the id as it was printed, or its first digits, 4 at least".to_owned())
}

/// Whether this is all of an id.
pub fn is_whole_id(text: &str) -> bool {
    text.parse::<MsgId>().is_ok()
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
        for (text, secs) in [
            ("2.5", 2.5),
            ("90s", 90.0),
            ("15m", 900.0),
            ("1h", 3_600.0),
            ("1.5h", 5_400.0),
            ("2d", 172_800.0),
        ] {
            assert_eq!(seconds(text), Ok(Duration::from_secs_f64(secs)), "{text}");
        }
        for bad in
            ["0", "-1", "x", "", "inf", "nan", "1e300", "0.0001", "h", "-1h", "1w", "1 h", "1hh", "infd"]
        {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_message_is_held_for_a_second_to_thirty_days() {
        assert_eq!(hold("30d"), Ok(Duration::from_secs(2_592_000)));
        assert_eq!(hold("1"), Ok(Duration::from_secs(1)));
        for bad in ["31d", "0.5", "0", "soon"] {
            assert!(hold(bad).unwrap_err().contains("15m"), "{bad}");
        }
    }

    #[test]
    fn an_id_is_found_by_its_beginning() {
        const IDS: [&str; 3] = ["12ab34cd-0000", "12ab34ce-0000", "ffff0000-0000"];
        let pick = |text: &str, more| pick(text, "delegation", IDS, more);
        assert_eq!(pick("ffff", false).unwrap(), IDS[2]);
        let several = pick("12ab", false).unwrap_err();
        assert!(several.exit == 2 && several.message.contains(IDS[1]), "{several}");
        let none = pick("0000", true).unwrap_err();
        assert_eq!((none.exit, none.code.as_ref()), (2, "not_found"));
        assert!(none.message.contains("whole id"), "{none}");
        assert_eq!(id_or_prefix("12AB").unwrap(), "12ab");
        for bad in ["12a", "wxyz", "", "----", "12ab 34", &"a".repeat(37)] {
            assert!(id_or_prefix(bad).is_err(), "{bad}");
        }
        assert!(is_whole_id("5f2c1e9a-6d0b-4f0e-9a53-0c3a8f1f2b7d") && !is_whole_id("5f2c1e9a"));
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
