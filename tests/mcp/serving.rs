//! `axon mcp --http` beside a test.

use std::fs;

use crate::support::Daemon;
use crate::support::cli::Running;

/// A running `axon mcp --http`. It is ended when dropped.
pub struct Served {
    /// The program.
    pub running: Running,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// What clients show.
    pub token: String,
}

impl Served {
    /// `axon mcp --http` of this daemon, on a free port.
    pub fn start(daemon: &Daemon, args: &[&str]) -> Self {
        let mut running = daemon.spawn(&[&["mcp", "--http", "127.0.0.1:0"], args].concat());
        let url = running.line()["url"].as_str().unwrap().to_owned();
        let port = url.strip_prefix("http://127.0.0.1:").unwrap().strip_suffix("/mcp").unwrap();
        let port = port.parse().unwrap();
        let token = fs::read_to_string(daemon.root().join("mcp-token")).unwrap().trim().to_owned();
        Self { running, port, token }
    }
}
