//! Kernel settings that services need.

use std::io;
use std::path::Path;

/// Passing packets from one interface to another.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// Whether what a bridge switches is seen by connection tracking. It is there once the module br_netfilter is loaded.
const BRIDGE_TRACKING: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Sets a switch to 1; if it is already, nothing is written, which matters where the settings are read-only.
fn enable(path: &Path) -> io::Result<()> {
    if std::fs::read_to_string(path)?.trim() == "1" {
        return Ok(());
    }
    std::fs::write(path, "1")
}

/// Lets the node forward packets.
pub(crate) fn enable_forwarding() -> io::Result<()> {
    enable(Path::new(FORWARDING))
}

/// Lets connection tracking see what bridges switch, so that the answer of a pod to its neighbour is translated back.
///
/// `false` if that can't be had; then [`proxy_core::node::Node::masquerade_neighbours`] takes its place.
pub(crate) fn enable_bridge_tracking() -> bool {
    match enable(Path::new(BRIDGE_TRACKING)) {
        Ok(()) => true,
        Err(error) => {
            tracing::info!(%error, setting = BRIDGE_TRACKING, "pods that call pods of this node through a service are masqueraded");
            false
        }
    }
}
