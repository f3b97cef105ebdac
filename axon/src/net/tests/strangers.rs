//! Who is let in, how far, and what names a connection.

use quinn::ConnectionError;

use super::*;

/// `unknown_ca`, as a QUIC error code.
const UNKNOWN_CA: u64 = 0x100 + 48;

fn open_to_strangers(keys: &[PublicKey], blocked: &[AgentId]) -> Pins {
    Pins { keys: by_id(keys), blocked: blocked.iter().copied().collect(), strangers: true, ..Pins::default() }
}

/// How the handshake of a dial ends that the other side refuses: the code, and all that goes with it.
async fn refusal(a: &Peer, b: &Peer) -> (u64, String) {
    let (endpoint, client) = (&a.net.endpoint, a.net.client.clone());
    let connecting = endpoint.connect_with(client, b.net.local_addr(), &b.id.to_string()).unwrap();
    let error = match connecting.await {
        Ok(connection) => timeout(PATIENCE, connection.closed()).await.unwrap(),
        Err(error) => error,
    };
    let ConnectionError::ConnectionClosed(close) = error else { panic!("no alert: {error}") };
    (u64::from(close.error_code), format!("{close:?}"))
}

async fn part(a: &mut Peer, b: &mut Peer, conn: ConnId) {
    a.net.carry_out(Effect::Close { conn, code: 0, reason: "done" });
    a.disconnected().await;
    b.disconnected().await;
}

#[tokio::test]
async fn strangers_come_in_only_where_they_are_welcome() {
    let (mut a, mut b) = (Peer::start(1), Peer::start(2));
    a.pin(&[b.net.public_key()]);
    let addr = b.addr();
    let hello = a.dial(b.id, &[&addr], 5_000);
    assert!(matches!(a.replied(hello).await, Err(Lost::Connection(_))));
    assert_eq!(b.refused().await, a.id);

    b.pins(open_to_strangers(&[], &[]));
    let (at_a, _) = meet(&mut a, &mut b, &addr).await;
    // There is nothing that it could resume.
    part(&mut a, &mut b, at_a).await;
    assert_eq!(b.net.sessions.len(), 0);
    a.dial(b.id, &[&addr], 5_000);
    let (at_a, early, _) = a.connected().await;
    assert!(!early);
    b.connected().await;
    part(&mut a, &mut b, at_a).await;

    // Strangers are answered, never dialled.
    a.pins(open_to_strangers(&[], &[]));
    a.dial(b.id, &[&addr], 5_000);
    assert!(a.dial_failed().await.contains("another key answers there"));

    // An id with another key is no stranger.
    a.pin(&[b.net.public_key()]);
    let keys = HashMap::from([(a.id, b.net.public_key())]);
    b.pins(Pins { keys, strangers: true, ..Pins::default() });
    assert_eq!(refusal(&a, &b).await.0, UNKNOWN_CA);

    b.pins(open_to_strangers(&[], &[]));
    b.pins(Pins::default());
    let hello = a.dial(b.id, &[&addr], 5_000);
    assert!(matches!(a.replied(hello).await, Err(Lost::Connection(_))));
}

// shows: WF-PIN-7
#[tokio::test]
async fn who_is_blocked_gets_the_alert_that_any_unknown_key_gets() {
    let (mut a, mut b) = (Peer::start(1), Peer::start(2));
    let a_key = a.net.public_key();
    a.pin(&[b.net.public_key()]);
    let unknown = refusal(&a, &b).await;
    assert_eq!(unknown.0, UNKNOWN_CA);
    assert_eq!(b.refused().await, a.id);

    let blocked = || [a.id].into_iter().collect();
    b.pins(Pins { blocked: blocked(), ..Pins::default() });
    assert_eq!(refusal(&a, &b).await, unknown);
    b.pins(Pins { keys: by_id(&[a_key]), blocked: blocked(), strangers: false, ..Pins::default() });
    assert_eq!(refusal(&a, &b).await, unknown);
    b.pins(Pins { keys: by_id(&[a_key]), blocked: blocked(), strangers: true, ..Pins::default() });
    assert_eq!(refusal(&a, &b).await, unknown);
    for _ in 0..3 {
        assert_eq!(b.refused().await, a.id);
    }
    assert!(b.is_quiet());

    // Nor does the one who blocked dial.
    let addr = a.addr();
    b.dial(a.id, &[&addr], 5_000);
    assert!(b.dial_failed().await.contains("another key answers there"));
}

#[tokio::test]
async fn who_is_blocked_cannot_resume() {
    let (mut a, mut b, at_a, _) = pair().await;
    let (addr, a_key) = (b.addr(), a.net.public_key());
    part(&mut a, &mut b, at_a).await;
    assert_eq!(b.net.sessions.len(), 1);
    // Somebody else comes and goes: nothing is dropped for that.
    b.pins(open_to_strangers(&[a_key], &[]));
    assert_eq!(b.net.sessions.len(), 1);

    b.pins(open_to_strangers(&[a_key], &[a.id]));
    assert_eq!(b.net.sessions.len(), 0);
    // With its ticket and a hello in 0-RTT.
    let hello = a.dial(b.id, &[&addr], 5_000);
    let why = "the peer refused our key: pair with `axon invite` there and `axon connect` here";
    assert_eq!(a.replied(hello).await, Err(Lost::Connection(why.into())));
    assert_eq!(b.refused().await, a.id);
    assert!(b.is_quiet());

    b.pins(open_to_strangers(&[a_key], &[]));
    let (at_a, _) = meet(&mut a, &mut b, &addr).await;
    part(&mut a, &mut b, at_a).await;
    // Pinned no more, it resumes nothing, but may knock.
    b.pins(open_to_strangers(&[], &[]));
    let hello = a.dial(b.id, &[&addr], 5_000);
    assert!(!a.connected().await.1);
    assert!(!b.connected().await.1);
    let (stream, _) = b.requested().await;
    b.respond(stream, "welcome");
    assert_eq!(a.replied(hello).await, Ok("welcome".into()));
}

// shows: WF-STRANGER-6
#[tokio::test]
async fn a_binding_is_the_same_at_both_ends_and_of_one_connection() {
    let (mut a, mut b) = two();
    let addr = b.addr();
    let mut seen = Vec::new();
    for round in 0..2 {
        let hello = a.dial(b.id, &[&addr], 5_000);
        // The first round is a full handshake, the second carries the hello in 0-RTT.
        let early = a.until(|input| match input {
            Input::Connected { conn, binding, early, .. } => {
                seen.push(binding);
                Some((conn, early))
            }
            _ => None,
        });
        let answered = async {
            let mut bound = None;
            loop {
                match b.next().await {
                    Input::EarlyHello { stream, .. } => b.respond(stream, "welcome"),
                    Input::Connected { binding, .. } => bound = Some(binding),
                    Input::Request { stream, .. } => {
                        b.respond(stream, "welcome");
                        return bound.unwrap();
                    }
                    _ => {}
                }
            }
        };
        let ((conn, early), bound) = tokio::join!(early, answered);
        assert_eq!((early, seen.last()), (round > 0, Some(&bound)));
        assert_eq!(a.replied(hello).await, Ok("welcome".into()));
        part(&mut a, &mut b, conn).await;
    }
    assert_ne!(seen[0], seen[1]);
    assert!(!seen.contains(&[0; 32]));

    // As a stranger too.
    b.pins(open_to_strangers(&[], &[]));
    a.dial(b.id, &[&addr], 5_000);
    let ((_, at_a), (_, at_b)) = (a.bound().await, b.bound().await);
    assert_eq!(at_a, at_b);
    assert!(!seen.contains(&at_a));
}

#[tokio::test]
async fn a_stranger_has_few_streams_and_says_little() {
    let (mut a, mut b) = (Peer::start(1), Peer::start(2));
    a.pin(&[b.net.public_key()]);
    b.pins(open_to_strangers(&[], &[]));
    let addr = b.addr();
    let (at_a, _) = meet(&mut a, &mut b, &addr).await;

    let exact = a.request(at_a, &"x".repeat(8_192));
    let (stream, text) = b.requested().await;
    assert_eq!(text.len(), 8_192);
    let long = a.request(at_a, &"x".repeat(8_193));
    let Input::BadStream { why, .. } = b.next().await else { panic!("a bad stream") };
    assert_eq!(why, "the message is too long");
    assert_eq!(a.replied(long).await, Err(Lost::Reset));
    b.respond(stream, "taken");
    assert_eq!(a.replied(exact).await, Ok("taken".into()));

    let connection = a.net.conns[&at_a].connection.clone();
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(timeout(PATIENCE, connection.open_bi()).await.unwrap().unwrap());
    }
    assert!(timeout(Duration::from_millis(300), connection.open_bi()).await.is_err());
    assert!(timeout(Duration::from_millis(300), connection.open_uni()).await.is_err());
}

#[tokio::test]
async fn a_stranger_that_the_node_forgets_is_closed() {
    let mut a = Peer::start(1);
    let (sender, events) = mpsc::channel(256);
    let guard = Duration::from_millis(500);
    let mut b = Peer::of(Net::open(&machine(), &config(0), &[2; 32], &[], sender, guard).unwrap(), events);
    let mut c = Peer::start(3);
    a.pin(&[b.net.public_key()]);
    c.pin(&[b.net.public_key()]);
    b.pins(open_to_strangers(&[c.net.public_key()], &[]));
    let addr = b.addr();
    c.dial(b.id, &[&addr], 5_000);
    b.connected().await;
    a.dial(b.id, &[&addr], 5_000);
    b.connected().await;
    assert_eq!(b.disconnected().await, "this daemon closed the connection");
    assert_eq!(a.disconnected().await, "the peer says we broke the protocol (strangers are heard briefly)");
    // A peer stays.
    c.connected().await;
    assert!(timeout(Duration::from_millis(700), c.next()).await.is_err());
}

// shows: IPC-JOIN-6
#[tokio::test]
async fn many_strangers_find_no_room_and_a_peer_does() {
    let (mut a, mut b) = (Peer::start(1), Peer::start(2));
    a.pin(&[b.net.public_key()]);
    b.pins(open_to_strangers(&[], &[]));
    let addr = b.addr();
    for _ in 0..conn::STRANGERS_OPEN_MAX {
        a.dial(b.id, &[&addr], 5_000);
        b.connected().await;
    }
    a.dial(b.id, &[&addr], 5_000);
    let why = "the peer has no room for another connection (too many strangers: try again)";
    assert_eq!(a.disconnected().await, why);

    let mut c = Peer::start(3);
    c.pin(&[b.net.public_key()]);
    b.pins(open_to_strangers(&[c.net.public_key()], &[]));
    meet(&mut c, &mut b, &addr).await;
    // One who goes leaves a place.
    let gone = *a.net.conns.keys().next().unwrap();
    a.net.carry_out(Effect::Close { conn: gone, code: 0, reason: "done" });
    b.disconnected().await;
    a.dial(b.id, &[&addr], 5_000);
    b.connected().await;
}

#[tokio::test]
async fn a_peer_has_all_its_streams_from_the_start() {
    let (mut a, mut b) = two();
    a.dial(b.id, &[&b.addr()], 5_000);
    let (at_a, _, _) = a.connected().await;
    b.connected().await;
    let connection = a.net.conns[&at_a].connection.clone();
    let mut open = Vec::new();
    // The hello has one more.
    for _ in 0..255 {
        let (mut send, recv) = timeout(PATIENCE, connection.open_bi()).await.unwrap().unwrap();
        send.write_all(b"{").await.unwrap();
        open.push((send, Some(recv)));
        let mut send = timeout(PATIENCE, connection.open_uni()).await.unwrap().unwrap();
        send.write_all(b"{").await.unwrap();
        open.push((send, None));
    }
}
