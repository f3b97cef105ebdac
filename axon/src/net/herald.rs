//! A connection of an old identity of ours, made to say one thing to one peer.

use std::sync::Arc;
use std::time::Duration;

use axon_proto::node::Lost;
use axon_proto::wire;
use quinn::{ClientConfig, Connection, Endpoint, VarInt};
use tokio::time::Instant;

use super::cert::Identity;
use super::dial::{self, Attempt, Expected};
use super::stream::{self, Route, Turn};
use crate::names::Names;

/// Close code: all is done.
const DONE: VarInt = VarInt::from_u32(0);

/// One `Effect::Herald`, and the certificate to go with it.
pub(super) struct Herald {
    pub(super) endpoint: Endpoint,
    pub(super) client: ClientConfig,
    pub(super) peer: Identity,
    pub(super) addrs: Vec<String>,
    pub(super) names: Names,
    pub(super) hello: Arc<str>,
    pub(super) message: Arc<str>,
    pub(super) timeout: Duration,
}

/// Dials, says hello, says the message; yields the answer to it.
pub(super) async fn go(herald: Herald) -> Result<Vec<u8>, Lost> {
    let Herald { endpoint, client, peer, addrs, names, hello, message, timeout } = herald;
    let until = Instant::now() + timeout;
    let attempt = Attempt { endpoint, client, peer: peer.id, expected: Expected::Only(peer), names };
    let won = dial::reach(attempt, &addrs, &hello, timeout).await.map_err(Lost::Connection)?;
    let said = tokio::time::timeout_at(until, say(&won.connection, &hello, &message)).await;
    won.connection.close(DONE, b"done");
    said.unwrap_or_else(|_| Err(Lost::Connection("the peer did not answer in time".into())))
}

async fn say(connection: &Connection, hello: &str, message: &str) -> Result<Vec<u8>, Lost> {
    let connection = connection.clone();
    let route = Route { connection, flight: Arc::default(), turn: Turn::default() };
    let answer = stream::ask(&route, hello).await?;
    if !is_hello(answer) {
        return Err(Lost::Connection("the peer did not take our hello".into()));
    }
    stream::ask(&route, message).await
}

fn is_hello(answer: Vec<u8>) -> bool {
    wire::decode(answer).is_ok_and(|answer| answer.kind() == "hello")
}
