//! Work that a peer gives, and what agents here may say of it: each word once, each at its time, and the peer
//! is told what became of it. One node, an agent, and a peer whose every message the test writes.

use axon_proto::limits::DELEGATIONS_MAX;
use axon_proto::node::{ClientId, ConnId, Effect, Input, StreamId};
use serde_json::{Value, json};

use crate::net::{Solo, answer_on, lines};

const ALL: &[&str] =
    &["delegate", "ack", "progress", "result", "cancel", "discover", "capabilities", "receipt"];

struct Work {
    solo: Solo,
    conn: ConnId,
    agent: ClientId,
}

impl Work {
    /// A peer that offers this, and an agent that answers these.
    fn new(features: &[&str], answer: &[&str]) -> Self {
        let mut solo = Solo::new(1, 2);
        let conn = solo.greeted(features, None);
        let agent = solo.client();
        solo.say(agent, &json!({"cmd":"subscribe","req_id":"s","answer":answer}));
        Self { solo, conn, agent }
    }

    /// The peer asks for something; the agent is offered it.
    fn given(&mut self, kind: &str, payload: Value) -> (Value, StreamId) {
        let envelope = self.solo.envelope(kind, payload);
        let (stream, effects) = self.solo.request(self.conn, &envelope);
        let offered = lines(&effects, self.agent);
        assert_eq!(offered[0]["envelope"]["id"], envelope["id"], "{effects:?}");
        (envelope, stream)
    }

    /// The agent says something of it: the reply to its command, and all that follows.
    fn says(&mut self, of: &Value, kind: &str, payload: Value) -> (Value, Vec<Effect>) {
        self.says_so(json!({"ref":of["id"],"kind":kind,"payload":payload}))
    }

    fn says_so(&mut self, mut command: Value) -> (Value, Vec<Effect>) {
        (command["cmd"], command["req_id"]) = ("reply".into(), "r".into());
        let effects = self.solo.say(self.agent, &command);
        let told = lines(&effects, self.agent).into_iter().find(|line| line["req_id"] == "r");
        (told.unwrap_or_default(), effects)
    }

    /// The same, refused with this code.
    fn refused(&mut self, command: Value, code: &str) -> String {
        let (told, _) = self.says_so(command.clone());
        assert_eq!((&told["ok"], &told["error"]), (&json!(false), &json!(code)), "{command}: {told}");
        told["message"].as_str().unwrap().to_owned()
    }

    fn state(&mut self) -> Value {
        let listed = self.solo.owned(json!({"cmd":"delegations"}));
        listed["delegations"][0]["state"].clone()
    }

    fn cancel(&mut self, work: &Value) -> (StreamId, Vec<Effect>) {
        let mut cancel = self.solo.envelope("cancel", json!({}));
        cancel["ref"] = work["id"].clone();
        self.solo.request(self.conn, &cancel)
    }
}

/// The messages of a kind that were sent to the peer.
fn sent(effects: &[Effect], kind: &str) -> Vec<Value> {
    let message = |effect: &Effect| match effect {
        Effect::Request { bytes, .. } | Effect::OneWay { bytes, .. } => {
            serde_json::from_str::<Value>(bytes).ok()
        }
        _ => None,
    };
    effects.iter().filter_map(message).filter(|envelope| envelope["kind"] == kind).collect()
}

// shows: CORE-DEL-3, CORE-DEL-8
#[test]
fn an_agent_says_each_word_once_and_at_its_time() {
    let mut work = Work::new(ALL, &["query", "delegate"]);
    let (task, stream) = work.given("delegate", json!({"task":"t"}));
    let (told, effects) = work.says(&task, "ack", json!({"accepted":true}));
    assert_eq!(told["ok"], true);
    assert_eq!(answer_on(&effects, stream).unwrap()["payload"], json!({"accepted":true}));
    work.refused(json!({"ref":task["id"],"kind":"ack","payload":{"accepted":true}}), "already_answered");

    // An error of an agent that has accepted is a result that has failed.
    let (_, effects) =
        work.says(&task, "error", json!({"code":"internal","message":"no paper","retryable":false}));
    let result = sent(&effects, "result").remove(0);
    assert_eq!(
        (&result["payload"]["status"], &result["payload"]["error"]),
        (&json!("failed"), &json!("internal: no paper"))
    );
    assert_eq!(work.state(), "failed");
    let end = json!({"ref":task["id"],"kind":"result","payload":{"status":"completed","outcome":"o"}});
    work.refused(end, "already_answered");

    // One that has not accepted refuses by it.
    let (task, stream) = work.given("delegate", json!({"task":"t"}));
    let refusal = json!({"code":"unhandled","message":"not mine","retryable":false});
    let (_, effects) = work.says(&task, "error", refusal.clone());
    assert_eq!(answer_on(&effects, stream).unwrap()["payload"], refusal);
    assert_eq!(work.state(), "refused");

    // Who wants no report is sent none.
    let (task, _) = work.given("delegate", json!({"task":"t","report_back":false}));
    let (told, effects) = work.says(&task, "result", json!({"status":"completed","outcome":"o"}));
    assert_eq!((&told["ok"], sent(&effects, "result")), (&json!(true), vec![]));
    assert_eq!(work.state(), "completed");
}

#[test]
fn what_answers_nothing_is_refused_with_what_would() {
    let mut work = Work::new(ALL, &["query", "delegate"]);
    let (query, _) = work.given("query", json!({"question":"q","deadline_ms":1_000}));
    let answer = json!({"data":null,"summary":"a"});
    let told =
        work.refused(json!({"ref":query["id"],"kind":"ack","payload":{"accepted":true}}), "invalid_command");
    assert!(told.starts_with("a query is answered by ") && told.ends_with("not by \"ack\""), "{told}");
    let told = work.refused(
        json!({"ref":query["id"],"kind":"response","payload":answer,"hold_secs":5}),
        "invalid_command",
    );
    assert!(told.contains("`hold_secs` is for a result only"), "{told}");
    work.refused(json!({"ref":query["id"],"kind":"error","payload":{"code":1}}), "invalid_command");
    work.refused(json!({"ref":"9c1b2f34-5d6e-4f70-8a91-b2c3d4e5f607","kind":"response"}), "not_found");

    // How it ended is what the next one is told.
    let reply = json!({"ref":query["id"],"kind":"response","payload":answer});
    assert_eq!(work.says_so(reply.clone()).0["ok"], true);
    work.refused(reply, "already_answered");
    let (late, stream) = work.given("query", json!({"question":"q","deadline_ms":1_000}));
    let effects = work.solo.wait(1_000);
    assert_eq!(answer_on(&effects, stream).unwrap()["payload"]["code"], "timeout");
    work.refused(json!({"ref":late["id"],"kind":"response","payload":answer}), "timeout");
    let (gone, stream) = work.given("query", json!({"question":"q"}));
    let effects = work.solo.feed(Input::RequestGone { stream });
    assert_eq!(lines(&effects, work.agent)[0]["event"], "withdrawn", "{effects:?}");
    work.refused(json!({"ref":gone["id"],"kind":"response","payload":answer}), "not_found");
}

// shows: CORE-DEL-10
#[test]
fn progress_is_not_sent_to_who_takes_none() {
    let plain: Vec<&str> = ALL.iter().copied().filter(|feature| *feature != "progress").collect();
    let mut work = Work::new(&plain, &["delegate"]);
    let (task, _) = work.given("delegate", json!({"task":"t"}));
    work.says(&task, "ack", json!({"accepted":true}));
    let half = json!({"ref":task["id"],"kind":"progress","payload":{"state":"running","percent":50}});
    let told = work.refused(half, "not_offered");
    assert!(told.contains("go on, and send the result"), "{told}");
    // It is in the ledger all the same.
    assert_eq!(work.state(), "running");
}

// shows: CORE-CAN-1, CORE-CAN-2
#[test]
fn a_cancel_is_for_the_agent_that_works_if_it_takes_cancels() {
    let mut work = Work::new(ALL, &["delegate"]);
    let (task, _) = work.given("delegate", json!({"task":"t"}));
    work.says(&task, "ack", json!({"accepted":true}));
    let (stream, effects) = work.cancel(&task);
    let answer = answer_on(&effects, stream).unwrap();
    assert_eq!(answer["payload"]["code"], "unhandled", "{answer}");
    assert_eq!(work.state(), "accepted");

    // One that does is asked once; meanwhile another has to wait.
    let mut work = Work::new(ALL, &["delegate", "cancel"]);
    let (task, own) = work.given("delegate", json!({"task":"t"}));
    let (first, effects) = work.cancel(&task);
    let asked = lines(&effects, work.agent).remove(0);
    assert_eq!((&asked["envelope"]["kind"], answer_on(&effects, first)), (&json!("cancel"), None));
    let (second, effects) = work.cancel(&task);
    assert_eq!(answer_on(&effects, second).unwrap()["payload"]["code"], "overloaded");
    // It had not accepted yet: its own stream ends, too.
    let (_, effects) = work.says(&asked["envelope"], "ack", json!({"accepted":true}));
    assert_eq!(answer_on(&effects, first).unwrap()["payload"], json!({"accepted":true}));
    assert_eq!(answer_on(&effects, own).unwrap()["payload"]["code"], "cancelled");
    assert_eq!(work.state(), "cancelled");
    let (stream, effects) = work.cancel(&task);
    let told = answer_on(&effects, stream).unwrap()["payload"].clone();
    assert_eq!(
        (&told["accepted"], &told["reason"]),
        (&json!(false), &json!("it has ended already: cancelled"))
    );

    // Nobody is left to stop once the agent has gone: the daemon answers.
    let (task, _) = work.given("delegate", json!({"task":"t"}));
    work.says(&task, "ack", json!({"accepted":true}));
    let (stream, _) = work.cancel(&task);
    let effects = work.solo.feed(Input::ClientGone { client: work.agent });
    assert_eq!(answer_on(&effects, stream).unwrap()["payload"], json!({"accepted":true}));
    assert_eq!(work.state(), "cancelled");
}

// shows: WF-REP-5
#[test]
fn what_comes_again_is_told_how_it_ended_and_an_id_is_its_senders_own() {
    let mut work = Work::new(ALL, &["delegate"]);
    let (task, _) = work.given("delegate", json!({"task":"t","deadline_ms":1_000}));
    work.says(&task, "ack", json!({"accepted":true}));
    work.solo.wait(1_000);
    assert_eq!(work.state(), "expired");
    let (stream, effects) = work.solo.request(work.conn, &task);
    assert_eq!(answer_on(&effects, stream).unwrap()["payload"]["code"], "timeout");
    // Over a restart as well.
    work.solo.restart();
    let conn = work.solo.greeted(ALL, None);
    let (stream, effects) = work.solo.request(conn, &task);
    assert_eq!(answer_on(&effects, stream).unwrap()["payload"]["code"], "timeout");

    // Another peer cannot use it, and learns nothing of it.
    work.solo.found(3);
    work.solo.trust(3, "known");
    work.solo.play(3);
    let conn = work.solo.greeted(ALL, None);
    let mut same = work.solo.envelope("delegate", json!({"task":"t"}));
    same["id"] = task["id"].clone();
    let told = work.solo.ask(conn, &same);
    assert_eq!(told["payload"]["code"], "invalid_envelope", "{told}");
    assert_eq!(work.state(), "expired");
}

// shows: WF-REP-9
#[test]
fn what_was_turned_away_for_want_of_room_is_taken_when_it_comes_again() {
    let mut work = Work::new(ALL, &[]);
    let subscribe = json!({"cmd":"subscribe","req_id":"s","answer":["delegate"],"capacity":1});
    work.solo.say(work.agent, &subscribe);
    let (first, _) = work.given("delegate", json!({"task":"t"}));
    work.says(&first, "ack", json!({"accepted":true}));
    let second = work.solo.envelope("delegate", json!({"task":"t"}));
    let (stream, effects) = work.solo.request(work.conn, &second);
    assert_eq!(lines(&effects, work.agent), Vec::<Value>::new(), "it has no room");
    let effects = work.solo.wait(30_000);
    assert_eq!(answer_on(&effects, stream).unwrap()["payload"]["code"], "overloaded");
    work.says(&first, "result", json!({"status":"completed","outcome":"o"}));
    let (_, effects) = work.solo.request(work.conn, &second);
    assert_eq!(lines(&effects, work.agent)[0]["envelope"]["id"], second["id"], "{effects:?}");
    // One that the agent had and let pass is not offered again.
    let effects = work.solo.wait(30_000);
    assert!(!effects.is_empty());
    let (_, effects) = work.solo.request(work.conn, &second);
    assert_eq!(lines(&effects, work.agent), Vec::<Value>::new());
}

// shows: IPC-DLG-1
#[test]
fn the_ledger_is_bounded_and_the_oldest_that_has_ended_goes_first() {
    let mut work = Work::new(ALL, &["delegate"]);
    let refuse = json!({"accepted":false});
    let mut ids = Vec::new();
    // The first stays open; all others are refused at once.
    let (open, _) = work.given("delegate", json!({"task":"t"}));
    work.says(&open, "ack", json!({"accepted":true}));
    for _ in 0..DELEGATIONS_MAX {
        // Within five minutes no more ids than are remembered.
        work.solo.wait(100);
        let (task, _) = work.given("delegate", json!({"task":"t"}));
        work.says(&task, "ack", refuse.clone());
        ids.push(task["id"].clone());
    }
    let mut known = |id: &Value| {
        let listed = work.solo.owned(json!({"cmd":"delegations","id":id}));
        listed["delegations"].as_array().unwrap().len()
    };
    assert_eq!((known(&open["id"]), known(&ids[0]), known(&ids[1])), (1, 0, 1));
    assert_eq!(known(ids.last().unwrap()), 1);
}
