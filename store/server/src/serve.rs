//! The client port: gRPC and HTTP on one listener, TLS if configured.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::authority::Lenient;
use crate::grpc::{self, Service, VERSION};
use crate::listener::Listener;
use crate::tls::ServerTls;

/// Connections served at once.
const CONNECTIONS_MAX: usize = 10_000;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// etcd's HTTP paths beside its gRPC services.
pub(crate) fn router(service: &Service) -> Router {
    let http = Router::new()
        .route("/health", get(health))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/version", get(|| async { format!(r#"{{"etcdserver":"{VERSION}","etcdcluster":"3.6.0"}}"#) }))
        .route("/metrics", get(metrics))
        .with_state(service.clone());
    let for_voters = axum::middleware::from_fn_with_state(service.clone(), grpc::refuse_as_learner);
    grpc::routes(service).into_axum_router().layer(for_voters).merge(http)
}

fn has_leader(service: &Service) -> bool {
    service.engine.position().borrow().leader != 0
}

async fn health(State(service): State<Service>) -> (StatusCode, &'static str) {
    // Healthy is who can answer a linearizable read.
    match service.engine.linearize().await {
        Ok(()) => (StatusCode::OK, r#"{"health":"true","reason":""}"#),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, r#"{"health":"false","reason":"RAFT NO LEADER"}"#),
    }
}

async fn readyz(State(service): State<Service>) -> (StatusCode, &'static str) {
    if has_leader(&service) { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "no leader\n") }
}

/// Prometheus text under etcd's well-known names.
async fn metrics(State(service): State<Service>) -> String {
    let position = *service.engine.position().borrow();
    let (revision, keys) = {
        let (mvcc, _) = service.engine.state.read();
        (mvcc.revision(), mvcc.key_count())
    };
    let gauges = [
        ("etcd_server_has_leader", u64::from(position.leader != 0)),
        ("etcd_server_is_leader", u64::from(position.leader == service.engine.id)),
        ("etcd_server_proposals_committed_total", position.committed),
        ("etcd_server_proposals_applied_total", service.engine.applied()),
        ("etcd_mvcc_db_total_size_in_bytes", u64::try_from(service.engine.state.size()).unwrap_or(0)),
        ("etcd_debugging_store_revision", u64::try_from(revision).unwrap_or(0)),
        ("etcd_debugging_mvcc_keys_total", keys as u64),
        ("etcd_disk_wal_fsync_duration_seconds_count", service.engine.syncs.load(Ordering::Relaxed)),
        ("process_resident_memory_bytes", resident_bytes()),
    ];
    gauges.iter().map(|(name, value)| format!("# TYPE {name} gauge\n{name} {value}\n")).collect()
}

/// Resident memory of this process, from the kernel; 0 where it doesn't say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Accepts clients until shutdown.
pub(crate) async fn serve(listener: Listener, tls: Option<ServerTls>, router: Router, shutdown: CancellationToken) {
    let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok(stream) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (tls, router, shutdown) = (tls.clone(), router.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _slot = slot;
            match tls {
                None => connection(stream, router, shutdown).await,
                Some(tls) => {
                    let handshake = tokio_rustls::TlsAcceptor::from(tls.get()).accept(stream);
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, handshake).await {
                        connection(stream, router, shutdown).await;
                    }
                }
            }
        });
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    router: Router,
    shutdown: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(u32::MAX).timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(Lenient::new(stream)), TowerToHyperService::new(router));
    tokio::select! {
        // A client that breaks off is its own affair.
        _ = connection => {}
        () = shutdown.cancelled() => {}
    }
}
