//! Lines that wait to be written to one client, each with whose words it carries.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axon_proto::id::AgentId;
use axon_proto::limits::{CLIENT_QUEUE_BYTES_MAX, CLIENT_UNREAD_BYTES_MAX};
use axon_proto::node::Of;
use tokio::sync::Notify;

/// Bytes of lines that wait for a client before its commands are no longer read.
const BACKPRESSURE_BYTES: usize = 1 << 20;
/// Bytes written at once, about.
pub(super) const BATCH_BYTES: usize = 64 * 1024;

/// What one client is to be told, shared by its two tasks and [`super::Ipc`].
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// There is something to write, or the end has come. The writer waits for it.
    pub(super) filled: Notify,
    /// Something has been written or dropped, or the end has come. Anybody may wait for it.
    drained: Notify,
    /// The client has gone: nobody needs its reader.
    pub(super) ended: Notify,
    /// The client has gone or is being closed: the writer must not wait for it any longer than a moment.
    pub(super) hurry: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// What waits, and before it what is being written.
    lines: VecDeque<Entry>,
    /// How many of these, the first, are being written.
    writing: usize,
    /// Bytes of all of them, with their newlines.
    bytes: usize,
    /// Number of the last line that was queued; the first is 1.
    queued: u64,
    /// Number of the last line that was written.
    written: u64,
    /// No more lines come: close once these are written.
    closing: bool,
    /// The client has gone: nothing more is written, but for what its writer is about to stop writing.
    gone: bool,
    /// The writer has stopped.
    ended: bool,
    /// Its commands wait for an earlier one: no more are read.
    paused: bool,
    /// It has said a part of a line.
    begun: bool,
    /// It has said a whole line, at some time.
    spoken: bool,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    line: Arc<str>,
    of: Of,
    /// May be turned away, and dropped.
    event: bool,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.line.len() + 1
    }
}

/// Whether a writer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// As long as it takes.
    Calm,
    /// For a moment: the client is being closed.
    Hurried,
    /// No: the client has gone.
    Stop,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a line that must not be dropped; a client that leaves too many unread is closed.
    pub(super) fn line(&self, of: Of, line: Arc<str>) {
        self.push(self.lock(), of, line, false);
    }

    /// Queues an event; false when the queue is full.
    pub(super) fn event(&self, of: AgentId, line: Arc<str>, events_max: usize) -> bool {
        let queue = self.lock();
        let waiting = queue.lines.len() - queue.writing;
        if waiting >= events_max || queue.bytes + line.len() > CLIENT_QUEUE_BYTES_MAX {
            return false;
        }
        self.push(queue, Of::Peer(of), line, true);
        true
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue>, of: Of, line: Arc<str>, event: bool) {
        if queue.gone || queue.closing {
            return;
        }
        if queue.bytes + line.len() > CLIENT_UNREAD_BYTES_MAX {
            // It does not read what it is handed: what it holds goes to others.
            tracing::warn!("a client that leaves {} bytes unread is closed", queue.bytes);
            drop(queue);
            return self.has_gone();
        }
        queue.queued += 1;
        let entry = Entry { number: queue.queued, line, of, event };
        queue.bytes += entry.bytes();
        queue.lines.push_back(entry);
        drop(queue);
        self.filled.notify_one();
    }

    /// Moves lines into `batch`, which is empty; whether no more will come after those that wait.
    pub(super) fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut queue = self.lock();
        while batch.len() < BATCH_BYTES
            && let Some(entry) = queue.lines.get(queue.writing)
        {
            batch.extend_from_slice(entry.line.as_bytes());
            batch.push(b'\n');
            queue.writing += 1;
        }
        queue.gone || queue.closing
    }

    /// The batch has been written.
    pub(super) fn written(&self) {
        let mut queue = self.lock();
        for _ in 0..std::mem::take(&mut queue.writing) {
            if let Some(entry) = queue.lines.pop_front() {
                queue.bytes -= entry.bytes();
                queue.written = entry.number;
            }
        }
        drop(queue);
        self.drained.notify_waiters();
    }

    pub(super) fn pace(&self) -> Pace {
        let queue = self.lock();
        match (queue.gone, queue.closing) {
            (true, _) => Pace::Stop,
            (false, true) => Pace::Hurried,
            (false, false) => Pace::Calm,
        }
    }

    pub(super) fn pause(&self, pause: bool) {
        self.lock().paused = pause;
        self.drained.notify_waiters();
    }

    /// Waits until the client has read enough of its answers, and its commands are done; false when it has
    /// gone.
    pub(super) async fn room(&self) -> bool {
        let room = |queue: &Queue| queue.gone || (queue.bytes <= BACKPRESSURE_BYTES && !queue.paused);
        self.until(room).await;
        !self.lock().gone
    }

    /// Waits until nothing is left to write, or nobody to write it to.
    pub(super) async fn empty(&self) {
        self.until(|queue| queue.gone || queue.bytes == 0).await;
    }

    /// Drops the events of a peer that wait. Yields what to give to [`Self::passed`] where other words of it
    /// are still to be written, or are being written.
    pub(super) fn purge(&self, peer: AgentId) -> Option<u64> {
        let mut queue = self.lock();
        if queue.gone {
            // Its writer may still be about to stop.
            return (!queue.ended).then_some(u64::MAX);
        }
        let Queue { lines, writing, bytes, .. } = &mut *queue;
        let mut at = 0;
        lines.retain(|entry| {
            at += 1;
            let stays = at <= *writing || !entry.event || entry.of != Of::Peer(peer);
            if !stays {
                *bytes -= entry.bytes();
            }
            stays
        });
        let carries = |entry: &&Entry| entry.of == Of::Several || entry.of == Of::Peer(peer);
        let last = lines.iter().rev().find(carries).map(|entry| entry.number);
        drop(queue);
        self.drained.notify_waiters();
        last
    }

    /// Waits until the line of this number has been written, or never will be.
    pub(super) async fn passed(&self, number: u64) {
        self.until(|queue| queue.ended || (!queue.gone && queue.written >= number)).await;
    }

    async fn until(&self, met: impl Fn(&Queue) -> bool) {
        loop {
            let drained = self.drained.notified();
            if met(&self.lock()) {
                return;
            }
            drained.await;
        }
    }

    /// Takes no more lines; closes once those that wait are written.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_one();
        self.hurry.notify_one();
    }

    /// Drops what waits; closes once what is being written is, and this last line.
    pub(super) fn cut_off(&self, last: Option<Arc<str>>) {
        let mut queue = self.lock();
        let writing = queue.writing;
        queue.lines.truncate(writing);
        queue.bytes = queue.lines.iter().map(Entry::bytes).sum();
        if let Some(line) = last {
            self.push(queue, Of::Us, line, false);
        } else {
            drop(queue);
        }
        self.close();
        self.drained.notify_waiters();
    }

    /// The client has gone, or has to.
    pub(super) fn has_gone(&self) {
        let mut queue = self.lock();
        queue.gone = true;
        queue.lines.clear();
        (queue.writing, queue.bytes) = (0, 0);
        drop(queue);
        self.filled.notify_one();
        self.drained.notify_waiters();
        self.ended.notify_one();
        self.hurry.notify_one();
    }

    /// The writer has stopped: from now on nothing is written.
    pub(super) fn ends(&self) {
        self.lock().ended = true;
        self.has_gone();
    }

    /// What the client has said: a part of a line, which is still open, or a whole one.
    pub(super) fn heard(&self, begun: bool, spoken: bool) {
        let mut queue = self.lock();
        queue.begun = begun;
        queue.spoken |= spoken;
    }

    /// Whether it is attached and has never said a whole line; and whether it has begun one.
    pub(super) fn is_silent(&self) -> Option<bool> {
        let queue = self.lock();
        (!queue.spoken && !queue.gone && !queue.closing).then_some(queue.begun)
    }

    /// Whether it is neither gone nor being closed.
    pub(super) fn is_open(&self) -> bool {
        self.pace() == Pace::Calm
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }
}
