//! Whether the peer still sends packets while something of ours is in flight.
//!
//! A message that has just been sent is acknowledged at once by the peer's transport, however long its agent
//! thinks. While we wait for the agent, an occasional packet that must be acknowledged keeps asking. No timer
//! runs while nothing is in flight.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axon_proto::limits::SILENCE_MS;
use axon_proto::node::{ConnId, Input};
use quinn::{Connection, VarInt};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::endpoint::WINDOW_BYTES;
use super::{Event, NetEvent};

/// How often packets are counted.
const TICK: Duration = Duration::from_millis(250);
/// After this long without a packet the peer is asked for one.
const QUIET: Duration = Duration::from_millis(1_500);
/// After this long without an answer it is silent.
const SILENCE: Duration = Duration::from_millis(SILENCE_MS);

/// What of ours is in flight on one connection.
#[derive(Debug, Default)]
pub(super) struct Flight {
    messages: AtomicUsize,
    asked: Mutex<Option<Asked>>,
    begun: Notify,
}

/// A packet of ours that no packet of the peer has followed, as far as we know.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    /// Packets that had come by then.
    packets: u64,
}

/// One message in flight.
#[derive(Debug)]
pub(super) struct Flying(Arc<Flight>);

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.messages.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Flight {
    /// A message is on its way, from now until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Flying {
        if self.messages.fetch_add(1, Ordering::Relaxed) == 0 {
            self.begun.notify_one();
        }
        Flying(Arc::clone(self))
    }

    /// Something that the peer's transport acknowledges is being sent.
    pub(super) fn sent(&self, connection: &Connection) {
        let packets = packets(connection);
        let mut asked = self.asked();
        // The oldest question that is still open counts.
        if asked.is_none_or(|asked| packets > asked.packets) {
            *asked = Some(Asked { at: Instant::now(), packets });
        }
    }

    fn asked(&self) -> MutexGuard<'_, Option<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches one connection for as long as it lives.
pub(super) async fn watch(
    connection: &Connection,
    conn: ConnId,
    flight: &Flight,
    events: &mpsc::Sender<NetEvent>,
) {
    let mut seen = 0;
    let mut seen_at = Instant::now();
    let mut silent = false;
    loop {
        if !silent && flight.messages.load(Ordering::Relaxed) == 0 {
            flight.begun.notified().await;
            (seen, seen_at) = (packets(connection), Instant::now());
        }
        tokio::time::sleep(TICK).await;
        let (count, now) = (packets(connection), Instant::now());
        let fresh = count > seen;
        if fresh {
            (seen, seen_at) = (count, now);
        }
        let tell = if silent {
            fresh.then_some(Input::Alive { conn })
        } else {
            is_silent(connection, flight, count, seen_at, now).then_some(Input::Silent { conn })
        };
        if let Some(input) = tell {
            silent = !silent;
            let Ok(room) = events.reserve().await else { return };
            room.send(NetEvent(Event::Plain(input)));
        }
    }
}

fn is_silent(connection: &Connection, flight: &Flight, count: u64, seen_at: Instant, now: Instant) -> bool {
    if flight.messages.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let mut asked = flight.asked();
    match *asked {
        Some(open) if count > open.packets => *asked = None,
        Some(open) => return now.duration_since(open.at) >= SILENCE,
        None if now.duration_since(seen_at) >= QUIET => {
            *asked = Some(Asked { at: now, packets: count });
            elicit(connection);
        }
        None => {}
    }
    false
}

/// Packets that have come.
pub(super) fn packets(connection: &Connection) -> u64 {
    connection.stats().udp_rx.datagrams
}

/// Makes the peer send a packet. quinn has no ping to call, but it tells the peer about a larger window,
/// which must be acknowledged; the window is the old one again right after.
fn elicit(connection: &Connection) {
    connection.set_receive_window(VarInt::from_u32(WINDOW_BYTES + 1));
    connection.set_receive_window(VarInt::from_u32(WINDOW_BYTES));
}
