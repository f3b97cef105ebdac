//! `axon instances`: the agents of this user under the default root, and the port that a new one gets.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde_json::json;

use super::output::{CliError, CliResult, EXIT_DONE, Out, Paint};
use crate::disk::root::is_instance_name;
use crate::disk::{Config, Root, edit, keys, lock};

/// The first port that an instance may get; the one before it is the default root's.
const INSTANCE_PORT_FIRST: u16 = 7101;
/// The last one that is tried.
const INSTANCE_PORT_LAST: u16 = 8100;

#[derive(Serialize)]
struct Row {
    /// None for the default root.
    name: Option<String>,
    root: String,
    agent_id: Option<String>,
    /// None before a named instance's first start.
    port: Option<u16>,
    running: bool,
    pid: Option<u32>,
}

/// Lists the default root and every instance beneath it.
pub fn run(out: &Out) -> CliResult {
    let rows: Vec<Row> = roots()?.iter().map(row).collect();
    out.result(&json!({"ok": true, "instances": rows}), || human(out, &rows))?;
    Ok(EXIT_DONE)
}

/// Gives a named instance without a port the first free one, and saves it in its config. None: nothing to
/// choose.
///
/// Ports that other instances have in their configs are not free, even while those do not run.
pub fn choose_port(root: &Root) -> Result<Option<u16>, CliError> {
    if root.instance().is_none() {
        return Ok(None);
    }
    let broken = |error: crate::disk::ConfigError| CliError::local("invalid_config", error.to_string());
    if Config::load(&root.config()).map_err(broken)?.port_is_set {
        return Ok(None);
    }
    // Two instances that start for the first time at once choose one after the other.
    let home = Root::default_root().map_err(|error| CliError::usage(error.to_string()))?;
    let turn = File::open(home.instances_dir()).and_then(|dir| dir.lock().map(|()| dir));
    let _turn = turn.map_err(|error| {
        CliError::local("io", format!("cannot lock {}: {error}", home.instances_dir().display()))
    })?;
    let config = Config::load(&root.config()).map_err(broken)?;
    if config.port_is_set {
        return Ok(None);
    }
    let others = roots()?.into_iter().filter(|other| other.dir() != root.dir());
    let taken: BTreeSet<u16> =
        others.filter_map(|other| Some(Config::load(&other.config()).ok()?.port)).collect();
    let free = |port: &u16| !taken.contains(port) && port_is_free(&config, *port).is_ok();
    let port = (INSTANCE_PORT_FIRST..=INSTANCE_PORT_LAST).find(free).ok_or_else(|| {
        let range = format!("{INSTANCE_PORT_FIRST} to {INSTANCE_PORT_LAST}");
        CliError::local(
            "io",
            format!("no UDP port from {range} is free: choose one with `axon config port N`"),
        )
    })?;
    edit::set(&root.config(), "port", &port.to_string()).map_err(super::config::edit_error)?;
    Ok(Some(port))
}

/// Whether a daemon with these settings could have this port now.
pub fn port_is_free(config: &Config, port: u16) -> io::Result<()> {
    let mut last = None;
    let mut bound = false;
    for addr in config.bind_addrs(port) {
        match UdpSocket::bind(addr) {
            Ok(_) => bound = true,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    // One family is enough where the system has only one.
    match last {
        Some(error) if !bound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a daemon answers on this root's socket.
pub fn is_running(root: &Root) -> bool {
    UnixStream::connect(root.socket()).is_ok()
}

/// The default root and its instances, in the order of their names.
fn roots() -> Result<Vec<Root>, CliError> {
    let usage = |error: crate::disk::root::RootError| CliError::usage(error.to_string());
    let home = Root::default_root().map_err(usage)?;
    let mut names: Vec<String> = match fs::read_dir(home.instances_dir()) {
        Ok(entries) => entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Err(CliError::local(
                "io",
                format!("cannot read {}: {error}", home.instances_dir().display()),
            ));
        }
    };
    names.retain(|name| is_instance_name(name));
    names.sort();
    let mut roots = Vec::new();
    if home.dir().is_dir() {
        roots.push(home);
    }
    for name in names {
        roots.push(Root::resolve(None, Some(&name)).map_err(usage)?);
    }
    Ok(roots)
}

fn row(root: &Root) -> Row {
    let config = Config::load(&root.config()).ok();
    let port =
        config.filter(|config| config.port_is_set || root.instance().is_none()).map(|config| config.port);
    let running = is_running(root);
    Row {
        name: root.instance().map(str::to_owned),
        root: root.dir().display().to_string(),
        agent_id: keys::read_public(root).map(|key| key.agent_id().to_string()),
        port,
        running,
        pid: lock::pid(root).filter(|_| running),
    }
}

fn human(out: &Out, rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no instance yet: `axon daemon` or `axon --name NAME daemon` makes one".to_owned();
    }
    let name = |row: &Row| row.name.clone().unwrap_or_else(|| "(default)".to_owned());
    let width = rows.iter().map(|row| name(row).len()).max().unwrap_or_default();
    let lines = rows.iter().map(|row| {
        let state = match (row.running, row.pid) {
            (true, Some(pid)) => out.paint(Paint::Good, &format!("running (pid {pid})")),
            (true, None) => out.paint(Paint::Good, "running"),
            (false, _) => out.paint(Paint::Dim, "stopped"),
        };
        let port = row.port.map_or_else(|| "-".to_owned(), |port| port.to_string());
        let id = row.agent_id.as_deref().unwrap_or("no identity yet");
        format!("{:<width$}  {port:>5}  {id}  {state}  {}", name(row), row.root)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_seen_whatever_its_family() {
        let config = Config::default();
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            // A system without one of the families has nothing to test for it.
            let Ok(socket) = UdpSocket::bind(addr) else { continue };
            let port = socket.local_addr().unwrap().port();
            let own = Config { bind: Some(socket.local_addr().unwrap().ip()), ..Config::default() };
            assert!(port_is_free(&own, port).is_err(), "{addr}");
            if addr.starts_with('1') {
                assert!(port_is_free(&config, port).is_err(), "{addr}");
            }
            drop(socket);
            assert!(port_is_free(&own, port).is_ok(), "{addr}");
        }
    }
}
