//! Node lifecycle: a node that no longer renews its lease is marked, then its
//! pods are replaced elsewhere.
//!
//! Source: `pkg/controller/nodelifecycle`; periods are upstream's defaults.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use serde_json::{Value, json};

use crate::write::{Propagation, Target, Write, json};

/// Seconds without a renewal after which a node counts as unreachable.
pub const GRACE_SECONDS: i64 = 50;
/// Seconds on an unreachable node after which pods are deleted, unless they tolerate it longer.
pub const EVICT_AFTER_SECONDS: i64 = 300;
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Conditions that the node's agent keeps, and nobody knows once it is silent.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What the controller sees of a node.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The node itself.
    pub node: Arc<Node>,
    /// Its lease.
    pub lease: Option<Arc<Lease>>,
    /// The pods bound to it.
    pub pods: Vec<Arc<Pod>>,
    /// When this process first saw the node, in seconds: before that, silence proves nothing.
    pub first_seen: i64,
    /// Now, RFC 3339 in whole seconds, UTC.
    pub now: String,
    /// Now, in seconds since the epoch.
    pub unix: i64,
}

fn ready_status(node: &Node) -> Option<&str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.as_str())
}

/// When the node was last heard of.
fn heard(observed: &Observed) -> i64 {
    let renewed = observed.lease.as_ref().and_then(|l| l.spec.as_ref()).and_then(|s| s.renew_time.as_ref());
    renewed.map_or(0, |t| t.0.as_second()).max(observed.first_seen)
}

/// Decides what to write for a node and its pods.
pub fn reconcile(observed: &Observed) -> Vec<Write> {
    let silent = observed.unix - heard(observed) >= GRACE_SECONDS;
    let mut writes = Vec::new();
    let ready = ready_status(&observed.node);
    if silent && ready != Some("Unknown") {
        writes.push(mark_unknown(observed));
    }
    let status = if silent { "Unknown" } else { ready.unwrap_or("False") };
    writes.extend(taints(observed, status));
    if status != "True" {
        writes.extend(observed.pods.iter().filter_map(|pod| unready(observed, pod)));
        writes.extend(evict(observed));
    }
    writes
}

fn mark_unknown(observed: &Observed) -> Write {
    let mut conditions: Vec<Value> = observed
        .node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .filter(|c| !CONDITIONS.contains(&c.type_.as_str()))
        .map(json)
        .collect();
    conditions.extend(CONDITIONS.iter().map(|ty| {
        json!({"type": ty, "status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status.",
            "lastHeartbeatTime": observed.now, "lastTransitionTime": observed.now})
    }));
    let patch = json!({"metadata": {"uid": observed.node.metadata.uid}, "status": {"conditions": conditions}});
    Write::PatchStatus(Target::of::<Node>(&observed.node.metadata), patch)
}

/// The taints that keep pods away, and send them away, from a node in this state.
fn taints(observed: &Observed, status: &str) -> Option<Write> {
    let wanted: Option<&str> = match status {
        "True" => None,
        "Unknown" => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let old: Vec<Taint> = observed.node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let ours = |taint: &Taint| taint.key == NOT_READY || taint.key == UNREACHABLE;
    let mut new: Vec<Value> = old.iter().filter(|t| !ours(t) || Some(t.key.as_str()) == wanted).map(json).collect();
    if let Some(key) = wanted {
        for effect in ["NoSchedule", "NoExecute"] {
            if !old.iter().any(|t| t.key == key && t.effect == effect) {
                new.push(json!({"key": key, "effect": effect, "timeAdded": observed.now}));
            }
        }
    }
    let before: Vec<Value> = old.iter().map(json).collect();
    if new == before {
        return None;
    }
    let patch = json!({"metadata": {"uid": observed.node.metadata.uid, "resourceVersion": observed.node.metadata.resource_version},
        "spec": {"taints": if new.is_empty() { Value::Null } else { new.into() }}});
    Some(Write::Patch(Target::of::<Node>(&observed.node.metadata), patch))
}

/// Pods of a node that isn't ready are not ready either: services stop sending to them.
fn unready(observed: &Observed, pod: &Pod) -> Option<Write> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    if !conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
        return None;
    }
    let mut list: Vec<Value> = conditions.iter().filter(|c| c.type_ != "Ready").map(json).collect();
    list.push(json!({"type": "Ready", "status": "False", "lastTransitionTime": observed.now}));
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": list}});
    Some(Write::PatchStatus(Target::of::<Pod>(&pod.metadata), patch))
}

/// How long a pod may stay under a NoExecute taint; `None` for ever.
fn tolerated(pod: &Pod, taint: &Taint) -> Option<i64> {
    let tolerations = pod.spec.iter().flat_map(|s| s.tolerations.iter().flatten());
    let mut matching = tolerations
        .filter(|t| {
            let key = t.key.as_deref().unwrap_or("");
            let effect = t.effect.as_deref().unwrap_or("");
            let exists = t.operator.as_deref() == Some("Exists");
            (effect.is_empty() || effect == taint.effect)
                && (key == taint.key || (key.is_empty() && exists))
                && (exists || t.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""))
        })
        .peekable();
    if matching.peek().is_none() {
        // Upstream's admission adds this toleration to every pod that names none.
        return Some(EVICT_AFTER_SECONDS);
    }
    matching.map(|t| t.toleration_seconds).min_by_key(|s| s.unwrap_or(i64::MAX)).flatten()
}

fn evict(observed: &Observed) -> Vec<Write> {
    let taints = observed.node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    let Some(taint) = taints.clone().find(|t| t.effect == "NoExecute" && (t.key == NOT_READY || t.key == UNREACHABLE))
    else {
        return Vec::new();
    };
    let since = taint.time_added.as_ref().map_or(observed.unix, |t| t.0.as_second());
    let late = |pod: &&Arc<Pod>| {
        pod.metadata.deletion_timestamp.is_none()
            && tolerated(pod, taint).is_some_and(|limit| observed.unix - since >= limit)
    };
    observed.pods.iter().filter(late).map(|pod| delete(pod)).collect()
}

fn delete(pod: &Pod) -> Write {
    Write::Delete(
        Target::of::<Pod>(&pod.metadata),
        pod.metadata.uid.clone().unwrap_or_default(),
        Propagation::Background,
    )
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|node| !node.is_empty())
}

/// Nodes that have pods and aren't known. They may be new: whoever finds one asks the API whether it is there.
pub fn lost<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>, exists: impl Fn(&str) -> bool) -> BTreeSet<String> {
    pods.filter_map(|pod| node_of(pod)).filter(|node| !exists(node)).map(str::to_owned).collect()
}

/// Ends the pods of a node that is gone: nobody is left to do it, whatever grace they have.
pub fn orphans<'a>(node: &str, pods: impl Iterator<Item = &'a Arc<Pod>>) -> Vec<Write> {
    let end = |pod: &Arc<Pod>| {
        Write::DeleteAtOnce(Target::of::<Pod>(&pod.metadata), pod.metadata.uid.clone().unwrap_or_default())
    };
    pods.filter(|pod| node_of(pod) == Some(node)).map(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_value;

    const NOW: i64 = 1_767_225_600;

    fn observed(silent_for: i64, taint_age: Option<i64>, ready: &str) -> Observed {
        let at = |unix: i64| jiff::Timestamp::from_second(unix).expect("a time").to_string();
        let taints = taint_age.map(|age| {
            json!([
            {"key": UNREACHABLE, "effect": "NoSchedule"},
            {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": at(NOW - age)}])
        });
        let node = json!({"metadata": {"name": "n", "uid": "n"}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let lease = json!({"metadata": {"name": "n"}, "spec": {"renewTime": format!("{}.000000Z", at(NOW - silent_for).trim_end_matches('Z'))}});
        let pod = json!({"metadata": {"name": "p", "uid": "p"}, "spec": {"containers": [], "nodeName": "n"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        Observed {
            node: Arc::new(from_value(node).expect("a Node")),
            lease: Some(Arc::new(from_value(lease).expect("a Lease"))),
            pods: vec![Arc::new(from_value(pod).expect("a Pod"))],
            first_seen: 0,
            now: at(NOW),
            unix: NOW,
        }
    }

    #[test]
    fn a_node_that_renews_is_left_alone() {
        assert!(reconcile(&observed(5, None, "True")).is_empty());
    }

    #[test]
    fn a_silent_node_is_marked_and_tainted_and_its_pods_are_unready() {
        let writes = reconcile(&observed(60, None, "True"));
        assert_eq!(writes.len(), 3, "{writes:?}");
        assert!(
            matches!(&writes[0], Write::PatchStatus(t, p) if t.kind == "Node" && p["status"]["conditions"][0]["status"] == "Unknown")
        );
        assert!(
            matches!(&writes[1], Write::Patch(t, p) if t.kind == "Node" && p["spec"]["taints"].as_array().is_some_and(|l| l.len() == 2))
        );
        assert!(matches!(&writes[2], Write::PatchStatus(t, _) if t.kind == "Pod"));
    }

    #[test]
    fn pods_are_replaced_after_five_minutes() {
        let deletes = |age| {
            reconcile(&observed(900, Some(age), "Unknown")).iter().filter(|w| matches!(w, Write::Delete(..))).count()
        };
        assert_eq!((deletes(299), deletes(300)), (0, 1));
    }

    #[test]
    fn a_node_that_returns_loses_its_taints() {
        let writes = reconcile(&observed(1, Some(100), "True"));
        assert!(matches!(writes.as_slice(), [Write::Patch(_, p)] if p["spec"]["taints"].is_null()), "{writes:?}");
    }

    /// A deletion with grace waits for the node's agent, which never comes.
    #[test]
    fn pods_of_a_node_that_is_gone_end_at_once() {
        let pod = observed(1, None, "True").pods;
        assert_eq!(lost(pod.iter(), |_| false), BTreeSet::from(["n".to_owned()]));
        assert_eq!(lost(pod.iter(), |node| node == "n"), BTreeSet::new());
        assert!(
            matches!(orphans("n", pod.iter()).as_slice(), [Write::DeleteAtOnce(t, uid)] if t.name == "p" && uid == "p")
        );
        assert_eq!(orphans("m", pod.iter()), []);
    }
}
