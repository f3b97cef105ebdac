//! What `axon examples` prints is recorded: this test has the conversation with real daemons anew, and
//! compares it, ids and times made steady, with `axon/src/cli/examples.txt`. To record it again:
//!
//! `AXON_RECORD=1 cargo test --test all exchanges::`

use std::collections::HashMap;
use std::fs;

use serde_json::{Value, json};

use crate::support::{Daemon, RawClient, introduce, wait_for};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/axon/src/cli/examples.txt");
/// The agents of the specification's examples: name, id, key, host.
const AGENTS: [(&str, &str, &str, &str); 4] = [
    (
        "alice",
        "21fe31dfa154a261626bf854046fd227",
        "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        "192.0.2.5",
    ),
    ("bob", "39f713d0a644253f04529421b9f51b9b", "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=", "192.0.2.7"),
    (
        "carol",
        "dac073e0123bdea59dd9b3bda9cf6037",
        "/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=",
        "192.0.2.9",
    ),
    (
        "dave",
        "105812d50767e642fe4d1f3f11a7c18f",
        "FmKz5jz3JBr7OodYROok9QTt0znZwvqh9dcr8NzyQRE=",
        "192.0.2.11",
    ),
];
const SECRET: &str = "AAECAwQFBgcICQoLDA0ODw";
const HEAD: &str = "\
# What is said on the socket <root>/axon.sock: one JSON object a line. Recorded from real daemons.
# > is what a client writes, < what the daemon writes. Below each title, the verb that does the same.
";

/// A base64 key as links have it.
fn in_link(key: &str) -> String {
    key.replace('+', "-").replace('/', "_").replace('=', "")
}

/// Makes the same text of each run: ids, keys, times, ports and secrets become those of the specification.
struct Steady {
    known: Vec<(String, String)>,
    ids: HashMap<String, String>,
}

impl Steady {
    fn of(daemons: &[&Daemon]) -> Self {
        let mut known = Vec::new();
        for (daemon, (_, id, key, host)) in daemons.iter().zip(AGENTS) {
            let own = daemon.id().strip_prefix("ed25519.").unwrap();
            known.push((own.to_owned(), id.to_owned()));
            // What a knock is called by.
            known.push((own[..16].to_owned(), id[..16].to_owned()));
            known.push((daemon.pubkey().to_owned(), key.to_owned()));
            known.push((in_link(daemon.pubkey()), in_link(key)));
            known.push((format!("127.0.0.1:{}", daemon.port()), format!("{host}:7100")));
        }
        Self { known, ids: HashMap::new() }
    }

    fn text(&mut self, line: &str) -> String {
        let mut text = line.to_owned();
        for (own, steady) in &self.known {
            text = text.replace(own, steady);
        }
        if let Some((before, rest)) = text.split_once("?k=") {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap();
            text = format!("{before}?k={SECRET}{}", &rest[end..]);
        }
        let mut steady = String::new();
        for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
            let (word, end) =
                word.split_at(word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
            steady.push_str(&self.word(word).unwrap_or_else(|| word.to_owned()));
            steady.push_str(end);
        }
        // What is left of a deadline, how old a message is, and how far away a peer is.
        for (field, value) in
            [("\"deadline_ms\":", "29999"), ("\"age_ms\":", "2"), ("\"uptime_secs\":", "3600")]
        {
            let is_told = line.starts_with("{\"event\"") || field.contains("uptime");
            if let (true, Some((before, rest))) = (is_told, steady.split_once(field)) {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
                steady = format!("{before}{field}{value}{}", &rest[end..]);
            }
        }
        steady
    }

    fn word(&mut self, word: &str) -> Option<String> {
        let parts: Vec<usize> = word.split('-').map(str::len).collect();
        let hex = word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if hex && parts == [8, 4, 4, 4, 12] {
            let n = self.ids.len() + 1;
            let id = format!("{n:08x}-0000-4000-8000-{n:012x}");
            return Some(self.ids.entry(word.to_owned()).or_insert(id).clone());
        }
        // Of messages of topics, which begin with the time.
        let number: Option<u64> = word.parse().ok();
        if number.is_some_and(|seq| (1_700_000_000_000_000..1_900_000_000_000_000).contains(&seq)) {
            return Some("1795000000000000".to_owned());
        }
        if hex && parts == [16] && !self.known.iter().any(|(_, steady)| steady == word) {
            return Some("66587864c2f61605".to_owned());
        }
        number.filter(|ms| *ms > 1_700_000_000_000).map(|_| "1795000000000".to_owned())
    }
}

/// A client whose lines are written down, both ways.
struct Talk {
    client: RawClient,
    lines: Vec<String>,
}

impl Talk {
    fn with(daemon: &Daemon) -> Self {
        Self { client: daemon.connect(), lines: Vec::new() }
    }

    fn write(&mut self, line: &str) {
        self.lines.push(format!("> {line}"));
        self.client.raw(format!("{line}\n").as_bytes());
    }

    fn read(&mut self) -> Value {
        let line = self.client.raw_line();
        self.lines.push(format!("< {}", line.trim_end()));
        serde_json::from_str(&line).unwrap()
    }

    /// A command and its reply.
    fn say(&mut self, line: &str) -> Value {
        self.write(line);
        let reply = self.read();
        assert!(reply.get("ok").is_some(), "{line}\n-> {reply}");
        reply
    }

    /// What was said since the last time, below a title.
    fn section(&mut self, title: &str) -> String {
        let lines = std::mem::take(&mut self.lines);
        format!("{title}\n{}\n", lines.join("\n"))
    }
}

fn link(daemon: &Daemon) -> String {
    format!("axon://{}@127.0.0.1:{}", in_link(daemon.pubkey()), daemon.port())
}

fn id(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The whole conversation.
fn record() -> String {
    let named = |name: &str, more: &str| Daemon::start(&format!("name = \"{name}\"\n{more}"));
    let alice = named("alice", "[knock]\nopen = true\n");
    let [bob, carol, dave] = ["bob", "carol", "dave"].map(|name| named(name, ""));
    introduce(&alice, &bob);
    let mut parts = Vec::new();
    let (mut a, mut b) = (Talk::with(&alice), Talk::with(&bob));

    a.say(r#"{"cmd":"hello","req_id":"1","version":2,"consumer":"default"}"#);
    parts.push(a.section(
        "# 1. Hello. Always first. `consumer` names the cursor in the inbox that you read and move.",
    ));

    // Bob's agent attaches before anybody asks; its lines come in their place.
    b.say(r#"{"cmd":"hello","req_id":"1","version":2,"consumer":"agent"}"#);
    b.lines.clear();
    b.say(
        r#"{"cmd":"advertise","req_id":"2","capabilities":{"domains":["family"],"max_concurrent_tasks":4}}"#,
    );
    b.say(
        r#"{"cmd":"subscribe","req_id":"3","answer":["query","delegate","cancel"],"domains":["family"],"capacity":4}"#,
    );

    a.say(r#"{"cmd":"peers","req_id":"2","unread":true}"#);
    let peers = a.lines.pop().unwrap();
    // How far away it is differs each time.
    let (before, rest) = peers.split_once("\"rtt_ms\":").unwrap();
    let (_, after) = rest.split_once(',').unwrap();
    a.lines.push(format!("{before}\"rtt_ms\":0.42,{after}").replace(",\"early\":true", ""));
    parts.push(a.section("# 2. Who is there.\n#    axon peers"));

    a.say(r#"{"cmd":"send","req_id":"3","to":"bob","kind":"discover"}"#);
    parts.push(a.section("# 3. What its agents say they can do.\n#    axon discover bob"));

    let query = r#"{"question":"When is dinner?","domain":"family.calendar"}"#;
    a.write(&format!(r#"{{"cmd":"send","req_id":"4","to":"bob","kind":"query","payload":{query}}}"#));
    let asked = id(&b.read()["envelope"]["id"]);
    b.say(&format!(
        r#"{{"cmd":"reply","req_id":"4","ref":"{asked}","kind":"response","payload":{{"data":{{"time":"19:00"}},"summary":"Dinner is at 7."}}}}"#
    ));
    assert_eq!(a.read()["response"]["payload"]["summary"], "Dinner is at 7.");
    parts.push(a.section(
        "# 4. Ask. `to` is an agent id, a prefix of one, or a name. The reply has the other agent's answer.\n\
         #    axon send --domain family.calendar bob \"When is dinner?\"",
    ));
    let answering = b.section(
        "# 9. Be the agent that answers. Requests come as events with \"answer\":true; reply with their id.\n\
         #    axon answer --domain family -- ./my-agent",
    );

    a.say(r#"{"cmd":"send","req_id":"5","to":"nobody","kind":"query","payload":{"question":"Hello?"}}"#);
    let refused = r#"{"question":"What does it cost?","domain":"work"}"#;
    a.say(&format!(r#"{{"cmd":"send","req_id":"6","to":"bob","kind":"query","payload":{refused}}}"#));
    parts.push(a.section(
        "# 5. What goes wrong here is ok:false. What the peer refuses is a response of kind error.",
    ));

    a.say(r#"{"cmd":"subscribe","req_id":"7","kinds":["result"],"replay":false}"#);
    a.write(
        r#"{"cmd":"send","req_id":"8","to":"bob","kind":"delegate","payload":{"task":"Write the minutes"}}"#,
    );
    let work = id(&b.read()["envelope"]["id"]);
    b.say(&format!(
        r#"{{"cmd":"reply","req_id":"5","ref":"{work}","kind":"ack","payload":{{"accepted":true,"estimated_ms":60000}}}}"#
    ));
    assert_eq!(a.read()["response"]["kind"], "ack");
    b.say(&format!(
        r#"{{"cmd":"reply","req_id":"6","ref":"{work}","kind":"progress","payload":{{"state":"running","percent":50,"note":"half way"}}}}"#
    ));
    b.say(&format!(
        r#"{{"cmd":"reply","req_id":"7","ref":"{work}","kind":"result","payload":{{"status":"completed","outcome":"The minutes are written."}}}}"#
    ));
    assert_eq!(a.read()["envelope"]["kind"], "result");
    parts.push(a.section(
        "# 6. Hand work over. The ack comes at once, the result later: as an event, and in the inbox.\n\
         #    axon delegate --wait bob \"Write the minutes\"",
    ));
    let working = b.section(
        "# 10. A delegation is acked, told of as often as you like, and ended by its result.\n\
         #    axon reply ID --progress running; axon result ID \"The minutes are written.\"",
    );

    let note = r#"{"topic":"door.front","data":{"open":true}}"#;
    a.say(&format!(r#"{{"cmd":"send","req_id":"9","to":"bob","kind":"notify","payload":{note}}}"#));
    parts.push(a.section(
        "# 7. Tell. Nobody answers; `delivered` says that its daemon has it on disk.\n\
         #    axon notify bob door.front '{\"open\":true}'",
    ));

    // The progress is before it.
    let seen = a.client.ok(json!({"cmd":"inbox","req_id":"x"}));
    let result = seen["messages"].as_array().unwrap().iter().find(|row| row["envelope"]["kind"] == "result");
    let seq = result.unwrap()["seq"].as_u64().unwrap();
    a.client.ok(json!({"cmd":"ack","req_id":"x","up_to_seq":seq - 1}));
    a.say(r#"{"cmd":"inbox","req_id":"10","limit":1}"#);
    a.say(&format!(r#"{{"cmd":"ack","req_id":"11","up_to_seq":{seq}}}"#));
    parts.push(a.section(
        "# 8. Read what was kept, and say how far you are with it.\n#    axon inbox --limit 1; axon ack 2",
    ));
    parts.extend([answering, working]);

    let short = r#"{"question":"Are you fast?","domain":"family","deadline_ms":200}"#;
    a.client.begin(json!({"cmd":"send","to":"bob","kind":"query","payload":serde_json::from_str::<Value>(short).unwrap()}));
    b.client.event();
    assert_eq!(b.read()["event"], "withdrawn");
    let busy = a.client.ask("bob", "And tomorrow?", json!({"domain":"family"}));
    let asked = id(&b.client.event()["envelope"]["id"]);
    b.say(&format!(
        r#"{{"cmd":"reply","req_id":"8","ref":"{asked}","kind":"error","payload":{{"code":"overloaded","message":"Ask again after noon.","retryable":true}}}}"#
    ));
    assert_eq!(a.client.finish(&busy)["response"]["payload"]["code"], "overloaded");
    parts.push(b.section(
        "# 11. A request that needs no answer any more is withdrawn; one that is refused says why.",
    ));

    let of_alice = json!({"cmd":"topic_peers","topic":"build.main"});
    wait_for("alice's daemon to say what it wants", || {
        let peers = b.client.ok(of_alice.clone())["peers"].clone();
        (!peers.as_array().unwrap().is_empty()).then_some(())
    });
    b.say(r#"{"cmd":"subscribe_topic","req_id":"9","topic":"build.>"}"#);
    a.client.ok(json!({"cmd":"publish","topic":"build.main","payload":{"state":"failed"}}));
    assert_eq!(b.read()["envelope"]["kind"], "topic.message");
    b.say(r#"{"cmd":"publish","req_id":"10","topic":"deploy.main","payload":{"state":"stopped"}}"#);
    parts.push(b.section(
        "# 12. Topics. What is published reaches all who have subscribed, over several hops.\n\
         #     axon topic sub 'build.>'; axon topic pub deploy.main '{\"state\":\"stopped\"}'",
    ));

    parts.push("# The rest is for the owner: a scoped socket (`axon socket`) does not take it.\n".to_owned());
    let mut a = Talk::with(&alice);
    a.client.hello();
    a.say(r#"{"cmd":"invite","req_id":"12","label":"laptop"}"#);
    let invited = carol.client().ok(json!({"cmd":"invite"}));
    let to_carol = id(&invited["link"]);
    let paired = a.say(&format!(r#"{{"cmd":"connect","req_id":"13","link":"{to_carol}","name":"carol"}}"#));
    assert_eq!(paired["state"], "paired", "{paired}");
    parts.push(a.section(
        "# 13. Pair. A link is made here, for one use within the hour, and given to `connect` on the other\n\
         #     machine.\n#     axon invite; axon connect --as carol -",
    ));

    a.client.subscribe(json!({"kinds":["knock"],"replay":false}));
    let mut knocker = dave.client();
    let knocked = knocker.begin(json!({
        "cmd":"connect","link":link(&alice),"intent":{"category":"family","action":"calendar"}
    }));
    let knock = id(&a.read()["id"]);
    assert_eq!(knocker.finish(&knocked)["state"], "pending");
    a.say(&format!(r#"{{"cmd":"approve","req_id":"14","id":"{knock}","trust":"known","name":"dave"}}"#));
    parts.push(a.section(
        "# 14. A stranger wants in, and you decide. What it says of itself is only what it claims.\n\
         #     axon knocks; axon approve 105812d50767e642",
    ));

    alice.wait_peer(&dave, true);
    a.say(r#"{"cmd":"trust","req_id":"15","peer":"dave","trust":"blocked","why":"sends too much"}"#);
    parts.push(a.section(
        "# 15. Shut somebody out. Once the reply is there, nothing of that peer is delivered.\n\
         #     axon trust dave blocked",
    ));
    let mut steady = Steady::of(&[&alice, &bob, &carol, &dave]);
    let parts = parts.join("\n");
    let lines = parts.lines().map(|line| match line.split_at_checked(2) {
        Some((way @ ("> " | "< "), json)) => format!("{way}{}\n", steady.text(json)),
        _ => format!("{line}\n"),
    });
    let lines: String = lines.collect();
    format!("{HEAD}\n{lines}")
}

#[test]
fn the_agents_ids_are_those_of_their_keys() {
    for (name, id, key, _) in AGENTS {
        let key: axon_proto::id::PublicKey = key.parse().unwrap();
        assert_eq!(key.agent_id().to_string(), format!("ed25519.{id}"), "{name}");
    }
}

#[test]
fn what_axon_examples_prints_is_what_daemons_say() {
    let now = record();
    if std::env::var_os("AXON_RECORD").is_some() {
        fs::write(FILE, &now).unwrap();
        return;
    }
    let kept = fs::read_to_string(FILE).unwrap();
    for (number, (kept, now)) in (1..).zip(kept.lines().zip(now.lines())) {
        assert_eq!(kept, now, "line {number}: AXON_RECORD=1 cargo test --test all exchanges::");
    }
    assert_eq!(kept.lines().count(), now.lines().count(), "AXON_RECORD=1 cargo test --test all exchanges::");
}
