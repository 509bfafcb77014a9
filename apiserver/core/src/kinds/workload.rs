//! Workloads: what a template's labels imply, and template statuses that aren't stored.

use api::resources::Resource;
use serde_json::Value;

use crate::meta;

/// A ReplicationController's selector and labels follow its template. Other
/// workloads state theirs. Source: `pkg/apis/core/v1/defaults.go`.
pub(super) fn finish(resource: &Resource, object: &mut Value) {
    if (resource.group, resource.name) != ("", "replicationcontrollers") {
        return;
    }
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    let Some(labels) = labels.filter(|l| l.as_object().is_some_and(|m| !m.is_empty())) else { return };
    if meta::string_map(object, "/spec/selector").next().is_none() {
        object["spec"]["selector"] = labels.clone();
    }
    if meta::string_map(object, "/metadata/labels").next().is_none() {
        object["metadata"]["labels"] = labels;
    }
}
