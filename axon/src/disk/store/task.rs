//! The disk's thread as a task, for tests that have the clock in hand: a job takes some of their time, and
//! they see the same order each time.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axon_proto::id::AgentId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{AuditLog, Batch, Disk, DiskEvent, Hand, Job, OpenStore, ReplayLog, Root, Worker, unix_ms};

pub(super) type Jobs = UnboundedSender<Job>;

impl Disk {
    /// The same as [`Disk::start`], but a task; it takes so long for what waits together. Without an answer
    /// the power is gone: nothing more is written, and nothing closed.
    pub(crate) fn in_task(
        root: &Root,
        own: AgentId,
        store: OpenStore,
        replay_log: ReplayLog,
        mut takes: impl FnMut() -> Option<Duration> + Send + 'static,
        done: impl Fn(DiskEvent) + Send + 'static,
    ) -> Self {
        let (jobs, mut receiver): (_, UnboundedReceiver<Job>) = unbounded_channel();
        let aged_ms = Arc::new(AtomicU64::new(0));
        let (root, audit, for_worker) = (root.clone(), AuditLog::new(root), Arc::clone(&aged_ms));
        let mut worker =
            Worker { root, own, store, replay_log, audit, done: Box::new(done), aged_ms: for_worker };
        tokio::spawn(async move {
            let mut batch = Batch::default();
            while let Some(first) = receiver.recv().await {
                let Some(takes) = takes() else { return };
                tokio::time::sleep(takes).await;
                worker.turn(&mut batch, first, || receiver.try_recv().ok());
                if receiver.is_empty() {
                    while worker.store.maintain(unix_ms()) {}
                }
            }
            worker.close();
        });
        Self { hand: Hand::Task(jobs), evicted: None, aged_ms }
    }
}
