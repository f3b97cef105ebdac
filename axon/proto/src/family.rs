//! What a family of kinds is: its vocabulary as data, and a handler that turns inputs into calls on [`Cx`].
//!
//! The node reads stream choice, size and field checks, features, routing and what is kept from the
//! vocabulary. A family decides only what its kinds mean. Adding one is a folder in `kinds/` and a line in
//! `kinds::all`.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::error::{IpcError, Refusal};
use crate::id::{AgentId, MsgId};
use crate::ipc::Command;
use crate::node::{ClientId, ConnId, Now, StreamId};
use crate::pairing::payload::{Knock, Rekey};
use crate::store::{Row, Write};
use crate::wire::{Envelope, Json};

pub use crate::open::{Closed, Ended, Open, OpenState};
pub use crate::view::View;
pub use crate::vocabulary::{Kind, Pattern, Sendable, Vocabulary};

/// A message from a peer that has passed the session's gate.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// The message.
    pub envelope: Arc<Envelope>,
    /// The connection that it came on.
    pub conn: ConnId,
    /// Where an answer goes, for one that came on a bidirectional stream.
    pub stream: Option<StreamId>,
    /// Its number in the inbox, for one that is kept.
    pub seq: Option<u64>,
    /// When it came, in Unix milliseconds.
    pub at_ms: u64,
}

/// Whether a message that is to be kept is taken.
#[derive(Debug)]
pub enum Admit {
    /// Yes; this is stored with it.
    Take(Vec<Write>),
    /// It was taken long ago: it is receipted and not delivered again.
    Known,
    /// No.
    Refuse(Refusal),
}

/// Why an offered request has no agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unclaimed {
    /// No client answers requests of this kind.
    Nobody,
    /// Clients answer the kind, but none this domain; these domains are served.
    NoDomain(Vec<String>),
    /// All are at capacity and the queue is full.
    QueueFull,
}

/// What a family is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// A peer's message of one of its kinds, new and with a payload that passed the kind's check.
    Message {
        /// The message.
        message: &'a Inbound,
        /// Its kind.
        kind: &'static Kind,
    },
    /// A request that was seen before came again; without an answer from the family its stream is reset.
    Repeated {
        /// The message as it came now.
        message: &'a Inbound,
    },
    /// An offered request finds no agent.
    Unclaimed {
        /// The request.
        open: &'a Open,
        /// Why.
        why: Unclaimed,
    },
    /// An open request is past its due time.
    Due {
        /// The request.
        open: &'a Open,
    },
    /// The client that held an answered request, or one that was for it alone, has gone without a lease.
    Abandoned {
        /// The request.
        open: &'a Open,
    },
    /// An agent's word on an open request; the kind is one that the request's pattern allows.
    AgentReply {
        /// Who says it.
        client: ClientId,
        /// The command's id, to answer it.
        req_id: &'a str,
        /// The request.
        open: &'a Open,
        /// The reply's kind.
        kind: &'a str,
        /// The reply's payload, checked.
        payload: &'a Json<'a>,
        /// Whether its client is told only what goes wrong.
        quiet: bool,
    },
    /// A message that was admitted could not be stored.
    NotStored {
        /// The message.
        message: &'a Inbound,
    },
    /// An open request has ended.
    Ended {
        /// The request, as it was.
        open: &'a Open,
        /// How.
        ended: Ended,
    },
    /// A request that was open when the daemon ended is open again; who held it without a lease is gone.
    Restored {
        /// The request.
        open: &'a Open,
    },
    /// The peer's answer to a request of ours, or none if there will be none.
    PeerReply {
        /// The request.
        request: &'a Envelope,
        /// The answer, or why there is none.
        answer: Result<&'a Envelope, NoAnswer>,
    },
    /// A held message of ours will not be sent any more, or was taken out.
    GivenUp {
        /// The message.
        id: MsgId,
        /// Why not.
        why: GivenUp,
    },
    /// A client advertises what its agent can do; none when it has gone.
    Advert {
        /// Which client.
        client: ClientId,
        /// What.
        capabilities: Option<&'a RawValue>,
    },
    /// A consumer advertises what outlives its connection, and it is stored.
    LastingAdvert {
        /// Whose.
        consumer: &'a str,
        /// What; an empty object takes it back.
        capabilities: &'a RawValue,
    },
    /// What [`Act::Fetch`] asked for.
    Fetched {
        /// Which client's command it is for.
        client: ClientId,
        /// The command's id.
        req_id: &'a str,
        /// What the family gave to find its way.
        note: &'a str,
        /// The values, in the order of the keys.
        values: &'a [Option<Arc<[u8]>>],
    },
    /// Hello is done with a peer that was not connected.
    PeerUp {
        /// Which.
        peer: AgentId,
    },
    /// No connection to a peer is left.
    PeerDown {
        /// Which.
        peer: AgentId,
    },
    /// The time has come that [`Family::next_due_ms`] named.
    Timer,
    /// What [`Act::Take`] gave to be stored is stored, or could not be.
    Taken {
        /// The number that the family gave it.
        token: u64,
        /// Whether it is stored.
        stored: bool,
        /// How many of its messages had no room in the inbox, and were told to who listens only.
        refused: u64,
    },
    /// What [`Act::Load`] asked for.
    Loaded {
        /// The number that the family gave it.
        token: u64,
        /// The values, in the order of the keys.
        values: &'a [Option<Arc<[u8]>>],
    },
    /// A client has gone.
    ClientGone {
        /// Which.
        client: ClientId,
    },
    /// A client has said hello: it reads for a consumer from now on.
    ClientHello {
        /// Which.
        client: ClientId,
    },
    /// The settings have changed.
    Settings,
    /// What [`View::capabilities`] says has changed.
    Capabilities,
    /// The daemon ends: what is said now is said last.
    Stopping,
    /// A peer is out: what it said is not shown any more.
    PeerOut {
        /// Which.
        peer: AgentId,
    },
    /// A scoped socket was removed.
    SocketGone {
        /// Its name.
        socket: &'a str,
    },
    /// A peer has another key, and so another id.
    Successor {
        /// The id that it had.
        old: AgentId,
        /// The id that it has.
        new: AgentId,
    },
    /// Everything that was stored is restored, and what was open is open again.
    Started,
    /// Time has passed (some seconds).
    Tick,
}

/// Why a held message of ours will not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// Its time was up.
    Expired,
    /// Its sender took it out.
    Cancelled,
    /// Its peer is no longer known, or its copy on disk is damaged.
    Refused,
    /// It left, and whether it arrived is not known.
    Unknown,
}

/// Why a request of ours has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// It has not left.
    NotSent,
    /// It has left, and the peer may have it.
    Unknown,
    /// It will be sent again.
    HeldBack,
}

/// What a family wants done, in order.
#[derive(Debug)]
pub enum Act {
    /// Answer a request on its stream.
    Reply {
        /// The stream.
        stream: StreamId,
        /// The requester.
        to: AgentId,
        /// The request.
        reference: MsgId,
        /// The answer's kind.
        kind: &'static str,
        /// Its payload.
        payload: Json<'static>,
        /// The agent's command that it comes from, to be told the answer's id.
        command: Option<(ClientId, String)>,
    },
    /// Give a request to an agent.
    Offer {
        /// The request.
        message: Inbound,
        /// Its kind.
        kind: &'static Kind,
        /// The domain that it asks for.
        domain: Option<String>,
        /// When it is due.
        due_ms: Option<u64>,
        /// Whether it may wait for an agent that is not attached yet.
        parkable: bool,
    },
    /// Give a request to this client and no other.
    OfferTo {
        /// The request.
        message: Inbound,
        /// Its kind.
        kind: &'static Kind,
        /// Who gets it.
        client: ClientId,
        /// Whether it stays that client's own.
        lease: bool,
        /// When it is due.
        due_ms: Option<u64>,
    },
    /// Note that an open request has been answered on its stream and goes on, due at another time.
    Answered {
        /// The request.
        id: MsgId,
        /// The answer's payload, to repeat it.
        payload: Arc<str>,
        /// Whether an agent, not the daemon, has accepted it.
        taken: bool,
        /// When the rest is due.
        due_ms: Option<u64>,
    },
    /// Let an open request wait in the inbox for the next answerer.
    Park {
        /// The request.
        id: MsgId,
    },
    /// Take an open request from an agent that vanished and offer it anew.
    Requeue {
        /// The request.
        id: MsgId,
    },
    /// Take a request that had been turned away, and has come again, as if it were new.
    Again {
        /// The message as it came now.
        message: Inbound,
    },
    /// End an open request; whoever holds it and did not end it himself is told.
    End {
        /// The request.
        id: MsgId,
        /// How.
        ended: Ended,
        /// The client that knows already.
        by: Option<ClientId>,
    },
    /// A client has accepted an open request that another held or none: from now on it is its own, with a
    /// lease.
    Adopt {
        /// The request.
        id: MsgId,
        /// Who accepted it.
        client: ClientId,
    },
    /// An unanswered request came again: answer it where it came last.
    Restream {
        /// The request.
        id: MsgId,
        /// The message as it came last.
        message: Inbound,
    },
    /// Put a one-way message into the inbox and show it to subscribers.
    Deliver {
        /// The message.
        message: Inbound,
    },
    /// Send one way to a peer, on behalf of nobody or of a client's command.
    Send {
        /// To whom.
        to: AgentId,
        /// What.
        kind: &'static str,
        /// About which message.
        reference: Option<MsgId>,
        /// The payload.
        payload: Json<'static>,
        /// The command that is answered when it has arrived.
        command: Option<(ClientId, String)>,
        /// The open request that has ended so once this is on disk.
        ends: Option<(MsgId, Ended)>,
        /// It is stored before anything else, together with these, and sent until it arrives; none: it is
        /// sent once.
        held: Option<Vec<Write>>,
    },
    /// Store an item of the family's, soon.
    Put {
        /// Its key, which begins with the family's name.
        key: String,
        /// Its value.
        value: Arc<[u8]>,
    },
    /// Remove an item of the family's, soon.
    Delete {
        /// Its key.
        key: String,
    },
    /// Read items of the family's; they come as [`Input::Fetched`].
    Fetch {
        /// The family's name.
        family: &'static str,
        /// Which client's command it is for.
        client: ClientId,
        /// The command's id.
        req_id: String,
        /// What to give back with them.
        note: String,
        /// Their keys.
        keys: Vec<String>,
    },
    /// Read items of the family's; they come as [`Input::Loaded`].
    Load {
        /// The family's name.
        family: &'static str,
        /// Names the end.
        token: u64,
        /// Their keys.
        keys: Vec<String>,
    },
    /// Put messages of this daemon's own making into the inbox, and store these with them, all or nothing.
    Take {
        /// The family's name.
        family: &'static str,
        /// Names the end, [`Input::Taken`].
        token: u64,
        /// The messages.
        notes: Vec<Note>,
        /// Whether they are stored; else they are shown to whoever listens, and to nobody later.
        kept: bool,
        /// What is stored with them.
        writes: Vec<Write>,
    },
    /// Messages of a kind could not be shown: whoever listens is told that some are missing.
    Missed {
        /// The kind.
        kind: &'static str,
    },
    /// A client's command is answered later, by [`Act::Fulfil`]: the client does not go before.
    Promise {
        /// Which client.
        client: ClientId,
    },
    /// Answer a command of which that was said.
    Fulfil {
        /// Which client.
        client: ClientId,
        /// The command's id.
        req_id: String,
        /// What to say.
        result: Result<Arc<str>, IpcError>,
    },
    /// From now on a client is shown a kind, besides what it has subscribed to, or no longer.
    Listen {
        /// Which client.
        client: ClientId,
        /// The kind.
        kind: &'static str,
        /// Whether it is shown.
        on: bool,
    },
    /// Say a line to a client.
    Tell {
        /// Which client.
        client: ClientId,
        /// The line.
        line: Arc<str>,
    },
    /// A client's command is answered later, or has been answered.
    Await {
        /// Which client.
        client: ClientId,
        /// Whether it waits.
        waits: bool,
    },
    /// From now on a client is told of every change of a delegation, or no longer.
    Watch {
        /// Which client.
        client: ClientId,
        /// Whether it is told.
        on: bool,
    },
    /// A delegation has changed: say so to the clients that watch them.
    TellWatchers {
        /// The line.
        line: Arc<str>,
        /// The other side.
        peer: AgentId,
        /// The scoped socket that the delegation was given by; none: it is the owner's.
        via: Option<Box<str>>,
    },
    /// A peer says that a message of ours was read there.
    WasRead {
        /// The peer.
        by: AgentId,
        /// The message.
        id: MsgId,
        /// It was read, and not something else that this version does not know.
        read: bool,
        /// What said so.
        message: Inbound,
    },
    /// A peer, known or not, wants in.
    Knock {
        /// The message.
        message: Inbound,
        /// What it says.
        knock: Box<Knock>,
    },
    /// A peer has a new key.
    Rekey {
        /// The message.
        message: Inbound,
        /// What it says.
        rekey: Box<Rekey>,
    },
    /// Answer a client's command: the id of the message it led to, or an error.
    Answer {
        /// Which client.
        client: ClientId,
        /// Which command.
        req_id: String,
        /// What to say.
        result: Result<MsgId, IpcError>,
    },
    /// Refuse a one-way message: count it, and say so where it asked for a receipt.
    Drop {
        /// The message.
        message: Inbound,
        /// Why.
        refusal: Refusal,
    },
}

/// A message of this daemon's own making, for its clients.
#[derive(Debug, Clone)]
pub struct Note {
    /// Its id.
    pub id: MsgId,
    /// In whose name.
    pub from: AgentId,
    /// Its kind.
    pub kind: &'static str,
    /// When it was made by whom it is from, in Unix milliseconds.
    pub ts_ms: u64,
    /// Its payload.
    pub payload: Box<RawValue>,
}

/// A family's hands: a view of the node, the time, and a list of what to do.
pub struct Cx<'a> {
    /// The time of the input.
    pub now: Now,
    /// This agent.
    pub me: AgentId,
    /// What may be looked at.
    pub view: &'a dyn View,
    /// The scoped socket on whose behalf something is sent; none: the owner's, or nobody's.
    pub via: Option<Box<str>>,
    pub(crate) acts: &'a mut VecDeque<Act>,
}

impl Cx<'_> {
    /// Adds to what is to be done.
    pub fn act(&mut self, act: Act) {
        self.acts.push_back(act);
    }

    /// Sends one way to a peer, once, on behalf of nobody.
    pub fn send(&mut self, to: AgentId, kind: &'static str, payload: impl Into<Json<'static>>) {
        let payload = payload.into();
        let (reference, command, ends, held) = (None, None, None, None);
        self.act(Act::Send { to, kind, reference, payload, command, ends, held });
    }

    /// Answers a request on its stream; one that came without a stream has nobody to answer.
    pub fn reply(&mut self, to: &Inbound, kind: &'static str, payload: impl Into<Json<'static>>) {
        let payload = payload.into();
        if let Some(stream) = to.stream {
            let (to, reference) = (to.envelope.from, to.envelope.id);
            self.act(Act::Reply { stream, to, reference, kind, payload, command: None });
        }
    }

    /// Refuses a request on its stream.
    pub fn refuse(&mut self, to: &Inbound, refusal: &Refusal) {
        self.reply(to, "error", error_payload(refusal));
    }
}

/// The payload of the `error` kind.
pub fn error_payload(refusal: &Refusal) -> Box<RawValue> {
    #[derive(serde::Serialize)]
    struct Error<'a> {
        code: &'a str,
        message: &'a str,
        retryable: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    }
    let Refusal { code, message, retry_after_ms } = refusal;
    let (retryable, retry_after_ms) = (code.retryable(), *retry_after_ms);
    crate::wire::to_raw(&Error { code: code.as_str(), message, retryable, retry_after_ms })
}

/// A family of kinds.
pub trait Family: Send {
    /// Its words.
    fn vocabulary(&self) -> &'static Vocabulary;
    /// One input, to the end.
    fn handle(&mut self, input: Input<'_>, cx: &mut Cx<'_>);
    /// Whether a message that is to be kept is taken. [`Input::Message`] follows once it is stored.
    fn admit(&mut self, message: &Inbound, kind: &'static Kind, cx: &mut Cx<'_>) -> Admit {
        let _ = (message, kind, cx);
        Admit::Take(Vec::new())
    }
    /// A client's message is about to leave, or to be held: what must be stored before.
    fn sending(&mut self, envelope: &Envelope, held: bool, cx: &mut Cx<'_>) -> Vec<Write> {
        let _ = (envelope, held, cx);
        Vec::new()
    }
    /// What is to be stored when a consumer advertises what outlives its connection; an empty object takes it
    /// back. [`Input::LastingAdvert`] follows once it is.
    ///
    /// # Errors
    /// When there are too many of them.
    fn lasting_advert(&self, consumer: &str, capabilities: &RawValue) -> Result<Option<Write>, IpcError> {
        let _ = (consumer, capabilities);
        Ok(None)
    }
    /// When the family is to be given [`Input::Timer`], on the monotonic clock.
    fn next_due_ms(&self) -> Option<u64> {
        None
    }
    /// Whether a consumer, by this client, is shown a row of a kind of the family's, which the family made.
    fn shows(&self, client: ClientId, consumer: &str, row: &Row) -> bool {
        let _ = (client, consumer, row);
        true
    }
    /// What the family adds to `status`: a field, and its JSON.
    fn status(&self) -> Option<(&'static str, String)> {
        None
    }
    /// What this agent can do, of the family that knows.
    fn capabilities(&self, cx: &Cx<'_>) -> Option<Box<RawValue>> {
        let _ = cx;
        None
    }
    /// Takes over an item of the store whose key begins with the family's name.
    fn restore(&mut self, key: &str, value: &[u8]) {
        let _ = (key, value);
    }
    /// A client's command that is the family's own.
    ///
    /// # Errors
    /// None when it is no command of the family.
    fn command(
        &mut self,
        client: ClientId,
        name: &str,
        command: &Command<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Result<(), IpcError>> {
        let _ = (client, name, command, cx);
        None
    }
    /// The scoped socket that a delegation was given by; none: the owner's, or there is no such one.
    fn given_by(&self, reference: MsgId) -> Option<Box<str>> {
        let _ = reference;
        None
    }
    /// Whom a message about `reference` concerns, where its sender need not say (the peer of a delegation).
    fn peer_of(&self, reference: MsgId) -> Option<AgentId> {
        let _ = reference;
        None
    }
}
