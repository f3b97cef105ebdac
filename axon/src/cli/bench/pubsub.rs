//! The loop that publishes at one daemon and listens at others: a message is done when the subscriber of each
//! has been shown it.

use std::collections::BTreeMap;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axon_client::{ClientError, Raw};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::Job;
use super::progress::Progress;
use super::run::{Fault, SILENCE, TICK, Tally, number, text};
use super::shown::{Seen, Shown};
use super::times::Times;
use crate::cli::output::EXIT_LOCAL;

/// The topic of all of it.
pub const TOPIC: &str = "axon.bench";
/// What is published before the run, until each subscriber was shown one of them: then its daemon has joined.
const FIRST: u64 = u64::MAX >> 11;
/// What is published after it: who is shown this has been shown all that was on its way before.
const LAST: u64 = FIRST - 1;
/// Between two of the first.
const AGAIN: Duration = Duration::from_millis(50);

/// The part of a line that counts.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    ok: Option<bool>,
    #[serde(default)]
    req_id: Option<u64>,
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

/// What the subscribers of a run were given.
#[derive(Debug)]
pub struct Deliveries {
    /// The time of each, from the command.
    pub times: Times,
    /// Of each subscriber how many, and how long after the beginning of the run the last.
    pub readers: Vec<(u64, Duration)>,
}

/// Publishes all of a job's messages, waits until each subscriber has each, and looks whether one comes
/// twice.
pub async fn load(
    publishers: &mut [Raw],
    readers: &mut [Raw],
    job: &Job,
    progress: &mut Progress,
) -> Result<Tally, ClientError> {
    let rest = json!({"x": text(job.size)}).to_string();
    let rest = rest.strip_prefix('{').unwrap_or_default().to_owned() + "}";
    meet(publishers, readers).await?;
    let began = Instant::now();
    let mut run = Run {
        shown: Shown::new(readers.len()),
        waits: vec![0; publishers.len()],
        done: 0,
        faults: BTreeMap::new(),
        heard: began,
    };
    let most = job.inflight * publishers.len();
    let mut who = 0;
    let (mut sent, mut drawn) = (0, began);
    let mut tick = pin!(sleep(TICK));
    loop {
        let now = Instant::now();
        while sent < job.count
            && run.shown.under_way() < most
            && let Some(at) = run.free(who, job.inflight)
            && let (Some(publisher), Some(waits)) = (publishers.get_mut(at), run.waits.get_mut(at))
        {
            queue(publisher, sent, &rest)?;
            run.shown.published(sent, now);
            *waits += 1;
            sent += 1;
            who = at + 1;
        }
        // One that was shown may still wait for its reply, and the next with it.
        if sent == job.count && run.shown.under_way() == 0 {
            break;
        }
        tokio::select! {
            biased;
            turned = any(readers) => turned?,
            turned = any(publishers) => turned?,
            () = &mut tick => {
                let now = Instant::now();
                if now - run.heard > SILENCE {
                    run.missing(readers.len());
                    return Ok(run.tally(began));
                }
                tick.as_mut().reset(now + TICK);
            }
        }
        let now = Instant::now();
        run.hear(publishers, readers, now)?;
        if now - drawn >= TICK {
            progress.at(run.done);
            drawn = now;
        }
    }
    let heard = run.heard;
    run.end(publishers, readers).await?;
    Ok(Run { heard, ..run }.tally(began))
}

/// A run as far as it is.
struct Run {
    shown: Shown,
    /// How many replies each publisher waits for.
    waits: Vec<usize>,
    done: u64,
    faults: BTreeMap<String, Fault>,
    heard: Instant,
}

impl Run {
    /// The next publisher from this one on that waits for fewer replies than this.
    fn free(&self, from: usize, most: usize) -> Option<usize> {
        let count = self.waits.len();
        (from..from + count)
            .map(|at| at % count)
            .find(|at| self.waits.get(*at).is_some_and(|waits| *waits < most))
    }

    /// Takes all that has come; how many of the subscribers were shown the last.
    fn hear(
        &mut self,
        publishers: &mut [Raw],
        readers: &mut [Raw],
        now: Instant,
    ) -> Result<u32, ClientError> {
        for (who, publisher) in publishers.iter_mut().enumerate() {
            while let Some(line) = publisher.next_line() {
                let line = read(line)?;
                if let (Some(waits), Some(..LAST)) = (self.waits.get_mut(who), line.req_id) {
                    *waits = waits.saturating_sub(1);
                }
                if let Some((code, fault)) = refused(&line) {
                    if line.req_id.is_none_or(|n| !self.shown.refused(n)) {
                        return Err(ClientError::Ipc { code, message: fault.message });
                    }
                    self.fault(code, fault);
                    self.heard = now;
                }
            }
        }
        let mut lasts = 0;
        for (at, reader) in readers.iter_mut().enumerate() {
            while let Some(line) = reader.next_line() {
                let line = read(line)?;
                match line.envelope.map(|envelope| envelope.payload.message.n) {
                    // Of the first several may be on their way when the run begins.
                    None | Some(FIRST) => continue,
                    Some(LAST) => lasts |= 1 << at,
                    Some(n) => match self.shown.shown(at, n, now) {
                        Seen::First => {}
                        Seen::Done => self.done += 1,
                        Seen::Again => self.fault("shown_twice".to_owned(), twice()),
                    },
                }
                self.heard = now;
            }
        }
        Ok(lasts)
    }

    /// Publishes the last, and takes what comes until each subscriber has it.
    async fn end(&mut self, publishers: &mut [Raw], readers: &mut [Raw]) -> Result<(), ClientError> {
        if let Some(publisher) = publishers.first_mut() {
            queue(publisher, LAST, NOTHING)?;
        }
        let (mut waiting, mut has) = (readers.len(), 0_u32);
        let all = async {
            while waiting > 0 {
                tokio::select! {
                    biased;
                    turned = any(readers) => turned?,
                    turned = any(publishers) => turned?,
                }
                has |= self.hear(publishers, readers, Instant::now())?;
                waiting = readers.len() - has.count_ones() as usize;
            }
            Ok(())
        };
        timeout(SILENCE, all).await.unwrap_or(Err(ClientError::Stuck { secs: SILENCE.as_secs() }))
    }

    fn fault(&mut self, code: String, fault: Fault) {
        self.faults.entry(code).and_modify(|known| known.count += 1).or_insert(fault);
    }

    /// Nothing has come for long: what is on its way is given up.
    fn missing(&mut self, readers: usize) {
        let (count, waiting, secs) = (self.shown.under_way() as u64, self.shown.waiting(), SILENCE.as_secs());
        let message = format!("{waiting} of {readers} subscribers were not shown them within {secs} s");
        self.faults.insert("not_shown".to_owned(), Fault { count, message, exit: EXIT_LOCAL });
    }

    fn tally(self, began: Instant) -> Tally {
        let since = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| at - began);
        let readers = self.shown.readers.iter().map(|reader| (reader.shown, since(reader.last))).collect();
        let deliveries = Some(Deliveries { times: self.shown.each, readers });
        let (faults, times, took) = (self.faults, self.shown.whole, self.heard - began);
        Tally { done: self.done, faults, times, took, deliveries }
    }
}

fn twice() -> Fault {
    let message = "a subscriber was shown a message that it had been shown before".to_owned();
    Fault { count: 1, message, exit: EXIT_LOCAL }
}

/// Returns when something has come on one of these; what has come on the others then is there too.
async fn any(clients: &mut [Raw]) -> Result<(), ClientError> {
    let mut turns: Vec<_> = clients.iter_mut().map(|client| Box::pin(client.turn())).collect();
    poll_fn(|cx| {
        let mut all = Poll::Pending;
        for turn in &mut turns {
            match turn.as_mut().poll(cx) {
                Poll::Ready(Ok(())) if all.is_pending() => all = Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => all = Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        all
    })
    .await
}

/// Subscribes, and publishes until each subscriber is shown something.
async fn meet(publishers: &mut [Raw], readers: &mut [Raw]) -> Result<(), ClientError> {
    let Some(publisher) = publishers.first_mut() else { return Ok(()) };
    let subscribe = json!({"cmd": "subscribe_topic", "req_id": 1, "topic": TOPIC}).to_string();
    for reader in readers.iter_mut() {
        reader.queue(&[subscribe.as_bytes()])?;
    }
    let (began, mut waiting) = (Instant::now(), vec![true; readers.len()]);
    loop {
        queue(publisher, FIRST, NOTHING)?;
        let mut again = pin!(sleep(AGAIN));
        loop {
            tokio::select! {
                turned = any(readers) => turned?,
                turned = publisher.turn() => turned?,
                () = &mut again => break,
            }
            while let Some(line) = publisher.next_line() {
                if let Some((code, fault)) = refused(&read(line)?) {
                    return Err(ClientError::Ipc { code, message: fault.message });
                }
            }
            for (reader, waits) in readers.iter_mut().zip(&mut waiting) {
                while let Some(line) = reader.next_line() {
                    let line = read(line)?;
                    if let Some((code, fault)) = refused(&line) {
                        return Err(ClientError::Ipc { code, message: fault.message });
                    }
                    *waits &= line.envelope.is_none();
                }
            }
            if !waiting.contains(&true) {
                return Ok(());
            }
        }
        if began.elapsed() > SILENCE {
            return Err(ClientError::Stuck { secs: SILENCE.as_secs() });
        }
    }
}

/// The rest of a message that is not counted.
const NOTHING: &str = "\"x\":\"\"}}";

fn queue(publisher: &mut Raw, n: u64, rest: &str) -> Result<(), ClientError> {
    let mut digits = [0; 20];
    let n = number(usize::try_from(n).unwrap_or(usize::MAX), &mut digits);
    let begin = br#"{"cmd":"publish","topic":"axon.bench","req_id":"#;
    publisher.queue(&[begin, n, br#","payload":{"n":"#, n, b",", rest.as_bytes()])
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
