//! What an old identity says to its peers.

use super::*;

/// An answer to hello; who it is from and to is the node's to look at.
const WELCOME: &str = concat!(
    r#"{"v":1,"id":"6f9619ff-8b86-4011-b42d-00c04fc964ff","from":"ed25519.00000000000000000000000000000001","#,
    r#""to":"ed25519.00000000000000000000000000000002","ts":1795000000000,"kind":"hello","#,
    r#""ref":"6f9619ff-8b86-4011-b42d-00c04fc964fe","payload":{}}"#
);

struct Old {
    id: AgentId,
    key: PublicKey,
}

/// One that has a new key, and a peer that knows the old one only.
fn renewed() -> (Peer, Old, Peer) {
    let (a, mut b) = (Peer::grown(5, &[[4; 32], [1; 32]], &config(0)), Peer::start(2));
    let key = cert::make(&[1; 32]).unwrap().1.key;
    b.pin(&[key]);
    (a, Old { id: key.agent_id(), key }, b)
}

fn herald(a: &mut Peer, old: AgentId, b: &Peer, addrs: &[&str], timeout_ms: u64) -> Token {
    let token = a.token();
    let (peer, key) = (b.id, b.net.public_key());
    let addrs = addrs.iter().map(|addr| (*addr).to_owned()).collect();
    let (hello, message) = (HELLO.into(), "I am another now".into());
    a.net.carry_out(Effect::Herald { token, old, peer, key, addrs, hello, message, timeout_ms });
    token
}

fn lost(outcome: Result<String, Lost>) -> String {
    let Err(Lost::Connection(why)) = outcome else { panic!("{outcome:?}") };
    why
}

// shows: PAIR-REKEY-6
#[tokio::test]
async fn an_old_identity_says_one_thing_and_goes() {
    let (mut a, old, mut b) = renewed();
    let addr = b.addr();
    let token = herald(&mut a, old.id, &b, &["127.0.0.1:1", &addr], 5_000);
    let (conn, peer, key) = b
        .until(|input| match input {
            Input::Connected { conn, peer, key, early: false, .. } => Some((conn, peer, key)),
            _ => None,
        })
        .await;
    assert_eq!((peer, key), (old.id, old.key));
    // What the peer has for the old identity does not get lost in it.
    let held = b.token();
    b.net.carry_out(Effect::OneWay { conn, token: held, bytes: "kept".into() });
    let (stream, text) = b.requested().await;
    assert_eq!(text, HELLO);
    b.respond(stream, WELCOME);
    let (stream, text) = b.requested().await;
    assert_eq!(text, "I am another now");
    b.respond(stream, "so you are");
    assert_eq!(a.replied(token).await, Ok("so you are".into()));
    let sent = b.until(|input| match input {
        Input::Sent { token, outcome } => Some((token, outcome)),
        _ => None,
    });
    let done = "the peer closed the connection (done)";
    assert_eq!(sent.await, (held, Err(Lost::Connection(done.into()))));
    assert_eq!(b.disconnected().await, done);
    assert!(a.net.conns.is_empty() && a.net.messages.is_empty() && a.is_quiet());
    // It leaves nothing to resume.
    assert_eq!(a.net.tickets.len(), 0);
}

#[tokio::test]
async fn a_herald_that_comes_to_nothing_says_why() {
    let (mut a, old, mut b) = renewed();
    let (addr, c) = (b.addr(), Peer::start(3));

    let ours = a.id;
    let token = herald(&mut a, ours, &b, &[&addr], 5_000);
    assert_eq!(lost(a.replied(token).await), "the old key is not here");
    let token = herald(&mut a, old.id, &c, &[&addr], 5_000);
    assert!(lost(a.replied(token).await).contains("another agent answers there"));
    let unknown = cert::make(&[4; 32]).unwrap().1.id;
    let token = herald(&mut a, unknown, &b, &[&addr], 5_000);
    assert!(lost(a.replied(token).await).contains("the peer refused our key"));
    assert_eq!(b.refused().await, unknown);

    // Not welcomed.
    let token = herald(&mut a, old.id, &b, &[&addr], 5_000);
    let (stream, _) = b.requested().await;
    b.respond(stream, "{\"kind\":\"error\"}");
    assert_eq!(lost(a.replied(token).await), "the peer did not take our hello");
    assert_eq!(b.disconnected().await, "the peer closed the connection (done)");

    // Not answered, or given up.
    let began = Instant::now();
    let token = herald(&mut a, old.id, &b, &[&addr], 600);
    b.requested().await;
    assert_eq!(lost(a.replied(token).await), "the peer did not answer in time");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    b.disconnected().await;
    let token = herald(&mut a, old.id, &b, &[&addr], 5_000);
    b.requested().await;
    a.net.carry_out(Effect::Abandon { token });
    b.disconnected().await;
    assert!(a.is_quiet());
}
