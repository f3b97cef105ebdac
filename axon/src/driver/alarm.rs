//! The loop's alarm clock.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Wakes the loop in time. What is due is put off with every message: it is set again only to be earlier, and
/// once it has rung.
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    at: Option<Instant>,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), at: None }
    }

    pub(super) fn set(&mut self, due: Option<Instant>) {
        if let Some(due) = due.filter(|due| self.at.is_none_or(|at| *due < at)) {
            self.sleep.as_mut().reset(due);
            self.at = Some(due);
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.at.is_none() {
            return Poll::Pending;
        }
        ready!(self.sleep.as_mut().poll(cx));
        self.at = None;
        Poll::Ready(())
    }
}
