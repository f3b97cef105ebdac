//! Typed client of the axon daemon's Unix socket (IPC version 2, `spec/IPC.md`).
//!
//! [`Client`] is one connection: ask, delegate, notify, read the inbox, subscribe. [`Link`] makes it again
//! when it has ended. [`Messages`] is the inbox as a stream, with acknowledgement, over restarts of the
//! daemon. [`Agent`] turns a closure into an agent that answers what peers ask. All need a tokio runtime; a
//! current-thread one will do.
//!
//! What must not get lost is kept by the daemon: [`SendOptions::hold`] keeps a message for a peer that cannot
//! be reached, [`Client::outbox`] tells how far each has come, [`Client::delegations`] what became of work.
//!
//! What is published on a topic goes over several hops to whoever has subscribed: [`Client::publish`],
//! [`Client::subscribe_topic`].
//!
//! Who may talk is the owner's word: [`Client::invite`] and [`Client::pair`] pair two agents,
//! [`Client::trust`] says how far each is trusted, and every message tells it with its [`Sender`]. The path
//! of a scoped socket serves as well as the main one; what it may not do is `not_authorized`.
//!
//! ```no_run
//! use axon_client::{Agent, Answer, Client, Hello};
//!
//! # async fn example() -> Result<(), axon_client::ClientError> {
//! let client = Client::connect("/home/ada/.axon/axon.sock", Hello::default()).await?;
//! let agent = Agent::new(|request| async move {
//!     Answer::text(format!("You asked: {}", request.subject()))
//! });
//! Err(agent.serve(&client).await)
//! # }
//! ```

mod agent;
mod answer;
mod client;
mod conn;
mod error;
mod held;
mod link;
mod messages;
mod owner;
mod presence;
mod raw;
#[cfg(test)]
mod tests;
mod topics;
mod trust;
mod types;
mod words;

pub use agent::{Agent, End, Request};
pub use answer::{Answer, PAYLOAD_BYTES_MAX, truncate};
pub use client::Client;
pub use error::ClientError;
pub use held::{
    Delegation, DelegationFilter, DelegationState, Delegations, Direction, Given, Outbox, OutboxFilter,
    Outgoing, Reported, SendState,
};
pub use link::Link;
pub use messages::Messages;
pub use presence::{
    FindOptions, Found, Presence, PresenceChange, PresenceEvent, PresenceStatus, Presences, Said,
};
pub use raw::Raw;
pub use topics::{
    Published, Publishers, TopicCounts, TopicKeep, TopicKept, TopicMessage, TopicPeer, TopicRow, TopicSeen,
    TopicSubscribed, TopicSubscription, Topics,
};
pub use trust::{
    Approved, Connect, Connected, Constraints, Contact, Contacts, Decision, Intent, Invite, InviteOptions,
    Invited, Knock, PairState, Paused, PolicyCheck, Rekeyed, Right, Ruling, Scope, SetTrust, Socket, Trust,
    Trusted,
};
pub use types::{
    Delegate, Dropped, Event, Hello, Inbound, Inbox, Kept, Message, Peer, PeersUnread, Query, SendOptions,
    Sender, Sent, Status, Subscribed, Subscription, Welcome, Whoami,
};
