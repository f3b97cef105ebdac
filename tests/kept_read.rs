//! Read receipts, from outside: who is told that a message was read, and when.

use serde_json::{Value, json};

use crate::peer::{Link, RawPeer, new_id};
use crate::support::kept::{SOON, ack, consumer, held_note, inbox, note, notify, outbox_row, wait_outbox};
use crate::support::{Daemon, pair_with};

#[test]
fn read_is_told_to_those_who_ask_when_it_is_allowed() {
    // shows: CORE-RCP-1, IPC-OUT-9, IPC-OUT-13, IPC-DEL-1, IPC-OUT-2
    let (alice, bob) = pair_with(SOON, SOON);
    let asking = |n: u64| {
        let mut command = note("bob", n);
        command["read_receipt"] = true.into();
        command
    };
    let mut asker = alice.client();
    let first = asker.ok(asking(0));
    assert_eq!(first["state"], "delivered");
    notify(&alice, 1..2);
    let listed = asker.ok(json!({"cmd":"outbox"}))["outbox"].clone();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["id"]), (1, &first["msg_id"]), "{listed}");
    let mut reader = bob.client();
    let page = inbox(&mut reader);
    asker.silent();
    ack(&mut reader, &page);
    let event = asker.event();
    assert_eq!(event, json!({"event":"delivery","id":first["msg_id"],"state":"read"}));
    assert_eq!(outbox_row(&mut asker, &first["msg_id"]).unwrap()["state"], "read");
    // Only the first to read it is told of.
    let mut other = consumer(&bob, "other");
    let page = inbox(&mut other);
    ack(&mut other, &page);

    // Not allowed when it was read, not allowed when it came, allowed at both times.
    let unread = asker.ok(asking(2));
    bob.set_config(&format!("{SOON}[ipc]\nread_receipts = false\n"));
    bob.reload();
    let page = inbox(&mut reader);
    ack(&mut reader, &page);
    let unasked = asker.ok(asking(3));
    bob.set_config(SOON);
    bob.reload();
    let allowed = asker.ok(asking(4));
    let page = inbox(&mut reader);
    ack(&mut reader, &page);
    let event = asker.event();
    assert_eq!((&event["id"], &event["state"]), (&allowed["msg_id"], &json!("read")), "{event}");
    asker.silent();
    for id in [&unread["msg_id"], &unasked["msg_id"]] {
        assert_eq!(outbox_row(&mut asker, id).unwrap()["state"], "delivered");
    }
    // The receipts themselves are held messages, and they are not in the inbox.
    assert_eq!(inbox(&mut alice.client())["messages"], json!([]));
}

#[test]
fn read_is_told_over_kills_of_both() {
    // shows: CORE-RCP-2, CORE-RCP-5, IPC-OUT-9, IPC-OUT-1
    let (mut alice, mut bob) = pair_with(SOON, SOON);
    // Held ones are on disk before they leave, others are when there is time.
    let mut command = held_note("bob", 0);
    command["read_receipt"] = true.into();
    let id = alice.client().ok(command)["msg_id"].clone();
    alice.kill9();
    crash_alone(&mut bob);
    let mut reader = bob.client();
    let page = inbox(&mut reader);
    ack(&mut reader, &page);
    crash_alone(&mut bob);
    alice.up();
    wait_outbox(&mut alice.client(), &id, "read");
    crash_alone(&mut alice);
    // What was seen may not have been on disk yet. Then bob has not heard that we know, and says it again.
    wait_outbox(&mut alice.client(), &id, "read");
}

fn crash_alone(daemon: &mut Daemon) {
    daemon.kill9();
    daemon.up();
}

#[test]
fn only_the_peer_it_went_to_may_say_read() {
    // shows: CORE-RCP-4, CORE-RCP-5, WF-REF-7
    let (peer, stranger) = (RawPeer::new(), RawPeer::new());
    let daemon = Daemon::start(&format!("{}{}", peer.quiet_entry("raw"), stranger.quiet_entry("stranger")));
    let (link, _) = peer.dial(&daemon).receipting();
    let (other, _) = stranger.dial(&daemon).receipting();
    let mut client = daemon.client();
    let mut command = note("raw", 1);
    command["read_receipt"] = true.into();
    let req = client.begin(command);
    let request = link.request();
    assert_eq!(request.envelope["read_receipt"], true);
    let id = request.envelope["id"].clone();
    link.answer(request, "ack", json!({"accepted":true}));
    client.finish(&req);
    let says = |link: &Link, state: &str, id: &Value| {
        let mut envelope = link.envelope("receipt", json!({"state":state}));
        envelope["ref"] = id.clone();
        envelope
    };
    assert_eq!(other.refusal(&says(&other, "read", &id)), "not_authorized");
    link.receipted(&says(&link, "seen", &id));
    link.receipted(&says(&link, "read", &json!(new_id())));
    assert_eq!(outbox_row(&mut client, &id).unwrap()["state"], "delivered");
    let read = says(&link, "read", &id);
    link.receipted(&read);
    assert_eq!(client.event(), json!({"event":"delivery","id":id,"state":"read"}));
    link.receipted(&read);
    link.receipted(&says(&link, "read", &id));
    client.silent();
    assert_eq!(outbox_row(&mut client, &id).unwrap()["state"], "read");
    let mut bare = link.envelope("receipt", json!({"state":"read"}));
    assert_eq!(link.refusal(&bare), "invalid_envelope");
    bare = says(&link, "read", &id);
    bare["payload"] = json!({});
    assert_eq!(link.refusal(&bare), "invalid_envelope");
}
