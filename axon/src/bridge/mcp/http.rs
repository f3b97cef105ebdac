//! The same over streamable HTTP, for clients that cannot start a process.
//!
//! Plain HTTP, so on loopback only. Whoever shows the token is the client; which host was asked for, and from
//! which page, is checked as well, so that no web page can speak for its visitor.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::model::ProtocolVersion;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde::de::IgnoredAny;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::hub::Hub;
use super::server::Server;
use super::sessions::{SESSIONS_MAX, Sessions};

/// Where it is.
pub const PATH: &str = "/mcp";
/// Connections at once: of each session one that listens, and others that ask.
const CONNECTIONS_MAX: usize = 256;
/// Requests at once that belong to no session.
const SINGLE_MAX: usize = 64;
/// A request's body: a tool call with the longest payload, and room.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// A request's head has to come within this.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// And its body within this.
const BODY_WITHIN: Duration = Duration::from_secs(10);

const HEADER_SESSION: &str = "mcp-session-id";
const HEADER_VERSION: &str = "mcp-protocol-version";

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// Serves on this listener until its task ends.
pub async fn serve(hub: Arc<Hub>, listener: TcpListener, token: String) -> io::Result<()> {
    let services = Services::new(&hub, listener.local_addr()?);
    let (token, places) = (Arc::new(token), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        // The next is taken once there is room for it; until then it waits in the system's queue.
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                // Out of descriptors, say: others may end soon.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // An answer is several short writes, none of which may wait until the one before was acknowledged.
        stream.set_nodelay(true).ok();
        let (services, token) = (services.clone(), token.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let (services, token) = (services.clone(), token.clone());
                async move { Ok::<_, Infallible>(answer(services, &token, request).await) }
            });
            let mut connection = hyper::server::conn::http1::Builder::new();
            connection.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
            // What a client breaks is its own.
            connection.serve_connection(TokioIo::new(stream), answer).await.ok();
            drop(place);
        });
    }
}

type Service = StreamableHttpService<Server, LocalSessionManager>;

/// Sessions, and requests of the revisions that have none: neither can take the other's places.
#[derive(Clone)]
struct Services {
    sessions: Arc<Sessions>,
    with_sessions: Service,
    without: Service,
}

impl Services {
    fn new(hub: &Arc<Hub>, addr: SocketAddr) -> Self {
        let (sessions, single) = (Arc::new(Sessions::new()), Arc::new(Semaphore::new(SINGLE_MAX)));
        let (of_session, of_single) = (sessions.clone(), hub.clone());
        let hub = hub.clone();
        let session = move || match of_session.place() {
            Some(place) => Ok(Server::on_http(hub.clone(), place)),
            None => Err(io::Error::other(format!("{SESSIONS_MAX} sessions are in use: end one of them"))),
        };
        let request = move || match single.clone().try_acquire_owned() {
            Ok(place) => Ok(Server::on_http(of_single.clone(), place)),
            Err(_) => Err(io::Error::other(format!("{SINGLE_MAX} requests are at work: let one end"))),
        };
        let manager = &sessions.manager;
        Self {
            with_sessions: StreamableHttpService::new(session, manager.clone(), config(addr)),
            without: StreamableHttpService::new(request, manager.clone(), config(addr)),
            sessions,
        }
    }

    async fn handle(self, request: Request<Full<Bytes>>) -> Response<Body> {
        let headers = request.headers();
        let version = text_of(headers, HEADER_VERSION);
        let id = text_of(headers, HEADER_SESSION).map(str::to_owned);
        if id.is_none() && version.is_some_and(|version| version >= ProtocolVersion::V_2026_07_28.as_str()) {
            return self.without.handle(request).await;
        }
        let busy = match &id {
            Some(id) => self.sessions.touch(id),
            None => {
                self.sessions.make_room().await;
                None
            }
        };
        let response = self.with_sessions.handle(request).await;
        let busy = match text_of(response.headers(), HEADER_SESSION) {
            Some(begun) if id.is_none() => Some(self.sessions.begun(begun).await),
            _ => busy,
        };
        response.map(|body| {
            let body = body.map_frame(move |frame| {
                // Held for as long as the answer goes on.
                let _busy = &busy;
                frame
            });
            body.boxed()
        })
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn config(addr: SocketAddr) -> StreamableHttpServerConfig {
    let names = ["127.0.0.1", "localhost", "[::1]"];
    StreamableHttpServerConfig::default()
        .with_allowed_hosts(names.map(|name| format!("{name}:{}", addr.port())))
        .with_allowed_origins(names.map(|name| format!("http://{name}:{}", addr.port())))
        .enforce_origin_validation()
        .with_max_request_body_bytes(BODY_BYTES_MAX)
}

async fn answer(services: Services, token: &str, request: Request<Incoming>) -> Response<Body> {
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, "there is only /mcp here\n");
    }
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !given.is_some_and(|given| is_token(given, token)) {
        let text = "show the token of this server: Authorization: Bearer TOKEN\n";
        let mut refused = plain(StatusCode::UNAUTHORIZED, text);
        let scheme = hyper::header::HeaderValue::from_static("Bearer");
        refused.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        return refused;
    }
    let (head, body) = request.into_parts();
    let body = match timeout(BODY_WITHIN, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(whole)) => whole.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "longer than 262144 bytes: shorten it or split it\n",
            );
        }
        Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST, "the body is broken: send it again\n"),
        Err(_) => {
            return plain(StatusCode::REQUEST_TIMEOUT, "the body did not come within 10 s: send it again\n");
        }
    };
    if head.method == Method::POST && serde_json::from_slice::<IgnoredAny>(&body).is_err() {
        return plain(StatusCode::BAD_REQUEST, "the body is not JSON: send one JSON-RPC message\n");
    }
    services.handle(Request::from_parts(head, Full::new(body))).await
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed());
    *response.status_mut() = status;
    response
}

/// Whether a header shows this token; how much of it is right does not show in the time that it takes.
fn is_token(header: &str, token: &str) -> bool {
    let Some((scheme, given)) = header.split_once(' ') else { return false };
    let (given, token) = (given.trim().as_bytes(), token.as_bytes());
    let differ = given.iter().zip(token).fold(0, |differ, (a, b)| differ | (a ^ b));
    scheme.eq_ignore_ascii_case("bearer") && given.len() == token.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::is_token;

    #[test]
    fn only_the_whole_token_will_do() {
        assert!(is_token("Bearer abc", "abc") && is_token("bearer abc ", "abc"));
        for wrong in ["Bearer ab", "Bearer abcd", "Bearer abd", "Basic abc", "abc", "Bearer ", ""] {
            assert!(!is_token(wrong, "abc"), "{wrong}");
        }
    }
}
