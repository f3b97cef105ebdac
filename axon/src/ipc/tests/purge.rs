//! What was said by a peer that has been blocked.

use super::*;

const A: AgentId = AgentId([1; 16]);
const B: AgentId = AgentId([2; 16]);

impl Shell {
    async fn purged(&mut self, job: u64) -> Duration {
        let since = Instant::now();
        self.ipc.purge(JobId(job), A);
        loop {
            match self.next().await {
                Input::Done { job: done, outcome } => {
                    assert_eq!((done, outcome), (JobId(job), Ok(String::new())));
                    return since.elapsed();
                }
                Input::ClientGone { client } => drop(self.known.remove(&client)),
                _ => {}
            }
        }
    }

    /// Gives the client more than its socket holds.
    fn stuff(&self, client: ClientId) {
        for _ in 0..8 {
            self.ipc.line(client, Of::Us, "u".repeat(128 * 1024).into());
        }
    }
}

#[test]
fn events_that_wait_are_dropped_and_their_bytes_with_them() {
    let outbox = Outbox::default();
    for (of, line) in [(A, "a1"), (B, "b1"), (A, "a2")] {
        assert!(outbox.event(of, line.into(), 100));
    }
    let mut batch = Vec::new();
    outbox.take(&mut batch);
    assert_eq!(batch, b"a1\nb1\na2\n");
    for (of, line) in [(A, "a3"), (B, "b2"), (A, "a4-longer")] {
        assert!(outbox.event(of, line.into(), 100));
    }
    outbox.line(Of::Peer(A), "reply of a".into());
    outbox.line(Of::Us, "ours".into());
    outbox.line(Of::Peer(B), "reply of b".into());
    assert_eq!(outbox.purge(A), Some(7));
    assert_eq!(outbox.bytes(), 9 + 3 + 11 + 5 + 11);
    outbox.written();
    assert_eq!(outbox.bytes(), 3 + 11 + 5 + 11);
    batch.clear();
    outbox.take(&mut batch);
    assert_eq!(batch, b"b2\nreply of a\nours\nreply of b\n");
    assert_eq!(outbox.purge(A), Some(7));
    outbox.written();
    assert_eq!((outbox.purge(A), outbox.bytes()), (None, 0));

    // What is being written cannot be taken back; several peers' words may be its own.
    assert!(outbox.event(A, "a5".into(), 100));
    batch.clear();
    outbox.take(&mut batch);
    assert_eq!(outbox.purge(A), Some(10));
    outbox.line(Of::Several, "a and b".into());
    assert_eq!((outbox.purge(A), outbox.purge(B)), (Some(11), Some(11)));

    // Gone, but its writer has not noticed.
    outbox.has_gone();
    assert_eq!(outbox.purge(A), Some(u64::MAX));
    outbox.ends();
    assert_eq!(outbox.purge(A), None);
}

#[tokio::test]
async fn a_client_that_reads_has_the_last_words_and_stays() {
    let mut shell = Shell::new(64);
    let (client, stream) = shell.client().await;
    let reading = tokio::spawn(async move {
        let mut lines = Vec::new();
        let mut reader = BufReader::new(stream).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            lines.push(line.chars().take(8).collect::<String>());
            sleep(Duration::from_millis(5)).await;
        }
        lines
    });
    shell.stuff(client);
    assert!(shell.ipc.event(client, A, "event a".into()));
    assert!(shell.ipc.event(client, B, "event b".into()));
    shell.ipc.line(client, Of::Peer(A), "reply a".into());
    shell.ipc.line(client, Of::Several, "rows".into());
    let took = shell.purged(1).await;
    assert!(took < Duration::from_millis(900), "{took:?}");
    shell.ipc.line(client, Of::Us, "after".into());
    let path = shell.path();
    shell.ipc.close(&path).await;
    let lines = reading.await.unwrap();
    assert_eq!(lines[8..], ["event b", "reply a", "rows", "after"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_only_for_words_of_the_peer() {
    let mut shell = Shell::new(64);
    // With an event that waits, with a reply that waits, with nothing of the peer, with several peers' rows.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(shell.client().await);
    }
    let ids: Vec<_> = clients.iter().map(|(client, _)| *client).collect();
    ids.iter().for_each(|client| shell.stuff(*client));
    sleep(Duration::from_millis(50)).await;
    assert!(shell.ipc.event(ids[0], A, "event a".into()));
    shell.ipc.line(ids[1], Of::Peer(A), "reply a".into());
    assert!(shell.ipc.event(ids[2], B, "event b".into()));
    shell.ipc.line(ids[3], Of::Several, "rows".into());
    let took = shell.purged(1).await;
    assert!(took >= Duration::from_millis(950) && took < Duration::from_secs(3), "{took:?}");
    // From now on nothing is written to the two that were closed.
    let mut heard = Vec::new();
    for (n, (client, stream)) in clients.iter_mut().enumerate() {
        shell.ipc.line(*client, Of::Us, "after".into());
        if n % 2 == 0 {
            shell.ipc.close_client(*client);
        }
        heard.push(rest(stream).await.replace('u', ""));
    }
    assert_eq!(heard[0].trim(), "after");
    assert_eq!(heard[2].trim(), "event b\nafter");
    assert!(!heard[1].contains(['a', 'r']) && !heard[3].contains(['a', 'r']));

    // Nobody is left, and so nothing to wait for.
    let took = shell.purged(2).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn what_is_being_written_of_the_peer_is_waited_for() {
    let mut shell = Shell::new(64);
    let (client, mut stream) = shell.client().await;
    // One event fills the socket, and the rest of it is on its way.
    assert!(shell.ipc.event(client, A, "a".repeat(1 << 20).into()));
    assert!(shell.ipc.event(client, A, "never".into()));
    sleep(Duration::from_millis(100)).await;
    shell.ipc.purge(JobId(1), A);
    assert!(shell.is_quiet(300).await, "it is not done");
    let mut read = vec![0; (1 << 20) + 1];
    stream.read_exact(&mut read).await.unwrap();
    assert!(matches!(shell.next().await, Input::Done { job: JobId(1), .. }));
    shell.ipc.line(client, Of::Us, "after".into());
    assert_eq!(read_line(&mut stream).await, "after");

    // The same, and the client goes in between, or is closed.
    assert!(shell.ipc.event(client, A, "a".repeat(1 << 20).into()));
    let (other, mut stuck) = shell.client().await;
    assert!(shell.ipc.event(other, A, "a".repeat(1 << 20).into()));
    sleep(Duration::from_millis(100)).await;
    shell.ipc.close_client(other);
    drop(stream);
    let took = shell.purged(2).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    let read = rest(&mut stuck).await;
    assert!(read.len() < 1 << 20 && shell.is_quiet(50).await);
}

#[tokio::test]
async fn nothing_of_a_purged_peer_is_written_after_it_in_many_rounds() {
    let mut shell = Shell::new(64);
    let mut readers = Vec::new();
    let mut clients = Vec::new();
    let mut told = 0;
    for round in 0..100_u64 {
        // Clients come and go all the time.
        if clients.len() < 12 {
            let (client, stream) = shell.client().await;
            clients.push(client);
            readers.push(tokio::spawn(async move {
                let mut reader = BufReader::new(stream).lines();
                let (mut blocked, mut faults, mut marks) = (None, 0, 0);
                while let Ok(Some(line)) = reader.next_line().await {
                    match line.split_once(' ') {
                        Some(("mark", round)) => {
                            blocked = Some(round.to_owned());
                            marks += 1;
                        }
                        // Everything of the peer says in which round it was queued.
                        Some(("a", rest)) => {
                            let of = rest.split(' ').next().map(str::to_owned);
                            faults += usize::from(of == blocked);
                        }
                        _ => {}
                    }
                    if marks % 7 == 3 {
                        tokio::task::yield_now().await;
                    }
                }
                (faults, marks)
            }));
        }
        let text = "x".repeat(1_000 + 300 * (round as usize % 11));
        for (n, client) in clients.iter().enumerate() {
            for part in 0..20 {
                shell.ipc.event(*client, A, format!("a {round} {text}").into());
                shell.ipc.event(*client, B, format!("b {text}").into());
                if part == 7 && n % 3 == 0 {
                    shell.ipc.line(*client, Of::Peer(A), format!("a {round} reply").into());
                    shell.ipc.line(*client, Of::Several, format!("a {round} rows").into());
                }
            }
        }
        for _ in 0..round % 4 {
            tokio::task::yield_now().await;
        }
        if round % 5 == 4 {
            shell.ipc.close_client(clients.swap_remove(round as usize % clients.len()));
        }
        shell.purged(round).await;
        for client in &clients {
            shell.ipc.line(*client, Of::Us, format!("mark {round}").into());
            told += 1;
        }
    }
    let path = shell.path();
    shell.ipc.close(&path).await;
    let mut marks = 0;
    for reader in readers {
        let (faults, seen) = timeout(PATIENCE, reader).await.unwrap().unwrap();
        assert_eq!(faults, 0);
        marks += seen;
    }
    // All read in time, so that nobody was closed for it.
    assert_eq!(marks, told);
}
