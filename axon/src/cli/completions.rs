//! `axon completions`: a script that completes `axon` in a shell.
//!
//! The scripts are made from the definition of the command line. What it cannot know, the names of peers, a
//! shell asks the running daemon for when it needs them (`--peers`), and gets nothing where none runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axon_client::Peer;
use clap::{Arg, Command, CommandFactory as _};

use super::output::{CliError, CliResult, EXIT_DONE, Out};
use super::{Context, Globals, link};

/// How long a shell waits for names of peers.
const PATIENCE: Duration = Duration::from_secs(1);
/// What the definition calls an argument that names a peer.
const PEER: &str = "peer";

/// Print a script that completes `axon` in your shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  source <(axon completions bash)")]
pub struct Args {
    /// The shell
    #[arg(value_enum, required_unless_present = "peers")]
    shell: Option<Shell>,
    /// Print what may stand where a peer is to be named, as the scripts ask for it
    #[arg(long, hide = true, conflicts_with = "shell")]
    peers: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(out: &Out, globals: Globals, args: &Args) -> CliResult {
    match args.shell {
        Some(shell) => out.raw(&script(shell))?,
        None => {
            // Whoever completes a word does not want to hear why it cannot be completed.
            let asked = Context::of_socket(*out, globals).and_then(|cx| super::drive_for(peers(&cx)));
            out.raw(&asked.unwrap_or_default())?;
        }
    }
    Ok(EXIT_DONE)
}

/// A line for each peer: what it is called here, else its id.
async fn peers(cx: &Context) -> Result<String, CliError> {
    let all = async {
        let client = cx.connect(link::CONSUMER).await?;
        client.peers().await.map_err(|error| cx.failure(error))
    };
    let late = |_| CliError::local("timeout", "the daemon takes too long");
    let peers = tokio::time::timeout(PATIENCE, all).await.map_err(late)??;
    Ok(words(peers))
}

fn words(peers: Vec<Peer>) -> String {
    let lines = peers.into_iter().map(|peer| {
        // What a peer calls itself is not put onto anybody's command line, and no shell may find more in a
        // name than a name: bash expands the words that it is given.
        let name = peer.name.filter(|name| !peer.claimed && is_plain(name));
        // The socket may be another user's, who says there what he likes.
        let word = name.unwrap_or(peer.id);
        if is_plain(&word) { format!("{word}\n") } else { String::new() }
    });
    lines.collect()
}

fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && !name.starts_with('-') && name.chars().all(plain)
}

fn script(shell: Shell) -> String {
    let mut axon = super::Cli::command();
    let places = Places::of(&axon);
    let generator = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut axon, "axon", &mut script);
    let script = String::from_utf8_lossy(&script);
    match shell {
        Shell::Bash => bash(&script, &places),
        Shell::Zsh => zsh(&script),
        Shell::Fish => format!("{script}\n{}", fish(&places)),
    }
}

/// Where a peer is named.
#[derive(Debug, Default)]
struct Places {
    /// Verbs whose first argument is one, such as `send` or `policy check`.
    verbs: BTreeSet<String>,
    /// Options that take one, each with the verbs that have it.
    options: BTreeMap<String, BTreeSet<String>>,
    /// Options that take a value, whatever it is.
    valued: BTreeSet<String>,
    /// Verbs that have verbs of their own.
    nested: BTreeSet<String>,
}

impl Places {
    fn of(axon: &Command) -> Self {
        let mut places = Self::default();
        places.look(axon, "");
        places
    }

    fn look(&mut self, command: &Command, path: &str) {
        for arg in command.get_arguments() {
            let names = names(arg);
            if is_peer(arg) && arg.is_positional() {
                self.verbs.insert(path.to_owned());
            }
            for name in names.iter().filter(|_| is_peer(arg)) {
                self.options.entry(name.clone()).or_default().insert(path.to_owned());
            }
            if arg.get_action().takes_values() {
                self.valued.extend(names);
            }
        }
        if command.has_subcommands() && !path.is_empty() {
            self.nested.insert(path.to_owned());
        }
        for verb in command.get_subcommands() {
            self.look(verb, format!("{path} {}", verb.get_name()).trim());
        }
    }
}

fn is_peer(arg: &Arg) -> bool {
    let called = |name: &str| name.eq_ignore_ascii_case(PEER);
    called(arg.get_id().as_str())
        || arg.get_value_names().is_some_and(|names| names.iter().any(|n| called(n)))
}

fn names(arg: &Arg) -> Vec<String> {
    let long = arg.get_long().map(|long| format!("--{long}"));
    long.into_iter().chain(arg.get_short().map(|short| format!("-{short}"))).collect()
}

/// These words as one pattern of a shell's `case`.
fn pattern<'a>(words: impl Iterator<Item = &'a String>) -> String {
    let quoted: Vec<String> = words.map(|word| format!("'{word}'")).collect();
    quoted.join("|")
}

fn bash(script: &str, places: &Places) -> String {
    let more = BASH
        .replace("@VALUED@", &pattern(places.valued.iter()))
        .replace("@NESTED@", &pattern(places.nested.iter()))
        .replace("@OPTIONS@", &pattern(places.options.keys()))
        .replace("@VERBS@", &pattern(places.verbs.iter()));
    let script = script.replace("complete -F _axon ", "complete -F _axon_or_peers ");
    // Before the lines at the end, which hand the function to the shell.
    match script.rfind("\nif [[ ") {
        Some(at) => format!("{}\n{more}{}", &script[..at], &script[at..]),
        None => script,
    }
}

const BASH: &str = r#"_axon_or_peers() {
    _axon "$@"
    local at word path='' given=0 option='' flags=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${COMP_WORDS[at]}
        [[ $word == = ]] && continue
        if [[ -n $option ]]; then
            case $option in --root | --name | --socket) flags+=("$option" "$word") ;; esac
            option=''
            continue
        fi
        case $word in
            @VALUED@) option=$word ;;
            -*) ;;
            *)
                case $path in
                    '') path=$word ;;
                    @NESTED@) path="$path $word" ;;
                    *) given=$((given + 1)) ;;
                esac
                ;;
        esac
    done
    local cur=${COMP_WORDS[COMP_CWORD]}
    [[ $cur == = ]] && cur=''
    case $option in
        @OPTIONS@) COMPREPLY=() ;;
        '')
            [[ $given == 0 && $cur != -* ]] || return 0
            case $path in @VERBS@) ;; *) return 0 ;; esac
            [[ -n $cur ]] || COMPREPLY=()
            ;;
        *) return 0 ;;
    esac
    COMPREPLY+=($(compgen -W "$(axon "${flags[@]}" completions --peers 2>/dev/null)" -- "$cur"))
}
"#;

fn zsh(script: &str) -> String {
    let lines = script.lines().map(|line| {
        let of_peer = line.starts_with("':peer -- ") || line.contains(":PEER:_default'");
        if of_peer { line.replace(":_default'", ":_axon_peers'") } else { line.to_owned() }
    });
    let script: Vec<String> = lines.collect();
    // The first line tells zsh what the file is for.
    let (first, rest) = script.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    format!("{first}\n\n{ZSH}{}\n", rest.join("\n"))
}

const ZSH: &str = r#"_axon_peers() {
    local -a flags peers
    local at
    # Inside of a verb, words are those of the verb: the flags before it stand in the line alone.
    local -a line=(${(z)BUFFER})
    for ((at = 1; at < $#line; at++)); do
        case $line[at] in --root|--name|--socket) flags+=($line[at] ${(Q)line[at+1]}) ;; esac
    done
    peers=(${(f)"$(axon $flags completions --peers 2>/dev/null)"})
    compadd -a peers
}
"#;

fn fish(places: &Places) -> String {
    let verbs = places.verbs.iter().map(|verb| {
        // The words before the peer.
        let words = verb.split(' ').count();
        let first = verb.split(' ').next().unwrap_or_default();
        let second = match verb.split_once(' ') {
            Some((_, second)) => format!("; and contains -- {second} (commandline -opc)"),
            None => String::new(),
        };
        format!(
            "complete -c axon -n \"__fish_axon_using_subcommand {first}{second}; and __axon_words {words}\" \
             -f -a \"(__axon_peers)\"\n"
        )
    });
    let options = places.options.iter().filter_map(|(option, verbs)| {
        let option = option.strip_prefix("--")?;
        let verbs = verbs.iter().filter_map(|verb| verb.split(' ').next()).collect::<Vec<_>>().join(" ");
        Some(format!(
            "complete -c axon -n \"__fish_axon_using_subcommand {verbs}\" -l {option} -r -f \
             -a \"(__axon_peers)\"\n"
        ))
    });
    let valued: Vec<&str> = places.valued.iter().map(String::as_str).collect();
    let head = FISH.replace("@VALUED@", &valued.join(" "));
    std::iter::once(head).chain(verbs).chain(options).collect()
}

const FISH: &str = r"function __axon_peers
    set -l flags
    set -l words (commandline -opc)
    for at in (seq 2 (math (count $words) - 1))
        if contains -- $words[$at] --root --name --socket
            set -a flags $words[$at] $words[(math $at + 1)]
        end
    end
    axon $flags completions --peers 2>/dev/null
end

# Whether so many words stand there that are no options and no values of options.
function __axon_words
    set -l count 0
    set -l value 0
    for word in (commandline -opc)[2..]
        if test $value = 1
            set value 0
        else if contains -- $word @VALUED@
            set value 1
        else if not string match -q -- '-*' $word
            set count (math $count + 1)
        end
    end
    test $value = 0; and test $count = $argv[1]
end

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_every_verb() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for verb in ["delegate", "completions", "doctor", "instances", "service"] {
                assert!(script.contains(verb), "{shell:?}: {verb}");
            }
            assert!(script.contains("axon") && script.contains("completions --peers"), "{shell:?}");
            assert!(!script.contains('@') || !script.contains("@V"), "{shell:?}");
        }
    }

    #[test]
    fn places_of_peers_come_from_the_definition() {
        let places = Places::of(&super::super::Cli::command());
        for verb in ["send", "delegate", "notify", "ping", "discover", "trust", "forget", "policy check"] {
            assert!(places.verbs.contains(verb), "{verb}: {places:?}");
        }
        assert!(!places.verbs.contains("peers") && !places.verbs.contains("connect"), "{places:?}");
        assert!(places.options.contains_key("--peer"), "{places:?}");
        let zsh = script(Shell::Zsh);
        let told = zsh.lines().filter(|line| line.contains(":_axon_peers'")).count();
        assert!(told >= places.verbs.len() + places.options.len(), "{told}: {places:?}");
        assert!(zsh.starts_with("#compdef axon\n"));
    }

    #[test]
    fn no_shell_finds_more_in_a_name_than_a_name() {
        assert!(is_plain("anna.work-2_b"));
        for name in ["", "-x", "a b", "$(x)", "`x`", "a;b", "é", "a\nb"] {
            assert!(!is_plain(name), "{name}");
        }
        let peer = |id: &str, name: &str| {
            let row = serde_json::json!({"id": id, "name": name, "status": "connected", "source": "static"});
            serde_json::from_value::<Peer>(row).unwrap()
        };
        let peers = vec![peer("ed25519.1", "ann"), peer("ed25519.2", "$(x)"), peer("$(touch x)", "`x`")];
        assert_eq!(words(peers), "ann\ned25519.2\n");
    }
}
