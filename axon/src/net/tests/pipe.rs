//! The pipe between two endpoints, and what a hostile peer can write into it.

use axon_proto::limits::{PIPE_MESSAGE_BYTES_MAX, PIPE_ONE_WAY_MAX, PIPE_REQUESTS_MAX};
use quinn::SendStream;

use super::*;

/// Two that have met and may use the pipe.
async fn piped() -> (Peer, Peer, ConnId, ConnId) {
    let quick = NetConfig { read_timeout: Duration::from_millis(300), ..config(0) };
    let (mut a, mut b) = (Peer::with(1, &quick), Peer::with(2, &quick));
    a.pin(&[b.net.public_key()]);
    b.pin(&[a.net.public_key()]);
    let addr = b.addr();
    let (at_a, at_b) = meet(&mut a, &mut b, &addr).await;
    a.net.carry_out(Effect::Up { conn: at_a, pipe: true });
    b.net.carry_out(Effect::Up { conn: at_b, pipe: true });
    (a, b, at_a, at_b)
}

fn tell(peer: &mut Peer, conn: ConnId, text: &str) -> Token {
    let token = peer.token();
    peer.net.carry_out(Effect::OneWay { conn, token, bytes: text.into() });
    token
}

fn is_piped(peer: &Peer, token: Token) -> bool {
    matches!(peer.net.messages[&token].1, Way::Asked(..) | Way::Told(..))
}

/// Requests and one-way messages of ours that the pipe waits for.
fn open(peer: &Peer, conn: ConnId) -> (usize, usize) {
    peer.net.conns[&conn].pipe.open_messages()
}

fn record(kind: u8, number: u32, body: &str) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    let mut record = (u32::from(kind) << 24 | length).to_be_bytes().to_vec();
    record.extend(number.to_be_bytes());
    record.extend(body.as_bytes());
    record
}

/// A pipe of A's, written by hand, with these records.
async fn raw_pipe(peer: &Peer, conn: ConnId, records: &[Vec<u8>]) -> SendStream {
    let mut stream = peer.net.conns[&conn].connection.open_uni().await.unwrap();
    stream.write_all(&[1]).await.unwrap();
    stream.write_all(&records.concat()).await.unwrap();
    stream
}

/// WF-PIPE-1, WF-PIPE-3: small messages share it; answers come in any order and of any size.
#[tokio::test]
async fn requests_share_the_pipe_and_are_answered_in_any_order() {
    let (mut a, mut b, at_a, at_b) = piped().await;
    let tokens: Vec<_> = (0..64).map(|n| a.request(at_a, &format!("question {n}"))).collect();
    assert!(tokens.iter().all(|token| is_piped(&a, *token)));
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(b.requested().await);
    }
    let long = "y".repeat(60_000);
    for (n, (stream, text)) in open.iter().enumerate().rev() {
        assert_eq!(*text, format!("question {n}"), "in the order they were asked");
        let answer = if n == 7 { long.clone() } else { text.replace("question", "answer") };
        b.respond(*stream, &answer);
    }
    for (n, token) in tokens.iter().enumerate().rev() {
        let answer = if n == 7 { long.clone() } else { format!("answer {n}") };
        assert_eq!(a.replied(*token).await, Ok(answer));
    }
    // The other direction has a pipe of its own.
    let token = b.request(at_b, "and you?");
    assert!(is_piped(&b, token));
    let (stream, _) = a.requested().await;
    a.respond(stream, "me too");
    assert_eq!(b.replied(token).await, Ok("me too".into()));
    assert_eq!(super::pipe::open(&a, at_a), (0, 0));
    assert!(a.net.messages.is_empty() && b.net.streams.is_empty());
}

/// WF-PIPE-2: until both have offered it, and for what is large, there are streams.
#[tokio::test]
async fn large_messages_and_those_before_hello_have_streams_of_their_own() {
    let (mut a, mut b, at_a, at_b) = pair().await;
    let early = a.request(at_a, "early");
    assert!(!is_piped(&a, early));
    a.net.carry_out(Effect::Up { conn: at_a, pipe: true });
    b.net.carry_out(Effect::Up { conn: at_b, pipe: true });
    let fits = a.request(at_a, &"x".repeat(PIPE_MESSAGE_BYTES_MAX));
    let large = a.request(at_a, &"x".repeat(PIPE_MESSAGE_BYTES_MAX + 1));
    assert!(is_piped(&a, fits) && !is_piped(&a, large));
    for _ in 0..3 {
        let (stream, text) = b.requested().await;
        b.respond(stream, &text.len().to_string());
    }
    let mut answers = HashMap::new();
    while answers.len() < 3 {
        if let Input::Replied { token, outcome } = a.next().await {
            answers.insert(token, String::from_utf8(outcome.unwrap()).unwrap());
        }
    }
    assert_eq!([&answers[&early], &answers[&fits], &answers[&large]], ["5", "4096", "4097"]);
}

/// WF-PIPE-7: a one-way message is sent once the peer has taken it over, and they keep their order.
#[tokio::test]
async fn one_way_messages_end_when_they_are_heard() {
    let (mut a, mut b, at_a, at_b) = piped().await;
    let tokens: Vec<_> = (0..300).map(|n| tell(&mut a, at_a, &format!("news {n}"))).collect();
    assert!(tokens.iter().all(|token| is_piped(&a, *token)));
    for n in 0..300 {
        let Input::OneWay { conn, bytes } = b.next().await else { panic!("a one-way message") };
        assert_eq!((conn, bytes), (at_b, format!("news {n}").into_bytes()));
    }
    for wanted in tokens {
        let Input::Sent { token, outcome } = a.next().await else { panic!("an end") };
        assert_eq!((token, outcome), (wanted, Ok(())));
    }
    assert_eq!(open(&a, at_a), (0, 0));
    assert!(a.net.messages.is_empty());
}

/// WF-PIPE-5, WF-PIPE-6: who gives up says so, and who has no answer says that.
#[tokio::test]
async fn given_up_requests_are_told_and_their_places_come_back() {
    let (mut a, mut b, at_a, at_b) = piped().await;
    for _ in 0..3 {
        let tokens: Vec<_> = (0..PIPE_REQUESTS_MAX).map(|_| a.request(at_a, "never mind")).collect();
        assert!(tokens.iter().all(|token| is_piped(&a, *token)));
        let mut streams = Vec::new();
        for _ in &tokens {
            streams.push(b.requested().await.0);
        }
        for token in tokens {
            a.net.carry_out(Effect::Abandon { token });
        }
        for stream in streams {
            assert!(matches!(b.next().await, Input::RequestGone { stream: gone } if gone == stream));
            b.respond(stream, "too late");
        }
        // What B says of those comes before this.
        b.request(at_b, "have you heard?");
        a.requested().await;
        assert_eq!(open(&a, at_a), (0, 0));
        let token = a.request(at_a, "one more");
        assert!(is_piped(&a, token));
        let (stream, _) = b.requested().await;
        b.net.carry_out(Effect::Reset { stream });
        assert_eq!(a.replied(token).await, Err(Lost::Reset));
    }
    // An answer that crosses the word that nobody waits for it.
    let token = a.request(at_a, "never mind");
    let (stream, _) = b.requested().await;
    b.respond(stream, "an answer");
    a.net.carry_out(Effect::Abandon { token });
    let token = a.request(at_a, "go on");
    let (stream, text) = b.requested().await;
    assert_eq!(text, "go on");
    b.respond(stream, "yes");
    assert_eq!(a.replied(token).await, Ok("yes".into()));
}

/// WF-PIPE-4: beyond the bounds, messages have streams of their own; nothing is lost.
#[tokio::test]
async fn beyond_its_bounds_messages_have_streams() {
    let (mut a, mut b, at_a, at_b) = piped().await;
    let tokens: Vec<_> = (0..PIPE_REQUESTS_MAX + 10).map(|n| a.request(at_a, &n.to_string())).collect();
    assert_eq!(tokens.iter().filter(|token| is_piped(&a, **token)).count(), PIPE_REQUESTS_MAX);
    for _ in &tokens {
        let (stream, text) = b.requested().await;
        b.respond(stream, &text);
    }
    let mut open_: HashMap<_, _> = tokens.iter().enumerate().map(|(n, token)| (*token, n)).collect();
    while !open_.is_empty() {
        if let Input::Replied { token, outcome } = a.next().await {
            let n = open_.remove(&token).unwrap();
            assert_eq!(outcome, Ok(n.to_string().into_bytes()));
        }
    }

    // So many bytes wait that the pipe has no more room: 4096 messages are more than 262,144 bytes.
    let text = "x".repeat(100);
    let tokens: Vec<_> = (0..PIPE_ONE_WAY_MAX + 1).map(|_| tell(&mut b, at_b, &text)).collect();
    assert!(!is_piped(&b, tokens[PIPE_ONE_WAY_MAX]));
    let mut sent = 0;
    let mut came = 0;
    while sent < tokens.len() || came < tokens.len() {
        tokio::select! {
            input = a.next(), if came < tokens.len() => {
                came += usize::from(matches!(input, Input::OneWay { .. }));
            }
            input = b.next(), if sent < tokens.len() => {
                sent += usize::from(matches!(input, Input::Sent { outcome: Ok(()), .. }));
            }
        }
    }
    assert!(b.net.messages.is_empty());
}

#[tokio::test]
async fn what_was_given_to_the_pipe_arrives_before_a_close() {
    let (mut a, mut b, at_a, at_b) = piped().await;
    let token = a.request(at_a, "last");
    let (stream, _) = b.requested().await;
    b.respond(stream, &"bye ".repeat(10_000));
    b.net.carry_out(Effect::Close { conn: at_b, code: 2, reason: "duplicate" });
    assert_eq!(a.replied(token).await, Ok("bye ".repeat(10_000)));
    assert_eq!(a.disconnected().await, "the peer keeps another connection with us (duplicate)");
    assert_eq!(b.disconnected().await, "this daemon closed the connection");

    let (mut a, mut b, at_a, _) = piped().await;
    let token = a.request(at_a, "one more");
    let (stream, _) = b.requested().await;
    b.respond(stream, "the last");
    b.net.close(5, "shutting down").await;
    assert_eq!(a.replied(token).await, Ok("the last".into()));
    a.disconnected().await;
}

#[tokio::test]
async fn a_connection_that_ends_takes_what_is_on_its_pipe_along() {
    let (mut a, mut b, at_a, at_b) = piped().await;
    a.request(at_a, "one");
    tell(&mut a, at_a, "two");
    let (stream, _) = b.requested().await;
    b.net.conns[&at_b].connection.close(VarInt::from_u32(0), b"gone");
    // The node sends both again, by itself, once it knows.
    assert!(matches!(
        a.until(|input| (!matches!(input, Input::Sent { .. })).then_some(input)).await,
        Input::Disconnected { .. }
    ));
    b.disconnected().await;
    assert!(a.net.messages.is_empty() && b.net.streams.is_empty());
    b.respond(stream, "too late");
    assert!(a.is_quiet() && b.is_quiet());
}

/// WF-PIPE-8: a peer that writes what nobody may write is cut off, and nobody else is.
#[tokio::test]
async fn a_malformed_pipe_ends_its_connection() {
    let asks = |count: usize| -> Vec<_> {
        (0..count).map(|n| record(2, u32::try_from(n).unwrap() + 1, "{}")).collect()
    };
    let long = (2_u32 << 24 | 65_537).to_be_bytes().to_vec();
    let cases = [
        ("longer than a message", vec![long]),
        ("a one-way message twice", vec![record(1, 2, "{}"), record(1, 2, "{}")]),
        ("a one-way message from before", vec![record(1, 2, "{}"), record(1, 1, "{}")]),
        ("an answer to nothing", vec![record(3, 1, "{}")]),
        ("no answer to nothing", vec![record(4, 1, "")]),
        ("heard what was not said", vec![record(6, 1, "")]),
        ("a number in use", vec![record(2, 1, "{}"), record(2, 1, "{}")]),
        ("too many requests", asks(PIPE_REQUESTS_MAX + 1)),
        ("half a record", vec![record(1, 1, "{}")[..9].to_vec()]),
        ("half a head", vec![vec![1, 0, 0]]),
    ];
    for (case, records) in cases {
        let (a, mut b, at_a, _) = piped().await;
        let stream = raw_pipe(&a, at_a, &records).await;
        assert_eq!(b.disconnected().await, "this daemon closed the connection", "{case}");
        let quinn::ConnectionError::ApplicationClosed(close) = a.net.conns[&at_a].connection.closed().await
        else {
            panic!("{case}: closed")
        };
        assert_eq!(close.error_code, VarInt::from_u32(4), "{case}");
        assert!(b.net.streams.is_empty(), "{case}");
        drop(stream);
    }

    let (a, mut b, at_a, _) = piped().await;
    let _first = raw_pipe(&a, at_a, &[]).await;
    let _second = raw_pipe(&a, at_a, &[]).await;
    b.disconnected().await;

    let (a, mut b, at_a, _) = piped().await;
    let mut cut = raw_pipe(&a, at_a, &[record(1, 1, "{}")[..9].to_vec()]).await;
    cut.finish().unwrap();
    b.disconnected().await;
}

/// WF-PIPE-9: what a later version may add is passed over.
#[tokio::test]
async fn records_of_unknown_types_are_passed_over() {
    let (a, mut b, at_a, _) = piped().await;
    let known = record(2, 1, "known");
    let records = [record(9, 5, "what is this"), record(0, 0, ""), known, record(5, 77, "")];
    let mut stream = raw_pipe(&a, at_a, &records).await;
    assert_eq!(b.requested().await.1, "known");
    // Byte by byte.
    for byte in record(2, 9, &"z".repeat(5_000)) {
        stream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(b.requested().await.1.len(), 5_000);
    assert!(b.is_quiet());
}

#[tokio::test]
async fn without_the_setting_a_pipe_is_a_message_like_any_other() {
    let mut a = Peer::start(1);
    let mut b = Peer::with(2, &NetConfig { pipe: false, ..config(0) });
    a.pin(&[b.net.public_key()]);
    b.pin(&[a.net.public_key()]);
    let addr = b.addr();
    let (at_a, _) = meet(&mut a, &mut b, &addr).await;
    let mut stream = raw_pipe(&a, at_a, &[record(1, 1, "{}")]).await;
    stream.finish().unwrap();
    let Input::OneWay { bytes, .. } = b.next().await else { panic!("a one-way message") };
    assert_eq!(bytes.len(), 11);
}

/// A record that is there whole is taken at once, however long the rest of the next one takes.
#[tokio::test]
async fn a_slow_record_holds_up_nothing_before_it() {
    let (a, mut b, at_a, _) = piped().await;
    let mut records = record(2, 1, "whole");
    records.extend(&record(2, 2, "half")[..10]);
    let mut stream = raw_pipe(&a, at_a, &[records]).await;
    assert_eq!(b.requested().await.1, "whole");
    stream.write_all(&record(2, 2, "half")[10..]).await.unwrap();
    assert_eq!(b.requested().await.1, "half");
}

/// Of many long messages that wait for the window none is passed over again and again.
#[tokio::test]
async fn long_messages_leave_in_their_turn() {
    let (mut a, mut b, at_a, _) = piped().await;
    let long = "x".repeat(60_000);
    let tokens: Vec<_> = (0..250).map(|n| a.request(at_a, &format!("{n} {long}"))).collect();
    let mut latest = 0;
    for nth in 0..tokens.len() {
        let (stream, text) = b.requested().await;
        let of: usize = text.split_once(' ').unwrap().0.parse().unwrap();
        assert!(of.abs_diff(nth) < 40, "message {of} came as number {nth}");
        latest = latest.max(of);
        b.respond(stream, "thanks");
    }
    assert_eq!(latest, tokens.len() - 1);
}

/// WF-PIPE-8: what came before a fault counts, and nothing of ours is left behind.
#[tokio::test]
async fn what_came_before_a_fault_counts() {
    let (mut a, mut b, at_a, at_b) = piped().await;
    let token = a.request(at_a, "who are you?");
    b.requested().await;
    let records = [record(3, 1, "an answer"), record(1, 1, "news"), record(3, 1, "another")];
    let _stream = raw_pipe(&b, at_b, &records).await;
    assert_eq!(a.replied(token).await, Ok("an answer".into()));
    assert!(matches!(a.next().await, Input::OneWay { conn, .. } if conn == at_a));
    a.disconnected().await;
    assert!(a.net.messages.is_empty());
}

/// WF-PIPE-1: a pipe that begins before hello is done holds nothing when the peer goes.
#[tokio::test]
async fn a_pipe_that_is_never_agreed_ends_with_its_connection() {
    let (mut a, mut b, at_a, at_b) = pair().await;
    let _stream = raw_pipe(&b, at_b, &[record(1, 1, "{}")]).await;
    b.net.carry_out(Effect::Close { conn: at_b, code: 0, reason: "done" });
    assert_eq!(a.disconnected().await, "the peer closed the connection (done)");
    b.disconnected().await;
    assert!(!a.net.conns.contains_key(&at_a));
}

/// WF-PIPE-5: what is given up before it has left does not leave.
#[tokio::test]
async fn messages_that_are_given_up_in_time_do_not_leave() {
    let (mut a, mut b, at_a, _) = piped().await;
    let tokens: Vec<_> = (0..20).map(|_| a.request(at_a, "a secret")).collect();
    let tells: Vec<_> = (0..20).map(|_| tell(&mut a, at_a, "a secret")).collect();
    for token in tokens.into_iter().chain(tells) {
        a.net.carry_out(Effect::Abandon { token });
    }
    assert_eq!(open(&a, at_a), (0, 0));
    let asked = a.request(at_a, "a question");
    tell(&mut a, at_a, "news");
    let (stream, text) = b.requested().await;
    assert_eq!(text, "a question");
    let Input::OneWay { bytes, .. } = b.next().await else { panic!("a one-way message") };
    assert_eq!(bytes, b"news");
    b.respond(stream, "an answer");
    a.until(|input| {
        matches!(input, Input::Replied { token, outcome: Ok(_) } if token == asked).then_some(())
    })
    .await;
    a.net.carry_out(Effect::Close { conn: at_a, code: 0, reason: "done" });
    b.disconnected().await;
}

/// One peer's records never fill the queue before those of others.
#[tokio::test]
async fn a_flood_on_the_pipe_leaves_room_in_the_queue() {
    let (a, mut b, at_a, _) = piped().await;
    let tells: Vec<_> = (1..=20_000).map(|number| record(1, number, "{}")).collect();
    let stream = raw_pipe(&a, at_a, &[]);
    let mut stream = stream.await;
    let flood = tokio::spawn(async move {
        // More than the windows hold: it goes on for as long as B takes something.
        stream.write_all(&tells.concat()).await.ok();
        stream
    });
    b.until(|input| matches!(input, Input::OneWay { .. }).then_some(())).await;
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    // One batch at most waits for the driver, whatever else has come.
    assert!(b.events.len() <= 1, "{} batches wait", b.events.len());
    flood.abort();
}

/// A peer that is out learns of it at once, whatever it does about its pipe.
#[tokio::test]
async fn a_pipe_does_not_hold_up_the_close_of_a_peer_that_is_out() {
    let (mut a, mut b, at_a, at_b) = piped().await;
    let token = a.request(at_a, "a question");
    let (stream, _) = b.requested().await;
    b.respond(stream, "an answer");
    assert_eq!(a.replied(token).await, Ok("an answer".into()));
    b.request(at_b, "words that do not go any more");
    b.net.carry_out(Effect::Close { conn: at_b, code: 0, reason: "out" });
    assert!(b.net.conns[&at_b].connection.close_reason().is_some());
    assert_eq!(a.disconnected().await, "the peer closed the connection (out)");
}
