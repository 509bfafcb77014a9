//! The fields of a kind that field selectors may name.
//!
//! Source: the label conversion functions in Kubernetes' `pkg/apis/*/v1/conversion.go`.

use api::resources::Resource;
use serde_json::Value;

use crate::meta;

/// The selectable fields of a resource besides name and namespace, as (selector, pointer).
fn extra(resource: &Resource) -> &'static [(&'static str, &'static str)] {
    match (resource.group, resource.name) {
        ("", "pods") => &[
            ("spec.nodeName", "/spec/nodeName"),
            ("spec.restartPolicy", "/spec/restartPolicy"),
            ("spec.schedulerName", "/spec/schedulerName"),
            ("spec.serviceAccountName", "/spec/serviceAccountName"),
            ("spec.hostNetwork", "/spec/hostNetwork"),
            ("status.phase", "/status/phase"),
            ("status.podIP", "/status/podIP"),
            ("status.podIPs", "/status/podIP"),
            ("status.nominatedNodeName", "/status/nominatedNodeName"),
        ],
        ("", "events") => &[
            ("involvedObject.kind", "/involvedObject/kind"),
            ("involvedObject.namespace", "/involvedObject/namespace"),
            ("involvedObject.name", "/involvedObject/name"),
            ("involvedObject.uid", "/involvedObject/uid"),
            ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
            ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
            ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
            ("reason", "/reason"),
            ("reportingComponent", "/reportingComponent"),
            ("source", "/source/component"),
            ("type", "/type"),
        ],
        ("events.k8s.io", "events") => &[
            ("regarding.kind", "/regarding/kind"),
            ("regarding.namespace", "/regarding/namespace"),
            ("regarding.name", "/regarding/name"),
            ("regarding.uid", "/regarding/uid"),
            ("reason", "/reason"),
            ("reportingController", "/reportingController"),
            ("type", "/type"),
        ],
        ("", "nodes") => &[("spec.unschedulable", "/spec/unschedulable")],
        ("", "secrets") => &[("type", "/type")],
        ("", "namespaces") => &[("status.phase", "/status/phase")],
        ("", "services") => &[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")],
        ("", "replicationcontrollers") | ("apps", "replicasets") => &[("status.replicas", "/status/replicas")],
        ("batch", "jobs") => &[("status.successful", "/status/succeeded")],
        ("certificates.k8s.io", "certificatesigningrequests") => &[("spec.signerName", "/spec/signerName")],
        _ => &[],
    }
}

/// The pointer behind a selectable field; `None` if the kind doesn't offer it.
fn pointer(resource: &Resource, field: &str) -> Option<&'static str> {
    match field {
        "metadata.name" => Some("/metadata/name"),
        "metadata.namespace" if resource.namespaced => Some("/metadata/namespace"),
        _ => extra(resource).iter().find(|(name, _)| *name == field).map(|(_, pointer)| *pointer),
    }
}

/// Whether field selectors on the resource may name `field`.
pub fn is_selectable(resource: &Resource, field: &str) -> bool {
    pointer(resource, field).is_some()
}

/// The field's value as a selector compares it; an absent one is empty, a boolean or number its text.
pub fn value(resource: &Resource, object: &Value, field: &str) -> String {
    let found = pointer(resource, field).and_then(|p| object.pointer(p));
    match found {
        None | Some(Value::Null) => absent(field).to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// What an absent field counts as: Go's zero value of its type.
fn absent(field: &str) -> &'static str {
    match field {
        "spec.unschedulable" | "spec.hostNetwork" => "false",
        "status.replicas" | "status.successful" => "0",
        _ => "",
    }
}

/// Whether an object's labels and fields match the selectors of a list.
pub fn matches(resource: &Resource, options: &crate::options::ListOptions, object: &Value) -> bool {
    let labels_match = options.labels.is_everything() || {
        let labels: std::collections::BTreeMap<String, String> =
            meta::string_map(object, "/metadata/labels").map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        options.labels.matches(&labels)
    };
    labels_match && options.fields.matches(|field| value(resource, object, field))
}
