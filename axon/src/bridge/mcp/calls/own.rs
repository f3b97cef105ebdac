//! Oneself: what one can do, who one is, and what is open.

use axon_client::{ClientError, Delegation, DelegationFilter, Direction, Peer};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::came::{strangers, unread_below};
use super::work::{delegation_row, is_below, task_line};
use super::{Done, Outcome};
use crate::bridge::mcp::hub::Hub;
use crate::bridge::mcp::words::short;

/// Delegations that `status` lists.
const OPEN_MAX: usize = 20;
/// Characters of their tasks.
const TASK_CHARS: usize = 80;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdvertiseArgs {
    name: Option<String>,
    domains: Option<Vec<String>>,
    tools: Option<Vec<String>>,
}

pub(super) async fn advertise(hub: &Hub, args: AdvertiseArgs) -> Outcome {
    let mut capabilities = Map::new();
    if let Some(name) = args.name {
        capabilities.insert("agent_name".to_owned(), name.into());
    }
    for (key, list) in [("domains", args.domains), ("tools", args.tools)] {
        if let Some(list) = list {
            capabilities.insert(key.to_owned(), list.into());
        }
    }
    let text = if capabilities.is_empty() { "taken back" } else { "peers are told when they ask" };
    hub.client().await?.advertise_persistent(&capabilities).await?;
    Ok(Done { text: text.to_owned(), fields: json!({"advertised": !capabilities.is_empty()}) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

pub(super) async fn status(hub: &Hub, _: Nothing) -> Outcome {
    let client = hub.client().await?;
    let (me, counts) = (client.whoami().await?, client.status().await?);
    let peers = client.peers().await?;
    let open = match open_delegations(hub, &peers).await {
        Ok(open) => open,
        // A scoped socket may not be allowed to see any.
        Err(error) if error.code() == "not_authorized" => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let (requests, hidden) = hub.requests(hub.floor());
    let page = hub.rows().await;
    let unknown = hidden + page.as_ref().map_or(0, |page| unread_below(hub, &page.messages));
    let unread = page.map_or(0, |page| hub.desk(|desk| desk.unread(&page.messages, hub.floor()).len()));
    let mut lines = vec![format!(
        "{} {}; {} peers connected; {} requests and {unread} messages in the inbox{}",
        me.name.as_deref().unwrap_or("no name"),
        short(&me.agent_id),
        counts.peers_connected,
        requests.len(),
        strangers(hub, unknown),
    )];
    if counts.paused {
        lines.push("paused by its owner: nothing of peers comes in".to_owned());
    }
    if let Some(why) = hub.trouble() {
        lines.push(format!("requests of peers cannot be taken: {why}"));
    }
    for row in &open {
        let way = if row.direction == Direction::Out { "given to" } else { "taken from" };
        let (id, peer, task) = (short(&row.id), short(&row.peer), task_line(row, &peers, TASK_CHARS));
        lines.push(format!("{id} {way} {peer}: {} {task}", row.state));
    }
    let rows: Vec<Value> = open.iter().map(|row| delegation_row(row, &peers)).collect();
    let mut fields = json!({
        "agent_id": me.agent_id, "peers_connected": counts.peers_connected, "paused": counts.paused,
        "requests": requests.len(), "unread": unread, "unknown": unknown, "delegations": rows,
    });
    if let Some(name) = me.name {
        fields["name"] = name.into();
    }
    Ok(Done { text: lines.join("\n"), fields })
}

/// Delegations of both directions that have not ended. Those of peers below the floor are requests that are
/// counted only.
async fn open_delegations(hub: &Hub, peers: &[Peer]) -> Result<Vec<Delegation>, ClientError> {
    let filter = DelegationFilter { limit: Some(1000), ..DelegationFilter::default() };
    let rows = hub.client().await?.delegations(&filter).await?.delegations;
    let open = rows.into_iter().filter(|row| !row.state.is_ended() && !is_below(hub, row, peers));
    Ok(open.take(OPEN_MAX).collect())
}
