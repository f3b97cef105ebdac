//! The inbox: cursors, what is kept, replay and live events, clients that do not keep up.

use serde_json::{Value, json};

use crate::support::{Daemon, RawClient, pair, pair_with, wait_for};

/// Sends notifies with these numbers as data, one after the other.
fn notify(from: &Daemon, numbers: std::ops::Range<u64>) {
    notify_padded(from, numbers, 0);
}

fn notify_padded(from: &Daemon, numbers: std::ops::Range<u64>, pad: usize) {
    let mut client = from.client();
    for n in numbers {
        let payload = json!({"topic":"t","data":n,"pad":"x".repeat(pad)});
        client.ok(json!({"cmd":"send","to":"bob","kind":"notify","payload":payload}));
    }
}

/// One more; there must be no room for it.
fn no_room(from: &Daemon, number: u64, pad: usize) {
    let payload = json!({"topic":"t","data":number,"pad":"x".repeat(pad)});
    from.client().fails(json!({"cmd":"send","to":"bob","kind":"notify","payload":payload}), "overloaded");
}

/// Another kind than notify: an unacked delegation that stays in the inbox.
fn delegate(from: &Daemon) {
    from.client().ok(json!({"cmd":"send","to":"bob","kind":"delegate","payload":{"task":"t"}}));
}

fn consumer(daemon: &Daemon, name: &str) -> RawClient {
    let mut client = daemon.connect();
    client.hello_as(name);
    client
}

/// The numbers of the rows of an inbox reply.
fn numbers(reply: &Value) -> Vec<u64> {
    let rows = reply["messages"].as_array().unwrap().iter();
    rows.map(|row| row["envelope"]["payload"]["data"].as_u64().unwrap()).collect()
}

fn seqs(reply: &Value) -> Vec<u64> {
    reply["messages"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()).collect()
}

fn number(event: &Value) -> u64 {
    assert_eq!(event["event"], "inbound", "{event}");
    event["envelope"]["payload"]["data"].as_u64().unwrap()
}

fn unread(client: &mut RawClient) -> u64 {
    client.ok(json!({"cmd":"status"}))["inbox_unread"].as_u64().unwrap()
}

/// Reads on from the inbox as the specification says, until nothing is left; the numbers.
fn catch_up(client: &mut RawClient) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let reply = client.ok(json!({"cmd":"inbox"}));
        all.extend(numbers(&reply));
        if reply["next_seq"].is_u64() {
            client.ok(json!({"cmd":"ack","up_to_seq":reply["next_seq"]}));
        }
        if reply["has_more"] == false {
            return all;
        }
    }
}

#[test]
fn reading_moves_nothing_and_ack_moves_one_consumers_cursor() {
    // shows: IPC-INB-1, IPC-ACK-1, IPC-ACK-2, IPC-BOX-2, IPC-BOX-5, CORE-NOT-2
    let (alice, bob) = pair();
    let mut first = bob.client();
    let empty = first.ok(json!({"cmd":"inbox"}));
    assert_eq!(
        (&empty["messages"], &empty["next_seq"], &empty["has_more"]),
        (&json!([]), &Value::Null, &json!(false))
    );
    notify(&alice, 0..5);
    assert_eq!(unread(&mut first), 5);
    first.fails(json!({"cmd":"ack","up_to_seq":1}), "ack_out_of_range");
    let page = first.ok(json!({"cmd":"inbox","limit":3}));
    assert_eq!((numbers(&page), &page["has_more"]), (vec![0, 1, 2], &json!(true)));
    let given = seqs(&page);
    assert!(given.windows(2).all(|two| two[0] < two[1]), "{given:?}");
    assert_eq!(page["next_seq"], given[2], "the last one given");
    let row = &page["messages"][0];
    assert_eq!((&row["envelope"]["kind"], &row["envelope"]["from"]), (&json!("notify"), &json!(alice.id())));
    assert!(row["buffered_at_ms"].as_u64().unwrap() > 1_600_000_000_000, "{row}");
    assert_eq!(
        first.ok(json!({"cmd":"inbox","limit":3}))["messages"],
        page["messages"],
        "reading moves nothing"
    );

    first.fails(json!({"cmd":"ack","up_to_seq":given[2] + 1}), "ack_out_of_range");
    assert_eq!(first.ok(json!({"cmd":"ack","up_to_seq":given[1]}))["acked_seq"], given[1]);
    assert_eq!(first.ok(json!({"cmd":"ack","up_to_seq":given[0]}))["acked_seq"], given[1], "never back");
    assert_eq!(unread(&mut first), 3);
    let rest = first.ok(json!({"cmd":"inbox"}));
    assert_eq!((numbers(&rest), &rest["has_more"]), (vec![2, 3, 4], &json!(false)));
    first.ok(json!({"cmd":"ack","up_to_seq":rest["next_seq"]}));
    assert_eq!(first.ok(json!({"cmd":"inbox"}))["next_seq"], Value::Null);

    // Two clients of one consumer share its cursor; another consumer has its own.
    assert_eq!(unread(&mut bob.client()), 0);
    let mut second = consumer(&bob, "second");
    assert_eq!(unread(&mut second), 5);
    second.fails(json!({"cmd":"ack","up_to_seq":given[0]}), "ack_out_of_range");
    assert_eq!(numbers(&second.ok(json!({"cmd":"inbox","limit":1000}))), [0, 1, 2, 3, 4]);
    drop((first, second));
    assert_eq!(unread(&mut bob.client()), 0, "a cursor outlives its clients");
}

#[test]
fn kinds_stop_at_the_first_of_another_kind() {
    // shows: IPC-INB-2
    let (alice, bob) = pair();
    notify(&alice, 0..2);
    delegate(&alice);
    notify(&alice, 2..4);
    let mut client = bob.client();
    let page = client.ok(json!({"cmd":"inbox","kinds":["notify"]}));
    assert_eq!((numbers(&page), &page["has_more"]), (vec![0, 1], &json!(false)));
    let one = client.ok(json!({"cmd":"inbox","kinds":["notify"],"limit":1}));
    assert_eq!(one["has_more"], true, "only the limit kept the next one back");
    let two = client.ok(json!({"cmd":"inbox","kinds":["notify"],"limit":2}));
    assert_eq!(two["has_more"], false, "the next row would not have been given");
    let other = client.ok(json!({"cmd":"inbox","kinds":["delegate","result"]}));
    assert_eq!((&other["messages"], &other["next_seq"]), (&json!([]), &Value::Null));
    client.ok(json!({"cmd":"ack","up_to_seq":page["next_seq"]}));
    let other = client.ok(json!({"cmd":"inbox","kinds":["delegate"]}));
    assert_eq!(other["messages"].as_array().unwrap().len(), 1);
}

#[test]
fn replay_then_the_reply_then_live_events() {
    // shows: IPC-SUB-1, IPC-SUB-2, IPC-EV-1
    let (alice, bob) = pair();
    notify(&alice, 0..3);
    delegate(&alice);
    let mut client = bob.client();
    let page = client.ok(json!({"cmd":"inbox","limit":1}));
    client.ok(json!({"cmd":"ack","up_to_seq":page["next_seq"]}));
    let reply = client.subscribe(json!({"kinds":["notify"]}));
    // The events stood before the reply, in order of seq.
    assert_eq!(client.events.len(), 2);
    let replayed: Vec<Value> = client.events.drain(..).collect();
    assert_eq!((number(&replayed[0]), number(&replayed[1])), (1, 2));
    assert!(replayed.iter().all(|event| event["replay"] == true && event.get("answer").is_none()));
    assert_eq!((&reply["replayed"], &reply["replay_to_seq"]), (&json!(2), &replayed[1]["seq"]));
    notify(&alice, 3..5);
    let live: Vec<Value> = (0..2).map(|_| client.event()).collect();
    assert_eq!((number(&live[0]), number(&live[1])), (3, 4));
    assert!(live.iter().all(|event| event["replay"] == false));
    assert!(
        live[0]["seq"].as_u64() > reply["replay_to_seq"].as_u64()
            && live[0]["seq"].as_u64() < live[1]["seq"].as_u64()
    );
    client.silent();
    // What came as an event may be acked.
    client.ok(json!({"cmd":"ack","up_to_seq":live[0]["seq"]}));

    // A second subscription takes the place of the first.
    client.subscribe(json!({"kinds":["result"]}));
    notify(&alice, 5..6);
    client.silent();
    let reply = client.subscribe(json!({"replay":false}));
    // Where nothing is replayed it is the cursor.
    assert_eq!((&reply["replayed"], &reply["replay_to_seq"]), (&json!(0), &live[0]["seq"]));
    client.silent();
    notify(&alice, 6..7);
    assert_eq!(number(&client.event()), 6);
    // Unknown kinds may be asked for, and `answer` gives no others.
    client.subscribe(json!({"kinds":["something.new"]}));
    client.subscribe(json!({"answer":["query"]}));
    notify(&alice, 7..8);
    client.silent();
}

#[test]
fn the_inbox_is_bounded_by_rows() {
    // shows: IPC-BOX-4, IPC-BOX-9, IPC-BOX-10, IPC-SEND-7
    let (alice, bob) = pair_with("", "[ipc]\nbuffer_size = 5\n");
    notify(&alice, 0..5);
    // Their sender was told that they are kept, and nobody has read them: the new one is refused.
    no_room(&alice, 5, 0);
    let mut client = bob.client();
    let page = client.ok(json!({"cmd":"inbox"}));
    assert_eq!(numbers(&page), [0, 1, 2, 3, 4]);
    assert_eq!(unread(&mut client), 5);

    // What one consumer has read goes, the oldest first, and no more of it than must.
    client.ok(json!({"cmd":"ack","up_to_seq":seqs(&page)[2]}));
    notify(&alice, 6..8);
    let page = client.ok(json!({"cmd":"inbox"}));
    assert_eq!((numbers(&page), page.get("lost_before_seq")), (vec![3, 4, 6, 7], None));
    let mut other = consumer(&bob, "other");
    let page = other.ok(json!({"cmd":"inbox"}));
    assert_eq!(numbers(&page), [2, 3, 4, 6, 7]);
    assert_eq!(page["lost_before_seq"], seqs(&page)[0], "it had not read what went: {page}");
    notify(&alice, 8..9);
    no_room(&alice, 9, 0);

    // The other way round: now the first one is told.
    let page = other.ok(json!({"cmd":"inbox"}));
    assert_eq!(numbers(&page), [3, 4, 6, 7, 8]);
    other.ok(json!({"cmd":"ack","up_to_seq":page["next_seq"]}));
    notify(&alice, 10..12);
    let page = client.ok(json!({"cmd":"inbox"}));
    assert_eq!((numbers(&page), &page["lost_before_seq"]), (vec![6, 7, 8, 10, 11], &json!(seqs(&page)[0])));
    client.ok(json!({"cmd":"ack","up_to_seq":seqs(&page)[0]}));
    let page = client.ok(json!({"cmd":"inbox"}));
    assert_eq!(
        (numbers(&page), page.get("lost_before_seq")),
        (vec![7, 8, 10, 11], None),
        "past what is lost"
    );
}

#[test]
fn with_no_rows_listeners_see_what_comes_and_nothing_is_kept() {
    // shows: IPC-BOX-4, IPC-BOX-10, IPC-BOX-11, IPC-BOX-16
    let (alice, mut bob) = pair();
    notify(&alice, 0..4);
    let mut client = bob.client();
    let page = client.ok(json!({"cmd":"inbox"}));
    client.ok(json!({"cmd":"ack","up_to_seq":seqs(&page)[1]}));
    bob.set_config("[ipc]\nbuffer_size = 0\n");
    bob.reload();
    // It has said that it gives receipts, so it must refuse; what is unread and receipted stays.
    let mut listener = bob.answerer(json!({"replay":false}));
    no_room(&alice, 4, 0);
    listener.silent();
    assert_eq!(numbers(&client.ok(json!({"cmd":"inbox"}))), [2, 3]);
    client.ok(json!({"cmd":"ack","up_to_seq":page["next_seq"]}));
    bob.reload();
    wait_for("what is read to go", || {
        let left = consumer(&bob, "other").ok(json!({"cmd":"inbox"}));
        (left["messages"] == json!([])).then_some(())
    });

    // From its next start it says no such thing: none are kept, but listeners see them.
    assert_eq!(bob.terminate().code(), Some(0));
    bob.up();
    bob.wait_peer(&alice, true);
    alice.wait_peer(&bob, true);
    let mut listener = bob.answerer(json!({"replay":false}));
    for n in 5..7 {
        let payload = json!({"topic":"t","data":n});
        let sent = alice.client().ok(json!({"cmd":"send","to":"bob","kind":"notify","payload":payload}));
        assert_eq!(sent["state"], "sent", "{sent}");
        assert_eq!(number(&listener.event()), n);
    }
    assert_eq!(bob.client().ok(json!({"cmd":"inbox"}))["messages"], json!([]));
    assert_eq!(unread(&mut bob.client()), 0);
}

#[test]
fn the_inbox_is_bounded_by_bytes_and_age() {
    // shows: IPC-BOX-4, IPC-BOX-9, IPC-BOX-10
    let (alice, bob) = pair_with("", "[ipc]\nbuffer_byte_cap = 10000\n");
    notify_padded(&alice, 0..3, 2800);
    no_room(&alice, 3, 3000);
    notify(&alice, 4..6);
    let mut client = bob.client();
    let page = client.ok(json!({"cmd":"inbox"}));
    assert_eq!(numbers(&page), [0, 1, 2, 4, 5]);
    client.ok(json!({"cmd":"ack","up_to_seq":page["next_seq"]}));
    // Larger than all the room there is: nothing goes for it.
    no_room(&alice, 6, 10_000);
    let mut other = consumer(&bob, "other");
    assert_eq!(numbers(&other.ok(json!({"cmd":"inbox"}))), [0, 1, 2, 4, 5]);
    notify_padded(&alice, 7..8, 2800);
    let page = other.ok(json!({"cmd":"inbox"}));
    assert_eq!((numbers(&page), &page["lost_before_seq"]), (vec![1, 2, 4, 5, 7], &json!(seqs(&page)[0])));

    // Age takes what nobody has read, too, and that is told.
    bob.set_config("[ipc]\nbuffer_ttl_secs = 1\n");
    bob.reload();
    let page = wait_for("the rows to be too old", || {
        let page = client.ok(json!({"cmd":"inbox"}));
        (page["messages"] == json!([])).then_some(page)
    });
    assert!(page["lost_before_seq"].is_u64(), "{page}");
    notify(&alice, 8..9);
    let next = client.ok(json!({"cmd":"inbox"}));
    assert_eq!((numbers(&next), json!(seqs(&next)[0])), (vec![8], page["lost_before_seq"].clone()), "{next}");
}

#[test]
fn a_reply_is_about_a_mebibyte_at_most() {
    // shows: IPC-INB-3, IPC-LINE-3
    let (alice, bob) = pair();
    notify_padded(&alice, 0..30, 60_000);
    let mut client = bob.client();
    let page = client.ok(json!({"cmd":"inbox"}));
    let got = numbers(&page);
    assert!(got.len() < 30 && got.len() >= 16, "{}", got.len());
    assert!(page.to_string().len() < 1_048_576 + 1024, "{}", page.to_string().len());
    assert_eq!(page["has_more"], true);
    assert_eq!(catch_up(&mut client), (0..30).collect::<Vec<_>>());
}

/// A subscriber that did not read while `0..count` came: what it was given, and where it is to resume.
fn overrun(alice: &Daemon, client: &mut RawClient, count: u64) -> (Vec<u64>, u64) {
    notify_padded(alice, 0..count, 40_000);
    let mut got = Vec::new();
    loop {
        let event = client.event();
        if event["event"] == "slow_consumer" {
            return (got, event["resume_from_seq"].as_u64().unwrap());
        }
        got.push(number(&event));
        client.ok(json!({"cmd":"ack","up_to_seq":event["seq"]}));
    }
}

#[test]
fn a_slow_consumer_is_told_and_loses_nothing() {
    // shows: IPC-SLOW-1, IPC-SLOW-2, IPC-SLOW-3
    let (alice, bob) = pair_with("", "[ipc]\nmax_client_queue = 4\n");
    let mut slow = bob.answerer(json!({"kinds":["notify"],"answer":["query"]}));
    // What the system's own buffers take comes on top of the four.
    notify_padded(&alice, 0..40, 40_000);
    // A request is handed to it all the same.
    let mut asker = alice.client();
    let query = asker.ask("bob", "q", json!({}));
    let mut got = Vec::new();
    let mut resume = None;
    let request = loop {
        let event = slow.event();
        if event["answer"] == true {
            break event["envelope"].clone();
        } else if event["event"] == "slow_consumer" {
            assert_eq!(resume.replace(event["resume_from_seq"].as_u64().unwrap()), None, "told once");
        } else {
            assert_eq!(resume, None, "no live events after it");
            got.push(number(&event));
            slow.ok(json!({"cmd":"ack","up_to_seq":event["seq"]}));
        }
    };
    slow.respond(&request, "a");
    assert_eq!(asker.finish(&query)["response"]["payload"]["summary"], "a");
    let resume = resume.expect("it was told");
    assert!(got.len() < 40);
    // Still not live: it has not read on.
    notify(&alice, 40..41);
    slow.silent();
    let page = slow.ok(json!({"cmd":"inbox","limit":1}));
    assert_eq!(seqs(&page), [resume]);
    slow.silent();
    got.extend(catch_up(&mut slow));
    assert_eq!(got, (0..41).collect::<Vec<_>>(), "nothing is lost, nothing comes twice");
    // And live again.
    notify(&alice, 41..42);
    assert_eq!(number(&slow.event()), 41);
}

#[test]
fn a_slow_consumer_is_live_again_when_its_twin_has_read_for_it() {
    // shows: IPC-SLOW-2, IPC-BOX-5: two clients share one cursor
    let (alice, bob) = pair_with("", "[ipc]\nmax_client_queue = 4\n");
    let mut slow = bob.answerer(json!({"kinds":["notify"]}));
    let (got, _) = overrun(&alice, &mut slow, 40);
    assert!(got.len() < 40);
    catch_up(&mut bob.client());
    let rest = slow.ok(json!({"cmd":"inbox"}));
    assert_eq!(rest["messages"], json!([]), "all of its consumer is read");
    notify(&alice, 40..41);
    assert_eq!(number(&slow.event()), 40);
}

#[test]
fn a_slow_v1_client_is_closed() {
    // shows: IPC-V1-5
    let (alice, bob) = pair_with("", "[ipc]\nmax_client_queue = 4\n");
    let mut slow = RawClient::v1(&bob);
    slow.cmd(json!({"cmd":"status"}));
    notify_padded(&alice, 0..40, 40_000);
    let last = loop {
        let line = slow.line().unwrap();
        if line.get("inbound").is_none() {
            break line;
        }
    };
    assert_eq!((&last["ok"], &last["error"]), (&json!(false), &json!("slow_consumer")), "{last}");
    assert_eq!(slow.line(), None);
}

#[test]
fn a_long_replay_ends_in_the_inbox() {
    // shows: IPC-SUB-2
    let (alice, bob) = pair_with("", "[ipc]\nbuffer_size = 2000\n");
    notify(&alice, 0..1030);
    let mut client = bob.client();
    let reply = client.subscribe(json!({}));
    assert_eq!(reply["replayed"], 1024);
    let replayed: Vec<Value> = client.events.drain(..).collect();
    assert_eq!(replayed.len(), 1024);
    let slow = client.event();
    assert_eq!(
        (&slow["event"], &slow["resume_from_seq"]),
        (&json!("slow_consumer"), &json!(replayed[1023]["seq"].as_u64().unwrap() + 1))
    );
    client.ok(json!({"cmd":"ack","up_to_seq":reply["replay_to_seq"]}));
    assert_eq!(catch_up(&mut client), (1024..1030).collect::<Vec<_>>());
    notify(&alice, 1030..1031);
    assert_eq!(number(&client.event()), 1030);
}

#[test]
fn a_restart_keeps_it() {
    // shows: IPC-BOX-2, IPC-BOX-5, IPC-BOX-12, IPC-ORD-8
    let (alice, mut bob) = pair();
    notify(&alice, 0..3);
    let mut client = bob.client();
    let before = client.ok(json!({"cmd":"inbox"}));
    client.ok(json!({"cmd":"ack","up_to_seq":seqs(&before)[0]}));
    let mut last = seqs(&before)[2];
    for (round, kill) in (3..).zip([true, false, true]) {
        if kill {
            bob.kill9();
        } else {
            assert_eq!(bob.terminate().code(), Some(0));
        }
        bob.up();
        bob.wait_peer(&alice, true);
        alice.wait_peer(&bob, true);
        notify(&alice, round..round + 1);
        let mut client = bob.client();
        assert_eq!(unread(&mut client), round);
        let page = client.ok(json!({"cmd":"inbox"}));
        assert_eq!(numbers(&page), (1..=round).collect::<Vec<_>>(), "past what was acked, and the new one");
        assert_eq!(page["messages"][0], before["messages"][1], "as it was");
        assert_eq!(page["messages"][1], before["messages"][2]);
        let newest = *seqs(&page).last().unwrap();
        assert!(newest > last, "numbers go on: {newest} after {last}");
        last = newest;
    }
}

#[test]
fn the_least_recently_used_consumer_is_forgotten() {
    // shows: IPC-BOX-6
    let (alice, bob) = pair();
    notify(&alice, 0..1);
    let read = |client: &mut RawClient| {
        let page = client.ok(json!({"cmd":"inbox"}));
        client.ok(json!({"cmd":"ack","up_to_seq":page["next_seq"]}));
        assert_eq!(unread(client), 0);
    };
    let mut used = consumer(&bob, "used");
    read(&mut used);
    read(&mut consumer(&bob, "unused"));
    let mut many = bob.client();
    for n in 0..1100 {
        many.hello_as(&format!("c{n}"));
    }
    assert_eq!(unread(&mut used), 0, "a client is attached");
    assert_eq!(unread(&mut consumer(&bob, "unused")), 1, "begins anew");
}
