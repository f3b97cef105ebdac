//! What `axon top` draws. Takes what is known and gives cells of the terminal, nothing else.

use ratatui::Frame;
use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Sparkline, Table, Wrap};

use super::super::{link, show, when};
use super::model::{Model, Mood, peer_cells, work_cells};

/// The least that anything can be shown in.
const LEAST: (u16, u16) = (40, 10);
/// Lines above and below the rows of a panel.
const FRAME: u16 = 2;
/// Widest column but the last.
const CELL_COLUMNS_MAX: usize = 24;
const PEER_COLUMNS: [&str; 6] = ["name", "trust", "status", "rtt", "waiting", "path"];
const HELP: &[(&str, &str)] = &[
    ("q, Esc, Ctrl-C", "leave"),
    ("Tab, Shift-Tab, 1 2 3", "the next panel, the one before, that one"),
    ("↑ ↓, k j, PgUp PgDn", "move in the panel"),
    ("Home, End", "to its beginning, to its end"),
    ("p", "stop the picture; what comes meanwhile is not lost"),
    ("?", "this"),
];

/// A part of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panel {
    /// Whom the daemon knows.
    Peers,
    /// Work given and taken.
    Work,
    /// What happens.
    Log,
}

impl Panel {
    /// All of them, from above.
    pub const ALL: [Self; 3] = [Self::Peers, Self::Work, Self::Log];

    fn place(self) -> usize {
        self as usize
    }
}

/// What of it is looked at.
#[derive(Debug, Clone)]
pub struct Look {
    /// The panel that the keys move in.
    pub panel: Panel,
    /// How far each panel is moved: from its beginning, the log from its end.
    moved: [usize; 3],
    /// How many rows each shows, as it was drawn last.
    room: [usize; 3],
    /// Whether the keys are told.
    pub help: bool,
    /// Whether the picture stands still.
    pub paused: bool,
    /// Whether there are colours.
    pub color: bool,
}

impl Look {
    /// At the beginning of all.
    pub fn new(color: bool) -> Self {
        Self { panel: Panel::Peers, moved: [0; 3], room: [1; 3], help: false, paused: false, color }
    }

    /// To the next panel, or the one before.
    pub fn turn(&mut self, back: bool) {
        let step = if back { Panel::ALL.len() - 1 } else { 1 };
        self.panel = Panel::ALL[(self.panel.place() + step) % Panel::ALL.len()];
    }

    /// Moves in the panel: down, where it is positive.
    pub fn step(&mut self, rows: isize) {
        // The log is read from its end.
        let rows = if self.panel == Panel::Log { -rows } else { rows };
        let moved = &mut self.moved[self.panel.place()];
        *moved = moved.saturating_add_signed(rows);
    }

    /// A page of the panel, in rows.
    pub fn page(&self) -> isize {
        isize::try_from(self.room[self.panel.place()].max(1)).unwrap_or(isize::MAX)
    }

    /// To the panel's beginning or end.
    pub fn jump(&mut self, end: bool) {
        let far = end != (self.panel == Panel::Log);
        self.moved[self.panel.place()] = if far { usize::MAX } else { 0 };
    }

    /// The first row of a panel to be shown, of so many, where there is room for so many.
    fn first(&mut self, panel: Panel, rows: usize, room: usize) -> usize {
        let most = rows.saturating_sub(room);
        let moved = &mut self.moved[panel.place()];
        *moved = (*moved).min(most);
        self.room[panel.place()] = room;
        if panel == Panel::Log { most - *moved } else { *moved }
    }

    fn style(&self, mood: Mood) -> Style {
        let color = match mood {
            Mood::Good => Color::Green,
            Mood::Warn => Color::Yellow,
            Mood::Bad => Color::Red,
            Mood::Plain => return Style::new(),
        };
        if self.color { Style::new().fg(color) } else { Style::new() }
    }
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, model: &Model, look: &mut Look) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("axon top needs {} columns and {} lines; q leaves", LEAST.0, LEAST.1);
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(3), Constraint::Min(1), Constraint::Length(1)]).areas(area);
    header(frame, head, model, look);
    let work = model.delegations.as_ref().map_or(0, Vec::len);
    // Each as high as its rows, and the log has the rest, a third at least.
    let part = (body.height / 3).max(FRAME + 1);
    let high = |rows: usize| (u16::try_from(rows.max(1)).unwrap_or(u16::MAX).saturating_add(FRAME)).min(part);
    let [peers, delegations, log] = Layout::vertical([
        Constraint::Length(high(model.peers.len() + 1)),
        Constraint::Length(high(work)),
        Constraint::Min(FRAME),
    ])
    .areas(body);
    draw_peers(frame, peers, model, look);
    draw_work(frame, delegations, model, look);
    draw_log(frame, log, model, look);
    footer(frame, foot, look);
    if look.help {
        help(frame, area);
    }
}

fn header(frame: &mut Frame<'_>, area: Rect, model: &Model, look: &Look) {
    let [first, second, third] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Length(1)]).areas(area);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut top = vec![Span::styled(format!("axon {}", model.who), bold)];
    if let Some(why) = &model.away {
        // What to do stands at its end: it must not be cut.
        let mood = look.style(Mood::Bad).add_modifier(Modifier::BOLD);
        let rest = Rect { height: 2, ..second };
        top.push(Span::styled("  the daemon is away: waiting for it", mood));
        frame.render_widget(Line::from(top), first);
        return frame.render_widget(Paragraph::new(why.as_str()).wrap(Wrap { trim: true }), rest);
    }
    let Some(status) = &model.status else {
        top.push(Span::raw("  …"));
        return frame.render_widget(Line::from(top), first);
    };
    top.push(Span::raw(format!("  up {}", show::span(status.uptime_secs))));
    top.push(Span::raw(format!("  {} connected", status.peers_connected)));
    if !link::tells_all(status) {
        frame.render_widget(Line::from(top), first);
        return frame.render_widget(Line::from("this socket is told no more of the daemon"), second);
    }
    for (count, what, mood) in [
        (status.inbox_unread, "unread", Mood::Warn),
        (status.held, "held", Mood::Warn),
        (status.knocks, "knocking", Mood::Bad),
    ] {
        let style = if count > 0 { look.style(mood) } else { Style::new() };
        if count > 0 || what != "knocking" {
            top.push(Span::styled(format!("  {count} {what}"), style));
        }
    }
    if status.paused {
        top.push(Span::styled("  inbound work is paused", look.style(Mood::Bad)));
    }
    frame.render_widget(Line::from(top), first);

    let rate = |of: Option<f64>| of.map(|rate| format!(" ({rate:.1}/s)")).unwrap_or_default();
    let (out, back) = (model.rates.now.map(|now| now.0), model.rates.now.map(|now| now.1));
    let traffic = format!(
        "sent {}{}  received {}{}  ",
        status.messages_sent,
        rate(out),
        status.messages_received,
        rate(back)
    );
    let wide = u16::try_from(traffic.chars().count()).unwrap_or(u16::MAX);
    let [text, curve] = Layout::horizontal([Constraint::Length(wide), Constraint::Min(0)]).areas(second);
    frame.render_widget(Line::from(traffic), text);
    let room = usize::from(curve.width);
    let curve_of = &model.rates.curve;
    let data: Vec<u64> = curve_of.iter().skip(curve_of.len().saturating_sub(room)).copied().collect();
    frame.render_widget(Sparkline::default().data(&data).style(look.style(Mood::Good)), curve);

    let refused: u64 = turned_away(status);
    let away = if refused > 0 { format!(", {refused} turned away") } else { String::new() };
    let work = format!(
        "{} client{}, {} answering, {} of {} at work, {} waiting{away}",
        status.clients,
        show::plural(status.clients),
        status.answerers,
        status.active_tasks,
        status.capacity,
        status.queued,
    );
    frame.render_widget(Line::from(work), third);
}

fn turned_away(status: &axon_client::Status) -> u64 {
    let dropped = &status.dropped;
    [
        dropped.replayed,
        dropped.wrong_stream,
        dropped.not_authorized,
        dropped.before_hello,
        dropped.malformed,
        dropped.over_limit,
        dropped.not_kept,
        dropped.refused,
        dropped.limited,
    ]
    .iter()
    .sum()
}

fn block<'a>(look: &Look, panel: Panel, title: String) -> Block<'a> {
    let mark = Modifier::BOLD | Modifier::REVERSED;
    let style = if look.panel == panel { Style::new().add_modifier(mark) } else { Style::new() };
    Block::bordered().title(Span::styled(format!(" {title} "), style))
}

/// A row with one cell in a colour.
fn row<'a, const N: usize>(cells: [String; N], marked: usize, style: Style) -> Row<'a> {
    Row::new(cells.into_iter().enumerate().map(|(at, cell)| {
        let cell = Cell::from(cell);
        if at == marked { cell.style(style) } else { cell }
    }))
}

/// Columns as wide as what stands in them, within a bound; the last has the rest.
fn widths<'a>(heads: &[&str], rows: impl Iterator<Item = &'a [String]>) -> Vec<Constraint> {
    let mut wide: Vec<usize> = heads.iter().map(|head| head.len()).collect();
    for cells in rows {
        for (wide, cell) in wide.iter_mut().zip(cells) {
            *wide = (*wide).max(Span::raw(cell.as_str()).width()).min(CELL_COLUMNS_MAX);
        }
    }
    let last = wide.len().saturating_sub(1);
    let column = |(at, wide)| match u16::try_from(wide) {
        Ok(wide) if at < last => Constraint::Length(wide),
        _ => Constraint::Fill(1),
    };
    wide.into_iter().enumerate().map(column).collect()
}

/// How many rows fit into a panel, beside so many others.
fn room(area: Rect, others: u16) -> usize {
    usize::from(area.height.saturating_sub(FRAME + others))
}

fn draw_peers(frame: &mut Frame<'_>, area: Rect, model: &Model, look: &mut Look) {
    let room = room(area, 1);
    let first = look.first(Panel::Peers, model.peers.len(), room);
    let shown: Vec<_> =
        model.peers.iter().skip(first).take(room).map(|peer| peer_cells(peer, model.now_ms)).collect();
    let widths = widths(&PEER_COLUMNS, shown.iter().map(|(cells, _)| cells.as_slice()));
    let rows = shown.into_iter().map(|(cells, mood)| row(cells, 2, look.style(mood)));
    let dim = Style::new().add_modifier(Modifier::DIM);
    let title = format!("1 peers {}", model.peers.len());
    let table = Table::new(rows, widths).header(Row::new(PEER_COLUMNS).style(dim)).block(block(
        look,
        Panel::Peers,
        title,
    ));
    frame.render_widget(table, area);
}

fn draw_work(frame: &mut Frame<'_>, area: Rect, model: &Model, look: &mut Look) {
    let Some(all) = &model.delegations else {
        let text = if model.status.is_some() { "this socket may not see them" } else { "" };
        let block = block(look, Panel::Work, "2 delegations".to_owned());
        return frame.render_widget(Paragraph::new(text).block(block), area);
    };
    let room = room(area, 0);
    let first = look.first(Panel::Work, all.len(), room);
    let shown: Vec<_> =
        all.iter().skip(first).take(room).map(|row| work_cells(row, &model.peers, model.now_ms)).collect();
    let widths = widths(&[""; 5], shown.iter().map(|(cells, _)| cells.as_slice()));
    let rows = shown.into_iter().map(|(cells, mood)| row(cells, 1, look.style(mood)));
    let title = format!("2 delegations {}", all.len());
    frame.render_widget(Table::new(rows, widths).block(block(look, Panel::Work, title)), area);
}

fn draw_log(frame: &mut Frame<'_>, area: Rect, model: &Model, look: &mut Look) {
    let room = room(area, 0);
    let first = look.first(Panel::Log, model.log.len(), room);
    let dim = Style::new().add_modifier(Modifier::DIM);
    let lines: Vec<Line<'_>> = model
        .log
        .iter()
        .skip(first)
        .take(room)
        .map(|line| {
            // Of 2026-11-21T11:30:00Z the time alone.
            let time = when::utc(line.at_ms);
            let time = time.get(11..19).unwrap_or(&time).to_owned();
            let mood = if line.from == "audit" { Mood::Warn } else { Mood::Plain };
            Line::from(vec![
                Span::styled(format!("{time} "), dim),
                Span::styled(format!("{:<5} ", line.from), look.style(mood)),
                Span::raw(line.text.clone()),
            ])
        })
        .collect();
    let behind = model.log.len().saturating_sub(first + room);
    let more = if behind > 0 { format!(", {behind} newer below") } else { String::new() };
    let title = format!("3 log, UTC{more}");
    frame.render_widget(Paragraph::new(lines).block(block(look, Panel::Log, title)), area);
}

fn footer(frame: &mut Frame<'_>, area: Rect, look: &Look) {
    let mark = Style::new().add_modifier(Modifier::REVERSED);
    let mut spans = Vec::new();
    if look.paused {
        spans.push(Span::styled(" the picture stands still: p goes on ", mark));
        spans.push(Span::raw(" "));
    }
    spans.push(Span::raw("q leave  Tab panel  ↑↓ move  p pause  ? help"));
    frame.render_widget(Line::from(spans), area);
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'_>> =
        HELP.iter().map(|(key, what)| Line::from(format!("{key:<22} {what}"))).collect();
    let wide = lines.iter().map(Line::width).max().unwrap_or(0) + 4;
    let wide = u16::try_from(wide).unwrap_or(u16::MAX).min(area.width);
    let high = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(FRAME).min(area.height);
    let [row] = Layout::vertical([Constraint::Length(high)]).flex(Flex::Center).areas(area);
    let [place] = Layout::horizontal([Constraint::Length(wide)]).flex(Flex::Center).areas(row);
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(" keys: any closes this ");
    frame.render_widget(Paragraph::new(lines).block(block), place);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::{LogLine, Update};
    use super::*;

    fn model() -> Model {
        let mut model = Model { now_ms: 60_000, ..Model::default() };
        model.take(Update::Up("alice 21fe31df".into()));
        let status = r#"{"uptime_secs":61,"peers_connected":1,"messages_sent":5,"messages_received":7,
            "inbox_unread":3,"held":2,"clients":1,"dropped":{"refused":4}}"#;
        let status: axon_client::Status = serde_json::from_str(status).unwrap();
        model.take(Update::Status(Box::new(status.clone()), 1_000));
        let more = status;
        model.take(Update::Status(Box::new(more), 2_000));
        let peer = |n: usize| {
            let text = format!(
                r#"{{"id":"ed25519.{n:08}","name":"bob{n}","trust":"known","status":"connected","source":"mdns",
                    "addr":"192.0.2.7:7100","rtt_ms":0.42,"since_ms":0,"held":1}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        model.take(Update::Peers((0..12).map(peer).collect()));
        let row = r#"{"id":"5f2c1e9a-6d0b","peer":"ed25519.00000003","direction":"out","task":"Write it",
            "state":"running","since_ms":0}"#;
        model.take(Update::Delegations(Some(vec![serde_json::from_str(row).unwrap()])));
        for n in 0..40 {
            let text = format!("line {n}");
            model.take(Update::Log(LogLine { at_ms: n * 1_000, from: "inbox", text }));
        }
        model
    }

    /// The picture, line by line.
    fn seen(model: &Model, look: &mut Look, (wide, high): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(wide, high)).unwrap();
        terminal.draw(|frame| draw(frame, model, look)).unwrap();
        let cells = terminal.backend().buffer().content();
        let rows = cells.chunks(usize::from(wide)).map(|row| row.iter().map(|cell| cell.symbol()).collect());
        let rows: Vec<String> = rows.collect();
        rows.join("\n")
    }

    #[test]
    fn a_terminal_of_80_by_24_shows_all_of_it() {
        let shown = seen(&model(), &mut Look::new(false), (80, 24));
        for said in [
            "axon alice 21fe31df  up 1 min 1 s  1 connected  3 unread  2 held",
            "sent 5 (0.0/s)  received 7 (0.0/s)",
            "1 client, 0 answering, 0 of 0 at work, 0 waiting, 4 turned away",
            "1 peers 12",
            "bob0",
            "known connected 0.4 ms 1 held  192.0.2.7:7100, direct, for 1 min",
            "2 delegations 1",
            "5f2c1e9a running to bob3 1 min Write it",
            "Write it",
            "3 log, UTC",
            "00:00:39 inbox line 39",
            "q leave  Tab panel",
        ] {
            assert!(shown.contains(said), "{said}\n{shown}");
        }
        assert_eq!(shown.lines().count(), 24);
        assert!(!shown.contains("line 3 ") && !shown.contains("bob9"), "{shown}");
    }

    #[test]
    fn keys_move_in_one_panel_and_stop_at_its_ends() {
        let (model, mut look, size) = (model(), Look::new(true), (80, 24));
        seen(&model, &mut look, size);
        look.step(3);
        let shown = seen(&model, &mut look, size);
        assert!(shown.contains("bob3 ") && !shown.contains("bob0 "), "{shown}");
        look.step(100);
        seen(&model, &mut look, size);
        look.step(-1);
        let shown = seen(&model, &mut look, size);
        assert!(!shown.contains("bob9 "), "it goes back from the end at once: {shown}");
        look.turn(true);
        assert_eq!(look.panel, Panel::Log);
        look.step(-look.page());
        let shown = seen(&model, &mut look, size);
        assert!(shown.contains("newer below") && !shown.contains("line 39"), "{shown}");
        look.jump(false);
        assert!(seen(&model, &mut look, size).contains("line 0 "));
        look.jump(true);
        assert!(seen(&model, &mut look, size).contains("line 39"));
        look.turn(false);
        assert_eq!(look.panel, Panel::Peers);
        look.jump(true);
        assert!(seen(&model, &mut look, size).contains("bob9 "));
    }

    #[test]
    fn every_size_can_be_drawn_and_a_small_one_says_so() {
        let model = model();
        for look in [&mut Look::new(false), &mut Look { help: true, paused: true, ..Look::new(true) }] {
            for size in [(1, 1), (39, 24), (80, 9), (40, 10), (41, 11), (300, 100), (80, 24)] {
                let shown = seen(&model, look, size);
                assert_eq!(shown.lines().count(), usize::from(size.1));
            }
        }
        assert!(seen(&model, &mut Look::new(false), (39, 24)).contains("needs 40 columns"));
        let mut look = Look { help: true, paused: true, ..Look::new(false) };
        let shown = seen(&model, &mut look, (80, 24));
        assert!(shown.contains("stop the picture") && shown.contains("stands still"), "{shown}");
        let empty = seen(&Model::default(), &mut Look::new(false), (80, 24));
        assert!(empty.contains("1 peers 0"), "{empty}");
    }

    #[test]
    fn a_daemon_that_is_away_is_told_of_with_what_to_do() {
        let mut model = model();
        model.take(Update::Away("no daemon runs: start one with `axon daemon`".into()));
        model.take(Update::Delegations(None));
        let shown = seen(&model, &mut Look::new(false), (80, 24));
        assert!(shown.contains("start one with `axon daemon`"), "{shown}");
        assert!(shown.contains("may not see them") && !shown.contains("up 1 min"), "{shown}");
        assert!(shown.contains("bob0"), "what was known stays: {shown}");
    }
}
