//! Addresses and ports that Services hold: claimed and released in the
//! transaction that writes the Service, so that none is held twice or leaked.
//!
//! A claim is a key of its own beside the object (`/registry/claims/…`). There is
//! no allocator state to repair: the store is the allocator.

use std::net::Ipv4Addr;

use api::resources::Resource;
use api::status::{Cause, Status};
use apiserver_core::{kinds, meta};
use serde_json::Value;

use crate::app::App;
use crate::read::storage_status;
use crate::storage::SideKey;

fn is_service(resource: &Resource) -> bool {
    (resource.group, resource.name) == ("", "services")
}

fn ip_key(ip: &str) -> String {
    format!("/registry/claims/clusterips/{ip}")
}

fn port_key(protocol: &str, port: u16) -> String {
    format!("/registry/claims/nodeports/{protocol}/{port}")
}

/// The keys an object holds.
pub(crate) fn held(resource: &Resource, object: &Value) -> Vec<SideKey> {
    if !is_service(resource) {
        return Vec::new();
    }
    let owner = format!("{}/{}", meta::namespace(object), meta::name(object));
    let ips = kinds::cluster_ips(object).into_iter().map(ip_key);
    let ports = kinds::node_ports(object).into_iter().map(|(protocol, port)| port_key(protocol, port));
    ips.chain(ports).map(|key| SideKey { key, owner: owner.clone() }).collect()
}

/// Chooses what the object wants and lacks; returns all it will hold.
///
/// A choice that turns out to be taken makes the write conflict; the caller fills anew.
pub(crate) async fn fill(app: &App, resource: &Resource, object: &mut Value) -> Result<Vec<SideKey>, Status> {
    if !is_service(resource) {
        return Ok(Vec::new());
    }
    check_ranges(app, object)?;
    if kinds::wants_cluster_ip(object) {
        let ip = free_ip(app).await?;
        kinds::set_cluster_ip(object, &ip);
    }
    for index in kinds::wanted_node_ports(object) {
        let protocol = meta::text(object, &format!("/spec/ports/{index}/protocol")).to_owned();
        let port = free_port(app, if protocol.is_empty() { "TCP" } else { &protocol }).await?;
        kinds::set_node_port(object, index, port);
    }
    Ok(held(resource, object))
}

fn invalid(object: &Value, field: &str, message: String) -> Status {
    Status::invalid("", "Service", meta::name(object), vec![Cause::new("FieldValueInvalid", field, message)])
}

fn check_ranges(app: &App, service: &Value) -> Result<(), Status> {
    for ip in kinds::cluster_ips(service) {
        let inside = ip.parse::<Ipv4Addr>().is_ok_and(|ip| in_network(app, ip));
        if !inside {
            let (network, prefix) = (app.config.service_network, app.config.service_prefix);
            let why = format!(
                "Invalid value: [{ip:?}]: failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {network}/{prefix}"
            );
            return Err(invalid(service, "spec.clusterIPs", why));
        }
    }
    let (first, last) = app.config.node_ports;
    for (_, port) in kinds::node_ports(service) {
        if !(first..=last).contains(&port) {
            let why = format!(
                "Invalid value: {port}: provided port is not in the valid range. The range of valid ports is {first}-{last}"
            );
            return Err(invalid(service, "spec.ports[0].nodePort", why));
        }
    }
    Ok(())
}

fn in_network(app: &App, ip: Ipv4Addr) -> bool {
    let mask = u32::MAX << (32 - u32::from(app.config.service_prefix));
    u32::from(ip) & mask == u32::from(app.config.service_network)
}

/// Tries of a random choice before the range counts as full.
const TRIES_MAX: usize = 64;

async fn is_free(app: &App, key: &str) -> Result<bool, Status> {
    Ok(app.storage.get(key).await.map_err(storage_status)?.is_none())
}

async fn free_ip(app: &App) -> Result<String, Status> {
    let size = 1u32 << (32 - u32::from(app.config.service_prefix));
    for _ in 0..TRIES_MAX {
        // Neither the network's address, nor the first (the API's own), nor the broadcast address.
        let offset = 2 + rand::random::<u32>() % (size - 3);
        let ip = Ipv4Addr::from(u32::from(app.config.service_network) + offset).to_string();
        if is_free(app, &ip_key(&ip)).await? {
            return Ok(ip);
        }
    }
    Err(Status::internal("failed to allocate a serviceIP: range is full".to_owned()))
}

async fn free_port(app: &App, protocol: &str) -> Result<u16, Status> {
    let (first, last) = app.config.node_ports;
    for _ in 0..TRIES_MAX {
        let port = rand::random_range(first..=last);
        if is_free(app, &port_key(protocol, port)).await? {
            return Ok(port);
        }
    }
    Err(Status::internal("failed to allocate a nodePort: range is full".to_owned()))
}

/// Says which claim the client itself made is taken; `Ok` if the taken one was our choice.
pub(crate) async fn explain(app: &App, resource: &Resource, object: &Value) -> Result<(), Status> {
    for side in held(resource, object) {
        if is_free(app, &side.key).await? {
            continue;
        }
        let what = side.key.rsplit('/').next().unwrap_or("");
        return Err(if side.key.contains("/clusterips/") {
            let why =
                format!("Invalid value: [{what:?}]: failed to allocate IP {what}: provided IP is already allocated");
            invalid(object, "spec.clusterIPs", why)
        } else {
            invalid(
                object,
                "spec.ports[0].nodePort",
                format!("Invalid value: {what}: provided port is already allocated"),
            )
        });
    }
    Ok(())
}
