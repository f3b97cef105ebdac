//! What `axon top` knows, and what it makes of it: rates, the order of rows, lines of the log. Everything
//! that a peer wrote becomes one printable line here, before anything is drawn.

use std::collections::{HashMap, VecDeque};

use axon_client::{Delegation, Direction, Event, Knock, Message, Peer, Sender, Status};
use serde_json::value::RawValue;

use super::super::output::{Out, printable};
use super::super::{peers, show};

/// Lines of the log that are kept.
pub const LOG_LINES_MAX: usize = 500;
/// Seconds that the curve of traffic shows.
pub const CURVE_SECS: usize = 60;
/// Longest line of the log, in characters.
const LINE_CHARS_MAX: usize = 400;
/// Text without colours: they are the view's.
const PLAIN: Out = Out { json: false, quiet: true, verbose: 0, color: false };

/// How well a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As it should be.
    Good,
    /// Under way, or worth a look.
    Warn,
    /// Not well.
    Bad,
    /// Nothing to say of it.
    Plain,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// Where it is from: `audit`, `inbox`, `work`, `knock`, `top`.
    pub from: &'static str,
    /// What happened, in one printable line.
    pub text: String,
}

/// What has come.
#[derive(Debug)]
pub enum Update {
    /// The daemon is there: who it is.
    Up(String),
    /// It is not: why, and what to do.
    Away(String),
    /// What it counts, at this time on the monotonic clock.
    Status(Box<Status>, u64),
    /// Whom it knows.
    Peers(Vec<Peer>),
    /// The newest delegations; none where this socket may not see them.
    Delegations(Option<Vec<Delegation>>),
    /// A line of the log.
    Log(LogLine),
}

/// Messages a second, of the last minute.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    last: Option<(u64, u64, u64)>,
    /// Sent and received a second, just now.
    pub now: Option<(f64, f64)>,
    /// Messages of both directions, a second each, the newest last.
    pub curve: VecDeque<u64>,
}

impl Rates {
    /// The counts at a time, in milliseconds of the monotonic clock.
    #[expect(clippy::cast_precision_loss, reason = "counts of one second")]
    fn add(&mut self, at_ms: u64, sent: u64, received: u64) {
        let last = self.last.replace((at_ms, sent, received));
        let Some((then_ms, sent_then, received_then)) = last else { return };
        let passed_ms = at_ms.saturating_sub(then_ms);
        // A daemon that began anew counts from 0.
        if passed_ms == 0 || sent < sent_then || received < received_then {
            return self.now = None;
        }
        let secs = passed_ms as f64 / 1_000.0;
        let [sent, received] = [sent - sent_then, received - received_then];
        self.now = Some((sent as f64 / secs, received as f64 / secs));
        if self.curve.len() >= CURVE_SECS {
            self.curve.pop_front();
        }
        self.curve.push_back((sent + received) * 1_000 / passed_ms);
    }
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Who the daemon is; empty before it was first there.
    pub who: String,
    /// Why it is not there.
    pub away: Option<String>,
    /// What it counts.
    pub status: Option<Status>,
    /// Traffic.
    pub rates: Rates,
    /// Whom it knows, those who are connected first.
    pub peers: Vec<Peer>,
    /// The newest delegations; none where this socket may not see them.
    pub delegations: Option<Vec<Delegation>>,
    /// The log, oldest line first.
    pub log: VecDeque<LogLine>,
    /// What is known since which moment, in Unix milliseconds.
    pub now_ms: u64,
}

impl Model {
    /// Takes something in.
    pub fn take(&mut self, update: Update) {
        match update {
            Update::Up(who) => (self.who, self.away) = (who, None),
            Update::Away(why) => {
                self.rates = Rates::default();
                self.away = Some(why);
            }
            Update::Status(status, at_ms) => {
                self.rates.add(at_ms, status.messages_sent, status.messages_received);
                self.status = Some(*status);
            }
            Update::Peers(mut peers) => {
                peers.sort_by_cached_key(|peer| {
                    let place = match peer.status.as_str() {
                        "connected" => 0,
                        "connecting" => 1,
                        _ => 2,
                    };
                    (place, peer.name.clone().unwrap_or_default(), peer.id.clone())
                });
                self.peers = peers;
            }
            Update::Delegations(rows) => self.delegations = rows,
            Update::Log(line) => {
                if self.log.len() >= LOG_LINES_MAX {
                    self.log.pop_front();
                }
                self.log.push_back(line);
            }
        }
    }
}

/// One printable line, however a peer wrote it.
pub fn line(text: &str) -> String {
    let text = printable(text);
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(LINE_CHARS_MAX) {
        line.truncate(at);
        line.push('…');
    }
    line
}

/// The cells of a peer's row.
pub fn peer_cells(peer: &Peer, now_ms: u64) -> ([String; 6], Mood) {
    let mood = match peer.status.as_str() {
        "connected" => Mood::Good,
        "connecting" => Mood::Warn,
        _ => Mood::Bad,
    };
    let name = peers::called(peer);
    let name = if name.is_empty() { show::short(&peer.id).to_owned() } else { name };
    let trust = peer.trust.as_ref().map(|trust| trust.as_str()).unwrap_or_default();
    let mut facts = peers::path(peer, now_ms);
    // It has a column of its own.
    facts.retain(|fact| !fact.ends_with(" ms"));
    let waiting = peers::waiting(peer).join(", ");
    let path = match &peer.error {
        Some(why) if mood != Mood::Good => why.clone(),
        _ => [vec![peer.addr.clone().unwrap_or_else(|| "-".into())], facts].concat().join(", "),
    };
    let rtt = peer.rtt_ms.filter(|_| mood == Mood::Good).map(|ms| format!("{ms:.1} ms")).unwrap_or_default();
    ([name, trust.into(), peer.status.clone(), rtt, waiting, path].map(|cell| line(&cell)), mood)
}

/// The cells of a delegation's row.
pub fn work_cells(row: &Delegation, peers: &[Peer], now_ms: u64) -> ([String; 5], Mood) {
    let mood = match row.state.as_str() {
        "completed" => Mood::Good,
        "failed" | "cancelled" | "refused" | "expired" => Mood::Bad,
        _ => Mood::Warn,
    };
    let way = if row.direction == Direction::In { "from" } else { "to" };
    let what = [row.task.clone(), show::progress(row)].into_iter().flatten().collect::<Vec<_>>().join(" · ");
    let cells = [
        show::short_id(&row.id).to_owned(),
        row.state.as_str().to_owned(),
        format!("{way} {}", who(&row.peer, peers)),
        show::between(row.since_ms, now_ms),
        what,
    ];
    (cells.map(|cell| line(&cell)), mood)
}

/// What a peer is called, by its id.
fn who(id: &str, peers: &[Peer]) -> String {
    let named = peers.iter().find(|peer| peer.id == id).map(peers::called);
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| show::short(id).to_owned())
}

/// An event as a line of the log; none for one that says nothing to a person.
pub fn told(event: &Event, names: &HashMap<String, String>, now_ms: u64) -> Option<LogLine> {
    let (from, text) = match event {
        Event::Inbound(inbound) => ("inbox", message(&inbound.envelope, &inbound.sender)),
        Event::Delegation(row) => ("work", work(row, names)),
        Event::Knock(knock) => ("knock", knocked(knock)),
        Event::SlowConsumer { .. } => ("top", "messages came too fast: some are not shown here".to_owned()),
        Event::Missed => ("top", "changes came too fast: some are not shown here".to_owned()),
        _ => return None,
    };
    Some(LogLine { at_ms: now_ms, from, text: line(&text) })
}

fn message(message: &Message, from: &Sender) -> String {
    let said = said(&message.kind, &message.payload);
    format!("{} from {}: {said}", message.kind, show::sender(&PLAIN, &message.from, from))
}

fn said(kind: &str, payload: &RawValue) -> String {
    show::said(&PLAIN, kind, payload)
}

fn work(row: &Delegation, names: &HashMap<String, String>) -> String {
    let way = if row.direction == Direction::In { "from" } else { "to" };
    let id = show::short_id(&row.id);
    let mut text = format!("{id} {way} {} is {}", show::who(names, &row.peer), row.state.as_str());
    let result = row.result.as_ref().map(|result| said("result", result));
    if let Some(more) = show::progress(row).or(result).or_else(|| row.reason.clone()) {
        text.push_str(": ");
        text.push_str(&more);
    }
    text
}

fn knocked(knock: &Knock) -> String {
    let name = knock.name.as_deref().map(|name| format!(" {name}?")).unwrap_or_default();
    format!("{}{name} wants in: `axon knocks`", knock.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(sent: u64, received: u64) -> Box<Status> {
        let text = format!(r#"{{"messages_sent":{sent},"messages_received":{received}}}"#);
        Box::new(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn rates_are_those_of_the_time_between_two_looks() {
        let mut model = Model::default();
        model.take(Update::Status(status(10, 10), 5_000));
        assert_eq!(model.rates.now, None);
        model.take(Update::Status(status(15, 11), 7_000));
        assert_eq!((model.rates.now, model.rates.curve.back()), (Some((2.5, 0.5)), Some(&3)));
        // It was started anew, and then away.
        model.take(Update::Status(status(1, 1), 8_000));
        assert_eq!(model.rates.now, None);
        for at in 0..2 * CURVE_SECS as u64 {
            model.take(Update::Status(status(at, at), 10_000 + at * 1_000));
        }
        assert_eq!(model.rates.curve.len(), CURVE_SECS);
        model.take(Update::Away("gone".into()));
        assert!(model.rates.curve.is_empty() && model.away.as_deref() == Some("gone"));
        model.take(Update::Up("alice".into()));
        assert_eq!((model.away, model.who.as_str()), (None, "alice"));
    }

    #[test]
    fn the_log_has_a_bound_and_its_lines_are_printable() {
        let mut model = Model::default();
        for n in 0..=LOG_LINES_MAX as u64 {
            model.take(Update::Log(LogLine { at_ms: n, from: "top", text: String::new() }));
        }
        assert_eq!((model.log.len(), model.log[0].at_ms), (LOG_LINES_MAX, 1));
        assert_eq!(line("a\x1b[2Jb\n\tc\u{202e}"), "a\u{fffd}[2Jb c\u{fffd}");
        assert_eq!(line(&"é".repeat(1_000)).chars().count(), LINE_CHARS_MAX + 1);
    }

    #[test]
    fn cells_say_what_is_known_and_hide_what_could_harm() {
        let peer = |more: &str| {
            let text = format!(r#"{{"id":"ed25519.0011223344","source":"mdns"{more}}}"#);
            serde_json::from_str::<Peer>(&text).unwrap()
        };
        let up = peer(
            r#","name":"b\u001bb","trust":"known","status":"connected","addr":"h:1","rtt_ms":0.5,"since_ms":0,"unread":2"#,
        );
        let (cells, mood) = peer_cells(&up, 60_000);
        let expected = ["b\u{fffd}b", "known", "connected", "0.5 ms", "2 unread", "h:1, direct, for 1 min"];
        assert_eq!((cells.each_ref().map(String::as_str), mood), (expected, Mood::Good));
        let down = peer(r#","status":"disconnected","rtt_ms":3.0,"error":"no\nway","held":1"#);
        let (cells, mood) = peer_cells(&down, 60_000);
        let expected = ["00112233", "", "disconnected", "", "1 held", "no way"];
        assert_eq!((cells.each_ref().map(String::as_str), mood), (expected, Mood::Bad));

        let row = r#"{"id":"5f2c1e9a-6d0b","peer":"ed25519.0011223344","direction":"in","task":"Write\nit",
            "state":"running","since_ms":0,"progress":{"percent":50}}"#;
        let row: Delegation = serde_json::from_str(row).unwrap();
        let (cells, mood) = work_cells(&row, &[up], 60_000);
        let expected = ["5f2c1e9a", "running", "from b\u{fffd}b", "1 min", "Write it · 50%"];
        assert_eq!((cells.each_ref().map(String::as_str), mood), (expected, Mood::Warn));
        let names = HashMap::from([("ed25519.0011223344".to_owned(), "bob".to_owned())]);
        let told = told(&Event::Delegation(Box::new(row)), &names, 7).unwrap();
        assert_eq!((told.from, told.text.as_str()), ("work", "5f2c1e9a from bob is running: 50%"));
    }

    #[test]
    fn those_who_are_connected_come_first() {
        let peer = |name: &str, status: &str| {
            let text = format!(r#"{{"id":"{name}","name":"{name}","status":"{status}","source":"mdns"}}"#);
            serde_json::from_str::<Peer>(&text).unwrap()
        };
        let mut model = Model::default();
        let all = [("a", "disconnected"), ("c", "connected"), ("b", "connected"), ("d", "connecting")];
        model.take(Update::Peers(all.map(|(name, status)| peer(name, status)).to_vec()));
        let names: Vec<&str> = model.peers.iter().map(|peer| peer.id.as_str()).collect();
        assert_eq!(names, ["b", "c", "d", "a"]);
    }
}
