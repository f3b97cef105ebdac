//! What tests of the kept inbox, the outbox and the ledger share.

use serde_json::{Value, json};

use super::{Daemon, RawClient, wait_for};

/// A peer that is away is tried again soon, and given up soon.
pub const SOON: &str = "reconnect_max_backoff_secs = 1\nhandshake_timeout_secs = 1\n";

/// A new client of this consumer.
pub fn consumer(daemon: &Daemon, name: &str) -> RawClient {
    let mut client = daemon.connect();
    client.hello_as(name);
    client
}

/// Sends notifies with these numbers as data to `bob`, one after the other; each must be `delivered`.
pub fn notify(from: &Daemon, numbers: std::ops::Range<u64>) {
    let mut client = from.client();
    for n in numbers {
        let reply = client.ok(note("bob", n));
        assert_eq!(reply["state"], "delivered", "{reply}");
    }
}

/// The command that sends this number.
pub fn note(to: &str, n: u64) -> Value {
    json!({"cmd":"send","to":to,"kind":"notify","payload":{"topic":"t","data":n}})
}

/// The same, held for ten minutes.
pub fn held_note(to: &str, n: u64) -> Value {
    let mut command = note(to, n);
    command["hold_secs"] = 600.into();
    command
}

/// The rows of an inbox reply.
pub fn rows(reply: &Value) -> &Vec<Value> {
    reply["messages"].as_array().unwrap_or_else(|| panic!("no rows: {reply}"))
}

/// The numbers that the notifies of an inbox reply carry; rows of other kinds are passed over.
pub fn numbers(reply: &Value) -> Vec<u64> {
    rows(reply).iter().filter_map(|row| row["envelope"]["payload"]["data"].as_u64()).collect()
}

/// The numbers of the rows of an inbox reply.
pub fn seqs(reply: &Value) -> Vec<u64> {
    rows(reply).iter().map(|row| row["seq"].as_u64().unwrap()).collect()
}

/// All that is in the inbox for this client, up to a thousand rows; nothing is acked.
pub fn inbox(client: &mut RawClient) -> Value {
    client.ok(json!({"cmd":"inbox","limit":1000}))
}

/// Acks all that an inbox reply gave.
pub fn ack(client: &mut RawClient, reply: &Value) {
    client.ok(json!({"cmd":"ack","up_to_seq":reply["next_seq"]}));
}

/// One of the counts of what was dropped.
pub fn dropped(client: &mut RawClient, cause: &str) -> u64 {
    client.ok(json!({"cmd":"status"}))["dropped"][cause].as_u64().unwrap()
}

/// The row of a message in the outbox, if there is one.
pub fn outbox_row(client: &mut RawClient, id: &Value) -> Option<Value> {
    client.ok(json!({"cmd":"outbox","id":id}))["outbox"].get(0).cloned()
}

/// Waits until a message in the outbox has this state; gives its row.
pub fn wait_outbox(client: &mut RawClient, id: &Value, state: &str) -> Value {
    wait_for(&format!("{id} to be {state} in the outbox"), || {
        outbox_row(client, id).filter(|row| row["state"] == state)
    })
}

/// The row of a delegation in the ledger.
pub fn ledger_row(client: &mut RawClient, id: &Value) -> Value {
    let reply = client.ok(json!({"cmd":"delegations","id":id}));
    reply["delegations"].get(0).cloned().unwrap_or_else(|| panic!("no {id} in the ledger: {reply}"))
}

/// Waits until a delegation has this state; gives its row.
pub fn wait_ledger(client: &mut RawClient, id: &Value, state: &str) -> Value {
    wait_for(&format!("{id} to be {state} in the ledger"), || {
        let row = ledger_row(client, id);
        (row["state"] == state).then_some(row)
    })
}

/// Ends it as a crash does, starts it again, and waits until the other one has it back.
pub fn crash(daemon: &mut Daemon, other: &Daemon) {
    daemon.kill9();
    daemon.up();
    rejoin(daemon, other);
}

/// Waits until two that know each other are connected.
pub fn rejoin(one: &Daemon, other: &Daemon) {
    one.wait_peer(other, true);
    other.wait_peer(one, true);
}
