//! The client: one method a command.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axon_proto::error::IpcCode;
use axon_proto::limits::{CLIENT_PENDING_MAX, IPC_VERSION, LINE_BYTES_MAX, REQUEST_TIMEOUT_MS};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::ClientError;
use crate::conn::Conn;
use crate::held::{DelegationFilter, Delegations, Outbox, OutboxFilter, Reported};
use crate::types::{
    Delegate, Event, Hello, Inbox, Message, Peer, PeersUnread, Query, SendOptions, Sent, Status, Subscribed,
    Subscription, Welcome, Whoami,
};

/// How long a command that waits for no peer may take before the daemon is held to be stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The `req_id` of hello, which is the first command of every connection.
const HELLO_ID: u64 = 1;

/// A connection to the daemon. Clones share it; it closes when the last one goes.
///
/// Commands run concurrently: each method takes `&self` and awaits its own reply.
///
/// ```no_run
/// # async fn example() -> Result<(), axon_client::ClientError> {
/// use axon_client::{Client, Hello};
///
/// let client = Client::connect("/home/ada/.axon/axon.sock", Hello::default()).await?;
/// println!("{}", client.ask("bob", "When is dinner?").await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    conn: Conn,
    path: PathBuf,
    hello: Hello,
    welcome: Welcome,
    next_id: AtomicU64,
    /// Places for commands that wait for a peer.
    slow: Arc<Semaphore>,
    /// Places for all others, so that these do not wait for peers.
    quick: Arc<Semaphore>,
}

#[derive(Serialize)]
struct Line<'a, B> {
    cmd: &'a str,
    req_id: &'a str,
    #[serde(flatten)]
    body: B,
}

#[derive(Serialize)]
pub(crate) struct Nothing {}

impl Client {
    /// Connects to the socket and says hello.
    pub async fn connect(path: impl AsRef<Path>, hello: Hello) -> Result<Self, ClientError> {
        let conn = Conn::open(path.as_ref()).await?;
        let slow = Arc::new(Semaphore::new(CLIENT_PENDING_MAX));
        let quick = Arc::new(Semaphore::new(CLIENT_PENDING_MAX));
        let line = hello_line(&hello)?;
        let reply = patient(PATIENCE, call(&conn, HELLO_ID, line, &quick)).await?;
        let welcome = welcomed(&reply)?;
        let path = path.as_ref().to_owned();
        let shared =
            Shared { conn, path, hello, welcome, next_id: AtomicU64::new(HELLO_ID + 1), slow, quick };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What the daemon said to hello.
    pub fn welcome(&self) -> &Welcome {
        &self.shared.welcome
    }

    /// A new connection to the same socket, as the same consumer.
    pub async fn reconnect(&self) -> Result<Self, ClientError> {
        Self::connect(&self.shared.path, self.shared.hello.clone()).await
    }

    /// Closes the connection now, for all clones: what waits for a reply gets [`ClientError::Closed`].
    pub fn close(&self) {
        self.shared.conn.close();
    }

    /// Why the connection is over; none while it is not.
    pub fn end(&self) -> Option<ClientError> {
        self.shared.conn.end()
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Who this daemon is.
    pub async fn whoami(&self) -> Result<Whoami, ClientError> {
        self.quick("whoami", Nothing {}).await
    }

    /// What the daemon counts.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.quick("status", Nothing {}).await
    }

    /// The peers that the daemon knows.
    pub async fn peers(&self) -> Result<Vec<Peer>, ClientError> {
        #[derive(Deserialize)]
        struct Reply {
            peers: Vec<Peer>,
        }
        self.quick::<Reply>("peers", Nothing {}).await.map(|reply| reply.peers)
    }

    /// The same, with what this consumer has not read of each. The daemon reads its disk for it.
    pub async fn peers_unread(&self) -> Result<PeersUnread, ClientError> {
        #[derive(Serialize)]
        struct Body {
            unread: bool,
        }
        self.quick("peers", Body { unread: true }).await
    }

    /// Sends a message of any kind. For a kind that is answered this awaits the answer.
    ///
    /// `to` is an agent id, an unambiguous prefix of one (at least 4 hexadecimal digits) or a name; only
    /// `cancel` does without. The payload must become a JSON object; text that is JSON already goes as
    /// [`RawValue`](serde_json::value::RawValue). With [`SendOptions::hold_secs`] this returns at the first
    /// outcome, which may be [`SendState::Held`](crate::SendState::Held).
    pub async fn send(
        &self,
        to: Option<&str>,
        kind: &str,
        payload: &(impl Serialize + ?Sized),
        options: SendOptions,
    ) -> Result<Sent, ClientError> {
        #[derive(Serialize)]
        struct Body<'a, P: ?Sized> {
            #[serde(skip_serializing_if = "Option::is_none")]
            to: Option<&'a str>,
            kind: &'a str,
            payload: &'a P,
            #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
            reference: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            deadline_ms: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            hold_secs: Option<u64>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            read_receipt: bool,
        }
        let body = Body {
            to,
            kind,
            payload,
            reference: options.reference.as_deref(),
            deadline_ms: options.deadline_ms,
            hold_secs: options.hold_secs,
            read_receipt: options.read_receipt,
        };
        // A query's own deadline is in its payload, which is not looked into here: no patience for it. The
        // others are bounded by the daemon.
        let limit = (kind != "query").then(|| {
            Duration::from_millis(options.deadline_ms.unwrap_or(0).max(REQUEST_TIMEOUT_MS)) + PATIENCE
        });
        let id = self.next_id();
        let reply = call(&self.shared.conn, id, encode("send", id, body)?, &self.shared.slow);
        let reply = match limit {
            Some(limit) => patient(limit, reply).await?,
            None => reply.await?,
        };
        decode(&reply)
    }

    /// Asks a peer, and gives the summary of its answer.
    pub async fn ask(&self, to: &str, question: &str) -> Result<String, ClientError> {
        let answer = self.query(to, &Query { question, ..Query::default() }).await?.into_answer()?;
        Ok(answer.text("summary").unwrap_or_default())
    }

    /// Asks a peer; the answer is a `response` or an `error`.
    pub async fn query(&self, to: &str, query: &Query<'_>) -> Result<Sent, ClientError> {
        self.send(Some(to), "query", query, SendOptions::default()).await
    }

    /// Hands work to a peer; the answer is an `ack` or an `error`. The `result` comes later, as an event.
    pub async fn delegate(&self, to: &str, task: &Delegate<'_>) -> Result<Sent, ClientError> {
        self.delegate_with(to, task, SendOptions::default()).await
    }

    /// The same with options; one that is held ([`Sent::is_held`]) has no answer yet.
    pub async fn delegate_with(
        &self,
        to: &str,
        task: &Delegate<'_>,
        options: SendOptions,
    ) -> Result<Sent, ClientError> {
        self.send(Some(to), "delegate", task, options).await
    }

    /// Tells a peer something.
    pub async fn notify(
        &self,
        to: &str,
        topic: &str,
        data: &(impl Serialize + ?Sized),
        importance: Option<&str>,
    ) -> Result<Sent, ClientError> {
        self.notify_with(to, topic, data, importance, SendOptions::default()).await
    }

    /// The same with options.
    ///
    /// ```no_run
    /// # async fn example(client: axon_client::Client) -> Result<(), axon_client::ClientError> {
    /// use std::time::Duration;
    ///
    /// use axon_client::{SendOptions, SendState};
    ///
    /// let hour = SendOptions::hold(Duration::from_secs(3600));
    /// let sent = client.notify_with("bob", "door", "open", None, hour).await?;
    /// if sent.send_state() == Some(SendState::Held) {
    ///     println!("bob is away; {} goes out when he is back", sent.msg_id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn notify_with(
        &self,
        to: &str,
        topic: &str,
        data: &(impl Serialize + ?Sized),
        importance: Option<&str>,
        options: SendOptions,
    ) -> Result<Sent, ClientError> {
        #[derive(Serialize)]
        struct Notify<'a, D: ?Sized> {
            topic: &'a str,
            data: &'a D,
            #[serde(skip_serializing_if = "Option::is_none")]
            importance: Option<&'a str>,
        }
        self.send(Some(to), "notify", &Notify { topic, data, importance }, options).await
    }

    /// Messages that are held or were, and those whose reading was asked for, oldest first.
    pub async fn outbox(&self, filter: &OutboxFilter) -> Result<Outbox, ClientError> {
        self.quick("outbox", filter).await
    }

    /// Takes a held message out of the outbox before it has left.
    ///
    /// `not_found` when there is none with this id, `already_answered` when it is no longer held or just on
    /// its way.
    pub async fn cancel_held(&self, message: &str) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            cancel: &'a str,
        }
        self.quick::<IgnoredAny>("outbox", Body { cancel: message }).await.map(drop)
    }

    /// Delegations of both directions, newest first; with [`DelegationFilter::watch`] every change from then
    /// on comes as an event.
    pub async fn delegations(&self, filter: &DelegationFilter) -> Result<Delegations, ClientError> {
        self.quick("delegations", filter).await
    }

    /// Takes a delegation back; the answer is an `ack` or an `error`. The daemon knows whose it is. One that
    /// is still held has no answer: its `state` is `cancelled`, and it never leaves.
    pub async fn cancel(&self, delegation: &str, reason: Option<&str>) -> Result<Sent, ClientError> {
        #[derive(Serialize)]
        struct Cancel<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<&'a str>,
        }
        let options = SendOptions { reference: Some(delegation.to_owned()), ..SendOptions::default() };
        self.send(None, "cancel", &Cancel { reason }, options).await
    }

    /// Asks a peer what its agents can do; the answer is `capabilities` or an `error`.
    pub async fn discover(&self, to: &str) -> Result<Sent, ClientError> {
        self.send(Some(to), "discover", &Nothing {}, SendOptions::default()).await
    }

    /// Asks a peer's daemon how it is; the answer is a `pong`.
    pub async fn ping(&self, to: &str) -> Result<Sent, ClientError> {
        self.send(Some(to), "ping", &Nothing {}, SendOptions::default()).await
    }

    /// Answers a peer's request: `response`, `ack`, `error`, `progress` or `result`. Gives the id of the
    /// answer.
    pub async fn reply(
        &self,
        request: &str,
        kind: &str,
        payload: &(impl Serialize + ?Sized),
    ) -> Result<String, ClientError> {
        #[derive(Serialize)]
        struct Body<'a, P: ?Sized> {
            #[serde(rename = "ref")]
            reference: &'a str,
            kind: &'a str,
            payload: &'a P,
        }
        #[derive(Deserialize)]
        struct Reply {
            msg_id: String,
        }
        let body = Body { reference: request, kind, payload };
        self.quick::<Reply>("reply", body).await.map(|reply| reply.msg_id)
    }

    /// Reports what came of a delegation: a `result`, which is kept on disk and sent until it arrives, for so
    /// long at most, or for as long as the daemon allows.
    pub async fn report(
        &self,
        request: &str,
        result: &(impl Serialize + ?Sized),
        hold: Option<Duration>,
    ) -> Result<Reported, ClientError> {
        #[derive(Serialize)]
        struct Body<'a, P: ?Sized> {
            #[serde(rename = "ref")]
            reference: &'a str,
            kind: &'a str,
            payload: &'a P,
            #[serde(skip_serializing_if = "Option::is_none")]
            hold_secs: Option<u64>,
        }
        let hold_secs = hold.map(|hold| hold.as_secs().max(1));
        let body = Body { reference: request, kind: "result", payload: result, hold_secs };
        // The first outcome may take as long as a delegator may take to answer.
        let (id, patience) = (self.next_id(), Duration::from_millis(REQUEST_TIMEOUT_MS) + PATIENCE);
        let line = encode("reply", id, body)?;
        decode(&patient(patience, call(&self.shared.conn, id, line, &self.shared.quick)).await?)
    }

    /// Asks for messages as they come: see [`next_event`](Self::next_event).
    pub async fn subscribe(&self, subscription: &Subscription) -> Result<Subscribed, ClientError> {
        self.quick("subscribe", subscription).await
    }

    /// The next event, in the order of their coming. An error means that there will be no more.
    ///
    /// May be dropped while it waits without losing anything. With several clones waiting, each event goes to
    /// one.
    pub async fn next_event(&self) -> Result<Event, ClientError> {
        self.shared.conn.event().await
    }

    /// Kept messages from this consumer's cursor on: at most `limit`, and with `kinds` up to the first of
    /// another kind.
    pub async fn inbox(&self, limit: Option<u64>, kinds: Option<&[String]>) -> Result<Inbox, ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            limit: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            kinds: Option<&'a [String]>,
        }
        self.quick("inbox", Body { limit, kinds }).await
    }

    /// Moves this consumer's cursor: all messages up to this number are dealt with. Gives the new cursor.
    pub async fn ack(&self, up_to_seq: u64) -> Result<u64, ClientError> {
        #[derive(Serialize)]
        struct Body {
            up_to_seq: u64,
        }
        #[derive(Deserialize)]
        struct Reply {
            acked_seq: u64,
        }
        self.quick::<Reply>("ack", Body { up_to_seq }).await.map(|reply| reply.acked_seq)
    }

    /// Says what this client can do, for peers that ask by `discover`; forgotten when it disconnects.
    pub async fn advertise(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<(), ClientError> {
        self.advertise_as(capabilities, false).await
    }

    /// The same for this consumer, kept on disk: it outlives the connection and the daemon, until the
    /// consumer says otherwise in the same way. An empty object takes it back.
    pub async fn advertise_persistent(
        &self,
        capabilities: &(impl Serialize + ?Sized),
    ) -> Result<(), ClientError> {
        self.advertise_as(capabilities, true).await
    }

    async fn advertise_as(
        &self,
        capabilities: &(impl Serialize + ?Sized),
        persist: bool,
    ) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Body<'a, C: ?Sized> {
            capabilities: &'a C,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            persist: bool,
        }
        self.quick::<IgnoredAny>("advertise", Body { capabilities, persist }).await.map(drop)
    }

    /// Shows the token of `<root>/ipc-token`; only needed where the daemon cannot see who connects.
    pub async fn auth(&self, token: &str) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            token: &'a str,
        }
        self.quick::<IgnoredAny>("auth", Body { token }).await.map(drop)
    }

    /// Any command that waits for no peer: for those of families that this crate has no method for.
    pub async fn command(
        &self,
        cmd: &str,
        fields: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<serde_json::Value, ClientError> {
        self.quick(cmd, fields).await
    }

    fn next_id(&self) -> u64 {
        self.shared.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A command that waits for no peer.
    pub(crate) async fn quick<T: DeserializeOwned>(
        &self,
        cmd: &str,
        body: impl Serialize,
    ) -> Result<T, ClientError> {
        let id = self.next_id();
        let line = encode(cmd, id, body)?;
        decode(&patient(PATIENCE, call(&self.shared.conn, id, line, &self.shared.quick)).await?)
    }

    /// A command that waits for a peer, for so long at most.
    pub(crate) async fn slow<T: DeserializeOwned>(
        &self,
        cmd: &str,
        body: impl Serialize,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let id = self.next_id();
        let line = encode(cmd, id, body)?;
        decode(&patient(limit, call(&self.shared.conn, id, line, &self.shared.slow)).await?)
    }
}

impl Message {
    /// A message's refusal: whether it is an `ack` that says no, and why.
    pub fn refusal(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Ack {
            #[serde(default)]
            accepted: bool,
            #[serde(default)]
            reason: Option<String>,
        }
        let ack: Ack = (self.kind == "ack").then(|| self.payload().ok())??;
        (!ack.accepted).then(|| ack.reason.unwrap_or_else(|| "the peer gave no reason".to_owned()))
    }
}

/// The command that introduces a client.
pub(crate) fn hello_line(hello: &Hello) -> Result<String, ClientError> {
    #[derive(Serialize)]
    struct Body<'a> {
        version: u32,
        consumer: &'a str,
    }
    encode("hello", HELLO_ID, Body { version: IPC_VERSION, consumer: &hello.consumer })
}

/// The daemon's reply to hello, if both speak the same version.
pub(crate) fn welcomed(reply: &str) -> Result<Welcome, ClientError> {
    let welcome: Welcome = decode(reply)?;
    if welcome.version == IPC_VERSION {
        return Ok(welcome);
    }
    Err(ClientError::ipc(
        IpcCode::UnsupportedVersion,
        format!(
            "the daemon speaks IPC version {} and this client {IPC_VERSION}: start a newer daemon",
            welcome.version
        ),
    ))
}

fn encode(cmd: &str, id: u64, body: impl Serialize) -> Result<String, ClientError> {
    let id = id.to_string();
    let mut line = serde_json::to_string(&Line { cmd, req_id: &id, body })
        .map_err(|error| ClientError::ipc(IpcCode::InvalidCommand, format!("this is no JSON: {error}")))?;
    if line.len() > LINE_BYTES_MAX {
        return Err(ClientError::ipc(
            IpcCode::CommandTooLarge,
            format!("the command is longer than {LINE_BYTES_MAX} bytes: shorten it or split it"),
        ));
    }
    line.push('\n');
    Ok(line)
}

fn decode<T: DeserializeOwned>(line: &str) -> Result<T, ClientError> {
    serde_json::from_str(line).map_err(|error| ClientError::Protocol(format!("in its reply: {error}")))
}

async fn call(conn: &Conn, id: u64, line: String, places: &Arc<Semaphore>) -> Result<String, ClientError> {
    let permit = places.clone().acquire_owned().await.map_err(|_| ClientError::Closed)?;
    conn.call(id, line, permit).await
}

async fn patient(
    limit: Duration,
    reply: impl Future<Output = Result<String, ClientError>>,
) -> Result<String, ClientError> {
    match tokio::time::timeout(limit, reply).await {
        Ok(reply) => reply,
        Err(_) => Err(ClientError::Stuck { secs: limit.as_secs() }),
    }
}
