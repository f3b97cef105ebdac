//! Whom a `to` means: ids, prefixes, names given and names claimed.

use std::collections::HashMap;

use axon_proto::id::PublicKey;
use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{Daemon, RawClient, free_port};

/// A `[[peers]]` entry; nobody is there.
fn entry(key: [u8; 32], name: Option<&str>, port: u16) -> String {
    let id = PublicKey(key).agent_id();
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    let name = name.map_or_else(String::new, |name| format!("name = \"{name}\"\n"));
    format!("\n[[peers]]\n{name}agent_id = \"{id}\"\npubkey = \"{key}\"\naddr = \"127.0.0.1:{port}\"\n")
}

/// Two keys whose ids begin with the same four digits.
fn twins() -> ([u8; 32], [u8; 32]) {
    let mut seen = HashMap::new();
    let mut n = 0_u32;
    loop {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_le_bytes());
        let id = PublicKey(key).agent_id().to_string();
        let prefix = id["ed25519.".len()..][..4].to_owned();
        if let Some(other) = seen.insert(prefix, key) {
            return (other, key);
        }
        n += 1;
    }
}

fn ping(client: &mut RawClient, to: &str) -> Value {
    client.cmd(json!({"cmd":"send","to":to,"kind":"ping"}))
}

#[test]
fn a_prefix_that_fits_two_is_refused_with_both() {
    // shows: IPC-TO-1
    let (one, two) = twins();
    let port = free_port();
    let alice = Daemon::start(&format!(
        "handshake_timeout_secs = 1\n{}{}",
        entry(one, None, port),
        entry(two, Some("number-two"), port)
    ));
    let (one, two) = (PublicKey(one).agent_id().to_string(), PublicKey(two).agent_id().to_string());
    let mut client = alice.client();
    let short = &one["ed25519.".len()..][..4];
    for prefix in [short.to_owned(), short.to_uppercase(), format!("ed25519.{short}")] {
        let reply = ping(&mut client, &prefix);
        assert_eq!(reply["error"], "peer_not_found", "{reply}");
        let message = reply["message"].as_str().unwrap();
        assert!(
            message.contains(&one) && (message.contains(&two) || message.contains("number-two")),
            "{message}"
        );
    }
    // Long enough to tell them apart: known, though nobody is there.
    let long = one.bytes().zip(two.bytes()).take_while(|(x, y)| x == y).count() + 1;
    assert_eq!(ping(&mut client, &one[..long])["error"], "peer_unreachable");
}

#[test]
fn a_claimed_name_serves_where_no_other_has_it() {
    // shows: IPC-TO-1, CORE-HELLO-2
    let (alice, bob) = (Daemon::start(""), Daemon::start("name = \"robert\"\n"));
    bob.set_peers(&[("alice", &alice)]);
    bob.reload();
    // Without a name of our own for him.
    let unnamed = bob.as_peer("x").replace("name = \"x\"\n", "");
    alice.set_config(&unnamed);
    alice.reload();
    alice.wait_peer(&bob, true);
    let mut client = alice.client();
    let row = client.peer(bob.id()).unwrap();
    assert_eq!((&row["name"], &row["claimed"]), (&json!("robert"), &json!(true)), "{row}");
    assert_eq!(ping(&mut client, "robert")["response"]["from"], bob.id());

    // The name that somebody is given here comes first.
    let other = entry([7; 32], Some("robert"), free_port());
    alice.set_config(&format!("handshake_timeout_secs = 1\n{unnamed}{other}"));
    alice.reload();
    assert_eq!(ping(&mut client, "robert")["error"], "peer_unreachable", "that is the other one");
    assert_eq!(ping(&mut client, bob.id())["ok"], true);
}
