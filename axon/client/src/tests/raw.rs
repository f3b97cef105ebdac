//! Lines as they come and go, whole and in pieces.

use super::*;
use crate::Raw;

async fn raw_pair() -> (TempDir, Raw, Fake) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("axon.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (raw, fake) = tokio::join!(Raw::connect(&path, Hello::default()), Fake::accept(&listener));
    (dir, raw.unwrap(), fake)
}

fn text(line: Option<&[u8]>) -> Option<String> {
    line.map(|line| String::from_utf8(line.to_vec()).unwrap())
}

#[tokio::test]
async fn lines_are_written_together_and_read_one_by_one() {
    let (_dir, mut raw, mut fake) = raw_pair().await;
    assert_eq!(raw.welcome().agent_id, ME);
    assert_eq!(raw.daemon_pid(), Some(std::process::id()));
    raw.queue(&[br#"{"n":"#, b"1", b"}"]).unwrap();
    raw.queue(&[b"{\"n\":2}\n{\"n\":3}"]).unwrap();
    let daemon = async {
        for n in 1..=3 {
            assert_eq!(fake.next().await, json!({"n": n}));
        }
        fake.out.write_all(b"one\n\ntwo\nthr").await.unwrap();
    };
    let (turned, ()) = tokio::join!(raw.turn(), daemon);
    turned.unwrap();
    for line in ["one", "", "two"] {
        assert_eq!(text(raw.next_line()).as_deref(), Some(line));
    }
    assert_eq!(text(raw.next_line()), None);
    // A turn that is given up has lost nothing of the line that is half there.
    tokio::select! {
        biased;
        turned = raw.turn() => panic!("{turned:?}"),
        () = std::future::ready(()) => {}
    }
    fake.out.write_all(b"ee\nrest").await.unwrap();
    raw.turn().await.unwrap();
    assert_eq!(text(raw.next_line()).as_deref(), Some("three"));
    assert_eq!(text(raw.next_line()), None);
    drop(fake);
    assert!(matches!(raw.turn().await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn long_lines_fit_and_endless_ones_do_not() {
    let (_dir, mut raw, mut fake) = raw_pair().await;
    // A line that begins in the middle of what is read, and is longer than it.
    let long = "y".repeat(300_000);
    let lines = format!("{}\n{long}\nend\n", "x".repeat(50_000));
    let daemon = async {
        fake.out.write_all(lines.as_bytes()).await.unwrap();
    };
    let reader = async {
        let mut got = Vec::new();
        while got.len() < 3 {
            raw.turn().await.unwrap();
            got.extend(std::iter::from_fn(|| text(raw.next_line())));
        }
        got
    };
    let (got, ()) = tokio::join!(reader, daemon);
    assert_eq!(got.iter().map(String::len).collect::<Vec<_>>(), [50_000, 300_000, 3]);
    assert!(got[1] == long && got[2] == "end");

    let daemon = async { while fake.out.write_all(&[b'z'; 65_536]).await.is_ok() {} };
    let reader = async move {
        let turned = raw.turn().await;
        assert!(matches!(turned, Err(ClientError::Protocol(_))), "{turned:?}");
    };
    tokio::join!(reader, daemon);
}

#[tokio::test]
async fn more_than_the_daemon_takes_waits_up_to_a_bound() {
    let (_dir, mut raw, mut fake) = raw_pair().await;
    let line = vec![b'x'; 1_048_576 - 1];
    for _ in 0..31 {
        raw.queue(&[&line]).unwrap();
    }
    assert!(raw.queue(&[&line, b"x"]).is_err_and(|error| error.code() == "overloaded"));
    let daemon = async {
        for _ in 0..31 {
            let line = fake.lines.next_line().await.unwrap().unwrap();
            assert_eq!(line.len(), 1_048_575);
        }
        fake.out.write_all(b"done\n").await.unwrap();
    };
    let (turned, ()) = tokio::join!(raw.turn(), daemon);
    turned.unwrap();
    assert_eq!(text(raw.next_line()).as_deref(), Some("done"));
    raw.queue(&[&line]).unwrap();
}

// shows: IPC-V1-6
#[tokio::test]
async fn a_hello_that_is_refused_keeps_its_reason() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("axon.sock");
    let none = Raw::connect(&path, Hello::default()).await;
    assert!(matches!(none, Err(ClientError::NoDaemon { .. })), "{none:?}");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = async {
        let mut fake = Fake::new(listener.accept().await.unwrap().0);
        // A message of version 1 may come before.
        fake.say(&json!({"inbound": true, "envelope": envelope("m", "notify", json!({}))})).await;
        fake.say(&json!({"ok": false, "error": "too_many_clients", "message": "close one"})).await;
    };
    let (refused, ()) = tokio::join!(Raw::connect(&path, Hello::default()), daemon);
    let error = refused.unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("close one")), ("too_many_clients", true));
}
