//! Services: which addresses and ports one needs and which it holds.
//!
//! Choosing a free one needs the store and is the shell's work; what is to be
//! chosen, kept and released is decided here.
//! Source: `pkg/registry/core/service` alloc.go.

use serde_json::{Value, json};

use crate::meta;

fn kind(service: &Value) -> &str {
    match meta::text(service, "/spec/type") {
        "" => "ClusterIP",
        kind => kind,
    }
}

/// The cluster IPs the service holds; headless and external ones hold none.
pub fn cluster_ips(service: &Value) -> Vec<&str> {
    let ip = meta::text(service, "/spec/clusterIP");
    if ip.is_empty() || ip == "None" || kind(service) == "ExternalName" { Vec::new() } else { vec![ip] }
}

/// Whether a cluster IP must be chosen for the service.
pub fn wants_cluster_ip(service: &Value) -> bool {
    kind(service) != "ExternalName" && meta::text(service, "/spec/clusterIP").is_empty()
}

/// Writes the chosen cluster IP.
pub fn set_cluster_ip(service: &mut Value, ip: &str) {
    service["spec"]["clusterIP"] = ip.into();
    finish(service);
}

/// The node ports the service holds: protocol and port.
pub fn node_ports(service: &Value) -> Vec<(&str, u16)> {
    if !opens_nodes(service) {
        return Vec::new();
    }
    let port = |p: &Value| p.get("nodePort").and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
    let ports = meta::items(service, "/spec/ports");
    ports.iter().map(|p| (protocol(p), port(p))).filter(|(_, port)| *port != 0).collect()
}

fn protocol(port: &Value) -> &str {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
}

fn opens_nodes(service: &Value) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
}

/// Indexes of the ports for which a node port must be chosen.
pub fn wanted_node_ports(service: &Value) -> Vec<usize> {
    if !opens_nodes(service) {
        return Vec::new();
    }
    let unset = |port: &Value| port.get("nodePort").and_then(Value::as_u64).unwrap_or(0) == 0;
    let ports = meta::items(service, "/spec/ports").iter().enumerate();
    ports.filter(|(_, port)| unset(port)).map(|(index, _)| index).collect()
}

/// Writes the chosen node port of the port at `index`.
pub fn set_node_port(service: &mut Value, index: usize, port: u16) {
    if let Some(slot) = service.pointer_mut(&format!("/spec/ports/{index}")) {
        slot["nodePort"] = port.into();
    }
}

/// What a writer left out keeps its value, so that applying the same manifest again changes nothing.
pub(super) fn keep_allocated(old: &Value, new: &mut Value) {
    if kind(new) == "ExternalName" {
        return;
    }
    let ip = meta::text(old, "/spec/clusterIP");
    if meta::text(new, "/spec/clusterIP").is_empty() && !ip.is_empty() {
        new["spec"]["clusterIP"] = ip.into();
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if new["spec"].get(field).is_none() && old["spec"].get(field).is_some() {
            new["spec"][field] = old["spec"][field].clone();
        }
    }
    if opens_nodes(new) {
        keep_node_ports(old, new);
    }
}

fn keep_node_ports(old: &Value, new: &mut Value) {
    for index in wanted_node_ports(new) {
        let port = &new["spec"]["ports"][index];
        let same = |o: &&Value| o.get("port") == port.get("port") && protocol(o) == protocol(port);
        let held =
            meta::items(old, "/spec/ports").iter().find(same).and_then(|o| o.get("nodePort")).and_then(Value::as_u64);
        if let Some(held) = held.and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0) {
            set_node_port(new, index, held);
        }
    }
}

/// Fields that follow from the address and the type.
pub(super) fn finish(service: &mut Value) {
    let ip = meta::text(service, "/spec/clusterIP").to_owned();
    if kind(service) == "ExternalName" {
        return;
    }
    if ip.is_empty() {
        return;
    }
    service["spec"]["clusterIPs"] = json!([ip]);
    if service["spec"].get("ipFamilies").is_none() {
        service["spec"]["ipFamilies"] = json!(["IPv4"]);
    }
    if service["spec"].get("ipFamilyPolicy").is_none() {
        service["spec"]["ipFamilyPolicy"] = "SingleStack".into();
    }
    if !opens_nodes(service) {
        for index in 0..meta::items(service, "/spec/ports").len() {
            if let Some(port) = service["spec"]["ports"][index].as_object_mut() {
                port.shift_remove("nodePort");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_keeps_what_was_allocated() {
        let old = json!({"spec": {"clusterIP": "10.0.0.9", "type": "NodePort",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81}]}});
        keep_allocated(&old, &mut new);
        finish(&mut new);
        assert_eq!(cluster_ips(&new), ["10.0.0.9"]);
        assert_eq!(node_ports(&new), [("TCP", 30001)]);
        assert_eq!(wanted_node_ports(&new), [1]);
    }

    #[test]
    fn headless_and_external_services_want_no_address() {
        assert!(!wants_cluster_ip(&json!({"spec": {"clusterIP": "None"}})));
        assert!(!wants_cluster_ip(&json!({"spec": {"type": "ExternalName"}})));
        assert!(wants_cluster_ip(&json!({"spec": {}})));
    }
}
