//! Who may do what, and how often: every level, kind, direction and rule; what agents are told of a sender;
//! whom names mean. One node, and peers whose every message the test writes itself.

use std::collections::BTreeSet;

use axon_proto::audit::{self, Event};
use axon_proto::id::PublicKey;
use axon_proto::kinds::presence::beacon::{About, Beacon};
use axon_proto::node::{ClientId, ConnId, Effect, Input, StaticPeer};
use axon_proto::trust::{Level, Policies, Policy};
use serde_json::{Value, json};

use crate::net::{Solo, answer_on, closes, lines};

/// What this daemon offers.
const ALL: &[&str] = &[
    "delegate",
    "ack",
    "progress",
    "result",
    "cancel",
    "discover",
    "capabilities",
    "receipt",
    "knock",
    "rekey",
];

fn id(n: u8) -> String {
    PublicKey([n; 32]).agent_id().to_string()
}

fn static_peer(n: u8) -> StaticPeer {
    let key = PublicKey([n; 32]);
    StaticPeer { agent_id: key.agent_id(), pubkey: key, addr: "192.0.2.1:7100".into(), name: None }
}

fn code(answer: &Value) -> &str {
    assert_eq!(answer["kind"], "error", "{answer}");
    answer["payload"]["code"].as_str().unwrap()
}

// --- every level, kind, direction and rule ---

/// What becomes of a message that the rules let pass.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It is answered by this kind.
    Answered(&'static str),
    /// An agent gets it to answer.
    Offered,
    /// It is receipted and shown.
    Shown,
    /// It is receipted.
    Taken,
    /// No rule is asked: its form is wrong as a first message, or it is hello.
    Unjudged(&'static str),
    /// Nobody here knows the kind; on a stream of its own it is shown unopened.
    Unopened,
}

use Then::{Answered, Offered, Shown, Taken, Unjudged, Unopened};

/// Every kind of all families and one that nobody knows: the level that it needs, and what becomes of it.
const KINDS: &[(&str, Level, Then)] = &[
    ("hello", Level::Unknown, Unjudged("hello")),
    ("ping", Level::Unknown, Answered("pong")),
    ("pong", Level::Unknown, Unjudged("error")),
    ("query", Level::Unknown, Offered),
    ("response", Level::Unknown, Unjudged("error")),
    ("delegate", Level::Known, Answered("ack")),
    ("ack", Level::Unknown, Unjudged("error")),
    ("progress", Level::Unknown, Shown),
    ("result", Level::Unknown, Shown),
    ("cancel", Level::Known, Answered("ack")),
    ("notify", Level::Unknown, Shown),
    ("discover", Level::Unknown, Answered("capabilities")),
    ("capabilities", Level::Unknown, Unjudged("error")),
    ("error", Level::Unknown, Shown),
    ("receipt", Level::Unknown, Taken),
    ("knock", Level::Unknown, Answered("admission")),
    ("admission", Level::Unknown, Unjudged("error")),
    ("rekey", Level::Known, Answered("ack")),
    ("topic.join", Level::Known, Taken),
    ("topic.leave", Level::Known, Taken),
    ("topic.gossip", Level::Known, Taken),
    ("topic.message", Level::Known, Unjudged("error")),
    ("presence.beacon", Level::Known, Taken),
    ("presence.find", Level::Known, Answered("presence.found")),
    ("presence.found", Level::Unknown, Unjudged("error")),
    ("future", Level::Known, Unopened),
];

/// One rule: what it sets, what was sent before, and what it says of a kind that no rule before it denies.
struct Rule {
    name: &'static str,
    set: fn(&mut Policy, &str),
    before: Before,
    /// Which kinds it does not let pass.
    stops: fn(&str) -> bool,
    /// The key that is named, and whether it is a limit; with how long it takes.
    key: &'static str,
    retry: Retry,
}

#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// So many notifies of this peer.
    Told(usize),
    /// A query of this peer is open.
    Asked,
    /// A notify of another peer of the same level.
    OtherTold,
}

#[derive(Clone, Copy, PartialEq)]
enum Retry {
    Never,
    Ms(u64),
    MoreThan(u64),
}

/// The other requests, beside one-way kinds.
const REQUESTS: &[&str] =
    &["ping", "query", "delegate", "cancel", "discover", "knock", "rekey", "presence.find"];

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule { name: "default", set: |_, _| {}, before: Before::Nothing, stops: |_| false, key: "",
        retry: Retry::Never },
    Rule { name: "kinds: any", set: |policy, _| policy.kinds = Some(vec!["*".into()]),
        before: Before::Nothing, stops: |_| false, key: "kinds", retry: Retry::Never },
    Rule { name: "kinds: this", set: |policy, kind| policy.kinds = Some(vec![kind.into()]),
        before: Before::Nothing, stops: |_| false, key: "kinds", retry: Retry::Never },
    Rule { name: "kinds: others", set: |policy, _| policy.kinds = Some(vec!["other".into()]),
        before: Before::Nothing, stops: |_| true, key: "kinds", retry: Retry::Never },
    Rule { name: "domains", set: |policy, _| policy.domains = Some(vec!["family".into()]),
        before: Before::Nothing, stops: |kind| kind == "query", key: "domains", retry: Retry::Never },
    Rule { name: "payload", set: |policy, _| policy.payload_bytes_max = 1,
        before: Before::Nothing, stops: |_| true, key: "payload_bytes_max", retry: Retry::Never },
    Rule { name: "in flight", set: |policy, _| policy.in_flight_max = 1,
        before: Before::Asked, stops: |kind| REQUESTS.contains(&kind), key: "in_flight_max",
        retry: Retry::Ms(1_000) },
    Rule { name: "messages", set: |policy, _| policy.messages_per_minute = 2,
        before: Before::Told(2), stops: |_| true, key: "messages_per_minute", retry: Retry::Ms(30_000) },
    Rule { name: "messages, one left", set: |policy, _| policy.messages_per_minute = 2,
        before: Before::Told(1), stops: |_| false, key: "", retry: Retry::Never },
    Rule { name: "bytes", set: |policy, _| policy.bytes_per_minute = 10,
        before: Before::Told(1), stops: |_| true, key: "bytes_per_minute", retry: Retry::MoreThan(60_000) },
    Rule { name: "bytes, some left", set: |policy, _| policy.bytes_per_minute = 10,
        before: Before::Nothing, stops: |_| false, key: "", retry: Retry::Never },
    Rule { name: "level", set: |policy, _| policy.level_messages_per_minute = 1,
        before: Before::OtherTold, stops: |_| true, key: "level_messages_per_minute",
        retry: Retry::Ms(60_000) },
];

/// A node with two peers of a level, of which the one is played; an agent that answers queries and sees all;
/// a delegation each way.
struct Case {
    solo: Solo,
    agent: ClientId,
    conn: ConnId,
    /// The delegation that the peer has given, and the one that it was given.
    given: Value,
    taken: Value,
}

fn of(policies: &mut Policies, level: Level) -> &mut Policy {
    match level {
        Level::Unknown => &mut policies.unknown,
        Level::Known => &mut policies.known,
        Level::Trusted | Level::Blocked => &mut policies.trusted,
    }
}

fn case(level: Level) -> Case {
    let mut solo = Solo::with(1, 2, |settings| {
        settings.peers.push(static_peer(3));
        of(&mut settings.policies, Level::Unknown).kinds = Some(vec!["*".into()]);
    });
    solo.trust(2, level.as_str());
    solo.trust(3, level.as_str());
    let agent = solo.client();
    solo.say(
        agent,
        &json!({"cmd":"subscribe","req_id":"s","answer":["query"],"kinds":[
        "notify","progress","result","error","receipt","future","delegate","knock"]}),
    );
    let conn = solo.greeted(ALL, None);
    let effects = solo
        .say(agent, &json!({"cmd":"send","req_id":"d","to":id(2),"kind":"delegate","payload":{"task":"t"}}));
    let sent = effects.iter().find_map(|effect| match effect {
        Effect::Request { token, bytes, .. } => Some((*token, bytes.clone())),
        _ => None,
    });
    let (token, sent) = sent.unwrap();
    let taken = serde_json::from_str::<Value>(&sent).unwrap()["id"].clone();
    let mut ack = solo.envelope("ack", json!({"accepted":true}));
    ack["ref"] = taken.clone();
    solo.feed(Input::Replied { token, outcome: Ok(ack.to_string().into_bytes()) });
    let delegate = solo.envelope("delegate", json!({"task":"t"}));
    assert_eq!(solo.ask(conn, &delegate)["payload"]["state"], "queued");
    solo.set(|settings| settings.policies = Policies::default());
    solo.wait(60_000);
    Case { solo, agent, conn, given: delegate["id"].clone(), taken }
}

impl Case {
    fn message(&mut self, kind: &str) -> Value {
        let new_key = PublicKey([77; 32]);
        let payload = match kind {
            "hello" => Solo::hello_payload(ALL, None),
            "query" => json!({"question":"a-word"}),
            "delegate" => json!({"task":"a-word"}),
            "notify" => json!({"topic":"a-word","data":1}),
            "progress" => json!({"state":"running","note":"a-word"}),
            "result" => json!({"status":"completed","outcome":"a-word"}),
            "error" => json!({"code":"internal","message":"a-word","retryable":true}),
            "receipt" => json!({"state":"read"}),
            "rekey" => json!({"old_key":self.solo.key,"new_key":new_key,"at_ms":1,
                "old_signature":"0".repeat(128),"new_signature":"0".repeat(128)}),
            "admission" => json!({"decision":"reject"}),
            "response" => json!({"data":null,"summary":"a-word"}),
            "pong" => json!({"status":"idle","uptime_secs":1,"active_tasks":0}),
            "ack" => json!({"accepted":true}),
            "topic.join" => json!({"n":1,"filters":["a-word"]}),
            "topic.leave" => json!({"n":1}),
            "topic.gossip" => json!({"graft":[{"topic":"a-word","from":self.solo.peer}]}),
            // Of somebody else: it is taken and counted, and says nothing.
            "presence.beacon" => {
                let about = About {
                    status: "a".into(),
                    capabilities: "0".repeat(16).into(),
                    name: Some("a-word".into()),
                    ..About::default()
                };
                let signed = Beacon::to_sign(&new_key, 1, 1, &about);
                let signed: Value = serde_json::from_str(signed.get()).unwrap();
                json!({"signed":signed,"sig":"A".repeat(86) + "=="})
            }
            "presence.find" => {
                json!({"id":self.solo.new_id(),"target":{"tool":"a-word"},"hops":0})
            }
            "presence.found" => json!({"agents":[]}),
            _ => json!({}),
        };
        let mut message = self.solo.envelope(kind, payload);
        match kind {
            "cancel" => message["ref"] = self.given.clone(),
            "progress" | "result" => message["ref"] = self.taken.clone(),
            "receipt" => message["ref"] = self.solo.new_id().into(),
            _ => {}
        }
        message
    }

    fn before(&mut self, before: Before) {
        match before {
            Before::Nothing => {}
            Before::Told(times) => {
                for _ in 0..times {
                    let notify = self.solo.envelope("notify", json!({"topic":"before","data":1}));
                    assert_eq!(self.solo.ask(self.conn, &notify)["kind"], "ack");
                }
            }
            Before::Asked => {
                let query = self.solo.envelope("query", json!({"question":"before"}));
                let (_, effects) = self.solo.request(self.conn, &query);
                assert_eq!(lines(&effects, self.agent)[0]["answer"], true);
            }
            Before::OtherTold => {
                self.solo.play(3);
                let conn = self.solo.greeted(ALL, None);
                let notify = self.solo.envelope("notify", json!({"topic":"before","data":1}));
                assert_eq!(self.solo.ask(conn, &notify)["kind"], "ack");
                self.solo.play(2);
            }
        }
    }

    fn check(&mut self, kind: &str, direction: &str) -> Value {
        let command = json!({"cmd":"policy_check","peer":id(2),"kind":kind,"direction":direction});
        self.solo.owned(command)
    }

    fn counts(&mut self) -> (u64, u64) {
        (self.solo.dropped("refused"), self.solo.dropped("limited"))
    }
}

/// What a rule says of a kind: the decision, and the rule that is named.
fn expected(rule: &Rule, level: Level, kind: &str, needs: Level) -> (&'static str, String, Retry) {
    let policy = format!("policy.{level}");
    if needs > level && !rule.name.starts_with("kinds") {
        return ("deny", format!("{policy}.kinds"), Retry::Never);
    }
    if (rule.stops)(kind) {
        let decision = if rule.retry == Retry::Never { "deny" } else { "limit" };
        return (decision, format!("{policy}.{}", rule.key), rule.retry);
    }
    let by = if rule.name.starts_with("kinds") { format!("{policy}.kinds") } else { policy };
    ("allow", by, Retry::Never)
}

fn fits(retry: Retry, given: &Value) -> bool {
    match retry {
        Retry::Never => given.is_null(),
        Retry::Ms(ms) => *given == ms,
        Retry::MoreThan(ms) => given.as_u64().is_some_and(|given| given > ms),
    }
}

#[test]
fn the_table_names_every_kind() {
    let families = axon_proto::kinds::all();
    let known = families.iter().flat_map(|family| family.vocabulary().kinds).map(|kind| kind.name);
    let known: BTreeSet<&str> = known.chain(["future"]).collect();
    assert_eq!(known, KINDS.iter().map(|(kind, ..)| *kind).collect());
}

// shows: TRUST-LEV-2, TRUST-POL-1, TRUST-POL-2, TRUST-POL-3, TRUST-POL-4, TRUST-POL-5, TRUST-AUD-2,
// IPC-POL-1, MT-ALL-12
#[test]
fn every_kind_from_every_level_under_every_rule() {
    for level in [Level::Unknown, Level::Known, Level::Trusted] {
        for rule in RULES {
            for (kind, needs, then) in KINDS {
                let what = format!("{kind} of {level} under \"{}\"", rule.name);
                let mut case = case(level);
                case.solo.set(|settings| (rule.set)(of(&mut settings.policies, level), kind));
                case.before(rule.before);
                let (decision, by, retry) = expected(rule, level, kind, *needs);
                // What is asked about has no payload and no size.
                let (said, said_by) = match (rule.key, decision) {
                    ("payload_bytes_max", "deny") if !by.ends_with("kinds") => {
                        ("allow", format!("policy.{level}"))
                    }
                    _ => (decision, by.clone()),
                };
                // hello and answers are not judged: what would be said of them has no meaning.
                for _ in 0..if matches!(then, Unjudged(_)) { 0 } else { 3 } {
                    let check = case.check(kind, "in");
                    let judged = (&check["decision"], &check["rule"], &check["level"]);
                    assert_eq!(judged, (&json!(said), &json!(said_by), &json!(level)), "{what}: {check}");
                    assert!(said != decision || fits(retry, &check["retry_after_ms"]), "{what}: {check}");
                    assert!(check["message"].as_str().is_some_and(|text| !text.is_empty()));
                }
                let (before, rows) = (case.counts(), case.solo.audit.len());
                let message = case.message(kind);
                let (answer, effects) = if *then == Unopened {
                    (None, case.solo.one_way(case.conn, &message))
                } else {
                    let (stream, effects) = case.solo.request(case.conn, &message);
                    (answer_on(&effects, stream), effects)
                };
                assert_eq!(closes(&effects), [], "{what}");
                let rows = &case.solo.audit[rows..];
                let judged: Vec<(Event, &str, u64)> = rows
                    .iter()
                    .filter(|row| matches!(row.event, Event::Refused | Event::Limited))
                    .map(|row| (row.event, &*row.rule, row.count))
                    .collect();
                let told = lines(&effects, case.agent);
                if let Unjudged(kind) = then {
                    let answer = answer.unwrap_or_else(|| panic!("{what} is not answered: {effects:?}"));
                    assert_eq!((judged.len(), answer["kind"].as_str()), (0, Some(*kind)), "{what}");
                    assert_eq!(case.counts(), before, "{what}");
                    continue;
                }
                let (event, counted) = match decision {
                    "allow" => {
                        assert_eq!(judged.len(), 0, "{what}: {judged:?}");
                        let kind = answer.as_ref().and_then(|answer| answer["kind"].as_str());
                        match then {
                            Answered(by) => assert_eq!(kind, Some(*by), "{what}: {answer:?}"),
                            Offered => assert_eq!((kind, &told[0]["answer"]), (None, &json!(true)), "{what}"),
                            Shown => assert_eq!((kind, told.len()), (Some("ack"), 1), "{what}: {answer:?}"),
                            Taken => assert_eq!((kind, told.len()), (Some("ack"), 0), "{what}"),
                            Unopened => assert_eq!(told[0]["envelope"], message, "{what}"),
                            Unjudged(_) => panic!("{what} is judged"),
                        }
                        assert_eq!(case.counts(), before, "{what}");
                        continue;
                    }
                    "deny" => (Event::Refused, (before.0 + 1, before.1)),
                    _ => (Event::Limited, (before.0, before.1 + 1)),
                };
                assert_eq!(judged, [(event, &*by, 1)], "{what}");
                assert_eq!(rows[rows.len() - 1].peer, Some(case.solo.peer), "{what}");
                assert_eq!(case.counts(), counted, "{what}");
                assert!(!format!("{effects:?}").contains("a-word") && told.is_empty(), "{what}: {told:?}");
                let Some(answer) = answer else {
                    assert!(*then == Unopened, "{what} was not answered");
                    continue;
                };
                let told = if decision == "deny" { "not_authorized" } else { "overloaded" };
                assert_eq!(code(&answer), told, "{what}: {answer}");
                assert!(fits(retry, &answer["payload"]["retry_after_ms"]), "{what}: {answer}");
                assert_eq!(answer["payload"]["retryable"], decision == "limit", "{what}");
            }
        }
    }
}

// shows: TRUST-POL-4
#[test]
fn what_asks_for_no_answer_is_dropped_and_counted() {
    for level in [Level::Unknown, Level::Known, Level::Trusted] {
        for rule in RULES.iter().filter(|rule| !rule.key.is_empty()) {
            for (kind, needs, then) in KINDS.iter().filter(|(_, _, then)| matches!(then, Shown | Taken)) {
                let what = format!("{kind} of {level} under \"{}\"", rule.name);
                let mut case = case(level);
                case.solo.set(|settings| (rule.set)(of(&mut settings.policies, level), kind));
                case.before(rule.before);
                let (before, rows) = (case.counts(), case.solo.audit.len());
                let message = case.message(kind);
                let told = lines(&case.solo.one_way(case.conn, &message), case.agent);
                let (decision, by, _) = expected(rule, level, kind, *needs);
                let counted = match decision {
                    "allow" => before,
                    "deny" => (before.0 + 1, before.1),
                    _ => (before.0, before.1 + 1),
                };
                assert_eq!(case.counts(), counted, "{what}");
                assert_eq!(told.len(), usize::from(decision == "allow" && *then == Shown), "{what}");
                let named = case.solo.audit[rows..].iter().any(|row| *row.rule == *by);
                assert_eq!(named, decision != "allow", "{what}");
                if decision != "allow" {
                    // Nothing of it was kept, its id neither: it may come again, and is judged anew.
                    case.solo.set(|settings| settings.policies = Policies::default());
                    case.solo.wait(60_000);
                    let told = lines(&case.solo.one_way(case.conn, &message), case.agent);
                    assert_eq!(told.len(), usize::from(*then == Shown), "{what} again");
                    assert_eq!(case.solo.dropped("replayed"), 0, "{what}");
                }
            }
        }
    }
}

// shows: TRUST-STR-1, IPC-POL-1, IPC-TO-4, TRUST-AUD-3
#[test]
fn nothing_comes_from_who_is_blocked_or_not_known_and_nothing_goes_there() {
    for (blocked, rule, level, refused) in
        [(true, "contacts.level", "blocked", "not_authorized"), (false, "peers", "unknown", "peer_not_found")]
    {
        let mut case = case(Level::Known);
        if blocked {
            case.solo.trust(2, "blocked");
        } else {
            case.solo.owned(json!({"cmd":"forget","peer":id(2)}));
        }
        for (kind, ..) in KINDS {
            for direction in ["in", "out"] {
                let check = case.check(kind, direction);
                let judged = (&check["decision"], &check["rule"], &check["level"]);
                assert_eq!(judged, (&json!("deny"), &json!(rule), &json!(level)), "{kind} {direction}");
            }
            let message = case.message(kind);
            let (stream, effects) = case.solo.request(case.conn, &message);
            assert_eq!(effects, [Effect::Reset { stream }], "{kind}");
            assert_eq!(case.solo.one_way(case.conn, &message), [], "{kind}");
        }
        for (kind, payload) in SENT {
            let command = json!({"cmd":"send","to":id(2),"kind":kind,"payload":payload(),"ref":case.taken});
            let (reply, effects) = case.solo.owner(command);
            assert_eq!(reply["error"], refused, "{kind}: {reply}");
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::Dial { .. })));
        }
        // It is refused in the handshake; should that have been just before, then here.
        let (conn, effects) = case.solo.dialled_from("192.0.2.1:7100", [0; 32]);
        assert_eq!(closes(&effects), [(conn, 4)]);
        case.solo.feed(Input::HandshakeRefused { id: case.solo.peer });
        case.solo.wait(120_000);
        let rule = if blocked { "contacts.level" } else { "not_pinned" };
        let peer = Some(case.solo.peer).filter(|_| blocked);
        let rows = case.solo.audit.iter().filter(|row| row.event == Event::Handshake);
        let rows: Vec<_> = rows.map(|row| (row.peer, &*row.rule, row.count)).collect();
        assert_eq!(rows, [(peer, rule, 1), (peer, rule, 1)]);
    }
}

/// What clients send.
type Sent = (&'static str, fn() -> Value);
const SENT: &[Sent] = &[
    ("query", || json!({"question":"q"})),
    ("delegate", || json!({"task":"t"})),
    ("cancel", || json!({})),
    ("discover", || json!({})),
    ("ping", || json!({})),
    ("notify", || json!({"topic":"t","data":1})),
];

// shows: IPC-POL-1
#[test]
fn what_agents_here_send_is_judged_by_no_policy() {
    for level in [Level::Unknown, Level::Known, Level::Trusted] {
        for rule in RULES {
            let mut case = case(level);
            case.solo.set(|settings| (rule.set)(of(&mut settings.policies, level), "other"));
            case.before(rule.before);
            for (kind, payload) in SENT {
                let check = case.check(kind, "out");
                let judged = (&check["decision"], &check["rule"], &check["level"]);
                assert_eq!(judged, (&json!("allow"), &json!("contacts.level"), &json!(level)), "{check}");
                let command = json!({"cmd":"send","req_id":"o","to":id(2),"kind":kind,
                    "payload":payload(),"ref":case.taken});
                let effects = case.solo.say(case.agent, &command);
                let left = effects.iter().any(|effect| matches!(effect, Effect::Request { .. }));
                assert!(left, "{kind} to {level} under \"{}\": {effects:?}", rule.name);
            }
        }
    }
}

// shows: TRUST-POL-1
#[test]
fn the_first_rule_in_the_order_decides_and_domains_cover_what_is_below_them() {
    let mut case = case(Level::Known);
    case.before(Before::Asked);
    case.solo.set(|settings| {
        let known = &mut settings.policies.known;
        (known.messages_per_minute, known.bytes_per_minute, known.level_messages_per_minute) = (1, 1, 1);
    });
    case.before(Before::Told(1));
    case.solo.set(|settings| {
        let known = &mut settings.policies.known;
        (known.kinds, known.domains) = (Some(vec!["notify".into()]), Some(vec!["family".into()]));
        (known.payload_bytes_max, known.in_flight_max) = (1, 1);
    });
    type Relax = (&'static str, fn(&mut Policy));
    let relax: [Relax; 7] = [
        ("kinds", |policy| policy.kinds = Some(vec!["query".into()])),
        ("domains", |policy| policy.domains = None),
        ("payload_bytes_max", |policy| policy.payload_bytes_max = 0),
        ("in_flight_max", |policy| policy.in_flight_max = 0),
        ("messages_per_minute", |policy| policy.messages_per_minute = 0),
        ("bytes_per_minute", |policy| policy.bytes_per_minute = 0),
        ("level_messages_per_minute", |policy| policy.level_messages_per_minute = 0),
    ];
    for (key, relax) in relax {
        let query = case.message("query");
        let answer = case.solo.ask(case.conn, &query);
        let rule = &case.solo.audit.iter().rev().find(|row| row.peer == Some(case.solo.peer)).unwrap().rule;
        assert_eq!(**rule, format!("policy.known.{key}"), "{answer}");
        case.solo.set(|settings| relax(&mut settings.policies.known));
    }
    let query = case.message("query");
    let (_, effects) = case.solo.request(case.conn, &query);
    assert_eq!(lines(&effects, case.agent)[0]["answer"], true);

    case.solo.set(|settings| settings.policies.known.domains = Some(vec!["family".into(), "a.b".into()]));
    for (domain, passes) in [
        (json!(null), false),
        (json!("family"), true),
        (json!("family.calendar"), true),
        (json!("familyx"), false),
        (json!("Family"), false),
        (json!("a"), false),
        (json!("a.b.c"), true),
    ] {
        let decision = if passes { "allow" } else { "deny" };
        let command = json!({"cmd":"policy_check","peer":id(2),"kind":"query","domain":domain});
        assert_eq!(case.solo.owned(command)["decision"], decision, "{domain}");
        let query = case.solo.envelope("query", json!({"question":"q","domain":domain}));
        let (stream, effects) = case.solo.request(case.conn, &query);
        let denied = answer_on(&effects, stream).map(|answer| code(&answer).to_owned());
        assert_eq!(denied.as_deref(), (!passes).then_some("not_authorized"), "{domain}");
        assert_eq!(lines(&effects, case.agent).len(), usize::from(passes), "{domain}");
    }
}

// shows: TRUST-POL-5
#[test]
fn what_comes_again_is_judged_again() {
    let mut case = case(Level::Known);
    let notify = case.message("notify");
    assert_eq!(case.solo.ask(case.conn, &notify)["kind"], "ack");
    case.solo.set(|settings| settings.policies.known.kinds = Some(vec!["ping".into()]));
    assert_eq!(code(&case.solo.ask(case.conn, &notify)), "not_authorized");
    case.solo.set(|settings| settings.policies.known.kinds = None);
    assert_eq!(case.solo.ask(case.conn, &notify)["kind"], "ack");
    assert_eq!(case.solo.dropped("replayed"), 1);
}

// A delegation that is being written has no answer yet.
// shows: TRUST-POL-1
#[test]
fn what_is_being_written_is_in_flight() {
    let mut case = case(Level::Known);
    case.solo.set(|settings| settings.policies.known.in_flight_max = 2);
    case.solo.stall = true;
    let mut answers = Vec::new();
    for _ in 0..4 {
        let delegate = case.message("delegate");
        let (stream, effects) = case.solo.request(case.conn, &delegate);
        answers.push(answer_on(&effects, stream).map(|answer| code(&answer).to_owned()));
    }
    let over = Some("overloaded".to_owned());
    assert_eq!(answers, [None, None, over.clone(), over]);
}

// --- changes ---

// shows: TRUST-POL-6, TRUST-CON-3
#[test]
fn changed_rules_and_levels_hold_at_once_and_disturb_nobody() {
    let mut case = case(Level::Known);
    case.solo.play(3);
    let other = case.solo.greeted(ALL, None);
    let query = case.solo.envelope("query", json!({"question":"q"}));
    let (stream, _) = case.solo.request(other, &query);
    case.solo.play(2);
    let mut effects = case.solo.set(|settings| settings.policies.known.kinds = Some(vec!["query".into()]));
    let ping = case.message("ping");
    assert_eq!(code(&case.solo.ask(case.conn, &ping)), "not_authorized");
    effects.extend(case.solo.set(|settings| settings.policies.known.kinds = None));
    assert_eq!(case.solo.ask(case.conn, &ping)["kind"], "pong");
    let policy = |row: &&audit::Row| row.event == Event::Policy && &*row.rule == "settings";
    assert!(case.solo.audit.iter().any(|row| policy(&row)), "{:?}", case.solo.audit);

    for (level, answer) in [("unknown", "error"), ("trusted", "ack"), ("known", "ack")] {
        let command = json!({"cmd":"trust","peer":id(2),"trust":level});
        effects.extend(case.solo.owner(command).1);
        let delegate = case.message("delegate");
        assert_eq!(case.solo.ask(case.conn, &delegate)["kind"], answer, "{level}");
        let row = case.solo.audit.iter().rfind(|row| row.event == Event::Trust).unwrap();
        assert_eq!((row.peer, &*row.rule), (Some(case.solo.peer), level));
    }
    // The refusal names what would allow it.
    case.solo.trust(2, "unknown");
    let delegate = case.message("delegate");
    let refused = case.solo.ask(case.conn, &delegate);
    let command = format!("axon trust {} known", id(2));
    assert!(refused["payload"]["message"].as_str().unwrap().contains(&command), "{refused}");
    assert_eq!(closes(&effects), []);
    let reply = json!({"cmd":"reply","req_id":"4","ref":query["id"],"kind":"response",
        "payload":{"summary":"s"}});
    assert!(answer_on(&case.solo.say(case.agent, &reply), stream).is_some());
    assert_eq!(case.solo.status()["peers_connected"], 2);
}

// shows: TRUST-POL-2, WF-ERR-9
#[test]
fn a_rate_fills_again_evenly_and_only_what_passes_takes_of_it() {
    let mut case = case(Level::Unknown);
    let tell = |solo: &mut Solo, conn| {
        let notify = solo.envelope("notify", json!({"topic":"t","data":1}));
        solo.ask(conn, &notify)
    };
    let conn = case.conn;
    for _ in 0..30 {
        assert_eq!(tell(&mut case.solo, conn)["kind"], "ack");
    }
    for _ in 0..50 {
        let over = tell(&mut case.solo, conn);
        assert_eq!((code(&over), &over["payload"]["retry_after_ms"]), ("overloaded", &json!(2_000)));
    }
    case.solo.wait(1_999);
    assert_eq!(code(&tell(&mut case.solo, conn)), "overloaded");
    case.solo.wait(1);
    assert_eq!(tell(&mut case.solo, conn)["kind"], "ack");
    // What was over the peer's own rate has taken nothing of the level's: 120 - 31 are left, and 2 s more.
    let mut passed = 0;
    for n in 3..8 {
        case.solo.play(n);
        case.solo.found(n);
        if n == 3 {
            case.solo.trust(3, "unknown");
        }
        let conn = case.solo.greeted(ALL, None);
        while tell(&mut case.solo, conn)["kind"] == "ack" {
            passed += 1;
        }
    }
    assert_eq!(passed, 120 - 31 + 4);
    let last = case.solo.audit.last().unwrap();
    assert_eq!(&*last.rule, "policy.unknown.level_messages_per_minute");
    // Those who are known have their own.
    case.solo.trust(3, "known");
    case.solo.play(3);
    let conn = case.solo.greeted(ALL, None);
    assert_eq!(tell(&mut case.solo, conn)["kind"], "ack");
}
