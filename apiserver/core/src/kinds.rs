//! What is special about a kind. Everything else is driven by the schema.
//!
//! Source: the strategies in Kubernetes' `pkg/registry/*/*/strategy.go`.

mod pod;
mod secret;
mod service;
mod validation;
mod workload;

pub use pod::bind;
pub use service::{cluster_ips, node_ports, set_cluster_ip, set_node_port, wanted_node_ports, wants_cluster_ip};

use api::resources::Resource;
use api::status::Status;
use serde_json::{Value, json};

use crate::lifecycle::Part;
use crate::meta;

/// Whether the resource has a status subresource, so that main writes leave status alone.
pub fn has_status(resource: &Resource) -> bool {
    api::resources::find_subresource(resource.group, resource.version, resource.name, "status").is_some()
}

/// Whether `metadata.generation` counts changes of desired state.
pub fn has_generation(resource: &Resource) -> bool {
    match (resource.group, resource.name) {
        ("", "pods" | "replicationcontrollers") => true,
        ("", _) => false,
        ("storage.k8s.io" | "coordination.k8s.io" | "rbac.authorization.k8s.io" | "events.k8s.io", _) => false,
        ("discovery.k8s.io", _) => true,
        ("admissionregistration.k8s.io" | "networking.k8s.io" | "scheduling.k8s.io", _) => true,
        _ => has_status(resource),
    }
}

/// Whether the garbage collector works on the resource. Events are not its business.
pub fn is_collected(resource: &Resource) -> bool {
    resource.name != "events"
}

/// Changes a new object before defaults are applied.
pub(crate) fn on_create(resource: &Resource, object: &mut Value) {
    // Status is what controllers observe, not what clients ask for; a node's agent
    // however registers its node together with its state.
    if has_status(resource)
        && (resource.group, resource.name) != ("", "nodes")
        && let Some(map) = object.as_object_mut()
    {
        map.shift_remove("status");
    }
    match (resource.group, resource.name) {
        ("", "pods") => pod::on_create(object),
        ("", "namespaces") => {
            object["status"] = json!({"phase": "Active"});
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            let name = meta::name(object).to_owned();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
        }
        ("", "secrets") => secret::fold_string_data(object),
        ("", "services") => object["status"] = json!({"loadBalancer": {}}),
        ("", "persistentvolumes" | "persistentvolumeclaims") => object["status"] = json!({"phase": "Pending"}),
        ("apps" | "batch", _) if has_status(resource) => object["status"] = json!({}),
        _ => {}
    }
}

/// Changes a new version of an object before defaults are applied.
pub(crate) fn on_update(resource: &Resource, part: Part, old: &Value, new: &mut Value) {
    match (resource.group, resource.name, part) {
        ("", "secrets", _) => secret::fold_string_data(new),
        ("", "services", Part::Main) => service::keep_allocated(old, new),
        ("", "namespaces", Part::Main) => {
            // Only the finalize subresource takes finalizers from a namespace's spec.
            if let (Some(map), Some(spec)) = (new.as_object_mut(), old.get("spec")) {
                map.insert("spec".to_owned(), spec.clone());
            }
            let name = meta::name(new).to_owned();
            new["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
        }
        ("", "pods", Part::Main) => pod::keep_node(old, new),
        _ => {}
    }
}

/// Fields that follow from others, after defaults were applied.
pub(crate) fn finish(resource: &Resource, object: &mut Value) {
    match (resource.group, resource.name) {
        ("", "services") => service::finish(object),
        ("apps" | "batch" | "", _) => workload::finish(resource, object),
        _ => {}
    }
}

/// Seconds that a deletion waits for a node to end the object; 0 for all but bound pods.
pub(crate) fn grace(resource: &Resource, asked: Option<i64>, object: &Value) -> i64 {
    match (resource.group, resource.name) {
        ("", "pods") => pod::grace(asked, object),
        _ => 0,
    }
}

/// Whether the object keeps itself alive by other means than `metadata.finalizers`.
pub(crate) fn holds_itself(resource: &Resource, object: &Value) -> bool {
    (resource.group, resource.name) == ("", "namespaces") && !meta::items(object, "/spec/finalizers").is_empty()
}

/// Changes an object that was just marked for deletion.
pub(crate) fn on_mark(resource: &Resource, object: &mut Value) {
    if (resource.group, resource.name) == ("", "namespaces") {
        object["status"]["phase"] = "Terminating".into();
    }
}

/// Checks a new or changed object.
///
/// # Errors
/// 422 with a cause for each field at fault.
pub(crate) fn validate(resource: &Resource, object: &Value) -> Result<(), Status> {
    validation::validate(resource, object)
}

/// Checks what may not change.
///
/// # Errors
/// 422 with a cause for each field at fault.
pub(crate) fn validate_update(resource: &Resource, part: Part, old: &Value, new: &Value) -> Result<(), Status> {
    if part == Part::Status {
        return Ok(());
    }
    validation::validate_update(resource, old, new)
}
