//! The command line of the floors and of the benchmark.

use std::path::PathBuf;
use std::time::Duration;

use super::place::Regime;

/// What to measure, and how.
pub struct Args {
    /// Parts to run; none is all.
    parts: Vec<String>,
    pub regimes: Vec<Regime>,
    pub rounds: usize,
    pub size: usize,
    pub short: bool,
    pub json: bool,
    /// The axon to measure; none is the one beside the benchmark.
    pub program: Option<PathBuf>,
}

impl Args {
    /// Reads the command line; explains itself and ends where it is wrong. `known` are the parts there are.
    pub fn read(name: &str, known: &[(&str, &str)]) -> Self {
        let mut args = Self {
            parts: vec![],
            regimes: vec![],
            rounds: 0,
            size: 256,
            short: false,
            json: false,
            program: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--short" => args.short = true,
                "--json" => args.json = true,
                "--regime" => match words.next().as_deref() {
                    Some("spread") => args.regimes.push(Regime::Spread),
                    Some("pinned") => args.regimes.push(Regime::Pinned),
                    Some("both") => args.regimes.extend([Regime::Spread, Regime::Pinned]),
                    _ => explain(name, known, "--regime is spread, pinned or both"),
                },
                "--rounds" => args.rounds = number(words.next(), 1, 1_000, name, known, "--rounds"),
                "--size" => args.size = number(words.next(), 64, 32_768, name, known, "--size"),
                "--program" if name == "bench" => match words.next() {
                    Some(path) => args.program = Some(path.into()),
                    None => explain(name, known, "--program is the path of an axon"),
                },
                "--help" | "-h" => explain(name, known, ""),
                part if known.iter().any(|(known, _)| *known == part) => args.parts.push(word),
                other => explain(name, known, &format!("there is no part or option `{other}`")),
            }
        }
        if args.regimes.is_empty() {
            args.regimes = vec![Regime::Spread, Regime::Pinned];
        }
        if args.rounds == 0 {
            args.rounds = if args.short { 1 } else { 5 };
        }
        args
    }

    pub fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }

    /// How long one figure is measured in one round.
    pub fn time(&self) -> Duration {
        Duration::from_millis(if self.short { 100 } else { 600 })
    }
}

fn number(
    word: Option<String>,
    least: usize,
    most: usize,
    name: &str,
    known: &[(&str, &str)],
    option: &str,
) -> usize {
    let given = word.and_then(|word| word.parse().ok()).filter(|given| (least..=most).contains(given));
    given.unwrap_or_else(|| explain(name, known, &format!("{option} is a number from {least} to {most}")))
}

fn explain(name: &str, known: &[(&str, &str)], why: &str) -> ! {
    if !why.is_empty() {
        println!("{why}\n");
    }
    println!(
        "{name} [PART…] [--regime spread|pinned|both] [--rounds N] [--size BYTES] [--short] [--json]{}\n\n\
         Without a part, all of them:\n",
        if name == "bench" { " [--program PATH]" } else { "" }
    );
    for (part, what) in known {
        println!("  {part:18} {what}");
    }
    std::process::exit(if why.is_empty() { 0 } else { 2 });
}
