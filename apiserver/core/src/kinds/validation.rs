//! Validation: metadata of every object, and the rules of the kinds that the
//! cluster itself acts on.
//!
//! Each rule is a function that adds causes; an object is refused with all of
//! them at once. Source: Kubernetes' `pkg/apis/*/validation` and
//! apimachinery `pkg/api/validation/objectmeta.go`.

use api::names;
use api::resources::Resource;
use api::selector::labels;
use api::status::{Cause, Status};
use serde_json::Value;

use crate::meta::{self, items, string_map, text};

/// Largest size of all annotations together.
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

/// Largest size of all values of a ConfigMap or Secret together. Source: `pkg/apis/core/types.go` MaxSecretSize.
const CONTENT_BYTES_MAX: usize = 1024 * 1024;

/// What is wrong with an object, in order of discovery.
struct Causes(Vec<Cause>);

impl Causes {
    fn required(&mut self, field: &str, detail: &str) {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        self.0.push(Cause::new("FieldValueRequired", field, message));
    }

    fn invalid(&mut self, field: &str, value: &Value, detail: &str) {
        self.0.push(Cause::new("FieldValueInvalid", field, format!("Invalid value: {value}: {detail}")));
    }

    fn invalid_text(&mut self, field: &str, value: &str, details: Vec<String>) {
        for detail in details {
            self.invalid(field, &value.into(), &detail);
        }
    }

    fn unsupported(&mut self, field: &str, value: &str, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let message = format!("Unsupported value: {value:?}: supported values: {}", list.join(", "));
        self.0.push(Cause::new("FieldValueNotSupported", field, message));
    }

    fn duplicate(&mut self, field: &str, value: &str) {
        self.0.push(Cause::new("FieldValueDuplicate", field, format!("Duplicate value: {value:?}")));
    }

    fn not_negative(&mut self, object: &Value, pointer: &str) {
        if let Some(number) = object.pointer(pointer).and_then(Value::as_i64)
            && number < 0
        {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            self.invalid(&field, &number.into(), "must be greater than or equal to 0");
        }
    }

    fn finish(self, resource: &Resource, object: &Value) -> Result<(), Status> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid(resource.group, resource.kind, meta::name(object), self.0))
        }
    }
}

/// Checks an object that is about to be stored.
pub(super) fn validate(resource: &Resource, object: &Value) -> Result<(), Status> {
    let mut causes = Causes(Vec::new());
    metadata(resource, object, &mut causes);
    match (resource.group, resource.name) {
        ("", "pods") => pod_spec(object, "/spec", &mut causes),
        ("", "services") => service(object, &mut causes),
        ("", "configmaps") => content(object, &["data", "binaryData"], "[]", &mut causes),
        ("", "secrets") => content(object, &["data"], "data", &mut causes),
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => workload(object, &mut causes),
        ("", "replicationcontrollers") => {
            causes.not_negative(object, "/spec/replicas");
            template(object, &mut causes);
        }
        ("batch", "jobs") => {
            for pointer in ["/spec/parallelism", "/spec/completions", "/spec/backoffLimit"] {
                causes.not_negative(object, pointer);
            }
            template(object, &mut causes);
        }
        _ => {}
    }
    causes.finish(resource, object)
}

fn name_rule(resource: &Resource) -> fn(&str) -> Vec<String> {
    match (resource.group, resource.name) {
        ("", "namespaces") => names::dns1123_label,
        ("", "services") => names::dns1035_label,
        ("rbac.authorization.k8s.io", _) | ("certificates.k8s.io", "clustertrustbundles") => names::path_segment,
        _ => names::dns1123_subdomain,
    }
}

fn metadata(resource: &Resource, object: &Value, causes: &mut Causes) {
    let name = meta::name(object);
    if name.is_empty() {
        causes.required("metadata.name", "name or generateName is required");
    } else {
        causes.invalid_text("metadata.name", name, name_rule(resource)(name));
    }
    label_map(object, "/metadata/labels", "metadata.labels", causes);
    let mut size = 0;
    for (key, value) in string_map(object, "/metadata/annotations") {
        size += key.len() + value.len();
        causes.invalid_text("metadata.annotations", key, names::qualified_name(&key.to_lowercase()));
    }
    if size > ANNOTATION_BYTES_MAX {
        let message = format!("Too long: may not be more than {ANNOTATION_BYTES_MAX} bytes");
        causes.0.push(Cause::new("FieldValueTooLong", "metadata.annotations", message));
    }
    for (index, owner) in items(object, "/metadata/ownerReferences").iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &format!("/{field}")).is_empty() {
                causes.required(&format!("metadata.ownerReferences[{index}].{field}"), "must not be empty");
            }
        }
    }
    for finalizer in meta::finalizers(object) {
        causes.invalid_text("metadata.finalizers", finalizer, names::qualified_name(finalizer));
    }
}

fn label_map(object: &Value, pointer: &str, field: &str, causes: &mut Causes) {
    for (key, value) in string_map(object, pointer) {
        causes.invalid_text(field, key, names::qualified_name(key));
        causes.invalid_text(field, value, names::label_value(value));
    }
}

/// Keys and size of a ConfigMap or Secret; `whole` is the field that is blamed for the size.
fn content(object: &Value, fields: &[&str], whole: &str, causes: &mut Causes) {
    let mut size = 0;
    let mut seen = Vec::new();
    for field in fields {
        let map = object.get(*field).and_then(Value::as_object);
        for (key, value) in map.into_iter().flatten() {
            let path = format!("{field}[{key}]");
            causes.invalid_text(&path, key, names::config_map_key(key));
            if seen.contains(&key) {
                causes.invalid(&path, &key.as_str().into(), "duplicate of key present in data");
            }
            let text = value.as_str().unwrap_or_default();
            size += if *field == "data" && whole != *field { text.len() } else { decoded_len(text) };
        }
        seen.extend(map.into_iter().flat_map(serde_json::Map::keys));
    }
    if size > CONTENT_BYTES_MAX {
        let message = format!("Too long: may not be more than {CONTENT_BYTES_MAX} bytes");
        causes.0.push(Cause::new("FieldValueTooLong", whole, message));
    }
}

/// Bytes that base64 text stands for.
fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

fn pod_spec(object: &Value, at: &str, causes: &mut Causes) {
    let field = at.trim_start_matches('/').replace('/', ".");
    let containers = items(object, &format!("{at}/containers"));
    if containers.is_empty() {
        causes.required(&format!("{field}.containers"), "");
    }
    let mut seen = Vec::new();
    for list in ["initContainers", "containers"] {
        for (index, one) in items(object, &format!("{at}/{list}")).iter().enumerate() {
            container(one, &format!("{field}.{list}[{index}]"), &mut seen, causes);
        }
    }
    let restart = text(object, &format!("{at}/restartPolicy"));
    if !restart.is_empty() && !RESTART_POLICIES.contains(&restart) {
        causes.unsupported(&format!("{field}.restartPolicy"), restart, &RESTART_POLICIES);
    }
    let mut volumes = Vec::new();
    for (index, volume) in items(object, &format!("{at}/volumes")).iter().enumerate() {
        let name = text(volume, "/name");
        let place = format!("{field}.volumes[{index}].name");
        if name.is_empty() {
            causes.required(&place, "");
        } else {
            causes.invalid_text(&place, name, names::dns1123_label(name));
        }
        if volumes.contains(&name) {
            causes.duplicate(&place, name);
        }
        volumes.push(name);
    }
    for (index, one) in containers.iter().enumerate() {
        for (mount_index, mount) in items(one, "/volumeMounts").iter().enumerate() {
            let (name, place) =
                (text(mount, "/name"), format!("{field}.containers[{index}].volumeMounts[{mount_index}]"));
            if !volumes.contains(&name) {
                causes.0.push(Cause::new(
                    "FieldValueNotFound",
                    format!("{place}.name"),
                    format!("Not found: {name:?}"),
                ));
            }
            if text(mount, "/mountPath").is_empty() {
                causes.required(&format!("{place}.mountPath"), "");
            }
        }
    }
    causes.not_negative(object, &format!("{at}/terminationGracePeriodSeconds"));
}

fn container<'a>(one: &'a Value, place: &str, seen: &mut Vec<&'a str>, causes: &mut Causes) {
    let name = text(one, "/name");
    if name.is_empty() {
        causes.required(&format!("{place}.name"), "");
    } else {
        causes.invalid_text(&format!("{place}.name"), name, names::dns1123_label(name));
        if seen.contains(&name) {
            causes.duplicate(&format!("{place}.name"), name);
        }
        seen.push(name);
    }
    if text(one, "/image").is_empty() {
        causes.required(&format!("{place}.image"), "");
    }
    let pull = text(one, "/imagePullPolicy");
    if !pull.is_empty() && !PULL_POLICIES.contains(&pull) {
        causes.unsupported(&format!("{place}.imagePullPolicy"), pull, &PULL_POLICIES);
    }
    for (index, port) in items(one, "/ports").iter().enumerate() {
        let number = port.get("containerPort").and_then(Value::as_i64).unwrap_or(0);
        port_number(number, &format!("{place}.ports[{index}].containerPort"), causes);
    }
    for (index, variable) in items(one, "/env").iter().enumerate() {
        if text(variable, "/name").is_empty() {
            causes.required(&format!("{place}.env[{index}].name"), "");
        }
    }
    resources(one, place, causes);
}

/// A request may not exceed its limit, and none may be negative.
fn resources(one: &Value, place: &str, causes: &mut Causes) {
    let amount = |side: &str, resource: &str| {
        let value = one.pointer("/resources")?.get(side)?.get(resource)?;
        value.as_str()?.parse::<api::quantity::Quantity>().ok()
    };
    for side in ["limits", "requests"] {
        for (resource, value) in string_map(one, &format!("/resources/{side}")) {
            if amount(side, resource).is_some_and(|q| q.sign() < 0) {
                causes.invalid(
                    &format!("{place}.resources.{side}[{resource}]"),
                    &value.into(),
                    "must be greater than or equal to 0",
                );
            }
        }
    }
    for (resource, value) in string_map(one, "/resources/requests") {
        if let (Some(request), Some(limit)) = (amount("requests", resource), amount("limits", resource))
            && request > limit
        {
            let why = format!("must be less than or equal to {resource} limit of {limit}");
            causes.invalid(&format!("{place}.resources.requests"), &value.into(), &why);
        }
    }
}

fn port_number(number: i64, field: &str, causes: &mut Causes) {
    if number == 0 {
        causes.required(field, "");
    } else if !(1..=65535).contains(&number) {
        causes.invalid(field, &number.into(), "must be between 1 and 65535, inclusive");
    }
}

const SERVICE_TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

fn service(object: &Value, causes: &mut Causes) {
    let kind = text(object, "/spec/type");
    if !kind.is_empty() && !SERVICE_TYPES.contains(&kind) {
        causes.unsupported("spec.type", kind, &SERVICE_TYPES);
    }
    let ports = items(object, "/spec/ports");
    let headless = text(object, "/spec/clusterIP") == "None";
    if ports.is_empty() && !headless && kind != "ExternalName" {
        causes.required("spec.ports", "");
    }
    if kind == "ExternalName" && text(object, "/spec/externalName").is_empty() {
        causes.required("spec.externalName", "");
    }
    let mut names_seen = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
        let field = format!("spec.ports[{index}].port");
        if !(1..=65535).contains(&number) {
            causes.invalid(&field, &number.into(), "must be between 1 and 65535, inclusive");
        }
        let name = text(port, "/name");
        if name.is_empty() && ports.len() > 1 {
            causes.required(&format!("spec.ports[{index}].name"), "");
        } else if !name.is_empty() {
            causes.invalid_text(&format!("spec.ports[{index}].name"), name, names::dns1123_label(name));
            if names_seen.contains(&name) {
                causes.duplicate(&format!("spec.ports[{index}].name"), name);
            }
            names_seen.push(name);
        }
    }
    label_map(object, "/spec/selector", "spec.selector", causes);
}

fn template(object: &Value, causes: &mut Causes) {
    if object.pointer("/spec/template").is_none() {
        causes.required("spec.template", "");
        return;
    }
    label_map(object, "/spec/template/metadata/labels", "spec.template.metadata.labels", causes);
    pod_spec(object, "/spec/template/spec", causes);
}

fn workload(object: &Value, causes: &mut Causes) {
    causes.not_negative(object, "/spec/replicas");
    causes.not_negative(object, "/spec/minReadySeconds");
    let Some(selector) = object.pointer("/spec/selector") else {
        causes.required("spec.selector", "");
        template(object, causes);
        return;
    };
    match labels::from_label_selector(selector) {
        Err(error) => causes.invalid("spec.selector", selector, &error.to_string()),
        Ok(parsed) if parsed.is_everything() => {
            causes.invalid("spec.selector", selector, "empty selector is invalid for deployment");
        }
        Ok(parsed) => {
            let labels = string_map(object, "/spec/template/metadata/labels")
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect();
            if !parsed.matches(&labels) {
                let found = object.pointer("/spec/template/metadata/labels").cloned().unwrap_or(Value::Null);
                causes.invalid("spec.template.metadata.labels", &found, "`selector` does not match template `labels`");
            }
        }
    }
    template(object, causes);
    let restart = text(object, "/spec/template/spec/restartPolicy");
    if !restart.is_empty() && restart != "Always" {
        causes.unsupported("spec.template.spec.restartPolicy", restart, &["Always"]);
    }
}

/// Checks what may not change.
pub(super) fn validate_update(resource: &Resource, old: &Value, new: &Value) -> Result<(), Status> {
    let mut causes = Causes(Vec::new());
    match (resource.group, resource.name) {
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => {
            immutable(old, new, "/spec/selector", &mut causes);
        }
        ("", "pods") => pod_update(old, new, &mut causes),
        ("", "services") => {
            let held = text(old, "/spec/clusterIP");
            let external = text(new, "/spec/type") == "ExternalName" || text(old, "/spec/type") == "ExternalName";
            if !held.is_empty() && !external && text(new, "/spec/clusterIP") != held {
                let value = new.pointer("/spec/clusterIPs").cloned().unwrap_or(Value::Null);
                causes.invalid("spec.clusterIPs[0]", &value, "may not change once set");
            }
        }
        ("", "configmaps" | "secrets") if old.get("immutable") == Some(&Value::Bool(true)) => {
            for field in ["data", "binaryData", "immutable"] {
                if old.get(field) != new.get(field) {
                    let message = "Forbidden: field is immutable when `immutable` is set".to_owned();
                    causes.0.push(Cause::new("FieldValueForbidden", field, message));
                }
            }
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            immutable(old, new, "/roleRef", &mut causes);
        }
        ("storage.k8s.io", "storageclasses") => {
            for pointer in ["/provisioner", "/parameters", "/reclaimPolicy", "/volumeBindingMode"] {
                immutable(old, new, pointer, &mut causes);
            }
        }
        ("batch", "jobs") => immutable(old, new, "/spec/completionMode", &mut causes),
        _ => {}
    }
    causes.finish(resource, new)
}

fn immutable(old: &Value, new: &Value, pointer: &str, causes: &mut Causes) {
    if old.pointer(pointer) != new.pointer(pointer) {
        let field = pointer.trim_start_matches('/').replace('/', ".");
        let value = new.pointer(pointer).cloned().unwrap_or(Value::Null);
        causes.invalid(&field, &value, "field is immutable");
    }
}

/// A running pod may change its images and little else.
fn pod_update(old: &Value, new: &Value, causes: &mut Causes) {
    let comparable = |pod: &Value| {
        let mut spec = pod.get("spec").cloned().unwrap_or(Value::Null);
        for list in ["containers", "initContainers"] {
            for one in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(map) = one.as_object_mut() {
                    map.remove("image");
                }
            }
        }
        if let Some(map) = spec.as_object_mut() {
            for field in ["activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations", "schedulingGates"] {
                map.remove(field);
            }
        }
        spec
    };
    if comparable(old) != comparable(new) {
        let message = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)".to_owned();
        causes.0.push(Cause::new("FieldValueForbidden", "spec", message));
    }
}

#[cfg(test)]
mod tests;
