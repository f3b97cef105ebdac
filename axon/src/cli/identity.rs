//! `axon identity`: who this agent is, in the forms that another machine wants. Makes the identity if there
//! is none.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use axon_client::{Client, Hello};
use serde::Serialize;

use super::link;
use super::output::{CliError, CliResult, EXIT_DONE, Out, Paint};
use crate::disk::{Config, Identity, KeyError, Root};
pub use crate::host::name as host_name;

/// How long a daemon may take to say where it listens.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Shown {
    agent_id: String,
    public_key: String,
    uri: String,
}

/// Prints the identity of this root.
pub fn run(out: &Out, root: &Root) -> CliResult {
    root.open().map_err(|error| CliError::local("io", error.to_string()))?;
    let (identity, made) = Identity::load_or_create(root).map_err(key_error)?;
    if made {
        out.note(|| format!("made a new identity in {}", root.dir().display()));
    }
    if let Err(error) = super::instances::choose_port(root) {
        out.note(|| format!("no port is chosen yet: {error}"));
    }
    // The identity does not depend on the settings; only the address that is shown does.
    let mut config = Config::load(&root.config()).unwrap_or_else(|error| {
        out.note(|| format!("{error}; the address below is a guess"));
        Config::default()
    });
    if let Some(addr) = running_at(root) {
        // The daemon that runs knows better than its settings, which a flag may have overruled.
        (config.bind, config.port) = (Some(addr.ip()), addr.port());
    }
    let addr = address(&config);
    let shown = Shown {
        agent_id: identity.id.to_string(),
        public_key: identity.public.to_string(),
        uri: format!("axon://{}@{addr}", identity.public.to_base64url()),
    };
    out.result(&shown, || human(out, &shown, &addr, &config))?;
    Ok(EXIT_DONE)
}

/// Where the daemon of this root listens, if one runs.
fn running_at(root: &Root) -> Option<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let asked = async {
        let client = Client::connect(root.socket(), Hello::consumer(link::CONSUMER)).await.ok()?;
        client.whoami().await.ok()?.listen.first()?.parse().ok()
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await.ok().flatten() })
}

/// What a failed look at the key files means for a verb.
pub fn key_error(error: KeyError) -> CliError {
    let code = match error {
        KeyError::None(..) => "not_found",
        KeyError::Lost(..) | KeyError::Damaged(..) => "damaged",
        KeyError::Disk(_) => "io",
    };
    CliError::local(code, error.to_string())
}

/// Where others may reach this agent, as far as this machine knows: its host name, unless one address is
/// bound.
fn address(config: &Config) -> String {
    match config.bind.filter(|addr| !addr.is_unspecified()) {
        Some(addr) => std::net::SocketAddr::new(addr, config.port).to_string(),
        None => format!("{}:{}", host_name(), config.port),
    }
}

fn human(out: &Out, shown: &Shown, addr: &str, config: &Config) -> String {
    let mut text = String::new();
    for (label, value) in
        [("agent id  ", &shown.agent_id), ("public key", &shown.public_key), ("uri       ", &shown.uri)]
    {
        // Writing to a text cannot fail.
        writeln!(text, "{}  {value}", out.paint(Paint::Bold, label)).ok();
    }
    let run = "On the other machine, after which this one must connect to it too, or approve its knock:";
    writeln!(text, "\n{}\n\naxon connect {}", out.paint(Paint::Dim, run), shown.uri).ok();
    let invite = "`axon invite` makes a link that pairs both at once.";
    writeln!(text, "\n{}", out.paint(Paint::Dim, invite)).ok();
    let note = "Or by hand, for the other machine's config.toml:";
    write!(
        text,
        "\n{}\n\n[[peers]]\nagent_id = \"{}\"\naddr = \"{addr}\"\npubkey = \"{}\"",
        out.paint(Paint::Dim, note),
        shown.agent_id,
        shown.public_key
    )
    .ok();
    if let Some(name) = config.name.as_deref().filter(|name| !crate::disk::config::looks_like_id(name)) {
        write!(text, "\nname = {}", toml_edit::Value::from(name)).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_block_to_paste_is_a_peer() {
        let identity = Identity::from_seed([3; 32]).unwrap();
        let config = Config {
            name: Some("ann \"a\"".to_owned()),
            bind: Some("::1".parse().unwrap()),
            ..Config::default()
        };
        let addr = address(&config);
        assert_eq!(addr, "[::1]:7100");
        let out = Out { json: false, quiet: false, verbose: 0, color: false };
        let shown = Shown {
            agent_id: identity.id.to_string(),
            public_key: identity.public.to_string(),
            uri: "axon://KEY@host:1".to_owned(),
        };
        let text = human(&out, &shown, &addr, &config);
        assert!(
            text.contains("\naxon connect axon://KEY@host:1\n") && text.contains("axon invite"),
            "{text}"
        );
        let (_, block) = text.split_once("[[peers]]").unwrap();
        let read = Config::parse(&format!("[[peers]]{block}"), Path::new("config.toml")).unwrap();
        assert_eq!(read.peers[0].agent_id, identity.id);
        assert_eq!(read.peers[0].name.as_deref(), Some("ann \"a\""));
        assert!(!host_name().is_empty());
    }
}
