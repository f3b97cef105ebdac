//! The loop that loads a daemon: lines that are ready but for their number, as many in flight as are wanted,
//! one write for all that can go and one look at the clock for all that came.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use axon_client::{ClientError, Raw};
use axon_proto::limits::REQUEST_TIMEOUT_MS;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use super::progress::Progress;
use super::pubsub::Deliveries;
use super::times::Times;
use super::{DOMAIN, Job, What};
use crate::cli::output::printable;

/// The progress is drawn, and silence noticed, this often.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// A daemon gives up a message before this; one that is silent for longer is stuck.
pub(super) const SILENCE: Duration = Duration::from_millis(REQUEST_TIMEOUT_MS + 10_000);
/// So many failures without a success between them, or failures alone for so long, and the run ends.
const FAILED_IN_A_ROW_MAX: u64 = 1_000;
const FAILING: Duration = SILENCE;
/// Codes that are counted apart; they may be the peer's own.
const CODES_MAX: usize = 32;
const CODE_BYTES_MAX: usize = 64;

/// What came of a run.
#[derive(Debug)]
pub struct Tally {
    /// Messages that got what they were sent for.
    pub done: u64,
    /// Those that did not, by code.
    pub faults: BTreeMap<String, Fault>,
    /// How long each took that was done.
    pub times: Times,
    /// From the first line written to the last read.
    pub took: Duration,
    /// What subscribers were given, where messages were published.
    pub deliveries: Option<Deliveries>,
}

/// Failures of one code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How many.
    pub count: u64,
    /// What the first said.
    pub message: String,
    /// The exit code of a verb that fails so.
    pub exit: u8,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Self {
        let (faults, times) = (BTreeMap::new(), Times::new());
        Self { done: 0, faults, times, took: Duration::ZERO, deliveries: None }
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.faults.values().map(|fault| fault.count).sum()
    }
}

/// The part of a reply that counts.
#[derive(Deserialize)]
struct Reply<'a> {
    ok: bool,
    #[serde(default)]
    req_id: Option<usize>,
    #[serde(borrow, default)]
    error: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    state: Cow<'a, str>,
    #[serde(borrow, default)]
    response: Option<Answer<'a>>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// A text of this size, as messages carry it. It is the same in JSON.
pub fn text(size: usize) -> String {
    "x".repeat(size)
}

/// Sends all of a job's messages to the peer and waits for what becomes of each.
pub async fn load(
    raw: &mut Raw,
    job: &Job,
    peer: &str,
    progress: &mut Progress,
) -> Result<Tally, ClientError> {
    let rest = rest_of_line(job, peer)?;
    let began = Instant::now();
    let mut tally = Tally::new();
    // When the message in each place was written; none where the place is free.
    let mut places: Vec<Option<Instant>> = vec![None; job.inflight];
    let mut free: Vec<usize> = (0..job.inflight).rev().collect();
    let (mut sent, mut ended, mut in_a_row) = (0, 0, 0);
    let mut tick = pin!(sleep(TICK));
    let (mut heard, mut went_well, mut drawn) = (began, began, began);
    loop {
        let now = Instant::now();
        let hopeless = in_a_row >= FAILED_IN_A_ROW_MAX || (in_a_row > 0 && now - went_well > FAILING);
        while sent < job.count && !hopeless {
            let Some(place) = free.pop() else { break };
            let mut digits = [0; 20];
            raw.queue(&[br#"{"cmd":"send","req_id":"#, number(place, &mut digits), rest.as_bytes()])?;
            places[place] = Some(now);
            sent += 1;
        }
        if ended == sent {
            tally.took = heard - began;
            return Ok(tally);
        }
        tokio::select! {
            biased;
            turned = raw.turn() => turned?,
            () = &mut tick => {
                let now = Instant::now();
                if now - heard > SILENCE {
                    return Err(ClientError::Stuck { secs: SILENCE.as_secs() });
                }
                progress.at(ended);
                drawn = now;
                tick.as_mut().reset(now + TICK);
                continue;
            }
        }
        heard = Instant::now();
        // Not by the tick alone: where there is always something to read, it never comes.
        if heard - drawn >= TICK {
            progress.at(ended);
            drawn = heard;
        }
        while let Some(line) = raw.next_line() {
            let reply: Reply<'_> =
                serde_json::from_slice(line).map_err(|error| ClientError::Protocol(error.to_string()))?;
            let place = reply.req_id.and_then(|place| Some((place, places.get_mut(place)?.take()?)));
            let Some((place, began)) = place else {
                return Err(unasked(&reply));
            };
            free.push(place);
            ended += 1;
            match fault(job.what, &reply) {
                None => {
                    tally.times.add(heard - began);
                    tally.done += 1;
                    (in_a_row, went_well) = (0, heard);
                }
                Some((code, fault)) => {
                    count(&mut tally.faults, code, fault);
                    in_a_row += 1;
                }
            }
        }
    }
}

/// A line from its number on.
fn rest_of_line(job: &Job, peer: &str) -> Result<String, ClientError> {
    let text = text(job.size);
    let (kind, payload) = match job.what {
        What::Ask => ("query", json!({"question": text, "domain": job.domain})),
        What::Notify | What::Kept | What::Pubsub => ("notify", json!({"topic": DOMAIN, "data": text})),
    };
    let fields = json!({"to": peer, "kind": kind, "payload": payload}).to_string();
    let fields = fields.strip_prefix('{').unwrap_or_default();
    Ok(format!(",{fields}"))
}

/// A number's digits.
pub(super) fn number(number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            return &digits[at..];
        }
    }
}

/// Why a message did not get what it was sent for.
fn fault(what: What, reply: &Reply<'_>) -> Option<(String, Fault)> {
    let told = |code: String, message: &str, exit: u8| {
        let message = axon_client::truncate(message, 4 * CODE_BYTES_MAX).0;
        Some((code, Fault { count: 1, message: printable(message).into_owned(), exit }))
    };
    if !reply.ok {
        let error = ClientError::Ipc { code: reply.error.to_string(), message: reply.message.to_string() };
        return told(reply.error.to_string(), &reply.message, error.exit_code());
    }
    match what {
        What::Ask => {
            let Some(answer) = &reply.response else {
                return told("protocol".to_owned(), "the reply has no answer", 1);
            };
            if answer.kind != "error" {
                return None;
            }
            let error = of_peer(answer.payload);
            told(format!("peer.{}", error.code()), &error.to_string(), error.exit_code())
        }
        What::Kept if reply.state != "delivered" => {
            told("no_receipt".to_owned(), "the peer gave no receipt", 4)
        }
        What::Notify | What::Kept | What::Pubsub => None,
    }
}

/// A peer's `error` as ours.
fn of_peer(payload: &RawValue) -> ClientError {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Refused {
        code: String,
        message: String,
        retryable: bool,
    }
    // One that cannot be read is an error all the same.
    let Refused { code, message, retryable } = serde_json::from_str(payload.get()).unwrap_or_default();
    let (from, id) = (String::new(), String::new());
    ClientError::Peer { code, message, retryable, from, id }
}

fn count(faults: &mut BTreeMap<String, Fault>, code: String, fault: Fault) {
    let code = axon_client::truncate(&code, CODE_BYTES_MAX).0;
    let code = printable(code);
    let known = faults.contains_key(code.as_ref()) || faults.len() < CODES_MAX;
    let code = if known { code.into_owned() } else { "other".to_owned() };
    faults.entry(code).and_modify(|known| known.count += 1).or_insert(fault);
}

/// A line that is the reply to nothing that was asked: the likely reason of the close that follows it.
fn unasked(reply: &Reply<'_>) -> ClientError {
    if reply.ok {
        return ClientError::Protocol("a reply to a command that was not given".to_owned());
    }
    ClientError::Ipc { code: reply.error.to_string(), message: reply.message.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_of(what: What, line: &str) -> Option<(String, u8)> {
        let reply: Reply<'_> = serde_json::from_str(line).unwrap();
        fault(what, &reply).map(|(code, fault)| (code, fault.exit))
    }

    #[test]
    fn only_what_was_wanted_is_a_success() {
        let answered = r#"{"ok":true,"req_id":3,"msg_id":"m","response":{"kind":"response","payload":{}}}"#;
        assert_eq!(fault_of(What::Ask, answered), None);
        let empty = r#"{"ok":true,"req_id":3,"msg_id":"m"}"#;
        assert_eq!(fault_of(What::Ask, empty), Some(("protocol".to_owned(), 1)));
        let refused = r#"{"ok":true,"req_id":3,"response":{"kind":"error","payload":{"code":"timeout"}}}"#;
        assert_eq!(fault_of(What::Ask, refused), Some(("peer.timeout".to_owned(), 3)));
        let odd = r#"{"ok":true,"req_id":3,"response":{"kind":"err\u006fr","payload":{"code":7}}}"#;
        assert_eq!(fault_of(What::Ask, odd), Some(("peer.".to_owned(), 4)));
        let failed = r#"{"ok":false,"req_id":3,"error":"peer_unreachable","message":"away"}"#;
        for what in [What::Ask, What::Notify, What::Kept] {
            assert_eq!(fault_of(what, failed), Some(("peer_unreachable".to_owned(), 5)));
        }
        let sent = r#"{"ok":true,"req_id":3,"msg_id":"m","state":"sent"}"#;
        assert_eq!(fault_of(What::Notify, sent), None);
        assert_eq!(fault_of(What::Kept, sent), Some(("no_receipt".to_owned(), 4)));
        assert_eq!(fault_of(What::Kept, &sent.replace("sent", "delivered")), None);
    }

    #[test]
    fn codes_of_a_peer_are_bounded() {
        let mut faults = BTreeMap::new();
        let one = Fault { count: 1, message: String::new(), exit: 4 };
        for number in 0..1_000 {
            count(&mut faults, format!("{number}{}", "y".repeat(200)), one.clone());
        }
        assert_eq!(faults.len(), CODES_MAX + 1);
        assert!(faults.keys().all(|code| code.len() <= CODE_BYTES_MAX));
        assert_eq!(faults.values().map(|fault| fault.count).sum::<u64>(), 1_000);
    }

    #[test]
    fn numbers_are_written_as_ever() {
        for value in [0, 7, 10, 255, usize::MAX] {
            assert_eq!(number(value, &mut [0; 20]), value.to_string().as_bytes());
        }
    }
}
