//! The apiserver's shell: HTTPS, credentials, the store, watches.
//!
//! Decisions about objects are made in `apiserver-core`; here they meet the
//! network. Objects live in any etcd v3 store.
//!
//! Absences: no handler decides what an object may be; no request is answered
//! without credentials but for health and version.

mod admission;
mod app;
mod authn;
mod bootstrap;
mod claims;
mod client;
mod compact;
pub mod config;
mod docs;
mod http;
mod hub;
mod kubelet;
mod metrics;
mod read;
mod router;
mod scale;
mod storage;
mod subresource;
mod tls;
mod watch;
mod write;

pub use client::{Apiserver, StartError, start};
pub use config::{Config, ConfigError, KubeletClient, StoreConfig, StoreTls};
pub use tls::TlsError;
