//! Objects every cluster has: the first namespaces, the `kubernetes` Service and
//! its EndpointSlice, the priority classes of system pods.
//!
//! Created if missing, at every start; an existing object is left as it is, but
//! for the address that leads to this server.

use std::sync::Arc;

use api::resources::{self, Resource};
use api::status::Status;
use apiserver_core::{lifecycle, meta};
use serde_json::{Value, json};

use crate::app::{App, moment};
use crate::router::Target;
use crate::write;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes what is missing.
pub(crate) async fn run(app: &Arc<App>) -> Result<(), Status> {
    for name in NAMESPACES {
        ensure(app, ("", "v1", "namespaces"), json!({"metadata": {"name": name}})).await?;
    }
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        ensure(app, ("scheduling.k8s.io", "v1", "priorityclasses"), class).await?;
    }
    kubernetes_service(app).await
}

async fn kubernetes_service(app: &Arc<App>) -> Result<(), Status> {
    let first = std::net::Ipv4Addr::from(u32::from(app.config.service_network) + 1).to_string();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({"metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": first,
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": app.address.port()}]}});
    ensure(app, ("", "v1", "services"), service).await?;
    let slice = json!({"metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [app.config.advertise.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": app.address.port(), "protocol": "TCP"}]});
    let kept = ensure(app, ("discovery.k8s.io", "v1", "endpointslices"), slice.clone()).await?;
    if kept["endpoints"] == slice["endpoints"] && kept["ports"] == slice["ports"] {
        return Ok(());
    }
    let target = target(("discovery.k8s.io", "v1", "endpointslices"), &slice)?;
    let change = |old: &Value| {
        let mut new = old.clone();
        new["endpoints"] = slice["endpoints"].clone();
        new["ports"] = slice["ports"].clone();
        Ok(new)
    };
    write::modify(app, &target, false, change).await.map(|_| ())
}

fn find(at: (&str, &str, &str)) -> Result<&'static Resource, Status> {
    resources::find(at.0, at.1, at.2).ok_or_else(|| Status::internal(format!("the schema has no {}", at.2)))
}

fn target(at: (&str, &str, &str), object: &Value) -> Result<Target, Status> {
    Ok(Target {
        resource: find(at)?,
        sub: None,
        namespace: meta::namespace(object).to_owned(),
        name: Some(meta::name(object).to_owned()),
    })
}

/// Creates the object unless it exists; returns what is stored.
async fn ensure(app: &Arc<App>, at: (&str, &str, &str), mut object: Value) -> Result<Value, Status> {
    let target = target(at, &object)?;
    let found = app.storage.get(&target.key()).await.map_err(crate::read::storage_status)?;
    if let Some(found) = found {
        return crate::read::decode(target.resource, &found);
    }
    object["kind"] = target.resource.kind.into();
    object["apiVersion"] = target.resource.api_version().into();
    lifecycle::prepare_create(target.resource, &target.namespace, &moment(), &mut object)?;
    match write::insert(app, target.resource, object.clone(), false).await {
        // Another server started at the same time.
        Err(status) if status.is_already_exists() => Ok(object),
        result => result,
    }
}
