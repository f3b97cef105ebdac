//! A connection that is made again when it has ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::agent::reconnect;
use crate::client::PATIENCE;
use crate::types::{Event, Hello, Subscription};
use crate::{Client, ClientError, DelegationFilter, TopicSubscription};

/// A connection that is made again when the daemon was away. Clones share it.
///
/// A command that was under way when the connection ended fails, since nobody can tell whether it was carried
/// out; the next [`client`](Self::client) is a new connection. What was [subscribed](Self::subscribe),
/// [watched](Self::watch) and [advertised](Self::advertise) by the link holds there as well, topics among it.
///
/// ```no_run
/// # async fn example() -> Result<(), axon_client::ClientError> {
/// use axon_client::{Hello, Link};
///
/// let link = Link::open("/home/ada/.axon/axon.sock", Hello::default()).await?;
/// println!("{}", link.client().await?.ask("bob", "When is dinner?").await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Link {
    path: Arc<PathBuf>,
    state: Arc<Mutex<State>>,
    patience: Duration,
    /// Whether it was closed for good.
    closed: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    client: Client,
    watch: bool,
    subscription: Option<Subscription>,
    /// What belongs to the connection, and not to the consumer.
    topics: Vec<TopicSubscription>,
    advert: Option<Value>,
    /// Whether events may have been lost with a connection, and nobody has been told.
    missed: bool,
}

impl Link {
    /// Connects to the socket and says hello. A daemon that is not there is an error at once.
    pub async fn open(path: impl AsRef<Path>, hello: Hello) -> Result<Self, ClientError> {
        let client = Client::connect(path.as_ref(), hello).await?;
        let (subscription, topics, advert) = (None, Vec::new(), None);
        let state = State { client, watch: false, subscription, topics, advert, missed: false };
        let path = Arc::new(path.as_ref().to_owned());
        Ok(Self {
            path,
            state: Arc::new(Mutex::new(state)),
            patience: PATIENCE,
            closed: watch::channel(false).0,
        })
    }

    /// Waits so long for a daemon that is away, in place of 10 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes it for good, for all clones: what waits for a reply gets [`ClientError::Closed`].
    pub async fn close(&self) {
        self.closed.send_replace(true);
        // Nobody makes a new connection any more.
        self.state.lock().await.client.close();
    }

    /// The present connection, or a new one when it has ended.
    pub async fn client(&self) -> Result<Client, ClientError> {
        let live = self.live();
        timeout(self.patience, live)
            .await
            .unwrap_or_else(|_| Err(ClientError::NoDaemon { path: self.path.to_path_buf() }))
    }

    /// Asks for messages as events, on this connection and those that follow.
    pub async fn subscribe(&self, subscription: &Subscription) -> Result<crate::Subscribed, ClientError> {
        let subscribed = self.client().await?.subscribe(subscription).await?;
        self.state.lock().await.subscription = Some(subscription.clone());
        Ok(subscribed)
    }

    /// Subscribes to a topic, on this connection and those that follow: see [`Client::subscribe_topic`].
    pub async fn subscribe_topic(
        &self,
        subscription: &TopicSubscription,
    ) -> Result<crate::TopicSubscribed, ClientError> {
        let subscribed = self.client().await?.subscribe_topic(subscription).await?;
        if !subscription.kept {
            let mut state = self.state.lock().await;
            state.topics.retain(|other| other.topic != subscription.topic);
            // What was kept before is not told again over a new connection.
            state.topics.push(TopicSubscription { history: false, ..subscription.clone() });
        }
        Ok(subscribed)
    }

    /// Ends a subscription of this link or of its consumer; gives whether there was one.
    pub async fn unsubscribe_topic(&self, topic: &str) -> Result<bool, ClientError> {
        self.state.lock().await.topics.retain(|other| other.topic != topic);
        self.client().await?.unsubscribe_topic(topic).await
    }

    /// Asks for an event at each change of any delegation, on this connection and those that follow.
    pub async fn watch(&self) -> Result<(), ClientError> {
        watch_delegations(&self.client().await?).await?;
        self.state.lock().await.watch = true;
        Ok(())
    }

    /// Says what this client can do, on this connection and those that follow.
    pub async fn advertise(&self, capabilities: &Value) -> Result<(), ClientError> {
        self.client().await?.advertise(capabilities).await?;
        self.state.lock().await.advert = Some(capabilities.clone());
        Ok(())
    }

    /// The next event, over as many connections as it takes. After a new one the first is [`Event::Missed`]:
    /// ask for how things stand. An error means that connecting again is of no use.
    ///
    /// May be dropped while it waits without losing anything.
    pub async fn next_event(&self) -> Result<Event, ClientError> {
        loop {
            let client = self.live().await?;
            if std::mem::take(&mut self.state.lock().await.missed) {
                return Ok(Event::Missed);
            }
            match client.next_event().await {
                Err(error) if error.ends_connection() => {}
                other => return other,
            }
        }
    }

    async fn live(&self) -> Result<Client, ClientError> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            _ = closed.wait_for(|closed| *closed) => Err(ClientError::Closed),
            client = self.make() => client,
        }
    }

    async fn make(&self) -> Result<Client, ClientError> {
        let mut state = self.state.lock().await;
        while state.client.end().is_some() {
            let client = reconnect(&state.client).await?;
            match state.greet(&client).await {
                Err(error) if error.ends_connection() => {}
                other => {
                    other?;
                    state.client = client;
                    state.missed = true;
                }
            }
        }
        Ok(state.client.clone())
    }
}

impl State {
    /// Says on a new connection what was said on the one before.
    async fn greet(&self, client: &Client) -> Result<(), ClientError> {
        if let Some(advert) = &self.advert {
            client.advertise(advert).await?;
        }
        if let Some(subscription) = &self.subscription {
            client.subscribe(subscription).await?;
        }
        for topic in &self.topics {
            client.subscribe_topic(topic).await?;
        }
        if self.watch {
            watch_delegations(client).await?;
        }
        Ok(())
    }
}

async fn watch_delegations(client: &Client) -> Result<(), ClientError> {
    let filter = DelegationFilter { limit: Some(1), watch: true, ..DelegationFilter::default() };
    client.delegations(&filter).await.map(drop)
}
