//! Where and in which version a resource's objects are stored.
//!
//! A resource served in several versions is stored in one, the preferred. Core
//! events and `events.k8s.io` events are the same objects, stored as core events.

use api::resources::{self, Resource};
use serde_json::Value;

use crate::meta;

/// The resource in the version it is stored in.
pub fn storage_resource(resource: &'static Resource) -> &'static Resource {
    let group = if resource.name == "events" { "" } else { resource.group };
    resources::group_versions()
        .iter()
        .filter(|gv| gv.group == group)
        .find_map(|gv| resources::find(gv.group, gv.version, resource.name))
        .unwrap_or(resource)
}

/// The prefix of a resource's keys; ends in a slash.
pub fn prefix(resource: &'static Resource) -> String {
    let stored = storage_resource(resource);
    let group = if stored.group.is_empty() { "core" } else { stored.group };
    format!("/registry/{group}/{}/", stored.name)
}

/// The key of an object. `namespace` is empty for cluster-scoped resources.
pub fn key(resource: &'static Resource, namespace: &str, name: &str) -> String {
    if resource.namespaced {
        format!("{}{namespace}/{name}", prefix(resource))
    } else {
        format!("{}{name}", prefix(resource))
    }
}

/// Fields that events call otherwise in `events.k8s.io`: (core, events.k8s.io).
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Turns an object of one version of a resource into another version of it.
///
/// Versions of a built-in kind share their fields but for what is named here; a field
/// that the target doesn't know is left out by its schema.
pub fn convert(from: &Resource, to: &Resource, object: &mut Value) {
    if (from.group, from.version) == (to.group, to.version) {
        return;
    }
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), to.api_version().into());
    }
    match (from.name, from.group, from.version, to.version) {
        ("events", "", _, _) => rename(object, EVENT_FIELDS.iter().copied()),
        ("events", _, _, _) => {
            rename(object, EVENT_FIELDS.iter().map(|(core, new)| (*new, *core)));
            default_event(object);
        }
        ("horizontalpodautoscalers", _, "v1", "v2") => autoscaler_to_v2(object),
        ("horizontalpodautoscalers", _, "v2", "v1") => autoscaler_to_v1(object),
        _ => {}
    }
    if let Some(ty) = to.ty {
        // Ignore mode prunes unknown fields and refuses nothing but wrong types, which were checked before.
        let _ = api::decode::check(ty, object, api::decode::Validation::Ignore);
    }
}

fn rename<'a>(object: &mut Value, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(map) = object.as_object_mut() else { return };
    for (from, to) in pairs {
        if let Some(value) = map.shift_remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

/// Core events require what the newer API leaves optional.
fn default_event(object: &mut Value) {
    if object.get("involvedObject").is_none() {
        object["involvedObject"] = Value::Object(serde_json::Map::new());
    }
    let _ = meta::metadata_mut(object);
}

/// Source: `pkg/apis/autoscaling/v1/conversion.go`.
fn autoscaler_to_v2(object: &mut Value) {
    let target = take(object, "/spec", "targetCPUUtilizationPercentage");
    if let Some(target) = target {
        object["spec"]["metrics"] = serde_json::json!([{"type": "Resource", "resource":
            {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}}]);
    }
    let current = take(object, "/status", "currentCPUUtilizationPercentage");
    if let Some(current) = current {
        object["status"]["currentMetrics"] = serde_json::json!([{"type": "Resource", "resource":
            {"name": "cpu", "current": {"averageUtilization": current, "averageValue": "0"}}}]);
    }
}

fn autoscaler_to_v1(object: &mut Value) {
    let cpu = |pointer: &str, value: &str| {
        let metrics = meta::items(object, pointer);
        let found = metrics.iter().find(|m| meta::text(m, "/resource/name") == "cpu");
        found.and_then(|m| m.pointer(value)).cloned()
    };
    let target = cpu("/spec/metrics", "/resource/target/averageUtilization");
    let current = cpu("/status/currentMetrics", "/resource/current/averageUtilization");
    if let Some(target) = target {
        object["spec"]["targetCPUUtilizationPercentage"] = target;
    }
    if let Some(current) = current {
        object["status"]["currentCPUUtilizationPercentage"] = current;
    }
}

fn take(object: &mut Value, parent: &str, field: &str) -> Option<Value> {
    object.pointer_mut(parent)?.as_object_mut()?.shift_remove(field)
}
