//! Starting an apiserver, and talking to it from within the process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use api::status::Status;
use apiserver_core::user::User;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::authn::Authenticator;
use crate::config::{Config, ConfigError};
use crate::http::{self, BoxError};
use crate::hub::Hub;
use crate::storage::{Storage, StorageError};
use crate::{bootstrap, compact, tls};

/// How long the store may take to answer for the first time.
const STORE_WAIT: Duration = Duration::from_secs(60);

/// Why an apiserver didn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting can't work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate or key can't be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The token file can't be used.
    #[error("token file: {0}")]
    Tokens(String),
    /// The address can't be served on.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store doesn't answer.
    #[error("{0}")]
    Store(String),
    /// The first objects can't be made.
    #[error("creating the first objects: {0}")]
    Bootstrap(String),
}

/// A running apiserver.
pub struct Apiserver {
    app: Arc<App>,
    serving: JoinHandle<()>,
}

/// Starts an apiserver; returns once it answers requests.
///
/// # Errors
/// [`StartError`] names the setting, file, address or peer at fault.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Apiserver, StartError> {
    config.validate()?;
    let server_tls = tls::server(&config)?;
    let kubelet_tls = config.kubelet.as_ref().map(tls::kubelet).transpose()?;
    let tokens = match &config.token_file {
        None => String::new(),
        Some(path) => {
            std::fs::read_to_string(path).map_err(|e| StartError::Tokens(format!("{}: {e}", path.display())))?
        }
    };
    let authenticator = Authenticator::new(&tokens).map_err(|e| StartError::Tokens(e.to_string()))?;
    let listener =
        http::bind(config.listen).await.map_err(|source| StartError::Listen { address: config.listen, source })?;
    let address = listener.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
    let storage = Storage::connect(&config.store).await.map_err(|e| StartError::Store(e.to_string()))?;
    let revision = first_revision(&storage).await?;
    let hub = Hub::new(revision);
    tokio::spawn(hub.clone().feed(storage.clone(), shutdown.clone()));
    tokio::spawn(compact::run(storage.clone(), shutdown.clone()));
    let app = Arc::new(App::new(config, address, storage, hub, authenticator, kubelet_tls, shutdown.clone()));
    bootstrap::run(&app).await.map_err(|e: Status| StartError::Bootstrap(e.to_string()))?;
    let serving = tokio::spawn(http::serve(app.clone(), listener, server_tls, shutdown));
    Ok(Apiserver { app, serving })
}

/// Waits for a store that is still electing its leader.
async fn first_revision(storage: &Storage) -> Result<i64, StartError> {
    let deadline = tokio::time::Instant::now() + STORE_WAIT;
    loop {
        match storage.revision().await {
            Ok(revision) => return Ok(revision),
            Err(StorageError::Unavailable(why)) if tokio::time::Instant::now() < deadline => {
                tracing::debug!(why, "waiting for the store");
            }
            Err(error) => return Err(StartError::Store(error.to_string())),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Apiserver {
    /// The address requests are served on; its port is the one chosen if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.app.address
    }

    /// A client within the process: no socket, no TLS, the same handlers. Requests act as `user`.
    pub fn client(&self, user: &str) -> kube::Client {
        let app = self.app.clone();
        let user = User::authenticated(user, ["system:masters".to_owned()]);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (app, user) = (app.clone(), user.clone());
            async move { Ok::<Response<http::Body>, BoxError>(http::answer(app, Some(user), request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Waits until the server has ended after shutdown.
    pub async fn join(self) {
        // A panic of the accept loop was already reported by the runtime.
        let _ = self.serving.await;
    }
}
