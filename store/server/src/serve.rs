//! The client port: gRPC and HTTP on one listener, TLS if configured.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use store_core::wire::AlarmType;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Service as _;

use crate::auth::CommonName;
use crate::authority::Lenient;
use crate::calls::Calls;
use crate::closing::Doors;
use crate::config::Config;
use crate::gateway;
use crate::grpc::{Service, VERSION};
use crate::health;
use crate::http2;
use crate::listener::Listener;
use crate::metrics::Now;
use crate::opening::opened;
use crate::pings::Policed;
use crate::tls::{self, ServerTls};

/// Connections served at once.
const CONNECTIONS_MAX: usize = 10_000;
/// The text form that Prometheus asks for first.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const HEALTHY: (StatusCode, &str) = (StatusCode::OK, r#"{"health":"true","reason":""}"#);
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// etcd's HTTP paths.
fn http(service: &Service) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/version", get(|| async { format!(r#"{{"etcdserver":"{VERSION}","etcdcluster":"3.6.0"}}"#) }))
        .route("/metrics", get(metrics))
        .merge(health::routes())
        .with_state(service.clone())
}

/// What clients find behind a listener.
#[derive(Clone)]
pub(crate) struct Front {
    /// Keys, which connections answer by themselves; `None` where there is no more than HTTP's paths.
    keys: Option<Service>,
    /// All paths.
    router: Router,
}

impl Front {
    /// etcd's HTTP paths beside its gRPC services, and these in JSON.
    pub(crate) fn new(service: &Service, doors: &Doors) -> Self {
        let calls = Calls::new(service, doors.closing.clone());
        let router = http(service).fallback_service(calls.clone());
        let has_gateway = service.config.grpc_gateway;
        let router = if has_gateway { router.merge(gateway::routes(calls, service)) } else { router };
        Self { keys: Some(service.clone()), router }
    }

    /// HTTP's paths alone.
    pub(crate) fn http(service: &Service) -> Self {
        Self { keys: None, router: http(service) }
    }

    /// Who answers for keys.
    pub(crate) fn keys(&self) -> Option<&Service> {
        self.keys.as_ref()
    }

    pub(crate) async fn answer(mut self, request: Request) -> Result<Response, Infallible> {
        self.router.call(request).await
    }
}

/// Whether a query such as `exclude=NOSPACE&serializable=true` says this.
fn says(query: Option<&str>, name: &str, value: &str) -> bool {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().any(|pair| pair == (name, value))
}

/// Source: etcd `server/etcdserver/api/etcdhttp/health.go`.
async fn health(State(service): State<Service>, RawQuery(query): RawQuery) -> (StatusCode, &'static str) {
    let (query, alarms) = (query.as_deref(), service.engine.state.alarms());
    let is_raised = |kind: AlarmType| !says(query, "exclude", kind.as_str_name()) && alarms.is_raised(kind);
    let reason = match () {
        () if is_raised(AlarmType::Nospace) => r#"{"health":"false","reason":"ALARM NOSPACE"}"#,
        () if is_raised(AlarmType::Corrupt) => r#"{"health":"false","reason":"ALARM CORRUPT"}"#,
        // Only whether this member answers, whatever the others do.
        () if says(query, "serializable", "true") => "",
        // Healthy is who can answer a linearizable read.
        () if service.engine.linearize().await.is_ok() => "",
        () => r#"{"health":"false","reason":"RAFT NO LEADER"}"#,
    };
    service.engine.metrics.health.asked(reason.is_empty());
    if reason.is_empty() {
        return HEALTHY;
    }
    (StatusCode::SERVICE_UNAVAILABLE, reason)
}

async fn metrics(State(service): State<Service>) -> ([(header::HeaderName, &'static str); 1], String) {
    let engine = &service.engine;
    let position = *engine.position().borrow();
    let mut now = Now {
        has_leader: position.leader != 0,
        is_leader: position.leader == engine.id,
        is_learner: service.is_learner(),
        committed: position.committed,
        applied: engine.applied(),
        pending_proposals: engine.pending() as u64,
        bytes_on_disk: engine.state.size(),
        quota: service.config.quota().map_or(service.config.quota_backend_bytes, u64::cast_signed),
        ..Now::default()
    };
    {
        let mvcc = engine.state.read();
        (now.revision, now.compacted, now.keys) = (mvcc.revision(), mvcc.compacted(), mvcc.key_count() as u64);
        now.bytes_live = mvcc.live_bytes();
    }
    ([(header::CONTENT_TYPE, OPEN_METRICS)], engine.metrics.render(&now))
}

/// Lets clients in until the doors close.
pub(crate) async fn serve(listener: Listener, tls: Option<ServerTls>, front: Front, config: Arc<Config>, doors: Doors) {
    let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    // Who waits until everybody has gone waits for this one too: it may just be letting the last one in.
    let _open = doors.connections.token();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            () = doors.closing.cancelled() => return,
            () = doors.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok(stream) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (tls, front, config) = (tls.clone(), front.clone(), config.clone());
        let (connections, doors) = (doors.connections.clone(), doors.clone());
        connections.spawn(async move {
            let _slot = slot;
            let Some(tls) = tls else {
                return connection(stream, CommonName::default(), front, &config, &doors).await;
            };
            let handshake = tokio_rustls::TlsAcceptor::from(tls.get()).accept(stream);
            let shaken = tokio::select! {
                () = doors.closing.cancelled() => return,
                () = doors.stop.cancelled() => return,
                shaken = tokio::time::timeout(HANDSHAKE_MAX, handshake) => shaken,
            };
            match shaken {
                Ok(Ok(stream)) => {
                    let shown = stream.get_ref().1.peer_certificates();
                    let name = tls::common_name(shown.filter(|_| config.client_tls.client_cert_auth));
                    connection(stream, CommonName(name), front, &config, &doors).await;
                }
                Ok(Err(error)) => tls::tell_refused(&error, "rejected connection on client endpoint"),
                // Who only connects is no news.
                Err(_) => {}
            }
        });
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    name: CommonName,
    front: Front,
    config: &Config,
    doors: &Doors,
) {
    let stream = Lenient::new(Policed::new(stream, config.client_keepalive_min));
    let opened = tokio::select! {
        () = doors.closing.cancelled() => return,
        () = doors.stop.cancelled() => return,
        opened = opened(stream) => opened,
    };
    match opened {
        Ok(stream) if stream.is_http2 => http2::serve(stream, name, front, config, doors).await,
        Ok(stream) => http1(stream, name, front, doors).await,
        // A client that breaks off is its own affair.
        Err(_) => {}
    }
}

async fn http1(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    name: CommonName,
    front: Front,
    doors: &Doors,
) {
    let answered = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(name.clone());
        front.clone().answer(request)
    });
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), answered));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = doors.stop.cancelled() => return,
        () = doors.closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        () = doors.stop.cancelled() => {}
    }
}
