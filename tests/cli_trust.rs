//! Who may talk, as users of the command line have it: links and knocks, levels, policies, pause, the audit
//! log and scoped sockets.

use std::fs;
use std::path::Path;

use axon_proto::id::PublicKey;
use axon_proto::invite::{Link, Secret};
use serde_json::{Value, json};

use crate::support::cli::{keys, run_with, sorted};
use crate::support::{Daemon, free_port, mode, pair, pair_with, wait_for};

/// Peers that were away are tried again soon.
const SOON: &str = "reconnect_max_backoff_secs = 1\nhandshake_timeout_secs = 2";
/// Strangers may knock.
const OPEN: &str = "[knock]\nopen = true";

/// Two daemons that have never heard of each other.
fn strangers() -> (Daemon, Daemon) {
    (Daemon::start(SOON), Daemon::start(SOON))
}

/// A link to a daemon, with this secret if any.
fn link(daemon: &Daemon, secret: Option<[u8; 16]>) -> String {
    let key: PublicKey = daemon.pubkey().parse().unwrap();
    let addrs = vec![format!("127.0.0.1:{}", daemon.port())];
    Link { key, addrs, secret: secret.map(Secret) }.to_string()
}

/// Makes an invite, and gives its link and what follows `k=` in it.
fn invite(daemon: &Daemon, args: &[&str]) -> (String, String) {
    let line = daemon.run(&[&["invite"], args].concat()).ok();
    let link = line["link"].as_str().unwrap().to_owned();
    let secret = link.parse::<Link>().unwrap().secret.expect("a secret");
    let secret = Link { secret: Some(secret), ..link.parse().unwrap() }.to_string();
    let secret = secret.split("k=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    (link, secret)
}

/// Pairs two daemons by an invite of the first.
fn paired() -> (Daemon, Daemon) {
    let (alice, bob) = strangers();
    let (link, _) = invite(&alice, &[]);
    let done = bob.run(&["connect", "--as", "alice", &link]).ok();
    assert_eq!(done["state"], "paired", "{done}");
    alice.run(&["trust", bob.id(), "known", "--as", "bob"]).ok();
    bob.wait_peer(&alice, true);
    alice.wait_peer(&bob, true);
    (alice, bob)
}

fn rows(line: &Value, field: &str) -> Vec<Value> {
    line[field].as_array().unwrap_or_else(|| panic!("no {field}: {line}")).clone()
}

/// Rows of the audit log.
fn audit(daemon: &Daemon, args: &[&str]) -> Vec<Value> {
    let ran = daemon.run(&[&["audit"], args].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.lines()
}

/// Waits for a row of the audit log with this event about this peer.
fn noted(daemon: &Daemon, event: &str, peer: &Daemon) -> Value {
    wait_for(event, || {
        let rows = audit(daemon, &["--peer", peer.id()]);
        rows.into_iter().find(|row| row["event"] == event)
    })
}

/// Files of a root that have this text in them.
fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if let Ok(bytes) = fs::read(&path)
            && bytes.windows(text.len()).any(|part| part == text.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Data of the notes in the inbox, in order.
fn notes(daemon: &Daemon) -> Vec<Value> {
    let line = daemon.run(&["inbox", "--kinds", "notify"]).ok();
    rows(&line, "messages").iter().map(|row| row["payload"]["data"].clone()).collect()
}

// ---- Pairing ----------------------------------------------------------------------------------------------

#[test]
fn an_invite_pairs_both_sides_at_once() {
    let (alice, bob) = strangers();
    let line = alice.run(&["invite", "--label", "laptop", "--expires", "10m"]).ok();
    assert_eq!(keys(&line), sorted(["ok", "link", "agent_id", "invite", "expires_ms", "uses", "trust"]));
    assert_eq!(
        (&line["uses"], &line["trust"], &line["agent_id"]),
        (&json!(1), &json!("known"), &json!(alice.id()))
    );
    let open = rows(&alice.run(&["invite", "--list"]).ok(), "invites");
    assert_eq!((open.len(), &open[0]["label"], &open[0]["invite"]), (1, &json!("laptop"), &line["invite"]));
    assert!(open[0].get("link").is_none(), "{open:?}");

    let done = bob.run(&["connect", "--as", "ada", line["link"].as_str().unwrap()]).ok();
    assert_eq!(
        (&done["state"], &done["trust"], &done["level"]),
        (&json!("paired"), &json!("known"), &json!("known"))
    );
    assert_eq!(done["agent_id"], alice.id());
    let may = rows(&done["constraints"], "kinds");
    assert!(may.contains(&json!("delegate")), "{done}");

    // Live, both ways, without a restart.
    let mut agent = alice.answerer(json!({"answer":["query"]}));
    let asking = bob.spawn(&["send", "ada", "Hello?"]);
    agent.answer_one("Hello.");
    assert_eq!(asking.wait().ok()["payload"]["summary"], "Hello.");
    let mut agent = bob.answerer(json!({"answer":["query", "delegate"]}));
    let asking = alice.spawn(&["send", bob.id(), "And you?"]);
    agent.answer_one("Well.");
    assert_eq!(asking.wait().ok()["payload"]["summary"], "Well.");

    assert_eq!(rows(&alice.run(&["invite", "--list"]).ok(), "invites"), Vec::<Value>::new());
    for (one, other, why) in [(&alice, &bob, "laptop"), (&bob, &alice, "")] {
        let contacts = one.run(&["contacts"]).ok();
        let row = &rows(&contacts, "contacts")[0];
        assert_eq!((&row["agent_id"], &row["trust"]), (&json!(other.id()), &json!("known")), "{contacts}");
        assert_eq!(row["source"], "contacts");
        assert!(row["why"].as_str().unwrap_or_default().contains(why), "{contacts}");
        assert_eq!(mode(&one.root().join("contacts.toml")), 0o600);
        noted(one, "paired", other);
    }
    let peers = rows(&bob.run(&["peers"]).ok(), "peers");
    assert_eq!((&peers[0]["trust"], &peers[0]["source"]), (&json!("known"), &json!("contact")), "{peers:?}");
}

// shows: PAIR-LINK-3, IPC-INV-2
#[test]
fn the_link_is_read_from_stdin_and_its_secret_stays_unseen() {
    let (alice, bob) = strangers();
    let port = alice.port();
    let addr = format!("127.0.0.1:{port}");
    let (link, secret) = invite(&alice, &["--uses", "2", "--addr", "localhost:1", "--addr", &addr]);
    assert!(link.contains("@localhost:1?") && link.contains(&addr), "{link}");
    let ran = run_with(bob.command(&["-v", "connect", "-"]), format!("{link}\n").as_bytes());
    assert_eq!(ran.ok()["state"], "paired");
    assert!(!ran.stdout.contains(&secret) && !ran.stderr.contains(&secret), "{ran:?}");
    // What `axon invite` prints to a pipe will do as well.
    let carol = Daemon::start(SOON);
    let line = format!("{}\n", json!({"ok": true, "link": link}));
    assert_eq!(run_with(carol.command(&["connect", "-"]), line.as_bytes()).ok()["state"], "paired");
    // Neither side keeps it, nor writes it to a log.
    for daemon in [&alice, &bob, &carol] {
        assert_eq!(files_with(&daemon.root(), &secret), Vec::<String>::new());
        assert!(!format!("{:?}", audit(daemon, &[])).contains(&secret));
    }
    assert!(run_with(bob.command(&["connect", "-"]), b"").usage().contains("stdin"));
}

#[test]
fn an_invite_gives_the_level_it_was_made_for() {
    let (alice, bob) = strangers();
    let (link, _) = invite(&alice, &["--trust", "trusted"]);
    let done = bob.run(&["connect", "--trust", "unknown", &link]).ok();
    assert_eq!((&done["trust"], &done["level"]), (&json!("unknown"), &json!("trusted")), "{done}");
    let check = bob.run(&["policy", "check", alice.id(), "delegate"]);
    assert_eq!((check.code, &check.json()["level"]), (4, &json!("unknown")), "{check:?}");
    alice.run(&["policy", "check", bob.id(), "delegate"]).ok();
}

#[test]
fn used_revoked_and_wrong_invites_are_refused_with_4() {
    let (alice, bob) = strangers();
    let carol = Daemon::start(SOON);
    // Another invite stays open, so that strangers are heard at all.
    let other = alice.run(&["invite"]).ok();
    let (link, _) = invite(&alice, &[]);
    bob.run(&["connect", &link]).ok();
    let used = carol.run(&["connect", &link]).fails(4, "not_authorized");
    assert!(used["message"].as_str().unwrap().contains("invite"), "{used}");
    // A stranger's id is not noted: anybody can have any number of them.
    wait_for("the guess", || audit(&alice, &[]).into_iter().find(|row| row["event"] == "guess"));
    // Guesses are slowed down: what follows at once is not even looked at.
    let own = |secret: u8| self::link(&alice, Some([secret; 16]));
    carol.run(&["connect", &own(1)]).fails(4, "not_authorized");

    let id = other["invite"].as_str().unwrap();
    assert_eq!(alice.run(&["invite", "--revoke", id]).ok()["invite"], id);
    alice.run(&["invite", "--revoke", id]).fails(2, "not_found");
    // Now no stranger is heard.
    let dave = Daemon::start(SOON);
    let refused = dave.run(&["connect", other["link"].as_str().unwrap()]);
    let refused = refused.fails(4, "not_authorized");
    assert!(refused["message"].as_str().unwrap().contains("invite"), "{refused}");
    // What failed leaves nobody behind.
    for daemon in [&carol, &dave] {
        assert_eq!(rows(&daemon.run(&["contacts"]).ok(), "contacts"), Vec::<Value>::new());
    }
}

#[test]
fn a_link_without_a_secret_pins_until_the_other_connects_back() {
    let (alice, bob) = strangers();
    let done = bob.run(&["connect", "--as", "alice", &link(&alice, None)]).ok();
    assert_eq!((&done["state"], &done["agent_id"]), (&json!("pinned"), &json!(alice.id())), "{done}");
    // It says by which link to connect back.
    let back = done["link"].as_str().unwrap();
    assert_eq!(back, link(&bob, None));
    let done = alice.run(&["connect", back]).ok();
    assert_eq!((&done["state"], done.get("link")), (&json!("paired"), None), "{done}");
    bob.wait_peer(&alice, true);
    alice.run(&["ping", bob.id()]).ok();
    bob.run(&["ping", "alice"]).ok();
}

#[test]
fn who_cannot_be_reached_is_told_with_5() {
    let (alice, bob) = strangers();
    let gone = Link {
        addrs: vec![format!("127.0.0.1:{}", free_port())],
        ..link(&alice, Some([1; 16])).parse().unwrap()
    };
    let gone = gone.to_string();
    let ran = bob.run(&["connect", "--timeout", "3s", &gone]);
    assert!(
        [(5, "peer_unreachable"), (3, "timeout")]
            .contains(&(ran.code, ran.json()["error"].as_str().unwrap())),
        "{ran:?}"
    );
    alice.run(&["connect", &link(&alice, None)]).fails(2, "self_send");
}

// ---- Knocks -----------------------------------------------------------------------------------------------

#[test]
fn a_knock_waits_is_told_and_is_approved() {
    let (alice, bob) =
        (Daemon::start(&format!("{SOON}\n{OPEN}")), Daemon::start(&format!("name = \"bo\"\n{SOON}")));
    let mut listening = alice.spawn(&["listen", "--kinds", "knock", "--count", "1"]);
    let mut quiet = alice.spawn(&["listen", "--count", "1", "--consumer", "quiet"]);
    wait_for("both to listen", || (alice.client().ok(json!({"cmd":"status"}))["clients"] == 3).then_some(()));
    let args = [
        "connect",
        "--intent",
        "family/ask",
        "--session",
        "stream",
        "--message",
        "Let me in.",
        "--as",
        "ada",
    ];
    let done = bob.run(&[&args[..], &[&link(&alice, None)]].concat()).ok();
    assert_eq!(done["state"], "pending", "{done}");

    let told = listening.line();
    assert_eq!(
        (&told["event"], &told["agent_id"], &told["claimed"]),
        (&json!("knock"), &json!(bob.id()), &json!(true))
    );
    assert_eq!(listening.wait().code, 0);
    let knocks = rows(&alice.run(&["knocks"]).ok(), "knocks");
    let knock = &knocks[0];
    assert_eq!((knocks.len(), &knock["id"], &knock["name"]), (1, &told["id"], &json!("bo")), "{knock}");
    assert_eq!(knock["intent"], json!({"category": "family", "action": "ask"}));
    assert_eq!((&knock["session"], &knock["message"]), (&json!("stream"), &json!("Let me in.")));
    assert_eq!(alice.run(&["status"]).ok()["knocks"], 1);

    alice.run(&["approve", "0000"]).fails(2, "not_found");
    let id = knock["id"].as_str().unwrap();
    let approved = alice.run(&["approve", id, "--as", "bob"]).ok();
    assert_eq!((&approved["agent_id"], &approved["trust"]), (&json!(bob.id()), &json!("known")));
    assert_eq!(rows(&alice.run(&["knocks"]).ok(), "knocks"), Vec::<Value>::new());
    alice.wait_peer(&bob, true);
    bob.run(&["notify", "ada", "t", "in"]).ok();
    // Who did not ask for knocks gets messages alone, and a remark.
    let line = quiet.line();
    assert_eq!(
        (&line["kind"], &line["from_name"], &line["trust"]),
        (&json!("notify"), &json!("bob"), &json!("known"))
    );
    assert!(quiet.wait().stderr.contains("approve"));
}

#[test]
fn a_knock_is_denied() {
    let (alice, bob) = (Daemon::start(&format!("{SOON}\n{OPEN}")), Daemon::start(SOON));
    let to_alice = link(&alice, None);
    assert_eq!(bob.run(&["connect", &to_alice]).ok()["state"], "pending");
    let id = rows(&alice.run(&["knocks"]).ok(), "knocks")[0]["id"].as_str().unwrap().to_owned();
    let denied = alice.run(&["deny", &id]).ok();
    assert_eq!((&denied["agent_id"], &denied["denied"]), (&json!(bob.id()), &json!(true)));
    alice.run(&["deny", &id]).fails(2, "not_found");
    // It is told why when it comes again.
    let again = bob.run(&["connect", &to_alice]).ok();
    assert_eq!(again["state"], "pinned", "{again}");
    assert!(again["message"].as_str().unwrap().contains("turned you away"), "{again}");
    assert_eq!(rows(&alice.run(&["knocks"]).ok(), "knocks"), Vec::<Value>::new());
    noted(&alice, "knock", &bob);
}

// ---- Levels -----------------------------------------------------------------------------------------------

#[test]
fn a_blocked_peer_finds_nobody_there() {
    let (alice, bob) = paired();
    let set = alice.run(&["trust", "bob", "blocked", "--why", "sent nonsense"]).ok();
    assert_eq!(keys(&set), sorted(["ok", "agent_id", "trust", "was"]));
    assert_eq!((&set["trust"], &set["was"]), (&json!("blocked"), &json!("known")));
    bob.wait_peer(&alice, false);
    bob.run(&["ping", "alice"]).fails(5, "peer_unreachable");
    alice.run(&["ping", bob.id()]).fails(4, "not_authorized");
    let row = rows(&alice.run(&["contacts"]).ok(), "contacts")[0].clone();
    assert_eq!(
        (&row["trust"], &row["why"], &row["name"]),
        (&json!("blocked"), &json!("sent nonsense"), &json!("bob"))
    );
    noted(&alice, "trust", &bob);
    // And in again.
    assert_eq!(alice.run(&["trust", bob.id(), "known"]).ok()["was"], "blocked");
    wait_for("bob to be heard again", || (bob.run(&["ping", "alice"]).code == 0).then_some(()));
}

#[test]
fn a_level_holds_for_a_time() {
    let (alice, bob) = pair_with(SOON, SOON);
    alice.run(&["trust", "bob", "trusted", "--expires", "1s", "--why", "for now"]).ok();
    let level = || alice.client().peer(bob.id()).unwrap()["trust"].clone();
    assert_eq!(level(), "trusted");
    wait_for("the entry to expire", || (level() == "known").then_some(()));
    alice.run(&["trust", "nobody", "known"]).fails(5, "peer_not_found");
}

#[test]
fn to_forget_a_peer_keeps_the_comments_of_the_file() {
    let (alice, bob) = pair();
    let path = alice.root().join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    let commented = format!("# mine\n{}\n# the end\n", text.replace("[[peers]]", "# friends\n[[peers]]"));
    fs::write(&path, &commented).unwrap();
    alice.run(&["reload"]).ok();
    bob.run(&["notify", "alice", "t", "a word"]).ok();
    wait_for("the note", || (notes(&alice) == ["a word"]).then_some(()));

    let forgotten = alice.run(&["forget", "bob"]).ok();
    assert_eq!((&forgotten["agent_id"], &forgotten["forgotten"]), (&json!(bob.id()), &json!(true)));
    let after = fs::read_to_string(&path).unwrap();
    assert!(!after.contains(bob.id()) && !after.contains("[[peers]]"), "{after}");
    for kept in ["# mine\n", "bind = \"127.0.0.1\"\nmdns = false\n", "# the end\n"] {
        assert!(after.contains(kept), "{kept}: {after}");
    }
    assert_eq!(notes(&alice), Vec::<Value>::new());
    alice.run(&["ping", "bob"]).fails(5, "peer_not_found");
    bob.wait_peer(&alice, false);
    bob.run(&["ping", "alice"]).fails(5, "peer_unreachable");
    noted(&alice, "forget", &bob);
}

#[test]
fn messages_show_how_far_their_sender_is_trusted() {
    let (alice, bob) = paired();
    bob.run(&["notify", "alice", "t", "1"]).ok();
    let listened = alice.run(&["listen", "--no-ack", "--count", "1"]).ok();
    assert_eq!(
        (&listened["trust"], &listened["from_name"], listened.get("claimed")),
        (&json!("known"), &json!("bob"), None)
    );
    let kept = rows(&alice.run(&["inbox"]).ok(), "messages");
    assert_eq!((&kept[0]["trust"], &kept[0]["from_name"]), (&json!("known"), &json!("bob")), "{kept:?}");
    // The program of `axon answer` is told as well.
    let script = "echo \"$AXON_TRUST $AXON_FROM_NAME ${AXON_CLAIMED:-0}\"";
    let mut answering = alice.spawn(&["answer", "--", "sh", "-c", script]);
    assert_eq!(answering.line()["ok"], true);
    assert_eq!(bob.run(&["send", "alice", "Who am I?"]).ok()["payload"]["summary"], "known bob 0");
}

// ---- Policies ---------------------------------------------------------------------------------------------

// shows: IPC-REL-1
#[test]
fn a_policy_is_checked_before_it_is_felt() {
    let (alice, bob) = pair();
    let check = |args: &[&str]| alice.run(&[&["policy", "check"], args].concat());
    let allowed = check(&["bob", "delegate"]).ok();
    assert_eq!(keys(&allowed), sorted(["ok", "decision", "level", "rule", "message"]));
    assert_eq!((&allowed["decision"], &allowed["level"]), (&json!("allow"), &json!("known")));
    alice.set_config(
        "[policy.known]\nkinds = [\"query\", \"notify\"]\ndomains = [\"family\"]\nmessages_per_minute = 1",
    );
    alice.run(&["reload"]).ok();
    for (args, rule) in [
        (&["bob", "delegate"][..], "policy.known.kinds"),
        (&["bob", "query"], "policy.known.domains"),
        (&["bob", "query", "--domain", "sports"], "policy.known.domains"),
    ] {
        let denied = check(args);
        let line = denied.json();
        assert_eq!(
            (denied.code, &line["ok"], &line["decision"]),
            (4, &json!(true), &json!("deny")),
            "{denied:?}"
        );
        assert_eq!(line["rule"], rule, "{args:?}");
    }
    check(&["bob", "query", "--domain", "family.calendar"]).ok();
    check(&["bob", "delegate", "--out"]).ok();
    check(&["nobody", "query"]).fails(5, "peer_not_found");

    // As the peer sees it: denied, and over the rate.
    let denied = bob.run(&["delegate", "alice", "Work"]).fails(4, "not_authorized");
    assert!(denied["message"].as_str().unwrap().contains("kinds"), "{denied}");
    bob.run(&["notify", "alice", "t", "1"]).ok();
    let limited = bob.run(&["send", "--domain", "family", "alice", "And now?"]).fails(4, "overloaded");
    assert!(limited["message"].as_str().unwrap().contains("policy.known.messages_per_minute"), "{limited}");
    let limit = check(&["bob", "notify"]);
    let line = limit.json();
    assert_eq!((limit.code, &line["decision"]), (1, &json!("limit")), "{limit:?}");
    assert!(line["retry_after_ms"].as_u64().unwrap() <= 60_000);
    noted(&alice, "refused", &bob);
    noted(&alice, "limited", &bob);

    // A file that is wrong changes nothing, and is told.
    alice.set_config("[policy.known]\nkinds = 5");
    let wrong = alice.run(&["reload"]);
    let wrong = wrong.fails(1, "internal_error");
    let message = wrong["message"].as_str().unwrap();
    assert!(message.contains("config.toml, line ") && message.contains(", column "), "{message}");
    assert!(message.contains("kinds"), "{message}");
    assert_eq!(check(&["bob", "delegate"]).code, 4);
}

#[test]
fn what_is_paused_waits_also_over_a_restart() {
    let (mut alice, bob) = pair_with(SOON, SOON);
    let mut agent = alice.answerer(json!({"answer":["query"]}));
    let paused = alice.run(&["pause"]).ok();
    assert_eq!((&paused["paused"], &paused["peers"]), (&json!(true), &json!([])));
    let refused = bob.run(&["send", "alice", "Now?"]).fails(4, "overloaded");
    assert!(refused["message"].as_str().unwrap().contains("paused"), "{refused}");
    bob.run(&["notify", "alice", "t", "later"]).ok();
    agent.silent();
    drop(agent);
    alice.terminate();
    alice.up();
    wait_for("bob to be back", || (bob.run(&["ping", "alice"]).code == 4).then_some(()));
    assert_eq!(alice.run(&["status"]).ok()["paused"], true);
    assert_eq!(notes(&alice), Vec::<Value>::new());
    assert_eq!(alice.run(&["resume"]).ok()["paused"], false);
    wait_for("what waited", || (notes(&alice) == ["later"]).then_some(()));
    bob.run(&["ping", "alice"]).ok();

    let one = alice.run(&["pause", "--peer", "bob"]).ok();
    assert_eq!((&one["paused"], &one["peers"]), (&json!(false), &json!([bob.id()])));
    bob.run(&["ping", "alice"]).fails(4, "overloaded");
    assert_eq!(alice.run(&["resume", "--peer", "bob"]).ok()["peers"], json!([]));
    bob.run(&["ping", "alice"]).ok();
    noted(&alice, "pause", &bob);
}
