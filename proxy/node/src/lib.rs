//! The service proxy on a node: watches Services and EndpointSlices, keeps the kernel's nftables table in step.
//!
//! One task owns everything: it hears the watches, waits a few milliseconds for more, lets `proxy_core` decide, and
//! hands one script to `nft`, which the kernel takes as a whole or not at all. What the kernel holds is known from what
//! it took; at the start and after a failure nothing is known and the table is made anew.
//!
//! Absences: nothing outside the table `ip keelson` is touched; the table stays when the proxy stops, so that
//! connections outlive it, until [`cleanup`].

mod kernel;
mod mirror;
mod nft;
mod owner;

use std::net::Ipv4Addr;
use std::time::Duration;

use kube::Client;
use proxy_core::node::{Cidr, CidrError, Node};
use tokio_util::sync::CancellationToken;

pub use nft::NftError;

/// What the proxy is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node's name, by which endpoints on it are known.
    pub node_name: String,
    /// This node's IPv4 address, on which node ports are served.
    pub node_ip: String,
    /// Where pods' addresses come from: the whole cluster's range, or this node's. What calls a clusterIP from
    /// anywhere else appears to the endpoint as this node.
    pub pod_cidr: String,
    /// The command that runs nft, such as `["ip", "netns", "exec", "blue", "nft"]`; if empty, `nft` is looked for on
    /// PATH, in /usr/sbin and /sbin.
    pub nft_command: Vec<String>,
    /// How long the first of several changes waits for the others.
    pub coalesce: Duration,
    /// How often to look whether the table is still there: `nft flush ruleset` takes everybody's.
    pub check_every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            node_ip: String::new(),
            pod_cidr: String::new(),
            nft_command: Vec::new(),
            coalesce: Duration::from_millis(5),
            check_every: Duration::from_secs(30),
        }
    }
}

/// What is wrong with a [`Config`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Without it no endpoint is known to be here.
    #[error("node_name is empty")]
    NodeName,
    /// It isn't an IPv4 address.
    #[error("node_ip {0:?} is not an IPv4 address")]
    NodeIp(String),
    /// It isn't a range.
    #[error("pod_cidr: {0}")]
    PodCidr(#[from] CidrError),
    /// A timer that never waits would keep a core busy.
    #[error("check_every is zero")]
    CheckEvery,
}

/// Why the proxy doesn't run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no way to give the kernel rules.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The node would drop what it must pass on.
    #[error("net.ipv4.ip_forward can't be set to 1")]
    Forwarding(#[source] std::io::Error),
    /// A watch, which never ends by itself, ended.
    #[error("the watch of {0} ended")]
    WatchEnded(&'static str),
}

impl Config {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`ConfigError`] for the first that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.node(false).map(|_| ())
    }

    fn node(&self, masquerade_neighbours: bool) -> Result<Node, ConfigError> {
        if self.node_name.is_empty() {
            return Err(ConfigError::NodeName);
        }
        if self.check_every.is_zero() {
            return Err(ConfigError::CheckEvery);
        }
        let address: Ipv4Addr = self.node_ip.parse().map_err(|_| ConfigError::NodeIp(self.node_ip.clone()))?;
        let pods: Cidr = self.pod_cidr.parse()?;
        Ok(Node { name: self.node_name.clone(), addresses: [address].into(), pods, masquerade_neighbours })
    }
}

/// Runs the proxy until `shutdown`; the rules stay.
///
/// # Errors
/// [`RunError`] for settings that can't work, a kernel that can't forward, or a machine without nft. What fails later
/// is logged and tried again.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    config.validate()?;
    let nft = nft::Nft::find(&config.nft_command)?;
    kernel::enable_forwarding().map_err(RunError::Forwarding)?;
    let masquerade_neighbours = !kernel::enable_bridge_tracking();
    let node = config.node(masquerade_neighbours)?;
    owner::Owner::new(node, nft, &config).run(client, shutdown).await
}

/// Removes the table with all its rules; nothing happens if there is none.
///
/// # Errors
/// [`NftError`] if nft isn't there or the kernel refuses.
pub async fn cleanup(config: &Config) -> Result<(), NftError> {
    nft::Nft::find(&config.nft_command)?.apply(proxy_core::transaction::removal()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let good = Config {
            node_name: "n".to_owned(),
            node_ip: "192.168.0.1".to_owned(),
            pod_cidr: "10.244.0.0/16".to_owned(),
            ..Config::default()
        };
        assert_eq!(good.validate(), Ok(()));
        let wrong = |change: fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            config.validate().expect_err("a wrong setting").to_string()
        };
        assert_eq!(wrong(|c| c.node_name.clear()), "node_name is empty");
        assert_eq!(wrong(|c| c.node_ip = "::1".to_owned()), "node_ip \"::1\" is not an IPv4 address");
        assert!(wrong(|c| c.pod_cidr.clear()).starts_with("pod_cidr: \"\" is not a range"));
        assert_eq!(wrong(|c| c.check_every = Duration::ZERO), "check_every is zero");
    }
}
