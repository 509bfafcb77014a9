//! One member of the store: threads, files, sockets around `store-core`.
//!
//! [`run`] serves etcd's v3 API on the client URLs and speaks raft on the peer URL.
//!
//! Absences: no decision about keys or terms is made here; no request is
//! acknowledged before a majority's disks hold it.

mod admission;
mod auth;
mod authority;
mod backup;
mod calls;
mod closing;
mod compactor;
pub mod config;
mod engine;
mod gateway;
mod grpc;
mod health;
mod http2;
mod identity;
mod import;
mod listener;
mod metrics;
mod opening;
mod peers;
mod pings;
mod restore;
mod serve;
mod slow;
mod state;
mod tls;
mod trace;
mod wal;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use store_core::auth::Asker;
use store_core::membership::Members;
use store_core::wire::member_change::Change;
use store_core::wire::{Describe, Member, MemberChange};
use tokio_util::sync::CancellationToken;

pub use backup::BackupError;
pub use config::{AuthToken, Config, ConfigError, JwtSettings, Tls, TlsVersion, go_duration, parse_retention};
pub use engine::OpenError;
pub use identity::IdentityError;
pub use import::{Import, ImportError};
pub use peers::JoinError;
pub use restore::{BackupStatus, RestoreOptions, restore, status as backup_status};
pub use state::StateError;
pub use store_core::wire::{ImportProgress, KeyValue};
pub use tls::TlsError;
pub use wal::WalError;

/// Pause before the cluster is told again who this member is.
const DESCRIBE_PAUSE: Duration = Duration::from_millis(500);

/// How long the end waits for requests that were under way.
const CLOSE_MAX: Duration = Duration::from_secs(5);

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
    /// It isn't known which member this is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The member was removed from its cluster; its folder is of no use any more.
    #[error(
        "this member was removed from the cluster; to join again, add it as a new member and start it with an empty folder"
    )]
    Removed,
    /// A bug.
    #[error(
        "the thread {0} panicked, for the reason that stands before this line: this is a bug; what was acknowledged is \
         on disk, the member may be started again"
    )]
    Panicked(&'static str),
    /// Its folder was lost, and others count on what was in it.
    #[error(
        "this folder isn't the one that member {0:x} had: votes and entries that it had acknowledged are lost; \
         to join again, remove member {0:x}, add it as a new member and start it with an empty folder and \
         --initial-cluster-state=existing"
    )]
    Wiped(u64),
    /// A majority came to another state by the same log; the member's folder is of no use any more.
    #[error("this member differs from the majority: {}", StateError::Diverged)]
    Diverged,
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

/// Runs a member until `shutdown`; then it hands over, ends what clients have under way, and stops.
///
/// # Errors
/// [`ServeError`] names the setting, file or address at fault.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), ServeError> {
    config.validate()?;
    let recognition = Arc::new(auth::Recognition::new(&config)?);
    let client_tls = tls::for_clients(&config.client_tls)?;
    let peer_tls = tls::for_peers(&config.peer_tls)?;
    let mut clients = Vec::new();
    for url in &config.listen_client_urls {
        clients.push(listener::listen(url).await?);
    }
    let mut for_metrics = Vec::new();
    for url in &config.listen_metrics_urls {
        for_metrics.push(listener::listen(url).await?);
    }
    let mut peer_listeners = Vec::new();
    for url in &config.listen_peer_urls {
        peer_listeners.push(listener::listen_tcp(url).await?);
    }
    // Nanoseconds tell one run of a member from another.
    let boot = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let state = engine::open_state(config.data_dir.clone()).await?;
    let identity = identity::find(&config, &state, peer_tls.as_ref().map(|tls| &tls.client)).await?;
    let opened = engine::open(config.clone(), state, identity.clone(), boot).await?;
    let (engine, closed) = (opened.engine.clone(), opened.closed.clone());
    let stop = CancellationToken::new();
    let cluster_id = identity.members.cluster_id();
    let own_url = identity.members.get(engine.id).and_then(|m| m.peer_ur_ls.first().cloned()).unwrap_or_default();
    let peers = peers::Peers::new(&engine, cluster_id, own_url, peer_tls.as_ref(), opened.runtime(), &stop);
    tokio::spawn(peers.clone().follow());
    let running = engine::run(opened, peers.clone(), stop.clone()).map_err(ServeError::Thread)?;
    for (secure, listener) in peer_listeners {
        let tls = if secure { peer_tls.clone() } else { None };
        peers.clone().serve(listener, tls);
    }
    tokio::spawn(describe(engine.clone(), config.clone(), stop.clone()));
    if let Some(retention) = config.auto_compaction {
        tokio::spawn(compactor::run(engine.clone(), retention, stop.clone()));
    }
    tracing::info!(
        name = config.name,
        member = format!("{:x}", engine.id),
        cluster = format!("{cluster_id:x}"),
        "serving"
    );
    let service = grpc::Service { engine: engine.clone(), peers, recognition, config: Arc::new(config), cluster_id };
    let doors = closing::Doors::new(stop.clone());
    let served = clients.into_iter().map(|place| (place, serve::Front::new(&service, &doors)));
    for ((secure, listener), front) in
        served.chain(for_metrics.into_iter().map(|place| (place, serve::Front::http(&service))))
    {
        let tls = if secure { client_tls.clone() } else { None };
        tokio::spawn(serve::serve(listener, tls, front, service.config.clone(), doors.clone()));
    }
    tokio::select! {
        () = shutdown.cancelled() => leave(&engine, &doors, &stop).await,
        () = stop.cancelled() => {}
    }
    engine.send(engine::Input::Stop);
    stop.cancel();
    let ended = tokio::task::spawn_blocking(move || running.join()).await;
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let ended = engine.ended.borrow().clone();
    drop((engine, service));
    // Connections are being broken off; the folder is free once they have been.
    if tokio::time::timeout(CLOSE_MAX, closed.cancelled()).await.is_err() {
        tracing::warn!("requests are still using the state; it is left to them");
    }
    match ended {
        None => Ok(()),
        Some(engine::End::Storage(why)) => Err(ServeError::Storage(why)),
        Some(engine::End::Diverged) => Err(ServeError::Diverged),
        Some(engine::End::Panicked(thread)) => Err(ServeError::Panicked(thread)),
        Some(engine::End::Removed) => Err(ServeError::Removed),
        Some(engine::End::Wiped) => Err(ServeError::Wiped(identity.id)),
    }
}

/// Goes without a client's noticing, as far as that can be: another member leads, and calls under way are answered.
async fn leave(engine: &engine::Engine, doors: &closing::Doors, stop: &CancellationToken) {
    let left = async {
        engine.step_aside().await;
        doors.close(engine.patience()).await;
    };
    tokio::select! {
        () = left => {}
        () = stop.cancelled() => {}
    }
}

/// Tells the cluster this member's name and client URLs, until they are known.
async fn describe(engine: Arc<engine::Engine>, config: Config, stop: CancellationToken) {
    let is_told = |members: &Members| {
        let told = |member: &Member| member.name == config.name && member.client_ur_ls == config.advertise_client_urls;
        members.get(engine.id).is_some_and(told) && members.folder(engine.id) == Some(engine.folder)
    };
    loop {
        if is_told(&engine.members().borrow()) {
            return;
        }
        let member = Member {
            id: engine.id,
            name: config.name.clone(),
            client_ur_ls: config.advertise_client_urls.clone(),
            ..Member::default()
        };
        let describe = Describe { member: Some(member), folder: engine.folder };
        let change = MemberChange { change: Some(Change::Describe(describe)) };
        let told = tokio::select! {
            () = stop.cancelled() => return,
            told = engine.propose_member(&Asker::Member, change) => told,
        };
        if let Err(error) = told {
            tracing::debug!(%error, "telling the cluster this member's name and client URLs");
            tokio::time::sleep(DESCRIBE_PAUSE).await;
        }
    }
}
