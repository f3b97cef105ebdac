//! The loop that publishes at one daemon and listens at the other: a message is done when the subscriber has
//! been shown it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::time::Duration;

use axon_client::{ClientError, Raw};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Job;
use super::progress::Progress;
use super::run::{Fault, SILENCE, TICK, Tally, number, text};
use super::times::Times;

/// The topic of all of it.
const TOPIC: &str = "axon.bench";
/// What is published before the run, until one of them is shown: then the other daemon has joined.
const FIRST: u64 = u64::MAX >> 11;
/// Between two of these.
const AGAIN: Duration = Duration::from_millis(50);

/// The part of a line that counts.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    ok: Option<bool>,
    #[serde(borrow, default)]
    error: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    message: std::borrow::Cow<'a, str>,
    #[serde(default)]
    envelope: Option<Envelope>,
}

#[derive(Deserialize)]
struct Envelope {
    payload: Payload,
}

#[derive(Deserialize)]
struct Payload {
    message: Numbered,
}

#[derive(Deserialize)]
struct Numbered {
    n: u64,
}

/// Publishes all of a job's messages and waits until the subscriber has each.
pub async fn load(
    publisher: &mut Raw,
    reader: &mut Raw,
    job: &Job,
    progress: &mut Progress,
) -> Result<Tally, ClientError> {
    let rest = json!({"x": text(job.size)}).to_string();
    let rest = rest.strip_prefix('{').unwrap_or_default().to_owned() + "}";
    meet(publisher, reader).await?;
    let began = Instant::now();
    let mut tally = Tally { done: 0, faults: BTreeMap::new(), times: Times::new(), took: Duration::ZERO };
    // When each that is under way was written, by its number.
    let mut under_way: VecDeque<(u64, Instant)> = VecDeque::new();
    let mut sent = 0;
    let (mut heard, mut drawn) = (began, began);
    let mut tick = pin!(sleep(TICK));
    loop {
        let now = Instant::now();
        while sent < job.count && under_way.len() < job.inflight {
            queue(publisher, sent, &rest)?;
            under_way.push_back((sent, now));
            sent += 1;
        }
        if under_way.is_empty() {
            tally.took = heard - began;
            return Ok(tally);
        }
        tokio::select! {
            biased;
            turned = reader.turn() => turned?,
            turned = publisher.turn() => turned?,
            () = &mut tick => {
                let now = Instant::now();
                if now - heard > SILENCE {
                    return Err(ClientError::Stuck { secs: SILENCE.as_secs() });
                }
                tick.as_mut().reset(now + TICK);
            }
        }
        let now = Instant::now();
        while let Some(line) = publisher.next_line() {
            if let Some((code, fault)) = refused(&read(line)?) {
                // Which it was is not looked up: the oldest makes room, and the run is no success.
                tally.faults.entry(code).and_modify(|known: &mut Fault| known.count += 1).or_insert(fault);
                under_way.pop_front();
                heard = now;
            }
        }
        while let Some(line) = reader.next_line() {
            let line = read(line)?;
            let Some(n) = line.envelope.map(|envelope| envelope.payload.message.n) else { continue };
            if let Ok(at) = under_way.binary_search_by_key(&n, |(number, _)| *number)
                && let Some((_, written)) = under_way.remove(at)
            {
                heard = now;
                tally.times.add(now - written);
                tally.done += 1;
            }
        }
        if now - drawn >= TICK {
            progress.at(tally.done);
            drawn = now;
        }
    }
}

/// Subscribes, and publishes until the subscriber is shown something.
async fn meet(publisher: &mut Raw, reader: &mut Raw) -> Result<(), ClientError> {
    let subscribe = json!({"cmd": "subscribe_topic", "req_id": 1, "topic": TOPIC}).to_string();
    reader.queue(&[subscribe.as_bytes()])?;
    let began = Instant::now();
    loop {
        queue(publisher, FIRST, "\"x\":\"\"}}")?;
        let mut again = pin!(sleep(AGAIN));
        loop {
            tokio::select! {
                turned = reader.turn() => turned?,
                turned = publisher.turn() => turned?,
                () = &mut again => break,
            }
            while let Some(line) = publisher.next_line() {
                if let Some((code, fault)) = refused(&read(line)?) {
                    return Err(ClientError::Ipc { code, message: fault.message });
                }
            }
            while let Some(line) = reader.next_line() {
                let line = read(line)?;
                if let Some((code, fault)) = refused(&line) {
                    return Err(ClientError::Ipc { code, message: fault.message });
                }
                if line.envelope.is_some() {
                    return Ok(());
                }
            }
        }
        if began.elapsed() > SILENCE {
            return Err(ClientError::Stuck { secs: SILENCE.as_secs() });
        }
    }
}

fn queue(publisher: &mut Raw, n: u64, rest: &str) -> Result<(), ClientError> {
    let mut digits = [0; 20];
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    let begin = br#"{"cmd":"publish","req_id":1,"topic":"axon.bench","payload":{"n":"#;
    publisher.queue(&[begin, number(n, &mut digits), b",", rest.as_bytes()])
}

fn read(line: &[u8]) -> Result<Line<'_>, ClientError> {
    serde_json::from_slice(line).map_err(|error| ClientError::Protocol(error.to_string()))
}

fn refused(line: &Line<'_>) -> Option<(String, Fault)> {
    if line.ok != Some(false) {
        return None;
    }
    let (code, message) = (line.error.to_string(), line.message.to_string());
    let error = ClientError::Ipc { code: code.clone(), message: message.clone() };
    Some((code, Fault { count: 1, message, exit: error.exit_code() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_its_number_and_what_is_refused_its_reason() {
        let event = br#"{"event":"inbound","envelope":{"payload":{"topic":"t","message":{"n":7,"x":""}}}}"#;
        let line = read(event).unwrap();
        assert!(refused(&line).is_none());
        assert_eq!(line.envelope.unwrap().payload.message.n, 7);
        let line = read(br#"{"ok":true,"req_id":1,"seq":5}"#).unwrap();
        assert!(refused(&line).is_none() && line.envelope.is_none());
        let (code, fault) =
            refused(&read(br#"{"ok":false,"error":"overloaded","message":"wait"}"#).unwrap()).unwrap();
        assert_eq!((&*code, &*fault.message, fault.count), ("overloaded", "wait", 1));
        assert!(read(b"x").is_err());
    }
}
