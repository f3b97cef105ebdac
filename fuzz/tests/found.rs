//! What the fuzzers found, each once more by itself.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use axon_fuzz::schema::Schemas;
use axon_fuzz::targets::{ipc_line, ipc_session, payload};
use serde_json::{Value, json};

fn schema_takes(name: &str, value: &Value) -> bool {
    Schemas::get().takes(name, value)
}

/// Schema and code are held against each other by the targets themselves.
fn line(value: &Value, takes: bool) {
    assert_eq!(schema_takes("ipc-command", value), takes, "{value}");
    ipc_line::run(value.to_string().as_bytes());
}

fn payload(kind: &str, value: &Value, takes: bool) {
    assert_eq!(schema_takes(kind, value), takes, "{value}");
    let at = payload::KINDS.iter().position(|of| *of == kind).unwrap();
    payload::run(&[&[at as u8], value.to_string().as_bytes()].concat());
}

#[test]
fn a_version_beyond_32_bits_is_another_version_and_no_fault() {
    line(&json!({"cmd":"hello","req_id":"1","version":4_294_967_296_u64}), true);
    line(&json!({"cmd":"hello","req_id":"1","version":u64::MAX}), true);
    payload("hello", &json!({"protocol_versions":[1],"selected_version":u64::MAX}), true);
    payload("hello", &json!({"protocol_versions":[1],"selected_version":null}), true);
}

#[test]
fn a_topics_name_is_refused_by_the_schema_too() {
    let asks = |topic: &str| json!({"cmd":"topic_peers","req_id":"1","topic":topic});
    line(&asks("x1-y"), true);
    line(&asks(".x1-y"), false);
    line(&asks("a."), false);
}

#[test]
fn a_kind_and_a_domain_have_their_bounds_also_where_a_policy_is_checked() {
    let asks = |domain: &str| json!({"cmd":"policy_check","req_id":"1","peer":"alice","kind":"query","domain":domain});
    line(&asks(&"d".repeat(256)), true);
    line(&asks(&"d".repeat(257)), false);
    let check = |kind: &str| json!({"cmd":"policy_check","req_id":"1","peer":"alice","kind":kind});
    line(&check("a kind of tomorrow"), true);
    line(&check(""), false);
    line(&check(&"k".repeat(64)), true);
    line(&check(&"k".repeat(65)), false);
}

#[test]
fn what_a_page_bounds_the_schema_bounds() {
    let link = "axon://11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo@192.0.2.1:7100";
    line(&json!({"cmd":"invite","req_id":"1","addrs":[]}), false);
    line(&json!({"cmd":"socket_add","req_id":"1","name":"a","allow":[]}), false);
    line(&json!({"cmd":"connect","req_id":"1","link":link,"session":""}), false);
    line(&json!({"cmd":"connect","req_id":"1","link":link,"session":"s".repeat(257)}), false);
    line(&json!({"cmd":"connect","req_id":"1","link":link,"intent":{"category":""}}), false);
    line(&json!({"cmd":"send","req_id":"1","to":"alice","kind":"ping","ref":"1"}), false);
    // The last digit of a key in base64 has two bits that must be 0.
    let key = |last: char| format!("{}{last}=", "A".repeat(42));
    let rekey = |last: char| {
        json!({"old_key":key('A'),"new_key":key(last),"at_ms":1,
            "old_signature":"0".repeat(128),"new_signature":"0".repeat(128)})
    };
    payload("rekey", &rekey('E'), true);
    payload("rekey", &rekey('F'), false);
}

#[test]
fn a_delegation_has_its_task_in_replies_although_the_disk_has_lost_it() {
    // The disk is full while the delegation is given; the world holds each reply against its schema.
    ipc_session::run(
        b"a{\"cmd\":\"hello\",\"req_id\":\"r-1\",\"version\":2}\n!f\n\
          a{\"cmd\":\"send\",\"req_id\":\"r-2\",\"to\":\"alice\",\"kind\":\"delegate\",\"payload\":{\"task\":\"t\"}}\n\
          !l\na{\"cmd\":\"delegations\",\"req_id\":\"r-3\"}\n!v\na{\"cmd\":\"delegations\",\"req_id\":\"r-4\"}",
    );
}

#[test]
fn a_delegation_that_comes_again_ends_on_its_older_stream() {
    // An agent holds it and says nothing; alice's second stream takes the answer over (WF-REP-5). Both have
    // ended when the world ends.
    ipc_session::run(
        b"a{\"cmd\":\"hello\",\"req_id\":\"r-1\",\"version\":2}\n\
          a{\"cmd\":\"subscribe\",\"req_id\":\"r-2\",\"answer\":[\"delegate\"]}\n!agGv",
    );
}
