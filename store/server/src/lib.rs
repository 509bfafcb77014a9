//! One member of the store: threads, files, sockets around `store-core`.
//!
//! [`run`] serves etcd's v3 API on the client URLs and speaks raft on the peer URL.
//!
//! Absences: no decision about keys or terms is made here; no request is
//! acknowledged before a majority's disks hold it.

mod authority;
pub mod config;
mod engine;
mod grpc;
mod peers;
mod serve;
mod state;
mod tls;
mod wal;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{Config, ConfigError, Tls};
pub use engine::OpenError;
pub use state::StateError;
pub use tls::TlsError;
pub use wal::WalError;

/// Why a member doesn't run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting can't work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate or key can't be used.
    #[error("TLS")]
    Tls(#[from] TlsError),
    /// Log or state can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An address can't be served on.
    #[error("listening on {url}")]
    Listen {
        /// The URL.
        url: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread can't be started.
    #[error("starting a thread: {0}")]
    Thread(std::io::Error),
    /// The disk failed while the member ran.
    #[error("the member's storage failed: {0}")]
    Storage(String),
}

async fn listen(url: &str) -> Result<TcpListener, ServeError> {
    let (_, address) = config::url_parts(url)?;
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { url: url.to_owned(), source })
}

/// Runs a member until `shutdown`.
///
/// # Errors
/// [`ServeError`] names the setting, file or address at fault.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), ServeError> {
    config.validate()?;
    let client_tls = tls::server(&config.client_tls, &[b"h2", b"http/1.1"])?;
    let peer_tls = tls::peers(&config.peer_tls)?;
    let mut clients = Vec::new();
    for url in &config.listen_client_urls {
        clients.push((config::url_parts(url)?.0, listen(url).await?));
    }
    let mut peer_listeners = Vec::new();
    for url in &config.listen_peer_urls {
        peer_listeners.push((config::url_parts(url)?.0, listen(url).await?));
    }
    // Nanoseconds tell one run of a member from another.
    let boot = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let opened = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || engine::Engine::open(&config, boot)).await
    };
    let opened = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    let engine = opened.engine.clone();
    let members = Arc::new(config.members());
    let stop = CancellationToken::new();
    let peers = peers::Peers::start(&members, engine.id, peer_tls.as_ref(), &engine, &stop);
    let running = engine::run(opened, peers.clone(), stop.clone()).map_err(ServeError::Thread)?;
    for (secure, listener) in peer_listeners {
        let tls = if secure { peer_tls.clone() } else { None };
        tokio::spawn(peers::serve(listener, tls, engine.clone(), peers.clone(), members.clone(), stop.clone()));
    }
    let cluster_id = config.cluster_id();
    tracing::info!(
        name = config.name,
        member = format!("{:x}", engine.id),
        cluster = format!("{cluster_id:x}"),
        "serving"
    );
    let service = grpc::Service { engine: engine.clone(), peers, config: Arc::new(config), cluster_id };
    for (secure, listener) in clients {
        let tls = if secure { client_tls.clone() } else { None };
        tokio::spawn(serve::serve(listener, tls, serve::router(&service), stop.clone()));
    }
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = stop.cancelled() => {}
    }
    engine.send(engine::Input::Stop);
    stop.cancel();
    let ended = tokio::task::spawn_blocking(move || running.join()).await;
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let failed = engine.failed.borrow().clone();
    failed.map_or(Ok(()), |why| Err(ServeError::Storage(why)))
}
