//! Sessions over HTTP, and which of them goes when another is to begin and there are as many as may be.
//!
//! Many clients never end theirs, and begin another each time they are started. Whoever comes back to a
//! session that has gone is told so, and begins anew, as the protocol has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::session::{SessionId, SessionManager as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Sessions at once.
pub const SESSIONS_MAX: usize = 64;
/// How long the place of a session that was ended may take to be free.
const FREE_WITHIN: Duration = Duration::from_secs(1);

/// The sessions that there are.
#[derive(Debug)]
pub struct Sessions {
    /// Who keeps them.
    pub manager: Arc<LocalSessionManager>,
    places: Arc<Semaphore>,
    used: Mutex<HashMap<SessionId, Use>>,
}

/// An answer of a session is on its way, or its client listens, until this is dropped.
pub type Busy = Arc<()>;

#[derive(Debug)]
struct Use {
    last: Instant,
    busy: Busy,
}

impl Sessions {
    /// None yet.
    pub fn new() -> Self {
        Self {
            manager: Arc::default(),
            places: Arc::new(Semaphore::new(SESSIONS_MAX)),
            used: Mutex::default(),
        }
    }

    /// A place for a session, if there is one.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// Notes that a session has begun.
    pub async fn begun(&self, id: &str) -> Busy {
        let now = Use { last: Instant::now(), busy: Busy::default() };
        let busy = now.busy.clone();
        let there = self.manager.sessions.read().await;
        let mut used = self.used();
        // Those that have ended by themselves are not told of.
        used.retain(|id, _| there.contains_key(id));
        used.insert(id.into(), now);
        busy
    }

    /// Notes that somebody uses a session.
    pub fn touch(&self, id: &str) -> Option<Busy> {
        let mut used = self.used();
        let session = used.get_mut(id)?;
        session.last = Instant::now();
        Some(session.busy.clone())
    }

    /// With no place left, ends the session that was idle for longest.
    pub async fn make_room(&self) {
        if self.places.available_permits() > 0 {
            return;
        }
        let idlest = {
            let mut used = self.used();
            let idle = used.iter().filter(|(_, session)| Arc::strong_count(&session.busy) == 1);
            let idlest = idle.min_by_key(|(_, session)| session.last).map(|(id, _)| id.clone());
            idlest.inspect(|id| drop(used.remove(id)))
        };
        let Some(id) = idlest else { return };
        // One that has ended meanwhile leaves its place all the same.
        self.manager.close_session(&id).await.ok();
        timeout(FREE_WITHIN, self.places.acquire()).await.ok();
    }

    fn used(&self) -> MutexGuard<'_, HashMap<SessionId, Use>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
