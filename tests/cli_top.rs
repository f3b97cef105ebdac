//! `axon top` on a terminal of its own, as a person has it: what it shows, its keys, another size, a daemon
//! that goes and comes back, and the terminal as it was afterwards.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support;
use crate::support::cli::run;
use crate::support::{AXON, Daemon, PATIENCE, pair};

/// A terminal: the cells that a program has written, as far as it uses what is needed for that.
struct Screen {
    cells: Vec<Vec<char>>,
    at: (usize, usize),
    rest: Vec<u8>,
    /// All that was written, for what is not of the picture.
    all: String,
}

impl Screen {
    fn new(wide: usize, high: usize) -> Self {
        Self { cells: vec![vec![' '; wide]; high], at: (0, 0), rest: Vec::new(), all: String::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        // A character may be cut in two.
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(_) => self.rest.len(),
            Err(error) => error.valid_up_to(),
        };
        let text = String::from_utf8(self.rest.drain(..whole).collect()).unwrap();
        self.all.push_str(&text);
        // So may a sequence: all of it is looked at again only where one was cut.
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\u{1b}' if chars.peek() == Some(&'[') => {
                    chars.next();
                    let mut sequence = String::new();
                    let end = loop {
                        match chars.next() {
                            Some(c) if c.is_ascii_alphabetic() => break c,
                            Some(c) => sequence.push(c),
                            None => {
                                let cut = format!("\u{1b}[{sequence}").into_bytes();
                                self.rest.splice(..0, cut);
                                return;
                            }
                        }
                    };
                    self.sequence(&sequence, end);
                }
                '\u{1b}' if chars.peek().is_none() => return self.rest.insert(0, 0x1b),
                '\u{1b}' => _ = chars.next(),
                '\r' => self.at.1 = 0,
                '\n' => self.at.0 += 1,
                c if !c.is_control() => {
                    if let Some(cell) = self.cells.get_mut(self.at.0).and_then(|row| row.get_mut(self.at.1)) {
                        *cell = c;
                    }
                    self.at.1 += 1;
                }
                _ => {}
            }
        }
    }

    fn sequence(&mut self, text: &str, end: char) {
        let numbers: Vec<usize> = text.split(';').filter_map(|part| part.parse().ok()).collect();
        let n = |at: usize| numbers.get(at).copied().unwrap_or(1).max(1);
        match end {
            'H' => self.at = (n(0) - 1, n(1) - 1),
            'G' => self.at.1 = n(0) - 1,
            'A' => self.at.0 = self.at.0.saturating_sub(n(0)),
            'B' => self.at.0 += n(0),
            'C' => self.at.1 += n(0),
            'D' => self.at.1 = self.at.1.saturating_sub(n(0)),
            'h' if text == "?1049" => self.cells.iter_mut().for_each(|row| row.fill(' ')),
            'J' => self.cells.iter_mut().for_each(|row| row.fill(' ')),
            _ => {}
        }
    }

    fn text(&self) -> String {
        self.cells.iter().map(|row| row.iter().collect::<String>() + "\n").collect()
    }
}

/// A shell on a terminal of 80 by 24, in which `axon top` runs.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    written: Receiver<Vec<u8>>,
    screen: Screen,
}

impl Terminal {
    /// None: there is no `script` to make a terminal.
    fn open(daemon: &Daemon) -> Option<Self> {
        if Command::new("script").arg("--version").output().is_err() {
            return None;
        }
        let root = daemon.root();
        let top = format!("'{AXON}' --root '{}' top", root.display());
        // The terminal's name and the program's id, for what only they are good for; then how it was left.
        let line = format!(
            "stty rows 24 cols 80; echo tty=$(tty); sh -c 'echo pid=$$; exec {}'; echo code=$?; stty -a",
            top.replace('\'', "'\\''")
        );
        let mut script = Command::new("script");
        if cfg!(target_os = "macos") {
            script.args(["-q", "/dev/null", "sh", "-c", &line]);
        } else {
            script.args(["-qec", &line, "/dev/null"]);
        }
        script.env("TERM", "xterm").env("HOME", &root).env("SHELL", "/bin/sh");
        script.env_remove("NO_COLOR").env_remove("AXON_ROOT").env_remove("AXON_SOCKET");
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = script.spawn().unwrap();
        let (keys, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, written) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut chunk) {
                if tell.send(chunk[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Some(Self { child, keys, written, screen: Screen::new(80, 24) })
    }

    /// Waits until this holds of the picture, or of all that was written.
    fn until(&mut self, what: &str, fits: impl Fn(&Screen) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !fits(&self.screen) {
            let left = end.saturating_duration_since(Instant::now());
            match self.written.recv_timeout(left) {
                Ok(bytes) => self.screen.take(&bytes),
                Err(_) => panic!("waited in vain for {what}:\n{}", self.screen.text()),
            }
        }
    }

    fn shows(&mut self, text: &str) {
        self.until(text, |screen| screen.text().contains(text));
    }

    fn shows_no(&mut self, text: &str) {
        self.until(&format!("no {text}"), |screen| !screen.text().contains(text));
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// What the shell said of this, on a line of its own.
    fn said(&self, name: &str) -> String {
        let from = self.screen.all.split(&format!("{name}=")).nth(1).unwrap();
        from.split_whitespace().next().unwrap().to_owned()
    }

    /// Waits for the program's end, which must be this, and looks at how the terminal was left.
    fn ends(mut self, code: &str) {
        self.until("how the terminal is left", |screen| {
            screen.all.split("code=").nth(1).is_some_and(|end| end.contains("noflsh"))
        });
        let (picture, after) = self.screen.all.split_once("code=").unwrap();
        assert!(after.starts_with(code), "{after}");
        let words: Vec<&str> = after.split([' ', ';', '\r', '\n']).collect();
        for word in ["icanon", "echo", "isig", "opost"] {
            assert!(words.contains(&word), "{word}: {after}");
        }
        // The other screen is left, and the cursor is shown again.
        let (left, shown) = (picture.rfind("\u{1b}[?1049l"), picture.rfind("\u{1b}[?25h"));
        assert!(left > picture.rfind("\u{1b}[?1049h") && shown > picture.rfind("\u{1b}[?25l"), "{picture:?}");
        self.child.wait().unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn skipped(name: &str) {
    support::skip(name, "script (bsdutils) is not installed");
}

#[test]
fn top_shows_what_happens_and_gives_the_terminal_back() {
    let (alice, mut bob) = pair();
    let Some(mut terminal) = Terminal::open(&alice) else {
        return skipped("top_shows_what_happens_and_gives_the_terminal_back");
    };
    terminal.shows("1 connected  0 unread  0 held");
    terminal.shows("bob ");
    terminal.shows(" known connected ");
    terminal.shows(", direct, for ");

    // A message, with what a terminal must not be told; then work, and the log says each.
    let evil = "open\u{1b}[2J\u{1b}]0;owned\u{7}\nnow";
    bob.run(&["notify", "alice", "door", evil]).ok();
    terminal.shows("notify from bob (known): door: open");
    assert!(!terminal.screen.all.contains("\u{1b}]0;owned"), "it reached the terminal");
    terminal.shows("1 connected  1 unread");
    terminal.until("the unread message of bob", |screen| {
        screen.text().lines().any(|line| line.contains("bob") && line.contains("1 unread"))
    });
    alice.run(&["delegate", "bob", "Water the plants"]).ok();
    terminal.shows("Water the plants");
    terminal.shows("2 delegations 1");
    terminal.shows("queued to bob");
    terminal.shows(" to bob is queued");
    alice.run(&["trust", "bob", "trusted"]).ok();
    terminal.shows("trusted connected");
    terminal.until("the row of the audit log", |screen| {
        screen.text().lines().any(|line| line.contains(" audit ") && line.contains("trust"))
    });

    // Keys: the help, and a picture that stands still until it goes on.
    terminal.press("?");
    terminal.shows("any closes this");
    terminal.press("x");
    terminal.shows_no("any closes this");
    terminal.press("p");
    terminal.shows("stands still");
    bob.run(&["notify", "alice", "door", "shut"]).ok();
    terminal.press("?");
    terminal.shows("any closes this");
    assert!(!terminal.screen.text().contains("door: shut"));
    terminal.press("xp");
    terminal.shows("door: shut");

    // Another size is drawn at once, and one that is too small says so.
    let resize = |tty: &str, rows: &str, cols: &str| {
        let flag = if cfg!(target_os = "macos") { "-f" } else { "-F" };
        let mut stty = Command::new("stty");
        stty.args([flag, tty, "rows", rows, "cols", cols]);
        assert_eq!(run(stty).code, 0);
    };
    let tty = terminal.said("tty");
    resize(&tty, "8", "30");
    terminal.shows("axon top needs 40 columns");
    resize(&tty, "24", "80");
    terminal.shows("3 log, UTC");

    // The daemon goes, and comes back.
    let mut alice = alice;
    assert_eq!(alice.terminate().code(), Some(0));
    terminal.shows("the daemon is away: waiting for it");
    terminal.shows("no daemon runs on ");
    terminal.shows(" daemon`");
    alice.up();
    terminal.shows("1 connected");
    bob.run(&["notify", "--hold", "60s", "alice", "door", "again"]).ok();
    terminal.shows("door: again");
    assert_eq!(bob.terminate().code(), Some(0));
    terminal.shows("disconnected");

    terminal.press("q");
    terminal.ends("0");
}

#[test]
fn top_gives_the_terminal_back_when_it_is_ended() {
    let alice = Daemon::start("");
    for end in [Signal::TERM, Signal::HUP, Signal::INT] {
        let Some(mut terminal) = Terminal::open(&alice) else {
            return skipped("top_gives_the_terminal_back_when_it_is_ended");
        };
        terminal.shows("1 peers 0");
        let pid = terminal.said("pid").parse().ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, end).unwrap();
        terminal.ends("0");
    }
    let mut terminal = Terminal::open(&alice).unwrap();
    terminal.shows("1 peers 0");
    // As the key comes from a terminal that does not make a signal of it.
    terminal.press("\u{3}");
    terminal.ends("0");
}

#[test]
fn without_a_terminal_top_says_why_and_once_prints_what_there_is() {
    let (alice, bob) = pair();
    let refused = alice.run(&["top"]);
    assert!(refused.usage().contains("--once"), "{refused:?}");
    assert!(alice.run(&["--plain", "top"]).stderr.contains("terminal"));
    bob.run(&["notify", "alice", "door", "open"]).ok();
    alice.run(&["delegate", "bob", "Water the plants"]).ok();
    let once = alice.run(&["top", "--once"]).ok();
    assert_eq!((&once["status"]["inbox_unread"], &once["peers"][0]["unread"]), (&json!(1), &json!(1)));
    assert_eq!(once["delegations"][0]["task"], "Water the plants");
    assert!(once["log"].is_array() && once["who"].as_str().unwrap().len() >= 8, "{once}");
    let text = alice.run(&["--plain", "top", "--once"]);
    for said in ["1 connected, unread 1, held 0", "peers 1\n  bob  known  connected", "Water the plants"] {
        assert!(text.stdout.contains(said), "{said}: {text:?}");
    }
    // A scoped socket is told what it may see.
    let path = alice.run(&["socket", "add", "blind", "--allow", "answer"]).ok()["path"].clone();
    let mut command = Command::new(AXON);
    command.args(["--socket", path.as_str().unwrap(), "top", "--once"]).env("HOME", alice.root());
    let once = run(command).ok();
    assert_eq!((once.get("delegations"), &once["log"]), (None, &json!([])), "{once}");
    assert_eq!((once.get("status"), &once["peers_connected"]), (None, &json!(1)), "{once}");
    let mut alice = alice;
    alice.terminate();
    alice.run(&["top", "--once"]).fails(1, "no_daemon");
}
