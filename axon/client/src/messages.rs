//! The inbox as a stream: messages in order, over restarts of the daemon, until they are acked.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use crate::agent::reconnect;
use crate::client::PATIENCE;
use crate::types::{Event, Hello, Kept, Subscription};
use crate::{Client, ClientError};

/// Rows that are read at once to catch up, which is as many as the daemon gives.
const PAGE_ROWS: u64 = 1000;

/// All messages that a consumer has not acknowledged, and then those that come.
///
/// It has a connection of its own, which is made again whenever the daemon was away. A row is given once by
/// one stream. What was not acknowledged comes again with the next stream of the same consumer: at least once
/// in all. What the inbox let go before this consumer had read it is told: see [`on_lost`](Self::on_lost).
///
/// ```no_run
/// # async fn example() -> Result<(), axon_client::ClientError> {
/// use axon_client::{Hello, Messages};
///
/// let mut messages = Messages::open("/home/ada/.axon/axon.sock", Hello::consumer("notes"))
///     .await?
///     .kinds(["notify"])
///     .on_lost(|seq| eprintln!("some messages before number {seq} are gone"));
/// loop {
///     let message = messages.next().await?;
///     println!("{}", message.envelope.payload);
///     messages.ack(message.seq).await?;
/// }
/// # }
/// ```
pub struct Messages {
    client: Client,
    kinds: Option<Vec<String>>,
    on_lost: Box<dyn FnMut(u64) + Send + Sync>,
    /// Whether this connection has subscribed.
    subscribed: bool,
    /// What was read and not given yet.
    ready: VecDeque<Kept>,
    /// The last row given.
    last: u64,
    /// Whether the inbox holds rows that no event has told.
    behind: bool,
    lost: Option<u64>,
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut f = f.debug_struct("Messages");
        f.field("path", &self.client.path()).field("kinds", &self.kinds).field("last", &self.last);
        f.finish_non_exhaustive()
    }
}

impl Messages {
    /// Connects as this consumer.
    pub async fn open(path: impl AsRef<Path>, hello: Hello) -> Result<Self, ClientError> {
        Ok(Self {
            client: Client::connect(path, hello).await?,
            kinds: None,
            on_lost: Box::new(|_| {}),
            subscribed: false,
            ready: VecDeque::new(),
            last: 0,
            behind: false,
            lost: None,
        })
    }

    /// Only messages of these kinds. Others are passed over, and acknowledged with those around them.
    #[must_use]
    pub fn kinds<T: Into<String>>(mut self, kinds: impl IntoIterator<Item = T>) -> Self {
        self.kinds = Some(kinds.into_iter().map(Into::into).collect());
        self
    }

    /// Called when messages are lost that this consumer had not read, with the number before which they were.
    /// It is told before the first row behind them is given.
    #[must_use]
    pub fn on_lost(mut self, lost: impl FnMut(u64) + Send + Sync + 'static) -> Self {
        self.on_lost = Box::new(lost);
        self
    }

    /// The number before which messages are lost, as it was last told.
    pub fn lost_before_seq(&self) -> Option<u64> {
        self.lost
    }

    /// The next message. An error means that connecting again is of no use, or, as
    /// [`ClientError::NotAcked`], that something must be acknowledged first.
    ///
    /// May be dropped while it waits without losing anything.
    pub async fn next(&mut self) -> Result<Kept, ClientError> {
        loop {
            while let Some(row) = self.ready.pop_front() {
                if row.seq > self.last {
                    self.last = row.seq;
                    return Ok(row);
                }
            }
            match self.more().await {
                Err(error) if error.ends_connection() => self.come_back().await?,
                other => other?,
            }
        }
    }

    /// Says that all rows up to this one are done with. Gives where the cursor stands.
    ///
    /// While the daemon is away it is tried again, for 10 s at most.
    pub async fn ack(&mut self, up_to_seq: u64) -> Result<u64, ClientError> {
        match self.client.ack(up_to_seq).await {
            Err(error) if error.ends_connection() => {
                timeout(PATIENCE, self.come_back()).await.unwrap_or(Err(error))?;
                self.client.ack(up_to_seq).await
            }
            other => other,
        }
    }

    async fn come_back(&mut self) -> Result<(), ClientError> {
        self.client = reconnect(&self.client).await?;
        // Whatever waited on the old connection is replayed on the new one.
        self.subscribed = false;
        self.behind = false;
        Ok(())
    }

    /// Puts what comes next into `ready`, if it is a message.
    async fn more(&mut self) -> Result<(), ClientError> {
        if !self.subscribed {
            let subscription = Subscription { kinds: self.kinds.clone(), ..Subscription::default() };
            let subscribed = self.client.subscribe(&subscription).await?;
            self.subscribed = true;
            self.lose(subscribed.lost_before_seq);
        }
        if self.behind {
            return self.catch_up().await;
        }
        match self.client.next_event().await? {
            Event::Inbound(inbound) => {
                let inbound = *inbound;
                let (seq, buffered_at_ms) = (inbound.seq, inbound.buffered_at_ms);
                let (sender, envelope) = (inbound.sender, inbound.envelope);
                self.ready.push_back(Kept { seq, buffered_at_ms, sender, envelope });
            }
            Event::SlowConsumer { .. } => self.behind = true,
            _ => {}
        }
        Ok(())
    }

    /// Reads what was not told. Rows that were given and not acknowledged come again, and are passed over.
    async fn catch_up(&mut self) -> Result<(), ClientError> {
        let page = self.client.inbox(Some(PAGE_ROWS), None).await?;
        self.lose(page.lost_before_seq);
        self.behind = page.has_more;
        let (rows, first) = (page.messages.len(), page.messages.first().map_or(0, |row| row.seq));
        let last = self.last;
        let wanted = |row: &Kept| {
            row.seq > last && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&row.envelope.kind))
        };
        self.ready = page.messages.into_iter().filter(wanted).collect();
        match page.next_seq {
            Some(seq) if self.behind && self.ready.is_empty() => {
                if first <= last {
                    return Err(ClientError::NotAcked { rows });
                }
                // Nothing of all this is wanted, and none of it was given.
                self.client.ack(seq).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    fn lose(&mut self, before: Option<u64>) {
        if let Some(seq) = before
            && before != self.lost
        {
            self.lost = before;
            (self.on_lost)(seq);
        }
    }
}

impl Client {
    /// Waits until a delegation has ended, and gives its row, with its result if there is one.
    ///
    /// It goes on when the daemon is restarted, and may be asked before or after the end. When it is not done
    /// within `limit` that is `timeout`, and nothing is changed; one that the daemon does not know is
    /// `not_found`. It takes a connection of its own.
    pub async fn wait(
        &self,
        delegation: &str,
        limit: Option<Duration>,
    ) -> Result<crate::Delegation, ClientError> {
        use axon_proto::error::IpcCode;
        let ended = self.ended(delegation);
        let Some(limit) = limit else { return ended.await };
        timeout(limit, ended).await.unwrap_or_else(|_| {
            let why = format!(
                "the delegation {delegation} is not done within {} ms: wait again, or cancel it",
                limit.as_millis()
            );
            Err(ClientError::ipc(IpcCode::Timeout, why))
        })
    }

    async fn ended(&self, id: &str) -> Result<crate::Delegation, ClientError> {
        use axon_proto::error::IpcCode;
        let filter = crate::DelegationFilter { id: Some(id.to_owned()), watch: true, ..Default::default() };
        let mut client = self.reconnect().await?;
        loop {
            let end = match client.delegations(&filter).await {
                Ok(rows) => match rows.delegations.into_iter().next() {
                    Some(row) if row.state.is_ended() => return Ok(row),
                    Some(_) => changed(&client, id).await,
                    None => {
                        let why = format!("the daemon knows no delegation {id}: look at `delegations`");
                        return Err(ClientError::ipc(IpcCode::NotFound, why));
                    }
                },
                Err(error) => Err(error),
            };
            match end {
                Err(error) if error.ends_connection() => client = reconnect(&client).await?,
                other => other?,
            }
        }
    }
}

/// Waits until a delegation may have changed.
async fn changed(client: &Client, id: &str) -> Result<(), ClientError> {
    loop {
        match client.next_event().await? {
            Event::Delegation(row) if row.id == id => return Ok(()),
            Event::Missed => return Ok(()),
            _ => {}
        }
    }
}
