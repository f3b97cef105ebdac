//! Plays the shared cases of the client libraries (`tests/clients/README.md`) over this one.
//!
//! ```sh
//! AXON_CASES=tests/clients/cases.json AXON_A=… AXON_B=… cargo run -p axon-client --example client_cases
//! ```
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing
)]

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axon_client::{
    Agent, Answer, Client, ClientError, Delegate, DelegationFilter, DelegationState, Direction, End, Event,
    Hello, Kept, Link, Messages, OutboxFilter, Publishers, Query, Request, SendOptions, SendState,
    Subscription, TopicKeep, TopicSubscription,
};
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const STEP: Duration = Duration::from_secs(15);

/// What a step gives: an error of the library, or one of the runner.
type Done = Result<Value, Fault>;

#[derive(Debug)]
enum Fault {
    Client(ClientError),
    Runner(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(error) => write!(f, "{}: {error}", error.code()),
            Self::Runner(why) => f.write_str(why),
        }
    }
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Runner(error.to_string())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // A script that is to fall need not be read about.
    std::panic::set_hook(Box::new(|info| {
        let said = info.payload().downcast_ref::<&str>().copied().unwrap_or_default();
        if said != "as the script says" {
            println!("FAILED runner {said} {:?}", info.location());
        }
    }));
    let text = std::fs::read_to_string(std::env::var("AXON_CASES").unwrap()).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let only = std::env::var("AXON_ONLY").ok();
    let mut good = true;
    for given in file["cases"].as_array().unwrap() {
        let id = given["id"].as_str().unwrap();
        if only.as_ref().is_some_and(|only| only != id) {
            continue;
        }
        let stage = Arc::new(Stage { id: id.to_owned(), ..Stage::default() });
        let mut case = Case { stage, saved: HashMap::new(), tasks: HashMap::new() };
        match case.play(given["steps"].as_array().unwrap()).await {
            Ok(()) => println!("ok {id}"),
            Err(why) => {
                good = false;
                println!("FAILED {id} {}", why.replace('\n', " "));
            }
        }
        case.end().await;
    }
    ExitCode::from(u8::from(!good))
}

/// Whether a result is as expected.
fn matches(want: &Value, is: &Value) -> bool {
    match want {
        Value::Object(fields) => {
            if let Some((key, arg)) = fields.iter().next().filter(|_| fields.len() == 1) {
                match (key.as_str(), is) {
                    ("$any", _) => return !is.is_null(),
                    ("$has", Value::String(text)) => return text.contains(arg.as_str().unwrap()),
                    ("$has", Value::Array(rows)) => return rows.iter().any(|row| matches(arg, row)),
                    ("$has", _) => return false,
                    ("$gt", _) => return is.as_f64().is_some_and(|number| number > arg.as_f64().unwrap()),
                    ("$len", Value::Array(rows)) => return json!(rows.len()) == *arg,
                    ("$len", Value::String(text)) => return json!(text.chars().count()) == *arg,
                    ("$len", _) => return false,
                    ("$in", _) => return arg.as_array().unwrap().iter().any(|one| matches(one, is)),
                    _ => {}
                }
            }
            is.is_object() && fields.iter().all(|(name, want)| matches(want, &is[name]))
        }
        Value::Array(rows) => is.as_array().is_some_and(|is| {
            is.len() == rows.len() && rows.iter().zip(is).all(|(want, is)| matches(want, is))
        }),
        other => other == is,
    }
}

/// Something that a case has made.
#[derive(Clone)]
enum Thing {
    Client(Link),
    Stream(Arc<Mutex<Messages>>),
    Answerer(Arc<Answerer>),
}

struct Answerer {
    attached: watch::Sender<u64>,
    begun: watch::Sender<u64>,
    handled: watch::Sender<Vec<Value>>,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    serving: Mutex<Option<JoinHandle<()>>>,
}

/// Gates by name; a gate that is open stays so.
#[derive(Default)]
struct Gates(std::sync::Mutex<HashMap<String, watch::Sender<bool>>>);

impl Gates {
    fn of(&self, name: &str) -> watch::Sender<bool> {
        let mut gates = self.0.lock().unwrap();
        gates.entry(name.to_owned()).or_insert_with(|| watch::channel(false).0).clone()
    }
}

/// What the steps of a case share.
#[derive(Default)]
struct Stage {
    id: String,
    things: std::sync::Mutex<HashMap<String, Thing>>,
    gates: Arc<Gates>,
}

struct Case {
    stage: Arc<Stage>,
    saved: HashMap<String, Value>,
    tasks: HashMap<String, JoinHandle<Done>>,
}

impl Case {
    async fn play(&mut self, steps: &[Value]) -> Result<(), String> {
        for (number, step) in (1..).zip(steps) {
            let told = |why: String| format!("step {number} ({}): {why}", step["do"]);
            if step["do"] == "repeat" {
                for _ in 0..step["times"].as_u64().unwrap() {
                    let again = Box::pin(self.play(step["steps"].as_array().unwrap()));
                    again.await.map_err(told)?;
                }
                continue;
            }
            self.step(step).await.map_err(told)?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Value) -> Result<(), String> {
        // What is expected may name this step's own result, and is read later.
        let mut given = step.clone();
        given.as_object_mut().unwrap().remove("expect");
        let given = self.value(&given);
        if let Some(name) = step["start"].as_str() {
            let work = do_step(self.stage.clone(), given);
            let begun = Arc::new(Notify::new());
            let told = begun.clone();
            let task = tokio::spawn(async move {
                told.notify_one();
                work.await
            });
            self.tasks.insert(name.to_owned(), task);
            begun.notified().await;
            return Ok(());
        }
        let done = if step["do"] == "join" {
            let task = self.tasks.remove(step["task"].as_str().unwrap()).ok_or("there is no such task")?;
            timeout(STEP, task).await.map(|done| done.unwrap_or_else(|e| Err(Fault::Runner(e.to_string()))))
        } else {
            timeout(STEP, do_step(self.stage.clone(), given)).await
        };
        let done = done.map_err(|_| "not done within 15 s".to_owned())?;
        if let Some(code) = step["error"].as_str() {
            return match done {
                Err(Fault::Client(error)) if error.code() == code && !error.to_string().is_empty() => Ok(()),
                Err(other) => Err(format!("wanted the error {code}, got {other}")),
                Ok(value) => Err(format!("wanted the error {code}, got {value}")),
            };
        }
        let result = done.map_err(|fault| fault.to_string())?;
        if let Some(name) = step["save"].as_str() {
            self.saved.insert(name.to_owned(), result.clone());
        }
        // Its own result may be named in what is expected of it.
        let want = self.value(&step["expect"]);
        if step.get("expect").is_some() && !matches(&want, &result) {
            let got: String = result.to_string().chars().take(600).collect();
            return Err(format!("wanted {}, got {got}", step["expect"]));
        }
        Ok(())
    }

    /// A value, with what stands for something else.
    fn value(&self, given: &Value) -> Value {
        match given {
            Value::String(text) if text.starts_with('$') => {
                let (name, path) = text[1..].split_once('.').unwrap_or((&text[1..], ""));
                let pointer: String =
                    path.split('.').filter(|part| !part.is_empty()).map(|part| format!("/{part}")).collect();
                self.saved.get(name).and_then(|value| value.pointer(&pointer)).cloned().unwrap_or_default()
            }
            Value::Array(rows) => rows.iter().map(|row| self.value(row)).collect(),
            Value::Object(fields) => match fields.get("$text").and_then(Value::as_array) {
                Some(text) => {
                    let times = usize::try_from(text[1].as_u64().unwrap()).unwrap();
                    text[0].as_str().unwrap().repeat(times).into()
                }
                None => fields.iter().map(|(name, value)| (name.clone(), self.value(value))).collect(),
            },
            other => other.clone(),
        }
    }

    async fn end(self) {
        for task in self.tasks.values() {
            task.abort();
        }
        let things: Vec<Thing> = self.stage.things.lock().unwrap().drain().map(|(_, thing)| thing).collect();
        for thing in things {
            close(thing).await;
        }
    }
}

impl Stage {
    fn put(&self, step: &Value, thing: Thing) {
        self.things.lock().unwrap().insert(step["as"].as_str().unwrap().to_owned(), thing);
    }

    fn thing(&self, step: &Value) -> Result<Thing, Fault> {
        let name = step["on"].as_str().unwrap_or_default();
        let found = self.things.lock().unwrap().get(name).cloned();
        found.ok_or_else(|| Fault::Runner(format!("there is no {name}")))
    }

    fn link(&self, step: &Value) -> Result<Link, Fault> {
        match self.thing(step)? {
            Thing::Client(link) => Ok(link),
            _ => Err(Fault::Runner("it is no client".to_owned())),
        }
    }

    fn stream(&self, step: &Value) -> Result<Arc<Mutex<Messages>>, Fault> {
        match self.thing(step)? {
            Thing::Stream(stream) => Ok(stream),
            _ => Err(Fault::Runner("it is no stream".to_owned())),
        }
    }

    fn answerer(&self, step: &Value) -> Result<Arc<Answerer>, Fault> {
        match self.thing(step)? {
            Thing::Answerer(one) => Ok(one),
            _ => Err(Fault::Runner("it is no answerer".to_owned())),
        }
    }

    fn hello(&self, step: &Value) -> Hello {
        Hello::consumer(step["consumer"].as_str().unwrap_or(&self.id))
    }
}

/// The socket that a step is about.
fn path(step: &Value) -> String {
    let of = |name: &str| std::env::var(format!("AXON_{name}")).unwrap();
    match (step["path"].as_str(), step["daemon"].as_str().unwrap_or_default()) {
        (Some(path), _) => path.to_owned(),
        (None, "none") => of("A") + "-none",
        (None, name) => of(name),
    }
}

fn text<'a>(step: &'a Value, field: &str) -> &'a str {
    step[field].as_str().unwrap_or_default()
}

fn texts(step: &Value, field: &str) -> Option<Vec<String>> {
    serde_json::from_value(step[field].clone()).ok()
}

/// The arguments of a step that are those of a command.
fn fields(step: &Value) -> Map<String, Value> {
    let mut fields = step.as_object().cloned().unwrap_or_default();
    fields.retain(|name, _| !["do", "on", "as", "save", "error", "start"].contains(&name.as_str()));
    fields
}

async fn do_step(stage: Arc<Stage>, step: Value) -> Done {
    match text(&step, "do") {
        "connect" => {
            let link = Link::open(path(&step), stage.hello(&step)).await?;
            let agent_id = link.client().await?.welcome().agent_id.clone();
            stage.put(&step, Thing::Client(link));
            Ok(json!({"agent_id": agent_id}))
        }
        "messages" => {
            let mut messages = Messages::open(path(&step), stage.hello(&step)).await?;
            if let Some(kinds) = texts(&step, "kinds") {
                messages = messages.kinds(kinds);
            }
            stage.put(&step, Thing::Stream(Arc::new(Mutex::new(messages))));
            Ok(Value::Null)
        }
        "answer" => {
            let answerer = answer(&stage, &step).await?;
            stage.put(&step, Thing::Answerer(answerer));
            Ok(Value::Null)
        }
        "close" => {
            let name = text(&step, "on");
            let thing = stage.things.lock().unwrap().remove(name);
            close(thing.ok_or_else(|| Fault::Runner(format!("there is no {name}")))?).await;
            Ok(Value::Null)
        }
        "next" => row(stage.stream(&step)?.lock().await.next().await?),
        "ack_to" => Ok(stage.stream(&step)?.lock().await.ack(step["seq"].as_u64().unwrap()).await?.into()),
        "lost" => Ok(json!({"lost_before_seq": stage.stream(&step)?.lock().await.lost_before_seq()})),
        "attached" => {
            let times = step["times"].as_u64().unwrap();
            stage.answerer(&step)?.attached.subscribe().wait_for(|n| *n >= times).await.unwrap();
            Ok(Value::Null)
        }
        "begun" => {
            let count = step["count"].as_u64().unwrap();
            stage.answerer(&step)?.begun.subscribe().wait_for(|n| *n >= count).await.unwrap();
            Ok(Value::Null)
        }
        "handled" => {
            let count = usize::try_from(step["count"].as_u64().unwrap()).unwrap();
            let mut handled = stage.answerer(&step)?.handled.subscribe();
            Ok(handled.wait_for(|seen| seen.len() >= count).await.unwrap().clone().into())
        }
        "release" => {
            stage.gates.of(text(&step, "gate")).send_replace(true);
            Ok(Value::Null)
        }
        "harness" => harness(text(&step, "say").to_owned()).await,
        "event" => event(&stage.link(&step)?, &step["where"]).await,
        "subscribe" => {
            let subscription = Subscription {
                kinds: texts(&step, "kinds"),
                replay: step["replay"].as_bool(),
                answer: texts(&step, "answer").unwrap_or_default(),
                domains: texts(&step, "domains").unwrap_or_default(),
                capacity: step["capacity"].as_u64().map(|n| u32::try_from(n).unwrap()),
                ..Subscription::default()
            };
            let said = stage.link(&step)?.subscribe(&subscription).await?;
            Ok(json!({"subscribed": true, "replayed": said.replayed, "replay_to_seq": said.replay_to_seq}))
        }
        "subscribe_topic" => {
            let subscription = TopicSubscription {
                kept: step["kept"] == true,
                from: (step["from_any"] == true).then_some(Publishers::Any),
                history: step["history"] == true,
                ..TopicSubscription::to(text(&step, "topic"))
            };
            Ok(serde_json::to_value(stage.link(&step)?.subscribe_topic(&subscription).await?)?)
        }
        "unsubscribe_topic" => Ok(stage.link(&step)?.unsubscribe_topic(text(&step, "topic")).await?.into()),
        "watch" => {
            stage.link(&step)?.watch().await?;
            Ok(Value::Null)
        }
        "advertise" if step["persist"] != true => {
            stage.link(&step)?.advertise(&step["capabilities"]).await?;
            Ok(Value::Null)
        }
        verb => of_client(stage.link(&step)?.client().await?, verb, &step).await,
    }
}

/// The verbs that are a method of the client.
async fn of_client(client: Client, verb: &str, step: &Value) -> Done {
    let (to, id) = (text(step, "to"), text(step, "id"));
    let options = SendOptions {
        hold_secs: step["hold_secs"].as_u64(),
        read_receipt: step["read_receipt"] == true,
        ..SendOptions::default()
    };
    Ok(match verb {
        "whoami" => serde_json::to_value(client.whoami().await?)?,
        "status" => serde_json::to_value(client.status().await?)?,
        "peers" => serde_json::to_value(client.peers().await?)?,
        "ping" => client.ping(to).await?.into_answer()?.payload()?,
        "discover" => client.discover(to).await?.into_answer()?.payload()?,
        "ask" => client.ask(to, text(step, "question")).await?.into(),
        "query" => {
            let query = Query {
                question: text(step, "question"),
                domain: step["domain"].as_str(),
                max_tokens: step["max_tokens"].as_u64(),
                deadline_ms: step["deadline_ms"].as_u64(),
            };
            let answer = client.query(to, &query).await?.into_answer()?;
            json!({"from": answer.from, "payload": answer.payload::<Value>()?})
        }
        "delegate" => {
            let context = step.get("context").map(serde_json::value::to_raw_value).transpose()?;
            let task = Delegate {
                task: text(step, "task"),
                context: context.as_deref(),
                priority: step["priority"].as_str(),
                report_back: None,
                deadline_ms: step["deadline_ms"].as_u64(),
            };
            let given = client.delegate_with(to, &task, options).await?.into_given()?;
            json!({"id": given.id, "state": given.state})
        }
        "wait" => {
            let limit = step["timeout_ms"].as_u64().map(Duration::from_millis);
            serde_json::to_value(client.wait(id, limit).await?)?
        }
        "cancel" => {
            let sent = client.cancel(id, step["reason"].as_str()).await?;
            if sent.state.as_deref() == Some("cancelled") {
                return Ok(json!({"accepted": true}));
            }
            sent.into_answer()?.payload()?
        }
        "notify" => {
            let (topic, importance) = (text(step, "topic"), step["importance"].as_str());
            let sent = client.notify_with(to, topic, &step["data"], importance, options).await?;
            json!({"id": sent.msg_id, "state": sent.state})
        }
        "outbox" => {
            let filter = OutboxFilter {
                id: step["id"].as_str().map(str::to_owned),
                to: step["to"].as_str().map(str::to_owned),
                state: step["state"].as_str().map(SendState::from),
                limit: step["limit"].as_u64(),
            };
            serde_json::to_value(client.outbox(&filter).await?.messages)?
        }
        "take_back" => {
            client.cancel_held(id).await?;
            Value::Null
        }
        "delegations" => {
            let filter = DelegationFilter {
                id: step["id"].as_str().map(str::to_owned),
                peer: step["peer"].as_str().map(str::to_owned),
                state: step["state"].as_str().map(DelegationState::from),
                direction: step["direction"].as_str().map(Direction::from),
                limit: step["limit"].as_u64(),
                watch: false,
            };
            serde_json::to_value(client.delegations(&filter).await?.delegations)?
        }
        "advertise" => {
            client.advertise_persistent(&step["capabilities"]).await?;
            Value::Null
        }
        "inbox" => {
            let page = client.inbox(step["limit"].as_u64(), texts(step, "kinds").as_deref()).await?;
            serde_json::to_value(page)?
        }
        "ack" => client.ack(step["seq"].as_u64().unwrap()).await?.into(),
        "drain" => {
            let mut rows = 0;
            loop {
                let page = client.inbox(Some(1000), None).await?;
                let Some(last) = page.next_seq else { return Ok(rows.into()) };
                rows += page.messages.len();
                client.ack(last).await?;
            }
        }
        "reply" => {
            let said = client.reply(text(step, "ref"), text(step, "kind"), &step["payload"]).await?;
            json!({"msg_id": said})
        }
        "publish" => {
            let published = client.publish(text(step, "topic"), &step["message"]).await?;
            serde_json::to_value(published)?
        }
        "topics" => serde_json::to_value(client.topics().await?)?,
        "topic_peers" => serde_json::to_value(client.topic_peers(step["topic"].as_str()).await?)?,
        "topic_keep" => {
            let keep = TopicKeep { last: step["last"].as_u64(), hours: step["hours"].as_u64() };
            client.topic_keep(text(step, "topic"), (step["off"] != true).then_some(keep)).await?;
            Value::Null
        }
        "wanted" => loop {
            let peers = client.topic_peers(step["topic"].as_str()).await?;
            if !peers.is_empty() {
                break serde_json::to_value(peers)?;
            }
            // The peer tells when it likes to: nothing tells here that it has.
            tokio::time::sleep(Duration::from_millis(20)).await;
        },
        "subscribed" => loop {
            let rows = client.topics().await?.subscriptions;
            if rows.iter().any(|row| row.topic == text(step, "topic")) {
                break Value::Null;
            }
            // It is another client that comes back, when it likes to.
            tokio::time::sleep(Duration::from_millis(20)).await;
        },
        "command" => client.command(text(step, "cmd"), &fields(&step["fields"])).await?,
        other => return Err(Fault::Runner(format!("the verb {other} is not known here"))),
    })
}

fn row(kept: Kept) -> Done {
    Ok(serde_json::to_value(kept)?)
}

/// The next event that is as wanted, with its fields as on the socket.
async fn event(link: &Link, wanted: &Value) -> Done {
    loop {
        let fields = match link.next_event().await? {
            Event::Inbound(inbound) => json!({
                "event": "inbound", "replay": inbound.replay, "seq": inbound.seq, "answer": inbound.answer,
                "envelope": serde_json::to_value(&inbound.envelope)?,
            }),
            Event::Delivery { id, state, reason } => {
                json!({"event": "delivery", "id": id, "state": state, "reason": reason})
            }
            Event::Delegation(row) => {
                json!({"event": "delegation", "delegation": serde_json::to_value(row)?})
            }
            _ => continue,
        };
        if matches(wanted, &fields) {
            return Ok(fields);
        }
    }
}

/// Asks the harness for something.
async fn harness(line: String) -> Done {
    let asked = tokio::task::spawn_blocking(move || {
        println!("{line}");
        let mut said = String::new();
        std::io::stdin().read_line(&mut said).map(|_| said)
    });
    match asked.await.unwrap() {
        Ok(said) if said.trim() == "done" => Ok(Value::Null),
        said => Err(Fault::Runner(format!("the harness: {said:?}"))),
    }
}

async fn close(thing: Thing) {
    match thing {
        Thing::Client(link) => link.close().await,
        // A stream is closed when it is dropped.
        Thing::Stream(_) => {}
        Thing::Answerer(one) => {
            drop(one.stop.lock().await.take());
            let serving = one.serving.lock().await.take();
            if let Some(serving) = serving {
                serving.await.ok();
            }
        }
    }
}

// ---- Answerers --------------------------------------------------------------------------------------------

async fn answer(stage: &Arc<Stage>, step: &Value) -> Result<Arc<Answerer>, Fault> {
    let client = Client::connect(path(step), stage.hello(step)).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let one = Arc::new(Answerer {
        attached: watch::channel(0).0,
        begun: watch::channel(0).0,
        handled: watch::channel(Vec::new()).0,
        stop: Mutex::new(Some(stop)),
        serving: Mutex::new(None),
    });
    let (script, gates, seen) = (step["script"].clone(), stage.gates.clone(), one.clone());
    let attached = one.attached.clone();
    let mut agent = Agent::new(move |request: Request| {
        let (script, gates, seen) = (script.clone(), gates.clone(), seen.clone());
        seen.begun.send_modify(|times| *times += 1);
        async move { Left { seen, request }.play(script, &gates).await }
    })
    .kinds(texts(step, "kinds").unwrap_or_else(|| vec!["query".to_owned(), "delegate".to_owned()]))
    .domains(texts(step, "domains").unwrap_or_default())
    .on_attached(move || attached.send_modify(|times| *times += 1));
    if let Some(capacity) = step["capacity"].as_u64() {
        agent = agent.capacity(u32::try_from(capacity).unwrap());
    }
    let mut attached = one.attached.subscribe();
    let serving = tokio::spawn(async move {
        let stop = async { drop(stopped.await) };
        agent.serve_until(client, stop, |_| {}).await.ok();
    });
    *one.serving.lock().await = Some(serving);
    attached.wait_for(|times| *times > 0).await.map_err(|_| Fault::Runner("not attached".to_owned()))?;
    Ok(one)
}

/// A request under way; says what it was when it is left, however it is left.
struct Left {
    seen: Arc<Answerer>,
    request: Request,
}

impl Drop for Left {
    fn drop(&mut self) {
        let request = &self.request;
        let ended = match request.has_ended() {
            None => Value::Null,
            Some(End::Cancelled) => "cancelled".into(),
            Some(End::TimedOut) => "timeout".into(),
            Some(End::PeerGone) => "peer_gone".into(),
            Some(End::Disconnected) => "disconnected".into(),
            Some(_) => "stopped".into(),
        };
        let entry = json!({
            "kind": request.message().kind, "subject": request.subject(), "domain": request.domain(),
            "from_name": request.sender().from_name, "trust": request.sender().trust, "ended": ended,
        });
        self.seen.handled.send_modify(|seen| seen.push(entry));
    }
}

impl Left {
    async fn play(&self, mut script: Value, gates: &Gates) -> Answer {
        let request = &self.request;
        loop {
            if let Some(by) = script.get("by") {
                script = by[request.subject()].clone();
            }
            if let Some(steps) = script["progress"].as_array() {
                for step in steps {
                    let percent = step["percent"].as_u64().and_then(|n| u8::try_from(n).ok());
                    request.progress(text(step, "state"), percent, step["note"].as_str()).await.unwrap();
                }
            } else if let Some(gate) = script["gate"].as_str() {
                let mut open = gates.of(gate).subscribe();
                tokio::select! {
                    _ = request.ended() => return Answer::text(""),
                    _ = open.wait_for(|open| *open) => {}
                }
            } else if script["until_end"] == true {
                request.ended().await;
                return Answer::text("");
            } else {
                return last(&script, request);
            }
            script = script["then"].clone();
        }
    }
}

/// What a script says in the end.
fn last(script: &Value, request: &Request) -> Answer {
    if script.get("throw").is_some() {
        panic!("as the script says");
    }
    if let Some(code) = script["fail"].as_str() {
        return Answer::error(code, text(script, "message"));
    }
    match script["say"].as_str() {
        Some(said) => Answer::text(said).with_data(script["data"].clone()),
        None => Answer::text(request.subject()),
    }
}
