//! `axon conform`: what it says of this implementation, and that it finds what is wrong.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::support::Daemon;
use crate::support::cli::Home;

fn vectors() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("spec/vectors").to_str().unwrap().to_owned()
}

#[test]
fn all_vectors_hold() {
    let ran = Home::default().run(&["conform", "--vectors", &vectors()]);
    assert_eq!(
        ran.code,
        0,
        "{}",
        ran.stdout.lines().filter(|line| line.contains("false")).collect::<String>()
    );
    let last = ran.lines().pop().unwrap();
    assert!(last["ok"] == true && last["checked"].as_u64().unwrap() >= 400, "{last}");
    let table = Home::default().run(&["--plain", "conform", "--vectors", &vectors()]);
    assert!(table.stdout.lines().last().unwrap().ends_with("0 did not"), "{table:?}");
}

#[test]
fn a_vector_that_does_not_hold_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(Path::new(&vectors()).join("key_ids.json")).unwrap();
    let dir = temp.path().to_str().unwrap();
    let write = |text: &str| fs::write(temp.path().join("key_ids.json"), text).unwrap();
    let wrong = text.replacen("66687aadf862bd77", "66687aadf862bd78", 1);
    assert_ne!(wrong, text);
    write(&wrong);
    let ran = Home::default().run(&["conform", "--vectors", dir]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let lines = ran.lines();
    let not: Vec<_> = lines.iter().filter(|line| line["held"] == false).collect();
    assert_eq!((not.len(), &lines.last().unwrap()["ok"]), (1, &false.into()), "{ran:?}");
    assert!(not[0]["seen"].as_str().unwrap().contains("66687aadf862bd77"), "{ran:?}");
    // Files that are not sound are not run at all.
    write(&text.replacen("\"flags\":[\"derivation\"]", "\"flags\":[\"deviation\"]", 1));
    Home::default().run(&["conform", "--vectors", dir]).fails(1, "io");
    fs::remove_file(temp.path().join("key_ids.json")).unwrap();
    Home::default().run(&["conform", "--vectors", dir]).fails(1, "io");
}

#[test]
fn a_daemon_holds_against_a_right_and_a_wrong_client() {
    let daemon = Daemon::start("");
    let socket = daemon.socket();
    let ran = Home::default().run(&["conform", "--socket", socket.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let last = ran.lines().pop().unwrap();
    assert!(last["ok"] == true && last["checked"].as_u64().unwrap() > 35, "{last}");
}

/// Says that all is well, whatever it is told.
#[test]
fn who_takes_everything_does_not_hold() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("axon.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut to = stream.try_clone().unwrap();
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    let hello = br#"{"ok":true,"req_id":"h","version":2,"agent_id":"x"}"#;
                    if !line.is_empty() && to.write_all(&[hello, &b"\n"[..]].concat()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let ran = Home::default().run(&["conform", "--socket", path.to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let last = ran.lines().pop().unwrap();
    assert!(last["held"].as_u64().unwrap() < last["checked"].as_u64().unwrap() / 2, "{last}");
    Home::default().run(&["conform", "--socket", "/nowhere/axon.sock"]).fails(1, "io");
}

#[test]
fn a_daemon_holds_against_a_right_and_a_wrong_peer() {
    let daemon = Daemon::start("");
    let mut owner = daemon.client();
    let addr = format!("127.0.0.1:{}", daemon.port());
    let invite = owner.ok(serde_json::json!({"cmd":"invite","addrs":[addr]}));
    let ran = Home::default().run(&["conform", "--peer", invite["link"].as_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let last = ran.lines().pop().unwrap();
    assert!(last["ok"] == true && last["checked"].as_u64().unwrap() > 30, "{last}");
    // Who is not let in sees the handshake only, and another key than the pinned one nothing.
    let ran = Home::default().run(&["conform", "--peer", &addr, "--key", daemon.pubkey()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.lines().pop().unwrap()["checked"], 6, "{ran:?}");
    let other = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    Home::default().run(&["conform", "--peer", &addr, "--key", other]).fails(5, "peer_unreachable");
    assert!(Home::default().run(&["conform", "--peer", &addr]).usage().contains("--key"));
}
