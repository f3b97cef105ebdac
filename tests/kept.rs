//! The kept inbox, from outside: what a killed daemon still has, what goes and how that is told, receipts.

use serde_json::{Value, json};

use crate::peer::{Link, RawPeer};
use crate::support::kept::{
    SOON, ack, consumer, crash, dropped, held_note, inbox, note, notify, numbers, outbox_row, rejoin, rows,
    seqs, wait_outbox,
};
use crate::support::{Daemon, RawClient, pair, pair_with, wait_for};

/// A daemon that knows this peer as `raw`, and that dials nobody for long.
fn knows(peer: &RawPeer, config: &str) -> Daemon {
    Daemon::start(&format!("{config}{}", peer.quiet_entry("raw")))
}

fn offers_receipts(features: &Value) -> bool {
    features.as_array().unwrap().contains(&json!("receipt"))
}

/// The same; it must be refused for now. Gives what was said.
fn overloaded(link: &Link, envelope: &Value) -> String {
    let answer = link.ask(envelope).expect("a refusal");
    assert_eq!((&answer["kind"], &answer["ref"]), (&json!("error"), &envelope["id"]), "{answer}");
    let payload = &answer["payload"];
    assert_eq!((&payload["code"], &payload["retryable"]), (&json!("overloaded"), &json!(true)), "{answer}");
    payload["message"].as_str().unwrap().to_owned()
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn dropped_at(daemon: &Daemon, cause: &str) -> u64 {
    dropped(&mut daemon.client(), cause)
}

// --- after a kill ---

#[test]
fn an_unread_inbox_survives_a_kill() {
    // shows: IPC-BOX-2, IPC-BOX-5, IPC-BOX-7, IPC-BOX-12, IPC-ACK-2, IPC-ORD-8, CORE-NOT-2, IPC-HEL-3,
    // MT-ALL-11
    let (alice, mut bob) = pair();
    notify(&alice, 0..5);
    let task = json!({"cmd":"send","to":"bob","kind":"delegate","payload":{"task":"t"}});
    alice.client().ok(task);
    let mut first = consumer(&bob, "first");
    let before = inbox(&mut first);
    assert_eq!((numbers(&before), rows(&before).len()), (vec![0, 1, 2, 3, 4], 6));
    first.ok(json!({"cmd":"ack","up_to_seq":seqs(&before)[1]}));
    let read = consumer(&bob, "second").ok(json!({"cmd":"inbox","limit":4}));
    crash(&mut bob, &alice);
    let hello = bob.connect().cmd(json!({"cmd":"hello","req_id":"h","version":2}));
    assert!(hello["features"].as_array().unwrap().contains(&json!("durable")), "{hello}");

    let mut first = consumer(&bob, "first");
    let after = inbox(&mut first);
    assert_eq!(rows(&after)[..], rows(&before)[2..], "unread, and unchanged");
    assert_eq!(after.get("lost_before_seq"), None);
    assert_eq!(first.ok(json!({"cmd":"status"}))["inbox_unread"], 4);
    // What was given before the kill may be acked after it, and nothing beyond what can have been.
    let mut second = consumer(&bob, "second");
    second.fails(json!({"cmd":"ack","up_to_seq":seqs(&before)[5] + 20_000}), "ack_out_of_range");
    assert_eq!(second.ok(json!({"cmd":"ack","up_to_seq":read["next_seq"]}))["acked_seq"], seqs(&before)[3]);
    assert_eq!(rows(&inbox(&mut consumer(&bob, "third"))), rows(&before));

    // Numbers go on, over any number of kills.
    for n in 5..8 {
        notify(&alice, n..n + 1);
        crash(&mut bob, &alice);
    }
    let mut first = consumer(&bob, "first");
    let all = inbox(&mut first);
    assert_eq!(numbers(&all), [2, 3, 4, 5, 6, 7]);
    let given = seqs(&all);
    assert!(given.windows(2).all(|two| two[0] < two[1]), "{given:?}");
    assert_eq!(given[..4], seqs(&before)[2..]);
    ack(&mut first, &all);
    bob.kill9();
    bob.up();
    assert_eq!(rows(&inbox(&mut consumer(&bob, "first"))), &json!([]).as_array().unwrap()[..]);
}

#[test]
fn a_stop_forgets_no_cursor_either() {
    // shows: IPC-ACK-2, IPC-BOX-2, IPC-BOX-5
    let (alice, mut bob) = pair();
    notify(&alice, 0..5);
    let mut first = consumer(&bob, "first");
    let before = inbox(&mut first);
    first.ok(json!({"cmd":"ack","up_to_seq":seqs(&before)[1]}));
    consumer(&bob, "second").ok(json!({"cmd":"inbox","limit":3}));
    drop(first);
    assert_eq!(bob.terminate().code(), Some(0));
    bob.up();
    rejoin(&alice, &bob);
    assert_eq!(rows(&inbox(&mut consumer(&bob, "first")))[..], rows(&before)[2..]);
    let mut second = consumer(&bob, "second");
    second.fails(json!({"cmd":"ack","up_to_seq":seqs(&before)[3]}), "ack_out_of_range");
    second.ok(json!({"cmd":"ack","up_to_seq":seqs(&before)[2]}));
    notify(&alice, 5..6);
    assert_eq!(*seqs(&inbox(&mut second)).last().unwrap(), seqs(&before)[4] + 1, "no gap");
    assert!(!bob.log().contains("not closed cleanly"));
}

#[test]
fn no_kill_takes_an_ack_back_whatever_else_moves_the_cursor() {
    // shows: IPC-ORD-8, IPC-ACK-1, IPC-BOX-5
    let (alice, mut bob) = pair();
    for round in 0..6_u64 {
        notify(&alice, round * 10..round * 10 + 10);
        let (mut first, mut second, mut third) = (bob.client(), bob.client(), bob.client());
        let page = inbox(&mut first);
        assert_eq!(numbers(&page), (round * 10..round * 10 + 10).collect::<Vec<_>>(), "round {round}");
        // Three clients of one consumer at once: the whole, less than that, and reading.
        let (all, some) = (seqs(&page)[9], seqs(&page)[4]);
        let one = first.begin(json!({"cmd":"ack","up_to_seq":all}));
        let two = second.begin(json!({"cmd":"ack","up_to_seq":some}));
        let read = third.begin(json!({"cmd":"inbox"}));
        assert_eq!(first.finish(&one)["acked_seq"], all);
        assert_eq!(second.finish(&two)["ok"], true);
        third.finish(&read);
        crash(&mut bob, &alice);
        assert_eq!(rows(&inbox(&mut bob.client())).len(), 0, "round {round}");
    }
}

#[test]
fn what_a_kill_leaves_open_is_sent_again_and_there_once() {
    // shows: WF-REP-3, WF-REP-6, WF-STR-12, IPC-BOX-7: the id and the row are on disk together
    let peer = RawPeer::new();
    let mut daemon = knows(&peer, "");
    for round in 0..6_u64 {
        let (link, _) = peer.dial(&daemon).receipting();
        let notes: Vec<Value> = (0..30).map(|n| link.note(round * 30 + n)).collect();
        let (sent, one_end) = (notes.clone(), link.clone());
        let sender = std::thread::spawn(move || {
            // Until the daemon has gone.
            sent.iter().take_while(|envelope| link.ask(envelope).is_ok()).count()
        });
        // Each time a little later; what has got how far is left to chance.
        std::thread::sleep(std::time::Duration::from_millis(1 + 5 * round));
        daemon.kill9();
        one_end.close();
        let receipted = sender.join().unwrap();
        daemon.up();
        let there = rows(&inbox(&mut daemon.client())).len();
        assert!(there >= usize::try_from(round).unwrap() * 30 + receipted, "{receipted} had receipts");
        let (link, _) = peer.dial(&daemon).receipting();
        for envelope in &notes {
            link.receipted(envelope);
        }
    }
    let mut got = numbers(&inbox(&mut daemon.client()));
    got.sort_unstable();
    assert_eq!(got, (0..180).collect::<Vec<_>>());
}

#[test]
fn a_replay_after_a_kill_has_what_is_unread() {
    // shows: IPC-SUB-1, IPC-SUB-2, IPC-BOX-12
    let (alice, mut bob) = pair();
    notify(&alice, 0..4);
    let mut client = bob.client();
    let page = client.ok(json!({"cmd":"inbox","limit":1}));
    ack(&mut client, &page);
    crash(&mut bob, &alice);
    let mut client = bob.client();
    let reply = client.subscribe(json!({}));
    let replayed: Vec<Value> = client.events.drain(..).collect();
    let data: Vec<u64> =
        replayed.iter().map(|event| event["envelope"]["payload"]["data"].as_u64().unwrap()).collect();
    assert_eq!(data, [1, 2, 3]);
    assert!(replayed.iter().all(|event| event["replay"] == true));
    assert_eq!((&reply["replayed"], &reply["replay_to_seq"]), (&json!(3), &replayed[2]["seq"]));
    notify(&alice, 4..5);
    assert_eq!(client.event()["envelope"]["payload"]["data"], 4);
}

#[test]
fn a_repeated_message_gets_its_receipt_and_no_second_copy() {
    // shows: WF-STR-9, WF-STR-12, WF-REP-1, WF-REP-3, WF-REP-6, WF-REP-7, WF-ENV-7, CORE-HELLO-3
    let peer = RawPeer::new();
    let mut daemon = knows(&peer, "");
    let (link, features) = peer.dial(&daemon).receipting();
    assert!(offers_receipts(&features), "{features}");
    let plain = link.note(0);
    let mut long = link.note(1);
    long["resend_until"] = (now_ms() + 3_600_000).into();
    let uni = link.note(2);
    for envelope in [&plain, &long, &plain, &long] {
        link.receipted(envelope);
    }
    link.tell(&uni);
    link.tell(&uni);
    wait_for("the repeats to be counted", || (dropped_at(&daemon, "replayed") == 3).then_some(()));
    let mut given = Vec::new();
    for round in 0..3 {
        let page = inbox(&mut daemon.client());
        assert_eq!(numbers(&page), [0, 1, 2], "round {round}");
        given.push(page["messages"].clone());
        daemon.kill9();
        daemon.up();
        let (link, _) = peer.dial(&daemon).receipting();
        for envelope in [&long, &plain, &uni] {
            link.receipted(envelope);
        }
        assert_eq!(dropped_at(&daemon, "replayed"), 3);
    }
    assert!(given.windows(2).all(|two| two[0] == two[1]));
    // The same id of another sender is another message.
    let other = RawPeer::new();
    let also = format!(
        "\n[[peers]]\nagent_id = \"{}\"\npubkey = \"{}\"\naddr = \"127.0.0.1:9\"\n\
         \n[[peers]]\nagent_id = \"{}\"\npubkey = \"{}\"\naddr = \"127.0.0.1:9\"\n",
        peer.id, peer.pubkey, other.id, other.pubkey
    );
    daemon.set_config(&also);
    daemon.reload();
    let (link, _) = other.dial(&daemon).receipting();
    let mut same = link.note(3);
    same["id"] = plain["id"].clone();
    link.receipted(&same);
    assert_eq!(numbers(&inbox(&mut daemon.client())), [0, 1, 2, 3]);
}

#[test]
fn persisted_adverts_survive_a_kill() {
    // shows: IPC-ADV-1, IPC-ADV-3, IPC-ADV-4, IPC-ORD-8
    let (alice, mut bob) = pair();
    let advertise = |client: &mut RawClient, domain: Option<&str>, persist: bool| {
        let capabilities =
            domain.map_or(json!({}), |name| json!({"domains":[name],"max_concurrent_tasks":1}));
        client.ok(json!({"cmd":"advertise","capabilities":capabilities,"persist":persist}));
    };
    let seen = |alice: &Daemon| {
        let reply = alice.client().ok(json!({"cmd":"send","to":"bob","kind":"discover"}));
        reply["response"]["payload"].clone()
    };
    advertise(&mut consumer(&bob, "b"), Some("b"), true);
    advertise(&mut consumer(&bob, "a"), Some("a"), true);
    let mut live = consumer(&bob, "b");
    advertise(&mut live, Some("live"), false);
    assert_eq!(seen(&alice), json!({"domains":["live","a","b"],"max_concurrent_tasks":3}));
    crash(&mut bob, &alice);
    assert_eq!(seen(&alice), json!({"domains":["a","b"],"max_concurrent_tasks":2}));
    advertise(&mut consumer(&bob, "a"), None, true);
    crash(&mut bob, &alice);
    assert_eq!(seen(&alice), json!({"domains":["b"],"max_concurrent_tasks":1}));
    advertise(&mut consumer(&bob, "b"), Some("c"), true);
    crash(&mut bob, &alice);
    assert_eq!(seen(&alice)["domains"], json!(["c"]));
}

#[test]
fn at_most_64_consumers_have_a_persisted_advert() {
    // shows: IPC-ADV-5
    let mut bob = Daemon::start("");
    let mut client = bob.client();
    let advert =
        |n: usize| json!({"cmd":"advertise","persist":true,"capabilities":{"domains":[format!("d{n}")]}});
    for n in 0..64 {
        client.hello_as(&format!("c{n}"));
        client.ok(advert(n));
    }
    client.hello_as("c64");
    client.fails(advert(64), "overloaded");
    client.hello_as("c7");
    client.ok(advert(7));
    client.ok(json!({"cmd":"advertise","persist":true,"capabilities":{}}));
    bob.kill9();
    bob.up();
    let mut client = consumer(&bob, "c64");
    client.ok(advert(64));
    client.hello_as("c65");
    client.fails(advert(65), "overloaded");
}

#[test]
fn held_messages_survive_kills_of_their_sender() {
    // shows: IPC-OUT-1, IPC-OUT-2, IPC-OUT-3, IPC-OUT-4, IPC-SEND-9, IPC-OUT-10
    let (mut alice, mut bob) = pair_with(SOON, SOON);
    bob.terminate();
    alice.wait_peer(&bob, false);
    let mut ids = Vec::new();
    for n in 0..6 {
        let reply = alice.client().ok(held_note("bob", n));
        assert_eq!(reply["state"], "held", "{reply}");
        ids.push(reply["msg_id"].clone());
        if n % 2 == 1 {
            alice.kill9();
            alice.up();
        }
    }
    alice.client().ok(json!({"cmd":"outbox","cancel":ids[2]}));
    alice.kill9();
    alice.up();
    let listed = alice.client().ok(json!({"cmd":"outbox"}))["outbox"].clone();
    let listed: Vec<(&Value, &Value)> =
        listed.as_array().unwrap().iter().map(|row| (&row["id"], &row["state"])).collect();
    let (held, refused) = (json!("held"), json!("refused"));
    let wanted: Vec<(&Value, &Value)> =
        ids.iter().enumerate().map(|(n, id)| (id, if n == 2 { &refused } else { &held })).collect();
    assert_eq!(listed, wanted);
    bob.up();
    rejoin(&alice, &bob);
    let mut client = alice.client();
    wait_outbox(&mut client, &ids[5], "delivered");
    assert_eq!(numbers(&inbox(&mut bob.client())), [0, 1, 3, 4, 5]);
    alice.kill9();
    alice.up();
    let mut client = alice.client();
    assert_eq!(outbox_row(&mut client, &ids[0]).unwrap()["state"], "delivered", "a row stays");
    assert_eq!(outbox_row(&mut client, &ids[2]).unwrap()["reason"], "cancelled by its sender");
}

// --- what goes ---

#[test]
fn unread_rows_with_a_receipt_are_not_pushed_out() {
    // shows: IPC-BOX-4, IPC-BOX-9, IPC-BOX-10, IPC-ACK-3, WF-REP-8, IPC-SEND-7
    let peer = RawPeer::new();
    let (alice, bob) = pair_with("", "[ipc]\nbuffer_size = 5\n");
    let entry = format!(
        "\n[[peers]]\nagent_id = \"{}\"\npubkey = \"{}\"\naddr = \"127.0.0.1:9\"\n",
        peer.id, peer.pubkey
    );
    bob.set_config(&format!("[ipc]\nbuffer_size = 5\n{entry}"));
    bob.reload();
    let (link, _) = peer.dial(&bob).receipting();
    notify(&alice, 0..5);
    let mut asker = alice.client();
    let said = asker.fails(note("bob", 5), "overloaded");
    assert!(!said.is_empty());
    let late = link.note(6);
    overloaded(&link, &late);
    overloaded(&link, &late);
    // Without a receipt it is dropped, and that is counted.
    let before = dropped_at(&bob, "over_limit");
    link.tell(&link.note(7));
    wait_for("the drop to be counted", || (dropped_at(&bob, "over_limit") == before + 1).then_some(()));
    let mut first = consumer(&bob, "first");
    let page = inbox(&mut first);
    assert_eq!(numbers(&page), [0, 1, 2, 3, 4]);

    // Two are read by somebody: there is room for two, and what was refused may come again as it was.
    first.ok(json!({"cmd":"ack","up_to_seq":seqs(&page)[1]}));
    link.receipted(&late);
    notify(&alice, 8..9);
    asker.fails(note("bob", 9), "overloaded");
    link.receipted(&late);
    let unharmed = inbox(&mut first);
    assert_eq!((numbers(&unharmed), unharmed.get("lost_before_seq")), (vec![2, 3, 4, 6, 8], None));

    // Somebody who had not read what went is told so, until past it.
    let oldest = seqs(&unharmed)[0];
    let mut second = consumer(&bob, "second");
    let told = inbox(&mut second);
    assert_eq!((numbers(&told), &told["lost_before_seq"]), (vec![2, 3, 4, 6, 8], &json!(oldest)));
    assert_eq!(second.subscribe(json!({}))["lost_before_seq"], oldest);
    assert_eq!(second.subscribe(json!({"replay":false})).get("lost_before_seq"), None);
    second.fails(json!({"cmd":"ack","up_to_seq":seqs(&told)[4] + 1}), "ack_out_of_range");
    second.ok(json!({"cmd":"ack","up_to_seq":oldest - 1}));
    assert_eq!(inbox(&mut second).get("lost_before_seq"), None, "it has acked past the loss");
    let third = inbox(&mut consumer(&bob, "third"));
    assert_eq!(third["lost_before_seq"], oldest);
}

#[test]
fn a_loss_is_told_after_a_kill_too() {
    // shows: IPC-BOX-9, IPC-BOX-12
    let (alice, mut bob) = pair_with("", "[ipc]\nbuffer_size = 3\n");
    for n in 0..6 {
        notify(&alice, n..n + 1);
        let mut reader = consumer(&bob, "reader");
        let page = inbox(&mut reader);
        ack(&mut reader, &page);
    }
    let lost = |bob: &Daemon| {
        let page = inbox(&mut consumer(bob, "late"));
        assert_eq!(numbers(&page), [3, 4, 5]);
        assert_eq!(page["lost_before_seq"], seqs(&page)[0], "{page}");
        page["lost_before_seq"].clone()
    };
    let told = lost(&bob);
    crash(&mut bob, &alice);
    assert_eq!(lost(&bob), told);
    assert_eq!(inbox(&mut consumer(&bob, "reader")).get("lost_before_seq"), None);
}

#[test]
fn rows_without_a_receipt_go_oldest_first() {
    // shows: IPC-BOX-4, IPC-BOX-9, IPC-BOX-10
    let peer = RawPeer::new();
    let daemon = knows(&peer, "[ipc]\nbuffer_size = 5\n");
    let (link, _) = peer.dial(&daemon).receipting();
    let mut client = daemon.client();
    let mut late = consumer(&daemon, "late");
    // One way without a receipt: nobody was promised anything.
    for n in 0..7 {
        link.tell(&link.note(n));
        wait_for("it to be kept", || (numbers(&inbox(&mut client)).last() == Some(&n)).then_some(()));
    }
    let page = inbox(&mut client);
    assert_eq!(numbers(&page), [2, 3, 4, 5, 6]);
    assert_eq!(page["lost_before_seq"], seqs(&page)[0], "{page}");
    // Three with a receipt: the oldest without one go. A loss in the middle counts up to its end.
    for n in 7..10 {
        link.receipted(&link.note(n));
    }
    assert_eq!(numbers(&inbox(&mut client)), [5, 6, 7, 8, 9]);
    link.tell(&link.note(10));
    wait_for("it to be kept", || (numbers(&inbox(&mut client)).last() == Some(&10)).then_some(()));
    assert_eq!(numbers(&inbox(&mut client)), [6, 7, 8, 9, 10]);
    for n in 11..13 {
        link.receipted(&link.note(n));
    }
    let page = inbox(&mut late);
    assert_eq!(numbers(&page), [7, 8, 9, 11, 12]);
    assert_eq!(
        page["lost_before_seq"],
        seqs(&page)[3],
        "the first that is kept after the last one lost: {page}"
    );
    overloaded(&link, &link.note(13));
    // A row that somebody has read goes first, whatever it is.
    let mut reader = consumer(&daemon, "reader");
    inbox(&mut reader);
    reader.ok(json!({"cmd":"ack","up_to_seq":seqs(&page)[0]}));
    link.receipted(&link.note(14));
    assert_eq!(numbers(&inbox(&mut client)), [8, 9, 11, 12, 14]);
}

#[test]
fn delegations_are_firm_and_what_is_read_goes_first() {
    // shows: IPC-BOX-3, IPC-BOX-4, IPC-BOX-10
    let peer = RawPeer::new();
    let daemon = knows(&peer, "[ipc]\nbuffer_size = 3\n");
    let link = peer.dial(&daemon).greeted();
    for _ in 0..3 {
        let answer = link.ask(&link.envelope("delegate", json!({"task":"t"}))).unwrap();
        assert_eq!(answer["payload"], json!({"accepted":true,"state":"queued"}));
    }
    let more = link.envelope("delegate", json!({"task":"more"}));
    assert_eq!(link.refusal(&more), "overloaded");
    let mut client = daemon.client();
    let page = inbox(&mut client);
    assert_eq!(rows(&page).len(), 3);
    client.ok(json!({"cmd":"ack","up_to_seq":seqs(&page)[0]}));
    assert_eq!(link.ask(&more).unwrap()["payload"], json!({"accepted":true,"state":"queued"}));
    assert_eq!(rows(&inbox(&mut client)).len(), 3);
    // The one whose row went still waits for an agent.
    let mut agent = daemon.answerer(json!({"answer":["delegate"]}));
    for _ in 0..4 {
        assert_eq!(agent.event()["answer"], true);
    }
}

#[test]
fn bytes_bound_it_too() {
    // shows: IPC-BOX-4, IPC-BOX-10
    let (alice, bob) = pair_with("", "[ipc]\nbuffer_byte_cap = 10000\n");
    let padded = |n: u64, bytes: usize| {
        let payload = json!({"topic":"t","data":n,"pad":"x".repeat(bytes)});
        json!({"cmd":"send","to":"bob","kind":"notify","payload":payload})
    };
    let mut asker = alice.client();
    for n in 0..3 {
        asker.ok(padded(n, 3000));
    }
    asker.fails(padded(3, 3000), "overloaded");
    asker.ok(padded(4, 1));
    let mut client = bob.client();
    let page = inbox(&mut client);
    assert_eq!(numbers(&page), [0, 1, 2, 4]);
    ack(&mut client, &page);
    // Larger than all the room there is: nothing goes for it.
    asker.fails(padded(5, 12_000), "overloaded");
    assert_eq!(numbers(&inbox(&mut consumer(&bob, "other"))), [0, 1, 2, 4]);
    asker.ok(padded(6, 6000));
    assert_eq!(numbers(&inbox(&mut consumer(&bob, "other"))), [2, 4, 6]);
}

#[test]
fn age_takes_everything_and_is_told() {
    // shows: IPC-BOX-4, IPC-BOX-9, IPC-BOX-10, IPC-ACK-3
    let (alice, mut bob) = pair_with("", "[ipc]\nbuffer_ttl_secs = 1\n");
    notify(&alice, 0..2);
    let mut client = bob.client();
    let page = wait_for("the rows to be too old", || {
        let page = inbox(&mut client);
        rows(&page).is_empty().then_some(page)
    });
    let told = page["lost_before_seq"].as_u64().unwrap();
    bob.set_config("");
    crash(&mut bob, &alice);
    let mut client = bob.client();
    // Told after a kill too; the numbers may have jumped by it.
    let next = inbox(&mut client)["lost_before_seq"].as_u64().unwrap();
    assert!(next >= told, "{next} {told}");
    notify(&alice, 2..3);
    let page = inbox(&mut client);
    assert_eq!((numbers(&page), seqs(&page)), (vec![2], vec![next]), "the number that the next row got");
    assert_eq!(page["lost_before_seq"], next);
    client.ok(json!({"cmd":"ack","up_to_seq":next - 1}));
    let page = inbox(&mut client);
    assert_eq!((numbers(&page), page.get("lost_before_seq")), (vec![2], None));
}

#[test]
fn what_is_lost_can_be_acked_when_nothing_else_is_there() {
    // shows: IPC-ACK-3, IPC-BOX-9
    let (alice, bob) = pair_with("", "[ipc]\nbuffer_ttl_secs = 1\n");
    notify(&alice, 0..2);
    let mut client = consumer(&bob, "late");
    let next = wait_for("the rows to be too old", || {
        let page = inbox(&mut client);
        rows(&page).is_empty().then(|| page["lost_before_seq"].as_u64().unwrap())
    });
    client.fails(json!({"cmd":"ack","up_to_seq":next}), "ack_out_of_range");
    assert_eq!(client.ok(json!({"cmd":"ack","up_to_seq":next - 1}))["acked_seq"], next - 1);
    assert_eq!(inbox(&mut client).get("lost_before_seq"), None);
}

// --- with and without receipts ---

#[test]
fn a_sender_is_told_what_its_peer_said() {
    // shows: IPC-SEND-6, IPC-SEND-7, WF-STR-2, WF-STR-9, CORE-NOT-1
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let (link, _) = peer.dial(&daemon).receipting();
    let mut client = daemon.client();
    let error = |code: &str| json!({"code":code,"message":format!("because {code}"),"retryable":false});
    let cases = [
        ("ack", json!({"accepted":true}), None),
        ("error", error("overloaded"), Some("overloaded")),
        ("error", error("not_authorized"), Some("not_authorized")),
        ("error", error("invalid_envelope"), Some("internal_error")),
        ("error", error("teapot"), Some("internal_error")),
    ];
    for (n, (kind, payload, code)) in cases.into_iter().enumerate() {
        let req = client.begin(note("raw", n as u64));
        let request = link.request();
        assert_eq!(request.envelope["kind"], "notify");
        client.silent();
        link.answer(request, kind, payload.clone());
        let reply = client.finish(&req);
        match code {
            None => {
                assert_eq!((&reply["ok"], &reply["state"]), (&json!(true), &json!("delivered")), "{reply}")
            }
            Some(code) => {
                assert_eq!((&reply["ok"], &reply["error"]), (&json!(false), &json!(code)), "{reply}");
                let said = payload["message"].as_str().unwrap();
                assert!(reply["message"].as_str().unwrap().contains(said), "{reply}");
            }
        }
    }
    assert_eq!(client.ok(json!({"cmd":"outbox"}))["outbox"], json!([]), "none of these is in the outbox");
}

#[test]
fn a_peer_of_version_1_alone_gets_it_one_way() {
    // shows: IPC-SEND-6, IPC-OUT-6, IPC-OUT-13, WF-STR-9, WF-FEA-1
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let link = peer.dial(&daemon).greeted();
    let mut client = daemon.client();
    let reply = client.ok(note("raw", 1));
    assert_eq!(reply["state"], "sent", "{reply}");
    assert_eq!(link.one_way()["payload"]["data"], 1);
    let mut asking = held_note("raw", 2);
    asking["read_receipt"] = true.into();
    let reply = client.ok(asking);
    assert_eq!(reply["state"], "sent", "{reply}");
    let got = link.one_way();
    assert_eq!((&got["payload"]["data"], &got["id"]), (&json!(2), &reply["msg_id"]));
    assert_eq!(outbox_row(&mut client, &reply["msg_id"]).unwrap()["state"], "sent");
    assert_eq!(RawClient::v1(&daemon).cmd(note("raw", 3)).get("state"), None, "nor is a v1 client told");
}

#[test]
fn without_durable_nothing_is_promised_and_nothing_outlives_it() {
    // shows: IPC-BOX-16, IPC-HEL-3, WF-FEA-5, IPC-SEND-6
    let peer = RawPeer::new();
    let mut daemon = knows(&peer, "[ipc]\ndurable = false\n");
    let (link, features) = peer.dial(&daemon).receipting();
    assert!(!offers_receipts(&features), "{features}");
    let hello = daemon.connect().cmd(json!({"cmd":"hello","req_id":"h","version":2}));
    assert!(!hello["features"].as_array().unwrap().contains(&json!("durable")), "{hello}");
    // A peer may still ask: what it asks about is kept as long as the daemon runs.
    link.tell(&link.note(1));
    wait_for("it to be kept", || (numbers(&inbox(&mut daemon.client())) == [1]).then_some(()));
    let mut client = daemon.client();
    client.ok(json!({"cmd":"advertise","persist":true,"capabilities":{"domains":["d"]}}));
    assert_eq!(daemon.terminate().code(), Some(0));
    daemon.up();
    assert_eq!(inbox(&mut daemon.client())["messages"], json!([]));
    let (link, _) = peer.dial(&daemon).receipting();
    let answer = link.ask(&link.envelope("discover", json!({}))).unwrap();
    assert_eq!(answer["payload"], json!({}));

    // And one that sends to such a daemon says so.
    let (alice, _bob) = pair_with("", "[ipc]\ndurable = false\n");
    assert_eq!(alice.client().ok(note("bob", 1))["state"], "sent");
}

#[test]
fn with_no_buffer_nothing_is_kept_but_delegations() {
    // shows: IPC-BOX-11, IPC-BOX-16, WF-FEA-5
    let peer = RawPeer::new();
    let mut daemon = knows(&peer, "[ipc]\nbuffer_size = 0\n");
    let (link, features) = peer.dial(&daemon).receipting();
    assert!(!offers_receipts(&features), "{features}");
    let mut listener = daemon.answerer(json!({"kinds":["notify"]}));
    link.tell(&link.note(1));
    assert_eq!(listener.event()["envelope"]["payload"]["data"], 1);
    assert_eq!(inbox(&mut daemon.client())["messages"], json!([]));
    let task = link.envelope("delegate", json!({"task":"t"}));
    assert_eq!(link.ask(&task).unwrap()["payload"], json!({"accepted":true,"state":"queued"}));
    daemon.kill9();
    daemon.up();
    assert_eq!(inbox(&mut daemon.client())["messages"], json!([]));
    let mut agent = daemon.answerer(json!({"answer":["delegate"]}));
    assert_eq!(agent.request()["id"], task["id"], "the ledger keeps it");
}

#[test]
fn no_buffer_since_the_start_refuses_receipts() {
    // shows: IPC-BOX-11
    let peer = RawPeer::new();
    let daemon = knows(&peer, "");
    let (link, features) = peer.dial(&daemon).receipting();
    assert!(offers_receipts(&features));
    link.receipted(&link.note(1));
    let entry = peer.quiet_entry("raw");
    daemon.set_config(&format!("[ipc]\nbuffer_size = 0\n{entry}"));
    daemon.reload();
    let refused = link.note(2);
    overloaded(&link, &refused);
    let mut listener = daemon.answerer(json!({"kinds":["notify"],"replay":false}));
    link.tell(&link.note(3));
    assert_eq!(listener.event()["envelope"]["payload"]["data"], 3);
    daemon.set_config(&entry);
    daemon.reload();
    link.receipted(&refused);
}
