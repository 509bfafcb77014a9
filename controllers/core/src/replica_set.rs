//! ReplicaSet: as many pods as asked for, made from its template.
//!
//! Invariants
//!   R1  Pods that another controller owns are never touched.
//!   R2  A reconcile creates or deletes at most [`BURST_MAX`] pods.
//!   R3  Of too many pods, the least useful go first.
//!   R4  A pod is adopted only by a set that the API, asked anew, has and isn't deleting (upstream's CanAdoptFunc): one that
//!       is adopted by a set that is gone would be collected. Who owns a pod changes only in the version that was seen.
//! Source: `pkg/controller/replicaset/replica_set.go`, ActivePodsWithRanks.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::owner::{self, controlled_by, is_controlled_by, is_deleting, selects};
use crate::write::{Propagation, Target, Write, json};

/// Pods created or deleted by one reconcile.
pub const BURST_MAX: usize = 500;

/// What the controller sees of a ReplicaSet.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The set itself.
    pub set: Arc<ReplicaSet>,
    /// Every pod of its namespace.
    pub pods: Vec<Arc<Pod>>,
    /// Creations asked for earlier that the informer hasn't shown yet.
    pub creating: usize,
    /// UIDs of pods whose deletion was asked for and isn't shown yet.
    pub deleting: Vec<String>,
    /// Now, in seconds since the epoch.
    pub now: i64,
}

/// Whether a pod is alive: neither ended nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("");
    !is_deleting(&pod.metadata) && phase != "Succeeded" && phase != "Failed"
}

/// When the pod's Ready condition became true, in seconds; `None` if it isn't ready.
pub fn ready_since(pod: &Pod) -> Option<i64> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(0, |t| t.0.as_second()))
}

/// Decides what to write for a ReplicaSet.
pub fn reconcile(observed: &Observed) -> Vec<Write> {
    let set = &observed.set;
    let Some(spec) = &set.spec else { return Vec::new() };
    let uid = set.metadata.uid.as_deref().unwrap_or("");
    let (mut writes, mut adopting) = (Vec::new(), Vec::new());
    let mut active: Vec<&Arc<Pod>> = Vec::new();
    for pod in observed.pods.iter().filter(|pod| is_active(pod)) {
        let matches = selects(&spec.selector, pod.metadata.labels.as_ref());
        let controlled = is_controlled_by(&pod.metadata, uid);
        match (controlled, matches) {
            (true, true) => active.push(pod),
            // Its labels were changed: it is let go, and replaced.
            (true, false) => writes.push(release(pod, uid)),
            // R1: adopted only if nobody controls it.
            (false, true) if owner::controller(&pod.metadata).is_none() && !is_deleting(&set.metadata) => {
                adopting.push(adopt(set, pod));
                active.push(pod);
            }
            _ => {}
        }
    }
    if !adopting.is_empty() {
        writes.push(Write::Confirm(Target::of::<ReplicaSet>(&set.metadata), uid.to_owned()));
        writes.append(&mut adopting);
    }
    if !is_deleting(&set.metadata) {
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        writes.extend(scale(observed, &active, wanted));
    }
    writes.extend(status(observed, &active));
    writes
}

fn adopt(set: &ReplicaSet, pod: &Pod) -> Write {
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.push(controlled_by::<ReplicaSet>(&set.metadata));
    own(pod, &json(&owners))
}

/// R4: who owns the pod from now on, if it is as it was seen.
fn own(pod: &Pod, owners: &Value) -> Write {
    let metadata = &pod.metadata;
    let patch = json!({"metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version,
        "ownerReferences": owners}});
    Write::Patch(Target::of::<Pod>(metadata), patch)
}

fn release(pod: &Pod, uid: &str) -> Write {
    let owners: Vec<_> = pod.metadata.owner_references.iter().flatten().filter(|o| o.uid != uid).cloned().collect();
    let owners: Value = if owners.is_empty() { Value::Null } else { json(&owners) };
    own(pod, &owners)
}

/// Whose set may want to adopt a pod that nobody controls: all that select it.
pub fn would_adopt(set: &ReplicaSet, pod: &Pod) -> bool {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    owner::controller(&pod.metadata).is_none()
        && set.metadata.namespace == pod.metadata.namespace
        && selector.is_some_and(|selector| selects(selector, pod.metadata.labels.as_ref()))
}

fn scale(observed: &Observed, active: &[&Arc<Pod>], wanted: usize) -> Vec<Write> {
    let leaving = |pod: &&&Arc<Pod>| observed.deleting.iter().any(|uid| Some(uid) == pod.metadata.uid.as_ref());
    let alive = active.len() - active.iter().filter(leaving).count();
    let expected = alive + observed.creating;
    if expected < wanted {
        let count = (wanted - expected).min(BURST_MAX);
        return (0..count).map(|_| Write::Create(pod_from_template(&observed.set))).collect();
    }
    // Deletions wait until earlier creations are seen, or a pod too many might go.
    if alive <= wanted || observed.creating > 0 {
        return Vec::new();
    }
    let mut candidates: Vec<&Arc<Pod>> = active.iter().filter(|pod| !leaving(pod)).copied().collect();
    candidates.sort_by_cached_key(|pod| usefulness(pod, active, observed.now));
    let surplus = (alive - wanted).min(BURST_MAX);
    candidates.into_iter().take(surplus).map(|pod| delete(pod)).collect()
}

fn delete(pod: &Pod) -> Write {
    Write::Delete(
        Target::of::<Pod>(&pod.metadata),
        pod.metadata.uid.clone().unwrap_or_default(),
        Propagation::Background,
    )
}

/// The order in which pods go (R3), least useful first: unassigned, pending, not ready,
/// cheap to delete, crowded nodes, young, restarted, recently made.
fn usefulness(pod: &Arc<Pod>, all: &[&Arc<Pod>], now: i64) -> (bool, u8, bool, i64, i64, i64, i64, i64, String) {
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("");
    let phase = match pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    };
    let cost = pod.metadata.annotations.as_ref().and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost"));
    let cost = cost.and_then(|c| c.parse::<i64>().ok()).unwrap_or(0);
    let same_node = |other: &&&Arc<Pod>| other.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node);
    let crowd = all.iter().filter(same_node).count() as i64;
    // Ages count in powers of two, so that a few seconds decide nothing.
    let log = |age: i64| i64::from(63 - (age.max(1) as u64).leading_zeros());
    let ready_age = ready_since(pod).map_or(0, |since| log(now - since));
    let restarts = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let restarts = restarts.into_iter().flatten().map(|s| i64::from(s.restart_count)).max().unwrap_or(0);
    let created = pod.metadata.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second());
    let name = pod.metadata.name.clone().unwrap_or_default();
    (!node.is_empty(), phase, ready_since(pod).is_some(), cost, -crowd, ready_age, -restarts, log(now - created), name)
}

/// A pod as the template describes it.
fn pod_from_template(set: &ReplicaSet) -> Value {
    let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
    let metadata = template.and_then(|t| t.metadata.as_ref());
    let mut object = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": format!("{}-", set.metadata.name.as_deref().unwrap_or("")),
            "namespace": set.metadata.namespace,
            "ownerReferences": [controlled_by::<ReplicaSet>(&set.metadata)]},
        "spec": template.and_then(|t| t.spec.as_ref())});
    let copied = [
        ("labels", metadata.and_then(|m| m.labels.clone())),
        ("annotations", metadata.and_then(|m| m.annotations.clone())),
    ];
    for (field, map) in copied {
        if let Some(map) = map {
            object["metadata"][field] = json(&map);
        }
    }
    if let Some(finalizers) = metadata.and_then(|m| m.finalizers.clone()) {
        object["metadata"]["finalizers"] = json(&finalizers);
    }
    object
}

fn status(observed: &Observed, active: &[&Arc<Pod>]) -> Option<Write> {
    let set = &observed.set;
    let spec = set.spec.as_ref()?;
    let min_ready = i64::from(spec.min_ready_seconds.unwrap_or(0));
    let template = spec.template.as_ref().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.as_ref());
    let labelled = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        template.into_iter().flatten().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
    };
    let ready: Vec<i64> = active.iter().filter_map(|pod| ready_since(pod)).collect();
    let available = ready.iter().filter(|since| observed.now - **since >= min_ready).count();
    let some = |n: usize| (n > 0).then(|| i32::try_from(n).unwrap_or(i32::MAX));
    let old = set.status.clone().unwrap_or_default();
    let new = ReplicaSetStatus {
        replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: some(active.iter().filter(|pod| labelled(pod)).count()),
        ready_replicas: some(ready.len()),
        available_replicas: some(available),
        observed_generation: set.metadata.generation,
        ..old.clone()
    };
    if new == old {
        return None;
    }
    let mut changed = ReplicaSet::clone(set);
    changed.status = Some(new);
    Some(Write::UpdateStatus(json(&changed)))
}

/// Seconds until a ready pod counts as available; the shell looks again then.
pub fn next_look(observed: &Observed) -> Option<i64> {
    let min_ready = i64::from(observed.set.spec.as_ref()?.min_ready_seconds.unwrap_or(0));
    let uid = observed.set.metadata.uid.as_deref()?;
    let own = observed.pods.iter().filter(|pod| is_active(pod) && is_controlled_by(&pod.metadata, uid));
    own.filter_map(|pod| ready_since(pod)).map(|since| since + min_ready - observed.now).filter(|left| *left > 0).min()
}

#[cfg(test)]
mod tests;
