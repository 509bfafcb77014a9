//! What pods need beyond their bridge: forwarding, and the node's address on what leaves the pod network.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The table that holds the one rule; nothing else is touched.
const TABLE: &str = "keelson-pods";

/// Why the network wasn't set up.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Forwarding can't be switched on.
    #[error("can't switch on forwarding in /proc/sys/net/ipv4/ip_forward")]
    Forwarding(#[source] std::io::Error),
    /// `nft` can't be run.
    #[error("can't run nft: install nftables")]
    Missing(#[source] std::io::Error),
    /// `nft` refused.
    #[error("nft refused the rules of the pod network: {0}")]
    Refused(String),
}

/// Sets the network of pods up, in one transaction; again is harmless.
pub(crate) async fn set_up(pod_network: &str) -> Result<(), NetworkError> {
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(NetworkError::Forwarding)?;
    let rules = format!(
        "table ip {TABLE} {{}}\nflush table ip {TABLE}\ntable ip {TABLE} {{\n  chain postrouting {{\n    \
         type nat hook postrouting priority srcnat; policy accept;\n    \
         ip saddr {pod_network} ip daddr != {pod_network} ip daddr != 224.0.0.0/4 masquerade\n  }}\n}}\n"
    );
    nft(&rules).await
}

/// Removes what [`set_up`] made.
///
/// # Errors
/// [`NetworkError`] if `nft` can't be run or refuses.
pub async fn tear_down() -> Result<(), NetworkError> {
    // Declared first, so that removing it can't fail because it isn't there.
    nft(&format!("table ip {TABLE} {{}}\ndelete table ip {TABLE}\n")).await
}

async fn nft(rules: &str) -> Result<(), NetworkError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        // Users' paths often lack it.
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NetworkError::Missing)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(rules.as_bytes()).await.map_err(NetworkError::Missing)?;
    }
    let output = child.wait_with_output().await.map_err(NetworkError::Missing)?;
    if output.status.success() {
        return Ok(());
    }
    Err(NetworkError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
