//! The agent's HTTPS server: logs, exec and attach, for the apiserver alone.
//!
//! Paths are kubelet's (`pkg/kubelet/server/server.go`):
//! `/containerLogs/NS/POD/CONTAINER`, `/exec/…`, `/attach/…`, `/healthz`.

pub(crate) mod logs;
mod spdy;
mod streams;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_cri::v1 as cri;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::{CLIENT_NAME, Serving};
use crate::cri::{CONTAINER_NAME, Cri, CriError, POD_NAME, POD_NAMESPACE, POD_UID};
use crate::tls;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1000;
/// How long a client may take to prove who it is.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// What handlers ask.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) cri: Cri,
    /// The agent's data folder.
    pub(crate) data_dir: PathBuf,
    pub(crate) shutdown: CancellationToken,
}

/// Why the server doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificates are of no use.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The port isn't free.
    #[error("port {port} for logs and exec is not free: stop what uses it, or choose another")]
    Port {
        /// The port.
        port: u16,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// Begins to serve; returns once the port is taken.
pub(crate) async fn start(serving: &Serving, shared: Shared) -> Result<(), ServeError> {
    let acceptor = TlsAcceptor::from(tls::server(serving)?);
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, serving.port));
    let listener =
        TcpListener::bind(address).await.map_err(|source| ServeError::Port { port: serving.port, source })?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::serve))
        .route("/exec/{namespace}/{pod}/{container}", get(streams::exec))
        .route("/attach/{namespace}/{pod}/{container}", get(streams::attach))
        .with_state(shared.clone());
    tokio::spawn(accept(listener, acceptor, router, shared.shutdown));
    Ok(())
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, router: Router, shutdown: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (acceptor, router, shutdown) = (acceptor.clone(), router.clone(), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = serve(stream, acceptor, router) => {}
            }
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    // A prompt should not wait for more to send.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a client was refused"),
        Err(_) => return tracing::debug!("a client took too long to say who it is"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let name = certificate.and_then(tls::common_name).unwrap_or_default();
    if name != CLIENT_NAME {
        return tracing::warn!(client = name, "a client that isn't the apiserver was refused");
    }
    let service = TowerToHyperService::new(router);
    let server = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(error = &*error as &dyn std::error::Error, "a connection ended");
    }
}

/// Namespace, pod and container of a request's path.
type Place = Path<(String, String, String)>;

/// A refusal, as plain text.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl From<CriError> for Refusal {
    fn from(error: CriError) -> Self {
        let code = if error.is_not_found() { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
        Self(code, error.to_string())
    }
}

/// A container in the runtime, with the UID of its pod.
struct Located {
    id: String,
    uid: String,
    running: bool,
    attempt: u32,
}

/// The pod's containers of this name, the newest first.
async fn locate(shared: &Shared, place: &Place) -> Result<Vec<Located>, Refusal> {
    let (namespace, pod, container) = &place.0;
    let labels = [(POD_NAMESPACE, namespace), (POD_NAME, pod), (CONTAINER_NAME, container)];
    let label_selector = labels.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
    let filter = cri::ContainerFilter { label_selector, ..Default::default() };
    let request = cri::ListContainersRequest { filter: Some(filter) };
    let answer = shared.cri.runtime().list_containers(request).await.map_err(CriError::from)?;
    let mut found = answer.into_inner().containers;
    // A pod that was made again under its name has the newer containers.
    found.sort_by_key(|c| std::cmp::Reverse(c.created_at));
    let located = found.into_iter().map(|c| Located {
        uid: c.labels.get(POD_UID).cloned().unwrap_or_default(),
        running: c.state == cri::ContainerState::ContainerRunning as i32,
        attempt: c.metadata.map_or(0, |m| m.attempt),
        id: c.id,
    });
    Ok(located.collect())
}

fn not_running(place: &Place) -> Refusal {
    let (namespace, pod, container) = &place.0;
    Refusal(StatusCode::BAD_REQUEST, format!("container {container:?} of pod {namespace}/{pod} is not running"))
}
