//! The node agent's shell: a container runtime over CRI, the pods' network and volumes,
//! and what a node tells the API of itself.
//!
//! `agent-core` decides what is done with a pod; here it is done.
//!
//! - [`config`]: what the agent is told.
//! - [`run`]: a node with a runtime, or hollow nodes.
//! - [`containerd`]: the configuration of a containerd of our own.
//! - [`image`]: images made without a registry, and their import.
//! - [`network`]: what pods need beyond their bridge.
//!
//! Absences: nothing is kept in a database of the agent's own. What runs is in the
//! runtime, what should run is in the API; a restarted agent asks both.

mod actions;
pub mod config;
pub mod containerd;
mod cri;
mod env;
mod events;
mod hollow;
pub mod image;
mod machine;
pub mod network;
mod node;
mod pods;
mod probes;
mod rotation;
mod run;
pub mod server;
mod spec;
mod stop;
mod tls;
mod volumes;

pub use config::{CLIENT_NAME, Config, ConfigError, Runtime, Serving};
pub use run::{RunError, run};
pub use stop::{StopError, end_orphans, stop_all};
pub use tls::TlsError;
pub use volumes::{remove_tree, unmount_below};
