//! Lines that are begun and not ended.

use super::*;

// shows: IPC-SOCK-5
#[tokio::test]
async fn a_line_that_is_begun_ends_in_time_or_its_client_does() {
    let mut shell = Shell::new(64);
    let (_, mut half) = shell.client().await;
    let (_, mut slow) = shell.client().await;
    let (_, mut long) = shell.client().await;
    let (good, mut fine) = shell.client().await;
    let (paused, mut waits) = shell.client().await;
    let began = Instant::now();
    say(&mut half, "{\"cmd\":").await;
    say(&mut long, &"x".repeat(100_000)).await;
    shell.ipc.pace(paused, true);
    say(&mut waits, "first\nsec").await;
    let mut whole = 0;
    let mut too_long = 0;
    let mut gone = Vec::new();
    while gone.len() < 3 {
        // A byte now and then is no line, but many lines are.
        drop(slow.write_all(b"x").await);
        say(&mut fine, "a\nb").await;
        sleep(Duration::from_millis(20)).await;
        while let Ok(event) = shell.events.try_recv() {
            match shell.ipc.absorb(event) {
                Some(Input::Line { client, .. }) if client == good => whole += 1,
                Some(Input::LineTooLong { .. }) => too_long += 1,
                Some(Input::ClientGone { client }) => gone.push(client),
                _ => {}
            }
        }
        assert!(began.elapsed() < PATIENCE);
    }
    assert!(began.elapsed() >= Duration::from_millis(4_900), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(whole > 50 && too_long == 1 && !gone.contains(&good) && !gone.contains(&paused));
    for stream in [&mut half, &mut slow, &mut long] {
        let said = rest(stream).await;
        assert!(said.starts_with("{\"ok\":false,\"error\":\"invalid_command\""), "{said}");
        assert!(said.contains("within 5 s") && said.ends_with("}\n"), "{said}");
    }

    // While we do not read, no time passes for it.
    shell.ipc.pace(paused, false);
    sleep(Duration::from_millis(200)).await;
    say(&mut waits, "ond\n").await;
    loop {
        if let Input::Line { client, line } = shell.next().await
            && client == paused
        {
            assert_eq!(line, b"second");
            break;
        }
    }
}

// shows: IPC-SOCK-6
#[tokio::test]
async fn who_has_begun_a_line_makes_room_and_who_is_silent_does_not() {
    let mut shell = Shell::new(20);
    let path = shell.path();
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(UnixStream::connect(&path).await.unwrap());
    }
    shell.serve_for(100).await;
    assert_eq!(shell.known.len(), 20);
    let mut late = UnixStream::connect(&path).await.unwrap();
    shell.serve_for(200).await;
    assert_eq!(rest(&mut late).await, "{\"error\":\"too_many_clients\"}\n");
    shell.serve_for(50).await;
    assert_eq!(shell.known.len(), 20);

    // The oldest that has begun one goes; the newcomer comes after it.
    say(&mut silent[7], " ").await;
    say(&mut silent[4], "ha").await;
    say(&mut silent[9], "whole\nha").await;
    shell.serve_for(50).await;
    let before = shell.known.clone();
    let mut late = UnixStream::connect(&path).await.unwrap();
    let Input::ClientGone { client: gone } = shell.next().await else { panic!("room") };
    assert!(shell.known.remove(&gone));
    let up = shell.next().await;
    assert!(matches!(up, Input::ClientUp { .. }));
    shell.serve(up);
    assert_eq!(before.difference(&shell.known).count(), 1);
    let said = rest(&mut silent[4]).await;
    assert!(said.starts_with("{\"ok\":false,\"error\":\"too_many_clients\""), "{said}");
    say(&mut late, "served?\n").await;
    shell.serve_for(50).await;
    assert_eq!(read_line(&mut late).await, "heard served?");
    // Nothing more is heard of it.
    assert!(!shell.ipc.clients.contains_key(&gone) && shell.known.len() == 20);

    // Of those who have said a line, none goes: the last places are theirs.
    for stream in silent.iter_mut().skip(10) {
        say(stream, "line\n").await;
    }
    shell.serve_for(50).await;
    let mut late = UnixStream::connect(&path).await.unwrap();
    shell.serve_for(200).await;
    assert_eq!(rest(&mut late).await, "{\"error\":\"too_many_clients\"}\n");
}

#[tokio::test]
async fn who_comes_in_the_same_moment_as_many_halves_of_lines_is_served() {
    let mut shell = Shell::new(20);
    let path = shell.path();
    let mut streams = Vec::new();
    for n in 0..21 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        say(&mut stream, if n < 20 { "half" } else { "whole\n" }).await;
        streams.push(stream);
    }
    // All come before a word of any is read.
    timeout(PATIENCE, async {
        while shell.events.len() < 21 {
            tokio::task::yield_now().await
        }
    })
    .await
    .unwrap();
    while let Ok(event) = shell.events.try_recv() {
        if let Some(input) = shell.ipc.absorb(event) {
            shell.serve(input);
        }
    }
    assert_eq!(shell.known.len(), 20);
    tokio::select! {
        () = shell.serve_for(60_000) => panic!("it is not served"),
        line = read_line(&mut streams[20]) => assert_eq!(line, "heard whole"),
    }
}

#[tokio::test]
async fn few_places_are_kept_by_half() {
    let mut shell = Shell::new(4);
    let path = shell.path();
    let mut streams = Vec::new();
    for _ in 0..6 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        say(&mut stream, "half").await;
        shell.serve_for(50).await;
        streams.push(stream);
        assert!(shell.known.len() <= 2);
    }
    assert_eq!(shell.ipc.count(|client| client.outbox.is_silent() == Some(true)), 2);
}

#[tokio::test]
async fn five_hundred_halves_of_lines_keep_nobody_out() {
    const MAX: usize = 64;
    let mut shell = Shell::new(MAX);
    let path = shell.path();
    let (_, mut old) = {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        say(&mut stream, "here\n").await;
        shell.serve_for(50).await;
        (0, stream)
    };
    assert_eq!(read_line(&mut old).await, "heard here");

    let storm = async {
        let mut halves = Vec::new();
        for _ in 0..500 {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            drop(stream.write_all(b"{\"cmd\":\"sta").await);
            halves.push(stream);
            if halves.len() % 50 == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        }
        sleep(Duration::from_secs(2)).await;
        halves
    };
    let good = async {
        let mut turns = Vec::new();
        for n in 0..100 {
            let since = Instant::now();
            // One that has been there, and one that comes now.
            let mut new = UnixStream::connect(&path).await.unwrap();
            say(&mut new, &format!("new {n}\n")).await;
            say(&mut old, &format!("old {n}\n")).await;
            assert_eq!(read_line(&mut new).await, format!("heard new {n}"));
            assert_eq!(read_line(&mut old).await, format!("heard old {n}"));
            turns.push(since.elapsed());
            sleep(Duration::from_millis(10)).await;
        }
        turns.sort();
        turns
    };
    let node = async {
        loop {
            let event = shell.events.recv().await.unwrap();
            if let Some(input) = shell.ipc.absorb(event) {
                shell.serve(input);
            }
            assert!(shell.known.len() <= MAX);
        }
    };
    let both = async { tokio::join!(storm, good) };
    let (halves, turns) = tokio::select! {
        () = node => panic!("the node has ended"),
        done = timeout(3 * PATIENCE, both) => done.unwrap(),
    };
    // None of them waited for the time of the halves to be up, and hardly any at all.
    assert!(turns[99] < Duration::from_secs(5) && turns[89] < Duration::from_secs(1), "{turns:?}");
    let silent = shell.ipc.count(|client| client.outbox.is_silent().is_some());
    assert!(silent <= MAX - PLACES_KEPT, "{silent}");

    // Each was told why it goes, the last ones after five seconds.
    let ends = async {
        for mut stream in halves {
            let said = rest(&mut stream).await;
            assert!(
                said.is_empty() || said.contains("too_many_clients") || said.contains("within 5 s"),
                "{said}"
            );
        }
    };
    tokio::select! {
        () = shell.serve_for(60_000) => panic!("some are still there"),
        () = ends => {}
    }
    shell.serve_for(100).await;
    assert_eq!(shell.known.len(), 1);
}
