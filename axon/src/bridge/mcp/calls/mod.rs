//! The tools: what each does, and what of it the model reads.

mod asking;
mod came;
mod own;
mod work;

use std::time::Duration;

use axon_client::{ClientError, Peer};
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use rmcp::service::{RequestContext, RoleServer};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::hub::Hub;
use super::words::{self, Author};
pub use came::inbox_text;
pub use work::{delegation_row, is_below, task_line};

/// How long `wait` waits when it is not told: less than the minute after which clients give a call up.
const WAIT_SECS: u64 = 50;
/// The longest that a call waits.
const WAIT_SECS_MAX: u64 = 3600;
/// Rows shown at once, unless more are asked for, and at most.
const ROWS: (usize, usize) = (10, 100);

/// A call that failed.
#[derive(Debug)]
pub enum Fault {
    /// What the model reads.
    Said(String),
    /// What the daemon, or a peer, says to it.
    Client(ClientError),
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Fault {
    fn usage(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }

    async fn into_result(self, hub: &Hub) -> CallToolResult {
        let text = match self {
            Self::Said(text) => text,
            // What a peer says to a failure is a peer's words as well.
            Self::Client(ClientError::Peer { code, message, from, .. }) => {
                let peers = match hub.client().await {
                    Ok(client) => client.peers().await.unwrap_or_default(),
                    Err(_) => Vec::new(),
                };
                let author = Author::among(&peers, &from);
                let said = author.quote(&message);
                format!("{}: {} refused or failed:\n{said}", words::kind(&code), author.label())
            }
            Self::Client(other) => words::harmless(&format!("{}: {other}", other.code())),
        };
        CallToolResult::error(vec![ContentBlock::text(text)])
    }
}

/// What a call came to.
struct Done {
    text: String,
    fields: Value,
}

type Outcome = Result<Done, Fault>;

/// Runs a tool. Nothing is given for a name that is no tool.
pub async fn call(
    hub: &Hub,
    name: &str,
    arguments: JsonObject,
    cx: &RequestContext<RoleServer>,
) -> Option<CallToolResult> {
    let _place = match hub.begin() {
        Ok(place) => place,
        Err(error) => return Some(Fault::from(error).into_result(hub).await),
    };
    let outcome = match name {
        "peers" => run(arguments, |args| asking::peers(hub, args)).await,
        "ask" => run(arguments, |args| until_cancelled(cx, asking::ask(hub, args))).await,
        "delegate" => run(arguments, |args| work::delegate(hub, args, cx)).await,
        "wait" => run(arguments, |args| until_cancelled(cx, work::wait(hub, args, cx))).await,
        "notify" => run(arguments, |args| until_cancelled(cx, asking::notify(hub, args))).await,
        "inbox" => run(arguments, |args| came::inbox(hub, args)).await,
        "reply" => run(arguments, |args| came::reply(hub, args)).await,
        "result" => run(arguments, |args| came::result(hub, args)).await,
        "advertise" => run(arguments, |args| own::advertise(hub, args)).await,
        "status" => run(arguments, |args| own::status(hub, args)).await,
        _ => return None,
    };
    Some(match outcome {
        Ok(done) => {
            let mut result = CallToolResult::success(vec![ContentBlock::text(done.text)]);
            result.structured_content = Some(words::harmless_value(done.fields));
            result
        }
        Err(fault) => fault.into_result(hub).await,
    })
}

async fn run<A: DeserializeOwned, F>(arguments: JsonObject, tool: impl FnOnce(A) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let mut arguments = arguments;
    // Some clients give what is left out as null; `data` may be null in earnest.
    arguments.retain(|name, value| !value.is_null() || name == "data");
    match serde_json::from_value(Value::Object(arguments.clone())) {
        Ok(args) => tool(args).await,
        Err(error) => {
            let name = wrong_one::<A>(&arguments, &error).map(|name| format!("{name}: ")).unwrap_or_default();
            Err(Fault::usage(format!("wrong arguments: {name}{error}")))
        }
    }
}

/// What a message failed with that could have been held for a peer that is away, and was not.
fn unsent(error: ClientError, held: bool) -> Fault {
    if error.code() == "peer_unreachable" && !held {
        let text = words::harmless(&error.to_string());
        return Fault::Said(format!(
            "peer_unreachable: {text}; with hold_secs it is kept until the peer is back"
        ));
    }
    error.into()
}

/// The argument that an error is about, where the error itself does not name it: without that one there is
/// no error, or another.
fn wrong_one<A: DeserializeOwned>(arguments: &JsonObject, error: &serde_json::Error) -> Option<String> {
    let error = error.to_string();
    if error.contains('`') && error.contains("field") {
        return None;
    }
    let without = |name: &str| {
        let mut rest = arguments.clone();
        rest.remove(name);
        serde_json::from_value::<A>(Value::Object(rest)).map(drop).map_err(|error| error.to_string())
    };
    arguments.keys().find(|name| without(name).err().as_deref() != Some(&*error)).cloned()
}

/// The call, unless its client gives it up: what it waits for then ends with its connection.
async fn until_cancelled(cx: &RequestContext<RoleServer>, tool: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        done = tool => done,
        () = cx.ct.cancelled() => Err(Fault::usage("cancelled")),
    }
}

/// Whole seconds to wait, within bounds.
fn secs(given: Option<u64>, default: u64) -> Duration {
    Duration::from_secs(given.unwrap_or(default).clamp(1, WAIT_SECS_MAX))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A peer, as programs read it.
pub fn peer_row(peer: &Peer) -> Value {
    let trust = Author::of_peer(peer).level().to_owned();
    let mut row = json!({"id": peer.id, "trust": trust, "status": peer.status});
    // One that is not what it looks like could be taken for another's.
    if let Some(name) =
        peer.name.as_ref().filter(|name| peer.claimed || Author::of_peer(peer).label() == **name)
    {
        row["name"] = name.as_str().into();
    }
    if peer.claimed {
        row["claimed"] = true.into();
    }
    if let Some(ms) = peer.rtt_ms {
        row["rtt_ms"] = ms.into();
    }
    row
}

fn said_by(author: &Author, text: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("from".to_owned(), author.label().into());
    fields.insert("trust".to_owned(), author.level().into());
    fields.insert("text".to_owned(), text.into());
    fields
}
