//! The store and its disk, from outside: a disk that is full, damage, another version, two daemons.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::peer::{Link, RawPeer};
use crate::support;
use crate::support::kept::{
    SOON, ack, consumer, dropped, held_note, inbox, ledger_row, note, notify, numbers, outbox_row, rejoin,
    wait_ledger, wait_outbox,
};
use crate::support::{Daemon, RawClient, pair, pair_with, set_mode, skip, wait_for};

/// Where a segment of the store says its form, twice.
const FORMAT_AT: [usize; 2] = [8, 40];

/// A small file system over a directory; it goes when this is dropped.
struct Small {
    at: PathBuf,
    filler: PathBuf,
}

impl Small {
    /// None: this user may not mount.
    fn over(at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m,mode=0700", "none"]).arg(at);
        let done = mount.output().is_ok_and(|output| output.status.success());
        done.then(|| Self { at: at.to_owned(), filler: at.join("filler") })
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(&self.filler).unwrap();
        for size in [65_536, 4_096, 512, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(&self.filler).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.at.join("test.log")).unwrap_or_default());
        }
        // Lazily: a daemon may still be there.
        Command::new("umount").arg("-l").arg(&self.at).status().ok();
    }
}

/// A daemon whose whole root is on a small file system, and that knows this peer as `raw`.
///
/// In this order, so that the file system goes before the directory that it is mounted on.
fn small(peer: &RawPeer) -> Option<(Daemon, Small)> {
    let config = format!("{SOON}{}", peer.quiet_entry("raw"));
    let mut daemon = Daemon::idle("");
    let disk = Small::over(&daemon.root())?;
    set_mode(&daemon.root(), 0o700);
    daemon.set_config(&config);
    daemon.up();
    Some((daemon, disk))
}

/// Whether it is receipted; else it must be refused for now.
fn taken(link: &Link, envelope: &Value) -> bool {
    let answer = link.ask(envelope).expect("a receipt or a refusal");
    if answer["kind"] == "ack" {
        return true;
    }
    let payload = &answer["payload"];
    assert_eq!((&payload["code"], &payload["retryable"]), (&json!("overloaded"), &json!(true)), "{answer}");
    false
}

/// Says this again and again, each time with a full disk, until it is refused; gives what was said then.
///
/// The store may tidy up meanwhile, and then there is a little room once more.
fn until_refused(disk: &Small, command: impl Fn(usize) -> (RawClient, Value)) -> String {
    for n in 0..20 {
        disk.fill();
        let (mut client, command) = command(n);
        let reply = client.cmd(command);
        if reply["ok"] == false {
            assert_eq!(reply["error"], "overloaded", "{reply}");
            return reply["message"].as_str().unwrap().to_owned();
        }
    }
    panic!("a full disk refuses nothing");
}

/// Files of the store whose names fit.
fn store_files(daemon: &Daemon, fits: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(daemon.root().join("store")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| fits(path.file_name().unwrap().to_str().unwrap()));
    paths.sort();
    paths
}

fn logs(daemon: &Daemon) -> Vec<PathBuf> {
    store_files(daemon, |name| name.ends_with(".log"))
}

/// Runs a daemon that must refuse to start; what it says, and its exit code.
fn refused(daemon: &Daemon) -> (String, Option<i32>) {
    let output = daemon.command(&["daemon", "--port", "0"]).output().unwrap();
    let line: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no line of JSON: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(line["ok"], false, "{line}");
    (line["message"].as_str().unwrap().to_owned(), output.status.code())
}

#[test]
fn a_full_disk_refuses_clearly_and_all_works_again_with_room() {
    // shows: IPC-BOX-15, IPC-ORD-9, IPC-ORD-7, WF-STR-12, WF-REP-8, IPC-BOX-7
    let peer = RawPeer::new();
    let Some((mut daemon, disk)) = small(&peer) else {
        return skip(
            "a_full_disk_refuses_clearly_and_all_works_again_with_room",
            "mounting is not permitted",
        );
    };
    let link = peer.dial(&daemon).receipting().0;
    for n in 0..3 {
        link.receipted(&link.note(n));
    }
    let mut agent = daemon.answerer(json!({"answer":["query"]}));
    let mut client = daemon.client();
    let page = inbox(&mut client);
    disk.fill();

    // What is refused may come again as it was, but is not kept, not shown and not remembered.
    let mut kept = vec![0, 1, 2];
    let mut refused = Vec::new();
    for n in 3..40 {
        // The last block of a file may still have a little room.
        let mut envelope = link.note(n);
        envelope["payload"]["pad"] = "x".repeat(15_000).into();
        if taken(&link, &envelope) { kept.push(n) } else { refused.push(envelope) }
    }
    assert!(refused.len() > 20, "the disk is full: {}", refused.len());
    assert!(!taken(&link, &refused[0]));
    let before = dropped(&mut client, "not_kept");
    let mut uni = link.note(100);
    uni["payload"]["pad"] = "x".repeat(15_000).into();
    link.tell(&uni);
    wait_for("the drop to be counted", || (dropped(&mut client, "not_kept") == before + 1).then_some(()));
    let mut task = link.envelope("delegate", json!({"task":"t"}));
    task["payload"]["context"] = "x".repeat(15_000).into();
    assert!(!taken(&link, &task));

    // Clients are told which command the disk refuses, and why.
    let pad = "x".repeat(15_000);
    let mut held = held_note("raw", 1);
    held["payload"]["pad"] = pad.clone().into();
    let advert = json!({"cmd":"advertise","persist":true,"capabilities":{"domains":["d"],"model":pad}});
    for command in [held, advert] {
        let said = until_refused(&disk, |n| (consumer(&daemon, &format!("c{n}")), command.clone()));
        assert!(said.contains("disk"), "names the disk: {said}");
    }
    // What needs no disk goes on: reading, queries, ping.
    assert_eq!(numbers(&inbox(&mut client)), kept);
    assert_eq!(client.ok(json!({"cmd":"outbox"}))["outbox"], json!([]));
    let query = link.envelope("query", json!({"question":"q"}));
    let mut half = link.open().unwrap();
    half.write(query.to_string().as_bytes()).unwrap();
    half.finish();
    agent.answer_one("yes");
    let answer: Value = serde_json::from_slice(&half.read().unwrap()).unwrap();
    assert_eq!(answer["payload"]["summary"], "yes");
    assert_eq!(link.ask(&link.envelope("ping", json!({}))).unwrap()["kind"], "pong");

    disk.free();
    for envelope in &refused {
        link.receipted(envelope);
    }
    assert_eq!(link.ask(&task).unwrap()["payload"], json!({"accepted":true,"state":"queued"}));
    client.ok(json!({"cmd":"advertise","persist":true,"capabilities":{"domains":["d"]}}));
    client.ok(json!({"cmd":"ack","up_to_seq":page["next_seq"]}));
    let mut all: Vec<u64> = (3..40).collect();
    let mut got = numbers(&inbox(&mut client));
    got.sort_unstable();
    assert_eq!(got, all);
    // And nothing of all that is gone with a kill.
    daemon.kill9();
    daemon.up();
    let mut client = daemon.client();
    let page = inbox(&mut client);
    let mut got = numbers(&page);
    got.sort_unstable();
    assert_eq!(got, all);
    assert_eq!(ledger_row(&mut client, &task["id"])["state"], "queued");
    let link = peer.dial(&daemon).receipting().0;
    for envelope in &refused {
        link.receipted(envelope);
    }
    link.receipted(&uni);
    all.push(100);
    let mut got = numbers(&inbox(&mut client));
    got.sort_unstable();
    assert_eq!(got, all, "what had been dropped was not remembered");
}

#[test]
fn an_ack_is_refused_when_the_disk_is_full_and_moves_nothing() {
    // shows: IPC-ORD-8, IPC-ORD-9, IPC-BOX-15
    let peer = RawPeer::new();
    let Some((mut daemon, disk)) = small(&peer) else {
        return skip(
            "an_ack_is_refused_when_the_disk_is_full_and_moves_nothing",
            "mounting is not permitted",
        );
    };
    let link = peer.dial(&daemon).receipting().0;
    for n in 0..200 {
        link.receipted(&link.note(n));
    }
    let mut client = daemon.client();
    let all = inbox(&mut client);
    let seqs = support::kept::seqs(&all);
    disk.fill();
    let mut acked = 0;
    let said = seqs.iter().enumerate().find_map(|(n, seq)| {
        let reply = client.cmd(json!({"cmd":"ack","up_to_seq":seq}));
        if reply["ok"] == true {
            acked = n + 1;
            return None;
        }
        assert_eq!(reply["error"], "overloaded", "{reply}");
        Some(reply["message"].as_str().unwrap().to_owned())
    });
    let said = said.expect("an ack does not fit any more");
    assert!(said.contains("disk"), "names the disk: {said}");
    assert_eq!(numbers(&inbox(&mut client)).len(), 200 - acked, "the refused ack has moved nothing");
    daemon.kill9();
    disk.free();
    daemon.up();
    let mut client = daemon.client();
    let rest = inbox(&mut client);
    assert_eq!(numbers(&rest).len(), 200 - acked, "every ack that was ok");
    ack(&mut client, &rest);
}

#[test]
fn it_starts_on_a_full_disk_with_all_that_it_has() {
    // shows: IPC-BOX-12, IPC-BOX-15, IPC-ORD-9
    let peer = RawPeer::new();
    let Some((mut daemon, disk)) = small(&peer) else {
        return skip("it_starts_on_a_full_disk_with_all_that_it_has", "mounting is not permitted");
    };
    let link = peer.dial(&daemon).receipting().0;
    for n in 0..5 {
        link.receipted(&link.note(n));
    }
    daemon.kill9();
    disk.fill();
    daemon.up();
    assert_eq!(numbers(&inbox(&mut daemon.client())), [0, 1, 2, 3, 4]);
    let link = peer.dial(&daemon).receipting().0;
    let mut big = link.note(5);
    big["payload"]["pad"] = "x".repeat(15_000).into();
    assert!(!taken(&link, &big));
    disk.free();
    link.receipted(&big);
    daemon.kill9();
    daemon.up();
    assert_eq!(numbers(&inbox(&mut daemon.client())), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_refused_advert_is_not_there() {
    // shows: IPC-ORD-9, IPC-ADV-3
    let peer = RawPeer::new();
    let Some((mut daemon, disk)) = small(&peer) else {
        return skip("a_refused_advert_is_not_there", "mounting is not permitted");
    };
    let link = peer.dial(&daemon).receipting().0;
    let advert = |domain: &str, bytes: usize| {
        let capabilities = json!({"domains":[domain],"model":"x".repeat(bytes)});
        json!({"cmd":"advertise","persist":true,"capabilities":capabilities})
    };
    let last = std::cell::Cell::new(0);
    until_refused(&disk, |n| {
        last.set(n);
        (consumer(&daemon, &format!("c{n:02}")), advert(&n.to_string(), 15_000))
    });
    let taken: Vec<String> = (0..last.get()).map(|n| n.to_string()).collect();
    let domains = |link: &Link| {
        let found = link.ask(&link.envelope("discover", json!({}))).unwrap();
        found["payload"].get("domains").cloned().unwrap_or(json!([]))
    };
    assert_eq!(domains(&link), json!(taken));
    daemon.kill9();
    disk.free();
    daemon.up();
    assert_eq!(domains(&peer.dial(&daemon).receipting().0), json!(taken));
}

#[test]
fn a_sender_is_told_that_its_peers_disk_is_full() {
    // shows: IPC-SEND-7, IPC-OUT-4, IPC-OUT-5, IPC-BOX-15
    let mut bob = Daemon::idle("");
    let Some(disk) = Small::over(&bob.root()) else {
        return skip("a_sender_is_told_that_its_peers_disk_is_full", "mounting is not permitted");
    };
    bob.set_config(SOON);
    bob.up();
    let alice = Daemon::start(SOON);
    support::introduce(&alice, &bob);
    notify(&alice, 0..1);
    disk.fill();
    let big = |n: u64, mut command: Value| {
        command["payload"]["data"] = n.into();
        command["payload"]["pad"] = "x".repeat(9000).into();
        command
    };
    let mut asker = alice.client();
    let said = asker.fails(big(1, note("bob", 1)), "overloaded");
    assert!(!said.is_empty());
    let held = asker.ok(big(2, held_note("bob", 2)));
    assert_eq!(held["state"], "held", "refused for now: {held}");
    let row = outbox_row(&mut asker, &held["msg_id"]).unwrap();
    assert!(row["attempts"].as_u64() >= Some(1) && row["reason"].is_string(), "{row}");
    let task = json!({"cmd":"send","to":"bob","kind":"delegate","hold_secs":600,
        "payload":{"task":"t","context":"x".repeat(9000)}});
    let task = asker.ok(task);
    assert_eq!(task["state"], "held", "{task}");
    disk.free();
    wait_outbox(&mut asker, &held["msg_id"], "delivered");
    wait_ledger(&mut asker, &task["msg_id"], "queued");
    assert_eq!(numbers(&inbox(&mut bob.client())), [0, 2]);
}

#[test]
fn a_damaged_store_starts_says_so_and_keeps_the_rest() {
    // shows: IPC-BOX-13, IPC-BOX-9, IPC-BOX-2
    let (alice, mut bob) = pair();
    notify(&alice, 0..20);
    let whole = inbox(&mut bob.client());
    assert_eq!(bob.terminate().code(), Some(0));
    // A byte of the tenth message, in the middle of its payload.
    let needle = b"\"data\":9";
    let (path, mut bytes, at) = logs(&bob)
        .into_iter()
        .find_map(|path| {
            let bytes = fs::read(&path).unwrap();
            let at = bytes.windows(needle.len()).position(|part| part == needle)?;
            Some((path, bytes, at))
        })
        .expect("the message stands in the store");
    bytes[at + needle.len() - 1] ^= 1;
    fs::write(&path, &bytes).unwrap();
    bob.up();
    rejoin(&alice, &bob);
    let aside = store_files(&bob, |name| name.contains(".damaged-"));
    assert!(!aside.is_empty(), "set aside");
    let name = path.file_name().unwrap().to_str().unwrap();
    let told =
        bob.log().lines().any(|line| line.contains("WARN") && line.contains(name) && line.contains("damage"));
    assert!(told, "named at WARN: {name}");
    let mut client = bob.client();
    let page = inbox(&mut client);
    let rest: Vec<u64> = (0..20).filter(|n| *n != 9).collect();
    assert_eq!(numbers(&page), rest, "the rest is whole");
    let next = support::kept::seqs(&whole)[10];
    assert_eq!(page["lost_before_seq"], next, "the loss is told");
    let unharmed: Vec<&Value> =
        support::kept::rows(&whole).iter().filter(|row| row["envelope"]["payload"]["data"] != 9).collect();
    assert_eq!(support::kept::rows(&page).iter().collect::<Vec<_>>(), unharmed);
    notify(&alice, 20..22);
    // Once more: whole again, and nothing more is set aside.
    assert_eq!(bob.terminate().code(), Some(0));
    bob.up();
    assert_eq!(store_files(&bob, |name| name.contains(".damaged-")), aside);
    assert_eq!(numbers(&inbox(&mut bob.client())).len(), 21);
    // `doctor` tells of it.
    let output = bob.command(&["doctor"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(".damaged-"), "{output:?}");
}

#[test]
fn any_damaged_byte_lets_it_start_with_nothing_changed() {
    // shows: IPC-BOX-13
    let (alice, mut bob) = pair();
    notify(&alice, 0..6);
    let mut reader = bob.client();
    let page = inbox(&mut reader);
    reader.ok(json!({"cmd":"ack","up_to_seq":support::kept::seqs(&page)[1]}));
    assert_eq!(bob.terminate().code(), Some(0));
    let path = logs(&bob).pop().expect("there is a store");
    let bytes = fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for step in 0..8 {
        let mut damaged = bytes.clone();
        damaged[used * step / 8] ^= 0x10;
        let old: Vec<PathBuf> = store_files(&bob, |_| true);
        old.iter().for_each(|file| fs::remove_file(file).unwrap());
        fs::write(&path, &damaged).unwrap();
        set_mode(&path, 0o600);
        bob.up();
        let mut client = consumer(&bob, "fresh");
        let now = inbox(&mut client);
        for row in support::kept::rows(&now) {
            assert!(
                support::kept::rows(&page).contains(row),
                "changed content, byte {}: {row}",
                used * step / 8
            );
        }
        let lost = support::kept::rows(&now).len() < 6;
        assert!(!lost || now["lost_before_seq"].is_u64(), "byte {}: {now}", used * step / 8);
        assert_eq!(bob.terminate().code(), Some(0));
    }
}

/// The usual check of 32 bits, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    // shows: IPC-BOX-14
    let (alice, mut bob) = pair();
    notify(&alice, 0..2);
    assert_eq!(bob.terminate().code(), Some(0));
    let path = logs(&bob).pop().expect("there is a store");
    let before = fs::read(&path).unwrap();
    let mut newer = before.clone();
    for at in FORMAT_AT {
        newer[at] += 1;
        let head = at - 8;
        let crc = crc32(&newer[head..head + 28]);
        newer[head + 28..head + 32].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&path, &newer).unwrap();
    let (message, code) = refused(&bob);
    assert_eq!(code, Some(1));
    assert!(message.contains("newer") && message.contains("store"), "{message}");
    assert!(!bob.socket().exists());
    assert_eq!(fs::read(&path).unwrap(), newer, "left as it was");
    assert_eq!(store_files(&bob, |name| name.contains(".damaged-")), Vec::<PathBuf>::new());
    fs::write(&path, &before).unwrap();
    bob.up();
    assert_eq!(numbers(&inbox(&mut bob.client())), [0, 1]);
}

#[test]
fn two_daemons_never_share_a_store() {
    // shows: IPC-SOCK-4
    let (alice, mut bob) = pair_with(SOON, SOON);
    notify(&alice, 0..1);
    let (message, code) = refused(&bob);
    assert_eq!(code, Some(1));
    assert!(message.contains(&bob.pid().to_string()), "{message}");
    notify(&alice, 1..2);
    bob.kill9();
    bob.up();
    rejoin(&alice, &bob);
    assert_eq!(numbers(&inbox(&mut bob.client())), [0, 1]);
    assert!(!bob.log().contains(".damaged-"));
}
