//! What all requests share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use apiserver_core::lifecycle::Moment;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::authn::Authenticator;
use crate::config::Config;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::storage::{Storage, StorageError};

/// The apiserver's shared state: settings, the store, the watch hub.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) address: SocketAddr,
    pub(crate) storage: Storage,
    pub(crate) hub: Arc<Hub>,
    pub(crate) authenticator: Authenticator,
    pub(crate) kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    event_lease: Mutex<EventLease>,
}

/// The lease new events are attached to; one serves a minute's events.
#[derive(Default)]
struct EventLease {
    id: i64,
    granted: i64,
}

/// Seconds for which one lease is given to new events.
const LEASE_SHARED_SECONDS: i64 = 60;

impl App {
    pub(crate) fn new(
        config: Config,
        address: SocketAddr,
        storage: Storage,
        hub: Arc<Hub>,
        authenticator: Authenticator,
        kubelet_tls: Option<Arc<rustls::ClientConfig>>,
        shutdown: CancellationToken,
    ) -> Self {
        let metrics = Metrics::new();
        Self {
            config,
            address,
            storage,
            hub,
            authenticator,
            kubelet_tls,
            metrics,
            shutdown,
            event_lease: Mutex::default(),
        }
    }

    /// The lease that a new event is stored under.
    pub(crate) async fn event_lease(&self) -> Result<i64, StorageError> {
        let now = unix_now();
        {
            let lease = self.event_lease.lock();
            if lease.id != 0 && now - lease.granted < LEASE_SHARED_SECONDS {
                return Ok(lease.id);
            }
        }
        let id = self.storage.grant_lease(self.config.event_ttl + LEASE_SHARED_SECONDS).await?;
        *self.event_lease.lock() = EventLease { id, granted: now };
        Ok(id)
    }

    /// Address and port clients reach the server at.
    pub(crate) fn advertised(&self) -> String {
        match self.config.advertise {
            IpAddr::V4(ip) => format!("{ip}:{}", self.address.port()),
            IpAddr::V6(ip) => format!("[{ip}]:{}", self.address.port()),
        }
    }
}

/// Seconds since the epoch.
pub(crate) fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// A uid that no object has.
pub(crate) fn fresh_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The clock, a uid and randomness for one write.
pub(crate) fn moment() -> Moment {
    let unix = unix_now();
    let now = jiff::Timestamp::from_second(unix).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    Moment { now: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), unix, uid: fresh_uid(), random: rand::random() }
}
