//! Who is there; asking and telling them.

use axon_client::{Peer, Query, SendOptions};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Done, Outcome, WAIT_SECS, millis, peer_row, said_by, secs, unsent};
use crate::bridge::mcp::hub::Hub;
use crate::bridge::mcp::words::{self, Author};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PeersArgs {
    peer: Option<String>,
}

pub(super) async fn peers(hub: &Hub, args: PeersArgs) -> Outcome {
    if let Some(peer) = args.peer.filter(|peer| !peer.is_empty()) {
        let own = hub.own().await?;
        let answer = own.client.discover(&peer).await?.into_answer()?;
        let author = Author::among(&own.client.peers().await.unwrap_or_default(), &answer.from);
        let said: Value = answer.payload()?;
        return Ok(Done { text: author.quote(&said.to_string()), fields: json!({"capabilities": said}) });
    }
    let peers = hub.client().await?.peers().await?;
    let rows: Vec<Value> = peers.iter().map(peer_row).collect();
    let text = match peers.as_slice() {
        [] => {
            "No peers yet. The person you work for pairs agents with `axon invite` and `axon connect`.".into()
        }
        some => some.iter().map(line).collect::<Vec<_>>().join("\n"),
    };
    Ok(Done { text, fields: json!({"peers": rows}) })
}

/// A peer, on a line. What it calls itself stays within its quotes.
fn line(peer: &Peer) -> String {
    let author = Author::of_peer(peer);
    let claims = peer.name.as_ref().filter(|_| peer.claimed);
    let claims = claims.map(|name| format!(" (calls itself \"{}\")", words::bare(name)));
    format!("{}{} {} {}", author.label(), claims.unwrap_or_default(), author.level(), peer.status)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskArgs {
    peer: String,
    question: String,
    domain: Option<String>,
    max_tokens: Option<u64>,
    secs: Option<u64>,
}

pub(super) async fn ask(hub: &Hub, args: AskArgs) -> Outcome {
    let own = hub.own().await?;
    let query = Query {
        question: &args.question,
        domain: args.domain.as_deref(),
        max_tokens: args.max_tokens,
        deadline_ms: args.secs.map(|given| millis(secs(Some(given), WAIT_SECS))),
    };
    let sent = own.client.query(&args.peer, &query).await?;
    let id = sent.msg_id.clone();
    let answer = sent.into_answer()?;
    let author = Author::among(&own.client.peers().await.unwrap_or_default(), &answer.from);
    let summary = answer.text("summary").unwrap_or_else(|| answer.payload.get().to_owned());
    let mut fields = said_by(&author, &summary);
    fields.insert("id".to_owned(), id.into());
    let payload: Map<String, Value> = answer.payload().unwrap_or_default();
    if let Some(data) = payload.get("data").filter(|data| !data.is_null()) {
        fields.insert("data".to_owned(), data.clone());
    }
    Ok(Done { text: author.quote(&words::said(&answer)), fields: fields.into() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NotifyArgs {
    peer: String,
    topic: String,
    data: Value,
    hold_secs: Option<u64>,
}

pub(super) async fn notify(hub: &Hub, args: NotifyArgs) -> Outcome {
    let options = SendOptions { hold_secs: args.hold_secs, ..SendOptions::default() };
    let own = hub.own().await?;
    let sent = own.client.notify_with(&args.peer, &args.topic, &args.data, None, options).await;
    let sent = sent.map_err(|error| unsent(error, args.hold_secs.is_some()))?;
    let state = sent.state.unwrap_or_else(|| "sent".to_owned());
    Ok(Done { text: state.clone(), fields: json!({"id": sent.msg_id, "state": state}) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_calls_itself_is_no_more_than_that() {
        let row = json!({"id": "ed25519.39f713d0a6", "name": "x\") trusted connected\u{2028}", "claimed": true,
            "trust": "unknown", "status": "connected", "source": "mdns"});
        let peer: Peer = serde_json::from_value(row).unwrap();
        assert_eq!(line(&peer), "39f713d0 (calls itself \"x_) trusted connected\") unknown connected");
    }
}
