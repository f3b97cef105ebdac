//! The sockets, with a test in the node's place.

use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use axon_proto::limits::CLIENT_QUEUE_BYTES_MAX;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::mpsc::Receiver;
use tokio::time::sleep;

use super::*;

mod lines;
mod purge;

/// No test waits longer for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Shell {
    ipc: Ipc,
    events: Receiver<IpcEvent>,
    dir: tempfile::TempDir,
    uid: u32,
    /// The clients that the node would know of.
    known: HashSet<ClientId>,
}

impl Shell {
    fn new(clients_max: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (sender, events) = mpsc::channel(256);
        let ipc = Ipc::bind(&dir.path().join("axon.sock"), clients_max, 1_024, sender).unwrap();
        Self { uid: ipc.uid, ipc, events, dir, known: HashSet::new() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("axon.sock")
    }

    fn scope_path(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join("sockets").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir.join("axon.sock")
    }

    fn scope(&mut self, name: &str, uid: u32) -> PathBuf {
        let path = self.scope_path(name);
        self.ipc.open_scope(name, &path, uid).unwrap();
        path
    }

    async fn next(&mut self) -> Input {
        loop {
            let event = timeout(PATIENCE, self.events.recv()).await.expect("an event in time").unwrap();
            if let Some(input) = self.ipc.absorb(event) {
                return input;
            }
        }
    }

    /// Whether nothing more is to be told for a while.
    async fn is_quiet(&mut self, millis: u64) -> bool {
        let until = Instant::now() + Duration::from_millis(millis);
        while let Ok(event) = timeout_at(until, self.events.recv()).await {
            if self.ipc.absorb(event.unwrap()).is_some() {
                return false;
            }
        }
        true
    }

    async fn connect(&mut self, path: &Path) -> (ClientId, UnixStream) {
        let stream = UnixStream::connect(path).await.unwrap();
        let Input::ClientUp { client, .. } = self.next().await else { panic!("a client") };
        (client, stream)
    }

    async fn client(&mut self) -> (ClientId, UnixStream) {
        self.connect(&self.path()).await
    }

    async fn gone(&mut self, wanted: ClientId) {
        let input = self.next().await;
        assert!(matches!(input, Input::ClientGone { client } if client == wanted), "{input:?}");
    }

    /// Does with an input what the node would; yields the line that it brought.
    fn serve(&mut self, input: Input) -> Option<(ClientId, String)> {
        match input {
            Input::ClientUp { client, .. } if self.known.len() >= self.ipc.clients_max => {
                self.ipc.line(client, Of::Us, "{\"error\":\"too_many_clients\"}".into());
                self.ipc.close_client(client);
            }
            Input::ClientUp { client, .. } => assert!(self.known.insert(client)),
            Input::ClientGone { client } => drop(self.known.remove(&client)),
            Input::Line { client, line } if self.known.contains(&client) => {
                let line = String::from_utf8(line).unwrap();
                self.ipc.line(client, Of::Us, format!("heard {line}").into());
                return Some((client, line));
            }
            _ => {}
        }
        None
    }

    /// Does the node's part for a while.
    async fn serve_for(&mut self, millis: u64) {
        let until = Instant::now() + Duration::from_millis(millis);
        while let Ok(event) = timeout_at(until, self.events.recv()).await {
            if let Some(input) = self.ipc.absorb(event.unwrap()) {
                self.serve(input);
            }
        }
    }
}

async fn say(stream: &mut UnixStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// What comes until the end.
async fn rest(stream: &mut UnixStream) -> String {
    let mut read = Vec::new();
    // What was not read of us turns the end into an error.
    drop(timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("an end in time"));
    String::from_utf8(read).unwrap()
}

async fn read_line(stream: &mut UnixStream) -> String {
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(1, stream);
    timeout(PATIENCE, reader.read_line(&mut line)).await.expect("a line in time").unwrap();
    line.trim_end().to_owned()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_scoped_socket_names_its_clients_and_ends_alone() {
    let mut shell = Shell::new(64);
    let uid = shell.uid;
    // What a crash left there is replaced.
    let stale = shell.scope_path("helper");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let path = shell.scope("helper", uid);
    assert_eq!((mode(&path), std::fs::metadata(&path).unwrap().uid()), (0o600, uid));
    assert_eq!(std::fs::read_dir(shell.dir.path().join("sockets")).unwrap().count(), 1);

    let mut scoped = UnixStream::connect(&path).await.unwrap();
    let Input::ClientUp { client, trusted, socket } = shell.next().await else { panic!("a client") };
    assert_eq!((trusted, socket.as_deref()), (true, Some("helper")));
    let (main, mut stream) = {
        let stream = UnixStream::connect(shell.path()).await.unwrap();
        let Input::ClientUp { client, trusted, socket } = shell.next().await else { panic!("a client") };
        assert_eq!((trusted, socket), (true, None));
        (client, stream)
    };
    say(&mut scoped, "one\n").await;
    let Input::Line { client: by, line } = shell.next().await else { panic!("a line") };
    assert_eq!((by, line), (client, b"one".to_vec()));

    // Nothing more is heard by it: not of the newcomer who has come already, not of the line said before.
    let mut late = UnixStream::connect(&path).await.unwrap();
    say(&mut scoped, "two\n").await;
    shell.ipc.line(client, Of::Us, "the last".into());
    sleep(Duration::from_millis(100)).await;
    shell.ipc.close_scope("helper");
    assert!(!path.exists() && UnixStream::connect(&path).await.is_err());
    assert_eq!(rest(&mut scoped).await, "the last\n");
    shell.gone(client).await;
    assert_eq!(rest(&mut late).await, "");
    assert!(shell.is_quiet(50).await);
    shell.ipc.close_scope("helper");

    // One of the same name is another socket.
    let path = shell.scope("helper", uid);
    let (client, _scoped) = shell.connect(&path).await;
    let path = shell.scope("helper", uid);
    shell.gone(client).await;
    let (_, mut scoped) = shell.connect(&path).await;
    say(&mut stream, "three\n").await;
    assert!(matches!(shell.next().await, Input::Line { client, .. } if client == main));

    // With the daemon, all sockets go.
    let (other, socket) = (shell.scope("other", uid), shell.path());
    let Shell { ipc, dir: _dir, .. } = shell;
    ipc.close(&socket).await;
    assert!(!path.exists() && !other.exists() && !socket.exists());
    assert_eq!((rest(&mut scoped).await, rest(&mut stream).await), (String::new(), String::new()));
}

// shows: IPC-SCO-4, IPC-SCO-5
#[tokio::test]
async fn a_socket_is_for_its_user_and_for_the_daemons_own() {
    let mut shell = Shell::new(64);
    let us = shell.uid;
    let (daemon, somebody) = (us + 1, us + 2);
    let own = shell.scope("own", us);
    let others = shell.scope("others", somebody);
    assert_eq!((mode(&own), mode(&others)), (0o600, 0o666));
    let (_, _a) = shell.connect(&own).await;
    let (_, _b) = shell.connect(&others).await;

    // As if the daemon were another user: we may use the one that is for us.
    shell.ipc.uid = daemon;
    let again = shell.scope("again", us);
    assert_eq!(mode(&again), 0o600);
    let (_, _c) = shell.connect(&again).await;
    let mut refused = UnixStream::connect(&others).await.unwrap();
    let path = shell.path();
    let mut also = UnixStream::connect(&path).await.unwrap();
    assert!(shell.is_quiet(50).await);
    assert_eq!((rest(&mut refused).await, rest(&mut also).await), (String::new(), String::new()));

    let gone = shell.dir.path().join("sockets/gone/axon.sock");
    assert!(shell.ipc.open_scope("gone", &gone, us).is_err());
    assert_eq!(std::fs::read_dir(shell.dir.path().join("sockets")).unwrap().count(), 3);
}

// shows: IPC-SCO-14
#[tokio::test]
async fn one_scoped_socket_takes_a_quarter_of_the_places() {
    let mut shell = Shell::new(8);
    let uid = shell.uid;
    let (a, b) = (shell.scope("a", uid), shell.scope("b", uid));
    let (first, stream) = shell.connect(&a).await;
    let (_, _second) = shell.connect(&a).await;
    let mut third = UnixStream::connect(&a).await.unwrap();
    assert!(shell.is_quiet(50).await);
    let said = rest(&mut third).await;
    assert!(
        said.starts_with("{\"ok\":false,\"error\":\"too_many_clients\"") && said.contains("all 2 places")
    );
    let (_, _other) = shell.connect(&b).await;
    drop(stream);
    // It may have said its last word only.
    assert!(matches!(shell.next().await, Input::ClientEof { client } if client == first));
    shell.gone(first).await;
    let (_, _third) = shell.connect(&a).await;
}

// shows: IPC-SLOW-5
#[test]
fn events_are_turned_away_by_number_and_by_bytes_and_lines_are_not() {
    let (outbox, a) = (Outbox::default(), AgentId([1; 16]));
    assert!(outbox.event(a, "1".into(), 2));
    outbox.line(Of::Us, "2".into());
    assert!(!outbox.event(a, "3".into(), 2));
    outbox.line(Of::Us, "3".into());
    let mut batch = Vec::new();
    assert!(!outbox.take(&mut batch));
    assert_eq!(batch, b"1\n2\n3\n");
    // What is being written waits no more, but still counts its bytes.
    assert!(outbox.event(a, "4".into(), 2));
    assert_eq!(outbox.bytes(), 8);
    let large: Arc<str> = "x".repeat(CLIENT_QUEUE_BYTES_MAX - 9).into();
    outbox.line(Of::Us, large);
    assert!(!outbox.event(a, "5".into(), 1_000));
    outbox.written();
    assert!(outbox.event(a, "5".into(), 1_000));
    outbox.close();
    outbox.line(Of::Us, "6".into());
    assert_eq!(outbox.bytes(), 2 + CLIENT_QUEUE_BYTES_MAX - 8 + 2);
    outbox.has_gone();
    assert_eq!((outbox.bytes(), outbox.pace()), (0, outbox::Pace::Stop));
    outbox.written();
    assert_eq!(outbox.bytes(), 0);
}
