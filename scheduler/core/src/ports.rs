//! NodePorts: host ports that pods of a node share.
//!
//! Source: scheduler framework `HostPortInfo`, plugin `nodeports`.

use k8s_openapi::api::core::v1::PodSpec;

use crate::resources::is_sidecar;

const ANY_IP: &str = "0.0.0.0";

/// A port of the host that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    /// Whether the two can't be had at once: the same port, and the same address or any address.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY_IP || other.ip == ANY_IP)
    }
}

/// The host ports of a pod's containers and sidecars.
#[must_use]
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let or = |text: &Option<String>, default: &str| match text.as_deref() {
        None | Some("") => default.to_owned(),
        Some(text) => text.to_owned(),
    };
    ports
        .filter_map(|p| Some((p, p.host_port.filter(|port| *port > 0)?)))
        .map(|(p, port)| HostPort { ip: or(&p.host_ip, ANY_IP), protocol: or(&p.protocol, "TCP"), port })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn port(ip: &str, protocol: &str, port: i32) -> HostPort {
        HostPort { ip: ip.to_owned(), protocol: protocol.to_owned(), port }
    }

    #[test]
    fn any_address_meets_every_address() {
        let taken = port("10.0.0.1", "TCP", 80);
        let cases = [
            (port("10.0.0.1", "TCP", 80), true),
            (port("0.0.0.0", "TCP", 80), true),
            (port("10.0.0.2", "TCP", 80), false),
            (port("10.0.0.1", "UDP", 80), false),
            (port("10.0.0.1", "TCP", 81), false),
        ];
        for (wanted, conflicts) in cases {
            assert_eq!(wanted.conflicts(&taken), conflicts, "{wanted:?}");
            assert_eq!(taken.conflicts(&wanted), conflicts, "{wanted:?}");
        }
    }

    #[test]
    fn containers_and_sidecars_take_ports() {
        let with =
            |port: i32| json!({"name": "c", "ports": [{"containerPort": 1, "hostPort": port}, {"containerPort": 2}]});
        let mut sidecar = with(3);
        sidecar["restartPolicy"] = json!("Always");
        let spec = json!({"containers": [with(1)], "initContainers": [with(2), sidecar]});
        let ports = host_ports(&serde_json::from_value(spec).unwrap());
        assert_eq!(ports, [port("0.0.0.0", "TCP", 1), port("0.0.0.0", "TCP", 3)]);
    }
}
