//! Deployment: moves pods from old templates to the new one, a step at a time.
//!
//! Invariants
//!   D1  Pods never exceed replicas + maxSurge.
//!   D2  Available pods are not taken below replicas − maxUnavailable.
//!   D3  A ReplicaSet that another controller owns is never touched.
//! Source: `pkg/controller/deployment` (rolling.go, sync.go, progress.go).

mod hash;
mod status;

pub use hash::template_hash;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::owner::{self, controlled_by, is_controlled_by, is_deleting, selects};
use crate::write::{Propagation, Target, Write, json};

/// Where a ReplicaSet says which revision of its Deployment it is.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";
/// Annotations that describe the Deployment alone and aren't copied.
const NOT_COPIED: [&str; 4] = ["kubectl.kubernetes.io/last-applied-configuration", REVISION, DESIRED, MAX];

/// What the controller sees of a Deployment.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The Deployment itself.
    pub deployment: Arc<Deployment>,
    /// Every ReplicaSet of its namespace.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// Names of ReplicaSets that still have pods which aren't gone, for Recreate.
    pub pods_remain: Vec<String>,
    /// Now, RFC 3339 in whole seconds, UTC.
    pub now: String,
    /// Now, in seconds since the epoch.
    pub unix: i64,
}

/// A ReplicaSet of the Deployment, as the rollout changes it.
#[derive(Debug, Clone)]
struct Step {
    set: Arc<ReplicaSet>,
    replicas: i32,
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

fn revision(annotations: Option<&std::collections::BTreeMap<String, String>>) -> i64 {
    annotations.and_then(|a| a.get(REVISION)).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// A whole number, or a percentage of `total`, rounded as asked.
fn scaled(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent = i64::from(text.trim_end_matches('%').parse::<i32>().unwrap_or(25));
            let product = percent * i64::from(total);
            let rounded = if up { (product + 99) / 100 } else { product / 100 };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
        None => scaled(Some(&IntOrString::String("25%".to_owned())), total, up),
    }
}

/// The bounds of a rollout: (maxSurge, maxUnavailable). Both zero would stand still.
fn bounds(deployment: &Deployment) -> (i32, i32) {
    let Some(spec) = &deployment.spec else { return (0, 0) };
    let total = spec.replicas.unwrap_or(1);
    let rolling = spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    if spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return (0, total);
    }
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), total, true);
    let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), total, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(total)) }
}

/// Decides what to write for a Deployment.
pub fn reconcile(observed: &Observed) -> Vec<Write> {
    let deployment = &observed.deployment;
    let Some(spec) = &deployment.spec else { return Vec::new() };
    let uid = deployment.metadata.uid.as_deref().unwrap_or("");
    let mut writes = Vec::new();
    let mut own: Vec<Arc<ReplicaSet>> = Vec::new();
    for set in &observed.sets {
        let matches = selects(&spec.selector, set.metadata.labels.as_ref());
        if is_controlled_by(&set.metadata, uid) {
            own.push(set.clone());
        } else if matches
            && owner::controller(&set.metadata).is_none()
            && !is_deleting(&set.metadata)
            && !is_deleting(&deployment.metadata)
        {
            // A set that is adopted by a Deployment that is gone would be collected.
            if writes.is_empty() {
                writes.push(Write::Confirm(Target::of::<Deployment>(&deployment.metadata), uid.to_owned()));
            }
            writes.push(adopt(deployment, set));
            own.push(set.clone());
        }
    }
    own.sort_by_key(|set| (set.metadata.creation_timestamp.as_ref().map(|t| t.0), set.metadata.name.clone()));
    if is_deleting(&deployment.metadata) {
        writes.extend(status::write(observed, &own, None));
        return writes;
    }
    let hash = template_hash(deployment);
    let new = own.iter().position(|set| is_current(deployment, set, &hash));
    let newest = own.iter().map(|set| revision(set.metadata.annotations.as_ref())).max().unwrap_or(0);
    let paused = spec.paused == Some(true);
    let new_set = match new {
        None if paused => None,
        None => {
            let recreate_waits = is_recreate(deployment) && old_pods_remain(observed, &own, None);
            if !recreate_waits {
                writes.push(Write::Create(new_replica_set(observed, &hash, newest + 1, &own)));
                writes.extend(annotate(deployment, newest + 1));
            }
            None
        }
        Some(index) => {
            let set = own.remove(index);
            writes.extend(keep_revision(deployment, &set, newest));
            Some(set)
        }
    };
    if let Some(new_set) = &new_set {
        writes.extend(roll(observed, new_set, &own, paused));
        if !paused {
            writes.extend(clean_up(deployment, new_set, &own));
        }
    } else if paused || is_recreate(deployment) {
        writes.extend(shrink_for_recreate(deployment, &own, paused));
    }
    let mut all = own;
    all.extend(new_set.iter().cloned());
    writes.extend(status::write(observed, &all, new_set.as_ref()));
    writes
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

fn old_pods_remain(observed: &Observed, old: &[Arc<ReplicaSet>], new: Option<&str>) -> bool {
    old.iter().any(|set| {
        let name = set.metadata.name.as_deref();
        name != new && name.is_some_and(|n| observed.pods_remain.iter().any(|p| p == n))
    })
}

/// The set whose template is the Deployment's, the label that names the hash aside.
fn is_current(deployment: &Deployment, set: &ReplicaSet, hash: &str) -> bool {
    let labelled = set.metadata.labels.as_ref().and_then(|l| l.get(HASH));
    if labelled.map(String::as_str) == Some(hash) {
        return true;
    }
    let template = |value: Option<&k8s_openapi::api::core::v1::PodTemplateSpec>| {
        let mut tree = json(&value);
        if let Some(labels) = tree.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.remove(HASH);
        }
        tree
    };
    let wanted = template(deployment.spec.as_ref().map(|s| &s.template));
    wanted == template(set.spec.as_ref().and_then(|s| s.template.as_ref()))
}

fn adopt(deployment: &Deployment, set: &ReplicaSet) -> Write {
    let mut owners = set.metadata.owner_references.clone().unwrap_or_default();
    owners.push(controlled_by::<Deployment>(&deployment.metadata));
    Write::Patch(
        Target::of::<ReplicaSet>(&set.metadata),
        json!({"metadata": {"uid": set.metadata.uid, "resourceVersion": set.metadata.resource_version,
            "ownerReferences": owners}}),
    )
}

fn new_replica_set(observed: &Observed, hash: &str, revision: i64, old: &[Arc<ReplicaSet>]) -> Value {
    let deployment = &observed.deployment;
    let name = deployment.metadata.name.as_deref().unwrap_or("");
    let spec = deployment.spec.clone().unwrap_or_default();
    let wanted = spec.replicas.unwrap_or(1);
    let (surge, _) = bounds(deployment);
    let existing: i32 = old.iter().map(|set| replicas(set)).sum();
    let first = if is_recreate(deployment) { wanted } else { (wanted + surge - existing).clamp(0, wanted) };
    let mut annotations: serde_json::Map<String, Value> = deployment
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.as_str().into()))
        .collect();
    annotations.insert(REVISION.into(), revision.to_string().into());
    annotations.insert(DESIRED.into(), wanted.to_string().into());
    annotations.insert(MAX.into(), (wanted + surge).to_string().into());
    let mut template = json(&spec.template);
    template["metadata"]["labels"][HASH] = hash.into();
    let mut selector = json(&spec.selector);
    selector["matchLabels"][HASH] = hash.into();
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{name}-{hash}"),
            "namespace": deployment.metadata.namespace,
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [controlled_by::<Deployment>(&deployment.metadata)]},
        "spec": {"replicas": first, "minReadySeconds": spec.min_ready_seconds.unwrap_or(0),
            "selector": selector, "template": template}})
}

/// The revision on the Deployment itself, which `kubectl rollout` reads.
fn annotate(deployment: &Deployment, revision_now: i64) -> Option<Write> {
    if revision(deployment.metadata.annotations.as_ref()) == revision_now {
        return None;
    }
    let patch = json!({"metadata": {"annotations": {REVISION: revision_now.to_string()}}});
    Some(Write::Patch(Target::of::<Deployment>(&deployment.metadata), patch))
}

/// A set that becomes current again, by an undo, gets the newest revision.
fn keep_revision(deployment: &Deployment, set: &ReplicaSet, newest: i64) -> Vec<Write> {
    let own = revision(set.metadata.annotations.as_ref());
    let now = if own < newest { newest + 1 } else { own.max(1) };
    let mut writes = Vec::new();
    if own != now {
        let patch = json!({"metadata": {"annotations": {REVISION: now.to_string()}}});
        writes.push(Write::Patch(Target::of::<ReplicaSet>(&set.metadata), patch));
    }
    writes.extend(annotate(deployment, now));
    writes
}

/// One step of a rollout: how many replicas each set is given now.
fn roll(observed: &Observed, new: &Arc<ReplicaSet>, old: &[Arc<ReplicaSet>], paused: bool) -> Vec<Write> {
    let deployment = &observed.deployment;
    let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    let mut new_step = Step { set: new.clone(), replicas: replicas(new) };
    let mut old_steps: Vec<Step> = old.iter().map(|set| Step { set: set.clone(), replicas: replicas(set) }).collect();
    let active: Vec<&Step> = old_steps.iter().filter(|s| s.replicas > 0).collect();
    if active.is_empty() {
        new_step.replicas = wanted;
    } else if was_scaled(deployment, new, old) {
        scale_proportionally(deployment, wanted, &mut new_step, &mut old_steps);
    } else if paused {
        // A paused rollout is scaled, never moved on.
    } else if is_recreate(deployment) {
        old_steps.iter_mut().for_each(|step| step.replicas = 0);
    } else {
        roll_step(deployment, wanted, &mut new_step, &mut old_steps);
    }
    if is_recreate(deployment) && old_pods_remain(observed, old, new.metadata.name.as_deref()) && replicas(new) == 0 {
        new_step.replicas = 0;
    }
    let (surge, _) = bounds(deployment);
    std::iter::once(&new_step).chain(&old_steps).filter_map(|step| resize(step, wanted, wanted + surge)).collect()
}

fn shrink_for_recreate(deployment: &Deployment, old: &[Arc<ReplicaSet>], paused: bool) -> Vec<Write> {
    if paused {
        return Vec::new();
    }
    let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    old.iter().filter_map(|set| resize(&Step { set: set.clone(), replicas: 0 }, wanted, wanted)).collect()
}

/// D1, D2: the new set grows into the surge, then old sets shrink as availability allows.
fn roll_step(deployment: &Deployment, wanted: i32, new: &mut Step, old: &mut [Step]) {
    let (surge, unavailable) = bounds(deployment);
    let total: i32 = new.replicas + old.iter().map(|s| s.replicas).sum::<i32>();
    if new.replicas > wanted {
        new.replicas = wanted;
        return;
    }
    if new.replicas < wanted && total < wanted + surge {
        new.replicas += (wanted + surge - total).min(wanted - new.replicas);
        return;
    }
    let new_unavailable = (new.replicas - available(&new.set)).max(0);
    let floor = wanted - unavailable;
    let mut room = total - floor - new_unavailable;
    if room <= 0 {
        return;
    }
    // Old pods that aren't available serve nobody: they go first.
    for step in old.iter_mut() {
        let idle = (step.replicas - available(&step.set)).clamp(0, room);
        step.replicas -= idle;
        room -= idle;
    }
    let all_available: i32 = available(&new.set) + old.iter().map(|s| available(&s.set)).sum::<i32>();
    let mut spare = (all_available - floor).max(0).min(room);
    for step in old.iter_mut() {
        let take = step.replicas.min(spare);
        step.replicas -= take;
        spare -= take;
    }
}

/// Whether `replicas` changed since the sets were last sized, in the middle of a rollout.
fn was_scaled(deployment: &Deployment, new: &Arc<ReplicaSet>, old: &[Arc<ReplicaSet>]) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    let sets = std::iter::once(new).chain(old).filter(|set| replicas(set) > 0);
    sets.filter_map(|set| set.metadata.annotations.as_ref()?.get(DESIRED)?.parse::<i32>().ok())
        .any(|desired| desired != wanted)
}

/// Spreads a change of `replicas` over all active sets, in proportion to their sizes.
fn scale_proportionally(deployment: &Deployment, wanted: i32, new: &mut Step, old: &mut [Step]) {
    let (surge, _) = bounds(deployment);
    let allowed = if wanted > 0 { wanted + surge } else { 0 };
    let total: i32 = new.replicas + old.iter().map(|s| s.replicas).sum::<i32>();
    if total == 0 {
        new.replicas = wanted;
        return;
    }
    let mut rest = allowed - total;
    let mut steps: Vec<&mut Step> = std::iter::once(new).chain(old.iter_mut()).filter(|s| s.replicas > 0).collect();
    steps.sort_by_key(|s| -s.replicas);
    for step in &mut steps {
        let exact = f64::from(step.replicas) * f64::from(allowed) / f64::from(total);
        let share = (exact.round() as i32 - step.replicas).clamp(rest.min(0), rest.max(0));
        step.replicas += share;
        rest -= share;
    }
    if let Some(largest) = steps.first_mut() {
        largest.replicas = (largest.replicas + rest).max(0);
    }
}

fn resize(step: &Step, desired: i32, max: i32) -> Option<Write> {
    let annotation =
        |key: &str| step.set.metadata.annotations.as_ref().and_then(|a| a.get(key)).cloned().unwrap_or_default();
    let annotated = annotation(DESIRED) == desired.to_string() && annotation(MAX) == max.to_string();
    let idle = step.replicas == 0 && replicas(&step.set) == 0;
    if replicas(&step.set) == step.replicas && (annotated || idle) {
        return None;
    }
    let patch = json!({"metadata": {"annotations": {DESIRED: desired.to_string(), MAX: max.to_string()}}, "spec": {"replicas": step.replicas}});
    Some(Write::Patch(Target::of::<ReplicaSet>(&step.set.metadata), patch))
}

/// Old sets beyond the history limit go, oldest revision first, once they are empty.
fn clean_up(deployment: &Deployment, new: &ReplicaSet, old: &[Arc<ReplicaSet>]) -> Vec<Write> {
    let limit = deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
    let limit = usize::try_from(limit).unwrap_or(0);
    let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    // History is trimmed when a rollout is over, not in its middle.
    if available(new) < wanted || old.iter().any(|set| replicas(set) > 0) {
        return Vec::new();
    }
    let empty = |set: &&Arc<ReplicaSet>| {
        !is_deleting(&set.metadata) && replicas(set) == 0 && set.status.as_ref().is_none_or(|s| s.replicas == 0)
    };
    let mut candidates: Vec<&Arc<ReplicaSet>> = old.iter().filter(empty).collect();
    candidates.sort_by_key(|set| revision(set.metadata.annotations.as_ref()));
    let surplus = candidates.len().saturating_sub(limit);
    let delete = |set: &Arc<ReplicaSet>| {
        Write::Delete(
            Target::of::<ReplicaSet>(&set.metadata),
            set.metadata.uid.clone().unwrap_or_default(),
            Propagation::Background,
        )
    };
    candidates.into_iter().take(surplus).map(delete).collect()
}

/// Seconds until progress must have been made; the shell looks again then.
pub fn next_look(observed: &Observed) -> Option<i64> {
    status::deadline_left(observed)
}

#[cfg(test)]
mod tests;
