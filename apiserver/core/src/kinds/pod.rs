//! Pods: quality of service, binding, graceful deletion.

use api::status::Status;
use serde_json::{Value, json};

use crate::meta;

/// A new pod is pending, whatever its author says.
pub(super) fn on_create(object: &mut Value) {
    object["status"] = json!({"phase": "Pending", "qosClass": qos_class(object)});
}

/// A pod's node is chosen once, by binding.
pub(super) fn keep_node(old: &Value, new: &mut Value) {
    let node = meta::text(old, "/spec/nodeName");
    if !node.is_empty() && meta::text(new, "/spec/nodeName").is_empty() {
        new["spec"]["nodeName"] = node.into();
    }
}

/// The quality-of-service class. Source: `pkg/apis/core/v1/helper/qos` ComputePodQOS.
fn qos_class(pod: &Value) -> &'static str {
    let containers = || ["/spec/containers", "/spec/initContainers"].into_iter().flat_map(|p| meta::items(pod, p));
    let amount = |container: &Value, side: &str, resource: &str| -> Option<String> {
        let pointer = format!("/resources/{side}/{resource}");
        let value = container.pointer(&pointer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let quantity = text.parse::<api::quantity::Quantity>().ok()?;
        (!quantity.is_zero()).then(|| quantity.to_string())
    };
    let mut any = false;
    let mut guaranteed = true;
    for container in containers() {
        for resource in ["cpu", "memory"] {
            let limit = amount(container, "limits", resource);
            let request = amount(container, "requests", resource);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Seconds a deletion leaves the pod. Source: pod strategy CheckGracefulDelete.
pub(super) fn grace(asked: Option<i64>, pod: &Value) -> i64 {
    let ended = matches!(meta::text(pod, "/status/phase"), "Succeeded" | "Failed");
    if meta::text(pod, "/spec/nodeName").is_empty() || ended {
        return 0;
    }
    let own = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
    asked.unwrap_or(own).max(0)
}

/// Binds a pod to a node, as the `binding` subresource does.
///
/// # Errors
/// 409 if the pod is bound or being deleted, 400 for a binding without a node.
pub fn bind(pod: &Value, binding: &Value, now: &str) -> Result<Value, Status> {
    let name = meta::name(pod);
    let conflict = |why: &str| Err(Status::conflict("", "pods/binding", name, why));
    let target = meta::text(binding, "/target/name");
    if target.is_empty() {
        return Err(Status::bad_request("target.name: Required value"));
    }
    if !meta::uid(binding).is_empty() && meta::uid(binding) != meta::uid(pod) {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            meta::uid(binding),
            meta::uid(pod)
        );
        return conflict(&why);
    }
    if meta::is_deleting(pod) {
        return conflict(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = meta::text(pod, "/spec/nodeName");
    if !node.is_empty() {
        return conflict(&format!("pod {name} is already assigned to node {node:?}"));
    }
    let mut bound = pod.clone();
    meta::unset(&mut bound, "resourceVersion");
    bound["spec"]["nodeName"] = target.into();
    for (key, value) in meta::string_map(binding, "/metadata/annotations") {
        bound["metadata"]["annotations"][key] = value.into();
    }
    set_scheduled(&mut bound, now);
    Ok(bound)
}

fn set_scheduled(pod: &mut Value, now: &str) {
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let mut conditions: Vec<Value> =
        meta::items(pod, "/status/conditions").iter().filter(|c| c["type"] != "PodScheduled").cloned().collect();
    conditions.push(condition);
    pod["status"]["conditions"] = conditions.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        assert_eq!(qos_class(&pod(json!({}))), "BestEffort");
        assert_eq!(qos_class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        assert_eq!(qos_class(&pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))), "Guaranteed");
        let uneven = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}});
        assert_eq!(qos_class(&pod(uneven)), "Burstable");
    }

    #[test]
    fn a_pod_is_bound_once() {
        let binding = json!({"target": {"name": "n1"}});
        let bound = bind(&pod(json!({})), &binding, "2026-01-01T00:00:00Z").expect("free pod");
        assert_eq!(bound["spec"]["nodeName"], "n1");
        assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
        assert!(bind(&bound, &binding, "2026-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn only_a_bound_running_pod_needs_grace() {
        let mut running = pod(json!({}));
        assert_eq!(grace(None, &running), 0);
        running["spec"]["nodeName"] = "n".into();
        assert_eq!(grace(None, &running), 30);
        assert_eq!(grace(Some(5), &running), 5);
        running["status"]["phase"] = "Failed".into();
        assert_eq!(grace(None, &running), 0);
    }
}
