//! What an apiserver is told at start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Settings of an apiserver. Read once; nothing is looked up later.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address and port to serve HTTPS on.
    pub listen: SocketAddr,
    /// Address that the `kubernetes` Service leads to.
    pub advertise: IpAddr,
    /// Serving certificate chain, PEM.
    pub tls_cert: PathBuf,
    /// Serving key, PEM.
    pub tls_key: PathBuf,
    /// CA that signs client certificates, PEM.
    pub client_ca: PathBuf,
    /// Static bearer tokens, a line `token,user,uid[,"group,group"]` each.
    pub token_file: Option<PathBuf>,
    /// Client certificate and key shown to node agents, and the CA their certificates are checked with; PEM.
    pub kubelet: Option<KubeletClient>,
    /// The etcd v3 store.
    pub store: StoreConfig,
    /// First address of the range that cluster IPs are taken from.
    pub service_network: Ipv4Addr,
    /// Prefix length of that range, 12 to 28.
    pub service_prefix: u8,
    /// First and last port given to NodePort services.
    pub node_ports: (u16, u16),
    /// Seconds an Event is kept.
    pub event_ttl: i64,
}

/// How the apiserver shows itself to node agents.
#[derive(Debug, Clone)]
pub struct KubeletClient {
    /// Client certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// CA of node agents' certificates, PEM.
    pub ca: PathBuf,
}

/// Where the store is.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// URLs of all members; requests go to any of them.
    pub endpoints: Vec<String>,
    /// TLS towards the store; `None` for `http://` endpoints.
    pub tls: Option<StoreTls>,
}

/// TLS towards the store. PEM text.
#[derive(Debug, Clone)]
pub struct StoreTls {
    /// CA of the members' certificates.
    pub ca_pem: String,
    /// Client certificate and key.
    pub identity_pem: Option<(String, String)>,
}

/// A setting that can't work.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {why}")]
pub struct ConfigError {
    setting: &'static str,
    why: String,
}

fn refuse(setting: &'static str, why: impl Into<String>) -> Result<(), ConfigError> {
    Err(ConfigError { setting, why: why.into() })
}

impl Config {
    /// Checks settings against each other.
    ///
    /// # Errors
    /// The first setting that can't work, and why.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.store.endpoints.is_empty() {
            return refuse("store endpoints", "at least one URL is needed");
        }
        if !(12..=28).contains(&self.service_prefix) {
            return refuse("service network", format!("/{} is not between /12 and /28", self.service_prefix));
        }
        let host_bits = 32 - u32::from(self.service_prefix);
        if u32::from(self.service_network).trailing_zeros() < host_bits {
            return refuse(
                "service network",
                format!("{}/{} has host bits set", self.service_network, self.service_prefix),
            );
        }
        let (first, last) = self.node_ports;
        if first == 0 || first > last {
            return refuse("node ports", format!("{first}-{last} is not a range"));
        }
        if self.event_ttl < 1 {
            return refuse("event TTL", "must be at least a second");
        }
        Ok(())
    }
}
