//! `axon top`: a live picture of peers, traffic, delegations and the log.
//!
//! [`feed`] brings what there is, [`model`] keeps it, [`view`] draws it; here are the terminal and its keys.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use axon_client::{Delegation, Peer, Status};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde::Serialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::answer::stopped;
use super::output::{CliError, CliResult, EXIT_DONE};
use super::{Context, link, show, when};
use crate::disk::files::unix_ms;
use feed::Snapshot;
use model::{Model, Update};
use view::{Look, Panel};

mod feed;
mod model;
mod view;

/// How long a look at the keyboard takes.
const KEYS: Duration = Duration::from_millis(100);
/// Ages grow without anything that comes.
const REDRAW: Duration = Duration::from_secs(1);
/// What has come and is not taken in yet.
const UPDATES_MAX: usize = 256;
/// Keys that were pressed and are not looked at yet.
const KEYS_MAX: usize = 64;

/// Watch peers, traffic, delegations and the log, live.
///
/// It looks once a second, and shows messages, changes of delegations, knocks and rows of the audit log as
/// they come; it acknowledges nothing. While the daemon is away it says so, and goes on by itself when it is
/// back. q leaves, ? tells the other keys. With --once it prints what there is, and ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  axon top\n  axon top --once --json")]
pub struct Args {
    /// Print what there is, and end; needs no terminal
    #[arg(long)]
    once: bool,
}

pub(super) async fn run(cx: &Context, args: Args) -> CliResult {
    if args.once {
        return once(cx).await;
    }
    if cx.out.json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = "axon top draws on a terminal, and reads its keys: run it in one, or `axon top --once`";
        return Err(CliError::usage(text));
    }
    let stop = stopped()?;
    let (tell, updates) = channel(UPDATES_MAX);
    let color = cx.out.color;
    let mut screen = Screen::open()?;
    let ended = tokio::select! {
        ended = screen.show(updates, color) => ended,
        // It has no end of its own.
        () = feed::feed(cx, &tell) => Ok(()),
        () = stop => Ok(()),
    };
    drop(screen);
    ended.map(|()| EXIT_DONE)
}

/// The terminal while it is ours. It is given back when this is dropped, and when the program panics.
struct Screen {
    terminal: DefaultTerminal,
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to be told that it cannot be.
        ratatui::try_restore().ok();
    }
}

fn broken(error: &io::Error) -> CliError {
    CliError::local("io", format!("cannot draw on this terminal: {error}; try `axon top --once`"))
}

impl Screen {
    fn open() -> Result<Self, CliError> {
        let terminal = ratatui::try_init().map_err(|error| {
            ratatui::try_restore().ok();
            broken(&error)
        })?;
        Ok(Self { terminal })
    }

    async fn show(&mut self, mut updates: Receiver<Update>, color: bool) -> Result<(), CliError> {
        let (tell, mut keys) = channel(KEYS_MAX);
        std::thread::spawn(move || read_keys(&tell));
        let mut clock = tokio::time::interval(REDRAW);
        let (mut model, mut look) = (Model::default(), Look::new(color));
        let mut still: Option<Box<Model>> = None;
        loop {
            model.now_ms = unix_ms();
            let shown = still.as_deref().unwrap_or(&model);
            let drawn = self.terminal.draw(|frame| view::draw(frame, shown, &mut look));
            drawn.map_err(|error| broken(&error))?;
            tokio::select! {
                key = keys.recv() => match key {
                    Some(Event::Key(key)) if !press(&mut look, key) => return Ok(()),
                    // The next picture is as large as the terminal is then.
                    Some(_) => {}
                    // The terminal is gone.
                    None => return Ok(()),
                },
                Some(update) = updates.recv() => {
                    model.take(update);
                    while let Ok(update) = updates.try_recv() {
                        model.take(update);
                    }
                }
                _ = clock.tick() => {}
            }
            match (look.paused, &still) {
                (true, None) => still = Some(Box::new(model.clone())),
                (false, Some(_)) => still = None,
                _ => {}
            }
        }
    }
}

/// Hands over what is pressed until nobody wants it.
fn read_keys(tell: &Sender<Event>) {
    loop {
        match event::poll(KEYS) {
            Ok(false) if tell.is_closed() => return,
            Ok(false) => {}
            Ok(true) => {
                let Ok(event) = event::read() else { return };
                if tell.blocking_send(event).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// What a key does; false when it leaves.
fn press(look: &mut Look, key: KeyEvent) -> bool {
    if key.kind == KeyEventKind::Release {
        return true;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    if control {
        return !matches!(key.code, KeyCode::Char('c' | 'd'));
    }
    if look.help {
        look.help = false;
        return key.code != KeyCode::Char('q');
    }
    let page = look.page();
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('?' | 'h') => look.help = true,
        KeyCode::Char('p' | ' ') => look.paused = !look.paused,
        KeyCode::Tab | KeyCode::Right => look.turn(false),
        KeyCode::BackTab | KeyCode::Left => look.turn(true),
        KeyCode::Char(digit @ '1'..='3') => {
            let place = usize::from(digit as u8 - b'1');
            look.panel = Panel::ALL.get(place).copied().unwrap_or(look.panel);
        }
        KeyCode::Up | KeyCode::Char('k') => look.step(-1),
        KeyCode::Down | KeyCode::Char('j') => look.step(1),
        KeyCode::PageUp => look.step(-page),
        KeyCode::PageDown => look.step(page),
        KeyCode::Home => look.jump(false),
        KeyCode::End => look.jump(true),
        _ => {}
    }
    true
}

/// What there is, as text or as one line of JSON.
async fn once(cx: &Context) -> CliResult {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        who: &'a str,
        uptime_secs: u64,
        peers_connected: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<&'a Status>,
        peers: &'a [Peer],
        #[serde(skip_serializing_if = "Option::is_none")]
        delegations: Option<&'a [Delegation]>,
        log: Vec<LogRow<'a>>,
    }
    #[derive(Serialize)]
    struct LogRow<'a> {
        at_ms: u64,
        from: &'a str,
        text: &'a str,
    }
    let Snapshot { who, status, peers, delegations, log } =
        feed::snapshot(cx).await.map_err(|error| cx.failure(error))?;
    // What a scoped socket is not told is not 0.
    let whole = Some(&status).filter(|status| link::tells_all(status));
    let line = Line {
        ok: true,
        who: &who,
        uptime_secs: status.uptime_secs,
        peers_connected: status.peers_connected,
        status: whole,
        peers: &peers,
        delegations: delegations.as_deref(),
        log: log.iter().map(|l| LogRow { at_ms: l.at_ms, from: l.from, text: &l.text }).collect(),
    };
    cx.out.result(&line, || {
        let now_ms = unix_ms();
        let (up, connected) = (show::span(status.uptime_secs), status.peers_connected);
        let mut first = format!("{who}, up {up}, {connected} connected");
        if let Some(Status { inbox_unread, held, messages_sent, messages_received, .. }) = &whole {
            let counts = format!("unread {inbox_unread}, held {held}");
            first.push_str(&format!(", {counts}, sent {messages_sent}, received {messages_received}"));
        }
        let mut lines = vec![first];
        let cells = |cells: &[String]| {
            let full: Vec<&str> = cells.iter().map(String::as_str).filter(|cell| !cell.is_empty()).collect();
            format!("  {}", full.join("  "))
        };
        lines.push(format!("peers {}", peers.len()));
        lines.extend(peers.iter().map(|peer| cells(&model::peer_cells(peer, now_ms).0)));
        let work = delegations.as_deref().unwrap_or_default();
        lines.push(format!("delegations {}", work.len()));
        lines.extend(work.iter().map(|row| cells(&model::work_cells(row, &peers, now_ms).0)));
        lines.push(format!("log {}", log.len()));
        lines.extend(log.iter().map(|l| format!("  {} {} {}", when::utc(l.at_ms), l.from, l.text)));
        lines.join("\n")
    })?;
    Ok(EXIT_DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(look: &mut Look, code: KeyCode) -> bool {
        press(look, KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_do_what_the_help_says() {
        let mut look = Look::new(false);
        for leaves in [KeyCode::Char('q'), KeyCode::Esc] {
            assert!(!key(&mut look, leaves));
        }
        assert!(!press(&mut look, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(key(&mut look, KeyCode::Char('p')) && look.paused);
        assert!(key(&mut look, KeyCode::Char('p')) && !look.paused);
        assert!(key(&mut look, KeyCode::Tab) && look.panel == Panel::Work);
        assert!(key(&mut look, KeyCode::BackTab) && look.panel == Panel::Peers);
        assert!(key(&mut look, KeyCode::Char('3')) && look.panel == Panel::Log);
        assert!(key(&mut look, KeyCode::Char('?')) && look.help);
        assert!(key(&mut look, KeyCode::Esc) && !look.help, "any key closes the help first");
        assert!(key(&mut look, KeyCode::Char('x')));
    }
}
