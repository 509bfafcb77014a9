//! Defaults: what Kubernetes fills in where an author was silent.
//!
//! OpenAPI doesn't hold them: they are functions, one for each type that has any,
//! found by walking the object along its schema. A default never replaces a value
//! that is there, so applying twice changes nothing.
//! Source: Kubernetes' `pkg/apis/*/*/defaults.go`.

mod pod;
mod rare;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use crate::schema::{Element, Shape, TypeId};

/// Fills in the defaults of an object of a type.
pub fn apply(ty: TypeId, object: &mut Value) {
    if let Value::Object(map) = object {
        visit(ty, map);
    }
}

/// Parents before children: a parent's default may depend on what its children lack.
fn visit(ty: TypeId, map: &mut Map<String, Value>) {
    of_type(ty, map);
    for field in ty.fields() {
        let Element::Ref(inner) = field.shape.element() else { continue };
        match (field.shape, map.get_mut(field.name)) {
            (Shape::One(_), Some(Value::Object(one))) => visit(inner, one),
            (Shape::List(_), Some(Value::Array(list))) => {
                list.iter_mut().filter_map(Value::as_object_mut).for_each(|one| visit(inner, one));
            }
            (Shape::Map(_), Some(Value::Object(all))) => {
                all.values_mut().filter_map(Value::as_object_mut).for_each(|one| visit(inner, one));
            }
            _ => {}
        }
    }
    after_children(ty, map);
}

/// Sets a field that is absent, or an empty string where Go's zero value counts as absent.
pub(crate) fn set(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    let absent = match map.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        _ => false,
    };
    if absent {
        map.insert(field.to_owned(), value.into());
    }
}

/// Sets a number that is absent or 0.
pub(crate) fn set_number(map: &mut Map<String, Value>, field: &str, value: i64) {
    if map.get(field).and_then(Value::as_i64).unwrap_or(0) == 0 {
        map.insert(field.to_owned(), value.into());
    }
}

fn text<'a>(map: &'a Map<String, Value>, field: &str) -> &'a str {
    map.get(field).and_then(Value::as_str).unwrap_or("")
}

/// A member that is a map; made if absent.
pub(crate) fn child<'a>(map: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    map.entry(field).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

fn of_type(ty: TypeId, map: &mut Map<String, Value>) {
    let package = ty.package();
    match package {
        "io.k8s.api.core.v1" => core(ty.name(), map),
        "io.k8s.api.apps.v1" => apps(ty.name(), map),
        "io.k8s.api.batch.v1" => batch(ty.name(), map),
        "io.k8s.api.rbac.v1" => rbac(ty.name(), map),
        "io.k8s.api.networking.v1" => networking(ty.name(), map),
        "io.k8s.api.discovery.v1" if ty.name() == "EndpointPort" => {
            set(map, "name", "");
            set(map, "protocol", "TCP");
        }
        "io.k8s.api.storage.v1" => storage(ty.name(), map),
        "io.k8s.api.scheduling.v1" if ty.name() == "PriorityClass" => {
            set(map, "preemptionPolicy", "PreemptLowerPriority")
        }
        "io.k8s.api.autoscaling.v1" if ty.name() == "HorizontalPodAutoscalerSpec" => set(map, "minReplicas", 1),
        "io.k8s.api.autoscaling.v2" => rare::autoscaling(ty.name(), map),
        "io.k8s.api.flowcontrol.v1" => rare::flowcontrol(ty.name(), map),
        "io.k8s.api.resource.v1" => rare::devices(ty.name(), map),
        _ if package.starts_with("io.k8s.api.admissionregistration.") => admission(ty.name(), map),
        _ => {}
    }
}

fn core(name: &str, map: &mut Map<String, Value>) {
    match name {
        "Namespace" => {
            child(map, "spec");
        }
        "Secret" => set(map, "type", "Opaque"),
        "ServiceSpec" => service(map),
        "ServicePort" => {
            set(map, "protocol", "TCP");
            let port = map.get("port").cloned().unwrap_or_else(|| 0.into());
            if matches!(map.get("targetPort"), None | Some(Value::Null))
                || map["targetPort"] == 0
                || map["targetPort"] == ""
            {
                map.insert("targetPort".to_owned(), port);
            }
        }
        "EndpointPort" => set(map, "protocol", "TCP"),
        "PersistentVolume" | "PersistentVolumeClaim" => {
            if let Some(status) = child(map, "status") {
                set(status, "phase", "Pending");
            }
        }
        "LimitRangeItem" => rare::limit_range(map),
        "ReplicationController" => {
            label_as_template(map);
            if let Some(labels) = template_labels(map)
                && let Some(spec) = child(map, "spec")
                && is_empty(spec.get("selector"))
            {
                spec.insert("selector".to_owned(), labels);
            }
        }
        "PersistentVolumeSpec" => {
            set(map, "persistentVolumeReclaimPolicy", "Retain");
            set(map, "volumeMode", "Filesystem");
        }
        "PersistentVolumeClaimSpec" => set(map, "volumeMode", "Filesystem"),
        "ReplicationControllerSpec" => set(map, "replicas", 1),
        "NodeStatus" => node_status(map),
        _ => pod::of_type(name, map),
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    value.and_then(Value::as_object).is_none_or(Map::is_empty)
}

fn template_labels(map: &Map<String, Value>) -> Option<Value> {
    let template = map.get("spec")?.get("template")?;
    template.pointer("/metadata/labels").filter(|labels| !is_empty(Some(labels))).cloned()
}

/// An object without labels takes those of its template.
fn label_as_template(map: &mut Map<String, Value>) {
    if let Some(labels) = template_labels(map)
        && let Some(metadata) = child(map, "metadata")
        && is_empty(metadata.get("labels"))
    {
        metadata.insert("labels".to_owned(), labels);
    }
}

fn node_status(map: &mut Map<String, Value>) {
    if !map.contains_key("allocatable")
        && let Some(capacity) = map.get("capacity").cloned()
    {
        map.insert("allocatable".to_owned(), capacity);
    }
}

fn service(map: &mut Map<String, Value>) {
    set(map, "sessionAffinity", "None");
    set(map, "type", "ClusterIP");
    let kind = text(map, "type").to_owned();
    if text(map, "sessionAffinity") == "ClientIP"
        && let Some(config) = child(map, "sessionAffinityConfig")
        && let Some(client) = child(config, "clientIP")
    {
        set_number(client, "timeoutSeconds", 10800);
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        set(map, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(map, "allocateLoadBalancerNodePorts", true);
    }
    if kind != "ExternalName" {
        set(map, "internalTrafficPolicy", "Cluster");
    }
}

fn apps(name: &str, map: &mut Map<String, Value>) {
    match name {
        "DeploymentSpec" => {
            set(map, "replicas", 1);
            set(map, "revisionHistoryLimit", 10);
            set(map, "progressDeadlineSeconds", 600);
            if let Some(strategy) = child(map, "strategy") {
                set(strategy, "type", "RollingUpdate");
                rolling(strategy, &[("maxUnavailable", json!("25%")), ("maxSurge", json!("25%"))]);
            }
        }
        "ReplicaSetSpec" => set(map, "replicas", 1),
        "StatefulSetSpec" => {
            set(map, "replicas", 1);
            set(map, "revisionHistoryLimit", 10);
            set(map, "podManagementPolicy", "OrderedReady");
            if let Some(strategy) = child(map, "updateStrategy") {
                set(strategy, "type", "RollingUpdate");
                rolling(strategy, &[("partition", json!(0))]);
            }
            if let Some(retention) = child(map, "persistentVolumeClaimRetentionPolicy") {
                set(retention, "whenDeleted", "Retain");
                set(retention, "whenScaled", "Retain");
            }
        }
        "DaemonSetSpec" => {
            set(map, "revisionHistoryLimit", 10);
            if let Some(strategy) = child(map, "updateStrategy") {
                set(strategy, "type", "RollingUpdate");
                rolling(strategy, &[("maxUnavailable", json!(1)), ("maxSurge", json!(0))]);
            }
        }
        _ => {}
    }
}

fn rolling(strategy: &mut Map<String, Value>, defaults: &[(&str, Value)]) {
    if text(strategy, "type") != "RollingUpdate" {
        return;
    }
    if let Some(update) = child(strategy, "rollingUpdate") {
        for (field, value) in defaults {
            set(update, field, value.clone());
        }
    }
}

fn batch(name: &str, map: &mut Map<String, Value>) {
    match name {
        "Job" => label_as_template(map),
        "PodFailurePolicyOnPodConditionsPattern" => set(map, "status", "True"),
        "JobSpec" => {
            let unset = |map: &Map<String, Value>, field: &str| matches!(map.get(field), None | Some(Value::Null));
            if unset(map, "completions") && unset(map, "parallelism") {
                map.insert("completions".to_owned(), 1.into());
                map.insert("parallelism".to_owned(), 1.into());
            }
            set(map, "parallelism", 1);
            let limit = if map.contains_key("backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
            set(map, "backoffLimit", limit);
            set(map, "completionMode", "NonIndexed");
            set(map, "suspend", false);
            set(map, "manualSelector", false);
            set(
                map,
                "podReplacementPolicy",
                if map.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" },
            );
        }
        "CronJobSpec" => {
            set(map, "concurrencyPolicy", "Allow");
            set(map, "suspend", false);
            set(map, "successfulJobsHistoryLimit", 3);
            set(map, "failedJobsHistoryLimit", 1);
        }
        _ => {}
    }
}

fn rbac(name: &str, map: &mut Map<String, Value>) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    match name {
        "RoleBinding" | "ClusterRoleBinding" => {
            if let Some(role) = map.get_mut("roleRef").and_then(Value::as_object_mut) {
                set(role, "apiGroup", GROUP);
            }
        }
        "Subject" if matches!(text(map, "kind"), "User" | "Group") => set(map, "apiGroup", GROUP),
        _ => {}
    }
}

fn networking(name: &str, map: &mut Map<String, Value>) {
    match name {
        "NetworkPolicyPort" => set(map, "protocol", "TCP"),
        "IngressClassParametersReference" => set(map, "scope", "Cluster"),
        "NetworkPolicySpec" if !map.contains_key("policyTypes") => {
            let mut types = vec!["Ingress"];
            if map.get("egress").and_then(Value::as_array).is_some_and(|e| !e.is_empty()) {
                types.push("Egress");
            }
            map.insert("policyTypes".to_owned(), json!(types));
        }
        _ => {}
    }
}

fn storage(name: &str, map: &mut Map<String, Value>) {
    match name {
        "StorageClass" => {
            set(map, "reclaimPolicy", "Delete");
            set(map, "volumeBindingMode", "Immediate");
        }
        "CSIDriverSpec" => {
            for (field, value) in [
                ("attachRequired", true),
                ("podInfoOnMount", false),
                ("storageCapacity", false),
                ("requiresRepublish", false),
                ("seLinuxMount", false),
            ] {
                set(map, field, value);
            }
            set(map, "fsGroupPolicy", "ReadWriteOnceWithFSType");
            if !map.contains_key("volumeLifecycleModes") {
                map.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
            }
        }
        _ => {}
    }
}

fn admission(name: &str, map: &mut Map<String, Value>) {
    match name {
        "ValidatingWebhook" | "MutatingWebhook" => {
            set(map, "failurePolicy", "Fail");
            set(map, "matchPolicy", "Equivalent");
            for selector in ["namespaceSelector", "objectSelector"] {
                child(map, selector);
            }
            set(map, "timeoutSeconds", 10);
            if name == "MutatingWebhook" {
                set(map, "reinvocationPolicy", "Never");
            }
        }
        "RuleWithOperations" | "NamedRuleWithOperations" => set(map, "scope", "*"),
        "ServiceReference" => set(map, "port", 443),
        "ValidatingAdmissionPolicySpec" | "MutatingAdmissionPolicySpec" => set(map, "failurePolicy", "Fail"),
        "MatchResources" => {
            set(map, "matchPolicy", "Equivalent");
            for selector in ["namespaceSelector", "objectSelector"] {
                child(map, selector);
            }
        }
        _ => {}
    }
}

/// Defaults that depend on defaulted children.
fn after_children(ty: TypeId, map: &mut Map<String, Value>) {
    if ty.package() == "io.k8s.api.core.v1" && ty.name() == "PodSpec" {
        pod::after_children(map);
    }
}
