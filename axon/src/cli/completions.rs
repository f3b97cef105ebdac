//! `axon completions`: a script that completes `axon` in a shell.

use clap::CommandFactory as _;

use super::output::{CliResult, EXIT_DONE, Out};

/// Print a script that completes `axon` in your shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  source <(axon completions bash)")]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(out: &Out, args: &Args) -> CliResult {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::Cli::command(), "axon", &mut script);
    out.raw(&String::from_utf8_lossy(&script))?;
    Ok(EXIT_DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_every_verb() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut super::super::Cli::command(), "axon", &mut script);
            let script = String::from_utf8(script).unwrap();
            for verb in ["delegate", "completions", "doctor", "instances"] {
                assert!(script.contains(verb), "{shell}: {verb}");
            }
        }
    }
}
