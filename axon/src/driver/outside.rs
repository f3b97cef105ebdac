//! What the loop has of the machine that it runs on, beside files: a simulation brings its own.

use axon_proto::id::AgentId;
use axon_proto::node::Entropy;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::disk::store::OpenStore;
use crate::disk::{Disk, DiskEvent, ReplayLog, Root, StoreError};
use crate::net::{Machine, ThisMachine};
use crate::notify::Notify;

/// What the daemon has from outside. Time is not among it: that is tokio's.
pub(super) trait Outside: Machine {
    /// What the node draws its random numbers from.
    fn entropy(&self) -> Box<dyn Entropy>;

    /// Who wants to know how the daemon is.
    fn manager(&self) -> Notify;

    /// Whoever reads and writes files while the daemon runs.
    fn disk(
        &self,
        root: &Root,
        own: AgentId,
        store: OpenStore,
        replay_log: ReplayLog,
        done: impl Fn(DiskEvent) + Send + 'static,
    ) -> Result<Disk, StoreError>;
}

impl Outside for ThisMachine {
    fn entropy(&self) -> Box<dyn Entropy> {
        Box::new(Random::default())
    }

    fn manager(&self) -> Notify {
        Notify::of_env()
    }

    fn disk(
        &self,
        root: &Root,
        own: AgentId,
        store: OpenStore,
        replay_log: ReplayLog,
        done: impl Fn(DiskEvent) + Send + 'static,
    ) -> Result<Disk, StoreError> {
        Disk::start(root, own, store, replay_log, done)
    }
}

/// Random bytes of the system, fetched many at a time.
struct Random {
    pool: [u8; 512],
    left: usize,
}

impl Default for Random {
    fn default() -> Self {
        Self { pool: [0; 512], left: 0 }
    }
}

impl Entropy for Random {
    fn fill(&mut self, bytes: &mut [u8; 16]) {
        if self.left < bytes.len() {
            if SystemRandom::new().fill(&mut self.pool).is_err() {
                // Ids and a jitter hang on it, no keys; a system without randomness has failed long before.
                tracing::warn!("the system gives no random bytes");
            }
            self.left = self.pool.len();
        }
        let end = self.left;
        self.left -= bytes.len();
        bytes.copy_from_slice(&self.pool[self.left..end]);
    }
}
