//! The specification agrees with itself and with the code: examples, pages and what a daemon really says,
//! against the schemas and the code's own types.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use axon_proto::kinds::core::payload;
use axon_proto::kinds::presence::{beacon, find};
use axon_proto::kinds::topics::wire as topics;
use axon_proto::pairing::payload as pairing;
use axon_proto::{ipc, wire};
use jsonschema::{Registry, Validator};
use serde_json::{Value, json};

use crate::support;
use crate::support::{Daemon, RawClient, pair};

/// Under which the schemas are known to each other, by their file names.
const BASE: &str = "axon:///schema/";

fn spec(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("spec").join(path)
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every schema by its name.
struct Schemas {
    registry: Registry<'static>,
    all: BTreeMap<String, Value>,
}

impl Schemas {
    fn load() -> Self {
        let all: BTreeMap<String, Value> =
            entries(&spec("schema")).iter().map(|path| (stem(path), read(path))).collect();
        let mut registry = Registry::new();
        for (name, schema) in &all {
            registry = registry.add(format!("{BASE}{name}.json"), schema.clone()).unwrap();
        }
        Self { registry: registry.prepare().unwrap(), all }
    }

    /// For a schema, or a part of one: `ipc-reply#/$defs/hello`.
    fn validator(&self, name: &str) -> Validator {
        let (file, part) = name.split_once('#').unwrap_or((name, ""));
        let schema = json!({"$ref": format!("{BASE}{file}.json#{part}")});
        let options = jsonschema::options().with_registry(&self.registry);
        options.build(&schema).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// What is wrong with this value, in words; empty when nothing is.
    fn faults(&self, name: &str, value: &Value) -> Vec<String> {
        let validator = self.validator(name);
        let tell = |error: jsonschema::ValidationError<'_>| {
            format!("{name}, at `{}`: {error}", error.instance_path())
        };
        validator.iter_errors(value).map(tell).collect()
    }

    /// Fails unless the value is as the schema says.
    fn check(&self, name: &str, value: &Value) {
        let faults = self.faults(name, value);
        assert!(faults.is_empty(), "{}\n{value:#}", faults.join("\n"));
    }

    /// The part of `ipc-reply` for a command's reply.
    fn reply_of(&self, command: &Value, reply: &Value) -> String {
        let name = match command["cmd"].as_str().unwrap() {
            _ if reply["ok"] == false => "failure",
            "send" if reply.get("response").is_some() => "send-answered",
            "send" => "send-sent",
            other => other,
        };
        assert!(self.all["ipc-reply"]["$defs"].get(name).is_some(), "no reply to {name} in the schema");
        format!("ipc-reply#/$defs/{name}")
    }
}

/// Reads a payload of this kind as the code does.
fn typed(kind: &str, text: &str) -> Result<(), String> {
    match kind {
        "query" => payload::check_query(text),
        "response" => payload::check_response(text),
        "delegate" => payload::check_delegate(text),
        "ack" => payload::check_ack(text),
        "progress" => payload::check_progress(text),
        "result" => payload::check_result(text),
        "cancel" => payload::check_cancel(text),
        "notify" => payload::check_notify(text),
        "capabilities" => payload::check_capabilities(text),
        "error" => payload::check_error(text),
        "pong" => payload::check_pong(text),
        "receipt" => payload::check_receipt(text),
        "knock" => pairing::check_knock(text),
        "admission" => pairing::check_admission(text),
        "rekey" => pairing::check_rekey(text),
        "presence.beacon" => beacon::check(text),
        "presence.find" => find::check_find(text),
        "presence.found" => find::check_found(text),
        "topic.join" => topics::check_join(text),
        "topic.leave" => topics::check_leave(text),
        "topic.gossip" => topics::check_gossip(text),
        // Read by the session, or without fields.
        "hello" | "ping" | "discover" => Ok(()),
        // Made by daemons for their own clients, and read by none.
        "topic.message" => Ok(()),
        other => Err(format!("no typed payload for {other}")),
    }
}

/// Checks a whole envelope against its schema and the code, byte for byte.
fn envelope(schemas: &Schemas, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap();
    schemas.check("envelope", &value);
    let decoded = wire::decode(text.as_bytes().to_vec()).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    assert_eq!(*decoded.kind(), *value["kind"].as_str().unwrap());
    assert_eq!(serde_json::from_str::<Value>(decoded.payload()).unwrap(), value["payload"]);
    if schemas.all.contains_key(decoded.kind()) {
        schemas.check(decoded.kind(), &value["payload"]);
        typed(decoded.kind(), decoded.payload()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
}

/// Checks one line of the socket, in either direction.
fn line(schemas: &Schemas, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap();
    let sorts = ["cmd", "ok", "event", "inbound"].iter().filter(|sort| value.get(sort).is_some());
    assert_eq!(sorts.count(), 1, "of one sort: {text}");
    assert!(value.get("event").is_none() || value.get("req_id").is_none(), "{text}");
    if value.get("cmd").is_some() {
        schemas.check("ipc-command", &value);
        let command = ipc::Command::parse(text.as_bytes()).unwrap();
        assert_eq!(command.name().unwrap(), value["cmd"].as_str().unwrap());
        if let (Some(kind), Some(payload)) = (value["kind"].as_str(), value.get("payload")) {
            schemas.check(kind, payload);
        }
    } else if value.get("ok").is_some() {
        schemas.check("ipc-reply", &value);
    } else {
        schemas.check("ipc-event", &value);
    }
    envelopes_in(schemas, &value);
}

fn envelopes_in(schemas: &Schemas, value: &Value) {
    for found in [&value["envelope"], &value["response"]] {
        if found.is_object() {
            envelope(schemas, &found.to_string());
        }
    }
    for row in value["messages"].as_array().into_iter().flatten() {
        envelopes_in(schemas, row);
    }
}

#[test]
fn every_example_is_valid_for_its_schema_and_the_code() {
    let schemas = Schemas::load();
    for folder in entries(&spec("examples")) {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(schemas.all.contains_key(&name), "spec/examples/{name} names no schema");
        let examples = entries(&folder);
        assert!(examples.len() >= 2, "spec/examples/{name} has {} examples", examples.len());
        for path in examples {
            let value = read(&path);
            schemas.check(&name, &value);
            let text = value.to_string();
            match name.as_str() {
                "envelope" => envelope(&schemas, &text),
                "ipc-reply" => {
                    line(&schemas, &text);
                    // `inbox-empty.json` is an `inbox`.
                    let defs = schemas.all["ipc-reply"]["$defs"].as_object().unwrap();
                    let name = stem(&path).replace("send-error-envelope", "send-answered");
                    let named = defs.keys().filter(|def| name.starts_with(def.as_str()));
                    let def =
                        named.max_by_key(|def| def.len()).unwrap_or_else(|| panic!("{}", path.display()));
                    schemas.check(&format!("ipc-reply#/$defs/{def}"), &value);
                }
                "ipc-command" | "ipc-event" => line(&schemas, &text),
                kind => typed(kind, &text).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            }
        }
    }
    for name in schemas.all.keys() {
        assert!(spec("examples").join(name).is_dir(), "no examples for {name}.json");
    }
}

#[test]
fn schemas_refuse_what_lacks_a_required_field() {
    let schemas = Schemas::load();
    for (name, schema) in &schemas.all {
        for field in schema["required"].as_array().into_iter().flatten() {
            for path in entries(&spec("examples").join(name)) {
                let mut value = read(&path);
                value.as_object_mut().unwrap().remove(field.as_str().unwrap());
                assert!(
                    !schemas.faults(name, &value).is_empty(),
                    "{name} without {field}: {}",
                    path.display()
                );
                // The code refuses it as well.
                if schemas.all["envelope"]["allOf"].to_string().contains(&format!("\"{name}.json\""))
                    && !["hello", "topic.message"].contains(&name.as_str())
                {
                    assert!(typed(name, &value.to_string()).is_err(), "{name} without {field}");
                }
            }
        }
    }
}

/// The lines of JSON in a page's blocks of JSON.
fn lines_of(page: &str) -> Vec<String> {
    let text = fs::read_to_string(spec(page)).unwrap();
    let blocks = text.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    let lines: Vec<String> =
        blocks.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    assert!(!lines.is_empty(), "no JSON in {page}");
    lines
}

#[test]
fn what_the_pages_show_is_valid_byte_for_byte() {
    let schemas = Schemas::load();
    for page in entries(&spec("kinds")) {
        let page = format!("kinds/{}.md", stem(&page));
        lines_of(&page).iter().for_each(|text| envelope(&schemas, text));
    }
    lines_of("IPC.md").iter().for_each(|text| line(&schemas, text));
}

#[test]
fn what_axon_examples_shows_is_valid() {
    let schemas = Schemas::load();
    let shown = support::cli::Home::default().run(&["examples"]).stdout;
    let mut asked = BTreeMap::new();
    for text in shown.lines().filter(|text| text.starts_with(['>', '<'])) {
        line(&schemas, &text[2..]);
        let value: Value = serde_json::from_str(&text[2..]).unwrap();
        if value.get("cmd").is_some() {
            asked.insert(value["req_id"].to_string(), value);
        } else if value.get("ok").is_some() {
            schemas.check(&schemas.reply_of(&asked[&value["req_id"].to_string()], &value), &value);
        }
    }
    assert!(asked.len() > 10, "{shown}");
}

/// A client that has every line of its own and of the daemon's checked.
struct Checked<'a> {
    schemas: &'a Schemas,
    client: RawClient,
}

impl<'a> Checked<'a> {
    fn new(schemas: &'a Schemas, daemon: &Daemon) -> Self {
        let mut checked = Self { schemas, client: daemon.connect() };
        checked.ok(json!({"cmd":"hello","version":2,"consumer":"spec"}));
        checked
    }

    fn begin(&mut self, command: &Value) -> String {
        let mut told = command.clone();
        told["req_id"] = "any".into();
        line(self.schemas, &told.to_string());
        self.client.begin(command.clone())
    }

    fn finish(&mut self, command: &Value, req_id: &str) -> Value {
        let reply = self.client.finish(req_id);
        line(self.schemas, &reply.to_string());
        self.schemas.check(&self.schemas.reply_of(command, &reply), &reply);
        reply
    }

    fn cmd(&mut self, command: Value) -> Value {
        let req_id = self.begin(&command);
        self.finish(&command, &req_id)
    }

    fn ok(&mut self, command: Value) -> Value {
        let reply = self.cmd(command);
        assert_eq!(reply["ok"], true, "{reply}");
        reply
    }

    fn event(&mut self) -> Value {
        let event = self.client.event();
        line(self.schemas, &event.to_string());
        event
    }

    fn reply(&mut self, reference: &Value, kind: &str, payload: Value) {
        self.ok(json!({"cmd":"reply","ref":reference,"kind":kind,"payload":payload}));
    }
}

// shows: IPC-LINE-6
#[test]
fn what_a_daemon_really_says_is_valid() {
    let schemas = &Schemas::load();
    let (alice, bob) = pair();
    let (mut asker, mut agent) = (Checked::new(schemas, &alice), Checked::new(schemas, &bob));
    asker.ok(json!({"cmd":"subscribe","kinds":["result","progress"]}));
    let parked = json!({"cmd":"send","to":"bob","kind":"delegate","payload":{"task":"Later."}});
    let parked = asker.ok(parked)["msg_id"].clone();
    asker.ok(json!({"cmd":"send","to":"bob","kind":"query","payload":{"question":"Anybody?"}}));
    let note = json!({"topic":"home.door","data":{"open":true},"importance":"high","odd":[1]});
    let note = json!({"cmd":"send","to":"bob","kind":"notify","payload":note,"read_receipt":true});
    let note = asker.ok(note)["msg_id"].clone();
    agent.ok(
        json!({"cmd":"subscribe","answer":["query","delegate","cancel"],"kinds":["notify"],"capacity":4}),
    );

    let queued = [agent.event(), agent.event()].into_iter().find(|event| event["answer"] == true).unwrap();
    assert_eq!((&queued["envelope"]["id"], &queued["queued"]), (&parked, &json!(true)));
    agent.reply(&parked, "ack", json!({"accepted":true}));
    agent.reply(&parked, "progress", json!({"state":"running","percent":12.5,"note":"On it.","eta_ms":10}));
    agent.reply(&parked, "result", json!({"status":"completed","outcome":"Done.","data":[1]}));
    for _ in 0..3 {
        asker.event();
    }

    let query = json!({
        "cmd":"send","to":"bob","kind":"query",
        "payload":{"question":"When?","domain":"family","max_tokens":9,"deadline_ms":9000}
    });
    let asked = asker.begin(&query);
    let id = agent.event()["envelope"]["id"].clone();
    agent.reply(&id, "response", json!({"data":null,"summary":"Noon.","tokens_used":2,"truncated":false}));
    asker.finish(&query, &asked);

    let short =
        json!({"cmd":"send","to":"bob","kind":"query","payload":{"question":"Slow?","deadline_ms":50}});
    let asked = asker.begin(&short);
    agent.event();
    assert_eq!(agent.event()["event"], "withdrawn");
    assert_eq!(asker.finish(&short, &asked)["response"]["kind"], "error");

    let work =
        json!({"cmd":"send","to":"bob","kind":"delegate","payload":{"task":"Now.","priority":"urgent"}});
    let asked = asker.begin(&work);
    let id = agent.event()["envelope"]["id"].clone();
    agent.reply(&id, "ack", json!({"accepted":true,"estimated_ms":5}));
    asker.finish(&work, &asked);
    let cancel = json!({"cmd":"send","kind":"cancel","ref":id,"payload":{"reason":"Enough."}});
    let asked = asker.begin(&cancel);
    let id = agent.event()["envelope"]["id"].clone();
    agent.reply(&id, "ack", json!({"accepted":true}));
    asker.finish(&cancel, &asked);

    agent.ok(
        json!({"cmd":"advertise","capabilities":{"domains":["family"],"max_concurrent_tasks":4,"odd":1}}),
    );
    asker.ok(json!({"cmd":"send","to":"bob","kind":"discover"}));
    asker.ok(json!({"cmd":"send","to":"bob","kind":"ping","deadline_ms":5000}));
    for cmd in ["whoami", "peers", "status"] {
        asker.ok(json!({"cmd":cmd}));
    }
    asker.ok(json!({"cmd":"auth","token":"00".repeat(32)}));
    let read = agent.ok(json!({"cmd":"inbox","limit":10,"kinds":["notify","delegate"]}));
    agent.ok(json!({"cmd":"ack","up_to_seq":read["next_seq"].as_u64().unwrap()}));
    assert_eq!(asker.event(), json!({"event":"delivery","id":note,"state":"read"}));
    asker.ok(json!({"cmd":"outbox","id":note}));
    assert_eq!(asker.cmd(json!({"cmd":"send","to":"nobody","kind":"ping"}))["error"], "peer_not_found");

    // And to a client of version 1. shows: IPC-V1-2
    let mut old = RawClient::v1(&bob);
    let status = old.cmd(json!({"cmd":"status"}));
    line(schemas, &status.to_string());
    asker.ok(json!({"cmd":"send","to":"bob","kind":"notify","payload":{"topic":"a","data":null}}));
    let told = old.event();
    assert_eq!(told["inbound"], true);
    line(schemas, &told.to_string());
}

/// Everything that comes until one of these is there is checked.
fn until(client: &mut Checked<'_>, fits: impl Fn(&Value) -> bool) -> Value {
    loop {
        let event = client.event();
        if fits(&event) {
            return event;
        }
    }
}

#[test]
fn what_a_daemon_really_says_of_what_it_holds_is_valid() {
    let schemas = &Schemas::load();
    let (alice, mut bob) = pair();
    let (mut asker, mut watcher) = (Checked::new(schemas, &alice), Checked::new(schemas, &alice));
    let none = watcher.ok(json!({"cmd":"delegations","watch":true,"limit":10}));
    assert_eq!((&none["delegations"], &none["has_more"]), (&json!([]), &json!(false)));
    let work =
        json!({"cmd":"send","to":"bob","kind":"delegate","payload":{"task":"Now.","deadline_ms":60000}});
    let now = asker.ok(work)["msg_id"].clone();
    let mut agent = Checked::new(schemas, &bob);
    agent.ok(json!({"cmd":"advertise","capabilities":{"domains":["family"]},"persist":true}));
    agent.ok(json!({"cmd":"subscribe","answer":["delegate"]}));
    agent.event();
    agent.reply(&now, "progress", json!({"state":"running","percent":5}));
    agent.reply(&now, "result", json!({"status":"completed","outcome":"Done."}));
    let is = |id: &Value, state: &str| {
        let (id, state) = (id.clone(), state.to_owned());
        move |event: &Value| event["delegation"]["id"] == id && event["delegation"]["state"] == *state
    };
    until(&mut watcher, is(&now, "completed"));
    agent.ok(json!({"cmd":"delegations","direction":"in","state":"completed","peer":"alice"}));
    agent.ok(json!({"cmd":"outbox","state":"delivered","to":"alice"}));

    // Its peer is away.
    assert_eq!(bob.terminate().code(), Some(0));
    alice.wait_peer(&bob, false);
    let mut held = |kind: &str, payload: Value| {
        let command = json!({"cmd":"send","to":"bob","kind":kind,"payload":payload,"hold_secs":600});
        let reply = asker.ok(command);
        assert_eq!(reply["state"], "held", "{reply}");
        reply["msg_id"].clone()
    };
    let note = held("notify", json!({"topic":"a","data":1}));
    let back = held("notify", json!({"topic":"a","data":2}));
    let later = held("delegate", json!({"task":"Later.","deadline_ms":60000}));
    let never = held("delegate", json!({"task":"Never."}));
    asker.ok(json!({"cmd":"outbox","cancel":back}));
    let cancel = json!({"cmd":"send","to":"bob","kind":"cancel","ref":never});
    assert_eq!(asker.ok(cancel)["state"], "cancelled");
    let rows = asker.ok(json!({"cmd":"outbox","to":"bob","limit":1000}))["outbox"].clone();
    let rows: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(rows, ["held", "refused", "held", "refused"]);
    assert_eq!(watcher.ok(json!({"cmd":"outbox","limit":1}))["has_more"], true);
    let rows = asker.ok(json!({"cmd":"delegations","direction":"out"}))["delegations"].clone();
    let rows: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(rows, ["cancelled", "held", "completed"]);
    bob.up();
    for id in [&note, &later] {
        until(&mut asker, |event| event["id"] == *id && event["state"] == "delivered");
    }
    until(&mut watcher, is(&later, "queued"));
    assert_eq!(asker.cmd(json!({"cmd":"outbox","cancel":note}))["error"], "already_answered");
    let mut reader = Checked::new(schemas, &bob);
    let page = reader.ok(json!({"cmd":"inbox"}));
    assert_eq!(page["messages"].as_array().unwrap().len(), 3, "{page}");
}
