//! A text as a QR code of half blocks, two modules a character, for a camera before the terminal.

use std::io;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use super::output::Out;

/// Black on white, whatever colours the terminal has.
const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
const PLAIN: &str = "\x1b[0m";

/// The code, or none where it is wider than the terminal, or the text too long for one.
///
/// Without colours the light modules are drawn, as it must be where the ground is dark.
pub fn code(out: &Out, text: &str) -> Option<String> {
    // A screen is not soiled: the lowest level of correction makes the smallest code.
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let (dark, light) =
        if out.color { (Dense1x2::Dark, Dense1x2::Light) } else { (Dense1x2::Light, Dense1x2::Dark) };
    let drawn = code.render::<Dense1x2>().dark_color(dark).light_color(light).build();
    let columns = drawn.lines().next().map_or(0, |line| line.chars().count());
    if terminal_columns().is_some_and(|room| room < columns) {
        return None;
    }
    if !out.color {
        return Some(drawn);
    }
    let lines: Vec<String> = drawn.lines().map(|line| format!("{BLACK_ON_WHITE}{line}{PLAIN}")).collect();
    Some(lines.join("\n"))
}

/// How wide the terminal on stdout is, where there is one that says so.
fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_becomes_a_code_that_fits_on_a_screen() {
        let link = format!("axon://{}@some-machine.example.org:7100?k={}", "k".repeat(43), "s".repeat(22));
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let plain = code(&out, &link).unwrap();
        let (rows, columns) = (plain.lines().count(), plain.lines().next().unwrap().chars().count());
        assert!(rows <= 30 && columns <= 60 && columns.div_ceil(2) == rows, "{rows} × {columns}");
        assert!(plain.chars().all(|c| " ▀▄█\n".contains(c)));
        // The quiet zone is light.
        assert!(plain.starts_with('█'));
        let coloured = code(&Out { color: true, ..out }, &link).unwrap();
        assert!(coloured.lines().all(|line| line.starts_with(BLACK_ON_WHITE) && line.ends_with(PLAIN)));
        assert!(code(&out, &"x".repeat(5_000)).is_none());
    }
}
