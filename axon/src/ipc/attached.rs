//! Clients without a socket, for tests that have the clock in hand: what the system does between two ends of
//! a socket takes no time that a test could see. Their queues are those of all clients.

use std::sync::Arc;

use axon_proto::node::{ClientId, Input};
use tokio::sync::{mpsc, oneshot};

use super::outbox::Outbox;
use super::{Client, Ipc, IpcEvent, Standing};

/// Asks for a place as a client.
#[derive(Debug)]
pub struct Attach(oneshot::Sender<(ClientId, Arc<Outbox>)>);

/// Where clients attach.
#[derive(Debug, Clone)]
pub(crate) struct WayIn(mpsc::Sender<IpcEvent>);

/// Both ends of a client: what it says, and what it is told.
#[derive(Debug)]
pub(crate) struct Attached {
    id: ClientId,
    outbox: Arc<Outbox>,
    events: mpsc::Sender<IpcEvent>,
}

impl Ipc {
    pub(crate) fn way_in(&self) -> WayIn {
        WayIn(self.door.events.clone())
    }

    pub(super) fn attach(&mut self, attach: Attach) -> Input {
        let client = ClientId(self.next_client);
        self.next_client += 1;
        let outbox = Arc::new(Outbox::default());
        // Who has gone meanwhile is a client that never says a word.
        attach.0.send((client, Arc::clone(&outbox))).ok();
        self.clients.insert(client, Client { outbox, socket: None, standing: Standing::Served });
        Input::ClientUp { client, trusted: true, socket: None }
    }
}

impl WayIn {
    /// None where the daemon has ended.
    pub(crate) async fn attach(&self) -> Option<Attached> {
        let (tell, told) = oneshot::channel();
        self.0.send(IpcEvent::Attach(Attach(tell))).await.ok()?;
        let (id, outbox) = told.await.ok()?;
        Some(Attached { id, outbox, events: self.0.clone() })
    }
}

impl Attached {
    /// Says a line; false where the daemon has ended.
    pub(crate) async fn say(&self, line: &str) -> bool {
        let input = Input::Line { client: self.id, line: line.as_bytes().to_vec() };
        self.outbox.heard(false, true);
        self.events.send(IpcEvent::Client(self.id, input)).await.is_ok() && self.outbox.room().await
    }

    /// What it has been told meanwhile, at least one line; none at its end.
    pub(crate) async fn hear(&self) -> Option<Vec<String>> {
        let mut batch = Vec::new();
        loop {
            let filled = self.outbox.filled.notified();
            let ends = self.outbox.take(&mut batch);
            if !batch.is_empty() {
                self.outbox.written();
                return Some(String::from_utf8(batch).unwrap().lines().map(str::to_owned).collect());
            }
            if ends {
                return None;
            }
            tokio::select! {
                biased;
                () = filled => {}
                // The daemon is no more.
                () = self.events.closed() => return None,
            }
        }
    }
}
