//! HTTPS: connections in, requests to the router, answers out.
//!
//! Bounds: connections, handshake time, body size. Nothing here knows of objects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::status::Status;
use apiserver_core::options::Query;
use apiserver_core::user::User;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::authn;

/// Connections served at once; further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 8192;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Largest request body, as in Kubernetes.
pub(crate) const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Answers at least this large are compressed for clients that take it, as in Kubernetes.
const GZIP_BYTES_MIN: usize = 128 * 1024;
/// How long open requests may go on once the server is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(3);

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Any answer's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A request, read and authenticated.
pub(crate) struct Call {
    pub(crate) user: User,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) raw_query: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: http::Extensions,
    pub(crate) body: Bytes,
}

impl Call {
    /// A header's text; empty if absent or not text.
    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }
}

/// A body of bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer of one content type.
pub(crate) fn reply(status: StatusCode, content_type: &str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

/// A Kubernetes Status as an answer.
pub(crate) fn reply_status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = reply(code, "application/json", status.to_json().to_string());
    if let Some(seconds) = status.retry_after_seconds() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Reads, authenticates and answers a request. Also the in-process client's way in.
pub(crate) async fn answer<B>(app: Arc<App>, user: Option<User>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let gzip = accepts_gzip(&parts.headers);
    let response = match respond(app, user, parts, body).await {
        Ok(response) => response,
        Err(status) => reply_status(&status),
    };
    if gzip { compress(response).await } else { response }
}

async fn respond<B>(app: Arc<App>, user: Option<User>, parts: Parts, body: B) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let path = percent_encoding::percent_decode_str(parts.uri.path()).decode_utf8();
    let path = path.map_err(|_| Status::bad_request("the path is not UTF-8"))?.into_owned();
    if crate::docs::is_public(&path) {
        return Ok(crate::docs::public(&app, &parts.method, &path, parts.uri.query().unwrap_or("")).await);
    }
    let bearer = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let user = match (user, bearer) {
        (Some(user), _) => Some(user),
        (None, Some(bearer)) => app.authenticator.bearer(bearer),
        (None, None) => None,
    };
    let user = user.ok_or_else(|| Status::unauthorized("Unauthorized"))?;
    let body = read_body(body).await?;
    let raw_query = parts.uri.query().unwrap_or("").to_owned();
    let call = Call {
        user,
        method: parts.method,
        path,
        query: Query::parse(&raw_query),
        raw_query,
        headers: parts.headers,
        extensions: parts.extensions,
        body,
    };
    crate::router::route(app, call).await
}

async fn read_body<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Status::request_entity_too_large(format!("limit is {BODY_BYTES_MAX}")))
        }
        Err(error) => Err(Status::bad_request(format!("reading the body: {error}"))),
    }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"))
}

/// Compresses a large answer whose bytes are all there; streams go as they are.
async fn compress(response: Response<Body>) -> Response<Body> {
    use http_body::Body as _;
    let size = response.body().size_hint().exact().unwrap_or(0);
    if size < GZIP_BYTES_MIN as u64 || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(collected) = body.collect().await else {
        return Response::from_parts(parts, full(Bytes::new()));
    };
    let zipped = gzip(&collected.to_bytes());
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, full(zipped))
}

/// Compresses at the fastest level: the link is local more often than not.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 4), flate2::Compression::fast());
    // Writing to memory can't fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// Accepts connections until shutdown, then lets open requests end for a short while.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener, tls: Arc<ServerConfig>, shutdown: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let tracker = tokio_util::task::TaskTracker::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a connection that died in the backlog: go on, but don't spin.
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (app, acceptor, shutdown) = (app.clone(), acceptor.clone(), shutdown.clone());
        tracker.spawn(async move {
            let _slot = slot;
            if let Err(error) = connection(app, acceptor, stream, shutdown).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
    tracker.close();
    let _ = tokio::time::timeout(DRAIN_MAX, tracker.wait()).await;
}

async fn connection(
    app: Arc<App>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    shutdown: CancellationToken,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
    let user = certificate.and_then(|cert| authn::certificate_user(cert));
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (app, user) = (app.clone(), user.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(app, user, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .max_concurrent_streams(1000)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .timer(hyper_util::rt::TokioTimer::new());
    builder.http1().timer(hyper_util::rt::TokioTimer::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// Binds the address to serve on.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
