//! What the node agent is told.

use std::net::IpAddr;
use std::path::PathBuf;

/// Bytes of a unix socket's path, as the kernel takes it (`sun_path`, with its end).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Settings of a node agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What runs the pods.
    pub runtime: Runtime,
    /// Folder for volumes, logs and what else belongs to pods.
    pub data_dir: PathBuf,
    /// The node's address, by which the API and other nodes reach it.
    pub address: IpAddr,
    /// Network from which this node's pods get their addresses, such as `10.244.0.0/24`.
    pub pod_network: String,
    /// Name servers written into pods' `resolv.conf`; empty: the node's own.
    pub dns_servers: Vec<String>,
}

/// What runs the pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// A container runtime that speaks CRI v1, on the node of this name.
    Cri {
        /// The node's name.
        node: String,
        /// The runtime's unix socket.
        socket: PathBuf,
        /// Where the agent serves logs, exec and attach.
        serving: Serving,
    },
    /// Nodes that only say that their pods run, named `hollow-0`, `hollow-1`, …
    Hollow {
        /// How many.
        count: u32,
    },
}

/// The agent's own HTTPS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// TCP port.
    pub port: u16,
    /// Certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// CA of the clients that may ask: every certificate it signed for [`CLIENT_NAME`].
    pub client_ca: PathBuf,
}

/// Common name of the certificate that the apiserver shows to agents.
pub const CLIENT_NAME: &str = "kube-apiserver-kubelet-client";

/// Hollow nodes in one process.
pub const HOLLOW_NODES_MAX: u32 = 10_000;

/// Settings that can't work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The kernel would not take the socket's path.
    #[error(
        "the runtime's socket {0} has a path of more than {SOCKET_PATH_BYTES_MAX} bytes: use a shorter data folder"
    )]
    SocketPath(PathBuf),
    /// Not a network.
    #[error("{0:?} is not an IPv4 network such as 10.244.0.0/24")]
    PodNetwork(String),
    /// No nodes, or too many.
    #[error("{0} hollow nodes: choose 1 to {HOLLOW_NODES_MAX}")]
    HollowNodes(u32),
}

impl Config {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`ConfigError`], the first that was found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if network(&self.pod_network).is_none() {
            return Err(ConfigError::PodNetwork(self.pod_network.clone()));
        }
        match &self.runtime {
            Runtime::Cri { socket, .. } if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX => {
                Err(ConfigError::SocketPath(socket.clone()))
            }
            Runtime::Hollow { count } if !(1..=HOLLOW_NODES_MAX).contains(count) => {
                Err(ConfigError::HollowNodes(*count))
            }
            Runtime::Cri { .. } | Runtime::Hollow { .. } => Ok(()),
        }
    }
}

/// A network's address and prefix length.
pub(crate) fn network(text: &str) -> Option<(std::net::Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|p| (8..=30).contains(p))?;
    Some((address.parse().ok()?, prefix))
}
