//! `axon mcp`: agents that speak the Model Context Protocol (`modelcontextprotocol.io`) talk through axon.
//!
//! A server over standard input and output or streamable HTTP, by the official SDK. `hub` keeps to the
//! daemon and is shared by all sessions; `server` is one session; `calls` are the tools and `resources`
//! what can be read and watched. `desk` remembers what the model has been shown, and `words` marks what
//! peers say as theirs. `pace` and `sessions` keep a client within bounds.

mod calls;
mod desk;
mod http;
pub mod hub;
mod pace;
mod resources;
pub mod server;
mod sessions;
mod words;

use std::io;
use std::sync::Arc;

use rmcp::ServiceExt as _;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::stdio;
use tokio::net::TcpListener;

pub use http::PATH;
use hub::Hub;
use pace::Paced;
use server::Server;

/// Serves one client on standard input and output, until it closes them.
pub async fn serve_stdio(hub: Arc<Hub>) -> io::Result<()> {
    let (read, write) = stdio();
    let transport = Paced::new(AsyncRwTransport::new_server(read, write));
    let session = Server::on_stdio(hub).serve(transport).await;
    // A client that goes away before it has said anything is no fault.
    let Ok(session) = session else { return Ok(()) };
    session.waiting().await.map(drop).map_err(io::Error::other)
}

/// Serves clients that show this token over HTTP.
pub async fn serve_http(hub: Arc<Hub>, listener: TcpListener, token: String) -> io::Result<()> {
    http::serve(hub, listener, token).await
}
