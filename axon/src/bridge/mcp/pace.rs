//! Standard input and output at the pace of a client.
//!
//! The SDK reads as fast as lines come, runs all of them at once, and keeps every answer until it is taken. A
//! client that asks and does not read would make that grow without an end.

use std::collections::HashSet;
use std::sync::Arc;

use rmcp::model::{ClientNotification, JsonRpcMessage, RequestId};
use rmcp::service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::sync::watch;

/// Requests that are worked on, and messages that wait to be taken; no more is read until there are fewer.
const OPEN_MAX: usize = 256;

/// A transport that reads on only while little is open.
pub struct Paced<T> {
    inner: T,
    load: Arc<watch::Sender<Load>>,
}

#[derive(Debug, Default)]
struct Load {
    /// Requests without an answer yet.
    asked: HashSet<RequestId>,
    /// Messages that the client has not taken yet.
    unsent: usize,
}

impl Load {
    fn has_room(&self) -> bool {
        self.asked.len() + self.unsent < OPEN_MAX
    }
}

/// A message on its way, until this is dropped.
struct Unsent(Arc<watch::Sender<Load>>);

impl Drop for Unsent {
    fn drop(&mut self) {
        self.0.send_modify(|load| load.unsent = load.unsent.saturating_sub(1));
    }
}

impl<T> Paced<T> {
    /// The same transport, paced.
    pub fn new(inner: T) -> Self {
        Self { inner, load: Arc::new(watch::Sender::default()) }
    }
}

impl<T: Transport<RoleServer>> Transport<RoleServer> for Paced<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.load.send_modify(|load| {
            match &message {
                JsonRpcMessage::Response(response) => load.asked.remove(&response.id),
                JsonRpcMessage::Error(error) => error.id.as_ref().is_some_and(|id| load.asked.remove(id)),
                _ => false,
            };
            load.unsent += 1;
        });
        let (unsent, sent) = (Unsent(self.load.clone()), self.inner.send(message));
        async move {
            let result = sent.await;
            drop(unsent);
            result
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        // The sender lives as long as this does.
        self.load.subscribe().wait_for(Load::has_room).await.ok();
        let message = self.inner.receive().await?;
        self.load.send_modify(|load| match &message {
            JsonRpcMessage::Request(request) => {
                load.asked.insert(request.id.clone());
            }
            // A request that is taken back is not answered.
            JsonRpcMessage::Notification(told) => {
                if let ClientNotification::CancelledNotification(cancelled) = &told.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    load.asked.remove(id);
                }
            }
            _ => {}
        });
        Some(message)
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.inner.close().await
    }
}
